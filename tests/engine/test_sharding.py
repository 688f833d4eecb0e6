"""Weights divided between processes train as whole ones do, whatever the model, and are kept and read by any number."""

import json
import logging
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

import maekit
from maekit import storage
from maekit.config import ClassifierConfig, MixConfig, OptimizerConfig, RunConfig, ScheduleConfig, TargetConfig
from maekit.data.loader import Batch
from maekit.engine import checkpoints, metrics
from maekit.engine.distributed import join
from maekit.engine.loop import train
from maekit.engine.run_state import open_run
from maekit.engine.schedule import Plan
from maekit.errors import MaekitError
from maekit.inference.evaluate import Evaluation
from maekit.models import classifier, mae
from maekit.recipes.classify import ClassifyTask
from maekit.recipes.pretrain import PretrainTask
from processes import in_processes
from processes import maekit as maekit_words
from tiny_families import HIERA, KINDS, SWIN, VIT, mask_for, tiny_model

IMAGES = 16
RUN = RunConfig(device="cpu", precision="fp32", tensorboard=False, log_every=1, checkpoint_every=100, hang_timeout=60)
OPTIMIZER = OptimizerConfig(lr=1e-3, clip=1.0, eps=1e-3)  # what is noise about zero stays so
BATCH = 4


def images_of(config):
    height, width = config.image_hw
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (IMAGES, config.channels, height, width), dtype=torch.uint8, generator=generator)


def batches_of(images, plan, world, start):
    share = plan.batch_size // world.size
    for step in range(start, plan.steps):
        first = step * plan.batch_size + world.rank * share
        for at in range(first, first + share, plan.micro_batch):
            numbers = torch.arange(at, at + plan.micro_batch) % IMAGES
            zeros = torch.zeros_like(numbers)
            yield Batch(images[numbers], numbers % 3, numbers, zeros, zeros)


def masked_autoencoder(config):
    model = mae.build(
        config,
        TargetConfig(kind="normalised"),
        mask_for(config),
        (0.5,) * config.channels,
        (0.2,) * config.channels,
        seed=0,
    )
    return PretrainTask(model, seed=0)


def classifying(config):
    model = classifier.build(
        config,
        ClassifierConfig(pooling="mean"),
        ("a", "b", "c"),
        mean=(0.5,) * config.channels,
        std=(0.2,) * config.channels,
        seed=0,
    )
    return ClassifyTask(model, MixConfig(), 0.75, lambda _: Evaluation(0, 0, 0, 0, (), ()))


def trained(build, config, steps, micro_batch, folder=None, optimizer=OPTIMIZER, **settings):
    """What a run of so many steps came to in this process."""
    run = replace(RUN, **settings)
    with join("cpu", timeout=60) as world:
        schedule = ScheduleConfig(steps=steps, batch_size=BATCH, micro_batch_size=micro_batch)
        plan = Plan.of(optimizer, schedule, IMAGES, world.size)
        task, images = build(config), images_of(config)
        open_folder = (
            nullcontext()
            if folder is None or not world.is_first
            else open_run(folder, resume=run.resume, overwrite=run.overwrite)
        )
        with open_folder as held:
            outcome = train(
                task, partial(batches_of, images, plan, world), plan=plan, optimizer=optimizer, config=run,
                world=world, folder=held, facts={"identity": {}},
            )  # fmt: skip
        kept = any(isinstance(parameter, DTensor) for parameter in task.model.parameters())
        return outcome.record["loss"], {name: value.numpy() for name, value in outcome.weights.items()}, kept


def together(count, *arguments, **settings):
    said = in_processes(count, partial(trained, **settings), *arguments)
    assert not any(one.err for one in said), "".join(one.err for one in said)
    return [one.value for one in said]


MODELS = {
    "vit": (masked_autoencoder, KINDS["vit"]),
    "vit, cross decoder": (masked_autoencoder, KINDS["vit, cross decoder"]),
    "swin uniform": (masked_autoencoder, tiny_model(SWIN, image_size=(64, 128))),
    "hiera": (masked_autoencoder, tiny_model(HIERA, image_size=64)),
    "vit classifier": (classifying, tiny_model(VIT)),
}


@pytest.mark.parametrize(("name", "recompute"), [*((name, False) for name in MODELS), ("swin uniform", True)])
def test_divided_weights_learn_what_whole_ones_do(name, recompute):
    build, config = MODELS[name]
    loss, weights, _ = trained(build, config, 3, 2)
    for said in together(2, build, config, 3, 1, parallel="fsdp", checkpoint_activations=recompute)[:1]:
        assert said[2], "nothing was divided"
        assert said[0] == pytest.approx(loss, rel=1e-6)
        for key, value in weights.items():
            np.testing.assert_allclose(said[1][key], value, atol=1e-5, rtol=1e-4, err_msg=key)


def test_they_may_be_kept_between_the_passes_and_be_sent_in_half_precision():
    build, config = MODELS["vit"]
    loss, weights, _ = trained(build, config, 3, 2, precision="bf16")
    first, _ = together(2, build, config, 3, 1, parallel="fsdp", reshard_after_forward=False, precision="bf16")
    assert first[0] == pytest.approx(loss, rel=1e-2)
    assert {value.dtype.name for value in first[1].values() if value.dtype.kind == "f"} == {"float32"}
    for key, value in weights.items():
        np.testing.assert_allclose(first[1][key], value, atol=2e-3, rtol=5e-2, err_msg=key)


CHAIN = ((4, "fsdp"), (2, "ddp"), (1, "ddp"), (2, "fsdp"))
STEPS = 20


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Losses of a run in one process, and the folder of one that went from hand to hand, five steps in each."""
    build, config = MODELS["vit"]
    root = tmp_path_factory.mktemp("chain")
    trained(build, config, STEPS, 1, root / "one", ema=0.5)
    for number, (count, parallel) in enumerate(CHAIN, 1):
        settings = {"parallel": parallel, "resume": True, "checkpoint_every": 5, "keep": 9, "ema": 0.5}
        settings["async_checkpoint"] = number % 2 == 0
        together(count, build, config, STEPS, 1, root / "run", **settings)
        for folder in (root / "run" / "checkpoints").iterdir():
            if int(folder.name.partition("-")[2]) > 5 * number:
                storage.remove(folder)
    return root


def test_a_run_goes_on_in_any_number_of_processes_divided_or_not(chain):
    histories = [[r["loss"] for r in metrics.read(chain / name / "metrics.jsonl")] for name in ("one", "run")]
    assert histories[1] == pytest.approx(histories[0], rel=1e-6)
    one, other = (
        checkpoints.read(chain / name / "checkpoints" / f"step-{STEPS}", {"model": {}, "optimizer": {}, "ema": {}})
        for name in ("one", "run")
    )
    for kind, tensors in one.items():
        assert set(other[kind]) == set(tensors)
        for name, value in tensors.items():
            torch.testing.assert_close(other[kind][name], value, atol=1e-5, rtol=1e-3, msg=f"{kind}/{name}")


def test_what_is_divided_is_safetensors_of_every_process_and_a_manifest(chain):
    files = sorted(path.name for path in (chain / "run" / "checkpoints" / "step-5").iterdir())
    assert files[0] == "manifest.json"
    assert [name[:11] for name in files[1:]] == [f"shard-{rank:05d}" for rank in range(1, 5)]
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}
    with pytest.raises(MaekitError, match="divided between processes"):
        maekit.load(chain / "run" / "checkpoints" / "step-5")


class Bomb:
    def __reduce__(self):
        return (open, ("bombed", "w"))


def test_a_damaged_part_is_set_aside_and_no_pickle_is_run(chain, tmp_path, monkeypatch, caplog):
    import pickle

    monkeypatch.chdir(tmp_path)
    shutil.copytree(chain / "run", tmp_path / "run")
    steps = tmp_path / "run" / "checkpoints"
    part = next((steps / f"step-{STEPS}").glob("shard-00002-*"))
    content = bytearray(part.read_bytes())
    content[-5] ^= 1
    part.write_bytes(content)
    storage.remove(steps / "step-15")
    storage.remove(steps / "step-10")
    (steps / "step-5" / ".metadata").write_bytes(pickle.dumps(Bomb()))
    with caplog.at_level(logging.WARNING, "maekit"):
        trained(*MODELS["vit"], STEPS, 1, tmp_path / "run", resume=True, ema=0.5)
    assert f"set aside as broken-step-{STEPS}" in caplog.text
    assert not (tmp_path / "bombed").exists()
    losses = [[r["loss"] for r in metrics.read(root / "run" / "metrics.jsonl")] for root in (chain, tmp_path)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def failing_at(step, beside, folder):
    """A run in which the second process cannot write its part of the checkpoint at a step."""
    described = storage.described

    def refuse(path):
        if path.name.startswith("shard-00002") and path.parent.name.startswith(f"step-{step}."):
            raise OSError(28, "No space left on device")
        return described(path)

    storage.described = refuse
    build, config = MODELS["vit"]
    settings = {"parallel": "fsdp", "checkpoint_every": 2, "async_checkpoint": beside}
    with pytest.raises(MaekitError) as caught:
        trained(build, config, 12, 1, folder, **settings)
    return str(caught.value)


@pytest.mark.parametrize("beside", [False, True])
def test_a_disk_that_is_full_for_one_ends_all_and_loses_nothing(tmp_path, beside):
    first, second = in_processes(2, failing_at, 4, beside, tmp_path / "run")
    assert not first.err + second.err
    assert "No space left on device" in first.value + second.value  # who fails first ends the other
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-2"]
    assert storage.read_facts(tmp_path / "run" / "checkpoints" / "step-2")["step"] == 2


def test_by_command_with_validation_an_average_and_the_best_kept(photos, maekit_here, tmp_path):
    words = [
        "scratch", "vit-tiny", "--model.width", 32, "--model.depth", 2, "--model.heads", 2, "--model.patch-size", 8,
        "--image-size", 32, "--device", "cpu", "--precision", "fp32", "--data", photos, "--val", photos, "--steps", 4,
        "--batch-size", 4, "--lr", "1e-3", "--workers", 0, "--run.no-tensorboard", "--run.ema", 0.5, "--mix.mixup", 0,
        "--mix.cutmix", 0, "--classifier.drop-path", 0, "--validation.every", 0.6, "--json",
    ]  # fmt: skip
    said = in_processes(2, maekit_words, *words, "--run.parallel", "fsdp", "--out", tmp_path / "two", patience=120)
    assert [one.value for one in said] == [0, 0], said[0].err + said[1].err
    one = maekit_here(*words, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    theirs, ours = (json.loads(out.splitlines()[-1]) for out in (said[0].out, one.stdout))
    for name in ("loss", "val_loss", "val_top1"):
        assert theirs[name] == pytest.approx(ours[name], rel=1e-5), name
    for name in ("model", "model_ema", "best"):
        divided, whole = (storage.read_tensors(tmp_path / run / f"{name}.safetensors") for run in ("two", "one"))
        assert set(divided) == set(whole)
        for key, value in whole.items():
            torch.testing.assert_close(divided[key], value, atol=1e-4, rtol=1e-3)
    assert (tmp_path / "two" / "report.html").is_file()


@pytest.mark.parametrize("words", ["--optimizer.name muon", "--optimizer.name lars", "--schedule.resolutions 128 0.5"])
def test_what_cannot_be_divided_is_refused(maekit_here, photos, words):
    done = maekit_here("pretrain", "vit-tiny", "--data", photos, "--run.parallel", "fsdp", *words.split())
    assert done.returncode == 2
    assert "run.parallel fsdp: " in done.stderr
    assert "take ddp" in done.stderr
