"""What an agent does: Stable-Baselines3 training, evaluation, comparison with the engine, reports. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "SB3VecEnv": "worldpack_agents.vec_env",
    "EnvConfig": "worldpack_agents.env_config",
    "make_envs": "worldpack_agents.env_config",
    "PolicyConfig": "worldpack_agents.policies",
    "NavFeatures": "worldpack_agents.policies",
    "PPOConfig": "worldpack_agents.train",
    "DQNConfig": "worldpack_agents.dqn",
    "TrainAgentConfig": "worldpack_agents.train",
    "train_agent": "worldpack_agents.train",
    "RefreshConfig": "worldpack_agents.refresh",
    "load_agent": "worldpack_agents.checkpoints",
    "AgentPolicy": "worldpack_agents.rollouts",
    "RandomPolicy": "worldpack_agents.baselines",
    "EvalAgentConfig": "worldpack_agents.evaluate",
    "evaluate_agent": "worldpack_agents.evaluate",
    "CompareConfig": "worldpack_agents.compare",
    "compare": "worldpack_agents.compare",
    "write_report": "worldpack_agents.report",
    "DemoConfig": "worldpack_agents.demo",
    "demo": "worldpack_agents.demo",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
