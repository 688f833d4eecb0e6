"""Files that torch.save wrote, read without running anything in them.

Only tensors, plain containers and `argparse.Namespace` (in which official checkpoints keep their command line) are
taken. A pickle that names any other class is refused, by that name.
"""

import argparse
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from maekit.errors import WeightsError


def read(path: Path) -> Any:
    """What a .pt, .pth or .bin file holds, tensors on the CPU. Raises WeightsError; no code in the file ever runs."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on odd pickles; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise WeightsError(f"{path}: holds no tensors as torch.save writes them") from None
        raise WeightsError(
            f"{path}: holds {refused.group(1)}, whose code loading would run; maekit takes tensors, plain containers "
            "and argparse.Namespace only. Where you trust the file, save its state dict alone"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception:  # torch's unpickler asserts little of what it reads: struct.error, AssertionError, KeyError ...
        raise WeightsError(f"{path}: is not a whole file of tensors as torch.save writes them") from None
