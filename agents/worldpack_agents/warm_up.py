"""A recurrent policy's state after the frames that come before its episode.

The frames that a start gives to the world model's memory (a look around, or the way out of a loop) are shown to the agent's own memory as well: at
the start of an episode the LSTMs have run over them, from zeros, with the goal as it is told at the start. Without that an agent asked to walk home
has never seen the way. While it learns, the state is stored and no gradient flows back into those frames, as in the burn-in of R2D2 (Kapturowski et
al. 2019, openreview r1lyTjAqYX); within its episode it learns as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from worldpack_agents.vec_env import SB3VecEnv, channels_first
from worldpack_env.rollout import Observation, Rollout

State = tuple[torch.Tensor, torch.Tensor]
"""Hidden and cell state of an LSTM, each ``(layers, n, width)``."""


def warm_state(policy: Any, context: Observation) -> tuple[State, State]:
    """States ``(layers, 1, width)`` of the actor's and the critic's LSTM after a context.

    Args:
        policy: of RecurrentPPO; one whose critic has no LSTM gets the actor's state twice, as Stable-Baselines3 does.
        context: from ``Rollout.context``, oldest first; may be of length 0, which gives zeros.
    """
    lstms = [policy.lstm_actor, policy.lstm_critic if policy.lstm_critic is not None else policy.lstm_actor]
    zeros = [torch.zeros(lstm.num_layers, 1, lstm.hidden_size, device=policy.device) for lstm in lstms]
    states: list[State] = [(zero, zero) for zero in zeros]
    if len(context["image"]):
        shown = {k: torch.as_tensor(np.ascontiguousarray(v), device=policy.device) for k, v in channels_first(context).items()}
        with torch.no_grad():
            features = policy.extract_features(shown)
            parts = [features, features] if policy.share_features_extractor else features
            states = [lstm(part[:, None], state)[1] for lstm, part, state in zip(lstms, parts, states, strict=True)]
    return states[0], states[1]


class WarmUp:
    """Puts the states of slots whose episode begins in place of those of the episode before, while a policy learns."""

    def __init__(self, model: Any, rollout: Rollout) -> None:
        """Prepares it for a RecurrentPPO that learns in ``rollout``."""
        self.model, self.rollout = model, rollout

    def __call__(self, states: Any, slots: Sequence[int]) -> None:
        """Writes into ``states``, and into what the algorithm keeps for its buffer, which may be the same tensors."""
        for slot in slots:
            made = warm_state(self.model.policy, self.rollout.context(slot))
            for kept in (states, self.model._last_lstm_states):
                for state, new in zip((kept.pi, kept.vf), made, strict=True):
                    for part, value in zip(state, new, strict=True):
                        part[:, slot] = value[:, 0]


@lru_cache
def warm_policy() -> type[Any]:
    """The class of policy whose states at the start of an episode are given; needs sb3-contrib.

    Where its ``warm_up`` is None it is Stable-Baselines3's ``MultiInputLstmPolicy``, which begins every episode with zeros.
    """
    from sb3_contrib.ppo_recurrent.policies import MultiInputLstmPolicy

    class WarmPolicy(MultiInputLstmPolicy):
        """See :func:`warm_policy`."""

        warm_up: WarmUp | None = None

        def forward(self, obs: Any, lstm_states: Any, episode_starts: torch.Tensor, deterministic: bool = False) -> Any:  # type: ignore[override]
            if self.warm_up is None:
                return super().forward(obs, lstm_states, episode_starts, deterministic)
            self.warm_up(lstm_states, torch.nonzero(episode_starts).flatten().tolist())
            return super().forward(obs, lstm_states, torch.zeros_like(episode_starts), deterministic)

        def evaluate_actions(self, obs: Any, actions: Any, lstm_states: Any, episode_starts: torch.Tensor) -> Any:  # type: ignore[override]
            # The buffer holds the warm states, and cuts its sequences where episodes start.
            told = episode_starts if self.warm_up is None else torch.zeros_like(episode_starts)
            return super().evaluate_actions(obs, actions, lstm_states, told)

    return WarmPolicy


def rollout_of(envs: SB3VecEnv) -> Rollout:
    """What knows the contexts of the episodes of ``envs``.

    Raises:
        ValueError: if the environments are none of ours.
    """
    rollout = getattr(envs.env, "rollout", None)
    if not isinstance(rollout, Rollout):
        raise ValueError(
            "A recurrent agent warms up on the frames before an episode, which these environments do not have; set policy.warm_up to False."
        )
    return rollout
