"""Keeps of an adapter's changes the nearest ones of lower rank (Eckart and Young 1936), which make a smaller file.

``python benchmarks/truncate_adapter.py MODEL BASE RANK OUT``: of the folder ``MODEL``, trained from ``BASE`` with ``--adapter-rank``.
"""

import argparse
from pathlib import Path

import torch

from worldpack_model.checkpoint import ADAPTER, load_model, read_manifest, read_part, read_tensors, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with an adapter")
    parser.add_argument("base", help="shipped name or folder without one")
    parser.add_argument("rank", type=int)
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    whole = read_tensors(options.model / ADAPTER)
    kept, energy, total = {}, 0.0, 0.0
    for key in (name.removeprefix("down.") for name in whole if name.startswith("down.")):
        u, s, v = torch.linalg.svd(whole[f"up.{key}"].float() @ whole[f"down.{key}"].float(), full_matrices=False)
        root = s[: options.rank].sqrt()
        kept |= {f"up.{key}": u[:, : options.rank] * root, f"down.{key}": root[:, None] * v[: options.rank]}
        energy, total = energy + float(s[: options.rank].square().sum()), total + float(s.square().sum())
    about = read_manifest(options.model).get("about", {}) | {"truncated_to_rank": options.rank, "energy_kept": round(energy / total, 4)}
    model = load_model(str(options.model), device="cpu", precision="float32")
    save_model(model, options.out, about, adapted=(read_part(options.base, "denoiser")[1], kept))
    print(f"Rank {options.rank} keeps {energy / total:.1%} of the square of the changes.")


if __name__ == "__main__":
    main()
