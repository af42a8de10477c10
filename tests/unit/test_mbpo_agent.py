"""Test the SAC batches of the MBPO agent: their real ratio, and when their rollouts are done."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch

from cs285.agents.expanded_sac_agent import ExpandedSACAgent
from cs285.agents.mbpo_agent import MBPOAgent
from cs285.agents.sac_agent import SACAgent
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.envs import TaskSpec
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.model_buffer import ModelBuffer
from cs285.infrastructure.replay_buffer import Path, Transitions, unpack

LOW, HIGH = np.full(2, -1, np.float32), np.ones(2, np.float32)
REAL, IMAGINED = 7.0, -3.0  # the reward of a row tells whether it is real or imagined


DOUBLE_HORIZON: dict[str, Any] = {  # every part of --preset dhmbpo
    "model": "homoscedastic", "model_loss": "nll", "activation": "swish", "model_dropout": "0.1",
    "model_layer_norm": "1,0.1", "weight_decay": "0.1", "decoupled_weight_decay": True,
    "learning_rate_schedule": "falling", "learned_reward": True,
    "mbpo_propagation": "random_member",
    "mbpo_restart_at_fit": True, "mbpo_critic_iters_after_fit": 3, "mbpo_value_expansion": 2,
    "mbpo_rollouts_per_block": 9, "sac_n_iter_initial": 4, "sac_activation": "swish",
    "sac_policy_std": "softplus", "sac_critics": 3, "sac_critics_drawn": 2,
    "sac_actor_value": "mean", "sac_critic_layer_norm": 1e-5, "sac_critic_dropout": 0.1,
    "sac_value_bounds": 0.01, "sac_policy_averaging": 0.2,
}  # fmt: skip


def reward(obs: Any, acs: Any) -> tuple[Any, Any]:
    return obs[..., 0] * 0 + IMAGINED, obs[..., 0] != obs[..., 0]


def make_agent(get_reward: Any = reward, **flags: Any) -> MBPOAgent:
    task = TaskSpec(3, 2, LOW, HIGH, get_reward=get_reward, ep_len=10)
    small: dict[str, Any] = {
        "size": 8, "num_agent_train_steps_per_iter": 2, "train_batch_size": 8,
        "sac_size": 8, "sac_n_iter": 12, "sac_train_batch_size": 50,
        "mbpo_rollout_length": 2, "mbpo_rollout_every": 5, "mbpo_model_buffer_size": 1000,
    }  # fmt: skip
    agent = MBPOAgent(task, from_flat(MBPOConfig, small | flags), torch.device("cpu"))
    agent.next_fit = 10**6  # train() sets it, but some tests do not call train()
    return agent


def add_real(agent: MBPOAgent, T: int, iteration: int = 0) -> None:
    obs = np.random.default_rng(iteration).normal(size=(T + 1, 3)).astype(np.float32)
    acs, rewards = np.zeros((T, 2), np.float32), np.full(T, REAL, np.float32)
    path = Path(obs[:-1], acs, rewards, obs[1:], np.zeros(T, bool))
    agent.add_to_replay_buffer([path], iteration)


def draw_shares(agent: MBPOAgent, first: int, at_most: int) -> list[float]:
    """Draw batches and return the share of real rows in each."""
    rows = agent.draw_mixed(first, at_most)
    rewards = unpack(rows, 3, 2).rewards
    assert torch.logical_or(rewards == REAL, rewards == IMAGINED).all()
    return (rewards == REAL).float().mean(1).tolist()


def test_real_and_imagined_transitions_stay_in_their_own_buffers() -> None:
    agent = make_agent()
    add_real(agent, 40)
    agent.train(0)
    add_real(agent, 20, 1)
    agent.train(1)
    imagined = unpack(agent.model_buffer.rows, 3, 2)
    assert len(agent.model_buffer) == 2 * 12 * 2  # one rollout of 2 steps per SAC iteration
    assert (imagined.rewards == IMAGINED).all()
    for buffer in (agent.sac_agent.replay_buffer, agent.mb_agent.replay_buffer):
        assert len(buffer) == 60
        assert (buffer.all().rewards == REAL).all()


def test_only_the_model_gets_the_observation_noise() -> None:
    agent = make_agent(add_sl_noise=True)
    add_real(agent, 40)
    for_sac, for_model = agent.sac_agent.replay_buffer.all(), agent.mb_agent.replay_buffer.all()
    path = np.random.default_rng(0).normal(size=(41, 3)).astype(np.float32)
    assert torch.equal(for_sac.obs, torch.from_numpy(path[:-1]))
    assert torch.equal(for_sac.next_obs, torch.from_numpy(path[1:]))
    assert (for_model.obs != for_sac.obs).float().mean() > 0.9


def test_rollouts_start_from_real_states() -> None:
    agent = make_agent(mbpo_rollout_length=1, sac_n_iter=5)
    add_real(agent, 40)
    agent.train(0)
    starts = unpack(agent.model_buffer.rows, 3, 2).obs
    real = agent.sac_agent.replay_buffer.all().obs
    assert (starts[:, None] == real[None]).all(-1).any(1).all()


def test_rollouts_follow_the_policy_that_learns_and_not_its_average() -> None:
    agent = make_agent(sac_policy_averaging=0.2)
    add_real(agent, 40)
    recipe = {"first": 0, "rollouts": 6, "length": 2, "real": 40}
    before = agent._follow(recipe).data
    agent.sac_agent.acting_policy.network.vector.zero_()
    assert torch.equal(agent._follow(recipe).data.acs, before.acs)
    with torch.no_grad():
        agent.sac_agent.policy.network.vector.zero_()
    assert not torch.equal(agent._follow(recipe).data.acs, before.acs)


def test_without_value_expansion_the_learner_is_plain_sac() -> None:
    assert type(make_agent(mbpo_value_expansion=0).sac_agent) is SACAgent
    assert type(make_agent(**DOUBLE_HORIZON).sac_agent) is ExpandedSACAgent


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.3, 1.0])
def test_batches_have_the_given_real_ratio(ratio: float) -> None:
    agent = make_agent(mbpo_real_ratio=ratio, sac_train_batch_size=30, mbpo_rollout_every=1000)
    add_real(agent, 40)
    shares = draw_shares(agent, 0, 1000)
    assert np.mean(shares) == pytest.approx(ratio, abs=0.003)
    assert max(shares) - min(shares) <= 1 / 30 + 1e-6  # shares differ only by rounding
    assert agent.real_rows_drawn / agent.rows_drawn == pytest.approx(np.mean(shares))


def test_default_real_ratio_is_the_share_in_a_single_buffer() -> None:
    """The homework's buffer has 40 real rows and, in SAC iteration u, 2 (u + 1) imagined rows."""
    agent = make_agent(sac_train_batch_size=1000)
    add_real(agent, 40)
    shares = draw_shares(agent, 0, 5) + draw_shares(agent, 5, 5)
    expected = [40 / (40 + 2 * (u + 1)) for u in range(10)]
    assert shares == pytest.approx(expected, abs=0.002)
    add_real(agent, 100, 1)  # new real transitions count immediately
    (share,) = draw_shares(agent, 10, 1)
    assert share == pytest.approx(140 / (140 + 22), abs=0.002)


def test_blocks_of_rollouts_span_iterations_but_not_fits() -> None:
    """Iterations have 3 SAC iterations each. Fits come before the SAC iterations 0 and 9."""
    agent = make_agent(
        sac_n_iter=3, mbpo_rollout_every=5, mbpo_rollouts_per_sac_iter=2, mbpo_refit_every=3
    )
    blocks, sizes = [], []
    imagine = agent._imagine
    agent._imagine = lambda: (blocks.append(agent.block), imagine())  # type: ignore[method-assign]
    for iteration in range(5):
        add_real(agent, 10, iteration)
        agent.train(iteration)
        sizes.append(len(agent.model_buffer))
    assert blocks == [range(5), range(5, 9), range(9, 14), range(14, 18)]
    assert sizes == [20, 36, 36, 56, 72]


def test_a_new_fit_starts_a_new_block_of_rollouts() -> None:
    agent = make_agent(sac_n_iter=3, mbpo_rollout_every=100)
    for iteration in range(3):
        add_real(agent, 10, iteration)
        agent.train(iteration)
        assert agent.block == range(3 * iteration, 3 * iteration + 3)


def test_many_updates_per_sac_iteration_are_drawn_in_parts() -> None:
    agent = make_agent(sac_num_agent_train_steps_per_iter=60, sac_n_iter=5)
    sizes = []
    draw = agent.draw_mixed
    agent.draw_mixed = (  # type: ignore[method-assign]
        lambda *args: sizes.append(len(rows := draw(*args))) or rows
    )
    add_real(agent, 40)
    agent.train(0)
    assert sizes == [60] * 5
    assert agent.rows_drawn == 300 * 50


def test_known_termination_ends_rollouts_even_with_a_learned_reward() -> None:
    def always_terminates(obs: Any, acs: Any) -> tuple[Any, Any]:
        return obs[..., 0], obs[..., 0] * 0 + 1  # some tasks return numbers instead of booleans

    agent = make_agent(always_terminates, learned_reward=True)
    add_real(agent, 40)
    agent.train(0)
    imagined = unpack(agent.model_buffer.rows, 3, 2)
    assert imagined.terminated.all()
    assert agent.metrics["Model Rollout Length"].tolist() == [1.0]
    assert not torch.equal(imagined.rewards, imagined.next_obs[:, 0])  # the reward is learned


@pytest.mark.parametrize(("refit_every", "capacity"), [(1, 2 * 3 * 2), (4, 2 * 12 * 2)])
def test_model_buffer_keeps_the_rollouts_of_two_models(refit_every: int, capacity: int) -> None:
    agent = make_agent(sac_n_iter=3, mbpo_refit_every=refit_every, mbpo_model_buffer_size=None)
    add_real(agent, 40)
    for iteration in range(12):
        agent.train(iteration)
    assert len(agent.model_buffer) == capacity
    # Overwritten rows still count for the real ratio, as in the homework's single buffer.
    share = float(agent.real_ratio(torch.ones(1)))
    assert share == pytest.approx(40 / (40 + agent.model_buffer.total_added))


def test_rollout_length_zero_is_plain_sac() -> None:
    agent = make_agent(mbpo_rollout_length=0, num_agent_train_steps_per_iter=0)
    add_real(agent, 40)
    metrics = agent.train(0)
    assert len(agent.model_buffer) == 0
    assert "Training Loss" not in metrics
    assert "Real Ratio" not in metrics
    assert "Critic Loss" in metrics


def test_batches_are_real_if_no_imagined_transition_is_finite() -> None:
    agent = make_agent(mbpo_real_ratio=0.0)
    add_real(agent, 40)
    agent.mb_agent.model.target_stats.mean.fill_(torch.inf)
    assert draw_shares(agent, 0, 2) == [1.0, 1.0]
    assert agent.metrics["Model Rollouts Dropped"].tolist() == [5.0]


def test_refit_every_skips_fits_and_keeps_the_last_metrics() -> None:
    agent = make_agent(mbpo_refit_every=2)
    add_real(agent, 40)
    losses = []
    for iteration in range(4):
        losses.append(float(agent.train(iteration)["Training Loss"][-1]))
        add_real(agent, 4, iteration + 1)
    assert losses[0] == losses[1] != losses[2] == losses[3]
    assert "New Data Loss" in agent.metrics


@pytest.mark.parametrize("real_rows_kept", [10**6, 45])
@pytest.mark.parametrize(
    "flags",
    [
        {"mbpo_rollouts_per_sac_iter": 1},
        {"mbpo_rollouts_per_sac_iter": 100, "mbpo_model_buffer_size": 4150},
        {"mbpo_rollouts_per_sac_iter": 100, "mbpo_rollout_schedule": "0,60,1,4"},
        {"mbpo_rollouts_per_sac_iter": 100, "mbpo_refit_every": 2, "mbpo_rollout_every": 1000},
        {"mbpo_rollouts_per_sac_iter": 1, **DOUBLE_HORIZON},
    ],
    ids=["small", "partly overwritten", "schedule", "one model, several policies", "two horizons"],
)
def test_restored_agent_continues_bit_for_bit(flags: dict[str, Any], real_rows_kept: int) -> None:
    """The third restores follow a restore, so that a run can be resumed any number of times."""
    agents = [
        make_agent(**{"sac_n_iter": 7, "mbpo_model_buffer_size": None} | flags) for _ in "abc"
    ]
    for each in agents:
        buffer = each.sac_agent.replay_buffer
        buffer.capacity = real_rows_kept  # with 45, starts of rollouts are overwritten
    agent, other, third = agents
    add_real(agent, 40)
    agent.train(0)
    add_real(agent, 10, 1)
    agent.train(1)
    state = copy.deepcopy(agent.state_dict())
    is_large, is_kept = flags["mbpo_rollouts_per_sac_iter"] > 1, real_rows_kept > 50
    assert (state["model_buffer"]["replay"] is None) == (is_large and is_kept)
    other.load_state_dict(state)
    third.load_state_dict(copy.deepcopy(other.state_dict()))
    results = []
    for continued in agents:
        assert torch.equal(continued.model_buffer.rows, agent.model_buffer.rows)
    for continued in agents:
        add_real(continued, 10, 2)
        metrics = continued.train(2)
        assert torch.equal(continued.model_buffer.rows, agent.model_buffer.rows)
        acting = continued.sac_agent.acting_policy.network.vector
        parameters = continued.parameters_dict()["policy"]
        results.append({**metrics, **parameters, "acting policy": acting})
    for name, expected in results[0].items():
        assert all(torch.equal(result[name], expected) for result in results[1:]), name


def test_a_fit_restarts_buffer_and_optimisers_and_trains_the_critic_first() -> None:
    """Iterations have 3 SAC iterations (the first: 5), and each fit adds 4 for the critic only."""
    agent = make_agent(
        sac_n_iter=3, sac_n_iter_initial=5, mbpo_critic_iters_after_fit=4, mbpo_refit_every=2,
        mbpo_restart_at_fit=True, mbpo_rollouts_per_block=6, mbpo_rollout_every=5,
    )  # fmt: skip
    sac, model_adam = agent.sac_agent, agent.mb_agent.optimizer
    assert model_adam is not None
    adams = (sac.critic_optimizer, sac.actor_optimizer, model_adam)
    counts = []
    for iteration in range(3):
        add_real(agent, 20, iteration)
        agent.train(iteration)
        steps = [int(next(iter(adam.state.values()))["step"]) for adam in adams]
        counts.append((sac.iterations_done, agent.block, len(agent.model_buffer), *steps))
    # Two steps of a rollout per row of a block; blocks end at fits.
    assert counts == [
        (9, range(5, 10), 2 * 12, 9, 5, 2),
        (12, range(10, 12), 3 * 12, 12, 8, 2),
        (19, range(17, 22), 2 * 12, 7, 3, 2),
    ]


def test_a_checkpoint_of_large_rollouts_is_small() -> None:
    agent = make_agent(mbpo_rollouts_per_sac_iter=1000, mbpo_model_buffer_size=10**6)
    add_real(agent, 40)
    agent.train(0)
    file = io.BytesIO()
    torch.save(agent.state_dict()["model_buffer"], file)
    assert agent.model_buffer.rows.nbytes > 900_000
    assert file.tell() < 60_000


def rows(count: int) -> Transitions:
    obs = torch.zeros(count, 3)
    return Transitions(obs, obs[:, :2], obs[:, 0], obs, torch.zeros(count, dtype=torch.bool))


def rows_of(recipe: dict[str, Any]) -> Transitions:
    raise AssertionError("no recipe was stored")


def test_mean_age_of_imagined_transitions() -> None:
    buffer = ModelBuffer(10, 3, 2, torch.device("cpu"))
    assert buffer.mean_age(5) == 0
    buffer.add(rows(4), now=0)
    buffer.add(rows(4), now=10)
    assert buffer.mean_age(20) == pytest.approx((4 * 20 + 4 * 10) / 8)
    buffer.add(rows(4), now=20)  # two rows of the first block are overwritten
    assert len(buffer) == 10
    assert buffer.mean_age(20) == pytest.approx((2 * 20 + 4 * 10) / 10)
    buffer.add(rows(25), now=30)
    assert buffer.mean_age(30) == 0
    assert (buffer.total_added, buffer.last_block) == (37, 25)
    restored = ModelBuffer(10, 3, 2, torch.device("cpu"))
    restored.load_state_dict(buffer.state_dict(), rows_of)
    assert restored.mean_age(33) == 3


def test_a_resized_model_buffer_keeps_the_newest_rows_and_their_ages() -> None:
    buffer = ModelBuffer(10, 3, 2, torch.device("cpu"))
    for born in (0, 10, 20):
        buffer.add(rows(4)._replace(rewards=torch.full((4,), float(born))), now=born)
    buffer.resize(6)
    assert sorted(unpack(buffer.rows, 3, 2).rewards.tolist()) == [10.0] * 2 + [20.0] * 4
    assert buffer.mean_age(20) == pytest.approx(2 * 10 / 6)
    buffer.resize(100)
    assert len(buffer) == 6
    buffer.add(rows(20), now=30)
    assert (len(buffer), buffer.total_added) == (26, 32)
    restored = ModelBuffer(3, 3, 2, torch.device("cpu"))
    restored.load_state_dict(buffer.state_dict(), rows_of)
    assert torch.equal(restored.rows, buffer.rows)


def test_schedule_sets_the_rollout_length_and_the_capacity() -> None:
    agent = make_agent(
        mbpo_rollout_schedule="100,300,1,5",
        mbpo_model_buffer_size=None,
        mbpo_models_kept=2,
        sac_num_agent_train_steps_per_iter=1,
    )
    for iteration, (env_steps, length) in enumerate([(60, 1), (150, 2), (200, 3), (9999, 5)]):
        add_real(agent, env_steps - agent.env_steps, iteration)
        agent.train(iteration)
        assert agent.model_buffer.last_block == 2 * length  # the last block has 2 SAC iterations
        assert float(agent.metrics["Model Rollout Length"]) == length
        assert len(agent.model_buffer) <= 2 * 12 * length
    assert len(agent.model_buffer) == 2 * 12 * 5  # the capacity follows the newest length
    other = make_agent(mbpo_rollout_schedule="100,300,1,5", mbpo_model_buffer_size=None)
    other.load_state_dict(agent.state_dict())
    assert other.env_steps == 9999
    assert torch.equal(other.model_buffer.rows, agent.model_buffer.rows)


@pytest.mark.parametrize("schedule", ["1,2,3", "5,5,1,2", "0,9,0,2", "a,b,c,d", ""])
def test_invalid_schedules_give_errors(schedule: str) -> None:
    with pytest.raises(
        UsageError, match=r"--mbpo_rollout_schedule .*: must be four integers FIRST,LAST"
    ):
        make_agent(mbpo_rollout_schedule=schedule)
    with pytest.raises(UsageError, match="--mbpo_rollout_length 0: must be a positive"):
        make_agent(mbpo_rollout_schedule="0,1,1,2", mbpo_rollout_length=0)


def test_model_buffer_keeps_the_blocks_of_two_models() -> None:
    agent = make_agent(
        sac_n_iter=3, mbpo_rollouts_per_block=50, mbpo_rollout_every=2, mbpo_model_buffer_size=None
    )
    add_real(agent, 40)
    for iteration in range(4):
        agent.train(iteration)
    assert len(agent.model_buffer) == 2 * 2 * 50 * 2  # models, blocks, rollouts, steps


def test_model_buffer_age_is_the_mean_at_the_end_of_the_iteration() -> None:
    """Of 12 SAC iterations, 0, 5 and 10 begin a block; each adds 2 rows per iteration."""
    agent = make_agent()
    add_real(agent, 40)
    age = agent.train(0)["Model Buffer Age"].item()
    assert age == pytest.approx((10 * 12 + 10 * 7 + 4 * 2) / 24)


def test_model_buffer_has_room_for_the_critic_iterations_after_a_fit() -> None:
    agent = make_agent(
        sac_n_iter=3, mbpo_critic_iters_after_fit=4, mbpo_model_buffer_size=None, mbpo_models_kept=1
    )
    add_real(agent, 40)
    agent.train(0)
    assert len(agent.model_buffer) == (4 + 3) * 2


def test_cleared_rows_still_count_as_added() -> None:
    buffer = ModelBuffer(10, 3, 2, torch.device("cpu"))
    buffer.add(rows(4), now=0)
    buffer.clear()
    assert (len(buffer), buffer.last_block, buffer.total_added) == (0, 0, 4)


def test_new_data_loss_measures_the_previous_model_on_the_new_rows() -> None:
    agent = make_agent()
    add_real(agent, 40)
    agent.train(0)
    add_real(agent, 7, 1)
    learner = agent.mb_agent
    expected = learner.model.evaluate(learner.replay_buffer.newest(7))
    assert torch.equal(agent.train(1)["New Data Loss"], expected["New Data Loss"])
