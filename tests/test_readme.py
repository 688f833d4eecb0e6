"""What the README says is so."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import tiny

README = Path(__file__).parent.parent / "README.md"


def test_every_verb_is_in_the_table():
    from maekit import cli

    text = README.read_text(encoding="utf-8")
    missing = [verb for verb in cli.VERBS if f"`maekit {verb}" not in text]
    assert not missing


def test_every_file_that_is_linked_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_its_pictures_are_there_light_and_dark_and_small():
    text = README.read_text(encoding="utf-8")
    found = re.findall(r'(?:src|srcset)="([^"]+)"|!\[[^\]]*\]\(([^)]+)\)', text)
    shown = {README.parent / (of_html or of_markdown) for of_html, of_markdown in found}
    assert len(shown) >= 5
    for picture in shown:
        with Image.open(picture) as opened:
            opened.verify()
    dark = {name.name.replace("-dark", "-light") for name in shown if "-dark" in name.name}
    assert dark == {name.name for name in shown if "-light" in name.name} != set()
    assert sum(picture.stat().st_size for picture in (README.parent / "docs" / "pictures").iterdir()) < 1_500_000


class _ParsedError(Exception):
    """Nothing was wrong with a command's words."""


def commands() -> list[list[str]]:
    """The words after `maekit` of every command in the README's blocks."""
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for kind, block in blocks if kind in ("", "console") for line in block.splitlines()]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line[line.index("maekit") + 1 :] for line in words if "maekit" in line]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_right_as_typed(words, monkeypatch):
    """Up to where images or weights are needed, which other tests go on from."""
    from maekit import cli

    parse = cli.parse

    def parsed(*given, **named):
        parse(*given, **named)
        raise _ParsedError

    monkeypatch.setattr(cli, "parse", parsed)
    with pytest.raises(_ParsedError):
        cli.main(words)


@pytest.mark.slow
def test_the_commands_for_images_of_ones_own_run(maekit_here, photos, tmp_path, monkeypatch):
    """In the order in which they stand, with a smaller model and shorter: on twelve photographs, no more."""
    monkeypatch.chdir(tmp_path)
    for name in ("rose.jpg", "tulip.jpg"):
        shutil.copy(photos / "rough" / "01.jpg", tmp_path / name)
    less = ["--steps", "3", "--workers", "0"]
    shorter = {"pretrain": [*tiny.SIZES, *less], "finetune": less, "scratch": [*tiny.SIZES[:10], *less]}
    own = [words for words in commands() if any("runs/photos" in word or word.startswith("~/") for word in words)]
    own = [words for words in own if not any(word.startswith("hf:") for word in words)]
    own.append(next(words for words in commands() if words[0] == "classify"))
    assert {words[0] for words in own} == {
        "data",
        "suggest",
        "pretrain",
        "reconstruct",
        "embed",
        "finetune",
        "scratch",
        "classify",
    }
    for words in own:
        words = [str(photos) if word in ("~/photos", "~/labelled") else word for word in words]
        done = maekit_here(*words, *shorter.get(words[0], ()))
        assert done.returncode == 0, f"{words}\n{done.stderr}"
