"""What the tests of sweep.py share: a sweep's runs again, each in this process and undisturbed."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from conftest import differences, lasting

import offline_tasks
import sweep


def undisturbed(path, folder, data=None):
    """{folder of a run: its state, as a checkpoint holds it} of the sweep's runs, trained here."""
    states = {}
    for job in sweep.prepare(sweep.read_sweep(path), Path(folder), data):
        script = import_module(job.run.script)
        script.train(replace(job.args, run_dir=str(job.run_dir)))
        states[job.run.folder] = script.load_checkpoint(job.run_dir)
    return states


def assert_as_undisturbed(path, out, folder, monkeypatch, data=None):
    """Every run of a sweep in `out` has the weights, optimizers, random numbers and evaluations of
    one that was trained in `folder` without any interruption, bit for bit."""
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args, **kwargs: None)
    expected = undisturbed(path, folder, data)
    assert len(expected) == len(sweep.read_sweep(path).runs) > 0
    for run, state in expected.items():
        script = import_module(run.parts[0])
        assert differences(lasting(script.load_checkpoint(out / run)), lasting(state)) == [], run
