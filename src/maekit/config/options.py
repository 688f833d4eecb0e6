"""The options that a config class gives to a command line: their names, and how many words each takes."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from maekit import parts
from maekit.config.files import group_of
from maekit.config.schema import SIZE, WORDS, PartOf, size_of_text
from maekit.errors import UsageError

_SOURCES = ("digits:", "hf:")  # which look like a part's name
Takes = Literal["nothing", "one", "size", "some"]


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    path: the field's, such as data.source. names: as typed, the short one first. takes: nothing (a flag), one word (or
    a fixed `count` of them), a size of one word or two, or some words, as many as fit. item: type of each word. alone:
    words that stand in place of all `count`. choices: the words it may be, where those are few. part: of what kind,
    where it may name one of the user's. null: whether it may be None. words: whether words that follow no option belong
    here. owner, field: where its help stands.
    """

    path: str
    names: tuple[str, ...]
    takes: Takes
    count: int
    item: Any
    words: bool
    owner: type[Any]
    field: str
    default: Any = dataclasses.MISSING
    alone: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    part: str = ""
    null: bool = False

    @property
    def name(self) -> str:
        """The name by which it is spoken of."""
        return self.names[0]

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def negative(self) -> tuple[str, ...]:
        """Of a flag, the names that switch it off."""
        return tuple(map(_negated, self.names)) if self.takes == "nothing" else ()

    def fits(self, word: str) -> bool:
        """Whether a word can be one of the some that this takes."""
        if self.part:
            own = parts.is_part(word) and not word.startswith(_SOURCES) and not Path(word).exists()
            return word in self.choices or own or word.partition(",")[0] in parts.offered(self.part)
        if self.choices:
            return word in self.choices
        return self.item not in (int, float) or _number(float, word) is not None

    def value(self, typed: str, words: list[str]) -> Any:
        """What these words say behind the name that was typed. Raises UsageError where they cannot be that."""
        if self.takes == "nothing":
            return typed not in self.negative
        if self.takes == "size":
            return size_of_text(words[0])
        if self.takes == "one" and len(words) == 1:
            return self._value(words[0])
        return tuple(map(self._value, words))

    def _value(self, word: str) -> Any:
        if self.null and word == "None":
            return None
        value = _number(self.item, word) if self.item in (int, float) and word not in self.alone else word
        if value is None or (self.choices and not self.part and word not in self.choices):
            raise self.refusal("/".join(self.names), word)
        return value

    def refusal(self, called: str, word: str) -> UsageError:
        """What is said of a word that is no number, or none of the choices."""
        if self.choices:
            others = ", or module:object" if self.part else ", 'None'" if self.null else ""
            return UsageError(
                f"{called}: no such choice {word!r}, there are {', '.join(map(repr, self.choices))}{others}"
            )
        wanted = "a whole number" if self.item is int and self.takes == "one" else "a number"
        return UsageError(f"{called}: expects {wanted}, got {word!r}")


def options_of(kind: type[Any], default: Any = None, also: Mapping[str, str] | None = None) -> list[Option]:
    """All options of a config class, in order.

    default: a config whose groups that are None offer no options. also: further names, each with the one it stands for.
    """
    options, also = list(_walk(kind, default, "")), also or {}
    return [replace(one, names=(*(name for name in also if also[name] in one.names), *one.names)) for one in options]


def by_name(options: list[Option]) -> dict[str, Option]:
    """Each name that can be typed, those that switch a flag off as well, and its option."""
    return {name: option for option in options for name in (*option.names, *option.negative)}


def _walk(kind: type[Any], default: Any, prefix: str) -> Iterator[Option]:
    for field in dataclasses.fields(kind):
        value = getattr(default, field.name) if default is not None else field.default
        inner = group_of(field.type)
        if inner is None:
            yield _option(kind, field, value, prefix)
        elif value is not None:
            yield from _walk(inner, None if value is dataclasses.MISSING else value, f"{prefix}{field.name}.")


def _option(kind: type[Any], field: "dataclasses.Field[Any]", value: Any, prefix: str) -> Option:
    markers = _markers(field.type)
    settings = [marker for marker in markers if hasattr(marker, "aliases")]
    own = next((marker.name for marker in settings if marker.name), field.name)
    aliases = [alias for marker in settings for alias in marker.aliases or ()]
    long = "--" + (prefix + own).replace("_", "-")
    takes, count, item = _arity(field.type)
    bare = _bare(field.type)
    of_items = _markers(get_args(bare)[0]) if get_origin(bare) is tuple else []
    bound = next((marker for marker in [*markers, *of_items] if isinstance(marker, PartOf)), None)
    return Option(
        path=prefix + field.name,
        names=(*aliases, long),
        takes=takes,
        count=count,
        item=item,
        words=WORDS in markers,
        owner=next(base for base in kind.__mro__ if field.name in get_annotations(base)),
        field=field.name,
        default=value,
        alone=_alone(field.type),
        choices=tuple(map(str, bound.choices if bound else get_args(item) if get_origin(item) is Literal else ())),
        part=bound.kind if bound else "",
        null=type(None) in get_args(_plain(field.type)),
    )


def _arity(annotation: Any) -> tuple[Takes, int, Any]:
    if SIZE in _markers(annotation):
        return "size", 1, int
    bare = _bare(annotation)
    if bare is bool:
        return "nothing", 1, bool
    if get_origin(bare) is tuple:
        items = get_args(bare)
        if items[-1] is Ellipsis:
            return "some", 1, _bare(items[0])
        return "one", len(items), _bare(items[0])
    return "one", 1, bare


def _plain(annotation: Any) -> Any:
    """Without what annotates it."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _bare(annotation: Any) -> Any:
    """Without what annotates it, without None, and of a word or numbers in its place the numbers."""
    annotation = _plain(annotation)
    members = _members(annotation)
    members = [member for member in members if get_origin(member) is not Literal] or members
    return _bare(members[0]) if len(members) == 1 else annotation


def _members(annotation: Any) -> list[Any]:
    """What a union offers, None left out; nothing where it is no union."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(annotation) if member is not type(None)]


def _alone(annotation: Any) -> tuple[str, ...]:
    members = _members(_plain(annotation))
    if not any(get_origin(_bare(member)) is tuple for member in members):
        return ()
    return tuple(word for member in members if get_origin(member) is Literal for word in get_args(member))


def _markers(annotation: Any) -> list[Any]:
    """What stands beside a type in `Annotated`, on the way to the type that values have."""
    found = list(getattr(annotation, "__metadata__", ()))
    if get_origin(annotation) is not tuple:
        found += [marker for member in get_args(annotation) if member is not Ellipsis for marker in _markers(member)]
    return found


def _negated(name: str) -> str:
    group, dot, leaf = name.removeprefix("--").rpartition(".")
    return f"--{group}{dot}no-{leaf}"


def _number(kind: type[Any], word: str) -> Any:
    """A word as a number of this kind; None where it is none."""
    try:
        return kind(word)
    except ValueError:
        return None
