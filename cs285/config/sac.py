"""The settings of the SAC learner."""

from __future__ import annotations

from dataclasses import dataclass

from cs285.config.flags import COUNT, FINITE, RATE, UNIT, flag, one_of


@dataclass(frozen=True)
class SACConfig:
    """the SAC learner"""

    sac_n_iter: int = flag(200, "SAC iterations per trainer iteration", check=COUNT)
    sac_num_agent_train_steps_per_iter: int = flag(
        1, "updates per SAC iteration, each on a batch of its own", check=COUNT
    )
    sac_num_critic_updates_per_agent_update: int = flag(
        1, "gradient steps on the twin Q per update", check=COUNT
    )
    sac_num_actor_updates_per_agent_update: int = flag(
        1, "gradient steps on policy and temperature per update that trains them", check=COUNT
    )
    sac_actor_update_frequency: int = flag(
        1, "updates between those that train the policy", check=COUNT
    )
    sac_critic_target_update_frequency: int = flag(
        1, "updates between those that move the target networks", check=COUNT
    )
    sac_train_batch_size: int = flag(256, "transitions per update", check=COUNT)
    sac_batch_size: int = flag(
        1000,
        "env steps collected per iteration, where it is given and --batch_size is not",
        check=COUNT,
        changes_curve=False,  # by then it is --batch_size, or has lost to it
    )
    sac_discount: float = flag(0.99, "discount factor", check=UNIT)
    sac_init_temperature: float = flag(1.0, "entropy temperature at the start", check=RATE)
    sac_learning_rate: float = flag(
        3e-4, "Adam's learning rate of policy, twin Q and temperature", check=RATE
    )
    sac_n_layers: int = flag(2, "hidden layers of policy and twin Q", check=COUNT)
    sac_size: int = flag(64, "width of their hidden layers", check=COUNT)
    sac_obs_scaling: str = flag(
        "data",
        "data: policy and twin Q see observations in units of their std; none: as they are",
        check=one_of("data", "none"),
    )
    sac_target_rate: float = flag(
        0.005, "how far the target networks move to the twin Q each time", check=UNIT
    )
    sac_target_entropy: float | None = flag(
        None,
        "entropy that the temperature is tuned to, of actions scaled to [-1, 1] (default: minus "
        "the action dimension)",
        check=FINITE,
    )
