"""Are imagined bodies stopped as often as real ones? Agents that learn nothing walk from the same held-out starts in both.

``python benchmarks/stops.py > benchmarks/results/stops.json``

A stop is a row of steps that want to walk ahead and get less than 0.2 blocks far. A simulator that stops bodies too seldom makes careless agents.
"""

import argparse
import json
import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from worldpack_agents.baselines import open_policy
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.rollouts import Played, open_rollout, play
from worldpack_model.provenance import provenance, weights_id

POLICIES = ("compass", "compass:0.3", "compass:0.8", "oracle")
SLOW = 0.2
"""Blocks; an env step on open ground takes a body 0.86 far."""
RESAMPLES = 2000


def stops(episode: Played) -> list[int]:
    """Env steps of each stop of an episode."""
    moved = np.hypot(*np.diff(episode.poses[:, [0, 2]], axis=0).T)
    found, running = [], 0
    for far, ahead in zip(moved, episode.actions[:, 0] > 0, strict=True):
        if ahead and far < SLOW:
            running += 1
        elif ahead and running:  # a turn does not end a stop
            found.append(running)
            running = 0
    return found + [running] * (running > 0)


def rate(counts: NDArray[np.float64], walked: NDArray[np.float64]) -> dict[str, float]:
    """Counts for every 10 blocks walked, with a 95 % interval from a bootstrap over episodes."""
    drawn = np.random.default_rng(61).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(10 * counts[drawn].sum(1) / walked[drawn].sum(1), [0.025, 0.975])
    return {"mean": float(10 * counts.sum() / walked.sum()), "low": float(low), "high": float(high), "count": len(counts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["voxel-64", "voxel-64-recent"], help="shipped names or folders")
    parser.add_argument("--motion", default="drawn", choices=("drawn", "likeliest"))
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--nav-range", type=int, default=15)
    parser.add_argument("--episodes", type=int, default=60)
    options = parser.parse_args()
    env = EnvConfig(task="GoTo", nav_range=options.nav_range, split=options.split, num_starts=options.episodes, motion=options.motion)
    lines = []
    for model in (None, *options.models):
        place = env if model is None else replace(env, model=model)
        rollout, actions = open_rollout(place, "real" if model is None else "imagined", 16)
        for name in POLICIES:
            episodes = play(rollout, actions, open_policy(name, actions), range(options.episodes))
            found = [stops(episode) for episode in episodes]
            walked = np.array([episode.path_length for episode in episodes])
            lines.append(
                {
                    "in": "the engine" if model is None else model,
                    "policy": name,
                    "stops_per_10_blocks": rate(np.array([len(s) for s in found], np.float64), walked),
                    "success": float(np.mean([episode.success for episode in episodes])),
                    "median_steps_of_a_stop": float(np.median(np.concatenate(found))) if sum(map(len, found)) else None,
                }
            )
            print(lines[-1], file=sys.stderr)
        rollout.close()
    report = {
        "task": f"GoTo-{options.nav_range}, {options.split} worlds",
        "motion": options.motion,
        "lines": lines,
        "interval": "95 %, bootstrap over starts",
        "weights": {model: weights_id(model) for model in options.models},
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
