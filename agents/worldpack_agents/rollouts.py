"""Whole episodes of a policy in either environment, from chosen starts: what evaluation and comparison are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_agents.checkpoints import LoadedAgent
from worldpack_agents.env_config import TASKS, EnvConfig, Where
from worldpack_agents.policies import action_values
from worldpack_agents.vec_env import channels_first, channels_first_space
from worldpack_agents.warm_up import warm_state
from worldpack_env.actions import ActionSet
from worldpack_env.rollout import Observation, Rollout
from worldpack_env.starts import Start

Progress = Callable[[int, int], None]
"""Called as ``progress(episodes_done, episodes_in_all)``."""


EXPLORE: Final = 0.05
"""Share of random actions of a policy that has values and no probabilities."""

Context = Callable[[], Observation]

Facts = dict[str, NDArray[Any]]
"""What ``Rollout.info`` tells of the running episodes, with a leading axis n."""


class Policy(ABC):
    """Something that acts in a batch of episodes."""

    name: str
    knows_map: bool = False
    """Whether it reads the engine's map, which no observation tells and no imagination is bound to."""

    def check(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:  # noqa: B027 - many fit any
        """Checks that the policy fits an environment.

        Raises:
            ValueError: if it does not; the message says what to choose.
        """

    def begin(self, episode: int, seed: int, start: Start, context: Context) -> None:  # noqa: B027 - many keep nothing
        """Episode number ``episode`` is about to begin from ``start``; all that is random in it comes from ``seed``.

        ``context`` gives what an agent would have seen before, ``Rollout.context``.
        """

    @abstractmethod
    def act(self, observation: Observation, facts: Facts, episodes: Sequence[int]) -> Any:
        """Members of the batched action space for the observations ``(n, ...)`` and facts of the running ``episodes``."""

    def close(self) -> None:  # noqa: B027 - many hold nothing
        """Frees what the policy holds; may be called twice."""


class AgentPolicy(Policy):
    """A trained Stable-Baselines3 policy; a recurrent one keeps one state an episode.

    Actions are drawn as in training, unless ``deterministic``. A policy that sees one picture and takes the likeliest action for good stands before
    a wall for ever in an engine, where the same pose gives the same picture; imagined pictures are never quite the same, and free it. Judged so, an
    agent looks worse in the engine than it is, and imagination more flattering.

    An agent of DQN or QR-DQN has values and no probabilities: it takes the best action, and where actions are drawn any action in one of 20
    cases, as Mnih et al. 2015 (doi 10.1038/nature14236) judged theirs.

    What it draws comes from one generator an episode, not from torch's global one as in ``policy.predict``: an episode is then the same whatever
    is played beside it.
    """

    def __init__(self, agent: LoadedAgent, *, name: str = "agent", deterministic: bool = False) -> None:
        self.agent, self.name, self.deterministic = agent, name, deterministic
        self._rngs: dict[int, np.random.Generator] = {}
        self._states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def check(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        """Checks that the policy fits an environment.

        Raises:
            ValueError: if observations or actions are others than it was trained with.
        """
        seen, policy = channels_first_space(cast(gym.spaces.Dict, observation)), self.agent.policy
        if seen != policy.observation_space or action != policy.action_space:
            raise ValueError(
                f"The agent {self.agent.source} sees {policy.observation_space} and acts in {policy.action_space}, the environment has {seen} and "
                f"{action}; choose the goal_obs, action_set and frames that it was trained with."
            )

    def begin(self, episode: int, seed: int, start: Start, context: Context) -> None:
        """Seeds the episode's generator; a recurrent policy forgets, or sees the context if it was trained so."""
        self._rngs[episode] = np.random.default_rng([seed, 19])
        if self.agent.recurrent:
            lstm = self.agent.policy.lstm_actor
            nothing = torch.zeros(lstm.num_layers, 1, lstm.hidden_size, device=self.agent.policy.device)
            self._states[episode] = warm_state(self.agent.policy, context())[0] if self.agent.warm_up else (nothing, nothing)

    def act(self, observation: Observation, facts: Facts, episodes: Sequence[int]) -> NDArray[Any]:
        """The policy's actions."""
        policy = self.agent.policy
        shown = {k: torch.as_tensor(np.ascontiguousarray(v), device=policy.device) for k, v in channels_first(observation).items()}
        with torch.no_grad():
            values = action_values(policy, shown)
            if values is not None:
                best: NDArray[np.int64] = values.argmax(dim=1).cpu().numpy()
                return best if self.deterministic else self._explore(best, values.shape[1], episodes)
            distribution = self._distribution(shown, episodes)
            if isinstance(distribution, torch.distributions.Categorical):
                return self._choose(distribution.probs.double().cpu().numpy(), episodes)
            actions: NDArray[np.float32] = distribution.mean.cpu().numpy()
            deviations = distribution.stddev.cpu().numpy()
        if not self.deterministic:
            noise = [self._rngs[e].standard_normal(actions.shape[1:]) for e in episodes]
            actions = (actions + deviations * np.stack(noise)).astype(np.float32)
        return np.clip(actions, policy.action_space.low, policy.action_space.high)

    def _distribution(self, shown: dict[str, torch.Tensor], episodes: Sequence[int]) -> Any:
        if not self.agent.recurrent:
            return self.agent.policy.get_distribution(shown).distribution
        hidden, cell = (torch.cat([self._states[e][part] for e in episodes], dim=1) for part in (0, 1))
        goes_on = torch.zeros(len(episodes), device=self.agent.policy.device)
        made, (hidden, cell) = self.agent.policy.get_distribution(shown, (hidden, cell), goes_on)
        for i, episode in enumerate(episodes):
            self._states[episode] = (hidden[:, i : i + 1], cell[:, i : i + 1])
        return made.distribution

    def _explore(self, best: NDArray[np.int64], actions: int, episodes: Sequence[int]) -> NDArray[np.int64]:
        rngs = [self._rngs[e] for e in episodes]
        return np.array([rng.integers(actions) if rng.random() < EXPLORE else action for rng, action in zip(rngs, best, strict=True)], np.int64)

    def _choose(self, probabilities: NDArray[np.float64], episodes: Sequence[int]) -> NDArray[np.int64]:
        if self.deterministic:
            best: NDArray[np.int64] = probabilities.argmax(axis=1)
            return best
        below = probabilities.cumsum(axis=1)
        drawn = np.array([[self._rngs[e].random()] for e in episodes]) * below[:, -1:]
        chosen: NDArray[np.int64] = (below <= drawn).sum(axis=1).clip(max=probabilities.shape[1] - 1)
        return chosen


@dataclass(frozen=True)
class Played:
    """One episode."""

    start_index: int
    """Which start of the bank."""
    success: bool
    total_reward: float
    """Undiscounted return."""
    steps: int
    """Env steps."""
    path_length: float
    """Blocks walked."""
    shortest: float
    """Blocks of the shortest way; 0 where there is none (Explore, Find)."""
    spl: float
    """Success weighted by path length (Anderson et al. 2018, arXiv 1807.06757); says nothing where there is no shortest way."""
    failed: bool
    """The simulator lost the slot."""
    poses: NDArray[np.float64]
    """``(steps + 1, 5)``."""
    actions: NDArray[np.float32]
    """``(steps, 9)`` as the simulator was given them."""
    frames: NDArray[np.uint8] | None
    """``(steps + 1, H, W, 3)`` if they were kept."""
    blocked: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """``(steps,)`` whether something stopped (part of) each step's walk."""

    def summary(self) -> dict[str, Any]:
        """The numbers, for JSON; without SPL where there is no shortest way."""
        left_out = ("poses", "actions", "frames", "blocked", *(() if self.shortest > 0 else ("shortest", "spl")))
        return {k: v for k, v in asdict(self).items() if k not in left_out}


def open_rollout(config: EnvConfig, where: Where, num_slots: int, *, starts: Any = None, model: Any = None) -> tuple[Rollout, ActionSet]:
    """The episode loop of an environment, without autoreset, for playing chosen starts.

    Args:
        config: the task.
        where: imagined or real.
        num_slots: episodes at a time.
        starts: a ``StartBank`` to share, None makes the config's own.
        model: a loaded ``WorldPack`` to share, None loads the config's.
    """
    from worldpack_env.assembly import assemble

    options = {k: v for k, v in asdict(config.settled()).items() if k not in ("task", "frame_size")}
    if where == "real" and starts is None:
        options["frame_size"] = config.engine_frames()
    if starts is not None:
        options["starts"] = starts
    if model is not None:
        options["model"] = model
    options["task"] = TASKS[config.task]
    return assemble(num_slots, real=where == "real", **options)


def play(
    rollout: Rollout,
    action_set: ActionSet,
    policy: Policy,
    start_indices: Sequence[int],
    *,
    seed: int = 0,
    keep_frames: int | Collection[int] = 0,
    only: Collection[int] | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Played]:
    """Plays one episode from each start; a free slot takes the next start at once.

    Args:
        rollout: from :func:`open_rollout`.
        action_set: its actions.
        policy: who acts.
        start_indices: starts of the rollout's bank.
        seed: episode ``i`` draws everything random from ``(seed, i)``, whatever slot it is played in.
        keep_frames: keep the frames of the first so many episodes, or of those with these numbers.
        only: play the episodes with these numbers alone, each as it would be among all.
        progress: told about finished episodes.

    Raises:
        ValueError: if the policy does not fit the environment.
    """
    policy.check(rollout.observation_space, action_set.space)
    total = len(start_indices)
    kept = range(keep_frames) if isinstance(keep_frames, int) else keep_frames
    chosen = [episode for episode in range(total) if only is None or episode in only]
    waiting, running = list(chosen), dict[int, int]()  # running: slot -> episode
    poses: dict[int, list[NDArray[np.float64]]] = {}
    actions: dict[int, list[NDArray[np.float32]]] = {}
    frames: dict[int, list[NDArray[np.uint8]]] = {}
    blocked: dict[int, list[bool]] = {}
    rewards = np.zeros(total)
    done: dict[int, Played] = {}
    while waiting or running:
        free = [slot for slot in range(rollout.num_slots) if slot not in running][: len(waiting)]
        if free:
            begun = {slot: waiting.pop(0) for slot in free}
            rngs = [np.random.default_rng([seed, episode]) for episode in begun.values()]
            rollout.begin(free, rngs, {slot: start_indices[episode] for slot, episode in begun.items()})
            running |= begun
            observed, facts = rollout.observe(free), rollout.info(free)
            for i, episode in enumerate(begun.values()):
                context = partial(rollout.context, free[i])
                policy.begin(episode, seed * 1_000_003 + episode, rollout.bank[start_indices[episode]], context)
                poses[episode], actions[episode], blocked[episode] = [facts["pose"][i]], [], []
                if episode in kept:
                    frames[episode] = [observed["image"][i]]
        slots = sorted(running)
        episodes = [running[slot] for slot in slots]
        nav = action_set.batch_to_nav(policy.act(rollout.observe(slots), rollout.info(slots), episodes), len(slots))
        outcome = rollout.advance(slots, nav)
        observed, facts = rollout.observe(slots), rollout.info(slots)
        failed = rollout.failed(slots)
        for i, (slot, episode) in enumerate(zip(slots, episodes, strict=True)):
            rewards[episode] += outcome.reward[i]
            poses[episode].append(facts["pose"][i])
            actions[episode].append(nav[i])
            blocked[episode].append(bool(facts["blocked"][i]))
            if episode in frames:
                frames[episode].append(observed["image"][i])
            if outcome.terminated[i] or outcome.truncated[i]:
                del running[slot]
                done[episode] = Played(
                    start_index=int(start_indices[episode]),
                    success=bool(facts["is_success"][i]),
                    total_reward=float(rewards[episode]),
                    steps=len(actions[episode]),
                    path_length=float(facts["path_length"][i]),
                    shortest=float(facts["shortest"][i]),
                    spl=float(facts["spl"][i]),
                    failed=bool(failed[i]),
                    poses=np.stack(poses[episode]),
                    actions=np.stack(actions[episode]),
                    frames=np.stack(frames[episode]) if episode in frames else None,
                    blocked=np.array(blocked[episode], np.bool_),
                )
                progress(len(done), len(chosen))
    return [done[episode] for episode in chosen]
