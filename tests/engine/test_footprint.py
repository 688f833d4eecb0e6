"""What is counted without data is what a step takes with it, and what divided weights leave on each process."""

import multiprocessing
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from maekit.config import OptimizerConfig, RunConfig, TargetConfig
from maekit.data.loader import Batch
from maekit.engine import footprint, sharding
from maekit.engine import optimizer as optimizers
from maekit.engine.compiled import Step
from maekit.engine.distributed import join
from maekit.models import mae
from maekit.recipes.pretrain import PretrainTask
from processes import in_processes
from tiny_families import HIERA, KINDS, SWIN, VIT, mask_for, tiny_model

RUN = RunConfig(device="cpu", precision="fp32")
OPTIMIZER = OptimizerConfig(lr=1e-3)
MUON = OptimizerConfig(name="muon", lr=1e-3)
NARROW = {"vit": KINDS["vit"], "swin uniform": KINDS["swin uniform"], "hiera": KINDS["hiera"]}
WIDE = {
    "vit": tiny_model(VIT, width=96, patch_size=4),
    "swin uniform": tiny_model(SWIN, width=48),
    "swin dense": replace(KINDS["swin dense"], width=48),
    "hiera": tiny_model(HIERA, width=48, image_size=64),
}
"""Whose tensors weigh more than Python's own memory, and each kernel's."""


def task_of(config, device, recomputes=False):
    middle = (0.5,) * config.channels
    with torch.device(device):
        model = mae.build(config, TargetConfig(kind="normalised"), mask_for(config), middle, middle, seed=0)
    model.recompute_activations(recomputes)
    return PretrainTask(model, seed=0)


def batch_of(config, images):
    shape, generator = (images, config.channels, *config.image_hw), torch.Generator().manual_seed(1)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    numbers = torch.arange(images)
    return Batch(pixels, numbers, numbers, numbers * 0, numbers * 0)


def counted(config, images, *, held=False, optimizer=OPTIMIZER, recomputes=False, **run):
    make = partial(task_of, config, "meta", recomputes)
    run = replace(RUN, **run)
    return footprint.whole(make, batch_of(config, images), optimizer=optimizer, run=run, held=held)


def divided(config, images, processes, optimizer=OPTIMIZER, held=True, **run):
    make = partial(task_of, config, "meta")
    run = replace(RUN, **run)
    batch = batch_of(config, images)
    return footprint.divided(make, batch, optimizer=optimizer, run=run, processes=processes, held=held)


def allocated(config, images, held, recomputes):
    """Bytes at the peak of a second step, by torch's own record of what its allocator gave out and got back."""
    task, batch = task_of(config, "cpu", recomputes), batch_of(config, images)
    model = task.model.train()
    optimizer = optimizers.build(OPTIMIZER, model.named_parameters(), 1e-3)
    never = torch.zeros((), dtype=torch.bool)
    standing = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))

    def step():
        task.loss(task.prepare(batch))["loss"].backward()
        nn.utils.get_total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
        optimizers.step_unless(never, optimizer)
        optimizer.zero_grad(set_to_none=not held)

    step()
    standing += sum(tensor.nbytes for tensor in optimizers.state_tensors(optimizer).values())
    standing += sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    now, peak = standing, standing
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    ("name", "held", "recomputes"),
    [*((name, False, False) for name in WIDE), ("vit", True, False), ("hiera", False, True)],
)
def test_a_step_is_counted_as_it_is_taken(name, held, recomputes):
    config = WIDE[name]
    said = counted(config, 4, held=held, recomputes=recomputes).total
    assert said == pytest.approx(allocated(config, 4, held, recomputes), rel=0.02)


def test_each_part_is_what_it_is_called():
    config = KINDS["vit"]
    model = task_of(config, "cpu").model
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    whole = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    said = counted(config, 2)
    assert (said.weights, said.gradients) == (whole, trained)
    assert said.moments == pytest.approx(2 * trained, rel=0.01)  # beside the moments each parameter counts its steps
    matrices = sum(p.nbytes for name, p in model.named_parameters() if optimizers.of_block(name, p))
    assert counted(config, 2, optimizer=MUON).moments == pytest.approx(2 * trained - matrices, rel=0.01)
    encoder = sum(p.nbytes for name, p in model.named_parameters() if p.requires_grad and name.startswith("encoder."))
    assert counted(config, 2, ema=0.9).weights == whole + encoder
    assert said.total == said.weights + said.gradients + said.moments + said.activations


def test_memory_grows_by_the_same_for_each_image():
    for name in ("vit", "hiera"):
        two, four, twelve = (counted(NARROW[name], images, held=True).total for images in (2, 4, 12))
        assert twelve == pytest.approx(two + 5 * (four - two), rel=0.01), name


def test_what_takes_less_memory_is_counted_as_less():
    config = WIDE["vit"]
    plain = counted(config, 8, held=True)
    assert counted(config, 8, held=True, recomputes=True).activations < 0.7 * plain.activations
    assert counted(config, 8, held=True, precision="bf16").activations < 0.8 * plain.activations
    assert counted(config, 8, held=False).total < plain.total


def held_by_each(config, optimizer):
    """Bytes of weights, gradients and moments of a process that divides them, after a step."""
    with join("cpu", timeout=60) as world:
        task = task_of(config, "cpu")
        step = Step(task)
        sharding.shard(step, replace(RUN, parallel="fsdp"), world, None)
        built = optimizers.build(optimizer, task.model.named_parameters(), 1e-3)
        step(task.prepare(batch_of(config, 2)))["loss"].backward()
        gradients = [parameter.grad for parameter in task.model.parameters() if parameter.grad is not None]
        built.step()
        moments = [value for value in optimizers.state_tensors(built).values() if value.ndim]
        weights = (*task.model.parameters(), *task.model.buffers())
        return [sum(map(_local, tensors)) for tensors in (weights, gradients, moments)]


def _local(tensor):
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes


@pytest.mark.parametrize("name", NARROW)
def test_divided_weights_are_counted_as_they_are_divided(name):
    config = NARROW[name]
    answers = in_processes(3, held_by_each, config, OPTIMIZER)
    assert not any(one.err for one in answers), "".join(one.err for one in answers)
    first, *others = [one.value for one in answers]
    said = divided(config, 2, 3)
    assert [said.weights, said.gradients, said.moments] == first
    assert all(mine <= theirs for other in others for mine, theirs in zip(other, first, strict=True))


def test_more_processes_hold_less_each_and_whole_blocks_beside():
    config = WIDE["vit"]
    two, many = divided(config, 4, 2), divided(config, 4, 64)
    assert many.weights < two.weights / 8
    assert (many.activations, many.gathered) == (two.activations, two.gathered)
    model = task_of(config, "meta").model
    whole = sum(p.nbytes for p in model.parameters())
    kept = divided(config, 4, 2, reshard_after_forward=False)
    assert kept.gathered > whole > two.gathered
    assert divided(config, 4, 2, precision="bf16").gathered < two.gathered
    assert divided(config, 4, 2, ema=0.9).weights > two.weights
    once = divided(config, 4, 2, held=False)
    assert two.total - two.gradients <= once.total < two.total  # gradients come as activations go


def backward():
    torch.ones((), requires_grad=True).square().backward()


def test_counting_leaves_no_trace():
    config = KINDS["swin uniform"]

    def loss():
        task = task_of(config, "cpu")
        return task.loss(task.prepare(batch_of(config, 2)))["loss"].item()

    before, state = loss(), torch.get_rng_state()
    counted(config, 2)
    divided(config, 2, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert loss() == before
    forked = multiprocessing.get_context("fork").Process(target=backward)  # which autograd's threads would forbid
    forked.start()
    forked.join(60)
    assert forked.exitcode == 0
