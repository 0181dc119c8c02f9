"""Plans a way to a place that only a picture tells of: cross-entropy search over futures that the world model imagines, on forks of one episode.

Usage: python examples/04_plan_with_forks.py

Slot 0 is the episode itself; the other slots are forks of it, in which action sequences are tried. What counts is how much any view on the way
looks like the goal's picture, in the latents of the model's autoencoder. The plan's first actions are played, then it plans again. In the end the
same actions are played in the engine.
"""

import argparse

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import worldpack_env  # noqa: F401 - registers the ids
from worldpack_env import NavVectorEnv, StartBank
from worldpack_model import WorldPack


def unlikeness(model: WorldPack, frames: NDArray[np.uint8], goal: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean square difference ``(n,)`` of frames ``(n, H, W, 3)`` from one goal picture, by latents."""
    difference = model.encode(frames) - model.encode(goal[None])
    return difference.square().mean(dim=(1, 2, 3)).cpu().numpy().astype(np.float64)


def plan(
    envs: NavVectorEnv, model: WorldPack, goal: NDArray[np.uint8], rng: np.random.Generator, *, horizon: int, rounds: int
) -> tuple[list[int], float]:
    """The best sequence of ``horizon`` actions found, up to where it looks most like the goal, and how unlike it still is there."""
    tried, actions = envs.num_envs - 1, int(envs.single_action_space.n)
    chances = np.full((horizon, actions), 1 / actions)
    best, least = [0], np.inf
    for _ in range(rounds):
        envs.fork(0)
        ends = chances.cumsum(axis=1)[None]
        repeat = rng.random((tried, horizon)) < 0.5  # walks go straight on for a while
        choice = (rng.random((tried, horizon, 1)) * ends[..., -1:] > ends).sum(axis=2)
        for t in range(1, horizon):
            choice[:, t] = np.where(repeat[:, t], choice[:, t - 1], choice[:, t])
        here, over = envs.snapshot([0]), np.zeros(envs.num_envs, bool)
        cost = np.full((tried, horizon), np.inf)
        for t in range(horizon):
            observation, _, terminated, truncated, infos = envs.step(np.concatenate([[0], choice[:, t]]))
            frames, last = observation["image"], terminated | truncated
            for slot in np.flatnonzero(last):  # it shows another episode already
                frames[slot] = infos["final_obs"][slot]["image"]
            cost[~over[1:], t] = unlikeness(model, frames[1:][~over[1:]], goal)
            over |= last
            if over[1:].all():
                break
        envs.restore(here, [0])
        elite = np.argsort(cost.min(axis=1))[: max(2, tried // 6)]
        if cost[elite[0]].min() < least:
            least, best = float(cost[elite[0]].min()), choice[elite[0], : int(cost[elite[0]].argmin()) + 1].tolist()
        counts = np.stack([(choice[elite] == a).mean(axis=0) for a in range(actions)], axis=1)
        chances = 0.3 * chances + 0.7 * counts
    return best, least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="voxel-64", help="shipped name or folder of a world model")
    parser.add_argument("--nav-range", type=int, default=5, help="blocks to the goal")
    parser.add_argument("--start", type=int, default=0, help="number of the start")
    parser.add_argument("--slots", type=int, default=32, help="one for the episode, the others for plans")
    parser.add_argument("--horizon", type=int, default=12, help="actions of a plan")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of search for each plan")
    parser.add_argument("--played", type=int, default=4, help="actions of a plan that are played before planning again")
    parser.add_argument("--max-episode-steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    model = WorldPack.from_pretrained(args.model)
    bank = StartBank.from_world("voxel", loop="AB", nav_range=args.nav_range, split="test", size=args.start + 1)
    settings = {"starts": bank, "max_episode_steps": args.max_episode_steps}
    envs = gym.make_vec("WorldPack/GoToImage-v0", num_envs=args.slots, model=model, **settings)
    assert isinstance(envs, NavVectorEnv)
    observation, info = envs.reset(seed=args.seed, options={"start_index": args.start})
    goal, rng, played = observation["goal_image"][0], np.random.default_rng(args.seed), []
    print(f"the goal is {info['distance'][0]:.1f} blocks away")
    ended = False
    while not ended:
        actions, least = plan(envs, model, goal, rng, horizon=min(args.horizon, args.max_episode_steps - len(played)), rounds=args.rounds)
        for action in actions[: args.played]:
            _, _, terminated, truncated, info = envs.step(np.full(args.slots, action))
            played.append(int(action))
            ended = bool((terminated | truncated)[0])
            if ended:
                info = info["final_info"]
                break
        print(f"step {len(played):3}: planned to {least:.2f} of unlikeness, imagined {info['distance'][0]:.1f} blocks from the goal")
    envs.close()

    engine = gym.make("WorldPack/GoToImageReal-v0", **settings)
    engine.reset(seed=args.seed, options={"start_index": args.start})
    for action in played:
        *_, terminated, truncated, facts = engine.step(action)
        if terminated or truncated:
            break
    print(f"the same actions in the engine end {facts['distance']:.1f} blocks from the goal{', reached' if facts['is_success'] else ''}")
    engine.close()
    bank.close()


if __name__ == "__main__":
    main()
