"""Checks of question 6: SAC, model rollouts, and the mixture of real and imagined rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cs285.agents import mbpo_agent, sac_losses
from cs285.agents.mbpo_agent import MBPOAgent
from cs285.agents.sac_agent import SACAgent
from cs285.assignment.checks.support import (
    ShiftingModel,
    expect,
    generator,
    gradient,
    replaced,
    require,
    require_tensor,
    returned,
    unchanged,
)
from cs285.config.sac import SACConfig
from cs285.critics.sac_critic import CriticDraws, SACCritic, td_target
from cs285.infrastructure.replay_buffer import ReplayBuffer, Transitions
from cs285.models.rollouts import roll_out
from cs285.models.task_model import TaskModel
from cs285.policies.sac_policy import SACPolicy, Sample


def target() -> None:
    """Check the soft target of terminated and truncated transitions, by hand."""
    ended = torch.tensor([True, False, True, True])
    values = torch.tensor([3.0, 3.0, torch.inf, torch.nan])
    log_probs, temperature = torch.full((4,), -2.0), torch.tensor(0.5)
    with unchanged(next_values=values, next_log_probs=log_probs):
        got = td_target(torch.ones(4), ended, values, log_probs, temperature, 0.9)
    bootstrap = 0.9 * (3 + 0.5 * 2)
    wrong = [
        ("zero times infinity is NaN: use torch.where", [1, 1 + bootstrap, np.nan, np.nan]),
        ("a terminated transition has no future", [1 + bootstrap, 1 + bootstrap, np.inf, np.nan]),
        ("`terminated` is the other way round", [1 + bootstrap, 1, np.inf, np.nan]),
        ("minus temperature * log pi: entropy is a bonus", [1, 1 + 0.9 * (3 - 1), 1, 1]),
        ("the entropy bonus is missing", [1, 1 + 0.9 * 3, 1, 1]),
        ("the discount is missing", [1, 1 + 4, 1, 1]),
        ("the bonus is discounted, too", [1, 1 + 0.9 * 3 + 1, 1, 1]),
        ("the reward is missing", [0, bootstrap, 0, 0]),
        ("the temperature is missing", [1, 1 + 0.9 * (3 + 2), 1, 1]),
    ]
    what = "targets of rewards 1, the transitions 1, 3 and 4 terminated, values 3, 3, inf, nan"
    expect(what, got, torch.tensor([1, 1 + bootstrap, 1, 1]), wrong)


def sample() -> None:
    """Check actions and log-probabilities against torch.distributions."""
    policy = _policy()
    draw = generator()
    mean, log_std, noise = (torch.randn(5, 2, generator=draw) for _ in range(3))
    mean.requires_grad_()
    with replaced(policy, forward=lambda obs: (mean, log_std)):
        got = returned("sample", policy.sample(torch.zeros(5, 3), noise), kind=Sample)
    u = mean.detach() + log_std.exp() * noise
    actions = u.tanh()
    normal = torch.distributions.Normal(mean.detach().double(), log_std.double().exp())
    squashed = torch.distributions.TransformedDistribution(
        normal, [torch.distributions.TanhTransform(cache_size=1)]
    )
    wrong_acs = [
        ("the actions are the tanh of u", u),
        ("the std is exp(log std)", (mean.detach() + log_std * noise).tanh()),
        ("the noise is missing", mean.detach().tanh()),
        ("the actions are in [-1, 1], not in the task's box", policy.to_task(actions)),
    ]
    expect("actions", got.acs, actions, wrong_acs)
    by_dim = squashed.log_prob(u.double().tanh())
    gaussian = normal.log_prob(u)
    wrong = [
        ("the change of variables is missing", gaussian.sum(-1)),
        ("log(1 - tanh(u)^2) is subtracted", (2 * gaussian - by_dim).sum(-1)),
        ("sum over the action dimensions", by_dim),
        ("the sum over the action dimensions, not the mean", by_dim.mean(-1)),
        ("the constant -log(sqrt(2 pi)) is missing", by_dim.sum(-1) + np.log(2 * np.pi)),
        ("log std is missing in the density", (by_dim + log_std).sum(-1)),
    ]
    expect("log-probabilities", got.log_probs, by_dim.sum(-1).float(), wrong)
    slope = gradient(torch.cat([got.acs.flatten(), got.log_probs]), mean)
    require(slope is not None, "sample must be differentiable: no detach, no no_grad")
    zeros = torch.zeros(1, 2)
    with replaced(policy, forward=lambda obs: (zeros, zeros)):
        far = policy.sample(torch.zeros(1, 3), torch.tensor([[20.0, -20.0]]))
    # For large |u|, log(1 - tanh(u)^2) is 2 (log 2 - |u|).
    by_hand = 2 * (-0.5 * 20**2 - 0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - 20))
    what = "log-probability of u = (20, -20), for which the stable form of the docstring is needed"
    expect(what, far.log_probs, torch.tensor([by_hand], dtype=torch.float32))


def critic() -> None:
    """Check the critic's loss, what the target is made of, and where gradients flow."""
    policy, critic, target_critic = _policy(), _critic(1, sac_critic_dropout=0.5), _critic(2)
    batch, seen = _batch(), dict[str, Any]()
    acs = torch.full((4, 2), 0.3, requires_grad=True)
    log_probs = torch.tensor([-1.0, 0.5, 2.0, 0.0], requires_grad=True)
    made = torch.tensor([1.0, -2.0, 0.5, 3.0])
    noise = torch.randn(4, 2, generator=generator(3))

    def draw(obs: Tensor, noise: Tensor) -> Sample:
        seen.update(obs=obs, noise=noise)
        return Sample(acs, log_probs)

    def td(
        rewards: Tensor,
        terminated: Tensor,
        next_values: Tensor,
        next_log_probs: Tensor,
        temperature: Tensor,
        discount: float,
    ) -> Tensor:
        seen.update(rewards=rewards, terminated=terminated, values=next_values, discount=discount)
        seen.update(log_probs=next_log_probs, temperature=temperature)
        return made + 0 * next_log_probs

    log_temperature = torch.tensor(0.25).log()
    draws = CriticDraws(torch.tensor([1]), critic.draw(4, generator(4)).masks)
    with replaced(policy, sample=draw), replaced(sac_losses, td_target=td):
        got = sac_losses.critic_loss(
            policy, critic, target_critic, batch, noise, log_temperature, 0.9, draws
        )
    require("obs" in seen, "`policy.sample` was not called")
    require("values" in seen, "`td_target` was not called")
    returned("critic_loss", got, kind=sac_losses.CriticLoss)
    current = [("the next actions belong to the next observations", batch.obs)]
    expect("observations of the next actions", seen["obs"], batch.next_obs, current)
    expect("noise of the next actions", seen["noise"], noise)
    of_all = target_critic(batch.next_obs, acs)
    live = critic(batch.next_obs, acs)
    wrong = [
        ("the target critic must evaluate the next actions", live[1]),
        ("the target critic must evaluate the next actions", live.amin(0)),
        ("pass draws.members on", of_all.amin(0)),
        (
            "evaluate the sampled actions, not the stored ones",
            target_critic(batch.next_obs, batch.acs)[1],
        ),
        ("evaluate the next observations", target_critic(batch.obs, acs)[1]),
    ]
    expect("next values", seen["values"], of_all[1], wrong)
    expect("log-probabilities in the target", seen["log_probs"], log_probs)
    expect("discount", seen["discount"], 0.9)
    expect("temperature", seen["temperature"], 0.25, [("take exp of its logarithm", np.log(0.25))])
    expect(
        "rewards and terminations",
        [*seen["rewards"], *seen["terminated"]],
        [*batch.rewards, *batch.terminated],
    )
    values = critic(batch.obs, batch.acs, masks=draws.masks).detach()
    errors, undropped = values - made, critic(batch.obs, batch.acs).detach() - made
    wrong = [
        ("pass draws.masks on to the critic", undropped.square().mean(1).sum()),
        ("sum over the networks, not the mean", errors.square().mean()),
        ("the mean over the batch, not the sum", errors.square().sum()),
        ("the errors must be squared", errors.abs().mean(1).sum()),
        ("without the factor 1/2", errors.square().mean(1).sum() / 2),
    ]
    expect("loss", got.loss, errors.square().mean(1).sum(), wrong)
    expect("mean value", got.mean_value, values.mean())
    require(not got.mean_value.requires_grad, "the mean value is a metric: detach it")
    parts = [acs, log_probs, critic.network.vector]
    through = [gradient(got.loss, part) is not None for part in parts]
    require(through[2], "no gradient reaches the critic")
    require(not (through[0] or through[1]), "no gradient may flow through the target")


def actor() -> None:
    """Check both losses, and which of their factors are constants."""
    policy, critic, obs = _policy(), _critic(1, sac_actor_value="mean"), _batch().obs
    acs = torch.full((4, 2), 0.3, requires_grad=True)
    log_probs = torch.tensor([-1.0, 0.5, 2.0, 0.3], requires_grad=True)
    noise, seen = torch.ones(4, 2), list[Tensor]()
    log_temperature = nn.Parameter(torch.tensor(0.25).log())

    def draw(obs: Tensor, noise: Tensor) -> Sample:
        seen.extend((obs, noise))
        return Sample(acs, log_probs)

    with replaced(policy, sample=draw):
        got = sac_losses.actor_loss(policy, critic, obs, noise, log_temperature, -2.0)
    require(seen, "`policy.sample` was not called")
    require(seen[0] is obs and seen[1] is noise, "sample must get the observations and the noise")
    returned("actor_loss", got, kind=sac_losses.ActorLoss)
    value, entropy = critic.value_for_actor(obs, acs).mean(), -log_probs.mean()
    wrong: list[tuple[str, Any]] = [
        ("minus Q: the policy climbs the value", -0.25 * entropy + value),
        ("the temperature is missing", -entropy - value),
        ("log pi is added: entropy is a bonus", 0.25 * entropy - value),
        (
            "critic.value_for_actor evaluates the actions, by the minimum or by the mean",
            -0.25 * entropy - critic(obs, acs).amin(0).mean(),
        ),
        ("take exp of the log temperature", -log_temperature * entropy - value),
        ("the mean over the batch, not the sum", 4 * (-0.25 * entropy - value)),
    ]
    expect("the policy's loss", got.loss, -0.25 * entropy - value, wrong)
    right = log_temperature * (entropy + 2)
    wrong = [
        ("the temperature must fall if the entropy is too high", -right),
        ("minus the target entropy", log_temperature * (entropy - 2)),
        ("the loss is linear in the log temperature", 0.25 * (entropy + 2)),
    ]
    expect("the temperature's loss", got.temperature_loss, right, wrong)
    expect("entropy", got.entropy, entropy, [("the entropy is minus the mean log pi", -entropy)])

    def reaches(loss: Tensor, part: Tensor) -> bool:
        return gradient(loss, part) is not None

    require(reaches(got.loss, acs), "the gradient must flow through the actions into the policy")
    require(reaches(got.loss, log_probs), "the gradient must flow through the log-probabilities")
    require(
        not reaches(got.loss, log_temperature), "in the policy's loss, the temperature is constant"
    )
    require(reaches(got.temperature_loss, log_temperature), "the temperature gets no gradient")
    require(
        not reaches(got.temperature_loss, log_probs),
        "in the temperature's loss, the entropy is constant",
    )


def schedule() -> None:
    """Check the order of the steps of an update, their noise, and the target's move."""
    noise = torch.arange(3.0)[:, None, None]
    whole, all_draws = _batch(), [CriticDraws(torch.tensor([number])) for number in range(2)]
    both = ["critic 0", "critic 1", "target", "actor 2"]
    for moves, trains, expected in (
        (True, True, both),
        (False, True, ["critic 0", "critic 1", "actor 2"]),
        (True, False, ["critic 0", "critic 1", "target"]),
    ):
        diary: list[str] = []
        agent: Any = SACAgent.__new__(SACAgent)

        def step_critic(
            batch: Any, noise: Tensor, draws: Any = None, diary: list[str] = diary
        ) -> dict[str, float]:
            require(batch is whole, "_step_critic must get the batch")
            number = sum(word.startswith("critic") for word in diary)
            right = draws is all_draws[min(number, 1)]
            require(right, "_step_critic must get the entry of `draws` of its step")
            diary.append(f"critic {float(noise):g}")
            return {"critic": float(noise)}

        def step_actor(obs: Any, noise: Tensor, diary: list[str] = diary) -> dict[str, float]:
            require(obs is whole.obs, "_step_actor must get the observations of the batch")
            diary.append(f"actor {float(noise):g}")
            return {"actor": float(noise)}

        agent._step_critic, agent._step_actor = step_critic, step_actor
        agent._move_target = lambda diary=diary: diary.append("target")
        metrics = agent._update(whole, noise, all_draws, moves, trains)
        likely = ""
        if sorted(word.split()[0] for word in diary) == sorted(
            word.split()[0] for word in expected
        ):
            likely = "; likely mistake: the order, or the noise of the steps"
        require(
            diary == expected, f"steps (with their noise): expected {expected}, got {diary}{likely}"
        )
        wanted = {"critic": 1.0} | ({"actor": 2.0} if trains else {})
        require(metrics == wanted, f"metrics: expected {wanted} of the last steps, got {metrics}")
    agent = SACAgent.__new__(SACAgent)
    agent.config = SACConfig(sac_target_rate=0.25)
    agent.critic = SimpleNamespace(network=SimpleNamespace(vector=torch.tensor([8.0, 0.0])))
    before = torch.tensor([0.0, 4.0])
    agent.target_critic = SimpleNamespace(network=SimpleNamespace(vector=before))
    agent._move_target()
    moved = agent.target_critic.network.vector
    wrong = [("move by the rate towards the critic", [6.0, 1.0]), ("copy", [8.0, 0.0])]
    expect("target network after a move by 1/4", moved, [2.0, 3.0], wrong)
    require(moved is before, "move the target's vector in place: other parts refer to it")


def rollout() -> None:
    """Check rows, lengths and dropped rollouts of a policy with the action 1 + obs / 2."""
    start = torch.tensor([[0.0], [2.0], [torch.nan], [9.0]])
    task = TaskModel(get_reward=_outcome)

    def roll(propagation: str, *gains: float, length: int = 3) -> Any:
        def acs_of(obs: Tensor, generator: torch.Generator) -> Tensor:
            return 1 + obs / 2

        model = ShiftingModel(*gains)
        got = roll_out(model, acs_of, task, start, length, propagation, generator())
        return returned("roll_out", got)

    # The mean of the gains is 1, too.
    for propagation, gains in (("mean", (0.5, 1.5)), ("random_member", (1.0, 1.0))):
        data, length, reward, dropped = roll(propagation, *gains)
        rows = [0.0, 1.0, 2.5, 2.0, 4.0, 9.0]
        wrong = [
            ("keep the terminal transitions", [0.0, 1.0, 2.5, 2.0]),
            ("nothing follows a termination", [0, 1, 2.5, 2, 4, 7, 9, 14.5, 22.75]),
            ("drop the non-finite transitions", [0, 1, 2.5, 2, 4, np.nan, np.nan, np.nan, 9]),
            ("the policy acts on the imagined observations", [0, 1, 2, 2, 4, 9]),
        ]
        expect(f"observations ({propagation})", data.obs[:, 0], torch.tensor(rows), wrong)
        expect("actions", data.acs[:, 0], 1 + torch.tensor(rows) / 2)
        after = [1.5 * row + 1 for row in rows]
        expect("next observations", data.next_obs[:, 0], torch.tensor(after))
        late = [("the reward of the next observation", [10 * row for row in rows])]
        expect("rewards", data.rewards, 10 * torch.tensor(after), late)
        ends = torch.tensor([False, False, False, False, True, True])
        expect("terminated", data.terminated, ends)
        expect("mean reward per step", reward, 10 * sum(after) / 6)
        expect("mean length of the rollouts", length, (3 + 2 + 0 + 1) / 4)
        twice = [("a dropped rollout counts once", 3), ("no rollout is counted", 0)]
        expect("number of dropped rollouts", dropped, 1, twice)
    never = roll("mean", 1.0, length=1)
    expect("observations of rollouts of length 1", never.data.obs[:, 0], [0.0, 2.0, 9.0])
    _check_unknown_termination(start)
    _check_draws("mean")
    _check_draws("random_member")


def _check_draws(propagation: str) -> None:
    """Check that all draws come from the generator, and what random members draw."""
    model = ShiftingModel(0.5, 1.5)
    model.noise_dim = 1
    samples = propagation == "random_member"

    def acs_of(obs: Tensor, generator: torch.Generator) -> Tensor:
        ones = torch.ones(len(obs), 1)
        return ones if samples else ones.uniform_(generator=generator)

    def roll(seed: int) -> Transitions:
        task = TaskModel(learns_reward=True, termination="none")
        start = torch.zeros(40, 1)
        return roll_out(model, acs_of, task, start, 2, propagation, generator(seed)).data

    data, again, other = roll(1), roll(1), roll(2)
    gains = (data.next_obs - data.obs).view(40, 2)  # of 40 rollouts, if the actions are 1
    one_each = sorted(gains.unique().tolist()) == [0.5, 1.5]
    require(
        one_each or not samples,
        "random_member: each row follows one of the members, and every member has rows",
    )
    require(
        bool(data.rewards.any()) == samples,
        f"{propagation}: the rewards of a noisy model must {'' if samples else 'not '}be sampled; "
        "the last argument of draw_split is model.noise_dim",
    )
    drawn = f"{propagation}: draw everything from `generator`; "
    require(
        torch.equal(data.next_obs, again.next_obs),
        f"{drawn}the same generator gave other rollouts",
    )
    require(
        not torch.equal(data.next_obs, other.next_obs),
        f"{drawn}another generator gave the same rollouts",
    )
    is_new = not torch.equal(gains[:, 0], gains[:, 1])
    require(is_new, f"{propagation}: every step must draw again")


def _check_unknown_termination(start: Tensor) -> None:
    """Check rollouts of a task without terminations, and a non-finite reward."""

    def reward(obs: Any, acs: Any) -> tuple[Any, Any]:
        return torch.where(obs[..., 0] > 9.5, torch.inf, obs[..., 0]), torch.zeros(len(obs))

    endless = TaskModel(get_reward=reward, termination="none")
    got = roll_out(
        ShiftingModel(1.0),
        lambda obs, draws: torch.ones(len(obs), 1),
        endless,
        start,
        2,
        "mean",
        generator(),
    )
    kept = [("drop transitions with a non-finite reward", [0.0, 1.0, 2.0, 3.0, 9.0, 10.0])]
    expect("observations without terminations", got.data.obs[:, 0], [0.0, 1.0, 2.0, 3.0], kept)
    expect("number of dropped rollouts", got.dropped, 2)


def _outcome(obs: Any, acs: Any) -> tuple[Any, Any]:
    return 10 * obs[..., 0], obs[..., 0] > 5


def start() -> None:
    """Check the start states of model rollouts, and what roll_out gets."""
    replay, seen = ReplayBuffer(100, 2, 1), []
    numbers = torch.arange(12.0)
    obs = torch.stack([numbers, -numbers], 1)
    flags = torch.zeros(12, dtype=torch.bool)
    replay.add(Transitions(obs, numbers[:, None], numbers, obs + 100, flags))
    agent: Any = MBPOAgent.__new__(MBPOAgent)
    agent.seed, agent.device = 1, torch.device("cpu")
    agent.config = SimpleNamespace(mbpo_propagation="mean")
    model, task = object(), object()
    policy = SimpleNamespace(draw=lambda obs, generator: ("actions", obs, generator))
    agent.mb_agent = SimpleNamespace(model=model, task_model=task)
    agent.sac_agent = SimpleNamespace(policy=policy, replay_buffer=replay)

    def spy(
        model: Any,
        acs_of: Any,
        task: Any,
        start: Any,
        length: Any,
        propagation: Any,
        generator: Any,
    ) -> str:
        seen.append((model, acs_of, task, start, length, propagation, generator))
        return "rollouts"

    with replaced(mbpo_agent, roll_out=spy):
        for first in (7, 7, 8):
            recipe = {"first": first, "rollouts": 2000, "length": 5, "real": 10}
            require(agent._follow(recipe) == "rollouts", "return what `roll_out` returns")
    require(len(seen) == 3, f"`roll_out` must be called once, got {len(seen) / 3:g} calls")
    given, again, other = seen
    require(given[0] is model and given[2] is task, "the MB agent has the model and the task model")
    draws = callable(given[1]) and given[1](1, 2) == ("actions", 1, 2)
    require(draws, "SAC's policy draws the actions: pass policy.draw")
    expect("length", given[4], 5)
    require(given[5] == "mean", "roll_out must get the propagation of the configuration")
    starts = given[3]
    require_tensor("starts", starts)
    require(
        tuple(starts.shape) == (2000, 2),
        f"starts: expected the shape (2000, 2), got {tuple(starts.shape)}",
    )
    require(
        torch.equal(starts[:, 0], -starts[:, 1]),
        "the starts must be observations of SAC's replay buffer",
    )
    later = bool((starts[:, 0] >= 10).any())
    require(not later, 'draw from the first recipe["real"] rows only: later rows are newer')
    counts = starts[:, 0].long().bincount(minlength=10)
    require(bool((counts > 130).all()), "every one of the first rows must be equally likely")
    require(
        torch.equal(starts, again[3]),
        "the same recipe must give the same starts: draw from the generator of the recipe",
    )
    require(not torch.equal(starts, other[3]), "another `first` must give other starts")
    fresh = mbpo_agent.make_generator(1, "model rollouts", 7)
    require(
        given[6].initial_seed() == fresh.initial_seed(),
        'roll_out must get make_generator(seed, "model rollouts", first)',
    )
    state = given[6].get_state()
    is_used = not torch.equal(state, fresh.get_state())
    require(is_used, "the generator of the rollouts must draw the starts, too")
    require(torch.equal(state, again[6].get_state()), "the generator draws the starts only")


def share() -> None:
    """Check the share of real rows through a block, by hand."""
    agent: Any = MBPOAgent.__new__(MBPOAgent)
    progress = torch.tensor([0.5, 1.0])

    def ratio(fixed: float | None, imagined: int = 50) -> Any:
        agent.config = SimpleNamespace(mbpo_real_ratio=fixed)
        agent.sac_agent = SimpleNamespace(replay_buffer=range(40))
        agent.model_buffer = _Rows(imagined)
        with unchanged(progress=progress):
            return agent.real_ratio(progress)

    right = torch.tensor([40 / 90, 40 / 100])
    wrong = [
        ("the earlier blocks are without the current one", [40 / 110, 40 / 120]),
        ("overwritten rows count, too: use total_added", [40 / 80, 40 / 90]),
        ("the block counts by its progress", [40 / 100, 40 / 100]),
        ("the earlier blocks count, too", [40 / 50, 40 / 60]),
        ("this is the share of imagined rows", [50 / 90, 60 / 100]),
        ("R / (R + M), not R / M", [40 / 50, 40 / 60]),
    ]
    expect(
        "share of 40 real rows, 40 imagined ones (10 overwritten) and 20 in this block, half done "
        "and done",
        ratio(None),
        right,
        wrong,
    )
    expect("share with mbpo_real_ratio 0.05", ratio(0.05), torch.full((2,), 0.05))
    zero = [("0 is a ratio, too: compare with None", right)]
    expect("share with mbpo_real_ratio 0", ratio(0.0), torch.zeros(2), zero)
    expect("share without imagined rows", ratio(0.05, 0), torch.ones(2))


class _Rows(list[int]):
    """A model buffer with a number of rows, 20 of them in the last block, and 10 overwritten."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count))
        self.total_added, self.last_block = count + 10, min(20, count)


def _policy() -> SACPolicy:
    low, high = np.array([-3, -1], np.float32), np.array([1, 5], np.float32)
    return SACPolicy(3, low, high, SACConfig(sac_size=8), generator())


def _critic(seed: int, **settings: Any) -> SACCritic:
    return SACCritic(3, 2, SACConfig(sac_size=8, **settings), generator(seed))


def _batch() -> Transitions:
    draw = generator(5)
    obs, next_obs = torch.randn(4, 3, generator=draw), torch.randn(4, 3, generator=draw)
    acs, rewards = torch.randn(4, 2, generator=draw), torch.randn(4, generator=draw)
    return Transitions(obs, acs, rewards, next_obs, torch.tensor([True, False, False, True]))
