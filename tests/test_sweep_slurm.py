"""sweep.py on a real Slurm: an array, a preemption, a time limit; every run ends as undisturbed."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import slurm_cluster
from conftest import ROOT, make_dataset
from slurm_cluster import wait_for
from sweep_runs import assert_as_undisturbed

WHY_NOT = slurm_cluster.why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

# A slow run sleeps for 50 s in its evaluations, in which it is preempted or its time is up.
SWEEP = """
scripts = ["gtp_bc"]
tasks = ["slow_env:Slow-v0"]
seeds = [0, 1]

[flags]
num_updates = 40
eval_freq = 2
num_eval_episodes = 1
checkpoint_freq = 2
batch_size = 8
hidden_dim = 8
num_holdout = 8
tensorboard = false

[variants.slow]

[variants.toy]
scripts = ["gtp_offline", "diffusion_ql", "consistency_ac"]
tasks = ["multigoal-v0"]
seeds = [2]

[data]
"slow_env:Slow-v0" = "tiny.npz"
"""
SLOW = [f"gtp_bc/slow_env-Slow-v0/slow/{seed}" for seed in (0, 1)]


@pytest.fixture
def slurm():
    """The cluster's folder, and a function that runs a command where the cluster is."""
    with slurm_cluster.cluster() as folder:
        env = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "SLOW_SECONDS": "2.5"}
        env["PYTHONPATH"] = str(ROOT / "tests")

        def call(*words):
            return subprocess.run(words, capture_output=True, text=True, env=env, timeout=60)

        yield folder, call


def sweep_command(command, folder, *words):
    sweep = [sys.executable, str(ROOT / "sweep.py"), command, str(folder / "some.toml")]
    return [*sweep, "--out", str(folder / "out"), "--data", str(folder), *words]


def reach_limit(call, job, log):
    """Shorten a running job's time so that it is soon up, and when it is, give it enough."""
    elapsed = call("squeue", "-h", "-j", job, "-o", "%M").stdout.split(":")
    limit = f"TimeLimit={int(elapsed[-2]) + 2}"
    assert call("scontrol", "update", f"JobId={job}", limit).returncode == 0
    wait_for(lambda: "stopped; go on with" in log.read_text(), 100, "the limit")
    assert call("scontrol", "update", f"JobId={job}", "TimeLimit=10").returncode == 0


def test_an_array_survives_a_preemption_and_a_time_limit(slurm, tmp_path, monkeypatch):
    folder, call = slurm
    np.savez(tmp_path / "tiny.npz", **make_dataset())
    (tmp_path / "some.toml").write_text(SWEEP)
    limits = ["--partition", "main", "--time", "10", "--save-before", "90", "--gpus", "0"]
    submitted = call(*sweep_command("slurm", tmp_path, *limits))
    assert submitted.returncode == 0, submitted.stderr
    (job,) = re.findall(r"Submitted batch job (\d+)", submitted.stdout)

    out = tmp_path / "out"
    wait_for(lambda: all((out / run / "checkpoint.pt").exists() for run in SLOW), 200, "two runs")
    assert call("sbatch", "-p", "high", "-o", "/dev/null", "--wrap", "sleep 1").returncode == 0

    def preempted():
        log = (folder / "slurmctld.log").read_text()
        return re.findall(rf"preempted JobId={job}_([01])\(\d+\) has been requeued", log)

    other = 1 - int(wait_for(preempted, 60, "a preemption")[0])
    reach_limit(call, f"{job}_{other}", out / "slurm" / f"some-{job}_{other}.txt")
    wait_for(lambda: not call("squeue", "-h").stdout.strip(), 500, "the end of the array")
    for index in (0, 1):
        described = call("scontrol", "show", "job", f"{job}_{index}").stdout
        assert re.findall(r"Restarts=(\d+)", described) == ["1"], described
    status = call(*sweep_command("status", tmp_path))
    assert "some, 5 runs: 5 finished" in status.stdout, status.stdout
    assert_as_undisturbed(tmp_path / "some.toml", out, tmp_path / "calm", monkeypatch, tmp_path)
    again = call(*sweep_command("slurm", tmp_path, *limits))
    assert "nothing is left to do of the 5 runs" in again.stdout


def test_what_slurm_refuses_is_said_in_its_words(slurm, tmp_path):
    _, call = slurm
    np.savez(tmp_path / "tiny.npz", **make_dataset())
    (tmp_path / "some.toml").write_text(SWEEP)
    answer = call(
        *sweep_command("slurm", tmp_path, "--partition", "none", "--time", "1", "--gpus", "0")
    )
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: Slurm refuses")
    assert "invalid partition specified: none" in line
