"""Test that --compile keeps the results, and that no learning phase waits for the GPU."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from cs285.agents.mbpo_agent import MBPOAgent
from cs285.config.flags import from_flat
from cs285.config.mbpo import MBPOConfig
from cs285.envs import inspect_task
from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.replay_buffer import Path as Episode
from cs285.networks.compilation import check_compiler, compiled
from cs285.policies.MPC_policy import Draws
from tests.conftest import TINY_MBPO
from tests.unit.test_mbpo_agent import DOUBLE_HORIZON

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
STEPS = 40
SWING_UPS = ["cartpole-swingup-v0", "pendulum-swingup-v0"]


def random_path(seed: int) -> Episode:
    task, random = inspect_task(TINY_MBPO["env_name"]), np.random.default_rng(seed)
    obs = random.uniform(-1, 1, (STEPS + 1, task.ob_dim)).astype(np.float32)
    acs = random.uniform(-1, 1, (STEPS, task.ac_dim)).astype(np.float32)
    rewards = obs[1:, 0] - acs[:, 1]
    return Episode(obs[:-1], acs, rewards, obs[1:], np.zeros(STEPS, bool))


def make_agent(device: str, compile: bool, **changes: Any) -> MBPOAgent:
    flags = {**TINY_MBPO, "compile": compile, "mbpo_rollout_length": 0, **changes}
    task = inspect_task(TINY_MBPO["env_name"])
    return MBPOAgent(task, from_flat(MBPOConfig, flags), torch.device(device))


def trained_agent(device: str, compile: bool, **changes: Any) -> MBPOAgent:
    agent = make_agent(device, compile, **changes)
    agent.add_to_replay_buffer([random_path(0)], 0)
    agent.train(0)
    return agent


def weights_of(agent: MBPOAgent) -> list[torch.Tensor]:
    sac = agent.sac_agent
    return [net.network.vector for net in (sac.policy, sac.critic, sac.target_critic)]


@NEEDS_COMPILER
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_training_matches_eager(device: str) -> None:
    eager = trained_agent(device, compile=False)
    counters.clear()
    compiled_agent = trained_agent(device, compile=True)
    # One graph for the SAC update, and two for the fit's gradient step: one per learning rate.
    assert counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]
    learned = compiled_agent.metrics | compiled_agent.sac_agent.metrics
    for name, value in (eager.metrics | eager.sac_agent.metrics).items():
        torch.testing.assert_close(learned[name], value, rtol=1e-3, atol=1e-4)
    for found, expected in zip(weights_of(compiled_agent), weights_of(eager), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    found, expected = (agent.mb_agent.model.network.vector for agent in (compiled_agent, eager))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


@NEEDS_COMPILER
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_double_horizon_matches_eager(device: str) -> None:
    constant = {"learning_rate_schedule": "constant"}  # saves a graph, see above
    flags = {**DOUBLE_HORIZON, **constant, "mbpo_critic_iters_after_fit": 1}
    eager = trained_agent(device, compile=False, **flags)
    counters.clear()
    compiled_agent = trained_agent(device, compile=True, **flags)
    # One graph for an update, one for the critic's updates after a fit, and one for the fit.
    assert counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]
    learned = compiled_agent.sac_agent.metrics
    for name, value in eager.sac_agent.metrics.items():
        torch.testing.assert_close(learned[name], value, rtol=1e-3, atol=1e-4)
    for found, expected in zip(weights_of(compiled_agent), weights_of(eager), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


@NEEDS_COMPILER
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_run_resumes_exactly(device: str) -> None:
    whole = trained_agent(device, compile=True)
    half = copy.deepcopy(whole.state_dict())
    whole.add_to_replay_buffer([random_path(1)], 1)
    whole.train(1)
    torch._dynamo.reset()  # like a new process
    resumed = make_agent(device, compile=True)
    resumed.load_state_dict(half)
    resumed.add_to_replay_buffer([random_path(1)], 1)
    resumed.train(1)
    for found, expected in zip(weights_of(resumed), weights_of(whole), strict=True):
        assert torch.equal(found, expected)
    found, expected = (agent.mb_agent.model.network.vector for agent in (resumed, whole))
    assert torch.equal(found, expected)


@NEEDS_COMPILER
@pytest.mark.parametrize("device", DEVICES)
def test_compiled_planner_returns_match_eager(device: str) -> None:
    agent = trained_agent(device, compile=False).mb_agent
    states = agent.model.initial_state(torch.zeros(1, agent.task.ob_dim, device=device))
    sequences = torch.rand(1, 20, 3, 2, device=device) * 2 - 1
    with torch.inference_mode():
        expected = agent.actor.evaluate_sequences(states, sequences, Draws())
        counters.clear()
        returns = compiled(agent.actor.evaluate_sequences)(states, sequences, Draws())
    assert counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(returns, expected, rtol=1e-4, atol=1e-4)


@NEEDS_COMPILER
def test_compiled_code_is_cached_for_each_processor_and_damage_is_repaired(tmp_path: Path) -> None:
    """A killed process can leave an incomplete library in the cache.

    A folder of caches can be shared by processors with other vector instructions.
    """
    code = """
import torch
from cs285.networks.compilation import compiled
torch.optim.Adam([torch.ones(1)])  # imports torch._dynamo
from torch._inductor import config
config.cpp.vec_isa_ok, config.cpp_cache_precompile_headers = True, False  # for speed
print((compiled(lambda a: a * a + a)(torch.ones(100)) == 2).sum().item())
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)

    def run(**more: str) -> str:
        command, used = [sys.executable, "-c", code], {**environment, **more}
        return subprocess.run(command, env=used, check=True, capture_output=True, text=True).stdout

    assert run() == "100\n"
    libraries = list((tmp_path / "cs285" / "compiled").rglob("*.so"))
    assert libraries
    for library in libraries:
        library.write_bytes(library.read_bytes()[:-100])
        os.utime(library, (1, 1))
    assert run() == "100\n"
    other = "avx2" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "default"
    assert run(ATEN_CPU_CAPABILITY=other) == "100\n"


@pytest.mark.parametrize(
    "env_id", ["cheetah-cs285-v0", "obstacles-cs285-v0", "reacher-cs285-v0", *SWING_UPS]
)
def test_the_rewards_of_all_tasks_can_be_compiled(env_id: str) -> None:
    task = inspect_task(env_id)
    assert task.get_reward is not None
    arguments = torch.rand(4, task.ob_dim), torch.rand(4, task.ac_dim)
    graph = torch.compile(task.get_reward, fullgraph=True, backend="eager")
    for found, expected in zip(graph(*arguments), task.get_reward(*arguments), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_function_that_cannot_be_compiled_runs_eagerly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def with_numpy(values: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return values * (0 if isinstance(values, np.ndarray | np.floating) else 1)

    function = compiled(with_numpy)
    for _ in range(2):
        assert function(torch.ones(2)).tolist() == [1, 1]
    printed = capsys.readouterr().err
    assert len(calls) == 2
    assert printed.startswith("warning: --compile: torch cannot compile")
    assert printed.count("\n") == 1
    assert "unsupported operand type(s)" in printed


@NEEDS_COMPILER
def test_any_number_of_runs_in_a_process_can_be_compiled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Torch counts the compilations of a function, and by default refuses the ninth."""

    class Scale:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def apply(self, values: torch.Tensor) -> torch.Tensor:
            return values * self.factor

    with torch._dynamo.config.patch(recompile_limit=1):
        for factor in range(2, 5):
            assert compiled(Scale(factor).apply)(torch.ones(1)).item() == factor
        assert capsys.readouterr().err == ""
        scale = Scale(2)
        apply = compiled(scale.apply)
        for scale.factor in range(2, 5):  # the second compilation in one run
            assert apply(torch.ones(1)).item() == scale.factor
        assert capsys.readouterr().err.count("warning: --compile") == 1


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


def test_missing_compiler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CC", "no-such-compiler")
    for device in ("cpu", "cuda"):
        with pytest.raises(UsageError, match=r"found no compiler \(no-such-compiler\)"):
            check_compiler(torch.device(device))
