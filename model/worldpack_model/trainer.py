"""Training of a WorldPack model from a folder of episodes: the autoencoder, then the denoiser and the motion model on its latents.

A run may be stopped at any moment, SIGKILL included, and goes on from its last checkpoint when started again, exactly: everything random in step
``k`` comes from a generator seeded with (seed, stage, k), and a checkpoint holds weights, their moving average and the optimiser's state.

Run folder: ``config.json``, ``autoencoder-state/``, ``latents/`` (``latents-1/`` and so on of ``more_data``), ``dynamics-state/`` (to continue; with
the prediction replay and the adversary), ``body-state/`` and ``motion-state/``, ``model/`` (the result, moving-average weights), ``curve.jsonl`` and
TensorBoard's ``tensorboard/``; ``rollouts-state/`` where the motion model's training began with rollouts.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from worldpack_model.adapter import Adapter, changed
from worldpack_model.adversary import WARM_UP, Adversary
from worldpack_model.autoencoder import Autoencoder, frames_to_tensor, tensor_to_frames
from worldpack_model.checkpoint import (
    Adapted,
    CheckpointError,
    load_autoencoder,
    load_state,
    read_adapted,
    read_manifest,
    read_part,
    read_tensors,
    recovered,
    resolve_device,
    save_model,
    write_folder,
)
from worldpack_model.config import PRESETS, ModelConfig, lookup
from worldpack_model.dataset import LatentDataset, data_id, iterate_frames, records_id
from worldpack_model.episodes import EpisodeIndex
from worldpack_model.motion import UNKNOWN, Body, MotionModel, forgetful, shaken, strayed
from worldpack_model.replay import PredictionReplay
from worldpack_model.stage import Kept, Progress, RunFolder, Stage, claim_folder, step_generator
from worldpack_model.world_model import WorldPack, cell_weights

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

ROLLED_SHARE = 0.4
"""Share of the denoiser's targets that are frames of rollouts, where there are any."""
BLOCKS_WEIGHT = 4.0
"""Weight of the cross-entropy of the blocks around, in the motion model's training."""
BLIND_BATCH = 256
"""Steps of bodies in a training step on the body's state alone."""


@dataclass(frozen=True)
class TrainModelConfig:
    """Trains a world model from recorded episodes; run the same command again to continue."""

    data: Path
    """Folder of episodes (from `worldpack record`)."""
    out: Path
    """Run folder; an interrupted run in it is continued."""
    more_data: tuple[Path, ...] = ()
    """More folders of episodes to train on as well, such as those that an agent collected."""
    preset: str = "voxel-64"
    """Model configuration: voxel-64 or debug."""
    variant: str = "worldpack"
    """Context of the model: worldpack, or recent / packing / retrieval / long for ablations."""
    val_data: Path | None = None
    """Folder of held-out episodes for the rollout pictures; None shows training episodes."""
    autoencoder: str | None = None
    """A trained model (folder or shipped name) whose autoencoder is taken instead of training one."""
    latents: Path | None = None
    """`latents` folder of another run on the same `data` and autoencoder, to save encoding again."""
    init_autoencoder: str | None = None
    """A trained model whose autoencoder's weights training starts from, so that latents stay near those which `init` knows."""
    autoencoder_steps: int = 4000
    """Training steps of the autoencoder."""
    autoencoder_batch: int = 32
    """Frames a step."""
    autoencoder_frames: int = 60_000
    """Frames of the data that the autoencoder is trained on, at most (12 kB of memory each at 64 x 64)."""
    autoencoder_rate: float = 2e-3
    """Peak learning rate of the autoencoder."""
    steps: int = 8000
    """Training steps of the denoiser; 0 leaves that of `init` as it is, or without one trains the autoencoder only."""
    init: str | None = None
    """A trained model (folder or shipped name) whose denoiser's weights training starts from; it must have the same configuration."""
    adapter_rank: int = 0
    """Rank of changes of `init`'s denoiser and of `init_motion`'s motion model, learned instead of all their numbers and stored in small files
    beside them; 0 learns them all."""
    batch_size: int = 32
    """Targets a step."""
    learning_rate: float = 1e-3
    """Peak learning rate of the denoiser; cosine decay to 2 % at the end."""
    ema: float = 0.999
    """Decay of the moving average of the weights."""
    unseen_weight: float = 0.25
    """Weight of the square error in cells of the target that no true frame of the context shows, over that in cells fully shown."""
    own_share: float = 0.6
    """Share of the samples that see the model's own earlier predictions as imagined context, instead of noised true frames."""
    init_motion: str | None = None
    """A trained model whose motion model's weights training starts from."""
    rollouts_from: float = 0.8
    """Share of the steps after which some episodes are imagined to their ends every `rollout_every` steps, and trained on; 1 never."""
    rollout_every: int = 150
    """Steps between such rollouts."""
    rollout_episodes: int = 32
    """Episodes to imagine each time."""
    rollout_steps: int = 70
    """Frames to imagine of each, at most."""
    adversary_from: float = 0.7
    """Share of the steps after which the adversary joins, which makes the sampler's results sharp; 1 never."""
    init_run: Path | None = None
    """Run folder on the same data, or on less of `more_data`, whose adversary and kept predictions go on here, instead of fresh ones."""
    body_steps: int = 8_000
    """Training steps of the motion model on the body's state alone, after the denoiser's; they are cheap."""
    body_rate: float = 3e-3
    """Peak learning rate of those."""
    motion_steps: int = 16_000
    """Training steps of the whole motion model, after those."""
    motion_batch: int = 64
    """Steps of bodies in a training step of the whole motion model."""
    motion_rate: float = 1.2e-3
    """Peak learning rate of the whole motion model."""
    motion_rollouts: int = 0
    """Episodes to imagine before the motion model's training, for the pasts it sees, where the run has kept no predictions (`steps` 0)."""
    more_share: float | None = None
    """Share of the whole motion model's samples that come from `more_data`; None takes the frames as they come."""
    forgetful_share: float = 0.3
    """Share of the samples of the whole motion model that see the newest frames only, as in a world without a memory."""
    strays_from: float = 0.5
    """Share of the motion steps after which some bodies stray: a model that cannot trust its place does not learn to look."""
    seed: int = 0
    """Seed of everything random in the run."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    picture_every: int = 1000
    """Steps between rollout pictures in TensorBoard; 0 for none."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16 pays on GPUs and on processors with bf16 units."""
    compile: bool = False
    """Compile the denoiser for its training; takes a minute at the start, needs a C++ compiler, and pays on a processor."""


_MAY_CHANGE = (
    "data",
    "more_data",
    "out",
    "val_data",
    "latents",
    "checkpoint_every",
    "picture_every",
    "threads",
    "device",
    "mixed_precision",
    "compile",
)
"""Settings that do not decide the result and may differ when a run is continued."""


def train_model(config: TrainModelConfig, progress: Progress = lambda stage, done, total, numbers: None) -> Path:
    """Trains (or continues) a model.

    Args:
        config: the run.
        progress: told after every step.

    Returns:
        Folder of the finished checkpoint.

    Raises:
        EpisodeError: if ``data`` holds no sound episodes.
        CheckpointError: if the run folder belongs to another configuration or is damaged.
    """
    for name in ("rollout_every", "rollout_episodes", "rollout_steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1; for no rollouts set rollouts_from to 1.")
    if config.adapter_rank < 0:
        raise ValueError(f"adapter_rank is {config.adapter_rank}, expected 0 (all numbers are learned) or more.")
    if config.adapter_rank and not ((config.init and config.steps) or (config.init_motion and config.motion_steps)):
        raise ValueError(f"adapter_rank is {config.adapter_rank}, with nothing to adapt; give init and steps, or init_motion and motion_steps.")
    if config.adapter_rank and config.init_motion and config.motion_steps and config.body_steps:
        raise ValueError(f"body_steps is {config.body_steps}, which changes what adapter_rank leaves as it is; give 0.")
    if config.more_share is not None and not (config.more_data and 0 < config.more_share < 1):
        raise ValueError(f"more_share is {config.more_share} with {len(config.more_data)} folders of more_data, expected between 0 and 1 with some.")
    if config.threads:
        torch.set_num_threads(config.threads)
    indexes = [EpisodeIndex.open(folder) for folder in (config.data, *config.more_data)]
    fingerprint = "+".join(data_id(index) for index in indexes)
    claim_folder(config.out, config, fingerprint, "+".join(records_id(index) for index in indexes), may_change=_MAY_CHANGE)
    torch.manual_seed(config.seed)  # initial weights; training itself draws from step generators only
    model_config = lookup(PRESETS, config.preset, "preset").with_variant(config.variant)
    for index in indexes:
        size = (index[0].height, index[0].width)
        if size != model_config.frame_size:
            raise ValueError(
                f"The episodes in {index.root} have {size} frames, preset {config.preset} expects {model_config.frame_size}; record again."
            )
    model = WorldPack(model_config)
    run = _Run(config, model, fingerprint, progress)
    if config.autoencoder is not None:
        source = load_autoencoder(config.autoencoder)
        _check_same_form(config.autoencoder, source, model.autoencoder)
        model.autoencoder.load_state_dict(source.state_dict())
    else:
        run.fit_autoencoder(indexes)
    model.autoencoder.eval().requires_grad_(False)
    _round_as_stored(model.autoencoder)
    if config.steps == 0 and config.init is None:
        save_model(model, config.out / "model", {"preset": config.preset, "data_id": fingerprint, "autoencoder_only": True})
    else:
        dataset = run.encode(indexes)
        run.fit_motion(dataset, run.fit_dynamics(dataset))
    return config.out / "model"


class _Run:
    """One training run: where it writes and how it goes on."""

    def __init__(self, config: TrainModelConfig, model: WorldPack, fingerprint: str, progress: Progress) -> None:
        from accelerate import Accelerator

        self.config, self.fingerprint, self.progress = config, fingerprint, progress
        on_cpu = resolve_device(config.device).type == "cpu"
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision=config.mixed_precision)
        self.model = model.to(self.accelerator.device)
        self.model.bf16 = config.mixed_precision == "bf16"
        self.adapted: dict[str, Adapted] = {}
        self.folder = RunFolder(config.out, config.seed, config.checkpoint_every, config.picture_every, self.accelerator, progress)

    # -------------------------------------------------------------------------------------------------------------- stage 1

    def fit_autoencoder(self, indexes: Sequence[EpisodeIndex]) -> None:
        """Trains the autoencoder on frames held in memory."""
        config, model = self.config, self.model.autoencoder
        stage = Stage(self.folder, "autoencoder", 1, model, config.autoencoder_steps, config.autoencoder_rate, ema=0.0)
        if stage.resume() == 0 and config.init_autoencoder is not None:
            source = load_autoencoder(config.init_autoencoder)
            _check_same_form(config.init_autoencoder, source, model)
            stage.start_from(source.state_dict())
        if stage.step >= stage.total:
            return
        frames = torch.from_numpy(np.concatenate(list(iterate_frames(_shuffled(indexes, config.seed), config.autoencoder_frames))))
        device = self.accelerator.device

        def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            chosen = torch.randint(len(frames), (config.autoencoder_batch,), generator=generator)
            noise = generator if device.type == "cpu" else torch.Generator(device).manual_seed(generator.initial_seed())
            loss, mse = model.loss(frames_to_tensor(frames[chosen]).to(device), noise)
            return loss, {"psnr": 10 * torch.log10(4 / mse)}

        def picture(writer: SummaryWriter, number: int) -> None:
            shown = frames[:: max(1, len(frames) // 8)][:8]
            model.eval()
            with torch.no_grad():
                seen = tensor_to_frames(model.decode(model.encode(frames_to_tensor(shown).to(device)))).cpu()
            model.train()
            rows = torch.cat([torch.cat(list(part), dim=1) for part in (shown, seen)])
            writer.add_image("autoencoder/real_above_decoded", rows.numpy(), number, dataformats="HWC")

        model.train()
        stage.run(step, picture)
        model.eval()

    # -------------------------------------------------------------------------------------------------------------- latents

    def encode(self, indexes: Sequence[EpisodeIndex]) -> LatentDataset:
        """Latents of all episodes, from the run folder if they are there."""
        known = self.config.latents
        parts = [self._encode_one(indexes[0], self.config.out / "latents", known)]
        parts += [self._encode_one(index, self.config.out / f"latents-{number}", None) for number, index in enumerate(indexes[1:], 1)]
        self.first = len(parts[0])
        return LatentDataset.joined(parts)

    def _encode_one(self, index: EpisodeIndex, path: Path, known: Path | None) -> LatentDataset:
        about = {"data_id": data_id(index), "records": records_id(index), "autoencoder": _fingerprint(self.model.autoencoder)}
        for folder in (path, *([known] if known else [])):
            found = LatentDataset.load(folder, about)
            if found is not None:
                return found
        if known is not None:
            raise CheckpointError(f"{known} was not made from these episodes with this autoencoder; leave --latents out.")
        done = 0

        def tell(frames: int) -> None:
            nonlocal done
            done += frames
            self.progress("encode", done, index.frames, {})

        threads = torch.get_num_threads()
        torch.set_num_threads(max(threads, os.cpu_count() or 1))  # a short stretch of pure convolution: worth the whole machine
        dataset = LatentDataset.encode(index, self.model.encode, tell)
        torch.set_num_threads(threads)
        dataset.save(path, about)
        return dataset

    # -------------------------------------------------------------------------------------------------------------- stage 2

    def fit_dynamics(self, dataset: LatentDataset) -> PredictionReplay:
        """Trains the denoiser and leaves the model with its moving-average weights; returns its predictions."""
        config, device = self.config, self.accelerator.device
        replay = PredictionReplay(dataset.latents)
        adversary = Adversary(dataset.latents.shape[1], device, step_generator(config.seed, 4, 0))
        kept: dict[str, Kept] = {"replay": replay, "adversary": adversary}
        denoiser, adapter, base = self.model.denoiser, None, {}
        if config.init is not None and config.steps == 0:
            self._keep(config.init, "denoiser")
        elif config.init is not None and config.adapter_rank:
            base = _denoiser_of(config.init, self.model.config)
            load_state(denoiser, base, config.init)
            adapter = Adapter(denoiser, config.adapter_rank, step_generator(config.seed, 7, 0))
        stage = Stage(self.folder, "dynamics", 2, adapter or denoiser, config.steps, config.learning_rate, ema=config.ema, kept=kept)
        if stage.resume() == 0 and config.init is not None and adapter is None:
            stage.start_from(_denoiser_of(config.init, self.model.config))
        if stage.step == 0 and config.init_run is not None:
            _check_same_data(config.init_run, self.fingerprint, _fingerprint(self.model.autoencoder))
            for name, part in kept.items():
                part.load(read_tensors(config.init_run / "dynamics-state" / f"{name}.safetensors"))
        joins = config.adversary_from * stage.total

        def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            if stage.step >= config.rollouts_from * stage.total and stage.step % config.rollout_every == 0:
                # eager: rollouts have many shapes, each seldom
                with stage.averaged(), torch.compiler.set_stance("force_eager"):
                    replay.roll_out(self.model, dataset, config.rollout_episodes, config.rollout_steps, generator)
            batch = dataset.batch(self.model.config, config.batch_size, generator, replay, config.own_share, replay.chances(ROLLED_SHARE))
            frames, noise = batch.frame, generator
            if device.type != "cpu":
                batch = _to(batch, device)
                noise = torch.Generator(device).manual_seed(generator.initial_seed())
            judged = stage.step >= joins
            with self.accelerator.autocast():
                loss = self.model.loss(batch, noise, unseen_weight=config.unseen_weight, through_sampler=judged)
            total, logs = loss.total, loss.logs
            if judged and len(loss.sampled_rows):
                truth, known = batch.target[loss.sampled_rows], batch.known[loss.sampled_rows]
                # what imagined frames tell of unseen places is not what is there, so agreeing with it would tell samples from the truth
                told = loss.first * known[:, None]
                pull = 1.0 if config.init_run else min(1.0, (stage.step - joins + 1) / WARM_UP)
                weight = cell_weights(known, config.unseen_weight)
                with self.accelerator.autocast():
                    logs = logs | adversary.learn(loss.sampled, told, truth)
                    total = total + len(truth) / len(frames) * adversary.loss(loss.sampled, told, truth, weight, pull)
            replay.store(frames[loss.sampled_rows.cpu()], loss.sampled)
            return total, logs

        def picture(writer: SummaryWriter, number: int) -> None:
            from worldpack_model.evaluation import rollout_picture

            with stage.averaged(), torch.compiler.set_stance("force_eager"):
                strip = rollout_picture(self.model, EpisodeIndex.open(config.val_data or config.data))
                writer.add_image("rollout/real_above_imagined", strip, number, dataformats="HWC")

        if stage.step < stage.total:
            denoiser.train()
            if config.compile:
                denoiser.compile()
                denoiser.prepare = torch.compile(denoiser.prepare)  # type: ignore[method-assign]
            stage.run(step, picture)
        self._finish("denoiser", stage, adapter, base)
        return replay

    def _keep(self, source: str, part: str) -> None:
        """A part that is not trained stays as it is stored, in two files where it has an adapter."""
        own, adapter = read_adapted(source, part)[1]
        if adapter:
            self.adapted[part] = (own, adapter)

    def _finish(self, part: str, stage: Stage, adapter: Adapter | None, base: dict[str, torch.Tensor]) -> None:
        """Leaves a part of the model with what its stage learned: all of its weights, or an adapter of those of ``base``."""
        network = getattr(self.model, part)
        if adapter is None:
            network.load_state_dict(stage.average)
        else:
            stored = {name: value.bfloat16().float() for name, value in stage.average.items()}
            adapter.detach_from_network()
            network.load_state_dict(changed(base, stored))
            self.adapted[part] = (base, stored)
        network.eval()

    # -------------------------------------------------------------------------------------------------------------- stage 3

    def fit_motion(self, dataset: LatentDataset, replay: PredictionReplay) -> None:
        """Trains the motion model, first its trunk on the body's state alone, then all of it; then writes the finished model."""
        config, device, motion = self.config, self.accelerator.device, self.model.motion
        if bool((dataset.blocks == UNKNOWN).all()):
            log.warning("The recordings in %s do not say which blocks are solid; motion is learned from what the bodies did alone.", config.data)
            motion.knows_blocks = False
        base: dict[str, torch.Tensor] = {}
        if config.init_motion is not None:
            source, base = read_part(config.init_motion, "motion")
            load_state(motion, base, config.init_motion)
            motion.knows_blocks |= source.knows_blocks
            if config.body_steps == config.motion_steps == 0:
                self._keep(config.init_motion, "motion")
        self.model.config = dataclasses.replace(self.model.config, knows_blocks=motion.knows_blocks)

        def blind(generator: torch.Generator) -> torch.Tensor:
            body, after = dataset.moves(BLIND_BATCH, generator)
            body, target = shaken(body, after, generator)
            return motion.loss(_to(body, device), None, target.to(device))[0].mean()

        def alone(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return blind(generator), {}

        body = Stage(self.folder, "body", 3, motion.trunk, config.body_steps, config.body_rate, ema=config.ema)
        motion.train()
        if body.resume() < body.total:
            body.run(alone, lambda writer, number: None)
        motion.trunk.load_state_dict(body.average)
        without = self.model.config.with_variant("recent").packing.recent
        surprise = _surprise(motion, dataset)
        usual = float(surprise.sum() / (surprise > 0).sum())
        chances = surprise if config.more_share is None else _shared(surprise, self.first, config.more_share)
        if config.motion_rollouts and not replay.known.any():
            self._imagine(dataset, replay)

        def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            batch = dataset.batch(self.model.config, config.motion_batch, generator, replay, config.own_share, chances)
            weight = (usual / surprise[batch.frame]).to(device)  # drawn more often, so counted less
            body, target = shaken(batch.body, batch.query, generator)
            off, around = body, forgetful((batch.context, batch.footprints), config.forgetful_share, without, generator)
            if whole.step >= config.strays_from * whole.total:
                off, target, around = strayed(body, target, around, generator)
            with self.accelerator.autocast():
                loss, error, told = motion.loss(_to(off, device), _to(around, device), target.to(device), _to(batch.blocks, device))
            seeing, blocks = (weight * loss).mean(), told.mean()
            astray = (off.pose != body.pose).any(1).to(device)
            logs = {
                "seeing": seeing.detach(),
                "blocks": blocks.detach(),
                "error_blocks": _mean_of(weight * error, ~astray),
                "error_above_a_tenth": _mean_of(weight * (error > 0.1), ~astray),
                "error_blocks_strayed": _mean_of(weight * error, astray),
            }
            return seeing + 0.5 * blind(generator) + BLOCKS_WEIGHT * blocks, logs

        adapts = config.adapter_rank and config.init_motion is not None and config.motion_steps
        adapter = Adapter(motion, config.adapter_rank, step_generator(config.seed, 8, 0)) if adapts else None
        whole = Stage(self.folder, "motion", 5, adapter or motion, config.motion_steps, config.motion_rate, ema=config.ema)
        if whole.resume() < whole.total:
            whole.run(step, lambda writer, number: None)
        self._finish("motion", whole, adapter, base)
        self._export()

    def _imagine(self, dataset: LatentDataset, replay: PredictionReplay) -> None:
        """Fills an empty replay with what the denoiser imagines of some episodes; kept after each round of them."""
        config, folder = self.config, self.config.out / "rollouts-state"
        rounds, done = math.ceil(config.motion_rollouts / config.rollout_episodes), 0
        if recovered(folder):
            done = int(read_manifest(folder)["rounds"])
            replay.load(read_tensors(folder / "replay.safetensors"))
        for number in range(done, rounds):
            replay.roll_out(self.model, dataset, config.rollout_episodes, config.rollout_steps, step_generator(config.seed, 6, number))
            write_folder(folder, {"replay.safetensors": replay.state()}, {"rounds": number + 1})
            self.progress("rollouts", number + 1, rounds, {"frames": float(replay.known.sum())})

    def _export(self) -> None:
        about = {
            "preset": self.config.preset,
            "variant": self.config.variant,
            "steps": self.config.steps,
            "batch_size": self.config.batch_size,
            "motion_steps": self.config.motion_steps,
            "init": self.config.init,
            "adapter_rank": self.config.adapter_rank,
            "data_id": self.fingerprint,
            "seed": self.config.seed,
        }
        save_model(self.model, self.config.out / "model", about, adapted=self.adapted)


def _denoiser_of(name: str, config: ModelConfig) -> dict[str, torch.Tensor]:
    """The denoiser's weights of a trained model."""
    source, weights = read_part(name, "denoiser")
    for part in ("transformer", "packing", "autoencoder"):
        if getattr(source, part) != getattr(config, part):
            raise CheckpointError(f"{name} has {part} {getattr(source, part)}, this run {getattr(config, part)}; leave --init out.")
    return weights


def _check_same_form(name: str, source: Autoencoder, needed: Autoencoder) -> None:
    if source.config != needed.config:
        raise CheckpointError(f"The autoencoder of {name} has {source.config}, the preset needs {needed.config}.")


def _check_same_data(run: Path, fingerprint: str, autoencoder: str) -> None:
    """Predictions are kept by the number of their frame, as latents: they belong to the same episodes and autoencoder only."""
    try:
        written = json.loads((run / "config.json").read_text())
        other, elsewhere = written["data_id"], written["config"].get("latents")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run} is no run folder to go on from ({error!r}).") from error
    if not f"{fingerprint}+".startswith(f"{other}+"):  # the frames of the first folders keep their numbers
        raise CheckpointError(f"{run} was trained on other episodes (data_id {other}, here {fingerprint}); leave --init-run out.")
    for latents in (run / "latents", *([Path(elsewhere)] if elsewhere else [])):
        if (latents / "manifest.json").is_file():
            if read_manifest(latents, verify=False)["about"]["autoencoder"] != autoencoder:
                raise CheckpointError(f"{run} was trained with another autoencoder, whose latents mean nothing here; leave --init-run out.")
            return
    raise CheckpointError(f"{run} has no latents any more, which would tell its autoencoder; leave --init-run out.")


@torch.no_grad()
def _surprise(motion: MotionModel, dataset: LatentDataset) -> torch.Tensor:
    """Chances ``(N,)`` of frames as targets: three in four steps are a turn or a walk on open ground, and tell nothing about surroundings."""
    here = dataset.followed().nonzero()[:, 0]
    device = next(motion.parameters()).device
    body, after = dataset.steps_from(here)
    losses = []
    for i in range(0, len(here), 8192):
        some = _to(Body(*(part[i : i + 8192] for part in body)), device)
        losses.append(motion.loss(some, None, after[i : i + 8192, :3].to(device) - some.pose[:, :3])[0].cpu())
    loss = torch.cat(losses).clamp(0, 4)
    chances = torch.zeros(len(dataset))
    chances[here + 1] = loss + 0.3 * loss.mean()
    return chances


def _shared(chances: torch.Tensor, first: int, share: float) -> torch.Tensor:
    """``chances (N,)`` changed so that ``share`` of the draws fall on the frames from number ``first`` on."""
    scaled = chances.clone()
    scaled[:first] *= (1 - share) / chances[:first].sum()
    scaled[first:] *= share / chances[first:].sum()
    return scaled


def _mean_of(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of ``values (B,)`` where ``where (B,) bool``; 0 where that is nowhere."""
    return (values * where).sum() / where.sum().clamp_min(1)


def _shuffled(indexes: Sequence[EpisodeIndex], seed: int) -> Any:
    """The episodes in a seeded order, so that a limited number of frames comes from all tasks and worlds."""

    class _Order:
        def __iter__(self) -> Iterator[Any]:
            entries = [(index, entry) for index in indexes for entry in index]
            return (entries[i] for i in np.random.default_rng([seed, 3]).permutation(len(entries)))

        def read(self, entry: Any, *, verify: bool = True) -> Any:
            return entry[0].read(entry[1], verify=verify)

    return _Order()


@torch.no_grad()
def _round_as_stored(autoencoder: Autoencoder) -> None:
    """Rounds the weights as a checkpoint will, so that the latents belong to exactly the autoencoder that is written."""
    for parameter in autoencoder.parameters():
        parameter.copy_(parameter.bfloat16().float())


def _fingerprint(autoencoder: Autoencoder) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _to(value: Any, device: torch.device) -> Any:
    """Moves a nest of tuples of tensors, named or not."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    parts = (_to(part, device) for part in value)
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
