"""Faults: killed processes, damaged and foreign checkpoints, full disks, large and broken files."""

import errno
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import pickle
import random
import signal
import time
import tracemalloc
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import differences, make_dataset

import d4rl_tasks
import gtp_offline as gtp

SCRIPTS = ("gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac")
TIMINGS = ("seconds", "updates_per_second", "milliseconds_per_action", "args", "losses")


def script(name):
    """The algorithm script of that name, or a skip where it does not exist yet."""
    if not Path(gtp.__file__).with_name(f"{name}.py").exists():
        pytest.skip(f"{name}.py is not there")
    return importlib.import_module(name)


def run_args(module, dataset, run_dir, **changes):
    """A run of 200 small updates that is evaluated and saved often."""
    settings = dict(
        dataset_path=str(dataset), run_dir=str(run_dir), num_updates=200, eval_freq=50,
        checkpoint_freq=4, batch_size=16, hidden_dim=16, tensorboard=False, num_holdout=24,
    )  # fmt: skip
    return module.Args(**(settings | changes))


def without_timings(value):
    if isinstance(value, dict):
        return {k: without_timings(v) for k, v in value.items() if k not in TIMINGS}
    return [without_timings(v) for v in value] if isinstance(value, list) else value


def train_quietly(module, args):
    """In a child process: train, without output; the parent may kill it at any moment."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    module.train(args)


def kill_and_resume(module, dataset, tmp_path, kills, monkeypatch):
    """SIGKILL a run at random moments, resuming each time; its last state and the undisturbed."""
    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    began = time.perf_counter()
    module.train(run_args(module, dataset, whole))
    duration = time.perf_counter() - began
    rng, context, killed = random.Random(0), multiprocessing.get_context("fork"), 0
    for _ in range(20 * kills):
        saved = (torn / "checkpoint.pt").exists()
        args = module.Args(resume=str(torn)) if saved else run_args(module, dataset, torn)
        child = context.Process(target=train_quietly, args=(module, args))
        child.start()
        child.join(rng.uniform(0, duration / kills) if killed < kills else None)
        if child.exitcode is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed += 1
    assert killed > kills // 2  # how many fit in depends on the machine; nearly always all
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        states = [module.load_checkpoint(folder) for folder in (torn, whole)]
    return killed, *map(without_timings, states)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_killed_at_random_moments_ends_bit_for_bit_like_an_undisturbed_one(
    name, dataset, tmp_path, monkeypatch
):
    """20 kills of gtp_offline.py, 3 of the others; weights, optimisers, evaluations, generator."""
    kills = 20 if name == "gtp_offline" else 3
    killed, torn, whole = kill_and_resume(script(name), dataset, tmp_path, kills, monkeypatch)
    assert torn["results"]["update"] == 200
    assert not differences(torn, whole), f"after {killed} kills"


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """A finished run of gtp_offline.py with two checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
        gtp.train(run_args(gtp, dataset, folder, num_updates=8))
    return folder


def test_a_checkpoint_altered_or_cut_anywhere_is_detected_and_the_one_before_used(run):
    """Every damage raises for the file alone and falls back, with a warning, for the directory."""
    path, rng = run / "checkpoint.pt", random.Random(0)
    content = path.read_bytes()
    before = gtp.load_checkpoint(run / "checkpoint.previous.pt")["results"]["update"]
    places = [0, 1, len(content) - 1, len(content) - 64, len(content) - 65]
    damaged = [content[:k] for k in (0, 10, 64, len(content) // 2, len(content) - 1)]
    for place in places + [rng.randrange(len(content)) for _ in range(60)]:
        flipped = content[place] ^ (1 << rng.randrange(8))
        damaged.append(content[:place] + bytes([flipped]) + content[place + 1 :])
    try:
        for broken in damaged:
            path.write_bytes(broken)
            with pytest.warns(UserWarning, match="damaged|absent"), pytest.raises(ValueError):
                gtp.load_checkpoint(path)
            with pytest.warns(UserWarning, match="damaged|absent"):
                assert gtp.load_checkpoint(run)["results"]["update"] == before
    finally:
        path.write_bytes(content)


def sign(content: bytes) -> bytes:
    """A checkpoint's content with the digest that load_checkpoint asks for."""
    return content + hashlib.sha256(content).hexdigest().encode()


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("malicious-pickle-was-run",)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, monkeypatch, capsys):
    """Even one with the right digest, through --eval-only, in one line and with exit code 1."""
    monkeypatch.chdir(tmp_path)
    torch.save({"results": Malicious()}, buffer := io.BytesIO())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(64)
    for content in (buffer.getvalue()[:-64], pickle.dumps(Malicious())):
        Path("checkpoint.pt").write_bytes(sign(content))
        monkeypatch.setattr("sys.argv", ["gtp_offline.py", "--eval-only", "checkpoint.pt"])
        assert gtp.main() == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: checkpoint checkpoint.pt") and "\n" not in error
        assert not Path("malicious-pickle-was-run").exists()


def test_eval_only_scores_a_run_and_films_an_episode(dataset, tmp_path, monkeypatch, capsys):
    """The same numbers as the run's last evaluation, from the run directory or the file."""
    args = gtp.Args(env_id="multigoal-v0", run_dir=str(tmp_path / "run"), num_updates=3,
        hidden_dim=16, num_eval_episodes=20, tensorboard=False)  # fmt: skip
    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    last = gtp.train(args)["last"]
    for target in (tmp_path / "run", tmp_path / "run" / "checkpoint.pt"):
        video = tmp_path / "episode.gif"
        words = ["gtp_offline.py", "--eval-only", str(target), "--capture-video", str(video)]
        monkeypatch.setattr("sys.argv", words)
        capsys.readouterr()  # what training printed
        assert gtp.main() == 0
        scores = json.loads(capsys.readouterr().out)
        asked = [scores.pop(key) for key in ("env_id", "num_steps", "num_candidates")]
        assert asked == ["multigoal-v0", 5, 1]
        assert {key: last[key] for key in scores} == scores
        assert video.read_bytes()[:4] == b"GIF8"


def test_eval_only_of_a_run_without_a_task_asks_for_one(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gtp_offline.py", "--eval-only", str(run)])
    assert gtp.main() == 1
    assert "--env-id" in capsys.readouterr().err


def test_eval_only_takes_other_arguments_of_acting(dataset, tmp_path, monkeypatch, capsys):
    """--num-steps changes the sampler, also back to its default; what does not fit the weights is
    refused in one line."""
    args = gtp.Args(env_id="multigoal-v0", run_dir=str(tmp_path / "run"), num_updates=3,
        num_steps=3, hidden_dim=16, num_eval_episodes=20, tensorboard=False)  # fmt: skip
    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    gtp.train(args)
    assert gtp.load_policy(tmp_path / "run", num_steps=2).args.num_steps == 2
    seen, samples = [], gtp.policy_samples
    monkeypatch.setattr(gtp, "policy_samples", lambda *a: seen.append(a[3]) or samples(*a))
    for words, code in (
        (["--num-steps", "2"], 0),
        (["--num-steps=5"], 0),
        ([], 0),
        (["--hidden-dim", "8"], 1),
        (["--num-steps", "0"], 1),
    ):
        monkeypatch.setattr("sys.argv", ["x.py", "--eval-only", str(tmp_path / "run"), *words])
        capsys.readouterr()
        assert gtp.main() == code
        assert len(capsys.readouterr().err.splitlines()) == code
    assert set(seen) == {2, 5, 3}


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_of_before(
    dataset, tmp_path, monkeypatch, capsys
):
    folder, calls, fsync = tmp_path / "run", [], os.fsync

    def full_after_a_while(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_a_while)
    words = ["gtp_offline.py", "--dataset-path", str(dataset), "--run-dir", str(folder)]
    words += ["--num-updates", "60", "--checkpoint-freq", "2", "--hidden-dim", "16"]
    monkeypatch.setattr("sys.argv", [*words, "--no-tensorboard"])
    assert gtp.main() == 1
    errors = [line for line in capsys.readouterr().err.split("\n") if line.startswith("error")]
    assert errors == ["error: [Errno 28] No space left on device"]
    monkeypatch.setattr(os, "fsync", fsync)
    saved = gtp.load_checkpoint(folder)["results"]["update"]
    assert 0 < saved < 60
    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
    assert gtp.train(gtp.Args(resume=str(folder)))["update"] == 60


def test_a_checkpoint_of_another_script_is_refused(run, tmp_path):
    state = gtp.load_checkpoint(run)
    state["results"]["algorithm"] = "diffusion_ql"
    gtp.save_checkpoint(tmp_path / "checkpoint.pt", state)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    for use in (gtp.load_policy, lambda path: gtp.train(gtp.Args(resume=str(path)))):
        with pytest.raises(ValueError, match=r"is of diffusion_ql\.py, not of this script"):
            use(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_data_of_another_shape_or_content_are_refused_on_resume(run, tmp_path):
    for arrays in (make_dataset(obs_dim=4), make_dataset(seed=1)):
        np.savez(tmp_path / "other.npz", **arrays)
        before = (run / "checkpoint.pt").read_bytes()
        with pytest.raises(ValueError, match="is not the one that"):
            gtp.train(gtp.Args(resume=str(run), dataset_path=str(tmp_path / "other.npz")))
        assert (run / "checkpoint.pt").read_bytes() == before


def test_tensorboard_has_every_step_once_after_resumes(dataset, tmp_path, monkeypatch):
    """Also where the run was killed after it had logged more than its last checkpoint knows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
    real = gtp.update_networks
    calls = []

    def dies(*args):
        calls.append(1)
        if len(calls) == 27:
            raise RuntimeError("killed")
        return real(*args)

    args = run_args(gtp, dataset, tmp_path / "run", tensorboard=True, log_freq=5, num_updates=60)
    monkeypatch.setattr(gtp, "update_networks", dies)
    with pytest.raises(RuntimeError, match="killed"):
        gtp.train(replace(args, checkpoint_freq=16))
    gtp.train(gtp.Args(resume=str(tmp_path / "run")))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    steps = [event.step for event in events.Scalars("losses/actor")]
    assert steps == sorted(set(steps)) and steps[-1] == 60 and {5, 10, 15, 20} <= set(steps)


def scaled_q(factor):
    real = gtp.update_networks

    def update(*args):
        metrics = real(*args)
        return metrics | {"q_mean": metrics["q_mean"] * 0 + factor}

    return update


def test_a_q_beyond_the_bound_stops_the_run_and_can_be_allowed(dataset, tmp_path, monkeypatch):
    """The update and the quantity are in results.json; 0 switches the check off, for NaN too."""
    monkeypatch.setattr(d4rl_tasks, "plot_run", lambda *args: None)
    monkeypatch.setattr(gtp, "update_networks", scaled_q(-2e6))
    args = run_args(gtp, dataset, tmp_path / "a", num_updates=10, eta=1.0)
    results = gtp.train(args)
    assert (results["status"], results["exit_code"]) == ("diverged", 1)
    assert results["diverged"] == {"q_mean": -2e6} and results["update"] == 4
    for bound in (3e6, 0.0):
        allowed = replace(args, divergence_bound=bound, run_dir=str(tmp_path / str(bound)))
        assert gtp.train(allowed)["status"] == "finished"
    monkeypatch.setattr(gtp, "update_networks", scaled_q(float("nan")))
    results = gtp.train(replace(args, divergence_bound=0.0, run_dir=str(tmp_path / "nan")))
    assert results["status"] == "finished"
    text = (tmp_path / "nan" / "results.json").read_text()
    assert "NaN" not in text and json.loads(text)["losses"][-1]["q_mean"] is None


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
    data, *_ = gtp.load_data(gtp.resolve_args(gtp.Args(dataset_path=str(path))))
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
