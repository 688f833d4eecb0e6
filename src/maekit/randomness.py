"""Counter-keyed randomness: every draw is a function of integers, never of what was drawn before.

Order, masks and augmentation are keyed by (seed, epoch, index, view), mixup and drop path by
(seed, step, rank, micro-batch), so the state of a run is one integer. The mixing function is SplitMix64's finaliser
(Steele, Lea and Flood, OOPSLA 2014).
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MASK64 = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def key(*parts: int) -> int:
    """An unsigned 64-bit key of some integers; order matters."""
    state = 0
    for part in parts:
        state = _mix((state + _GAMMA + (part & _MASK64)) & _MASK64)
    return state


def split_mix(start: int, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's numbers at some places of its stream from `start`."""
    return _mix(places * np.uint64(_GAMMA) + np.uint64(start))


def _mix(value: Any) -> Any:
    """value: an integer, or uint64 [N]."""
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK64
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK64
    return value ^ (value >> 31)


def numpy_generator(*parts: int) -> np.random.Generator:
    """A NumPy generator of its own for these integers."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


@contextmanager
def global_seeds(*parts: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's (CPU) global generators inside the block, then restore them.

    For libraries that draw from the global generators: timm's RandAugment, random erasing and Mixup.
    """
    seed = key(*parts)
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002 - the libraries in question draw from it
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.default_generator.manual_seed(seed >> 1)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which torch shifts arithmetically."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(values: Tensor) -> Tensor:
    values = (values ^ _shift_right(values, 30)) * _signed(_MIX_1)
    values = (values ^ _shift_right(values, 27)) * _signed(_MIX_2)
    return values ^ _shift_right(values, 31)


def keys_tensor(*parts: int | Tensor) -> Tensor:
    """`key` over tensors: each part an int or int64 [N]; returns int64 [N] with the same 64 bits, on any device."""
    first = next(part for part in parts if isinstance(part, Tensor))
    state = torch.zeros_like(first)
    for part in parts:
        added = part if isinstance(part, Tensor) else _signed(part & _MASK64)
        state = _mix_tensor(state + _signed(_GAMMA) + added)
    return state


def uniform_scores(keys: Tensor, count: int) -> Tensor:
    """Scores in [0, 2^53) that are equal on every device.

    keys: [N] int64 → [N, count] int64. Ranking a row by its scores gives a uniformly random permutation for its key.
    """
    counters = torch.arange(count, device=keys.device) * _signed(_GAMMA)
    return _shift_right(_mix_tensor(keys[:, None] + counters[None, :]), 11)
