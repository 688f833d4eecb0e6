"""What the data doctor found, as a page: counts, and thumbnails of what deserves a look, each with its path."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from maekit.data.decode import Range, decode
from maekit.errors import ImageError
from maekit.inference import picture
from maekit.inference.alike import Place, Seen
from maekit.randomness import numpy_generator
from maekit.report import page
from maekit.results import Examined
from maekit.sections import Facts, Heading, Picture, Section, Table, Text, Thumbnails

_SAMPLE = 24  # images
_SHOWN = 24  # of a list
_GROUPS = 12
_SIDE = 128  # px
_ROWS = 100
_SEED = 0x5A3


def write(path: Path, answer: Examined, seen: Seen) -> None:
    """Write the page. Raises StorageError."""
    page.write(path, f"The images of {seen.sources[0].text}", sections(answer, seen))


def sections(answer: Examined, seen: Seen) -> list[Section]:
    """The page's."""
    found, sound = seen.found, [place for place in seen.found.sound if not place[0]]
    said: list[Section] = [part for part in answer.sections if isinstance(part, Facts | Picture)]
    if answer.classes:
        counts = sorted(answer.classes.items(), key=lambda item: -item[1])[:_ROWS]
        note = "" if len(counts) == len(answer.classes) else f"The largest {_ROWS} of {len(answer.classes):,}."
        said += [Heading("Classes"), Table(["class", "images"], [[name, f"{n:,}"] for name, n in counts], note)]
    drawn = numpy_generator(_SEED).permutation(len(sound))[:_SAMPLE]
    sample = [sound[number] for number in sorted(drawn.tolist())]
    said += _shown("A sample", f"{len(sample)} of {len(sound):,} that can be read.", sample, seen, answer.range)
    if answer.unreadable:
        rows = [[bad["path"], bad["reason"]] for bad in answer.unreadable[:_ROWS]]
        said += [Heading(f"Unreadable: {len(answer.unreadable):,}"), Table(["path", "why"], rows)]
    if seen.sources[1] is not None:
        said += _groups("Held out, and among the training images too", found.shared, seen, answer.range)
    said += _groups("The same bytes", found.duplicates, seen, answer.range)
    said += _groups("Nearly the same", found.near, seen, answer.range)
    for heading, places in (
        ("Very dark", found.dark), ("Very blurred", found.blurred), ("Of one colour", found.constant)
    ):  # fmt: skip
        if places:
            more = f"and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
            said += _shown(f"{heading}: {len(places):,}", more, places[:_SHOWN], seen, answer.range)
    return said


def _groups(
    heading: str, groups: Sequence[Sequence[Place]], seen: Seen, value_range: Range | None
) -> Iterator[Section]:
    if not groups and heading.startswith("Held out"):
        yield from (Heading(heading), Text("None, as far as bytes and a perceptual hash tell."))
    if not groups:
        return
    yield Heading(f"{heading}: {len(groups):,} {'group' if len(groups) == 1 else 'groups'}")
    for group in groups[:_GROUPS]:
        more = f"and {len(group) - _SHOWN:,} more" if len(group) > _SHOWN else ""
        yield Thumbnails([*_thumbs(group[:_SHOWN], seen, value_range)], more)
    if len(groups) > _GROUPS:
        yield Text(f"And {len(groups) - _GROUPS:,} more groups; --json has them all.")


def _shown(heading: str, caption: str, places: Sequence[Place], seen: Seen, value_range: Range | None) -> list[Section]:
    return [Heading(heading), Thumbnails([*_thumbs(places, seen, value_range)], caption)] if places else []


def _thumbs(places: Sequence[Place], seen: Seen, value_range: Range | None) -> Iterator[tuple[bytes, str]]:
    for place in places:
        try:
            image = decode(seen.source(place).read(place[1]), 3, value_range=value_range)
        except ImageError:  # which was there a moment ago
            continue
        values = (image * 255).round().byte() if image.is_floating_point() else image
        small = picture.panel(values.permute(1, 2, 0).numpy(), _SIDE // 2)
        small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        encoded = io.BytesIO()
        small.save(encoded, format="JPEG", quality=85)
        yield encoded.getvalue(), f"{'held out: ' if place[0] else ''}{seen.path(place)}"
