"""Training: it learns, it continues exactly, it refuses what does not belong together."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import worldpack_model.trainer as trainer
from tests.worldpack_model.conftest import turning_episode
from worldpack_model.checkpoint import PARTS, CheckpointError, load_autoencoder, load_model, sha256
from worldpack_model.config import PRESETS
from worldpack_model.dataset import LatentDataset
from worldpack_model.episodes import EpisodeError, EpisodeIndex, write_episode
from worldpack_model.stage import Stage, step_generator
from worldpack_model.trainer import TrainModelConfig, train_model
from worldpack_model.world_model import WorldPack


def small(data: Path, out: Path, **changes: object) -> TrainModelConfig:
    settings: dict[str, object] = {
        "preset": "debug", "autoencoder_steps": 6, "autoencoder_batch": 4, "steps": 6, "batch_size": 4, "checkpoint_every": 3,
        "adversary_from": 0.5, "rollouts_from": 0.3, "rollout_every": 2, "rollout_episodes": 2, "rollout_steps": 3,
        "body_steps": 4, "motion_steps": 4, "motion_batch": 4, "picture_every": 0, "device": "cpu",
    }  # fmt: skip
    return TrainModelConfig(data=data, out=out, **{**settings, **changes})  # type: ignore[arg-type]


class Stop(Exception):
    """Stands for a killed process."""


def test_resume_equals_uninterrupted(episodes: Path, tmp_path: Path) -> None:
    whole = train_model(small(episodes, tmp_path / "whole", checkpoint_every=1))
    for stage, at in (("autoencoder", 4), ("dynamics", 2), ("dynamics", 5), ("body", 2), ("motion", 2)):
        original = Stage.save

        def save(self: object, stage: str = stage, at: int = at, original=original) -> None:
            original(self)
            if self.name == stage and self.step == at:  # type: ignore[attr-defined]
                raise Stop

        Stage.save = save  # type: ignore[method-assign]
        try:
            with pytest.raises(Stop):
                train_model(small(episodes, tmp_path / "parts", checkpoint_every=1))
        finally:
            Stage.save = original  # type: ignore[method-assign]
    parts = train_model(small(episodes, tmp_path / "parts", checkpoint_every=1))
    for part in PARTS:
        one, two = load_file(whole / f"{part}.safetensors"), load_file(parts / f"{part}.safetensors")
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), f"{part}.{name}"
    lines = [json.loads(line) for line in (tmp_path / "parts" / "curve.jsonl").read_text().splitlines()]
    assert [(x["stage"], x["step"]) for x in lines] == [("autoencoder", 6), ("dynamics", 6), ("body", 4), ("motion", 4)]


def test_survives_sigkill(episodes: Path, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tests.worldpack_model.test_trainer import small
from worldpack_model.trainer import train_model
train_model(small(Path({str(episodes)!r}), Path({str(tmp_path / "run")!r}), checkpoint_every=1, steps=400))
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    manifest = tmp_path / "run" / "dynamics-state" / "manifest.json"
    for _ in range(600):
        if manifest.exists() or child.poll() is not None:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    state = tmp_path / "run" / "dynamics-state"
    assert state.exists() or list((tmp_path / "run").glob(".dynamics-state*")), "it was killed while training"
    # going on from the killed state must work; a short continuation is enough
    config = small(episodes, tmp_path / "run", checkpoint_every=1, steps=400)
    seen: list[int] = []

    def progress(stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "dynamics":
            seen.append(step)
            raise Stop

    with pytest.raises(Stop):
        train_model(config, progress)
    assert seen
    assert seen[0] > 0


def test_it_learns(episodes: Path, tmp_path: Path) -> None:
    logged: dict[str, list[float]] = {"autoencoder": [], "dynamics": [], "body": [], "motion": []}

    def progress(stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        if stage in logged:
            logged[stage].append(numbers["loss"])

    sizes = {
        "autoencoder_steps": 100,
        "autoencoder_batch": 8,
        "steps": 150,
        "batch_size": 8,
        "body_steps": 200,
        "motion_steps": 200,
        "strays_from": 0.0,  # all along, so that losses can be compared
        "motion_batch": 16,
    }
    train_model(small(episodes, tmp_path / "run", **sizes), progress)
    assert logged["autoencoder"][-1] < 0.6 * logged["autoencoder"][0]
    assert logged["dynamics"][-1] < 0.8 * logged["dynamics"][0]
    assert logged["body"][-1] < logged["body"][0] - 1.0, "nats"
    assert logged["motion"][-1] < logged["motion"][0] - 0.3


def test_a_run_folder_belongs_to_one_configuration(episodes: Path, tmp_path: Path) -> None:
    train_model(small(episodes, tmp_path / "run", steps=0))
    with pytest.raises(CheckpointError, match="other settings \\(learning_rate\\)"):
        train_model(small(episodes, tmp_path / "run", steps=0, learning_rate=1.0))
    load_model(str(tmp_path / "run" / "model"), device="cpu")


def test_changed_records_are_other_data(episodes: Path, tmp_path: Path) -> None:
    train_model(small(episodes, tmp_path / "run"))
    index = EpisodeIndex.open(episodes)
    video = index[0].video_sha256
    record = (episodes / index[0].path).with_suffix(".json")
    told = json.loads(record.read_text())
    told[3]["x"] += 1.0
    record.write_text(json.dumps(told))
    with pytest.raises(EpisodeError, match="checksum"):  # a changed file is not read
        train_model(small(episodes, tmp_path / "new"))
    index = EpisodeIndex.build(episodes)
    assert index[0].video_sha256 == video
    with pytest.raises(CheckpointError, match="other poses, actions or events"):
        train_model(small(episodes, tmp_path / "run"))


def test_predictions_of_another_autoencoder_are_refused(episodes: Path, tmp_path: Path) -> None:
    train_model(small(episodes, tmp_path / "one"))
    with pytest.raises(CheckpointError, match="another autoencoder"):
        train_model(small(episodes, tmp_path / "two", seed=1, init_run=tmp_path / "one"))


def test_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EpisodeError, match="worldpack record"):
        train_model(small(tmp_path / "nothing", tmp_path / "run"))


def test_autoencoder_and_latents_of_another_run(episodes: Path, tmp_path: Path) -> None:
    first = train_model(small(episodes, tmp_path / "one"))
    second = train_model(small(episodes, tmp_path / "two", variant="recent", autoencoder=str(first), latents=tmp_path / "one" / "latents"))
    a, b = load_model(str(first), device="cpu"), load_model(str(second), device="cpu")
    for name, value in a.autoencoder.state_dict().items():
        assert torch.equal(value, b.autoencoder.state_dict()[name])
    assert b.config.packing.retrieved == 0


def test_step_generators_differ() -> None:
    draws = {float(torch.rand(1, generator=step_generator(*key))) for key in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]}
    assert len(draws) == 4


def test_batches_obey_time(episodes: Path) -> None:
    """Every context frame is older than its target, recent frames are the newest, actions lead to the target."""
    torch.manual_seed(0)
    model = WorldPack(PRESETS["debug"]).eval()
    index = EpisodeIndex.open(episodes)
    dataset = LatentDataset.encode(index, model.encode)
    assert len(dataset) == index.frames
    batch = dataset.batch(model.config, 64, torch.Generator().manual_seed(0))
    ages, used = batch.context.ages, batch.context.used
    assert int(ages[used].min()) == 1
    assert (ages[:, 0] == 1).all(), "the first recent frame is the one before the target"
    position = {tuple(p): i for i, p in enumerate(dataset.poses.numpy().round(6).tolist())}
    assert position
    turned = batch.query[:, 3] - batch.body.pose[:, 3]
    assert np.allclose(((turned.numpy() + 180) % 360) - 180, batch.body.action[:, 8].numpy(), atol=1e-3)
    real = ~batch.context.imagined & used
    exact = (batch.context.latents[:, :, 0, 0, 0] * real).abs().sum() > 0
    assert bool(exact)


def test_init_starts_from_a_trained_denoiser(episodes: Path, tmp_path: Path) -> None:
    first = train_model(small(episodes, tmp_path / "one"))
    second = train_model(small(episodes, tmp_path / "two", autoencoder=str(first), init=str(first), steps=1, learning_rate=0.0, motion_steps=1))
    a, b = load_model(str(first), device="cpu").denoiser.state_dict(), load_model(str(second), device="cpu").denoiser.state_dict()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    with pytest.raises(CheckpointError, match="packing"):
        train_model(small(episodes, tmp_path / "three", variant="recent", autoencoder=str(first), init=str(first)))


def test_an_autoencoder_starts_from_a_trained_one(episodes: Path, tmp_path: Path) -> None:
    first = train_model(small(episodes, tmp_path / "one", steps=0))
    still = small(episodes, tmp_path / "two", init_autoencoder=str(first), autoencoder_steps=1, autoencoder_rate=0.0, seed=1, steps=0)
    one, two = (load_autoencoder(str(path)) for path in (first, train_model(still)))
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    other = train_model(small(episodes, tmp_path / "three", autoencoder_steps=1, autoencoder_rate=0.0, seed=1, steps=0))
    assert not torch.equal(next(one.parameters()), next(load_autoencoder(str(other)).parameters())), "another seed begins elsewhere"
    with pytest.raises(CheckpointError, match="autoencoder"):
        train_model(small(episodes, tmp_path / "four", init_autoencoder="voxel-64"))


def test_the_past_of_a_first_step_is_standing_still(episodes: Path) -> None:
    torch.manual_seed(0)
    model = WorldPack(PRESETS["debug"]).eval()
    dataset = LatentDataset.encode(EpisodeIndex.open(episodes), model.encode)
    dataset.poses[:, 1] = torch.arange(len(dataset))  # every frame has a pose of its own
    batch = dataset.batch(model.config, 256, torch.Generator().manual_seed(0))
    first = (batch.frame[:, None] - 1 == dataset.starts).any(1)
    assert bool(first.any())
    assert not batch.body.last_motion[first].any()
    assert not batch.body.last_action[first].any()
    later = batch.frame[~first]
    assert torch.equal(batch.body.last_motion[~first], dataset.poses[later - 1, :3] - dataset.poses[later - 2, :3])
    assert torch.equal(batch.body.last_action[~first], dataset.actions[later - 2])
    moved, after = dataset.moves(256, torch.Generator().manual_seed(1))
    row = {tuple(p): i for i, p in enumerate(dataset.poses.tolist())}
    for pose, action, motion, last, then in zip(*moved, after, strict=True):
        here = row[tuple(pose.tolist())]
        assert torch.equal(then, dataset.poses[here + 1])
        assert torch.equal(action, dataset.actions[here])
        begins = here in dataset.starts
        assert torch.equal(motion, torch.zeros(3) if begins else pose[:3] - dataset.poses[here - 1, :3])
        assert torch.equal(last, torch.zeros(9) if begins else dataset.actions[here - 1])


def test_targets_are_drawn_by_their_chances(episodes: Path) -> None:
    torch.manual_seed(0)
    model = WorldPack(PRESETS["debug"]).eval()
    dataset = LatentDataset.encode(EpisodeIndex.open(episodes), model.encode)
    chances = torch.zeros(len(dataset))
    chances[[1, 30]] = torch.tensor([1.0, 3.0])
    drawn = dataset.batch(model.config, 400, torch.Generator().manual_seed(0), chances=chances).frame
    assert set(drawn.tolist()) == {1, 30}
    assert 0.65 < (drawn == 30).float().mean() < 0.85
    usual = dataset.batch(model.config, 4000, torch.Generator().manual_seed(0)).frame
    assert set(usual.tolist()) == set(range(len(dataset))) - set(dataset.starts.tolist()), "every frame but an episode's first"


def test_surprising_steps_are_drawn_more_often(episodes: Path) -> None:
    torch.manual_seed(0)
    model = WorldPack(PRESETS["debug"]).eval()
    dataset = LatentDataset.encode(EpisodeIndex.open(episodes), model.encode)
    chances = trainer._surprise(model.motion, dataset)
    assert not chances[dataset.starts[:-1]].any()
    likely, unlikely = int(chances.argmax()), int(torch.where(chances > 0, chances, torch.inf).argmin())
    losses = []
    for frame in (likely, unlikely):
        body, after = dataset.steps_from(torch.tensor([frame - 1]))
        losses.append(model.motion.loss(body, None, after[:, :3] - body.pose[:, :3])[0].item())
    assert losses[0] > losses[1]
    assert chances[likely] < 20 * chances[unlikely], "none is forgotten"


def test_rollouts_of_nothing_are_refused(episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rollout_every is 0, expected at least 1"):
        train_model(small(episodes, tmp_path / "run", rollout_every=0))


def test_adversary_and_predictions_go_on_in_another_run(episodes: Path, tmp_path: Path) -> None:
    first = train_model(small(episodes, tmp_path / "first"))
    train_model(small(episodes, tmp_path / "second", steps=1, adversary_from=1, rollouts_from=1, init_run=tmp_path / "first"))
    one, two = (load_file(tmp_path / run / "dynamics-state" / "adversary.safetensors") for run in ("first", "second"))
    assert all(torch.equal(one[name], two[name]) for name in one), "it did not learn in a step that it takes no part in"
    one, two = (load_file(tmp_path / run / "dynamics-state" / "replay.safetensors") for run in ("first", "second"))
    assert set(one["frames"].tolist()) <= set(two["frames"].tolist())
    with pytest.raises(CheckpointError, match="nowhere"):
        train_model(small(episodes, tmp_path / "third", init_run=tmp_path / "nowhere"))
    record = tmp_path / "first" / "config.json"
    record.write_text(record.read_text().replace('"data_id": "', '"data_id": "0'))
    with pytest.raises(CheckpointError, match="other episodes"):
        train_model(small(episodes, tmp_path / "fourth", init=str(first), init_run=tmp_path / "first"))


def test_more_folders_of_episodes_join_the_data(episodes: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    for seed in (4, 5):
        write_episode(more, turning_episode(seed, length=10))
    first = train_model(small(episodes, tmp_path / "first"))
    settings = {"init": str(first), "init_motion": str(first), "autoencoder": str(first), "steps": 0, "body_steps": 0, "init_run": tmp_path / "first"}
    second = small(episodes, tmp_path / "second", more_data=(more,), latents=tmp_path / "first" / "latents", **settings)
    one, two = (sha256(train_model(config) / "motion.safetensors") for config in (second, replace(second, out=tmp_path / "again")))
    assert one == two != sha256(first / "motion.safetensors")
    assert not (second.out / "latents").exists(), "the first folder's latents are another run's"
    old = LatentDataset(**load_file(tmp_path / "first" / "latents" / "latents.safetensors"))
    new = LatentDataset(**load_file(second.out / "latents-1" / "latents.safetensors"))
    joined = LatentDataset.joined([old, new])
    assert joined.starts.tolist() == [0, 24, 48, 72, 96, 106, 116]
    assert torch.equal(joined.poses[96:], new.poses) and torch.equal(joined.latents[:96], old.latents)
    assert int(joined.followed().sum()) == 116 - 6
    with pytest.raises(CheckpointError, match="other episodes"):
        train_model(replace(second, more_data=()))
    with pytest.raises(ValueError, match="at least one dataset"):
        LatentDataset.joined([])


def test_the_motion_model_learns_from_rollouts_made_for_it_and_goes_on_after_a_kill(episodes: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    write_episode(more, turning_episode(4, length=10))
    first = train_model(small(episodes, tmp_path / "first"))
    settings = {"init": str(first), "autoencoder": str(first), "steps": 0, "more_data": (more,), "more_share": 0.2}
    settings |= {"rollout_steps": 24, "own_share": 1.0, "motion_steps": 8}
    whole = small(episodes, tmp_path / "whole", motion_rollouts=5, **settings)
    expected = sha256(train_model(whole) / "motion.safetensors")
    assert not load_model(str(first)).config.knows_blocks, "these recordings do not say which blocks are solid"
    frames = load_file(whole.out / "rollouts-state" / "replay.safetensors")["frames"]
    assert len(frames) > 3
    assert expected != sha256(train_model(small(episodes, tmp_path / "none", **settings)) / "motion.safetensors")

    def stop(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if stage == "rollouts" and (done, total) == (2, 3):
            raise Stop

    cut = replace(whole, out=tmp_path / "cut")
    with pytest.raises(Stop):
        train_model(cut, stop)
    assert sha256(train_model(cut) / "motion.safetensors") == expected
    for wrong in ({"more_share": 1.0}, {"more_data": ()}):
        with pytest.raises(ValueError, match="expected between 0 and 1 with some"):
            train_model(replace(whole, out=tmp_path / "wrong", **wrong))


def test_no_steps_leave_the_denoiser_as_it_is(episodes: Path, tmp_path: Path) -> None:
    first = train_model(small(episodes, tmp_path / "first"))
    second = train_model(small(episodes, tmp_path / "second", init=str(first), autoencoder=str(first), steps=0))
    for part in PARTS:
        one, two = (sha256(folder / f"{part}.safetensors") for folder in (first, second))
        assert (one == two) != (part == "motion"), part
