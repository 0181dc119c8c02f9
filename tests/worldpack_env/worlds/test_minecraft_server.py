"""A player on a running Minecraft server: flying-squid on this machine, on the same blocks as the minecraft world that needs no server.

Skipped, with the reason, where Node, the npm packages, flying-squid, moderngl or EGL are missing; `make test-minecraft-server` installs what npm has.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

import worldpack_env  # noqa: F401 - registers the ids
from tests.worldpack_env.worlds.squid import Squid
from worldpack_env.recorder import RecordConfig, record
from worldpack_env.worlds import BackendUnavailable, EpisodeLost, Surface, World, make_world
from worldpack_env.worlds.minecraft import ORIGIN, SIZE, MinecraftWorld
from worldpack_env.worlds.minecraft_server import SIDE, SPACING, VIEW_DISTANCE, MinecraftServerWorld, check_address, place_of
from worldpack_model.episodes import SPLITS
from worldpack_model.evaluation import held_out_loops
from worldpack_model.geometry import BOX, KEYS, TICKS_PER_STEP, WALK_BLOCKS_PER_TICK, box_corner
from worldpack_model.loopnav import find_episodes
from worldpack_model.metrics import psnr

TOP = 10
STEP = TICKS_PER_STEP * WALK_BLOCKS_PER_TICK
EDGE = 8200
# Grass, where all places are; a wall across z = 12, a step up to x = 6 .. 20, a pool, a tree, a fence and a path that is 15/16 of a block high.
BOXES: list[list[object]] = [
    [-EDGE, 0, -EDGE, EDGE, TOP - 1, EDGE, "stone"],
    [-EDGE, TOP - 1, -EDGE, EDGE, TOP, EDGE, "grass_block"],
    [-20, TOP, 12, 20, TOP + 3, 13, "oak_planks"],
    [6, TOP, -20, 20, TOP + 1, 12, "stone"],
    [-20, TOP - 3, -20, -10, TOP, -10, "water"],
    [-8, TOP, -8, -7, TOP + 4, -7, "oak_log"],
    [-10, TOP + 4, -10, -5, TOP + 6, -5, "oak_leaves"],
    [-4, TOP, -8, -3, TOP + 1, -7, "oak_fence"],
    [-4, TOP - 1, 4, -3, TOP, 8, "grass_path"],
]
NAMES = ["air", *dict.fromkeys(str(box[6]) for box in BOXES)]


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    server = Squid(BOXES)
    yield server
    server.close()


@pytest.fixture(scope="module")
def world(squid: Squid) -> Iterator[MinecraftServerWorld]:
    try:
        made = make_world(squid.world)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert isinstance(made, MinecraftServerWorld)
    yield made
    made.close()


def act(keys: str = "", dpitch: float = 0.0, dyaw: float = 0.0) -> NDArray[np.float32]:
    return np.array([*(float(key in keys.split()) for key in KEYS), dpitch, dyaw], np.float32)


def pid_of(world: MinecraftServerWorld) -> int:
    assert world._process is not None
    return world._process.pid


# -------------------------------------------------------------------------------------------------------------- addresses and places, no server


def test_addresses() -> None:
    assert check_address("localhost") == ("localhost", 25565)
    assert check_address("10.0.0.7:4711") == ("10.0.0.7", 4711)
    assert check_address("[::1]:4711") == ("::1", 4711)
    for wrong in ("", ":25565", "host:", "host:port", "host:70000", "a b:1", "http://host:1"):
        with pytest.raises(ValueError, match="no address of a server, expected HOST:PORT"):
            check_address(wrong)
    with pytest.raises(ValueError, match="'voxel' joins none"):
        make_world("voxel@localhost:1")
    with pytest.raises(ValueError, match="Steps of the world .minerl. are 4 ticks"):
        make_world("minerl", ticks_per_step=1)


def test_every_seed_has_a_place_of_its_own_and_the_first_ones_are_near() -> None:
    seeds = [seeds[n] for seeds in SPLITS.values() for n in range(40)]
    places = {place_of(seed, (70.0, -3.0)) for seed in seeds}
    assert len(places) == len(seeds)
    assert place_of(0, (70.0, -3.0)) == (64, -16)
    away = np.array(list(places)) - (64, -16)
    assert not (away % SPACING).any()
    assert np.abs(away).max() <= 6 * SPACING
    assert np.abs(np.subtract([place_of(seed, (0.0, 0.0)) for seed in (899_999, 949_999, 999_999)], 0)).max() < 10_500
    assert SPACING - SIDE >= 2 * VIEW_DISTANCE, "who stands at the border of a place sees none of another's"
    with pytest.raises(ValueError, match="on a server, seeds are places"):
        place_of(1_000_000, (0.0, 0.0))


# --------------------------------------------------------------------------------------------------------------------------------- movement


def test_it_is_a_world_and_a_start_pose_is_where_it_was_asked_for(world: MinecraftServerWorld) -> None:
    assert isinstance(world, World)
    pose = [0.5, TOP, 0.25, 33.0, -12.5]
    view = world.reset(0, pose)
    assert view.pose.tolist() == pose
    assert view.frame.shape == (64, 64, 3)
    assert view.frame.std() > 10
    assert world.about["version"] == "1.16.5"
    again = world.reset(0, [3.5, TOP, -2.75, -90.0, 10.0])
    assert again.pose.tolist() == [3.5, TOP, -2.75, -90.0, 10.0]
    for _ in range(2):  # at rest, and the pose before has left nothing behind
        assert world.step(act()).pose.tolist() == again.pose.tolist()
    assert np.array_equal(world.reset(0, pose).frame, view.frame)


def test_walking_is_as_quick_as_in_the_game_and_a_wall_stops_it(world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP, 0.5, 0.0, 0.0])
    views = []
    times = []
    for _ in range(16):
        began = time.monotonic()
        views.append(world.step(act("forward")))
        times.append(time.monotonic() - began)
    moved = np.diff([view.pose[2] for view in views])
    assert moved[4:10] == pytest.approx(STEP, abs=4e-3)
    assert views[-1].pose.tolist() == pytest.approx([0.5, TOP, 12 - 0.3, 0.0, 0.0], abs=1e-6)
    assert [view.blocked for view in views] == [view.pose[2] > 11.69 for view in views]
    assert sum(times) > 0.6 * 16 * TICKS_PER_STEP * 0.05, "by the clock"


def test_it_moves_as_the_world_without_a_server_does_on_the_same_blocks_and_shows_the_same(world: MinecraftServerWorld) -> None:
    """Walking, turning on the way, a jump, a step up, a slide along the wall and a swim, pose by pose; then pictures from all over."""
    blocks = np.zeros(SIZE, np.uint8)
    for x0, y0, z0, x1, y1, z1, name in BOXES:
        low = [max(int(v) - o, 0) for v, o in zip((x0, y0, z0), (ORIGIN[0], 0, ORIGIN[1]), strict=True)]  # type: ignore[call-overload]
        high = [int(v) - o for v, o in zip((x1, y1, z1), (ORIGIN[0], 0, ORIGIN[1]), strict=True)]  # type: ignore[call-overload]
        blocks[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = NAMES.index(str(name))
    surface = Surface(np.full((SIZE[0], SIZE[2]), TOP, np.int16), np.ones((SIZE[0], SIZE[2]), np.bool_), ORIGIN)
    twin = MinecraftWorld()
    scripts = [
        ([0.5, TOP, 0.5, -60.0, 0.0], [act("forward", dyaw=4)] * 5 + [act("forward jump")] * 5 + [act("left", dpitch=8)] * 3),
        ([-3.5, TOP, 9.5, 40.0, 0.0], [act("forward sprint")] * 6 + [act("forward sneak")] * 3 + [act("back right jump")] * 3),
        ([-15.5, TOP, -6.5, 180.0, 0.0], [act("forward")] * 6 + [act("forward jump")] * 4),
        ([2.5, TOP + 3.25, -3.5, 10.0, 0.0], [act()] * 4),
    ]
    for pose, script in scripts:
        twin.reset_to(blocks, NAMES, surface, pose)
        world.reset(0, pose)
        for action in script:
            expected, view = twin.step(action), world.step(action)
            assert view.pose == pytest.approx(expected.pose, abs=1e-6)
            assert view.blocked == expected.blocked
            assert psnr(view.frame[None], expected.frame[None]).min() > 40
    twin.close()


def test_the_body_rests_while_the_caller_thinks(world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP + 8.0, 0.5, 0.0, 0.0])
    ways = []
    for pause in (0.0, 0.7):
        world.reset(0, [0.5, TOP + 8.0, 0.5, 0.0, 0.0])
        way = []
        for _ in range(5):
            way.append(world.step(act("forward")).pose)
            time.sleep(pause)
        ways.append(way)
    assert np.array_equal(*ways), "falling and walking go on where they were, whatever time has passed"
    assert ways[0][0][1] < TOP + 8.0


def test_one_tick_a_step_gives_the_same_way_in_more_detail(squid: Squid, world: MinecraftServerWorld) -> None:
    fine = make_world(squid.world, ticks_per_step=1)
    pose = [0.5, TOP, 0.5, 0.0, 0.0]
    fine.reset(0, pose)
    world.reset(0, pose)
    ticks = [fine.step(act("forward jump")).pose for _ in range(5 * TICKS_PER_STEP)]
    steps = [world.step(act("forward jump")).pose for _ in range(5)]
    assert np.array_equal(ticks[TICKS_PER_STEP - 1 :: TICKS_PER_STEP], steps)
    fine.close()


def test_camera_turns_wrap_and_stop(world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP, 0.5, 170.0, 85.0])
    pose = world.step(act(dpitch=10, dyaw=22.5)).pose
    assert pose[3:].tolist() == [-167.5, 90.0]
    with pytest.raises(ValueError, match="expected"):
        world.step(np.zeros(4))


# ------------------------------------------------------------------------------------------------------------------------- what the server does


def test_the_servers_word_counts_and_so_do_blocks_that_change(squid: Squid, world: MinecraftServerWorld) -> None:
    before = world.reset(0, [0.5, TOP, 0.5, 0.0, 0.0])
    squid.order(f"move -12.5 {TOP} 3.5")
    deadline = time.monotonic() + 5
    while world.step(act()).pose[0] > -12 and time.monotonic() < deadline:
        pass
    view = world.step(act("forward"))
    assert view.pose[[0, 1]].tolist() == [-12.5, TOP]
    assert 3.5 < view.pose[2] < 4.5
    before = world.reset(0, [30.5, TOP, 0.5, 0.0, 0.0])
    assert world.solid([30, TOP, 3], (1, 2, 1)).tolist() == [[[False], [False]]]
    for y in (TOP, TOP + 1):
        squid.order(f"set 30 {y} 3 red_wool")
    deadline = time.monotonic() + 5
    while not world.solid([30, TOP + 1, 3], (1, 1, 1)).all() and time.monotonic() < deadline:
        time.sleep(0.05)
    views = [world.step(act("forward")) for _ in range(5)]
    assert views[-1].blocked
    assert views[-1].pose[2] == pytest.approx(3 - 0.3, abs=1e-6)
    red = views[-1].frame.astype(int)
    assert ((red[..., 0] > 2 * red[..., 1]) & (red[..., 0] > 2 * red[..., 2])).mean() > 0.2
    assert not np.array_equal(before.frame, views[0].frame)


def test_surface_and_solid(world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP, 0.5, 0.0, 0.0])
    surface = world.surface()
    assert surface.heights.shape == surface.walkable.shape == (SIDE, SIDE)

    def at(x: int, z: int) -> tuple[int, bool]:
        i, k = x - surface.origin[0], z - surface.origin[1]
        return int(surface.heights[i, k]), bool(surface.walkable[i, k])

    assert at(0, 0) == (TOP, True)
    assert at(0, 12) == (TOP + 3, True), "one may stand on a wall"
    assert at(8, 0) == (TOP + 1, True)
    assert at(-15, -15) == (TOP, False), "water"
    assert at(-8, -8) == (TOP, False), "a trunk"
    assert at(-6, -6) == (TOP, True), "under leaves"
    assert at(-4, -8) == (TOP + 1, False), "a fence"
    assert at(-4, 6) == (TOP, True), "a path"
    assert not surface.walkable[0].any()
    assert surface is world.surface()
    assert world.spawn[1] == TOP
    assert world.reset(0).pose.tolist() == world.spawn.tolist()
    box = world.solid(box_corner(world.spawn), BOX)
    assert box[:, :3].all()
    assert not box[2, 3:, 2].any()
    world.step(act("forward"))
    far = world.reset(1, [0.5 + 3 * SPACING, TOP, 0.5, 0.0, 0.0])
    world.step(act())
    with pytest.raises(RuntimeError, match="before the first step"):
        world.surface()
    assert far.pose[0] == 0.5 + 3 * SPACING


def test_poses_that_cannot_be_are_refused(world: MinecraftServerWorld) -> None:
    with pytest.raises(ValueError, match="inside a block of the world at 127.0.0.1"):
        world.reset(0, [0.5, TOP - 1, 0.5, 0, 0])
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        world.step(act())
    with pytest.raises(ValueError, match="outside the world"):
        world.reset(0, [0.5, 400.0, 0.5, 0, 0])
    with pytest.raises(ValueError, match=r"expected \(5,\)"):
        world.reset(0, np.zeros((2, 5)))
    with pytest.raises(ValueError, match="seeds are places"):
        world.reset(-1)
    world.reset(0, [0.5, TOP, 0.5, 0, 0])


def test_an_environment_on_a_server(squid: Squid) -> None:
    """Its one start is recorded there: a walker looks around, goes to a goal 5 blocks off and comes back."""
    env = gym.make("WorldPack/GoToReal-v0", world=squid.world, nav_range=5, num_starts=1)
    observation, _ = env.reset(seed=0)
    assert observation["image"].shape == (64, 64, 3)
    _, reward, _, truncated, info = env.step(0)
    assert np.isfinite(reward)
    assert not truncated
    assert info["pose"].shape == (5,)
    env.close()


def test_a_loop_is_recorded_there_and_read_by_all_that_read_loops(squid: Squid, tmp_path: Path) -> None:
    settings = RecordConfig(out=tmp_path, episodes=1, world=squid.world, mix={"ABA-5": 1.0}, split="test", workers=1)
    (entry,) = record(settings, progress=False)
    assert entry.path == f"ABA/minecraft_127.0.0.1_{squid.port}_950000/5/000000.json"
    (episode,) = held_out_loops(tmp_path, "ABA", 5, 1)
    assert (episode.world, episode.seed, episode.ticks_per_step) == (squid.world, 950_000, TICKS_PER_STEP)
    x, z = place_of(950_000, (8.0, 8.0))
    assert np.abs(episode.poses[:, [0, 2]] - (x, z)).max() < SIDE / 2
    assert np.linalg.norm(episode.poses[-1, :3] - episode.waypoints[0]) < 1
    assert 4 <= np.abs(episode.waypoints[1] - episode.waypoints[0]).max() <= 5
    assert episode.blocks is not None and episode.blocks[:, :, :3].all(), "on solid ground"
    assert find_episodes(tmp_path, tmp_path / "test.csv") == [tmp_path / entry.path]
    assert record(settings, progress=False).entries == (entry,), "nothing is recorded twice"


def test_worlds_side_by_side_are_players_of_different_names(squid: Squid, world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP, 0.5, 0, 0])
    other = MinecraftServerWorld(server=squid.address)
    other.reset(0, [2.5, TOP, 0.5, 0, 0])
    assert {world.player, other.player} == {"worldpack1", "worldpack2"}
    assert world.step(act("forward")).pose[0] == 0.5
    assert other.step(act("forward")).pose[0] == 2.5
    other.close()
    other.close()
    for call in (lambda: other.step(act()), lambda: other.reset(0), other.surface):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_a_body_that_is_held_in_the_air_is_not_put_out_for_flying() -> None:
    """By Minecraft's own rule of 80 ticks, which squid.js adds: in the middle of a fall, and high above a place."""
    server = Squid(BOXES, flight=False)
    there = MinecraftServerWorld(server=server.address)
    try:
        there.reset(0, [0.5, TOP + 30.0, 0.5, 0.0, 0.0])
        there.step(act())
        time.sleep(5)
        assert there.step(act()).pose[1] < TOP + 29
        there._place(np.array([0.5, 300.0, 0.5, 0.0, 0.0]), 1)
        time.sleep(5)
        assert there.reset(0).pose[1] == TOP
    finally:
        there.close()
        server.close()


# ------------------------------------------------------------------------------------------------------------------------------------ faults


def test_a_player_that_is_put_out_has_lost_the_episode_and_comes_back(squid: Squid, world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP, 0.5, 0, 0])
    pid = pid_of(world)
    squid.order("kick")
    with pytest.raises(EpisodeLost, match=r"put the player out: 'go away'.*reset\(\)"):
        for _ in range(10):
            world.step(act("forward"))
    assert not Path(f"/proc/{pid}").exists(), "no zombie"
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        world.step(act("forward"))
    assert world.reset(0, [0.5, TOP, 0.5, 0, 0]).pose[0] == 0.5
    world.step(act("forward"))


def test_killing_the_process_is_one_clear_error_too(world: MinecraftServerWorld) -> None:
    world.reset(0, [0.5, TOP, 0.5, 0, 0])
    os.kill(pid_of(world), signal.SIGKILL)
    with pytest.raises(EpisodeLost, match=r"(was killed by signal 9|has ended).*reset\(\)"):
        world.step(act("forward"))
    world.reset(0, [0.5, TOP, 0.5, 0, 0])


def test_a_server_that_dies_or_hangs_in_an_episode() -> None:
    server = Squid(BOXES)
    try:
        there = MinecraftServerWorld(server=server.address, timeout=15.0)
        there.reset(0, [0.5, TOP, 0.5, 0, 0])
        there.step(act("forward"))
        there._timeout = 4.0
        os.kill(server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(EpisodeLost, match=r"the server has been silent for 3\.2 s.*reset\(\)"):
            while time.monotonic() - began < 10:
                there.step(act("forward"))
        assert time.monotonic() - began < 6
        with pytest.raises(BackendUnavailable, match=f"no Minecraft server answers at {server.address}"):
            there.reset(0)
        os.kill(server.process.pid, signal.SIGCONT)
        there._timeout = 15.0
        there.reset(0, [0.5, TOP, 0.5, 0, 0])
        pid = pid_of(there)
        os.kill(server.process.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(EpisodeLost, match=r"the (connection failed|server ended the connection).*reset\(\)"):
            for _ in range(20):
                there.step(act("forward"))
        assert time.monotonic() - began < 5
        assert not Path(f"/proc/{pid}").exists(), "no zombie"
        with pytest.raises(BackendUnavailable, match=rf"no Minecraft server answers at {server.address} \(ECONNREFUSED\)"):
            there.reset(0)
        server.close()
        server = Squid(BOXES, port=server.port)
        assert there.reset(0, [0.5, TOP, 0.5, 0, 0]).pose[0] == 0.5
        there.close()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"op": False}, r"did not move the player to .*'You do not have permission.*run `op worldpack\d+` in the server's console"),
        ({"version": "1.15.2"}, r"runs Minecraft 1\.15\.2, expected 1\.16\.4 or 1\.16\.5 \(protocol 754, it has 578\)"),
        ({"online": True}, "asks for a Mojang account.*online-mode=true.*not supported"),
    ],
)
def test_servers_that_cannot_be_used_say_what_to_do(options: dict[str, object], words: str) -> None:
    server = Squid(BOXES, **options)
    there = MinecraftServerWorld(server=server.address, timeout=20.0)
    try:
        with pytest.raises(BackendUnavailable, match=words):
            there.reset(0, [0.5, TOP, 0.5, 0, 0])
        with pytest.raises(RuntimeError, match=r"reset\(\)"):
            there.step(act())
    finally:
        there.close()
        server.close()


def test_something_else_that_listens_is_no_server(squid: Squid) -> None:
    """One that says nothing, and one whose answer is of another game's version."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    there = MinecraftServerWorld(server=f"127.0.0.1:{port}", timeout=2.0)
    try:
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match=f"no Minecraft server answers at 127.0.0.1:{port}"):
            there.reset(0)
        assert time.monotonic() - began < 4
        status = json.dumps({"version": {"name": "Paper 1.21", "protocol": 767}, "players": {"max": 1, "online": 0}, "description": ""}).encode()
        text = bytes([len(status)]) + status
        answer = bytes([len(text) + 1, 0]) + text
        assert len(answer) < 128

        def serve() -> None:
            for _ in range(2):  # the first connection is the one that was left
                connection, _ = listener.accept()
                connection.settimeout(1.0)
                try:
                    connection.recv(100)
                    connection.sendall(answer)
                    time.sleep(0.5)
                except OSError:
                    pass
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        there._timeout = 8.0
        with pytest.raises(BackendUnavailable, match=r"runs Minecraft Paper 1\.21, expected 1\.16\.4 or 1\.16\.5"):
            there.reset(0)
        thread.join(10)
    finally:
        there.close()
        listener.close()
