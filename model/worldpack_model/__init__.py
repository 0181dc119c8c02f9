"""The world model: packing, retrieval, memory, diffusion. Needs torch and NumPy only; names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
_PUBLIC = {
    "WorldPack": "worldpack_model.world_model",
    "Prediction": "worldpack_model.world_model",
    "ModelConfig": "worldpack_model.config",
    "CompressedMemory": "worldpack_model.memory",
    "Episode": "worldpack_model.episodes",
    "EpisodeIndex": "worldpack_model.episodes",
    "read_episode": "worldpack_model.episodes",
    "write_episode": "worldpack_model.episodes",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
