"""Errors a person can cause: what was done, the one line that was printed, the exit code. docs/errors.md shows them.

    MAEKIT_WRITE_DOCS=1 pytest tests/test_errors_document.py

writes the document anew.
"""

import os
import shlex
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

import tiny
from maekit.engine.run_state import open_run

DOCUMENT = Path(__file__).parents[1] / "docs" / "errors.md"
REWRITE = "MAEKIT_WRITE_DOCS"
ELLIPSIS = {
    "TINY": (*tiny.SIZES, "--lr", "1e-3", "--batch-size", "4", "--steps", "1", "--workers", "0"),
    "TUNE": (
        "--lr",
        "1e-3",
        "--batch-size",
        "4",
        "--steps",
        "1",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--val",
        "photos",
    ),
}
"""Words that many commands share, shown as three dots."""

# What was done, and the command that did it, from a folder that `workplace` fills.
CASES = {
    "The command itself": {
        "a verb misspelt": "pretrian vit-tiny",
        "no preset": "pretrain",
        "a preset misspelt": "pretrain vit-tinny --data photos",
        "options before the preset": "finetune --epochs 3",
        "an option misspelt": "pretrain vit-tiny --mask-ration 0.5 --data photos",
        "several that are none": "pretrain vit-tiny --data photos --max_epochs 100 --crop_size 64",
        "an option of the 2021 repository": "pretrain vit-tiny --data photos --lars 1",
        "an option of another verb": "pretrain vit-tiny --data photos --mixup 0.8",
        "channels where the model is the weights' own": (
            "finetune vit-tiny --weights run --data photos --val photos --channels 1"
        ),
        "a number of devices": "pretrain vit-tiny --data photos --gpus 2",
        "the images in the preset's place": "pretrain photos",
        "the images twice": "pretrain vit-tiny photos --data flat",
        "a value that is missing": "reconstruct --weights run --out picture.png --image-size one.png",
        "pretrained weights in an encoder's name": (
            "pretrain vit-tiny --data photos --model.encoder timm/vit_base_patch16_224.mae"
        ),
        "an option that another makes vain": (
            "reconstruct one.png --weights run --out picture.png --mask mask.png --mask-ratio 0.5"
        ),
        "a run to resume, but no folder": "pretrain vit-tiny --data photos --resume",
        "a number where none belongs": "pretrain vit-tiny --epochs many --data photos",
        "a number out of range": "pretrain vit-tiny --mask-ratio 1.5 --data photos",
        "a word that is none of the choices": "pretrain vit-tiny --precision fp8 --data photos",
        "no data": "pretrain vit-tiny",
        "no validation images": "finetune vit-tiny --weights run --data photos",
        "no weights": "finetune vit-tiny --data photos --val photos",
        "weights for training from nothing": "scratch vit-tiny --weights run --data photos --val photos",
        "a config that is not there": "pretrain nowhere.yaml --data photos",
        "a config that holds no options": "pretrain list.yaml --data photos",
        "a config with an option misspelt": "pretrain misspelt.yaml --data photos",
        "a preset of another verb": "finetune run --data photos --val photos",
    },
    "Images": {
        "a source misspelt": "data phots",
        "a folder without images": "data empty",
        "one image where a source belongs": "data one.png",
        "a file that is no source": "data weights.pt",
        "a parquet file without images": "data numbers.parquet",
        "a cut tar shard": "data cut.tar",
        "shards that count downwards": "data shard-{9..0}.tar",
        "an unknown split of the digits": "data digits:validation",
        "a folder that HTTP cannot list": "data https://example.org/photos/",
        "a protocol that nobody knows": "data nonsense://photos/shard-000.tar",
        "files elsewhere, of images that are here": "data photos --cache-limit 10",
        "a window of images that are here": "pretrain vit-tiny --data photos --data.window 10 TINY",
        "no readable image": "pretrain vit-tiny --data broken TINY",
        "a folder of other files alone": "data heic",
        "training and validation folders side by side": "data splits",
        "a split that is not there": "data splits@extra",
        "shards of several splits": "data shards",
        "a preview beside shards": "data mixture",
        "nothing to look at": "data",
        "how to look at nothing": "data --clear-cache --images 5",
        "two columns of images": "data pairs.parquet",
        "a column of images that is not there": "data pairs.parquet --image-column middle",
        "no readable image at all": "data broken --workers 0",
        "no readable image to pack": "pack broken --out packed --workers 0",
        "packing to a folder of one's own": "pack photos --out flat",
        "packing into the images' own folder": "pack photos --out photos/packed",
        "more shards than images": "pack photos --out packed --shards 50",
        "held-out images named and drawn": "scratch vit-tiny --data photos --val others --val-split 0.1",
        "nothing to hold out": "scratch vit-tiny --data lone --val-split 0.5 --steps 1",
        "images of twelve channels": "pretrain vit-tiny --data bands TINY",
        "values that no range is known for": "pretrain vit-tiny --data signed TINY",
        "a range upside down": "pretrain vit-tiny --data photos --data.range 4095 0 TINY",
        "a range to be measured of 8 and 16 bits": "pretrain vit-tiny --data depths --data.range measured TINY",
        "no bad image tolerated, and one there": "pretrain vit-tiny --data mixed --data.bad-share 0 TINY",
        "labels asked of unlabelled images": "evaluate --weights classifier --data flat",
        "validation images of other classes": "scratch vit-tiny --data photos --val others --steps 1",
        "more images per class than there are": "finetune vit-tiny --weights run --data photos --per-class 50 TUNE",
        "a text file among images": "classify note.txt --weights classifier",
        "an image that is not there": "reconstruct gone.png --weights run --out picture.png",
    },
    "Weights": {
        "weights misspelt": "inspect runn",
        "a folder without weights": "inspect empty",
        "a text file": "inspect note.txt",
        "a cut .safetensors file": "inspect cut.safetensors",
        "a pickle that would run code": "inspect hostile.pt",
        "a file without tensors": "inspect plain.pt",
        "tensors of no known model": "inspect weights.pt",
        "a classifier asked to reconstruct": "reconstruct one.png --weights classifier --out picture.png",
        "an autoencoder asked to classify": "classify one.png --weights run",
        "heads that are not the weights'": "inspect run --heads 4",
        "another image size, positions not resampled": (
            "finetune vit-tiny --weights run --data photos --image-size 64 TUNE"
        ),
        "windows for an encoder that has none": (
            "finetune vit-tiny --weights run --data photos --classifier.window 7 TUNE"
        ),
        "weights of another model to continue from": (
            "pretrain vit-tiny --weights run --data photos TINY --model.width 48 --model.heads 3"
        ),
    },
    "Models and masks": {
        "an image size that patches do not divide": "pretrain vit-tiny --data photos TINY --image-size 30",
        "heads that do not divide the width": "pretrain vit-tiny --data photos TINY --model.heads 3",
        "an encoder that is none": "pretrain vit-tiny --data photos TINY --model.encoder vit_timy_patch16_224",
        "a mask that is no picture": "reconstruct one.png --weights run --out picture.png --mask note.txt",
        "more blocks frozen than there are": "finetune vit-tiny --weights run --data photos --freeze-blocks 9 TUNE",
    },
    "Runs": {
        "a folder that holds a run": "pretrain vit-tiny --data photos --out run TINY",
        "a folder in use": "pretrain vit-tiny --data photos --out held TINY --resume",
        "another seed on resuming": "pretrain vit-tiny --data photos --out run TINY --resume --seed 3",
        "another optimizer on resuming": (
            "pretrain vit-tiny --data photos --out run TINY --resume --optimizer.name muon --allow-drift"
        ),
        "a branch of no checkpoint": "pretrain vit-tiny --data photos --out branch TINY --branch run",
        "other images on resuming": "pretrain vit-tiny --data flat --out run TINY --resume",
        "a file where the run folder belongs": "pretrain vit-tiny --data photos --out one.png TINY",
        "no step to take": "pretrain vit-tiny --data photos TINY --steps 0",
        "GPUs to plan for that do not divide the batch": "plan vit-tiny --images 1281167 --gpus 3",
        "a plan of images that are named and numbered": "plan vit-tiny --data photos --images 1281167",
        "a plan of where a run would be kept": "plan vit-tiny --images 1281167 --out runs/a",
        "a batch that does not divide": "pretrain vit-tiny --data photos TINY --micro-batch-size 3",
        "an odd number of images to mix": "finetune vit-tiny --weights run --data photos TUNE --batch-size 3",
        "a device that is not there": "pretrain vit-tiny --data photos TINY --device cuda",
        "a device misspelt": "pretrain vit-tiny --data photos TINY --device gpu",
        "a loss that is not finite": "pretrain vit-tiny --data photos TINY --lr 1e30 --steps 9 --out wild",
        "no learning rate": "pretrain vit-tiny --data photos --optimizer.base-lr None",
    },
    "Answers": {
        "a picture of no known format": "reconstruct one.png --weights run --out picture.txt",
        "a picture in a folder that is not there": "reconstruct one.png --weights run --out nowhere/picture.png",
        "features of no known format": "embed --weights run --data photos --out features.csv",
        "more neighbours than images": "probe --weights run --data photos --val photos --kinds knn --neighbours 500",
        "a gallery without a readable image": "app run --gallery broken",
        "a port in use": "app run --port 8765",
        "a run folder to watch that is gone": "watch gone",
        "a port in use, to watch at": "watch run --port 8765",
        "one run to compare": "compare run --out compare.html",
        "a comparison that is no page": "compare run classifier --out compare.pdf",
        "a folder to compare that holds no run": "compare run photos --out compare.html",
        "a card of a folder that holds no run": "card photos",
        "a card with numbers of no probe": "card run --probe run/config.json",
        "a page of images that is none": "data photos --out data.png",
        "held-out images to look for, but none to look among": "data --val photos --clear-cache",
        "a host that is no address of this machine": "app run --host 192.0.2.1",
        "a gallery's option without a gallery": "app run --gallery-images 9",
        "a layout that is none": "convert run --to pytorch --out converted",
        "a classifier's head of an autoencoder": "convert run --to timm --part classifier --out converted",
        "a decoder of a classifier": "convert classifier --to facebook --part reconstructor --out converted.pth",
    },
}  # fmt: skip


class Row(NamedTuple):
    chapter: str
    done: str
    command: str
    line: str
    code: int


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch ran",))


@pytest.fixture(scope="module")
def workplace(photos, maekit_here, tmp_path_factory):
    """A folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("errors")
    shutil.copytree(photos, folder / "photos")
    for name in ("flat", "broken", "mixed", "empty", "others/left", "others/right"):
        (folder / name).mkdir(parents=True)
    images = sorted(photos.rglob("*.png"))
    for number, image in enumerate(images):
        shutil.copy(image, folder / "flat")
        shutil.copy(image, folder / "mixed")
        shutil.copy(image, folder / "others" / ("right" if number else "left"))
    shutil.copy(images[0], folder / "one.png")
    for place in ("mixed", "broken"):
        (folder / place / "bad.png").write_text("no picture")
    for name, values in (("bands", np.zeros((12, 9, 9), np.uint16)), ("signed", np.arange(-9, 72, dtype=np.int16))):
        (folder / name).mkdir()
        tifffile.imwrite(
            folder / name / "one.tif",
            values.reshape(-1, 9, 9),
            photometric="minisblack",
            planarconfig="separate" if name == "bands" else None,
        )
    (folder / "depths").mkdir()
    shutil.copy(images[0], folder / "depths")
    np.save(folder / "depths" / "deep.npy", np.arange(81, dtype=np.uint16).reshape(9, 9))
    for name in ("lone/left", "lone/right"):
        (folder / name).mkdir(parents=True)
        shutil.copy(images[0], folder / name)
    for name in ("splits/train", "splits/val"):
        shutil.copytree(photos, folder / name)
    for name in ("heic/1.heic", "shards/train-0.tar", "shards/val-0.tar", "mixture/shard-0.tar"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    shutil.copy(images[0], folder / "mixture" / "preview.png")
    pq.write_table(pa.table({"left": [b"0"], "right": [b"1"]}), folder / "pairs.parquet")
    (folder / "note.txt").write_text("These are my notes.\n")
    (folder / "list.yaml").write_text("- vit-tiny\n")
    (folder / "misspelt.yaml").write_text("name: mine\nmodle: {}\n")
    pq.write_table(pa.table({"number": [1, 2]}), folder / "numbers.parquet")
    (folder / "cut.tar").write_bytes(b"0" * 700)
    torch.save({"epoch": 3}, folder / "plain.pt")
    torch.save({"a.weight": torch.zeros(2, 3)}, folder / "weights.pt")
    torch.save(Hostile(), folder / "hostile.pt")
    trained = (
        ("pretrain", "vit-tiny", "--data", folder / "photos", "--out", folder / "run", *ELLIPSIS["TINY"]),
        ("finetune", "vit-tiny", "--weights", folder / "run", "--data", folder / "photos", "--out",
         folder / "classifier", *ELLIPSIS["TUNE"], "--val", folder / "photos"),
    )  # fmt: skip
    for words in trained:
        done = maekit_here(*words)
        assert done.returncode == 0, done.stderr
    (folder / "cut.safetensors").write_bytes((folder / "run" / "model.safetensors").read_bytes()[:-100])
    return folder


@pytest.fixture(scope="module")
def rows(workplace, maekit_here):
    """What each command of CASES printed last, in the order of the document."""
    found = []
    with (
        pytest.MonkeyPatch.context() as patch,
        open_run(workplace / "held", resume=False, overwrite=False),
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        port = str(taken.getsockname()[1])
        patch.chdir(workplace)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        for chapter, cases in CASES.items():
            for done, command in cases.items():
                words = [
                    part for word in shlex.split(command) for part in {**ELLIPSIS, "8765": (port,)}.get(word, (word,))
                ]
                said = maekit_here(*words)
                assert "Traceback" not in said.stderr, f"{command}\n{said.stderr}"
                line = (said.stderr.splitlines() or [""])[-1]
                for known, shown in (
                    (str(workplace), "PATH"),
                    (port, "8765"),
                    (str(os.getpid()), "4711"),
                    (socket.gethostname(), "HOST"),
                ):
                    line = line.replace(known, shown)
                shown = " ".join("…" if word in ELLIPSIS else word for word in command.split())
                found.append(Row(chapter, done, f"maekit {shown}", line, said.returncode))
    return found


def test_every_error_is_one_line_of_ours(rows, workplace):
    for row in rows:
        assert row.line.startswith("maekit: "), row
        assert row.code in (1, 2), row
    assert not (workplace / "ran").exists()


def document(rows):
    lines = [
        "# Errors, and what they say",
        "",
        "Every one of these was caused by a test, `tests/test_errors_document.py`, which writes this page. `--debug`",
        "adds the traceback. Exit codes: 1 failed, 2 bad usage. `…` stands for words that make the run short.",
    ]
    for chapter in CASES:
        lines += ["", f"## {chapter}", "", "| what was done | the line that was printed | exit code |", "|---|---|---|"]
        for row in rows:
            if row.chapter == chapter:
                cells = [f"{row.done}<br>`{row.command}`", f"`{row.line}`", str(row.code)]
                lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def test_the_document_shows_what_is_printed(rows):
    text = document(rows)
    if os.environ.get(REWRITE):
        DOCUMENT.write_text(text, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == text, f"docs/errors.md is out of date; run pytest with {REWRITE}=1"
