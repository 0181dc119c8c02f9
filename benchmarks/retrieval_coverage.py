"""How much of the view to predict the retrieved frames really show, by retrieval method. Prints JSON.

For frames on the way home of held-out loops, the engine tells the depth of every visible point; a point counts as shown if a retrieved real frame
has it in its picture with nothing before it. ``all`` is what all given frames together show, ``greedy`` the best choice if depths were known.
Run as ``python benchmarks/retrieval_coverage.py > benchmarks/results/retrieval_coverage.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldpack_env.recorder import RecordConfig, record
from worldpack_env.worlds import make_world
from worldpack_model.config import PackingConfig, RetrievalConfig
from worldpack_model.episodes import Episode
from worldpack_model.evaluation import turning_point
from worldpack_model.geometry import EYE_HEIGHT, VERTICAL_FOV, camera_rays, world_rays_torch
from worldpack_model.metrics import bootstrap
from worldpack_model.provenance import provenance
from worldpack_model.retrieval import retrieved_columns, select

COUNTS = (1, 4, 12)
"""Shown by the best so many retrieved frames."""
GRID = 24
"""Points along each side of the view."""


class Sight:
    """What an episode's frames see, from the engine's depths."""

    def __init__(self, episode: Episode, world: Any) -> None:
        world.reset(episode.seed)
        self.poses = torch.from_numpy(episode.poses)
        self.eyes = self.poses[:, :3] + torch.tensor([0.0, EYE_HEIGHT, 0.0], dtype=torch.float64)
        self.depth = torch.from_numpy(np.stack([world.first_hits(pose)[0] for pose in episode.poses]))
        self.rays = torch.from_numpy(camera_rays(GRID, GRID)).reshape(-1, 3)
        self.pixel = torch.from_numpy(np.linspace(0, self.depth.shape[1] - 1, GRID).round()).long()

    def shown(self, query: int, frames: range) -> torch.Tensor:
        """``(len(frames), points) bool``: which of the points that frame ``query`` sees are seen by each of ``frames``."""
        depth = self.depth[query][self.pixel][:, self.pixel].reshape(-1)
        solid = torch.isfinite(depth) & (depth < 80) & (depth > 0)
        points = self.eyes[query] + world_rays_torch(self.rays, self.poses[query][None])[solid] * depth[solid][:, None]
        half, side = np.tan(np.radians(VERTICAL_FOV) / 2), self.depth.shape[1]
        out = torch.zeros(len(frames), len(points), dtype=torch.bool)
        for i, frame in enumerate(frames):
            offset = points - self.eyes[frame]
            axes = world_rays_torch(torch.eye(3, dtype=torch.float64), self.poses[frame][None].expand(3, 5))
            right, up, ahead = (offset @ axis for axis in axes)
            x, y = right / ahead / half, up / ahead / half
            inside = (ahead > 0.1) & (x.abs() < 1) & (y.abs() < 1)
            column, row = (((c + 1) / 2 * side).nan_to_num(0.0).clamp(0, side - 1).long() for c in (x, -y))
            distance = offset.norm(dim=1)
            out[i] = inside & ((self.depth[frame][row, column] - distance).abs() < 0.06 * distance + 0.6)
        return out


def main(episodes: int = 16, every: int = 4, seed: int = 300) -> None:
    """Measures both methods on ABA loops of ranges 15 and 50.

    Args:
        episodes: loops of each range.
        every: look at every so many frames of the way home.
        seed: first held-out world.
    """
    world, packing, ranks = make_world("voxel"), PackingConfig(), retrieved_columns(PackingConfig())
    methods = {"score": RetrievalConfig(method="score"), "coverage": RetrievalConfig(method="coverage")}
    report: dict[str, Any] = {}
    for reach in (15, 50):
        rows: dict[str, list[list[float]]] = {name: [] for name in ("all", "greedy", *methods)}
        with tempfile.TemporaryDirectory() as folder:
            config = RecordConfig(out=Path(folder), episodes=episodes, split="test", seed=seed, mix={f"ABA-{reach}": 1.0})
            index = record(config, progress=False)
            for entry in index:
                sums: dict[str, list[list[float]]] = {name: [] for name in rows}
                episode = index.read(entry)
                sight, begin = Sight(episode, world), turning_point(episode)
                for query in range(begin + 1, len(episode), every):
                    shown = sight.shown(query, range(begin))
                    if not shown.shape[1]:
                        continue
                    sums["all"].append([float(shown.any(0).float().mean())] * len(COUNTS))
                    sums["greedy"].append(greedy(shown))
                    for name, retrieval in methods.items():
                        past = torch.arange(query)[None]
                        chosen = select(
                            packing, retrieval, query=sight.poses[query][None], poses=sight.poses[None, :query], steps=past, imagined=past >= begin
                        )
                        taken = [int(chosen.indices[0, r]) for r in ranks if chosen.used[0, r]]
                        real = [[i for i in taken[:n] if i < begin] for n in COUNTS]
                        sums[name].append([float(shown[some].any(0).float().mean()) if some else 0.0 for some in real])
                for name, values in sums.items():
                    rows[name].append(np.mean(values, axis=0).tolist())
        report[f"ABA-{reach}"] = {name: {str(n): bootstrap([r[k] for r in values]) for k, n in enumerate(COUNTS)} for name, values in rows.items()}
    json.dump({"shown": report, "episodes": episodes, "interval": "95 %, bootstrap over worlds", "provenance": provenance()}, sys.stdout, indent=2)


def greedy(shown: torch.Tensor) -> list[float]:
    """Share shown by the first ``COUNTS`` frames of the greedy best choice."""
    best, shares = torch.zeros(shown.shape[1], dtype=torch.bool), []
    for k in range(1, max(COUNTS) + 1):
        best = best | shown[int((shown & ~best).sum(1).argmax())]
        if k in COUNTS:
            shares.append(float(best.float().mean()))
    return shares


if __name__ == "__main__":
    tyro.cli(main)
