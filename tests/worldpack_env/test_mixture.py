"""Imagined and real episodes in one batch: each slot is what it would be alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.worldpack_env.fakes import CountingWorld, FakeModel, make_bank, make_start
from worldpack_env.assembly import assemble
from worldpack_env.imagination import Imagination
from worldpack_env.mixture import Mixture
from worldpack_env.reality import Reality
from worldpack_env.rollout import Rollout
from worldpack_env.tasks import make_task


def parts() -> tuple[Imagination, Reality]:
    return Imagination(FakeModel(), 2), Reality("counting", 3, frame_size=(40, 40), factory=lambda name, frame_size: CountingWorld(frame_size))  # type: ignore[arg-type]


def test_every_slot_is_that_of_its_own_simulator_in_any_order() -> None:
    both, (imagined, real) = Mixture(parts()), parts()
    starts, seeds = [make_start(seed=i, yaw=20.0 * i) for i in range(5)], [100 + i for i in range(5)]
    order = [3, 0, 4, 1, 2]
    views = both.start(order, [starts[i] for i in order], [seeds[i] for i in order])
    alone = imagined.start([0, 1], starts[:2], seeds[:2]), real.start([0, 1, 2], starts[2:], seeds[2:])
    assert both.num_slots == 5
    assert views.retrieved.shape == (5, 3)
    rng = np.random.default_rng(0)
    for _ in range(4):
        actions = rng.integers(0, 2, (5, 9)).astype(np.float32)
        views = both.step(order, actions[order])
        alone = imagined.step([0, 1], actions[:2]), real.step([0, 1, 2], actions[2:])
        for name in ("frames", "poses", "blocked", "failed"):
            expected = np.concatenate([getattr(a, name) for a in alone])
            assert np.array_equal(getattr(views, name), expected[order]), name
        assert np.array_equal(views.retrieved[np.argsort(order)][:2], alone[0].retrieved)
        assert (views.retrieved[np.argsort(order)][2:] == -1).all()
    some = both.step([4], np.zeros((1, 9), np.float32))
    assert some.frames.shape == (1, 40, 40, 3)
    assert some.retrieved.shape == (1, 3)  # whoever is asked


def test_engines_slots_may_end_alone() -> None:
    rollout = Rollout(Mixture(parts()), make_task("goto"), make_bank("AB"))
    rngs = [np.random.default_rng(i) for i in range(5)]
    rollout.begin([3], rngs[:1])  # also first of all
    rollout.begin(range(5), rngs)
    rollout.advance(range(5), np.zeros((5, 9), np.float32))
    rollout.begin([2, 4], rngs[:2])
    assert rollout.info(range(5))["retrieved"].shape == (5, 3)


def test_episodes_are_copied_within_their_own_kind() -> None:
    both = Mixture(parts())
    both.start(range(5), [make_start(seed=i) for i in range(5)], range(5))
    walk = np.zeros((5, 9), np.float32)
    walk[:, 0] = 1
    both.step(range(5), walk)
    kept = both.snapshot([4, 0])
    there = both.step(range(5), walk)
    both.restore([2, 1], kept)
    again = both.step([1, 2], walk[:2])
    assert np.allclose(again.poses, there.poses[[0, 4]])
    with pytest.raises(ValueError, match="stays imagined or real"):
        both.restore([0, 1], kept)


def test_frames_must_be_of_one_size() -> None:
    other = Reality("counting", 1, frame_size=(20, 20), factory=lambda name, frame_size: CountingWorld(frame_size))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one size"):
        Mixture([parts()[0], other])


@pytest.mark.parametrize("engines", [-1, 2, 3])
def test_some_slots_stay_imagined(engines: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        assemble(2, task="goto", model=FakeModel(), real_slots=engines)  # type: ignore[typeddict-item]
