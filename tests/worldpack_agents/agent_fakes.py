"""Small environments with known answers for the tests of worldpack_agents."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

SIZE = 36


class CountingEnv(gym.Env[dict[str, np.ndarray], int]):
    """Shows its step number as a grey level and as degrees; ends (or is cut) after ``length`` steps with reward = step number."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, length: int, *, cut: bool, render_mode: str | None = None) -> None:
        self.length, self.cut, self.render_mode = length, cut, render_mode
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (SIZE, SIZE + 4, 3), np.uint8), "compass": spaces.Box(-180.0, 180.0, (1,), np.float32)}
        )
        self.action_space = spaces.Discrete(4)
        self.count = 0
        self.seeds: list[int | None] = []

    def _look(self) -> dict[str, np.ndarray]:
        image = np.full((SIZE, SIZE + 4, 3), self.count, np.uint8)
        image[0, 0] = (1, 2, 3)
        return {"image": image, "compass": np.array([self.count], np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.count = 0
        return self._look(), {"pose": np.zeros(5)}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.count += 1
        over = self.count >= self.length
        info = {"pose": np.full(5, float(self.count)), "is_success": over and not self.cut}
        return self._look(), float(self.count), over and not self.cut, over and self.cut, info

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), self.count, np.uint8)


class QuadrantEnv(gym.Env[dict[str, np.ndarray], int]):
    """The compass points to one of four quadrants, drawn anew each step; naming it gives 1, anything else 0. Cut after 8 steps."""

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        self.render_mode = None
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8), "compass": spaces.Box(-180.0, 180.0, (1,), np.float32)}
        )
        self.action_space = spaces.Discrete(4)

    def _look(self) -> dict[str, np.ndarray]:
        self.answer = int(self.np_random.integers(4))
        angle = -135.0 + 90.0 * self.answer
        return {"image": np.full((SIZE, SIZE, 3), 7, np.uint8), "compass": np.array([angle], np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.right = 0, 0
        return self._look(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        reward = float(action == self.answer)
        self.count += 1
        self.right += int(reward)
        return self._look(), reward, False, self.count == 8, {"is_success": self.right >= 7}


def counting(lengths: list[int], cuts: list[bool], *, render_mode: str | None = None) -> SyncVectorEnv:
    makers = [lambda n=n, c=c: CountingEnv(n, cut=c, render_mode=render_mode) for n, c in zip(lengths, cuts, strict=True)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def quadrants(count: int) -> SyncVectorEnv:
    return SyncVectorEnv([QuadrantEnv] * count, autoreset_mode=AutoresetMode.SAME_STEP)
