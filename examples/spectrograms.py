"""A source of your own: recordings as spectrograms (Audio-MAE, arXiv 2207.06405), in patches of 16x4.

    maekit pretrain vit-tiny-small-data --data examples.spectrograms:Spectrograms,folder=recordings \\
        --model.channels 1 --image-size 128x64 --model.patch-size 16x4 --augment.crop none --augment.flip 0 \\
        --normalise measured
"""

import hashlib
import io
import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

_FLOOR = -80.0  # decibels below the loudest: what is quieter is silence


class Spectrograms:
    """16-bit .wav files under a folder, a class for each folder in it.

    Each is its log power over `bins` frequencies (rows, the highest first) and time (columns) in [0, 1], cut or
    filled up to `seconds`. maekit decodes what `read` gives; images are cut to the model's size like any others.
    """

    def __init__(self, folder: str, bins: int = 128, seconds: float = 1.0) -> None:
        self.files = sorted(Path(folder).expanduser().rglob("*.wav"))
        self.bins, self.seconds = bins, seconds
        names = sorted({file.parent.name for file in self.files})
        self.classes = tuple(names) if len(names) > 1 else None

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """What a person may look for."""
        return str(self.files[index])

    def label(self, index: int) -> int | None:
        """Number of the class; None where there are none."""
        return self.classes.index(self.files[index].parent.name) if self.classes else None

    def read(self, index: int) -> bytes:
        """An image that maekit can decode: here a NumPy array [bins, frames, 1] of float32, as a .npy file's bytes."""
        file = io.BytesIO()
        np.save(file, self.spectrogram(index)[:, :, None])
        return file.getvalue()

    def spectrogram(self, index: int) -> NDArray[np.float32]:
        """[bins, frames] in [0, 1]."""
        with wave.open(str(self.files[index])) as recording:
            wanted = int(self.seconds * recording.getframerate())
            sound = np.frombuffer(recording.readframes(wanted), dtype="<i2").reshape(-1, recording.getnchannels())
        samples = torch.zeros(wanted)
        samples[: len(sound)] = torch.as_tensor(sound.mean(axis=1) / 2**15)
        window = torch.hann_window(2 * self.bins)
        power = torch.stft(samples, 2 * self.bins, hop_length=self.bins, window=window, return_complex=True).abs()[1:]
        decibels = 20 * torch.log10(power / power.max().clamp(min=1e-6) + 1e-9)
        return (1 - decibels.clamp(min=_FLOOR) / _FLOOR).flip(0).numpy()

    def fingerprint(self) -> str:
        """Changes when the images do, so that a run cannot go on with others."""
        names = "\0".join(f"{file} {file.stat().st_size}" for file in self.files)
        return hashlib.sha256(f"{names}\0{self.bins} {self.seconds}".encode()).hexdigest()
