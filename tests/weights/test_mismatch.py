"""What is said where the tensors of a file are not those of a model."""

import pytest

import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.errors import WeightsError
from maekit.weights import mismatch, native
from maekit.weights.blueprint import Blueprint


def shapes(kind="masked_autoencoder", channels=3, **changes):
    parts = {"target": TargetConfig(kind="raw"), "mask": MaskConfig()} if kind == "masked_autoencoder" else {}
    config = tiny.model_config(channels=channels, **changes)
    model = native.build(Blueprint(kind, config, (0.5,) * channels, (0.5,) * channels, **parts))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "first", "fix"),
    [
        ({"width": 64}, "encoder.cls_token is [1, 1, 64], the model's [1, 1, 32]", "of width 64"),
        (
            {"patch_size": 8},
            "encoder.pos_embed is [1, 7, 32], the model's [1, 25, 32]",
            "patch size to the file's, 8x8",
        ),
        ({"channels": 1}, "encoder.patch_embed.proj.weight is [32, 1, 4, 4]", "--channels 3"),
        ({"image_size": 32}, "encoder.pos_embed is [1, 65, 32], the model's [1, 25, 32]", "--resample-positions"),
        ({"depth": 2}, "encoder.blocks.2.norm1.weight is missing", "has 2 blocks, the model's 3"),
        ({"depth": 4}, "encoder.blocks.3.norm1.weight is unexpected", "has 4 blocks, the model's 3"),
        (
            {"class_token": False},
            "encoder.pos_embed is [1, 24, 32], the model's [1, 25, 32]",
            "(class_token, register_tokens)",
        ),
        ({"kind": "encoder"}, "decoder.mask_token is missing", "an encoder alone"),
        ({"decoder": tiny.decoder_config(width=32)}, "decoder.mask_token is [1, 1, 32]", "the decoder's width"),
    ],
)
def test_the_first_difference_and_the_likely_fix(changes, first, fix):
    with pytest.raises(WeightsError) as refusal:
        mismatch.check(shapes(**changes), shapes(), "w.pth")
    text = str(refusal.value)
    assert text.startswith(f"w.pth does not fit: {first}")
    assert fix in text.split("likely fix: ")[1]
    assert "\n" not in text


def test_ten_are_named_and_the_rest_counted():
    found = mismatch.compare(shapes(width=64), shapes())
    lines = found.lines()
    assert len(lines) == 12
    assert lines[10] == f"and {len(found.misshaped) - 10} more"


def test_what_fits():
    assert not mismatch.compare(shapes(), shapes())
    mismatch.check(shapes(), shapes(), "w.pth")


def test_other_windows_are_told_with_the_option_that_changes_them():
    swin = {"encoder": "swin_tiny_patch4_window7_224", "width": 24, "patch_size": None, "depth": None, "heads": None}
    found, wanted = (
        shapes("encoder", image_size=size, window=window, swin_method="dense", **swin)
        for size, window in ((64, 2), (128, 4))
    )
    fix = "maekit convert with --image-size and --window resamples them"
    assert mismatch.compare(found, wanted).fix.endswith(fix)
