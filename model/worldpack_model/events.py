"""Event heads: what happens in a frame, beyond poses, told from the frame alone.

An engine knows that the player looks at a tree; an imagined world has no blocks to ask, only pictures. A head is a small network that gives the
chance of one event in a frame, learned from recordings whose engine told (``Episode.events``), or whose files somebody labelled. It looks at the
picture itself, so one set of heads serves every world model with frames of that size. Tasks pay and end by it (``worldpack_env.tasks.Find``).

Legend: N frames, H and W their sides, E events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from worldpack_model.autoencoder import Autoencoder, frames_to_tensor, tensor_to_frames
from worldpack_model.checkpoint import (
    load_autoencoder,
    load_state,
    named_folder,
    read_config_of,
    read_manifest,
    read_tensors,
    resolve_device,
    write_folder,
)
from worldpack_model.dataset import data_id, draw, records_id
from worldpack_model.episodes import EpisodeError, EpisodeIndex, happens, in_env_steps
from worldpack_model.stage import Progress, RunFolder, Stage, claim_folder

SHIPPED_HEADS = Path(__file__).parent / "heads"
_FILE = "heads.safetensors"
_RARE = 0.5
"""Share of the frames of a batch in which one of the events happens."""


@dataclass(frozen=True)
class EventsConfig:
    """What a set of heads tells, and of which frames."""

    events: tuple[str, ...]
    """Names, one for each head."""
    frame_size: tuple[int, int] = (64, 64)
    """(height, width) in pixels."""
    width: int = 12
    """Channels of the first layer; the others have twice as many."""

    def __post_init__(self) -> None:
        """Checks the names and sizes.

        Raises:
            ValueError: if there is no event, one is named twice, or a side is no multiple of 16.
        """
        if not self.events or len(set(self.events)) < len(self.events) or not all(self.events):
            raise ValueError(f"events are {self.events}, expected at least one name and none twice.")
        if any(side <= 0 or side % 16 for side in self.frame_size):
            raise ValueError(f"frame_size is {self.frame_size}, expected two multiples of 16.")


class EventHeads(nn.Module):
    """Chances of events in frames: three convolutions that all heads share, and a row of weights for each head."""

    def __init__(self, config: EventsConfig) -> None:
        super().__init__()
        self.config = config
        w, cells = config.width, config.frame_size[0] * config.frame_size[1] // 16**2
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 4, stride=4),
            nn.GELU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * w, 2 * w, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * w * cells, len(config.events)),
        )

    @classmethod
    def from_pretrained(cls, name: str, *, device: str = "auto") -> EventHeads:
        """Loads heads: ``voxel``, which come with the package, or a folder that ``worldpack train-events`` wrote.

        Raises:
            CheckpointError: if there are none of that name or their files are damaged.
        """
        path = named_folder(name, SHIPPED_HEADS, "set of event heads")
        read_manifest(path)
        heads = cls(read_config_of(EventsConfig, path))
        load_state(heads, {k: v.float() for k, v in read_tensors(path / _FILE).items()}, str(path / _FILE))
        return heads.requires_grad_(False).to(resolve_device(device)).eval()

    def save(self, path: Path, about: dict[str, Any] | None = None) -> None:
        """Writes the heads to folder ``path``, weights as bfloat16."""
        tensors = {name: value.to(torch.bfloat16) for name, value in self.state_dict().items()}
        write_folder(path, {_FILE: tensors, "config.json": asdict(self.config)}, {"about": about or {}})

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Log odds ``(N, E)`` of the events in frames ``(N, 3, H, W)`` in [-1, 1]."""
        logits: torch.Tensor = self.layers(frames)
        return logits

    @torch.no_grad()
    def chances(self, frames: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Chances ``(N, E)`` of the events in ``frames (N, H, W, 3) uint8``.

        Raises:
            ValueError: if the frames have another size.
        """
        if tuple(frames.shape[1:]) != (*self.config.frame_size, 3):
            raise ValueError(
                f"frames are {tuple(frames.shape)}, these event heads expect (n, {self.config.frame_size[0]}, {self.config.frame_size[1]}, 3)."
            )
        pixels = torch.as_tensor(frames, device=self.layers[0].weight.device)  # type: ignore[arg-type]
        chances: NDArray[np.float32] = torch.sigmoid(self(frames_to_tensor(pixels))).cpu().numpy()
        return chances

    def number_of(self, event: str) -> int:
        """Which column is ``event``'s.

        Raises:
            ValueError: if no head tells it.
        """
        if event not in self.config.events:
            raise ValueError(f"These event heads do not tell {event!r}, but {', '.join(self.config.events)}; train some with worldpack train-events.")
        return self.config.events.index(event)


@dataclass(frozen=True)
class TrainEventsConfig:
    """Trains event heads from recorded episodes whose frames are labelled; run the same command again to continue."""

    data: Path
    """Folder of episodes (from `worldpack record`, whose worlds `voxel` and `minecraft` label the block in the middle of the view; or your own labels
    in the records' `extra_info.events`)."""
    out: Path
    """Run folder; the heads are written to its folder `heads`."""
    events: tuple[str, ...] = ("log", "concrete")
    """Events to tell, by whole names or their last words: `log` is oak_log and spruce_log."""
    more_data: tuple[Path, ...] = ()
    """More folders of episodes."""
    model: str | None = "voxel-64"
    """A world model through whose autoencoder half of the frames are seen, as imagined ones are; None sees all as they are."""
    blur: float = 0.5
    """Largest standard deviation of the noise on the latents of those, since imagined frames are not exact either."""
    max_frames: int = 120_000
    """Frames of the data that are used, at most (12 kB of memory each at 64 x 64)."""
    width: int = 12
    """Channels of the heads' first layer."""
    steps: int = 6000
    """Training steps."""
    batch_size: int = 64
    """Frames a step."""
    learning_rate: float = 2e-3
    """Peak learning rate; cosine decay to 2 % at the end."""
    seed: int = 0
    """Seed of everything random in the run."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""


def train_events(config: TrainEventsConfig, progress: Progress = lambda stage, done, total, numbers: None) -> Path:
    """Trains (or continues) event heads.

    Frames in which one of the events happens are drawn for half of each batch and count less in the loss, so that chances stay those of the data.

    Args:
        config: the run.
        progress: told every fifty steps.

    Returns:
        Folder of the heads, for :meth:`EventHeads.from_pretrained`.

    Raises:
        EpisodeError: if no episode says what happens in it, or an event happens in none.
        CheckpointError: if the run folder belongs to another configuration or is damaged.
    """
    from accelerate import Accelerator

    if config.threads:
        torch.set_num_threads(config.threads)
    indexes = [EpisodeIndex.open(folder) for folder in (config.data, *config.more_data)]
    data = "+".join(data_id(index) for index in indexes)
    records = "+".join(records_id(index) for index in indexes)
    claim_folder(config.out, config, data, records, may_change=("data", "more_data", "out", "checkpoint_every", "threads", "device"))
    sizes = {(entry.height, entry.width) for index in indexes for entry in index}
    if len(sizes) > 1:
        raise EpisodeError(f"The episodes have frames of {len(sizes)} sizes, {sorted(sizes)}; give folders with frames of one size.")
    torch.manual_seed(config.seed)  # initial weights; training itself draws from step generators only
    heads = EventHeads(EventsConfig(config.events, sizes.pop(), config.width))
    accelerator = Accelerator(cpu=resolve_device(config.device).type == "cpu")
    heads.to(accelerator.device)
    folder = RunFolder(config.out, config.seed, config.checkpoint_every, 0, accelerator, progress)
    stage = Stage(folder, "events", 1, heads, config.steps, config.learning_rate, ema=0.99)
    if stage.resume() < stage.total:
        stage.run(_step(heads, *_labelled(indexes, config), config.batch_size, accelerator.device), lambda writer, number: None)
    heads.load_state_dict(stage.average)
    heads.save(config.out / "heads", {"data_id": data, "steps": config.steps, "model": config.model, "seed": config.seed})
    return config.out / "heads"


def _step(heads: EventHeads, frames: torch.Tensor, labels: torch.Tensor, size: int, device: torch.device) -> Callable[..., Any]:
    """A training step on ``size`` of ``frames (N, H, W, 3) uint8`` with ``labels (N, E) bool``, for :meth:`Stage.run`."""
    some = labels.any(dim=1)
    chances = torch.where(some, _RARE / some.sum(), (1 - _RARE) / (~some).sum()).double()
    weights = (1 / (len(frames) * chances)).float()

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen = draw(chances, size, generator)
        logits = heads(frames_to_tensor(frames[chosen]).to(device))
        truth, weight = labels[chosen].float().to(logits), weights[chosen, None].to(logits)
        return (weight * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")).mean(), {}

    return step


def _labelled(indexes: Sequence[EpisodeIndex], config: TrainEventsConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames ``(N, H, W, 3) uint8``, half of them as the autoencoder shows them, and whether each event happens in them ``(N, E) bool``."""
    autoencoder = None if config.model is None else load_autoencoder(config.model)
    generator = torch.Generator().manual_seed(config.seed)
    frames: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    count = 0
    entries = [(index, entry) for index in indexes for entry in index]
    for number in torch.randperm(len(entries), generator=generator).tolist():
        index, entry = entries[number]
        episode = in_env_steps(index.read(entry))
        if episode.events is None:
            continue
        seen = torch.from_numpy(episode.frames)
        if autoencoder is not None:
            again = torch.rand(len(seen), generator=generator) < 0.5
            seen = seen.clone()
            seen[again] = _seen_again(autoencoder, seen[again], config.blur, generator)
        frames.append(seen)
        labels.append(torch.tensor([[happens(event, names) for event in config.events] for names in episode.events]))
        count += len(seen)
        if count >= config.max_frames:
            break
    if not frames:
        raise EpisodeError(f"No episode in {config.data} says what happens in its frames; record it again in a world that tells, or label it.")
    told = torch.cat(labels)
    never = [event for event, any_ in zip(config.events, told.any(dim=0).tolist(), strict=True) if not any_]
    if never:
        raise EpisodeError(f"{', '.join(never)} happens in none of {count} frames of {config.data}; give the name of an event that does.")
    return torch.cat(frames), told


@torch.no_grad()
def _seen_again(autoencoder: Autoencoder, frames: torch.Tensor, blur: float, generator: torch.Generator) -> torch.Tensor:
    """Frames ``(n, H, W, 3) uint8`` through the autoencoder, with noise on their latents."""
    latents = autoencoder.encode(frames_to_tensor(frames))
    strength = blur * torch.rand((len(latents), 1, 1, 1), generator=generator)
    return tensor_to_frames(autoencoder.decode(latents + strength * torch.randn(latents.shape, generator=generator)))
