import copy
import pickle

import pytest
import torch
from torch import Tensor

from cs285.infrastructure.pytorch_util import make_generator
from cs285.networks.ensemble_mlp import WORTH_SHARING, EnsembleMLP, affine, product, tanh_

E, B, WIDTHS = 3, 20, [4, 40, 33, 2]
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "swish": torch.nn.functional.silu}


def make(activation: str = "tanh", padded: bool = True) -> EnsembleMLP:
    generator = make_generator(1, "test")
    return EnsembleMLP(E, WIDTHS, activation, generator, padded=padded).double()


def plain(network: EnsembleMLP, vector: Tensor, inputs: Tensor) -> Tensor:
    """The same function by autograd's means."""
    *hidden, (weight, bias) = network.view_layers(vector)
    for hidden_weight, hidden_bias in hidden:
        inputs = ACTIVATIONS[network.activation](inputs @ hidden_weight + hidden_bias)
    return inputs @ weight + bias


@pytest.mark.parametrize("out", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "relu", "swish"])
def test_gradients_are_those_of_autograd(activation: str, out: int) -> None:
    widths = [*WIDTHS[:-1], out]
    generator = make_generator(1, "test")
    network = EnsembleMLP(E, widths, activation, generator, padded=activation != "relu").double()
    inputs = torch.randn(E, B, 4).double().requires_grad_()
    vector = network.vector.clone().requires_grad_()
    outputs = plain(network, vector, inputs)
    weights_of = torch.randn(E, B, out).double()
    expected = torch.autograd.grad((outputs * weights_of).sum(), [vector, inputs])

    trace = network.trace(inputs.detach())
    torch.testing.assert_close(trace.outputs, outputs.detach())
    torch.testing.assert_close(network.gradient(trace, weights_of), expected[0])
    columns = slice(1, 3)
    torch.testing.assert_close(
        network.input_gradient(trace, weights_of, columns), expected[1][..., columns]
    )


def test_tanh_is_tanh() -> None:
    values = torch.cat([torch.linspace(-30, 30, 10001), torch.tensor([0.0, -1e-6, 200.0, -200.0])])
    torch.testing.assert_close(tanh_(values.clone()), values.tanh(), rtol=0, atol=2e-7)
    assert tanh_(torch.zeros(33)).eq(0).all()  # padding units stay silent


@pytest.mark.parametrize("way", ["copy", "pickle", "move"])
def test_a_copied_network_uses_its_own_weights(way: str) -> None:
    network = make()
    other = {
        "copy": copy.deepcopy,
        "pickle": lambda network: pickle.loads(pickle.dumps(network)),
        "move": lambda network: copy.deepcopy(network).float().double(),
    }[way](network)
    inputs = torch.randn(E, B, 4).double()
    before = network(inputs)
    torch.testing.assert_close(other(inputs), before, rtol=1e-5, atol=1e-5)
    other.vector.zero_()
    assert not other(inputs).any()
    assert torch.equal(network(inputs), before)


SHAPES = [(5, 4, 1), (5, 1, 4), (5, 4, 3), (5, 1, 1), (128, 128, 128)]


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize(("i", "j", "k"), SHAPES)
def test_product_and_affine_are_the_batched_ones(i: int, j: int, k: int, members: int) -> None:
    """Also where an odd member is done by itself: the largest, with three."""
    assert WORTH_SHARING <= 128**3
    left, right = torch.randn(members, i, j).double(), torch.randn(members, j, k).double()
    torch.testing.assert_close(product(left, right), left @ right)
    out = torch.empty(members, i, k).double()
    product(left, right, out=out)
    torch.testing.assert_close(out, left @ right)
    bias = torch.randn(members, 1, k).double()
    torch.testing.assert_close(affine(bias, left, right), left @ right + bias)
