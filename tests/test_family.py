"""What gtp_bc.py, diffusion_ql.py and consistency_ac.py have in common with gtp_offline.py."""

import json
import math
import os
import shutil
import signal
import subprocess
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from conftest import ROOT, differences, lasting, run_script, run_scripts

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc as bc
import gtp_offline as gtp

FAMILY = [gtp, bc, dql, cac]
BASELINES = [dql, cac]
OTHERS = [bc, dql, cac]
NAMES = [script.__name__ for script in OTHERS]


def state_of(script, run_dir):
    """A run's checkpoint and its results.json, less what timing and place decide."""
    results = json.loads((run_dir / "results.json").read_text())
    return lasting({"state": script.load_checkpoint(run_dir), "results": results})


def nets_of(script, run_dir):
    return script.load_checkpoint(run_dir)["nets"]


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
    siblings = {{"offline_tasks", "gtp_offline", *{NAMES}}} - {{name}}
    assert not siblings & (set(sys.modules) - known), name
assert state() == before
assert not {{"matplotlib.pyplot", "mujoco", "gymnasium"}} & set(sys.modules)
"""
    options = run_script("-c", code, folder=tmp_path, capture_output=True)
    done = subprocess.run(**options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


ALONE = """
import sys
import {name} as script

dataset = sys.argv[1]

def run(*words):
    sys.argv = ["{name}.py", *words]
    try:
        code = script.main()
    except SystemExit as end:
        code = end.code
    print("== exit code", code, flush=True)

size = ["--hidden-dim", "16", "--batch-size", "16", "--device", "cpu", "--no-tensorboard"]
run("--help")
run("--env-id", "hopper-medium-v2")
run("--dataset-path", dataset, "--num-updates", "20", "--run-dir", "run", *size)
run("--resume", "run", "--num-updates", "30")
assert "offline_tasks" not in sys.modules
print(script.load_policy("run")([[0.0, 0.0, 0.0]]).shape)
"""


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    """{name: (its folder, its process)} of every script, copied into a folder of its own."""
    names = [script.__name__ for script in FAMILY]
    folders = [tmp_path_factory.mktemp(name) for name in names]
    commands = []
    for name, folder in zip(names, folders, strict=True):
        shutil.copy(ROOT / f"{name}.py", folder)
        options = {"folder": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        code = ALONE.format(name=name)
        commands.append(run_script("-c", code, dataset, timeout=300, **options))
    return dict(zip(names, zip(folders, run_scripts(commands), strict=True), strict=True))


@pytest.mark.parametrize("name", [script.__name__ for script in FAMILY])
def test_a_script_copied_alone_helps_trains_and_resumes(name, alone):
    """Without offline_tasks beside it; an env id is refused with the reason and a remedy."""
    folder, done = alone[name]
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    helped, refused, trained, resumed, acted = done.stdout.split("== exit code ")
    assert all(flag in helped for flag in ("--env-id", "--dataset-path", "--num-steps"))
    assert refused.startswith("0\nerror: ") and len(refused.splitlines()) == 2
    assert "offline_tasks" in refused and "--dataset-path" in refused
    assert trained.startswith("2\n") and resumed.startswith("0\n") and acted == "0\n(1, 2)\n"
    results = json.loads((folder / "run" / "results.json").read_text())
    assert (results["status"], results["update"], results["algorithm"]) == ("finished", 30, name)
    files = {path.name for path in (folder / "run").iterdir()} - {".lock"}
    assert files == {"checkpoint.pt", "checkpoint.previous.pt", "results.json"}


def test_every_script_writes_the_same_results(small, tmp_path):
    """The baselines also what their code selects offline; losses are each algorithm's own."""
    known = {}
    for script in FAMILY:
        results = script.train(small(script.__name__, script))
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
def test_the_same_seed_gives_the_same_run(script, small, tmp_path):
    runs = [script.train(small(f"run{i}", script, seed=i // 2)) for i in range(3)]
    states = [state_of(script, tmp_path / f"run{i}") for i in range(3)]
    assert differences(states[0], states[1]) == []
    assert energy_scores(runs[0]) == energy_scores(runs[1]) != energy_scores(runs[2])
    assert differences(nets_of(script, tmp_path / "run0"), nets_of(script, tmp_path / "run2"))


@pytest.mark.parametrize("script", OTHERS)
@pytest.mark.parametrize("at", [7, 13])
def test_an_interrupted_run_resumes_to_the_same_weights(script, at, small, tmp_path, monkeypatch):
    """SIGTERM during an update, then --resume: networks, optimisers, generator, evaluations, mean
    losses and what is selected by them, bit for bit."""
    whole = script.train(small("whole", script))
    original = script.update_networks
    calls = []

    def update_networks(*arguments):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(script, "update_networks", update_networks)
    results = script.train(small("cut", script))
    assert results["status"] == "interrupted" and at <= results["update"] <= at + 1
    assert results["exit_code"] == 128 + signal.SIGTERM
    results = script.train(script.resume_args(tmp_path / "cut"))
    assert results["status"] == "finished" and len(calls) == 20
    whole_state, state = (state_of(script, tmp_path / name) for name in ("whole", "cut"))
    assert differences(whole_state, state) == []
    assert differences(lasting(whole), lasting(results)) == []


@pytest.mark.parametrize("script", FAMILY)
def test_a_policy_takes_what_the_flags_take_and_no_other_types(script, small, tmp_path):
    script.train(small(script=script, num_updates=1))
    script.load_policy(tmp_path / "run", device="auto")
    name = "num_candidates" if script is dql else "num_steps"
    for value in (1.5, "2", 2.0):
        with pytest.raises(script.ArgumentError, match="give int"):
            script.load_policy(tmp_path / "run", **{name: value})


@pytest.mark.parametrize("script", OTHERS)
def test_a_saved_policy_acts_as_the_trained_one(script, small, tmp_path):
    """From its checkpoint, for one observation and for several; noise from the seed alone."""
    script.train(small("run", script))
    acts = [script.load_policy(tmp_path / "run", seed=seed) for seed in (0, 0, 1)]
    obs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    first, second, other = (act(obs) for act in acts)
    assert first.shape == (4, 2) and np.abs(first).max() <= 1
    assert (first == second).all() and (first != other).any()
    assert acts[0](obs[0]).shape == (2,)


# ---- arguments --------------------------------------------------------------------------------


def test_gtp_bc_has_the_flags_of_gtp_offline_but_those_of_the_critic():
    names = [{field.name for field in fields(script.Args)} for script in (gtp, bc)]
    critic = {
        "critic_learning_rate",
        "gamma",
        "max_q_backup",
        "target_steps",
        "eta",
        "truncate_advantage",
        "std_floor",
        "max_weight",
        "weight_normalization",
        "td_target",
        "expectile",
        "value",
        "num_value_samples",
        "weight_critic",
        "critic_norm",
        "num_candidates",
    }
    assert names[0] - names[1] == critic
    assert names[1] <= names[0]
    for name in names[1] - {"num_holdout"}:
        assert getattr(gtp.Args(), name) == getattr(bc.Args(), name), name


@pytest.mark.parametrize("script", FAMILY)
def test_every_script_clones_the_multigoal_task(script):
    """With equally many updates for all; all but gtp_offline by default."""
    args = script.default_args("multigoal-v0", device="cpu")
    assert (script.default_args(device="cpu") == args) == (script is not gtp)
    assert (args.env_id, args.num_updates, args.learning_rate) == ("multigoal-v0", 4_000, 1e-3)
    assert getattr(args, "eta", 0) == 0 and getattr(args, "num_candidates", 1) == 1
    nets = script.make_networks(args, 2, 2)
    assert set(nets) == {"actor", "actor_ema"}
    args = script.default_args("multigoal-unequal-v0", device="cpu")
    assert (args.num_updates, args.learning_rate) == (8_000, 1e-3)
    assert getattr(args, "eta", None) == {gtp: 5.0, bc: None}.get(script, 1.0)


@pytest.mark.parametrize("script", FAMILY)
def test_every_task_has_its_row(script):
    assert script.TASKS.keys() == gtp.TASKS.keys()
    for task, row in script.TASKS.items():
        env_id = task + ("-v0" if task.startswith("antmaze") else "-v2")
        args = script.default_args(env_id, device="cpu")
        assert tuple(getattr(args, name) for name in script.TASK_FIELDS) == row
        antmaze = task.startswith("antmaze")
        if "/" not in task:
            assert args.num_updates == (1_000_000 if antmaze else 2_000_000)
        assert (args.reward_scale, args.reward_shift) == ((4, -0.5) if antmaze else (1, 0))
        given = script.parse_args(["--env-id", env_id, "--learning-rate", "0.5"])
        assert given == replace(args, learning_rate=0.5, device=given.device)


@pytest.mark.parametrize("script", BASELINES)
def test_the_baselines_act_as_their_code_does_by_default(script):
    """Fifty candidates of the online actor, also for cloning."""
    default = script.default_args("hopper-medium-v2", device="cpu")
    for args in (default, replace(default, eta=0.0)):
        assert (args.num_candidates, args.eval_actor) == (50, "online")
        assert {"critic", "critic_target"} <= set(script.make_networks(args, 3, 2))


@pytest.mark.parametrize("script", [gtp, dql, cac])
def test_plain_cloning_builds_and_trains_no_critic(script, small, tmp_path):
    results = script.train(small("run", script, eta=0.0, num_candidates=1))
    assert results["status"] == "finished"
    state = script.load_checkpoint(tmp_path / "run")
    assert not [name for name in state["nets"] if name.startswith(("critic", "value"))]
    assert state["optimizers"].keys() == {"actor"}
    choosing = small("other", script, eta=0.0, num_candidates=2)
    assert "critic" in script.make_networks(choosing, 3, 2)


@pytest.mark.parametrize("script", [gtp, dql, cac])
def test_a_clone_with_a_choosing_critic_acts_without_it_too(script, small, tmp_path):
    """Its actions are then the first proposals, which no critic has seen."""
    script.train(small("run", script, eta=0.0, num_candidates=3))
    act = script.load_policy(tmp_path / "run", num_candidates=1)
    state = script.load_checkpoint(tmp_path / "run")
    args = replace(script.saved_args(state), num_candidates=1)
    nets = script.load_networks(state, args)
    assert not [name for name in nets if name.startswith("critic")]
    obs = torch.linspace(-1, 1, 12).reshape(4, 3)
    noise = torch.randn(1, 4, nets["actor"].noise_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (expected,) = script.policy_samples(nets, obs, noise, args.num_steps, args)
    assert np.array_equal(act(obs.numpy()), expected.numpy())


@pytest.mark.parametrize("script", OTHERS)
@pytest.mark.parametrize("bad", [dict(num_steps=0), dict(learning_rate=math.nan), dict(tau=2.0)])
def test_bad_values_are_refused_by_name(script, bad, small):
    with pytest.raises(script.ArgumentError, match="--" + next(iter(bad)).replace("_", "-")):
        script.train(small("run", script, **bad))


@pytest.mark.parametrize("script", BASELINES)
def test_the_rank_of_the_offline_selection_may_be_zero(script, small):
    script.check_args(small("run", script, top_k=0))
    with pytest.raises(script.ArgumentError, match="--top-k"):
        script.check_args(small("run", script, top_k=-1))


def test_checkpoints_of_another_algorithm_are_refused(small, tmp_path):
    bc.train(small("run", bc))
    for script in (gtp, *BASELINES):
        with pytest.raises(script.InputError, match=r"gtp_bc\.py"):
            script.load_policy(tmp_path / "run")


# ---- GTP-BC is GTP with eta = 0 ---------------------------------------------------------------


@pytest.mark.parametrize("literal", [False, True])
def test_gtp_bc_trains_as_gtp_with_eta_zero_given_the_same_numbers(literal, small, dataset):
    """Bit for bit: both start from the same seed and get GTP's draws for ten updates."""
    trained = []
    for script in (gtp, bc):
        extra = {"eta": 0.0} if script is gtp else {}
        letter = script.LITERAL | {"literal": True} if literal else {}
        args = small("run", script, **letter, **extra)
        letter = gtp.LITERAL | {"literal": True} if literal else {}
        draws = small("run", gtp, **letter, eta=0.0)
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
