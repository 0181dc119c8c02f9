"""study.html: what a study found, on one page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from worldpack_agents import figures
from worldpack_agents.intervals import Interval
from worldpack_agents.report import cell, table, write_page

_COLOURS: Final = ("dream", "engine", "third", "ink")
_STYLES: Final = ("-", "--", ":", "-.")


def study_heads(report: dict[str, Any]) -> list[str]:
    """The heads of the columns of :func:`study_rows`."""
    against = report["study"]["against"]
    paths = ["SPL", "SPL, inter-quartile mean"] if _has_paths(report) else []
    return ["condition", "success", *paths, f"success less {against}'s", f"success / {against}'s"]


def _has_paths(report: dict[str, Any]) -> bool:
    """Whether its task has a shortest way, so that there is an SPL."""
    return all("spl" in found for found in report["conditions"].values())


def study_rows(report: dict[str, Any]) -> list[list[str]]:
    """The findings as text, under :func:`study_heads`."""
    over = {d["condition"]: Interval(**d["success"]).text(percent=True) for d in report["differences"]}
    of = {d["condition"]: Interval(**d["success_ratio"]).text() for d in report["differences"] if d["success_ratio"]}
    return [
        [
            name,
            Interval(**found["success"]["mean"]).text(percent=True),
            *([Interval(**found["spl"][kind]).text() for kind in ("mean", "iqm")] if _has_paths(report) else []),
            over.get(name, ""),
            of.get(name, ""),
        ]
        for name, found in report["conditions"].items()
    ]


def write_study_report(report: dict[str, Any], path: Path) -> None:
    """Writes the page."""
    study = report["study"]
    conditions = report["conditions"]
    charts = [("Success in the engine", [(c, Interval(**v["success"]["mean"])) for c, v in conditions.items()])]
    if _has_paths(report):
        charts.append(("SPL, inter-quartile mean", [(c, Interval(**v["spl"]["iqm"])) for c, v in conditions.items()]))
    heads = [html.escape(head) for head in study_heads(report)]
    rows = [f"<th>{html.escape(name)}</th>" + "".join(cell(text) if text else "<td></td>" for text in texts) for name, *texts in study_rows(report)]
    small = "<p><b>This is the small version, which shows that everything works and nothing else.</b></p>" if report["smoke"] else ""
    picture = figures.condition_chart(charts, name="found", percent=[True, False][: len(charts)])
    body = [
        small,
        f"<section><h2>In the engine, on held-out worlds</h2><div class='chart'>{picture}</div>{table(heads, rows)}</section>",
        _learning(report),
        _profile(report) if _has_paths(report) else "",
    ]
    episodes, seeds = len(report["cells"][0]["success"]), len(study["seeds"])
    lead = f"{html.escape(study['question'])} {seeds} seed{'s' if seeds > 1 else ''} of each condition, {episodes} held-out starts each."
    made = {"study": study, "intervals": report["interval"], **report["provenance"]}
    write_page(path, title=study["title"], lead=lead, body="\n".join(body), made=made, data_file="study.json")


def _learning(report: dict[str, Any]) -> str:
    """Success in the evaluations of the training: mean over seeds, and the range from the least to the greatest seed."""
    lines: dict[str, figures.Line] = {}
    steps: list[float] = []
    for number, name in enumerate(report["conditions"]):
        runs = [[e for e in c["evaluations"] if e["in"] == "real"] for c in report["cells"] if c["condition"] == name]
        shared = min((len(run) for run in runs), default=0)
        if shared < 2:
            continue
        scores = np.array([[100 * e["success"]["mean"] for e in run[:shared]] for run in runs])
        values = [Interval(float(v.mean()), float(v.min()), float(v.max()), len(v)) for v in scores.T]
        lines[name] = (_COLOURS[number % 4], values, _STYLES[number // 4 % 4])
        steps = max(steps, [e["step"] / 1000 for e in runs[0][:shared]], key=len)
    if not lines:
        return ""
    chart = ("Success while learning", "% of validation episodes in the engine", lines)
    picture = figures.line_charts([chart], x=steps, xlabel="thousand env steps of training", name="learning")
    told = "Bands reach from the least to the greatest seed."
    heads = ["first evaluation with success of at least", *(html.escape(name) for name in report["conditions"])]
    rows = []
    for reached in report["steps_to"]:
        found = [", ".join("never" if at is None else f"{at:,}" for at in reached["steps"][name]) for name in report["conditions"]]
        rows.append(f"<th>{100 * reached['success']:.0f} %</th>" + "".join(f"<td>{text}</td>" for text in found))
    reached_at = f"<p>Env steps of training, seed by seed:</p>{table(heads, rows)}"
    return f"<section><h2>How they learned</h2><p>{told}</p><div class='chart narrow'>{picture}</div>{reached_at}</section>"


def _profile(report: dict[str, Any]) -> str:
    """Performance profiles (Dolan & Moré 2002): the share of episodes whose SPL is above a threshold."""
    thresholds = np.linspace(0, 1, 41)

    def share(values: Sequence[float]) -> list[Interval]:
        above = [float((np.asarray(values) > t).mean()) for t in thresholds]
        return [Interval(a, a, a, len(values)) for a in above]

    lines: dict[str, figures.Line] = {}
    for number, name in enumerate(report["conditions"]):
        scores = [score for c in report["cells"] if c["condition"] == name for score in c["spl"]]
        lines[name] = (_COLOURS[number % 4], share(scores), _STYLES[number // 4 % 4])
    picture = figures.line_charts([("Performance profile", "share of episodes above", lines)], x=thresholds.tolist(), xlabel="SPL", name="profile")
    return f"<section><h2>Not only the mean</h2><div class='chart narrow'>{picture}</div></section>"
