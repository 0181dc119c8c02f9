"""Success, return, path length and SPL of a policy, with intervals, in imagination or in the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from worldpack_agents.baselines import baseline_of, open_policy
from worldpack_agents.checkpoints import CONFIG, agent_path, read_run_config
from worldpack_agents.env_config import EnvConfig, Where
from worldpack_agents.intervals import bootstrap_mean, wilson
from worldpack_agents.rollouts import Played, Progress, open_rollout, play
from worldpack_model.checkpoint import CheckpointError, write_json
from worldpack_model.provenance import provenance, weights_id


@dataclass(frozen=True)
class EvalAgentConfig:
    """Evaluates an agent on held-out starts."""

    agent: str = "random"
    """Run folder or checkpoint of train-agent, a reference agent (`ppo-goto-15`), or an agent that learns nothing: `random`, `compass`, `oracle`, or
    `compass:0.3` with 3 in 10 actions random."""
    where: Annotated[Where, tyro.conf.arg(name="in")] = "real"
    """imagined: in the world model. real: in the engine."""
    env: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: EnvConfig(split="test"))
    """The task, on starts the agent was not trained on; the command line starts from the task that the agent was trained on."""
    episodes: int = 100
    """Episodes, one from each start."""
    num_envs: int = 16
    """Episodes played at the same time."""
    deterministic: bool = False
    """Take the likeliest action instead of drawing one as in training."""
    seed: int = 0
    """Seed of everything random."""
    trust: bool = False
    """Allow to unpickle a policy zip that is not part of a run folder; that runs code of whoever made it."""
    out: Path | None = None
    """JSON file to write."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        if self.episodes < 1 or self.num_envs < 1:
            raise ValueError(f"episodes and num_envs must be at least 1, not {self.episodes} and {self.num_envs}.")


def task_of(agents: Sequence[str]) -> EnvConfig | None:
    """The task that the first trained one of ``agents`` was trained on, with starts of the test split; None if none of them tells.

    What a command line says about the task is added to this, so that an agent is judged on its own task unless another one is asked for.

    Raises:
        CheckpointError: if the run's configuration is damaged.
    """
    for agent in agents:
        path = agent_path(agent)
        run = next((p for p in (path, path.parent.parent, path.parent.parent.parent) if baseline_of(agent) is None and (p / CONFIG).is_file()), None)
        if run is not None:
            try:
                trained = dict(read_run_config(run)["config"]["env"])
                return EnvConfig(**{k: v for k, v in trained.items() if k in {f.name for f in fields(EnvConfig)}}).with_split("test")
            except (KeyError, TypeError) as error:
                raise CheckpointError(f"{run / CONFIG} does not tell the agent's task ({error}); use another copy.") from error
    return None


def describe(env: EnvConfig) -> str:
    """The task in a line."""
    steps = f", at most {env.max_episode_steps} steps" if env.max_episode_steps else ""
    what = {"LoopNav": f" {env.loop} from {env.start}", "Find": f" {env.event}"}.get(env.task, "")
    reach = "" if env.task in ("Find", "Explore") else f", range {env.nav_range}"
    return f"{env.task}{what}{reach}{steps}, {env.split} worlds of {env.world}"


def summarise(played: Sequence[Played], *, seed: int = 0) -> dict[str, Any]:
    """Means with 95 % intervals: Wilson's for success, the bootstrap over episodes for the others; no SPL where there is no shortest way.

    Raises:
        ValueError: if there is no episode.
    """
    rng = np.random.default_rng([seed, 23])
    return {
        "episodes": len(played),
        "success": asdict(wilson(sum(p.success for p in played), len(played))),
        "return": asdict(bootstrap_mean([p.total_reward for p in played], rng)),
        "steps": asdict(bootstrap_mean([p.steps for p in played], rng)),
        "path_length": asdict(bootstrap_mean([p.path_length for p in played], rng)),
        **({"spl": asdict(bootstrap_mean([p.spl for p in played], rng))} if all(p.shortest > 0 for p in played) else {}),
        "lost_slots": sum(p.failed for p in played),
    }


def evaluate_agent(config: EvalAgentConfig, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Runs the evaluation; the returned dict is what ``out`` holds.

    Raises:
        CheckpointError: if there is no such agent or model.
    """
    from dataclasses import replace

    env = replace(config.env, num_starts=max(config.env.num_starts, config.episodes))
    rollout, action_set = open_rollout(env, config.where, min(config.num_envs, config.episodes))
    try:
        with contextlib.closing(open_policy(config.agent, action_set, deterministic=config.deterministic, trust=config.trust)) as policy:
            played = play(rollout, action_set, policy, range(config.episodes), seed=config.seed, progress=progress)
    finally:
        rollout.close()
    result = {
        "agent": config.agent,
        "in": config.where,
        "env": asdict(env.settled()),
        "weights": weights_id(env.model) if config.where == "imagined" else None,
        **summarise(played, seed=config.seed),
        "episodes_played": [p.summary() for p in played],
        "provenance": provenance(),
    }
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, result)
    return result
