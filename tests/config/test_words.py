"""Which words belong to which option, whatever stands before and after, with `=`, underscores or commas."""

import pytest

from maekit.config import ProbeOptions
from maekit.config.arguments import Command, parse
from maekit.config.verbs import ClassifyOptions, DataOptions, InspectOptions, ReconstructOptions
from maekit.presets import PRETRAIN


def flat(kind, words):
    return parse(kind, words.split(), Command("verb", "maekit verb", ""))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("--image-size 64 a.jpg", 64),
        ("--image_size 64 a.jpg", 64),
        ("--image-size=64 a.jpg", 64),
        ("a.jpg --image-size 64", 64),
        ("--image-size 64 96 a.jpg", (64, 96)),
        ("--image-size=64 96 a.jpg", (64, 96)),
        ("--image-size 64x96 a.jpg", (64, 96)),
        ("--image-size 64,96 a.jpg", (64, 96)),
        ("--data a.jpg --image-size 64", 64),
        ("--data=a.jpg --image-size 64", 64),
    ],
)
def test_a_size_takes_no_image(words, size):
    options = flat(ReconstructOptions, f"--weights w --out o.png {words}")
    assert options.images == ("a.jpg",)
    assert options.image_size == size


@pytest.mark.parametrize(
    ("words", "kinds", "data"),
    [
        ("--kinds knn linear photos", ("knn", "linear"), "photos"),
        ("--kinds=knn linear photos", ("knn", "linear"), "photos"),
        ("--kinds knn,linear photos", ("knn", "linear"), "photos"),
        ("photos --kinds knn", ("knn",), "photos"),
        ("--kinds knn --data photos", ("knn",), "photos"),
    ],
)
def test_choices_take_no_source(words, kinds, data):
    options = flat(ProbeOptions, f"--weights w --val v {words}")
    assert options.kinds == kinds
    assert options.data == data


@pytest.mark.parametrize(
    "words", ["--mean 0.5 0.4 0.3 photos", "--mean 0.5,0.4,0.3 photos", "--mean=0.5 0.4 0.3 photos"]
)
def test_numbers_take_no_source(words):
    command = Command("pretrain", "maekit pretrain vit-tiny", "")
    config = parse(type(PRETRAIN["vit-tiny"]()), f"--normalise given {words}".split(), command, PRETRAIN["vit-tiny"]())
    assert config.data.mean == (0.5, 0.4, 0.3)
    assert config.data.source == "photos"


@pytest.mark.parametrize("words", ["128 0.6 160 .9 photos", "128,0.6,160,.9 photos", "photos"])
def test_resolutions_take_no_source(words):
    command = Command("pretrain", "maekit pretrain vit-tiny", "")
    typed = f"--schedule.resolutions {words}" if words != "photos" else words
    config = parse(type(PRETRAIN["vit-tiny"]()), typed.split(), command, PRETRAIN["vit-tiny"]())
    assert config.schedule.resolutions == ((128, 0.6, 160, 0.9) if words != "photos" else ())
    assert config.data.source == "photos"


def test_several_images_may_stand_anywhere():
    for words in (
        "a.jpg b.jpg --top 3",
        "--top 3 a.jpg b.jpg",
        "a.jpg --top 3 b.jpg",
        "--data a.jpg b.jpg --top=3",
        "--data=a.jpg b.jpg --top 3",
    ):
        assert flat(ClassifyOptions, f"--weights w {words}").images == ("a.jpg", "b.jpg")


def test_of_other_options_given_twice_the_last_counts():
    options = flat(ReconstructOptions, "a.jpg --weights v --seed 1 --out o.png --weights w --seed=2")
    assert (options.weights, options.seed) == ("w", 2)


def test_names_that_begin_with_a_dash_are_taken_after_two():
    assert flat(DataOptions, "-- -photos").source == "-photos"
    assert flat(InspectOptions, "-- --run").weights == "--run"


@pytest.mark.parametrize(
    "verb",
    [
        "pretrain vit-tiny",
        "probe --weights w --val v",
        "finetune vit-tiny --weights w --val v",
        "scratch vit-tiny --val v",
        "evaluate --weights w",
        "classify --weights w",
        "reconstruct --weights w --out o.png",
        "embed --weights w --out f.npz",
        "data",
    ],
)
def test_a_source_is_named_in_one_style_everywhere(typed, verb):
    assert typed(verb, "photos").read
    assert typed(verb, "--data photos").read
    assert typed(verb, "--data=photos").read
    assert typed(verb, "--workers 0 photos").read
    twice = typed(verb, "photos --data others")
    assert (twice.code, twice.line) == (
        2,
        "maekit: 'photos' stands where no value belongs: --data others is given; take one of them",
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "reconstruct --weights w --out o.png --image-size a.jpg",
            "--image-size: expects a size in pixels, one number or HxW, got 'a.jpg'",
        ),
        ("reconstruct a.jpg --weights w --out o.png --image-size 64x", "one number or HxW, got '64x'"),
        ("pretrain vit-tiny photos --image-size sixty", "one number or HxW, got 'sixty'"),
        (
            "probe photos --weights w --val v --kinds knn liner",
            "should be knn, linear, attentive, efficient, or one of your own, as module:object, got 'liner'",
        ),
        ("probe --weights w --val v --kinds photos", "no such choice 'photos'"),
        ("probe --weights w --val v --blocks photos", "--blocks: expects a number, got 'photos'"),
        ("pretrain vit-tiny --epochs photos", "expects a number, got 'photos'"),
        ("pretrain vit-tiny photos --steps 3.5", "expects a whole number, got '3.5'"),
        ("pretrain vit-tiny photos --epochs", "--epochs: its value is missing"),
        ("pretrain vit-tiny photos --epochs --lr 3", "--epochs: its value is missing"),
        ("pretrain vit-tiny photos --augment.scale 0.2", "--augment.scale: takes 2 values, got 0.2 alone"),
        ("pretrain vit-tiny photos --augment.scale 0.2,0.5,1", "--augment.scale: takes 2 values, got 0.2 0.5 1"),
        ("pretrain vit-tiny photos --resume false", "--resume false: takes no value; write --resume or --no-resume"),
        ("pretrain vit-tiny photos others", "'others' stands where no value belongs: --data photos is given already"),
        ("pretrain vit-tiny --data photos --data others", "--data: is given twice, 'photos' and 'others'"),
        ("inspect w w2", "'w2' stands where no value belongs: --weights w is given already"),
        ("demo photos", "'photos' stands where no value belongs"),
    ],
)
def test_words_that_fit_nowhere_are_named(typed, words, expected):
    answer = typed(words)
    assert answer.code == 2
    assert expected in answer.line


def test_a_width_that_is_a_file_as_well_is_asked_about(typed, tmp_path):
    (tmp_path / "96").mkdir()
    answer = typed("reconstruct --weights w --out o.png --image-size 64 96")
    assert answer.line.endswith("write --image-size 64x96, or ./96")
