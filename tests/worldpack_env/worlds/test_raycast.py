"""The ray caster against a slow one that shares no code with it, and against the conventions of the camera."""

import hashlib
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldpack_env.worlds import raycast
from worldpack_env.worlds import terrain as t
from worldpack_env.worlds.voxel import VoxelWorld
from worldpack_model.geometry import EYE_HEIGHT, VERTICAL_FOV, camera_rays, world_rays_torch

FACES = {(0, -1): 0, (0, 1): 1, (1, -1): 2, (1, 1): 3, (2, -1): 4, (2, 1): 5}


def directions(pose: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """World direction ``(H, W, 3)`` of every pixel, by the project's own camera."""
    rays = camera_rays(*size, aspect=size[1] / size[0]).reshape(-1, 3)
    return world_rays_torch(torch.from_numpy(rays), torch.from_numpy(pose)).numpy().reshape(*size, 3)


def slow_hit(blocks: NDArray[np.uint8], eye: NDArray[np.float64], ray: NDArray[np.float64], far: float) -> tuple[float, int]:
    """Depth and id of one ray: every crossing of a grid plane, sorted; the first solid cell beyond one."""
    crossings: list[tuple[float, int]] = []
    for axis in range(3):
        if abs(ray[axis]) < 1e-12:
            continue
        ends = sorted((eye[axis], eye[axis] + ray[axis] * far))
        crossings += [((plane - eye[axis]) / ray[axis], axis) for plane in range(math.ceil(ends[0]), math.floor(ends[1]) + 1)]
    crossings = sorted(c for c in crossings if c[0] > 0)
    for n, (at, axis) in enumerate(crossings):
        then = crossings[n + 1][0] if n + 1 < len(crossings) else far
        cell = np.floor(eye + ray * (at + then) / 2).astype(int)
        if (cell < 0).any() or (cell >= blocks.shape).any():
            continue
        if blocks[tuple(cell)] != t.AIR:
            face = FACES[axis, -1 if ray[axis] > 0 else 1]
            return at, int(((cell[0] * t.SIZE_Y + cell[1]) * t.SIZE_Z + cell[2]) * 6 + face)
    return math.inf, -1


def random_pose(built: t.Terrain, rng: np.random.Generator, kind: int) -> NDArray[np.float64]:
    """A pose: kinds 0-1 on the ground, 2 along the axes, 3 high up, 4 beside the world."""
    places = np.argwhere(built.surface.walkable)
    i, k = places[rng.integers(len(places))]
    x, y, z = i - 128 + rng.uniform(0.3, 0.7), float(built.surface.heights[i, k]), k - 128 + rng.uniform(0.3, 0.7)
    yaw, pitch = rng.uniform(-180, 180), rng.uniform(-40, 40)
    if kind == 2:
        x, z, yaw, pitch = i - 127.513, k - 127.541, 90.0 * rng.integers(4) - 180.0, (0.0, 90.0, -90.0)[rng.integers(3)]
    elif kind == 3:
        y, pitch = y + rng.uniform(5, 40), rng.uniform(20, 80)
    elif kind == 4:
        x, yaw = -140.0, -90.0
    return np.array([x, y, z, yaw, pitch])


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("size", [(12, 12), (9, 17)])
def test_first_hits_agree_with_a_slow_ray_caster(kind: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(10 * kind + size[0])
    hits = 0
    for seed in (0, 3, 4):
        built = t.load_terrain(seed)
        pose = random_pose(built, rng, kind)
        eye = np.array([pose[0] + 128, pose[1] + EYE_HEIGHT, pose[2] + 128])
        depth, ids = raycast.first_hits(built, pose, size)
        wrong = []
        for j, row in enumerate(directions(pose, size)):
            for i, ray in enumerate(row):
                at, what = slow_hit(built.blocks, eye, ray, raycast.VIEW_DISTANCE)
                hits += what >= 0
                if what != ids[j, i] or (what >= 0 and abs(at - depth[j, i]) > 1e-6):
                    wrong.append((j, i, at, float(depth[j, i]), what, int(ids[j, i])))
        # A ray through the very edge of a block may take either face.
        assert all(abs(w[2] - w[3]) < 1e-6 for w in wrong), wrong[:5]
        assert len(wrong) <= 2, wrong[:5]
    assert hits > 20


def under_water(built: t.Terrain) -> list[NDArray[np.float64]]:
    """Poses in the water of a world."""
    wet = np.argwhere(built.blocks == t.WATER)[::997]
    return [np.array([i - 127.5, y - 1.0, k - 127.5, float(i * 7 % 360 - 180), float(k % 80 - 40)]) for i, y, k in wet]


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        (0, "ce048a0f9f116ed1"),
        (1, "510108f18292bf28"),
        (2, "90ad55eaa86085df"),
        (3, "ce2d5637066092b9"),
        (4, "7117038a10f36c72"),
        (None, "7f90e3eed1f8b986"),
    ],
)
def test_pictures_are_those_that_models_were_trained_on(kind: int | None, digest: str) -> None:
    """Digests of what the ray caster drew before it was made faster (commit d6cf02d): byte for byte the same since."""
    rng = np.random.default_rng(kind)
    told = hashlib.sha256()
    for seed in range(6):
        built = t.load_terrain(seed)
        if kind is None:
            shots = [((64, 64), pose) for pose in under_water(built)]
        else:
            shots = [(size, random_pose(built, rng, kind)) for size in ((64, 64), (33, 90)) for _ in range(3)]
        for size, pose in shots:
            told.update(raycast.render(built, pose, size).tobytes())
    assert told.hexdigest()[:16] == digest


@pytest.mark.parametrize("size", [(64, 64), (9, 17), (50, 90)])
def test_threads_draw_the_same_picture(size: tuple[int, int]) -> None:
    for seed in range(3):
        built = t.load_terrain(seed)
        for kind in (0, 2, 3):
            pose = random_pose(built, np.random.default_rng(kind), kind)
            alone = raycast.render(built, pose, size)
            assert all(np.array_equal(alone, raycast.render(built, pose, size, threads=threads)) for threads in (2, 3, 8))
    with pytest.raises(ValueError, match="threads"):
        VoxelWorld(threads=0)


def test_field_of_view_and_direction_of_pixels() -> None:
    pose = np.array([0.5, 60.0, 0.5, 37.0, 10.0])
    for size in ((64, 64), (90, 160)):
        rays = directions(pose, size)
        top, bottom = rays[0, size[1] // 2], rays[-1, size[1] // 2]
        angle = math.degrees(math.acos(float(top @ bottom)))
        assert angle == pytest.approx(VERTICAL_FOV, abs=1.5)
    # The hit point of a pixel, found with the project's camera, lies on a face plane of the block that was hit.
    built = t.load_terrain(1)
    pose = random_pose(built, np.random.default_rng(2), 0)
    depth, ids = raycast.first_hits(built, pose, (64, 64))
    seen = np.isfinite(depth)
    points = np.array([pose[0] + 128, pose[1] + EYE_HEIGHT, pose[2] + 128]) + directions(pose, (64, 64))[seen] * depth[seen][:, None]
    face, cell = ids[seen] % 6, ids[seen] // 6
    corner = np.stack([cell // (t.SIZE_Y * t.SIZE_Z), cell // t.SIZE_Z % t.SIZE_Y, cell % t.SIZE_Z], axis=1)
    inside = points - corner
    assert inside.min() > -1e-6
    assert inside.max() < 1 + 1e-6
    assert np.allclose(inside[np.arange(len(face)), face // 2], face % 2, atol=1e-6)


def test_ids_name_the_same_face_from_every_pose() -> None:
    built = t.load_terrain(2)
    pose = random_pose(built, np.random.default_rng(0), 0)
    pose[4] = 20.0
    moved = np.add(pose, [0.1, 0.0, 0.1, 4.0, 0.0])
    one, two = (set(raycast.first_hits(built, p, (64, 64))[1].ravel().tolist()) - {-1} for p in (pose, moved))
    assert len(one & two) > 0.5 * len(one)


def test_turning_right_moves_the_picture_left() -> None:
    built = t.load_terrain(0)
    moves = []
    for n in range(6):
        pose = random_pose(built, np.random.default_rng(n), 0)
        pose[4] = 0.0
        turned = np.add(pose, [0.0, 0.0, 0.0, 5.0, 0.0])
        before, after = (raycast.first_hits(built, p, (64, 64))[1][32] for p in (pose, turned))
        common = [(np.flatnonzero(before == v).mean(), np.flatnonzero(after == v).mean()) for v in np.intersect1d(before, after) if v >= 0]
        moves += [b - a for a, b in common]
    assert np.median(moves) == pytest.approx(-64 / (2 * math.tan(math.radians(35))) * math.tan(math.radians(5)), abs=1.5)


def test_looking_down_brings_the_ground_and_up_the_sky() -> None:
    built = t.load_terrain(0)
    pose = np.array([0.5, 50.0, 0.5, 0.0, -89.0])
    up = raycast.render(built, pose, (64, 64))
    assert np.isinf(raycast.first_hits(built, pose, (64, 64))[0]).all()
    assert (up[..., 2].astype(int) > up[..., 0].astype(int) + 50).all(), "the zenith is blue"
    pose[4] = 89.0
    assert np.isfinite(raycast.first_hits(built, pose, (64, 64))[0]).all()
    level = np.array([0.5, 60.0, 0.5, 0.0, 0.0])
    frame = raycast.render(built, level, (64, 64)).astype(int)
    assert frame[0, 32, 2] - frame[0, 32, 0] > frame[31, 32, 2] - frame[31, 32, 0], "paler towards the horizon"


def test_fog_is_complete_at_the_view_distance() -> None:
    built = t.load_terrain(0)
    for seed in range(12):
        pose = random_pose(built, np.random.default_rng(seed), 3)
        pose[4] = 0.0
        depth, _ = raycast.first_hits(built, pose, (64, 64))
        frame = raycast.render(built, pose, (64, 64)).astype(int)
        far = np.isfinite(depth) & (depth > 62)
        if far.any():
            assert np.abs(frame[far] - (198, 224, 250)).max() < 90
            far = np.isfinite(depth) & (depth > 63.5)
            assert not far.any() or np.abs(frame[far] - (198, 224, 250)).mean() < 12
    assert raycast.first_hits(built, [0.5, 60.0, 0.5, 0.0, 0.0], (64, 64))[0].max() == math.inf


@pytest.mark.parametrize("size", [(64, 64), (64, 65), (33, 64), (128, 128), (90, 160), (360, 640), (8, 8)])
def test_any_size_shows_the_same_view(size: tuple[int, int]) -> None:
    built = t.load_terrain(4)
    pose = random_pose(built, np.random.default_rng(1), 0)
    frame = raycast.render(built, pose, size)
    assert frame.shape == (*size, 3)
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, raycast.render(built, pose, size))
    middle = frame[:, size[1] // 2 - size[0] // 2 : size[1] // 2 + size[0] // 2]
    square = raycast.render(built, pose, (64, 64))
    assert np.abs(middle.mean(axis=(0, 1)) - square.mean(axis=(0, 1))).max() < 12


def test_small_motions_change_the_picture_little() -> None:
    """A picture that flickers under a hair's breadth of motion cannot be learned."""
    built = t.load_terrain(4)
    changes = []
    for n in range(10):
        pose = random_pose(built, np.random.default_rng(n), 0)
        one, two = (raycast.render(built, np.add(pose, [0, 0, 0, turn, 0]), (64, 64)).astype(float) for turn in (0.0, 0.05))
        changes.append(np.abs(one - two).mean())
    assert np.mean(changes) < 2.0


def test_an_eye_under_water_sees_blue_and_not_far() -> None:
    built = t.load_terrain(0)
    x, z = np.argwhere((built.blocks == t.WATER)[:, t.WATER_LEVEL - 3 : t.WATER_LEVEL].all(axis=1))[0]
    frame = raycast.render(built, [x - 127.5, t.WATER_LEVEL - 1.5 - EYE_HEIGHT, z - 127.5, 20.0, 10.0], (64, 64)).astype(int)
    assert (frame[..., 2] >= frame[..., 0]).all()
    above = raycast.render(built, [x - 127.5, t.WATER_LEVEL + 0.5, z - 127.5, 20.0, 60.0], (64, 64)).astype(int)
    assert (above[..., 2] > above[..., 0]).mean() > 0.5, "water is blue from above"


@pytest.mark.parametrize("size", [(4, 64), (64, 5000), (64.5, 64), 64, (64, 64, 3)])
def test_sizes_out_of_range_are_named(size: object) -> None:
    with pytest.raises(ValueError, match="frame_size is"):
        raycast.check_size(size)  # type: ignore[arg-type]


def test_poses_are_checked() -> None:
    built = t.load_terrain(0)
    with pytest.raises(ValueError, match="expected \\(5,\\)"):
        raycast.render(built, np.zeros((2, 5)), (64, 64))
    with pytest.raises(ValueError, match="pitch"):
        raycast.first_hits(built, [0, 0, 0, 0, 91], (64, 64))
