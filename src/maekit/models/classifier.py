"""A classifier: an encoder, a pooled token, a linear head.

Legend: N images, C channels, H W pixels, D width, Y classes.
"""

from collections.abc import Callable

import torch
from timm.layers import PatchDropout
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from maekit.config import ClassifierConfig, ModelConfig
from maekit.errors import ModelError
from maekit.models.encoder import ImageEncoder
from maekit.models.family import Features, has_class_token


class Classifier(ImageEncoder):
    """Encoder and linear head, as in arXiv 2111.06377's fine-tuning (appendix A.1).

    pooling mean: average of the patch tokens and a norm, in the family's native order (ViT, Hiera: a norm of its own
    after the average, none before; Swin: the encoder's norm before it). pooling class: the class token after the
    encoder's norm. Attributes beside those of `ImageEncoder`: `classes` (in label order), `pooling`, `norm`, `head`.
    Raises ModelError where a class token is asked of an encoder without one, patches are to be dropped of another than
    a ViT with a table of positions, or there are fewer than two classes.
    """

    __call__: Callable[..., Tensor]  # typed, which torch's is not

    def __init__(
        self,
        config: ModelConfig,
        classifier: ClassifierConfig,
        classes: tuple[str, ...],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(config, mean=mean, std=std, drop_path=classifier.drop_path)
        if len(classes) < 2:
            raise ModelError(f"a classifier needs two classes or more; there is {', '.join(classes) or 'none'}")
        if classifier.pooling == "class" and not has_class_token(self.encoder):
            raise ModelError(f"classifier.pooling class: {config.encoder} has no class token; take mean")
        if classifier.patch_drop:
            if not isinstance(self.encoder, VisionTransformer):
                raise ModelError(f"classifier.patch_drop: {config.encoder} takes whole images; leave it out")
            self.encoder.patch_drop = PatchDropout(classifier.patch_drop, self.encoder.num_prefix_tokens)
        self.classes, self.pooling = classes, classifier.pooling
        self.norm: nn.Module = nn.Identity()
        if self.pooling == "mean" and not self.family.norm_before_mean:
            self.norm = self.family.take_norm(self.encoder)
        self.head: nn.Linear = nn.Linear(self.width, len(classes))
        nn.init.trunc_normal_(self.head.weight, std=classifier.head_std)
        nn.init.zeros_(self.head.bias)

    def _features(self, images: Tensor, kind: Features, blocks: int) -> Tensor:
        """As an `ImageEncoder`'s, followed by the norm where mean pooling took it from the encoder.

        So pooled (pooling mean) or class (pooling class) is what the head sees.
        """
        return self.norm(super()._features(images, kind, blocks))

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W] standardised → logits [N, Y]."""
        latents = self.family.encode(self.encoder, images)
        pooled = latents.tokens[:, 0] if self.pooling == "class" else latents.patches.mean(dim=1)
        return self.head(self.norm(pooled))


def build(
    config: ModelConfig,
    classifier: ClassifierConfig,
    classes: tuple[str, ...],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
) -> Classifier:
    """An untrained classifier whose initial weights are fixed by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(config, classifier, classes, mean=mean, std=std)
