"""Does imagination rank agents as the engine does? Policies of graded skill from the same held-out starts in both.

``python benchmarks/agreement.py > benchmarks/results/agreement.json`` trains one agent in imagination, takes its checkpoints and agents that learn
nothing, and compares them; the page is ``runs/agreement/compare/report.html``, the picture ``docs/images/agreement.png``. What is there is not
trained again.
"""

import argparse
import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from worldpack_agents.baselines import LADDER
from worldpack_agents.checkpoints import checkpoints
from worldpack_agents.compare import CompareConfig, compare
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.train import TrainAgentConfig, train_agent

ROOT = Path(__file__).resolve().parent.parent
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Of the training, after which the agent is taken as a policy of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/agreement"))
    parser.add_argument("--model", default="voxel-64", help="world model to train and imagine in")
    parser.add_argument("--motion", default="drawn", choices=("drawn", "likeliest"), help="how imagined bodies move where the model is not sure")
    parser.add_argument("--world", default="voxel", help="the engine")
    parser.add_argument("--steps", type=int, default=16384, help="env steps of the agent's training")
    parser.add_argument("--episodes", type=int, default=200, help="starts that every policy plays, in both")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "agreement.png")
    options = parser.parse_args()
    env = EnvConfig(task="GoTo", nav_range=15, model=options.model, motion=options.motion, world=options.world)
    every = options.steps // 16
    settings = TrainAgentConfig(
        out=options.out / "agent", env=env, total_steps=options.steps, checkpoint_every=every, keep_checkpoints=64, progress=False
    )
    run = train_agent(settings).run
    kept = checkpoints(run)
    taken = [str(kept[max(0, round(share * len(kept)) - 1)]) for share in SHARES]
    config = CompareConfig(agents=(*reversed(taken), *LADDER), out=options.out / "compare", env=env.with_split("test"), episodes=options.episodes)
    data = compare(config, lambda what, done, total: print(f"\r{what}: {done}/{total}   ", end="", file=sys.stderr)).data
    for agent in data["agents"]:
        agent["source"] = str(Path(agent["source"]).name)
    draw(data, options.picture)
    json.dump(data, sys.stdout, indent=1)


def draw(data: dict, path: Path) -> None:
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], ":", color="0.6", linewidth=1)
    for agent in data["agents"]:
        x, y = ({k: 100 * v for k, v in agent[where]["success"].items()} for where in ("imagined", "real"))
        colour = "C1" if agent["source"].startswith("step_") else "C0"
        axes.plot([x["low"], x["high"]], [y["mean"]] * 2, color=colour, alpha=0.35)
        axes.plot([x["mean"]] * 2, [y["low"], y["high"]], color=colour, alpha=0.35)
        axes.plot([x["mean"]], [y["mean"]], "o", color=colour, markersize=5)
    for colour, label in (("C1", "an agent while it learns in imagination"), ("C0", "agents that learn nothing")):
        axes.plot([], [], "o", color=colour, markersize=5, label=label)
    axes.set(xlim=(-3, 103), ylim=(-3, 103), xlabel="success in imagination, %", ylabel="success in the engine, %", aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
