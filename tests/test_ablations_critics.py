"""choosing_critic.py: one run's samples, chosen among by another's critic."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))
import choosing_critic
import experiment

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline
import offline_tasks


def call(*argv) -> int:
    return experiment.main(choosing_critic.run, choosing_critic.Arguments, [*map(str, argv)])


def test_a_return_to_go_is_known_where_the_episode_ends_in_a_terminal_state():
    """Rewards 1, 2, 3 to a terminal state, 4, 5 to a timeout, 6 to a terminal one."""
    observations = np.arange(6.0)[:, None]
    following = observations + 1
    following[4] = 40.0  # the row after a timeout begins another episode
    data = {
        "observations": observations,
        "next_observations": following,
        "rewards": np.arange(1.0, 7.0),
        "terminals": np.float32([0, 0, 1, 0, 0, 1]),
    }
    found = choosing_critic.returns_to_go(data, 0.5)
    np.testing.assert_allclose(found, [1 + 2 / 2 + 3 / 4, 2 + 3 / 2, 3, np.nan, np.nan, 6])


class Sharp(torch.nn.Module):
    """Two Q of which the smaller is 1,000 times the first component of the action."""

    def forward(self, obs, actions):
        q = 1_000 * actions[..., 0]
        return torch.stack((q, q + 1))


@pytest.mark.parametrize("script", [gtp_offline, gtp_bc, diffusion_ql, consistency_ac])
def test_the_critic_of_the_other_run_takes_the_sample_that_it_likes_best(script, monkeypatch):
    """From a tenth to nine tenths, in every state another order; in the environment's units."""
    samples = torch.stack([torch.arange(1.0, 10.0).roll(k) / 10 for k in range(3)], 1)[..., None]
    nets = torch.nn.ModuleDict({"actor": torch.nn.Identity()})
    nets["actor"].noise_dim, nets["actor"].action_bounds = 1, np.float32([-2, 2])
    for module in {script, gtp_offline}:  # cloning has GTP's samples
        monkeypatch.setattr(module, "policy_samples", lambda *given: samples)
    args = script.default_args(dataset_path="none", device="cpu")
    actor = choosing_critic.Trained(script, args, nets, {})
    critic = actor._replace(nets=torch.nn.ModuleDict({"critic_target": Sharp()}))
    act = choosing_critic.choosing(actor, critic, 9, 0)
    np.testing.assert_allclose(act(np.zeros((3, 2))), 1.8 * np.ones((3, 1)), rtol=1e-6)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A run of gtp_offline.py and one of gtp_bc.py, both of two updates."""
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args, **kwargs: None)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "datasets"))
    small = dict(num_updates=2, batch_size=8, hidden_dim=8, tensorboard=False)
    small |= dict(num_eval_episodes=1)
    for script in (gtp_offline, gtp_bc):
        args = script.default_args("pointmaze-umaze-v0", device="cpu")
        script.train(replace(args, run_dir=str(tmp_path / script.__name__), **small))
    return tmp_path


def test_every_actor_is_played_by_every_critic(runs, capsys):
    gtp, cloned = runs / "gtp_offline", runs / "gtp_bc"
    few = ("--num-candidates", 3, "--num-eval-episodes", 2, "--out", runs)
    assert call("--actors", gtp, cloned, "--critics", gtp, *few) == 0
    results = json.loads((runs / "choosing_critic.json").read_text())
    assert {a: [*row] for a, row in results["scores"].items()} == {
        str(gtp): [str(gtp)],
        str(cloned): [str(gtp)],
    }
    assert all(0 <= score <= 100 for row in results["scores"].values() for score in row.values())
    assert -1 <= results["critics"][str(gtp)]["correlation"] <= 1
    assert call("--actors", gtp, "--critics", gtp, *few) == 1
    words = f"was measured with --actors {gtp} {cloned}; remove it or give another --out"
    printed, said = capsys.readouterr()
    assert f"error: {runs}/choosing_critic.json {words}\n" == said
    assert results == json.loads((runs / "choosing_critic.json").read_text())
    assert f"| {cloned} |" in printed and "correlation with the return" in printed


def test_a_run_without_a_critic_and_runs_of_two_tasks_are_refused(runs, capsys):
    gtp, cloned = runs / "gtp_offline", runs / "gtp_bc"
    assert call("--actors", gtp, "--critics", cloned, "--out", runs) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--critics {cloned} has no critic" in line
    state = torch.load(cloned / "checkpoint.pt", weights_only=True)
    state["results"]["env_id"] = "pointmaze-medium-v0"
    torch.save(state, cloned / "checkpoint.pt")
    assert call("--actors", cloned, "--critics", gtp, "--out", runs) == 2
    assert "give runs of one task and one dataset" in capsys.readouterr().err
    state["results"]["env_id"] = None
    torch.save(state, cloned / "checkpoint.pt")
    assert call("--actors", cloned, "--critics", gtp, "--out", runs) == 2
    assert f"{cloned} has no task to play; give runs with --env-id" in capsys.readouterr().err
    assert call("--actors", runs / "absent", "--critics", gtp, "--out", runs) == 2
    assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--device", "foo"], "--device foo is not to be had on this machine; give cpu"),
        (["--device", "cuda:99"], "--device cuda:99 is not to be had on this machine; give cpu"),
        (["--num-rows", 0], "--num-rows is 0; it must be at least 2"),
        (["--num-rows", -3], "--num-rows is -3; it must be at least 2"),
        (["--num-candidates", 0], "--num-candidates is 0; it must be at least 2"),
        (["--num-candidates", 1], "--num-candidates is 1; it must be at least 2"),
        (["--num-eval-episodes", 0], "--num-eval-episodes is 0; it must be at least 1"),
        (["--seed", -200], "--seed is -200; it must be at least 0"),
        (["--seed", 2**63], f"--seed is {2**63}; it must be below 2^63"),
        (["--actors"], "--actors is empty; name one run directory or more"),
        (["--critics"], "--critics is empty; name one run directory or more"),
        (["--actors", "a", "a"], "--actors has a twice"),
        (["--critics", "a", "./x/../a"], "--critics has ./x/../a twice"),
        (["--out", "file"], "--out file: "),
        (["--out", "file/x"], "--out file/x: "),
    ],
)
def test_bad_options_are_refused_before_a_run_is_read(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choosing_critic, "load", lambda *given: pytest.fail("read"))
    (tmp_path / "file").write_text("kept")
    given = {"--actors": ["a"], "--critics": ["b"], argv[0]: argv[1:]}
    assert call(*(word for flag, values in given.items() for word in (flag, *values))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words}")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_dataset_that_has_moved_is_named(runs, monkeypatch, capsys):
    """And another one is refused, before anything is played."""
    gtp = runs / "gtp_offline"
    (file,) = runs.glob("datasets/*")
    moved = file.rename(runs / f"moved{file.suffix}")
    monkeypatch.setattr(offline_tasks, "dataset_file", lambda env_id: pytest.fail("its own"))
    argv = "--actors", gtp, "--critics", gtp, "--num-eval-episodes", 1, "--dataset-path"
    assert call(*argv, moved, "--out", runs / "out") == 0
    results = json.loads((runs / "out/choosing_critic.json").read_text())
    assert -1 <= results["critics"][str(gtp)]["correlation"] <= 1
    monkeypatch.setattr(offline_tasks, "evaluate", lambda *given: pytest.fail("played"))
    other = runs / "other.npz"
    other.write_text("")
    capsys.readouterr()
    assert call(*argv, other, "--out", runs / "new") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --dataset-path {other} is not the dataset of the runs; name that one"


def test_data_that_are_gone_are_missed_before_anything_is_played(runs, monkeypatch, capsys):
    monkeypatch.setattr(offline_tasks, "evaluate", lambda *given: pytest.fail("played"))
    monkeypatch.setattr(gtp_offline, "load_data", lambda args: gone())

    def gone():
        raise ValueError("the file is gone")

    gtp = runs / "gtp_offline"
    assert call("--actors", gtp, "--critics", gtp, "--out", runs) == 1
    assert "the file is gone" in capsys.readouterr().err


def test_a_correlation_is_unknown_without_two_pairs_or_of_a_constant():
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    assert choosing_critic.correlation(two, -two) == pytest.approx(-1)
    for a, b in ((one[:0], one[:0]), (one, one), (two, np.ones(2)), (np.ones(2), two)):
        assert np.isnan(choosing_critic.correlation(a, b))


def test_a_task_without_a_score_shows_returns_and_what_is_unknown_is_a_dash(
    runs, monkeypatch, capsys
):
    played = {"normalized_score": None, "episodic_return": 7.25}
    monkeypatch.setattr(offline_tasks, "evaluate", lambda *given: played)
    monkeypatch.setattr(choosing_critic, "returns_to_go", lambda data, _: 0 * data["rewards"])
    gtp = runs / "gtp_offline"
    assert call("--actors", gtp, "--critics", gtp, "--out", runs) == 0
    results = json.loads((runs / "choosing_critic.json").read_text())
    assert results["scores"] == {str(gtp): {str(gtp): 7.25}}
    assert results["critics"][str(gtp)]["correlation"] is None  # JSON knows no NaN
    printed = capsys.readouterr().out
    assert f"| {gtp} | 7.2 |" in printed and "| correlation with the return | - |" in printed
