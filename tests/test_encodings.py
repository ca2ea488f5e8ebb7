"""A terminal of few letters, and names of files that it has not: nothing ends in a UnicodeError."""

import dataclasses
import importlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_dataset

from offline_tasks.files import take_any_letter

SWEEP = """
scripts = ["gtp_bc"]
tasks = ["multigoal-v0"]
seeds = [0]
final_episodes = 4
[flags]
num_updates = 4
hidden_dim = 8
tensorboard = false
"""
RUN = "sü/gtp_bc/multigoal-v0/default/0"
SLURM = ["--partition", "p", "--time", "1", "--dry-run"]
COMMANDS = [
    ["gtp_offline.py", "--help"],
    ["sweep.py", "--help"],
    ["sweep.py", "run", "ü.toml", "--out", "sü", "--dry-run"],
    ["sweep.py", "slurm", "ü.toml", "--out", "sü", *SLURM],
    ["sweep.py", "run", "ü.toml", "--out", "sü", "--workers", "1"],
    ["sweep.py", "status", "ü.toml", "--out", "sü"],
    ["evaluate.py", RUN],
    ["export_policy.py", RUN, "pü"],
    ["report.py", "sü", "--out", "rü"],
    ["diffusion_ql.py", "--dataset-path", "dü.npz", "--no-tensorboard", "--num-updates", "2"],
]


@pytest.fixture
def told(tmp_path, monkeypatch):
    """told(program, *words): what its main() writes to a stdout of ASCII, in tmp_path. The programs
    share this process, each with a stdout of its own; what sweep.py starts has ASCII, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "ä"))

    def run(program, *words):
        raw = io.BytesIO()
        with monkeypatch.context() as patch, io.TextIOWrapper(raw, "ascii") as stdout:
            patch.setattr(sys, "argv", [program, *words])
            patch.setattr(sys, "stdout", stdout)
            try:
                code = importlib.import_module(Path(program).stem).main()
            except SystemExit as end:  # of --help
                code = end.code
            stdout.flush()
            assert not code, (program, words)
            return raw.getvalue().decode()

    return run


def test_no_command_ends_where_stdout_lacks_a_letter(tmp_path, told):
    (tmp_path / "ü.toml").write_text(SWEEP)
    np.savez(tmp_path / "dü.npz", **make_dataset())
    said = {}
    for program, *words in COMMANDS:
        said[program, words[0]] = told(program, *words)
    for command in [("evaluate.py", RUN), ("report.py", "sü"), ("sweep.py", "run")]:
        assert "\\xfc" in said[command]
    assert "/d\\xfc.npz: 234 transitions" in said["diffusion_ql.py", "--dataset-path"]


def test_a_name_of_bytes_that_are_no_text_is_reported(tmp_path, told):
    """As in Latin-1; a report is UTF-8."""
    folder = os.fsencode(tmp_path) + b"/s\xe4"
    os.mkdir(folder)
    (tmp_path / "s.toml").write_text(SWEEP)
    for command in ["run", "slurm"]:
        more = ["--workers", "1"] if command == "run" else SLURM
        told("sweep.py", command, "s.toml", "--out", os.fsdecode(folder), *more)
    told("report.py", os.fsdecode(folder), "--out", "r")
    assert "s\\udce4" in (tmp_path / "r" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_stdout_takes_any_letter(encoding, monkeypatch):
    """Also a byte of a file's name that is no letter at all."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    take_any_letter()
    print("ü ± \udce4", end="", flush=True)
    assert raw.getvalue() == "ü ± \udce4".encode(encoding, "backslashreplace")


def test_a_table_of_an_ablation_is_printed(monkeypatch):
    """Its cells have a ±."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    monkeypatch.syspath_prepend(str(ROOT / "ablations"))
    experiment = importlib.import_module("experiment")
    options = dataclasses.make_dataclass("Options", [])
    assert experiment.main(lambda options: print("1 ± 2", flush=True), options, argv=[]) == 0
    assert raw.getvalue() == b"1 \\xb1 2\n"


def test_another_stdout_stays_as_it_is(monkeypatch):
    """One in the memory, as a notebook's is, and none."""
    for stdout in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stdout)
        take_any_letter()
