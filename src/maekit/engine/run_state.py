"""A run folder: who may write it, what ran in it, and the checkpoints a run goes on from."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from maekit import storage, strict_json
from maekit.errors import RunError, StorageError

log = logging.getLogger("maekit")

UNTRAINED = "untrained.json"
"""What validation says of the model before its first step."""
PROBES = "probes.jsonl"
"""What probes said of the run's weights, one judgement a line."""
_PARTS = ("config.json", "metrics.jsonl", UNTRAINED, PROBES, "model.safetensors", "model_ema.safetensors",
          "best.safetensors", "report.html", "log.txt", "not_finite.json", "trace.json.gz", "tensorboard",
          "checkpoints", "pictures")  # fmt: skip


class RunFolder:
    """Use through `open_run`, which holds the folder for one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @property
    def holds_run(self) -> bool:
        """Whether a run has been here."""
        return any((self.path / part).exists() for part in _PARTS)

    @property
    def has_begun(self) -> bool:
        """Whether a run has left more than its config."""
        history = self.path / "metrics.jsonl"
        logged = history.is_file() and history.stat().st_size > 0
        return logged or self.checkpoints.exists() or (self.path / "not_finite.json").exists()

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        for part in _PARTS:
            storage.remove(self.path / part)

    def write_config(self, record: Mapping[str, Any]) -> None:
        """Write config.json."""
        storage.write_text(self.path / "config.json", strict_json.dumps(record, indent=1) + "\n")

    def save(self, step: int, write: Callable[[Path], None], *, keep: int) -> None:
        """Let checkpoints/step-N be written, complete or not at all; then remove all but the newest `keep`."""
        folder = self.checkpoints / f"step-{step}"
        if folder.exists():
            storage.remove(folder)
        write(folder)
        for _, old in self._steps()[keep:]:
            storage.remove(old)

    def newest_sound(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is complete and unaltered, with its facts; broken ones are set aside and named."""
        for leftover in self.checkpoints.glob(f"*{storage.TEMPORARY}"):
            storage.remove(leftover)
        for _, folder in self._steps():
            try:
                return folder, storage.read_facts(folder)
            except StorageError as error:
                broken = folder.with_name(f"broken-{folder.name}")
                names = [broken, *(broken.with_name(f"{broken.name}-{number}") for number in range(2, 1000))]
                aside = next(name for name in names if not name.exists())
                folder.rename(aside)
                log.warning("%s; set aside as %s, the checkpoint before it is used", error, aside.name)
        return None

    def _steps(self) -> list[tuple[int, Path]]:
        """Checkpoints, newest first."""
        numbers = ((folder.name.removeprefix("step-"), folder) for folder in self.checkpoints.glob("step-*"))
        return sorted(((int(n), folder) for n, folder in numbers if n.isdigit() and folder.is_dir()), reverse=True)


@contextmanager
def open_run(path: Path, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Hold a run folder, made where it is missing.

    Raises RunError where another process holds it, where it holds a run and neither resume nor overwrite was asked for,
    or where it cannot be written.
    """
    run = RunFolder(path)
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    with contextlib.ExitStack() as held:
        held.callback(_remove_empty, new)
        try:
            path.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock(path / "lock"))
            if run.holds_run and not (resume or overwrite):
                raise RunError(f"{path}: holds a run already; --resume continues it, --overwrite starts anew")
            if overwrite and not resume:
                run.clear()
            if not run.holds_run:
                held.push(partial(_clear_unless_begun, run))
            held.enter_context(_log_file(path / "log.txt"))
        except OSError as error:
            raise RunError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from None
        yield run


def _clear_unless_begun(run: RunFolder, kind: type[BaseException] | None, *_: object) -> None:
    """A new run that fails before its first step leaves nothing."""
    if kind is not None and not run.has_begun:
        with contextlib.suppress(StorageError):
            run.clear()


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


_held: set[int] = set()


def _let_go() -> None:
    """In a forked process, which would otherwise hold the lock of a parent that is gone."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when the process ends, however it ends."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise RunError(f"{path.parent}: is in use by {holder}; wait for it or choose another --out") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                break
        os.close(descriptor)  # its holder removed it between the two calls
    _held.add(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


class _LogFile(logging.FileHandler):
    """A full disk is told by what matters more, the history and the checkpoints."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
