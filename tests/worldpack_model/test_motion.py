"""Motion: conventions, alternatives whose mean never happens, what the model reads, and that it learns walls from what it saw."""

import pytest
import torch

from worldpack_model.config import PRESETS, VARIANTS
from worldpack_model.geometry import BOX, EYE_HEIGHT, box_corner, camera_rays, world_rays_torch
from worldpack_model.motion import (
    ASIDE_SHARE,
    BLOCKED_SHARE,
    POSE_NOISE,
    STRAYED_BLOCKS,
    STRAYED_SHARE,
    UNKNOWN,
    Blocks,
    Body,
    MotionModel,
    MotionPrediction,
    advance,
    chances_of_places,
    commanded_distance,
    forgetful,
    realised,
    shaken,
    strayed,
    unhindered,
    was_blocked,
)
from worldpack_model.motion import _blocks_at as blocks_at
from worldpack_model.motion import _cells as cells_of
from worldpack_model.motion import _looked_at as looked_at
from worldpack_model.motion import _pairs as pairs_of
from worldpack_model.packing import Context
from worldpack_model.retrieval import FOOTPRINTS, Footprints, footprints

CONFIG = PRESETS["debug"]


def body(count: int, *, yaw: float = 0.0, forward: float = 1.0) -> Body:
    pose = torch.tensor([[0.5, 64.0, 0.5, yaw, 0.0]], dtype=torch.float64).repeat(count, 1)
    action = torch.zeros(count, 9)
    action[:, 0] = forward
    return Body(pose, action, torch.zeros(count, 3, dtype=torch.float64), torch.zeros(count, 9))


def context(count: int, generator: torch.Generator) -> Context:
    frames, shape = CONFIG.packing.frames, (CONFIG.autoencoder.latent_channels, *CONFIG.latent_size)
    poses = body(count).pose[:, None].repeat(1, frames, 1)
    return Context(
        torch.randn(count, frames, *shape, generator=generator),
        poses,
        torch.ones(count, frames, dtype=torch.int64),
        torch.zeros(count, frames, dtype=torch.bool),
        torch.ones(count, frames, dtype=torch.bool),
    )


def first(c: Context, frames: int) -> Context:
    """The first frames of a context alone."""
    return Context(*(part[:, :frames] for part in c))


def nothing_stood(count: int) -> Footprints:
    no = torch.zeros(count, FOOTPRINTS, dtype=torch.bool)
    return Footprints(torch.zeros(count, FOOTPRINTS, 3, dtype=torch.float64), no, no)


def test_conventions() -> None:
    poses = torch.tensor([[1.0, 2, 3, 80, 85]], dtype=torch.float64)
    action = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 10.0, 22.5]])
    after = advance(poses, action, torch.tensor([[0.1, 0.2, 0.8]]))
    assert after[0, 3:].tolist() == pytest.approx([102.5, 90.0]), "yaw is added, pitch stops straight down"
    assert after[0, :3].tolist() == pytest.approx([1.1, 2.2, 3.8]), "motion is in world axes"
    assert realised(poses, after)[0, 1].item() == pytest.approx(0.2)


def test_unhindered_walks_where_the_turned_body_looks() -> None:
    poses = torch.tensor([[0.0, 5, 0, 67.5, 0]], dtype=torch.float64).repeat(4, 1)
    actions = torch.zeros(4, 9)
    actions[0, 0], actions[0, 8] = 1, 22.5
    actions[1, 1] = 1
    actions[2, 0], actions[2, 3] = 1, 1
    after = unhindered(poses, actions)
    free = 4 * 0.2159
    assert realised(poses, after)[0].tolist() == pytest.approx([0, 0, free], abs=1e-6)
    assert after[0, 0].item() == pytest.approx(-free, abs=1e-6), "yaw 90 looks to -x"
    assert realised(poses, after)[1].tolist() == pytest.approx([0, 0, -free], abs=1e-6)
    assert realised(poses, after)[2].tolist() == pytest.approx([free / 2**0.5, 0, free / 2**0.5], abs=1e-6), "no faster on the diagonal"
    assert torch.equal(after[3], poses[3])


def test_blocked_is_what_was_commanded_and_did_not_happen() -> None:
    actions = torch.zeros(4, 9)
    actions[:3, 0] = 1
    free = float(commanded_distance(actions)[0])
    assert free == pytest.approx(4 * 0.2159)
    local = torch.tensor([[0, 0, free], [0, 0, 0.9 * BLOCKED_SHARE * free], [0, 0, 0.0], [0, 0, 0.0]])
    assert was_blocked(actions, local).tolist() == [False, True, True, False]


def test_the_likeliest_alternative_is_no_mean() -> None:
    means = torch.tensor([[[0.0, 0, 0], [0.0, 0, 0.8], [0.0, 0, 0.81]]])
    split = MotionPrediction(torch.tensor([[0.4, 0.25, 0.35]]).log(), means)
    assert split.likeliest[0, 2].item() == pytest.approx(0.81), "two that say nearly the same count together"
    assert MotionPrediction(torch.tensor([[0.8, 0.1, 0.1]]).log(), means).likeliest[0, 2].item() == 0.0


def test_alternatives_are_drawn_by_their_probability() -> None:
    means = torch.tensor([0.0, 0.4, 0.8, 0.81])[:, None] * torch.tensor([0.0, 0, 1])
    split = MotionPrediction(torch.tensor([0.27, 0.03, 0.35, 0.35]).log().expand(8000, -1), means.expand(8000, -1, -1))
    chance = torch.rand(8000, generator=torch.Generator().manual_seed(0))
    ahead = split.drawn(chance)[:, 2]
    assert (ahead == 0.0).float().mean().item() == pytest.approx(0.27 / 0.97, abs=0.02)
    assert not (ahead == 0.4).any(), "too improbable"
    assert (ahead > 0.5).float().mean().item() == pytest.approx(0.7 / 0.97, abs=0.02)
    edges = MotionPrediction(split.logits[:2], split.means[:2]).drawn(torch.tensor([0.0, 1 - 2**-24]))
    assert torch.equal(edges, means[[0, 3]])
    assert torch.equal(split.drawn(chance), split.drawn(chance))


def test_what_stops_a_jump_stops_a_walk() -> None:
    """One chance serves both, as if a step or a wall were there."""
    means = torch.tensor([0.8, 0.0])[:, None] * torch.tensor([0.0, 0, 1])
    chance = torch.rand(4000, generator=torch.Generator().manual_seed(0))

    def stopped(share: float) -> torch.Tensor:
        return MotionPrediction(torch.tensor([1 - share, share]).log().expand(4000, -1), means.expand(4000, -1, -1)).drawn(chance)[:, 2] == 0

    walk, jump = stopped(0.5), stopped(0.2)
    assert (walk | ~jump).all()
    assert (walk & ~jump).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_chances_are_uniform_and_belong_to_places() -> None:
    far = torch.randint(-3000, 3000, (20000, 3), generator=torch.Generator().manual_seed(1)).double()
    bodies = body(20000)
    bodies = bodies._replace(pose=torch.cat([far + 0.5, bodies.pose[:, 3:]], dim=1))
    seeds = torch.randint(2**62, (20000,), generator=torch.Generator().manual_seed(2))
    chance = chances_of_places(seeds, bodies)
    assert ((chance >= 0) & (chance < 1)).all()
    ranked = chance.sort().values
    assert (ranked - torch.linspace(0, 1, 20000)).abs().max() < 0.015, "uniform (Kolmogorov-Smirnov)"
    for other in (chances_of_places(seeds + 1, bodies), chances_of_places(seeds, bodies._replace(pose=bodies.pose + torch.eye(5)[0]))):
        assert abs(torch.corrcoef(torch.stack([chance, other]))[0, 1]) < 0.03, "another seed, the next block"
    higher = bodies._replace(pose=bodies.pose + 0.9 * torch.eye(5)[1], last_motion=torch.ones(20000, 3))
    assert torch.equal(chances_of_places(seeds, higher), chance), "the same column, in the middle of a jump too"


def test_shaken_poses_lead_to_the_truth() -> None:
    before, generator = body(4000), torch.Generator().manual_seed(0)
    after = before.pose + torch.tensor([0.1, 0.0, 0.8, 0.0, 0.0])
    moved, target = shaken(before, after, generator)
    off = moved.pose - before.pose
    assert torch.equal(off[:, 3:], torch.zeros_like(off[:, 3:]))
    assert (moved.pose[:, :3] + target).numpy() == pytest.approx(after[:, :3].numpy())
    still = (off[:, :3] == 0).all(1)
    assert 0.45 < still.float().mean() < 0.55
    assert off[~still, :3].std().item() == pytest.approx(POSE_NOISE, rel=0.1)


def test_strayed_bodies_are_led_back() -> None:
    """Real frames and footprints never move; imagined ones go with the body or stay, as one."""
    before, generator = body(4000), torch.Generator().manual_seed(0)
    target = torch.randn((4000, 3), generator=generator, dtype=torch.float64)
    c, near = context(4000, generator), nothing_stood(4000)
    c = c._replace(imagined=torch.rand(c.imagined.shape, generator=generator) < 0.5)
    near = near._replace(imagined=torch.rand(near.imagined.shape, generator=generator) < 0.5)
    off, wanted, (seen, stood) = strayed(before, target, (c, near), generator)
    offset = off.pose[:, :3] - before.pose[:, :3]
    assert (off.pose[:, 1] + wanted[:, 1]).numpy() == pytest.approx((before.pose[:, 1] + target[:, 1]).numpy()), "to the true height"
    assert torch.equal(wanted[:, [0, 2]], target[:, [0, 2]]), "sideways as it was"
    assert torch.equal(off.pose[:, 3:], before.pose[:, 3:])
    high, aside = offset[:, 1] != 0, (offset[:, [0, 2]] != 0).any(1)
    astray = high | aside
    assert 0.8 * STRAYED_SHARE < high.float().mean() < 1.2 * STRAYED_SHARE
    assert 0.8 * ASIDE_SHARE < aside.float().mean() < 1.2 * ASIDE_SHARE
    assert offset[aside, 0].std().item() == pytest.approx(STRAYED_BLOCKS, rel=0.1)
    assert set(offset[:, 1].round(decimals=9).tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    for moved, still, imagined in ((seen.poses, c.poses, c.imagined), (stood.positions, near.positions, near.imagined)):
        shift = (moved - still)[..., :3]
        assert not shift[~imagined].any()
        along = (shift - offset[:, None]).abs().amax(-1) < 1e-9
        for row in range(len(offset)):
            if astray[row] and imagined[row].any():
                kept = shift[row][imagined[row]]
                assert bool(along[row][imagined[row]].all()) or not kept.any()
    both = astray & c.imagined.any(1)
    went = ((seen.poses - c.poses)[both] != 0).flatten(1).any(1)
    assert 0.4 < went.float().mean() < 0.6


def test_who_forgets_keeps_the_newest_frames_and_their_places() -> None:
    generator = torch.Generator().manual_seed(0)
    count, frames = 400, CONFIG.packing.frames
    c = context(count, generator)
    c = c._replace(ages=torch.stack([torch.randperm(frames, generator=generator) + 1 for _ in range(count)]))
    c.poses[..., 0] = c.ages.double()  # a place of its own for each age
    c = c._replace(used=c.ages != 2, imagined=c.ages % 2 == 1)
    near = Footprints(torch.full((count, FOOTPRINTS, 3), 9.0, dtype=torch.float64), *[torch.ones(count, FOOTPRINTS, dtype=torch.bool)] * 2)
    seen, stood = forgetful((c, near), 0.25, 3, generator)
    forgot = (seen.used != c.used).any(1)
    assert 0.15 < forgot.float().mean() < 0.35
    assert torch.equal(seen.used[forgot], (c.used & (c.ages <= 3))[forgot])
    places = [sorted(row[used].tolist()) for row, used in zip(stood.positions[forgot][..., 0], stood.used[forgot], strict=True)]
    assert all(row == [1.0, 3.0] for row in places), "the frame of age 2 is not used"
    assert stood.imagined[forgot][stood.used[forgot]].all()
    for part, given in zip(stood, near, strict=True):
        assert torch.equal(part[~forgot], given[~forgot])


def test_unused_frames_and_footprints_change_nothing() -> None:
    torch.manual_seed(0)
    model, generator = MotionModel(CONFIG).eval(), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.surroundings.out.weight)  # it starts at zero
    c, near = context(2, generator), nothing_stood(2)
    used = torch.zeros_like(c.used)
    used[:, 0] = True
    far = c.latents.clone()
    far[:, 1:] += 9
    with torch.no_grad():
        one, two = (
            model(body(2), (c._replace(used=used), near)),
            model(body(2), (c._replace(used=used, latents=far), near._replace(positions=near.positions + 3))),
        )
        seen = model(body(2), (c._replace(latents=far), near))
    assert torch.equal(one.means, two.means)
    assert torch.equal(one.logits, two.logits)
    assert not torch.equal(one.means, seen.means), "used frames do matter"


def test_blocks_outside_of_a_picture_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a processor does and a GPU does not."""
    generator = torch.Generator().manual_seed(5)
    seen = context(3, generator)
    away = torch.randn(seen.poses.shape, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1, 3, 90, 20])
    seen = seen._replace(poses=seen.poses + away, used=torch.rand(seen.used.shape, generator=generator) < 0.8)
    surroundings = MotionModel(CONFIG).surroundings
    middle = cells_of(body(3)) + 0.5
    asked: list[int] = []

    def count(inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = pairs_of(inside)
        asked.append(len(found[0]))
        return found

    monkeypatch.setattr("worldpack_model.motion._pairs", count)
    some = surroundings._seen(middle, seen)

    monkeypatch.setattr("worldpack_model.motion._AT_HAND", ())
    torch.testing.assert_close(surroundings._seen(middle, seen), some)
    assert 0 < asked[0] < 0.6 * asked[1] and asked[1] == some[..., 0].numel() and some.abs().sum() > 0


def test_pictures_are_looked_at_between_their_cells_as_grid_sample_does() -> None:
    generator = torch.Generator().manual_seed(6)
    pictures, at = torch.randn(4, 5, 6, 8, generator=generator), 2.4 * torch.rand(4, 30, 2, generator=generator) - 1.2
    expected = torch.nn.functional.grid_sample(pictures, at[:, :, None], align_corners=False, padding_mode="border")[..., 0].transpose(1, 2)
    found = looked_at(pictures, torch.arange(4).repeat_interleave(30), *at.reshape(-1, 2).unbind(-1))
    torch.testing.assert_close(found, expected.reshape(-1, 5))


def test_whole_blocks_of_shift_change_nothing() -> None:
    torch.manual_seed(0)
    model, c = MotionModel(CONFIG).eval(), context(2, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.surroundings.out.weight)
    shift = torch.tensor([17.0, -3, 250, 0, 0], dtype=torch.float64)
    moved = c._replace(poses=c.poses + shift)
    with torch.no_grad():
        one = model(body(2), (c, nothing_stood(2)))
        two = model(body(2)._replace(pose=body(2).pose + shift), (moved, nothing_stood(2)))
    assert torch.allclose(one.means, two.means, atol=1e-5)


def test_footprints_are_the_nearest_and_without_memory_only_the_recent() -> None:
    poses = torch.zeros(1, 40, 5, dtype=torch.float64)
    poses[0, :, 0] = torch.arange(40)
    steps, imagined = torch.arange(40)[None], torch.zeros(1, 40, dtype=torch.bool)
    steps[0, 5] = -1
    query = poses[:, 4]
    near = footprints(CONFIG.packing, query=query, poses=poses, steps=steps, imagined=imagined)
    assert bool(near.used.all())
    assert sorted(near.positions[0, :, 0].tolist()) == [*range(5), *range(6, 17)], "an empty column is no footprint"
    few = footprints(VARIANTS["recent"], query=query, poses=poses, steps=steps, imagined=imagined)
    assert sorted(few.positions[0, few.used[0], 0].tolist()) == [36, 37, 38, 39]


def test_it_learns_a_wall_from_a_remembered_view() -> None:
    """One channel of a remembered frame says whether the way is blocked; nothing else does."""
    torch.manual_seed(0)
    model, generator = MotionModel(CONFIG), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def batch(count: int) -> tuple[Context, torch.Tensor, torch.Tensor]:
        wall = torch.rand(count, generator=generator) < 0.5
        c = first(context(count, generator), 3)
        c.latents[:, 2, 0] = torch.where(wall, 2.0, -2.0)[:, None, None]
        target = torch.zeros(count, 3)
        target[:, 2] = torch.where(wall, 0.2, 0.63)
        return c, target, wall

    for _ in range(240):
        c, target, _ = batch(32)
        loss = model.loss(body(32), (c, nothing_stood(32)), target)[0]
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    c, target, wall = batch(64)
    with torch.no_grad():
        likeliest = model(body(64), (c, nothing_stood(64))).likeliest
    assert ((likeliest[:, 2] < 0.4) == wall).float().mean() > 0.95
    assert (likeliest - target).norm(dim=-1).median() < 0.1


def told(pose: torch.Tensor, block: tuple[int, int, int], solid: torch.Tensor) -> Blocks:
    """A recording that tells of one block only, given by its lowest corner."""
    box = torch.full((len(pose), *BOX), UNKNOWN, dtype=torch.uint8)
    corner = torch.from_numpy(box_corner(pose.numpy()))
    x, y, z = (torch.tensor(block) - corner[0]).tolist()
    box[:, x, y, z] = solid.byte()
    return Blocks(box, corner)


def test_what_a_recording_tells_of_blocks_is_found_by_their_place() -> None:
    before = body(3)  # at (0.5, 64, 0.5), walking to +z
    blocks = told(before.pose, (0, 64, 1), torch.tensor([True, False, True]))
    cells = cells_of(before)
    assert cells[0].amin(0).tolist() == [-1, 61, -1]
    assert cells[0].amax(0).tolist() == [1, 66, 1]
    at = (cells[0] == torch.tensor([0, 64, 1])).all(-1)
    truth = blocks_at(blocks, cells)
    assert truth[:, at][:, 0].tolist() == [1, 0, 1]
    assert (truth[:, ~at] == UNKNOWN).all()
    strayed_up = before._replace(pose=before.pose + torch.tensor([0.0, 2, 0, 0, 0]))
    truth = blocks_at(blocks, cells_of(strayed_up))
    assert truth[:, (cells_of(strayed_up)[0] == torch.tensor([0, 64, 1])).all(-1)][:, 0].tolist() == [1, 0, 1], "a block stays where it is"
    far = before._replace(pose=before.pose + 40)
    assert (blocks_at(blocks, cells_of(far)) == UNKNOWN).all()


def test_it_learns_a_block_from_where_it_is_in_a_picture() -> None:
    """The one cell of a picture that lies on the ray to the block says what it is; all others say something by chance."""
    torch.manual_seed(0)
    model, generator = MotionModel(CONFIG), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.surroundings.parameters(), lr=3e-3)
    rays = torch.from_numpy(camera_rays(*CONFIG.latent_size)).reshape(-1, 3)

    def batch(count: int) -> tuple[Context, Blocks, torch.Tensor]:
        solid, c = torch.rand(count, generator=generator) < 0.5, first(context(count, generator), 1)
        c.poses[:, 0] += torch.tensor([0.0, 0, -3, 0, 5]) + torch.rand((count, 5), generator=generator) * torch.tensor([1.0, 0, 0, 30, 15])
        way = torch.tensor([0.5, 64.5, 1.5]) - c.poses[:, 0, :3] - torch.tensor([0, EYE_HEIGHT, 0])
        cell = (world_rays_torch(rays, c.poses[:, :1]) * way[:, None]).sum(-1).argmax(1)
        c.latents[:, 0, 0] = 2.0 * torch.randint(0, 2, (count, *CONFIG.latent_size), generator=generator) - 1
        c.latents[:, 0, 0].flatten(1)[torch.arange(count), cell] = torch.where(solid, 3.0, -3.0)
        return c, told(body(count).pose, (0, 64, 1), solid), solid

    for _ in range(250):
        c, blocks, _ = batch(64)
        loss = model.loss(body(64), (c, nothing_stood(64)), torch.zeros(64, 3), blocks)[2].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    c, _, solid = batch(256)
    with torch.no_grad():
        _, odds = model.surroundings(body(256), c, nothing_stood(256))
    at = (cells_of(body(1))[0] == torch.tensor([0, 64, 1])).all(-1)
    assert ((odds[:, at][:, 0] > 0) == solid).float().mean() > 0.9


def test_it_can_be_taught_in_bf16() -> None:
    """Training with ``mixed_precision`` bf16 asks it under autocast: the same gradients but for rounding."""
    torch.manual_seed(0)
    model, c = MotionModel(CONFIG), context(8, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.surroundings.out.weight, std=0.05)
    weight, gradients = model.surroundings.look[0].weight, []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _, entropy = model.loss(body(8), (c, nothing_stood(8)), torch.zeros(8, 3), told(body(8).pose, (0, 64, 1), torch.ones(8) > 0))
        gradients.append(torch.autograd.grad((loss + entropy).sum(), weight)[0].flatten())
    assert gradients[0].norm() > 0
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.98
