"""The sample stream: every image once an epoch, and steps that no number of ranks or restarts changes."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from maekit.data import sampler
from maekit.data.sampler import Sample, SampleStream, order
from maekit.randomness import numpy_generator

MANY = 2**20 + 7  # more than an order's array is made for, and the most walks: just beyond a power of two


@settings(max_examples=25, deadline=None)
@given(images=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), repeats=st.integers(1, 3))
def test_every_epoch_has_each_image_once_per_view(images: int, seed: int, repeats: int) -> None:
    stream = SampleStream(images, seed, repeats=repeats)
    length = images * repeats
    for epoch in range(3):
        samples = stream.samples(epoch * length, (epoch + 1) * length)
        assert sorted((sample.index, sample.view) for sample in samples) == [
            (index, view) for index in range(images) for view in range(repeats)
        ]
        assert {sample.epoch for sample in samples} == {epoch}


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = [
        tuple(sample.index for sample in SampleStream(40, seed).samples(start, start + 40))
        for seed, start in ((0, 0), (0, 40), (1, 0))
    ]
    assert len(set(orders)) == 3


def test_without_shuffling_the_source_keeps_its_order() -> None:
    assert [sample.index for sample in SampleStream(3, 0, shuffle=False).samples(0, 7)] == [0, 1, 2, 0, 1, 2, 0]


def test_views_of_an_image_are_neighbours() -> None:
    first, second, third = SampleStream(9, 0, repeats=2).samples(0, 3)
    assert (first.index, first.view, second.view, third.view) == (second.index, 0, 1, 0)


def step_samples(stream: SampleStream, start: int, total: int, world_size: int, micro_batch: int) -> list[list[Sample]]:
    """All samples of each step, pass by pass, in each the ranks' one after another."""
    settings = {"batch_size": 24, "micro_batch": micro_batch, "world_size": world_size}
    shares = [stream.micro_batches(start, total, rank=rank, **settings) for rank in range(world_size)]
    passes = list(zip(*shares, strict=True))
    steps: list[list[Sample]] = [[] for _ in range(total - start)]
    for number, one_pass in enumerate(passes):
        for batch in one_pass:
            assert len(batch) == micro_batch
            steps[number * len(steps) // len(passes)].extend(batch)
    return steps


@settings(max_examples=25, deadline=None)
@given(images=st.integers(1, 60) | st.just(MANY), start=st.integers(0, 5), repeats=st.sampled_from([1, 2]))
def test_world_size_and_micro_batches_never_change_a_step(images: int, start: int, repeats: int) -> None:
    stream = SampleStream(images, 7, repeats=repeats)
    plain = step_samples(stream, 0, 6, 1, 24)
    for world_size, micro_batch in ((1, 6), (2, 12), (2, 4), (4, 3)):
        assert step_samples(stream, start, 6, world_size, micro_batch) == plain[start:]


@settings(max_examples=50, deadline=None)
@given(images=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 5))
def test_an_order_without_an_array_has_each_image_once(images: int, seed: int, epoch: int) -> None:
    assert sorted(sampler._network(np.arange(images), images, seed, epoch).tolist()) == list(range(images))


def test_the_order_of_many_images_has_each_once_and_is_its_seeds_and_epochs_own() -> None:
    places = np.arange(MANY)
    found = order(places, MANY, 3, 1)
    assert (np.bincount(found, minlength=MANY) == 1).all()
    assert (order(places[5:9], MANY, 3, 1) == found[5:9]).all()
    for seed, epoch in ((3, 2), (4, 1)):
        assert (order(places, MANY, seed, epoch) == found).sum() < 20


def test_the_order_of_a_billion_images_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        stream = SampleStream(10**9, 0)
        last, first = stream.samples(10**9 - 1, 10**9 + 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (last.epoch, first.epoch) == (0, 1)
    assert max(last.index, first.index) < 10**9
    assert peak < 1e6


def bins(values: NDArray[np.int64], limit: int) -> float:
    """How surprising it is that values below limit fall into 256 equal bins as they do, if all are as likely."""
    counts = np.bincount(values * 256 // limit, minlength=256)
    expected = len(values) / 256
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255))


@pytest.mark.parametrize("way", ["network", "NumPy"])
@pytest.mark.parametrize("images", [MANY, 2**21, 10**7])
def test_an_order_is_as_even_as_numpys(way: str, images: int) -> None:
    """Where the first images go, how far apart neighbours are, where one place leads in many epochs."""
    generator = numpy_generator(images)
    count = 50_000

    def orders(seed: int, epoch: int) -> NDArray[np.int64]:
        if way == "NumPy":  # places of a permutation are draws without replacement
            return generator.choice(images, count, replace=False, shuffle=True)
        return order(np.arange(count), images, seed, epoch)

    found = orders(1, 0)
    steps = np.diff(found) % images
    others = orders(1, 1)
    first = np.array([order(np.array([12345]), images, 1, epoch)[0] for epoch in range(5000)])
    if way == "NumPy":
        first = generator.integers(images, size=5000)
    chances = [bins(values, images) for values in (found, steps, (others - found) % images, first)]
    assert min(chances) > 1e-3
    assert max(chances) < 1 - 1e-3  # too even is not random either
    ascending = (np.diff(found) > 0).mean()
    assert abs(ascending - 0.5) < 5 / (12 * count) ** 0.5  # a permutation's ascents have variance N / 12
