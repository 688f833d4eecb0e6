import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from maekit.report import figures

STEPS = list(range(200))
LOSS = [1 / (step + 1) for step in STEPS]


def words(svg: str) -> list[str]:
    return [text for element in ET.fromstring(svg).iter() if element.tag.endswith("text") and (text := element.text)]


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', svg)


def curve(name: str = "training", **options: object) -> str:
    return figures.curve({name: (STEPS, LOSS), "validation": (STEPS, LOSS)}, xlabel="step", ylabel="loss", **options)


FIGURES = [
    pytest.param(curve, id="curve"),
    pytest.param(lambda: curve(smooth=5), id="smooth curve"),
    pytest.param(lambda: figures.bars({"pretrained": [0.5, 0.6]}, xlabel="5 labels", ylabel="top-1"), id="bars"),
    pytest.param(lambda: figures.heat([[3, 1], [0, 2]], ["cat", "dog"]), id="heat"),
]


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_is_one_svg_element_without_a_clock_and_refers_only_to_itself(draw):
    svg = draw()
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg.startswith("<svg")
    assert svg == draw()
    assert not re.search(r"20\d\d-\d\d-\d\d", svg)
    targets = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', svg)
    assert targets
    outside = {a or b for a, b in targets} - {f"#{name}" for name in ids(svg)}
    assert all(target.startswith("data:image/png;base64,") for target in outside)


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_takes_the_width_of_its_place(draw):
    attributes = ET.fromstring(draw()).attrib
    assert "viewBox" in attributes
    assert not {"width", "height"} & set(attributes)


def test_two_figures_in_one_page_share_no_id():
    first, second = curve("training"), curve("other")
    assert len(ids(first)) == len(set(ids(first)))
    assert not set(ids(first)) & set(ids(second))


def test_a_curve_names_its_axes_and_series_as_text():
    assert {"step", "loss", "training", "validation"} <= set(words(curve()))


def test_names_are_neither_markup_nor_mathematics():
    svg = figures.heat([[3, 1], [0, 2]], ["<b>cat</b>", "$x_1$"])
    assert {"<b>cat</b>", "$x_1$"} <= set(words(svg))


def test_values_that_are_not_finite_leave_a_gap_and_stop_nothing():
    holes = [float("nan") if step % 50 == 0 else loss for step, loss in zip(STEPS, LOSS, strict=True)]
    for smooth in (1, 5):
        svg = figures.curve({"loss": (STEPS, holes)}, xlabel="step", ylabel="loss", smooth=smooth)
        assert "nan" not in svg.lower()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_run_that_has_just_begun_can_be_drawn(count: int):
    series = {"training": (STEPS[:count], LOSS[:count])}
    assert "loss" in words(figures.curve(series, xlabel="step", ylabel="loss", smooth=9))


def test_a_long_run_makes_a_small_figure_that_keeps_its_course():
    steps = np.arange(200_000)
    noise = np.random.default_rng(0).normal(size=len(steps))
    svg = figures.curve({"loss": (steps, noise)}, xlabel="step", ylabel="loss", smooth=4000)
    assert len(svg) < 150_000
    assert "200000" in words(svg)


def test_smoothing_draws_the_mean_beside_the_raw_line():
    zigzag = [step % 2 for step in STEPS]
    plain = figures.curve({"loss": (STEPS, zigzag)}, xlabel="step", ylabel="loss")
    smooth = figures.curve({"loss": (STEPS, zigzag)}, xlabel="step", ylabel="loss", smooth=10)
    assert smooth.count("opacity: 0.3") > plain.count("opacity: 0.3") == 0


def test_bars_tell_mean_spread_and_number_of_runs():
    svg = figures.bars({"pretrained": [0.5, 0.7], "from scratch": [0.2]}, xlabel="1 label", ylabel="top-1")
    assert {"1 label", "top-1", "0.6", "0.2"} <= set(words(svg))
    assert {"pretrained (n = 2)", "from scratch (n = 1)"} <= set(words(svg))


def test_heat_writes_the_counts_that_are_not_zero():
    written = words(figures.heat([[31, 17], [0, 22]], ["cat", "dog"]))
    assert {"31", "17", "22", "cat", "dog", "predicted", "true"} <= set(written)
    assert "0" not in written


def test_heat_takes_a_class_without_images():
    assert "5" in words(figures.heat([[5, 0], [0, 0]], ["cat", "dog"]))


def test_heat_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="3 labels"):
        figures.heat([[1, 0], [0, 1]], ["a", "b", "c"])


def test_a_first_spike_does_not_flatten_the_rest():
    losses = [40.0, *(1 - number / 200 for number in range(99))]
    steps = list(range(100))
    cut = figures.curve({"loss": (steps, losses)}, xlabel="step", ylabel="loss", cut_start=True)
    assert "the first values, up to 40, lie above this picture" in cut
    calm = figures.curve({"loss": (steps[1:], losses[1:])}, xlabel="step", ylabel="loss", cut_start=True)
    assert "lie above" not in calm


def test_a_spike_that_comes_later_is_shown_whole():
    losses = [*(1 - number / 200 for number in range(99)), 40.0]
    drawn = figures.curve({"loss": (list(range(100)), losses)}, xlabel="step", ylabel="loss", cut_start=True)
    assert "lie above" not in drawn


def readings(svg: str) -> list[str]:
    return re.findall(r'<g class="read">.*?<text[^>]*>([^<]*)</text></g></g>', svg)


def test_the_values_at_a_step_can_be_read_without_a_script():
    svg = figures.curve({"a": ([10, 20], [0.5, 0.25]), "b": ([20], [3])}, xlabel="step", ylabel="loss")
    assert readings(svg) == ["step 10  a 0.5", "step 20  a 0.25  b 3"]
    assert "<script" not in svg


def test_of_a_long_line_no_more_can_be_read_than_there_is_room_for():
    found = readings(figures.curve({"a": (list(range(5000)), [1.0] * 5000)}, xlabel="step", ylabel="loss"))
    assert len(found) == 100
    assert (found[0], found[-1]) == ("step 0  a 1", "step 4,999  a 1")


def test_a_wide_range_is_drawn_by_its_logarithm_where_that_is_asked_for():
    falling = [10 ** -(number / 50) for number in range(200)]
    ticks = {"0.0001", "0.001", "0.01", "0.1", "1"}
    assert ticks <= set(words(figures.curve({"a": (STEPS, falling)}, xlabel="step", ylabel="loss", log=True)))
    assert not ticks <= set(words(figures.curve({"a": (STEPS, falling)}, xlabel="step", ylabel="loss")))
    below = [value - 0.5 for value in falling]
    assert not ticks <= set(words(figures.curve({"a": (STEPS, below)}, xlabel="step", ylabel="loss", log=True)))


def test_names_under_the_pointer_are_no_markup():
    svg = figures.curve({"<b>a": ([1], [1])}, xlabel="<i>", ylabel="y")
    assert "<b>" not in svg
    assert "<i>" not in svg
