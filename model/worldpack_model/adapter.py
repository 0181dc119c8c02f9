"""Small changes of a network's matrices, of low rank (LoRA: Hu et al. 2021, arXiv:2106.09685).

A denoiser that learns a little more, such as what walls look like from nearby, changes all of its numbers, and all of them would have to be shipped
again. As ``W + up @ down``, with ``up (out, r)`` and ``down (r, in)`` for each matrix, a change of rank r = 6 is a twentieth of them. A convolution
is the matrix of its output channels by all that each of them reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize


class _Changed(nn.Module):
    """A matrix and its change."""

    def __init__(self, down: nn.Parameter, up: nn.Parameter) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.up @ self.down).view_as(weight)


class Adapter(nn.Module):
    """The changes of all matrices of a network's layers, linear and convolutional, that are wider than the rank; no change at first.

    While it is attached, the network computes with the changed matrices and keeps its own.
    """

    def __init__(self, network: nn.Module, rank: int, generator: torch.Generator) -> None:
        """Makes and attaches it.

        Args:
            network: its parameters get no gradients from here on.
            rank: of every change, at least 1.
            generator: draws the ``down`` matrices (a CPU generator).
        """
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}, expected at least 1.")
        self.network = [network]  # not a part of this module
        network.requires_grad_(False)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in list(network.named_modules()):
            if isinstance(layer, (nn.Linear, nn.Conv2d)) and min(layer.weight.flatten(1).shape) > rank:
                rows, columns = layer.weight.flatten(1).shape
                key, device = _key(name), layer.weight.device
                self.down[key] = nn.Parameter((torch.randn(rank, columns, generator=generator) / math.sqrt(columns)).to(device))
                self.up[key] = nn.Parameter(torch.zeros(rows, rank, device=device))
                parametrize.register_parametrization(layer, "weight", _Changed(self.down[key], self.up[key]))

    def detach_from_network(self) -> None:
        """Gives the network its own matrices back."""
        for key in self.down:
            layer = self.network[0].get_submodule(_changes(key).removesuffix(".weight"))
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def _key(layer: str) -> str:
    """Name of the change of a layer's matrix; a parameter's name has no dots."""
    return f"{layer}.weight".replace(".", "/")


def _changes(key: str) -> str:
    """Name of the matrix that is changed."""
    return key.replace("/", ".")


def changed(weights: Mapping[str, torch.Tensor], adapter: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's state with an adapter's changes in it.

    Args:
        weights: the network's state.
        adapter: state of its :class:`Adapter`.

    Raises:
        ValueError: if the adapter belongs to another network.
    """
    out = dict(weights)
    for name, down in adapter.items():
        if not name.startswith("down."):
            continue
        key = name.removeprefix("down.")
        target = _changes(key)
        up = adapter.get(f"up.{key}")
        weight = out.get(target)
        form = None if weight is None or weight.ndim < 2 else weight.flatten(1).shape
        if weight is None or up is None or form != (len(up), down.shape[1]) or up.shape[1:] != down.shape[:1]:
            raise ValueError(f"the adapter's change of {target} does not fit the network")
        out[target] = weight + (up.to(weight) @ down.to(weight)).view_as(weight)
    return out
