"""Callbacks of a training run: checkpoints at segment borders, a progress bar, a curve file, and a clean stop on signals."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.utils import safe_mean, set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from worldpack_agents.checkpoints import write_checkpoint
from worldpack_agents.dqn import drop_buffers, save_buffer

if TYPE_CHECKING:
    from worldpack_agents.curriculum import Teacher

log = logging.getLogger(__name__)


class StopOnSignal:
    """Context in which the first SIGINT or SIGTERM asks for a stop, and a second one interrupts at once."""

    def __init__(self) -> None:
        self.asked: str | None = None
        """Name of the signal that asked, or None."""
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        # signal handlers can only be set in the main thread; elsewhere the caller's own handling stays
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


def segment_seed(seed: int, steps: int) -> int:
    """The seed of everything random between the checkpoint at ``steps`` env steps and the next one."""
    return int(np.random.SeedSequence([seed, steps]).generate_state(1, np.uint32)[0] >> 1)


class SegmentCheckpoints(BaseCallback):
    """Cuts training into segments, with a checkpoint between them.

    A segment begins with new episodes in all slots and with all random streams (environment, policy, minibatches) derived from (seed, env steps so
    far). An uninterrupted run does the same at the same places, so a run that was killed and continued from its last checkpoint ends with the same
    weights, bit by bit on the same machine with the same number of threads. A stop by signal saves at the last update, which is a segment border that
    an uninterrupted run does not have: nothing is lost, but the continued run is a different (equally valid) one.
    """

    def __init__(self, run: Path, *, seed: int, every: int, keep: int, stop: StopOnSignal, more: Callable[[], dict[str, Any]] = dict) -> None:
        """Prepares the callback.

        Args:
            run: the run folder.
            seed: the run's seed.
            every: least number of env steps in a segment.
            keep: how many checkpoints stay.
            stop: asks for a stop.
            more: gives what else belongs into a checkpoint's manifest.
        """
        super().__init__()
        self._run, self._seed, self._every, self._keep, self._stop, self._more = run, seed, every, keep, stop, more
        self._saved: int | None = None
        self._updated = 0
        self.stopped = False
        """True when training ended because a signal asked for it."""

    def begin_segment(self, *, saved: bool) -> None:
        """Starts new episodes with streams derived from the steps so far; ``saved`` tells that this very state is on disk."""
        steps = self.model.num_timesteps
        seed = segment_seed(self._seed, steps)
        set_random_seed(seed, using_cuda=self.model.device.type == "cuda")
        self.model.action_space.seed(seed)  # where DQN's random actions come from
        env = self.model.get_env()
        assert env is not None
        env.seed(seed)
        self.model._last_obs = cast(Any, env.reset())
        self.model._last_episode_starts = np.ones((env.num_envs,), dtype=bool)
        self._segment, self._updated = steps, steps
        if saved:
            self._saved = steps

    def _on_rollout_start(self) -> None:
        self._updated = self.model.num_timesteps
        if self._updated - self._segment >= self._every:
            self.save(self._updated)
            self.begin_segment(saved=True)

    def _on_step(self) -> bool:
        if self._stop.asked is not None:
            self.stopped = True
            return False
        return True

    def _on_training_end(self) -> None:
        # After a stop the half rollout is dropped: the weights are those of the last update.
        self.save(self._updated if self.stopped else self.model.num_timesteps)

    def save(self, steps: int) -> None:
        """Writes a checkpoint of the present weights as of ``steps`` env steps, unless that one is there."""
        if steps == self._saved:
            return
        model = self.model
        recent = [{k: float(v) for k, v in episode.items()} for episode in model.ep_info_buffer or ()]
        about = {"updates": int(getattr(model, "_n_updates", 0)), "episodes": recent, "successes": [bool(s) for s in model.ep_success_buffer or ()]}
        about |= {"ended": int(model._episode_num), **self._more()}
        buffer = getattr(model, "replay_buffer", None)
        if buffer is not None:  # before the checkpoint, so that there is none without its buffer
            save_buffer(buffer, self._run, steps)
        write_checkpoint(self._run, steps, partial(save_policy, model), about, keep=self._keep)
        if buffer is not None:
            drop_buffers(self._run, steps)
        self._saved = steps


def restore_statistics(model: Any, manifest: dict[str, Any]) -> None:
    """Puts step and update counts and the recent episodes of a checkpoint's manifest back into ``model``."""
    model.num_timesteps = int(manifest["steps"])
    model._n_updates = int(manifest.get("updates", 0))
    model._episode_num = int(manifest.get("ended", 0))
    window = model._stats_window_size
    model.ep_info_buffer = deque(manifest.get("episodes", []), maxlen=window)
    model.ep_success_buffer = deque(manifest.get("successes", []), maxlen=window)


class Lessons(BaseCallback):
    """Lets a teacher choose the lessons of new episodes, and tells it how they ended; see ``curriculum``."""

    def __init__(self, teacher: Teacher, names: Sequence[str], parts: Sequence[int], *, total_steps: int) -> None:
        """Prepares the callback.

        Args:
            teacher: chooses.
            names: of the lessons.
            parts: how many starts of the environment's bank belong to each lesson.
            total_steps: env steps of the whole training.
        """
        super().__init__()
        self.teacher, self._names, self._parts, self._total = teacher, tuple(names), np.asarray(parts), total_steps
        self._ends = np.cumsum(self._parts)

    def choose(self, env: VecEnv, steps: int) -> None:
        """Sets the odds of new episodes when ``steps`` env steps of the training are behind."""
        self.odds = self.teacher.odds(min(1.0, steps / self._total))
        env.env_method("set_odds", np.repeat(self.odds / self._parts, self._parts))

    def _on_rollout_start(self) -> None:
        env = self.model.get_env()
        assert env is not None
        self.choose(env, self.model.num_timesteps)
        for name, share in zip(self._names, self.odds, strict=True):
            self.logger.record(f"curriculum/{name}", float(share))

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.teacher.observe(int(np.searchsorted(self._ends, info["start_index"], side="right")), float(info["is_success"]))
        return True


class CurveWriter(KVWriter):
    """Logger output that appends one JSON line for each update to ``curve.jsonl``; a killed run leaves at most its last line torn."""

    KEYS = {"rollout/success_rate": "success", "rollout/ep_rew_mean": "return", "rollout/ep_len_mean": "length", "time/fps": "steps_per_second"}

    def __init__(self, path: Path, *, from_step: int) -> None:
        """Opens ``path`` and drops its lines after ``from_step``, which will be made again."""
        self._path = path
        cut_curve(path, from_step)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Appends a line."""
        line = {"step": step, **{short: float(key_values[key]) for key, short in self.KEYS.items() if key in key_values}}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Nothing is held open."""


def cut_curve(path: Path, step: int) -> None:
    """Drops the lines after ``step`` of a file of JSON lines, which will be made again; makes an empty file where there is none."""
    kept = [line for line in read_curve(path) if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def save_policy(model: Any, path: Path) -> None:
    """Saves an algorithm of Stable-Baselines3, which leaves environment and buffers out itself; the last observations would only bloat the file."""
    model.save(path, exclude=["_last_obs", "_last_original_obs"])


def read_curve(path: Path) -> list[dict[str, float]]:
    """The whole lines of a ``curve.jsonl``; an empty list where there is none."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            log.warning("%s has a torn line, which is left out.", path)
    return lines


class ProgressBar(BaseCallback):
    """A rich progress bar with the recent success rate and return."""

    def __init__(self, total: int, *, title: str = "training") -> None:
        super().__init__()
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · {task.fields[recent]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task(title, total=total, recent="no episode ended yet")

    def _on_training_start(self) -> None:
        self._bar.start()
        self._show()

    def _on_step(self) -> bool:
        self._show()
        return True

    def _on_training_end(self) -> None:
        self.close()

    def _show(self) -> None:
        recent = "no episode ended yet"
        if self.model.ep_info_buffer:
            recent = f"return {safe_mean([episode['r'] for episode in self.model.ep_info_buffer]):.2f}"
            if self.model.ep_success_buffer:
                recent = f"success {100 * safe_mean(self.model.ep_success_buffer):.0f} % · " + recent
        self._bar.update(self._task, completed=self.model.num_timesteps, recent=recent)

    def close(self) -> None:
        """Takes the bar off the screen's cursor; may be called twice."""
        self._bar.stop()
