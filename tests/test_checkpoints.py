"""Checkpoints: damage, older formats, what a resume may change; files written all or nothing."""

import io
import json
import math
import os
import pickle
import random
import re
import shutil
import sys
import zipfile
from dataclasses import fields, replace
from enum import Enum, IntEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, differences, lasting

import consistency_ac as cac
import diffusion_ql as dql
import export_policy
import gtp_bc as bc
import gtp_offline as gtp

FAMILY = {script.__name__: script for script in (gtp, bc, dql, cac)}
FORMAT1 = ROOT / "tests" / "fixtures" / "format1"
# What a resume may change; written out here so that a flag that joins them is seen.
FREE = {
    "device",
    "num_threads",
    "dataset_path",
    "num_updates",
    "compile",
    "cuda_graphs",
    "tensorboard",
    "checkpoint_freq",
    "log_freq",
    "track",
    "wandb_project",
    "wandb_entity",
}


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    """run(script): the directory of a finished run of 8 small updates with two checkpoints, which
    tests leave as it is; one for each script."""
    folder = tmp_path_factory.mktemp("runs")

    def make(script=gtp):
        run_dir = folder / script.__name__
        if run_dir.exists():
            return run_dir
        args = replace(
            script.default_args(dataset_path=str(dataset), device="cpu"),
            run_dir=str(run_dir),
            num_updates=8,
            eval_freq=4,
            checkpoint_freq=4,
            batch_size=8,
            hidden_dim=8,
            tensorboard=False,
            num_holdout=24,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("offline_tasks.plot_run", lambda *args: None)
            script.train(args)
        return run_dir

    return make


@pytest.fixture(scope="module")
def loaded(run):
    """loaded(script): the state in that run's newest checkpoint, which tests leave as it is."""
    return lru_cache(lambda script: script.load_checkpoint(run(script)))


@pytest.fixture
def copied(run, tmp_path):
    """copied(script): a copy of the run of a script, to be altered."""

    def copy(script=gtp):
        return Path(shutil.copytree(run(script), tmp_path / "copied"))

    return copy


@pytest.fixture
def program(monkeypatch, capsys):
    """program(*words): exit code and stderr of gtp_offline.py's main()."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gtp_offline.py", *map(str, words)])
        capsys.readouterr()
        code = gtp.main()
        return code, capsys.readouterr().err

    return call


def alter(run_dir, change):
    """Save a run's checkpoint again after change(state)."""
    state = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    change(state)
    torch.save(state, run_dir / "checkpoint.pt")


def same(a, b):
    return differences(dict(a), dict(b)) == []


# ---- damage ----------------------------------------------------------------------------------


def harmless(path, whole):
    """Whether a checkpoint loads to the very state that was saved."""
    return differences(gtp.load_checkpoint(path), whole) == []


@pytest.mark.filterwarnings("ignore:checkpoint")
def test_a_checkpoint_cut_anywhere_is_found_and_the_one_before_used(copied):
    """Also one of no bytes at all."""
    run_dir = copied()
    path = run_dir / "checkpoint.pt"
    content = path.read_bytes()
    before = gtp.load_checkpoint(run_dir / "checkpoint.previous.pt")
    rng = random.Random(0)
    lengths = [0, 1, 10, 64, len(content) - 22, len(content) - 1]
    for length in lengths + [rng.randrange(len(content)) for _ in range(15)]:
        path.write_bytes(content[:length])
        with pytest.raises(gtp.InputError, match="no whole checkpoint"):
            gtp.load_checkpoint(path)
        assert harmless(run_dir, before)
    assert before["results"]["update"] == 4


@pytest.mark.filterwarnings("ignore:checkpoint")
def test_an_altered_bit_is_found_or_changes_nothing(copied):
    """Bits drawn from a seed, of the whole file and of its directory, where every one counts for
    some reader; and of each kind the first and the last. What is found gives the checkpoint before,
    what is not the very state that was saved."""
    run_dir = copied()
    path = run_dir / "checkpoint.pt"
    content = path.read_bytes()
    whole = gtp.load_checkpoint(path)
    before = gtp.load_checkpoint(run_dir / "checkpoint.previous.pt")
    directory = zipfile.ZipFile(path).start_dir
    rng = random.Random(0)
    places = [0, 1, 30, directory, len(content) - 22, len(content) - 1]
    places += [rng.randrange(len(content)) for _ in range(60)]
    places += [rng.randrange(directory, len(content)) for _ in range(40)]
    found = 0
    for place in places:
        altered = bytearray(content)
        altered[place] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        state = gtp.load_checkpoint(run_dir)
        if state["results"]["update"] == 4:
            assert differences(state, before) == []
            found += 1
        else:
            assert differences(state, whole) == [], place
    assert found > 0.5 * len(places)


@pytest.mark.filterwarnings("ignore:checkpoint")
def test_the_folder_bit_of_a_member_changes_nothing(copied):
    """torch.load alone takes such a tensor for empty and returns what was in the memory."""
    run_dir = copied()
    path = run_dir / "checkpoint.pt"
    content = path.read_bytes()
    whole = gtp.load_checkpoint(path)
    starts = [found.start() for found in re.finditer(b"PK\x01\x02", content)]
    assert len(starts) > 20
    for start in starts[:20]:
        altered = bytearray(content)
        altered[start + 38] ^= 0x10  # in the external attributes
        path.write_bytes(altered)
        assert harmless(path, whole)


def test_a_damaged_or_absent_checkpoint_is_named(copied, capsys):
    run_dir = copied()
    path = run_dir / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    gtp.load_checkpoint(run_dir)
    assert capsys.readouterr().err == f"warning: checkpoint {path} is damaged\n"
    path.unlink()
    gtp.load_checkpoint(run_dir)
    assert capsys.readouterr().err == f"warning: checkpoint {path} is absent\n"


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("malicious-pickle-was-run",)


def as_zip(content):
    """A pickle as torch.save would write it, with every checksum right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_with_code_is_refused_and_not_run(program, tmp_path, monkeypatch):
    """In one line, with exit code 1."""
    monkeypatch.chdir(tmp_path)
    saved = io.BytesIO()
    torch.save({"results": Malicious()}, saved)
    for content in (saved.getvalue(), as_zip(pickle.dumps(Malicious()))):
        Path("checkpoint.pt").write_bytes(content)
        code, errors = program("--resume", "checkpoint.pt")
        assert code == 1
        (line,) = errors.splitlines()
        assert line.startswith("error: checkpoint checkpoint.pt is refused")
        assert not Path("malicious-pickle-was-run").exists()
    Path("checkpoint.pt").write_bytes(pickle.dumps(Malicious()))  # no zip file at all
    code, errors = program("--resume", "checkpoint.pt")
    assert code == 2 and "checkpoint.pt is damaged" in errors
    assert not Path("malicious-pickle-was-run").exists()


@pytest.mark.parametrize("content", [{"results": {}}, {"weights": torch.ones(2)}, torch.ones(2)])
def test_what_another_program_saved_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(gtp.InputError, match=r"checkpoint\.pt is refused"):
        gtp.load_checkpoint(tmp_path)


def test_a_checkpoint_of_another_script_is_refused(copied):
    run_dir = copied(bc)
    before = (run_dir / "checkpoint.pt").read_bytes()
    for use in (gtp.load_policy, gtp.resume_args):
        with pytest.raises(gtp.InputError, match=r"is of gtp_bc\.py, not of this script"):
            use(run_dir)
    assert (run_dir / "checkpoint.pt").read_bytes() == before


# ---- files written all or nothing ------------------------------------------------------------


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("script", FAMILY.values())
def test_write_file_interrupted_in_the_middle_leaves_the_old_file(
    script, call, tmp_path, monkeypatch
):
    """Before the new bytes are on the disk, and before they have the file's name."""
    path = tmp_path / "file"
    script.write_file(path, b"old")

    def interrupt(*args):
        raise InterruptionError

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupt)
        with pytest.raises(InterruptionError):
            script.write_file(path, b"new and longer")
        assert path.read_bytes() == b"old"
    script.write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_has_its_name_only_once_its_bytes_are_on_the_disk(tmp_path, monkeypatch):
    order = []
    fsync = os.fsync
    replace_file = os.replace

    def watched_fsync(descriptor):
        assert (tmp_path / "file.partial").read_bytes() == b"content"
        order.append("fsync")
        fsync(descriptor)

    def watched_replace(source, target):
        order.append("replace")
        replace_file(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    gtp.write_file(tmp_path / "file", b"content")
    assert order == ["fsync", "replace"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.filterwarnings("ignore:checkpoint")
@pytest.mark.parametrize("renaming", [1, 2, 3])
def test_saving_interrupted_at_a_renaming_keeps_a_whole_checkpoint(renaming, tmp_path, monkeypatch):
    """The old state until the new file has its name, the new one afterwards."""
    states = [{"results": {"algorithm": "gtp_offline", "update": k}, "format": 2} for k in (1, 2)]
    path = tmp_path / "checkpoint.pt"
    gtp.save_checkpoint(path, states[0])
    replace_file = os.replace
    calls = []

    def interrupt(source, target):
        calls.append(1)
        if len(calls) == renaming:
            raise InterruptionError
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(InterruptionError):
            gtp.save_checkpoint(path, states[1])
    assert gtp.load_checkpoint(tmp_path) == states[0]
    gtp.save_checkpoint(path, states[1])
    assert gtp.load_checkpoint(tmp_path) == states[1]


def test_json_has_no_nan_and_no_infinity(tmp_path):
    """NaN becomes null and infinity a word, at every depth; text and numbers stay."""
    content = {"a": [math.nan, {"b": math.inf}], "c": -math.inf, "d": 1.5, "e": "NaN -Infinity"}
    gtp.write_json(tmp_path / "x.json", content)

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert read == {"a": [None, {"b": "inf"}], "c": "-inf", "d": 1.5, "e": "NaN -Infinity"}


# ---- what a resume may change ----------------------------------------------------------------


def another(args, name):
    """A value that an argument does not have."""
    value = getattr(args, name)
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else value + 1


ARGUMENTS = [
    (script, field.name)
    for script in FAMILY
    for field in fields(FAMILY[script].Args)
    if field.name != "resume"  # which says what to change
]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_resume_changes_these_arguments_and_refuses_all_others_by_name(
    name, argument, run, loaded
):
    script = FAMILY[name]
    state = loaded(script)
    saved = script.resume_args(run(script), state)
    changed = replace(saved, **{argument: another(saved, argument)})
    if argument in FREE:
        assert script.check_resume(changed, state) == changed
        return
    flag = f"--{argument.replace('_', '-')}"
    with pytest.raises(script.ArgumentError, match=rf"drop {flag}$"):
        script.check_resume(changed, state)


@pytest.mark.parametrize("name", FAMILY)
def test_a_program_need_not_repeat_what_it_never_gave(name, run, loaded):
    """The folder and eval_freq, which a new run finds by itself; its other arguments it must."""
    script = FAMILY[name]
    state = loaded(script)
    saved = script.resume_args(run(script), state)
    args = replace(saved, run_dir="", eval_freq=0, num_updates=saved.num_updates + 1)
    assert script.check_resume(args, state) == replace(saved, num_updates=saved.num_updates + 1)
    with pytest.raises(script.ArgumentError, match=r"drop --eval-freq$"):
        script.check_resume(replace(saved, eval_freq=0), state)  # as on a command line
    bare = script.Args(resume=saved.resume)
    with pytest.raises(script.ArgumentError, match=r"\(a program takes them from resume_args\)"):
        script.check_resume(bare, state)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("form", ["{}/", "./{}", ".//{}/", "{}//checkpoint.pt", "{}/."])
def test_a_run_is_found_by_every_spelling_of_its_path(name, form, run, monkeypatch, capsys):
    """As Tab writes it, and as a run with --run-dir ./x/ names itself; it has ended."""
    script = FAMILY[name]
    monkeypatch.chdir(run(script).parent)
    args, state = script.start(script.parse_args(["--resume", form.format(script.__name__)]))
    assert state["results"]["update"] == 8 and "nothing to train" in capsys.readouterr().err
    assert script.start(replace(args, resume=form.format(script.__name__)))[1]["dims"] == [3, 2]


def test_a_home_that_no_shell_has_named_is_found(small, tmp_path, monkeypatch):
    """--run-dir=~/x reaches a script as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    args = small(num_updates=2)
    path = Path(args.dataset_path)
    link = tmp_path / path.name
    if link != path:
        link.symlink_to(path)
    gtp.train(replace(args, run_dir="~/own", dataset_path=f"~/{path.name}"))
    assert (tmp_path / "own" / "checkpoint.pt").is_file()
    gtp.train(replace(gtp.resume_args("~/own"), num_updates=3))
    saved = json.loads((tmp_path / "own" / "results.json").read_text())
    assert (saved["update"], saved["args"]["run_dir"]) == (3, str(tmp_path / "own"))
    assert saved["args"]["dataset_path"] == str(link)
    shutil.copy(tmp_path / "own" / "checkpoint.previous.pt", tmp_path / "own" / "at2.pt")
    with pytest.raises(gtp.ArgumentError, match=r"at2\.pt lies in a run's folder"):
        gtp.train(gtp.resume_args("~/own/at2.pt"))
    with pytest.raises(gtp.ArgumentError, match=r"at2\.pt lies in a run's folder"):
        gtp.train(replace(gtp.resume_args(tmp_path / "own" / "at2.pt"), resume="~/own/at2.pt"))
    assert gtp.load_policy("~/own")(np.zeros(3)).shape == (2,)
    assert not Path("~").exists()


def test_every_refused_argument_is_named(run, program):
    code, errors = program("--resume", run(), "--eta", "2", "--tau", "0.5", "--log-freq", "1")
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ") and line.endswith("drop --eta, --tau")


def test_flags_win_over_the_saved_arguments_also_where_they_repeat_a_default(small, program):
    """log_freq is 7 in the run and 500 in Args."""
    gtp.train(small(num_updates=2, log_freq=7, checkpoint_freq=9))
    run_dir = Path(small().run_dir)
    assert program("--resume", run_dir, "--log-freq", "500", "--num-updates", "3")[0] == 0
    saved = json.loads((run_dir / "results.json").read_text())["args"]
    assert (saved["log_freq"], saved["checkpoint_freq"], saved["num_updates"]) == (500, 9, 3)


def test_another_number_of_updates_is_followed_by_the_schedules_and_said(
    small, monkeypatch, capsys
):
    """N(k) asks for the new total from the first update on."""
    gtp.train(small(num_updates=10))
    totals = []
    num_grid_points = gtp.num_grid_points

    def watched(update, num_updates):
        totals.append((update, num_updates))
        return num_grid_points(update, num_updates)

    monkeypatch.setattr(gtp, "num_grid_points", watched)
    capsys.readouterr()
    results = gtp.train(replace(gtp.resume_args(small().run_dir), num_updates=20))
    assert totals == [(update, 20) for update in range(10, 20)]
    assert (results["num_updates"], results["update"], results["exit_code"]) == (20, 20, 0)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert len(warnings) == 1 and "N(k)" in warnings[0] and "--num-updates" in warnings[0]


def test_an_unchanged_number_of_updates_is_not_spoken_of(small, capsys):
    gtp.train(small(num_updates=2))
    gtp.train(replace(gtp.resume_args(small().run_dir), num_updates=2, log_freq=1))
    assert "warning" not in capsys.readouterr().err


def of_a_gpu(run_dir, **arguments):
    """Make a run, after its 4th update, one of a GPU."""
    shutil.copy(run_dir / "checkpoint.previous.pt", run_dir / "checkpoint.pt")

    def change(state):
        state["device"] = "cuda"
        state["results"]["args"] |= {"device": "cuda:0", **arguments}

    alter(run_dir, change)
    return run_dir


def test_a_run_on_a_gpu_goes_on_on_a_cpu_without_compiling(copied, capsys):
    """With a line for that and one for the random numbers, which differ there."""
    run_dir = of_a_gpu(copied(), compile=True, cuda_graphs=True)
    results = gtp.train(replace(gtp.resume_args(run_dir), device="cpu"))
    assert results["status"] == "finished"
    ran = [results["args"][name] for name in ("device", "compile", "cuda_graphs")]
    assert ran == ["cpu", False, False]
    lines = capsys.readouterr().err
    assert "--no-compile" in lines and "other random numbers" in lines


def test_a_run_that_was_not_compiled_may_be_on_a_cpu(copied, capsys):
    """Then nothing is said of it, and --compile wins."""
    run_dir = of_a_gpu(copied())
    args = replace(gtp.resume_args(run_dir), device="cpu", compile=True)
    assert gtp.check_resume(args, gtp.load_checkpoint(run_dir)) == args
    assert capsys.readouterr().err == ""


# ---- which run a resume goes on with ---------------------------------------------------------


@pytest.mark.parametrize("name", ["", "checkpoint.pt", "checkpoint.previous.pt"])
def test_a_run_is_resumed_from_its_directory_or_from_either_checkpoint(
    name, small, program, tmp_path
):
    """From the one before the last the last updates are run again, to the same end."""
    whole = small("whole", checkpoint_freq=5)
    gtp.train(whole)
    gtp.train(small("parts", num_updates=20, checkpoint_freq=5))
    target = tmp_path / "parts" / name
    start = 15 if "previous" in name else 20
    assert gtp.load_checkpoint(target)["results"]["update"] == start
    (tmp_path / "parts" / "results.json").unlink()
    assert program("--resume", target)[0] == 0
    states = [lasting(gtp.load_checkpoint(tmp_path / run)) for run in ("whole", "parts")]
    assert differences(*states) == []
    texts = [(tmp_path / run / "results.json").read_text() for run in ("whole", "parts")]
    assert lasting(json.loads(texts[0])) == lasting(json.loads(texts[1]))
    assert not (tmp_path / "runs").exists()


def test_an_older_checkpoint_of_an_ended_run_replaces_no_newer_results(small, program, tmp_path):
    gtp.train(small(num_updates=20, checkpoint_freq=20))
    gtp.train(replace(gtp.resume_args(tmp_path / "run"), num_updates=21))
    before = (tmp_path / "run" / "results.json").read_bytes()
    code, errors = program("--resume", tmp_path / "run" / "checkpoint.previous.pt")
    assert code == 2
    assert f"would end at update 20, {tmp_path}/run has been at 21; give --resume" in errors
    assert (tmp_path / "run" / "results.json").read_bytes() == before


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"PK")])
def test_an_older_end_replaces_no_newer_results_of_a_folder(damage, small, program, tmp_path):
    """The newest checkpoint is lost, and the one before it is of an earlier end."""
    gtp.train(small(num_updates=20))
    gtp.train(replace(gtp.resume_args(tmp_path / "run"), num_updates=25))
    damage(tmp_path / "run" / "checkpoint.pt")
    before = (tmp_path / "run" / "results.json").read_bytes()
    code, errors = program("--resume", tmp_path / "run")
    assert code == 2 and f"give --resume {tmp_path}/run --num-updates 25" in errors
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert program("--resume", tmp_path / "run", "--num-updates", 25)[0] == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["update"] == 25


def test_going_back_to_end_earlier_is_refused(small, program, tmp_path):
    gtp.train(small(num_updates=20, checkpoint_freq=10))
    older = tmp_path / "run" / "checkpoint.previous.pt"
    code, errors = program("--resume", older, "--num-updates", 15)
    assert code == 2 and "would end at update 15" in errors and "has been at 20" in errors


@pytest.mark.parametrize("name", ["a.pt", "my.ckpt"])
def test_a_folder_is_a_folder_and_a_file_a_file_whatever_they_are_called(
    name, small, program, tmp_path
):
    gtp.train(small(name, num_updates=5))
    assert program("--resume", tmp_path / name, "--num-updates", 7)[0] == 0
    assert json.loads((tmp_path / name / "results.json").read_text())["update"] == 7
    assert not (tmp_path / "results.json").exists()
    (tmp_path / "own").mkdir()
    file = shutil.copy(tmp_path / name / "checkpoint.pt", tmp_path / "own" / name)
    assert program("--resume", file, "--num-updates", 9)[0] == 0
    assert json.loads((tmp_path / "own" / "results.json").read_text())["update"] == 9


def test_going_back_to_the_older_checkpoint_is_said(small, program, tmp_path):
    gtp.train(small(num_updates=20, checkpoint_freq=15))
    code, errors = program("--resume", tmp_path / "run" / "checkpoint.previous.pt")
    assert code == 0
    assert f"{tmp_path}/run is at update 20: those after 15 are run again" in errors


def test_a_checkpoint_by_another_name_takes_no_place_of_a_runs(small, program, tmp_path):
    gtp.train(small("mine"))
    dql.train(small("theirs", script=dql))
    other = shutil.copy(tmp_path / "mine" / "checkpoint.pt", tmp_path / "theirs" / "other.pt")
    before = (tmp_path / "theirs" / "results.json").read_bytes()
    code, errors = program("--resume", other)
    assert code == 2 and "lies in a run's folder; copy it to a folder of its own" in errors
    assert (tmp_path / "theirs" / "results.json").read_bytes() == before
    (tmp_path / "own").mkdir()
    assert program("--resume", shutil.copy(other, tmp_path / "own"))[0] == 0


def test_a_checkpoint_by_another_name_is_resumed_again_after_a_kill(small, program, tmp_path):
    """Before the resumed run has saved a checkpoint of its own."""
    gtp.train(small("mine"))
    (tmp_path / "own").mkdir()
    other = shutil.copy(tmp_path / "mine" / "checkpoint.pt", tmp_path / "own" / "other.pt")
    words = ("--resume", other, "--num-updates", 40)
    assert program(*words)[0] == 0
    for file in (tmp_path / "own").glob("checkpoint*.pt"):
        file.unlink()
    results = tmp_path / "own" / "results.json"
    text = results.read_text()
    assert program(*words)[0] == 0
    (tmp_path / "own" / "checkpoint.pt").unlink()
    results.write_text(text.replace("other.pt", "another.pt"))
    assert program(*words)[0] == 2


def test_a_resume_that_was_overtaken_stops(small, tmp_path, monkeypatch):
    """It read the checkpoint before another resume had ended: its updates are not made again."""
    gtp.train(small())
    twice = gtp.resume_args(tmp_path / "run")
    read_data = gtp.read_data

    def read_slowly(args, state):
        monkeypatch.setattr(gtp, "read_data", read_data)
        gtp.train(replace(twice, num_updates=30))
        return read_data(args, state)

    monkeypatch.setattr(gtp, "read_data", read_slowly)
    with pytest.raises(gtp.InputError, match="has gone on meanwhile; resume it again"):
        gtp.train(replace(twice, num_updates=25))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["update"] == 30


def test_a_resume_by_other_code_or_elsewhere_is_said(small, program, tmp_path):
    """In a line where it may end elsewhere; in the results both are named, each once."""
    first = gtp.train(small())
    _, errors = program("--resume", tmp_path / "run", "--num-updates", 22)
    assert "other code" not in errors
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    keys = ("machine", "commit", "script_sha256", "versions")
    assert [results[key] for key in keys] == [first[key] for key in keys]
    state = gtp.load_checkpoint(tmp_path / "run")
    state["results"] |= {"machine": "a card", "script_sha256": "0" * 64}
    state["results"]["versions"] |= {"torch": "1.0", "mujoco": None}
    gtp.save_checkpoint(tmp_path / "run" / "checkpoint.pt", state)
    said = f"gtp_offline.py has changed, torch is {torch.__version__}) may end elsewhere"
    for updates in (24, 26):
        _, errors = program("--resume", tmp_path / "run", "--num-updates", updates)
        assert (said in errors) is (updates == 24)
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        assert results["machine"] == f"a card, then {first['machine']}"
        assert results["script_sha256"] == "0" * 64 + f", then {first['script_sha256']}"
        assert results["versions"] == first["versions"] | {
            "torch": f"1.0, then {first['versions']['torch']}"
        }


@pytest.mark.parametrize("script", FAMILY.values(), ids=FAMILY)
def test_other_rows_of_the_same_file_are_refused(script, small, tmp_path):
    """A script that was copied alone may drop others than one with offline_tasks beside it."""
    script.train(small(script=script))
    state = script.load_checkpoint(tmp_path / "run")
    state["results"]["dataset"]["transitions"] += 1
    script.save_checkpoint(tmp_path / "run" / "checkpoint.pt", state)
    with pytest.raises(script.InputError, match=r"transitions then, .* now; resume with the files"):
        script.train(replace(script.resume_args(tmp_path / "run"), num_updates=30))


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_results_without_a_checkpoint_are_not_replaced(status, small, tmp_path):
    gtp.train(small())
    for file in (tmp_path / "run").glob("checkpoint*.pt"):
        file.unlink()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    text = json.dumps(results | {"status": status})
    (tmp_path / "run" / "results.json").write_text(text)
    with pytest.raises(gtp.InputError, match="holds the results of a run; name another"):
        gtp.train(small())
    assert (tmp_path / "run" / "results.json").read_text() == text


def test_a_run_killed_before_its_first_checkpoint_is_whole_begins_again(
    small, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def replace_file(source, target):
        if str(target).endswith(".pt"):
            raise Killed
        return os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_file)
        with pytest.raises(Killed):
            gtp.train(small())
    assert gtp.train(small())["update"] == 20


@pytest.mark.parametrize("num_updates", [7, 20])
def test_to_end_a_run_where_it_was_interrupted_is_refused(num_updates, small, program, tmp_path):
    """Its last evaluation would be of an earlier update."""
    gtp.train(small(num_updates=7))
    alter(tmp_path / "run", lambda state: state["results"]["args"].update(num_updates=20))
    code, errors = program("--resume", tmp_path / "run", "--num-updates", num_updates)
    assert code == (2 if num_updates == 7 else 0)
    assert ("has made 7; give more" in errors) == (num_updates == 7)


def test_a_pipe_is_no_checkpoint(program, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    code, errors = program("--resume", tmp_path / "pipe.pt")
    assert code == 2 and "holds no whole checkpoint" in errors


def test_a_resume_finds_its_dataset_from_another_folder(small, dataset, tmp_path, monkeypatch):
    """Though it was given relative to the folder where the run began."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    shutil.copy(dataset, tmp_path / "here" / "mine.npz")
    monkeypatch.chdir(tmp_path / "here")
    gtp.train(small(num_updates=2, dataset_path="mine.npz"))
    monkeypatch.chdir(tmp_path / "there")
    args = replace(gtp.resume_args(tmp_path / "run"), num_updates=3)
    results = gtp.train(args)
    assert results["update"] == 3
    assert results["dataset"]["path"] == str(tmp_path / "here" / "mine.npz")


def test_a_resume_takes_the_same_dataset_from_a_new_place(small, dataset, tmp_path):
    gtp.train(small(num_updates=1))
    moved = shutil.copy(dataset, tmp_path / "moved.npz")
    results = gtp.train(replace(gtp.resume_args(tmp_path / "run"), dataset_path=str(moved)))
    assert results["status"] == "finished" and results["args"]["dataset_path"] == str(moved)


def test_a_run_that_has_ended_resumes_though_its_new_place_is_in_results_alone(
    small, dataset, tmp_path, monkeypatch, capsys
):
    """The checkpoint's own place is another, where nothing need be."""
    old = shutil.copy(dataset, tmp_path / "old.npz")
    gtp.train(small(num_updates=1, dataset_path=str(old)))
    new = shutil.move(old, tmp_path / "new.npz")
    gtp.train(replace(gtp.resume_args(tmp_path / "run"), dataset_path=str(new)))
    capsys.readouterr()
    results = gtp.train(gtp.resume_args(tmp_path / "run"))
    assert results["args"]["dataset_path"] == str(new)
    assert "has ended at update 1: nothing to train" in capsys.readouterr().err
    monkeypatch.setattr(gtp, "load_data", lambda args: pytest.fail("read again"))
    gtp.train(replace(gtp.resume_args(tmp_path / "run"), dataset_path=str(new)))


class Units(str, Enum):
    AUTO = "auto"


class Seed(IntEnum):
    FIRST = 3


@pytest.mark.parametrize("script", FAMILY.values())
def test_numbers_and_words_of_other_kinds_do_not_spoil_a_checkpoint(script, small, tmp_path):
    """A program's np.linspace, np.array and enums, say: torch.load takes them for more than
    weights."""
    args = small(script=script, num_updates=1, env_id=np.str_(""), learning_rate=np.float64(1e-3))
    args = replace(args, divergence_bound=np.float64(np.inf), seed=Seed.FIRST)
    script.train(replace(args, run_dir=np.str_(args.run_dir), action_units=Units.AUTO))
    assert script.load_policy(tmp_path / "run")(np.zeros(3)).shape == (2,)
    saved = script.resume_args(tmp_path / "run")
    assert (saved.learning_rate, saved.divergence_bound, saved.seed) == (1e-3, math.inf, 3)
    assert (saved.action_units, saved.env_id) == ("auto", "")
    kinds = {type(value) for value in vars(saved).values()}
    assert kinds <= {bool, int, float, str}


def test_nothing_to_resume_is_refused(tmp_path):
    for call in (gtp.resume_args, lambda path: gtp.train(gtp.Args(resume=str(path)))):
        with pytest.raises(gtp.ArgumentError, match="absent holds no whole checkpoint"):
            call(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_an_ablations_run_goes_on_with_the_ablation_only(small, program, monkeypatch):
    """The plain script refuses it and names the command that began it."""
    monkeypatch.setattr(sys, "argv", ["ablations/shortcut.py", "--seed", "1", "my file.npz"])
    with monkeypatch.context() as patch:
        patch.setattr(gtp, "VARIANT", "shortcut")
        results = gtp.train(small(num_updates=2))
        assert results["variant"] == "shortcut"
        again = replace(gtp.resume_args(small().run_dir), num_updates=3)
        assert gtp.train(again)["variant"] == "shortcut"
    code, errors = program("--resume", small().run_dir)
    assert code == 2
    (line,) = errors.splitlines()
    assert "'shortcut'" in line
    assert line.endswith("python ablations/shortcut.py --seed 1 'my file.npz'")


def test_a_plain_run_does_not_go_on_as_an_ablation(run, monkeypatch):
    plain = run()
    monkeypatch.setattr(gtp, "VARIANT", "shortcut")
    with pytest.raises(gtp.ArgumentError, match="is a run of ''; go on with: python"):
        gtp.train(gtp.resume_args(plain))


# ---- other versions of the script ------------------------------------------------------------

# What the version that wrote them made of these runs, of 8 updates, from their 4th on.
ENERGY_SCORES = {
    "gtp_offline": {"1": 0.7139979600906372, "2": 0.6174498200416565, "5": 0.589439868927002},
    "diffusion_ql": {"5": 0.6914123892784119},
}
LOSSES = {"gtp_offline": ("actor", 1670.3009), "diffusion_ql": ("bc", 0.8521994)}


def format1_run(name, folder):
    """A run directory with a checkpoint of format 1."""
    run_dir = folder / "old"
    run_dir.mkdir()
    shutil.copy(FORMAT1 / f"{name}.pt", run_dir / "checkpoint.pt")
    return run_dir


@pytest.mark.parametrize("name", ENERGY_SCORES)
def test_a_checkpoint_of_format_1_resumes_to_the_same_end(name, small, tmp_path):
    script = FAMILY[name]
    run_dir = format1_run(name, tmp_path)
    args = replace(script.resume_args(run_dir), dataset_path=str(FORMAT1 / "tiny.npz"))
    results = script.train(args)
    assert (results["status"], results["update"]) == ("finished", 8)
    assert len(results["evaluations"]) == len(results["losses"]) == 1
    scores = results["last"]["energy_score_by_steps"]
    assert scores == pytest.approx(ENERGY_SCORES[name], rel=1e-4)
    loss, expected = LOSSES[name]
    assert results["losses"][0][loss] == pytest.approx(expected, rel=1e-4)
    assert (results["env_id"], results["args"]["env_id"]) == (None, "")
    state = script.load_checkpoint(run_dir)
    assert state["format"] == 2 and state["optimizers"].keys() >= {"actor", "critic"}


@pytest.mark.parametrize("name", ENERGY_SCORES)
def test_a_policy_acts_from_a_checkpoint_of_format_1(name, tmp_path):
    act = FAMILY[name].load_policy(format1_run(name, tmp_path))
    action = act(np.zeros(3))
    assert action.shape == (2,) and np.abs(action).max() <= 1


def test_a_policy_is_exported_from_a_checkpoint_of_format_1(tmp_path):
    """Its results do not say in which units its actions are."""
    arrays, _ = export_policy.export(format1_run("gtp_offline", tmp_path))
    assert arrays["action_bounds"].tolist() == [-1, 1]


def test_a_run_of_format_1_goes_on_as_an_ablation_too(small, tmp_path, monkeypatch):
    """Its checkpoint does not say whether it is of one; the next does."""
    run_dir = format1_run("gtp_offline", tmp_path)
    args = replace(gtp.resume_args(run_dir), dataset_path=str(FORMAT1 / "tiny.npz"))
    with monkeypatch.context() as patch:
        patch.setattr(gtp, "VARIANT", "shortcut")
        assert gtp.train(args)["variant"] == "shortcut"
    with pytest.raises(gtp.ArgumentError, match="is a run of 'shortcut'"):
        gtp.train(args)


def test_unknown_saved_arguments_are_dropped_with_a_line(copied, capsys):
    run_dir = copied()
    known = gtp.resume_args(run_dir)

    def older(state):
        state["results"]["args"] |= {"warp": 9, "bend": None}

    alter(run_dir, older)
    assert gtp.resume_args(run_dir) == known
    (line,) = capsys.readouterr().err.splitlines()
    assert "['bend', 'warp']" in line


def test_a_missing_saved_argument_takes_the_value_that_goes_on_as_before(copied, monkeypatch):
    """From the table of such values, else the default."""
    run_dir = copied()

    def older(state):
        del state["results"]["args"]["huber_c"]
        del state["results"]["args"]["gamma"]

    alter(run_dir, older)
    monkeypatch.setitem(gtp.OLDER, "huber_c", 0.5)
    args = gtp.resume_args(run_dir)
    assert (args.huber_c, args.gamma) == (0.5, 0.99)


@pytest.mark.parametrize("script", FAMILY.values())
def test_a_format_newer_than_known_is_refused(script, copied):
    run_dir = copied(script)
    alter(run_dir, lambda state: state.update(format=script.FORMAT + 1))
    for use in (script.load_policy, script.resume_args):
        with pytest.raises(script.InputError, match="of a newer version of this script"):
            use(run_dir)
