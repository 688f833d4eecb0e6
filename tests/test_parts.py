"""Parts that users bring are found by name, and only because the user says so."""

import importlib.metadata
import sys

import pytest

import own_parts
from maekit import parts
from maekit.errors import UsageError


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(parts, "_said", {})


def test_options_stand_behind_the_name():
    parts.say("own_parts:Stripes,shift=1")
    mask = parts.find("mask", "own_parts:Stripes,shift=1").make((2, 4), ratio=0.5)
    assert (mask.shift, mask.columns) == (1, 4)
    assert parts.find("mask", "own_parts:Stripes").make((2, 4), ratio=0.5).shift == 0
    assert parts.find("source", "own_parts:Stripes,a=x.jpg,b=True,c=(1").options == {"a": "x.jpg", "b": True, "c": "(1"}


def test_a_function_keeps_its_options():
    parts.say("own_parts:huber,delta=0.5")
    assert parts.find("loss", "own_parts:huber,delta=0.5").bound().keywords == {"delta": 0.5}
    assert parts.find("loss", "own_parts:huber").bound() is own_parts.huber


def test_what_a_file_names_is_not_imported(monkeypatch, tmp_path):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"^target trap:Hog: is named by a file alone.*--parts trap:Hog"):
        parts.find("target", "trap:Hog")
    assert "trap" not in sys.modules


def test_an_imported_module_is_no_permission():
    """Else a file could have any function of any library called."""
    with pytest.raises(UsageError, match="is named by a file alone"):
        parts.find("target", "subprocess:Popen")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere:Hog", r"^target nowhere:Hog: there is no module nowhere, in .* and where Python looks$"),
        ("own_parts:Hog", r"^target own_parts:Hog: own_parts has no Hog$"),
        ("hog", r"^target hog: no installed package offers it \(there are: none\); or name module:object$"),
        ("broken_part:Hog", r"^target broken_part:Hog: broken_part cannot be imported \(ZeroDivisionError: "),
        ("broken_within:Hog", r"^target broken_within:Hog: broken_within cannot be imported \(AttributeError: "),
        ("own_parts:Means,bins", r"'bins' is no option; options follow a part's name as name=value"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_in_a_line(name, words, tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("1 / 0")
    (tmp_path / "broken_within.py").write_text("import sys\nsys.nothing")
    monkeypatch.syspath_prepend(tmp_path)
    parts.say(name)
    with pytest.raises(UsageError, match=words):
        parts.find("target", name)


def test_options_it_does_not_take_are_said_in_a_line():
    parts.say("own_parts:Means")
    with pytest.raises(UsageError, match=r"^own_parts:Means,bins=9: cannot be made \(TypeError: .*bins"):
        parts.find("target", "own_parts:Means,bins=9").make(None)


def test_a_module_in_the_folder_of_the_command_is_found(tmp_path, monkeypatch):
    (tmp_path / "beside_the_images.py").write_text("class Hog: pass")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    parts.say("beside_the_images:Hog")
    assert parts.find("target", "beside_the_images:Hog").value.__name__ == "Hog"


def test_a_package_offers_parts_by_name(monkeypatch):
    entry = importlib.metadata.EntryPoint("stripes", "own_parts:Stripes", "maekit.mask")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == "maekit.mask" else [])
    parts.say("stripes,shift=1")
    assert parts.find("mask", "stripes,shift=1").make((2, 4), ratio=0.5).shift == 1
    parts.say("other")
    with pytest.raises(UsageError, match=r"there are: none"):
        parts.find("target", "other")


def test_a_class_that_a_program_hands_over_has_a_name():
    name = parts.name_of(own_parts.Stripes)
    assert name == "own_parts:Stripes"
    assert parts.find("mask", name).value is own_parts.Stripes
    assert parts.name_of("random") == "random"


@pytest.mark.parametrize("nameless", [lambda image: image, own_parts.Noise(), 3])
def test_what_has_no_name_is_refused(nameless):
    with pytest.raises(UsageError, match="hand over a class or function that stands in a module"):
        parts.name_of(nameless)
