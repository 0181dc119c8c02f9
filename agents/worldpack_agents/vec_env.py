"""A Gymnasium vector environment as a Stable-Baselines3 one.

Stable-Baselines3 refuses Gymnasium's ``VectorEnv``; splitting a batched world model into single environments would lose the batch. This adapter
keeps the batch. It also turns pictures from HWC to CHW, once, as a view without a copy, and counts episode statistics, so no ``VecMonitor`` or
``VecTransposeImage`` is needed on top.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

Observation = dict[str, NDArray[Any]]

ALWAYS: Final = ("is_success", "model_failure", "start_index")
"""Keys of an episode's last info that are passed on where the environment gives them."""


def is_picture(space: gym.Space[Any]) -> bool:
    """Whether a space is an ``(H, W, C) uint8`` picture."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[-1] in (1, 3, 4)


def channels_first_space(space: spaces.Dict) -> spaces.Dict:
    """The observation space of a policy: pictures as ``(C, H, W)``, everything else as it is.

    Raises:
        ValueError: if an entry is a kind of space that Stable-Baselines3 policies do not take.
    """
    entries: dict[str, gym.Space[Any]] = {}
    for key, entry in space.spaces.items():
        if not isinstance(entry, spaces.Box):
            raise ValueError(f"Observation {key!r} is a {type(entry).__name__}, policies take boxes only; choose another goal_obs.")
        entries[key] = spaces.Box(0, 255, (entry.shape[2], *entry.shape[:2]), np.uint8) if is_picture(entry) else entry
    return spaces.Dict(entries)


def channels_first(observation: Observation) -> Observation:
    """Turns pictures ``(..., H, W, C) uint8`` of an observation into ``(..., C, H, W)`` views; shares memory with its input."""
    return {k: np.moveaxis(v, -1, -3) if v.dtype == np.uint8 and v.ndim >= 3 else v for k, v in observation.items()}


class SB3VecEnv(VecEnv):
    """Shows a same-step-autoreset ``gymnasium.vector.VectorEnv`` with Dict observations to Stable-Baselines3.

    ``step`` returns observations, ``(n,) float32`` rewards, ``(n,) bool`` dones and one info for each slot. An ended slot's info has
    ``terminal_observation``, ``TimeLimit.truncated`` (cut, not ended by the task: PPO then bootstraps), ``episode`` (``r``, ``l``, ``t``), and
    ``is_success`` and ``model_failure`` where the environment tells them.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], *, info_keys: Sequence[str] = ()) -> None:
        """Wraps ``env``.

        Args:
            env: batched environment; it must hand out fresh arrays, not buffers that its next step overwrites.
            info_keys: keys of the environment's info to pass on at every step, such as ``pose``; copying each costs time.

        Raises:
            ValueError: if the environment cannot be shown to Stable-Baselines3; the message says what to change.
        """
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"The environment has autoreset mode {env.metadata.get('autoreset_mode')}, Stable-Baselines3 needs AutoresetMode.SAME_STEP; "
                "make it with autoreset_mode=AutoresetMode.SAME_STEP."
            )
        rollout = getattr(env, "rollout", None)
        if getattr(rollout, "device", None) is not None:
            raise ValueError("The environment gives torch tensors, Stable-Baselines3 needs arrays; make it with output='numpy'.")
        if not isinstance(env.single_observation_space, spaces.Dict):
            raise ValueError(f"Observations are {env.single_observation_space}, expected a Dict with 'image' and the goal.")
        actions = env.single_action_space
        if isinstance(actions, spaces.Dict):
            raise ValueError("Stable-Baselines3 has no Dict actions; choose action_set='nav-4', 'nav-8' or 'box'.")
        if isinstance(actions, spaces.Discrete) and actions.start != 0:
            raise ValueError(f"Discrete actions start at {actions.start}, Stable-Baselines3 expects 0.")
        self.env = env
        self._info_keys = tuple(info_keys)
        self._actions: NDArray[Any] | None = None
        self._closed = False
        self._returns = np.zeros(env.num_envs, np.float64)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._since = time.monotonic()
        super().__init__(env.num_envs, channels_first_space(env.single_observation_space), actions)

    # ---------------------------------------------------------------------------------------------------------------- rollouts

    def reset(self) -> Observation:
        """Begins a new episode in every slot; seeds and options that were set are used up."""
        seeds: list[int | None] | None = list(self._seeds) if any(seed is not None for seed in self._seeds) else None
        if any(options != self._options[0] for options in self._options):
            raise ValueError("All slots share one reset call, so set_options must give every slot the same options.")
        observation, info = self.env.reset(seed=seeds, options=dict(self._options[0]) or None)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        self._since = time.monotonic()
        self.reset_infos = [self._chosen(info, slot) for slot in range(self.num_envs)]
        return channels_first(observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keeps ``actions (n, ...)`` for :meth:`step_wait`; the batch is computed there."""
        self._actions = actions

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Advances every slot by one env step.

        Raises:
            RuntimeError: if there was no :meth:`step_async` before.
        """
        if self._actions is None:
            raise RuntimeError("step_wait was called without actions; call step(actions) instead.")
        actions, self._actions = self._actions, None
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        dones = np.logical_or(terminated, truncated)
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if self._info_keys:
            for slot in range(self.num_envs):
                infos[slot].update(self._chosen(info, slot))
        if dones.any():
            now = time.monotonic() - self._since
            for slot in np.flatnonzero(dones).tolist():
                infos[slot].update(self._ended(slot, info, bool(terminated[slot]), now))
                self.reset_infos[slot] = self._chosen(info, slot)
            self._returns[dones], self._lengths[dones] = 0.0, 0
        # Stable-Baselines3 adds to the rewards in place, so they are a copy of their own.
        return channels_first(observation), np.array(rewards, np.float32), dones, infos

    def _ended(self, slot: int, info: dict[str, Any], terminated: bool, now: float) -> dict[str, Any]:
        last = info["final_info"]
        ended: dict[str, Any] = self._chosen(last, slot)
        ended["TimeLimit.truncated"] = not terminated
        ended["terminal_observation"] = channels_first(info["final_obs"][slot])
        ended["episode"] = {"r": float(self._returns[slot]), "l": int(self._lengths[slot]), "t": round(now, 6)}
        for key in ALWAYS:
            if key in last and bool(last.get(f"_{key}", np.ones(self.num_envs, bool))[slot]):
                value = last[key][slot]
                ended[key] = bool(value) if key == "is_success" else value
        return ended

    def _chosen(self, info: dict[str, Any], slot: int) -> dict[str, Any]:
        """The asked keys of one slot out of a batched info; an info of one slot's own dictionary is not batched by Gymnasium."""
        return {key: info[key][slot] for key in self._info_keys if key in info and bool(info.get(f"_{key}", np.ones(self.num_envs, bool))[slot])}

    # ---------------------------------------------------------------------------------------------------------------- the rest of the contract

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds slot ``i`` with ``seed + i`` at the next reset; None draws fresh entropy."""
        first = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._seeds = [first + slot for slot in range(self.num_envs)]
        return self._seeds

    def close(self) -> None:
        """Closes the environment; may be called twice."""
        if not self._closed:
            self._closed = True
            self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Rendered ``(H, W, 3) uint8`` pictures of the slots, None for each where the environment has no ``rgb_array`` mode."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        images = self.env.render()
        return [None] * self.num_envs if images is None else list(cast(Any, images))

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """An attribute of the batched environment, repeated for every asked slot.

        Raises:
            AttributeError: if the environment has none of that name.
        """
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Sets an attribute of the batched environment.

        Raises:
            ValueError: if only some slots are meant: they share one environment.
        """
        self._check_all(indices, f"set_attr({attr_name!r})")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: int | Iterable[int] | None = None, **method_kwargs: Any) -> list[Any]:
        """Calls a method of the batched environment once, and repeats its result for every asked slot."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: int | Iterable[int] | None = None) -> list[bool]:
        """Whether the slots have a wrapper; ``Monitor`` is answered with yes, because its ``episode`` statistics are in the infos."""
        found = wrapper_class is Monitor
        env: Any = self.env
        while not found and isinstance(env, gym.vector.VectorWrapper):
            found = isinstance(env, wrapper_class)
            env = env.env
        return [found for _ in self._get_indices(indices)]

    def _check_all(self, indices: int | Iterable[int] | None, what: str) -> None:
        if indices is not None and set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"{what} was asked for some slots only, but the slots share one environment; leave indices out.")
