"""Does what the model invented stay? One real frame is given, the rest of the horizon is invented, and the body turns in place, three times around.

PSNR between the frames of one turn and the next, direction by direction, in held-out worlds. No truth is compared with: nobody gave it any.

``python benchmarks/persistence.py --pictures docs/images/turns.png > benchmarks/results/persistence.json``
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from worldpack_env.recorder import RecordConfig, record
from worldpack_model import WorldPack
from worldpack_model.episodes import EpisodeIndex
from worldpack_model.evaluation import strip
from worldpack_model.geometry import ACTION_DIM, DYAW
from worldpack_model.metrics import bootstrap, detail, psnr
from worldpack_model.provenance import provenance, weights_id

STEPS, TURNS = 16, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["voxel-64", "voxel-64-recent"], help="shipped names or folders")
    parser.add_argument("--worlds", type=int, default=32, help="held-out worlds")
    parser.add_argument("--pictures", type=Path, help="PNG to write: the turns in three worlds, first model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record(RecordConfig(out=Path(folder), episodes=options.worlds, split="test", mix={"ABA-5": 1.0}), progress=False)
        index = EpisodeIndex.open(Path(folder))
        episodes = [index.read(entry) for entry in index]
    action = np.zeros((len(episodes), ACTION_DIM), np.float32)
    action[:, DYAW] = 360 / STEPS
    rows = []
    for name in options.models:
        model = WorldPack.from_pretrained(name)
        memory, slots = model.new_memory(len(episodes)), list(range(len(episodes)))
        generators = [torch.Generator().manual_seed(i) for i in slots]
        model.remember(memory, slots, np.stack([e.frames[:1] for e in episodes]), np.stack([e.poses[:1] for e in episodes]))
        shown = [model.predict(memory, slots, action, generators).frames for _ in range(STEPS * TURNS)]
        turns = np.stack(shown, axis=1).reshape(len(episodes), TURNS, STEPS, *shown[0].shape[1:])
        again = psnr(turns[:, :-1], turns[:, 1:])  # (worlds, turns - 1, steps)
        real = np.mean([detail(e.frames[: STEPS + 1]).mean() for e in episodes])
        rows.append(
            {
                "model": name,
                "weights": weights_id(name),
                "psnr_between_turns": [bootstrap(again[:, k].mean(axis=1)) for k in range(TURNS - 1)],
                "detail_over_real_by_turn": [bootstrap(detail(turns[:, k]).mean(axis=1) / real) for k in range(TURNS)],
            }
        )
        if name == options.models[0] and options.pictures:
            picture = strip([turns[world, k] for world in range(3) for k in range(TURNS)], STEPS)
            cv2.imwrite(str(options.pictures), np.ascontiguousarray(picture[..., ::-1]))
    report = {
        "what": f"one frame given, {TURNS} turns of {STEPS} steps in place; PSNR in dB between the same directions of one turn and the next",
        "worlds": len(episodes),
        "interval": "95 %, bootstrap over worlds",
        "models": rows,
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
