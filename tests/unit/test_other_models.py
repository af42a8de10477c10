"""Test fits and planning with two other models: an analytic model and a model with memory."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cs285.agents.mb_agent import MBAgent
from cs285.collection.collector import Collector, InProcess
from cs285.config.model import ModelConfig
from cs285.config.planner import PlannerConfig
from cs285.envs.registration import TaskSpec
from cs285.infrastructure.pytorch_util import Normalizer, make_generator
from cs285.infrastructure.replay_buffer import Path, Transitions
from cs285.models.base_model import DynamicsModel, ModelLoss, Prediction
from cs285.networks.ensemble_mlp import linear
from cs285.policies.base_policy import Memory, RandomPolicy
from cs285.policies.MPC_policy import MODEL_STATE, MPCPolicy
from tests.toys import LinearReach

CPU = torch.device("cpu")
PLANNER = {"mpc_horizon": 6, "mpc_action_sampling_strategy": "cem", "cem_iterations": 3}


class Exact(DynamicsModel):
    """The exact equations of LinearReach, with nothing to fit."""

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        next_obs = state + 0.1 * torch.stack([-acs[..., 1], acs[..., 0]], -1)
        return next_obs, Prediction(next_obs, torch.zeros(acs.shape[:-1]), None)

    def evaluate(self, data: Transitions) -> dict[str, Tensor]:
        errors = self.step(data.obs[None], data.acs[None])[0] - data.next_obs
        return {"New Data Loss": errors.square().mean()[None]}


def iterate(agent: MBAgent, env: Any, ep_len: int, steps: list[int]) -> list[Path]:
    """Collect `steps` env steps per iteration, initially at random; return the last paths."""
    collector = Collector(InProcess(env, 8), seed=1, ep_len=ep_len)
    policy: Any = RandomPolicy(agent.task.ac_low, agent.task.ac_high)
    for iteration, count in enumerate(steps):
        paths = collector.collect(policy, count, "train", iteration).paths
        agent.add_to_replay_buffer(paths, iteration)
        metrics = agent.train(iteration)
        assert all(values.isfinite().all() for values in metrics.values())
        assert ("New Data Loss" in metrics) == (iteration > 0)
        policy = agent.actor
    collector.close()
    return paths


def test_agent_trains_and_plans_with_an_analytic_model() -> None:
    box = np.ones(2, np.float32)
    task = TaskSpec(2, 2, -box, box, LinearReach.get_reward, ep_len=20)
    model = Exact()
    agent = MBAgent(
        task, ModelConfig(), PlannerConfig(**PLANNER, mpc_num_action_sequences=200), 1, CPU,
        dynamics=model,
    )  # fmt: skip
    assert not model.has_memory
    assert agent.optimizer is None
    paths = iterate(agent, lambda: gym.make("LinearReach-v0"), 20, [40, 40, 40])
    for path in paths:
        # The best path is a straight line to the origin.
        distances = np.abs(path.obs[0]) - 0.1 * np.arange(1, 21)[:, None]
        best = -(distances.clip(0) ** 2).sum()
        assert best - 0.15 < path.total_reward <= best + 1e-4
    agent.load_state_dict(agent.state_dict())


class HiddenVelocity(gym.Env):
    """A mass on a spring, to be held at the origin by a force; the velocity is not observed."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return np.array([self.position]), {}

    def step(self, action: Any) -> Any:
        self.velocity += 0.2 * float(action[0]) - 0.5 * self.position
        self.position += 0.5 * self.velocity
        self.steps += 1
        return np.array([self.position]), -(self.position**2), False, self.steps == HIDDEN_STEPS, {}

    @staticmethod
    def get_reward(observations: Any, actions: Any) -> Any:
        return -(observations[..., 0] ** 2), observations[..., 0] > 1e9


HIDDEN_STEPS, WARM_UP = 30, 3
BOX = np.ones(1, np.float32)
HIDDEN = TaskSpec(1, 1, -BOX, BOX, HiddenVelocity.get_reward, ep_len=HIDDEN_STEPS)
LEARNING: dict[str, Any] = {
    "ensemble_size": 3, "num_agent_train_steps_per_iter": 200, "train_batch_size": 64,
    "n_layers": 1, "size": 32,
}  # fmt: skip


class GRUEnsemble(DynamicsModel):
    """E recurrent networks; a state is the observation and the member's memory (Cho 2014)."""

    has_memory = True

    def __init__(
        self, ob_dim: int, ac_dim: int, members: int, size: int, sequence_length: int
    ) -> None:
        super().__init__()
        self.members, self.ob_dim, self.size = members, ob_dim, size
        self.sequence_length = sequence_length
        generator, inputs = make_generator(1, "GRU"), ob_dim + ac_dim + size

        def layer(width: int, out: int) -> nn.Parameter:
            drawn = torch.randn(members, width + 1, out, generator=generator)
            return nn.Parameter(drawn / width**0.5)

        self.gates, self.candidate = layer(inputs, 2 * size), layer(inputs, size)
        self.head = layer(size, ob_dim)
        self.input_stats, self.target_stats = Normalizer(ob_dim + ac_dim), Normalizer(ob_dim)

    @property
    def obs_scale(self) -> Tensor:
        return self.input_stats.std[: self.ob_dim]

    def initial_state(self, obs: Tensor, previous: Tensor | None = None) -> Tensor:
        """Join the observation and the memory in `previous`, which is initially zero."""
        obs = obs.expand(self.members, *obs.shape)
        memory = obs.new_zeros(*obs.shape[:-1], self.size)
        return torch.cat([obs, memory if previous is None else previous[..., self.ob_dim :]], -1)

    def step(self, state: Tensor, acs: Tensor, noise: Tensor | None = None) -> Any:
        change, memory = self._advance(state, acs)
        next_obs = state[..., : self.ob_dim] + self.target_stats.denormalize(change)
        prediction = Prediction(next_obs, torch.zeros(next_obs.shape[:-1]), None)
        return torch.cat([next_obs, memory], -1), prediction

    def _advance(self, state: Tensor, acs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised change (E, B, O) of the observation, and the new memory."""
        obs, memory = state[..., : self.ob_dim], state[..., self.ob_dim :]
        inputs = self.input_stats.normalize(torch.cat([obs, acs], -1))
        keep, reset = _apply(self.gates, torch.cat([inputs, memory], -1)).sigmoid().chunk(2, -1)
        new = _apply(self.candidate, torch.cat([inputs, reset * memory], -1)).tanh()
        memory = torch.lerp(new, memory, keep)
        return _apply(self.head, memory), memory

    def fit_statistics(self, data: Transitions) -> None:
        self.input_stats.fit(torch.cat([data.obs, data.acs], -1))
        self.target_stats.fit(data.next_obs - data.obs)

    def loss(self, batch: Transitions) -> ModelLoss:
        """Predict each step of sequences (E, B, T, ...) from the true steps before it."""
        targets = self.target_stats.normalize(batch.next_obs - batch.obs)
        memory, changes = targets.new_zeros(*targets.shape[:2], self.size), []
        for step in range(targets.shape[2]):
            state = torch.cat([batch.obs[:, :, step], memory], -1)
            change, memory = self._advance(state, batch.acs[:, :, step])
            changes.append(change)
        errors = (torch.stack(changes, 2) - targets).square().mean((1, 2, 3))
        return ModelLoss(errors.sum(), {"Training Loss": errors.detach().mean()})

    @torch.no_grad()
    def evaluate(self, data: Transitions) -> dict[str, Tensor]:
        change, _ = self._advance(
            self.initial_state(data.obs), data.acs.expand(self.members, -1, -1)
        )
        targets = self.target_stats.normalize(data.next_obs - data.obs)
        return {"New Data Loss": (change - targets).square().mean()[None]}


def _apply(layer: Tensor, inputs: Tensor) -> Tensor:
    return linear(inputs, layer[:, :-1], layer[:, -1:])


def make_agent(with_memory: bool, **planner: Any) -> MBAgent:
    dynamics = GRUEnsemble(1, 1, members=3, size=24, sequence_length=10) if with_memory else None
    flags = {**PLANNER, "mpc_num_action_sequences": 100, **planner}
    return MBAgent(
        HIDDEN, ModelConfig(**LEARNING), PlannerConfig(**flags), 1, CPU, dynamics=dynamics
    )


@pytest.fixture(scope="module")
def agents() -> dict[bool, MBAgent]:
    """Return an agent with and one without memory, each after one fit to the same episodes."""
    found = {memory: make_agent(memory) for memory in (True, False)}
    for agent in found.values():
        iterate(agent, HiddenVelocity, HIDDEN_STEPS, [40 * HIDDEN_STEPS])
    return found


@torch.no_grad()
def errors(model: DynamicsModel, held_out: list[Path], horizon: int = 6) -> tuple[float, float]:
    """Return the mean squared one-step and open-loop errors of the position, after a warm-up."""
    obs, acs, next_obs = (
        torch.as_tensor(np.stack([getattr(path, name) for path in held_out], 1))
        for name in ("obs", "acs", "next_obs")
    )
    expanded = acs[:, None].expand(-1, model.members, -1, -1)
    state, step = None, model.planning_step()
    one_step, open_loop = [], []
    for first in range(len(obs) - horizon):
        state = model.initial_state(obs[first], state)
        if first >= WARM_UP:
            imagined = state
            for ahead in range(horizon):
                imagined, prediction = step(imagined, expanded[first + ahead])
                error = prediction.next_obs.mean(0) - next_obs[first + ahead]
                if ahead == 0:
                    one_step.append(error.square().mean())
            open_loop.append(error.square().mean())
        state, _ = step(state, expanded[first])
    return torch.stack(one_step).mean().item(), torch.stack(open_loop).mean().item()


def returns_of(policy: MPCPolicy, episodes: int = 8) -> float:
    collector = Collector(InProcess(HiddenVelocity, episodes), seed=7, ep_len=HIDDEN_STEPS)
    paths = collector.collect(policy, episodes * HIDDEN_STEPS, "eval", 0).paths
    return float(np.mean([path.total_reward for path in paths]))


def test_memory_predicts_the_hidden_velocity(
    agents: dict[bool, MBAgent],
) -> None:
    collector = Collector(InProcess(HiddenVelocity, 8), seed=3, ep_len=HIDDEN_STEPS)
    held_out = collector.collect(RandomPolicy(-BOX, BOX), 8 * HIDDEN_STEPS, "held out", 0).paths
    with_memory, without = (errors(agents[memory].model, held_out) for memory in (True, False))
    assert with_memory[0] < 0.05 * without[0]
    assert with_memory[1] < 0.05 * without[1]


def test_policy_stores_the_predicted_state_after_the_executed_action(
    agents: dict[bool, MBAgent],
) -> None:
    policy, observed = agents[True].actor, [[0.4], [0.1], [-0.2]]
    memory, state = Memory(make_generator(1, "a")), None
    for obs in torch.tensor(observed)[:, None]:
        action = policy.get_action(obs.numpy(), [memory])
        before = policy.model.initial_state(obs, state)
        state, _ = policy.model.planning_step()(before, torch.tensor(action).expand(3, 1, 1))
        torch.testing.assert_close(memory.kept[MODEL_STATE], state[:, 0])
    assert not torch.equal(before, policy.model.initial_state(obs))
    without = Memory(make_generator(1, "a"))
    agents[False].actor.get_action(obs.numpy(), [without])
    assert not without.kept


def test_episodes_of_a_batch_have_separate_memories(agents: dict[bool, MBAgent]) -> None:
    """One episode has just begun, and the other continues."""
    policy = agents[True].actor
    obs = np.array([[0.4], [-0.3]], np.float32)

    def memories() -> list[Memory]:
        found = [Memory(make_generator(1, "a", number)) for number in range(2)]
        policy.get_action(obs[:1], found[1:])
        return found

    together, alone = memories(), memories()
    actions = policy.get_action(obs, together)
    for row, memory in enumerate(alone):
        action = policy.get_action(obs[row : row + 1], [memory])
        np.testing.assert_allclose(actions[row], action[0], atol=1e-5)
        torch.testing.assert_close(together[row].kept[MODEL_STATE], memory.kept[MODEL_STATE])


class Forgetful(MPCPolicy):
    def plan(self, obs: Any, memories: Any) -> Tensor:
        for memory in memories:
            memory.kept.clear()
        return super().plan(obs, memories)


def test_planning_with_memory_reaches_better_returns(agents: dict[bool, MBAgent]) -> None:
    agent = agents[True]
    forgetful = Forgetful(agent.model, agent.task_model, -BOX, BOX, agent.actor.config, CPU)
    found = [returns_of(policy) for policy in (agent.actor, forgetful, agents[False].actor)]
    assert found[0] > 0.4 * max(found[1:])
