"""Episodes from chosen starts: nothing depends on the number of slots, numbers are literal."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.worldpack_env.fakes import SIZE, CountingSimulator, make_bank
from worldpack_agents.baselines import RandomPolicy
from worldpack_agents.evaluate import summarise
from worldpack_agents.rollouts import Facts, Played, Policy, play
from worldpack_env.actions import make_action_set
from worldpack_env.rollout import Rollout
from worldpack_env.tasks import make_task


class Forward(Policy):
    """Always walks."""

    name = "forward"

    def act(self, observation: dict[str, Any], facts: Facts, episodes: Sequence[int]) -> np.ndarray:
        assert len(observation["image"]) == len(episodes) == len(facts["pose"])
        return np.full(len(episodes), 3)


def run(policy: object, *, slots: int, episodes: int = 5, keep: int = 0) -> list[Played]:
    rollout = Rollout(CountingSimulator(slots), make_task("goto"), make_bank(count=5), goal_obs="compass", max_episode_steps=12)
    try:
        return play(rollout, make_action_set("nav-4"), policy, range(episodes), seed=3, keep_frames=keep)  # type: ignore[arg-type]
    finally:
        rollout.close()


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_an_episode_is_the_same_in_any_slot(slots: int) -> None:
    space = make_action_set("nav-4").space
    expected, got = run(RandomPolicy(space), slots=5), run(RandomPolicy(space), slots=slots)
    for a, b in zip(expected, got, strict=True):
        assert a.summary() == b.summary()
        assert np.array_equal(a.actions, b.actions)
        assert np.array_equal(a.poses, b.poses)


def test_lengths_and_frames_belong_together() -> None:
    played = run(Forward(), slots=3, keep=2)
    for i, p in enumerate(played):
        assert p.start_index == i
        assert len(p.poses) == p.steps + 1 == len(p.actions) + 1
        assert (p.frames is not None) == (i < 2)
        if p.frames is not None:
            assert p.frames.shape == (p.steps + 1, *SIZE, 3)
        assert p.steps <= 12


def test_summary_counts() -> None:
    p = run(Forward(), slots=3)
    result = summarise(p)
    assert result["episodes"] == 5
    assert result["success"]["mean"] == pytest.approx(sum(x.success for x in p) / 5)
    assert result["steps"]["mean"] == pytest.approx(np.mean([x.steps for x in p]))
    with pytest.raises(ValueError, match="count >= 1"):
        summarise([])


def test_random_policy_refuses_dict_actions() -> None:
    with pytest.raises(ValueError, match="Discrete and Box"):
        RandomPolicy(make_action_set("minerl").space)
