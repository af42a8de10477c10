"""PILCO: a policy search on the predictions of Gaussian processes.

Deisenroth & Rasmussen 2011, "PILCO: A Model-Based and Data-Efficient Approach to Policy Search",
algorithm 1. An iteration is one trial: collect an episode, fit the GPs to all transitions, minimise
the predicted cost of an episode. docs/pilco.md maps the paper's equations to functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cs285.agents.base_agent import BaseAgent, Diagnosed, Forecast
from cs285.collection.episodes import EpisodeKey, fresh_memory
from cs285.config.pilco import NONE, PilcoConfig, PilcoSettings, numbers
from cs285.envs.checked_env import close_env
from cs285.envs.registration import TaskSpec, make_env
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_generator, to_numpy
from cs285.infrastructure.replay_buffer import REPLAY_CAPACITY, Path, ReplayBuffer, stack_paths
from cs285.models.bfgs import minimise
from cs285.models.gp import Features, GPModel
from cs285.models.moments import saturating_cost_mean
from cs285.models.task_model import TaskModel
from cs285.networks.threads import one_thread
from cs285.policies.base_policy import Policy
from cs285.policies.rbf_policy import (
    LinearPolicy,
    PilcoActor,
    Preliminary,
    RBFPolicy,
    SquashedPolicy,
    measurement_noise,
)

START_DRAWS = 200  # resets from which the start distribution of other tasks is estimated
PLAN_HORIZON, ERROR_HORIZON = 10, 20  # for a diagnosis, in env steps
BAND = 1.96  # standard deviations; a Gaussian has 95% of its mass within


class SaturatingCost(NamedTuple):
    """The mean over W widths of 1 - exp(-1/2 (x - target)^T weights (x - target))."""

    target: Tensor  # (D,), an augmented observation
    weights: Tensor  # (W, D, D)

    def expected(self, mean: Tensor, cov: Tensor) -> Tensor:
        """Return the expected cost () of an augmented observation ~ N(mean, cov)."""
        costs = [saturating_cost_mean(mean, cov, self.target, each) for each in self.weights]
        return torch.stack(costs).mean()

    def at(self, augmented: Tensor) -> Tensor:
        """Return the costs (T,) of augmented observations (T, D)."""
        offsets = augmented - self.target
        squares = ((offsets @ self.weights) * offsets).sum(-1)  # (W, T)
        return (1 - (-0.5 * squares).exp()).mean(0)


class Problem(NamedTuple):
    """What PILCO must know about a task before the first trial."""

    features: Features
    start_mean: Tensor  # (O,)
    start_cov: Tensor  # (O, O)
    noise_std: Tensor  # (O,), of the measurement noise in training
    cost: SaturatingCost | None  # None: the cost is minus the reward


class PredictedTrial(NamedTuple):
    """The prediction of an episode of H steps."""

    costs: Tensor  # (H,), expected
    mean: Tensor  # (H + 1, O)
    cov: Tensor  # (H + 1, O, O)


class PilcoAgent(BaseAgent):
    """Gaussian processes and a deterministic policy that minimises their predicted cost."""

    model: GPModel
    actor: PilcoActor
    acting_parts = ("policy",)

    def __init__(self, task: TaskSpec, config: PilcoConfig, device: torch.device) -> None:
        super().__init__()
        settings = config.pilco
        self.task, self.config, self.seed, self.device = task, settings, config.run.seed, device
        self.horizon = settings.pilco_horizon or config.run.ep_len or task.ep_len
        self.problem = describe_problem(config.run.task, task, settings, device)
        features = self.problem.features
        self.model = GPModel(
            task.ob_dim,
            task.ac_dim,
            features.angle_dims,
            settings.pilco_model_uncertainty,
            settings.pilco_prediction_noise,
        ).to(device)
        self.policy = _build_policy(settings, features, task).to(device)
        self.policy.vector.copy_(self._random_vector(0, 0))
        self.replay_buffer = ReplayBuffer(REPLAY_CAPACITY, task.ob_dim, task.ac_dim, device)
        self.predicted: PredictedTrial | None = None  # of the next trial
        self.trial_metrics: dict[str, Tensor] = {}  # of the last trial
        self.actor = PilcoActor(self.policy, device, self.problem.noise_std.float())
        self.eval_policy = PilcoActor(self.policy, device)

    @property
    def eval_policies(self) -> dict[str, Policy]:
        """The policy without measurement noise."""
        return {"Eval": self.eval_policy}

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store the paths as measured, and compare them with their prediction."""
        self.replay_buffer.add(stack_paths(self._measured(paths, iteration)), paths)
        self.trial_metrics, self.forecast = {}, None
        if self.predicted is not None:
            self._compare(self.predicted, paths)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Fit the GPs, search a policy, and predict the next trial. Returns metrics (1,)."""
        config = self.config
        rows = self.replay_buffer.newest(config.pilco_max_rows)
        with one_thread():
            with self.stopwatch.phase("fit"):
                metrics = self.model.fit(rows, config.pilco_gp_line_searches)
            with self.stopwatch.phase("policy search"):
                metrics |= self._search(iteration)
        for dim, ratio in enumerate(self.model.signal_to_noise):
            metrics[f"SNR {dim}"] = ratio[None]
        for column, scale in enumerate(self.model.relative_scales()):
            metrics[f"Length Scale {column}"] = scale[None]
        return metrics | self.trial_metrics

    def _search(self, iteration: int) -> dict[str, Tensor]:
        """Minimise the predicted cost from the current policy and, with restarts, random ones."""
        config, predict = self.config, self._predictor(iteration)
        starts = [self.policy.vector.clone()]
        starts += [self._random_vector(iteration + 1, n) for n in range(1, config.pilco_restarts)]
        found = [
            minimise(
                lambda vector: predict(self.policy.preliminary(vector)).costs.sum(),
                start,
                config.pilco_line_searches,
            )
            for start in starts
        ]
        best = min(found, key=lambda minimum: minimum.value)
        self.policy.vector.copy_(best.point)
        with torch.no_grad():
            predicted = predict(self.policy.preliminary(self.policy.vector))
        evaluations = float(sum(minimum.evaluations for minimum in found))
        metrics = {"Policy Evaluations": torch.tensor([evaluations])}
        # The search keeps a policy without a finite prediction only if it found no other one. The
        # next trial with it is still useful data.
        is_finite = all(bool(part.isfinite().all()) for part in predicted)
        self.predicted = predicted if is_finite else None
        if self.predicted is None:
            return metrics
        return metrics | {
            "Predicted Cost": predicted.costs.sum()[None],
            "Min Eigenvalue": torch.linalg.eigvalsh(predicted.cov).min()[None],
        }

    def _predictor(self, iteration: int) -> Callable[[Preliminary], PredictedTrial]:
        """Return the function that predicts a trial. Particles have the same noise in all calls."""
        if self.problem.cost is not None:
            return self.predict_moments
        shape = (self.horizon + 1, self.config.pilco_particles, self.task.ob_dim)
        generator = make_generator(self.seed, "pilco particles", iteration, device=self.device)
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=torch.float64)
        return lambda preliminary: self.predict_particles(preliminary, noise)

    def predict_moments(self, preliminary: Preliminary) -> PredictedTrial:
        """Predict a trial by moment matching: every state is Gaussian.

        Deisenroth & Rasmussen 2011, section 2.2.
        """
        assert self.problem.cost is not None
        features, mean, cov = self.problem.features, self.problem.start_mean, self.problem.start_cov
        means, covs, costs = [mean], [cov], []
        joint = features.augment(mean, cov)
        for _ in range(self.horizon):
            action = self.policy.moments(preliminary, *joint)
            mean, cov = self.model.propagate(*joint, action)
            joint = features.augment(mean, cov)
            means.append(mean)
            covs.append(cov)
            costs.append(self.problem.cost.expected(*joint))
        return PredictedTrial(torch.stack(costs), torch.stack(means), torch.stack(covs))

    def predict_particles(self, preliminary: Preliminary, noise: Tensor) -> PredictedTrial:
        """Predict a trial with K particles, reparameterised by `noise` (H + 1, K, O).

        Each particle samples the posterior of the change independently at every step.
        """
        assert self.task.get_reward is not None
        factor = torch.linalg.cholesky(self.problem.start_cov)
        obs = self.problem.start_mean + noise[0] @ factor.mT
        particles, costs = [obs], []
        for draw in noise[1:]:
            acs = self.policy.act(preliminary, obs)
            obs = self.model.step(obs[None], acs[None], draw[None])[0][0]
            rewards, _ = self.task.get_reward(obs, acs)
            particles.append(obs)
            costs.append(-rewards.mean())
        states = torch.stack(particles)
        centred = states - states.mean(1, keepdim=True)
        cov = centred.mT @ centred / len(noise[0])
        return PredictedTrial(torch.stack(costs), states.mean(1), cov)

    def _compare(self, predicted: PredictedTrial, paths: Sequence[Path]) -> None:
        """Compare the predicted trial with real ones, over the steps that both have.

        The real observations are free of measurement noise.
        """
        std = predicted.cov.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        rows = []
        for path in paths:
            T = min(path.length, self.horizon)
            obs = torch.from_numpy(path.next_obs[:T]).to(self.device).double()
            costs = -torch.from_numpy(path.rewards[:T]).to(self.device).double()
            if self.problem.cost is not None:
                costs = self.problem.cost.at(self.problem.features.augmented(obs))
            inside = (obs - predicted.mean[1 : T + 1]).abs() <= BAND * std[1 : T + 1]
            sums = costs.sum(), predicted.costs[:T].sum()
            rows.append(torch.stack([*sums, inside.double().mean()]))
        names = ("Trial Cost", "Trial Predicted Cost", "Trial Coverage")
        means = torch.stack(rows).mean(0)
        self.trial_metrics = dict(zip(names, means.split(1), strict=True))
        whole = np.concatenate([paths[0].obs[:1], paths[0].next_obs])
        self.forecast = Forecast(to_numpy(predicted.mean), to_numpy(std), whole)

    def _measured(self, paths: Sequence[Path], iteration: int) -> list[Path]:
        """Return the paths with the measurement noise that the policy saw in these episodes."""
        measured = []
        for number, path in enumerate(paths):
            key = EpisodeKey(self.seed, "train", iteration, number)
            generator = fresh_memory(key, self.device).generator
            std = self.problem.noise_std.float()
            draws = [measurement_noise(std, generator) for _ in range(path.length + 1)]
            noise = to_numpy(torch.stack(draws))
            measured.append(
                path._replace(obs=path.obs + noise[:-1], next_obs=path.next_obs + noise[1:])
            )
        return measured

    def _random_vector(self, iteration: int, number: int) -> Tensor:
        """Draw the parameters of a random policy."""
        generator = make_generator(self.seed, "pilco policy", iteration, number)
        shape = (START_DRAWS, self.task.ob_dim)
        draws = torch.randn(shape, generator=generator, dtype=torch.float64)
        factor = torch.linalg.cholesky(self.problem.start_cov.cpu())
        starts = self.problem.start_mean.cpu() + draws @ factor.mT
        return self.policy.initial_vector(starts, generator)

    def diagnosed(self) -> Diagnosed:
        """Return the GPs and the policy."""
        task = TaskModel(self.task.get_reward, self.task.get_termination)
        return Diagnosed(self.model, task, self.eval_policy, PLAN_HORIZON, ERROR_HORIZON)

    def state_dict(self) -> dict[str, Any]:
        """Return the transitions, the model, the policy, and the prediction of the next trial.

        A policy search cannot be resumed within: a resumed run repeats the iteration.
        """
        return {
            "replay_buffer": self.replay_buffer.state_dict(),
            "predicted": None if self.predicted is None else list(self.predicted),
            **self.parameters_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        predicted = state["predicted"]
        self.predicted = None if predicted is None else PredictedTrial(*predicted)
        self.model.load_state_dict(state["model"])
        self.policy.load_state_dict(state["policy"])

    def parameters_dict(self) -> dict[str, Any]:
        """Return the hyper-parameters and rows of the GPs, and the policy's parameters."""
        return {"model": self.model.state_dict(), "policy": self.policy.state_dict()}

    def load_parameters(self, parameters: dict[str, Any]) -> None:
        """Restore the GPs and the policy, those that `parameters` has."""
        for name in ("model", "policy"):
            if name in parameters:
                getattr(self, name).load_state_dict(parameters[name])


def describe_problem(
    task_id: tuple[str, ...], task: TaskSpec, settings: PilcoSettings, device: torch.device
) -> Problem:
    """Return the task's declarations, with the flags that replace them.

    The start distribution of a task that declares none is estimated from resets. Raises UsageError:
    a flag does not fit the task, or the task lacks what the propagation needs.
    """
    env = make_env(task_id)
    declared: Any = env.unwrapped
    dims = getattr(declared, "angle_dims", ())
    if settings.pilco_angle_dims is not None:
        text = settings.pilco_angle_dims
        dims = () if text == NONE else tuple(map(int, text.split(",")))
        if len(set(dims)) < len(dims) or max(dims, default=0) >= task.ob_dim:
            raise UsageError(
                f"--pilco_angle_dims {text}: must be different dimensions below {task.ob_dim}"
            )
    features = Features(task.ob_dim, dims)

    def tensor(values: Any) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float64, device=device)

    if hasattr(declared, "start_mean"):
        start_mean, start_cov = tensor(declared.start_mean), tensor(declared.start_std).square()
        start_cov = torch.diag(start_cov)
    else:
        starts = tensor([env.reset(seed=number)[0] for number in range(START_DRAWS)])
        start_mean, start_cov = starts.mean(0), starts.mT.cov()
        start_cov = start_cov + 1e-6 * torch.eye(task.ob_dim).to(start_cov)
    close_env(env)
    noise = numbers(settings.pilco_noise)
    if len(noise) not in (1, task.ob_dim):
        raise UsageError(
            f"--pilco_noise {settings.pilco_noise}: must be 1 or {task.ob_dim} numbers"
        )
    noise_std = tensor(noise).expand(task.ob_dim)
    cost = None
    if settings.pilco_propagation == "moments":
        cost = _saturating_cost(declared, features, settings, tensor)
    elif task.get_reward is None:
        raise UsageError(
            "--pilco_propagation particles: must be moments, because this task has no get_reward"
        )
    return Problem(features, start_mean, start_cov, noise_std, cost)


def _saturating_cost(
    declared: Any, features: Features, settings: PilcoSettings, tensor: Callable[[Any], Tensor]
) -> SaturatingCost:
    """Return the cost of the flags, or else of the task. Raises UsageError: there is none."""
    size = features.ob_dim + 2 * len(features.angle_dims)
    target, matrix = getattr(declared, "cost_target", None), getattr(declared, "cost_matrix", None)
    for name in ("pilco_target", "pilco_weights"):
        text = getattr(settings, name)
        if text is not None and len(numbers(text)) != size:
            raise UsageError(
                f"--{name} {text}: must be {size} numbers: {features.ob_dim} for the observation "
                f"and {size - features.ob_dim} for sines and cosines of its angles"
            )
    if settings.pilco_target is not None:
        target = numbers(settings.pilco_target)
    if settings.pilco_weights is not None:
        matrix = np.diag(np.sqrt(numbers(settings.pilco_weights)))
    if target is None or matrix is None or len(target) != size:
        raise UsageError(
            "--pilco_propagation moments: this task declares no saturating cost for these "
            "--pilco_angle_dims; must be particles, unless you pass --pilco_target and "
            "--pilco_weights"
        )
    widths = [getattr(declared, "cost_width", 1.0)]
    if settings.pilco_width is not None:
        widths = numbers(settings.pilco_width)
    square = tensor(matrix).mT @ tensor(matrix)
    return SaturatingCost(tensor(target), torch.stack([square / width**2 for width in widths]))


def _build_policy(settings: PilcoSettings, features: Features, task: TaskSpec) -> SquashedPolicy:
    third_harmonic = settings.pilco_squash == "sin3"
    if settings.pilco_policy == "linear":
        return LinearPolicy(features, task.ac_low, task.ac_high, third_harmonic)
    basis = settings.pilco_basis
    return RBFPolicy(features, task.ac_low, task.ac_high, third_harmonic, basis)
