"""transformers' masked autoencoder of Hiera (arXiv 2306.00989) against ours: the same weights, the same predictions."""

import pytest
import torch

from maekit.config import DecoderConfig, MaskConfig, ModelConfig, TargetConfig
from maekit.models.mae import MaskedAutoencoder
from maekit.patches import take

transformers = pytest.importorskip("transformers")

CHANNELS, SIZE, DECODER = 3, 96, {"width": 16, "depth": 2, "heads": 4}
BLOCK = {"layernorm_before": "norm1", "layernorm_after": "norm2"}


def theirs(poolings: int) -> torch.nn.Module:
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    config = transformers.HieraConfig(
        embed_dim=16, image_size=(SIZE, SIZE), depths=(1, 2, 7, 2), num_heads=(1, 2, 4, 8), num_query_pool=poolings,
        decoder_hidden_size=DECODER["width"], decoder_depth=DECODER["depth"], decoder_num_heads=DECODER["heads"],
        mask_ratio=2 / 3,
    )  # fmt: skip
    model = transformers.HieraForPreTraining(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.double().eval()


def ours(pool_units: bool) -> MaskedAutoencoder:
    decoder = DecoderConfig(kind="self", positions="learned", **DECODER)
    config = ModelConfig(encoder="hiera_tiny_224", image_size=SIZE, width=16, decoder=decoder, pool_units=pool_units)
    half = (0.5,) * CHANNELS
    return MaskedAutoencoder(config, TargetConfig(kind="raw"), MaskConfig(ratio=2 / 3), mean=half, std=half)


def carried(state: dict[str, torch.Tensor], depths: tuple[int, ...], side: int) -> dict[str, torch.Tensor]:
    """Their tensors under our names. Convolutions that fuse are layers here, pixels of a patch end with the channel."""
    tensors = {}
    for name, value in state.items():
        parts = name.split(".")
        last = parts[-1]
        if name.startswith("hiera.encoder.stages."):
            number = sum(depths[: int(parts[3])]) + int(parts[5])
            tensors[".".join(["encoder.blocks", str(number), *(BLOCK.get(part, part) for part in parts[6:])])] = value
        elif name.startswith("decoder.decoder_block."):
            tensors[".".join(["decoder.blocks", parts[3], *(BLOCK.get(part, part) for part in parts[4:])])] = value
        elif name.startswith("multiscale_fusion."):
            flat = value.permute(0, 2, 3, 1).flatten(1) if last == "weight" else value
            tensors[f"adapter.heads.{parts[2]}.{last}"] = flat
        elif name.startswith("decoder.decoder_pred."):
            pixels = value.unflatten(0, (CHANNELS, side, side))
            tensors[f"decoder.head.1.{last}"] = pixels.permute(1, 2, 0, *range(3, pixels.ndim)).flatten(0, 2)
        else:
            plain = {
                "hiera.embeddings.position_embeddings": "encoder.pos_embed",
                f"hiera.embeddings.patch_embeddings.projection.{last}": f"encoder.patch_embed.proj.{last}",
                f"encoder_norm.{last}": f"encoder.head.norm.{last}",
                f"decoder.decoder_embeddings.{last}": f"decoder.embed.{last}",
                "decoder.mask_token": "decoder.mask_token",
                "decoder.decoder_position_embeddings": "decoder.positions",
                f"decoder.decoder_norm.{last}": f"decoder.head.0.{last}",
            }
            tensors[plain[name]] = value
    return tensors


@pytest.mark.parametrize(("poolings", "side"), [(2, 16), (3, 32)], ids=["the paper's", "whole units"])
def test_predictions_are_those_of_transformers(poolings, side):
    reference, model = theirs(poolings), ours(pool_units=poolings == 3).double().eval()
    model.load_state_dict(carried(reference.state_dict(), (1, 2, 7, 2), side), strict=True)
    assert model.patch == (side, side)
    images = torch.randn(2, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    noise = torch.rand(2, 9)
    masked = torch.ones(2, 9, dtype=torch.bool).scatter(1, noise.argsort(dim=1)[:, :3], False)
    with torch.no_grad():
        expected, found = reference(images, noise=noise), model(images, masked)
    seen = expected.bool_masked_pos.view(2, -1)  # theirs is True where a patch is seen
    assert not seen.gather(1, found.index).any()
    assert found.index.shape[1] == int((~seen[0]).sum())
    pixels = take(expected.logits, found.index).unflatten(2, (CHANNELS, side, side)).permute(0, 1, 3, 4, 2).flatten(2)
    torch.testing.assert_close(found.patches, pixels, rtol=1e-9, atol=1e-9)
