"""Recordings in VPT's form become episodes: keys, camera, time, pictures, and what is left out."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from worldpack_agents.cli import main
from worldpack_model.episodes import EpisodeDamagedError, EpisodeError, EpisodeFormatError, EpisodeIndex
from worldpack_model.geometry import DPITCH, DYAW, KEYS
from worldpack_model.vpt import (
    DEGREES_PER_PIXEL,
    ImportConfig,
    action_of,
    camera_error,
    episodes_of,
    import_recordings,
    read_lines,
    seed_of,
    stretches,
)


def line(
    keys: tuple[str, ...] = (), dx: float = 0.0, dy: float = 0.0, gui: bool = False, pose: tuple[float, ...] = (0, 64, 0, 0, 0)
) -> dict[str, Any]:
    return {
        "mouse": {"x": 640.0, "y": 360.0, "dx": dx, "dy": dy, "scaledX": 0.0, "scaledY": 0.0, "dwheel": 0.0, "buttons": [0], "newButtons": []},
        "keyboard": {"keys": [f"key.keyboard.{key}" for key in keys], "newKeys": [], "chars": ""},
        "isGuiOpen": gui,
        "hotbar": 0,
        "tick": 0,
        **dict(zip(("xpos", "ypos", "zpos", "yaw", "pitch"), pose, strict=True)),
    }


def recording(folder: Path, count: int = 200, stem: str = "Player-abc-20220101-101010", **changes: Any) -> Path:
    """Walks to +z and turns right by 10 pixels a tick; frame t has the brightness t at its left, the middle is twice as bright."""
    lines, yaw, z = [], 170.0, 0.0
    for t in range(count):
        lines.append(line(("w", "left.control") if t % 8 < 6 else ("d",), dx=10.0, dy=-2.0 * (t < 40), pose=(0.5, 64.0, z, yaw, -0.3 * min(t, 40))))
        yaw, z = yaw + 10.0 * DEGREES_PER_PIXEL, z + 0.2
    for t, change in changes.get("lines", {}).items():
        lines[t] = {**lines[t], **change}
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(entry) for entry in lines)
    (folder / f"{stem}.jsonl").write_text(text + changes.get("rest", ""))
    writer = cv2.VideoWriter(str(folder / f"{stem}.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (160, 90))
    for t in range(changes.get("frames", count)):
        frame = np.full((90, 160, 3), 10, np.uint8)
        frame[:, 35:125] = 20 + t
        writer.write(frame)
    writer.release()
    return folder / f"{stem}.mp4"


def test_keys_and_camera() -> None:
    assert DEGREES_PER_PIXEL == 0.15
    action = action_of(line(("w", "a", "space", "left.shift", "e", "3"), dx=-100.0, dy=40.0))
    assert {key for key, held in zip(KEYS, action, strict=False) if held} == {"forward", "left", "jump", "sneak"}
    assert action[DYAW] == pytest.approx(-15.0) and action[DPITCH] == pytest.approx(6.0), "right and down are positive, as the mouse's"
    both = action_of(line(("s", "d", "left.control")))
    assert {key for key, held in zip(KEYS, both, strict=False) if held} == {"back", "right", "sprint"}
    for wrong in ({}, {"keyboard": {"keys": []}, "mouse": {"dx": float("nan"), "dy": 0}}):
        with pytest.raises((KeyError, ValueError)):
            action_of(wrong)


def test_an_episode(tmp_path: Path) -> None:
    video = recording(tmp_path)
    (episode,) = list(episodes_of(video, ImportConfig(tmp_path, tmp_path, frame_size=32)))
    assert len(episode) == 50 and episode.ticks_per_step == 4 and episode.frames.shape[1:] == (32, 32, 3)
    assert episode.poses[:3, 3] == pytest.approx([170.0, 176.0, -178.0]), "yaw is wrapped"
    assert episode.poses[1, 2] == pytest.approx(0.8) and (np.diff(episode.poses[:, 2]) > 0.79).all()
    assert episode.actions[:, DYAW] == pytest.approx(6.0), "four ticks of ten pixels of 0.15 degrees"
    assert episode.actions[0, DPITCH] == pytest.approx(-1.2) and episode.actions[30, DPITCH] == pytest.approx(0.0)
    held = episode.actions[:, [KEYS.index("forward"), KEYS.index("right")]]
    assert held[0].tolist() == [1, 0] and held[1].tolist() == [1, 1], "keys held for half of the ticks or more"
    middle = episode.frames[:, 16, 16].mean(axis=-1)
    assert np.abs(middle - (20 + 4 * np.arange(50))).max() < 8, "frame 4 t is step t's"
    assert episode.frames[10, 16, [0, -1]].mean() > 40, "the middle of a wide picture"
    assert (episode.task, episode.world, episode.turn_index) == ("explore", "minerl", None)
    read = read_lines(video.with_suffix(".jsonl"))
    assert camera_error(read, range(len(read.good)), 4) < 1e-3


def test_menus_leaps_and_broken_lines_end_a_stretch(tmp_path: Path) -> None:
    changes = {50: {"isGuiOpen": True}, 51: {"isGuiOpen": True}, 120: {"xpos": 30.5}, 121: {"xpos": 30.5}, 180: {"pitch": "up"}}
    video = recording(tmp_path, lines=changes, rest="\nnot json")
    runs = stretches(read_lines(video.with_suffix(".jsonl")))
    assert runs == [range(50), range(52, 120), range(120, 122), range(122, 180), range(181, 200)]
    episodes = list(episodes_of(video, ImportConfig(tmp_path, tmp_path, frame_size=32, shortest=10)))
    assert [len(episode) for episode in episodes] == [13, 17, 15]
    assert episodes[1].poses[0, 2] == pytest.approx(52 * 0.2)
    assert abs(float(episodes[1].frames[0, 16, 16].mean()) - 72) < 8, "pictures stay with their lines"


def test_long_stretches_are_cut(tmp_path: Path) -> None:
    video = recording(tmp_path)
    parts = list(episodes_of(video, ImportConfig(tmp_path, tmp_path, frame_size=32, shortest=2, longest=20)))
    assert [len(part) for part in parts] == [21, 21, 10]
    assert np.array_equal(parts[0].frames[-1], parts[1].frames[0]) and np.array_equal(parts[0].poses[-1], parts[1].poses[0])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    turned = recording(tmp_path / "turned", lines={t: {"mouse": {"dx": 30.0, "dy": 0.0}} for t in range(200)})
    with pytest.raises(EpisodeFormatError, match="12.0 degrees a step"):
        list(episodes_of(turned, ImportConfig(tmp_path, tmp_path)))
    with pytest.raises(EpisodeDamagedError, match="ends after 100 frames"):
        list(episodes_of(recording(tmp_path / "short", frames=100), ImportConfig(tmp_path, tmp_path)))
    (tmp_path / "poseless.jsonl").write_text(json.dumps({"mouse": {}, "keyboard": {}}))
    with pytest.raises(EpisodeFormatError, match="without poses"):
        read_lines(tmp_path / "poseless.jsonl")
    with pytest.raises(EpisodeError, match="NAME.mp4 beside NAME.jsonl"):
        import_recordings(ImportConfig(tmp_path / "nothing", tmp_path / "out"))
    with pytest.raises(EpisodeError, match="None of the 1"):
        import_recordings(ImportConfig(tmp_path / "short", tmp_path / "out"))
    with pytest.raises(ValueError, match="frame_size"):
        ImportConfig(tmp_path, tmp_path, frame_size=33)
    with pytest.raises(ValueError, match="shortest"):
        ImportConfig(tmp_path, tmp_path, shortest=9, longest=8)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording(tmp_path / "in")
    recording(tmp_path / "in" / "more", stem="Player-abc-20220101-202020")
    recording(tmp_path / "in" / "more", stem="Other-xyz-20220101-202020", frames=3)
    assert main(["record", "--import", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--frame-size", "32"]) == 0
    assert "2 episodes, 100 frames" in capsys.readouterr().out
    index = EpisodeIndex.open(tmp_path / "out")
    index.verify()
    assert len({entry.seed for entry in index}) == 1, "parts of a session are of one world"
    assert seed_of("Player-abc-20220101-101010") == index[0].seed != seed_of("Other-xyz-20220101-202020")
