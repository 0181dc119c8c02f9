"""A player on a running Minecraft server: the server's world, its clock and its rules; movement and pictures by the packages of ``minecraft.py``.

One Node process a world (``node/client.js``) joins as a player that needs no account (the server must say ``online-mode=false``) and may teleport
itself (operator). The body is moved in that process, tick by tick by the clock, and the server is told; between two steps it is held still. So
a step takes 50 ms a tick, and its poses are those that the player had, the server's corrections among them; its picture is drawn from the
blocks that the server has sent.

**Seeds are places.** A server has one world. Seed by seed the player is set down elsewhere in it: on a lattice of ``SPACING`` blocks around the
world's spawn, in a spiral, the splits' seeds in turn, so that what is seen in one split is not seen in another. Each split has ``PLACES`` of them;
seeds that are so many apart share one.
"""

from __future__ import annotations

import fcntl
import logging
import math
from collections import OrderedDict
from typing import IO, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import BackendUnavailable, EpisodeLost, Surface, WorldView, node_packages
from worldpack_env.worlds.mesh_renderer import GROUPS, QUAD_BYTES, VIEW_DISTANCE, MeshRenderer
from worldpack_env.worlds.minecraft import TIMEOUT, check_size, read_atlas
from worldpack_env.worlds.node_process import NodeProcess
from worldpack_env.worlds.paths import find_spawn
from worldpack_model.episodes import SPLITS
from worldpack_model.geometry import (
    ACTION_DIM,
    DPITCH,
    DYAW,
    EYE_HEIGHT,
    POSE_DIM,
    TICKS_PER_STEP,
    check_action,
    check_pose,
    wrap_degrees,
)

LOGGER = logging.getLogger(__name__)

PORT: Final = 25565
"""Minecraft's own."""
PLAYER: Final = "worldpack"
"""Players are called so, with the first number that no other world on this machine uses: ``worldpack1``, ``worldpack2``, ..."""
SIDE: Final = 256
"""Blocks of a side of the square around a place that :meth:`MinecraftServerWorld.surface` tells; who walks by it stays inside."""
SPACING: Final = SIDE + 2 * int(VIEW_DISTANCE)
"""Blocks between the places of two seeds: from the border of one square nobody sees into another (``VIEW_DISTANCE``)."""
PLACES: Final = 1000
"""Places of a split. The farthest are 10,500 blocks from the spawn; much farther off, models that count in float32 would lose precision."""
_CHUNK: Final = 16
_SURVEY_CHUNKS: Final = SIDE // 2 // _CHUNK
_PICTURE_CHUNKS: Final = 5
_ABOVE: Final = 300.0
"""Where one waits until the blocks of a place have come; above all of them."""
_HIGHEST: Final = 320.0
_LIMIT: Final = 29_999_000.0
"""Blocks to the world's end."""
_SPAN: Final = 160.0
"""Blocks from where vertices are counted to where they are counted anew; they are int16 of 1/128 blocks."""
_MOST_QUADS: Final = 2**21
_COLUMNS_AT_A_TIME: Final = 12
_PLACES_KEPT: Final = 8
_SOLID, _WATER = 1, 2


def check_address(server: str) -> tuple[str, int]:
    """Host and port of a server.

    Args:
        server: ``host:port``, or a host with Minecraft's own port; a host of IPv6 in brackets.

    Raises:
        ValueError: if it is neither.
    """
    text, port = server.strip(), PORT
    if not text.endswith("]") and ":" in text:
        text, _, digits = text.rpartition(":")
        port = int(digits) if digits.isdigit() else 0
    host = text.removeprefix("[").removesuffix("]")
    if not host or any(c.isspace() or c in "/@" for c in host) or not 0 < port < 65536:
        raise ValueError(f"{server!r} is no address of a server, expected HOST:PORT such as localhost:25565.")
    return host, port


def place_of(seed: int, spawn: tuple[float, float]) -> tuple[int, int]:
    """World (x, z) of the middle of a seed's place, on a lattice around the column where the world's spawn is.

    Raises:
        ValueError: if the seed is in no split.
    """
    names = list(SPLITS)
    for turn, name in enumerate(names):
        if seed in SPLITS[name]:
            i, k = _spiral(len(names) * ((seed - SPLITS[name].start) % PLACES) + turn)
            corner = [_CHUNK * math.floor(v / _CHUNK) for v in spawn]
            return corner[0] + SPACING * i, corner[1] + SPACING * k
    raise ValueError(f"seed is {seed}, expected 0 to {max(seeds.stop for seeds in SPLITS.values()) - 1}: on a server, seeds are places.")


def _spiral(n: int) -> tuple[int, int]:
    """Point ``n`` of the square spiral (0, 0), (1, 0), (1, 1), (0, 1), (-1, 1), ..."""
    if n == 0:
        return 0, 0
    ring = (math.isqrt(n) + 1) // 2
    side, at = divmod(n - (2 * ring - 1) ** 2, 2 * ring)
    return [(ring, at - ring + 1), (ring - 1 - at, ring), (-ring, ring - 1 - at), (at - ring + 1, -ring)][side]


class MinecraftServerWorld:
    """A player on a server, behind the :class:`~worldpack_env.worlds.World` protocol.

    Args:
        frame_size: (height, width) of its frames in pixels.
        server: where it runs: ``host:port``.
        ticks_per_step: game ticks of 50 ms that :meth:`step` holds its keys for.
        timeout: seconds that joining, a reset's teleport with the blocks around it, or a step may take.

    Raises:
        ValueError: if a side of ``frame_size`` or the address is not one, or there is not at least one tick.
        BackendUnavailable: if Node, the npm packages, moderngl or EGL are missing; the message says what to install.
    """

    def __init__(
        self, frame_size: tuple[int, int] = (64, 64), *, server: str, ticks_per_step: int = TICKS_PER_STEP, timeout: float = TIMEOUT
    ) -> None:
        self.frame_size: tuple[int, int] = check_size(frame_size)
        if ticks_per_step < 1:
            raise ValueError(f"ticks_per_step is {ticks_per_step}, expected at least 1.")
        self.ticks_per_step = ticks_per_step
        self.name = f"minecraft@{server}"
        self.about: dict[str, Any] = {}
        """What the server told when it was joined: its ``version``, its ``view`` distance in columns of 16 blocks, the ``game`` mode."""
        self._host, self._port = check_address(server)
        self._command, self._environment = node_packages.command("client.js")
        self._renderer = MeshRenderer(self.frame_size, read_atlas(node_packages.atlas_path()))
        self._timeout = timeout
        self._process: NodeProcess | None = None
        self._player: tuple[str, IO[str]] | None = None
        self._closed = False
        self._surfaces: OrderedDict[int, Surface] = OrderedDict()
        self._seed: int | None = None
        self._stepped = False
        self._pose = np.zeros(POSE_DIM)
        self._from = np.zeros(2, np.int64)
        self._drawn: set[tuple[int, int]] = set()

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Stands the player at ``pose`` (5,), at rest; None takes the spawn of the place of ``seed``. The server is joined if it is not yet.

        Raises:
            RuntimeError: after :meth:`close`.
            ValueError: if the seed or the pose is malformed, or the player would stand inside a block or outside the world.
            BackendUnavailable: if the server cannot be joined, or does not move the player or send the blocks in time; the message says what to
                do, and the next reset tries again.
        """
        self._check_open()
        seed = int(seed)
        place_of(seed, (0.0, 0.0))
        start = None if pose is None else self._check_start(pose)
        self._seed = None
        self._join()
        if start is None:
            self._survey(seed)
            start = self._spawn(seed)
        if self._place(start, _PICTURE_CHUNKS):
            raise ValueError(f"pose {start.tolist()} puts the player's body inside a block of the world at {self._host}:{self._port}.")
        self._seed, self._stepped, self._pose = seed, False, start
        return WorldView(self.render(start), start.copy(), False)

    def step(self, action: ArrayLike) -> WorldView:
        """Turns the camera by ``action`` (9,), then holds its keys for ``ticks_per_step`` ticks of 50 ms by the clock.

        Raises:
            RuntimeError: before :meth:`reset`, after :meth:`close`, and after a fault until the next reset.
            ValueError: if the action is malformed.
            EpisodeLost: if the server ended the connection or is silent, the player died, or the process failed; the next reset joins again.
        """
        self._ready()
        held = check_action(action)
        if held.shape != (ACTION_DIM,):
            raise ValueError(f"action has shape {held.shape}, expected ({ACTION_DIM},).")
        pose = self._pose.copy()
        pose[3] = float(wrap_degrees(pose[3] + float(held[DYAW])))
        pose[4] = min(max(pose[4] + float(held[DPITCH]), -90.0), 90.0)
        message = np.concatenate([pose[3:], held[:DPITCH] > 0.5]).astype("<f8").tobytes()
        self._stepped = True
        try:
            answer, payload = self._ask({"op": "step", "ticks": self.ticks_per_step, "seconds": self._seconds}, message)
            way = self._array(payload, "<f8", 3 * self.ticks_per_step).reshape(-1, 3)
            if not np.isfinite(way).all():
                raise BackendUnavailable(f"The player of {self.name} is nowhere: {way[-1].tolist()}.")
            pose[:3] = way[-1]
            self._outdated(answer)
            if answer.get("corrected"):
                LOGGER.warning("%s put the player elsewhere in the middle of a step: %s.", self.name, pose[:3].tolist())
            frame = self.render(pose)
        except BackendUnavailable as error:
            self._lose()
            raise error if isinstance(error, EpisodeLost) else EpisodeLost(f"{error} reset() joins it again.") from None
        self._pose = pose
        return WorldView(frame, pose.copy(), bool(answer.get("blocked")))

    @property
    def spawn(self) -> NDArray[np.float64]:
        """Default start pose ``(5,)`` of the place last reset to; the same while its blocks are."""
        self.surface()
        assert self._seed is not None
        return self._spawn(self._seed)

    def surface(self) -> Surface:
        """The walkable surface of the place last reset to, a square of ``SIDE`` blocks; its arrays are read-only.

        The first call for a place goes there to look at it and comes back, before the first step of an episode only. Columns that the server
        has not sent (its view distance is small) cannot be walked.

        Raises:
            RuntimeError: before :meth:`reset`, or in the middle of an episode in a place that was not looked at.
            BackendUnavailable: if the server fails.
        """
        self._ready()
        assert self._seed is not None
        seed = self._seed
        if seed not in self._surfaces:
            if self._stepped:
                raise RuntimeError("surface() goes to look at a place, which ends the episode; call it before the first step.")
            self._survey(seed)
            self._place(self._pose, _PICTURE_CHUNKS)
        return self._surfaces[seed]

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Which blocks ``size`` of a box from ``corner (3,)`` stop a body, at least in part; what was not received is solid."""
        self._ready()
        solid: NDArray[np.bool_] = self._bodies([int(v) for v in np.asarray(corner)], size) == _SOLID
        return solid

    def render(self, pose: ArrayLike) -> NDArray[np.uint8]:
        """The ``(H, W, 3) uint8`` picture from any pose ``(5,)`` near the player; moves nothing."""
        p = check_pose(pose)
        if p.shape != (POSE_DIM,):
            raise ValueError(f"pose has shape {p.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
        self._fetch_meshes(p)
        eye = [math.floor(p[0]), math.floor(p[1] + EYE_HEIGHT), math.floor(p[2])]
        wet = bool(self._bodies(eye, (1, 1, 1))[0, 0, 0] == _WATER)
        return self._renderer.render(p - np.array([self._from[0], 0.0, self._from[1], 0.0, 0.0]), under_water=wet)

    def close(self) -> None:
        """Leaves the server and ends the process; may be called twice."""
        if not self._closed:
            self._closed = True
            self._lose()
            self._renderer.release()

    @property
    def player(self) -> str:
        """Name of the player; made when the server is first joined."""
        if self._player is None:
            self._player = _free_player(f"{self._host}_{self._port}")
        return self._player[0]

    @property
    def _seconds(self) -> float:
        """What the process may take for a request: a little less than it is waited for, so that it is the one to say what went wrong."""
        return 0.8 * self._timeout

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This world is closed; make a new one.")

    def _ready(self) -> None:
        self._check_open()
        if self._seed is None:
            raise RuntimeError("Call reset() before step().")

    def _check_start(self, pose: ArrayLike) -> NDArray[np.float64]:
        start = check_pose(pose)
        if start.shape != (POSE_DIM,):
            raise ValueError(f"pose has shape {start.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
        if not (np.abs(start[[0, 2]]) < _LIMIT).all() or not 0.0 <= start[1] < _HIGHEST:
            raise ValueError(f"pose {start.tolist()} is outside the world: x and z must be within {_LIMIT:g}, y in [0, {_HIGHEST:g}).")
        return start

    def _join(self) -> None:
        if self._process is not None and self._process.alive:
            return
        self._lose()
        player = self.player
        self._process = NodeProcess(self._command, environment=self._environment, timeout=TIMEOUT)
        self._ask({"op": "hello"})
        self._process.timeout = self._timeout
        about, _ = self._ask({"op": "join", "host": self._host, "port": self._port, "name": player, "seconds": self._seconds})
        self.about = about
        self._surfaces.clear()  # the server may have been given another world

    def _lose(self) -> None:
        """Ends the process; the next reset makes another one and joins again."""
        self._seed = None
        self._forget_meshes()
        if self._process is not None:
            self._process.close()
            self._process = None
        if self._player is not None:
            self._player[1].close()  # which gives the name back
            self._player = None

    def _ask(self, header: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Asks the process; after a failure the world must be reset."""
        if self._process is None:
            raise EpisodeLost(f"There is no connection to {self.name}; reset() makes one.")
        try:
            return self._process.request(header, payload)
        except BaseException:
            self._lose()
            raise

    def _array(self, payload: bytes, kind: str, count: int) -> NDArray[Any]:
        expected = count * np.dtype(kind).itemsize
        if len(payload) != expected:
            self._lose()
            raise EpisodeLost(f"The Node process of {self.name} sent {len(payload)} bytes, expected {expected}; call reset().")
        return np.frombuffer(payload, kind)

    def _place(self, pose: NDArray[np.float64], radius: int) -> bool:
        """Teleports the player and waits for the blocks around; True where the body would be inside a block."""
        player = self.player
        try:
            answer, _ = self._ask({"op": "place", "pose": pose[:3].tolist(), "radius": radius, "seconds": self._seconds})
        except EpisodeLost:
            raise
        except BackendUnavailable as error:
            advice = f"; a start pose needs operator rights there: run `op {player}` in the server's console" if "did not move" in str(error) else ""
            raise BackendUnavailable(f"{str(error).removesuffix('.')}{advice}.") from None
        self._outdated(answer)
        return bool(answer["inside"])

    def _survey(self, seed: int) -> None:
        """Goes to a seed's place, unless that was done, and keeps its walkable surface."""
        if seed in self._surfaces:
            self._surfaces.move_to_end(seed)
            return
        x, z = place_of(seed, (float(self.about["spawn"][0]), float(self.about["spawn"][1])))
        self._place(np.array([x + 0.5, _ABOVE, z + 0.5, 0.0, 0.0]), _SURVEY_CHUNKS)
        corner = (x - SIDE // 2, z - SIDE // 2)
        _, payload = self._ask({"op": "survey", "corner": corner, "side": SIDE})
        cells = SIDE * SIDE
        everything = self._array(payload, "u1", 3 * cells)
        heights = np.frombuffer(payload, "<i2", cells).astype(np.int16).reshape(SIDE, SIDE)
        walkable = (everything[2 * cells :] != 0).reshape(SIDE, SIDE)
        walkable[[0, -1]] = walkable[:, [0, -1]] = False  # nobody knows what is behind them
        heights.flags.writeable = walkable.flags.writeable = False
        self._surfaces[seed] = Surface(heights, walkable, corner)
        while len(self._surfaces) > _PLACES_KEPT:
            self._surfaces.popitem(last=False)

    def _spawn(self, seed: int) -> NDArray[np.float64]:
        """Where to stand in a place that was looked at: near its middle, on the water or the trees there if no ground is near."""
        surface = self._surfaces[seed]
        half = SIDE // 2
        if not surface.walkable.any():
            return np.array([surface.origin[0] + half + 0.5, float(surface.heights[half, half]), surface.origin[1] + half + 0.5, 0.0, 0.0])
        pose = find_spawn(Surface(surface.heights, surface.walkable, (-half, -half)))
        pose[[0, 2]] += np.array(surface.origin) + half
        return pose

    def _bodies(self, corner: list[int], size: tuple[int, int, int]) -> NDArray[np.uint8]:
        _, payload = self._ask({"op": "bodies", "corner": corner, "size": [int(v) for v in size]})
        return self._array(payload, "u1", int(np.prod(size))).reshape(size)

    def _forget_meshes(self) -> None:
        self._drawn.clear()
        self._renderer.clear()

    def _outdated(self, answer: dict[str, Any]) -> None:
        """Drops the meshes of columns that have changed since, to ask for them anew."""
        for i, k in answer.get("stale", ()):
            if (i, k) in self._drawn:
                self._drawn.remove((i, k))
                self._renderer.drop(_number(i, k))

    def _fetch_meshes(self, pose: NDArray[np.float64]) -> None:
        """Asks for the meshes within sight that are not there yet and that the server has sent the blocks of."""
        here = pose[[0, 2]]
        if np.abs(here - self._from).max() > _SPAN or self._renderer.quads > _MOST_QUADS:
            self._forget_meshes()
        if not self._drawn:
            self._from = (_CHUNK * np.floor(here / _CHUNK)).astype(np.int64)
        reach = int(VIEW_DISTANCE) // _CHUNK + 1
        i0, k0 = (int(v) for v in np.floor(here / _CHUNK))
        wanted = []
        for i in range(i0 - reach, i0 + reach + 1):
            for k in range(k0 - reach, k0 + reach + 1):
                away = [max(_CHUNK * c - p, p - _CHUNK * (c + 1), 0.0) for c, p in zip((i, k), here, strict=True)]
                if away[0] ** 2 + away[1] ** 2 < VIEW_DISTANCE**2 and (i, k) not in self._drawn:
                    wanted.append((i, k))
        for first in range(0, len(wanted), _COLUMNS_AT_A_TIME):
            columns = wanted[first : first + _COLUMNS_AT_A_TIME]
            answer, quads = self._ask({"op": "mesh", "columns": columns, "from": self._from.tolist()})
            there = [(int(i), int(k)) for i, k in answer["columns"]]
            counts = np.asarray(answer["counts"], np.int64).reshape(len(there), GROUPS)
            self._array(quads, "u1", int(counts.sum()) * QUAD_BYTES)
            self._renderer.add(counts, quads, [_number(i, k) for i, k in there])
            self._drawn.update(there)


def _number(i: int, k: int) -> int:
    """One number for a column."""
    return (i << 32) + k


def _free_player(server: str) -> tuple[str, IO[str]]:
    """A player's name that no other world on this machine has on a server, and the open file that holds it; the system frees it with the process."""
    folder = node_packages.cache_folder().parent / "players"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        name = f"{PLAYER}{number}"
        file = open(folder / f"{''.join(c if c.isalnum() else '_' for c in server)}-{name}.lock", "w")  # noqa: SIM115 - held while the name is used
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        return name, file
    raise BackendUnavailable(f"All names up to {PLAYER}999 are in use on {server}; close some worlds.")
