"""What a URL names as a source: files of one kind, of one split."""

from collections import Counter
from typing import Any, NamedTuple

from maekit.data import cache
from maekit.data.copies import Copies, room
from maekit.data.sources.contents import PACKED, Parts
from maekit.data.sources.elsewhere import Space
from maekit.data.sources.kinds import Kind, refuse_several_kinds
from maekit.data.sources.passed_over import PassedOver, is_beside, suffix
from maekit.data.sources.patterns import expand
from maekit.data.sources.remote import RemoteFile, all_asked, described, insist, shown, system_of
from maekit.data.sources.remote_parquet import RemoteParquet
from maekit.data.sources.shards import ShardsSource
from maekit.data.sources.splits import chosen, find_splits, refuse_several_splits
from maekit.errors import DataError

_NOT_LISTED = "no .tar or .parquet file, and HTTP lists no folder: name each, as in shard-{000..099}.tar"


class _Found(NamedTuple):
    """Files, their paths relative to what was named, and whether each was named."""

    files: list[RemoteFile]
    parts: list[Parts]
    named: bool
    passed_over: PassedOver = PassedOver()


def is_url(text: str) -> bool:
    """Whether it names what lies elsewhere."""
    return "://" in text


def open_url(text: str, image_column: str | None, space: Space) -> ShardsSource | RemoteParquet:
    """The tar shards or parquet files that a URL names: one; several by braces or, where the service lists, by
    wildcards or a folder; with `@train` those of a split.

    Raises DataError, one line, where there are none, several kinds or several splits, or no room for a window of them.
    """
    copies = Copies(int(space.limit * 1e9))
    named, split, found = text, "", _found(text, copies)
    if found is None and "/" not in text.rpartition("@")[2]:
        named, _, split = text.rpartition("@")
        found = _found(named, copies)
    if found is None:
        raise DataError(f"{shown(text)}: {_NOT_LISTED if text.startswith('http') else 'no such file or folder'}")
    name = shown(named)
    by_suffix = {suffix: [parts for parts in found.parts if parts[-1].lower().endswith(suffix)] for suffix in PACKED}
    kinds = [Kind(suffix, parts, find_splits(parts, by_file_name=True)) for suffix, parts in by_suffix.items() if parts]
    if not kinds:
        left = found.passed_over.words()
        raise DataError(f"{name}: holds no .tar or .parquet file; elsewhere no others are read{left and '; ' + left}")
    refuse_several_kinds(name, kinds)
    kind = kinds[0]
    files = found.files
    if split:
        files = [files[place] for place in chosen(name, kind.splits, split)]
    elif not found.named:
        refuse_several_splits(name, kind.files, kind.splits, kind.noun)
    _check_room(name, files, space)
    window = int(space.window * 1e9)
    source: ShardsSource | RemoteParquet
    if kind.suffix == ".tar":
        source = ShardsSource(shown(text), files, window)
    else:
        source = RemoteParquet(shown(text), files, image_column, window)
    source.passed_over += found.passed_over
    return source


def _found(url: str, copies: Copies) -> _Found | None:
    """Files that are named, else those in a list of the service; None where it has none of that name."""
    wild = bool(set("*[") & set(url))
    if not wild and ("{" in url or shown(url).lower().endswith(PACKED)):
        files = all_asked(expand(url), copies)
        return _Found(files, [(file.name,) for file in files], named=True)
    if url.startswith("http"):
        return None

    def listed() -> tuple[Any, str, dict[str, Any]]:
        system, path = system_of(url)
        system.invalidate_cache()
        try:
            return system, path, system.glob(path, detail=True) if wild else system.find(path, detail=True)
        except FileNotFoundError:
            return system, path, {}

    system, path, infos = insist(url, listed)
    if not infos:
        return None
    root = len(path.rpartition("/")[0] if wild else path.rstrip("/")) + 1
    parts = {name: tuple(name[root:].split("/")) for name in sorted(infos)}
    packed = [name for name, of in parts.items() if of[-1].lower().endswith(PACKED) and not of[-1].startswith(".")]
    others = Counter(suffix(of[-1]) for name, of in parts.items() if name not in packed)
    beside = Counter({what: count for what, count in others.items() if is_beside(what)})
    files = [described(system.unstrip_protocol(name), infos[name], copies) for name in packed]
    return _Found(files, [parts[name] for name in packed], False, PassedOver(others - beside, beside))


def _check_room(name: str, files: list[RemoteFile], space: Space) -> None:
    """Raises DataError where the cache holds neither all files nor three windows of them."""
    total, largest = sum(file.size for file in files) / 1e9, max(file.size for file in files) / 1e9
    need, there = min(total, 3 * max(space.window, largest)), room(int(space.limit * 1e9)) / 1e9
    if need > there:
        less = ", or a smaller --data.window" if space.window > largest else ""
        raise DataError(
            f"{name}: {total:.3g} GB in files of up to {largest:.3g} GB need {need:.3g} GB in {cache.folder()}, where "
            f"--cache-limit and the disk leave {max(0.0, there):.3g}: free some of it, or set MAEKIT_CACHE to a folder "
            f"of another disk{less}"
        )
