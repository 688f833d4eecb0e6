"""The parts under examples/ do what they say, and each is trained with, saved and used as its docstring has it."""

import io
import json
import math
import wave
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

import maekit
from maekit import masking, parts
from maekit.config import MaskConfig, ModelConfig
from maekit.config.verbs import WeightsOptions
from maekit.data.sources import open_source
from maekit.models.family import Shown, family_of
from maekit.randomness import keys_tensor
from maekit.targets import Geometry
from tiny import SIZES, decoder_config

ROOT = Path(__file__).parents[1]
TINY = (*SIZES, "--model.channels", "1", "--steps", "3", "--batch-size", "32", "--workers", "0", "--run.no-tensorboard")
GEOMETRY = Geometry((32, 48), (16, 16), (2, 3), 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EVERY = torch.arange(6)[None]


@pytest.fixture(autouse=True)
def _from_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(parts, "_said", {})


def made(kind, name, *arguments, **named):
    parts.say(name)
    return parts.find(kind, name).make(*arguments, **named)


@pytest.fixture
def recordings(tmp_path):
    """Twelve tones, low and high."""
    for number in range(12):
        folder = tmp_path / "recordings" / ("low" if number % 2 else "high")
        folder.mkdir(parents=True, exist_ok=True)
        moments = np.arange(8000) / 8000
        tone = np.sin(2 * math.pi * (400 if number % 2 else 3000) * moments) * 2**14
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(tone.astype("<i2").tobytes())
    return tmp_path / "recordings"


def test_they_are_short():
    for file in (ROOT / "examples").glob("*.py"):
        assert len(file.read_text().splitlines()) < 80, file


def test_the_centre_is_hidden_and_wanders():
    config = MaskConfig(kind="examples.centre_mask:Centre", ratio=0.36)
    parts.say(config.kind, "examples.centre_mask:Centre,wander=2")
    masked = masking.draw(config, (10, 10), keys_tensor(0, torch.arange(3))).view(3, 10, 10)
    assert masked[:, 2:8, 2:8].all()
    assert masked.sum().item() == 3 * 36
    wandering = masking.draw(MaskConfig(kind="examples.centre_mask:Centre,wander=2", ratio=0.36), (10, 10),
                             keys_tensor(0, torch.arange(50)))  # fmt: skip
    assert len(wandering.unique(dim=0)) > 10
    assert (wandering.sum(dim=1) == 36).all()


def test_histograms_know_the_direction_of_edges():
    target = made("target", "examples.hog_target:Hog,bins=4", GEOMETRY)
    across = (torch.arange(48) % 8 < 4).float().expand(2, 3, 32, 48)
    down = (torch.arange(32) % 8 < 4).float()[:, None].expand(2, 3, 32, 48)
    histograms = [target.make(images, EVERY.expand(2, -1)).view(2, 6, 3, 2, 2, 4) for images in (across, down)]
    assert target.width == 3 * 2 * 2 * 4
    torch.testing.assert_close(histograms[0][..., 0], torch.ones(2, 6, 3, 2, 2))  # brighter to the right: no turn
    torch.testing.assert_close(histograms[1][..., 2], torch.ones(2, 6, 3, 2, 2))  # a quarter turn, of half a circle


def test_histograms_are_those_of_the_patch_asked_for():
    target = made("target", "examples.hog_target:Hog", GEOMETRY)
    images = torch.zeros(1, 3, 32, 48)
    images[:, :, 20:28, 36:44] = torch.rand(8, 8)  # within the last patch
    known = target.make(images, EVERY)
    assert known[:, 5].abs().sum() > 1
    assert known[:, :5].abs().sum() == 0
    assert target.make(images, torch.tensor([[5, 0]])).equal(known[:, [5, 0]])


def test_a_teachers_word_is_its_tokens_normalised():
    name = "examples.teacher_target:Teacher,name=vit_tiny_patch16_224"
    target = made("target", name, GEOMETRY)
    images = torch.rand(2, 3, 32, 48)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (GEOMETRY.mean, GEOMETRY.std))
    with torch.no_grad():
        tokens = target.network.forward_features((images - 0.5) / 0.5)[:, 1:]
        said = target.make((images - mean) / std, EVERY.expand(2, -1))
    torch.testing.assert_close(said, F.layer_norm(tokens, (192,)), atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in target.parameters())


@pytest.mark.parametrize(
    "own",
    [
        ("--mask", "examples.centre_mask:Centre,wander=1"),
        ("--target", "examples.hog_target:Hog"),
        ("--target", "examples.teacher_target:Teacher,name=vit_tiny_patch16_224", "--loss", "l1"),
    ],
    ids=lambda own: own[1],
)
def test_training_with_them(own, maekit_here, tmp_path):
    words = ("--data", "digits:train", "--val", "digits:test", "--validation.images", "20", *TINY)
    done = maekit_here("pretrain", "vit-tiny", *words, *own, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert math.isfinite(json.loads(done.stdout)["val_loss"])
    words = ("--weights", tmp_path / "run", "--data", "digits:test", "--out", tmp_path / "features.npz")
    assert maekit_here("embed", *words, "--device", "cpu").returncode == 0


def test_recordings_become_images_with_patches_of_their_own(recordings, maekit_here, tmp_path):
    text = f"examples.spectrograms:Spectrograms,folder={recordings}"
    source = open_source(text)
    assert (len(source), source.classes) == (12, ("high", "low"))
    loudest = [np.load(io.BytesIO(source.read(index)))[..., 0].mean(axis=1).argmax() for index in (0, 6)]
    assert source.label(0) == 0
    assert loudest[0] < 64 < loudest[1]  # high frequencies first
    words = ("--data", text, "--steps", "2", "--batch-size", "8", "--workers", "0", "--model.channels", "1",
             "--image-size", "128x64", "--model.patch-size", "16x4", "--augment.crop", "none", "--augment.flip", "0",
             "--normalise", "measured", "--model.width", "32", "--model.depth", "2", "--model.heads", "2")  # fmt: skip
    done = maekit_here("pretrain", "vit-tiny-small-data", *words, "--out", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert maekit.load(tmp_path / "run").grid == (8, 16)


EVA = ModelConfig(encoder="examples.eva:Eva:eva02_tiny_patch14_224", image_size=(28, 56), patch_size=14, depth=2,
                  decoder=decoder_config())  # fmt: skip


def test_a_fourth_family_sees_what_timm_sees():
    parts.say("examples.eva:Eva")
    family = family_of(EVA.encoder)
    torch.manual_seed(0)
    encoder = family.build(EVA).eval()
    images, none = torch.randn(3, 3, 28, 56), torch.zeros(3, 8, dtype=torch.bool)
    every, some = torch.arange(8).expand(3, -1), torch.tensor([[0, 3, 7], [1, 2, 6], [0, 1, 5]])
    with torch.no_grad():
        whole = family.encode_visible(encoder, torch.nn.Identity(), Shown(images, none, every)).tokens
        torch.testing.assert_close(whole, encoder.forward_features(images), atol=1e-5, rtol=1e-5)
        part = family.encode_visible(encoder, torch.nn.Identity(), Shown(images, ~none, some)).tokens
        places = some[:, :, None].expand(-1, -1, 192)
        encoder.patch_drop = (
            lambda tokens: (  # timm's own way to leave out patches
                torch.cat([tokens[:, :1], tokens[:, 1:].gather(1, places)], dim=1),
                some,
            )
        )
        torch.testing.assert_close(part, encoder.forward_features(images), atol=1e-5, rtol=1e-5)


def test_a_fourth_family_is_trained_used_and_asked_for(maekit_here, tmp_path):
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    shape = ("--model.encoder", EVA.encoder, "--image-size", "28", "--model.patch-size", "7", "--model.channels", "1",
             "--model.width", "32", "--model.depth", "2", "--model.heads", "2")  # fmt: skip
    words = ("--data", "digits:train", *TINY[len(SIZES) + 2 :], *shape, "--device", "cpu", "--out", run)
    done = maekit_here("pretrain", "vit-tiny-small-data", *words)
    assert done.returncode == 0, done.stderr
    parts._said.clear()
    embed = ("embed", "--weights", run, "--data", "digits:test", "--out", tmp_path / "features.npz", "--device", "cpu")
    refused = maekit_here(*embed)
    assert refused.returncode == 2
    assert "say --parts examples.eva:Eva" in refused.stderr
    assert maekit_here(*embed, "--parts", "examples.eva:Eva").returncode == 0
    words = ("convert", run, "--to", "timm", "--out", tmp_path / "timm", "--parts", "examples.eva:Eva")
    assert maekit_here(*words).returncode == 0
    theirs, images = (
        timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval(),
        torch.rand(2, 1, 28, 28),
    )
    ours = maekit.load(run, decoder=False).encoder
    assert theirs.forward_features(images).equal(ours.forward_features(images))
    parts._said.clear()
    words = ("--weights", run, "--data", "digits:train", "--val", "digits:test", "--steps", "2", "--workers", "0",
             "--batch-size", "32", "--device", "cpu", "--run.no-tensorboard", "--out", tuned)  # fmt: skip
    done = maekit_here("finetune", "digits", *words, "--parts", "examples.eva:Eva")
    assert done.returncode == 0, done.stderr
    model = maekit.load(tuned, WeightsOptions(parts=("examples.eva:Eva",)))
    assert len(model.classes) == 10
