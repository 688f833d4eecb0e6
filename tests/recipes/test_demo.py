"""The whole story, told with few steps."""

import re
from pathlib import Path

import pytest

from maekit.config.verbs import DemoOptions


@pytest.mark.slow
def test_the_demo_says_where_it_is_and_how_long_it_still_takes(maekit_here, tmp_path):
    words = ("demo", "--out", tmp_path / "demo", "--steps", "8", "--few-label-steps", "3", "--seeds", "1")
    done = maekit_here(*words)
    assert done.returncode == 0, done.stderr
    parts = re.findall(r"part (\d) of 3", done.stderr)
    assert parts == ["1", "2", "3", "3"]
    lines = [line for line in done.stderr.splitlines() if re.match(r"part [23]", line)]
    assert all(re.search(r"; about [\d.]+ (s|min) left$", line) for line in lines), lines
    assert "RankMe is" in done.stderr  # eight steps teach nothing


def test_the_readme_says_how_many_steps_it_takes():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"{DemoOptions().steps:,} steps on 1,437 scanned digits" in text
