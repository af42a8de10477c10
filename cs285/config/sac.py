"""The settings of the SAC learner."""

from __future__ import annotations

from dataclasses import dataclass

from cs285.config.flags import COUNT, FINITE, LAYERS, RATE, UNIT, flag, one_of


@dataclass(frozen=True)
class SACConfig:
    """the SAC learner"""

    sac_n_iter: int = flag(200, "SAC iterations per trainer iteration", check=COUNT)
    sac_num_agent_train_steps_per_iter: int = flag(
        1, "SAC updates per SAC iteration, each with a new batch", check=COUNT
    )
    sac_num_critic_updates_per_agent_update: int = flag(
        1, "gradient steps on the twin Q per update", check=COUNT
    )
    sac_num_actor_updates_per_agent_update: int = flag(
        1,
        "gradient steps on the policy and the temperature per update that trains them",
        check=COUNT,
    )
    sac_actor_update_frequency: int = flag(
        1,
        "number of updates between two trainings of the policy and the temperature",
        check=COUNT,
    )
    sac_critic_target_update_frequency: int = flag(
        1, "number of updates between two moves of the target networks", check=COUNT
    )
    sac_train_batch_size: int = flag(256, "transitions in the batch of an update", check=COUNT)
    sac_batch_size: int = flag(
        1000,
        "env steps to collect per iteration, like --batch_size; it is used only if it is given and "
        "--batch_size is not",
        check=COUNT,
        changes_curve=False,  # only --batch_size, which it sets, has an effect
    )
    sac_discount: float = flag(0.99, "discount factor", check=UNIT)
    sac_init_temperature: float = flag(
        1.0, "initial temperature, the weight of the entropy", check=RATE
    )
    sac_learning_rate: float = flag(
        3e-4, "Adam's learning rate for the policy, the twin Q and the temperature", check=RATE
    )
    sac_n_layers: int = flag(2, "hidden layers of the policy and of each Q network", check=LAYERS)
    sac_size: int = flag(64, "units of each hidden layer", check=COUNT)
    sac_obs_scaling: str = flag(
        "data",
        "data: normalise the observations for the policy and the twin Q by the mean and standard "
        "deviation of the real data; none: do not scale them",
        check=one_of("data", "none"),
    )
    sac_target_rate: float = flag(
        0.005, "fraction by which the target networks move towards the twin Q", check=UNIT
    )
    sac_target_entropy: float | None = flag(
        None,
        "target of the entropy, to which the temperature is tuned, for actions scaled to [-1, 1] "
        "(default: minus the number of action dimensions)",
        check=FINITE,
    )
