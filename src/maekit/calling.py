"""How a function takes a verb's options: each as a parameter, from one definition, with the command line's answers."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from inspect import Parameter, Signature
from inspect import signature as signature_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, get_type_hints, overload

from maekit.config.arguments import Command
from maekit.config.keywords import configured
from maekit.errors import UsageError
from maekit.presets.verbs import ALSO, documented, documented_common, options_by_verb
from maekit.results import Reconstructed

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.models.mae import MaskedAutoencoder
    from maekit.targets import Statistics

P = ParamSpec("P")
Options = TypeVar("Options")
R = TypeVar("R")


def command_of(verb: str, preset: str = "", description: str = "") -> Command:
    """What help, and the answers to mistakes, have to know of a verb."""
    return Command(verb, f"maekit {verb} {preset}".strip(), description, ALSO.get(verb, {}), options_by_verb)


def takes(kind: Callable[P, Options]) -> Callable[[Callable[[Options], R]], Callable[P, R]]:
    """Decorator: a function of options becomes one with each of them as a parameter, the first ones by place."""
    options = cast("type[Options]", kind)

    def decorate(work: Callable[[Options], R]) -> Callable[P, R]:
        signature = Signature(_parameters(options), return_annotation=get_type_hints(work)["return"])

        @wraps(work)
        def verb(*arguments: P.args, **named: P.kwargs) -> R:
            placed = signature.bind_partial(*arguments).arguments
            if twice := placed.keys() & named.keys():
                raise UsageError(f"{twice.pop()}: is given twice, by its place and by its name")
            given = configured(options, {**placed, **named}, command_of(work.__name__))
            with to_terminal():
                return work(given)

        verb.__signature__ = signature  # type: ignore[attr-defined]
        verb.__doc__ = f"{work.__doc__}\n{documented(options)}"
        return verb

    return decorate


def lists_common(verb: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the docstring of a training lists the options that have a short name."""
    verb.__doc__ = f"{verb.__doc__}\n{documented_common(verb.__name__)}"
    return verb


def _parameters(options: type[Any]) -> list[Parameter]:
    """Of a class of options, in the order of its help."""
    types, parameters = get_type_hints(options), signature_of(options).parameters
    ordered = sorted(fields(options), key=lambda field: field.kw_only is True)
    return [parameters[field.name].replace(annotation=types[field.name]) for field in ordered]


class Both(Protocol[P]):
    """`reconstruct`, of tensors and of files."""

    @overload
    def __call__(self, *arguments: P.args, **named: P.kwargs) -> Reconstructed: ...
    @overload
    def __call__(
        self, model: "MaskedAutoencoder", images: "Tensor", masked: "Tensor", *, statistics: "Statistics" = "visible"
    ) -> "Tensor": ...


def or_of_tensors(of_files: Callable[P, Reconstructed]) -> Both[P]:
    """Decorator: the function of files, and where it is given a mask as a tensor, that of tensors."""

    @wraps(of_files)
    def reconstruct(*arguments: Any, **named: Any) -> Any:
        if len(arguments) < 3 and "masked" not in named:
            return of_files(*arguments, **named)
        from maekit.inference.reconstruct import reconstruct as of_tensors
        from maekit.weights.load import load

        model, *rest = arguments or (named.pop("model"),)
        return of_tensors(cast("Any", load(model) if isinstance(model, str | Path) else model), *rest, **named)

    return cast("Both[P]", reconstruct)


def to_terminal() -> Any:
    """Inside the block, progress and log lines go to standard error; torch is loaded for it."""
    from maekit.engine.progress import log_to_terminal

    return log_to_terminal()
