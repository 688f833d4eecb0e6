"""The command line's answers, as a script reads them."""

import json
from typing import Any

import pytest

from maekit import cli


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The JSON object of `maekit WORDS... --json`."""
    code = cli.main([*map(str, words), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    said = json.loads(captured.out.strip().splitlines()[-1])
    assert isinstance(said, dict)
    return said


def complaint(capsys: pytest.CaptureFixture[str], *words: object, code: int = 1) -> str:
    """The one line that `maekit WORDS...` fails with."""
    assert cli.main([*map(str, words)]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("maekit: ")]
    assert len(lines) == 1
    return lines[0]
