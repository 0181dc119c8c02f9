"""The same starts in imagination and in the engine: how far the simulator's word can be trusted.

Agents may do better in imagination than in the engine, and those trained there are drawn to what it gets wrong. An agent whose success in imagination
is beyond doubt greater than in the engine, start by start, is reported as *flattered*, with episodes that went well in one and not in the other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import tyro
from numpy.typing import NDArray

from worldpack_agents.agreement import LEAST_AGENTS, agreement
from worldpack_agents.baselines import LADDER, baseline_of, open_policy
from worldpack_agents.checkpoints import BEST, CHECKPOINTS, reference_agents
from worldpack_agents.env_config import EnvConfig
from worldpack_agents.evaluate import summarise
from worldpack_agents.intervals import bootstrap_curve, bootstrap_mean
from worldpack_agents.rollouts import Played, Policy, open_rollout, play
from worldpack_model.checkpoint import write_json
from worldpack_model.provenance import provenance, weights_id

if TYPE_CHECKING:
    from worldpack_env.starts import StartBank
    from worldpack_model import WorldPack
    from worldpack_model.motion import Choice

Tell = Callable[[str, int, int], None]
"""Called as ``tell(what, done, total)``."""

ASTRAY_BLOCKS: Final = 1.0
"""An imagined body this far from the engine's is somewhere else."""


@dataclass(frozen=True)
class CompareConfig:
    """Plays agents from the same starts in imagination and in the engine, and writes a report."""

    agents: tuple[str, ...] = ("random",)
    """Run folders or checkpoints of train-agent, reference agents, or agents that learn nothing: `random`, `compass`, `oracle`, and `compass:0.3`
    with 3 in 10 actions random. `ladder` stands for agents of graded skill, from random to oracle, the reference agents among them."""
    out: Path = Path("runs/compare")
    """Folder for report.html and report.json."""
    env: Annotated[EnvConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: EnvConfig(split="test"))
    """The task, in worlds that neither agent nor model was trained on; the command line starts from the first agent's own task."""
    starts: Path | None = None
    """File of starts to play from, written by `save_starts` or `StartBank.save`; none makes the task's own."""
    save_starts: bool = False
    """Write the starts to starts.npz in `out`, for other comparisons."""
    episodes: int = 60
    """Episodes of each agent in each of the two."""
    num_envs: int = 16
    """Episodes played at the same time."""
    replays: int = 16
    """Engine episodes of the first agent whose actions are replayed in imagination."""
    videos: int = 4
    """Replays shown as side-by-side video."""
    flattered_videos: int = 2
    """Episodes shown of each agent that imagination flatters."""
    deterministic: bool = False
    """Agents take the likeliest action instead of drawing one as in training."""
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
        for name, least in (("episodes", 1), ("num_envs", 1), ("replays", 0), ("videos", 0), ("flattered_videos", 0)):
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
    flattered: dict[str, list[tuple[Played, Played]]] = field(default_factory=dict)
    """Agent that imagination flatters -> episodes from the same starts, in the engine and imagined, with frames."""


def named_agents(sources: Sequence[str]) -> tuple[str, ...]:
    """The agents that ``sources`` stands for: ``ladder`` is many, and nobody comes twice."""
    found = [agent for source in sources for agent in ((*LADDER, *reference_agents()) if source == "ladder" else (source,))]
    return tuple(dict.fromkeys(found))


def agent_names(sources: Sequence[str]) -> list[str]:
    """A different short name for each agent: a baseline's own, ``agent`` for the only trained one, else the folder's, numbered if it comes twice.

    A checkpoint is called by its run and its own folder.
    """
    trained = [s for s in sources if baseline_of(s) is None]
    names: list[str] = []
    for source in sources:
        path = Path(source)
        folder = f"{path.parent.parent.name} {path.name}" if path.parent.name in (CHECKPOINTS, BEST) else path.stem
        name = source if source not in trained else "agent" if len(trained) == 1 else folder
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def replay(
    model: WorldPack, bank: StartBank, played: Sequence[Played], *, seed: int = 0, evaluations: int | None = None, motion: Choice = "drawn"
) -> list[Replay]:
    """Imagines engine episodes again, open loop: the same start, the same actions, nothing of the engine after the first frame.

    Args:
        model: the world model.
        bank: where the episodes started.
        played: engine episodes with frames.
        seed: episode i draws its noise from ``seed + i``.
        evaluations: network evaluations per step, None takes the model's default.
        motion: how imagined bodies move where the model is not sure.
    """
    from worldpack_env.imagination import Imagination

    if not played:
        return []
    simulator = Imagination(model, len(played), evaluations=evaluations, motion=motion)
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
        ValueError: if the starts of ``config.starts`` do not fit.
        CheckpointError: if there is no such agent or model.
        BackendUnavailable: if the engine cannot run here.
    """
    from worldpack_agents.report import write_report
    from worldpack_env.imagination import load_world_model
    from worldpack_env.starts import StartBank

    env = replace(config.env, num_starts=max(config.env.num_starts, config.episodes))
    if bank is None and config.starts is not None:
        bank = StartBank.load(config.starts)
        if len(bank) < config.episodes:
            raise ValueError(f"{config.starts} has {len(bank)} starts, {config.episodes} episodes were asked for; play at most {len(bank)}.")
    given = bank is not None
    model = load_world_model(env.model, device=env.device, precision=env.precision) if model is None else model
    slots = min(config.num_envs, config.episodes)
    with contextlib.ExitStack() as opened:
        imagined, action_set = open_rollout(env, "imagined", slots, starts=bank, model=model)
        opened.callback(imagined.close)
        bank = imagined.bank
        if config.save_starts:
            bank.save(config.out / "starts.npz")
        real, _ = open_rollout(env, "real", slots, starts=bank)
        opened.callback(real.close)
        worlds = {"real": real, "imagined": imagined}

        def run(policy: Policy, where: str, what: str, **options: Any) -> list[Played]:
            told = f"{what} in {'the engine' if where == 'real' else 'imagination'}"
            progress = partial(tell, told)
            return play(worlds[where], action_set, policy, range(config.episodes), seed=config.seed, progress=progress, **options)

        played: dict[str, dict[str, list[Played]]] = {}
        results: list[dict[str, Any]] = []
        shown: dict[str, list[tuple[Played, Played]]] = {}
        agents = named_agents(config.agents)
        for number, (source, name) in enumerate(zip(agents, agent_names(agents), strict=True)):
            policy = open_policy(source, action_set, name=name, deterministic=config.deterministic, trust=config.trust)
            with contextlib.closing(policy):
                keep = config.replays if number == 0 else 0
                both = {"real": run(policy, "real", name, keep_frames=keep), "imagined": run(policy, "imagined", name)}
                played[name] = both
                gap = _gap(both, seed=config.seed)
                scored = {where: summarise(episodes, seed=config.seed) for where, episodes in both.items()}
                results.append({"agent": name, "source": source, "knows_map": policy.knows_map, **scored, **gap})
                if gap["flattered"]:
                    only = [i for i in range(config.episodes) if both["imagined"][i].success and not both["real"][i].success][
                        : config.flattered_videos
                    ]
                    again = [run(policy, where, f"{name} again", only=only, keep_frames=only) for where in ("real", "imagined")]
                    shown[name] = list(zip(*again, strict=True))
        first = next(iter(played.values()))["real"][: config.replays]
        replays = replay(model, bank, [p for p in first if p.frames is not None], seed=config.seed, evaluations=env.evaluations, motion=env.motion)
        goals = {p.start_index: bank[p.start_index].waypoints for p in first}
        env = _of_starts(env, bank, config.episodes) if given else env
    observers = [agent["agent"] for agent in results if not agent["knows_map"]]
    data = {
        "env": asdict(env.settled()),
        "weights": weights_id(env.model),
        "world_seeds": [bank[i].seed for i in range(config.episodes)],
        "agents": results,
        "agreement": _ranked(played, list(played), seed=config.seed),
        "agreement_of_observers": _ranked(played, observers, seed=config.seed) if len(observers) < len(played) else None,
        "replay": {
            "episodes": len(replays),
            "lost": sum(r.lost for r in replays),
            "of": next(iter(played)),
            "first_astray": first_astray(replays),
            **curves(replays, seed=config.seed),
        },
        "interval": "95 %; Wilson for success, bootstrap over episodes for the rest",
        "provenance": provenance(),
    }
    comparison = Comparison(data, played, replays, goals, shown)
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "report.json", data)
    write_report(comparison, config.out / "report.html", videos=config.videos)
    return comparison


def _of_starts(env: EnvConfig, bank: StartBank, count: int) -> EnvConfig:
    """The task as it is from the first ``count`` starts of a bank, which need not be what ``env`` asks for."""
    from worldpack_model.episodes import split_of

    def split(seed: int) -> str:
        try:
            return split_of(seed)
        except ValueError:
            return "other"  # worlds that others recorded are of no split

    splits: Any = "/".join(sorted({split(bank[i].seed) for i in range(count)}))
    loop: Any = env.loop if bank.loop == "AB" else bank.loop
    return replace(env, world=bank.world, nav_range=bank.nav_range, start=bank.mode, distractors=0, loop=loop, split=splits)


def _ranked(played: dict[str, dict[str, list[Played]]], names: Sequence[str], *, seed: int) -> dict[str, Any] | None:
    """How imagination ranks some of the agents; None of too few."""
    if len(names) < LEAST_AGENTS:
        return None
    imagined, real = (np.array([[p.success for p in played[name][where]] for name in names], np.float64) for where in ("imagined", "real"))
    return agreement(imagined, real, seed=seed)


def _gap(both: dict[str, list[Played]], *, seed: int) -> dict[str, Any]:
    """How much better an agent does in imagination, paired by start; flattered where the interval of success is above 0."""
    pairs = list(zip(both["imagined"], both["real"], strict=True))
    rng = np.random.default_rng([seed, 43])
    success = bootstrap_mean([float(a.success) - float(b.success) for a, b in pairs], rng)
    returns = bootstrap_mean([a.total_reward - b.total_reward for a, b in pairs], rng)
    return {
        "same_outcome": float(np.mean([a.success == b.success for a, b in pairs])),
        "imagined_minus_real": {"success": asdict(success), "return": asdict(returns)},
        "flattered": success.low > 0,
    }


def first_astray(replays: Sequence[Replay], *, blocks: float = ASTRAY_BLOCKS) -> dict[str, Any]:
    """When the imagined body was first further than ``blocks`` over ground from the engine's, and where the engine's was then.

    Returns:
        ``blocks``, ``never`` (episodes in which it did not happen), the ``steps`` at which it did, their ``median_step`` (None if more than half
        never went astray), and ``places`` as (start, x, z).
    """
    steps: list[int] = []
    places: list[tuple[int, float, float]] = []
    for r in replays:
        away = np.linalg.norm((r.imagined_poses - r.real.poses)[:, [0, 2]], axis=1) > blocks
        if away.any():
            step = int(away.argmax())
            steps.append(step)
            places.append((r.real.start_index, float(r.real.poses[step, 0]), float(r.real.poses[step, 2])))
    ranked = sorted([*map(float, steps), *[math.inf] * (len(replays) - len(steps))])
    middle = ranked[(len(ranked) - 1) // 2] if ranked else math.inf
    return {
        "blocks": blocks,
        "never": len(replays) - len(steps),
        "steps": steps,
        "median_step": middle if math.isfinite(middle) else None,
        "places": places,
    }
