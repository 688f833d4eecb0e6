"""The command line: each verb parses, calls a recipe or an inference function, and prints."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable
from difflib import get_close_matches
from inspect import cleandoc
from typing import Any, NoReturn

from maekit import strict_json
from maekit.errors import MaekitError, Stopped, UsageError

Answer = dict[str, Any]


def main(words: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 failed, 2 bad usage, 75 stopped by a signal after saving."""
    words = list(sys.argv[1:] if words is None else words)
    as_json = _take(words, "--json")
    debug = _take(words, "--debug")
    try:
        if words[:1] in (["-h"], ["--help"], ["help"]) and words[1:2] and words[1] in VERBS:
            words = [*words[1:], "--help"]  # as they say it who know git
        if not words or words[0] in ("-h", "--help", "--help-all", "help"):
            print(_overview())
            return 0
        if words[0] == "--version":
            print(_version())
            return 0
        verb = _verb(words[0])
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            answer = verb(words[1:])
        if as_json:
            print(strict_json.dumps(answer))
        return 0
    except MaekitError as error:
        if debug:
            raise
        if as_json and error.answer is not None:
            print(strict_json.dumps(error.answer))
        print(f"maekit: {' '.join(str(error).split())}", file=sys.stderr)
        if isinstance(error, Stopped) and error.run:
            print(f"go on with: {_resuming(words, error.run)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("maekit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


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
    while flag in words:
        words.remove(flag)
    return found


def demo(words: list[str]) -> Answer:
    """The whole story on embedded data: pretrain, judge, fine-tune with few labels, report."""
    from maekit.config.verbs import DemoOptions

    options = _options("demo", words, DemoOptions)

    from maekit.recipes import demo as recipe

    return recipe.run(options)


def data(words: list[str]) -> Answer:
    """Look at images before training: counts, sizes, unreadable files, duplicates, mean and std, speed."""
    from maekit.config.verbs import DataOptions

    options = _options("data", words, DataOptions)

    from maekit.inference import doctor

    return doctor.run(options)


def suggest(words: list[str]) -> Answer:
    """A pretraining command for your images and this machine, with the reasons."""
    from maekit.config.verbs import SuggestOptions

    options = _options("suggest", words, SuggestOptions)

    from maekit.recipes import suggest as recipe

    answer = recipe.run(options)
    print(recipe.text(answer))
    return answer


def pretrain(words: list[str]) -> Answer:
    """Masked pretraining of an encoder, from nothing or continued from weights."""
    from maekit import presets
    from maekit.config import PretrainConfig

    config = _preset_config("pretrain", words, presets.PRETRAIN, PretrainConfig)
    _need(config.data.source, "--data", "the images to pretrain on")
    _check(config)

    from maekit.recipes import pretrain as recipe

    return _done(recipe.run(config))


def probe(words: list[str]) -> Answer:
    """Frozen features judged: nearest neighbours, a linear layer, an attentive query."""
    from maekit.config import ProbeOptions

    options = _options("probe", words, ProbeOptions)
    _need(options.val or options.val_split, "--val", _JUDGED_BY)

    from maekit.recipes import probe as recipe

    return recipe.run(options)


def finetune(words: list[str]) -> Answer:
    """Full or partial fine-tuning of a pretrained encoder as a classifier."""
    from maekit import presets
    from maekit.config import ClassifyConfig

    config = _preset_config("finetune", words, presets.FINETUNE, ClassifyConfig)
    _need(config.weights, "--weights", "the pretrained encoder")
    _need_labelled(config)
    _check(config)

    from maekit.recipes import classify as recipe

    return _done(recipe.finetune(config))


def scratch(words: list[str]) -> Answer:
    """Supervised training from nothing, to compare with."""
    from maekit import presets
    from maekit.config import ClassifyConfig

    config = _preset_config("scratch", words, presets.SCRATCH, ClassifyConfig)
    _need_labelled(config)
    _check(config)

    from maekit.recipes import classify as recipe

    return _done(recipe.scratch(config))


def evaluate(words: list[str]) -> Answer:
    """Top-1, top-5, loss and a per-class table of a classifier."""
    from maekit.config.verbs import EvaluateOptions

    options = _options("evaluate", words, EvaluateOptions)

    from maekit.inference.evaluate import evaluate
    from maekit.report.figures import heat

    return evaluate(options, heat=heat)


def classify(words: list[str]) -> Answer:
    """Predictions with probabilities."""
    from maekit.config.verbs import ClassifyOptions

    options = _options("classify", words, ClassifyOptions)

    from maekit.inference.classify import classify

    return classify(options)


def reconstruct(words: list[str]) -> Answer:
    """Masked, reconstruction and original, side by side."""
    from maekit.config.verbs import ReconstructOptions

    options = _options("reconstruct", words, ReconstructOptions)

    from maekit.inference.reconstruct import reconstruct_files

    return reconstruct_files(options)


def embed(words: list[str]) -> Answer:
    """Features of images, to a file."""
    from maekit.config.verbs import EmbedOptions

    options = _options("embed", words, EmbedOptions)

    from maekit.inference.embed import embed

    return embed(options)


def inspect(words: list[str]) -> Answer:
    """What a checkpoint holds, what it can do, and what it cannot and why."""
    from maekit.config.verbs import InspectOptions

    options = _options("inspect", words, InspectOptions)
    if options.config:
        from maekit import presets
        from maekit.config import PretrainConfig

        presets.find(presets.PRETRAIN, PretrainConfig, options.config)

    from maekit.inference.inspect import inspect

    return inspect(options)


def convert(words: list[str]) -> Answer:
    """Write weights in another layout."""
    from maekit.config.verbs import ConvertOptions

    options = _options("convert", words, ConvertOptions)

    from maekit.inference.convert import convert

    return convert(options)


VERBS: dict[str, Callable[[list[str]], Answer]] = {
    "demo": demo,
    "data": data,
    "suggest": suggest,
    "pretrain": pretrain,
    "probe": probe,
    "finetune": finetune,
    "scratch": scratch,
    "evaluate": evaluate,
    "classify": classify,
    "reconstruct": reconstruct,
    "embed": embed,
    "inspect": inspect,
    "convert": convert,
}


def _done(answer: Answer) -> Answer:
    """Say in a line where a run is and how it ended."""
    values = [
        f"{name} {'not finite' if value is None else f'{value:.4g}'}"
        for name, value in answer.items()
        if name == "loss" or name.startswith("val_")
    ]
    if answer["run"] is not None:  # other ranks say nothing
        print(f"done: {answer['run']}  {'  '.join(values)}  see {answer['run']}/report.html")
    return answer


def _verb(name: str) -> Callable[[list[str]], Answer]:
    if name in VERBS:
        return VERBS[name]
    close = get_close_matches(name, list(VERBS), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no verb {name!r}: {hint}there are {', '.join(VERBS)}")


def _options(verb: str, words: list[str], kind: type[Any]) -> Any:
    from maekit.config.arguments import Command, parse

    return parse(kind, words, Command(verb, f"maekit {verb}", VERBS[verb].__doc__ or "", others=_options_by_verb))


def _preset_config(verb: str, words: list[str], table: dict[str, Callable[[], Any]], kind: type[Any]) -> Any:
    """The config of `maekit VERB PRESET --options`."""
    from maekit import presets
    from maekit.config.arguments import Command, parse

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
    description = cleandoc((table[words[0]] if words[0] in table else VERBS[verb]).__doc__ or "")
    command = Command(verb, f"maekit {verb} {words[0]}", description, _ALSO.get(verb, {}), _options_by_verb)
    return parse(kind, words[1:], command, default)


def _presets_help(verb: str, table: dict[str, Callable[[], Any]], kind: type[Any]) -> str:
    from maekit import presets
    from maekit.config import help as short_help
    from maekit.config.options import options_of

    described = {name: presets.summary(preset) for name, preset in table.items()}
    options = options_of(kind, next(iter(table.values()))())
    return short_help.of_presets(verb, VERBS[verb].__doc__ or "", described, options, _ALSO.get(verb, {}))


_ALSO = {"finetune": {"--image-size": "--classifier.image-size"}}  # scratch has it in its model


def _options_by_verb() -> dict[str, Any]:
    from maekit.presets.verbs import options_by_verb

    found = options_by_verb()
    return {verb: found[verb] for verb in VERBS}


_JUDGED_BY = "labelled images to judge by; or hold some out: --val-split 0.1"


def _need_labelled(config: Any) -> None:
    _need(config.data.source, "--data", "labelled images to train on")
    _need(config.validation.source or config.validation.split, "--val", _JUDGED_BY)


def _check(config: Any) -> None:
    from maekit.config.beforehand import check_training

    check_training(config, int(os.environ.get("WORLD_SIZE", "1")))


def _need(value: str | float | None, option: str, meaning: str) -> None:
    if not value:
        raise UsageError(f"{option} is missing: {meaning}")


def _overview() -> str:
    lines = "\n".join(f"  {name:<13}{(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items())
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


def _version() -> str:
    from importlib.metadata import version

    return f"maekit {version('maekit')}"


def entry() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    entry()
