"""Every Swin and Hiera preset fits together: sizes, windows, mask, decoder."""

import pytest

from maekit.models.mae import MaskedAutoencoder
from maekit.presets import PRETRAIN
from maekit.presets.hierarchical import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_preset_gives_a_model_and_a_mask_for_it(name):
    config = PRETRAIN[name]()
    assert config.name == name
    model = MaskedAutoencoder(config.model, config.target, config.mask, mean=(0.5,) * 3, std=(0.5,) * 3)
    hidden = model.objective.mask.hidden
    assert hidden / (model.grid[0] * model.grid[1]) == pytest.approx(config.mask.ratio, abs=0.02)
    rate = {"swin-base-simmim-800": 4e-4}.get(name, 8e-4 if "simmim" in name else 2.4e-3)
    assert config.optimizer.actual_lr(config.schedule.images_a_step) == pytest.approx(rate)
