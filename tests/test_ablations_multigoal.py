"""ablations/multigoal.py: the smoke test."""

import json
import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))

import multigoal


def test_quick_compares_the_four_policies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["multigoal.py", "--quick", "--out", str(tmp_path)])
    assert multigoal.main() == 0
    table = json.loads((tmp_path / "multigoal.json").read_text())
    assert [*table] == [*multigoal.POLICIES]
    for row in table.values():
        assert abs(sum(row["goal_fractions"]) + row["reaches_none"] - 1) < 1e-9
        assert row["num_updates"] == 300 and row["seeds"] == [0]
    assert (tmp_path / "multigoal.png").stat().st_size > 10_000
    assert "none" in capsys.readouterr().out


def test_no_seed_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["multigoal.py", "--seeds", "0", "--out", str(tmp_path)])
    assert multigoal.main() == 1
    assert "--seeds is 0" in capsys.readouterr().err
