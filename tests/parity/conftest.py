"""Recorded outputs of other people's code: sizes in config.json, masks as maekit has them (True = hidden)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], dict[str, torch.Tensor]]:
    """The recorded inputs and outputs of a fixture, by its name."""

    def read(name: str) -> dict[str, torch.Tensor]:
        with np.load(FIXTURES / f"{name}_io.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read


@pytest.fixture(scope="session")
def fixture_path() -> Callable[[str], Path]:
    return lambda name: FIXTURES / f"{name}.pth"
