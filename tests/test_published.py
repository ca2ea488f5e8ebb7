"""What Diffusion-QL's and Consistency-AC's published code does around its losses, done here too:
when it evaluates, what it selects by, when it stops, its Diffusion-BC."""

import json
import math
import os
import signal
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc
import gtp_offline as gtp

FAMILY = [gtp, gtp_bc, dql, cac]
BASELINES = [dql, cac]


def resolved(script, *words):
    """What the command line gives, complete as it is saved."""
    return script.start(script.parse_args([*words, "--device", "cpu", "--run-dir", "x"]))[0]


# ---- when it evaluates ------------------------------------------------------------------------


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize(
    ("robot", "length", "forty", "twenty"),
    [("hopper", 2_000_000, 50_000, 100_000), ("walker2d", 4_000, 100, 200)],
)
def test_the_baselines_evaluate_forty_times_on_locomotion(script, robot, length, forty, twenty):
    """Every 50 of 2,000 epochs of 1,000 updates; resolved as results.json has it."""
    words = ["--env-id", f"{robot}-medium-replay-v2"]
    if length != 2_000_000:
        words += ["--num-updates", str(length)]
    args = resolved(script, *words)
    assert (args.num_updates, args.eval_freq) == (length, forty if script in BASELINES else twenty)
    assert resolved(script, *words, "--eval-freq", "0").eval_freq == twenty


@pytest.mark.parametrize("script", BASELINES)
def test_the_baselines_evaluate_twenty_times_on_antmaze(script):
    """Every 50 of 1,000 epochs of 1,000 updates; as often where there is no such table."""
    assert resolved(script, "--env-id", "antmaze-large-play-v0").eval_freq == 50_000
    assert resolved(script, "--env-id", "multigoal-v0").eval_freq == 200


# ---- when it stops ----------------------------------------------------------------------------

# L_d of 20 updates, evaluated at every fourth; the means are 4, 3, 3, 4 and 1
SERIES = [5, 5, 5, 1, 1, 1, 1, 9, 3, 3, 3, 3, 4, 4, 4, 4, 1, 1, 1, 1]


@pytest.fixture
def scripted(small, monkeypatch):
    """scripted(series, **changes): Args of a run whose k-th update has the L_d series[k]; it has as
    many updates and evaluates at every fourth. scripted.seen: the number of updates so far."""
    original = dql.update_networks

    def make(series=SERIES, name="run", **changes):
        make.seen = 0

        def update_networks(*inputs):
            metrics = original(*inputs)
            make.seen += 1
            return metrics | {"bc": torch.tensor(float(series[make.seen - 1]))}

        monkeypatch.setattr(dql, "update_networks", update_networks)
        settings = {"num_updates": len(series), "eval_freq": 4, "log_freq": 3, "early_stop": True}
        return small(name, dql, **settings | changes)

    return make


def test_early_stop_ends_at_the_first_evaluation_whose_mean_rises(scripted, capfd, tmp_path):
    """Not at a mean that stays, nor where the last line of the log alone rises (update 8)."""
    results = dql.train(scripted())
    assert scripted.seen == results["update"] == 16
    assert (results["status"], results["exit_code"]) == ("finished", 0)
    assert results["early_stop"] == pytest.approx([3, 4])
    assert [losses["bc"] for losses in results["losses"]] == pytest.approx([4, 3, 3, 4])
    assert [row["update"] for row in results["evaluations"]] == [4, 8, 12, 16]
    assert results["last"]["update"] == 16 and results["args"]["early_stop"] is True
    assert "--early-stop: L_d rose from 3 to 4" in capfd.readouterr().out
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["early_stop"] == results["early_stop"] and written["status"] == "finished"
    assert dql.load_checkpoint(tmp_path / "run")["results"]["update"] == 16


def test_without_the_flag_all_updates_are_made(scripted):
    results = dql.train(scripted(early_stop=False))
    assert (results["update"], results["status"]) == (20, "finished")
    assert "early_stop" not in results and len(results["evaluations"]) == 5


@pytest.mark.parametrize("longer", [False, True])
def test_a_resume_of_a_stopped_run_trains_nothing_and_says_so(scripted, longer, capfd, tmp_path):
    before = dql.train(scripted())
    capfd.readouterr()
    args = dql.resume_args(tmp_path / "run")
    after = dql.train(replace(args, num_updates=40) if longer else args)
    assert scripted.seen == after["update"] == 16
    assert after["args"]["num_updates"] == after["num_updates"] == before["num_updates"]
    for key in ("status", "exit_code", "early_stop", "evaluations", "losses", "selected"):
        assert after[key] == before[key], key
    output, errors = capfd.readouterr()
    assert errors.count("has ended at update 16: nothing to train\n") == 1
    assert output.count("ended by --early-stop at update 16: L_d 3 -> 4\n") == 1


def test_a_resume_of_a_finished_run_says_so_too(small, capfd, tmp_path):
    for script in FAMILY:
        script.train(small(script.__name__, script, num_updates=2))
        assert "nothing to train" not in capfd.readouterr().err
        script.train(script.resume_args(tmp_path / script.__name__))
        assert "nothing to train" in capfd.readouterr().err


@pytest.mark.parametrize("at", [6, 14])
def test_an_interruption_leaves_the_means_and_the_stop_as_they_are(scripted, at, tmp_path):
    whole = dql.train(scripted(name="whole"))
    args = scripted(name="cut")
    update_networks = dql.update_networks

    def interrupted(*inputs):
        if scripted.seen == at - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update_networks(*inputs)

    dql.update_networks = interrupted  # the fixture restores it
    assert dql.train(args)["status"] == "interrupted"
    dql.update_networks = update_networks
    results = dql.train(dql.resume_args(tmp_path / "cut"))
    assert results["update"] == whole["update"] == 16
    assert results["losses"] == whole["losses"] and results["early_stop"] == whole["early_stop"]


@pytest.mark.parametrize(("first", "updates"), [(100.0, 8), (100.5, 4)])
def test_the_first_mean_is_compared_with_a_hundred(scripted, first, updates):
    results = dql.train(scripted([first] * 4 + [99.0] * 4))
    assert results["update"] == updates


def test_a_rise_at_the_last_evaluation_is_one(scripted):
    results = dql.train(scripted([1] * 4 + [2] * 4))
    assert (results["update"], results["early_stop"]) == (8, [1, 2])


# ---- what could not be trained ----------------------------------------------------------------


@pytest.mark.parametrize("script", [gtp, gtp_bc])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"huber_c": 0.0}, "--huber-c is 0.0; give a number from 1e-6"),
        ({"huber_c": math.nan}, "--huber-c is nan"),
        ({"sigma_min": 9e-4}, r"--sigma-min 0.0009 must lie in \[1e-3, 5.0\)"),
    ],
)
def test_a_pole_of_the_loss_and_times_without_an_embedding_are_refused(script, bad, said, small):
    with pytest.raises(script.ArgumentError, match=said):
        script.check_args(small("run", script, **bad))
    script.check_args(small("run", script, huber_c=1e-6, sigma_min=1e-3))
    older = small("run", script, sigma_min=5e-4, resume="run")  # goes on as it began
    script.check_args(older)


@pytest.mark.parametrize("script", [gtp, gtp_bc])
def test_every_point_of_the_finest_grid_has_an_embedding_of_its_own(script):
    """From the smallest --sigma-min on; a tenth of 1281 points would share one from 1e-4."""
    seen = []
    actor = script.FlowMap(1, 1, 8)
    actor.embed.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for low in (1e-3, 1e-4):
        t = script.karras_grid(1281, low, 5.0)[:, None]
        actor.phi(torch.zeros(1, 1), torch.zeros(1281, 1), t, t)
    distinct = [len(inputs[0].unique(dim=0)) for inputs in seen]
    assert distinct[0] == 1281 and distinct[1] < 1281 * 0.91


def test_a_sampler_of_rising_noise_is_refused(small):
    with pytest.raises(cac.ArgumentError, match="--sigma-max is 1"):
        cac.check_args(small("run", cac, sigma_max=1.5))
    cac.check_args(small("run", cac, sigma_max=2.0))


# ---- its Diffusion-BC -------------------------------------------------------------------------


def test_diffusion_bc_is_a_flag_that_others_override():
    words = ["--env-id", "hopper-medium-v2", "--diffusion-bc"]
    args = resolved(dql, *words)
    assert (args.eta, args.num_candidates, args.grad_norm) == (0, 1, 0)
    assert (args.eval_actor, args.learning_rate, args.num_updates) == ("online", 3e-4, 2_000_000)
    args = resolved(dql, *words, "--num-candidates", "50", "--grad-norm", "9")
    assert (args.eta, args.num_candidates, args.grad_norm) == (0, 50, 9)
    args = resolved(dql, *words[:2])
    assert (args.eta, args.num_candidates, args.grad_norm) == (1, 50, 9)
    assert resolved(dql, "--env-id", "multigoal-v0", "--diffusion-bc").diffusion_bc


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small_cloning():
    """Args, networks and data of a Diffusion-BC of 8 hidden units."""
    args = dql.default_args(dataset_path="x.npz", device="cpu", diffusion_bc=True)
    args = replace(args, hidden_dim=8, batch_size=16)
    generator = torch.Generator().manual_seed(1)
    data = {"observations": torch.randn(40, 3, generator=generator)}
    data |= {"actions": torch.rand(40, 2, generator=generator) * 2 - 1, "rows": torch.arange(40)}
    torch.manual_seed(2)
    return args, dql.make_networks(args, 3, 2), data


def test_diffusion_bc_is_plain_adam_on_the_noise_loss(float64):
    """By hand: no critic, no bound of the gradient, no average in the way; the schedule anew."""
    args, nets, data = small_cloning()
    assert set(nets) == {"actor", "actor_ema"}
    optimizers = dql.make_optimizers(nets, args)
    actor = deepcopy(nets["actor"])
    adam = torch.optim.Adam(actor.parameters(), lr=3e-4)
    alpha = [math.exp(-(0.1 + 9.9 * (t - 0.5) / 5) / 5) for t in range(1, 6)]
    abar = torch.tensor(np.cumprod(alpha))[:, None]
    generator = torch.Generator().manual_seed(0)
    for update in range(1000, 1010):  # where the averaged actor moves
        inputs = dql.draw_inputs(update, data, generator, args)
        inputs["schedule"] = dql.vp_schedule(5, "cpu", torch.float64)
        dql.update_networks(nets, optimizers, data, inputs, args)
        rows, z, t = inputs["rows"], inputs["noise"], inputs["t"]
        x = abar[t].sqrt() * data["actions"][rows] + (1 - abar[t]).sqrt() * z
        predicted = actor(data["observations"][rows], x, t[:, None].double())
        adam.zero_grad()
        torch.nn.functional.mse_loss(predicted, z).backward()
        adam.step()
    for ours, theirs in zip(nets["actor"].parameters(), actor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_diffusion_bc_acts_by_one_action_of_the_actor_itself():
    args, nets, _ = small_cloning()
    with torch.no_grad():
        for parameter in nets["actor_ema"].parameters():
            parameter.add_(1)
    obs = torch.randn(7, 3)
    noise = torch.randn(1, 7, 10, generator=torch.Generator().manual_seed(3))
    slices = noise[0].view(7, 5, 2).movedim(1, 0)
    with torch.no_grad():
        expected = dql.sample_actions(nets["actor"], obs, slices, dql.vp_schedule(5))
    action = dql.make_act(nets, args, seed=3)(obs.numpy())
    np.testing.assert_allclose(action, expected.numpy(), atol=1e-6)
