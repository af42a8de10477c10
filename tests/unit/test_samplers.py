"""Test iCEM, MPPI and warm starts against independent implementations and by hand."""

from typing import Any

import colorednoise
import numpy as np
import pytest
import torch
from pytorch_mppi import MPPI
from torch import Tensor

from cs285.config.planner import SAMPLING_STRATEGIES, PlannerConfig
from cs285.policies.base_policy import Memory
from cs285.policies.planners import PLANNERS
from cs285.policies.planners.icem import noise_basis
from cs285.policies.planners.sampling import SamplingContext

H, A = 5, 2
LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 4.0])
TARGET = torch.tensor([0.3, 2.5])


def context(strategy: str, memories: list[Memory] | None = None, **flags: Any) -> SamplingContext:
    config = PlannerConfig(**{"mpc_action_sampling_strategy": strategy, "mpc_horizon": H, **flags})
    memories = memories or [Memory(torch.Generator().manual_seed(0))]
    return SamplingContext(LOW, HIGH, config, memories)


def returns_of(sequences: Tensor) -> Tensor:
    """Return the negative squared distance to TARGET, summed over actions."""
    return -(sequences - TARGET).square().sum((-1, -2))


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("horizon", [1, 2, 7, 30])
def test_coloured_noise_matches_the_reference(horizon: int, beta: float) -> None:
    """The correlation over time is the same. Our variance is 1; the reference's is larger."""
    basis = noise_basis(horizon, beta).double()
    covariance = (basis.T @ basis).numpy()
    np.testing.assert_allclose(np.diag(covariance), 1, rtol=1e-5)
    if horizon > 2:  # the reference does not support shorter horizons
        drawn = colorednoise.powerlaw_psd_gaussian(beta, (40000, horizon), random_state=0)
        np.testing.assert_allclose(np.corrcoef(drawn.T), covariance, atol=0.04)
    if beta == 0:
        np.testing.assert_allclose(covariance, np.eye(horizon), atol=1e-6)


@pytest.mark.parametrize("mean", [[0.0, 0.0], [0.4, -1.0]])
@pytest.mark.parametrize("temperature", [0.5, 5.0])
def test_mppi_matches_the_reference(mean: list[float], temperature: float) -> None:
    """Both get the same noise. The reference's noise cost is 0, because this planner has none."""
    N, std = 300, 0.5 * (HIGH - LOW) / 2
    plan = torch.tensor(mean).expand(H, A).clone()
    noise = torch.randn(N, H, A, generator=torch.Generator().manual_seed(0))
    reference = MPPI(
        lambda state, action: state + action,
        lambda state, action: state.square().sum(-1),
        nx=A,
        noise_sigma=torch.diag(std.square()),
        num_samples=N,
        horizon=H,
        lambda_=temperature,
        u_min=LOW,
        u_max=HIGH,
        U_init=plan.clone(),
    )
    reference._sample_noise = lambda shape: noise * std
    reference._compute_action_cost = torch.zeros_like
    start = torch.tensor([0.7, -0.3])
    reference.command(start, shift_nominal_trajectory=False)

    memory = Memory(torch.Generator().manual_seed(0))
    before = torch.cat([plan[:1], plan[:-1]])  # shifted by one step, it is `plan`
    memory.kept["mean"] = before

    def costs(sequences: Tensor) -> Tensor:
        states = start + sequences.cumsum(2)
        return -states.square().sum((-1, -2))

    flags = {"mppi_temperature": temperature, "mpc_init_std": 0.5}
    ours = context("mppi", [memory], mpc_num_action_sequences=N, **flags)
    found = PLANNERS["mppi"](costs, ours)
    torch.testing.assert_close(found[0], reference.U, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory.kept["mean"], found[0])


@pytest.mark.parametrize("temperature", [1e-9, 1e-300])
def test_mppi_is_the_mean_at_high_and_the_best_at_low_temperature(temperature: float) -> None:
    hot = PLANNERS["mppi"](returns_of, context("mppi", mppi_temperature=1e9, mpc_init_std=0.5))
    torch.testing.assert_close(hot[0], ((LOW + HIGH) / 2).expand(H, A), atol=0.2, rtol=0)
    cold = context("mppi", mppi_temperature=temperature)
    sequences = context("mppi").gaussian(cold.recall_mean(), cold.first_std[None])
    best = sequences[0, returns_of(sequences)[0].argmax()]
    torch.testing.assert_close(PLANNERS["mppi"](returns_of, cold)[0], best)


def test_every_planner_can_be_chosen() -> None:
    assert tuple(PLANNERS) == SAMPLING_STRATEGIES


class Recording:
    """Computes returns and records the populations."""

    def __init__(self) -> None:
        self.populations: list[Tensor] = []

    def __call__(self, sequences: Tensor) -> Tensor:
        self.populations.append(sequences)
        return returns_of(sequences)


ICEM: dict[str, Any] = {
    "mpc_num_action_sequences": 40,
    "cem_num_elites": 8,
    "cem_iterations": 4,
    "icem_decay": 1.5,
    "icem_reuse": 0.3,
}


def test_icem_populations_shrink_and_reuse_elites() -> None:
    recording, memory = Recording(), Memory(torch.Generator().manual_seed(0))
    plan = PLANNERS["icem"](recording, context("icem", [memory], **ICEM))
    sizes = [population.shape[1] for population in recording.populations]
    reused = 2  # 0.3 of 8
    assert sizes == [40 + reused, 26 + reused, 17 + reused, 16 + reused + 1]
    for before, after in zip(recording.populations[:-1], recording.populations[1:], strict=True):
        best = before[0, returns_of(before)[0].topk(reused).indices]
        rows = after[0].flatten(1).tolist()
        assert all(row in rows for row in best.flatten(1).tolist())
    last = recording.populations[-1]
    best = last[0, returns_of(last)[0].topk(8).indices]
    torch.testing.assert_close(plan[0], best[0])  # the best candidate, not the mean
    torch.testing.assert_close(memory.kept["elites"], best[:reused])
    torch.testing.assert_close(memory.kept["mean"], best.mean(0))  # because alpha is 1


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_first_icem_population_has_coloured_noise(beta: float) -> None:
    """This includes the candidates that replace the missing elites of a first decision."""
    flags = {"mpc_num_action_sequences": 3000, "cem_num_elites": 3000, "icem_reuse": 1.0}
    recording = Recording()
    ours = context("icem", **flags, cem_iterations=1, icem_noise_beta=beta, mpc_init_std=0.1)
    PLANNERS["icem"](recording, ours)
    basis = noise_basis(H, beta)
    for candidates in recording.populations[0][0, :6000].split(3000):
        for column, std in zip(candidates.unbind(-1), (0.1, 0.3), strict=True):
            covariance = torch.cov(column.T) / std**2
            torch.testing.assert_close(covariance, basis.T @ basis, rtol=0, atol=0.12)


def test_icem_continues_from_the_previous_decision() -> None:
    recording, memory = Recording(), Memory(torch.Generator().manual_seed(0))
    PLANNERS["icem"](recording, context("icem", [memory], **ICEM))
    elites, mean = memory.kept["elites"], memory.kept["mean"]
    recording = Recording()
    PLANNERS["icem"](recording, context("icem", [memory], **ICEM, mpc_init_std=1e-6))
    first = recording.populations[0][0]
    shifted = torch.cat([elites[:2, 1:], elites[:2, -1:]], 1)
    torch.testing.assert_close(first[-2:], shifted)
    shifted_mean = torch.cat([mean[1:], mean[-1:]])
    torch.testing.assert_close(first[:-2], shifted_mean.expand(40, H, A), rtol=0, atol=1e-4)


def test_alpha_applies_to_the_first_cem_population_after_a_warm_start() -> None:
    memory = Memory(torch.Generator().manual_seed(0))
    memory.kept["mean"] = torch.full((H, A), 0.25)
    ours = context("cem", [memory], mpc_warm_start="on", cem_alpha=0.0, cem_iterations=1)
    torch.testing.assert_close(PLANNERS["cem"](returns_of, ours)[0], torch.full((H, A), 0.25))


@pytest.mark.parametrize("strategy", ["random", "cem", "icem", "mppi"])
def test_warm_start_improves_the_plan(strategy: str) -> None:
    few = {"mpc_num_action_sequences": 30, "cem_iterations": 2, "mpc_init_std": 0.5}
    few["mppi_temperature"] = 0.3
    gaps = {}
    for warm in ("off", "on"):
        finals = []
        for seed in range(10):
            memory = Memory(torch.Generator().manual_seed(seed))
            for _ in range(5):
                ours = context(strategy, [memory], mpc_warm_start=warm, **few)
                plan = PLANNERS[strategy](returns_of, ours)
            finals.append(float(returns_of(plan[None])))
            assert bool(memory.kept) == (warm == "on")
        gaps[warm] = -np.mean(finals)
    assert gaps["on"] < 0.8 * gaps["off"]


@pytest.mark.parametrize("strategy", ["random", "cem", "icem", "mppi"])
def test_rows_of_a_batch_do_not_influence_each_other(strategy: str) -> None:
    """This includes batches in which some rows have memories of earlier decisions."""

    def memories_of(seeds: list[int], decisions: dict[int, int]) -> list[Memory]:
        found = [Memory(torch.Generator().manual_seed(seed)) for seed in seeds]
        for seed, memory in zip(seeds, found, strict=True):
            for _ in range(decisions[seed]):
                PLANNERS[strategy](returns_of, context(strategy, [memory], mpc_warm_start="on"))
        return found

    def plan(seeds: list[int]) -> Tensor:
        memories = memories_of(seeds, decisions)
        return PLANNERS[strategy](returns_of, context(strategy, memories, mpc_warm_start="on"))

    decisions = {1: 3, 2: 0, 3: 1}
    together = plan([1, 2, 3])
    for row, seed in enumerate(decisions):
        alone = plan([seed])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("strategy", ["random", "cem", "icem", "mppi"])
@pytest.mark.parametrize("warm", ["on", "off"])
def test_plans_stay_in_the_box(strategy: str, warm: str) -> None:
    def greedy(sequences: Tensor) -> Tensor:
        assert ((sequences >= LOW) & (sequences <= HIGH)).all()
        return sequences.sum((-1, -2))

    memory = Memory(torch.Generator().manual_seed(0))
    for _ in range(3):
        ours = context(strategy, [memory], mpc_warm_start=warm, mpc_init_std=3.0)
        plan = PLANNERS[strategy](greedy, ours)
        assert ((plan >= LOW) & (plan <= HIGH + 1e-6)).all()


@pytest.mark.parametrize("strategy", ["icem", "mppi"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_candidates_are_never_executed(strategy: str, bad: float) -> None:
    def partly_non_finite(sequences: Tensor) -> Tensor:
        first = sequences[..., 0, 0]
        return torch.where(first > 0, bad, -10 + first)

    plan = PLANNERS[strategy](partly_non_finite, context(strategy))
    assert plan.isfinite().all()
    assert plan[0, 0, 0] <= 0


@pytest.mark.parametrize("strategy", ["random", "cem", "icem", "mppi"])
@pytest.mark.parametrize("warm", ["on", "off"])
def test_no_finite_plan_gives_nan(strategy: str, warm: str) -> None:
    ours = context(strategy, mpc_warm_start=warm)
    plan = PLANNERS[strategy](lambda sequences: returns_of(sequences) * np.nan, ours)
    assert plan.isnan().all()


def test_first_population_of_a_warm_started_cem_has_the_std_of_the_box() -> None:
    recording, memory = Recording(), Memory(torch.Generator().manual_seed(0))
    memory.kept["mean"] = torch.zeros(H, A)
    flags = {"mpc_num_action_sequences": 4000, "mpc_init_std": 0.1, "mpc_warm_start": "on"}
    PLANNERS["cem"](recording, context("cem", [memory], cem_iterations=1, **flags))
    stds = recording.populations[0][0].flatten(0, 1).std(0)
    torch.testing.assert_close(stds, torch.tensor([0.1, 0.3]), rtol=0.05, atol=0)


def test_alpha_weights_the_mean_and_the_std_of_icem() -> None:
    """With an alpha of 0, all populations have the first mean and std."""
    recording, memory = Recording(), Memory(torch.Generator().manual_seed(0))
    memory.kept["mean"] = torch.full((H, A), 0.25)
    flags = {**ICEM, "mpc_num_action_sequences": 2000, "icem_decay": 1.0, "icem_noise_beta": 0.0}
    ours = context("icem", [memory], **flags, cem_alpha=0.0, mpc_init_std=0.1)
    PLANNERS["icem"](recording, ours)
    torch.testing.assert_close(memory.kept["mean"], torch.full((H, A), 0.25))
    for population in recording.populations:
        std, mean = torch.std_mean(population[0, :2000].flatten(0, 1), 0)
        torch.testing.assert_close(mean, torch.full((A,), 0.25), rtol=0, atol=0.02)
        torch.testing.assert_close(std, torch.tensor([0.1, 0.3]), rtol=0.05, atol=0)


def test_the_current_mean_of_icem_is_the_last_candidate() -> None:
    recording, memory = Recording(), Memory(torch.Generator().manual_seed(0))
    PLANNERS["icem"](recording, context("icem", [memory], **ICEM))
    before, last = recording.populations[-2:]
    elites = before[0, returns_of(before)[0].topk(8).indices]
    torch.testing.assert_close(last[0, -1], elites.mean(0))  # because alpha is 1
