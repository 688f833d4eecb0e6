"""Small models as files, and files of other people's layouts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.weights import native
from maekit.weights.blueprint import Blueprint

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="session")
def fixture_path() -> Callable[[str], Path]:
    return lambda name: Path(__file__).parents[1] / "fixtures" / "parity" / f"{name}.pth"


@pytest.fixture(scope="session")
def model_of() -> Callable[..., native.Model]:
    """A tiny model of a kind, in eval mode, its weights drawn wide so that each one matters."""

    def build(kind: str, pooling: str = "mean", **changes) -> native.Model:
        plain = {"target": TargetConfig(kind="normalised"), "mask": MaskConfig(ratio=0.5)}
        parts = {"masked_autoencoder": plain, "classifier": {"pooling": pooling, "classes": ("jay", "kite", "owl")}}
        torch.manual_seed(0)
        model = native.build(Blueprint(kind, tiny.model_config(**changes), MEAN, STD, **parts.get(kind, {})))
        for name, parameter in model.named_parameters():
            if "pos" not in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()

    return build
