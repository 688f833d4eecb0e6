"""A family of encoders of your own: EVA-02's ViT (arXiv 2303.11331), whose positions are rotary, as timm has it.

    maekit pretrain vit-tiny-small-data --data photos --model.encoder examples.eva:Eva:eva02_tiny_patch14_224 \\
        --image-size 112 --model.patch-size 14

Weights name it, so verbs that build it want your word: `maekit embed --weights RUN --parts examples.eva:Eva ...`.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from maekit.config import ModelConfig
from maekit.errors import ModelError
from maekit.models.family import Family, Latents, Shown
from maekit.patches import check_divides, take


class Eva(Family):
    """Only visible patches pass the blocks, each with the rotation of its own place."""

    name = "eva"
    options = frozenset({"patch_size", "width", "depth", "heads"})

    def timm_model(self, config: ModelConfig) -> tuple[str, dict[str, Any]]:
        """The name, and the arguments of timm.create_model; the final norm has to be the encoder's own."""
        return config.architecture, {**config.timm_arguments(), "use_fc_norm": False}

    def build(self, config: ModelConfig, *, drop_path: float = 0.0, masked: bool = False) -> nn.Module:
        """The timm model, untrained; timm's initial weights are EVA-02's."""
        encoder: nn.Module = self.create(config, drop_path_rate=drop_path)
        if getattr(encoder, "rope", None) is None:
            raise ModelError(f"model.encoder {config.encoder}: has no rotary positions; take eva02_tiny_patch14_224")
        check_divides(config.image_hw, self.unit(encoder, config))
        return encoder

    def unit(self, encoder: nn.Module, config: ModelConfig) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = cast(Any, encoder).patch_embed.patch_size
        return height, width

    def encode_visible(self, encoder: nn.Module, adapter: nn.Module, shown: Shown) -> Latents:
        """Tokens of the visible patches [N, K + V, D], the class token first."""
        eva: Any = encoder  # timm's Eva
        prefix, outputs = int(eva.num_prefix_tokens), list[Tensor]()
        tokens, _ = eva._pos_embed(eva.patch_embed(shown.images))  # of all patches: none has met another yet
        tokens = torch.cat([tokens[:, :prefix], take(tokens[:, prefix:], shown.visible)], dim=1)
        rotations = take(eva.rope.get_embed()[None], shown.visible)[:, None]  # [N, 1, V, 2 * width of a head]
        tokens = eva.norm_pre(tokens)
        for number, block in enumerate(eva.blocks):
            if eva.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, rope=rotations, use_reentrant=False)
            else:
                tokens = block(tokens, rope=rotations)
            if number in shown.maps:
                outputs.append(eva.norm(tokens))
        return Latents(eva.norm(tokens), prefix=prefix, index=shown.visible, maps=tuple(outputs))

    def encode(self, encoder: nn.Module, images: Tensor, *, blocks: int = 1) -> Latents:
        """Whole images, by timm's own path."""
        if blocks != 1:
            raise ModelError(f"features of the last {blocks} blocks: this family has those of the last one alone")
        eva: Any = encoder
        return Latents(eva.forward_features(images), prefix=int(eva.num_prefix_tokens))
