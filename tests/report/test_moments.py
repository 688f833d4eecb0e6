"""Strips of what a model paints while it is trained, and maps of what its features hold."""

from pathlib import Path

import numpy as np
import pytest

from maekit.report import features, moments
from maekit.sections import Strips


def images(value: int, count: int = 3) -> list[np.ndarray]:
    return [np.full((8, 12), value, np.uint8)] * count


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(1000, [0, 50, 200, 500, 1000]), (1, [0, 1]), (3, [0, 1, 2, 3]), (100_000, [0, 5000, 20000, 50000, 100_000])],
)
def test_five_moments_spread_over_a_run(steps: int, expected: list[int]):
    assert moments.steps_of(steps) == expected


def test_strips_are_read_in_the_order_of_training_up_to_a_step(tmp_path: Path):
    strips = {moments.at_step(step): images(step) for step in (100, 0, 20)}
    moments.write(tmp_path, {**strips, moments.FIRST: images(1), moments.LAST: images(2)})
    assert [*moments.read(tmp_path, 100)] == ["masked", "step 0", "step 20", "step 100", "original"]
    assert [*moments.read(tmp_path, 99)] == ["masked", "step 0", "step 20", "original"]
    (strip,) = (section for section in moments.sections(tmp_path, 20) if isinstance(section, Strips))
    assert all(jpeg.startswith(b"\xff\xd8") for _, jpeg in strip.rows)


def test_a_run_that_painted_nothing_has_no_strips(tmp_path: Path):
    assert moments.sections(tmp_path, 100) == []


def test_neighbours_are_the_nearest_and_not_the_image_itself():
    angles = np.linspace(0, 1, 20)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * np.arange(1, 21)[:, None]
    found = features.nearest(vectors)
    assert len(found) == features.QUERIES
    assert all(query not in row for query, row in found.items())
    assert found[0] == [1, 2, 3, 4, 5, 6]
    assert found[19] == [18, 17, 16, 15, 14, 13]


@pytest.mark.parametrize("count", [2, 3])
def test_of_two_images_there_is_a_map_without_t_sne(count: int):
    vectors = np.eye(count, 4, dtype=np.float32)
    places, share = features.principal(vectors)
    assert places.shape == (count, 2)
    assert share == pytest.approx(1)
    assert features.neighbourhood(vectors) is None


def test_features_that_are_all_alike_are_a_map_of_one_place():
    places, _ = features.principal(np.ones((40, 4), np.float32))
    assert np.isfinite(places).all()


def test_t_sne_parts_what_lies_apart_and_repeats_itself():
    noise = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32) * 0.1
    vectors = noise + np.repeat(np.eye(2, 8, dtype=np.float32), 30, axis=0)
    places = features.neighbourhood(vectors)
    assert places is not None
    assert (places == features.neighbourhood(vectors)).all()
    middles = places[:30].mean(axis=0), places[30:].mean(axis=0)
    assert np.linalg.norm(middles[0] - middles[1]) > 2 * places[:30].std()


def test_thumbnails_lie_beside_each_other():
    places = np.random.default_rng(0).random((500, 2))
    shown = features.spread_out(places)
    room = np.array(features.drawn(places[:1], [0], [], {}).size) - 56
    for index in shown:
        others = [one for one in shown if one != index]
        apart = np.abs((places[others] - places[index]) * room)
        assert (apart >= 55.9).any(axis=1).all()


def test_classes_have_colours_and_a_legend_while_they_can_be_told_apart():
    places, names = np.random.default_rng(0).random((20, 2)), [f"class {n}" for n in range(20)]
    plain = features.drawn(places, [0] * 20, [], {})
    assert features.drawn(places, list(range(20)), names, {}).size == plain.size
    assert features.drawn(places, [0, 1, -1] * 6 + [0, 0], names[:2], {}).height > plain.height
