"""LoopNav's protocol on files of its exact form: ticks to steps, pictures, splits, alignment, and what is refused."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from worldpack_model.checkpoint import save_model
from worldpack_model.config import PRESETS
from worldpack_model.episodes import EpisodeError, EpisodeFormatError, at_env_steps, fitted, read_episode
from worldpack_model.loopnav import LoopNavConfig, evaluate_loopnav, find_episodes
from worldpack_model.metrics import psnr
from worldpack_model.world_model import WorldPack

WALK = 0.2159
KEYS = ("forward", "back", "left", "right", "jump", "sprint", "sneak")


def record(frame: int, place: list[float], yaw: float, turn: float, walks: bool, goal: list[float] | None, task: str, reach: int) -> dict[str, Any]:
    """One record, rounded as LoopNav rounds; the action is the one that led here."""
    x, y, z = (round(v, 3) for v in place)
    return {
        "x": x, "y": y, "z": z, "yaw": round(yaw, 3), "pitch": 0.0,
        "action": {**dict.fromkeys(KEYS, False), "forward": walks, "camera": [round(turn, 3), 0.0]},
        "goal": None if goal is None else {"x": goal[0], "y": goal[1], "z": goal[2]},
        "frame_count": frame + 20,
        "extra_info": {"seed": 42, "location": "plains_village_20", "nvtype": task, "nvrange": reach},
    }  # fmt: skip


def write(root: Path, stem: str, task: str = "ABA", reach: int = 5, *, evaluation_tree: bool = False, size: tuple[int, int] = (640, 360)) -> Path:
    """An episode: looks around in 40 ticks, walks 5 blocks to -z, turns about, walks home. Each frame shows its own number as its grey level."""
    records, place, yaw = [], [8.5, 64.0, 8.5], 0.0
    for _ in range(40):
        yaw += 2 * math.pi / 40
        records.append(record(len(records), place, yaw, 2 * math.pi / 40, False, None, task, reach))
    goal = [8.5, 64.0, 3.5]
    for _ in range(23):
        place = [place[0], place[1], place[2] - WALK]  # mineflayer's yaw 0 looks to -z
        records.append(record(len(records), place, yaw, 0.0, True, goal, task, reach))
    for _ in range(20):
        yaw += math.pi / 20
        records.append(record(len(records), place, yaw, math.pi / 20, False, [8.5, 64.0, 8.5], task, reach))
    for _ in range(23):
        place = [place[0], place[1], place[2] + WALK]
        records.append(record(len(records), place, yaw, 0.0, True, [8.5, 64.0, 8.5], task, reach))
    folder = root / (f"{task}/{reach}/plains_village_20" if evaluation_tree else f"{task}/plains_village_20/{reach}")
    folder.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(folder / f"{stem}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, size)
    for number in range(len(records)):
        video.write(np.full((size[1], size[0], 3), 2 * number, np.uint8))
    video.release()
    (folder / f"{stem}.json").write_text(json.dumps(records))
    return folder / f"{stem}.json"


def test_ticks_become_steps_with_frames_and_poses_that_belong_together(tmp_path: Path) -> None:
    whole = read_episode(write(tmp_path, "05-01_10-00-00"), picture=lambda frame: fitted(frame, (64, 64)))
    assert whole.frames.shape == (106, 64, 64, 3), "decoded small"
    assert whole.turn_index == 63, "the first record whose goal is the start again, LoopNav's rule"
    steps = at_env_steps(whole, 4)
    assert len(steps) == 27
    assert steps.ticks_per_step == 4
    grey = steps.frames.mean((1, 2, 3))
    assert grey == pytest.approx(2 * np.arange(0, 106, 4), abs=1.5), "MJPG is not exact"
    assert steps.poses == pytest.approx(whole.poses[::4])
    assert steps.turn_index == 16, "frame 64 is the first kept one of the way home"
    assert steps.phases[15] == "out"
    assert steps.phases[16] == "back"
    walking = steps.actions[:, 0] > 0
    moved = np.linalg.norm(np.diff(steps.poses[:, [0, 2]], axis=0), axis=1)
    assert moved[walking].min() > 2 * WALK
    assert moved[~walking].max() < 2.1 * WALK
    # mineflayer turns counter-clockwise, we clockwise; the sum of turns is what the poses say
    assert steps.actions[:9, 8] == pytest.approx(-36.0, abs=0.2)
    turned = np.cumsum(steps.actions[:, 8])
    assert (steps.poses[1:, 3] - steps.poses[0, 3] - turned + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)
    with pytest.raises(EpisodeError, match="not even one step of 200"):
        at_env_steps(whole, 200)


def test_pictures_keep_their_middle() -> None:
    frame = np.zeros((360, 640, 3), np.uint8)
    frame[:, 140:500] = 200  # the middle square
    assert (fitted(frame, (64, 64)) == 200).all()
    frame[:100] = 0
    wide = fitted(frame, (36, 64))
    assert wide.shape == (36, 64, 3)
    assert wide[:9].max() == 0
    assert wide[20, 30, 0] == 200


def test_both_folder_trees_and_csv_splits(tmp_path: Path) -> None:
    first = write(tmp_path / "a", "05-01_10-00-00", size=(64, 36))
    second = write(tmp_path / "a", "05-01_11-00-00", task="ABCA", size=(64, 36))
    write(tmp_path / "b", "05-01_10-00-00", evaluation_tree=True, size=(64, 36))
    assert find_episodes(tmp_path / "a") == [first, second]
    split = tmp_path / "test.csv"
    split.write_text("id,video,frames\n0,ABCA/plains_village_20/5/05-01_11-00-00.avi,106\n1,./ABA/plains_village_20/5/05-01_10-00-00.json,106\n")
    assert find_episodes(tmp_path / "a", split) == [first, second]
    assert find_episodes(tmp_path / "a" / "ABA") == [first]
    with pytest.raises(EpisodeError, match="ABCA/plains_village_20/5/05-01_11-00-00', which is not under"):
        find_episodes(tmp_path / "b", split)
    split.write_text("video\nABA/plains_village_20/5/05-01_10-00-00.avi\n")
    assert len(find_episodes(tmp_path / "b", split)) == 1, "the evaluation's tree has the same folders in another order"
    with pytest.raises(EpisodeError, match="more than once"):
        find_episodes(tmp_path, split)
    split.write_text("frames\n106\n")
    with pytest.raises(EpisodeError, match="names no episodes"):
        find_episodes(tmp_path / "a", split)
    with pytest.raises(EpisodeError, match="no pair of"):
        find_episodes(_empty(tmp_path))
    with pytest.raises(EpisodeError, match="no folder"):
        find_episodes(tmp_path / "nowhere")


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def saved(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_model(WorldPack(PRESETS["debug"]).eval(), tmp_path / "model")
    return str(tmp_path / "model")


def test_the_protocol_generates_the_whole_way_home_and_says_both_alignments(tmp_path: Path, saved: str) -> None:
    write(tmp_path / "data", "05-01_10-00-00")
    write(tmp_path / "data", "05-01_11-00-00")
    config = LoopNavConfig(data=tmp_path / "data", models=(saved,), device="cpu", out=tmp_path / "report.json")
    report = evaluate_loopnav(config)
    assert json.loads((tmp_path / "report.json").read_text())["models"][saved].keys() == {"ABA-5"}
    row = report["models"][saved]["ABA-5"]
    assert row["episodes"] == 2
    assert row["imagined_frames"] == 2 * (27 - 16)
    assert report["vertical_fov"] == {"data": 75.0, "models": {saved: 70.0}}
    # an untrained model shows one grey all along: its PSNR tells which frames it was compared with
    from worldpack_model.evaluation import imagine

    episode = at_env_steps(read_episode(next(tmp_path.rglob("*10-00-00.json")), picture=lambda f: fitted(f, (64, 64))), 4)
    (rollout,) = imagine(WorldPack.from_pretrained(saved, device="cpu"), [episode], [16], true_poses=True)
    assert np.array_equal(rollout.truth, episode.frames[16:])
    aligned, first = psnr(rollout.frames, episode.frames[16:]).mean(), psnr(rollout.frames, episode.frames[:11]).mean()
    assert abs(aligned - first) > 0.5
    one = evaluate_loopnav(dataclasses.replace(config, clips=1, out=None))["models"][saved]["ABA-5"]
    assert one["psnr"][0] == pytest.approx(aligned)
    assert one["first_frames"]["psnr"][0] == pytest.approx(first)


def test_what_is_refused(tmp_path: Path, saved: str) -> None:
    path = write(tmp_path / "data", "05-01_10-00-00", size=(64, 36))
    config = LoopNavConfig(data=tmp_path / "data", models=(saved,), device="cpu")
    with pytest.raises(EpisodeError, match="holds no episodes of ABA-50"):
        evaluate_loopnav(dataclasses.replace(config, tasks=("ABA",), ranges=(50,)))
    with pytest.raises(EpisodeError, match="at desert_village_20"):
        evaluate_loopnav(dataclasses.replace(config, sites=("desert_village_20",)))
    with pytest.raises(ValueError, match="clips is 0"):
        dataclasses.replace(config, clips=0)
    records = json.loads(path.read_text())
    path.write_text(json.dumps([{**r, "goal": None} for r in records]))
    with pytest.raises(EpisodeError, match="never turns home"):
        evaluate_loopnav(config)
    path.write_text(json.dumps([*records[:50], {**records[50], "z": "far"}, *records[51:]]))
    with pytest.raises(EpisodeFormatError, match="Record 50"):
        evaluate_loopnav(config)
