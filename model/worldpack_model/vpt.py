"""Recordings of people who play Minecraft, in VPT's form, as episodes: ``NAME.mp4`` and ``NAME.jsonl`` with one line for each frame.

The form is that of OpenAI's Video Pre-Training data (Baker et al. 2022, arXiv:2206.11795), which MineRL's BASALT data and recordings of MineStudio
share. A line is one game tick: ``keyboard.keys`` held (``key.keyboard.w``), ``mouse.dx, dy`` in pixels, of which 2400 are a full turn, ``isGuiOpen``,
and the pose ``xpos ypos zpos yaw pitch`` in MineRL's degrees. Frame ``i`` is what the player saw when doing line ``i``, so the alignment is ours.

* **Time**: every ``ticks_per_step`` lines are one step, by ``episodes.at_env_steps``: keys held for most of them, the camera turned by as much as the
  poses say. The mouse says the same; where it does not, poses and pictures do not belong together and the recording is refused.
* **What is kept**: stretches in which a player walks and looks. An open menu, a leap (death, a portal, a boat) and a line that is no record end one.
* **Pictures**: the middle, cut to the wanted aspect and made smaller.

The world seeds of these recordings are not known. A session's name stands for its world: a number made of it is the seed, and decides the split.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from worldpack_model.episodes import (
    SPLITS,
    Episode,
    EpisodeDamagedError,
    EpisodeError,
    EpisodeFormatError,
    EpisodeIndex,
    at_env_steps,
    fitted,
    write_episode,
)
from worldpack_model.geometry import ACTION_DIM, DPITCH, DYAW, KEYS, TICKS_PER_STEP, check_pose, wrap_degrees

LOGGER = logging.getLogger(__name__)

DEGREES_PER_PIXEL: Final = 360.0 / 2400.0
"""Camera turn of one pixel of the mouse."""
KEY_NAMES: Final = {
    "key.keyboard.w": "forward",
    "key.keyboard.s": "back",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.space": "jump",
    "key.keyboard.left.shift": "sneak",
    "key.keyboard.left.control": "sprint",
}
"""Minecraft's default keys; others (attack, use, the hotbar) do not move the player and are left out."""
LEAP: Final = 3.0
"""Blocks in one tick that no walk, fall or jump covers."""
CAMERA_TOLERANCE: Final = 1.0
"""Degrees by which the mouse and the poses may differ in the median step that turns."""


@dataclass(frozen=True)
class ImportConfig:
    """Makes episodes of recordings in VPT's form (NAME.mp4 + NAME.jsonl)."""

    source: Path
    """Folder of the recordings; its folders are searched as well."""
    out: Path
    """Folder for the episodes."""
    frame_size: int = 64
    """Height and width of the frames in pixels."""
    ticks_per_step: int = TICKS_PER_STEP
    """Game ticks of one step."""
    shortest: int = 16
    """Steps below which a stretch is left out."""
    longest: int = 256
    """Steps after which a stretch is cut into several episodes."""
    world: str = "minerl"
    """Engine that the episodes are said to be of."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        if self.frame_size < 16 or self.frame_size % 2:
            raise ValueError(f"frame_size must be even and at least 16, not {self.frame_size}.")
        if self.ticks_per_step < 1 or not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"ticks_per_step {self.ticks_per_step} must be at least 1, and shortest {self.shortest} from 1 to longest {self.longest}."
            )


@dataclass(frozen=True)
class Ticks:
    """The lines of a recording."""

    poses: NDArray[np.float64]
    """``(T, 5)``."""
    actions: NDArray[np.float32]
    """``(T, 9)`` keys held and degrees that the mouse turned in each tick, which leads to the next line."""
    good: NDArray[np.bool_]
    """``(T,)`` False where the line is no record, or a menu is open."""


def read_lines(path: Path) -> Ticks:
    """Reads a ``.jsonl`` file.

    Raises:
        EpisodeFormatError: if no line is of the form above.
    """
    poses, actions, good = [], [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        pose, action = np.zeros(5), np.zeros(ACTION_DIM, np.float32)
        try:
            told = json.loads(line)
            pose = check_pose([float(told[name]) for name in ("xpos", "ypos", "zpos", "yaw", "pitch")])
            action = action_of(told)
            good.append(not told["isGuiOpen"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            good.append(False)
        poses.append(pose)
        actions.append(action)
    if not any(good):
        raise EpisodeFormatError(
            f"{path} has no line in VPT's form with a pose (keyboard, mouse, isGuiOpen, xpos, ypos, zpos, yaw, pitch); versions without poses "
            f"cannot be imported."
        )
    return Ticks(np.stack(poses), np.stack(actions), np.array(good, np.bool_))


def action_of(told: dict[str, Any]) -> NDArray[np.float32]:
    """The project's action ``(9,)`` of one line: keys held, and the camera turn of its mouse in degrees.

    Raises:
        KeyError, TypeError, ValueError: if it is not of the form above.
    """
    action = np.zeros(ACTION_DIM, np.float32)
    for key in told["keyboard"]["keys"]:
        if key in KEY_NAMES:
            action[KEYS.index(KEY_NAMES[key])] = 1.0
    action[DPITCH] = float(told["mouse"]["dy"]) * DEGREES_PER_PIXEL
    action[DYAW] = float(told["mouse"]["dx"]) * DEGREES_PER_PIXEL
    if not np.isfinite(action).all():
        raise ValueError("a turn that is not finite")
    return action


def stretches(ticks: Ticks) -> list[range]:
    """Runs of lines in which the player walks and looks."""
    moved = np.linalg.norm(np.diff(ticks.poses[:, :3], axis=0), axis=1)
    found, start = [], None
    for t in range(len(ticks.good) + 1):
        ends = t == len(ticks.good) or not ticks.good[t] or (t > 0 and moved[t - 1] > LEAP)
        if ends and start is not None:
            found.append(range(start, t))
            start = None
        if start is None and t < len(ticks.good) and ticks.good[t]:
            start = t
    return found


def camera_error(ticks: Ticks, run: range, steps: int) -> float:
    """Median degrees by which mouse and poses differ, over those of the steps of ``steps`` lines that turn; 0 where none does."""
    kept = np.arange(run.start, run.stop, steps)
    turned = wrap_degrees(np.diff(ticks.poses[kept, 3]))
    mouse = np.array([ticks.actions[a:b, DYAW].sum() for a, b in itertools.pairwise(kept)])
    turns = np.abs(mouse) > 2.0
    return float(np.median(np.abs(wrap_degrees(mouse - turned))[turns])) if turns.any() else 0.0


def seed_of(stem: str) -> int:
    """A number in place of the unknown world seed, the same for all parts of one session (VPT's names are ``player-session-date-time``)."""
    session = "-".join(stem.split("-")[:-2]) or stem
    return int(hashlib.sha256(session.encode()).hexdigest(), 16) % max(seeds.stop for seeds in SPLITS.values())


def episodes_of(video: Path, config: ImportConfig) -> Iterator[Episode]:
    """The episodes of one recording.

    Raises:
        EpisodeFormatError: if its lines are not of VPT's form, or its mouse does not fit its poses.
        EpisodeDamagedError: if the video ends before its lines do.
    """
    ticks = read_lines(video.with_suffix(".jsonl"))
    runs = [run for run in stretches(ticks) if len(run) > config.shortest * config.ticks_per_step]
    errors = [camera_error(ticks, run, config.ticks_per_step) for run in runs]
    if runs and float(np.median(errors)) > CAMERA_TOLERANCE:
        raise EpisodeFormatError(
            f"The mouse of {video.stem} turns by {np.median(errors):.1f} degrees a step other than its poses do (median), so its lines and frames "
            f"do not belong together, or its mouse was set to another speed; leave it out."
        )
    pictures = _Pictures(video, (config.frame_size, config.frame_size))
    # Two folders may hold recordings of one name.
    name = video.relative_to(config.source).with_suffix("").as_posix()
    seed, site = seed_of(video.stem), f"{config.world}_{''.join(letter if letter.isascii() and letter.isalnum() else '_' for letter in name)}"
    for run in runs:
        whole = config.longest * config.ticks_per_step
        for first in range(run.start, run.stop, whole):
            last = min(run.stop, first + whole + 1)  # the next piece begins with this one's last frame
            if last - first > config.shortest * config.ticks_per_step:
                episode = _episode(ticks, first, last, pictures.take(first, last), seed, site, config.world)
                yield at_env_steps(episode, config.ticks_per_step)


class _Pictures:
    """The frames of a video, taken forward only; the last one taken can be taken again."""

    def __init__(self, video: Path, size: tuple[int, int]) -> None:
        self._video, self._frames = video, _frames(video, size)
        self._next, self._last = 0, cast("NDArray[np.uint8] | None", None)

    def take(self, first: int, last: int) -> NDArray[np.uint8]:
        """Frames ``first .. last - 1``.

        Raises:
            EpisodeDamagedError: if there are fewer.
        """
        taken = [self._last] if first == self._next - 1 and self._last is not None else []
        while self._next < last:
            frame = next(self._frames, None)
            if frame is None:
                raise EpisodeDamagedError(f"{self._video} ends after {self._next} frames, before its .jsonl does; leave it out.")
            if self._next >= first:
                taken.append(frame)
            self._next += 1
        self._last = taken[-1]
        return np.stack(taken)


def _episode(ticks: Ticks, first: int, last: int, pictures: NDArray[np.uint8], seed: int, site: str, world: str) -> Episode:
    poses = ticks.poses[first:last]
    return Episode(
        frames=pictures,
        poses=poses,
        actions=ticks.actions[first : last - 1],
        task="explore",
        site=site,
        nav_range=0,
        seed=seed,
        world=world,
        waypoints=poses[:1, :3].copy(),
        phases=("explore",) * len(poses),
        ticks_per_step=1,
    )


def _frames(video: Path, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video one after the other, RGB, cut and made small."""
    import cv2

    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield fitted(cast("NDArray[np.uint8]", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)), size)
    finally:
        capture.release()


def import_recordings(config: ImportConfig, progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> EpisodeIndex:
    """Writes the episodes of all recordings in a folder; one that cannot be read is left out and logged.

    Args:
        config: what and where to.
        progress: told about recordings read.

    Returns:
        Index of all episodes in the folder.

    Raises:
        EpisodeError: if there are no recordings, or none of them gave an episode.
    """
    videos = sorted(video for video in config.source.rglob("*.mp4") if video.with_suffix(".jsonl").is_file())
    if not videos:
        raise EpisodeError(f"{config.source} holds no recordings; expected NAME.mp4 beside NAME.jsonl.")
    written = 0
    for number, video in enumerate(videos):
        try:
            for part, episode in enumerate(list(episodes_of(video, config))):  # whole: of one that is left out nothing is written
                write_episode(config.out, episode, stem=f"{part:03d}")
                written += 1
        except EpisodeError as error:
            LOGGER.warning("Left out: %s", error)
        progress("recordings", number + 1, len(videos))
    if not written:
        raise EpisodeError(f"None of the {len(videos)} recordings in {config.source} gave an episode; the warnings above say why.")
    return EpisodeIndex.build(config.out)
