"""What policies see, and that their draws are their own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.worldpack_agents.agent_fakes import SIZE, quadrants
from tests.worldpack_agents.test_train import small
from tests.worldpack_env.fakes import make_start
from worldpack_agents.checkpoints import LoadedAgent, load_agent, space_from_dict, space_to_dict
from worldpack_agents.compare import CompareConfig
from worldpack_agents.dqn import DQNConfig
from worldpack_agents.evaluate import EvalAgentConfig
from worldpack_agents.policies import NavFeatures, PolicyConfig, algorithm_class, goal_numbers
from worldpack_agents.rollouts import AgentPolicy
from worldpack_agents.train import train_agent
from worldpack_model.checkpoint import CheckpointError

START = make_start()


def nothing() -> dict[str, np.ndarray]:
    raise AssertionError("a policy without a state does not look at the context")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train_agent(small(out, total_steps=128), env=quadrants(8))
    return out


@pytest.fixture
def agent(run: Path) -> LoadedAgent:
    return load_agent(run)


def look(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
    return {"image": image, "compass": rng.uniform(-180, 180, (count, 1)).astype(np.float32)}


def test_goal_numbers_have_no_jump_at_the_back_and_are_small() -> None:
    left, right = goal_numbers("compass", torch.tensor([[-179.999]])), goal_numbers("compass", torch.tensor([[179.999]]))
    assert torch.allclose(left, right, atol=1e-4)
    assert goal_numbers("compass", torch.tensor([[90.0]])).tolist()[0] == pytest.approx([1.0, 0.0, 0.5], abs=1e-6)
    ahead = goal_numbers("vector", torch.tensor([[0.0, 8.0, 16.0], [0.0, 0.0, 0.0]]))
    assert ahead[0].tolist() == pytest.approx([0.0, 1.0, 1.0, 1.0], abs=1e-6)
    assert torch.isfinite(ahead).all()


def test_features_use_every_entry() -> None:
    picture = spaces.Box(0, 255, (3, 64, 64), np.uint8)
    space = spaces.Dict({"image": picture, "goal_image": picture, "vector": spaces.Box(-9, 9, (3,), np.float32)})
    features = NavFeatures(space, config=PolicyConfig(image_features=8, width=4, goal_features=5))
    seen = {"image": torch.rand(2, 3, 64, 64), "goal_image": torch.rand(2, 3, 64, 64), "vector": torch.rand(2, 3)}
    made = features(seen)
    assert made.shape == (2, 21) == (2, features.features_dim)
    for key in seen:
        assert not torch.equal(made, features({**seen, key: seen[key] * 0.5})), key
    with pytest.raises(ValueError, match="at least 36x36"):
        NavFeatures(spaces.Dict({"image": spaces.Box(0, 255, (3, 16, 16), np.uint8)}))


def test_recurrent_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"worldpack-env\[recurrent\]"):
        algorithm_class("recurrent-ppo")
    with pytest.raises(ValueError, match="qr-dqn needs sb3-contrib"):
        algorithm_class("qr-dqn")
    with pytest.raises(ValueError, match="known: ppo"):
        algorithm_class("a2c")  # type: ignore[arg-type]


def test_draws_come_from_the_episode_alone(agent: LoadedAgent) -> None:
    policy = AgentPolicy(agent)

    def drawn(episodes: list[int], rows: list[int]) -> list[int]:
        for episode in episodes:
            policy.begin(episode, 100 + episode, START, nothing)
        shown = {k: v[rows] for k, v in look(4).items()}
        return [int(a) for _ in range(12) for a in policy.act(shown, {}, episodes)]

    torch.manual_seed(0)
    first = drawn([3], [1])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    together = drawn([0, 3], [0, 1])
    assert torch.equal(before, torch.get_rng_state()), "torch's global stream is not touched"
    assert together[1::2] == first, "episode 3 acts the same beside another one"
    assert len(set(first)) > 1, "an untrained policy does not always do the same"


def test_drawn_actions_follow_the_policys_probabilities(agent: LoadedAgent) -> None:
    policy = AgentPolicy(agent)
    probabilities = np.array([[0.0, 0.7, 0.3, 0.0]])
    policy.begin(0, 5, START, nothing)
    counts = np.bincount([policy._choose(probabilities, [0])[0] for _ in range(2000)], minlength=4) / 2000
    assert counts[0] == 0.0 == counts[3]
    assert counts[1] == pytest.approx(0.7, abs=0.04)


def test_the_likeliest_action_is_that_of_stable_baselines(agent: LoadedAgent) -> None:
    shown = look(6)
    policy = AgentPolicy(agent, deterministic=True)
    for episode in range(6):
        policy.begin(episode, episode, START, nothing)
    expected, _ = agent.policy.predict({"image": shown["image"].transpose(0, 3, 1, 2), "compass": shown["compass"]}, deterministic=True)
    assert policy.act(shown, {}, range(6)).tolist() == expected.tolist()


def test_values_are_explored_in_one_of_twenty_steps(tmp_path: Path) -> None:
    valued = load_agent(
        train_agent(small(tmp_path, algorithm="dqn", dqn=DQNConfig(buffer_size=256, learning_starts=64, batch_size=16)), env=quadrants(8)).run
    )
    shown = look(1)

    def acts(policy: AgentPolicy) -> list[int]:
        policy.begin(0, 5, START, nothing)
        return [int(policy.act(shown, {}, [0])[0]) for _ in range(2000)]

    best = set(acts(AgentPolicy(valued, deterministic=True)))
    assert len(best) == 1
    others = np.mean([action not in best for action in acts(AgentPolicy(valued))])
    assert others == pytest.approx(0.05 * 3 / 4, abs=0.015)


def test_agents_are_judged_with_drawn_actions_unless_asked(agent: LoadedAgent) -> None:
    assert not AgentPolicy(agent).deterministic
    assert not CompareConfig(agents=("random",), out=Path("x")).deterministic
    assert not EvalAgentConfig().deterministic


def test_an_agent_of_another_task_is_refused(agent: LoadedAgent) -> None:
    other = spaces.Dict({"image": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8), "vector": spaces.Box(-9.0, 9.0, (3,), np.float32)})
    with pytest.raises(ValueError, match="choose the goal_obs"):
        AgentPolicy(agent).check(other, spaces.Discrete(4))


def test_spaces_survive_writing_down() -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (3, 4, 5), np.uint8), "x": spaces.Box(-1.0, 1.0, (2,), np.float32)})
    assert space_from_dict(space_to_dict(space)) == space
    assert space_from_dict(space_to_dict(spaces.Discrete(4))) == spaces.Discrete(4)
    with pytest.raises(CheckpointError, match="no space of type"):
        space_from_dict({"type": "Text"})


def test_a_bare_zip_needs_trust_and_a_run_does_not(run: Path, tmp_path: Path) -> None:
    inside = next((run / "checkpoints").iterdir())
    bare = tmp_path / "agent.zip"
    bare.write_bytes((inside / "policy.zip").read_bytes())
    with pytest.raises(ValueError, match="pass --trust"):
        load_agent(bare)
    trusted, own = load_agent(bare, trust=True), load_agent(inside)
    assert trusted.steps == own.steps == 128
    for a, b in zip(trusted.policy.parameters(), own.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_is_loaded_without_unpickling(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr("cloudpickle.loads", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    assert load_agent(run).steps == 128


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: (c / "policy.zip").write_bytes(b"\0" * 100), "checksum"),
        (lambda c: (c / "manifest.json").write_text("{"), "not a manifest"),
        (lambda c: (c.parent.parent / "config.json").write_text("[]"), "not a run's configuration"),
        (lambda c: (c.parent.parent / "config.json").unlink(), "no config.json"),
    ],
)
def test_damage_is_named(run: Path, tmp_path: Path, damage, message: str) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    inside = next((copy / "checkpoints").iterdir())
    damage(inside)
    with pytest.raises(CheckpointError, match=message):
        load_agent(inside)
