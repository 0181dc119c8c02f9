"""report.html: one file to double-click, pictures first."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worldpack_agents.intervals import Interval

if TYPE_CHECKING:
    from worldpack_agents.compare import Comparison, Replay

_REAL, _IMAGINED = "#2563eb", "#ea580c"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2937; --soft: #6b7280; --paper: #ffffff; --line: #e5e7eb; --card: #f9fafb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --soft: #9ca3af; --paper: #111827; --line: #374151; --card: #1f2937; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.note { color: var(--soft); margin-top: .2rem } img { max-width: 100%; border-radius: 6px; background: #fff }
.videos { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 } figcaption { color: var(--soft); font-size: .85rem }
.videos img { image-rendering: pixelated; width: 500px } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .45rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600; color: var(--soft); font-size: .85rem } td.name { font-weight: 600 }
.scroll { overflow-x: auto } code, pre { background: var(--card); border-radius: 4px; padding: .1rem .3rem; font-size: .85rem }
"""


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def side_by_side(replay: Replay, *, scale: int = 4) -> bytes:
    """An animated WebP: the engine on the left, the same actions imagined on the right; 5 env steps a second, as in the game."""
    from PIL import Image

    real = replay.real.frames
    if real is None:
        raise ValueError("This replay was played without keeping frames.")
    gap = np.full((real.shape[1], 2, 3), 255, np.uint8)
    pictures = []
    for a, b in zip(real, replay.imagined_frames, strict=True):
        both = np.concatenate([a, gap, b], axis=1)
        pictures.append(Image.fromarray(both.repeat(scale, axis=0).repeat(scale, axis=1)))
    out = io.BytesIO()
    pictures[0].save(out, "WEBP", save_all=True, append_images=pictures[1:], duration=200, loop=0, quality=70, method=3)
    return out.getvalue()


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _png(figure: Any) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return _embedded(out.getvalue(), "png")


def paths_picture(replays: Sequence[Replay], goals: dict[int, NDArray[np.float64]], *, count: int = 4) -> str:
    """Top-down paths: the engine's and the imagined one of the same actions."""
    shown = list(replays)[:count]
    figure, axes = _figure(3.2 * len(shown), 3.3, len(shown))
    for axis, r in zip(axes, shown, strict=True):
        points = goals[r.real.start_index]
        # x grows to the left here, because a body that looks to +z (up) has -x on its right
        axis.plot(-r.real.poses[:, 0], r.real.poses[:, 2], color=_REAL, label="engine", linewidth=2)
        axis.plot(-r.imagined_poses[:, 0], r.imagined_poses[:, 2], color=_IMAGINED, label="imagined", linestyle="--", linewidth=2)
        for name, point in zip("ABC", points, strict=False):
            axis.annotate(name, (-point[0], point[2]), fontweight="bold", ha="center", va="center")
            axis.plot(-point[0], point[2], "o", markersize=16, markerfacecolor="none", markeredgecolor="gray")
        axis.set_aspect("equal", adjustable="datalim")
        axis.set_title(f"start {r.real.start_index}", fontsize=9)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=8)
    axes[0].set_ylabel("blocks", fontsize=8)
    return _png(figure)


def curves_picture(data: dict[str, list[dict[str, float]]]) -> str:
    """The four open-loop curves with their intervals."""
    titles = {"psnr_db": "PSNR (dB)", "ssim": "SSIM", "position_error_blocks": "position error (blocks)", "yaw_error_degrees": "yaw error (degrees)"}
    figure, axes = _figure(13, 2.9, 4)
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        steps = np.arange(1, len(data[name]) + 1)
        mean, low, high = (np.array([point[key] for point in data[name]]) for key in ("mean", "low", "high"))
        axis.plot(steps, mean, color=_IMAGINED)
        axis.fill_between(steps, low, high, color=_IMAGINED, alpha=0.2, linewidth=0)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("imagined step", fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    return _png(figure)


def outcomes_picture(agents: Sequence[dict[str, Any]]) -> str:
    """Success of every agent, imagined beside real, with intervals."""
    figure, (axis,) = _figure(1.6 + 1.5 * len(agents), 3.0)
    for offset, where, colour in ((-0.17, "real", _REAL), (0.17, "imagined", _IMAGINED)):
        mean = np.array([a[where]["success"]["mean"] for a in agents])
        low, high = (np.array([a[where]["success"][key] for a in agents]) for key in ("low", "high"))
        x = np.arange(len(agents)) + offset
        axis.bar(x, mean, 0.32, color=colour, label={"real": "engine", "imagined": "imagined"}[where])
        axis.errorbar(x, mean, [np.maximum(mean - low, 0), np.maximum(high - mean, 0)], color="black", linestyle="none", capsize=4)
    axis.set_xticks(range(len(agents)), [a["agent"] for a in agents])
    axis.set_ylim(0, 1)
    axis.set_ylabel("success")
    axis.legend(fontsize=8)
    return _png(figure)


COLUMNS = (("success", True, 0), ("return", False, 2), ("path_length", False, 1), ("spl", False, 2), ("steps", False, 1))
"""Columns of the table: key, shown in percent, digits."""


def table_rows(data: dict[str, Any]) -> list[list[str]]:
    """The comparison as text: agent, where, then the columns of ``COLUMNS``."""
    return [
        [a["agent"], "engine" if where == "real" else "imagined", *(Interval(**a[where][k]).text(d, percent=p) for k, p, d in COLUMNS)]
        for a in data["agents"]
        for where in ("real", "imagined")
    ]


def write_report(comparison: Comparison, path: Path, *, videos: int = 4) -> None:
    """Writes the page; everything it shows is inside it.

    Args:
        comparison: what to show.
        path: the HTML file.
        videos: replays shown as video.
    """
    data, replays = comparison.data, comparison.replays
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>worldpack-env: imagination against engine</title><style>{_STYLE}</style></head><body>",
        "<h1>Imagination against engine</h1>",
        f"<p class='note'>{html.escape(data['env']['task'])} · range {data['env']['nav_range']} blocks · world "
        f"{html.escape(data['env']['world'])}, split {data['env']['split']} · model {html.escape(data['weights'])}</p>",
    ]
    if replays:
        parts.append("<h2>The same actions, side by side</h2><p class='note'>Left: the engine. Right: imagined from the start's frames and the")
        parts.append("actions alone; the model never sees the engine after the first frame.</p><div class='videos'>")
        for r in replays[:videos]:
            caption = f"start {r.real.start_index}, {r.real.steps} steps, {'reached' if r.real.success else 'not reached'}"
            parts.append(f"<figure><img alt='engine and imagination' src='{_embedded(side_by_side(r), 'webp')}'>")
            parts.append(f"<figcaption>{caption}</figcaption></figure>")
        parts.append("</div><h2>Paths from above</h2>")
        parts.append(f"<img alt='paths' src='{paths_picture(replays, comparison.goals)}'>")
        parts.append("<h2>Open loop, step by step</h2><p class='note'>")
        parts.append(f"{len(replays)} engine episodes of {html.escape(data['replay']['of'])} replayed; bands are 95 % intervals.</p>")
        parts.append(f"<img alt='curves' src='{curves_picture(data['replay'])}'>")
    parts.append("<h2>Outcomes from the same starts</h2>")
    parts.append(f"<img alt='success' src='{outcomes_picture(data['agents'])}'><div class='scroll'><table><tr><th>agent</th><th>in</th>")
    parts += [f"<th>{key.replace('_', ' ')}</th>" for key, _, _ in COLUMNS]
    parts.append("</tr>")
    for row in table_rows(data):
        parts.append(f"<tr><td class='name'>{html.escape(row[0])}</td>" + "".join(f"<td>{html.escape(c)}</td>" for c in row[1:]) + "</tr>")
    parts.append(f"</table></div><p class='note'>{html.escape(data['interval'])}. {data['agents'][0]['real']['episodes']} episodes each. ")
    for a in data["agents"]:
        parts.append(f"{html.escape(a['agent'])}: the same outcome in both for {100 * a['same_outcome']:.0f} % of the starts. ")
    made = data["provenance"]
    parts.append(f"</p><h2>Made with</h2><p class='note'>{html.escape(made['made'])} · commit {html.escape(str(made['commit']))} · ")
    parts.append(f"{html.escape(made['machine']['processor'])}, {made['machine']['torch_threads']} threads · ")
    parts.append(f"torch {html.escape(made['versions']['torch'])}. All numbers are in report.json beside this page.</p></body></html>")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("\n".join(parts), encoding="utf-8")
    temporary.replace(path)
