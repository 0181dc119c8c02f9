"""The ablation's table: distances and intervals against known answers, what it refuses, and a whole table of small models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from worldpack_model.ablation import AblateConfig, ablate, by_world, find_runs, interval
from worldpack_model.checkpoint import CheckpointError, save_model
from worldpack_model.config import PRESETS
from worldpack_model.episodes import EpisodeError
from worldpack_model.world_model import WorldPack


def test_interval_covers_seeds_as_well_as_episodes() -> None:
    table = np.array([[1.0, 1.0, 1.0, np.nan], [3.0, 3.0, 3.0, 3.0]])  # episodes agree, seeds do not
    mean, low, high = interval(table)
    assert mean == pytest.approx(np.nanmean(table))
    assert (low, high) == (1.0, 3.0)
    assert np.isnan(interval(np.full((2, 3), np.nan))).all()


def test_worlds_that_cells_share_are_no_more_worlds() -> None:
    """Eight cells of the same twelve worlds, all of whose variance belongs to the world: the interval is that of twelve numbers, not of 96."""
    rng = np.random.default_rng(0)
    worlds, covered, wide = list(range(100, 112)), 0, []
    for _ in range(60):
        cells = [np.tile(each, (3, 1)) for each in [rng.normal(size=12)] * 8]
        _, low, high = interval(by_world(cells, [worlds] * 8))
        covered += low <= 0 <= high
        wide.append((high - low) / np.subtract(*interval(np.concatenate(cells, axis=1))[:0:-1]))
    assert covered >= 48
    assert np.mean(wide) == pytest.approx(np.sqrt(8), rel=0.15)
    table = by_world([np.array([[1.0, 2.0]]), np.array([[5.0, np.nan]])], [[7, 8], [7, 9]])
    assert table.tolist()[0][:2] == [3.0, 2.0] and np.isnan(table[0, 2])


def make_runs(folder: Path, variants: tuple[str, ...] = ("worldpack", "recent"), seeds: int = 2) -> Path:
    for variant in variants:
        for seed in range(seeds):
            torch.manual_seed(seed)
            made = WorldPack(PRESETS["debug"].with_variant(variant)).eval()
            torch.nn.init.normal_(made.denoiser.out.weight, std=0.3 * (1 + seed))
            save_model(made, folder / f"{variant}-{seed}" / "model", {"variant": variant})
    return folder


def test_runs_are_found_in_order_and_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no VARIANT-SEED/model"):
        find_runs(tmp_path)
    folder = make_runs(tmp_path)
    assert list(find_runs(folder)) == ["recent", "worldpack"]
    (folder / "recent-1").rename(folder / "recent-7")
    with pytest.raises(CheckpointError, match="recent lacks seed 1|worldpack lacks seed 7"):
        find_runs(folder)


def test_a_whole_table(tmp_path: Path, episodes: Path) -> None:
    config = AblateConfig(ablate=make_runs(tmp_path / "runs"), tasks=("ABA",), ranges=(5,), episodes=3, device="cpu", out=tmp_path / "table.json")
    told: list[tuple[str, int, int]] = []
    report = ablate(config, {"ABA-5": episodes}, lambda *step: told.append(step))
    assert told[-1] == ("rollouts", 4, 4)
    assert json.loads(config.out.read_text())["seeds"] == ["0", "1"]  # type: ignore[union-attr]
    assert list(report["table"]) == ["recent", "worldpack"]
    cell = report["table"]["worldpack"]["ABA-5"]
    assert set(cell) == {"psnr", "ssim", "psnr_revisit", "psnr_revisit_ceiling", "frechet"}
    assert cell["psnr"][1] <= cell["psnr"][0] <= cell["psnr"][2]
    assert cell["frechet"][0] > 0
    step = report["steps_of_the_ladder"][0]
    assert (step["variant"], step["over"]) == ("worldpack", "recent")
    other = report["table"]["recent"]["ABA-5"]
    assert step["all_cells"][0] == pytest.approx(cell["psnr_revisit"][0] - other["psnr_revisit"][0], abs=1e-9)
    each = np.array(json.loads(config.out.read_text())["psnr_revisit_each"]["worldpack"]["ABA-5"], float)  # type: ignore[union-attr]
    assert each.shape == (2, 3) and np.nanmean(each) == pytest.approx(cell["psnr_revisit"][0], abs=1e-3)
    assert len(report["psnr_by_step"]["recent"]["ABA-5"]) == 24 - 13, "frames 13 to 23 are imagined"
    assert ablate(config, {"ABA-5": episodes})["table"] == report["table"]


def test_all_contexts_can_be_compared_with_one(tmp_path: Path, episodes: Path) -> None:
    runs = make_runs(tmp_path / "runs", ("worldpack", "retrieval", "graded"), seeds=1)
    config = AblateConfig(ablate=runs, tasks=("ABA",), ranges=(5,), episodes=2, device="cpu")
    both = (config, replace(config, against="retrieval"))
    pairs = [[(step["over"], step["variant"]) for step in ablate(c, {"ABA-5": episodes})["steps_of_the_ladder"]] for c in both]
    assert pairs == [[("retrieval", "worldpack"), ("worldpack", "graded")], [("retrieval", "worldpack"), ("retrieval", "graded")]]
    with pytest.raises(CheckpointError, match="holds no recent to compare with, but retrieval, worldpack, graded"):
        ablate(replace(config, against="recent"), {"ABA-5": episodes})


def test_it_refuses_missing_episodes(tmp_path: Path, episodes: Path) -> None:
    config = AblateConfig(ablate=make_runs(tmp_path / "runs", seeds=1), tasks=("ABA",), ranges=(5, 15), device="cpu")
    with pytest.raises(EpisodeError, match="No episodes of ABA-15"):
        ablate(config, {"ABA-5": episodes})
    with pytest.raises(EpisodeError, match="holds no ABA-15"):
        ablate(config, {"ABA-5": episodes, "ABA-15": episodes})
