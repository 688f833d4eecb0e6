"""What stands between the network and the page: who may ask, how much may be sent, how many at once.

Every answer carries the headers that forbid a browser to load from, send to, or be framed by anybody else.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UPLOAD = "/api/images"
MOST_UPLOADED = 20_000_000  # bytes of a picture
_MOST_SAID = 200_000  # bytes of any other request
_MOST_HELD = 100_000_000  # bytes of requests that are being received, together
_SECONDS = 20.0  # in which a request has to be here
_RECEIVED_AT_ONCE = 16
_ANSWERED_AT_ONCE = 6
_COOKIE = "maekit"

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), payment=()",
    "cache-control": "no-store",
}


class Refused(Exception):  # noqa: N818 - an answer
    """An answer in place of the app's."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class Guard:
    """The app behind it all, as an ASGI app.

    hosts: values of Host that name this machine, None for any, which is safe with a token alone: a stranger's page can
    have its own name lead here (DNS rebinding), but has no token. token: what a browser has to have shown once.
    """

    def __init__(self, app: App, hosts: frozenset[str] | None, token: str = "", seconds: float = _SECONDS) -> None:
        self._app, self._hosts, self._token, self._seconds = app, hosts, token, seconds
        self._receiving = self._held = self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there is no socket to open
        began = False

        async def guarded(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                own = [(name, value) for name, value in message.get("headers", ()) if name.decode() not in HEADERS]
                message = {**message, "headers": [*own, *_encoded(HEADERS)]}
            await send(message)

        try:
            self._check_sender(scope)
            if scope["method"] == "POST":
                await self._posted(scope, receive, guarded)
            else:
                await self._app(scope, receive, guarded)
        except Refused as refused:
            if not began:
                await _answer(guarded, refused)
        except ConnectionError:
            return  # whoever asked has left

    def _check_sender(self, scope: Scope) -> None:
        """Raises Refused for who may not ask."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self._hosts is not None and host not in self._hosts:
            raise Refused(421, f"no page of that name is here: ask for {sorted(self._hosts)[0]}")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            raise Refused(403, "this page answers to itself alone")
        cross = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if cross and (scope["method"] != "GET" or headers.get("sec-fetch-mode") != "navigate"):
            raise Refused(403, "this page answers to itself alone")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise Refused(405, "GET and POST are all there is")
        if self._token:
            self._check_token(scope, headers)

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> None:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and asked and _same(asked, self._token):
            cookie = f"{_COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            raise Refused(303, "", location="/", set_cookie=cookie)
        try:
            shown = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            shown = None
        if shown is None or not _same(shown.value, self._token):
            raise Refused(401, "open the link with the token that `maekit app` printed")

    async def _posted(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._body(scope, receive)
        if self._answering >= _ANSWERED_AT_ONCE:
            raise _busy()
        self._answering += 1
        given = False

        async def replayed() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self._app(scope, replayed, send)
        finally:
            self._answering -= 1

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of a request, in time and within its bounds."""
        most = MOST_UPLOADED if scope["path"] == UPLOAD else _MOST_SAID
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > most:
            raise _too_long(most)
        if self._receiving >= _RECEIVED_AT_ONCE:
            raise _busy()
        self._receiving += 1
        parts = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    part = message.get("body", b"")
                    if len(parts) + len(part) > most:
                        raise _too_long(most)
                    if self._held + len(part) > _MOST_HELD:
                        raise _busy()
                    parts += part
                    self._held += len(part)
                    if not message.get("more_body"):
                        return bytes(parts)
        except TimeoutError:
            raise Refused(408, f"sent too slowly: {self._seconds:.0f} s are the most that a request may take") from None
        finally:
            self._receiving -= 1
            self._held -= len(parts)


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())


def _busy() -> Refused:
    return Refused(503, "busy with others; try again in a second", retry_after="1")


def _too_long(most: int) -> Refused:
    words = f"a picture may have {most // 1_000_000} MB" if most == MOST_UPLOADED else "too much is said at once"
    return Refused(413, f"too large: {words}" if most == MOST_UPLOADED else words)


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"message": str(refused)}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    start = {"type": "http.response.start", "status": refused.status, "headers": _encoded(headers | refused.headers)}
    await send(start)
    await send({"type": "http.response.body", "body": body})
