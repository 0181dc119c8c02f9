"""Draws how agents of a study learned: validation success by env steps, each seed thin, their mean thick.

``python benchmarks/study_curves.py benchmarks/results/study-curriculum.json docs/images/study-curriculum.png``
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="study.json of worldpack study")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    data = json.loads(options.study.read_text())
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, condition in enumerate(data["conditions"]):
        cells = [cell for cell in data["cells"] if cell["condition"] == condition]
        seeds = [[(e["step"], 100 * e["success"]["mean"]) for e in cell["evaluations"] if e["in"] == "real"] for cell in cells]
        for curve in seeds:
            axes.plot(*zip(*curve, strict=True), color=f"C{number}", alpha=0.25, linewidth=0.8)
        steps = [step for step, _ in seeds[0]]
        axes.plot(steps, np.mean([[s for _, s in curve] for curve in seeds], axis=0), "o-", color=f"C{number}", label=condition, markersize=4)
    axes.set(xlabel="env steps of training", ylabel="success on validation starts, %", ylim=(-3, 103))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
