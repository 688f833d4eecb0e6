"""Folders of tensors: complete or absent, and checked."""

import json

import pytest
import safetensors
import torch

from maekit import storage
from maekit.errors import StorageError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "c": torch.tensor([1, 2], dtype=torch.bfloat16)}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "folder"
    storage.write_folder(path, {"model": TENSORS, "other": {"x": torch.ones(3)}}, {"step": 7}, {"model": {"k": "v"}})
    return path


def test_what_is_written_is_read_back(folder):
    assert storage.read_facts(folder) == {"step": 7}
    read = storage.read_tensors(folder / "model.safetensors")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in TENSORS.items())


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    metadata = {"format": "pt", "facts": 'Straße \\ "\n', "b": "1", "a": "2"}
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in paths:
        storage.write_tensors(path, TENSORS, metadata)
    assert len({path.read_bytes() for path in paths}) == 1
    with safetensors.safe_open(paths[0], framework="pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("a"), TENSORS["a"])


def test_a_folder_that_is_there_is_not_written_over(folder):
    with pytest.raises(StorageError, match="is there already"):
        storage.write_folder(folder, {}, {})
    assert storage.read_facts(folder) == {"step": 7}


def flip_a_bit(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def delete(folder):
    (folder / "model.safetensors").unlink()


def tear_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-5])


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def leave_the_folder(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_bit, "model.safetensors: is altered"),
        (truncate, "model.safetensors: has .* bytes, was written with"),
        (delete, "model.safetensors: is missing"),
        (tear_manifest, "manifest.json: cannot be read"),
        (lose_manifest, "manifest.json: is missing"),
        (leave_the_folder, "names files outside its folder"),
    ],
)
def test_damage_is_found_and_named(folder, damage, words):
    damage(folder)
    with pytest.raises(StorageError, match=words):
        storage.read_facts(folder)


def test_a_disk_that_cannot_be_read_is_named(folder, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(storage, "file_hash", fail)
    with pytest.raises(StorageError, match=r"model.safetensors: cannot be read \(Input/output error\)"):
        storage.read_facts(folder)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not this")
    with pytest.raises(StorageError, match="cannot be read as safetensors"):
        storage.read_tensors(path)


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    storage.write_text(path, "old")
    with pytest.raises(RuntimeError), storage.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"
