"""Gymnasium environments whose dynamics are a world model that remembers, and the same environments in the real engine.

Importing this package registers the ids below and loads nothing heavy; the public names are loaded when first used.

============================== =========================================================
id                             episode
============================== =========================================================
``WorldPack/LoopNav-v0``       A -> B -> A (or A -> B -> C -> A), imagined
``WorldPack/LoopNavReal-v0``   the same, in the engine
``WorldPack/GoTo-v0``          A -> B, imagined
``WorldPack/GoToReal-v0``      the same, in the engine
``WorldPack/GoToImage-v0``     A -> B, where a picture tells what B looks like, imagined
``WorldPack/GoToImageReal-v0`` the same, in the engine
``WorldPack/Explore-v0``       see as much new ground as the time allows, imagined
``WorldPack/ExploreReal-v0``   the same, in the engine
``WorldPack/Find-v0``          look at a tree from within reach, without a compass, imagined: a learned head says when
``WorldPack/FindReal-v0``      the same, in the engine
============================== =========================================================

MineRL's own Navigate (``docs/minerl.md``), which only the world ``minerl`` can show, is ``WorldPack/NavigateReal-v0`` and
``WorldPack/NavigateDenseReal-v0``.

Keyword arguments: ``worldpack_env.assembly.NavOptions``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from worldpack_env.actions import ActionSet as ActionSet
    from worldpack_env.actions import make_action_set as make_action_set
    from worldpack_env.assembly import NavOptions as NavOptions
    from worldpack_env.env import NavEnv as NavEnv
    from worldpack_env.env import make_nav_env as make_nav_env
    from worldpack_env.imagination import Imagination as Imagination
    from worldpack_env.reality import Reality as Reality
    from worldpack_env.simulator import Simulator as Simulator
    from worldpack_env.simulator import Views as Views
    from worldpack_env.starts import Start as Start
    from worldpack_env.starts import StartBank as StartBank
    from worldpack_env.tasks import Explore as Explore
    from worldpack_env.tasks import Find as Find
    from worldpack_env.tasks import GoTo as GoTo
    from worldpack_env.tasks import LoopNav as LoopNav
    from worldpack_env.vector_env import NavVectorEnv as NavVectorEnv
    from worldpack_env.vector_env import make_nav_vector_env as make_nav_vector_env
    from worldpack_env.worlds import World as World
    from worldpack_env.worlds import make_world as make_world

__version__ = "0.1.0"
_KINDS: dict[str, dict[str, Any]] = {
    "LoopNav": {"task": "loop"},
    "GoTo": {"task": "goto"},
    "GoToImage": {"task": "goto", "goal_obs": "image"},
    "Explore": {"task": "explore"},
    "Find": {"task": "find"},
}
IDS = tuple(f"WorldPack/{kind}{real}-v0" for kind in _KINDS for real in ("", "Real"))
"""Every id of a task of this project, imagined and in the engine."""
MINERL_KINDS = {"WorldPack/NavigateReal-v0": "navigate", "WorldPack/NavigateDenseReal-v0": "navigate-dense"}
"""The ids of MineRL's own missions, and their tasks."""
_PUBLIC = {
    "ActionSet": "actions",
    "make_action_set": "actions",
    "NavOptions": "assembly",
    "NavEnv": "env",
    "make_nav_env": "env",
    "Imagination": "imagination",
    "Reality": "reality",
    "Simulator": "simulator",
    "Views": "simulator",
    "Start": "starts",
    "StartBank": "starts",
    "Explore": "tasks",
    "Find": "tasks",
    "GoTo": "tasks",
    "LoopNav": "tasks",
    "NavVectorEnv": "vector_env",
    "make_nav_vector_env": "vector_env",
    "World": "worlds",
    "make_world": "worlds",
}
__all__ = ["IDS", "MINERL_KINDS", "__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


for _id in IDS:
    gymnasium.register(
        id=_id,
        entry_point="worldpack_env.env:make_nav_env",
        vector_entry_point="worldpack_env.vector_env:make_nav_vector_env",
        kwargs={**_KINDS[_id.split("/")[1].split("-")[0].removesuffix("Real")], "real": "Real" in _id},
    )
for _id, _task in MINERL_KINDS.items():
    gymnasium.register(
        id=_id,
        entry_point="worldpack_env.env:make_nav_env",
        vector_entry_point="worldpack_env.vector_env:make_nav_vector_env",
        kwargs={"task": _task, "real": True},
    )
