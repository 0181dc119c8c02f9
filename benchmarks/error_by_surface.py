"""Where is the error? Squared error of imagined frames by what their pixels show: how well the retrieved frames showed it, as the engine tells.

Ways home of held-out loops, poses given. The engine numbers the block faces that every frame shows; each pixel of a frame to imagine belongs to the
first of these classes that fits: sky; a face that is shown by a retrieved frame in the context's finest level, the next one, ...; by another given
frame; by none. Imagined frames that were retrieved count for nothing: what they show of a face is no truth.

``python benchmarks/error_by_surface.py > benchmarks/results/error_by_surface.json``
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence

import numpy as np
from held_out import held_out
from numpy.typing import NDArray

from worldpack_env.worlds import make_world
from worldpack_model import WorldPack
from worldpack_model.evaluation import Rollout, imagine, turning_point
from worldpack_model.metrics import bootstrap
from worldpack_model.provenance import provenance, weights_id

OTHERS = ("another given frame", "no given frame", "sky")


def classes_of(rollout: Rollout, faces: NDArray[np.int64], levels: Sequence[int]) -> NDArray[np.int64]:
    """``(n, H, W)`` class of each pixel of the imagined frames: 0 .. L - 1 a level of the packing, then ``OTHERS``.

    Args:
        rollout: of an episode.
        faces: ``(T, H, W)`` number of the face that each pixel of the episode's frames shows, -1 for sky.
        levels: retrieved frames of each of the L levels, the finest first.
    """
    begin = rollout.begin
    classes = np.full(rollout.frames.shape[:3], len(levels) + OTHERS.index("no given frame"))
    given = np.unique(faces[:begin])
    ends = np.cumsum(levels)
    for t, retrieved in enumerate(rollout.retrieved):
        shown = faces[begin + t]
        classes[t][np.isin(shown, given)] = len(levels) + OTHERS.index("another given frame")
        for level in reversed(range(len(levels))):
            frames = retrieved[ends[level] - levels[level] : ends[level]]
            classes[t][np.isin(shown, faces[frames[(frames >= 0) & (frames < begin)]])] = level
        classes[t][shown < 0] = len(levels) + OTHERS.index("sky")
    return classes


def decibels(error: float, pixels: float) -> float:
    """PSNR of a summed squared error, of values in [0, 1]."""
    return -10 * math.log10(error / pixels) if pixels and error else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tasks", nargs="+", default=["ABA-15", "ABA-50"])
    parser.add_argument("--episodes", type=int, default=16, help="held-out worlds for each task")
    options = parser.parse_args()
    model, world = WorldPack.from_pretrained(options.model), make_world("voxel")
    held = [level for level in model.config.packing.levels if level.retrieved]
    levels = [level.retrieved for level in held]
    names = [f"{level.retrieved} of 1/{level.kernel**2}" for level in held] + list(OTHERS)
    rows = []
    for task in options.tasks:
        episodes = held_out(task, options.episodes)
        faces = []
        for episode in episodes:
            world.reset(episode.seed)
            faces.append(np.stack([world.first_hits(pose)[1] for pose in episode.poses]))
        for count in options.evaluations:
            rollouts = imagine(model, episodes, [turning_point(e) for e in episodes], true_poses=True, evaluations=count)
            kinds = [classes_of(r, f, levels) for r, f in zip(rollouts, faces, strict=True)]
            squared = [[((made / 255.0 - r.truth / 255.0) ** 2).mean(-1) for made in (r.frames, r.ceiling)] for r in rollouts]
            for where in ("revisits", "elsewhere"):
                sums = np.zeros((len(episodes), len(names), 3))  # pixels, squared error, and the autoencoder's
                for i, r in enumerate(rollouts):
                    here = r.revisit if where == "revisits" else ~r.revisit
                    for k in range(len(names)):
                        some = (kinds[i] == k) & here[:, None, None]
                        sums[i, k] = [some.sum(), *(error[some].sum() for error in squared[i])]
                total = sums.sum(0)
                each = sums[sums[:, :, 0].sum(1) > 0]
                rows.append(
                    {
                        "task": task,
                        "evaluations": count,
                        "where": where,
                        "classes": {
                            name: {
                                "share_of_pixels": bootstrap(each[:, k, 0] / each[:, :, 0].sum(1)),
                                "share_of_squared_error": bootstrap(each[:, k, 1] / each[:, :, 1].sum(1)),
                                "psnr": decibels(total[k, 1], total[k, 0]),
                                "psnr_autoencoder": decibels(total[k, 2], total[k, 0]),
                            }
                            for k, name in enumerate(names)
                        },
                    }
                )
    report = {
        "what": "squared error of imagined frames by what their pixels show, and the best of what the context held of it",
        "worlds": options.episodes,
        "default": model.config.diffusion.evaluations,
        "interval": "95 %, bootstrap over worlds; PSNR of all pixels of a class together",
        "rows": rows,
        "weights": weights_id(options.model),
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
