"""Tests of the definition of a sweep: values, trials, names, errors, search and early stopping."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.experiments.job import DONE, FAILED, RUNNING, STOPPED, WAITING
from cs285.experiments.launchers.base import Node, Share
from cs285.experiments.sweeps import folder as sweep_folder
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.trials import Trials, share_of
from cs285.experiments.sweeps.values import Choice, Range, parse, varied_fields
from cs285.infrastructure.errors import UsageError
from tests.unit.test_run_queue import FakeLauncher, FakeProcess


def choice(name: str, text: str, config_class: Any = MBConfig) -> Choice:
    return parse(*varied_fields(config_class)[name], text)


MANY = ",".join(map(str, range(1, 2001)))


def make_sweep(script: str = "mb", **options: Any) -> Sweep:
    """Return a sweep. String options are flags of the agent, other options are fields of Sweep."""
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
def test_parsed_values(name: str, text: str, expected: Choice) -> None:
    found = choice(name, text)
    assert found == expected if isinstance(expected, Range) else list(found) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("size", "200,0", "--size 0: must be"),
        ("size", "200,200", "--size 200,200: 200 is repeated"),
        ("size", "10:5", "--size 10:5: must be LOW:HIGH or LOW:HIGH:log"),
        ("learning_rate", "0:1:log", "--learning_rate 0"),
        ("add_sl_noise", "yes", "--add_sl_noise yes: must be true or false"),
    ],
)
def test_invalid_values(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choice(name, text)


def test_grid_has_every_combination_with_readable_names() -> None:
    sweep = make_sweep(size="16,32", seed="1,2", n_iter="3")
    sweep.check()
    names = [sweep.name_of(values) for values in sweep.values()]
    assert names == ["s_size16_seed1", "s_size16_seed2", "s_size32_seed1", "s_size32_seed2"]
    job = sweep.job(sweep.values()[3])
    assert job.n_iter == 3 and job.settings["size"] == 32 and job.settings["seed"] == 2
    assert {"--size=32", "--seed=2", "--exp_name=s_size32_seed2"} <= set(job.flags)


def test_search_draws_from_all_values() -> None:
    sweep = make_sweep(size="16:64", learning_rate="1e-4:1e-2:log", n_layers="1,2", search=200)
    sweep.check()
    drawn = sweep.values()
    assert {values["size"] for values in drawn} == set(range(16, 65))
    assert {values["n_layers"] for values in drawn} == {1, 2}
    rates = [values["learning_rate"] for values in drawn]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-2
    assert 80 <= sum(rate < 1e-3 for rate in rates) <= 120  # log-uniform
    assert sweep.values() == drawn
    assert len({sweep.name_of(values) for values in drawn}) == 200
    assert make_sweep(size="16:64", search=5, sampler_seed=2).values() != drawn[:5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cem_alpha": "0.5,1"}, "--cem_alpha 0.5,1.0: must be values .* the same run, because "),
        ({"script": "mbpo", "mbpo_rollout_length": "0", "mbpo_model_buffer_size": "10000,20000"},
         "--mbpo_model_buffer_size 10000,20000: must be values .* the same run, because "),
        ({"mpc_action_sampling_strategy": "cem", "cem_iterations": "1", "cem_alpha": "0.5,1"},
         "--cem_alpha 0.5,1.0: must be values .* because --cem_iterations is 1"),
        ({"script": "mbpo", "mbpo_rollout_length": "0", "num_agent_train_steps_per_iter": "0",
          "mbpo_refit_every": "1,2"}, "--mbpo_refit_every 1,2: must be values"),
        ({"script": "mbpo", "mbpo_rollout_length": "0", "num_agent_train_steps_per_iter": "0",
          "add_sl_noise": "true,false"}, "--add_sl_noise true,false: must be values"),
        ({"video_log_freq": "1,2"}, "--video_log_freq: must be a single value"),
        ({"size": "16:32"}, "--size: must be a list of values; a range needs --search"),
        ({"size": "16", "search": 3}, "--search 3: must be given with a flag that has several"),
        ({"size": "16,32", "search": 3}, "--search 3: must be at most 2, the number of combin"),
        ({"size": "16,32", "sampler": "optuna", "search": 3}, "--search 3: must be at most 2, "),
        ({"script": "mbpo", "batch_size": "1000", "sac_batch_size": "500,1000"},
         "--sac_batch_size 500,1000: must be values"),
        ({"mpc_action_sampling_strategy": "icem", "mpc_warm_start": "on,auto"},
         "--mpc_warm_start on,auto: must be values"),
        ({"ensemble_size": "1", "mpc_propagation": "ts1,mean"}, "--mpc_propagation ts1,mean: must"),
        ({"weight_decay": "1e-4;0.0001"}, "--weight_decay 1e-4,0.0001: must be values"),
        ({"num_elites": "1,4", "ensemble_size": "3"}, "--num_elites"),
        ({"size": MANY, "seed": MANY}, "--size: must have fewer values; the sweep has 4000000 c"),
        ({"size": MANY, "seed": MANY, "sampler": "optuna", "search": 3}, "--size: must have fewer"),
        ({"size": "1:1000000", "search": 10**6}, "--search 1000000: must be at most 10000"),
    ],
)  # fmt: skip
def test_invalid_sweeps(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_sweep(**options).check()


def test_flag_with_an_effect_in_some_trials_only() -> None:
    """With random shooting, two values of a CEM flag would give the same run twice."""
    both = make_sweep(mpc_action_sampling_strategy="random,cem", cem_num_elites="5,10")
    with pytest.raises(UsageError, match="--cem_num_elites 5,10: must be values"):
        both.check()


def test_false_overrides_a_preset() -> None:
    sweep = make_sweep("mbpo", preset="mbpo_hopper", continue_episodes="true,false")
    sweep.check()
    on, off = (sweep.job(values) for values in sweep.values())
    assert "--continue_episodes" in on.flags and on.settings["continue_episodes"] is True
    assert "--no-continue_episodes" in off.flags
    assert off.settings["continue_episodes"] is False


def test_similar_values_give_different_names() -> None:
    sweep = make_sweep(env_name="a:b,a/b")
    assert len({sweep.name_of(values) for values in sweep.values()}) == 2


def test_flag_that_sets_another_flag_may_be_varied() -> None:
    sweep = make_sweep("mbpo", sac_batch_size="500,1000")
    sweep.check()
    assert [sweep.job(values).settings["batch_size"] for values in sweep.values()] == [500, 1000]


def log(trial: sweep_folder.Trial, folder: Path, metrics: list[float], state: str) -> None:
    """Give a trial a state, and a log folder with one row per metric."""
    trial.job.folder = folder / f"hw4_{trial.job.name}_task"
    trial.job.folder.mkdir(exist_ok=True)
    rows = "".join(f"{index},{metric}\n" for index, metric in enumerate(metrics))
    (trial.job.folder / "progress.csv").write_text(f"Iteration,Eval_AverageReturn\n{rows}")
    trial.job.state = state


def drawn(trials: Trials, number: int) -> list[sweep_folder.Trial]:
    """Draw new trials, mark them as running and return them."""
    jobs = [trials.next_job() for _ in range(number)]
    found = [trials.by_name[job.name] for job in jobs if job]
    for trial in found:
        trial.job.process, trial.job.state = FakeProcess(130), RUNNING
    return found


def test_optuna_tries_each_valid_combination_once(tmp_path: Path) -> None:
    """Five elites of three members are invalid, and no size is tried twice."""
    pytest.importorskip("optuna")
    sweep = make_sweep(
        size="16,32", ensemble_size="3,6", num_elites="5", holdout_ratio="0.2", search=4
    )
    sweep = dataclasses.replace(sweep, sampler="optuna")
    known = sweep_folder.Trial(sweep, {"size": 16, "ensemble_size": 6})
    sweep_folder.write_table(tmp_path, sweep.varied, [known])
    trials = Trials(sweep, tmp_path)
    assert [job.name for job in trials.jobs] == [known.job.name]
    assert [trial.values for trial in drawn(trials, 2)] == [{"size": 32, "ensemble_size": 6}]
    assert trials.is_exhausted
    log(known, tmp_path, [1.0], DONE)
    sweep_folder.write_table(tmp_path, sweep.varied, [known])
    again = Trials(sweep, tmp_path)
    assert again.search is not None
    again.on_end(again.jobs[0])
    assert [trial.value for trial in again.search.study.trials] == [1.0]
    assert [trial.values for trial in drawn(again, 2)] == [{"size": 32, "ensemble_size": 6}]


def test_optuna_learns_which_values_are_better(tmp_path: Path) -> None:
    """The return decreases with the distance of the size from 500. Later trials are near 500."""
    pytest.importorskip("optuna")
    sweep = dataclasses.replace(make_sweep(size="1:1000", search=60), sampler="optuna")
    trials, sizes = Trials(sweep, tmp_path), list[int]()
    for _ in range(60):
        (trial,) = drawn(trials, 1)
        log(trial, tmp_path, [-abs(trial.values["size"] - 500.0)], DONE)
        trials.on_end(trial.job)
        sizes.append(trial.values["size"])
    early, late = (sum(abs(size - 500) for size in part) / 10 for part in (sizes[:10], sizes[-10:]))
    assert late < early / 2


def test_killed_search_draws_the_same_trials(tmp_path: Path) -> None:
    """A trial is in sweep.csv before it starts, and a resumed search continues its draws."""
    pytest.importorskip("optuna")
    sweep = dataclasses.replace(
        make_sweep(size="16:64", learning_rate="1e-4:1e-2:log", search=5), sampler="optuna"
    )
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = [trial.values for trial in drawn(Trials(sweep, tmp_path / "whole"), 9)]
    assert len(whole) == 5
    drawn(Trials(sweep, tmp_path / "killed"), 2)
    resumed = Trials(sweep, tmp_path / "killed")
    assert [job.state for job in resumed.jobs] == [WAITING] * 2
    drawn(resumed, 3)
    assert [trial.values for trial in resumed.by_name.values()] == whole


def asha_sweep(n_iter: int) -> Sweep:
    return dataclasses.replace(
        make_sweep(size="16,17,18,19,20,21", n_iter=str(n_iter)), asha=True, sampler="random"
    )


@pytest.mark.parametrize(
    ("n_iter", "rungs"), [(2, [1]), (4, [1, 3]), (9, [1, 3]), (20, [2, 6]), (90, [10, 30])]
)
def test_asha_judges_at_a_ninth_and_a_third(n_iter: int, rungs: list[int], tmp_path: Path) -> None:
    """Six trials have different returns. The best third of the returns so far continues."""
    pytest.importorskip("optuna")
    trials = Trials(asha_sweep(n_iter), tmp_path)
    stopped: dict[int, int] = {}
    for rank, trial in enumerate(trials.by_name.values()):  # the best comes first
        trial.job.process, trial.job.state = FakeProcess(130), RUNNING
        log(trial, tmp_path, [], RUNNING)
        for iterations in range(1, n_iter + 1):
            log(trial, tmp_path, [-rank] * iterations, RUNNING)
            trials.watch(trial.job)
            if trial.job.asked_to_end:
                assert trial.job.asked_to_end == (STOPPED, "")
                stopped[rank] = iterations
                break
    # The first trial has no competitor. Each later trial is below the best third, which consists
    # of the first trial.
    assert stopped == dict.fromkeys(range(1, 6), rungs[0])


def test_asha_judges_again_at_the_second_rung(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    trials = Trials(asha_sweep(9), tmp_path)
    first, second = list(trials.by_name.values())[:2]
    for trial, metrics, is_stopped in (
        (first, [1.0, 9.0, 5.0], False),
        (second, [2.0, 0.0], False),
        (second, [2.0, 0.0, 4.0], True),
        (first, [1.0, 9.0, 5.0, *[0.0] * 6], False),  # there is no third rung
    ):
        trial.job.process = FakeProcess(130)
        log(trial, tmp_path, metrics, RUNNING)
        trials.watch(trial.job)
        assert bool(trial.job.asked_to_end) == is_stopped


def test_asha_of_a_resumed_sweep_uses_the_logged_rows(tmp_path: Path) -> None:
    """Rows that a trial logged before it was resumed count for other trials, but do not stop it."""
    pytest.importorskip("optuna")
    sweep = asha_sweep(9)
    before = Trials(sweep, tmp_path)
    done, stopped, half, fresh, *_ = before.by_name.values()
    log(done, tmp_path, [5.0] * 9, DONE)
    log(stopped, tmp_path, [4.0], STOPPED)
    log(half, tmp_path, [4.5, 4.5], RUNNING)
    before.show()
    trials = Trials(sweep, tmp_path)
    half, fresh = trials.by_name[half.job.name], trials.by_name[fresh.job.name]
    half.job.process, half.job.first_iteration = FakeProcess(130), 2
    fresh.job.process = FakeProcess(130)
    trials.watch(half.job)
    assert not half.job.asked_to_end
    log(half, tmp_path, [4.5, 4.5, 4.9], RUNNING)
    trials.watch(half.job)
    assert half.job.asked_to_end == (STOPPED, "")  # at the second rung, below 5.0
    log(fresh, tmp_path, [4.7], RUNNING)
    trials.watch(fresh.job)
    assert fresh.job.asked_to_end == (STOPPED, "")  # below 5.0; one of four trials continues
    assert trials.by_name[stopped.job.name].job.state == STOPPED


def test_trial_without_the_metric_fails(tmp_path: Path) -> None:
    sweep = dataclasses.replace(make_sweep(size="16,17"), metric="Foo")
    trials = Trials(sweep, tmp_path)
    running, ended = trials.by_name.values()
    running.job.process = FakeProcess(130)
    log(running, tmp_path, [1.0], RUNNING)
    trials.watch(running.job)
    error = "--metric Foo: the run does not log it; must be one of Iteration, Eval_AverageReturn"
    assert running.job.asked_to_end == (FAILED, error)
    log(ended, tmp_path, [1.0], DONE)
    trials.on_end(ended.job)
    assert (ended.job.state, ended.job.error) == (FAILED, error)


@pytest.mark.parametrize(
    ("node", "given", "expected"),
    [
        (Node(4, 0), (1, None, "false"), Share(1, 0)),
        (Node(4, 2), (2, None, "false"), Share(2, 1)),
        (Node(4, 2), (1, None, "true"), Share(1, 0)),
        (Node(4, 2), (1, 0.5, "false"), Share(1, 0.5)),
        (Node(4, 2), (1, 2.0, "false"), Share(1, 2)),
        (Node(4, 0), (1, 0.5, "false"), "--cpus_per_trial 1 --gpus_per_trial 0.5: must be at most "
         "what nothing has: 4 cores and 0 GPUs"),
        (Node(4, 2), (1, 3.0, "false"), "--cpus_per_trial 1 --gpus_per_trial 3: must be at most"),
        (Node(4, 0), (5, None, "false"), "--cpus_per_trial 5: must be at most what nothing has: 4"),
    ],
)  # fmt: skip
def test_share_of_a_trial(
    node: Node,
    given: tuple[int, float | None, str],
    expected: Share | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher, (cpus, gpus, no_gpu) = FakeLauncher({}), given
    monkeypatch.setattr(launcher, "nodes", lambda: [node])
    sweep = make_sweep(size="16,17", no_gpu=no_gpu)
    if isinstance(expected, Share):
        assert share_of(sweep, launcher, cpus, gpus) == expected
    else:
        with pytest.raises(UsageError, match=expected):
            share_of(sweep, launcher, cpus, gpus)


@pytest.mark.parametrize("search", [0, 3])
def test_sweep_and_trials_are_read_back_from_the_folder(search: int, tmp_path: Path) -> None:
    sizes = "16:32" if search else "16,32"
    sweep = make_sweep(
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"name": "s"', '"name": "../up"', r"sweep.json: --exp_name ../up: must be"),
        ("[\n        16,", '["x",', "--size x: must be an integer"),
        ("[\n        16,", "[1e400,", "--size inf: must be an integer"),
        ('"search": 0', '"search": 1000000000', "--search 1000000000: must be at most"),
        ('"search": 0', '"search": "0"', "search 0: must be an integer"),
        ('"mode": "max"', '"mode": "up"', "--mode up: must be max or min"),
        ('"script": "mb"', '"script": "mc"', "agent mc: must be mb"),
        ('"name": "s"', '"other": "s"', "sweep.json has the unknown key other"),
        ('"name": "s",', "", "it lacks 'name'"),
    ],
)
def test_damaged_description(old: str, new: str, message: str, tmp_path: Path) -> None:
    folder = sweep_folder.create(make_sweep(size="16,32"), tmp_path, "sweep.py")
    file = folder / "sweep.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        sweep_folder.read(folder)


def test_folder_with_a_flag_of_an_older_version(tmp_path: Path) -> None:
    folder = sweep_folder.create(make_sweep(size="16,32"), tmp_path, "sweep.py")
    file = folder / "sweep.json"
    file.write_text(file.read_text().replace('"size"', '"breadth"'))
    with pytest.raises(UsageError, match="mb no longer has the flag --breadth"):
        sweep_folder.read(folder)
