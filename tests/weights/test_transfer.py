"""Existing weights into a model about to be trained: all of them, or a refusal that says what to do."""

import pytest
import torch

import tiny
from maekit.errors import WeightsError
from maekit.weights import native
from maekit.weights.transfer import continue_from


@pytest.fixture
def saved(model_of, tmp_path):
    def save(kind, **changes):
        model, path = model_of(kind, **changes), tmp_path / "w.safetensors"
        native.save(model, path)
        return model, str(path)

    return save


def started(model_of, **changes):
    """A model whose weights are other than those of the fixture."""
    model = model_of("masked_autoencoder", **changes)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_a_masked_autoencoder_gives_all_it_has(saved, model_of):
    source, path = saved("masked_autoencoder")
    model = started(model_of)
    continue_from(model, path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in source.state_dict().items())


def test_an_encoder_leaves_the_decoder_as_it_was(saved, model_of):
    source, path = saved("encoder")
    model = started(model_of)
    before = model.decoder.mask_token.clone()
    continue_from(model, path)
    assert torch.equal(model.encoder.cls_token, source.encoder.cls_token)
    assert torch.equal(model.decoder.mask_token, before)


@pytest.mark.parametrize(
    ("changes", "first", "fix"),
    [
        ({"width": 64}, r"encoder\.cls_token is \[1, 1, 64\], the model's \[1, 1, 32\]", "of width 64"),
        ({"image_size": 32}, r"encoder\.pos_embed is", "maekit convert with --image-size, --resample-positions"),
        ({"depth": 5}, r"encoder\.blocks\.3\.norm1\.weight is unexpected.*and \d+ more", "has 5 blocks"),
    ],
)
def test_another_encoder_is_refused_with_the_likely_fix(changes, first, fix, saved, model_of):
    _, path = saved("encoder", **changes)
    with pytest.raises(WeightsError, match=rf"its encoder \(.*\) does not fit: {first}.*likely fix: .*{fix}"):
        continue_from(started(model_of), path)


def test_another_decoder_is_refused(saved, model_of):
    _, path = saved("masked_autoencoder", decoder=tiny.decoder_config(width=32))
    with pytest.raises(WeightsError, match=r"its decoder does not fit: decoder\.mask_token .*the decoder's width"):
        continue_from(started(model_of), path)
