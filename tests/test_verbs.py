"""Every verb as a function: the same names, options and answers as on the command line, and a good guest."""

import ast
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

import maekit
from maekit import cli, errors, results, verbs
from maekit.config.keywords import Common, Planning
from maekit.config.options import options_of
from maekit.presets.verbs import VERBS

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"
TINY = {"device": "cpu", "workers": 0, "steps": 2}
FEW = {"options": {"validation.images": 60}}  # held out, and known, by which pretraining is judged

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


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "scratch"])
def test_a_trainings_docstring_lists_its_keywords(verb):
    listed = re.findall(r"^        (\w+): \w", getattr(maekit, verb).__doc__.partition("Options:")[2], re.MULTILINE)
    assert {"data", "epochs", "batch_size", "lr"} < set(listed) <= set(Common.__annotations__)
    assert ("mask_ratio" in listed) == (verb == "pretrain")
    assert ("per_class" in listed) == (verb != "pretrain")


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
    run = maekit.pretrain("digits", out="runs/a", **TINY, **FEW)
    done = maekit_here(
        "pretrain", "digits", "--out", "runs/b", "--steps", 2, "--workers", 0, "--device", "cpu", "--json",
        "--validation.images", 60,
    )  # fmt: skip
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
    run = maekit.pretrain("digits", out="runs/shown", **TINY, **FEW)
    assert dict(_Tags(run._repr_html_()).tags)["img"]["src"].startswith("data:image/png;base64,")


def test_words_are_escaped(here):
    (here / "<b>&").mkdir()
    Image.new("L", (8, 8)).save(here / "<b>&" / "<img src=x>.png")
    said = maekit.classify("runs/tuned", here / "<b>&")._repr_html_()
    assert not {"b", "img"} & {tag for tag, _ in _Tags(said).tags}
    assert any("<img src=x>.png" in words for words in _Tags(said).words)


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
        lambda: maekit.pretrain("digits", **trained, **FEW),
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
        maekit.pretrain("digits", out=f"runs/{name}", **TINY, **FEW)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("maekit pretrain digits") == 2
    for name, other in (("a", "b"), ("b", "a")):
        lines = (here / "runs" / name / "log.txt").read_text()
        assert lines.count("maekit pretrain digits") == 1
        assert f"runs/{name}" in lines
        assert f"runs/{other}" not in lines


def test_a_program_with_logging_gets_the_lines_itself(here, capsys, caplog):
    maekit.pretrain("digits", out="runs/a", **TINY, **FEW)
    assert caplog.text.count("maekit pretrain digits") == 1
    assert capsys.readouterr().err == ""
    assert "maekit pretrain digits" in (here / "runs/a/log.txt").read_text()


@pytest.mark.usefixtures("here")
def test_ranks_but_the_first_print_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["inspect", "runs/digits"]) == 0
    assert capsys.readouterr().out == ""
