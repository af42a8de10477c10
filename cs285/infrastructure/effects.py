"""Which flags have no effect beside which others: said of a run, refused of a sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cs285.infrastructure.config import PlannerConfig, RolloutConfig
from cs285.infrastructure.flags import to_flat

Flat = dict[str, Any]  # every flag of a run and its value

# Of these the curves are the same, whatever they are.
NEUTRAL = (
    "exp_name", "data_dir", "num_workers", "which_gpu", "no_gpu", "video_log_freq", "save_params",
    "checkpoint_freq",
)  # fmt: skip
OF_THE_MODEL = (
    "model", "mean_loss", "ensemble_size", "num_elites", "n_layers", "size", "activation",
    "learning_rate", "train_batch_size", "weight_decay", "holdout_ratio", "fit_patience",
    "learned_reward", "termination", "add_sl_noise", "mbpo_refit_every",
)  # fmt: skip


TOLD_BY_ANOTHER = ("sac_batch_size",)  # it is --batch_size by then, or has lost against it


class Rule(NamedTuple):
    """Flags that have no effect where something holds of the others."""

    flags: tuple[str, ...]
    is_idle: Callable[[Flat], bool]
    reason: str  # its {names} are flags


def _names(group: type, but: Iterable[str] = ()) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(group) if field.name not in but)


def _starts_gaussian(flat: Flat) -> bool:
    strategy = flat["mpc_action_sampling_strategy"]
    return strategy in ("icem", "mppi") or (strategy == "cem" and flat["mpc_warm_start"] == "on")


def _has_one_uniform_population(flat: Flat) -> bool:
    is_cem = flat["mpc_action_sampling_strategy"] == "cem"
    return is_cem and flat["cem_iterations"] == 1 and not _starts_gaussian(flat)


def _particles_are_alike(flat: Flat) -> bool:
    return flat["mpc_propagation"] == "tsinf" and flat["model"] == "deterministic"


RULES = (
    Rule(
        _names(PlannerConfig),
        lambda flat: flat.get("mbpo_eval_planner") is False,
        "--mbpo_eval_planner is not given",
    ),
    Rule(
        _names(RolloutConfig, ("mbpo_rollout_length", "mbpo_refit_every", "mbpo_eval_planner")),
        lambda flat: flat.get("mbpo_rollout_length") == 0,
        "--mbpo_rollout_length is 0",
    ),
    Rule(
        ("mbpo_rollout_length",),
        lambda flat: flat.get("mbpo_rollout_schedule") is not None,
        "--mbpo_rollout_schedule takes its place",
    ),
    Rule(
        ("mbpo_models_kept",),
        lambda flat: flat.get("mbpo_model_buffer_size") is not None,
        "--mbpo_model_buffer_size takes its place",
    ),
    Rule(
        OF_THE_MODEL,
        lambda flat: flat["num_agent_train_steps_per_iter"] == 0,
        "--num_agent_train_steps_per_iter is 0",
    ),
    Rule(("fit_patience",), lambda flat: flat["holdout_ratio"] == 0, "--holdout_ratio is 0"),
    Rule(("mean_loss",), lambda flat: flat["model"] == "deterministic", "--model is deterministic"),
    Rule(
        ("cem_iterations", "cem_num_elites", "cem_alpha"),
        lambda flat: flat["mpc_action_sampling_strategy"] not in ("cem", "icem"),
        "--mpc_action_sampling_strategy is {mpc_action_sampling_strategy}",
    ),
    Rule(
        ("cem_alpha",),
        _has_one_uniform_population,
        "--cem_iterations is 1: there is no mean yet to weight elites against",
    ),
    Rule(
        ("icem_noise_beta", "icem_decay", "icem_reuse"),
        lambda flat: flat["mpc_action_sampling_strategy"] != "icem",
        "--mpc_action_sampling_strategy is {mpc_action_sampling_strategy}",
    ),
    Rule(
        ("mppi_temperature",),
        lambda flat: flat["mpc_action_sampling_strategy"] != "mppi",
        "--mpc_action_sampling_strategy is {mpc_action_sampling_strategy}",
    ),
    Rule(
        ("mpc_init_std",),
        lambda flat: not _starts_gaussian(flat),
        "no first population is Gaussian",
    ),
    Rule(
        ("mpc_particles",),
        lambda flat: flat["mpc_propagation"] == "mean",
        "--mpc_propagation is mean",
    ),
    Rule(
        ("mpc_particles",),
        _particles_are_alike,
        "states that stay with one deterministic member are all alike",
    ),
    Rule(
        ("mpc_propagation", "mpc_particles"),
        lambda flat: flat["ensemble_size"] == 1 and flat["model"] == "deterministic",
        "there is one member, and it is deterministic",
    ),
)


def signature(config: Any, idle: Iterable[str]) -> tuple[Any, ...]:
    """Return what makes a run the run it is: of two that have the same, the curves are the same.

    `idle` are its flags without effect.
    """
    flat = to_flat(config)
    flat["mpc_warm_start"] = config.planner.is_warm_started
    flat["weight_decay"] = tuple(config.model.decay_by_layer)
    left_out = {*idle, *NEUTRAL, *TOLD_BY_ANOTHER}
    return tuple(value for name, value in flat.items() if name not in left_out)


def idle_flags(flat: Flat) -> dict[str, str]:
    """Return the flags that have no effect in a run of these, and why."""
    found: dict[str, str] = {}
    for rule in RULES:
        if rule.is_idle(flat):
            reason = rule.reason.format_map(flat)
            found |= {name: reason for name in rule.flags if name in flat and name not in found}
    return found


def describe_idle(given: Flat, flat: Flat, defaults: Flat) -> list[str]:
    """Return a line per reason why flags that were `given` have no effect in a run of `flat`.

    Not of those that were given their default: scripts do so for all flags.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in idle_flags(flat).items():
        if name in given and given[name] != defaults[name]:
            by_reason.setdefault(reason, []).append(name)
    return [
        f"--{', --'.join(names)}: without effect, as {reason}"
        for reason, names in by_reason.items()
    ]
