"""benchmarks/: what speed.py compares, and the commands of gpu.py."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from conftest import ROOT, run_script

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu
import speed

import gtp_offline

QUICK = speed.Options(rounds=1, slice=1, eager=True, obs_dim=3, action_dim=2)


def test_a_ratio_is_the_median_over_the_rounds():
    """2, 4 and .5 times as fast in three rounds."""
    assert speed.median_ratio([2.0, 8.0, 3.0], [1.0, 2.0, 6.0]) == 2.0


def test_every_other_round_runs_backwards():
    calls = []
    runners = {name: lambda k, name=name: calls.append((name, k)) for name in "ab"}
    rates = speed.race(runners, replace(QUICK, rounds=2, slice=2), float("inf"))
    assert calls == [(n, k) for n, k in zip("aabbbbaa", (5, 6, 5, 6, 7, 8, 7, 8), strict=True)]
    assert [len(values) for values in rates.values()] == [2, 2]


def test_against_a_checkout_has_a_ratio_for_every_script(tmp_path, monkeypatch, capsys):
    flags = ["--eager", "--rounds", "1", "--slice", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["speed.py", *flags, "--against", str(ROOT)])
    assert speed.main() == 0
    rows = json.loads((tmp_path / "against.json").read_text())["against"]
    assert [row["name"] for row in rows] == [f"{name}, eager" for name in speed.SCRIPTS]
    assert all(row["updates_per_second"] > 0 and row["ratio"] > 0 for row in rows)
    assert "| gtp_bc, eager |" in capsys.readouterr().out


def test_a_script_of_another_checkout_stands_beside_this_one(tmp_path):
    text = (ROOT / "gtp_bc.py").read_text()
    (tmp_path / "gtp_bc.py").write_text(text + "\nTASKS = {}\n")
    here, there = (speed.load_script("gtp_bc", folder) for folder in (ROOT, tmp_path))
    assert there.TASKS == {} and speed.TASK in here.TASKS
    assert here.Args is not there.Args


def test_an_older_checkout_resolves_its_arguments():
    """Before default_args: a module with resolve_args, and optimizers made here."""

    @dataclass
    class Args:
        dataset_path: str = ""
        device: str = ""
        num_updates: int = 0
        learning_rate: float = 0.0
        grad_norm: float = 0.0

    older = SimpleNamespace(
        TASK_FIELDS=("learning_rate", "eta", "grad_norm"),
        TASKS={speed.TASK: (3e-4, 5.0, 7.0)},
        Args=Args,
        resolve_args=lambda args: ("resolved", args),
    )
    word, args = speed.make_args(older, "cpu", num_updates=9)
    assert word == "resolved" and args == Args("none", "cpu", 9, 3e-4, 7.0)
    now = speed.make_args(gtp_offline, "cpu")
    nets = gtp_offline.make_networks(now, 3, 2)
    made = speed.make_optimizers(older, nets, now)
    usual = gtp_offline.make_optimizers(nets, now)
    assert made.keys() == usual.keys()
    assert all(made[name].defaults["lr"] == usual[name].defaults["lr"] for name in made)


def test_the_plain_loop_learns():
    args = speed.make_args(gtp_offline, "cpu")
    data = speed.random_data(QUICK, rows=400)
    del data["rows"]
    loop = speed.PlainLoop(data, args, 3, 2)
    losses = [loop.update(k)[1] for k in range(8)]  # of V
    assert all(0 <= loss < 100 for loss in losses) and losses[0] != losses[-1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--minutes", "0"], "--minutes is 0.0; it must be above 0"),
        (["--obs-dim", "0"], "--obs-dim is 0"),
        (["--action-dim", "-1"], "--action-dim is -1"),
        (["--against", "nowhere"], "--against nowhere holds no gtp_offline.py"),
        (["--against", ".", "--processes", "2"], "--against does not measure --processes"),
        (["--device", "cuda:99"], "cuda:99 is not to be had"),
    ],
)
def test_speed_refuses_in_one_line(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", *flags, "--out", str(tmp_path / "out")])
    assert speed.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "out").exists()


def test_gpus_commands_are_the_scripts(tmp_path):
    """A run is begun with arguments that the script takes, and continued where it has begun."""
    file = tmp_path / "data.npz"
    file.touch()
    task = "hopper-medium-expert-v2"
    options = gpu.Options((f"{task}={file}",), device="cpu", compile=False, out=tmp_path)
    commands = gpu.trainings(options)
    assert [*commands] == [f"{task}__{script}" for script in gpu.SCRIPTS]
    _, script, *flags = commands[f"{task}__gtp_offline"]
    assert script == str(ROOT / "gtp_offline.py")
    args = gtp_offline.parse_args(flags)
    assert (args.env_id, args.dataset_path, args.eval_freq) == (task, str(file), 10_000)
    run_dir = tmp_path / f"{task}__gtp_offline"
    run_dir.mkdir()
    (run_dir / "checkpoint.pt").touch()
    again = gpu.trainings(options)[f"{task}__gtp_offline"]
    assert again[2:] == ["--resume", str(run_dir)]


@pytest.mark.parametrize(
    ("name", "had"),
    [("dataset_path", "/other.npz"), ("num_updates", 20), ("device", "cuda"), ("compile", True)],
)
def test_gpu_goes_on_with_no_run_of_another_file_or_options(tmp_path, name, had):
    file = tmp_path / "data.npz"
    file.touch()
    options = gpu.Options((f"Pendulum-v1={file}",), device="cpu", compile=False, out=tmp_path)
    run_dir = tmp_path / "Pendulum-v1__gtp_offline"
    run_dir.mkdir()
    (run_dir / "checkpoint.pt").touch()
    begun = {"dataset_path": str(file), "num_updates": options.num_updates, "device": "cpu"}
    begun |= {"compile": False, "cuda_graphs": False}
    (run_dir / "results.json").write_text(json.dumps({"args": begun}))
    assert "--resume" in gpu.trainings(options)["Pendulum-v1__gtp_offline"]
    (run_dir / "results.json").write_text(json.dumps({"args": begun | {name: had}}))
    with pytest.raises(ValueError, match=f"is a run of {name} {had}, not .*; give another --out"):
        gpu.trainings(options)


def test_gpu_names_a_folder_by_any_task_and_refuses_a_task_twice(tmp_path):
    file = tmp_path / "data.npz"
    file.touch()
    pair = f"mujoco/hopper/medium-v0={file}"
    names = [f"mujoco-hopper-medium-v0__{script}" for script in gpu.SCRIPTS]
    assert [*gpu.trainings(gpu.Options((pair,), out=tmp_path))] == names
    with pytest.raises(ValueError, match="mujoco/hopper/medium-v0 is named twice; give each"):
        gpu.trainings(gpu.Options((pair, pair), out=tmp_path))


def test_gpu_refuses_a_file_that_is_absent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "task=absent", "--out", str(tmp_path / "out")])
    assert gpu.main() == 1
    assert "task=absent: give TASK=FILE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_scripts_run_from_any_folder(tmp_path):
    """Without the repository on the path, from a folder outside."""
    files = [*(ROOT / "ablations").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    names = sorted(file.stem for file in files)
    loads = "; ".join(f"import {name}" for name in names)
    folders = [str(ROOT / "ablations"), str(ROOT / "benchmarks")]
    script = tmp_path / "all.py"
    script.write_text(f"import sys; sys.path += {folders}; {loads}; print(len(sys.modules))")
    done = subprocess.run(**run_script(script, folder=tmp_path, capture_output=True))
    assert done.returncode == 0, done.stderr


def test_arithmetic_is_counted_and_the_limit_is_a_product_of_the_hidden_layers():
    """A product of (256, 256) by (256, 256) takes 2 * 256^3; an update with two steps of the
    sampler in its TD target takes 3 of 5 of the sampler's passes less than one with five."""
    data = speed.random_data(QUICK, rows=400)
    runners = {speed.PEAK: speed.products(QUICK)}
    for title in ("gtp_bc", "gtp_offline, Eq. 16", "gtp_offline, Eq. 16, --target-steps 2"):
        name, changes = speed.CASES[title]
        module = speed.load_script(name, ROOT)
        args = speed.make_args(module, "cpu", **changes)
        runners[title] = speed.contestant(module, args, data, 3, 2)
    peak, cloning, five, two = speed.warm_up(runners, float("inf")).values()
    assert peak["gigaflop"] == pytest.approx(speed.PRODUCTS * 2 * 256**3 / 1e9)
    embedding = 2 * (16 * 32 + 32 * 16)  # of one row of times
    layers = 256 * ((2 + 32 + 3) * 256 + 2 * 256**2 + 256 * 2)
    one_pass = 2 * (embedding + layers) / 1e9
    assert five["gigaflop"] - two["gigaflop"] == pytest.approx(3 * one_pass, rel=1e-6)
    assert one_pass < cloning["gigaflop"] < two["gigaflop"]


def test_runs_side_by_side_add_up(monkeypatch):
    """One alone, then two; what they made together is the sum of their updates per second."""
    commands = []

    class Process:
        def __init__(self, command):
            commands.append(command)

        def wait(self):
            gtp_offline.train(gtp_offline.parse_args(commands.pop(0)[2:]))
            return 0

    monkeypatch.setattr(speed, "subprocess", SimpleNamespace(Popen=Process))
    one, two = speed.measure_processes(replace(QUICK, processes=2), num_updates=2)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["updates_per_second"] > 0 and two["updates_per_second"] > 0


def test_a_run_side_by_side_that_fails_is_said(monkeypatch):
    failing = SimpleNamespace(wait=lambda: 1)
    monkeypatch.setattr(speed, "subprocess", SimpleNamespace(Popen=lambda command: failing))
    with pytest.raises(ValueError, match=r"gtp_offline.py ended with exit codes \[1\]"):
        speed.measure_processes(replace(QUICK, processes=2))


def test_eager_means_eager_also_on_a_card():
    """Where a long run would be compiled by default."""
    ways = speed.modes(replace(QUICK, device="cuda", eager=False))
    assert ways["eager"] == {"compile": False, "cuda_graphs": False}
    assert ways["compiled, bf16"] == {"compile": True, "cuda_graphs": False, "bf16": True}
    assert ways["CUDA graphs"] == {"compile": True, "cuda_graphs": True}
    against = speed.modes(replace(QUICK, against="elsewhere", eager=False))
    assert list(against) == ["eager", "compiled"]
