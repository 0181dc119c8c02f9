"""NavEnv: one episode at a time, Gymnasium's ``Env``."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Unpack

from worldpack_env.actions import ActionSet
from worldpack_env.assembly import NavOptions, assemble, closing_on_error
from worldpack_env.rollout import Observation, Rollout, RolloutSnapshot, read_options
from worldpack_env.starts import StartBank

RENDER_MODES = ["rgb_array"]
RENDER_FPS = 5
"""An env step is 0.2 s of game time."""


@dataclass(frozen=True)
class NavSnapshot:
    """A copy of some slots of an environment; opaque to users. Can be restored in any environment of the same settings."""

    rollout: RolloutSnapshot
    streams: tuple[dict[str, Any], ...]
    ended: tuple[bool, ...]


class NavEnv(gym.Env[Observation, Any]):
    """A navigation episode in an imagined or a real world, whatever :class:`Rollout`'s simulator is.

    Observation: a dict of ``image (H, W, 3) uint8`` and the goal's entry (``goals.GoalView``). Reward: ``tasks``. ``info``:
    ``Rollout.info``, and ``model_failure`` = True where the episode was truncated because the simulator lost it: a prediction that
    is not finite, or an engine that could not go on.

    ``reset(options={"start_index": i})`` begins at start i of the bank, ``options={"start": start}`` at any start.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": RENDER_MODES, "render_fps": RENDER_FPS}  # type: ignore[misc]

    def __init__(self, rollout: Rollout, action_set: ActionSet, *, render_mode: str | None = None) -> None:
        """Wraps a rollout of one slot; closes it with itself.

        Args:
            rollout: simulator, task and starts; made with ``keep_history`` if ``render_mode`` is set.
            action_set: what the agent may choose.
            render_mode: ``rgb_array`` or None.

        Raises:
            ValueError: if the rollout has not exactly one slot, or the render mode is not one there is.
        """
        if rollout.num_slots != 1:
            raise ValueError(f"NavEnv needs a rollout of 1 slot, got {rollout.num_slots}; use NavVectorEnv for more.")
        check_render_mode(render_mode, rollout)
        self.rollout, self.action_set, self.render_mode = rollout, action_set, render_mode
        self.observation_space: gym.spaces.Dict = rollout.observation_space
        self.action_space = action_set.space
        self.max_episode_steps = rollout.max_episode_steps
        self._begun = self._running = self._closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode.

        Args:
            seed: begins a new stream of chance; None goes on with the old one.
            options: ``start_index`` or ``start``, see the class.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ValueError: if an option is wrong.
        """
        self._check_open("reset")
        forced = read_options(options, num_slots=1, bank=self.rollout.bank)
        super().reset(seed=seed)
        self.rollout.begin([0], [self.np_random], forced)
        self._begun = self._running = True
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advances by one env step (4 game ticks, 0.2 s).

        Raises:
            ResetNeeded: before the first ``reset`` and after the episode ended.
            ClosedEnvironmentError: after ``close``.
            InvalidAction: if ``action`` is not in the action space.
        """
        self._check_open("step")
        if not self._running:
            why = "The episode has ended; call reset()" if self._begun else "Call reset()"
            raise ResetNeeded(f"{why} before step().")
        nav = self.action_set.to_nav(action)
        outcome = self.rollout.advance([0], nav[None])
        terminated, truncated = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        self._running = not (terminated or truncated)
        return self._observation(), float(outcome.reward[0]), terminated, truncated, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """Picture of view, goal, map and retrieved memories; None without a render mode.

        Raises:
            ResetNeeded: before the first ``reset``.
        """
        if self.render_mode is None:
            gym.logger.warn('This environment was made without a render mode; make it with render_mode="rgb_array" to get pictures.')
            return None
        if not self._begun:
            raise ResetNeeded("Call reset() before render().")
        return self.rollout.picture(0)

    def snapshot(self) -> NavSnapshot:
        """A copy of everything that decides the episode's future, to come back to with :meth:`restore`.

        Raises:
            ResetNeeded: before the first ``reset``.
            NotImplementedError: where the engine cannot do it.
        """
        self._check_open("snapshot")
        if not self._begun:
            raise ResetNeeded("Call reset() before snapshot().")
        return NavSnapshot(self.rollout.snapshot([0]), (stream_state(self.np_random),), (not self._running,))

    def restore(self, snapshot: NavSnapshot) -> tuple[Observation, dict[str, Any]]:
        """Puts a snapshot back and returns what it shows, as ``reset`` does."""
        self._check_open("restore")
        self.rollout.restore([0], snapshot.rollout)
        self.np_random.bit_generator.state = copy.deepcopy(snapshot.streams[0])
        self._begun, self._running = True, not snapshot.ended[0]
        return self._observation(), self._info()

    def set_bank(self, bank: StartBank) -> None:
        """Takes the starts of new episodes from ``bank`` from the next reset on (for curricula); a step limit that was given stays."""
        self.rollout.set_bank(bank)

    def set_odds(self, odds: ArrayLike | None) -> None:
        """How likely new episodes begin at each start of the bank, ``(len(bank),)`` relative to each other; None makes all alike (for curricula).

        Raises:
            ValueError: if they are not as many numbers as starts, none below 0 and one above it.
        """
        self.rollout.set_odds(odds)

    def close(self) -> None:
        """Frees the simulator; may be called twice."""
        if not self._closed:
            self._closed = True
            self.rollout.close()

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise ClosedEnvironmentError(f"{what}() was called after close(); make a new environment.")

    def _observation(self) -> Observation:
        return {key: value[0] for key, value in self.rollout.observe([0]).items()}

    def _info(self) -> dict[str, Any]:
        info = {key: value[0] if value.ndim > 1 else value[0].item() for key, value in self.rollout.info([0]).items()}
        if self.rollout.failed([0])[0]:
            info["model_failure"] = True
        return info


def check_render_mode(render_mode: str | None, rollout: Rollout) -> None:
    """Refuses render modes there are not, and rollouts that keep too little for pictures.

    Raises:
        ValueError: see above.
    """
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {render_mode!r}, expected None or one of {', '.join(RENDER_MODES)}.")
    if render_mode is not None and not rollout.keeps_history:
        raise ValueError("render_mode needs a rollout that keeps its history; make it with keep_history=True.")


def stream_state(rng: np.random.Generator) -> dict[str, Any]:
    """A copy of a generator's state."""
    state: dict[str, Any] = copy.deepcopy(dict(rng.bit_generator.state))
    return state


def make_nav_env(*, render_mode: str | None = None, **options: Unpack[NavOptions]) -> NavEnv:
    """Makes a single environment; the entry point of all registered ids.

    Note that ``gym.make(id, max_episode_steps=n)`` never passes ``n`` on: it wraps the environment in ``TimeLimit``, which can only shorten
    the default limit. To lengthen it, call this function, or ``gym.make_vec``, which does pass it on.

    Args:
        render_mode: ``rgb_array`` or None.
        **options: see ``assembly.NavOptions``.
    """
    rollout, action_set = assemble(1, keep_history=render_mode is not None, **options)
    with closing_on_error(rollout):
        return NavEnv(rollout, action_set, render_mode=render_mode)


# Gymnasium looks for the render modes of a function entry point here, and then offers "human" and "rgb_array_list" by itself.
make_nav_env.metadata = NavEnv.metadata  # type: ignore[attr-defined]
