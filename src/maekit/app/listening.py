"""Where pages are served: a socket of this machine, and the names under which its browsers ask for it."""

import errno
import socket

from maekit.errors import RunError, UsageError

CONNECTIONS = 128


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; 0 is any free port. Raises UsageError, RunError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except socket.gaierror:
        raise UsageError(f"--host {host}: is no address; 127.0.0.1 is this machine, 0.0.0.0 all its networks") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunError(
                f"--port {port}: is in use, perhaps by another maekit app or watch; "
                "take another, or 0 for any that is free"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host {host}: is no address of this machine; 0.0.0.0 is all it has") from None
        raise RunError(f"--port {port}: cannot be had ({error.strerror}); take one above 1023") from None


def names(port: int) -> frozenset[str]:
    """What browsers call this machine in a request to it."""
    names = ("127.0.0.1", "localhost", "[::1]")
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == 80 else frozenset())
