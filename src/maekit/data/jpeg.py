"""Whether all of a JPEG's pixels are in its file.

A JPEG carries no checksum, so what can be seen is that its data do not come out even: they end too early, hold codes
that do not exist, or last longer than the picture. About one in four of 64 random bytes written into a photograph meets
none of these; nothing but a second copy would tell. Without simplejpeg, which passes on what libjpeg warns of, only
files that stop too early or lack scans are found: Pillow keeps libjpeg's warnings to itself.

Harmless, because cameras and programs do it: bytes after the end marker, no end marker after the last pixel, bytes
between header segments, padding (one value repeated, or two bytes) after the last pixel, unknown revisions, colour
profiles and Adobe's markers that are odd, frame parameters that baseline decoding does not use.
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
_MOST_PADDING = 2  # bytes of any value; one value may be repeated as often as it likes
_ATTEMPTS = 8


@dataclass
class _Segment:
    marker: int
    content: bytes
    """Of a scan with its header; of others without their length."""
    header: int = 0
    """Bytes of a scan's header."""


def check(data: bytes) -> None:
    """Raises ImageError where scans are missing, which decoders paint grey or blurred without a word."""
    progressive, components, left = False, 0, {}
    for segment in _segments(data):
        if segment.marker in _FRAMES and len(segment.content) > 5:
            progressive = segment.marker in _PROGRESSIVE
            components = segment.content[5]
            left = {segment.content[6 + 3 * n] : {*range(64)} for n in range(components) if 6 + 3 * n < len(segment.content)}
        elif segment.marker == _START_OF_SCAN and segment.header:
            count = segment.content[2]
            if not progressive and count >= components:
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


def judge(data: bytes, complaint: str, decode: Decode) -> None:
    """Raises ImageError where what libjpeg said of a JPEG means that pixels are lost; other words are passed over.

    complaint: the first thing it said. decode: tries again without what is harmless, to hear what it says then.
    """
    said, segments = complaint, None
    for _ in range(_ATTEMPTS):
        extraneous = _EXTRANEOUS.search(said)
        if not (extraneous or said.startswith("Premature end of JPEG") or any(word in said for word in _HARMLESS)):
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


def _segments(data: bytes) -> Iterator[_Segment]:
    """The parts of a JPEG up to its end marker or the end of the file, whichever comes first."""
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
        following = _END_OF_DATA.search(data, at + length) if _is_scan(data, at, length) else None
        end = following.start() if following else len(data)
        yield _Segment(marker, data[at:end], length if _is_scan(data, at, length) else 0)
        at = end


def _is_scan(data: bytes, at: int, length: int) -> bool:
    return length >= 6 and length == 6 + 2 * data[at + 2]


def _joined(segments: list[_Segment]) -> bytes:
    """The same picture with nothing in it that only describes it, and an end marker."""
    parts = [b"\xff\xd8"]
    sequential = not any(segment.marker in _PROGRESSIVE for segment in segments)
    for segment in segments:
        if segment.marker == _START_OF_SCAN:
            content = segment.content
            if sequential and segment.header:  # these three bytes mean nothing here, but are complained of
                content = content[: segment.header - 3] + b"\0\x3f\0" + content[segment.header :]
            parts.append(b"\xff\xda" + content)
        elif segment.marker in _TABLES | _FRAMES or (segment.marker == _ADOBE and _known_adobe(segment.content)):
            length = (len(segment.content) + 2).to_bytes(2)
            parts.append(bytes((0xFF, segment.marker)) + length + segment.content)
    return b"".join([*parts, b"\xff\xd9"])


def _known_adobe(content: bytes) -> bool:
    return content.startswith(b"Adobe") and len(content) >= 12 and content[11] <= 2


def _without_padding(segments: list[_Segment], count: int) -> bool:
    """Take so many bytes of padding off the first scan that ends in them; whether there was one."""
    for segment in segments:
        tail = segment.content[-count:]
        if segment.marker == _START_OF_SCAN and segment.header < len(segment.content) - count:
            if count > _MOST_PADDING and len(set(tail)) > 1:
                continue
            segment.content = segment.content[:-count]
            return True
    return False
