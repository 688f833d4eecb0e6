"""The help that a verb gives first: its common options and an example. The rest is in `--help-all`."""

import ast
import inspect
import shutil
import sys
import textwrap
from dataclasses import MISSING
from functools import cache
from typing import Any, Literal, get_args, get_origin

from maekit.config.options import Option, by_name

_PLACES = {"--data": "SOURCE", "--weights": "W"}
_NAMES = 30  # columns
_WIDEST = 110

_TRAINING = (
    "--data --val --weights --out --image-size --epochs --batch-size --lr --seed --workers --device --precision "
    "--resume --overwrite"
)
COMMON: dict[str, str] = {
    "demo": "--out --overwrite --seed --seeds --per-class --steps --few-label-steps",
    "data": "--data --channels --images --picture --rate --workers",
    "pretrain": _TRAINING.replace("--overwrite", "--mask-ratio"),
    "probe": (
        "--weights --data --val --kinds --features --blocks --per-class --linear --neighbours --image-size --workers "
        "--device"
    ),
    "finetune": _TRAINING.replace("--overwrite", "--per-class"),
    "scratch": _TRAINING.replace("--weights ", "").replace("--overwrite", "--per-class"),
    "evaluate": "--weights --data --confusion --crop-share --image-size --batch-size --workers --device",
    "classify": "--weights --data --top --crop-share --image-size --batch-size --workers --device",
    "reconstruct": "--weights --data --out --mask-ratio --mask --seed --rows --statistics --image-size --device",
    "embed": "--weights --data --out --tokens --blocks --crop-share --image-size --batch-size --workers --device",
    "inspect": "--weights --hash --config --encoder --heads",
    "convert": "--weights --to --out --part --push --image-size --resample-positions --channels --encoder --heads",
}
"""Options that `maekit VERB --help` shows, in this order."""

EXAMPLES: dict[str, str] = {
    "demo": "maekit demo --out runs/demo",
    "data": "maekit data photos",
    "pretrain": "maekit pretrain vit-tiny --data photos --out runs/photos --epochs 100",
    "probe": "maekit probe --weights runs/photos --data photos/train --val photos/val",
    "finetune": "maekit finetune vit-tiny --weights runs/photos --data photos/train --val photos/val --out runs/tuned",
    "scratch": "maekit scratch vit-tiny --data photos/train --val photos/val --out runs/scratch",
    "evaluate": "maekit evaluate --weights runs/tuned --data photos/val",
    "classify": "maekit classify --weights runs/tuned cat.jpg dog.jpg",
    "reconstruct": "maekit reconstruct --weights runs/photos cat.jpg --out cat.png",
    "embed": "maekit embed --weights runs/photos --data photos --out photos.npz",
    "inspect": "maekit inspect runs/photos",
    "convert": "maekit convert runs/tuned --to timm --out tuned-timm",
}


def short(verb: str, prog: str, description: str, options: list[Option], also: dict[str, str]) -> str:
    """What `--help` prints. also: further names of options, by the name they stand for."""
    names = by_name(options)
    listed = [(name, names.get(also.get(name, name))) for name in COMMON[verb].split()]
    shown = [(name, option) for name, option in listed if option is not None]
    place = next((option for option in options if option.words), None)
    words = f" [{_PLACES[place.name] + ('...' if place.takes == 'some' else '')}]" if place else ""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    lines = [f"usage: {prog}{words} [options]", "", description.strip(), "", "example:", f"  {EXAMPLES[verb]}", ""]
    lines += ["options:" if len(shown) == len(options) else "common options:"]
    for name, option in shown:
        lines += _entry(name, option, width)
    lines += ["", f"{prog} --help-all: all {len(options)} options"]
    return "\n".join(lines)


def help_of(option: Option) -> str:
    """What stands under the option's field, as one line."""
    return _docstrings(option.owner.__module__, option.owner.__name__).get(option.field, "")


def first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _entry(name: str, option: Option, width: int) -> list[str]:
    head = f"  {name} {_value(option)}".rstrip()
    body = help_of(option) + _default(option)
    wrapped = textwrap.wrap(body, max(30, width - _NAMES))
    if len(head) >= _NAMES - 1:
        wrapped = ["", *wrapped]
    return [head.ljust(_NAMES) + wrapped[0], *(" " * _NAMES + line for line in wrapped[1:])]


def _value(option: Option) -> str:
    if option.takes == "nothing":
        return ""
    if option.takes == "size":
        return "N|HxW"
    word = "|".join(map(str, get_args(option.item))) if get_origin(option.item) is Literal else _metavar(option.item)
    return f"{word} ..." if option.takes == "some" else " ".join([word] * option.count)


def _metavar(item: Any) -> str:
    return {int: "N", float: "X", str: "TEXT"}.get(item, "VALUE")


def _default(option: Option) -> str:
    value = option.default
    if option.required:
        return " (required)"
    if value is MISSING or value in (None, "", (), False):
        return ""
    return f" (default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


@cache
def _docstrings(module: str, owner: str) -> dict[str, str]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    definition = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    found = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            found[statement.target.id] = " ".join(str(text).split())
    return found
