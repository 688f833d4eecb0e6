"""Weights in one layout, written in another; a graph is run beside the model before it is believed."""

import logging
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from maekit.config.beforehand import check_conversion
from maekit.config.verbs import ConvertOptions
from maekit.errors import WeightsError
from maekit.models.classifier import Classifier
from maekit.models.mae import MaskedAutoencoder
from maekit.results import Converted
from maekit.sections import Text
from maekit.weights import export, native
from maekit.weights.export import Graph
from maekit.weights.facebook import FACEBOOK
from maekit.weights.hub import push
from maekit.weights.huggingface import HUGGINGFACE
from maekit.weights.load import load
from maekit.weights.native import Model
from maekit.weights.timm import TIMM

log = logging.getLogger("maekit")

_SUFFIX = ".safetensors"
_WRITERS: dict[str, Callable[[Model, Path], None]] = {
    "maekit": lambda model, path: native.save(model, path if path.suffix == _SUFFIX else path / f"model{_SUFFIX}"),
    "timm": TIMM.write,
    "huggingface": HUGGINGFACE.write,
    "facebook": FACEBOOK.write,
}
_GRAPHS: dict[str, Callable[[Graph, Path], None]]
_GRAPHS = {"onnx": export.save_onnx, "torch-export": export.save_torch_export}
_BATCHES = (1, 2, 5)
_TOLERANCE = 1e-4
_PAPER_EPS = 1e-6


def convert(options: ConvertOptions) -> Converted:
    """`maekit convert`: read W, write it as the options say; graphs are compared with the model.

    Raises UsageError for a name that belies its content, WeightsError where W cannot be read or the layout has no place
    for what it holds, StorageError.
    """
    path = Path(options.out).expanduser()
    check_conversion(options)
    decoder = options.part != "encoder" and (options.part, options.to) != ("auto", "timm")
    model = _part(load(options.weights, options, decoder=decoder), options)
    difference = None
    if options.to in _GRAPHS:
        graph = export.graph_of(model)
        _GRAPHS[options.to](graph, path)
        try:
            difference = _compare(graph, path, options.to)
        except WeightsError:  # what is not the model stays out of reach, with the file of its larger tensors
            for written in (path, path.with_name(f"{path.name}.data")):
                written.unlink(missing_ok=True)
            raise
    else:
        _WRITERS[options.to](model, path)
        _say_what_is_lost(model, options.to)
    pushed = push(path, options.push) if options.push else None
    said = f"{path}: {_name(model)} in {options.to} layout"
    said += "" if difference is None else f", checked: {difference:.1g} at most from the model"
    said += "" if pushed is None else f", pushed to {pushed}"
    told = {"out": str(path), "to": options.to, "part": _name(model)}
    return Converted(**told, difference=difference, pushed=pushed, sections=[Text(said)])


def _say_what_is_lost(model: Model, layout: str) -> None:
    if model.config.channel_tokens and layout == "timm":
        shape = "x".join(map(str, model.config.seen))
        log.warning("channel_tokens: timm's model takes images of %s, images.flatten(1, 2)[:, None]", shape)
    if model.config.stem == "conv" and layout == "timm":
        log.warning("stem conv: timm.create_model builds it with embed_layer=maekit.models.stem.ConvStem")
    eps = model.config.norm_eps
    if layout in ("timm", "facebook") and eps not in (None, _PAPER_EPS):
        log.warning("norm_eps: this model adds %g, %s's code %g; outputs will differ a little", eps, layout, _PAPER_EPS)


def _part(model: Model, options: ConvertOptions) -> Model:
    part = options.part
    if part in ("auto", _name(model)):
        return model
    if part == "encoder":
        return native.encoder_of(model)
    raise WeightsError(f"--part {part}: {options.weights} holds no {part} but {_name(model)} alone")


def _name(model: Model) -> str:
    if isinstance(model, MaskedAutoencoder):
        return "reconstructor"
    return "classifier" if isinstance(model, Classifier) else "encoder"


def _compare(graph: Graph, path: Path, layout: str) -> float:
    """The largest difference between a written graph and the model, over several sizes of batch.

    Raises WeightsError where it is beyond float32's noise, or the graph does not take so many images.
    """
    run = _onnx_runner(path) if layout == "onnx" else torch.export.load(path).module()
    largest = 0.0
    for images in _BATCHES:
        inputs = export.example(graph, images, seed=images)
        try:
            with torch.no_grad():
                expected, found = _tuple(graph(*inputs)), _tuple(run(*inputs))
        except Exception as error:  # of the runtime's own kinds
            raise WeightsError(
                f"--to {layout}: the graph does not take {images} images, so it is not kept ("
                f"{shorten(str(error), 120, placeholder=' ...')})"
            ) from None
        for one, other in zip(expected, found, strict=True):
            scale = max(1.0, float(one.abs().max()))
            largest = max(largest, float((one - other).abs().max()) / scale)
    if not largest < _TOLERANCE:
        raise WeightsError(f"--to {layout}: the graph differs from the model by {largest:.3g}, so it is not kept")
    return largest


def _onnx_runner(path: Path) -> Callable[..., tuple[torch.Tensor, ...]]:
    try:
        import onnxruntime
    except ImportError:
        raise WeightsError(
            "--to onnx: what is written is checked by onnxruntime: pip install 'maekit[export]'"
        ) from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in session.run(None, arrays))

    return run


def _tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
