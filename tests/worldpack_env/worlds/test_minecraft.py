"""The minecraft world: the World protocol, parity of movement and camera with the embedded world on the same blocks, and a process that dies.

Skipped, with the reason, where Node, the npm packages, moderngl or EGL are missing; `make test-minecraft` installs what npm has.
"""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from worldpack_env.reality import Reality
from worldpack_env.starts import Start
from worldpack_env.worlds import BackendUnavailable, EpisodeLost, Surface, World, make_world, terrain, voxel
from worldpack_env.worlds.mesh_renderer import GROUPS, MeshRenderer
from worldpack_env.worlds.minecraft import MARGIN, ORIGIN, SIZE, MinecraftWorld
from worldpack_model.geometry import BOX, EYE_HEIGHT, KEYS, TICKS_PER_STEP, VERTICAL_FOV, WALK_BLOCKS_PER_TICK, box_corner
from worldpack_model.metrics import psnr

NAMES = {
    "AIR": "air", "STONE": "stone", "DIRT": "dirt", "GRASS": "grass_block", "SAND": "sand", "SNOW": "snow_block", "DRY_GRASS": "coarse_dirt",
    "TERRACOTTA": "terracotta", "WATER": "water", "OAK_LOG": "oak_log", "SPRUCE_LOG": "spruce_log", "ACACIA_LOG": "acacia_log",
    "OAK_LEAVES": "oak_leaves", "SPRUCE_LEAVES": "spruce_leaves", "ACACIA_LEAVES": "acacia_leaves", "CACTUS": "green_wool", "PLANKS": "oak_planks",
    "BRICK": "bricks", "COBBLE": "cobblestone", "GRAVEL": "gravel", "PINK_LEAVES": "pink_wool",
}  # fmt: skip
PALETTE = [""] * terrain.BLOCK_KINDS
for key, block in NAMES.items():
    PALETTE[getattr(terrain, key)] = block
for number, colour in enumerate(terrain.PAINT_NAMES):
    PALETTE[terrain.PAINT + number] = f"{colour}_concrete"
RED = terrain.PAINT + terrain.PAINT_NAMES.index("red")
WHITE = terrain.PAINT + terrain.PAINT_NAMES.index("white")
TOP = 10
MIDDLE = 0.5


@pytest.fixture(scope="module")
def world() -> Iterator[MinecraftWorld]:
    try:
        made = MinecraftWorld()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


def floor(kind: int = terrain.STONE) -> NDArray[np.uint8]:
    """Ground whose top is at y = 10."""
    blocks = np.zeros(SIZE, np.uint8)
    blocks[:, :TOP] = kind
    return blocks


def at(x: int, z: int) -> tuple[int, int]:
    """Cell of a world column."""
    return x - ORIGIN[0], z - ORIGIN[1]


def plain() -> Surface:
    return Surface(np.full((SIZE[0], SIZE[2]), TOP, np.int16), np.ones((SIZE[0], SIZE[2]), np.bool_), ORIGIN)


def stand(world: MinecraftWorld, blocks: NDArray[np.uint8], *, x: float = MIDDLE, y: float = TOP, z: float = MIDDLE, yaw: float = 0.0) -> None:
    world.reset_to(blocks, PALETTE, plain(), [x, y, z, yaw, 0.0])


def act(keys: str = "", dpitch: float = 0.0, dyaw: float = 0.0) -> NDArray[np.float32]:
    return np.array([*(float(key in keys.split()) for key in KEYS), dpitch, dyaw], np.float32)


class Twin:
    """The embedded world's ticks on the same blocks."""

    def __init__(self, blocks: NDArray[np.uint8], *, x: float = MIDDLE, y: float = TOP, z: float = MIDDLE, yaw: float = 0.0) -> None:
        self.blocks, self.yaw = blocks, math.radians(yaw)
        self.state = np.array([x - ORIGIN[0], y, z - ORIGIN[1], 0, 0, 0, 1, 0], np.float64)

    def step(self, keys: str) -> tuple[NDArray[np.float64], bool]:
        held = np.array([float(key in keys.split()) for key in KEYS])
        blocked = bool(voxel._ticks(self.blocks, self.state, held, math.sin(self.yaw), math.cos(self.yaw), TICKS_PER_STEP))
        return self.state[:3] + np.array([ORIGIN[0], 0.0, ORIGIN[1]]), blocked


def both(world: MinecraftWorld, blocks: NDArray[np.uint8], script: list[str], **start: float) -> tuple[NDArray[np.float64], list[bool]]:
    """Plays a script in both engines; they must agree in every step. Returns the way ``(n, 3)`` and the blocked flags."""
    stand(world, blocks, **start)
    twin = Twin(blocks, **start)
    way, blocked = [], []
    for keys in script:
        view = world.step(act(keys))
        place, wall = twin.step(keys)
        assert view.pose[:3] == pytest.approx(place, abs=1e-4)
        assert view.blocked == wall
        way.append(view.pose[:3])
        blocked.append(view.blocked)
    return np.array(way), blocked


# ------------------------------------------------------------------------------------------------------------------ movement, engine by engine


@pytest.mark.parametrize(
    ("keys", "speed"),
    [
        ("forward", WALK_BLOCKS_PER_TICK),
        ("left", WALK_BLOCKS_PER_TICK),
        ("right", WALK_BLOCKS_PER_TICK),
        ("back", WALK_BLOCKS_PER_TICK),
        ("forward sprint", 1.3 * WALK_BLOCKS_PER_TICK),
        ("back sprint", WALK_BLOCKS_PER_TICK),
        ("forward sneak", 0.3 * WALK_BLOCKS_PER_TICK),
        ("forward sneak sprint", 0.3 * WALK_BLOCKS_PER_TICK),
        ("forward left", 0.1 / (1 - 0.546)),
        ("forward back", 0.0),
    ],
)
def test_steady_speed_of_every_gait(world: MinecraftWorld, keys: str, speed: float) -> None:
    way, blocked = both(world, floor(), [keys] * 10, yaw=33.0)
    assert not any(blocked)
    assert np.linalg.norm(way[-1] - way[-2]) == pytest.approx(TICKS_PER_STEP * speed, abs=4e-3)


@pytest.mark.parametrize(
    ("keys", "yaw", "way"),
    [("forward", 0, (0, 1)), ("forward", 90, (-1, 0)), ("forward", -90, (1, 0)), ("right", 0, (-1, 0)), ("left", 0, (1, 0)), ("back", 180, (0, 1))],
)
def test_keys_move_along_the_convention(world: MinecraftWorld, keys: str, yaw: float, way: tuple[int, int]) -> None:
    path, _ = both(world, floor(), [keys] * 5, yaw=yaw)
    moved = (path[-1] - (MIDDLE, TOP, MIDDLE))[[0, 2]]
    assert moved / np.linalg.norm(moved) == pytest.approx(way, abs=1e-6)


def test_apex_of_a_jump(world: MinecraftWorld) -> None:
    """Sampled every fourth tick, of jumps begun at four different ticks of a step; the apex is at tick 6 of 12."""
    heights = []
    for wait in ("", "jump"):
        way, _ = both(world, floor(), [wait, "jump", "", "", "", ""])
        heights.append(way[:, 1].max() - TOP)
    assert 1.1 < max(heights) <= 1.2523
    stand(world, floor())
    world.step(act())
    state = world._state.copy()
    _, payload = world._ask({"op": "step", "ticks": 6}, np.concatenate([state, [0.0], act("jump")[:7]]).astype("<f8").tobytes())
    assert np.frombuffer(payload, "<f8")[1] - TOP == pytest.approx(1.2522, abs=1e-4)


def test_a_held_jump_key_jumps_again(world: MinecraftWorld) -> None:
    both(world, floor(), ["jump"] * 20)
    both(world, floor(), ["forward jump sprint"] * 20)


def test_one_block_needs_a_jump_and_two_are_too_high(world: MinecraftWorld) -> None:
    blocks = floor()
    blocks[:, TOP, at(0, 3)[1] :] = terrain.STONE
    way, blocked = both(world, blocks, ["forward"] * 10)
    assert blocked[-1]
    assert way[-1] == pytest.approx([MIDDLE, TOP, 3 - 0.3], abs=1e-6)
    way, _ = both(world, blocks, ["forward jump"] * 15)
    assert way[-1, 1] >= TOP + 1
    assert way[-1, 2] > 4
    blocks[:, TOP + 1, at(0, 3)[1] :] = terrain.STONE
    way, blocked = both(world, blocks, ["forward jump"] * 15)
    assert any(blocked)
    assert way[:, 2].max() == pytest.approx(3 - 0.3, abs=1e-6)


@pytest.mark.parametrize("yaw", [-30.0, -45.0, -60.0, 20.0])
def test_a_wall_lets_one_slide_along_it(world: MinecraftWorld, yaw: float) -> None:
    blocks = floor()
    blocks[:, TOP : TOP + 4, at(0, 3)[1] :] = terrain.STONE
    way, blocked = both(world, blocks, ["forward"] * 10, yaw=yaw)
    assert all(blocked[5:])
    assert way[-1, 2] == pytest.approx(3 - 0.3, abs=1e-6)
    along = TICKS_PER_STEP * WALK_BLOCKS_PER_TICK * abs(math.sin(math.radians(yaw)))
    assert abs(way[-1, 0] - way[-2, 0]) == pytest.approx(along, abs=5e-3)


def test_a_door_one_block_wide(world: MinecraftWorld) -> None:
    blocks = floor()
    i, k = at(0, 3)
    blocks[:, TOP : TOP + 4, k] = terrain.STONE
    blocks[i, TOP : TOP + 2, k] = terrain.AIR
    way, blocked = both(world, blocks, ["forward"] * 10)
    assert not any(blocked)
    assert way[-1, 2] > 6
    _, blocked = both(world, blocks, ["forward"] * 10, x=0.8)
    assert any(blocked)


def test_falling_and_ceilings(world: MinecraftWorld) -> None:
    way, _ = both(world, floor(), [""] * 16, y=30.37)
    assert way[-1, 1] == TOP
    blocks = floor()
    blocks[:, TOP + 2] = terrain.STONE
    way, _ = both(world, blocks, ["jump"] * 3)
    assert way[:, 1].max() <= TOP + 0.2 + 1e-6


def test_sneaking_stops_at_an_edge(world: MinecraftWorld) -> None:
    blocks = floor()
    blocks[:, TOP - 3 : TOP, at(0, 3)[1] :] = terrain.AIR
    stand(world, blocks)
    for _ in range(30):
        view = world.step(act("forward sneak"))
    assert view.pose[1] == TOP
    assert view.pose[2] < 3.3


def test_blocked_needs_a_walk_key(world: MinecraftWorld) -> None:
    blocks = floor()
    blocks[:, TOP : TOP + 4, at(0, 2)[1] :] = terrain.STONE
    _, blocked = both(world, blocks, ["forward", "", "", "jump", "", "", "forward", "forward", "forward"])
    assert not any(blocked[1:6])
    assert blocked[-1]


def test_water_slows_and_a_swimmer_gets_out(world: MinecraftWorld) -> None:
    """No parity here: the embedded world sinks with the gravity of older versions (0.02 a tick; 1.13 and later have 0.005)."""
    blocks = floor()
    k = at(0, 3)[1]
    blocks[:, 6:TOP, k : k + 15] = terrain.WATER
    stand(world, blocks)
    places = [world.step(act("forward")).pose for _ in range(12)]
    assert places[-1][1] < TOP
    assert np.linalg.norm(places[-1][[0, 2]] - places[-2][[0, 2]]) < 0.12 * TICKS_PER_STEP
    for _ in range(150):
        view = world.step(act("forward jump"))
    assert view.pose[1] >= TOP
    assert view.pose[2] > 18


def test_a_random_walk_agrees_step_by_step(world: MinecraftWorld) -> None:
    """From the same state each step ends in the same place, but where a corner is passed.

    There the order of the axes decides: prismarine-physics takes x first, Minecraft since 1.14 and the embedded world the longer way first.
    """
    rng = np.random.default_rng(0)
    twin = make_world("voxel", frame_size=(8, 8))
    assert isinstance(twin, voxel.VoxelWorld)
    apart, walls, steps = [], 0, 0
    for seed in range(3):
        land = terrain.load_terrain(seed)
        start = twin.reset(seed).pose
        world.reset_to(np.array(land.blocks), PALETTE, land.surface, start)
        for n in range(300):
            action = act()
            action[:7] = rng.random(7) < (0.9, 0.05, 0.1, 0.1, 0.4, 0.05, 0.3)
            action[8] = rng.normal(0, 20) if n % 5 == 0 else 0
            twin._state[:] = world._state
            twin._state[[0, 2]] -= ORIGIN
            twin._yaw, twin._pitch = world._yaw, world._pitch
            wet = (
                land.blocks[int(twin._state[0]) - 1 : int(twin._state[0]) + 2, :14, int(twin._state[2]) - 1 : int(twin._state[2]) + 2]
                == terrain.WATER
            )
            expected, view = twin.step(action), world.step(action)
            if wet.any():
                continue
            steps += 1
            apart.append(float(np.abs(view.pose - expected.pose).max()))
            walls += view.blocked != expected.blocked
    assert steps > 400
    assert np.mean(np.array(apart) < 1e-4) > 0.95
    assert max(apart) < TICKS_PER_STEP * 0.3
    assert walls <= 0.01 * steps
    twin.close()


def test_what_is_looked_at_agrees_with_the_embedded_world(world: MinecraftWorld) -> None:
    rng, twin, seen = np.random.default_rng(1), make_world("voxel", frame_size=(8, 8)), set()
    assert isinstance(twin, voxel.VoxelWorld)
    names = dict(zip(terrain.BLOCK_NAMES, PALETTE, strict=True))
    for seed in range(3):
        land = terrain.load_terrain(seed)
        world.reset_to(np.array(land.blocks), PALETTE, land.surface, twin.reset(seed).pose)
        for _ in range(80):
            twin.step([1, 0, 0, 0, 1, 0, 0, rng.uniform(-30, 30), rng.uniform(-40, 40)])
            world._state[:] = twin._state
            world._state[[0, 2]] += ORIGIN
            world._yaw, world._pitch = twin._yaw, twin._pitch
            assert world.events() == tuple(names[name] for name in twin.events())
            seen.update(world.events())
    assert len(seen) >= 5, seen
    twin.close()


@pytest.mark.parametrize("yaw", [0.0, 90.0, 180.0, -90.0, 30.0])
def test_the_border_is_solid(world: MinecraftWorld, yaw: float) -> None:
    x, z = (MIDDLE if abs(math.sin(math.radians(yaw))) < 0.1 else -math.sin(math.radians(yaw)) * 110), math.cos(math.radians(yaw)) * 110
    stand(world, floor(), x=x, z=z, yaw=yaw)
    blocked = False
    for _ in range(60):
        view = world.step(act("forward sprint jump"))
        blocked |= view.blocked
    assert blocked
    assert np.abs(view.pose[[0, 2]]).max() <= 128 - MARGIN - 0.3 + 1e-6


# --------------------------------------------------------------------------------------------------------------------------------------- camera


def red_box(frame: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """First and last row and column with red in them."""
    rgb = frame.astype(int)
    rows, columns = np.nonzero((rgb[..., 0] > 15) & (rgb[..., 0] > 2 * rgb[..., 1]) & (rgb[..., 0] > 2 * rgb[..., 2]))
    return rows.min(), rows.max(), columns.min(), columns.max()


def project(point: list[float], pose: NDArray[np.float64], size: tuple[int, int]) -> tuple[float, float]:
    """(row, column), in pixels from the top left corner, of a point: the definition of the project's camera, written out."""
    yaw, pitch = np.radians(pose[3:])
    d = np.array(point) - (pose[0], pose[1] + EYE_HEIGHT, pose[2])
    right = -d[0] * np.cos(yaw) - d[2] * np.sin(yaw)
    level = -d[0] * np.sin(yaw) + d[2] * np.cos(yaw)
    ahead, up = level * np.cos(pitch) - d[1] * np.sin(pitch), d[1] * np.cos(pitch) + level * np.sin(pitch)
    scale = size[0] / 2 / np.tan(np.radians(VERTICAL_FOV) / 2)
    return size[0] / 2 - up / ahead * scale, size[1] / 2 + right / ahead * scale


@pytest.mark.parametrize("size", [(128, 128), (360, 640)])
@pytest.mark.parametrize(
    "pose",
    [[0.5, TOP, 0.5, 0.0, 0.0], [0.5, TOP, 0.5, 12.0, -20.0], [4.5, TOP, 3.5, 51.0, 10.0], [0.5, TOP + 6, 1.5, -8.0, 40.0], [0.5, TOP, 14.5, 180, 5]],
)
def test_block_edges_are_where_the_camera_says(world: MinecraftWorld, size: tuple[int, int], pose: list[float]) -> None:
    """Field of view, aspect, eye height, yaw and pitch at once: a red block's outline, in pixels; and the embedded world's picture of the same."""
    blocks = floor(WHITE)
    i, k = at(0, 7)
    blocks[i, TOP : TOP + 2, k] = RED
    there = MinecraftWorld(size)
    frame = there.reset_to(blocks, PALETTE, plain(), pose).frame
    there.close()
    corners = np.array([project([x, y, z], np.array(pose), size) for x in (0, 1) for y in (TOP, TOP + 2) for z in (7, 8)])
    expected = corners[:, 0].min(), corners[:, 0].max() - 1, corners[:, 1].min(), corners[:, 1].max() - 1
    assert np.array(red_box(frame)) == pytest.approx(np.array(expected), abs=1.2)


def test_the_middle_of_the_picture_from_all_sides(world: MinecraftWorld) -> None:
    """Each of six ways to look shows the colour that lies there, and no picture is mirrored or upside down."""
    colours = ["red", "orange", "lime", "blue", "magenta", "black"]
    blocks = floor(WHITE)
    ways = [(0, 0), (90, 0), (180, 0), (-90, 0), (0, 90), (0, -90)]
    cells = [(0, 1, 3), (-3, 1, 0), (0, 1, -3), (3, 1, 0), (0, -1, 0), (0, 4, 0)]
    for colour, (x, y, z) in zip(colours, cells, strict=True):
        blocks[x - ORIGIN[0], TOP + y, z - ORIGIN[1]] = terrain.PAINT + terrain.PAINT_NAMES.index(colour)
    world.reset_to(blocks, PALETTE, plain(), [0.5, TOP, 0.5, 0, 0])
    true = {
        "red": (142, 33, 33),
        "orange": (224, 97, 1),
        "lime": (94, 169, 24),
        "blue": (45, 47, 143),
        "magenta": (169, 48, 159),
        "black": (8, 10, 15),
    }
    for colour, (yaw, pitch) in zip(colours, ways, strict=True):
        middle = world.render([0.5, TOP, 0.5, yaw, pitch])[30:34, 30:34].reshape(-1, 3).mean(axis=0)
        seen = middle / max(np.linalg.norm(middle), 1.0)
        scores = {name: float(seen @ np.array(rgb) / np.linalg.norm(rgb)) for name, rgb in true.items() if name != "black"}
        assert (middle.max() < 30) if colour == "black" else max(scores, key=scores.__getitem__) == colour, (colour, middle)


def test_there_are_no_holes(world: MinecraftWorld) -> None:
    """From above, ground is everywhere; a missing or wrongly wound face would show the sky."""
    world.reset_to(floor(RED), PALETTE, plain(), [0.5, TOP, 0.5, 0, 0])
    for pitch in (90.0, 60.0):
        rgb = world.render([0.5, TOP + 8.0, 0.5, 33.0, pitch]).astype(int)
        assert ((rgb[..., 0] > 2 * rgb[..., 1]) & (rgb[..., 0] > 60)).all()
    blocks = np.full(SIZE, RED, np.uint8)
    blocks[118:138, TOP : TOP + 6, 118:138] = terrain.AIR
    world.reset_to(blocks, PALETTE, plain(), [0.5, TOP, 0.5, 0, 0])
    for yaw, pitch in ((0, 0), (45, -30), (130, 20), (-100, -80)):
        rgb = world.render([0.5, TOP + 1.0, 0.5, yaw, pitch]).astype(int)
        assert (rgb[..., 0] > 2 * rgb[..., 1]).all(), "inside a red cave everything is red"


def test_pictures_of_any_size_and_under_water(world: MinecraftWorld) -> None:
    for size in ((48, 96), (360, 640), (200, 100)):
        other = make_world("minecraft", frame_size=size)
        frame = other.reset(0).frame
        assert frame.shape == (*size, 3)
        assert frame.dtype == np.uint8
        assert frame.std() > 10
        other.close()
    blocks = floor()
    blocks[:, 2:TOP] = terrain.WATER
    dry = world.reset_to(blocks, PALETTE, plain(), [0.5, TOP, 0.5, 0, 0]).frame
    wet = world.render([0.5, 4.0, 0.5, 0, 0])
    assert wet[..., 2].mean() > 2 * wet[..., 0].mean(), "blue"
    assert dry[:20, :, 0].mean() > wet[:20, :, 0].mean()


# ------------------------------------------------------------------------------------------------------------------------------------- protocol


def play(world: World, seed: int, steps: int = 60) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    views = [world.reset(seed)]
    for n in range(steps):
        action = act()
        action[:7] = rng.random(7) < (0.9, 0.05, 0.1, 0.1, 0.4, 0.05, 0.3)
        action[8] = rng.normal(0, 20) if n % 5 == 0 else 0
        views.append(world.step(action))
    return np.stack([v.pose for v in views]), np.stack([v.frame for v in views])


def test_the_same_seed_is_the_same_world_in_two_processes(world: MinecraftWorld) -> None:
    poses, frames = play(world, 5)
    other = MinecraftWorld()
    again, pictures = play(other, 5)
    assert np.array_equal(poses, again)
    assert psnr(frames, pictures).min() >= 40.0
    assert np.array_equal(world.surface().heights, other.surface().heights)
    assert not np.array_equal(other.reset(6).frame, frames[0])
    other.close()
    code = (
        "import hashlib\nfrom tests.worldpack_env.worlds.test_minecraft import play\nfrom worldpack_env.worlds.minecraft import MinecraftWorld\n"
        "world = MinecraftWorld()\nposes = play(world, 5)[0]\nworld.close()\nprint(hashlib.sha256(poses.tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=Path(__file__).parents[3])
    assert told.stdout.split()[-1] == hashlib.sha256(poses.tobytes()).hexdigest()


def test_spawn_surface_and_solid_agree_with_physics(world: MinecraftWorld) -> None:
    assert isinstance(world, World)
    for seed in (0, 1, 2**62 + 11):
        pose = world.reset(seed).pose
        surface = world.surface()
        i, k = at(math.floor(pose[0]), math.floor(pose[2]))
        assert surface.walkable[i, k]
        assert surface.walkable.sum() > 20_000
        assert pose[1] == surface.heights[i, k]
        still = world.step(act())
        assert np.array_equal(still.pose, pose), "at rest after a reset"
        assert not still.blocked
        for i, k in np.argwhere(surface.walkable)[::1999]:
            x, z, height = int(i) + ORIGIN[0], int(k) + ORIGIN[1], int(surface.heights[i, k])
            assert world.solid((x, height - 1, z), (1, 3, 1))[0, :, 0].tolist() == [True, False, False]
            view = world.reset(seed, [x + 0.5, height, z + 0.5, 0, 0])
            view = world.step(act())
            assert view.pose[1] == height, "the ground carries"
    assert world.solid((ORIGIN[0] - 2, 60, 0), (2, 3, 4)).all()
    assert world.solid((0, -3, 0), (2, 3, 4)).all()
    assert not world.solid((0, 200, 0), (3, 3, 3)).any()
    assert world.solid(box_corner(world.reset(0).pose), BOX).shape == BOX


def test_random_play_never_enters_a_block_and_walls_are_solid(world: MinecraftWorld) -> None:
    rng = np.random.default_rng(1)
    walls = 0
    for seed in (3, 4):
        world.reset(seed)
        for n in range(300):
            action = act()
            action[:7] = rng.random(7) < (0.9, 0.05, 0.1, 0.1, 0.4, 0.05, 0.3)
            action[8] = rng.normal(0, 20) if n % 5 == 0 else 0
            view = world.step(action)
            x, y, z = view.pose[:3]
            assert not world._overlaps(x, y, z)
            assert np.isfinite(view.pose).all()
            walls += view.blocked
    assert walls > 5


def test_turning_comes_first_wraps_and_stops(world: MinecraftWorld) -> None:
    pose = world.reset(3).pose
    before = world.reset(3, [*pose[:3], 170.0, 85.0])
    after = world.step(act(dpitch=10, dyaw=22.5))
    assert after.pose[3] == pytest.approx(-167.5)
    assert after.pose[4] == 90.0
    assert not np.array_equal(before.frame, after.frame)
    assert np.array_equal(after.frame, world.render(after.pose))
    assert world.step(act(dpitch=-200)).pose[4] == -90.0
    world.reset_to(floor(), PALETTE, plain(), [0.5, TOP, 0.5, 0, 0])
    assert world.step(act("forward", dyaw=90)).pose[0] < 0.5, "the walk goes where the turn looks"


def test_a_reset_forgets_the_motion_before_it(world: MinecraftWorld) -> None:
    pose = world.reset(3).pose
    fresh = world.step(act()).pose
    for _ in range(3):
        world.step(act("forward jump sprint", dyaw=30))
    world.reset(3, pose)
    assert np.array_equal(world.step(act()).pose, fresh)


def test_snapshots_branch_also_into_another_world(world: MinecraftWorld) -> None:
    world.reset(7)
    for n in range(10):
        world.step(act("forward jump", dyaw=9.0 * n))
    kept = world.snapshot()
    one = [world.step(act("forward", dyaw=5)) for _ in range(8)]
    world.reset(8)
    other = MinecraftWorld()
    for branch in (world, other):
        branch.restore(kept)
        two = [branch.step(act("forward", dyaw=5)) for _ in range(8)]
        assert np.array_equal([v.pose for v in one], [v.pose for v in two])
        assert np.array_equal(one[-1].frame, two[-1].frame)
    other.close()
    stand(world, floor())
    with pytest.raises(NotImplementedError, match="given blocks"):
        world.snapshot()


def test_a_world_may_be_used_from_another_thread(world: MinecraftWorld) -> None:
    expected = play(world, 2, steps=5)
    with ThreadPoolExecutor(1) as other:
        for a, b in zip(other.submit(play, world, 2, 5).result(), expected, strict=True):
            assert np.array_equal(a, b)
    assert np.array_equal(play(world, 2, steps=5)[1], expected[1])


def test_two_worlds_side_by_side_do_not_mix(world: MinecraftWorld) -> None:
    """They share one graphics context."""
    other = MinecraftWorld((48, 80))
    alone = world.reset(4).frame
    beside = other.reset(5).frame
    assert np.array_equal(world.render(world.spawn), alone)
    assert np.array_equal(other.render(other.spawn), beside)
    other.close()
    assert np.array_equal(world.render(world.spawn), alone)


def test_a_pose_that_is_refused_ends_the_episode_before_it(world: MinecraftWorld) -> None:
    pose = world.reset(3).pose
    with pytest.raises(ValueError, match="inside a block of world 4"):
        world.reset(4, [pose[0], 1.0, pose[2], 0, 0])
    with pytest.raises(RuntimeError, match="reset"):
        world.step(act())


def test_poses_and_blocks_that_cannot_be_are_refused(world: MinecraftWorld) -> None:
    pose = world.reset(3).pose
    with pytest.raises(ValueError, match="inside a block of world 3"):
        world.reset(3, pose - [0, 1, 0, 0, 0])
    with pytest.raises(ValueError, match="outside the world"):
        world.reset(3, [127.0, 20, 0, 0, 0])
    with pytest.raises(ValueError, match=r"expected \(5,\)"):
        world.reset(3, np.tile(pose, (2, 1)))
    with pytest.raises(ValueError, match="seed is -1"):
        world.reset(-1)
    world.reset(3)
    with pytest.raises(ValueError, match="expected"):
        world.step(np.zeros(4))
    with pytest.raises(ValueError, match="not finite"):
        world.step(np.full(9, np.nan))
    with pytest.raises(ValueError, match="frame_size is"):
        MinecraftWorld((2, 64))
    with pytest.raises(ValueError, match="names with `air` first"):
        world.reset_to(floor(), ["stone"], plain(), pose)
    with pytest.raises(BackendUnavailable, match="has no block named 'marble'"):
        world.reset_to(floor(), ["air", "marble"], plain(), pose)
    high = world.reset(3, np.add(pose, [0, 30.5, 0, 0, 0]))
    assert high.pose[1] == pose[1] + 30.5
    assert world.step(act()).pose[1] < high.pose[1], "in the air is fine; the player falls"


def test_a_closed_world_says_so(world: MinecraftWorld) -> None:
    other = MinecraftWorld()
    with pytest.raises(RuntimeError, match=r"Call reset\(\) before step\(\)\."):
        other.step(act())
    other.reset(0)
    assert other._process is not None
    pid = other._process.pid
    other.close()
    other.close()
    assert not Path(f"/proc/{pid}").exists()
    for call in (lambda: other.step(act()), lambda: other.reset(0), other.surface, lambda: other.spawn, lambda: other.snapshot()):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_meshes_that_do_not_fit_are_refused(world: MinecraftWorld) -> None:
    renderer = MeshRenderer((16, 16), np.zeros((32, 32, 4), np.uint8))
    with pytest.raises(ValueError, match="do not fit 10 bytes"):
        renderer.add(np.ones((1, GROUPS), int), b"x" * 10)
    with pytest.raises(ValueError, match="atlas is"):
        MeshRenderer((16, 16), np.zeros((30, 32, 4), np.uint8))
    renderer.release()
    renderer.release()


# --------------------------------------------------------------------------------------------------------------------------------------- faults


def pid_of(world: MinecraftWorld) -> int:
    assert world._process is not None
    return world._process.pid


def test_killing_the_process_is_one_clear_error_and_the_next_reset_works(world: MinecraftWorld) -> None:
    expected = play(world, 9, steps=5)[0]
    pid = pid_of(world)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(EpisodeLost, match=r"(was killed by signal 9|has ended).*reset\(\)"):
        world.step(act("forward"))
    assert time.monotonic() - began < 5.0
    assert not Path(f"/proc/{pid}").exists(), "no zombie"
    for call in (lambda: world.step(act("forward")), lambda: world.render([0.5, 40, 0.5, 0, 0]), world.surface):
        with pytest.raises(RuntimeError, match=r"reset\(\)"):
            call()
    assert np.array_equal(play(world, 9, steps=5)[0], expected)
    assert pid_of(world) != pid


def test_an_environment_truncates_the_episode_and_goes_on(world: MinecraftWorld) -> None:
    reality = Reality("minecraft", 2)
    pose = world.reset(9).pose
    points = np.stack([pose[:3], pose[:3] + np.array([3.0, 0.0, 0.0])])
    start = Start("minecraft", 9, world.render(pose)[None], pose[None], np.zeros((0, 9), np.float32), points, 5)
    reality.start([0, 1], [start, start], [0, 0])
    victim = reality.worlds[1]
    assert isinstance(victim, MinecraftWorld)
    os.kill(pid_of(victim), signal.SIGKILL)
    forward = np.stack([act("forward")] * 2)
    assert reality.step([0, 1], forward).failed.tolist() == [False, True]
    reality.start([1], [start], [0])
    views = reality.step([0, 1], forward)
    assert not views.failed.any()
    reality.close()


def test_a_process_that_hangs_ends_at_the_time_out(world: MinecraftWorld) -> None:
    other = MinecraftWorld(timeout=8.0)
    other.reset(9)
    assert other._process is not None
    other._process.timeout = 1.0
    pid = pid_of(other)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="did not answer within 1 s"):
        other.step(act("forward"))
    assert time.monotonic() - began < 2.0
    assert not Path(f"/proc/{pid}").exists()
    assert other.reset(9).frame.std() > 10
    other.close()


@pytest.mark.parametrize("what", ["world", "mesh", "step"])
@pytest.mark.parametrize("how", ["short", "garbage"])
def test_wrong_answers_never_become_a_frame(world: MinecraftWorld, tmp_path: Path, what: str, how: str) -> None:
    """A server that is right until it is asked for ``what``."""
    server = Path(world._command[1])
    write = {
        "short": "original(id, header, payload.subarray(0, payload.length - 3))",
        "garbage": "require('fs').writeSync(1, 'Debugger attached.\\n')",
    }[how]
    script = tmp_path / "server.js"
    script.write_text(
        f"const wire = require({str(server.with_name('wire.js'))!r})\n"
        "const original = wire.writeMessage\n"
        "const read = wire.readMessage\n"
        "let op = ''\n"
        "wire.readMessage = () => { const m = read(); op = m === null ? '' : m.header.op; return m }\n"
        f"wire.writeMessage = (id, header, payload) => {{ if (op === {what!r}) {{ {write} }} else original(id, header, payload) }}\n"
        f"require({str(server)!r})\n"
    )
    other = MinecraftWorld(timeout=10.0)
    right = other._command
    other._command = [right[0], str(script)]
    with pytest.raises(BackendUnavailable, match=r"sent \d+ bytes, expected|wrote b'Debu'"):
        other.reset(1)
        other.step(act("forward"))
    with pytest.raises(RuntimeError, match="reset"):
        other.step(act("forward"))
    other._command = right
    assert other.reset(1).frame.std() > 10
    assert other.step(act("forward")).frame.shape == (64, 64, 3)
    other.close()
