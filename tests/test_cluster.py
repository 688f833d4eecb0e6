"""What examples/cluster holds: scripts that run, where SLURM only pretends, and files that say what they must."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import tiny
from maekit.calling import command_of
from maekit.config.arguments import parse
from maekit.engine import metrics
from maekit.presets.verbs import VERBS

CLUSTER = Path(__file__).parents[1] / "examples" / "cluster"
SBATCH, TORCHRUN = CLUSTER / "slurm.sbatch", CLUSTER / "torchrun.sh"
TRAINING = ("pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "4", "--lr", "1e-3", "--workers", "0",
            "--run.no-tensorboard", "--run.log-every", "1")  # fmt: skip

SRUN = """#!{python}
import os, signal, subprocess, sys
words = sys.argv[1:]
command = words[next(n for n, word in enumerate(words) if not word.startswith("--")):]
tasks = [subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}})
         for n in range(int(os.environ["SLURM_NTASKS"]))]
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks if task.poll() is None])
sys.exit(max(task.wait() % 256 for task in tasks))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo elsewhere; else echo "$@" >> "$ASKED"; fi
"""
TASK = """#!/bin/bash
trap 'exit 75' USR1
echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*" >> "$STARTED"
if [ -n "$CODE" ]; then exit "$CODE"; fi
for _ in $(seq 600); do sleep 0.1; done
"""
"""In place of Python: ends with CODE, or waits to be asked to stop."""


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A machine with srun, scontrol and python; `asked` and `started` are what the last two were told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL), ("python", TASK)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    given = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NTASKS": "2",
             "SLURM_NTASKS_PER_NODE": "2", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("asked", "started"):
        (tmp_path / name).touch()
        monkeypatch.setenv(name.upper(), str(tmp_path / name))
    return tmp_path


def until(holds, patience=90.0):
    ends = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize("script", [SBATCH, TORCHRUN], ids=lambda path: path.name)
def test_scripts_are_sound_bash(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False).stderr == ""


def test_sbatch_asks_for_what_it_rests_on():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", SBATCH.read_text(encoding="utf-8"), re.MULTILINE))
    assert asked["signal"] == "B:USR1@120"
    assert {"requeue", "nodes", "ntasks-per-node", "gpus-per-node", "time"} <= asked.keys()
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]


@pytest.mark.parametrize("code", ["0", "1", "2", "75"])
def test_a_job_whose_time_is_not_over_is_not_requeued_however_it_ends(pretended, monkeypatch, code):
    """75 without the signal: stopped by scancel."""
    monkeypatch.setenv("CODE", code)
    done = subprocess.run(["bash", SBATCH, *TRAINING], capture_output=True, text=True, check=False)
    assert done.returncode == int(code), done.stderr
    assert (pretended / "asked").read_text() == ""
    words = " ".join(("-m maekit", *TRAINING, "--resume"))
    assert sorted((pretended / "started").read_text().splitlines()) == [
        f"{rank} {rank} 2 2 127.0.0.1 24711 {words}" for rank in (0, 1)
    ]


def test_the_signal_before_the_end_reaches_every_process(pretended):
    job = subprocess.Popen(["bash", SBATCH, *TRAINING])
    until(lambda: len((pretended / "started").read_text().splitlines()) == 2)
    time.sleep(0.3)  # until they wait
    job.send_signal(signal.SIGUSR1)  # to the script alone, as B: says
    assert job.wait(30) == 75
    assert (pretended / "asked").read_text() == "requeue 4711\n"


@pytest.mark.slow
def test_a_requeued_job_goes_on_to_its_end(pretended, photos):
    """maekit itself, in two processes: stopped, put back, and done."""
    (pretended / "bin" / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    run = pretended / "run"
    words = (*TRAINING, "--data", photos, "--out", run, "--checkpoint-every", "1000000")
    job = subprocess.Popen(["bash", SBATCH, *words, "--steps", "1000000"], stderr=subprocess.PIPE, text=True)
    history = run / "metrics.jsonl"
    until(lambda: history.is_file() and len(metrics.read(history)) > 2)
    job.send_signal(signal.SIGUSR1)
    said = job.communicate(timeout=90)[1]
    assert job.returncode == 75, said
    assert said.count("after saving step") == 1
    assert (pretended / "asked").read_text() == "requeue 4711\n"
    step = metrics.last(history)["step"]
    more = subprocess.run(
        ["bash", SBATCH, *words, "--steps", str(step + 2), "--allow-drift"], capture_output=True, text=True, check=False
    )
    assert more.returncode == 0, more.stderr
    assert [line["step"] for line in metrics.read(history)][-2:] == [step + 1, step + 2]
    assert (pretended / "asked").read_text() == "requeue 4711\n"


def test_torchrun_is_told_of_all_machines(tmp_path):
    (tmp_path / "torchrun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    given = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ("pretrain", "vit-tiny", "--data", "a folder")
    refused = subprocess.run(["bash", TORCHRUN, *words], capture_output=True, text=True, env=given, check=False)
    assert refused.returncode != 0
    assert "how many machines" in refused.stderr
    given |= {"HEAD": "host1", "MACHINES": "1:2", "GPUS": "4"}
    said = subprocess.run(["bash", TORCHRUN, *words], capture_output=True, text=True, env=given, check=True).stdout
    told = said.splitlines()
    assert told[-len(words) - 2 :] == ["-m", "maekit", *words]
    options = dict(zip(told[: -len(words) - 2 : 2], told[1 : -len(words) - 2 : 2], strict=True))
    assert options == {
        "--nnodes": "1:2", "--nproc-per-node": "4", "--rdzv-backend": "c10d", "--rdzv-endpoint": "host1:29500",
        "--rdzv-id": "maekit", "--max-restarts": "3",
    }  # fmt: skip


# Files for schedulers that cannot be pretended here: the facts that they rest on


def taken(words):
    """The config that a maekit command's words become."""
    assert words[:2] != ["-m", "maekit"]
    verb, preset, *rest = words
    kind, table = VERBS[verb]
    return parse(kind, rest, command_of(verb, preset), table[preset]())


def test_the_kubernetes_manifest_is_of_one_runtime_and_a_job_that_names_it():
    runtime, job = yaml.safe_load_all((CLUSTER / "kubeflow-trainjob.yaml").read_text(encoding="utf-8"))
    assert {one["apiVersion"] for one in (runtime, job)} == {"trainer.kubeflow.org/v1alpha1"}
    assert (runtime["kind"], job["kind"]) == ("TrainingRuntime", "TrainJob")
    reference, trainer = job["spec"]["runtimeRef"], job["spec"]["trainer"]
    assert reference.pop("apiGroup") == "trainer.kubeflow.org"
    assert reference == {"kind": runtime["kind"], "name": runtime["metadata"]["name"]}
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    assert trainer["numProcPerNode"] == trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    assert "torch" in runtime["spec"]["mlPolicy"]  # which tells torchrun of the machines
    assert trainer["command"][:3] == ["torchrun", "-m", "maekit"]
    config = taken([*trainer["command"][3:], *trainer["args"]])
    assert config.run.resume  # a pod that starts anew goes on
    jobset = runtime["spec"]["template"]["spec"]
    (node,) = jobset["replicatedJobs"]
    assert node["name"] == "node"
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    of_job = node["template"]["spec"]
    pod = of_job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "node"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    inside = tuple(mount["mountPath"] + "/" for mount in container["volumeMounts"])
    assert config.data.source.startswith(inside)
    assert config.run.out.startswith(inside)
    assert (of_job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")  # what a pod's failure policy asks for
    assert pod["terminationGracePeriodSeconds"] >= 120
    (rule,) = of_job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onPodConditions"]) == ("FailJob", [{"type": "DisruptionTarget", "status": "True"}])
    (restart,) = jobset["failurePolicy"]["rules"]
    assert restart["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert restart["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert jobset["failurePolicy"]["maxRestarts"] > 0


def test_the_skypilot_task_is_one_job_that_goes_on():
    task = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text(encoding="utf-8"))
    assert task.keys() <= {"name", "num_nodes", "resources", "envs", "workdir", "file_mounts", "setup", "run"}
    assert task["num_nodes"] > 1
    assert re.fullmatch(r"\w+:\d+", task["resources"]["accelerators"])
    assert task["resources"]["job_recovery"].keys() <= {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}
    checked = subprocess.run(["bash", "-n"], input=task["run"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    words = shlex.split(task["run"].replace("\\\n", " "))
    assert words[0] == "torchrun"
    assert {"SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_GPUS_PER_NODE", "SKYPILOT_NODE_IPS"} == set(
        re.findall(r"\$(SKYPILOT_\w+)", task["run"])
    )
    config = taken(words[words.index("maekit") + 1 :])
    assert config.run.resume
    mounts = task["file_mounts"]
    assert mounts.keys() == {config.data.source, str(Path(config.run.out).parent)}
    assert mounts["/runs"]["mode"] == "MOUNT_CACHED"  # what outlives the machines, and can be renamed
    assert set(re.findall(r"\$\{(\w+)\}", str(task["file_mounts"]))) == set(task["envs"])
