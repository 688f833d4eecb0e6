"""Parts that users bring: a mask, a target, a loss, a family of encoders, an augmentation, a probe, a source.

A part is named `module:object`, or by the name under which an installed package offers it (entry points of the groups
`maekit.mask`, `maekit.target` and so on), either with options behind: `mypkg:Hog,bins=9`. Code is imported because a
user says so, on the command line, in a config or in Python; never because a file of weights does.
"""

import ast
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module, metadata
from operator import attrgetter
from typing import Any

from maekit.errors import MaekitError, UsageError

KINDS = ("mask", "target", "loss", "encoder", "augment", "probe", "source")

_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_said: dict[str, Any] = {}  # what the user named, with the object that was handed over, if one was


@dataclass(frozen=True)
class Part:
    """text: as it was named. value: the object. options: what stood behind its name."""

    text: str
    value: Any
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, *arguments: Any, **named: Any) -> Any:
        """What the object makes of its arguments. Raises UsageError, one line, where it raises anything of its own."""
        try:
            return self.value(*arguments, **named, **self.options)
        except MaekitError:
            raise
        except Exception as error:
            raise UsageError(f"{self.text}: cannot be made ({type(error).__name__}: {error})") from error

    def bound(self) -> Callable[..., Any]:
        """The object itself, where it is a function to be called again and again, with its options."""
        return partial(self.value, **self.options) if self.options else self.value


def is_part(text: str) -> bool:
    """Whether a word names a part by its import path."""
    return _PATH.fullmatch(_base(text)) is not None


def offered(kind: str) -> dict[str, metadata.EntryPoint]:
    """The parts of this kind, or of any, that installed packages offer, by name."""
    groups = KINDS if kind == "any" else (kind,)
    return {entry.name: entry for one in groups for entry in metadata.entry_points(group=f"maekit.{one}")}


def name_of(part: Any) -> str:
    """The name of a class or function that a program hands over, by which `find` knows it from then on.

    Raises UsageError for what no name leads to, such as an instance or a function within a function.
    """
    if isinstance(part, str):
        return part
    module, name = getattr(part, "__module__", ""), getattr(part, "__qualname__", "<")
    if not module or "<" in name:
        raise UsageError(f"{part!r}: hand over a class or function that stands in a module, or its name, module:object")
    _said[f"{module}:{name}"] = part
    return f"{module}:{name}"


def say(*texts: str) -> None:
    """Take the user's word for these names: what they lead to may be imported. Other words are passed over."""
    for text in texts:
        _said.setdefault(_base(text), None)


def said(text: str) -> bool:
    """Whether the user named it."""
    return _base(text) in _said


def find(kind: str, text: str) -> Part:
    """The part that is named so. kind: one of `KINDS`.

    Raises UsageError, one line, where nothing is found under the name, or where the user did not say it but a file.
    """
    base, options = _base(text), _options(text)
    if base not in _said:
        raise UsageError(
            f"{kind} {base}: is named by a file alone, and no code is imported because of that; if it is yours or "
            f"you trust it, say --parts {base} (in Python: parts=({base!r},))"
        )
    value = _said[base]
    if value is None:
        entry = None if is_part(base) else offered(kind).get(base)
        value = _imported(kind, base) if entry is None else _loaded(entry, f"{kind} {base}")
    return Part(text, value, options)


def _base(text: str) -> str:
    return text.partition(",")[0]


def _options(text: str) -> dict[str, Any]:
    found = {}
    for word in text.split(",")[1:]:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{text}: {word!r} is no option; options follow a part's name as name=value, with commas")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _imported(kind: str, base: str) -> Any:
    if not is_part(base):
        names = ", ".join(sorted(offered(kind))) or "none"
        raise UsageError(f"{kind} {base}: no installed package offers it (there are: {names}); or name module:object")
    module, _, name = base.partition(":")
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:  # noqa: PTH109 - a command has not, python -m has
        sys.path.append(here)
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        missing = f"there is no module {error.name}, in {here} and where Python looks"
        raise UsageError(f"{kind} {base}: {missing}") from None
    except Exception as error:
        raise UsageError(f"{kind} {base}: {module} cannot be imported ({type(error).__name__}: {error})") from error
    try:
        return attrgetter(name)(imported)
    except AttributeError:
        raise UsageError(f"{kind} {base}: {module} has no {name}") from None


def _loaded(entry: metadata.EntryPoint, what: str) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise UsageError(f"{what}: {entry.value} cannot be imported ({type(error).__name__}: {error})") from error
