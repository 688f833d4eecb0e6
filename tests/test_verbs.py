"""Every verb as a function: the same options, answers and errors as on the command line, and a good guest."""

import ast
import contextlib
import dataclasses
import doctest
import importlib
import inspect
import io
import json
import logging
import random
import re
import signal
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset

import maekit
from maekit import cli, errors, presets, results, verbs
from maekit.config import PretrainConfig
from maekit.config.keywords import Common, Planning
from maekit.config.options import options_of
from maekit.presets.verbs import VERBS

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"
TINY = {"device": "cpu", "workers": 0, "steps": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with runs/digits, pretrained for two steps, and runs/tuned, fine-tuned of it."""
    folder = tmp_path_factory.mktemp("made")
    with contextlib.chdir(folder):
        maekit.pretrain("digits", out="runs/digits", **TINY)
        maekit.finetune("digits", weights="runs/digits", per_class=2, out="runs/tuned", **TINY)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """An empty folder to work in, with those two runs in it."""
    (tmp_path / "runs").mkdir()
    for name in ("digits", "tuned"):
        (tmp_path / "runs" / name).symlink_to(made / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Names


def test_the_public_names_are_those_of_the_document_and_none_is_missing():
    listed = re.search(r"## Public names\n(.*?)\n## ", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(maekit.__all__)
    for module, root in ((results, results.Result), (errors, errors.MaekitError)):
        kinds = {name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, root)}
        assert kinds <= set(maekit.__all__)
    assert {*VERBS} == {*cli.VERBS} <= set(maekit.__all__)


def test_type_checkers_know_the_same_names():
    tree = ast.parse(Path(maekit.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert {alias.name for line in block.body for alias in line.names} == set(maekit.__all__)


@pytest.mark.parametrize("name", maekit.__all__)
def test_every_public_name_is_documented(name):
    assert len(inspect.getdoc(getattr(maekit, name)).splitlines()[0]) > 10


@pytest.mark.parametrize("verb", [verb for verb, (_, table) in VERBS.items() if table is None])
def test_a_function_has_the_verbs_options_and_describes_them(verb):
    function, options = getattr(maekit, verb), options_of(VERBS[verb][0])
    parameters = inspect.signature(function).parameters
    assert {*parameters} == {option.path for option in options}
    for option in options:
        default = parameters[option.path].default
        assert default is inspect.Parameter.empty if option.required else default == option.default
        assert f"        {option.path}: " in getattr(verbs, verb).__doc__


def test_keywords_of_trainings_are_the_short_names():
    short = {
        verb: {
            option.name.removeprefix("--").replace("-", "_")
            for option in options_of(kind, next(iter(table.values()))())
            if "." not in option.name
        }
        for verb, (kind, table) in VERBS.items()
        if table
    }
    planning = short.pop("plan")
    assert set(Common.__annotations__) == set().union(*short.values())
    assert set(Planning.__annotations__) == set(Common.__annotations__) | planning


def test_a_package_of_a_verbs_name_is_the_verb_as_well():
    assert callable(maekit.data)
    assert callable(importlib.import_module("maekit.app"))
    assert inspect.signature(maekit.app) == inspect.signature(verbs.app)
    assert importlib.import_module("maekit.data.sources").find_source("digits:test").path(0)
    assert inspect.signature(maekit.data) == inspect.signature(verbs.data)


# Examples


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("here")
def test_the_example_of_a_docstring_runs(verb):
    examples = doctest.DocTestFinder().find(getattr(verbs, verb), verb, module=verbs)
    assert sum(len(example.examples) for example in examples) >= 1
    out = io.StringIO()
    for example in examples:
        example.globs = {"maekit": maekit, "np": np, "torch": torch}
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(example, out=out.write)
        assert not runner.failures, out.getvalue()


# Answers

ANSWERS = {
    "data": "data digits:train --images 20 --channels 1 --workers 0",
    "plan": "plan digits --gpus 2 --memory 8 --rate 100",
    "probe": "probe digits:train --weights runs/digits --val digits:test --kinds knn --workers 0",
    "compare": "compare runs/digits runs/tuned --out c.html",
    "card": "card runs/tuned --license mit",
    "evaluate": "evaluate digits:test --weights runs/tuned --confusion c.svg",
    "classify": "classify digits:test --weights runs/tuned --top 2",
    "reconstruct": "reconstruct digits:test --weights runs/digits --out r.png --rows 2",
    "embed": "embed digits:test --weights runs/digits --out f.npz --tokens patches",
    "inspect": "inspect runs/digits --hash",
    "convert": "convert runs/digits --to torch-export --out d.pt2 --part encoder",
}
CALLS = {
    "data": lambda: maekit.data("digits:train", images=20, channels=1, workers=0),
    "plan": lambda: maekit.plan("digits", gpus=2, memory=8, rate=100.0),
    "probe": lambda: maekit.probe("runs/digits", "digits:train", val="digits:test", kinds=["knn"], workers=0),
    "card": lambda: maekit.card(Path("runs/tuned"), license="mit"),
    "compare": lambda: maekit.compare([Path("runs/digits"), "runs/tuned"], out=Path("c.html")),
    "evaluate": lambda: maekit.evaluate("runs/tuned", "digits:test", confusion=Path("c.svg")),
    "classify": lambda: maekit.classify("runs/tuned", "digits:test", top=2),
    "reconstruct": lambda: maekit.reconstruct("runs/digits", "digits:test", out="r.png", rows=2),
    "embed": lambda: maekit.embed("runs/digits", "digits:test", out=Path("f.npz"), tokens="patches"),
    "inspect": lambda: maekit.inspect(Path("runs/digits"), hash=True),
    "convert": lambda: maekit.convert("runs/digits", to="torch-export", out="d.pt2", part="encoder"),
}
CLOCKS = {"images_per_second", "workers_for_rate"}
KEYS = {  # what programs that read --json rely on
    "data": {"images", "passed_over", "examined", "classes", "unreadable", "mean", "std", "sizes", "values", "modes",
             "duplicates", "range", *CLOCKS},
    "plan": {"preset", "estimate", "images", "steps", "epochs", "warmup_steps", "gpus", "batch_size",
             "micro_batch_size", "accumulation", "lr", "base_lr", "parameters", "encoder_parameters", "gflop",
             "exaflop", "precision", "checkpoint_gb", "memory", "fits", "advice", "images_per_second", "hours",
             "gpu_hours"},
    "probe": {"knn", "rows", "rankme", "train_images", "val_images", "crop_share"},
    "compare": {"out", "differences", "runs"},
    "card": {"license", "card"},
    "evaluate": {"top1", "top5", "loss", "images", "classes", "skipped"},
    "classify": {"images", "skipped"},
    "reconstruct": {"out", "images", "masked"},
    "embed": {"out", "images", "width", "skipped"},
    "inspect": {"file", "layout", "model", "image_size", "patch_size", "channels", "positions", "decoder", "target",
                "parts", "parameters", "dtype", "mean", "std", "crop_share", "value_range", "pooling", "classes", "can",
                "cannot", "needs", "assumed", "ignored", "sha256"},
    "convert": {"out", "to", "part", "difference"},
}  # fmt: skip


@pytest.mark.parametrize("verb", ANSWERS)
@pytest.mark.usefixtures("here")
def test_an_answer_is_what_the_command_says(verb, maekit_here, capsys):
    result = CALLS[verb]()
    assert capsys.readouterr().out == ""
    done = maekit_here(*ANSWERS[verb].split(), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.keys() == result.as_dict().keys() == KEYS[verb]
    plain = json.loads(json.dumps(result.as_dict()))
    assert all(plain[name] == said[name] for name in said.keys() - CLOCKS)
    assert maekit_here(*ANSWERS[verb].split()).stdout.splitlines()[:1] == str(result).splitlines()[:1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.sections = ()


def test_a_training_answers_as_the_command_does(here, maekit_here):
    run = maekit.pretrain("digits", out="runs/a", **TINY)
    done = maekit_here(
        "pretrain", "digits", "--out", "runs/b", "--steps", 2, "--workers", 0, "--device", "cpu", "--json"
    )
    said, plain = json.loads(done.stdout), run.as_dict()
    assert {*plain} == {*said} >= {"run", "steps", "unreadable", "passed_over", "loss", "lr", "val_loss", "val_knn"}
    clocks = {"run", "images_per_second", "waiting", "mfu"}
    assert {k: v for k, v in plain.items() if k not in clocks} == {k: v for k, v in said.items() if k not in clocks}
    assert run.loss == plain["loss"]
    assert str(run) in done.stderr.replace("runs/b", "runs/a")
    assert (here / "runs/a/metrics.jsonl").read_text().splitlines()[-1].split(', "images')[0] == (
        (here / "runs/b/metrics.jsonl").read_text().splitlines()[-1].split(', "images')[0]
    )


class _Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.usefixtures("here")
def test_a_notebook_shows_tables_and_pictures():
    judged = _Tags(CALLS["probe"]()._repr_html_())
    assert [tag for tag, _ in judged.tags].count("tr") == 1 + 4
    assert "knn" in judged.words
    painted = CALLS["reconstruct"]()
    source = dict(_Tags(painted._repr_html_()).tags)["img"]["src"]
    assert source.startswith("data:image/png;base64,")
    run = maekit.pretrain("digits", out="runs/shown", **TINY)
    assert dict(_Tags(run._repr_html_()).tags)["img"]["src"].startswith("data:image/png;base64,")


def test_words_are_escaped(here):
    (here / "<b>&").mkdir()
    Image.new("L", (8, 8)).save(here / "<b>&" / "<img src=x>.png")
    said = maekit.classify("runs/tuned", here / "<b>&")._repr_html_()
    assert not {"b", "img"} & {tag for tag, _ in _Tags(said).tags}
    assert any("<img src=x>.png" in words for words in _Tags(said).words)


# Errors

WRONG = {
    "an option misspelt": (
        "pretrain vit-tiny --data d --mask-ration 0.5", lambda: maekit.pretrain("vit-tiny", data="d", mask_ration=0.5)),
    "one of other programs": (
        "pretrain vit-tiny --data d --accum-iter 4", lambda: maekit.pretrain("vit-tiny", data="d", accum_iter=4)),
    "one of another verb": (
        "pretrain vit-tiny --data d --mixup 0.8", lambda: maekit.pretrain("vit-tiny", data="d", mixup=0.8)),
    "a dotted one misspelt": (
        "pretrain vit-tiny --data d --model.decoder.dept 3",
        lambda: maekit.pretrain("vit-tiny", data="d", options={"model.decoder.dept": 3})),
    "out of range": (
        "pretrain vit-tiny --data d --mask-ratio 1.5", lambda: maekit.pretrain("vit-tiny", data="d", mask_ratio=1.5)),
    "vain": (
        "pretrain vit-tiny --data d --val v --val-split 0.1",
        lambda: maekit.pretrain("vit-tiny", data="d", val="v", val_split=0.1)),
    "no data": ("pretrain vit-tiny", lambda: maekit.pretrain("vit-tiny")),
    "no weights": (
        "finetune vit-tiny --data d --val d", lambda: maekit.finetune("vit-tiny", data="d", val="d")),
    "no judge": (
        "scratch vit-tiny --data d", lambda: maekit.scratch("vit-tiny", data="d")),
    "a preset misspelt": ("pretrain vit-tny --data d", lambda: maekit.pretrain("vit-tny", data="d")),
    "images and their number": (
        "plan vit-tiny --data d --images 3", lambda: maekit.plan("vit-tiny", data="d", images=3)),
    "no images to plan for": ("plan vit-tiny", lambda: maekit.plan("vit-tiny")),
    "a batch that GPUs do not divide": (
        "plan vit-tiny --images 99999999 --gpus 3", lambda: maekit.plan("vit-tiny", images=99999999, gpus=3)),
    "no step": (
        "pretrain vit-tiny --data d --steps 0", lambda: maekit.pretrain("vit-tiny", data="d", steps=0)),
    "no file to write": ("embed d --weights w", lambda: maekit.embed("w", "d")),
    "a file of another kind": ("embed d --weights w --out f.csv", lambda: maekit.embed("w", "d", out="f.csv")),
    "a flat option misspelt": (
        "embed d --weights w --out f.npz --bloks 2", lambda: maekit.embed("w", "d", out="f.npz", bloks=2)),
    "a flat one that is vain": (
        "convert w --to timm --out o --resample-positions",
        lambda: maekit.convert("w", to="timm", out="o", resample_positions=True)),
    "no such source": ("data nowhere", lambda: maekit.data("nowhere")),
    "no such weights": ("inspect nowhere", lambda: maekit.inspect("nowhere")),
    "no judge of a probe": ("probe d --weights w", lambda: maekit.probe("w", "d")),
    "a config that is none": ("inspect w --config vit-tny", lambda: maekit.inspect("w", config="vit-tny")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.usefixtures("here")
def test_a_mistake_is_told_in_the_commands_line(mistake, maekit_here):
    words, call = WRONG[mistake]
    done = maekit_here(*words.split())
    with pytest.raises(maekit.MaekitError) as raised:
        call()
    assert f"maekit: {' '.join(str(raised.value).split())}\n" == done.stderr
    assert done.returncode == raised.value.exit_code


def test_what_python_alone_can_get_wrong_is_one_line_too():
    with pytest.raises(maekit.UsageError, match="pretrain: takes a preset's name, a path or a PretrainConfig"):
        maekit.pretrain(3)
    with pytest.raises(maekit.UsageError, match="finetune: takes a preset's name, a path or a ClassifyConfig"):
        maekit.finetune(presets.PRETRAIN["digits"]())
    with pytest.raises(maekit.UsageError, match="blocks: should be greater than or equal to 1, got 0"):
        maekit.embed("w", "d", out="f.npz", blocks=0)
    with pytest.raises(maekit.UsageError, match="weights: is given twice, by its place and by its name"):
        maekit.embed("w", "d", out="f.npz", weights="v")
    with pytest.raises(maekit.UsageError, match="source: should be text, a path, or a data set with a length"):
        maekit.data(3)
    with pytest.raises(TypeError, match="too many positional arguments"):
        maekit.embed("w", "d", "f.npz")


def test_what_was_found_all_the_same_is_in_the_error(here, maekit_here):
    (here / "bad").mkdir()
    (here / "bad" / "one.png").write_text("no picture")
    with pytest.raises(maekit.DataError) as raised:
        maekit.data("bad", workers=0)
    assert raised.value.answer.images == 1
    assert maekit_here("data", "bad", "--workers", "0").stdout.rstrip() == str(raised.value.answer)


# Options


def configs(monkeypatch):
    """The configs that trainings get, which then do nothing."""
    taken = []
    answer = {"run": None, "steps": 0, "unreadable": 0, "passed_over": {}, "loss": 0.0}
    for module, name in (("pretrain", "run"), ("classify", "finetune"), ("classify", "scratch")):
        recipe = importlib.import_module(f"maekit.recipes.{module}")
        monkeypatch.setattr(recipe, name, lambda config: taken.append(config) or answer)
    return taken


def test_keywords_and_dotted_options_are_those_of_words(monkeypatch, maekit_here):
    taken = configs(monkeypatch)
    maekit.pretrain(
        "vit-tiny", data=Path("photos"), epochs=3, lr=1e-3, mask_ratio=0.5, image_size=(64, 96), val_split=0.25,
        normalise="given", mean=[0.5, 0.4, 0.3], std=(0.2, 0.2, 0.2), resume=True, out=Path("runs/a"), workers=None,
        options={"model.decoder.depth": 4, "data.range": (0, 4095), "run.tensorboard": False},
    )  # fmt: skip
    words = (
        "pretrain vit-tiny photos --epochs 3 --lr 1e-3 --mask-ratio 0.5 --image-size 64x96 --val-split 0.25 "
        "--normalise given --mean 0.5 0.4 0.3 --std 0.2 0.2 0.2 --resume --out runs/a --workers None "
        "--model.decoder.depth 4 --data.range 0 4095 --run.no-tensorboard"
    )
    done = maekit_here(*words.split())
    assert done.returncode == 0, done.stderr
    assert taken[0] == taken[1]
    assert type(taken[0].data.source) is str


def test_naming_the_epochs_clears_the_steps(monkeypatch):
    taken = configs(monkeypatch)
    maekit.pretrain("digits", epochs=3)
    maekit.scratch("digits", val_split=0.5)
    assert (taken[0].schedule.epochs, taken[0].schedule.steps) == (3, None)
    assert (taken[1].validation.source, taken[1].validation.split) == ("", 0.5)


def test_a_config_and_a_file_are_presets_as_well(monkeypatch, here):
    taken = configs(monkeypatch)
    config = presets.PRETRAIN["digits"]()
    maekit.pretrain(config)
    assert taken[0] is config
    maekit.pretrain(here / "runs/digits", seed=3)
    assert (taken[1].run.seed, taken[1].schedule.steps) == (3, 2)
    maekit.finetune("digits", weights="w", image_size=16)
    assert taken[2].classifier.image_size == 16


def test_classes_and_functions_stand_for_their_names(monkeypatch):
    from own_parts import Stripes, huber

    taken = configs(monkeypatch)
    maekit.pretrain("digits", mask=Stripes, loss=huber, parts=[Stripes])
    assert taken[0].mask.kind == "own_parts:Stripes"
    assert taken[0].target.loss == "own_parts:huber"
    assert taken[0].run.parts == ("own_parts:Stripes",)
    with pytest.raises(maekit.UsageError, match="hand over a class or function that stands in a module"):
        maekit.pretrain("digits", mask=lambda *_: None)


# Objects in place of text


class Digits(Dataset):
    """Some digits as float images, without a list of their labels."""

    def __init__(self, count):
        self.source = importlib.import_module("maekit.data.sources").find_source("digits:train")
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.from_numpy(self.source.read(index)).float()[None] / 255, self.source.label(index)


def test_a_data_set_is_trained_on_resumed_and_written_down(here):
    shown, small = Digits(60), {"batch_size": 12, "val_split": 0.2, **TINY, "options": {"run.checkpoint_every": 1}}
    run = maekit.pretrain("digits", data=shown, out="runs/a", **small)
    ran = json.loads((here / "runs/a/config.json").read_text())
    assert ran["config"]["data"]["source"] == "<Digits: 60 images>"
    assert ran["data"]["classes"] == 10
    assert run.record["val_knn"] >= 0
    with pytest.raises(maekit.DataError, match="<Digits: 60 images>: was an object of the program that wrote this"):
        maekit.pretrain(here / "runs/a", out="runs/b")
    by_file = maekit.pretrain(here / "runs/a", data=shown, out="runs/b")
    assert by_file.loss == run.loss
    assert maekit.pretrain("digits", data=shown, out="runs/a", resume=True, **small).steps == 2
    with pytest.raises(maekit.RunError, match="this is not the run that was interrupted: the images"):
        maekit.pretrain("digits", data=Subset(shown, range(50)), out="runs/a", resume=True, **small)


@pytest.mark.usefixtures("here")
def test_workers_read_a_data_set():
    said = [maekit.embed("runs/digits", Digits(20), out=f"{n}.npz", batch_size=4, workers=n).images for n in (0, 2)]
    assert said == [20, 20]
    assert np.array_equal(np.load("0.npz")["vector"], np.load("2.npz")["vector"])


def test_a_model_is_its_weights(here):
    model, before = maekit.load("runs/digits"), maekit.inspect("runs/digits").as_dict()
    model.train()
    found = maekit.inspect(model, hash=True).as_dict()
    assert found == {**before, "file": "<MaskedAutoencoder>"}
    maekit.embed(model, "digits:test", out="a.npz")
    maekit.embed("runs/digits", "digits:test", out="b.npz")
    assert np.array_equal(np.load("a.npz")["vector"], np.load("b.npz")["vector"])
    tuned = maekit.finetune("digits", weights=model, per_class=2, out="runs/of-model", **TINY)
    again = maekit.finetune("digits", weights="runs/digits", per_class=2, out="runs/of-file", **TINY)
    assert tuned.record["loss"] == again.record["loss"]
    assert json.loads((here / "runs/of-model/config.json").read_text())["config"]["weights"] == "<MaskedAutoencoder>"
    classifier = maekit.load("runs/of-model")
    assert maekit.evaluate(classifier, "digits:test").top1 == maekit.evaluate("runs/of-model", "digits:test").top1
    with pytest.raises(maekit.WeightsError, match="<Classifier>: holds a classifier, which has no decoder"):
        maekit.reconstruct(classifier, "digits:test", out="r.png")
    assert maekit.convert(model, to="timm", out="timm").part == "encoder"
    assert maekit.probe(model, "digits:train", val="digits:test", kinds=["knn"], workers=0).probes["knn"]["top1"] >= 0
    assert model.training


def test_images_in_memory_are_seen_as_files_are(here):
    files = [here / f"{index}.png" for index in range(3)]
    for index, file in enumerate(files):
        Image.fromarray(Digits(3).source.read(index)).save(file)
    pictures = [Image.open(file) for file in files]
    of_files, of_pictures = (maekit.classify("runs/tuned", shown, top=1) for shown in (files, pictures))
    assert [image["top"] for image in of_files.images] == [image["top"] for image in of_pictures.images]
    assert maekit.reconstruct("runs/digits", pictures, out="r.png", rows=2).images == 2
    assert maekit.data(pictures, channels=1, workers=0).images == 3


# A good guest


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_nothing_of_the_program_is_changed(capsys, monkeypatch):
    torch.manual_seed(1)
    mpl.use("svg")
    log = logging.getLogger("maekit")
    monkeypatch.setattr(log, "propagate", False)

    def state():
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
        drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
        logs = (
            log.level,
            list(log.handlers),
            log.propagate,
            logging.getLogger().level,
            list(logging.getLogger().handlers),
        )
        settings = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
        return signals, drawn, logs, settings, mpl.get_backend(), dict(mpl.rcParams), Path.cwd(), np.geterr()

    before = state()
    trained = {"out": "runs/guest", "overwrite": True, **TINY}
    for call in (
        lambda: maekit.pretrain("digits", **trained),
        lambda: maekit.finetune("digits", weights="runs/digits", per_class=2, **trained),
        lambda: maekit.scratch("digits", per_class=2, **trained, options={"mix.mixup": 0.8, "augment.erase": 0.5}),
        lambda: maekit.probe("runs/digits", "digits:train", val="digits:test", per_class=10, epochs=1, workers=0),
        *CALLS.values(),
    ):
        call()
        assert state() == before
    assert capsys.readouterr().out == ""


def test_a_program_without_logging_sees_each_line_once_on_standard_error(here, capsys, monkeypatch):
    log = logging.getLogger("maekit")
    monkeypatch.setattr(log, "propagate", False)  # pytest listens at the root
    for name in ("a", "b"):
        maekit.pretrain("digits", out=f"runs/{name}", **TINY)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("maekit pretrain digits") == 2
    for name, other in (("a", "b"), ("b", "a")):
        lines = (here / "runs" / name / "log.txt").read_text()
        assert lines.count("maekit pretrain digits") == 1
        assert f"runs/{name}" in lines
        assert f"runs/{other}" not in lines


def test_a_program_with_logging_gets_the_lines_itself(here, capsys, caplog):
    maekit.pretrain("digits", out="runs/a", **TINY)
    assert caplog.text.count("maekit pretrain digits") == 1
    assert capsys.readouterr().err == ""
    assert "maekit pretrain digits" in (here / "runs/a/log.txt").read_text()


@pytest.mark.usefixtures("here")
def test_ranks_but_the_first_print_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["inspect", "runs/digits"]) == 0
    assert capsys.readouterr().out == ""


def test_a_config_object_survives_a_round_trip_of_types():
    config: PretrainConfig = presets.PRETRAIN["digits"]()
    given = dataclasses.replace(config, data=dataclasses.replace(config.data, source=Digits(3)))
    assert given.data.source == "<Digits: 3 images>"
    assert dataclasses.replace(given, name="other").data.source.object is given.data.source.object
