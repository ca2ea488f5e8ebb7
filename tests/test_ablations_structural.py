"""The structural ablations: what they replace, and their losses against closed forms.

At the exact solution map of Gaussian actions every loss that names the right map is 0, and a
solver's error falls with its order.
"""

import errno
import importlib
import inspect
import json
import os
import signal
import sys
from copy import deepcopy
from dataclasses import replace
from functools import partial

import filelock
import numpy as np
import pytest
import torch
from conftest import ROOT, make_dataset

sys.path.insert(0, str(ROOT / "ablations"))
import experiment
import linear_q
import meanflow
import ode_solver
import shortcut
import update_cost

import gtp_offline as gtp

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # of jvp
C = 0.5  # standard deviation of the Gaussian actions
SCRIPTS = [ode_solver, linear_q, shortcut, meanflow]
VARIANTS = [(script, title) for script in SCRIPTS for title in script.variants()]
FORMS = [(printed, velocity) for printed in (True, False) for velocity in ("paper", "noise")]


@pytest.fixture(autouse=True)
def double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class GaussianActor:
    """The exact maps for actions ~ N(0, C^2 I)."""

    def flow_map(self, obs, x, t, s):
        return x * ((C**2 + s**2) / (C**2 + t**2)).sqrt()

    def phi(self, obs, x, t, s):
        """From Eq. 4, solved for phi."""
        return (self.flow_map(obs, x, t, s) - s / t * x) / (1 - s / t)

    def inst_map(self, obs, x, t):
        return x * C**2 / (C**2 + t**2)


def make_batch(size=64, obs_dim=3, dim=2):
    """obs, actions, noise, t, u, s, weights, with t > u > s in (0.002, 5)."""
    obs, actions, noise = (torch.randn(size, n) for n in (obs_dim, dim, dim))
    s, u, t = (0.002 + 5 * torch.rand(size, 3) ** 3).sort(1).values.split(1, 1)
    return obs, C * actions, noise, t, u, s, 0.5 + torch.rand(size)


def make_actor(**changes):
    return gtp.FlowMap(3, 2, hidden_dim=8, **changes).double()


def arguments(**changes):
    usual = gtp.default_args(dataset_path="x.npz", device="cpu")
    return replace(usual, **{"hidden_dim": 8, "batch_size": 64} | changes)


def gradients(loss, network):
    return torch.autograd.grad(loss, [*network.parameters()], materialize_grads=True)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- what a script is --------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "title"), VARIANTS)
def test_variants_replace_functions_of_the_same_signature(script, title):
    for name, function in script.variants()[title].replaced.items():
        usual = [*inspect.signature(getattr(gtp, name)).parameters]
        bound = function.keywords if isinstance(function, partial) else {}
        own = inspect.signature(getattr(function, "func", function)).parameters
        assert [*own][: len(usual)] == usual
        extra = [*own.values()][len(usual) :]
        assert all(p.name in bound or p.default is not p.empty for p in extra)
        assert bound.keys() <= {p.name for p in extra}


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_replaces_one_function_and_is_short(script):
    replaced = {name for v in script.variants().values() for name in v.replaced}
    assert len(replaced) == 1
    assert any(not v.replaced for v in script.variants().values())  # GTP, to compare with
    for variant in script.variants().values():
        assert not variant.changes.keys() - vars(gtp.Args()).keys()
    with open(script.__file__) as file:
        assert len(file.readlines()) <= 120


# ---- ode_solver --------------------------------------------------------------------------------


@pytest.mark.parametrize(("heun", "order"), [(False, 1), (True, 2)])
def test_solvers_converge_to_the_exact_path_at_their_order(heun, order):
    actor, x = GaussianActor(), torch.randn(16, 2)
    t, u = torch.full((16, 1), 3.0), torch.full((16, 1), 0.3)
    exact = actor.flow_map(None, x, t, u)
    coarse, fine = (
        (ode_solver.solve(actor, None, x, t, u, n, heun) - exact).norm() for n in (64, 128)
    )
    assert torch.log2(coarse / fine).item() == pytest.approx(order, abs=0.1)
    assert fine < 0.02 * exact.norm()


def test_the_solver_s_loss_vanishes_at_the_exact_map_and_the_score_approximation_s_does_not():
    obs, actions, noise, t, u, s, weights = make_batch()
    actor, s = GaussianActor(), s + 0.1
    t, u = s + 0.2, s + 0.1
    given = (
        actor,
        actor,
        obs,
        actions,
        noise,
        t,
        u,
        s,
        weights,
        arguments(consistency_loss="squared"),
    )
    assert ode_solver.consistency_loss(*given, num_steps=100, heun=True) < 1e-6
    assert gtp.consistency_loss(*given) > 1e-2


@pytest.mark.parametrize("distance", ["pseudo-huber", "squared"])
@pytest.mark.parametrize("weighting", ["inverse-gap", "none"])
def test_with_the_score_approximations_point_the_loss_is_gtps(distance, weighting, monkeypatch):
    obs, actions, noise, t, u, s, weights = make_batch()
    monkeypatch.setattr(ode_solver, "solve", lambda *given: actions + u * noise)
    args = arguments(consistency_loss=distance, consistency_weighting=weighting)
    actor, average = make_actor(), make_actor()
    given = actor, average, obs, actions, noise, t, u, s, weights, args
    loss, usual = ode_solver.consistency_loss(*given), gtp.consistency_loss(*given)
    assert loss.item() == pytest.approx(usual.item(), rel=1e-12)
    assert same(gradients(loss, actor), gradients(usual, actor))
    assert not any(gradient.any() for gradient in gradients(loss, average))


# ---- shortcut ----------------------------------------------------------------------------------


def test_shortcut_loss_is_zero_at_the_exact_map_and_at_rest():
    class Rest(GaussianActor):
        def phi(self, obs, x, t, s):
            return x  # S = 0, why the flow loss has to stay

    *inputs, weights = make_batch()
    for actor in (GaussianActor(), Rest()):
        assert shortcut.consistency_loss(actor, None, *inputs, weights, None) < 1e-20


def test_shortcut_error_is_that_of_the_end_points_over_the_step():
    obs, actions, noise, t, _, s, weights = make_batch()
    actor, x, middle = make_actor(), actions + t * noise, (t + s) / 2
    composed = actor.flow_map(obs, actor.flow_map(obs, x, t, middle), middle, s)
    error = ((actor.flow_map(obs, x, t, s) - composed) / (t - s)).square().sum(1)
    loss = shortcut.consistency_loss(actor, None, obs, actions, noise, t, None, s, weights, None)
    assert error.mean() > 1e-4
    assert loss.item() == pytest.approx((weights * error).mean().item(), rel=1e-6)


def test_shortcut_targets_are_constants_of_the_model_or_of_its_average():
    obs, actions, noise, t, _, s, weights = inputs = make_batch()
    actor, average, x = make_actor(), make_actor(), actions + t * noise
    for averaged in (False, True):
        target = shortcut.two_steps(average if averaged else actor, obs, x, t, s)
        assert not target.requires_grad
        error = (shortcut.velocity(actor, obs, x, t, s) - target).square().sum(1)
        loss = shortcut.consistency_loss(actor, average, *inputs, None, averaged=averaged)
        assert same(gradients(loss, actor), gradients((weights * error).mean(), actor))


# ---- meanflow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("printed", [True, False])
def test_identity_holds_at_the_exact_map_and_for_a_constant(printed):
    class Constant:
        def phi(self, obs, x, t, s):
            return 0 * x + 0.7

        def inst_map(self, obs, x, t):
            return 0 * x + 0.7

    obs, actions, noise, t, _, s, weights = make_batch()
    for actor in (GaussianActor(), Constant()):
        given = obs, actions, noise, t, None, s, weights, None
        loss = meanflow.consistency_loss(actor, None, *given, printed=printed, velocity="paper")
        assert loss < 1e-14


@pytest.mark.parametrize("printed", [True, False])
def test_identity_with_the_noise_holds_in_the_mean_given_x(printed):
    """Its error is linear in (a, z), hence 0 in the mean given x_t if uncorrelated with x_t."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(3)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    mass = torch.from_numpy(np.outer(mass, mass).ravel() / mass.sum() ** 2)
    actions, noise = torch.from_numpy(grid)[:, :1] * C, torch.from_numpy(grid)[:, 1:]
    for time in (0.3, 2.0):
        t, s = torch.full((9, 1), time), torch.full((9, 1), 0.1)
        x, actor = actions + t * noise, GaussianActor()
        target = meanflow.identity_target(actor, None, x, noise, t, s, printed, "noise")
        error = target - actor.phi(None, x, t, s)
        assert (mass * error[:, 0] ** 2).sum() > 1e-3
        assert abs((mass * (error * x)[:, 0]).sum()) < 1e-12


@pytest.mark.parametrize("velocity", ["paper", "noise"])
def test_nonsingular_error_is_s_over_t_times_that_of_equation_31(velocity):
    obs, actions, noise, t, _, s, _ = make_batch()
    actor, x = make_actor(), actions + t * noise
    given = actor, obs, x, noise, t, s
    phi = actor.phi(obs, x, t, s)
    printed, other = (meanflow.identity_target(*given, form, velocity) for form in (True, False))
    torch.testing.assert_close(other - phi, s / t * (printed - phi))
    assert (other - phi).norm() > 1e-3


@pytest.mark.parametrize(("printed", "velocity"), FORMS)
def test_identity_targets_against_finite_differences(printed, velocity):
    """Eqs. 28 and 24, u = v - (t - s) du/dt, with central differences for d/dt along v."""
    obs, actions, noise, t, _, s, _ = make_batch()
    actor, t, h = make_actor(preconditioning="none"), t + 0.1, 1e-5
    x = actions + t * noise
    v = noise if velocity == "noise" else (x - actor.inst_map(obs, x, t)) / t
    phi = lambda h: actor.phi(obs, x + h * v, t + h, s)  # noqa: E731
    u = lambda h: (x + h * v - phi(h)) / (t + h)  # noqa: E731
    if printed:
        expected = x - (t**2 / s - t) * (phi(h) - phi(-h)) / (2 * h) - t * v
    else:
        expected = x - t * (v - (t - s) * (u(h) - u(-h)) / (2 * h))
    target = meanflow.identity_target(actor, obs, x, noise, t, s, printed, velocity)
    torch.testing.assert_close(target, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("printed", "velocity"), FORMS)
def test_identity_targets_are_constants(printed, velocity):
    obs, actions, noise, t, _, s, weights = inputs = make_batch()
    actor, x = make_actor(), actions + t * noise
    target = meanflow.identity_target(actor, obs, x, noise, t, s, printed, velocity)
    assert not target.requires_grad
    error = (actor.phi(obs, x, t, s) - target).square().sum(1)
    form = {"printed": printed, "velocity": velocity}
    loss = meanflow.consistency_loss(actor, None, *inputs, None, **form)
    assert loss.item() == pytest.approx((weights * error).mean().item())
    assert same(gradients(loss, actor), gradients((weights * error).mean(), actor))


# ---- linear_q ----------------------------------------------------------------------------------


@pytest.fixture
def guided():
    """Networks with a critic, a batch and arguments."""
    args = arguments(eta=5.0, num_steps=3)
    nets = gtp.make_networks(args, 3, 2).double()
    for parameter in (*nets["actor_ema"].parameters(), *nets["critic_target"].parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)  # in training they differ, too
    return nets, make_batch(), args


def test_linear_q_with_lambda_zero_is_cloning(guided):
    nets, (*inputs, weights), args = guided
    loss, metrics = linear_q.actor_loss(nets, *inputs, weights, args, coefficient=0.0)
    expected, usual = gtp.actor_loss(nets, *inputs, torch.ones_like(weights), args)
    assert loss == expected
    assert metrics.keys() == usual.keys() | {"q"}
    assert all(metrics[key] == usual[key] for key in usual)


def test_linear_q_is_the_smaller_q_of_what_the_actor_does(guided):
    nets, (obs, actions, noise, *times, weights), args = guided
    given = nets, obs, actions, noise, *times, weights, args
    cloning, _ = linear_q.actor_loss(*given, coefficient=0.0)
    loss, metrics = linear_q.actor_loss(*given, coefficient=0.3)
    policy = gtp.sample_actions(nets["actor"], obs, noise, gtp.sampling_times(3, args))
    q = nets["critic"](obs, policy).amin(0).mean()
    assert metrics["q"].item() == pytest.approx(-q.item())
    assert loss.item() == pytest.approx((cloning - 0.3 * q).item())


def test_linear_q_gradient_against_finite_differences(guided):
    nets, (*inputs, weights), args = guided
    parameters = [*nets["actor"].parameters()]
    direction = [torch.randn_like(p) for p in parameters]

    def loss(coefficient):
        return linear_q.actor_loss(nets, *inputs, weights, args, coefficient=coefficient)[0]

    def slope(coefficient):
        found = torch.autograd.grad(loss(coefficient), parameters)
        return sum((g * d).sum() for g, d in zip(found, direction, strict=True)).item()

    exact, around = slope(100.0), []
    assert abs(exact - slope(0.0)) > 0.01 * abs(exact)  # the Q term has its part in it
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            torch._foreach_add_(parameters, direction, alpha=step)
            around.append(loss(100.0).item())
    assert (around[0] - around[1]) / 2e-6 == pytest.approx(exact, rel=1e-4)


def test_linear_q_takes_the_papers_critic_and_says_so():
    usual = linear_q.variants((0.1,))
    papers = linear_q.variants((0.1,), eq_16=True)
    assert [*papers] == [f"{title}, Eq. 16" for title in usual]
    for (title, variant), other in zip(papers.items(), usual.values(), strict=True):
        assert (variant.table, variant.row) == (other.table, other.row), title
        assert variant.changes["td_target"] == "policy" and not other.changes
        assert variant.replaced.keys() == other.replaced.keys()


def test_linear_q_moves_the_actor_and_leaves_the_critic(guided):
    nets, (obs, actions, *_), args = guided
    data = {"observations": obs, "next_observations": obs, "actions": actions}
    data |= {"rewards": obs[:, 0], "terminals": 0 * obs[:, 0], "rows": torch.arange(64)}
    inputs = gtp.draw_inputs(0, data, torch.Generator().manual_seed(0), args)
    after = []
    for coefficient in (0.0, 1.0):
        own = deepcopy(nets)
        adam = gtp.make_optimizers(own, args)
        loss = partial(linear_q.actor_loss, coefficient=coefficient)
        with experiment.replacing(gtp, {"actor_loss": loss}):
            gtp.update_networks(own, adam, data, inputs, args)
        after.append(own)
    for name in ("critic", "critic_target", "value"):
        assert same(after[0][name].parameters(), after[1][name].parameters())
    assert not same(after[0]["actor"].parameters(), after[1]["actor"].parameters())


# ---- runs --------------------------------------------------------------------------------------


def call(name, *argv):
    """The exit code of a script with these arguments, in this process."""
    torch.set_default_dtype(torch.float32)
    script = importlib.import_module(name)
    return experiment.main(script.run, script.Arguments, [*map(str, argv)])


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("ode_solver", "Heun, 3 steps, u"),
        ("shortcut", "averaged"),
        ("meanflow", "singular, v: noise, raw"),
    ],
)
def test_quick_run(name, only, tmp_path, capsys):
    assert call(name, "--quick", "--num-updates", 8, "--only", only, "--out", tmp_path) == 0
    written = json.loads((tmp_path / f"{name}.json").read_text())
    (row,) = written["variants"].values()
    assert row["statuses"] == ["finished"] and row["energy_score"].keys() == {"1", "2", "5"}
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    if name == "meanflow":
        assert row["cost"]["milliseconds"] > 0 and row["cost"]["megabytes"] > 1
    assert "| finished |" in capsys.readouterr().out


def test_a_run_that_diverges_is_a_row_of_the_table(tmp_path, capsys):
    argv = "--quick", "--num-updates", 8, "--coefficients", 1e30, "--out", tmp_path
    assert call("linear_q", *argv) == 0
    rows = json.loads((tmp_path / "linear_q.json").read_text())["variants"]
    statuses = {title: row["statuses"] for title, row in rows.items()}
    assert statuses == {"GTP": ["finished"], "linear Q, lambda = 1e+30": ["diverged"]}
    assert (tmp_path / "linear_q_actions.png").stat().st_size > 10_000
    assert "| diverged |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], "finished"),
        ([1e7, 5.0], "finished"),
        ([5.0, 2e6], "diverged"),
        ([5.0, None], "diverged"),
    ],
)
def test_an_actor_loss_that_ends_out_of_bounds_is_a_divergence(losses, expected):
    """NaN is written as null."""
    results = {"losses": [{"actor": loss} for loss in losses], "status": "finished"}
    assert meanflow.judged(results)["status"] == expected


def test_update_cost_sees_the_graph_of_the_sampler():
    """Five more passes with gradient: their activations alone exceed 10 MB."""
    torch.set_default_dtype(torch.float32)
    variants = linear_q.variants((1.0,))
    gtp_row, linear = update_cost.costs(variants, rounds=1).values()
    assert gtp_row["ratio"] == 1 and gtp_row["megabytes"] > 1
    assert linear["megabytes"] > gtp_row["megabytes"] + 10


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("linear_q", ["--eta", "0"], "--eta is 0.0"),
        ("linear_q", ["--eta", "nan"], "--eta is nan"),
        ("linear_q", ["--coefficients", "1", "nan"], "--coefficients has nan; give finite numbers"),
        ("linear_q", ["--coefficients", "inf"], "--coefficients has inf; give finite numbers"),
        ("linear_q", ["--coefficients", "-1"], "--coefficients has -1; give finite numbers from 0"),
        ("linear_q", ["--coefficients", "1", "0.1", "1e0"], "--coefficients has 1.0 twice"),
        ("linear_q", ["--coefficients"], "--coefficients is empty; give finite numbers"),
        ("shortcut", ["--seeds", "0"], "--seeds is 0"),
        ("meanflow", ["--only", "nothing"], "--only nothing"),
        ("update_cost", ["--rounds", "0"], "--rounds is 0"),
    ],
)
def test_bad_arguments_are_one_line(name, argv, words, tmp_path, capsys):
    assert call(name, *argv, "--out", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:") and words in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ode_solver", "linear_q", "shortcut", "meanflow", "update_cost"])
def test_whole_quick_run(name, tmp_path):
    assert call(name, "--quick", "--out", tmp_path) == 0
    variants = json.loads((tmp_path / f"{name}.json").read_text())["variants"]
    assert len(variants) >= 4


def test_a_run_that_diverges_before_its_first_checkpoint_has_a_summary(tmp_path):
    last = {"energy_score_by_steps": {"1": 0.5}, "normalized_score": None}
    run = {"last": last, "seed": 0, "status": "diverged", "updates_per_second": 100.0}
    row = experiment.summary([run | {"run_dir": str(tmp_path)}], toy_run=True)
    assert row["masses"] == {"1": None} and row["off_mode"] == {"1": None}
    assert row["energy_score"] == {"1": [0.5, 0.0]}


def test_a_variant_is_continued_by_its_own_command_alone(tmp_path):
    """Its loss sends SIGTERM in update 3; then the script refuses it, and the same call ends it as
    a run without interruption."""
    count = []

    def interrupting(*given, **named):
        count.append(1)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return shortcut.consistency_loss(*given, **named)

    def run(loss, out):
        torch.set_default_dtype(torch.float32)
        options = experiment.Options(out=str(out), quick=True, num_updates=6)
        options = experiment.prepare(options, "x")
        variant = experiment.Variant(replaced={"consistency_loss": loss}, table=7, row="Shortcut")
        return experiment.run("Shortcut", variant, 0, options)

    with pytest.raises(ValueError, match="is interrupted; the same command goes on"):
        run(interrupting, tmp_path / "a")
    (checkpoint,) = (tmp_path / "a").glob("*/checkpoint.pt")
    results = gtp.load_checkpoint(checkpoint)["results"]
    assert results["variant"] == "Shortcut" and results["update"] == 3
    with pytest.raises(gtp.ArgumentError, match=r"Shortcut.*go on with: ") as refusal:
        gtp.train(gtp.resume_args(checkpoint.parent))
    assert results["command"] in str(refusal.value)
    done, whole = run(interrupting, tmp_path / "a"), run(shortcut.consistency_loss, tmp_path / "b")
    assert len(count) == 6 and done["last"] == whole["last"]
    assert (done["table"], done["row"], done["status"]) == (7, "Shortcut", "finished")
    found = run(None, tmp_path / "a")  # nothing is trained
    assert found["last"] == done["last"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_ablation_that_a_signal_ends_says_which(tmp_path, monkeypatch, capsys, number):
    """In a training, which is saved: 130 or 143."""

    def interrupting(*given, **named):
        os.kill(os.getpid(), number)
        return consistency_loss(*given, **named)

    consistency_loss = gtp.consistency_loss
    monkeypatch.setattr(gtp, "consistency_loss", interrupting)
    argv = ["--quick", "--num-updates", "8", "--out", str(tmp_path), "--only", "GTP"]
    assert experiment.main(shortcut.run, shortcut.Arguments, argv) == 128 + number
    assert "is interrupted; the same command goes on from there" in capsys.readouterr().err


def of_runs(*statuses, **last):
    """The results of runs that ended so; their energy scores are 1, 2, ..."""
    return [
        {
            "seed": seed,
            "status": status,
            "run_dir": f"run{seed}",
            "updates_per_second": 10.0,
            "last": last or {"energy_score_by_steps": {"5": seed + 1.0}},
        }
        for seed, status in enumerate(statuses)
    ]


def test_finished_runs_alone_count_where_there_are_any(capsys):
    row = experiment.summary(of_runs("finished", "diverged", "finished"), toy_run=False)
    assert row["energy_score"] == {"5": [2.0, 1.0]}  # of 1 and 3
    assert row["counted"] == ["run0", "run2"] and row["run_dirs"] == ["run0", "run1", "run2"]
    assert experiment.statuses(row) == "2 finished, 1 diverged"
    alone = experiment.summary(of_runs("diverged", "diverged"), toy_run=False)
    assert alone["energy_score"] == {"5": [1.5, 0.5]} and experiment.statuses(alone) == "diverged"
    first = {"a run that diverged at once": experiment.summary(of_runs("diverged", x=1), False)}
    experiment.print_table(first | {"the other": row})
    heads, _, one, other = capsys.readouterr().out.splitlines()
    assert "K=5" in heads and other.startswith("| the other | 2000 ± 1000 |")
    assert one.startswith("| a run that diverged at once | - |")


@pytest.mark.parametrize("name", ["shortcut", "design_choices", "temperature"])
def test_where_nothing_can_be_drawn_it_is_said(name, tmp_path, monkeypatch, capsys):
    """Every run diverged before its first evaluation; what was measured is written."""
    file = tmp_path / "own.npz"
    np.savez(file, **make_dataset())
    given = ["--dataset-path", file, "--out", tmp_path / "out"]
    given += ["--etas", 1] if name == "temperature" else ["--eta", 1]
    run = {"dataset": {}, "args": {}, "losses": []}
    (results,) = of_runs("diverged", x=1)
    monkeypatch.setattr(experiment, "run", lambda *given: results | run)
    assert call(name, "--quick", *given) == 1
    said = f"error: nothing to draw: every run in {tmp_path / 'out'} diverged at once"
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert (tmp_path / "out" / f"{name}.json").exists()
    assert not list((tmp_path / "out").glob("*.png"))


def test_the_file_of_a_variant_is_that_of_its_functions(monkeypatch):
    """Of a constant, as horizon.py replaces one, or of nothing there is none."""
    own = ROOT / "ablations" / "shortcut.py"
    loss = shortcut.consistency_loss
    for replaced in ({"a": loss}, {"a": partial(loss, averaged=True)}, {"n": {1}, "a": loss}):
        assert experiment.Variant(replaced=replaced).file == own
    for replaced in ({}, {"EVALUATION_STEPS": {1, 2}}, {"NAME": "text"}):
        assert experiment.Variant(replaced=replaced).file is None
    monkeypatch.delattr(shortcut, "__file__")  # as in a notebook
    assert experiment.Variant(replaced={"a": loss}).file is None


def test_what_changed_is_said_once_with_the_number_of_runs(capsys):
    experiment.tell_other_code([("a.py", "r0"), ("", "r1"), ("a.py", "r2"), ("b.py", "r3")])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" changed")[0] for line in lines] == ["warning: a.py", "warning: b.py"]
    assert "(2); to train one anew, remove its folder: r0" in lines[0] and "r3" in lines[1]


def test_a_dataset_in_the_home_folder_is_known_again(tmp_path, monkeypatch):
    """--dataset-path=~/x reaches an ablation as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.npz").write_bytes(b"data")
    assert experiment.sha256("~/x.npz") == experiment.sha256_of(tmp_path / "x.npz")


def test_a_run_of_other_code_that_is_found_again_is_said(tmp_path, capsys):
    """Of the script and of the file with the loss: both are recorded as the run begins."""
    argv = "--quick", "--num-updates", 8, "--only", "averaged", "--out", tmp_path
    assert call("shortcut", *argv) == 0
    (file,) = tmp_path.glob("*/results.json")
    whole = json.loads(file.read_text())
    digests = {
        "ablation_sha256": experiment.sha256_of(ROOT / "ablations/shortcut.py"),
        "script_sha256": experiment.sha256_of(ROOT / "gtp_offline.py"),
    }
    assert {key: whole[key] for key in digests} == digests
    assert call("shortcut", *argv) == 0
    assert "changed since" not in capsys.readouterr().err
    both = "gtp_offline.py and shortcut.py"
    for keys, names in (
        (["ablation_sha256"], "shortcut.py"),
        (["script_sha256"], "gtp_offline.py"),
        (digests, both),
    ):
        file.write_text(json.dumps(whole | dict.fromkeys(keys, "0" * 64)))
        assert call("shortcut", *argv) == 0
        said = f"warning: {names} changed since runs were made that are there (1); to train one "
        assert [line for line in capsys.readouterr().err.splitlines() if said in line]
    older = {key: value for key, value in whole.items() if key not in digests}
    file.write_text(json.dumps(older))  # of a version that did not say
    assert call("shortcut", *argv) == 0
    assert "changed since" not in capsys.readouterr().err


def test_results_without_table_and_row_get_them(tmp_path):
    """A run of the time before them is labelled by the same command, and not trained again."""
    argv = "--quick", "--num-updates", 8, "--only", "averaged", "--out", tmp_path
    assert call("shortcut", *argv) == 0
    (file,) = tmp_path.glob("*/results.json")
    whole = json.loads(file.read_text())
    old = {key: value for key, value in whole.items() if key not in ("table", "row")}
    file.write_text(json.dumps(old))
    assert call("shortcut", *argv) == 0
    assert json.loads(file.read_text()) == whole and whole["table"] == 7


def test_only_takes_titles_and_parts_of_titles():
    variants = shortcut.variants()
    chosen = {
        ("GTP",): ["GTP"],
        ("GTP,",): ["GTP, squared error"],
        ("GTP", "averaged"): ["GTP", "Shortcut, averaged targets"],
        ("Short", "GTP, squared error"): [*variants][1:],
    }
    for only, titles in chosen.items():
        assert [*experiment.select(variants, only)] == titles
    with pytest.raises(ValueError, match="--only nothing is in none of GTP, "):
        experiment.select(variants, ("GTP", "nothing"))


def test_a_run_is_used_again_for_the_same_data_and_arguments_only(tmp_path, dataset, capsys):
    def run(*given):
        argv = ["--quick", "--num-updates", "8", "--out", str(tmp_path), "--only", "GTP", *given]
        return experiment.main(shortcut.run, shortcut.Arguments, argv), capsys.readouterr().err

    assert run()[0] == 0
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/checkpoint.pt"))]
    assert len(before) == 1 and run()[0] == 0
    assert before == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/checkpoint.pt"))]
    for given, named in (
        (("--dataset-path", str(dataset)), "toy.npz"),
        (("--env-id", "multigoal-v0"), "env-id"),
        (("--eta", "3"), "--eta 0.0"),
    ):
        code, error = run(*given)
        assert code == 1 and named in error and "another --out" in error


# ---- what is in --out already ------------------------------------------------------------------

EULER = ("--quick", "--only", "Euler", "--num-updates", 8)


@pytest.fixture
def euler(tmp_path, capsys):
    """The folder of a finished run of ode_solver.py below tmp_path."""
    assert call("ode_solver", *EULER, "--out", tmp_path) == 0
    (checkpoint,) = tmp_path.glob("*/checkpoint.pt")
    capsys.readouterr()
    return checkpoint.parent


def test_a_checkpoint_without_results_is_of_its_own_arguments_alone(euler, tmp_path, capsys):
    """The same command makes the results anew; another is refused and labels nothing."""
    (euler / "results.json").unlink()
    (tmp_path / "ode_solver.json").unlink()
    assert call("ode_solver", *EULER, "--out", tmp_path, "--eta", 5) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{euler} was run with --eta 0.0; remove it or give another --out" in line
    assert not (euler / "results.json").exists()
    assert not (tmp_path / "ode_solver.json").exists()
    assert call("ode_solver", *EULER, "--out", tmp_path) == 0
    written = json.loads((tmp_path / "ode_solver.json").read_text())
    assert written["variants"]["Euler, 1 step"]["statuses"] == ["finished"]


def test_infinity_is_the_same_argument_in_a_checkpoint_and_in_results():
    args = arguments(max_weight=np.inf)
    dataset = {"sha256": "none", "path": "x.npz"}
    for spelled in (np.inf, "inf"):
        results = {"args": vars(args) | {"max_weight": spelled}, "dataset": dataset}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(experiment, "sha256", lambda path: "none")
            assert experiment.difference(results, args) == ""
            other = replace(args, max_weight=7.0)
            assert experiment.difference(results, other) == "--max-weight inf"


def test_a_run_goes_on_from_the_previous_checkpoint_alone(tmp_path, monkeypatch, capsys):
    """A kill between the two renames of the second checkpoint, at update 4, leaves that of update
    2; the same command ends as a run that nothing has stopped."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    usual = gtp.default_args
    often = lambda **given: replace(usual(**given), checkpoint_freq=2)  # noqa: E731
    monkeypatch.setattr(gtp, "default_args", often)
    assert call("ode_solver", *EULER, "--out", whole) == 0
    save = gtp.save_checkpoint

    def killing(path, state):
        if state["results"]["update"] == 4:
            path.replace(path.with_name("checkpoint.previous.pt"))
            raise KeyboardInterrupt
        save(path, state)

    monkeypatch.setattr(gtp, "save_checkpoint", killing)
    assert call("ode_solver", *EULER, "--out", killed) == 130
    (previous,) = killed.glob("*/checkpoint*.pt")
    assert previous.name == "checkpoint.previous.pt"
    assert experiment.load_policy(str(previous.parent)) is not None
    monkeypatch.setattr(gtp, "save_checkpoint", save)
    assert call("ode_solver", *EULER, "--out", killed) == 0
    one, other = (next(folder.glob("*/results.json")).read_text() for folder in (whole, killed))
    assert json.loads(one)["last"] == json.loads(other)["last"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read, it may be damaged"),
        ('{"status": "finished"}', "no seed, args, dataset, updates_per_second"),
        ("[]", "no status, seed, args"),
    ],
)
def test_damaged_results_are_named_with_the_remedy(text, words, euler, tmp_path, capsys):
    (euler / "results.json").write_text(text)
    assert call("ode_solver", *EULER, "--out", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"error: {euler}/results.json " in line and words in line
    assert f"remove {euler} or give another --out" in line
    assert (euler / "results.json").read_text() == text


def test_a_damaged_checkpoint_is_named_with_the_remedy(euler, tmp_path, capsys):
    (euler / "results.json").unlink()
    (euler / "checkpoint.pt").write_text("")
    assert call("ode_solver", *EULER, "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert f"{euler} holds no whole checkpoint" in error
    assert f"remove {euler} or give another --out" in error


def test_an_idle_flag_is_said_and_keeps_no_run_from_being_used_again(euler, tmp_path, capsys):
    """The toy has no episodes."""
    before = (euler / "results.json").read_text()
    assert call("ode_solver", *EULER, "--out", tmp_path, "--num-eval-episodes", 7) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: --num-eval-episodes 7 has no effect with no --env-id"
    assert (euler / "results.json").read_text() == before


@pytest.mark.parametrize("name", ["ode_solver", "weighted_bc", "multigoal", "update_cost"])
@pytest.mark.parametrize("below", ["", "x"])
def test_a_file_is_no_folder_of_an_ablation(name, below, tmp_path, monkeypatch, capsys):
    """Said before anything is trained or measured."""
    monkeypatch.setattr(gtp, "train", lambda args: pytest.fail("trained"))
    monkeypatch.setattr(update_cost, "costs", lambda *given: pytest.fail("measured"))
    file = tmp_path / "file"
    file.write_text("kept")
    out = file / below if below else file
    assert call(name, "--quick", "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --out {out}: {file} is no folder; name a folder"
    assert file.read_text() == "kept"


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *given: False)
    assert call("shortcut", "--quick", "--out", tmp_path / "new") == 2
    assert f"{tmp_path} may not be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("shortcut", ["--only", "nothing"], "--only nothing"),
        ("shortcut", ["--hidden-dim", "-4", "--num-updates", "8"], "--hidden-dim is -4"),
        ("shortcut", ["--num-updates", "0"], "--num-updates is 0"),
        ("shortcut", ["--device", "foo"], "--device foo is not to be had"),
        ("shortcut", ["--first-seed", "-1"], "--first-seed is -1"),
        ("weighted_bc", ["--hidden-dim", "0"], "--hidden-dim is 0"),
        ("multigoal", ["--num-updates", "0"], "--num-updates is 0"),
        ("multigoal", ["--device", "foo"], "--device foo is not to be had"),
    ],
)
def test_what_is_refused_leaves_no_folder(name, argv, words, tmp_path, capsys):
    assert call(name, *argv, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:") and words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["ode_solver", "temperature", "weighted_bc", "multigoal"])
@pytest.mark.parametrize("function", ["mkdir", "TemporaryFile"])
def test_a_folder_that_cannot_be_made_is_one_line(name, function, tmp_path, monkeypatch, capsys):
    """As on a file system that is read-only, of which permissions do not tell."""

    def refusing(*given, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "there")

    owner = "pathlib.Path" if function == "mkdir" else "tempfile"
    monkeypatch.setattr(f"{owner}.{function}", refusing)
    monkeypatch.setattr(gtp, "train", lambda args: pytest.fail("trained"))
    assert call(name, "--quick", "--out", tmp_path / "new") == 2
    (line,) = capsys.readouterr().err.splitlines()
    words = "the folder cannot be made or written to (Read-only file system); name another"
    assert line == f"error: --out {tmp_path}/new: {words}"


# ---- a grid is looked at before it begins ------------------------------------------------------


def damage_results(folder):
    (folder / "results.json").write_text("{")


def change_arguments(folder):
    file = folder / "results.json"
    results = json.loads(file.read_text())
    file.write_text(json.dumps(results | {"args": results["args"] | {"tau": 0.25}}))


def damage_checkpoint(folder):
    file = folder / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "running"}))
    (folder / "checkpoint.pt").write_text("")


def change_variant(folder):
    (folder / "results.json").unlink()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    state["results"]["variant"] = "Shortcut"
    torch.save(state, folder / "checkpoint.pt")


def put_file(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("")


HARMS = {
    "damaged results": (damage_results, "cannot be read, it may be damaged; remove"),
    "other arguments": (change_arguments, "was run with --tau 0.25; remove it or give another"),
    "damaged checkpoint": (damage_checkpoint, "holds no whole checkpoint"),
    "other variant": (change_variant, "is a run of 'Shortcut', not of 'Euler, 1 step'; remove"),
    "a file": (put_file, "is no folder; remove"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_the_last_folder_of_a_grid_is_refused_before_the_first_run(
    harm, euler, tmp_path, monkeypatch, capsys
):
    """The score approximation comes first."""
    act, words = HARMS[harm]
    act(euler)
    monkeypatch.setattr(gtp, "train", lambda args: pytest.fail("trained"))
    grid = *EULER[:2], "score approximation", *EULER[2:]
    assert call("ode_solver", *grid, "--out", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {euler}") and words in line and "another --out" in line


def test_a_run_of_another_process_is_refused_before_the_first_one(
    euler, tmp_path, monkeypatch, capsys
):
    (euler / "results.json").unlink()
    monkeypatch.setattr(gtp, "train", lambda args: pytest.fail("trained"))
    grid = *EULER[:2], "score approximation", *EULER[2:]
    with filelock.FileLock(euler / ".lock"):
        assert call("ode_solver", *grid, "--out", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {euler} is being trained by another process; wait for its end"


def test_a_finished_run_without_its_checkpoint_is_not_left_out_of_a_mean(tmp_path, capsys):
    """Of a toy's before the first run; of other data where the policy is to act."""
    words = ["--only", "GTP", "--num-updates", 4, "--hidden-dim", 16, "--seeds", 2]
    assert call("shortcut", *words, "--out", tmp_path) == 0
    (folder,) = tmp_path.glob("GTP__1__4")
    for file in folder.glob("checkpoint*.pt"):
        file.unlink()
    capsys.readouterr()
    assert call("shortcut", *words, "--out", tmp_path) == 1
    assert f"error: {folder} has lost its checkpoint; remove it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has lost its checkpoint"):
        experiment.load_policy(str(folder))


def test_quick_replaces_no_comparison(tmp_path, capsys):
    words = ["--only", "GTP", "--hidden-dim", 16, "--out", tmp_path]
    for _ in range(2):
        assert call("shortcut", *words, "--quick") == 0
    assert call("shortcut", *words, "--num-updates", 8, "--seeds", 1) == 0
    before = (tmp_path / "shortcut.json").read_bytes()
    capsys.readouterr()
    assert call("shortcut", *words, "--quick") == 1
    words = "shortcut.json is of 8 updates; give --quick another --out"
    assert words in capsys.readouterr().err
    assert (tmp_path / "shortcut.json").read_bytes() == before


# ---- what was measured -------------------------------------------------------------------------

MEASURING = {  # where the measuring of a script begins, and what it is to be asked
    "update_cost": ("costs", ["--rounds", 7]),
    "inference_time": ("policies", ["--rounds", 7]),
    "score_approximation": ("fixed_points", ["--std", 0.25]),
    "choosing_critic": ("load", ["--actors", "a", "--critics", "b", "--num-rows", 7]),
}


@pytest.mark.parametrize("name", MEASURING)
def test_a_measurement_replaces_none_of_other_arguments(name, tmp_path, monkeypatch, capsys):
    begin, argv = MEASURING[name]
    script = importlib.import_module(name)
    flag, value = argv[-2:]
    usual = {"actors": ["a"], "critics": ["b"]} if name == "choosing_critic" else {}
    options = script.Arguments(**usual)
    field = flag.removeprefix("--").replace("-", "_")
    file = tmp_path / f"{name}.json"

    def begins(*given):
        raise ValueError("it is measured")

    monkeypatch.setattr(script, begin, begins)
    refusals = {
        json.dumps({"options": experiment.measured_with(options)}): "was measured with "
        f"{flag} {getattr(options, field)}; remove it or give another --out",
        '{"variants": {}}': "does not say with which arguments it was measured; remove it or",
        "[": "does not say with which arguments it was measured; remove it or give another",
    }
    for text, words in refusals.items():
        file.write_text(text)
        assert call(name, *argv, "--out", tmp_path) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {file} {words}")
        assert file.read_text() == text
    same = experiment.measured_with(replace(options, **{field: value}))
    file.write_text(json.dumps({"options": same}))
    assert call(name, *argv, "--out", tmp_path) == 1
    assert "it is measured" in capsys.readouterr().err


def test_update_cost_replaces_a_quick_one_and_the_same_alone(tmp_path, monkeypatch, capsys):
    row = {"milliseconds": 1.0, "ratio": 1.0, "megabytes": 1.0}
    monkeypatch.setattr(update_cost, "costs", lambda *given: {"GTP": row})
    for words in (["--quick"], ["--quick"], [], []):
        assert call("update_cost", *words, "--out", tmp_path) == 0
    capsys.readouterr()
    assert call("update_cost", "--quick", "--out", tmp_path) == 1
    assert "update_cost.json was measured with no --quick; remove it" in capsys.readouterr().err
