"""The checkpoint doctor."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from maekit import presets
from maekit.config.verbs import InspectOptions, WeightsOptions
from maekit.inference.inspect import inspect
from maekit.weights import native
from maekit.weights.blueprint import Blueprint

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"

EXPECTED = {
    "facebook_mae_full": ("facebook", ["reconstruct", "embed"], "unknown", 100_720),
    "facebook_mae_encoder_only": ("facebook", ["embed"], None, 66_768),
    "facebook_finetuned_pooled": ("facebook", ["classify", "embed"], None, 67_111),
    "facebook_finetuned_cls_token": ("facebook", ["classify", "embed"], None, 67_111),
    "flyegle_mae": ("flyegle", ["reconstruct", "embed"], "raw", 142_691),
    "flyegle_finetuned": ("flyegle", ["classify", "embed"], None, 66_295),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_fixture(name):
    answer = inspect(InspectOptions(weights=str(PARITY / f"{name}.pth")))
    layout, can, target, parameters = EXPECTED[name]
    assert (answer.layout, answer.can, answer.target) == (layout, can, target)
    assert answer.parameters == parameters
    assert answer.patch_size == [8, 8]
    assert set(answer.can) | set(answer.cannot) == {"reconstruct", "classify", "embed"}
    assert "--heads" in answer.needs[0]
    json.dumps(answer.as_dict())


def test_what_it_tells():
    options = WeightsOptions(heads=3, decoder_heads=4)
    printed = str(inspect(InspectOptions(weights=str(PARITY / "facebook_mae_full.pth"), **vars(options))))
    for part in ("width 48, depth 2, heads 3", "self, width 32, depth 2, heads 4", "32x32 px", "unknown", "100,720"):
        assert part in printed
    assert "needs" not in printed


def test_hash():
    path = PARITY / "facebook_mae_full.pth"
    answer = inspect(InspectOptions(weights=str(path), hash=True))
    assert answer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_against_a_config(tmp_path):
    config = tiny.shrunk("vit-tiny")
    model = native.build(
        Blueprint("masked_autoencoder", config.model, (0.5,) * 3, (0.5,) * 3, config.target, config.mask)
    )
    native.save(model, tmp_path / "model.safetensors")
    from maekit.config import files

    (tmp_path / "same.json").write_text(json.dumps(files.to_dict(config)))
    fits = InspectOptions(weights=str(tmp_path), config=str(tmp_path / "same.json"))
    assert inspect(fits).mismatches == []
    other = inspect(InspectOptions(weights=str(tmp_path), config="vit-huge")).mismatches
    assert other[0] == "encoder.cls_token is [1, 1, 32], the model's [1, 1, 1280]"
    assert other[-1] == "likely fix: take the preset or --encoder of width 32"


def test_vit_huge_in_two_seconds_without_torch(tmp_path):
    """The file is sparse: its header lists 2.5 GB of tensors that no byte on the disk stands for."""
    config = presets.PRETRAIN["vit-huge"]()
    with torch.device("meta"):
        parts = (config.target, config.mask)
        model = native.build(Blueprint("masked_autoencoder", config.model, (0.5,) * 3, (0.5,) * 3, *parts))
    entries, end = {"__metadata__": {**native_metadata(config), "format": "pt"}}, 0
    for name, tensor in model.state_dict().items():
        begin, end = end, end + 4 * tensor.numel()
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    code = (
        "import sys\nfrom maekit.config.verbs import InspectOptions\nfrom maekit.inference.inspect import inspect\n"
        f"answer = inspect(InspectOptions(weights={str(tmp_path)!r}))\n"
        "assert answer.model == 'vit_huge_patch14_224' and answer.parameters > 6e8\n"
        "assert 'torch' not in sys.modules"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - start < 2


def native_metadata(config):
    blueprint = Blueprint("masked_autoencoder", config.model, (0.5,) * 3, (0.5,) * 3, config.target, config.mask)
    return {"maekit": blueprint.dumped()}


def test_number_formats(tmp_path):
    tensors = torch.load(PARITY / "facebook_mae_encoder_only.pth", weights_only=True)["model"]
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
    answer = inspect(InspectOptions(weights=str(tmp_path / "w.safetensors")))
    assert (answer.dtype, answer.layout) == (["F16"], "timm")
