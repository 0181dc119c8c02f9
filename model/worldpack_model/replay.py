"""The model's own earlier predictions, fed back as context in training.

In play a context holds frames that the model imagined: blurred or wrong in other ways than noise is. A model that only ever saw noised true
frames trusts them, and every step adds to the fault until the picture is gone. So what the sampler makes of training targets is kept, and stands in
for the true frames where a sample's past counts as imagined. Those contexts held such frames too, so the errors of many steps are seen without
unrolling any (after Data as Demonstrator: Venkatraman et al., AAAI 2015).

Now and then an imagined past has strayed altogether, into a wall that is not there, say. Then only the real frames can tell what is true; so that
this is learned, some samples get the imagined past of quite another place.

What many steps do to a picture is seen in rollouts only: the way leads through a hill that was invented, and the picture is earth for the next
fifty steps. So now and then some episodes are imagined to their ends along the recorded poses, and the replay keeps what was seen.

Legend: N frames of all episodes together, B batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from worldpack_model.dataset import LatentDataset
    from worldpack_model.world_model import WorldPack

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
        self.rolled = torch.zeros(len(latents), dtype=torch.bool)
        """``(N,) bool`` whether the prediction came from a rollout."""

    def store(self, frames: torch.Tensor, sampled: torch.Tensor) -> None:
        """Keeps samples ``(n, C, h, w)`` of ``frames (n,) int64``, in place of older ones."""
        self.latents[frames] = sampled.detach().cpu().to(self.latents.dtype)
        self.known[frames] = True
        self.rolled[frames] = False

    def chances(self, share: float) -> torch.Tensor | None:
        """Chances ``(N,)`` of frames as targets that make ``share`` of them frames of rollouts; None where there are none, for all alike."""
        count = int(self.rolled.sum())
        if not count:
            return None
        others = len(self.rolled) - count
        return torch.where(self.rolled, share / count, (1 - share) / others)

    @torch.no_grad()
    def roll_out(self, model: WorldPack, dataset: LatentDataset, episodes: int, steps: int, generator: torch.Generator) -> None:
        """Imagines ``episodes`` random ones from random frames on, along the recorded poses, and keeps the pictures.

        Args:
            model: with the weights to use, in eval mode.
            dataset: the frames of this replay.
            episodes: how many, all in one batch.
            steps: frames to imagine of each, at most.
            generator: all that is random comes from it (a CPU generator).
        """
        lengths = dataset.starts.diff()
        chosen = torch.randperm(len(lengths), generator=generator)[:episodes].tolist()
        begin = [1 + int(torch.rand(1, generator=generator) * (int(lengths[e]) - 1)) for e in chosen]
        first = [int(dataset.starts[e]) for e in chosen]
        end = [min(int(lengths[e]), b + steps) for e, b in zip(chosen, begin, strict=True)]
        noise = [torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator))) for _ in chosen]
        memory = model.new_memory(len(chosen))
        for t in range(max(end)):
            given, made = ([i for i in range(len(chosen)) if low[i] <= t < high[i]] for low, high in (([0] * len(chosen), begin), (begin, end)))
            rows = torch.tensor([first[i] + t for i in given + made])
            poses, actions = dataset.poses[rows], dataset.actions[(rows - 1).clamp_min(0)] * (t > 0)
            if given:
                n = len(given)
                latents = dataset.latents[rows[:n]].to(model.device)
                memory.append(given, latents, poses[:n].to(model.device), actions[:n].to(model.device), imagined=False)
            if made:
                n = len(given)
                seen = model.predict(memory, made, actions[n:].numpy(), [noise[i] for i in made], poses=poses[n:].numpy())
                if seen.finite.all():
                    index = torch.tensor(made, device=model.device)
                    self.store(rows[n:], memory.latents[index, memory.newest_column(made)])
                    self.rolled[rows[n:]] = True

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold: the known predictions and whose they are."""
        frames = self.known.nonzero()[:, 0]
        return {"frames": frames, "latents": self.latents[frames], "rolled": self.rolled[frames]}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what :meth:`state` gave."""
        self.known.zero_()
        self.rolled.zero_()
        self.latents[state["frames"]], self.known[state["frames"]] = state["latents"], True
        self.rolled[state["frames"]] = state["rolled"]
