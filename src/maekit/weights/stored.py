"""Weights as they lie on the disk: names and shapes first, tensors when asked for.

Everything but the tensors of a .safetensors file is known without torch, so that a look at weights is instant.
"""

import json
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.errors import WeightsError
from maekit.weights import header

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

FACTS = "maekit"
"""Entry, in the metadata of a file that maekit wrote in whatever layout, of the model's description as JSON."""

INDEX = "model.safetensors.index.json"
FILES = ("model.safetensors", INDEX, "pytorch_model.bin")
"""What a folder's weights may be called, the preferred name first."""

_CONTAINERS = ("model", "state_dict")
_SHORT = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float64": "F64"}
_GRAPHS = (".onnx", ".pt2")
_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


@dataclass(frozen=True)
class Stored:
    """A file of weights, or several that belong together.

    shapes: by tensor name, wrappers' prefixes removed. dtypes: number formats in safetensors' words. metadata: the
    strings kept beside the tensors. config, preprocessing: config.json and preprocessor_config.json next to the file;
    arguments: the command line that a training script kept in it. container: the entry of a pickled dictionary that
    held the tensors, or empty.
    """

    path: Path
    shapes: dict[str, Shape]
    dtypes: frozenset[str]
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    container: str = ""
    files: tuple[Path, ...] = ()
    _prefix: str = ""
    _loaded: "dict[str, Tensor] | None" = None

    def tensors(self) -> "dict[str, Tensor]":
        """All tensors, on the CPU, under the names in `shapes`. Raises StorageError."""
        if self._loaded is not None:
            return dict(self._loaded)
        from maekit.storage import read_tensors  # brings torch

        tensors = {name: tensor for path in self.files for name, tensor in read_tensors(path).items()}
        return {name.removeprefix(self._prefix): tensor for name, tensor in tensors.items()}

    def count(self, ignored: Collection[str] = ()) -> int:
        """How many numbers the tensors hold, but those ignored."""
        return sum(prod(shape) for name, shape in self.shapes.items() if name not in ignored)


def read(path: Path) -> Stored:
    """What the file at `path` holds. Raises WeightsError where it is neither .safetensors nor a file of tensors."""
    is_safetensors = path.name == INDEX or path.suffix == ".safetensors"
    if path.suffix in (".npz", ".npy", ".parquet"):
        raise WeightsError(f"{path}: holds arrays, such as the features that `maekit embed` writes, and no weights")
    if path.suffix in _GRAPHS:
        raise WeightsError(f"{path}: is an exported graph, which maekit does not read; take what it was made from")
    found = _read_safetensors(path) if is_safetensors else _read_pickled(path)
    config, preprocessing = _beside(path)
    return replace(found, config=config, preprocessing=preprocessing)


def _read_safetensors(path: Path) -> Stored:
    files = tuple(_shards(path)) if path.name == INDEX else (path,)
    heads = [header.read(file) for file in files]
    shapes = {name: shape for head in heads for name, shape in head.shapes.items()}
    prefix = _wrapper(shapes)
    return Stored(
        path=path,
        shapes={name.removeprefix(prefix): shape for name, shape in shapes.items()},
        dtypes=frozenset(dtype for head in heads for dtype in head.dtypes.values()),
        metadata=heads[0].metadata,
        files=files,
        _prefix=prefix,
    )


def _read_pickled(path: Path) -> Stored:
    from maekit.weights import pickled  # brings torch

    content = pickled.read(path)
    container, tensors = _state_dict(content, path)
    rest = content if container else {}
    arguments = rest.get("args")
    prefix = _wrapper(tensors)
    return replace(
        of_tensors(path, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}),
        metadata={name: value for name, value in rest.items() if isinstance(value, str)},
        arguments=vars(arguments) if isinstance(arguments, Namespace) else {},
        container=container,
        files=(path,),
    )


def of_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> Stored:
    """What is in memory already, as if a file held it."""
    return Stored(
        path=path,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        dtypes=frozenset(_SHORT.get(str(tensor.dtype), str(tensor.dtype)) for tensor in tensors.values()),
        metadata=metadata or {},
        _loaded=tensors,
    )


def _state_dict(content: Any, path: Path) -> "tuple[str, dict[str, Tensor]]":
    """The dictionary of tensors in what was unpickled, and the entry it stood under."""
    from torch import Tensor

    def is_state_dict(value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and bool(value)
            and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
        )

    if is_state_dict(content):
        return "", dict(content)
    if isinstance(content, Mapping):
        for name in _CONTAINERS:
            if is_state_dict(content.get(name)):
                return name, dict(content[name])
    raise WeightsError(f"{path}: holds no dictionary of tensors, neither plain nor under {' or '.join(_CONTAINERS)}")


def _wrapper(names: Mapping[str, Any]) -> str:
    """The prefixes that wrappers put before all names, or nothing."""
    prefix = ""
    while names:
        found = [w for w in _WRAPPERS if all(name.startswith(prefix + w) for name in names)]
        if not found:
            break
        prefix += found[0]
    return prefix


def _shards(index: Path) -> Iterator[Path]:
    names = _json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise WeightsError(f"{index}: names no files")
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name:
            raise WeightsError(f"{index}: names a file outside its folder: {name}")
        yield index.parent / name


def _beside(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and preprocessor_config.json of a folder in Hugging Face's or timm's form."""
    if path.name not in FILES:
        return {}, {}
    config = _json(path.parent / "config.json", missing_ok=True)
    if not {"model_type", "architecture"} & config.keys():
        return {}, {}
    return config, _json(path.parent / "preprocessor_config.json", missing_ok=True)


def _json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    if missing_ok and not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: holds no JSON object")
    return values
