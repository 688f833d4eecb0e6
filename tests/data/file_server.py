"""A local HTTP server of files in memory, which fails as it is told to."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """faults: by file name, what happens to the next GETs of it, one each: a status, `cut`, `short`, `long`, or seconds
    of silence as a float. refused: a status for all that is asked of a file. ranges: whether parts of files are given;
    sizes: whether sizes are said. `gets` and `heads`: how often a file was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = defaultdict(dict)
        self.faults: dict[str, list[int | float | str]] = defaultdict(list)
        self.refused: dict[str, int] = {}
        self.ranges = self.sizes = True
        self.gets, self.heads = Counter[str](), Counter[str]()

    def put(self, name: str, content: bytes) -> str:
        """Put a file there; returns its URL."""
        self.files[name] = content
        self.headers[name]["ETag"] = f'"{hash(content)}"'
        return f"{self.url}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    @property
    def name(self) -> str:
        return self.path.partition("?")[0].lstrip("/")

    def do_HEAD(self) -> None:
        self.server.heads[self.name] += 1
        if not self._refused():
            self._say(200, len(self.server.files[self.name]))

    def do_GET(self) -> None:
        part = self.headers.get("Range") if self.server.ranges else None
        self.server.gets[self.name + (" part" if part else "")] += 1
        faults = self.server.faults[self.name]
        fault = faults.pop(0) if faults else None
        if isinstance(fault, float):
            time.sleep(fault)
        if self._refused(fault):
            return
        content, status = self.server.files[self.name], 200
        if part:
            first, _, last = part.removeprefix("bytes=").partition("-")
            self.start = int(first) if first else len(content) - int(last)
            status, content = 206, content[self.start : int(last) + 1 if first and last else None]
        half = len(content) // 2
        content = {"short": content[:half], "long": content + bytes(512)}.get(str(fault), content)
        self._say(status, len(content))
        self.wfile.write(content[:half] if fault == "cut" else content)
        self.close_connection = fault == "cut"

    def _refused(self, fault: object = None) -> bool:
        fault = self.server.refused.get(self.name, fault if self.name in self.server.files else 404)
        if isinstance(fault, int):
            self.send_response(fault)
            for header, value in self.server.headers[self.name].items():
                self.send_header(header, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return isinstance(fault, int)

    def _say(self, status: int, length: int) -> None:
        self.send_response(status)
        for header, value in self.server.headers[self.name].items():
            self.send_header(header, value)
        if status == 206:
            whole = len(self.server.files[self.name])
            self.send_header("Content-Range", f"bytes {self.start}-{self.start + length - 1}/{whole}")
        if self.server.sizes:
            self.send_header("Content-Length", str(length))
        self.end_headers()


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that runs inside the block."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
