"""The mathematics of diffusion_ql.py and consistency_ac.py against closed forms, in float64."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc
import gtp_offline as gtp

F64 = torch.float64
# 1 - beta_t = exp(-integral of the rate 0.1 + 9.9 s over step t of five), by the midpoint rule,
# which is exact for a line
ALPHA = [math.exp(-(0.1 + 9.9 * (t - 0.5) / 5) / 5) for t in range(1, 6)]
ALL = [dql, cac]


@pytest.fixture(autouse=True)
def float64():
    """Every tensor of a test is in float64; schedules are computed anew."""
    for cached in (dql.vp_schedule, cac.time_grid, cac.sampling_times):
        cached.cache_clear()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(torch.float32)
    for cached in (dql.vp_schedule, cac.time_grid, cac.sampling_times):
        cached.cache_clear()


def schedule(num_steps=5):
    return dql.vp_schedule(num_steps, "cpu", F64)


def arguments(script, **changes):
    return replace(script.default_args(dataset_path="x.npz", device="cpu"), **changes)


def batch(seed=0, n=6, obs_dim=3, action_dim=2):
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(n, obs_dim, generator=generator)
    actions = torch.rand(n, action_dim, generator=generator) * 2 - 1
    return obs, actions, torch.randn(n, action_dim, generator=generator)


class TwoQ:
    """A critic whose two values are given, or functions of the actions."""

    def __init__(self, *values):
        self.values = values

    def __call__(self, obs, actions):
        return torch.stack([v(actions) if callable(v) else v for v in self.values])


# ---- diffusion: the schedule --------------------------------------------------------------------


def test_the_variance_preserving_schedule_has_the_published_betas():
    abar = schedule()[0, :, 0]
    beta = 1 - abar / torch.cat((torch.ones(1), abar[:-1]))
    assert beta.tolist() == pytest.approx([0.1959, 0.4588, 0.6358, 0.7549, 0.8350], abs=5e-5)
    assert abar[-1].item() == pytest.approx(0.006409, abs=5e-7)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 10, 100])
def test_the_last_signal_level_is_the_same_for_every_number_of_steps(num_steps):
    """The exponents add up to -(b_min + (b_max - b_min) / 2): a Riemann sum that is exact."""
    assert schedule(num_steps)[0, -1].item() == pytest.approx(math.exp(-5.05), rel=1e-12)


def gaussian_posterior(abar_before, alpha, action, x_t):
    """Mean and variance of x_{t-1} given a and x_t, by Bayes' rule in information form: prior
    N(sqrt(abar_{t-1}) a, 1 - abar_{t-1}), likelihood of x_t ~ N(sqrt(alpha) x_{t-1}, 1 - alpha)."""
    precision = 1 / (1 - abar_before) + alpha / (1 - alpha)
    weighted = abar_before**0.5 * action / (1 - abar_before) + alpha**0.5 * x_t / (1 - alpha)
    return weighted / precision, 1 / precision


@pytest.mark.parametrize("num_steps", [2, 5, 20])
def test_the_posterior_is_bayes_rule_for_two_gaussians(num_steps):
    abar, c1, c2, std, index = schedule(num_steps)[:, :, 0]
    assert index.tolist() == list(range(num_steps))
    for i in range(1, num_steps):
        alpha = (abar[i] / abar[i - 1]).item()
        for action, x_t in ((0.7, -0.4), (-1.0, 2.5)):
            mean, variance = gaussian_posterior(abar[i - 1].item(), alpha, action, x_t)
            assert (c1[i] * action + c2[i] * x_t).item() == pytest.approx(mean, rel=1e-10)
            assert (std[i] ** 2).item() == pytest.approx(variance, rel=1e-10)


def test_the_posterior_keeps_the_marginals_and_ends_at_the_action():
    abar, c1, c2, std, _ = schedule()[:, :, 0]
    before = torch.cat((torch.ones(1), abar[:-1]))
    torch.testing.assert_close(c1 + abar.sqrt() * c2, before.sqrt())
    torch.testing.assert_close(c2**2 * (1 - abar) + std**2, 1 - before)  # the variances too
    assert (c1[0], c2[0]) == (1, 0) and std[0].item() == pytest.approx(1e-10)  # clipped at 1e-20


# ---- diffusion: forward process, loss, sampler ------------------------------------------------


def test_the_forward_process_is_that_of_the_single_steps():
    """x_t = sqrt(alpha_t) x_{t-1} + sqrt(beta_t) z_t, step by step: its mean and variance."""
    actions, noise = torch.tensor([[0.5, -1.0]] * 5), torch.zeros(5, 2)
    t = torch.arange(5)
    mean = dql.forward_process(actions, noise, t, schedule())
    deviation = dql.forward_process(0 * actions, noise + 1, t, schedule())
    factor, variance = 1.0, 0.0
    for i, alpha in enumerate(ALPHA):
        factor, variance = factor * alpha**0.5, alpha * variance + 1 - alpha
        assert mean[i].tolist() == pytest.approx([0.5 * factor, -factor], rel=1e-12)
        assert (deviation[i] ** 2).tolist() == pytest.approx([variance] * 2, rel=1e-12)


def test_noise_loss_by_hand():
    """A predictor of x_t / 2 + index: errors of batch and components are averaged."""
    obs, actions = torch.zeros(2, 1), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    noise, t = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([0, 4])
    expected = 0.0
    for row, i in ((0, 0), (1, 4)):
        abar = np.prod(ALPHA[: i + 1])
        x_t = abar**0.5 * actions[row].numpy() + (1 - abar) ** 0.5 * noise[row].numpy()
        expected += ((noise[row].numpy() - (x_t / 2 + i)) ** 2).sum() / 4
    loss = dql.bc_loss(lambda obs, x, t: x / 2 + t, obs, actions, noise, t, schedule())
    assert loss.item() == pytest.approx(expected)


def gaussian_noise_predictor(mean, deviation):
    """E[z | x_t] for actions ~ N(mean, deviation^2)."""

    def predictor(obs, x, t):
        abar = schedule()[0, t.long().squeeze()]
        variance = abar * deviation**2 + 1 - abar
        return (1 - abar).sqrt() * (x - abar.sqrt() * mean) / variance

    return predictor


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.1), (0.2, 0.05), (-0.1, 0.15)])
def test_sampling_a_gaussian_has_the_moments_of_the_linear_recursion(mean, deviation):
    """With the exact predictor and no clipping in reach a step is x <- g x + h + std z, with g, h
    and std from Bayes' rule; the moments of x follow. The sampler's are those of an affine map."""
    m, v, abar = 0.0, 1.0, np.cumprod(ALPHA)
    for i in reversed(range(5)):
        before = abar[i - 1] if i else 1.0
        gain = abar[i] ** 0.5 * deviation**2 / (abar[i] * deviation**2 + 1 - abar[i])
        shift = mean - gain * abar[i] ** 0.5 * mean  # E[a | x_t] = gain x_t + shift
        if i == 0:
            m, v = gain * m + shift, gain**2 * v
            break
        (c1, _), (c2, _) = (gaussian_posterior(before, ALPHA[i], *p) for p in ((1, 0), (0, 1)))
        variance = gaussian_posterior(before, ALPHA[i], 0, 0)[1]
        m, v = (c1 * gain + c2) * m + c1 * shift, (c1 * gain + c2) ** 2 * v + variance
    actor = gaussian_noise_predictor(mean, deviation)
    zero = dql.sample_actions(actor, torch.zeros(1, 1), torch.zeros(5, 1, 1), schedule())
    assert zero.item() == pytest.approx(m, abs=1e-12)
    unit = torch.eye(5).view(5, 5, 1)  # the sampler is affine in the noise: one column each
    parts = dql.sample_actions(actor, torch.zeros(5, 1), 1e-3 * unit, schedule()) - zero
    assert (1e6 * parts.square().sum()).item() == pytest.approx(v, rel=1e-9)


def test_the_moments_tend_to_those_of_the_data_with_the_number_of_steps():
    mean, deviation, errors = 0.1, 0.15, []
    for steps in (5, 50, 500):
        table = schedule(steps)

        def actor(obs, x, t, table=table):
            abar = table[0, t.long().squeeze()]
            return (1 - abar).sqrt() * (x - abar.sqrt() * mean) / (abar * deviation**2 + 1 - abar)

        unit = 1e-3 * torch.eye(steps).view(steps, steps, 1)
        zero = dql.sample_actions(actor, torch.zeros(1, 1), torch.zeros(steps, 1, 1), table)
        parts = dql.sample_actions(actor, torch.zeros(steps, 1), unit, table) - zero
        assert zero.item() == pytest.approx(mean, abs=0.02)
        errors.append(abs(1e3 * parts.norm().item() - deviation))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.04 * deviation


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_estimate_of_the_action_is_clipped_at_every_step(sign):
    """A predictor that says far too much noise: every estimate is the bound, so is the action."""
    noise = torch.zeros(5, 3, 2)
    sample = dql.sample_actions(
        lambda obs, x, t: -sign * 50 + 0 * x, torch.zeros(3, 1), noise, schedule()
    )
    assert (sample == sign).all()
    seen, c1, c2 = [], *schedule()[1:3, :, 0]

    def watch(obs, x, t):
        seen.append(x[0, 0].item())
        return -sign * 50 + 0 * x

    dql.sample_actions(watch, torch.zeros(3, 1), noise, schedule())
    x = 0.0
    for i in range(4, 0, -1):
        x = (c1[i] * sign + c2[i] * x).item()
        assert seen[5 - i] == pytest.approx(x)


def test_every_step_but_the_last_draws_its_own_noise():
    """noise[0] starts; the standard deviations of index 4, ..., 1 multiply noise[1], ..., [4]."""
    std, steps = schedule()[3, :, 0], []

    def actor(obs, x, t):  # says that x is pure noise, so the estimate is small
        steps.append((t.item(), x.clone()))
        abar = schedule()[0, t.long().squeeze()]
        return x / (1 - abar).sqrt()

    noise = torch.zeros(5, 1, 1)
    noise[1:, 0, 0] = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    sample = dql.sample_actions(actor, torch.zeros(1, 1), noise, schedule())
    assert [t for t, _ in steps] == [4, 3, 2, 1, 0] and sample.item() == 0
    c2, x = schedule()[2, :, 0], 0.0
    for i, (_, seen) in zip((4, 3, 2, 1), steps[1:], strict=True):
        x = (c2[i] * x + std[i] * noise[5 - i, 0, 0]).item()
        assert seen.item() == pytest.approx(x)


@pytest.mark.parametrize("script", ALL)
def test_policy_samples_split_the_noise_into_that_of_the_steps(script):
    """The noise of a sample lies in one row, the first action_dim numbers for the first step."""
    args = arguments(script, hidden_dim=8, eval_actor="online")
    nets = script.make_networks(args, 3, 2)
    obs, steps = torch.randn(4, 3), args.num_steps
    noise = torch.randn(7, 4, nets["actor"].noise_dim)
    slices = torch.stack([noise[..., 2 * k : 2 * k + 2] for k in range(steps)])
    if script is dql:
        expected = dql.sample_actions(nets["actor"], obs, slices, schedule())
    else:
        times = torch.linspace(80, 2, steps)
        expected = cac.sample_actions(nets["actor"], obs, slices, times, 0.002)
    sample = script.policy_samples(nets, obs, noise, steps, args)
    torch.testing.assert_close(sample, expected.detach(), rtol=1e-5, atol=1e-5)
    assert sample.shape == (7, 4, 2) and not sample.requires_grad


# ---- consistency: network, loss, grid, sampler ------------------------------------------------


def test_boundary_coefficients_by_hand():
    for t, c_skip, c_out in (
        (0.002, 1.0, 0.0),
        (0.502, 0.5, 0.25 / math.sqrt(0.252004 + 0.25)),
        (80.0, 0.25 / (79.998**2 + 0.25), 39.999 / math.sqrt(6400.25)),
    ):
        coefficients = cac.boundary_coefficients(torch.tensor(t), 0.002)
        assert [c.item() for c in coefficients] == pytest.approx([c_skip, c_out], rel=1e-12)


def test_the_least_noisy_action_is_its_own_clean_one():
    model, (obs, x, _) = cac.ConsistencyModel(3, 2, 8), batch()
    assert torch.equal(model(obs, x, torch.full((1, 1), 0.002)), x)
    assert not torch.allclose(model(obs, x, torch.full((1, 1), 0.02)), x)


def test_the_network_sees_action_and_time_as_they_are():
    """No c_in and no logarithm: sinusoids of t itself, and x beside them."""
    model, seen = cac.ConsistencyModel(1, 1, 8), []
    model.embed.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.tensor([[3.0]]), torch.tensor([[-7.0]]), torch.tensor([[80.0]]))
    angles = 80.0 * 10 ** (-4 * torch.arange(8) / 7)
    expected = torch.cat((angles.sin(), angles.cos()))[None]
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)
    assert seen[1].shape == (1, 18) and (seen[1][0, 0], seen[1][0, -1]) == (-7, 3)


@pytest.mark.parametrize("scaled", [True, False])
def test_consistency_loss_by_hand(scaled):
    """Student x + t, teacher x: the error of every component is t (z + 1) - u z."""
    obs, actions, _ = batch(n=2)
    noise = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    t, u = torch.tensor([[2.0], [5.0]]), torch.tensor([[1.0], [3.0]])
    errors = np.array([[2 * 2 - 1, 2 * -1 + 2], [5.0, 5 * 4 - 9]]) ** 2
    scale = np.array([[100.0], [50.0]]) if scaled else 1.0
    args = arguments(cac, scale_consistency_loss=scaled)
    student, teacher = lambda obs, x, t: x + t, lambda obs, x, t: x
    loss = cac.consistency_loss(student, teacher, obs, actions, noise, t, u, args)
    assert loss.item() == pytest.approx((errors * scale).mean())


def test_the_number_of_grid_points_grows_with_a_square_root_and_restarts():
    """N^2 is linear in the update between 2^2 and 150^2, rounded up."""
    args = arguments(cac, num_updates=200_000)
    number = [cac.num_grid_points(k, args) for k in range(0, 50_000, 10)]
    assert number[0] == 2 and cac.num_grid_points(49_999, args) == 150
    for k, n in zip(range(0, 50_000, 10), number, strict=True):
        squared = 4 + 22_496 * k / 50_000
        assert n**2 >= squared - 1e-6 and (n == 2 or (n - 1) ** 2 < squared)
    for k in (0, 1, 777, 25_000, 49_999):
        assert len({cac.num_grid_points(k + j * 50_000, args) for j in range(4)}) == 1
    once = arguments(cac, num_updates=200_000, schedule="once")
    assert [cac.num_grid_points(k, once) for k in (0, 50_000, 100_000, 199_999)] == [
        2,
        76,
        107,
        150,
    ]
    short = arguments(cac, num_updates=4_000)  # one whole schedule
    assert cac.num_grid_points(0, short) == 2 and cac.num_grid_points(3_999, short) == 150


@pytest.mark.parametrize("n", [2, 3, 40, 150])
def test_the_grid_is_linear_in_the_seventh_root(n):
    grid = cac.time_grid(n, arguments(cac))
    roots = grid ** (1 / 7)
    assert len(grid) == n and grid[[0, -1]].tolist() == pytest.approx([0.002, 80])
    torch.testing.assert_close(
        roots.diff(), torch.full((n - 1,), (80 ** (1 / 7) - 0.002 ** (1 / 7)) / (n - 1))
    )


def test_times_are_neighbours_on_the_grid_and_every_interval_is_as_likely():
    data = {"rows": torch.arange(9), "actions": torch.zeros(9, 2)}
    args = arguments(cac, batch_size=20_000, num_updates=50_000)
    update = next(k for k in range(50_000) if cac.num_grid_points(k, args) == 6)
    inputs = cac.draw_inputs(update, data, torch.Generator().manual_seed(0), args)
    grid = cac.karras_grid(6, 0.002, 80.0)
    i = torch.searchsorted(grid, inputs["u"])
    assert torch.equal(grid[i], inputs["u"]) and torch.equal(grid[i + 1], inputs["t"])
    assert (i.flatten().bincount(minlength=5) / 20_000).tolist() == pytest.approx(
        [0.2] * 5, abs=0.015
    )


@pytest.mark.parametrize(
    ("steps", "times"), [(1, [80]), (2, [80, 2]), (5, [80, 60.5, 41, 21.5, 2])]
)
def test_the_sampler_denoises_at_equally_spaced_times(steps, times):
    assert cac.sampling_times(steps, arguments(cac)).tolist() == pytest.approx(times)


def test_the_consistency_sampler_by_hand():
    """Start at 80 z; noise again to t with sqrt(t^2 - 0.002^2), the level that x has already."""
    seen = []

    def actor(obs, x, t):
        seen.append((t.item(), x.item()))
        return x / 100

    noise, times = torch.tensor([2.0, -1.0, 3.0]).view(3, 1, 1), torch.tensor([80.0, 41.0, 2.0])
    sample = cac.sample_actions(actor, torch.zeros(1, 1), noise, times, 0.002)
    second = 1.6 - math.sqrt(41**2 - 0.002**2)
    third = second / 100 + 3 * math.sqrt(4 - 0.002**2)
    assert [value for pair in seen for value in pair] == pytest.approx(
        [80, 160, 41, second, 2, third]
    )
    assert sample.item() == pytest.approx(third / 100)
    sample = cac.sample_actions(lambda obs, x, t: 0 * x - 3, torch.zeros(1, 1), noise, times, 0.002)
    assert sample.item() == -1  # clamped at the end


# ---- the critic's part ------------------------------------------------------------------------


@pytest.mark.parametrize("script", ALL)
def test_q_loss_by_hand(script):
    """-mean of the one over mean |.| of the other; no gradient through the denominator."""
    first, second = torch.tensor([1.0, 3.0, -2.0, 6.0]), torch.tensor([2.0, -2.0, -8.0, 4.0])
    critic = TwoQ(first, second)
    for coin, expected in ((0, -2 / 4), (1, 1 / 3)):
        loss = script.q_loss(critic, None, None, torch.tensor([coin]))
        assert loss.item() == pytest.approx(expected) and loss.shape == ()
    actions = torch.tensor([[1.0], [2.0]], requires_grad=True)
    critic = TwoQ(lambda a: 3 * a[:, 0], lambda a: -5 * a[:, 0])
    loss = script.q_loss(critic, None, actions, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss, actions)
    assert gradient.flatten().tolist() == pytest.approx([-3 / 2 / 7.5] * 2)


@pytest.mark.parametrize("script", ALL)
def test_both_sides_of_the_coin_come_up(script):
    data = {"rows": torch.arange(9), "actions": torch.zeros(9, 2)}
    args, generator = arguments(script, batch_size=2), torch.Generator().manual_seed(0)
    coins = [script.draw_inputs(k, data, generator, args)["coin"] for k in range(400)]
    assert torch.cat(coins).bincount().tolist() == pytest.approx([200, 200], abs=40)


@pytest.mark.parametrize("script", ALL)
def test_td_target_with_max_q_backup_by_hand(script):
    """Each critic's best of its actions, then the smaller; nothing after a terminal state."""
    q = TwoQ(torch.tensor([[1.0, 4.0], [3.0, -1.0]]), torch.tensor([[2.0, 2.0], [2.5, 3.0]]))
    rewards, terminals = torch.tensor([10.0, 20.0]), torch.tensor([0.0, 1.0])
    target = script.td_target(q, rewards, terminals, None, None, 0.5)
    assert target.tolist() == [10 + 0.5 * 2.5, 20]


def record(monkeypatch, script, name):
    """Calls of a function of the script, with the value returned."""
    calls, original = [], getattr(script, name)

    def wrapped(*arguments, **keywords):
        calls.append((arguments, original(*arguments, **keywords)))
        return calls[-1][1]

    monkeypatch.setattr(script, name, wrapped)
    return calls


def one_update(script, update=0, **changes):
    """Networks before and after one update of a small agent, and its metrics. What it must do in
    all else is in test_wiring.py."""
    args = arguments(script, hidden_dim=8, batch_size=6, **changes)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    obs, actions, _ = batch(n=20)
    data = {"observations": obs, "actions": actions, "next_observations": obs.flip(0)}
    data |= {"rewards": torch.randn(20), "terminals": (torch.arange(20) % 4 == 0).double()}
    data |= {"rows": torch.arange(20)}
    nets = script.make_networks(args, 3, 2)
    for name in ("actor_ema", "critic_target"):  # else equal to their sources
        if name in nets:
            with torch.no_grad():
                for parameter in nets[name].parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    optimizers = {
        name: torch.optim.SGD(nets[name].parameters(), 0.1)
        for name in ("actor", "critic")
        if name in nets
    }
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in nets.items()}
    inputs = script.draw_inputs(update, data, generator, args)
    metrics = script.update_networks(nets, optimizers, data, inputs, args)
    return SimpleNamespace(nets=nets, before=before, metrics=metrics)


def changed(run, name):
    pairs = zip(run.before[name], run.nets[name].parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)


def test_q_norm_divides_the_targets_of_a_batch_by_their_deviation(monkeypatch):
    targets = record(monkeypatch, cac, "td_target")
    plain, divided = (one_update(cac, eta=1.0, q_norm=flag) for flag in (False, True))
    mean, std = targets[0][1].mean(), targets[0][1].std(unbiased=True)
    assert torch.equal(targets[0][1], targets[1][1])
    assert plain.metrics["target_q"].item() == pytest.approx(mean.item())
    assert divided.metrics["target_q"].item() == pytest.approx((mean / (std + 1e-6)).item())


@pytest.mark.parametrize("script", ALL)
def test_cloning_leaves_the_actor_alone_with_its_loss(script):
    """eta = 0: the critic may choose, but the actor's step is the same without it."""
    with_critic = one_update(script, eta=0.0, num_candidates=50)
    without = one_update(script, eta=0.0, num_candidates=1)
    assert "critic" in with_critic.nets and set(without.nets) == {"actor", "actor_ema"}
    assert "q" not in with_critic.metrics and changed(with_critic, "critic")
    assert with_critic.metrics["actor"] == with_critic.metrics["bc"]
    assert {"bc", "actor", "actor_grad_norm"} == set(without.metrics)


@pytest.mark.parametrize("script", ALL)
def test_the_averaged_actor_follows_every_fifth_update_after_the_first_thousand(script):
    data = {"rows": torch.arange(9), "actions": torch.zeros(9, 2)}
    args, generator = arguments(script, batch_size=2), torch.Generator().manual_seed(0)
    rates = {
        k: script.draw_inputs(k, data, generator, args)["ema_rate"].item()
        for k in (0, 5, 995, 999, 1000, 1001, 1004, 1005, 12_345, 12_346)
    }
    assert {k for k, rate in rates.items() if rate} == {1000, 1005, 12_345}
    assert {rate for rate in rates.values() if rate} == {0.005}
    at_once = arguments(script, ema_start=1, ema_every=1)
    assert all(script.ema_rate(k, at_once) == 0.005 for k in (1, 2, 3, 1000))


@pytest.mark.parametrize("script", ALL)
@pytest.mark.parametrize(("update", "rate"), [(0, 0.0), (999, 0.0), (1000, 0.005), (1001, 0.0)])
def test_averages_after_an_update(script, update, rate):
    """The critic's moves every time."""
    run = one_update(script, update, eta=1.0)
    for name, speed in (("actor", rate), ("critic", 0.005)):
        average = {"actor": "actor_ema", "critic": "critic_target"}[name]
        triples = zip(
            run.before[average],
            run.nets[name].parameters(),
            run.nets[average].parameters(),
            strict=True,
        )
        for before, source, after in triples:
            torch.testing.assert_close(after, (1 - speed) * before + speed * source)
    assert changed(run, "actor_ema") == (rate > 0)


# ---- selection of an evaluation ---------------------------------------------------------------


def results_of(losses):
    """What `select` reads: evaluations, and the mean losses before each."""
    known = {"energy_score": 0.0, "episodic_return": None}
    rows = [known | {"update": i, "normalized_score": float(i)} for i in range(len(losses))]
    return {"evaluations": rows, "losses": [{"bc": loss} for loss in losses]}


@pytest.mark.parametrize("k", range(6))
def test_offline_selection_and_its_index_fault(k):
    """Meant: the (k+1)-th lowest loss. The code takes the rank of evaluation k as an index."""
    losses = [0.5, 0.1, 0.9, 0.3]
    ranks = [2, 0, 3, 1]  # of the evaluations, from the lowest loss
    capped = min(k, 3)
    results = results_of(losses)
    evaluations = results["evaluations"]
    ran = dql.select(results, arguments(dql, top_k=k))["selected"]
    meant = dql.select(results, arguments(dql, top_k=k, selection="offline-fixed"))["selected"]
    other = cac.select(results, arguments(cac, top_k=k))["selected"]
    assert ran is evaluations[ranks[capped]] and meant is evaluations[ranks.index(capped)]
    assert other is meant  # Consistency-AC's code has no such fault


@pytest.mark.parametrize("script", [gtp, gtp_bc, dql, cac])
def test_last_and_best_mean_the_same_in_every_script(script):
    results = results_of([1.0, 2.0, 0.5])
    evaluations = results["evaluations"]
    evaluations[0]["normalized_score"] = 50.0
    args = arguments(script)
    named = script.select(results, args)
    assert named["last"] is evaluations[2] and named["best"] is evaluations[0]
    for row, energy in zip(evaluations, (0.3, 0.1, 0.2), strict=True):
        row |= {"normalized_score": None, "energy_score": energy}
    assert script.select(results, args)["best"] is evaluations[1]
