"""Quality against network evaluations per step: ways home of held-out loops, poses given.

``python benchmarks/evaluations.py > benchmarks/results/evaluations.json``
"""

import argparse
import json
import sys

import numpy as np
from held_out import held_out

from worldpack_model import WorldPack
from worldpack_model.evaluation import imagine, turning_point
from worldpack_model.metrics import bootstrap, detail, psnr
from worldpack_model.provenance import provenance, weights_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tasks", nargs="+", default=["ABA-15", "ABA-50"])
    parser.add_argument("--episodes", type=int, default=16, help="held-out worlds for each task")
    options = parser.parse_args()
    model = WorldPack.from_pretrained(options.model)
    tables = {}
    for task in options.tasks:
        episodes = held_out(task, options.episodes)
        begins = [turning_point(e) for e in episodes]
        rows, base = [], None
        for count in options.evaluations:
            rollouts = imagine(model, episodes, begins, true_poses=True, evaluations=count)
            seen = np.array([psnr(r.frames, r.truth)[r.revisit].mean() if r.revisit.any() else np.nan for r in rollouts])
            base = seen if count == model.config.diffusion.evaluations else base
            fine = [detail(r.frames).mean() / detail(r.truth).mean() for r in rollouts]
            rows.append({"evaluations": count, "psnr_revisit": bootstrap(seen), "detail_kept": bootstrap(fine), "each": seen.tolist()})
        for row in rows:
            each = np.array(row.pop("each"))
            if base is not None:
                row["psnr_revisit_over_default"] = bootstrap(each - base)
        tables[task] = rows
    report = {
        "what": "PSNR in dB at revisits and detail over the truth's, by evaluations of the network per step; the difference is paired by world",
        "interval": "95 %, bootstrap over worlds",
        "default": model.config.diffusion.evaluations,
        "tasks": tables,
        "weights": weights_id(options.model),
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
