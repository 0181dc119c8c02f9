"""Do walls stay walls when a body comes up to them? PSNR of imagined frames along the way to a wall, and of those that show it from nearby.

``compass``, which sees nothing, walks in the engine from held-out starts; the episodes that end with it standing at a wall are imagined along its
true poses, up to eight steps after it was stopped for good.

``python benchmarks/walls.py --pictures docs/images/walls.png > benchmarks/results/walls.json``
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from worldpack_agents.baselines import open_policy
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.rollouts import open_rollout, play
from worldpack_model import WorldPack
from worldpack_model.evaluation import strip
from worldpack_model.metrics import bootstrap, detail, psnr
from worldpack_model.provenance import provenance, weights_id

NEAR = 0.6
"""Blocks over ground from where it stands at last; steps in a row that near are its stay at the wall."""
STAY = 8
"""Steps of its stay that are imagined, and the fewest that make one."""
COLUMNS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["voxel-64", "voxel-64-recent"], help="shipped names or folders")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--starts", type=int, default=120)
    parser.add_argument("--pictures", type=Path, help="PNG to write: four ways to a wall, true above imagined, first model")
    options = parser.parse_args()
    env = EnvConfig(task="GoTo", nav_range=15, split=options.split, num_starts=options.starts)
    rollout, actions = open_rollout(env, "real", 16)
    ways = []
    for i, episode in enumerate(play(rollout, actions, open_policy("compass", actions), range(options.starts), keep_frames=options.starts)):
        there = np.hypot(*(episode.poses - episode.poses[-1])[:, [0, 2]].T) < NEAR
        stopped = len(there) - int(np.argmin(there[::-1])) if not there.all() else 0  # first step of the stay
        if not episode.success and stopped > 0 and len(there) - stopped >= STAY:
            last = stopped + STAY
            ways.append((rollout.bank[i], episode.poses[:last], episode.actions[: last - 1], episode.frames[:last]))
    rollout.close()
    rows = []
    for name in options.models:
        model = WorldPack.from_pretrained(name)
        shown = []
        for i, (start, poses, acts, frames) in enumerate(ways):
            memory, generators = model.new_memory(1), [torch.Generator().manual_seed(i)]
            model.remember(memory, [0], start.frames[None], start.poses[None], start.actions[None])
            made = [model.predict(memory, [0], act[None], generators, poses=pose[None]).frames[0] for act, pose in zip(acts, poses[1:], strict=True)]
            shown.append(np.stack([frames[0], *made]))
        truth = [frames for *_, frames in ways]
        score = [psnr(t[1:], s[1:]) for t, s in zip(truth, shown, strict=True)]
        ceiling = [psnr(t[1:], model.decode(model.encode(np.asarray(t[1:])))) for t in truth]
        rows.append(
            {
                "model": name,
                "weights": weights_id(name),
                "psnr_on_the_way": bootstrap(np.array([s[:-STAY].mean() for s in score])),
                "psnr_at_the_wall": bootstrap(np.array([s[-STAY:].mean() for s in score])),
                "psnr_autoencoder_at_the_wall": bootstrap(np.array([s[-STAY:].mean() for s in ceiling])),
                "detail_at_the_wall": bootstrap(np.array([detail(s[-STAY:]).mean() for s in shown])),
                "detail_true_at_the_wall": bootstrap(np.array([detail(t[-STAY:]).mean() for t in truth])),
            }
        )
        if name == options.models[0] and options.pictures:
            some = [part for way in zip(truth[:4], shown[:4], strict=True) for part in way]
            cv2.imwrite(str(options.pictures), cv2.cvtColor(strip(some, COLUMNS), cv2.COLOR_RGB2BGR))
    report = {
        "what": "compass in the engine, GoTo-15; the episodes in which a wall stops it for good, imagined along its true poses",
        "split": options.split,
        "starts": options.starts,
        "ways": len(ways),
        "models": rows,
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
