"""A convolutional stem: where it looks, what it sees of hidden patches, and what it refuses."""

from itertools import pairwise

import pytest
import torch

import tiny
from maekit.config import ClassifierConfig
from maekit.errors import ModelError
from maekit.models import classifier
from maekit.models.stem import ConvStem
from maekit.models.vit import VIT


@pytest.mark.parametrize(("patch", "convolutions"), [(2, 2), (4, 3), (8, 4)])
def test_it_has_a_halving_for_each_power_of_two_and_the_widths_double(patch, convolutions):
    stem = VIT.build(tiny.model_config(stem="conv", patch_size=patch)).patch_embed
    widths = [layer.out_channels for layer in stem.proj if isinstance(layer, torch.nn.Conv2d)]
    assert len(widths) == convolutions
    assert widths[-2:] == [32, 32]
    assert all(after == 2 * before for before, after in pairwise(widths[:-1]))
    assert stem(torch.zeros(2, 3, 16, 24)).shape == (2, 16 * 24 // patch**2, 32)


def test_what_a_token_sees_lies_around_the_middle_of_its_patch():
    stem = ConvStem(img_size=(32, 32), patch_size=4, in_chans=1, embed_dim=16)
    images = torch.randn(1, 1, 32, 32, requires_grad=True)
    stem(images)[0, 3 * 8 + 5].sum().backward()  # row 3, column 5: pixels from 12 and 20 on
    rows, columns = images.grad[0, 0].nonzero().T
    assert (rows.min(), rows.max()) == (12 - 3, 15 + 3)
    assert (columns.min(), columns.max()) == (20 - 3, 23 + 3)


def test_with_nothing_hidden_tokens_are_those_of_whole_images():
    stem = ConvStem(img_size=(16, 24), patch_size=4, in_chans=3, embed_dim=16)
    images = torch.randn(2, 3, 16, 24)
    masked = torch.zeros(2, 24, dtype=torch.bool)
    assert torch.equal(stem.of_visible(images, masked), stem(images))
    masked[1, 7] = True
    blanked = images.clone()
    blanked[1, :, 4:8, 4:8] = 0
    assert torch.equal(stem.of_visible(images, masked), stem(blanked))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": (4, 8)}, "squares of 2, 4, 8 ... px, not 4x8"),
        ({"patch_size": 1}, "squares of 2, 4, 8 ... px, not 1x1"),
        ({"patch_size": 6, "image_size": 24}, "squares of 2, 4, 8 ... px, not 6x6"),
        ({"patch_size": 8, "width": 36, "positions": "learned", "heads": 3, "depth": 1}, None),
        ({"patch_size": 8, "width": 34, "positions": "learned", "depth": 1}, "a multiple of 4, not 34"),
        ({"positions": "rotary"}, "neither model.channel_tokens nor model.positions rotary"),
        ({"channel_tokens": True}, "neither model.channel_tokens nor model.positions rotary"),
    ],
)
def test_what_it_cannot_be_is_said_in_one_line(changes, words):
    config = tiny.model_config(stem="conv", **changes)
    if words is None:
        VIT.build(config)
        return
    with pytest.raises(ModelError, match=words) as caught:
        VIT.build(config)
    assert "\n" not in str(caught.value)


def classifier_of(patch_drop, **changes):
    half = (0.5,) * 3
    settings = ClassifierConfig(pooling="mean", patch_drop=patch_drop)
    return classifier.build(tiny.model_config(**changes), settings, ("a", "b"), mean=half, std=half, seed=0)


def test_patches_are_dropped_in_training_alone():
    model, whole = classifier_of(0.75), classifier_of(0.0)
    seen = []
    model.encoder.blocks[0].register_forward_pre_hook(lambda _, tokens: seen.append(tokens[0].shape[1]))
    images = torch.randn(2, 3, 16, 24)
    one, other = model(images), model(images)
    assert not torch.equal(one, other)  # other patches each time
    torch.testing.assert_close(model.eval()(images), whole.eval()(images))
    assert seen == [1 + 6, 1 + 6, 1 + 24]


@pytest.mark.parametrize("changes", [{"positions": "rotary"}, {"encoder": "hiera_tiny_224"}])
def test_encoders_that_take_whole_images_refuse_to_drop_patches(changes):
    if "encoder" in changes:
        changes |= {"image_size": 64, "patch_size": None, "width": 16, "depth": None, "heads": None}
    with pytest.raises(ModelError, match=r"^classifier.patch_drop: \w+ takes whole images; leave it out$"):
        classifier_of(0.5, **changes)
