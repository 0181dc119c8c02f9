"""The embedded world: Minecraft's movement, exact resets, the same pictures for the same seed."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from worldpack_env import worlds
from worldpack_env.worlds import Surface, World, make_world, terrain, voxel
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_model.geometry import KEYS, TICKS_PER_STEP, WALK_BLOCKS_PER_TICK

FORWARD = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)


def flat_lane(surface: Surface, length: int = 9) -> tuple[float, float, float]:
    """Feet position at the start of a level, walkable lane towards +z, three columns wide."""
    h, w = surface.heights, surface.walkable
    for i in range(20, h.shape[0] - 20):
        for j in range(20, h.shape[1] - 20):
            part = (slice(i - 1, i + 2), slice(j, j + length))
            if w[part].all() and (h[part] == h[i, j]).all():
                return surface.origin[0] + i + 0.5, float(h[i, j]), surface.origin[1] + j + 0.5
    raise AssertionError("no flat lane in this world")


@pytest.fixture(scope="module")
def world() -> VoxelWorld:
    made = make_world("voxel")
    assert isinstance(made, VoxelWorld)
    made.reset(3)
    return made


def test_reset_is_exact_and_pictures_repeat(world: VoxelWorld) -> None:
    pose = world.reset(3).pose
    one = world.reset(3, [*pose[:3], 33.0, -5.0])
    assert one.pose == pytest.approx([*pose[:3], 33.0, -5.0])
    assert one.frame.shape == (64, 64, 3)
    actions = np.zeros((12, 9), np.float32)
    actions[:, 0], actions[::3, 8], actions[5, 4] = 1, 22.5, 1

    def play(w: VoxelWorld) -> list[np.ndarray]:
        w.reset(3, pose)
        return [w.step(a).frame for a in actions]

    other = make_world("voxel")
    for a, b in zip(play(world), play(other), strict=True):  # type: ignore[arg-type]
        assert np.array_equal(a, b)
    assert not np.array_equal(world.reset(4).frame, world.reset(3).frame)


def test_walking_speed_direction_and_keys(world: VoxelWorld) -> None:
    x, y, z = flat_lane(world.surface())
    world.reset(3, [x, y, z, 0.0, 0.0])
    first = world.step(FORWARD)
    views = [first] + [world.step(FORWARD) for _ in range(4)]
    assert not any(v.blocked for v in views)
    step = views[-1].pose - views[-2].pose
    assert step[2] == pytest.approx(TICKS_PER_STEP * WALK_BLOCKS_PER_TICK, abs=2e-3), "yaw 0 walks to +z"
    assert abs(step[0]) < 1e-9
    world.reset(3, [x, y, z, 0.0, 0.0])
    right = np.zeros(9, np.float32)
    right[3] = 1
    assert world.step(right).pose[0] < x, "the right of yaw 0 is -x"


def test_turning_comes_first_and_moves_the_picture(world: VoxelWorld) -> None:
    x, y, z = flat_lane(world.surface())
    turn = np.zeros(9, np.float32)
    turn[8], turn[7] = 22.5, 10
    before = world.reset(3, [x, y, z, 170.0, 85.0])
    after = world.step(turn)
    assert after.pose[3] == pytest.approx(-167.5)
    assert after.pose[4] == pytest.approx(90.0)
    assert not np.array_equal(before.frame, after.frame)
    assert np.array_equal(after.frame, world.render(after.pose))


def test_jump_apex(world: VoxelWorld) -> None:
    x, y, z = flat_lane(world.surface())
    world.reset(3, [x, y, z, 0.0, 0.0])
    jump = np.zeros(9, np.float32)
    jump[4] = 1
    heights = [world.step(jump if i == 0 else np.zeros(9, np.float32)).pose[1] - y for i in range(6)]
    assert 1.0 < max(heights) <= 1.2523
    assert heights[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_step_of_one_block_needs_a_jump(world: VoxelWorld) -> None:
    s = world.surface()
    h, w = s.heights, s.walkable
    for i in range(30, h.shape[0] - 30):
        for j in range(30, h.shape[1] - 30):
            low, high = (slice(i - 1, i + 2), slice(j, j + 2)), (slice(i - 1, i + 2), slice(j + 2, j + 5))
            if w[low].all() and w[high].all() and (h[low] == h[i, j]).all() and (h[high] == h[i, j] + 1).all():
                start = [s.origin[0] + i + 0.5, float(h[i, j]), s.origin[1] + j + 0.5, 0.0, 0.0]
                world.reset(3, start)
                walked = [world.step(FORWARD) for _ in range(5)]
                assert walked[-1].blocked
                assert walked[-1].pose[1] == pytest.approx(start[1])
                world.reset(3, start)
                jumping = FORWARD.copy()
                jumping[4] = 1
                assert max(world.step(jumping).pose[1] for _ in range(6)) >= start[1] + 1
                return
    raise AssertionError("no step in this world")


@pytest.mark.parametrize("size", [(64, 64), (90, 160), (360, 640)])
def test_any_size(size: tuple[int, int]) -> None:
    world = make_world("voxel", frame_size=size)
    frame = world.reset(0).frame
    assert frame.shape == (*size, 3)
    assert frame.std() > 10
    world.close()
    world.close()


def test_errors_say_what_to_do() -> None:
    world = make_world("voxel")
    with pytest.raises(RuntimeError, match="reset"):
        world.step(FORWARD)
    world.reset(0)
    with pytest.raises(ValueError, match="expected"):
        world.step(np.zeros(4))
    with pytest.raises(ValueError, match="Did you mean 'voxel'"):
        make_world("voxle")


# Movement on made ground: the ticks themselves, on a floor whose top is at y = 10 with what a test puts on it.

MIDDLE = 128.5


def floor() -> NDArray[np.uint8]:
    blocks = np.zeros((terrain.SIZE_X, terrain.SIZE_Y, terrain.SIZE_Z), np.uint8)
    blocks[:, :10] = terrain.STONE
    return blocks


def standing(x: float = MIDDLE, y: float = 10.0, z: float = MIDDLE) -> NDArray[np.float64]:
    state = np.zeros(8)
    state[:3] = x, y, z
    state[6] = 1.0
    return state


def tick(blocks: NDArray[np.uint8], state: NDArray[np.float64], keys: str = "", yaw: float = 0.0, count: int = 1) -> tuple[NDArray[np.float64], bool]:
    """Runs ``count`` ticks with the named keys held; returns all positions ``(count, 3)`` and whether a wall stopped any."""
    held = np.array([float(key in keys.split()) for key in KEYS])
    angle = math.radians(yaw)
    path, blocked = [], False
    for _ in range(count):
        blocked |= bool(voxel._ticks(blocks, state, held, math.sin(angle), math.cos(angle), 1))
        path.append(state[:3].copy())
    return np.array(path), blocked


@pytest.mark.parametrize(
    ("keys", "speed"),
    [
        ("forward", WALK_BLOCKS_PER_TICK),
        ("left", WALK_BLOCKS_PER_TICK),
        ("forward sprint", 1.3 * WALK_BLOCKS_PER_TICK),
        ("back sprint", WALK_BLOCKS_PER_TICK),
        ("forward sneak", 0.3 * WALK_BLOCKS_PER_TICK),
        ("forward left", 0.1 / (1 - 0.546)),
        ("forward back", 0.0),
    ],
)
def test_steady_speed_of_every_gait(keys: str, speed: float) -> None:
    path, blocked = tick(floor(), standing(), keys, yaw=33.0, count=40)
    assert not blocked
    assert np.linalg.norm(path[-1] - path[-2]) == pytest.approx(speed, abs=1e-3)
    assert np.ptp(path[:, 1]) == 0.0


@pytest.mark.parametrize(
    ("keys", "yaw", "way"),
    [("forward", 0, (0, 1)), ("forward", 90, (-1, 0)), ("forward", -90, (1, 0)), ("right", 0, (-1, 0)), ("left", 0, (1, 0)), ("back", 180, (0, 1))],
)
def test_keys_move_along_the_convention(keys: str, yaw: float, way: tuple[int, int]) -> None:
    path, _ = tick(floor(), standing(), keys, yaw, count=20)
    moved = path[-1] - (MIDDLE, 10.0, MIDDLE)
    assert moved[[0, 2]] / np.linalg.norm(moved) == pytest.approx(way, abs=1e-9)


def test_first_ticks_of_a_walk_and_of_its_end() -> None:
    state = standing()
    tick(floor(), state, count=2)  # gravity presses a player to the ground only after a reset's first ticks
    path, _ = tick(floor(), state, "forward", count=3)
    speeds = np.diff(np.concatenate([[MIDDLE], path[:, 2]]))
    assert speeds == pytest.approx([0.098, 0.098 * 1.546, 0.098 * (1 + 0.546 + 0.546**2)])
    path, _ = tick(floor(), state, count=30)
    assert path[-1, 2] == path[-2, 2], "friction ends a walk"


def test_apex_and_length_of_a_jump() -> None:
    state = standing()
    blocks = floor()
    path, _ = tick(blocks, state, "jump", count=1)
    rest, _ = tick(blocks, state, count=15)
    heights = np.concatenate([path, rest])[:, 1] - 10.0
    assert heights.max() == pytest.approx(1.2522, abs=1e-4)
    assert np.flatnonzero(heights == 0.0)[0] == 11, "a jump takes twelve ticks"


def test_a_held_jump_key_jumps_again_and_only_from_the_ground() -> None:
    path, _ = tick(floor(), standing(), "jump", count=60)
    heights = path[:, 1] - 10.0
    assert heights.max() < 1.2523
    assert ((heights[1:-1] > heights[:-2]) & (heights[1:-1] >= heights[2:])).sum() == 5


def test_a_jump_under_a_ceiling_stops_there() -> None:
    blocks = floor()
    blocks[:, 12] = terrain.STONE
    path, _ = tick(blocks, standing(), "jump", count=10)
    assert path[:, 1].max() == pytest.approx(10.2)


def test_one_block_needs_a_jump_and_two_are_too_high() -> None:
    blocks = floor()
    blocks[:, 10, 131:] = terrain.STONE
    path, blocked = tick(blocks, standing(), "forward", count=40)
    assert blocked
    assert path[-1] == pytest.approx([MIDDLE, 10.0, 131 - 0.3])
    path, _ = tick(blocks, standing(), "forward jump", count=60)
    assert path[-1, 1] >= 11.0
    assert path[-1, 2] > 132
    blocks[:, 11, 131:] = terrain.STONE
    path, blocked = tick(blocks, standing(), "forward jump", count=60)
    assert blocked
    assert path[:, 2].max() == pytest.approx(131 - 0.3)


def test_a_wall_lets_one_slide_along_it() -> None:
    blocks = floor()
    blocks[:, 10:14, 131:] = terrain.STONE
    path, blocked = tick(blocks, standing(), "forward", yaw=-45.0, count=40)
    assert blocked
    assert path[:, 2].max() == pytest.approx(131 - 0.3)
    assert path[-1, 0] - path[-2, 0] == pytest.approx(WALK_BLOCKS_PER_TICK * math.sqrt(0.5), abs=1e-3)


def test_blocked_needs_a_walk_key() -> None:
    blocks = floor()
    blocks[:, 10:14, 130:] = terrain.STONE
    state = standing()
    _, blocked = tick(blocks, state, "forward", count=3)
    assert not blocked
    _, blocked = tick(blocks, state, count=4)
    assert not blocked, "the rest of a walk meets the wall, but no key is held"
    _, blocked = tick(blocks, state, "jump", count=4)
    assert not blocked
    _, blocked = tick(blocks, state, "forward", count=10)
    assert blocked


def test_a_door_one_block_wide_lets_a_player_through() -> None:
    blocks = floor()
    blocks[:, 10:14, 131] = terrain.STONE
    blocks[128, 10:12, 131] = terrain.AIR
    path, blocked = tick(blocks, standing(), "forward", count=40)
    assert not blocked
    assert path[-1, 2] > 134
    path, blocked = tick(blocks, standing(x=128.8), "forward", count=40)
    assert blocked


def test_falling_stops_exactly_on_the_ground() -> None:
    state = standing(y=30.37)
    state[6] = 0.0
    path, _ = tick(floor(), state, count=60)
    assert path[-1, 1] == 10.0
    fall = 30.37 - path[:3, 1]
    assert fall == pytest.approx([0.0, 0.0784, 0.0784 + 0.0784 * 0.98 + 0.0784], abs=1e-9)


def test_sneaking_stops_at_an_edge_and_walking_does_not() -> None:
    blocks = floor()
    blocks[:, 7:10, 131:] = terrain.AIR
    path, _ = tick(blocks, standing(), "forward sneak", count=120)
    assert path[-1, 1] == 10.0
    assert path[-1, 2] < 131 + 0.3
    path, _ = tick(blocks, standing(), "forward", count=60)
    assert path[-1, 1] == 7.0


def test_water_slows_and_a_swimmer_gets_out() -> None:
    blocks = floor()
    blocks[:, 6:10, 131:160] = terrain.WATER
    path, _ = tick(blocks, standing(), "forward", count=60)
    assert path[-1, 1] < 9.0, "without the jump key one sinks"
    assert np.linalg.norm(path[-1, ::2] - path[-2, ::2]) < 0.12
    path, _ = tick(blocks, standing(), "forward jump", count=600)
    assert path[:, 2].max() > 162
    assert path[-1, 1] >= 10.0, "out on the other side"


@pytest.mark.parametrize("yaw", [0.0, 90.0, 180.0, -90.0, 30.0])
def test_the_border_is_solid(yaw: float) -> None:
    path, blocked = tick(floor(), standing(), "forward sprint jump", yaw, count=1200)
    assert blocked
    low, high = terrain.MARGIN + 0.3 - 1e-6, terrain.SIZE_X - terrain.MARGIN - 0.3 + 1e-6
    assert path[:, [0, 2]].min() >= low
    assert path[:, [0, 2]].max() <= high
    assert path[:, 1].min() >= 10.0


def test_random_play_never_enters_a_block() -> None:
    rng = np.random.default_rng(0)
    world = VoxelWorld((8, 8))
    for seed in range(4):
        world.reset(seed)
        blocks = terrain.load_terrain(seed).blocks
        for n in range(400):
            action = np.zeros(9, np.float32)
            action[:7] = rng.random(7) < (0.9, 0.05, 0.1, 0.1, 0.4, 0.05, 0.3)
            action[8] = rng.normal(0, 20) if n % 5 == 0 else 0
            view = world.step(action)
            x, y, z = view.pose[:3]
            assert not voxel._overlaps(blocks, x + 128, y, z + 128)
            assert np.isfinite(view.pose).all()


def test_solid_blocks_are_those_a_body_cannot_stand_in(world: VoxelWorld) -> None:
    """Around places to stand: ground below, room for a body above; beyond the border everything is solid."""
    world.reset(5)
    surface = world.surface()
    for i, k in np.argwhere(surface.walkable)[::997]:
        x, z, height = i + surface.origin[0], k + surface.origin[1], int(surface.heights[i, k])
        assert world.solid((x, height - 1, z), (1, 3, 1))[0, :, 0].tolist() == [True, False, False]
    box = world.solid((voxel.ORIGIN[0] - 2, 60, 0), (2, 3, 4))
    assert box.shape == (2, 3, 4)
    assert box.all()
    assert not world.solid((0, 200, 0), (3, 3, 3)).any()


def test_spawn_is_walkable_and_the_default() -> None:
    one, two = VoxelWorld(), VoxelWorld((32, 48))
    for seed in range(6):
        pose = one.reset(seed).pose
        assert np.array_equal(pose, one.spawn)
        assert np.array_equal(pose, two.reset(seed).pose)
        surface = one.surface()
        i, k = int(pose[0] // 1) - surface.origin[0], int(pose[2] // 1) - surface.origin[1]
        assert surface.walkable[i, k]
        assert pose[1] == surface.heights[i, k]
        assert np.hypot(pose[0], pose[2]) < 60
        assert isinstance(one, World)
        still = one.step(np.zeros(9))
        assert np.array_equal(still.pose, pose), "at rest after a reset"
        assert not still.blocked


def test_a_reset_forgets_the_motion_before_it(world: VoxelWorld) -> None:
    pose = world.reset(3).pose
    fresh = world.step(np.zeros(9)).pose
    for _ in range(3):
        world.step(np.array([1, 0, 0, 0, 1, 0, 1, 0, 30], np.float32))
    world.reset(3, pose)
    assert np.array_equal(world.step(np.zeros(9)).pose, fresh)


def test_rendering_moves_nothing(world: VoxelWorld) -> None:
    view = world.reset(3)
    world.render(np.add(view.pose, [5, 9, 5, 90, 20]))
    depth, ids = world.first_hits(view.pose)
    assert depth.shape == ids.shape == (64, 64)
    assert np.array_equal(world.step(np.zeros(9)).frame, view.frame)


def test_pitch_stops_straight_up_and_down_and_yaw_wraps(world: VoxelWorld) -> None:
    world.reset(3)
    action = np.zeros(9, np.float32)
    action[7], action[8] = 50, 100
    for _ in range(3):
        view = world.step(action)
    assert view.pose[4] == 90.0
    assert -180 <= view.pose[3] < 180
    action[7] = -200
    assert world.step(action).pose[4] == -90.0


def test_poses_that_cannot_be_are_refused(world: VoxelWorld) -> None:
    pose = world.reset(3).pose
    with pytest.raises(ValueError, match="inside a block"):
        world.reset(3, pose - [0, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="outside the world"):
        world.reset(3, [127.0, 20, 0, 0, 0])
    with pytest.raises(ValueError, match=r"expected \(5,\)"):
        world.reset(3, np.tile(pose, (2, 1)))
    with pytest.raises(ValueError, match="seed is -1"):
        world.reset(-1)
    high = world.reset(3, np.add(pose, [0, 12.5, 0, 0, 0]))
    assert high.pose[1] == pose[1] + 12.5
    assert world.step(np.zeros(9)).pose[1] < high.pose[1], "in the air is fine; the player falls"


def test_a_closed_world_says_so() -> None:
    world = VoxelWorld()
    with pytest.raises(RuntimeError, match=r"Call reset\(\) before step\(\)\."):
        world.step(np.zeros(9))
    world.reset(0)
    with pytest.raises(ValueError, match="not finite"):
        world.step(np.full(9, np.nan))
    with pytest.raises(ValueError, match="expected"):
        world.step(np.zeros((2, 9)))
    world.close()
    world.close()
    for call in (lambda: world.step(np.zeros(9)), lambda: world.reset(0), world.surface, lambda: world.spawn):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    with pytest.raises(ValueError, match="frame_size is"):
        VoxelWorld((2, 64))


class _OldWorld:
    """An engine of a user's from before worlds told which blocks are solid."""

    name, frame_size = "old", (64, 64)

    def __init__(self, frame_size: tuple[int, int]) -> None:
        self.frame_size = frame_size

    reset = step = surface = close = lambda self: None


def test_a_world_that_lacks_a_part_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(worlds.WORLDS, "old", f"{__name__}:_OldWorld")
    with pytest.raises(TypeError, match=r"'old' .* has no solid; see worldpack_env.worlds.World"):
        make_world("old")


def test_a_block_can_take_the_place_of_another_until_the_next_reset(world: VoxelWorld) -> None:
    view = world.reset(3)
    cell = np.floor(view.pose[:3]).astype(int) - [0, 1, 0]
    down = [*view.pose[:3], 0.0, 90.0]
    before, other = world.render(down), world.reset(4).frame
    world.reset(3)
    world.exchange(cell, terrain.PAINT)
    assert (world.render(down)[32, 32].astype(int) - before[32, 32])[0] > 30, "red under the feet"
    assert np.array_equal(world.surface().heights, terrain.load_terrain(3).surface.heights)
    assert terrain.load_terrain(3).blocks[cell[0] + 128, cell[1], cell[2] + 128] != terrain.PAINT, "others that share the world do not see it"
    assert np.array_equal(world.reset(4).frame, other)
    world.reset(3)
    assert np.array_equal(world.render(down), before)
    with pytest.raises(ValueError, match="no block at"):
        world.exchange(cell + np.array([0, 3, 0]), terrain.PAINT)
    with pytest.raises(ValueError, match="kind of block"):
        world.exchange(cell, terrain.AIR)


def test_the_event_is_the_block_in_the_middle_of_the_picture_within_reach(world: VoxelWorld) -> None:
    eyes = make_world("voxel", frame_size=(9, 9))  # an odd number of pixels: one is in the middle
    assert isinstance(eyes, VoxelWorld)
    rng, seen = np.random.default_rng(0), set()
    for seed in range(6):
        eyes.reset(seed)
        for _ in range(60):
            eyes.step([1, 0, 0, 0, rng.random() < 0.5, 0, 0, rng.uniform(-30, 30), rng.uniform(-40, 40)])
            pose = eyes._view(False).pose
            depth, hit = eyes.first_hits(pose)
            names = eyes.events()
            place = np.unravel_index(max(int(hit[4, 4]) // 6, 0), (terrain.SIZE_X, terrain.SIZE_Y, terrain.SIZE_Z))
            block = terrain.BLOCK_NAMES[eyes._ready().blocks[place]] if hit[4, 4] >= 0 else "air"
            if block == "water":  # the picture ends there, a look does not
                continue
            expected = () if depth[4, 4] > worlds.REACH or block == "air" else (block,)
            if abs(depth[4, 4] - worlds.REACH) > 1e-6:
                assert names == expected, (seed, pose, depth[4, 4])
            seen.update(names)
    assert len(seen) >= 5, seen


def test_every_block_has_a_name_of_its_own() -> None:
    assert len(terrain.BLOCK_NAMES) == len(set(terrain.BLOCK_NAMES)) == terrain.BLOCK_KINDS
    assert terrain.BLOCK_NAMES[terrain.ACACIA_LOG] == "acacia_log" and terrain.BLOCK_NAMES[terrain.PINK_LEAVES] == "pink_leaves"
    assert terrain.BLOCK_NAMES[terrain.PAINT + 9] == "black_concrete"
