"""A body's arithmetic among known blocks: the embedded engine's own, step by step, and literal cases."""

import numpy as np
import pytest
import torch

from worldpack_env.worlds import make_world
from worldpack_model.motion import Body, MotionPrediction, _cells, footed
from worldpack_model.walking import STILL, momentum_of, walk

FLOOR = torch.tensor([[[x, -1.0, z] for x in range(-2, 3) for z in range(-2, 3)]])
WALL = torch.tensor([[[x, y, 1.0] for x in range(-2, 3) for y in (0, 1)]])
STAND = torch.tensor([STILL], dtype=torch.float64)


def act(*, forward: float = 1.0, jump: float = 0.0, dyaw: float = 0.0) -> torch.Tensor:
    action = torch.zeros(1, 9)
    action[0, 0], action[0, 4], action[0, 8] = forward, jump, dyaw
    return action


def pose(z: float = 0.5, y: float = 0.0) -> torch.Tensor:
    return torch.tensor([[0.5, y, z, 0.0, 0.0]], dtype=torch.float64)


def blocks(*parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    corners = torch.cat(parts, dim=1).double()
    return corners, torch.ones(1, 1, corners.shape[1], dtype=torch.bool)


def test_steps_agree_with_the_embedded_engine() -> None:
    """Walks, jumps, falls, walls, corners; the engine is asked for the blocks. Steps in water, which is left to the network, do not."""
    world = make_world("voxel", frame_size=(64, 64))
    rng, stopped, rose, seen = np.random.default_rng(0), 0, 0, 0
    for seed in range(6):
        view, momentum = world.reset(seed), STAND
        for t in range(120):
            if t % 12 == 0:
                kind = rng.random()
            action = np.zeros(9, np.float32)
            action[0], action[3], action[4], action[6] = rng.random() < 0.9, kind < 0.1, kind < 0.5, kind > 0.8
            action[8] = rng.uniform(-60, 60) if rng.random() < 0.2 else 0.0
            before = view.pose.copy()
            body = Body(torch.from_numpy(before)[None], torch.from_numpy(action)[None], torch.zeros(1, 3), torch.zeros(1, 9))
            cells = _cells(body)
            solid = torch.from_numpy(world.solid(cells[0].amin(0).numpy().astype(np.int64), (3, 6, 3))).reshape(1, 1, -1)
            walked = walk(body.pose, momentum, body.action, cells, solid)
            view = world.step(action)
            state = world._state  # type: ignore[attr-defined]
            momentum = torch.from_numpy(state[3:8].copy())[None]
            error = np.abs(walked.motion[0, 0].numpy() - (view.pose - before)[:3]).max()
            if error < 1e-6 and torch.allclose(walked.momentum[0, 0], momentum[0], atol=1e-6):
                seen += 1
                stopped, rose = stopped + bool(view.blocked), rose + (view.pose[1] > before[1] + 0.5)
    assert seen > 0.85 * 6 * 120, "the rest is water, and trees above the blocks asked about"
    assert stopped > 30
    assert rose > 30
    world.close()


def test_a_wall_stops_a_body_at_its_face() -> None:
    there, momentum = pose(), STAND
    for _ in range(4):
        walked = walk(there, momentum, act(), *blocks(FLOOR, WALL))
        there[:, :3] += walked.motion[:, 0]
        momentum = walked.momentum[:, 0]
    assert there[0, 2] == pytest.approx(0.7)  # half a body's width before z = 1
    assert walked.motion.abs().max() < 1e-9
    assert momentum[0, 2] == 0


def test_a_jump_is_as_high_as_the_games_and_a_step_needs_one() -> None:
    step = WALL[:, WALL[0, :, 1] == 0]
    low, high = (walk(pose(z=0.7), STAND, act(jump=j), *blocks(FLOOR, step)) for j in (0.0, 1.0))
    assert low.motion[0, 0, 2] == pytest.approx(0.0, abs=1e-9)
    assert high.motion[0, 0, 1] == pytest.approx(0.42 + 0.3332 + 0.248136 + 0.16477328)
    assert high.motion[0, 0, 2] > 0.0
    assert high.momentum[0, 0, 4] == 7.0, "ten ticks from one jump to the next"


def test_nothing_below_lets_a_body_fall_and_layouts_are_apart() -> None:
    corners, solid = blocks(FLOOR)
    walked = walk(pose(), STAND, act(forward=0), corners, torch.cat([solid, ~solid], dim=1))
    assert walked.motion[0, 0].abs().max() < 1e-9
    assert walked.motion[0, 1, 1] == pytest.approx(-0.0784 - 0.155232 - 0.23052736 - 0.3043168128)
    assert walked.momentum[0, :, 3].tolist() == [1.0, 0.0]


def test_momentum_is_told_by_a_steps_motion() -> None:
    leap = walk(pose(), STAND, act(jump=1.0), *blocks(FLOOR))
    told = momentum_of(leap.motion[:, 0])
    assert told[0, 1] == pytest.approx(float(leap.momentum[0, 0, 1]))
    assert told[0, 3] == 0.0
    assert momentum_of(torch.zeros(1, 3, dtype=torch.float64))[0].tolist() == pytest.approx(list(STILL))


def test_what_the_network_means_is_made_exact_where_blocks_allow_it() -> None:
    """Among the ways that its blocks allow, the nearest; where none is near, what it means stands."""
    body = Body(pose(z=0.5), act(), torch.zeros(1, 3), torch.zeros(1, 9))
    cells = _cells(body)
    assert cells.shape == (1, 54, 3)
    ground, wall = cells[..., 1] < 0, (cells[..., 1] >= 0) & (cells[..., 2] >= 1)
    logits = torch.where(ground, 8.0, torch.where(wall, -1.0, -8.0))  # the wall is doubted: 0.27
    meant = torch.tensor([[0.02, 0.01, 0.24], [0.0, 0.02, 0.56], [0.0, 3.0, 0.0]])
    made = []
    for wanted in meant:
        prediction = MotionPrediction(torch.zeros(1, 6), wanted.expand(1, 6, 3), logits)
        made.append(footed(body, torch.tensor([[0.0, -0.0784, 0.118, 1.0, 0.0]], dtype=torch.float64), prediction, wanted[None])[0][0])
    assert made[0].tolist() == pytest.approx([0.0, 0.0, 0.2], abs=1e-6), "stopped at the face"
    assert made[1][2] > 0.6, "the doubted wall is not there"
    assert made[2].tolist() == meant[2].tolist(), "no body can do that: as in water, the network decides"
    untaught = MotionPrediction(torch.zeros(1, 6), meant[:1].expand(1, 6, 3), None)
    assert footed(body, STAND, untaught, meant[:1])[0][0].tolist() == meant[0].tolist(), "nothing is known of blocks"


def test_walking_through_a_block_that_is_believed_in_takes_more_than_meaning_to() -> None:
    """What the network means lies between stopping at the face and going on: among doubted blocks the nearer way, among believed ones the stop."""
    body = Body(pose(z=0.5), act(), torch.zeros(1, 3), torch.zeros(1, 9))
    cells, going = _cells(body), torch.tensor([[0.0, -0.0784, 0.118, 1.0, 0.0]], dtype=torch.float64)
    ground, wall = cells[..., 1] < 0, (cells[..., 1] >= 0) & (cells[..., 2] >= 1)

    def made(sure: float, meant: float) -> float:
        logits, wanted = torch.where(ground, 8.0, torch.where(wall, sure, -8.0)), torch.tensor([[0.0, 0.0, meant]])
        return float(footed(body, going, MotionPrediction(torch.zeros(1, 6), wanted.expand(1, 6, 3), logits), wanted)[0][0, 2])

    free = made(-8.0, 0.8)
    assert free > 0.7
    between = 0.5 * (0.2 + free) + 0.05
    assert made(-1.0, between) == made(2.2, free) == free
    assert made(2.2, between) == pytest.approx(0.2)
    assert made(4.0, between + 0.2) == pytest.approx(0.2), "surer than any doubt: there is no other way"
