"""From the arguments of a function in Python to a config, by the same names and with the same lines as from words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

from maekit.config.arguments import Command, made, refuse
from maekit.config.objects import Loaded, Path, Source, named
from maekit.config.options import options_of
from maekit.config.schema import Size
from maekit.errors import UsageError
from maekit.results import Run

T = TypeVar("T")
Part = str | Callable[..., Any]

# fmt: off
Common = TypedDict("Common", {  # noqa: UP013 - a line for each would take a page
    "data": Source, "val": Source, "val_split": float | None, "val_every": float | None, "image_column": str | None,
    "cache_limit": float,
    "weights": Path | Run | Loaded, "out": Path, "resume": bool, "overwrite": bool, "allow_drift": bool, "branch": Path,
    "epochs": float | None, "steps": int | None, "batch_size": int | None, "micro_batch_size": int | None,
    "lr": float | None, "base_lr": float | None, "seed": int, "workers": int | None, "device": str,
    "precision": Literal["auto", "fp32", "bf16", "fp16"], "compile": bool, "checkpoint_every": int | None, "keep": int,
    "normalise": Literal["imagenet", "half", "measured", "given"],
    "mean": Sequence[float] | None, "std": Sequence[float] | None, "name": str, "parts": Sequence[Part],
    "image_size": Size | None, "mask_ratio": float, "mask": Part, "target": Part, "loss": Part, "augment": Part,
    "per_class": int | None, "freeze_blocks": int, "resample_positions": bool,
}, total=False)
# fmt: on
"""What the trainings' options are called that have a short name, of one training or all; None is none."""


class Planning(Common, total=False):
    """The same of a plan, which has some beside those of pretraining."""

    gpus: int
    images: int | None
    memory: float | None
    rate: float | None
    measure: bool


def configured(kind: type[T], values: Mapping[str, Any], command: Command, default: T | None = None) -> T:
    """A config of class `kind` from values by name (`mask_ratio`) or dotted path (`mask.ratio`), over `default`.

    Classes and functions stand for their names. Raises UsageError, one line, as `arguments.parse` does.
    """
    options = options_of(kind, default, command.also)
    names = {name: option for option in options for name in (*option.names, f"--{option.path.replace('_', '-')}")}
    given: dict[str, Any] = {}
    called: dict[str, str] = {}
    none: list[tuple[str, str | None]] = []
    for name, value in values.items():
        typed = f"--{name.replace('_', '-')}"
        option = names.get(typed)
        if option is None:
            none.append((typed, f"{value}"))
        elif option.path in given:
            raise UsageError(f"{option.name}: is given twice, as {name} too; take one of them")
        else:
            called[option.path] = option.name
            given[option.path] = type(value)(map(named, value)) if type(value) in (list, tuple) else named(value)
    refuse(none, given, options, command, kind if default is None else default, [])
    return made(kind, given, options, called, default)
