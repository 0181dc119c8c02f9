"""Small models and episodes shared by the model's tests."""

from pathlib import Path

import numpy as np
import pytest
import torch

from worldpack_model.config import PRESETS
from worldpack_model.episodes import Episode, EpisodeIndex, write_episode
from worldpack_model.geometry import from_local, wrap_degrees
from worldpack_model.world_model import WorldPack


@pytest.fixture
def model() -> WorldPack:
    """An untrained debug model whose output layers are not zero, so that everything matters."""
    torch.manual_seed(0)
    made = WorldPack(PRESETS["debug"]).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return made


def turning_episode(seed: int, length: int = 24) -> Episode:
    """An episode in a picture-book world: a gradient that turns with yaw and shifts with x."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((length - 1, 9), np.float32)
    actions[:, 0] = rng.random(length - 1) < 0.5
    actions[:, 8] = np.where(actions[:, 0] > 0, 0, 22.5)
    poses = np.zeros((length, 5))
    for t in range(length - 1):
        yaw = float(wrap_degrees(poses[t, 3] + actions[t, 8]))
        poses[t + 1, 3] = yaw
        poses[t + 1, :3] = poses[t, :3] + from_local([0, 0, 0.8 * actions[t, 0]], yaw)
    column = np.arange(64)[None, :, None]
    frames = np.stack(
        [np.broadcast_to((column * 2 + p[3] + 10 * p[0] + seed * 40 + np.array([0, 60, 120])) % 256, (64, 64, 3)) for p in poses]
    ).astype(np.uint8)
    return Episode(frames, poses, actions, "ABA", f"voxel_{seed:06d}", 5, 950_000 + seed, "voxel", np.zeros((3, 3)), ("out",) * length, length // 2)


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """A folder of four small episodes."""
    root = tmp_path / "episodes"
    for seed in range(4):
        write_episode(root, turning_episode(seed))
    EpisodeIndex.build(root)
    return root
