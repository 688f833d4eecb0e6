"""Trained probes are the same in any number of processes: BatchNorm sees the images of all, LARS their gradient."""

import numpy as np
import pytest
import torch

from maekit.config import ProbeConfig
from maekit.data.sources import open_source
from maekit.engine import loop
from maekit.engine.distributed import join
from maekit.models import encoder as encoders
from maekit.recipes import probe_training
from processes import in_processes
from tiny_families import VIT, tiny_model


def probed(kind, photos):
    """The loss and the heads of a probe in this process's world."""
    outcomes, train = [], loop.train

    def kept(*arguments, **settings):
        outcomes.append(train(*arguments, **settings))
        return outcomes[-1]

    loop.train = kept
    try:
        with join("cpu") as world:
            torch.manual_seed(0)
            model = encoders.ImageEncoder(tiny_model(VIT), mean=(0.5,) * 3, std=(0.2,) * 3).eval()
            config = ProbeConfig(epochs=4, batch_size=8, micro_batch_size=4, workers=0, precision="fp32")
            source = open_source(str(photos))
            trial = probe_training.Trial(model, source, source, config, world)
            if kind == "linear":
                choices = [probe_training.Choice("pooled", 1), probe_training.Choice("class", 1)]
                probe_training.train_linear(trial, choices)
            else:
                probe_training.train_attending(trial, kind.split(), 1)
    finally:
        loop.train = train
    record, weights = outcomes[0].record, outcomes[0].weights
    return {name: record[name] for name in record if name in ("loss", "step") or name.startswith("val_")}, {
        name: value.numpy() for name, value in weights.items()
    }


@pytest.mark.parametrize(("kind", "count"), [("linear", 2), ("linear", 4), ("attentive efficient", 2)])
def test_a_trained_probe_is_that_of_one_process(kind, count, photos):
    one, heads = probed(kind, photos)
    said = in_processes(count, probed, kind, photos)
    assert not any(each.err for each in said), "".join(each.err for each in said)
    record, weights = said[0].value
    assert record.pop("loss") == pytest.approx(one.pop("loss"), rel=1e-6)
    assert record == one
    for name, value in heads.items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
