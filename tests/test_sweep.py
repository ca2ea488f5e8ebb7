"""sweep.py: its file, its folders, what it starts, skips, refuses and says; a fake sbatch."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import filelock
import pytest
import torch
from conftest import ROOT

import gtp_offline
import sweep
from sweeps import progress, slurm
from sweeps.reader import SCRIPTS, ArgumentError, read_sweep

SMALL = """
scripts = ["gtp_bc", "gtp_offline"]
tasks = ["multigoal-v0"]
seeds = [1, 0]
"""
SLURM = ["--partition", "gpu", "--time", "24:00:00"]


@pytest.fixture
def write(tmp_path):
    """write(text) -> the file of a sweep."""

    def write(text=SMALL, name="some.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


# ---- the file ------------------------------------------------------------------------------------


def test_runs_are_every_script_task_variant_and_seed_seed_by_seed(write):
    text = SMALL + "[variants.a]\n[variants.b]\nseeds = [7]\nscripts = ['diffusion_ql']\n"
    runs = read_sweep(write(text)).runs
    assert [(run.seed, run.variant, run.script) for run in runs] == [
        (0, "a", "gtp_bc"),
        (0, "a", "gtp_offline"),
        (1, "a", "gtp_bc"),
        (1, "a", "gtp_offline"),
        (7, "b", "diffusion_ql"),
    ]


def test_a_folder_follows_from_the_names():
    run = sweep.Run("gtp_bc", "package.module:Some/Env-v0", "k2", 3, {}, "")
    assert run.folder == Path("gtp_bc/package.module-Some-Env-v0/k2/3")


def test_without_variants_there_is_one(write):
    assert {run.variant for run in read_sweep(write()).runs} == {"default"}


def test_flags_are_merged_from_the_general_to_the_special(write):
    text = """
scripts = ["gtp_bc", "gtp_offline"]
tasks = ["multigoal-v0", "hopper-medium-v2"]
seeds = [0]
[flags]
num_updates = 1
tau = 0.1
gtp_bc.num_updates = 2
multigoal-v0.num_updates = 3
[variants.plain]
[variants.other]
flags = { tau = 0.2, gtp_bc.num_updates = 4 }
"""
    flags = {run.folder.parts[:3]: run.flags for run in read_sweep(write(text)).runs}
    assert flags["gtp_offline", "hopper-medium-v2", "plain"] == {"num_updates": 1, "tau": 0.1}
    assert flags["gtp_bc", "hopper-medium-v2", "plain"] == {"num_updates": 2, "tau": 0.1}
    assert flags["gtp_bc", "multigoal-v0", "plain"] == {"num_updates": 3, "tau": 0.1}
    assert flags["gtp_bc", "multigoal-v0", "other"] == {"num_updates": 4, "tau": 0.2}
    assert flags["gtp_offline", "multigoal-v0", "other"] == {"num_updates": 3, "tau": 0.2}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds", "seed", "unknown key `seed`; did you mean seeds?"),
        ("seeds = [1, 0]", "", "`seeds` is missing"),
        ("[1, 0]", "5", "`seeds` is 5; give a list"),
        ("[1, 0]", "[]", r"`seeds` is []; give a list"),
        ("[1, 0]", "[true]", "`seeds` is [True]"),
        ("[1, 0]", "[-1]", "`seeds` is [-1]"),
        ("[1, 0]", "[1, 1]", "`seeds` has something twice"),
        ('"gtp_bc"', '"gtp_cb"', "unknown script `gtp_cb`; did you mean gtp_bc"),
        ('"gtp_bc"', '"sac"', "known are gtp_offline, gtp_bc, diffusion_ql, consistency_ac"),
        ("seeds", "final_episodes = 1.5\nseeds", "`final_episodes` is 1.5; give a whole number"),
        ("seeds", "final_episodes = true\nseeds", "`final_episodes` is True"),
        ('["multigoal-v0"]', '[""]\nfinal_episodes = 2', "final_episodes: the task '' has no"),
        ("seeds", "flags = 3\nseeds", "`flags` is 3; give a table"),
        ("seeds", "flags.gtp_ac.eta = 1\nseeds", "no script or task of this sweep is `gtp_ac`"),
        ("seeds", "variants.a.flag = {}\nseeds", "variants.a: unknown key `flag`; did you mean fl"),
        ("seeds", "variants = {}\nseeds", "`variants` is empty; name one, [variants.NAME]"),
        ("seeds", "variants.'a/b' = {}\nseeds", "name it by letters"),
        ("seeds", "variants.'..' = {}\nseeds", "name it by letters"),
        ("seeds", "data.multigoal-v1 = 'x'\nseeds", "unknown task `multigoal-v1`; did you mean"),
        ("seeds", "data.multigoal-v0 = 1\nseeds", "`multigoal-v0` is 1; give a text"),
        ("seeds", "data.multigoal-v0 = ''\nseeds", "the file of multigoal-v0 is ''; name it"),
        ('["multigoal-v0"]', '["a:b", "a/b"]', "2 runs would share the folder"),
        ("seeds", "= seeds", "is no TOML file"),
    ],
)
def test_a_bad_file_is_refused_by_name(write, old, new, words):
    path = write(SMALL.replace(old, new, 1))
    with pytest.raises(ArgumentError) as caught:
        read_sweep(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_names_the_presets(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ArgumentError, match=r"did you mean sweeps/smoke\.toml"):
        read_sweep("sweeps/smok.toml")


PRESETS = {
    "table1": 225,
    "table2": 225,
    "table5": 90,
    "standins": 48,
    "standins-short": 8,
    "smoke": 8,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_its_scripts_take(name, tmp_path):
    plan = read_sweep(ROOT / "sweeps" / f"{name}.toml")
    for run in plan.runs:
        if run.data:
            (tmp_path / run.data).write_bytes(b"")
    jobs = sweep.prepare(plan, tmp_path / "out", tmp_path)
    assert len(jobs) == PRESETS[name]
    assert {path.stem for path in (ROOT / "sweeps").glob("*.toml")} == set(PRESETS)


def test_the_smoke_sweep_takes_as_long_in_the_docs_as_in_its_file():
    for file in ("sweeps/smoke.toml", "docs/sweeps.md"):
        text = (ROOT / file).read_text()
        assert text.count("about a minute") == text.count(" minute") - text.count(" minutes") == 1


def test_table1_clones_and_table5_has_two_numbers_of_steps(tmp_path):
    jobs = sweep.prepare(read_sweep(ROOT / "sweeps/table1.toml"), tmp_path, None)
    assert {job.args.eta for job in jobs if job.run.script != "gtp_bc"} == {0.0}
    jobs = sweep.prepare(read_sweep(ROOT / "sweeps/table5.toml"), tmp_path, None)
    assert {(job.run.variant, job.args.num_steps) for job in jobs} == {("default", 5), ("k2", 2)}


# ---- what the scripts say of it ------------------------------------------------------------------


def prepare(path, data=None):
    return sweep.prepare(read_sweep(path), path.parent / "out", data)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("num_update = 3", "gtp_bc.py has no flag `num_update`; did you mean num_updates"),
        ("gtp_bc.eta = 3", "gtp_bc.py has no flag `eta`"),
        ("seed = 3", "`seed` is not a flag for [flags]: the sweep sets it"),
        ("dataset_path = 'x'", "the sweep sets it; name the file of a task under [data]"),
        ("num_updates = 'many'", "gtp_bc.py: `num_updates` is 'many'; give a whole number"),
        ("num_updates = 2.5", "`num_updates` is 2.5; give a whole number"),
        ("num_updates = true", "`num_updates` is True; give a whole number"),
        ("tau = [0.5]", "`tau` is [0.5]; give a number"),
        ("compile = 1", "`compile` is 1; give true or false"),
        ("compile = 'true'", "`compile` is 'true'; give true or false"),
        ("wandb_project = false", "`wandb_project` is False; give a text"),
        ("tau = 7", "--tau is 7.0; give a number from 0 to 1"),
        ("t_sampling = 'normal'", "is 'normal'; give 'lognormal' or 'uniform'"),
        ("num_updates = [1, 2]", "`num_updates` is [1, 2]; give a whole number"),
    ],
)
def test_a_bad_flag_is_refused_before_anything_starts(write, capfd, flag, words):
    path = write(f"{SMALL}[flags]\n{flag}\n")
    with pytest.raises(ArgumentError) as caught:
        prepare(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not (path.parent / "out").exists()


@pytest.mark.parametrize("command", ["run", "slurm"])
def test_runs_of_other_code_are_said_once_for_a_script(command, write, monkeypatch, capsys):
    """They have ended, and count."""
    path = write()
    digest = sweep.sha256_of(ROOT / "gtp_bc.py")
    jobs = [job for job in prepare(path) if job.run.script == "gtp_bc"]
    for job in jobs:
        put(job, script_sha256=f"{'0' * 64}, then {digest}")
    words = ["run", path, "--out", path.parent / "out", "--dry-run"]
    words = [command, *words[1:], *(SLURM if command == "slurm" else [])]
    assert main(monkeypatch, *words) == 0
    assert capsys.readouterr().err == ""
    for job in jobs:
        put(job, script_sha256=f"{digest}, then {'0' * 64}")
    assert main(monkeypatch, *words) == 0
    what = "gtp_bc.py has changed since runs of it have ended (2)"
    said = f"warning: {what}; to train one anew, remove its folder: {jobs[0].run_dir}\n"
    assert capsys.readouterr().err == said
    for job in jobs:
        put(job, status="interrupted", script_sha256="0" * 64)  # a resume will say it
    assert main(monkeypatch, *words) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["run", "slurm"])
def test_a_flag_without_effect_is_said_once_before_the_runs(command, write, monkeypatch, capsys):
    """In a GPU's run --cuda-graphs may have one: the check alone is on the CPU."""
    flags = "reward_scale = 2\ngtp_offline.max_weight = 7.0\ncompile = true\ncuda_graphs = true\n"
    path = write(f"final_episodes = 9\n{SMALL}[flags]\n{flags}[variants.a]\n[variants.b]\n")
    monkeypatch.setattr(torch, "__version__", "2.11")
    words = [command, path, "--out", path.parent / "out", "--dry-run"]
    assert main(monkeypatch, *words, *(SLURM if command == "slurm" else [])) == 0
    assert capsys.readouterr().err.splitlines() == [
        "gtp_bc.py: warning: --reward-scale 2.0 has no effect in gtp_bc.py",
        "gtp_offline.py: warning: --max-weight 7.0 has no effect with --eta 0",
        "gtp_offline.py: warning: --reward-scale 2.0 has no effect with --eta 0 --num-candidates 1",
    ]
    assert main(monkeypatch, "status", path, "--out", path.parent / "out") == 0
    assert capsys.readouterr().err == ""
    jobs = prepare(write(f"{SMALL}[flags]\ncompile = true\ncuda_graphs = true\ndevice = 'cpu'\n"))
    assert jobs[0].warnings == ("warning: --cuda-graphs has no effect with --device cpu",)


def test_every_seed_of_a_list_is_checked(write):
    """2^63 - 1 is the largest that torch takes."""
    assert len(prepare(write(SMALL.replace("1, 0", f"3, {2**63 - 1}")))) == 4
    with pytest.raises(ArgumentError, match=f"--seed is {2**63}; give a number from 0 to"):
        prepare(write(SMALL.replace("1, 0", f"3, {2**63}, 4")))


def test_an_unknown_task_is_refused_with_near_ones(write):
    with pytest.raises(ArgumentError, match=r"multigaol-v0.*multigoal-v0"):
        prepare(write(SMALL.replace("multigoal", "multigaol")))


def test_flags_become_words_and_the_scripts_own_defaults_stay(write):
    flags = "num_updates = 7\ncompile = false\nreward_shift = -0.5\ngtp_offline.max_weight = inf\n"
    jobs = prepare(write(f"{SMALL}[flags]\n{flags}"))
    args = jobs[1].args
    assert (args.num_updates, args.reward_shift, args.max_weight) == (7, -0.5, float("inf"))
    assert [job.args.seed for job in jobs] == [0, 0, 1, 1]
    assert args.eta == 0  # multigoal's
    words = sweep.start_words(jobs[0])
    assert words[words.index("--num-updates") + 1] == "7"
    assert "--no-compile" in words


def test_data_is_needed_where_the_file_names_some(write, tmp_path):
    path = write(f"{SMALL}[data]\nmultigoal-v0 = 'a.npz'\n")
    with pytest.raises(ArgumentError, match="add --data DIR"):
        prepare(path)
    with pytest.raises(ArgumentError, match=r"a\.npz.* is not there"):
        prepare(path, tmp_path)
    (tmp_path / "a.npz").write_bytes(b"")
    jobs = prepare(path, tmp_path)
    assert jobs[0].args.dataset_path == str(tmp_path / "a.npz")


# ---- what lies in a folder -----------------------------------------------------------------------


def put(job, **changes):
    """results.json of a finished run of these arguments, but for changes."""
    args = json.loads(json.dumps(asdict(job.args)).replace("Infinity", '"inf"'))
    results = {"algorithm": job.run.script, "variant": "", "status": "finished", "args": args}
    results |= {"seed": job.run.seed}
    results |= {"update": job.args.num_updates, "num_updates": job.args.num_updates}
    results |= {"updates_per_second": 2.0, "updated": time.time(), "best_by": "energy_score"}
    results |= {"last": {"energy_score": 2.25}, "best": {"energy_score": 1.5}}
    results["args"] |= changes.pop("args", {})
    job.run_dir.mkdir(parents=True, exist_ok=True)
    (job.run_dir / "results.json").write_text(json.dumps(results | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"args": {"tau": 0.25}}, "run than this sweep's: tau 0.25, not 0.005"),
        ({"args": {"num_updates": 12}}, "num_updates 12, not 4000"),
        ({"args": {"dataset_path": "/a/b.npz"}}, "dataset_path 'b.npz', not ''"),
        ({"args": {"gamma": 0.5, "eta": 9.0}}, "eta 9.0, not 0.0; gamma 0.5, not 0.99;"),
        ({"args": {"max_weight": 3.0}}, "max_weight 3.0, not inf"),
        ({"algorithm": "gtp_bc"}, "algorithm 'gtp_bc', not 'gtp_offline'"),
        ({"variant": "shortcut"}, "ablation 'shortcut', not ''"),
        ({"seed": 7}, "seed 7, not 0"),
        ({"seed": None}, "holds no results of a run (no seed in results.json); give another --out"),
        ({"algorithm": None}, "(no algorithm in results.json)"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_with_the_difference(write, changes, words):
    path = write(f"{SMALL}[flags]\ngtp_offline.max_weight = inf\n")
    job = prepare(path)[1]
    put(job)
    assert prepare(path)  # its own
    put(job, **changes)
    with pytest.raises(ArgumentError) as caught:
        prepare(path)
    assert words in str(caught.value)
    assert str(job.run_dir) in str(caught.value)


def test_a_finished_file_of_something_else_is_refused(write, monkeypatch, capsys):
    """Not counted as a finished run."""
    path = write()
    out = path.parent / "out"
    for job in prepare(path):
        job.run_dir.mkdir(parents=True)
        (job.run_dir / "results.json").write_text('{"status": "finished"}')
    assert main(monkeypatch, "run", path, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    said = "holds no results of a run (no algorithm, seed, args in results.json)"
    assert line.startswith(f"error: {out}/gtp_bc/multigoal-v0/default/0 {said}")


def test_without_results_a_checkpoint_says_what_a_folder_holds(write, monkeypatch):
    path = write()
    job = prepare(path)[1]
    put(job)
    results = progress.read_results(job.run_dir)
    results["args"] |= {"max_weight": 20.0, "tau": 0.25}
    (job.run_dir / "results.json").unlink()
    (job.run_dir / "checkpoint.pt").write_bytes(b"")
    monkeypatch.setattr(gtp_offline, "load_checkpoint", lambda run_dir: {"results": results})
    with pytest.raises(ArgumentError, match=r"tau 0\.25, not 0\.005"):
        prepare(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda"},
        {"run_dir": "elsewhere"},
        {"num_threads": 4},
        {"compile": True},
        {"dataset_path": None},
    ],
)
def test_what_a_machine_or_a_resume_may_change_is_no_difference(write, changes):
    path = write()
    put(prepare(path)[1], args=changes)
    prepare(path)


def test_a_moved_data_folder_is_no_difference(write, tmp_path):
    path = write(f"{SMALL}[data]\nmultigoal-v0 = 'a.npz'\n")
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npz").write_bytes(b"")
    put(prepare(path, tmp_path / "old")[0])
    prepare(path, tmp_path / "new")


def test_a_link_to_the_data_is_known_by_the_sweeps_name_and_by_its_contents(
    write, tmp_path, monkeypatch, capsys
):
    """As in a store of git-annex or DVC, whose names are hashes; older runs have those."""
    path = write(f"{SMALL}[data]\nmultigoal-v0 = 'a.npz'\n")
    (tmp_path / "5f2e").write_bytes(b"old")
    (tmp_path / "a.npz").symlink_to(tmp_path / "5f2e")
    job = prepare(path, tmp_path)[0]
    assert job.data_path == str(tmp_path / "a.npz")
    dataset = {"sha256": hashlib.sha256(b"old").hexdigest()}
    put(job, args={"dataset_path": str(tmp_path / "5f2e")}, dataset=dataset)
    prepare(path, tmp_path)
    put(job, args={"dataset_path": str(tmp_path / "5f2e")}, dataset=dataset)
    assert main(monkeypatch, "status", path, "--out", job.run_dir.parents[3]) == 0
    assert "3 waiting, 1 finished" in capsys.readouterr().out  # which has no --data to look at
    put(job, args={"dataset_path": str(tmp_path / "5f2e")})
    with pytest.raises(ArgumentError, match=r"dataset_path '5f2e', not 'a.npz'"):
        prepare(path, tmp_path)


def test_another_file_of_the_same_name_is_refused(write, tmp_path, monkeypatch, capsys):
    """Also one that keeps the time and the size of the first; each file is read once."""
    path = write(f"{SMALL}[data]\nmultigoal-v0 = 'a.npz'\n")
    (tmp_path / "a.npz").write_bytes(b"old")
    time_of_old = (tmp_path / "a.npz").stat().st_mtime
    jobs = prepare(path, tmp_path)
    old = hashlib.sha256(b"old").hexdigest()
    for job in jobs[:3]:
        put(job, dataset={"sha256": old})
    sweep.digest_of.cache_clear()
    prepare(path, tmp_path)
    assert sweep.digest_of.cache_info()[:2] == (2, 1)  # hits, misses
    (tmp_path / "a.npz").write_bytes(b"new")
    os.utime(tmp_path / "a.npz", (time_of_old, time_of_old))
    sweep.digest_of.cache_clear()
    new = hashlib.sha256(b"new").hexdigest()
    said = f"the data have SHA-256 {old[:8]}, not {new[:8]} as {tmp_path / 'a.npz'} has now; give"
    for command in ("run", "slurm"):
        words = [path, "--out", path.parent / "out", "--data", tmp_path]
        assert main(monkeypatch, command, *words, *(SLURM if command == "slurm" else [])) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{jobs[0].run_dir} holds another run" in line and said in line
    assert main(monkeypatch, "status", *words) == 0
    assert "3 another run, 1 waiting" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)  # where the name alone is that of a file
    assert main(monkeypatch, "status", *words[:-2]) == 0
    assert "3 finished, 1 waiting" in capsys.readouterr().out


JUNK = {"status": "running", "updated": "now", "update": [], "num_updates": "9", "last": 3}
JUNK |= {"updates_per_second": "inf", "best": {"a": "b"}, "best_by": "a"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"status": "finished"}',
        '{"status": ["finished"], "args": {"tau": [1]}, "algorithm": 1}',
        json.dumps(JUNK),
        json.dumps(dict.fromkeys(JUNK, 10**400) | {"status": "running"}),
        json.dumps(dict.fromkeys(JUNK, float("nan")) | {"status": "running"}),
        "\udce4",
    ],
)
def test_results_that_are_no_results_are_no_traceback(write, text):
    job = prepare(write())[0]
    job.run_dir.mkdir(parents=True)
    (job.run_dir / "results.json").write_bytes(text.encode(errors="surrogateescape"))
    with contextlib.suppress(ArgumentError):
        prepare(write())
    known = progress.Progress(read_sweep(write()), job.run_dir.parents[3])
    states = known.states({job.run.folder})
    assert known.row(job.run.folder, states[job.run.folder])[2:] in EMPTY


def test_an_end_beyond_all_time_is_left_out(write):
    job = prepare(write())[0]
    put(job, status="running", num_updates=1e300)
    known = progress.Progress(read_sweep(write()), job.run_dir.parents[3])
    assert known.row(job.run.folder, "running")[4] == ""


EMPTY = [[""] * 5, ["", "", "", "", "0"]]


@pytest.mark.parametrize(
    ("results", "age", "state"),
    [
        (None, None, "waiting"),
        ({"status": "running"}, 0, "running"),
        ({"status": "running"}, 301, "lost"),
        ({"status": "running"}, None, "lost"),
        ({"status": "interrupted"}, 1e9, "interrupted"),
        ({"status": "diverged"}, 1e9, "diverged"),
    ],
)
def test_the_state_of_a_run_is_in_its_results(results, age, state):
    if age is not None:  # seconds since its results were written
        results = results | {"updated": time.time() - age}
    assert progress.state_of(results) == state


# ---- what is done next ---------------------------------------------------------------------------


@pytest.fixture
def job(write):
    return prepare(write(f"final_episodes = 9\n{SMALL}[flags]\ncheckpoint_freq = 3\n"))[0]


def test_the_status_of_a_sweep_that_has_not_begun_says_so(write, monkeypatch, capsys, tmp_path):
    out = tmp_path / "none"
    assert main(monkeypatch, "status", write(), "--out", out) == 0
    output = capsys.readouterr().out
    assert f"no run has begun: there is no folder {out}\n" in output and "waiting" in output


def test_a_run_without_results_is_started(job):
    command = sweep.next_command(job)
    assert command[0] == "gtp_bc.py"
    assert command[1:] == sweep.start_words(job)


def test_a_run_that_has_saved_is_resumed_with_what_a_resume_may_change(job):
    put(job, status="running")
    (job.run_dir / "checkpoint.previous.pt").write_bytes(b"")
    resume = ["--resume", str(job.run_dir), "--device", "auto", "--checkpoint-freq", "3"]
    assert sweep.next_command(job) == ["gtp_bc.py", *resume]


def test_a_flag_that_the_sweep_no_longer_names_is_the_tasks_again_in_a_resume(job):
    """What a resume may change; the rest makes it another run (refuse_another)."""
    put(job, status="interrupted", args={"log_freq": 7, "tensorboard": False, "track": True})
    (job.run_dir / "checkpoint.pt").write_bytes(b"")
    usual = ["--log-freq", str(job.args.log_freq), "--tensorboard", "--no-track"]
    words = sweep.next_command(job)[4:]  # behind script, --resume RUN and --device
    assert words[:1] == ["auto"] and words[1:] == [*usual, "--checkpoint-freq", "3"]


def test_a_resume_keeps_what_follows_from_the_device(job):
    """The run may see another one than this process: without --gpus none but the CPU."""
    ours = vars(job.args)
    other = {name: not ours[name] for name in ("compile", "cuda_graphs")}
    put(job, status="interrupted", args=other | {"device": "cuda"})
    (job.run_dir / "checkpoint.pt").write_bytes(b"")
    words = sweep.next_command(job)
    assert words[3:] == ["--device", "auto", "--checkpoint-freq", "3"]


def test_final_scores_are_of_the_sweeps_own_file(write, tmp_path):
    """Wherever it lies by now: its energy score is of held-out rows."""
    (tmp_path / "a.npz").touch()
    text = "scripts = ['gtp_bc']\ntasks = ['multigoal-v0']\nseeds = [0]\nfinal_episodes = 9\n"
    (job,) = prepare(write(text + "data.multigoal-v0 = 'a.npz'\n"), tmp_path)
    command = sweep.score_command(job)
    assert command[command.index("--dataset-path") + 1] == str(tmp_path / "a.npz")


def test_a_finished_run_only_gets_the_scores_that_it_lacks(job):
    put(job)
    command = sweep.next_command(job)
    assert command[:4] == ["evaluate.py", str(job.run_dir), "--num-eval-episodes", "9"]
    assert command[-2:] == ["--out", str(job.run_dir / "final_scores.json")]
    results = json.loads((job.run_dir / "results.json").read_text())
    scores = {name: results.get(name) for name in ("env_id", "seed")}
    scores |= {"num_eval_episodes": 9, "scores": [1.0] * 9}
    others = [{"num_eval_episodes": 8}, {"seed": 77}, {"env_id": "hopper-medium-v0"}]
    others += [{"num_steps": 99}, {"scores": None}, {"energy_score": 2.5}]
    for another in others:
        gtp_offline.write_json(job.run_dir / "final_scores.json", scores | another)
        assert sweep.next_command(job) == command
    gtp_offline.write_json(job.run_dir / "final_scores.json", scores)
    assert sweep.next_command(job) == []
    more = scores | {"num_eval_episodes": 10}
    gtp_offline.write_json(job.run_dir / "final_scores.json", more)
    assert sweep.next_command(job) == []
    gtp_offline.write_json(job.run_dir / "results.json", results | {"updated": 1e11})
    gtp_offline.write_json(job.run_dir / "final_scores.json", scores | {"energy_score": 2.25})
    assert sweep.next_command(job) == []  # by an energy score the clock does not matter
    gtp_offline.write_json(job.run_dir / "final_scores.json", scores)
    os.utime(job.run_dir / "final_scores.json", (1e9, 1e9))  # a resume has gone on since
    gtp_offline.write_json(job.run_dir / "results.json", results | {"updated": 1_000_000_001})
    assert sweep.next_command(job) == command


def test_a_copy_of_an_earlier_sweep_is_replaced_with_a_word(write, tmp_path, capsys):
    read = read_sweep(write())
    for _ in range(2):
        sweep.keep_copy(read, tmp_path / "out")
        assert capsys.readouterr().err == ""
    copy = tmp_path / "out" / f"{read.name}.toml"
    copy.write_text("# mine")
    sweep.keep_copy(read, tmp_path / "out")
    assert f"{copy}, of an earlier sweep, is replaced by {read.path}" in capsys.readouterr().err
    assert copy.read_bytes() == read.path.read_bytes()


def test_a_device_of_no_kind_is_refused_and_an_absent_one_is_not(write):
    with pytest.raises(ArgumentError, match="`device` is 'foo'; give auto, cpu, cuda or cuda:1"):
        prepare(write(f"{SMALL}[flags]\ndevice = 'foo'\n"))
    assert prepare(write(f"{SMALL}[flags]\ndevice = 'cuda:1'\n"))


def test_a_diverged_run_is_left_alone(job):
    put(job, status="diverged")
    assert sweep.next_command(job) == []


# ---- the worker, with scripts that need no training ----------------------------------------------

FAKE = """
import json, os, signal, sys, time
from pathlib import Path
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run_dir = Path(words.get("--run-dir") or words.get("--resume") or sys.argv[1])
results = run_dir / "results.json"
def say(status):
    results.write_text(json.dumps({"status": status, "updated": time.time()}))
mode = (Path(__file__).parent / "mode").read_text()
print("as told:", mode, flush=True)
say("running")
if mode == "crash":
    sys.exit("no luck")
if mode == "stopped":
    os.kill(os.getpid(), signal.SIGTERM)
if mode == "diverge":
    say("diverged")
    sys.exit(1)
if mode == "wait":
    def stop(number, frame):
        print("stopping after this update", flush=True)
        signal.signal(number, signal.SIG_DFL)
        time.sleep(1.5)
        say("interrupted")
        (run_dir / "checkpoint.pt").touch()
        os._exit(128 + number)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    (run_dir / "ready").touch()
    time.sleep(60)
say("finished")
"""


@pytest.fixture
def fake(write, monkeypatch, tmp_path):
    """fake(mode) -> the jobs of SMALL, whose scripts crash, diverge, wait or finish as told."""
    jobs = prepare(write())
    folder = tmp_path / "fake"
    folder.mkdir()
    for name in ("gtp_bc", "gtp_offline"):
        (folder / f"{name}.py").write_text(FAKE)
    monkeypatch.setattr(sweep, "ROOT", folder)

    def make(mode):
        (folder / "mode").write_text(mode)
        return jobs

    return make


def test_a_run_that_crashes_is_tried_twice_and_its_last_line_shown(fake, write):
    job = fake("crash")[0]
    assert sweep.work(job, [])
    assert (job.run_dir / "attempts").read_text() == "2\n"
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 2
    assert sweep.work(job, [])  # no third time
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 2
    known = progress.Progress(read_sweep(write()), job.run_dir.parents[3])
    states = known.states()
    assert states[job.run.folder] == "failed"
    assert "failed 2 times: no luck" in known.complaints(states)[0]


def test_a_finished_run_without_a_checkpoint_has_another_remedy(write, tmp_path):
    """To play it again would fail for ever."""
    job = prepare(write())[0]
    put(job)
    (job.run_dir / "attempts").write_text("2\n")
    path = write(f"final_episodes = 5\n{SMALL}", "final.toml")
    known = progress.Progress(read_sweep(path), job.run_dir.parents[3])
    words = "\n".join(known.complaints(known.states()))
    assert "move it away, or drop final_episodes" in words and "remove" not in words


def test_a_resume_to_more_updates_is_the_sweeps_with_more(write, capsys):
    """It keeps the eval_freq of fewer, which the sweep has not set, and that is said."""
    job = prepare(write())[0]
    put(job, args={"eval_freq": job.args.eval_freq + 1})
    capsys.readouterr()
    prepare(write())
    found = sorted(map(str, (job.args.eval_freq, job.args.eval_freq + 1)))
    said = f"--eval-freq is {' and '.join(found)} in its runs; those that are there keep theirs"
    assert said in capsys.readouterr().err
    for other in prepare(write()):
        put(other, args={"eval_freq": other.args.eval_freq + 1})
    capsys.readouterr()
    prepare(write())
    assert capsys.readouterr().err == ""  # all alike
    with pytest.raises(ArgumentError, match="eval_freq"):
        prepare(write(f"{SMALL}flags.eval_freq = 7\n", "frequent.toml"))


@pytest.mark.parametrize("task", ["Pendulum-v1", ""])
@pytest.mark.parametrize("script", ["gtp_bc", "gtp_offline"])
def test_a_task_without_data_is_refused_before_anything_starts(write, tmp_path, script, task):
    """ "" would be the script's own default task."""
    text = f"scripts = ['{script}']\ntasks = ['{task}']\nseeds = [0]\n"
    said = f"the task '{task}' has no data of its own; name a file below --data DIR under .data.$"
    with pytest.raises(ArgumentError, match=said):
        prepare(write(text))
    (tmp_path / "a.npz").touch()
    (job,) = prepare(write(f"{text}data.'{task}' = 'a.npz'\n", "with.toml"), tmp_path)
    assert job.data_path == str(tmp_path / "a.npz")


def test_a_run_that_is_given_up_is_not_said_to_start(write, tmp_path):
    """By the threads, which look at every run."""
    jobs = prepare(write())
    shown = progress.Progress(read_sweep(write()), tmp_path / "out")
    jobs[0].run_dir.mkdir(parents=True)
    folder = jobs[0].run.folder
    assert shown.state(folder, [folder]) == "starting"
    # Minutes without a word, in a long evaluation: it runs as long as this process works on it.
    silent = {"status": "running", "updated": time.time() - 2 * progress.LOST_AFTER}
    (jobs[0].run_dir / "results.json").write_text(json.dumps(silent))
    assert (shown.state(folder, [folder]), shown.state(folder)) == ("running", "lost")
    (jobs[0].run_dir / "attempts").write_text(f"{sweep.MOST_ATTEMPTS}\n")
    assert shown.state(folder, [folder]) == shown.state(folder) == "failed"


def test_a_run_without_a_task_has_as_deep_a_folder(write, tmp_path):
    (tmp_path / "a.npz").touch()
    path = write("scripts = ['gtp_bc']\ntasks = ['']\nseeds = [0]\ndata.'' = 'a.npz'\n")
    (job,) = prepare(path, tmp_path)
    assert str(job.run.folder) == "gtp_bc/file/default/0"
    assert "--env-id" not in sweep.start_words(job)


def test_a_run_that_crashed_once_is_tried_once_more(fake):
    job = fake("crash")[0]
    job.run_dir.mkdir(parents=True)
    (job.run_dir / "attempts").write_text("1\n")
    sweep.work(job, [])
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 1
    assert (job.run_dir / "attempts").read_text() == "2\n"


@pytest.mark.parametrize("script", ["evaluate", "gtp_bc"])
def test_what_succeeds_and_changes_nothing_is_not_begun_again(script, fake, write, monkeypatch):
    """Scores that do not count, made while the run's clock was ahead: once, and a line says why."""
    job = replace(fake("")[0], final_episodes=9)
    scores = {"num_eval_episodes": 9, "scores": [1.0]}
    text = "import sys; from pathlib import Path; out = Path(sys.argv[-1])\n"
    text += f"if out.suffix: out.write_text({json.dumps(scores)!r})\n"
    (sweep.ROOT / f"{script}.py").write_text(text)
    if script == "evaluate":
        put(job, updated=time.time() + 1000)
    monkeypatch.setattr(sweep, "next_command", only_so_often(sweep.next_command, 5))
    sweep.work(job, [])
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 1
    assert not (job.run_dir / "attempts").exists()
    known = progress.Progress(
        read_sweep(write(f"final_episodes = 9\n{SMALL}")), write().parent / "out"
    )
    said = [f"{job.run_dir}/final_scores.json does not count: it is older than the run's end"]
    assert known.complaints(known.states()) == (said if script == "evaluate" else [])


def only_so_often(function, most):
    """A function that fails when it is called too often."""
    calls = []

    def call(*given):
        calls.append(given)
        assert len(calls) <= most, "an endless loop"
        return function(*given)

    return call


def test_a_run_that_diverges_has_not_crashed(fake):
    job = fake("diverge")[0]
    sweep.work(job, [])
    assert not (job.run_dir / "attempts").exists()
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 1


def test_a_run_whose_lock_is_held_is_waited_for(fake):
    job = fake("finish")[0]
    job.run_dir.mkdir(parents=True)
    lock = filelock.FileLock(job.run_dir / ".lock")
    lock.acquire()
    assert not sweep.work(job, [])
    looks = []

    def show(active):
        looks.append(active)
        if len(looks) == 3:
            assert not (job.run_dir / "log.txt").exists()
            lock.release()

    sweep.work_through([job], [None], [], show)
    assert progress.read_results(job.run_dir)["status"] == "finished"
    assert not (job.run_dir / "attempts").exists()


def test_a_run_that_a_person_has_stopped_has_not_crashed(fake):
    job = fake("stopped")[0]
    sweep.work(job, [])
    assert not (job.run_dir / "attempts").exists()
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 1


def test_two_workers_never_take_one_run(fake):
    job = fake("wait")[0]
    signals = []
    first = threading.Thread(target=sweep.work, args=(job, signals))
    first.start()
    while not (job.run_dir / "ready").exists():
        time.sleep(0.02)
    assert not sweep.work(job, [])
    signals.append(signal.SIGTERM)
    first.join()
    assert (job.run_dir / "log.txt").read_text().count("$ python") == 1


def test_each_process_sees_its_gpu_and_one_thread(fake, monkeypatch):
    seen = []
    monkeypatch.setattr(
        subprocess, "Popen", lambda words, env, **rest: seen.append(env) or FinishedProcess()
    )
    jobs = fake("finish")
    sweep.call(["gtp_bc.py"], made(jobs[0].run_dir), [], "3")
    assert seen[0]["CUDA_VISIBLE_DEVICES"] == "3"
    assert seen[0]["OMP_NUM_THREADS"] == "1"


class FinishedProcess:
    def poll(self):
        return 0

    wait = poll


def made(folder):
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("gpus", "per_gpu", "workers", "slots"),
    [
        ("", 1, 3, ["", "", ""]),
        ("0,1", 2, 0, ["0", "1", "0", "1"]),
        ("0,1", 5, 3, ["0", "1", "0"]),
        ("0,1", 5, 0, ["0", "1"] * 3),  # there are six runs
    ],
)
def test_runs_are_spread_over_the_gpus(gpus, per_gpu, workers, slots):
    options = sweep.RunOptions(sweep=Path(), gpus=gpus, per_gpu=per_gpu, workers=workers)
    assert sweep.gpu_slots(options, 6) == slots


# ---- signals -------------------------------------------------------------------------------------


def as_a_program(words, out):
    """In a child process: sweep.py in a session of its own, as from a shell."""
    os.setsid()
    sys.argv = ["sweep.py", *map(str, words)]
    with open(out, "w") as said, contextlib.redirect_stdout(said):
        sys.exit(sweep.main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_signal_reaches_every_run_once(fake, write, tmp_path, monkeypatch, number, whole_group):
    """From a terminal or Slurm, to the whole group, or to sweep.py alone: a run that got it twice
    would have ended before it had saved."""
    jobs = fake("wait")
    monkeypatch.setattr(sweep, "prepare", lambda *a: jobs)
    words = ["run", write(), "--workers=2", "--out", jobs[0].run_dir.parents[3]]
    context = multiprocessing.get_context("fork")
    process = context.Process(target=as_a_program, args=(words, tmp_path / "said"), daemon=True)
    process.start()
    ready = [job.run_dir / "ready" for job in jobs[:2]]
    while not all(path.exists() for path in ready):
        assert process.is_alive()
        time.sleep(0.05)
    if whole_group:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    process.join(60)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 128 + number
    assert "stopped; go on with: python" in said
    assert "4 runs: 2 interrupted, 2 waiting" in said
    for job in jobs[:2]:
        assert progress.read_results(job.run_dir)["status"] == "interrupted"
        assert not (job.run_dir / "attempts").exists()


def test_the_scripts_still_say_the_words_that_are_looked_for():
    for script in SCRIPTS:
        assert sweep.STOPPING.decode() in (ROOT / f"{script}.py").read_text()


# ---- the commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "count", "visible", "said"),
    [
        ("0,1", 0, None, "--gpus 0,1: there is none on this machine"),
        ("0,7", 1, None, "--gpus 0,7: this machine has no 7, but 0"),
        ("1", 2, "2,3", "--gpus 1: this machine has no 1, but 2, 3"),
        ("0,", 1, None, "--gpus 0,: give each of them once, as in 0,1"),
        ("0,0", 1, None, "--gpus 0,0: give each of them once"),
    ],
)
def test_gpus_that_are_not_there_are_refused(
    gpus, count, visible, said, write, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    words = ["run", write(), "--out", write().parent / "out", "--gpus", gpus]
    assert main(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
    assert not (write().parent / "out").exists()


def test_a_number_of_final_episodes_that_evaluate_py_refuses_is_refused(write):
    with pytest.raises(ArgumentError, match=r"final_episodes: .*-episodes is 2000000000"):
        prepare(write(f"final_episodes = 2000000000\n{SMALL}"))


def test_sbatch_without_its_value_is_refused(write, sbatch, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "slurm", str(write()), *SLURM])
    sys.argv += ["--sbatch", "--dry-run"]
    with pytest.raises(SystemExit) as caught:
        sweep.main()
    assert caught.value.code == 2
    assert "--sbatch" in capsys.readouterr().err
    assert not list(write().parent.rglob("*.sbatch"))


@pytest.mark.parametrize(
    ("gpus", "visible", "said"),
    [("0,1", None, ""), ("3", "2, 3", ""), ("", None, "without --gpus every run is on the CPU\n")],
)
def test_gpus_that_are_there_are_taken(gpus, visible, said, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sweep.check_gpus(gpus)
    assert capsys.readouterr().err == said


def test_data_that_nothing_asks_for_is_said(write, tmp_path, capsys):
    prepare(write(), tmp_path)
    assert "--data is not used" in capsys.readouterr().err


def test_status_says_that_it_does_not_use_data(write, monkeypatch, capsys, tmp_path):
    assert main(monkeypatch, "status", write(), "--out", tmp_path, "--data", "/nope") == 0
    assert "--data is not used" in capsys.readouterr().err


def main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["sweep.py", *map(str, words)])
    return sweep.main()


def test_dry_run_lists_commands_and_starts_nothing(write, monkeypatch, capsys, tmp_path):
    path = write(f"final_episodes = 9\n{SMALL}")
    put(prepare(path)[0], status="diverged")
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    assert main(monkeypatch, "run", path, "--out", out, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# nothing to do: {out}/gtp_bc/multigoal-v0/default/0"
    run_dir = f"{out}/gtp_offline/multigoal-v0/default/0"
    start = f"python gtp_offline.py --env-id multigoal-v0 --seed 0 --run-dir {run_dir}"
    assert lines[1] == start
    assert lines[2].startswith(f"python evaluate.py {run_dir} --num-eval-episodes 9")
    assert len(lines) == 7
    assert [file.name for file in out.rglob("*") if file.is_file()] == ["results.json"]


def test_exit_codes_of_run(fake, write, monkeypatch, capsys, tmp_path):
    jobs = fake("finish")
    monkeypatch.setattr(sweep, "prepare", lambda *rest: jobs)
    words = ["run", write(), "--workers", "4", "--out", tmp_path / "out"]
    assert main(monkeypatch, *words) == 0
    assert capsys.readouterr().out.endswith("some, 4 runs: 4 finished\n")
    assert (tmp_path / "out" / "some.toml").read_text() == SMALL
    (jobs[2].run_dir / "results.json").unlink()
    fake("diverge")
    assert main(monkeypatch, *words) == 1
    said = capsys.readouterr().out
    assert "some, 4 runs: 3 finished, 1 diverged" in said
    assert f"{jobs[2].run_dir} diverged" in said
    logs = [(job.run_dir / "log.txt").read_text().count("$ python") for job in jobs]
    assert logs == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "none.toml"], "error: none.toml cannot be read"),
        (["run", "{sweep}", "--workers", "-1"], "error: --workers counts from 0"),
        (["run", "{sweep}", "--per-gpu", "0"], "error: --workers counts from 0"),
        (["run", "{sweep}", "--workers", "-1", "--dry-run"], "error: --workers counts from 0"),
        (["run", "{sweep}", "--per-gpu", "3"], "error: --per-gpu 3: of which GPUs? Add --gpus"),
        (["run", "{sweep}", "--out", "{sweep}"], "error: --out {sweep}: {sweep} is a file; name a"),
        (["run", "{sweep}", "--out", "{sweep}/a"], "--out {sweep}/a: {sweep} is a file"),
        (["work", "{sweep}", "0", "--out", "{sweep}"], "{sweep} is a file; name a folder"),
        (["status", "{sweep}", "--out", "{sweep}"], "{sweep} is a file; name a folder"),
        (["status", "data.toml", "--data", "none"], "error: none/a.npz, which data.toml names for"),
        (["work", "{sweep}", "4"], "has the runs 0 to 3"),
        (["work", "{sweep}", "-1"], "has the runs 0 to 3"),
        (["slurm", "{sweep}", "--partition", "p", "--time", "1", "--gpus", "-1"], "--gpus"),
        *[
            (["slurm", "{sweep}", "--partition", "p", "--dry-run", f"--time={time}"], "--time ")
            for time in ("", "soon", "1h", "24:00:00:00", "1-", "-5", "1:", "24:00\n", "1.5", "٣")
        ],
        *[
            (
                ["slurm", "{sweep}", f"--partition={name}", *SLURM[2:], *more],
                f"--partition {name!r}",
            )
            for name in ("", " ", "a b", "a\nb")
            for more in ([], ["--dry-run"])
        ],
        (["slurm", "{sweep}", *SLURM, "--sbatch", "--comment='x"], "--sbatch --comment='x: "),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(write, monkeypatch, capsys, words, said):
    path = str(write())
    write(f"{SMALL}[data]\nmultigoal-v0 = 'a.npz'\n", "data.toml")
    monkeypatch.chdir(path.rpartition("/")[0])
    assert main(monkeypatch, *[word.replace("{sweep}", path) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.replace("{sweep}", path) in line


@pytest.mark.parametrize("words", [["run"], ["work", "0"], ["slurm", *SLURM]])
@pytest.mark.parametrize("place", ["/proc/x", "x" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(words, place, write, monkeypatch, capsys):
    """Root may write to /proc by its permissions; a long name is none."""
    path = write()
    place = path.parent / place
    monkeypatch.setattr("shutil.which", lambda name: "sbatch")
    command, *more = words
    assert main(monkeypatch, command, path, *more, "--out", place) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {place}: ") and line.endswith("; name another")
    assert "Errno" not in line


@pytest.mark.parametrize(
    "time", ["90", "90:30", "24:00:00", "1-12", "1-12:30", "1-12:30:00", "UNLIMITED", "infinite"]
)
def test_each_form_of_slurms_time_is_taken(time, write, monkeypatch, capsys, tmp_path):
    words = ["slurm", write(), "--out", tmp_path / "out", "--partition", "a,b", "--dry-run"]
    assert main(monkeypatch, *words, f"--time={time}") == 0
    assert f"#SBATCH --time={time}\n" in capsys.readouterr().out


def test_status_shows_a_line_for_each_run(write, monkeypatch, capsys):
    path = write()
    jobs = prepare(path)
    put(jobs[0], status="running", update=1000, num_updates=5000)
    put(jobs[1])
    put(jobs[2], status="diverged")
    monkeypatch.setattr(sys, "argv", ["sweep.py"])
    assert main(monkeypatch, "status", path, "--out", path.parent / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 running" in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    running = ["running", "1000/5000", "2.0", "0:33:20", "2.25", "1.5"]
    assert rows["gtp_bc/multigoal-v0/default/0"] == running
    finished = ["finished", "4000/4000", "2.0", "2.25", "1.5"]
    assert rows["gtp_offline/multigoal-v0/default/0"] == finished
    assert rows["gtp_offline/multigoal-v0/default/1"] == ["waiting"]
    assert any("gtp_bc/multigoal-v0/default/1 diverged" in line for line in lines[6:])


def test_status_names_what_run_would_refuse(write, monkeypatch, capsys):
    """A file that was changed after its runs, as `hidden_dim` here, and what is no run at all; of
    data only a name is known, which tells nothing."""
    path = write(f"{SMALL}[data]\nmultigoal-v0 = 'a.npz'\n")
    (path.parent / "a.npz").write_bytes(b"")
    jobs = prepare(path, path.parent)
    put(jobs[0])
    put(jobs[1], args={"hidden_dim": 16})
    jobs[2].run_dir.mkdir(parents=True)
    (jobs[2].run_dir / "results.json").write_text('{"status": "finished"}')
    out = path.parent / "out"
    assert main(monkeypatch, "status", path, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "some, 4 runs: 2 another run, 1 finished, 1 waiting"
    rows = {line.split("  ")[0].strip(): line for line in lines[2:6]}
    assert " another run " in rows["gtp_offline/multigoal-v0/default/0"]
    assert any("hidden_dim 16, not 256" in line for line in lines)
    assert any("holds no results of a run" in line for line in lines)


def test_status_says_that_early_stop_ended_a_run(write, monkeypatch, capsys):
    """Where it left updates out, that is: a rise at the last evaluation ends nothing early."""
    path = write()
    jobs = prepare(path)
    early = {"early_stop": [3.0, 4.0], "num_updates": 100_000}
    put(jobs[0], update=50_000, **early)
    put(jobs[1], update=100_000, **early)
    put(jobs[2], status="interrupted", update=50_000, **early)
    assert main(monkeypatch, "status", path, "--out", path.parent / "out") == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in said.splitlines()[2:6]}
    assert "2 finished" in said
    early, whole, broken, _ = rows.values()
    assert early == "finished (early stop at 50,000) 50000/100000 2.0 2.25 1.5"
    assert whole.startswith("finished 100000/100000")
    assert broken.startswith("interrupted 50000/100000")


HELP = [
    "Many runs from one small file; the same command again goes on where it stopped.",
    "    python sweep.py run sweeps/smoke.toml --workers 2",
    "    python sweep.py run sweeps/table2.toml --gpus 0,1 --per-gpu 5",
    "    python sweep.py slurm sweeps/table2.toml --partition gpu --time 24:00:00",
    "    python sweep.py status sweeps/table2.toml",
    "    docs/sweeps.md: files, states, exit codes",
    "",
]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", [[], *([name] for name in sweep.COMMANDS)])
def test_help_keeps_its_lines(monkeypatch, capsys, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit, match="0"):
        main(monkeypatch, *command, "--help")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    if not command:
        assert lines[2:9] == HELP
    if command == ["work"]:
        assert any("which of the file's runs, from 0" in line for line in lines)


def test_a_table_that_is_too_long_shows_what_needs_a_look(write):
    text = SMALL.replace("[1, 0]", str(list(range(20))))
    plan = read_sweep(write(text))
    states = dict.fromkeys([run.folder for run in plan.runs], "waiting")
    states[plan.runs[30].folder] = "failed"
    states[plan.runs[20].folder] = "running"
    table = progress.Progress(plan, Path("out")).table(states, 3)
    shown = list(table.columns[0].cells)
    assert shown[:2] == [str(plan.runs[30].folder), str(plan.runs[20].folder)]
    assert len(shown) == 3
    assert "and 37 more" in table.caption


# ---- Slurm, with a fake sbatch -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0], "0"), ([0, 1, 2, 5], "0-2,5"), ([3, 1, 4], "1,3-4"), ([0, 2, 4], "0,2,4")],
)
def test_indices_as_slurm_takes_them(numbers, text):
    assert slurm.ranges(numbers) == text


@pytest.fixture
def sbatch(monkeypatch, tmp_path):
    """sbatch(exit code): a fake one on the PATH, which keeps its script."""

    def make(code=0):
        program = tmp_path / "bin" / "sbatch"
        program.parent.mkdir(exist_ok=True)
        lines = ["#!/bin/sh", f'cp "$1" {tmp_path}/got', "echo Submitted batch job 7"]
        lines += ["echo sbatch: error: invalid partition >&2", "echo Batch job failed >&2"]
        program.write_text("\n".join([*lines, f"exit {code}\n"]))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def test_what_is_left_is_submitted_as_an_array(write, sbatch, monkeypatch, capsys, tmp_path):
    sbatch()
    path = write()
    put(prepare(path)[1])
    out = tmp_path / "out"
    words = [*SLURM, "--out", out, "--sbatch", "--account=me --mem=8G", "--max-parallel", "3"]
    assert main(monkeypatch, "slurm", path, *words) == 0
    assert capsys.readouterr().out.startswith("Submitted batch job 7\n")
    script = (tmp_path / "got").read_text()
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in ("array=0,2-3%3", "partition=gpu", "time=24:00:00", "gpus=1", "requeue"):
        assert f"#SBATCH --{option}" in lines
    for option in ("signal=B:USR1@120", "account=me", "mem=8G", "open-mode=append"):
        assert f"#SBATCH --{option}" in lines
    (copy,) = (out / "slurm").glob("some-*.toml")
    assert copy.read_text() == SMALL
    command = f"{sys.executable} {ROOT}/sweep.py work {copy} $SLURM_ARRAY_TASK_ID --out {out} &"
    assert command in lines
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert (out / "some.toml").read_text() == SMALL


def test_what_was_given_up_is_not_submitted(write, sbatch, monkeypatch, capsys, tmp_path):
    sbatch()
    path = write()
    jobs = prepare(path)
    jobs[1].run_dir.mkdir(parents=True)
    (jobs[1].run_dir / "attempts").write_text("2\n")
    words = ["slurm", path, *SLURM, "--out", tmp_path / "out"]
    assert main(monkeypatch, *words, "--dry-run") == 0
    said = capsys.readouterr()
    assert "#SBATCH --array=0,2-3%16\n" in said.out
    assert f"to try again, remove {jobs[1].run_dir}/attempts\n" in said.err
    for job in jobs:
        if job is not jobs[1]:
            put(job)
    assert main(monkeypatch, *words) == 1
    assert "nothing is left to do" in capsys.readouterr().out


def test_dry_run_prints_the_array_and_submits_nothing(write, sbatch, monkeypatch, capsys, tmp_path):
    sbatch()
    words = [*SLURM, "--out", tmp_path / "out", "--dry-run", "--gpus", "0"]
    assert main(monkeypatch, "slurm", write(), *words) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --array=0-3%16\n" in text
    assert "--gpus" not in text
    assert not (tmp_path / "got").exists()
    assert not (tmp_path / "out").exists()


def test_a_refusal_is_in_slurms_words(write, sbatch, monkeypatch, capsys, tmp_path):
    sbatch(1)
    assert main(monkeypatch, "slurm", write(), *SLURM, "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Slurm refuses")
    assert "sbatch: error: invalid partition Batch job failed" in line


def test_a_machine_without_sbatch(write, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(monkeypatch, "slurm", write(), *SLURM, "--out", tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no sbatch on this machine")
    assert not (tmp_path / "out").exists()


def test_nothing_left_is_no_array(write, sbatch, monkeypatch, capsys, tmp_path):
    sbatch()
    path = write()
    for job in prepare(path):
        put(job)
    assert main(monkeypatch, "slurm", path, *SLURM, "--out", tmp_path / "out") == 0
    assert "nothing is left to do of the 4 runs" in capsys.readouterr().out
    assert not (tmp_path / "got").exists()
