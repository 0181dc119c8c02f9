"""The engine's half of the ``minerl`` world: a program of its own, run by the Python that has MineRL (3.8 to 3.11, old gym and NumPy).

It imports the standard library and NumPy, and MineRL once it is asked for an engine; nothing of this project, which that Python lacks.
``minerl.MineRLWorld`` starts it as ``python minerl_worker.py PORT``, writes a random token to its standard input and listens on
``127.0.0.1:PORT``; the worker connects and sends the token, so that no other process can be taken for it.

**Messages** both ways are ``MAGIC``, the lengths of header and payload as two big-endian 32-bit numbers, a header in JSON, a payload of
raw bytes. A request is ``{"id": n, "do": name, ...}``; its answer is ``{"id": n, "ok": true, ...}`` with a payload, or
``{"id": n, "ok": false, "error": text, "final": bool}``, where ``final`` means that asking again cannot help.

=========  ========================================================  ============================================================
do         request                                                   answer
=========  ========================================================  ============================================================
``open``   ``backend, height, width, ticks, server, mission``        ``about``: versions
``reset``  ``seed, pose`` (5 numbers or null)                        ``track``: one pose; payload: frame ``(H, W, 3) uint8``
``step``   ``keys`` (7 of 0/1), ``camera`` (dpitch, dyaw)            ``track``: the pose after each tick; payload: the last frame
``survey`` ``seed, corner`` (x, z), ``size`` (x, z), ``below, above``  ``palette, corner, size, modern``; payload: uint16 ``(y, z, x)``
``close``                                                            nothing; the worker ends
=========  ========================================================  ============================================================

Poses are ``[x, y, z, yaw, pitch]`` as MineRL tells them (yaw not wrapped). Camera degrees are turned in the first tick of a step. ``mission`` is
null or one of ``MISSIONS``, MineRL's own; then ``reset`` and ``step`` also answer ``mission``: ``[reward, done, success, compass, distance]`` (the
distance null where MineRL does not tell), and a step ends with the tick that ends the mission.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from typing import Any

import numpy as np

MAGIC = b"WPM1"
PREFIX = struct.Struct("!4sII")
KEYS = ("forward", "back", "left", "right", "jump", "sneak", "sprint")
SETTLE_TICKS = 20
"""Ticks an engine may take after a reset to show its first picture and to stand the player where the mission says."""
SURVEY_TICKS = 200
"""Ticks an engine may take to tell the blocks of a survey."""
VOXELS_SIDE = 96
"""Columns along x and z of one question of MineStudio's ``voxels``, which reaches 50 blocks to each side."""
MISSIONS = {"navigate": False, "navigate-dense": True}
"""MineRL's own missions that can be played -> whether their reward is dense."""
TOUCH_REWARD = 100.0
"""What Navigate pays for touching its block; nothing else in it pays half as much in a tick."""
COMMANDS = (
    "/gamerule doDaylightCycle false",
    "/gamerule doWeatherCycle false",
    "/gamerule doMobSpawning false",
    "/difficulty peaceful",
    "/time set 6000",
    "/weather clear",
)
"""Typed into the chat of engines whose missions cannot say so: noon, clear sky, no mobs."""


class EngineError(Exception):
    """Something went wrong that the other side should be told in one sentence; the engine may work again after a restart."""


class SetupError(EngineError):
    """The engine cannot work on this machine as it is; starting it again cannot help."""


class Frame:
    """A picture and the pose that it was seen from."""

    def __init__(self, pixels: Any, pose: list[float]) -> None:
        self.pixels, self.pose = pixels, pose


@dataclass(frozen=True)
class Backend:
    """What sets one generation of MineRL apart."""

    distribution: str
    """Name of the installed package."""
    versions: str
    """How its version begins."""
    package: str
    """Where MineRL's code lies."""
    human: bool
    """Missions want the settings of a human's screen (1.0); else those of 0.4."""
    commands: bool
    """The engine takes chat commands, which is the only way to fix its time, weather and mobs and the surest one to place the player."""
    grid: bool
    """Missions can ask for the blocks of a box (Malmo's ObservationFromGrid)."""
    voxels: bool
    """Actions can ask for the blocks around the player (MineStudio's ``voxels``)."""
    missions: bool
    """Its Java half plays MineRL's Navigate (MineRL issue 684)."""


BACKENDS: dict[str, Backend] = {
    "minestudio": Backend("minestudio", "1.", "minestudio.simulator.minerl", human=True, commands=True, grid=False, voxels=True, missions=False),
    "minerl": Backend("minerl", "1.", "minerl", human=True, commands=False, grid=False, voxels=False, missions=False),
    "minerl-0.4": Backend("minerl", "0.4.", "minerl", human=False, commands=False, grid=True, voxels=False, missions=True),
}


def find_backend(name: str) -> str:
    """Name of the backend to use: the one asked for, or for ``auto`` the first that is installed.

    Raises:
        SetupError: if it is not there or not in the version it needs.
    """
    if name != "auto" and name not in BACKENDS:
        raise SetupError("There is no MineRL backend {!r}; known: auto, {}.".format(name, ", ".join(BACKENDS)))
    for candidate in BACKENDS if name == "auto" else (name,):
        try:
            version = metadata.version(BACKENDS[candidate].distribution)
        except metadata.PackageNotFoundError:
            continue
        if version.startswith(BACKENDS[candidate].versions):
            return candidate
        if name != "auto":
            raise SetupError(f"{candidate} {version} is installed, but the backend {name!r} is {BACKENDS[name].versions}x; choose backend 'auto'.")
    wanted = "minestudio, minerl 1.x or minerl 0.4.4" if name == "auto" else name
    raise SetupError(f"{sys.executable} has no {wanted}; install it there, or set WORLDPACK_MINERL_PYTHON to a Python that has it.")


def decimal(value: float) -> str:
    """A number as XML decimals allow it: every digit, no exponent."""
    return format(Decimal(repr(float(value))), "f")


class MineRLEngine:
    """MineRL behind the worker's requests, over MineRL's own environment class."""

    def __init__(self, backend: str, size: tuple[int, int], ticks: int, server: int | None, mission: str | None = None) -> None:
        """Imports MineRL and makes the environment; Minecraft itself starts with the first reset.

        Args:
            backend: a name of ``BACKENDS`` or ``auto``.
            size: (height, width) of its frames in pixels.
            ticks: game ticks of a step.
            server: port of a Minecraft or Malmo server that already runs on this machine; None starts Minecraft.
            mission: one of ``MISSIONS``; None walks and looks only.

        Raises:
            SetupError: if MineRL cannot be used, or does not play that mission.
        """
        self.name = find_backend(backend)
        self.mission = mission
        if mission is not None and not (mission in MISSIONS and BACKENDS[self.name].missions):
            raise SetupError(
                f"The backend {self.name!r} does not play the mission {mission!r}: only MineRL 0.4's Java places the block of Navigate (MineRL issue "
                "684); install minerl==0.4.4 in an interpreter of its own and set WORLDPACK_MINERL_BACKEND=minerl-0.4."
            )
        self.backend, self.size, self.ticks = BACKENDS[self.name], size, ticks
        if self.name == "minestudio":
            self._prepare_minestudio(server)
        try:
            self.spec = make_spec(self.backend, size, mission)
            module = importlib.import_module(self.backend.package + ".env._singleagent")
            self.env = module._SingleAgentEnv(env_spec=self.spec, instances=None if server is None else [self._attach(server)])
        except ImportError as error:
            raise SetupError(f"MineRL does not import in {sys.executable}: {error}.") from error
        except AttributeError as error:
            if "module 'numpy'" in str(error):  # np.int and np.float are gone since NumPy 1.24
                raise SetupError(
                    f"MineRL needs numpy<1.24 and {sys.executable} has {np.__version__}; run: {sys.executable} -m pip install 'numpy<1.24'"
                ) from error
            raise
        self._last: Frame | None = None
        self._reward, self._done, self._success, self._touched = 0.0, False, False, False

    def about(self) -> dict[str, str]:
        """Versions, for logs and reports."""
        version = metadata.version(self.backend.distribution)
        return {"backend": self.name, "version": version, "python": platform.python_version(), "numpy": np.__version__}

    def reset(self, seed: int, pose: list[float] | None) -> Frame:
        """Builds world ``seed`` and stands the player at ``pose``, or where the world spawns players."""
        self.spec.pose, self.spec.grid = pose, None
        frame = self._begin(seed)
        if self.backend.commands:
            for command in COMMANDS:
                frame = self._tick({"chat": command})
            if pose is not None and not _is_at(frame.pose, pose):
                frame = self._tick({"chat": "/tp @s " + " ".join(decimal(value) for value in pose)})
        for _ in range(SETTLE_TICKS):
            if pose is None or _is_at(frame.pose, pose):
                return frame
            frame = self._tick({})
        raise EngineError(
            f"MineRL stood the player at {[round(value, 3) for value in frame.pose]} instead of {pose}; is that place free, and its ground generated?"
        )

    def step(self, keys: list[int], camera: list[float]) -> tuple[list[Frame], Any]:
        """Turns the camera in the first tick, holds the keys for all; the frames after each."""
        held: dict[str, Any] = {key: int(keys[i]) for i, key in enumerate(KEYS)}
        frames: list[Frame] = []
        self._reward = 0.0
        for tick in range(self.ticks):
            turn = np.array(camera if tick == 0 else (0.0, 0.0), np.float64)
            frames.append(self._tick({**held, "camera": turn}))
            if self._done:
                break
        return frames, frames[-1].pixels

    def told(self) -> list[Any] | None:
        """Reward of the last step, whether the mission is over, whether its goal was reached, and compass and distance as they are now."""
        if self.mission is None:
            return None
        distance = self.spec.stats.get("distanceToCompassTarget")
        return [self._reward, self._done, self._success, self._compass, None if distance is None else float(distance)]

    def survey(self, seed: int, corner: list[int], size: list[int], below: int, above: int) -> tuple[dict[str, Any], Any]:
        """Names of the blocks in a box, in a mission of its own.

        Args:
            seed: world seed.
            corner: lowest (x, z) of the box.
            size: blocks along x and z.
            below: layers below the sea level.
            above: layers above the sea level.

        Raises:
            SetupError: if this generation of MineRL cannot tell blocks.
        """
        if not self.backend.grid and not self.backend.voxels:
            raise SetupError(
                f"The backend {self.name!r} does not tell its blocks (minestudio and minerl-0.4 do), so nothing can be planned in it; use starts "
                "from recorded episodes (StartBank.from_episodes) or from places you know (start_at)."
            )
        # The sea level is told by the first observation, the box is part of the mission: so a first, short mission asks for it.
        self.spec.pose, self.spec.grid = None, None
        self._begin(seed)
        low = (corner[0], int(self.spec.stats.get("sea_level", 63)) - below, corner[1])
        full = (size[0], below + above, size[1])
        names, ids = self._ask_mission(seed, low, full) if self.backend.grid else self._ask_around(low, full)
        return {"palette": names, "corner": low, "size": full, "modern": self.backend.human}, ids

    def _ask_mission(self, seed: int, low: tuple[int, int, int], full: tuple[int, int, int]) -> tuple[list[str], Any]:
        """Names and ids ``(y, z, x)`` of the blocks of a box, by a mission that asks for them."""
        self.spec.grid = (low, full)
        count = full[0] * full[1] * full[2]
        self._begin(seed)
        for _ in range(SURVEY_TICKS):
            told = self.spec.blocks
            if told is not None and len(told) == count:
                numbers: dict[str, int] = {}
                ids = np.fromiter((numbers.setdefault(name, len(numbers)) for name in told), np.uint16, count)
                self.spec.grid = None
                return list(numbers), ids
            self._tick({})
        raise EngineError(f"MineRL did not tell the {count} blocks of a survey within {SURVEY_TICKS} ticks.")

    def _ask_around(self, low: tuple[int, int, int], full: tuple[int, int, int]) -> tuple[list[str], Any]:
        """The same by a spectator that hovers over the middle of each part of the box and asks what is around."""
        self._tick({"chat": "/gamemode spectator"})
        names = {"air": 0}
        ids = np.zeros((full[1], full[2], full[0]), np.uint16)
        middle = low[1] + full[1] // 2
        for x in range(low[0], low[0] + full[0], VOXELS_SIDE):
            for z in range(low[2], low[2] + full[2], VOXELS_SIDE):
                wide, deep = min(VOXELS_SIDE, low[0] + full[0] - x), min(VOXELS_SIDE, low[2] + full[2] - z)
                part = ids[:, z - low[2] : z - low[2] + deep, x - low[0] : x - low[0] + wide]
                centre = (x + wide // 2, middle, z + deep // 2)
                self._tick({"chat": f"/tp @s {centre[0] + 0.5} {centre[1]} {centre[2] + 0.5}"})
                box = (
                    x - centre[0],
                    x + wide - 1 - centre[0],
                    low[1] - middle,
                    low[1] + full[1] - 1 - middle,
                    z - centre[2],
                    z + deep - 1 - centre[2],
                )
                for tick in range(SURVEY_TICKS):
                    if tick % 10 == 9:  # chunks come in their time
                        self._tick({"voxels": box})
                        read_voxels(self.spec.stats.get("voxels"), centre, box, names, part)
                        if (part > 0).any(axis=0).mean() > 0.99:
                            break
                    else:
                        self._tick({})
                else:
                    raise EngineError(f"MineStudio did not tell the blocks around {centre} within {SURVEY_TICKS} ticks.")
        return list(names), ids.reshape(-1)

    def close(self) -> None:
        """Ends Minecraft, if this started it."""
        self.env.close()

    def _begin(self, seed: int) -> Frame:
        self.env.seed(seed)
        self._reward, self._done, self._success, self._touched = 0.0, False, False, False
        frame = self._see(self.env.reset())
        for _ in range(SETTLE_TICKS):
            if frame is not None:
                return frame
            frame = self._see(self._raw({}))
        raise EngineError(f"MineRL showed no picture within {SETTLE_TICKS} ticks after a reset; does it have a display (xvfb-run)?")

    def _tick(self, action: dict[str, Any]) -> Frame:
        frame = self._see(self._raw(action))
        if frame is None:
            raise EngineError("MineRL showed an empty picture.")
        return frame

    def _raw(self, action: dict[str, Any]) -> Any:
        full = dict.fromkeys(KEYS, 0)
        observation, reward, done, info = self.env.step({**full, "camera": np.zeros(2), **action})
        if "error" in info:  # MineRL goes on with a random observation here
            raise EngineError("MineRL lost its engine: {}".format(info["error"]))
        self._reward += float(reward)
        # A mission that ends where the goal is touched may say so some ticks after it has paid for that.
        self._touched = self._touched or float(reward) > 0.5 * TOUCH_REWARD
        self._done, self._success = bool(done), bool(done) and self._touched
        if done and self.mission is None:
            raise EngineError("MineRL ended the mission without being asked to; the player may have died or the engine have quit.")
        return observation

    def _see(self, observation: Any) -> Frame | None:
        if observation["pov"] is None:
            return None
        pixels = np.ascontiguousarray(observation["pov"], np.uint8)
        if pixels.shape != (self.size[0], self.size[1], 3):
            raise EngineError(f"MineRL showed a picture of {pixels.shape} instead of {(*self.size, 3)}.")
        if self.mission is not None:
            self._compass = float(observation["compass"]["angle"])
        return Frame(pixels, observation["pose"])

    def _attach(self, port: int) -> Any:
        malmo = importlib.import_module(self.backend.package + ".env.malmo")
        options = {"working_dir": tempfile.gettempdir()} if self.name == "minestudio" else {}
        return malmo.MinecraftInstance(port=port, existing=True, **options)

    @staticmethod
    def _prepare_minestudio(server: int | None) -> None:
        """Makes MineStudio's copy of MineRL importable without its agents and their dependencies, and looks for its engine."""
        import minestudio  # type: ignore[import-not-found]

        # The package's own start-up imports torch and everything that trains agents.
        parent = types.ModuleType("minestudio.simulator")
        parent.__path__ = [os.path.join(os.path.dirname(minestudio.__file__), "simulator")]
        sys.modules["minestudio.simulator"] = parent
        home = os.environ.get("MINESTUDIO_DIR") or os.path.join(tempfile.gettempdir(), "MineStudio")
        jar = os.path.join(home, "engine", "build", "libs", "mcprec-6.13.jar")
        if server is None and not os.path.exists(jar):
            fetch = "from minestudio.simulator.entry import check_engine; check_engine(skip_confirmation=True)"
            raise SetupError(f"MineStudio's engine is not in {home}; run: {sys.executable} -c '{fetch}'")


def _is_at(pose: list[float], wanted: list[float]) -> bool:
    """True where the player stands as asked: within 0.05 blocks over ground, 1 block of height (it may fall) and half a degree."""
    flat = max(abs(pose[0] - wanted[0]), abs(pose[2] - wanted[2]))
    turn = abs((pose[3] - wanted[3] + 180.0) % 360.0 - 180.0)
    return flat <= 0.05 and abs(pose[1] - wanted[1]) <= 1.0 and max(turn, abs(pose[4] - wanted[4])) <= 0.5


def read_voxels(told: Any, centre: tuple[int, int, int], box: tuple[int, ...], names: dict[str, int], ids: Any) -> None:
    """Fills ``ids (y, z, x)`` with what MineStudio says of the blocks of a box, and ``names`` with new names.

    MineStudio's own code reads a list of ``{"type": name, "x": ..., "y": ..., "z": ...}``; whether the numbers count from the player or from
    the world's origin is told by the box they must lie in. What is not listed is air.

    Raises:
        EngineError: if it says something else.
    """
    try:
        places = np.array([[int(block[axis]) for axis in "xyz"] for block in told], np.int64).reshape(-1, 3)
        types = [str(block["type"]) for block in told]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"MineStudio tells blocks in a form that is not known ({type(error).__name__}: {error}).") from error
    low, high = np.array(box[0::2]), np.array(box[1::2])
    for origin in (np.zeros(3, np.int64), np.array(centre)):
        if ((places >= low + origin) & (places <= high + origin)).all():
            x, y, z = (places - low - origin).T
            break
    else:
        raise EngineError(f"MineStudio tells blocks outside of the box {box} around {centre}.")
    ids[:] = 0
    ids[y, z, x] = [names.setdefault(name, len(names)) for name in types]


def make_spec(backend: Backend, size: tuple[int, int], mission: str | None = None) -> Any:
    """The environment specification: walk and look; see the picture and the pose; noon, clear sky, no mobs, nothing to do.

    With a mission it is MineRL's own specification of it, unchanged but that the picture has ``size`` and the pose is observed.
    ``spec.pose`` (five numbers or None) and ``spec.grid`` (lowest corner and size of a box, or None) hold for the next reset.
    """
    handlers: Any = importlib.import_module(backend.package + ".herobraine.hero.handlers")
    translation: Any = importlib.import_module(backend.package + ".herobraine.hero.handlers.translation")
    spaces: Any = importlib.import_module(backend.package + ".herobraine.hero.spaces")
    base: Any = importlib.import_module(backend.package + ".herobraine.env_spec").EnvSpec
    keymap = importlib.import_module(backend.package + ".herobraine.hero.mc").INVERSE_KEYMAP

    class Picture(handlers.POVObservation):  # type: ignore[misc]
        """The picture; None where the engine sent none, which MineRL shows as a black one."""

        def from_hero(self, told: dict[str, Any]) -> Any:
            return super().from_hero(told) if told["pov"] else None

    class Pose(translation.TranslationHandler):  # type: ignore[misc]
        """The pose; an engine that does not tell it is an error, where MineRL's own handler goes on with zeros."""

        def __init__(self) -> None:
            super().__init__(spaces.Box(low=-np.inf, high=np.inf, shape=(5,), dtype=np.float64))

        def to_string(self) -> str:
            return "pose"

        def xml_template(self) -> str:
            return "<ObservationFromFullStats/>"

        def from_hero(self, told: dict[str, Any]) -> list[float]:
            spec.stats = told
            try:
                return [float(told[name]) for name in ("xpos", "ypos", "zpos", "yaw", "pitch")]
            except KeyError as error:
                raise EngineError(f"MineRL does not tell {error} of the player.") from error

    class Blocks(translation.TranslationHandler):  # type: ignore[misc]
        """The names of the blocks in a box."""

        def __init__(self, corner: tuple[int, int, int], extent: tuple[int, int, int]) -> None:
            super().__init__(spaces.Text(()) if hasattr(spaces, "Text") else spaces.Discrete(1))
            self.low, self.high = corner, [corner[i] + extent[i] - 1 for i in range(3)]

        def to_string(self) -> str:
            return "blocks"

        def xml_template(self) -> str:
            return (
                '<ObservationFromGrid><Grid name="blocks" absoluteCoords="true"><min x="{{low[0]}}" y="{{low[1]}}" z="{{low[2]}}"/>'
                '<max x="{{high[0]}}" y="{{high[1]}}" z="{{high[2]}}"/></Grid></ObservationFromGrid>'
            )

        def from_hero(self, told: dict[str, Any]) -> int:
            spec.blocks = told.get("blocks")
            return 0

    class Told:
        """What the next mission is told, and what was heard of the last one."""

        pose: list[float] | None = None
        grid: tuple[tuple[int, int, int], tuple[int, int, int]] | None = None
        stats: dict[str, Any] = {}
        blocks: list[str] | None = None

        def seen(self) -> list[Any]:
            self.blocks = None
            seen = [Picture((size[1], size[0])), Pose()]
            return seen if self.grid is None else [*seen, Blocks(*self.grid)]

        def placement(self) -> list[Any]:
            if self.pose is None:
                return []
            x, y, z, yaw, pitch = (decimal(value) for value in self.pose)
            return [handlers.AgentStartPlacement(x=x, y=y, z=z, yaw=yaw, pitch=pitch)]

    class Walk(Told, base):  # type: ignore[misc]
        """See :func:`make_spec`."""

        def create_observables(self) -> list[Any]:
            return self.seen()

        def create_actionables(self) -> list[Any]:
            keys = [handlers.KeybasedCommandAction(key, keymap[key]) for key in KEYS]
            return [
                *keys,
                handlers.CameraAction(),
                *([handlers.ChatAction()] if backend.commands else []),
                *([handlers.VoxelAction()] if backend.voxels else []),
            ]

        def create_agent_start(self) -> list[Any]:
            start: list[Any] = []
            if backend.human:
                screen = (handlers.GuiScale(1), handlers.GammaSetting(2.0), handlers.FOVSetting(70.0), handlers.FakeCursorSize(16))
                start = [handlers.LowLevelInputsAgentStart(), *screen]
            return [*start, *self.placement()]

        def create_server_initial_conditions(self) -> list[Any]:
            time_stands = handlers.TimeInitialCondition(allow_passage_of_time=False, start_time=6000)
            return [time_stands, handlers.WeatherInitialCondition("clear"), handlers.SpawningInitialCondition(False)]

        def create_server_world_generators(self) -> list[Any]:
            return [handlers.DefaultWorldGenerator(force_reset=True)]

        def create_server_quit_producers(self) -> list[Any]:
            return [handlers.ServerQuitWhenAnyAgentFinishes()]

        def create_rewardables(self) -> list[Any]:
            return []

        def create_agent_handlers(self) -> list[Any]:
            return []

        def create_monitors(self) -> list[Any]:
            return []

        def create_server_decorators(self) -> list[Any]:
            return []

        def is_from_folder(self, folder: str) -> bool:
            return False

        def determine_success_from_rewards(self, rewards: list[float]) -> bool:
            return False

        def get_docstring(self) -> str:
            return "Walk and look around in a world that stands still."

    if mission is None:
        spec = Walk("WorldPackWalk-v0")
        return spec
    stock: Any = importlib.import_module(backend.package + ".herobraine.env_specs.navigate_specs").Navigate

    class Mission(Told, stock):  # type: ignore[misc]
        """MineRL's own mission, with our picture and the pose."""

        def create_observables(self) -> list[Any]:
            return [*self.seen(), *(handler for handler in super().create_observables() if handler.to_string() != "pov")]

        def create_agent_start(self) -> list[Any]:
            return [*super().create_agent_start(), *self.placement()]

    spec = Mission(dense=MISSIONS[mission], extreme=False)
    return spec


# ------------------------------------------------------------------------------------------------------------------------- messages


def send(sock: socket.socket, header: dict[str, Any], payload: bytes = b"") -> None:
    """Sends one message."""
    text = json.dumps(header, allow_nan=False).encode()
    sock.sendall(b"".join((PREFIX.pack(MAGIC, len(text), len(payload)), text, payload)))


def receive(sock: socket.socket) -> dict[str, Any]:
    """Receives one request (they have no payload).

    Raises:
        EOFError: if the other side is gone.
        ValueError: if it is no request of this protocol.
    """
    magic, length, payload = PREFIX.unpack(_exactly(sock, PREFIX.size))
    if magic != MAGIC or payload or length > 1 << 20:
        raise ValueError("not a request of this protocol")
    request: dict[str, Any] = json.loads(_exactly(sock, length).decode())
    return request


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = sock.recv(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def answer(engine: Any, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Header and payload of the answer to a request other than ``open`` and ``close``."""
    do = request["do"]
    if do == "reset":
        frame = engine.reset(int(request["seed"]), request["pose"])
        return {"track": [frame.pose], "mission": engine.told()}, frame.pixels.tobytes()
    if do == "step":
        frames, pixels = engine.step(request["keys"], request["camera"])
        return {"track": [frame.pose for frame in frames], "mission": engine.told()}, pixels.tobytes()
    if do == "survey":
        header, ids = engine.survey(int(request["seed"]), request["corner"], request["size"], request["below"], request["above"])
        return header, ids.astype("<u2").tobytes()
    raise SetupError(f"There is no request {do!r}.")


def serve(sock: socket.socket, make: Callable[..., Any]) -> None:
    """Answers requests until the other side closes or is gone.

    Args:
        sock: connected, the token is sent.
        make: makes an engine as ``MineRLEngine``.
    """
    engine: Any = None
    try:
        while True:
            try:
                request = receive(sock)
            except EOFError:
                return
            reply: dict[str, Any] = {"id": request["id"], "ok": True}
            payload = b""
            try:
                if request["do"] == "open":
                    size = request["height"], request["width"]
                    engine = make(request["backend"], size, request["ticks"], request["server"], request["mission"])
                    reply["about"] = engine.about()
                elif request["do"] == "close":
                    if engine is not None:
                        engine.close()
                    engine = None
                else:
                    header, payload = answer(engine, request)
                    reply.update(header)
            except Exception as error:  # whatever MineRL raises: the other side decides what becomes of it
                traceback.print_exc()
                text = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                reply = {"id": request["id"], "ok": False, "error": text[-2000:], "final": isinstance(error, SetupError)}
            send(sock, reply, payload)
            if request["do"] == "close":
                return
    finally:
        if engine is not None:
            engine.close()


def _end_with_parent(parent: int) -> None:
    """Ends this process when the one that started it is gone; MineRL's own watcher then ends Minecraft."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main(make: Callable[..., Any] = MineRLEngine) -> None:
    """Connects to the port given as the first argument and serves."""
    # Python looks for modules in a script's own folder first, and this one holds a minerl.py that is not MineRL.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    logging.basicConfig(level=logging.WARNING)
    token = sys.stdin.readline().strip()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30.0) as sock:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(token.encode())
        serve(sock, make)


if __name__ == "__main__":
    main()
