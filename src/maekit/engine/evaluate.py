"""Judging features without training anything.

Legend: M remembered images, N judged images, D feature width, Y classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK_ENTRIES = 1 << 27  # similarities that exist at a time
_COLLAPSED = 1.5  # RankMe
_ENOUGH_TO_TELL = 10  # images


def knn_predict(
    memory: Tensor, labels: Tensor, features: Tensor, *, k: int, temperature: float = 0.07, classes: int
) -> Tensor:
    """Weighted k-nearest-neighbour votes, as in DINO's evaluation (arXiv 2104.14294, appendix F.1).

    memory [M, D], labels [M] int64, features [N, D] → [N] int64. Neighbours by cosine similarity, each voting with
    exp(similarity / temperature). k larger than M takes all.
    """
    return knn_predict_each(memory, labels, features, ks=(k,), temperature=temperature, classes=classes)[k]


def knn_predict_each(
    memory: Tensor, labels: Tensor, features: Tensor, *, ks: Sequence[int], temperature: float = 0.07, classes: int
) -> dict[int, Tensor]:
    """`knn_predict` for several k, the neighbours being found once: k → [N] int64, on the memory's device.

    In float32 whatever autocast surrounds it: votes in half precision would have ties that are none.
    """
    predicted: dict[int, list[Tensor]] = {k: [] for k in ks}
    with torch.autocast(memory.device.type, enabled=False):
        memory = F.normalize(memory.float(), dim=1)
        for part in features.split(max(1, _CHUNK_ENTRIES // len(memory))):
            similarity = F.normalize(part.to(memory.device).float(), dim=1) @ memory.T
            nearest, neighbour = similarity.topk(min(max(ks), len(memory)), dim=1)
            weights, voted = (nearest / temperature).exp(), labels[neighbour]
            for k in ks:
                votes = torch.zeros(len(part), classes, device=memory.device)
                votes.scatter_add_(1, voted[:, :k], weights[:, :k])
                predicted[k].append(votes.argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in predicted.items()}


def rankme(features: Tensor) -> float:
    """Effective rank of features [N, D]: exp of the entropy of their normalised singular values (arXiv 2210.02885).

    Between 1, all in one direction, and min(N, D). It needs no labels, and a collapse shows as a fall.
    """
    with torch.autocast(features.device.type, enabled=False):
        values = torch.linalg.svdvals(features.float())
    shares = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def collapse(rank: float, images: int) -> str | None:
    """What a person should know of features of this RankMe on so many images; None where they point in many ways."""
    if rank >= _COLLAPSED or images < _ENOUGH_TO_TELL:
        return None
    return (
        f"RankMe is {rank:.2f}: the features of all {images:,} images point in about one direction, so that neighbours "
        "and probes see little in them; pretrain longer (more --epochs or --steps), with a smaller --batch-size or a "
        "higher --lr, or go on from weights (--weights)"
    )
