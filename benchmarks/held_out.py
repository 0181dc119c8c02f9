"""Held-out loops to measure on, recorded anew in the embedded world."""

import tempfile
from pathlib import Path

from worldpack_env.recorder import RecordConfig, record
from worldpack_model.episodes import Episode, EpisodeIndex


def held_out(task: str, count: int) -> list[Episode]:
    """The first ``count`` episodes of ``task`` (such as ABA-15) of the test worlds."""
    with tempfile.TemporaryDirectory() as folder:
        record(RecordConfig(out=Path(folder), episodes=count, split="test", mix={task: 1.0}), progress=False)
        index = EpisodeIndex.open(Path(folder))
        return [index.read(entry) for entry in index]
