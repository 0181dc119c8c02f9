"""Averages the denoisers of two models, one trained on from the other: between them lies what each is good at (arXiv 2203.05482, 2109.01903).

``python benchmarks/average_weights.py FIRST SECOND SHARE OUT``: ``SHARE`` of the second's weights; everything else is the first's.
"""

import argparse
from pathlib import Path

from worldpack_model.checkpoint import find_model, load_model, read_manifest, save_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", help="shipped name or folder")
    parser.add_argument("second", help="shipped name or folder")
    parser.add_argument("share", type=float, help="0 .. 1")
    parser.add_argument("out", type=Path, help="folder to write")
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error(f"share is {options.share}, expected 0 .. 1.")
    one, two = load_model(options.first, device="cpu"), load_model(options.second, device="cpu")
    other = two.denoiser.state_dict()
    one.denoiser.load_state_dict({name: value.lerp(other[name], options.share) for name, value in one.denoiser.state_dict().items()})
    about = {"averaged": {name: read_manifest(find_model(name)).get("about", {}) for name in (options.first, options.second)}}
    save_model(one, options.out, {**about, "share_of_second": options.share})


if __name__ == "__main__":
    main()
