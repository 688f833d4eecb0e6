"""Whether all of a JPEG's pixels are in its file.

A JPEG carries no checksum, so what can be seen is that its data do not come out even: they end too early, hold codes
that do not exist, or last longer than the picture. Of 64 random bytes written into a photograph, about one time in
eight none of this comes of it, and nothing but a second copy would tell. Without simplejpeg, which passes on what
libjpeg warns of, only files that stop too early, lack scans or have holes of zeros are found: Pillow keeps libjpeg's
warnings to itself.

Harmless, because cameras and programs do it: bytes after the end marker, bytes between header segments, padding (one
value repeated, or two bytes of any) between the last pixel and the end marker, unknown revisions, colour profiles and
Adobe's markers that are odd, frame parameters that baseline decoding does not use.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maekit.errors import ImageError

Decode = Callable[[bytes], object]
"""Decodes strictly: ValueError with libjpeg's words where libjpeg warns."""

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN, _ADOBE = 0xD8, 0xD9, 0xDA, 0xEE
_TABLES = {0xDB, 0xDD, 0xC4, 0xCC}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ALONE = {0x01, _START_OF_IMAGE, *range(0xD0, 0xD8)}  # markers without a length
_END_OF_DATA = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_HARMLESS = ("Unknown Adobe", "bad ICC", "unknown JFIF", "Invalid SOS", "Inconsistent progression")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker")
_HOLE = bytes(48)  # of at least 16 bytes a block, so whole blocks
_MOST_PADDING = 2  # bytes of any value; one value may be repeated as often as it likes
_ATTEMPTS = 8


@dataclass
class _Segment:
    marker: int
    content: bytes
    """Of a scan with its header; of others without their length."""
    header: int = 0
    """Bytes of a scan's header."""
    at: int = 0
    """Where the content of a scan begins in the file."""


def check(data: bytes, *, to_the_end: bool) -> None:
    """Raises ImageError where scans are missing, which decoders paint grey or blurred without a word.

    to_the_end: also where there is no end marker, which decoders that are strict find by themselves.
    """
    if to_the_end and not _ends(data):
        raise ImageError("truncated: the JPEG has no end marker")
    progressive, components, left = False, 0, dict[int, set[int]]()
    for segment in _segments(data, headers_only=True):
        if segment.marker in _FRAMES and len(segment.content) > 5:
            progressive = segment.marker in _PROGRESSIVE
            components = segment.content[5]
            left = {component: {*range(64)} for component in segment.content[6 : 6 + 3 * components : 3]}
        elif segment.marker == _START_OF_SCAN and segment.header:
            count = segment.content[2]
            if not progressive and count >= components:
                _check_holes(data, segment.at)
                return
            named = [segment.content[3 + 2 * n] for n in range(count)]
            first, last, precision = segment.content[3 + 2 * count : 6 + 2 * count]
            for component in named:
                if not progressive:
                    left.pop(component, None)
                elif precision & 15 == 0 and component in left:
                    left[component] -= {*range(first, last + 1)}
    if any(left.values()):
        raise ImageError("truncated: some of the JPEG's scans are missing")


def _check_holes(data: bytes, start: int) -> None:
    """Raises ImageError for a long run of zeros in the data of a baseline JPEG, before their end.

    Zeros repeat the first symbol of a Huffman table. Unless that ends the block (as in flat images, where tables are
    made to measure), they stand for blocks in which no coefficient is zero, which no photograph has.
    """
    hole = data.find(_HOLE, start)
    if hole < 0:
        return
    for segment in _segments(data):
        if segment.marker == 0xC4 and _zeros_end_a_block(segment.content):
            return
        if segment.marker == _START_OF_SCAN and _HOLE in segment.content.rstrip(b"\0"):
            raise ImageError("damaged: a hole of zeros in the JPEG data")


def _zeros_end_a_block(tables: bytes) -> bool:
    at = 0
    while at + 17 < len(tables):
        if tables[at] >> 4 and tables[at + 17] & 15 == 0:
            return True
        at += 17 + sum(tables[at + 1 : at + 17])
    return False


def judge(data: bytes, complaint: str, decode: Decode) -> None:
    """Raises ImageError where what libjpeg said of a JPEG means that pixels are lost; other words are passed over.

    complaint: the first thing it said. decode: tries again without what is harmless, to hear what it says then.
    """
    said, segments = complaint, None
    for _ in range(_ATTEMPTS):
        extraneous = _EXTRANEOUS.search(said)
        if not (extraneous or any(word in said for word in _HARMLESS)):
            break
        if segments is None:
            segments = list(_segments(data))
        elif not (extraneous and _without_padding(segments, int(extraneous[1]))):
            break
        try:
            decode(_joined(segments))
            return
        except ValueError as error:
            said = str(error)
    if said.startswith(("Premature", "Corrupt")) and "bad ICC" not in said:
        cut = said.startswith("Premature") or "premature" in said
        reason = said.removeprefix("Corrupt JPEG data: ")
        raise ImageError(f"{'truncated' if cut else 'damaged'}: JPEG data with {reason[0].lower()}{reason[1:]}")


def _ends(data: bytes) -> bool:
    """Whether an end marker follows the first picture, not one that is embedded in a header."""
    at = 2
    for segment in _segments(data):
        at += len(segment.content)
    return data.find(b"\xff\xd9", at) >= 0


def _segments(data: bytes, *, headers_only: bool = False) -> Iterator[_Segment]:
    """The parts of a JPEG up to its end marker or the end of the file; of scans the whole, or the header alone."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:
            at += 1
        if at < 0 or at >= len(data) or data[at] == _END_OF_IMAGE:
            return
        marker, at = data[at], at + 1
        if marker in _ALONE or marker == 0:
            continue
        length = int.from_bytes(data[at : at + 2])
        if length < 2 or at + length > len(data):
            return
        if marker != _START_OF_SCAN:
            yield _Segment(marker, data[at + 2 : at + length])
            at += length
            continue
        # a scan's header is as long as its number of components says
        header = length if length >= 6 and length == 6 + 2 * data[at + 2] else 0
        if headers_only:  # the data are not looked through unless more is asked for: most files have one scan
            yield _Segment(marker, data[at : at + length], header, at)
        following = _END_OF_DATA.search(data, at + length)
        end = following.start() if following else len(data)
        if not headers_only:
            yield _Segment(marker, data[at:end], header, at)
        at = end


def _joined(segments: list[_Segment]) -> bytes:
    """The same picture with nothing in it that only describes it, and an end marker."""
    parts = [b"\xff\xd8"]
    sequential = not any(segment.marker in _PROGRESSIVE for segment in segments)
    for segment in segments:
        marker, content = segment.marker, segment.content
        known_adobe = marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= 12 and content[11] <= 2
        if marker == _START_OF_SCAN:
            if sequential and segment.header:  # these three bytes mean nothing here, but are complained of
                content = content[: segment.header - 3] + b"\0\x3f\0" + content[segment.header :]
            parts.append(b"\xff\xda" + content)
        elif known_adobe or marker in _TABLES | _FRAMES:
            parts.append(bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content)
    return b"".join([*parts, b"\xff\xd9"])


def _without_padding(segments: list[_Segment], count: int) -> bool:
    """Take so many bytes of padding off the last scan that ends in them; whether there was one."""
    for segment in reversed(segments):
        tail = segment.content[-count:]
        if segment.marker == _START_OF_SCAN and segment.header < len(segment.content) - count:
            if count > _MOST_PADDING and len(set(tail)) > 1:
                continue
            segment.content = segment.content[:-count]
            return True
    return False
