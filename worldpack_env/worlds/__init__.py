"""Real engines behind one protocol.

A :class:`World` is a single, lockstep engine: it is reset to an exact (seed, pose) and stepped with the project's actions
(``worldpack_model.geometry``). Everything that needs the truth (recording, the real environment, the comparison) talks to this protocol only.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldpack_model.geometry import TICKS_PER_STEP

REACH: Final = 4.5
"""Blocks from the eye within which a player reaches a block (Minecraft, survival)."""


class BackendUnavailable(RuntimeError):
    """A real engine cannot be used or stopped answering; the message says what to install or do."""


class EpisodeLost(BackendUnavailable):
    """An engine lost the episode that it was stepped in: the step did not happen, and a reset begins anew."""


class MissionView(NamedTuple):
    """What a mission of the engine's own (MineRL's Navigate) says after a reset or a step."""

    reward: float
    """Of the step, by the mission's own rules."""
    done: bool
    """The mission is over; the world must be reset."""
    success: bool
    """It is over because its goal was reached."""
    compass: float
    """Degrees to the compass's target, 0 straight ahead, positive to the right."""
    distance: float
    """Blocks to the compass's target; NaN where the engine does not tell."""


class WorldView(NamedTuple):
    """What an engine shows after a reset or a step."""

    frame: NDArray[np.uint8]
    """``(H, W, 3) uint8`` RGB."""
    pose: NDArray[np.float64]
    """``(5,) float64`` true pose."""
    blocked: bool
    """True when a wall stopped (part of) the commanded walk in this step."""
    mission: MissionView | None = None
    """Of a world that plays a mission of its engine's own; None of all others."""


class Surface(NamedTuple):
    """The walkable top of a world on its block grid, for planning and for placing goals."""

    heights: NDArray[np.int16]
    """``(X, Z)`` feet height in blocks when standing on column (x, z), canopies ignored."""
    walkable: NDArray[np.bool_]
    """``(X, Z)`` True where a player can stand (no water, trunk or wall, two blocks of headroom)."""
    origin: tuple[int, int]
    """World (x, z) of the corner of column [0, 0]; column [i, j] covers x in [x0 + i, x0 + i + 1)."""


@runtime_checkable
class World(Protocol):
    """A real engine.

    One whose work is done in a process of its own may have an attribute ``concurrent = True``: a batch of them is then started and stepped at the
    same time, each in a thread. One that can tell what happens in the player's view, beyond poses and blocks, has a method ``events()``, which names
    it (``tuple[str, ...]``) after each reset and step.
    """

    name: str
    """The name users choose it by: ``voxel``, ``minecraft``, ``minerl``."""
    frame_size: tuple[int, int]
    """(height, width) of its frames in pixels."""

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        """Builds world ``seed`` and stands the player at ``pose`` (5,), at rest; None takes the world's own spawn."""

    def step(self, action: ArrayLike) -> WorldView:
        """Holds ``action`` (9,) for ``TICKS_PER_STEP`` ticks; the camera turn is applied before the first tick.

        Raises:
            EpisodeLost: if the engine lost the episode.
        """

    def surface(self) -> Surface:
        """The walkable surface of the world last reset to."""

    def solid(self, corner: ArrayLike, size: tuple[int, int, int]) -> NDArray[np.bool_] | None:
        """Which blocks no body can enter.

        Args:
            corner: ``(3,)`` whole numbers, the lowest corner of a box of blocks.
            size: blocks along x, y and z.

        Returns:
            ``size`` bool; None where the engine does not tell.
        """

    def close(self) -> None:
        """Frees the engine; may be called twice."""


WORLDS: dict[str, str] = {
    "voxel": "worldpack_env.worlds.voxel:VoxelWorld",
    "minecraft": "worldpack_env.worlds.minecraft:MinecraftWorld",
    "minerl": "worldpack_env.worlds.minerl:MineRLWorld",
}
"""Name -> ``module:class`` of every engine; imported only when made."""


SERVERS: dict[str, str] = {"minecraft": "worldpack_env.worlds.minecraft_server:MinecraftServerWorld"}
"""The same of engines that join a running server, chosen as ``name@host:port``."""


def make_world(name: str, *, frame_size: tuple[int, int] = (64, 64), ticks_per_step: int = TICKS_PER_STEP, mission: str | None = None) -> World:
    """Makes an engine by name.

    Args:
        name: a key of ``WORLDS``, or ``minecraft@host:port`` for a Minecraft server that runs there.
        frame_size: (height, width) of its frames in pixels.
        ticks_per_step: game ticks of 50 ms of a step; environments and models have the default, recordings may show every tick.
        mission: a mission of the engine's own that it plays, of its class's ``missions``; None plays none.

    Raises:
        ValueError: if there is no such engine or mission, or its steps cannot be so long.
        TypeError: if its class lacks a part of the :class:`World` protocol.
        BackendUnavailable: if it cannot run here; the message says what to install.
    """
    import difflib
    import importlib
    import inspect

    kind, at, address = name.partition("@")
    if at and kind not in SERVERS:
        raise ValueError(f"{name!r} names a server, and {kind!r} joins none; expected minecraft@HOST:PORT.")
    if kind not in WORLDS:
        near = difflib.get_close_matches(name, WORLDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no world named {name!r}; known worlds: {', '.join(WORLDS)}.{hint}")
    path = (SERVERS if at else WORLDS)[kind]
    module, _, attribute = path.partition(":")
    engine = getattr(importlib.import_module(module), attribute)
    options: dict[str, Any] = {"server": address} if at else {}
    if ticks_per_step != TICKS_PER_STEP:
        if "ticks_per_step" not in inspect.signature(engine).parameters:
            raise ValueError(f"Steps of the world {name!r} are {TICKS_PER_STEP} ticks; it has no steps of {ticks_per_step}.")
        options["ticks_per_step"] = ticks_per_step
    if mission is not None:
        if mission not in getattr(engine, "missions", ()):
            raise ValueError(f"The world {name!r} has no mission {mission!r}; the world 'minerl' has MineRL's own: navigate, navigate-dense.")
        options["mission"] = mission
    world: World = engine(frame_size=frame_size, **options)
    missing = [part for part in ("name", "frame_size", "reset", "step", "surface", "solid", "close") if not hasattr(world, part)]
    if missing:
        raise TypeError(f"World {name!r} ({path}) has no {', '.join(missing)}; see worldpack_env.worlds.World for what each must do.")
    return world
