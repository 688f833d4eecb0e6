"""Other implementations of the paper's model, to be measured beside maekit's. Calling one gives the loss."""

import torch
from timm.models.vision_transformer import Block, PatchEmbed
from torch import Tensor, nn

from maekit.config import PretrainConfig
from maekit.models import positions


class PlainTimm(nn.Module):
    """The paper's model as one writes it first with timm's blocks: every patch is embedded, then most are dropped; the
    decoder runs all tokens through all blocks and predicts all patches; the loss is masked afterwards."""

    def __init__(self, config: PretrainConfig, width: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        decoder, size = config.model.decoder, config.model.image_hw[0]
        side = size // patch
        self.patch, self.ratio = patch, config.mask.ratio
        self.embed = PatchEmbed(size, patch, config.model.channels, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.bridge = nn.Linear(width, decoder.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.decoder_blocks = nn.ModuleList(
            Block(decoder.width, decoder.heads, qkv_bias=True) for _ in range(decoder.depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder.width)
        self.head = nn.Linear(decoder.width, patch**2 * config.model.channels)
        self.register_buffer("encoder_places", positions.table("sincos", (side, side), width, 1)[None])
        self.register_buffer("decoder_places", positions.table("sincos", (side, side), decoder.width, 1)[None])

    def forward(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] standardised → the loss."""
        tokens = self.embed(images) + self.encoder_places[:, 1:]
        count, length, _ = tokens.shape
        kept = int(length * (1 - self.ratio))
        order = torch.rand(count, length, device=tokens.device).argsort(dim=1)
        back = order.argsort(dim=1)
        visible = tokens.gather(1, order[:, :kept, None].expand(-1, -1, tokens.shape[2]))
        class_token = (self.class_token + self.encoder_places[:, :1]).expand(count, -1, -1)
        latents = torch.cat([class_token, visible], dim=1)
        for block in self.blocks:
            latents = block(latents)
        latents = self.bridge(self.norm(latents))
        hidden = self.mask_token.expand(count, length - kept, -1).to(latents.dtype)
        shuffled = torch.cat([latents[:, 1:], hidden], dim=1)
        whole = shuffled.gather(1, back[:, :, None].expand(-1, -1, shuffled.shape[2]))
        whole = torch.cat([latents[:, :1], whole], dim=1) + self.decoder_places
        for block in self.decoder_blocks:
            whole = block(whole)
        predicted = self.head(self.decoder_norm(whole))[:, 1:]
        return self._loss(images, predicted, back >= kept)

    def _loss(self, images: Tensor, predicted: Tensor, masked: Tensor) -> Tensor:
        patches = nn.functional.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        patches = patches.unflatten(2, (images.shape[1], -1)).transpose(2, 3).flatten(2)
        mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
        error = (predicted - (patches - mean) / (variance + 1e-6).sqrt()).square().mean(-1)
        return (error * masked).sum() / masked.sum()


class HuggingFace(nn.Module):
    """transformers' ViTMAEForPreTraining, with the attention it takes by default."""

    def __init__(self, config: PretrainConfig, width: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        decoder = config.model.decoder
        self.model = ViTMAEForPreTraining(
            ViTMAEConfig(
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                image_size=config.model.image_hw[0],
                patch_size=patch,
                num_channels=config.model.channels,
                decoder_hidden_size=decoder.width,
                decoder_num_hidden_layers=decoder.depth,
                decoder_num_attention_heads=decoder.heads,
                decoder_intermediate_size=4 * decoder.width,
                mask_ratio=config.mask.ratio,
                norm_pix_loss=True,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] standardised → the loss."""
        return self.model(pixel_values=images).loss
