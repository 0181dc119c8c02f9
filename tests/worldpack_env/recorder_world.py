"""A small fake engine for the tests of paths and recorder: blocky ground, walking as in Minecraft, a step number in each frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import Surface, WorldView
from worldpack_model.geometry import DPITCH, DYAW, KEYS, check_action, check_pose, forward_vector, wrap_degrees

SIZE = 200
HALF_WIDTH = 0.3


class RecorderWorld:
    """Hills of single steps, 3-block walls, and blocks that nobody can stand on."""

    name = "fake"

    def __init__(self, frame_size: tuple[int, int] = (16, 16), flat: bool = False) -> None:
        self.frame_size = frame_size
        self._flat = flat
        self.closed = False

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Builds the ground of ``seed``."""
        rng = np.random.default_rng(seed)
        x, z = np.indices((SIZE, SIZE))
        heights = 64 + np.round(2 * np.sin(x / 9 + rng.uniform(0, 6)) + 2 * np.sin(z / 11 + rng.uniform(0, 6)))
        walkable = np.ones((SIZE, SIZE), bool)
        if self._flat:
            heights[:] = 64
        else:
            for _ in range(60):
                i, j = rng.integers(0, SIZE - 12, 2)
                w, d = rng.integers(1, 10, 2)
                heights[i : i + w, j : j + d] += 3
            for _ in range(30):
                i, j = rng.integers(0, SIZE - 8, 2)
                walkable[i : i + 5, j : j + 6] = False
                heights[i : i + 5, j : j + 6] += 3
        self._surface = Surface(heights.astype(np.int16), walkable, (-SIZE // 2, -SIZE // 2))
        self._pose = check_pose([0.5, heights[SIZE // 2, SIZE // 2], 0.5, 0, 0] if pose is None else pose)
        self._fall = 0.0
        self.steps = 0
        self._seed = seed
        return self._view(False)

    def surface(self) -> Surface:
        """The whole ground."""
        return self._surface

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Everything below the ground's top."""
        x, y, z = (int(first) + np.arange(n) for first, n in zip(np.asarray(corner), size, strict=True))
        top = self._surface.heights[np.clip(x + SIZE // 2, 0, SIZE - 1)][:, np.clip(z + SIZE // 2, 0, SIZE - 1)]
        return y[None, :, None] < top[:, None, :]

    def _ground(self, x: float, z: float) -> float:
        """Highest column under the player's feet."""
        best = -np.inf
        for dx in (-HALF_WIDTH, HALF_WIDTH):
            for dz in (-HALF_WIDTH, HALF_WIDTH):
                i, j = int(np.floor(x + dx)) + SIZE // 2, int(np.floor(z + dz)) + SIZE // 2
                best = max(best, float(self._surface.heights[i, j]) if 0 <= i < SIZE and 0 <= j < SIZE else 1e3)
        return best

    def step(self, action: ArrayLike) -> WorldView:
        """Four ticks."""
        a = check_action(action)
        pose = self._pose
        pose[3] = wrap_degrees(pose[3] + float(a[DYAW]))
        pose[4] = np.clip(pose[4] + float(a[DPITCH]), -90, 90)
        held = dict(zip(KEYS, a > 0.5, strict=False))
        ahead = float(held["forward"]) - float(held["back"])
        aside = float(held["right"]) - float(held["left"])
        move = 0.2159 * (ahead * forward_vector(pose[3]) + aside * forward_vector(pose[3] + 90))
        blocked = False
        for _ in range(4):
            on_ground = pose[1] <= self._ground(pose[0], pose[2]) + 1e-9
            if on_ground and held["jump"]:
                self._fall = 0.42
            for axis in (0, 2):
                there = pose.copy()
                there[axis] += move[axis]
                if self._ground(there[0], there[2]) <= pose[1] + 1e-9:
                    pose[axis] = there[axis]
                elif move[axis]:
                    blocked = True
            pose[1] += self._fall
            self._fall = (self._fall - 0.08) * 0.98
            ground = self._ground(pose[0], pose[2])
            if pose[1] <= ground:
                pose[1], self._fall = ground, 0.0
        self.steps += 1
        return self._view(blocked)

    def _view(self, blocked: bool) -> WorldView:
        frame: NDArray[np.uint8] = np.random.default_rng([self._seed, self.steps]).integers(0, 256, (*self.frame_size, 3), dtype=np.uint8)
        frame[0, 0] = (self.steps // 256, self.steps % 256, 7)
        return WorldView(frame, self._pose.copy(), blocked)

    def close(self) -> None:
        """Notes that it was called."""
        self.closed = True


def make_fake(name: str, *, frame_size: tuple[int, int]) -> RecorderWorld:
    """Factory that any process can import."""
    return RecorderWorld(frame_size)
