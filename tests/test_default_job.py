"""The README's first command: what it reaches, and that cloning cannot (minutes: pytest -m slow)."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, run_script


def success(script, folder, *flags):
    """Per cent of the last evaluation's episodes at the goal, of a run in a fresh process."""
    run = run_script(ROOT / script, "--run-dir", folder / "run", *flags, folder=folder)
    subprocess.run(**run, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    last = json.loads((folder / "run" / "results.json").read_text())["last"]
    return last["normalized_score"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_job_solves_the_maze(seed, tmp_path):
    assert success("gtp_offline.py", tmp_path, "--seed", seed) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cloning_does_not_solve_the_maze(seed, tmp_path):
    """The same job without weights and without a choice by Q."""
    flags = ("--eta", 0, "--num-candidates", 1, "--seed", seed)
    assert success("gtp_offline.py", tmp_path, *flags) <= 10
