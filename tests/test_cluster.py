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
ENDED = "  exitcode  : 75 (pid: 4711)"  # in torchrun's report
# As SLURM's own does: TERM to it kills its tasks, and only scancel's reaches them. Its first word is its own option.
SRUN = """
"${{@:2}}" &
task=$!
echo "$task" > {folder}/task
trap 'kill -KILL "$task"' TERM
wait "$task"
"""
WAITS = "trap 'echo \"{said}\"; exit {code}' TERM\ntouch begun\nfor _ in {{1..200}}; do sleep 0.1; done\nexit 9"


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
    patch = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = patch["template"]["spec"]["template"]["spec"]
    assert (patch["name"], pod["containers"][0]["name"]) == ("node", "node")
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

    def __init__(self, folder, torchrun, requeue="true"):
        self.folder, self.asked = folder, folder / "asked"
        programs = {
            "srun": SRUN.format(folder=folder),
            "scancel": f'echo scancel "$@" >> {self.asked}; kill -TERM "$(cat {folder}/task)"',
            "scontrol": f'[ "$1" = show ] && echo host1 && echo host2 && exit\necho "$@" >> {self.asked}; {requeue}',
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

    def requests(self, what="requeue"):
        return [line for line in self.asked.read_text().splitlines() if line.startswith(what)]


def test_a_job_that_ends_well_is_not_queued_again(tmp_path):
    cluster = Cluster(tmp_path, "echo done")
    code, said = cluster.run()
    assert (code, cluster.requests()) == (0, []), said
    words = shlex.split(cluster.asked.read_text())
    assert words[words.index("--rdzv-endpoint") + 1] == "host1:29500"
    check(maekit_words(words))


@pytest.mark.parametrize("said", [SAVED, ENDED])
@pytest.mark.parametrize("ask", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_whose_time_is_over_is_saved_and_queued_again(tmp_path, ask, said):
    cluster = Cluster(tmp_path, WAITS.format(said=said, code=1))
    code, script = cluster.run(ask)
    assert (code, cluster.requests()) == (0, ["requeue 42"]), script
    assert cluster.requests("scancel") == ["scancel --signal=TERM 42"]
    assert (tmp_path / "maekit-42-0.log").read_text() == f"{said}\n"


def test_a_job_that_is_done_when_its_time_is_over_has_ended_well(tmp_path):
    cluster = Cluster(tmp_path, WAITS.format(said="done", code=0))
    code, said = cluster.run(signal.SIGUSR1)
    assert (code, cluster.requests()) == (0, []), said


def test_where_a_job_cannot_be_queued_again_it_has_failed(tmp_path):
    cluster = Cluster(tmp_path, f"echo '{SAVED}'; exit 1", requeue="false")
    code, said = cluster.run()
    assert (code, cluster.requests()) == (1, ["requeue 42"]), said


@pytest.mark.parametrize("code", [3, 1])
def test_a_job_that_fails_is_not_queued_again(tmp_path, code):
    cluster = Cluster(tmp_path, f'echo "maekit: digits: none of its images can be read"; exit {code}')
    cluster.environment["SLURM_RESTART_COUNT"] = "1"
    (tmp_path / "maekit-42-0.log").write_text(SAVED)  # by its first start
    ended, said = cluster.run()
    assert (ended, cluster.requests()) == (code, []), said
