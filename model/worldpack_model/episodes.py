"""Recorded episodes on disk, in LoopNav's own layout: ``<root>/<task>/<site>/<range>/<stem>.avi`` + ``<stem>.json``.

The JSON file is a list with one record a video frame, in LoopNav's field names and units (mineflayer radians), so that its data, its tools
and our recordings are one thing. Three differences, all additions:

* our numbers keep full float precision (LoopNav rounds to 3 decimals), so poses and actions come back as they were written;
* every record's ``extra_info`` also names the ``phase`` it belongs to and says whether a wall ``blocked`` the walk and, where the engine tells,
  which ``blocks`` around the body are solid (``geometry.BOX``, packed bits in hexadecimal) and what else happens in the frame (``events``, a list of
  names); the first record's carries what holds for the whole episode: ``world``, ``ticks_per_step``, ``waypoints``, ``turn_index`` and
  ``video_sha256``;
* small frames are stored lossless (FFV1); MJPG, as LoopNav uses, is read as well.

A record's action led to *that* record's frame. It is converted here, at the border, to the project's alignment: action ``t`` turns frame
``t`` into frame ``t + 1``; the first record's action (that led to the first frame) is written as no action and dropped on reading.

**Splits.** Worlds are split by seed, so that no place of a test world was ever seen in training: seeds 0..899_999 are ``train``,
900_000..949_999 ``val`` and 950_000..999_999 ``test`` (``SPLITS``).

``index.json`` in the root lists the episodes with checksums; a file that changed or was cut is reported, never read. ``train.csv``, ``val.csv`` or
``test.csv`` beside it names the loops among them, as LoopNav's files of splits do (``write_splits``).
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from worldpack_model.geometry import (
    ACTION_DIM,
    BOX,
    DPITCH,
    DYAW,
    KEYS,
    POSE_DIM,
    TICKS_PER_STEP,
    camera_from_loopnav,
    camera_to_loopnav,
    loopnav_to_pose,
    pose_to_loopnav,
    wrap_degrees,
)

LOGGER = logging.getLogger(__name__)

SPLITS: Final[dict[str, range]] = {
    "train": range(900_000),
    "val": range(900_000, 950_000),
    "test": range(950_000, 1_000_000),
}
"""World seeds of each split."""
PHASES: Final = ("look", "out", "out2", "detour", "back", "close", "explore", "bump", "stroll")
"""What a frame can belong to: the opening look-around at A, the legs A->B and B->C, the way home, the closing look-around at A, and the two
goal-less tasks. A frame belongs to the phase of the action that led to it."""
INDEX_NAME: Final = "index.json"
INDEX_FORMAT: Final = 1
SPLIT_COLUMNS: Final = ("video", "record", "frames", "seed", "location", "nvtype", "nvrange")
"""Of the CSV files of splits."""
_NO_EPISODES: Final = (
    "No episodes in {root}; record some with `worldpack record --out {root}`, or point to a folder that holds <task>/<site>/<range>/*.avi."
)
_SAFE_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class EpisodeError(ValueError):
    """Something is wrong with recorded episodes; the message says which file and what to do."""


class EpisodeMissingError(EpisodeError):
    """A file or a whole folder of episodes is not there."""


class EpisodeDamagedError(EpisodeError):
    """A file is there but is not what was written: wrong checksum, cut video, frame counts that differ."""


class EpisodeFormatError(EpisodeError):
    """A JSON file does not have the form this module reads."""


class UnsafePathError(EpisodeError):
    """An index points outside its own folder."""


def site_of(world: str, seed: int) -> str:
    """Where an episode of this project's own recorder is, as a folder can be called; its seeds are those of ``SPLITS``."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"{world}_{seed:06d}")


def split_of(seed: int) -> str:
    """Name of the split (``train``, ``val``, ``test``) that world ``seed`` belongs to.

    Raises:
        ValueError: if the seed is in no split.
    """
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    raise ValueError(f"World seed {seed} is in no split; seeds go from 0 to {max(s.stop for s in SPLITS.values()) - 1}.")


def happens(event: str, names: Iterable[str]) -> bool:
    """Whether ``event`` is among ``names``, by its whole name or its last words: ``log`` is among ``("oak_log",)``."""
    return any(name == event or name.endswith(f"_{event}") for name in names)


@dataclass(frozen=True, eq=False)
class Episode:
    """One recorded episode of ``T`` frames, in the project's conventions (``worldpack_model.geometry``)."""

    frames: NDArray[np.uint8]
    """``(T, H, W, 3) uint8`` RGB."""
    poses: NDArray[np.float64]
    """``(T, 5) float64``: feet x, y, z in blocks, yaw, pitch in degrees."""
    actions: NDArray[np.float32]
    """``(T - 1, 9) float32``: action ``t`` turns frame ``t`` into frame ``t + 1``."""
    task: str
    """``ABA``, ``ABCA``, ``explore``, ``bump``, ``stroll``, or another plain name."""
    site: str
    """Where it was recorded, e.g. ``voxel_000123`` (world and seed)."""
    nav_range: int
    """LoopNav's navigation range in blocks; 0 where the task has none."""
    seed: int
    """World seed."""
    world: str
    """Name of the engine, e.g. ``voxel``."""
    waypoints: NDArray[np.float64]
    """``(g, 3) float64`` feet positions of A, B(, C) in blocks; only A where the task has no goals."""
    phases: tuple[str, ...]
    """``T`` names: the phase of the action that led to each frame (``PHASES``)."""
    turn_index: int | None = None
    """First frame of the way home: the one after the last outbound goal was reached; None where nobody goes home."""
    ticks_per_step: int = TICKS_PER_STEP
    """Game ticks of 50 ms from one frame to the next."""
    blocked: NDArray[np.bool_] | None = None
    """``(T - 1,) bool``: a wall stopped (part of) the walk of action ``t``; None where that was not recorded, as in LoopNav's own data."""
    blocks: NDArray[np.bool_] | None = None
    """``(T, *BOX) bool``: the solid blocks around the body in each frame (``geometry.box_corner``); None where the engine does not tell."""
    events: tuple[tuple[str, ...], ...] | None = None
    """``T`` lists of names: what happens in each frame, by the engine's word; None where that was not recorded."""

    def __post_init__(self) -> None:
        """Checks shapes and types.

        Raises:
            ValueError: if an array or name does not have the form given above.
        """
        n = len(self.frames)
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8 or n == 0:
            raise ValueError(f"frames must be (T >= 1, H, W, 3) uint8, not {self.frames.shape} {self.frames.dtype}.")
        if self.poses.shape != (n, POSE_DIM) or self.poses.dtype != np.float64:
            raise ValueError(f"poses must be ({n}, {POSE_DIM}) float64, not {self.poses.shape} {self.poses.dtype}.")
        if self.actions.shape != (n - 1, ACTION_DIM) or self.actions.dtype != np.float32:
            raise ValueError(f"actions must be ({n - 1}, {ACTION_DIM}) float32, not {self.actions.shape} {self.actions.dtype}.")
        if self.blocked is not None and (self.blocked.shape != (n - 1,) or self.blocked.dtype != np.bool_):
            raise ValueError(f"blocked must be ({n - 1},) bool, not {self.blocked.shape} {self.blocked.dtype}.")
        if self.blocks is not None and (self.blocks.shape != (n, *BOX) or self.blocks.dtype != np.bool_):
            raise ValueError(f"blocks must be {(n, *BOX)} bool, not {self.blocks.shape} {self.blocks.dtype}.")
        if self.events is not None and len(self.events) != n:
            raise ValueError(f"events must hold a list of names for each of the {n} frames, not {len(self.events)}.")
        if self.waypoints.ndim != 2 or self.waypoints.shape[1] != 3 or self.waypoints.dtype != np.float64:
            raise ValueError(f"waypoints must be (g, 3) float64, not {self.waypoints.shape} {self.waypoints.dtype}.")
        if len(self.phases) != n:
            raise ValueError(f"phases must name each of the {n} frames, not {len(self.phases)}.")
        if self.turn_index is not None and not 0 <= self.turn_index < n:
            raise ValueError(f"turn_index {self.turn_index} is not one of the {n} frames.")
        for array in (self.poses, self.actions, self.waypoints):
            if not np.isfinite(array).all():
                raise ValueError("poses, actions and waypoints must be finite.")
        for name in (self.task, self.site):
            if not _SAFE_PART.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a folder; use letters, digits, '_', '-', '+' and '.'.")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)


# ---------------------------------------------------------------------------------------------------------------------------- writing


def write_episode(root: str | os.PathLike[str], episode: Episode, *, stem: str | None = None, codec: str = "FFV1") -> Path:
    """Writes one episode; either both files appear whole, or the episode is not there.

    Args:
        root: folder of the recordings.
        episode: what to write.
        stem: name of the two files without suffix; None takes one made from the episode's poses and actions.
        codec: ``FFV1`` (lossless; the file is read back and compared) or ``MJPG``.

    Returns:
        Path of the JSON file.

    Raises:
        ValueError: if the frames have odd sides (the video formats need even ones) or the codec is unknown.
        EpisodeError: if the video could not be written (for instance a full disk).
    """
    if codec not in ("FFV1", "MJPG"):
        raise ValueError(f"codec must be FFV1 or MJPG, not {codec!r}.")
    if episode.frames.shape[1] % 2 or episode.frames.shape[2] % 2:
        raise ValueError(f"Frames of {episode.frames.shape[1:3]} pixels cannot be stored; both sides must be even.")
    if stem is None:
        stem = hashlib.sha256(episode.poses.tobytes() + episode.actions.tobytes()).hexdigest()[:12]
    elif not _SAFE_PART.fullmatch(stem):
        raise ValueError(f"{stem!r} cannot name a file; use letters, digits, '_', '-', '+' and '.'.")
    folder = Path(root) / episode.task / episode.site / str(episode.nav_range)
    folder.mkdir(parents=True, exist_ok=True)
    video, record = folder / f"{stem}.avi", folder / f"{stem}.json"
    # A leading dot keeps half-written files out of every scan; the pid keeps two writers apart; OpenCV needs the real suffix.
    video_temp, record_temp = folder / f".{stem}.{os.getpid()}.avi", folder / f".{stem}.{os.getpid()}.json"
    try:
        _write_video(video_temp, episode.frames, codec)
        text = _dump_records(_to_records(episode, video_sha256=_sha256(video_temp)))
        with open(record_temp, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        record.unlink(missing_ok=True)  # so that an old record never stands beside a new video
        os.replace(video_temp, video)
        os.replace(record_temp, record)
    finally:
        video_temp.unlink(missing_ok=True)
        record_temp.unlink(missing_ok=True)
    return record


def _write_video(path: Path, frames: NDArray[np.uint8], codec: str) -> None:
    import cv2

    height, width = frames.shape[1:3]
    fourcc = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, 20.0, (width, height))
    if not writer.isOpened():
        raise EpisodeError(f"OpenCV cannot write {codec} video to {path}; check that the folder is writable and opencv-python has FFmpeg.")
    try:
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    # OpenCV reports no write errors (a full disk, a refused frame), so the only proof is to read the file again.
    pairs = itertools.zip_longest(frames, _decoded(path))
    if not all(a is not None and b is not None and a.shape == b.shape and (codec != "FFV1" or np.array_equal(a, b)) for a, b in pairs):
        raise EpisodeError(f"The video written to {path} does not read back as it was; check the free space of the disk.")
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _to_records(episode: Episode, video_sha256: str) -> list[dict[str, Any]]:
    common = {"seed": episode.seed, "location": episode.site, "nvtype": episode.task, "nvrange": episode.nav_range}
    goal_of = {"out": 1, "out2": 2, "back": 0}
    records = []
    for t in range(len(episode)):
        action = episode.actions[t - 1] if t else np.zeros(ACTION_DIM, np.float32)
        entry: dict[str, Any] = {key: bool(held) for key, held in zip(KEYS, action[: len(KEYS)] > 0.5, strict=True)}
        entry["camera"] = camera_to_loopnav(float(action[DPITCH]), float(action[DYAW]))
        index = goal_of.get(episode.phases[t])
        goal = None
        if index is not None and index < len(episode.waypoints):
            goal = dict(zip("xyz", episode.waypoints[index].tolist(), strict=True))
        extra: dict[str, Any] = {**common, "phase": episode.phases[t]}
        if t and episode.blocked is not None:
            extra["blocked"] = bool(episode.blocked[t - 1])
        if episode.blocks is not None:
            extra["blocks"] = np.packbits(episode.blocks[t]).tobytes().hex()
        if episode.events is not None:
            extra["events"] = list(episode.events[t])
        if t == 0:
            extra["world"] = episode.world
            extra["ticks_per_step"] = episode.ticks_per_step
            extra["waypoints"] = episode.waypoints.tolist()
            extra["turn_index"] = episode.turn_index
            extra["video_sha256"] = video_sha256
        records.append({**pose_to_loopnav(episode.poses[t]), "action": entry, "goal": goal, "frame_count": t, "extra_info": extra})
    return records


def _dump_records(records: list[dict[str, Any]]) -> str:
    """One record a line: as easy to read by eye and by line tools as it is by JSON."""
    return "[\n" + ",\n".join(json.dumps(record, separators=(",", ":"), allow_nan=False) for record in records) + "\n]\n"


# ---------------------------------------------------------------------------------------------------------------------------- reading


def read_episode(
    path: str | os.PathLike[str], verify: bool | IndexEntry = True, *, picture: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
) -> Episode:
    """Reads one episode.

    Args:
        path: its ``.json`` or ``.avi`` file, or the two files' common path without suffix.
        verify: True compares the video with the checksum in its own record (ours have one, LoopNav's do not); an index entry compares
            both files with the entry; False compares nothing but the frame counts.
        picture: what becomes of each frame ``(H, W, 3)`` as it is decoded, such as a smaller one; LoopNav's episodes do not fit into memory whole.

    Raises:
        EpisodeMissingError: if one of the two files is not there.
        EpisodeDamagedError: if a checksum or the number of frames is wrong, or the video cannot be decoded.
        EpisodeFormatError: if the JSON does not have the expected form.
    """
    video, record = _pair(Path(path))
    for file, other in ((record, video), (video, record)):
        if not file.is_file():
            raise EpisodeMissingError(f"{file} is missing; restore it, or delete {other.name} and record the episode again.")
    if isinstance(verify, IndexEntry):
        _check_sum(record, verify.json_sha256)
        _check_sum(video, verify.video_sha256)
    records = read_records(record)
    if verify is True:
        expected = records[0]["extra_info"].get("video_sha256")
        if expected is not None:
            _check_sum(video, expected)
    return _from_records(records, _read_video(video, len(records), picture), record)


def _pair(path: Path) -> tuple[Path, Path]:
    base = path.with_suffix("") if path.suffix in (".json", ".avi") else path
    return base.with_name(base.name + ".avi"), base.with_name(base.name + ".json")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sum(path: Path, expected: str) -> None:
    if not path.is_file():
        raise EpisodeMissingError(f"{path} is missing; restore it or record the episode again.")
    if _sha256(path) != expected:
        raise EpisodeDamagedError(f"{path} is not the file that was recorded (checksum differs); restore it or record the episode again.")


def _decoded(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The RGB frames of a video, one after the other (MJPG seeks are not exact)."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield cast("NDArray[np.uint8]", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()


def _read_video(path: Path, count: int, picture: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None) -> NDArray[np.uint8]:
    """Decodes ``(count, H, W, 3) uint8`` RGB frames."""
    frames = [rgb if picture is None else picture(rgb) for rgb in itertools.islice(_decoded(path), count + 1)]
    if len(frames) != count:
        held = f"more than {count}" if len(frames) > count else str(len(frames))
        raise EpisodeDamagedError(f"{path} holds {held} readable frames, its record lists {count}; record the episode again.")
    return np.stack(frames)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of an episode's ``.json`` file, checked one by one.

    Raises:
        EpisodeFormatError: if they are not of LoopNav's form; the first wrong one is named.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EpisodeFormatError(f"{path} is not JSON ({error}); restore it or record the episode again.") from None
    if not isinstance(records, list) or not records:
        raise EpisodeFormatError(f"{path} must hold a list with one record a frame; it is no episode of this layout.")
    for t, record in enumerate(records):
        try:
            action = record["action"]
            good = all(np.isfinite(float(record[name])) for name in ("x", "y", "z", "yaw", "pitch"))
            good = good and len(action["camera"]) == 2 and all(np.isfinite(float(turn)) for turn in action["camera"])
            good = good and all(isinstance(action[key], bool | int) for key in KEYS) and isinstance(record["extra_info"], dict)
        except (KeyError, TypeError, ValueError, OverflowError):
            good = False
        if not good:
            raise EpisodeFormatError(f"Record {t} of {path} is not of LoopNav's form (x, y, z, yaw, pitch, action, extra_info); record it again.")
    return records


def _from_records(records: list[dict[str, Any]], frames: NDArray[np.uint8], path: Path) -> Episode:
    poses = np.stack([loopnav_to_pose(record) for record in records])
    actions = np.zeros((len(records) - 1, ACTION_DIM), np.float32)
    for t, record in enumerate(records[1:]):
        actions[t, : len(KEYS)] = [float(bool(record["action"][key])) for key in KEYS]
        actions[t, DPITCH], actions[t, DYAW] = camera_from_loopnav(record["action"]["camera"])
    extra = records[0]["extra_info"]
    try:
        common: dict[str, Any] = {
            "task": str(extra["nvtype"]),
            "site": str(extra["location"]),
            "nav_range": int(extra["nvrange"]),
            "seed": int(extra["seed"]),
        }
        if "world" in extra:
            walls = [record["extra_info"].get("blocked") for record in records[1:]]
            boxes = [record["extra_info"].get("blocks") for record in records]
            events = [record["extra_info"].get("events") for record in records]
            if not all(wall is None or isinstance(wall, bool) for wall in walls):
                raise ValueError("blocked is neither true nor false")
            if not int(extra["ticks_per_step"]) >= 1:
                raise ValueError(f"ticks_per_step is {extra['ticks_per_step']}, expected at least 1")
            return Episode(
                frames=frames,
                poses=poses,
                actions=actions,
                world=str(extra["world"]),
                waypoints=np.asarray(extra["waypoints"], np.float64).reshape(-1, 3),
                phases=tuple(str(record["extra_info"]["phase"]) for record in records),
                turn_index=None if extra["turn_index"] is None else int(extra["turn_index"]),
                ticks_per_step=int(extra["ticks_per_step"]),
                blocked=None if None in walls else np.array(walls, np.bool_),
                blocks=None if None in boxes else np.stack([_unpack(text) for text in boxes]),
                events=None if None in events else tuple(_names(names) for names in events),
                **common,
            )
        waypoints, phases, turn_index = _legs_of_loopnav([record.get("goal") for record in records], poses)
        return Episode(
            frames=frames,
            poses=poses,
            actions=actions,
            world="minecraft",
            waypoints=waypoints,
            phases=phases,
            turn_index=turn_index,
            ticks_per_step=1,
            **common,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise EpisodeFormatError(f"{path} does not describe a whole episode ({error}); record the episode again.") from None


def _unpack(text: str) -> NDArray[np.bool_]:
    """Blocks ``BOX`` from the packed bits of a record."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    size = int(np.prod(BOX))
    if len(bits) != -(-size // 8) * 8:
        raise ValueError(f"blocks are {len(text)} digits, expected {-(-size // 8) * 2}")
    return bits[:size].astype(np.bool_).reshape(BOX)


def _names(names: Any) -> tuple[str, ...]:
    """The names of events of a record."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"events are {names!r}, expected a list of names")
    return tuple(names)


def _legs_of_loopnav(goals: list[Any], poses: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...], int | None]:
    """Waypoints, phases and turn of an episode that LoopNav recorded, from its goals.

    LoopNav's rule: the way home begins after the last record whose goal is more than 2 blocks from the start in x or z.
    """
    start = poses[0, :3]
    waypoints, turn = [start], None
    phases: list[str] = []
    for t, goal in enumerate(goals):
        if goal is None:
            phases.append(phases[-1] if phases else "look")
            continue
        point = np.array([float(goal[k]) for k in "xyz"] if isinstance(goal, dict) else [float(v) for v in goal])
        if np.abs(point - start)[[0, 2]].max() <= 2.0:
            phases.append("back" if len(waypoints) > 1 else "look")
            continue
        if np.abs(point - waypoints[-1]).max() > 1e-6:
            waypoints.append(point)
        phases.append("out" if len(waypoints) <= 2 else "out2")
        turn = t + 1
    if turn is not None and turn >= len(goals):
        turn = None
    return np.stack(waypoints), tuple(phases), turn


# ---------------------------------------------------------------------------------------------------------------------------- index


def fitted(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of ``frame (H, W, 3)`` at the aspect of ``size`` (height, width), made that small."""
    import cv2

    height, width = frame.shape[:2]
    tall, wide = min(height, width * size[0] // size[1]), min(width, height * size[1] // size[0])
    top, left = (height - tall) // 2, (width - wide) // 2
    middle = np.ascontiguousarray(frame[top : top + tall, left : left + wide])
    small: NDArray[np.uint8] = cv2.resize(middle, (size[1], size[0]), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return small


def in_env_steps(episode: Episode, step: int = TICKS_PER_STEP) -> Episode:
    """An episode with a frame for every env step of ``step`` ticks, whether it was recorded so or tick by tick.

    Raises:
        EpisodeError: if its frames are further apart, or it is not even one step.
    """
    ticks, rest = divmod(step, episode.ticks_per_step)
    if rest or not ticks:
        raise EpisodeError(f"Frames of the episode are {episode.ticks_per_step} ticks apart, which makes no steps of {step}.")
    return episode if ticks == 1 else at_env_steps(episode, ticks)


def at_env_steps(episode: Episode, ticks: int) -> Episode:
    """An episode recorded tick by tick as one of steps of ``ticks`` ticks; a rest of fewer ticks at its end is left out.

    Raises:
        EpisodeError: if it is no longer than one step.
    """
    kept = np.arange(0, len(episode), ticks)
    if len(kept) < 2:
        raise EpisodeError(f"The episode has {len(episode)} records, which is not even one step of {ticks}.")
    poses = episode.poses[kept]
    keys = np.stack([episode.actions[a:b].mean(axis=0) for a, b in itertools.pairwise(kept)])
    actions = (keys >= 0.5).astype(np.float32)
    actions[:, DPITCH], actions[:, DYAW] = np.diff(poses[:, 4]), wrap_degrees(np.diff(poses[:, 3]))
    turn = None if episode.turn_index is None else int(np.searchsorted(kept, episode.turn_index))
    return dataclasses.replace(
        episode,
        frames=episode.frames[kept],
        poses=poses,
        actions=actions,
        phases=tuple(episode.phases[t] for t in kept),
        turn_index=turn if turn is not None and turn < len(kept) else None,
        ticks_per_step=episode.ticks_per_step * ticks,
        blocked=None if episode.blocked is None else np.array([episode.blocked[a:b].any() for a, b in itertools.pairwise(kept)]),
        blocks=None if episode.blocks is None else episode.blocks[kept],
        events=None if episode.events is None else tuple(episode.events[t] for t in kept),
    )


@dataclass(frozen=True)
class IndexEntry:
    """What an index says about one episode."""

    path: str
    """Path of its JSON file relative to the root, with ``/``."""
    frames: int
    height: int
    width: int
    task: str
    site: str
    nav_range: int
    seed: int
    world: str
    turn_index: int | None
    video_bytes: int
    json_bytes: int
    video_sha256: str
    json_sha256: str

    @property
    def stem(self) -> str:
        """Name of the two files without suffix."""
        return PurePosixPath(self.path).stem


def entry_of(root: str | os.PathLike[str], path: str | os.PathLike[str], episode: Episode | None = None) -> IndexEntry:
    """Describes an episode for the index.

    Args:
        root: folder of the recordings.
        path: its JSON file.
        episode: what was just written there; None reads the files in full.

    Raises:
        EpisodeError: if the episode cannot be read; see :func:`read_episode`.
    """
    video, record = _pair(Path(path))
    episode = read_episode(record) if episode is None else episode
    return IndexEntry(
        path=record.relative_to(root).as_posix(),
        frames=len(episode),
        height=episode.frames.shape[1],
        width=episode.frames.shape[2],
        task=episode.task,
        site=episode.site,
        nav_range=episode.nav_range,
        seed=episode.seed,
        world=episode.world,
        turn_index=episode.turn_index,
        video_bytes=video.stat().st_size,
        json_bytes=record.stat().st_size,
        video_sha256=_sha256(video),
        json_sha256=_sha256(record),
    )


def _check_entry(raw: Any, index: Path) -> IndexEntry:
    kinds = {f.name: f.type for f in fields(IndexEntry)}
    form = f"{index} has an entry that is not of this version's form; delete {index.name} and build it again with EpisodeIndex.build."
    if not isinstance(raw, dict) or set(raw) != set(kinds):
        raise EpisodeFormatError(form)
    for name, kind in kinds.items():
        value = raw[name]
        good = isinstance(value, str) if kind == "str" else isinstance(value, int) and not isinstance(value, bool)
        if not good and not (kind == "int | None" and value is None):
            raise EpisodeFormatError(form)
    path = PurePosixPath(raw["path"])
    if path.is_absolute() or ".." in path.parts or "\\" in raw["path"] or path.suffix != ".json" or len(path.parts) != 4:
        raise UnsafePathError(f"{index} points to {raw['path']!r}, which is not <task>/<site>/<range>/<stem>.json inside its folder; rebuild it.")
    return IndexEntry(**raw)


@dataclass(frozen=True)
class EpisodeIndex:
    """The episodes of a folder, with checksums; iterating gives entries, :meth:`read` gives episodes."""

    root: Path
    entries: tuple[IndexEntry, ...]

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> EpisodeIndex:
        """Reads ``index.json`` of a folder; builds it if the folder has episodes but no index.

        Raises:
            EpisodeMissingError: if there are no episodes.
            EpisodeFormatError: if the index is not of this version's form.
            UnsafePathError: if the index points outside its folder.
        """
        path = Path(root) / INDEX_NAME
        if not path.is_file():
            return cls.build(root)
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise EpisodeFormatError(f"{path} is not JSON ({error}); delete it and build it again with EpisodeIndex.build.") from None
        if not isinstance(raw, dict) or raw.get("format") != INDEX_FORMAT or not isinstance(raw.get("episodes"), list):
            raise EpisodeFormatError(f"{path} is not an index of format {INDEX_FORMAT}; delete it and build it again with EpisodeIndex.build.")
        index = cls(Path(root), tuple(_check_entry(entry, path) for entry in raw["episodes"]))
        if not index.entries:
            raise EpisodeMissingError(_NO_EPISODES.format(root=root))
        return index

    @classmethod
    def build(cls, root: str | os.PathLike[str], *, skip_damaged: bool = False) -> EpisodeIndex:
        """Makes and saves the index of the episodes found in a folder.

        Episodes that an earlier index already lists, with the same file sizes, are taken over without being read again
        (:meth:`verify` reads all). Half-written files are no episodes and are ignored.

        Args:
            root: folder of the recordings.
            skip_damaged: leave out (and log) episodes that cannot be read, instead of raising.

        Raises:
            EpisodeMissingError: if there are no episodes.
            EpisodeError: if an episode cannot be read.
        """
        root = Path(root)
        try:
            known = {entry.path: entry for entry in cls.open(root)} if (root / INDEX_NAME).is_file() else {}
        except EpisodeError as error:
            LOGGER.info("Building a new index: %s", error)
            known = {}
        entries = []
        for path in sorted(root.glob("*/*/*/*.json")):
            if path.name.startswith("."):
                continue
            old = known.get(path.relative_to(root).as_posix())
            video = path.with_suffix(".avi")
            if old and video.is_file() and (video.stat().st_size, path.stat().st_size) == (old.video_bytes, old.json_bytes):
                entries.append(old)
                continue
            try:
                entries.append(entry_of(root, path))
            except EpisodeError as error:
                if not skip_damaged:
                    raise
                LOGGER.warning("Left out of the index: %s", error)
        if not entries:
            raise EpisodeMissingError(_NO_EPISODES.format(root=root))
        return cls(root, tuple(entries)).save()

    def save(self) -> EpisodeIndex:
        """Writes ``index.json`` in one move, entries sorted by path; returns the index as written."""
        index = EpisodeIndex(self.root, tuple(sorted(self.entries, key=lambda entry: entry.path)))
        lines = ",\n".join(json.dumps(asdict(entry), separators=(",", ":")) for entry in index.entries)
        write_atomically(self.root / INDEX_NAME, f'{{"format":{INDEX_FORMAT},"episodes":[\n{lines}\n]}}\n')
        return index

    def write_splits(self) -> list[Path]:
        """Writes a CSV file for each split that the folder has loops of, such as ``test.csv``, in one move; returns their paths.

        A row is an episode: its two files from the root on, its frames, and what LoopNav's records say of it.
        """
        written = []
        loops = sorted((entry for entry in self.entries if entry.turn_index is not None), key=lambda entry: entry.path)
        for name, seeds in SPLITS.items():
            rows = [
                (PurePosixPath(e.path).with_suffix(".avi"), e.path, e.frames, e.seed, e.site, e.task, e.nav_range) for e in loops if e.seed in seeds
            ]
            if rows:
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows([SPLIT_COLUMNS, *rows])
                write_atomically(self.root / f"{name}.csv", text.getvalue())
                written.append(self.root / f"{name}.csv")
        return written

    def verify(self) -> None:
        """Reads every episode and compares all checksums.

        Raises:
            EpisodeError: on the first file that is missing, damaged or of the wrong form.
        """
        for entry in self.entries:
            episode = self.read(entry)
            said = (entry.frames, entry.task, entry.site, entry.nav_range, entry.seed, entry.world, entry.turn_index)
            found = (len(episode), episode.task, episode.site, episode.nav_range, episode.seed, episode.world, episode.turn_index)
            if said != found:
                raise EpisodeDamagedError(f"{self.root / INDEX_NAME} says {said} of {entry.path}, which holds {found}; build the index again.")

    def read(
        self, entry: IndexEntry | int, *, verify: bool = True, picture: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    ) -> Episode:
        """Reads one episode, given its entry or its number; ``picture`` is what becomes of each frame.

        Raises:
            EpisodeError: see :func:`read_episode`.
        """
        entry = self.entries[entry] if isinstance(entry, int) else entry
        return read_episode(self.root / entry.path, verify=entry if verify else False, picture=picture)

    def filter(
        self,
        *,
        task: str | tuple[str, ...] | None = None,
        nav_range: int | tuple[int, ...] | None = None,
        seeds: range | None = None,
        split: str | None = None,
        keep: Callable[[IndexEntry], bool] | None = None,
    ) -> EpisodeIndex:
        """The index of those episodes that meet every given condition.

        Args:
            task: name or names of tasks.
            nav_range: range or ranges in blocks.
            seeds: world seeds.
            split: ``train``, ``val`` or ``test``.
            keep: any other condition.

        Raises:
            ValueError: if there is no such split.
        """
        tasks = (task,) if isinstance(task, str) else task
        ranges = (nav_range,) if isinstance(nav_range, int) else nav_range
        if split is not None and split not in SPLITS:
            raise ValueError(f"There is no split named {split!r}; known: {', '.join(SPLITS)}.")

        def wanted(entry: IndexEntry) -> bool:
            return (
                (tasks is None or entry.task in tasks)
                and (ranges is None or entry.nav_range in ranges)
                and (seeds is None or entry.seed in seeds)
                and (split is None or entry.seed in SPLITS[split])
                and (keep is None or keep(entry))
            )

        return EpisodeIndex(self.root, tuple(entry for entry in self.entries if wanted(entry)))

    @property
    def frames(self) -> int:
        """Number of frames of all episodes."""
        return sum(entry.frames for entry in self.entries)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.entries)

    def __iter__(self) -> Iterator[IndexEntry]:
        """Goes over the entries, sorted by path."""
        return iter(self.entries)

    def __getitem__(self, number: int) -> IndexEntry:
        """Entry by number."""
        return self.entries[number]


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file in one move: a reader sees the old or the new file, never a part."""
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temp, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)
