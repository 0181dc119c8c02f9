"""Retrieval: the paper's score in log space, suppression, invariances."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldpack_model.config import Level, PackingConfig, RetrievalConfig
from worldpack_model.retrieval import log_score, retrieved_columns, select

PAPER = RetrievalConfig(sigma_forward=0.01, sigma_lateral=10.0, mu_opposite=1.0, weight_same=1.0, weight_opposite=1.0, sharpness=1.0)


def walk(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    poses = torch.zeros(n, 5, dtype=torch.float64)
    poses[:, [0, 2]] = torch.randn(n, 2, generator=g, dtype=torch.float64).cumsum(0)
    poses[:, 3] = torch.rand(n, generator=g, dtype=torch.float64) * 360 - 180
    return poses


def choose(poses: torch.Tensor, query: torch.Tensor, packing: PackingConfig, config: RetrievalConfig, **kinds: torch.Tensor):
    n = len(poses)
    return select(
        packing,
        config,
        query=query[None],
        poses=poses[None],
        steps=kinds.get("steps", torch.arange(n))[None],
        imagined=kinds.get("imagined", torch.zeros(n, dtype=torch.bool))[None],
    )


def test_score_against_the_formula_written_out() -> None:
    query = torch.tensor([[0.0, 0, 0, 0.0, 0.0]], dtype=torch.float64)  # looks to +z
    past = torch.tensor([[[3.0, 9.0, 0.5, 60.0, 0.0], [1.0, 0.0, 1.2, 180.0, 0.0]]], dtype=torch.float64)
    config = RetrievalConfig(sigma_forward=2.0, sigma_lateral=5.0, weight_same=0.7, weight_opposite=0.3, sharpness=1.0)
    same = 0.7 * math.cos(math.radians(60)) * math.exp(-(0.5**2) / 8) * math.exp(-(3.0**2) / 50)
    back = 0.3 * 1.0 * math.exp(-((1.2 - 1.0) ** 2) / 8) * math.exp(-(1.0**2) / 50)
    assert log_score(query, past, config)[0].exp().tolist() == pytest.approx([same, back], rel=1e-4)


def test_log_space_keeps_the_order_where_the_plain_score_is_zero() -> None:
    query = torch.tensor([[0.0, 0, 0, 0, 0]], dtype=torch.float64)
    past = torch.zeros(1, 3, 5, dtype=torch.float64)
    past[0, :, 2] = torch.tensor([4.0, 2.0, 3.0])
    score = log_score(query, past, PAPER)[0]
    assert (score.exp() == 0).all(), "the paper's sigma of 0.01 blocks underflows"
    assert score.argsort(descending=True).tolist() == [1, 2, 0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-170, 170), st.floats(-40, 40))
def test_rigid_motion_changes_nothing(seed: int, turn: float, shift: float) -> None:
    poses, packing = walk(60, seed), PackingConfig((Level(1, 1, 2), Level(2, 2, 6)))
    query = poses[30] + torch.tensor([0.3, 0, 0.2, 5.0, 0])
    a = math.radians(turn)
    moved = torch.cat([poses, query[None]]).clone()
    x, z = moved[:, 0].clone(), moved[:, 2].clone()
    moved[:, 0], moved[:, 2] = x * math.cos(a) - z * math.sin(a) + shift, x * math.sin(a) + z * math.cos(a) - shift
    moved[:, 3] += turn + 360
    first, second = choose(poses, query, packing, RetrievalConfig()), choose(moved[:-1], moved[-1], packing, RetrievalConfig())
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.used, second.used)


def test_recent_frames_come_newest_first_and_are_not_retrieved_again() -> None:
    packing = PackingConfig((Level(1, 2, 1), Level(2, 3, 4)))
    poses = torch.zeros(30, 5, dtype=torch.float64)
    chosen = choose(poses, poses[0], packing, RetrievalConfig(suppression_steps=0))
    assert chosen.indices[0, [0, 1, 3, 4, 5]].tolist() == [29, 28, 27, 26, 25]
    retrieved = chosen.indices[0, retrieved_columns(packing)].tolist()
    assert len(set(retrieved)) == 5
    assert max(retrieved) < 25


def test_suppression_spreads_the_choice() -> None:
    poses = torch.zeros(100, 5, dtype=torch.float64)
    poses[:, 2] = torch.arange(100) * 0.1
    chosen = choose(poses, poses[20], PackingConfig((Level(1, 1, 6),)), RetrievalConfig(suppression_steps=4))
    steps = sorted(chosen.indices[0, 1:].tolist())
    assert min(b - a for a, b in itertools.pairwise(steps)) > 4


def test_a_real_frame_wins_over_an_imagined_one_of_the_same_view() -> None:
    poses = torch.zeros(6, 5, dtype=torch.float64)
    imagined = torch.tensor([True, False, True, True, True, True])
    chosen = choose(poses, poses[0], PackingConfig((Level(1, 1, 1),)), RetrievalConfig(), imagined=imagined)
    assert chosen.indices[0, 1] == 1


def test_empty_memory_uses_nothing() -> None:
    chosen = choose(
        torch.zeros(4, 5, dtype=torch.float64),
        torch.zeros(5, dtype=torch.float64),
        PackingConfig(),
        RetrievalConfig(),
        steps=torch.tensor([0, -1, -1, -1]),
    )
    assert chosen.used.sum() == 1
    assert not chosen.indices[~chosen.used].any(), "unused places point at a valid column"
