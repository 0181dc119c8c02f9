"""Trains the contexts to ablate with equal compute: the same data, autoencoder, batches and seeds. Run again, it goes on.

``recent`` and ``retrieval`` take ``--steps``; a context that costs more operations per sample (counted, not timed) takes as many fewer steps:
``packing`` and ``worldpack`` a few, ``long`` two thirds.

``python benchmarks/ablation.py --data data/train --out runs/ablation`` trains; then
``worldpack eval-model --ablate runs/ablation --out benchmarks/results/ablation.json`` compares.
"""

import argparse
import multiprocessing
import os
from pathlib import Path

import torch

from worldpack_agents.roofline import operations
from worldpack_model.ablation import ORDER
from worldpack_model.config import PRESETS
from worldpack_model.packing import Context
from worldpack_model.trainer import TrainModelConfig, train_model
from worldpack_model.world_model import WorldPack


def one(config: TrainModelConfig) -> str:
    os.environ["OMP_NUM_THREADS"] = "1"
    if not (config.out / "model" / "manifest.json").is_file():
        train_model(config)
    return str(config.out)


def cost_of(preset: str, variant: str) -> int:
    """Floating-point operations of the network for one sample: the context made ready, and one evaluation."""
    model = WorldPack(PRESETS[preset].with_variant(variant)).eval()
    frames = model.config.packing.frames
    context = Context(
        latents=torch.zeros(1, frames, *model.latent_shape),
        poses=torch.zeros(1, frames, 5, dtype=torch.float64),
        ages=torch.ones(1, frames, dtype=torch.int64),
        imagined=torch.zeros(1, frames, dtype=torch.bool),
        used=torch.ones(1, frames, dtype=torch.bool),
    )
    pose, noise = torch.zeros(1, 5, dtype=torch.float64), torch.zeros(1, *model.latent_shape)
    with torch.no_grad():
        return operations(lambda: model.imagine(context, pose, torch.zeros(1, 9), torch.zeros(1, 3), noise, evaluations=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="recorded episodes")
    parser.add_argument("--out", type=Path, required=True, help="folder for VARIANT-SEED run folders")
    parser.add_argument("--preset", default="voxel-64-small")
    parser.add_argument("--autoencoder", default="voxel-64", help="whose autoencoder all of them take")
    parser.add_argument("--latents", type=Path, help="latents of an earlier run on the same data and autoencoder")
    parser.add_argument("--variants", nargs="+", default=list(ORDER))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000, help="of the cheapest context")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trainings at a time, one thread each")
    parser.add_argument("--mixed-precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--compile", action="store_true", help="compile the denoiser; needs a C++ compiler")
    options = parser.parse_args()
    cost = {variant: cost_of(options.preset, variant) for variant in dict.fromkeys((*ORDER, *options.variants))}
    steps = {variant: round(options.steps * min(cost.values()) / cost[variant]) for variant in cost}
    print("steps:", ", ".join(f"{variant} {steps[variant]}" for variant in options.variants), flush=True)
    configs = [
        TrainModelConfig(
            data=options.data, out=options.out / f"{variant}-{seed}", preset=options.preset, variant=variant, autoencoder=options.autoencoder,
            latents=options.latents, steps=steps[variant], batch_size=options.batch_size, seed=seed, adversary_from=1.0, rollouts_from=1.0,
            unseen_weight=1.0, body_steps=0, motion_steps=0, picture_every=0, threads=1, device="cpu", mixed_precision=options.mixed_precision,
            compile=options.compile,
        )
        for seed in range(options.seeds)
        for variant in options.variants
    ]  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, folder in enumerate(pool.imap_unordered(one, configs), 1):
            print(f"{done}/{len(configs)} {folder}", flush=True)


if __name__ == "__main__":
    main()
