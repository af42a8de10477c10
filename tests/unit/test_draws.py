"""Test that separate random draws differ. Shared draws would make learning worse without errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.envs import TaskSpec
from cs285.infrastructure.replay_buffer import Path
from cs285.models import training
from cs285.policies.base_policy import Memory

BOX = np.ones(2, np.float32)


def make_agent(**flags: Any) -> MBPOAgent:
    task = TaskSpec(3, 2, -BOX, BOX, get_reward=None, ep_len=10)
    small: dict[str, Any] = {
        "size": 8, "num_agent_train_steps_per_iter": 4, "train_batch_size": 8,
        "sac_size": 8, "sac_n_iter": 6, "sac_train_batch_size": 30,
        "sac_num_critic_updates_per_agent_update": 2, "sac_num_actor_updates_per_agent_update": 2,
        "mbpo_rollout_length": 1, "mbpo_rollout_every": 3, "mbpo_rollouts_per_sac_iter": 10,
        "mpc_horizon": 4, "mbpo_eval_planner": True,
    }  # fmt: skip
    agent = MBPOAgent(task, from_flat(MBPOConfig, small | flags), torch.device("cpu"))
    agent.next_fit = 10**6  # train() sets it, but some tests do not call train()
    add_real(agent, 0)
    return agent


def add_real(agent: MBPOAgent, iteration: int) -> None:
    obs = np.random.default_rng(0).normal(size=(81, 3)).astype(np.float32)
    acs, rewards = np.zeros((80, 2), np.float32), np.zeros(80, np.float32)
    path = Path(obs[:-1], acs, rewards, obs[1:], np.zeros(80, bool))
    agent.add_to_replay_buffer([path], iteration)


def all_differ(draws: Any) -> bool:
    draws = [tuple(draw.flatten().tolist()) for draw in draws]
    return len(draws) > 1 and len(set(draws)) == len(draws)


def test_sac_batches_differ() -> None:
    agent = make_agent(mbpo_real_ratio=0.5)  # so that all batches have the same number of real rows
    real = agent.sac_agent
    assert all_differ(torch.cat([real.draw_real(first, 3) for first in (0, 3, 6)]))
    assert all_differ(torch.cat([agent.draw_mixed(first, 1) for first in range(3)]))


def test_noise_of_sac_gradient_steps_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 2 x 6 updates has two gradient steps on the critic and two on the actor."""
    agent, drawn = make_agent().sac_agent, []
    for name in ("_step_critic", "_step_actor"):
        step = getattr(agent, name)

        def recorded(data: Any, noise: Tensor, *draws: Any, step: Any = step) -> Any:
            drawn.append(noise)
            return step(data, noise, *draws)

        monkeypatch.setattr(agent, name, recorded)
    for iteration in range(2):
        agent.train(iteration)
    assert len(drawn) == 2 * 6 * (2 + 2)
    assert all_differ(drawn)


def test_starts_and_actions_of_rollouts_differ() -> None:
    agent = make_agent()
    for first in (0, 3, 6):
        agent.draw_mixed(first, 3)
    imagined = agent.model_buffer.rows.view(3, 30, -1)
    assert all_differ(imagined[..., :3])
    assert all_differ(imagined[..., 3:5])


def test_batches_of_fits_and_observation_noise_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path is stored three times, with different noise."""
    agent, drawn = make_agent(add_sl_noise=True).mb_agent, []
    fit_ensemble = training.fit_ensemble

    def recorded(model: Any, optimizer: Any, data: Any, indices: Tensor, *rest: Any) -> Any:
        drawn.append(indices)
        return fit_ensemble(model, optimizer, data, indices, *rest)

    monkeypatch.setattr(training, "fit_ensemble", recorded)
    for iteration in range(3):
        agent.train(iteration)
    assert all_differ(torch.cat(drawn).flatten(0, 1))  # over fits, gradient steps and members
    path = Path(*(column.numpy() for column in agent.replay_buffer.all()))
    for iteration in (1, 2):
        agent.add_to_replay_buffer([path], iteration)
    noisy = agent.replay_buffer.all().obs.view(3, 80, 3)
    noise = noisy[1:] - torch.from_numpy(path.obs)
    assert all_differ(noise)


@pytest.mark.parametrize("flags", [{"model": "probabilistic"}, {"mpc_propagation": "ts1"}])
def test_draws_of_the_planner_differ(flags: dict[str, Any]) -> None:
    agent = make_agent(ensemble_size=3, mpc_particles=6, **flags)
    memories = [Memory(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    planner = agent.mb_agent.actor
    first, second = planner.draw(memories), planner.draw(memories)
    for one, other in zip(first, second, strict=True):
        if one is not None and other is not None:
            assert not torch.equal(one, other)
            for dim in range(one.dim()):
                assert all_differ(one.unbind(dim))


def test_draws_of_training_rollouts_differ() -> None:
    """Each update has its own actions, splits, model noise, target networks and dropout masks."""
    agent = make_agent(
        model="homoscedastic", model_loss="nll", mbpo_value_expansion=2, sac_critics=5,
        mbpo_propagation="random_member", sac_critics_drawn=3, sac_critic_dropout=0.5,
        sac_num_critic_updates_per_agent_update=1, sac_num_actor_updates_per_agent_update=1,
    )  # fmt: skip
    sac = agent.sac_agent
    drawn = [draw for first in (0, 3, 6) for draw in sac._batches(sac.draw_real(first, 3), first)]
    assert len(drawn) == 9
    rollouts, critics = [draw[1] for draw in drawn], [draw[2] for draw in drawn]
    assert all_differ([noise for draws in rollouts for noise in draws.noise])
    splits = [split for draws in rollouts for split in draws.splits]
    assert len(splits) == 18
    assert all_differ([split.slots for split in splits])
    assert all_differ([split.noise for split in splits if split.noise is not None])
    assert all_differ([mask for draws in critics for mask in draws.masks if mask is not None])
    assert len({tuple(d.members.tolist()) for d in critics if d.members is not None}) > 4
