"""The cluster files: what can be checked without a cluster."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from maekit.calling import command_of
from maekit.config import PretrainConfig
from maekit.config.arguments import parse
from maekit.presets import PRETRAIN

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"
SAVED = "maekit: stopped by SIGTERM after saving step 7"


def maekit_words(words):
    """What follows `-m maekit pretrain vit-large` in a command."""
    start = words.index("maekit")
    assert words[start - 1] == "-m"
    assert words[start + 1 : start + 3] == ["pretrain", "vit-large"]
    return words[start + 3 :]


def check(words):
    """maekit can read the command; it goes on by itself in a fixed folder."""
    config = parse(PretrainConfig, words, command_of("pretrain", "vit-large"), PRETRAIN["vit-large"]())
    assert config.run.resume
    assert config.run.out
    assert config.data.source


@pytest.mark.parametrize("name", ["slurm.sbatch", "two-nodes.sh"])
def test_scripts_are_bash(name):
    done = subprocess.run(["bash", "-n", FOLDER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_kubeflow():
    job = yaml.safe_load((FOLDER / "kubeflow-trainjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert job["spec"]["runtimeRef"]["name"] == "torch-distributed"
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun"]
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == trainer["numProcPerNode"]
    check(maekit_words(trainer["args"]))
    pod = job["spec"]["podTemplateOverrides"][0]["spec"]
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_skypilot():
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    assert task["num_nodes"] == 2
    line = task["run"].replace("\\\n", " ").splitlines()[-1]
    assert "--node-rank $SKYPILOT_NODE_RANK" in " ".join(shlex.split(line))
    words = maekit_words(shlex.split(line))
    check(words)
    assert any(words[words.index("--out") + 1].startswith(place) for place in task["file_mounts"])


class Cluster:
    """Fakes of SLURM's commands and of torchrun, first on PATH; what they were asked is in `asked`."""

    def __init__(self, folder, torchrun):
        self.folder, self.asked = folder, folder / "asked"
        programs = {
            "srun": 'exec "${@:2}"',  # without its own option
            "scontrol": f'if [ "$1" = show ]; then echo host1; echo host2; else echo "$@" >> {self.asked}; fi',
            "torchrun": f'echo torchrun "$@" >> {self.asked}\n{torchrun}',
        }
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        self.environment = {
            **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "4",
            "SLURM_JOB_NODELIST": "host[1-4]",
        }  # fmt: skip

    def run(self, ask=None):
        """The script's exit code and what it said. ask: a signal, sent to it once torchrun has begun."""
        process = subprocess.Popen(
            ["bash", FOLDER / "slurm.sbatch"], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if ask is not None:
            until = time.monotonic() + 20
            while not (self.folder / "begun").exists():
                assert time.monotonic() < until
                time.sleep(0.02)
            process.send_signal(ask)
        said, _ = process.communicate(timeout=30)
        return process.returncode, said

    def requeued(self):
        return [line for line in self.asked.read_text().splitlines() if line.startswith("requeue")]


def test_a_job_that_ends_well_is_not_queued_again(tmp_path):
    cluster = Cluster(tmp_path, "echo done")
    code, said = cluster.run()
    assert (code, cluster.requeued()) == (0, []), said
    words = shlex.split(cluster.asked.read_text())
    assert words[words.index("--rdzv-endpoint") + 1] == "host1:29500"
    check(maekit_words(words))


@pytest.mark.parametrize("ask", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_whose_time_is_over_is_saved_and_queued_again(tmp_path, ask):
    waits = f"trap 'echo \"{SAVED}\"; exit 1' TERM\ntouch begun\nfor _ in {{1..200}}; do sleep 0.1; done\nexit 9"
    cluster = Cluster(tmp_path, waits)
    code, said = cluster.run(ask)
    assert (code, cluster.requeued()) == (0, ["requeue 42"]), said
    assert (tmp_path / "maekit-42.log").read_text().strip() == SAVED


def test_a_job_that_fails_is_not_queued_again(tmp_path):
    cluster = Cluster(tmp_path, 'echo "maekit: digits: none of its images can be read"; exit 3')
    code, said = cluster.run()
    assert (code, cluster.requeued()) == (3, []), said
