"""Trains the contexts to ablate with equal compute: the same data, autoencoder, steps, batches and seeds. Run again, it goes on.

``python benchmarks/ablation.py --data data/train --out runs/ablation`` trains; then
``worldpack eval-model --ablate runs/ablation --out benchmarks/results/ablation.json`` compares.
"""

import argparse
import multiprocessing
import os
from pathlib import Path

from worldpack_model.ablation import ORDER
from worldpack_model.trainer import TrainModelConfig, train_model


def one(config: TrainModelConfig) -> str:
    os.environ["OMP_NUM_THREADS"] = "1"
    if not (config.out / "model" / "manifest.json").is_file():
        train_model(config)
    return str(config.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="recorded episodes")
    parser.add_argument("--out", type=Path, required=True, help="folder for VARIANT-SEED run folders")
    parser.add_argument("--preset", default="voxel-64-small")
    parser.add_argument("--autoencoder", default="voxel-64", help="whose autoencoder all of them take")
    parser.add_argument("--latents", type=Path, help="latents of an earlier run on the same data and autoencoder")
    parser.add_argument("--variants", nargs="+", default=list(ORDER))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="trainings at a time, one thread each")
    parser.add_argument("--mixed-precision", default="no", choices=("no", "bf16"))
    options = parser.parse_args()
    configs = [
        TrainModelConfig(
            data=options.data, out=options.out / f"{variant}-{seed}", preset=options.preset, variant=variant, autoencoder=options.autoencoder,
            latents=options.latents, steps=options.steps, batch_size=options.batch_size, seed=seed, adversary_from=1.0, rollouts_from=1.0,
            unseen_weight=1.0, body_steps=0, motion_steps=0, picture_every=0, threads=1, device="cpu", mixed_precision=options.mixed_precision,
        )
        for seed in range(options.seeds)
        for variant in options.variants
    ]  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, folder in enumerate(pool.imap_unordered(one, configs), 1):
            print(f"{done}/{len(configs)} {folder}", flush=True)


if __name__ == "__main__":
    main()
