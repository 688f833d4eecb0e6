"""Swin as a masked autoencoder: the packed network is the native one without hidden keys, the dense one is SimMIM's."""

import re

import pytest
import torch
from timm.models.swin_transformer import window_partition, window_reverse
from torch import Tensor, nn

from maekit.models.family import Shown, grid_of
from maekit.models.swin import SWIN
from maekit.patches import split
from tiny_swins import V1, V2, batch, built, dense, over_pixels, uniform


def native_block(block: nn.Module, tokens: Tensor, hidden: Tensor) -> Tensor:
    """timm's block, its own attention told to ignore the hidden keys. tokens [N, h, w, D], hidden [N, h, w]."""
    post_norm = not hasattr(block.attn, "relative_position_bias_table")
    shift, window = block.shift_size, block.window_size
    back = tuple(-s for s in shift)
    inputs = tokens if post_norm else block.norm1(tokens)
    windows = window_partition(inputs.roll(back, (1, 2)), window).flatten(1, 2)
    keys = window_partition(hidden[..., None].roll(back, (1, 2)), window).flatten(1)
    mask = torch.zeros(len(keys), 1, keys.shape[1], dtype=tokens.dtype).masked_fill(keys[:, None, :], float("-inf"))
    mask = mask.expand(-1, keys.shape[1], -1)
    if block.attn_mask is not None:
        mask = mask + block.attn_mask.repeat(len(tokens), 1, 1)
    seen = block.attn(windows, mask=mask).unflatten(1, window)
    seen = window_reverse(seen, window, *tokens.shape[1:3]).roll(shift, (1, 2))
    if post_norm:
        tokens = tokens + block.norm1(seen)
        return tokens + block.norm2(block.mlp(tokens))
    tokens = tokens + seen
    return tokens + block.mlp(block.norm2(tokens))


def native_without_hidden(encoder: nn.Module, images: Tensor, masked: Tensor, grid: tuple[int, int]) -> Tensor:
    """Output of the third stage, one token a unit, of the whole image's native network without hidden keys."""
    tokens = encoder.patch_embed(images)
    for stage in encoder.layers[:3]:
        tokens = stage.downsample(tokens)
        hidden = masked.view(-1, *grid).repeat_interleave(tokens.shape[1] // grid[0], 1)
        hidden = hidden.repeat_interleave(tokens.shape[2] // grid[1], 2)
        for block in stage.blocks:
            tokens = native_block(block, tokens, hidden)
    return tokens


@pytest.mark.parametrize("name", [V1, V2])
@pytest.mark.parametrize("size", [128, (64, 128)])
def test_packed_network_is_the_native_one_without_hidden_keys(name, size):
    """Three stages against timm's attention over the whole image; the last, which merges units, with flat biases."""
    config = uniform(name, size)
    encoder, adapter = (module.double().eval() for module in built(config))
    for block in encoder.layers[3].blocks:
        nn.init.zeros_(block.attn.cpb_mlp[2].weight if name == V2 else block.attn.relative_position_bias_table)
    images, _, masked, visible = batch(config, encoder)
    images, (rows, columns) = images.double(), grid_of(SWIN, encoder, config)

    third = native_without_hidden(encoder, images, masked, (rows, columns)).flatten(1, 2)
    blocks = visible // columns // 2 * (columns // 2) + visible % columns // 2
    in_blocks = visible.gather(1, blocks.argsort(dim=1))
    packed = torch.stack([tokens[index] for tokens, index in zip(third, in_blocks, strict=True)])
    last = encoder.layers[3].downsample(packed.unflatten(1, (rows // 2, columns // 2)))
    # without biases, keys that all stand there four times weigh what they weigh once: the full grid's native blocks fit
    last = last.repeat_interleave(2, 1).repeat_interleave(2, 2)
    for block in encoder.layers[3].blocks:
        last = block(last)
    expected = adapter.units(encoder.norm(last[:, ::2, ::2]))

    latents = SWIN.encode_visible(encoder, adapter, Shown(images, masked, visible))
    order = latents.index.argsort(dim=1).argsort(dim=1).gather(1, blocks.argsort(dim=1))
    found = torch.stack([tokens[index] for tokens, index in zip(latents.tokens, order, strict=True)])
    assert torch.equal(latents.index, visible)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [4, 8])
def test_the_places_of_visible_units_matter(window):
    """The same packed image from other places gives other latents, also where offsets are beyond the small tables."""
    config = uniform(size=128, window=window)
    encoder, adapter = built(config)
    rows, columns = grid_of(SWIN, encoder, config)
    packed = torch.randn(1, 3, 64, 64)
    latents = []
    for corner in ((0, 0), (0, 1)):
        shown = torch.zeros(rows, columns, dtype=torch.bool)
        shown[corner[0] :: 2, corner[1] :: 2] = True
        shown[0, :2] = torch.tensor([True, False])  # one unit keeps its place, so that offsets differ
        images = torch.zeros(1, 3, 128, 128)
        images[over_pixels(shown.view(1, -1), config, encoder).expand(-1, 3, -1, -1)] = packed.flatten()
        masked = ~shown.view(1, -1)
        latents.append(SWIN.encode_visible(encoder, adapter, Shown(images, masked, split(masked)[0])).tokens)
    assert torch.isfinite(latents[0]).all()
    assert not torch.allclose(latents[0], latents[1])


@pytest.mark.parametrize(
    "config", [uniform(), uniform(V2, (64, 128)), uniform(channels=1), dense(size=(64, 128), channels=5)]
)
def test_hidden_pixels_are_never_looked_at(config):
    encoder, adapter = built(config)
    images, keys, masked, visible = batch(config, encoder)
    seen = SWIN.encode_visible(
        encoder, adapter, Shown(images, masked, visible, replaced=SWIN.replaced(adapter, visible, keys))
    )
    poisoned = images.masked_fill(over_pixels(masked, config, encoder), float("nan"))
    again = SWIN.encode_visible(
        encoder, adapter, Shown(poisoned, masked, visible, replaced=SWIN.replaced(adapter, visible, keys))
    )
    assert torch.equal(seen.tokens, again.tokens)
    assert seen.tokens.shape[-1] == SWIN.latent_width(encoder, config)


def test_dense_is_the_native_network_over_mask_tokens():
    config = dense(V2, (64, 128))
    encoder, adapter = built(config)
    images, _, masked, visible = batch(config, encoder)
    share = over_pixels(masked, config, encoder)[:, 0, ::4, ::4, None].float()
    tokens = encoder.patch_embed(images) * (1 - share) + adapter.token * share
    expected = encoder.norm(encoder.layers(tokens)).flatten(1, 2)
    latents = SWIN.encode_visible(encoder, adapter, Shown(images, masked, visible))
    assert latents.index is None
    torch.testing.assert_close(latents.tokens, expected)


@pytest.mark.parametrize(
    "config", [uniform(size=128), uniform(V2, 128), dense(), dense(V2), uniform(size=128, secondary_ratio=0.0)]
)
def test_gradient_reaches_every_parameter(config):
    encoder, adapter = built(config)
    images, keys, masked, visible = batch(config, encoder)
    tokens = SWIN.encode_visible(
        encoder, adapter, Shown(images, masked, visible, replaced=SWIN.replaced(adapter, visible, keys))
    ).tokens
    tokens.mul(torch.randn_like(tokens)).sum().backward()
    parameters = dict(encoder.named_parameters()) | dict(adapter.named_parameters())
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("size", "images", "missed"), [(128, 64, 0), ((64, 128), 96, 2)])
def test_gradient_reaches_every_position_bias(size, images, missed):
    """In the last stage too, where packed tokens are about two native ones apart; of one row, all but what is said."""
    config = uniform(size=size)
    encoder, adapter = built(config)
    pixels, keys, masked, visible = batch(config, encoder, images)
    tokens = SWIN.encode_visible(
        encoder, adapter, Shown(pixels, masked, visible, replaced=SWIN.replaced(adapter, visible, keys))
    ).tokens
    tokens.mul(torch.randn_like(tokens)).sum().backward()
    tables = {n: p.grad for n, p in encoder.named_parameters() if n.endswith("relative_position_bias_table")}
    assert len(tables) == 12
    without = {name: int((grad == 0).all(dim=1).sum()) for name, grad in tables.items()}
    assert without == {name: missed if name.startswith("layers.3.") else 0 for name in tables}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (uniform(), "at 64x64 px: .* take a larger --image-size, such as 128$"),
        (uniform(V2), "take a larger --image-size, such as 128$"),
        (uniform(window=17), "such as 128 with --model.window 16$"),
        (uniform(size=256, window=2), "take a --model.window of 4 or more$"),
        (uniform(size=128), None),
        (uniform(size=(64, 128)), "one row of tokens a window at 64x128 px: two of .* such as 128$"),
        (uniform(size=256), None),
        (dense(size=32), None),
        (dense(), None),
    ],
)
def test_a_packed_last_stage_of_one_token_is_said_with_a_size_that_works(config, expected):
    said = SWIN.untrained(SWIN.build(config, masked=True), config)
    assert said is None if expected is None else re.search(expected, said), said


def test_what_is_said_to_be_untrained_is_all_that_is():
    config = uniform()
    encoder, adapter = built(config)
    images, keys, masked, visible = batch(config, encoder, 8)
    tokens = SWIN.encode_visible(
        encoder, adapter, Shown(images, masked, visible, replaced=SWIN.replaced(adapter, visible, keys))
    ).tokens
    tokens.mul(torch.randn_like(tokens)).sum().backward()
    still = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == {f"layers.3.blocks.{block}.attn.relative_position_bias_table" for block in (0, 1)}


@pytest.mark.parametrize("config", [uniform(), dense()])
def test_recomputed_activations_change_nothing(config):
    encoder, adapter = built(config)
    images, keys, masked, visible = batch(config, encoder)
    gradients = []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        encoder.zero_grad()
        SWIN.encode_visible(
            encoder, adapter, Shown(images, masked, visible, replaced=SWIN.replaced(adapter, visible, keys))
        ).tokens.square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", [V1, V2])
def test_half_precision_stays_near(name):
    config = uniform(name)
    torch.manual_seed(0)
    encoder = SWIN.build(config).eval()
    adapter = SWIN.adapter(encoder, config)
    images, _, masked, visible = batch(config, encoder)
    exact = SWIN.encode_visible(encoder, adapter, Shown(images, masked, visible)).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = SWIN.encode_visible(encoder, adapter, Shown(images, masked, visible)).tokens
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_secondary_masking_hides_its_share_by_key():
    config = uniform(size=128, secondary_ratio=0.5)
    encoder, adapter = built(config)
    images, keys, masked, visible = batch(config, encoder)

    def encode(pixels, draws):
        replaced = None if draws is None else SWIN.replaced(adapter, visible, draws)
        return SWIN.encode_visible(encoder, adapter, Shown(pixels, masked, visible, replaced=replaced)).tokens

    with_token = encode(images, keys)
    assert torch.equal(with_token, encode(images, keys))
    assert not torch.allclose(with_token, encode(images, None))
    assert not torch.allclose(with_token, encode(images, keys + 1))
    blind = 0  # visible units whose pixels change nothing
    for unit in visible[0].tolist():
        units = torch.zeros_like(masked)
        units[0, unit] = True
        changed = images.masked_fill(over_pixels(units, config, encoder), float("nan"))
        blind += bool(torch.isfinite(encode(changed, keys)).all())
    assert blind == visible.shape[1] // 2
