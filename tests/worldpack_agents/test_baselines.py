"""Agents that learn nothing: what they choose is known, and how well they do is ordered."""

import numpy as np
import pytest
from gymnasium import spaces

from tests.worldpack_env.fakes import CountingWorld, FakeModel, make_bank, make_start
from worldpack_agents.baselines import Clumsy, CompassPolicy, OraclePolicy, RandomPolicy, baseline_of, open_policy
from worldpack_agents.compare import CompareConfig, Replay, _gap, first_astray
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.rollouts import Played, open_rollout, play
from worldpack_env.actions import make_action_set
from worldpack_env.imagination import Imagination
from worldpack_env.rollout import Rollout
from worldpack_env.tasks import make_task
from worldpack_env.worlds import Surface
from worldpack_model.checkpoint import CheckpointError
from worldpack_model.geometry import DYAW, forward_vector, wrap_degrees


@pytest.mark.parametrize(("angle", "chosen"), [(0.0, 0), (12.0, 0), (-13.0, 1), (13.0, 2), (179.0, 2), (-179.0, 1)])
def test_the_compass_follower_turns_until_the_goal_is_ahead(angle: float, chosen: int) -> None:
    policy = CompassPolicy(make_action_set("nav-4"))
    assert policy.act({"compass": np.array([[angle]], np.float32)}, {}, [0]).tolist() == [chosen]
    right, ahead = 5 * np.sin(np.radians(angle)), 5 * np.cos(np.radians(angle))
    assert policy.act({"vector": np.array([[right, 1.0, ahead]], np.float32)}, {}, [0]).tolist() == [chosen]


def test_the_compass_follower_needs_a_direction() -> None:
    with pytest.raises(ValueError, match="choose goal_obs compass or vector"):
        CompassPolicy(make_action_set("nav-4")).check(spaces.Dict({"image": spaces.Box(0, 255, (4, 4, 3), np.uint8)}), spaces.Discrete(4))


def test_on_a_plain_the_compass_always_arrives() -> None:
    rollout = Rollout(Imagination(FakeModel(), 3), make_task("loop", loop="ABCA"), make_bank("ABCA"), goal_obs="compass")
    played = play(rollout, make_action_set("nav-4"), CompassPolicy(make_action_set("nav-4")), range(5))
    assert all(p.success for p in played)


def test_a_share_of_the_actions_is_random() -> None:
    actions, start = make_action_set("nav-4"), make_start()
    ahead = {"compass": np.zeros((1, 1), np.float32)}

    def choices(share: float) -> list[int]:
        policy = Clumsy(CompassPolicy(actions), share, actions.space)
        policy.begin(0, 7, start, dict)
        return [int(policy.act(ahead, {}, [0])[0]) for _ in range(2000)]

    assert set(choices(0.0)) == {0}
    some = np.bincount(choices(0.4), minlength=4) / 2000
    assert some[1:] == pytest.approx([0.1, 0.1, 0.1], abs=0.025)
    assert choices(0.4) == choices(0.4)


def test_names_on_the_command_line() -> None:
    assert baseline_of("compass") == ("compass", 0.0)
    assert baseline_of("oracle:0.3") == ("oracle", 0.3)
    assert baseline_of("runs/agent") is None
    actions = make_action_set("box")
    assert isinstance(open_policy("random", actions), RandomPolicy)
    assert open_policy("oracle:0.3", actions).name == "oracle:0.3"
    with pytest.raises(ValueError, match="share of random actions, such as compass:0.3, not 'much'"):
        open_policy("compass:much", actions)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        open_policy("compass:2", actions)
    with pytest.raises(CheckpointError, match=r"no agent 'compas'.*none of those that learn nothing \(random, compass, oracle\)"):
        open_policy("compas", actions)


@pytest.mark.parametrize("action_set", ["nav-4", "box"])
def test_in_the_engine_the_oracle_beats_the_compass_and_chance(action_set: str) -> None:
    env = EnvConfig(task="LoopNav", action_set=action_set, split="val", num_starts=12)  # type: ignore[arg-type]
    rollout, actions = open_rollout(env, "real", 6)
    shares = {}
    try:
        for name in ("oracle", "compass", "random"):
            policy = open_policy(name, actions)
            shares[name] = np.mean([p.success for p in play(rollout, actions, policy, range(12))])
            policy.close()
    finally:
        rollout.close()
    assert shares["oracle"] == 1.0, "every goal can be walked to"
    assert shares["oracle"] > shares["compass"] > shares["random"]


def test_an_oracle_goes_round_a_wall_that_its_surface_does_not_have() -> None:
    """As imagination may invent one: without noticing, it would plan the same way through it for ever."""

    class Plain(CountingWorld):
        name = "counting"

        def surface(self) -> Surface:
            return Surface(np.full((40, 40), 64, np.int16), np.ones((40, 40), np.bool_), (-20, -20))

    actions = make_action_set("nav-4")
    policy = OraclePolicy(actions, factory=lambda name: Plain())
    start = make_start(goals=[(0.5, 12.5)])
    policy.begin(0, 0, start, None)  # type: ignore[arg-type]
    pose, blocked = start.poses[-1].copy(), False
    for _ in range(80):
        facts = {"pose": pose[None], "blocked": np.array([blocked]), "subgoal": np.zeros(1, np.int64)}
        action = actions.batch_to_nav(policy.act({}, facts, [0]), 1)[0]
        pose[3] = wrap_degrees(pose[3] + action[DYAW])
        there = pose[:3] + (0.86 * forward_vector(pose[3]) if action[0] > 0.5 else 0.0)
        blocked = bool(5.7 < there[2] < 7.3 and -3.3 < there[0] < 4.3)  # seven blocks wide, across the straight way
        pose[:3] = pose[:3] if blocked else there
        if np.hypot(*(pose[:3] - start.waypoints[1])[[0, 2]]) < 1.5:
            break
    else:
        raise AssertionError(f"It is at {pose[:3]} still.")
    policy.close()


def test_an_oracle_that_is_stopped_jumps() -> None:
    start = make_start(goals=[(0.5, 12.5)])

    class Flat(CountingWorld):
        name = "counting"

        def surface(self) -> Surface:
            return Surface(np.full((40, 40), int(start.poses[-1, 1]), np.int16), np.ones((40, 40), np.bool_), (-20, -20))

    actions = make_action_set("nav-8")
    policy = OraclePolicy(actions, factory=lambda name: Flat())
    policy.begin(0, 0, start, None)  # type: ignore[arg-type]
    facts = {"pose": start.poses[-1:] + np.array([0.5, 0.0, 0.5, 0.0, 0.0]), "blocked": np.array([False]), "subgoal": np.zeros(1, np.int64)}
    free = actions.batch_to_nav(policy.act({}, facts, [0]), 1)[0]
    stopped = actions.batch_to_nav(policy.act({}, facts | {"blocked": np.array([True])}, [0]), 1)[0]
    assert free[0] == stopped[0] == 1 and (free[4], stopped[4]) == (0, 1)
    policy.close()


def _played(*, success: bool, x: float = 0.0) -> Played:
    poses = np.zeros((4, 5))
    poses[:, 0] = x * np.arange(4)
    return Played(0, success, float(success), 3, 3.0, 3.0, float(success), False, poses, np.zeros((3, 9), np.float32), None)


def test_an_agent_that_only_dreams_of_success_is_flattered() -> None:
    good, bad = _played(success=True), _played(success=False)
    gap = _gap({"imagined": [good] * 10, "real": [good] * 5 + [bad] * 5}, seed=0)
    assert gap["flattered"] and gap["imagined_minus_real"]["success"]["mean"] == 0.5 and gap["same_outcome"] == 0.5
    assert not _gap({"imagined": [good] * 5 + [bad] * 5, "real": [good] * 10}, seed=0)["flattered"]
    assert not _gap({"imagined": [good, bad] * 5, "real": [bad, good] * 5}, seed=0)["flattered"]


def test_when_imagination_first_goes_astray() -> None:
    real = _played(success=True, x=1.0)
    near, far = real.poses + 0.4, real.poses.copy()
    far[2:, 2] += 1.5
    frames = np.zeros((4, 2, 2, 3), np.uint8)
    found = first_astray([Replay(real, frames, far), Replay(real, frames, near)])
    assert found == {"blocks": 1.0, "never": 1, "steps": [2], "median_step": 2.0, "places": [(0, 2.0, 0.0)]}
    assert first_astray([Replay(real, frames, near)])["median_step"] is None


def test_compare_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="flattered_videos must be at least 0"):
        CompareConfig(flattered_videos=-1)
