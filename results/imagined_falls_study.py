"""Study why the final policy of a run of MBPO falls: the model's part and the critic's.

    python results/imagined_falls_study.py LOGDIR [--steps 500] [--refit_steps 8000]
        [--critic_updates 0]

LOGDIR is the log folder of the run. The policy of the last checkpoint acts in the task, in the
model of the previous checkpoint, and in the model of the last one. (If the run refits in every
iteration, the policy learned from the latter. If an iteration is one env step and checkpoints
follow a fit, it learned from the former.) A random member predicts each step. For states before the
falls in the task, the script compares the return that followed, the critic's value, and the return
in each of the two models. It repeats this with the model of the last checkpoint after a longer fit,
and after more updates of the critic only. It writes results/study/imagined_falls_NAME.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

import cs285
from cs285.agents.mb_agent import MBAgent
from cs285.agents.mbpo_agent import MBPOAgent
from cs285.agents.sac_agent import SACAgent
from cs285.agents.value_expansion import ValueExpansion, soft_return
from cs285.analysis.rebuild import agent_of, rebuild
from cs285.analysis.report.study import write_study
from cs285.cli.script import run_script
from cs285.config.flags import OneLineParser, whole_number
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_generator, reset_moments
from cs285.models.training import fit

SCRIPT, TARGET = "imagined_falls_study.py", Path(__file__).parent / "study"
EPISODES = 12
STEPS_TO_GO = (20, 50, 100, 120, 150, 200, 250)
ROLLOUTS, IMAGINED_STEPS = 64, 600  # from the states before the falls
LATE = 50  # an imagined fall may come this many steps after the fall in the task


class Episode(NamedTuple):
    """An episode of T steps."""

    obs: Tensor  # (T, O)
    rewards: list[float]
    terminated: bool


def play(agent: cs285.Agent, env: gym.Env[Any, Any], steps: int, seed: int) -> Episode:
    """Return an episode of `steps` env steps at most."""
    obs, _ = env.reset(seed=seed)
    agent.reset()
    seen: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = False
    while len(rewards) < steps and not (terminated or truncated):
        seen.append(obs)
        obs, reward, terminated, truncated, _ = env.step(agent.predict(obs))
        rewards.append(float(reward))
    return Episode(torch.tensor(np.array(seen), dtype=torch.float32), rewards, terminated)


def discounted(rewards: Sequence[float], discount: float) -> float:
    """Return the sum of discount^t * rewards[t]."""
    return float(np.dot(rewards, discount ** np.arange(len(rewards))))


@torch.no_grad()
def values(sac: SACAgent, obs: Tensor) -> Tensor:
    """Return the critic's value (T,) for the policy's mode at obs (T, O)."""
    scaled = sac.policy.scale_obs(obs)
    mode = sac.policy.sample(scaled, torch.zeros(len(obs), sac.task.ac_dim))
    return sac.critic.value_for_actor(scaled, mode.acs)


def before_falls(
    sac: SACAgent, mb_agent: MBAgent, falls: Sequence[Episode]
) -> list[dict[str, float]]:
    """Compare the returns from STEPS_TO_GO before the falls on with the values and the model's.

    The imagined returns are means of rollouts in the agent's model from the same states. All
    figures are means over the episodes.
    """
    model, task = mb_agent.model, mb_agent.task_model
    expansion = ValueExpansion(model, task, IMAGINED_STEPS, "random_member")
    generator, discount = make_generator(0, "imagined falls"), sac.config.sac_discount
    found = []
    for left in STEPS_TO_GO:
        long = [fall for fall in falls if len(fall.rewards) >= left]
        if not long:
            continue
        obs = torch.stack([fall.obs[-left] for fall in long])
        starts = obs.repeat(-(-ROLLOUTS // len(obs)), 1)
        draws = expansion.draw(len(starts), sac.task.ac_dim, generator)
        with torch.no_grad():
            rollout = expansion.roll_out(sac.policy, starts, draws)
            last_values = sac.critic.value_for_actor(rollout.last_obs, rollout.last_acs)
            imagined = soft_return(rollout, last_values, torch.zeros(()), discount)
        returns = [discounted(fall.rewards[-left:], discount) for fall in long]
        soon = rollout.alive.sum(0) <= left + LATE
        figures: dict[str, Any] = {
            "return": np.mean(returns),
            "value": values(sac, obs).mean(),
            "imagined return": imagined.mean(),
            f"imagined falls within {LATE} more steps": soon.float().mean(),
        }
        rounded = {name: round(float(figure), 2) for name, figure in figures.items()}
        found.append({"steps to the fall": left, **rounded})
    return found


def refit(mb_agent: MBAgent, steps: int) -> float:
    """Fit the model again as the run does, with this number of gradient steps; return its loss."""
    assert mb_agent.optimizer is not None
    reset_moments(mb_agent.optimizer)
    config = replace(mb_agent.config, num_agent_train_steps_per_iter=steps)
    generator = make_generator(0, "fit batches")
    metrics = fit(mb_agent.model, mb_agent.optimizer, mb_agent.replay_buffer, config, generator)
    return round(float(metrics["Training Loss"][-100:].mean()), 5)


def train_critic(mbpo: MBPOAgent, updates: int) -> None:
    """Do updates of the critic only, as after a fit, with the same model and policy."""
    sac = mbpo.sac_agent
    mbpo.next_fit = sac.iterations_done + updates
    mbpo.rows_drawn = mbpo.real_rows_drawn = 0
    sac.train_on(mbpo.draw_mixed, updates, critic_iterations=updates)


def study(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog=SCRIPT, description=__doc__)
    parser.add_argument("folder", type=Path, metavar="LOGDIR")
    parser.add_argument("--steps", type=whole_number(1), default=500, metavar="N")
    parser.add_argument("--refit_steps", type=whole_number(0), default=8000, metavar="N")
    parser.add_argument("--critic_updates", type=whole_number(0), default=0, metavar="N")
    given = parser.parse_args(argv)
    rebuilt, earlier = (
        rebuild(given.folder, no_gpu=True, checkpoint=which) for which in ("last", "previous")
    )
    mbpo = agent_of(rebuilt, MBPOAgent, given.folder)
    if not mbpo.has_model:
        raise UsageError(f"LOGDIR {given.folder}: must be the log folder of a run with a model")
    agent, before = (cs285.Agent(given.folder, which) for which in (rebuilt, earlier))
    run = agent.config.run
    envs = {
        "task": cs285.envs.make_env(run.task, run.ep_len),
        "model of the previous checkpoint": before.model_env("random"),
        "model of the last checkpoint": agent.model_env("random"),
    }
    about: dict[str, Any] = {"env_name": run.env_name, "env_steps": agent.env_steps}
    falls: dict[str, list[Episode]] = {}
    for name, env in envs.items():
        episodes = [play(agent, env, given.steps, seed) for seed in range(EPISODES)]
        falls[name] = [episode for episode in episodes if episode.terminated]
        lengths = [len(episode.rewards) for episode in episodes]
        about[name] = {"lengths": lengths, "falls": len(falls[name])}
        print(f"{name}: {len(falls[name])} falls in {EPISODES} episodes", flush=True)
    if (bounds := mbpo.sac_agent.critic.bounds) is not None:
        about["bounds of the critic's targets"] = [round(b, 1) for b in bounds.bounds.tolist()]
    sac, mb_agent = mbpo.sac_agent, mbpo.mb_agent
    for which, tested in (("previous", earlier.agent.mb_agent), ("last", mb_agent)):
        found = before_falls(sac, tested, falls["task"])
        about[f"before the falls in the task, by the model of the {which} checkpoint"] = found
    if given.critic_updates > 0:
        train_critic(mbpo, given.critic_updates)
        about["before the falls in the task, after more critic updates"] = before_falls(
            sac, mb_agent, falls["task"]
        )
    if given.refit_steps > 0:
        about["refit"] = {"training loss": refit(mb_agent, given.refit_steps)}
        about["refit"]["before the falls in the task"] = before_falls(sac, mb_agent, falls["task"])
    write_study(TARGET / f"imagined_falls_{run.exp_name}.json", SCRIPT, argv, run.exp_name, about)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(SCRIPT, study, None))
