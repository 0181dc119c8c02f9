"""Agreement of imagined and real scores against numbers worked out by hand."""

import math

import pytest

from worldpack_agents.agreement import mean_maximum_rank_violation, pearson
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


def test_scores_must_be_pairs_of_several_policies() -> None:
    with pytest.raises(ValueError, match="n >= 2 policies"):
        pearson([0.5], [0.5])
    with pytest.raises(ValueError, match="expected"):
        mean_maximum_rank_violation([0.1, 0.2], [0.1, 0.2, 0.3])


def test_agents_get_different_names() -> None:
    assert agent_names(["runs/a", "random"]) == ["agent", "random"]
    assert agent_names(["x/one", "y/one", "z/two.zip", "random"]) == ["one", "one-2", "two", "random"]
