"""Errors a person can act on.

The command line prints any of these as one line and leaves with its exit code; every other exception is a bug and
keeps its traceback. A message says what was wrong, where, and what to do.
"""

from typing import Any


class MaekitError(Exception):
    """Root of every error maekit raises on purpose."""

    exit_code = 1
    answer: Any = None
    """What was found all the same."""
    told = False
    """Whether another process of the same job says it."""


class UsageError(MaekitError):
    """An option, preset or config file that cannot be meant. Found before data or device are touched."""

    exit_code = 2


class DataError(MaekitError):
    """A source that is missing, empty, unlabelled where labels are needed, or too damaged to train on."""


class ImageError(DataError):
    """One image that cannot be used. The message is the reason alone; the caller adds the name."""


class ModelError(MaekitError):
    """A model, mask or image size that do not fit each other."""


class WeightsError(MaekitError):
    """A checkpoint of an unknown layout, of another model, or without the part that is asked for."""


class StorageError(MaekitError):
    """A folder of tensors that is incomplete or altered, or a disk that cannot take it."""


class RunError(MaekitError):
    """A run folder in use, a resume that would drift, a batch that does not divide, a device that is not there."""


class OthersError(RunError):
    """What another process of the same job came to."""

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class TrainingError(MaekitError):
    """A run that cannot go on: a loss that is not finite, a process that died."""


class Stopped(MaekitError):  # noqa: N818 - stopping when asked is no error
    """Stopped by a signal after saving; `--resume` continues."""

    exit_code = 75

    def __init__(self, message: str, run: str = "", step: int = 0, signal: str | None = None) -> None:
        """run: the run folder that was saved to, at which step. signal: that came, None where to another process."""
        super().__init__(message)
        self.run, self.step, self.signal = run, step, signal
