"""The file that W means."""

from pathlib import Path

from maekit.errors import WeightsError
from maekit.weights.stored import FILES

_HUB = "hf:"


def find(weights: str | Path) -> Path:
    """The file W means: itself, a folder's weights, the model of a run's newest checkpoint, or a download for hf:REPO.

    Raises WeightsError where there is none.
    """
    if str(weights).startswith(_HUB):
        return _in_folder(_download(str(weights)), weights)
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
    if (folder / ".metadata").is_file():
        raise WeightsError(
            f"{weights}: is a torch.distributed.checkpoint folder, whose .metadata is a pickle that maekit does not "
            "run; save a consolidated state dict instead"
        )
    raise WeightsError(f"{weights}: a folder without {' or '.join(FILES)} and without checkpoints; is it a run folder?")


def _download(weights: str) -> Path:
    """The folder of a hub repository on this machine. hf:REPO, or hf:REPO@REVISION."""
    import huggingface_hub  # a second that local weights do without

    repository, _, revision = weights.removeprefix(_HUB).partition("@")
    patterns = ["*.json", "*.safetensors"]
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
        if not any((folder / name).is_file() for name in FILES):
            huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=[FILES[-1]])
    except Exception as error:  # the hub's client raises what its transports raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{weights}: cannot be downloaded ({reason})") from None
    return folder
