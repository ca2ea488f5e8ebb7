"""export_policy.py: the exported NumPy policy is the run's own, without torch."""

import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import consistency_ac
import diffusion_ql
import export_policy
import gtp_bc
import gtp_offline as gtp
import offline_tasks


def exported_act(arrays, text, folder):
    """The `act` of an exported policy."""
    np.savez(folder / "policy.npz", **arrays)
    (folder / "policy.py").write_text(text)
    namespace = {"__file__": str(folder / "policy.py")}
    exec(compile(text, "policy.py", "exec"), namespace)
    return namespace["act"]


def call(monkeypatch, capsys, *words):
    """main with these words -> exit code, lines on stderr."""
    monkeypatch.setattr(sys, "argv", ["export_policy.py", *map(str, words)])
    capsys.readouterr()  # what training printed
    code = export_policy.main()
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"literal": True, "sampler_end": "zero", "preconditioning": "none", "sigma_max": 80.0},
        {"sampler_end": "zero", "eval_actor": "online"},
        {"num_steps": 2},
    ],
)
def test_the_exported_policy_is_the_runs_policy(changes, small, tmp_path):
    """The same noise gives the same actions, for one observation, a batch, and other K; from the
    run directory and from the checkpoint."""
    run = tmp_path / "run"
    gtp.train(small(eta=0.0, learning_rate=1e-2, **changes))
    state = gtp.load_checkpoint(run)
    args = gtp.saved_args(state)
    nets = gtp.load_networks(state, args)
    generator = np.random.default_rng(0)
    obs = generator.standard_normal((50, 3)).astype(np.float32)
    noise = generator.standard_normal((50, 2)).astype(np.float32)
    for source, steps in ((run, None), (run / "checkpoint.pt", 1)):
        act = exported_act(*export_policy.export(source, steps), tmp_path)
        used = steps or args.num_steps
        tensors = torch.from_numpy(obs), torch.from_numpy(noise)
        expected = gtp.policy_samples(nets, *tensors, used, args).numpy()
        assert np.allclose(act(obs, noise), expected, atol=2e-5)
        assert np.allclose(act(obs[0], noise[0]), expected[0], atol=2e-5)
        assert 0 < np.abs(expected).mean() < 1  # not all clamped


def test_a_run_of_gtp_bc_is_exported(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args: None)
    args = gtp_bc.default_args(dataset_path=str(dataset), device="cpu", num_updates=3)
    run = tmp_path / "run"
    gtp_bc.train(replace(args, run_dir=str(run), hidden_dim=8, tensorboard=False))
    arrays, text = export_policy.export(run)
    obs = np.ones((4, 3), np.float32)
    noise = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    state = gtp_bc.load_checkpoint(run)
    args = gtp_bc.saved_args(state)
    nets = gtp_bc.load_networks(state, args)
    tensors = torch.from_numpy(obs), torch.from_numpy(noise)
    expected = gtp_bc.policy_samples(nets, *tensors, args.num_steps, args).numpy()
    assert np.allclose(exported_act(arrays, text, tmp_path)(obs, noise), expected, atol=2e-5)
    assert "gtp_bc.py" in text


def edited(run, **nets):
    """Put tensors into a run's checkpoint."""
    state = gtp.load_checkpoint(run)
    state["nets"] |= nets
    gtp.save_checkpoint(run / "checkpoint.pt", state)


def test_observations_are_normalized_by_the_runs_own_buffers(small, tmp_path):
    """obs_mean and obs_std of the actor that acts: act takes raw observations."""
    run = tmp_path / "run"
    gtp.train(small(eta=0.0))
    mean = torch.tensor([5.0, -2.0, 0.0])
    std = torch.tensor([2.0, 0.1, 1.0])
    edited(run, **{"actor_ema.obs_mean": mean, "actor_ema.obs_std": std})
    state = gtp.load_checkpoint(run)
    args = gtp.saved_args(state)
    nets = gtp.load_networks(state, args)
    generator = torch.Generator().manual_seed(0)
    obs = mean + std * torch.randn(9, 3, generator=generator)
    noise = torch.randn(9, 2, generator=generator)
    expected = gtp.policy_samples(nets, obs, noise, args.num_steps, args).numpy()
    arrays, text = export_policy.export(run)
    act = exported_act(arrays, text, tmp_path)
    assert np.allclose(act(obs.numpy(), noise.numpy()), expected, atol=2e-5)
    standard = ((obs - mean) / std).numpy()
    assert not np.allclose(act(standard, noise.numpy()), expected, atol=1e-3)


def test_the_exported_policy_needs_numpy_alone(small, tmp_path, monkeypatch, capsys):
    """In a fresh process: no torch, no file of this repository."""
    gtp.train(small(eta=0.0))
    assert call(monkeypatch, capsys, tmp_path / "run", tmp_path / "policy") == (0, [])
    code = "import sys; from policy import act; print(act([0, 0, 0]).shape, 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "policy", capture_output=True, text=True)
    assert done.stdout.strip() == "(2,) False", done.stderr
    text = (tmp_path / "policy" / "policy.py").read_text()
    body = text.split("def act")[1].strip().split("\n")
    assert len(body) <= 14  # signature and docstring besides


def test_the_exported_policy_refuses_observations_of_other_shapes(small, tmp_path):
    """One column would broadcast to all of them."""
    gtp.train(small())
    act = exported_act(*export_policy.export(tmp_path / "run"), tmp_path)
    assert act(np.zeros((5, 3))).shape == (5, 2)
    for shape in ((1,), (5, 1), (4,), ()):
        with pytest.raises(ValueError, match="shape"):
            act(np.zeros(shape))


def test_a_policy_of_a_persons_own_is_not_overwritten(small, tmp_path, monkeypatch, capsys):
    gtp.train(small(eta=0.0))
    own = tmp_path / "policy" / "policy.py"
    own.parent.mkdir()
    own.write_text("mine = 1\n")
    words = tmp_path / "run", own.parent
    code, errors = call(monkeypatch, capsys, *words)
    assert code == 1 and f"{own} is not of an export; name another FOLDER" in errors[-1]
    assert [*own.parent.iterdir()] == [own] and own.read_text() == "mine = 1\n"
    own.unlink()
    for _ in range(2):  # an export takes the place of an export
        assert call(monkeypatch, capsys, *words)[0] == 0
    own.unlink()  # and of one that was cut short
    assert call(monkeypatch, capsys, *words)[0] == 0


def own_arrays(path):
    with path.open("wb") as file:
        np.savez(file, obs_mean=np.zeros(3), t=np.ones(2))


OWN_FILES = {
    "arrays": own_arrays,
    "text": lambda path: path.write_text("mine"),
    "damaged": lambda path: path.write_bytes(b"PK\5\6" + b"\xff" * 16 + b"\0\0"),
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("exported", [False, True], ids=["alone", "beside an export's other file"])
@pytest.mark.parametrize("make", OWN_FILES.values(), ids=OWN_FILES)
@pytest.mark.parametrize("name", ["policy.npz", "policy.py"])
def test_neither_file_takes_the_place_of_a_persons_own(
    name, make, exported, small, tmp_path, monkeypatch, capsys
):
    """Before the run is read; the other file stays as it is, too."""
    gtp.train(small(eta=0.0, num_updates=1))
    run = tmp_path / "run"
    folder = tmp_path / "policy"
    folder.mkdir()
    if exported:
        export_policy.write_policy(*export_policy.export(run), folder)
        (folder / name).unlink()
    make(folder / name)
    before = {path: path.is_file() and path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(export_policy, "export", None)
    said = f"error: {folder / name} is not of an export; name another FOLDER"
    assert call(monkeypatch, capsys, run, folder) == (1, [said])
    assert {path: path.is_file() and path.read_bytes() for path in folder.iterdir()} == before


def test_a_critic_that_chooses_is_named(small, tmp_path, monkeypatch, capsys):
    gtp.train(small(num_candidates=4))
    code, errors = call(monkeypatch, capsys, tmp_path / "run", tmp_path / "policy")
    assert code == 0 and len(errors) == 1
    said = "chooses among 4 actions by its critic, the export samples one and has no critic"
    assert errors[0].endswith(said)  # without a task there is nothing to score
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    state["results"]["args"]["env_id"] = "Pendulum-v1"
    torch.save(state, tmp_path / "run" / "checkpoint.pt")
    code, errors = call(monkeypatch, capsys, tmp_path / "run", tmp_path / "other")
    assert f"{said}: `python evaluate.py {tmp_path / 'run'} --num-candidates 1` scores" in errors[0]
    (tmp_path / "run").rename(tmp_path / "a run")
    run = tmp_path / "a run"
    code, errors = call(monkeypatch, capsys, run, tmp_path / "more", "--num-steps", "2")
    assert f"`python evaluate.py '{run}' --num-candidates 1 --num-steps 2` scores" in errors[0]


def test_times_and_scales_are_no_weights(small, tmp_path, monkeypatch, capsys):
    """Noise levels up to the largest that is allowed, and observations of any size."""
    run = tmp_path / "run"
    gtp.train(small(eta=0.0, sigma_max=1e6, num_updates=1))
    edited(run, **{"actor_ema.obs_mean": torch.full((3,), 1e8)})
    assert call(monkeypatch, capsys, run, tmp_path / "policy") == (0, [])
    assert np.load(tmp_path / "policy" / "policy.npz")["t"][0] == 1e6


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
@pytest.mark.parametrize("name", ["net.2.weight", "net.0.bias", "embed.0.weight"])
def test_a_diverged_actor_is_refused(name, value, small, tmp_path, monkeypatch, capsys):
    """Whose weights are not finite or absurd; the other actor's do not matter."""
    run = tmp_path / "run"
    gtp.train(small(eta=0.0, num_updates=2, eval_freq=2))
    weight = gtp.load_checkpoint(run)["nets"][f"actor_ema.{name}"].clone()
    weight.view(-1)[3] = value
    edited(run, **{f"actor.{name}": weight})
    assert call(monkeypatch, capsys, run, tmp_path / "policy") == (0, [])
    edited(run, **{f"actor_ema.{name}": weight})
    code, errors = call(monkeypatch, capsys, run, tmp_path / "other")
    assert code == 1 and len(errors) == 1
    assert re.search(r"has diverged by update 2: \w+ of its actor reaches", errors[0])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("script", [diffusion_ql, consistency_ac])
def test_a_baseline_is_refused_by_its_name(script, dataset, small, tmp_path, monkeypatch, capsys):
    small()  # no pictures
    args = script.default_args(dataset_path=str(dataset), device="cpu", num_updates=1)
    script.train(replace(args, run_dir=str(tmp_path / "run"), hidden_dim=4, tensorboard=False))
    code, errors = call(monkeypatch, capsys, tmp_path / "run", tmp_path / "policy")
    assert code == 1 and len(errors) == 1
    assert f"is of {script.__name__}.py; runs of gtp_offline.py and gtp_bc.py" in errors[0]


def test_altered_weights_are_not_exported(small, tmp_path, monkeypatch, capsys):
    """A flipped bit that torch.load alone does not notice."""
    run = tmp_path / "run"
    gtp.train(small(eta=0.0, num_updates=2, eval_freq=2, checkpoint_freq=100))
    path = run / "checkpoint.pt"
    weight = gtp.load_checkpoint(run)["nets"]["actor_ema.net.2.weight"].numpy()
    content = bytearray(path.read_bytes())
    place = content.index(weight.tobytes()) + 4
    content[place] ^= 1
    altered = torch.load(io.BytesIO(content), weights_only=True)
    assert not np.array_equal(altered["nets"]["actor_ema.net.2.weight"].numpy(), weight)
    path.write_bytes(content)
    for target in (run, path):
        code, errors = call(monkeypatch, capsys, target, tmp_path / "policy")
        assert code == 2 and len(errors) == 1 and "holds no whole checkpoint" in errors[0]
    assert not (tmp_path / "policy").exists()


def test_a_number_of_steps_below_one_is_a_wrong_argument(small, tmp_path, monkeypatch, capsys):
    gtp.train(small(eta=0.0, num_updates=1))
    words = [tmp_path / "run", tmp_path / "policy", "--num-steps", "0"]
    code, errors = call(monkeypatch, capsys, *words)
    assert code == 2 and errors == ["error: --num-steps is 0; give a number from 1"]


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_what_is_no_checkpoint_is_refused_in_one_line(content, tmp_path, monkeypatch, capsys):
    path = tmp_path / "checkpoint.pt"
    if content is not None:
        path.write_bytes(content)
    code, errors = call(monkeypatch, capsys, path, tmp_path / "policy")
    assert code == 2 and len(errors) == 1
    assert "checkpoint.pt holds no whole checkpoint" in errors[0]
    assert not (tmp_path / "policy").exists()


def test_an_interrupted_write_leaves_the_policy_of_before(small, tmp_path, monkeypatch, capsys):
    gtp.train(small(eta=0.0, num_updates=1))
    folder = tmp_path / "policy"
    assert call(monkeypatch, capsys, tmp_path / "run", folder)[0] == 0
    before = (folder / "policy.npz").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, errors = call(monkeypatch, capsys, tmp_path / "run", folder, "--num-steps", "2")
    reason = "([Errno 28] No space left on device); what was there is kept"
    assert code == 1 and errors == [f"error: {folder / 'policy.npz'} cannot be written {reason}"]
    assert (folder / "policy.npz").read_bytes() == before


def test_a_folder_that_is_a_file_is_named(small, tmp_path, monkeypatch, capsys):
    gtp.train(small(eta=0.0, num_updates=1))
    (tmp_path / "policy").write_text("")
    code, errors = call(monkeypatch, capsys, tmp_path / "run", tmp_path / "policy")
    assert code == 1 and len(errors) == 1
    assert "cannot be made" in errors[0] and "name another" in errors[0]
