"""A whole step of training on a fake GPU: no tensor is on the wrong device, and between log points nothing waits."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch

import tiny
from fake_device import GPU, WaitError, backward, fake_gpu
from maekit import parts
from maekit.config import (
    ClassifierConfig,
    MaskConfig,
    MixConfig,
    ModelConfig,
    OptimizerConfig,
    ProbeConfig,
    RunConfig,
    ScheduleConfig,
    TargetConfig,
)
from maekit.data.loader import Batch
from maekit.data.sources import open_source
from maekit.engine.distributed import World
from maekit.engine.loop import _Loop
from maekit.engine.schedule import Plan
from maekit.models import classifier, mae
from maekit.models.encoder import ImageEncoder
from maekit.models.probe_heads import AttentiveProbe, EfficientProbe, LinearProbe
from maekit.recipes.classify import ClassifyTask
from maekit.recipes.pretrain import PretrainTask
from maekit.recipes.probe_training import Choice, ProbeTask, Trial, _TokenBatch
from tiny_families import HIERA, KINDS, SWIN, SWIN_V2, VIT, mask_for, tiny_model
from toy_task import ToyTask

IMAGES = 4  # of a pass
FAMILIES = ("vit", "vit, rotary", "vit, channel tokens", "swin uniform", "swin dense", "swin v2 uniform",
            "swin v2 dense", "hiera")  # fmt: skip
ADAMW = OptimizerConfig(lr=1e-3, clip=1.0)
NEVER = SimpleNamespace(signal=None)


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch):
    """Each kind of block, in every stage."""
    create, few = timm.create_model, {"swin": {"depths": (1, 2, 1, 1)}, "hiera": {"stages": (1, 1, 2, 1)}}

    def created(name, **options):
        options |= next((depths for family, depths in few.items() if name.startswith(family)), {"depth": 2})
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", created)


def batch(config: ModelConfig, number: int = 0, image_hw=None) -> Batch:
    """As the loader's process hands one over, in pinned memory."""
    images = torch.zeros(IMAGES, config.channels, *(image_hw or config.image_hw), dtype=torch.uint8)
    indices = torch.arange(IMAGES) + IMAGES * number
    return Batch(images, indices % 4, indices, torch.zeros_like(indices), torch.zeros_like(indices)).pin_memory()


def train(task, passes, optimizer=ADAMW, precision="fp32", **settings):
    """One step of all passes but the last, then one of that. Returns the types in which layers multiplied."""
    schedule = ScheduleConfig(steps=10, batch_size=2 * IMAGES, micro_batch_size=IMAGES)
    config = RunConfig(device="cuda", precision=precision, ema=0.9, **settings)
    with fake_gpu() as gpu:
        plan = Plan.of(optimizer, schedule, 64, 1)
        loop = _Loop(task, plan, optimizer, config, World(device=GPU), None, {})
        loop.passes = 2  # the first is timed, and waited for
        passes = [one() for one in passes]
        gpu.watched = True
        for step, group in enumerate((passes[:-1], passes[-1:])):
            if group:
                assert loop.step(step, group, NEVER)
        gpu.watched = False
        check_all_was_done(loop)
    return gpu.products


def check_all_was_done(loop):
    trained = [parameter for parameter in loop.model.parameters() if parameter.requires_grad]
    assert trained
    assert set(loop.optimizer.state) == set(trained)
    moments = [value for state in loop.optimizer.state.values() for value in state.values()]
    tensors = [*loop.model.state_dict().values(), *loop.ema.state_dict().values(), *moments]
    assert {tensor.device for tensor in (*tensors, *loop.losses.values(), loop.spoilt_step)} == {GPU}
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}


def pretraining(config: ModelConfig, mask: MaskConfig, target: str = "normalised") -> PretrainTask:
    half = (0.5,) * config.channels
    return PretrainTask(mae.build(config, TargetConfig(kind=target), mask, half, half, seed=0), seed=0)


def one_pass(config: ModelConfig, mask: MaskConfig | None = None, **options):
    return train(pretraining(config, mask or mask_for(config)), [lambda: batch(config)], **options)


TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("kind", [name for name in KINDS if "oblong" not in name])
def test_every_kind_of_encoder(kind):
    assert one_pass(KINDS[kind], precision="bf16") == {torch.bfloat16}


MASKED = ("vit", "vit, channel tokens", "swin dense", "hiera")  # with every mask in fp32, below


@pytest.mark.parametrize(
    ("kind", "precision"),
    [*((kind, "fp16") for kind in FAMILIES), *((kind, "fp32") for kind in FAMILIES if kind not in MASKED)],
)
def test_every_family_in_other_precisions(kind, precision):
    assert one_pass(KINDS[kind], precision=precision) == {TYPES[precision]}


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("mask", ["grid", "block", "one_in_2x2"])  # random is that of the tests above
def test_every_kind_of_mask(kind, mask):
    size = 32 if kind.startswith("vit") else 128  # an even grid
    assert one_pass(replace(KINDS[kind], image_size=size), MaskConfig(kind=mask)) == {torch.float32}


CROSS = {"kind": "cross", "depth": 1, "predicted_share": 0.5}
DECODERS = {
    "self, flyegle's head and positions": tiny_model(
        VIT, positions="sincos1d", decoder=tiny.decoder_config(head="norm_conv_transpose", positions="sincos1d")
    ),
    "self, learned": tiny_model(VIT, positions="learned", decoder=tiny.decoder_config(positions="learned")),
    "cross, a share": tiny_model(HIERA, decoder=tiny.decoder_config(**CROSS)),
    "cross, of several blocks": tiny_model(VIT, decoder=tiny.decoder_config(**CROSS, feature_maps=2)),
    "cross, of swin": tiny_model(SWIN, decoder=tiny.decoder_config(**CROSS)),
    "secondary masking": tiny_model(SWIN, secondary_ratio=0.25),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_beside_those_of_the_kinds(name):
    one_pass(DECODERS[name], precision="bf16")


CLASSIFIERS = {
    "vit, class": (tiny_model(VIT), "class", "fp16"),
    "vit, mean": (tiny_model(VIT), "mean", "bf16"),
    "vit, rotary": (tiny_model(VIT, positions="rotary"), "mean", "bf16"),
    "vit, channel tokens": (tiny_model(VIT, channel_tokens=True), "class", "fp32"),
    "swin": (tiny_model(SWIN), "mean", "bf16"),
    "swin v2": (tiny_model(SWIN_V2), "mean", "fp16"),
    "hiera": (tiny_model(HIERA), "mean", "bf16"),
}
BOTH = MixConfig(mixup=0.8, cutmix=1.0, smoothing=0.1)


@pytest.mark.parametrize("mix", [MixConfig(mixup=0.8), MixConfig(cutmix=1.0), MixConfig(smoothing=0.1)])
def test_every_way_of_mixing(mix):
    train(classification(tiny_model(VIT), "mean", mix), [lambda: batch(tiny_model(VIT))])


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier(name):
    config, pooling, precision = CLASSIFIERS[name]
    passes = [lambda: batch(config)]
    assert train(classification(config, pooling, BOTH), passes, precision=precision) == {TYPES[precision]}


def classification(config: ModelConfig, pooling: str, mix: MixConfig) -> ClassifyTask:
    head, half = ClassifierConfig(pooling=pooling, drop_path=0.2), (0.5,) * config.channels
    model = classifier.build(config, head, tuple("abcd"), mean=half, std=half, seed=0)
    return ClassifyTask(model, mix, 0.75, None)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])  # the loss is scaled or not
def test_every_optimizer_over_two_steps_of_several_passes(name, precision):
    config = tiny_model(VIT)
    optimizer = OptimizerConfig(name=name, lr=1e-3, clip=1.0 if name == "muon" else None)
    passes = [lambda number=number: batch(config, number) for number in range(3)]
    train(pretraining(config, mask_for(config)), passes, optimizer, precision)


@pytest.mark.parametrize("kind", ["vit", "swin uniform", "hiera"])
def test_activations_that_are_computed_again(kind):
    task = pretraining(KINDS[kind], mask_for(KINDS[kind]))
    task.model.recompute_activations()
    train(task, [lambda: batch(KINDS[kind])], precision="bf16")


def test_a_schedule_of_sizes_and_parts_of_the_users_own():
    config = tiny_model(VIT)
    parts.say("own_parts:Stripes", "own_parts:Teacher")
    task = pretraining(config, MaskConfig(kind="own_parts:Stripes", ratio=0.5), "own_parts:Teacher")
    task.model.also_at((16, 16))
    train(task, [lambda: batch(config, image_hw=(16, 16)), lambda: batch(config)])


@pytest.mark.parametrize("head", [LinearProbe, AttentiveProbe, EfficientProbe])
@pytest.mark.parametrize("cached", [False, True])
def test_probes(head, cached):
    config = tiny_model(VIT, channels=1)
    digits = open_source("digits:train")
    encoder = ImageEncoder(config, mean=(0.5,), std=(0.5,)).eval()
    choice = Choice("pooled" if head is LinearProbe else "patches", 1)
    task = ProbeTask({"head": (head, choice)}, Trial(encoder, digits, digits, ProbeConfig(), World(device=GPU)))
    shape = (IMAGES, 16) if head is LinearProbe else (IMAGES, 16, 16)

    def first():
        encoder.to(GPU)
        labels = torch.arange(IMAGES)
        return _TokenBatch(torch.zeros(shape), labels, labels) if cached else batch(config)

    train(task, [first], OptimizerConfig(name="lars", lr=0.1, weight_decay=0.0), "bf16")


class Wrong(ToyTask):
    """Two layers whose loss goes wrong as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def prepare(self, batch):
        return self.how(batch.images.flatten(1)[:, :6].float()) if self.how in BEFORE.values() else batch.images

    def loss(self, images):
        inputs = images.flatten(1)[:, :6].float()
        return {"loss": self.model(inputs if self.how in BEFORE.values() else self.how(inputs)).mean()}


class ToHost(torch.autograd.Function):
    @staticmethod
    def forward(_, values):
        return values * 2

    @staticmethod
    def backward(_, gradient):
        return torch.zeros(gradient.shape)


def through_host(values):
    weight = torch.ones(6, device=values.device, requires_grad=True)
    return ToHost.apply(values * weight)


BEFORE = {
    "a blocking copy": lambda x: x + torch.tensor([1.0] * 6, device=x.device),
    "memory that is not pinned": lambda x: x + torch.ones(6).to(x.device, non_blocking=True),
}
MISTAKES = {
    **BEFORE,
    "a tensor of the host": lambda x: x + torch.ones(6),
    "an index of the host": lambda x: x[torch.tensor([0, 1])],
    "a condition's value of the host": lambda x: torch.where(x > 0, x, torch.tensor(1.0)),
    "a number that is read": lambda x: x * x.sum().item(),
    "a list that is read": lambda x: x * len(x[0].tolist()),
    "a condition that is read": lambda x: x if x.sum() > 0 else -x,
    "a copy to the host": lambda x: x * len(x.cpu()),
    "a copy to the host that does not wait": lambda x: x * len(x.to("cpu", non_blocking=True)),
    "rows that a mask chooses": lambda x: x[x[:, 0] > 0],
    "counts that are read": lambda x: x.repeat_interleave(torch.ones(len(x), device=x.device).long(), dim=0),
    "a gradient on the host": through_host,
}
RAISED = (WaitError, RuntimeError, torch._subclasses.fake_tensor.DataDependentOutputException,
          torch._subclasses.fake_tensor.DynamicOutputShapeException)  # fmt: skip
SAID = r"copies|_local_scalar_dense|nonzero|repeat_interleave|a gradient on cpu of a tensor on cuda:0"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_task_that_is_wrong_is_found(name):
    with pytest.raises(RAISED, match=SAID):
        train(Wrong(MISTAKES[name]), [lambda: batch(tiny_model(VIT))])


def test_the_same_task_without_a_mistake_is_not():
    train(Wrong(lambda x: x * 2 + torch.tensor(1.0)), [lambda: batch(tiny_model(VIT))])


@pytest.mark.parametrize("kind", ["vit", "swin v2 uniform", "hiera"])
def test_gradients_without_torchs_engine_are_the_engines(kind):
    gradients = []
    for way in (torch.Tensor.backward, backward):
        task = pretraining(KINDS[kind], mask_for(KINDS[kind]))
        images = torch.rand(2, 3, *KINDS[kind].image_hw, generator=torch.Generator().manual_seed(0))
        numbers = torch.arange(2)
        loss = task.loss(task.prepare(Batch(images, numbers, numbers, numbers, numbers)))["loss"]
        way(loss)
        gradients.append({name: p.grad for name, p in task.model.named_parameters() if p.requires_grad})
    assert all(value is not None for value in gradients[0].values())
    assert all(torch.equal(gradients[1][name], value) for name, value in gradients[0].items())
