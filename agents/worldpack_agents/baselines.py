"""Agents that learn nothing: what a trained one must beat, what it cannot beat, and a graded scale between.

==================  ================================================================================================================
``random``          draws from the action space
``compass``         turns towards the goal and walks, jumping; sees no picture, so walls and water stop it
``oracle``          walks an A* way over the world's true surface: what can be reached by knowing everything
``compass:0.3``     any of them with 3 in 10 of its actions drawn at random: agents of graded skill, to rank
==================  ================================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldpack_agents.checkpoints import agent_path, load_agent, reference_agents
from worldpack_agents.rollouts import AgentPolicy, Context, Facts, Policy
from worldpack_env.actions import TURN_DEGREES, ActionSet
from worldpack_env.explorers import Script, Style, make_action, walk_to
from worldpack_env.rollout import Observation
from worldpack_env.starts import Start
from worldpack_env.worlds import Surface, World, WorldView, make_world
from worldpack_env.worlds.paths import can_stand, cell_of, nearest_standable
from worldpack_model.checkpoint import CheckpointError
from worldpack_model.geometry import KEYS, forward_vector

_SURFACES_KEPT: Final = 64
_PATIENCE: Final = 3
"""Steps in a row that an oracle is stopped before it goes another way; a jump up a block stops one or two."""
_STEPPED: Final = Style(stepped=True, max_turn=TURN_DEGREES, walk_while_turning=False, jitter=0.0, direction=1)
"""Turns as the discrete action sets do."""


class RandomPolicy(Policy):
    """Actions drawn evenly from the action space, from one generator an episode."""

    name = "random"

    def __init__(self, space: gym.Space[Any]) -> None:
        if not isinstance(space, (gym.spaces.Discrete, gym.spaces.Box)):
            raise ValueError(f"The random policy acts in Discrete and Box spaces, not in {space}; choose action_set nav-4, nav-8 or box.")
        self.space = space
        self._rngs: dict[int, np.random.Generator] = {}

    def begin(self, episode: int, seed: int, start: Start, context: Context) -> None:
        """Seeds the episode's generator."""
        self._rngs[episode] = np.random.default_rng([seed, 17])

    def act(self, observation: Observation, facts: Facts, episodes: Sequence[int]) -> NDArray[Any]:
        """One draw for each episode."""
        if isinstance(self.space, gym.spaces.Discrete):
            return np.array([self._rngs[e].integers(self.space.start, self.space.start + self.space.n) for e in episodes])
        low, high = self.space.low, self.space.high
        return np.stack([self._rngs[e].uniform(low, high).astype(np.float32) for e in episodes])


class CompassPolicy(Policy):
    """Turns until the goal is ahead, then walks and jumps. It asks for ``compass`` or ``vector`` and looks at no picture."""

    name = "compass"

    def __init__(self, action_set: ActionSet) -> None:
        self.action_set = action_set

    def check(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        """Checks that the goal's direction is told.

        Raises:
            ValueError: if it is not.
        """
        told = set(observation.spaces) if isinstance(observation, gym.spaces.Dict) else set()
        if not told & {"compass", "vector"}:
            raise ValueError(
                f"The compass follower needs the goal's direction, the environment tells {sorted(told)}; choose goal_obs compass or vector."
            )

    def act(self, observation: Observation, facts: Facts, episodes: Sequence[int]) -> Any:
        """A turn of at most ``TURN_DEGREES`` towards the goal, or a step ahead with a jump."""
        if "compass" in observation:
            angle = np.asarray(observation["compass"], np.float64).reshape(-1)
        else:
            right, _, ahead = np.asarray(observation["vector"], np.float64).T
            angle = np.degrees(np.arctan2(right, ahead))
        nav = np.stack(
            [make_action(dyaw=float(np.copysign(TURN_DEGREES, a))) if abs(a) > 0.55 * TURN_DEGREES else make_action("forward", "jump") for a in angle]
        )
        return self.action_set.nearest(nav)


class OraclePolicy(Policy):
    """Walks along an A* way over the true surface of the start's world, from where the environment says that the agent stands.

    In imagination that is where the world model believes it to be, and the model's ground may differ from the true one: stopped, it jumps, and a
    column that stops it for ``_PATIENCE`` steps is taken for a wall from then on, and it looks for a way round.
    """

    name = "oracle"
    knows_map = True

    def __init__(self, action_set: ActionSet, *, factory: Callable[[str], World] = make_world) -> None:
        """Makes the policy.

        Args:
            action_set: what it may do.
            factory: makes an engine of a name, which is asked for surfaces.
        """
        self.action_set, self._factory = action_set, factory
        self._world: World | None = None
        self._surfaces: dict[tuple[str, int], Surface] = {}
        self._goals: dict[int, tuple[Start, Surface, np.random.Generator]] = {}
        self._scripts: dict[int, tuple[int, Script]] = {}
        self._stopped: dict[int, int] = {}  # steps in a row, by episode

    def begin(self, episode: int, seed: int, start: Start, context: Context) -> None:
        """Looks up the ground of the start's world."""
        self._goals[episode] = (start, self._surface(start.world, start.seed), np.random.default_rng([seed, 31]))
        self._scripts.pop(episode, None)
        self._stopped[episode] = 0

    def act(self, observation: Observation, facts: Facts, episodes: Sequence[int]) -> Any:
        """The next step of each episode's way to its current goal."""
        steps = np.stack([self._next(facts, row, episode) for row, episode in enumerate(episodes)])
        steps[facts["blocked"] & (steps[:, KEYS.index("forward")] > 0), KEYS.index("jump")] = 1.0
        return self.action_set.nearest(steps)

    def _next(self, facts: Facts, row: int, episode: int) -> NDArray[np.float32]:
        view = WorldView(np.zeros((0, 0, 3), np.uint8), facts["pose"][row], bool(facts["blocked"][row]))
        self._notice(view, episode)
        start, surface, rng = self._goals[episode]
        subgoal = int(facts["subgoal"][row])
        running = self._scripts.get(episode)
        if running is not None and running[0] == subgoal:
            try:
                return running[1].send(view)
            except StopIteration:  # it gave up: plan again from here
                pass
        goal = nearest_standable(surface, start.waypoints[min(subgoal + 1, len(start.waypoints) - 1)])
        if goal is not None:
            script = walk_to(view, surface, goal, _STEPPED, rng)
            try:
                first = next(script)
            except StopIteration:
                self._goals[episode] = (start, self._surface(start.world, start.seed), rng)  # no way from here, or not any more
            else:
                self._scripts[episode] = (subgoal, script)
                return first
        return make_action("forward", "jump", dyaw=float(rng.choice([-TURN_DEGREES, TURN_DEGREES])))

    def _notice(self, view: WorldView, episode: int) -> None:
        """Takes what stops the agent for a wall of this episode."""
        self._stopped[episode] = self._stopped[episode] + 1 if view.blocked else 0
        if self._stopped[episode] < _PATIENCE:
            return
        self._stopped[episode] = 0
        start, surface, rng = self._goals[episode]
        here, ahead = cell_of(surface, view.pose), cell_of(surface, view.pose[:3] + forward_vector(view.pose[3]))
        if can_stand(surface, ahead) and ahead != here:
            walkable = surface.walkable.copy()
            walkable[ahead] = False
            self._goals[episode] = (start, surface._replace(walkable=walkable), rng)
            self._scripts.pop(episode, None)

    def _surface(self, world: str, seed: int) -> Surface:
        if (world, seed) not in self._surfaces:
            if self._world is None or self._world.name != world:
                self.close()
                self._world = self._factory(world)
            self._world.reset(seed)
            if len(self._surfaces) >= _SURFACES_KEPT:
                self._surfaces.pop(next(iter(self._surfaces)))
            self._surfaces[world, seed] = self._world.surface()
        return self._surfaces[world, seed]

    def close(self) -> None:
        """Frees the engine."""
        if self._world is not None:
            self._world.close()
            self._world = None


class Clumsy(Policy):
    """Another policy, a share of whose actions is drawn at random instead."""

    def __init__(self, policy: Policy, share: float, space: gym.Space[Any]) -> None:
        """Makes the policy.

        Args:
            policy: acts the rest of the time; it is asked in every step, so that its own state goes on.
            share: of the actions, 0 to 1.
            space: one action's.

        Raises:
            ValueError: if the share is no share.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"The share of random actions is {share}, expected 0 to 1.")
        self.policy, self.share, self.name, self.knows_map = policy, share, f"{policy.name}:{share:g}", policy.knows_map
        self._random = RandomPolicy(space)
        self._rngs: dict[int, np.random.Generator] = {}

    def check(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        """As the policy checks."""
        self.policy.check(observation, action)

    def begin(self, episode: int, seed: int, start: Start, context: Context) -> None:
        """Begins both."""
        self.policy.begin(episode, seed, start, context)
        self._random.begin(episode, seed, start, context)
        self._rngs[episode] = np.random.default_rng([seed, 37])

    def act(self, observation: Observation, facts: Facts, episodes: Sequence[int]) -> Any:
        """The policy's actions, some of them replaced."""
        meant, drawn = np.array(self.policy.act(observation, facts, episodes)), self._random.act(observation, facts, episodes)
        slips = [self._rngs[e].random() < self.share for e in episodes]
        meant[slips] = drawn[slips]
        return meant

    def close(self) -> None:
        """Closes the policy."""
        self.policy.close()


BASELINES: Final[dict[str, Callable[[ActionSet], Policy]]] = {
    "random": lambda action_set: RandomPolicy(action_set.space),
    "compass": CompassPolicy,
    "oracle": OraclePolicy,
}
"""Name -> maker of every agent that learns nothing."""
LADDER: Final = ("random", "compass:0.9", "compass:0.8", "compass:0.6", "compass:0.3", "compass", "oracle:0.5", "oracle")
"""Agents of graded skill that learn nothing: a scale to see whether imagination ranks as the engine does."""


def baseline_of(source: str) -> tuple[str, float] | None:
    """The baseline and share of random actions that ``source`` names (``compass``, ``oracle:0.3``), None where it is a path.

    Raises:
        ValueError: if what follows the colon is no number.
    """
    name, colon, share = source.partition(":")
    if name not in BASELINES:
        return None
    try:
        return name, float(share) if colon else 0.0
    except ValueError:
        raise ValueError(f"Agent {source!r}: after the colon comes the share of random actions, such as {name}:0.3, not {share!r}.") from None


def open_policy(source: str, action_set: ActionSet, *, name: str | None = None, deterministic: bool = False, trust: bool = False) -> Policy:
    """The policy that a command line names: a baseline, or the run folder, checkpoint or zip of a trained agent.

    Args:
        source: see the module's table, or a path.
        action_set: the environment's.
        name: what a trained agent is called.
        deterministic: a trained agent takes the likeliest action instead of drawing one (see ``AgentPolicy``).
        trust: allow to unpickle a policy zip that is not part of a run folder.

    Raises:
        CheckpointError: if there is no such agent.
        ValueError: if it does not fit the action set.
    """
    baseline = baseline_of(source)
    if baseline is None:
        if not agent_path(source).exists():
            raise CheckpointError(
                f"There is no agent {source!r}: it is no run folder or policy zip, none of the reference agents "
                f"({', '.join(reference_agents())}) and none of those that learn nothing ({', '.join(BASELINES)}); give one of those."
            )
        return AgentPolicy(load_agent(source, trust=trust), name=name or "agent", deterministic=deterministic)
    kind, share = baseline
    policy = BASELINES[kind](action_set)
    return policy if share == 0 else Clumsy(policy, share, action_set.space)
