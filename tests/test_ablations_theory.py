"""ablations/score_approximation.py and weighted_bc.py against closed forms and simulations."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))
import experiment
import score_approximation as theory
import weighted_bc

import gtp_offline

double = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
TWO_MODES = theory.Mixture(double(-0.7, 0.7), double(0.3, 0.7), 0.05)
GAUSSIAN = theory.Mixture(double(0), double(1), 0.5)


def time_grid(n, sigma_max=80.0):
    return gtp_offline.karras_grid(n, theory.SIGMA_MIN, sigma_max).double()


# ---- score_approximation.py: the mixture and its ODE -------------------------------------------


def test_the_field_is_minus_t_times_the_score():
    x = torch.linspace(-3, 3, 101, dtype=torch.float64, requires_grad=True)
    for t in (0.05, 0.3, 1.0, 20.0):
        modes = torch.distributions.Normal(TWO_MODES.means, math.hypot(TWO_MODES.std, t))
        masses = torch.distributions.Categorical(TWO_MODES.masses)
        p_t = torch.distributions.MixtureSameFamily(masses, modes)
        (score,) = torch.autograd.grad(p_t.log_prob(x).sum(), x)
        assert torch.allclose(TWO_MODES.field(x.detach(), t), -t * score, atol=1e-9)


def test_the_quantile_map_solves_the_ode():
    x = TWO_MODES.quantile(torch.linspace(0.01, 0.99, 25, dtype=torch.float64), 2.0)
    solved = theory.solve(TWO_MODES.field, x, 2.0, 0.2, num_steps=400, order=4)
    assert torch.allclose(TWO_MODES.flow_map(x, 2.0, 0.2), solved, atol=1e-6)
    assert (x - solved).abs().max() > 1


def test_the_gaussian_map_is_linear():
    x, c = torch.linspace(-4, 4, 9, dtype=torch.float64), GAUSSIAN.std
    linear = x * math.sqrt((c**2 + 0.1**2) / (c**2 + 3**2))
    assert torch.allclose(GAUSSIAN.flow_map(x, 3.0, 0.1), linear, atol=1e-9)


def test_posterior_moments():
    x, t, c = double(-1.0, 0.4, 2.0), 0.8, GAUSSIAN.std
    a, weights = GAUSSIAN.posterior(x, t)
    assert torch.allclose(weights.sum((1, 2)), torch.ones(3).double())
    mean = (a * weights).sum((1, 2))
    variance = (a**2 * weights).sum((1, 2)) - mean**2
    assert torch.allclose(mean, x * c**2 / (c**2 + t**2))
    assert torch.allclose(variance, double(*[c**2 * t**2 / (c**2 + t**2)] * 3))


@pytest.mark.parametrize("order", [1, 4])
def test_orders_of_the_solvers(order):
    field = lambda x, t: -x * t  # noqa: E731
    x = double(1.0)
    errors = [
        (theory.solve(field, x, 2.0, 0.0, n, order) - math.exp(2.0)).abs().item() for n in (64, 128)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


# ---- score_approximation.py: the fixed point ---------------------------------------------------


@pytest.mark.parametrize("n", [11, 41, 161, 641, 1281])
def test_gaussian_fixed_point_is_the_exact_map_times_cosines(n):
    grid, c = time_grid(n), GAUSSIAN.std
    table = theory.fixed_point(GAUSSIAN, grid, knots=1001, nodes=8)
    x = double(-160.0, -40.0, 10.0, 80.0)
    cosines = torch.cos(torch.atan(grid / c).diff()).prod()
    expected = GAUSSIAN.flow_map(x, float(grid[-1]), float(grid[0])) * cosines
    assert torch.allclose(table(torch.tensor([-1]), x[None])[0], expected, rtol=1e-5)


@pytest.mark.parametrize("u_sampling", ["adjacent", "uniform", "weighted"])
def test_fixed_point_is_the_mean_end_of_random_walks(u_sampling):
    """Simulated without the script's quadrature, tables and weights."""
    rng, grid, walks = np.random.default_rng(0), time_grid(6, 2.0).numpy(), 60_000
    table = theory.fixed_point(TWO_MODES, torch.from_numpy(grid), u_sampling, 401, 8)
    means, masses, std = TWO_MODES.means.numpy(), TWO_MODES.masses.numpy(), TWO_MODES.std
    for start in (-3.0, -2.0):  # where the three ways to draw u differ most
        ends = np.full(walks, start)
        i = np.full(walks, len(grid) - 1)
        while (active := np.flatnonzero(i)).size:
            x, t, now = ends[active], grid[i[active]], i[active]
            likelihood = masses * np.exp(
                -((x[:, None] - means) ** 2) / (2 * (std**2 + t**2))[:, None]
            )
            likelihood /= likelihood.sum(1, keepdims=True)
            mode = (rng.random(len(x))[:, None] > likelihood.cumsum(1)[:, :1]).astype(int)[:, 0]
            precision = 1 / std**2 + 1 / t**2
            mean = (means[mode] / std**2 + x / t**2) / precision
            a = mean + rng.standard_normal(len(x)) / np.sqrt(precision)
            if u_sampling == "adjacent":
                j = now - 1
            else:
                j = np.empty_like(now)
                for k in np.unique(now):
                    rows = np.arange(1, k) if k > 1 else np.array([0])
                    p = (
                        1 / (grid[k] - grid[rows])
                        if u_sampling == "weighted"
                        else np.ones(len(rows))
                    )
                    j[now == k] = rng.choice(rows, (now == k).sum(), p=p / p.sum())
            ends[active], i[active] = a + grid[j] * (x - a) / t, j
        found = table(torch.tensor([-1]), double(start)[None]).item()
        assert found == pytest.approx(ends.mean(), abs=4 * ends.std() / math.sqrt(walks))


def measured(mixture, n, u_sampling="adjacent", **sizes):
    table = theory.fixed_point(mixture, time_grid(n), u_sampling, **sizes)
    return theory.measures(mixture, theory.one_step(mixture, table, 80.0))


def test_what_the_docstring_says_of_the_fixed_point():
    sizes = {"knots": 401, "nodes": 8}
    modes = [measured(TWO_MODES, n) for n in (161, 641)]
    normal = [measured(GAUSSIAN, n) for n in (161, 641)]
    uniform = [measured(TWO_MODES, n, "uniform", **sizes) for n in (11, 41)]
    weighted = measured(TWO_MODES, 41, "weighted", **sizes)
    assert modes[0]["W1"] / modes[1]["W1"] == pytest.approx(2, rel=0.1)  # 1 / sqrt(N)
    assert normal[0]["W1"] / normal[1]["W1"] == pytest.approx(4, rel=0.1)  # 1 / N
    assert uniform[0]["W1"] == pytest.approx(uniform[1]["W1"], rel=0.02)
    assert min(uniform[1]["W1"], weighted["W1"]) > 5 * modes[0]["W1"]
    assert modes[1]["left"] == pytest.approx(0.3, abs=2e-3) and uniform[1]["left"] < 0.1
    for row in [*modes, *uniform, weighted]:
        assert row["mean"] == pytest.approx(0.4 * 0.7, abs=1e-3)  # that of the data


def test_a_finer_table_changes_nothing():
    for u_sampling, coarse, fine in (
        ("adjacent", (2001, 16), (4001, 24)),
        ("weighted", (401, 8), (1001, 16)),
    ):
        a, b = (
            measured(TWO_MODES, 21, u_sampling, knots=k, nodes=q)["W1"] for k, q in (coarse, fine)
        )
        assert a == pytest.approx(b, abs=5e-4)


# ---- score_approximation.py: Theorem 1 ---------------------------------------------------------


def test_substeps_change_nothing_on_the_surrogate_field():
    rows = {
        (k, p): theory.compare_fields(TWO_MODES, 1.0, 0.25, k, p) for k in (1, 16) for p in (1, 4)
    }
    assert all(row["line"] < 1e-13 for row in rows.values())
    assert rows[1, 1]["ideal"] > 8 * rows[16, 1]["ideal"]
    assert rows[1, 4]["ideal"] > 100 * rows[16, 4]["ideal"]
    assert rows[16, 1]["states"] > rows[1, 1]["states"] > 0.3
    assert rows[16, 4]["states"] == pytest.approx(rows[1, 4]["states"], rel=0.02)


@pytest.mark.parametrize("solver_order", [1, 4])
def test_orders_in_the_gap(solver_order):
    a, b = (
        theory.compare_fields(TWO_MODES, 1.0, 1 - h, 1, solver_order, (0.25,))
        for h in (1 / 32, 1 / 64)
    )
    order = {key: math.log2(a[key] / b[key]) for key in ("states", "target", "means")}
    assert order["states"] == pytest.approx(1, abs=0.05)
    assert order["target"] == pytest.approx(2, abs=0.05)
    if solver_order == 1:
        assert b["means"] < 1e-14  # Lemma 2 for Euler, exactly
    else:
        assert order["means"] == pytest.approx(2, abs=0.05)
    assert math.log2(a["losses"][0] / b["losses"][0]) == pytest.approx(2, abs=0.05)


def test_loss_gap_of_gaussian_data():
    """With an exact solver the gap is L_prac itself, in closed form."""
    t, u, s, c = 1.0, 0.5, 0.1, GAUSSIAN.std
    (found,) = theory.compare_fields(GAUSSIAN, t, u, 20, 4, (s,))["losses"]
    r = (c**2 + u * t) / math.sqrt((c**2 + t**2) * (c**2 + u**2))
    assert found == pytest.approx(2 * (c**2 + s**2) * (1 - r), rel=5e-3)


@pytest.fixture
def coarse(monkeypatch):
    """Fewer points of time and levels, for runs of the whole script in a second or two."""
    cases = {name: replace(case, counts=(11, 21)) for name, case in theory.CASES.items()}
    monkeypatch.setattr(theory, "CASES", cases)
    monkeypatch.setattr(theory, "LEVELS", theory.LEVELS[5::10])


def test_score_approximation_runs(coarse, tmp_path, capsys):
    arguments = ["--quick", "--out", str(tmp_path / "out"), "--masses", "0.5", "0.5"]
    assert experiment.main(theory.run, theory.Arguments, arguments) == 0
    results = json.loads((tmp_path / "out/score_approximation.json").read_text())
    assert results["options"]["masses"] == [0.5, 0.5]
    assert {row["N"] for row in results["fixed_points"]} == {11, 21}
    assert all(math.isfinite(row["W1"]) for row in results["fixed_points"])
    assert (tmp_path / "out/score_approximation.png").read_bytes()[1:4] == b"PNG"
    assert "| u uniform, weighted | 21 |" in capsys.readouterr().out


@pytest.mark.slow
def test_score_approximation_quick_form(tmp_path):
    arguments = ["--quick", "--out", str(tmp_path)]
    assert experiment.main(theory.run, theory.Arguments, arguments) == 0


@pytest.mark.parametrize(
    "given, said",
    [
        (["--masses", "0.5", "0.6"], "whose sum is 1"),
        (["--std", "0.001"], "--std 0.001"),
        (["--mode", "0"], "--mode 0.0 must lie in (0, 10000]"),
        (["--mode", "nan"], "--mode nan must lie in (0, 10000]"),
        (["--std", "inf"], "--std inf must lie in (0, 10000]"),
        (["--sigma-max", "0.001"], "--sigma-max"),
    ],
)
def test_score_approximation_refuses(given, said, tmp_path, capsys):
    arguments = [*given, "--out", str(tmp_path / "out")]
    assert experiment.main(theory.run, theory.Arguments, arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


# ---- weighted_bc.py ----------------------------------------------------------------------------


def test_the_behaviour_has_the_stated_density():
    a = np.linspace(-1, 1, 20_001)
    assert weighted_bc.density(a).mean() * 2 == pytest.approx(1, abs=1e-3)
    outside = np.abs(a[:, None] - weighted_bc.MEANS).min(1) > weighted_bc.REACH
    assert not weighted_bc.density(a)[outside].any() and outside.mean() > 0.3
    points = weighted_bc.behaviour()
    assert weighted_bc.masses(points) == pytest.approx(weighted_bc.MASSES, abs=1e-4)
    mean = weighted_bc.MASSES @ weighted_bc.MEANS
    second = weighted_bc.MASSES @ weighted_bc.MEANS**2 + weighted_bc.REACH**2 / 7  # Beta(3, 3)
    assert points.mean() == pytest.approx(mean, abs=1e-4)
    assert np.mean(points**2) == pytest.approx(second, abs=1e-4)


@pytest.mark.parametrize("eta, clip", [(0.0, 100.0), (1.0, math.inf), (5.0, 100.0)])
def test_exact_masses_by_integration(eta, clip):
    """Eq. 14 written out and integrated on an even grid."""
    a = np.linspace(-1, 1, 100_001)
    p, q = weighted_bc.density(a), weighted_bc.value(a)
    p = p / p.sum()
    advantage = q - p @ q
    w = np.exp(eta * np.maximum(0, advantage) / np.sqrt(p @ advantage**2)).clip(max=clip)
    nearest = np.abs(a[:, None] - weighted_bc.MEANS).argmin(1)
    expected = np.bincount(nearest, p * w) / (p @ w)
    points = weighted_bc.behaviour()
    found = weighted_bc.masses(points, weighted_bc.weights(points, eta, clip))
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("eta", [1.0, 5.0])
def test_v_drops_out_of_eq_12_but_not_of_eq_14(eta):
    rows = weighted_bc.shifted_values(eta)
    assert all(row["moved_eq12"] < 1e-9 for row in rows)
    assert rows[0]["masses"] == pytest.approx(rows[0]["masses_eq12"], abs=1e-4)  # nothing is cut
    assert rows[-1]["masses"] == pytest.approx(weighted_bc.MASSES, abs=1e-4)  # a clone
    assert rows[-1]["moved"] > 0.2 and rows[2]["moved"] == 0
    left = [row["masses"][0] for row in rows]  # the bump of the lowest value
    assert left == sorted(left) and left[-1] > 3 * left[0]


def test_bandit_dataset(tmp_path):
    weighted_bc.write_dataset(tmp_path / "bandit.npz", rows=4_000)
    data = gtp_offline.load_transitions(tmp_path / "bandit.npz")
    a = data["actions"][:, 0]
    assert data["terminals"].all()
    assert np.allclose(data["rewards"], weighted_bc.value(a), atol=1e-6)
    assert np.abs(a[:, None] - weighted_bc.MEANS).min(1).max() <= weighted_bc.REACH + 1e-6
    assert weighted_bc.masses(a) == pytest.approx(weighted_bc.MASSES, abs=0.03)


def weighted_run(*arguments):
    return experiment.main(weighted_bc.run, weighted_bc.Arguments, [*map(str, arguments)])


def test_weighted_bc_runs_and_finds_its_runs_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("offline_tasks.plot_run", lambda *args, **kwargs: None)
    given = "--quick", "--num-updates", 8, "--out", tmp_path
    assert weighted_run(*given) == 0
    results = json.loads((tmp_path / "weighted_bc.json").read_text())
    assert [row["eta"] for row in results["trained"]] == [0, 0, 1, 1, 5, 5]
    for row in results["exact"] + results["trained"]:
        total = sum(np.atleast_2d(np.transpose(row["masses"]))[0])
        assert total == pytest.approx(1)
    assert (tmp_path / "weighted_bc.png").read_bytes()[1:4] == b"PNG"
    assert "| 5 | trained, K = 20 |" in capsys.readouterr().out
    monkeypatch.setattr(gtp_offline, "train", lambda args: pytest.fail("trained again"))
    assert weighted_run(*given) == 0
    (checkpoint,) = tmp_path.glob("eta_5__*/checkpoint.pt")
    checkpoint.unlink()
    capsys.readouterr()
    (first,) = tmp_path.glob("eta_0__*/results.json")
    first.unlink()  # it would begin anew
    first.with_name("checkpoint.pt").unlink()
    assert weighted_run(*given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{checkpoint.parent} has lost its checkpoint; remove it" in line


def test_weighted_bc_refuses(tmp_path, monkeypatch, capsys):
    assert weighted_run("--seeds", 0, "--out", tmp_path / "out") == 2
    assert "--seeds is 0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert weighted_run("--out", tmp_path / "file") == 2
    diverged = lambda *args: {"status": "diverged", "run_dir": "there"}  # noqa: E731
    monkeypatch.setattr(experiment, "run", diverged)
    assert weighted_run("--out", tmp_path / "out") == 1
    assert "there diverged" in capsys.readouterr().err


@pytest.mark.slow
def test_trained_masses_are_the_exact_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(weighted_bc, "TRAINED_ETAS", (5.0,))
    monkeypatch.setattr(weighted_bc, "NUM_STEPS", (20,))
    (row,) = weighted_bc.train(weighted_bc.Arguments(out=str(tmp_path), seeds=1))
    points = weighted_bc.behaviour()
    w = weighted_bc.weights(points, 5.0, weighted_bc.MAX_WEIGHT)
    found = [mean for mean, _ in row["masses"]]
    assert found == pytest.approx(weighted_bc.masses(points, w), abs=0.05)
    assert row["outside"][0] < 0.1
