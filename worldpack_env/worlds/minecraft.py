"""Minecraft 1.16.4 without its client: movement by prismarine-physics, block models and meshes by prismarine-viewer, pictures drawn on EGL.

Terrain, movement and meshes are made in one Node process a world (``node/``), in lockstep; the state of the player is kept here and sent with each
step, so the process holds nothing but the blocks and may be replaced at any time. Terrain is ours (``node/terrain.js``): Minecraft's blocks in a
bounded grid of the embedded world's size, every block a full cube or empty to a body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_env.worlds import BackendUnavailable, EpisodeLost, Surface, WorldView, node_packages
from worldpack_env.worlds.mesh_renderer import GROUPS, QUAD_BYTES, VIEW_DISTANCE, MeshRenderer
from worldpack_env.worlds.node_process import NodeProcess
from worldpack_env.worlds.paths import find_spawn
from worldpack_env.worlds.sight import block_in_sight
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

SIZE: Final = (256, 48, 256)
"""Blocks of the grid along x, y and z."""
ORIGIN: Final = (-128, -128)
"""World (x, z) of the corner of column [0, 0]."""
MARGIN: Final = 8
"""Columns along the edge that no player can enter."""
TIMEOUT: Final = 30.0
"""Seconds that the process may take for one request."""
MIN_SIDE: Final = 8
MAX_SIDE: Final = 2160
_CHUNK: Final = 16
_EMPTY, _SOLID, _WATER = 0, 1, 2
_HALF_WIDTH: Final = 0.3
_HEIGHT: Final = 1.8
_GAP: Final = 1e-7
_SEEDS: Final = 2**63
_X, _Y, _Z, _VX, _VY, _VZ, _GROUND, _COOLDOWN = range(8)


class MinecraftWorld:
    """The engine behind the :class:`~worldpack_env.worlds.World` protocol.

    Args:
        frame_size: (height, width) of its frames in pixels.
        ticks_per_step: game ticks of 50 ms that :meth:`step` holds its keys for.
        timeout: seconds that the Node process may take for one request; after that it is killed and the request fails.

    Raises:
        ValueError: if a side of ``frame_size`` is out of range, or there is not at least one tick.
        BackendUnavailable: if Node, the npm packages, moderngl or EGL are missing; the message says what to install.
    """

    name: str = "minecraft"

    def __init__(self, frame_size: tuple[int, int] = (64, 64), *, ticks_per_step: int = TICKS_PER_STEP, timeout: float = TIMEOUT) -> None:
        self.frame_size: tuple[int, int] = check_size(frame_size)
        if ticks_per_step < 1:
            raise ValueError(f"ticks_per_step is {ticks_per_step}, expected at least 1.")
        self.ticks_per_step = ticks_per_step
        self._command, self._environment = node_packages.command()
        self._renderer = MeshRenderer(self.frame_size, read_atlas(node_packages.atlas_path()))
        self._timeout = timeout
        self._process: NodeProcess | None = None
        self._closed = False
        self._seed: int | None = None
        self._surface: Surface | None = None
        self._kinds = np.zeros(SIZE, np.uint8)
        self._drawn = np.zeros((SIZE[0] // _CHUNK, SIZE[2] // _CHUNK), np.bool_)
        self._state = np.zeros(8, np.float64)
        self._yaw = 0.0
        self._pitch = 0.0

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Builds (or reuses) world ``seed`` and stands the player at ``pose`` (5,), at rest; None takes :attr:`spawn`.

        A pose in the air is fine: the player falls from the first step on.

        Raises:
            RuntimeError: after :meth:`close`.
            ValueError: if the seed or the pose is malformed, or the player would stand inside a block or outside the world.
            BackendUnavailable: if the Node process fails; the next reset starts another one.
        """
        self._check_open()
        seed = int(seed)
        if not 0 <= seed < _SEEDS:
            raise ValueError(f"seed is {seed}, expected an integer in [0, 2**63).")
        given = None if pose is None else self._check_start(pose)
        if seed != self._seed or not self._running:
            self._build(seed)
        self._stand(find_spawn(self._ready()) if given is None else given)
        return self._view(False)

    def reset_to(self, blocks: NDArray[np.uint8], names: Sequence[str], surface: Surface, pose: ArrayLike, *, biome: int = 1) -> WorldView:
        """Stands the player in a world of given blocks instead of a seeded one.

        Args:
            blocks: ``(256, 48, 256) uint8`` numbers of ``names``, ``[x, y, z]``; the grid's corner is at x = z = -128.
            names: Minecraft's block names, ``air`` first, with states where they matter: ``oak_log[axis=x]``.
            surface: the walkable surface of these blocks; kept as it is.
            pose: ``(5,)`` where to stand.
            biome: Minecraft's number of the biome, which tints grass and leaves; 1 is plains.

        Raises:
            ValueError: if an argument does not have that form, or the player would stand inside a block or outside the world.
            BackendUnavailable: if there is no such block, or the Node process fails.
        """
        self._check_open()
        if blocks.shape != SIZE or blocks.dtype != np.uint8 or not names or names[0] != "air" or int(blocks.max()) >= len(names):
            raise ValueError(f"blocks are {blocks.shape} {blocks.dtype} of {len(names)} names; expected {SIZE} uint8, names with `air` first.")
        start = self._check_start(pose)
        self._start()
        _, payload = self._ask({"op": "grid", "names": list(names), "biome": biome}, np.ascontiguousarray(blocks).tobytes())
        self._take(payload, surface)
        self._stand(start)
        return self._view(False)

    def step(self, action: ArrayLike) -> WorldView:
        """Turns the camera by ``action`` (9,), then holds its keys for ``ticks_per_step`` ticks of 50 ms.

        Raises:
            RuntimeError: before :meth:`reset` or after :meth:`close`.
            ValueError: if the action is malformed.
            EpisodeLost: if the Node process fails; the next reset starts another one.
        """
        self._ready()
        held = check_action(action)
        if held.shape != (ACTION_DIM,):
            raise ValueError(f"action has shape {held.shape}, expected ({ACTION_DIM},).")
        self._yaw = float(wrap_degrees(self._yaw + float(held[DYAW])))
        self._pitch = min(max(self._pitch + float(held[DPITCH]), -90.0), 90.0)
        message = np.concatenate([self._state, [self._yaw], held[:DPITCH] > 0.5]).astype("<f8")
        _, payload = self._ask({"op": "step", "ticks": self.ticks_per_step}, message.tobytes())
        told = self._array(payload, "<f8", 9)
        if not np.isfinite(told).all():
            self._forget()
            raise EpisodeLost(f"The Node process of the minecraft world gave a state that is not finite: {told.tolist()}; call reset().")
        self._state[:] = told[:8]
        return self._view(bool(told[8]))

    @property
    def spawn(self) -> NDArray[np.float64]:
        """Default start pose ``(5,)`` of the world last reset to; the same for every instance with that seed."""
        return find_spawn(self._ready())

    def surface(self) -> Surface:
        """The walkable surface of the world last reset to; its arrays are read-only."""
        return self._ready()

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Which blocks ``size`` of a box from ``corner (3,)`` no body can enter, of the world last reset to; what is outside of it is solid."""
        self._ready()
        x, y, z = (int(v) for v in np.asarray(corner))
        return self._solid(x - ORIGIN[0], y, z - ORIGIN[1], size)

    def events(self) -> tuple[str, ...]:
        """The name of the block in the middle of the player's view, if it is within :data:`~worldpack_env.worlds.REACH`; else nothing.

        The look passes what stops no body, such as grass and water.

        Raises:
            RuntimeError: before :meth:`reset` or after :meth:`close`.
            EpisodeLost: if the Node process fails; the next reset starts another one.
        """
        self._ready()
        x, y, z = self._state[: _Z + 1].tolist()
        eye = (x - ORIGIN[0], y + EYE_HEIGHT, z - ORIGIN[1])
        cell = block_in_sight(eye, self._yaw, self._pitch, self._kinds, lambda kind: kind == _SOLID)
        if cell is None:
            return ()
        answer, _ = self._ask({"op": "name", "cell": list(cell)})
        return (str(answer["name"]),)

    def render(self, pose: ArrayLike) -> NDArray[np.uint8]:
        """The ``(H, W, 3) uint8`` picture from any pose ``(5,)`` of the world last reset to; moves nothing."""
        self._ready()
        p = check_pose(pose)
        if p.shape != (POSE_DIM,):
            raise ValueError(f"pose has shape {p.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
        self._fetch_meshes(p)
        return self._renderer.render(p, under_water=self._eye_in_water(p))

    def snapshot(self) -> dict[str, Any]:
        """A copy of the player's state and the world's seed, for :meth:`restore` of this or another world.

        Raises:
            RuntimeError: before :meth:`reset` or after :meth:`close`.
            NotImplementedError: in a world of given blocks.
        """
        self._ready()
        if self._seed is None:
            raise NotImplementedError("A world of given blocks cannot be copied; only seeded ones can.")
        return {"seed": self._seed, "state": self._state.copy(), "yaw": self._yaw, "pitch": self._pitch}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Puts a copy back; the next step goes on from it.

        Raises:
            RuntimeError: after :meth:`close`.
            BackendUnavailable: if the Node process fails.
        """
        self._check_open()
        if snapshot["seed"] != self._seed or not self._running:
            self._build(int(snapshot["seed"]))
        self._state[:] = snapshot["state"]
        self._yaw, self._pitch = float(snapshot["yaw"]), float(snapshot["pitch"])

    def close(self) -> None:
        """Frees the engine and ends its process; may be called twice."""
        if not self._closed:
            self._closed = True
            self._forget()
            self._renderer.release()
            if self._process is not None:
                self._process.close()

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.alive

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This world is closed; make a new one.")

    def _ready(self) -> Surface:
        self._check_open()
        if self._surface is None:
            raise RuntimeError("Call reset() before step().")
        return self._surface

    def _check_start(self, pose: ArrayLike) -> NDArray[np.float64]:
        start = check_pose(pose)
        if start.shape != (POSE_DIM,):
            raise ValueError(f"pose has shape {start.shape}, expected (5,): x, y, z in blocks, yaw, pitch in degrees.")
        x, y, z = start[0] - ORIGIN[0], start[1], start[2] - ORIGIN[1]
        if not (MARGIN <= x < SIZE[0] - MARGIN and MARGIN <= z < SIZE[2] - MARGIN and 0.0 <= y < SIZE[1] + 64.0):
            low, high = ORIGIN[0] + MARGIN, ORIGIN[0] + SIZE[0] - MARGIN
            raise ValueError(f"pose {start.tolist()} is outside the world: x and z must be in [{low}, {high}), y in [0, {SIZE[1] + 64}).")
        return start

    def _forget(self) -> None:
        self._seed = self._surface = None
        self._drawn[:] = False
        self._renderer.clear()

    def _start(self) -> None:
        """Forgets the world, and sees to it that there is a process for another one."""
        self._forget()
        if not self._running:
            if self._process is not None:
                self._process.close()
            self._process = NodeProcess(self._command, environment=self._environment, timeout=self._timeout)

    def _ask(self, header: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Asks the process; after a failure the world must be reset."""
        assert self._process is not None
        try:
            return self._process.request(header, payload)
        except BaseException:
            self._forget()
            raise

    def _array(self, payload: bytes, kind: str, count: int) -> NDArray[Any]:
        """An answer's payload as ``count`` numbers; an answer of another size is an error, and its sender is ended."""
        expected = count * np.dtype(kind).itemsize
        if len(payload) != expected:
            self._forget()
            assert self._process is not None
            self._process.close()
            raise EpisodeLost(f"The Node process of the minecraft world sent {len(payload)} bytes, expected {expected}; call reset().")
        return np.frombuffer(payload, kind)

    def _build(self, seed: int) -> None:
        self._start()
        _, payload = self._ask({"op": "world", "seed": [seed >> 32, seed & 0xFFFFFFFF]})
        columns = SIZE[0] * SIZE[2]
        everything = self._array(payload, "u1", 3 * columns + columns * SIZE[1])
        heights = np.frombuffer(payload, "<i2", columns).astype(np.int16).reshape(SIZE[0], SIZE[2])
        walkable = (everything[2 * columns : 3 * columns] != 0).reshape(SIZE[0], SIZE[2])
        heights.flags.writeable = walkable.flags.writeable = False
        self._take(payload[3 * columns :], Surface(heights, walkable, ORIGIN))
        self._seed = seed

    def _take(self, kinds: bytes, surface: Surface) -> None:
        self._kinds = self._array(kinds, "u1", SIZE[0] * SIZE[1] * SIZE[2]).reshape(SIZE)
        self._surface = surface

    def _stand(self, pose: NDArray[np.float64]) -> None:
        x, y, z = float(pose[0]), float(pose[1]), float(pose[2])
        if self._overlaps(x, y, z):
            where = "these blocks" if self._seed is None else f"world {self._seed}"
            self._forget()  # the player of the world before must not walk on in this one
            raise ValueError(f"pose {pose.tolist()} puts the player's body inside a block of {where}.")
        self._state[:] = 0.0
        self._state[: _Z + 1] = x, y, z
        self._state[_GROUND] = float(self._overlaps(x, y - 0.001, z))
        self._yaw, self._pitch = float(pose[3]), float(pose[4])

    def _overlaps(self, x: float, y: float, z: float) -> bool:
        """True when the player's body with feet at (x, y, z) cuts a solid block."""
        low = [math.floor(v + _GAP) for v in (x - _HALF_WIDTH - ORIGIN[0], y, z - _HALF_WIDTH - ORIGIN[1])]
        high = [math.floor(v - _GAP) for v in (x + _HALF_WIDTH - ORIGIN[0], y + _HEIGHT, z + _HALF_WIDTH - ORIGIN[1])]
        nx, ny, nz = (b - a + 1 for a, b in zip(low, high, strict=True))
        return bool(self._solid(low[0], low[1], low[2], (nx, ny, nz)).any())

    def _solid(self, i: int, j: int, k: int, size: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Which blocks of a box from cell (i, j, k) on are solid: the margin and what is below the grid too, air is above it."""
        at = (np.arange(first, first + count) for first, count in zip((i, j, k), size, strict=True))
        x, y, z = np.ix_(*at)
        inner = (x >= MARGIN) & (x < SIZE[0] - MARGIN) & (z >= MARGIN) & (z < SIZE[2] - MARGIN) & (y >= 0)
        found = self._kinds[x.clip(0, SIZE[0] - 1), y.clip(0, SIZE[1] - 1), z.clip(0, SIZE[2] - 1)] == _SOLID
        solid: NDArray[np.bool_] = np.where(inner, found & (y < SIZE[1]), True)
        return solid

    def _eye_in_water(self, pose: NDArray[np.float64]) -> bool:
        cell = [math.floor(v) for v in (pose[0] - ORIGIN[0], pose[1] + EYE_HEIGHT, pose[2] - ORIGIN[1])]
        return all(0 <= c < side for c, side in zip(cell, SIZE, strict=True)) and bool(self._kinds[tuple(cell)] == _WATER)

    def _fetch_meshes(self, pose: NDArray[np.float64]) -> None:
        """Asks for the meshes within sight that have not been asked for yet."""
        sides = []
        for axis, origin in ((0, ORIGIN[0]), (2, ORIGIN[1])):
            corners = origin + _CHUNK * np.arange(SIZE[axis] // _CHUNK)
            sides.append(np.maximum(np.maximum(corners - pose[axis], pose[axis] - corners - _CHUNK), 0.0))
        near = sides[0][:, None] ** 2 + sides[1][None, :] ** 2 < VIEW_DISTANCE**2
        wanted = np.argwhere(near & ~self._drawn)
        if not len(wanted):
            return
        answer, quads = self._ask({"op": "mesh", "columns": wanted.tolist()})
        counts = np.asarray(answer.get("counts"), np.int64)
        if counts.shape != (len(wanted), GROUPS):
            quads, counts = b"", np.ones((1, GROUPS), np.int64)  # refused below like any wrong size
        self._array(quads, "u1", int(counts.sum()) * QUAD_BYTES)
        self._renderer.add(counts, quads)
        self._drawn[wanted[:, 0], wanted[:, 1]] = True

    def _view(self, blocked: bool) -> WorldView:
        pose = np.array([*self._state[: _Z + 1], self._yaw, self._pitch])
        return WorldView(self.render(pose), pose, blocked)


def check_size(frame_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of frames as whole numbers.

    Raises:
        ValueError: if one is out of range.
    """
    height, width = (int(side) for side in frame_size)
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise ValueError(f"frame_size is {frame_size}, expected (height, width) from {MIN_SIDE} to {MAX_SIDE} pixels each.")
    return height, width


def read_atlas(path: Path) -> NDArray[np.uint8]:
    """The block textures ``(512, 512, 4) uint8`` RGBA.

    Raises:
        BackendUnavailable: if the file is not what it should be.
    """
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape != (512, 512, 4):
        raise BackendUnavailable(
            f"{path} is no picture of 512 x 512 pixels with alpha; remove {node_packages.cache_folder()} and run: {node_packages.INSTALL}"
        )
    return np.ascontiguousarray(picture[..., [2, 1, 0, 3]], np.uint8)
