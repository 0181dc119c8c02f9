"""NavVectorEnv: many episodes at a time, Gymnasium's ``VectorEnv``, with one call of the simulator for all of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Unpack

from worldpack_env.actions import ActionSet
from worldpack_env.assembly import NavOptions, assemble, closing_on_error
from worldpack_env.env import RENDER_FPS, RENDER_MODES, NavSnapshot, check_render_mode, stream_state
from worldpack_env.rollout import Observation, Rollout, read_options
from worldpack_env.starts import StartBank

Flags = NDArray[np.bool_]
StepResult = tuple[Observation, NDArray[np.float64], Flags, Flags, dict[str, Any]]


class NavVectorEnv(VectorEnv[Observation, Any, NDArray[Any]]):
    """``n`` navigation episodes over a simulator of ``n`` slots.

    Observations, rewards, flags and infos are what ``n`` :class:`~worldpack_env.env.NavEnv` would give, batched: slot ``i`` of
    ``reset(seed=s)`` equals a single environment with ``reset(seed=s + i)``. All returned arrays are fresh.

    What happens to a slot whose episode ended at step t (``metadata["autoreset_mode"]``):

    ===========  ===============================================  ==========================================================
    mode         step t returns                                   step t + 1
    ===========  ===============================================  ==========================================================
    SAME_STEP    first frame of the *next* episode; the last one  plays on
                 in ``infos["final_obs"]``, ``["final_info"]``
    NEXT_STEP    last frame                                       ignores the action, returns the next episode's first frame
    DISABLED     last frame                                       raises, unless ``reset(options={"reset_mask": ...})`` came
    ===========  ===============================================  ==========================================================
    """

    def __init__(
        self,
        rollout: Rollout,
        action_set: ActionSet,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        """Wraps a rollout; closes it with itself.

        Args:
            rollout: simulator, task and starts; made with ``keep_history`` if ``render_mode`` is set.
            action_set: what the agents may choose.
            autoreset_mode: what follows the end of an episode, see the class.
            render_mode: ``rgb_array`` or None.

        Raises:
            ValueError: if a mode is not one there is.
        """
        check_render_mode(render_mode, rollout)
        self.rollout, self.action_set, self.render_mode = rollout, action_set, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": RENDER_MODES, "render_fps": RENDER_FPS, "autoreset_mode": self.autoreset_mode}
        self.num_envs = rollout.num_slots
        self.max_episode_steps = rollout.max_episode_steps
        self.single_observation_space, self.single_action_space = rollout.observation_space, action_set.space
        self.observation_space = batch_space(rollout.observation_space, self.num_envs)
        self.action_space = batch_space(action_set.space, self.num_envs)
        self._all = list(range(self.num_envs))
        self._rngs: list[np.random.Generator | None] = [None] * self.num_envs
        self._begun = False
        self._ended = np.zeros(self.num_envs, np.bool_)

    # ------------------------------------------------------------------------------------------------------------------ Gymnasium

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begins episodes.

        Args:
            seed: a number s seeds slot i with s + i; a list gives each slot its own; None goes on with the old streams.
            options: ``reset_mask (num_envs,) bool`` resets only the slots where it is True; ``start_index`` and ``start`` choose where to
                begin, one for all or a list with one entry (or None) for each slot.

        Returns:
            Observations of all slots, and infos of those that were reset.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ResetNeeded: if the very first reset leaves slots out.
            TypeError: if the mask is no bool array.
            ValueError: if a mask, list or option does not fit.
        """
        self._check_open("reset")
        seeds = self._seeds(seed)
        mask = self._mask(options)
        forced = read_options(options, num_slots=self.num_envs, bank=self.rollout.bank)
        if not self._begun and not mask.all():
            raise ResetNeeded("The first reset() begins all slots; leave out options['reset_mask'].")
        if isinstance(seed, (int, np.integer)):
            super().reset(seed=int(seed))
        rows = np.flatnonzero(mask).tolist()
        for slot in rows:
            if seeds[slot] is not None:
                self._rngs[slot], _ = seeding.np_random(seeds[slot])
        self._begin(rows, forced)
        self._begun = True
        return self.rollout.observe(self._all), self._pack(rows)

    def step(self, actions: Any) -> StepResult:
        """Advances all slots by one env step.

        Args:
            actions: a member of ``action_space``.

        Raises:
            ResetNeeded: before the first ``reset``, and with autoreset DISABLED where a slot's episode has ended.
            ClosedEnvironmentError: after ``close``.
            InvalidAction: if ``actions`` is not in the action space.
        """
        self._check_open("step")
        if not self._begun:
            raise ResetNeeded("Call reset() before the first step().")
        nav = self.action_set.batch_to_nav(actions, self.num_envs)
        n = self.num_envs
        reward, terminated, truncated = np.zeros(n), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        waiting = np.flatnonzero(self._ended).tolist()
        if waiting and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(f"The episodes of slots {waiting} have ended; reset them with options={{'reset_mask': mask}} before step().")
        playing = [slot for slot in self._all if not self._ended[slot]] if waiting else self._all
        if playing:
            reward[playing], terminated[playing], truncated[playing] = self.rollout.advance(playing, nav[playing])
        if waiting:  # NEXT_STEP: their action is ignored
            self._begin(waiting)
        self._ended = terminated | truncated
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            done = np.flatnonzero(self._ended).tolist()
            infos = self._final(done)
            self._begin(done)
        infos |= self._pack(self._all)
        return self.rollout.observe(self._all), reward, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One picture for each slot; None without a render mode.

        Raises:
            ResetNeeded: before the first ``reset``.
        """
        if self.render_mode is None:
            gym.logger.warn('This environment was made without a render mode; make it with render_mode="rgb_array" to get pictures.')
            return None
        if not self._begun:
            raise ResetNeeded("Call reset() before render().")
        return tuple(self.rollout.picture(slot) for slot in self._all)

    def close_extras(self, **kwargs: Any) -> None:
        """Frees the simulator."""
        self.rollout.close()

    # ------------------------------------------------------------------------------------------------------------------ more

    def snapshot(self, slots: Sequence[int] | None = None) -> NavSnapshot:
        """A copy of everything that decides the future of ``slots`` (None: all).

        Raises:
            ResetNeeded: before the first ``reset``.
            NotImplementedError: where the engine cannot do it.
        """
        self._check_open("snapshot")
        if not self._begun:
            raise ResetNeeded("Call reset() before snapshot().")
        rows = self._slots(slots)
        return NavSnapshot(
            rollout=self.rollout.snapshot(rows),
            streams=tuple(stream_state(self._stream(slot)) for slot in rows),
            ended=tuple(bool(self._ended[slot]) for slot in rows),
        )

    def restore(self, snapshot: NavSnapshot, slots: Sequence[int] | None = None) -> Observation:
        """Puts a snapshot of as many slots into ``slots`` (None: all), also into others than it was taken from.

        Returns:
            Observations of all slots.
        """
        self._check_open("restore")
        rows = self._slots(slots)
        if not self._begun and len(rows) < self.num_envs:
            raise ResetNeeded("Call reset() before restoring some of the slots.")
        self.rollout.restore(rows, snapshot.rollout)
        for slot, state, ended in zip(rows, snapshot.streams, snapshot.ended, strict=True):
            self._stream(slot).bit_generator.state = copy.deepcopy(state)
            self._ended[slot] = ended
        self._begun = True
        return self.rollout.observe(self._all)

    def fork(self, source: int, slots: Sequence[int] | None = None) -> Observation:
        """Copies the running episode of slot ``source`` into ``slots`` (None: all others): the same past, futures of their own.

        Its source of chance is copied too, so the same actions give the same future; what differs from here on are the actions.

        Returns:
            Observations of all slots.
        """
        snapshot = self.snapshot([source])
        for slot in self._slots([slot for slot in self._all if slot != source] if slots is None else slots):
            self.restore(snapshot, [slot])
        return self.rollout.observe(self._all)

    def set_bank(self, bank: StartBank) -> None:
        """Takes the starts of new episodes from ``bank`` from the next (auto)reset on (for curricula); a step limit that was given stays."""
        self.rollout.set_bank(bank)

    def set_odds(self, odds: ArrayLike | None) -> None:
        """How likely new episodes begin at each start of the bank, ``(len(bank),)`` relative to each other; None makes all alike (for curricula).

        Raises:
            ValueError: if they are not as many numbers as starts, none below 0 and one above it.
        """
        self.rollout.set_odds(odds)

    # ------------------------------------------------------------------------------------------------------------------ inner

    def _begin(self, rows: list[int], forced: Any = None) -> None:
        self.rollout.begin(rows, [self._stream(slot) for slot in rows], forced)
        self._ended[rows] = False

    def _stream(self, slot: int) -> np.random.Generator:
        """The slot's own source of chance; one that nobody seeded is derived from the environment's."""
        rng = self._rngs[slot]
        if rng is None:
            rng, _ = seeding.np_random(int(self.np_random.integers(2**31)))
            self._rngs[slot] = rng
        return rng

    def _pack(self, rows: list[int]) -> dict[str, Any]:
        """Infos of ``rows`` as Gymnasium's vector infos: arrays over all slots, each with a ``_key`` mask."""
        info: dict[str, NDArray[Any]] = self.rollout.info(rows)
        lost = self.rollout.failed(rows)
        infos: dict[str, Any] = {}
        mask = np.zeros(self.num_envs, np.bool_)
        mask[rows] = True
        for key, value in info.items():
            if len(rows) < self.num_envs:
                spread = np.zeros((self.num_envs, *value.shape[1:]), value.dtype)
                spread[rows] = value
                value = spread
            infos[key], infos[f"_{key}"] = value, mask.copy()
        if lost.any():
            failure = np.zeros(self.num_envs, np.bool_)
            failure[rows] = lost
            infos["model_failure"], infos["_model_failure"] = failure, failure.copy()
        return infos

    def _final(self, done: list[int]) -> dict[str, Any]:
        """``final_obs`` and ``final_info`` of the slots whose episode just ended."""
        last = self.rollout.observe(done)
        final = np.full(self.num_envs, None, object)
        for i, slot in enumerate(done):
            final[slot] = {key: copy.deepcopy(value[i]) for key, value in last.items()}
        mask = self._ended.copy()
        return {"final_obs": final, "_final_obs": mask, "final_info": self._pack(done), "_final_info": mask.copy()}

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + slot for slot in self._all]
        seeds = [None if s is None else int(s) for s in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed is a list of {len(seeds)}, expected one entry for each of {self.num_envs} slots.")
        return seeds

    def _mask(self, options: dict[str, Any] | None) -> Flags:
        """``options["reset_mask"]``, checked as ``SyncVectorEnv`` checks it; all True where there is none."""
        if options is None or "reset_mask" not in options:
            return np.ones(self.num_envs, np.bool_)
        mask = options["reset_mask"]
        if not isinstance(mask, np.ndarray):
            raise TypeError(f"`options['reset_mask']` must be a numpy array, got {type(mask)}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"`options['reset_mask']` must have shape `({self.num_envs},)`, got {mask.shape}")
        if mask.dtype != np.bool_:
            raise TypeError(f"`options['reset_mask']` must have `dtype=np.bool_`, got {mask.dtype}")
        if not mask.any():
            raise ValueError(f"`options['reset_mask']` must contain a boolean array with at least one True value, got reset_mask={mask}")
        return mask

    def _slots(self, slots: Sequence[int] | None) -> list[int]:
        rows = self._all if slots is None else [int(slot) for slot in slots]
        if not rows or len(set(rows)) < len(rows) or not set(rows) <= set(self._all):
            raise ValueError(f"slots are {rows}, expected different numbers from 0 to {self.num_envs - 1}.")
        return rows

    def _check_open(self, what: str) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"{what}() was called after close(); make a new environment.")


def make_nav_vector_env(
    num_envs: int,
    *,
    autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
    **options: Unpack[NavOptions],
) -> NavVectorEnv:
    """Makes a vector environment; the vector entry point of all registered ids.

    Args:
        num_envs: number of slots.
        autoreset_mode: what follows the end of an episode, see :class:`NavVectorEnv`.
        render_mode: ``rgb_array`` or None.
        **options: see ``assembly.NavOptions``.
    """
    rollout, action_set = assemble(num_envs, keep_history=render_mode is not None, **options)
    with closing_on_error(rollout):
        return NavVectorEnv(rollout, action_set, autoreset_mode=autoreset_mode, render_mode=render_mode)
