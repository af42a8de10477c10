"""Gradient steps per second of an ensemble fit: this repository, E separate networks, mbrl-lib.

Run `python -m benchmarks.dynamics_fit` on an idle machine. First install the peer libraries with
`pip install -r requirements-peers.txt && pip install --no-deps mbrl==0.2.0`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from benchmarks.timing import Contender, both_ways, write
from cs285.infrastructure.replay_buffer import Transitions

OB_DIM, AC_DIM, ROWS, STEPS = 21, 6, 10_000, 100
SHAPES = {  # members, batch, width, hidden layers
    "E 3 batch 512 2x250": (3, 512, 250, 2),
    "E 7 batch 256 4x200": (7, 256, 200, 4),
}
BASELINE = "E separate networks"
LEARNING_RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds")
    arguments = parser.parse_args()
    content: dict[str, object] = {
        "shape": f"O {OB_DIM} A {AC_DIM}, {STEPS} gradient steps per round, {ROWS} transitions",
        "unit": "gradient steps (of all E members) per second, including drawing the batches",
        "torch_threads": torch.get_num_threads(),
    }
    for name, shape in SHAPES.items():
        contenders: dict[str, Contender] = {
            BASELINE: partial(separate, *shape),
            "here": partial(ours, *shape),
            "mbrl-lib": partial(mbrl_lib, *shape),
            "here, --compile": partial(ours, *shape, compile=True),
        }
        if torch.cuda.is_available():
            contenders["here, GPU"] = partial(ours, *shape, device="cuda")
            contenders["here, GPU, --compile"] = partial(ours, *shape, device="cuda", compile=True)
        content |= both_ways(name, contenders, arguments.repeats, BASELINE)
    write("dynamics_fit", content)


def random_data() -> Transitions:
    torch.manual_seed(1)
    return Transitions(
        torch.randn(ROWS, OB_DIM),
        torch.rand(ROWS, AC_DIM) * 2 - 1,
        torch.randn(ROWS),
        torch.randn(ROWS, OB_DIM),
        torch.zeros(ROWS, dtype=torch.bool),
    )


def ours(
    members: int, batch: int, width: int, n_layers: int, device: str = "cpu", compile: bool = False
) -> Callable[[], int]:
    from cs285.config.model import ModelConfig
    from cs285.infrastructure.pytorch_util import make_adam, make_generator
    from cs285.models.ff_model import FFModel
    from cs285.models.training import fit_ensemble, gradient_step
    from cs285.networks.compilation import compiled

    config = ModelConfig(ensemble_size=members, size=width, n_layers=n_layers)
    model = FFModel(OB_DIM, AC_DIM, config, False, make_generator(1, "benchmark")).to(device)
    optimizer = make_adam(model.parameters(), LEARNING_RATE)
    data = random_data().each(lambda column: column.to(device))
    update = compiled(gradient_step) if compile else gradient_step

    def work() -> int:
        indices = torch.randint(ROWS, (STEPS, members, batch)).to(device)
        losses = fit_ensemble(model, optimizer, data, indices, update)
        losses["Training Loss"][-1].item()  # wait for the GPU
        return STEPS

    return work


def separate(members: int, batch: int, width: int, n_layers: int) -> Callable[[], int]:
    """Return work that fits a list of torch.nn networks in sequence, as the homework does."""
    data = random_data()
    inputs = torch.cat([data.obs, data.acs], 1)
    targets = data.next_obs - data.obs
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    targets = (targets - targets.mean(0)) / targets.std(0)
    networks, optimizers = [], []
    for _ in range(members):
        widths = [OB_DIM + AC_DIM, *[width] * n_layers]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.Tanh()]
        networks.append(nn.Sequential(*layers, nn.Linear(width, OB_DIM)))
        optimizers.append(torch.optim.Adam(networks[-1].parameters(), LEARNING_RATE))

    def work() -> int:
        for _ in range(STEPS):
            for network, optimizer in zip(networks, optimizers, strict=True):
                rows = torch.randint(ROWS, (batch,))
                loss = nn.functional.mse_loss(network(inputs[rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
        return STEPS

    return work


def mbrl_lib(members: int, batch: int, width: int, n_layers: int) -> Callable[[], int]:
    """Return work that fits mbrl-lib's deterministic ReLU ensemble with its own update."""
    from mbrl.models import GaussianMLP, OneDTransitionRewardModel
    from mbrl.types import TransitionBatch

    network = GaussianMLP(
        OB_DIM + AC_DIM, OB_DIM, torch.device("cpu"), num_layers=n_layers, ensemble_size=members,
        hid_size=width, deterministic=True,
    )  # fmt: skip
    model = OneDTransitionRewardModel(network, normalize=True, learned_rewards=False)
    data = random_data()
    columns = [column.numpy() for column in data]
    obs, acs, rewards, next_obs, terminated = columns
    model.input_normalizer.update_stats(torch.cat([data.obs, data.acs], 1).numpy())
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def work() -> int:
        for _ in range(STEPS):
            rows = torch.randint(ROWS, (members, batch)).numpy()
            drawn = (obs[rows], acs[rows], next_obs[rows], rewards[rows], terminated[rows])
            model.update(TransitionBatch(*drawn, terminated[rows]), optimizer)
        return STEPS

    return work


if __name__ == "__main__":
    main()
