"""Test that the planning form of an ensemble returns the outputs of its networks."""

from typing import Any

import pytest
import torch

from cs285.infrastructure.pytorch_util import make_generator
from cs285.networks import folded_tanh
from cs285.networks.ensemble_mlp import EnsembleMLP, LayerNorm
from cs285.networks.folded_tanh import ROWS_AT_ONCE, WORTH_SHARING, fold, planning_form, product

E, IN, OUT = 3, 6, 5
SHAPES = [(5, 4, 1), (5, 1, 4), (5, 4, 3), (5, 1, 1), (128, 128, 128)]


def make(n_layers: int = 2, size: int = 50, activation: Any = "tanh", **options: Any) -> Any:
    widths, generator = [IN, *[size] * n_layers, OUT], make_generator(1, "test")
    network = EnsembleMLP(E, widths, activation, generator, **{"padded": True, **options})
    with torch.no_grad():
        for _, bias in network.layers:
            bias *= 3
    return network


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [32, 50, 64])
def test_folded_networks_return_the_same_outputs(n_layers: int, size: int) -> None:
    network, inputs = make(n_layers, size), torch.randn(E, 20, IN)
    with torch.no_grad():
        folded = fold(network.layers, network.widths)
        found = folded(torch.cat([inputs, torch.ones(E, 20, 1)], -1))
    torch.testing.assert_close(found, network(inputs).detach(), rtol=1e-5, atol=1e-5)
    assert torch.sigmoid(torch.full((64,), 20.0)).eq(1).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padded": False},
        {"activation": "swish"},
        {"activation": torch.nn.functional.softplus, "padded": False},
        {"activation": "relu", "padded": False, "layer_norm": LayerNorm(affine=True)},
        {"padded": False, "layer_norm": LayerNorm()},
    ],
)
@pytest.mark.parametrize("members", [None, torch.tensor([2, 0])])
def test_planning_form_equals_the_networks_on_normalised_inputs(
    options: dict[str, Any], members: torch.Tensor | None
) -> None:
    network = make(**options)
    mean, inverse_std = torch.randn(IN), torch.rand(IN) + 0.5
    rows = ROWS_AT_ONCE + 7  # more than one block
    inputs = torch.randn(E if members is None else len(members), rows, IN)
    outputs_of = planning_form(network, members, mean, inverse_std)
    found, before = outputs_of(inputs), inputs.clone()
    tensors = network.of_members(members)
    expected = network.apply_tensors(tensors, (inputs - mean) * inverse_std).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not found.requires_grad
    assert torch.equal(inputs, before)


def test_only_padded_tanh_networks_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[Any] = []
    monkeypatch.setattr(folded_tanh, "fold", lambda *args: folded.append(args))
    for options in ({"padded": False}, {"activation": "relu"}, {"activation": torch.tanh}):
        planning_form(make(**options), None, torch.zeros(IN), torch.ones(IN))
    assert not folded
    planning_form(make(), None, torch.zeros(IN), torch.ones(IN))
    assert len(folded) == 1


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize(("i", "j", "k"), SHAPES)
def test_product_equals_the_batched_product(i: int, j: int, k: int, members: int) -> None:
    """The largest product with 3 members computes the last member separately."""
    assert WORTH_SHARING <= 128**3
    left, right = torch.randn(members, i, j).double(), torch.randn(members, j, k).double()
    torch.testing.assert_close(product(left, right), left @ right)
