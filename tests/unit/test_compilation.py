"""--compile computes the same, and on a GPU nothing in a learning phase waits for the device."""

import numpy as np
import pytest
import torch

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.envs import inspect_task
from cs285.infrastructure.compilation import check_compiler
from cs285.infrastructure.config import MBPOConfig
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.flags import from_flat
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Path
from tests.conftest import TINY_MBPO

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
STEPS = 40


def trained_agent(device: str, compile: bool) -> MBPOAgent:
    flags = {**TINY_MBPO, "compile": compile, "mbpo_rollout_length": 0}
    task = inspect_task(TINY_MBPO["env_name"])
    agent = MBPOAgent(task, from_flat(MBPOConfig, flags), torch.device(device))
    random = np.random.default_rng(0)
    obs = random.uniform(-1, 1, (STEPS + 1, task.ob_dim)).astype(np.float32)
    acs = random.uniform(-1, 1, (STEPS, task.ac_dim)).astype(np.float32)
    rewards = obs[1:, 0] - acs[:, 1]
    path = Path(obs[:-1], acs, rewards, obs[1:], np.zeros(STEPS, bool))
    agent.add_to_replay_buffer([path], 0)
    agent.train(0)
    return agent


@pytest.mark.parametrize("device", DEVICES)
def test_compiled_computes_what_eager_does(device: str) -> None:
    eager, compiled = trained_agent(device, compile=False), trained_agent(device, compile=True)
    learned = compiled.metrics | compiled.sac_agent.metrics
    for name, value in (eager.metrics | eager.sac_agent.metrics).items():
        torch.testing.assert_close(learned[name], value, rtol=1e-3, atol=1e-4)
    for name in ("policy", "critic", "target_critic"):
        weights = [getattr(agent.sac_agent, name).network.vector for agent in (eager, compiled)]
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    actions = []
    for agent in (eager, compiled):
        generator = make_generator(1, "test", device=device)
        planner = agent.mb_agent.actor
        actions.append(planner.get_action(np.zeros((1, agent.mb_agent.model.ob_dim)), [generator]))
    np.testing.assert_allclose(*actions, rtol=1e-4)


@ON_GPU
def test_no_learning_phase_waits_for_the_gpu() -> None:
    agent = trained_agent("cuda", compile=False)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent.train(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="compiler no-such-compiler"):
        check_compiler(torch.device("cpu"))
    check_compiler(torch.device("cuda"))
