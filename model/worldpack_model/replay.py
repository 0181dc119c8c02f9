"""The model's own earlier predictions, fed back as context in training.

In play a context holds frames that the model imagined: blurred or wrong in other ways than noise is. A model that only ever saw noised true
frames trusts them, and every step adds to the fault until the picture is gone. So what the sampler makes of training targets is kept, and stands in
for the true frames where a sample's past counts as imagined. Those contexts held such frames too, so the errors of many steps are seen without
unrolling any (after Data as Demonstrator: Venkatraman et al., AAAI 2015).

Now and then an imagined past has strayed altogether, into a wall that is not there, say. Then only the real frames can tell what is true; so that
this is learned, some samples get the imagined past of quite another place.

Legend: N frames of all episodes together, B batch.
"""

from __future__ import annotations

import torch

STRAYED_SHARE = 0.15
"""Share of the samples with own predictions whose imagined frames are those of another place."""


class PredictionReplay:
    """The newest prediction of every training frame."""

    def __init__(self, latents: torch.Tensor) -> None:
        """An empty store for the frames of ``latents (N, C, h, w)``, on the CPU."""
        self.latents = torch.zeros_like(latents)
        """``(N, C, h, w)`` float16; zero where there is none."""
        self.known = torch.zeros(len(latents), dtype=torch.bool)
        """``(N,) bool``."""

    def store(self, frames: torch.Tensor, sampled: torch.Tensor) -> None:
        """Keeps samples ``(n, C, h, w)`` of ``frames (n,) int64``, in place of older ones."""
        self.latents[frames] = sampled.detach().cpu().to(self.latents.dtype)
        self.known[frames] = True

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold: the known predictions and whose they are."""
        frames = self.known.nonzero()[:, 0]
        return {"frames": frames, "latents": self.latents[frames]}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what :meth:`state` gave."""
        self.known.zero_()
        self.latents[state["frames"]], self.known[state["frames"]] = state["latents"], True
