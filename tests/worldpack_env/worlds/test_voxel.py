"""The embedded world: Minecraft's movement, exact resets, the same pictures for the same seed."""

import numpy as np
import pytest

from worldpack_env.worlds import Surface, make_world
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_model.geometry import TICKS_PER_STEP, WALK_BLOCKS_PER_TICK

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
