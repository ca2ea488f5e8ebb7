"""Small trainings that must learn, and exact fixed points of the consistency loss.

The tasks have one action, of modes at +0.7 and -0.7, and the default losses. The budgets are a
thousandth of the real ones, so learning and averaging rates are higher.
"""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import consistency_ac as cac
import diffusion_ql as dql
import gtp_offline as gtp
import offline_tasks
from gtp_offline import default_args

STEPS = 4000  # rollouts that a mass is estimated from: standard error below .008


def run(folder, data, monkeypatch, every=None, script=gtp, **changes):
    """Train on arrays -> act, networks, and every(networks) at each quarter of the updates."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / "data.npz", **data)
    settings = {"run_dir": str(folder / "run"), "tensorboard": False, "eval_freq": 10**9}
    settings |= {"num_holdout": 0, "hidden_dim": 32, "tau": 0.02, "ema_every": 1}
    settings |= {"learning_rate": 3e-3, "critic_learning_rate": 3e-3}
    args = script.default_args(dataset_path=str(folder / "data.npz"), device="cpu")
    args = replace(args, **settings | changes)
    seen, history, original = {"count": 0}, [], script.update_networks

    def watched(nets, *rest):
        metrics = original(nets, *rest)
        seen["nets"] = nets
        seen["count"] += 1
        if every and seen["count"] % (args.num_updates // 4) == 0:
            history.append(every(nets))
        return metrics

    with monkeypatch.context() as patch:
        patch.setattr(script, "update_networks", watched)
        patch.setattr(offline_tasks, "plot_run", lambda *a, **k: None)
        assert script.train(args)["status"] == "finished"
    return script.load_policy(args.run_dir), seen["nets"], history


def bandit(mass, rows=2000, rewards=0.0):
    """One observation, actions +0.7 with the given mass and else -0.7, terminal after a step."""
    actions = np.where(np.arange(rows) < mass * rows, 0.7, -0.7)[:, None]
    return {
        "observations": np.zeros((rows, 1)), "actions": actions,
        "rewards": np.full(rows, rewards), "terminals": np.ones(rows),
    }  # fmt: skip


def contextual_bandit(good=0.3, rows=2000):
    """Observations +1 and -1; the action of the same sign is rewarded with 1, but is taken in 30 %
    of the rows only."""
    rng = np.random.default_rng(0)
    sign, agrees = rng.choice([-1.0, 1.0], rows), rng.random(rows) < good
    return {
        "observations": sign[:, None], "actions": (0.7 * np.where(agrees, sign, -sign))[:, None],
        "rewards": agrees, "terminals": np.ones(rows),
    }  # fmt: skip


def agreement(act):
    """The fractions of actions near the rewarded mode, and near none of the two."""
    sign = np.tile([[1.0], [-1.0]], (STEPS // 2, 1))
    actions = act(sign)
    near = np.abs(np.abs(actions) - 0.7) < 0.3
    return float((near & (actions * sign > 0)).mean()), float(1 - near.mean())


def semigroup_error(nets):
    """RMS of Phi(x_t, t, s) - Phi(Phi(x_t, t, u), u, s) (Eq. 6), log-uniform times, +-.7 data."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.where(torch.rand(4000, 1, generator=generator) < 0.3, 0.7, -0.7)
    noise = torch.randn(4000, 1, generator=generator)
    times = (torch.rand(4000, 3, generator=generator) * math.log(2500)).exp() * 0.002
    s, u, t = times.sort(1).values.split(1, 1)
    obs, x, actor = torch.zeros(4000, 1), actions + t * noise, nets["actor_ema"]
    with torch.no_grad():
        direct = actor.flow_map(obs, x, t, s)
        composed = actor.flow_map(obs, actor.flow_map(obs, x, t, u), u, s)
    return (direct - composed).square().mean().sqrt().item()


@pytest.fixture(scope="module")
def two_modes(tmp_path_factory):
    """A cloned policy of masses .3 / .7, and its semigroup error at each quarter of training."""
    folder = tmp_path_factory.mktemp("modes")
    with pytest.MonkeyPatch.context() as patch:
        changes = dict(eta=0.0, num_updates=2000, every=semigroup_error)
        return run(folder, bandit(0.3), patch, **changes)


def test_unequal_mode_masses_survive_training(two_modes):
    """.3 of the samples at +0.7, as in the data, with K = 5; few are between the modes."""
    act, _, _ = two_modes
    actions = act(np.zeros((STEPS, 1)))
    assert (actions > 0).mean() == pytest.approx(0.3, abs=0.04)
    assert (np.abs(np.abs(actions) - 0.7) > 0.3).mean() < 0.06


def test_the_semigroup_error_falls_with_training(two_modes, tmp_path, monkeypatch):
    """It rises while the network leaves its trivial start and falls afterwards. The flow loss alone
    (lambda beyond all measure) leaves it half as large again and more after the first quarter."""
    _, _, errors = two_modes
    assert errors[3] < errors[2] < 0.9 * errors[0]
    changes = dict(eta=0.0, num_updates=500, lambda_flow=1e6)
    _, flow_only, _ = run(tmp_path, bandit(0.3), monkeypatch, **changes)
    assert semigroup_error(flow_only) > 1.5 * errors[3]


@pytest.mark.slow
@pytest.mark.parametrize(("mass", "tolerance"), [(0.1, 0.03), (0.3, 0.03)])
def test_unequal_mode_masses_survive_a_longer_training(mass, tolerance, tmp_path, monkeypatch):
    """8,000 updates at the default learning and averaging rates, hidden_dim 64."""
    changes = dict(eta=0.0, num_updates=8000, hidden_dim=64, learning_rate=1e-3, tau=0.005)
    act, _, _ = run(tmp_path, bandit(mass), monkeypatch, **changes)
    assert (act(np.zeros((STEPS, 1))) > 0).mean() == pytest.approx(mass, abs=tolerance)


# ---- exact fixed points ----------------------------------------------------------------------


class Table:
    """A flow map that is `outputs` (one per row of the batch)."""

    def __init__(self, outputs):
        self.outputs = outputs

    def flow_map(self, obs, x, t, s):
        return self.outputs


class Interpolation:
    """A flow map known at the points x, linear between them."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def flow_map(self, obs, x, t, s):
        values = np.interp(x[:, 0].numpy(), self.x.numpy(), self.y.numpy())
        return torch.from_numpy(values)[:, None]


def fixed_point_mass(n, mass=0.3, std=0.1, points=61, **changes):
    """The mass at +0.7 that one step of the exact minimiser of consistency_loss gives, for
    s = sigma_min, modes +-.7 of standard deviation .1 and a grid of n points.

    From s upwards, the map at each t is the output that minimises the loss against the map at the
    grid point below, by bisection on the loss's gradient; expectations over (a, z) given x_t are
    Gauss-Hermite sums. The points follow the map's steepest part.
    """
    args = replace(default_args(dataset_path="x.npz", device="cpu"), **changes)
    nodes, node_mass = np.polynomial.hermite_e.hermegauss(3)
    nodes, node_mass = torch.from_numpy(nodes), torch.from_numpy(node_mass / node_mass.sum())
    modes = torch.tensor([0.7, -0.7], dtype=torch.float64)
    prior = torch.tensor([mass, 1 - mass], dtype=torch.float64)
    grid = gtp.karras_grid(n, args.sigma_min, args.sigma_max).double().tolist()
    x = y = torch.linspace(-1, 1, points, dtype=torch.float64)
    for u, t in pairwise(grid):
        density = (x - x[0]) / (x[-1] - x[0]) + (y - y[0]) / (y[-1] - y[0])
        levels = np.linspace(0, density[-1].item(), points)
        teacher = Interpolation(x, y)
        x = (
            torch.from_numpy(np.interp(levels, density.numpy(), x.numpy()))
            * (1 + 4 * t)
            / (1 + 4 * u)
        )
        variance = std**2 + t**2
        posterior = prior * torch.exp(-0.5 * (x[:, None] - modes) ** 2 / variance)
        posterior = posterior / posterior.sum(1, keepdim=True)
        centre = modes + std**2 / variance * (x[:, None] - modes)
        actions = (centre[:, :, None] + std * t / variance**0.5 * nodes).reshape(-1, 1)
        weights = (posterior[:, :, None] * node_mass).reshape(-1)
        noise = (x.repeat_interleave(2 * len(nodes))[:, None] - actions) / t
        times = [torch.full_like(actions, v) for v in (t, u, args.sigma_min)]
        low, high = torch.full_like(x, -1.2), torch.full_like(x, 1.2)
        for _ in range(14):
            middle = ((low + high) / 2).requires_grad_()
            student = Table(middle.repeat_interleave(2 * len(nodes))[:, None])
            loss = gtp.consistency_loss(
                student, teacher, None, actions, noise, *times, weights, args
            )
            (slope,) = torch.autograd.grad(loss, middle)
            low = torch.where(slope < 0, middle.detach(), low)
            high = torch.where(slope < 0, high, middle.detach())
        y = (low + high) / 2
    border = np.interp(0.0, y.numpy(), x.numpy())  # where the map changes sign
    tails = [math.erfc((border - mode) / math.sqrt(2 * variance)) / 2 for mode in (0.7, -0.7)]
    return mass * tails[0] + (1 - mass) * tails[1]


def test_squared_error_keeps_mode_masses_and_absolute_error_loses_them():
    """With c = .00054 the pseudo-Huber loss is an absolute one, which regresses to the median and
    moves the minority's .30 to about .14; the squared loss keeps it on a grid of 161 points."""
    assert fixed_point_mass(161, consistency_loss="squared") == pytest.approx(0.3, abs=0.005)
    assert fixed_point_mass(161, huber_c=0.00054) < 0.17


def test_the_default_huber_constant_keeps_mode_masses_on_the_finest_grid():
    """.29 of .30 at N = 1281, where the steps are small against c = .03."""
    assert 0.27 < fixed_point_mass(1281) < 0.305


@pytest.mark.slow
def test_absolute_error_loses_mode_masses_on_the_finest_grid_too():
    assert fixed_point_mass(1281, huber_c=0.00054) < 0.17


# ---- weighted learning -----------------------------------------------------------------------


def test_weights_move_the_mass_to_the_better_action(tmp_path, monkeypatch):
    """Eta 5: V is .79, the .9-expectile, so A = .21 and -.79 (.45 and -1.73 std) and the weights'
    ratio e^10.9: the rewarded action's share becomes 1 in either state."""
    act, _, _ = run(tmp_path, contextual_bandit(), monkeypatch, eta=5.0, num_updates=400)
    good, between = agreement(act)
    assert good > 0.85 and between < 0.12


def test_the_value_of_the_policy_as_baseline_improves_on_the_data(tmp_path, monkeypatch):
    """--value policy: less, because V rises with the policy, but far above the data's .3."""
    changes = dict(eta=5.0, value="policy", td_target="policy", num_updates=400)
    act, nets, _ = run(tmp_path, contextual_bandit(), monkeypatch, **changes)
    good, _ = agreement(act)
    assert good > 0.5 and "value" not in nets


def test_cloning_builds_no_critic(two_modes):
    """Eta 0 with one candidate: the actor and its average are all there is."""
    _, nets, _ = two_modes
    assert sorted(nets.keys()) == ["actor", "actor_ema"]


def test_cloning_with_a_choosing_critic_picks_better_actions(tmp_path, monkeypatch):
    """Eta 0, 50 candidates: the actor keeps the data's .3, the softmax of Q (rewards 5 and 0)
    picks the better of the candidates."""
    changes = dict(eta=0.0, num_candidates=50, reward_scale=5.0, num_updates=600)
    act, nets, _ = run(tmp_path, contextual_bandit(), monkeypatch, **changes)
    good, _ = agreement(act)
    args = default_args(dataset_path="x.npz", device="cpu")
    generator = torch.Generator().manual_seed(0)

    def actor_alone(obs):
        noise = torch.randn(len(obs), 1, generator=generator)
        times = gtp.sampling_times(5, args)
        obs = torch.as_tensor(obs, dtype=torch.float32)
        return gtp.sample_actions(nets["actor_ema"], obs, noise, times).numpy()

    alone, _ = agreement(actor_alone)
    assert good > 0.85 and alone == pytest.approx(0.3, abs=0.12)


# ---- values that travel back through time ----------------------------------------------------


def chain(episodes=600, good=None):
    """Episodes of three steps, at -1, 0 and 1, whatever the actions +-0.7; a reward of 1 after the
    third, or only if its action is +0.7, which `good` of the episodes take there."""
    rng = np.random.default_rng(0)
    positive = rng.random((episodes, 3)) < (good or 0.5)
    rewards = np.zeros((episodes, 3))
    rewards[:, 2] = 1.0 if good is None else positive[:, 2]
    return {
        "observations": np.tile([-1.0, 0.0, 1.0], episodes)[:, None],
        "actions": np.where(positive, 0.7, -0.7).reshape(-1, 1),
        "rewards": rewards.ravel(),
        "terminals": np.tile([False, False, True], episodes),
    }


SHORT = {"num_updates": 400, "batch_size": 64, "gamma": 0.8, "num_steps": 2, "tau": 0.05}


def values(nets):
    """The smaller Q at -1, 0 and 1, mean over both actions."""
    obs, actions = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([0.7, -0.7])
    with torch.no_grad():
        q = nets["critic"](obs, actions[:, None, None].expand(2, 3, 1))
    return q.amin(0).mean(0).tolist()


@pytest.mark.parametrize("script", [gtp, dql, cac])
def test_a_reward_is_worth_gamma_to_the_number_of_steps_before_it(script, tmp_path, monkeypatch):
    """Q = .64, .8, 1 for gamma .8, by bootstrapping alone and up to the terminal state, although
    the row after it is the next episode's first."""
    changes = SHORT | {"eta": 0.0, "num_candidates": 2}
    _, nets, _ = run(tmp_path, chain(), monkeypatch, script=script, **changes)
    assert values(nets) == pytest.approx([0.64, 0.8, 1.0], abs=0.05)


def test_bootstrapped_values_are_those_of_the_improved_policy(tmp_path, monkeypatch):
    """The third action pays in 30 % of the episodes: cloning would give .3 * .64 = .19 at -1; the
    policy learns to take it nearly always, which is worth .64."""
    _, nets, _ = run(tmp_path, chain(good=0.3), monkeypatch, **SHORT | {"eta": 5.0})
    assert values(nets)[0] > 0.5
