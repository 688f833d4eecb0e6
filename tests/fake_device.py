"""A GPU that is not there: what is done on it has shapes and types but no values, and what a real one would refuse or
wait for raises.

torch's FakeTensorMode refuses what reads from the device (`item`, `tolist`, a choice of rows by a mask) and tensors of
two devices in one operation. What it lets through is told here: copies between host and device that wait, and tensors
of the host that an operation would copy. Tensors of the host itself are real, as they are in a run.
"""

import heapq
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

GPU = torch.device("cuda", 0)
aten = torch.ops.aten

_COPIES = {aten._to_copy.default, aten.copy_.default}
_PRODUCTS = {aten.mm.default, aten.addmm.default}  # of layers; attention on no device at hand is done as by hand


class WaitError(AssertionError):
    """Something for which the host would wait."""


class FakeGpu(FakeTensorMode):
    """Inside the block `cuda` is a fake device. `watched`: whether waits raise; `products`: types that were multiplied.

    Memory is pinned as far as the test can see: what `pin_memory` returns, and nothing made of it.
    """

    avoid_device_init = True  # also where there is a GPU

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.watched, self.products = False, set()
        self._inside = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._inside or func is torch.ops.prim.device.default:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if func is aten._pin_memory.default:
            pinned = args[0].clone()
            pinned.pinned = True
            return pinned
        leaves = pytree.arg_tree_leaves(*args, **kwargs)
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        devices |= {leaf.type for leaf in leaves if isinstance(leaf, torch.device)}
        if "cuda" not in devices:
            return func(*args, **kwargs)
        if self.watched and "cpu" in devices:
            _check(func, leaves, args, kwargs)
        if func in _PRODUCTS:
            self.products.add(args[-1].dtype)
        self._inside = True  # what torch makes of it in turn is no call of ours
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._inside = False


def _check(func, leaves, args, kwargs) -> None:
    """Raises WaitError where an operation of host and device makes the host wait."""
    hosts = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == "cpu"]
    if any(isinstance(leaf, torch.device) and leaf.type == "cpu" for leaf in leaves):
        raise WaitError(f"{func}: copies from the device")
    if func in _COPIES:
        if isinstance(args[0], FakeTensor) and func is aten._to_copy.default:
            raise WaitError(f"{func}: copies from the device")
        if not kwargs.get("non_blocking", args[2] if len(args) > 2 else False):
            raise WaitError(f"{func}: copies {list(hosts[0].shape)} to the device and waits")
        if not getattr(hosts[0], "pinned", False):
            raise WaitError(f"{func}: copies {list(hosts[0].shape)} from memory that is not pinned")
        return
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    takes_numbers = func is aten.fill_.Tensor or (torch.Tag.pointwise in func.tags and len(tensors) == 2)
    if not takes_numbers or any(host.ndim for host in hosts):
        raise WaitError(f"{func}: copies {[list(host.shape) for host in hosts]} to the device")


def backward(loss: Tensor, **_) -> None:
    """`loss.backward()` without torch's engine, which asks the driver for each device of a graph.

    The latest operation first, so that all that came of a result is done before the result's own. Gradients are given
    the type and shape of what they are of, as the engine does, and have to be on its device.
    """
    count = itertools.count()
    pending = {loss.grad_fn: [torch.ones_like(loss)]}
    queue = [(0, next(count), loss.grad_fn)]
    while queue:
        node = heapq.heappop(queue)[2]
        given = pending.pop(node)
        if hasattr(node, "variable"):
            leaf = node.variable
            leaf.grad = given[0] if leaf.grad is None else leaf.grad + given[0]
            continue
        with torch.no_grad():
            results = getattr(node, "apply", node)(*given)
            found = pytree.tree_leaves(results)
            while len(found) > len(node.next_functions):  # of what was no tensor, last among a function's arguments
                assert found.pop() is None
            for result, (following, slot) in zip(found, node.next_functions, strict=True):
                if following is None or result is None:
                    continue
                of = following._input_metadata[slot]
                if result.device != of.device:
                    raise RuntimeError(f"{node.name()}: a gradient on {result.device} of a tensor on {of.device}")
                if following not in pending:
                    pending[following] = [None] * len(following._input_metadata)
                    heapq.heappush(queue, (-following._sequence_nr(), next(count), following))
                if result.shape != torch.Size(of.shape) or result.dtype != of.dtype:
                    result = result.sum_to_size(of.shape).to(of.dtype)
                sums = pending[following]
                sums[slot] = result if sums[slot] is None else sums[slot] + result


@contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """A fake GPU that can all a real one can, bf16 too."""
    # torch's engine starts threads at its first pass, for the devices that there are by then
    torch.zeros((), requires_grad=True).backward()
    with pytest.MonkeyPatch.context() as patch, FakeGpu() as gpu:
        patch.setattr(Tensor, "backward", backward)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patch.setattr(torch._C, "_current_graph_task_id", lambda: 1)  # recomputes once for a pass, not for each tensor
        yield gpu
