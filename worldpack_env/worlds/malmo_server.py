"""MineRL without Minecraft: a server of Malmo's environment protocol whose Minecraft is the embedded world.

MineRL's real environment class connects to it as it would to the Minecraft that it starts, so the whole way through MineRL runs on machines
that cannot have Minecraft, and its poses can be compared with the embedded world's own, step by step. Start it with::

    python -m worldpack_env.worlds.malmo_server --port 9000

and set ``WORLDPACK_MINERL_SERVER=9000``. It listens on 127.0.0.1 only. Each connection is a player in a world of its own.

**Protocol** (MalmoEnv 0.37, as MineRL 0.4 and 1.0 speak it). A message is a big-endian 32-bit length and that many bytes:

======================================  ==================================================================================
message                                 answer
======================================  ==================================================================================
``<MalmoEnv0.37.0/>``                   none
``<Quit/>``                             32-bit 1
MissionInit XML, then a token           32-bit 1; the token is ``uid:role:resets:agents:sync[:seed]``
``<Find>token</Find>``                  32-bit port of the game server
``<Peek/>``                             picture; info as JSON; one byte: done
``<StepClient0>`` and command lines     picture; reward (float64), done, sent (a byte each); info as JSON
``<StepServer></StepServer>``           none
``<Disconnect/>``                       none, the connection ends
======================================  ==================================================================================

A step is one game tick. Commands are ``forward 1`` for held keys (each step says all that are held) and ``camera DPITCH DYAW`` in degrees,
turned before the tick. Of MineStudio's commands there are ``voxels X0,X1,Y0,Y1,Z0,Z1`` (the blocks around the player, told as MineStudio's
Python reads them) and the chat's ``/tp @s X Y Z [YAW PITCH]`` and ``/gamemode spectator`` (hovers); other chat is ignored. The picture is RGB
rows, the lowest first. Info has ``xpos ypos zpos yaw pitch``, the yaw not wrapped.

A mission with a ``NavigationDecorator`` is MineRL's Navigate: a block of another kind replaces one of the ground, so far from the spawn as the
decorator says, and the compass points beside it, as 0.4.4's Java code does it; both depend on the seed alone. Info then has ``compassAngle`` (at
once, where Minecraft's needle swings for some ticks) and ``distanceToCompassTarget``; touching the block pays and ends the mission as it asks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import secrets
import socket
import struct
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldpack_env.worlds import terrain
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_model.geometry import ACTION_DIM, DPITCH, DYAW, KEYS, to_local
from worldpack_model.walking import HEIGHT, WIDTH

LOGGER = logging.getLogger(__name__)

NAMESPACE: Final = "{http://ProjectMalmo.microsoft.com}"
_LENGTH: Final = struct.Struct("!I")
_OUTCOME: Final = struct.Struct("!dbb")
_DONE: Final = struct.Struct("!b")
_LIMIT: Final = 4 << 20
"""Bytes of the longest message that is read."""
_NAMES: Final = {
    terrain.AIR: "air",
    terrain.STONE: "stone",
    terrain.DIRT: "dirt",
    terrain.GRASS: "grass",
    terrain.SAND: "sand",
    terrain.SNOW: "snow",
    terrain.DRY_GRASS: "grass",
    terrain.TERRACOTTA: "hardened_clay",
    terrain.WATER: "water",
    terrain.OAK_LOG: "log",
    terrain.SPRUCE_LOG: "log",
    terrain.ACACIA_LOG: "log2",
    terrain.OAK_LEAVES: "leaves",
    terrain.SPRUCE_LEAVES: "leaves",
    terrain.ACACIA_LEAVES: "leaves2",
    terrain.PINK_LEAVES: "leaves",
    terrain.CACTUS: "cactus",
    terrain.PLANKS: "planks",
    terrain.BRICK: "brick_block",
    terrain.COBBLE: "cobblestone",
    terrain.GRAVEL: "gravel",
}
"""Minecraft's name of each block; painted blocks are ``wool``."""
_MODERN_NAMES: Final = {
    "grass": "grass_block",
    "snow": "snow_block",
    "log": "oak_log",
    "log2": "acacia_log",
    "leaves": "oak_leaves",
    "leaves2": "acacia_leaves",
}
"""Minecraft 1.16's names, which MineStudio tells, where they differ from 1.11's in what they are to a walker."""
_STEADY: Final = {
    "sea_level": terrain.WATER_LEVEL,
    "isGuiOpen": False,
    "sun_brightness": 1.0,
    "sky_light_level": 1.0,
    "light_level": 15,
    "can_see_sky": 1,
    "biome_id": 1,
    "biome_rainfall": 0.4,
    "biome_temperature": 0.8,
    "is_raining": 0,
}
"""Info that never changes: it is always a clear noon."""


_GOAL_BLOCK: Final = terrain.PAINT + 4
"""What Navigate's block looks like here: the turquoise one is the nearest to a diamond block."""
_TICK_MS: Final = 50
_TOUCH: Final = 0.001
"""Blocks that a body reaches beyond itself to touch."""
_REACH_DOWN: Final = np.array([0.5 * WIDTH + _TOUCH, _TOUCH, 0.5 * WIDTH + _TOUCH])
_REACH_UP: Final = np.array([0.5 * WIDTH + _TOUCH, HEIGHT + _TOUCH, 0.5 * WIDTH + _TOUCH])
_PLACES_TRIED: Final = 200


class MissionError(ValueError):
    """A mission that cannot be played here; the message says what came and what was expected."""


@dataclass(frozen=True)
class Grid:
    """A box of blocks whose names a mission wants to be told."""

    name: str
    corner: tuple[int, int, int]
    """Lowest corner in blocks, of the world or from the player's feet."""
    size: tuple[int, int, int]
    absolute: bool


@dataclass(frozen=True)
class Quest:
    """A block to be found (MineRL's Navigate)."""

    name: str
    """Minecraft's name of the block."""
    radius: float
    """Blocks over ground from the spawn to it."""
    beside: float
    """Blocks from it, more than which the compass points to its side, along each axis at most; 0 points at the block."""
    touched: float
    """Reward for touching the block, once."""
    nearer: float
    """Reward for each block that the way to the compass's target shrinks."""
    ends: bool
    """Whether touching the block ends the mission."""


@dataclass(frozen=True)
class Mission:
    """What a MissionInit asks for, as far as it means something in the embedded world."""

    size: tuple[int, int]
    """(height, width) of the pictures."""
    seed: int
    pose: NDArray[np.float64] | None
    """``(5,)``, None for the world's own spawn."""
    grids: tuple[Grid, ...]
    quest: Quest | None = None
    ticks: int | None = None
    """After how many the mission ends; None never."""


def parse_mission(text: str, token: str) -> Mission:
    """Reads a MissionInit and its token.

    Raises:
        MissionError: if they are not of the form given above.
    """
    if "<!" in text.replace("<!--", ""):
        raise MissionError("The mission declares a document type or entities, which missions do not need.")
    try:
        root = ElementTree.fromstring(text)
        producer = _only(root, "VideoProducer")
        size = int(_text(producer, "Height")), int(_text(producer, "Width"))
        placement = root.find(f".//{NAMESPACE}Placement")
        pose = None
        if placement is not None:
            pose = np.array([float(placement.get(name, 0.0)) for name in ("x", "y", "z", "yaw", "pitch")])
        grids = []
        for grid in root.iter(f"{NAMESPACE}Grid"):
            low, high = ([int(_only(grid, end).attrib[axis]) for axis in "xyz"] for end in ("min", "max"))
            extent = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
            if min(extent) < 1:
                raise ValueError(f"a grid from {low} to {high}")
            grids.append(Grid(grid.attrib["name"], tuple(low), extent, grid.get("absoluteCoords") == "true"))  # type: ignore[arg-type]
        quest, end = _quest(root), root.find(f".//{NAMESPACE}ServerQuitFromTimeUp")
        ticks = None if end is None else int(float(end.attrib["timeLimitMs"])) // _TICK_MS
        parts = token.split(":")
        if len(parts) < 5:
            raise ValueError(f"the token {token!r}")
        seed = int(parts[5]) if len(parts) > 5 else secrets.randbelow(2**31)  # as Minecraft does where none is told
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise MissionError(f"The mission is not of Malmo's form ({error}).") from None
    return Mission(size, seed, pose, tuple(grids), quest, ticks)


def _quest(root: ElementTree.Element) -> Quest | None:
    """What a mission's NavigationDecorator and the rewards that go with it ask for."""
    decorator = root.find(f".//{NAMESPACE}NavigationDecorator")
    if decorator is None:
        return None
    name = _text(decorator, "block")

    def block_of(tag: str) -> ElementTree.Element | None:
        blocks = root.findall(f".//{NAMESPACE}{tag}/{NAMESPACE}Block")
        return next((block for block in blocks if block.get("type") == name), None)

    touch, nearer = block_of("RewardForTouchingBlockType"), root.find(f".//{NAMESPACE}RewardForDistanceTraveledToCompassTarget")
    return Quest(
        name,
        radius=float(_text(decorator, "maxRandomizedRadius")),
        beside=float(_text(decorator, "maxRandomizedDistance")) if _text(decorator, "randomizeCompassLocation") == "true" else 0.0,
        touched=0.0 if touch is None else float(touch.attrib["reward"]),
        nearer=0.0 if nearer is None else float(nearer.attrib["rewardPerBlock"]),
        ends=block_of("AgentQuitFromTouchingBlockType") is not None,
    )


def _only(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = element.find(f".//{NAMESPACE}{tag}")
    if found is None:
        raise ValueError(f"no {tag}")
    return found


def _text(element: ElementTree.Element, tag: str) -> str:
    return (_only(element, tag).text or "").strip()


def parse_commands(text: str) -> NDArray[np.float32]:
    """The project's action vector ``(9,)`` of a step's command lines; commands that mean nothing here (``attack``, ``use``) are ignored.

    Raises:
        ValueError: if a line is not of the form given above.
    """
    action = np.zeros(ACTION_DIM, np.float32)
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "camera":
            action[DPITCH], action[DYAW] = float(words[1]), float(words[2])
        elif words[0] in KEYS:
            action[KEYS.index(words[0])] = float(int(words[1]) == 1)
    return action


class Player:
    """One player in the embedded world, a tick at a time."""

    def __init__(self, mission: Mission, threads: int = 1) -> None:
        """Begins the mission; ``threads`` draw each picture.

        Raises:
            ValueError: if the embedded world has no such place, seed or picture.
        """
        self.mission = mission
        self.world = VoxelWorld(mission.size, ticks_per_step=1, threads=threads)
        self.view = self.world.reset(mission.seed, mission.pose)
        self._turned = float(self.view.pose[3]) if mission.pose is None else float(mission.pose[3])
        self._hovers = False
        self._around: Grid | None = None
        self._ticks = 0
        self.reward, self.done = 0.0, False
        """What the last tick paid, and whether the mission is over."""
        self.goal: NDArray[np.int64] | None = None
        """``(3,)`` the block to be found, in whole blocks."""
        self._compass = np.zeros(3)
        self._touched = False
        if mission.quest is not None:
            self._hide(mission.quest)

    def _hide(self, quest: Quest) -> None:
        """Places the block and the compass's target.

        Raises:
            MissionError: if the world has no ground so far from its spawn.
        """
        rng, surface = np.random.default_rng(self.mission.seed), self.world.surface()
        spawn = np.floor(self.world.spawn[:3])
        for _ in range(_PLACES_TRIED):
            x = rng.uniform(-quest.radius, quest.radius)
            z = rng.choice((-1.0, 1.0)) * np.sqrt(quest.radius**2 - x**2)
            cell = np.floor(spawn[[0, 2]] + (x, z)).astype(np.int64)
            i, k = cell - surface.origin
            if 0 <= i < surface.walkable.shape[0] and 0 <= k < surface.walkable.shape[1] and surface.walkable[i, k]:
                break
        else:
            raise MissionError(f"World {self.mission.seed} has no ground {quest.radius:g} blocks from its spawn to hide a block in.")
        self.goal = np.array([cell[0], surface.heights[i, k] - 1, cell[1]], np.int64)
        self.world.exchange(self.goal, _GOAL_BLOCK)
        self.view = self.view._replace(frame=self.world.render(self.view.pose))
        aside = np.zeros(2)
        while quest.beside and np.hypot(*aside) <= quest.beside:
            aside = rng.uniform(-quest.beside, quest.beside, 2)
        self._compass = np.floor(self.goal + np.array([aside[0], 0.0, aside[1]]))

    @property
    def _away(self) -> float:
        """Blocks from the player to the compass's target."""
        return float(np.linalg.norm(self._compass - self.view.pose[:3]))

    def _judge(self, quest: Quest, before: float) -> None:
        """Pays for a tick that began ``before`` blocks from the compass's target, and ends the mission where the block is touched."""
        assert self.goal is not None
        self.reward = quest.nearer * (before - self._away)
        feet = self.view.pose[:3]
        low, high = feet - _REACH_DOWN, feet + _REACH_UP
        if ((np.floor(low) <= self.goal) & (self.goal <= np.floor(high))).all():
            self.reward += 0.0 if self._touched else quest.touched
            self._touched, self.done = True, self.done or quest.ends

    def tick(self, commands: str) -> None:
        """Does what the command lines say, for one tick.

        Raises:
            ValueError: if a line is not of the form given above, or asks for a place that is not free.
        """
        action = parse_commands(commands)
        self._around = None
        for line in commands.splitlines():
            if line.startswith("chat /tp @s "):
                told = [float(word) for word in line.split()[3:]]
                pose = np.array([*told[:3], *(told[3:] or self.view.pose[3:])])
                self.view, self._turned = self.world.reset(self.mission.seed, pose), float(pose[3])
            elif line.startswith("chat /gamemode "):
                self._hovers = line.split()[2] == "spectator"
            elif line.startswith("voxels "):
                x0, x1, y0, y1, z0, z1 = (int(word) for word in line.split()[1].split(","))
                self._around = Grid("voxels", (x0, y0, z0), (x1 - x0 + 1, y1 - y0 + 1, z1 - z0 + 1), absolute=False)
        before = self._away if self.mission.quest is not None else 0.0
        if not self._hovers:
            self.view = self.world.step(action)
            self._turned += float(action[DYAW])
        self._ticks += 1
        if self.mission.quest is not None:
            self._judge(self.mission.quest, before)
        if self.mission.ticks is not None and self._ticks >= self.mission.ticks:
            self.done = True

    @property
    def picture(self) -> bytes:
        """The picture, lowest row first."""
        return self.view.frame[::-1].tobytes()

    @property
    def info(self) -> bytes:
        """What MineRL's handlers read."""
        x, y, z, yaw, pitch = (float(value) for value in self.view.pose)
        # Minecraft lets the yaw grow beyond a turn; whole turns are added to the wrapped one, which is exact.
        yaw += 360.0 * round((self._turned - yaw) / 360.0)
        told: dict[str, Any] = {"xpos": x, "ypos": y, "zpos": z, "yaw": yaw, "pitch": pitch, **_STEADY}
        if self.mission.quest is not None:
            ahead = to_local((self._compass - self.view.pose[:3])[None], self.view.pose[3:4])[0]
            told["compassAngle"] = math.degrees(math.atan2(ahead[0], ahead[2]))
            told["inventory"] = [{"type": "compass", "metadata": 0, "quantity": 1}]
            told["distanceToCompassTarget"] = float(np.linalg.norm(self._compass - np.floor(self.view.pose[:3])))
        for grid in self.mission.grids:
            told[grid.name] = self._names(grid)
        if self._around is not None:
            places = np.indices(self._around.size).reshape(3, -1) + np.array(self._around.corner)[:, None]
            # _names has x fastest, then z, then y.
            names = np.array(self._names(self._around), object).reshape(self._around.size[1], self._around.size[2], self._around.size[0])
            kinds = names.transpose(2, 0, 1).reshape(-1)
            full = kinds != "air"
            told["voxels"] = [
                {"type": _MODERN_NAMES.get(kind, kind), "x": x, "y": y, "z": z}
                for kind, x, y, z in zip(kinds[full], *places[:, full].tolist(), strict=True)
            ]
        return json.dumps(told).encode()

    def _names(self, grid: Grid) -> list[str]:
        """Names of the blocks of a grid, x fastest, then z, then y; what is outside of the world is bedrock below and beside, air above."""
        blocks = terrain.load_terrain(self.mission.seed).blocks
        corner = np.array(grid.corner) + (0 if grid.absolute else np.floor(self.view.pose[:3]).astype(np.int64))
        x, y, z = (np.arange(grid.size[n]) + corner[n] - origin for n, origin in enumerate((terrain.ORIGIN[0], 0, terrain.ORIGIN[1])))
        names = np.array([_NAMES.get(block, "wool") for block in range(terrain.BLOCK_KINDS)] + ["bedrock"], object)
        inside = [(axis >= 0) & (axis < count) for axis, count in zip((x, y, z), blocks.shape, strict=True)]
        clipped = [np.clip(axis, 0, count - 1) for axis, count in zip((x, y, z), blocks.shape, strict=True)]
        ids = blocks[np.ix_(clipped[0], clipped[1], clipped[2])].astype(np.int64)
        beside = ~(inside[0][:, None, None] & inside[2][None, None, :])
        ids = np.where(beside | (y < 0)[None, :, None], terrain.BLOCK_KINDS, ids)
        ids = np.where((y >= blocks.shape[1])[None, :, None] & ~beside, terrain.AIR, ids)
        told: list[str] = names[ids.transpose(1, 2, 0).reshape(-1)].tolist()
        return told


class MalmoServer:
    """Serves players until it is closed; a context manager."""

    def __init__(self, port: int = 0, threads: int = 1) -> None:
        """Begins to listen and to serve.

        Args:
            port: where to; 0 takes any that is free.
            threads: how many draw a player's picture at the same time.

        Raises:
            OSError: if the port is taken.
        """
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        """Where it listens."""
        self.threads = threads
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="malmo-server", daemon=True)
        self._thread.start()

    def __enter__(self) -> MalmoServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections; may be called twice."""
        with self._lock:
            self._closed = True
            open_now = [self._listener, *self._connections]
        for sock in open_now:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
            sock.close()
        self._thread.join(5.0)

    def wait(self) -> None:
        """Waits until it is closed."""
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="malmo-player", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _play(connection, self.port, self.threads)
        except (EOFError, OSError):
            pass  # the client is gone, which is how most connections end
        except ValueError as error:
            LOGGER.error("A connection is ended: %s", error)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()


def _play(sock: socket.socket, port: int, threads: int) -> None:
    """Answers the messages of one connection until it ends."""
    player: Player | None = None
    while True:
        message = _receive(sock)
        if message.startswith("<StepClient"):
            if player is None:
                raise MissionError("A step came before any mission.")
            player.tick(message[message.index(">") + 1 : message.rindex("</")])
            _send(sock, player.picture, _OUTCOME.pack(player.reward, player.done, 1), player.info)
        elif message.startswith(("<StepServer", "<MalmoEnv")):
            continue
        elif message.startswith("<Peek"):
            if player is None:
                raise MissionError("A look came before any mission.")
            _send(sock, player.picture, player.info, _DONE.pack(0))
        elif "<MissionInit" in message:
            player = Player(parse_mission(message, _receive(sock)), threads)
            _send(sock, _LENGTH.pack(1))
        elif message.startswith("<Quit"):
            player = None
            _send(sock, _LENGTH.pack(1))
        elif message.startswith("<Find"):
            _send(sock, _LENGTH.pack(port))
        elif message.startswith("<Disconnect"):
            return
        else:
            raise MissionError(f"The message {message[:60]!r} is not of the protocol.")


def _receive(sock: socket.socket) -> str:
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    if length > _LIMIT:
        raise MissionError(f"A message of {length} bytes was announced, expected at most {_LIMIT}.")
    return _exactly(sock, length).decode()


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = sock.recv(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _send(sock: socket.socket, *messages: bytes) -> None:
    sock.sendall(b"".join(part for message in messages for part in (_LENGTH.pack(len(message)), message)))


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description="MineRL without Minecraft: serves the embedded world over Malmo's protocol on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=9000, help="where to listen; 0 takes any free port")
    parser.add_argument("--threads", type=int, default=1, help="how many draw a player's picture at the same time")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with MalmoServer(options.port, options.threads) as server:
        LOGGER.info("Serving the embedded world; in another shell: export WORLDPACK_MINERL_SERVER=%d", server.port)
        try:
            server.wait()
        except KeyboardInterrupt:
            LOGGER.info("Stopped.")


if __name__ == "__main__":
    main()
