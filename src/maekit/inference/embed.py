"""Features of a source's images, to a file; what is held in memory does not grow with the features.

Legend: N images, T tokens, D feature width, Y classes.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from maekit import storage
from maekit.config.verbs import EmbedOptions
from maekit.data.sources import Source, Space, open_source
from maekit.data.sources.elsewhere import some_of
from maekit.engine.distributed import World
from maekit.inference import picture
from maekit.inference.colours import drawn
from maekit.inference.features import Features, stream
from maekit.inference.one_pass import any_unreadable, one_pass, printable, require_finite, seen_by, skipped, together
from maekit.models.encoder import ImageEncoder
from maekit.results import Embedded
from maekit.sections import Picture, Section, Text
from maekit.weights.load import load

_ROW_GROUP_BYTES = 1 << 25
_PATHS_AT_ONCE = 4096
_COPIED_AT_ONCE = 1 << 22
_PICTURED = 6  # images


Add = Callable[[Features], None]
"""Takes features batch by batch."""


def embed(options: EmbedOptions) -> Embedded:
    """`maekit embed`: write path, label and vector of every readable image.

    vector: [D] float32, or [T, D] for patches; label: -1 in .npz and null in .parquet where there is none. The classes'
    names, in label order, are the array `classes` of the .npz and JSON under `classes` in the metadata of the .parquet.
    The file is whole or not there. Raises ModelError for a class token that the encoder lacks.
    """
    out = Path(options.out)
    writing = {".npz": npz, ".parquet": parquet}[out.suffix.lower()]
    storage.check_writable(out)
    if options.picture:
        picture.check_writable(Path(options.picture))
    model = load(options.weights, options, decoder=False)
    with together(options.device) as world:
        space = Space.within(options.cache_limit)
        source = world.patiently(lambda: open_source(options.data, options.image_column, space))
        bad = any_unreadable(source)
        batches = one_pass(source, model.to(world.device), options, bad, world)
        features = _finite(stream(model, batches, options.tokens, blocks=options.blocks), options.weights)
        images = width = 0
        with ExitStack() as open_now:
            if world.is_first:
                add = open_now.enter_context(writing(open_now.enter_context(storage.replacing(out)), source))
            for part in _in_order(features, out, world):
                add(part)
                images, width = images + len(part.labels), part.vectors.shape[-1]
            bad.share(world.gather)
        images, width = world.tell((images, width))
        shown = _pictured(model, source, options) if world.is_first and options.picture else None
    left_out = f", {len(bad)} unreadable left out" if len(bad) else ""
    said = Text(f"{out}: {options.tokens} features of {images} images, {width} wide{left_out}")
    sections: list[Section] = [said]
    if shown is not None:
        picture.save(shown, Path(options.picture))
        sections.append(Picture(shown, "Patch features as colours."))
    return Embedded(out=str(out), images=images, width=width, skipped=skipped(bad), sections=sections)


def _pictured(model: ImageEncoder, source: Source, options: EmbedOptions) -> Image.Image:
    """Patch features of some images as colours."""
    some = some_of(source, _PICTURED)
    batches = seen_by(
        model, source, bad=any_unreadable(source), batch_size=len(some), workers=0, indices=some,
        crop_share=options.crop_share,
    )  # fmt: skip
    return drawn(model, next(batches))


def _finite(parts: Iterator[Features], weights: str) -> Iterator[Features]:
    for part in parts:
        require_finite(part.vectors, weights)
        yield part


def _in_order(own: Iterator[Features], out: Path, world: World) -> Iterator[Features]:
    """All processes' features in the source's order, for the first of them; theirs wait in files beside the target."""
    waiting = [out.with_name(f".{out.name}.rank{rank}.part") for rank in range(world.size)]
    try:
        if world.is_first:
            yield from own
        else:
            with waiting[world.rank].open("wb") as file:
                for column in (column for part in own for column in part):
                    np.save(file, column.numpy(), allow_pickle=False)
        world.wait()
    except BaseException:
        waiting[world.rank].unlink(missing_ok=True)
        raise
    for path in waiting[1:] if world.is_first else ():
        with path.open("rb") as file:
            path.unlink()
            while file.peek(1):
                yield Features(*(torch.from_numpy(np.load(file, allow_pickle=False)) for _ in Features._fields))


@contextmanager
def parquet(path: Path, source: Source) -> Iterator[Add]:
    """Columns path (string), label (int64), vector (list<float>, for patches list<list<float>>).

    Batches wait until they make a row group worth having.
    """
    metadata = {"classes": json.dumps(source.classes)} if source.classes else None
    waiting: list[pa.Table] = []
    size, file = 0, None

    def flush() -> None:
        nonlocal size, file
        if waiting:
            table = pa.concat_tables(waiting)
            file = file or pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False)
            file.write_table(table)
            waiting.clear()
            size = 0

    def add(features: Features) -> None:
        nonlocal size
        labels = features.labels.numpy()
        columns = {
            "path": [printable(source.path(index)) for index in features.indices.tolist()],
            "label": pa.array(labels, mask=labels < 0),
            "vector": _lists(features.vectors.numpy()),
        }
        waiting.append(pa.table(columns).replace_schema_metadata(metadata))
        size += features.vectors.nbytes
        if size >= _ROW_GROUP_BYTES:
            flush()

    try:
        yield add
        flush()
    finally:
        if file is not None:
            file.close()


def _lists(values: NDArray[np.float32]) -> pa.Array:
    """[N, D] as N lists, [N, T, D] as N lists of lists."""
    array: pa.Array = pa.array(values.reshape(-1))
    for length in values.shape[:0:-1]:
        array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, length, dtype=np.int32)), array)
    return array


@contextmanager
def npz(path: Path, source: Source) -> Iterator[Add]:
    """Arrays path [N] str, label [N] int64, vector [N, D] or [N, T, D] float32; where there are any, classes [Y] str.

    Vectors wait in an unnamed file beside the target, as an array's header needs to know how many there are.
    """
    # whole from the start: many small arrays, each kept between large ones that go, would tear memory to pieces
    labels, indices = np.empty(len(source), "<i8"), np.empty(len(source), "<i8")
    images = 0
    shape: tuple[int, ...] = ()

    def add(features: Features) -> None:
        nonlocal images, shape
        rows = slice(images, images + len(features.labels))
        labels[rows], indices[rows] = features.labels, features.indices
        images, shape = rows.stop, features.vectors.shape[1:]
        scratch.write(np.ascontiguousarray(features.vectors.numpy(), dtype="<f4").data)

    def paths(start: int, stop: int) -> Iterator[str]:
        return (source.path(int(index)) for index in indices[start:stop])

    with tempfile.TemporaryFile(dir=path.parent) as scratch:
        yield add
        with zipfile.ZipFile(path, "w") as archive:
            with _array(archive, "vector", "<f4", (images, *shape)) as member:
                scratch.seek(0)
                shutil.copyfileobj(scratch, member, _COPIED_AT_ONCE)
            with _array(archive, "label", "<i8", (images,)) as member:
                member.write(labels[:images].data)
            longest = max(map(len, paths(0, images)))
            with _array(archive, "path", f"<U{longest}", (images,)) as member:
                for start in range(0, images, _PATHS_AT_ONCE):
                    some = list(paths(start, min(start + _PATHS_AT_ONCE, images)))
                    member.write(np.array(some, f"<U{longest}").data)
            if source.classes:
                names = np.array(source.classes)
                with _array(archive, "classes", names.dtype.str, names.shape) as member:
                    member.write(names.data)


@contextmanager
def _array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """A member that NumPy reads as an array of this shape; its bytes are to follow. Names, mostly zeros, are packed."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED if "U" in dtype else zipfile.ZIP_STORED
    with archive.open(info, "w", force_zip64=True) as member:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        yield member
