"""Studies: the same training under several conditions and seeds, judged in the engine, with intervals.

A study is a TOML file::

    title = "Does a memory help agents?"
    question = "..."                     # a sentence or two for the report
    against = "recent"                   # the condition that others are compared with
    seeds = [0, 1, 2]

    [base]                               # settings of train-agent, as its flags are called, dots between groups
    "env.task" = "LoopNav"
    total_steps = 30000

    [conditions.worldpack]               # what differs
    "env.model" = "voxel-64"
    [conditions.recent]
    "env.model" = "voxel-64-recent"

    [evaluate]                           # settings of eval-agent
    episodes = 60

    [smoke]                              # what --smoke changes in base and evaluate
    total_steps = 512

Each cell (a condition with a seed) is a run folder of train-agent and a JSON file of eval-agent, so a study that was stopped goes on where it was.
Cells run one after the other, or on a Ray cluster with ``--ray``.

Scores are aggregated as Agarwal et al. 2021 (arXiv:2108.13264) advise: the inter-quartile mean over all episodes' scores of all seeds, with an
interval from a bootstrap over seeds and episodes.
"""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, get_type_hints

import numpy as np
import tomllib
import tyro
from numpy.typing import ArrayLike, NDArray

from worldpack_agents.callbacks import read_curve
from worldpack_agents.eval_callback import FILE
from worldpack_agents.evaluate import EvalAgentConfig, evaluate_agent
from worldpack_agents.intervals import RESAMPLES, Interval
from worldpack_agents.train import TrainAgentConfig, train_agent
from worldpack_model.checkpoint import CheckpointError, write_json
from worldpack_model.config import convert
from worldpack_model.provenance import provenance, weights_id

log = logging.getLogger(__name__)

SHIPPED: Final = Path(__file__).with_name("studies")
LEVELS: Final = (0.5, 0.8)
"""Success in the evaluations of a training whose first time is reported."""
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StudyConfig:
    """Trains and judges agents under several conditions; run the same command again to continue."""

    study: tyro.conf.Positional[str]
    """Name of a shipped study, or a TOML file."""
    out: Path | None = None
    """Folder of the study; none takes runs/study-NAME."""
    seeds: tuple[int, ...] = ()
    """Seeds to train with instead of the study's."""
    smoke: bool = False
    """The small version, which shows that everything works and nothing else."""
    ray: bool = False
    """Run the cells on the Ray cluster that RAY_ADDRESS names, or on one that is started here; needs worldpack-env[ray]."""
    change: tuple[str, ...] = ()
    """Settings of every condition's training to change, as in the file: total_steps=49152 in='"real"' policy.hidden=64."""


@dataclass(frozen=True)
class Study:
    """What a study's file says."""

    name: str
    title: str
    question: str
    against: str
    seeds: tuple[int, ...]
    base: Mapping[str, Any]
    conditions: Mapping[str, Mapping[str, Any]]
    evaluate: Mapping[str, Any]


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def read_study(source: str, *, smoke: bool = False, change: Sequence[str] = ()) -> Study:
    """Reads a study by the name of a shipped one, or from a file; ``change`` holds entries of its base to change, ``KEY=VALUE`` in TOML.

    Raises:
        ValueError: if there is none, or it is not understood; the message says what is wrong.
    """
    path = SHIPPED / f"{source}.toml" if source in shipped_studies() else Path(source)
    if not path.is_file():
        raise ValueError(f"There is no study {source!r}; shipped ones: {', '.join(shipped_studies())}, or give a TOML file.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    known = {"title", "question", "against", "seeds", "base", "conditions", "evaluate", "smoke"}
    odd, lacking = sorted(data.keys() - known), sorted({"title", "conditions", "seeds"} - data.keys())
    if lacking:
        raise ValueError(f"{path} has no {', '.join(lacking)}.")
    if odd:
        raise ValueError(f"{path} has unknown entries {', '.join(odd)}; known: {', '.join(sorted(known))}.")
    conditions = data["conditions"]
    if len(conditions) < 2:
        raise ValueError(f"{path} has {len(conditions)} conditions, a study compares at least two.")
    against = data.get("against", next(iter(conditions)))
    if against not in conditions:
        raise ValueError(f"{path} compares against {against!r}, which is none of its conditions {', '.join(conditions)}.")
    base, evaluate, small = dict(data.get("base", {})), dict(data.get("evaluate", {})), data.get("smoke", {}) if smoke else {}
    for key, value in small.items():
        (evaluate if key in {f.name for f in fields(EvalAgentConfig)} - {f.name for f in fields(TrainAgentConfig)} else base)[key] = value
    for entry in change:
        key, _, value = entry.partition("=")
        own = [name for name, settings in conditions.items() if key.strip() in settings]
        if own:
            raise ValueError(f"change {entry!r} would change nothing: {', '.join(own)} set {key.strip()} themselves; write a study of your own.")
        try:
            base[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"change {entry!r} is not KEY=VALUE with a TOML value, such as total_steps=1024 or in='\"real\"': {error}.") from None
    seeds = tuple(int(seed) for seed in data["seeds"])
    study = Study(path.stem, data["title"], data.get("question", ""), against, seeds[:1] if smoke else seeds, base, conditions, evaluate)
    for name in conditions:  # what is wrong shows before anything is trained
        judge_config(study, train_config(study, name, 0, Path("unused")))
    return study


def folder_of(config: StudyConfig) -> Path:
    """Where a study's runs and report are."""
    return config.out or Path("runs") / f"study-{Path(config.study).stem}{'-smoke' if config.smoke else ''}"


def train_config(study: Study, condition: str, seed: int, out: Path) -> TrainAgentConfig:
    """The training of one cell.

    Raises:
        ValueError: if a setting is unknown or out of bounds.
    """
    config = TrainAgentConfig(out=out, seed=seed, progress=False)
    for key, value in {**study.base, **study.conditions[condition]}.items():
        config = _with(config, key.split("."), value, f"study {study.name}, condition {condition}: {key}")
    return config


def judge_config(study: Study, trained: TrainAgentConfig) -> EvalAgentConfig:
    """How the agent of a training is judged.

    Raises:
        ValueError: if a setting is unknown or out of bounds.
    """
    judge = EvalAgentConfig(agent=str(trained.out), env=trained.env.with_split("test"))
    for key, value in study.evaluate.items():
        judge = _with(judge, key.split("."), value, f"study {study.name}, evaluate: {key}")
    return judge


def _with(config: Any, path: Sequence[str], value: Any, what: str) -> Any:
    """A copy of a nest of dataclasses with one entry changed."""
    name, rest = ("where" if path[0] == "in" else path[0]), path[1:]
    known = [f.name for f in fields(config)]
    if name not in known:
        raise ValueError(f"{what}: there is no setting {name!r}; known: {', '.join(known)}.")
    old = getattr(config, name)
    if rest:
        if not is_dataclass(old):
            raise ValueError(f"{what}: {name!r} has no settings of its own.")
        return replace(config, **{name: _with(old, rest, value, what)})
    if is_dataclass(old) and isinstance(value, dict):
        for key, entry in value.items():
            old = _with(old, key.split("."), entry, f"{what}.{key}")
        return replace(config, **{name: old})
    return replace(config, **{name: convert(get_type_hints(type(config))[name], value, what)})


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all ``scores``; a quarter of the weight is cut from either end, also where that splits an entry."""
    values = np.sort(np.asarray(scores, np.float64), axis=None)
    if not len(values):
        raise ValueError("An inter-quartile mean needs at least one score.")
    n = len(values)
    # share of each entry that lies within the middle half
    weight = np.clip(np.minimum(np.arange(1, n + 1), 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0, None)
    return float((weight * values).sum() / weight.sum())


def aggregate(scores: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Mean and inter-quartile mean of ``scores (S, E)`` of seeds and episodes, with 95 % intervals from a bootstrap over both."""
    rng = np.random.default_rng([seed, 47])
    drawn = [_resample(scores, rng) for _ in range(resamples)]
    result = {}
    for name, measure in (("mean", np.mean), ("iqm", interquartile_mean)):
        low, high = np.quantile([measure(s) for s in drawn], [0.025, 0.975])
        result[name] = asdict(Interval(float(measure(scores)), float(low), float(high), scores.size))
    return result


def difference(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Mean of ``first (S, E)`` less that of ``second (S', E)``, the same starts in both: seeds are drawn apart, episodes together."""
    means = _paired_means(first, second, seed, resamples)
    low, high = np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975])
    return asdict(Interval(float(first.mean() - second.mean()), float(low), float(high), first.shape[1]))


def ratio(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any] | None:
    """Mean of ``first`` over that of ``second``, drawn as in :func:`difference`; None where the second's may be 0."""
    means = _paired_means(first, second, seed, resamples)
    if means[:, 1].min() <= 0:
        return None
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    return asdict(Interval(float(first.mean() / second.mean()), float(low), float(high), first.shape[1]))


def _paired_means(first: NDArray[np.float64], second: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, 53])
    values = []
    for _ in range(resamples):
        episodes = rng.integers(first.shape[1], size=first.shape[1])
        values.append([s[rng.integers(len(s), size=len(s))][:, episodes].mean() for s in (first, second)])
    return np.array(values)


def _resample(scores: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    seeds, episodes = scores.shape
    drawn: NDArray[np.float64] = scores[rng.integers(seeds, size=seeds)][:, rng.integers(episodes, size=episodes)]
    return drawn


def run_cell(study: Study, condition: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and judges one agent, or reads what is there; the returned dict is what the cell's JSON file holds."""
    run, file = folder / f"{condition}-{seed}", folder / f"{condition}-{seed}.json"
    config = train_config(study, condition, seed, run)
    trained = train_agent(config)
    if not trained.finished:
        raise KeyboardInterrupt
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text())
        if found["steps"] == trained.steps and found["judged"] == dict(study.evaluate):
            return found
    result = evaluate_agent(judge_config(study, config))
    cell = {
        "condition": condition,
        "seed": seed,
        "steps": trained.steps,
        "judged": dict(study.evaluate),
        "weights": weights_id(config.env.model) if config.where == "imagined" else None,
        "success": [float(e["success"]) for e in result["episodes_played"]],
        **({"spl": [e["spl"] for e in result["episodes_played"]]} if "spl" in result else {}),
        "evaluations": read_curve(run / FILE),
    }
    write_json(file, cell)
    return cell


def run_study(config: StudyConfig, tell: Tell = lambda what, done, total: None) -> dict[str, Any]:
    """Runs (or continues) a study and writes ``study.json`` and ``study.html`` into its folder.

    Raises:
        ValueError: if the study is not understood, or ray is asked for and missing.
        CheckpointError: if the folder holds another study.
    """
    from worldpack_agents.study_report import write_study_report

    study = read_study(config.study, smoke=config.smoke, change=config.change)
    if config.seeds:
        study = replace(study, seeds=config.seeds)
    folder = folder_of(config)
    _claim(study, folder)
    study = replace(study, seeds=tuple(sorted({*study.seeds, *_finished(study, folder)})))
    todo = [(condition, seed) for seed in study.seeds for condition in study.conditions]
    cells = _on_ray(study, todo, folder, tell) if config.ray else _here(study, todo, folder, tell)
    tables = {
        name: {condition: np.array([cell[name] for cell in cells if cell["condition"] == condition]) for condition in study.conditions}
        for name in ("success", *(("spl",) if all("spl" in cell for cell in cells) else ()))
    }
    others = [condition for condition in study.conditions if condition != study.against]
    report = {
        "study": asdict(study),
        "smoke": config.smoke,
        "conditions": {c: {name: aggregate(table[c]) for name, table in tables.items()} for c in study.conditions},
        "differences": [
            {
                "condition": c,
                "over": study.against,
                "success_ratio": ratio(tables["success"][c], tables["success"][study.against]),
                **{name: difference(table[c], table[study.against]) for name, table in tables.items()},
            }
            for c in others
        ],
        "steps_to": [
            {
                "success": level,
                "steps": {c: [steps_to(cell["evaluations"], level) for cell in cells if cell["condition"] == c] for c in study.conditions},
            }
            for level in LEVELS
        ],
        "cells": cells,
        "interval": "95 %, bootstrap over seeds and episodes",
        "provenance": provenance(),
    }
    write_json(folder / "study.json", report)
    write_study_report(report, folder / "study.html")
    return report


def _claim(study: Study, folder: Path) -> None:
    """A folder belongs to one study, whatever seeds were asked for."""
    # how agents are judged may change: those that were judged otherwise are judged anew
    path, mine = folder / "plan.json", {k: v for k, v in asdict(study).items() if k not in ("seeds", "title", "question", "evaluate")}
    old = {k: v for k, v in json.loads(path.read_text()).items() if k != "evaluate"} if path.is_file() else None
    if old is not None and old != json.loads(json.dumps(mine)):
        raise CheckpointError(f"{folder} holds another study, or this one before it was changed; choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, mine)


def _finished(study: Study, folder: Path) -> set[int]:
    """Seeds that the folder holds of all conditions: they stay part of the study when others are added."""
    found: list[set[int]] = []
    for condition in study.conditions:
        names = (file.stem.removeprefix(f"{condition}-") for file in folder.glob(f"{glob.escape(condition)}-*.json"))
        found.append({int(name) for name in names if name.isdecimal()})
    return set.intersection(*found) if found else set()


def _here(study: Study, todo: Sequence[tuple[str, int]], folder: Path, tell: Tell) -> list[dict[str, Any]]:
    cells = []
    for number, (condition, seed) in enumerate(todo):
        tell(f"{condition}, seed {seed}", number, len(todo))
        cells.append(run_cell(study, condition, seed, folder))
    tell("done", len(todo), len(todo))
    return cells


def _on_ray(study: Study, todo: Sequence[tuple[str, int]], folder: Path, tell: Tell) -> list[dict[str, Any]]:
    """All cells at once, as far as the cluster has room; the folder must be on a file system that all of its machines share."""
    try:
        import ray
    except ImportError as error:
        raise ValueError("--ray needs Ray, which is not installed; run: pip install 'worldpack-env[ray]'.") from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False)
    try:
        cell = ray.remote(num_cpus=1)(run_cell)
        waiting = {cell.remote(study, condition, seed, folder.resolve()): i for i, (condition, seed) in enumerate(todo)}
        done: dict[int, dict[str, Any]] = {}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            done[waiting.pop(ready)] = ray.get(ready)
            tell("cells", len(done), len(todo))
    finally:
        if started:
            ray.shutdown()
    return [done[i] for i in range(len(todo))]


def steps_to(evaluations: Sequence[Mapping[str, Any]], success: float, *, where: str = "real") -> int | None:
    """Env steps at which an agent's evaluations first reached a success, None if they never did."""
    return next((int(line["step"]) for line in evaluations if line["in"] == where and line["success"]["mean"] >= success), None)
