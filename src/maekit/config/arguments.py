"""From the words of a command line to a config: tyro parses, and whatever it finds wrong becomes one line."""

import contextlib
import dataclasses
import io
import re
from difflib import get_close_matches
from typing import Any, TypeVar

from maekit.config.files import group_of
from maekit.errors import UsageError

T = TypeVar("T")

# Naming the first clears the second: both would say how long, or how fast, the run learns.
_RIVALS = {
    "--epochs": "--schedule.steps",
    "--schedule.epochs": "--schedule.steps",
    "--base-lr": "--optimizer.lr",
    "--optimizer.base-lr": "--optimizer.lr",
}
_ALSO = {"--schedule.steps": "--steps", "--optimizer.lr": "--lr"}


def parse(kind: type[T], words: list[str], *, prog: str, description: str, default: T | None = None) -> T:
    """A config of class `kind` from command-line words, over `default` where there is one.

    `--help` prints every option and leaves through SystemExit(0). Raises UsageError, one line, for everything else.
    """
    import tyro  # not needed for the list of verbs

    settings: dict[str, Any] = {"prog": prog, "description": description, "return_unknown_args": True}
    if default is None:  # a verb's few options: groups only sort the help
        settings["config"] = (tyro.conf.OmitArgPrefixes,)
    else:
        settings["default"] = default
        words = _with_rivals_cleared(words)
    complaint = io.StringIO()
    try:
        if {"-h", "--help"} & set(words):
            tyro.cli(kind, args=["--help"], **settings)
        with contextlib.redirect_stderr(complaint):
            config, unknown = tyro.cli(kind, args=words, **settings)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(complaint.getvalue())) from None
    if unknown:
        raise UsageError(_unknown(unknown[0], kind, words))
    return config


def _with_rivals_cleared(words: list[str]) -> list[str]:
    given = {word.split("=", 1)[0] for word in words}
    cleared = list(words)
    for option, rival in _RIVALS.items():
        if option in given and not {rival, _ALSO[rival]} & given:
            cleared += [rival, "None"]
    return cleared


def _unknown(word: str, kind: Any, words: list[str]) -> str:
    if not word.startswith("-"):
        return f"{word!r} stands where no value belongs; see --help"
    name = word.split("=", 1)[0].replace("_", "-")
    real = [option for option in _typed_options(kind) if option not in words]
    real += ["--" + option.rsplit(".", 1)[-1] for option in real if kind.__name__.endswith("Options")]
    close = get_close_matches(name, real, n=1, cutoff=0.6)
    return f"no option {word.split('=', 1)[0]}" + (f"; did you mean {close[0]}?" if close else "; see --help")


def _typed_options(kind: Any) -> list[str]:
    """Full names of all options and the short names that exist."""
    names: list[str] = []

    def walk(cls: Any, prefix: str) -> None:
        for field in dataclasses.fields(cls):
            path = f"{prefix}{field.name.replace('_', '-')}"
            inner = group_of(field.type)
            if inner is not None:
                walk(inner, path + ".")
                continue
            names.append("--" + path)
            for marker in getattr(field.type, "__metadata__", ()):
                names.extend(getattr(marker, "aliases", None) or ())

    walk(kind, "")
    return names


def _one_line(text: str) -> str:
    """tyro's framed complaint as one line: the option, what is wrong with it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip("│| ") for line in text.splitlines()[1:]]  # a frame, ASCII or none, under a title line
    body: list[str] = []
    for line in lines:
        if set(line) <= set("─-+╰╯") or line.startswith(("For full helptext", "Argument helptext")):
            if body:
                break
            continue
        body.append(line)
    return _plain(" ".join(" ".join(body).split())) or "the options cannot be read; see --help"


# What tyro and pydantic say, as a person would.
_REWORDINGS = (
    (r"For further information visit \S+", ""),
    (r" Got errors:.*", ""),
    (r"^Error parsing ", ""),
    (r"no type matching (\S+|INT\|\{INT INT\}) could be instantiated from \[(.*?)\]\.?", r"expects \1, got \2"),
    (r"(\w+): \d+ validation errors? for \w+ (\w+)\S* \w+ should (.*?) \[type=.*?input_value=(.*?), input_type.*",
     r"\1.\2: should \3, got \4"),
    (r"invalid literal for int\(\) with base 10: (.*)", r"expects a whole number, got \1"),
    (r"could not convert string to float: (.*)", r"expects a number, got \1"),
    (r"^Missing from [^:]*: (--[\w-]+) \S+ (.*?) \(required\).*", r"\1 is missing: \2"),
    (r"^\w+Options\.", ""),
    (r"Missing value for argument '(.*?)'\. Expected (\d+) values?\.?", r"\1: its value is missing"),
    (r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*?)\)\.",
     r"\2: no such choice '\1', there are \3"),
    (r"\{None\}\|", ""),
)  # fmt: skip


def _plain(message: str) -> str:
    for pattern, replacement in _REWORDINGS:
        message = re.sub(pattern, replacement, message)
    return message.strip()
