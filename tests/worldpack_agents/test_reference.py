"""Reference agents: policies alone, found by name, that act as the agents they were taken from."""

from pathlib import Path

import pytest
import torch

from tests.worldpack_agents.agent_fakes import quadrants
from tests.worldpack_agents.test_train import small
from worldpack_agents import checkpoints as kept
from worldpack_agents.baselines import LADDER, open_policy
from worldpack_agents.checkpoints import agent_path, load_agent, read_policy_tensors, reference_agents, ship_agent
from worldpack_agents.compare import agent_names, named_agents
from worldpack_agents.evaluate import task_of
from worldpack_agents.train import train_agent
from worldpack_agents.vec_env import channels_first
from worldpack_env.actions import make_action_set
from worldpack_model.checkpoint import CheckpointError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained agent's run, two of whose checkpoints are reference agents."""
    monkeypatch.setattr(kept, "REFERENCE", tmp_path / "reference")
    run = train_agent(small(tmp_path / "run"), env=quadrants(8)).run
    ship_agent(run, [256, 512], tmp_path / "reference" / "quad")
    return run


def test_a_reference_agent_is_found_by_name_and_acts_as_its_run(shelf: Path) -> None:
    assert reference_agents() == ("quad@256", "quad@512")
    for name, steps in (("quad", 512), ("quad@512", 512), ("quad@256", 256)):
        agent = load_agent(name)
        assert agent.steps == steps
        run = load_agent(shelf / "checkpoints" / f"step_{steps:09d}")
        for ours, theirs in zip(agent.policy.parameters(), run.policy.parameters(), strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, theirs.bfloat16().float())
        seen = channels_first(quadrants(8).reset(seed=3)[0])
        values = [p.policy.predict_values(p.policy.obs_to_tensor(seen)[0]) for p in (agent, run)]
        assert torch.allclose(*values, atol=0.05)
    assert not list((kept.REFERENCE / "quad").rglob("*.zip")), "no optimiser and nothing pickled"
    data = kept.read_run_config(kept.REFERENCE / "quad")
    assert not {"out", "init"} & data["config"].keys(), "no paths of the machine that trained it"
    task = task_of(["random", "quad@256"])
    assert task is not None
    assert task.split == "test"


def test_training_can_start_from_a_reference_agent(shelf: Path, tmp_path: Path) -> None:
    slow = small(tmp_path / "more", total_steps=128, init=Path("quad"))
    train_agent(slow, env=quadrants(8))
    moved = read_policy_tensors(tmp_path / "more" / "checkpoints" / "step_000000128" / "policy.zip")
    fresh = train_agent(small(tmp_path / "fresh", total_steps=128), env=quadrants(8)).run
    other = read_policy_tensors(fresh / "checkpoints" / "step_000000128" / "policy.zip")
    begun = load_agent("quad").policy.state_dict()

    def away(tensors: dict[str, torch.Tensor]) -> float:
        return sum(float((tensors[k] - begun[k]).square().sum()) for k in begun) ** 0.5

    assert 0 < away(moved) < 0.5 * away(other)


def test_what_is_no_reference_agent_is_refused(shelf: Path, tmp_path: Path) -> None:
    assert agent_path("quad@x") == Path("quad@x")
    assert agent_path("../reference/quad") == Path("../reference/quad"), "a name is no path"
    with pytest.raises(CheckpointError, match=r"none of the reference agents \(quad@256, quad@512\)"):
        open_policy("quad@9", make_action_set("nav-4"))
    with pytest.raises(CheckpointError, match="no checkpoint|No such|missing|There is no"):
        ship_agent(shelf, [3], tmp_path / "other")
    file = kept.REFERENCE / "quad" / "checkpoints" / "step_000000256" / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="policy.safetensors"):
        load_agent("quad@256")


def test_the_ladder_names_agents_of_graded_skill_once(shelf: Path) -> None:
    agents = named_agents(["runs/mine", "compass", "ladder"])
    assert agents[:2] == ("runs/mine", "compass")
    assert set(agents[2:]) == {*LADDER, "quad@256", "quad@512"} - {"compass"}
    assert len(set(agent_names(agents))) == len(agents)


def test_the_agents_of_the_package_load_and_have_a_card() -> None:
    names = reference_agents()
    assert len(names) >= 3
    for name in names:
        assert load_agent(name).steps == int(name.partition("@")[2])
        assert f"`{name}`" in (kept.REFERENCE / name.partition("@")[0] / "README.md").read_text()
