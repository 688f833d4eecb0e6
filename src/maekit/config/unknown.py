"""What an option that a verb has not is told: the one that was meant, or the other way to what was wished for."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from maekit.config.options import Option, by_name
from maekit.config.other_names import COUNTS_DEVICES, OF_TORCHRUN, OTHER_NAMES

_DISTRIBUTED = ("pretrain", "probe", "finetune", "scratch")
_CHANGING = ("channels", "image-size")
_LIKE = 0.72  # similarity from which a name is taken for a slip of another

Options = list[Option]


@dataclass(frozen=True)
class Asked:
    """A command line with an option that is none.

    prog: `maekit VERB [PRESET]`. others: the options of every verb, asked for where this one has no answer.
    """

    verb: str
    prog: str
    words: list[str]
    options: Options
    others: Callable[[], Mapping[str, Options]]


def explain(typed: str, value: str | None, asked: Asked) -> str:
    """One line. Names only options that the verb has, or says of which verb they are."""
    name = typed.lstrip("-").replace("_", "-").lower()
    said = f"no option {typed}"
    if name in OF_TORCHRUN:
        return said + _torchrun(name, value, asked)
    real = by_name(asked.options)
    if ours := _ours(name, real):
        return said + ours
    if way := _by_conversion(name, value or "N", asked):
        return said + way
    other = OTHER_NAMES.get(name)
    if other is not None and other.otherwise:
        return f"{said}: {other.otherwise}"
    if close := _closest(name, asked.options):
        return f"{said}; did you mean {close}?"
    return said + _elsewhere(name, other.ours if other else (), asked)


def _ours(name: str, real: Mapping[str, Option]) -> str:
    other = OTHER_NAMES.get(name)
    if other is None:
        return ""
    found = next((ours for ours in other.ours if ours.split()[0] in real), None)
    if found is None:
        return ""
    return f"; maekit has {found}" + (f" ({other.note})" if other.note else "")


def _torchrun(name: str, value: str | None, asked: Asked) -> str:
    if asked.verb not in _DISTRIBUTED:
        has_device = any("--device" in option.names for option in asked.options)
        return f": maekit {asked.verb} uses one device" + (", which --device names" if has_device else "")
    count, visible, nodes = "N", "", ""
    if value and name in COUNTS_DEVICES:
        numbers = value.strip(",").split(",")
        if all(number.isdigit() for number in numbers):
            count = value if len(numbers) == 1 else str(len(numbers))
            visible = f"CUDA_VISIBLE_DEVICES={value} " if len(numbers) > 1 else ""
    elif value and value.isdigit() and name in ("nnodes", "num-nodes", "nodes"):
        nodes = f"--nnodes {value} "
    rest = shlex.join(_without_torchrun(asked.words))
    command = f"{visible}torchrun {nodes}--nproc-per-node {count} -m {asked.prog} {rest}".strip()
    return f": torchrun starts one process a device: {command}"


def _without_torchrun(words: list[str]) -> list[str]:
    kept: list[str] = []
    dropped = False
    for word in words:
        if dropped and not word.startswith("--"):
            dropped = False
            if word.replace(",", "").isdigit() or word.lower() in ("true", "false", "nccl", "gloo", "auto", "ddp"):
                continue
        dropped = word.startswith("--") and word.split("=")[0].lstrip("-").replace("_", "-").lower() in OF_TORCHRUN
        if dropped:
            dropped = "=" not in word
            continue
        kept.append(word)
    return kept


def _by_conversion(name: str, value: str, asked: Asked) -> str:
    """Where a verb keeps the model of its weights: what changes the weights beforehand."""
    paths = {option.path for option in asked.options}
    if "weights" not in paths or "model.encoder" in paths or "weights_options.encoder" in paths:
        return ""
    leaf = name.rpartition(".")[2]
    other = OTHER_NAMES.get(leaf)
    names = [leaf, *(ours.split()[0].lstrip("-") for ours in (other.ours if other else ()))]
    given = {"gray": "1", "grey": "1", "grayscale": "1", "greyscale": "1"}.get(leaf, value)
    for option in asked.others().get("convert", []):
        own = option.name.lstrip("-")
        if option.path.startswith("weights_options.") and own in names:
            purpose = "to change them" if own in _CHANGING else "to say what they leave unsaid"
            return (
                f": {asked.verb} keeps the model of its weights; {purpose} beforehand: maekit convert W --to maekit "
                f"{option.name} {given} --out NEW"
            )
    if name.startswith("model.") or leaf in {o.path.rpartition(".")[2].replace("_", "-") for o in _model(asked)}:
        return f": {asked.verb} keeps the model of its weights"
    return ""


def _model(asked: Asked) -> Options:
    return [option for option in asked.others().get("pretrain", []) if option.path.startswith("model.")]


def _closest(name: str, options: Options) -> str | None:
    """The option with the likeliest name, by the whole of it or its last part; the one less deep of two alike."""
    best: tuple[float, int, str] | None = None
    for option in options:
        for own in option.names:
            full = own.lstrip("-")
            score = max(_likeness(name, full), _likeness(name.rpartition(".")[2], full.rpartition(".")[2]) - 0.01)
            rank = (score, -full.count("."), option.name)
            if score >= _LIKE and (best is None or rank[:2] > best[:2]):
                best = rank
    return best[2] if best else None


def _likeness(typed: str, name: str) -> float:
    cut_short = len(typed) > 2 and name.startswith(typed)
    return max(0.8 if cut_short else 0.0, SequenceMatcher(None, typed, name).ratio())


def _elsewhere(name: str, ours: tuple[str, ...], asked: Asked) -> str:
    names = {f"--{name}", *(option.split()[0] for option in ours)}
    verbs = [
        verb
        for verb, options in asked.others().items()
        if verb != asked.verb and any(names & {*option.names, *option.negative} for option in options)
    ]
    if verbs:
        return f": that is of maekit {' and '.join(verbs)}, not of maekit {asked.verb}"
    return "; maekit " + asked.verb + " --help-all lists all there are"
