"""The mathematics of gtp_offline.py against closed forms, hand-computed numbers and quadrature.

Expectations over a Gaussian action and its noise are exact: every quantity tested is quadratic in
them, so three Gauss-Hermite nodes a dimension suffice, handed over as a weighted batch.
"""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import gtp_offline as gtp
from gtp_offline import Critic, FlowMap, default_args

C = 0.5  # standard deviation of the Gaussian actions


@pytest.fixture(autouse=True)
def same_networks_every_time():
    torch.manual_seed(0)


def arguments(literal=False, **changes):
    args = default_args(dataset_path="x.npz", literal=literal, device="cpu")
    return replace(args, **changes)


def column(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)[:, None]


def gaussian_batch(c=C, dim=1):
    """actions ~ N(0, c^2 I) and noise ~ N(0, I), (B, dim) each, and weights (B,): the mean of
    weights * f(actions, noise) over the batch is the expectation of a quadratic f."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(3)
    mass = mass / mass.sum()
    grids = np.meshgrid(*[nodes] * (2 * dim), indexing="ij")
    weights = np.prod(np.meshgrid(*[mass] * (2 * dim), indexing="ij"), axis=0).ravel()
    points = torch.from_numpy(np.stack([g.ravel() for g in grids], 1))
    return c * points[:, :dim], points[:, dim:], torch.from_numpy(weights * len(weights))


class GaussianActor:
    """The exact solution map and denoiser for actions ~ N(0, c^2 I)."""

    def __init__(self, c=C):
        self.c = c

    def flow_map(self, obs, x, t, s):
        return x * ((self.c**2 + s**2) / (self.c**2 + t**2)) ** 0.5

    def inst_map(self, obs, x, t):
        return x * self.c**2 / (self.c**2 + t**2)

    def phi(self, obs, x, t, s):
        """From Eq. 4, Phi = (1 - s/t) phi + (s/t) x, solved for phi."""
        return (self.flow_map(obs, x, t, s) - s / t * x) / (1 - s / t)


class ScaledActor:
    """Phi(x, t, s) = scale x, phi(x, t, t) = scale x; remembers what it was asked."""

    def __init__(self, scale):
        self.scale, self.calls = scale, []

    def flow_map(self, obs, x, t, s):
        self.calls.append((x, t, s))
        return self.scale * x

    def inst_map(self, obs, x, t):
        self.calls.append((x, t, t))
        return self.scale * x


class ConstantActor:
    """Phi and the denoiser are `output` everywhere."""

    def __init__(self, output):
        self.output = output

    def flow_map(self, obs, x, t, s):
        return self.output.expand_as(x)

    def inst_map(self, obs, x, t):
        return self.output.expand_as(x)


# ---- time grid (Eq. 76) ----------------------------------------------------------------------


def test_number_of_grid_points_doubles_every_eighth_of_the_training():
    """Eq. 76 for 1,000 updates: K' = floor(1000 / (log2(128) + 1)) = 125."""
    expected = [11, 21, 41, 81, 161, 321, 641, 1281]
    for stage, points in enumerate(expected):
        assert gtp.num_grid_points(125 * stage, 1000) == points
        assert gtp.num_grid_points(125 * stage + 124, 1000) == points
    assert gtp.num_grid_points(999, 1000) == 1281


def test_number_of_grid_points_never_exceeds_1281_where_eight_does_not_divide_the_updates():
    """1,001 updates: K' = 125 as well, and update 1,000 would be in a ninth stage."""
    assert gtp.num_grid_points(1000, 1001) == 1281


def test_the_schedule_runs_over_the_whole_training_and_does_not_restart():
    """The reference code restarts it every 50,000 updates; here K' = 250,000 of 2 million."""
    counts = [gtp.num_grid_points(k, 2_000_000) for k in range(0, 2_000_000, 50_000)]
    assert counts == sorted(counts)
    assert counts[:6] == [11, 11, 11, 11, 11, 21] and counts[-1] == 1281


@pytest.mark.parametrize("num_updates", range(1, 8))
def test_fewer_than_eight_updates_have_a_grid(num_updates):
    """K' would be 0; it is at least 1, so the grid doubles with every update from 11 points."""
    counts = [gtp.num_grid_points(k, num_updates) for k in range(num_updates)]
    assert counts == [11, 21, 41, 81, 161, 321, 641][:num_updates]


def test_the_schedule_takes_other_ends():
    """s0 = 2, s1 = 16, 100 updates: K' = floor(100 / 4) = 25."""
    counts = [gtp.num_grid_points(k, 100, s0=2, s1=16) for k in (0, 24, 25, 50, 75, 99)]
    assert counts == [3, 3, 5, 9, 17, 17]


@pytest.mark.parametrize(("n", "sigma_min", "sigma_max"), [(2, 0.002, 5.0), (41, 0.01, 80.0)])
def test_karras_grid_is_linear_in_the_seventh_root(n, sigma_min, sigma_max):
    grid = gtp.karras_grid(n, sigma_min, sigma_max)
    low, high = sigma_min ** (1 / 7), sigma_max ** (1 / 7)
    expected = [(low + i / (n - 1) * (high - low)) ** 7 for i in range(n)]
    assert grid.shape == (n,) and (grid.diff() > 0).all()
    torch.testing.assert_close(grid.double(), torch.tensor(expected, dtype=torch.float64))


def test_karras_grid_has_its_end_points_exactly_and_takes_another_rho():
    grid = gtp.karras_grid(1281, 0.002, 80.0)
    assert grid[0].item() == np.float32(0.002) and grid[-1].item() == 80.0
    square = gtp.karras_grid(3, 1.0, 9.0, rho=2.0)  # roots 1, 2, 3
    torch.testing.assert_close(square, torch.tensor([1.0, 4.0, 9.0]))


# ---- times of an update (Algorithm 1, line 6) ------------------------------------------------

SAMPLINGS = [
    (strict, u, t) for strict in (False, True) for u in ("adjacent", "uniform")
    for t in ("lognormal", "uniform")
]  # fmt: skip


def drawn_indices(n=11, count=20_000, **changes):
    """Indices of t, u, s on a grid of n points, for uniform numbers from a fixed seed."""
    args = arguments(**changes)
    grid, t_cdf = gtp.time_grid(n, args)
    uniform = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    times = gtp.sample_times(uniform, grid, t_cdf, args)
    points = gtp.karras_grid(n, args.sigma_min, args.sigma_max)
    assert all(time.shape == (count, 1) for time in times)
    assert all(torch.isin(time, points).all() for time in times)
    return [torch.searchsorted(points, time[:, 0].contiguous()) for time in times]


@pytest.mark.parametrize("n", [11, 1281])
@pytest.mark.parametrize(("strict_s", "u_sampling", "t_sampling"), SAMPLINGS)
def test_times_are_ordered_on_the_grid(n, strict_s, u_sampling, t_sampling):
    """t > u >= s on the grid's points; u > s where s is strict; u next to t where adjacent."""
    i, m, j = drawn_indices(n, strict_s=strict_s, u_sampling=u_sampling, t_sampling=t_sampling)
    assert (i > m).all() and (m >= j).all() and j.amin() == 0 and i.amax() == n - 1
    if strict_s:
        assert (m > j).all()
    if u_sampling == "adjacent":
        assert (m == i - 1).all()


def test_the_extreme_uniform_numbers_stay_inside_the_grid():
    for strict_s, u_sampling, t_sampling in SAMPLINGS:
        args = arguments(strict_s=strict_s, u_sampling=u_sampling, t_sampling=t_sampling)
        grid, t_cdf = gtp.time_grid(11, args)
        below_one = float(np.nextafter(np.float32(1), np.float32(0)))
        uniform = torch.cartesian_prod(*[torch.tensor([0.0, below_one])] * 3)
        t, u, s = gtp.sample_times(uniform, grid, t_cdf, args)
        assert (t > u).all() and (u >= s).all() and (s >= args.sigma_min - 1e-9).all()
        assert t.max() == args.sigma_max and (not strict_s or (u > s).all())


def assert_frequencies(indices, probabilities):
    """Observed frequencies within 4.5 standard errors of the probabilities, none where zero."""
    count = len(indices)
    observed = torch.bincount(indices, minlength=len(probabilities)).double() / count
    p = torch.tensor(probabilities, dtype=torch.float64)
    assert ((observed - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt() + 1e-7).all()


@pytest.mark.parametrize("strict_s", [False, True])
@pytest.mark.parametrize("sigma_max", [5.0, 80.0])
def test_lognormal_times_have_the_published_probabilities(sigma_max, strict_s):
    """P(i) ~ Phi((ln g_i + 1.1) / 2) - Phi((ln g_{i-1} + 1.1) / 2), Phi the normal CDF."""
    n = 11
    low, high = 0.002 ** (1 / 7), sigma_max ** (1 / 7)
    grid = [(low + k / (n - 1) * (high - low)) ** 7 for k in range(n)]
    cdf = [(1 + math.erf((math.log(g) + 1.1) / 2 / math.sqrt(2))) / 2 for g in grid]
    mass = [0.0] + [b - a for a, b in pairwise(cdf)]
    if strict_s:
        mass[1] = 0.0  # there is no s below u below the second point
    i, _, _ = drawn_indices(n, count=200_000, sigma_max=sigma_max, strict_s=strict_s)
    assert_frequencies(i, [p / sum(mass) for p in mass])


def test_uniform_times_hit_every_grid_point_above_the_first_equally_often():
    i, _, _ = drawn_indices(11, count=200_000, t_sampling="uniform")
    assert_frequencies(i, [0.0] + [0.1] * 10)


class Table:
    """An actor without smoothness: phi is a number of its own for each pair of times, times x."""

    flow_map = FlowMap.flow_map

    def __init__(self, grid, start):
        self.grid = grid
        self.numbers = torch.full((len(grid), len(grid)), start, requires_grad=True)

    def phi(self, obs, x, t, s):
        i, j = (torch.searchsorted(self.grid, time.contiguous()) for time in (t, s))
        return self.numbers[i, j] * x


def table_fixed_point(strict_s, start):
    """Where Newton's steps on Eq. 17 (a parabola for each pair of times) take a table, for actions
    of variance 1/4 (two of them and two noises have the right moments): the factor of one step
    from 5 to 0.002, and which pairs the loss moves."""
    args = arguments(strict_s=strict_s, consistency_loss="squared", consistency_weighting="none")
    grid, t_cdf = gtp.time_grid(11, args)
    lattice = torch.cartesian_prod(*[torch.arange(0.5, 40) / 40] * 2)
    uniform = torch.cat((lattice, lattice[:, :1]), 1)
    times = torch.cat(gtp.sample_times(uniform, grid, t_cdf, args), 1).unique(dim=0)
    rows = times.repeat_interleave(4, 0)
    t, u, s = rows.split(1, 1)
    actions = torch.tensor([0.5, 0.5, -0.5, -0.5]).repeat(len(times))[:, None]
    noise = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(len(times))[:, None]
    table = Table(grid[:11].contiguous(), start)
    for _ in range(11):
        weights = torch.ones(len(rows))
        loss = gtp.consistency_loss(table, table, None, actions, noise, t, u, s, weights, args)
        (slope,) = torch.autograd.grad(loss, table.numbers, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), table.numbers)
        moved = curvature > 0
        with torch.no_grad():
            table.numbers -= torch.where(moved, slope / curvature, 0)
    one = torch.ones(1, 1)
    return table.flow_map(None, one, grid[10] * one, grid[0] * one).item(), moved


def test_strict_s_leaves_neighbouring_times_without_a_target():
    """(D8) The right factor is Phi's, .5 / sqrt(.25 + 25), times the bias of 11 points; a table
    under --strict-s keeps whatever it starts with at (g_1, g_0)."""
    t = gtp.karras_grid(11, 0.002, 5.0)
    angles = (t / 0.5).atan()
    right = math.sqrt((0.25 + 0.002**2) / 25.25) * angles.diff().cos().prod().item()
    assert right == pytest.approx(0.0845, abs=5e-5)
    for start in (-0.1, 0.0, 0.1):
        loose, moved = table_fixed_point(False, start)
        assert loose == pytest.approx(right, rel=1e-6) and moved.sum() == 55
        strict, moved = table_fixed_point(True, start)
        assert moved.sum() == 45 and not moved.diagonal(-1).any()
        first = t[0] / t[1] + (1 - t[0] / t[1]) * start
        assert strict == pytest.approx((right * first / angles[:2].diff().cos()).item(), rel=0.01)
        assert strict == pytest.approx(0.0228 + 0.0617 * start, abs=1e-4)


@pytest.mark.parametrize(("strict_s", "choices"), [(False, 7), (True, 6)])
def test_s_is_uniform_over_the_points_up_to_u(strict_s, choices):
    """For t = grid[7]: s = grid[j], j uniform in 0..6, or in 0..5 where s < u strictly."""
    i, _, j = drawn_indices(11, count=200_000, t_sampling="uniform", strict_s=strict_s)
    assert_frequencies(j[i == 7], [1 / choices] * choices + [0.0] * (8 - choices))


def test_u_is_uniform_between_s_and_t():
    """For t = grid[7], s = grid[2]: u = grid[m], m uniform in 3..6."""
    i, m, j = drawn_indices(
        11, count=200_000, t_sampling="uniform", strict_s=True, u_sampling="uniform"
    )
    assert_frequencies(m[(i == 7) & (j == 2)], [0, 0, 0, 0.25, 0.25, 0.25, 0.25, 0])


# ---- networks (Eqs. 3-5) ---------------------------------------------------------------------


def random_inputs(batch=6, obs_dim=3, action_dim=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(batch, obs_dim, generator=generator)
    return obs, torch.randn(batch, action_dim, generator=generator)


@pytest.mark.parametrize("preconditioning", ["edm", "none"])
def test_flow_map_over_no_time_is_the_identity(preconditioning):
    """Phi(x, t, t) = x, whatever the network (the boundary condition of Eq. 4)."""
    actor = FlowMap(3, 2, 16, preconditioning)
    obs, x = random_inputs()
    t = column(0.002, 0.01, 0.3, 1.0, 5.0, 80.0, dtype=torch.float32)
    assert torch.equal(actor.flow_map(obs, x, t, t), x)


@pytest.mark.parametrize("preconditioning", ["edm", "none"])
def test_flow_map_mixes_endpoint_and_input(preconditioning):
    """Eq. 4 with s / t = 1/4: Phi = 3/4 phi + 1/4 x; at s = 0 it is phi itself; Eq. 5."""
    actor = FlowMap(3, 2, 16, preconditioning)
    obs, x = random_inputs()
    t, s = column(*[0.4] * 6, dtype=torch.float32), column(*[0.1] * 6, dtype=torch.float32)
    phi = actor.phi(obs, x, t, s)
    torch.testing.assert_close(actor.flow_map(obs, x, t, s), 0.75 * phi + 0.25 * x)
    zero = torch.zeros_like(t)
    end = actor.flow_map(obs, x, t, zero)
    assert torch.equal(end, actor.phi(obs, x, t, zero)) and end.isfinite().all()
    assert torch.equal(actor.inst_map(obs, x, t), actor.phi(obs, x, t, t))


def test_flow_map_of_the_exact_gaussian_endpoint_is_the_exact_solution(monkeypatch):
    """With phi exact, Eq. 4 gives x sqrt((c^2 + s^2) / (c^2 + t^2)), and Eq. 6 has residual 0."""
    actor, exact = FlowMap(1, 1, 16).double(), GaussianActor()
    monkeypatch.setattr(actor, "phi", exact.phi)
    x, t, u, s = column(0.7, -3.0), column(4.0, 80.0), column(1.0, 79.0), column(0.1, 0.002)
    direct = actor.flow_map(None, x, t, s)
    torch.testing.assert_close(direct, x * ((0.25 + s**2) / (0.25 + t**2)).sqrt())
    torch.testing.assert_close(actor.flow_map(None, actor.flow_map(None, x, t, u), u, s), direct)


def test_the_endpoint_depends_on_observation_both_times_and_input():
    actor = FlowMap(3, 2, 16)
    obs, x = random_inputs()
    t, s = column(*[0.4] * 6, dtype=torch.float32), column(*[0.1] * 6, dtype=torch.float32)
    base = actor.phi(obs, x, t, s)
    for changed in ((obs + 1, x, t, s), (obs, x + 1, t, s), (obs, x, 2 * t, s), (obs, x, t, 2 * s)):
        assert (actor.phi(*changed) - base).abs().amax() > 1e-4


def test_flow_map_takes_several_samples_per_observation():
    """x of shape (n, B, A) and times of shape (1, 1): as n calls with (B, A) and (B, 1)."""
    actor = FlowMap(3, 2, 16)
    obs, _ = random_inputs()
    x = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(1))
    t, s = torch.tensor([[0.8]]), torch.tensor([[0.1]])
    together = actor.flow_map(obs, x, t, s)
    each = [actor.flow_map(obs, row, t.expand(6, 1), s.expand(6, 1)) for row in x]
    torch.testing.assert_close(together, torch.stack(each))


class Probe(torch.nn.Module):
    """Stands in for the inner network: a constant output, and the input remembered."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        self.input = x
        return torch.full((*x.shape[:-1], 2), self.output, dtype=x.dtype)


@pytest.mark.parametrize("t", [0.002, 0.5, 5.0, 80.0])
def test_preconditioning_has_the_coefficients_of_edm(t):
    """sd = .5: c_skip = sd^2 / (t^2 + sd^2), c_out = t sd / sqrt(t^2 + sd^2), c_in =
    1 / sqrt(t^2 + sd^2); at t = .5 they are 1/2, sqrt(1/8) and sqrt(2)."""
    actor = FlowMap(3, 2, 16)
    obs, x = random_inputs()
    times = torch.full((6, 1), t), torch.full((6, 1), 0.002)
    outputs = []
    for constant in (0.0, 1.0):
        actor.net = Probe(constant)
        outputs.append(actor.phi(obs, x, *times))
    root = math.sqrt(t * t + 0.25)
    torch.testing.assert_close(outputs[0], 0.25 / root**2 * x, rtol=1e-5, atol=1e-7)
    expected = torch.full_like(x, 0.5 * t / root)
    torch.testing.assert_close(outputs[1] - outputs[0], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(actor.net.input[:, :2], x / root)
    torch.testing.assert_close(actor.net.input[:, -3:], obs)


def embedded(actor, t, s):
    """What enters the embedding of the times t and s, (2, 16)."""
    caught = []
    hook = actor.embed.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    actor.phi(torch.zeros(1, 3), torch.zeros(1, 2), torch.tensor([[t]]), torch.tensor([[s]]))
    hook.remove()
    return caught[0][:, 0]


@pytest.mark.parametrize(
    ("preconditioning", "scaled"), [("edm", lambda t: 250 * math.log(t)), ("none", lambda t: t)]
)
def test_times_are_embedded_in_sinusoids(preconditioning, scaled):
    """8 sines and 8 cosines of frequencies 1 .. 1/10,000; of 250 log t, or literally of t."""
    frequencies = [10_000 ** (-k / 7) for k in range(8)]
    expected = [
        [f(scaled(time) * w) for f in (math.sin, math.cos) for w in frequencies]
        for time in (0.7, 0.02)
    ]
    actual = embedded(FlowMap(3, 2, 16, preconditioning), 0.7, 0.02)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=5e-4)


def test_the_literal_network_is_the_endpoint_itself():
    """Without preconditioning the inner network sees x as it is, and its output is phi."""
    actor = FlowMap(3, 2, 16, "none")
    obs, x = random_inputs()
    actor.net = Probe(0.3)
    t, s = torch.full((6, 1), 80.0), torch.full((6, 1), 0.1)
    assert torch.equal(actor.phi(obs, x, t, s), torch.full_like(x, 0.3))
    assert torch.equal(actor.net.input[:, :2], x)


def test_the_two_critics_share_no_parameter():
    """Output 0 has no gradient in the second half of any parameter, and the halves differ."""
    critic = Critic(3, 2, 16)
    obs, actions = random_inputs()
    q = critic(obs, actions)
    assert q.shape == (2, 6) and not torch.isclose(q[0], q[1]).any()
    q[0].sum().backward()
    for parameter in critic.parameters():
        assert parameter.shape[0] == 2
        assert (parameter.grad[1] == 0).all() and (parameter.grad[0] != 0).any()


def test_the_critic_takes_several_actions_per_observation():
    critic = Critic(3, 2, 16)
    obs, _ = random_inputs()
    actions = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(1))
    each = torch.stack([critic(obs, row) for row in actions], 1)
    torch.testing.assert_close(critic(obs, actions), each)


# ---- actor losses (Eqs. 17-19) ---------------------------------------------------------------

SQUARED = dict(consistency_loss="squared", consistency_weighting="none", flow_weighting="none")
TIMES = [(80.0, 61.0, 0.002), (5.0, 1.0, 0.3), (1.0, 0.9, 0.9), (0.1, 0.05, 0.002), (2.0, 0.5, 0.5)]


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(("t", "u", "s"), TIMES)
def test_consistency_loss_at_the_exact_gaussian_map_has_its_closed_form(t, u, s, dim):
    """2 d (c^2 + s^2) (1 - r), r = (c^2 + u t) / sqrt((c^2 + t^2) (c^2 + u^2)): not 0, because
    x_u = a + u z is not on the ODE's path through x_t."""
    actions, noise, weights = gaussian_batch(dim=dim)
    t_, u_, s_ = (torch.full((len(actions), 1), v, dtype=torch.float64) for v in (t, u, s))
    exact, args = GaussianActor(), arguments(**SQUARED)
    loss = gtp.consistency_loss(exact, exact, None, actions, noise, t_, u_, s_, weights, args)
    r = (C**2 + u * t) / math.sqrt((C**2 + t**2) * (C**2 + u**2))
    assert loss.item() == pytest.approx(2 * dim * (C**2 + s**2) * (1 - r), rel=1e-9, abs=1e-14)


def test_consistency_loss_is_zero_on_the_path_of_the_ode():
    """The noise is chosen so that a + u z = Phi(a + t z, t, u): Eq. 6, residual 0."""
    actions, t, u, s = column(0.3, -1.2), column(4.0, 0.5), column(1.5, 0.2), column(0.2, 0.002)
    k = ((C**2 + u**2) / (C**2 + t**2)).sqrt()
    noise = actions * (1 - k) / (k * t - u)
    exact, args = GaussianActor(), arguments(**SQUARED)
    weights = torch.ones(2, dtype=torch.float64)
    loss = gtp.consistency_loss(exact, exact, None, actions, noise, t, u, s, weights, args)
    assert loss.item() < 1e-28


@pytest.mark.parametrize(
    ("n", "factor"), [(11, 0.753), (41, 0.931), (161, 0.982), (641, 0.996), (1281, 0.998)]
)
def test_consistency_fixed_point_with_adjacent_u_tends_to_the_exact_map(n, factor):
    """Gaussian actions, linear maps Phi(x, g_i, g_0) = k_i x. Each k_i minimises the loss against
    k_{i-1}; the loss is a parabola in k, so three values give its minimum. The last k over the
    exact one is prod_i cos(atan(g_i / c) - atan(g_{i-1} / c)), with sigma_max 80."""
    args, (actions, noise, weights) = arguments(**SQUARED), gaussian_batch()
    grid = gtp.karras_grid(n, 0.002, 80.0).double()
    k, product = 1.0, 1.0
    for u, t in pairwise(grid.tolist()):
        t_, u_, s_ = (torch.full_like(actions, v) for v in (t, u, 0.002))
        low, middle, high = (
            gtp.consistency_loss(
                ScaledActor(trial), ScaledActor(k), None, actions, noise, t_, u_, s_, weights, args
            ).item()
            for trial in (-1.0, 0.0, 1.0)
        )
        k = (low - high) / (2 * (low + high - 2 * middle))
        product *= math.cos(math.atan(t / C) - math.atan(u / C))
    exact = math.sqrt((C**2 + 0.002**2) / (C**2 + 80.0**2))
    assert k / exact == pytest.approx(product, rel=1e-5)
    assert k / exact == pytest.approx(factor, abs=5.1e-4)


def test_flow_loss_at_the_exact_denoiser_is_the_posterior_variance():
    """E ||a - E[a | x_t]||^2 = d c^2 t^2 / (c^2 + t^2) (Eq. 18, unweighted)."""
    actions, noise, weights = gaussian_batch(dim=2)
    for t in (0.002, 0.5, 80.0):
        t_ = torch.full((len(actions), 1), t, dtype=torch.float64)
        args = arguments(**SQUARED)
        loss = gtp.flow_loss(GaussianActor(), None, actions, noise, t_, weights, args)
        assert loss.item() == pytest.approx(2 * C**2 * t**2 / (C**2 + t**2), rel=1e-9)


def test_flow_loss_is_least_at_the_exact_denoiser():
    """The parabola through three multiples of x_t has its minimum at c^2 / (c^2 + t^2)."""
    actions, noise, weights = gaussian_batch()
    t, args = torch.full_like(actions, 0.8), arguments()
    low, middle, high = (
        gtp.flow_loss(ScaledActor(k), None, actions, noise, t, weights, args).item()
        for k in (-1.0, 0.0, 1.0)
    )
    best = (low - high) / (2 * (low + high - 2 * middle))
    assert best == pytest.approx(0.25 / (0.25 + 0.64), rel=1e-9)


def test_flow_loss_has_the_weights_of_edm():
    """(t^2 + sd^2) / (t sd)^2 with sd = .5 is 8 at t = .5 and 5 at t = 1. Residuals (.3, .4) and
    (.6, .8), squared .25 and 1; weights 2 and 3: (2 * 8 * .25 + 3 * 5 * 1) / 2 = 9.5."""
    actions = torch.tensor([[0.3, 0.4], [0.6, 0.8]], dtype=torch.float64)
    actor, noise = ConstantActor(torch.zeros(2)), torch.zeros_like(actions)
    weights, t = torch.tensor([2.0, 3.0], dtype=torch.float64), column(0.5, 1.0)
    loss = gtp.flow_loss(actor, None, actions, noise, t, weights, arguments())
    assert loss.item() == pytest.approx(9.5)
    loss = gtp.flow_loss(actor, None, actions, noise, t, weights, arguments(flow_weighting="none"))
    assert loss.item() == pytest.approx((2 * 0.25 + 3 * 1) / 2)


@pytest.mark.parametrize(
    ("kind", "weighting", "expected"),
    [
        ("squared", "none", (2 * 0.25 + 3 * 1) / 2),
        ("squared", "inverse-gap", (2 * 0.25 / 0.5 + 3 * 1 / 4) / 2),
        # sqrt(.25 + .0009) - .03 = .470899, sqrt(1 + .0009) - .03 = .970450
        ("pseudo-huber", "none", (2 * 0.4708992 + 3 * 0.9704499) / 2),
        ("pseudo-huber", "inverse-gap", (2 * 0.4708992 / 0.5 + 3 * 0.9704499 / 4) / 2),
    ],
)
def test_consistency_loss_by_hand(kind, weighting, expected):
    """Differences (.3, .4) and (.6, .8), Euclidean norms .5 and 1 of the whole action; gaps
    t - u of .5 and 4; weights 2 and 3."""
    student = ConstantActor(torch.tensor([[0.3, 0.4], [0.6, 0.8]], dtype=torch.float64))
    teacher = ConstantActor(torch.zeros(2, dtype=torch.float64))
    zeros, weights = torch.zeros(2, 2).double(), torch.tensor([2.0, 3.0]).double()
    t, u, s = column(1.0, 5.0), column(0.5, 1.0), column(0.1, 1.0)
    args = arguments(consistency_loss=kind, consistency_weighting=weighting)
    loss = gtp.consistency_loss(student, teacher, None, zeros, zeros, t, u, s, weights, args)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_huber_constant_is_a_flag():
    """sqrt(.25 + 4) - 2 for c = 2."""
    student = ConstantActor(torch.tensor([[0.3, 0.4]], dtype=torch.float64))
    teacher, zeros = ConstantActor(torch.zeros(2)), torch.zeros(1, 2).double()
    args = arguments(huber_c=2.0, consistency_weighting="none")
    times, weights = (column(1.0), column(0.5), column(0.1)), torch.ones(1).double()
    loss = gtp.consistency_loss(student, teacher, None, zeros, zeros, *times, weights, args)
    assert loss.item() == pytest.approx(math.sqrt(4.25) - 2)


def test_student_and_teacher_see_the_same_noise():
    """Phi(a + t z, t, s) against Phi_ema(a + u z, u, s): one z, and these times (Eq. 17)."""
    student, teacher = ScaledActor(1.0), ScaledActor(1.0)
    actions, noise = column(0.5, -0.25), column(2.0, -1.0)
    t, u, s = column(3.0, 2.0), column(1.0, 1.5), column(0.5, 0.25)
    weights = torch.ones(2, dtype=torch.float64)
    gtp.consistency_loss(
        student, teacher, None, actions, noise, t, u, s, weights, arguments(**SQUARED)
    )
    for actor, start, x in ((student, t, [[6.5], [-2.25]]), (teacher, u, [[2.5], [-1.75]])):
        ((seen, first, last),) = actor.calls
        assert seen.tolist() == x and torch.equal(first, start) and torch.equal(last, s)


def random_batch(obs_dim=3, action_dim=2, batch=8):
    generator = torch.Generator().manual_seed(3)
    obs = torch.randn(batch, obs_dim, generator=generator)
    actions = torch.rand(batch, action_dim, generator=generator) * 2 - 1
    noise = torch.randn(batch, action_dim, generator=generator)
    s, u, t = torch.rand(batch, 3, generator=generator).sort(1).values.split(1, 1)
    return obs, actions, noise, t + 0.1, u + 0.05, s + 0.01, torch.rand(batch, generator=generator)


@pytest.mark.parametrize("lambda_flow", [0.0, 1.0, 10.0])
def test_actor_loss_is_consistency_plus_lambda_times_flow(lambda_flow):
    """Eq. 19, from the two losses computed apart; the metrics name all three."""
    nets = {"actor": FlowMap(3, 2, 16), "actor_ema": FlowMap(3, 2, 16)}
    args = arguments(lambda_flow=lambda_flow)
    obs, actions, noise, t, u, s, w = random_batch()
    loss, metrics = gtp.actor_loss(nets, obs, actions, noise, t, u, s, w, args)
    actor, ema = nets["actor"], nets["actor_ema"]
    consistency = gtp.consistency_loss(actor, ema, obs, actions, noise, t, u, s, w, args)
    flow = gtp.flow_loss(actor, obs, actions, noise, t, w, args)
    torch.testing.assert_close(loss, consistency + lambda_flow * flow)
    torch.testing.assert_close(metrics["consistency"], consistency)
    torch.testing.assert_close(metrics["flow"], flow)
    torch.testing.assert_close(metrics["actor"], loss)


def test_no_gradient_reaches_the_averaged_actor():
    nets = {"actor": FlowMap(3, 2, 16), "actor_ema": FlowMap(3, 2, 16)}
    loss, _ = gtp.actor_loss(nets, *random_batch(), arguments())
    loss.backward()
    assert all(p.grad is None for p in nets["actor_ema"].parameters())
    assert all((p.grad != 0).any() for p in nets["actor"].parameters())


def test_the_averaged_actor_is_the_teacher():
    """Doubling its weights changes the consistency loss and leaves the flow loss."""
    nets = {"actor": FlowMap(3, 2, 16), "actor_ema": FlowMap(3, 2, 16)}
    _, before = gtp.actor_loss(nets, *random_batch(), arguments())
    with torch.no_grad():
        for parameter in nets["actor_ema"].parameters():
            parameter.mul_(2)
    _, after = gtp.actor_loss(nets, *random_batch(), arguments())
    assert after["consistency"] != before["consistency"] and after["flow"] == before["flow"]


# ---- advantage weights (Eq. 14) --------------------------------------------------------------


def test_advantage_weights_by_hand():
    """A = -1, 0, 1, 2: unbiased std sqrt(5/3), taken before the truncation at 0; eta = 2."""
    advantage = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    weights = gtp.advantage_weights(advantage, 2.0, 100.0)
    std = math.sqrt(5 / 3)
    expected = torch.tensor([1.0, 1.0, math.exp(2 / std), math.exp(4 / std)])
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0)


def test_advantage_weights_are_clipped():
    """e^(5 * 2 / sqrt(5/3)) = 2,311 becomes 100; an infinite clip leaves it."""
    advantage = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    clipped = gtp.advantage_weights(advantage, 5.0, 100.0)
    free = gtp.advantage_weights(advantage, 5.0, math.inf)
    torch.testing.assert_close(clipped[3].item(), 100.0, rtol=1e-6, atol=0)
    assert clipped[2].item() == pytest.approx(48.08, rel=1e-3)
    torch.testing.assert_close(free[3].item(), math.exp(10 / math.sqrt(5 / 3)), rtol=1e-4, atol=0)


def test_the_clip_saturates_where_the_design_says():
    """exp(eta A / std) = 100 at A = .92 std for eta 5 and at .23 std for eta 20."""
    advantage = torch.linspace(-1, 1, 200_001) * math.sqrt(3)  # std 1
    for eta, saturation in ((5.0, 0.921), (20.0, 0.2303)):
        weights = gtp.advantage_weights(advantage, eta, 100.0)
        torch.testing.assert_close(weights.max().item(), 100.0, rtol=1e-6, atol=0)
        clipped = weights == weights.max()
        assert advantage[clipped].amin().item() == pytest.approx(saturation, abs=1e-3)


def test_weights_are_invariant_to_the_scale_of_the_advantage():
    advantage = torch.linspace(-1, 2, 50)
    weights = gtp.advantage_weights(advantage, 5.0, math.inf)
    torch.testing.assert_close(
        gtp.advantage_weights(1000 * advantage, 5.0, math.inf), weights, rtol=1e-3, atol=0
    )


def test_eta_zero_weights_every_action_one():
    advantage = torch.tensor([-1.0, 0.0, 1.0, 1e6])
    assert torch.equal(gtp.advantage_weights(advantage, 0.0, 100.0), torch.ones(4))


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.1, 2.0, 1e4])
def test_equal_advantages_weight_every_action_one(value):
    weights = gtp.advantage_weights(torch.full((256,), value), 5.0, math.inf)
    assert torch.equal(weights, torch.ones(256))


def test_weights_are_finite_for_the_hardest_batch():
    """One outlier in 256, A / std = 16, eta 20 and no clip: e^319 is beyond float32."""
    advantage = torch.zeros(256)
    advantage[0] = 1.0
    weights = gtp.advantage_weights(advantage, 20.0, math.inf)
    assert weights.isfinite().all() and weights.amin() == 1


# ---- critic (Eq. 16) -------------------------------------------------------------------------


class TableCritic:
    """Q-values given in advance, (2, n, B)."""

    def __init__(self, values):
        self.values = torch.tensor(values)

    def __call__(self, obs, actions):
        assert actions.shape[:-1] == self.values.shape[1:]
        return self.values


def test_td_target_by_hand():
    """r + gamma (1 - terminal) min(Q1, Q2): 1 + .9 * 2 = 2.8, and 5 where the episode ended."""
    critic = TableCritic([[[2.0, 7.0]], [[3.0, -4.0]]])
    target = gtp.td_target(
        critic, torch.tensor([1.0, 5.0]), torch.tensor([0.0, 1.0]),
        torch.zeros(2, 3), torch.zeros(1, 2, 2), 0.9,
    )  # fmt: skip
    torch.testing.assert_close(target, torch.tensor([2.8, 5.0]))


def test_td_target_with_max_q_backup_by_hand():
    """Three next actions, Q1 = 1, 5, 2 and Q2 = 4, 0, 3: each critic's best are 5 and 4, the
    smaller is 4 (the best of the smaller ones would be 2); .5 + .9 * 4 = 4.1."""
    critic = TableCritic([[[1.0], [5.0], [2.0]], [[4.0], [0.0], [3.0]]])
    target = gtp.td_target(
        critic, torch.tensor([0.5]), torch.tensor([0.0]), torch.zeros(1, 3), torch.zeros(3, 1, 2),
        0.9,
    )  # fmt: skip
    torch.testing.assert_close(target, torch.tensor([4.1]))


# ---- sampler (Eq. 15) ------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 2, 5, 20])
@pytest.mark.parametrize("sampler_end", ["sigma-min", "zero"])
def test_sampling_times_fall_from_sigma_max_to_the_end(num_steps, sampler_end):
    """A Karras grid of K + 1 points; the last is sigma_min, literally 0."""
    times = gtp.sampling_times(num_steps, arguments(sampler_end=sampler_end))
    low, high = 0.002 ** (1 / 7), 5.0 ** (1 / 7)
    expected = [(high + k / num_steps * (low - high)) ** 7 for k in range(num_steps + 1)]
    if sampler_end == "zero":
        expected[-1] = 0.0
    assert times.shape == (num_steps + 1,) and (times.diff() < 0).all()
    torch.testing.assert_close(times, torch.tensor(expected), rtol=1e-5, atol=0)


def test_literal_sampling_starts_at_80_and_ends_at_zero():
    times = gtp.sampling_times(5, arguments(literal=True))
    assert times[0] == 80 and times[-1] == 0


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("sigma_max", [5.0, 80.0])
def test_sampling_with_the_exact_gaussian_map_gives_the_data(num_steps, sigma_max):
    """T z shrinks to T z sqrt((c^2 + sigma_min^2) / (c^2 + T^2)), c = .2, whatever K: the standard
    deviation of the data for a large T, .04 % less for T = 5."""
    args = arguments(sigma_max=sigma_max)
    noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).double()
    times = gtp.sampling_times(num_steps, args).double()
    actions = gtp.sample_actions(GaussianActor(0.2), torch.zeros(1000, 3), noise, times)
    scale = sigma_max * math.sqrt((0.2**2 + 0.002**2) / (0.2**2 + sigma_max**2))
    torch.testing.assert_close(actions, scale * noise, rtol=1e-5, atol=0)
    assert scale == pytest.approx(0.2, rel=1e-3)


def test_sampling_by_hand_visits_the_times_in_order():
    """Phi = x / 2, times 4, 1, .5: the actor sees 4 z at (4, 1), then 2 z at (1, .5); ends at z."""
    actor, noise = ScaledActor(0.5), torch.tensor([[0.25, -0.5]])
    actions = gtp.sample_actions(actor, None, noise, torch.tensor([4.0, 1.0, 0.5]))
    assert actions.tolist() == [[0.25, -0.5]]
    seen = [(x.tolist(), float(t), float(s)) for x, t, s in actor.calls]
    assert seen == [([[1.0, -2.0]], 4.0, 1.0), ([[0.5, -1.0]], 1.0, 0.5)]


def test_sampling_draws_no_noise_of_its_own():
    """Noise enters at the start only, so the same noise gives the same action."""
    actor, (obs, noise) = FlowMap(3, 2, 16), random_inputs()
    times, state = gtp.sampling_times(5, arguments()), torch.get_rng_state()
    first = gtp.sample_actions(actor, obs, noise, times)
    assert torch.equal(first, gtp.sample_actions(actor, obs, noise, times))
    assert torch.equal(state, torch.get_rng_state()) and not first.requires_grad


def test_sampled_actions_are_clamped_at_the_end_only():
    """Phi = 3 x over two steps from (.05, -.5): .45 is inside, -4.5 is clamped to -1."""
    actor = ScaledActor(3.0)
    noise = torch.tensor([[0.05, -0.5]])
    actions = gtp.sample_actions(actor, None, noise, torch.tensor([1.0, 0.5, 0.1]))
    torch.testing.assert_close(actions, torch.tensor([[0.45, -1.0]]))
    assert actor.calls[1][0].tolist()[0][1] == -1.5  # not clamped between the steps


def test_several_samples_per_observation_are_independent_paths():
    actor, (obs, _) = FlowMap(3, 2, 16), random_inputs()
    noise = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0))
    times = gtp.sampling_times(2, arguments())
    each = torch.stack([gtp.sample_actions(actor, obs, row, times) for row in noise])
    torch.testing.assert_close(gtp.sample_actions(actor, obs, noise, times), each)


# ---- energy score ----------------------------------------------------------------------------


def test_energy_score_by_hand():
    """Samples (0, 0) and (3, 4) for data (0, 0): E|X - a| = 2.5, E|X - X'| = 5 over the two
    off-diagonal pairs, so 2.5 - 5 / 2 = 0. For data (3, 0): (3 + 4) / 2 - 5 / 2 = 1."""
    samples = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[3.0, 4.0], [3.0, 4.0]]])
    score = gtp.energy_score(samples, torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert score.shape == () and score.item() == pytest.approx((0 + 1) / 2)


def test_energy_score_averages_the_off_diagonal_pairs():
    """Against a loop over ordered pairs of different samples; all m^2 pairs would give more."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(5, 7, 3, generator=generator)
    actions = torch.randn(7, 3, generator=generator)
    total = 0.0
    for b in range(7):
        near = sum(math.dist(samples[i, b], actions[b]) for i in range(5)) / 5
        pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
        spread = sum(math.dist(samples[i, b], samples[j, b]) for i, j in pairs) / len(pairs)
        total += near - spread / 2
    assert gtp.energy_score(samples, actions).item() == pytest.approx(total / 7, rel=1e-5)


def test_energy_score_is_least_for_the_true_distribution():
    """Strictly proper: shifting, narrowing, widening or splitting N(0, .25 I) costs, by more than
    four standard errors of the paired difference; its value there is E|X - X'| / 2."""
    generator = torch.Generator().manual_seed(0)
    actions = 0.5 * torch.randn(4000, 2, generator=generator)
    noise = torch.randn(16, 4000, 2, generator=generator)

    def scores(samples):
        pairs = zip(samples.split(40, 1), actions.split(40), strict=True)
        return torch.stack([gtp.energy_score(s, a) for s, a in pairs])

    best = scores(0.5 * noise)
    assert best.mean().item() == pytest.approx(math.sqrt(math.pi) / 2 * 0.5, rel=0.02)
    two_points = 0.5 * torch.sign(noise)
    for worse in (0.5 * noise + 0.2, 0.35 * noise, 0.7 * noise, 0 * noise, two_points):
        difference = scores(worse) - best
        assert difference.mean() > 4 * difference.std() / math.sqrt(len(difference))
