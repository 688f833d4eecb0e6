"""What an option that a verb has not is told: the one that was meant, or the other way to what was wished for."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from maekit.config.options import Option, by_name
from maekit.config.other_names import COUNTS_DEVICES, COUNTS_NODES, OF_TORCHRUN, OTHER_NAMES, Other

_DISTRIBUTED = ("pretrain", "probe", "finetune", "scratch")
_CHANGING = ("channels", "image-size")
_LIKE = 0.72  # similarity from which a name is taken for a slip of another
_SAME = 0.95  # and from which for the same, or for the same with another group in front
_EVERY_DEVICE = ("-1", "all", "auto", "gpu", "cuda")
_LAUNCHER_VALUE = re.compile(
    r"-?[\d,.:]+|true|false|all|auto|gpu|cuda|nccl|gloo|mpi|ddp|fsdp|ddp_\w+|env://|(tcp|file)://\S+|localhost",
    re.IGNORECASE,
)

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


def explain(unknown: list[tuple[str, str | None]], asked: Asked) -> str:
    """What each option that is none is told, in one line. Names only options that the verb has, or says of which verb
    they are.

    unknown: as typed, with the word that follows where one does.
    """
    first = next((typed for typed, _ in unknown if _plain(typed) in OF_TORCHRUN), "")  # one command is told for all
    told = [
        f"no option {typed}{_answer(typed, value, asked)}"
        for typed, value in unknown
        if typed == first or _plain(typed) not in OF_TORCHRUN
    ]
    return " · ".join(dict.fromkeys(told))


def _plain(typed: str) -> str:
    return typed.lstrip("-").replace("_", "-").lower()


def _answer(typed: str, value: str | None, asked: Asked) -> str:
    name = _plain(typed)
    if name in OF_TORCHRUN:
        return _torchrun(asked)
    if ours := _ours(name, by_name(asked.options)):
        return ours
    if way := _by_conversion(name, value or "N", asked):
        return way
    other = OTHER_NAMES.get(name, Other())
    if other.otherwise:
        return f": {other.otherwise}"
    near, likeness = _closest(name, asked.options)
    if near and likeness >= _SAME:
        return f"; did you mean {near}?"
    if verbs := _elsewhere(name, other.ours, asked):
        return f": that is of maekit {_listed(verbs)}, not of maekit {asked.verb}"
    if near and name not in OTHER_NAMES:
        return f"; did you mean {near}?"
    return f"; maekit {asked.verb} --help-all lists all there are"


def _ours(name: str, real: Mapping[str, Option]) -> str:
    other = OTHER_NAMES.get(name, Other())
    found = next((ours for ours in other.ours if ours.split()[0] in real), "")
    if not found:
        return ""
    choices = real[found.split()[0]].choices
    if choices and " " not in found:
        found += f" {'|'.join(choices)}"
    return f"; maekit has {found}" + (f" ({other.note})" if other.note else "")


def _torchrun(asked: Asked) -> str:
    if asked.verb not in _DISTRIBUTED:
        has_device = any("--device" in option.names for option in asked.options)
        return f": maekit {asked.verb} uses one device" + (", which --device names" if has_device else "")
    kept, values = _without_torchrun(asked.words)
    count, visible, nodes = "", "", ""
    for name, value in values.items():
        numbers = value.strip(",").split(",")
        if name in COUNTS_DEVICES and all(number.isdigit() for number in numbers):
            count = value if len(numbers) == 1 else str(len(numbers))
            visible = f"CUDA_VISIBLE_DEVICES={value.strip(',')} " if len(numbers) > 1 else ""
        elif name in COUNTS_DEVICES and value in _EVERY_DEVICE:
            count = "gpu"
        elif name in COUNTS_NODES and value.isdigit() and int(value) > 1:
            nodes = f"--nnodes {value} --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
    command = f"{asked.prog} {shlex.join(kept)}".strip()
    if count == "1" and not nodes:
        return f": one process uses one device, without being told: {command}"
    return (
        f": torchrun starts one process a device: {visible}torchrun {nodes}--nproc-per-node {count or 'N'} -m {command}"
    )


def _without_torchrun(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words without options of a launcher, and those with their values, empty where they have none."""
    kept: list[str] = []
    values: dict[str, str] = {}
    open_name = ""
    for word in words:
        typed, equals, value = word.partition("=")
        name = _plain(typed) if word.startswith("--") else ""
        if open_name and not name and _LAUNCHER_VALUE.fullmatch(word):
            values[open_name], open_name = word, ""
            continue
        open_name = name if name in OF_TORCHRUN and not equals else ""
        if name in OF_TORCHRUN:
            values[name] = value
        else:
            kept.append(word)
    return kept, values


def _by_conversion(name: str, value: str, asked: Asked) -> str:
    """Where a verb keeps the model of its weights: what changes the weights beforehand."""
    paths = {option.path for option in asked.options}
    if "weights" not in paths or "model.encoder" in paths or "encoder" in paths:
        return ""
    leaf = name.rpartition(".")[2]
    names = [leaf, *(ours.split()[0].lstrip("-") for ours in OTHER_NAMES.get(leaf, Other()).ours)]
    given = {"gray": "1", "grey": "1", "grayscale": "1", "greyscale": "1"}.get(leaf, value)
    if "encoder" in names and re.search(r"[/:.]", given):
        plain = re.split(r"[/:]", given)[-1]
        return f": {asked.verb} keeps the model of its weights, and those are given by --weights hf:timm/{plain}"
    for option in asked.others().get("convert", []):
        own = option.name.lstrip("-")
        if option.owner.__name__ == "WeightsOptions" and own in names:
            purpose = "to change them" if own in _CHANGING else "to say what they leave unsaid"
            return (
                f": {asked.verb} keeps the model of its weights; {purpose} beforehand: maekit convert W --to maekit "
                f"{option.name} {given} --out NEW"
            )
    of_models = [option.path for option in asked.others().get("pretrain", []) if option.path.startswith("model.")]
    if name.startswith("model.") or leaf in {path.rpartition(".")[2].replace("_", "-") for path in of_models}:
        return f": {asked.verb} keeps the model of its weights"
    return ""


def _closest(name: str, options: Options) -> tuple[str | None, float]:
    """The option with the likeliest name, by the whole of it or its last part, and how like it is; the one less deep of
    two alike."""
    best: tuple[float, int, str] = (0.0, 0, "")
    for own, option in by_name(options).items():
        full = own.lstrip("-")
        score = max(_likeness(name, full), _likeness(name.rpartition(".")[2], full.rpartition(".")[2]) - 0.01)
        rank = (score, -full.count("."), own if own in option.negative else option.name)
        if score >= _LIKE and rank[:2] > best[:2]:
            best = rank
    return best[2] or None, best[0]


def _likeness(typed: str, name: str) -> float:
    cut_short = len(typed) > 2 and name.startswith(typed)
    return max(0.8 if cut_short else 0.0, SequenceMatcher(None, typed, name).ratio())


def _elsewhere(name: str, ours: tuple[str, ...], asked: Asked) -> list[str]:
    """The other verbs that have an option of this name, or what it is called here."""
    every = {verb: options for verb, options in asked.others().items() if verb != asked.verb}
    for names in ({f"--{name}"}, *({option.split()[0]} for option in ours)):
        verbs = [verb for verb, options in every.items() if names & by_name(options).keys()]
        if verbs:
            return [verb for verb in verbs if verb != "plan" or "pretrain" not in verbs]  # whose options it takes
    return []


def _listed(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
