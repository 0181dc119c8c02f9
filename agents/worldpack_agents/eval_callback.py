"""Evaluation while an agent learns: on held-out starts of the task itself, in the engine and in imagination, and the best agent so far is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from worldpack_agents.callbacks import StopOnSignal, cut_curve, save_policy
from worldpack_agents.checkpoints import BEST, LoadedAgent, newest_checkpoint, write_checkpoint
from worldpack_agents.env_config import EnvConfig, Where
from worldpack_agents.evaluate import summarise
from worldpack_agents.figures import gif
from worldpack_agents.rollouts import AgentPolicy, Played, open_rollout, play
from worldpack_env.actions import ActionSet
from worldpack_env.rollout import Rollout

FILE = "evaluation.jsonl"


class EvalCallback(BaseCallback):
    """Every so many env steps, plays the agent (with drawn actions, as it trains) and appends a line for each place to ``evaluation.jsonl``.

    Training is the same with and without it: the episodes have environments and sources of chance of their own. The agent with the most success in
    the first place (of equals the one with the greater return) is kept in ``best/``.
    """

    def __init__(
        self,
        run: Path,
        env: EnvConfig,
        where: Sequence[Where],
        *,
        every: int,
        episodes: int,
        recurrent: bool,
        warm_up: bool,
        from_step: int,
        stop: StopOnSignal,
        videos: int = 0,
        model: Any = None,
    ) -> None:
        """Prepares the callback.

        Args:
            run: the run folder.
            env: the task; its starts are taken from the validation split.
            where: ``real``, ``imagined``, or both.
            every: env steps between evaluations.
            episodes: how many starts are played.
            recurrent: whether the policy carries a state.
            warm_up: whether that begins after the frames before an episode.
            from_step: where training goes on; later lines are dropped, they will be made again.
            stop: asks for a stop, after which nothing is evaluated any more.
            videos: how many of the episodes TensorBoard shows, as pictures that move.
            model: a loaded ``WorldPack`` to imagine with, None loads the task's.
        """
        super().__init__()
        self._run, self._where, self._every, self._episodes, self._recurrent = run, tuple(where), every, episodes, recurrent
        self._warm_up, self._videos, self._stop = warm_up, videos, stop
        self._env, self._model, self._last = env.with_split("val", num_starts=episodes), model, from_step
        self._open: dict[Where, tuple[Rollout, ActionSet]] = {}
        cut_curve(run / FILE, from_step)
        kept = newest_checkpoint(run, BEST)
        # also one from beyond the step where training goes on: that policy is there, and this is what it reached
        comparable = kept is not None and kept[1]["in"] == self._where[0]
        self._best = (kept[1]["success"], kept[1]["return"]) if kept is not None and comparable else (-1.0, 0.0)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if steps // self._every > self._last // self._every:
            self._evaluate(steps)

    def _on_training_end(self) -> None:
        # who asks for a stop may not wait: what was learned is saved at once, and evaluated where the run goes on
        if self.model.num_timesteps > self._last and self._stop.asked is None:
            self._evaluate(self.model.num_timesteps)
        for rollout, _ in self._open.values():
            rollout.close()
        self._open.clear()

    def _evaluate(self, steps: int) -> None:
        self._last = steps
        policy = self.model.policy
        training = policy.training
        policy.set_training_mode(False)
        results = {}
        for where in self._where:
            rollout, actions = self._rollout(where)
            learner = LoadedAgent(policy, self._recurrent, source=str(self._run), steps=steps, digest="", warm_up=self._warm_up)
            agent = AgentPolicy(learner)
            played = play(rollout, actions, agent, range(self._episodes), seed=0, keep_frames=self._videos)
            results[where] = summarise(played)
            self._show(where, played[: self._videos], steps)
        policy.set_training_mode(training)
        scores = [key for key in ("success", "return", "spl") if key in results[self._where[0]]]
        with (self._run / FILE).open("a") as file:
            for where, result in results.items():
                line: dict[str, Any] = {"step": steps, "in": where, "length": result["steps"]} | {key: result[key] for key in scores}
                file.write(json.dumps(line) + "\n")
                for key in scores:
                    self.logger.record(f"eval/{where}_{key}", result[key]["mean"])
        first = results[self._where[0]]
        score = (first["success"]["mean"], first["return"]["mean"])
        if score > self._best:
            self._best = score
            about = {"in": self._where[0], "success": score[0], "return": score[1]}
            write_checkpoint(self._run, steps, partial(save_policy, self.model), about, keep=1, into=BEST)

    def _show(self, where: Where, episodes: Sequence[Played], steps: int) -> None:
        """Hands episodes to TensorBoard; Stable-Baselines3's own ``Video`` would need moviepy for it."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for written in self.logger.output_formats:
            if isinstance(written, TensorBoardOutputFormat):
                for number, episode in enumerate(episodes):
                    assert episode.frames is not None
                    height, width = episode.frames.shape[1:3]
                    image = Summary.Image(height=2 * height, width=2 * width, colorspace=3, encoded_image_string=gif(episode.frames, scale=2))
                    value = Summary.Value(tag=f"eval/{where}_episode_{number}", image=image)
                    cast(Any, written.writer)._get_file_writer().add_summary(Summary(value=[value]), steps)

    def _rollout(self, where: Where) -> tuple[Rollout, ActionSet]:
        if where not in self._open:
            bank = next((rollout.bank for rollout, _ in self._open.values()), None)
            model = self._model if where == "imagined" else None
            self._open[where] = open_rollout(self._env, where, min(16, self._episodes), starts=bank, model=model)
        return self._open[where]
