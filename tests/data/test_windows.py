"""The order of images in files elsewhere: window by window, a function of seed, epoch, sizes and window alone."""

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from maekit.data.sampler import SampleStream
from maekit.data.sources.elsewhere import Files, some_of
from maekit.data.windows import WindowStream, fetched_ahead

COUNTS = [3, 0, 7, 5, 1, 9, 4, 6]
IMAGES = sum(COUNTS)


@dataclass
class File:
    size: int
    copied: threading.Event = field(default_factory=threading.Event)

    def copy(self, *, wait: bool = True) -> None:
        assert not wait, "a thread beside the reader has better to do than to wait for another process"
        self.copied.set()


class Some:
    """A source of which only the files matter."""

    def __init__(self, window: int) -> None:
        self.files = Files([File(10 * count + 1) for count in COUNTS], np.cumsum([0, *COUNTS]), window)

    def __len__(self) -> int:
        return IMAGES


def stream(window: int, *, seed: int = 0, shuffle: bool = True) -> WindowStream:
    return WindowStream(IMAGES, seed, shuffle, 1, Some(window).files)


def indices(of: SampleStream, start: int, stop: int) -> list[int]:
    return [sample.index for sample in of.samples(start, stop)]


def file_of(image: int) -> int:
    return int(np.searchsorted(np.cumsum(COUNTS), image, side="right"))


@pytest.mark.parametrize("window", [1, 100, 150, 1000])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_has_every_image_once(window: int, epoch: int) -> None:
    assert sorted(indices(stream(window), epoch * IMAGES, (epoch + 1) * IMAGES)) == list(range(IMAGES))


def windows_of(order: list[int], window: int) -> list[set[int]]:
    """The files of an epoch's images, cut greedily into runs that fit a window."""
    seen: list[set[int]] = [set()]
    for image in order:
        files = seen[-1] | {file_of(image)}
        if sum(10 * COUNTS[file] + 1 for file in files) > window:
            seen.append({file_of(image)})
        else:
            seen[-1] = files
    return seen


def test_images_of_a_window_come_together_and_shuffled() -> None:
    order = indices(stream(150), 0, IMAGES)
    seen = windows_of(order, 150)
    assert len(seen) <= 4
    assert sum(map(len, seen)) == sum(count > 0 for count in COUNTS)  # no file is come back to
    changes = sum(file_of(a) != file_of(b) for a, b in pairwise(order))
    assert changes > len(COUNTS)  # not file by file


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(indices(stream(150, seed=seed), epoch * IMAGES, (epoch + 1) * IMAGES)) for seed in (0, 1)
              for epoch in (0, 1)}  # fmt: skip
    assert len(orders) == 4


def test_epochs_take_the_files_in_orders_of_their_own() -> None:
    epochs = [indices(stream(100), epoch * IMAGES, (epoch + 1) * IMAGES) for epoch in range(6)]
    assert len({frozenset(windows_of(order, 100)[0]) for order in epochs}) > 3


def test_a_window_is_shuffled_by_the_seed() -> None:
    two = Files([File(100)] * 2, np.array([0, 50, 100]), 100)
    orders = {tuple(index % 50 for index in indices(WindowStream(100, seed, True, 1, two), 0, 50)) for seed in range(6)}
    assert len(orders) == 6


def test_one_window_of_all_is_the_order_of_a_disk_of_ones_own() -> None:
    assert indices(stream(1000), 0, 3 * IMAGES) == indices(SampleStream(IMAGES, 0), 0, 3 * IMAGES)


def test_without_shuffling_it_is_the_sources_order() -> None:
    assert indices(stream(100, shuffle=False), 0, IMAGES) == list(range(IMAGES))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_the_images_of_each_step(ranks: int) -> None:
    whole = indices(stream(100), 0, 48)
    shares = [stream(100).micro_batches(0, 6, batch_size=8, micro_batch=2, rank=rank, world_size=ranks)
              for rank in range(ranks)]  # fmt: skip
    passes = zip(*shares, strict=True)
    assert whole == [sample.index for batches in passes for batch in batches for sample in batch]


def test_a_late_start_goes_on_in_the_middle() -> None:
    def batches(start: int) -> list[list[int]]:
        late = stream(100).micro_batches(start, 12, batch_size=8, micro_batch=8, rank=0, world_size=1)
        return [[sample.index for sample in batch] for batch in late]

    assert batches(7) == batches(0)[7:]


def test_the_window_that_is_read_and_the_next_are_fetched() -> None:
    of = stream(100)
    batches = of.micro_batches(0, 40, batch_size=2, micro_batch=2, rank=0, world_size=1)
    assert next(batches)
    assert of.files is not None
    files: list[File] = of.files.files  # type: ignore[assignment]
    now, after, *later = windows_of(indices(of, 0, IMAGES), 100)
    assert all(files[file].copied.wait(10) for file in now | after)
    time.sleep(0.05)
    assert not any(files[file].copied.is_set() for window in later for file in window)
    for _ in range(IMAGES // 2):
        next(batches)
    assert all(file.copied.wait(10) for file, count in zip(files, COUNTS, strict=True) if count)
    batches.close()


def test_what_is_judged_on_is_fetched_in_its_order() -> None:
    source = Some(100)
    chosen = np.arange(0, IMAGES, 2)
    items = [chosen[at : at + 4].tolist() for at in range(0, len(chosen), 4)]
    read = fetched_ahead(source, chosen, items)  # type: ignore[arg-type]
    assert next(read) == items[0]
    first, last = source.files.files[0], source.files.files[-1]
    assert first.copied.wait(10)  # type: ignore[attr-defined]
    assert not last.copied.is_set()  # type: ignore[attr-defined]
    assert [next(read) for _ in items[1:]] == items[1:]
    assert last.copied.wait(10)  # type: ignore[attr-defined]
    assert list(read) == []


def test_where_some_images_will_do_few_files_are_looked_into() -> None:
    counts = [100] * 50
    source = Some(0)
    source.files = Files([File(10)] * 50, np.cumsum([0, *counts]), 100)
    source.__class__ = type("Many", (Some,), {"__len__": lambda _: 5000})
    some = some_of(source, 64)  # type: ignore[arg-type]
    assert len(some) == 64
    assert len({image // 100 for image in some.tolist()}) == 8
    source.files = Files(source.files.files, source.files.starts, 1000)  # all fit a window
    assert len({image // 100 for image in some_of(source, 64).tolist()}) == 50  # type: ignore[arg-type]
