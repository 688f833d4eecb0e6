"""Judging features without training anything.

Legend: M remembered images, N judged images, D feature width, Y classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 1024


def knn_predict(
    memory: Tensor, labels: Tensor, features: Tensor, *, k: int, temperature: float = 0.07, classes: int
) -> Tensor:
    """Weighted k-nearest-neighbour votes, as in DINO's evaluation (arXiv 2104.14294, appendix F.1).

    memory [M, D], labels [M] int64, features [N, D] → [N] int64. Neighbours by cosine similarity, each voting with
    exp(similarity / temperature). k larger than M takes all.
    """
    memory, features = F.normalize(memory.float(), dim=1), F.normalize(features.float(), dim=1)
    k = min(k, len(memory))
    predicted = []
    for part in features.split(_CHUNK):
        similarity, neighbour = (part @ memory.T).topk(k, dim=1)
        votes = torch.zeros(len(part), classes, device=part.device)
        votes.scatter_add_(1, labels[neighbour], (similarity / temperature).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted)


def rankme(features: Tensor) -> float:
    """Effective rank of features [N, D]: exp of the entropy of their normalised singular values (arXiv 2210.02885).

    Between 1, all in one direction, and min(N, D). It needs no labels, and a collapse shows as a fall.
    """
    values = torch.linalg.svdvals(features.float())
    shares = values / values.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))
