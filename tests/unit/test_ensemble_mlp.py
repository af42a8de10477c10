"""Test that EnsembleMLP equals E separate networks, for all layer types."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cs285.infrastructure.pytorch_util import make_generator
from cs285.networks.ensemble_mlp import EnsembleMLP, LayerNorm, draw_mask, linear

E, B, WIDTHS = 3, 20, [4, 40, 33, 2]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "swish": nn.SiLU,
}


def make(activation: Any = "tanh", widths: Any = WIDTHS, **options: Any) -> EnsembleMLP:
    generator = make_generator(1, "test")
    return EnsembleMLP(E, widths, activation, generator, **options).double()


def member(network: EnsembleMLP, number: int, activation: nn.Module) -> nn.Sequential:
    """Rebuild one member from torch.nn, without padding, with a copy of its weights."""
    widths, layers = network.widths, network.layers
    affine = network.tensors[2 * len(layers) :]
    built: list[nn.Module] = []
    for index, (weight, bias) in enumerate(layers):
        i, o = widths[index], widths[index + 1]
        layer = nn.Linear(i, o).double()
        layer.weight.data = weight[number, :i, :o].T.detach().clone()
        layer.bias.data = bias[number, 0, :o].detach().clone()
        built.append(layer)
        if index + 1 == len(layers):
            break
        built.append(activation)
        if network.layer_norm:
            norm = nn.LayerNorm(o, network.eps[index], bool(affine)).double()
            if affine:
                norm.weight.data = affine[2 * index][number, 0].detach().clone()
                norm.bias.data = affine[2 * index + 1][number, 0].detach().clone()
            built.append(norm)
    return nn.Sequential(*built)


def check_against_members(network: EnsembleMLP, activation: nn.Module) -> None:
    """Check outputs and gradients of weights and inputs against separate networks."""
    inputs = torch.randn(E, B, network.widths[0]).double().requires_grad_()
    weights_of = torch.randn(E, B, network.widths[-1]).double()
    outputs = network(inputs)
    by_vector, by_inputs = torch.autograd.grad(
        (outputs * weights_of).sum(), [network.vector, inputs]
    )
    by_tensor = network.views_of(by_vector)
    count = 2 * len(network.layers)
    for number in range(E):
        alone = member(network, number, activation)
        own = inputs[number].detach().clone().requires_grad_()
        expected = alone(own)
        torch.testing.assert_close(outputs[number], expected)
        (expected * weights_of[number]).sum().backward()
        torch.testing.assert_close(by_inputs[number], own.grad)
        linears = [layer for layer in alone if isinstance(layer, nn.Linear)]
        for index, layer in enumerate(linears):
            i, o = layer.in_features, layer.out_features
            assert layer.weight.grad is not None
            torch.testing.assert_close(by_tensor[2 * index][number, :i, :o], layer.weight.grad.T)
            torch.testing.assert_close(by_tensor[2 * index + 1][number, 0, :o], layer.bias.grad)
        norms = [layer for layer in alone if isinstance(layer, nn.LayerNorm)]
        for index, norm in enumerate(norms if len(by_tensor) > count else []):
            scale, shift = by_tensor[count + 2 * index : count + 2 * index + 2]
            torch.testing.assert_close(scale[number, 0], norm.weight.grad)
            torch.testing.assert_close(shift[number, 0], norm.bias.grad)


@pytest.mark.parametrize("out", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "relu", "swish"])
def test_outputs_and_gradients_match_separate_networks(activation: str, out: int) -> None:
    network = make(activation, [*WIDTHS[:-1], out], padded=activation != "relu")
    check_against_members(network, ACTIVATIONS[activation]())


def test_activation_may_be_any_function() -> None:
    check_against_members(make(nn.functional.softplus), nn.Softplus())
    check_against_members(make(nn.functional.mish, padded=True), nn.Mish())  # mish(0) = 0


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("eps", [1e-5, (1e-3, 0.1)])
def test_layer_norm_matches_torch_in_every_member(affine: bool, eps: Any) -> None:
    network = make("swish", layer_norm=LayerNorm(eps, affine))
    scales = network.tensors[2 * len(network.layers) :]
    assert [tuple(tensor.shape) for tensor in scales] == affine * [
        (E, 1, width) for width in (40, 40, 33, 33)
    ]
    if affine:
        assert [tensor.unique().tolist() for tensor in scales] == [[1], [0], [1], [0]]
        with torch.no_grad():
            for tensor in scales:
                tensor.add_(torch.randn_like(tensor))  # make the members differ
    check_against_members(network, nn.SiLU())


def test_eps_0_means_no_layer_norm_after_this_layer() -> None:
    network = make("relu", layer_norm=LayerNorm((0.0, 0.1)))
    with torch.no_grad():
        network.layers[0][0].zero_(), network.layers[0][1].fill_(-1)  # all units of a layer are 0
    assert network(torch.randn(E, B, 4).double()).isfinite().all()
    plain = make("relu", layer_norm=LayerNorm((0.0, 0.0)))
    inputs = torch.randn(E, B, 4).double()
    assert torch.equal(plain(inputs), make("relu")(inputs))


def test_dropout_needs_masks_and_is_reproducible() -> None:
    network, inputs = make("relu", dropout=0.3), torch.randn(E, B, 4).double()
    without = make("relu")(inputs)
    assert torch.equal(network(inputs), without)

    def dropped(seed: int) -> Tensor:
        return network(inputs, network.draw_masks(B, make_generator(seed, "dropout")))

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))
    assert not torch.equal(dropped(1), without)


def test_dropout_keeps_the_mean_and_is_set_per_layer() -> None:
    """All units of the hidden layer return 1, so their sum counts the units that are kept."""
    network = EnsembleMLP(
        E, [4, 1000, 1], lambda z: torch.ones_like(z), make_generator(1, "test"), dropout=[0.25]
    )
    with torch.no_grad():
        weight, bias = network.layers[-1]
        weight.fill_(1.0)
        bias.zero_()
    masks = network.draw_masks(50, make_generator(0, "dropout"))
    sums = network(torch.randn(E, 50, 4), masks).detach()
    kept = sums * 0.75
    torch.testing.assert_close(kept, kept.round())  # a kept unit counts 1 / (1 - share)
    assert float(sums.mean()) == pytest.approx(1000, rel=0.01)
    assert float(kept.std()) == pytest.approx((1000 * 0.25 * 0.75) ** 0.5, rel=0.2)
    assert torch.unique(sums).numel() > 20  # rows and members have separate draws
    network = make("relu", dropout=(0.0, 0.5))
    inputs = torch.randn(E, B, 4).double()
    masks = network.draw_masks(B, make_generator(0, "dropout"))
    none, mask = masks
    assert none is None
    assert mask is not None
    assert mask.unique().tolist() == [0, 2]
    (first, second, last) = network.layers
    hidden = torch.relu(torch.relu(inputs @ first[0] + first[1]) @ second[0] + second[1])
    torch.testing.assert_close(network(inputs, masks), (hidden * mask) @ last[0] + last[1])


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9])
def test_zeros_of_a_dropout_mask_are_independent(share: float) -> None:
    """The number of zeros, and of pairs of neighbouring zeros, are within five deviations."""
    count = 200_000
    mask = draw_mask((count,), share, make_generator(0, "mask"))
    zeros = mask == 0
    assert mask[~zeros].unique().tolist() == pytest.approx([1 / (1 - share)])
    for found, probability in (
        (zeros, share), (zeros[1:] & zeros[:-1], share**2), (zeros[: count // 10], share),
        (zeros[-count // 10 :], share),
    ):  # fmt: skip
        limit = 5 * (len(found) * probability * (1 + 2 * share)) ** 0.5
        assert abs(float(found.sum()) - len(found) * probability) < limit + 2


@pytest.mark.parametrize("options", [{"dropout": [0.1]}, {"layer_norm": LayerNorm((1e-5,) * 3)}])
def test_wrong_number_of_values_per_layer_is_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="values for 2 hidden layers"):
        make("relu", **options)


@pytest.mark.parametrize(
    ("activation", "options"),
    [
        (torch.sigmoid, {}),
        (nn.functional.softplus, {}),
        (torch.cos, {}),
        ("relu", {"layer_norm": LayerNorm()}),
        ("tanh", {"layer_norm": LayerNorm(affine=True)}),
    ],
)
def test_padding_that_would_change_the_networks_is_rejected(
    activation: Any, options: dict[str, Any]
) -> None:
    make(activation, **options)  # valid without padding
    with pytest.raises(ValueError, match="padded: must be False with LayerNorm"):
        make(activation, padded=True, **options)


@pytest.mark.parametrize("activation", ["tanh", "relu", "swish"])
def test_padding_units_have_exactly_zero_gradients(activation: str) -> None:
    network = make(activation, padded=True)
    assert [tuple(weight.shape[1:]) for weight, _ in network.layers] == [(4, 48), (48, 48), (48, 2)]
    outputs = network(torch.randn(E, B, 4).double())
    (gradient,) = torch.autograd.grad(outputs.square().sum(), network.vector)
    (first, first_bias, second, second_bias, last, _) = network.views_of(gradient)
    for part in (first[:, :, 40:], first_bias[:, :, 40:], second[:, 40:], second[:, :, 33:],
                 second_bias[:, :, 33:], last[:, 33:]):  # fmt: skip
        assert not part.any()
    assert first[:, :, :40].ne(0).float().mean() > 0.7  # some relu units are inactive
    assert last[:, :33].ne(0).float().mean() > 0.7


def test_padded_tanh_networks_have_a_padding_unit() -> None:
    for activation, widths in (("tanh", [64, 80]), ("relu", [48, 64])):
        network = make(activation, [4, 48, 64, 2], padded=True)
        assert [weight.shape[2] for weight, _ in network.layers[:-1]] == widths


def test_members_share_nothing() -> None:
    network, inputs = make(layer_norm=LayerNorm(affine=True)), torch.randn(E, B, 4).double()
    (gradient,) = torch.autograd.grad(network(inputs)[1].sum(), network.vector)
    for tensor in network.views_of(gradient):
        assert not tensor[[0, 2]].any()
    assert all(tensor[1].any() for tensor in network.views_of(gradient))


def test_selected_members_are_applied_by_index() -> None:
    network, inputs = make(layer_norm=LayerNorm(affine=True)), torch.randn(2, B, 4).double()
    chosen = torch.tensor([2, 0])
    found = network.apply_tensors(network.of_members(chosen), inputs)
    in_all = torch.stack([inputs[1], inputs[0], inputs[0]])
    torch.testing.assert_close(found, network(in_all)[chosen])
    assert all(map(torch.equal, network.of_members(None), network.tensors))


@pytest.mark.parametrize("way", ["copy", "pickle", "move"])
def test_copied_network_uses_its_own_weights(way: str) -> None:
    network = make(padded=True)
    other = {
        "copy": copy.deepcopy,
        "pickle": lambda network: pickle.loads(pickle.dumps(network)),
        "move": lambda network: copy.deepcopy(network).float().double(),
    }[way](network)
    inputs = torch.randn(E, B, 4).double()
    before = network(inputs)
    torch.testing.assert_close(other(inputs), before, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        other.vector.zero_()
    assert not other(inputs).any()
    assert torch.equal(network(inputs), before)


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize(("i", "j", "k"), [(5, 4, 1), (5, 1, 4), (5, 4, 3), (5, 1, 1)])
def test_linear_is_a_batched_product(i: int, j: int, k: int, members: int) -> None:
    left, right = torch.randn(members, i, j).double(), torch.randn(members, j, k).double()
    bias = torch.randn(members, 1, k).double()
    torch.testing.assert_close(linear(left, right, bias), left @ right + bias)
