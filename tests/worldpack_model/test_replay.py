"""Own predictions as context: kept, fed back where a past counts as imagined, never elsewhere, and part of a run's state."""

import dataclasses
from pathlib import Path

import pytest
import torch

from worldpack_model.config import PRESETS
from worldpack_model.dataset import LatentDataset
from worldpack_model.diffusion import sample_levels
from worldpack_model.episodes import EpisodeIndex
from worldpack_model.motion import realised
from worldpack_model.replay import STRAYED_SHARE, PredictionReplay
from worldpack_model.world_model import WorldPack, cell_weights


@pytest.fixture
def dataset(episodes: Path, model: WorldPack) -> LatentDataset:
    return LatentDataset.encode(EpisodeIndex.open(episodes), model.encode)


def test_the_newest_sample_counts() -> None:
    replay = PredictionReplay(torch.zeros(5, 2, 2, 2, dtype=torch.float16))
    replay.store(torch.tensor([3, 4]), torch.full((2, 2, 2, 2), 0.5))
    replay.store(torch.tensor([3]), torch.full((1, 2, 2, 2), 2.0))
    assert replay.known.tolist() == [False, False, False, True, True]
    assert replay.latents[:, 0, 0, 0].tolist() == [0.0, 0.0, 0.0, 2.0, 0.5]


def test_the_loss_samples_as_play_does(dataset: LatentDataset, model: WorldPack) -> None:
    """The samples for the replay are those of ``imagine`` with the same noise, to the last evaluation."""
    batch = dataset.batch(model.config, 32, torch.Generator().manual_seed(0))
    loss = model.loss(batch, torch.Generator().manual_seed(5))
    rows = loss.sampled_rows
    assert 0 < len(rows) < 32
    generator = torch.Generator().manual_seed(5)
    sample_levels(32, model.config.diffusion, generator)
    noise = torch.randn(batch.target.shape, generator=generator)
    local = realised(batch.body.pose, batch.query).float()
    whole = model.imagine(batch.context, batch.query, batch.body.action, local, noise, model.config.diffusion.evaluations)
    assert torch.allclose(loss.sampled, whole[rows], atol=1e-5)
    assert not loss.sampled.requires_grad
    assert model.loss(batch, torch.Generator().manual_seed(5), through_sampler=True).sampled.requires_grad, "the adversary needs it"


def test_state_brings_it_back() -> None:
    replay = PredictionReplay(torch.zeros(5, 1, 1, 1, dtype=torch.float16))
    replay.store(torch.tensor([2, 0]), torch.tensor([7.0, 3.0]).reshape(2, 1, 1, 1))
    other = PredictionReplay(torch.zeros(5, 1, 1, 1, dtype=torch.float16))
    other.store(torch.tensor([4]), torch.ones(1, 1, 1, 1))
    other.load(replay.state())
    assert torch.equal(other.known, replay.known)
    assert torch.equal(other.latents[other.known], replay.latents[replay.known])


def test_imagined_frames_are_the_models_own_and_real_ones_stay(dataset: LatentDataset) -> None:
    config = PRESETS["debug"]
    replay = PredictionReplay(dataset.latents)
    replay.store(torch.arange(len(dataset)), torch.full(dataset.latents.shape, 77.0))
    batch = dataset.batch(config, 64, torch.Generator().manual_seed(0), replay, own_share=1.0)
    made = batch.context.imagined & batch.context.used
    assert bool(made.any())
    assert bool((batch.context.latents[made] == 77).all())
    assert not bool((batch.context.latents[~made] == 77).any())


def test_without_own_share_nothing_changes(dataset: LatentDataset) -> None:
    config = PRESETS["debug"]
    replay = PredictionReplay(dataset.latents)
    replay.store(torch.arange(len(dataset)), torch.full(dataset.latents.shape, 77.0))
    plain = dataset.batch(config, 16, torch.Generator().manual_seed(0))
    other = dataset.batch(config, 16, torch.Generator().manual_seed(0), replay, own_share=0.0)
    assert torch.equal(plain.context.latents, other.context.latents)


def test_a_batch_names_its_targets(dataset: LatentDataset) -> None:
    batch = dataset.batch(PRESETS["debug"], 16, torch.Generator().manual_seed(0))
    assert torch.equal(dataset.latents[batch.frame].float(), batch.target)
    assert torch.equal(dataset.poses[batch.frame], batch.query)


def test_a_batch_without_pure_noise_samples_nothing(dataset: LatentDataset, model: WorldPack) -> None:
    config = dataclasses.replace(model.config, diffusion=dataclasses.replace(model.config.diffusion, pure_noise_share=0.0))
    model.config = config
    batch = dataset.batch(config, 4, torch.Generator().manual_seed(0))
    loss = model.loss(batch, torch.Generator().manual_seed(0))
    assert loss.sampled.shape == (0, *batch.target.shape[1:])
    assert loss.sampled_rows.shape == (0,)
    PredictionReplay(dataset.latents).store(batch.frame[loss.sampled_rows], loss.sampled)


def test_some_imagined_pasts_have_strayed_to_one_other_place(dataset: LatentDataset) -> None:
    config, count = PRESETS["debug"], len(dataset)
    replay = PredictionReplay(dataset.latents)
    numbers = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(dataset.latents.shape)
    replay.store(torch.arange(count), numbers)
    batch = dataset.batch(config, 256, torch.Generator().manual_seed(0), replay, own_share=1.0)
    made = batch.context.imagined & batch.context.used
    shown = batch.context.latents[:, :, 0, 0, 0]
    meant = batch.frame[:, None] - batch.context.ages
    shift = torch.where(made, (shown - meant) % count, -1)
    strayed = (shift > 0).any(1)
    share = float(strayed.sum() / made.any(1).sum())
    assert 0.5 * STRAYED_SHARE < share < 1.6 * STRAYED_SHARE
    for row in strayed.nonzero()[:, 0]:
        assert len(set(shift[row][made[row]].tolist())) == 1, "the whole imagined past is of one place"


def test_rollouts_keep_what_was_seen_on_the_way(dataset: LatentDataset, model: WorldPack) -> None:
    """Each rolled-out episode has one stretch of frames, the model's own, along the recorded poses; the first of all is as ``imagine`` gives it."""
    replay, again = PredictionReplay(dataset.latents), PredictionReplay(dataset.latents)
    replay.roll_out(model, dataset, 3, 6, torch.Generator().manual_seed(1))
    again.roll_out(model, dataset, 3, 6, torch.Generator().manual_seed(1))
    assert torch.equal(replay.latents, again.latents)
    assert torch.equal(replay.rolled, replay.known)
    rolled = [replay.rolled[a:b] for a, b in zip(dataset.starts[:-1], dataset.starts[1:], strict=True)]
    assert sum(bool(part.any()) for part in rolled) == 3
    for part in rolled:
        frames = part.nonzero()[:, 0].tolist()
        assert not frames or (frames == list(range(frames[0], frames[-1] + 1)) and frames[0] >= 1 and len(frames) <= 6)
    assert not torch.equal(replay.latents[replay.rolled], dataset.latents[replay.rolled])
    assert bool(torch.isfinite(replay.latents).all())


def test_chances_make_rollouts_the_wanted_share(dataset: LatentDataset) -> None:
    replay = PredictionReplay(dataset.latents)
    assert replay.chances(0.5) is None
    replay.rolled[30:40] = True
    chances = replay.chances(0.5)
    assert chances is not None
    drawn = dataset.batch(PRESETS["debug"], 2000, torch.Generator().manual_seed(0), chances=chances).frame
    assert abs(float(replay.rolled[drawn].float().mean()) - 0.5) < 0.05
    assert not torch.isin(drawn, dataset.starts).any()
    replay.store(torch.arange(35, 40), dataset.latents[35:40])
    assert int(replay.rolled.sum()) == 5, "a newer prediction of one step takes its place"


def test_rollouts_are_part_of_the_state(dataset: LatentDataset) -> None:
    one, two = PredictionReplay(dataset.latents), PredictionReplay(dataset.latents)
    one.store(torch.arange(5), dataset.latents[:5])
    one.rolled[3:5] = True
    two.load(one.state())
    assert torch.equal(one.rolled, two.rolled)


def test_own_predictions_make_nothing_known(dataset: LatentDataset) -> None:
    """What the model made of a place is no knowledge of it: only true frames of a context count."""
    config = PRESETS["debug"]
    replay = PredictionReplay(dataset.latents)
    replay.store(torch.arange(len(dataset)), torch.zeros(dataset.latents.shape))
    without, among = (dataset.batch(config, 64, torch.Generator().manual_seed(2), part, 1.0) for part in (None, replay))
    assert torch.equal(without.frame, among.frame)
    assert bool((among.known <= without.known).all())
    all_real = ~(among.context.imagined & among.context.used).any(1)
    assert torch.equal(among.known[all_real], without.known[all_real])
    assert among.known[~all_real].mean() < 0.9 * without.known[~all_real].mean()


def test_cells_nobody_saw_count_less() -> None:
    known = torch.tensor([[[0.0, 1.0], [0.5, 1.0]]])
    weight = cell_weights(known, 0.25)
    assert weight.shape == (1, 1, 2, 2)
    assert weight.mean().item() == pytest.approx(1)
    assert (weight[0, 0, 0, 0] / weight[0, 0, 0, 1]).item() == pytest.approx(0.25)
    assert torch.equal(cell_weights(known, 1.0), torch.ones(1, 1, 2, 2))
