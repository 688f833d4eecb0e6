"""Several runs in one process: each as in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from maekit.engine import metrics

PROGRAM = """
import os, sys, torch, maekit
from maekit.recipes import classify, pretrain, probe

few = {"validation.images": 60, "validation.every": 0.01}

def a():
    maekit.pretrain("digits", out="a", steps=3, seed=1, device="cpu", options=few | {"run.ema": 0.9})

def b():
    torch.manual_seed(7)
    maekit.pretrain("digits", out="b", steps=2, seed=2, device="cpu", workers=1, mask_ratio=0.5, options=few)

def c():
    mixed = {"mix.mixup": 0.8, "classifier.drop_path": 0.2, "augment.erase": 0.5}
    maekit.finetune("digits", weights="a", out="c", per_class=3, steps=3, device="cpu", workers=0, options=mixed)

def d():
    maekit.probe("a", "digits:train", val="digits:test", kinds=["attentive"], epochs=1, per_class=9, workers=0)

def run(folder, *work):
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    for one in work:
        torch.set_num_threads(2 if one is b else 1)
        one()

for work in (a, b, c):  # each in a process that has done nothing yet
    if (child := os.fork()) == 0:
        run("many", work)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
run("one", b, a, d, c)
"""


@pytest.mark.slow
def test_each_of_several_runs_is_as_in_a_process_of_its_own(tmp_path):
    patient = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}  # two threads where cores are few
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=patient)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    for name in "abc":
        one, many = tmp_path / "one" / name, tmp_path / "many" / name
        (history, weights), (alone, own) = (
            (metrics.read(run / "metrics.jsonl"), load_file(run / "model.safetensors")) for run in (one, many)
        )
        for line in history + alone:
            for timed in ("images_per_second", "waiting", "mfu"):
                line.pop(timed)
        assert history == alone
        assert all(torch.equal(weights[key], own[key]) for key in {*weights, *own})
        lines = (one / "log.txt").read_text().splitlines()
        assert [line.split()[-1] for line in lines if "  run  " in line] == [name]
        assert json.loads((one / "config.json").read_text())["config"]["run"]["out"] == name
