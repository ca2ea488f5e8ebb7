"""sweeps/smoke.toml's four scripts for real: killed halfway, and again."""

import json
import os
import signal
import subprocess
import time

from conftest import ROOT, run_script
from sweep_runs import assert_as_undisturbed

# The first run is the longest, so that it is killed: the second has finished by then, the third is
# starting and the last one waits.
SWEEP = """
scripts = ["gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac"]
tasks = ["multigoal-v0"]
seeds = [0]

[flags]
num_updates = 60
eval_freq = 30
num_eval_episodes = 2
checkpoint_freq = 2
batch_size = 16
hidden_dim = 16
num_holdout = 20
tensorboard = false

[flags.gtp_offline]
num_updates = 300
"""


def statuses(out):
    """{run directory: what its results.json says}"""
    files = out.glob("*/*/*/*/results.json")
    return {file.parent: json.loads(file.read_text())["status"] for file in files}


def halfway(out):
    """Whether a run has finished, and one is running that has saved."""
    found = statuses(out)
    going_on = [path for path, status in found.items() if status == "running"]
    finished = len(found) - len(going_on)
    return finished >= 1 and any((path / "checkpoint.pt").exists() for path in going_on)


def test_a_sweep_that_was_killed_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """SIGKILL to sweep.py and its runs; what had finished is not touched again."""
    sweep = tmp_path / "smoke.toml"
    sweep.write_text(SWEEP)
    out = tmp_path / "out"
    words = ["run", sweep, "--workers", "2", "--out", out]
    command = run_script(ROOT / "sweep.py", *words, folder=tmp_path, start_new_session=True)
    process = subprocess.Popen(**command, stdout=subprocess.DEVNULL)
    try:
        while not halfway(out):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = statuses(out)
    finished = [path for path, status in before.items() if status == "finished"]
    written = {path: (path / "results.json").stat().st_mtime_ns for path in finished}
    assert 1 <= len(finished) < 4

    done = subprocess.run(**run_script(ROOT / "sweep.py", *words, folder=tmp_path, timeout=300))
    assert done.returncode == 0
    after = statuses(out)
    assert list(after.values()) == ["finished"] * 4
    assert written == {path: (path / "results.json").stat().st_mtime_ns for path in finished}
    logs = {path: (path / "log.txt").read_text() for path in after}
    assert {logs[path].count("$ python") for path in finished} == {1}
    assert any(" --resume " in log for log in logs.values())
    assert not list(out.glob("*/*/*/*/attempts"))
    assert_as_undisturbed(sweep, out, tmp_path / "calm", monkeypatch)
