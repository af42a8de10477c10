"""Test that CPU tuning changes the speed, but not the results."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from cs285.networks import cpu_tuning
from cs285.networks.ensemble_mlp import EnsembleMLP


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


def test_products_stay_in_float32() -> None:
    cpu_tuning.tune_cpu()
    assert cpu_tuning.products_are_float32()


@pytest.mark.parametrize("kernel", ["bmm", "baddbmm", "mm", "addmm"])
@pytest.mark.parametrize("columns", [1, 21, 256])  # the kernel of one shape may use bfloat16
def test_cpu_that_would_use_bfloat16_keeps_its_setting(
    kernel: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matmul = torch.backends.mkldnn.matmul
    matmul.fp32_precision = before = "ieee"
    monkeypatch.setattr(cpu_tuning, "_is_amd", lambda: True)
    exact = getattr(torch, kernel)

    def with_bfloat16(*operands: Tensor) -> Tensor:
        rounds = operands[-1].dtype == torch.float32 and operands[-1].shape[-1] == columns
        if rounds and matmul.fp32_precision == "bf16":
            return exact(*[operand.bfloat16() for operand in operands]).float()
        return exact(*operands)

    monkeypatch.setattr(torch, kernel, with_bfloat16)
    cpu_tuning.tune_cpu()
    assert matmul.fp32_precision == before


@pytest.mark.parametrize("shape", [(3, 512, 288, 256), (3, 27, 512, 288), (2, 256, 33, 256)])
def test_products_do_not_depend_on_the_number_of_threads(shape: tuple[int, int, int, int]) -> None:
    cpu_tuning.tune_cpu()
    E, i, j, k = shape
    left, right = torch.randn(E, i, j), torch.randn(E, j, k)
    one, two = by_threads(lambda: torch.bmm(left, right))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("E", "batch", "widths", "activation"),
    [
        (3, 512, [27, 250, 250, 21], "tanh"),  # the homework's ensemble
        (1, 512, [27, 250, 250, 21], "tanh"),  # question 4 with one member
        (7, 256, [14, 200, 200, 200, 200, 24], "swish"),  # the MBPO paper's ensemble
        (2, 256, [27, 256, 256, 1], "relu"),  # the twin Q
    ],
)
def test_networks_are_bit_identical_for_any_number_of_threads(
    E: int, batch: int, widths: list[int], activation: str
) -> None:
    cpu_tuning.tune_cpu()
    generator = torch.Generator().manual_seed(1)
    network = EnsembleMLP(E, widths, activation, generator, padded=True)
    inputs = torch.randn(E, batch, widths[0], generator=generator)
    d_outputs = torch.randn(E, batch, widths[-1], generator=generator)

    def outputs_and_gradient() -> Tensor:
        outputs = network(inputs)
        (gradient,) = torch.autograd.grad(outputs, network.vector, d_outputs)
        return torch.cat([outputs.detach().flatten(), gradient])

    one, two = by_threads(outputs_and_gradient)
    assert torch.equal(one, two)


def by_threads(compute: Callable[[], Tensor]) -> list[Tensor]:
    """Return the results of `compute` with one thread and with two."""
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(compute())
    torch.set_num_threads(threads)
    return found
