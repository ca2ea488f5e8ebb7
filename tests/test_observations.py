"""--normalize-observations: mean and deviation of the data in the networks, raw ones outside.

And which tasks have it on, with what else a maze's defaults are in every script.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_dataset

import consistency_ac as cac
import diffusion_ql as dql
import evaluate
import export_policy
import gtp_bc as bc
import gtp_offline as gtp
import offline_tasks

FAMILY = [gtp, bc, dql, cac]
MEAN, STD = np.float32([50.0, -3.0, 0.0]), np.float32([10.0, 0.01, 1.0])


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """trained(script, **changes): six updates on observations far from standard -> results, data's
    observations."""
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args: None)

    def make(script=gtp, observations=None, **changes):
        arrays = make_dataset()
        arrays["observations"] = arrays["observations"] * STD + MEAN
        if observations is not None:
            arrays["observations"] = observations
        np.savez(tmp_path / "data.npz", **arrays)
        settings = {"run_dir": str(tmp_path / "run"), "tensorboard": False, "num_holdout": 20}
        settings |= {"num_updates": 6, "batch_size": 8, "hidden_dim": 8, "learning_rate": 0.01}
        args = script.default_args(dataset_path=str(tmp_path / "data.npz"), device="cpu")
        args = replace(args, **settings | changes)
        results = script.train(args)
        data, _, _ = script.load_data(args)
        return results, data["observations"]

    return make


def buffers(script, run):
    """(obs_mean, obs_std) of each network in a run's checkpoint."""
    nets = script.load_checkpoint(run)["nets"]
    names = {key.split(".")[0] for key in nets}
    return {name: (nets[f"{name}.obs_mean"], nets[f"{name}.obs_std"]) for name in names}


@pytest.mark.parametrize("script", FAMILY)
def test_every_network_holds_the_mean_and_deviation_of_the_data(script, trained, tmp_path):
    """Of all transitions' observations, as float64 gives them."""
    _, observations = trained(script, normalize_observations=True)
    obs = observations.double().numpy()
    found = buffers(script, tmp_path / "run")
    value = {"value"} if script is gtp else set()
    critics = set() if script is bc else {"critic", "critic_target"}
    assert found.keys() == {"actor", "actor_ema"} | critics | value
    for mean, std in found.values():
        np.testing.assert_allclose(mean, obs.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(std, obs.std(0), rtol=1e-5)


@pytest.mark.parametrize("script", FAMILY)
def test_without_it_observations_are_as_they_are(script, trained, tmp_path):
    trained(script, normalize_observations=False)
    for mean, std in buffers(script, tmp_path / "run").values():
        assert mean.tolist() == [0, 0, 0] and std.tolist() == [1, 1, 1]


@pytest.mark.parametrize("script", FAMILY)
def test_a_column_that_does_not_vary_is_not_scaled_and_said(script, trained, tmp_path, capsys):
    """Column 1 is 7 always; column 2 varies by 1e-5, which is little, but something."""
    observations = make_dataset()["observations"] * np.float32([2, 0, 1e-5]) + np.float32([0, 7, 0])
    trained(script, observations, normalize_observations=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "vary" in line]
    assert "[1]" in line
    for mean, std in buffers(script, tmp_path / "run").values():
        assert mean[1] == 7 and std[1] == 1
        assert std[2].item() == pytest.approx(1e-5, rel=0.2)
    act = script.load_policy(tmp_path / "run")
    assert np.isfinite(act(np.float32([0, 9, 0]))).all()


def test_nothing_is_said_where_every_column_varies(trained, capsys):
    trained()
    assert "vary" not in capsys.readouterr().err


def test_networks_see_standard_observations():
    """Actor, critic and V at raw observations are those without buffers at standard ones."""
    args = replace(gtp.default_args(dataset_path="x.npz", device="cpu"), hidden_dim=8)
    torch.manual_seed(0)
    nets = gtp.make_networks(args, 3, 2)
    raw = torch.randn(20, 3) * torch.from_numpy(STD) + torch.from_numpy(MEAN)
    actions = torch.rand(20, 2)
    noise = torch.randn(20, 2)
    standard = (raw - raw.mean(0)) / raw.std(0, correction=0)

    def outputs(obs):
        samples = gtp.policy_samples(nets, obs, noise, 3, args)
        return [samples, nets["critic"](obs, actions), nets["value"](obs)]

    expected = outputs(standard)
    unlike = outputs(raw)
    gtp.standardize(nets, {"observations": raw})
    for found, want, other in zip(outputs(raw), expected, unlike, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(found, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("script", [gtp, bc])
def test_a_saved_policy_takes_raw_observations(script, trained, tmp_path):
    """load_policy and the export of one run: the networks' without buffers at standard ones."""
    _, observations = trained(script)
    run = tmp_path / "run"
    state = script.load_checkpoint(run)
    args = script.saved_args(state)
    nets = script.load_networks(state, args)
    ((mean, std), *_) = buffers(script, run).values()
    for net in nets.values():
        net.obs_mean.zero_()
        net.obs_std.fill_(1)
    raw = observations[:9]
    noise = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(args.seed))
    expected = script.policy_samples(nets, (raw - mean) / std, noise, 5, args)[0].numpy()
    np.testing.assert_allclose(script.load_policy(run)(raw.numpy()), expected, atol=1e-5)
    arrays, text = export_policy.export(run)
    np.savez(tmp_path / "policy.npz", **arrays)
    namespace = {"__file__": str(tmp_path / "policy.py")}
    exec(compile(text, "policy.py", "exec"), namespace)
    exported = namespace["act"](raw.numpy(), noise[0].numpy())
    np.testing.assert_allclose(exported, expected, atol=5e-5)
    assert np.ptp(expected, axis=0).min() > 0.1


@pytest.mark.parametrize("script", FAMILY)
def test_a_run_scores_the_same_when_it_is_evaluated_again(script, trained, tmp_path):
    """evaluate.py: the energy score on held-out raw observations."""
    results, _ = trained(script, normalize_observations=True)
    row = evaluate.evaluate(evaluate.Flags(tmp_path / "run"))
    assert row["energy_score"] == pytest.approx(results["last"]["energy_score"], rel=1e-6)


def test_a_resume_goes_on_with_the_same_buffers(trained, tmp_path):
    trained()
    before = buffers(gtp, tmp_path / "run")
    gtp.train(replace(gtp.resume_args(tmp_path / "run"), num_updates=8))
    after = buffers(gtp, tmp_path / "run")
    for name, pair in before.items():
        assert all(torch.equal(old, new) for old, new in zip(pair, after[name], strict=True))


# ---- defaults --------------------------------------------------------------------------------

MAZES = {"umaze": 4_000, "medium": 6_000, "large": 12_000, "walls": 20_000}
TOYS = ["multigoal-v0", "multigoal-unequal-v0", *(f"pointmaze-{maze}-v0" for maze in MAZES)]


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("env_id", [*TOYS, "hopper-medium-v2", "antmaze-umaze-v0", ""])
def test_gtp_normalizes_observations_of_all_but_toys(script, env_id):
    """Also those of a file without a task; the baselines' code does not."""
    args = script.default_args(env_id=env_id, dataset_path="x.npz", device="cpu")
    assert args.normalize_observations == (script in (gtp, bc) and env_id not in TOYS)


@pytest.mark.parametrize("script", [gtp, bc])
@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "pointmaze-large-v0", ""])
def test_the_papers_letter_does_not_normalize(script, env_id):
    args = script.default_args(env_id, "x.npz", literal=True, device="cpu")
    assert args.normalize_observations is False


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("maze", MAZES)
def test_mazes_have_one_set_of_defaults_in_every_script(script, maze):
    """Rewards as for AntMaze, r' = 4 (r - .5)."""
    expected = {
        "num_updates": MAZES[maze],
        "num_eval_episodes": 100,
        "hidden_dim": 128,
        "tau": 0.01,
        "grad_norm": 2.0,
        "reward_scale": 4.0,
        "reward_shift": -0.5,
        "learning_rate": 3e-4,
    }
    args = script.default_args(env_id=f"pointmaze-{maze}-v0", device="cpu")
    assert {name: getattr(args, name) for name in expected} == expected
    shorter = script.default_args(f"pointmaze-{maze}-v0", device="cpu", num_updates=50)
    assert shorter.num_updates == 50
