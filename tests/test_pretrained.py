"""Every line of docs/pretrained.md, as typed, against small files of the layouts that the published ones have."""

import re
import shlex
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import transformers
from PIL import Image

import tiny

DOCUMENT = Path(__file__).parents[1] / "docs" / "pretrained.md"
FIXTURES = Path(__file__).parent / "fixtures" / "parity"
LINES = re.findall(r"^\$ maekit (.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
FEW = ("--device", "cpu", "--workers", "0")
# What makes a preset as small as the files are; the published ones fit it as it stands.
SMALL = {
    "facebook": ("--model.width", "48", "--model.depth", "2", "--model.heads", "3", "--model.patch-size", "8",
                 "--image-size", "32", "--model.decoder.width", "32", "--model.decoder.depth", "2",
                 "--model.decoder.heads", "4"),
    "timm": ("--model.width", "192", "--model.depth", "1", "--model.heads", "3", "--model.patch-size", "8",
             "--image-size", "32", "--model.decoder.width", "32", "--model.decoder.depth", "1",
             "--model.decoder.heads", "4"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(photos, tmp_path_factory):
    """A folder in which the document's files are, with what stands in for the hub beside it."""
    folder = tmp_path_factory.mktemp("pretrained")
    shutil.copytree(photos, folder / "flowers")
    shutil.copytree(photos, folder / "flowers-val")
    Image.new("RGB", (40, 32), (10, 120, 200)).save(folder / "photo.jpg")
    shutil.copy(FIXTURES / "facebook_mae_encoder_only.pth", folder / "mae_pretrain_vit_base.pth")
    shutil.copy(FIXTURES / "facebook_mae_full.pth", folder / "mae_visualize_vit_base.pth")
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=4,
        decoder_intermediate_size=128, norm_pix_loss=True,
    )  # fmt: skip
    transformers.ViTMAEForPreTraining(config).save_pretrained(folder / "hub" / "facebook" / "vit-mae-base")
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 1, "num_heads": 3, "num_classes": 0}
    timm.models.save_for_hf(
        timm.create_model("vit_base_patch16_224", **arguments),
        folder / "hub" / "timm" / "vit_base_patch16_224.mae",
        model_args=arguments,
    )
    return folder


@pytest.fixture(autouse=True)
def _hub_on_disk(place, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(place / "hub" / name))
    monkeypatch.chdir(place)


def words_of(line):
    """The words of a line, and what has to be added so that it is small and short."""
    words = shlex.split(line)
    head_counts = ("--heads", "3", "--decoder-heads", "4")  # which the published widths tell and these do not
    if words[0] == "inspect":
        return [*words, *(head_counts if words[1].endswith(".pth") else ())]
    if words[0] == "reconstruct":
        weights = words[words.index("--weights") + 1]
        return [*words, *FEW, *(head_counts if weights.endswith(".pth") else ())]
    if words[0] == "probe":
        return [*words, *FEW, "--neighbours", "3"]
    short = ("--steps", "2", "--batch-size", "4", *FEW, "--overwrite", "--run.no-tensorboard")
    return [
        *tiny.without_epochs(words),
        *short,
        *(SMALL["timm" if "hf:timm" in line else "facebook"] if words[0] == "pretrain" else ()),
    ]


def test_the_document_has_a_line_for_each_way():
    assert {line.split()[0] for line in LINES} == {"inspect", "reconstruct", "probe", "pretrain", "finetune"}


@pytest.mark.parametrize("line", LINES)
def test_a_line_does_what_it_says(line, maekit_here, place):
    words = words_of(line)
    if words[0] in ("pretrain", "finetune") and ".pth" in line:  # these verbs have no option for heads
        small = place / "converted"
        shutil.rmtree(small, ignore_errors=True)
        made = maekit_here("convert", "mae_pretrain_vit_base.pth", "--to", "maekit", "--out", small, "--heads", "3")
        assert made.returncode == 0, made.stderr
        words[words.index("--weights") + 1] = str(small)
    done = maekit_here(*words)
    assert done.returncode == 0, done.stderr
    if "--out" in words:
        assert (place / words[words.index("--out") + 1]).exists()
