"""--track: what wandb is asked for, in which order, and what is said where it cannot be used."""

import importlib
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

import evaluate
import gtp_offline as gtp
import offline_tasks

SCRIPTS = ("gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac")


class Wandb(types.ModuleType):
    """A stand-in for the package that notes its calls, and the event files at each of them."""

    def __init__(self):
        super().__init__("wandb")
        self.given = []
        self.calls = []

    def note(self, call):
        events = [*Path(self.given[-1]["dir"]).glob("events.out.tfevents.*")]
        self.calls.append((call, sum(file.stat().st_size > 0 for file in events)))

    def init(self, **given):
        self.given.append(given)
        self.note("init")
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.note(kind and kind.__name__)


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def no_wandb(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails


@pytest.fixture
def program(monkeypatch, capsys):
    """program(*words): the exit code of gtp_offline.py's main and what it writes to stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gtp_offline.py", *map(str, words)])
        return gtp.main(), capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_and_its_resume_are_one_run_there(name, small, wandb):
    script = importlib.import_module(name)
    args = small("a", script, num_updates=2, track=True, wandb_project="p", wandb_entity="me")
    script.train(args)
    saved = script.resume_args(args.run_dir)
    script.train(replace(saved, num_updates=3))
    first, second = wandb.given
    run_id = (Path(args.run_dir) / "wandb_id.txt").read_text()
    for given in (first, second):
        assert given["id"] == run_id and len(run_id) > 8
        assert (given["project"], given["entity"]) == ("p", "me")
        assert (given["name"], given["dir"]) == ("a", args.run_dir)
        assert given["resume"] == "allow" and given["sync_tensorboard"] is True
    assert (first["config"]["num_updates"], second["config"]["num_updates"]) == (2, 3)
    # it begins before TensorBoard's writer, though the run says --no-tensorboard, and ends after
    assert not args.tensorboard
    assert wandb.calls == [("init", 0), (None, 1), ("init", 1), (None, 2)]


def test_another_run_directory_is_another_run_and_no_entity_is_wandbs_own(small, wandb):
    for name in ("a", "b"):
        gtp.train(small(name, num_updates=1, track=True))
    first, second = wandb.given
    assert first["id"] != second["id"]
    assert first["entity"] is None and first["project"] == "gtp"


def test_a_resume_may_begin_to_track(small, wandb):
    gtp.train(small(num_updates=1))
    assert wandb.given == [] and not (Path(small().run_dir) / "wandb_id.txt").exists()
    saved = gtp.resume_args(small().run_dir)
    gtp.train(replace(saved, num_updates=2, track=True, wandb_project="later"))
    assert [given["project"] for given in wandb.given] == ["later"]


def test_a_failed_run_is_failed_there(small, wandb, monkeypatch):
    monkeypatch.setattr(gtp, "evaluate", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gtp.train(small(track=True))
    assert [call for call, _ in wandb.calls] == ["init", "ZeroDivisionError"]


def test_without_the_package_nothing_begins(no_wandb, program, dataset, tmp_path):
    code, errors = program("--dataset-path", dataset, "--run-dir", tmp_path / "run", "--track")
    assert code == 2
    assert errors == "error: --track needs the package wandb: pip install wandb, or leave it out\n"
    assert not (tmp_path / "run").exists()


def test_a_folder_of_its_name_is_not_the_package(monkeypatch, tmp_path):
    """wandb itself leaves a folder `wandb` behind, which Python takes for a namespace."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ValueError, match="pip install wandb"):
        offline_tasks.check_run("", track=True)
    sys.modules.pop("wandb")


def test_what_wandb_refuses_is_a_line_and_nothing_begins(wandb, program, dataset, tmp_path):
    def refuse(**given):
        raise RuntimeError("No API key\nconfigured.")

    wandb.init = refuse
    run_dir = tmp_path / "run"
    code, errors = program("--dataset-path", dataset, "--run-dir", run_dir, "--track")
    assert code == 1
    assert errors.splitlines()[-1] == (
        "error: --track: No API key configured.; `wandb login`, or set WANDB_MODE=offline"
    )
    assert not (run_dir / "results.json").exists()


def test_a_script_alone_cannot_track(wandb, small, monkeypatch, tmp_path):
    monkeypatch.setattr(gtp, "TASKS_FOLDER", tmp_path / "absent")
    with pytest.raises(gtp.ArgumentError, match=r"--track need .*absent"):
        gtp.check_args(small(track=True))


def test_a_tracked_run_is_evaluated_without_wandb(small, wandb, monkeypatch):
    gtp.train(small(num_updates=1, track=True))
    monkeypatch.setitem(sys.modules, "wandb", None)
    row = evaluate.evaluate(evaluate.Flags(Path(small().run_dir)))
    assert row["energy_score"] > 0
    assert len(wandb.given) == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_tracked_and_compiled_run_acts_without_wandb_or_a_new_pytorch(
    name, small, wandb, monkeypatch
):
    script = importlib.import_module(name)
    args = small("run", script, num_updates=1, track=True)
    script.train(args)
    state = script.load_checkpoint(Path(args.run_dir))
    state["results"]["args"]["compile"] = True
    script.save_checkpoint(Path(args.run_dir, "checkpoint.pt"), state)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(script.torch, "__version__", "2.4.0")
    assert script.load_policy(args.run_dir)([0, 0, 0]).shape == (2,)
