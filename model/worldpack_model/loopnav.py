"""LoopNav's protocol on LoopNav's own files (arXiv 2505.22976): the way out is given, the way home is generated along the recorded poses.

The files are those of ``episodes.py``: AVI and JSON, in ``<type>/<site>/<range>/`` as they are released or ``<type>/<range>/<site>/`` as the released
evaluation scripts want them; what an episode is says its own record. Three things need care:

* **Time.** A record is one game tick in which the body moved or looked; ticks of standing still were never recorded. The model's step is several
  ticks (``ticks_per_step``), so every so many records are one step: keys held for most of them, the camera turned by as much as the pose says. Of our
  recordings at 5 frames a second each record is one step already.
* **Pictures.** They are 640 x 360 at a vertical field of view of 75 degrees. The middle is cut to the model's aspect and made smaller.
* **Alignment.** Frame ``t`` of the generated way home is compared with frame ``turn + t`` of the recording, to the last one. The released scripts
  differ: ``sgcs_eval.py`` aligns the last frames, which is the same, as all of the way home is generated; ``calcmetric.py`` compares the way home
  with the *first* frames of the file, which show the look-around and the way out. The latter is given as well, as ``first_frames``, since
  published SSIM and LPIPS may have been made so.

Legend: T records of an episode, k ticks of a step.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldpack_model.checkpoint import find_model, weights_digest, write_json
from worldpack_model.episodes import Episode, EpisodeError, fitted, in_env_steps, read_episode, read_records, site_of
from worldpack_model.evaluation import Rollout, imagine
from worldpack_model.geometry import TICKS_PER_STEP, VERTICAL_FOV
from worldpack_model.metrics import Metric, bootstrap, features, frechet_distance, lpips_metric, psnr, ssim
from worldpack_model.provenance import provenance
from worldpack_model.world_model import WorldPack

LOOPNAV_FOV = 75.0
"""Degrees; vertical field of view of LoopNav's own pictures."""


@dataclass(frozen=True)
class LoopNavConfig:
    """LoopNav's protocol on its own files: the way out is given, the way home is generated along the recorded poses."""

    data: Path
    """Folder of the benchmark's files."""
    suite: Literal["loopnav"] = "loopnav"
    """The benchmark."""
    split: Path | None = None
    """CSV file that lists the episodes to take (any column that names files); all are taken without one."""
    models: tuple[str, ...] = ("voxel-64",)
    """Shipped names or folders. Only a model trained on such pictures can be good at them; voxel-64 was not."""
    tasks: tuple[str, ...] = ("ABA", "ABCA")
    """ABA and ABCA."""
    ranges: tuple[int, ...] = (5, 15, 30, 50)
    """Ranges in blocks."""
    sites: tuple[str, ...] = ()
    """Sites to take, such as plains_village_20; all where none is named."""
    clips: int = 18
    """Episodes of each task and range, at most; the released evaluation has 18."""
    ticks_per_step: int = TICKS_PER_STEP
    """Game ticks that are one step of the model. LoopNav has a record for each; recordings of one for each step are read too."""
    evaluations: int | None = None
    """Network evaluations per step; none takes the model's default."""
    seed: int = 0
    """Seed of the sampler's noise."""
    lpips: bool = False
    """Also LPIPS (AlexNet); needs the `lpips` package and its weights."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path | None = None
    """JSON file to write."""

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name in ("clips", "ticks_per_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1.")


def find_episodes(root: Path, split: Path | None = None) -> list[Path]:
    """The records (``.json``) of all episodes under ``root``, or of those that the CSV file ``split`` names, in order of their names.

    Raises:
        EpisodeError: if there are none, or ``split`` names one that is not there.
    """
    if not root.is_dir():
        raise EpisodeError(f"There is no folder {root}.")
    paths = sorted(path for path in root.rglob("*.json") if path.with_suffix(".avi").is_file())
    if not paths:
        raise EpisodeError(f"{root} holds no pair of .json and .avi files.")
    if split is None:
        return paths
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, []).append(path)
    chosen = []
    for name in _names(split):
        *folders, stem = name.split("/")
        # the released tree and the one of the evaluation scripts have the same folders in different order
        here = [path for path in by_stem.get(stem, []) if set(folders) <= {root.name, *path.relative_to(root).parts}]
        if len(here) != 1:
            raise EpisodeError(f"{split} names {name!r}, which is {'not' if not here else 'more than once'} under {root}.")
        chosen.append(here[0])
    if not chosen:
        raise EpisodeError(f"{split} names no episodes (.avi or .json files).")
    return sorted(chosen)


def _names(split: Path) -> list[str]:
    """The episodes that a CSV file names: cells that end in .avi or .json, without that ending; each once."""
    try:
        with split.open(newline="", encoding="utf-8") as file:
            cells = [cell.strip() for row in csv.reader(file) for cell in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EpisodeError(f"{split} cannot be read as CSV ({error}).") from error
    return list(dict.fromkeys(cell.rpartition(".")[0].removeprefix("./") for cell in cells if cell.endswith((".avi", ".json"))))


def evaluate_loopnav(config: LoopNavConfig, progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> dict[str, Any]:
    """Runs the protocol; the returned dict is what ``out`` holds.

    Raises:
        EpisodeError: if there are no such episodes or one is damaged.
        CheckpointError: if there is no such model.
    """
    models = {name: WorldPack.from_pretrained(name, device=config.device) for name in config.models}
    sizes = {model.config.frame_size for model in models.values()}
    if len(sizes) != 1:
        raise ValueError(f"The models have frames of {sorted(sizes)}; compare models of one size at a time.")
    cells = _load(config, next(iter(sizes)), progress)
    metrics: dict[str, Metric] = {"psnr": psnr, "ssim": ssim} | ({"lpips": lpips_metric()} if config.lpips else {})
    judge = next(iter(models.values()))
    rows: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        rows[name] = {}
        for number, (cell, episodes) in enumerate(cells.items()):
            rollouts = imagine(
                model,
                episodes,
                [_turn(e) for e in episodes],
                seed=config.seed,
                evaluations=config.evaluations,
                true_poses=True,
            )
            rows[name][cell] = _scores(rollouts, episodes, metrics, judge)
            progress(f"rollouts of {name}", number + 1, len(cells))
    own = {e.site == site_of(e.world, e.seed) for episodes in cells.values() for e in episodes}
    fields = sorted(VERTICAL_FOV if recorded_here else LOOPNAV_FOV for recorded_here in own)
    report = {
        "what": "LoopNav: way out given, way home generated along recorded poses; first_frames: aligned as by calcmetric.py",
        "interval": "95 %, bootstrap over episodes",
        "ticks_per_step": config.ticks_per_step,
        "vertical_fov": {
            "data": fields[0] if len(fields) == 1 else fields,
            "models": {name: model.config.vertical_fov for name, model in models.items()},
        },
        "split": None if config.split is None else config.split.name,
        "models": rows,
        "weights_sha256": {name: weights_digest(find_model(name)) for name in models},
        "provenance": provenance(),
    }
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    return report


def _load(config: LoopNavConfig, size: tuple[int, int], progress: Callable[[str, int, int], None]) -> dict[str, list[Episode]]:
    """Episodes of each cell, such as ABA-15, at the model's size and steps; cells without any are left out."""
    cells: dict[str, list[Episode]] = {f"{task}-{reach}": [] for task in config.tasks for reach in config.ranges}
    paths = find_episodes(config.data, config.split)
    for number, path in enumerate(paths):
        progress("episodes read", number + 1, len(paths))
        extra = read_records(path)[0]["extra_info"]  # before any picture is decoded
        cell = cells.get(f"{extra.get('nvtype')}-{extra.get('nvrange')}")
        if cell is None or len(cell) >= config.clips or (config.sites and extra.get("location") not in config.sites):
            continue
        episode = in_env_steps(read_episode(path, picture=lambda frame: fitted(frame, size)), config.ticks_per_step)
        if not episode.turn_index:
            raise EpisodeError(f"{path} never turns home; it is no loop.")
        cell.append(episode)
    kept = {cell: episodes for cell, episodes in cells.items() if episodes}
    if not kept:
        raise EpisodeError(f"{config.data} holds no episodes of {', '.join(cells)}" + (f" at {', '.join(config.sites)}." if config.sites else "."))
    return kept


def _turn(episode: Episode) -> int:
    assert episode.turn_index is not None  # made sure of when it was read
    return episode.turn_index


def _scores(rollouts: Sequence[Rollout], episodes: Sequence[Episode], metrics: dict[str, Metric], judge: WorldPack) -> dict[str, Any]:
    first = [(r.frames[: len(e)], e.frames[: len(r.frames)]) for r, e in zip(rollouts, episodes, strict=True)]
    seen = [float(psnr(r.frames, r.truth)[r.revisit].mean()) if r.revisit.any() else np.nan for r in rollouts]
    frames = (np.concatenate([r.frames for r in rollouts]), np.concatenate([r.truth for r in rollouts]))
    return {
        "episodes": len(rollouts),
        "imagined_frames": len(frames[0]),
        **{name: bootstrap([float(metric(r.frames, r.truth).mean()) for r in rollouts]) for name, metric in metrics.items()},
        "psnr_revisit": bootstrap(seen),
        "psnr_autoencoder": bootstrap([float(psnr(r.ceiling, r.truth).mean()) for r in rollouts]),
        "frechet": frechet_distance(*(features(judge, part) for part in frames)),
        "first_frames": {name: bootstrap([float(metric(a, b).mean()) for a, b in first]) for name, metric in metrics.items()},
    }
