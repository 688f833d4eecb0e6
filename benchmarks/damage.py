"""What happens to files on machines that die and disks that rot."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image


def flip(checkpoint: Path, draw: Random) -> None:
    """One bit of one file."""
    path = _any_file(checkpoint, draw)
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(checkpoint: Path, draw: Random) -> None:
    """One file, anywhere."""
    path = _any_file(checkpoint, draw)
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def delete(checkpoint: Path, draw: Random) -> None:
    """One file."""
    _any_file(checkpoint, draw).unlink()


CHECKPOINT_DAMAGES: dict[str, Callable[[Path, Random], None]] = {
    "byte flipped in the newest checkpoint": flip,
    "file of the newest checkpoint truncated": truncate,
    "file of the newest checkpoint deleted": delete,
}


def tear(history: Path) -> None:
    """A last line that is only half there."""
    with history.open("ab") as file:
        file.write(b'{"step": 119, "epoch": 29.5, "lo')


def corrupt(image: Path) -> None:
    """Zeros from a third of an image on; the file keeps its size."""
    size = image.stat().st_size
    with image.open("r+b") as file:
        file.seek(size // 3)
        file.write(bytes(size - size // 3))


def draw_images(folder: Path, count: int) -> Path:
    """`count` small pictures of two kinds, JPEG and PNG, and the list file that names them with their labels."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        height, width = draw.integers(36, 60, 2)
        rows, columns = np.mgrid[0:height, 0:width]
        waves = [np.sin(rows / draw.uniform(3, 20) + columns / draw.uniform(3, 20)) for _ in range(3)]
        name = f"{number:02d}.{'jpg' if number % 3 else 'png'}"
        Image.fromarray(((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)).save(folder / name)
        lines.append(f"{name}, {number % 2}")
    path = folder / "list.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def _any_file(folder: Path, draw: Random) -> Path:
    return draw.choice(sorted(folder.iterdir()))
