"""The Hugging Face hub: weights from repositories and to them. `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`."""

from pathlib import Path
from textwrap import shorten

from maekit.errors import WeightsError
from maekit.weights.stored import FILES

_PREFIX = "hf:"
_CHECK = "check the name, the network, and HF_TOKEN for what is not public"


def is_repository(weights: str | Path) -> bool:
    return str(weights).startswith(_PREFIX)


def download(weights: str) -> Path:
    """The folder on this machine that holds the repository's weights and configs. Raises WeightsError."""
    import huggingface_hub  # a second that local weights do without

    repository, _, revision = weights.removeprefix(_PREFIX).partition("@")
    *preferred, pickled = FILES
    try:
        for patterns in (["*.json", *preferred, "*.safetensors"], [pickled]):
            folder = Path(
                huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
            )
            if any((folder / name).is_file() for name in FILES):
                return folder
    except Exception as error:  # whatever the hub's client and its transports raise
        raise WeightsError(f"{weights}: cannot be downloaded ({_reason(error)}); {_CHECK}") from None
    raise WeightsError(f"{weights}: the repository holds none of {', '.join(FILES)}")


def push(path: Path, repository: str) -> str:
    """Upload a file or folder of weights, creating the repository where there is none; returns where it is.

    Raises WeightsError.
    """
    import huggingface_hub

    name, hub = repository.removeprefix(_PREFIX), huggingface_hub.HfApi()
    try:
        hub.create_repo(name, exist_ok=True)
        if path.is_dir():
            return str(hub.upload_folder(repo_id=name, folder_path=path))
        return str(hub.upload_file(repo_id=name, path_or_fileobj=path, path_in_repo=path.name))
    except Exception as error:  # whatever the hub's client and its transports raise
        raise WeightsError(f"{repository}: cannot be pushed to ({_reason(error)}); {_CHECK}") from None


def _reason(error: Exception) -> str:
    return shorten(str(error), 200, placeholder=" ...") or type(error).__name__
