"""The page as programs ask it, over tiny models on a real server."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import HALF_HIDDEN, painter, picture, pixels, reconstruct, served

import tiny_families
from maekit.config import MaskConfig, TargetConfig
from maekit.models import mae
from maekit.parts import say
from maekit.weights import native

FAMILIES = ("vit, oblong, 5 channels", "vit, channel tokens", tiny_families.HIERA, tiny_families.SWIN)
TYPES = {"text/html", "text/css", "text/javascript", "image/svg+xml"}


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
    masked = np.array([int(unit) for unit in HALF_HIDDEN], np.uint8).reshape(4, 4)
    Image.fromarray(masked * 255).save(tmp_path / "mask.png")
    answer = site.post("/api/picture", weights=0, image=image, masked=HALF_HIDDEN, grid=[4, 4])
    out = tmp_path / "picture.png"
    words = ("--weights", weights[0], "--out", out, "--mask", tmp_path / "mask.png")
    assert maekit_here("reconstruct", tmp_path / "one.png", *words).returncode == 0
    assert out.read_bytes() == answer.body


def test_what_is_hidden_is_grey_what_shows_is_the_original_and_errors_are_where_it_is_painted(site, image):
    said = reconstruct(site, image=image).said
    masked, original, painted = (shown(said[name]) for name in ("masked", "original", "reconstruction"))
    hidden = np.array([int(unit) for unit in HALF_HIDDEN], bool).reshape(4, 4).repeat(8, 0).repeat(8, 1)
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
