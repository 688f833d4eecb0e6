"""From the words of a command line to a config: tyro parses, and whatever is wrong becomes one line."""

import contextlib
import io
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from maekit.config import beforehand, together, unknown
from maekit.config import help as short_help
from maekit.config.options import Option, options_of
from maekit.config.words import Reader, Words
from maekit.errors import UsageError

T = TypeVar("T")

# Naming the first clears the second: both would say how long, how fast, or from how many images the run learns.
RIVALS: dict[str, tuple[str, Any]] = {
    "schedule.epochs": ("schedule.steps", None),
    "optimizer.base_lr": ("optimizer.lr", None),
    "validation.split": ("validation.source", ""),
    "validation.source": ("validation.split", None),
    "images": ("data.source", ""),
}


@dataclass(frozen=True)
class Command:
    """What is typed before the options, and what help and suggestions need to know of it.

    prog: `maekit VERB [PRESET]`. also: further names of options, by the name they stand for. others: the options of
    every verb, for those that are typed at the wrong one.
    """

    verb: str
    prog: str
    description: str
    also: dict[str, str] = field(default_factory=dict)
    others: Callable[[], Mapping[str, list[Option]]] = dict


def parse(kind: type[T], words: list[str], command: Command, default: T | None = None) -> T:
    """A config of class `kind` from command-line words, over `default` where there is one.

    `--help` prints the common options, `--help-all` every one; both leave through SystemExit(0). Raises UsageError, one
    line, for everything else.
    """
    options = options_of(kind, default)
    if "--help-all" in words:
        _tyro(kind, ["--help"], command, default)
    if {"-h", "--help"} & set(words):
        print(short_help.short(command.verb, command.prog, command.description, options, command.also))
        raise SystemExit(0)
    found = Reader(words, options, command.also).read()
    explain_unknown(found.unknown, options, command, kind if default is None else default, words)
    require(options, found.values)
    try:
        config = _tyro(kind, _with_rivals_cleared(found, options), command, default)
    except UsageError as error:
        name, colon, rest = str(error).partition(":")
        typed = {option.path: option.name for option in options if default is None}
        raise UsageError(f"{typed.get(name, name)}{colon}{rest}") from None
    named = {path: name for path, (name, _) in found.values.items()}
    together.refuse_unheeded(config, named, lambda path: named[path])
    beforehand.check_files(config)
    return config


def explain_unknown(
    found: list[tuple[str, str | None]], options: list[Option], command: Command, config: Any, words: list[str]
) -> None:
    """Raises UsageError where any was found. config: one of the verb's, or its class."""
    if found:
        known = together.offered(_with_further_names(options, command.also), config)
        raise UsageError(
            unknown.explain(found, unknown.Asked(command.verb, command.prog, words, known, command.others))
        )


def require(options: list[Option], given: Collection[str]) -> None:
    """Raises UsageError for an option that has to be given. given: paths of those that are."""
    for option in options:
        if option.required and option.path not in given:
            meaning = short_help.first_sentence(short_help.help_of(option))
            raise UsageError(f"{option.name} is missing: {meaning}")


def _tyro(kind: type[T], words: list[str], command: Command, default: T | None) -> T:
    import tyro  # not needed for the list of verbs

    settings: dict[str, Any] = {"prog": command.prog, "description": command.description}
    if default is not None:
        settings["default"] = default
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=words, **settings)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(complaint.getvalue())) from None


def _with_further_names(options: list[Option], also: Mapping[str, str]) -> list[Option]:
    further = {name: short for short, name in also.items()}
    return [
        replace(option, names=(*(further[name] for name in option.names if name in further), *option.names))
        for option in options
    ]


def _with_rivals_cleared(found: Words, options: list[Option]) -> list[str]:
    cleared = found.for_tyro()
    names = {option.path: option.name for option in options}
    for path, (rival, nothing) in RIVALS.items():
        if path in found.values and rival in names and rival not in found.values:
            cleared += [names[rival], str(nothing)]
    return cleared


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
    (r"no type matching (\S+) could be instantiated from \[(.*?)\]\.?", r"expects \1, got \2"),
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
    (r"expects FLOAT\b", "expects a number"),
    (r"expects INT\b", "expects a whole number"),
    (r"INT\|INTxINT", "a size, N or HxW"),
)  # fmt: skip


def _plain(message: str) -> str:
    for pattern, replacement in _REWORDINGS:
        message = re.sub(pattern, replacement, message)
    return message.strip()
