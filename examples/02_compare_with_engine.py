"""Plays one agent from the same starts in imagination and in the engine, in worlds nobody trained in, and prints both.

Usage: python examples/02_compare_with_engine.py --agent agent.zip

Without --agent a random agent plays. For intervals, pictures and a report use `worldpack compare`.
An agent's file is a Stable-Baselines3 zip, and loading one may run code that is in it: load only your own.
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO

import worldpack_env  # noqa: F401 - registers the ids
from worldpack_agents.vec_env import channels_first
from worldpack_env import StartBank


def play(env_id: str, bank: StartBank, agent: PPO | None, *, seed: int, **options: Any) -> tuple[float, float]:
    """Plays one episode from every start, all in one batch; returns success rate and mean SPL."""
    n = len(bank)
    envs = gym.make_vec(env_id, num_envs=n, starts=bank, **options)
    rng = np.random.default_rng(seed)
    observation, _ = envs.reset(seed=seed, options={"start_index": list(range(n))})
    done, success, spl = np.zeros(n, bool), np.zeros(n), np.zeros(n)
    while not done.all():
        actions = rng.integers(4, size=n) if agent is None else agent.predict(channels_first(observation))[0]
        observation, _, terminated, truncated, info = envs.step(actions)
        first = (terminated | truncated) & ~done  # slots that are done play on, but only their first episode counts
        if first.any():
            success[first], spl[first] = info["final_info"]["is_success"][first], info["final_info"]["spl"][first]
        done |= first
    envs.close()
    return float(success.mean()), float(spl.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", help="zip from 01_train_ppo_in_imagination.py")
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder of a world model")
    parser.add_argument("--nav-range", type=int, default=5, help="blocks to the goal")
    parser.add_argument("--starts", type=int, default=16, help="episodes, each in a world of its own")
    parser.add_argument("--max-episode-steps", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    agent = PPO.load(args.agent) if args.agent else None
    bank = StartBank.from_world("voxel", loop="AB", nav_range=args.nav_range, split="test", size=args.starts)
    limit = {} if args.max_episode_steps is None else {"max_episode_steps": args.max_episode_steps}
    print(f"{'':10} success   SPL    ({len(bank)} episodes)")
    for name, env_id, options in (("imagined", "WorldPack/GoTo-v0", {"model": args.model}), ("engine", "WorldPack/GoToReal-v0", {})):
        success, spl = play(env_id, bank, agent, seed=args.seed, **options, **limit)
        print(f"{name:10} {success:7.2f} {spl:7.2f}")
    bank.close()


if __name__ == "__main__":
    main()
