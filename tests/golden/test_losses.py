"""Ten steps' losses on a CPU, as they were: a change of what is computed shows here, however small.

After a change that is meant to alter them: `MAEKIT_GOLDEN=write pytest tests/golden`, and say why in the commit.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from maekit.config import PretrainConfig
from maekit.engine import metrics
from maekit.recipes import pretrain

STORED = Path(__file__).with_name("losses.json")


def on_digits(preset: PretrainConfig) -> PretrainConfig:
    """Ten steps over the embedded digits."""
    return replace(
        preset,
        model=replace(preset.model, image_size=8, patch_size=2, channels=1),
        data=replace(preset.data, source="digits:train", normalise="half", workers=0),
        validation=replace(preset.validation, source=""),
        optimizer=replace(preset.optimizer, base_lr=None, lr=1e-3),
        schedule=replace(preset.schedule, epochs=None, steps=10, batch_size=16, micro_batch_size=8, warmup_epochs=0.02),
        run=replace(preset.run, device="cpu", precision="fp32", log_every=1, tensorboard=False),
    )


def cross(preset: PretrainConfig) -> PretrainConfig:
    decoder = replace(preset.model.decoder, kind="cross", predicted_share=0.5, feature_maps=2)
    return replace(preset, model=replace(preset.model, decoder=decoder))


CONFIGS = {
    "paper": on_digits(tiny.shrunk("vit-tiny")),
    "flyegle": on_digits(tiny.shrunk("vit-tiny-flyegle")),
    "cross": cross(on_digits(tiny.shrunk("vit-tiny"))),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_those_that_were_stored(name, tmp_path):
    config = CONFIGS[name]
    pretrain.run(replace(config, run=replace(config.run, out=str(tmp_path / "run"))))
    losses = [record["loss"] for record in metrics.read(tmp_path / "run" / "metrics.jsonl")]
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if os.environ.get("MAEKIT_GOLDEN") == "write":
        STORED.write_text(json.dumps(stored | {name: losses}, indent=1) + "\n")
    else:
        assert losses == pytest.approx(stored[name], rel=1e-5)
