"""What a source holds, before anything is trained on it: counts, sizes, what is broken or twice there, and how fast.

Legend: N images that were examined, C channels.
"""

import hashlib
import io
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from maekit import storage
from maekit.config import AugmentConfig
from maekit.config.verbs import DataOptions
from maekit.data import cache
from maekit.data.decode import Range, decode, decode_reduced, stored_mode, stored_values
from maekit.data.ranges import LITTLE, resolved, use_of_range
from maekit.data.sources import Source, Space, find_source
from maekit.data.sources.elsewhere import some_of
from maekit.data.sources.joined import JoinedSource
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.subset import labels_of
from maekit.data.statistics import mean_and_std, moments
from maekit.data.transforms import TrainTransform
from maekit.data.workers import map_in_order, worker_count
from maekit.engine.progress import with_count
from maekit.errors import DataError, ImageError, UsageError
from maekit.inference.alike import Entry, Look, Seen, alike, look
from maekit.inference.one_pass import printable
from maekit.inference.picture import check_writable, save
from maekit.results import Examined
from maekit.sections import Facts, Picture, Section, Text

_TRAINING_SIZE = (224, 224)  # of the crop that is timed
_CHUNK = 16  # images a worker examines before it reports
_BYTES = "0 to 255"
_REDUCED = ("JPEG RGB", "JPEG L", "MPO RGB")  # of which fewer pixels can be decoded
_NAMED = 10  # lines of each list that are printed; the answer holds all


Page = Callable[[Path, Examined, Seen], None]
"""Writes a page of what was found."""


@dataclass(frozen=True)
class _Finding:
    """One image: why it cannot be used, or what it is."""

    index: int
    reason: str = ""
    digest: bytes = b""
    height: int = 0
    width: int = 0
    mode: str = ""
    moments: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Per channel, [2, C]: mean and mean square in [0, 1]."""
    values: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Least and largest value as stored, and what its type stands for white."""
    seconds: float = 0.0
    """From reading to a crop that can be trained on, in one process."""
    look: Look | None = None
    """Where it is asked for."""


def run(options: DataOptions, page: Page | None = None) -> Examined:
    """`maekit data`: `examine`, with the cache cleared before where that is asked for. page: writes options.out.

    Raises DataError, its `answer` filled, where no image can be read.
    """
    freed = cache.clear() if options.clear_cache else None
    said = [] if freed is None else [Text(f"{freed / 1e9:,.2f} GB are removed from {cache.folder()}")]
    if not options.source:
        return Examined(**_answer(JoinedSource([]), [], options.rate), range=None, freed=freed, sections=said)
    if options.out:
        if Path(options.out).suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--out {options.out}: is a page, so its name ends in .html")
        storage.check_writable(Path(options.out))
    answer = examine(options, page=page)
    answer = replace(answer, freed=freed, sections=[*said, *answer.sections])
    if len(answer.unreadable) == answer.examined:
        reason = answer.unreadable[0]["reason"]
        failure = DataError(f"{options.source}: none of its {answer.examined:,} images can be read: {reason}")
        failure.answer = answer
        raise failure
    return answer


def examine(options: DataOptions, source: Source | None = None, page: Page | None = None) -> Examined:
    """What the source holds, opened or by its name. Raises DataError where there is no such source."""
    picture = Path(options.picture) if options.picture else None
    if picture is not None:
        check_writable(picture)
    space = Space.within(options.cache_limit)
    if source is None:
        source = find_source(options.source, options.image_column, space)
    held_out = find_source(options.val, options.image_column, space) if options.val else None
    indices = some_of(source, options.images)
    value_range = resolved(options.range, source, options.channels, workers=options.workers)
    findings, others = list(_findings(source, indices, options, value_range)), list[_Finding]()
    if held_out is not None:
        others += _findings(held_out, some_of(held_out, options.images), options, value_range)
    answer = _answer(source, findings, options.rate) | {"range": value_range}
    said = _told(answer, options, source.passed_over)
    if options.out or options.val:
        seen = Seen((source, held_out), alike(_entries(findings, False) + _entries(others, True)))
        answer |= seen.as_dict()
        said += [Text(part) for title, lines in seen.lines() for part in _some(title, lines)]
        if options.out and page is not None:
            page(Path(options.out), Examined(**answer, sections=said), seen)
            said.append(Text(f"\n{options.out}: the page"))
    if picture is not None:
        shown = _spread(findings)
        save(shown, picture)
        said.append(Picture(shown, ""))
    return Examined(**answer, sections=said)


def _findings(
    source: Source, indices: NDArray[np.int64], options: DataOptions, value_range: Range | None
) -> Iterator[_Finding]:
    transform = TrainTransform(AugmentConfig(), _TRAINING_SIZE)
    looks = bool(options.out or options.val)
    work = partial(_examined, source, options.channels, transform, value_range, looks)
    chunks = [indices[start : start + _CHUNK].tolist() for start in range(0, len(indices), _CHUNK)]
    for found in with_count(map_in_order(work, chunks, worker_count(options.workers)), len(indices)):
        yield from found


def _examined(
    source: Source, channels: int, transform: TrainTransform, value_range: Range | None, looks: bool, indices: list[int]
) -> list[_Finding]:
    findings = []
    for index in indices:
        began = time.perf_counter()
        try:
            data = source.read(index)
            reading = time.perf_counter() - began
            image = decode(data, channels, value_range=value_range)
        except ImageError as error:
            findings.append(_Finding(index, reason=str(error)))
            continue
        key = (0, 0, index, 0)
        transform(image, *key)
        seconds, smaller = time.perf_counter() - began, partial(transform.factor, [key])
        mode = stored_mode(data)
        if mode in _REDUCED and value_range is None and smaller(*image.shape[1:]) > 1:  # as training decodes it
            began = time.perf_counter()
            transform(decode_reduced(data, channels, smaller), *key)
            seconds = reading + time.perf_counter() - began
        digest = hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest()
        height, width = image.shape[1:]
        if image.is_floating_point():
            kept = stored_values(data, channels)
            values = float(kept.values.min()), float(kept.values.max()), float(kept.full)
        else:
            values = float(image.min()), float(image.max()), 255.0
        seen = look(image) if looks else None
        findings.append(_Finding(index, "", digest, height, width, mode, moments(image), values, seconds, seen))
    return findings


def _entries(findings: list[_Finding], held_out: bool) -> list[Entry]:
    return [Entry((held_out, one.index), one.digest, one.look) for one in findings if one.look is not None]


def _answer(source: Source, findings: list[_Finding], rate: float) -> dict[str, Any]:
    sound = [finding for finding in findings if not finding.reason]
    mean, std = mean_and_std(np.array([finding.moments for finding in sound])) if sound else (None, None)
    speed = len(sound) / sum(finding.seconds for finding in sound) if sound else None
    return {
        "images": len(source),
        "passed_over": source.passed_over.as_dict(),
        "examined": len(findings),
        "classes": _classes(source),
        "unreadable": [
            {"path": printable(source.path(finding.index)), "reason": finding.reason}
            for finding in findings
            if finding.reason
        ],
        "mean": mean,
        "std": std,
        "sizes": _sizes(sound),
        "values": use_of_range(finding.values for finding in sound),
        "modes": dict(Counter(finding.mode for finding in sound).most_common()),
        "duplicates": _duplicates(source, sound),
        "images_per_second": speed,
        "workers_for_rate": math.ceil(rate / speed) if speed else None,
    }


def _classes(source: Source) -> dict[str, int] | None:
    """All images of each class, also where only some are examined: labels are at hand."""
    if source.classes is None:
        return None
    counts = np.bincount(labels_of(source) + 1, minlength=len(source.classes) + 1)[1:].tolist()
    return dict(zip(map(printable, source.classes), counts, strict=True))


def _sizes(sound: list[_Finding]) -> dict[str, Any] | None:
    if not sound:
        return None
    sizes = np.array([(finding.width, finding.height) for finding in sound])
    common = Counter(map(tuple, sizes.tolist())).most_common(_NAMED)
    summary: dict[str, Any] = {
        name: {"smallest": int(sides.min()), "median": float(np.median(sides)), "largest": int(sides.max())}
        for name, sides in (("width", sizes[:, 0]), ("height", sizes[:, 1]))
    }
    summary["most_frequent"] = [{"width": width, "height": height, "images": n} for (width, height), n in common]
    return summary


def _duplicates(source: Source, sound: list[_Finding]) -> list[list[str]]:
    """Paths of images with equal bytes, in the source's order, groups by their first."""
    by_bytes: dict[bytes, list[int]] = {}
    for finding in sound:
        by_bytes.setdefault(finding.digest, []).append(finding.index)
    return [[printable(source.path(index)) for index in group] for group in by_bytes.values() if len(group) > 1]


def _told(answer: dict[str, Any], options: DataOptions, passed_over: PassedOver) -> list[Section]:
    bad = [f"{bad['path']}: {bad['reason']}" for bad in answer["unreadable"]]
    same = [" = ".join(group) for group in answer["duplicates"]]
    listed = (*_some("Unreadable", bad), *_some("Same content", same))
    return [Facts([*_lines(answer, options)]), *map(Text, (*passed_over.lines(), *listed))]


def _lines(answer: dict[str, Any], options: DataOptions) -> Iterator[tuple[str, str]]:
    images, examined = answer["images"], answer["examined"]
    yield "images", f"{images:,}" + (f", of which {examined:,} were examined" if examined < images else "")
    if answer["classes"] is None:
        yield "classes", "none: unlabelled"
    else:
        counts = answer["classes"].values()
        each = f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{min(counts):,}"
        yield "classes", f"{len(counts):,}, of {each} images each"
    yield "unreadable", f"{len(answer['unreadable']):,}"
    repeated = sum(len(group) - 1 for group in answer["duplicates"])
    yield "duplicates", f"{repeated:,} images repeat another's bytes"
    if answer["sizes"] is None:
        return
    for side in ("width", "height"):
        of = answer["sizes"][side]
        yield side, f"{of['smallest']:,} to {of['largest']:,} px, median {of['median']:,.0f}"
    yield "kept as", ", ".join(f"{mode} ({count:,})" for mode, count in answer["modes"].items())
    for line in _uses(answer):
        yield "values", line
    mean, std = (" ".join(f"{value:.4f}" for value in answer[name]) for name in ("mean", "std"))
    ranged = "" if answer["range"] is None else "--data.range {:g} {:g} ".format(*answer["range"])
    yield "pixels", f"{ranged}--normalise given --mean {mean} --std {std}"
    yield (
        "speed",
        f"{answer['images_per_second']:,.0f} images/s a process, to crops of 224 px; "
        f"{options.rate:,.0f} images/s take {answer['workers_for_rate']:,} workers",
    )


def _uses(answer: dict[str, Any]) -> Iterator[str]:
    """What of their range the stored values use, and what to do where that is little."""
    for use in answer["values"]:
        line = f"{use['kept']}, {use['low']:,g} to {use['high']:,g}"
        if use["share"] <= 1:  # what needs a range can have any values
            line += f": uses {use['share']:.0%} of its range"
        if answer["range"] is None and use["share"] < LITTLE:
            numbers = f"--data.range {use['low']:g} {use['high']:g}"
            line += f"; {numbers}, or --data.range measured, spreads it over all"
        elif use["narrow"] and use["kept"] != _BYTES:
            line += f"; {use['narrow']:,} of {use['images']:,} images use less than an eighth of it"
        yield line


def _some(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield "\n".join([f"\n{title}:", *(f"  {line}" for line in lines[:_NAMED])])
    if len(lines) > _NAMED:
        yield f"  and {len(lines) - _NAMED:,} more; --json has them all"


def _spread(findings: list[_Finding]) -> Image.Image:
    """Every image's width and height, and how many are kept in which mode."""
    sound = [finding for finding in findings if not finding.reason]
    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    sizes, modes = figure.subplots(1, 2)
    sizes.scatter([one.width for one in sound], [one.height for one in sound], s=9, alpha=0.4, color="#0072b2", lw=0)
    sizes.set(xlabel="width, px", ylabel="height, px", title=f"sizes of {len(sound):,} images")
    sizes.set_xlim(left=0)
    sizes.set_ylim(bottom=0)
    counts = Counter(finding.mode for finding in sound).most_common()
    bars = modes.barh([mode for mode, _ in counts], [count for _, count in counts], color="#0072b2")
    modes.bar_label(bars, padding=3)
    modes.set_ylim(max(len(counts), 5) - 0.5, -0.5)
    modes.margins(x=0.15)
    modes.set(xlabel="images", title="kept as")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")
