"""The ``worldpack`` command. Subcommands are imported when they are chosen, so that help is quick and loads no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

# Before torch is imported by anyone: with a busy neighbour, spinning threads are tens of times slower than sleeping ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS: Final = {
    "demo": "train an agent in imagination, check it in the engine, write a report (a few minutes)",
    "record": "record episodes in an engine, in LoopNav's layout; --import DIR takes recordings of VPT's form (mp4 + jsonl) instead",
    "train-model": "train a world model from recorded episodes, or continue",
    "train-events": "train heads that tell events in frames, such as a tree within reach, from recorded episodes, or continue",
    "eval-model": "imagine held-out loops and compare them with the truth; --ablate DIR compares contexts, --suite loopnav runs LoopNav",
    "train-agent": "train an agent with PPO or DQN, in imagination or in the engine, or continue",
    "refresh": "train an agent in imagination, let it play in the engine, teach the world model what it met, and go on",
    "eval-agent": "success, return and path length of an agent, in imagination or in the engine",
    "compare": "the same starts in imagination and in the engine; writes a report",
    "study": "the same training under several conditions and seeds, judged in the engine: memory, curriculum, horizon, budget, or a file of your own",
    "play": "walk by hand, in imagination or in the engine (opens a window)",
    "info": "parameters and exact token budget of a preset or a model, beside the paper's",
    "bench": "measure the speed of imagination and of training in it, and what memory costs",
    "doctor": "say what is installed, what is missing, and what to do; doctor minerl: the same of MineRL",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: as typed after ``worldpack``; None takes the process's.

    Returns:
        Exit status: 0, 2 after an error that is the user's to mend (told in one sentence), 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("WORLDPACK_DEBUG"))
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        _help()
        return 0
    if words[0] == "--version":
        from worldpack_model import __version__

        sys.stdout.write(f"worldpack-env {__version__}\n")
        return 0
    name = words[0]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        return _fail(f"There is no command {name!r}." + (f" Did you mean {near[0]!r}?" if near else " See worldpack --help."))
    try:
        _RUN[name](words[1:])
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Run the same command again to continue.\n")
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        # Errors that we raise on purpose are one sentence that says what to do; --debug shows where they came from.
        if debug:
            raise
        return _fail(str(error) or type(error).__name__)
    return 0


def _help() -> None:
    lines = ["usage: worldpack COMMAND [OPTIONS]     (worldpack COMMAND --help lists the options)", ""]
    lines += [f"  {name:<14}{text}" for name, text in COMMANDS.items()]
    lines += ["", "  --debug      show the traceback of an error", "  --version    show the version"]
    sys.stdout.write("\n".join(lines) + "\n")


def _fail(message: str) -> int:
    sys.stderr.write(f"worldpack: {message}\n")
    return 2


def _parse(config: Any, words: Sequence[str], name: str, **options: Any) -> Any:
    import tyro

    return tyro.cli(config, args=list(words), prog=f"worldpack {name}", description=COMMANDS[name], **options)


def _parse_for_agents(config: Any, words: Sequence[str], name: str, agents: Callable[[Any], Sequence[str]]) -> Any:
    """Parses a command about agents; the task that is not told is the one that the first agent was trained on."""
    from dataclasses import replace

    from worldpack_agents.evaluate import task_of

    parsed = _parse(config, words, name)
    task = task_of(agents(parsed))
    return parsed if task is None else _parse(config, words, name, default=replace(config(), env=task))


class _Bars:
    """Progress bars that appear with their first step."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(TextColumn("{task.description}"), *columns)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, what: str, done: int, total: int, note: str = "") -> None:
        """Shows that ``done`` of ``total`` of ``what`` are done."""
        if what not in self._tasks:
            self._progress.start()
            self._tasks[what] = self._progress.add_task(what, total=total, note=note)
        self._progress.update(self._tasks[what], completed=done, total=total, note=note)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title or None)
    for row in rows:
        table.add_row(*row)
    # a pipe has no width; 120 keeps a row in one line
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _demo(words: Sequence[str]) -> None:
    from worldpack_agents.demo import DemoConfig, demo
    from worldpack_agents.report import table_heads, table_rows

    config = _parse(DemoConfig, words, "demo")
    _say(f"Training a PPO agent inside the world model {config.model}; it never sees the engine but for where episodes start.")
    with _Bars() as bars:
        result = demo(config, bars.tell)
    _table(
        table_heads(result.data["agents"][0]["real"]),
        table_rows(result.data),
        f"{config.settings()[1].episodes} starts in held-out worlds",
    )
    _say(f"Report: {(config.out / 'report.html').resolve()}")


def _import(words: Sequence[str]) -> None:
    from worldpack_model.vpt import ImportConfig, import_recordings

    config = _parse(
        ImportConfig, ["--source" + word.removeprefix("--import") if word.partition("=")[0] == "--import" else word for word in words], "record"
    )
    with _Bars() as bars:
        index = import_recordings(config, bars.tell)
    _say(f"{len(index)} episodes, {index.frames} frames in {config.out}.")


def _record(words: Sequence[str]) -> None:
    if any(word.partition("=")[0] == "--import" for word in words):
        _import(words)
        return
    from worldpack_env.recorder import RecordConfig, record

    config = _parse(RecordConfig, words, "record")
    index = record(config)
    _say(f"{len(index)} episodes, {index.frames} frames in {config.out}.")


def _train_model(words: Sequence[str]) -> None:
    from worldpack_model.trainer import TrainModelConfig, train_model

    config = _parse(TrainModelConfig, words, "train-model")
    with _Bars() as bars:
        path = train_model(
            config,
            lambda stage, done, total, numbers: bars.tell(stage, done, total, " ".join(f"{k} {v:.3g}" for k, v in numbers.items())),
        )
    _say(f"Model: {path}   (tensorboard --logdir {config.out / 'tensorboard'})")


def _train_events(words: Sequence[str]) -> None:
    from worldpack_model.events import TrainEventsConfig, train_events

    config = _parse(TrainEventsConfig, words, "train-events")
    with _Bars() as bars:
        path = train_events(config, lambda stage, done, total, numbers: bars.tell(stage, done, total, f"loss {numbers['loss']:.3g}"))
    _say(f"Event heads: {path}")


def _ablate(words: Sequence[str]) -> None:
    import tempfile
    from pathlib import Path

    from worldpack_env.recorder import RecordConfig, record
    from worldpack_model.ablation import AblateConfig, ablate, find_runs

    config = _parse(AblateConfig, words, "eval-model")
    find_runs(config.ablate)  # before anything is recorded
    with tempfile.TemporaryDirectory() as folder, _Bars() as bars:
        data = {}
        for cell in (f"{task}-{reach}" for task in config.tasks for reach in config.ranges):
            data[cell] = Path(folder) / cell
            record(RecordConfig(out=data[cell], episodes=config.episodes, split="test", mix={cell: 1.0}), progress=False)
            bars.tell("recorded", len(data), len(config.tasks) * len(config.ranges))
        report = ablate(config, data, bars.tell)
    for name in ("psnr_revisit", "psnr", "ssim", *(["lpips"] if config.lpips else []), "frechet"):
        decimals = {"ssim": 3, "lpips": 3, "frechet": 2}.get(name, 1)
        cells = list(report["episodes"])
        rows = [[variant, *(_triple(row[cell][name], decimals) for cell in cells)] for variant, row in report["table"].items()]
        _table(["context", *cells], rows, f"{name.replace('_', ' ')}; {len(report['seeds'])} seeds, {config.episodes} held-out worlds a column")
    for step in report["steps_of_the_ladder"]:
        _say(f"PSNR at revisits, {step['variant']} over {step['over']}, all columns: {_triple(step['all_cells'], 2)} dB (paired)")


def _triple(values: Sequence[float], decimals: int = 2) -> str:
    """A mean and its interval."""
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*values, d=decimals)


def _loopnav(words: Sequence[str]) -> None:
    from worldpack_model.loopnav import LoopNavConfig, evaluate_loopnav

    config = _parse(LoopNavConfig, words, "eval-model")
    with _Bars() as bars:
        report = evaluate_loopnav(config, bars.tell)
    names = ("psnr", "ssim", *(["lpips"] if config.lpips else []), "psnr_revisit", "psnr_autoencoder")
    for model, cells in report["models"].items():
        rows = [[cell, str(row["episodes"]), *(_triple(row[k]) for k in names), f"{row['frechet']:.1f}"] for cell, row in cells.items()]
        _table(["LoopNav", "episodes", *(k.replace("_", " ") for k in names), "Fréchet"], rows, f"{model}; mean [95 % interval]")


def _eval_model(words: Sequence[str]) -> None:
    if any(word.partition("=")[0] == "--ablate" for word in words):
        _ablate(words)
        return
    if any(word.partition("=")[0] == "--suite" for word in words):
        _loopnav(words)
        return
    import tempfile
    from dataclasses import replace
    from pathlib import Path

    from worldpack_model.evaluation import EvalModelConfig, evaluate_model

    config = _parse(EvalModelConfig, words, "eval-model")
    with tempfile.TemporaryDirectory() as folder, _Bars() as bars:
        if config.data is None:
            from worldpack_env.recorder import RecordConfig, record

            mix = {f"{config.task}-{config.nav_range}": 1.0}
            record(RecordConfig(out=Path(folder), episodes=config.episodes, split="test", mix=mix))
            config = replace(config, data=Path(folder))
        report = evaluate_model(config, bars.tell)

    keys = ("psnr", "psnr_revisit", "psnr_elsewhere", "detail_kept", "median_final_drift_blocks", "psnr_autoencoder_revisit")
    rows = [[m["model"], *(_triple(m[k]) for k in keys)] for m in report["models"]]
    title = f"{report['task']}, {report['episodes']} held-out worlds, way home imagined; mean [95 % interval]"
    _table(["model", *(k.replace("_", " ") for k in keys)], rows, title)
    for d in report["differences"]:
        _say(f"PSNR at revisits, {d['model']} over {d['over']}: {_triple(d['psnr_revisit_gain'])} dB (paired by episode)")


def _train_agent(words: Sequence[str]) -> None:
    from worldpack_agents.train import TrainAgentConfig, train_agent

    result = train_agent(_parse(TrainAgentConfig, words, "train-agent"))
    _say(f"Agent: {result.run} ({result.steps} steps{'' if result.finished else ', stopped; run again to continue'})")


def _refresh(words: Sequence[str]) -> None:
    from worldpack_agents.refresh import RefreshConfig, refresh

    config = _parse(RefreshConfig, words, "refresh")
    with _Bars() as bars:
        result = refresh(config, bars.tell)
    rows = [
        [
            str(line["round"]),
            f"{line['agent_steps']:,}",
            f"{line['agent_real_steps'] + line['collected_steps']:,}",
            f"{line['success']:.0%}" if "success" in line else "",
            f"{line['stopped']:.1%}" if "stopped" in line else "",
        ]
        for line in result.rounds
    ]
    columns = ("round", "agent's steps", "of them and collected in the engine", "success there", "steps stopped there")
    _table(columns, rows, f"{result.real_steps:,} steps in the engine")
    _say(f"Agent: {result.agent}   World model: {result.model}")


def _eval_agent(words: Sequence[str]) -> None:
    from worldpack_agents.evaluate import EvalAgentConfig, describe, evaluate_agent
    from worldpack_agents.intervals import Interval
    from worldpack_agents.report import columns, table_heads

    config = _parse_for_agents(EvalAgentConfig, words, "eval-agent", lambda parsed: (parsed.agent,))
    with _Bars() as bars:
        result = evaluate_agent(config, lambda done, total: bars.tell("episodes", done, total))
    row = [config.agent, config.where, *(Interval(**result[k]).text(d, percent=p) for k, p, d in columns(result))]
    _table(table_heads(result), [row], f"{describe(config.env)}; {config.episodes} episodes, mean [95 % interval]")


def _compare(words: Sequence[str]) -> None:
    from worldpack_agents.compare import CompareConfig, compare, named_agents
    from worldpack_agents.env_config import EnvConfig
    from worldpack_agents.evaluate import describe
    from worldpack_agents.report import table_heads, table_rows

    config = _parse_for_agents(CompareConfig, words, "compare", lambda parsed: named_agents(parsed.agents))
    with _Bars() as bars:
        result = compare(config, bars.tell)
    _table(
        table_heads(result.data["agents"][0]["real"]),
        table_rows(result.data),
        f"{describe(EnvConfig(**result.data['env']))}; {config.episodes} starts, mean [95 % interval]",
    )
    _say(f"Report: {(config.out / 'report.html').resolve()}")


def _play(words: Sequence[str]) -> None:
    from worldpack_agents.play import HELP, PlayConfig, play_by_hand

    config = _parse(PlayConfig, words, "play")
    _say(HELP)
    play_by_hand(config)


def _bench(words: Sequence[str]) -> None:
    benches: dict[str, Callable[[Sequence[str]], None]] = {"speed": _bench_speed, "memory": _bench_memory, "train": _bench_train}
    if not words or words[0] in ("-h", "--help"):
        _say(f"usage: worldpack bench {{{', '.join(benches)}}} [OPTIONS]")
    elif words[0] not in benches:
        raise ValueError(f"There is no benchmark {words[0]!r}; there are: {', '.join(benches)}.")
    else:
        benches[words[0]](words[1:])


def _bench_speed(words: Sequence[str]) -> None:
    import tyro

    from worldpack_agents.bench import BenchSpeedConfig, bench_speed

    report = bench_speed(tyro.cli(BenchSpeedConfig, args=list(words), prog="worldpack bench speed"))
    rows = [
        [
            str(r["slots"]),
            str(r["evaluations"]),
            "yes" if r["compiled"] else "no",
            f"{r['ms_per_step']:.1f}",
            f"{r['ms_predict_alone']:.1f}",
            f"{r['env_steps_per_second']:.1f}",
            f"{r['share_of_matrix_rate']:.0%}",
        ]
        for r in report["rows"]
    ]
    rate = f"{report['precision']}, products of matrices at best {report['matrix_gflops_per_second']:.0f} GF/s"
    _table(
        ["slots", "evaluations", "compiled", "ms a step", "predict alone", "env steps/s", "of the matrix rate"],
        rows,
        f"{report['weights']}, {report['provenance']['machine']['torch_threads']} threads, {rate}",
    )
    parts = report["parts_of_a_prediction"]
    _table(["part", "share"], [[k, f"{v:.1%}"] for k, v in parts["share_of_time"].items()], f"A prediction of {parts['slots']} slots on one thread")


def _bench_train(words: Sequence[str]) -> None:
    import tyro

    from worldpack_agents.bench import BenchTrainConfig, bench_train

    report = bench_train(tyro.cli(BenchTrainConfig, args=list(words), prog="worldpack bench train"))
    rows = [[name, f"{share:.1%}"] for name, share in report["share_of_time"].items()]
    _table(["PPO's time in", "share"], rows, f"{report['what']}: {report['env_steps_per_second']:.1f} env steps/s")


def _bench_memory(words: Sequence[str]) -> None:
    import tyro

    from worldpack_agents.bench import BenchMemoryConfig, bench_memory

    config = tyro.cli(BenchMemoryConfig, args=list(words), prog="worldpack bench memory")
    with _Bars() as bars:
        report = bench_memory(config, bars.tell)
    rows = [
        [f"{config.slots} slots, {r['frames']:,} frames walked, {r['kept']:,} kept", f"{r['milliseconds']:.1f}", f"{r['ratio']:.3f}"]
        for r in report["by_history"]
    ]
    rows += [
        [f"{r['slots']} slots, {r['model']}: {r['frames']} frames in the context", f"{r['milliseconds']:.1f}", f"{r['ratio']:.3f}"]
        for r in report["by_context"]
    ]
    _table(["memory", "ms a prediction", "ratio"], rows, f"{report['provenance']['machine']['torch_threads']} threads")


def _info(words: Sequence[str]) -> None:
    from worldpack_model.config import PRESETS
    from worldpack_model.summary import PAPER, InfoConfig, summarise

    names = _parse(InfoConfig, words, "info").names
    summaries = [summarise(name) for name in names or PRESETS]
    rows = []
    for s in summaries:
        sizes = [f"{s.parameters[part] / 1e6:.2f} M" for part in ("autoencoder", "denoiser", "motion")]
        height, width = s.config.frame_size
        counts = [s.target_tokens, s.config.packing.frames, s.context_tokens]
        rows.append([s.name, f"{height} x {width}", *sizes, *map(str, counts), f"{s.frame_equivalents:.2f}"])
    columns = ("model", "pixels", "autoencoder", "denoiser", "motion", "tokens a frame", "in context", "context tokens", "frames' worth")
    _table(columns, rows, "parameters of each part; tokens of the frame to predict and of its context")
    if names:
        for s in summaries:
            levels = [
                [str(i), f"{lv.kernel} x {lv.kernel}", str(lv.recent), str(lv.retrieved), str(lv.tokens_per_frame), str(lv.tokens)]
                for i, lv in enumerate(s.levels)
            ]
            _table(["level", "latent cells a token", "newest", "retrieved", "tokens a frame", "tokens"], levels, f"{s.name}: context")
    for what, text in PAPER:
        _say(f"{what}: {text}")


def _doctor_minecraft(words: Sequence[str]) -> None:
    import tyro

    from worldpack_agents.doctor_minecraft import DoctorMinecraftConfig, doctor_minecraft, next_command

    rows = doctor_minecraft(tyro.cli(DoctorMinecraftConfig, args=list(words), prog="worldpack doctor minecraft"), _say)
    _table(["minecraft needs", "found", "next command"], [list(row) for row in rows])
    command = next_command(rows)
    if command:
        raise ValueError(f"The minecraft world cannot run yet; run: {command}")
    _say("The minecraft world can run.")


def _doctor_of_world(words: Sequence[str]) -> None:
    """Says what an engine needs, what of it is here, and which command to run next."""
    if words[0] in ("-h", "--help"):
        _say("usage: worldpack doctor [minecraft [--install] | minerl]")
        return
    if words[0] == "minecraft":
        _doctor_minecraft(words[1:])
        return
    if list(words) != ["minerl"]:
        raise ValueError(f"doctor takes the name of an engine that needs set-up (minecraft, minerl) or nothing, got {' '.join(words)!r}.")
    from worldpack_agents.doctor_minerl import check_minerl, next_command

    checks = check_minerl()
    _table(["what", "found"], [[check.what, check.found] for check in checks], "minerl")
    _say(f"Next: {next_command(checks)}")


def _doctor(words: Sequence[str]) -> None:
    if words:
        _doctor_of_world(words)
        return
    from worldpack_env.worlds import WORLDS, make_world
    from worldpack_model.checkpoint import CheckpointError, complete_folders, load_model, shipped_models
    from worldpack_model.events import SHIPPED_HEADS, EventHeads
    from worldpack_model.provenance import machine, versions

    rows = [[key, str(value)] for key, value in {**versions(), **machine()}.items()]
    for name in WORLDS:
        try:
            world = make_world(name)
            view = world.reset(0)
            world.close()
            rows.append([f"world {name}", f"works, frames {view.frame.shape}"])
        except (RuntimeError, ImportError, ValueError) as error:
            rows.append([f"world {name}", f"does not work: {error}"])

    def model(name: str) -> str:
        load_model(name, device="cpu")
        return "sound"

    def heads(name: str) -> str:
        return f"sound: {', '.join(EventHeads.from_pretrained(name, device='cpu').config.events)}"

    shipped = [("model", name, model) for name in shipped_models()] + [("event heads", name, heads) for name in complete_folders(SHIPPED_HEADS)]
    for what, name, check in shipped:
        try:
            rows.append([f"{what} {name}", check(name)])
        except CheckpointError as error:
            rows.append([f"{what} {name}", f"damaged: {error} Reinstall worldpack-env."])
    if not shipped_models():
        rows.append(["models", "none shipped; train one with worldpack train-model"])
    _table(["what", "found"], rows)


def _study(words: Sequence[str]) -> None:
    from worldpack_agents.study import StudyConfig, folder_of, run_study
    from worldpack_agents.study_report import study_heads, study_rows

    config = _parse(StudyConfig, words, "study")
    with _Bars() as bars:
        report = run_study(config, bars.tell)
    seeds = ", ".join(map(str, report["study"]["seeds"]))
    _table(study_heads(report), study_rows(report), f"{report['study']['title']} Seeds {seeds}; in the engine on held-out worlds, mean [95 %]")
    _say(f"Report: {(folder_of(config) / 'study.html').resolve()}")


_RUN: Final[dict[str, Callable[[Sequence[str]], None]]] = {
    "demo": _demo,
    "record": _record,
    "train-model": _train_model,
    "train-events": _train_events,
    "eval-model": _eval_model,
    "train-agent": _train_agent,
    "refresh": _refresh,
    "eval-agent": _eval_agent,
    "compare": _compare,
    "study": _study,
    "play": _play,
    "info": _info,
    "bench": _bench,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
