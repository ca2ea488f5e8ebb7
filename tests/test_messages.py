"""What people trip over: one line in this project's words, with the remedy, in all four scripts."""

import builtins
import fcntl
import importlib
import json
import os
import pwd
import signal
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from conftest import make_dataset

import consistency_ac as cac
import diffusion_ql as dql
import evaluate
import export_policy
import gtp_bc as bc
import gtp_offline as gtp
import offline_tasks
from offline_tasks import files, videos

FAMILY = [gtp, bc, dql, cac]
every_script = pytest.mark.parametrize("script", FAMILY)


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """main(script, *words): exit code and the lines on stderr that are no progress bar."""
    monkeypatch.chdir(tmp_path)

    def run(script, *words):
        name = Path(script.__file__).name
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        capsys.readouterr()
        code = script.main()
        lines = capsys.readouterr().err.splitlines()
        return code, [line for line in lines if line.strip() and "it/s" not in line]

    return run


def one_error(result, *words, code=1):
    """The only line on stderr, an error that has these words."""
    assert result[0] == code and len(result[1]) == 1, result
    (line,) = result[1]
    assert line.startswith("error: ")
    for word in words:
        assert str(word) in line
    return line


# ---- homes, seeds, sizes -------------------------------------------------------------------------


@every_script
def test_without_a_home_the_dataset_folder_is_asked_for(script, main, monkeypatch):
    """A container with neither HOME nor an entry in the passwd file."""

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    result = main(script, "--env-id", "multigoal-v0", "--device", "cpu")
    one_error(result, "no home directory is known", "set D4RL_DATASET_DIR", "--dataset-path")


SOURCES = {  # an id of each source with a folder of its own, and the folder's variable
    "mujoco/hopper/medium-v0": "MINARI_DATASETS_PATH",
    "antmaze-medium-navigate-singletask-v0": "OGBENCH_DATASET_DIR",
}


@pytest.mark.parametrize("env_id", SOURCES)
def test_every_source_names_its_own_folder(env_id, tmp_path, monkeypatch):
    """Without a home, and where the folder cannot be made; D4RL's has no part in it."""
    source = offline_tasks.registry.source(env_id)
    monkeypatch.setattr(source, "_minari", lambda env_id: None, raising=False)
    monkeypatch.setattr(source, "check_env_id", lambda env_id: None)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    variable = SOURCES[env_id]
    (tmp_path / "file").write_text("")
    for folder, said in (
        ("~nosuchuser/d", "~nosuchuser/d: no home directory is known for its ~"),
        (tmp_path / "file", f"{tmp_path / 'file'}.* cannot be used"),
    ):
        monkeypatch.setenv(variable, str(folder))
        with pytest.raises(ValueError, match=f"^dataset folder {said}.*set {variable} to") as error:
            offline_tasks.dataset_file(env_id)
        assert ("--dataset-path" in str(error.value)) == (variable != "MINARI_DATASETS_PATH")
    assert not (tmp_path / "d4rl").exists()


def test_an_environment_needs_no_home(monkeypatch):
    """Where only a near id of Minari's is looked for."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", "~nosuchuser/d")
    offline_tasks.check_env_id("Pendulum-v1")


def test_the_home_of_an_unknown_user_is_named(monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", "~nosuchuser/d")
    with pytest.raises(ValueError, match="~nosuchuser/d: no home directory is known for its ~"):
        offline_tasks.dataset_file("multigoal-v0")


def test_a_relative_dataset_folder_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D4RL_DATASET_DIR", "data")
    assert files.data_folder() == tmp_path / "data"


@every_script
@pytest.mark.parametrize(
    "flag", ["--seed", "--batch-size", "--hidden-dim", "--num-threads", "--num-steps"]
)
def test_a_number_beyond_64_bits_is_refused(script, flag, main, dataset):
    result = main(script, "--dataset-path", dataset, flag, 2**64)
    one_error(result, f"{flag} is {2**64}; give a number from", code=2)


@every_script
def test_the_largest_seed_trains(script, small):
    assert script.train(small(script=script, seed=2**63 - 1, num_updates=1))["exit_code"] == 0


FULL = [
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    MemoryError("Unable to allocate 7.28 TiB for an array"),
]


@every_script
def test_a_full_memory_is_one_line_and_other_errors_are_not_hidden(
    script, main, dataset, monkeypatch
):
    words = ["--dataset-path", dataset, "--device", "cpu", "--no-tensorboard", "--run-dir"]
    for number, error in enumerate([*FULL, RuntimeError("mat1 and mat2")]):

        def fails(*args, error=error):
            raise error

        monkeypatch.setattr(script, "update_networks", fails)
        if error in FULL:
            code, lines = main(script, *words, number)
            errors = [line for line in lines if line.startswith("error")]
            assert code == 1 and len(errors) == 1 and "smaller: --batch-size" in errors[0]
        else:
            with pytest.raises(RuntimeError, match="mat1"):
                main(script, *words, number)
        assert json.loads(Path(str(number), "results.json").read_text())["status"] == "failed"


# ---- what is missing -----------------------------------------------------------------------------


@every_script
def test_without_tensorboard_nothing_is_begun(script, main, dataset, tmp_path, monkeypatch):
    """Missing, or at odds with another package."""
    real = importlib.import_module

    def missing(name, *args):
        if name.endswith("tensorboard"):
            raise TypeError("Descriptors cannot be created directly.")
        return real(name, *args)

    monkeypatch.setattr(sys.modules["offline_tasks.provenance"], "import_module", missing)
    words = ["--dataset-path", dataset, "--device", "cpu", "--num-updates", 1]
    one_error(
        main(script, *words), "TensorBoard cannot be had (Descriptors", "give --no-tensorboard"
    )
    assert not list(tmp_path.iterdir())
    words += ["--hidden-dim", 4, "--no-tensorboard"]
    assert main(script, *words)[0] == 0


@every_script
def test_a_writer_that_fails_leaves_no_run_that_seems_to_run(script, main, dataset, monkeypatch):
    """TensorBoard's file cannot be made: a full disk, a quota."""
    tensorboard = importlib.import_module("torch.utils.tensorboard")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "SummaryWriter", full)
    words = ["--dataset-path", dataset, "--device", "cpu", "--run-dir", "run", "--num-updates", 1]
    one_error(main(script, *words), "No space left on device")
    assert not Path("run", "results.json").exists()
    assert main(script, *words, "--hidden-dim", 4, "--no-tensorboard")[0] == 0


@every_script
def test_a_script_alone_says_what_it_does_without(script, main, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "TASKS_FOLDER", tmp_path / "absent")
    remedy = "--env-id and --track need", "absent; else --dataset-path alone"
    one_error(main(script, "--dataset-path", dataset, "--track"), *remedy, code=2)
    one_error(main(script, "--env-id", "hopper-medium-v2"), *remedy, code=2)


@every_script
def test_ctrl_c_before_the_training_is_no_traceback(script, main, dataset, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "load_data", interrupted)
    assert main(script, "--dataset-path", dataset, "--device", "cpu") == (130, [])
    assert not Path("runs").exists()


@pytest.mark.parametrize("tool", [evaluate, export_policy])
def test_ctrl_c_ends_a_tool_without_a_traceback(tool, main, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(gtp, "load_checkpoint", interrupted)
    words = ["run"] if tool is evaluate else ["run", "policy"]
    assert main(tool, *words) == (130, [])


@every_script
def test_an_environment_that_fails_ends_the_run_in_one_line(script, main, monkeypatch):
    def fails(*args):
        raise ValueError("multigoal-v0: its step raised RuntimeError: broken")

    monkeypatch.setattr(offline_tasks, "evaluate", fails)
    words = ["--env-id", "multigoal-v0", "--hidden-dim", 4, "--num-updates", 1, "--device", "cpu"]
    code, lines = main(script, *words, "--run-dir", "run", "--no-tensorboard")
    assert code == 1 and lines[-1] == "error: multigoal-v0: its step raised RuntimeError: broken"
    assert json.loads(Path("run", "results.json").read_text())["status"] == "failed"


@every_script
def test_a_script_alone_says_how_it_ended(script, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "TASKS_FOLDER", tmp_path / "absent")
    args = small(script=script, num_updates=1, eval_freq=1)
    assert script.train(args)["status"] == "finished"
    assert f"finished at update 1: {tmp_path}/run/results.json\n" in capsys.readouterr().out


@every_script
def test_a_resume_cannot_end_before_it_begins(script, main, small, tmp_path):
    script.train(small(script=script, num_updates=3))
    before = (tmp_path / "run" / "results.json").read_bytes()
    one_error(main(script, "--resume", "run", "--num-updates", 2), "has made 3", code=2)
    assert (tmp_path / "run" / "results.json").read_bytes() == before


@every_script
def test_a_full_disk_keeps_the_file_before_and_names_it(script, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "results.json"
    script.write_file(path, b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"results.json cannot be written \(.*No space left"):
        script.write_file(path, b"after")
    assert path.read_bytes() == b"before" and [*tmp_path.iterdir()] == [path]


@every_script
def test_a_file_system_that_is_read_only_now_is_named(script, tmp_path, monkeypatch):
    """Nothing can be removed there either."""

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(OSError, match=r"a.json cannot be written .*Read-only.*; what was there is"):
        script.write_file(tmp_path / "a.json", b"x")


def test_a_package_without_a_version_is_null(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    known = offline_tasks.provenance(Path(gtp.__file__))
    assert known["versions"] == dict.fromkeys(("torch", "numpy", "gymnasium", "mujoco"))


def test_a_gif_without_its_writer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install pillow"):
        offline_tasks.check_video(tmp_path / "a.gif")


@pytest.mark.parametrize("frame", [None, [], np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8)])
def test_an_environment_that_draws_nothing_is_named(frame, tmp_path, monkeypatch):
    class Blank:
        def __init__(self):
            self.metadata = {}

        def reset(self, seed):
            return np.zeros(3), {}

        def render(self):
            return frame

        def close(self):
            pass

    monkeypatch.setattr(videos, "make_env", lambda *args, **kwargs: Blank())
    with pytest.raises(ValueError, match=r"render\(\) of Pendulum-v1 gave .* leave --video out"):
        offline_tasks.record_video("Pendulum-v1", None, tmp_path / "a.gif", seed=0)
    assert not list(tmp_path.iterdir())


class Plain(gymnasium.Env):
    """One's own: without render(), and without a render_mode."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}


class Drawn(Plain):
    def __init__(self, render_mode=None):
        self.render_mode = render_mode


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (Plain, r"cannot be built with render_mode 'rgb_array' \(leave --video out\): "),
        (Drawn, r"cannot be drawn here \(NotImplementedError\); leave --video out"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_an_environment_without_pictures_is_named_with_the_remedy(env, said, tmp_path):
    gymnasium.register("Unseen-v0", env, max_episode_steps=3)
    try:
        offline_tasks.make_env("Unseen-v0")  # without pictures it can be had
        with pytest.raises(ValueError, match=f"Unseen-v0.*{said}"):
            offline_tasks.record_video("Unseen-v0", lambda obs: obs, tmp_path / "a.gif", seed=0)
    finally:
        del gymnasium.registry["Unseen-v0"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a$1_$b", "100%_{x}^2", "\\frac"])
def test_a_run_directory_of_any_name_gets_its_pictures(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    row = {"update": 1, "energy_score": 0.5}
    offline_tasks.plot_run(folder, "", [row], None, 0)
    assert (folder / "learning_curve.png").stat().st_size > 1000


# ---- files ---------------------------------------------------------------------------------------


def hdf5(path, **changes):
    with h5py.File(path, "w") as file:
        for key, array in (make_dataset() | changes).items():
            file[key] = array
    return path


@every_script
def test_a_file_that_a_writer_holds_is_named(script, main, tmp_path):
    path = hdf5(tmp_path / "d.hdf5")
    with open(path, "rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        result = main(script, "--dataset-path", path)
    one_error(result, path, "open for writing", "HDF5_USE_FILE_LOCKING=FALSE")


@every_script
def test_observations_in_a_group_are_named(script, main, tmp_path):
    data = make_dataset()
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        for key, array in data.items():
            file[f"{key}/episode_0"] = array
    result = main(script, "--dataset-path", tmp_path / "d.hdf5")
    line = one_error(result, "observations is a group; join its arrays into one")
    assert "attribute" not in line


def test_a_pipe_is_not_waited_for(main, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    one_error(main(gtp, "--dataset-path", tmp_path / "pipe"), "it is a pipe or a device")


CONTENTS = {  # what a file is: what is said of it
    "missing": (None, "there is no such file; --dataset-path names another"),
    "text": (b"observations,actions\n", "it begins like neither"),
    "cut off": (b"\x89HDF\r\n\x1a\n" * 9, "it is damaged, cut off or of a kind not known"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_the_remedy_is_by_what_is_wrong(kind, main, tmp_path):
    content, words = CONTENTS[kind]
    if content is not None:
        (tmp_path / "d.hdf5").write_bytes(content)
    one_error(main(gtp, "--dataset-path", tmp_path / "d.hdf5"), words)


def test_text_and_missing_keys_are_named_in_own_words(main, tmp_path):
    data = make_dataset() | {"actions": np.array([b"left"] * 240)}
    np.savez(tmp_path / "d.npz", **data)
    one_error(main(gtp, "--dataset-path", tmp_path / "d.npz"), "actions is no array of numbers")
    del data["actions"]
    np.savez(tmp_path / "d.npz", **data)
    one_error(main(gtp, "--dataset-path", tmp_path / "d.npz"), "it has no actions")


def test_a_file_that_may_not_be_read_is_named(main, dataset, monkeypatch):
    """Root may read all: the refusal is the library's."""

    def refuses(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", refuses)
    one_error(main(gtp, "--dataset-path", dataset), "this user may not read it")


def test_a_name_with_a_line_break_is_said_whole(main, tmp_path):
    one_error(main(gtp, "--dataset-path", tmp_path / "a\nb"), "a b cannot be read", "no such file")


@pytest.mark.parametrize("error", FULL)
def test_a_full_memory_is_one_line_of_the_other_programs_too(error, small, monkeypatch, capsys):
    def fails(*args):
        raise error

    for program, function in ((evaluate, "evaluate"), (export_policy, "export")):
        monkeypatch.setattr(program, function, fails)
        words = ["run", "policy"] if program is export_policy else ["run"]
        monkeypatch.setattr(sys, "argv", [program.__name__, *words])
        assert program.main() == 1
        assert "the memory is full; smaller: --num-steps" in capsys.readouterr().err


# ---- policies ------------------------------------------------------------------------------------


@every_script
@pytest.mark.parametrize("shape", [(1,), (2,), (4,), (5, 1), (5, 4), (2, 2, 3), ()])
def test_observations_of_another_shape_are_refused(script, shape, small, tmp_path):
    """A single column would fit all: NumPy and torch repeat it in silence."""
    args = small(script=script)
    act = script.make_act(script.make_networks(args, 3, 2), args, 0)
    with pytest.raises(ValueError, match=r"but \(3,\) or \(n, 3\) fit"):
        act(np.zeros(shape))
    assert act(np.zeros(3)).shape == (2,) and act(np.zeros((5, 3))).shape == (5, 2)


@every_script
def test_the_changes_of_a_policy_are_checked(script, small, tmp_path):
    cloning = {} if script is bc else {"eta": 0.0, "num_candidates": 1}
    script.train(small(script=script, num_updates=1, **cloning))
    run = tmp_path / "run"
    wrong = [{"hidden_dim": 8}, {"num_stepz": 1}, {"seed": 2**70}, {"device": "tpu"}, {"eta": 1.0}]
    wrong += [{"eval_actor": "both"}]
    wrong += [{"num_steps": 2}] if script is dql else [{"num_steps": 0}]
    if script is not bc:
        wrong += [{"num_candidates": 0}, {"num_candidates": 50}]
    for changes in wrong:
        with pytest.raises(script.ArgumentError) as refused:
            script.load_policy(run, **changes)
        assert "\n" not in str(refused.value)
    act = script.load_policy(run, seed=3, eval_actor="ema")
    assert act(np.zeros(3)).shape == (2,)


@every_script
def test_weights_that_are_not_finite_do_not_act(script, small, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    script.train(small(script=script, num_updates=1))
    state = script.load_checkpoint(run)
    next(iter(state["nets"].values()))[0] = np.nan
    script.save_checkpoint(run / "checkpoint.pt", state)
    with pytest.raises(script.InputError, match="the run has diverged"):
        script.load_policy(run)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(run)])
    assert evaluate.main() == 1
    assert "the run has diverged" in capsys.readouterr().err


def test_a_run_that_diverged_after_its_checkpoint_is_said(small, tmp_path, monkeypatch, capsys):
    """By evaluate.py and export_policy.py, and to programs, of a directory and of a checkpoint."""
    gtp.train(small(num_updates=1))
    path = tmp_path / "run" / "results.json"
    results = json.loads(path.read_text()) | {"status": "diverged", "update": 7}
    path.write_text(json.dumps(results))
    capsys.readouterr()
    for target in (path.parent, path.parent / "checkpoint.pt"):
        for load in (evaluate.load_run, gtp.load_policy):
            load(target)
            line = f"warning: {target} diverged by update 7; its checkpoint is of update 1\n"
            assert capsys.readouterr().err == line
    for content in ("", "[]", "{}", '{"status": "finished", "update": 1}'):
        path.write_text(content)
        evaluate.load_run(path.parent)
        assert capsys.readouterr().err == ""


@every_script
def test_a_program_hears_of_a_divergence_too(script, small, tmp_path, capsys):
    script.train(small(script=script, num_updates=1))
    path = tmp_path / "run" / "results.json"
    path.write_text(path.read_text().replace('"finished"', '"diverged"'))
    capsys.readouterr()
    script.load_policy(str(path.parent))
    said = f"warning: {path.parent} diverged by update 1; its checkpoint is of update 1\n"
    assert capsys.readouterr().err == said


@pytest.mark.filterwarnings("ignore:overflow")
@every_script
def test_a_divergence_names_its_remedy(script, small, tmp_path, monkeypatch, capsys):
    """Rewards that are too large; without a critic, a weight that no one may give."""
    changes = {"num_updates": 2, "eval_freq": 1, "run_dir": str(tmp_path / "run")}
    if script is bc:
        monkeypatch.setitem(bc.LARGEST, "lambda_flow", np.inf)
        changes |= {"lambda_flow": np.inf}
    else:
        changes |= {"reward_scale": 2e9, "eta": 1.0}
    assert script.train(small(script=script, **changes))["status"] == "diverged"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "diverged by" in line]
    assert "--divergence-bound" in line and "--learning-rate" in line
    assert ("--reward-scale" in line) == (script is not bc)
    assert ("--critic-learning-rate" in line) == (script is not bc)


@pytest.mark.parametrize(
    ("means", "remedy"),
    [
        (
            {"q_max": 2e6, "target_q": float("nan")},
            "a smaller --reward-scale, --critic-learning-rate or --learning-rate, a --grad-norm, "
            "or another --divergence-bound",
        ),
        (
            {"actor": float("inf")},
            "a smaller --learning-rate or a --grad-norm; only --divergence-bound 0 would go on so",
        ),
    ],
)
def test_another_bound_is_for_what_is_finite(means, remedy, capsys):
    args = {"run_dir": "runs/x"}
    offline_tasks.say_end({"status": "diverged", "update": 3, "diverged": means, "args": args})
    said = f"{sorted(means)} diverged by update 3; see runs/x/results.json; try {remedy}\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("script", [gtp, dql])
def test_an_old_checkpoint_without_its_reader_is_one_line(script, main, monkeypatch):
    """The script was copied alone."""
    fixture = Path(__file__).parent / "fixtures" / "format1" / f"{script.__name__}.pt"
    real = builtins.__import__
    monkeypatch.delitem(sys.modules, "old_checkpoints", raising=False)
    monkeypatch.setattr(script, "import_module", lambda name: real("no_such_module"))
    code, lines = main(script, "--resume", fixture)
    assert code == 1 and lines == ["error: No module named 'no_such_module'"]


def test_a_moved_dataset_is_named_to_evaluate(small, dataset, tmp_path, monkeypatch, capsys):
    """A run without a task has its energy score back."""
    (tmp_path / "d.npz").write_bytes(dataset.read_bytes())
    gtp.train(small(num_updates=1, dataset_path=str(tmp_path / "d.npz")))
    (tmp_path / "d.npz").rename(tmp_path / "moved.npz")
    words = ["evaluate.py", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", words)
    capsys.readouterr()
    assert evaluate.main() == 1
    error = capsys.readouterr().err
    assert "nothing to measure" in error and "--dataset-path names another" in error
    monkeypatch.setattr(sys, "argv", [*words, "--dataset-path", str(tmp_path / "moved.npz")])
    assert evaluate.main() == 0
    assert "energy_score" in capsys.readouterr().out


# ---- what a run says of itself ------------------------------------------------------------------

NOTHING = dict.fromkeys(("normalized_score", "episodic_return", "energy_score"))
BEST = {  # rows of evaluations: what decides, and the update of the best
    "score": ([(1, 9, 0.1), (3, 7, 0.3), (3, 8, 0.2)], "normalized_score", 2),
    "return": ([(None, -1365, 0.1), (None, -1102, 0.3), (None, -1200, 0.2)], "episodic_return", 2),
    "energy": ([(None, None, 0.3), (None, None, 0.1), (None, None, 0.1)], "energy_score", 2),
    "update": ([(None, None, None)] * 3, "update", 3),
}


@every_script
@pytest.mark.parametrize("kind", BEST)
def test_the_best_is_by_score_else_return_else_energy_score(
    script, kind, small, tmp_path, monkeypatch
):
    """The first of equal ones; results.json says by what."""
    known, decided_by, update = BEST[kind]

    def row(nets, args, holdout, update):
        return {"update": update} | dict(zip(NOTHING, known[update - 1], strict=True))

    monkeypatch.setattr(script, "evaluate", row)
    script.train(small("run", script, num_updates=3, eval_freq=1))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["best_by"], results["best"]["update"]) == (decided_by, update)
    assert results["last"]["update"] == 3


@every_script
def test_a_finished_run_says_that_it_has_ended(script, small, tmp_path, capsys):
    script.train(small(script=script, num_updates=1))
    capsys.readouterr()
    assert script.train(script.resume_args(tmp_path / "run"))["exit_code"] == 0
    assert f"{tmp_path}/run has ended at update 1: nothing to train" in capsys.readouterr().err


@every_script
def test_a_resume_of_an_ended_run_changes_nothing_that_it_recorded(script, small, tmp_path):
    """Where only results.json is still to be finished, a resume finishes it."""
    first = script.train(small(script=script, num_updates=2))
    file = tmp_path / "run" / "results.json"
    elsewhere = first | {"machine": "another", "milliseconds_per_action": 7.0, "updated": 1}
    file.write_text(json.dumps(elsewhere))
    before = file.read_bytes()
    args = replace(script.resume_args(tmp_path / "run"), num_threads=2, tensorboard=True)
    assert script.train(args) == json.loads(before)
    assert file.read_bytes() == before and not list((tmp_path / "run").glob("events*"))
    file.write_text(json.dumps(elsewhere | {"status": "running"}))
    script.train(args)
    results = json.loads(file.read_text())
    assert results["status"] == "finished" and results["args"]["num_threads"] == 2


@every_script
@pytest.mark.parametrize("of_the_script", [True, False])
def test_the_way_on_is_the_scripts(script, of_the_script, small, monkeypatch, capsys):
    """Also of a program that called train(), which has a command line of its own."""
    name = f"{script.__name__}.py"
    given = f"../there/{name}" if of_the_script else "mine.py"
    monkeypatch.setattr(sys, "argv", [given])
    update_networks = script.update_networks

    def stopping(*inputs):
        signal.raise_signal(signal.SIGTERM)
        return update_networks(*inputs)

    monkeypatch.setattr(script, "update_networks", stopping)
    args = small(script=script)
    script.train(args)
    way = f"python {given if of_the_script else name} --resume {args.run_dir}"
    assert f"interrupted; go on with: {way}" in capsys.readouterr().out


@every_script
def test_a_word_that_is_none_of_the_flags_is_refused(script, small):
    """--help has them; from Python a misspelt one would be taken for the last branch."""
    with pytest.raises(script.ArgumentError, match="eval_actor is none of"):
        script.train(small(script=script, eval_actor="emma"))
