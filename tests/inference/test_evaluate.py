"""`maekit evaluate` and the judgement under it, against scikit-learn's numbers and by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from answers import answer, complaint
from classifiers import batches, photo_classifier
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics
from torch import Tensor

from maekit import cli
from maekit.config.verbs import ConvertOptions
from maekit.data.loader import Batch
from maekit.data.sources import open_source
from maekit.data.sources.labels import string_labels
from maekit.engine.distributed import World
from maekit.errors import DataError
from maekit.inference.convert import convert
from maekit.inference.evaluate import class_numbers, judge
from maekit.models.classifier import Classifier
from maekit.weights import native
from maekit.weights.load import load


@torch.no_grad()
def probabilities(model: Classifier, seen: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """[N, Y] probabilities and [N] labels, computed plainly."""
    logits = torch.cat([model(model.standardise(batch.images)) for batch in seen])
    return logits.double().softmax(dim=1).numpy(), torch.cat([batch.labels for batch in seen]).numpy()


def test_numbers_are_those_of_scikit_learn(digits_model: Classifier):
    seen = batches("digits:test", digits_model)
    shares, labels = probabilities(digits_model, seen)
    judged = judge(digits_model, seen)
    assert 0.5 < judged.top1 < 1
    assert judged.images == 360
    assert judged.top1 == metrics.accuracy_score(labels, shares.argmax(1))
    assert judged.top5 == metrics.top_k_accuracy_score(labels, shares, k=5)
    assert judged.loss == pytest.approx(metrics.log_loss(labels, shares), rel=1e-5)
    assert (judged.confusion().numpy() == metrics.confusion_matrix(labels, shares.argmax(1))).all()
    total, right = judged.per_class()
    assert total.tolist() == np.bincount(labels).tolist()
    assert (right / total).tolist() == pytest.approx(
        metrics.recall_score(labels, shares.argmax(1), average=None).tolist()
    )


class _Memory(World):
    """The second of two processes, which hears of the first one's rows."""

    rows: tuple[Tensor, ...] = ()

    def gather_rows(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.cat(column) for column in zip(self.rows, parts, strict=True)) if self.rows else parts


def test_parts_of_several_processes_make_the_whole(digits_model: Classifier):
    seen = batches("digits:test", digits_model)
    first, world = judge(digits_model, seen[:2]), _Memory()
    object.__setattr__(world, "rows", (first.guesses, first.labels, first.losses))
    together, alone = judge(digits_model, seen[2:], world), judge(digits_model, seen)
    assert (together.top1, together.top5, together.loss) == (alone.top1, alone.top5, alone.loss)
    assert (together.confusion() == alone.confusion()).all()


def test_a_process_without_images_takes_part(digits_model: Classifier):
    seen, world = batches("digits:test", digits_model), _Memory()
    whole = judge(digits_model, seen)
    object.__setattr__(world, "rows", (whole.guesses, whole.labels, whole.losses))
    assert judge(digits_model, [], world).top1 == whole.top1


def test_surrounding_autocast_changes_nothing(digits_model: Classifier):
    seen = batches("digits:test", digits_model)
    with torch.autocast("cpu", torch.bfloat16):
        inside = judge(digits_model, seen)
    assert torch.equal(inside.losses, judge(digits_model, seen).losses)


def test_equal_logits_go_to_the_lower_class_and_top5_is_never_below_top1():
    model = photo_classifier(tuple("abcdefgh"))
    torch.nn.init.zeros_(model.head.weight)
    pixels, none = torch.zeros(8, 3, 16, 16), torch.zeros(8, dtype=torch.int64)
    judged = judge(model, [Batch(pixels, torch.arange(8), none, none, none)])
    assert (judged.top1, judged.top5) == (1 / 8, 5 / 8)
    assert judged.loss == pytest.approx(np.log(8))


def test_top5_of_few_classes_is_one():
    pixels, none = torch.rand(6, 3, 16, 16), torch.zeros(6, dtype=torch.int64)
    judged = judge(photo_classifier(("a", "b")), [Batch(pixels, none, none, none, none)])
    assert judged.top5 == 1.0


def test_images_without_label_do_not_count(digits_model: Classifier):
    seen = batches("digits:test", digits_model)
    half = [replace(batch, labels=torch.where(batch.indices < 180, batch.labels, -1)) for batch in seen]
    judged, expected = (
        judge(digits_model, half),
        judge(digits_model, batches("digits:test", digits_model, batch_size=180)[:1]),
    )
    assert judged.images == 180
    assert (judged.top1, judged.top5) == (expected.top1, expected.top5)
    with pytest.raises(DataError, match="no image has a label"):
        judge(digits_model, [replace(batch, labels=torch.full_like(batch.labels, -1)) for batch in seen])


class _Labels:
    """What matters of a source: its labels."""

    text = "images"

    def __init__(self, classes: Any, labels: list[int]) -> None:
        self.classes, self.labels = classes, labels

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        return f"{index}.png"

    def label(self, index: int) -> int:
        return self.labels[index]


@given(st.lists(st.text("abcXYZ 019", min_size=1), min_size=2, max_size=20, unique=True), st.randoms())
def test_named_classes_find_each_other_in_any_order(names: list[str], random: Any):
    labels, classes = string_labels(names)
    known = list(names)
    random.shuffle(known)
    numbers = class_numbers(_Labels(classes, labels.tolist()), known, "w")
    assert [known[number] for number in numbers[torch.from_numpy(labels)]] == names


@pytest.mark.parametrize(
    ("classes", "known", "expected"),
    [
        (("0", "1"), ("cat", "dog", "elk"), [0, 1]),
        (("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"), tuple(map(str, range(11))),
         [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]),
        (("cat", "dog"), ("0", "1"), [0, 1]),
        (("crane", "crane", "dog"), ("crane", "crane", "dog"), [0, 1, 2]),
    ],
    ids=["numbers of named classes", "folders named by numbers", "weights without names", "one name twice"],
)  # fmt: skip
def test_numbers_stand_for_the_classes_of_the_weights(classes, known, expected):
    assert class_numbers(_Labels(classes, [0]), known, "w").tolist() == expected


@pytest.mark.parametrize(
    ("classes", "labels", "known", "expected"),
    [
        (None, [], ("a", "b"), "images: has no labels"),
        (("0", "1", "2"), [0, 1, 2], ("a", "b"), "2.png has label 2, but w knows 2 classes, 0 to 1"),
        (("a", "c"), [0], ("a", "b"), "1 only in the source (c); 1 only in the weights (b)"),
        (("a", "b"), [0], tuple("abcdef"), "4 only in the weights (c, d, e, ...)"),
        (("a", "b", "c"), [0], ("0", "1"), "3 only in the source (a, b, c); 2 only in the weights (0, 1)"),
        (("a", "b"), [0], ("a", "b", "a"), "some share a name"),
    ],
)
def test_classes_that_differ_are_refused(classes, labels, known, expected):
    with pytest.raises(DataError) as refusal:
        class_numbers(_Labels(classes, labels), known, "w")
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_evaluate_answers_with_numbers_for_all_and_for_each_class(capsys, digits_weights: Path, digits_model):
    said = answer(capsys, "evaluate", "--weights", digits_weights, "--data", "digits:test")
    judged = judge(digits_model, batches("digits:test", digits_model))
    assert (said["top1"], said["top5"], said["loss"]) == (judged.top1, judged.top5, judged.loss)
    assert said["images"] == 360
    assert sum(values["images"] for values in said["classes"].values()) == 360
    weighted = sum(values["top1"] * values["images"] for values in said["classes"].values())
    assert weighted == pytest.approx(360 * said["top1"])
    assert said["skipped"] == []


def test_evaluate_prints_every_class(capsys, digits_weights: Path):
    assert cli.main(["evaluate", "--weights", str(digits_weights), "--data", "digits:test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("top-1 ")
    assert [line.split()[0] for line in lines[2:]] == [str(digit) for digit in range(10)]


def test_a_runs_weights_are_judged_as_the_run_was_validated(capsys, digits_weights: Path, tmp_path: Path):
    def loss(weights: Path, *options: object) -> float:
        return float(answer(capsys, "evaluate", "--weights", weights, "--data", "digits:test", *options)["loss"])

    whole, timms = tmp_path / "whole.safetensors", tmp_path / "timm"
    model = load(digits_weights)
    model.crop_share = 1.0
    native.save(model, whole)
    convert(ConvertOptions(weights=str(whole), to="timm", out=str(timms)))
    assert loss(digits_weights) == loss(digits_weights, "--crop-share", 0.875)
    assert loss(digits_weights) != loss(digits_weights, "--crop-share", 1.0)
    assert loss(whole) == loss(timms) == loss(digits_weights, "--crop-share", 1.0)
    assert loss(whole, "--crop-share", 0.875) == loss(digits_weights)


def test_evaluate_says_what_training_said(capsys, tmp_path: Path):
    """Of the weights alone, which lie far from the run that made them."""
    run, moved = tmp_path / "run", tmp_path / "moved.safetensors"
    words = ("--data", "digits:train", "--val", "digits:test", "--steps", 6, "--workers", 0, "--out", run)
    trained = answer(capsys, "scratch", "digits", *words, "--validation.crop-share", 0.75)
    (run / "model.safetensors").rename(moved)
    said = answer(capsys, "evaluate", "--weights", moved, "--data", "digits:test")
    assert (said["top1"], said["top5"]) == (trained["val_top1"], trained["val_top5"])
    assert said["loss"] == pytest.approx(trained["val_loss"], rel=1e-6)
    other = answer(capsys, "evaluate", "--weights", moved, "--data", "digits:test", "--crop-share", 1.0)
    assert other["loss"] != pytest.approx(trained["val_loss"], rel=1e-5)


def test_list_files_are_judged_as_folders_are(capsys, photos: Path, photos_weights: Path, tmp_path: Path):
    """The weights' order is smooth, rough; a list file's numbers are the weights'."""
    files = sorted(photos.rglob("*.*"))
    listing = tmp_path / "test.txt"
    listing.write_text("".join(f"{file}, {int(file.parent.name == 'rough')}\n" for file in files))
    by_name = answer(capsys, "evaluate", "--weights", photos_weights, "--data", photos)
    by_number = answer(capsys, "evaluate", "--weights", photos_weights, "--data", listing)
    assert by_name == by_number
    assert by_name["classes"]["rough"]["images"] == 6
    assert by_name["classes"]["rough"]["top1"] != by_name["classes"]["smooth"]["top1"]


def test_unreadable_images_are_named_and_left_out(capsys, broken_photos: Path, photos: Path, photos_weights: Path):
    sound = answer(capsys, "evaluate", "--weights", photos_weights, "--data", photos)
    said = answer(capsys, "evaluate", "--weights", photos_weights, "--data", broken_photos)
    assert [entry["path"] for entry in said["skipped"]] == [str(broken_photos / "rough" / "broken.png")]
    assert {**said, "skipped": []} == {**sound, "skipped": []}


def test_many_classes_print_the_worst_ten(capsys, tmp_path: Path):
    names = tuple(f"kind{number:02d}" for number in range(40))
    native.save(photo_classifier(names), tmp_path / "model.safetensors")
    for number in range(12):
        Image.new("RGB", (16, 16), (number * 20, 40, 200)).save(tmp_path / f"{number}.png")
    listing = tmp_path / "test.txt"
    listing.write_text("".join(f"{number}.png, {number}\n" for number in range(12)))
    words = ["evaluate", "--weights", str(tmp_path / "model.safetensors"), "--data", str(listing)]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "the worst 10 of 40 classes" in out
    assert out.count("kind") == 10
    said = answer(capsys, *words)
    assert len(said["classes"]) == 40
    assert said["classes"]["kind39"] == {"top1": None, "images": 0}
    assert "up to 30 classes" in complaint(capsys, *words, "--confusion", tmp_path / "c.svg", code=2)
    assert not (tmp_path / "c.svg").exists()


def test_the_confusion_picture_is_an_svg_with_the_counts(capsys, digits_weights: Path, digits_model, tmp_path: Path):
    path = tmp_path / "confusion.svg"
    answer(capsys, "evaluate", "--weights", digits_weights, "--data", "digits:test", "--confusion", path)
    counts = judge(digits_model, batches("digits:test", digits_model)).confusion()
    texts = [element.text for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert {str(int(count)) for count in counts.diagonal()} <= set(texts)


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("--confusion", "c.png"), 2, "is written as .svg"),
        (("--confusion", "nowhere/c.svg"), 1, "there is no folder nowhere"),
        (("--device", "gpu"), 2, "--device: should be auto, cpu"),
    ],
)
def test_wrong_options_are_one_line(capsys, digits_weights: Path, options, code, expected):
    words = ("evaluate", "--weights", digits_weights, "--data", "digits:test", *options)
    assert expected in complaint(capsys, *words, code=code)


def test_what_cannot_be_judged_is_one_line(
    capsys, digits_weights, photos_weights, mae_weights, encoder_weights, photos, tmp_path
):
    def refused(weights: object, data: object) -> str:
        return complaint(capsys, "evaluate", "--weights", weights, "--data", data)

    assert "a masked autoencoder, which has no head" in refused(mae_weights, "digits:test")
    assert "an encoder alone, which has no head" in refused(encoder_weights, "digits:test")
    assert "different classes" in refused(digits_weights, photos)
    assert "has no labels" in refused(photos_weights, photos / "rough")
    assert "no such file" in refused(photos_weights, tmp_path / "nothing")
    for name in ("torn.png", "broken.png"):
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "bad.txt").write_text("torn.png, 0\nbroken.png, 1\n")
    assert "none of its 2 images can be read" in refused(photos_weights, tmp_path / "bad.txt")


def test_weights_that_give_no_numbers_are_refused(capsys, tmp_path: Path, photos: Path):
    model = photo_classifier(("rough", "smooth"))
    torch.nn.init.constant_(model.head.bias, float("nan"))
    native.save(model, tmp_path / "model.safetensors")
    for words in (
        ("evaluate", "--data", photos),
        ("classify", photos),
    ):
        assert "not finite" in complaint(capsys, *words, "--weights", tmp_path / "model.safetensors")


def test_labels_follow_an_opened_source(digits_model: Classifier):
    """A source and weights of the same classes need no renumbering."""
    assert class_numbers(open_source("digits:test"), digits_model.classes, "w").tolist() == list(range(10))
