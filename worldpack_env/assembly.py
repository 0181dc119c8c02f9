"""Joins simulator, task and starts by the names and numbers users choose them by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Literal, TypedDict

from typing_extensions import Unpack

from worldpack_env.actions import ActionSet, make_action_set
from worldpack_env.goals import GOAL_OBS
from worldpack_env.rollout import Rollout
from worldpack_env.simulator import Simulator
from worldpack_env.starts import StartBank, StartMode
from worldpack_env.tasks import NAVIGATE_STEPS, Task, make_task
from worldpack_model.config import Precision, lookup
from worldpack_model.motion import Choice

if TYPE_CHECKING:
    import torch

    from worldpack_model import WorldPack
    from worldpack_model.events import EventHeads


class NavOptions(TypedDict, total=False):
    """Keyword arguments of every registered id, of ``make_nav_env`` and ``make_nav_vector_env``.

    The real ids take the same ones, so that changing the id is all it needs; ``model``, ``precision``, ``evaluations``, ``motion``, ``compile``,
    ``heads`` and ``real_slots`` mean nothing there, and ``device`` only where tensors are asked for.
    """

    task: Literal["loop", "goto", "explore", "find", "navigate", "navigate-dense"]
    """``loop`` (A -> B -> A or A -> B -> C -> A), ``goto`` (A -> B), ``explore`` (no goal), ``find`` (something of a kind), or MineRL's own
    ``navigate`` or ``navigate-dense``, which only its engine can show. Set by the id."""
    real: bool
    """False: imagined by the world model. True: the engine itself. Set by the id."""
    real_slots: int
    """Of the imagined ids: so many of the slots, the last ones, are the engine itself, to train on both. Default 0."""
    world: str
    """Engine of the starts, and of the real environment. Default ``voxel``; of the Navigate ids, ``minerl``."""
    model: str | PathLike[str] | WorldPack
    """Name of a shipped model, path of a checkpoint, or a loaded model. Default ``voxel-64``."""
    loop: Literal["ABA", "ABCA"]
    """Which loop (LoopNav ids only). Default ``ABA``."""
    event: str
    """What to find (Find ids only): ``log`` (default) is a tree within reach in the middle of the view, ``concrete`` a landmark's coloured block."""
    heads: str | PathLike[str] | EventHeads | None
    """Who tells that in imagined frames: what ``worldpack train-events`` wrote, or shipped event heads; None takes those of the engine's name."""
    nav_range: int
    """LoopNav's range in blocks: how far the goals are. Default 15."""
    start: StartMode
    """``spawn`` walks every leg; ``turn`` begins at the turn, with the way out as memory. Default ``spawn``."""
    distractors: int
    """Env steps of a detour between the way out and the way home (``turn`` alone): remembered, and of no use. Default 0."""
    goal_obs: Literal["compass", "vector", "image", "none"] | None
    """What the agent is told about its goal; None takes the id's own: ``image`` for GoToImage, ``none`` for Explore and Find, else
    ``compass``."""
    action_set: Literal["nav-4", "nav-8", "box", "minerl"]
    """What the agent may do. Default ``nav-4``."""
    max_episode_steps: int | None
    """Env steps until truncation; None takes ``tasks.default_step_limit`` of each start. (``gym.make`` keeps it to itself, see ``make_nav_env``.)"""
    device: str
    """Where to load the model: ``auto``, ``cpu``, ``cuda``. Default ``auto``."""
    precision: Precision
    """Of the world model's arithmetic. Default ``auto``: bfloat16 where the device has units for it, which is faster and not bit for bit the same."""
    split: Literal["train", "val", "test"]
    """Which world seeds the starts come from. Default ``train``."""
    num_starts: int
    """Number of starts. Default 64."""
    starts: StartBank | None
    """A bank to use instead; then ``world``, ``nav_range``, ``start``, ``distractors``, ``split`` and ``num_starts`` are the bank's."""
    evaluations: int | None
    """Network evaluations per env step; None takes the model's default."""
    compile: bool
    """Compile the world model for this number of slots: steps are faster on a processor (``worldpack bench speed --compile``), the first one takes
    two minutes (later processes find it on disk). Needs a C++ compiler. Default False."""
    motion: Choice
    """How an imagined body moves where the model is not sure: ``drawn`` (default), once for each place of an episode, or ``likeliest``."""
    output: Literal["numpy", "torch"]
    """``torch``: observations are tensors on the model's device, where imagined frames are made (the real environment's are copied there; without a
    model, ``device`` says where). Rewards, flags and infos are NumPy in any case. Default ``numpy``, which Gymnasium's spaces and SB3 know."""
    frame_size: tuple[int, int]
    """(height, width) of the real environment's frames, 64 x 64 by default; the imagined one has its model's."""


def assemble(num_slots: int, *, keep_history: bool = False, **options: Unpack[NavOptions]) -> tuple[Rollout, ActionSet]:
    """Makes a rollout of ``num_slots`` and its action set.

    Args:
        num_slots: episodes at a time.
        keep_history: keep what pictures need.
        **options: see :class:`NavOptions`.

    Raises:
        ValueError: if an option is not one there is, or two do not fit.
    """
    # Everything cheap is checked before a model is loaded.
    for name in options:
        lookup(dict.fromkeys(NavOptions.__annotations__), name, "option")
    bank = options.get("starts")
    task = make_task(
        options.get("task", "loop"), loop=options.get("loop", "ABA"), event=options.get("event", "log"), shorter=bank is not None and bank.mixed
    )
    action_set = make_action_set(options.get("action_set", "nav-4"))
    goal_obs = options.get("goal_obs")
    if goal_obs is not None:
        lookup(dict(GOAL_OBS), goal_obs, "goal observation")
    tensors = lookup({"numpy": False, "torch": True}, options.get("output", "numpy"), "output")
    world = bank.world if bank is not None else options.get("world", "voxel" if task.mission is None else "minerl")
    if task.mission is not None and not options.get("real", False):
        raise ValueError(f"The task {task.name!r} is a mission of MineRL's own, which nothing else can show; use WorldPack/NavigateReal-v0.")
    simulator: Simulator
    device: torch.device | None = None
    if options.get("real", False):
        from worldpack_env.reality import Reality

        size = options.get("frame_size", (64, 64) if bank is None else bank.frame_size)
        if tensors:
            from worldpack_model.checkpoint import resolve_device

            device = resolve_device(options.get("device", "auto"))
        simulator = Reality(world, num_slots, frame_size=size, mission=task.mission, event=task.event)
    else:
        from worldpack_env.imagination import Imagination, load_heads, load_world_model

        heads = None if task.event is None else load_heads(options.get("heads") or world.partition("@")[0], device=options.get("device", "auto"))
        model = load_world_model(options.get("model", "voxel-64"), device=options.get("device", "auto"), precision=options.get("precision", "auto"))
        engines = options.get("real_slots", 0)
        if not 0 <= engines < num_slots:
            raise ValueError(f"real_slots is {engines}, expected 0 to {num_slots - 1}: fewer than the {num_slots} slots.")
        if engines and tensors:
            raise ValueError("real_slots show arrays; make the environment with output='numpy'.")
        simulator = Imagination(
            model,
            num_slots - engines,
            evaluations=options.get("evaluations"),
            motion=options.get("motion", "drawn"),
            on_device=tensors,
            event=task.event,
            heads=heads,
        )
        if options.get("compile", False):
            model.compile_for(num_slots - engines)
        if engines:
            from worldpack_env.mixture import Mixture
            from worldpack_env.reality import Reality

            simulator = Mixture([simulator, Reality(world, engines, frame_size=simulator.frame_size, event=task.event)])
        device = model.device if tensors else None
    with closing_on_error(simulator):
        return _rollout(simulator, task, world, device, options, keep_history=keep_history), action_set


@contextmanager
def closing_on_error(held: Simulator | Rollout) -> Iterator[None]:
    """Closes what is held if the block ends with an error: engines may be processes, and none stays behind."""
    try:
        yield
    except BaseException:
        held.close()
        raise


def _rollout(simulator: Simulator, task: Task, world: str, device: torch.device | None, options: NavOptions, *, keep_history: bool) -> Rollout:
    """A rollout on the given starts, or on those of ``world`` that the options ask for."""
    bank, limit = options.get("starts"), options.get("max_episode_steps")
    owns_bank = bank is None
    if task.mission is not None:
        limit = NAVIGATE_STEPS if limit is None else limit
        bank = bank or StartBank.from_spawns(
            world, split=options.get("split", "train"), size=options.get("num_starts", 64), frame_size=simulator.frame_size
        )
    elif bank is None:
        bank = StartBank.from_world(
            world,
            loop=task.loop,
            nav_range=options.get("nav_range", 15),
            mode=options.get("start", "spawn"),
            distractors=options.get("distractors", 0),
            split=options.get("split", "train"),
            size=options.get("num_starts", 64),
            frame_size=simulator.frame_size,
        )
    return Rollout(
        simulator,
        task,
        bank,
        goal_obs=options.get("goal_obs"),
        max_episode_steps=limit,
        keep_history=keep_history,
        owns_bank=owns_bank,
        device=device,
    )
