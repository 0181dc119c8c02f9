"""Dyna-style refresh (Sutton 1991): the agent learns in imagination, plays in the engine, and the world model learns from what it met there.

An agent that trains in imagination finds the places where the model is wrong, and lives there: recorded walkers know the ground, so the model has
seldom seen somebody walk against it. One round is

1. the agent trains in the model, from the weights of the round before;
2. it plays in the engine from new starts of the training split (its actions drawn as in training, some at random), and each episode is written as
   the recorder writes them, with the solid blocks around the body;
3. the motion model goes on training on the old episodes and all that were collected, on request the denoiser as well.

The new starts join the bank that the next round trains on. After the last round the agent trains once more in the newest model.

Folder: ``config.json``, ``round-<r>/agent/`` (a run of train-agent), ``round-<r>/episodes/`` and ``collected.jsonl``, ``round-<r>/model/`` (a run of
train-model), ``refresh.json``. Each phase continues where a kill left it, and what is finished is not done again: the result is that of an
uninterrupted loop. Steps in the engine that a kill made the loop play again are counted once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from worldpack_agents.baselines import Clumsy, open_policy
from worldpack_agents.callbacks import read_curve, segment_seed
from worldpack_agents.rollouts import open_rollout, play
from worldpack_agents.train import TrainAgentConfig, deciding, train_agent
from worldpack_env.folder_lock import locked
from worldpack_env.recorder import played_episode
from worldpack_env.worlds import make_world
from worldpack_model.checkpoint import CheckpointError, read_manifest, write_json
from worldpack_model.dataset import data_id
from worldpack_model.episodes import EpisodeIndex, write_atomically, write_episode
from worldpack_model.trainer import TrainModelConfig, train_model

log = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]
"""Called as ``tell(what, done, total)``."""
COLLECTED: Final = "collected.jsonl"


@dataclass(frozen=True)
class RefreshConfig:
    """Trains an agent in imagination, and the world model on what it meets in the engine; run the same command again to continue."""

    out: Path
    """Folder of the loop; an interrupted one in it is continued."""
    data: Path
    """Folder of the episodes that the world model was trained on; they are not forgotten."""
    agent: TrainAgentConfig = field(default_factory=lambda: TrainAgentConfig(out=Path("agent")))
    """The agent's training, all rounds together: its total_steps are shared out and its learning rates fall over all of them; env.model is the first
    world model; out means nothing, each round has a folder of its own."""
    rounds: int = 3
    """How often the model is refreshed; the agent trains once more than that."""
    episodes: int = 200
    """Episodes in the engine each round, each from a new start that joins the bank."""
    random_share: float = 0.1
    """Share of random actions in those episodes, beside those that the agent draws."""
    preset: str = "voxel-64"
    """Configuration of the world model, as it was trained with."""
    variant: str = "worldpack"
    """Its context."""
    latents: Path | None = None
    """`latents` folder of a run on `data` with this model's autoencoder, to save encoding again."""
    init_run: Path | None = None
    """Run folder of the model on `data`, whose kept predictions are shown to the motion model as imagined frames."""
    motion_steps: int = 1000
    """Training steps of the motion model each round."""
    motion_rate: float = 8e-4
    """Their peak learning rate."""
    motion_batch: int = 64
    """Steps of bodies in each."""
    denoiser_steps: int = 0
    """Training steps of the denoiser each round; 0 leaves it as it is."""
    denoiser_rate: float = 1e-4
    """Their peak learning rate."""
    model_checkpoint_every: int = 200
    """Steps between checkpoints of the world model."""
    threads: int = 0
    """CPU threads of the world model's training; 0 leaves torch's choice."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Of the world model's training."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        for name in ("rounds", "episodes", "motion_steps", "motion_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.agent.where != "imagined":
            raise ValueError("A refresh is of an agent that trains in imagination; leave --agent.in out.")
        if self.agent.env.split != "train":
            raise ValueError(
                f"The world model learns from the agent's episodes, so they are played in train worlds, not {self.agent.env.split} ones."
            )
        if self.agent.curriculum.teacher != "none":
            raise ValueError("Every round would begin the curriculum anew, with the easiest lesson; leave agent.curriculum.teacher out of a refresh.")
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"random_share must be between 0 and 1, not {self.random_share}.")
        if self.denoiser_steps < 0:
            raise ValueError(f"denoiser_steps must not be below 0, got {self.denoiser_steps}.")


_MAY_CHANGE: Final = ("out", "data", "agent", "latents", "init_run", "model_checkpoint_every", "threads", "mixed_precision")


@dataclass(frozen=True)
class RefreshResult:
    """How a loop ended."""

    agent: Path
    """Run folder of the last agent."""
    model: Path
    """Folder of the last world model, which it was trained in."""
    rounds: list[dict[str, Any]]
    """What ``refresh.json`` says of each."""
    real_steps: int
    """Env steps in the engine that any of it learned from, beside the contexts of the starts."""


def refresh(config: RefreshConfig, tell: Tell = lambda what, done, total: None) -> RefreshResult:
    """Runs (or continues) a loop.

    Raises:
        CheckpointError: if the folder holds another loop, or is damaged.
        EpisodeError: if ``data`` holds no sound episodes.
        ValueError: if a setting does not fit, or another process works in the folder.
        KeyboardInterrupt: if a signal stopped the agent's training.
    """
    with locked(config.out, "trains"):
        _claim(config)
        model, previous, rounds = config.agent.env.model, None, list[dict[str, Any]]()
        for number in range(config.rounds + 1):
            folder = config.out / f"round-{number}"
            agent = agent_config(config, number, model, previous)
            tell("rounds", number, config.rounds)
            trained = train_agent(agent)
            if not trained.finished:
                raise KeyboardInterrupt
            in_engine = trained.steps * agent.real_envs // agent.num_envs
            rounds.append({"round": number, "model": model, "agent_steps": trained.steps, "agent_real_steps": in_engine, "collected_steps": 0})
            previous = agent.out
            if number < config.rounds:
                rounds[-1] |= collect(config, number, agent, tell)
                model = str(_fine_tune(config, number, model, folder / "model", tell))
            _write(config, rounds)
    return RefreshResult(agent=previous or config.out, model=Path(model), rounds=rounds, real_steps=_real_steps(rounds))


def agent_config(config: RefreshConfig, number: int, model: str, previous: Path | None) -> TrainAgentConfig:
    """The agent's training in a round: its share of the steps and of the fall of the learning rates, on all starts so far."""
    agent, parts = config.agent, config.rounds + 1
    ppo, dqn = agent.ppo, agent.dqn

    def rate(first: float, last: float, part: int) -> float:
        return first + (last - first) * part / parts

    return replace(
        agent,
        out=config.out / f"round-{number}" / "agent",
        env=replace(agent.env, model=model, num_starts=agent.env.num_starts + number * config.episodes),
        total_steps=math.ceil(agent.total_steps / parts),
        init=agent.init if previous is None else previous,
        seed=agent.seed if number == 0 else segment_seed(agent.seed, number),
        ppo=replace(
            ppo,
            learning_rate=rate(ppo.learning_rate, ppo.final_learning_rate, number),
            final_learning_rate=rate(ppo.learning_rate, ppo.final_learning_rate, number + 1),
        ),
        dqn=replace(
            dqn,
            learning_rate=rate(dqn.learning_rate, dqn.final_learning_rate, number),
            final_learning_rate=rate(dqn.learning_rate, dqn.final_learning_rate, number + 1),
            exploration_initial=dqn.exploration_initial if number == 0 else dqn.exploration_final,
        ),
    )


def collect(config: RefreshConfig, number: int, agent: TrainAgentConfig, tell: Tell = lambda what, done, total: None) -> dict[str, Any]:
    """Plays the round's episodes in the engine and writes those that are missing; returns what is told of them."""
    folder = config.out / f"round-{number}"
    file, episodes = folder / COLLECTED, folder / "episodes"
    lines: dict[int, dict[str, Any]] = {int(line["episode"]): dict(line) for line in read_curve(file)}
    missing = [n for n in range(config.episodes) if n not in lines]
    if missing:
        write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines.values()))  # without a torn line
        # starts that no agent was trained on yet; from the next round on they are in its bank
        env = replace(agent.env, num_starts=agent.env.num_starts + config.episodes)
        starts = range(agent.env.num_starts, env.num_starts)
        rollout, action_set = open_rollout(env, "real", min(agent.num_envs, config.episodes))
        world = make_world(env.world, frame_size=rollout.bank.frame_size)
        policy = open_policy(str(agent.out), action_set)
        policy = Clumsy(policy, config.random_share, action_set.space) if config.random_share else policy
        with contextlib.closing(policy), contextlib.closing(world), contextlib.closing(rollout):
            while missing:
                some, missing = missing[: 2 * rollout.num_slots], missing[2 * rollout.num_slots :]
                played = play(rollout, action_set, policy, starts, seed=segment_seed(agent.seed, number), keep_frames=some, only=some)
                for episode, one in zip(some, played, strict=True):
                    start = rollout.bank[one.start_index]
                    if not one.failed and one.frames is not None:  # what a lost engine showed is not what is there
                        write_episode(episodes, played_episode(world, start, one.frames, one.poses, one.actions, one.blocked), stem=f"{episode:06d}")
                    lines[episode] = {
                        "episode": episode,
                        "steps": one.steps,
                        "stopped": int(one.blocked.sum()),
                        "context": len(start.frames) - 1,
                        "success": one.success,
                        "lost": one.failed,
                    }
                    with file.open("a") as out:
                        out.write(json.dumps(lines[episode]) + "\n")
                    tell(f"round {number}: episodes in the engine", len(lines), config.episodes)
    EpisodeIndex.build(episodes, skip_damaged=True)
    steps = sum(line["steps"] for line in lines.values())
    return {
        "episodes": len(lines),
        "lost": sum(line["lost"] for line in lines.values()),
        "collected_steps": steps,
        "context_steps": sum(line["context"] for line in lines.values()),
        "success": float(np.mean([line["success"] for line in lines.values()])),
        "stopped": sum(line["stopped"] for line in lines.values()) / steps,
    }


def _fine_tune(config: RefreshConfig, number: int, model: str, out: Path, tell: Tell) -> Path:
    """The world model after a round, trained on what it knew and on all that was collected."""
    done = out / "model"
    if (done / "manifest.json").is_file():  # written last and in one move
        read_manifest(done)
        return done
    latents = config.latents or (config.out / "round-0" / "model" / "latents" if number else None)
    return train_model(
        TrainModelConfig(
            data=config.data,
            more_data=tuple(config.out / f"round-{n}" / "episodes" for n in range(number + 1)),
            out=out,
            preset=config.preset,
            variant=config.variant,
            autoencoder=config.agent.env.model,
            latents=latents,
            init=model,
            init_motion=model,
            init_run=config.init_run,
            steps=config.denoiser_steps,
            learning_rate=config.denoiser_rate,
            body_steps=0,
            motion_steps=config.motion_steps,
            motion_rate=config.motion_rate,
            motion_batch=config.motion_batch,
            strays_from=0.0,
            picture_every=0,
            checkpoint_every=config.model_checkpoint_every,
            seed=segment_seed(config.agent.seed, number),
            threads=config.threads,
            device=config.agent.env.device,
            mixed_precision=config.mixed_precision,
        ),
        lambda stage, at, total, numbers: tell(f"round {number}: {stage}", at, total),
    )


def _real_steps(rounds: list[dict[str, Any]]) -> int:
    return sum(line["agent_real_steps"] + line["collected_steps"] for line in rounds)


def _write(config: RefreshConfig, rounds: list[dict[str, Any]]) -> None:
    write_json(config.out / "refresh.json", {"rounds": rounds, "real_steps": _real_steps(rounds)})


def _claim(config: RefreshConfig) -> None:
    """A folder belongs to one loop."""
    plan = {k: v for k, v in asdict(config).items() if k not in _MAY_CHANGE}
    plan |= {"agent": deciding(config.agent), "data_id": data_id(EpisodeIndex.open(config.data))}
    plan, path = json.loads(json.dumps(plan)), config.out / "config.json"
    if not path.is_file():
        write_json(path, plan)
        return
    try:
        old = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); choose another --out.") from error
    changed = sorted(key for key in plan if old.get(key) != plan[key])
    if changed:
        raise CheckpointError(f"{config.out} holds a refresh with other settings ({', '.join(changed)}); use those or choose another --out.")
