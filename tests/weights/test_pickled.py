"""Pickles, friendly and hostile. Nothing in a hostile one may run: each would leave a folder behind."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch

from maekit.config.verbs import InspectOptions, WeightsOptions
from maekit.errors import WeightsError
from maekit.inference.inspect import inspect
from maekit.weights import pickled
from maekit.weights.load import load


class Hostile:
    """Its unpickling makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


class Harmless:
    pass


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "trace"


READERS = {
    "load": load,
    "inspect": lambda path: inspect(InspectOptions(weights=str(path))),
    "read": pickled.read,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_checkpoint_never_runs(reader, zipped, trace, tmp_path):
    path = tmp_path / "hostile.pth"
    content = {"model": {"cls_token": torch.ones(1)}, "args": Hostile(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"holds posix\.mkdir, whose code loading would run"):
        reader(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_metadata_of_a_distributed_checkpoint_never_runs(protocol, trace, tmp_path):
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(Hostile(trace), protocol=protocol))
    (tmp_path / "dcp" / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(WeightsError, match="pickle that maekit does not run"):
        load(tmp_path / "dcp")
    with pytest.raises(WeightsError):
        load(tmp_path / "dcp" / ".metadata")
    assert not trace.exists()


def test_any_other_class_is_refused_by_name(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "args": Harmless()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"test_pickled\.Harmless"):
        load(tmp_path / "w.pth")


def test_the_command_line_in_official_files_is_read(fixture_path, tmp_path):
    content = torch.load(fixture_path("facebook_mae_full"), weights_only=True)
    content["args"] = argparse.Namespace(norm_pix_loss=True, mask_ratio=0.6, blr=1.5e-4, output_dir=None)
    torch.save(content, tmp_path / "w.pth")
    model = load(tmp_path / "w.pth", WeightsOptions(heads=3, decoder_heads=4))
    assert model.target.kind == "normalised"
    assert model.mask.ratio == 0.6


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 no zip", pickle.dumps([1, 2, 3])])
def test_what_is_no_checkpoint(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pth") as refusal:
        load(tmp_path / "w.pth")
    assert "\n" not in str(refusal.value)


def test_a_cut_checkpoint(fixture_path, tmp_path):
    whole = fixture_path("facebook_mae_full").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="not a whole file"):
        load(tmp_path / "w.pth")
