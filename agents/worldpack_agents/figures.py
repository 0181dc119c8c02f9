"""Pictures of a report: drawn by matplotlib as SVG whose colours are the page's, so that they follow its light and dark style."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from worldpack_agents.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from worldpack_env.worlds import Surface

Line = tuple[str, Sequence[Interval], str]
"""Palette colour, values, matplotlib's line style."""
Chart = tuple[str, str, Mapping[str, Line]]
"""Title, unit, lines by label."""

PALETTE: Final = {"ink": "#010203", "faint": "#010304", "grid": "#010405", "engine": "#010506", "dream": "#010607", "third": "#010708"}
"""CSS variable -> the colour that stands for it while matplotlib draws."""
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": PALETTE["grid"],
    "axes.labelcolor": PALETTE["faint"],
    "axes.titlecolor": PALETTE["ink"],
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": PALETTE["grid"],
    "ytick.color": PALETTE["grid"],
    "xtick.labelcolor": PALETTE["faint"],
    "ytick.labelcolor": PALETTE["faint"],
    "text.color": PALETTE["ink"],
    "legend.frameon": False,
    "legend.labelcolor": PALETTE["ink"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
FRAME_MS: Final = 200
"""A step lasts four game ticks of 50 ms, so videos run in real time."""
LAST_FRAME_MS: Final = 1400


def video(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> str:
    """An endless animated WebP of two frame sequences side by side, as a data URI.

    Args:
        left: ``(T, H, W, 3) uint8``.
        right: the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    from PIL import Image

    if left.shape != right.shape or left.ndim != 4:
        raise ValueError(f"The two videos have shapes {left.shape} and {right.shape}, expected two equal (T, H, W, 3).")
    gap = np.zeros((*left.shape[:2], 2, 3), np.uint8)
    frames = [Image.fromarray(frame) for frame in np.concatenate([left, gap, right], axis=2)]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True, quality=60, method=3)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def gif(frames: NDArray[np.uint8], *, scale: int = 2) -> bytes:
    """An endless GIF of ``frames (T, H, W, 3) uint8``, each pixel ``scale`` pixels wide, in real time; TensorBoard shows no other moving picture."""
    from PIL import Image

    pictures = [Image.fromarray(frame).resize((scale * frame.shape[1], scale * frame.shape[0]), Image.Resampling.NEAREST) for frame in frames]
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return file.getvalue()


def line_charts(charts: Sequence[Chart], *, x: Sequence[float], xlabel: str, name: str) -> str:
    """A row of line charts with 95 % bands.

    Args:
        charts: what to draw.
        x: where the intervals lie; those beyond a line's end are left out.
        xlabel: what ``x`` is.
        name: distinguishes the picture's inner names from those of other pictures on the page.
    """
    with _drawing(name) as (figure, finish):
        axes = figure.subplots(1, len(charts), squeeze=False)[0]
        figure.set_size_inches(3.3 * len(charts), 2.7)
        for axis, (title, unit, lines) in zip(axes, charts, strict=True):
            for label, (colour, values, style) in lines.items():
                at = np.asarray(x)[: len(values)]
                axis.plot(at, [v.mean for v in values], style, color=PALETTE[colour], linewidth=1.8, label=label)
                axis.fill_between(at, [v.low for v in values], [v.high for v in values], color=PALETTE[colour], alpha=0.18, linewidth=0)
            axis.set_title(title)
            axis.set_ylabel(unit)
            axis.set_xlabel(xlabel)
            if max(v.high for _, values, _ in lines.values() for v in values) < 1e-9:
                axis.set_ylim(0, 1)  # no error at all; the automatic axis would show rounding
            if len(lines) > 1:
                axis.legend(fontsize=9, handlelength=1.6)
        return finish()


def interval_chart(charts: Sequence[tuple[str, Sequence[tuple[str, Interval, Interval]]]], *, name: str, percent: Sequence[bool]) -> str:
    """Dots with 95 % intervals: each policy in imagination and in the engine.

    Args:
        charts: ``(title, [(policy, imagined, real), ...])`` of each.
        name: distinguishes the picture's inner names.
        percent: for each chart, show shares as percentages.
    """
    with _drawing(name) as (figure, finish):
        rows = max(len(part) for _, part in charts)
        figure.set_size_inches(3.9 * len(charts), 1.15 + 0.62 * rows)
        axes = figure.subplots(1, len(charts), squeeze=False)[0]
        for axis, (title, part), shares in zip(axes, charts, percent, strict=True):
            factor = 100.0 if shares else 1.0
            for row, (_, imagined, real) in enumerate(part):
                for value, offset, colour, label in ((imagined, -0.14, "dream", "imagined"), (real, 0.14, "engine", "engine")):
                    low, mean, high = (factor * v for v in (value.low, value.mean, value.high))
                    axis.plot([low, high], [row + offset] * 2, color=PALETTE[colour], linewidth=2.4, alpha=0.55, solid_capstyle="round")
                    axis.plot([mean], [row + offset], "o", color=PALETTE[colour], markersize=7, label=label if row == 0 else None)
            _name_rows(axis, title, [policy for policy, _, _ in part], shares=shares)
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        return finish()


def condition_chart(charts: Sequence[tuple[str, Sequence[tuple[str, Interval]]]], *, name: str, percent: Sequence[bool]) -> str:
    """Dots with 95 % intervals, one row for each condition of a study.

    Args:
        charts: ``(title, [(condition, value), ...])`` of each.
        name: distinguishes the picture's inner names.
        percent: for each chart, show shares as percentages.
    """
    with _drawing(name) as (figure, finish):
        rows = max(len(part) for _, part in charts)
        figure.set_size_inches(3.9 * len(charts), 1.0 + 0.42 * rows)
        axes = figure.subplots(1, len(charts), squeeze=False)[0]
        for axis, (title, part), shares in zip(axes, charts, percent, strict=True):
            factor = 100.0 if shares else 1.0
            for row, (_, value) in enumerate(part):
                axis.plot([factor * value.low, factor * value.high], [row, row], color=PALETTE["engine"], linewidth=2.4, alpha=0.55)
                axis.plot([factor * value.mean], [row], "o", color=PALETTE["engine"], markersize=7)
            _name_rows(axis, title, [condition for condition, _ in part], shares=shares)
        return finish()


def _name_rows(axis: Axes, title: str, names: Sequence[str], *, shares: bool) -> None:
    """A chart of one row for each name, from the top; ``shares`` are in percent."""
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", labelcolor=PALETTE["ink"], length=0)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_title(title)
    if shares:
        axis.set_xlim(-2, 102)
        axis.set_xlabel("% of episodes")


def agreement_chart(points: Sequence[tuple[str, Interval, Interval]], *, name: str) -> str:
    """Each policy's success in the engine against that in imagination, in percent, with 95 % intervals and the diagonal.

    Args:
        points: ``(policy, imagined, real)``, shares.
        name: distinguishes the picture's inner names.
    """
    with _drawing(name) as (figure, finish):
        figure.set_size_inches(4.4, 4.0)
        axis = figure.subplots()
        axis.plot([0, 100], [0, 100], ":", color=PALETTE["faint"], linewidth=1.2)
        for number, (policy, imagined, real) in enumerate(sorted(points, key=lambda p: p[2].mean)):
            x, y = 100 * imagined.mean, 100 * real.mean
            axis.plot([100 * imagined.low, 100 * imagined.high], [y, y], color=PALETTE["dream"], linewidth=1.6, alpha=0.45)
            axis.plot([x, x], [100 * real.low, 100 * real.high], color=PALETTE["engine"], linewidth=1.6, alpha=0.45)
            axis.plot([x], [y], "o", color=PALETTE["ink"], markersize=5)
            # names of neighbours in turn on either side, so that few lie on each other
            left = number % 2 == 0
            axis.annotate(
                policy, (x, y), (-6 if left else 6, 5 if left else -9), textcoords="offset points", ha="right" if left else "left", fontsize=8
            )
        axis.set_xlim(-3, 103)
        axis.set_ylim(-3, 103)
        axis.set_aspect("equal")
        axis.set_xlabel("success in imagination, %")
        axis.set_ylabel("success in the engine, %")
        return finish()


def path_map(
    waypoints: NDArray[np.float64], surface: Surface | None, paths: Mapping[str, tuple[str, NDArray[np.float64], str]], *, radius: float, name: str
) -> str:
    """The ground from above with the ways taken; x to the right, z down, as on Minecraft's maps.

    Args:
        waypoints: ``(g, 3)`` A, where the ways begin, and the goals in order.
        surface: the ground, for shading; None leaves it out.
        paths: ``{label: (palette colour, poses (T, 5), line style)}``.
        radius: blocks within which a goal counts as reached.
        name: distinguishes the picture's inner names.
    """
    with _drawing(name) as (figure, finish):
        figure.set_size_inches(3.2, 3.2)
        axis = figure.subplots()
        ground = np.concatenate([waypoints[:, [0, 2]], *(poses[:, [0, 2]] for _, poses, _ in paths.values())])
        low, high = ground.min(axis=0) - 3.0, ground.max(axis=0) + 3.0
        middle, half = (low + high) / 2, float((high - low).max()) / 2
        if surface is not None:
            _shade(axis, surface, middle - half, middle + half)
        for label, (colour, poses, style) in paths.items():
            axis.plot(poses[:, 0], poses[:, 2], style, color=PALETTE[colour], linewidth=2.4, label=label, dash_capstyle="round")
        _mark(axis, waypoints, radius)
        axis.set_xlim(middle[0] - half, middle[0] + half)
        axis.set_ylim(middle[1] + half, middle[1] - half)
        axis.set_aspect("equal")
        axis.set_axis_off()
        return finish()


def _mark(axis: Axes, waypoints: NDArray[np.float64], radius: float) -> None:
    from matplotlib.patches import Circle

    seen: dict[tuple[float, float], str] = {}
    for letter, point in zip("ABC", waypoints, strict=False):
        seen.setdefault((round(float(point[0]), 2), round(float(point[2]), 2)), letter)
    for (x, z), letter in seen.items():
        if letter != "A":
            axis.add_patch(Circle((x, z), radius, fill=False, color="#333333", linewidth=1.2))
        axis.plot([x], [z], "o", color="white", markersize=12, markeredgecolor="#333333", markeredgewidth=0.8)
        axis.text(x, z, letter, color="#222222", fontsize=8, fontweight="bold", ha="center", va="center_baseline")


def _shade(axis: Axes, surface: Surface, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    """Ground by height, lit from the north-west; where nobody can stand it is dark."""
    corner = np.array(surface.origin)
    size = np.array(surface.heights.shape)
    first = np.clip(np.floor(low - corner).astype(int) - 1, 0, size - 2)
    last = np.clip(np.ceil(high - corner).astype(int) + 1, first + 2, size)
    heights = surface.heights[first[0] : last[0], first[1] : last[1]].astype(np.float64)
    walkable = surface.walkable[first[0] : last[0], first[1] : last[1]]
    slope = np.gradient(heights)
    light = np.clip(0.92 + 0.07 * (heights - heights.mean()) / max(1.0, float(heights.std())) - 0.10 * (slope[0] + slope[1]), 0.6, 1.1)
    colours = light[..., None] * np.array([0.82, 0.88, 0.76])
    colours[~walkable] = light[~walkable][:, None] * np.array([0.42, 0.47, 0.52])
    x0, z0 = corner + first
    x1, z1 = corner + last
    axis.imshow(np.swapaxes(np.clip(colours, 0.0, 1.0), 0, 1), extent=(x0, x1, z1, z0), interpolation="nearest", zorder=-1)


class _drawing:
    """Context with a new figure and the function that turns it into SVG; leaves no trace in matplotlib's settings."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> tuple[Figure, Callable[[], str]]:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context(cast(Any, {**_STYLE, "svg.hashsalt": self._name}))
        self._context.__enter__()
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        return figure, lambda: _page_colours(figure)

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)  # type: ignore[arg-type]


def _page_colours(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # inside a page the namespaces are understood; a page that needs nothing else should not name addresses
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for variable, stand_in in PALETTE.items():
        text = text.replace(stand_in, f"var(--{variable})")
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # it would style the whole page
    # the page decides the size and the font
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt"', r'\1style="max-width: \2pt"', text, count=1)
    return re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "var(--family)", text)
