"""Images to judge by: a source of their own, or part of the training source; and whether they really are held out."""

import logging
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from maekit.data.sources.elsewhere import files_of
from maekit.data.sources.folder import FilesSource
from maekit.data.sources.source import Source, digests, evenly_spread
from maekit.data.sources.subset import SubsetSource, labels_of
from maekit.errors import DataError
from maekit.randomness import numpy_generator

_HELD_OUT = 0x68656C64  # keeps these draws apart from others with the same seed
_JUDGED = 1000  # validation images that are looked for among the training ones, of more that many evenly spread
_LOOKED_AT = 100_000  # training images whose sizes are compared with theirs
_READ = 20_000  # training images that are read for it at most
_UNSIZED, _RUN = 2000, 100  # the same where their sizes are not known, and how many of them lie side by side

_log = logging.getLogger("maekit")


def hold_out(source: Source, share: float, seed: int) -> tuple[SubsetSource, SubsetSource]:
    """(training images, held-out images): of each class, and of what has none, a share drawn by the seed.

    A class keeps at least one image to learn from, and gives at least one where it has two. Raises DataError where
    nothing would be held out.
    """
    labels = labels_of(source)
    drawn: list[NDArray[np.int64]] = []
    order = np.argsort(labels, kind="stable")
    numbers, starts = np.unique(labels[order], return_index=True)
    for number, members in zip(numbers, np.split(order, starts[1:]), strict=True):
        count = min(max(1, round(share * len(members))), len(members) - 1)
        drawn.append(numpy_generator(_HELD_OUT, seed, int(number) + 1).permutation(members)[:count])
    held = np.sort(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)
    if not len(held):
        raise DataError(f"{source.text}: no class has a second image, so none can be held out; name images with --val")
    lone = sum(len(part) == 0 for part in drawn)
    if lone:
        _log.warning("%s: %d classes have one image, which is learned from and not judged by", source.text, lone)
    is_learned = np.ones(len(source), bool)
    is_learned[held] = False
    train = SubsetSource(source, np.flatnonzero(is_learned))
    val = SubsetSource(source, held)
    train.text, val.text = f"{source.text} without {share:g} of it", f"{share:g} of {source.text}"
    counts = len(train), len(val)
    by = "seed" if source.classes is None else "class and seed"
    _log.info("%s: %d images are learned from, %d are held out, by %s %d", source.text, *counts, by, seed)
    return train, val


def say_shared(train: Source, val: Source) -> int:
    """Warn where validation images are among the training ones; returns how many of those that were looked at.

    Equal paths or, unless training images lie elsewhere, equal bytes. Up to 1,000 validation images are looked for; for
    their bytes among up to 100,000 training images, which are read only where their size in bytes says that they can be
    equal.
    """
    looked = evenly_spread(len(val), _JUDGED)
    paths = {val.path(index): index for index in looked.tolist()}
    shared = {paths[train.path(index)] for index in _places(train, paths)}
    how = "the same files" if shared else "the same bytes"
    rest = [index for index in looked.tolist() if index not in shared]
    if rest and files_of(train) is None:  # else it would all be fetched for it
        among = _candidates(train, {val.size(index) for index in rest})
        known = {digest for _, digest in digests(train, among)}
        twins = {index for index, digest in digests(val, rest) if digest in known} if known else set()
        how = "the same files or bytes" if shared and twins else how
        shared |= twins
    if shared:
        of = f"{len(looked):,}" if len(looked) == len(val) else f"{len(looked):,} that were looked at of {len(val):,}"
        _log.warning(
            "%s: %s of its %s images are training images too (%s), so what is said of them is no judgement",
            val.text, f"{len(shared):,}", of, how,
        )  # fmt: skip
    return len(shared)


def _places(source: Source, paths: Collection[str]) -> list[int]:
    """Numbers of the images that have one of these paths."""
    if isinstance(source, FilesSource):
        return source.places(paths)
    if isinstance(source, SubsetSource):
        return np.flatnonzero(np.isin(source.indices, _places(source.source, paths))).tolist()
    return [index for index in range(len(source)) if source.path(index) in paths]


def _candidates(train: Source, sizes: set[int]) -> list[int]:
    """Training images that may equal one of these sizes in bytes, -1 for one that is not known.

    Where the training images' own are not known, reading one means reading its neighbours: runs of a hundred then.
    """
    if train.size(0) < 0:
        if len(train) <= _UNSIZED:
            return list(range(len(train)))
        starts = evenly_spread(len(train) // _RUN, _UNSIZED // _RUN) * _RUN
        return [int(start) + offset for start in starts for offset in range(_RUN)]
    looked = evenly_spread(len(train), _LOOKED_AT)
    possible = np.array([index for index in looked.tolist() if -1 in sizes or train.size(index) in sizes], np.int64)
    return possible[evenly_spread(len(possible), _READ)].tolist() if len(possible) else []
