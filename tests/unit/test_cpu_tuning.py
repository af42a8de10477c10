"""The library that multiplies is a matter of speed alone."""

from collections.abc import Iterator

import pytest
import torch

from cs285.infrastructure import cpu_tuning
from cs285.infrastructure.stacked_mlp import StackedMLP


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


def test_products_are_in_float32_on_any_machine() -> None:
    cpu_tuning.tune_cpu()
    assert cpu_tuning.products_are_float32()


def test_a_cpu_that_would_compute_in_bfloat16_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matmul = torch.backends.mkldnn.matmul
    matmul.fp32_precision = before = "ieee"
    monkeypatch.setattr(cpu_tuning, "_is_amd", lambda: True)
    exact = torch.bmm

    def as_with_amx(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float32 and matmul.fp32_precision == "bf16":
            return exact(left.bfloat16(), right.bfloat16()).float()
        return exact(left, right)

    monkeypatch.setattr(torch, "bmm", as_with_amx)
    cpu_tuning.tune_cpu()
    assert matmul.fp32_precision == before


@pytest.mark.parametrize(
    ("E", "batch", "widths", "activation"),
    [
        (3, 512, [27, 250, 250, 21], "tanh"),  # the homework's model, and
        (1, 512, [27, 250, 250, 21], "tanh"),  # of question 4
        (7, 256, [14, 200, 200, 200, 200, 24], "swish"),  # the MBPO paper's
        (2, 256, [27, 256, 256, 1], "relu"),  # the twin Q
    ],
)
def test_last_bits_do_not_go_by_the_number_of_threads(
    E: int, batch: int, widths: list[int], activation: str
) -> None:
    cpu_tuning.tune_cpu()
    generator = torch.Generator().manual_seed(1)
    network = StackedMLP(E, widths, activation, generator, padded=True)
    inputs = torch.randn(E, batch, widths[0], generator=generator)
    d_outputs = torch.randn(E, batch, widths[-1], generator=generator)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        trace = network.trace(inputs)
        found.append((trace.outputs, network.gradient(trace, d_outputs)))
    torch.set_num_threads(threads)
    (outputs, gradient), (outputs_of_two, gradient_of_two) = found
    assert torch.equal(outputs, outputs_of_two) and torch.equal(gradient, gradient_of_two)
