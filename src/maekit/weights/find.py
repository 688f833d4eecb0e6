"""The file that W means."""

from pathlib import Path
from typing import Any

from maekit.errors import WeightsError
from maekit.weights import stored
from maekit.weights.hub import download, is_repository
from maekit.weights.stored import FILES, Stored


def read(weights: Any) -> Stored:
    """What W holds, whether it names a file, or is a model of Python. Raises WeightsError where there is nothing."""
    model = getattr(weights, "object", None)
    if model is None:
        return stored.read(find(weights))
    from maekit.weights import native  # brings torch, as the model did

    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    return stored.of_tensors(Path(weights), tensors, native.metadata(model))


def find(weights: str | Path) -> Path:
    """The file W means: itself, a folder's weights, the model of a run's newest checkpoint, or a download for hf:REPO.

    Raises WeightsError where there is none.
    """
    if is_repository(weights):
        return _in_folder(download(str(weights)), weights)
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise WeightsError(f"{weights}: no such file or folder")
    return _in_folder(path, weights)


def _in_folder(folder: Path, weights: str | Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    checkpoints = [p for p in folder.glob("checkpoints/step-*/model.safetensors") if p.parent.name[5:].isdigit()]
    if checkpoints:
        return max(checkpoints, key=lambda p: int(p.parent.name[5:]))
    if any(folder.glob("shard-*.safetensors")) or any(folder.glob("checkpoints/step-*/shard-*.safetensors")):
        raise WeightsError(
            f"{weights}: holds checkpoints divided between processes (--run.parallel fsdp); --resume goes on with the "
            "run, at whose end model.safetensors is one file"
        )
    if (folder / ".metadata").is_file():
        raise WeightsError(
            f"{weights}: is a torch.distributed.checkpoint folder, whose .metadata is a pickle that maekit does not "
            "run; save a consolidated state dict instead"
        )
    raise WeightsError(f"{weights}: a folder without {' or '.join(FILES)} and without checkpoints; is it a run folder?")
