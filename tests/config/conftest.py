"""Commands as far as their options, and no further."""

import shlex
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from maekit import cli

WORKPLACES = ("maekit.recipes", "maekit.inference", "maekit.app.", "maekit.report.")


class Answer(NamedTuple):
    """read: whether all options were, so that work would have begun. line: what was said on standard error."""

    read: bool
    code: int
    line: str


@pytest.fixture
def typed(monkeypatch, capsys) -> Callable[..., Answer]:
    """What `maekit ...`, in parts as a shell splits them, answers before its work begins."""
    begins = {name for name in sys.modules if name.startswith(WORKPLACES)}
    begins |= {f"maekit.inference.{verb}" for verb in (*cli.VERBS, "doctor")} | {
        "maekit.recipes",
        "maekit.inference",
        "maekit.app.server",
        "maekit.app.watch",
        "maekit.report.compare",
        "maekit.report.card",
    }
    for name in begins:
        monkeypatch.setitem(sys.modules, name, None)

    def run(*parts: str) -> Answer:
        try:
            code = cli.main([word for part in parts for word in shlex.split(part)])
        except ImportError as error:
            if not any(name in str(error) for name in WORKPLACES):
                raise
            return Answer(True, 0, capsys.readouterr().err.strip())
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        assert code == 0 or said.startswith("maekit: ")
        return Answer(False, code, said)

    return run
