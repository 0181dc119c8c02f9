"""Where episodes begin. The same :class:`Start` opens an imagined and a real episode, so the two can be compared start by start.

A start is cut out of a recorded loop (``recorder.record_episode``), so its context frames are what an engine really showed and its goals
can really be walked to. Two modes:

* ``spawn``: the context is the look-around at A; the agent walks every leg.
* ``turn``: the context is the look-around and the whole way out; the agent stands at the last outbound goal and must come home. A world
  model without memory cannot know what the way home looks like.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import Surface, World, make_world
from worldpack_model.config import lookup
from worldpack_model.episodes import SPLITS, Episode, EpisodeIndex, in_env_steps
from worldpack_model.geometry import ACTION_DIM, check_action, check_pose

StartMode = Literal["spawn", "turn"]
MODES: Final = ("spawn", "turn")
_RECORDED_AS: Final = {"AB": "ABA", "ABA": "ABA", "ABCA": "ABCA"}
"""Loop of a task -> the recorder's task it is cut from (AB is the way out of ABA)."""
_LEGS: Final = {"AB": ("out",), "ABA": ("out", "back"), "ABCA": ("out", "out2", "back")}
"""Loop of a task -> the recorder's phases in which its goals are walked to."""
_WORLDS_TRIED: Final = 20
_FORMAT: Final = 1
_SPAWN_RANGE: Final = 64
"""Blocks: as far as MineRL's Navigate goes."""


@dataclass(frozen=True, eq=False)
class Start:
    """How one episode begins: what is known, where the agent stands, and where it shall go."""

    world: str
    """Name of the engine, e.g. ``voxel``."""
    seed: int
    """World seed."""
    frames: NDArray[np.uint8]
    """``(k, H, W, 3) uint8`` context frames, oldest first; the last is the first observation of the episode."""
    poses: NDArray[np.float64]
    """``(k, 5)`` their poses."""
    actions: NDArray[np.float32]
    """``(k - 1, 9)`` the actions between them."""
    waypoints: NDArray[np.float64]
    """``(g, 3)`` feet positions in blocks: A, then the goals in order of visit (A, B, A for the loop ABA)."""
    nav_range: int
    """LoopNav's range in blocks."""
    mode: StartMode = "spawn"
    """``spawn`` or ``turn``."""
    goal_frames: NDArray[np.uint8] | None = None
    """``(g, H, W, 3) uint8``: what an engine showed on arrival at each waypoint, the first frame for A; None if unknown."""
    shortest: float = float("nan")
    """Blocks over ground of the shortest way through the goals that are left; NaN takes straight lines."""

    def __post_init__(self) -> None:
        """Checks shapes and numbers.

        Raises:
            ValueError: if an array does not have the form given above.
        """
        k = len(self.frames)
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8 or k == 0:
            raise ValueError(f"frames are {self.frames.shape} {self.frames.dtype}, expected (k >= 1, H, W, 3) uint8.")
        if check_pose(self.poses, "poses").shape != (k, 5) or check_action(self.actions, "actions").shape != (k - 1, 9):
            raise ValueError(f"poses {self.poses.shape} and actions {self.actions.shape} do not fit {k} frames; expected ({k}, 5) and ({k - 1}, 9).")
        points = self.waypoints
        if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2 or not np.isfinite(points).all():
            raise ValueError(f"waypoints are {points.tolist()}, expected two or more finite positions (x, y, z).")
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}.")
        if self.goal_frames is not None and self.goal_frames.shape != (len(points), *self.frames.shape[1:]):
            raise ValueError(f"goal_frames are {self.goal_frames.shape}, expected {(len(points), *self.frames.shape[1:])}.")
        if np.isnan(self.shortest):
            left = np.concatenate([self.poses[-1:, :3], points[-1:] if self.mode == "turn" else points[1:]])
            object.__setattr__(self, "shortest", _length(left))

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of its frames in pixels."""
        return self.frames.shape[1], self.frames.shape[2]


def _length(points: NDArray[np.float64]) -> float:
    """Length over ground of straight lines through points ``(n, 3)``, in blocks."""
    return float(np.hypot(*np.diff(points[:, [0, 2]], axis=0).T).sum())


def start_from_episode(episode: Episode, *, loop: str, mode: StartMode = "spawn", shortest: float = float("nan")) -> Start:
    """Cuts a start out of a recorded loop.

    Args:
        episode: an ``ABA`` or ``ABCA`` recording.
        loop: loop of the task the start is for; ``AB`` takes the first leg.
        mode: ``spawn`` cuts after the look-around, ``turn`` where the way home begins.
        shortest: blocks of the shortest way through the goals that are left, where known.

    Raises:
        ValueError: if the episode does not hold that loop or has no way home.
    """
    letters = ["ABC".index(letter) for letter in loop]
    if len(episode.waypoints) <= max(letters):
        raise ValueError(f"The episode of task {episode.task!r} has {len(episode.waypoints)} waypoints, too few for the loop {loop}.")
    phases = np.array(episode.phases)
    if mode == "spawn":
        # The look-around is the run of "look" at the beginning; the first frame belongs to it even where nobody looked around.
        walked = np.flatnonzero(phases[1:] != "look")
        cut = int(walked[0]) + 1 if len(walked) else len(phases)
    elif loop == "AB" or not episode.turn_index:
        raise ValueError(f"A start of mode 'turn' needs a recorded way home and a loop that returns; got {episode.task!r} for {loop}.")
    else:
        cut = episode.turn_index
    # A waypoint's picture is the last frame of the leg that led to it; A's first picture is the first frame.
    arrivals = [np.flatnonzero(phases == leg)[-1:] for leg in _LEGS[loop]]
    known = all(len(arrival) for arrival in arrivals)
    return Start(
        world=episode.world,
        seed=episode.seed,
        frames=episode.frames[:cut].copy(),
        poses=episode.poses[:cut].copy(),
        actions=episode.actions[: cut - 1].copy(),
        waypoints=episode.waypoints[letters],
        nav_range=episode.nav_range,
        mode=mode,
        goal_frames=episode.frames[np.concatenate([[0], *arrivals])] if known else None,
        shortest=shortest,
    )


def start_at(world: World, *, seed: int, pose: ArrayLike, goals: ArrayLike) -> Start:
    """A start at a place that you know, for engines in which nothing can be planned (no ``surface``): one context frame, no goal pictures.

    Args:
        world: the engine; is reset.
        seed: world seed.
        pose: ``(5,)`` where the agent stands.
        goals: ``(g, 3)`` feet positions in blocks, in order of visit: B for the loop AB; B, A for ABA. That they can be walked to
            is yours to know.

    Raises:
        ValueError: if the engine has no such place, or the goals are no positions.
        BackendUnavailable: if the engine fails.
    """
    view = world.reset(seed, pose)
    points = np.array(goals, np.float64).reshape(-1, 3)
    waypoints = np.concatenate([view.pose[None, :3], points])
    away = np.abs(waypoints - waypoints[0])[:, [0, 2]].max()
    return Start(
        world=world.name,
        seed=int(seed),
        frames=view.frame[None].copy(),
        poses=view.pose[None].copy(),
        actions=np.zeros((0, ACTION_DIM), np.float32),
        waypoints=waypoints,
        nav_range=max(3, int(np.ceil(away))),
    )


class _FromWorld:
    """Makes start ``i`` by recording a loop in a world of the split; start ``i`` depends on the settings and ``i`` alone."""

    def __init__(
        self, world: str, loop: str, nav_range: int, mode: StartMode, split: str, frame_size: tuple[int, int], seed: int, distractors: int
    ) -> None:
        self.world, self.loop, self.nav_range, self.mode = world, loop, nav_range, mode
        self.split, self.frame_size, self.seed, self.distractors = split, frame_size, seed, distractors
        self._engine: World | None = None

    def __call__(self, index: int) -> Start:
        from worldpack_env.recorder import CannotLayTask, record_episode

        if self._engine is None:
            self._engine = make_world(self.world, frame_size=self.frame_size)
        rng = np.random.default_rng([self.seed, index])
        worlds = SPLITS[self.split]
        for _ in range(_WORLDS_TRIED):
            world_seed = int(rng.integers(worlds.start, worlds.stop))
            try:
                episode = record_episode(
                    self._engine,
                    seed=world_seed,
                    task=_RECORDED_AS[self.loop],
                    nav_range=self.nav_range,
                    rng=rng,
                    distractors=self.distractors,
                )
            except CannotLayTask:
                continue
            return start_from_episode(
                episode, loop=self.loop, mode=self.mode, shortest=_shortest(self._engine.surface(), episode, loop=self.loop, mode=self.mode)
            )
        raise ValueError(f"No place for {self.loop} with range {self.nav_range} in {_WORLDS_TRIED} worlds of {self.world!r}; use less.")

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}  # an engine stays in its process


def _shortest(surface: Surface, episode: Episode, *, loop: str, mode: StartMode) -> float:
    """Blocks over ground of the shortest way through the goals that are left; NaN where the grid has none (the walker cut a corner)."""
    from worldpack_env.worlds.paths import shortest_way, way_length

    legs = list(pairwise(episode.waypoints[["ABC".index(letter) for letter in loop]]))
    if mode == "turn":
        begin = episode.poses[(episode.turn_index or 1) - 1, :3] if "detour" in episode.phases else legs[-1][0]
        legs = [(begin, legs[-1][1])]
    total = 0.0
    for here, there in legs:
        corners = shortest_way(surface, here, there)
        if corners is None:
            return float("nan")
        total += way_length(corners)
    return total


class _FromSpawn:
    """Makes start ``i`` at the spawn of a world of the split; start ``i`` depends on the settings and ``i`` alone."""

    def __init__(self, world: str, split: str, frame_size: tuple[int, int], seed: int) -> None:
        self.world, self.split, self.frame_size, self.seed = world, split, frame_size, seed
        self._engine: World | None = None

    def __call__(self, index: int) -> Start:
        if self._engine is None:
            self._engine = make_world(self.world, frame_size=self.frame_size)
        worlds = SPLITS[self.split]
        world_seed = int(np.random.default_rng([self.seed, index]).integers(worlds.start, worlds.stop))
        view = self._engine.reset(world_seed)
        return Start(
            world=self.world,
            seed=world_seed,
            frames=view.frame[None].copy(),
            poses=view.pose[None].copy(),
            actions=np.zeros((0, ACTION_DIM), np.float32),
            waypoints=np.stack([view.pose[:3]] * 2),
            nav_range=_SPAWN_RANGE,
        )

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}  # an engine stays in its process


class _FromIndex:
    """Makes start ``i`` from recorded episode ``i``."""

    def __init__(self, index: EpisodeIndex, loop: str, mode: StartMode) -> None:
        self.index, self.loop, self.mode = index, loop, mode

    def __call__(self, index: int) -> Start:
        return start_from_episode(in_env_steps(self.index.read(index)), loop=self.loop, mode=self.mode)


class _FromList:
    """Gives start ``i`` of a list."""

    def __init__(self, starts: tuple[Start, ...]) -> None:
        self.starts = starts

    def __call__(self, index: int) -> Start:
        return self.starts[index]


class _FromBanks:
    """Starts of several banks, one after the other."""

    def __init__(self, banks: tuple[StartBank, ...]) -> None:
        self.banks = banks

    def __call__(self, index: int) -> Start:
        for bank in self.banks:
            if index < len(bank):
                return bank[index]
            index -= len(bank)
        raise IndexError(index)

    def close(self) -> None:
        """Closes the banks."""
        for bank in self.banks:
            bank.close()


class StartSource(Protocol):
    """Makes start ``index``; must give the same start each time."""

    def __call__(self, index: int) -> Start:
        """Start number ``index``."""


class StartBank:
    """A fixed, numbered set of starts, each made when it is first asked for and kept.

    Give one bank to an imagined and a real environment, and both open the same episodes: ``reset(options={"start_index": i})``.
    """

    def __init__(
        self,
        source: StartSource,
        size: int,
        *,
        world: str,
        loop: str,
        nav_range: int,
        mode: StartMode,
        frame_size: tuple[int, int],
    ) -> None:
        """Makes a bank over a source; see the ``from_...`` constructors.

        Args:
            source: makes start ``i``.
            size: number of starts.
            world: name of the engine of all starts.
            loop: ``AB``, ``ABA`` or ``ABCA``.
            nav_range: LoopNav's range in blocks, the largest of the starts.
            mode: ``spawn`` or ``turn``.
            frame_size: (height, width) of the frames in pixels.

        Raises:
            ValueError: if there are no starts, or the loop, range or mode is not one there is.
        """
        if size < 1:
            raise ValueError("A start bank needs at least one start; check the folder, filter or size it was made with.")
        lookup(_RECORDED_AS, loop, "loop")
        lookup(dict.fromkeys(MODES), mode, "start mode")
        if mode == "turn" and loop == "AB":
            raise ValueError("Starts of this task have no way home, so they cannot be of mode 'turn'; use start='spawn'.")
        if nav_range < 3:
            raise ValueError(f"nav_range is {nav_range}, expected at least 3 blocks (a goal is reached within 2).")
        self._source, self._size, self._made = source, size, cast(dict[int, Start], {})
        self.world, self.loop, self.nav_range, self.mode, self.frame_size = world, loop, nav_range, mode, frame_size
        self.parts: tuple[int, ...] = (size,)
        """How many starts each of the banks had that this one was joined from."""
        self.mixed = False
        """Whether there are starts of shorter loops than ``loop``."""

    @classmethod
    def from_world(
        cls,
        world: str = "voxel",
        *,
        loop: str = "ABA",
        nav_range: int = 15,
        mode: StartMode = "spawn",
        split: str = "train",
        size: int = 64,
        frame_size: tuple[int, int] = (64, 64),
        seed: int = 0,
        distractors: int = 0,
    ) -> StartBank:
        """Starts recorded on the fly in a real engine, each in a world of its own.

        Args:
            world: name of the engine.
            loop: ``AB``, ``ABA`` or ``ABCA``.
            nav_range: LoopNav's range in blocks, at least 3.
            mode: ``spawn`` or ``turn``.
            split: ``train``, ``val`` or ``test``: which world seeds to take.
            size: number of starts.
            frame_size: (height, width) of the frames in pixels.
            seed: another seed gives other starts.
            distractors: env steps of a detour after the way out of ``turn`` starts, remembered and of no use: what was seen on the way out is that
                much older. The agent stands where the detour ends.

        Raises:
            ValueError: if a setting is not one there is.
        """
        lookup(dict(SPLITS), split, "split")
        if distractors < 0 or (distractors and mode != "turn"):
            raise ValueError(f"distractors are steps before the way home, at least 0 and with start='turn', not {distractors} ({mode}).")
        source = _FromWorld(world, loop, nav_range, mode, split, frame_size, seed, distractors)
        return cls(source, size, world=world, loop=loop, nav_range=nav_range, mode=mode, frame_size=frame_size)

    @classmethod
    def from_spawns(
        cls, world: str = "minerl", *, split: str = "train", size: int = 64, frame_size: tuple[int, int] = (64, 64), seed: int = 0
    ) -> StartBank:
        """Starts at the spawns of worlds, for tasks whose goal only the engine knows (MineRL's Navigate); their goals mean nothing.

        Args:
            world: name of the engine.
            split: ``train``, ``val`` or ``test``: which world seeds to take.
            size: number of starts.
            frame_size: (height, width) of the frames in pixels.
            seed: another seed gives other starts.

        Raises:
            ValueError: if a setting is not one there is.
        """
        lookup(dict(SPLITS), split, "split")
        source = _FromSpawn(world, split, frame_size, seed)
        return cls(source, size, world=world, loop="AB", nav_range=_SPAWN_RANGE, mode="spawn", frame_size=frame_size)

    @classmethod
    def from_episodes(
        cls,
        root: str | os.PathLike[str],
        *,
        loop: str = "ABA",
        nav_range: int | None = None,
        mode: StartMode = "spawn",
        split: str | None = None,
        world: str | None = None,
    ) -> StartBank:
        """Starts cut from recorded episodes.

        Args:
            root: folder of the recordings.
            loop: ``AB``, ``ABA`` or ``ABCA``; takes the recordings of that loop (ABA for AB).
            nav_range: take this range only; None takes all.
            mode: ``spawn`` or ``turn``.
            split: ``train``, ``val`` or ``test``; None takes all.
            world: take the recordings of this engine only; None takes all, which must then be of one engine.

        Raises:
            ValueError: if no recording fits, or they are of several engines or frame sizes.
        """
        task = lookup(_RECORDED_AS, loop, "loop")
        found = EpisodeIndex.open(root).filter(
            task=task,
            nav_range=nav_range,
            split=split,
            keep=lambda e: (world is None or e.world == world) and (mode == "spawn" or bool(e.turn_index)),
        )
        if not len(found):
            raise ValueError(f"{root} holds no episode of {task} for range {nav_range}, split {split}, world {world}, mode {mode}.")
        kinds = {(entry.world, entry.height, entry.width) for entry in found}
        if len(kinds) > 1:
            raise ValueError(f"The episodes in {root} are of several engines or frame sizes {sorted(kinds)}; choose one with world=.")
        ((name, height, width),) = kinds
        reach = max(entry.nav_range for entry in found)
        return cls(_FromIndex(found, loop, mode), len(found), world=name, loop=loop, nav_range=reach, mode=mode, frame_size=(height, width))

    @classmethod
    def joined(cls, banks: Sequence[StartBank]) -> StartBank:
        """One bank of the starts of several, one after the other: what a curriculum draws from.

        Its ``parts`` say how many starts came from each; its loop, range and mode are those of the last one with the longest loop. An environment
        made with it walks every start's own loop, for as many steps as that may take.

        Raises:
            ValueError: if there are none, or they differ in engine or frame size.
        """
        kinds = {(bank.world, bank.frame_size) for bank in banks}
        if len(kinds) != 1:
            raise ValueError(f"Banks to join share one engine and frame size; got {sorted(kinds) or 'no banks'}.")
        ((world, frame_size),) = kinds
        longest = max(banks, key=lambda bank: (len(bank.loop), bank.nav_range))
        made = cls(
            _FromBanks(tuple(banks)),
            sum(map(len, banks)),
            world=world,
            loop=longest.loop,
            nav_range=max(bank.nav_range for bank in banks),
            mode=longest.mode,
            frame_size=frame_size,
        )
        made.parts, made.mixed = tuple(map(len, banks)), len({bank.loop for bank in banks}) > 1
        return made

    @classmethod
    def from_starts(cls, starts: Sequence[Start], *, loop: str) -> StartBank:
        """A bank of given starts.

        Raises:
            ValueError: if there are none, or they differ in engine, mode or frame size.
        """
        kinds = {(start.world, start.mode, start.frame_size) for start in starts}
        if len(kinds) != 1:
            raise ValueError(f"The starts of a bank share one engine, mode and frame size; got {sorted(kinds) or 'no starts'}.")
        ((world, mode, frame_size),) = kinds
        given = tuple(starts)
        reach = max(start.nav_range for start in given)
        return cls(_FromList(given), len(given), world=world, loop=loop, nav_range=reach, mode=mode, frame_size=frame_size)

    def __len__(self) -> int:
        """Number of starts."""
        return self._size

    def __getitem__(self, index: int) -> Start:
        """Start number ``index``, made now if it was not yet.

        Raises:
            IndexError: if there is no such start.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"There is no start {index}; the bank has starts 0 .. {self._size - 1}.")
        if index not in self._made:
            self._made[index] = self._source(index)
        return self._made[index]

    def sample(self, rng: np.random.Generator) -> Start:
        """A random start."""
        return self[int(rng.integers(self._size))]

    def __deepcopy__(self, memo: dict[int, Any]) -> StartBank:
        """The bank itself: it never changes but by making starts, and ``gym.make`` copies its keyword arguments about."""
        return self

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Makes all starts and writes them to one ``.npz`` file in one move; returns its path, ``path`` with that ending.

        It holds arrays and a JSON text only, so reading it executes nothing.

        Raises:
            ValueError: if the bank was joined from others; save those.
        """
        if len(self.parts) > 1:
            raise ValueError(f"This bank was joined from {len(self.parts)} others; save those, and join them again.")
        target = Path(path) if Path(path).suffix == ".npz" else Path(path).with_name(f"{Path(path).name}.npz")
        arrays: dict[str, NDArray[Any]] = {}
        plain: list[dict[str, Any]] = []
        for i in range(self._size):
            values = {f.name: getattr(self[i], f.name) for f in fields(Start)}
            arrays |= {f"{i}.{name}": value for name, value in values.items() if isinstance(value, np.ndarray)}
            plain.append({name: value for name, value in values.items() if not isinstance(value, np.ndarray)})
        about = np.array(json.dumps({"format": _FORMAT, "loop": self.loop, "starts": plain}))
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with open(temp, "wb") as file:
                np.savez_compressed(file, allow_pickle=False, about=about, **arrays)
            os.replace(temp, target)
        finally:
            temp.unlink(missing_ok=True)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StartBank:
        """Reads a bank written by :meth:`save`.

        Raises:
            ValueError: if there is no such file, or it is no such bank; nothing in it is executed.
        """
        if not os.path.isfile(path):
            raise ValueError(f"There is no file of starts {path}; StartBank.save and `worldpack compare --save-starts` write one.")
        if not zipfile.is_zipfile(path):  # NumPy would advise to unpickle it
            raise ValueError(f"{path} is no start bank of format {_FORMAT} (not a .npz file); make it again with StartBank.save.")
        with np.load(path, allow_pickle=False) as file:
            try:
                about = json.loads(str(file["about"]))
                if about["format"] != _FORMAT:
                    raise ValueError(f"format {about['format']}")
                starts = []
                for i, plain in enumerate(about["starts"]):
                    names = [f.name for f in fields(Start) if f"{i}.{f.name}" in file]
                    starts.append(Start(**plain, **{name: file[f"{i}.{name}"] for name in names}))
            except (KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ValueError(f"{path} is no start bank of format {_FORMAT} ({error}); make it again with StartBank.save.") from None
        return cls.from_starts(starts, loop=str(about["loop"]))

    def close(self) -> None:
        """Frees the engine that starts are recorded in; starts already made stay, and a new one opens the engine again."""
        close: Callable[[], None] | None = getattr(self._source, "close", None)
        if close is not None:
            close()
