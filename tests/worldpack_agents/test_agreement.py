"""Agreement of imagined and real scores against numbers worked out by hand."""

import math

import numpy as np
import pytest

from worldpack_agents.agreement import agreement, mean_maximum_rank_violation, pearson, spearman
from worldpack_agents.compare import agent_names


def test_pearson() -> None:
    assert pearson([0.1, 0.2, 0.3], [0.2, 0.4, 0.6]) == pytest.approx(1.0)
    assert pearson([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    assert pearson([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]) == pytest.approx(0.8)
    assert math.isnan(pearson([0.5, 0.5], [0.1, 0.9]))


def test_rank_violation() -> None:
    assert mean_maximum_rank_violation([0.1, 0.5, 0.9], [0.0, 0.6, 0.7]) == 0.0
    # the first two are swapped: each loses their difference of 0.3, the third nothing
    assert mean_maximum_rank_violation([0.5, 0.1, 0.9], [0.3, 0.6, 0.7]) == pytest.approx(0.2)
    # the first two cannot be told apart: the worse one of them is said to be no worse
    assert mean_maximum_rank_violation([0.5, 0.5, 0.9], [0.3, 0.6, 0.7]) == pytest.approx(0.1)
    assert mean_maximum_rank_violation([0.5, 0.6, 0.9], [0.4, 0.4, 0.7]) == 0.0, "equal policies cannot be ranked wrongly"


def test_spearman_shares_ranks_of_equal_scores() -> None:
    assert spearman([1.0, 2.0, 30.0], [0.1, 0.2, 0.3]) == pytest.approx(1.0)
    assert spearman([0.1, 0.5, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(4.5 / math.sqrt(4.5 * 5.0))  # ranks 0, 1.5, 1.5, 3


def test_intervals_come_from_starts_drawn_for_all_agents_alike() -> None:
    rng = np.random.default_rng(0)
    skill = np.linspace(0.1, 0.9, 5)[:, None]
    real = (rng.random((5, 400)) < skill).astype(float)
    same = agreement(real, real)
    assert same["pearson"] == {"mean": pytest.approx(1.0), "low": pytest.approx(1.0), "high": pytest.approx(1.0), "count": 5}
    assert same["mean_maximum_rank_violation"]["high"] == 0.0
    found = agreement((rng.random((5, 400)) < skill).astype(float), real)
    by_chance, few = found["rank_violation_by_chance"], agreement(real[:, :20], real[:, :20])["rank_violation_by_chance"]
    assert 0 <= by_chance["low"] <= by_chance["mean"] < 0.02, "400 starts tell policies apart that are 20 % apart"
    assert few["mean"] > 5 * by_chance["mean"] and few["high"] < 0.5, "20 starts do not"
    assert 0.9 < found["pearson"]["low"] < found["pearson"]["mean"] < found["pearson"]["high"] <= 1.0
    assert agreement(np.ones((3, 4)), real[:3, :4])["pearson"] is None, "all equal: no correlation"


def test_scores_must_be_pairs_of_several_policies() -> None:
    with pytest.raises(ValueError, match="n >= 2 policies"):
        pearson([0.5], [0.5])
    with pytest.raises(ValueError, match="expected"):
        mean_maximum_rank_violation([0.1, 0.2], [0.1, 0.2, 0.3])


def test_agents_get_different_names() -> None:
    assert agent_names(["runs/a", "random"]) == ["agent", "random"]
    assert agent_names(["x/one", "y/one", "z/two.zip", "random"]) == ["one", "one-2", "two", "random"]
    assert agent_names(["r/a/checkpoints/step_1", "r/a/checkpoints/step_2", "compass:0.5"]) == ["a step_1", "a step_2", "compass:0.5"]
