"""Event heads: they learn what happens, continue exactly, and refuse what does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.worldpack_model.conftest import turning_episode
from worldpack_model.checkpoint import CheckpointError
from worldpack_model.episodes import Episode, EpisodeError, EpisodeIndex, write_episode
from worldpack_model.events import EventHeads, EventsConfig, TrainEventsConfig, train_events
from worldpack_model.stage import Stage


def labelled(seed: int, length: int = 40) -> Episode:
    """A dark episode whose frames show a red square in the middle when ``oak_log`` happens, a blue one in the corner when ``swims`` does."""
    rng = np.random.default_rng(seed)
    episode = turning_episode(seed, length)
    frames = rng.integers(0, 60, episode.frames.shape, np.uint8)
    log, swims = rng.random(length) < 0.2, rng.random(length) < 0.1
    frames[log, 24:40, 24:40, 0] = 200
    frames[swims, :16, :16, 2] = 200
    events = tuple(("oak_log",) * bool(a) + ("swims",) * bool(b) for a, b in zip(log, swims, strict=True))
    return replace(episode, frames=frames, events=events)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A folder of labelled episodes."""
    for seed in range(6):
        write_episode(tmp_path / "told", labelled(seed))
    EpisodeIndex.build(tmp_path / "told")
    return tmp_path / "told"


def config(data: Path, out: Path, **changes: object) -> TrainEventsConfig:
    settings = {"events": ("log", "swims"), "model": None, "width": 6, "steps": 300, "batch_size": 32, "checkpoint_every": 20, "device": "cpu"}
    return TrainEventsConfig(data=data, out=out, **{**settings, **changes})  # type: ignore[arg-type]


def test_heads_learn_what_happens_in_frames_they_have_not_seen(told: Path, tmp_path: Path) -> None:
    heads = EventHeads.from_pretrained(str(train_events(config(told, tmp_path / "run"))), device="cpu")
    assert heads.config == EventsConfig(("log", "swims"), (64, 64), 6) and heads.number_of("swims") == 1
    other = labelled(77, 200)
    truth = np.array([["oak_log" in names, "swims" in names] for names in other.events or ()])
    chances = heads.chances(other.frames)
    assert chances.shape == (200, 2) and chances.dtype == np.float32
    assert ((chances > 0.5) == truth).mean() > 0.99
    assert np.abs(chances.mean(axis=0) - truth.mean(axis=0)).max() < 0.05, "rare events are drawn more often, and still rare"
    np.testing.assert_allclose(heads.chances(torch.from_numpy(other.frames)), chances)


def test_frames_may_be_seen_through_an_autoencoder(told: Path, tmp_path: Path) -> None:
    heads = train_events(config(told, tmp_path / "run", model="voxel-64", steps=3, checkpoint_every=3))
    assert EventHeads.from_pretrained(str(heads), device="cpu").chances(labelled(1, 24).frames).shape == (24, 2)


def test_resume_equals_uninterrupted(told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_events(config(told, tmp_path / "whole"))
    original = Stage.save

    def save(self: Stage) -> None:
        original(self)
        if self.step == 60:
            raise KeyboardInterrupt

    monkeypatch.setattr(Stage, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train_events(config(told, tmp_path / "parts"))
    monkeypatch.setattr(Stage, "save", original)
    one, two = (load_file(path / "heads.safetensors") for path in (whole, train_events(config(told, tmp_path / "parts"))))
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(CheckpointError, match=r"other settings \(width\)"):
        train_events(config(told, tmp_path / "parts", width=5))


def test_a_finished_run_reads_no_frames_again(told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_file(train_events(config(told, tmp_path / "run", steps=4)) / "heads.safetensors")
    monkeypatch.setattr("worldpack_model.events._labelled", lambda *_: pytest.fail("frames were read"))
    again = load_file(train_events(config(told, tmp_path / "run", steps=4)) / "heads.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_frames_of_several_sizes_are_refused(told: Path, tmp_path: Path) -> None:
    small = labelled(9)
    write_episode(tmp_path / "small", replace(small, frames=small.frames[:, :32, :32].copy()))
    with pytest.raises(EpisodeError, match=r"frames of 2 sizes, \[\(32, 32\), \(64, 64\)\]"):
        train_events(config(told, tmp_path / "run", more_data=(tmp_path / "small",)))


def test_data_that_does_not_tell_is_refused(told: Path, episodes: Path, tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="says what happens in its frames"):
        train_events(config(episodes, tmp_path / "a"))
    with pytest.raises(EpisodeError, match=r"^cactus happens in none of 240 frames"):
        train_events(config(told, tmp_path / "b", events=("log", "cactus")))
    both = train_events(config(told, tmp_path / "c", more_data=(episodes,), steps=2))  # the silent episodes are left out
    assert both.is_dir()


@pytest.mark.parametrize("settings", [{"events": ()}, {"events": ("a", "a")}, {"events": ("",)}, {"events": ("a",), "frame_size": (64, 40)}])
def test_bad_settings_are_named(settings: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=r"expected (at least one name|two multiples of 16)"):
        EventsConfig(**settings)


def test_heads_of_another_size_or_name_are_refused(tmp_path: Path) -> None:
    heads = EventHeads(EventsConfig(("log",), (32, 64), 2)).eval()
    with pytest.raises(ValueError, match=r"are \(1, 64, 64, 3\).*expect \(n, 32, 64, 3\)"):
        heads.chances(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="do not tell 'cactus', but log"):
        heads.number_of("cactus")
    heads.save(tmp_path / "heads")
    back = EventHeads.from_pretrained(str(tmp_path / "heads"), device="cpu")
    some = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 3), np.uint8)
    np.testing.assert_allclose(back.chances(some), heads.chances(some), atol=0.02)  # stored as bfloat16
    with pytest.raises(CheckpointError, match="no set of event heads 'voxels'"):
        EventHeads.from_pretrained("voxels")
    (tmp_path / "heads" / "heads.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="checksum"):
        EventHeads.from_pretrained(str(tmp_path / "heads"))
