"""Memory that runs out: one line with what was asked for, the peak and what to try; the checkpoints stay."""

import sys
from dataclasses import replace

import pytest
import torch

import tiny
from maekit import storage
from maekit.engine import memory
from maekit.errors import TrainingError
from maekit.recipes.pretrain import PretrainTask
from processes import in_its_own
from toy_task import CPU, plan_of

WORDS = (
    "pretrain", "vit-tiny", *tiny.SIZES, "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard", "--resume",
    "--steps", "6", "--checkpoint-every", "3",
)  # fmt: skip
PLAN = plan_of(3, 8, 4)

OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    ),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "python": MemoryError(),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_it_ends_a_run_in_one_line_and_the_checkpoint_stays(maekit_here, photos, tmp_path, monkeypatch, error):
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--batch-size", "8", "--micro-batch-size", "4")
    passes, loss = iter(range(100)), PretrainTask.loss

    def fails_in_step_four(task, batch):
        if next(passes) == 9:
            raise error
        return loss(task, batch)

    monkeypatch.setattr(PretrainTask, "loss", fails_in_step_four)
    done = maekit_here(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("maekit: out of memory with 4 images of 32x32 pixels a pass on cpu, ")
    assert " GB; try --micro-batch-size 2 or --run.checkpoint-activations; " in last
    assert storage.read_facts(tmp_path / "run" / "checkpoints" / "step-3")["step"] == 3
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-3"]
    again = maekit_here(*words, "--micro-batch-size", "2", "--run.checkpoint-activations", "--allow-drift")
    assert again.returncode == 0, again.stderr
    assert "going on from step 3" in again.stderr


def told(config, plan=PLAN):
    with pytest.raises(TrainingError) as told, memory.explained(plan, config, (32, 48), torch.device("cpu")):
        raise MemoryError
    return str(told.value)


def test_what_is_set_already_is_not_advised():
    assert "try --micro-batch-size 2 or --run.checkpoint-activations;" in told(CPU)
    used = replace(CPU, checkpoint_activations=True)
    assert "try --micro-batch-size 2 or a smaller --image-size;" in told(used)
    assert "try a smaller --image-size or a narrower or shallower model;" in told(used, plan_of(3, 8, 1))


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes"), memory.explained(PLAN, CPU, (32, 32), torch.device("cpu")):
        raise RuntimeError("shapes do not match")


# The limit is set once everything is loaded that a run loads, so that what fails is a tensor.
LIMITED = """
import resource, sys
from pathlib import Path
from maekit import cli
words = sys.argv[1:]
assert cli.main([*words, "--steps", "2", "--batch-size", "4"]) == 0
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(cli.main([*words, "--steps", "4", "--batch-size", "1024", "--allow-drift"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_is_really_out(photos, tmp_path):
    words = [
        "pretrain", "vit-tiny", *tiny.SIZES, "--image-size", "64", "--model.patch-size", "4", "--data", photos,
        "--out", tmp_path / "run", "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard", "--resume",
        "--micro-batch-size", "1024", "--schedule.micro-batch-size", "None", "--schedule.micro-batch-limit", "1024",
    ]  # fmt: skip
    done = in_its_own(*words, program=LIMITED)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "maekit: out of memory with 1024 images of 64x64 pixels" in done.stderr.splitlines()[-1]
    assert storage.read_facts(tmp_path / "run" / "checkpoints" / "step-2")["step"] == 2
