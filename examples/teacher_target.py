"""A target of your own: what a frozen timm model says of each patch (MVP, arXiv 2203.05175; MaskDistill, 2210.10615).

    maekit pretrain vit-tiny-small-data --data photos \\
        --target examples.teacher_target:Teacher,name=vit_small_patch16_224.dino,pretrained=True --loss l1

The simplest strong step past pixels: a teacher by DINO or CLIP has met more images than you have.
"""

from typing import Any, cast

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from maekit.models.standardise import Standardise
from maekit.patches import take
from maekit.targets import Geometry


class Teacher(nn.Module):
    """Patch tokens of a frozen ViT, each normalised over its width, on the grid of the encoder that learns.

    It goes to the model's device with it, but is no part of its weights: they hold its name alone.
    """

    def __init__(self, geometry: Geometry, name: str, pretrained: bool = False) -> None:
        super().__init__()
        patch: tuple[int, int] = cast(Any, timm.create_model(name, num_classes=0)).patch_embed.patch_size
        self.size = (geometry.grid[0] * patch[0], geometry.grid[1] * patch[1])
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=self.size)
        self.network = cast(Any, network.eval().requires_grad_(False))
        self.width = int(self.network.num_features)
        facts: dict[str, Any] = self.network.pretrained_cfg
        self.ours, self.theirs = Standardise(geometry.mean, geometry.std), Standardise(facts["mean"], facts["std"])

    def make(self, images: Tensor, index: Tensor) -> Tensor:
        """images [N, C, H, W] as the model has them standardised, index [N, Q] → [N, Q, width]."""
        pixels = self.ours.inverse(images)
        if pixels.shape[1] != 3:  # a teacher of photographs
            pixels = pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        tokens: Tensor = self.network.forward_features(self.theirs(pixels))[:, self.network.num_prefix_tokens :]
        return F.layer_norm(take(tokens, index).float(), (self.width,))
