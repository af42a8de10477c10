"""--compile computes the same, and on a GPU nothing in a learning phase waits for the device."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.envs import inspect_task
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.replay_buffer import Path
from cs285.models.training import fit_gradient
from cs285.networks.compilation import check_compiler, compile_if
from cs285.policies.MPC_policy import Draws
from tests.conftest import TINY_MBPO

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
STEPS = 40


def random_path(seed: int) -> Path:
    task, random = inspect_task(TINY_MBPO["env_name"]), np.random.default_rng(seed)
    obs = random.uniform(-1, 1, (STEPS + 1, task.ob_dim)).astype(np.float32)
    acs = random.uniform(-1, 1, (STEPS, task.ac_dim)).astype(np.float32)
    rewards = obs[1:, 0] - acs[:, 1]
    return Path(obs[:-1], acs, rewards, obs[1:], np.zeros(STEPS, bool))


def trained_agent(device: str, compile: bool) -> MBPOAgent:
    flags = {**TINY_MBPO, "compile": compile, "mbpo_rollout_length": 0}
    task = inspect_task(TINY_MBPO["env_name"])
    agent = MBPOAgent(task, from_flat(MBPOConfig, flags), torch.device(device))
    agent.add_to_replay_buffer([random_path(0)], 0)
    agent.train(0)
    return agent


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_computes_what_eager_does(device: str) -> None:
    eager = trained_agent(device, compile=False)
    counters.clear()
    compiled = trained_agent(device, compile=True)
    # SAC's two gradients, and on a GPU the fit; not in pieces.
    assert counters["stats"]["unique_graphs"] == (3 if device == "cuda" else 2)
    assert not counters["graph_break"]
    learned = compiled.metrics | compiled.sac_agent.metrics
    for name, value in (eager.metrics | eager.sac_agent.metrics).items():
        torch.testing.assert_close(learned[name], value, rtol=1e-3, atol=1e-4)
    for name in ("policy", "critic", "target_critic"):
        weights = [getattr(agent.sac_agent, name).network.vector for agent in (eager, compiled)]
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_fit_differentiates_as_eager_does(device: str) -> None:
    agent = trained_agent(device, compile=False).mb_agent
    model, task = agent.model, agent.task
    inputs, targets = (
        torch.rand(model.ensemble_size, 32, width, device=device)
        for width in (task.ob_dim + task.ac_dim, model.target_dim)
    )
    arguments = (model.network, model.head, model.weight_decay, inputs, targets)
    expected = fit_gradient(*arguments)
    counters.clear()
    found = compile_if(True, fit_gradient)(*arguments)
    assert counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(found.gradients, expected.gradients, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_planner_scores_as_eager_does(device: str) -> None:
    agent = trained_agent(device, compile=False).mb_agent
    obs = torch.zeros(1, agent.model.ob_dim, device=device)
    draws = Draws()
    sequences = torch.rand(1, 20, 3, 2, device=device) * 2 - 1
    with torch.inference_mode():
        expected = agent.actor.evaluate_sequences(obs, sequences, draws)
        counters.clear()
        returns = compile_if(True, agent.actor.evaluate_sequences)(obs, sequences, draws)
    assert counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(returns, expected, rtol=1e-4, atol=1e-4)


@ON_GPU
def test_no_learning_phase_waits_for_the_gpu() -> None:
    agent = trained_agent("cuda", compile=False)
    agent.add_to_replay_buffer([random_path(1)], 1)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent.train(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    for device in ("cpu", "cuda"):
        with pytest.raises(UsageError, match="compiler no-such-compiler"):
            check_compiler(torch.device(device))
