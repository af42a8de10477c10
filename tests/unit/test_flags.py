"""Test the flags with their aliases and defaults, and the errors for invalid values."""

import dataclasses
from typing import Any

import pytest

from cs285.config.flags import (
    OneLineParser,
    add_flags,
    defaults,
    from_flat,
    groups,
    parse_values,
    to_flat,
)
from cs285.config.mb import MBConfig
from cs285.config.mbpo import MBPOConfig
from cs285.config.pilco import PilcoConfig
from cs285.scripts import run_pilco
from cs285.scripts.run_hw4_mb import main

DEFAULTS: dict[str, Any] = {
    "exp_name": "todo",
    "n_iter": 20,
    "seed": 1,
    "no_gpu": False,
    "which_gpu": 0,
    "video_log_freq": -1,
    "scalar_log_freq": 1,
    "save_params": False,
    "ensemble_size": 3,
    "n_layers": 2,
    "size": 250,
    "learning_rate": 0.001,
    "num_agent_train_steps_per_iter": 1000,
    "train_batch_size": 512,
    "batch_size_initial": 20000,
    "batch_size": 8000,
    "eval_batch_size": 400,
    "add_sl_noise": False,
    "mpc_horizon": 10,
    "mpc_num_action_sequences": 1000,
    "mpc_action_sampling_strategy": "random",
    "cem_iterations": 4,
    "cem_num_elites": 5,
    "cem_alpha": 1,
}
MBPO_DEFAULTS: dict[str, Any] = {
    "mbpo_rollout_length": 1,
    "sac_num_agent_train_steps_per_iter": 1,
    "sac_num_critic_updates_per_agent_update": 1,
    "sac_num_actor_updates_per_agent_update": 1,
    "sac_actor_update_frequency": 1,
    "sac_critic_target_update_frequency": 1,
    "sac_train_batch_size": 256,
    "sac_batch_size": 1000,
    "sac_discount": 0.99,
    "sac_init_temperature": 1.0,
    "sac_learning_rate": 3e-4,
    "sac_n_layers": 2,
    "sac_size": 64,
    "sac_n_iter": 200,
}
ALIASES = {
    "-n 7": ("n_iter", 7),
    "-ngpu": ("no_gpu", True),
    "-gpu_id 2": ("which_gpu", 2),
    "-e 5": ("ensemble_size", 5),
    "-l 1": ("n_layers", 1),
    "-s 32": ("size", 32),
    "-lr 0.01": ("learning_rate", 0.01),
    "-tb 64": ("train_batch_size", 64),
    "-b 900": ("batch_size", 900),
    "-eb 300": ("eval_batch_size", 300),
    "-noise": ("add_sl_noise", True),
}


def parse(words: str, config_class: type = MBConfig) -> dict[str, Any]:
    parser = OneLineParser(prog="test")
    add_flags(parser, config_class)
    return to_flat(from_flat(config_class, parse_values(parser, words.split())))


@pytest.mark.parametrize(
    ("config_class", "defaults"),
    [(MBConfig, DEFAULTS), (MBPOConfig, {**DEFAULTS, **MBPO_DEFAULTS})],
)
def test_defaults_are_the_homeworks(config_class: type, defaults: dict[str, Any]) -> None:
    values = parse("--env_name x", config_class)
    assert {name: values[name] for name in defaults} == defaults
    assert values["ep_len"] is None  # the environment determines it


@pytest.mark.parametrize("words", ALIASES)
def test_alias_sets_its_flag(words: str) -> None:
    name, value = ALIASES[words]
    assert parse(words)[name] == value


def test_all_aliases_can_be_given_together() -> None:
    values = parse(" ".join(ALIASES))
    assert {name: values[name] for name, _ in ALIASES.values()} == dict(ALIASES.values())


def test_every_flag_has_a_help_text_and_configs_are_frozen() -> None:
    configs = (from_flat(MBPOConfig, {}), from_flat(PilcoConfig, {}))
    for group in [group for config in configs for group in vars(config).values()]:
        assert all(len(field.metadata["help"]) > 8 for field in dataclasses.fields(group))
        with pytest.raises(dataclasses.FrozenInstanceError):
            group.__setattr__(dataclasses.fields(group)[0].name, 1)


INVALID = [
    ("--n_iter 0", "--n_iter 0: must be an integer from 1"),
    ("--n_iter 2.5", "--n_iter 2.5: must be an integer from 1"),
    ("--n_iter", "--n_iter"),
    ("--seed -1", "--seed -1: must be a non-negative integer"),
    ("--learning_rate nan", "--learning_rate nan: must be a positive, finite number"),
    ("--learning_rate 0", "--learning_rate 0: must be a positive, finite number"),
    ("--learning_rate -1", "--learning_rate -1: must be a positive, finite number"),
    ("--learning_rate inf", "--learning_rate inf: must be"),
    ("--learning_rate 1e39", "--learning_rate 1e+39: must be 0, or 1e-30 to 1e30 in size"),
    ("--learning_rate 1e-50", "--learning_rate 1e-50: must be 0, or 1e-30 to 1e30 in size"),
    ("--weight_decay 1e40", "--weight_decay 1e40: each number must be 0, or 1e-30 to 1e30 in"),
    ("--weight_decay 1e-50,0,0", "--weight_decay 1e-50,0,0: each number must be 0, or 1e-30 to"),
    ("--model_layer_norm 1e40", "--model_layer_norm 1e40: each number must be 0, or 1e-30 to"),
    ("--no_gpu=1", "--no_gpu: must have no value"),
    ("--resume=", "--resume '': must be the log folder of a run"),
    ("--model homoscedastic", "--model homoscedastic: must have --model_loss nll, not mse"),
    ("--env_wrappers builtins:repr", "--env_wrappers builtins:repr: returned str; must"),
    ("--env_kwargs nope=1", "--env_name obstacles-cs285-v0 --env_kwargs nope=1: its constructor"),
    ("--cem_alpha 1.5", "--cem_alpha 1.5: must be a number from 0 to 1"),
    ("--cem_alpha nan", "--cem_alpha nan: must be a number from 0 to 1"),
    ("--cem_num_elites 2000", "--cem_num_elites 2000: must be at most"),
    ("--mpc_action_sampling_strategy foo", "foo: must be random, cem"),
    ("--exp_name a/b", "--exp_name a/b: must be"),
    ("--exp_name ..", "--exp_name ..: must be"),
    ("--video_log_freq 0", "--video_log_freq 0: must be -1"),
    ("--scalar_log_freq -2", "--scalar_log_freq -2: must be -1"),
    ("--eval_batch_size -5", "--eval_batch_size -5: must be"),
    ("--env_name nothing-v0", "--env_name nothing-v0: "),
    ("--env_name CartPole-v1", "--env_name CartPole-v1: its actions are Discrete(2); must be"),
    ("--data_dir /dev/null/x", "--data_dir /dev/null/x: cannot write to it (Not a directory); "),
    ("--horizon 5", "unknown argument --horizon; did you mean --mpc_horizon?"),
    ("--ensemble_siz 5", "unknown argument --ensemble_siz; did you mean"),
    ("stray", "stray"),
    ("--resume /no/such/dir", "--resume /no/such/dir: No such file or directory (config.json)"),
]


@pytest.mark.parametrize(("words", "message"), INVALID)
def test_invalid_input_gives_a_one_line_error_and_exit_code_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    line = f"--env_name obstacles-cs285-v0 --num_workers 1 --data_dir {tmp_path} {words}"
    try:
        code = main(line.split())
    except SystemExit as exit:
        code = int(exit.code or 0)
    out, err = capsys.readouterr()
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "words", "code", "message"),
    [
        (main, "--env_name obstacles-cs285-v0", 0, ""),
        (main, "--env_name obstacles-cs285-v0 --size 100000000", 1, "not enough memory ("),
        (run_pilco.main, "--env_name Pendulum-v1", 2, "this task declares no saturating cost"),
    ],
)
def test_dry_run_builds_the_agent(
    script: Any, words: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(["--dry_run", *words.split()]) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == (code > 0)


def test_missing_env_name_gives_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--env_name: must be the id" in capsys.readouterr().err


@pytest.mark.parametrize("config_class", [MBConfig, MBPOConfig])
def test_rules_on_ineffective_flags_name_existing_flags(config_class: type) -> None:
    known = set(defaults(config_class)) | set(defaults(MBPOConfig))
    holders = [config_class, *groups(config_class).values()]
    rules = [rule for holder in holders for rule in getattr(holder, "rules", ())]
    assert len(rules) > 8
    for rule in rules:
        assert set(rule.flags) <= known
        assert rule.reason.format_map(defaults(MBPOConfig))
