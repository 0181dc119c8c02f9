"""Curricula: which task an agent meets next while it learns.

A curriculum is a row of lessons, from the easiest to the one that is wanted, and a teacher that says how often each is drawn. Lessons are starts in
one joined bank (``StartBank.joined``), so a curriculum works in imagination and in the engine alike, and every new episode draws its lesson.

============  =====================================================================================================================================
teacher       odds of the lessons
============  =====================================================================================================================================
``none``      the last lesson alone: no curriculum
``uniform``   all alike
``linear``    a window that moves from the first lesson to the last while the first ``linear_share`` of the training goes by
``gated``     half of them on all unlocked ones alike, half on the newest; the next is unlocked when ``gate`` of its last ``window`` episodes succeed
``progress``  in proportion to how fast success changes, up or down: teacher-student curriculum learning, "window" algorithm (Matiisen et al. 2017,
              arXiv:1707.00183, algorithm 3: the slope of a line through each task's last scores), with ``explore`` of the odds on all alike
============  =====================================================================================================================================

What a teacher knows is in :meth:`Teacher.state` and is saved with every checkpoint.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from worldpack_agents.env_config import EnvConfig
from worldpack_model.config import lookup

if TYPE_CHECKING:
    from worldpack_env.starts import StartBank

Kind = Literal["none", "uniform", "linear", "gated", "progress"]
_LESSON: Final = re.compile(r"(?P<loop>AB|ABA|ABCA)-(?P<reach>[0-9]+)(-(?P<start>spawn|turn(-(?P<distractors>[0-9]+))?))?")
LEAST_SCORES: Final = 4
"""Episodes of a lesson before its slope says anything."""


@dataclass(frozen=True)
class Lesson:
    """One kind of episode."""

    nav_range: int
    """Greatest distance to a goal, in blocks."""
    loop: str
    """``AB``, ``ABA`` or ``ABCA``."""
    start: Literal["spawn", "turn"] = "spawn"
    """``spawn`` walks every leg, ``turn`` the way home only."""
    distractors: int = 0
    """Steps of a detour before a way home that begins at the turn."""

    @property
    def name(self) -> str:
        """Such as ``ABA-15``, ``ABA-15-turn`` or ``ABA-15-turn-24``."""
        start = [] if self.start == "spawn" else [self.start, *([str(self.distractors)] if self.distractors else [])]
        return "-".join([self.loop, str(self.nav_range), *start])


def parse_lesson(text: str) -> Lesson:
    """A lesson from its name.

    Raises:
        ValueError: if it is none; the message says what one looks like.
    """
    found = _LESSON.fullmatch(text)
    if found is None or int(found["reach"]) < 3 or (found["loop"] == "AB" and (found["start"] or "").startswith("turn")):
        raise ValueError(
            f"There is no lesson {text!r}; one is a loop (AB, ABA, ABCA) and a range of at least 3, such as ABA-15, ABA-15-turn, or ABA-15-turn-24 "
            "with a detour of 24 steps."
        )
    return Lesson(
        int(found["reach"]), found["loop"], "turn" if (found["start"] or "").startswith("turn") else "spawn", int(found["distractors"] or 0)
    )


@dataclass(frozen=True)
class CurriculumConfig:
    """Which lessons there are and who chooses among them."""

    teacher: Kind = "none"
    """none: the task itself. uniform, linear, gated, progress: see worldpack_agents.curriculum."""
    lessons: tuple[str, ...] = ()
    """Easiest first, such as AB-5 ABA-5 ABA-15; the task itself is added as the last one if it is not there. Empty takes the ranges 5, 15, 30 and 50
    up to the task's, each with the task's own loop, after AB-5."""
    linear_share: float = 0.6
    """Share of the training after which `linear` has reached the last lesson."""
    gate: float = 0.7
    """Success at which `gated` unlocks the next lesson."""
    window: int = 40
    """Last episodes of a lesson that `gated` and `progress` look at."""
    explore: float = 0.2
    """Share of the odds that `progress` spreads over all lessons."""

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        lookup(TEACHERS, self.teacher, "teacher")
        for name in ("gate", "explore", "linear_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}.")
        if self.window < LEAST_SCORES:
            raise ValueError(f"window must be at least {LEAST_SCORES} episodes, not {self.window}.")
        for text in self.lessons:
            parse_lesson(text)


def lessons_of(config: CurriculumConfig, env: EnvConfig) -> tuple[Lesson, ...]:
    """The lessons of a run, the task itself last.

    Raises:
        ValueError: if the task has no lessons (it must be LoopNav or GoTo), or one has a longer loop than the task.
    """
    if env.task not in ("LoopNav", "GoTo"):
        raise ValueError(f"A curriculum needs a task whose goals are walked to in order, LoopNav or GoTo, not {env.task}; choose teacher none.")
    task = Lesson(env.nav_range, env.loop if env.task == "LoopNav" else "AB", env.start, env.distractors)
    ranges = [reach for reach in (5, 15, 30, 50) if reach < env.nav_range]
    named = [parse_lesson(text) for text in config.lessons] or [
        Lesson(min(5, env.nav_range), "AB"),
        *(Lesson(r, task.loop, task.start, task.distractors) for r in ranges),
    ]
    longer = [lesson.name for lesson in named if len(lesson.loop) > len(task.loop)]
    if longer:
        raise ValueError(f"Lesson {longer[0]} has a longer loop than the task {task.name}; leave it out.")
    return (*dict.fromkeys(lesson for lesson in named if lesson != task), task)


def lesson_bank(lessons: Sequence[Lesson], env: EnvConfig, frame_size: tuple[int, int]) -> StartBank:
    """The starts of all lessons, ``env.num_starts`` each."""
    from worldpack_env.starts import StartBank

    def bank(lesson: Lesson) -> StartBank:
        return StartBank.from_world(
            env.world,
            loop=lesson.loop,
            nav_range=lesson.nav_range,
            mode=lesson.start,
            distractors=lesson.distractors,
            split=env.split,
            size=env.num_starts,
            frame_size=frame_size,
        )

    return StartBank.joined([bank(lesson) for lesson in lessons])


class Teacher(ABC):
    """Says how often each of ``n`` lessons is drawn."""

    def __init__(self, config: CurriculumConfig, count: int) -> None:
        """Makes a teacher of ``count`` lessons."""
        self.config, self.count = config, count

    @abstractmethod
    def odds(self, done: float) -> NDArray[np.float64]:
        """``(n,)`` summing to 1, when ``done`` (0 to 1) of the training is behind."""

    def observe(self, lesson: int, score: float) -> None:  # noqa: B027 - some do not look
        """An episode of ``lesson`` ended with ``score`` (1 success, 0 none)."""

    def state(self) -> dict[str, Any]:
        """What the teacher knows, as JSON data."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027 - some know nothing
        """Puts back what :meth:`state` gave."""


class _Last(Teacher):
    def odds(self, done: float) -> NDArray[np.float64]:
        odds = np.zeros(self.count)
        odds[-1] = 1.0
        return odds


class _Uniform(Teacher):
    def odds(self, done: float) -> NDArray[np.float64]:
        return np.full(self.count, 1 / self.count)


class _Linear(Teacher):
    """A triangle over the lessons, two wide on either side, whose top moves on with the training."""

    def odds(self, done: float) -> NDArray[np.float64]:
        top = min(1.0, done / self.config.linear_share) * (self.count - 1)
        weight: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(np.arange(self.count) - top) / 2)
        weight /= weight.sum()
        return weight


class _Scores(Teacher):
    """A teacher that keeps each lesson's last scores."""

    def __init__(self, config: CurriculumConfig, count: int) -> None:
        super().__init__(config, count)
        self.scores = [deque[float](maxlen=config.window) for _ in range(count)]

    def observe(self, lesson: int, score: float) -> None:
        self.scores[lesson].append(float(score))

    def state(self) -> dict[str, Any]:
        return {"scores": [list(kept) for kept in self.scores]}

    def load(self, state: dict[str, Any]) -> None:
        for kept, values in zip(self.scores, state["scores"], strict=True):
            kept.clear()
            kept.extend(map(float, values))


class _Gated(_Scores):
    def __init__(self, config: CurriculumConfig, count: int) -> None:
        super().__init__(config, count)
        self.unlocked = 1

    def observe(self, lesson: int, score: float) -> None:
        super().observe(lesson, score)
        newest = self.scores[self.unlocked - 1]
        if self.unlocked < self.count and len(newest) == self.config.window and np.mean(newest) >= self.config.gate:
            self.unlocked += 1

    def odds(self, done: float) -> NDArray[np.float64]:
        odds = np.zeros(self.count)
        odds[: self.unlocked] = 0.5 / self.unlocked
        odds[self.unlocked - 1] += 0.5
        return odds

    def state(self) -> dict[str, Any]:
        return super().state() | {"unlocked": self.unlocked}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.unlocked = int(state["unlocked"])


class _Progress(_Scores):
    def odds(self, done: float) -> NDArray[np.float64]:
        slopes = np.array([self._slope(kept) for kept in self.scores])
        unknown = np.isnan(slopes)
        if unknown.any():  # what nobody has tried may be where progress is
            slopes[unknown] = max(np.nanmax(slopes, initial=0.0), 1e-3)
        alike = np.full(self.count, 1 / self.count)
        share = slopes / slopes.sum() if slopes.sum() > 1e-9 else alike
        odds: NDArray[np.float64] = self.config.explore * alike + (1 - self.config.explore) * share
        return odds

    @staticmethod
    def _slope(scores: Sequence[float]) -> float:
        """Absolute change of the score over an episode, of the line through ``scores``; NaN for too few of them."""
        if len(scores) < LEAST_SCORES:
            return np.nan
        x = np.arange(len(scores)) - (len(scores) - 1) / 2
        return abs(float((x * np.asarray(scores)).sum() / (x * x).sum()))


TEACHERS: Final[dict[str, type[Teacher]]] = {"none": _Last, "uniform": _Uniform, "linear": _Linear, "gated": _Gated, "progress": _Progress}
"""Name -> class of every teacher."""


def make_teacher(config: CurriculumConfig, count: int) -> Teacher:
    """The teacher of a config for ``count`` lessons."""
    return lookup(TEACHERS, config.teacher, "teacher")(config, count)
