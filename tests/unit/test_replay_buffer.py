import numpy as np
import pytest
import torch

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.pytorch_util import make_generator
from cs285.infrastructure.replay_buffer import Path, ReplayBuffer, Transitions, stack_paths
from cs285.infrastructure.utils import add_noise, return_statistics


def numbered(first: int, count: int) -> Transitions:
    """Return `count` transitions whose entries are their number."""
    column = torch.arange(first, first + count, dtype=torch.float32)
    table = column[:, None].expand(-1, 3)
    return Transitions(table, table[:, :2], column, table + 0.5, column % 2 == 0)


def make_path(length: int, reward: float = 1.0, terminated: bool = False) -> Path:
    obs = np.arange(3 * length, dtype=np.float32).reshape(length, 3)
    flags = np.zeros(length, bool)
    flags[-1] = terminated
    return Path(obs, obs[:, :2], np.full(length, reward, np.float32), obs + 1, flags)


@pytest.mark.parametrize("sizes", [[3], [10], [4, 4, 4], [25], [7, 9, 1, 1], [10, 10, 3]])
def test_ring_keeps_the_newest_rows(sizes: list[int]) -> None:
    buffer, added = ReplayBuffer(10, 3, 2), 0
    for size in sizes:
        buffer.add(numbered(added, size))
        added += size
    rows = buffer.all()
    assert len(buffer) == min(added, 10)
    assert sorted(rows.rewards.tolist()) == list(range(max(0, added - 10), added))
    torch.testing.assert_close(rows.next_obs[:, 0], rows.rewards + 0.5)
    assert torch.equal(rows.terminated, rows.rewards % 2 == 0)


def test_restored_ring_continues_like_the_original() -> None:
    original, restored = ReplayBuffer(10, 3, 2), ReplayBuffer(10, 3, 2)
    original.add(numbered(0, 13))
    restored.load_state_dict(original.state_dict())
    for buffer in (original, restored):
        buffer.add(numbered(13, 4))
    for left, right in zip(original.all(), restored.all(), strict=True):
        assert torch.equal(left, right)


def piece(first: int, length: int, is_continuation: bool = False) -> Path:
    """Return a path of numbered steps: observation t leads to observation t + 1."""
    steps = np.arange(first, first + length, dtype=np.float32)
    obs = steps[:, None].repeat(3, 1)
    return Path(obs, obs[:, :2], steps, obs + 1, np.zeros(length, bool), is_continuation)


def add_pieces(buffer: ReplayBuffer, *pieces: Path) -> None:
    buffer.add(stack_paths(pieces), pieces)


def sequences(buffer: ReplayBuffer, length: int, count: int = 2000) -> set[tuple[int, ...]]:
    """Return the sampled sequences of step numbers."""
    rows = buffer.sample_sequences((count,), length, make_generator(1, "sequences"))
    assert rows.shape == (count, length)
    return {tuple(steps) for steps in buffer.all().rewards[rows].int().tolist()}


def within(length: int, *episodes: range) -> set[tuple[int, ...]]:
    """Return every sequence of `length` steps within one of these episodes."""
    return {
        tuple(range(first, first + length))
        for episode in episodes
        for first in range(episode.start, episode.stop - length + 1)
    }


def test_sequences_lie_within_one_episode_and_cover_it() -> None:
    buffer = ReplayBuffer(100, 3, 2)
    add_pieces(buffer, piece(0, 5), piece(10, 3))
    add_pieces(buffer, piece(20, 2), piece(30, 6))
    episodes = [range(0, 5), range(10, 13), range(20, 22), range(30, 36)]
    for length in (1, 2, 3, 6):
        assert sequences(buffer, length) == within(length, *episodes)


def test_memory_grows_with_the_content_up_to_the_capacity() -> None:
    buffer, room = ReplayBuffer(1000, 3, 2), []
    data = Transitions(
        torch.randn(100, 3), torch.randn(100, 2), torch.randn(100), torch.randn(100, 3),
        torch.zeros(100, dtype=torch.bool),
    )  # fmt: skip
    for _ in range(12):
        buffer.add(data)
        room.append(len(buffer._rows))
    assert room == [100, 200, 400, 400, *[800] * 4, *[1000] * 4]
    torch.testing.assert_close(buffer.newest(100).obs, data.obs)
    restored = ReplayBuffer(1000, 3, 2)
    restored.load_state_dict(buffer.state_dict())
    torch.testing.assert_close(restored.rows, buffer.rows)


@pytest.mark.parametrize("capacity", [14, 13, 12, 11])
def test_sequences_do_not_cross_the_wrap_of_the_ring(capacity: int) -> None:
    """In memory the newest rows precede the oldest ones, and an episode may wrap around."""
    buffer = ReplayBuffer(capacity, 3, 2)
    add_pieces(buffer, piece(0, 6), piece(10, 4))
    add_pieces(buffer, piece(20, 7))  # overwrites the oldest
    kept = [*range(6), *range(10, 14), *range(20, 27)][-capacity:]
    episodes = [
        range(min(own), max(own) + 1)
        for episode in (range(6), range(10, 14), range(20, 27))
        if (own := [step for step in episode if step in kept])
    ]
    for length in (2, 3, 4, 7):
        assert sequences(buffer, length) == within(length, *episodes)


def test_batch_larger_than_the_ring_keeps_the_newest_sequences() -> None:
    buffer = ReplayBuffer(6, 3, 2)
    add_pieces(buffer, piece(0, 7), piece(10, 4))
    assert sequences(buffer, 2) == {(5, 6), (10, 11), (11, 12), (12, 13)}
    assert sequences(buffer, 4) == {(10, 11, 12, 13)}


def test_sequences_span_pieces_of_an_episode() -> None:
    buffer = ReplayBuffer(100, 3, 2)
    add_pieces(buffer, piece(0, 3))
    add_pieces(buffer, piece(3, 2, is_continuation=True), piece(10, 2))
    add_pieces(buffer, piece(12, 1, is_continuation=True))
    add_pieces(buffer, piece(13, 2, is_continuation=True), piece(20, 2))
    assert sequences(buffer, 4) == within(4, range(0, 5), range(10, 15))
    assert sequences(buffer, 5) == within(5, range(0, 5), range(10, 15))


def test_sequences_are_equal_after_a_resume_within_an_episode() -> None:
    buffer, restored = ReplayBuffer(12, 3, 2), ReplayBuffer(12, 3, 2)
    add_pieces(buffer, piece(0, 4), piece(10, 3))
    add_pieces(buffer, piece(20, 6))
    restored.load_state_dict(buffer.state_dict())
    for each in (buffer, restored):
        add_pieces(each, piece(26, 2, is_continuation=True), piece(30, 2))
    for length in (2, 3, 4, 8):
        drawn = [
            each.sample_sequences((5, 2), length, make_generator(1, "s"))
            for each in (buffer, restored)
        ]
        assert torch.equal(*drawn)
    episodes = [range(11, 13), range(20, 28), range(30, 32)]  # steps 0 to 10 are overwritten
    assert sequences(restored, 2) == within(2, *episodes)
    assert sequences(restored, 8) == within(8, *episodes)


def test_rows_without_paths_count_as_one_episode() -> None:
    buffer = ReplayBuffer(100, 3, 2)
    buffer.add(numbered(0, 4))
    buffer.add(numbered(10, 3))
    assert sequences(buffer, 3) == within(3, range(0, 4), range(10, 13))


def test_sequences_have_the_requested_shape_and_are_uniform() -> None:
    buffer = ReplayBuffer(100, 3, 2)
    add_pieces(buffer, piece(0, 6), piece(10, 3))
    rows = buffer.sample_sequences((400, 3, 5), 3, make_generator(1, "s"))
    assert rows.shape == (400, 3, 5, 3)
    firsts, counts = rows[..., 0].unique(return_counts=True)
    assert firsts.tolist() == [0, 1, 2, 3, 6]  # four in the first episode, one in the second
    assert counts.float().div(6000).sub(0.2).abs().max() < 0.02


def test_sequences_longer_than_every_episode_are_rejected() -> None:
    buffer = ReplayBuffer(100, 3, 2)
    add_pieces(buffer, piece(0, 4), piece(10, 5))
    for length in (6, 10):
        with pytest.raises(UsageError, match=f"no episode has {length} steps"):
            buffer.sample_sequences((2,), length, make_generator(1, "s"))


def test_too_many_saved_rows_are_rejected() -> None:
    large = ReplayBuffer(20, 3, 2)
    large.add(numbered(0, 15))
    with pytest.raises(ValueError, match=r"rows \(15, 10\) do not fit"):
        ReplayBuffer(10, 3, 2).load_state_dict(large.state_dict())


def test_paths_are_stacked_in_order_with_their_termination() -> None:
    data = stack_paths([make_path(2, terminated=True), make_path(3)])
    assert data.obs.shape == (5, 3)
    assert data.obs.dtype == torch.float32
    assert data.terminated.tolist() == [False, True, False, False, False]


def test_return_statistics_equal_hand_computed_values() -> None:
    paths = [make_path(2, 1.0), make_path(4, 2.0)]
    assert return_statistics("Eval", paths) == {
        "Eval_AverageReturn": 5.0,
        "Eval_StdReturn": 3.0,
        "Eval_MaxReturn": 8.0,
        "Eval_MinReturn": 2.0,
        "Eval_AverageEpLen": 3.0,
    }


def test_noise_std_is_one_percent_of_the_mean_per_dimension() -> None:
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
    assert correlation[0, 1].abs() < 0.02  # the two draws are independent
