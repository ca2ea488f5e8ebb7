"""Properties: any path is read, any command line means what it says."""

import os
import string
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
from conftest import make_dataset

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc as bc
import gtp_offline as gtp

hypothesis = pytest.importorskip("hypothesis", reason="needs requirements-dev.txt")
st = hypothesis.strategies
FAMILY = [gtp, bc, dql, cac]


def few(examples):
    """Settings of a property: the same examples every time, however slow the machine is."""
    return hypothesis.settings(
        max_examples=examples, deadline=None, derandomize=True, database=None
    )


# ---- the reader: any path ------------------------------------------------------------------------

FILE_BYTES = st.binary(min_size=1, max_size=40).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"0")
)
NAMES = st.one_of(
    FILE_BYTES.map(os.fsdecode),  # also what is no UTF-8
    st.text(st.sampled_from("~$ %*?\\'\"#:;-.é字\n\t"), min_size=1, max_size=12),
    st.sampled_from(["~", "-h", "--help", "None", "a.npz.hdf5", "CON", "$HOME", "data.tar.gz"]),
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)
UTF8 = NAMES.filter(lambda name: name.encode(errors="ignore").decode() == name)


@pytest.fixture(scope="module")
def contents():
    """The bytes of one dataset as HDF5 and as NPZ, and what is to be read from them."""
    arrays = make_dataset(rows=40)
    with tempfile.TemporaryDirectory() as folder:
        npz = Path(folder, "a.npz")
        hdf5 = Path(folder, "a.hdf5")
        np.savez(npz, **arrays)
        with h5py.File(hdf5, "w") as file:
            for key, array in arrays.items():
                file[key] = array
        return [npz.read_bytes(), hdf5.read_bytes()], gtp.load_transitions(npz)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_dataset_is_read_from_any_path(kind, contents, tmp_path, monkeypatch):
    """Of any name and suffix, relative or absolute, as a string or a Path."""
    files, expected = contents
    monkeypatch.chdir(tmp_path)

    @few(25)
    @hypothesis.given(NAMES, st.booleans(), st.sampled_from([str, Path]))
    def check(name, absolute, kind_of_path):
        path = tmp_path / name
        path.write_bytes(files[kind])
        data = gtp.load_transitions(kind_of_path(path if absolute else name))
        path.unlink()
        assert data.keys() == expected.keys()
        assert all(np.array_equal(data[key], expected[key]) for key in data)

    check()


@pytest.mark.parametrize("script", FAMILY)
def test_an_absent_path_of_any_name_is_one_line(script, tmp_path, monkeypatch, capsys):
    """That names the way out."""
    monkeypatch.chdir(tmp_path)

    @few(8)
    @hypothesis.given(UTF8)
    def check(name):
        words = [f"--dataset-path={name}", "--device", "cpu", "--no-tensorboard"]
        monkeypatch.setattr("sys.argv", [script.__name__, *words])
        assert script.main() == 1
        line = capsys.readouterr().err
        assert line.startswith("error: dataset ") and line.count("\n") == 1
        assert "there is no such file; --dataset-path names another" in line

    check()


def test_a_run_directory_of_any_name_trains_and_resumes(small, tmp_path):
    """Results, checkpoint and events lie in it, and a resume finds them."""

    @few(2)
    @hypothesis.given(UTF8)
    def check(name):
        args = small(name, num_updates=1, hidden_dim=4, num_holdout=0, tensorboard=True)
        if not Path(args.run_dir).exists():
            gtp.train(args)
        names = {path.name.split(".")[0] for path in Path(args.run_dir).iterdir()}
        assert names >= {"checkpoint", "results", "events"}
        again = replace(gtp.resume_args(args.run_dir), num_updates=2)
        assert gtp.train(again)["update"] == 2

    check()


# ---- the command line: any order, any repeated default -------------------------------------------

TEXT = st.text(string.printable, max_size=20)
TASKS = ["hopper-medium-v2", "antmaze-umaze-diverse-v0", "multigoal-unequal-v0", "Pendulum-v1"]


def values(script, name, kind):
    """A flag's values: its default too, which is the task's or not."""
    default = getattr(script.Args(), name)
    if kind is bool:
        return st.booleans()
    if get_args(kind):
        return st.sampled_from(get_args(kind))
    if kind is int:
        return st.one_of(st.just(default or 1), st.integers(1, 10**9))
    if kind is float:
        return st.one_of(st.just(default), st.floats(allow_nan=False))
    return {"env_id": st.sampled_from(TASKS), "device": st.just("cpu")}.get(name, TEXT)


def spelled(name, value, style):
    """A flag and its value as words: with - or _, apart or joined by =."""
    flag = name if style % 2 else name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no{'_' if style % 2 else '-'}{flag}"]
    joined = style > 1 or str(value).startswith("-")
    return [f"--{flag}={value}"] if joined else [f"--{flag}", str(value)]


@st.composite
def command_lines(draw, script):
    """Words in any order, and what they give; some flags are given twice: the last one counts."""
    names = {field.name: field.type for field in fields(script.Args) if field.name != "resume"}
    chosen = draw(st.lists(st.sampled_from(sorted(names)), max_size=12))
    words = ["--device=cpu"]
    given = {"device": "cpu"}
    for name in chosen:
        given[name] = draw(values(script, name, names[name]))
        words += spelled(name, given[name], draw(st.integers(0, 3)))
    return words, given


@pytest.mark.parametrize("script", FAMILY)
def test_a_command_line_means_its_flags_and_the_tasks_defaults(script):
    """In any order; a flag wins also where it repeats a default that is not the task's."""

    @few(25)
    @hypothesis.given(command_lines(script))
    def check(line):
        words, given = line
        decisive = {name: given[name] for name in script.DECISIVE if name in given}
        expected = replace(script.default_args(**decisive), **given)
        assert script.parse_args(words) == expected

    check()


@pytest.mark.parametrize("script", FAMILY)
def test_every_default_of_args_can_be_repeated_for_a_task_with_others(script):
    """All flags at once, in any order."""
    names = [field.name for field in fields(script.Args) if field.name != "resume"]

    @few(4)
    @hypothesis.given(st.permutations(names), st.integers(0, 3))
    def check(order, style):
        given = vars(script.Args()) | {"env_id": "antmaze-medium-play-v0", "device": "cpu"}
        words = [word for name in order for word in spelled(name, given[name], style)]
        assert script.parse_args(words) == script.Args(**given)

    check()
