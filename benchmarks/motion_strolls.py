r"""Goes on training the shipped motion model with episodes of somebody who does not know the ground (``stroll``), beside those it was trained on.

    worldpack record --out data/train --episodes 2400        # as recorded before strolls were in the mix
    python benchmarks/motion_strolls.py --data data/train --latents runs/voxel-64/latents --replay runs/voxel-64 --strolls data/strolls \
        --out runs/motion

records the strolls where there are none. A run from nothing with today's recorder has strolls in its data and needs none of this.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from worldpack_env.recorder import RecordConfig, record
from worldpack_model.checkpoint import read_tensors
from worldpack_model.config import PRESETS
from worldpack_model.dataset import LatentDataset, data_id
from worldpack_model.episodes import EpisodeIndex
from worldpack_model.replay import PredictionReplay
from worldpack_model.trainer import TrainModelConfig, _Run
from worldpack_model.world_model import WorldPack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--latents", type=Path, required=True, help="latents of that data")
    parser.add_argument("--replay", type=Path, required=True, help="run on that data whose kept predictions are shown")
    parser.add_argument("--strolls", type=Path, required=True)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder to go on from")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.strolls.exists():
        record(RecordConfig(out=options.strolls, episodes=700, mix={"stroll": 1.0}, seed=300_000, explore_steps=96))
    model = WorldPack.from_pretrained(options.model, precision="float32")
    known = LatentDataset(**read_tensors(options.latents / "latents.safetensors"))
    strolls = LatentDataset.encode(EpisodeIndex.open(options.strolls), model.encode)
    parts = {f.name: torch.cat([getattr(known, f.name), getattr(strolls, f.name)]) for f in dataclasses.fields(LatentDataset) if f.name != "starts"}
    dataset = LatentDataset(**parts, starts=torch.cat([known.starts, strolls.starts[1:] + known.starts[-1]]))
    replay = PredictionReplay(dataset.latents)
    replay.load(read_tensors(options.replay / "dynamics-state" / "replay.safetensors"))
    config = TrainModelConfig(
        data=options.data,
        out=options.out,
        steps=0,
        init=options.model,
        init_motion=options.model,
        body_steps=0,
        motion_steps=options.steps,
        motion_rate=8e-4,
        strays_from=0.0,
        picture_every=0,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    fresh = WorldPack(PRESETS["voxel-64"])
    fresh.load_state_dict(model.state_dict())
    print(f"{len(known)} frames and {len(strolls)} of strolls", flush=True)

    def told(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if done % 250 == 0:
            print(done, {k: round(v, 4) for k, v in numbers.items()}, flush=True)

    _Run(config, fresh, data_id(EpisodeIndex.open(options.data)), told).fit_motion(dataset, replay)


if __name__ == "__main__":
    main()
