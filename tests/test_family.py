"""What gtp_bc.py, diffusion_ql.py and consistency_ac.py have in common with gtp_offline.py."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, differences, run_script

import consistency_ac as cac
import d4rl_tasks
import diffusion_ql as dql
import gtp_bc as bc
import gtp_offline as gtp

FAMILY = [gtp, bc, dql, cac]
BASELINES = [dql, cac]
OTHERS = [bc, dql, cac]
NAMES = [script.__name__ for script in OTHERS]


@pytest.fixture
def short(dataset, tmp_path, monkeypatch):
    """short(script, name, **changes): Args of a run of 20 updates into tmp_path/name."""
    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args, **kwargs: None)

    def make(script, name, **changes):
        settings = dict(
            dataset_path=str(dataset), run_dir=str(tmp_path / name), num_updates=20, eval_freq=10,
            batch_size=16, hidden_dim=16, tensorboard=False, num_holdout=24, device="cpu",
        )  # fmt: skip
        if script in BASELINES:  # so that the averaged actor moves, and is seen to, in 20 updates
            settings |= dict(ema_start=4, ema_every=2, num_candidates=3)
        return script.Args(**(settings | changes))

    return make


def state_of(script, run_dir):
    """What a checkpoint holds, without its account of the run."""
    state = script.load_checkpoint(run_dir)
    state.pop("results")
    return state


def energy_scores(results):
    return [row["energy_score_by_steps"] for row in results["evaluations"]]


# ---- each script by itself --------------------------------------------------------------------


def test_importing_changes_nothing(tmp_path):
    """No file, no import of a sibling, no change of the process's torch and NumPy or signals."""
    code = f"""
import os, signal, sys, numpy, torch
sys.path.insert(0, {str(ROOT)!r})
def state():
    return (torch.get_num_threads(), torch.get_default_dtype(), torch.initial_seed(),
            torch.get_rng_state().tolist(), str(numpy.random.get_state()), dict(os.environ),
            [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], sys.argv, os.getcwd())
before = state()
for name in {NAMES}:
    known = set(sys.modules)
    __import__(name)
    siblings = {{"d4rl_tasks", "gtp_offline", *{NAMES}}} - {{name}}
    assert not siblings & (set(sys.modules) - known), name
assert state() == before
assert not {{"matplotlib.pyplot", "mujoco", "gymnasium"}} & set(sys.modules)
"""
    options = run_script("-c", code, folder=tmp_path, capture_output=True)
    done = subprocess.run(**options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_script_copied_alone_helps_and_trains(name, dataset, tmp_path):
    shutil.copy(ROOT / f"{name}.py", tmp_path)
    done = subprocess.run(
        **run_script(f"{name}.py", "--help", folder=tmp_path, capture_output=True)
    )
    assert done.returncode == 0 and "--num-steps" in done.stdout and "usage" in done.stdout
    size = ("--num-updates", 20, "--hidden-dim", 16, "--batch-size", 16, "--device", "cpu")
    rest = ("--no-tensorboard", "--run-dir", "run", "--dataset-path", dataset)
    options = run_script(f"{name}.py", *size, *rest, folder=tmp_path, capture_output=True)
    done = subprocess.run(**options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["status"], results["update"], results["algorithm"]) == ("finished", 20, name)
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_every_script_writes_the_same_results(short, tmp_path):
    """The baselines also what their code selects offline; losses are each algorithm's own."""
    known = {}
    for script in FAMILY:
        results = script.train(short(script, script.__name__))
        written = json.loads((tmp_path / script.__name__ / "results.json").read_text())
        assert written.keys() == results.keys()
        selected = {"selected"} & results.keys()
        assert bool(selected) == (script in BASELINES)
        known[script] = results.keys() - selected, results["evaluations"][0].keys()
        assert results["status"] == "finished" and len(results["evaluations"]) == 2
        assert all(math.isfinite(row["energy_score"]) for row in results["evaluations"])
        files = {path.name for path in (tmp_path / script.__name__).iterdir()} - {".lock"}
        assert "checkpoint.pt" in files
        known[script] += (files,)
    for script in OTHERS:
        assert known[script] == known[gtp], script.__name__


@pytest.mark.parametrize("script", OTHERS)
def test_the_same_seed_gives_the_same_run(script, short, tmp_path):
    runs = [script.train(short(script, f"run{i}", seed=i // 2)) for i in range(3)]
    states = [state_of(script, tmp_path / f"run{i}") for i in range(3)]
    assert differences(states[0], states[1]) == []
    assert energy_scores(runs[0]) == energy_scores(runs[1]) != energy_scores(runs[2])
    assert differences(states[0]["nets"], states[2]["nets"])


@pytest.mark.parametrize("script", OTHERS)
@pytest.mark.parametrize("at", [7, 13])
def test_an_interrupted_run_resumes_to_the_same_weights(script, at, short, tmp_path, monkeypatch):
    """SIGTERM during an update, then --resume: networks, optimisers and generator bit for bit."""
    whole = script.train(short(script, "whole"))
    original, count = script.update_networks, 0

    def update_networks(*arguments):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(script, "update_networks", update_networks)
    results = script.train(short(script, "cut"))
    assert results["status"] == "interrupted" and at <= results["update"] <= at + 1
    assert results["exit_code"] == 128 + signal.SIGTERM
    results = script.train(script.Args(resume=str(tmp_path / "cut"), device="cpu"))
    assert results["status"] == "finished" and count == 20
    whole_state, state = (state_of(script, tmp_path / name) for name in ("whole", "cut"))
    assert differences(whole_state, state) == []
    assert energy_scores(whole) == energy_scores(results)


@pytest.mark.parametrize("script", OTHERS)
def test_a_saved_policy_acts_as_the_trained_one(script, short, tmp_path):
    """From its checkpoint, for one observation and for several; noise from the seed alone."""
    script.train(short(script, "run"))
    acts = [script.load_policy(tmp_path / "run", seed=seed) for seed in (0, 0, 1)]
    obs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    first, second, other = (act(obs) for act in acts)
    assert first.shape == (4, 2) and np.abs(first).max() <= 1
    assert (first == second).all() and (first != other).any()
    assert acts[0](obs[0]).shape == (2,)


# ---- arguments --------------------------------------------------------------------------------


def test_gtp_bc_has_the_flags_of_gtp_offline_but_those_of_the_critic():
    names = [{field.name for field in dataclasses.fields(script.Args)} for script in (gtp, bc)]
    critic = (
        "eta max_weight max_q_backup value num_value_samples weight_critic num_candidates gamma"
    )
    assert names[0] - names[1] == {*critic.split(), "critic_learning_rate"}
    assert names[1] <= names[0]
    for name in names[1] - {"num_holdout"}:
        assert getattr(gtp.Args(), name) == getattr(bc.Args(), name), name


@pytest.mark.parametrize("script", FAMILY)
def test_every_script_trains_the_multigoal_task_by_default(script):
    """Cloning, with equally many updates for all."""
    args = script.resolve_args(script.Args(device="cpu"))
    assert (args.env_id, args.num_updates, args.learning_rate) == ("multigoal-v0", 4_000, 1e-3)
    assert getattr(args, "eta", 0) == 0 and getattr(args, "num_candidates", 1) == 1
    nets = script.make_networks(args, 2, 2)
    assert set(nets) == {"actor", "actor_ema"}
    args = script.resolve_args(script.Args(device="cpu", env_id="multigoal-unequal-v0"))
    assert (args.num_updates, args.learning_rate) == (8_000, 1e-3)
    assert getattr(args, "eta", None) == {gtp: 5.0, bc: None}.get(script, 1.0)


@pytest.mark.parametrize("script", FAMILY)
def test_every_task_has_its_row(script):
    assert script.TASKS.keys() == gtp.TASKS.keys()
    for task, row in script.TASKS.items():
        env_id = task + ("-v0" if task.startswith("antmaze") else "-v2")
        args = script.resolve_args(script.Args(device="cpu", env_id=env_id))
        assert tuple(getattr(args, name) for name in script.TASK_FIELDS) == row
        antmaze = task.startswith("antmaze")
        assert args.num_updates == (1_000_000 if antmaze else 2_000_000)
        assert (args.reward_scale, args.reward_shift) == ((4, -0.5) if antmaze else (1, 0))
        given = script.resolve_args(script.Args(device="cpu", env_id=env_id, learning_rate=0.5))
        assert given.learning_rate == 0.5


@pytest.mark.parametrize("script", BASELINES)
def test_the_baselines_act_as_their_code_does_by_default(script):
    """Fifty candidates of the online actor, also for cloning."""
    for eta in (None, 0.0):
        args = script.Args(device="cpu", env_id="hopper-medium-v2", eta=eta)
        args = script.resolve_args(args)
        assert (args.num_candidates, args.eval_actor) == (50, "online")
        assert {"critic", "critic_target"} <= set(script.make_networks(args, 3, 2))


@pytest.mark.parametrize("script", [gtp, dql, cac])
def test_plain_cloning_builds_and_trains_no_critic(script, short, tmp_path):
    results = script.train(short(script, "run", eta=0.0, num_candidates=1))
    assert results["status"] == "finished"
    state = state_of(script, tmp_path / "run")
    assert not [name for name in state["nets"] if name.startswith(("critic", "value"))]
    assert {"critic", "value"} & state.keys() == set()
    choosing = script.resolve_args(short(script, "other", eta=0.0, num_candidates=2))
    assert "critic" in script.make_networks(choosing, 3, 2)


@pytest.mark.parametrize("script", [gtp, dql, cac])
def test_a_clone_with_a_choosing_critic_acts_without_it_too(script, short, tmp_path):
    script.train(short(script, "run", eta=0.0, num_candidates=3))
    act = script.load_policy(tmp_path / "run", num_candidates=1)
    assert act(np.zeros(3)).shape == (2,) and act.args.num_candidates == 1


@pytest.mark.parametrize("script", OTHERS)
@pytest.mark.parametrize("bad", [dict(num_steps=0), dict(learning_rate=math.nan), dict(tau=2.0)])
def test_bad_values_are_refused_by_name(script, bad, short):
    with pytest.raises(ValueError, match="--" + next(iter(bad)).replace("_", "-")) as caught:
        script.train(short(script, "run", **bad))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("script", BASELINES)
def test_the_rank_of_the_offline_selection_may_be_zero(script, short):
    assert script.resolve_args(short(script, "run", top_k=0)).top_k == 0
    with pytest.raises(ValueError, match="--top-k"):
        script.resolve_args(short(script, "run", top_k=-1))


def test_checkpoints_of_another_algorithm_are_refused(short, tmp_path):
    bc.train(short(bc, "run"))
    for script in (gtp, *BASELINES):
        with pytest.raises(ValueError, match=r"gtp_bc\.py"):
            script.load_policy(tmp_path / "run")


# ---- GTP-BC is GTP with eta = 0 ---------------------------------------------------------------


@pytest.mark.parametrize("literal", [False, True])
def test_gtp_bc_trains_as_gtp_with_eta_zero_given_the_same_numbers(literal, short, dataset):
    """Bit for bit: both start from the same seed and get GTP's draws for ten updates."""
    trained = []
    for script in (gtp, bc):
        extra = {"eta": 0.0, "num_candidates": 1} if script is gtp else {}
        args = script.resolve_args(short(script, "run", literal=literal, **extra))
        draws = gtp.resolve_args(short(gtp, "run", literal=literal, eta=0.0))
        data, _, _ = script.load_data(args)
        torch.manual_seed(3)
        nets = script.make_networks(args, 3, 2)
        optimizers = {"actor": torch.optim.Adam(nets["actor"].parameters(), 3e-4)}
        generator, history = torch.Generator().manual_seed(5), []
        for update in range(10):
            inputs = gtp.draw_inputs(update, data, generator, draws)
            if script is bc:
                own = bc.draw_inputs(update, data, torch.Generator(), args)
                assert own.keys() <= inputs.keys()
                inputs = {name: inputs[name] for name in own} | {"normal": inputs["normal"][0]}
                assert all(inputs[name].shape == own[name].shape for name in own)
            history.append(script.update_networks(nets, optimizers, data, inputs, args))
        trained.append((nets.state_dict(), history))
    assert differences(dict(trained[0][0]), dict(trained[1][0])) == []
    assert differences(trained[0][1], trained[1][1]) == []
