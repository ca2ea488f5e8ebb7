"""Bad input to gtp_offline.py: one line on stderr that names the value and the remedy, the right
exit code, nothing written and no traceback. Damaged datasets: also test_load_transitions.py."""

import re
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT, make_dataset, run_script, run_scripts

import gtp_offline as gtp
from offline_tasks import d4rl_files


@pytest.fixture
def program(tmp_path, monkeypatch, capsys):
    """program(*arguments): the exit code and stderr of main(), in an empty working directory where
    it must leave nothing; no dataset can be downloaded and no training begins."""

    def update_networks(*inputs):
        raise AssertionError("training began")

    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "datasets"))
    monkeypatch.setattr(gtp, "update_networks", update_networks)
    monkeypatch.setattr(d4rl_files, "DATASET_URLS", ["http://127.0.0.1:9/"])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gtp_offline.py", *map(str, arguments)])
        code = gtp.main()
        assert not list(folder.iterdir())
        return code, capsys.readouterr().err

    return run


def assert_one_line(errors, *patterns):
    """One line that says what the patterns ask for, in any case."""
    lines = errors.splitlines()
    assert len(lines) == 1 and len(lines[0]) < 1000, errors
    for pattern in patterns:
        assert re.search(pattern, lines[0], re.IGNORECASE), (pattern, lines[0])


# ---- arguments: exit code 2 ------------------------------------------------------------------

BAD_ARGUMENTS = {  # arguments: what the message names
    "--eta -1": ["--eta", "-1", "from 0"],
    "--eta nan": ["--eta", "nan", "number"],
    "--eta inf": ["--eta", "inf"],
    "--num-steps 0": ["--num-steps", r"\b0\b", "from 1"],
    "--num-updates 0": ["--num-updates", r"\b0\b", "from 1"],
    "--num-updates -5": ["--num-updates", "-5", "from 1"],
    "--batch-size 0": ["--batch-size", r"\b0\b", "from 2"],
    "--batch-size 1": ["--batch-size", r"\b1\b", "from 2"],
    "--eval-freq -1": ["--eval-freq", "-1", "from 0"],
    "--checkpoint-freq 0": ["--checkpoint-freq", r"\b0\b", "from 1"],
    "--log-freq 0": ["--log-freq", r"\b0\b", "from 1"],
    "--num-eval-episodes 0": ["--num-eval-episodes", r"\b0\b", "from 1"],
    "--num-candidates 0": ["--num-candidates", r"\b0\b", "from 1"],
    "--num-threads 0": ["--num-threads", r"\b0\b", "from 1"],
    "--hidden-dim 0": ["--hidden-dim", r"\b0\b", "from 1"],
    "--num-holdout -1": ["--num-holdout", "-1", "from 0"],
    "--seed -1": ["--seed", "-1", "from 0"],
    "--gamma 1.5": ["--gamma", "1.5", "to 1"],
    "--gamma nan": ["--gamma", "nan"],
    "--tau -0.1": ["--tau", "-0.1", "from 0 to 1"],
    "--learning-rate -1e-3": ["--learning-rate", "-0.001", "from 0"],
    "--learning-rate nan": ["--learning-rate", "nan"],
    "--grad-norm -1": ["--grad-norm", "-1", "from 0"],
    "--huber-c -0.1": ["--huber-c", "-0.1", "from 0"],
    "--huber-c 0": ["--huber-c", r"\b0\.0\b", "from 1e-6"],
    "--lambda-flow inf": ["--lambda-flow", "inf", "to 1000000000"],
    "--std-floor inf": ["--std-floor", "inf", "to 1000000000"],
    "--lambda-flow -1": ["--lambda-flow", "-1", "from 0"],
    "--max-weight nan": ["--max-weight", "nan"],
    "--max-weight 0": ["--max-weight", r"\b0\.0\b", "above 0"],
    "--expectile 0": ["--expectile", r"\b0\.0\b", "between 0 and 1"],
    "--expectile 1": ["--expectile", r"\b1\.0\b", "between 0 and 1"],
    "--expectile nan": ["--expectile", "nan"],
    "--value policy": ["--value policy", "--td-target policy"],
    "--reward-scale nan": ["--reward-scale", "nan"],
    "--reward-scale inf": ["--reward-scale", "inf", "to 1000000000000"],
    "--reward-shift -1e60": ["--reward-shift", "-1e\\+60", "from -1000000000000"],
    "--num-threads 100000": ["--num-threads", "100000", "to 1024"],
    "--sigma-min 5 --sigma-max 5": ["--sigma-min", "5"],
    "--sigma-min 9": ["--sigma-min", "9", r"\b5\b"],
    "--sigma-min 0": ["--sigma-min", r"\b0"],
    "--sigma-min 9e-4": ["--sigma-min", r"\b0\.0009\b", r"\[1e-3, 5\.0\)"],
    "--sigma-min 4.9999999": ["--sigma-min", r"4\.9999999", "1 % below"],
    "--sigma-min nan": ["--sigma-min", "nan"],
    "--sigma-max -1": ["--sigma-max", "-1"],
    "--sigma-max inf": ["--sigma-max", "inf"],
    "--device tpu": ["--device", "tpu", "cpu"],
    "--env-id hoper-medium-v2": ["hoper-medium-v2", r"\bhopper-medium-v2"],
    "--env-id antmaze-umaze-v1": ["antmaze-umaze-v1", r"\bantmaze-umaze-v[02]"],
    "--env-id nonsense": ["nonsense", "hopper-medium-v2|near"],
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_a_bad_argument_is_refused(arguments, program, dataset):
    words = arguments.split()
    given = [] if "--env-id" in words else ["--dataset-path", dataset]
    code, errors = program(*words, *given)
    assert code == 2
    assert_one_line(errors, *BAD_ARGUMENTS[arguments])


def test_cuda_that_is_absent_is_refused(program, dataset, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, errors = program("--dataset-path", dataset, "--device", "cuda")
    assert code == 2
    assert_one_line(errors, "--device", "cuda", "cpu")


@pytest.mark.parametrize(
    "arguments", ["--eta much", "--num-updates 2.5", "--no-such-flag 1", "--value guessed"]
)
def test_what_cannot_be_parsed_ends_with_exit_code_2(arguments, program, dataset):
    """Tyro's own message names the flag or the value."""
    with pytest.raises(SystemExit) as ended:
        program("--dataset-path", dataset, *arguments.split())
    assert ended.value.code == 2


def test_resume_of_a_directory_without_a_run_is_refused(program, tmp_path):
    code, errors = program("--resume", tmp_path / "absent")
    assert code == 2 and "one (" in errors and "absent is absent)" in errors
    assert_one_line(errors, "absent", r"checkpoint\.pt|run directory")


# ---- dataset: exit code 1 --------------------------------------------------------------------


def less(data, key):
    return {k: v for k, v in data.items() if k != key}


def changed(data, key, index, value):
    array = np.array(data[key], dtype=np.float64)
    array[index] = value
    return data | {key: array}


DAMAGES = {  # what is done to the arrays: what the message names
    "key missing": (lambda d: less(d, "rewards"), ["rewards"]),
    "lengths differ": (lambda d: d | {"rewards": d["rewards"][:-7]}, ["rewards", "233"]),
    "text": (lambda d: d | {"actions": np.array([["left"]] * 240)}, ["actions"]),
    "NaN": (lambda d: changed(d, "observations", 5, np.nan), ["observations", "NaN"]),
    "infinity": (lambda d: changed(d, "rewards", 5, np.inf), ["rewards", "infinity"]),
    "one row": (lambda d: {k: v[:1] for k, v in d.items()}, [r"\b1\b", "two"]),
    "no row": (lambda d: {k: v[:0] for k, v in d.items()}, [r"\b0\b"]),
    "actions beyond 1": (lambda d: changed(d, "actions", 5, 2.5), ["actions", "2.5", r"\[-1, 1\]"]),
    "one axis": (lambda d: d | {"observations": d["rewards"]}, ["observations", "240"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_arrays_are_refused(damage, program, tmp_path):
    change, patterns = DAMAGES[damage]
    path = tmp_path / "data.npz"
    np.savez(path, **change(make_dataset()))
    code, errors = program("--dataset-path", path)
    assert code == 1
    assert_one_line(errors, re.escape(str(path)), *patterns)


def foreign(path):
    path.write_text("observations,actions\n")


def truncated(path):
    with h5py.File(path, "w") as file:
        for key, array in make_dataset().items():
            file[key] = array
    path.write_bytes(path.read_bytes()[:3000])


FILES = {
    "absent": (lambda path: None, ["no such file|not a file|not exist|absent"]),
    "a folder": (lambda path: path.mkdir(), ["directory|folder|not a file"]),
    "empty": (lambda path: path.touch(), ["HDF5"]),
    "not HDF5": (foreign, ["HDF5"]),
    "truncated": (truncated, ["truncated|HDF5"]),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_dataset_is_refused(kind, program, tmp_path):
    make, patterns = FILES[kind]
    path = tmp_path / "data.hdf5"
    make(path)
    code, errors = program("--dataset-path", path)
    assert code == 1
    assert_one_line(errors, re.escape(str(path)), *patterns)


@pytest.mark.parametrize(
    ("obs_dim", "action_dim", "patterns"),
    [(3, 3, ["observations", r"\b3\b", r"\b11\b"]), (11, 2, ["actions", r"\b2\b", r"\b3\b"])],
)
def test_wrong_shapes_for_the_task_are_refused(program, tmp_path, obs_dim, action_dim, patterns):
    """Hopper has 11 observations and 3 actions."""
    path = tmp_path / "data.npz"
    np.savez(path, **make_dataset(obs_dim=obs_dim, action_dim=action_dim))
    code, errors = program("--env-id", "hopper-medium-v2", "--dataset-path", path)
    assert code == 1
    assert_one_line(errors, re.escape(str(path)), "hopper-medium-v2", *patterns)


def test_a_download_with_another_checksum_is_refused_and_kept_aside(program, tmp_path):
    """A file of the right name but not the published content stays on the disk, renamed."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "hopper_medium-v2.hdf5").write_bytes(b"not the published bytes")
    code, errors = program("--env-id", "hopper-medium-v2")
    assert code == 1
    assert_one_line(errors, r"hopper_medium-v2\.hdf5", "--dataset-path")
    contents = [path.read_bytes() for path in folder.iterdir() if path.is_file()]
    assert b"not the published bytes" in contents


def test_without_network_the_message_names_dataset_path(program):
    code, errors = program("--env-id", "hopper-medium-v2")
    assert code == 1
    assert_one_line(errors.strip().splitlines()[-1], "hopper", "--dataset-path")


def test_actions_beyond_one_by_a_rounding_error_train_with_a_line(tmp_path, small, capsys):
    data = changed(make_dataset(), "actions", 5, 1.0005)
    np.savez(tmp_path / "data.npz", **data)
    results = gtp.train(small(dataset_path=str(tmp_path / "data.npz"), num_updates=1))
    assert "actions up to 1.0005 clipped to [-1, 1]\n" in capsys.readouterr().err
    assert results["status"] == "finished"


# ---- run directory: exit code 1 --------------------------------------------------------------


def test_a_run_directory_that_cannot_be_written_is_refused(program, dataset, tmp_path):
    """Below a file: not even root can."""
    (tmp_path / "file").touch()
    run_dir = tmp_path / "file" / "run"
    code, errors = program("--dataset-path", dataset, "--run-dir", run_dir)
    assert code == 1
    assert_one_line(errors, re.escape(str(run_dir)), "--run-dir")


def test_a_run_directory_that_is_a_file_is_refused(program, dataset, tmp_path):
    (tmp_path / "file").touch()
    code, errors = program("--dataset-path", dataset, "--run-dir", tmp_path / "file")
    assert code == 1
    assert_one_line(errors, re.escape(str(tmp_path / "file")), "--run-dir")


def test_bad_input_leaves_no_run_directory(program, tmp_path):
    run_dir = tmp_path / "run"
    program("--dataset-path", tmp_path / "absent.npz", "--run-dir", run_dir)
    program("--eta", "-1", "--run-dir", run_dir)
    assert not run_dir.exists()


# ---- as a user sees it -----------------------------------------------------------------------


def test_the_program_shows_one_line_and_no_traceback(tmp_path):
    """For wrong arguments and for wrong data."""
    bad = {
        "--eta -1 --dataset-path x.npz": (2, "--eta"),
        "--env-id hoper-medium-v2": (2, "hopper-medium-v2"),
        "--dataset-path absent.npz": (1, "absent.npz"),
    }
    script = partial(run_script, ROOT / "gtp_offline.py", folder=tmp_path, capture_output=True)
    processes = run_scripts([script(*words.split()) for words in bad])
    for (code, named), done in zip(bad.values(), processes, strict=True):
        assert done.returncode == code and done.stdout == "" and named in done.stderr
        assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
