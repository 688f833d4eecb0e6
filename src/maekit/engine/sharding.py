"""Weights divided between processes: torch's FSDP2, block by block, and tensors that are whole or divided."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from maekit.config import RunConfig
from maekit.engine.compiled import units
from maekit.engine.distributed import World


def shard(step: nn.Module, config: RunConfig, world: World, sent: torch.dtype | None) -> None:
    """Divide the weights under `step` between the processes; they go to the world's device on the way.

    Blocks are units; what is in none is one more, brought together for the whole step. sent: the type in which weights
    are sent and used, None: their own. Gradients are summed in float32. What goes into a block keeps its type.
    """
    policy = MixedPrecisionPolicy(param_dtype=sent, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for unit in units(step):
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard_after_forward)
    fully_shard(step, mesh=mesh, mp_policy=policy, reshard_after_forward=False)


@contextmanager
def whole(step: nn.Module, config: RunConfig) -> Iterator[None]:
    """Inside the block every process has all weights, to use and not to change.

    Judging takes as many passes as a process has images: none may wait for another's.
    """
    divided = [module for module in step.modules() if isinstance(module, FSDPModule)]
    for module in divided:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in divided:
            module.set_reshard_after_forward(config.reshard_after_forward and module is not step, recurse=False)
            module.reshard()


def gathered(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Tensors as they are undivided, brought together one after the other, on the first process; {} on the others.

    All processes call it. What is divided arrives in the host's memory.
    """
    found = {}
    for name, tensor in tensors.items():
        value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if world.is_first:
            found[name] = value.cpu() if isinstance(tensor, DTensor) else value
    return found


def as_divided(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in each process, divided as `like` is; itself where that is whole."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def copied(tensors: Mapping[str, Tensor], world: World, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the host's memory, which training does not change; divided tensors stay so.

    kept: holds memory, pinned where tensors come from a GPU, from one call to the next.
    """
    mesh, found = None, {}
    for name, tensor in tensors.items():
        part = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
        if name not in kept or kept[name].shape != part.shape or kept[name].dtype != part.dtype:
            kept[name] = torch.empty_like(part, device="cpu", pin_memory=part.device.type == "cuda")
        found[name] = kept[name].copy_(part, non_blocking=True)
        if isinstance(tensor, DTensor):
            hosts: Any = world.hosts or dist.group.WORLD
            mesh = mesh or DeviceMesh.from_group(hosts, "cpu")
            found[name] = DTensor.from_local(
                found[name], mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride()
            )
    if world.device.type == "cuda":
        torch.cuda.synchronize()
    return found
