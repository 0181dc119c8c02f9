"""What wrong poses cost: errors on every pose that is told, and dead reckoning by the model's own motion. Ways home of held-out loops.

``python benchmarks/pose_noise.py > benchmarks/results/pose_noise.json``
"""

import argparse
import json
import sys

import numpy as np
from held_out import held_out

from worldpack_model import WorldPack
from worldpack_model.evaluation import imagine, turning_point
from worldpack_model.metrics import bootstrap, psnr
from worldpack_model.provenance import provenance, weights_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["voxel-64", "voxel-64-recent"], help="shipped names or folders")
    parser.add_argument("--blocks", type=float, nargs="+", default=[0.1, 0.25, 0.5, 1.0], help="standard deviations along x and z")
    parser.add_argument("--degrees", type=float, nargs="+", default=[2.0, 5.0, 10.0], help="standard deviations of yaw")
    parser.add_argument("--task", default="ABA-15")
    parser.add_argument("--episodes", type=int, default=16, help="held-out worlds")
    options = parser.parse_args()
    episodes = held_out(options.task, options.episodes)
    begins = [turning_point(e) for e in episodes]
    kinds = [("true poses", True, (0.0, 0.0))]
    kinds += [(f"{b:g} blocks", True, (b, 0.0)) for b in options.blocks]
    kinds += [(f"{d:g} degrees", True, (0.0, d)) for d in options.degrees]
    kinds.append(("dead reckoning", False, (0.0, 0.0)))
    models = []
    for name in options.models:
        model = WorldPack.from_pretrained(name)
        rows, clean = [], None
        for label, told, noise in kinds:
            rollouts = imagine(model, episodes, begins, true_poses=told, pose_noise=noise)
            seen = np.array([psnr(r.frames, r.truth)[r.revisit].mean() if r.revisit.any() else np.nan for r in rollouts])
            clean = seen if clean is None else clean
            rows.append({"poses": label, "psnr_revisit": bootstrap(seen), "cost": bootstrap(clean - seen)})
        models.append({"model": name, "weights": weights_id(name), "rows": rows})
    report = {
        "what": "PSNR in dB at revisits when every pose told, past and next, has an error of its own; cost is paired by world",
        "task": options.task,
        "worlds": len(episodes),
        "interval": "95 %, bootstrap over worlds",
        "models": models,
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
