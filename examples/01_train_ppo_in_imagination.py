"""Trains a PPO agent on frames that the world model imagines: no engine runs while it learns.

Usage: python examples/01_train_ppo_in_imagination.py --steps 50000 --out agent.zip
"""

import argparse

import gymnasium as gym
from stable_baselines3 import PPO

import worldpack_env  # registers the ids
from worldpack_agents import SB3VecEnv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder of a world model")
    parser.add_argument("--env", default="WorldPack/GoTo-v0", choices=worldpack_env.IDS)
    parser.add_argument("--nav-range", type=int, default=5, help="blocks to the goal")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--num-starts", type=int, default=64, help="different worlds to start in")
    parser.add_argument("--steps", type=int, default=50_000, help="env steps, all slots together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="agent.zip")
    args = parser.parse_args()

    envs = gym.make_vec(args.env, num_envs=args.num_envs, model=args.model, nav_range=args.nav_range, num_starts=args.num_starts)
    rollout = min(64, max(2, args.steps // args.num_envs))
    agent = PPO("MultiInputPolicy", SB3VecEnv(envs), n_steps=rollout, batch_size=min(256, rollout * args.num_envs), seed=args.seed, verbose=1)
    agent.learn(args.steps)
    agent.save(args.out)
    envs.close()
    print(f"saved {args.out}")


if __name__ == "__main__":
    main()
