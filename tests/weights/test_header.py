"""The head of .safetensors files, sound and damaged."""

import contextlib
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from maekit.errors import WeightsError
from maekit.weights import header


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path, metadata={"who": "me"})
    return path


def test_names_shapes_formats_and_metadata(sound):
    head = header.read(sound)
    assert head.shapes == {"a": (2, 3), "b": (4,)}
    assert head.dtypes == {"a": "F32", "b": "BF16"}
    assert head.metadata == {"who": "me"}


@pytest.mark.parametrize("kept", [0, 5, 8, 60])
def test_a_cut_file(sound, kept):
    sound.write_bytes(sound.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"sound\.safetensors"):
        header.read(sound)


def test_tensors_that_are_not_all_there(sound):
    sound.write_bytes(sound.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="cut short"):
        header.read(sound)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2, -3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "abc", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [1, 2],
        None,
    ],
)
def test_entries_that_cannot_be(tmp_path, entry):
    text = json.dumps({"a": entry}).encode()
    (tmp_path / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(WeightsError, match="damaged"):
        header.read(tmp_path / "odd.safetensors")


@given(st.binary(max_size=64), st.integers(0, 2**64 - 1))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, length):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    for beginning in (length.to_bytes(8, "little"), len(content).to_bytes(8, "little")):
        path.write_bytes(beginning + content)
        with contextlib.suppress(WeightsError):
            header.read(path)


def test_no_torch_is_needed(sound):
    code = (
        "import sys, pathlib\nfrom maekit.weights import stored, layouts, find, header\n"
        f"header.read(pathlib.Path({str(sound)!r}))\nassert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
