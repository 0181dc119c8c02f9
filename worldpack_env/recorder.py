"""Plays scripted explorers in a real engine and writes what they see as episodes.

Loop tasks follow LoopNav: look around at A, walk A->B->A or A->B->C->A along A* ways, never sprint. Two things differ from LoopNav. The way
home of ABA is the outbound way reversed (LoopNav plans it anew), so that it sees the same places again; and a loop ends with a closing
look-around at A (phase ``close``; LoopNav ends on arrival), the moment where only a model that remembers can be right.

Each episode depends on the settings and its own number alone: the recordings are the same with any number of processes and interruptions.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from importlib import metadata
from itertools import pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldpack_env.explorers import TURN, Action, Script, Style, bump, explore, look, stroll, walk_to
from worldpack_env.folder_lock import locked
from worldpack_env.worlds import Surface, World, WorldView, make_world
from worldpack_env.worlds.paths import (
    Cell,
    can_stand,
    cell_of,
    find_path,
    goals_in_ring,
    path_points,
    point_of,
    walking_costs,
)
from worldpack_model.episodes import (
    INDEX_NAME,
    SPLITS,
    Episode,
    EpisodeIndex,
    EpisodeMissingError,
    IndexEntry,
    entry_of,
    site_of,
    write_atomically,
    write_episode,
)
from worldpack_model.geometry import BOX, DPITCH, DYAW, TICKS_PER_STEP, box_corner, wrap_degrees

if TYPE_CHECKING:
    from worldpack_env.starts import Start

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")

LOOP_TASKS: Final = ("ABA", "ABCA")
FREE_TASKS: Final = ("explore", "bump", "stroll")
RECIPE_NAME: Final = "recipe.json"
SCRIPTS_VERSION: Final = "3"
"""Raised whenever the scripted explorers act differently for the same chance; a folder recorded across two versions is still valid, but
cannot be recorded again as it is."""
_TASK_DRAW: Final = 1 << 31
"""Where attempts stand in the seeds of generators, for the draw of the task; there are never so many."""
_AWAY: Final = 2.5
"""Blocks from home, at least, where a detour may end: nearer, home is reached without a step (``tasks.GOAL_RADIUS``)."""
_STARTS_TRIED: Final = 24
_SITE_SPREAD: Final = 70
_START_SPREAD: Final = 20
_GOAL_SPREAD: Final = 80
_SEEDS_TRIED: Final = 20
_SAVE_SECONDS: Final = 20.0


class RecordError(RuntimeError):
    """Recording cannot go on; the message says what to do."""


class CannotLayTask(RecordError):
    """The world has no place for the task (no start with a reachable goal)."""


class _Stuck(Exception):
    """A walker gave up before it reached its goal."""


class WorldFactory(Protocol):
    """Makes an engine by name, as :func:`worldpack_env.worlds.make_world`; must be picklable for parallel recording."""

    def __call__(self, name: str, *, frame_size: tuple[int, int], ticks_per_step: int = TICKS_PER_STEP) -> World:
        """Makes the engine ``name`` with frames of ``frame_size`` (height, width) pixels and steps of so many ticks."""


# ---------------------------------------------------------------------------------------------------------------------------- one episode


class _Tape:
    """Collects what a world shows while scripts play in it: a frame for each step of the world, be that an action or a tick of one."""

    def __init__(self, world: World, view: WorldView) -> None:
        self.view = view
        self.ticks: int = getattr(world, "ticks_per_step", TICKS_PER_STEP)
        self.frames = [view.frame.copy()]
        self.poses = [view.pose.copy()]
        self.blocks = [world.solid(box_corner(view.pose), BOX)]
        self.events = [_events_of(world)]
        self.actions: list[Action] = []
        self.blocked: list[bool] = []
        self.phases = ["look"]

    def play(self, world: World, script: Script, phase: str) -> bool:
        """Plays a script to its end and returns its result."""
        try:
            action = next(script)
            while True:
                action = script.send(self._act(world, action, phase))
        except StopIteration as stop:
            return bool(stop.value)

    def _act(self, world: World, action: Action, phase: str) -> WorldView:
        """Plays one action, whole or tick by tick: the camera turns before the first tick, as in an env step."""
        begin, held = len(self.actions), action
        for _ in range(TICKS_PER_STEP // self.ticks):
            self.view = world.step(held)
            self.frames.append(self.view.frame.copy())
            self.poses.append(self.view.pose.copy())
            self.blocks.append(world.solid(box_corner(self.view.pose), BOX))
            self.events.append(_events_of(world))
            self.actions.append(held)
            self.blocked.append(bool(self.view.blocked))
            self.phases.append(phase)
            held = held.copy()
            held[[DPITCH, DYAW]] = 0.0
        return self.view._replace(blocked=any(self.blocked[begin:]))


def record_episode(
    world: World, *, seed: int, task: str, nav_range: int, rng: np.random.Generator, explore_steps: int = 128, distractors: int = 0
) -> Episode:
    """Records one episode.

    Args:
        world: engine to play in; is reset.
        seed: world seed.
        task: ``ABA``, ``ABCA``, ``explore``, ``bump`` or ``stroll``.
        nav_range: LoopNav's range in blocks (loop tasks only).
        rng: all chance of the episode comes from it.
        explore_steps: actions of an episode without goals.
        distractors: actions of a detour before the way home of a loop, which has nothing to do with either (phase ``detour``).

    Returns:
        The episode.

    Raises:
        ValueError: if there is no such task, or a loop task has no positive range.
        CannotLayTask: if the world has no start with a reachable goal, or walkers got stuck from every start tried.
    """
    if task not in LOOP_TASKS + FREE_TASKS:
        raise ValueError(f"There is no scripted task named {task!r}; known: {', '.join(LOOP_TASKS + FREE_TASKS)}.")
    if task in LOOP_TASKS and nav_range <= 0:
        raise ValueError(f"{task} needs a positive nav_range in blocks, not {nav_range}.")
    if distractors < 0 or (distractors and task not in LOOP_TASKS):
        raise ValueError(f"distractors are actions before a loop's way home, at least 0, not {distractors} in {task}.")
    steps = distractors if task in LOOP_TASKS else explore_steps
    world.reset(seed)
    surface = world.surface()
    for _ in range(_STARTS_TRIED):
        waypoints = _lay(surface, task, nav_range, rng)
        if waypoints is None:
            continue
        try:
            return _play(world, surface, waypoints, seed=seed, task=task, nav_range=nav_range, rng=rng, aimless=steps)
        except _Stuck as error:
            LOGGER.debug("World %s seed %d, %s %d: %s; trying another start.", world.name, seed, task, nav_range, error)
    raise CannotLayTask(
        f"World {world.name!r} with seed {seed} has no place for {task} with range {nav_range} "
        f"({_STARTS_TRIED} starts tried); use another seed or a smaller range."
    )


def _lay(surface: Surface, task: str, nav_range: int, rng: np.random.Generator) -> list[Cell] | None:
    """Cells of A, B(, C), or None where the random start has no fitting goals.

    LoopNav's rule: a site near the middle of the world, a start within 20 blocks of it, goals within 80 blocks of the site.
    """
    middle = np.array(surface.heights.shape) // 2
    site = middle + rng.integers(-_SITE_SPREAD, _SITE_SPREAD + 1, 2)
    start = site + rng.integers(-_START_SPREAD, _START_SPREAD + 1, 2)
    a: Cell = (int(start[0]), int(start[1]))
    if not can_stand(surface, a):
        return None
    if task in FREE_TASKS:
        # Enough ground to walk on, so that the start is not a pit or a small island.
        return [a] if np.isfinite(walking_costs(surface, a, max_cost=20.0)).sum() >= 150 else None
    # Loops are laid over ground that can be walked both ways, or the way home could need a climb nobody can make.
    goals = goals_in_ring(surface, a, nav_range, max_drop=1)
    goals = goals[np.abs(goals - site).max(axis=1, initial=0) <= _GOAL_SPREAD]
    if len(goals) == 0:
        return None
    b = goals[rng.integers(len(goals))]
    waypoints = [a, (int(b[0]), int(b[1]))]
    if task == "ABCA":
        # C must not be B again: at least half a range apart, so that the loop encloses some ground.
        apart = goals[np.abs(goals - b).max(axis=1) >= 0.5 * nav_range]
        if len(apart) == 0:
            return None
        c = apart[rng.integers(len(apart))]
        waypoints.append((int(c[0]), int(c[1])))
    return waypoints


def _play(
    world: World,
    surface: Surface,
    waypoints: list[Cell],
    *,
    seed: int,
    task: str,
    nav_range: int,
    rng: np.random.Generator,
    aimless: int,
) -> Episode:
    style = Style.draw(rng)
    # A third each: LoopNav's yaw 0, a yaw that stepped turns return to, any yaw.
    yaw = float(rng.choice([0.0, TURN * int(rng.integers(16)), float(rng.uniform(-180.0, 180.0))]))
    start = point_of(surface, waypoints[0])
    tape = _Tape(world, world.reset(seed, np.array([*start, float(wrap_degrees(yaw)), 0.0])))
    turn_index = None
    if task in FREE_TASKS:
        script = {"explore": explore, "bump": bump, "stroll": stroll}[task]
        tape.phases[0] = task
        tape.play(world, script(tape.view, surface, style, rng, aimless), task)
    else:
        turn_index = _play_loop(world, tape, surface, waypoints, style, rng, aimless)
    return Episode(
        frames=np.stack(tape.frames),
        poses=np.stack(tape.poses),
        actions=np.stack(tape.actions).astype(np.float32),
        task=task,
        site=site_of(world.name, seed),
        nav_range=nav_range if task in LOOP_TASKS else 0,
        seed=seed,
        world=world.name,
        waypoints=path_points(surface, waypoints),
        phases=tuple(tape.phases),
        turn_index=turn_index,
        ticks_per_step=tape.ticks,
        blocked=np.array(tape.blocked, np.bool_),
        blocks=_stacked(tape.blocks),
        events=_told(tape.events),
    )


def _play_loop(world: World, tape: _Tape, surface: Surface, waypoints: list[Cell], style: Style, rng: np.random.Generator, distractors: int) -> int:
    """Plays look-around, legs, detour, and closing look-around; returns the index of the first frame of the way home."""
    tape.play(world, look(style), "look")
    home = waypoints[0]
    walked: list[Cell] | None = None
    for leg, (here, goal) in enumerate(pairwise(waypoints)):
        walked = find_path(surface, here, goal, max_drop=1)
        walk = walk_to(tape.view, surface, goal, style, rng, path=walked, max_drop=1)
        if walked is None or not tape.play(world, walk, "out" if leg == 0 else "out2"):
            raise _Stuck(f"no way walked to goal {goal}")
    here = waypoints[-1]
    if distractors:
        tape.play(world, explore(tape.view, surface, style, rng, distractors), "detour")
        if np.hypot(*(tape.view.pose[:3] - point_of(surface, home))[[0, 2]]) < _AWAY:
            raise _Stuck("the detour ended at home")
        here = cell_of(surface, tape.view.pose)
    turn_index = len(tape.frames)
    back = walked[::-1] if walked and len(waypoints) == 2 and not distractors else find_path(surface, here, home, max_drop=1)
    if back is None or not tape.play(world, walk_to(tape.view, surface, home, style, rng, path=back, radius=0.7), "back"):
        raise _Stuck("no way walked home")
    if len(tape.frames) == turn_index:
        raise _Stuck("home was reached without a step")
    tape.play(world, look(style), "close")
    return turn_index


def _stacked(boxes: list[NDArray[np.bool_] | None]) -> NDArray[np.bool_] | None:
    """The solid blocks of all frames; None where the engine does not tell them of every one."""
    told = _told(boxes)
    return None if told is None else np.stack(told)


def _events_of(world: World) -> tuple[str, ...] | None:
    """What happens in the player's view; None of an engine that does not tell."""
    ask: Callable[[], tuple[str, ...]] | None = getattr(world, "events", None)
    return None if ask is None else ask()


def _told(words: list[T | None]) -> tuple[T, ...] | None:
    """What the engine told of all frames; None where it does not tell of every one."""
    told = tuple(word for word in words if word is not None)
    return told if len(told) == len(words) else None


def played_episode(
    world: World, start: Start, frames: NDArray[np.uint8], poses: NDArray[np.float64], actions: NDArray[np.float32], blocked: NDArray[np.bool_]
) -> Episode:
    """What somebody else played in an engine from a start, as an episode: the start's context, then the played part, phase ``agent``.

    Args:
        world: an engine of the same name, which is asked for the solid blocks; is reset.
        start: where it began.
        frames: ``(n + 1, H, W, 3)``, the first as the start's context ends.
        poses: ``(n + 1, 5)``.
        actions: ``(n, 9)``.
        blocked: ``(n,)``.

    Raises:
        ValueError: if the start is of another engine, or an array does not fit.
    """
    if start.world != world.name:
        raise ValueError(f"The start is of the engine {start.world!r}, this is {world.name!r}; use the engine that it was played in.")
    before = len(start.frames)
    world.reset(start.seed, start.poses[-1])
    all_poses = np.concatenate([start.poses, poses[1:]]).astype(np.float64)
    boxes = [world.solid(box_corner(pose), BOX) for pose in all_poses]
    stops = np.concatenate([np.zeros(before - 1, np.bool_), blocked])
    return Episode(
        frames=np.concatenate([start.frames, frames[1:]]),
        poses=all_poses,
        actions=np.concatenate([start.actions, actions]).astype(np.float32),
        task="agent",
        site=site_of(start.world, start.seed),
        nav_range=start.nav_range,
        seed=start.seed,
        world=start.world,
        waypoints=start.waypoints,
        phases=("look",) * before + ("agent",) * len(actions),
        blocked=stops if start.mode == "spawn" else None,  # a look-around walks nowhere; of a way out it is not known
        blocks=_stacked(boxes),
    )


# ---------------------------------------------------------------------------------------------------------------------------- many episodes


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_mix() -> dict[str, float]:
    """Weights of the tasks: ``TASK-RANGE`` for loops, the name alone for the others.

    Long ranges weigh as much in *episodes* as short ones, hence more in frames; a quarter of the episodes has no goal.
    """
    loops = {f"{task}-{reach}": 1.0 for task in LOOP_TASKS for reach in (5, 15, 30, 50)}
    return {**loops, "explore": 2.0, "bump": 0.75, "stroll": 2.0}


@dataclass(frozen=True)
class RecordConfig:
    """What to record, and where to."""

    out: Path
    """Folder of the recordings; an interrupted recording of the same settings continues in it."""
    episodes: int = 1000
    """Number of episodes the folder shall hold in the end; may be raised later to record more."""
    world: str = "voxel"
    """Engine to record in."""
    mix: dict[str, float] = field(default_factory=default_mix)
    """Weights of the tasks, such as ABA-15, ABCA-50, explore, bump, stroll."""
    split: Literal["train", "val", "test"] = "train"
    """Which world seeds to record: no world of one split is seen in another."""
    seed: int = 0
    """First world seed, counted from the split's own first; episode i is recorded in world seed + i."""
    frame_size: int | tuple[int, int] = 64
    """Height and width of the frames in pixels, one number if they are the same: 64, or 360 640."""
    explore_steps: int = 128
    """Actions of an explore, bump or stroll episode."""
    fps: Literal[5, 20] = 5
    """Frames a second: 5 is one for each action, which models are trained on; 20 is one for each game tick, as in LoopNav's own files."""
    workers: int = field(default_factory=_cores)
    """Processes that record at the same time, one world each; by default one for each core."""

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        for name, value in (("episodes", self.episodes), ("explore_steps", self.explore_steps), ("workers", self.workers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if any(side < 16 or side % 2 for side in self.size):
            raise ValueError(f"frame_size must be even and at least 16, not {self.frame_size}.")
        if self.fps not in (5, 20):
            raise ValueError(f"fps is {self.fps}, expected 5 or 20.")
        if self.split not in SPLITS:
            raise ValueError(f"There is no split named {self.split!r}; known: {', '.join(SPLITS)}.")
        if self.seed < 0 or self.seed + self.episodes > len(SPLITS[self.split]):
            raise ValueError(f"seed {self.seed} + {self.episodes} episodes leave the worlds of split {self.split!r}.")
        if not self.mix or min(self.mix.values()) < 0 or sum(self.mix.values()) <= 0:
            raise ValueError(f"mix must hold weights >= 0 that do not all vanish, not {self.mix}.")
        for name in self.mix:
            parse_task(name)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return (self.frame_size, self.frame_size) if isinstance(self.frame_size, int) else self.frame_size


def parse_task(name: str) -> tuple[str, int]:
    """Splits ``ABA-15`` into task and range; tasks without goals have range 0.

    Raises:
        ValueError: if the name is of no scripted task.
    """
    task, _, reach = name.partition("-")
    if task in FREE_TASKS and not reach:
        return task, 0
    if task in LOOP_TASKS and reach.isdigit() and int(reach) > 0:
        return task, int(reach)
    raise ValueError(f"{name!r} is no task to record; use explore, bump, stroll, or ABA-RANGE or ABCA-RANGE such as ABA-15.")


def record(config: RecordConfig, *, factory: WorldFactory = make_world, progress: bool = True) -> EpisodeIndex:
    """Records episodes in parallel until the folder holds ``config.episodes`` of them.

    Each episode depends on the config and its own number alone, so the recordings are the same with any number of workers and after any
    number of interruptions. Episodes that are already there and whole are kept.

    Args:
        config: what to record.
        factory: makes the worlds.
        progress: show a progress bar.

    Returns:
        Index of all episodes in the folder.

    Raises:
        RecordError: if another process records there, the folder holds recordings of another config, no world had room for an episode, or a worker
            died.
    """
    out = Path(config.out)
    with _alone(out):
        return _record(config, out, factory, progress)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keeps a second recorder, which would take half-written files for those of a killed one, from the folder."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(out, "records"))
        except ValueError as error:
            raise RecordError(str(error)) from None
        yield


def _record(config: RecordConfig, out: Path, factory: WorldFactory, progress: bool) -> EpisodeIndex:
    _check_recipe(config)
    entries = {int(entry.stem): entry for entry in _existing(out)}
    missing = [i for i in range(config.episodes) if i not in entries]
    if entries:
        LOGGER.info("%s already holds %d episodes; %d to record.", out, len(entries), len(missing))
    saver = _Saver(out, entries)
    try:
        # closed before the index is saved: what its processes still end is part of it
        produced = contextlib.closing(_produce(config, factory, missing, entries))
        with _Bar(progress, total=config.episodes, done=config.episodes - len(missing)) as advance, produced as finished:
            for number, entry in finished:
                entries[number] = entry
                advance(entry.frames)
                saver.maybe()
    finally:
        if entries:
            saver.now()
    return EpisodeIndex.open(out)


def _produce(
    config: RecordConfig, factory: WorldFactory, numbers: list[int], late: dict[int, IndexEntry]
) -> Generator[tuple[int, IndexEntry], None, None]:
    """Records episodes and yields them as they are finished; those that still end after a Ctrl-C or an error are put into ``late``."""
    workers = min(config.workers, len(numbers))
    if workers <= 1:
        world = _make(config, factory) if numbers else None
        try:
            for number in numbers:
                assert world is not None
                yield number, _record_number(config, number, world)
        finally:
            if world is not None:
                world.close()
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(config, factory))
    running: dict[Future[IndexEntry], int] = {}
    queue = iter(numbers)
    try:
        while True:
            # Few tasks in flight: a Ctrl-C then loses seconds of work, not minutes.
            for number in queue:
                running[pool.submit(_work, number)] = number
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise RecordError("A recording process died (out of memory?); continue with the same command and fewer workers.") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        done = {number: future for future, number in running.items() if future.done() and not future.cancelled()}
        late.update({number: future.result() for number, future in done.items() if future.exception() is None})


def _make(config: RecordConfig, factory: WorldFactory) -> World:
    return factory(config.world, frame_size=config.size) if config.fps == 5 else factory(config.world, frame_size=config.size, ticks_per_step=1)


_worker: tuple[RecordConfig, World] | None = None


def _start_worker(config: RecordConfig, factory: WorldFactory) -> None:
    """Prepares one process: a world of its own, one thread, and Ctrl-C left to the parent, which lets running episodes finish."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2
    import numba

    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    _worker = config, _make(config, factory)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone: a killed parent cannot, and the pool's queue would keep its workers waiting for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # at any moment: episodes are written atomically


def _work(number: int) -> IndexEntry:
    assert _worker is not None
    config, world = _worker
    return _record_number(config, number, world)


def _record_number(config: RecordConfig, number: int, world: World) -> IndexEntry:
    """Records and writes episode ``number`` of a config."""
    seeds = SPLITS[config.split]
    names = sorted(config.mix)
    weights = np.array([config.mix[name] for name in names])
    # a generator of its own: [a, b] and [a, b, 0] are the same seed, and the task would say where in the world the first attempt begins
    draw = np.random.default_rng([seeds.start + config.seed, number, _TASK_DRAW])
    name = str(draw.choice(names, p=weights / weights.sum()))
    task, nav_range = parse_task(name)
    last: CannotLayTask | None = None
    for attempt in range(_SEEDS_TRIED):
        # Attempts get generators of their own, so one world's trouble never shifts another's chance.
        rng = np.random.default_rng([seeds.start + config.seed, number, attempt])
        seed = seeds[(config.seed + number + attempt) % len(seeds)]
        try:
            episode = record_episode(world, seed=seed, task=task, nav_range=nav_range, rng=rng, explore_steps=config.explore_steps)
        except CannotLayTask as error:
            LOGGER.info("Episode %d: %s Going on with the next seed.", number, error)
            last = error
            continue
        return entry_of(config.out, write_episode(config.out, episode, stem=f"{number:06d}"), episode)
    raise RecordError(f"Episode {number} ({name}) fits in none of {_SEEDS_TRIED} worlds; take {name} out of the mix.") from last


def _existing(out: Path) -> tuple[IndexEntry, ...]:
    """Whole episodes in a folder that carry this recorder's names; half-written and damaged ones are deleted to be recorded again."""
    for path in out.glob("*/*/*/.*"):
        if path.suffix in (".avi", ".json"):
            path.unlink(missing_ok=True)
    try:
        index = EpisodeIndex.build(out, skip_damaged=True)
    except EpisodeMissingError:
        (out / INDEX_NAME).unlink(missing_ok=True)
        return ()
    return tuple(entry for entry in index if entry.stem.isdigit())


class _Saver:
    """Saves the index every so often, so that a kill costs no re-reading of many episodes."""

    def __init__(self, out: Path, entries: dict[int, IndexEntry]) -> None:
        self._out, self._entries, self._last = out, entries, time.monotonic()

    def maybe(self) -> None:
        if time.monotonic() - self._last > _SAVE_SECONDS:
            self.now()

    def now(self) -> None:
        EpisodeIndex(self._out, tuple(self._entries.values())).save().write_splits()
        self._last = time.monotonic()


def _settings(config: RecordConfig) -> dict[str, Any]:
    """The part of a config that recordings in one folder must share."""
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "episodes", "workers")}
    settings["mix"] = {name: float(config.mix[name]) for name in sorted(config.mix)}
    if not isinstance(config.frame_size, int):
        settings["frame_size"] = list(config.frame_size)  # as JSON gives it back
    return settings


def _check_recipe(config: RecordConfig) -> None:
    """Compares a folder's recipe with the config, and writes it.

    Raises:
        RecordError: if the folder was recorded with other settings, or holds episodes but no recipe.
    """
    path = Path(config.out) / RECIPE_NAME
    settings = _settings(config)
    scripts = SCRIPTS_VERSION
    if path.is_file():
        try:
            recipe = json.loads(path.read_text(encoding="utf-8"))
            known, scripts = {"fps": 5, **recipe["config"]}, str(recipe["versions"].get("recorder", "1"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise RecordError(f"{path} is not a recipe; record into another folder.") from None
        other = [name for name in settings if known.get(name) != settings[name]]
        if other:
            told = "; ".join(f"{name} is {known.get(name)} there and {settings[name]} here" for name in other)
            raise RecordError(f"{config.out} holds recordings of other settings ({told}); use them too, or record into another folder.")
        if scripts.split("+")[-1] != SCRIPTS_VERSION:
            LOGGER.warning("%s was begun with another version of the scripts (%s, now %s), kept.", config.out, scripts, SCRIPTS_VERSION)
            scripts = f"{scripts}+{SCRIPTS_VERSION}"
    elif any(Path(config.out).glob("*/*/*/*.json")):
        raise RecordError(f"{config.out} holds episodes but no {RECIPE_NAME}, so they were not recorded here; record into another folder.")
    versions = {"recorder": scripts, "python": platform.python_version()}
    for package in ("worldpack-env", "numpy", "numba", "opencv-python"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    recipe = {"config": settings, "episodes": config.episodes, "versions": versions}
    write_atomically(path, json.dumps(recipe, indent=2) + "\n")


class _Bar:
    """Progress bar as a context manager that gives the function to advance it by one episode of so many frames."""

    def __init__(self, show: bool, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("recording"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes, {task.fields[frames]} frames"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=not show,
        )
        self._task = self._progress.add_task("recording", total=total, completed=done, frames=0)
        self._frames = 0

    def __enter__(self) -> Callable[[int], None]:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, frames: int) -> None:
        self._frames += frames
        self._progress.update(self._task, advance=1, frames=self._frames)
