"""The options that a config class gives to a command line: their names, and how many words each takes."""

import dataclasses
import types
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import get_annotations
from typing import Any, Literal, Union, get_args, get_origin

from maekit.config.files import group_of
from maekit.config.schema import SIZE, WORDS, PartOf
from maekit.parts import is_part

Takes = Literal["nothing", "one", "size", "some"]


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    path: the field's, such as data.source. names: as typed, the short one first. takes: nothing (a flag), one word (or
    a fixed `count` of them), a size of one word or two, or some words, as many as fit. item: type of each word. alone:
    words that stand in place of all `count`. choices: the words it may be, where those are few. or_part: or else the
    name of a part of the user's. words: whether words that follow no option belong here. owner, field:
    where its help stands.
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
    or_part: bool = False

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
        if self.choices:
            return word in self.choices or (self.or_part and is_part(word))
        if self.item in (int, float):
            return _is_number(word)
        return True


def options_of(kind: type[Any], default: Any = None) -> list[Option]:
    """All options of a config class, in order.

    default: a config whose groups that are None offer no options.
    """
    return list(_walk(kind, default, ""))


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
    takes, count, item = _arity(field.type, value)
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
        or_part=bound is not None,
    )


def _arity(annotation: Any, value: Any) -> tuple[Takes, int, Any]:
    if SIZE in _markers(annotation):
        return "size", 1, int
    bare = _bare(annotation)
    if bare is bool:
        return ("one" if value is dataclasses.MISSING else "nothing"), 1, bool
    if get_origin(bare) is tuple:
        items = get_args(bare)
        if items[-1] is Ellipsis:
            return "some", 1, _bare(items[0])
        return "one", len(items), _bare(items[0])
    return "one", 1, bare


def _bare(annotation: Any) -> Any:
    """Without what annotates it, without None, and of a word or numbers in its place the numbers."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = get_args(annotation)[0]
            continue
        members = _members(annotation)
        others = [member for member in members if get_origin(member) is not Literal]
        if len(others or members) != 1:
            return annotation
        annotation = (others or members)[0]


def _members(annotation: Any) -> list[Any]:
    """What a union offers, None left out; nothing where it is no union."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(annotation) if member is not type(None)]


def _alone(annotation: Any) -> tuple[str, ...]:
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    members = _members(annotation)
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


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
