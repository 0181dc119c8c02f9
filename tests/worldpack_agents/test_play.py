"""Playing by hand, without a window."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from worldpack_agents.env_config import EnvConfig, make_envs
from worldpack_agents.play import KEYS, PlayConfig, Session, check_display


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    config = EnvConfig(nav_range=5, action_set="nav-8", num_starts=1, max_episode_steps=3, split="val")
    made = make_envs(config, "real", num_envs=1, autoreset="disabled", render_mode="rgb_array")
    yield made
    made.close()


def test_keys_walk_and_an_episode_ends(env: Any) -> None:
    session = Session(env, seed=0)
    first = session.picture()
    assert first.dtype == np.uint8 and first.shape[-1] == 3
    assert session.press("x"), "other keys do nothing"
    assert np.array_equal(session.picture(), first)
    assert session.press("d")
    assert not np.array_equal(session.picture(), first)
    session.press("a")
    session.press(" ")
    assert session.over
    last = session.picture()
    assert session.press("w")
    assert np.array_equal(session.picture(), last), "nothing moves after the end"
    assert session.press("n") and not session.over
    assert not session.press("\x1b")
    assert sorted(KEYS.values()) == [0, 1, 2, 4, 5, 6, 7]


def test_without_a_display_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(RuntimeError, match="no display"):
        check_display()


def test_the_keys_are_those_of_one_action_set() -> None:
    with pytest.raises(ValueError, match="nav-8, not of box"):
        PlayConfig(env=EnvConfig(action_set="box"))
