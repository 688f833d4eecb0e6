"""`maekit watch`: a run's report while the run goes on, made anew as its history grows."""

import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from maekit.app.guards import HEADERS
from maekit.app.listening import listening, names
from maekit.config.verbs import WatchOptions
from maekit.errors import MaekitError, RunError
from maekit.report import page
from maekit.report.history import History
from maekit.report.run import run_sections
from maekit.results import Served
from maekit.sections import Text

log = logging.getLogger("maekit")

_LOOPBACK = "127.0.0.1"
_REFRESH = 5  # seconds
_PATIENCE = 10  # seconds for a request to come
_TICK = 0.2
_HEADERS = HEADERS | {"content-security-policy": f"{page.POLICY}; frame-ancestors 'none'"}


def watch(options: WatchOptions) -> Served:
    """Serve until Ctrl-C, or for `options.seconds`.

    Raises RunError for a folder without a run, one that is gone, or a port that cannot be had.
    """
    run = Path(options.run)
    made = Made(run)
    made.page()  # before anything listens
    with listening(_LOOPBACK, options.port) as listener:
        port = listener.getsockname()[1]
        url = f"http://{_LOOPBACK}:{port}"
        log.info("%s: %s  (Ctrl-C ends it)", run, url)
        began = time.monotonic()
        with _Server(listener, made, names(port)) as server:
            try:
                while options.seconds is None or time.monotonic() - began < options.seconds:
                    server.handle_request()
                    if not (run / "config.json").exists():
                        raise RunError(f"{run}: is gone; nothing is left to watch")
            except KeyboardInterrupt:  # which is how it is ended
                pass
        seconds = time.monotonic() - began
    said = f"{url} was served for {seconds:.0f} s, {server.answers} times"
    return Served(url=url, seconds=seconds, answers=server.answers, sections=[Text(said)])


class Made:
    """The page of a run as it is, made once for each state of its history."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._one_at_a_time = threading.Lock()  # matplotlib's
        self._state: object = None
        self._page = b""

    def page(self) -> bytes:
        """The report that the run has left, or one of what there is, which browsers ask for anew.

        Raises RunError for a folder without a run.
        """
        with self._one_at_a_time:
            history, report = _changed(self._run / "metrics.jsonl"), _changed(self._run / "report.html")
            state = history, report, _changed(self._run / "pictures" / "moments")
            if state != self._state:
                done = report is not None and (history is None or report[0] >= history[0])
                self._page = (self._run / "report.html").read_bytes() if done else self._live()
                self._state = state
            return self._page

    def _live(self) -> bytes:
        history = History.of(self._run)
        planned = history.computed("steps")
        title = f"{self._run.resolve().name}: step {history.steps:,}" + (f" of {planned:,}" if planned else "")
        return page.render(title, run_sections(self._run), refresh=_REFRESH).encode()


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    timeout = _TICK

    def __init__(self, listener: socket.socket, made: Made, hosts: frozenset[str]) -> None:
        super().__init__(listener.getsockname(), _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.made, self.hosts, self.answers = made, hosts, 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has left, or is silent."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version, sys_version = "maekit", ""

    def do_GET(self) -> None:
        kind, status = "text/plain", 200
        if self.headers.get("Host", "").lower() not in self.server.hosts:  # a stranger's name led here (DNS rebinding)
            status, body = 421, b"no page of that name is here\n"
        elif self.path != "/":
            status, body = 404, b"there is one page: /\n"
        else:
            try:
                body, kind = self.server.made.page(), "text/html"
                self.server.answers += 1
            except (MaekitError, OSError) as error:
                status, body = 503, f"{error}\n".encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("content-type", f"{kind}; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Who asks is nobody's news."""
