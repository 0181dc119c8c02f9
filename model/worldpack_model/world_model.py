"""WorldPack: autoencoder, motion, memory and diffusion transformer joined into one simulator of views.

Legend: B slots of a call, F context frames, C latent channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from worldpack_model.autoencoder import Autoencoder, frames_to_tensor, tensor_to_frames
from worldpack_model.compiler import check_compiler, compiled
from worldpack_model.config import ModelConfig, Precision, lookup
from worldpack_model.diffusion import add_noise, draw_noise, sample, sample_levels
from worldpack_model.geometry import check_action, check_pose
from worldpack_model.memory import CompressedMemory
from worldpack_model.motion import (
    Blocks,
    Body,
    Choice,
    MotionModel,
    advance,
    chances_of_places,
    footed,
    realised,
    unhindered,
    was_blocked,
)
from worldpack_model.packing import Context
from worldpack_model.retrieval import Footprints, footprints, retrieved_columns, select, take_by_coverage
from worldpack_model.threads import in_parts, part_sizes, rows_of
from worldpack_model.transformer import CDiT, PackedContext


class Batch(NamedTuple):
    """A training batch of the dynamics: predict one frame from what came before."""

    context: Context
    query: torch.Tensor
    """``(B, 5)`` pose of the target frame."""
    body: Body
    """Pose of the frame before it, the action from there to the target, and how the body moved until then."""
    footprints: Footprints
    """Remembered positions around the body."""
    blocks: Blocks
    """What the recording says of the blocks around the body."""
    target: torch.Tensor
    """``(B, C, h, w)`` latent of the target."""
    known: torch.Tensor
    """``(B, h, w)`` in [0, 1]: how far those frames of the context that are true show each of its cells, if nothing hides it."""
    frame: torch.Tensor
    """``(B,) int64`` number of the target among all frames of the data."""


class Loss(NamedTuple):
    """What one training step gives."""

    total: torch.Tensor
    """Scalar to minimise."""
    logs: dict[str, torch.Tensor]
    """Detached scalars."""
    sampled: torch.Tensor
    """``(n, C, h, w)`` what the sampler, from pure noise to its last evaluation, makes of some of the targets."""
    first: torch.Tensor
    """``(n, C, h, w)`` detached: its first evaluations."""
    sampled_rows: torch.Tensor
    """``(n,) int64`` which of the batch those are: the ones whose noise level was 1."""


def cell_weights(known: torch.Tensor, unseen: float) -> torch.Tensor:
    """Weights ``(B, 1, h, w)``, 1 on average, of cells known as far as ``known (B, h, w)``; ``unseen`` is the unknown ones' over the known ones'."""
    weight = unseen + (1 - unseen) * known[:, None]
    return weight / weight.mean()


def _seeds(generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """``(n,) int64`` what the generators were seeded with; a restored one has the seed of the one whose state it took."""
    return torch.tensor([g.initial_seed() & (1 << 63) - 1 for g in generators], device=device)


@dataclass(frozen=True)
class Prediction:
    """One predicted frame for each asked slot."""

    frames: Any
    """``(n, H, W, 3) uint8`` array; a tensor on the model's device where that was asked for."""
    poses: NDArray[np.float64]
    """``(n, 5)`` where the model thinks the agent now is."""
    blocked: NDArray[np.bool_]
    """``(n,)`` whether the walk was cut short."""
    finite: NDArray[np.bool_]
    """``(n,)`` False where the prediction is not finite; such a frame is not remembered and shown black."""
    retrieved: NDArray[np.int64]
    """``(n, k)`` step numbers of the retrieved frames, best first, -1 where unused."""


class _Stages(NamedTuple):
    """The parts of a prediction that are worth compiling."""

    take: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None
    """None is :func:`take_by_coverage` as it is."""
    move: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    prepare: Callable[..., PackedContext]
    denoise: Callable[..., torch.Tensor]
    picture: Callable[..., torch.Tensor]


class WorldPack(nn.Module):
    """A world model with compressed memory.

    Typical use::

        model = WorldPack.from_pretrained("voxel-64")
        memory = model.new_memory(num_slots=1)
        model.remember(memory, [0], frames, poses, actions)                 # what is known of the place
        prediction = model.predict(memory, [0], action[None], [generator])  # and on from there, frame by frame
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config.autoencoder)
        self.denoiser = CDiT(config)
        self.motion = MotionModel(config)
        self.bf16 = False
        """Whether frames are imagined in bf16 (autocast); see :meth:`in_bf16`."""
        self._compiled: _Stages | None = None
        self._compiled_for: set[int] = set()
        """Slots of a call ..."""
        self._compiled_rows: set[int] = set()
        """... and of the parts that threads make of it."""

    @classmethod
    def from_pretrained(cls, name: str, *, device: str = "auto", precision: Precision = "auto") -> WorldPack:
        """Loads a model: the name of a shipped one (no network needed), or the folder of a checkpoint.

        Args:
            name: ``voxel-64``, a shipped variant such as ``voxel-64-recent``, or a path.
            device: ``auto`` takes a GPU where there is one.
            precision: of the denoiser's arithmetic; ``auto`` takes bfloat16 where the device has units for it.

        Raises:
            CheckpointError: if there is no such model or its files are damaged.
        """
        from worldpack_model.checkpoint import load_model

        return load_model(name, device=device, precision=precision)

    def in_bf16(self) -> WorldPack:
        """Turns the denoiser's weights to bfloat16, for imagining only; shipped weights lose nothing by it. Returns the model.

        Frames are decoded in it as well, which moves a pixel by about a grey level at most (a test says so). Geometry, encoder and motion
        model stay in float32: what is remembered and poses add up.
        """
        self.bf16 = True
        for parameter in self.denoiser.parameters():  # not its buffers: rays and frequencies
            parameter.data = parameter.data.bfloat16()
        return self

    def compile_for(self, rows: int) -> WorldPack:
        """Compiles the networks (``torch.compile``) for calls of :meth:`predict` with ``rows`` slots, or more than half as many. Returns the model.

        The first such call takes about two minutes; torch keeps what it compiled on disk, and later processes take ten seconds. Frames differ
        from those of the uncompiled model by a rounding of bfloat16 here and there, poses by a rounding of float32.

        Raises:
            RuntimeError: if torch cannot compile here; on a processor it needs a C++ compiler.
        """
        if self._compiled is None:
            check_compiler(self.device)
            # the functions, not the module: a compiled module would be a part of this one, with weights of its own in state_dict()
            stages = self._stages(0)._replace(take=take_by_coverage)
            self._compiled = _Stages(**{name: compiled(stage, self.device) for name, stage in stages._asdict().items()})
        self._compiled_for.add(rows)
        self._compiled_rows |= part_sizes(rows) if self.device.type == "cpu" else {rows}
        return self

    def _filled(self, rows: int) -> int:
        """How many rows a prediction of ``rows`` is made of, what is too many thrown away: compiled code for some more takes less time than none."""
        return min((n for n in self._compiled_for if rows <= n < 2 * rows), default=rows)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.denoiser.position.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        return (self.config.autoencoder.latent_channels, *self.config.latent_size)

    def new_memory(self, num_slots: int) -> CompressedMemory:
        """An empty memory for ``num_slots`` episodes at a time."""
        return CompressedMemory(
            self.config.memory,
            num_slots=num_slots,
            recent=self.config.packing.recent,
            latent_shape=self.latent_shape,
            device=self.device,
        )

    @torch.no_grad()
    def encode(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Encodes ``frames (n, H, W, 3) uint8`` to latents ``(n, C, h, w)``."""
        height, width = self.config.frame_size
        if frames.ndim != 4 or frames.shape[1:] != (height, width, 3) or frames.dtype != np.uint8:
            raise ValueError(f"frames are {frames.shape} {frames.dtype}, expected (n, {height}, {width}, 3) uint8.")
        return self.autoencoder.encode(frames_to_tensor(torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Decodes latents ``(n, C, h, w)`` to frames ``(n, H, W, 3) uint8``."""
        frames: NDArray[np.uint8] = tensor_to_frames(self.autoencoder.decode(latents)).cpu().numpy()
        return frames

    @torch.no_grad()
    def remember(
        self,
        memory: CompressedMemory,
        slots: Sequence[int],
        frames: NDArray[np.uint8],
        poses: NDArray[np.float64],
        actions: NDArray[np.float32] | None = None,
        *,
        real: bool = True,
    ) -> None:
        """Appends known frames to ``slots``.

        Args:
            memory: from :meth:`new_memory`.
            slots: n slots.
            frames: ``(n, k, H, W, 3) uint8``, k >= 1.
            poses: ``(n, k, 5)`` their poses.
            actions: ``(n, k - 1, 9)`` between them; the motion model asks for the last.
            real: whether an engine showed them (a real frame is the better memory).

        Raises:
            ValueError: if shapes do not fit.
        """
        frames, poses = np.asarray(frames), check_pose(poses, "poses")
        if frames.ndim != 5 or poses.shape != (*frames.shape[:2], 5) or frames.shape[0] != len(slots) or frames.shape[1] < 1:
            raise ValueError(f"frames {frames.shape} and poses {poses.shape} do not fit {len(slots)} slots; expected (n, k, H, W, 3) and (n, k, 5).")
        if actions is not None and np.asarray(actions).shape != (frames.shape[0], frames.shape[1] - 1, 9):
            raise ValueError(f"actions are {np.asarray(actions).shape}, expected {(frames.shape[0], frames.shape[1] - 1, 9)}.")
        n, k = frames.shape[:2]
        latents = self.encode(frames.reshape(n * k, *frames.shape[2:])).reshape(n, k, *self.latent_shape)
        known = torch.from_numpy(poses).to(self.device)
        held = torch.zeros((n, k, 9), device=self.device)
        if actions is not None:
            held[:, 1:] = torch.from_numpy(check_action(actions, "actions")).to(self.device)
        for i in range(k):
            memory.append(slots, latents[:, i], known[:, i], held[:, i], imagined=not real)

    @torch.no_grad()
    def predict(
        self,
        memory: CompressedMemory,
        slots: Sequence[int],
        actions: NDArray[np.float32],
        generators: Sequence[torch.Generator],
        *,
        evaluations: int | None = None,
        poses: NDArray[np.float64] | None = None,
        motion: Choice = "likeliest",
        on_device: bool = False,
    ) -> Prediction:
        """Predicts the next frame of each of ``slots`` and remembers it.

        Args:
            memory: from :meth:`new_memory`, with at least one frame in each slot.
            slots: n slots.
            actions: ``(n, 9)`` actions in the project's units.
            generators: one for each slot: all that is random in a slot comes from its own.
            evaluations: network evaluations; None takes the model's default.
            poses: ``(n, 5)`` poses of the frames to predict where they are known (evaluation along recorded poses); None lets the model move.
            motion: where the model moves: ``likeliest`` takes the motion that most probably happens, ``drawn`` one by its probability, by a chance
                that is one for each place of an episode: the seed of its generator says which.
            on_device: leave the frames on the model's device.
        """
        act = check_action(actions, "actions")
        if act.shape != (len(slots), 9) or len(generators) != len(slots):
            raise ValueError(f"{len(slots)} slots need actions ({len(slots)}, 9) and as many generators; got {act.shape}, {len(generators)}.")
        action = torch.from_numpy(act).to(self.device)
        index = torch.as_tensor(list(slots), device=self.device)
        here = memory.poses[index, memory.newest_column(slots)]
        if evaluations is not None and evaluations < 1:
            raise ValueError(f"evaluations is {evaluations}, expected at least 1, or None for the model's default.")
        lookup(dict.fromkeys(get_args(Choice)), motion, "motion")
        told = None if poses is None else check_pose(poses, "poses")
        if told is not None and told.shape != (len(slots), 5):
            raise ValueError(f"poses have shape {told.shape}, expected ({len(slots)}, 5): one for each slot.")
        known = None if told is None else torch.from_numpy(told).to(self.device)
        towards = unhindered(here, action) if known is None else known
        body = Body(here, action, memory.motion[index], memory.actions[index])
        rows: tuple[Any, ...] = (index, memory.near(slots, towards), towards, body, draw_noise(self.latent_shape, generators, self.device))
        work: Callable[..., tuple[torch.Tensor, ...]] = self._show_at
        if known is None:
            chances = (chances_of_places(_seeds(generators, self.device), body),) if motion == "drawn" else ()
            work, rows = self._move_and_show, (*rows, memory.momentum[index], *chances)
        work = functools.partial(work, memory, evaluations if evaluations is not None else self.config.diffusion.evaluations)
        filled = self._filled(len(slots))
        if filled > len(slots):
            rows = rows_of(rows, torch.arange(filled, device=self.device).clamp_max(len(slots) - 1))
        made = in_parts(work, rows, self.denoiser.position.numel())
        latents, frames, query, blocked, finite, retrieved, *momentum = (part[: len(slots)] for part in made)
        counts = memory.put(slots, latents, query, action, imagined=True, where=finite, momentum=momentum[0] if momentum else None)
        # from a GPU only this is read back
        rest = (part.cpu().numpy() for part in (query, blocked, finite, retrieved))
        prediction = Prediction(frames if on_device else frames.cpu().numpy(), *rest)
        memory.settle(slots, counts.cpu().numpy())
        return prediction

    def _show_at(
        self,
        memory: CompressedMemory,
        evaluations: int,
        index: torch.Tensor,
        columns: torch.Tensor,
        query: torch.Tensor,
        body: Body,
        noise: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """What :meth:`_show` gives for slots ``index (B,)``, and the steps ``(B, k)`` of the retrieved frames, of those in ``columns (B, N)``."""
        context, _, retrieved = self._recall(memory, index, columns, query)
        return *self._show(context, body, query, noise, evaluations), retrieved

    def _move_and_show(
        self,
        memory: CompressedMemory,
        evaluations: int,
        index: torch.Tensor,
        columns: torch.Tensor,
        towards: torch.Tensor,
        body: Body,
        noise: torch.Tensor,
        momentum: torch.Tensor,
        chance: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """As :meth:`_show_at`, where the motion model says that the bodies get to, and the momentum ``(B, 5)`` that is left of ``momentum (B, 5)``.

        ``towards (B, 5)`` is what is remembered for, ``chance (B,)`` draws among what the motion model says.
        """
        context, near, retrieved = self._recall(memory, index, columns, towards)
        query, left = self._stages(len(noise)).move(context, body, near, momentum, chance)
        return *self._show(context, body, query, noise, evaluations), retrieved, left

    def _recall(
        self, memory: CompressedMemory, index: torch.Tensor, columns: torch.Tensor, towards: torch.Tensor
    ) -> tuple[Context, Footprints, torch.Tensor]:
        """The context of slots ``index (B,)`` for a frame at ``towards (B, 5)``, footprints around it, and the steps of the retrieved frames."""
        row = index[:, None]
        steps, imagined, past = memory.steps[row, columns], memory.imagined[row, columns], memory.poses[row, columns]
        chosen = select(
            self.config.packing,
            self.config.retrieval,
            query=towards,
            poses=past,
            steps=steps,
            imagined=imagined,
            vertical_fov=self.config.vertical_fov,
            aspect=self.config.frame_size[1] / self.config.frame_size[0],
            take=self._stages(len(index)).take,
            room=memory.most_near,
        )
        taken, chosen_steps = columns.gather(1, chosen.indices), steps.gather(1, chosen.indices)
        context = Context(
            latents=memory.latents[row, taken].float(),
            poses=past.gather(1, chosen.indices[..., None].expand(-1, -1, 5)),
            ages=memory.length[index, None] - chosen_steps,
            imagined=imagined.gather(1, chosen.indices),
            used=chosen.used,
        )
        retrieved = torch.where(chosen.used, chosen_steps, -1)[:, retrieved_columns(self.config.packing)]
        return context, footprints(self.config.packing, query=towards, poses=past, steps=steps, imagined=imagined), retrieved

    def _move(
        self, context: Context, body: Body, near: Footprints, momentum: torch.Tensor, chance: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Poses ``(B, 5)`` that bodies get to, and the momentum ``(B, 5)`` that is left."""
        moves = self.motion(body, (context, near))
        motion, left = footed(body, momentum, moves, moves.likeliest if chance is None else moves.drawn(chance))
        return advance(body.pose, body.action, motion), left

    def _picture(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures ``(B, 3, H, W)`` of latents."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            pictures = self.autoencoder.decode(latents)
        return pictures.float()

    def _stages(self, rows: int) -> _Stages:
        """What a prediction of ``rows`` slots is made by, compiled if it was asked for."""
        if self._compiled is not None and rows in self._compiled_rows:
            return self._compiled
        return _Stages(None, self._move, self.denoiser.prepare, self.denoiser.forward, self._picture)

    def _show(self, context: Context, body: Body, query: torch.Tensor, noise: torch.Tensor, evaluations: int) -> tuple[torch.Tensor, ...]:
        """Latents, frames, poses ``query (B, 5)``, whether the way there was blocked, and whether all is finite."""
        local = realised(body.pose, query).float()
        latents = self.imagine(context, query, body.action, local, noise, evaluations)
        finite = torch.isfinite(latents).flatten(1).all(dim=1) & torch.isfinite(query).all(dim=1)
        # bytes by themselves: compiled with the rest, numbers are moved one by one
        frames = tensor_to_frames(self._stages(len(noise)).picture(torch.where(finite[:, None, None, None], latents, 0.0)))
        frames = torch.where(finite[:, None, None, None], frames, 0)
        return latents, frames, query, was_blocked(body.action, local), finite

    def imagine(
        self,
        context: Context,
        query: torch.Tensor,
        actions: torch.Tensor,
        local: torch.Tensor,
        noise: torch.Tensor,
        evaluations: int,
    ) -> torch.Tensor:
        """Samples latents ``(B, C, h, w)`` at poses ``query (B, 5)`` from a context and unit ``noise (B, C, h, w)``."""
        motion = torch.cat([local, query[:, 4:5].to(local.dtype)], dim=-1)
        stages = self._stages(len(noise))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            packed = stages.prepare(context, query)
            return sample(lambda z, level: stages.denoise(z, level, actions, motion, packed).float(), noise, evaluations=evaluations)

    def loss(self, batch: Batch, generator: torch.Generator, *, unseen_weight: float = 1.0, through_sampler: bool = False) -> Loss:
        """Training loss of the denoiser on one batch: the mean square error of the predicted clean latent (1.0 is knowing nothing).

        For targets at the noisiest level that was the sampler's first evaluation; its others follow, for the prediction replay.

        Args:
            batch: the targets and what came before them.
            generator: draws noise levels and noise.
            unseen_weight: weight of cells that no true frame of the context shows, over that of cells fully shown.
            through_sampler: keep the gradient of the sampler's last evaluation, for the adversary.
        """
        clean = batch.target
        level = sample_levels(len(clean), self.config.diffusion, generator, clean.device)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        local = realised(batch.body.pose, batch.query).to(clean.dtype)
        packed = self.denoiser.prepare(batch.context, batch.query)
        motion = torch.cat([local, batch.query[:, 4:5].to(clean.dtype)], dim=-1)
        predicted = self.denoiser(add_noise(clean, noise, level), level, batch.body.action, motion, packed)
        weight = cell_weights(batch.known, unseen_weight)
        square = (predicted - clean).square()
        error = square.flatten(1).mean(1)
        pure = level >= 1
        logs = {"x_mse": error.detach().mean(), "x_mse_pure_noise": error.detach()[pure].mean() if bool(pure.any()) else error.detach().mean()}
        rows = pure.nonzero()[:, 0]
        first = predicted.detach()[rows]
        with torch.set_grad_enabled(through_sampler):
            sampled = self._finish_sampling(batch, packed, motion, noise, first, rows)
        return Loss((weight * square).mean(), logs, sampled.float(), first.float(), rows)

    def _finish_sampling(
        self, batch: Batch, packed: PackedContext, motion: torch.Tensor, noise: torch.Tensor, first: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """The sampler's remaining evaluations for the targets ``rows (n,)``, whose first one was ``first``; only the last one keeps a gradient."""
        if not len(rows):
            return first
        part, evaluations, calls = packed.rows(rows), self.config.diffusion.evaluations, 1

        def denoise(z: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            with torch.set_grad_enabled(torch.is_grad_enabled() and calls == evaluations):
                return self.denoiser(z, level, batch.body.action[rows], motion[rows], part)  # type: ignore[no-any-return]

        return sample(denoise, noise[rows], evaluations=evaluations, first=first)
