"""Draws how the contexts of ``ablation.json`` fare step by step: PSNR of the imagined frames along the longest loops, with 95 % intervals.

``python benchmarks/ablation_curves.py`` writes ``docs/images/ablation.png``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=ROOT / "benchmarks" / "results" / "ablation.json")
    parser.add_argument("--cells", nargs="+", default=["ABA-15", "ABA-50", "ABCA-50"])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "ablation.png")
    options = parser.parse_args()
    curves = json.loads(options.report.read_text())["psnr_by_step"]
    figure = Figure(figsize=(4.2 * len(options.cells), 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(options.cells), sharey=True))
    for panel, cell in zip(panels, options.cells, strict=True):
        for number, (variant, cells) in enumerate(curves.items()):
            mean, low, high = np.array(cells[cell]).reshape(-1, 3).T
            step = np.arange(1, len(mean) + 1)
            panel.plot(step, mean, color=f"C{number}", label=variant, linewidth=1.3)
            panel.fill_between(step, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        panel.set(title=cell, xlabel="imagined step")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("PSNR, dB")
    panels[-1].legend(frameon=False, fontsize=8)
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
