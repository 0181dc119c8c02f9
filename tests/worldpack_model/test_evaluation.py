"""Metrics against known numbers; the protocol's alignment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.worldpack_model.conftest import turning_episode
from worldpack_model.checkpoint import save_model
from worldpack_model.episodes import EpisodeError, EpisodeIndex, write_episode
from worldpack_model.evaluation import EvalModelConfig, Rollout, _scores, evaluate_model, held_out_loops, imagine, revisited, strip
from worldpack_model.world_model import WorldPack


def test_revisited_needs_place_and_direction() -> None:
    poses = np.zeros((6, 5))
    poses[2:, 0] = [10, 0.5, 0.5, 3.0]
    poses[2:, 3] = [0, 10, 90, 0]
    assert revisited(poses, 2).tolist() == [False, True, False, False]
    poses[3, 3] = 370 - 20  # the same direction, a turn later
    assert revisited(poses, 2)[1]


def test_imagined_frame_t_stands_for_recorded_frame_t(model: WorldPack) -> None:
    episodes = [turning_episode(0), turning_episode(1, 20)]
    rollouts = imagine(model, episodes, [12, 5], true_poses=True, steps=10)
    for episode, begin, r in zip(episodes, [12, 5], rollouts, strict=True):
        assert len(r.frames) == len(r.truth) == min(10, len(episode) - begin)
        assert np.array_equal(r.truth[0], episode.frames[begin])
        assert r.poses == pytest.approx(episode.poses[begin : begin + len(r.frames)])
        before = begin + np.arange(len(r.frames))[:, None]
        assert r.retrieved.shape == (len(r.frames), model.config.packing.retrieved)
        assert ((r.retrieved >= -1) & (r.retrieved < before)).all()
        assert (r.retrieved[:, 0] >= 0).any()
    with pytest.raises(ValueError, match="expected 1 .. 19"):
        imagine(model, episodes[1:], [20])


def test_strip_shows_rows_in_order() -> None:
    rows = [np.full((5, 4, 4, 3), v, np.uint8) for v in (10, 20)]
    picture = strip(rows, 3, scale=2)
    assert picture.shape == (16, 24, 3)
    assert picture[0, 0, 0] == 10
    assert picture[-1, -1, 0] == 20


def test_evaluate_model_compares_and_refuses(model: WorldPack, episodes: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path / "a")
    config = EvalModelConfig(
        models=(str(tmp_path / "a"), str(tmp_path / "a")), data=episodes, nav_range=5, out=tmp_path / "r.json", pictures=tmp_path / "p.png"
    )
    report = evaluate_model(config)
    assert report["episodes"] == 4
    assert report["differences"][0]["psnr_revisit_gain"][0] == pytest.approx(0.0)
    steps = [len(turning_episode(i)) - turning_episode(i).turn_index - 1 for i in range(4)]
    for curve in ("psnr_by_step", "detail_by_step", "detail_truth_by_step", "drift_blocks_by_step", "median_drift_blocks_by_step"):
        assert len(report["models"][0][curve]) == max(steps)
    assert (tmp_path / "r.json").is_file()
    assert (tmp_path / "p.png").is_file()
    with pytest.raises(EpisodeError, match="no ABA-30"):
        evaluate_model(EvalModelConfig(models=(str(tmp_path / "a"),), data=episodes, nav_range=30))
    with pytest.raises(EpisodeError, match="worldpack record"):
        evaluate_model(EvalModelConfig())


def test_held_out_is_what_our_own_seeds_say(tmp_path: Path) -> None:
    # a seed of training in any of our worlds is refused; LoopNav's own sites have seeds of their own, in no split
    loop = replace(turning_episode(0, 40), task="ABA", nav_range=15, turn_index=20)
    for site, world, seed, told in (
        ("minecraft_000003", "minecraft", 3, "training split"),
        ("minecraft_950003", "minecraft", 950_003, None),
        ("plains_village_20", "minecraft", 3, None),
        ("plains_village_21", "minecraft", -77, None),
    ):
        folder = tmp_path / site
        write_episode(folder, replace(loop, site=site, world=world, seed=seed))
        EpisodeIndex.build(folder)
        if told is None:
            assert len(held_out_loops(folder, "ABA", 15, 4)) == 1
        else:
            with pytest.raises(EpisodeError, match=told):
                held_out_loops(folder, "ABA", 15, 4)


def test_pose_noise_is_put_on_every_told_pose(model: WorldPack) -> None:
    episodes = [turning_episode(i, 60) for i in range(3)]
    begins = [30, 30, 30]
    clean = imagine(model, episodes, begins, true_poses=True)
    noised = imagine(model, episodes, begins, true_poses=True, pose_noise=(0.5, 4.0))
    off = np.concatenate([b.poses - a.poses for a, b in zip(clean, noised, strict=True)])
    off[:, 3] = (off[:, 3] + 180) % 360 - 180
    assert off[:, 0].std() == pytest.approx(0.5, rel=0.2)
    assert off[:, 2].std() == pytest.approx(0.5, rel=0.2)
    assert off[:, 3].std() == pytest.approx(4.0, rel=0.2)
    assert not off[:, [1, 4]].any()
    assert np.array_equal(clean[0].poses, episodes[0].poses[30:])
    assert all(np.array_equal(a.true_poses, b.true_poses) for a, b in zip(clean, noised, strict=True))
    again = imagine(model, episodes, begins, true_poses=True, pose_noise=(0.5, 4.0))
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(noised, again, strict=True))


def test_drift_counts_height() -> None:
    """A body a block too high has strayed a block."""
    frames, poses = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8), np.zeros((4, 5))
    believed = poses + np.array([0, 1, 0, 3, 0])
    scores = _scores([Rollout(1, frames, frames, frames, believed, poses, np.ones(4, bool), np.full((4, 1), -1))])
    assert scores["final_drift_blocks"][0] == 1.0
    assert scores["median_final_turn_degrees"][0] == 3.0
