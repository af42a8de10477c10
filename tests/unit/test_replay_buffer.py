import numpy as np
import pytest
import torch

from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Path, ReplayBuffer, Transitions, stack_paths
from cs285.infrastructure.utils import add_noise, return_statistics


def numbered(first: int, count: int) -> Transitions:
    """Rows whose every entry is their number."""
    column = torch.arange(first, first + count, dtype=torch.float32)
    table = column[:, None].expand(-1, 3)
    return Transitions(table, table[:, :2], column, table + 0.5, column % 2 == 0)


def make_path(length: int, reward: float = 1.0, terminated: bool = False) -> Path:
    obs = np.arange(3 * length, dtype=np.float32).reshape(length, 3)
    ends = np.zeros(length, bool)
    ends[-1] = terminated
    return Path(obs, obs[:, :2], np.full(length, reward, np.float32), obs + 1, ends)


@pytest.mark.parametrize("sizes", [[3], [10], [4, 4, 4], [25], [7, 9, 1, 1], [10, 10, 3]])
def test_ring_keeps_exactly_the_newest(sizes: list[int]) -> None:
    buffer, added = ReplayBuffer(10, 3, 2), 0
    for size in sizes:
        buffer.add(numbered(added, size))
        added += size
    rows = buffer.all()
    assert len(buffer) == min(added, 10)
    assert sorted(rows.rewards.tolist()) == list(range(max(0, added - 10), added))
    torch.testing.assert_close(rows.next_obs[:, 0], rows.rewards + 0.5)
    assert torch.equal(rows.terminated, rows.rewards % 2 == 0)


def test_restored_ring_goes_on_as_the_original() -> None:
    original, restored = ReplayBuffer(10, 3, 2), ReplayBuffer(10, 3, 2)
    original.add(numbered(0, 13))
    restored.load_state_dict(original.state_dict())
    for buffer in (original, restored):
        buffer.add(numbered(13, 4))
    for left, right in zip(original.all(), restored.all(), strict=True):
        assert torch.equal(left, right)


def test_too_many_saved_rows_are_refused() -> None:
    large = ReplayBuffer(20, 3, 2)
    large.add(numbered(0, 15))
    with pytest.raises(ValueError, match="15 rows do not fit"):
        ReplayBuffer(10, 3, 2).load_state_dict(large.state_dict())


def test_paths_are_stacked_in_order_and_termination_is_kept_apart() -> None:
    data = stack_paths([make_path(2, terminated=True), make_path(3)])
    assert data.obs.shape == (5, 3)
    assert data.obs.dtype == torch.float32
    assert data.terminated.tolist() == [False, True, False, False, False]


def test_return_statistics_by_hand() -> None:
    paths = [make_path(2, 1.0), make_path(4, 2.0)]
    assert return_statistics("Eval", paths) == {
        "Eval_AverageReturn": 5.0,
        "Eval_StdReturn": 3.0,
        "Eval_MaxReturn": 8.0,
        "Eval_MinReturn": 2.0,
        "Eval_AverageEpLen": 3.0,
    }


def test_noise_is_one_percent_of_each_dimensions_mean() -> None:
    rows = 50000
    obs = torch.randn(rows, 3) * 0.1 + torch.tensor([-4.0, 0.0, 20.0])
    data = Transitions(obs, obs[:, :2], obs[:, 0], obs + 1, torch.zeros(rows, dtype=torch.bool))
    noisy = add_noise(data, make_generator(1, "noise"))
    for before, after in ((data.obs, noisy.obs), (data.next_obs, noisy.next_obs)):
        expected = 0.01 * before.mean(0).abs()
        torch.testing.assert_close((after - before).std(0), expected, rtol=0.03, atol=1e-5)
    assert torch.equal(noisy.acs, data.acs)
    assert torch.equal(noisy.rewards, data.rewards)
    correlation = torch.corrcoef(
        torch.stack([(noisy.obs - data.obs)[:, 2], (noisy.next_obs - data.next_obs)[:, 2]])
    )
    assert correlation[0, 1].abs() < 0.02  # the two are drawn apart
