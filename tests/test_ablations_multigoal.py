"""ablations/multigoal.py: the numbers of a run, and the smoke test."""

import json
import os
import signal
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))

import experiment
import multigoal

import gtp_offline


def call(*argv):
    return experiment.main(multigoal.run, multigoal.Arguments, [*map(str, argv)])


def results(seed, goals, run_dir):
    args = {"num_steps": 5, "num_eval_episodes": 40, "run_dir": run_dir}
    last = {"goal_fractions": goals, "energy_score": 0.5 + seed}
    timing = {"milliseconds_per_action": 0.25, "updates_per_second": 100.0}
    return {"seed": seed, "num_updates": 300, "args": args, "last": last} | timing


def test_the_share_that_reaches_none_is_what_the_goals_leave():
    """.7 of one seed's episodes and .4 of the other's reach a goal, so .45 on average do not."""
    runs = [results(0, [0.4, 0.1, 0.1, 0.1], "a"), results(1, [0.2, 0.1, 0.1, 0.0], "b")]
    row = multigoal.summary(runs)
    assert row["goal_fractions"] == pytest.approx([0.3, 0.1, 0.1, 0.05])
    assert row["goal_fractions_std"] == pytest.approx([0.1, 0, 0, 0.05])
    assert row["reaches_none"] == pytest.approx(0.45)
    assert (row["energy_score"], row["milliseconds_per_action"]) == (1.0, 0.25)
    assert (row["seeds"], row["run_dirs"]) == ([0, 1], ["a", "b"])


def test_quick_compares_the_four_policies(tmp_path, monkeypatch, capsys):
    """The table holds what results.json of each run says, and the same command trains no more."""
    monkeypatch.setattr("offline_tasks.plot_run", lambda *given, **named: None)
    command = "--quick", "--num-updates", 8, "--out", tmp_path
    assert call(*command) == 0
    table = json.loads((tmp_path / "multigoal.json").read_text())
    assert [*table] == [*multigoal.POLICIES]
    for name, row in table.items():
        saved = json.loads((tmp_path / f"{name}__0__8__quick" / "results.json").read_text())
        assert row["goal_fractions"] == saved["last"]["goal_fractions"]
        missed = 1 - sum(saved["last"]["goal_fractions"])
        assert row["reaches_none"] == pytest.approx(missed)
        assert saved["algorithm"] == name and saved["args"].get("eta", 0) == 0
        assert row["num_updates"] == saved["update"] == 8 and row["seeds"] == [0]
    assert len({tuple(row["goal_fractions"]) for row in table.values()}) > 1
    assert (tmp_path / "multigoal.png").stat().st_size > 10_000
    assert "none" in capsys.readouterr().out
    for name in multigoal.POLICIES:
        monkeypatch.setattr(f"{name}.train", lambda args: pytest.fail("trained again"))
    assert call(*command) == 0
    assert json.loads((tmp_path / "multigoal.json").read_text()) == table


def test_no_seed_is_refused(tmp_path, capsys):
    assert call("--seeds", "0", "--out", tmp_path) == 2
    assert "--seeds is 0" in capsys.readouterr().err


@pytest.fixture
def gtp_alone(monkeypatch):
    """One policy of the four, without pictures; the flags of a run of eight updates."""
    monkeypatch.setattr("offline_tasks.plot_run", lambda *given, **named: None)
    monkeypatch.setattr(multigoal, "POLICIES", {"gtp_offline": "GTP"})
    return "--quick", "--num-updates", 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(number, gtp_alone, tmp_path, monkeypatch, capsys):
    """130 or 143, and the command that goes on is its own, to the end of an undisturbed run."""
    consistency_loss = gtp_offline.consistency_loss

    def interrupting(*given, **named):
        os.kill(os.getpid(), number)
        return consistency_loss(*given, **named)

    monkeypatch.setattr(gtp_offline, "consistency_loss", interrupting)
    assert call(*gtp_alone, "--out", tmp_path / "a") == 128 + number
    shown = capsys.readouterr()
    (file,) = tmp_path.glob("a/*/results.json")
    saved = json.loads(file.read_text())
    assert f"interrupted; go on with: {saved['command']}" in shown.out
    assert "--resume" not in shown.out and "the same command goes on from there" in shown.err
    assert (saved["update"], saved["variant"]) == (1, "")  # a run like any other of its script
    monkeypatch.setattr(gtp_offline, "consistency_loss", consistency_loss)
    for out in ("a", "b"):
        assert call(*gtp_alone, "--out", tmp_path / out) == 0
    a, b = (json.loads((tmp_path / out / "multigoal.json").read_text()) for out in ("a", "b"))
    assert a["gtp_offline"]["energy_score"] == b["gtp_offline"]["energy_score"]


def test_what_is_there_is_used_for_the_same_arguments_alone(gtp_alone, tmp_path, capsys):
    """Also by a checkpoint without results.json, the previous one alone, or damaged results."""
    command = *gtp_alone, "--out", tmp_path
    assert call(*command) == 0
    (file,) = tmp_path.glob("*/results.json")
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"args": whole["args"] | {"lambda_flow": 3.0}}))
    assert call(*command) == 1
    assert f"{file.parent} was run with --lambda-flow 3.0; remove it" in capsys.readouterr().err
    file.write_text("{")
    assert call(*command) == 1
    assert f"{file} cannot be read" in capsys.readouterr().err
    file.unlink()
    checkpoint = file.with_name("checkpoint.pt")
    checkpoint.rename(file.with_name("checkpoint.previous.pt"))
    assert call(*command) == 0
    assert json.loads(file.read_text())["last"] == whole["last"]


def test_a_run_that_diverged_is_refused_with_the_remedy(gtp_alone, tmp_path, capsys):
    command = *gtp_alone, "--out", tmp_path
    assert call(*command) == 0
    (file,) = tmp_path.glob("*/results.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "diverged"}))
    assert call(*command) == 1
    assert f"{file.parent} diverged; remove it and give" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["diverged", "other", "lost"])
def test_the_last_folder_is_refused_before_the_first_run(
    state, gtp_alone, tmp_path, monkeypatch, capsys
):
    command = *gtp_alone, "--out", tmp_path
    assert call(*command) == 0
    (file,) = tmp_path.glob("*/results.json")
    results = json.loads(file.read_text())
    if state == "diverged":
        results["status"] = "diverged"
    if state == "other":
        results["args"]["tau"] = 0.25
    if state == "lost":
        file.with_name("checkpoint.pt").unlink()
    file.write_text(json.dumps(results))
    monkeypatch.setattr(multigoal, "POLICIES", {"gtp_bc": "GTP-BC", "gtp_offline": "GTP"})
    monkeypatch.setattr("gtp_bc.train", lambda args: pytest.fail("trained"))
    capsys.readouterr()
    assert call(*command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file.parent} ") and "remove it" in line
