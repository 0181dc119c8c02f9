"""Intervals against published numbers."""

import numpy as np
import pytest

from worldpack_agents.intervals import Interval, bootstrap_curve, bootstrap_mean, wilson


def test_wilson_known_values() -> None:
    # 10 of 20: centre 0.5; 0 of 10: upper bound z^2 / (n + z^2)
    half = wilson(10, 20)
    assert (half.mean, half.low, half.high) == pytest.approx((0.5, 0.2993, 0.7007), abs=1e-4)
    none = wilson(0, 10)
    assert (none.low, none.high) == pytest.approx((0.0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson(10, 10).high == 1.0


def test_wilson_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="count >= 1"):
        wilson(0, 0)


def test_bootstrap_covers_the_mean_and_draws_from_its_generator() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    one, two = (bootstrap_mean(values, np.random.default_rng(5)) for _ in range(2))
    assert one == two
    assert one.low < values.mean() < one.high
    assert one.high - one.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_bootstrap_curve_ignores_ended_episodes() -> None:
    values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 4.0]])
    curve = bootstrap_curve(values, np.random.default_rng(0))
    assert [x.mean for x in curve] == pytest.approx([3.0, 3.0])


def test_text() -> None:
    assert Interval(0.714, 0.62, 0.79, 100).text(percent=True) == "71 % [62, 79]"
    assert Interval(1.234, 1.0, 1.5, 9).text() == "1.23 [1.00, 1.50]"
