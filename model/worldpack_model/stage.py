"""One resumable optimisation of a training run: every step's own generator, moving average, checkpoints, curve and logs."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import platform
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from worldpack_model.checkpoint import (
    CheckpointError,
    load_optimizer,
    load_state,
    optimizer_tensors,
    read_manifest,
    read_tensors,
    recovered,
    write_folder,
    write_json,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called as ``progress(stage, done, total, numbers)``."""


def step_generator(seed: int, stage: int, step: int) -> torch.Generator:
    """The generator of one training step: the same numbers whether the run was interrupted or not."""
    state = np.random.SeedSequence([seed, stage, step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def claim_folder(out: Path, config: Any, data: str, records: str, *, may_change: Collection[str]) -> None:
    """Writes a run's settings into its folder, or compares them with those that are there.

    Args:
        out: the run's folder.
        config: a dataclass of the run's settings.
        data: fingerprint of the episodes that it is trained on.
        records: fingerprint of what is written beside their frames: poses, actions, events.
        may_change: settings that do not decide the result and may differ when a run is continued.

    Raises:
        CheckpointError: if the folder holds a run on other episodes or with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    fixed = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items() if k not in may_change}
    fixed = json.loads(json.dumps(fixed))  # as it is read back: tuples are lists there
    path = out / "config.json"
    if path.is_file():
        try:
            old = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{path} is not JSON ({error}); choose another --out.") from error
        if old.get("data_id") != data:
            raise CheckpointError(f"{out} was trained on other episodes than {config.data} holds now; choose another --out.")
        if old.get("records_id", records) != records:  # runs of older versions do not say
            raise CheckpointError(f"{out} was trained on other poses, actions or events than {config.data} tells now; choose another --out.")
        changed = [k for k in fixed if old.get("config", {}).get(k) != fixed[k]]
        if changed:
            raise CheckpointError(f"{out} holds a run with other settings ({', '.join(changed)}); use those or choose another --out.")
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    write_json(path, {"config": fixed, "data_id": data, "records_id": records, "versions": versions})


class Kept(Protocol):
    """What a stage keeps beside the weights it trains; a part of its checkpoints."""

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on."""

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what :meth:`state` gave."""


@dataclass(frozen=True)
class RunFolder:
    """Where the stages of a run write, and what they share."""

    out: Path
    """The run's folder."""
    seed: int
    """Seed of everything random in the run."""
    checkpoint_every: int
    """Steps between checkpoints."""
    picture_every: int
    """Steps between pictures in TensorBoard; 0 for none."""
    accelerator: Accelerator
    """Device and precision."""
    progress: Progress
    """Told every fifty steps."""

    @property
    def curve(self) -> Path:
        """The file of losses by step."""
        return self.out / "curve.jsonl"

    def writer(self) -> SummaryWriter:
        """TensorBoard's log of the run."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.out / "tensorboard"))


class Stage:
    """A resumable optimisation of one module."""

    def __init__(
        self,
        folder: RunFolder,
        name: str,
        number: int,
        module: nn.Module,
        total: int,
        rate: float,
        *,
        ema: float,
        kept: Mapping[str, Kept] | None = None,
    ) -> None:
        self.kept = kept or {}
        self.run_folder, self.name, self.number, self.total, self.rate, self.decay = folder, name, number, total, rate, ema
        self.module, self.step = module, 0
        decayed = [p for p in module.parameters() if p.ndim > 1]
        others = [p for p in module.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=rate, betas=(0.9, 0.99)
        )
        self.optimizer = folder.accelerator.prepare_optimizer(optimizer)
        self.average = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.folder = folder.out / f"{name}-state"

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over 200 steps (or a tenth), cosine decay to 2 %."""
        warm = min(200, max(1, self.total // 10))
        if step < warm:
            return self.rate * (step + 1) / warm
        done = (step - warm) / max(1, self.total - warm)
        return self.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    def run(
        self,
        step: Callable[[torch.Generator], tuple[torch.Tensor, dict[str, torch.Tensor]]],
        picture: Callable[[SummaryWriter, int], None],
    ) -> None:
        """Optimises to the end, with checkpoints, logs and pictures on the way."""
        run, writer = self.run_folder, self.run_folder.writer()
        sums: dict[str, float] = {}
        counted, since = 0, time.monotonic()
        parameters = list(self.module.parameters())
        for number in range(self.step, self.total):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(number)
            loss, numbers = step(step_generator(run.seed, self.number, number))
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(
                    f"The {self.name} loss is not finite at step {number}; lower the learning rate and start from the last checkpoint. "
                    "In the first steps of a run that compiles, the compiled gradients may be at fault: leave compile out."
                )
            self.optimizer.zero_grad(set_to_none=True)
            run.accelerator.backward(loss)
            run.accelerator.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step()
            self.step = number + 1
            self._track()
            counted += 1
            for key, number_ in {"loss": loss.detach(), **numbers}.items():
                sums[key] = sums.get(key, 0.0) + float(number_)
            if self.step % 50 == 0 or self.step == self.total:
                means = {key: value / counted for key, value in sums.items()}
                rate = counted / (time.monotonic() - since)
                for key, value in {**means, "steps_per_second": rate, "learning_rate": self.learning_rate(number)}.items():
                    writer.add_scalar(f"{self.name}/{key}", value, self.step)
                self._log_curve(means)
                run.progress(self.name, self.step, self.total, {**means, "steps/s": rate})
                sums, counted, since = {}, 0, time.monotonic()
            if self.step % run.checkpoint_every == 0 or self.step == self.total:
                self.save()
            if run.picture_every and (self.step % run.picture_every == 0 or self.step == self.total):
                picture(writer, self.step)
        writer.close()

    def _log_curve(self, means: dict[str, float]) -> None:
        line = {"stage": self.name, "step": self.step, **{k: round(v, 6) for k, v in means.items()}}
        with self.run_folder.curve.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @torch.no_grad()
    def _track(self) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step)) if self.decay else 0.0
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> _Averaged:
        """Context in which the module has its moving-average weights."""
        return _Averaged(self)

    def save(self) -> None:
        """Writes everything needed to go on."""
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= optimizer_tensors(self.optimizer)
        # cloned: safetensors refuses tensors that share memory
        files: dict[str, Any] = {"state.safetensors": {k: v.clone() for k, v in tensors.items()}}
        files |= {f"{name}.safetensors": part.state() for name, part in self.kept.items()}
        write_folder(self.folder, files, {"step": self.step, "total": self.total})

    def resume(self) -> int:
        """Loads the last checkpoint if there is one; returns the step to go on from."""
        if not recovered(self.folder):
            return 0
        manifest = read_manifest(self.folder)
        tensors = read_tensors(self.folder / "state.safetensors")

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        load_state(self.module, part("model."), str(self.folder))
        self.average = {k: v.to(self.run_folder.accelerator.device) for k, v in part("average.").items()}
        load_optimizer(self.optimizer, tensors)
        for name, kept in self.kept.items():
            kept.load(read_tensors(self.folder / f"{name}.safetensors"))
        self.step = int(manifest["step"])
        self._cut_curve()
        log.info("Continuing %s from step %d of %d.", self.name, self.step, self.total)
        return self.step

    def start_from(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Begins with these weights instead of fresh ones."""
        load_state(self.module, dict(weights), "--init")
        self.average = {k: v.detach().clone() for k, v in self.module.state_dict().items()}

    def _cut_curve(self) -> None:
        """Drops logged lines after the checkpoint, which will be made again."""
        if self.run_folder.curve.is_file():
            lines = [line for line in self.run_folder.curve.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if (entry := json.loads(line))["stage"] != self.name or entry["step"] <= self.step]
            self.run_folder.curve.write_text("".join(f"{line}\n" for line in kept))


class _Averaged:
    """Swaps a stage's moving-average weights in and out."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __enter__(self) -> None:
        self.kept = {k: v.detach().clone() for k, v in self.stage.module.state_dict().items()}
        self.stage.module.load_state_dict(self.stage.average)
        self.stage.module.eval()

    def __exit__(self, *_: object) -> None:
        self.stage.module.load_state_dict(self.kept)
        self.stage.module.train()
