"""Configs as files: a run's config.json, or YAML with the same keys."""

import dataclasses
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from maekit.errors import UsageError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested values of a config, as config.json holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def by_path(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values in groups, each by its dotted path."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= by_path(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
    return found


def from_dict(kind: type[T], values: Any, origin: str = "", names: Mapping[str, str] | None = None) -> T:
    """A config of plain nested values. Raises UsageError: one line with the field's path and a suggestion.

    origin: where they come from, if that is to be said. names: what a path is called in its place.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{origin}: holds {type(values).__name__} where a mapping of options belongs")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise UsageError(f"{origin}: {explain(error, kind, names or {})}".removeprefix(": ")) from None


def read(kind: type[T], path: Path) -> T:
    """The config in a .json, .yaml or .yml file, or in a run folder.

    A run's config.json keeps the options under `config`, beside the versions they ran with.
    """
    if path.is_dir():
        path = path / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a config ({getattr(error, 'strerror', None) or error})") from None
    import yaml  # a tenth of a second that only configs in files cost

    try:
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: is not valid {path.suffix.lstrip('.') or 'YAML'}: {reason}") from None
    if isinstance(values, dict) and "config" in values:
        values = values["config"]
    return from_dict(kind, values, str(path))


def explain(error: ValidationError, kind: Any, called: Mapping[str, str]) -> str:
    """The first complaint of pydantic in one line, with the likely meant option where a name is unknown."""
    complaints = error.errors()
    complaints.sort(key=lambda complaint: complaint["type"] == "missing")  # a misspelt name also leaves one missing
    first, others = complaints[0], len(complaints) - 1
    path = [str(part) for part in first["loc"]]
    names = set(option_paths(kind))
    field = ".".join(path)
    while field not in names and "." in field and first["type"] != "unexpected_keyword_argument":
        field = field.rsplit(".", 1)[0]  # pydantic appends the member of a union that it tried
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        text = f"{'.'.join(path)}: no such option{suggest('.'.join(path), names)}"
    elif first["type"] == "missing":
        text = f"{'.'.join(path)}: is missing"
    elif first["type"] == "too_short":
        text = f"{called.get(field, field)}: takes at least {first['ctx']['min_length']} value, got none"
    elif first["type"] == "tuple_type" and isinstance(first["input"], str):
        text = f"{called.get(field, field)}: takes a list, [{first['input']!r}], got {first['input']!r}"
    else:
        said = first["msg"].removeprefix("Input ")
        text = f"{called.get(field, field)}: {said[0].lower()}{said[1:]}, got {first['input']!r}"
    return text + (f" (and {others} more)" if others else "")


def suggest(name: str, names: set[str] | list[str]) -> str:
    """' (did you mean X?)', or nothing."""
    known = sorted(names)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        last = {known_name.rsplit(".", 1)[-1]: known_name for known_name in known}
        close = [last[found] for found in get_close_matches(name.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.6)]
    return f" (did you mean {close[0]}?)" if close else ""


def option_paths(kind: Any, prefix: str = "") -> list[str]:
    """Dotted paths of all options of a config class."""
    paths = []
    for field in dataclasses.fields(kind):
        paths.append(prefix + field.name)
        if inner := group_of(field.type):
            paths += option_paths(inner, f"{prefix}{field.name}.")
    return paths


def group_of(annotation: Any) -> Any:
    """The config class inside an annotation such as `ModelConfig | None`, or None."""
    if dataclasses.is_dataclass(annotation):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := group_of(argument):
            return found
    return None
