"""report.html: one page to double-click, pictures first. It needs nothing beside it and follows the reader's light or dark style."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from worldpack_agents import figures
from worldpack_agents.intervals import Interval

if TYPE_CHECKING:
    from worldpack_agents.compare import Comparison, Replay
    from worldpack_agents.rollouts import Played
    from worldpack_env.worlds import Surface

log = logging.getLogger(__name__)

TEMPLATE: Final = Path(__file__).with_name("report.template.html")
COLUMNS: Final = (("success", True, 0), ("return", False, 2), ("path_length", False, 1), ("spl", False, 2), ("steps", False, 1))
"""Columns of the table: key, shown in percent, digits; see :func:`columns`."""
CARDS: Final = 4
"""Agents shown large at the top: the first ones named."""
_HEADS: Final = {
    "success": ("success", "of episodes"),
    "return": ("return", "reward units"),
    "path_length": ("walked", "blocks"),
    "spl": ("SPL", "0 to 1"),
    "steps": ("steps", "of the env"),
}
_PLACES: Final = (("imagined", "dream", "imagined"), ("real", "engine", "engine"))
"""Key in the data, style, words."""


def columns(scores: Mapping[str, Any]) -> list[tuple[str, bool, int]]:
    """Those of ``COLUMNS`` that there are: no SPL where there is no shortest way."""
    return [column for column in COLUMNS if column[0] in scores]


def table_heads(scores: Mapping[str, Any]) -> list[str]:
    """The heads of a table of such scores as text, for :func:`table_rows`."""
    return ["agent", "in", *(key for key, _, _ in columns(scores))]


def table_rows(data: dict[str, Any]) -> list[list[str]]:
    """The comparison as text: agent, where, then :func:`columns`."""
    return [
        [a["agent"], "engine" if where == "real" else "imagined", *(Interval(**a[where][k]).text(d, percent=p) for k, p, d in columns(a[where]))]
        for a in data["agents"]
        for where in ("real", "imagined")
    ]


def write_report(comparison: Comparison, path: Path, *, videos: int = 4) -> None:
    """Writes the page; everything it shows is inside it.

    Args:
        comparison: what to show.
        path: the HTML file.
        videos: replays shown as video and as map.
    """
    data, shown = comparison.data, comparison.replays[:videos]
    cards = "\n".join(_card(agent) for agent in data["agents"][:CARDS])
    parts = [
        f'<div class="cards">{cards}</div>',
        _replays(comparison, shown) if shown else "",
        f"<section><h2>Outcomes from the same starts</h2><div class='chart'>{_scores(data['agents'])}</div>{table(*_rows(data))}</section>",
        _agreement(data),
        _flattered(comparison),
        _drift(data["replay"]) if comparison.replays else "",
        _learning(data["agents"]),
    ]
    made = {"weights": data["weights"], "task": data["env"], "intervals": data["interval"], **data["provenance"]}
    write_page(path, title="Imagination against engine", lead=_lead(data), body="\n".join(parts), made=made, data_file="report.json")


def write_page(path: Path, *, title: str, lead: str, body: str, made: Mapping[str, Any], data_file: str) -> None:
    """Writes a page that needs nothing beside it.

    Args:
        path: the HTML file.
        title: its heading.
        lead: HTML of the first paragraph.
        body: HTML of the sections.
        made: what to tell at the end of how it was made.
        data_file: name of the file beside the page that holds all numbers.
    """
    page = TEMPLATE.read_text(encoding="utf-8")
    parts = {"title": html.escape(title), "lead": lead, "body": body, "made": _made(made, data_file)}
    for key, value in parts.items():
        page = page.replace("{{" + key + "}}", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table from HTML of its heads and of its rows' cells."""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr></thead><tbody>{body}</tbody></table></div>"


def _lead(data: dict[str, Any]) -> str:
    env, count = data["env"], data["agents"][0]["real"]["episodes"]
    what = {
        "GoTo": "walk to a goal",
        "GoToImage": "walk to a goal that a picture shows",
        "LoopNav": f"walk the loop {'&nbsp;&rarr;&nbsp;'.join(env['loop'])}",
        "Explore": "see new ground",
        "Find": f"find {html.escape(env['event'])}",
    }[env["task"]]
    reach = "" if env["task"] in ("Explore", "Find") else f", range {env['nav_range']} blocks"
    known = {"train": "worlds of the training split", "val": "validation worlds", "test": "held-out worlds"}
    worlds = known.get(env["split"], f"worlds ({html.escape(env['split'])})")
    return (
        f"The task: <b>{what}</b>{reach}. Each agent plays the same {count} starts in {worlds} twice: in frames that "
        f"<b>{html.escape(str(env['model']))}</b> imagines, and in the engine <b>{html.escape(env['world'])}</b>."
    )


def _card(agent: dict[str, Any]) -> str:
    boxes = []
    for where, style, word in _PLACES:
        value = agent[where]["success"]
        boxes.append(
            f"<div class='{style}'><span class='big'>{100 * value['mean']:.0f}<small>%</small></span>"
            f"<span class='sub'>[{100 * value['low']:.0f}, {100 * value['high']:.0f}] {word}</span></div>"
        )
    return (
        f"<div class='card'><h3>{html.escape(agent['agent'])}</h3><div class='pair'>{''.join(boxes)}</div>"
        f"<p>succeed; same outcome in both from {100 * agent['same_outcome']:.0f} % of the starts</p></div>"
    )


def _replays(comparison: Comparison, shown: Sequence[Replay]) -> str:
    videos = "\n".join(_video(replay) for replay in shown)
    maps = _maps(comparison, shown)
    return (
        "<section><h2>The same actions, side by side</h2>"
        "<p>The agent walked in the engine. The world model imagined the same start with the same actions: it is given the look-around at the start, "
        f"and nothing of the engine after it.</p><div class='grid videos'>{videos}</div></section>"
        "<section><h2>Ways from above</h2><p>From one start, the agent once acted on the engine's frames and once on imagined ones; the dotted line "
        "is where the world model believed to be while it replayed the engine's actions. Nobody can stand on dark ground. <span class='legend'>"
        "<i class='engine'></i>in the engine <i class='dream'></i>in imagination <i class='believed'></i>believed in the replay</span></p>"
        f"<div class='grid maps'>{maps}</div></section>"
    )


def _video(replay: Replay) -> str:
    real = replay.real.frames
    if real is None:
        raise ValueError("This replay was played without keeping frames.")
    end = "succeeded" if replay.real.success else "did not succeed"
    off = float(np.hypot(*(replay.imagined_poses[-1] - replay.real.poses[-1])[[0, 2]]))
    return (
        "<figure><div class='labels'><span class='engine'>engine</span><span class='dream'>imagined</span></div>"
        f"<img class='pixels' alt='engine on the left, imagined on the right' src='{figures.video(real, replay.imagined_frames)}'>"
        f"<figcaption>start {replay.real.start_index}: {replay.real.steps} steps, {end}"
        f"<br><span class='note'>{off:.1f} blocks apart at the end</span></figcaption></figure>"
    )


def _maps(comparison: Comparison, shown: Sequence[Replay]) -> str:
    from worldpack_env.tasks import GOAL_RADIUS

    dreams = {p.start_index: p for p in comparison.played[comparison.data["replay"]["of"]]["imagined"]}
    surfaces = _surfaces(comparison, shown)
    pictures = []
    for number, replay in enumerate(shown):
        index = replay.real.start_index
        ways = {
            "engine": ("engine", replay.real.poses, "-"),
            "imagined": ("dream", dreams[index].poses, "--"),
            "believed": ("third", replay.imagined_poses, ":"),
        }
        picture = figures.path_map(comparison.goals[index], surfaces.get(index), ways, radius=GOAL_RADIUS, name=f"map-{number}")
        pictures.append(f"<figure>{picture}<figcaption>start {index}</figcaption></figure>")
    return "\n".join(pictures)


def _surfaces(comparison: Comparison, shown: Sequence[Replay]) -> dict[int, Surface]:
    """The ground of the shown starts; without it where the engine cannot run any more."""
    from worldpack_env.worlds import BackendUnavailable, make_world

    data, surfaces = comparison.data, dict[int, "Surface"]()
    try:
        world = make_world(data["env"]["world"])
        try:
            for replay in shown:
                index = replay.real.start_index
                world.reset(data["world_seeds"][index], replay.real.poses[0])
                surfaces[index] = world.surface()
        finally:
            world.close()
    except BackendUnavailable as error:
        log.warning("The maps show no ground: %s", error)
    return surfaces


def _scores(agents: Sequence[dict[str, Any]]) -> str:
    def rows(key: str) -> list[tuple[str, Interval, Interval]]:
        return [(a["agent"], Interval(**a["imagined"][key]), Interval(**a["real"][key])) for a in agents]

    charts = [("Success", rows("success"))]
    if "spl" in agents[0]["real"]:
        charts.append(("SPL, success weighted by path length", rows("spl")))
    return figures.interval_chart(charts, name="scores", percent=[True, False][: len(charts)])


def _rows(data: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Heads and rows of the table of outcomes."""
    heads = ["agent", "in", *(f"{_HEADS[key][0]}<br><span class='note'>{_HEADS[key][1]}</span>" for key, _, _ in columns(data["agents"][0]["real"]))]
    rows = []
    for agent in data["agents"]:
        for where, style, word in _PLACES:
            cells = "".join(cell(Interval(**agent[where][key]).text(digits, percent=share)) for key, share, digits in columns(agent[where]))
            lost = agent[where]["lost_slots"]
            note = f"<br><span class='note'>{lost} lost</span>" if lost else ""
            rows.append(f"<th>{html.escape(agent['agent'])}</th><td class='{style}'>{word}{note}</td>{cells}")
    return heads, rows


def cell(text: str) -> str:
    """A table's cell of an interval's text, the bounds below the value."""
    value, _, interval = text.partition(" [")
    return f"<td>{value}<br><span class='note'>[{interval}</span></td>"


def _agreement(data: dict[str, Any]) -> str:
    found, agents = data["agreement"], data["agents"]
    if found is None:
        return ""

    def told(name: str, digits: int, found: dict[str, Any] = found) -> str:
        return f"<b>{Interval(**found[name]).text(digits)}</b>" if found[name] else "<b>undefined</b>, because all succeed equally often"

    observers, apart = data["agreement_of_observers"], ""
    if observers:
        apart = (
            f" {sum(not a['knows_map'] for a in agents)} of them act on what they observe; the others read the engine's map, which nothing "
            "imagined beyond the remembered frames is bound to. Among those that observe the rank violation is "
            f"{told('mean_maximum_rank_violation', 3, observers)}, of a perfect simulator {told('rank_violation_by_chance', 3, observers)}."
        )
    points = [(a["agent"], Interval(**a["imagined"]["success"]), Interval(**a["real"]["success"])) for a in agents]
    return (
        "<section><h2>Does imagination rank agents as the engine does?</h2>"
        f"<p>Over {len(agents)} agents, Pearson's r of imagined and real success is {told('pearson', 2)}, Spearman's {told('spearman', 2)}. The mean "
        f"maximum rank violation, the success that a wrong choice between two agents costs, is {told('mean_maximum_rank_violation', 3)}; of a "
        f"perfect simulator as few starts would make it {told('rank_violation_by_chance', 3)}.{apart} On the diagonal, both agree.</p>"
        f"<div class='chart narrow'>{figures.agreement_chart(points, name='agreement')}</div></section>"
    )


def _flattered(comparison: Comparison) -> str:
    """The agents that do better in imagination than in the engine beyond doubt, with episodes in which it happened."""
    if not comparison.flattered:
        return ""
    gaps = {a["agent"]: Interval(**a["imagined_minus_real"]["success"]) for a in comparison.data["agents"]}
    parts = []
    for name, pairs in comparison.flattered.items():
        videos = "\n".join(_pair_video(real, imagined) for real, imagined in pairs)
        parts.append(
            f"<h3>{html.escape(name)}</h3><p>succeeds more often in imagination, by {gaps[name].text(percent=True)} of the starts.</p>"
            f"<div class='grid videos'>{videos}</div>"
        )
    return (
        "<section><h2>Whom imagination flatters</h2><p>From these starts the agent succeeded in imagination and not in the engine. Each side shows "
        f"its own episode: the agent acts on what it sees there.</p>{''.join(parts)}</section>"
    )


def _pair_video(real: Played, imagined: Played) -> str:
    """Two episodes from one start; the shorter one's last frame stands."""
    if real.frames is None or imagined.frames is None:
        raise ValueError("These episodes were played without keeping frames.")
    length = max(len(real.frames), len(imagined.frames))
    sides = [np.concatenate([f, np.repeat(f[-1:], length - len(f), axis=0)]) for f in (real.frames, imagined.frames)]
    return (
        "<figure><div class='labels'><span class='engine'>engine</span><span class='dream'>imagined</span></div>"
        f"<img class='pixels' alt='engine on the left, imagined on the right' src='{figures.video(sides[0], sides[1])}'>"
        f"<figcaption>start {real.start_index}: not reached in {real.steps} steps, imagined in {imagined.steps}</figcaption></figure>"
    )


def _drift(replay: dict[str, Any]) -> str:
    def line(name: str) -> list[Interval]:
        return [Interval(**point) for point in replay[name]]

    charts: list[figures.Chart] = [
        ("PSNR", "dB", {"imagined": ("dream", line("psnr_db"), "-"), "first frame kept": ("faint", line("still_psnr_db"), ":")}),
        ("SSIM", "", {"imagined": ("dream", line("ssim"), "-"), "first frame kept": ("faint", line("still_ssim"), ":")}),
        ("Position error", "blocks", {"imagined": ("dream", line("position_error_blocks"), "-")}),
        ("Heading error", "degrees", {"imagined": ("dream", line("yaw_error_degrees"), "-")}),
    ]
    x = np.arange(1, len(replay["psnr_db"]) + 1).tolist()
    picture = figures.line_charts(charts, x=x, xlabel="imagined steps", name="drift")
    astray = replay["first_astray"]
    when = f"half of them by step {astray['median_step']:.0f}" if astray["median_step"] is not None else "fewer than half of them"
    return (
        f"<section><h2>How far imagination drifts</h2><p>{replay['episodes']} engine episodes of {html.escape(replay['of'])}, imagined along "
        "the same actions, step by step against the truth. The dotted line is what a picture that never changes scores. The believed place was off "
        f"by more than {astray['blocks']:g} block in {replay['episodes'] - astray['never']} of them, {when}.</p>"
        f"<div class='chart'>{picture}</div></section>"
    )


def _learning(agents: Sequence[dict[str, Any]]) -> str:
    """Success while training, of the agents whose run folder has a curve."""
    from worldpack_agents.callbacks import read_curve

    lines: dict[str, tuple[str, list[Interval], str]] = {}
    steps: list[float] = []
    for agent, style in zip(agents, ("-", "--", ":", "-."), strict=False):
        points = [p for p in read_curve(Path(agent["source"]) / "curve.jsonl") if "success" in p]
        if len(points) > 1 and (not steps or len(points) <= len(steps)):
            steps = steps or [p["step"] / 1000 for p in points]
            lines[agent["agent"]] = ("dream", [Interval(100 * p["success"], 100 * p["success"], 100 * p["success"], 100) for p in points], style)
    if not lines:
        return ""
    picture = figures.line_charts(
        [("Success while learning", "% of the last 100 episodes", lines)], x=steps, xlabel="thousand env steps of training", name="learning"
    )
    return f"<section><h2>How it learned</h2><div class='chart narrow'>{picture}</div></section>"


def _made(told: Mapping[str, Any], data_file: str) -> str:
    rows = []
    for key, value in told.items():
        shown = value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
        rows.append(f"<tr><th>{html.escape(key)}</th><td><pre>{html.escape(shown)}</pre></td></tr>")
    return f"<table class='fine'>{''.join(rows)}</table><p class='note'>All numbers are in {html.escape(data_file)} beside this page.</p>"
