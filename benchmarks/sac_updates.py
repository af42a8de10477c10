"""SAC updates per second: this repository, Stable-Baselines3, SBX and the homework-style learner.

Run `python -m benchmarks.sac_updates` on an idle machine. First install the peer libraries with
`pip install -r requirements-peers.txt`.

All contenders use the observation and action dimensions of cheetah and the same network and batch
sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from benchmarks.reference.homework_sac import HomeworkSAC
from benchmarks.timing import Contender, both_ways, write

OB_DIM, AC_DIM, SIZE, BATCH, UPDATES, ROWS = 21, 6, 256, 256, 200, 10_000
BASELINE = "Stable-Baselines3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds")
    arguments = parser.parse_args()
    contenders: dict[str, Contender] = {
        BASELINE: stable_baselines3,
        "here": ours,
        "SBX (JAX)": sbx,
        "homework-style": homework,
        "here, --compile": partial(ours, compile=True),
    }
    if torch.cuda.is_available():
        contenders["here, GPU"] = partial(ours, "cuda")
        contenders["here, GPU, --compile"] = partial(ours, "cuda", compile=True)
    content = {
        "shape": f"O {OB_DIM} A {AC_DIM}, 2x{SIZE} ReLU, batch {BATCH}, "
        f"{UPDATES} updates per round",
        "unit": "updates per second (both Q networks, policy, temperature and target networks), "
        "including sampling the batch",
        "torch_threads": torch.get_num_threads(),
        **both_ways("updates", contenders, arguments.repeats, BASELINE),
    }
    write("sac_updates", content)


def ours(device: str = "cpu", compile: bool = False) -> Callable[[], int]:
    from cs285.agents.sac_agent import SACAgent
    from cs285.config.sac import SACConfig
    from cs285.envs import TaskSpec
    from cs285.infrastructure.replay_buffer import Transitions

    ones = np.ones(AC_DIM, np.float32)
    task = TaskSpec(OB_DIM, AC_DIM, -ones, ones, None, 1000)
    agent = SACAgent(
        task, SACConfig(sac_size=SIZE, sac_n_iter=UPDATES), 1, torch.device(device), compile
    )
    agent.replay_buffer.add(
        Transitions(
            torch.randn(ROWS, OB_DIM),
            torch.rand(ROWS, AC_DIM) * 2 - 1,
            torch.randn(ROWS),
            torch.randn(ROWS, OB_DIM),
            torch.zeros(ROWS, dtype=torch.bool),
        )
    )

    def work() -> int:
        agent.train(0)["Critic Loss"].item()  # wait for the GPU
        return UPDATES

    return work


class _Noise(gym.Env):
    """A cheap environment that fills the replay buffer of a peer library."""

    observation_space = spaces.Box(-np.inf, np.inf, (OB_DIM,), np.float32)
    action_space = spaces.Box(-1, 1, (AC_DIM,), np.float32)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict]:
        super().reset(**options)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.observation_space.sample(), float(action[0]), False, False, {}


PEER_SETTINGS: dict[str, Any] = {
    "policy_kwargs": {"net_arch": [SIZE, SIZE]},
    "learning_starts": ROWS,
    "batch_size": BATCH,
    "gamma": 0.99,
    "tau": 0.005,
    "learning_rate": 3e-4,
    "seed": 1,
}


def stable_baselines3() -> Callable[[], int]:
    from stable_baselines3 import SAC

    agent = SAC("MlpPolicy", _Noise(), device="cpu", **PEER_SETTINGS)
    agent.learn(ROWS)

    def work() -> int:
        agent.train(gradient_steps=UPDATES, batch_size=BATCH)
        return UPDATES

    return work


def sbx() -> Callable[[], int]:
    import jax
    from sbx import SAC

    agent = SAC("MlpPolicy", _Noise(), **PEER_SETTINGS)
    agent.learn(ROWS)

    def work() -> int:
        before = agent._n_updates
        agent.train(gradient_steps=UPDATES, batch_size=BATCH)
        jax.block_until_ready(agent.policy.actor_state.params)
        return agent._n_updates - before

    return work


def homework() -> Callable[[], int]:
    agent = HomeworkSAC(OB_DIM, AC_DIM, SIZE)
    random = np.random.default_rng(1)
    obs, next_obs = random.normal(size=(2, ROWS, OB_DIM)).astype(np.float32)
    acs = random.uniform(-1, 1, (ROWS, AC_DIM)).astype(np.float32)
    rewards, terminated = random.normal(size=ROWS).astype(np.float32), np.zeros(ROWS, np.float32)
    for start in range(0, ROWS, 1000):
        rows = slice(start, start + 1000)
        agent.add_path(obs[rows], acs[rows], rewards[rows], next_obs[rows], terminated[rows])

    def work() -> int:
        for _ in range(UPDATES):
            agent.train(BATCH)
        return UPDATES

    return work


if __name__ == "__main__":
    main()
