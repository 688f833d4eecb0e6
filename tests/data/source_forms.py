"""Writes the same pictures in every form a source can have."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from maekit.config.objects import given_images

CLASSES = ("rough", "smooth")


def write_parquet(
    file: Path, rows: list[tuple[bytes, int]], classes: tuple[str, ...] = CLASSES, group: int = 5
) -> None:
    """Images and labels as the Hugging Face hub lays them out."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(classes)}}
    table = pa.table(
        {
            "image": [{"bytes": data, "path": f"{number}.img"} for number, (data, _) in enumerate(rows)],
            "label": [label for _, label in rows],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=group)


def write_shard(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def as_list(files: list[Path], to: Path) -> str:
    lines = [f"{file}, {CLASSES.index(file.parent.name)}" for file in files]
    (to / "train list.txt").write_text("\n".join(lines) + "\n")
    return str(to / "train list.txt")


def as_parquet(files: list[Path], to: Path) -> str:
    rows = [(file.read_bytes(), CLASSES.index(file.parent.name)) for file in files]
    write_parquet(to / "train-00000-of-00002.parquet", rows[:7])
    write_parquet(to / "train-00001-of-00002.parquet", rows[7:])
    return str(to)


def as_shards(files: list[Path], to: Path) -> str:
    for number, part in enumerate((files[:7], files[7:])):
        members: dict[str, bytes] = {}
        for place, file in enumerate(part):
            members[f"{place:06d}{file.suffix}"] = file.read_bytes()
            label = CLASSES.index(file.parent.name)
            as_json = place % 2
            members[f"{place:06d}.{'json' if as_json else 'cls'}"] = (
                json.dumps({"label": label}) if as_json else f"{label}\n"
            ).encode()
        write_shard(to / f"shard-{number:03d}.tar", members)
    return str(to / "shard-{000..001}.tar")


def as_hub(files: list[Path], _: Path) -> str:
    """`datasets` reads a folder of class folders by itself."""
    return f"hf:{files[0].parent.parent}@train"


def as_split(files: list[Path], _: Path) -> str:
    """What `datasets` gives, as an object."""
    import datasets

    return given_images(datasets.load_dataset(str(files[0].parent.parent), split="train"))


def as_pairs(files: list[Path], _: Path) -> str:
    return given_images([(file, CLASSES.index(file.parent.name)) for file in files])


class Pictures:
    """A map-style data set as people write them, of Pillow images, which are decoded when they are asked for."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.classes = files, list(CLASSES)
        self.targets = [CLASSES.index(file.parent.name) for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(self.files[index]), self.targets[index]


def as_pictures(files: list[Path], _: Path) -> str:
    return given_images(Pictures(files))


MAKERS = {
    "list": as_list,
    "parquet": as_parquet,
    "shards": as_shards,
    "hub": as_hub,
    "split": as_split,
    "pairs": as_pairs,
    "pictures": as_pictures,
}
FORMS = ("folder", *MAKERS, "shards elsewhere", "parquet elsewhere")
