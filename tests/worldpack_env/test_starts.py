"""Starts cut from recorded loops, in an engine on the fly and from disk."""

from __future__ import annotations

import copy
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worldpack_env.fakes import make_bank, make_start
from tests.worldpack_env.recorder_world import RecorderWorld
from worldpack_env.recorder import RecordConfig, record, record_episode
from worldpack_env.starts import Start, StartBank, start_at, start_from_episode
from worldpack_env.worlds import make_world
from worldpack_env.worlds.paths import cell_of, find_path, goals_in_ring
from worldpack_model.episodes import Episode, split_of, write_episode


def equal(a: Start, b: Start) -> bool:
    """Same content."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("world", "seed", "frames", "poses", "actions", "waypoints", "nav_range", "mode", "goal_frames", "shortest")
    )


@pytest.fixture(scope="module")
def loops() -> dict[str, Episode]:
    """A recorded loop of each kind, in the fake engine."""
    world = RecorderWorld(flat=True)
    return {
        task: record_episode(world, seed=3, task=task, nav_range=8, rng=np.random.default_rng(1))  # type: ignore[arg-type]
        for task in ("ABA", "ABCA")
    }


@pytest.mark.parametrize("loop", ["AB", "ABA", "ABCA"])
def test_spawn_starts_end_with_the_look_around(loops: dict[str, Episode], loop: str) -> None:
    episode = loops["ABCA" if loop == "ABCA" else "ABA"]
    start = start_from_episode(episode, loop=loop)
    assert len(start.frames) == 17  # 16 turns of 22.5 degrees
    np.testing.assert_array_equal(start.frames, episode.frames[:17])
    np.testing.assert_array_equal(start.actions, episode.actions[:16])
    np.testing.assert_allclose(start.poses[-1], start.poses[0], atol=1e-9)
    letters = ["ABC".index(letter) for letter in loop]
    np.testing.assert_array_equal(start.waypoints, episode.waypoints[letters])


@pytest.mark.parametrize("loop", ["ABA", "ABCA"])
def test_turn_starts_stand_at_the_last_outbound_goal(loops: dict[str, Episode], loop: str) -> None:
    episode = loops[loop]
    start = start_from_episode(episode, loop=loop, mode="turn")
    assert len(start.frames) == episode.turn_index
    there = start.waypoints[-2] - start.poses[-1, :3]
    assert np.hypot(there[0], there[2]) <= 1.0
    assert set(episode.phases[: len(start.frames)]) == ({"look", "out"} if loop == "ABA" else {"look", "out", "out2"})


def test_a_detour_before_the_way_home_is_remembered_and_walked_home_from() -> None:
    """As many frames longer, of no waypoint; the agent stands where it ends, and the way home is known to exist."""
    for loop in ("ABA", "ABCA"):
        settings = {"loop": loop, "nav_range": 8, "mode": "turn", "size": 1, "split": "val"}
        plain, bank = StartBank.from_world("voxel", **settings), StartBank.from_world("voxel", distractors=20, **settings)
        without, start = plain[0], bank[0]
        assert start.seed == without.seed
        n = len(without.frames)
        assert len(start.frames) == n + 20
        np.testing.assert_array_equal(start.frames[:n], without.frames)
        np.testing.assert_array_equal(start.waypoints, without.waypoints)
        assert start.goal_frames is not None
        np.testing.assert_array_equal(start.goal_frames[:-1], without.goal_frames[:-1], "pictures of goals are of the legs, not of the detour")
        away = np.hypot(*(start.poses[-1, :3] - start.waypoints[-1])[[0, 2]])
        assert 0.9 * away - 1 <= start.shortest <= 3 * away + 6, "the shortest way is from where the detour ends"
        plain.close()
        bank.close()
    with pytest.raises(ValueError, match="at least 0 and with start='turn', not 4 \\(spawn\\)"):
        StartBank.from_world("voxel", distractors=4)
    with pytest.raises(ValueError, match="not 4 in explore"):
        record_episode(RecorderWorld(flat=True), seed=3, task="explore", nav_range=0, rng=np.random.default_rng(1), distractors=4)  # type: ignore[arg-type]


def test_goal_frames_are_what_was_seen_on_arrival(loops: dict[str, Episode]) -> None:
    episode = loops["ABCA"]
    start = start_from_episode(episode, loop="ABCA")
    assert start.goal_frames is not None
    arrivals = [0, *(max(i for i, phase in enumerate(episode.phases) if phase == leg) for leg in ("out", "out2", "back"))]
    np.testing.assert_array_equal(start.goal_frames, episode.frames[arrivals])
    for waypoint, pose in zip(start.waypoints, episode.poses[arrivals], strict=True):
        assert np.hypot(*(waypoint - pose[:3])[[0, 2]]) <= 1.0


def test_episodes_that_hold_no_such_start(loops: dict[str, Episode]) -> None:
    with pytest.raises(ValueError, match="2 waypoints, too few for the loop ABCA"):
        start_from_episode(loops["ABA"], loop="ABCA")
    with pytest.raises(ValueError, match="way home"):
        start_from_episode(loops["ABA"], loop="AB", mode="turn")
    with pytest.raises(ValueError, match="way home"):
        start_from_episode(replace(loops["ABA"], turn_index=None), loop="ABA", mode="turn")
    # No way home recorded, so no picture of A seen on arrival.
    outward = replace(loops["ABA"], phases=tuple("out" if p != "look" else p for p in loops["ABA"].phases))
    assert start_from_episode(outward, loop="ABA").goal_frames is None


def test_straight_lines_stand_in_for_an_unknown_shortest_way() -> None:
    assert make_start(goals=[(3, 4), (0, 0)]).shortest == pytest.approx(10)
    assert make_start(goals=[(9, 9), (3, 4)], mode="turn").shortest == pytest.approx(5)  # only the way home is left


# ------------------------------------------------------------------------------------------------------------------- from an engine


@pytest.fixture(scope="module")
def voxel() -> StartBank:
    """Three starts of the embedded world."""
    return StartBank.from_world("voxel", loop="ABA", nav_range=8, size=3, split="val", frame_size=(32, 32))


def test_starts_of_a_world_keep_to_the_rules(voxel: StartBank) -> None:
    world = make_world("voxel", frame_size=(32, 32))
    for i in range(len(voxel)):
        start = voxel[i]
        assert split_of(start.seed) == "val"
        assert start.frame_size == (32, 32)
        assert start.nav_range == 8
        view = world.reset(start.seed, start.poses[-1])
        np.testing.assert_array_equal(view.frame, start.frames[-1])
        surface = world.surface()
        home, goal = cell_of(surface, start.waypoints[0]), cell_of(surface, start.waypoints[1])
        assert goal in {tuple(cell) for cell in goals_in_ring(surface, home, 8, max_drop=1).tolist()}
        assert find_path(surface, home, goal, max_drop=1) is not None
        straight = 2 * np.hypot(*(start.waypoints[1] - start.waypoints[0])[[0, 2]])
        assert straight - 1e-6 <= start.shortest <= 2.5 * straight


def test_starts_depend_on_settings_and_number_alone(voxel: StartBank) -> None:
    again = StartBank.from_world("voxel", loop="ABA", nav_range=8, size=2, split="val", frame_size=(32, 32))
    assert equal(again[1], voxel[1])  # asked for first, and of a smaller bank
    assert not equal(again[0], again[1])
    other = StartBank.from_world("voxel", loop="ABA", nav_range=8, size=2, split="val", frame_size=(32, 32), seed=1)
    assert other[1].seed != again[1].seed


def test_a_start_is_made_once(voxel: StartBank) -> None:
    assert voxel[0] is voxel[0]
    rng = np.random.default_rng(0)
    known = {id(voxel[i]) for i in range(3)}
    assert all(id(voxel.sample(rng)) in known for _ in range(5))


def test_banks_travel(voxel: StartBank) -> None:
    assert copy.deepcopy(voxel) is voxel
    voxel.close()
    twin = pickle.loads(pickle.dumps(voxel))
    assert equal(twin[2], voxel[2])
    twin.close()
    twin.close()


def test_saved_banks_come_back_whole(voxel: StartBank, tmp_path: Path) -> None:
    path = voxel.save(tmp_path / "deep" / "bank")
    assert path.name == "bank.npz"
    assert [p.name for p in path.parent.iterdir()] == ["bank.npz"]
    loaded = StartBank.load(path)
    assert len(loaded) == 3
    assert (loaded.loop, loaded.world, loaded.mode, loaded.nav_range, loaded.frame_size) == ("ABA", "voxel", "spawn", 8, (32, 32))
    assert all(equal(loaded[i], voxel[i]) for i in range(3))


def test_a_dot_in_the_name_of_a_file_stays(tmp_path: Path) -> None:
    banks = [StartBank.from_starts([make_start(seed=seed)], loop="AB") for seed in (1, 2)]
    paths = [bank.save(tmp_path / f"starts-v0.{i}") for i, bank in enumerate(banks)]
    assert [path.name for path in paths] == ["starts-v0.0.npz", "starts-v0.1.npz"]
    assert [StartBank.load(path)[0].seed for path in paths] == [1, 2]


def test_a_flipped_byte_is_told(tmp_path: Path) -> None:
    path = StartBank.from_starts([make_start()], loop="AB").save(tmp_path / "bank")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        part = next(one for one in archive.infolist() if one.filename.endswith("frames.npy"))
    at = part.header_offset + 60 + part.compress_size // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(ValueError, match="is no start bank of format"):
        StartBank.load(path)


def test_recordings_of_every_tick_give_the_starts_of_env_steps(tmp_path: Path) -> None:
    for fps in (5, 20):
        record(RecordConfig(out=tmp_path / str(fps), episodes=1, mix={"ABA-5": 1.0}, frame_size=36, workers=1, fps=fps), progress=False)  # type: ignore[arg-type]
    for mode in ("spawn", "turn"):
        steps, ticks = (StartBank.from_episodes(tmp_path / str(fps), loop="ABA", mode=mode)[0] for fps in (5, 20))  # type: ignore[arg-type]
        np.testing.assert_array_equal(steps.frames, ticks.frames)
        np.testing.assert_allclose(steps.poses, ticks.poses, atol=1e-9)


def test_a_bank_without_goal_frames_can_be_saved(tmp_path: Path) -> None:
    start = replace(make_start(), goal_frames=None)
    loaded = StartBank.load(StartBank.from_starts([start], loop="AB").save(tmp_path / "b.npz"))
    assert loaded[0].goal_frames is None


def test_hostile_bank_files_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    np.savez(tmp_path / "pickle.npz", about=np.array([Evil()], dtype=object))
    np.savez(tmp_path / "empty.npz", frames=np.zeros(3))
    np.savez(tmp_path / "future.npz", about=np.array('{"format": 99, "loop": "AB", "starts": []}'))
    np.savez(tmp_path / "extra.npz", about=np.array('{"format": 1, "loop": "AB", "starts": [{"sudo": 1}]}'))
    for path in tmp_path.glob("*.npz"):
        with pytest.raises(ValueError, match="is no start bank of format 1"):
            StartBank.load(path)
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------------------------------------------------------- from disk


def test_starts_from_recordings(loops: dict[str, Episode], tmp_path: Path) -> None:
    for i, episode in enumerate(loops.values()):
        write_episode(tmp_path, episode, stem=f"{i:06d}")
    bank = StartBank.from_episodes(tmp_path, loop="ABA", mode="turn")
    assert (len(bank), bank.world, bank.nav_range, bank.frame_size) == (1, "fake", 8, (16, 16))
    cut = start_from_episode(loops["ABA"], loop="ABA", mode="turn")
    np.testing.assert_array_equal(bank[0].frames, cut.frames)
    np.testing.assert_array_equal(bank[0].goal_frames, cut.goal_frames)
    for name in ("poses", "actions", "waypoints"):  # angles go through LoopNav's radians on disk
        np.testing.assert_allclose(getattr(bank[0], name), getattr(cut, name), atol=1e-5)
    assert len(StartBank.from_episodes(tmp_path, loop="ABCA", nav_range=8, split="train")) == 1
    with pytest.raises(ValueError, match="no episode of ABA for range 30"):
        StartBank.from_episodes(tmp_path, loop="ABA", nav_range=30)
    with pytest.raises(ValueError, match="no loop named 'ABAB'"):
        StartBank.from_episodes(tmp_path, loop="ABAB")


# ------------------------------------------------------------------------------------------------------------------- refusals

GOOD = make_start()
BAD_STARTS = [
    ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, "frames are"),
    ({"frames": GOOD.frames.astype(np.float32)}, "expected .* uint8"),
    ({"poses": np.zeros((2, 5))}, "do not fit 3 frames"),
    ({"poses": np.full((3, 5), np.nan)}, "poses holds a number that is not finite"),
    ({"actions": np.zeros((3, 9), np.float32)}, "do not fit 3 frames"),
    ({"waypoints": np.zeros((1, 3))}, "two or more finite positions"),
    ({"mode": "middle"}, "mode is 'middle'"),
    ({"goal_frames": GOOD.frames[:1]}, "goal_frames are"),
]


@pytest.mark.parametrize(("change", "message"), BAD_STARTS)
def test_bad_starts(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **change)


BAD_BANKS: list[tuple[dict[str, Any], str]] = [
    ({"size": 0}, "at least one start"),
    ({"loop": "ACA"}, "no loop named 'ACA'"),
    ({"mode": "trun"}, "no start mode named 'trun'.*turn"),
    ({"loop": "AB", "mode": "turn"}, "no way home"),
    ({"nav_range": 2}, "at least 3 blocks"),
    ({"split": "tset"}, "no split named 'tset'.*test"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_BANKS)
def test_bad_banks(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StartBank.from_world("voxel", **settings)


def test_lists_that_are_no_bank() -> None:
    with pytest.raises(ValueError, match="no starts"):
        StartBank.from_starts([], loop="AB")
    with pytest.raises(ValueError, match="share one engine"):
        StartBank.from_starts([make_start(), make_start(mode="turn")], loop="AB")
    with pytest.raises(IndexError, match=r"no start 5; the bank has starts 0 \.\. 4"):
        make_bank()[5]
    with pytest.raises(IndexError):
        make_bank()[-1]


def test_a_start_at_a_place_that_is_known() -> None:
    world = make_world("voxel")
    pose = world.reset(6).pose
    start = start_at(world, seed=6, pose=pose, goals=[pose[:3] + np.array([6.0, 0.0, -2.0]), pose[:3]])
    assert start.frames.shape == (1, 64, 64, 3) and start.waypoints.shape == (3, 3) and start.nav_range == 6
    assert start.shortest == pytest.approx(2 * np.hypot(6, 2)) and start.goal_frames is None
    bank = StartBank.from_starts([start], loop="ABA")
    assert bank[0] is start and bank.world == "voxel"
    with pytest.raises(ValueError, match="outside the world"):
        start_at(world, seed=6, pose=[999.0, 20.0, 0.0, 0.0, 0.0], goals=[[0.0, 0.0, 0.0]])


def test_joined_banks_are_one_after_the_other() -> None:
    short, long = make_bank("AB", 2), make_bank("ABA", 3)
    both = StartBank.joined([short, long])
    assert (len(both), both.parts, both.loop, both.mixed, both.nav_range) == (5, (2, 3), "ABA", True, 5)
    assert [both[i] for i in range(5)] == [short[0], short[1], long[0], long[1], long[2]]
    assert not StartBank.joined([long, long]).mixed
    with pytest.raises(ValueError, match="share one engine"):
        StartBank.joined([])
    with pytest.raises(ValueError, match="joined from 2 others"):
        both.save("nowhere")


def test_starts_at_the_spawns_of_worlds() -> None:
    bank, again = (StartBank.from_spawns("voxel", split="val", size=3, frame_size=(40, 40)) for _ in range(2))
    world = make_world("voxel", frame_size=(40, 40))
    for i in range(3):
        view = world.reset(bank[i].seed)
        assert split_of(bank[i].seed) == "val"
        assert np.array_equal(bank[i].poses, view.pose[None]) and np.array_equal(bank[i].frames, view.frame[None])
        assert np.array_equal(again[i].frames, bank[i].frames)
    assert (bank.loop, bank.world, bank.nav_range, bank.frame_size) == ("AB", "voxel", 64, (40, 40))
    assert pickle.loads(pickle.dumps(bank))[1].seed == bank[1].seed
    bank.close()
    bank.close()
    with pytest.raises(ValueError, match="split"):
        StartBank.from_spawns("voxel", split="tests")


def test_what_is_no_file_of_starts_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of starts .*--save-starts"):
        StartBank.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="no start bank of format"):
        StartBank.load(tmp_path / "text.npz")
