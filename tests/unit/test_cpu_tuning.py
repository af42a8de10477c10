"""The library that multiplies is a matter of speed alone."""

from collections.abc import Iterator

import pytest
import torch

from cs285.infrastructure import cpu_tuning


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


@pytest.mark.parametrize("shape", [(3, 512, 288, 256), (3, 27, 512, 288), (2, 256, 33, 256)])
def test_last_bits_do_not_go_by_the_number_of_threads(shape: tuple[int, int, int, int]) -> None:
    cpu_tuning.tune_cpu()
    E, i, j, k = shape
    left, right = torch.randn(E, i, j), torch.randn(E, j, k)
    threads = torch.get_num_threads()
    products = []
    for count in (1, 2):
        torch.set_num_threads(count)
        products.append(torch.bmm(left, right))
    torch.set_num_threads(threads)
    assert torch.equal(*products)
