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
        (["--against", "nowhere"], "--against nowhere holds no gtp_offline.py"),
        (["--device", "cuda:99"], "cuda:99 is not to be had"),
    ],
)
def test_speed_refuses_in_one_line(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", *flags, "--out", str(tmp_path / "out")])
    assert speed.main() == 1
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
