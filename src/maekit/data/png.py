"""What Pillow leaves out of a PNG: the checksums of its pixels, and 16 bits of colour."""

import struct
import warnings
import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from maekit.errors import ImageError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_GREY, _PALETTE = 0, 3


def check(data: bytes) -> None:
    """Raises ImageError where a chunk of pixels is cut or does not have its checksum. Other chunks are Pillow's."""
    at = len(_SIGNATURE)
    view = memoryview(data)
    while at + _CHUNK.size <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        if kind == b"IEND":
            return
        end = at + _CHUNK.size + length
        if kind == b"IDAT":
            if end + 4 > len(data):
                raise ImageError("truncated: the PNG's pixels end too early")
            if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
                raise ImageError("damaged: the PNG's pixels do not have their checksum")
        at = end + 4


def deep_colours(data: bytes) -> bool:
    """Whether a PNG has 16 bits and more than grey, of which Pillow keeps eight."""
    return data.startswith(_SIGNATURE) and len(data) > 25 and data[24] == 16 and data[25] not in (_GREY, _PALETTE)


def read_deep(data: bytes) -> NDArray[np.uint16]:
    """Pixels [H, W, 2 to 4] of such a PNG, alpha last.

    Only for a file that Pillow has decoded whole: torchvision's decoder does not survive every damaged one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will go to another package
            from torchvision.io import ImageReadMode, decode_png

            pixels = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ImageError(f"a PNG in colours of 16 bits, which this torchvision does not decode ({error})") from None
    if pixels.dtype != torch.uint16:
        raise ImageError("a PNG of 16 bits, which this torchvision does not decode")
    return pixels.permute(1, 2, 0).numpy()
