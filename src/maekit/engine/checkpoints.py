"""A run's state on the disk: written at once or beside training, whole or divided between processes; read into either.

What is divided goes through torch.distributed.checkpoint into .safetensors files, those of a process holding its parts;
no pickle is written or read. Names in them are KIND/NAME, where whole tensors lie in KIND.safetensors.
"""

import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from maekit import storage
from maekit.config import RunConfig
from maekit.engine import optimizer as optimizers
from maekit.engine.distributed import World, settle
from maekit.engine.ema import Ema
from maekit.engine.run_state import RunFolder
from maekit.engine.sharding import as_divided, copied
from maekit.errors import RunError, StorageError

log = logging.getLogger("maekit")

Files = Mapping[str, Mapping[str, Tensor]]
_PATIENCE = 30.0  # seconds for a checkpoint under way when a run ends by an error


class Checkpoints:
    """Writes them for all processes, never two at a time. All methods but `settle` are called by all of them."""

    def __init__(self, folder: RunFolder | None, config: RunConfig, world: World, *, divided: bool) -> None:
        self._folder, self._config, self._world = folder, config, world
        root = world.tell(None if folder is None else folder.checkpoints)
        self._keeps, self._root = root is not None, root if divided else None
        self._group: Any = dist.new_group(backend="gloo", timeout=world.timeout) if divided else None
        self._memory: dict[str, dict[str, Tensor]] = {}
        self._under_way: tuple[threading.Thread, Future[None]] | None = None

    def save(
        self, step: int, files: Files, facts: Mapping[str, Any], metadata: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Write `files` with the facts; `metadata` stands in the headers of whole ones.

        Raises StorageError where it, or the one before it, cannot be written: the older ones stay.
        """
        if not self._keeps:
            return
        self.finish()
        beside = self._config.async_checkpoint
        if beside or self._root is not None:
            files = {kind: copied(t, self._world, self._memory.setdefault(kind, {})) for kind, t in files.items()}
        write: Callable[[], None]
        if self._root is not None:
            write = partial(self._write_divided, self._root, step, files, facts)
        else:
            write = partial(self._write_whole, step, files, facts, metadata)
        if not beside:
            self._world.patiently(write)
            return
        result: Future[None] = Future()
        thread = threading.Thread(target=settle, args=(result, write), daemon=True)
        thread.start()
        self._under_way = thread, result

    def check(self) -> None:
        """Raises StorageError where the one that was begun beside training could not be written."""
        if self._config.async_checkpoint:
            result = None if self._under_way is None else self._under_way[1]
            if self._world.agree(result is not None and result.done() and result.exception() is not None):
                self.finish()

    def finish(self) -> None:
        """Wait for the one that is under way. Raises StorageError where it could not be written."""
        if self._config.async_checkpoint:
            before, self._under_way = self._under_way, None
            self._world.patiently(lambda: None if before is None else before[1].result())

    def settle(self) -> None:
        """The same where the run has ended by an error, which is not to be hidden by another."""
        if self._under_way is not None:
            thread, result = self._under_way
            thread.join(_PATIENCE)
            with suppress(Exception):
                if result.done() and (error := result.exception()) is not None:
                    log.warning("%s", error)

    def _write_whole(
        self, step: int, files: Files, facts: Mapping[str, Any], metadata: Mapping[str, Mapping[str, str]]
    ) -> None:
        if self._folder is not None:
            write = partial(storage.write_folder, files=files, facts={**facts, "step": step}, metadata=metadata)
            self._folder.save(step, write, keep=self._config.keep)

    def _write_divided(self, root: Path, step: int, files: Files, facts: Mapping[str, Any]) -> None:
        rank, temporary = self._world.rank, storage.temporary_of(root / f"step-{step}")
        tensors = {f"{kind}/{name}": tensor for kind, part in files.items() for name, tensor in part.items()}

        def write() -> dict[str, Any]:
            if rank == 0:
                storage.remove(temporary)
            try:
                writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
                save(tensors, storage_writer=writer, process_group=self._group)
            except CheckpointException as error:  # not an Exception; every process raises it
                raise _reason(error) from None
            own = sorted(temporary.glob(f"shard-{rank + 1:05d}-*"))
            return {path.name: storage.described(path) for path in own}

        def publish() -> None:
            if self._folder is not None:
                done = partial(storage.publish, temporary, listed=listed, facts={**facts, "step": step})
                self._folder.save(step, done, keep=self._config.keep)

        with storage.explained(root / f"step-{step}", temporary if rank == 0 else None):
            listed = {name: known for part in self._together(write) for name, known in part.items()}
            self._together(publish)

    def _together(self, work: Callable[[], Any]) -> list[Any]:
        """What the work came to in each process. Raises StorageError in all where it failed in one."""
        try:
            said, error = work(), None
        except (OSError, StorageError) as failure:
            said, error = None, failure
        told: list[Any] = [None] * self._world.size
        dist.all_gather_object(told, (said, None if error is None else str(error)), group=self._group)
        if error is not None:
            raise error
        for rank, (_, reason) in enumerate(told):
            if reason is not None:
                raise StorageError(f"process {rank}: {reason}")
        return [value for value, _ in told]


def _reason(failed: CheckpointException) -> Exception:
    error = next(iter(failed.failures.values()))[0]
    return error if isinstance(error, OSError) else StorageError(" ".join(str(error).split()) or type(error).__name__)


def load_into(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Give each its state in a checkpoint. Raises RunError where that is of another model; StorageError."""
    own = model.state_dict()
    kept = read(path, {"model": own, "optimizer": own} | ({} if ema is None else {"ema": ema.state_dict()}))
    try:
        model.load_state_dict({name: as_divided(value, own.get(name, value)) for name, value in kept["model"].items()})
    except RuntimeError as error:
        raise RunError(f"{path}: is of another model: {' '.join(str(error).split())[:300]}") from None
    optimizers.restore(optimizer, kept["optimizer"])
    if ema is not None:
        ema.load(kept["ema"])


def read(path: Path, like: Files) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's tensors by kind and name, however many processes wrote it, and whether whole or divided.

    like: tensors by the same names; what is divided in it is read so, where the checkpoint is divided too. Of the
    optimizer, KEY of NAME/KEY is as the parameter NAME in `like`. Raises StorageError.
    """
    if (path / "model.safetensors").is_file():
        return {kind: storage.read_tensors(path / f"{kind}.safetensors") for kind in like}
    stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for key, known in stored.items():
        kind, _, name = key.partition("/")
        own = like.get(kind, {}).get(name.rpartition("/")[0] if kind == "optimizer" else name)
        size, kept = known.size, known.properties.dtype  # type: ignore[union-attr]
        same = own is not None and own.shape == size
        tensors[key] = torch.zeros_like(own, dtype=kept) if same else torch.zeros(size, dtype=kept)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it is to be: each reads its own
            load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    except CheckpointException as error:
        raise StorageError(f"{path}: cannot be read ({_reason(error)})") from None
    found: dict[str, dict[str, Tensor]] = {kind: {} for kind in like}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        found.setdefault(kind, {})[name] = tensor
    return found
