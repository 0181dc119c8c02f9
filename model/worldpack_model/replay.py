"""The model's own earlier predictions, fed back as context in training.

In play a context holds frames that the model imagined: blurred or wrong in other ways than noise is. A model that only ever saw noised true
frames trusts them, and every step adds to the fault until the picture is gone. So what the sampler makes of training targets is kept, and stands in
for the true frames where a sample's past counts as imagined. Those contexts held such frames too, so the errors of many steps are seen without
unrolling any (after Data as Demonstrator: Venkatraman et al., AAAI 2015).

Now and then an imagined past has strayed altogether, into a wall that is not there, say. Then only the real frames can tell what is true; so that
this is learned, some samples get the imagined past of quite another place.

What many steps do to a picture is seen in rollouts only: the way leads through a hill that was invented, and the picture is earth for the next
fifty steps. So now and then some episodes are imagined to their ends along the recorded poses, and the replay keeps what was seen.

Nobody walks along recorded poses in play. The commonest error there is of height: a body that should have fallen stays a block above the ground, sees
the pictures that it would see from there, and walks over walls. Rollouts for the motion model's training therefore are imagined along poses that are
lifted so, and it learns from them to come down (as DAgger: Ross, Gordon and Bagnell, AISTATS 2011; the recording tells where the ground is).

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
MISSED_FALL, MISSED_CLIMB, FOUND_BACK = 0.3, 0.12, 0.1
"""Chances of a lifted rollout: that a body stays up where it fell, stays down where it rose, and in each step that it is where it stands again."""
LOWEST, HIGHEST = -2, 4
"""Blocks; bounds of a lift."""


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
        self.lifts = torch.zeros(len(latents), dtype=torch.float64)
        """``(N,)`` blocks by which the body was above where it stood, when the prediction was made."""

    def store(self, frames: torch.Tensor, sampled: torch.Tensor) -> None:
        """Keeps samples ``(n, C, h, w)`` of ``frames (n,) int64``, in place of older ones."""
        self.latents[frames] = sampled.detach().cpu().to(self.latents.dtype)
        self.known[frames] = True
        self.rolled[frames] = False
        self.lifts[frames] = 0.0

    def chances(self, share: float) -> torch.Tensor | None:
        """Chances ``(N,)`` of frames as targets that make ``share`` of them frames of rollouts; None where there are none, for all alike."""
        count = int(self.rolled.sum())
        if not count:
            return None
        others = len(self.rolled) - count
        return torch.where(self.rolled, share / count, (1 - share) / others)

    def begin(self, frames: torch.Tensor) -> torch.Tensor:
        """First frames ``(n,) int64`` of the rollouts that ``frames (n,) int64`` are of."""
        number = torch.arange(len(self.rolled))
        first = self.rolled.clone()
        first[1:] &= ~self.rolled[:-1]  # an episode's first frame never is rolled, so rollouts do not touch
        return torch.where(first, number, 0).cummax(0).values[frames]

    @torch.no_grad()
    def roll_out(
        self, model: WorldPack, dataset: LatentDataset, episodes: int, steps: int, generator: torch.Generator, *, lifted: bool = False
    ) -> None:
        """Imagines ``episodes`` random ones from random frames on, along the recorded poses, and keeps the pictures.

        Args:
            model: with the weights to use, in eval mode.
            dataset: the frames of this replay.
            episodes: how many, all in one batch.
            steps: frames to imagine of each, at most.
            generator: all that is random comes from it (a CPU generator).
            lifted: lift the poses by :func:`lifts_of`, and begin early rather than late, as in play.
        """
        lengths = dataset.starts.diff()
        chosen = torch.randperm(len(lengths), generator=generator)[:episodes].tolist()
        begin = [1 + int(torch.rand(1, generator=generator) ** (2 if lifted else 1) * (int(lengths[e]) - 1)) for e in chosen]
        first = [int(dataset.starts[e]) for e in chosen]
        end = [min(int(lengths[e]), b + steps) for e, b in zip(chosen, begin, strict=True)]
        noise = [torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator))) for _ in chosen]
        memory = model.new_memory(len(chosen))
        lifts = torch.zeros(len(dataset), dtype=torch.float64)
        for f, b, e in zip(first, begin, end, strict=True) if lifted else ():
            lifts[f + b : f + e] = lifts_of(dataset.poses[f + b - 1 : f + e, 1], generator)
        for t in range(max(end)):
            given, made = ([i for i in range(len(chosen)) if low[i] <= t < high[i]] for low, high in (([0] * len(chosen), begin), (begin, end)))
            rows = torch.tensor([first[i] + t for i in given + made])
            poses, actions = dataset.poses[rows], dataset.actions[(rows - 1).clamp_min(0)] * (t > 0)
            poses[:, 1] += lifts[rows]
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
                    self.lifts[rows[n:]] = lifts[rows[n:]]

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold: the known predictions and whose they are."""
        frames = self.known.nonzero()[:, 0]
        return {"frames": frames, "latents": self.latents[frames], "rolled": self.rolled[frames], "lifts": self.lifts[frames]}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what :meth:`state` gave."""
        self.known.zero_()
        self.rolled.zero_()
        self.lifts.zero_()
        self.latents[state["frames"]], self.known[state["frames"]] = state["latents"], True
        self.rolled[state["frames"]] = state["rolled"]
        self.lifts[state["frames"]] = state.get("lifts", torch.zeros(len(state["frames"]), dtype=torch.float64))  # kept since 2026-11-26


def lifts_of(heights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blocks ``(n,)`` by which a body errs that walks along heights ``(n + 1,)``, as it errs in play: by missing falls and climbs.

    Args:
        heights: of the body, blocks; the first is where it stood for sure.
        generator: all that is random comes from it (a CPU generator).
    """
    chances = torch.rand((len(heights) - 1, 2), generator=generator)
    lifts, lift = [], 0
    for up, (miss, back) in zip(heights.diff().tolist(), chances.tolist(), strict=True):
        if back < FOUND_BACK:
            lift = 0
        elif up < -0.3 and miss < MISSED_FALL:
            lift = min(lift + 1, HIGHEST)
        elif up > 0.3 and miss < MISSED_CLIMB:
            lift = max(lift - 1, LOWEST)
        lifts.append(lift)
    return torch.tensor(lifts, dtype=torch.float64)
