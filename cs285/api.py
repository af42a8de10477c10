"""Train, load and use agents from Python: `cs285.train` and `cs285.load`."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from cs285.agents.registry import find_agent
from cs285.analysis.rebuild import Rebuilt, best_if_alone, rebuild
from cs285.cli.launch import execute
from cs285.cli.script import no_processes_left, prepare_output
from cs285.config import presets
from cs285.envs import make_env
from cs285.envs.checked_env import close_env
from cs285.experiments.job import words_of
from cs285.infrastructure.default_dtype import float32_default
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.recording.rendering import VARIABLE, restore_renderer
from cs285.infrastructure.run_folder import FROM_PYTHON, read_config
from cs285.models.base_model import DynamicsModel
from cs285.models.model_env import ModelEnv
from cs285.policies.base_policy import Memory

SEED = 1  # of the draws of `Agent.predict`
Env = str | Callable[..., gym.Env]  # a Gymnasium id, or a class or function that creates the task


class Agent:
    """A trained agent."""

    def __init__(self, folder: Path, run: Rebuilt) -> None:
        self.folder, self.config, self.task = folder, run.config, run.task
        self.env_steps = run.counters["env_steps"]  # of training
        self._run = run
        self._episodes = itertools.count()  # numbers of the episodes, for their random draws
        self._memories: list[Memory] = []

    @property
    def model(self) -> DynamicsModel | None:
        """The dynamics model, or None if the agent or its checkpoint has none."""
        parts = self._run.parts
        return self._run.agent.model if parts is None or "model" in parts else None

    def reset(self, row: int | None = None) -> None:
        """Forget the episode of one row of the batch, or of all rows.

        Call it when an episode ends. Planners keep a plan from step to step.
        """
        if row is None:
            self._memories = []
        elif row < len(self._memories):  # other rows have not begun
            self._memories[row] = self._new_memory()

    @float32_default()
    def predict(self, obs: Any, deterministic: bool = True) -> NDArray[np.float32]:
        """Return the action (A,) for an observation (O,), or actions (B, A) for (B, O).

        Row b of the batch is the episode in environment b. A single Dict or Tuple observation of
        the task is flattened. If not `deterministic`, the policy explores as in training. Raises
        ValueError: `obs` has another shape, no rows, or non-finite numbers.
        """
        batch = self._to_array(obs)
        single, batch = batch.ndim == 1, np.atleast_2d(batch)
        O = self.task.ob_dim
        if batch.ndim != 2 or batch.shape[1] != O or not len(batch):
            raise ValueError(f"obs has shape {np.shape(obs)}; must be ({O},) or (B, {O}), B >= 1")
        if not np.isfinite(batch).all():
            raise ValueError("obs has a non-finite number; must be finite in float32")
        while len(self._memories) < len(batch):
            self._memories.append(self._new_memory())
        agent = self._run.agent
        policy = agent.eval_policies["Eval"] if deterministic else agent.actor
        acs = policy.get_action(batch, self._memories[: len(batch)])
        return acs[0] if single else acs

    def _to_array(self, obs: Any) -> NDArray[np.float32]:
        env = self._run.env
        try:
            if isinstance(env, gym.wrappers.FlattenObservation) and isinstance(obs, dict | tuple):
                obs = gym.spaces.flatten(env.env.observation_space, obs)
            with np.errstate(over="ignore"):  # `predict` refuses infinite numbers
                return np.asarray(obs, np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"obs {obs!r}: must be an observation of {self.config.run.env_name}, or an array "
                f"({self.task.ob_dim},) or (B, {self.task.ob_dim})"
            ) from error

    def model_env(self, member: str | int = "mean") -> ModelEnv:
        """Return a Gymnasium environment that steps the model; see ModelEnv.

        Raises UsageError: the agent has no model. Raises ValueError: there is no such member.
        """
        parts = self._run.agent.diagnosed()
        if parts is None or self.model is None:
            raise UsageError(
                f"the agent of {self.folder} has no model; must be a checkpoint with a model"
            )
        run = self.config.run
        env = make_env(run.task, run.ep_len)
        return ModelEnv(parts.model, parts.task, self.task, env, member)

    def _new_memory(self) -> Memory:
        agent = self._run.agent
        device = agent.eval_policies["Eval"].device
        return Memory(make_generator(SEED, "predict", next(self._episodes), device=device))


@float32_default()
def load(
    folder: str | Path,
    checkpoint: str | int | None = None,
    env: Env | None = None,
    trusted: bool = False,
) -> Agent:
    """Return the agent of the run in a log folder, ready to act on a CPU.

    `checkpoint` is "last" (the default), "previous", "best" (the weights that the policy needs to
    act), or an iteration of a run with --save_params. `env` replaces the run's environment; give it
    if that was a class or a function. In this process, the run's id of it then means `env`.

    Raises UsageError: the folder has no such checkpoint, or imports a module and is not `trusted`.
    """
    which = best_if_alone(folder) if checkpoint is None else str(checkpoint)
    python_id = None if env is None else _python_id(Path(folder))
    with _unchanged_on_failure(python_id):
        changed = {} if env is None else {"env_name": env_id_of(env, python_id)}
        run = rebuild(folder, no_gpu=True, trusted=trusted, checkpoint=which, **changed)
    close_env(run.env)
    return Agent(Path(folder), run)


def train(
    agent: str,
    env: Env,
    callback: Callable[[int, Mapping[str, float]], None] | None = None,
    **flags: Any,
) -> Agent:
    """Train an agent ("mb", "mbpo", …) as its script does, and return it.

    `flags` are the flags of the command line without the dashes: True is --NAME, False --no-NAME,
    and None leaves a flag out. `callback(iteration, scalars)` is called after each logged
    iteration. An `env` that is a class or a function runs in this process only. Raises RunError: a
    flag is bad, or the run fails.
    """
    for name, value in {"checkpoint_freq": -1, "dry_run": True, "preset": presets.LIST}.items():
        if flags.get(name) == value:
            raise UsageError(
                f"{name} {value}: must be another value, because it leaves no agent to return"
            )
    entry = find_agent(agent)
    resumed = flags.get("resume")
    python_id = _python_id(Path(resumed)) if resumed else None
    if not isinstance(env, str):
        flags.setdefault("num_workers", 1)
    words = words_of({name: value for name, value in flags.items() if value is not None})
    users_renderer = os.environ.get(VARIABLE)
    prepare_output()
    try:
        with no_processes_left(), _unchanged_on_failure(python_id):
            words = ["--env_name", env_id_of(env, python_id), *words]
            folder = execute(entry, words, callback)
    finally:  # a run without videos disables rendering for its process
        restore_renderer(users_renderer)
    assert folder is not None
    return load(folder, trusted=True)


@contextlib.contextmanager
def _unchanged_on_failure(env_id: str | None) -> Iterator[None]:
    """Restore what an id means if the block, which registers it again, fails."""
    before = gym.registry.get(env_id or "")
    try:
        yield
    except BaseException:
        if env_id is not None:
            gym.registry.pop(env_id, None)
        if before is not None:
            gym.registry[before.id] = before
        raise


def env_id_of(env: Env, env_id: str | None = None) -> str:
    """Return the Gymnasium id of an environment.

    A class or function is registered as `env_id`, or else as python/NAME-v0. Another one of this
    NAME becomes python/NAME_2-v0, because the first may still be in use.
    """
    if isinstance(env, str):
        return env
    name = getattr(getattr(env, "func", env), "__name__", type(env).__name__)  # func: of a partial
    if not callable(env):
        raise UsageError(
            f"env {name}: is an instance; must be a Gymnasium id, or a class or a function that "
            f"creates the environment, such as {name}"
        )
    if env_id is None:
        name = re.sub(r"[^a-zA-Z0-9]+", "_", name).strip("_")
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        ids = (f"{FROM_PYTHON}{each}-v0" for each in names)
        env_id = next(each for each in ids if _entry_point(each) in (None, env))
    gym.registry.pop(env_id, None)
    gym.register(env_id, entry_point=env)
    return env_id


def _entry_point(env_id: str) -> Any:
    spec = gym.registry.get(env_id)
    return spec and spec.entry_point


def _python_id(folder: Path) -> str | None:
    """Return the id of the environment of the run in `folder` if it was a class or a function."""
    env_id = str(read_config(folder)["flags"].get("env_name"))
    return env_id if env_id.startswith(FROM_PYTHON) else None
