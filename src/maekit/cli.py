"""The command line: parse, call the function of the verb, print what it answers."""

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from importlib import metadata
from inspect import cleandoc
from typing import Any, NoReturn

from maekit import presets, strict_json, verbs
from maekit.calling import command_of
from maekit.config import help as short_help
from maekit.config.arguments import parse
from maekit.config.options import options_of
from maekit.errors import MaekitError, OthersError, Stopped, UsageError
from maekit.presets.verbs import ALSO
from maekit.presets.verbs import VERBS as OPTIONS
from maekit.results import Result, Run


def main(words: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 failed, 2 bad usage, 75 stopped by a signal after saving."""
    words = list(sys.argv[1:] if words is None else words)
    as_json = _take(words, "--json")
    debug = _take(words, "--debug")
    _spin_less()
    logging.getLogger("maekit").propagate = False  # a command's lines go to its terminal alone
    try:
        if words[:1] in (["-h"], ["--help"], ["help"]) and words[1:2] and words[1] in VERBS:
            words = [*words[1:], "--help"]  # as they say it who know git
        if not words or words[0] in ("-h", "--help", "--help-all", "help"):
            print(_overview())
            return 0
        if words[0] == "--version":
            print(f"maekit {metadata.version('maekit')}")
            return 0
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = _call(_check_verb(words[0]), words[1:])
        if isinstance(result, Run) and not result.complete:
            raise Stopped(str(result), result.run or "")
        _tell(result, as_json=as_json)
        return 0
    except MaekitError as error:
        if debug:
            raise
        rank = os.environ.get("RANK", "0")
        # another process of the job says this: all stop together, and mistakes in words are alike
        if error.told or (rank != "0" and isinstance(error, Stopped | UsageError)):
            return error.exit_code
        if error.answer is not None:
            _tell(error.answer, as_json=as_json)
        where = f"rank {rank}: " if rank != "0" and not isinstance(error, OthersError) else ""
        print(f"maekit: {where}{' '.join(str(error).split())}", file=sys.stderr)
        if isinstance(error, Stopped) and error.run:
            print(f"go on with: {_resuming(words, error.run)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("maekit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _spin_less() -> None:
    """torch's threads spin long before they sleep; on a busy machine that is most of the time of a small product."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _resuming(words: list[str], run: str) -> str:
    """The command that goes on with a run that was stopped."""
    kept = [word for word in words if word != "--overwrite"]
    if not any(word == "--out" or word.startswith("--out=") for word in kept):
        kept += ["--out", run]
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    command = f"torchrun --nproc-per-node {processes} -m maekit" if processes > 1 else "maekit"
    return f"{command} {shlex.join(kept if '--resume' in kept else [*kept, '--resume'])}"


def _take(words: list[str], flag: str) -> bool:
    found = flag in words
    words[:] = [word for word in words if word != flag]
    return found


_TOGETHER = ("pretrain", "finetune", "scratch", "probe", "evaluate", "embed")
VERBS: dict[str, Callable[..., Result]] = {name: getattr(verbs, name) for name in OPTIONS}


def _call(verb: str, words: list[str]) -> Result:
    """What the verb's function answers to what the words say."""
    if verb not in _TOGETHER and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"{verb}: runs in one process, without torchrun; {', '.join(_TOGETHER)} run in several")
    kind, table = OPTIONS[verb]
    if table is not None:
        return VERBS[verb](_preset_config(verb, words, table, kind))
    options: Any = parse(kind, words, command_of(verb, description=_summary(verb)))
    values = {field.name: (getattr(options, field.name), field.default) for field in fields(options)}
    return VERBS[verb](**{name: value for name, (value, default) in values.items() if value != default})


def _tell(result: Result, *, as_json: bool) -> None:
    """Print an answer: for a person, on standard error where standard output is a program's, and for that."""
    if os.environ.get("RANK", "0") != "0":
        return
    if told := str(result):
        print(told, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(strict_json.dumps(result.as_dict()))


def _check_verb(name: str) -> str:
    if name in VERBS:
        return name
    close = get_close_matches(name, list(VERBS), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no verb {name!r}: {hint}there are {', '.join(VERBS)}")


def _preset_config(verb: str, words: list[str], table: dict[str, Callable[[], Any]], kind: type[Any]) -> Any:
    """The config of `maekit VERB PRESET --options`."""
    helped = {"-h", "--help", "--help-all"} & set(words) if words and words[0].startswith("-") else set()
    if not words or helped:
        print(_presets_help(verb, table, kind))
        if not words:
            raise UsageError(f"{verb}: which preset?")
        if "--help-all" not in helped:
            raise SystemExit(0)
        words = [next(iter(table)), "--help-all"]  # whose defaults are shown
    if words[0].startswith("-"):
        preset = next((word for word in words if word in table), "PRESET")
        rest = " ".join(word for word in words if word != preset)
        raise UsageError(f"{verb}: the preset comes first, then the options: maekit {verb} {preset} {rest}")
    default = presets.find(table, kind, words[0])
    description = cleandoc(table[words[0]].__doc__ or "") if words[0] in table else _summary(verb)
    return parse(kind, words[1:], command_of(verb, words[0], description), default)


def _presets_help(verb: str, table: dict[str, Callable[[], Any]], kind: type[Any]) -> str:
    described = {name: presets.summary(preset) for name, preset in table.items()}
    options = options_of(kind, next(iter(table.values()))(), ALSO.get(verb))
    return short_help.of_presets(verb, _summary(verb), described, options)


def _summary(verb: str) -> str:
    return str(VERBS[verb].__doc__).partition("\n")[0]


def _overview() -> str:
    lines = "\n".join(f"  {name:<13}{_summary(name)}" for name in VERBS)
    return (
        "usage: maekit VERB ...\n\nMasked autoencoders, from a folder of images to a good encoder.\n\n"
        "examples:\n  maekit demo\n  maekit data photos\n\n"
        f"verbs:\n{lines}\n\n"
        "for every verb:\n"
        "  --help       its common options and an example\n"
        "  --help-all   every option it has\n"
        "  --json       the answer as one JSON object, the last line of standard output\n"
        "  --debug      the whole traceback of an error\n\n"
        "exit codes: 0 done, 1 failed, 2 bad usage, 75 stopped by a signal after saving (continue with --resume)"
    )


def entry() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    entry()
