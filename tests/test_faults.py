"""Faults: killed processes, foreign data, full disks, divergence, large and broken files."""

import errno
import functools
import importlib
import json
import multiprocessing
import os
import random
import signal
import tempfile
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import differences, lasting, make_dataset

import gtp_offline as gtp

SCRIPTS = ("gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac")


# ---- killed processes --------------------------------------------------------------------------


def count_down(module, moments):
    """Let this process be killed at a moment: the start or end of an update, an evaluation, a
    flush to the disk or a renaming, counted from 1."""
    left = [moments]

    def tick():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(function):
        @functools.wraps(function)
        def call(*args):
            tick()
            result = function(*args)
            tick()
            return result

        return call

    module.update_networks = watched(module.update_networks)
    module.evaluate = watched(module.evaluate)
    os.fsync = watched(os.fsync)
    os.replace = watched(os.replace)


def train_until(module, args, moments):
    """In a child process: train without output, and be killed at a moment."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    count_down(module, moments)
    module.train(args)


def kill_and_resume(module, args, kills):
    """SIGKILL a run again and again, each time at a moment drawn from a seed, then let it end."""
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")
    for _ in range(kills):
        child = context.Process(target=train_until, args=(module, args, rng.randint(1, 60)))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                args = module.resume_args(args.run_dir)
            except module.InputError:  # killed before its first checkpoint: begin again
                continue
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module.train(args)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_killed_at_any_moment_ends_bit_for_bit_like_an_undisturbed_one(name, small):
    """20 kills of gtp_offline.py, 3 of the others; weights, optimisers, results, generator."""
    module = importlib.import_module(name)
    length, kills = (200, 20) if name == "gtp_offline" else (50, 3)
    changes = {"num_updates": length, "eval_freq": length // 2, "checkpoint_freq": 4}
    whole = small("whole", module, **changes)
    torn = small("torn", module, **changes)
    expected = module.train(whole)
    results = kill_and_resume(module, torn, kills)
    assert results["update"] == length
    assert differences(lasting(expected), lasting(results)) == []
    states = [lasting(module.load_checkpoint(Path(args.run_dir))) for args in (whole, torn)]
    assert differences(*states) == []


# ---- disks and data ----------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_of_before(small, monkeypatch, capsys):
    """The seventh file that is to be written finds no room; later there is room again."""
    folder = Path(small().run_dir)
    fsync = os.fsync
    calls = []

    def full_after_a_while(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_a_while)
    words = ["gtp_offline.py", "--dataset-path", small().dataset_path, "--run-dir", str(folder)]
    words += ["--num-updates", "60", "--checkpoint-freq", "2", "--hidden-dim", "16"]
    monkeypatch.setattr("sys.argv", [*words, "--no-tensorboard"])
    assert gtp.main() == 1
    errors = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error")]
    reason = "([Errno 28] No space left on device); what was there is kept"
    assert errors == [f"error: {folder}/results.json cannot be written {reason}"]
    assert not list(folder.glob("*.partial"))
    monkeypatch.setattr(os, "fsync", fsync)
    saved = gtp.load_checkpoint(folder)["results"]["update"]
    assert 0 < saved < 60
    assert gtp.train(gtp.resume_args(folder))["update"] == 60


def test_a_disk_that_is_full_for_tensorboard_is_one_line(small, monkeypatch, capsys):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    args = small(tensorboard=True)
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    monkeypatch.setattr("sys.argv", ["gtp_offline.py"])
    monkeypatch.setattr(gtp, "parse_args", lambda _: args)
    assert gtp.main() == 1
    errors = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error")]
    reason = "what was saved is whole: make room, then --resume the run"
    assert errors == [f"error: [Errno 28] No space left on device; {reason}"]


def test_a_folder_that_can_no_longer_be_written_is_met_before_tensorboard(small, monkeypatch):
    """A resume, say, of a run that was made read-only: its lock can be had still."""

    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    args = small(tensorboard=True)
    said = "is in use or unusable; free it, name another, or resume a copy of it"
    with pytest.raises(gtp.InputError, match=f"{said} .*Permission denied"):
        gtp.train(args)
    assert not list(Path(args.run_dir).glob("events*"))


def test_data_of_another_shape_or_content_are_refused_on_resume(small, tmp_path):
    gtp.train(small(num_updates=1))
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    before = checkpoint.read_bytes()
    for arrays in (make_dataset(obs_dim=4), make_dataset(seed=1)):
        np.savez(tmp_path / "other.npz", **arrays)
        other = replace(gtp.resume_args(tmp_path / "run"), dataset_path=str(tmp_path / "other.npz"))
        with pytest.raises(gtp.InputError, match="is not the one that"):
            gtp.train(other)
        assert checkpoint.read_bytes() == before


def test_tensorboard_has_every_step_once_after_resumes(small, tmp_path, monkeypatch):
    """Also where the run was killed after it had logged more than its last checkpoint knows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    real = gtp.update_networks
    calls = []

    def dies(*args):
        calls.append(1)
        if len(calls) == 27:
            raise RuntimeError("killed")
        return real(*args)

    monkeypatch.setattr(gtp, "update_networks", dies)
    often = {"log_freq": 5, "num_updates": 60, "checkpoint_freq": 16}
    with pytest.raises(RuntimeError, match="killed"):
        gtp.train(small(tensorboard=True, **often))
    gtp.train(gtp.resume_args(tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    steps = [event.step for event in events.Scalars("losses/actor")]
    assert steps == list(range(5, 61, 5))


# ---- divergence --------------------------------------------------------------------------------


def scaled_q(factor):
    real = gtp.update_networks

    def update(*args):
        metrics = real(*args)
        return metrics | {"q_mean": metrics["q_mean"] * 0 + factor}

    return update


def test_a_q_beyond_the_bound_stops_the_run_and_can_be_allowed(small, tmp_path, monkeypatch):
    """The update and the quantity are in results.json; 0 switches the check off, for NaN too."""
    short = {"num_updates": 10, "checkpoint_freq": 4, "eta": 1.0}
    monkeypatch.setattr(gtp, "update_networks", scaled_q(-2e6))
    results = gtp.train(small("bounded", **short))
    assert (results["status"], results["exit_code"]) == ("diverged", 1)
    assert results["diverged"] == {"q_mean": -2e6} and results["update"] == 4
    for bound in (3e6, 0.0):
        allowed = small(f"allowed{bound}", divergence_bound=bound, **short)
        assert gtp.train(allowed)["status"] == "finished"
    monkeypatch.setattr(gtp, "update_networks", scaled_q(float("nan")))
    results = gtp.train(small("nan", divergence_bound=0.0, **short))
    assert results["status"] == "finished"
    text = (tmp_path / "nan" / "results.json").read_text()
    assert "NaN" not in text and json.loads(text)["losses"][-1]["q_mean"] is None


# ---- files -------------------------------------------------------------------------------------


def test_loading_takes_at_most_two_and_a_half_times_the_file_in_float32(tmp_path):
    """HalfCheetah's shapes, a tenth of its 2,000,000 rows; NumPy reports to tracemalloc."""
    rows, path = 200_000, tmp_path / "large.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal((rows, 17))  # float64, as some replay files
        file["actions"] = rng.uniform(-1, 1, (rows, 6)).astype(np.float32)
        file["rewards"] = rng.standard_normal(rows, dtype=np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % 1000 == 999
    tracemalloc.start()
    data, *_ = gtp.load_data(gtp.default_args(dataset_path=str(path), device="cpu"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data["rewards"]) == rows - rows // 1000
    assert peak < 2.5 * rows * (17 + 6 + 3) * 4


@pytest.mark.parametrize("kind", ["hdf5", "npz"])
def test_a_corrupted_file_never_gives_a_traceback_or_wrong_shapes(kind, tmp_path):
    """Flips, cuts and insertions: a dataset of fitting shapes, or a ValueError in one line."""
    hypothesis = pytest.importorskip("hypothesis", reason="needs requirements-dev.txt")
    from hypothesis import strategies as st

    path = tmp_path / f"valid.{kind}"
    arrays = make_dataset(rows=60)
    if kind == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file[key] = value
    valid, broken = path.read_bytes(), tmp_path / f"broken.{kind}"
    edit = st.tuples(
        st.sampled_from(["flip", "cut", "insert"]), st.floats(0, 1), st.integers(0, 255)
    )

    @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.lists(edit, min_size=1, max_size=4))
    def check(edits):
        content = bytearray(valid)
        for what, place, value in edits:
            k = min(int(place * len(content)), max(len(content) - 1, 0))
            if what == "cut":
                del content[k:]
            elif what == "insert":
                content[k:k] = bytes([value])
            elif content:
                content[k] ^= value or 1
        broken.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = gtp.load_transitions(broken)
        except ValueError as error:
            assert str(broken) in str(error) and "\n" not in str(error)
            return
        n = len(data["rewards"])
        shapes = {key: value.shape for key, value in data.items()}
        assert n >= 1 and shapes["rewards"] == shapes["terminals"] == (n,)
        assert shapes["observations"] == shapes["next_observations"] and len(shapes["actions"]) == 2
        assert shapes["actions"][0] == shapes["observations"][0] == n
        for value in data.values():
            assert value.dtype == np.float32 and np.isfinite(value).all()
        assert np.abs(data["actions"]).max() <= 1

    check()
