"""Checkpoints: complete or absent whatever fails, and never trusted once altered."""

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from maekit import storage
from maekit.engine import metrics
from maekit.errors import StorageError
from toy_task import ToyTask, plan_of, run


def flip_a_byte(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(folder):
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def delete(folder):
    (folder / "optimizer.safetensors").unlink()


def tear_the_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:40])


def change_what_the_manifest_says(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 4'))


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, delete, tear_the_manifest, change_what_the_manifest_says])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(tmp_path, damage, caplog):
    folder, options = tmp_path / "run", {"checkpoint_every": 3, "keep": 2}
    run(ToyTask(), plan_of(6), folder, **options)
    whole = (folder / "checkpoints" / "step-6" / "model.safetensors").read_bytes()
    history = [record["loss"] for record in metrics.read(folder / "metrics.jsonl")]
    for time in (1, 2):
        damage(folder / "checkpoints" / "step-6")
        caplog.clear()
        run(ToyTask(), plan_of(6), folder, resume=True, **options)
        aside = "broken-step-6" if time == 1 else "broken-step-6-2"
        assert aside in caplog.text
        assert (folder / "checkpoints" / aside).is_dir()
        assert storage.read_facts(folder / "checkpoints" / "step-6")["step"] == 6
        assert (folder / "checkpoints" / "step-6" / "model.safetensors").read_bytes() == whole
        assert [record["loss"] for record in metrics.read(folder / "metrics.jsonl")] == history


def test_with_no_sound_checkpoint_left_the_run_starts_anew_and_says_so(tmp_path, caplog):
    folder = tmp_path / "run"
    caplog.set_level("INFO", "maekit")
    run(ToyTask(), plan_of(4), folder)
    flip_a_byte(folder / "checkpoints" / "step-4")
    run(ToyTask(), plan_of(4), folder, resume=True)
    assert "no sound checkpoint to go on from; starting from step 0" in caplog.text
    assert [record["step"] for record in metrics.read(folder / "metrics.jsonl")] == [1, 2, 3, 4]


def test_what_a_killed_write_left_is_cleared_away(tmp_path):
    folder = tmp_path / "run"
    run(ToyTask(), plan_of(4), folder)
    leftover = folder / "checkpoints" / "step-9.part"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    run(ToyTask(), plan_of(4), folder, resume=True)
    assert not leftover.exists()


class Faults:
    """Makes the `at`-th call that reaches the disk fail; `watch` sees what a reader would see at each of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watch=lambda: None):
        self.calls, self.at, self.watch = 0, -1, watch
        for owner, name in (
            (os, "fsync"), (safetensors.torch, "save_file"), (Path, "replace"), (Path, "mkdir"), (Path, "open"),
            (Path, "write_text"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, function):
        def call(*words, **named):
            self.calls += 1
            self.watch()
            if self.calls - 1 == self.at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*words, **named)

        return call

    def each(self, write):
        """Run `write` with its first call failing, then its second, and so on, until it succeeds."""
        for number in range(100):
            self.calls, self.at = 0, number
            try:
                write()
            except StorageError as error:
                self.at = -1
                yield error
            else:
                self.at = -1
                assert number > 3
                return


def test_a_folder_whose_writing_fails_anywhere_is_complete_or_absent(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints" / "step-1"

    def complete_or_absent():
        names = {path.name for path in folder.glob("*")}
        assert names in (set(), {"manifest.json", "model.safetensors"})

    faults = Faults(monkeypatch, complete_or_absent)
    for error in faults.each(lambda: storage.write_folder(folder, {"model": {"a": torch.ones(3)}}, {"step": 1})):
        assert "No space left on device" in str(error)
        assert "\n" not in str(error)
        if folder.exists():  # the last call alone, which only makes the rename last
            assert storage.read_facts(folder) == {"step": 1}
            storage.remove(folder)
        if folder.parent.exists():
            assert list(folder.parent.iterdir()) == []
    assert storage.read_facts(folder) == {"step": 1}


@pytest.mark.parametrize("kind", ["text", "tensors"])
def test_a_file_whose_writing_fails_anywhere_is_the_old_or_the_new(tmp_path, monkeypatch, kind):
    path = tmp_path / "file"

    def write(value):
        if kind == "text":
            storage.write_text(path, str(value))
        else:
            storage.write_tensors(path, {"value": torch.tensor(value)}, {})

    def read():
        return int(path.read_text()) if kind == "text" else int(storage.read_tensors(path)["value"])

    write(1)
    faults = Faults(monkeypatch)
    for _ in faults.each(lambda: write(2)):
        assert read() in (1, 2)
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
        write(1)
    assert read() == 2


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_one_before_it(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run(ToyTask(), plan_of(4), folder, checkpoint_every=2)
    before = storage.read_facts(folder / "checkpoints" / "step-2")
    storage.remove(folder / "checkpoints" / "step-4")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StorageError, match=r"step-4: cannot be written \(No space left"):
        run(ToyTask(), plan_of(4), folder, resume=True)
    assert [entry.name for entry in (folder / "checkpoints").iterdir()] == ["step-2"]
    assert storage.read_facts(folder / "checkpoints" / "step-2") == before
