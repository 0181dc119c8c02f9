"""Training data: recorded episodes as latents in memory, and batches of (packed context, target) drawn from them.

Legend: N frames of all episodes together, B batch, F context frames, T frames of the longest episode of a batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from worldpack_model.checkpoint import CheckpointError, read_manifest, read_tensors, recovered, write_folder
from worldpack_model.config import ModelConfig
from worldpack_model.episodes import EpisodeError, EpisodeIndex, in_env_steps
from worldpack_model.geometry import BOX, box_corner
from worldpack_model.motion import UNKNOWN, Blocks, Body, unhindered
from worldpack_model.packing import Context
from worldpack_model.replay import STRAYED_SHARE, PredictionReplay
from worldpack_model.retrieval import footprints, known_cells, select
from worldpack_model.world_model import Batch

_LAYOUT = {"layout": "2"}
"""Of saved datasets: the first had no blocks."""


def data_id(index: EpisodeIndex) -> str:
    """Short fingerprint of a folder of episodes: which files, with which contents."""
    text = json.dumps(sorted((entry.path, entry.frames, entry.video_sha256) for entry in index))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def records_id(index: EpisodeIndex) -> str:
    """Short fingerprint of what is written beside the frames: the same episodes recorded again may say more."""
    return hashlib.sha256("".join(entry.json_sha256 for entry in index).encode()).hexdigest()[:16]


def iterate_frames(index: EpisodeIndex, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Frames ``(T, H, W, 3) uint8`` episode by episode, until ``limit`` frames were given."""
    given = 0
    for entry in index:
        frames = index.read(entry).frames
        yield frames
        given += len(frames)
        if limit is not None and given >= limit:
            return


@dataclass(frozen=True)
class LatentDataset:
    """All episodes of a folder as latents."""

    latents: torch.Tensor
    """``(N, C, h, w)`` float16."""
    poses: torch.Tensor
    """``(N, 5)`` float64."""
    actions: torch.Tensor
    """``(N, 9)`` float32; row t leads from frame t to t + 1, the last row of an episode is zero."""
    starts: torch.Tensor
    """``(E + 1,) int64`` first frame of every episode, then N."""
    blocks: torch.Tensor
    """``(N, *BOX) uint8`` the blocks around the body: 1 solid, 0 not, ``motion.UNKNOWN`` where the recording does not say."""

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.latents)

    @classmethod
    def encode(
        cls,
        index: EpisodeIndex,
        encode: Callable[[NDArray[np.uint8]], torch.Tensor],
        progress: Callable[[int], None] = lambda frames: None,
    ) -> LatentDataset:
        """Encodes every episode of a folder once.

        Args:
            index: the episodes.
            encode: maps ``(n, H, W, 3) uint8`` to latents ``(n, C, h, w)``.
            progress: called with the number of frames just encoded.

        Raises:
            EpisodeError: if an episode is damaged or too short, naming it.
        """
        latents, poses, actions, starts, blocks = [], [], [], [0], []
        for entry in index:
            episode = in_env_steps(index.read(entry))
            if len(episode) < 2:
                raise EpisodeError(f"Episode {entry.stem} has {len(episode)} frame; training needs at least 2. Remove it and rebuild the index.")
            parts = [encode(episode.frames[i : i + 32]).half() for i in range(0, len(episode), 32)]  # 32: fits the caches
            latents.append(torch.cat(parts).cpu())
            poses.append(torch.from_numpy(episode.poses))
            actions.append(torch.cat([torch.from_numpy(episode.actions), torch.zeros((1, 9))]))
            starts.append(starts[-1] + len(episode))
            told = episode.blocks
            blocks.append(torch.full((len(episode), *BOX), UNKNOWN, dtype=torch.uint8) if told is None else torch.from_numpy(told).byte())
            progress(len(episode))
        # contiguous: as it is read back, so that a continued run takes the very same arithmetic
        return cls(torch.cat(latents).contiguous(), torch.cat(poses), torch.cat(actions), torch.tensor(starts), torch.cat(blocks))

    @classmethod
    def joined(cls, parts: Sequence[LatentDataset]) -> LatentDataset:
        """One dataset of the episodes of several, one after the other: frame numbers of the first stay what they were.

        Raises:
            ValueError: if there are none.
        """
        if not parts:
            raise ValueError("Joining takes at least one dataset, got none.")
        if len(parts) == 1:
            return parts[0]
        tensors = {f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls) if f.name != "starts"}
        begin = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        starts = [part.starts[:-1] + first for part, first in zip(parts, begin[:-1], strict=True)]
        return cls(**tensors, starts=torch.cat([*starts, torch.tensor(begin[-1:])]))

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Writes the dataset as a checked folder; ``about`` says what it was made from."""
        tensors = {"latents": self.latents, "poses": self.poses, "actions": self.actions, "starts": self.starts, "blocks": self.blocks}
        write_folder(path, {"latents.safetensors": tensors}, {"about": about | _LAYOUT})

    @classmethod
    def load(cls, path: Path, about: dict[str, str]) -> LatentDataset | None:
        """Reads a saved dataset, or None if it is missing, damaged or made from something else."""
        try:
            if not recovered(path) or read_manifest(path).get("about") != about | _LAYOUT:
                return None
            return cls(**read_tensors(path / "latents.safetensors"))
        except CheckpointError:
            return None

    def batch(
        self,
        config: ModelConfig,
        size: int,
        generator: torch.Generator,
        replay: PredictionReplay | None = None,
        own_share: float = 0.0,
        chances: torch.Tensor | None = None,
    ) -> Batch:
        """Draws a training batch.

        A target is any frame but an episode's first. In play, the frames before it are partly real (the given context) and partly imagined; here
        a cut drawn for each sample splits the past in the same way: frames after it are marked imagined, and are noised or, where ``replay`` knows
        them, replaced by the model's own predictions.

        Args:
            config: model configuration: packing, retrieval and context noise.
            size: B.
            generator: all that is random comes from it (a CPU generator).
            replay: the model's own earlier predictions of these frames.
            own_share: share of the samples whose imagined frames come from ``replay``.
            chances: ``(N,)`` how often a frame is drawn as the target, relative to others; None draws all alike.
                An episode's first frame never is one.
        """
        here = draw(self.followed() * (1.0 if chances is None else chances[1:].double()), size, generator)
        episode = torch.searchsorted(self.starts, here, right=True) - 1
        target = here + 1 - self.starts[episode]
        cut = torch.where(torch.rand(size, generator=generator) < 0.35, target, 1 + (torch.rand(size, generator=generator) * target).long()).clamp(
            max=target
        )
        forget = torch.rand(size, generator=generator) < 0.08  # sometimes only the recent frames, as at the start of an episode
        own = torch.rand(size, generator=generator) < own_share
        return self._gather(config, episode, target, cut, forget, own, replay, generator)

    def _gather(
        self,
        config: ModelConfig,
        episode: torch.Tensor,
        target: torch.Tensor,
        cut: torch.Tensor,
        forget: torch.Tensor,
        own: torch.Tensor,
        replay: PredictionReplay | None,
        generator: torch.Generator,
    ) -> Batch:
        first = self.starts[episode]
        number = torch.arange(int(target.max()))[None]  # (1, T)
        past = number < target[:, None]
        keep = past & (~forget[:, None] | (number >= (target - config.packing.recent)[:, None]))
        row = torch.where(past, first[:, None] + number, first[:, None])  # (B, T) into all frames
        poses = self.poses[row]
        imagined = number >= cut[:, None]
        here = first + target - 1
        previous, action = self.poses[here], self.actions[here]
        towards = unhindered(previous, action)  # as in play, where nobody knows yet whether the way is free
        steps = torch.where(keep, number, -1)
        chosen = select(
            config.packing,
            config.retrieval,
            query=towards,
            poses=poses,
            steps=steps,
            imagined=imagined,
            vertical_fov=config.vertical_fov,
            aspect=config.frame_size[1] / config.frame_size[0],
        )
        frame = row.gather(1, chosen.indices)  # (B, F) into all frames
        made = imagined.gather(1, chosen.indices)
        latents = self.latents[frame].float()
        strength = torch.rand((len(target), 1, 1, 1, 1), generator=generator) * config.diffusion.context_noise
        true = chosen.used
        noised = latents + strength * torch.randn(latents.shape, generator=generator) * made[:, :, None, None, None]
        if replay is not None:
            shift = torch.randint(1, len(self), own.shape, generator=generator)
            shift *= torch.rand(own.shape, generator=generator) < STRAYED_SHARE
            source = (frame + shift[:, None]) % len(self)
            known = own[:, None] & made & replay.known[source]
            true = true & ~known
            noised = torch.where(known[:, :, None, None, None], replay.latents[source].float(), noised)
        context = Context(noised, self.poses[frame], target[:, None] - chosen.indices, made, chosen.used)
        return Batch(
            context=context,
            query=self.poses[here + 1],
            body=self._body(here, target > 1),
            footprints=footprints(config.packing, query=towards, poses=poses, steps=steps, imagined=imagined),
            blocks=Blocks(self.blocks[here], torch.from_numpy(box_corner(self.poses[here].numpy()))),
            target=self.latents[here + 1].float(),
            known=known_cells(
                self.poses[here + 1],
                self.poses[frame].where(true[..., None], torch.nan),
                config.retrieval,
                config.latent_size,
                vertical_fov=config.vertical_fov,
                aspect=config.frame_size[1] / config.frame_size[0],
            ),
            frame=here + 1,
        )

    def moves(self, size: int, generator: torch.Generator) -> tuple[Body, torch.Tensor]:
        """Draws ``size`` steps of bodies: each before its step, and the poses ``(size, 5)`` after it. Cheap: no frame is looked at."""
        return self.steps_from(draw(self.followed(), size, generator))

    def steps_from(self, here: torch.Tensor) -> tuple[Body, torch.Tensor]:
        """The steps of bodies from frames ``here (B,)``, none an episode's last, and the poses ``(B, 5)`` after them."""
        return self._body(here, ~torch.isin(here, self.starts)), self.poses[here + 1]

    def followed(self) -> torch.Tensor:
        """``(N - 1,) bool``: whether a frame is followed by another of its episode."""
        followed = torch.ones(len(self) - 1, dtype=torch.bool)
        followed[self.starts[1:-1] - 1] = False
        return followed

    def _body(self, here: torch.Tensor, moving: torch.Tensor) -> Body:
        """Bodies in frames ``here (B,)``; ``moving (B,) bool`` False in an episode's first."""
        before = torch.where(moving, here - 1, here)
        return Body(self.poses[here], self.actions[here], self.poses[here][:, :3] - self.poses[before][:, :3], self.actions[before] * moving[:, None])


def draw(weights: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """``(size,) int64`` indices drawn in proportion to ``weights (n,)``, for any n (``torch.multinomial`` takes at most 2^24)."""
    ends = weights.double().cumsum(0)
    # right: an index of no weight ends where the one before it does, and is passed over
    index = torch.searchsorted(ends, torch.rand(size, generator=generator, dtype=torch.float64) * ends[-1], right=True)
    return index.clamp(max=len(weights) - 1)
