"""Episodes on disk: exact round trips, alignment, and damage that is seen and named."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldpack_model import episodes as module
from worldpack_model.episodes import (
    SPLITS,
    Episode,
    EpisodeDamagedError,
    EpisodeError,
    EpisodeFormatError,
    EpisodeIndex,
    EpisodeMissingError,
    UnsafePathError,
    entry_of,
    happens,
    read_episode,
    site_of,
    split_of,
    write_episode,
)
from worldpack_model.geometry import BOX, DPITCH, DYAW, wrap_degrees


def make_episode(seed: int = 3, frames: int = 12, task: str = "ABA", nav_range: int = 5, size: tuple[int, int] = (16, 18)) -> Episode:
    """An episode of noise: the hardest thing to store without loss."""
    rng = np.random.default_rng(seed)
    poses = rng.uniform(-100, 100, (frames, 5))
    poses[:, 3] = rng.uniform(-180, 180, frames)
    poses[:, 4] = rng.uniform(-90, 90, frames)
    actions = (rng.random((frames - 1, 9)) < 0.5).astype(np.float32)
    actions[:, DPITCH:] = rng.uniform(-45, 45, (frames - 1, 2))
    actions[0, DYAW], actions[1, DYAW] = 22.5, -22.5
    turn = frames // 2
    return Episode(
        frames=rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8),
        poses=poses,
        actions=actions,
        task=task,
        site=f"voxel_{seed:06d}",
        nav_range=nav_range,
        seed=seed,
        world="voxel",
        waypoints=rng.uniform(-50, 50, (2, 3)),
        phases=("look",) * 3 + ("out",) * (turn - 3) + ("back",) * (frames - turn),
        turn_index=turn,
        blocked=rng.random(frames - 1) < 0.3,
        blocks=rng.random((frames, *BOX)) < 0.5,
        events=tuple(("oak_log", "swims")[: t % 3] for t in range(frames)),
    )


def assert_same(a: Episode, b: Episode) -> None:
    """Everything that matters is equal: pixels and actions to the bit, poses to 1e-9."""
    np.testing.assert_array_equal(a.frames, b.frames)
    np.testing.assert_array_equal(a.actions, b.actions)
    assert a.actions.dtype == b.actions.dtype == np.float32
    np.testing.assert_allclose(a.poses[:, :3], b.poses[:, :3], rtol=0, atol=0)
    assert np.abs(wrap_degrees(a.poses[:, 3:] - b.poses[:, 3:])).max() < 1e-9
    np.testing.assert_array_equal(a.waypoints, b.waypoints)
    assert (a.blocked is None) == (b.blocked is None)
    if a.blocked is not None and b.blocked is not None:
        np.testing.assert_array_equal(a.blocked, b.blocked)
    assert (a.blocks is None) == (b.blocks is None)
    if a.blocks is not None and b.blocks is not None:
        np.testing.assert_array_equal(a.blocks, b.blocks)
    for name in ("task", "site", "nav_range", "seed", "world", "phases", "turn_index", "ticks_per_step", "events"):
        assert getattr(a, name) == getattr(b, name), name


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (36, 64), (16, 18)])
def test_round_trip_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    episode = make_episode(size=size)
    path = write_episode(tmp_path, episode)
    assert path.relative_to(tmp_path).parts[:3] == ("ABA", "voxel_000003", "5")
    for given in (path, path.with_suffix(".avi"), path.with_suffix("")):
        assert_same(read_episode(given), episode)


def test_round_trip_at_the_corners_of_the_angles(tmp_path: Path) -> None:
    poses = np.zeros((6, 5))
    poses[:, 3] = [-180.0, 179.99999999999997, 0.0, 90.0, -90.0, -1e-13]
    poses[:, 4] = [90.0, -90.0, 0.0, -1e-13, 45.0, 1.0]
    episode = replace(make_episode(frames=6), poses=poses)
    assert_same(read_episode(write_episode(tmp_path, episode)), episode)


def test_a_site_can_be_a_folder_whatever_the_world_is_called(tmp_path: Path) -> None:
    assert site_of("voxel", 7) == "voxel_000007"
    assert site_of("minecraft@[::1]:25565", 7) == "minecraft____1__25565_000007"
    episode = replace(make_episode(), world="minecraft@localhost:25565", site=site_of("minecraft@localhost:25565", 7))
    path = write_episode(tmp_path, episode)
    assert path.parts[-3] == "minecraft_localhost_25565_000007"
    assert read_episode(path).world == "minecraft@localhost:25565"


def test_an_episode_of_one_frame_and_without_turn(tmp_path: Path) -> None:
    one = replace(
        make_episode(frames=6),
        frames=np.zeros((1, 16, 16, 3), np.uint8),
        poses=np.zeros((1, 5)),
        actions=np.zeros((0, 9), np.float32),
        phases=("explore",),
        turn_index=None,
        blocked=None,
        blocks=None,
        events=None,
    )
    back = read_episode(write_episode(tmp_path, one))
    assert len(back) == 1 and back.actions.shape == (0, 9) and back.turn_index is None


def test_records_have_loopnavs_form_and_alignment(tmp_path: Path) -> None:
    episode = make_episode()
    records = json.loads(write_episode(tmp_path, episode).read_text())
    assert len(records) == len(episode)
    for t, record in enumerate(records):
        assert set(record) == {"x", "y", "z", "yaw", "pitch", "action", "goal", "frame_count", "extra_info"}
        keys = {"forward", "back", "left", "right", "jump", "sprint", "sneak", "camera"}
        assert set(record["action"]) == keys and record["frame_count"] == t
        assert {"seed", "location", "nvtype", "nvrange"} <= set(record["extra_info"])
    # LoopNav pairs (a_t, s_{t+1}): record t + 1 holds the action that led to it, in mineflayer's radians (counter-clockwise).
    assert not any(v for v in records[0]["action"].values() if v is not False and v != [0.0, 0.0] and v != [-0.0, -0.0])
    assert records[1]["action"]["camera"][0] == pytest.approx(-math.radians(22.5))
    assert records[2]["action"]["camera"][0] == pytest.approx(math.radians(22.5))
    # mineflayer: forward is (-sin yaw, -cos yaw) in (x, z); ours is (-sin, cos).
    for record, pose in zip(records, episode.poses, strict=True):
        ours = np.radians(pose[3])
        np.testing.assert_allclose([-math.sin(record["yaw"]), -math.cos(record["yaw"])], [-math.sin(ours), math.cos(ours)], rtol=0, atol=1e-12)
    assert records[0]["goal"] is None
    assert list(records[4]["goal"].values()) == episode.waypoints[1].tolist()
    assert list(records[-1]["goal"].values()) == episode.waypoints[0].tolist()


def loopnav_records(frames: int = 10) -> list[dict[str, Any]]:
    """Records as LoopNav itself writes them: rounded, a tick each, nothing of ours."""
    action = {"forward": True, **dict.fromkeys(("back", "left", "right", "jump", "sprint", "sneak"), False), "camera": [0.1, 0.0]}
    goals: list[Any] = [None, None] + [{"x": 10, "y": 64, "z": 0}] * 4 + [{"x": 1, "y": 64, "z": 1}] * (frames - 6)
    extra = {"seed": 42, "location": "plains_village_3", "nvtype": "ABA", "nvrange": 5}
    return [
        {
            "x": 0.5,
            "y": 64.0,
            "z": 0.5,
            "yaw": 0.0,
            "pitch": 0.1,
            "action": action,
            "goal": goal,
            "frame_count": 20 + t,
            "extra_info": extra,
        }
        for t, goal in enumerate(goals)
    ]


def test_loopnavs_own_files_are_read(tmp_path: Path) -> None:
    written = replace(make_episode(frames=10, size=(36, 64)), frames=np.full((10, 36, 64, 3), 128, np.uint8))
    path = write_episode(tmp_path, written, codec="MJPG")
    path.write_text(json.dumps(loopnav_records()))
    episode = read_episode(path)
    assert episode.world == "minecraft" and episode.ticks_per_step == 1 and episode.site == "plains_village_3"
    assert episode.turn_index == 6
    assert episode.phases == ("look",) * 2 + ("out",) * 4 + ("back",) * 4
    np.testing.assert_allclose(episode.poses[0], [0.5, 64, 0.5, -180, -math.degrees(0.1)])
    np.testing.assert_allclose(episode.actions[0], [1, 0, 0, 0, 0, 0, 0, 0, -math.degrees(0.1)], atol=1e-6)
    assert episode.waypoints.tolist() == [[0.5, 64, 0.5], [10, 64, 0]]
    assert np.abs(episode.frames.astype(int) - 128).max() <= 4
    assert EpisodeIndex.build(tmp_path)[0].world == "minecraft"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": np.zeros((12, 16, 18, 3), np.float32)}, "uint8"),
        ({"poses": np.zeros((11, 5))}, "poses"),
        ({"poses": np.full((12, 5), np.nan)}, "finite"),
        ({"actions": np.zeros((12, 9), np.float32)}, "actions"),
        ({"waypoints": np.zeros(3)}, "waypoints"),
        ({"phases": ("look",)}, "phases"),
        ({"turn_index": 12}, "turn_index"),
        ({"blocked": np.zeros(12, bool)}, "blocked"),
        ({"blocks": np.zeros((12, 5, 5, 5), bool)}, "blocks"),
        ({"events": ((),) * 11}, "events"),
        ({"site": "../away"}, "folder"),
        ({"task": ""}, "folder"),
    ],
)
def test_an_episode_of_wrong_form_cannot_be_made(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(make_episode(), **change)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_episode(tmp_path, make_episode(size=(15, 16)))
    with pytest.raises(ValueError, match="codec"):
        write_episode(tmp_path, make_episode(), codec="H264")
    with pytest.raises(ValueError, match="name a file"):
        write_episode(tmp_path, make_episode(), stem="../x")


def test_a_video_that_was_not_written_is_seen_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._decoded
    monkeypatch.setattr(module, "_decoded", lambda path: iter(list(real(path))[:-1]))
    with pytest.raises(EpisodeError, match="space of the disk"):
        write_episode(tmp_path, make_episode())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("fails_at", [0, 1])
def test_a_half_written_episode_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    write_episode(tmp_path, make_episode(seed=1), stem="good")
    calls = []
    real = os.replace

    def replace_or_die(a: Any, b: Any) -> None:
        calls.append(b)
        if len(calls) > fails_at:
            raise KeyboardInterrupt
        real(a, b)

    monkeypatch.setattr(os, "replace", replace_or_die)
    with pytest.raises(KeyboardInterrupt):
        write_episode(tmp_path, make_episode(seed=2), stem="bad")
    monkeypatch.undo()
    (tmp_path / "ABA" / "voxel_000001" / "5" / ".other.77.json").write_text("[")
    (tmp_path / "ABA" / "voxel_000001" / "5" / ".other.77.avi").write_bytes(b"RIFF")
    assert [entry.stem for entry in EpisodeIndex.build(tmp_path)] == ["good"]


def flip(path: Path, at: float = 0.5) -> None:
    """Flips a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swapped"])
def test_damaged_video(tmp_path: Path, damage: str) -> None:
    path = write_episode(tmp_path, make_episode(), stem="one")
    index = EpisodeIndex.build(tmp_path)
    video = path.with_suffix(".avi")
    if damage == "flip":
        flip(video)
    elif damage == "cut":
        video.write_bytes(video.read_bytes()[:-2000])
    elif damage == "gone":
        video.unlink()
    else:
        video.write_bytes(write_episode(tmp_path, make_episode(seed=9)).with_suffix(".avi").read_bytes())
    expected = EpisodeMissingError if damage == "gone" else EpisodeDamagedError
    for call in (lambda: read_episode(path), lambda: index.read(0), index.verify):
        with pytest.raises(expected, match=r"one\.avi.*record"):
            call()


def test_a_cut_video_is_seen_without_checksums(tmp_path: Path) -> None:
    path = write_episode(tmp_path, make_episode(frames=40), stem="one")
    video = path.with_suffix(".avi")
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    with pytest.raises(EpisodeDamagedError, match="readable frames"):
        read_episode(path, verify=False)


def test_frame_counts_that_differ(tmp_path: Path) -> None:
    path = write_episode(tmp_path, make_episode(), stem="one")
    records = json.loads(path.read_text())
    path.write_text(json.dumps(records[:-1]))
    with pytest.raises(EpisodeDamagedError, match="more than 11"):
        read_episode(path)
    path.write_text(json.dumps([*records, records[-1]]))
    with pytest.raises(EpisodeDamagedError, match="holds 12 readable frames, its record lists 13"):
        read_episode(path)


def test_a_changed_record_is_seen_by_the_index(tmp_path: Path) -> None:
    path = write_episode(tmp_path, make_episode(), stem="one")
    index = EpisodeIndex.build(tmp_path)
    path.write_text(path.read_text().replace('"frame_count":3', '"frame_count":4'))
    read_episode(path)
    with pytest.raises(EpisodeDamagedError, match=r"one\.json.*checksum"):
        index.verify()
    path.unlink()
    with pytest.raises(EpisodeMissingError, match=r"one\.json"):
        index.verify()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[1]",
        "null",
        "\xff",
        '[{"x": 1}]',
        json.dumps([{**loopnav_records()[0], "x": "far"}]),
        json.dumps([{**loopnav_records()[0], "yaw": None}]),
        json.dumps([{**loopnav_records()[0], "action": {"forward": True}}]),
        json.dumps([{**loopnav_records()[0], "extra_info": 3}]),
        json.dumps([{**loopnav_records()[0], "yaw": float("nan")}]),
        json.dumps([{**r, "extra_info": {}} for r in loopnav_records(12)]),
        json.dumps([{**r, "extra_info": {**r["extra_info"], "world": "voxel"}} for r in loopnav_records(12)]),
        json.dumps([{**r, "goal": "north"} for r in loopnav_records(12)]),
    ],
)
def test_json_of_wrong_form(tmp_path: Path, text: str) -> None:
    path = write_episode(tmp_path, make_episode(frames=12), stem="one")
    path.write_text(text, encoding="latin-1")
    with pytest.raises(EpisodeFormatError, match=r"one\.json"):
        read_episode(path)
    with pytest.raises(EpisodeFormatError, match=r"one\.json"):
        EpisodeIndex.build(tmp_path)
    with pytest.raises(EpisodeMissingError, match="worldpack record --out"):
        EpisodeIndex.build(tmp_path, skip_damaged=True)


def test_an_empty_folder_says_how_to_record(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(EpisodeError, match=f"No episodes in {root}; record some with `worldpack record --out {root}`"):
            EpisodeIndex.open(root)


def test_index_filters_and_reads(tmp_path: Path) -> None:
    write_episode(tmp_path, make_episode(seed=1, task="ABA", nav_range=5))
    write_episode(tmp_path, make_episode(seed=2, task="ABCA", nav_range=15))
    write_episode(tmp_path, make_episode(seed=900_001, task="ABA", nav_range=15))
    index = EpisodeIndex.build(tmp_path)
    assert len(index) == 3 and index.frames == 36 and EpisodeIndex.open(tmp_path) == index
    assert [e.seed for e in index.filter(task="ABA")] == [1, 900_001]
    assert [e.seed for e in index.filter(task=("ABA", "ABCA"), nav_range=15)] == [900_001, 2]
    assert [e.seed for e in index.filter(seeds=range(2, 900_001))] == [2]
    assert [e.seed for e in index.filter(split="val")] == [900_001]
    assert [e.seed for e in index.filter(keep=lambda e: e.seed == 2)] == [2]
    with pytest.raises(ValueError, match="split"):
        index.filter(split="dev")
    assert_same(index.read(index.filter(task="ABCA")[0]), make_episode(seed=2, task="ABCA", nav_range=15))
    index.verify()


def test_building_again_takes_over_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_episode(tmp_path, make_episode(seed=1))
    EpisodeIndex.build(tmp_path)
    new = write_episode(tmp_path, make_episode(seed=2))
    read = []
    real = module.entry_of

    def counting(root: Path, path: Path) -> module.IndexEntry:
        read.append(path)
        return real(root, path)

    monkeypatch.setattr(module, "entry_of", counting)
    assert len(EpisodeIndex.build(tmp_path)) == 2
    assert read == [new]
    assert entry_of(tmp_path, new) in EpisodeIndex.open(tmp_path).entries


@pytest.mark.parametrize(
    "path", ["../../../../etc/passwd.json", "/etc/a/b/c.json", "ABA/../../x.json", "ABA\\..\\5\\x.json", "x.json", "a/b/5/x.avi"]
)
def test_index_that_points_outside(tmp_path: Path, path: str) -> None:
    write_episode(tmp_path, make_episode())
    EpisodeIndex.build(tmp_path)
    file = tmp_path / "index.json"
    raw = json.loads(file.read_text())
    raw["episodes"][0]["path"] = path
    file.write_text(json.dumps(raw))
    with pytest.raises(UnsafePathError, match="inside its folder"):
        EpisodeIndex.open(tmp_path)
    assert len(EpisodeIndex.build(tmp_path)) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"format":0,"episodes":[]}', '{"format":1,"episodes":[{}]}', '{"format":1}'])
def test_index_of_wrong_form(tmp_path: Path, text: str) -> None:
    write_episode(tmp_path, make_episode())
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(EpisodeFormatError, match=r"index\.json.*build it again"):
        EpisodeIndex.open(tmp_path)
    assert len(EpisodeIndex.build(tmp_path)) == 1


def test_index_entry_of_wrong_type(tmp_path: Path) -> None:
    write_episode(tmp_path, make_episode())
    EpisodeIndex.build(tmp_path)
    file = tmp_path / "index.json"
    for name, value in (("frames", "12"), ("seed", True), ("world", 3), ("turn_index", "x"), ("frames", None)):
        raw = json.loads(file.read_text())
        raw["episodes"][0][name] = value
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "index.json").write_text(json.dumps(raw))
        with pytest.raises(EpisodeFormatError):
            EpisodeIndex.open(tmp_path / "bad")


def test_an_index_that_lies_is_seen(tmp_path: Path) -> None:
    write_episode(tmp_path, make_episode())
    index = EpisodeIndex.build(tmp_path)
    with pytest.raises(EpisodeDamagedError, match="build the index again"):
        EpisodeIndex(tmp_path, (replace(index[0], seed=77),)).verify()


def test_splits() -> None:
    for seed, name in ((0, "train"), (899_999, "train"), (900_000, "val"), (949_999, "val"), (950_000, "test"), (999_999, "test")):
        assert split_of(seed) == name and seed in SPLITS[name]
    for seed in (-1, 1_000_000):
        with pytest.raises(ValueError, match="no split"):
            split_of(seed)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("blocks", "ff00", "blocks are 4 digits, expected 38"), ("events", "oak_log", "events are 'oak_log', expected a list of names")],
)
def test_what_a_record_says_in_the_wrong_form_is_named(tmp_path: Path, name: str, value: str, message: str) -> None:
    path = write_episode(tmp_path, make_episode())
    records = json.loads(path.read_text())
    records[4]["extra_info"][name] = value
    path.write_text(json.dumps(records))
    with pytest.raises(EpisodeFormatError, match=message):
        read_episode(path)


def test_an_event_happens_by_its_whole_name_or_its_last_words() -> None:
    assert happens("log", ("stone", "oak_log")) and happens("oak_log", ("oak_log",)) and happens("log", ("log",))
    assert not happens("log", ("backlog", "log_fire", "oak_leaves")) and not happens("log", ())
