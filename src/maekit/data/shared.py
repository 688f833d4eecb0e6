"""Arrays that processes share, however they are started: what a source knows of its images, and its workers need.

A forked worker shares all memory until it is written to. One that is started anew, by forkserver or spawn, is sent a
copy of what it needs; of these arrays it is handed the file they lie in, which has no name and takes no disk.
"""

import mmap
import os
import tempfile
from multiprocessing import context, reduction
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LEAST = 2**20  # bytes; smaller arrays are copied sooner than handed over


class SharedArray(np.ndarray[Any, np.dtype[Any]]):
    """An array in such a file, or a part of one. Pickled for anything but a process that starts, it is a copy."""

    def __array_wrap__(self, result: NDArray[Any], *_: Any) -> Any:
        """What is computed from it is an array as any other."""
        return result[()] if result.ndim == 0 else result.view(np.ndarray)


class Memory(mmap.mmap):
    """A file without a name, mapped; it goes with its last user."""

    fd: int

    def __new__(cls, fd: int, size: int) -> "Memory":
        self = super().__new__(cls, fd, size)
        self.fd = fd
        return self

    def __del__(self) -> None:
        os.close(self.fd)

    def cut(self, size: int) -> None:
        """Give back what lies beyond so many bytes, which must not be touched any more."""
        os.ftruncate(self.fd, max(1, size))


def memory(size: int) -> Memory:
    """Zeros that take no memory until they are written to."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("maekit")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, max(1, size))
    return Memory(fd, max(1, size))


def room(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """A shared array [count] of zeros, which take no memory until they are written to."""
    return SharedArray(count, dtype, memory(count * np.dtype(dtype).itemsize))


def shared(array: NDArray[Any]) -> NDArray[Any]:
    """An array [N], where processes share it if it is large."""
    if array.nbytes < _LEAST or _memory_of(array) is not None:
        return array
    copy = room(len(array), array.dtype)
    copy[:] = array
    return copy


def _memory_of(array: NDArray[Any]) -> Memory | None:
    base: Any = array
    while base is not None and not isinstance(base, Memory):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base


def _handed_array(array: SharedArray) -> Any:
    within = _memory_of(array)
    if within is None or not array.flags.c_contiguous or context.get_spawning_popen() is None:
        return np.array(array).__reduce__()
    offset = array.ctypes.data - np.frombuffer(within, np.uint8).ctypes.data
    return SharedArray, (array.shape, array.dtype, within, offset)


def _memory_behind(descriptor: Any, size: int) -> Memory:
    return Memory(descriptor.detach(), size)


def _handed_memory(memory: Memory) -> Any:
    return _memory_behind, (reduction.DupFd(memory.fd), os.fstat(memory.fd).st_size)


# Registered apart, as a file can be handed over once to a process, whatever the number of arrays in it.
reduction.ForkingPickler.register(SharedArray, _handed_array)
reduction.ForkingPickler.register(Memory, _handed_memory)
