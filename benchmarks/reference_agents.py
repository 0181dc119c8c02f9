"""The agents that come with the package: taken from the run that ``agreement.py`` trains, and judged on held-out starts.

``python benchmarks/reference_agents.py > benchmarks/results/reference_agents.json`` after ``agreement.py``; writes the agents, and their card, into
``agents/worldpack_agents/reference``.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from worldpack_agents.checkpoints import REFERENCE, reference_agents, ship_agent
from worldpack_agents.evaluate import EvalAgentConfig, describe, evaluate_agent, task_of
from worldpack_agents.intervals import Interval
from worldpack_model.provenance import provenance, weights_id

CARD = """# {name}

PPO with the default policy (a small CNN, the goal's compass; {parameters:,} parameters), trained for {last:,} env steps in `{model}`'s imagination by
`python benchmarks/agreement.py`, never in an engine; taken after {steps} steps. For comparisons (`worldpack compare --agents ladder`), as a start
(`worldpack train-agent --init {name}`), and to try things out. Not good for: other goals than a compass, other action sets than nav-4, pictures of
another size.

{task}; {episodes} episodes, success with 95 % intervals:

| agent | in the engine | imagined |
|---|---|---|
{rows}

From `benchmarks/results/reference_agents.json`, by `python benchmarks/reference_agents.py`. The policies alone, in bfloat16, as safetensors.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/agreement/agent"))
    parser.add_argument("--name", default="ppo-goto-15")
    parser.add_argument("--steps", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--episodes", type=int, default=100)
    options = parser.parse_args()
    folder = REFERENCE / options.name
    shutil.rmtree(folder, ignore_errors=True)
    ship_agent(options.run, options.steps, folder)
    names = [name for name in reference_agents() if name.partition("@")[0] == options.name]
    env = task_of(names)
    assert env is not None
    lines = []
    for name in names:
        for where in ("real", "imagined"):
            result = evaluate_agent(EvalAgentConfig(agent=name, where=where, env=env, episodes=options.episodes))
            lines.append({"agent": name, "in": where, **{k: result[k] for k in ("success", "spl", "steps", "episodes")}})
            print(lines[-1], file=sys.stderr)
    success = {(line["agent"], line["in"]): Interval(**line["success"]).text(0, percent=True) for line in lines}
    card = CARD.format(
        name=options.name,
        parameters=parameters(folder),
        last=options.steps[-1],
        model=env.model,
        steps=", ".join(f"{n:,}" for n in options.steps),
        task=describe(env),
        episodes=options.episodes,
        rows="\n".join(f"| `{name}` | {success[name, 'real']} | {success[name, 'imagined']} |" for name in names),
    )
    (folder / "README.md").write_text(card)
    report = {"task": describe(env), "agents": lines, "weights": weights_id(env.model), "interval": "95 %, Wilson", "provenance": provenance()}
    json.dump(report, sys.stdout, indent=1)


def parameters(folder: Path) -> int:
    from worldpack_agents.checkpoints import load_agent

    return sum(p.numel() for p in load_agent(folder).policy.parameters())


if __name__ == "__main__":
    main()
