"""Retrieval: the paper's score in log space, suppression, invariances."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldpack_model.config import Level, PackingConfig, RetrievalConfig
from worldpack_model.geometry import VERTICAL_FOV
from worldpack_model.retrieval import Candidates, Probes, coverage, known_cells, log_score, probes_of, retrieved_columns, select, take_by_coverage

SCORE = RetrievalConfig(method="score")
PAPER = RetrievalConfig(method="score", sigma_forward=0.01, sigma_lateral=10.0, mu_opposite=1.0, weight_same=1.0, weight_opposite=1.0, sharpness=1.0)


def walk(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    poses = torch.zeros(n, 5, dtype=torch.float64)
    poses[:, [0, 2]] = torch.randn(n, 2, generator=g, dtype=torch.float64).cumsum(0)
    poses[:, 3] = torch.rand(n, generator=g, dtype=torch.float64) * 360 - 180
    return poses


def probes(config: RetrievalConfig) -> Probes:
    return probes_of(config.probe_grid, config.probe_depths, VERTICAL_FOV, 1.0, torch.device("cpu"))


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
    first, second = choose(poses, query, packing, SCORE), choose(moved[:-1], moved[-1], packing, SCORE)
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.used, second.used)


@pytest.mark.parametrize("method", ["score", "coverage"])
def test_recent_frames_come_newest_first_and_are_not_retrieved_again(method: str) -> None:
    packing = PackingConfig((Level(1, 2, 1), Level(2, 3, 4)))
    poses = torch.zeros(30, 5, dtype=torch.float64)
    chosen = choose(poses, poses[0], packing, RetrievalConfig(method=method, suppression_steps=0))
    assert chosen.indices[0, [0, 1, 3, 4, 5]].tolist() == [29, 28, 27, 26, 25]
    retrieved = chosen.indices[0, retrieved_columns(packing)].tolist()
    assert len(set(retrieved)) == 5
    assert max(retrieved) < 25


def test_suppression_spreads_the_choice() -> None:
    poses = torch.zeros(100, 5, dtype=torch.float64)
    poses[:, 2] = torch.arange(100) * 0.1
    chosen = choose(poses, poses[20], PackingConfig((Level(1, 1, 6),)), RetrievalConfig(method="score", suppression_steps=4))
    steps = sorted(chosen.indices[0, 1:].tolist())
    assert min(b - a for a, b in itertools.pairwise(steps)) > 4


@pytest.mark.parametrize("method", ["score", "coverage"])
def test_a_real_frame_wins_over_an_imagined_one_of_the_same_view(method: str) -> None:
    poses = torch.zeros(6, 5, dtype=torch.float64)
    imagined = torch.tensor([True, False, True, True, True, True])
    chosen = choose(poses, poses[0], PackingConfig((Level(1, 1, 1),)), RetrievalConfig(method=method), imagined=imagined)
    assert chosen.indices[0, 1] == 1


@pytest.mark.parametrize("method", ["score", "coverage"])
def test_empty_memory_uses_nothing(method: str) -> None:
    chosen = choose(
        torch.zeros(4, 5, dtype=torch.float64),
        torch.zeros(5, dtype=torch.float64),
        PackingConfig(),
        RetrievalConfig(method=method),
        steps=torch.tensor([0, -1, -1, -1]),
    )
    assert chosen.used.sum() == 1
    assert not chosen.indices[~chosen.used].any(), "unused places point at a valid column"


def poses_of(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_coverage_of_the_same_pose_is_whole_and_of_a_turned_back_nothing() -> None:
    query = poses_of((3, 64, -2, 40, 10))
    past = poses_of((3, 64, -2, 40, 10), (3, 64, -2, -140, 0))[None]
    shown = coverage(query, past, probes(RetrievalConfig()))[0]
    assert torch.allclose(shown[0], torch.ones_like(shown[0]), atol=1e-4)
    assert not shown[1].any()


def test_coverage_against_points_placed_by_hand() -> None:
    """One ray straight ahead (+z), points 5 and 30 blocks away."""
    config = RetrievalConfig(probe_grid=(1, 1), probe_depths=(5.0, 30.0))
    past = poses_of(
        (0, 0, 10, 0, 0),  # ten blocks ahead, same way: the near point is behind it, the far one 20 away
        (0, 0, -10, 0, 0),  # ten behind: both in view, from 15 and from 40
        (0, 0, 40, 180, 0),  # ahead, looking back: both in view, from the other side
        (10, 0, 5, 90, 0),  # ten blocks beside the near point and looking at it, square to the view
    )[None]
    shown = coverage(poses_of((0, 0, 0, 0, 0)), past, probes(config))[0]
    assert shown[0].tolist() == pytest.approx([0.0, 1.0])
    assert shown[1].tolist() == pytest.approx([5 / 15, 30 / 40], abs=1e-4)
    assert shown[2].tolist() == pytest.approx([0.0, 0.0], abs=1e-4)
    assert shown[3].tolist() == pytest.approx([0.5 * 5 / 10, 0.0], abs=1e-4)


def test_coverage_ends_at_the_edge_of_the_picture() -> None:
    config = RetrievalConfig(probe_grid=(1, 1), probe_depths=(10.0,))
    past = torch.zeros(1, 4, 5, dtype=torch.float64)
    half = VERTICAL_FOV / 2
    past[0, :, 3] = torch.tensor([half - 0.5, half + 0.5, 0, 0])
    past[0, :, 4] = torch.tensor([0, 0, half - 0.5, half + 0.5])
    seen = coverage(torch.zeros(1, 5, dtype=torch.float64), past, probes(config))[0, :, 0] > 0
    assert seen.tolist() == [True, False, True, False]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-170, 170), st.floats(-40, 40))
def test_rigid_motion_leaves_coverage(seed: int, turn: float, shift: float) -> None:
    poses = walk(60, seed)
    a = math.radians(turn)
    moved = poses.clone()
    moved[:, 0], moved[:, 2] = poses[:, 0] * math.cos(a) - poses[:, 2] * math.sin(a) + shift, poses[:, 0] * math.sin(a) + poses[:, 2] * math.cos(a)
    moved[:, 3] += turn + 360
    config = RetrievalConfig(probe_grid=(2, 3))
    before, after = (coverage(place[:1], place[None], probes(config)) for place in (poses, moved))
    assert float(((before - after).abs() > 1e-3).float().mean()) < 0.01, "only points on the very edge of a picture may change sides"


def test_the_choice_covers_instead_of_repeating() -> None:
    """Ten looks the same way and one to each side: the second and third choice are the sides."""
    poses = torch.zeros(14, 5, dtype=torch.float64)
    poses[10, 3], poses[11, 3] = 35.0, -35.0
    chosen = choose(poses, torch.zeros(5, dtype=torch.float64) + poses_of((0, 0, -8, 0, 0))[0], PackingConfig((Level(1, 1, 3),)), RetrievalConfig())
    assert {10, 11} <= set(chosen.indices[0, 1:].tolist())


def test_frames_that_show_nothing_are_taken_by_score() -> None:
    poses = torch.zeros(6, 5, dtype=torch.float64)
    poses[:, 3] = 180.0
    poses[:, 2] = torch.tensor([-9.0, -3.0, -1.0, -5.0, -7.0, 50.0])
    chosen = choose(poses, torch.zeros(5, dtype=torch.float64), PackingConfig((Level(1, 1, 2),)), RetrievalConfig())
    assert chosen.indices[0, 1] == 2, "nearest to where a frame looking back scores best"


def test_few_candidates_bound_the_choice() -> None:
    poses = walk(300, 1)
    query = poses[200]
    few = choose(poses, query, PackingConfig(), RetrievalConfig(candidates=12))
    assert bool(few.used.all())
    assert len(set(few.indices[0].tolist())) == PackingConfig().frames


def test_known_cells_are_those_some_frame_shows() -> None:
    """The view's own frame shows all of it, one turned by half the field of view half of it, none or one that looks away nothing."""
    here = torch.tensor([[0.0, 1.62, 0.0, 0.0, 0.0]], dtype=torch.float64)
    turned, away = here.clone(), here.clone()
    turned[0, 3], away[0, 3] = VERTICAL_FOV / 2, 180.0
    none = torch.full_like(here, torch.nan)

    def known(*frames: torch.Tensor) -> torch.Tensor:
        return known_cells(here, torch.stack(frames, dim=1), RetrievalConfig(), (8, 8))[0]

    assert known(here, none).min() > 0.99
    assert known(none).max() == 0
    assert known(away).max() == 0
    half = known(turned) > 0.5  # yaw grows clockwise from south, so the turned camera sees the view's right half
    assert half[:, 5:].all()
    assert not half[:, :3].any()
    assert torch.equal(known(away, turned, none), known(turned))


@pytest.mark.parametrize("count", [12, 40, 256, 257, 300])
def test_what_compiled_code_is_asked_has_one_of_two_sizes(count: int) -> None:
    packing, config, sizes = PackingConfig(), RetrievalConfig(), []
    poses, steps = walk(count, 3)[None], torch.arange(count)[None]
    asked = {"query": poses[:, -1] + 0.3, "poses": poses, "steps": steps, "imagined": steps % 3 == 0}

    def take(query: torch.Tensor, among: Candidates, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(among.there.shape[1])
        return take_by_coverage(query, among, *rest)

    plain, padded = select(packing, config, **asked), select(packing, config, **asked, take=take, room=320)
    assert sizes == [256 if count <= 256 else 320]
    assert torch.equal(plain.used, padded.used)
    assert torch.equal(plain.indices, padded.indices)
    assert int(plain.used.sum()) == min(count, packing.frames)
