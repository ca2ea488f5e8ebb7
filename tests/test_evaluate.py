"""evaluate.py: a finished run again, by its own values or by others, of all four scripts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, make_dataset, run_script

import consistency_ac
import diffusion_ql
import evaluate
import gtp_bc
import gtp_offline
import offline_tasks
from sweeps import progress

FAMILY = [gtp_offline, gtp_bc, diffusion_ql, consistency_ac]
KEYS = [
    "env_id",
    "num_steps",
    "num_candidates",
    "num_eval_episodes",
    "seed",
    "normalized_score",
    "normalized_score_std",
    "episodic_return",
    "episodic_length",
    "energy_score",
    "scores",
]
# None of these is a default of the scripts, and 5 and 0, which are, are given as flags below.
OWN = {"num_steps": 3, "seed": 3, "num_eval_episodes": 6, "hidden_dim": 8}
HOPPER = "hopper-medium-v2"
OF_CRITIC = {"num_candidates": 3}


def train(script, folder, data, **changes):
    """A run of three updates into `folder`, without pictures -> results.json's content."""
    settings = OWN | {
        "num_updates": 3,
        "eval_freq": 3,
        "batch_size": 8,
        "num_holdout": 24,
        "tensorboard": False,
    }
    if script is not gtp_bc:
        settings |= OF_CRITIC
    settings |= {"run_dir": str(folder)} | changes
    args = script.default_args(dataset_path=str(data), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline_tasks, "plot_run", lambda *args, **kwargs: None)
        return script.train(replace(args, **settings))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """NPZ files by their numbers of columns; without timeouts: a task's step limit cuts them."""
    folder = tmp_path_factory.mktemp("data")
    files = {}
    for dims in ((2, 2), (3, 1), (11, 3)):
        files[dims] = folder / f"{dims[0]}-{dims[1]}.npz"
        arrays = make_dataset(obs_dim=dims[0], action_dim=dims[1])
        arrays.pop("timeouts")
        np.savez(files[dims], **arrays)
    return files


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Run directories by script's name: Hopper, which an untrained policy ends after some 20 steps
    with a score of its own in each episode; and `bare` without a task."""
    folder = tmp_path_factory.mktemp("runs")
    for script in FAMILY:
        train(script, folder / script.__name__, data[11, 3], env_id=HOPPER)
    train(gtp_offline, folder / "bare", data[2, 2], num_candidates=1, eta=0.0)
    return folder


def call(monkeypatch, capsys, *words):
    """main with these words -> exit code, lines on stdout, lines on stderr."""
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
    capsys.readouterr()  # what training printed
    code = evaluate.main()
    output = capsys.readouterr()
    return code, output.out.splitlines(), output.err.splitlines()


def results(run):
    return json.loads((run / "results.json").read_text())


# ---- by the run's own values --------------------------------------------------------------------


@pytest.mark.parametrize("script", FAMILY)
def test_without_flags_the_last_evaluation_comes_back_bit_for_bit(
    script, runs, tmp_path, monkeypatch, capsys
):
    """From the run directory and from the checkpoint; --out has the issue's keys, in order."""
    run = runs / script.__name__
    last = results(run)["last"]
    for number, target in enumerate((run, run / "checkpoint.pt")):
        out = tmp_path / f"{number}.json"
        code, lines, errors = call(monkeypatch, capsys, target, "--out", out)
        assert (code, errors) == (0, [])
        row = json.loads(out.read_text())
        assert list(row) == KEYS
        for key in KEYS[5:-1]:
            assert row[key] == last[key] and row[key] is not None, key
        assert [row["env_id"], row["num_steps"], row["seed"]] == [HOPPER, 3, 3]
        assert row["num_candidates"] == (1 if script is gtp_bc else 3)
        assert row["num_eval_episodes"] == len(row["scores"]) == 6
        assert len(set(row["scores"])) == 6 and row["normalized_score_std"] > 0
        assert np.mean(row["scores"]) == row["normalized_score"]
        assert f"{script.__name__}.py, 3 updates" in lines[0]
        table = dict(line.split() for line in lines[1:])
        assert table.keys() == set(KEYS[:-1])
        assert float(table["energy_score"]) == pytest.approx(row["energy_score"], rel=1e-5)


@pytest.mark.parametrize("script", FAMILY)
def test_final_scores_tell_of_which_update_they_are(script, data, tmp_path, monkeypatch, capsys):
    """Those of the checkpoint before, or made before a resume, are of no use to a report."""
    run = tmp_path / "run"
    changes = {"num_updates": 60, "eval_freq": 60, "checkpoint_freq": 40, "learning_rate": 0.03}
    train(script, run, data[11, 3], env_id=HOPPER, **changes)
    found = {}
    for name in ("checkpoint.previous.pt", "checkpoint.pt"):
        file = tmp_path / f"{name}.json"
        words = ["--num-eval-episodes", 2, "--out", file]
        assert call(monkeypatch, capsys, run / name, *words)[0] == 0
        found[name] = progress.final_fault(file, json.loads(file.read_text()), results(run))
    assert found["checkpoint.pt"] == ""
    assert found["checkpoint.previous.pt"].startswith("it is of another update: energy_score is")


def test_a_task_without_reference_scores_gives_its_returns(data, tmp_path, monkeypatch, capsys):
    last = train(
        gtp_offline, tmp_path / "run", data[3, 1], env_id="Pendulum-v1", num_eval_episodes=2
    )["last"]
    out = tmp_path / "out.json"
    assert call(monkeypatch, capsys, tmp_path / "run", "--out", out)[0] == 0
    row = json.loads(out.read_text())
    assert row["normalized_score"] is None and row["normalized_score_std"] is None
    assert row["episodic_return"] == last["episodic_return"] == np.mean(row["scores"])
    assert len(set(row["scores"])) == 2  # an episode each


def test_without_a_task_the_energy_score_of_the_held_out_rows(runs, tmp_path, monkeypatch, capsys):
    run = runs / "bare"
    out = tmp_path / "out.json"
    code, lines, errors = call(monkeypatch, capsys, run, "--out", out)
    row = json.loads(out.read_text())
    assert (code, errors) == (0, [])
    assert row["energy_score"] == results(run)["last"]["energy_score"] > 0
    for key in ("env_id", "normalized_score", "episodic_return", "episodic_length", "scores"):
        assert row[key] is None
    assert [line.split()[0] for line in lines[1:]] == ["num_steps", "energy_score"]
    assert row["num_eval_episodes"] == 6  # of the run


@pytest.mark.parametrize("name", ["gtp_offline", "diffusion_ql"])
def test_a_checkpoint_of_the_format_before_is_evaluated(name, tmp_path, monkeypatch, capsys):
    """Its dataset is named by a relative path."""
    monkeypatch.chdir(ROOT / "tests" / "fixtures" / "format1")
    code, lines, _ = call(monkeypatch, capsys, f"{name}.pt")
    assert code == 0 and lines[0] == f"{name}.pt: {name}.py, 4 updates"
    assert any("energy_score" in line for line in lines)


# ---- flags ---------------------------------------------------------------------------------------


def test_flags_win_also_where_they_repeat_a_default_of_the_script(
    runs, tmp_path, monkeypatch, capsys
):
    """5 steps, seed 0 and one candidate are the script's defaults and not this run's values."""
    run = runs / "gtp_offline"
    out = tmp_path / "out.json"
    words = ["--num-steps", 5, "--seed", 0, "--num-candidates", 1, "--num-eval-episodes", 4]
    assert call(monkeypatch, capsys, run, "--out", out, *words)[0] == 0
    row = json.loads(out.read_text())
    asked = {"num_steps": 5, "seed": 0, "num_candidates": 1, "num_eval_episodes": 4}
    assert {key: row[key] for key in asked} == asked and len(row["scores"]) == 4
    state = gtp_offline.load_checkpoint(run)
    args = replace(gtp_offline.saved_args(state), **asked)
    nets = gtp_offline.load_networks(state, args)
    _, holdout, _ = gtp_offline.load_data(args)
    expected = gtp_offline.evaluate(nets, args, holdout, 3)
    for key in KEYS[5:-1]:
        assert row[key] == expected[key], key


@pytest.mark.parametrize(
    "flag, value", [("--num-steps", 2), ("--num-candidates", 1), ("--seed", 4)]
)
def test_each_flag_changes_the_episodes(flag, value, runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    assert call(monkeypatch, capsys, runs / "consistency_ac", flag, value, "--out", out)[0] == 0
    last = results(runs / "consistency_ac")["last"]
    assert json.loads(out.read_text())["episodic_return"] != last["episodic_return"]


def test_a_run_without_a_task_plays_the_one_that_is_named(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    words = [runs / "bare", "--env-id", "multigoal-v0", "--out", out]
    assert call(monkeypatch, capsys, *words)[0] == 0
    row = json.loads(out.read_text())
    assert row["env_id"] == "multigoal-v0" and len(row["scores"]) == 6
    assert row["energy_score"] == results(runs / "bare")["last"]["energy_score"]


def test_a_task_can_be_taken_away(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    assert call(monkeypatch, capsys, runs / "gtp_bc", "--env-id", "", "--out", out)[0] == 0
    row = json.loads(out.read_text())
    assert row["env_id"] is None and row["scores"] is None
    assert row["energy_score"] == results(runs / "gtp_bc")["last"]["energy_score"]


def test_its_own_number_of_steps_is_no_other_one(runs, monkeypatch, capsys):
    assert call(monkeypatch, capsys, runs / "diffusion_ql", "--num-steps", 3)[0] == 0


@pytest.mark.parametrize(
    "run, words, message",
    [
        ("diffusion_ql", ["--num-steps", "2"], "in 3 steps and in no other number"),
        ("gtp_bc", ["--num-candidates", "1"], "gtp_bc.py has no critic to choose by"),
        ("gtp_bc", ["--num-candidates", "5"], "gtp_bc.py has no critic to choose by"),
        ("bare", ["--num-candidates", "2"], "has no critic to choose by; give 1"),
        ("bare", ["--num-candidates", "1"], "has no task; give --env-id too"),
        ("bare", ["--num-eval-episodes", "3"], "has no task; give --env-id too"),
        ("bare", ["--seed", "0"], "--seed: "),
        ("bare", ["--video", "a.gif"], "--video: "),
        ("gtp_offline", ["--num-steps", "0"], "--num-steps is 0; give a number from 1"),
        ("gtp_offline", ["--num-eval-episodes", "-1"], "--num-eval-episodes is -1"),
        ("gtp_offline", ["--num-candidates", "0"], "--num-candidates is 0"),
        ("gtp_offline", ["--seed", str(2**64)], f"--seed is {2**64}"),
        ("gtp_offline", ["--device", "cuda:77"], "--device cuda:77 is not to be had"),
        ("gtp_offline", ["--env-id", "multigoal-v7"], "multigoal-v0"),
        ("gtp_offline", ["--env-id", "Pendulum-v1"], "(3, 1) columns, those of"),
        ("gtp_offline", ["--video", "a.avi"], "a.avi: its suffix must be .gif or .mp4"),
        ("gtp_offline", ["--video", "none/a.gif"], "there is no folder none"),
        ("gtp_offline", ["--out", "none/a.json"], "--out none/a.json"),
        ("gtp_offline", ["--out", "checkpoint.pt"], "ends in .json"),
        ("gtp_offline", ["--out", "results.json"], "name another file"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    run, words, message, runs, tmp_path, monkeypatch, capsys
):
    """Before anything is computed or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "energy_score", lambda *args: pytest.fail("computed"))
    code, lines, errors = call(monkeypatch, capsys, runs / run, *words)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert errors[0].startswith("error: ") and message in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--out", "--video"])
def test_a_folder_that_is_read_only_is_met_before_the_episodes(
    flag, runs, tmp_path, monkeypatch, capsys
):
    def refused(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(evaluate, "load_run", lambda path: pytest.fail("read"))
    file = tmp_path / {"--out": "a.json", "--video": "a.gif"}[flag]
    code, lines, errors = call(monkeypatch, capsys, runs / "gtp_offline", flag, file)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert f"{tmp_path} cannot be written to (Read-only file system); name another" in errors[0]


@pytest.mark.parametrize(
    "words", [["--seed", "None"], ["--num-steps", "2.5"], ["--hidden-dim", "8"], ["--eval"], []]
)
def test_what_the_parser_does_not_know_is_exit_code_2(words, runs, monkeypatch, capsys):
    """Also None, which stands for a flag that is not given."""
    run = [runs / "gtp_bc"] if words else []
    with pytest.raises(SystemExit) as raised:
        call(monkeypatch, capsys, *run, *words)
    assert raised.value.code == 2


def test_the_writer_of_a_video_is_asked_for_before_the_run_is_read(runs, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(evaluate, "load_run", lambda path: pytest.fail("read"))
    code, _, errors = call(monkeypatch, capsys, runs / "gtp_bc", "--video", "a.mp4")
    assert code == 2 and len(errors) == 1 and "imageio-ffmpeg" in errors[0]


def test_a_video_shows_the_first_episode(runs, tmp_path, monkeypatch, capsys):
    """With the seeds of the evaluation, and its numbers are printed too."""
    pytest.importorskip("PIL")
    seen = []
    record = offline_tasks.record_video

    def spy(env_id, act, path, seed):
        seen.append((env_id, seed))
        record(env_id, act, path, seed)

    monkeypatch.setattr(offline_tasks, "record_video", spy)
    video = tmp_path / "episode.gif"
    words = [runs / "bare", "--env-id", "multigoal-v0", "--video", video]
    code, lines, _ = call(monkeypatch, capsys, *words)
    assert code == 0 and seen == [("multigoal-v0", 103)]
    assert video.read_bytes()[:4] == b"GIF8" and "normalized_score" in "".join(lines)


# ---- what cannot be read -------------------------------------------------------------------------


def moved(run, folder, data):
    """A copy of a run whose dataset is not where it was."""
    shutil.copytree(run, folder)
    script, state = evaluate.load_run(folder)
    state["results"]["args"]["dataset_path"] = str(data)
    script.save_checkpoint(folder / "checkpoint.pt", state)
    return folder


def test_a_dataset_that_is_gone_takes_the_energy_score_alone(runs, tmp_path, monkeypatch, capsys):
    run = moved(runs / "diffusion_ql", tmp_path / "run", tmp_path / "gone.npz")
    out = tmp_path / "out.json"
    code, lines, errors = call(monkeypatch, capsys, run, "--out", out)
    assert code == 0 and len(errors) == 1
    assert errors[0].startswith("no energy score: dataset ") and "gone.npz" in errors[0]
    row = json.loads(out.read_text())
    assert row["energy_score"] is None and "energy" not in "".join(lines)
    assert row["normalized_score"] == results(runs / "diffusion_ql")["last"]["normalized_score"]


def test_another_dataset_is_not_taken_for_the_runs(runs, data, tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "other.npz", **make_dataset(obs_dim=2, action_dim=2, seed=1))
    run = moved(runs / "bare", tmp_path / "run", tmp_path / "other.npz")
    code, lines, errors = call(monkeypatch, capsys, run)
    assert (code, lines, len(errors)) == (1, [], 1)
    assert "other.npz is not the one that the run was trained on" in errors[0]


def test_a_run_without_task_and_without_held_out_rows_has_nothing_to_measure(
    data, tmp_path, monkeypatch, capsys
):
    train(gtp_bc, tmp_path / "run", data[2, 2], num_holdout=0)
    code, lines, errors = call(monkeypatch, capsys, tmp_path / "run")
    assert (code, lines, len(errors)) == (1, [], 1)
    assert "nothing to measure" in errors[0] and "held out no rows" in errors[0]


def changed(run, folder, **changes):
    """A copy of a run with some of its results changed."""
    shutil.copytree(run, folder)
    script, state = evaluate.load_run(folder)
    state["results"] |= changes
    script.save_checkpoint(folder / "checkpoint.pt", state)
    (folder / "checkpoint.previous.pt").unlink()
    return folder


def test_a_checkpoint_cannot_name_a_module_to_import(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "foreign.py").write_text("open('imported', 'w')")
    run = changed(runs / "gtp_bc", tmp_path / "run", algorithm="foreign")
    code, _, errors = call(monkeypatch, capsys, run)
    assert code == 1 and len(errors) == 1 and "is of 'foreign'" in errors[0]
    assert not (tmp_path / "imported").exists()


def test_an_ablation_is_refused_by_its_name(runs, tmp_path, monkeypatch, capsys):
    run = changed(runs / "gtp_offline", tmp_path / "run", variant="shortcut, 5 steps")
    code, _, errors = call(monkeypatch, capsys, run)
    assert code == 1 and len(errors) == 1 and "ablation 'shortcut, 5 steps'" in errors[0]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(runs, tmp_path, monkeypatch, capsys):
    """With a line; and a single line where both are damaged."""
    run = tmp_path / "run"
    shutil.copytree(runs / "gtp_bc", run)
    os.replace(run / "checkpoint.pt", run / "checkpoint.previous.pt")
    whole = bytearray((run / "checkpoint.previous.pt").read_bytes())
    place = whole.index(bytes(memoryview(weights_of(run)).cast("B")[:64]))
    whole[place] ^= 1  # a bit of a weight: torch.load alone would not notice
    (run / "checkpoint.pt").write_bytes(whole)
    code, lines, errors = call(monkeypatch, capsys, run)
    assert code == 0 and len(errors) == 1 and "checkpoint.pt is damaged" in errors[0]
    assert lines[0].endswith("gtp_bc.py, 3 updates")
    (run / "checkpoint.previous.pt").write_bytes(whole)
    code, lines, errors = call(monkeypatch, capsys, run)
    assert (code, lines, len(errors)) == (2, [], 1) and "no whole checkpoint" in errors[0]


def weights_of(run):
    state = torch.load(run / "checkpoint.previous.pt", weights_only=True)
    return state["nets"]["actor.net.0.weight"].numpy().copy()


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_what_is_no_checkpoint_is_one_line(content, tmp_path, monkeypatch, capsys):
    path = tmp_path / "checkpoint.pt"
    if content is not None:
        path.write_bytes(content)
    code, lines, errors = call(monkeypatch, capsys, path)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert "checkpoint.pt holds no whole checkpoint" in errors[0]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("malicious-pickle-was-run",)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"results": Malicious()}, "checkpoint.pt")
    code, _, errors = call(monkeypatch, capsys, "checkpoint.pt")
    assert code == 1 and len(errors) == 1 and "holds more than weights" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_an_interrupted_write_leaves_the_file_of_before(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    out.write_text("before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, errors = call(monkeypatch, capsys, runs / "gtp_bc", "--out", out)
    reason = "([Errno 28] No space left on device); what was there is kept"
    assert code == 1 and errors == [f"error: {out} cannot be written {reason}"]
    assert out.read_text() == "before"


def test_from_another_folder_in_a_fresh_process(runs, tmp_path):
    options = run_script(ROOT / "evaluate.py", "none", folder=tmp_path, capture_output=True)
    done = subprocess.run(**options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: none holds no whole checkpoint")
    assert done.stderr.count("\n") == 1
