"""The scripted explorers and the recording of many episodes."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import ArrayLike

from tests.worldpack_env.recorder_world import RecorderWorld, make_fake
from worldpack_env import recorder
from worldpack_env.explorers import Style
from worldpack_env.folder_lock import locked
from worldpack_env.recorder import CannotLayTask, RecordConfig, RecordError, record, record_episode
from worldpack_env.worlds import WORLDS, Surface, WorldView
from worldpack_model.episodes import SPLITS, Episode, EpisodeIndex, in_env_steps, read_episode, write_episode
from worldpack_model.evaluation import EvalModelConfig, evaluate_model
from worldpack_model.geometry import BOX, DPITCH, DYAW, KEYS, box_corner, wrap_degrees
from worldpack_model.loopnav import LoopNavConfig, evaluate_loopnav, find_episodes

TASKS = [
    ("ABA", 5),
    ("ABA", 15),
    ("ABA", 30),
    ("ABA", 50),
    ("ABCA", 5),
    ("ABCA", 15),
    ("ABCA", 30),
    ("ABCA", 50),
    ("explore", 0),
    ("bump", 0),
    ("stroll", 0),
]


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def fast(world: Any = None, task: str = "ABA", nav_range: int = 5, seed: int = 0) -> Episode:
    return record_episode(world or RecorderWorld(), seed=seed, task=task, nav_range=nav_range, rng=rng(seed, nav_range), explore_steps=120)


def check(episode: Episode, task: str, nav_range: int) -> None:
    """What holds for every recorded episode."""
    turns = episode.actions[:, DYAW]
    assert np.abs(turns).max() <= 45.0 and np.abs(episode.actions[:, DPITCH]).max() <= 45.0
    assert np.isin(episode.actions[:, : len(KEYS)], (0, 1)).all()
    assert not episode.actions[:, [KEYS.index("sprint"), KEYS.index("sneak")]].any()
    assert np.abs(episode.poses[:, 4]).max() <= 30.0 + 1e-6
    # The camera turn of action t shows in pose t + 1.
    assert np.abs(wrap_degrees(np.diff(episode.poses[:, 3]) - turns)).max() < 1e-3
    a = episode.waypoints[0]
    np.testing.assert_allclose(episode.poses[0, :3], a)
    if task not in ("ABA", "ABCA"):
        assert episode.turn_index is None and set(episode.phases) == {task} and episode.nav_range == 0 and len(episode.waypoints) == 1
        return
    legs = ["look", "out", "back", "close"] if task == "ABA" else ["look", "out", "out2", "back", "close"]
    order = [p for i, p in enumerate(episode.phases) if i == 0 or episode.phases[i - 1] != p]
    assert order == legs and len(episode.waypoints) == len(legs) - 2
    assert episode.turn_index == episode.phases.index("back")
    assert episode.phases.count("look") == 17 and episode.phases.count("close") == 16
    for goal, phase in zip(episode.waypoints[1:], ("out", "out2"), strict=False):
        assert 0.8 * nav_range <= np.abs(goal - a)[[0, 2]].max() <= nav_range and abs(goal[1] - a[1]) <= 10
        arrived = len(episode) - 1 - episode.phases[::-1].index(phase)
        assert np.hypot(*(episode.poses[arrived, :3] - goal)[[0, 2]]) <= 1.0
    last = episode.phases.index("close") - 1
    assert np.hypot(*(episode.poses[last, :3] - a)[[0, 2]]) <= 0.75
    look = episode.actions[:16]
    assert not look[:, : len(KEYS)].any() and (np.abs(look[:, DYAW]) == 22.5).all() and abs(look[:, DYAW].sum()) == 360


@pytest.mark.parametrize(("task", "nav_range"), TASKS)
def test_every_task_in_the_fake_world(task: str, nav_range: int) -> None:
    for seed in range(2):
        check(fast(task=task, nav_range=nav_range, seed=seed), task, nav_range)


@pytest.mark.skipif(importlib.util.find_spec("worldpack_env.worlds.voxel") is None, reason="the voxel world is not there")
@pytest.mark.parametrize(("task", "nav_range"), TASKS)
def test_every_task_in_the_voxel_world(task: str, nav_range: int) -> None:
    from worldpack_env.worlds import make_world

    world = make_world("voxel", frame_size=(16, 16))
    try:
        recorded = 0
        for seed in range(3):
            try:
                episode = fast(world, task, nav_range, seed)
            except CannotLayTask:
                continue
            check(episode, task, nav_range)
            recorded += 1
        assert recorded >= 2
    finally:
        world.close()


def test_action_t_leads_to_frame_t_plus_1_also_on_disk(tmp_path: Path) -> None:
    """The world paints its step number into the picture; the world replays the actions to the same pictures and poses."""
    episode = fast(task="explore", seed=4)
    back = read_episode(write_episode(tmp_path, episode))
    painted = back.frames[:, 0, 0, 0].astype(int) * 256 + back.frames[:, 0, 0, 1]
    np.testing.assert_array_equal(painted, np.arange(len(back)))
    world = RecorderWorld()
    world.reset(4, back.poses[0])
    for t, action in enumerate(back.actions):
        view = world.step(action)
        np.testing.assert_array_equal(view.frame, back.frames[t + 1])
        np.testing.assert_allclose(view.pose, back.poses[t + 1], atol=1e-9)
        assert back.blocked is not None and view.blocked == back.blocked[t]
        assert back.blocks is not None
        np.testing.assert_array_equal(back.blocks[t + 1], world.solid(box_corner(view.pose), BOX))
        assert back.blocks[t + 1].any()
        assert not back.blocks[t + 1].all()


def test_same_chance_same_episode() -> None:
    a, b = fast(task="ABCA", nav_range=15, seed=1), fast(task="ABCA", nav_range=15, seed=1)
    np.testing.assert_array_equal(a.poses, b.poses)
    np.testing.assert_array_equal(a.frames, b.frames)


def test_turning_varies() -> None:
    styles = [Style.draw(rng(i)) for i in range(60)]
    assert {s.stepped for s in styles} == {s.walk_while_turning for s in styles} == {True, False}
    assert {s.direction for s in styles} == {-1, 1} and max(s.max_turn for s in styles) > 40
    stepped = continuous = 0
    for seed in range(12):
        turns = np.abs(fast(task="ABA", nav_range=15, seed=seed).actions[16:-16, DYAW])
        only = set(turns[turns > 0].tolist()) <= {22.5}
        stepped, continuous = stepped + only, continuous + (not only)
    assert stepped >= 2 and continuous >= 2


def test_explore_does_everything() -> None:
    actions = np.concatenate([fast(task="explore", seed=s).actions for s in range(30)])
    for key in ("forward", "back", "left", "right", "jump"):
        assert 0.01 < actions[:, KEYS.index(key)].mean() < 0.95, key
    assert (actions[:, DPITCH] != 0).mean() > 0.005


def blocked_share(task: str, nav_range: int) -> float:
    episodes = [fast(task=task, nav_range=nav_range, seed=s).blocked for s in range(6)]
    return float(np.mean([blocked.mean() for blocked in episodes if blocked is not None]))


def test_bump_bumps() -> None:
    assert blocked_share("bump", 0) > 1.8 * blocked_share("explore", 0)


def test_who_does_not_know_the_ground_runs_into_things_and_tries_both_ways() -> None:
    assert blocked_share("stroll", 0) > 3 * blocked_share("explore", 0)
    episode = fast(task="stroll", nav_range=0, seed=1)
    forward, jump = episode.actions[:, 0] > 0, episode.actions[:, 4] > 0
    assert 0.2 < jump[forward].mean() < 0.7
    assert not jump[~forward].any()


def test_loops_stay_clear_of_walls() -> None:
    assert blocked_share("ABA", 30) < 0.1


class Nowhere(RecorderWorld):
    """A world of one pillar."""

    def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
        view = super().reset(seed, pose)
        self._surface = Surface(self._surface.heights, np.zeros_like(self._surface.walkable), self._surface.origin)
        return view


class Glue(RecorderWorld):
    """A world where nobody moves."""

    def step(self, action: ArrayLike) -> WorldView:
        turn_only = np.array(action, np.float32)
        turn_only[: len(KEYS)] = 0
        return super().step(turn_only)


@pytest.mark.parametrize("world", [Nowhere, Glue])
def test_a_world_without_room_is_told(world: type[RecorderWorld]) -> None:
    with pytest.raises(CannotLayTask, match=r"no place for ABA with range 5.*another seed"):
        fast(world())


def test_wrong_tasks() -> None:
    with pytest.raises(ValueError, match="no scripted task"):
        fast(task="ABBA")
    with pytest.raises(ValueError, match="positive nav_range"):
        fast(nav_range=0)


# ---------------------------------------------------------------------------------------------------------------------------- record()

SMALL = {"ABA-5": 1.0, "explore": 1.0, "bump": 1.0}


def config(out: Path, **changes: Any) -> RecordConfig:
    return replace(RecordConfig(out=out, episodes=6, world="fake", mix=SMALL, frame_size=16, explore_steps=12, workers=1), **changes)


def run(settings: RecordConfig, **options: Any) -> EpisodeIndex:
    return record(settings, factory=options.pop("factory", make_fake), progress=False, **options)


def hashes(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def test_parallel_is_serial_is_interrupted(tmp_path: Path) -> None:
    serial = run(config(tmp_path / "a"))
    serial.verify()
    run(config(tmp_path / "b", workers=2))
    run(config(tmp_path / "c", episodes=2))
    run(config(tmp_path / "c"))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") == hashes(tmp_path / "c")
    assert len(serial) == 6 and {e.seed for e in serial} == set(range(6)) and {e.task for e in serial} <= {"ABA", "explore", "bump"}


def test_the_task_says_nothing_about_the_place(tmp_path: Path) -> None:
    """The draw of the task and the first attempt have generators of their own: with one, every task had a stripe of the world to itself."""
    places: dict[str, list[float]] = {}

    def place(world: object, *, rng: np.random.Generator, task: str, **told: object) -> None:
        places.setdefault(task, []).append(float(rng.random()))
        raise CannotLayTask("only the first number is of interest")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recorder, "record_episode", place)
        patched.setattr(recorder, "_SEEDS_TRIED", 1)
        for number in range(300):
            with pytest.raises(RecordError):
                recorder._record_number(config(tmp_path), number, RecorderWorld())
    assert sum(map(len, places.values())) == 300 and len(places) == 3
    for drawn in places.values():
        assert min(drawn) < 0.1 and max(drawn) > 0.9 and 0.4 < np.mean(drawn) < 0.6


def test_one_recorder_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path, "records"), pytest.raises(RecordError, match="Another process records in"):
        run(config(tmp_path))
    run(config(tmp_path, episodes=1))


def test_splits_and_seeds(tmp_path: Path) -> None:
    index = run(config(tmp_path, split="val", seed=40, episodes=3))
    assert {e.seed for e in index} == {900_040, 900_041, 900_042} and len(index.filter(split="val")) == 3
    other = run(config(tmp_path / "train", seed=40, episodes=3))
    assert {e.json_sha256 for e in other}.isdisjoint(e.json_sha256 for e in index)


def test_resume_records_only_what_is_missing_or_damaged(tmp_path: Path) -> None:
    first = run(config(tmp_path))
    before = hashes(tmp_path)
    (tmp_path / first[0].path).unlink()
    damaged = (tmp_path / first[1].path).with_suffix(".avi")
    damaged.write_bytes(damaged.read_bytes()[:-500])
    (damaged.parent / ".000001.12.avi").write_bytes(b"half")
    kept = tmp_path / first[2].path
    stamp = kept.stat().st_mtime_ns
    run(config(tmp_path)).verify()
    assert hashes(tmp_path) == before and kept.stat().st_mtime_ns == stamp


def test_other_settings_in_the_same_folder(tmp_path: Path) -> None:
    run(config(tmp_path, episodes=1))
    for change in ({"seed": 5}, {"split": "test"}, {"frame_size": 32}, {"mix": {"ABA-5": 1.0}}, {"explore_steps": 9}, {"world": "other"}):
        with pytest.raises(RecordError, match=f"other settings.*{next(iter(change))} is .* record into another folder"):
            run(config(tmp_path, episodes=1, **change))
    run(config(tmp_path, episodes=2, workers=2))
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(RecordError, match=r"recipe\.json is not a recipe"):
        run(config(tmp_path))
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(RecordError, match="holds episodes but no"):
        run(config(tmp_path))


def test_episodes_of_older_scripts_are_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(config(tmp_path, episodes=1))
    path = tmp_path / "recipe.json"
    recipe = json.loads(path.read_text())
    assert "recorder" in recipe["versions"]
    del recipe["versions"]["recorder"]
    path.write_text(json.dumps(recipe))
    with caplog.at_level("WARNING"):
        assert len(run(config(tmp_path, episodes=2))) == 2
    assert "another version of the scripts" in caplog.text
    assert json.loads(path.read_text())["versions"]["recorder"] == f"1+{recorder.SCRIPTS_VERSION}"


def test_recipe_says_how_it_was_made(tmp_path: Path) -> None:
    run(config(tmp_path, episodes=1))
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["config"]["split"] == "train" and recipe["config"]["mix"] == SMALL and recipe["versions"]["numpy"] == np.__version__


def test_a_world_without_room_goes_to_the_next_seed(tmp_path: Path) -> None:
    class Odd(RecorderWorld):
        def reset(self, seed: int, pose: ArrayLike | None = None) -> WorldView:
            view = super().reset(seed, pose)
            if seed % 2 == 0:
                self._surface.walkable[:] = False
            return view

    def factory(name: str, *, frame_size: tuple[int, int]) -> RecorderWorld:
        return Odd(frame_size)

    assert {e.seed for e in run(config(tmp_path, episodes=4), factory=factory)} == {1, 3}


def test_no_world_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_SEEDS_TRIED", 2)
    with pytest.raises(RecordError, match="fits in none of 2 worlds"):
        run(config(tmp_path), factory=lambda name, frame_size: Nowhere(frame_size))
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"episodes": 0}, "episodes"),
        ({"workers": 0}, "workers"),
        ({"frame_size": 15}, "frame_size"),
        ({"split": "dev"}, "split"),
        ({"seed": -1}, "seed"),
        ({"seed": 899_999}, "seed"),
        ({"mix": {}}, "mix"),
        ({"mix": {"ABA-5": -1.0}}, "mix"),
        ({"mix": {"ABBA-5": 1.0}}, "ABBA"),
        ({"mix": {"ABA": 1.0}}, "ABA-RANGE"),
        ({"mix": {"explore-5": 1.0}}, "explore-5"),
    ],
)
def test_settings_out_of_bounds(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(tmp_path, **change)


def test_default_mix_is_recordable(tmp_path: Path) -> None:
    assert set(RecordConfig(out=tmp_path).mix) == {f"{t}-{r}" if r else t for t, r in TASKS}
    assert all(len(SPLITS[s]) >= 50_000 for s in SPLITS)


def children(parent: int) -> list[int]:
    """Processes that ``parent`` started."""
    return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def still_running(processes: list[int]) -> list[int]:
    """Those of ``processes`` that still run."""
    states = {p: Path(f"/proc/{p}/stat") for p in processes}
    return [p for p, file in states.items() if file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_recording_leaves_whole_episodes(tmp_path: Path, sign: signal.Signals) -> None:
    out = tmp_path / "run"
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom tests.worldpack_env.recorder_world import make_fake\n"
        "from worldpack_env.recorder import RecordConfig, record\n"
        f"if __name__ == '__main__':\n    record(RecordConfig(out=Path({str(out)!r}), episodes=3000, world='fake', mix={SMALL},"
        " frame_size=16, explore_steps=12, workers=2), factory=make_fake, progress=False)\n"
    )
    # A shell starts background jobs with SIGINT ignored, which children inherit; Ctrl-C in a terminal is what is meant here.
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(out.glob("*/*/*/0*.json"))) < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.send_signal(sign)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while left := still_running(workers):  # those of a killed parent end by themselves
        assert time.monotonic() < deadline, f"processes {left} outlive their parent"
        time.sleep(0.1)
    listed = len(EpisodeIndex.open(out)) if sign == signal.SIGINT else None
    index = EpisodeIndex.build(out)
    assert len(index) >= 5
    assert listed in (None, len(index)), "what was finished after a Ctrl-C is listed too"
    index.verify()
    done = len(index)
    again = run(RecordConfig(out=out, episodes=done + 1, world="fake", mix=SMALL, frame_size=16, explore_steps=12, workers=1))
    assert len(again) >= done + 1 - 4  # numbers in flight may leave gaps below the last one, which are now filled
    again.verify()


# ---------------------------------------------------------------------------------------------------------------------------- every tick


def test_twenty_frames_a_second_show_every_tick_of_the_same_walk(tmp_path: Path) -> None:
    settings = RecordConfig(out=tmp_path / "steps", episodes=1, mix={"ABA-5": 1.0}, frame_size=(36, 64), workers=1)
    ticks = replace(settings, out=tmp_path / "ticks", fps=20)
    (by_steps, by_ticks) = (next(iter(index.read(entry) for entry in index)) for index in (record(s, progress=False) for s in (settings, ticks)))
    assert (by_steps.ticks_per_step, by_ticks.ticks_per_step) == (4, 1)
    assert len(by_ticks) == 4 * (len(by_steps) - 1) + 1
    again = in_env_steps(by_ticks)
    assert np.array_equal(again.poses, by_steps.poses)
    assert again.actions == pytest.approx(by_steps.actions, abs=1e-4)
    assert again.turn_index == by_steps.turn_index
    assert again.phases == by_steps.phases
    assert again.ticks_per_step == 4
    assert np.array_equal(again.blocked, by_steps.blocked)  # type: ignore[arg-type]
    assert np.array_equal(again.blocks, by_steps.blocks)  # type: ignore[arg-type]
    assert np.abs(again.frames.astype(int) - by_steps.frames.astype(int)).mean() < 3, "compressed twice, alike"
    home = by_ticks.poses[by_ticks.phases.index("close")]
    assert np.linalg.norm(home[[0, 2]] - by_ticks.poses[0][[0, 2]]) < 1, "A to B to A"
    with pytest.raises(RecordError, match="other settings"):
        record(replace(ticks, fps=5), progress=False)
    with pytest.raises(ValueError, match="fps is 10"):
        replace(ticks, fps=10)


def test_worlds_without_single_ticks_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORLDS, "fake", "tests.worldpack_env.recorder_world:RecorderWorld")
    with pytest.raises(ValueError, match="'fake' are 4 ticks; it has no steps of 1"):
        record(config(tmp_path, fps=20), progress=False)


@pytest.mark.parametrize("fps", [20, 5])
def test_loopnavs_protocol_on_own_recordings(tmp_path: Path, fps: Literal[5, 20]) -> None:
    out = tmp_path / "wide"
    record(RecordConfig(out=out, episodes=2, mix={"ABA-5": 1.0}, frame_size=(90, 160), fps=fps, split="test", workers=1), progress=False)
    report = evaluate_loopnav(LoopNavConfig(data=out, split=out / "test.csv", device="cpu"))
    row = report["models"]["voxel-64"]["ABA-5"]
    assert row["episodes"] == 2
    assert row["psnr_revisit"][0] > 12, "the way home was seen on the way out"
    assert report["vertical_fov"] == {"data": 70.0, "models": {"voxel-64": 70.0}}, "ours, not LoopNav's"
    own = evaluate_model(EvalModelConfig(data=out, models=("voxel-64",), nav_range=5, poses="true", device="cpu"))
    assert own["models"][0]["psnr"][0] == pytest.approx(row["psnr"][0], abs=1.5), "the embedded world's tool cuts the same wide frames"


def test_the_loops_of_a_split_are_named_in_its_csv_file(tmp_path: Path) -> None:
    index = run(config(tmp_path / "a", mix={"ABA-5": 1.0, "ABCA-5": 1.0, "explore": 1.0}, episodes=4))
    more = run(config(tmp_path / "a", mix={"ABA-5": 1.0, "ABCA-5": 1.0, "explore": 1.0}, episodes=8))
    loops = [entry for entry in more if entry.task != "explore"]
    assert len(index) < len(more) and 2 <= len(loops) < 8
    assert [path.name for path in (tmp_path / "a").glob("*.csv")] == ["train.csv"]
    with open(tmp_path / "a" / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["record"], int(row["frames"]), row["nvtype"], int(row["nvrange"])) for row in rows] == [
        (entry.path, entry.frames, entry.task, entry.nav_range) for entry in loops
    ]
    assert all((tmp_path / "a" / row["video"]).is_file() for row in rows)
    assert find_episodes(tmp_path / "a", tmp_path / "a" / "train.csv") == [tmp_path / "a" / entry.path for entry in loops]
    run(config(tmp_path / "b", mix={"explore": 1.0}, episodes=1))
    assert not list((tmp_path / "b").glob("*.csv")), "no loop, no split of loops"
