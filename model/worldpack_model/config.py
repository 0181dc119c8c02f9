"""Configurations of the world model: frozen dataclasses, named presets and variants, strict reading."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from worldpack_model.geometry import VERTICAL_FOV

T = TypeVar("T")

Precision = Literal["auto", "float32", "bfloat16"]
"""Of a denoiser's arithmetic; ``auto`` takes bfloat16 where the device has units for it."""


def from_dict(cls: type[T], data: dict[str, Any], where: str = "") -> T:
    """Builds a dataclass from plain JSON data, refusing what it does not know.

    Args:
        cls: a dataclass type; nested dataclasses and tuples of them are followed.
        data: a JSON object.
        where: path of ``data`` inside the file, for messages.

    Raises:
        ValueError: at an unknown key (the nearest known key is named) or a value of the wrong form.
    """
    where = where or cls.__name__
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {type(data).__name__}, expected an object with keys.")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(sorted(known))}."
            raise ValueError(f"{where} has an unknown key {key!r}.{hint}")
        values[key] = convert(hints[key], value, f"{where}.{key}")
    return cls(**values)


def convert(kind: Any, value: Any, where: str) -> Any:
    """Plain JSON data as a value of a field's type, refusing what is none.

    Args:
        kind: a type as :func:`typing.get_type_hints` tells it: a dataclass, tuple, Literal, Optional, Path, float, int, str or bool.
        value: plain data.
        where: what it is, for messages.

    Raises:
        ValueError: if the value is of another form.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_dict(typing.cast(type, kind), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r}, expected a list.")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise ValueError(f"{where} has {len(value)} entries, expected {len(args)}.")
        return tuple(convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where} is {value!r}, expected one of {', '.join(map(repr, args))}.")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return convert(next(a for a in args if a is not type(None)), value, where)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{where} is {value!r}, expected {getattr(kind, '__name__', kind)}.")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Frame <-> latent."""

    kind: Literal["conv"] = "conv"
    """``conv``: the small trainable autoencoder of ``autoencoder.py``."""
    latent_channels: int = 12
    """Channels of the latent."""
    downscale: int = 8
    """Pixels a latent cell covers on each side (fixed by the architecture)."""
    width: int = 128
    """Channels of the decoder's blocks at the latent's size; the encoder uses 4/5 of it."""
    blocks: int = 3
    """Residual blocks at the latent's size, in encoder and decoder each."""


@dataclass(frozen=True)
class Level:
    """One compression level of trajectory packing (paper section 4.3)."""

    kernel: int
    """Side of the square of latent cells that becomes one token; each level doubles it."""
    recent: int
    """How many of the newest frames this level holds."""
    retrieved: int
    """How many retrieved frames it holds; the best scored go to the least compressed level (v3's geometric selection)."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds.
        """
        if self.kernel < 1 or self.recent < 0 or self.retrieved < 0:
            raise ValueError(f"A level has a kernel of at least 1 and no fewer than 0 frames, got {self}.")


@dataclass(frozen=True)
class PackingConfig:
    """How the history is packed into a fixed number of tokens."""

    levels: tuple[Level, ...] = (Level(1, 1, 1), Level(2, 1, 3), Level(4, 8, 8))
    """From the least to the most compressed. The default has v3's counts, 2 / 4 / 16 frames in four frames' worth of tokens."""

    @property
    def recent(self) -> int:
        """Number of newest frames in the context."""
        return sum(level.recent for level in self.levels)

    @property
    def retrieved(self) -> int:
        """Number of retrieved frames in the context."""
        return sum(level.retrieved for level in self.levels)

    @property
    def frames(self) -> int:
        """Number of frames in the context."""
        return self.recent + self.retrieved

    def scaled(self, patch: int) -> PackingConfig:
        """The same schedule over tokens of ``patch`` x ``patch`` latent cells."""
        return PackingConfig(tuple(dataclasses.replace(level, kernel=level.kernel * patch) for level in self.levels))

    def tokens(self, rows: int, columns: int) -> int:
        """Exact number of context tokens for latents of ``rows`` x ``columns`` cells (replicate padding included)."""
        return sum((lv.recent + lv.retrieved) * -(-rows // lv.kernel) * -(-columns // lv.kernel) for lv in self.levels)


@dataclass(frozen=True)
class RetrievalConfig:
    """Pose-based memory retrieval.

    ``score`` is the paper's (section 4.2), in log space. The paper prints sigma_forward 0.01, sigma_lateral 10, and both weights 1. A sigma of 0.01
    blocks lets no frame but those of the very same spot take part; our defaults spread the choice over the neighbourhood a frame really shows.

    ``coverage`` asks instead which frames together show most of the view to predict: points along the view's rays at a few depths count for a frame
    that has them in its picture, the more the nearer it stood and the more alike its direction; frames are then taken greedily by what they add.
    On held-out loops the best four frames show a seventh (ABA-15) or 90 % (ABA-50) more of the visible surface than the score's
    (``benchmarks/retrieval_coverage.py``).
    """

    method: Literal["coverage", "score"] = "coverage"
    """How frames are chosen."""
    probe_grid: tuple[int, int] = (3, 5)
    """coverage: rows and columns of rays over the view."""
    probe_depths: tuple[float, ...] = (5.0, 12.0, 30.0)
    """coverage: blocks along each ray."""
    imagined_weight: float = 0.4
    """coverage: what a point seen by an imagined frame counts, against 1 for a real one."""
    candidates: int = 128
    """coverage: frames that show most by themselves, from which the choice is made; bounds the cost for long histories."""
    sigma_forward: float = 4.0
    """score: blocks; spread of the forward offset s."""
    sigma_lateral: float = 3.0
    """score: blocks; spread of the lateral offset l."""
    mu_opposite: float = 1.0
    """score: blocks; the forward offset at which a frame that looks back at the query scores best (mu_s of the paper)."""
    weight_same: float = 1.0
    """score: w_c: weight of frames that look the same way."""
    weight_opposite: float = 0.02
    """score: w_a: weight of frames that look the opposite way."""
    sharpness: float = 3.0
    """score: exponent on the direction cosine; 1 in the paper. Higher prefers frames whose view really overlaps."""
    suppression_steps: int = 2
    """score: a chosen frame keeps frames at most this many env steps from it from being chosen as well."""
    imagined_penalty: float = 1.5
    """score: subtracted from the log score of frames that the model imagined: a real frame of the same view is the better memory."""


@dataclass(frozen=True)
class MemoryConfig:
    """What is kept of an episode."""

    capacity: int = 4096
    """Keyframes a slot keeps at most; then the oldest imagined one (or the oldest) gives way."""
    nearby: int = 1024
    """Keyframes that are looked at for one prediction, at most: those of the nearest stretches of the way. Bounds the cost of long histories."""
    min_distance: float = 0.4
    """Blocks. A frame closer than this to a kept one ..."""
    min_angle: float = 8.0
    """... and turned by less than this many degrees adds nothing and is not kept."""


@dataclass(frozen=True)
class TransformerConfig:
    """The conditional diffusion transformer (CDiT)."""

    width: int = 192
    """Width of a token."""
    depth: int = 4
    """Number of blocks."""
    patch: int = 1
    """Side of the square of latent cells that one token of the target covers (2 in the paper's lineage)."""
    head_dim: int = 64
    """Width of an attention head."""
    mlp_ratio: int = 4
    """Hidden width of the feed-forward part over ``width``."""
    geometry: Literal["rays", "paper"] = "rays"
    """``rays``: rotary code of the world direction of every token's ray, context tokens moved to the target's eye by a learned depth;
    ``paper``: learned positions, temporal rotary code and one relative-pose embedding only."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Flow matching with prediction of the clean latent."""

    evaluations: int = 2
    """Network evaluations per env step."""
    pure_noise_share: float = 0.4
    """Share of training targets at the noisiest level, where few-step sampling spends its first evaluation."""
    context_noise: float = 0.5
    """Largest standard deviation of the noise put on remembered frames that stand for imagined ones in training."""


@dataclass(frozen=True)
class ModelConfig:
    """A whole WorldPack model."""

    frame_size: tuple[int, int] = (64, 64)
    """(height, width) in pixels."""
    vertical_fov: float = VERTICAL_FOV
    """Degrees."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    knows_blocks: bool = True
    """Whether the motion model was taught which blocks are solid, so that bodies can be moved among them; a recording may not tell."""

    def __post_init__(self) -> None:
        """Checks what would otherwise fail deep inside."""
        down = self.autoencoder.downscale
        if any(side <= 0 or side % down for side in self.frame_size):
            raise ValueError(f"frame_size is {self.frame_size}, expected two multiples of {down} (the autoencoder's downscale).")
        if self.transformer.width % self.transformer.head_dim:
            raise ValueError(f"width {self.transformer.width} is no multiple of head_dim {self.transformer.head_dim}.")
        if not self.packing.levels or self.packing.recent < 1:
            raise ValueError("The packing needs at least one level and at least one recent frame.")
        if self.transformer.patch < 1 or any(side % self.transformer.patch for side in self.latent_size):
            raise ValueError(f"patch is {self.transformer.patch}, expected a divisor of the latent's sides {self.latent_size}.")
        if self.diffusion.evaluations < 1:
            raise ValueError(f"evaluations is {self.diffusion.evaluations}, expected at least 1.")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(rows, columns) of a latent."""
        down = self.autoencoder.downscale
        return self.frame_size[0] // down, self.frame_size[1] // down

    def with_variant(self, name: str) -> ModelConfig:
        """The same network with another context: a name of ``VARIANTS`` or a schedule as :func:`parse_packing` reads it."""
        return dataclasses.replace(self, packing=parse_packing(name).scaled(self.transformer.patch))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; the inverse of :func:`from_dict`."""
        return dataclasses.asdict(self)


VARIANTS: dict[str, PackingConfig] = {
    "recent": PackingConfig((Level(1, 4, 0),)),
    "packing": PackingConfig((Level(1, 2, 0), Level(2, 4, 0), Level(4, 16, 0))),
    "retrieval": PackingConfig((Level(1, 1, 3),)),
    "worldpack": PackingConfig(),
    "graded": PackingConfig((Level(1, 1, 2), Level(2, 0, 2), Level(4, 0, 8))),
    "long": PackingConfig((Level(1, 10, 12),)),
    "v1": PackingConfig((Level(1, 1, 0), Level(2, 2, 0), Level(4, 8, 8))),
    "v3": PackingConfig(),
}
"""Contexts, for tokens of one latent cell. ``v1`` and ``v3`` are the paper's two schedules: 1 / 2 / 16 frames with the oldest eight slots retrieved,
and 2 / 4 / 16 frames where selection decides how strongly a frame is compressed (which slots are recent the paper does not say). The others ablate
``worldpack``, which is ``v3``: ``recent``, ``packing`` and ``retrieval`` have four frames' worth of tokens too, and so has ``graded``, all of whose
frames but the newest are retrieved, two of them uncompressed; ``long`` is the uncompressed context of ``worldpack``'s 22 frames."""

PRESETS: dict[str, ModelConfig] = {
    "voxel-64": ModelConfig(),
    "base": ModelConfig(
        frame_size=(224, 224),
        autoencoder=AutoencoderConfig(latent_channels=16, width=256),
        transformer=TransformerConfig(width=768, depth=12, patch=2),
        packing=PackingConfig().scaled(2),
    ),
    "large": ModelConfig(
        frame_size=(256, 256),
        autoencoder=AutoencoderConfig(latent_channels=16, width=256),
        transformer=TransformerConfig(width=1024, depth=24, patch=2),
        packing=PackingConfig().scaled(2),
    ),
    "middle": ModelConfig(
        frame_size=(128, 128),
        autoencoder=AutoencoderConfig(latent_channels=16, width=192),
        transformer=TransformerConfig(width=512, depth=12),
    ),
    "voxel-64-small": ModelConfig(transformer=TransformerConfig(width=128, depth=3)),
    "debug": ModelConfig(autoencoder=AutoencoderConfig(width=20, blocks=1), transformer=TransformerConfig(width=32, depth=2, head_dim=16)),
}
"""Named configurations. ``voxel-64`` is shipped; ``voxel-64-small`` is for ablations on a CPU; ``base`` and ``large`` have the paper's scale (the
width and depth of CDiT-B and CDiT-L over latents cut 2 x 2; the paper names no size), ``middle`` is for a single GPU; ``debug`` is for tests."""


def parse_packing(text: str) -> PackingConfig:
    """A packing by its name in ``VARIANTS``, or a schedule of one's own.

    Args:
        text: a name, or ``KERNEL:RECENT+RETRIEVED`` for each level with commas between, such as ``1:1+1,2:1+3,4:8+8`` for ``v3``.
    """
    if ":" not in text:
        return lookup(VARIANTS, text, "variant")
    levels = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+):(\d+)\+(\d+)\s*", part)
        if found is None or int(found[1]) < 1:
            raise ValueError(f"{part!r} in the schedule {text!r} is no level; expected KERNEL:RECENT+RETRIEVED, such as 2:1+3.")
        levels.append(Level(*(int(number) for number in found.groups())))
    return PackingConfig(tuple(levels))


def lookup(table: dict[str, T], name: str, what: str) -> T:
    """``table[name]``, or a ValueError that names the nearest known one."""
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no {what} named {name!r}; known: {', '.join(table)}.{hint}")
