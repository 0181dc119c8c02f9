"""How well the motion model knows where a body goes: recorded steps of held-out worlds, the past given, errors in blocks by kind of step.

``python benchmarks/motion_error.py > benchmarks/results/motion_error.json``
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from worldpack_env.recorder import RecordConfig, record
from worldpack_model import WorldPack
from worldpack_model.dataset import LatentDataset
from worldpack_model.episodes import EpisodeIndex
from worldpack_model.metrics import bootstrap
from worldpack_model.motion import commanded_distance, realised, was_blocked
from worldpack_model.provenance import provenance, weights_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder")
    parser.add_argument("--episodes", type=int, default=60, help="held-out episodes of all kinds")
    parser.add_argument("--steps", type=int, default=4096, help="steps drawn from them")
    options = parser.parse_args()
    model = WorldPack.from_pretrained(options.model)
    with tempfile.TemporaryDirectory() as folder:
        record(RecordConfig(out=Path(folder), episodes=options.episodes, split="test"), progress=False)
        data = LatentDataset.encode(EpisodeIndex.open(Path(folder)), model.encode)
    errors, blind, kinds = [], [], []
    for number in range(options.steps // 256):
        batch = data.batch(model.config, 256, torch.Generator().manual_seed(number))
        target = (batch.query[:, :3] - batch.body.pose[:, :3]).float()
        context = batch.context._replace(latents=data.latents[batch.frame[:, None] - batch.context.ages].float())  # as recorded: no noise
        with torch.no_grad():
            for around, kept in (((context, batch.footprints), errors), (None, blind)):
                kept.append((model.motion(batch.body, around).likeliest - target).norm(dim=-1))
        walking = commanded_distance(batch.body.action) > 0
        stopped = was_blocked(batch.body.action, realised(batch.body.pose, batch.query).float())
        vertical = target[:, 1].abs() > 1e-3
        kinds.append(torch.stack([torch.ones_like(walking), walking & ~stopped & ~vertical, stopped & ~vertical, vertical, ~walking & ~vertical]))
    error, unseen, kind = torch.cat(errors), torch.cat(blind), torch.cat(kinds, dim=1)
    names = ("all", "walking on level ground", "stopped", "up or down", "standing")
    report = {
        "what": "distance in blocks between predicted and recorded position after one env step, past frames given",
        "interval": "95 %, bootstrap over steps",
        "kinds": {
            name: {
                "share": float(some.float().mean()),
                "mean": bootstrap(error[some].numpy()),
                "median": float(error[some].median()),
                "above_a_tenth": float((error[some] > 0.1).float().mean()),
                "mean_blind": bootstrap(unseen[some].numpy()),
            }
            for name, some in zip(names, kind, strict=True)
        },
        "weights": weights_id(options.model),
        "provenance": provenance(),
    }
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
