"""Test that every flag has an effect, or that the run warns that it has none."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cs285.config.flags import groups
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.infrastructure import rl_trainer
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import select_device
from cs285.infrastructure.rl_trainer import RL_Trainer
from tests.conftest import read_curve

Run = Callable[..., Path]

SMALL_ENSEMBLE = {"ensemble_size": 3, "n_layers": 1, "size": 16, "holdout_ratio": 0.0}
CEM = {"mpc_action_sampling_strategy": "cem"}
ICEM = {"mpc_action_sampling_strategy": "icem"}

# For each flag, a value that changes the numbers in progress.csv.
CHANGES_THE_CURVE: dict[str, dict[str, Any]] = {
    "env_name": {"env_name": "reacher-cs285-v0"},
    "env_kwargs": {"env_kwargs": "random_starts=False"},
    "env_wrappers": {"env_wrappers": "tests.toys:HalfReward"},
    "ep_len": {"ep_len": 10},
    "n_iter": {"n_iter": 1},
    "batch_size_initial": {"batch_size_initial": 100},
    "batch_size": {"batch_size": 60},
    "continue_episodes": {"continue_episodes": True, "batch_size": 50},
    "eval_batch_size": {"eval_batch_size": 60},
    "seed": {"seed": 2},
    "scalar_log_freq": {"scalar_log_freq": 2},
    "model": {"model": "probabilistic", **SMALL_ENSEMBLE},
    "model_loss": {"model_loss": "column_nll"},
    "model_init": {"model_init": "torch"},
    "ensemble_size": {"ensemble_size": 2},
    "num_elites": {"num_elites": 2},
    "n_layers": {"n_layers": 1},
    "size": {"size": 32},
    "activation": {"activation": "swish"},
    "learning_rate": {"learning_rate": 0.01},
    "learning_rate_schedule": {"learning_rate_schedule": "falling"},
    "learning_rate_peak": {"learning_rate_peak": 2.0},
    "num_agent_train_steps_per_iter": {"num_agent_train_steps_per_iter": 6},
    "train_batch_size": {"train_batch_size": 17},
    "model_layer_norm": {"model_layer_norm": "0.1"},
    "model_dropout": {"model_dropout": "0.1,0.2"},
    "weight_decay": {"weight_decay": "0.1"},
    "decoupled_weight_decay": {"decoupled_weight_decay": True},
    "holdout_ratio": {"holdout_ratio": 0.3},
    "fit_patience": {"fit_patience": 0},
    "add_sl_noise": {"add_sl_noise": True},
    "learned_reward": {"learned_reward": True},
    "termination": {"termination": "learned"},
    "mpc_horizon": {"mpc_horizon": 4},
    "mpc_num_action_sequences": {"mpc_num_action_sequences": 21},
    "mpc_action_sampling_strategy": {"mpc_action_sampling_strategy": "cem"},
    "cem_iterations": {"cem_iterations": 3},
    "cem_num_elites": {"cem_num_elites": 4},
    "cem_alpha": {"cem_alpha": 0.5},
    "icem_noise_beta": {"icem_noise_beta": 0.0},
    "icem_decay": {"icem_decay": 2.0},
    "icem_reuse": {"icem_reuse": 1.0},
    "mppi_temperature": {"mppi_temperature": 0.01},
    "mpc_warm_start": {"mpc_warm_start": "on"},
    "mpc_init_std": {"mpc_init_std": 0.1},
    "mpc_propagation": {"mpc_propagation": "ts1"},
    "mpc_particles": {"mpc_particles": 6},
}
# Some flags have an effect only together with these flags.
ALONG_WITH: dict[str, dict[str, Any]] = {
    "learning_rate_peak": {"learning_rate_schedule": "falling"},
    "decoupled_weight_decay": {"weight_decay": "0.1"},
    "num_elites": {"holdout_ratio": 0.3},
    "fit_patience": {"holdout_ratio": 0.3, "num_agent_train_steps_per_iter": 1000},
    "cem_iterations": CEM,
    "cem_num_elites": CEM,
    "cem_alpha": CEM,
    "icem_noise_beta": ICEM,
    "icem_decay": ICEM,
    "icem_reuse": ICEM,
    "mppi_temperature": {"mpc_action_sampling_strategy": "mppi"},
    "mpc_init_std": ICEM,
    "mpc_particles": {"model": "probabilistic", **SMALL_ENSEMBLE},
}
NOT_IN_THE_CURVE = {  # these flags are tested below or in the given file
    "exp_name", "data_dir", "save_params", "track", "checkpoint_freq", "video_log_freq", "no_gpu",
    "which_gpu",
    "num_workers",  # unit/test_collector.py
    "env_timeout",  # unit/test_env_watch.py
    "compile",  # unit/test_compilation.py
    "verbose",
}  # fmt: skip


# The same for the additional flags of run_hw4_mbpo.py.
CHANGES_THE_MBPO_CURVE: dict[str, dict[str, Any]] = {
    "sac_n_iter": {"sac_n_iter": 5},
    "sac_n_iter_initial": {"sac_n_iter_initial": 8},
    "sac_num_agent_train_steps_per_iter": {"sac_num_agent_train_steps_per_iter": 2},
    "sac_num_critic_updates_per_agent_update": {"sac_num_critic_updates_per_agent_update": 2},
    "sac_num_actor_updates_per_agent_update": {"sac_num_actor_updates_per_agent_update": 2},
    "sac_actor_update_frequency": {"sac_actor_update_frequency": 2},
    "sac_critic_target_update_frequency": {"sac_critic_target_update_frequency": 2},
    "sac_train_batch_size": {"sac_train_batch_size": 33},
    "sac_batch_size": {"batch_size": None, "sac_batch_size": 60},
    "sac_discount": {"sac_discount": 0.9},
    "sac_init_temperature": {"sac_init_temperature": 0.1},
    "sac_learning_rate": {"sac_learning_rate": 1e-3},
    "sac_n_layers": {"sac_n_layers": 1},
    "sac_size": {"sac_size": 17},
    "sac_activation": {"sac_activation": "swish"},
    "sac_policy_init": {"sac_policy_init": "orthogonal"},
    "sac_critic_init": {"sac_critic_init": "he"},
    "sac_policy_std": {"sac_policy_std": "softplus"},
    "sac_policy_averaging": {"sac_policy_averaging": 0.1},
    "sac_critics": {"sac_critics": 3},
    "sac_critics_drawn": {"sac_critics_drawn": 1},
    "sac_actor_value": {"sac_actor_value": "mean"},
    "sac_critic_layer_norm": {"sac_critic_layer_norm": 1e-5},
    "sac_critic_dropout": {"sac_critic_dropout": 0.1},
    "sac_value_bounds": {"sac_value_bounds": 0.1},
    "sac_obs_scaling": {"sac_obs_scaling": "none"},
    "sac_target_rate": {"sac_target_rate": 0.5},
    "sac_target_entropy": {"sac_target_entropy": 1.0},
    "mbpo_rollout_length": {"mbpo_rollout_length": 0},
    "mbpo_rollout_schedule": {"mbpo_rollout_schedule": "0,100,1,3"},
    "mbpo_propagation": {"mbpo_propagation": "random_member"},
    "mbpo_rollouts_per_sac_iter": {"mbpo_rollouts_per_sac_iter": 2},
    "mbpo_rollout_every": {"mbpo_rollout_every": 3},
    "mbpo_real_ratio": {"mbpo_real_ratio": 0.5},
    "mbpo_model_buffer_size": {"mbpo_model_buffer_size": 5},
    "mbpo_models_kept": {"mbpo_models_kept": 1},
    "mbpo_refit_every": {"mbpo_refit_every": 2},
    "mbpo_rollouts_per_block": {"mbpo_rollouts_per_block": 7},
    "mbpo_restart_at_fit": {"mbpo_restart_at_fit": True},
    "mbpo_critic_iters_after_fit": {"mbpo_critic_iters_after_fit": 3},
    "mbpo_value_expansion": {"mbpo_value_expansion": 2},
    "mbpo_eval_planner": {"mbpo_eval_planner": True},
}
PLANNER = [
    flag for flag in CHANGES_THE_CURVE if flag.startswith(("mpc_", "cem_", "icem_", "mppi_"))
]


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures of iteration 0, which take most of the time of a tiny run."""
    monkeypatch.setattr(rl_trainer, "save_losses", lambda *args: None)
    monkeypatch.setattr(RL_Trainer, "_save_predictions", lambda *args: None)


def flags_of(config_class: type) -> set[str]:
    return {f.name for group in groups(config_class).values() for f in dataclasses.fields(group)}


def test_every_flag_is_tested() -> None:
    assert flags_of(MBConfig) == set(CHANGES_THE_CURVE) | NOT_IN_THE_CURVE
    assert flags_of(MBPOConfig) - flags_of(MBConfig) == set(CHANGES_THE_MBPO_CURVE)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("flag", CHANGES_THE_CURVE)
def test_flag_changes_the_curve(flag: str, run_tiny: Run) -> None:
    common = ALONG_WITH.get(flag, {})
    plain, changed = run_tiny(**common), run_tiny(**{**common, **CHANGES_THE_CURVE[flag]})
    assert read_curve(plain) != read_curve(changed)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("flag", sorted(ALONG_WITH.keys() - {"num_elites", "model_loss"}))
def test_ineffective_flag_gives_a_warning_and_has_no_effect(
    flag: str, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Skip num_elites and model_loss: without the flags of ALONG_WITH, they give errors."""
    plain, changed = run_tiny(), run_tiny(**CHANGES_THE_CURVE[flag])
    assert f"warning: --{flag} has no effect because " in capsys.readouterr().out
    assert read_curve(plain) == read_curve(changed)
    both = {**ALONG_WITH[flag], **CHANGES_THE_CURVE[flag]}
    run_tiny(**both)
    assert "no effect" not in capsys.readouterr().out


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("flag", CHANGES_THE_MBPO_CURVE)
def test_flag_changes_the_mbpo_curve(flag: str, run_tiny_mbpo: Run) -> None:
    flags = CHANGES_THE_MBPO_CURVE[flag]
    common = {"batch_size": None, "sac_batch_size": 40} if flag == "sac_batch_size" else {}
    plain, changed = run_tiny_mbpo(**common), run_tiny_mbpo(**flags)
    assert read_curve(plain) != read_curve(changed)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("flag", PLANNER)
def test_planner_flag_changes_the_evaluation_of_the_mbpo_planner(
    flag: str, run_tiny_mbpo: Run
) -> None:
    common = {"mbpo_eval_planner": True, "n_iter": 1, **ALONG_WITH.get(flag, {})}
    columns = [
        {name: cell for name, cell in row.items() if name.startswith("Planner_Eval_")}
        for flags in (common, common | CHANGES_THE_CURVE[flag])
        for row in read_curve(run_tiny_mbpo(**flags))
    ]
    assert len(columns[0]) == 5
    assert columns[0] != columns[1]


def test_same_flags_give_the_same_curve(run_tiny: Run, run_tiny_mbpo: Run) -> None:
    assert read_curve(run_tiny()) == read_curve(run_tiny())
    assert read_curve(run_tiny_mbpo()) == read_curve(run_tiny_mbpo())


def test_log_folder_has_its_name_files_and_config(run_tiny: Run, tmp_path: Path) -> None:
    folder = run_tiny(exp_name="my_name", data_dir=tmp_path / "elsewhere")
    assert folder.parent == tmp_path / "elsewhere"
    assert folder.name.startswith("hw4_my_name_obstacles-cs285-v0_")
    assert len(folder.name.split("_")[-2:][0]) == len("dd-mm-YYYY")
    names = {file.name for file in folder.iterdir()}
    assert {"itr_0_predictions.png", "itr_0_losses.png", "itr_0_losses.npy"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert config["flags"]["size"] == 16
    assert {"command", "versions", "git", "machine"} <= set(config)
    assert set(read_curve(folder)[0]) == {
        "Iteration",
        *(f"{p}_{s}Return" for p in ("Eval", "Train") for s in ("Average", "Std", "Max", "Min")),
        "Eval_AverageEpLen",
        "Train_AverageEpLen",
        "Train_EnvstepsSoFar",
        "Training Loss",
        "Weight Norm",
        "New Data Loss",
        "Initial_DataCollection_AverageReturn",
    }


def test_verbose_prints_every_metric(run_tiny: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        capsys.readouterr()
        names = list(read_curve(run_tiny(n_iter=1, verbose=verbose or None))[0])
        printed = capsys.readouterr().out
        assert all((f"\n  {name} " in printed) == verbose for name in names if name != "Iteration")


def test_save_params_saves_the_agent_in_every_logged_iteration(run_tiny: Run) -> None:
    folder = run_tiny(save_params=True, n_iter=3)
    files = sorted(file.name for file in folder.glob("agent_itr_*.pt"))
    assert files == ["agent_itr_0.pt", "agent_itr_1.pt", "agent_itr_2.pt"]
    saved = torch.load(folder / files[0], weights_only=True)["state"]["agent"]["model"]
    later = torch.load(folder / files[1], weights_only=True)["state"]["agent"]["model"]
    assert not torch.equal(saved["network.vector"], later["network.vector"])
    assert not list(run_tiny().glob("agent_itr_*.pt"))


def test_checkpoint_freq(run_tiny: Run) -> None:
    assert not (run_tiny(checkpoint_freq=-1) / "checkpoint.pt").exists()
    assert (run_tiny(checkpoint_freq=5) / "checkpoint.pt").exists()  # after the last iteration


def test_scalar_logging_can_be_switched_off(run_tiny: Run) -> None:
    assert not (run_tiny(scalar_log_freq=-1, n_iter=1) / "progress.csv").exists()


def test_video_log_freq_writes_a_video(run_tiny: Run) -> None:
    folder = run_tiny(video_log_freq=2)
    assert [file.name for file in (folder / "videos").iterdir()] == ["eval_rollouts_itr_0.mp4"]
    assert (folder / "videos" / "eval_rollouts_itr_0.mp4").stat().st_size > 2000
    (events,) = folder.glob("events*")
    assert b"eval_rollouts" in events.read_bytes()
    assert b"GIF89a" in events.read_bytes()


def test_no_gpu_and_which_gpu_select_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert select_device(False, 1) == torch.device("cuda", 1)
    assert select_device(True, 1) == torch.device("cpu")
    with pytest.raises(UsageError, match="--which_gpu 2: must be from 0 to 1"):
        select_device(False, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device(False, 0) == torch.device("cpu")
