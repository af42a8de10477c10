"""Every preset is one that its programs take, says what it sets, and gives way to flags."""

from typing import Any

import pytest

from cs285.agents.registry import expand_flags, find_agent
from cs285.config import presets
from cs285.config.flags import from_flat, to_flat
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.envs import inspect_task
from cs285.experiments.suites import RESEARCH_FILE, read_experiments
from cs285.infrastructure.errors import UsageError
from cs285.scripts import run_hw4_mb
from cs285.scripts.reproduce import run_of

CONFIGS: dict[str, Any] = {"mb": MBConfig, "mbpo": MBPOConfig}
OF_PROGRAM = [(script, name) for script in CONFIGS for name in presets.names(script)]


def flags_of(script: str, **given: Any) -> dict[str, Any]:
    config = from_flat(CONFIGS[script], presets.expand(script, CONFIGS[script], given))
    return to_flat(config)


@pytest.mark.parametrize(("script", "name"), OF_PROGRAM)
def test_every_preset_is_taken_as_it_stands(script: str, name: str) -> None:
    flags = flags_of(script, preset=name)
    wanted = presets.flags_for(CONFIGS[script], name)
    assert {flag: flags[flag] for flag in wanted} == wanted
    preset = presets.read(name)
    assert wanted == preset["flags"] or (script == "mb" and "mbpo" in preset["scripts"])
    if flags["env_name"]:
        inspect_task(flags["env_name"])


@pytest.mark.parametrize(
    ("name", "updates", "entropy", "lengths"),
    [  # FACTS of the paper: updates per env step, target entropy, length at 0, 85k, 300k env steps
        ("mbpo_hopper", 20, -1, (1, 7, 15)),
        ("mbpo_walker2d", 20, -3, (1, 1, 1)),
        ("mbpo_halfcheetah", 40, -3, (1, 1, 1)),
        ("mbpo_ant", 20, -4, (1, 19, 25)),
        ("mbpo_humanoid", 20, -2, (1, 6, 24)),
        ("mbpo_inverted_pendulum", 10, -0.05, (1, 1, 1)),
    ],
)
def test_the_papers_numbers(
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


@pytest.mark.parametrize(
    ("name", "horizon", "candidates", "elites"),
    [("pets_cheetah", 30, 500, 50), ("pets_reacher", 25, 400, 40)],
)
def test_the_numbers_of_pets(name: str, horizon: int, candidates: int, elites: int) -> None:
    config = from_flat(MBConfig, presets.expand("mb", MBConfig, {"preset": name}))
    model, planner = config.model, config.planner
    assert (model.model, model.ensemble_size, model.num_elites) == ("probabilistic", 5, None)
    assert (planner.mpc_propagation, planner.mpc_particles) == ("tsinf", 20)
    assert (planner.mpc_action_sampling_strategy, planner.mpc_warm_start) == ("cem", "on")
    assert (planner.mpc_horizon, planner.mpc_num_action_sequences) == (horizon, candidates)
    assert (planner.cem_iterations, planner.cem_num_elites) == (5, elites)
    assert planner.cem_alpha == 0.9  # a tenth of the old mean stays


def test_the_command_line_wins_and_both_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    flags = flags_of("mbpo", preset="mbpo_hopper", sac_n_iter=3, n_layers=2)
    assert (flags["sac_n_iter"], flags["n_layers"], flags["size"]) == (3, 2, 200)
    assert flags["weight_decay"] == "0"  # the paper's is of four hidden layers
    first, leaves, second, more, out = capsys.readouterr().out.splitlines()
    assert first.startswith("--preset mbpo_hopper sets --env_name Hopper-v5 ")
    assert "--continue_episodes " in first
    assert "--sac_n_iter" not in first
    assert leaves == "--preset mbpo_hopper leaves --sac_n_iter 3"
    assert second.startswith("--model probabilistic sets --model_loss nll --ensemble_size 7 ")
    assert more == "--model probabilistic leaves --n_layers 2"
    assert out == (
        "--model probabilistic leaves out --weight_decay, which goes with another --n_layers"
    )


def test_a_probabilistic_model_brings_its_ensemble_as_far_as_it_fits() -> None:
    assert flags_of("mb", model="probabilistic")["num_elites"] == 5
    assert flags_of("mb", model="probabilistic", ensemble_size=3)["num_elites"] is None
    assert flags_of("mb", model="probabilistic", holdout_ratio=0.0)["num_elites"] is None
    for given in ({"model": "probabilistic"}, {"preset": "probabilistic"}):
        plain = flags_of("mb", **given, holdout_ratio=0.0)
        assert plain["num_agent_train_steps_per_iter"] == 1000  # not the bound of a hold-out fit
        assert flags_of("mb", **given, n_layers=3)["weight_decay"] == "0"
        assert flags_of("mb", **given, ensemble_size=3)["num_elites"] is None
    assert flags_of("mb")["activation"] == "tanh"


def test_a_probabilistic_model_draws_in_rollouts_where_there_are_some() -> None:
    assert "mbpo_propagation" not in flags_of("mb", model="probabilistic")
    assert flags_of("mbpo", model="probabilistic")["mbpo_propagation"] == "random_member"
    given = {"model": "probabilistic", "mbpo_propagation": "mean"}
    assert flags_of("mbpo", **given)["mbpo_propagation"] == "mean"
    assert flags_of("mbpo")["mbpo_propagation"] == "mean"


@pytest.mark.parametrize("name", ["pets_cheetah", "pets_reacher"])
def test_pets_is_fitted_after_each_episode(name: str) -> None:
    run = from_flat(MBConfig, presets.expand("mb", MBConfig, {"preset": name})).run
    assert run.batch_size == inspect_task(run.env_name).ep_len
    steps = run.batch_size_initial + (run.n_iter - 1) * run.batch_size
    assert f", {steps // 1000}k env steps;" in presets.read(name)["about"]


def test_particles_of_a_preset_go_with_its_members() -> None:
    for given in ({"ensemble_size": 3}, {"ensemble_size": 4, "num_elites": 3}):
        flags = flags_of("mb", preset="pets_cheetah", **given)
        assert flags["mpc_particles"] is None
    assert flags_of("mb", preset="pets_cheetah", size=9)["mpc_particles"] == 20


def test_a_given_length_takes_the_schedules_place() -> None:
    flags = flags_of("mbpo", preset="mbpo_hopper", mbpo_rollout_length=5)
    assert (flags["mbpo_rollout_schedule"], flags["mbpo_rollout_length"]) == (None, 5)
    assert flags_of("mbpo", preset="mbpo_hopper", mbpo_rollout_length=0)["mbpo_rollout_length"] == 0


def test_a_given_sac_batch_size_goes_before_the_presets_batch_size() -> None:
    given = {"preset": "mbpo_hopper", "sac_batch_size": 10}
    assert expand_flags(find_agent("mbpo"), given)["batch_size"] == 10
    both = {**given, "batch_size": 20}
    assert expand_flags(find_agent("mbpo"), both)["batch_size"] == 20


def test_unknown_presets_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_hw4_mb.main(["--preset", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == presets.names("mb")


def test_a_preset_that_is_none() -> None:
    for name in ("nonsense", presets.LIST):  # of a sweep, which has nothing to list
        with pytest.raises(UsageError, match=f"--preset {name}: must be one of pets_cheetah"):
            presets.expand("mb", MBConfig, {"preset": name})


def test_experiments_of_research_are_what_the_programs_take() -> None:
    """Their presets are expanded as the programs do it."""
    for experiment in read_experiments(RESEARCH_FILE):
        job = run_of(experiment, 1)
        if "--preset" in experiment.flags:
            name = experiment.flags[experiment.flags.index("--preset") + 1]
            assert job.settings["env_name"] == presets.read(name)["flags"]["env_name"]
        assert job.settings["seed"] == 1
