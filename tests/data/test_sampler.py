"""The sample stream: every image once an epoch, and steps that no number of ranks or restarts changes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from maekit.data.sampler import Sample, SampleStream


@settings(max_examples=25)
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
    """All samples of each step, ranks one after another."""
    steps: list[list[Sample]] = [[] for _ in range(total - start)]
    for rank in range(world_size):
        batches = list(
            stream.micro_batches(start, total, batch_size=24, micro_batch=micro_batch, rank=rank, world_size=world_size)
        )
        per_step = len(batches) // (total - start)
        for number, batch in enumerate(batches):
            assert len(batch) == micro_batch
            steps[number // per_step].extend(batch)
    return steps


@settings(max_examples=25)
@given(images=st.integers(1, 60), start=st.integers(0, 5), repeats=st.sampled_from([1, 2]))
def test_world_size_and_micro_batches_never_change_a_step(images: int, start: int, repeats: int) -> None:
    stream = SampleStream(images, 7, repeats=repeats)
    plain = step_samples(stream, 0, 6, 1, 24)
    for world_size, micro_batch in ((1, 6), (2, 12), (2, 4), (4, 3)):
        assert step_samples(stream, start, 6, world_size, micro_batch) == plain[start:]
