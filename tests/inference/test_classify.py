"""`maekit classify`: every image gets its classes, whatever way it was named."""

from pathlib import Path

import pytest
from answers import answer, complaint
from classifiers import batches

from maekit import cli
from maekit.inference.evaluate import judge
from maekit.models.classifier import Classifier


def paths(said: dict) -> list[str]:
    return [image["path"] for image in said["images"]]


def test_probabilities_are_sorted_and_sum_to_one(capsys, photos: Path, photos_weights: Path):
    said = answer(capsys, "classify", photos, "--weights", photos_weights, "--top", 7)
    assert len(said["images"]) == 12
    for image in said["images"]:
        shares = [guess["probability"] for guess in image["top"]]
        assert {guess["label"] for guess in image["top"]} == {"rough", "smooth"}
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)


def test_the_first_guess_is_what_evaluate_counts(capsys, digits_weights: Path, digits_model: Classifier):
    said = answer(capsys, "classify", "digits:test", "--weights", digits_weights, "--top", 1)
    guesses = [int(image["top"][0]["label"]) for image in said["images"]]
    assert guesses == judge(digits_model, batches("digits:test", digits_model)).guesses[:, 0].tolist()


def test_files_folders_and_lists_may_be_mixed_and_keep_their_order(
    capsys, photos: Path, photos_weights: Path, tmp_path: Path
):
    smooth = sorted((photos / "smooth").iterdir())
    (tmp_path / "list.txt").write_text(f"{smooth[1]}, 0\n{smooth[0]}, 1\n")
    words = (smooth[3], photos / "rough", tmp_path / "list.txt", smooth[2])
    said = answer(capsys, "classify", *words, "--weights", photos_weights)
    expected = [smooth[3], *sorted((photos / "rough").iterdir()), smooth[1], smooth[0], smooth[2]]
    assert paths(said) == [str(path) for path in expected]
    alone = answer(capsys, "classify", smooth[1], "--weights", photos_weights)["images"][0]
    labels = [guess["label"] for guess in alone["top"]]
    assert labels == [guess["label"] for guess in said["images"][7]["top"]]
    assert [guess["probability"] for guess in alone["top"]] == pytest.approx(
        [guess["probability"] for guess in said["images"][7]["top"]], rel=1e-5
    )


def test_unreadable_images_are_named_and_the_others_classified(
    capsys, broken_photos: Path, photos_weights: Path, tmp_path: Path
):
    broken, missing = broken_photos / "rough" / "broken.png", tmp_path / "missing.jpg"
    sound = sorted((broken_photos / "smooth").iterdir())[0]
    said = answer(capsys, "classify", broken, sound, missing, "--weights", photos_weights)
    assert paths(said) == [str(sound)]
    assert [entry["path"] for entry in said["skipped"]] == [str(broken), str(missing)]
    assert "no such file" in said["skipped"][1]["reason"]


def test_when_none_can_be_read_it_fails_with_the_reasons(
    capsys, broken_photos: Path, photos_weights: Path, tmp_path: Path
):
    broken, missing = broken_photos / "rough" / "broken.png", tmp_path / "missing.jpg"
    line = complaint(capsys, "classify", broken, missing, "--weights", photos_weights)
    assert "none of its 2 images can be read" in line
    assert "no such file" in line


def test_a_line_for_each_image_is_printed_whatever_its_name(capsys, photos: Path, photos_weights: Path, tmp_path: Path):
    odd = tmp_path / ("[red] :smile: " + "long " * 30 + ".jpg")
    odd.write_bytes(sorted(photos.rglob("*.jpg"))[0].read_bytes())
    assert cli.main(["classify", str(odd), "--weights", str(photos_weights), "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(str(odd))
    assert lines[1].endswith("%")


def test_names_that_are_not_utf8_can_be_printed(capsysbinary, photos: Path, photos_weights: Path, tmp_path: Path):
    odd = tmp_path / "caf\udce9.jpg"
    try:
        odd.write_bytes(sorted(photos.rglob("*.jpg"))[0].read_bytes())
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    assert cli.main(["classify", str(odd), "--weights", str(photos_weights)]) == 0
    assert "caf\ufffd.jpg".encode() in capsysbinary.readouterr().out


@pytest.mark.parametrize("kind", ["mae", "encoder"])
def test_what_has_no_head_cannot_classify(capsys, kind: str, request: pytest.FixtureRequest):
    weights = request.getfixturevalue(f"{kind}_weights")
    assert "it cannot classify" in complaint(capsys, "classify", "digits:test", "--weights", weights)


def test_no_image_at_all_is_bad_usage(capsys, photos_weights: Path):
    assert "--data is missing: Image files" in complaint(capsys, "classify", "--weights", photos_weights, code=2)
