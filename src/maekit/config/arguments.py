"""From the words of a command line to a config; whatever is wrong becomes one line."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from maekit.config import beforehand, files, together, unknown
from maekit.config import help as short_help
from maekit.config.options import Option, options_of
from maekit.config.words import Words
from maekit.errors import UsageError

T = TypeVar("T")

# Naming the first clears the second: both would say how long, how fast, or from how many images the run learns.
RIVALS: dict[str, tuple[str, Any]] = {
    "schedule.epochs": ("schedule.steps", None),
    "optimizer.base_lr": ("optimizer.lr", None),
    "validation.split": ("validation.source", ""),
    "validation.source": ("validation.split", None),
    "images": ("data.source", ""),
}


@dataclass(frozen=True)
class Command:
    """What is typed before the options, and what help and suggestions need to know of it.

    prog: `maekit VERB [PRESET]`. also: further names of options, each with the one it stands for. others: the
    options of every verb, for those that are typed at the wrong one.
    """

    verb: str
    prog: str
    description: str
    also: dict[str, str] = field(default_factory=dict)
    others: Callable[[], Mapping[str, list[Option]]] = dict


def parse(kind: type[T], words: list[str], command: Command, default: T | None = None) -> T:
    """A config of class `kind` from command-line words, over `default` where there is one.

    `--help` prints the common options, `--help-all` every one; both leave through SystemExit(0). Raises UsageError, one
    line, for everything else.
    """
    options = options_of(kind, default, command.also)
    if "--help-all" in words:
        import tyro  # a tenth of a second that only this help costs

        over: dict[str, Any] = {} if default is None else {"default": default}
        tyro.cli(kind, args=["--help"], prog=command.prog, description=command.description, **over)
    if {"-h", "--help"} & set(words):
        print(short_help.short(command.verb, command.prog, command.description, options))
        raise SystemExit(0)
    found = Words(words, options)
    called = {path: name for path, (name, _) in found.values.items()}
    refuse(found.unknown, called, options, command, kind if default is None else default, words)
    paths = {option.path: option for option in options}
    given = {path: paths[path].value(name, said) for path, (name, said) in found.values.items()}
    return made(kind, given, options, called, default, names=called if default is None else {})


def refuse(
    none: list[tuple[str, str | None]],
    given: Mapping[str, Any],
    options: list[Option],
    command: Command,
    config: Any,
    words: list[str],
) -> None:
    """Raises UsageError for options that are `none`, and for one that has to be given and is not.

    given: by path. config: one of the verb's, or its class.
    """
    if none:
        asked = unknown.Asked(command.verb, command.prog, words, together.offered(options, config), command.others)
        raise UsageError(unknown.explain(none, asked))
    for option in options:
        if option.required and option.path not in given:
            meaning = short_help.first_sentence(short_help.help_of(option))
            raise UsageError(f"{option.name} is missing: {meaning}")


def made(
    kind: type[T],
    given: Mapping[str, Any],
    options: list[Option],
    called: Mapping[str, str],
    default: T | None,
    names: Mapping[str, str] | None = None,
) -> T:
    """The config with what is given, by path, in the default's place. Raises UsageError where that does not fit.

    called: what each option that is given is called; names: the same where a value is wrong, if it is not its path.
    """
    paths = {option.path for option in options}
    cleared = {
        rival: nothing for path, (rival, nothing) in RIVALS.items() if given.get(path) is not None and rival in paths
    }
    whole = {} if default is None else asdict(default)  # type: ignore[call-overload]
    for path, value in {**cleared, **given}.items():
        *groups, last = path.split(".")
        place = whole
        for group in groups:
            place = place[group]
        place[last] = value
    config = files.from_dict(kind, whole, names=names)
    together.refuse_unheeded(config, called)
    beforehand.check_files(config)
    return config
