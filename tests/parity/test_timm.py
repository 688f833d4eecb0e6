"""timm's models against maekit's, built at random and carried in both directions."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maekit.config.verbs import ConvertOptions, WeightsOptions
from maekit.errors import WeightsError
from maekit.inference.convert import convert
from maekit.models.classifier import Classifier
from maekit.weights.load import load

VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
GIVEN = WeightsOptions(heads=2)
MODELS = {
    "vit, class token": ("vit_tiny_patch16_224", VIT, GIVEN),
    "vit, mean": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg"}, GIVEN),
    "vit, mean, no class token": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg", "class_token": False}, GIVEN),
    "vit, registers": ("vit_tiny_patch16_224", {**VIT, "reg_tokens": 2}, GIVEN),
    "vit, layer scale by name": (
        "vit_base_patch14_dinov2", {**VIT, "img_size": 28, "patch_size": 14},
        WeightsOptions(heads=2, encoder="vit_base_patch14_dinov2"),
    ),
    "vit, layer scale": ("vit_tiny_patch16_224", {**VIT, "init_values": 0.1}, GIVEN),
    "vit, rotary": ("vit_small_patch16_rope_224", VIT, WeightsOptions(heads=2, image_size=32)),
    "vit, rotary, mean, registers, no layer scale": (
        "eva_giant_patch14_224", {**VIT, "num_reg_tokens": 2, "mlp_ratio": 4.0, "attn_type": "rope",
        "use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_grid_indexing": "xy", "rope_temperature": 100.0},
        WeightsOptions(heads=2, image_size=32),
    ),
    "swin": ("swin_tiny_patch4_window7_224", {"img_size": 224, "embed_dim": 12}, WeightsOptions()),
    "swinv2": ("swinv2_tiny_window8_256", {"img_size": 64, "embed_dim": 12, "window_size": 8},
               WeightsOptions(image_size=64, encoder="swinv2_tiny_window8_256")),
    "swinv2, window 16": ("swinv2_tiny_window16_256", {"img_size": 128, "embed_dim": 12},
                          WeightsOptions(image_size=128, encoder="swinv2_tiny_window16_256")),
    "hiera": ("hiera_tiny_224", {"img_size": 64, "embed_dim": 8}, WeightsOptions()),
    "hiera, layer scale": ("hiera_tiny_224", {"img_size": 64, "embed_dim": 8, "init_values": 0.1}, WeightsOptions()),
}  # fmt: skip


def random_model(name, arguments, classes):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes, **arguments).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("case", MODELS)
def test_classifier_in_out_and_back(case, tmp_path):
    name, arguments, options = MODELS[case]
    theirs = random_model(name, arguments, classes=3)
    save_file(theirs.state_dict(), tmp_path / "in.safetensors")
    ours = load(tmp_path / "in.safetensors", options)
    assert isinstance(ours, Classifier)
    images = torch.randn(2, 3, *ours.config.image_hw)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-4, rtol=0)
    out = tmp_path / "out"
    convert(ConvertOptions(weights=str(tmp_path / "in.safetensors"), to="timm", out=str(out), **vars(options)))
    again = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in theirs.state_dict().items())
    back = load(out)
    assert back.config == ours.config
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("case", ["vit, class token", "vit, rotary", "swin", "hiera"])
def test_encoder_in(case, tmp_path):
    name, arguments, options = MODELS[case]
    theirs = random_model(name, arguments, classes=0)
    save_file(theirs.state_dict(), tmp_path / "in.safetensors")
    ours = load(tmp_path / "in.safetensors", options)
    assert all(torch.equal(value, ours.encoder.state_dict()[key]) for key, value in theirs.state_dict().items())


def test_rotary_vits_are_known_by_timms_hub_config(tmp_path):
    theirs = random_model("vit_small_patch16_rope_224", {"img_size": 32, "depth": 1}, classes=0)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    card = {"architecture": "vit_small_patch16_rope_224", "model_args": {"img_size": 32, "depth": 1}}
    (tmp_path / "config.json").write_text(json.dumps(card))
    ours = load(tmp_path)
    assert (ours.config.positions, ours.encoder.blocks[0].attn.num_heads) == ("rotary", 6)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours.encoder(images), theirs(images))


def test_other_rotary_encoders_of_timms_are_refused_in_one_line(tmp_path):
    arguments = {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 1, "num_heads": 2, "global_pool": "token"}
    for name, reason in (("vit_small_patch16_rope_mixed_224", "rope.freqs"), ("eva02_tiny_patch14_224", "fc1.weight")):
        save_file(random_model(name, arguments, classes=0).state_dict(), tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=reason) as caught:
            load(tmp_path / "w.safetensors", WeightsOptions(heads=2, image_size=28))
        assert "\n" not in str(caught.value)


def test_the_window_of_a_swin_v2_is_never_guessed(tmp_path):
    theirs = random_model("swinv2_tiny_window16_256", {"img_size": 64, "embed_dim": 12}, classes=0)
    save_file(theirs.state_dict(), tmp_path / "in.safetensors")
    with pytest.raises(WeightsError, match=r"please give --encoder .*window"):
        load(tmp_path / "in.safetensors")


def test_one_file_says_what_it_is(tmp_path):
    theirs = random_model("vit_tiny_patch16_224", VIT, classes=3)
    save_file(theirs.state_dict(), tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    convert(ConvertOptions(weights=str(tmp_path / "in.safetensors"), to="timm", out=str(out), **vars(GIVEN)))
    with safe_open(out, framework="pt") as file:
        card = file.metadata()
    arguments = json.loads(card["model_args"])
    plain = timm.create_model(card["architecture"], num_classes=int(card["num_classes"]), **arguments)
    plain.load_state_dict(load_file(out), strict=True)
    assert json.loads(card["pretrained_cfg"])["mean"] == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize("wrapping", ["plain", "model", "state_dict", "module."])
def test_wrappings_of_pickled_state_dicts(wrapping, tmp_path):
    state = random_model("vit_tiny_patch16_224", {**VIT, "reg_tokens": 1}, classes=3).state_dict()
    if wrapping == "module.":
        state = {wrapping + name: tensor for name, tensor in state.items()}
    torch.save(state if wrapping in ("plain", "module.") else {wrapping: state, "epoch": 3}, tmp_path / "in.pth")
    ours = load(tmp_path / "in.pth", GIVEN)
    assert torch.equal(ours.head.weight, state.get("head.weight", state.get("module.head.weight")))


def test_hub_config_tells_standardisation_and_classes(tmp_path):
    save_file(random_model("vit_tiny_patch16_224", VIT, classes=3).state_dict(), tmp_path / "model.safetensors")
    card = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": VIT,
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3], "label_names": ["jay", "kite", "owl"]},
    }
    (tmp_path / "config.json").write_text(json.dumps(card))
    model = load(tmp_path)
    assert model.classes == ("jay", "kite", "owl")
    assert model.standardise.values()[1] == pytest.approx((0.1, 0.2, 0.3))
    assert model.encoder.blocks[0].attn.num_heads == 2


@pytest.mark.parametrize(
    ("arguments", "classes", "reason"),
    [
        ({"reg_tokens": 2, "no_embed_class": True}, 3, "--encoder"),
        ({"proj_bias": False}, 3, "proj.bias is missing.*--encoder"),
        ({"global_pool": "avg"}, 0, "norm follows the mean"),
        ({"img_size": (32, 16)}, 0, "--image-size"),
    ],
)
def test_what_cannot_be_told_is_asked_for(arguments, classes, reason, tmp_path):
    theirs = random_model("vit_tiny_patch16_224", {**VIT, **arguments}, classes)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=reason):
        load(tmp_path / "w.safetensors", GIVEN)


def test_image_size_given_for_images_that_are_not_square(tmp_path):
    theirs = random_model("vit_tiny_patch16_224", {**VIT, "img_size": (32, 16)}, classes=3)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = load(tmp_path / "w.safetensors", WeightsOptions(heads=2, image_size=(32, 16)))
    images = torch.randn(2, 3, 32, 16)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-4, rtol=0)
