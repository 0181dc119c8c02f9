"""Which task in which world: one description that opens both the imagined and the real environment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import gymnasium as gym

Where = Literal["imagined", "real"]
Autoreset = Literal["same-step", "next-step", "disabled"]

TASKS: Final = {"GoTo": "goto", "GoToImage": "goto", "LoopNav": "loop", "Explore": "explore", "Find": "find"}
"""Name of an environment's id -> the task that it sets."""


@dataclass(frozen=True)
class EnvConfig:
    """A navigation task."""

    task: Literal["GoTo", "GoToImage", "LoopNav", "Explore", "Find"] = "GoTo"
    """GoTo: reach one goal. GoToImage: the same, told by a picture. LoopNav: visit goals in order and come back. Explore: see new ground. Find: look
    at something of a kind from within reach."""
    world: str = "voxel"
    """Engine that starts, goals and the truth come from."""
    model: str = "voxel-64"
    """World model for imagination: a shipped name or the folder of a trained one."""
    loop: Literal["ABA", "ABCA"] = "ABA"
    """Loop of LoopNav."""
    event: str = "log"
    """What to Find: log is a tree, concrete a landmark's coloured block."""
    heads: str | None = None
    """Who tells that in imagined frames: the folder that `worldpack train-events` wrote, or shipped event heads; None takes those of the engine's
    name."""
    nav_range: int = 15
    """Greatest distance to a goal, in blocks (at least 3)."""
    start: Literal["spawn", "turn"] = "spawn"
    """spawn: walk every leg. turn: the way out is given as memory, walk home."""
    distractors: int = 0
    """turn: steps of a detour between the way out and the way home, remembered and of no use."""
    goal_obs: Literal["auto", "compass", "vector", "image", "none"] = "auto"
    """How the goal is shown to the agent; auto is the task's own: image for GoToImage, none for Explore and Find, compass for the
    others."""
    action_set: Literal["nav-4", "nav-8", "box"] = "nav-4"
    """Actions of the agent."""
    frame_size: tuple[int, int] | None = None
    """(height, width) of the engine's frames, in pixels; None takes those of the world model's, so that an agent can act in both."""
    max_episode_steps: int | None = None
    """Steps after which an episode is cut; None takes the task's default for the range."""
    split: Literal["train", "val", "test"] = "train"
    """Which world seeds the starts come from; no world of one split is in another."""
    num_starts: int = 64
    """How many different starts there are."""
    evaluations: int | None = None
    """Network evaluations for each imagined step; None takes the model's default."""
    motion: Literal["drawn", "likeliest"] = "drawn"
    """How an imagined body moves where the model is not sure: drawn by its probability, once for each place of an episode, or always as it most
    probably would."""
    compile: bool = False
    """Compile the world model: faster steps, after two minutes at the first start on a machine. Needs a C++ compiler."""
    device: str = "auto"
    """Where the world model runs: auto, cpu or cuda."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the world model's arithmetic; auto takes bfloat16 where the device has units for it."""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: if one is out of bounds; the message names it.
        """
        if self.task not in TASKS:
            raise ValueError(f"There is no task {self.task!r}; known: {', '.join(TASKS)}.")
        if self.nav_range < 3:
            raise ValueError(f"nav_range must be at least 3 blocks, not {self.nav_range}.")
        if self.distractors < 0 or (self.distractors and self.start != "turn"):
            raise ValueError(f"distractors must be at least 0, and need start 'turn', not {self.distractors} with start {self.start!r}.")
        if self.num_starts < 1:
            raise ValueError(f"num_starts must be at least 1, not {self.num_starts}.")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1 or None, not {self.max_episode_steps}.")

    def settled(self) -> EnvConfig:
        """The same with the goal shown in a way that is told: ``auto`` stays until then, so that another task can be set."""
        own: dict[str, Any] = {"GoToImage": "image", "Explore": "none", "Find": "none"}
        return self if self.goal_obs != "auto" else replace(self, goal_obs=own.get(self.task, "compass"))

    def engine_frames(self) -> tuple[int, int]:
        """(height, width) of the engine's frames.

        Raises:
            CheckpointError: if the world model that tells them is not there.
        """
        from worldpack_model.checkpoint import find_model, read_config

        return self.frame_size if self.frame_size is not None else read_config(find_model(self.model)).frame_size

    def with_split(self, split: Literal["train", "val", "test"], *, num_starts: int | None = None) -> EnvConfig:
        """The same task on starts of another split."""
        return replace(self, split=split, num_starts=self.num_starts if num_starts is None else num_starts)


def make_envs(
    config: EnvConfig,
    where: Where,
    *,
    num_envs: int,
    starts: Any = None,
    model: Any = None,
    autoreset: Autoreset = "same-step",
    render_mode: str | None = None,
    real_envs: int = 0,
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Opens a batch of environments.

    Args:
        config: the task.
        where: ``imagined`` (the world model) or ``real`` (the engine).
        num_envs: how many slots.
        starts: a ``StartBank`` to share between environments; None makes the config's own.
        model: a loaded ``WorldPack`` to share; None loads the config's.
        autoreset: what happens when an episode ends.
        render_mode: ``rgb_array`` or None.
        real_envs: of imagined environments: so many of the slots are the engine.

    Raises:
        ValueError: if a setting is unknown to the environment.
        BackendUnavailable: if the engine cannot run here.
    """
    import gymnasium as gym

    import worldpack_env  # noqa: F401 - registers the ids

    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, not {num_envs}.")
    kwargs = {k: v for k, v in asdict(config.settled()).items() if k not in ("task", "frame_size")}
    if config.task != "LoopNav":
        kwargs.pop("loop")
    steps = kwargs.pop("max_episode_steps")
    if steps is not None:
        kwargs["max_episode_steps"] = steps
    if where == "real":
        for name in ("model", "evaluations", "motion", "compile", "device", "precision"):
            kwargs.pop(name)
        if starts is None:
            kwargs["frame_size"] = config.engine_frames()
    else:
        kwargs["real_slots"] = real_envs
        if model is not None:
            kwargs["model"] = model
    return gym.make_vec(
        f"WorldPack/{config.task}{'Real' if where == 'real' else ''}-v0",
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        starts=starts,
        autoreset_mode={"same-step": "SameStep", "next-step": "NextStep", "disabled": "Disabled"}[autoreset],
        render_mode=render_mode,
        **kwargs,
    )
