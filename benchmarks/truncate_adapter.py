"""Keeps of the adapters' changes the nearest ones of lower rank (Eckart and Young 1936), which make smaller files.

``python benchmarks/truncate_adapter.py MODEL RANK OUT``: of the folder ``MODEL``, trained with ``--adapter-rank``.
"""

import argparse
from pathlib import Path

import torch

from worldpack_model.checkpoint import PARTS, find_model, load_model, read_adapted, read_manifest, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder with adapters")
    parser.add_argument("rank", type=int)
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    adapted = {}
    energy, total = 0.0, 0.0
    for part in PARTS:
        own, whole = read_adapted(options.model, part)[1]
        kept = {}
        for key in (name.removeprefix("down.") for name in whole if name.startswith("down.")):
            u, s, v = torch.linalg.svd(whole[f"up.{key}"] @ whole[f"down.{key}"], full_matrices=False)
            root = s[: options.rank].sqrt()
            kept |= {f"up.{key}": u[:, : options.rank] * root, f"down.{key}": root[:, None] * v[: options.rank]}
            energy, total = energy + float(s[: options.rank].square().sum()), total + float(s.square().sum())
        if kept:
            adapted[part] = (own, kept)
    if not adapted:
        parser.error(f"{options.model} has no adapters")
    about = read_manifest(find_model(options.model)).get("about", {}) | {"truncated_to_rank": options.rank, "energy_kept": round(energy / total, 4)}
    save_model(load_model(options.model, device="cpu", precision="float32"), options.out, about, adapted=adapted)
    print(f"Rank {options.rank} keeps {energy / total:.1%} of the square of the changes of {', '.join(adapted)}.")


if __name__ == "__main__":
    main()
