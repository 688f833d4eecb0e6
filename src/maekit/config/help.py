"""The help that a verb gives first: its common options and an example. The rest is in `--help-all`."""

import ast
import inspect
import shutil
import sys
import textwrap
from dataclasses import MISSING
from functools import cache

from maekit.config.options import Option, by_name

_VALUES = {
    "--data": "SOURCE", "--val": "SOURCE", "--gallery": "SOURCE",
    "--weights": "W", "--out": "PATH", "--run": "RUN", "--runs": "RUN", "--config": "PRESET",
    "--push": "hf:REPO",
    "--mask": "PICTURE", "--picture": "PICTURE", "--confusion": "PICTURE", "--device": "NAME", "--encoder": "NAME",
}  # fmt: skip
"""What stands for the value of options whose type says little."""
_METAVARS = {int: "N", float: "X", str: "TEXT"}
_NAMES = 30  # columns
_WIDEST = 110
_LINES = 2  # of an option's help, at most

_TRAINING = "--data --val --weights --out --image-size --epochs --batch-size --lr {} --device --precision --resume"
COMMON: dict[str, str] = {
    "demo": "--out --overwrite --seed --seeds --per-class --steps --few-label-steps",
    "data": "--data --val --out --channels --images --picture --rate --workers",
    "suggest": "--data --hours --device --image-column",
    "pack": "--data --out --short-side --quality --to --shards --workers --image-column",
    "plan": (
        "--data --images --gpus --memory --rate --measure --batch-size --micro-batch-size --epochs --precision "
        "--run.parallel --run.checkpoint-activations"
    ),
    "pretrain": _TRAINING.format("--mask-ratio"),
    "probe": (
        "--weights --data --val --kinds --features --blocks --per-class --linear --neighbours --image-size --workers "
        "--device"
    ),
    "finetune": _TRAINING.format("--per-class"),
    "scratch": _TRAINING.replace("--weights ", "").format("--per-class --seed"),
    "watch": "--run --port --seconds",
    "compare": "--runs --out",
    "card": "--run --out --license --probe",
    "evaluate": "--weights --data --confusion --crop-share --image-size --batch-size --workers --device",
    "classify": "--weights --data --top --crop-share --image-size --batch-size --workers --device",
    "reconstruct": "--weights --data --out --mask-ratio --mask --seed --rows --statistics --image-size --device",
    "embed": (
        "--weights --data --out --tokens --blocks --picture --crop-share --image-size --batch-size --workers --device"
    ),
    "app": "--weights --gallery --gallery-images --port --host --image-size --device",
    "inspect": "--weights --hash --config --encoder --heads",
    "convert": (
        "--weights --to --out --part --push --image-size --resample-positions --window --channels --encoder --heads"
    ),
}
"""Options that `maekit VERB --help` shows, in this order."""

EXAMPLES: dict[str, str] = {
    "demo": "maekit demo --out runs/demo",
    "data": "maekit data photos/train",
    "suggest": "maekit suggest photos/train --hours 8",
    "pack": "maekit pack photos/train --out photos-256 --short-side 256",
    "plan": "maekit plan {preset} --images 1000000 --gpus 8 --memory 80",
    "pretrain": "maekit pretrain {preset} --data photos/train --out runs/photos --epochs 100",
    "probe": "maekit probe --weights runs/photos --data photos/train --val photos/val",
    "finetune": "maekit finetune {preset} --weights runs/photos --data photos/train --val photos/val --out runs/tuned",
    "scratch": "maekit scratch {preset} --data photos/train --val photos/val --out runs/scratch",
    "watch": "maekit watch runs/photos",
    "compare": "maekit compare runs/photos runs/tuned --out compare.html",
    "card": "maekit card runs/photos --license apache-2.0 --out README.md",
    "evaluate": "maekit evaluate --weights runs/tuned --data photos/val",
    "classify": "maekit classify --weights runs/tuned cat.jpg dog.jpg",
    "reconstruct": "maekit reconstruct --weights runs/photos cat.jpg --out cat.png",
    "embed": "maekit embed --weights runs/photos --data photos/val --out photos.npz",
    "app": "maekit app --weights runs/photos --gallery photos/val",
    "inspect": "maekit inspect runs/photos",
    "convert": "maekit convert runs/tuned --to timm --out tuned-timm",
}


def short(verb: str, prog: str, description: str, options: list[Option]) -> str:
    """What `--help` prints: twelve options at most, and an example."""
    place = next((option for option in options if option.words), None)
    words = f" [{_VALUES[place.name]}{'...' if place.takes == 'some' else ''}]" if place else ""
    preset = prog.split()[-1]
    lines = [f"usage: {prog}{words} [options]", "", description.strip().partition("\n\n")[0], ""]
    lines += [*example(verb, preset), "", *common(verb, options, _LINES)]
    lines += ["", f"{prog} --help-all: all {len(options)} options"]
    return "\n".join(lines)


def of_presets(verb: str, description: str, presets: dict[str, str], options: list[Option]) -> str:
    """What `--help` prints where no preset is named. presets: what each is, by name."""
    width = _width()
    lines = [f"usage: maekit {verb} PRESET [SOURCE] [options]", "", description, ""]
    lines += [*example(verb, next(iter(presets))), "", "PRESET, the path of a saved config or one of these:"]
    column = 1 + max(map(len, presets))
    lines += [_cut(f"  {name:<{column}}{what}", width) for name, what in presets.items()]
    lines += ["", *common(verb, options, 1)]
    lines += ["", f"maekit {verb} PRESET --help: a preset and its values; --help-all: all {len(options)} options"]
    return "\n".join(lines)


def example(verb: str, preset: str) -> list[str]:
    """The example of a verb, under its title."""
    return ["example:", f"  {EXAMPLES[verb].format(preset=preset)}"]


def common(verb: str, options: list[Option], most: int) -> list[str]:
    """The common options under their title, each in so many lines at most."""
    names = by_name(options)
    shown = [(name, names[name]) for name in COMMON[verb].split() if name in names]
    lines = ["options:" if len(shown) == len(options) else "common options:"]
    for name, option in shown:
        lines += _entry(name, option, most)
    return lines


def help_of(option: Option) -> str:
    """What stands under the option's field, as one line."""
    return _docstrings(option.owner.__module__, option.owner.__name__).get(option.field, "")


def first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _entry(name: str, option: Option, most: int) -> list[str]:
    head = f"  {name} {_value(name, option)}".rstrip()
    if most == 1 and len(head) >= _NAMES - 1:
        head = f"  {name} NAME"
    room = max(30, _width() - _NAMES)
    default = _default(option) if most > 1 else ""  # else no preset is chosen yet
    text = help_of(option)
    if text.partition(":")[0] not in option.choices:  # where it is, all of it is said: it is of one choice alone
        text = first_sentence(text) + "."
    body = _cut(text, most * room - len(default) - (most - 1) * 12)  # 12: what wrapping may leave empty
    wrapped = textwrap.wrap(body + default, room)
    if len(head) >= _NAMES - 1:
        wrapped = ["", *wrapped]
    return [(head.ljust(_NAMES) + wrapped[0]).rstrip(), *(" " * _NAMES + line for line in wrapped[1:])]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 2].rsplit(" ", 1)[0].rstrip(" ,;:(") + " …"


def _width() -> int:
    return min(_WIDEST, shutil.get_terminal_size().columns)


def _value(name: str, option: Option) -> str:
    if option.takes == "nothing":
        return ""
    if option.takes == "size":
        return "N|HxW"
    word = _VALUES.get(name) or "|".join(filter(None, option.choices)) or _METAVARS.get(option.item, "VALUE")
    return f"{word} ..." if option.takes == "some" else " ".join([word] * option.count)


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
