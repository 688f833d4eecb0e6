"""--compile: every family is compiled for real and learns what it learns uncompiled; what torch cannot do is told."""

import copy
import re
import shutil
from dataclasses import replace

import pytest
import timm
import torch
from torch._dynamo.utils import counters

import tiny
from maekit import presets
from maekit.config import ClassifierConfig, MaskConfig, MixConfig, RunConfig
from maekit.data.loader import Batch
from maekit.engine import compiled, metrics
from maekit.errors import RunError
from maekit.models import classifier, mae
from maekit.recipes.classify import ClassifyTask
from maekit.recipes.pretrain import PretrainTask
from toy_task import INPUTS, ToyTask, plan_of, run

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")

VIT, SWIN, HIERA = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "hiera_tiny_224"
FEW_BLOCKS = {
    SWIN: {"depths": (1, 2), "num_heads": (2, 4)},
    HIERA: {"stages": (1, 1), "q_pool": 1, "mask_unit_size": (2, 2)},
}
"""Each kind of block once, which Inductor takes seconds for, not minutes."""
ONE_BLOCK = {
    SWIN: {"depths": (1,), "num_heads": (2,)},
    HIERA: {"stages": (1,), "q_pool": 0, "mask_unit_size": (2, 2)},
}
LAYER = tiny.decoder_config(depth=1)
SMALL_VIT = {"encoder": VIT, "image_size": 32, "patch_size": 4, "depth": 2, "decoder": LAYER}
SMALL_SWIN = {"encoder": SWIN, "image_size": 32, "width": 16, "window": 4, "patch_size": None, "depth": None,
              "heads": None, "decoder": LAYER}  # fmt: skip
SMALL_HIERA = {**SMALL_SWIN, "encoder": HIERA, "window": None}
CROSS = tiny.decoder_config(kind="cross", depth=1, predicted_share=0.5, feature_maps=2)
PRETRAINED = {
    "vit one_in_2x2, cross decoder": ({**SMALL_VIT, "decoder": CROSS}, "one_in_2x2"),
    "vit, convolutional stem": ({**SMALL_VIT, "depth": 1, "stem": "conv"}, "random"),
    "swin uniform": ({**SMALL_SWIN, "swin_method": "uniform"}, "one_in_2x2"),
    "swin dense": ({**SMALL_SWIN, "swin_method": "dense", "decoder": tiny.decoder_config(kind="linear")}, "random"),
    "hiera": (SMALL_HIERA, "random"),
}
CLASSIFIED = {
    "vit mixed": (SMALL_VIT, MixConfig(mixup=0.8, cutmix=1.0), 0.0),
    "vit, half of the patches": ({**SMALL_VIT, "depth": 1}, MixConfig(), 0.5),
    "swin": (SMALL_SWIN, MixConfig(), 0.0),
    "hiera": (SMALL_HIERA, MixConfig(), 0.0),
}
STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def shorten(monkeypatch, blocks):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **o: create(name, **o, **blocks.get(name, {})))


@pytest.fixture(autouse=True)
def _anew():
    torch.compiler.reset()
    counters.clear()


def batch(number, classes=4):
    draws = torch.Generator().manual_seed(number)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=draws)
    indices = torch.arange(4) + 4 * number
    return Batch(images, indices % classes, indices, torch.zeros(4, dtype=torch.int64), torch.zeros_like(indices))


def pretraining(changes, kind):
    preset = presets.PRETRAIN["vit-tiny"]()
    mask = MaskConfig(kind=kind, ratio=0.75)
    config = replace(preset, model=tiny.model_config(**changes), mask=mask)
    built = mae.build(config.model, config.target, config.mask, **STATISTICS, seed=config.run.seed)
    return PretrainTask(built, seed=config.run.seed)


def classification(changes, mix, patch_drop):
    model = tiny.model_config(**changes)
    head = ClassifierConfig(pooling="mean", drop_path=0.2, patch_drop=patch_drop)
    built = classifier.build(model, head, tuple("abcd"), **STATISTICS, seed=0)
    return ClassifyTask(built, mix, presets.SCRATCH["digits"]().optimizer.layer_decay, None)


def learnt(task, compiles):
    """Three steps' losses and the last gradients."""
    model, weights = task.model.train(), copy.deepcopy(task.model.state_dict())
    step, losses = compiled.step_of(task, RunConfig(compile=compiles)), []
    descent = torch.optim.SGD(model.parameters(), lr=1e-2)
    for number in range(3):
        torch.manual_seed(number)
        descent.zero_grad()
        loss = step(task.prepare(batch(number)))["loss"]
        loss.backward()
        descent.step()
        losses.append(loss.item())
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.load_state_dict(weights)
    return losses, gradients


def check_alike(task):
    losses, gradients = learnt(task, compiles=False)
    compiled_losses, compiled_gradients = learnt(task, compiles=True)
    assert compiled_losses == pytest.approx(losses, rel=1e-4)
    assert (compiled_gradients - gradients).norm() < 1e-3 * gradients.norm()
    assert counters["stats"]["unique_graphs"] == 1  # nothing is compiled twice, nothing left uncompiled between
    assert not counters["graph_break"]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("case", PRETRAINED.values(), ids=PRETRAINED)
def test_pretraining_compiled_learns_the_same(case, monkeypatch):
    shorten(monkeypatch, FEW_BLOCKS)
    check_alike(pretraining(*case))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("case", CLASSIFIED.values(), ids=CLASSIFIED)
def test_classifiers_compiled_learn_the_same(case, monkeypatch):
    shorten(monkeypatch, ONE_BLOCK)
    check_alike(classification(*case))


WORDS = (
    "pretrain", "vit-tiny", *tiny.SIZES, "--model.depth", "1", "--image-size", "112", "--steps", "3", "--batch-size",
    "8", "--micro-batch-size", "4", "--lr", "1e-3", "--run.ema", "0.9", "--workers", "0", "--run.no-tensorboard",
    "--run.log-every", "1", "--schedule.resolutions", "56", "0.34",
)  # fmt: skip


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_ends_as_an_uncompiled_one(maekit_command, maekit_here, photos, tmp_path):
    """In a process of its own: masks drawn in compiled code wrote over the heap, on grids such as this one's. Of two
    sizes, each of which is compiled."""
    done = maekit_command(*WORDS, "--compile", "--data", photos, "--out", tmp_path / "compiled", timeout=240)
    assert done.returncode == 0, done.stderr
    assert "compiling: the first step takes longer" in done.stderr
    seconds = re.search(r"by one pass of (\S+) s;", done.stderr)
    assert float(seconds.group(1)) < 1  # without what compiling took
    assert maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "plain").returncode == 0
    lines = [metrics.read(tmp_path / name / "metrics.jsonl") for name in ("compiled", "plain")]
    losses = [[record["loss"] for record in records] for records in lines]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class Regression(ToyTask):
    """Without what the toy does on the host, which is never compiled."""

    def loss(self, batch):
        return {"loss": self.model(INPUTS[batch.indices]).square().mean()}


def test_without_a_c_compiler_one_line_says_to_leave_it_out(monkeypatch, tmp_path):
    def missing():
        raise torch._inductor.exc.InvalidCxxCompiler()

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.cpp_builder, "get_cpp_compiler", missing)
    with pytest.raises(RunError, match=r"^--compile: torch \S+ cannot compile .* leave --compile out$") as told:
        run(Regression(), plan_of(2), compile=True)
    assert "No working C++ compiler found" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_python_or_system_without_support_is_told_before_the_first_step(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    with pytest.raises(RunError, match=r"cannot compile .*Python 3\.99\+\); leave --compile out"):
        run(ToyTask(), plan_of(2), compile=True)


@pytest.mark.parametrize(
    "raised",
    [
        torch._inductor.exc.InductorError(OverflowError("int too big\nmore"), None),
        torch._dynamo.exc.Unsupported("x", "y"),
    ],
)
def test_what_the_compiler_raises_is_one_line(raised):
    with pytest.raises(RunError) as told, compiled.explained(RunConfig(compile=True)):
        raise raised
    assert "\n" not in str(told.value)
    assert "leave --compile out" in str(told.value)


@pytest.mark.parametrize("raised", [torch.OutOfMemoryError("CUDA out of memory."), ValueError("a bug"), RunError("a")])
def test_what_others_raise_stays_what_it_is(raised):
    with pytest.raises(type(raised)) as told, compiled.explained(RunConfig(compile=True)):
        raise raised
    assert told.value is raised
