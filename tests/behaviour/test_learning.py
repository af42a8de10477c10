"""Test that whole runs learn: MB on two tasks, MBPO, and SAC alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import read_curve

Run = Callable[..., Path]


def test_point_mass_reaches_the_goal(run_tiny: Run) -> None:
    """Random actions return about -165. This planner with the true model returns about -25."""
    folder = run_tiny(
        n_iter=3,
        ep_len=100,
        batch_size_initial=2000,
        batch_size=200,
        eval_batch_size=300,
        num_agent_train_steps_per_iter=200,
        train_batch_size=256,
        size=64,
        mpc_horizon=10,
        mpc_num_action_sequences=200,
        num_workers=2,
    )
    curve = read_curve(folder)
    assert float(curve[0]["Train_AverageReturn"]) < -120
    assert max(float(row["Eval_AverageReturn"]) for row in curve[1:]) > -45


@pytest.mark.long
def test_planning_on_pendulum_works_with_a_learned_reward(run_tiny: Run) -> None:
    """Pendulum-v1 has no get_reward. Random actions return about -1200 on it."""
    folder = run_tiny(
        env_name="Pendulum-v1",
        n_iter=3,
        ep_len=None,
        batch_size_initial=2000,
        batch_size=400,
        eval_batch_size=400,
        num_agent_train_steps_per_iter=400,
        train_batch_size=256,
        size=64,
        mpc_horizon=20,
        mpc_num_action_sequences=200,
        mpc_action_sampling_strategy="cem",
        num_workers=2,
    )
    curve = read_curve(folder)
    assert float(curve[0]["Train_AverageReturn"]) < -900
    assert float(curve[-1]["Eval_AverageReturn"]) > -400
    assert float(curve[-1]["Reward Loss"]) < 0.05
    assert float(curve[-1]["Eval_AverageEpLen"]) == 200


def test_model_rollouts_and_value_expansion_beat_sac_on_an_easy_model(run_tiny_mbpo: Run) -> None:
    """All get 80 env steps and the same updates. The optimum is about -1.5."""

    def mean_return(rollout_length: int, value_expansion: int = 0, seeds: int = 3) -> float:
        returns = []
        for seed in range(1, seeds + 1):
            folder = run_tiny_mbpo(
                env_name="tests.toys:LinearReach-v0",
                mbpo_rollout_length=rollout_length,
                mbpo_value_expansion=value_expansion,
                mbpo_rollout_every=100,
                seed=seed,
                n_iter=3,
                batch_size_initial=40,
                batch_size=20,
                eval_batch_size=400,
                num_agent_train_steps_per_iter=200,
                train_batch_size=128,
                size=64,
                sac_n_iter=300,
                sac_size=64,
                sac_train_batch_size=128,
                sac_learning_rate=1e-3,
                sac_init_temperature=0.1,
            )
            returns += [float(row["Eval_AverageReturn"]) for row in read_curve(folder)[1:]]
        return sum(returns) / len(returns)

    sac, mbpo, double_horizon = mean_return(0), mean_return(5), mean_return(5, 3, seeds=1)
    assert min(mbpo, double_horizon) > -3
    assert min(mbpo, double_horizon) > sac + 1


def test_sac_without_a_model_learns_with_one_update_per_env_step(run_tiny_mbpo: Run) -> None:
    """Iterations have one env step, so episodes continue across iterations."""
    folder = run_tiny_mbpo(
        env_name="tests.toys:LinearReach-v0",
        continue_episodes=True,
        mbpo_rollout_length=0,
        num_agent_train_steps_per_iter=0,
        batch_size_initial=100,
        batch_size=1,
        n_iter=801,
        sac_n_iter=1,
        sac_size=64,
        sac_train_batch_size=64,
        sac_learning_rate=1e-3,
        sac_init_temperature=0.1,
        scalar_log_freq=400,
        checkpoint_freq=400,
        eval_batch_size=400,
    )
    returns = [float(row["Eval_AverageReturn"]) for row in read_curve(folder)]
    assert returns[0] < -5
    assert returns[-1] > -3
