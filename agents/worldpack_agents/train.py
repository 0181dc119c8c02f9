"""Training of a navigation agent in imagined or real environments.

Run folder: ``config.json`` (settings, spaces, versions), ``checkpoints/step_*/`` (``policy.zip`` + ``manifest.json``), ``curve.jsonl``,
TensorBoard's ``tensorboard/``, for DQN also ``replay/``, and with ``eval_every`` ``evaluation.jsonl`` and ``best/step_*/``. The same command started
again continues from the newest checkpoint; see :class:`SegmentCheckpoints` for what is equal then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, cast

import gymnasium as gym
import torch
import tyro
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, TensorBoardOutputFormat

from worldpack_agents.callbacks import CurveWriter, Lessons, ProgressBar, SegmentCheckpoints, StopOnSignal, restore_statistics
from worldpack_agents.checkpoints import (
    CONFIG,
    POLICY,
    find_checkpoint,
    newest_checkpoint,
    read_checkpoint_tensors,
    read_policy_tensors,
    read_run_config,
    space_to_dict,
    write_run_config,
)
from worldpack_agents.curriculum import CurriculumConfig, lesson_bank, lessons_of, make_teacher
from worldpack_agents.dqn import DQNConfig, check_buffer, drop_buffers, load_buffer
from worldpack_agents.env_config import EnvConfig, Where, make_envs
from worldpack_agents.eval_callback import EvalCallback
from worldpack_agents.policies import VALUE_BASED, Algorithm, PolicyConfig, algorithm_class, policy_kwargs
from worldpack_agents.vec_env import SB3VecEnv
from worldpack_agents.warm_up import WarmUp, rollout_of, warm_policy
from worldpack_env.folder_lock import locked
from worldpack_model.checkpoint import CheckpointError, resolve_device
from worldpack_model.provenance import versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO (Schulman et al. 2017), tuned to learn GoTo within 10,000 env steps."""

    n_steps: int = 32
    """Env steps of each slot between two updates."""
    batch_size: int = 256
    """Transitions of a minibatch."""
    n_epochs: int = 4
    """Passes over the transitions of an update."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    final_learning_rate: float = 2e-4
    """Learning rate at the end; it falls on a straight line."""
    gamma: float = 0.97
    """Discount of an env step."""
    gae_lambda: float = 0.9
    """Trade of bias and variance in the advantages."""
    clip_range: float = 0.2
    """How far an update may move the policy."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Length to which gradients are cut."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        for name in ("n_steps", "batch_size", "n_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}.")
        if not self.learning_rate > 0 or not self.final_learning_rate >= 0:
            raise ValueError("learning_rate must be above 0 and final_learning_rate not below 0.")


@dataclass(frozen=True)
class TrainAgentConfig:
    """Trains a navigation agent with PPO or DQN; run the same command again to continue."""

    out: Path
    """Run folder; an interrupted run in it is continued."""
    where: Annotated[Where, tyro.conf.arg(name="in")] = "imagined"
    """imagined: in the world model. real: in the engine."""
    env: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(default_factory=EnvConfig)
    """The task."""
    algorithm: Algorithm = "ppo"
    """ppo, recurrent-ppo, dqn or qr-dqn; recurrent-ppo and qr-dqn need sb3-contrib."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """PPO's settings."""
    dqn: DQNConfig = field(default_factory=DQNConfig)
    """Settings of dqn and qr-dqn, which take discrete actions: nav-4 or nav-8."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """Size of the networks."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """Which tasks lead to the one that is wanted."""
    init: Path | None = None
    """A trained agent (run folder, checkpoint, or the name of a reference agent, which has no optimiser) with the same algorithm, networks and
    spaces, whose weights and optimiser training starts from."""
    num_envs: int = 16
    """Episodes played at the same time."""
    real_envs: int = 0
    """Of those, when training in imagination: so many are played in the engine, to learn from both."""
    total_steps: int = 100_000
    """Env steps to train for, all slots together; rounded up to whole updates."""
    seed: int = 0
    """Seed of everything random in the run."""
    checkpoint_every: int = 8192
    """Least number of env steps between two checkpoints; each begins new episodes in all slots."""
    keep_checkpoints: int = 3
    """How many checkpoints stay on disk."""
    eval_every: int = 0
    """Env steps between evaluations on validation starts of the task itself; 0 for none."""
    eval_episodes: int = 20
    """Episodes of each."""
    eval_in: tuple[Where, ...] = ("real",)
    """Where: real, imagined, or both. The agent that does best in the first is kept in best/."""
    eval_max_episode_steps: int | None = None
    """Their longest; none is as long as the episodes of training. For agents that train in short stretches of a longer task."""
    eval_videos: int = 1
    """How many of the episodes TensorBoard shows as moving pictures."""
    policy_device: str = "cpu"
    """Where the policy runs: cpu, cuda or auto; small policies are fastest on the CPU."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        for name in ("num_envs", "total_steps", "checkpoint_every", "keep_checkpoints", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.eval_videos < 0:
            raise ValueError(f"eval_videos must be at least 0, not {self.eval_videos}.")
        if self.eval_max_episode_steps is not None and self.eval_max_episode_steps < 1:
            raise ValueError(f"eval_max_episode_steps must be at least 1, not {self.eval_max_episode_steps}.")
        if self.num_envs * self.ppo.n_steps < 2:
            raise ValueError("An update needs at least two transitions; raise num_envs or n_steps.")
        if not 0 <= self.real_envs < self.num_envs or (self.real_envs and self.where == "real"):
            raise ValueError(
                f"real_envs must be at least 0 and below num_envs, in imagination, not {self.real_envs} of {self.num_envs} ({self.where})."
            )
        if self.eval_every < 0 or not self.eval_in:
            raise ValueError(f"eval_every must be at least 0 and eval_in name a place, not {self.eval_every} and {self.eval_in}.")
        if self.curriculum.teacher != "none":
            lessons_of(self.curriculum, self.env)
        if self.algorithm in VALUE_BASED and self.env.action_set == "box":
            raise ValueError(f"{self.algorithm} chooses among discrete actions, not in action_set {self.env.action_set!r}; take nav-4 or nav-8.")
        if self.seed < 0:
            raise ValueError(f"seed must not be below 0, got {self.seed}.")


_MAY_CHANGE: Final = (
    *("out", "progress", "keep_checkpoints", "policy_device"),
    *("eval_every", "eval_episodes", "eval_in", "eval_max_episode_steps", "eval_videos"),
)
"""Settings that do not decide the result and may differ when a run is continued."""


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended."""

    run: Path
    """The run folder; ``load_agent`` takes it."""
    steps: int
    """Env steps of the newest checkpoint."""
    finished: bool
    """False when a signal stopped it."""


class LinearSchedule:
    """A number that falls on a straight line over training; a class of its own so that policies pickle without code in them."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end

    def __call__(self, remaining: float) -> float:
        """The number when ``remaining`` (1 at the start, 0 at the end) of the training is left."""
        return self.end + (self.start - self.end) * min(1.0, max(0.0, remaining))


def train_agent(config: TrainAgentConfig, *, env: gym.vector.VectorEnv[Any, Any, Any] | None = None) -> TrainResult:
    """Trains (or continues) an agent.

    Args:
        config: the run.
        env: a batch of ``config.num_envs`` environments to train in, instead of making the config's; it is left open.

    Raises:
        CheckpointError: if the folder holds a run with other settings, or is damaged.
        ValueError: if a setting does not fit, or another process trains in the folder.
    """
    with locked(config.out, "trains"):
        _check_claim(config)
        newest = newest_checkpoint(config.out)
        if newest is not None and int(newest[1]["steps"]) >= config.total_steps:
            log.info("%s is finished (%d steps).", config.out, newest[1]["steps"])
            return TrainResult(run=config.out, steps=int(newest[1]["steps"]), finished=True)
        world_model, own = None, None
        if env is None:
            world_model, own = _open(config)
        elif config.curriculum.teacher != "none":
            raise ValueError("A curriculum chooses the environment's starts, so none can be given; leave env out.")
        envs = SB3VecEnv(env if env is not None else own)  # type: ignore[arg-type]
        if envs.num_envs != config.num_envs:
            raise ValueError(f"The given environment has {envs.num_envs} slots, the config says {config.num_envs}; make them equal.")
        try:
            if config.algorithm in VALUE_BASED:  # before the folder is claimed
                check_buffer(config.dqn, cast(spaces.Dict, envs.observation_space), config.num_envs)
            if config.algorithm == "recurrent-ppo" and config.policy.warm_up:
                rollout_of(envs)
            _claim(config, envs)
            return _train(config, envs, newest, world_model)
        finally:
            if own is not None:
                own.close()


def _open(config: TrainAgentConfig) -> tuple[Any, gym.vector.VectorEnv[Any, Any, Any]]:
    """The world model (None in the engine) and the environments; with a curriculum their starts are all lessons'."""
    from worldpack_env.imagination import load_world_model

    env = config.env
    imagined = config.where == "imagined"
    model = load_world_model(env.model, device=env.device, precision=env.precision) if imagined else None
    if config.curriculum.teacher == "none":
        return model, make_envs(env, config.where, num_envs=config.num_envs, model=model, real_envs=config.real_envs)
    frame_size = model.config.frame_size if model is not None else env.engine_frames()
    bank = lesson_bank(lessons_of(config.curriculum, env), env, frame_size)
    return model, make_envs(env, config.where, num_envs=config.num_envs, model=model, starts=bank, real_envs=config.real_envs)


def _train(config: TrainAgentConfig, envs: SB3VecEnv, newest: tuple[Path, dict[str, Any]] | None, world_model: Any) -> TrainResult:
    model = build(config, envs)
    if config.algorithm == "recurrent-ppo" and config.policy.warm_up:
        model.policy.warm_up = WarmUp(model, rollout_of(envs))
    steps = 0
    if newest is not None:
        path, manifest = newest
        model.policy.load_state_dict(read_policy_tensors(path / POLICY, str(model.device)))
        model.policy.optimizer.load_state_dict(read_policy_tensors(path / POLICY, str(model.device), part="policy.optimizer"))
        restore_statistics(model, manifest)
        steps = model.num_timesteps
        if config.algorithm in VALUE_BASED:
            _restore_values(model, config, steps)
        log.info("Continuing %s from step %d of %d.", config.out, steps, config.total_steps)
    else:
        if config.init is not None:
            _start_from(config.init, model, config)
        restore_statistics(model, {"steps": 0})
    writers: list[KVWriter] = [TensorBoardOutputFormat(str(config.out / "tensorboard")), CurveWriter(config.out / "curve.jsonl", from_step=steps)]
    model.set_logger(Logger(str(config.out), writers))
    bar = ProgressBar(config.total_steps) if config.progress else None
    callbacks: list[BaseCallback] = []
    stop = StopOnSignal()
    more: Callable[[], dict[str, Any]] = dict
    if config.curriculum.teacher != "none":
        lessons = lessons_of(config.curriculum, config.env)
        teacher = make_teacher(config.curriculum, len(lessons))
        if newest is not None:
            teacher.load(newest[1]["curriculum"])
        bank = envs.get_attr("rollout")[0].bank
        chosen = Lessons(teacher, [lesson.name for lesson in lessons], bank.parts, total_steps=config.total_steps)
        chosen.choose(envs, steps)
        callbacks.append(chosen)
        more = lambda: {"curriculum": teacher.state()}  # noqa: E731
    if config.eval_every:
        recurrent = config.algorithm == "recurrent-ppo"
        callbacks.append(
            EvalCallback(
                config.out,
                replace(config.env, max_episode_steps=config.eval_max_episode_steps or config.env.max_episode_steps),
                config.eval_in,
                every=config.eval_every,
                episodes=config.eval_episodes,
                recurrent=recurrent,
                warm_up=recurrent and config.policy.warm_up,
                from_step=steps,
                stop=stop,
                videos=config.eval_videos,
                model=world_model,
            )
        )
    with stop:
        saver = SegmentCheckpoints(config.out, seed=config.seed, every=config.checkpoint_every, keep=config.keep_checkpoints, stop=stop, more=more)
        saver.init_callback(model)
        saver.begin_segment(saved=newest is not None)
        try:
            # the saver last of those that decide: what it saves is what the others saw
            every = config.num_envs if config.algorithm in VALUE_BASED else 1  # episodes of DQN, updates of PPO, between lines of the curve
            called = [*callbacks, saver, *([bar] if bar else [])]
            model.learn(config.total_steps - steps, callback=called, reset_num_timesteps=False, log_interval=every)
        finally:
            if bar is not None:
                bar.close()
            model.logger.close()
    if not saver.stopped:
        drop_buffers(config.out, None)
    last = newest_checkpoint(config.out)
    return TrainResult(run=config.out, steps=int(last[1]["steps"]) if last else 0, finished=not saver.stopped)


def _start_from(source: Path, model: Any, config: TrainAgentConfig) -> None:
    """Takes another agent's weights and optimiser over.

    Raises:
        CheckpointError: if there is none, or it is of another form.
    """
    run, chosen, _ = find_checkpoint(source)
    there = read_run_config(run)
    for name, ours, theirs in (
        ("algorithm", config.algorithm, there["config"].get("algorithm")),
        ("policy", asdict(config.policy), asdict(PolicyConfig()) | there["config"].get("policy", {})),
        ("observation space", space_to_dict(model.observation_space), there["observation_space"]),
        ("action space", space_to_dict(model.action_space), there["action_space"]),
    ):
        if ours != theirs:
            raise CheckpointError(f"{source} has another {name} ({theirs}) than this run ({ours}); leave --init out.")
    model.policy.load_state_dict(read_checkpoint_tensors(chosen, str(model.device)))
    if not (chosen / POLICY).is_file():  # a reference agent: its optimiser was not shipped
        return
    model.policy.optimizer.load_state_dict(read_policy_tensors(chosen / POLICY, str(model.device), part="policy.optimizer"))


def _restore_values(model: Any, config: TrainAgentConfig, steps: int) -> None:
    """What DQN counts beside the others, and its replay buffer."""
    model._n_calls = steps // config.num_envs
    model.exploration_rate = model.exploration_schedule(1 - steps / config.total_steps)
    if not load_buffer(model.replay_buffer, config.out, steps):
        model.learning_starts = steps + config.dqn.learning_starts


def build(config: TrainAgentConfig, envs: SB3VecEnv) -> Any:
    """The untrained algorithm of a config, its networks initialised from the config's seed.

    Raises:
        ValueError: if the settings do not fit the environments, or a package is missing.
    """
    kind, name = algorithm_class(config.algorithm)
    policy = warm_policy() if config.algorithm == "recurrent-ppo" else name
    common: dict[str, Any] = {
        "policy_kwargs": policy_kwargs(config.policy, config.algorithm),
        "seed": config.seed,
        "device": resolve_device(config.policy_device),
    }
    if config.algorithm in VALUE_BASED:
        dqn = config.dqn
        return kind(
            policy,
            envs,
            buffer_size=dqn.buffer_size,
            learning_starts=dqn.learning_starts,
            batch_size=dqn.batch_size,
            train_freq=1,
            gradient_steps=dqn.gradient_steps,
            learning_rate=LinearSchedule(dqn.learning_rate, dqn.final_learning_rate),
            gamma=dqn.gamma,
            target_update_interval=max(dqn.target_update, config.num_envs),
            exploration_fraction=dqn.exploration_fraction,
            exploration_initial_eps=dqn.exploration_initial,
            exploration_final_eps=dqn.exploration_final,
            max_grad_norm=dqn.max_grad_norm,
            **common,
        )
    ppo = config.ppo
    if config.algorithm == "ppo":
        batch = ppo.batch_size
        if config.num_envs * ppo.n_steps % batch == 1:
            raise ValueError(f"A minibatch of one transition is left over with batch_size {batch}; choose another.")
    return kind(
        policy,
        envs,
        n_steps=ppo.n_steps,
        batch_size=min(ppo.batch_size, config.num_envs * ppo.n_steps),
        n_epochs=ppo.n_epochs,
        learning_rate=LinearSchedule(ppo.learning_rate, ppo.final_learning_rate),
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip_range,
        ent_coef=ppo.ent_coef,
        vf_coef=ppo.vf_coef,
        max_grad_norm=ppo.max_grad_norm,
        **common,
    )


def deciding(config: TrainAgentConfig) -> dict[str, Any]:
    """The settings that decide a run's result, as JSON data."""
    data: dict[str, Any] = {k: v for k, v in asdict(config).items() if k not in _MAY_CHANGE}
    data["init"] = None if config.init is None else str(config.init)
    # another device or precision gives the same task
    data["env"] = {k: v for k, v in asdict(config.env.settled()).items() if k not in ("device", "precision")}
    plain: dict[str, Any] = json.loads(json.dumps(data))  # tuples as the lists that they are in the file
    return plain


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _spelled(flat: dict[str, Any]) -> dict[str, Any]:
    """The same with the paths of folders that are there spelled in one way, wherever a command is run."""
    paths = {key: Path(flat[key]) for key in ("init", "env.model") if flat.get(key)}
    return flat | {key: str(path.resolve()) for key, path in paths.items() if path.exists()}


def _check_claim(config: TrainAgentConfig) -> None:
    """Compares the folder's run with ``config``; a folder without one is free."""
    if not (config.out / CONFIG).is_file():
        if (config.out / "checkpoints").exists():
            raise CheckpointError(f"{config.out} holds checkpoints but no {CONFIG}; choose another --out.")
        return
    # runs from before there was a setting had its default
    old = _spelled(_flat(deciding(TrainAgentConfig(out=config.out))) | _flat(read_run_config(config.out)["config"]))
    new = _spelled(_flat(deciding(config)))
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    if changed:
        told = "; ".join(f"{k} is {old.get(k)} there and {new.get(k)} here" for k in changed)
        raise CheckpointError(f"{config.out} holds a run with other settings ({told}); use those or choose another --out.")


def _claim(config: TrainAgentConfig, envs: SB3VecEnv) -> None:
    spaces = {"observation_space": space_to_dict(envs.observation_space), "action_space": space_to_dict(envs.action_space)}
    path = config.out / CONFIG
    if path.is_file():
        old = read_run_config(config.out)
        for key, value in spaces.items():
            if old[key] != value:
                raise CheckpointError(f"{config.out} was trained with another {key.replace('_', ' ')}; choose another --out.")
        return
    write_run_config(config.out, {"config": deciding(config), **spaces, "versions": versions(), "threads": torch.get_num_threads()})
