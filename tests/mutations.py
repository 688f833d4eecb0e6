"""Valid files of every format maekit reads, what mutates them, what reads them. The fault campaign uses these too."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import tifffile
import torch
import yaml
from PIL import Image

from maekit import presets, storage
from maekit.config import PretrainConfig, files
from maekit.data.decode import decode
from maekit.data.sources import open_source
from maekit.data.sources.shards import INDEX_SUFFIX
from maekit.errors import ImageError, MaekitError
from maekit.weights import stored

REPLACE, FLIP, CUT, DELETE, INSERT = KINDS = ("replace", "flip", "cut", "delete", "insert")
Edit = tuple[str, float, bytes]
"""What happens, where (a share of the file's length), and bytes to do it with."""


def mutated(data: bytes, edits: Sequence[Edit]) -> bytes:
    """The file after some edits, in order."""
    content = bytearray(data)
    for kind, share, fill in edits:
        place = int(share * len(content))
        if kind == REPLACE:
            content[place : place + 1] = fill[:1]
        elif kind == FLIP:
            content[place : place + 1] = bytes(byte ^ 1 << fill[0] % 8 for byte in content[place : place + 1])
        elif kind == CUT:
            del content[place:]
        elif kind == DELETE:
            del content[place : place + len(fill)]
        else:
            content[place:place] = fill
    return bytes(content)


@dataclass(frozen=True)
class Format:
    """name: of the file. make: a valid one, given a folder for what belongs beside it. read: all that maekit reads."""

    name: str
    make: Callable[[Path], bytes]
    read: Callable[[Path], object]

    def survives(self, path: Path, data: bytes) -> bool:
        """Whether the file is taken rather than refused. Anything but a MaekitError of one line comes through."""
        path.write_bytes(data)
        try:
            self.read(path)
        except MaekitError as error:
            if not str(error) or "\n" in str(error):
                raise AssertionError(f"is no line: {str(error)!r}") from error
            return False
        return True


def waves(height: int = 48, width: int = 64) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([np.sin(rows / 5 + columns / (7 + channel)) for channel in range(3)], -1)
    return Image.fromarray(((values + 1) * 127).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _picture(name: str, kind: str, change: Callable[[Image.Image], Image.Image] = lambda image: image, **options):
    return Format(name, lambda _: encode(change(waves()), kind, **options), lambda path: decode(path.read_bytes(), 3))


def _deep() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (24, 24, 5), dtype=np.uint16)


def _npy(_: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, _deep())
    return buffer.getvalue()


def _tiff_of_many_channels(_: Path) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, _deep(), photometric="minisblack", planarconfig="contig", compression="zlib")
    return buffer.getvalue()


IMAGES = (
    _picture("a.jpg", "JPEG"),
    _picture("progressive.jpg", "JPEG", progressive=True, quality=30),
    _picture("cmyk.jpg", "JPEG", lambda image: image.convert("CMYK")),
    _picture("a.png", "PNG"),
    _picture("palette.png", "PNG", lambda image: image.quantize(30), transparency=3),
    _picture("sixteen.png", "PNG", lambda _: Image.fromarray(_deep()[..., 0])),
    _picture("a.gif", "GIF", save_all=True, append_images=[waves().rotate(90)]),
    _picture("a.webp", "WEBP"),
    _picture("a.bmp", "BMP"),
    _picture("a.tif", "TIFF"),
    _picture("lzw.tif", "TIFF", compression="tiff_lzw"),
    _picture("a.ppm", "PPM"),
    Format("a.npy", _npy, lambda path: decode(path.read_bytes(), 5)),
    Format("five-channels.tif", _tiff_of_many_channels, lambda path: decode(path.read_bytes(), 5)),
)


def _read_source(path: Path) -> None:
    """Open a source, and look at everything it has; images that cannot be read are its reader's business."""
    source = open_source(str(path))
    source.fingerprint()
    for index in range(min(len(source), 20)):
        source.path(index)
        source.label(index)
        try:
            source.read(index)
        except ImageError:
            continue


def _read_weights(path: Path) -> None:
    stored.read(path).tensors()


def _list(folder: Path) -> bytes:
    (folder / "a, b.png").write_bytes(encode(waves(), "PNG"))
    return b"path,label\na, b.png, 1\nmissing.png, 0\n\n/absolute/x.jpg, 12\n"


def _config(_: Path) -> dict[str, object]:
    return files.to_dict(presets.PRETRAIN["vit-tiny"]())


def _tar(_: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(4):
            for name, data in ((f"{number}.png", encode(waves(8, 8), "PNG")), (f"{number}.json", b'{"label": 1}')):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _read_shard(path: Path) -> None:
    path.with_name(path.name + INDEX_SUFFIX).unlink(missing_ok=True)
    _read_source(path)


def _tar_index(folder: Path) -> bytes:
    (folder / "b.tar").write_bytes(_tar(folder))
    open_source(str(folder / "b.tar"))
    return (folder / f"b.tar{INDEX_SUFFIX}").read_bytes()


def _parquet(_: Path) -> bytes:
    images = [{"bytes": encode(waves(8, 8), "PNG"), "path": f"{number}.png"} for number in range(6)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 3}), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


_TENSORS = {"weight": torch.arange(12.0).view(3, 4), "bias": torch.zeros(3)}


def _safetensors(_: Path) -> bytes:
    return safetensors.torch.save(_TENSORS, {"maekit": json.dumps({"kind": "mae"})})


def _pt(_: Path, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": _TENSORS, "epoch": 3}, buffer, **options)
    return buffer.getvalue()


def _manifest(folder: Path) -> bytes:
    storage.write_folder(folder / "checkpoint", {"model": _TENSORS}, {"step": 3})
    (folder / "model.safetensors").write_bytes((folder / "checkpoint" / "model.safetensors").read_bytes())
    return (folder / "checkpoint" / "manifest.json").read_bytes()


OTHERS = (
    Format("list.txt", _list, _read_source),
    Format(
        "config.yaml", lambda path: yaml.dump(_config(path)).encode(), lambda path: files.read(PretrainConfig, path)
    ),
    Format(
        "config.json", lambda path: json.dumps(_config(path)).encode(), lambda path: files.read(PretrainConfig, path)
    ),
    Format("a.tar", _tar, _read_shard),
    Format(f"b.tar{INDEX_SUFFIX}", _tar_index, lambda path: _read_source(path.with_name("b.tar"))),
    Format("a.parquet", _parquet, _read_source),
    Format("a.safetensors", _safetensors, _read_weights),
    Format("a.pt", _pt, _read_weights),
    Format("legacy.pth", lambda path: _pt(path, _use_new_zipfile_serialization=False), _read_weights),
    Format("manifest.json", _manifest, lambda path: storage.read_facts(path.parent)),
)
FORMATS = {form.name: form for form in (*IMAGES, *OTHERS)}
