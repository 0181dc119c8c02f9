"""The main job in one command: train an agent in imagination, check it in the engine, show the result."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldpack_agents.compare import CompareConfig, Comparison, Tell, compare
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.train import PPOConfig, TrainAgentConfig, train_agent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoConfig:
    """Trains a PPO agent inside the shipped world model, checks it and a random one in the engine, writes a report."""

    out: Path = Path("runs/demo")
    """Run folder; an interrupted demo is continued in it, a finished one is only evaluated again."""
    steps: int = 10_240
    """Env steps of training in imagination."""
    episodes: int = 60
    """Evaluation episodes of each agent, in imagination and in the engine each, all on held-out worlds."""
    nav_range: int = 8
    """How far the goals are, in blocks."""
    model: str = "voxel-64"
    """World model: a shipped name or the folder of a trained one."""
    seed: int = 0
    """Seed of everything random."""
    smoke: bool = False
    """A minute instead of ten: shows that everything runs, learns nothing."""

    def settings(self) -> tuple[TrainAgentConfig, CompareConfig]:
        """The two commands that the demo is made of."""
        steps, episodes = (512, 6) if self.smoke else (self.steps, self.episodes)
        task = EnvConfig(task="GoTo", nav_range=self.nav_range, model=self.model, split="train", num_starts=64, max_episode_steps=48)
        agent = TrainAgentConfig(
            out=self.out / "agent", where="imagined", env=task, ppo=PPOConfig(n_steps=32, n_epochs=4), total_steps=steps, seed=self.seed
        )
        if self.smoke:
            agent = replace(agent, env=replace(task, num_starts=8))
        held_out = replace(task, split="test", num_starts=episodes)
        return agent, CompareConfig(
            agents=(str(self.out / "agent"), "random"),
            out=self.out,
            env=held_out,
            episodes=episodes,
            replays=min(16, episodes),
            seed=self.seed,
        )


def demo(config: DemoConfig, tell: Tell = lambda what, done, total: None, *, env: Any = None) -> Comparison:
    """Runs the demo.

    Args:
        config: how much of it.
        tell: told about the evaluation's progress; training shows its own bar.
        env: environments to train in, instead of the config's.

    Returns:
        The comparison; ``report.html`` and ``report.json`` are in ``config.out``.
    """
    agent, comparison = config.settings()
    result = train_agent(agent, env=env)
    if not result.finished:
        raise KeyboardInterrupt
    return compare(comparison, tell)
