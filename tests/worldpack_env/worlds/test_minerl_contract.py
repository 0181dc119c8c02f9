"""The minerl world against MineRL's own Python half, in its own virtual environments (``make test-minerl`` builds them).

MineRL's real environment class talks over its real socket to our Malmo-protocol server; only Minecraft itself is not there.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldpack_env.reality import Reality
from worldpack_env.starts import StartBank, start_at
from worldpack_env.worlds import BackendUnavailable, make_world, malmo_server
from worldpack_env.worlds.malmo_server import MalmoServer, Mission, Player, Quest
from worldpack_env.worlds.minerl import WORKER, MineRLWorld
from worldpack_env.worlds.minerl_worker import COMMANDS
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_env.worlds.worker_process import WorkerFault, WorkerRefusal
from worldpack_model.geometry import BOX, TICKS_PER_STEP, box_corner

ROOT = Path(__file__).parents[3]
PYTHONS = {"minerl-0.4": ROOT / ".venv-minerl" / "bin" / "python", "minestudio": ROOT / ".venv-minestudio" / "bin" / "python"}
BACKENDS = list(PYTHONS)


def python_of(backend: str) -> str:
    path = Path(os.environ.get(f"WORLDPACK_TEST_{backend.upper().replace('-', '_').replace('.', '_')}_PYTHON", PYTHONS[backend]))
    half_made = path == PYTHONS[backend] and not (path.parents[1] / ".ready").exists()
    if not path.exists() or half_made:
        pytest.skip(f"there is no finished {path}: MineRL's Python half ({backend}) is not installed; `make test-minerl` does that")
    return str(path)


@pytest.fixture(scope="module")
def server() -> Iterator[MalmoServer]:
    with MalmoServer() as made:
        yield made


@pytest.fixture
def minerl(server: MalmoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[MineRLWorld]:
    monkeypatch.setenv("MINESTUDIO_DIR", str(tmp_path))
    size = getattr(request, "param", (64, 64))
    backend = request.node.callspec.params["backend"]
    world = MineRLWorld(size, python=python_of(backend), backend=backend, server=server.port, restarts=0)
    yield world
    world.close()


def probe(backend: str, tmp_path: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("minerl_probe.py")
    environment = {**os.environ, "MINESTUDIO_DIR": str(tmp_path)}
    done = subprocess.run([python_of(backend), script, WORKER, "auto"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout.rpartition("\nJSON")[2])
    return told


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_specification_is_to_minerl(backend: str, tmp_path: Path) -> None:
    told = probe(backend, tmp_path)
    assert told["backend"] == backend, "auto finds what is installed"
    keys = {"forward", "back", "left", "right", "jump", "sneak", "sprint", "camera"}
    assert set(told["actions"]) - {"chat", "voxels"} == keys
    assert all(told["actions"][key] == "Discrete(2)" for key in keys - {"camera"}) and told["camera"] == [-180.0, 180.0]
    assert told["pov"] == [64, 80, 3] and told["pov_type"] == "uint8" and told["observations"] == ["pose", "pov"]
    assert told["lines"][-1] == "camera -3.25 22.5" and {"forward 1", "sprint 1", "jump 0"} <= set(told["lines"])
    assert told["pose"] == [1.5, 64.0, -2.5, 725.0, 10.0] and told["flipped"] and told["empty_picture"] == [True]
    assert "ypos" in told["poseless"], "an untold pose is an error, not a zero"
    for wanted in ("<StartTime>6000</StartTime>", "<AllowPassageOfTime>false", "<Weather>clear", "<AllowSpawning>false", "FullStats"):
        assert wanted in told["xml"]
    assert 'x="0.0000001" y="64.0" z="-12.3456789012345" yaw="-179.5" pitch="0.3333333333333333"' in told["xml"]
    assert '<min x="-5" y="60" z="7"/>' in told["xml"] and '<max x="4" y="63" z="8"/>' in told["xml"] and told["blocks"] == ["stone"]
    assert "Placement" not in told["spawn_xml"] and "Grid" not in told["spawn_xml"]
    assert told["schema"] == [], "valid by the schema that Malmo's Java code comes with"
    if backend == "minerl-0.4":
        assert told["navigate"]["pov"] == [64, 64, 3] and "-180" in told["navigate"]["compass"]
        assert -180.0 <= told["navigate"]["angle"] <= 180.0


@pytest.mark.parametrize("minerl", [(64, 64), (90, 160)], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
def test_poses_and_frames_are_the_embedded_worlds(minerl: MineRLWorld, backend: str) -> None:
    direct = VoxelWorld(minerl.frame_size, ticks_per_step=1)
    start = [*direct.reset(7).pose[:3], 179.0, -12.5]

    def settle() -> None:
        # The commands that fix the time and the weather are chat messages of one tick each.
        for _ in COMMANDS if backend == "minestudio" else ():
            direct.step(np.zeros(9))

    rng = np.random.default_rng(5)
    for pose in (None, start):
        seen, truth = minerl.reset(7, pose), direct.reset(7, pose)
        settle()
        assert np.array_equal(seen.pose, truth.pose) and np.array_equal(seen.frame, truth.frame)
        for _ in range(60):
            action = np.zeros(9, np.float32)
            action[:7], action[7:] = rng.random(7) < (0.7, 0.1, 0.15, 0.15, 0.3, 0.1, 0.3), rng.uniform(-40, 40, 2)
            seen, blocked = minerl.step(action), False
            for tick in range(TICKS_PER_STEP):
                truth = direct.step(action if tick == 0 else np.append(action[:7], [0.0, 0.0]))
                blocked |= truth.blocked
            assert seen.pose == pytest.approx(truth.pose, abs=1e-9)
            assert np.array_equal(seen.frame, truth.frame)
            assert seen.blocked == blocked
    assert minerl.about["backend"] == backend


def test_a_batch_is_stepped_at_the_same_time_and_each_engine_stays_itself(server: MalmoServer) -> None:
    python = python_of("minerl-0.4")
    batch = Reality("minerl", 2, factory=lambda name, *, frame_size: MineRLWorld(frame_size, python=python, backend="minerl-0.4", server=server.port))
    alone = [VoxelWorld(), VoxelWorld()]
    try:
        spawns = [direct.reset(seed).pose for seed, direct in zip((7, 8), alone, strict=True)]
        starts = [start_at(direct, seed=seed, pose=spawn, goals=spawn[:3]) for seed, spawn, direct in zip((7, 8), spawns, alone, strict=True)]
        views = batch.start([0, 1], [replace(start, world="minerl") for start in starts], [0, 0])
        rng = np.random.default_rng(6)
        for _ in range(20):
            actions = np.zeros((2, 9), np.float32)
            actions[:, 0], actions[:, 4], actions[:, 8] = 1, rng.random(2) < 0.3, rng.uniform(-40, 40, 2)
            views = batch.step([0, 1], actions)
            truth = [direct.step(action) for direct, action in zip(alone, actions, strict=True)]
            np.testing.assert_allclose(views.poses, [view.pose for view in truth], atol=1e-9)
            np.testing.assert_array_equal(views.frames, [view.frame for view in truth])
    finally:
        batch.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_survey(minerl: MineRLWorld, backend: str) -> None:
    direct = make_world("voxel")
    view = direct.reset(9)
    minerl.reset(9)
    surveyed, truth = minerl.surface(), direct.surface()
    assert surveyed.origin == (-96, -96)
    inside = (slice(32, 224), slice(32, 224))  # the embedded world is 256 wide
    both = surveyed.walkable & truth.walkable[inside]
    assert both.sum() > 0.97 * truth.walkable[inside].sum()
    # What differs is under a roof: the embedded world tells the floor, a survey the roof.
    assert (surveyed.heights == truth.heights[inside])[both].mean() > 0.97
    for _ in range(4):
        view = direct.step(np.array([1, 0, 0, 0, 1, 0, 0, 0, 0]))
        box = minerl.solid(box_corner(view.pose), BOX)
        assert box is not None and np.array_equal(box, direct.solid(box_corner(view.pose), BOX))


@pytest.mark.parametrize("backend", ["minestudio"])
def test_starts_can_be_given_where_nothing_is_planned(minerl: MineRLWorld, backend: str) -> None:
    pose = make_world("voxel").reset(9).pose
    bank = StartBank.from_starts([start_at(minerl, seed=9, pose=pose, goals=[pose[:3] + np.array([4.0, 0.0, 3.0])])], loop="AB")
    assert bank.world == "minerl" and bank[0].waypoints.shape == (2, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lost_engine_is_an_error_and_no_random_observation(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINESTUDIO_DIR", str(tmp_path))
    with MalmoServer() as server:
        world = MineRLWorld(python=python_of(backend), backend=backend, server=server.port, restarts=0)
        world.reset(1)
        world.step(np.zeros(9))
    with pytest.raises(WorkerFault, match="Connection timed out"):
        world.step(np.zeros(9))
    with pytest.raises(BackendUnavailable):
        world.reset(1)
    world.close()


@pytest.mark.parametrize("backend", ["minerl-0.4"])
def test_a_place_that_is_not_free_is_an_error(minerl: MineRLWorld, backend: str) -> None:
    pose = make_world("voxel").reset(1).pose
    pose[1] -= 1.0
    with pytest.raises(WorkerFault, match="'reset'"):
        minerl.reset(1, pose)


@pytest.mark.parametrize("backend", ["minerl-0.4"])
def test_the_wrong_backend_says_what_is_there(backend: str) -> None:
    world = MineRLWorld(python=python_of(backend), backend="minestudio", server=9)
    with pytest.raises(WorkerRefusal, match="has no minestudio"):
        world.reset(0)
    world = MineRLWorld(python=python_of(backend), backend="minerl", server=9)
    with pytest.raises(WorkerRefusal, match=r"0\.4\.4 is installed"):
        world.reset(0)


@pytest.mark.parametrize("backend", ["minerl-0.4"])
def test_the_environment_and_a_bank_of_starts(minerl: MineRLWorld, backend: str, server: MalmoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium as gym

    import worldpack_env  # noqa: F401 - registers the ids

    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", python_of(backend))
    monkeypatch.setenv("WORLDPACK_MINERL_BACKEND", backend)
    monkeypatch.setenv("WORLDPACK_MINERL_SERVER", str(server.port))
    env = gym.make("WorldPack/LoopNavReal-v0", world="minerl", nav_range=5, num_starts=2, split="test")
    observation, info = env.reset(seed=3, options={"start_index": 1})
    assert observation["image"].shape == (64, 64, 3) and info["pose"].shape == (5,)
    for _ in range(6):
        observation, _, terminated, truncated, info = env.step(3)
        assert not terminated and not truncated
    assert -180.0 <= float(observation["compass"][0]) <= 180.0
    env.close()


@pytest.mark.parametrize("backend", ["minerl-0.4"])
def test_compare_end_to_end(backend: str, server: MalmoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldpack_agents.cli import main

    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", python_of(backend))
    monkeypatch.setenv("WORLDPACK_MINERL_BACKEND", backend)
    monkeypatch.setenv("WORLDPACK_MINERL_SERVER", str(server.port))
    size = ["--episodes", "2", "--num-envs", "2", "--replays", "1", "--videos", "1", "--nav-range", "5", "--max-episode-steps", "8"]
    assert main(["compare", "--world", "minerl", *size, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["env"]["world"] == "minerl" and report["agents"][0]["real"]["steps"]["mean"] <= 8
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("backend", ["minerl-0.4"])
@pytest.mark.parametrize("dense", [False, True])
def test_minerls_own_navigate(backend: str, dense: bool, server: MalmoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium as gym

    import worldpack_env  # noqa: F401 - registers the ids

    monkeypatch.setenv("WORLDPACK_MINERL_PYTHON", python_of(backend))
    monkeypatch.setenv("WORLDPACK_MINERL_BACKEND", backend)
    monkeypatch.setenv("WORLDPACK_MINERL_SERVER", str(server.port))
    env: Any = gym.make(f"WorldPack/Navigate{'Dense' if dense else ''}Real-v0", num_starts=2, split="test")
    observation, info = env.reset(seed=3, options={"start_index": 1})
    assert env.observation_space.contains(observation) and set(observation) == {"image", "compass"}
    assert 50.0 < info["distance"] < 80.0, "the compass points beside a block that is 64 blocks away"
    start = env.unwrapped.rollout.bank[1]
    first, total = info["distance"], 0.0
    for _ in range(12):
        turn = float(observation["compass"][0])
        observation, reward, terminated, truncated, info = env.step(0 if abs(turn) < 12.0 else 2 if turn > 0.0 else 1)
        total += reward
        assert not terminated and not truncated
    assert total == pytest.approx(first - info["distance"], abs=2.0) if dense else total == 0.0, "MineRL's own reward"
    # Beside the block, whose place the server derives from the seed alone, a few steps are enough.
    goal, direct = hidden(start.seed), VoxelWorld()
    direct.reset(start.seed)
    surface = direct.surface()
    x0, z0 = surface.origin
    ways = ((1, 0, 90.0), (-1, 0, -90.0), (0, 1, 180.0), (0, -1, 0.0))
    dx, dz, yaw = next((dx, dz, yaw) for dx, dz, yaw in ways if surface.heights[goal[0] + dx - x0, goal[2] + dz - z0] == goal[1] + 1)
    pose = np.array([[goal[0] + 0.5 + 0.9 * dx, goal[1] + 1.0, goal[2] + 0.5 + 0.9 * dz, yaw, 0.0]])
    observation, info = env.reset(options={"start": replace(start, poses=pose)})
    assert info["pose"] == pytest.approx(pose[0]) and info["distance"] < 16.0
    for _ in range(4):
        observation, reward, terminated, truncated, info = env.step(3)
        if terminated:
            break
    assert terminated and not truncated and info["is_success"] and reward == pytest.approx(100.0, abs=5.0 if dense else 0.0)
    assert env.reset()[1]["distance"] > 50.0, "the next episode"
    env.close()


@pytest.mark.parametrize("late", [1, 5])
def test_a_mission_that_ends_after_it_paid_was_a_success(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Player):
        """Ends the mission so many ticks after the touch."""

        touched: int | None = None

        def tick(self, commands: str) -> None:
            super().tick(commands)
            if self.done and self.touched is None:
                self.touched = self._ticks
            self.done = self.touched is not None and self._ticks >= self.touched + late

    monkeypatch.setattr(malmo_server, "Player", Slow)
    goal = hidden(0)
    direct = VoxelWorld()
    direct.reset(0)
    pose = np.array([goal[0] + 0.5, goal[1] + 4.0, goal[2] + 0.5, 0.0, 0.0])
    with MalmoServer() as server:
        world = MineRLWorld(python=python_of("minerl-0.4"), backend="minerl-0.4", server=server.port, mission="navigate")
        world.reset(0, pose)  # falls onto the block
        told = []
        while not (told and told[-1].done) and len(told) < 12:
            mission = world.step(np.zeros(9, np.float32)).mission
            assert mission is not None
            told.append(mission)
        world.close()
    paid = next(n for n, mission in enumerate(told) if mission.reward)
    assert [mission.reward for mission in told].count(100.0) == 1 and told[-1].done and told[-1].success
    assert len(told) > paid + (late >= TICKS_PER_STEP)
    assert not any(mission.success for mission in told[:paid])


def hidden(seed: int) -> np.ndarray:
    """Where the server hides the block of a world, by MineRL's own parameters."""
    goal = Player(Mission((64, 64), seed, None, (), Quest("diamond_block", 64.0, 8.0, 100.0, 0.0, ends=True))).goal
    assert goal is not None
    return goal


@pytest.mark.parametrize("backend", ["minerl-0.4"])
@pytest.mark.parametrize("mission", ["navigate", "navigate-dense"])
def test_a_mission_is_minerls_own_word_for_word(backend: str, mission: str, tmp_path: Path) -> None:
    told = probe(backend, tmp_path)["missions"][mission]
    assert told["theirs"].split() == told["ours"].split(), "but for the pose, the size of the picture and where the player stands"
    assert "NavigationDecorator" in told["ours"] and told["schema"] == []
    assert told["observations"] == ["compass", "inventory", "pose", "pov"]


@pytest.mark.parametrize("minerl", [(64, 64)], indirect=True)
@pytest.mark.parametrize("backend", ["minestudio"])
def test_a_backend_without_navigate_says_which_has_it(minerl: MineRLWorld, backend: str) -> None:
    world = MineRLWorld(python=minerl.python, backend=backend, server=minerl.server, mission="navigate")
    with pytest.raises(WorkerRefusal, match=r"issue 684\).*minerl==0\.4\.4.*WORLDPACK_MINERL_BACKEND"):
        world.reset(0)
    world.close()
