"""`maekit app`: the page, served until it is interrupted."""

import ipaddress
import logging
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from maekit.app.exhibit import Exhibit
from maekit.app.gallery import Gallery
from maekit.app.guards import Guard
from maekit.app.images import Images
from maekit.app.listening import CONNECTIONS, listening, names
from maekit.app.reading import Reader
from maekit.config.verbs import AppOptions
from maekit.errors import UsageError
from maekit.results import Served
from maekit.sections import Text

if TYPE_CHECKING:
    from maekit.app.routes import Page

log = logging.getLogger("maekit")

_SECONDS_TO_END = 3


def serve(options: AppOptions) -> Served:
    """Load, listen, say where, and answer until Ctrl-C, a signal, or for `options.seconds`.

    Raises UsageError where FastAPI is not installed or the host is no address of this machine, RunError for a port that
    cannot be had, and what loading weights and opening sources raise.
    """
    try:
        import fastapi  # noqa: F401 - before anything is loaded
        import uvicorn
    except ImportError:
        raise UsageError("app: needs packages that are not installed: pip install 'maekit[app]'") from None

    with listening(options.host, options.port) as listener, Reader() as reader:
        reader.start()
        page = opened(options, reader)
        port = listener.getsockname()[1]
        local = _is_loopback(options.host)
        token = "" if local else secrets.token_urlsafe(24)
        host = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host  # for other machines
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _say(url, token)
        config = uvicorn.Config(
            Guard(page.app(), names(port) if local else None, token), log_level="warning", access_log=False,
            server_header=False, ws="none", lifespan="off", limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )  # fmt: skip
        began = time.monotonic()
        _run(uvicorn.Server(config), listener, options.seconds)
        seconds = time.monotonic() - began
    said = f"{url} was served for {seconds:.0f} s: models answered {page.answers} times"
    return Served(url=url, seconds=seconds, answers=page.answers, sections=[Text(said)])


def opened(options: AppOptions, reader: Reader) -> "Page":
    """The page over the weights and gallery of the options."""
    from maekit.app.routes import Page

    exhibits = [Exhibit(weights, options) for weights in options.weights]
    gallery = Gallery(options, exhibits) if options.gallery else None
    views = [view for exhibit in exhibits for view in (exhibit.whole, exhibit.seen)]
    return Page(exhibits, Images(views, reader, gallery), gallery)


def _run(server: Any, listener: socket.socket, seconds: float | None) -> None:
    late = threading.Timer(seconds or 0, setattr, (server, "should_exit", True))
    late.daemon = True
    if seconds is not None:
        late.start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # which is how it is ended
        return
    finally:
        late.cancel()


def _say(url: str, token: str) -> None:
    if token:
        log.warning(
            "whoever can reach this machine can reach the page, and nothing on the way is encrypted: its link is the "
            "key, so hand it on with care"
        )
    log.info("the page: %s  (Ctrl-C ends it)", f"{url}/?token={token}" if token else url)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
