"""Who may ask, how much, how slowly, and how many at once: of an app that says yes to everything."""

import asyncio
import json

import pytest

from maekit.app import guards
from maekit.app.guards import HEADERS, MOST_UPLOADED, Guard

HERE = frozenset({"127.0.0.1:8765", "localhost:8765"})


def scope(method="GET", path="/", query=b"", **headers):
    named = {"host": "127.0.0.1:8765", **headers}
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items() if value is not None]
    return {"type": "http", "method": method, "path": path, "query_string": query, "headers": encoded}


async def yes(scope, receive, send):
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
    headers = [(b"x-frame-options", b"ALLOWALL"), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def asked(guard, of, *parts, pause=0.0):
    """Status, headers and body of the answer; None for no answer."""
    waiting, sent = list(parts) or [b""], []

    async def receive():
        if not waiting:
            await asyncio.sleep(3600)
        part = waiting.pop(0)
        await asyncio.sleep(pause)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    await guard(of, receive, send)
    if not sent:
        return None
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def ask(*arguments, guard=None, **options):
    return asyncio.run(asked(guard or Guard(yes, HERE), *arguments, **options))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8765", "origin": "http://localhost:8765"}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8765"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:8765", "origin": "http://evil.example:8765"}, 421),
        ({"host": "127.0.0.1:80"}, 421),
        ({"host": None}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:8765"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_only_the_page_itself_is_answered(headers, status):
    for method in ("GET", "POST"):
        answer = ask(scope(method, "/api/mask", **headers), b"{}")
        assert answer[0] == status
        if status != 200:
            assert json.loads(answer[2])["message"]


def test_a_link_from_elsewhere_may_lead_here_but_nothing_else():
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(scope(**visit))[0] == 200
    assert ask(scope("POST", "/api/mask", **visit))[0] == 403
    assert ask(scope("DELETE"))[0] == 405


def test_every_answer_forbids_others():
    for of in (scope(), scope(host="evil.example"), scope("POST", "/api/mask", content_length="999999999")):
        headers = ask(of)[1]
        assert headers.items() >= HEADERS.items()
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy.replace("https", "http")


def test_others_need_the_token_once():
    guard = Guard(yes, None, "secret")
    assert ask(scope(), guard=guard)[0] == 401
    assert ask(scope(query=b"token=wrong"), guard=guard)[0] == 401
    assert ask(scope(path="/api/about", query=b"token=secret"), guard=guard)[0] == 401
    status, headers, _ = ask(scope(query=b"token=secret"), guard=guard)
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    cookie = headers["set-cookie"].split(";")[0]
    assert ask(scope(host="anything", cookie=cookie), guard=guard)[0] == 200
    assert ask(scope(host="anything", cookie=cookie, origin="http://evil.example"), guard=guard)[0] == 403
    assert ask(scope(cookie="maekit=wrong"), guard=guard)[0] == 401


def test_a_body_is_counted_whatever_it_says_of_itself():
    part = bytes(1 << 20)
    upload = scope("POST", "/api/images")
    whole = ask(upload, *[part] * 3)
    assert (whole[0], len(whole[2])) == (200, 3 << 20)
    assert ask(scope("POST", "/api/images", content_length=str(MOST_UPLOADED + 1)))[0] == 413
    status, headers, body = ask(upload, *[part] * 21)
    assert (status, headers["connection"]) == (413, "close")
    assert "20 MB" in json.loads(body)["message"]
    assert ask(scope("POST", "/api/reconstruct"), part)[0] == 413
    assert ask(scope("POST", "/api/images", content_length="many"))[0] == 413


def test_a_slow_body_is_not_waited_for():
    guard = Guard(yes, HERE, seconds=0.05)
    status, _, body = ask(scope("POST", "/api/images"), *[b"x"] * 50, pause=0.01, guard=guard)
    assert status == 408
    assert "too slowly" in json.loads(body)["message"]
    assert ask(scope("POST", "/api/images"), b"x", guard=guard)[0] == 200


def test_who_leaves_gets_no_answer_and_leaves_nothing():
    guard = Guard(yes, HERE)
    for _ in range(40):
        assert ask(scope("POST", "/api/images"), bytes(1000), None, guard=guard) is None
    assert (guard._receiving, guard._held, guard._answering) == (0, 0, 0)
    assert ask(scope("POST", "/api/images"), b"x", guard=guard)[0] == 200


def test_a_few_are_answered_at_once_and_the_others_told_so():
    async def work(scope, receive, send):
        await asyncio.sleep(0.05)
        await yes(scope, receive, send)

    async def many():
        guard = Guard(work, HERE)
        answers = await asyncio.gather(*(asked(guard, scope("POST", "/api/reconstruct"), b"{}") for _ in range(50)))
        return answers, await asked(guard, scope("POST", "/api/reconstruct"), b"{}")

    answers, after = asyncio.run(many())
    assert sorted(status for status, *_ in answers) == [200] * 6 + [503] * 44
    assert {headers["retry-after"] for status, headers, _ in answers if status == 503} == {"1"}
    assert after[0] == 200


def test_what_is_held_is_bounded_together(monkeypatch):
    monkeypatch.setattr(guards, "_MOST_HELD", 5 << 20)

    async def many():
        guard = Guard(yes, HERE)
        parts = [bytes(1 << 20)] * 4
        return await asyncio.gather(*(asked(guard, scope("POST", "/api/images"), *parts, pause=0.01) for _ in range(4)))

    assert 503 in {status for status, *_ in asyncio.run(many())}
