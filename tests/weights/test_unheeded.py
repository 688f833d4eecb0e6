"""What a file says itself cannot be said otherwise by an option."""

import pytest
from PIL import Image

import tiny
from maekit.config.verbs import ReconstructOptions, WeightsOptions
from maekit.errors import UsageError, WeightsError
from maekit.inference.reconstruct import reconstruct_files
from maekit.weights import native
from maekit.weights.load import describe, load


@pytest.fixture
def saved(model_of, tmp_path):
    native.save(model_of("masked_autoencoder"), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"encoder": "vit_base_patch16_224"}, "has vit_tiny_patch16_224, so --encoder vit_base_patch16_224 would"),
        ({"heads": 4}, "has 2, so --heads 4 would"),
        ({"decoder_heads": 4}, "has 2, so --decoder-heads 4 would"),
        ({"target": "raw"}, "has normalised, so --target raw would"),
    ],
)
def test_an_option_that_says_otherwise_is_refused(saved, options, own):
    with pytest.raises(WeightsError, match=f"{own} go unheeded; leave it out"):
        load(saved, WeightsOptions(**options))
    with pytest.raises(WeightsError, match="unheeded"):
        describe(saved, WeightsOptions(**options))


def test_one_that_says_the_same_is_not(saved):
    same = WeightsOptions(encoder="vit_tiny_patch16_224", heads=2, decoder_heads=2, target="normalised")
    assert load(saved, same).config == load(saved).config


def test_heads_that_the_encoders_name_says_count_as_said(model_of, tmp_path):
    native.save(model_of("encoder", width=192, heads=None), tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors", WeightsOptions(heads=3)).config.heads is None
    with pytest.raises(WeightsError, match="has 3, so --heads 6"):
        load(tmp_path / "w.safetensors", WeightsOptions(heads=6))


def test_statistics_of_a_model_that_needs_none_are_refused(maekit_here, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.png")
    done = maekit_here("pretrain", "vit-tiny", tmp_path, *tiny.SIZES, "--target.kind", "raw", "--lr", "1e-3",
                       "--batch-size", "2", "--steps", "1", "--workers", "0", "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    options = ReconstructOptions(
        images=(str(tmp_path / "a.png"),),
        weights=str(tmp_path / "run"),
        out=str(tmp_path / "o.png"),
        statistics="original",
        device="cpu",
    )
    with pytest.raises(UsageError, match=r"--statistics: .*run predicts pixels as they are"):
        reconstruct_files(options)
