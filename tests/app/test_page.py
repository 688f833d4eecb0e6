"""The page as programs ask it, over tiny models on a real server: answers, and what strangers try."""

import base64
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import classifies, painter, picture, pixels, served

import tiny_families
from maekit.app import images
from maekit.config import MaskConfig, TargetConfig
from maekit.models import mae
from maekit.parts import say
from maekit.weights import native

HALF = "1100" * 4  # of 4 x 4 patches
FAMILIES = ("vit, oblong, 5 channels", "vit, channel tokens", tiny_families.HIERA, tiny_families.SWIN)
TYPES = {"text/html", "text/css", "text/javascript", "image/svg+xml"}


def head(path, port, length):
    """How a request begins."""
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def weights(folder):
    """Two that paint, on 4 x 4 patches and on 2 x 4 of another size, and a classifier."""
    return (
        painter(folder / "normalised.safetensors"),
        painter(folder / "oblong.safetensors", target="raw", image_size=(32, 64), patch_size=16),
        classifies(folder / "classifier.safetensors"),
    )


@pytest.fixture(scope="module")
def site(weights, photos, reader):
    with served(reader, weights=weights, gallery=str(photos), batch_size=16, seconds=1.0) as site:
        yield site


@pytest.fixture(scope="module")
def image(site):
    return site.upload(picture()).said["image"]


def reconstruct(site, **words):
    return site.post("/api/reconstruct", **{"weights": 0, "masked": HALF, "grid": [4, 4], **words})


def patiently(ask):
    """The answer, when those that were busy are done."""
    for _ in range(40):
        answer = ask()
        if answer.status != 503:
            break
        time.sleep(0.1)
    return answer


def shown(text):
    return pixels(base64.b64decode(text.partition(",")[2]))


# What it answers


def test_the_page_is_there_and_asks_nobody_else(site):
    page = site.get("/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    files = Path(__file__).parents[2] / "src/maekit/app/page"
    for file in files.iterdir():
        answer = site.get(f"/page/{file.name}")
        assert answer.body == file.read_bytes()
        assert answer.headers["content-type"].split(";")[0] in TYPES
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text


def test_it_says_what_it_has(site, weights):
    said = site.get("/api/about").said
    assert [one["name"] for one in said["weights"]] == list(weights)
    first, second, third = said["weights"]
    assert first["mask"] == {
        "grid": [4, 4], "planes": 1, "kinds": ["random", "block", "grid", "one_in_2x2"], "paintable": True,
        "kind": "random", "ratio": 0.75, "normalised": True,
    }  # fmt: skip
    assert second["mask"]["grid"] == [2, 4]
    assert third["mask"] is None
    assert "no decoder" in third["why_not"]
    assert said["gallery"] == 12
    names = [one["image"] for one in said["images"]]
    assert names[0].startswith("gallery:")
    assert "sample:boat" in names
    for name in names:
        assert pixels(site.get(f"/api/thumbnails/{name}").body).ndim == 3


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("statistics", ["visible", "original"])
def test_the_picture_is_that_of_the_command(site, weights, image, maekit_here, tmp_path, number, statistics):
    (tmp_path / "one.png").write_bytes(picture())
    drawn = site.post("/api/mask", weights=number, kind="random", ratio=0.5, seed=7).said["masked"]
    grid = [[4, 4], [2, 4]][number]
    words = {"weights": number, "image": image, "masked": drawn, "grid": grid, "statistics": statistics}
    answer = site.post("/api/picture", **words)
    assert answer.headers["content-type"] == "image/png"
    options = ["--mask-ratio", 0.5, "--seed", 7]
    if number == 0:
        options += ["--statistics", statistics]
    out = tmp_path / "picture.png"
    done = maekit_here("reconstruct", tmp_path / "one.png", "--weights", weights[number], "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == answer.body


def test_a_painted_mask_is_that_of_the_command(site, weights, image, maekit_here, tmp_path):
    (tmp_path / "one.png").write_bytes(picture())
    masked = np.array([int(unit) for unit in HALF], np.uint8).reshape(4, 4)
    Image.fromarray(masked * 255).save(tmp_path / "mask.png")
    answer = site.post("/api/picture", weights=0, image=image, masked=HALF, grid=[4, 4])
    out = tmp_path / "picture.png"
    words = ("--weights", weights[0], "--out", out, "--mask", tmp_path / "mask.png")
    assert maekit_here("reconstruct", tmp_path / "one.png", *words).returncode == 0
    assert out.read_bytes() == answer.body


def test_what_is_hidden_is_grey_what_shows_is_the_original_and_errors_are_where_it_is_painted(site, image):
    said = reconstruct(site, image=image).said
    masked, original, painted = (shown(said[name]) for name in ("masked", "original", "reconstruction"))
    hidden = np.array([int(unit) for unit in HALF], bool).reshape(4, 4).repeat(8, 0).repeat(8, 1)
    assert (masked[hidden] == 128).all()
    assert (masked[~hidden] == original[~hidden]).all()
    assert np.abs(painted[~hidden].astype(int) - original[~hidden]).max() <= 1
    errors = np.array(said["errors"])
    difference = np.abs(painted.astype(float) - original).mean(axis=2).reshape(4, 8, 4, 8).mean(axis=(1, 3))
    assert np.allclose(errors, difference, atol=0.01)
    assert errors[:, :2].min() > 1
    assert (said["hidden"], said["units"]) == (8, 16)


def test_statistics_of_the_original_are_called_a_leak(site, image):
    visible, original = (reconstruct(site, image=image, statistics=one).said for one in ("visible", "original"))
    assert visible["reconstruction"] != original["reconstruction"]
    assert "leak" in original["caption"]
    assert "leak" not in visible["caption"]


def test_other_weights_are_shown_the_same_mask_in_their_own_patches(site, image):
    said = reconstruct(site, image=image, weights=1).said
    assert (said["hidden"], said["units"]) == (4, 8)
    masked = shown(said["masked"])
    assert (masked[:, :32] == 128).all()
    assert not (masked[:, 32:] == 128).all()
    rows = reconstruct(site, image=image, weights=1, masked="11110000" * 2)
    assert rows.status == 422
    assert "hides everything" in rows.said["message"]


@pytest.mark.parametrize(("kind", "ratio", "hidden"), [("grid", 0.6, 12), ("one_in_2x2", 0.3, 12), ("block", 0.5, 8)])
def test_masks_are_drawn_at_the_nearest_share_that_can_be(site, kind, ratio, hidden):
    one, again = (site.post("/api/mask", weights=0, kind=kind, ratio=ratio, seed=3).said["masked"] for _ in range(2))
    assert one == again
    assert one.count("1") == hidden


def test_a_classifier_names_what_it_sees_as_the_command_does(site, weights, image, maekit_here, tmp_path):
    (tmp_path / "one.png").write_bytes(picture())
    top = site.post("/api/recognise", weights=2, image=image).said["top"]
    done = maekit_here("classify", tmp_path / "one.png", "--weights", weights[2], "--json")
    assert [one["label"] for one in top] == [one["label"] for one in json.loads(done.stdout)["images"][0]["top"]]
    assert sum(one["probability"] for one in top) <= 1
    assert site.post("/api/recognise", weights=0, image=image).status == 422
    assert "finetune" in site.post("/api/recognise", weights=0, image=image).said["message"]


def test_nearest_is_the_image_itself_and_features_are_colours(site):
    about = site.get("/api/about").said
    taken = about["images"][3]["image"]
    for number, grid in ((0, (4, 4)), (1, (2, 4)), (2, (4, 4))):
        said = site.post("/api/features", weights=number, image=taken).said
        assert said["nearest"][0]["image"] == taken
        assert said["nearest"][0]["similarity"] == pytest.approx(1, abs=1e-4)
        assert len(said["nearest"]) == 8
        assert shown(said["colours"]).shape == (*grid, 3)


# Every family


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_is_painted(tmp_path, reader, kind):
    config = tiny_families.KINDS.get(kind) or tiny_families.SIZES[kind]
    model = mae.build(
        config, TargetConfig(kind="raw"), tiny_families.mask_for(config),
        mean=(0.5,) * config.channels, std=(0.5,) * config.channels, seed=0,
    )  # fmt: skip
    native.save(model, tmp_path / "w.safetensors")
    with served(reader, weights=str(tmp_path / "w.safetensors")) as site:
        said = site.get("/api/about").said
        mask = said["weights"][0]["mask"]
        assert mask["kinds"]
        drawn = site.post("/api/mask", weights=0, kind=mask["kind"], ratio=mask["ratio"], seed=0).said["masked"]
        assert len(drawn) == mask["planes"] * mask["grid"][0] * mask["grid"][1]
        words = {"masked": drawn, "grid": mask["grid"], "planes": mask["planes"], "image": "sample:fruit"}
        answer = reconstruct(site, **words)
        assert answer.status == 200, answer.body
        assert shown(answer.said["reconstruction"]).shape == (*config.image_hw, 3)
        assert site.post("/api/features", weights=0, image="sample:fruit").status == 200
        if config.channels == 5:
            others = reconstruct(site, **words, bands=[4, 3, 0]).said
            assert others["original"] != answer.said["original"]
            assert reconstruct(site, **words, bands=[4, 3, 5]).status == 422
        if not mask["paintable"]:
            assert site.post("/api/mask", weights=0, kind="random", ratio=0.5, seed=0).status == 422


@pytest.mark.parametrize(("kind", "parts"), [("random", ()), ("own_parts:Stripes", ("own_parts:Stripes",))])
def test_a_mask_of_ones_own_is_drawn_and_digits_are_offered_to_small_models(tmp_path, reader, kind, parts):
    say(*parts)
    own = painter(tmp_path / "own.safetensors", mask=MaskConfig(kind=kind), channels=1)
    with served(reader, weights=own, parts=parts) as site:
        said = site.get("/api/about").said
        assert said["weights"][0]["mask"]["kinds"][0] == kind
        assert site.post("/api/mask", weights=0, kind=kind, ratio=0.5, seed=0).said["masked"].count("1") == 8
        assert "digit:0" in [one["image"] for one in said["images"]]
        assert pixels(site.get("/api/thumbnails/digit:0").body).shape[2] == 3


# What strangers try


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"<html><script>alert(1)</script>", 415),
        (b"", 415),
        (picture("GIF"), 415),
        (picture()[:200], 415),
        (b"--x\r\nContent-Disposition: form-data; name=f; filename=../../x.png\r\n\r\n\x89PNG\r\n--x--", 415),
    ],
)
def test_what_is_no_picture_is_refused_in_a_line(site, data, status):
    for kind in ("image/png", "multipart/form-data; boundary=x"):
        answer = site.ask("POST", "/api/images", data, content_type=kind)
        assert answer.status == status
        assert 5 < len(answer.said["message"]) < 200
    assert site.upload(picture()).status == 200


def test_what_is_too_large_is_refused_before_it_is_sent(site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(head("/api/images", site.port, 20_000_001))
        answer = connection.makefile("rb").read()
    assert b" 413 " in answer
    assert b"20 MB" in answer


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/page/../images.py", "/page/..%2fimages.py", "/page/%2e%2e/x.py", "/page/main.js/..",
        "/page//etc/passwd", "/api/thumbnails/../../etc/passwd", "/api/thumbnails/gallery:-1", "/docs", "/openapi.json",
        "/api/thumbnails/gallery:999", "/api/thumbnails/sample:nothing", "/api/thumbnails/..%2f..%2fx", "/api/images",
    ],
)  # fmt: skip
def test_no_name_leads_to_a_file(site, path):
    answer = site.get(path)
    assert answer.status in (404, 405)
    assert b"import" not in answer.body


@pytest.mark.parametrize(
    "words",
    [
        {"masked": "2" * 16}, {"masked": "1" * 16}, {"masked": "0" * 16}, {"masked": "10"}, {"masked": "1" * 70_000},
        {"grid": [4, -4]}, {"grid": [1 << 40, 4]}, {"grid": "4"}, {"statistics": "guess"}, {"weights": 9},
        {"weights": 2}, {"bands": [0, 1]}, {"bands": [0] * 9}, {"image": "gone"}, {"image": "x" * 500},
        {"planes": 0}, {"more": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_line(site, image, words):
    if words == {"bands": [0, 1]}:  # three channels are shown as they are
        assert reconstruct(site, image=image, **words).status == 200
        return
    answer = reconstruct(site, **{"image": image, **words})
    assert answer.status in (404, 422)
    assert 5 < len(answer.said["message"]) < 200


def test_fifty_at_once_are_answered_or_told_to_wait(site, image):
    words = {"weights": 0, "image": image, "masked": HALF, "grid": [4, 4]}

    def ask(number):
        return site.upload(picture(seed=number)) if number % 2 else site.post("/api/reconstruct", **words)

    before = _resident()
    with ThreadPoolExecutor(50) as pool:
        statuses = {answer.status for answer in pool.map(ask, range(50))}
    assert 200 in statuses
    assert statuses <= {200, 503}
    assert _resident() - before < 200_000_000
    assert patiently(lambda: reconstruct(site, image=image)).status == 200


def test_clients_that_leave_and_slow_ones_hold_nobody_up(site, image):
    words = json.dumps({"weights": 0, "image": image, "masked": HALF, "grid": [4, 4]}).encode()
    for body, path in ((words, "/api/reconstruct"), (picture(), "/api/images")):
        for sent in (len(body), len(body) // 2, 0):
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", site.port)) as connection:
                    connection.sendall(head(path, site.port, len(body)) + body[:sent])
    assert patiently(lambda: site.upload(picture())).status == 200
    slow = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(8)]
    for connection in slow:
        connection.sendall(head("/api/images", site.port, 9000) + b"x")
    assert patiently(lambda: site.upload(picture())).status == 200
    assert patiently(lambda: reconstruct(site, image=image)).status == 200
    slow[0].settimeout(10)
    assert b" 408 " in slow[0].recv(4096)
    for connection in slow:
        connection.close()


def test_uploads_are_held_in_memory_alone_and_only_so_many(site, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(images, "_HELD", 4)
    here = Path.cwd()
    before, opened = {*here.iterdir()}, _open()
    first = site.upload(picture(seed=90)).said["image"]
    for seed in range(91, 95):
        assert site.upload(picture(seed=seed)).status == 200
    gone = reconstruct(site, image=first)
    assert (gone.status, gone.said["unknown"]) == (404, True)
    assert {*here.iterdir()} == before
    assert not [*tmp_path.iterdir()]
    assert _open() <= opened


def _open():
    """What this process has open, sockets and pipes aside."""
    found = (_target(path) for path in Path("/proc/self/fd").iterdir())
    return {path for path in found if path.startswith("/")}


def _target(path):
    try:
        return os.readlink(path)  # noqa: PTH115 - what it points to has no path
    except OSError:
        return ""


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
