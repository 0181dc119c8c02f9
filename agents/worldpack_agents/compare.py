"""The same starts in imagination and in the engine: how far the simulator's word can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from worldpack_agents.checkpoints import load_agent
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.evaluate import summarise
from worldpack_agents.intervals import bootstrap_curve
from worldpack_agents.rollouts import AgentPolicy, Played, Policy, RandomPolicy, open_rollout, play
from worldpack_model.checkpoint import write_json
from worldpack_model.provenance import provenance, weights_id

if TYPE_CHECKING:
    from worldpack_env.starts import StartBank
    from worldpack_model import WorldPack

Tell = Callable[[str, int, int], None]
"""Called as ``tell(what, done, total)``."""


@dataclass(frozen=True)
class CompareConfig:
    """Plays agents from the same starts in imagination and in the engine, and writes a report."""

    agents: tuple[str, ...] = ("random",)
    """Run folders of train-agent, or `random`."""
    out: Path = Path("runs/compare")
    """Folder for report.html and report.json."""
    env: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: EnvConfig(split="test"))
    """The task, in worlds that neither agent nor model was trained on; the command line starts from the first agent's own task."""
    episodes: int = 60
    """Episodes of each agent in each of the two."""
    num_envs: int = 16
    """Episodes played at the same time."""
    replays: int = 16
    """Engine episodes of the first agent whose actions are replayed in imagination."""
    videos: int = 4
    """Replays shown as side-by-side video."""
    deterministic: bool = True
    """Agents take the likeliest action instead of drawing one."""
    seed: int = 0
    """Seed of everything random."""
    trust: bool = False
    """Allow to unpickle a policy zip that is not part of a run folder; that runs code of whoever made it."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        if not self.agents:
            raise ValueError("Name at least one agent to compare: a run folder, or random.")
        for name, least in (("episodes", 1), ("num_envs", 1), ("replays", 0), ("videos", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Replay:
    """An engine episode and the same actions imagined from the same start; ``n`` frames after the first."""

    real: Played
    imagined_frames: NDArray[np.uint8]
    """``(n + 1, H, W, 3)``; frame 0 is the given one."""
    imagined_poses: NDArray[np.float64]
    """``(n + 1, 5)``."""
    lost: bool = False
    """The model lost the episode (a prediction that is not finite); its last good frame stands from there on."""


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows."""

    data: dict[str, Any]
    """What ``report.json`` holds."""
    played: dict[str, dict[str, list[Played]]]
    """Agent -> ``real`` or ``imagined`` -> episodes."""
    replays: list[Replay]
    goals: dict[int, NDArray[np.float64]]
    """Start index -> waypoints ``(g, 3)``."""


def agent_names(sources: Sequence[str]) -> list[str]:
    """A different short name for each agent: ``random``, ``agent`` where there is only one, else the folder's name, numbered if it comes twice."""
    trained = [s for s in sources if s != "random"]
    names: list[str] = []
    for source in sources:
        name = "random" if source == "random" else "agent" if len(trained) == 1 else Path(source).stem
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def replay(model: WorldPack, bank: StartBank, played: Sequence[Played], *, seed: int = 0, evaluations: int | None = None) -> list[Replay]:
    """Imagines engine episodes again, open loop: the same start, the same actions, nothing of the engine after the first frame.

    Args:
        model: the world model.
        bank: where the episodes started.
        played: engine episodes with frames.
        seed: episode i draws its noise from ``seed + i``.
        evaluations: network evaluations per step, None takes the model's default.
    """
    from worldpack_env.imagination import Imagination

    if not played:
        return []
    simulator = Imagination(model, len(played), evaluations=evaluations)
    slots = list(range(len(played)))
    first = simulator.start(slots, [bank[p.start_index] for p in played], [seed + i for i in slots])
    frames, poses = [[f] for f in first.frames], [[p] for p in first.poses]
    lost = np.zeros(len(played), np.bool_)
    for t in range(max(p.steps for p in played)):
        for i in (i for i in slots if lost[i] and t < played[i].steps):
            frames[i].append(frames[i][-1])
            poses[i].append(poses[i][-1])
        active = [i for i in slots if t < played[i].steps and not lost[i]]
        if not active:
            continue
        views = simulator.step(active, np.stack([played[i].actions[t] for i in active]))
        lost[active] = views.failed
        for row, i in enumerate(active):
            frames[i].append(views.frames[row])
            poses[i].append(views.poses[row])
    simulator.close()
    return [Replay(p, np.stack(f), np.stack(q), bool(gone)) for p, f, q, gone in zip(played, frames, poses, lost, strict=True)]


def curves(replays: Sequence[Replay], *, seed: int = 0) -> dict[str, list[dict[str, float]]]:
    """PSNR, SSIM and pose error by step, means with 95 % intervals over episodes; ends where fewer than three episodes go on.

    ``still_psnr_db`` and ``still_ssim`` are what the first frame scores if it is kept: imagination that is no better has shown nothing.
    """
    from worldpack_model.geometry import wrap_degrees
    from worldpack_model.metrics import psnr, ssim

    if not replays:
        return {}
    longest = max(r.real.steps for r in replays)
    names = ("psnr_db", "ssim", "position_error_blocks", "yaw_error_degrees", "still_psnr_db", "still_ssim")
    table = {name: np.full((len(replays), longest), np.nan) for name in names}
    for i, r in enumerate(replays):
        n = r.real.steps
        if r.real.frames is None:
            raise ValueError("Replays need the engine's frames; play with keep_frames.")
        table["psnr_db"][i, :n] = psnr(r.imagined_frames[1:], r.real.frames[1:])
        table["ssim"][i, :n] = ssim(r.imagined_frames[1:], r.real.frames[1:])
        still = np.broadcast_to(r.real.frames[:1], r.real.frames[1:].shape)
        table["still_psnr_db"][i, :n], table["still_ssim"][i, :n] = psnr(still, r.real.frames[1:]), ssim(still, r.real.frames[1:])
        table["position_error_blocks"][i, :n] = np.linalg.norm(r.imagined_poses[1:, [0, 2]] - r.real.poses[1:, [0, 2]], axis=1)
        table["yaw_error_degrees"][i, :n] = np.abs(wrap_degrees(r.imagined_poses[1:, 3] - r.real.poses[1:, 3]))
    enough = int((np.isfinite(table["psnr_db"]).sum(axis=0) >= min(3, len(replays))).sum())
    rng = np.random.default_rng([seed, 29])
    return {name: [asdict(x) for x in bootstrap_curve(values[:, :enough], rng)] for name, values in table.items()}


def compare(
    config: CompareConfig, tell: Tell = lambda what, done, total: None, *, model: WorldPack | None = None, bank: StartBank | None = None
) -> Comparison:
    """Runs the comparison and writes ``report.html`` and ``report.json`` into ``config.out``.

    Args:
        config: what to compare.
        tell: told about progress.
        model: a loaded world model to use instead of the config's.
        bank: starts to use instead of the config's.

    Raises:
        CheckpointError: if there is no such agent or model.
        BackendUnavailable: if the engine cannot run here.
    """
    from worldpack_agents.report import write_report
    from worldpack_env.imagination import load_world_model

    env = replace(config.env, num_starts=max(config.env.num_starts, config.episodes))
    model = load_world_model(env.model, device=env.device, precision=env.precision) if model is None else model
    slots = min(config.num_envs, config.episodes)
    imagined, action_set = open_rollout(env, "imagined", slots, starts=bank, model=model)
    bank = imagined.bank
    real, _ = open_rollout(env, "real", slots, starts=bank)
    played: dict[str, dict[str, list[Played]]] = {}
    results: list[dict[str, Any]] = []
    try:
        for number, (source, name) in enumerate(zip(config.agents, agent_names(config.agents), strict=True)):
            policy: Policy = (
                RandomPolicy(action_set.space)
                if source == "random"
                else AgentPolicy(load_agent(source, trust=config.trust), name=name, deterministic=config.deterministic)
            )
            both: dict[str, list[Played]] = {}
            for where, rollout in (("real", real), ("imagined", imagined)):
                both[where] = play(
                    rollout,
                    action_set,
                    policy,
                    range(config.episodes),
                    seed=config.seed,
                    keep_frames=config.replays if number == 0 and where == "real" else 0,
                    progress=lambda done, total, what=f"{name} in {'the engine' if where == 'real' else 'imagination'}": tell(  # type: ignore[misc]
                        what, done, total
                    ),
                )
            played[name] = both
            results.append({"agent": name, "source": source, **{where: summarise(p, seed=config.seed) for where, p in both.items()}})
            results[-1]["same_outcome"] = float(np.mean([a.success == b.success for a, b in zip(both["real"], both["imagined"], strict=True)]))
        first = next(iter(played.values()))["real"][: config.replays]
        replays = replay(model, bank, [p for p in first if p.frames is not None], seed=config.seed, evaluations=env.evaluations)
        goals = {p.start_index: bank[p.start_index].waypoints for p in first}
    finally:
        imagined.close()
        real.close()
    data = {
        "env": asdict(env),
        "weights": weights_id(env.model),
        "world_seeds": [bank[i].seed for i in range(config.episodes)],
        "agents": results,
        "replay": {"episodes": len(replays), "lost": sum(r.lost for r in replays), "of": next(iter(played)), **curves(replays, seed=config.seed)},
        "interval": "95 %; Wilson for success, bootstrap over episodes for the rest",
        "provenance": provenance(),
    }
    comparison = Comparison(data, played, replays, goals)
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "report.json", data)
    write_report(comparison, config.out / "report.html", videos=config.videos)
    return comparison
