"""sweep.py on a real Slurm: an array, a preemption, a time limit; every run ends as undisturbed."""

import re
import subprocess
import sys

import numpy as np
import pytest
import slurm_cluster
from conftest import ROOT, make_dataset
from slurm_cluster import wait_for
from sweep_runs import assert_as_undisturbed

import sweep

WHY_NOT = slurm_cluster.why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

# A slow run sleeps for up to 50 s in its evaluations, in which it is preempted or its time is up.
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
scripts = ["gtp_offline", "consistency_ac"]
tasks = ["multigoal-v0"]
seeds = [2]

[data]
"slow_env:Slow-v0" = "tiny.npz"
"""
SLOW = [f"gtp_bc/slow_env-Slow-v0/slow/{seed}" for seed in (0, 1)]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The cluster's folder; commands are run where the cluster is. Slow runs are slow as long as
    there is tmp_path/slow."""
    (tmp_path / "slow").touch()
    (tmp_path / "some.toml").write_text(SWEEP)
    np.savez(tmp_path / "tiny.npz", **make_dataset())
    with slurm_cluster.cluster() as folder:
        monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        monkeypatch.setenv("SLOW_WHILE", str(tmp_path / "slow"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
        yield folder


@pytest.fixture
def sweep_command(tmp_path, monkeypatch, capsys):
    """sweep_command(command, *words): the exit code, stdout and stderr of a command of sweep.py."""

    def call(command, *words):
        folders = ["--out", str(tmp_path / "out"), "--data", str(tmp_path)]
        words = ["sweep.py", command, str(tmp_path / "some.toml"), *folders, *words]
        monkeypatch.setattr(sys, "argv", words)
        return sweep.main(), *capsys.readouterr()

    return call


def call(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def reach_limit(job, log):
    """Shorten a running job's time so that it is soon up, and when it is, give it enough."""
    elapsed = call("squeue", "-h", "-j", job, "-o", "%M").stdout.split(":")
    limit = f"TimeLimit={int(elapsed[-2]) + 2}"
    assert call("scontrol", "update", f"JobId={job}", limit).returncode == 0
    wait_for(lambda: "stopped; go on with" in log.read_text(), 100, "the limit")
    assert call("scontrol", "update", f"JobId={job}", "TimeLimit=10").returncode == 0


def test_an_array_survives_a_preemption_and_a_time_limit(
    slurm, sweep_command, tmp_path, monkeypatch
):
    limits = ["--partition", "main", "--time", "10", "--save-before", "90", "--gpus", "0"]
    code, said, refused = sweep_command("slurm", *limits)
    assert code == 0, refused
    (job,) = re.findall(r"Submitted batch job (\d+)", said)

    out = tmp_path / "out"
    wait_for(lambda: all((out / run / "checkpoint.pt").exists() for run in SLOW), 200, "two runs")
    assert call("sbatch", "-p", "high", "-o", "/dev/null", "--wrap", "sleep 1").returncode == 0

    def preempted():
        log = (slurm / "slurmctld.log").read_text()
        return re.findall(rf"preempted JobId={job}_([01])\(\d+\) has been requeued", log)

    other = 1 - int(wait_for(preempted, 60, "a preemption")[0])
    reach_limit(f"{job}_{other}", out / "slurm" / f"some-{job}_{other}.txt")
    (tmp_path / "slow").unlink()
    wait_for(lambda: not call("squeue", "-h").stdout.strip(), 500, "the end of the array")
    for index in (0, 1):
        described = call("scontrol", "show", "job", f"{job}_{index}").stdout
        assert re.findall(r"Restarts=(\d+)", described) == ["1"], described
    _, said, _ = sweep_command("status")
    assert "some, 4 runs: 4 finished" in said, said
    assert_as_undisturbed(tmp_path / "some.toml", out, tmp_path / "calm", monkeypatch, tmp_path)
    _, said, _ = sweep_command("slurm", *limits)
    assert "nothing is left to do of the 4 runs" in said


def test_what_slurm_refuses_is_said_in_its_words(slurm, sweep_command):
    words = ["--partition", "none", "--time", "1", "--gpus", "0"]
    code, _, refused = sweep_command("slurm", *words)
    assert code == 1
    (line,) = refused.splitlines()
    assert line.startswith("error: Slurm refuses")
    assert "invalid partition specified: none" in line
