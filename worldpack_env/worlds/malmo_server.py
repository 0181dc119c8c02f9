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
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
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
from worldpack_model.geometry import ACTION_DIM, DPITCH, DYAW, KEYS

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
class Mission:
    """What a MissionInit asks for, as far as it means something in the embedded world."""

    size: tuple[int, int]
    """(height, width) of the pictures."""
    seed: int
    pose: NDArray[np.float64] | None
    """``(5,)``, None for the world's own spawn."""
    grids: tuple[Grid, ...]


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
        parts = token.split(":")
        if len(parts) < 5:
            raise ValueError(f"the token {token!r}")
        seed = int(parts[5]) if len(parts) > 5 else secrets.randbelow(2**31)  # as Minecraft does where none is told
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise MissionError(f"The mission is not of Malmo's form ({error}).") from None
    return Mission(size, seed, pose, tuple(grids))


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
        if not self._hovers:
            self.view = self.world.step(action)
            self._turned += float(action[DYAW])

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
            _send(sock, player.picture, _OUTCOME.pack(0.0, 0, 1), player.info)
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
