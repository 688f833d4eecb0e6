"""Labelled images of kinds that are not photographs of things, as parquet in the hub's layout, to compare recipes on.

    python benchmarks/kinds_of_images.py --photos ../shared/data/photos --out runs/kinds

digits.parquet: scikit-learn's scanned digits, those learned from (8 px, grey, ten classes). textures.parquet: squares
of 64 px cut from each photograph side by side, the photograph being the class: what tells them apart is surface and
colour, as in pictures through a microscope or from above. In rows of the same order whenever it is made.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from maekit.data.sources import open_source

SIDE = 64


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--photos", required=True, help="SOURCE of photographs")
    words.add_argument("--out", required=True, type=Path)
    options = words.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write(digits(), options.out / "digits.parquet")
    write(textures(options.photos), options.out / "textures.parquet")


def digits() -> Iterator[tuple[Image.Image, int]]:
    source = open_source("digits:train")
    for index in range(len(source)):
        yield Image.fromarray(source.read(index)), source.label(index)


def textures(photos: str) -> Iterator[tuple[Image.Image, int]]:
    source = open_source(photos)
    for index in range(len(source)):
        photo = Image.open(io.BytesIO(source.read(index))).convert("RGB")
        for top in range(0, photo.height - SIDE + 1, SIDE):
            for left in range(0, photo.width - SIDE + 1, SIDE):
                yield photo.crop((left, top, left + SIDE, top + SIDE)), index


def write(images: Iterator[tuple[Image.Image, int]], path: Path) -> None:
    rows = []
    for image, label in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": label})
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500)
    print(path, len(rows))


if __name__ == "__main__":
    main()
