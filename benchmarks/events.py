"""Do event heads tell what happens? Held-out worlds: true frames, the same through the autoencoder, and imagined ones where the true view was given.

Way home of loops and second halves of strolls (``worldpack record``), imagined along the true poses; what happens is the engine's word for those
poses, so of an imagined frame it can only be asked where the view was given before: elsewhere another tree may stand.

``python benchmarks/events.py > benchmarks/results/events.json``
"""

import argparse
import json
import sys
from collections.abc import Callable

import numpy as np
from held_out import held_out
from numpy.typing import NDArray

from worldpack_model import WorldPack
from worldpack_model.checkpoint import named_folder, read_manifest
from worldpack_model.episodes import happens
from worldpack_model.evaluation import imagine, turning_point
from worldpack_model.events import SHIPPED_HEADS, EventHeads
from worldpack_model.provenance import provenance, weights_id

SAMPLES = 1000
Told = list[tuple[NDArray[np.float64], NDArray[np.bool_]]]
"""For each episode the chances and the truth of its frames."""


def precision(chances: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    return float(truth[chances > 0.5].mean()) if (chances > 0.5).any() else float("nan")


def recall(chances: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    return float((chances > 0.5)[truth].mean()) if truth.any() else float("nan")


def average_precision(chances: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Mean, over the frames in which it happens, of the precision at a threshold that just finds the frame."""
    ranked = truth[np.argsort(-chances, kind="stable")]
    return float((ranked.cumsum() / np.arange(1, len(ranked) + 1))[ranked].mean()) if ranked.any() else float("nan")


def interval(measure: Callable[[NDArray[np.float64], NDArray[np.bool_]], float], told: Told) -> tuple[float, float, float]:
    """The measure over all frames, and its 95 % interval by a bootstrap over episodes (worlds)."""

    def of(rows: NDArray[np.int64]) -> float:
        return measure(np.concatenate([told[i][0] for i in rows]), np.concatenate([told[i][1] for i in rows]))

    rng = np.random.default_rng(0)
    samples = [of(rng.integers(len(told), size=len(told))) for _ in range(SAMPLES)]
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return of(np.arange(len(told))), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder")
    parser.add_argument("--heads", default="voxel", help="shipped name or folder")
    parser.add_argument("--loops", type=int, default=32)
    parser.add_argument("--strolls", type=int, default=160)
    options = parser.parse_args()
    model, heads = WorldPack.from_pretrained(options.model), EventHeads.from_pretrained(options.heads)
    episodes = held_out("ABA-15", options.loops) + held_out("stroll", options.strolls)
    begins = [turning_point(episode) for episode in episodes]
    views = imagine(model, episodes, begins, true_poses=True)
    rows = []
    for n, event in enumerate(heads.config.events):
        told: dict[str, Told] = {"true": [], "autoencoder": [], "imagined": []}
        for episode, begin, view in zip(episodes, begins, views, strict=True):
            assert episode.events is not None
            truth = np.array([happens(event, names) for names in episode.events[begin:]])
            for name, frames, where in (
                ("true", view.truth, slice(None)),
                ("autoencoder", view.ceiling, slice(None)),
                ("imagined", view.frames, view.revisit),
            ):
                told[name].append((heads.chances(frames)[:, n].astype(np.float64)[where], truth[where]))
        for name, parts in told.items():
            truth = np.concatenate([part for _, part in parts])
            rows.append(
                {
                    "event": event,
                    "frames": name,
                    "count": len(truth),
                    "happens": int(truth.sum()),
                    "precision": interval(precision, parts),
                    "recall": interval(recall, parts),
                    "average_precision": interval(average_precision, parts),
                }
            )
    report = {
        "what": "event heads on held-out worlds: way home of ABA-15 and second halves of strolls; imagined frames where the true view was given",
        "interval": "95 %, bootstrap over worlds",
        "episodes": {"ABA-15": options.loops, "stroll": options.strolls},
        "heads": options.heads,
        "heads_sha256": read_manifest(named_folder(options.heads, SHIPPED_HEADS, "set of event heads"))["files"]["heads.safetensors"],
        "weights": weights_id(options.model),
        "rows": rows,
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
