"""Batches: the same with any number of workers, ranks and restarts; bad images named, replaced, bounded."""

import logging
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from maekit.config import AugmentConfig, DataConfig
from maekit.data import loader
from maekit.data.loader import BadImages, Batch, eval_batches, stack, train_batches
from maekit.data.sources import Source, open_source
from maekit.errors import DataError, UsageError


def batches(source: Source, **changes: Any) -> Iterator[Batch]:
    config = DataConfig(
        workers=changes.pop("workers", 0),
        bad_share=changes.pop("bad_share", 0.01),
        decode=changes.pop("decode", "reduced"),
    )
    augment = changes.pop("augment", AugmentConfig(erase=0.3))
    settings: dict[str, Any] = {
        "image_hw": (16, 16), "channels": 3, "seed": 0, "batch_size": 8, "micro_batch": 4, "start_step": 0,
        "total_steps": 4, "rank": 0, "world_size": 1, "bad": BadImages(source, config.bad_share),
    }  # fmt: skip
    return train_batches(source, config, augment, **{**settings, **changes})


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one, other)
        for a, b in zip(first, second, strict=True)
        for one, other in zip(astuple(a), astuple(b), strict=True)
    )


@pytest.fixture
def source(photos: Path) -> Source:
    return open_source(str(photos))


@pytest.fixture
def damaged(photos: Path, tmp_path: Path) -> Source:
    """The photos, unlabelled, with three broken files among them."""
    for number, file in enumerate(sorted(photos.rglob("*.*"))):
        (tmp_path / f"{number:02d}{file.suffix}").write_bytes(file.read_bytes())
    jpeg = next(photos.rglob("*.jpg")).read_bytes()
    (tmp_path / "03x.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "05x.png").write_text("not a picture")
    (tmp_path / "07x.png").write_bytes(b"")
    return open_source(str(tmp_path))


def test_batches_hold_what_they_say(source: Source) -> None:
    first, *_, last = batches(source)
    assert first.images.shape == (4, 3, 16, 16)
    assert first.images.dtype == torch.uint8
    assert all(field.dtype == torch.int64 for field in astuple(first)[1:])
    assert [source.label(index) for index in first.indices.tolist()] == first.labels.tolist()
    assert (first.epochs.unique().tolist(), last.epochs.unique().tolist()) == ([0], [2])
    assert len(first.to("cpu")) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(source: Source, workers: int) -> None:
    augment = AugmentConfig(randaugment="rand-m9-mstd0.5", erase=0.3, repeats=2)
    assert same(list(batches(source, workers=workers, augment=augment)), list(batches(source, augment=augment)))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_a_step(source: Source, world_size: int) -> None:
    shares = [
        list(batches(source, micro_batch=2, rank=rank, world_size=world_size, total_steps=3))
        for rank in range(world_size)
    ]
    alone = list(batches(source, micro_batch=2, total_steps=3))
    together = [batch for one_pass in zip(*shares, strict=True) for batch in one_pass]
    assert same(together, alone)


def test_a_later_start_continues_exactly(source: Source) -> None:
    assert same(list(batches(source, start_step=2)), list(batches(source))[4:])


def test_starting_late_costs_nothing() -> None:
    source = open_source("digits:train")
    first = next(batches(source, channels=1, start_step=10**12, total_steps=10**12 + 1, augment=AugmentConfig()))
    assert first.epochs.tolist() == [8 * 10**12 // 1437] * 4


def test_the_loader_draws_nothing_from_the_global_generator(source: Source) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(batches(source, workers=1))
    assert torch.rand(1) == expected


def test_repeats_show_one_image_in_several_crops(source: Source) -> None:
    batch = next(batches(source, augment=AugmentConfig(repeats=4)))
    assert len(batch.indices.unique()) == 1
    assert batch.views.tolist() == [0, 1, 2, 3]
    assert len({tuple(image.flatten().tolist()) for image in batch.images}) == 4


def test_views_of_an_image_share_one_decoding_across_micro_batches(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = Mock(wraps=loader.decode_reduced)
    monkeypatch.setattr(loader, "decode_reduced", decoded)
    augment = AugmentConfig(repeats=3)
    found = list(batches(source, augment=augment, total_steps=3, batch_size=8, micro_batch=4))
    assert [len(batch) for batch in found] == [4] * 6
    assert decoded.call_count == 24 / 3
    alone = list(batches(source, augment=augment, total_steps=3, micro_batch=2, world_size=2))
    assert decoded.call_count > 8 + 4  # two processes share nothing
    assert same(alone, [each for batch in found for each in halves(batch)][::2])


def halves(batch: Batch) -> list[Batch]:
    return [Batch(*(field[start : start + 2] for field in astuple(batch))) for start in (0, 2)]


def test_impossible_augmentation_is_refused_before_any_image(source: Source) -> None:
    with pytest.raises(UsageError, match="randaugment"):
        batches(source, channels=1, augment=AugmentConfig(randaugment="rand-m9"))


class TestBadImages:
    def test_they_are_named_once_and_replaced_alike_for_any_workers(
        self, damaged: Source, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad = BadImages(damaged, 0.01)
        with caplog.at_level(logging.WARNING, logger="maekit"):
            plain = list(batches(damaged, total_steps=6, bad=bad))
        assert [len(batch) for batch in plain] == [4] * 12
        assert [Path(path).name for path, _ in bad.found()] == ["03x.jpg", "05x.png", "07x.png"]
        assert len(caplog.records) == 3
        assert "05x.png: cannot be used: not an image" in caplog.text
        unreadable = {index for index in range(len(damaged)) if "x" in Path(damaged.path(index)).name}
        assert not unreadable & {index for batch in plain for index in batch.indices.tolist()}
        assert same(plain, list(batches(damaged, total_steps=6, workers=2)))

    def test_too_many_stop_the_run_with_the_list(self, damaged: Source) -> None:
        with pytest.raises(DataError, match=r"03x.jpg|05x.png|07x.png") as caught:
            list(batches(damaged, total_steps=9, bad_share=0.0))
        assert "1 of 15 images cannot be read, more than the 0 that data.bad_share tolerates" in str(caught.value)

    def test_the_list_is_cut_at_ten(self, tmp_path: Path) -> None:
        for number in range(40):
            (tmp_path / f"{number}.png").write_text("")
        source = open_source(str(tmp_path))
        bad = BadImages(source, 0.5)
        for index in range(20):
            bad.add(index, "broken")
        with pytest.raises(DataError) as caught:
            bad.add(20, "broken")
        assert str(caught.value).count("(broken)") == 10
        assert str(caught.value).endswith("and 11 more")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_no_readable_image_is_one_clear_line(self, tmp_path: Path, workers: int) -> None:
        for number in range(3):
            (tmp_path / f"{number}.png").write_text("text")
        source = open_source(str(tmp_path))
        with pytest.raises(DataError, match="none of its 3 images can be read") as caught:
            list(batches(source, workers=workers, bad_share=1.0))
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match="none of its 3 images can be read"):
            evaluated(source, workers=workers, bad=BadImages(source, 1.0))

    def test_evaluation_leaves_them_out(self, damaged: Source) -> None:
        bad = BadImages(damaged, 0.01)
        seen = [index for batch in evaluated(damaged, batch_size=2, bad=bad) for index in batch.indices.tolist()]
        unreadable = {index for index in range(len(damaged)) if "x" in Path(damaged.path(index)).name}
        assert seen == [index for index in range(15) if index not in unreadable]
        assert len(bad) == 3


def evaluated(source: Source, **changes: Any) -> list[Batch]:
    settings: dict[str, Any] = {
        "indices": None, "image_hw": (16, 16), "channels": 3, "crop_share": 0.875, "batch_size": 5, "workers": 0,
        "bad": BadImages(source, 0.0),
    }  # fmt: skip
    return list(eval_batches(source, **{**settings, **changes}))


class TestEvaluation:
    def test_every_image_once_in_order(self, source: Source) -> None:
        found = evaluated(source)
        assert [len(batch) for batch in found] == [5, 5, 2]
        assert torch.cat([batch.indices for batch in found]).tolist() == list(range(12))
        assert same(found, evaluated(source, workers=2))

    def test_ranks_divide_it(self, source: Source) -> None:
        parts = [evaluated(source, rank=rank, world_size=5) for rank in range(5)]
        assert torch.cat([batch.indices for part in parts for batch in part]).tolist() == list(range(12))

    def test_only_some(self, source: Source) -> None:
        assert evaluated(source, indices=[7, 2])[0].indices.tolist() == [7, 2]


def test_floating_point_and_eight_bit_images_share_a_batch(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.full((16, 16, 5), 51, dtype=np.uint8))
    np.save(tmp_path / "b.npy", np.full((16, 16, 5), 0.2, dtype=np.float32))
    batch = evaluated(open_source(str(tmp_path)), channels=5)[0]
    assert batch.images.dtype == torch.float32
    assert batch.images.flatten().tolist() == pytest.approx([0.2] * batch.images.numel())


def test_images_of_eight_and_of_more_bits_are_stacked_on_one_scale() -> None:
    eight, more = torch.full((1, 2, 2), 255, dtype=torch.uint8), torch.full((1, 2, 2), 0.5)
    assert stack([eight, eight]).dtype == torch.uint8
    assert stack([eight, more]).flatten(1).unique(dim=1).tolist() == [[1.0], [0.5]]
