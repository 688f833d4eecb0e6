"""A source packed: its images made smaller once, in a folder that is a source with the same labels and order.

The folder is written as FOLDER.part, a shard after the other, each complete or absent; it gets its name when all are
there and have been read again. A packing that was ended goes on with the shards that are missing.
"""

import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from maekit import storage
from maekit.config import AugmentConfig
from maekit.config.verbs import PackOptions
from maekit.data.decode import decode_reduced
from maekit.data.packing import Entry, Form, How, Small, made_small, name_of, writing
from maekit.data.sources import Source, Space, find_source, open_source
from maekit.data.sources.elsewhere import some_of
from maekit.data.sources.splits import counted
from maekit.data.sources.tar_samples import samples_of
from maekit.data.transforms import TrainTransform
from maekit.data.windows import fetched_ahead
from maekit.data.workers import map_in_order, worker_count
from maekit.engine.progress import with_count
from maekit.engine.run_state import lock
from maekit.errors import DataError, ImageError, StorageError, UsageError
from maekit.inference.one_pass import printable
from maekit.results import Packed
from maekit.sections import Facts, Text

UNREADABLE = "unreadable.txt"
_A_SHARD = 4096  # images, where nothing is said: some 100 MB at 256 px
_CHUNK = 4  # images that a worker packs before it hands them over
_CROP = (224, 224)
_TIMED, _TIMED_SECONDS = 64, 3.0
_NAMED = 10

_log = logging.getLogger("maekit")


@dataclass(frozen=True)
class _Plan:
    """What is packed and how: a packing goes on only with what was begun alike."""

    source: str
    fingerprint: str
    images: int
    short_side: int
    quality: int
    to: Form
    shards: int

    def shard(self, number: int) -> range:
        """Its images."""
        return range(self.images * number // self.shards, self.images * (number + 1) // self.shards)

    def name(self, number: int) -> str:
        return f"shard-{number:0{len(str(max(self.shards - 1, 99_999)))}d}.{self.to}"


@dataclass(frozen=True)
class _Made:
    """One image made small, or why it cannot be."""

    index: int
    size: int = 0
    """Bytes that it had."""
    small: Small | None = None
    reason: str = ""


def pack(options: PackOptions) -> Packed:
    """`maekit pack`. Raises DataError where no image can be read, StorageError where the folder is another's."""
    out = Path(options.out)
    source = open_source(options.source, options.image_column, Space.within(options.cache_limit))
    plan = _plan(source, options)
    if out.exists():
        facts = _finished(out, plan)
        _log.info("%s: is packed already; its files are what was written", out)
        return _answer(source, out, facts)
    work = storage.temporary_of(out)
    with storage.explained(out):
        work.mkdir(parents=True, exist_ok=True)
        with lock(work / "lock"):
            _begin(work, plan)
            _write_missing(source, work, plan, options.workers)
            records = [_record(work, plan, number) for number in range(plan.shards)]
            facts = _facts(source, plan, records)
            if len(facts["unreadable"]) == plan.images:
                reason = facts["unreadable"][0]["reason"]
                raise DataError(f"{source.text}: none of its {plan.images:,} images can be read: {reason}")
            _verify(work, plan, records, options.workers)
            listed = {plan.name(number): record["file"] for number, record in enumerate(records)}
            if facts["unreadable"]:
                lines = (f"{bad['path']}: {bad['reason']}\n" for bad in facts["unreadable"])
                storage.write_text(work / UNREADABLE, "".join(lines))
                listed[UNREADABLE] = storage.described(work / UNREADABLE)
            storage.publish(work, out, listed, facts)
        for leftover in (out / "lock", *out.glob(".*.json")):
            leftover.unlink(missing_ok=True)
    return _answer(source, out, facts)


def _plan(source: Source, options: PackOptions) -> _Plan:
    shards = options.shards or -(-len(source) // _A_SHARD)
    if shards > len(source):
        raise UsageError(f"--shards {shards}: there are {len(source)} images")
    return _Plan(
        source.text, source.fingerprint(), len(source), options.short_side, options.quality, options.to, shards
    )


def _differs(plan: _Plan, other: dict[str, Any]) -> list[str]:
    """What another packing has that this one has not; where the source lies may change."""
    wanted = asdict(plan)
    return [f"{name} {other.get(name)}" for name in wanted if name != "source" and other.get(name) != wanted[name]]


def _finished(out: Path, plan: _Plan) -> dict[str, Any]:
    """What is known of a folder that this very packing has made. StorageError for any other."""
    if not (out / storage.MANIFEST).is_file():
        raise StorageError(f"{out}: is there already; choose another --out")
    facts = storage.read_facts(out)
    if differences := _differs(plan, facts):
        raise StorageError(
            f"{out}: is there already, of other images or options ({', '.join(differences)}); choose another --out"
        )
    return facts


def _begin(work: Path, plan: _Plan) -> None:
    """Write down what is to be packed, or find that it was begun and is the same."""
    begun = work / ".plan.json"
    if not begun.exists() or not any(work.glob("shard-*")):
        storage.write_text(begun, json.dumps(asdict(plan)))
        return
    try:
        differences = _differs(plan, json.loads(begun.read_text(encoding="utf-8")))
    except ValueError:
        differences = ["a plan that cannot be read"]
    if differences:
        raise StorageError(
            f"{work}: holds a packing of other images or options ({', '.join(differences)}) that was not finished; "
            "remove it, or choose another --out"
        )
    done = sum((work / plan.name(number)).exists() for number in range(plan.shards))
    _log.info("%s: goes on, %d of %d shards are there", work, done, plan.shards)


def _record_of(work: Path, plan: _Plan, number: int) -> Path:
    return work / f".{plan.name(number)}.json"


def _record(work: Path, plan: _Plan, number: int) -> dict[str, Any]:
    """What was written down of a shard."""
    return json.loads(_record_of(work, plan, number).read_text(encoding="utf-8"))


def _write_missing(source: Source, work: Path, plan: _Plan, workers: int | None) -> None:
    missing = [number for number in range(plan.shards) if not (work / plan.name(number)).exists()]
    left = sum(len(plan.shard(number)) for number in missing)
    if not missing:
        return
    chunks = (
        list(part[start : start + _CHUNK]) for part in map(plan.shard, missing) for start in range(0, len(part), _CHUNK)
    )
    few = workers is None and left <= _A_SHARD // 64  # a process would take longer to start
    indices = np.concatenate([np.arange(part.start, part.stop) for part in map(plan.shard, missing)])
    made = map_in_order(
        partial(_made_small, source, plan.short_side, plan.quality),
        fetched_ahead(source, indices, chunks),
        0 if few else worker_count(workers),
    )
    with contextlib.closing(made), contextlib.closing(with_count(made, left)) as counting:  # type: ignore[type-var]
        for number in missing:
            _write_shard(source, work, plan, number, counting)


def _write_shard(source: Source, work: Path, plan: _Plan, number: int, made: Iterator[list[_Made]]) -> None:
    """Write a shard of what comes next."""
    how, before, after, bad = Counter[How](), 0, 0, []
    path, left = work / plan.name(number), len(plan.shard(number))
    with storage.replacing(path) as temporary:
        with writing(plan.to, temporary, source.classes) as (writer, sink):
            while left:
                several = next(made)
                left -= len(several)
                for one in several:
                    if one.small is None:
                        bad.append({"path": printable(source.path(one.index)), "reason": one.reason})
                        _log.warning("%s: is left out: %s", source.path(one.index), one.reason)
                        continue
                    name = name_of(one.index, plan.images, source.path(one.index), one.small.suffix)
                    writer.add(Entry(name, source.label(one.index), one.small.data))
                    how[one.small.how] += 1
                    before, after = before + one.size, after + len(one.small.data)
        record = {
            "file": sink.described(), "images": how.total(), "how": how, "before": before, "after": after,
            "unreadable": bad,
        }  # fmt: skip
        storage.write_text(_record_of(work, plan, number), json.dumps(record))


def _made_small(source: Source, short_side: int, quality: int, indices: Sequence[int]) -> list[_Made]:
    found = []
    for index in indices:
        try:
            data = source.read(index)
            found.append(_Made(index, len(data), made_small(data, short_side, quality)))
        except ImageError as error:
            found.append(_Made(index, reason=str(error)))
    return found


def _verify(work: Path, plan: _Plan, records: Sequence[dict[str, Any]], workers: int | None) -> None:
    """Read every shard again. Raises StorageError, with the shard set aside for the next time, where it is not what
    was written."""
    numbers = list(range(plan.shards))
    checks = map_in_order(partial(_fault, work, plan), zip(numbers, records, strict=True),
                          worker_count(workers) if plan.shards > 1 else 0)  # fmt: skip
    with contextlib.closing(checks):  # type: ignore[type-var]
        for number, fault in zip(numbers, checks, strict=True):
            if fault:
                storage.remove(work / plan.name(number))
                raise StorageError(
                    f"{work / plan.name(number)}: {fault}; it is removed, the same command writes it anew"
                )


def _fault(work: Path, plan: _Plan, shard: tuple[int, dict[str, Any]]) -> str:
    """What is wrong with a shard; empty: nothing."""
    number, record = shard
    path = work / plan.name(number)
    try:
        if storage.described(path) != record["file"]:
            return "is not what was written"
        images = len(samples_of(path)[0]) if plan.to == "tar" else pq.read_metadata(path).num_rows
    except (OSError, DataError, ValueError) as error:
        return f"cannot be read ({error})"
    return "" if images == record["images"] else f"holds {images} images, {record['images']} were written"


def _facts(source: Source, plan: _Plan, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says beside the files."""
    how = sum((Counter(record["how"]) for record in records), Counter[str]())
    before, after = (sum(record[name] for record in records) for name in ("before", "after"))
    bad = [one for record in records for one in record["unreadable"]]
    classes = None if source.classes is None else list(source.classes)
    return {**asdict(plan), "packed": how.total(), "how": dict(how), "bytes_before": before, "bytes": after,
            "unreadable": bad, "classes": classes}  # fmt: skip


def _answer(source: Source, out: Path, facts: dict[str, Any]) -> Packed:
    before, after = _rate(source), _rate(find_source(str(out)))
    return Packed(
        out=str(out), images=facts["packed"], how=facts["how"], unreadable=facts["unreadable"], shards=facts["shards"],
        bytes_before=facts["bytes_before"], bytes=facts["bytes"], images_per_second_before=before,
        images_per_second=after, sections=[Facts([*_lines(out, facts, before, after)]), *_named(facts["unreadable"])],
    )  # fmt: skip


def _lines(out: Path, facts: dict[str, Any], before: float | None, after: float | None) -> Iterator[tuple[str, str]]:
    how, side, files = facts["how"], facts["short_side"], counted(facts["shards"], f".{facts['to']} file")
    yield "packed", f"{out}: {facts['packed']:,} images in {files}, read again to be sure"
    if count := how.get("made smaller"):
        yield "smaller", f"{count:,}, to a shorter side of {side} px; JPEG of quality {facts['quality']}"
    if count := how.get("small already"):
        yield "as it was", f"{count:,}, byte for byte: small enough already"
    if count := how.get("not for JPEG"):
        yield "as it was", f"{count:,}, byte for byte: arrays, more than 8 bits, or other channels than 1 or 3"
    if bad := facts["unreadable"]:
        yield "unreadable", f"{len(bad):,}, left out; {out}/{UNREADABLE} has them all"
    yield "size", f"{facts['bytes_before'] / 1e6:,.1f} MB before, {facts['bytes'] / 1e6:,.1f} MB now"
    if before and after:
        yield "speed", f"{before:,.0f} images/s a process before, {after:,.0f} now, to crops of {_CROP[0]} px"


def _named(unreadable: Sequence[dict[str, str]]) -> Iterator[Text]:
    if unreadable:
        yield Text("\n".join(["\nUnreadable:", *(f"  {bad['path']}: {bad['reason']}" for bad in unreadable[:_NAMED])]))


def _rate(source: Source) -> float | None:
    """Images per second that one process reads, decodes and crops as in training; None where it can read none."""
    transform = TrainTransform(AugmentConfig(), _CROP)
    done, began = 0, time.perf_counter()
    for index in some_of(source, _TIMED).tolist():
        key = (0, 0, index, 0)
        with contextlib.suppress(ImageError):
            transform(decode_reduced(source.read(index), 3, partial(transform.factor, [key])), *key)
            done += 1
        if time.perf_counter() - began > _TIMED_SECONDS:
            break
    return done / (time.perf_counter() - began) if done else None
