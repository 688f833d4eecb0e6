"""Models as fixed graphs: what is exported, and how, as ONNX or as torch.export's program.

Inputs are standardised images of the model's own size (mean and std stand in the metadata); the number of images is
free. The reconstructor also takes `visible`, the numbers of the patches that it sees, of any count: a sort of random
numbers inside the graph, or a count baked into it, would go wrong without a word.

Legend: N images, C channels, H W pixels, L patches, V visible, K prefix tokens, D width, P values of a patch,
Y classes.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maekit import storage
from maekit.errors import WeightsError
from maekit.models.classifier import Classifier
from maekit.models.decoder import SelfDecoder
from maekit.models.family import Shown
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native

_LARGEST_ONNX = 1_900_000_000  # bytes of tensors; beyond, they stand in a second file, as one may hold 2 GiB


class EncoderGraph(nn.Module):
    """images [N, C, H, W] → pooled [N, D], tokens [N, K + L, D]."""

    inputs, outputs = ("images",), ("pooled", "tokens")

    def __init__(self, model: native.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.model.family.encode(self.model.encoder, images)
        return latents.patches.mean(dim=1), latents.tokens


class ClassifierGraph(nn.Module):
    """images [N, C, H, W] → logits [N, Y]."""

    inputs, outputs = ("images",), ("logits",)

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class ReconstructorGraph(nn.Module):
    """images [N, C, H, W], visible [N, V] int64 → prediction [N, L, P], meant where a patch is not visible.

    Which patches are hidden follows from `visible`, but listing them takes a sort. So all L patches are predicted, with
    mask tokens where nothing is seen: attention is blind to order, and hidden patches get what the model gives them.
    """

    inputs, outputs = ("images", "visible"), ("prediction",)

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__()
        self.model = model
        self.patches = model.grid[0] * model.grid[1]

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        model, decoder = self.model, self.model.decoder
        every = torch.arange(self.patches, device=images.device).expand(images.shape[0], -1)
        masked = torch.ones_like(every, dtype=torch.bool).scatter(1, visible, False)
        shown = Shown(images, masked, visible, getattr(decoder, "maps", ()))
        latents = model.family.encode_visible(model.encoder, model.adapter, shown)
        if not isinstance(decoder, SelfDecoder):
            return decoder(latents, every)
        assert latents.index is not None
        prefix = latents.prefix
        tokens = decoder.embed(latents.tokens)
        places = latents.index[:, :, None].expand(-1, -1, tokens.shape[2])
        grid = decoder.mask_token.expand(images.shape[0], self.patches, -1).scatter(1, places, tokens[:, prefix:])
        tokens = torch.cat([tokens[:, :prefix], grid], dim=1) + decoder.positions
        for block in decoder.blocks:
            tokens = block(tokens)
        return decoder.head(tokens[:, prefix:])


Graph = EncoderGraph | ClassifierGraph | ReconstructorGraph


def graph_of(model: native.Model) -> Graph:
    """The graph of the whole of a model, in eval mode.

    Raises WeightsError for a Hiera or a packed Swin with its decoder: traced, they keep the numbers of the example.
    """
    if isinstance(model, MaskedAutoencoder):
        family = model.family.name
        if family == "hiera" or (family == "swin" and not model.family.dense(model.config)):
            raise WeightsError(
                f"{model.config.encoder}: a graph of it with its decoder would take one number of images or patches "
                "alone; --part encoder leaves the decoder out"
            )
        return ReconstructorGraph(model).eval()
    return (ClassifierGraph(model) if isinstance(model, Classifier) else EncoderGraph(model)).eval()


def example(graph: Graph, images: int, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of noise for so many images; a reconstructor sees a share that differs with that number."""
    config = graph.model.config
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, config.channels, *config.image_hw, generator=generator)
    if not isinstance(graph, ReconstructorGraph):
        return (noise,)
    scores = torch.rand(images, graph.patches, generator=generator)
    count = max(1, graph.patches // (2 + images))
    return noise, scores.argsort(dim=1)[:, :count].sort(dim=1).values


def metadata(graph: Graph) -> dict[str, str]:
    """What a user of the graph needs beside it: standardisation, classes, patches; values are JSON."""
    mean, std = graph.model.standardise.values()
    facts: dict[str, Any] = {"mean": mean, "std": std, "input": "pixels in [0, 1], less mean, divided by std"}
    if graph.model.crop_share is not None:
        facts["crop_share"] = graph.model.crop_share
    if graph.model.value_range is not None:
        facts["value_range"] = graph.model.value_range
        facts["input"] = "stored values, value_range to [0, 1] and clipped, less mean, divided by std"
    if isinstance(graph, ClassifierGraph):
        facts["classes"] = graph.model.classes
    if isinstance(graph, ReconstructorGraph):
        facts |= {
            "patch": graph.model.patch,
            "grid": graph.model.patch_grid,
            "patch_order": "row, column, channel",
            "target": graph.model.target.kind,
        }
    return {name: json.dumps(value) for name, value in facts.items()} | native.metadata(graph.model)


def save_onnx(graph: Graph, path: Path) -> None:
    """Write the graph as ONNX. Raises WeightsError where it cannot be traced or packages are missing, StorageError."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise WeightsError("--to onnx: needs packages that are not installed: pip install 'maekit[export]'") from None
    with _explained("onnx", graph), _plain_attention(graph):
        program = torch.onnx.export(
            graph,
            example(graph, 3),
            dynamo=True,
            dynamic_shapes=_free_sizes(graph),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(metadata(graph))
    external = sum(t.numel() * t.element_size() for t in graph.state_dict().values()) > _LARGEST_ONNX
    with _replacing(path) as temporary:
        program.save(temporary, external_data=external)


def save_torch_export(graph: Graph, path: Path) -> None:
    """Write the graph as torch.export's program; metadata is the extra file maekit.json. Raises as `save_onnx`."""
    with _explained("torch-export", graph):
        program = torch.export.export(graph, example(graph, 3), dynamic_shapes=_free_sizes(graph))
    with _replacing(path) as temporary:
        torch.export.save(program, temporary, extra_files={"maekit.json": json.dumps(metadata(graph))})


def _free_sizes(graph: Graph) -> dict[str, dict[int, torch.export.Dim]]:
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} for name in graph.inputs}
    if isinstance(graph, ReconstructorGraph):
        shapes["visible"][1] = torch.export.Dim("count", max=graph.patches)
    return shapes


@contextmanager
def _explained(layout: str, graph: Graph) -> Iterator[None]:
    """Tracing without the tracer's remarks, and its failure in one line."""
    tracer = logging.getLogger("torch")
    level = tracer.level
    tracer.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # the tracer raises what the traced code and its own passes raise
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        other = "; --part encoder leaves the decoder out" if isinstance(graph, ReconstructorGraph) else ""
        raise WeightsError(f"--to {layout}: this model cannot be traced ({reason[:200]}){other}") from None
    finally:
        tracer.setLevel(level)


@contextmanager
def _plain_attention(graph: Graph) -> Iterator[None]:
    """timm's attention in matrix products: ONNX's own takes four dimensions, and Hiera's has five."""
    fused: list[Any] = [module for module in graph.modules() if getattr(module, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path of the same name in a folder of its own, whose files take their places when the block ends well."""
    with storage.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            yield Path(folder) / path.name
            for written in Path(folder).iterdir():
                written.replace(path.parent / written.name)
