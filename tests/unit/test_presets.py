"""Test that presets are valid, that flags override them, and that runs report what they set."""

from typing import Any

import pytest

from cs285.agents.registry import expand_flags, find_agent
from cs285.config import presets
from cs285.config.flags import from_flat, to_flat
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.config.pilco import PilcoConfig
from cs285.envs import inspect_task
from cs285.experiments.job import run_of
from cs285.experiments.suites import read_experiments
from cs285.infrastructure.errors import UsageError
from cs285.scripts import run_hw4_mb

CONFIGS: dict[str, Any] = {"mb": MBConfig, "mbpo": MBPOConfig, "pilco": PilcoConfig}
PRESETS = [(script, name) for script in CONFIGS for name in presets.names(script)]


def flags_of(script: str, **given: Any) -> dict[str, Any]:
    config = from_flat(CONFIGS[script], presets.expand(script, CONFIGS[script], given))
    return to_flat(config)


@pytest.mark.parametrize(("script", "name"), PRESETS)
def test_every_preset_sets_its_flags(script: str, name: str) -> None:
    flags = flags_of(script, preset=name)
    wanted = presets.flags_for(CONFIGS[script], name)
    assert {flag: flags[flag] for flag in wanted} == wanted
    preset = presets.read(name)
    assert wanted == preset["flags"] or (script == "mb" and "mbpo" in preset["scripts"])
    if flags["env_name"]:
        inspect_task(flags["env_name"])


@pytest.mark.parametrize(
    ("name", "updates", "entropy", "lengths"),
    [  # from the paper: updates per env step, target entropy, length at 0, 85k and 300k env steps
        ("mbpo_hopper", 20, -1, (1, 7, 15)),
        ("mbpo_walker2d", 20, -3, (1, 1, 1)),
        ("mbpo_halfcheetah", 40, -3, (1, 1, 1)),
        ("mbpo_ant", 20, -4, (1, 19, 25)),
        ("mbpo_humanoid", 20, -2, (1, 6, 24)),
        ("mbpo_inverted_pendulum", 10, -0.05, (1, 1, 1)),
    ],
)
def test_mbpo_presets_have_the_numbers_of_the_paper(
    name: str, updates: int, entropy: float, lengths: tuple[int, ...]
) -> None:
    config = from_flat(MBPOConfig, presets.expand("mbpo", MBPOConfig, {"preset": name}))
    sac, rollouts, model, run = config.sac, config.rollouts, config.model, config.run
    assert (run.batch_size, sac.sac_n_iter) == (1, updates)
    assert sac.sac_target_entropy == entropy
    assert tuple(rollouts.length_at(steps) for steps in (0, 85_000, 300_000)) == lengths
    assert rollouts.mbpo_rollouts_per_sac_iter * rollouts.mbpo_rollout_every == 100_000
    assert rollouts.mbpo_rollout_every == rollouts.mbpo_refit_every * updates
    assert (model.ensemble_size, model.num_elites, model.n_layers) == (7, 5, 4)
    assert model.size == (400 if name == "mbpo_humanoid" else 200)
    assert (model.activation, model.learning_rate, model.train_batch_size) == ("swish", 1e-3, 256)
    assert model.weight_decay == "2.5e-5,5e-5,7.5e-5,7.5e-5,1e-4"
    assert (model.holdout_ratio, model.fit_patience) == (0.2, 5)
    assert (rollouts.mbpo_real_ratio, rollouts.mbpo_propagation) == (0.05, "random_member")
    assert (sac.sac_discount, sac.sac_target_rate, sac.sac_learning_rate) == (0.99, 0.005, 3e-4)
    assert (sac.sac_n_layers, sac.sac_size, sac.sac_train_batch_size) == (2, 256, 256)
    assert (sac.sac_obs_scaling, sac.sac_num_agent_train_steps_per_iter) == ("none", 1)
    humanoid, pendulum = name == "mbpo_humanoid", name == "mbpo_inverted_pendulum"
    assert rollouts.mbpo_refit_every == (1000 if humanoid else 250)
    assert run.batch_size_initial == (500 if pendulum else 5000)
    epoch = 250 if pendulum else 1000
    assert rollouts.mbpo_models_kept * rollouts.mbpo_refit_every == epoch * (5 if humanoid else 1)


def test_likelihood_of_a_preset_does_not_apply_to_a_deterministic_ensemble() -> None:
    flags = flags_of("mb", preset="probabilistic", model="deterministic")
    assert (flags["model"], flags["model_loss"]) == ("deterministic", "mse")


@pytest.mark.parametrize(
    ("name", "horizon", "candidates", "elites"),
    [("pets_cheetah", 30, 500, 50), ("pets_reacher", 25, 400, 40)],
)
def test_pets_presets_have_the_numbers_of_the_paper(
    name: str, horizon: int, candidates: int, elites: int
) -> None:
    config = from_flat(MBConfig, presets.expand("mb", MBConfig, {"preset": name}))
    model, planner = config.model, config.planner
    assert (model.model, model.ensemble_size, model.num_elites) == ("probabilistic", 5, None)
    assert (planner.mpc_propagation, planner.mpc_particles) == ("tsinf", 20)
    assert (planner.mpc_action_sampling_strategy, planner.mpc_warm_start) == ("cem", "on")
    assert (planner.mpc_horizon, planner.mpc_num_action_sequences) == (horizon, candidates)
    assert (planner.cem_iterations, planner.cem_num_elites) == (5, elites)
    assert planner.cem_alpha == 0.9  # the paper gives the weight of the old mean, 0.1


def test_the_command_line_overrides_a_preset_and_the_run_reports_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = flags_of("mbpo", preset="mbpo_hopper", sac_n_iter=3, n_layers=2)
    assert (flags["sac_n_iter"], flags["n_layers"], flags["size"]) == (3, 2, 200)
    assert flags["weight_decay"] == "0"  # the preset's value is for four hidden layers
    lines = capsys.readouterr().out.splitlines()
    preset_sets, preset_skips, model_sets, model_skips, not_applicable = lines
    assert preset_sets.startswith("--preset mbpo_hopper sets --env_name Hopper-v5 ")
    assert "--continue_episodes " in preset_sets
    assert "--sac_n_iter" not in preset_sets
    assert preset_skips == "--preset mbpo_hopper does not override --sac_n_iter 3"
    assert model_sets.startswith("--model probabilistic sets --model_loss nll ")
    assert model_skips == "--model probabilistic does not override --n_layers 2"
    assert not_applicable == (
        "--model probabilistic does not set --weight_decay because --n_layers is already set"
    )


def test_reason_for_a_flag_that_needs_a_validation_set(capsys: pytest.CaptureFixture[str]) -> None:
    flags_of("mb", model="probabilistic", holdout_ratio=0.0)
    line = "--model probabilistic does not set --num_elites because --holdout_ratio is 0"
    assert line in capsys.readouterr().out.splitlines()


def test_a_probabilistic_model_sets_the_applicable_flags_of_its_preset() -> None:
    assert flags_of("mb", model="probabilistic")["num_elites"] == 5
    assert flags_of("mb", model="probabilistic", ensemble_size=3)["num_elites"] is None
    assert flags_of("mb", model="probabilistic", holdout_ratio=0.0)["num_elites"] is None
    for given in ({"model": "probabilistic"}, {"preset": "probabilistic"}):
        plain = flags_of("mb", **given, holdout_ratio=0.0)
        assert plain["num_agent_train_steps_per_iter"] == 1000  # not the limit for early stopping
        assert flags_of("mb", **given, n_layers=3)["weight_decay"] == "0"
        assert flags_of("mb", **given, ensemble_size=3)["num_elites"] is None
    assert flags_of("mb")["activation"] == "tanh"


def test_a_probabilistic_model_sets_the_propagation_of_model_rollouts() -> None:
    assert "mbpo_propagation" not in flags_of("mb", model="probabilistic")
    assert flags_of("mbpo", model="probabilistic")["mbpo_propagation"] == "random_member"
    given = {"model": "probabilistic", "mbpo_propagation": "mean"}
    assert flags_of("mbpo", **given)["mbpo_propagation"] == "mean"
    assert flags_of("mbpo")["mbpo_propagation"] == "mean"


@pytest.mark.parametrize("name", ["pets_cheetah", "pets_reacher"])
def test_pets_presets_fit_after_each_episode(name: str) -> None:
    run = from_flat(MBConfig, presets.expand("mb", MBConfig, {"preset": name})).run
    assert run.batch_size == inspect_task(run.env_name).ep_len
    steps = run.batch_size_initial + (run.n_iter - 1) * run.batch_size
    assert f", {steps // 1000}k env steps;" in presets.read(name)["about"]


def test_a_preset_sets_the_particles_only_for_its_own_number_of_members() -> None:
    for given in ({"ensemble_size": 3}, {"ensemble_size": 4, "num_elites": 3}):
        flags = flags_of("mb", preset="pets_cheetah", **given)
        assert flags["mpc_particles"] is None
    assert flags_of("mb", preset="pets_cheetah", size=9)["mpc_particles"] == 20


def test_a_given_rollout_length_replaces_the_schedule_of_a_preset() -> None:
    flags = flags_of("mbpo", preset="mbpo_hopper", mbpo_rollout_length=5)
    assert (flags["mbpo_rollout_schedule"], flags["mbpo_rollout_length"]) == (None, 5)
    assert flags_of("mbpo", preset="mbpo_hopper", mbpo_rollout_length=0)["mbpo_rollout_length"] == 0


def test_a_run_without_model_rollouts_keeps_the_model_that_its_preset_uses() -> None:
    given = {"preset": "dhmbpo", "mbpo_rollout_length": 0}
    flags = expand_flags(find_agent("mbpo"), given)
    assert flags["num_agent_train_steps_per_iter"] == 2000
    alone = expand_flags(find_agent("mbpo"), given | {"mbpo_value_expansion": 0})
    assert alone["num_agent_train_steps_per_iter"] == 0


def test_a_given_sac_batch_size_overrides_the_batch_size_of_a_preset() -> None:
    given = {"preset": "mbpo_hopper", "sac_batch_size": 10}
    assert expand_flags(find_agent("mbpo"), given)["batch_size"] == 10
    both = {**given, "batch_size": 20}
    assert expand_flags(find_agent("mbpo"), both)["batch_size"] == 20


def test_invalid_uses_of_preset_give_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--preset", "mbpo_hopper"], "--preset mbpo_hopper: must be one of pets_cheetah"),
        (
            ["--preset", "list", "--preset", "pets_cheetah"],
            "--preset pets_cheetah: must be given once",
        ),
        (
            ["--preset", "pets_cheetah", "--resume", "x"],
            "--preset pets_cheetah: must not be given with --resume",
        ),
    ):
        assert run_hw4_mb.main(words) == 2
        assert message in capsys.readouterr().err


def test_preset_list_prints_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_hw4_mb.main(["--preset", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == presets.names("mb")


def test_unknown_preset_gives_an_error() -> None:
    for name in ("nonsense", presets.LIST):  # a sweep cannot list presets
        with pytest.raises(UsageError, match=f"--preset {name}: must be one of pets_cheetah"):
            presets.expand("mb", MBConfig, {"preset": name})


def test_early_stopping_replaces_a_falling_rate_of_a_preset() -> None:
    given: dict[str, Any] = {"preset": "dhmbpo", "holdout_ratio": 0.2}
    flags = presets.expand("mbpo", MBPOConfig, given)
    assert from_flat(MBPOConfig, flags).model.learning_rate_schedule == "constant"


def test_a_falling_rate_of_a_preset_replaces_early_stopping_of_a_probabilistic_model() -> None:
    given: dict[str, Any] = {"preset": "dhmbpo", "model": "probabilistic"}
    model = from_flat(MBPOConfig, presets.expand("mbpo", MBPOConfig, given)).model
    assert (model.learning_rate_schedule, model.holdout_ratio) == ("falling", 0)
    assert (model.num_elites, model.num_agent_train_steps_per_iter) == (None, 2000)


def test_research_experiments_are_valid_runs() -> None:
    """Expand the presets of each experiment in the same way as the scripts do."""
    for experiment in read_experiments("research"):
        job = run_of(experiment, 1)
        if "--preset" in experiment.flags:
            name = experiment.flags[experiment.flags.index("--preset") + 1]
            flags = presets.read(name)["flags"]
            assert job.settings["env_name"] == flags.get("env_name", job.settings["env_name"])
        assert job.settings["seed"] == 1


def test_sac_alone_fits_no_model_unless_asked_for() -> None:
    steps = "num_agent_train_steps_per_iter"
    given: dict[str, Any] = {"mbpo_rollout_length": 0}
    assert expand_flags(find_agent("mbpo"), given)[steps] == 0
    assert expand_flags(find_agent("mbpo"), {**given, steps: 500})[steps] == 500
    assert steps not in expand_flags(find_agent("mbpo"), {**given, "mbpo_eval_planner": True})
    assert steps not in expand_flags(find_agent("mbpo"), {})


def test_dhmbpo_preset_has_the_numbers_of_the_paper() -> None:
    config = from_flat(MBPOConfig, presets.expand("mbpo", MBPOConfig, {"preset": "dhmbpo"}))
    run, model, rollouts, sac = config.run, config.model, config.rollouts, config.sac
    assert (run.batch_size_initial, run.batch_size) == (5000, 1000)
    assert (rollouts.mbpo_refit_every, rollouts.mbpo_restart_at_fit) == (1, True)
    assert rollouts.mbpo_critic_iters_after_fit == 250
    assert (sac.sac_n_iter, sac.sac_num_agent_train_steps_per_iter) == (run.batch_size, 1)
    assert sac.sac_n_iter_initial == run.batch_size_initial
    distribution = rollouts.mbpo_rollout_every, rollouts.mbpo_rollouts_per_block
    assert distribution == (20, 256)
    assert (rollouts.mbpo_rollout_length, rollouts.mbpo_real_ratio) == (20, 0)
    assert rollouts.mbpo_model_buffer_size == 256 * 20 * 10
    assert (rollouts.mbpo_value_expansion, rollouts.mbpo_propagation) == (5, "random_member")
    assert (sac.sac_critics, sac.sac_critics_drawn, sac.sac_actor_value) == (5, 2, "mean")
    assert (sac.sac_n_layers, sac.sac_size, sac.sac_activation) == (3, 256, "swish")
    assert (sac.sac_critic_layer_norm, sac.sac_critic_dropout) == (1e-5, 0.001)
    assert (sac.sac_value_bounds, sac.sac_policy_std) == (3e-4, "softplus")
    assert (sac.sac_discount, sac.sac_target_rate, sac.sac_init_temperature) == (0.995, 0.005, 0.1)
    assert (sac.sac_learning_rate, sac.sac_target_entropy) == (3e-4, None)
    assert (sac.sac_train_batch_size, sac.sac_obs_scaling) == (256, "unclipped")
    assert (model.model, model.ensemble_size, model.n_layers, model.size) == (
        "homoscedastic", 8, 3, 256,
    )  # fmt: skip
    assert (model.activation, model.learning_rate) == ("swish", 1e-3)
    assert (model.model_init, sac.sac_critic_init, sac.sac_policy_init) == ("he", "he", "lecun")
    assert (model.eps_by_layer, max(model.dropout_by_layer)) == ([1.0, 0.1, 0.01], 0.01)
    assert (model.decoupled_weight_decay, model.learned_reward) == (True, True)
    decay = list(map(float, model.weight_decay.split(",")))
    assert (decay[0], decay[-1]) == (0.00025, 0.001)


def test_a_flag_that_a_presets_flag_overrides_wins() -> None:
    flags = flags_of("mbpo", preset="dhmbpo", mbpo_rollouts_per_sac_iter=20)
    assert (flags["mbpo_rollouts_per_block"], flags["mbpo_rollouts_per_sac_iter"]) == (None, 20)
    flags = flags_of("mbpo", preset="dhmbpo", mbpo_models_kept=3)
    assert (flags["mbpo_model_buffer_size"], flags["mbpo_models_kept"]) == (None, 3)


@pytest.mark.parametrize(
    ("model", "loss"),
    [("homoscedastic", "nll"), ("probabilistic", "nll"), ("deterministic", "mse")],
)
def test_the_loss_of_a_preset_fits_a_model_that_is_given(model: str, loss: str) -> None:
    flags = flags_of("mbpo", preset="dhmbpo", model=model)
    assert (flags["model"], flags["model_loss"]) == (model, loss)
