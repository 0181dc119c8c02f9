"""What a navigation policy sees: a small CNN over pictures, and the goal as numbers of order one that go past it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

Algorithm = Literal["ppo", "recurrent-ppo", "dqn", "qr-dqn"]
VALUE_BASED: Final = ("dqn", "qr-dqn")
"""Algorithms that learn the values of actions, from a replay buffer."""

FAR: Final = 16.0
"""Blocks by which a goal vector's length is scaled."""


@dataclass(frozen=True)
class PolicyConfig:
    """Size of the policy's networks."""

    image_features: int = 64
    """Numbers that a picture becomes."""
    width: int = 16
    """Channels of the first convolution; the next two have twice as many."""
    goal_features: int = 32
    """Numbers that the goal entry becomes (a linear layer past the CNN)."""
    hidden: int = 64
    """Width of the two hidden layers of actor and critic, or of the values."""
    lstm: int = 128
    """Width of the LSTM (recurrent-ppo)."""
    warm_up: bool = True
    """The LSTM has seen the frames before an episode, such as the way out of a loop, when the episode begins (recurrent-ppo)."""
    quantiles: int = 50
    """Quantiles of every action's return (qr-dqn)."""

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ValueError: if one is below 1; the message names it.
        """
        for name in ("image_features", "width", "goal_features", "hidden", "lstm", "quantiles"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")


class PictureEncoder(nn.Module):
    """Nature CNN (Mnih et al. 2015) at half to quarter width: ``(B, C, H, W)`` in [0, 1] to ``(B, features)``."""

    def __init__(self, shape: tuple[int, ...], *, width: int, features: int) -> None:
        """Builds the layers for pictures of ``shape`` (C, H, W), each side at least 36 pixels."""
        super().__init__()
        channels, height, columns = shape
        if min(height, columns) < 36:
            raise ValueError(f"Pictures are {height}x{columns}, the policy needs at least 36x36 pixels; use a larger frame_size.")
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            size = self.body(torch.zeros(1, *shape)).shape[1]
        self.head = nn.Sequential(nn.Linear(size, features), nn.ReLU())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encodes ``pictures (B, C, H, W)``."""
        # strided views of HWC frames would take the slow convolution path
        encoded: torch.Tensor = self.head(self.body((pictures - 0.5).contiguous()))
        return encoded


def goal_numbers(key: str, value: torch.Tensor) -> torch.Tensor:
    """The goal entry ``(B, k)`` as numbers of order one ``(B, m)``.

    A compass in degrees becomes (sin, cos, |angle| / 180): no jump at +-180. A vector (right, up, forward) in blocks becomes its direction in the
    plane, its height, and its length on a logarithmic scale.
    """
    if key == "compass":
        angle = torch.deg2rad(value)
        return torch.cat([torch.sin(angle), torch.cos(angle), value.abs() / 180.0], dim=-1)
    if key == "vector":
        right, up, ahead = value[..., 0:1], value[..., 1:2], value[..., 2:3]
        distance = torch.sqrt(right**2 + ahead**2)
        safe = distance.clamp_min(1e-6)
        return torch.cat([right / safe, ahead / safe, up / 8.0, torch.log1p(distance) / torch.log1p(torch.tensor(FAR))], dim=-1)
    return value.flatten(1)


class NavFeatures(BaseFeaturesExtractor):
    """Features of a navigation observation: every picture through one shared CNN, every other entry through a linear layer past it."""

    def __init__(self, observation_space: spaces.Dict, *, config: PolicyConfig | None = None) -> None:
        """Builds the networks.

        Args:
            observation_space: Dict of ``(C, H, W) uint8`` pictures and float vectors.
            config: sizes; None takes the defaults.
        """
        config = PolicyConfig() if config is None else config
        pictures = [k for k, v in observation_space.spaces.items() if len(v.shape or ()) == 3]
        others = [k for k in observation_space.spaces if k not in pictures]
        shapes = {observation_space[k].shape for k in pictures}
        if len(shapes) > 1:
            raise ValueError(f"Pictures have different shapes {sorted(map(str, shapes))}; the shared CNN needs one.")
        super().__init__(observation_space, config.image_features * len(pictures) + config.goal_features * len(others))
        self._pictures, self._others = pictures, others
        self.encoder = PictureEncoder(next(iter(shapes)), width=config.width, features=config.image_features) if shapes else None  # type: ignore[arg-type]
        layers = {}
        for key in others:
            size = goal_numbers(key, torch.zeros(1, *observation_space[key].shape)).shape[-1]  # type: ignore[misc]
            layers[key] = nn.Sequential(nn.Linear(size, config.goal_features), nn.Tanh())
        self.goals = nn.ModuleDict(layers)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Features ``(B, features_dim)``; pictures arrive in [0, 1], as Stable-Baselines3 scales them."""
        parts = [self.goals[key](goal_numbers(key, observations[key])) for key in self._others]
        if self.encoder is not None:
            batch = torch.cat([observations[key] for key in self._pictures])
            parts.extend(self.encoder(batch).chunk(len(self._pictures)))
        return torch.cat(parts, dim=-1)


def policy_kwargs(config: PolicyConfig, algorithm: Algorithm = "ppo") -> dict[str, Any]:
    """The ``policy_kwargs`` of an algorithm's ``MultiInputPolicy`` or ``MultiInputLstmPolicy``."""
    kwargs: dict[str, Any] = {
        "features_extractor_class": NavFeatures,
        "features_extractor_kwargs": {"config": config},
    }
    layers = [config.hidden, config.hidden]
    kwargs["net_arch"] = layers if algorithm in VALUE_BASED else {"pi": layers, "vf": layers}
    if algorithm == "qr-dqn":
        kwargs["n_quantiles"] = config.quantiles
    if algorithm == "recurrent-ppo":
        kwargs["lstm_hidden_size"] = config.lstm
    return kwargs


def algorithm_class(algorithm: Algorithm) -> tuple[type[Any], str]:
    """The algorithm and the name of its policy.

    Raises:
        ValueError: if there is no such algorithm, or it needs a package that is not installed.
    """
    if algorithm == "ppo":
        from stable_baselines3 import PPO

        return PPO, "MultiInputPolicy"
    if algorithm == "dqn":
        from stable_baselines3 import DQN

        return DQN, "MultiInputPolicy"
    if algorithm in ("recurrent-ppo", "qr-dqn"):
        if importlib.util.find_spec("sb3_contrib") is None:
            raise ValueError(f"{algorithm} needs sb3-contrib, which is not installed; run: pip install 'worldpack-env[recurrent]'.")
        from sb3_contrib import QRDQN, RecurrentPPO

        return (QRDQN, "MultiInputPolicy") if algorithm == "qr-dqn" else (RecurrentPPO, "MultiInputLstmPolicy")
    raise ValueError(f"There is no algorithm {algorithm!r}; known: {', '.join(get_args(Algorithm))}.")


def action_values(policy: Any, observations: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Values ``(B, A)`` of all actions by the policy of DQN or QR-DQN; None for an actor-critic, which has probabilities instead."""
    if hasattr(policy, "q_net"):
        values: torch.Tensor = policy.q_net(observations)
        return values
    if hasattr(policy, "quantile_net"):
        quantiles: torch.Tensor = policy.quantile_net(observations)
        return quantiles.mean(dim=1)
    return None
