"""Actions have units: a file's, the environment's, and [-1, 1], where networks live."""

import sys
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from conftest import make_dataset
from test_export_policy import exported_act

import consistency_ac
import diffusion_ql
import evaluate
import export_policy
import gtp_bc
import gtp_offline as gtp
import offline_tasks
from offline_tasks.units import to_unit

SCRIPTS = (gtp, gtp_bc, diffusion_ql, consistency_ac)
SCRIPT = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)

HUMANOID = np.float32([[-0.4] * 2, [0.4] * 2])
SHIFTED = np.float32([[-2, 0], [2, 4]])  # another range and another middle in each column
POSITIVE = np.float32([[0, 0], [1, 1]])
FIXED = np.float32([[-2, 5], [2, 5]])
ALIKE = np.float32([[-1, -1], [1, 1]])
EDGE = [[-1.0, 0.5], [1.0, -0.5]]


# ---- the mapping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "units", "actions", "expected", "used"),
    [
        (HUMANOID, "auto", [[-0.4, 0.2], [0.1, 0.4]], [[-1, 0.5], [0.25, 1]], "env"),
        (HUMANOID, "auto", EDGE, EDGE, "unit"),  # beyond 0.4, so they cannot be its own
        (HUMANOID, "unit", [[-0.4, 0.2]], [[-0.4, 0.2]], "unit"),
        (SHIFTED, "auto", [[-2, 0], [1, 3]], [[-1, -1], [0.5, 0.5]], "env"),
        (SHIFTED, "env", [[0, 2], [2, 4]], [[0, 0], [1, 1]], "env"),
        (SHIFTED, "unit", EDGE, EDGE, "unit"),
        (SHIFTED, "auto", [[0, -0.5]], [[0, -0.5]], "unit"),  # the second column is below 0
        (POSITIVE, "auto", [[0, 0.25], [1, 0.5]], [[-1, -0.5], [1, 0]], "env"),
        (FIXED, "env", [[1, 5]], [[0.5, 0]], "env"),  # the second cannot vary
        (ALIKE, "auto", EDGE, EDGE, "unit"),
        (ALIKE, "env", EDGE, EDGE, "unit"),
        (None, "auto", EDGE, EDGE, "unit"),
    ],
)
def test_actions_of_a_file_in_unit_range(bounds, units, actions, expected, used):
    """By hand; what [-1, 1] stands for are the environment's bounds in either units."""
    given = np.float32(actions)
    unit, found, stands_for = to_unit("f", "Own-v0", given, bounds, units)
    np.testing.assert_allclose(unit, expected, rtol=1e-6)
    assert unit.dtype == np.float32 and found == used
    either = [-1, 1] if bounds is None or bounds is ALIKE else bounds.tolist()
    assert stands_for.tolist() == either
    outside = gtp.in_units(unit, stands_for)
    assert outside.dtype == np.float32
    if used == "env":
        np.testing.assert_allclose(outside, given, rtol=0, atol=3e-7)  # and back


def test_the_default_mapping_changes_no_bit():
    actions = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    assert np.array_equal(gtp.in_units(actions, (-1, 1)), actions)
    assert np.array_equal(gtp.in_units(actions, np.float32(ALIKE)), actions)


def test_no_action_is_beyond_the_bounds_by_a_rounding_error():
    """The middle and half of odd bounds do not add up to them in float32."""
    generator = np.random.default_rng(0)
    low = generator.normal(0, 10, 500).astype(np.float32)
    high = low + generator.uniform(0, 10, 500).astype(np.float32)
    for corner in (-1, 1):
        outside = gtp.in_units(np.full((1, 500), corner, np.float32), (low, high))
        assert (low <= outside).all() and (outside <= high).all()


@pytest.mark.parametrize(
    ("bounds", "units", "actions", "said"),
    [
        (HUMANOID, "env", EDGE, r"reach 1 \(column 0.*\[-1, 1\], those of Own-v0 in \[-0.4, 0.4\]"),
        (HUMANOID, "env", EDGE, "give --action-units unit$"),
        (SHIFTED, "unit", [[0, 4]], r"reach 4 \(column 1 is beyond\); give --action-units env$"),
        (
            SHIFTED,
            "auto",
            [[-3, 0]],
            r"reach 3 \(column 0.*those of Own-v0 in \[-2, 4\]; clip them as",
        ),
        (
            SHIFTED,
            "unit",
            [[-3, 0]],
            r"clip them as Own-v0 does, or rescale them to \[-1, 1\] and give --action-units unit$",
        ),
        (POSITIVE, "auto", [[0.5, -2]], r"reach 2 \(column 1 is beyond\).*clip them"),
        (ALIKE, "env", [[0, 1.1]], r"reach 1.1 \(column 1 is beyond\); rescale them to \[-1, 1\]$"),
        (None, "auto", [[1.1, 0]], r"reach 1.1 \(column 0 is beyond\); rescale them to \[-1, 1\]$"),
    ],
)
def test_actions_that_do_not_fit_are_refused_with_the_remedy(bounds, units, actions, said, capsys):
    with pytest.raises(ValueError, match=said) as error:
        to_unit("file.npz", "Own-v0", np.float32(actions), bounds, units)
    assert "\n" not in str(error.value) and "dataset file.npz: " in str(error.value)
    assert capsys.readouterr().err == ""  # no other line


def test_a_rounding_error_of_the_bounds_is_clipped_with_a_line(capsys):
    actions, units, _ = to_unit("f", "Own-v0", np.float32([[0.4003, 0]]), HUMANOID)
    line = "dataset f: actions up to 0.4003 clipped to [-0.4, 0.4]\n"
    assert line in capsys.readouterr().err
    assert units == "env" and actions.tolist() == [[1, 0]]


def test_one_line_says_which_units_were_guessed(capsys):
    to_unit("f", "Own-v0", np.float32([[0.1, -0.2]]), HUMANOID)
    line = "dataset f: actions are in [-0.2, 0.1], those of Own-v0 in [-0.4, 0.4]: taken "
    choice = "in its units; if they are in [-1, 1]: --action-units unit\n"
    assert capsys.readouterr().err == line + choice
    to_unit("f", "Own-v0", np.float32([[1, -0.2]]), HUMANOID)
    line = "dataset f: actions are in [-0.2, 1], those of Own-v0 in [-0.4, 0.4]: taken "
    assert capsys.readouterr().err == line + "as rescaled to [-1, 1], --action-units unit\n"
    to_unit("f", "Own-v0", np.float32([[0.1, -0.2]]), HUMANOID, "unit")
    to_unit("f", "Own-v0", np.float32([[0.1, -0.2]]), HUMANOID, "env")
    to_unit("f", "Own-v0", np.float32(EDGE), ALIKE)
    assert capsys.readouterr().err == ""  # given, or nothing to choose


# ---- runs ----------------------------------------------------------------------------------------


class Recorder(gymnasium.Env):
    """What it is told to do is kept."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(*SHIFTED)
    told = ()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        Recorder.told += (action,)
        return np.zeros(3, np.float32), 0.0, False, False, {}


@pytest.fixture(scope="module")
def recorder():
    gymnasium.register("Recorder-v0", entry_point=Recorder, max_episode_steps=20)
    yield "Recorder-v0"
    del gymnasium.registry["Recorder-v0"]


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    """Actions in SHIFTED's units, near (1, 3): (0.5, 0.5) for the networks."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("units") / "own.npz"
    actions = np.float32([1, 3]) + rng.uniform(-0.1, 0.1, (200, 2)).astype(np.float32)
    data = {"observations": np.zeros((200, 3), np.float32), "actions": actions}
    data["observations"][:, 0] = rng.uniform(-1, 1, 200)
    data |= {"rewards": rng.standard_normal(200), "terminals": np.arange(200) % 20 == 19}
    np.savez(path, **data)
    return path


def own(script, data_file, folder, **changes):
    """Args of a short run on that file."""
    args = script.default_args(dataset_path=str(data_file), device="cpu", num_updates=3)
    short = {"hidden_dim": 8, "batch_size": 16, "num_eval_episodes": 2, "eval_freq": 3}
    short |= {"tensorboard": False, "env_id": "Recorder-v0", "run_dir": str(folder)}
    return replace(args, **short | changes)


def test_a_space_without_bounds_takes_the_unit_range(monkeypatch):
    space = gymnasium.spaces.Box(np.float32([-2, -np.inf]), np.float32([2, 3]))
    monkeypatch.setattr(Recorder, "action_space", space)
    assert offline_tasks.gymnasium_tasks.bounds_of(Recorder()) is None
    monkeypatch.setattr(Recorder, "action_space", gymnasium.spaces.Box(*SHIFTED))
    assert offline_tasks.gymnasium_tasks.bounds_of(Recorder()).tolist() == SHIFTED.tolist()


def test_bounds_that_float32_lacks_are_rounded_into_the_space(monkeypatch):
    """0.1 and 0.3 are rounded up, 0.2 and -0.3 down; what float32 has stays."""
    low, high = np.array([-0.1, -0.3, -2, 0]), np.array([0.1, 0.2, 2, 0.3])
    space = gymnasium.spaces.Box(low, high, dtype=np.float64)
    monkeypatch.setattr(Recorder, "action_space", space)
    bounds = offline_tasks.gymnasium_tasks.bounds_of(Recorder())
    assert bounds.dtype == np.float32 and all(space.contains(bound) for bound in bounds)
    np.testing.assert_allclose(bounds, [low, high], rtol=2e-7)
    assert bounds[:, 2].tolist() == [-2, 2] and bounds[0, 3] == 0


def test_an_action_that_cannot_vary_has_one_bound(monkeypatch):
    """0.3 of float64, which float32 rounds up: below it there is nothing in the space."""
    space = gymnasium.spaces.Box(np.array([0.3, -1]), np.array([0.3, 1]), dtype=np.float64)
    monkeypatch.setattr(Recorder, "action_space", space)
    bounds = offline_tasks.gymnasium_tasks.bounds_of(Recorder())
    assert bounds.tolist() == [[np.float32(0.3), -1], [np.float32(0.3), 1]]


def test_a_rounding_of_float32_is_no_clip(tmp_path, capsys):
    """Data at the bound of a float64 space; two steps of float32 are said."""
    highest = np.nextafter(np.float32(0.1), np.float32(0))
    bounds = np.array([[-highest], [highest]])
    actions = np.float32([[0.1], [-0.1], [0.05]])
    scaled, units, _ = to_unit("f", "Own-v0", actions, bounds, "env")
    assert units == "env" and scaled[:2, 0].tolist() == [1, -1]
    assert capsys.readouterr().err == ""
    farther = np.nextafter(np.nextafter(actions, np.float32(1)), np.float32(1))
    to_unit("f", "Own-v0", farther, bounds, "env")
    assert "clipped to [-0.1, 0.1]" in capsys.readouterr().err


HALF = gymnasium.spaces.Box(np.float32([-2, -np.inf]), np.float32([2, 3]))
NONE = gymnasium.spaces.Box(-np.inf, np.inf, (2,))


@pytest.mark.parametrize(("space", "where"), [(HALF, " in columns 1"), (NONE, "")])
@pytest.mark.parametrize(
    ("largest", "units", "fits"),
    [
        (1, "auto", True),
        (1, "unit", True),
        (1, "env", False),
        (2, "env", False),
        (2, "auto", False),
    ],
)
def test_a_space_without_bounds_has_no_units(
    space, where, largest, units, fits, recorder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Recorder, "action_space", space)
    data = make_dataset()
    data["actions"][0] = largest
    np.savez(tmp_path / "f.npz", **data)
    path = tmp_path / "f.npz"
    missing = f"the action space of {recorder} is not bounded{where}"
    if fits:
        offline_tasks.load_dataset(path, recorder, action_units=units)
        said = f"dataset {path}: {missing}: actions are taken in [-1, 1], and the policy acts there"
        assert said in capsys.readouterr().err
        return
    with pytest.raises(ValueError, match=r"rescale them to \[-1, 1\]") as error:
        offline_tasks.load_dataset(path, recorder, action_units=units)
    line = str(error.value)
    assert f"{missing}, so that its units are not defined" in line and "\n" not in line
    assert line.endswith("or give the Box bounds")


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "multigoal-v0", "Pendulum-v1"])
def test_a_space_with_bounds_lacks_none(env_id):
    assert offline_tasks.registry.missing_bounds(env_id) == ""


@SCRIPT
def test_networks_live_in_the_unit_range_and_act_in_the_environments(
    script, recorder, data_file, tmp_path, monkeypatch, capsys
):
    """The data that are trained on, the evaluation's actions, load_policy's, evaluate.py's and a
    resume's: of one run, each in its units."""
    args = own(script, data_file, tmp_path / "run")
    data, holdout, about = script.load_data(args)
    assert about["action_units"] == "env" and about["action_bounds"] == SHIFTED.tolist()
    for actions in (data["actions"], holdout["actions"]):
        assert (actions - 0.5).abs().max() < 0.051 and actions.dtype == torch.float32
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args, **kwargs: None)
    monkeypatch.setattr(Recorder, "told", ())
    results = script.train(args)
    told = np.array(Recorder.told)
    assert told.shape == (40, 2) and (told[:, 1] >= 0).all()
    said = capsys.readouterr()
    assert "taken in its units" in said.err and "200 transitions of 200 rows" in said.out
    assert results["dataset"]["action_bounds"] == SHIFTED.tolist()
    state = script.load_checkpoint(tmp_path / "run")
    plain = script.load_networks(state, script.saved_args(state))
    plain["actor"].action_bounds = (-1, 1)
    obs = np.float32([[0.3, 0, 0], [-0.3, 0, 0]])
    unit = script.make_act(plain, args, args.seed)(obs)
    assert np.abs(unit).max() <= 1
    acted = script.load_policy(tmp_path / "run")(obs)
    np.testing.assert_allclose(acted, np.float32([0, 2]) + 2 * unit, atol=1e-6)
    Recorder.told = ()
    flags = evaluate.Flags(tmp_path / "run")
    evaluate.evaluate(flags)
    np.testing.assert_array_equal(np.array(Recorder.told), told)
    assert "has no task" not in capsys.readouterr().err
    script.train(replace(args, resume=str(tmp_path / "run"), num_updates=4))
    assert script.load_policy(tmp_path / "run")(obs).shape == (2, 2)


@SCRIPT
def test_a_value_is_of_actions_as_the_critic_knows_them(script):
    """Whatever the environment's units."""
    if script is gtp_bc:
        assert script.state_value(None, None) is None
        return
    args = script.default_args(dataset_path="f", device="cpu")
    args = replace(args, hidden_dim=8, num_candidates=2)
    nets = script.make_networks(args, 3, 2)
    obs = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    before = script.policy_value(nets, args)(obs)
    actions = script.make_act(nets, replace(args, num_candidates=1), args.seed)(obs)
    with torch.no_grad():
        q = nets["critic"](torch.from_numpy(obs), torch.from_numpy(actions)).amin(0)
    np.testing.assert_allclose(before, q.numpy(), rtol=1e-6)
    nets["actor"].action_bounds = SHIFTED
    np.testing.assert_array_equal(script.policy_value(nets, args)(obs), before)


@pytest.mark.parametrize("script", [gtp, gtp_bc], ids=lambda script: script.__name__)
def test_the_export_acts_in_the_environments_units(script, recorder, data_file, tmp_path):
    args = own(script, data_file, tmp_path / "run")
    state = {"results": script.new_results(args, {"action_bounds": SHIFTED.tolist()})}
    nets = script.make_networks(args, 3, 2)
    state |= {"format": 2, "dims": [3, 2], "nets": nets.state_dict()}
    state["results"]["args"] = vars(args)
    (tmp_path / "run").mkdir()
    script.save_checkpoint(tmp_path / "run" / "checkpoint.pt", state)
    act = exported_act(*export_policy.export(tmp_path / "run"), tmp_path)
    rng = np.random.default_rng(0)
    obs = rng.standard_normal((50, 3)).astype(np.float32)
    noise = rng.standard_normal((50, 2)).astype(np.float32)
    tensors = torch.from_numpy(obs), torch.from_numpy(noise)
    unit = script.policy_samples(nets, *tensors, args.num_steps, args).numpy()
    expected = np.float32([0, 2]) + 2 * unit
    np.testing.assert_allclose(act(obs, noise), expected, atol=5e-5)
    assert (act(obs, 9 * noise) <= SHIFTED[1]).all()


@SCRIPT
def test_a_run_from_before_units_stretches_the_unit_range(script, recorder, data_file, tmp_path):
    """Its file lay in [-1, 1], and its environment stretched that to the bounds."""
    args = own(script, data_file, tmp_path)
    nets = script.make_networks(args, 3, 2)
    saved = vars(args).copy()
    del saved["action_units"], saved["d4rl_semantics"], saved["reward_normalization"]
    results = script.new_results(args, {"path": str(data_file), "sha256": "", "transitions": 1})
    results["args"] = saved
    state = {"format": 2, "dims": [3, 2], "nets": nets.state_dict(), "results": results}
    script.save_checkpoint(tmp_path / "checkpoint.pt", state)
    state = script.load_checkpoint(tmp_path)
    old = script.saved_args(state)
    assert old.d4rl_semantics and old.action_units == "unit"
    loaded = script.load_networks(state, old)
    assert loaded["actor"].action_bounds.tolist() == SHIFTED.tolist()
    elsewhere = script.load_networks(state, replace(old, env_id="Hopper-v5"))  # evaluated there
    assert elsewhere["actor"].action_bounds.tolist() == SHIFTED.tolist()
    with pytest.raises(ValueError, match="--action-units env"):
        script.load_data(old)  # as before: those of the file are beyond 1


def test_a_run_of_another_task_keeps_its_units_with_a_line(recorder, dataset, tmp_path, capsys):
    run = tmp_path / "run"
    gtp_bc.train(own(gtp_bc, dataset, run))
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["results"]["args"]["env_id"] = "Hopper-v5"
    state["results"]["dataset"]["action_bounds"] = [[0, 0], [1, 1]]
    torch.save(state, run / "checkpoint.pt")
    Recorder.told = ()
    act = gtp_bc.load_policy(run)
    capsys.readouterr()
    evaluate.evaluate(evaluate.Flags(run, env_id="Recorder-v0", num_eval_episodes=1))
    line = f"{run} is of Hopper-v5: its actions stay in [0, 1]; Recorder-v0 takes [-2, 4]\n"
    assert line in capsys.readouterr().err
    np.testing.assert_allclose(Recorder.told[:1], act(np.zeros((1, 3), np.float32)), atol=1e-6)


def test_a_run_of_no_task_is_stretched_for_a_task_with_a_line(recorder, dataset, tmp_path, capsys):
    args = own(gtp_bc, dataset, tmp_path / "run", env_id="")
    gtp_bc.train(args)
    Recorder.told = ()
    run = tmp_path / "run"
    act = gtp_bc.load_policy(run)
    capsys.readouterr()
    evaluate.evaluate(evaluate.Flags(run, env_id="Recorder-v0", num_eval_episodes=1))
    line = f"{run} has no task: its actions in [-1, 1] are stretched to [-2, 4] for Recorder-v0\n"
    assert capsys.readouterr().err == line
    expected = np.float32([0, 2]) + 2 * act(np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(Recorder.told[:1], expected, atol=1e-6)


def test_a_run_in_its_tasks_units_is_measured_on_its_data_alone(recorder, data_file, tmp_path):
    gtp_bc.train(own(gtp_bc, data_file, tmp_path / "run", action_units="env"))
    row = evaluate.evaluate(evaluate.Flags(tmp_path / "run", env_id=""))
    assert row["env_id"] is None and row["energy_score"] > 0


@SCRIPT
def test_units_of_no_environment_are_a_wrong_argument(script, data_file, monkeypatch, capsys):
    words = ["x.py", "--dataset-path", str(data_file), "--device", "cpu", "--action-units", "env"]
    monkeypatch.setattr(sys, "argv", words)
    assert script.main() == 2
    assert capsys.readouterr().err.startswith("error: --action-units env needs --env-id")
