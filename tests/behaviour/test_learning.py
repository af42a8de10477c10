"""The whole loop learns: on the point mass, and on a task whose reward must be learned too."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import read_curve

Run = Callable[..., Path]


def test_point_mass_reaches_the_goal(run_tiny: Run) -> None:
    """Random actions return about -165 here; a true model and this planner reach about -25."""
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


def test_pendulum_is_planned_with_a_learned_reward(run_tiny: Run) -> None:
    """Pendulum-v1 gives no get_reward: random actions return about -1200, planned ones far more."""
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
