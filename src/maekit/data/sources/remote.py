"""Tar shards and parquet files elsewhere, by URL: `s3://`, `gs://`, `https://`, `hf://` and all that fsspec knows.

What services say of a file is asked for at the start, its size and what changes with its content, and again whenever
the file was fetched. Files are fetched whole, into the cache folder, when an image in them is asked for, or before.
"""

import base64
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from maekit.data.cache import size_of
from maekit.data.copies import Copies, folder
from maekit.errors import DataError

T = TypeVar("T")

_PAUSES = (1.0, 3.0, 10.0, 30.0)  # seconds before another try
_AHEAD = 8  # files
_SILENCE = 60  # seconds without a byte after which a connection is given up
_MAY_PASS = (408, 425, 429)  # of HTTP's 4xx
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_CONTENT = ("ETag", "etag", "md5Hash", "xet_hash", "blob_id", "Last-Modified", "mtime")
"""What services say that changes with a file's content, alike of one file and in lists, the surest first."""
_systems: dict[tuple[int, str], Any] = {}  # kept, as closing one that a forked process has inherited disturbs the other

log = logging.getLogger("maekit")


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere. Whatever opens it as it does a path is given its copy."""

    url: str
    size: int
    content: str
    """What changes with its content; empty where the service says nothing."""
    digest: tuple[str, str]
    """Kind and hexadecimal digits of a hash; empty where the service says none."""
    copies: Copies

    def __str__(self) -> str:
        return shown(self.url)

    def __fspath__(self) -> str:
        return str(self.copy())

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    @property
    def parent(self) -> str:
        return str(self).rpartition("/")[0]

    @property
    def key(self) -> str:
        """The name of its copy, and how those begin of what is known of it."""
        return hashlib.sha256(f"{self.url}\0{self.size}\0{self.content}".encode()).hexdigest()[:32]

    @property
    def room(self) -> int:
        """Bytes that fetching it takes."""
        return self.size

    def with_name(self, name: str) -> Path:
        """Where something is kept that is known of it."""
        known = folder() / "known"
        known.mkdir(parents=True, exist_ok=True)
        return known / f"{self.key}{name.removeprefix(self.name)}"

    def stat(self) -> Any:
        """Its size, and a time that stays, as its key changes with its content."""
        return SimpleNamespace(st_size=self.size, st_mtime_ns=0)

    def copy(self, *, wait: bool = True) -> Path:
        """The path of its copy. Raises DataError, with URL and reason, where there can be none."""
        try:
            return self.copies.held(self.key, self.room, self.fetch, wait=wait)
        except FileNotFoundError:  # whoever opens it looks again
            raise
        except OSError as error:
            raise DataError(f"{self}: cannot be kept in {folder()} ({error.strerror})") from None

    def open(self, mode: str = "rb") -> BinaryIO:
        """Its copy, opened."""
        for _ in range(3):
            with suppress(FileNotFoundError):  # it had to make room at this moment, or the cache was cleared
                return open(self.copy(), mode)  # type: ignore[return-value]  # noqa: PTH123
        raise DataError(f"{self}: makes room in {folder()} before it is read; raise --cache-limit")

    def fetch(self, to: Path) -> None:
        """Write it to a path, as it was when it was found."""

        def once() -> None:
            system, path = system_of(self.url)
            system.get_file(path, str(to))
            came = size_of(to)  # 0 where the cache was cleared meanwhile
            if came != self.size:
                self._refuse_changed()
                raise OSError(f"{came:,} bytes came of {self.size:,}")
            kind, digits = self.digest
            with to.open("rb") as file:
                if kind and hashlib.file_digest(file, kind).hexdigest() != digits:
                    raise OSError(f"its {kind} is not the one that is announced")

        insist(self.url, once)
        self._refuse_changed()

    def _refuse_changed(self) -> None:
        now = asked(self.url, self.copies)
        if (now.size, now.content) != (self.size, self.content):
            raise DataError(f"{self}: has changed since it was opened; start again with what is there now")


def fetched_before(files: Sequence[T]) -> Iterator[T]:
    """The same, each when it is fetched if it lies elsewhere, and while it is looked at the next ones are."""
    threads = ThreadPoolExecutor(_AHEAD)
    try:
        fetching = [threads.submit(_fetch, file) for file in files[:_AHEAD]]
        for place, file in enumerate(files):
            fetching[place].result()
            fetching += [threads.submit(_fetch, coming) for coming in files[place + _AHEAD : place + _AHEAD + 1]]
            yield file
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _fetch(file: object) -> None:
    if isinstance(file, RemoteFile):
        with suppress(FileNotFoundError):  # whoever opens it looks again
            file.copy(wait=False)


def asked(url: str, copies: Copies) -> RemoteFile:
    """A file, as the service describes it at this moment. Raises DataError where there is none."""

    def info() -> dict[str, Any]:
        system, path = system_of(url)
        system.invalidate_cache()
        return system.info(path)

    return described(url, insist(url, info), copies)


def all_asked(urls: list[str], copies: Copies) -> list[RemoteFile]:
    """Several, at once."""
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(partial(asked, copies=copies), urls))


def described(url: str, info: dict[str, Any], copies: Copies) -> RemoteFile:
    """A file of which this is said."""
    if info.get("size") is None:
        raise DataError(f"{shown(url)}: its size is not said, so nobody can tell when it is there as a whole")
    content = next((str(info[name]).strip('"') for name in _CONTENT if info.get(name)), "")
    digest = ("", "")
    if md5 := info.get("md5Hash") or info.get("Content-MD5"):
        digest = "md5", base64.b64decode(md5).hex()
    elif sha256 := getattr(info.get("lfs"), "sha256", ""):
        digest = "sha256", sha256
    return RemoteFile(url, int(info["size"]), content, digest, copies)


def insist(url: str, work: Callable[[], T]) -> T:
    """The work's result, tried again where what went wrong may pass. Raises DataError, with URL and reason."""
    for pause in (*_PAUSES, None):
        try:
            return work()
        except DataError:
            raise
        except Exception as error:  # of fsspec, of the services' clients and of their transports
            # fsspec's HTTP says of whatever it meets on asking for a file's size that the file is not there
            cause = error.__cause__ or error if isinstance(error, FileNotFoundError) else error
            reason = _reason(cause)
            if pause is None or not _may_pass(cause):
                raise DataError(f"{shown(url)}: {reason}") from error
            log.warning("%s: %s; another try in %g s", shown(url), reason, pause)
            time.sleep(pause)
    raise AssertionError


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | NotImplementedError):
        return False
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return False
    status = _status(error)
    return status is None or status >= 500 or status in _MAY_PASS


def _status(error: BaseException) -> int | None:
    """What HTTP answered, as aiohttp or the hub's client have it."""
    found = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _reason(error: BaseException) -> str:
    """In a few words."""
    if isinstance(getattr(error, "message", None), str) and _status(error):
        return f"{_status(error)} {error.message}"  # type: ignore[attr-defined]
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"cannot be kept in {folder()} ({error.strerror}); lower --cache-limit, or set MAEKIT_CACHE"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def system_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, one in each process, and the file's name in it. DataError where there is none."""
    import fsspec

    parts = urlsplit(url)
    of = os.getpid(), f"{parts.scheme}://{parts.netloc}"
    if of not in _systems:
        try:
            _systems[of], _ = fsspec.core.url_to_fs(url, **_options(parts.scheme))
        except ImportError as error:
            raise DataError(f"{shown(url)}: {error}: pip install 'maekit[remote]'") from None
        except ValueError as error:
            raise DataError(f"{shown(url)}: cannot be opened ({error})") from None
    return _systems[of], _systems[of]._strip_protocol(url)


def _options(scheme: str) -> dict[str, Any]:
    """For HTTP: the proxies of the environment, and no limit to how long a whole file takes."""
    if scheme not in ("http", "https"):
        return {}
    import aiohttp
    import fsspec

    theirs = fsspec.config.conf.get(scheme, {}).get("client_kwargs", {})
    patience = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    return {"client_kwargs": {"trust_env": True, "timeout": patience, **theirs}}


def shown(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
