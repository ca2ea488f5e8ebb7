"""ablations/multigoal.py: the numbers of a run, and the smoke test."""

import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))

import experiment
import multigoal


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
