"""Writes the numbers of README.md from the JSON files of benchmarks/results/, each beside the command that made it.

Run ``python benchmarks/readme_numbers.py`` after a measurement; ``--check`` only says whether README.md is up to date.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- numbers -->", "<!-- /numbers -->"


def triple(values: list[float]) -> str:
    """``mean [low, high]``."""
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


def interval(entry: dict[str, Any], percent: bool = False) -> str:
    """An interval of the comparison."""
    if percent:
        return f"{100 * entry['mean']:.0f} % [{100 * entry['low']:.0f}, {100 * entry['high']:.0f}]"
    return f"{entry['mean']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def model_table(data: dict[str, Any]) -> list[str]:
    """PSNR of the models on held-out loops."""
    given = "the true poses, as in the paper's evaluation" if data["poses"] == "true" else "the actions alone: the model moves by itself"
    lines = [
        f"**Does the memory work?** {data['task']} loops in {data['episodes']} held-out worlds: look-around and way out are given, the way home",
        f"is imagined from {given} ({data['models'][0]['imagined_frames']} frames, {data['models'][0]['revisit_frames']} of them views",
        "that were given before). `voxel-64-recent` is the same network, trained equally on the same data, without memory. PSNR in dB.",
        "",
        "| model | revisited views | elsewhere | all | autoencoder's ceiling at revisits |",
        "|---|---|---|---|---|",
    ]
    for m in data["models"]:
        lines.append(
            f"| `{m['model']}` | {triple(m['psnr_revisit'])} | {triple(m['psnr_elsewhere'])} | {triple(m['psnr'])} "
            f"| {triple(m['psnr_autoencoder_revisit'])} |"
        )
    for d in data["differences"]:
        lines += ["", f"Gain at revisits over `{d['over']}`, paired by world: **{triple(d['psnr_revisit_gain'])} dB**."]
    return lines


def demo_table(data: dict[str, Any]) -> list[str]:
    """Success of the demo's agents."""
    first = data["agents"][0]["real"]
    lines = [
        f"**Do agents transfer?** The demo's PPO agent, trained only in imagination, from {first['episodes']} starts in held-out worlds.",
        "",
        "| agent | success in the engine | success imagined | SPL in the engine |",
        "|---|---|---|---|",
    ]
    for a in data["agents"]:
        lines.append(
            f"| {a['agent']} | {interval(a['real']['success'], percent=True)} | {interval(a['imagined']['success'], percent=True)} "
            f"| {interval(a['real']['spl'])} |"
        )
    return lines


def speed_table(data: dict[str, Any]) -> list[str]:
    """Env steps a second."""
    machine = data["provenance"]["machine"]
    lines = [
        f"**How fast?** Imagined env steps per second on {machine['cores']} cores ({machine['processor']}), all slots together, median.",
        "",
        "| slots | evaluations per step | env steps/s |",
        "|---|---|---|",
    ]
    return lines + [f"| {r['slots']} | {r['evaluations']} | {r['env_steps_per_second']:.0f} |" for r in data["rows"]]


def coverage_table(data: dict[str, Any]) -> list[str]:
    """Share of the view that retrieved frames show."""
    lines = [
        "**Does retrieval find the right frames?** Share of the visible surface of the view to predict that the best four of twelve retrieved frames",
        f"show, on the way home of held-out loops ({data['episodes']} worlds each), by the engine's depths.",
        "",
        "| loop | the paper's score | coverage (ours, default) | best four of all | all given frames together |",
        "|---|---|---|---|---|",
    ]
    names = ("score", "coverage", "greedy", "all")
    return lines + [f"| {loop} | " + " | ".join(triple(shown[name]["4"]) for name in names) + " |" for loop, shown in data["shown"].items()]


def render_table(data: dict[str, Any]) -> list[str]:
    """Pictures a second of the embedded world."""
    machine = data["provenance"]["machine"]
    lines = [
        f"**How fast is the embedded world?** Pictures per second on one core ({machine['processor']}), median over worlds and views.",
        "",
        "| " + " | ".join(data["pictures_per_second"]) + " | env steps/s at 64x64 |",
        "|---" * (len(data["pictures_per_second"]) + 1) + "|",
    ]
    shown = [*data["pictures_per_second"].values(), data["steps_per_second_64x64"]]
    return [*lines, "| " + " | ".join(f"{value:.0f}" for value in shown) + " |"]


PARTS = (
    (
        "eval-model-aba15-true-poses.json",
        "worldpack eval-model --poses true --out benchmarks/results/eval-model-aba15-true-poses.json",
        model_table,
    ),
    (
        "eval-model-aba50-true-poses.json",
        "worldpack eval-model --poses true --nav-range 50 --episodes 16 --out benchmarks/results/eval-model-aba50-true-poses.json",
        model_table,
    ),
    ("eval-model-aba15.json", "worldpack eval-model --out benchmarks/results/eval-model-aba15.json", model_table),
    ("eval-model-aba50.json", "worldpack eval-model --nav-range 50 --episodes 16 --out benchmarks/results/eval-model-aba50.json", model_table),
    ("retrieval_coverage.json", "python benchmarks/retrieval_coverage.py > benchmarks/results/retrieval_coverage.json", coverage_table),
    ("demo.json", "worldpack demo", demo_table),
    ("speed.json", "worldpack bench speed --out benchmarks/results/speed.json", speed_table),
    ("render_speed.json", "python benchmarks/render_speed.py > benchmarks/results/render_speed.json", render_table),
)


def main() -> int:
    """Writes or checks."""
    lines = [BEGIN]
    for name, command, table in PARTS:
        if (RESULTS / name).is_file():
            lines += [
                "",
                *table(json.loads((RESULTS / name).read_text())),
                "",
                f"`{command}` → [`{name}`](benchmarks/results/{name}){'' if 'speed' in name else ', 95 % intervals'}.",
            ]
    text = (ROOT / "README.md").read_text()
    before, rest = text.split(BEGIN)
    wanted = before + "\n".join([*lines, "", END]) + rest.split(END)[1]
    if "--check" in sys.argv:
        print("README.md is up to date." if wanted == text else "README.md differs from benchmarks/results/.")
        return int(wanted != text)
    (ROOT / "README.md").write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
