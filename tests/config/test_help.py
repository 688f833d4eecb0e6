"""Help is short, its examples run, and all of it is complete."""

import re
import shlex

import pytest
from PIL import Image

import tiny
from maekit import cli
from maekit.config.help import COMMON, EXAMPLES
from maekit.presets.verbs import VERBS, options_by_verb

OF_PRESETS = ("plan", "pretrain", "finetune", "scratch")
EVERY = options_by_verb()


def printed(capsys, command):
    """What a command prints that leaves with 0, by returning it or through SystemExit."""
    try:
        code = cli.main(shlex.split(command))
    except SystemExit as left:
        code = left.code
    assert code in (0, None)
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("verb", cli.VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_a_screenful_with_an_example(capsys, verb, flag):
    whole = f"{verb} vit-tiny" if verb in OF_PRESETS else verb
    text = printed(capsys, f"{whole} {flag}")
    shown = re.findall(r"^  (--[\w.-]+)", text, re.MULTILINE)
    assert len(text.splitlines()) <= 34
    assert shown == COMMON[verb].split()
    assert len(shown) <= 12
    assert EXAMPLES[verb].format(preset="vit-tiny") in text
    assert f"maekit {whole} --help-all" in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("verb", OF_PRESETS)
@pytest.mark.parametrize("words", ["{} --help", "{} --data photos --help", "help {}", "--help {}"])
def test_help_without_a_preset_shows_presets_options_and_an_example(capsys, verb, words):
    text = printed(capsys, words.format(verb))
    assert all(f"  {name} " in text for name in (*VERBS[verb][1], *COMMON[verb].split()))
    assert EXAMPLES[verb].partition("{preset}")[0] in text
    assert len(text.splitlines()) <= 48


def test_what_a_verb_cannot_do_without_a_preset_is_told_after_its_help(capsys):
    assert cli.main(["pretrain"]) == 2
    said = capsys.readouterr()
    assert said.err == "maekit: pretrain: which preset?\n"
    assert "  vit-tiny " in said.out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_all_lists_every_option(capsys, verb):
    text = printed(capsys, f"{verb} vit-tiny --help-all" if verb in OF_PRESETS else f"{verb} --help-all")
    listed = set(re.findall(r"--[\w.-]+", text))
    assert {name for option in EVERY[verb] for name in option.names} <= listed


def test_help_of_all_is_short_and_names_every_verb(capsys):
    text = printed(capsys, "--help")
    assert len(text.splitlines()) <= 38
    assert all(f"  {verb} " in text for verb in cli.VERBS)
    assert "  maekit demo\n" in text


ENCODER = re.sub(r"--model.decoder.* (?=--device)", "", shlex.join(tiny.SIZES))
SMALL = {
    "data": "--workers 0",
    "suggest": "--device cpu",
    "pack": "--workers 0",
    "plan": shlex.join(tiny.SIZES).replace("--device cpu ", ""),
    "pretrain": f"{shlex.join(tiny.SIZES)} --batch-size 4 --lr 1e-3 --steps 2 --workers 0",
    "probe": "--device cpu --workers 0 --kinds knn --neighbours 2",
    "finetune": "--device cpu --batch-size 4 --lr 1e-3 --steps 2 --workers 0",
    "scratch": f"{ENCODER} --batch-size 4 --lr 1e-3 --steps 2 --workers 0",
    "watch": "--port 0 --seconds 0.1",
    "compare": "",
    "card": "",
    "evaluate": "--device cpu --workers 0",
    "classify": "--device cpu --workers 0",
    "reconstruct": "--device cpu",
    "embed": "--device cpu --workers 0",
    "app": "--device cpu --port 0 --seconds 0.1",
    "inspect": "",
    "convert": "",
}
"""What is added to an example so that it is small and short; nothing else is changed."""


def test_the_examples_run_one_after_the_other(maekit_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("train", "val"):
        for number, animal in enumerate(("cat", "dog")):
            (tmp_path / "photos" / part / animal).mkdir(parents=True)
            for shade in range(4):
                colour = (40 * shade, 90 * number, 17 if part == "val" else 200)
                Image.new("RGB", (40, 36), colour).save(tmp_path / "photos" / part / animal / f"{shade}.png")
    for animal in ("cat", "dog"):
        Image.new("RGB", (40, 36), (9, 99, 199)).save(tmp_path / f"{animal}.jpg")
    for verb in SMALL:
        words = shlex.split(EXAMPLES[verb].format(preset="vit-tiny"))[1:]
        done = maekit_here(*tiny.without_epochs(words), *shlex.split(SMALL[verb]))
        assert done.returncode == 0, f"{words}\n{done.stderr}"
    assert (tmp_path / "cat.png").exists()
    assert (tmp_path / "tuned-timm").exists()
