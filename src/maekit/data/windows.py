"""The order of images that lie in files elsewhere, of which only some are at hand at a time.

An epoch takes the files in an order of its own, in windows: as many of them, one after another, as have so many bytes
together. Images are in random order within a window. So the order of an epoch is a function of the seed, the epoch,
the files' sizes and the window's, and of nothing else. Where one window has all files, it is the order that the same
images have on a disk of one's own.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maekit.data.sampler import Sample, SampleStream, order
from maekit.data.sources import Source
from maekit.data.sources.elsewhere import Elsewhere, Files, files_of
from maekit.errors import DataError
from maekit.randomness import key, numpy_generator

_TURN, _WITHIN = 0x7475726E, 0x77697468  # keep these draws apart from others
_AT_ONCE = 4  # files that a process fetches before they are read


@dataclass(frozen=True)
class _Turns:
    """An epoch's order of the U files that hold an image, in W windows."""

    files: NDArray[np.int64]
    """[U]: their numbers."""
    ends: NDArray[np.int64]
    """[U]: images up to and with each."""
    windows: NDArray[np.int64]
    """[W + 1]: places among `files` where each window begins, and U."""
    bounds: NDArray[np.int64]
    """[W + 1]: places in the epoch where each begins, and N."""


@lru_cache(maxsize=4)
def _turns(files: Files, seed: int, epoch: int, shuffle: bool) -> _Turns:
    counts = np.diff(files.starts)
    used = np.flatnonzero(counts > 0)
    if shuffle and sum(files.files[file].size for file in used.tolist()) > files.window:
        used = numpy_generator(_TURN, seed, epoch).permutation(used)
    begins, held = [0], 0
    for place, file in enumerate(used.tolist()):
        size = files.files[file].size
        if held and held + size > files.window:
            begins.append(place)
            held = 0
        held += size
    ends, windows = np.cumsum(counts[used]), np.array([*begins, len(used)])
    return _Turns(used, ends, windows, np.append(0, ends)[windows])


@dataclass(frozen=True)
class WindowStream(SampleStream):
    """The stream over images elsewhere. Files are fetched, in threads, before it comes to them."""

    files: Files | None = None

    def _order(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        assert self.files is not None
        turns = _turns(self.files, self.seed, epoch, True)
        if len(turns.windows) == 2:
            return super()._order(places, epoch)
        windows = np.searchsorted(turns.bounds, places, side="right") - 1
        found = np.empty_like(places)
        for window in np.unique(windows).tolist():
            here, (first, end) = windows == window, turns.bounds[window : window + 2].tolist()
            within = first + order(places[here] - first, end - first, key(_WITHIN, self.seed, window), epoch)
            turn = np.searchsorted(turns.ends, within, side="right")
            file = turns.files[turn]
            found[here] = self.files.starts[file + 1] - turns.ends[turn] + within
        return found

    def micro_batches(
        self, start_step: int, total_steps: int, *, batch_size: int, micro_batch: int, rank: int, world_size: int
    ) -> Iterator[list[Sample]]:
        assert self.files is not None
        last_epoch = (total_steps * batch_size - 1) // self.repeats // self.images
        stream = super().micro_batches(
            start_step, total_steps, batch_size=batch_size, micro_batch=micro_batch, rank=rank, world_size=world_size
        )
        with _Fetcher(self.files, self.seed, last_epoch, self.shuffle) as fetcher:
            for samples in stream:
                fetcher.reach(samples[0].epoch, samples[0].index)
                yield samples


def stream_of(source: Source, seed: int, shuffle: bool, repeats: int) -> SampleStream:
    """The stream over a source's images."""
    files = files_of(source)
    if files is None:
        return SampleStream(len(source), seed, shuffle, repeats)
    return WindowStream(len(source), seed, shuffle, repeats, files)


def fetched_ahead(source: Source, indices: NDArray[np.int64], items: Iterable[list[int]]) -> Iterator[list[int]]:
    """Lists of a source's images, in order, some of those at `indices`; their files are fetched before."""
    files = files_of(source)
    if files is None:
        yield from items
        return
    with _Fetcher(files.of(np.sort(indices)), 0, 0, shuffle=False) as fetcher:
        at = 0
        for item in items:
            fetcher.reach(0, at)
            yield item
            at += len(item)


class _Fetcher:
    """Threads that fetch the window that is read and the next one."""

    def __init__(self, files: Files, seed: int, last_epoch: int, shuffle: bool) -> None:
        self._files, self._seed, self._last_epoch, self._shuffle = files, seed, last_epoch, shuffle
        self._next = (0, 0)  # epoch and window
        self._wanted: queue.SimpleQueue[Elsewhere | None] = queue.SimpleQueue()
        self._ended = False

    def __enter__(self) -> "_Fetcher":
        for _ in range(_AT_ONCE):
            threading.Thread(target=self._work, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        for _ in range(_AT_ONCE):
            self._wanted.put(None)

    def reach(self, epoch: int, index: int) -> None:
        """Tell that an image is about to be read; they come by the order of their windows."""
        turns = self._turns(epoch)
        file = int(np.searchsorted(self._files.starts, index, side="right")) - 1
        place = int(np.flatnonzero(turns.files == file)[0])
        now = epoch, int(np.searchsorted(turns.windows, place, side="right")) - 1
        self._next = max(self._next, now)
        until = self._after(*now)
        while self._next <= until and self._next[0] <= self._last_epoch:
            turns, window = self._turns(self._next[0]), self._next[1]
            for file in turns.files[slice(*turns.windows[window : window + 2])].tolist():
                self._wanted.put(self._files.files[file])
            self._next = self._after(*self._next)

    def _after(self, epoch: int, window: int) -> tuple[int, int]:
        last = window == len(self._turns(epoch).windows) - 2
        return (epoch + 1, 0) if last else (epoch, window + 1)

    def _turns(self, epoch: int) -> _Turns:
        return _turns(self._files, self._seed, epoch, self._shuffle)

    def _work(self) -> None:
        while (file := self._wanted.get()) is not None and not self._ended:
            with suppress(DataError, FileNotFoundError):  # who reads it is told
                file.copy(wait=False)
