"""The settings of the SAC learner."""

from __future__ import annotations

from dataclasses import dataclass

from cs285.config.flags import COUNT, FINITE, LAYERS, NOT_NEGATIVE, RATE, UNIT, Check, flag, one_of
from cs285.infrastructure.errors import UsageError

INIT = one_of("torch", "lecun", "he", "orthogonal")


@dataclass(frozen=True)
class SACConfig:
    """the SAC learner"""

    sac_n_iter: int = flag(200, "SAC iterations per trainer iteration", check=COUNT)
    sac_n_iter_initial: int | None = flag(
        None, "SAC iterations in trainer iteration 0 (default: --sac_n_iter)", check=COUNT
    )
    sac_num_agent_train_steps_per_iter: int = flag(
        1, "SAC updates per SAC iteration, each with a new batch", check=COUNT
    )
    sac_num_critic_updates_per_agent_update: int = flag(
        1, "gradient steps on the Q networks per update", check=COUNT
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
        3e-4, "Adam's learning rate for the policy, the Q networks and the temperature", check=RATE
    )
    sac_n_layers: int = flag(2, "hidden layers of the policy and of each Q network", check=LAYERS)
    sac_size: int = flag(64, "units of each hidden layer", check=COUNT)
    sac_activation: str = flag(
        "relu",
        "activation of the hidden layers of the policy and of the Q networks: relu or swish",
        check=one_of("relu", "swish"),
    )
    sac_policy_init: str = flag(
        "torch",
        "initial weights of the policy: uniform with variance 1/3 (torch, as in torch.nn.Linear), "
        "1 (lecun) or 2 (he) over the number of inputs, or orthogonal matrices with zero biases",
        check=INIT,
    )
    sac_critic_init: str = flag(
        "torch",
        "initial weights of the Q networks: torch, lecun, he or orthogonal, as in "
        "--sac_policy_init; with --sac_value_bounds, the last layer is zero",
        check=INIT,
    )
    sac_policy_std: str = flag(
        "exp",
        "standard deviation of the policy before the tanh: exp (of the network's output, limited "
        "to 2e-9 to 7.4) or softplus (plus 1e-5)",
        check=one_of("exp", "softplus"),
    )
    sac_policy_averaging: float = flag(
        0.0,
        "let a moving average of the policy's weights act; at every actor step it moves by this "
        "share of the difference; 0: the weights of the last step act",
        check=UNIT,
    )
    sac_critics: int = flag(2, "number of Q networks", check=COUNT)
    sac_critics_drawn: int | None = flag(
        None,
        "number of target networks, drawn again in each critic step, whose minimum is the target "
        "value (default: all)",
        check=COUNT,
    )
    sac_actor_value: str = flag(
        "min",
        "value that the policy maximises: the minimum or the mean of the Q networks",
        check=one_of("min", "mean"),
    )
    sac_critic_layer_norm: float = flag(
        0.0,
        "epsilon of the LayerNorm without parameters after each hidden layer of the Q networks; 0: "
        "no LayerNorm",
        check=NOT_NEGATIVE,
    )
    sac_critic_dropout: float = flag(
        0.0,
        "share of hidden units that dropout sets to zero when the Q networks learn",
        check=Check(lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    )
    sac_value_bounds: float = flag(
        0.0,
        "limit target values to bounds that follow, at this rate per update, the 1% and 99% "
        "quantiles of reward / (1 - discount), and scale the Q networks by the bounds; with "
        "--mbpo_value_expansion, rewards include the entropy bonus; once a real or "
        "imagined episode has terminated, the bounds include 0; 0: no bounds",
        check=UNIT,
    )
    sac_obs_scaling: str = flag(
        "data",
        "data: normalise the observations for the policy and the Q networks by the mean and "
        "standard deviation of the real data, and clip them at 5 standard deviations; unclipped: "
        "normalise without clipping; none: do not scale them",
        check=one_of("data", "unclipped", "none"),
    )
    sac_target_rate: float = flag(
        0.005, "fraction by which the target networks move towards the Q networks", check=UNIT
    )
    sac_target_entropy: float | None = flag(
        None,
        "target of the entropy, to which the temperature is tuned, for actions scaled to [-1, 1] "
        "(default: minus the number of action dimensions)",
        check=FINITE,
    )

    def __post_init__(self) -> None:
        drawn = self.sac_critics_drawn or self.sac_critics
        if drawn > self.sac_critics:
            raise UsageError(
                f"--sac_critics_drawn {drawn}: must be at most --sac_critics ({self.sac_critics})"
            )
        if self.sac_value_bounds > 0 and self.sac_discount == 1:
            raise UsageError("--sac_discount 1: must be below 1 with --sac_value_bounds")

    def iterations_at(self, iteration: int) -> int:
        """Return the number of SAC iterations in a trainer iteration."""
        first = self.sac_n_iter_initial
        return self.sac_n_iter if iteration > 0 or first is None else first
