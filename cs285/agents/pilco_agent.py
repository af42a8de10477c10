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
from cs285.agents.pilco_problem import START_DRAWS, describe_problem, smooth_sqrt
from cs285.collection.episodes import EpisodeKey, fresh_memory
from cs285.config.pilco import PilcoConfig, PilcoSettings
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.pytorch_util import make_generator, to_numpy
from cs285.infrastructure.replay_buffer import REPLAY_CAPACITY, Path, ReplayBuffer, stack_paths
from cs285.models.bfgs import Minimum, SearchState, minimise
from cs285.models.gp import Features, GPModel
from cs285.models.task_model import TaskModel
from cs285.networks.threads import one_thread
from cs285.policies.rbf_policy import (
    LinearPolicy,
    PilcoActor,
    Preliminary,
    RBFPolicy,
    SquashedPolicy,
    measurement_noise,
)

PLAN_HORIZON, ERROR_HORIZON = 10, 20  # for a diagnosis, in env steps
BAND = 1.96  # standard deviations; a Gaussian has 95% of its mass within
MORE_STARTS = 10  # random policies to try if no search has a finite prediction


class PredictedTrial(NamedTuple):
    """The prediction of an episode of H steps."""

    costs: Tensor  # (H,), expected; in a search, plus the weighted std (--pilco_exploration)
    mean: Tensor  # (H + 1, O)
    cov: Tensor  # (H + 1, O, O)


class PilcoAgent(BaseAgent):
    """Gaussian processes and a deterministic policy that minimises their predicted cost."""

    model: GPModel
    actor: PilcoActor
    eval_policy: PilcoActor
    parts, acting_parts = ("model", "policy"), ("policy",)

    def __init__(self, task: TaskSpec, config: PilcoConfig, device: torch.device) -> None:
        super().__init__()
        settings = config.pilco
        self.task, self.config, self.seed, self.device = task, settings, config.run.seed, device
        self.horizon = settings.pilco_horizon or task.ep_len
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
        self.eval_policy = PilcoActor(self.policy, device)  # without measurement noise

    def add_to_replay_buffer(self, paths: Sequence[Path], iteration: int) -> None:
        """Store the paths as measured, and compare them with their prediction."""
        self.replay_buffer.add(stack_paths(self._measured(paths, iteration)), paths)
        self.trial_metrics, self.forecast = {}, None
        if self.predicted is not None:
            self._compare(self.predicted, paths)

    def train(self, iteration: int) -> dict[str, Tensor]:
        """Fit the GPs, search for a policy, and predict the next trial. Returns metrics (1,)."""
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
        """Minimise the predicted cost from the current policy and, with restarts, random ones.

        The new policy is the one with the lowest predicted cost. If no search has a finite
        prediction, more random policies are tried; the old policy stays if all of them fail.
        """
        config, predict = self.config, self._predictor(iteration)
        exploration = config.pilco_exploration
        found, progress = self._continued_search(iteration)

        def report(progress: SearchState) -> None:
            if self.unfinished is not None:
                ended = [list(minimum) for minimum in found]
                self.unfinished.write(iteration, [ended, [list(progress.best), *progress[1:]]])

        def is_complete() -> bool:
            is_found = any(np.isfinite(minimum.value) for minimum in found)
            is_found |= config.pilco_line_searches == 0  # nothing is searched or evaluated
            return len(found) >= config.pilco_restarts + (0 if is_found else MORE_STARTS)

        while not is_complete():
            start = self.policy.vector.clone()
            if found:
                start = self._random_vector(iteration + 1, len(found))
            progress = progress or SearchState.at(start, config.pilco_line_searches)
            minimum = minimise(
                lambda vector: predict(self.policy.preliminary(vector), exploration).costs.sum(),
                progress,
                report,
            )
            found.append(minimum)
            progress = None
        self.policy.vector.copy_(min(found, key=lambda minimum: minimum.value).point)
        with torch.no_grad():
            predicted = predict(self.policy.preliminary(self.policy.vector), 0.0)
        metrics = {
            "Policy Evaluations": sum(minimum.evaluations for minimum in found),
            "Policy Searches": len(found),
        }
        tensors = {name: self.model.inputs.new_tensor([n]) for name, n in metrics.items()}
        # Without a finite prediction, the next trial is still useful data.
        is_finite = all(bool(part.isfinite().all()) for part in predicted)
        self.predicted = predicted if is_finite else None
        if self.predicted is None:
            return tensors
        return tensors | {
            "Predicted Cost": predicted.costs.sum()[None],
            "Min Eigenvalue": torch.linalg.eigvalsh(predicted.cov).min()[None],
        }

    def _continued_search(self, iteration: int) -> tuple[list[Minimum], SearchState | None]:
        """Return the results so far and the progress of the search of an interrupted session."""
        saved = self.unfinished.read(iteration) if self.unfinished is not None else None
        if saved is None:
            return [], None
        found, (best, *rest) = saved
        return [Minimum(*one) for one in found], SearchState(Minimum(*best), *rest)

    def _predictor(self, iteration: int) -> Callable[[Preliminary, float], PredictedTrial]:
        """Return the function of a policy and an exploration weight that predicts a trial.

        Particles have the same noise in all calls.
        """
        if self.problem.cost is not None:
            return self.predict_moments
        shape = (self.horizon + 1, self.config.pilco_particles, self.task.ob_dim)
        generator = make_generator(self.seed, "pilco particles", iteration, device=self.device)
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=torch.float64)
        return lambda preliminary, weight: self.predict_particles(preliminary, noise, weight)

    def predict_moments(self, preliminary: Preliminary, exploration: float = 0.0) -> PredictedTrial:
        """Predict a trial by moment matching: every state is Gaussian.

        The costs are the expected ones, plus `exploration` times their standard deviation.
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
            if exploration != 0:
                costs[-1] = costs[-1] + exploration * self.problem.cost.std(*joint)
        return PredictedTrial(torch.stack(costs), torch.stack(means), torch.stack(covs))

    def predict_particles(
        self, preliminary: Preliminary, noise: Tensor, exploration: float = 0.0
    ) -> PredictedTrial:
        """Predict a trial with K particles, reparameterised by `noise` (H + 1, K, O).

        Each particle samples the posterior of the change independently at every step. The costs are
        as in `predict_moments`.
        """
        assert self.task.get_reward is not None
        obs = self.problem.draw_starts(noise[0])
        particles, costs = [obs], []
        for draw in noise[1:]:
            acs = self.policy.act(preliminary, obs)
            obs = self.model.step(obs[None], acs[None], draw[None])[0][0]
            rewards, _ = self.task.get_reward(obs, acs)
            particles.append(obs)
            costs.append(-rewards.mean())
            if exploration != 0:
                costs[-1] = costs[-1] + exploration * smooth_sqrt(rewards.var(correction=0))
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
        """Return the paths with the measurement noise that the policy saw in these episodes.

        The random policy of iteration 0 saw none: it used these episodes' random numbers for its
        actions, so the noise has others.
        """
        measured, purpose = [], "noise" if iteration == 0 else "train"
        for number, path in enumerate(paths):
            key = EpisodeKey(self.seed, purpose, iteration, number)
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
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        starts = self.problem.draw_starts(noise.to(self.device)).cpu()
        return self.policy.initial_vector(starts, generator)

    def diagnosed(self) -> Diagnosed:
        """Return the GPs and the policy."""
        get_reward = self.task.get_reward or self._reward
        task = TaskModel(get_reward, self.task.get_termination)
        return Diagnosed(self.model, task, self.eval_policy, PLAN_HORIZON, ERROR_HORIZON)

    def _reward(self, obs: Tensor, acs: Tensor) -> tuple[Tensor, None]:
        """Return minus the cost of observations (..., O), for a task without get_reward."""
        assert self.problem.cost is not None
        costs = self.problem.cost.at(self.problem.features.augmented(obs.double().flatten(0, -2)))
        return -costs.reshape(obs.shape[:-1]), None

    def state_dict(self) -> dict[str, Any]:
        """Return the transitions, the model, the policy, and the prediction of the next trial."""
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
        self.load_parameters(state)


def _build_policy(settings: PilcoSettings, features: Features, task: TaskSpec) -> SquashedPolicy:
    third_harmonic = settings.pilco_squash == "sin3"
    if settings.pilco_policy == "linear":
        return LinearPolicy(features, task.ac_low, task.ac_high, third_harmonic)
    basis = settings.pilco_basis
    return RBFPolicy(features, task.ac_low, task.ac_high, third_harmonic, basis)
