"""Pictures of an episode: what the agent sees, where its goal is, where it walked, and which memories the frame was predicted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from worldpack_model.geometry import VERTICAL_FOV, forward_vector, to_local, wrap_degrees

if TYPE_CHECKING:
    from worldpack_env.starts import Start

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

MIN_PANEL: Final = 256
"""Least height of the view and of the map, in pixels; smaller frames are enlarged."""
HEADER: Final = 28
THUMB: Final = 64
STRIP: Final = THUMB + 22
_GROUND: Final = (24, 26, 30)
_PANEL: Final = (38, 41, 47)
_INK: Final = (236, 238, 240)
_FAINT: Final = (128, 134, 143)
_CONTEXT: Final = (110, 116, 126)
_WALKED: Final = (88, 166, 255)
_GOAL: Final = (255, 196, 61)
_DONE: Final = (86, 196, 120)
_MEMORY: Final = (255, 128, 170)
_MAP_MARGIN: Final = 4.0
"""Blocks of ground shown around the outermost points."""


@dataclass
class History:
    """What one running episode showed so far; frame number i has the step number i that memories are named by."""

    frames: list[NDArray[np.uint8]]
    poses: list[NDArray[np.float64]]
    context: int
    """Number of frames that were known before the first step."""

    @classmethod
    def begin(cls, start: Start, frame: NDArray[np.uint8]) -> History:
        """History of a new episode whose first observation is ``frame (H, W, 3)``."""
        return cls([*start.frames[:-1], frame.copy()], [*start.poses], len(start.frames))

    def add(self, frame: NDArray[np.uint8], pose: NDArray[np.float64]) -> None:
        """Appends what a step showed."""
        self.frames.append(frame.copy())
        self.poses.append(pose.copy())

    def copy(self) -> History:
        """A history of its own; the frames, which nobody changes, are shared."""
        return History(list(self.frames), list(self.poses), self.context)


def compose(
    *,
    frame: NDArray[np.uint8],
    pose: NDArray[np.float64],
    history: History,
    start: Start,
    subgoal: int,
    distance: float,
    retrieved: NDArray[np.int64],
    title: str,
    step: int,
    limit: int,
    aim: str | None = None,
    compass: float | None = None,
) -> Canvas:
    """One picture: header, view with goal arrow, map from above (north up), and the strip of retrieved memories.

    Args:
        frame: ``(H, W, 3) uint8`` current view.
        pose: ``(5,)`` current pose.
        history: what was shown so far.
        start: where the episode began, for its waypoints.
        subgoal: number of goals reached.
        distance: blocks to the current goal.
        retrieved: ``(k,)`` step numbers of retrieved frames, -1 unused; k is 0 in engines.
        title: name of the task.
        step: env steps so far.
        limit: env steps until truncation.
        aim: of a task whose goals are no places: how it stands. Then ``subgoal`` and ``distance`` mean nothing.
        compass: of a task whose goal only the engine knows: degrees to where its compass points.

    Returns:
        ``(h, w, 3) uint8`` RGB, of a size that depends on the frame size alone, with even sides (video encoders need them).
    """
    import cv2

    side = max(MIN_PANEL, frame.shape[0]) // 2 * 2
    width = max(side, round(frame.shape[1] * side / frame.shape[0])) // 2 * 2
    known = aim is None and compass is None
    waypoints = start.waypoints if known else start.waypoints[:1]
    names = _names(len(waypoints))
    current = min(subgoal, len(names) - 2) + 1 if known else None
    done = aim is None and subgoal >= (len(names) - 1 if known else 1)
    canvas = np.full((HEADER + side + STRIP, width + side, 3), _GROUND, np.uint8)
    grow = frame.shape[0] < side
    view = cv2.resize(frame, (width, side), interpolation=cv2.INTER_NEAREST if grow else cv2.INTER_AREA)
    canvas[HEADER : HEADER + side, :width] = view
    if current is not None and not done:
        local = to_local(waypoints[current] - pose[:3], pose[3])
        _goal_arrow(canvas, (width // 2, HEADER + side - 34), float(np.arctan2(local[0], local[2])))
    elif compass is not None and not done:
        _goal_arrow(canvas, (width // 2, HEADER + side - 34), float(np.radians(compass)))
    if aim is not None:
        goal = aim
    else:
        goal = "all goals reached" if done else f"to {'the compass' if current is None else names[current]}: {distance:.1f} blocks"
    _text(canvas, f"{title}  {goal}", (8, 19), _DONE if done else _INK)
    _text(canvas, f"step {step}/{limit}", (width + side - 8, 19), _FAINT, right=True)
    canvas[HEADER : HEADER + side, width:] = _map(side, pose, history, waypoints, current=current, done=done, retrieved=retrieved)
    _memories(canvas, HEADER + side, history, retrieved)
    return canvas


def _names(count: int) -> list[str]:
    """Letters of the waypoints in order of visit: a loop ends where it began."""
    return ["A", *"BCDEFGH"[: max(count - 2, 0)], "A" if count > 2 else "B"][:count]


def _text(canvas: Canvas, text: str, at: tuple[int, int], colour: Colour, *, right: bool = False, scale: float = 0.42) -> None:
    import cv2

    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = at[0] - wide if right else at[0]
    cv2.putText(canvas, text, (x, at[1]), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _goal_arrow(canvas: Canvas, centre: tuple[int, int], angle: float) -> None:
    """A dial whose arrow points to the goal; up is straight ahead, ``angle`` in radians to the right."""
    import cv2

    x, y, radius = *centre, 24
    patch = canvas[y - radius - 2 : y + radius + 3, x - radius - 2 : x + radius + 3]
    disc = patch.copy()
    cv2.circle(disc, (radius + 2, radius + 2), radius, _GROUND, -1, cv2.LINE_AA)
    patch[:] = (0.7 * disc + 0.3 * patch).astype(np.uint8)
    cv2.circle(canvas, centre, radius, _INK, 1, cv2.LINE_AA)
    dx, dy = np.sin(angle), -np.cos(angle)
    tail = (round(x - 0.6 * radius * dx), round(y - 0.6 * radius * dy))
    tip = (round(x + 0.75 * radius * dx), round(y + 0.75 * radius * dy))
    cv2.arrowedLine(canvas, tail, tip, _GOAL, 2, cv2.LINE_AA, tipLength=0.4)


def _map(
    side: int,
    pose: NDArray[np.float64],
    history: History,
    stations: NDArray[np.float64],
    *,
    current: int | None,
    done: bool,
    retrieved: NDArray[np.int64],
) -> Canvas:
    """The ground from above, ``(side, side, 3)``: x to the right, z down, as on Minecraft's maps."""
    import cv2

    image = np.full((side, side, 3), _PANEL, np.uint8)
    walked = np.stack(history.poses)[:, [0, 2]]
    waypoints = stations[:, [0, 2]]
    points = np.concatenate([walked, waypoints])
    low, high = points.min(axis=0) - _MAP_MARGIN, points.max(axis=0) + _MAP_MARGIN
    scale = side / float((high - low).max())
    corner = (low + high) / 2 - side / scale / 2

    def pixel(point: NDArray[np.float64]) -> tuple[int, int]:
        x, y = np.round((point - corner) * scale)
        return int(x), int(y)

    def line(way: NDArray[np.float64], colour: Colour) -> None:
        cv2.polylines(image, [np.array([pixel(p) for p in way], np.int32)], False, colour, 2, cv2.LINE_AA)

    line(walked[: history.context], _CONTEXT)
    line(walked[history.context - 1 :], _WALKED)
    names = _names(len(waypoints))
    seen: set[str] = set()
    for i in (*([] if current is None else [current]), *range(len(names))):  # the current goal first: A is both where a loop begins and where it ends
        if names[i] in seen:
            continue
        seen.add(names[i])
        aim = i == current and not done
        colour = _GOAL if aim else _DONE if done or (current is not None and i < current) else _FAINT
        at = pixel(waypoints[i])
        if aim:
            cv2.circle(image, at, max(6, round(2.0 * scale)), colour, 1, cv2.LINE_AA)
        cv2.circle(image, at, 5, colour, -1, cv2.LINE_AA)
        _text(image, names[i], (at[0] + 8, at[1] - 6), colour, scale=0.5)
    for number in _used(retrieved, history):  # a memory is of use for what it looks at: the line says where to
        at, looks = pixel(history.poses[number][[0, 2]]), forward_vector(history.poses[number][3])[[0, 2]]
        cv2.line(image, at, (round(at[0] + 12 * looks[0]), round(at[1] + 12 * looks[1])), _MEMORY, 1, cv2.LINE_AA)
        cv2.circle(image, at, 3, _MEMORY, -1, cv2.LINE_AA)
    for edge in (-0.5, 0.5):
        along = forward_vector(pose[3] + edge * VERTICAL_FOV)[[0, 2]]
        far = np.round(np.array(pixel(pose[[0, 2]])) + 0.3 * side * along).astype(int)
        cv2.line(image, pixel(pose[[0, 2]]), (int(far[0]), int(far[1])), _FAINT, 1, cv2.LINE_AA)
    ahead = forward_vector(pose[3])[[0, 2]]
    beside = np.array([-ahead[1], ahead[0]])
    here = np.array(pixel(pose[[0, 2]]), np.float64)
    body = np.stack([here + 13 * ahead, here - 8 * ahead + 6 * beside, here - 4 * ahead, here - 8 * ahead - 6 * beside])
    cv2.fillPoly(image, [np.round(body).astype(np.int32)], _INK, cv2.LINE_AA)
    blocks = max(b for b in (1, 2, 5, 10, 20, 50, 100) if b == 1 or b * scale <= 0.4 * side)
    cv2.line(image, (10, side - 12), (10 + round(blocks * scale), side - 12), _FAINT, 2)
    _text(image, f"{blocks} block{'s' if blocks > 1 else ''}", (10, side - 18), _FAINT, scale=0.36)
    return image


def _used(retrieved: NDArray[np.int64], history: History) -> list[int]:
    return [int(i) for i in retrieved if 0 <= i < len(history.frames)]


def _memories(canvas: Canvas, top: int, history: History, retrieved: NDArray[np.int64]) -> None:
    """The retrieved frames, best first, each with its step number (grey where it was known before the first step), and why: from where it looks.

    That is how many blocks from here it was taken, and by how many degrees it is turned from the view now.
    """
    import cv2

    if retrieved.shape[0] == 0:
        _text(canvas, "real engine: every frame is rendered, none is remembered", (8, top + 17), _FAINT)
        return
    used = _used(retrieved, history)
    room = canvas.shape[1] // (THUMB + 4)
    more = f" ({len(used) - room} more on the map)" if len(used) > room else ""
    caption = f"{len(used)} memories{more}: blocks away, degrees turned; k: known at first" if used else "no memory retrieved yet"
    _text(canvas, caption, (8, top + 15), _FAINT)
    for place, number in enumerate(used[:room]):
        x, y = 4 + place * (THUMB + 4), top + 20
        thumb: Any = cv2.resize(history.frames[number], (THUMB, THUMB), interpolation=cv2.INTER_AREA)
        canvas[y : y + THUMB, x : x + THUMB] = thumb
        known = number < history.context
        label = f"{number}k" if known else f"{number}"
        cv2.rectangle(canvas, (x, y), (x + 4 + 8 * len(label), y + 13), _GROUND, -1)
        _text(canvas, label, (x + 2, y + 10), _INK if known else _MEMORY, scale=0.36)
        offset = history.poses[number] - history.poses[-1]
        why = f"{np.linalg.norm(offset[:3]):.1f}b {wrap_degrees(offset[3]):+.0f}"
        cv2.rectangle(canvas, (x, y + THUMB - 13), (x + THUMB - 1, y + THUMB - 1), _GROUND, -1)
        _text(canvas, why, (x + 2, y + THUMB - 3), _FAINT, scale=0.36)
