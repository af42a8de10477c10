"""What a sweep's flags come to: values, trials, their names, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.experiments.job import DONE, FAILED
from cs285.experiments.sweeps import folder as sweep_folder
from cs285.experiments.sweeps.plan import Sweep
from cs285.experiments.sweeps.values import Choice, Range, parse, varied_fields
from cs285.infrastructure.errors import UsageError


def choice(name: str, text: str, config_class: Any = MBConfig) -> Choice:
    return parse(*varied_fields(config_class)[name], text)


def plan(script: str = "mb", **options: Any) -> Sweep:
    """Return a sweep; strings are flags of the program, all else is the sweep's."""
    config_class = MBPOConfig if script == "mbpo" else MBConfig
    flags = {"env_name": "obstacles-cs285-v0"}
    flags |= {name: text for name, text in options.items() if isinstance(text, str)}
    others = {name: value for name, value in options.items() if name not in flags}
    sampler = flags.pop("sampler", "random")
    choices = {name: choice(name, text, config_class) for name, text in flags.items()}
    return Sweep("s", script, choices, sampler=sampler, **others)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("size", "200,250", [200, 250]),
        ("size", "16:256:log", Range(16, 256, log=True, whole=True)),
        ("learning_rate", "1e-4:1e-2:log", Range(1e-4, 1e-2, log=True, whole=False)),
        ("learning_rate", "0.001", [0.001]),
        ("add_sl_noise", "true,false", [True, False]),
        ("mpc_action_sampling_strategy", "random,cem", ["random", "cem"]),
        ("weight_decay", "0;1e-5,1e-4,1e-4", ["0", "1e-5,1e-4,1e-4"]),
    ],
)
def test_values(name: str, text: str, expected: Choice) -> None:
    found = choice(name, text)
    assert found == expected if isinstance(expected, Range) else list(found) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("size", "200,0", "--size 0: allowed are"),
        ("size", "200,200", "--size 200,200: 200 is there twice"),
        ("size", "10:5", "--size 10:5: allowed are LOW:HIGH"),
        ("learning_rate", "0:1:log", "--learning_rate 0"),
        ("add_sl_noise", "yes", "--add_sl_noise yes: allowed are true and false"),
    ],
)
def test_values_that_are_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choice(name, text)


def test_grid_is_every_combination_by_readable_names() -> None:
    sweep = plan(size="16,32", seed="1,2", n_iter="3")
    sweep.check()
    names = [sweep.name_of(values) for values in sweep.values()]
    assert names == ["s_size16_seed1", "s_size16_seed2", "s_size32_seed1", "s_size32_seed2"]
    job = sweep.job(sweep.values()[3])
    assert job.n_iter == 3 and job.settings["size"] == 32 and job.settings["seed"] == 2
    assert {"--size=32", "--seed=2", "--exp_name=s_size32_seed2"} <= set(job.flags)


def test_search_draws_from_all_that_is_allowed() -> None:
    sweep = plan(size="16:64", learning_rate="1e-4:1e-2:log", n_layers="1,2", search=200)
    sweep.check()
    drawn = sweep.values()
    assert {values["size"] for values in drawn} == set(range(16, 65))
    assert {values["n_layers"] for values in drawn} == {1, 2}
    rates = [values["learning_rate"] for values in drawn]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-2
    assert 80 <= sum(rate < 1e-3 for rate in rates) <= 120  # even by the logarithm
    assert sweep.values() == drawn
    assert len({sweep.name_of(values) for values in drawn}) == 200
    assert plan(size="16:64", search=5, sampler_seed=2).values() != drawn[:5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cem_alpha": "0.5,1"}, "--cem_alpha 0.5,1.0: without effect, as "),
        ({"script": "mbpo", "mbpo_rollout_length": "0", "mbpo_model_buffer_size": "10000,20000"},
         "--mbpo_model_buffer_size 10000,20000: without effect, as "),
        ({"mpc_action_sampling_strategy": "cem", "cem_iterations": "1", "cem_alpha": "0.5,1"},
         "--cem_alpha 0.5,1.0: without effect, as --cem_iterations is 1"),
        ({"script": "mbpo", "mbpo_rollout_length": "0", "num_agent_train_steps_per_iter": "0",
          "mbpo_refit_every": "1,2"}, "--mbpo_refit_every 1,2: without effect"),
        ({"script": "mbpo", "mbpo_rollout_length": "0", "num_agent_train_steps_per_iter": "0",
          "add_sl_noise": "true,false"}, "--add_sl_noise true,false: without effect"),
        ({"video_log_freq": "1,2"}, "--video_log_freq: allowed is one value"),
        ({"size": "16:32"}, "--size: ranges are drawn from; allowed with --search"),
        ({"size": "16", "search": 3}, "--search 3: allowed where a flag has values"),
        ({"size": "16,32", "search": 3}, "--search 3: the flags have only 2 combinations"),
        ({"size": "16,32", "sampler": "optuna", "search": 3}, "--search 3: the flags have only 2"),
        ({"script": "mbpo", "batch_size": "1000", "sac_batch_size": "500,1000"},
         "--sac_batch_size 500,1000: without effect"),
        ({"mpc_action_sampling_strategy": "icem", "mpc_warm_start": "on,auto"},
         "--mpc_warm_start on,auto: without effect"),
        ({"ensemble_size": "1", "mpc_propagation": "ts1,mean"}, "--mpc_propagation ts1,mean: with"),
        ({"weight_decay": "1e-4;0.0001"}, "--weight_decay 1e-4,0.0001: without effect"),
        ({"num_elites": "1,4", "ensemble_size": "3"}, "--num_elites"),
    ],
)  # fmt: skip
def test_plans_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(**options).check()


def test_flag_that_has_an_effect_in_some_trials_only() -> None:
    """CEM's flags beside both strategies would make the same random-shooting run twice."""
    both = plan(mpc_action_sampling_strategy="random,cem", cem_num_elites="5,10")
    with pytest.raises(UsageError, match="--cem_num_elites 5,10: without effect"):
        both.check()


def test_false_wins_over_a_preset() -> None:
    sweep = plan("mbpo", preset="mbpo_hopper", continue_episodes="true,false")
    sweep.check()
    given, refused = (sweep.job(values) for values in sweep.values())
    assert "--continue_episodes" in given.flags and given.settings["continue_episodes"] is True
    assert "--no-continue_episodes" in refused.flags
    assert refused.settings["continue_episodes"] is False


def test_names_that_would_be_the_same_are_not() -> None:
    sweep = plan(env_name="a:b,a/b")
    assert len({sweep.name_of(values) for values in sweep.values()}) == 2


def test_optuna_tries_all_that_goes_together_once() -> None:
    """Five elites of three members are not allowed, and no size is tried twice."""
    pytest.importorskip("optuna")
    from cs285.experiments.sweeps.search import OptunaSearch

    sweep = plan(size="16,32", ensemble_size="3,6", num_elites="5", holdout_ratio="0.2", search=4)
    sweep = dataclasses.replace(sweep, sampler="optuna")
    known = sweep_folder.Trial(sweep, {"size": 16, "ensemble_size": 6})
    search = OptunaSearch(sweep, [known])
    assert search.suggest("a") == known.values  # it was open, and comes first
    search.on_trial_complete("a", {sweep.metric: 1.0})
    assert search.suggest("b") == {"size": 32, "ensemble_size": 6}
    assert search.suggest("c") == search.FINISHED
    known.job.state, known.result = DONE, {"iterations": "1", "metric": "1.0"}
    again = OptunaSearch(sweep, [known])
    assert again.suggest("a") == {"size": 32, "ensemble_size": 6}
    assert [trial.value for trial in again.study.trials[:1]] == [1.0]


@pytest.mark.parametrize("search", [0, 3])
def test_folder_gives_back_sweep_and_trials(search: int, tmp_path: Path) -> None:
    sizes = "16:32" if search else "16,32"
    sweep = plan(
        size=sizes, add_sl_noise="true,false", weight_decay="0;1e-5,1e-4,1e-4", search=search
    )
    folder = sweep_folder.create(sweep, tmp_path, "sweep.py")
    assert sweep_folder.read(folder) == sweep
    assert sweep_folder.read_trials(folder, sweep) == []
    trials = [sweep_folder.Trial(sweep, values) for values in sweep.values()]
    trials[0].job.state, trials[0].job.folder = DONE, folder / "hw4_x"
    trials[0].result = {"iterations": 3, "metric": -1.5}
    trials[1].job.state, trials[1].job.error = FAILED, 'said "no", and\nstopped'
    sweep_folder.write_table(folder, sweep.varied, trials)
    again = sweep_folder.read_trials(folder, sweep)
    assert [trial.values for trial in again] == [trial.values for trial in trials]
    assert [trial.job.name for trial in again] == [trial.job.name for trial in trials]
    assert again[0].job.folder == folder / "hw4_x"
    assert again[0].result == {"iterations": "3", "metric": "-1.5"}
    assert again[1].job.error == trials[1].job.error
