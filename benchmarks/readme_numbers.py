"""Writes the numbers of README.md from the JSON files of benchmarks/results/, each beside the command that made it.

Run ``python benchmarks/readme_numbers.py`` after a measurement; ``--check`` only says whether README.md is up to date.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- numbers -->", "<!-- /numbers -->"


def triple(values: list[float]) -> str:
    """``mean [low, high]``."""
    return f"{values[0]:.2f} [{values[1]:.2f}, {values[2]:.2f}]"


def interval(entry: dict[str, Any], percent: bool = False) -> str:
    """An interval of the comparison."""
    if percent:
        return f"{100 * entry['mean']:.0f} % [{100 * entry['low']:.0f}, {100 * entry['high']:.0f}]"
    return f"{entry['mean']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


LOOPS = {
    "eval-model-aba15-true-poses.json": "worldpack eval-model --poses true",
    "eval-model-aba50-true-poses.json": "worldpack eval-model --poses true --nav-range 50 --episodes 16",
    "eval-model-aba15.json": "worldpack eval-model",
    "eval-model-aba50.json": "worldpack eval-model --nav-range 50 --episodes 16",
}
"""Evaluations on held-out loops, a line or two each in one table."""


def loops_table() -> list[str]:
    """PSNR of the models on held-out loops."""
    lines = [
        "**Does the memory work?** Loops in held-out worlds: look-around and way out are given, the way home is imagined, along the true poses (as",
        "in the paper's evaluation) or from the actions alone. `voxel-64-recent` is the same network, trained equally on the same data, without",
        "memory. PSNR in dB; *gain* is paired by world; the *ceiling* is the true frame through the autoencoder; *detail* is the mean difference of",
        "neighbouring pixels over the true frames', all along (and what the autoencoder alone keeps of it) and in the last tenth of the way; *drift*",
        "is the median distance from the truth at the end.",
        "",
        "| loop | poses | model | revisited views | gain | ceiling | elsewhere | detail | detail at the end | drift, blocks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in LOOPS:
        data = json.loads((RESULTS / name).read_text())
        gains = {d["over"]: d["psnr_revisit_gain"] for d in data["differences"]}
        for m in data["models"]:
            first = m["model"] == data["models"][0]["model"]
            lines.append(
                f"| {data['task'] if first else ''} | {('given' if data['poses'] == 'true' else 'own') if first else ''} | `{m['model']}` "
                f"| {triple(m['psnr_revisit'])} | {triple(next(iter(gains.values()))) if first else ''} "
                f"| {triple(m['psnr_autoencoder_revisit']) if first else ''} | {triple(m['psnr_elsewhere'])} "
                f"| {m['detail_kept'][0]:.2f}{' of {:.2f}'.format(m['detail_kept_autoencoder'][0]) if first else ''} "
                f"| {m['detail_kept_last_tenth'][0]:.2f} | {triple(m['median_final_drift_blocks']) if data['poses'] == 'model' else ''} |"
            )
    lines.append("")
    for name, command in LOOPS.items():
        data = json.loads((RESULTS / name).read_text())
        m = data["models"][0]
        lines.append(
            f"* `{command} --out benchmarks/results/{name}` → [`{name}`](benchmarks/results/{name}): {data['episodes']} worlds, "
            f"{m['imagined_frames']} imagined frames, {m['revisit_frames']} revisits."
        )
    return [*lines, "", "95 % intervals."]


def persistence_table(data: dict[str, Any]) -> list[str]:
    """Whether inventions stay."""
    lines = [
        f"**Does what it invented stay?** One frame is given in each of {data['worlds']} held-out worlds, then the body turns three times in place,",
        "16 steps a turn. PSNR in dB between the same directions of one turn and the next; detail as above.",
        "",
        "![Three worlds, three turns each; the frame before the first is the only real one](docs/images/turns.png)",
        "",
        "| model | second turn as the first | third as the second | detail, first turn | detail, third turn |",
        "|---|---|---|---|---|",
    ]
    for m in data["models"]:
        kept, fine = m["psnr_between_turns"], m["detail_over_real_by_turn"]
        lines.append(f"| `{m['model']}` | {triple(kept[0])} | {triple(kept[1])} | {triple(fine[0])} | {triple(fine[-1])} |")
    return lines


def walls_table(data: dict[str, Any]) -> list[str]:
    """Whether walls stay walls from nearby."""
    first = data["models"][0]
    lines = [
        "**Do walls stay walls when a body comes up to them?** They dissolve. `compass` walks in the engine from",
        f"{data['starts']} held-out starts; its {data['ways']} ways that end at a wall for good are imagined along its true poses. PSNR in dB on",
        f"the way and in eight steps at the wall (the autoencoder has {triple(first['psnr_autoencoder_at_the_wall'])} there); detail as above, in",
        f"grey levels (true: {triple(first['detail_true_at_the_wall'])}).",
        "",
        "![Four ways to a wall, true above imagined](docs/images/walls.png)",
        "",
        "| model | on the way | at the wall | detail at the wall |",
        "|---|---|---|---|",
    ]
    for m in data["models"]:
        lines.append(f"| `{m['model']}` | {triple(m['psnr_on_the_way'])} | {triple(m['psnr_at_the_wall'])} | {triple(m['detail_at_the_wall'])} |")
    return lines


def events_table(data: dict[str, Any]) -> list[str]:
    """What event heads tell."""
    seen = {"true": "true", "autoencoder": "through the autoencoder", "imagined": "imagined"}
    lines = [
        "**Does a learned head know what happens?** The shipped event heads on held-out worlds, beside the engine's word: way home of",
        f"{data['episodes']['ABA-15']} loops and second halves of {data['episodes']['stroll']} walks; frames imagined by `voxel-64` where the true",
        "view was given before. It *happens* in so many of the frames; *precision* and *recall* where the chance is above 0.5.",
        "",
        "| event | frames | happens | precision | recall | average precision |",
        "|---|---|---|---|---|---|",
    ]
    for r in data["rows"]:
        lines.append(
            f"| {'`' + r['event'] + '`' if r['frames'] == 'true' else ''} | {seen[r['frames']]} | {r['happens']:,} of {r['count']:,} "
            f"| {triple(r['precision'])} | {triple(r['recall'])} | {triple(r['average_precision'])} |"
        )
    return lines


def motion_table(data: dict[str, Any]) -> list[str]:
    """Errors of the motion model by kind of step."""
    lines = [
        "**Does it know where a step leads?** Distance in blocks between the predicted and the recorded position after one env step in held-out",
        "worlds, the past given; *blind* is the same model without a look at remembered frames and places.",
        "",
        "| step | share | mean error | median | above 0.1 | mean, blind |",
        "|---|---|---|---|---|---|",
    ]
    for name, k in data["kinds"].items():
        lines.append(
            f"| {name} | {100 * k['share']:.0f} % | {k['mean'][0]:.3f} [{k['mean'][1]:.3f}, {k['mean'][2]:.3f}] | {k['median']:.3f} "
            f"| {100 * k['above_a_tenth']:.0f} % | {k['mean_blind'][0]:.3f} |"
        )
    return lines


def demo_table(data: dict[str, Any]) -> list[str]:
    """Success of the demo's agents."""
    first = data["agents"][0]["real"]
    lines = [
        f"**Do agents transfer?** The demo's PPO agent, trained only in imagination, from {first['episodes']} starts in held-out worlds.",
        "",
    ]
    return lines + success_rows(data)


def success_rows(data: dict[str, Any]) -> list[str]:
    """Success of the agents of a comparison, in both places."""
    lines = ["| agent | success in the engine | success imagined | SPL in the engine |", "|---|---|---|---|"]
    for a in data["agents"]:
        lines.append(
            f"| {a['agent']} | {interval(a['real']['success'], percent=True)} | {interval(a['imagined']['success'], percent=True)} "
            f"| {interval(a['real']['spl'])} |"
        )
    return lines


def find_table(data: dict[str, Any]) -> list[str]:
    """Who finds a tree, in both places."""
    where = {"imagined": "imagination", "engine": "the engine"}
    lines = [
        "**Does imagination rank those who look for trees?** Four of that study's agents and one that moves at random, from",
        f"{data['agents'][0]['real']['episodes']} starts in held-out worlds; the engine's word ends an episode, or imagined the learned head's.",
        f"Pearson's r {interval(data['agreement']['pearson'])}, mean maximum rank violation",
        f"{interval(data['agreement']['mean_maximum_rank_violation'])}",
        f"(a perfect simulator's, from as few starts: {interval(data['agreement']['rank_violation_by_chance'])}).",
        "",
        "| agent | success in the engine | success imagined | imagined less engine |",
        "|---|---|---|---|",
    ]
    for a in data["agents"]:
        kind, _, seed = a["agent"].partition("-")
        name = f"learned in {where[kind]}, seed {seed}" if kind in where else f"`{a['agent']}`"
        lines.append(
            f"| {name} | {interval(a['real']['success'], percent=True)} | {interval(a['imagined']['success'], percent=True)} "
            f"| {interval(a['imagined_minus_real']['success'], percent=True)}{', flattered' if a['flattered'] else ''} |"
        )
    return lines


def minecraft_table(data: dict[str, Any]) -> list[str]:
    """Success in the minecraft world of an agent that learned in its world model."""
    first, loops = data["agents"][0]["real"], json.loads((RESULTS / "eval-model-minecraft-aba15.json").read_text())
    model = loops["models"][0]
    return [
        f"**And in Minecraft's movement and pictures?** A PPO agent that learned in `minecraft-64` only, range {data['env']['nav_range']}, from",
        f"{first['episodes']} starts in held-out worlds. (On {loops['episodes']} held-out loops, ABA-15, poses given, `minecraft-64` reaches",
        f"{triple(model['psnr_revisit'])} dB at revisits; its autoencoder {triple(model['psnr_autoencoder_revisit'])}:",
        "[`eval-model-minecraft-aba15.json`](benchmarks/results/eval-model-minecraft-aba15.json), see [docs](docs/minecraft.md).)",
        "",
        *success_rows(data),
    ]


def agreement_table(data: dict[str, Any]) -> list[str]:
    """Whether imagination ranks agents as the engine does."""
    found, starts = data["agreement"], data["agents"][0]["real"]["episodes"]
    worst = found["mean_maximum_rank_violation"]
    if data["env"]["world"] == "minecraft":
        return [
            f"In `minecraft`, by `minecraft-64`, the same policies and range: Pearson's r {interval(found['pearson'])}, Spearman's",
            f"{interval(found['spearman'])}, mean maximum rank violation {worst['mean']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}].",
            "",
            "![Success in the minecraft world against success in imagination](docs/images/agreement-minecraft.png)",
        ]
    chance, few = found["rank_violation_by_chance"], data["agreement_of_observers"]
    violation, by_chance = few["mean_maximum_rank_violation"], few["rank_violation_by_chance"]
    lines = [
        f"**Does imagination rank agents as the engine does?** {len(data['agents'])} policies of graded skill on GoTo, range",
        f"{data['env']['nav_range']}: an agent at five times of its training in imagination, and agents that learn nothing, some with a share of",
        f"random actions; {starts} held-out starts each. Pearson's r of imagined and real success {interval(found['pearson'])},",
        f"Spearman's {interval(found['spearman'])}, mean maximum rank violation {worst['mean']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}];",
        f"of a perfect simulator, so few starts would make it {chance['mean']:.3f} [{chance['low']:.3f}, {chance['high']:.3f}].",
        f"Without the oracles, which read the engine's map and are no agents to choose between, over {violation['count']} policies:",
        f"Pearson's r {interval(few['pearson'])}, Spearman's {interval(few['spearman'])}, mean maximum rank violation",
        f"{violation['mean']:.3f} [{violation['low']:.3f}, {violation['high']:.3f}]; of a perfect simulator {by_chance['mean']:.3f}",
        f"[{by_chance['low']:.3f}, {by_chance['high']:.3f}].",
        "",
        "![Success in the engine against success in imagination](docs/images/agreement.png)",
        "",
        "| policy | success in the engine | success imagined | imagined less real, same starts |",
        "|---|---|---|---|",
    ]
    for a in data["agents"]:
        name = f"agent, {int(a['source'].removeprefix('step_')):,} steps" if a["source"].startswith("step_") else f"`{a['agent']}`"
        lines.append(
            f"| {name} | {interval(a['real']['success'], percent=True)} | {interval(a['imagined']['success'], percent=True)} "
            f"| {interval(a['imagined_minus_real']['success'], percent=True)}{', flattered' if a['flattered'] else ''} |"
        )
    return lines


def stops_table(data: dict[str, Any]) -> list[str]:
    """How often imagined bodies are stopped, and real ones."""
    places = list(dict.fromkeys(line["in"] for line in data["lines"]))
    lines = [
        "**Are imagined bodies stopped as often as real ones?** Stops for every 10 blocks that agents walk which learn nothing, from",
        f"{data['lines'][0]['stops_per_10_blocks']['count']} starts in held-out worlds ({data['task'].split(',')[0]}).",
        "A simulator that stops too seldom makes careless agents.",
        "",
        f"| policy | {' | '.join('the engine' if place == 'the engine' else f'`{place}`' for place in places)} |",
        "|---|" + "---|" * len(places),
    ]
    for policy in dict.fromkeys(line["policy"] for line in data["lines"]):
        found = {line["in"]: interval(line["stops_per_10_blocks"]) for line in data["lines"] if line["policy"] == policy}
        lines.append(f"| `{policy}` | {' | '.join(found[place] for place in places)} |")
    return lines


def study_table(data: dict[str, Any]) -> list[str]:
    """What a study found: success of each condition, beside that of the one it is compared with."""
    study, over = data["study"], {d["condition"]: d for d in data["differences"]}
    episodes, reached = len(data["cells"][0]["success"]), data["steps_to"][-1]
    level = f"{100 * reached['success']:.0f} %"
    placed = study["name"] != "find"  # nobody knows the shortest way to something that may be anywhere
    lines = [
        f"**{study['title']}** {study['question']}",
        f"{len(study['seeds'])} seeds, {data['cells'][0]['steps']:,} env steps of training each; judged in the engine from {episodes} starts",
        f"in held-out worlds. The last column: env steps after which validation success was first {level}, seed by seed.",
        "",
        f"| condition | success in the engine | less `{study['against']}`'s | by `{study['against']}`'s "
        f"{'| SPL ' if placed else ''}| steps to {level} |",
        "|---" * (6 if placed else 5) + "|",
    ]
    for name, found in data["conditions"].items():
        less, by = (over[name]["success"], over[name]["success_ratio"]) if name in over else (None, None)
        steps = ", ".join("never" if at is None else f"{at:,}" for at in reached["steps"][name])
        spl = f"| {interval(found['spl']['mean'])} " if placed else ""
        lines.append(
            f"| `{name}` | {interval(found['success']['mean'], percent=True)} | {interval(less, percent=True) if less else ''} "
            f"| {interval(by) if by else ''} {spl}| {steps} |"
        )
    if study["name"] == "curriculum":  # benchmarks/study_curves.py
        lines += ["", "![Success on validation starts by env steps of training](docs/images/study-curriculum.png)"]
    return lines


def engines_table(data: dict[str, Any]) -> list[str]:
    """Speed of the minecraft world."""
    ready, processor = data["ready_seconds"], data["provenance"]["machine"]["processor"]
    return [
        f"**How fast is the `minecraft` world?** Env steps per second from Python on one core ({processor}), pictures drawn by",
        f"{data['drawn_by']}; a fresh process is ready after {ready['median']:.1f} s (median; at worst {ready['worst']:.1f} s).",
        "",
        "| " + " | ".join(data["steps_per_second"]) + " |",
        "|---" * len(data["steps_per_second"]) + "|",
        "| " + " | ".join(f"{v:.0f}" for v in data["steps_per_second"].values()) + " |",
    ]


def speed_table(data: dict[str, Any]) -> list[str]:
    """Env steps a second."""
    machine = data["provenance"]["machine"]
    lines = [
        f"**How fast?** Imagined env steps per second on {machine['cores']} cores ({machine['processor']}, {data['precision']}), all slots together,",
        f"median; and the share of the {data['matrix_gflops_per_second']:.0f} GF/s at which these cores multiply large matrices in that precision.",
        "",
        "| slots | evaluations per step | compiled | env steps/s | share of the matrix rate |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['slots']} | {r['evaluations']} | {'yes' if r.get('compiled') else 'no'} | {r['env_steps_per_second']:.0f} "
        f"| {100 * r['share_of_matrix_rate']:.0f} % |"
        for r in data["rows"]
    ]
    parts = data["parts_of_a_prediction"]
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts["share_of_time"].items())
    lines += ["", f"A prediction of {parts['slots']} slots on one thread: {shares}."]
    last = data["rows"][-1]
    roof = last["gflops_per_env_step"] / last["gigabytes_per_env_step"] * data["memory_gigabytes_per_second"]
    return [
        *lines,
        "",
        f"These cores copy {data['memory_gigabytes_per_second']:.0f} GB/s. By a count, operation by operation, of what {last['slots']} slots read",
        f"and write, that allows {roof:.0f} GF/s if no cache helped; they reach {last['gflops_per_env_step'] * last['env_steps_per_second']:.0f}.",
        "",
        "![Roofline: operations a second against operations for each byte moved](docs/images/roofline.png)",
    ]


def train_table(data: dict[str, Any]) -> list[str]:
    """Where PPO's time goes."""
    machine = data["provenance"]["machine"]
    shares = data["share_of_time"]
    return [
        f"**How fast is training in it?** {data['what']}: {data['env_steps_per_second']:.0f} env steps/s on {machine['cores']} cores",
        f"({machine['processor']}, {data['precision']}{', compiled' if data['compiled'] else ''}), updates included.",
        "",
        "| " + " | ".join(shares) + " |",
        "|---" * len(shares) + "|",
        "| " + " | ".join(f"{100 * share:.1f} %" for share in shares.values()) + " |",
    ]


def coverage_table(data: dict[str, Any]) -> list[str]:
    """Share of the view that retrieved frames show."""
    lines = [
        "**Does retrieval find the right frames?** Share of the visible surface of the view to predict that the best four of twelve retrieved frames",
        f"show, on the way home of held-out loops ({data['episodes']} worlds each), by the engine's depths.",
        "",
        "| loop | the paper's score | coverage (ours, default) | best four of all | all given frames together |",
        "|---|---|---|---|---|",
    ]
    names = ("score", "coverage", "greedy", "all")
    return lines + [f"| {loop} | " + " | ".join(triple(shown[name]["4"]) for name in names) + " |" for loop, shown in data["shown"].items()]


def surfaces_table(data: dict[str, Any]) -> list[str]:
    """Squared error by what pixels show."""
    words = {
        "another given frame": "another of the given frames",
        "no given frame": "none of the given frames",
        "sky": "sky",
    }
    levels = [name for name in data["rows"][0]["classes"] if name not in words]
    for i, name in enumerate(levels):
        count, size = name.split(" of ")
        frames = ("the best" if count == "1" else f"the best {count}") if i == 0 else f"the next {count}"
        words[name] = f"{frames} retrieved frame{'s' if int(count) > 1 else ''}{', in full' if size == '1/1' else f', in {size} of the tokens'}"
    task = data["rows"][0]["task"]
    rows = [r for r in data["rows"] if r["task"] == task and r["evaluations"] == data["default"]]
    one = {r["where"]: r["classes"] for r in data["rows"] if r["task"] == task and r["evaluations"] == 1}
    lines = [
        f"**Where is the error?** Pixels of the way home of {task} in {data['worlds']} held-out worlds, poses given, by what showed the block face",
        "that they show before (the engine tells): the best of the retrieved frames that did. Shares of all pixels and of the squared error, means",
        f"of worlds; PSNR in dB at {data['default']} evaluations a step, at one, and of the autoencoder.",
        "",
        "| frames | shown by | pixels | squared error | PSNR | with one evaluation | autoencoder |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        for i, (name, found) in enumerate(r["classes"].items()):
            lines.append(
                f"| {r['where'] if i == 0 else ''} | {words[name]} | {100 * found['share_of_pixels'][0]:.1f} % "
                f"| {100 * found['share_of_squared_error'][0]:.1f} % | {found['psnr']:.1f} | {one[r['where']][name]['psnr']:.1f} "
                f"| {found['psnr_autoencoder']:.1f} |"
            )
    pixels = {r["where"]: {name: found["share_of_pixels"][0] for name, found in r["classes"].items()} for r in rows}
    best = pixels["revisits"][levels[0]] / (1 - pixels["revisits"]["sky"])
    held = sum(pixels["elsewhere"][name] for name in levels) / (1 - pixels["elsewhere"]["sky"])
    lines += [
        "",
        f"At revisits {words[levels[0]]}, shows {100 * best:.0f} % of what is solid: those views lack sharpness, not",
        "memory, and frames beyond the best few have little to add. Elsewhere the context shows",
        f"{100 * held:.0f} % of what is solid, yet those pixels come out little",
        "better than what was never seen.",
    ]
    return lines


def render_table(data: dict[str, Any]) -> list[str]:
    """Pictures a second of the embedded world."""
    machine = data["provenance"]["machine"]
    lines = [
        f"**How fast is the embedded world?** Pictures per second on one core ({machine['processor']}), median over worlds and views.",
        "",
        "| " + " | ".join(data["pictures_per_second"]) + " | env steps/s at 64x64 |",
        "|---" * (len(data["pictures_per_second"]) + 1) + "|",
    ]
    shown = [*data["pictures_per_second"].values(), data["steps_per_second_64x64"]]
    return [*lines, "| " + " | ".join(f"{value:.0f}" for value in shown) + " |"]


def evaluations_table(data: dict[str, Any]) -> list[str]:
    """Quality against evaluations."""
    lines = [
        "**How many evaluations of the network does a step need?** Poses given, way home of held-out loops; the difference to the default is",
        "paired by world.",
        "",
        "| loop | evaluations | revisited views | against the default | detail |",
        "|---|---|---|---|---|",
    ]
    for task, rows in data["tasks"].items():
        for i, r in enumerate(rows):
            name = f"{r['evaluations']}{' (default)' if r['evaluations'] == data['default'] else ''}"
            change = "" if r["evaluations"] == data["default"] else triple(r["psnr_revisit_over_default"])
            lines.append(f"| {task if i == 0 else ''} | {name} | {triple(r['psnr_revisit'])} | {change} | {r['detail_kept'][0]:.2f} |")
    return lines


def pose_noise_table(data: dict[str, Any]) -> list[str]:
    """What wrong poses cost."""
    lines = [
        f"**What do wrong poses cost?** {data['task']}, {data['worlds']} held-out worlds: every pose that is told, of past frames and of the next,",
        "has an error of its own with this standard deviation (x and z, or yaw); *dead reckoning* is the model's own motion. PSNR in dB at revisits.",
        "",
        "| error | " + " | ".join(f"`{m['model']}` | cost" for m in data["models"]) + " |",
        "|---" * (1 + 2 * len(data["models"])) + "|",
    ]
    for i, row in enumerate(data["models"][0]["rows"]):
        cells = [f"{triple(m['rows'][i]['psnr_revisit'])} | {triple(m['rows'][i]['cost']) if i else ''}" for m in data["models"]]
        lines.append(f"| {row['poses']} | " + " | ".join(cells) + " |")
    return lines


def thousand_table(data: dict[str, Any]) -> list[str]:
    """Statistics of long rollouts."""
    shown = [0, 1, 4, 9]
    lines = [
        f"**Do a thousand steps hold?** Random walking in {data['worlds']} held-out worlds by the model's own motion, after some real frames. Median",
        "over frames, and in brackets the share of frames within the first and last percentile of real ones (0.98 of real frames are).",
        "",
        "| | real | " + " | ".join(f"steps {100 * i + 1} to {100 * i + 100}" for i in shown) + " |",
        "|---|---|" + "---|" * len(shown),
    ]
    for name, parts in data["imagined_by_hundred_steps"].items():
        cells = [f"{parts[i]['median']:.1f} ({parts[i]['within_real_1_to_99']:.2f})" for i in shown]
        lines.append(f"| {name} | {data['real'][name]['percentiles_1_5_50_95_99'][2]:.1f} | " + " | ".join(cells) + " |")
    return lines


def memory_table(data: dict[str, Any]) -> list[str]:
    """What memory costs."""
    machine, how = data["provenance"]["machine"], ", compiled" if data["compiled"] else ""
    lines = [
        f"**What does memory cost?** One prediction on {machine['torch_threads']} cores ({machine['processor']}{how});",
        "ratios are medians over turns, one prediction of each in every turn.",
        "",
        "| | milliseconds | ratio |",
        "|---|---|---|",
    ]
    lines += [f"| {r['frames']:,} frames in memory, all kept | {r['milliseconds']:.1f} | {r['ratio']:.3f} |" for r in data["by_history"]]
    lines += [
        f"| {r['slots']} at a time, {r['frames']} frames in the context ({r['model']}) | {r['milliseconds']:.1f} | {r['ratio']:.3f} |"
        for r in data["by_context"]
    ]
    return lines


def over_columns(step: dict[str, Any], data: dict[str, Any]) -> str:
    """A difference over all columns.

    Files without the single values took the columns' worlds, which are the same, for different ones: their interval is too narrow. Here it is as wide
    as if the columns always erred together.
    """
    if "psnr_revisit_each" in data:
        return triple(step["all_cells"])
    columns = list(step["psnr_revisit"].values())
    return triple([sum(column[i] for column in columns) / len(columns) for i in range(3)])


def ablation_table(data: dict[str, Any]) -> list[str]:
    """Contexts against ranges."""
    cells, preset = list(data["episodes"]), next(iter(data["trained"].values()))[0]["preset"]
    lines = [
        f"**What does each part of the context bring?** Small models (`{preset}`), equal compute,",
        f"{len(data['seeds'])} seeds each; poses given. PSNR in dB at revisits, {next(iter(data['episodes'].values()))} held-out worlds a column.",
        "",
        "| context | " + " | ".join(cells) + " |",
        "|---" * (1 + len(cells)) + "|",
    ]
    for variant, row in data["table"].items():
        lines.append(f"| `{variant}` | " + " | ".join("{:.1f} [{:.1f}, {:.1f}]".format(*row[cell]["psnr_revisit"]) for cell in cells) + " |")
    steps = [f"`{d['variant']}` over `{d['over']}` {over_columns(d, data)} dB" for d in data["steps_of_the_ladder"]]
    lines += ["", "Paired, over all columns, which show the same worlds: " + "; ".join(steps) + "."]
    others = [
        "`{}` {:.3f} and {:.1f}".format(v, *(sum(row[cell][name][0] for cell in cells) / len(cells) for name in ("ssim", "frechet")))
        for v, row in data["table"].items()
    ]
    lines += [
        "",
        "SSIM of all imagined frames, and their Fréchet distance on latents (less is better), means of the columns: " + "; ".join(others) + ".",
    ]
    return [*lines, "", "![PSNR by imagined step, with 95 % intervals](docs/images/ablation.png)"]


def schedules_table(data: dict[str, Any]) -> list[str]:
    """What a context's tokens are best spent on."""
    counts = {
        "retrieval": "1 newest, 3 retrieved",
        "worldpack": "2 / 4 / 16 frames, 10 of them newest",
        "graded": "1 newest, 12 retrieved: 3 / 2 / 8",
    }
    lines = [
        "**What are the tokens best spent on?** Three contexts of four frames' worth of tokens, trained anew as above: few frames in full; the",
        "paper's counts, 2 / 4 / 16, which `voxel-64` has; and `graded`, 3 / 2 / 8, where the best two of the retrieved frames stay in full, the",
        "next two keep a quarter of their tokens, and the others a sixteenth. PSNR in dB at revisits, means of the columns above;",
        f"{len(data['seeds'])} seeds each, poses given.",
        "",
        "| context | frames | revisited views | over `retrieval`, paired | SSIM | Fréchet distance |",
        "|---|---|---|---|---|---|",
    ]
    over = {d["variant"]: over_columns(d, data) for d in data["steps_of_the_ladder"]}
    for variant, row in data["table"].items():
        mean = {name: sum(cell[name][0] for cell in row.values()) / len(row) for name in ("psnr_revisit", "ssim", "frechet")}
        lines.append(
            f"| `{variant}` | {counts[variant]} | {mean['psnr_revisit']:.2f} | {over.get(variant, '')} | {mean['ssim']:.3f} | {mean['frechet']:.1f} |"
        )
    return lines


WITHOUT_INTERVALS = (
    "speed.json",
    "train.json",
    "render_speed.json",
    "memory.json",
    "thousand_steps.json",
    "minecraft_speed.json",
    "error_by_surface.json",
)

STUDIES = {
    "budget": "budget",
    "budget-loop": "budget-loop",
    "memory": "memory",
    "memory-abca": "memory-abca",
    "curriculum": "curriculum --seeds 0 1 2 3 4 --change 'in=\"real\"' total_steps=4096 eval_every=1024",
    "find": "find",
    "horizon": "horizon --change env.compile=true",
}
FIND = "worldpack compare --task Find --episodes 100 --replays 2 --videos 0 --out runs/compare-find --agents " + " ".join(
    [*(f"runs/study-find/{kind}-{seed}" for kind in ("imagined", "engine") for seed in (0, 1)), "random"]
)
PARTS = (
    (
        "ablation.json",
        "worldpack eval-model --ablate runs/ablation --episodes 12 --out benchmarks/results/ablation.json",
        ablation_table,
    ),
    (
        "ablation-schedules.json",
        "worldpack eval-model --ablate runs/schedules --against retrieval --episodes 12 --out benchmarks/results/ablation-schedules.json",
        schedules_table,
    ),
    (
        "persistence.json",
        "python benchmarks/persistence.py --pictures docs/images/turns.png > benchmarks/results/persistence.json",
        persistence_table,
    ),
    ("walls.json", "python benchmarks/walls.py --pictures docs/images/walls.png > benchmarks/results/walls.json", walls_table),
    ("events.json", "python benchmarks/events.py > benchmarks/results/events.json", events_table),
    ("motion_error.json", "python benchmarks/motion_error.py > benchmarks/results/motion_error.json", motion_table),
    ("pose_noise.json", "python benchmarks/pose_noise.py > benchmarks/results/pose_noise.json", pose_noise_table),
    ("evaluations.json", "python benchmarks/evaluations.py > benchmarks/results/evaluations.json", evaluations_table),
    ("thousand_steps.json", "python benchmarks/thousand_steps.py > benchmarks/results/thousand_steps.json", thousand_table),
    ("retrieval_coverage.json", "python benchmarks/retrieval_coverage.py > benchmarks/results/retrieval_coverage.json", coverage_table),
    ("error_by_surface.json", "python benchmarks/error_by_surface.py > benchmarks/results/error_by_surface.json", surfaces_table),
    ("demo.json", "worldpack demo", demo_table),
    (
        "minecraft_compare.json",
        "worldpack compare --world minecraft --model minecraft-64 --agents runs/minecraft-agent random compass --out runs/minecraft-compare "
        "--task GoTo --nav-range 8 --split test --episodes 60 --num-envs 4 --replays 0 --videos 0",
        minecraft_table,
    ),
    ("agreement.json", "python benchmarks/agreement.py > benchmarks/results/agreement.json", agreement_table),
    (
        "agreement-minecraft.json",
        "python benchmarks/agreement.py --world minecraft --model minecraft-64 --out runs/agreement-minecraft "
        "--picture docs/images/agreement-minecraft.png > benchmarks/results/agreement-minecraft.json",
        agreement_table,
    ),
    ("stops.json", "python benchmarks/stops.py > benchmarks/results/stops.json", stops_table),
    *((f"study-{name}.json", f"worldpack study {flags}", study_table) for name, flags in STUDIES.items()),
    ("compare-find.json", FIND, find_table),
    (
        "speed.json",
        "worldpack bench speed --compile --out benchmarks/results/speed.json --picture docs/images/roofline.png",
        speed_table,
    ),
    ("train.json", "worldpack bench train --compile --out benchmarks/results/train.json", train_table),
    ("memory.json", "worldpack bench memory --compile --threads 1 --out benchmarks/results/memory.json", memory_table),
    ("render_speed.json", "python benchmarks/render_speed.py > benchmarks/results/render_speed.json", render_table),
    ("minecraft_speed.json", "python benchmarks/minecraft_speed.py > benchmarks/results/minecraft_speed.json", engines_table),
)


def main() -> int:
    """Writes or checks."""
    lines = [BEGIN, "", *loops_table()]
    for name, command, table in PARTS:
        if (RESULTS / name).is_file():
            lines += [
                "",
                *table(json.loads((RESULTS / name).read_text())),
                "",
                f"`{command}` → [`{name}`](benchmarks/results/{name}){'' if name in WITHOUT_INTERVALS else ', 95 % intervals'}.",
            ]
    text = (ROOT / "README.md").read_text()
    before, rest = text.split(BEGIN)
    wanted = before + "\n".join([*lines, "", END]) + rest.split(END)[1]
    if "--check" in sys.argv:
        print("README.md is up to date." if wanted == text else "README.md differs from benchmarks/results/.")
        return int(wanted != text)
    (ROOT / "README.md").write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
