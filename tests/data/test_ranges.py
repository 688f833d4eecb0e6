"""A range of stored values is measured the same every time, printed, and refused where there can be none."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from maekit.config import AugmentConfig, DataConfig, files
from maekit.data.loader import BadImages, eval_batches, train_batches
from maekit.data.ranges import resolved, say_little_use, use_of_range
from maekit.data.sources import Source, open_source
from maekit.data.statistics import standardisation
from maekit.errors import DataError, UsageError


@pytest.fixture
def twelve_bits(tmp_path: Path) -> Source:
    """Four images whose values spread evenly over 0 to 4095, two as PNG, two as .npy."""
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 4096, (40, 48), dtype=np.uint16)
        if number % 2:
            np.save(tmp_path / f"{number}.npy", values)
        else:
            Image.fromarray(values).save(tmp_path / f"{number}.png")
    return open_source(str(tmp_path))


def test_measured_is_what_the_values_use(twelve_bits: Source, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="maekit"):
        found = resolved("measured", twelve_bits, 3, workers=0)
    assert found is not None
    assert found[0] == pytest.approx(4, abs=4)
    assert found[1] == pytest.approx(4091, abs=4)
    assert "0.1st and 99.9th percentile of 15,360 values in 4 images" in caplog.text
    assert resolved("measured", twelve_bits, 3, workers=0) == found
    assert resolved((0, 7), twelve_bits, 3) == (0, 7)


def test_training_evaluation_and_statistics_see_the_range(twelve_bits: Source) -> None:
    data = DataConfig(workers=0, range=(0, 4095), shuffle=False, normalise="measured")
    plain, bad = AugmentConfig(crop="none", flip=0.0), BadImages(twelve_bits, 0.0)
    (trained,) = train_batches(
        twelve_bits, data, plain, image_hw=(40, 48), channels=3, seed=0, batch_size=4, micro_batch=4, start_step=0,
        total_steps=1, rank=0, world_size=1, bad=bad,
    )  # fmt: skip
    (judged,) = eval_batches(
        twelve_bits, indices=None, image_hw=(40, 48), channels=3, crop_share=1.0, batch_size=4, workers=0, bad=bad,
        value_range=(0, 4095),
    )  # fmt: skip
    assert (trained.images == judged.images).all()
    assert len(trained.images[0].unique()) > 1000
    mean, _ = standardisation(data, twelve_bits, 3)
    assert mean == pytest.approx((0.5,) * 3, abs=0.02)


@pytest.mark.usefixtures("twelve_bits")
def test_eight_and_sixteen_bits_have_no_common_range(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "bytes.png")
    with pytest.raises(DataError, match="8 bits and of more"):
        resolved("measured", open_source(str(tmp_path)), 3, workers=0)


def test_equal_values_and_unreadable_images_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image can be read"):
        resolved("measured", open_source(str(tmp_path)), 3, workers=0)
    Image.new("L", (9, 9), 7).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="nearly all values are 7"):
        resolved("measured", open_source(str(tmp_path)), 3, workers=0)


def test_signed_values_can_be_measured(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(-500, 1500, dtype=np.int16).reshape(40, 50))
    found = resolved("measured", open_source(str(tmp_path)), 1, workers=0)
    assert found == pytest.approx((-498, 1498), abs=2)


@pytest.mark.parametrize("value", [[5, 5], [5, 1], "mesured", [1]])
def test_what_is_no_range_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="range"):
        files.from_dict(DataConfig, {"range": value}, "config")


def test_how_much_is_used() -> None:
    deep, shallow = use_of_range([(0, 4095, 65535), (100, 65535, 65535), (10, 60, 255)])[::-1]
    assert (deep["low"], deep["high"], deep["images"], deep["narrow"]) == (0, 65535, 2, 1)
    assert shallow["share"] == pytest.approx(50 / 255)


class TestLittleUse:
    """Values that leave most of their range unused are told by every verb that uses images, not by the doctor alone."""

    def test_training_says_it_and_a_range_ends_it(self, maekit_here, twelve_bits: Source, tmp_path: Path) -> None:
        words = ("pretrain", "vit-tiny", "--data", twelve_bits.text, *tiny.SIZES, "--steps", "1", "--lr", "1e-3",
                 "--batch-size", "2", "--workers", "0")  # fmt: skip
        said = maekit_here(*words, "--out", tmp_path / "run").stderr
        assert "use 6% of what their type can hold" in said
        assert "--data.range measured, or --data.range" in said
        ranged = maekit_here(*words, "--out", tmp_path / "ranged", "--data.range", "measured").stderr
        assert "of what their type can hold" not in ranged
        out = tmp_path / "features.npz"
        embedded = maekit_here("embed", "--weights", tmp_path / "run", "--data", twelve_bits.text, "--out", out)
        assert "these weights know no other range" in embedded.stderr
        embedded = maekit_here("embed", "--weights", tmp_path / "ranged", "--data", twelve_bits.text, "--out", out)
        assert "of what their type can hold" not in embedded.stderr

    def test_bytes_are_never_told(self, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("WARNING", logger="maekit"):
            say_little_use(open_source(str(photos)), 3, "")
        assert not caplog.text
