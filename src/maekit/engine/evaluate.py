"""Judging features without training anything.

Legend: M remembered images, N judged images, V views of each, D feature width, Y classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK_ENTRIES = 1 << 27  # similarities that exist at a time
_COLLAPSED = 1.5  # RankMe
_TAIL = (11, 100)  # ranks of the eigenvalues that a power law is fitted to
_FEWEST_RANKS = 8
_NOTHING = 1e-10  # of the largest eigenvalue: what rounding leaves of a direction that is not there
_RIDGE = 1e-4  # on the diagonal of the covariance within images, as in arXiv 2312.04000
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
    return _effective_rank(values)


def alpha_req(features: Tensor) -> float:
    """How steeply the variances of features [N, D] fall, direction by direction (alpha-ReQ, NeurIPS 2022).

    The exponent of a power law: minus the slope of the log of the covariance's eigenvalues over the log of their ranks,
    by least squares over ranks 11 to 100, or, of fewer than 200 directions, up to half of them and from a quarter of
    that. About 1 is best by its paper: below, many directions hold noise, above, few hold all. nan of too few.
    """
    if not tells_alpha(*features.shape):
        return math.nan
    first, last = _tail(*features.shape)
    with torch.autocast(features.device.type, enabled=False):
        variances = torch.linalg.svdvals(features.float() - features.float().mean(dim=0)).double().square().cpu()
    ranks = torch.arange(first, last + 1)[variances[first - 1 : last] > _NOTHING * variances[0]]
    if len(ranks) < _FEWEST_RANKS:
        return math.nan
    x, y = ranks.double().log(), variances[ranks - 1].log()
    x = x - x.mean()
    return -float(x @ y / (x @ x))


def tells_alpha(images: int, width: int) -> bool:
    """Whether features [images, width] have directions enough for `alpha_req`."""
    first, last = _tail(images, width)
    return last - first + 1 >= _FEWEST_RANKS


def _tail(images: int, width: int) -> tuple[int, int]:
    last = min(_TAIL[1], min(images - 1, width) // 2)
    return min(_TAIL[0], last // 4 + 1), last


def lidar(views: Tensor) -> float:
    """Effective rank of what tells images apart beyond what differs between views of one (arXiv 2312.04000).

    views: [N, V, D], features of several views of each image. Of the LDA matrix whose classes are images: covariance of
    the images' means, whitened by the mean covariance of the views of one. Between 1 and min(N - 1, D).
    """
    found = views.double().cpu()
    means = found.mean(dim=1)
    within = (found - means[:, None]).flatten(0, 1)
    covariance = within.T @ within / (len(found) * (found.shape[1] - 1))
    values, vectors = torch.linalg.eigh(covariance)
    white = vectors * (values.clamp_min(0) + _RIDGE).rsqrt()
    return _effective_rank(torch.linalg.svdvals((means - means.mean(dim=0)) @ white).square())


def _effective_rank(values: Tensor) -> float:
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
