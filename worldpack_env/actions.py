"""The one action table: what an agent may choose, and which keys and camera turn that is.

An :class:`ActionSet` turns a choice into the project's action vector ``(9,) float32`` (``worldpack_model.geometry``): seven held keys as
0/1 and the camera turn ``(dpitch, dyaw)`` in degrees per env step. The imagined and the real environment use the same one.

==========  ==============================  =============================================================================================
name        space                           meaning
==========  ==============================  =============================================================================================
``nav-4``   ``Discrete(4)``                 0 forward + jump, 1 turn left, 2 turn right, 3 forward. Turns are 22.5 degrees. Jump is needed
                                            for steps of one block and does no harm on flat ground.
``nav-8``   ``Discrete(8)``                 ``nav-4`` and 4 back, 5 strafe left, 6 strafe right, 7 stand still.
``box``     ``Box(-1, 1, (5,))``            forward/back, right/left, jump (keys: held beyond +-0.33); dpitch, dyaw: 1 = 45 degrees.
``minerl``  ``Dict``                        MineRL's own: ``Discrete(2)`` for each key, ``camera = Box(-180, 180, (2,))`` as [dpitch, dyaw].
                                            Stable-Baselines3 has no Dict actions; use another set there.
==========  ==============================  =============================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from worldpack_model.config import lookup
from worldpack_model.geometry import ACTION_DIM, DPITCH, DYAW, KEYS

TURN_DEGREES: Final = 22.5
"""Camera turn of one discrete turn action."""
BOX_TURN_DEGREES: Final = 45.0
"""Camera turn of a ``box`` component of 1."""
BOX_KEY_THRESHOLD: Final = 0.33
"""A ``box`` component beyond this holds its key, so that a third of the range means no key."""

NavActions = NDArray[np.float32]


class ActionSet(ABC):
    """A space to choose from, and the action vectors of its members."""

    name: str
    """The name users choose it by."""
    space: spaces.Space[Any]
    """Space of one choice."""

    @abstractmethod
    def _convert(self, actions: Any, lead: tuple[int, ...]) -> NavActions:
        """Turns choices with leading axes ``lead`` (none or ``(n,)``) into ``(*lead, 9)`` action vectors.

        Raises:
            InvalidAction: if they are not members of the (batched) space.
        """

    def to_nav(self, action: Any) -> NavActions:
        """Action vector ``(9,) float32`` of one member of ``space``.

        Raises:
            gymnasium.error.InvalidAction: if ``action`` is no member of ``space``.
        """
        return self._convert(action, ())

    def batch_to_nav(self, actions: Any, n: int) -> NavActions:
        """Action vectors ``(n, 9) float32`` of a member of ``gymnasium.vector.utils.batch_space(space, n)``.

        Raises:
            gymnasium.error.InvalidAction: if ``actions`` is no such member.
        """
        return self._convert(actions, (n,))

    @abstractmethod
    def nearest(self, nav: NavActions) -> Any:
        """The members of the batched space that come nearest to action vectors ``(n, 9)``; exact where the set has them.

        For scripts and recorded actions: each key that differs counts as much as ``TURN_DEGREES`` of camera turn.
        """


class DiscreteActions(ActionSet):
    """A fixed list of actions."""

    space: spaces.Discrete

    def __init__(self, name: str, labels: tuple[str, ...], table: NavActions) -> None:
        """Makes the set.

        Args:
            name: the name users choose it by.
            labels: what each action does, for people.
            table: ``(len(labels), 9) float32`` action vectors.
        """
        self.name, self.labels, self.table = name, labels, table
        self.space = spaces.Discrete(len(labels))

    def _convert(self, actions: Any, lead: tuple[int, ...]) -> NavActions:
        array = _numbers(actions, lead, "action" if not lead else "actions")
        if array.dtype.kind not in "iu":
            raise InvalidAction(f"Actions of {self.name!r} are whole numbers, got dtype {array.dtype}; cast them to int64.")
        if array.size and (int(array.min()) < 0 or int(array.max()) >= len(self.labels)):
            raise InvalidAction(f"Actions of {self.name!r} are 0 .. {len(self.labels) - 1}, got {array.tolist()}.")
        nav: NavActions = self.table[array].copy()
        return nav

    def nearest(self, nav: NavActions) -> NDArray[np.int64]:
        """Numbers ``(n,)`` of the actions nearest to vectors ``(n, 9)``."""
        away = np.abs(np.asarray(nav)[:, None] - self.table[None])
        away[..., DPITCH:] /= TURN_DEGREES
        best: NDArray[np.int64] = away.sum(-1).argmin(axis=1)
        return best


class BoxActions(ActionSet):
    """Five numbers in [-1, 1]; see the table above."""

    name = "box"

    def __init__(self) -> None:
        self.space = spaces.Box(-1.0, 1.0, (5,), np.float32)

    def _convert(self, actions: Any, lead: tuple[int, ...]) -> NavActions:
        array = _bounded(actions, (*lead, 5), 1.0, "action" if not lead else "actions")
        held = np.stack(
            [array[..., 0], -array[..., 0], -array[..., 1], array[..., 1], array[..., 2]], axis=-1
        )  # forward, back, left, right, jump: the first five of KEYS
        nav = np.zeros((*lead, ACTION_DIM), np.float32)
        nav[..., :5] = held > BOX_KEY_THRESHOLD
        nav[..., DPITCH] = array[..., 3] * BOX_TURN_DEGREES
        nav[..., DYAW] = array[..., 4] * BOX_TURN_DEGREES
        return nav

    def nearest(self, nav: NavActions) -> NavActions:
        """Boxes ``(n, 5)`` nearest to vectors ``(n, 9)``: keys as -1, 0 or 1, turns cut at ``BOX_TURN_DEGREES``."""
        forward, back, left, right, jump = np.asarray(nav, np.float32)[:, :5].T
        turns = np.clip(np.asarray(nav, np.float32)[:, DPITCH:] / BOX_TURN_DEGREES, -1.0, 1.0)
        return np.column_stack([forward - back, right - left, jump, turns]).astype(np.float32)


class MineRLActions(ActionSet):
    """MineRL's dictionary of held keys and a camera turn in degrees."""

    name = "minerl"

    def __init__(self) -> None:
        keys: dict[str, spaces.Space[Any]] = {key: spaces.Discrete(2) for key in KEYS}
        self.space = spaces.Dict({**keys, "camera": spaces.Box(-180.0, 180.0, (2,), np.float32)})

    def _convert(self, actions: Any, lead: tuple[int, ...]) -> NavActions:
        wanted = {*KEYS, "camera"}
        if not isinstance(actions, Mapping) or set(actions) != wanted:
            came = sorted(actions) if isinstance(actions, Mapping) else type(actions).__name__
            raise InvalidAction(f"An action of 'minerl' is a dict with the keys {sorted(wanted)}, got {came}.")
        nav = np.zeros((*lead, ACTION_DIM), np.float32)
        for column, key in enumerate(KEYS):
            held = _numbers(actions[key], lead, key)
            if held.dtype.kind not in "iu" or not np.isin(held, (0, 1)).all():
                raise InvalidAction(f"{key!r} is 0 or 1 in an action of 'minerl', got {held.tolist()} ({held.dtype}).")
            nav[..., column] = held
        nav[..., DPITCH:] = _bounded(actions["camera"], (*lead, 2), 180.0, "camera")
        return nav

    def nearest(self, nav: NavActions) -> dict[str, NDArray[Any]]:
        """MineRL's dictionary with a leading axis n for vectors ``(n, 9)``; every vector is in it."""
        keys = {key: (nav[:, column] > 0.5).astype(np.int64) for column, key in enumerate(KEYS)}
        return {**keys, "camera": np.asarray(nav[:, DPITCH:], np.float32)}


def _numbers(values: Any, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """``values`` as an array of numbers of exactly this shape."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged lists
        raise InvalidAction(f"{name} is no array of numbers; expected shape {shape}.") from None
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise InvalidAction(f"{name} has shape {array.shape} and dtype {array.dtype}, expected numbers of shape {shape}.")
    return array


def _bounded(values: Any, shape: tuple[int, ...], limit: float, name: str) -> NavActions:
    """``values`` as float32 of this shape within [-limit, limit]."""
    array = _numbers(values, shape, name).astype(np.float32)
    # Not `any(abs > limit)`, which NaN would pass.
    if not (np.abs(array) <= limit).all():
        raise InvalidAction(f"{name} must lie within [-{limit:g}, {limit:g}], got {array.tolist()}; clip it before the step.")
    return array


def _row(*keys: str, dyaw: float = 0.0) -> NavActions:
    nav = np.zeros(ACTION_DIM, np.float32)
    nav[[KEYS.index(key) for key in keys]] = 1.0
    nav[DYAW] = dyaw
    return nav


_NAV: Final[dict[str, NavActions]] = {
    "forward + jump": _row("forward", "jump"),
    "turn left": _row(dyaw=-TURN_DEGREES),
    "turn right": _row(dyaw=TURN_DEGREES),
    "forward": _row("forward"),
    "back": _row("back"),
    "strafe left": _row("left"),
    "strafe right": _row("right"),
    "stand still": _row(),
}


def _discrete(name: str, count: int) -> DiscreteActions:
    labels = tuple(_NAV)[:count]
    return DiscreteActions(name, labels, np.stack([_NAV[label] for label in labels]))


ACTION_SETS: Final[dict[str, Callable[[], ActionSet]]] = {
    "nav-4": lambda: _discrete("nav-4", 4),
    "nav-8": lambda: _discrete("nav-8", 8),
    "box": BoxActions,
    "minerl": MineRLActions,
}
"""Name -> maker of every action set."""


def make_action_set(name: str) -> ActionSet:
    """Makes an action set by name.

    Raises:
        ValueError: if there is no such set; the nearest name is suggested.
    """
    return lookup(ACTION_SETS, name, "action set")()
