"""MineRL behind the world protocol: a worker process of MineRL's own Python, asked over a local socket.

MineRL does not install beside a current Python stack, so it runs in the interpreter that ``WORLDPACK_MINERL_PYTHON`` names; the programs talk
as ``minerl_worker.py`` says. ``docs/minerl.md`` has the set-up.

==========================  ========================================================================================
variable                    meaning
==========================  ========================================================================================
WORLDPACK_MINERL_PYTHON     the Python that has MineRL or MineStudio
WORLDPACK_MINERL_BACKEND    ``minestudio``, ``minerl`` (1.x), ``minerl-0.4``; default ``auto``: the first that is there
WORLDPACK_MINERL_SERVER     port of a Minecraft or ``malmo_server`` that already runs here; default: Minecraft is started
==========================  ========================================================================================
"""

from __future__ import annotations

import math
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import BackendUnavailable, MissionView, Surface, WorldView
from worldpack_env.worlds.blocks import SurveyedBlocks
from worldpack_env.worlds.worker_process import WorkerFault, WorkerProcess, WorkerRefusal
from worldpack_model.geometry import DPITCH, KEYS, POSE_DIM, TICKS_PER_STEP, check_action, check_pose, wrap_degrees

PYTHON_VARIABLE: Final = "WORLDPACK_MINERL_PYTHON"
BACKEND_VARIABLE: Final = "WORLDPACK_MINERL_BACKEND"
SERVER_VARIABLE: Final = "WORLDPACK_MINERL_SERVER"
SMALLEST: Final = (64, 64)
"""(height, width) of the smallest frames."""
LARGEST: Final = (360, 640)
"""(height, width) of the largest frames."""
SURVEY_SIDE: Final = 192
"""Blocks along x and z of the square around (0, 0) that a survey tells."""
SURVEY_BELOW: Final = 8
"""Layers of a survey below the sea level."""
SURVEY_ABOVE: Final = 40
"""Layers of a survey above it; higher ground counts as a wall."""
_SURVEYS_KEPT: Final = 4
_HALF_WIDTH: Final = 0.3
"""Half the side of a player's box, in blocks."""
Result = TypeVar("Result")
WORKER: Final = Path(__file__).with_name("minerl_worker.py")


@dataclass(frozen=True)
class Patience:
    """How long the worker may take, in seconds."""

    connect: float = 60.0
    """From its start until it is connected."""
    open: float = 120.0
    """To import MineRL."""
    reset: float = 600.0
    """To start Minecraft and build a world."""
    step: float = 60.0
    """For one env step."""
    close: float = 15.0
    """To end Minecraft; then it is killed."""


def find_python(python: str | os.PathLike[str] | None = None) -> str:
    """Path of the Python that has MineRL.

    Args:
        python: path or name of a program; None takes the environment variable's.

    Raises:
        BackendUnavailable: if none is named, or there is no such program.
    """
    named = os.fspath(python) if python is not None else os.environ.get(PYTHON_VARIABLE, "")
    if not named:
        raise BackendUnavailable(
            f"The world 'minerl' runs in the Python that has MineRL, and {PYTHON_VARIABLE} names none; "
            f"run: worldpack doctor minerl (or read docs/minerl.md), then: export {PYTHON_VARIABLE}=/path/to/that/python"
        )
    found = shutil.which(os.path.expanduser(named))
    if found is None:
        raise BackendUnavailable(f"{PYTHON_VARIABLE} names {named}, which is no program that can be run; run: worldpack doctor minerl")
    return found


def find_server(server: int | str | None = None) -> int | None:
    """Port of a Malmo server that already runs on this machine; None starts Minecraft.

    Raises:
        ValueError: if it is no port.
    """
    named = os.environ.get(SERVER_VARIABLE, "") if server is None else str(server)
    if not named:
        return None
    host, _, port = named.rpartition(":")
    if host not in ("", "127.0.0.1", "localhost") or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{SERVER_VARIABLE} is {named!r}, expected the port of a server on this machine, such as 9000 or 127.0.0.1:9000.")
    return int(port)


class MineRLWorld:
    """MineRL behind the :class:`~worldpack_env.worlds.World` protocol.

    :meth:`surface` surveys the blocks around the origin in a mission of its own, where the backend can tell blocks (``minestudio`` and
    ``minerl-0.4``); MineRL 1.0 raises an error that says what to use instead. :meth:`solid` answers from that survey, and None where there is
    none.
    """

    name: str = "minerl"
    concurrent: bool = True
    """Several of these may be stepped at the same time, each in a thread: the work is done in their own processes."""
    missions: tuple[str, ...] = ("navigate", "navigate-dense")
    """MineRL's own missions that it can play; only the backend ``minerl-0.4`` does."""

    def __init__(
        self,
        frame_size: tuple[int, int] = (64, 64),
        *,
        python: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        server: int | str | None = None,
        patience: Patience | None = None,
        mission: str | None = None,
        restarts: int = 2,
        worker: str | os.PathLike[str] = WORKER,
    ) -> None:
        """Looks for the interpreter; it is started with the first reset.

        Args:
            frame_size: (height, width) of its frames in pixels, from 64 x 64 to 360 x 640.
            python: the Python that has MineRL; None takes ``WORLDPACK_MINERL_PYTHON``.
            backend: ``minestudio``, ``minerl``, ``minerl-0.4`` or ``auto``; None takes ``WORLDPACK_MINERL_BACKEND``, else ``auto``.
            server: port of a Malmo server that already runs here; None takes ``WORLDPACK_MINERL_SERVER``, else starts Minecraft.
            patience: time-outs.
            mission: one of :attr:`missions`, then every view has its ``mission``; None walks and looks only.
            restarts: how often in a row the worker is started again after a fault before this gives up.
            worker: the worker's program.

        Raises:
            ValueError: if the frame size, the port or the number of restarts is out of range, or there is no such mission.
            BackendUnavailable: if there is no such interpreter.
        """
        height, width = int(frame_size[0]), int(frame_size[1])
        if not (SMALLEST[0] <= height <= LARGEST[0] and SMALLEST[1] <= width <= LARGEST[1]):
            raise ValueError(f"frame_size is {frame_size}, expected (height, width) from {SMALLEST} to {LARGEST} for the world 'minerl'.")
        if restarts < 0:
            raise ValueError(f"restarts is {restarts}, expected 0 or more.")
        self.frame_size = height, width
        self.python = find_python(python)
        self.backend = backend or os.environ.get(BACKEND_VARIABLE) or "auto"
        self.server = find_server(server)
        self.patience = patience or Patience()
        if mission is not None and mission not in self.missions:
            raise ValueError(f"mission is {mission!r}, expected None or one of {', '.join(self.missions)}.")
        self.mission = mission
        self.restarts, self._worker_path = restarts, os.fspath(worker)
        self.about: dict[str, str] = {}
        self._worker: WorkerProcess | None = None
        self._faults = 0  # in a row, without a good step between them
        self._closed = False
        self._start: tuple[int, NDArray[np.float64]] | None = None
        self._pose: NDArray[np.float64] | None = None  # None: there is no running episode to step
        self._stepped = False
        self._survey_checked = False
        self._surveys: OrderedDict[int, SurveyedBlocks] = OrderedDict()

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Builds world ``seed`` and stands the player at ``pose`` (5,), at rest; None takes the world's own spawn.

        A worker that fails is started again, at most ``restarts`` times in a row.

        Raises:
            RuntimeError: after :meth:`close`.
            ValueError: if the seed or the pose is malformed.
            BackendUnavailable: if MineRL cannot be used or does not come up.
        """
        self._check_open()
        if not -(2**63) <= int(seed) < 2**63:
            raise ValueError(f"seed is {seed}, expected a 64-bit integer.")
        place = None if pose is None else check_pose(pose)
        if place is not None and place.shape != (POSE_DIM,):
            raise ValueError(f"pose has shape {place.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
        self._pose = self._start = None
        view = self._until_it_works(lambda worker: self._reset(worker, int(seed), place))
        self._start = int(seed), view.pose.copy() if place is None else place
        self._stepped = False
        return view

    def step(self, action: ArrayLike) -> WorldView:
        """Turns the camera by ``action`` (9,) in the first of ``TICKS_PER_STEP`` ticks and holds its keys for all of them.

        Raises:
            RuntimeError: before :meth:`reset`, after :meth:`close`, and after a fault or the end of a mission until the next reset.
            ValueError: if the action is malformed.
            BackendUnavailable: if the worker fails; nothing of a wrong answer is returned.
        """
        self._check_open()
        held = check_action(action)
        if held.shape != (DPITCH + 2,):
            raise ValueError(f"action has shape {held.shape}, expected ({DPITCH + 2},).")
        if self._pose is None or self._worker is None:
            if self._start is None or self._stepped:
                raise RuntimeError("Call reset() before step().")
            self.reset(*self._start)  # surface() ended the episode before its first step
        assert self._worker is not None and self._pose is not None
        keys = [int(key > 0.5) for key in held[:DPITCH]]
        before, self._stepped = self._pose, True
        try:
            turns = [float(turn) for turn in held[DPITCH:]]
            frame, track, mission = self._ask(self._worker, "step", self.patience.step, keys=keys, camera=turns)
        except BackendUnavailable:
            self._lost()
            raise
        self._faults = 0
        self._pose = None if mission is not None and mission.done else track[-1]
        return WorldView(frame, track[-1].copy(), walk_blocked(np.vstack([before[None], track]), keys), mission)

    def surface(self) -> Surface:
        """The walkable surface of the world last reset to, in a square of ``SURVEY_SIDE`` blocks around (0, 0).

        The first call for a world surveys it, which needs a mission of its own: call it before the first step of an episode.

        Raises:
            RuntimeError: before :meth:`reset`, or in the middle of an episode in a world that was not surveyed.
            BackendUnavailable: if the backend does not tell its blocks, or the worker fails.
        """
        self._check_open()
        if self._start is None:
            raise RuntimeError("Call reset() before surface().")
        seed = self._start[0]
        if seed not in self._surveys:
            if self._stepped:
                raise RuntimeError("surface() surveys a world in a mission of its own, which ends the episode; call it before the first step.")
            self._pose = None
            survey = self._until_it_works(lambda worker: self._survey(worker, seed))
            if not self._survey_checked:
                self._check_survey(seed, survey.surface())
            self._surveys[seed] = survey
            while len(self._surveys) > _SURVEYS_KEPT:
                self._surveys.popitem(last=False)
        self._surveys.move_to_end(seed)
        return self._surveys[seed].surface()

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_] | None:
        """Which blocks ``size`` of a box from ``corner (3,)`` no body can enter; None where the world was not surveyed.

        See :meth:`surface`. Agents of this project break and place no blocks, so a survey stays true.
        """
        survey = None if self._start is None else self._surveys.get(self._start[0])
        return None if survey is None else survey.solid(corner, size)

    def close(self) -> None:
        """Ends the worker and Minecraft; may be called twice."""
        self._closed = True
        self._pose = None
        if self._worker is not None:
            self._worker.close(self.patience.close)
            self._worker = None

    # -------------------------------------------------------------------------------------------------------------------- the worker

    def _until_it_works(self, work: Callable[[WorkerProcess], Result]) -> Result:
        """The result of ``work(worker)``, with a new worker after each fault."""
        while True:
            if self._faults > self.restarts:
                raise BackendUnavailable(
                    f"The MineRL worker failed {self._faults} times in a row, so this world is given up; make a new one when its cause is mended."
                )
            try:
                return work(self._running())
            except WorkerFault:
                self._lost()
                if self._faults > self.restarts:
                    raise
            except WorkerRefusal:
                raise
            except BaseException:  # Ctrl-C: the worker is in the middle of something
                self._lost()
                raise

    def _running(self) -> WorkerProcess:
        if self._worker is None:
            self._worker = WorkerProcess([self.python, self._worker_path], connect_seconds=self.patience.connect)
            what = {"backend": self.backend, "ticks": TICKS_PER_STEP, "server": self.server, "mission": self.mission}
            try:
                header, _ = self._worker.ask("open", None, self.patience.open, height=self.frame_size[0], width=self.frame_size[1], **what)
            except WorkerRefusal:
                self._worker.kill()
                self._worker = None
                raise
            self.about = {str(k): str(v) for k, v in dict(header.get("about", {})).items()}
        return self._worker

    def _lost(self) -> None:
        """Ends a worker that failed."""
        self._faults += 1
        self._pose = None
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _reset(self, worker: WorkerProcess, seed: int, place: NDArray[np.float64] | None) -> WorldView:
        frame, track, mission = self._ask(worker, "reset", self.patience.reset, seed=seed, pose=None if place is None else place.tolist())
        if mission is not None and mission.done:
            raise WorkerFault("The MineRL worker reports that a mission was over when it began.")
        self._pose = track[-1]
        return WorldView(frame, track[-1].copy(), False, mission)

    def _ask(
        self, worker: WorkerProcess, do: str, seconds: float, **fields: Any
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], MissionView | None]:
        """Frame ``(H, W, 3)``, poses ``(n, 5)`` and mission that the worker answers a reset (n = 1) or a step with."""
        frame = np.empty((*self.frame_size, 3), np.uint8)
        header, _ = worker.ask(do, frame.data.cast("B"), seconds, **fields)
        mission = None if self.mission is None else self._read_mission(do, header)
        count = 1 if do == "reset" else TICKS_PER_STEP
        if mission is not None and mission.done:  # in any tick of the step
            count = min(max(len(header["track"]) if isinstance(header.get("track"), list) else 0, 1), count)
        try:
            track = np.array(header["track"], np.float64)
            if track.shape != (count, POSE_DIM) or not np.isfinite(track).all():
                raise ValueError(track.shape)
        except (KeyError, TypeError, ValueError):
            raise WorkerFault(f"The MineRL worker answered {do!r} without {count} poses of five finite numbers: {str(header)[:200]}") from None
        track[:, 3] = wrap_degrees(track[:, 3])
        track[:, 4] = np.clip(track[:, 4], -90.0, 90.0)
        return frame, track, mission

    @staticmethod
    def _read_mission(do: str, header: dict[str, Any]) -> MissionView:
        """What the worker says of the mission."""
        try:
            reward, done, success, compass, distance = header["mission"]
            told = MissionView(float(reward), bool(done), bool(success), float(compass), math.nan if distance is None else float(distance))
            if not (math.isfinite(told.reward) and math.isfinite(told.compass) and type(done) is type(success) is bool and done >= success):
                raise ValueError(told)
        except (KeyError, TypeError, ValueError):
            raise WorkerFault(f"The MineRL worker answered {do!r} without reward, end and compass of its mission: {str(header)[:200]}") from None
        return told._replace(compass=(told.compass + 180.0) % 360.0 - 180.0)

    def _survey(self, worker: WorkerProcess, seed: int) -> SurveyedBlocks:
        half, layers = SURVEY_SIDE // 2, SURVEY_BELOW + SURVEY_ABOVE
        count = 2 * SURVEY_SIDE * SURVEY_SIDE * layers
        area = {"corner": [-half, -half], "size": [SURVEY_SIDE, SURVEY_SIDE], "below": SURVEY_BELOW, "above": SURVEY_ABOVE}
        header, data = worker.ask("survey", count, self.patience.reset, seed=seed, **area)
        try:
            if list(header["size"]) != [SURVEY_SIDE, layers, SURVEY_SIDE]:
                raise ValueError(f"size {header['size']}")
            ids = np.frombuffer(data, "<u2").astype(np.uint16).reshape(layers, SURVEY_SIDE, SURVEY_SIDE)
            corner, names = [int(v) for v in header["corner"]], [str(name) for name in header["palette"]]
            return SurveyedBlocks.from_names(corner, names, ids, modern=bool(header.get("modern", False)))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise WorkerFault(f"The MineRL worker answered 'survey' with something else ({error}).") from None

    def _check_survey(self, seed: int, surface: Surface) -> None:
        """Stands the player on the walkable cell nearest to the origin of the first world surveyed: what was told must bear it, and let it be.

        How engines tell blocks is known from their code, not from running them here, so this is asked of each engine once.
        """
        places = np.argwhere(surface.walkable)
        if len(places) == 0:
            return
        centre = -np.array(surface.origin)
        i, k = (int(v) for v in places[np.argmin(np.abs(places - centre).max(axis=1))])
        place = np.array([surface.origin[0] + i + 0.5, float(surface.heights[i, k]), surface.origin[1] + k + 0.5, 0.0, 0.0])

        def stand(worker: WorkerProcess) -> NDArray[np.float64]:
            self._reset(worker, seed, place)
            return self._ask(worker, "step", self.patience.step, keys=[0] * len(KEYS), camera=[0.0, 0.0])[1]

        track = self._until_it_works(stand)
        self._pose = None
        if np.abs(track[-1, :3] - place[:3]).max() > 0.1:
            raise BackendUnavailable(
                f"The engine told a surface that does not bear the player: stood at {place[:3].tolist()}, it went "
                f"to {track[-1, :3].round(3).tolist()}; use starts from recorded episodes (StartBank.from_episodes) "
                f"or from places you know (start_at) instead."
            )
        self._survey_checked = True

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This world is closed; make a new one.")


def walk_blocked(track: NDArray[np.float64], keys: list[int]) -> bool:
    """Whether something stopped a walk, from poses alone, which is all MineRL tells.

    The game moves a body as far as it can go along each axis, so a body that is stopped touches the side of a block, exactly, or does not move.

    Args:
        track: ``(1 + ticks, 5)`` poses before the step and after each tick.
        keys: ``(7,)`` held keys, 0 or 1.
    """
    held = dict(zip(KEYS, keys, strict=True))
    ahead, right = held["forward"] - held["back"], held["right"] - held["left"]
    if ahead == 0 and right == 0:
        return False
    yaw = math.radians(float(track[-1, 3]))
    wanted = -ahead * math.sin(yaw) - right * math.cos(yaw), ahead * math.cos(yaw) - right * math.sin(yaw)
    for axis, push in ((0, wanted[0]), (2, wanted[1])):
        moved = np.diff(track[:, axis])
        still = np.abs(moved) < 1e-9
        pushed = abs(push) > 1e-3
        # Momentum may carry it against a wall it does not push at any more.
        side = track[1:, axis] + np.copysign(_HALF_WIDTH, np.where(still, push, moved))
        touches = (np.abs(side - np.round(side)) < 1e-6) & (pushed | ~still)  # the game's 0.3 is a 32-bit number
        # A sneaking body also stands still at an edge, where nothing stops it but itself.
        if (touches | (still & pushed & (not held["sneak"]))).any():
            return True
    return False
