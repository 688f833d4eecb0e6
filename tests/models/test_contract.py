"""What a family promises, checked alike for every family, way of masking and size name."""

import re
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file

from maekit import presets
from maekit.config import ClassifierConfig, ModelConfig, OptimizerConfig, TargetConfig
from maekit.engine import optimizer
from maekit.errors import ModelError, WeightsError
from maekit.models import classifier
from maekit.models.family import Shown, family_of, features, layer_ids
from maekit.models.mae import MaskedAutoencoder
from maekit.models.stem import ConvStem
from maekit.patches import patchify, refine, split, take
from maekit.randomness import keys_tensor
from maekit.weights import export, native
from maekit.weights.load import load
from maekit.weights.timm import TIMM
from tiny_families import HIERA, KINDS, ONE_IN_2X2, PUBLISHED, SIZES, SWIN, VIT, mask_for

every_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def built(config: ModelConfig, pixels: str = "normalised") -> MaskedAutoencoder:
    """With nothing left at zero: a Swin V2's norms begin there, and would hide what comes before them."""
    torch.manual_seed(0)
    half = (0.5,) * config.channels
    model = MaskedAutoencoder(config, TargetConfig(kind=pixels), mask_for(config), mean=half, std=half)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def example(model: MaskedAutoencoder) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(standardised images, masks, keys) of two images."""
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(2, model.config.channels, *model.config.image_hw, generator=draw)
    keys = keys_tensor(0, torch.arange(2))
    return images, model.objective.mask.draw(keys), keys


def over_pixels(masked: torch.Tensor, model: MaskedAutoencoder) -> torch.Tensor:
    """[N, L] as [N, 1, H, W], with channel tokens as [N, C, H, W]."""
    units = masked.view(len(masked), 1, *model.grid)
    pixels = units.repeat_interleave(model.unit[0], 2).repeat_interleave(model.unit[1], 3)
    return pixels.reshape(len(masked), -1, *model.config.image_hw)


def loss_of(model: MaskedAutoencoder, images: torch.Tensor, masked: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    prediction = model(images, masked, keys=keys)
    return model.objective.loss(images, prediction.patches, prediction.index)


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_every_size_predicts_its_hidden_units_and_trains_every_parameter(config):
    model = built(config)
    images, masked, keys = example(model)
    prediction = model(images, masked)
    fine = refine(masked, model.grid, model.parts)
    assert torch.equal(fine.nonzero()[:, 1].view(2, -1), prediction.index)
    values = model.patch[0] * model.patch[1] * config.channels
    assert prediction.patches.shape == (*prediction.index.shape, values)
    loss_of(model, images, masked, keys).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


@pytest.mark.parametrize("module", ["swin_transformer", "swin_transformer_v2", "hiera"])
def test_every_size_that_timm_has_is_among_them(module):
    assert set(timm.list_models(module=module)) == {name for name in SIZES if _module_of(name) == module}


def _module_of(name):
    return timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]


def test_a_swin_that_never_sees_a_mask_takes_its_own_sizes():
    config = replace(SIZES[SWIN], image_size=224, window=7)
    assert family_of(SWIN).build(config).patch_embed.grid_size == (56, 56)
    with pytest.raises(ModelError, match="uniform"):
        family_of(SWIN).build(config, masked=True)


def test_a_patch_of_one_value_cannot_be_normalised():
    config = replace(SIZES[VIT], patch_size=1, image_size=4, channels=1)
    with pytest.raises(ModelError, match=r"^target.kind: .* take raw$"):
        MaskedAutoencoder(config, TargetConfig(kind="normalised"), mask_for(config), mean=(0.5,), std=(0.5,))


def test_presets_at_imagenet_size_are_all_known():
    assert presets.PRETRAIN.keys() - PUBLISHED.keys() == {
        "cifar", "cifar-laptop", "digits", "vit-tiny-fast", "vit-base-fast", "vit-large-fast", "vit-tiny-small-data",
    }  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_shapes_and_timms_names(name):
    preset, (unit, side, width) = presets.PRETRAIN[name](), PUBLISHED[name]
    with torch.device("meta"):
        model = MaskedAutoencoder(preset.model, preset.target, preset.mask, mean=(0.5,) * 3, std=(0.5,) * 3)
        timms = timm.create_model(preset.model.encoder, num_classes=0)
    assert (model.unit, model.grid) == ((unit, unit), (side, side))
    parts = 2 if name.startswith("hiera") else 1
    assert (model.patch, model.patch_grid) == ((unit // parts,) * 2, (side * parts,) * 2)
    assert model.family.latent_width(model.encoder, preset.model) == width
    assert model.encoder.state_dict().keys() == timms.state_dict().keys()
    painted = "painted" in model.family.mask_kinds(preset.model)
    assert painted == (preset.mask.kind != "one_in_2x2")


@every_kind
def test_hidden_pixels_are_never_seen(config):
    model = built(config).eval()
    images, masked, _ = example(model)
    elsewhere = torch.where(over_pixels(masked, model), torch.randn_like(images), images)
    assert not torch.equal(images, elsewhere)
    with torch.no_grad():
        assert torch.equal(model(images, masked).patches, model(elsewhere, masked).patches)
        shown = torch.where(over_pixels(masked, model), images, torch.randn_like(images))
        assert not torch.equal(model(images, masked).patches, model(shown, masked).patches)


@pytest.mark.parametrize("pixels", ["raw", "normalised"])
@every_kind
def test_the_loss_compares_hidden_pixels_alone(config, pixels):
    model = built(config, pixels).eval()
    images, masked, _ = example(model)
    with torch.no_grad():
        prediction = model(images, masked)

    def loss(compared):
        return model.objective.loss(compared, prediction.patches, prediction.index)

    hidden = over_pixels(masked, model)
    assert loss(images) == loss(torch.where(hidden, images, torch.randn_like(images)))
    assert loss(images) != loss(torch.where(hidden, torch.randn_like(images), images))


@every_kind
def test_recomputed_activations_are_the_same(config):
    model = built(config)
    gradients = []
    for recomputes in (False, True):
        model.recompute_activations(recomputes)
        model.zero_grad()
        loss_of(model, *example(model)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


@every_kind
def test_masks_of_other_kinds_get_one_line(config):
    model = built(config)
    takes = model.family.mask_kinds(config)
    for kind in ("random", "block", "grid", "one_in_2x2", "painted"):
        if kind in takes:
            model.check_mask(kind)
        else:
            with pytest.raises(ModelError, match=rf"^mask\.kind {kind}: {config.encoder} takes .*one_in_2x2[^\n]*$"):
                model.check_mask(kind)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["vit", "swin uniform", "swin v2 uniform", "swin dense", "swin v2 dense", "hiera"])
def test_sizes_that_do_not_fit_name_the_nearest_that_do(kind, axis):
    config = KINDS[kind]
    family, sides = family_of(config.encoder), list(config.image_hw)
    sides[axis] += 3
    with pytest.raises(ModelError) as caught:
        family.build(replace(config, image_size=tuple(sides)), masked=True)
    message = str(caught.value)
    assert "\n" not in message
    assert str(sides[axis]) in message
    proposed = [int(side) for side in re.findall(r"\d+", message.split("; take ")[1])]
    assert config.image_hw[axis] in proposed
    for side in proposed:
        sides[axis] = side
        family.build(replace(config, image_size=tuple(sides)), masked=True)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        (VIT, {"window": 7, "swin_method": "dense", "secondary_ratio": 0.5}),
        (
            SWIN,
            {
                "depth": 3,
                "heads": 2,
                "class_token": False,
                "register_tokens": 1,
                "positions": "rotary",
                "layer_scale": 0.1,
                "channel_tokens": True,
            },
        ),
        (HIERA, {"patch_size": 8, "depth": 3, "window": 7, "swin_method": "dense", "channel_tokens": True}),
    ],
)
def test_options_of_other_families_are_refused_in_one_line(encoder, options):
    for name, value in options.items():
        with pytest.raises(ModelError, match=rf"^model\.{name}: {encoder} has no such option; leave it out$"):
            family_of(encoder).build(replace(SIZES[encoder], **{name: value}))


@every_kind
def test_the_encoder_is_timms_own(config):
    """A plain timm model takes the weights and gives the features."""
    model = built(config).eval()
    arguments = {"embed_dim": config.width, "in_chans": config.channels, "img_size": config.image_hw, "num_classes": 0}
    if config.encoder.startswith("vit"):
        arguments |= {"patch_size": config.patch_size, "num_heads": config.heads, "class_token": config.class_token}
        arguments["global_pool"] = "token" if config.class_token else "avg"
    if config.encoder.startswith("swin"):
        arguments["window_size"] = config.window
    name = config.encoder
    if config.layer_scale:
        arguments["init_values"] = config.layer_scale
    if config.positions == "rotary":
        name = "vit_base_patch16_rope_224" if config.layer_scale else "eva_giant_patch14_224"
        arguments |= {
            "num_reg_tokens": config.register_tokens, "depth": 12, "use_fc_norm": False, "mlp_ratio": 4.0,
            "attn_type": "rope", "use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_grid_indexing": "xy",
            "rope_temperature": 100.0,
        }  # fmt: skip
    elif config.register_tokens:
        arguments["reg_tokens"] = config.register_tokens
    if config.stem == "conv":
        arguments["embed_layer"] = ConvStem
    if config.channel_tokens:
        arguments |= {"in_chans": 1, "img_size": (config.channels * config.image_hw[0], config.image_hw[1])}
    native = timm.create_model(name, **arguments).eval()
    native.load_state_dict(model.encoder.state_dict(), strict=True)
    images, *_ = example(model)
    theirs = images.flatten(1, 2)[:, None] if config.channel_tokens else images
    with torch.no_grad():
        assert torch.equal(native(theirs), model.encoder(images))


@every_kind
def test_timms_layout_and_back_loses_nothing(config, tmp_path):
    model = native.encoder_of(built(config))
    TIMM.write(model, tmp_path / "timm.safetensors")
    assert load_file(tmp_path / "timm.safetensors").keys() == model.encoder.state_dict().keys()
    back = load(tmp_path / "timm.safetensors")
    assert back.config.image_hw == config.image_hw
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    images = torch.rand(2, config.channels, *config.image_hw)
    with torch.no_grad():
        assert torch.equal(model.features(images), back.features(images))


@every_kind
def test_a_reconstructor_that_would_keep_its_example_is_refused_in_one_line(config):
    model = built(config)
    if not (config.encoder.startswith("vit") or model.family.dense(config)):
        with pytest.raises(WeightsError, match=r"^[^\n]*; --part encoder leaves the decoder out$"):
            export.graph_of(model)
        model = native.encoder_of(model)
    assert export.graph_of(model).inputs[0] == "images"


def test_a_reconstructor_with_mask_tokens_is_traced_for_any_number_of_images(tmp_path):
    graph = export.graph_of(built(KINDS["swin dense"]))
    export.save_torch_export(graph, tmp_path / "graph.pt2")
    run = torch.export.load(tmp_path / "graph.pt2").module()
    for count in (1, 4):
        images, visible = export.example(graph, count, seed=count)
        with torch.no_grad():
            torch.testing.assert_close(run(images, visible), graph(images, visible), atol=1e-4, rtol=1e-4)


@every_kind
def test_whole_images_have_features(config):
    model = built(config).eval()
    images, *_ = example(model)
    with torch.no_grad():
        pooled, patches = (features(model.encoder, images, kind) for kind in ("pooled", "patches"))
    assert pooled.shape == (2, patches.shape[2])
    torch.testing.assert_close(patches.mean(1), pooled)


@every_kind
def test_most_latents_answer_most_to_the_pixels_of_their_units(config):
    model = built(config).eval()
    images, masked, _ = example(model)
    visible, _ = split(masked)
    latents = model.family.encode_visible(model.encoder, model.adapter, Shown(images.requires_grad_(), masked, visible))
    tokens, index = latents.patches, latents.index
    if index is None:
        assert model.family.dense(config)
        assert tokens.shape[1] == masked.shape[1]
        tokens, index = take(tokens, visible), visible
    shown, _ = split(refine(masked, model.grid, model.parts))
    assert tokens.shape == (*shown.shape, model.family.latent_width(model.encoder, config))
    assert torch.equal(index.sort(dim=1).values, shown)
    # A packed Swin's last token looks at four units in a row, and numbers as coarse as that are often right by chance.
    # Elsewhere not all need agree: where attention is global, an untrained token may answer more to a neighbour.
    side, least = (4, 1) if model.mask is ONE_IN_2X2 else (1, 2 / 3)
    mixture = torch.randn(tokens.shape[2], generator=torch.Generator().manual_seed(3))
    strongest = []
    for place in range(tokens.shape[1]):
        (gradient,) = torch.autograd.grad((tokens[:, place] @ mixture).sum(), images, retain_graph=True)
        strongest.append(patchify(model.geometry.seen(gradient), model.patch).norm(dim=2).argmax(dim=1))
    answered, named = (
        torch.stack([patches // model.patch_grid[1] // side, patches % model.patch_grid[1] // side])
        for patches in (torch.stack(strongest, dim=1), index)
    )
    assert (answered == named).all(dim=0).float().mean() >= least


@every_kind
def test_layers_and_decay_cover_every_parameter(config):
    model = built(config)
    ids, last = layer_ids(model.encoder)
    names = dict(model.encoder.named_parameters())
    assert names.keys() <= ids.keys()
    assert set(ids.values()) == set(range(last + 1))
    for name, parameter in names.items():
        exempt = parameter.ndim <= 1 or any(
            word in name for word in ("pos_embed", "token", "bias_table", "logit_scale", "cpb_mlp")
        )
        assert optimizer.decays(name, parameter) == (not exempt), name


@every_kind
def test_a_classifier_on_it_learns(config):
    half = (0.5,) * config.channels
    settings = ClassifierConfig(pooling="mean")
    model = classifier.build(config, settings, ("a", "b"), mean=half, std=half, seed=0)
    labels = torch.tensor([0, 1])
    images = torch.randn(2, config.channels, *config.image_hw, generator=torch.Generator().manual_seed(2))
    images = images + labels[:, None, None, None]
    steps = optimizer.build(OptimizerConfig(lr=1e-3), list(model.named_parameters()), 1e-3)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        steps.step()
        steps.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
