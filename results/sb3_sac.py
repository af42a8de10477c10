"""Train Stable-Baselines3's SAC on HalfCheetah-v5, for comparison with sac_halfcheetah.

    pip install -r requirements-peers.txt
    python results/sb3_sac.py --seed 1

Both use the same settings: networks with 2 x 256 ReLU units, 5000 random env steps, then one update
with a batch of 256 per env step, discount 0.99, target update rate 0.005, learning rate 3e-4, and a
temperature that starts at 1 and is tuned to the target entropy -A. Every 5000 env steps, the mode
of the policy is evaluated over five episodes. The script writes
results/sac/sb3_halfcheetah_seedN.csv and .json.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import time
from pathlib import Path

import gymnasium as gym
from stable_baselines3 import SAC, __version__
from stable_baselines3.common.evaluation import evaluate_policy

from cs285.infrastructure.provenance import describe_command

EVERY, EPISODES = 5000, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="random seed")
    parser.add_argument("--env_steps", type=int, default=100_000, help="env steps to train for")
    arguments = parser.parse_args()
    agent = SAC(
        "MlpPolicy",
        gym.make("HalfCheetah-v5"),
        policy_kwargs={"net_arch": [256, 256]},
        learning_starts=5000,
        batch_size=256,
        gamma=0.99,
        tau=0.005,
        learning_rate=3e-4,
        ent_coef="auto",
        target_entropy=-6.0,
        seed=arguments.seed,
        device="cpu",
    )
    eval_env = gym.make("HalfCheetah-v5")
    eval_env.reset(seed=1000 + arguments.seed)
    rows, start = [], time.monotonic()
    for _ in range(arguments.env_steps // EVERY):
        agent.learn(EVERY, reset_num_timesteps=False)
        mean, std = evaluate_policy(agent, eval_env, EPISODES, warn=False)
        rows.append([agent.num_timesteps, mean, std])
        print(f"{agent.num_timesteps} env steps: evaluation return {mean:.1f}", flush=True)
    target = Path(__file__).parent / "sac" / f"sb3_halfcheetah_seed{arguments.seed}"
    target.parent.mkdir(exist_ok=True)
    with target.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["Train_EnvstepsSoFar", "Eval_AverageReturn", "Eval_StdReturn"])
        writer.writerows(rows)
    description = {"script": "results/sb3_sac.py", "flags": vars(arguments), **describe_command()}
    description["command"] = shlex.join(description["command"])
    description["versions"]["stable-baselines3"] = __version__
    description["run"] = {
        "env_steps": agent.num_timesteps,
        "seconds": round(time.monotonic() - start, 1),
    }
    target.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
