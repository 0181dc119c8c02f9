"""A thousand imagined steps: do pictures blow up or fade? Statistics of imagined frames by hundreds of steps, beside those of real ones.

An episode of free exploration gives its first frames; on it goes with random walking and turning, by the model's own motion.

``python benchmarks/thousand_steps.py > benchmarks/results/thousand_steps.json``
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from held_out import held_out

from worldpack_model import WorldPack
from worldpack_model.evaluation import strip
from worldpack_model.metrics import detail
from worldpack_model.provenance import provenance, weights_id


def statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers ``(n,)`` of each frame ``(n, H, W, 3)``: brightness, contrast and colourfulness in grey levels, and detail."""
    pixels = frames.astype(np.float64)
    return {
        "brightness": pixels.mean((1, 2, 3)),
        "contrast": pixels.mean(3).std((1, 2)),
        "colour": pixels.std(3).mean((1, 2)),
        "detail": detail(frames),
    }


def within(values: np.ndarray, real: np.ndarray) -> float:
    """Share of ``values`` between the first and the last percentile of the real ones (0.98 for real ones)."""
    low, high = np.percentile(real, [1, 99])
    return float(((values >= low) & (values <= high)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder")
    parser.add_argument("--worlds", type=int, default=16, help="held-out worlds")
    parser.add_argument("--given", type=int, default=17, help="real frames given")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pictures", type=Path, help="PNG to write: four of the rollouts")
    options = parser.parse_args()
    model, episodes = WorldPack.from_pretrained(options.model), held_out("explore", options.worlds)
    slots, given = list(range(len(episodes))), options.given
    memory = model.new_memory(len(slots))
    stack = [np.stack([part[:count] for part in parts]) for parts, count in (
        ([e.frames for e in episodes], given), ([e.poses for e in episodes], given), ([e.actions for e in episodes], given - 1))]  # fmt: skip
    model.remember(memory, slots, *stack)
    generators, rng = [torch.Generator().manual_seed(i) for i in slots], np.random.default_rng(0)
    turning, shown, lost = np.zeros(len(slots)), [], 0
    for step in range(options.steps):
        if step % 6 == 0:
            turning = rng.choice([-22.5, 0.0, 0.0, 22.5], len(slots)) * rng.integers(0, 2, len(slots))
        action = np.zeros((len(slots), 9), np.float32)
        action[:, 0], action[:, 8] = turning == 0, turning
        seen = model.predict(memory, slots, action, generators)
        lost += int((~seen.finite).sum())
        shown.append(seen.frames)
    frames = np.stack(shown, axis=1)
    real = statistics(np.concatenate([e.frames for e in episodes]))
    made = [statistics(part.reshape(-1, *part.shape[2:])) for part in np.array_split(frames, max(1, options.steps // 100), axis=1)]
    report = {
        "what": f"{options.steps} steps of random walking imagined by the model's own motion after {given} real frames; statistics of frames",
        "worlds": len(slots),
        "frames_not_finite": lost,
        "real": {name: {"percentiles_1_5_50_95_99": np.percentile(values, [1, 5, 50, 95, 99]).tolist()} for name, values in real.items()},
        "imagined_by_hundred_steps": {
            name: [{"median": float(np.median(part[name])), "within_real_1_to_99": within(part[name], real[name])} for part in made] for name in real
        },
        "weights": weights_id(options.model),
        "provenance": provenance(),
    }
    if options.pictures:
        cv2.imwrite(str(options.pictures), np.ascontiguousarray(strip(list(frames[:4]), 16)[..., ::-1]))
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
