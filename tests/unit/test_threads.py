"""Test that helper threads use idle cores without changing the results."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from cs285.infrastructure.pytorch_util import make_generator
from cs285.networks.ensemble_mlp import EnsembleMLP
from cs285.networks.folded_tanh import planning_form
from cs285.networks.threads import map_on_threads, one_thread, set_planning_threads

ITEMS = list(torch.arange(12.0).split(1))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_the_order_of_the_items(threads: int) -> None:
    with one_thread(planning_threads=threads):
        assert map_on_threads(lambda item: item + 1, ITEMS) == [item + 1 for item in ITEMS]
        assert map_on_threads(lambda item: item, []) == []


def test_helpers_use_one_torch_thread_and_the_modes_of_the_caller() -> None:
    both_threads = threading.Barrier(2, timeout=20)
    seen: dict[str, Any] = {}

    def look(item: Tensor) -> Tensor:
        both_threads.wait()
        seen[threading.current_thread().name] = (
            torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        )  # fmt: skip
        return item

    for mode in (torch.inference_mode, torch.no_grad):
        seen.clear()
        with one_thread(planning_threads=2), mode():
            map_on_threads(look, ITEMS[:2])
        assert len(seen) == 2
        assert set(seen.values()) == {(1, False, mode is torch.inference_mode)}


def test_error_in_any_thread_is_raised() -> None:
    def fail(item: Tensor) -> Tensor:
        raise ValueError(f"item {int(item)}")

    with one_thread(planning_threads=3), pytest.raises(ValueError, match="item"):
        map_on_threads(fail, ITEMS)


def test_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with one_thread(planning_threads=4):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    names: set[str] = set()

    def note(item: Tensor) -> Tensor:
        names.add(threading.current_thread().name)
        return item

    map_on_threads(note, ITEMS)
    assert names == {threading.current_thread().name}  # no helpers outside one_thread


@pytest.mark.parametrize("rows", [1, 511, 513, 2000, 4100])
@pytest.mark.parametrize(("activation", "size", "members"), [("tanh", 250, 3), ("swish", 200, 5)])
def test_outputs_are_bit_identical_for_any_number_of_threads(
    rows: int, activation: str, size: int, members: int
) -> None:
    generator = make_generator(1, "test")
    network = EnsembleMLP(members, [6, size, size, 4], activation, generator, padded=True)
    outputs_of = planning_form(network, None, torch.zeros(6), torch.ones(6))
    inputs = torch.randn(members, rows, 6, generator=generator)
    found = []
    for threads in (1, 2, 3):
        with one_thread(planning_threads=threads):
            found += [outputs_of(inputs) for _ in range(3)]
    assert all(torch.equal(outputs, found[0]) for outputs in found)


def test_planning_threads_can_change_at_any_time() -> None:
    with one_thread():
        for threads in (2, 1, 4, 3):
            set_planning_threads(threads)
            assert map_on_threads(lambda item: 2 * item, ITEMS) == [2 * item for item in ITEMS]
