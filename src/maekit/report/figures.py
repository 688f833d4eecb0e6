"""Figures as SVG text, ready to stand inside a page: dark on white, for 700 px of width, without a trace of the clock.

Lettering stays text, so it can be read aloud, searched and set in the page's own font. Colours are Okabe and Ito's
(jfly.uni-koeln.de/color), which colour-blind readers can tell apart; series differ in dash or position as well. Values
appear under the pointer by style alone (`HOVER`), so a page with figures needs no script.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator, FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", "--", "-.", ":")
_INK, _QUIET_INK, _RULE = "#1a1a1a", "#555555", "#e4e4e4"
_WIDTH = 7.0
_LONGEST_NAME, _LETTERS = 60, 80  # letters of a name in a legend, and of a row of it
_ROW = 0.22  # inches
_MOST_POINTS = 800
_MOST_READ = 100  # places of a curve whose values appear under the pointer
_WIDE_RANGE = 20  # times the smallest value, from which on an axis is logarithmic
_DOTS = 72  # an inch, SVG's own, so that places need no conversion

HOVER = """
.read > g { opacity: 0; pointer-events: none; }
.read:hover > g { opacity: 1; }
.read > rect { fill: none; pointer-events: all; }
"""
"""The style of a page with curves."""

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "maekit",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 10,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _QUIET_INK,
    "axes.labelcolor": _INK,
    "xtick.color": _QUIET_INK,
    "ytick.color": _QUIET_INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def curve(
    series: Series,
    *,
    ylabel: str,
    xlabel: str = "step",
    smooth: int = 1,
    cut_start: bool = False,
    log: bool = False,
    until: float | None = None,
) -> str:
    """Lines over a common x axis, their values under the pointer.

    series: name → (x, y) of equal length; values that are not finite leave a gap. smooth: points of a centred moving
    mean, drawn strong over the faint raw line; lines of less than ten times as many points stay raw. cut_start: where
    the first twentieth of the points stands so high that it would flatten the rest, the y axis ends below it, and says
    what it leaves out. log: where the values are positive and span a factor of 20 or more, the y axis is logarithmic.
    until: where the x axis ends, from 0. Of a longer line than 800 points, neighbours are drawn as their mean, so the
    figure stays small.
    """
    with mpl.rc_context(_SETTINGS):
        figure, axes = _axes(height=3.1)
        for number, (name, (x, y)) in enumerate(series.items()):
            colour, dash = COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]
            xs, ys = np.asarray(x, float), np.asarray(y, float)
            if smooth > 1 and len(xs) >= 10 * smooth:
                axes.plot(*_thinned(xs, ys), color=colour, linewidth=0.8, alpha=0.3)
                ys = _moving_mean(ys, smooth)
            (line,) = axes.plot(*_thinned(xs, ys), color=colour, linestyle=dash, linewidth=1.8, label=name)
            if len(xs) <= 30:
                line.set(marker="o", markersize=3.5)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0.02)
        if until:
            axes.set_xlim(-0.02 * until, 1.02 * until)
        lines = [np.asarray(y, float) for _, y in series.values()]
        if not (cut_start and _cut_start(axes, lines)) and log and _spans_wide(lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.yaxis.set_minor_locator(AutoMinorLocator(2))
        if len(series) > 1:
            _legend(axes, columns=len(series))
        return _svg(figure, lambda: _readings(figure, axes, series, xlabel))


def bars(series: Mapping[str, Sequence[float]], *, xlabel: str, ylabel: str) -> str:
    """Means of repeated measurements side by side, with whiskers of one standard deviation and a dot for each run.

    series: measurements, one or more, by name. The legend gives n. xlabel: what stands under all of them.
    """
    with mpl.rc_context(_SETTINGS):
        figure, axes = _axes(height=3.3)
        width = min(0.8 / len(series), 0.3)
        for number, (name, runs) in enumerate(series.items()):
            place, colour = (number - (len(series) - 1) / 2) * width, COLOURS[number % len(COLOURS)]
            _bar(axes, place, width, np.asarray(runs, float), colour)
            axes.plot([], [], "s", color=colour, markersize=8, label=f"{name} (n = {len(runs)})")
        axes.set_xticks([0], [xlabel])
        axes.set_xlim(-0.6, 0.6)
        axes.margins(y=0.12)
        axes.set_ylabel(ylabel)
        axes.tick_params(axis="x", length=0)
        _legend(axes, columns=len(series))
        return _svg(figure)


def heat(matrix: ArrayLike, labels: Sequence[str]) -> str:
    """A confusion matrix: counts in the cells, colour by each cell's share of its row.

    matrix: [K, K] counts, row = true class, column = predicted. Counts are written for up to 30 classes.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels need a square matrix of that size, not {list(counts.shape)}")
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    middles = np.arange(len(labels)) + 0.5
    label_size, count_size = min(9.0, 210 / len(labels)), min(9.0, 150 / len(labels))
    with mpl.rc_context(_SETTINGS):
        figure, axes = _axes(height=6.2)
        mesh = axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
        for row, column in zip(*np.nonzero(counts), strict=True) if len(labels) <= 30 else ():
            ink, place = "white" if share[row, column] > 0.5 else _INK, (column + 0.5, row + 0.5)
            text = f"{counts[row, column]:g}"
            axes.annotate(text, place, ha="center", va="center", color=ink, size=count_size)
        turned = max(map(len, labels), default=0) > 3
        axes.set_xticks(middles, labels, rotation=90 if turned else 0, size=label_size)
        axes.set_yticks(middles, labels, size=label_size)
        axes.set(xlabel="predicted", ylabel="true", aspect="equal")
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(mesh, shrink=0.6, label="share of the true class")
        bar.outline.set_visible(False)
        return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), dpi=_DOTS, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    return figure, axes


def _spans_wide(lines: Sequence[NDArray[np.float64]]) -> bool:
    values = np.concatenate([*lines, np.empty(0)])
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() >= _WIDE_RANGE * values.min())


def _readings(figure: Figure, axes: Axes, series: Series, xlabel: str) -> str:
    """Strips over the figure, each of which shows the values at its place while the pointer is in it.

    Where the line has more points than places, a place shows the value nearest to it.
    """
    lines = {name: (np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in series.items() if len(x)}
    places = np.unique(np.concatenate([np.empty(0), *(x for x, _ in lines.values())]))
    if not len(places):
        return ""
    places = places[np.unique(np.linspace(0, len(places) - 1, _MOST_READ).round().astype(int))]
    height = figure.get_figheight() * _DOTS
    box = axes.get_window_extent()
    across = axes.transData.transform(np.column_stack([places, np.full(len(places), axes.get_ylim()[1])]))[:, 0]
    edges = np.concatenate([[box.x0], (across[1:] + across[:-1]) / 2, [box.x1]])
    top, drawn = height - box.y1, []
    for place, at, left, right in zip(places, across, edges[:-1], edges[1:], strict=True):
        words = [f"{xlabel} {place:,g}"]
        for name, (x, y) in lines.items():
            nearest = int(np.abs(x - place).argmin())
            near = len(x) > _MOST_READ or x[nearest] == place
            if near and np.isfinite(y[nearest]):
                words.append(f"{name} {y[nearest]:.4g}")
        ends = at > (box.x0 + box.x1) / 2
        drawn.append(
            f'<g class="read"><rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{box.height:.1f}"/>'
            f'<g><path d="M{at:.1f} {top:.1f}v{box.height:.1f}" stroke="{_QUIET_INK}" stroke-width=".7"/>'
            f'<text x="{at + (-4 if ends else 4):.1f}" y="{top + 9:.1f}" font-size="9" paint-order="stroke" '
            f'stroke="#fff" stroke-width="4" fill="{_INK}" text-anchor="{"end" if ends else "start"}">'
            f"{escape('  '.join(words))}</text></g></g>"
        )
    return "".join(drawn)


def _cut_start(axes: Axes, lines: Sequence[NDArray[np.float64]]) -> bool:
    """End the y axis below the first twentieth of each line, where that would take two thirds of the height or more.

    Whether it does.
    """
    starts = [line[: max(1, len(line) // 20)] for line in lines]
    rest = np.concatenate([line[len(start) :] for line, start in zip(lines, starts, strict=True)])
    rest = rest[np.isfinite(rest)]
    peak = max((float(start[np.isfinite(start)].max(initial=-np.inf)) for start in starts), default=-np.inf)
    if len(rest) < 10:
        return False
    low, high = float(rest.min()), float(rest.max())
    span = high - low
    if not span > 0 or peak - high < 2 * span:
        return False
    axes.set_ylim(low - 0.05 * span, high + 0.15 * span)
    words = f"the first values, up to {peak:.3g}, lie above this picture"
    axes.annotate(words, (0.02, 0.98), xycoords="axes fraction", va="top", size=9, color=_QUIET_INK)
    return True


def _legend(axes: Axes, columns: int) -> None:
    """Names above the axes, in as many columns as their letters let; the figure is made higher for further rows."""
    handles, names = axes.get_legend_handles_labels()
    names = [name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}" for name in names]
    columns = max(1, min(columns, 4, _LETTERS // max(map(len, names))))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(figure.get_figheight() + _ROW * (-(-len(names) // columns) - 1))
    axes.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderaxespad=0.2
    )


def _bar(axes: Axes, place: float, width: float, runs: NDArray[np.float64], colour: str) -> None:
    mean, spread = runs.mean(), runs.std(ddof=1) if len(runs) > 1 else 0.0
    axes.bar(place, mean, width * 0.92, color=colour, alpha=0.85)
    if len(runs) > 1:
        axes.errorbar(place, mean, spread, color=_INK, capsize=4, linewidth=1.2)
        spots = place + width * np.linspace(-0.25, 0.25, len(runs))
        axes.plot(spots, runs, "o", markersize=3.5, color="white", markeredgecolor=_INK, markeredgewidth=0.8)
    top = max(mean + spread, runs.max())
    axes.annotate(f"{mean:.3g}", (place, top), (0, 5), textcoords="offset points", ha="center", size=9)


def _moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred mean of `window` points, of fewer at the ends; what is not finite is left out of it and stays a gap."""
    finite = np.isfinite(values)
    kernel = np.ones(window)
    total = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    count = np.convolve(finite.astype(float), kernel, mode="same")
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(x) <= _MOST_POINTS:
        return x, y
    starts = np.linspace(0, len(x), _MOST_POINTS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _svg(figure: Figure, over: Callable[[], str] | None = None) -> str:
    """The `<svg>` element alone, sized by its surroundings, its ids made its own by a hash of what it shows.

    over: what lies over the figure, asked once it is laid out.
    """
    text = StringIO()
    unsaid = {"Creator": None, "Date": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure).print_svg(text, metadata=unsaid)  # type: ignore[no-untyped-call]  # savefig draws twice
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    if over is not None:
        svg = svg.removesuffix("</svg>") + over() + "</svg>"
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    own = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\1{own}-", svg)
