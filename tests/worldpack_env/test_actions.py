"""The action table, against literal rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.vector.utils import batch_space, iterate

from worldpack_env.actions import ACTION_SETS, DiscreteActions, make_action_set

# forward back left right jump sneak sprint dpitch dyaw
NAV_8 = [
    [1, 0, 0, 0, 1, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, -22.5],
    [0, 0, 0, 0, 0, 0, 0, 0, 22.5],
    [1, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 1, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
]


@pytest.mark.parametrize(("name", "count"), [("nav-4", 4), ("nav-8", 8)])
def test_discrete_tables(name: str, count: int) -> None:
    actions = make_action_set(name)
    assert isinstance(actions, DiscreteActions)
    assert actions.space.n == count == len(actions.labels)
    assert actions.batch_to_nav(np.arange(count), count).tolist() == NAV_8[:count]


@pytest.mark.parametrize(
    ("box", "nav"),
    [
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ([1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0, 0, 45, 45]),
        ([-1, -1, -1, -1, -1], [0, 1, 1, 0, 0, 0, 0, -45, -45]),
        ([0.34, -0.34, 0.34, 0.5, -0.5], [1, 0, 1, 0, 1, 0, 0, 22.5, -22.5]),
        ([0.33, -0.33, 0.33, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ([-0.34, 0.34, -0.34, 0, 0], [0, 1, 0, 1, 0, 0, 0, 0, 0]),
    ],
)
def test_box_holds_keys_beyond_a_third(box: list[float], nav: list[float]) -> None:
    np.testing.assert_allclose(make_action_set("box").to_nav(np.array(box, np.float32)), nav)


def test_minerl_dict_is_in_its_own_order_and_units() -> None:
    actions = make_action_set("minerl")
    keys = {"forward": 1, "back": 0, "left": 0, "right": 1, "jump": 1, "sneak": 0, "sprint": 1}
    nav = actions.to_nav({**keys, "camera": np.array([-10.0, 33.0], np.float32)})
    assert nav.tolist() == [1, 0, 0, 1, 1, 0, 1, -10, 33]


@pytest.mark.parametrize("name", ACTION_SETS)
def test_a_batch_is_its_members(name: str) -> None:
    actions = make_action_set(name)
    space = batch_space(actions.space, 7)
    space.seed(3)
    for _ in range(5):
        batch = space.sample()
        nav = actions.batch_to_nav(batch, 7)
        assert nav.shape == (7, 9)
        assert nav.dtype == np.float32
        singles = [actions.to_nav(member) for member in iterate(space, batch)]
        np.testing.assert_array_equal(nav, np.stack(singles))


def test_action_vectors_are_copies_of_the_table() -> None:
    actions = make_action_set("nav-4")
    actions.to_nav(0)[:] = 99
    actions.batch_to_nav(np.zeros(2, np.int64), 2)[:] = 99
    assert actions.to_nav(0).tolist() == NAV_8[0]


BAD: list[tuple[str, Any, str]] = [
    ("nav-4", 4, r"are 0 \.\. 3, got 4"),
    ("nav-4", -1, r"are 0 \.\. 3, got -1"),
    ("nav-4", 1.0, "whole numbers, got dtype float64"),
    ("nav-4", True, "dtype bool"),
    ("nav-4", "left", "expected numbers of shape"),
    ("nav-4", None, "expected numbers of shape"),
    ("nav-4", [1, 2], r"shape \(2,\).*expected numbers of shape \(\)"),
    ("box", [0, 0, 0, 0], r"shape \(4,\).*expected numbers of shape \(5,\)"),
    ("box", [0, 0, 0, 0, 1.5], r"within \[-1, 1\].*clip it"),
    ("box", [0, 0, 0, 0, float("nan")], r"within \[-1, 1\]"),
    ("box", [[0, 1], [2]], "no array of numbers|dtype object"),
    ("minerl", {"camera": [0, 0]}, "dict with the keys"),
    ("minerl", 3, "dict with the keys .* got int"),
]


@pytest.mark.parametrize(("name", "action", "message"), BAD)
def test_bad_actions_say_what_was_expected(name: str, action: Any, message: str) -> None:
    with pytest.raises(InvalidAction, match=message):
        make_action_set(name).to_nav(action)


@pytest.mark.parametrize(("key", "value", "message"), [("forward", 2, "'forward' is 0 or 1"), ("camera", [0, 181], r"camera must lie within")])
def test_bad_minerl_entries(key: str, value: Any, message: str) -> None:
    actions = make_action_set("minerl")
    good = dict.fromkeys(("forward", "back", "left", "right", "jump", "sneak", "sprint"), 0) | {"camera": [0.0, 0.0]}
    actions.to_nav(good)
    with pytest.raises(InvalidAction, match=message):
        actions.to_nav(good | {key: value})


def test_wrong_batch_length() -> None:
    with pytest.raises(InvalidAction, match=r"shape \(3,\).*expected numbers of shape \(4,\)"):
        make_action_set("nav-4").batch_to_nav(np.zeros(3, np.int64), 4)


def test_unknown_set_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'nav-4'"):
        make_action_set("nav4")


def test_the_nearest_choice_of_an_action_that_a_set_has_is_that_action() -> None:
    for name in ("nav-4", "nav-8"):
        chosen = make_action_set(name)
        assert isinstance(chosen, DiscreteActions)
        assert chosen.nearest(chosen.table).tolist() == list(range(len(chosen.labels)))
    box, rng = make_action_set("box"), np.random.default_rng(0)
    given = rng.uniform(-1, 1, (50, 5)).astype(np.float32)
    nav = box.batch_to_nav(given, 50)
    assert np.allclose(box.batch_to_nav(box.nearest(nav), 50), nav)
    minerl = make_action_set("minerl")
    assert np.array_equal(minerl.batch_to_nav(minerl.nearest(nav), 50), nav)


def test_an_action_that_a_set_lacks_becomes_the_most_like_it() -> None:
    nav = np.zeros((3, 9), np.float32)
    nav[0, [0, 4]], nav[0, 8] = 1, 20.0  # forward, jump, and a turn: keys count more
    nav[1, 8] = -40.0
    nav[2, 2], nav[2, 4] = 1, 1  # left and jump
    assert make_action_set("nav-4").nearest(nav).tolist() == [0, 1, 0]
