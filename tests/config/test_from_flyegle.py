"""docs/from-flyegle.md: its commands, and every option of FlyEgle/MAE-pytorch with what is answered where it is typed.

    MAEKIT_WRITE_DOCS=1 pytest tests/config/test_from_flyegle.py

writes the answers anew.
"""

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-flyegle.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.*)$", TEXT, re.MULTILINE)
PRETRAINING = (
    "ngpu rank dist-backend local_rank distributed train_file val_file num-classes num_classes crop_size color_prob "
    "checkpoints-path log-dir optimizer_name lr momentum batch_size num_workers cosine weight_decay patch_size "
    "calculate_val finetune lars lars_confience mixup cutmix cutmix-minmax mixup-prob mixup-switch-prob mixup-mode "
    "smoothing model_name warmup_epochs max_epochs"
)
"""All options of its train_mae.py."""


class Row(NamedTuple):
    """at: the command at whose end an option is typed. answer: as the document has it. line: its number."""

    at: str
    there: str
    here: str
    answer: str
    line: int


def _rows() -> list[Row]:
    rows, at = [], ""
    for number, line in enumerate(TEXT.splitlines()):
        if heading := re.match(r"Each typed at `maekit (.*?)`", line):
            at = heading[1]
        elif line.startswith("| `--"):
            there, here, _, answer = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
            rows.append(Row(at, there.strip("`"), here.strip("`"), answer.replace("\\|", "|"), number))
    return rows


ROWS = _rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.at.split()[0]} {row.there}")
def test_an_option_of_it_is_answered_as_the_document_says(typed, row):
    answer = typed(row.at, row.there)
    said = "taken as it is" if answer.read else f"`{answer.line.removeprefix('maekit: ')}`"
    if os.environ.get("MAEKIT_WRITE_DOCS"):
        lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
        cells = re.split(r"(?<!\\)\|", lines[row.line])
        shown = said.replace("|", "\\|")
        lines[row.line] = "|".join([*cells[:4], f" {shown} ", ""])
        DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    assert row.answer == said
    for name in re.findall(r"--[\w.-]+", row.here):
        assert name in (said + row.there).replace("_", "-") or len(row.here.split()) > 2, row


@pytest.mark.parametrize("row", [row for row in ROWS if row.here], ids=lambda row: f"{row.at.split()[0]} {row.here}")
def test_what_it_is_here_is_taken(typed, row):
    """In place of the same option in the command, where it is there."""
    words, ours = shlex.split(row.at), shlex.split(row.here)
    if ours[0] in words:
        del words[words.index(ours[0]) : words.index(ours[0]) + 2]
    elif ours[0] == "--data":
        words = [word for word in words if word not in ("cat.jpg", "val.txt")]
    assert typed(shlex.join(words), row.here).read


def test_no_option_of_it_is_left_out():
    listed = {row.there.split()[0].removeprefix("--") for row in ROWS if row.at.startswith("pretrain")}
    assert listed == set(PRETRAINING.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_our_commands_are_taken(typed, command):
    words = command.partition("maekit ")[2]
    assert typed(words).read


def test_commands_on_several_devices_are_torchruns():
    assert all(re.match(r"(torchrun --nproc-per-node 8 -m )?maekit ", command) for command in COMMANDS)
