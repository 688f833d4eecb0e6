"""Parts such as a user writes: a mask, targets, a loss, an augmentation, a source."""

# ruff: noqa: ARG001, ARG002

import io

import numpy as np
import torch

from maekit.patches import take_patches
from maekit.randomness import uniform_scores


class Stripes:
    """Hides every second column of patches, or in half of the images the others."""

    def __init__(self, grid, ratio, shift=0):
        self.rows, self.columns = grid
        assert self.columns % 2 == 0, "needs an even number of columns"
        self.hidden, self.shift = self.rows * self.columns // 2, shift

    def draw(self, keys):
        first = (uniform_scores(keys, 1) + self.shift) % 2  # [N, 1]
        columns = torch.arange(self.columns, device=keys.device)[None, :] % 2 == first
        return columns[:, None, :].expand(-1, self.rows, -1).flatten(1)


class Forgetful(Stripes):
    """Draws from the global generator."""

    def draw(self, keys):
        return torch.rand(len(keys), self.rows * self.columns).argsort(dim=1) < self.hidden


class Means:
    """A patch's mean, which nothing can paint."""

    width = 1

    def __init__(self, geometry):
        self.patch = geometry.patch

    def make(self, images, index):
        return take_patches(images, self.patch, index).mean(dim=2, keepdim=True)


class Flat(Means):
    """The same, painted as a flat patch."""

    def __init__(self, geometry, gain=1.0):
        super().__init__(geometry)
        self.values, self.gain = geometry.patch[0] * geometry.patch[1] * geometry.channels, gain

    def paint(self, predicted, images, masked, index, source):
        return self.gain * predicted.expand(-1, -1, self.values)


class Teacher(torch.nn.Module):
    """What a frozen network says of a patch."""

    def __init__(self, geometry, width=32):
        super().__init__()
        self.patch, self.width = geometry.patch, width
        values = geometry.patch[0] * geometry.patch[1] * geometry.channels
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(values, width)

    def make(self, images, index):
        return self.layer(take_patches(images, self.patch, index))


class Misshapen(Means):
    width = 2


def huber(predicted, target, delta=1.0):
    return torch.nn.functional.huber_loss(predicted, target, delta=delta)


def reading(predicted, target):
    return predicted.square().mean() * (2 if float(target.mean()) > 0 else 1)


def not_a_number(predicted, target):
    return (predicted - target).abs().mean(dim=2)


def invert(image):
    return 255 - image


def crop(image):
    return image[:, 1:]


class Noise:
    """Four images of noise, as NumPy writes them."""

    classes = None

    def __init__(self, seed=0):
        self.seed = seed

    def __len__(self):
        return 4

    def path(self, index):
        return f"noise {index}"

    def label(self, index):
        return None

    def read(self, index):
        file = io.BytesIO()
        np.save(file, np.random.default_rng((self.seed, index)).random((32, 32, 1), dtype=np.float32))
        return file.getvalue()

    def fingerprint(self):
        return f"noise-{self.seed}"


class Bare:
    def __len__(self):
        return 1


def nearest_mean(vectors, labels, judged, classes, power=2):
    """A probe: the class whose mean is nearest."""
    means = torch.stack([vectors[labels == number].mean(dim=0) for number in range(classes)])
    return torch.cdist(judged, means, p=power).argmin(dim=1)


def one_guess(vectors, labels, judged, classes):
    return labels[:1]


class Upside(Flat):
    def paint(self, images, predicted):
        return predicted


class Nothing:
    def __init__(self, geometry):
        self.geometry = geometry
