"""Folders of tensors that are complete or absent.

A folder holds .safetensors files and `manifest.json`, which names every file with its size and SHA-256 (a flipped bit
loads without a word from safetensors alone), and of itself. It is written under a temporary name, flushed to the disk,
then renamed: a reader sees the old state or the new one, whatever is killed in between. No pickle is read or written.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
from torch import Tensor

from maekit.errors import StorageError

MANIFEST = "manifest.json"
TEMPORARY = ".part"
"""How a path ends that is being written, or that an interrupted write left behind."""


def write_folder(
    folder: Path,
    files: Mapping[str, Mapping[str, Tensor]],
    facts: Mapping[str, Any],
    metadata: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write tensors as folder/NAME.safetensors for each NAME of `files`, complete or not at all.

    facts: what else is to be known, plain JSON values. metadata: strings for the header of a file, by NAME.
    Raises StorageError where the disk is full, read-only or the folder is there already; nothing is left behind then.
    """
    if folder.exists():
        raise StorageError(f"{folder}: is there already")
    temporary = temporary_of(folder)
    with explained(folder, temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        listed = {}
        for name, tensors in files.items():
            path = temporary / f"{name}.safetensors"
            _save(path, tensors, (metadata or {}).get(name))
            listed[path.name] = described(path)
        publish(temporary, folder, listed, facts)


def temporary_of(folder: Path) -> Path:
    """Where a folder is written before it is complete."""
    return folder.with_name(folder.name + TEMPORARY)


def described(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def publish(temporary: Path, folder: Path, listed: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write the manifest of files that are flushed already, and give their folder its name.

    listed: by file, what `described` said of it.
    """
    content = {"files": dict(listed), "facts": dict(facts)}
    text = json.dumps({**content, "sha256": _content_hash(content)}, indent=1)
    with (temporary / MANIFEST).open("w", encoding="utf-8") as manifest:
        manifest.write(text)
        manifest.flush()
        os.fsync(manifest.fileno())
    _sync_folder(temporary)
    temporary.replace(folder)
    _sync_folder(folder.parent)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts in a folder whose files are all there and unaltered; StorageError names the first that is not."""
    manifest = _manifest(folder)
    for name, known in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise StorageError(f"{path}: is missing")
        try:
            size, digest = path.stat().st_size, file_hash(path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({_reason(error)})") from None
        if size != known["bytes"]:
            raise StorageError(f"{path}: has {size} bytes, was written with {known['bytes']}")
        if digest != known["sha256"]:
            raise StorageError(f"{path}: is altered, its SHA-256 is not the manifest's")
    return dict(manifest["facts"])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file, on the CPU. StorageError where it cannot be read."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise StorageError(f"{path}: cannot be read as safetensors ({_reason(error)})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """One .safetensors file, complete or not at all; it replaces what was there."""
    with replacing(path) as temporary:
        _save(temporary, tensors, metadata)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and vanishes when it does not.

    Raises StorageError, with the reason in words, for what the disk refuses.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    with explained(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """A text file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(path: Path) -> None:
    """Raise StorageError, before long work, where its result could not be written: no folder, or a read-only one."""
    if path.is_dir():
        raise StorageError(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise StorageError(f"{path}: there is no folder {path.parent}; make it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there. StorageError where that is refused."""
    with explained(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> None:
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path, metadata=dict(metadata) if metadata else None)
    with path.open("r+b") as written:
        _sort_metadata(written)
        written.flush()
        os.fsync(written.fileno())


def _sort_metadata(file: BinaryIO) -> None:
    """Put a header's metadata in order: safetensors' own changes from run to run, and with it the file's hash."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:
            file.seek(8)
            file.write(text)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        listed = {name: (int(f["bytes"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        plain = all(Path(name).name == name for name in listed) and isinstance(manifest["facts"], dict)
        digest = str(manifest["sha256"])
    except FileNotFoundError:
        raise StorageError(f"{path}: is missing, so {folder.name} is incomplete") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{path}: cannot be read as a manifest ({_reason(error)})") from None
    if not plain:
        raise StorageError(f"{path}: names files outside its folder")
    if digest != _content_hash({"files": manifest["files"], "facts": manifest["facts"]}):
        raise StorageError(f"{path}: is altered, its content is not what its own SHA-256 says")
    return manifest


def _content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, as hex."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Disk errors in words; the temporary file or folder is removed on any failure."""
    try:
        yield
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(StorageError):
                remove(temporary)
        if isinstance(error, (OSError, safetensors.SafetensorError)):
            raise StorageError(f"{path}: cannot be written ({_reason(error)})") from None
        raise


def _reason(error: BaseException) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())
