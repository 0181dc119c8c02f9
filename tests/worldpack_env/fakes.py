"""Stand-ins that count: a world model, an engine and a simulator whose pictures say which step, slot, seed and action they are of.

They make the contracts of the environments testable in milliseconds and with literal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from worldpack_env.simulator import Views
from worldpack_env.starts import Start, StartBank
from worldpack_env.worlds import MissionView, Surface, WorldView
from worldpack_model.geometry import DYAW, check_pose, forward_vector, wrap_degrees

SIZE = (40, 40)
STEP, SEED, TURN, NOISE = (0, 0), (0, 1), (0, 2), (0, 3)
"""Pixels (row, column) that say: step number, world seed, camera turn + 128, a number of the slot's generator."""
WALK = 0.8636


def paint(*, step: int, seed: int = 0, turn: float = 0.0, noise: int = 0) -> NDArray[np.uint8]:
    """A frame of one grey level, the step number, with the facts above in its first row."""
    frame = np.full((*SIZE, 3), step % 256, np.uint8)
    frame[STEP], frame[SEED], frame[TURN], frame[NOISE] = step % 256, seed % 256, round(turn) % 256, noise
    return frame


def move(pose: NDArray[np.float64], action: NDArray[np.float32]) -> NDArray[np.float64]:
    """Turns, then walks over an endless plain."""
    there = pose.copy()
    there[3] = wrap_degrees(there[3] + float(action[DYAW]))
    there[:3] += WALK * float(action[0]) * forward_vector(there[3])
    return there


def make_start(
    *, seed: int = 0, context: int = 3, goals: Sequence[tuple[float, float]] = ((0.0, 5.0),), mode: str = "spawn", yaw: float = 0.0
) -> Start:
    """A start at the origin of the plain; ``goals`` are the (x, z) after A."""
    poses = np.tile(np.array([0.0, 64.0, 0.0, yaw, 0.0]), (context, 1))
    points = np.array([[0.0, 64.0, 0.0], *[[x, 64.0, z] for x, z in goals]])
    return Start(
        world="counting",
        seed=seed,
        frames=np.stack([paint(step=i, seed=seed) for i in range(context)]),
        poses=poses,
        actions=np.zeros((context - 1, 9), np.float32),
        waypoints=points,
        nav_range=5,
        mode=mode,  # type: ignore[arg-type]
        goal_frames=np.stack([paint(step=200 + i, seed=seed) for i in range(len(points))]),
    )


def make_bank(loop: str = "AB", count: int = 5, *, mode: str = "spawn") -> StartBank:
    """A bank whose starts differ in seed, context length and goals."""
    spots = {"AB": [(1.0, 5.0)], "ABA": [(1.0, 5.0), (0.0, 0.0)], "ABCA": [(1.0, 5.0), (5.0, 1.0), (0.0, 0.0)]}[loop]
    starts = [make_start(seed=i, context=2 + i % 3, goals=[(x + 0.5 * i, z) for x, z in spots], mode=mode, yaw=10.0 * i) for i in range(count)]
    return StartBank.from_starts(starts, loop=loop)


class FakeMemory:
    """The memory of :class:`FakeModel`: for each slot its number of frames, pose, and world seed."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.length = np.zeros(num_slots, np.int64)
        self.pose = np.zeros((num_slots, 5))
        self.seed = np.zeros(num_slots, np.int64)

    def clear(self, slots: Sequence[int]) -> None:
        """Forgets slots."""
        self.length[list(slots)] = 0

    def snapshot(self, slots: Sequence[int]) -> Any:
        """A copy."""
        rows = list(slots)
        return self.length[rows], self.pose[rows], self.seed[rows]

    def restore(self, slots: Sequence[int], snapshot: Any) -> None:
        """Puts a copy back."""
        rows = list(slots)
        self.length[rows], self.pose[rows], self.seed[rows] = snapshot


class FakeModel:
    """Has the interface of ``worldpack_model.WorldPack`` that the environment uses; its frames are :func:`paint`'s."""

    def __init__(self, *, retrieved: int = 3) -> None:
        self.config = SimpleNamespace(frame_size=SIZE, packing=SimpleNamespace(retrieved=retrieved))
        self.device = torch.device("cpu")
        self.lose: set[int] = set()
        """Slots whose next predictions are not finite."""
        self.remembered: list[tuple[list[int], tuple[int, ...]]] = []
        """Slots and frame shapes of each call of remember."""

    def new_memory(self, num_slots: int) -> FakeMemory:
        """Empty memory."""
        return FakeMemory(num_slots)

    def remember(
        self,
        memory: FakeMemory,
        slots: Sequence[int],
        frames: NDArray[np.uint8],
        poses: NDArray[np.float64],
        actions: NDArray[np.float32],
        *,
        real: bool = True,
    ) -> None:
        """Takes known frames."""
        n, k = frames.shape[:2]
        assert len(slots) == n
        assert poses.shape == (n, k, 5)
        assert actions.shape == (n, k - 1, 9)
        assert real
        self.remembered.append((list(slots), frames.shape))
        for i, slot in enumerate(slots):
            memory.length[slot] += k
            memory.pose[slot] = poses[i, -1]
            memory.seed[slot] = frames[i, -1][SEED][0]

    def predict(
        self,
        memory: FakeMemory,
        slots: Sequence[int],
        actions: NDArray[np.float32],
        generators: Sequence[torch.Generator],
        *,
        evaluations: int | None = None,
        motion: str = "likeliest",
        on_device: bool = False,
    ) -> Any:
        """Paints the next frames."""
        n = len(slots)
        assert actions.shape == (n, 9)
        assert actions.dtype == np.float32
        frames, poses = np.zeros((n, *SIZE, 3), np.uint8), np.zeros((n, 5))
        finite, blocked = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        retrieved = np.full((n, self.config.packing.retrieved), -1, np.int64)
        for i, (slot, generator) in enumerate(zip(slots, generators, strict=True)):
            assert memory.length[slot] > 0, "predict before remember"
            noise = int(torch.randint(256, (), generator=generator))
            if slot in self.lose:
                finite[i], poses[i] = False, np.nan
                continue
            poses[i] = move(memory.pose[slot], actions[i])
            frames[i] = paint(step=int(memory.length[slot]), seed=int(memory.seed[slot]), turn=128 + actions[i, DYAW], noise=noise)
            retrieved[i, :2] = 0, memory.length[slot] // 2
            memory.pose[slot] = poses[i]
            memory.length[slot] += 1
        shown = torch.from_numpy(frames) if on_device else frames
        return SimpleNamespace(frames=shown, poses=poses, blocked=blocked, finite=finite, retrieved=retrieved)


class FakeHeads:
    """Heads that find a ``log`` in every fourth frame, by its painted number."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(frame_size=SIZE, events=("log",))

    def number_of(self, event: str) -> int:
        """The only one."""
        return self.config.events.index(event)

    def chances(self, frames: Any) -> NDArray[np.float32]:
        """Sure ones."""
        return np.array([[float(int(frame[STEP][0]) % 4 == 3)] for frame in frames], np.float32)


class CountingWorld:
    """An engine on an endless plain that paints its step number; can copy its state."""

    name = "counting"

    def __init__(self, frame_size: tuple[int, int] = SIZE) -> None:
        self.frame_size = frame_size
        self.closed = 0

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Stands the player at ``pose``."""
        self.seed, self.steps = seed, 0
        self.pose = check_pose([0, 64, 0, 0, 0] if pose is None else pose)
        return WorldView(paint(step=0, seed=seed), self.pose.copy(), False)

    def step(self, action: ArrayLike) -> WorldView:
        """Moves."""
        act = np.asarray(action, np.float32)
        self.steps += 1
        self.pose = move(self.pose, act)
        return WorldView(paint(step=self.steps, seed=self.seed, turn=128 + float(act[DYAW])), self.pose.copy(), False)

    def events(self) -> tuple[str, ...]:
        """An oak in every fourth step."""
        return ("oak_log",) if self.steps % 4 == 3 else ("stone",)

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> None:
        """It does not tell."""

    def surface(self) -> Surface:
        """Has none."""
        raise NotImplementedError

    def snapshot(self) -> Any:
        """A copy of its state."""
        return self.seed, self.steps, self.pose.copy()

    def restore(self, state: Any) -> None:
        """Puts a copy back."""
        self.seed, self.steps, self.pose = state[0], state[1], state[2].copy()

    def close(self) -> None:
        """Counts its calls."""
        self.closed += 1


class MissionWorld(CountingWorld):
    """The same with a mission of its own, whose goal is reached in the third step; each step pays 1."""

    name = "quest"
    missions = ("navigate", "navigate-dense")

    def __init__(self, frame_size: tuple[int, int] = SIZE, *, mission: str | None = None) -> None:
        super().__init__(frame_size)
        self.mission = mission

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Begins the mission."""
        return self._told(super().reset(seed, pose))

    def step(self, action: ArrayLike) -> WorldView:
        """Goes on with it."""
        return self._told(super().step(action))

    def _told(self, view: WorldView) -> WorldView:
        n = self.steps
        return view if self.mission is None else view._replace(mission=MissionView(float(n > 0), n >= 3, n >= 3, 10.0 * n, 64.0 - n))


class MuteWorld(CountingWorld):
    """The same, without a word of what happens."""

    name = "mute"
    events = None  # type: ignore[assignment]


class CountingSimulator:
    """Walks one block to +z in each step, whatever the action; frames show 16 * (world seed) + step.

    A start whose goal lies L blocks ahead thus ends after L - 2 steps (goals are reached within 2 blocks).
    """

    frame_size, num_retrieved, failure = SIZE, 0, "it counted wrong"

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.step_number = np.zeros(num_slots, np.int64)
        self.world = np.zeros(num_slots, np.int64)
        self.calls: list[list[int]] = []
        self.seeds: dict[int, list[int]] = {i: [] for i in range(num_slots)}
        self.closed = 0

    def start(self, slots: Sequence[int], starts: Sequence[Start], seeds: Sequence[int]) -> Views:
        """Begins episodes."""
        for slot, start, seed in zip(slots, starts, seeds, strict=True):
            self.step_number[slot], self.world[slot] = 0, start.seed
            self.seeds[slot].append(seed)
        return self._views(list(slots))

    def step(self, slots: Sequence[int], actions: NDArray[np.float32]) -> Views:
        """Counts on."""
        assert actions.shape == (len(slots), 9)
        self.calls.append(list(slots))
        self.step_number[list(slots)] += 1
        return self._views(list(slots))

    def _views(self, rows: list[int]) -> Views:
        n = len(rows)
        grey = 16 * self.world[rows] + self.step_number[rows]
        poses = np.zeros((n, 5))
        poses[:, 2] = self.step_number[rows]
        frames = np.broadcast_to(grey.astype(np.uint8)[:, None, None, None], (n, *SIZE, 3)).copy()
        return Views(frames, poses, np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros((n, 0), np.int64))

    def snapshot(self, slots: Sequence[int]) -> Any:
        """Cannot."""
        raise NotImplementedError("counting cannot be branched")

    def restore(self, slots: Sequence[int], snapshot: Any) -> None:
        """Cannot."""
        raise NotImplementedError("counting cannot be branched")

    def close(self) -> None:
        """Counts its calls."""
        self.closed += 1
