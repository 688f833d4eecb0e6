"""`maekit card`: a card that the hub can read, and nothing that the run folder does not say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import save_file

import maekit
from maekit import presets
from maekit.config.files import to_dict
from maekit.errors import RunError, UsageError


def run(folder: Path, **changes: dict[str, Any]) -> Path:
    """A run folder of five validated steps out of five. changes: `config`, groups of options, and others of the run."""
    config = to_dict(presets.PRETRAIN["digits"]())
    for group, values in changes.pop("config", {}).items():
        config[group] = values if isinstance(values, str) else config[group] | values
    ran = {
        "config": config,
        "data": {"images": 900, "classes": None, "passed_over": {"images": {"broken": 2}}},
        "computed": {"steps": 5, "gflop": 2.0, "world_size": 1},
        "hardware": {"device": "cpu", "name": "a processor", "processes": 1, "cores": 2},
        "versions": {"maekit": "0.1.0", "torch": "2.11.0"},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(ran | changes))
    lines = [
        {
            "step": step,
            "epoch": step / 2,
            "loss": 1 / step,
            "images_per_second": 64.0,
            "val_loss": 2 / step,
            "val_knn": 0.5,
        }
        for step in range(1, 6)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_file(
        {"encoder.a": np.zeros((3, 5), np.float32), "decoder.b": np.zeros(7, np.float32)}, folder / "model.safetensors"
    )
    return folder


SOURCES = {"data": {"source": "/home/somebody/plates/train"}, "validation": {"source": "/home/somebody/plates/val"}}


def test_the_hub_reads_it(tmp_path: Path):
    folder = run(tmp_path / "plates", config=SOURCES | {"schedule": {"batch_size": 64}, "mask": {"ratio": 0.9}})
    said = maekit.card(folder, out=tmp_path / "README.md", license="cc-by-4.0")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.content == said.card
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "cc-by-4.0",
        "maekit",
        "image-feature-extraction",
    )
    assert "datasets" not in data  # a folder is none of the hub's
    (result,) = card.data.eval_results
    assert (result.metric_value, result.metric_name, result.dataset_name) == (0.5, "kNN top-1", "val")
    for words in (
        "| `mask.ratio` | 0.6 | 0.9 |", "900 of train", "2 broken", "| parameters | 22 |", "| images seen | 320 |",
        "GFLOP | 640", "a processor", "| validation loss | 0.4 |", "maekit pretrain config.json",
        'maekit.load("plates")', "--to timm",
    ):  # fmt: skip
        assert words in card.text, words
    assert "somebody" not in said.card  # folders above the images are of one machine alone


def test_what_nobody_said_is_unknown(tmp_path: Path):
    folder = run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 2, "loss": 1.0}) + "\n")
    said = maekit.card(folder)
    card = ModelCard(said.card)
    assert said.license == card.data.license == "unknown"
    assert card.data.eval_results is None
    assert "model-index" not in said.card
    for words in ("**Unknown.**", "judged by no held-out images", "ended at step 2 of the 5", "900 images are few"):
        assert words in card.text, words


def test_a_hubs_data_and_weights_are_named(tmp_path: Path):
    config = {"data": {"source": "hf:somebody/birds@train"}, "weights": "hf:timm/vit_tiny_patch16_224.mae"}
    card = ModelCard(maekit.card(run(tmp_path / "run", config=config)).card)
    assert card.data.datasets == ["somebody/birds"]
    assert card.data.base_model == ["timm/vit_tiny_patch16_224.mae"]
    assert "are few" not in card.text


def test_it_has_the_numbers_of_probes(tmp_path: Path):
    rows = [{"kind": "linear", "features": "pooled", "blocks": 1, "top1": 0.625}]
    answer = {"linear": rows[0], "rows": rows, "train_images": 40, "val_images": 30}
    (tmp_path / "probe.json").write_text(f"something before\n{json.dumps(answer)}\n")
    card = ModelCard(maekit.card(run(tmp_path / "run"), probe=[tmp_path / "probe.json"]).card)
    assert "| linear | pooled | 1 | 0.6250 |" in card.text
    assert "learnt from 40 images, judged on 30" in card.text
    assert [(one.metric_name, one.metric_value) for one in card.data.eval_results][-1] == ("linear probe, top-1", 0.625)


def test_it_has_what_probes_left_in_the_folder(tmp_path: Path):
    folder = run(tmp_path / "run")
    rows = [
        {"kind": "knn", "features": "pooled", "blocks": 1, "top1": top1, "k": k} for k, top1 in ((10, 0.1), (20, 0.2))
    ]
    record = {"weights": "model.safetensors", "steps": 5, "data": "/home/somebody/train", "val": "/home/somebody/birds",
              "train_images": 40, "val_images": 30, "rows": rows}  # fmt: skip
    older = record | {"rows": [rows[0] | {"top1": 0.05}]}
    others = record | {"weights": "checkpoints/step-2/model.safetensors", "val": "others"}
    (folder / "probes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (older, others, record)))
    card = ModelCard(maekit.card(folder).card)
    assert [(one.metric_name, one.dataset_name, one.metric_value) for one in card.data.eval_results][1:] == [
        ("knn probe, top-1", "birds", 0.2)
    ]
    assert "(birds): learnt from 40 images, judged on 30" in card.text
    assert "others" not in card.text.replace("on no others", "")
    assert "somebody" not in card.content


def test_a_classifier_is_one(tmp_path: Path):
    config = to_dict(presets.FINETUNE["digits"]())
    folder = run(tmp_path / "tuned")
    ran = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(ran | {"config": config | {"weights": "/home/somebody/before"}}))
    card = ModelCard(maekit.card(folder).card)
    assert card.data.pipeline_tag == "image-classification"
    assert "`maekit finetune`" in card.text
    assert "| started from | before |" in card.text
    assert "logits = model(" in card.text


def test_names_break_no_table(tmp_path: Path):
    folder = run(tmp_path / "run", config={"data": {"source": "a|<b>"}})
    assert "900 of a\\|\\<b\\>" in maekit.card(folder).card


def test_what_is_no_run_or_probe_is_said(tmp_path: Path):
    with pytest.raises(RunError, match="cannot be read"):
        maekit.card(tmp_path)
    folder = run(tmp_path / "run")
    for words in ("{}", "[1]", "no json", '{"rows": [{"kind": "knn"}]}'):
        (tmp_path / "probe.json").write_text(words)
        with pytest.raises(UsageError, match="is no answer of `maekit probe --json`"):
            maekit.card(folder, probe=tmp_path / "probe.json")
    with pytest.raises(UsageError, match="cannot be read"):
        maekit.card(folder, probe=tmp_path / "gone.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no model\.safetensors yet"):
        maekit.card(folder)
