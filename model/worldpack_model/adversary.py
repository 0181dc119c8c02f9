"""Adversarial training of the sampler: what nobody has seen is invented sharp instead of blurred.

A network trained on the mean square alone shows, where memory cannot tell, the mean of all that might be there: a blur, which then is remembered
as if it were a view. So a discriminator learns to tell the sampler's results from true latents, and the sampler learns to pass (adversarial
post-training of few-step diffusion: arXiv 2311.17042; of autoregressive world models: arXiv 2506.09350). It judges a latent beside the sampler's
first evaluation, which holds all that the context tells: a sample must agree with it where it is sure, and may be anything likely elsewhere.

The loss is the relativistic one of R3GAN with zero-centred gradient penalties on true and sampled latents (arXiv 2501.05441), by patch.

Legend: n samples, C latent channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from worldpack_model.checkpoint import load_optimizer, optimizer_tensors

WIDTH = 96
BLOCKS = 3
GRADIENT_PENALTY = 1.0
"""Weight of the squared gradient of a patch's judgement by the latents."""
PULL = 1.0
"""Strength of the pull towards what passes, over the pull of the samples' mean square error."""
WARM_UP = 100
"""Steps over which the pull of a new discriminator grows to its full strength."""
RATE = 4e-4
"""Learning rate of the discriminator."""


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.scale * self.conv2(F.silu(self.conv1(F.silu(x))))
        return out


class Discriminator(nn.Module):
    """Judges latents beside the sampler's first evaluation, one number for each cell's neighbourhood. No norms: they would mix a batch."""

    def __init__(self, channels: int, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1), *(_Block(width) for _ in range(blocks)), nn.SiLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, latents: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Judgements ``(n, 1, h, w)`` of ``latents (n, C, h, w)`` given ``first (n, C, h, w)``; higher is likelier true."""
        out: torch.Tensor = self.net(torch.cat([latents, first], dim=1))
        return out.float()


class Adversary:
    """The discriminator with its optimiser: learns from every batch of samples it is shown."""

    def __init__(self, channels: int, device: torch.device, generator: torch.Generator) -> None:
        """A fresh discriminator for latents of ``channels``; ``generator`` (CPU) draws its first weights."""
        self.discriminator = Discriminator(channels)
        for parameter in self.discriminator.parameters():
            if parameter.ndim == 4:
                nn.init.trunc_normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
            elif parameter.ndim == 1:
                nn.init.zeros_(parameter)
        self.discriminator.to(device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=RATE, betas=(0.0, 0.99))

    def learn(self, sampled: torch.Tensor, first: torch.Tensor, clean: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step of the discriminator.

        Args:
            sampled: ``(n, C, h, w)`` the sampler's results.
            first: ``(n, C, h, w)`` its first evaluations.
            clean: ``(n, C, h, w)`` the true latents.

        Returns:
            Detached scalars to log.
        """
        first = first.detach().float()
        true, made = clean.detach().float().requires_grad_(), sampled.detach().float().requires_grad_()
        judged_true, judged_made = self.discriminator(true, first), self.discriminator(made, first)
        loss = F.softplus(judged_made - judged_true).mean()
        gradients = torch.autograd.grad(judged_true.sum() + judged_made.sum(), (true, made), create_graph=True)
        penalty = sum(g.square().sum() for g in gradients) / judged_true.numel()
        self.optimizer.zero_grad(set_to_none=True)
        (loss + 0.5 * GRADIENT_PENALTY * penalty).backward()
        self.optimizer.step()
        told = (judged_true > judged_made).float().mean()
        return {"adversary_loss": loss.detach(), "adversary_told": told.detach(), "adversary_penalty": (0.5 * GRADIENT_PENALTY * penalty).detach()}

    def loss(self, sampled: torch.Tensor, first: torch.Tensor, clean: torch.Tensor, weight: torch.Tensor, share: float = 1.0) -> torch.Tensor:
        """What the sampler minimises, a scalar: mean square error to the truth, and a pull of ``PULL`` times its strength towards what passes.

        Args:
            sampled: ``(n, C, h, w)`` the sampler's results, with gradient.
            first: ``(n, C, h, w)`` its first evaluations.
            clean: ``(n, C, h, w)`` the true latents.
            weight: ``(n, 1, h, w)`` of the square error of each cell.
            share: of the pull, while the discriminator is new.
        """
        error = (weight * (sampled.float() - clean).square()).mean()
        made = sampled.detach().float().requires_grad_()
        beside = first.detach().float()
        with torch.no_grad():
            judged_true = self.discriminator(clean, beside)
        passing = F.softplus(judged_true - self.discriminator(made, beside)).mean()
        (pull,) = torch.autograd.grad(passing, made)
        towards_truth = 2 * weight * (made.detach() - clean) / made.numel()
        strength = share * PULL * towards_truth.norm() / pull.norm().clamp_min(1e-12)
        # the gradient of this product by the samples is the pull, at the wanted strength
        total: torch.Tensor = error + (strength * pull * sampled.float()).sum()
        return total

    def state(self) -> dict[str, torch.Tensor]:
        """Everything a checkpoint must hold."""
        return {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()} | optimizer_tensors(self.optimizer)

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Puts back what :meth:`state` gave."""
        prefix = "discriminator."
        self.discriminator.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        load_optimizer(self.optimizer, tensors)
