"""The README's tour, run as it stands there."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def tour() -> list[str]:
    """The lines after `$` in the README's console block."""
    block = re.search(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines() if line.startswith("$ ")]


@pytest.mark.slow
def test_the_tour_runs_and_leaves_what_it_says(maekit_command, tmp_path):
    commands = tour()
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "maekit"
        done = maekit_command(*words[1:], cwd=tmp_path, timeout=240)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        for option, value in itertools.pairwise(words):
            if option == "--out":
                assert (tmp_path / value).exists(), command


def test_every_verb_is_in_the_table():
    from maekit import cli

    text = README.read_text(encoding="utf-8")
    missing = [verb for verb in cli.VERBS if f"`maekit {verb}" not in text]
    assert not missing


def test_every_file_that_is_linked_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
