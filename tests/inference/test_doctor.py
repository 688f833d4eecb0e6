"""The data doctor: counts, classes, what is broken or twice there, statistics and speed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maekit.config.verbs import DataOptions
from maekit.errors import DataError, UsageError
from maekit.inference.doctor import examine


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two classes with seven images, one of them twice there, and two broken files."""
    for number in range(6):
        folder = tmp_path / ("cat" if number < 4 else "dog")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (20 + number, 30), (number * 50, 0, 255)).save(folder / f"{number}.png")
    Image.new("L", (90, 80), 100).save(tmp_path / "dog/grey.jpg")
    (tmp_path / "dog/again.png").write_bytes((tmp_path / "cat/2.png").read_bytes())
    (tmp_path / "dog/text.png").write_text("text")
    (tmp_path / "dog/empty.jpg").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_folder_holds(mixed: Path, workers: int) -> None:
    answer = examine(DataOptions(source=str(mixed), workers=workers, rate=1e6))
    assert json.loads(json.dumps(answer.as_dict())).keys() == answer.as_dict().keys()
    assert answer.images == answer.examined == 10
    assert answer.classes == {"cat": 4, "dog": 6}
    assert [Path(bad["path"]).name for bad in answer.unreadable] == ["empty.jpg", "text.png"]
    assert answer.unreadable[0]["reason"] == "the file is empty"
    assert answer.duplicates == [[str(mixed / "cat/2.png"), str(mixed / "dog/again.png")]]
    assert answer.modes == {"PNG RGB": 7, "JPEG L": 1}
    assert answer.sizes["width"] == {"smallest": 20, "median": 22.5, "largest": 90}
    assert answer.sizes["most_frequent"][0] == {"width": 22, "height": 30, "images": 2}
    assert answer.mean[2] == pytest.approx((7 * 255 + 100) / 8 / 255, abs=1e-3)
    assert answer.workers_for_rate == np.ceil(1e6 / answer.images_per_second)


def test_only_some_images_and_one_channel() -> None:
    answer = examine(DataOptions(source="digits:train", images=100, channels=1, workers=0))
    assert (answer.images, answer.examined, sum(answer.classes.values())) == (1437, 100, 1437)
    assert len(answer.mean) == len(answer.std) == 1


def test_the_summary_names_what_matters(mixed: Path) -> None:
    printed = str(examine(DataOptions(source=str(mixed), workers=0)))
    assert f"{mixed}/dog/text.png: not an image" in printed
    assert f"{mixed}/cat/2.png = {mixed}/dog/again.png" in printed
    assert "2, of 4 to 6 images each" in printed
    assert "--normalise given --mean" in printed


def test_a_picture_of_the_spread(mixed: Path, tmp_path: Path) -> None:
    target = tmp_path / "spread.png"
    examine(DataOptions(source=str(mixed / "cat"), workers=0, picture=str(target)))
    with Image.open(target) as picture:
        assert picture.size == (1200, 540)
    with pytest.raises(UsageError, match="written as"):
        examine(DataOptions(source=str(mixed), workers=0, picture=str(tmp_path / "spread.xyz")))


def test_nothing_readable_is_still_an_answer(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("text")
    answer = examine(DataOptions(source=str(tmp_path), workers=0, picture=str(tmp_path / "spread.png")))
    assert len(answer.unreadable) == 1
    assert answer.mean is answer.std is answer.sizes is answer.images_per_second is None


def test_the_command_answers_in_json(maekit_command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = maekit_command("data", "digits:test", "--channels", "1", "--images", "20", "--workers", "0", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["images"] == 360
    assert "--normalise given" in done.stderr


def test_no_such_source() -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        examine(DataOptions(source="nowhere/at-all"))


def test_it_says_how_much_of_their_range_values_use(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 900).reshape(30, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    answer = examine(DataOptions(source=str(tmp_path), workers=0))
    assert "uses 6% of its range; --data.range 0 4095, or --data.range measured" in str(answer)
    assert answer.values == [
        {"kept": "0 to 65535", "low": 0, "high": 4095, "share": 4095 / 65535, "images": 1, "narrow": 1}
    ]
    ranged = examine(DataOptions(source=str(tmp_path), workers=0, range=(0, 4095)))
    assert ranged.mean[0] == pytest.approx(0.5, abs=0.01)
    assert "--data.range 0 4095 --normalise given" in str(ranged)
    assert examine(DataOptions(source=str(tmp_path), workers=0, range="measured")).range[1] > 4000


def test_images_that_need_a_range_are_named_with_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "signed.npy", np.arange(-50, 50, dtype=np.int16).reshape(10, 10))
    bad = examine(DataOptions(source=str(tmp_path), workers=0, channels=1)).unreadable
    assert "int16, from -50 to 49" in bad[0]["reason"]
    assert "--data.range LOW HIGH" in bad[0]["reason"]
    assert not examine(DataOptions(source=str(tmp_path), workers=0, channels=1, range=(-50, 49))).unreadable
