"""export_policy.py: the exported NumPy policy is the run's own, without torch."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import export_policy
import gtp_offline as gtp


def exported_act(arrays, text, folder):
    """The `act` of an exported policy."""
    np.savez(folder / "policy.npz", **arrays)
    (folder / "policy.py").write_text(text)
    namespace = {"__file__": str(folder / "policy.py")}
    exec(compile(text, "policy.py", "exec"), namespace)
    return namespace["act"]


@pytest.mark.parametrize("changes", [{}, {"literal": True, "num_holdout": 24}, {"num_steps": 2}])
def test_the_exported_policy_is_the_runs_policy(changes, small, tmp_path):
    """The same noise gives the same actions, for one observation, a batch, and other K."""
    args = small(eta=0.0, learning_rate=1e-2, **changes)
    gtp.train(args)
    state = gtp.load_checkpoint(tmp_path / "run")
    args = gtp.Args(**state["results"]["args"])
    nets = gtp.make_networks(args, *state["dims"])
    nets.load_state_dict(state["nets"])
    generator = np.random.default_rng(0)
    obs = generator.standard_normal((50, 3)).astype(np.float32)
    noise = generator.standard_normal((50, 2)).astype(np.float32)
    for steps in (1, args.num_steps):
        act = exported_act(
            *export_policy.export(tmp_path / "run" / "checkpoint.pt", steps), tmp_path
        )
        expected = gtp.policy_samples(
            nets, torch.from_numpy(obs), torch.from_numpy(noise), steps, replace(args)
        )
        assert np.allclose(act(obs, noise), expected.numpy(), atol=2e-5)
        assert np.allclose(act(obs[0], noise[0]), expected[0].numpy(), atol=2e-5)
        assert 0 < np.abs(expected.numpy()).mean() < 1  # not all clamped


def test_the_exported_policy_needs_numpy_alone(small, tmp_path, monkeypatch):
    """In a fresh process: ten lines, no torch, no file of this repository."""
    gtp.train(small(eta=0.0))
    words = [str(tmp_path / "run" / "checkpoint.pt"), str(tmp_path / "policy")]
    monkeypatch.setattr(sys, "argv", ["export_policy.py", *words])
    assert export_policy.main() == 0
    code = "import sys; from policy import act; print(act([0, 0, 0]).shape, 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "policy", capture_output=True, text=True)
    assert done.stdout.strip() == "(2,) False", done.stderr
    text = (tmp_path / "policy" / "policy.py").read_text()
    assert (
        len(text.split("def act")[1].strip().split("\n")) <= 12
    )  # signature and docstring besides


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_what_is_no_checkpoint_is_refused_in_one_line(content, tmp_path, monkeypatch, capsys):
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    words = [str(tmp_path / "checkpoint.pt"), str(tmp_path / "policy")]
    monkeypatch.setattr(sys, "argv", ["export_policy.py", *words])
    assert export_policy.main() == 1
    error = capsys.readouterr().err.strip()
    assert "checkpoint.pt is not a run's checkpoint.pt" in error and "\n" not in error
    assert not (tmp_path / "policy").exists()
