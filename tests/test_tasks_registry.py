"""offline_tasks: ids, dimensions, scores, checks of data, what is imported when."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import offline_tasks
from offline_tasks import d4rl_files, evaluate, make_env, registry

ROOT = Path(__file__).resolve().parent.parent


def run_python(code, folder=None, **environment):
    """In a fresh process, so that its imports and environment are its own."""
    rendering = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY")  # other tests leave the first two
    env = {k: v for k, v in os.environ.items() if k not in rendering}
    env |= {"PYTHONPATH": str(ROOT), "D4RL_DATASET_DIR": str(folder)} | environment
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize("env_id", offline_tasks.TASK_DIMS)
def test_task_dims_are_the_environments(env_id):
    env = make_env(env_id)
    dims = (*env.observation_space.shape, *env.action_space.shape)
    assert offline_tasks.task_dims(env_id) == (*dims, env.get_wrapper_attr("_max_episode_steps"))
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    assert offline_tasks.action_bounds(env_id) is None
    assert env.reset(seed=0)[0].shape == dims[:1]


def test_other_gymnasium_tasks():
    assert offline_tasks.task_dims("Pendulum-v1") == (3, 1, 200)
    env = make_env("Pendulum-v1")
    assert env.action_space.low == -2 and env.action_space.high == 2  # its own units
    assert offline_tasks.action_bounds("Pendulum-v1").tolist() == [[-2], [2]]
    result = evaluate("Pendulum-v1", lambda obs: np.zeros((len(obs), 1)), 2, 0)
    assert result["normalized_score"] is result["goal_fractions"] is None
    assert result["episodic_return"] < 0 and result["episodic_length"] == 200
    for env_id, what in (("CartPole-v1", "action"), ("Blackjack-v1", "observation")):
        with pytest.raises(ValueError, match=f"{env_id}.* {what} space"):
            offline_tasks.task_dims(env_id)


@pytest.mark.parametrize("call", [offline_tasks.check_env_id, make_env, offline_tasks.dataset_file])
def test_unknown_ids_list_near_ones(call):
    with pytest.raises(ValueError, match=r"'hoper-medium-v2'.*hopper-medium-v2.*--dataset-path"):
        call("hoper-medium-v2")


@pytest.mark.parametrize(
    "wrong, near",
    [
        ("halfcheetah-medium-v0", "halfcheetah-medium-v2"),
        ("antmaze-umaze-v1", "antmaze-umaze-v0"),
        ("antmaze_large_play-v2", "antmaze-large-play-v2"),
        ("multigoal", "multigoal-v0"),
        ("pointmaze-large-v1", "pointmaze-large-v0"),
        ("Pendulum-v2", "Pendulum-v1"),
    ],
)
def test_near_misses(wrong, near):
    with pytest.raises(ValueError, match=f"unknown env id '{wrong}': near ones are .*{near}"):
        offline_tasks.check_env_id(wrong)


@pytest.mark.parametrize(
    ("wrong", "first"),
    [
        ("Hopper-Medium-v2", "hopper-medium-v2"),
        ("HOPPER-MEDIUM-V2", "hopper-medium-v2"),
        ("Hopper-v9", "Hopper-v5"),
        ("Pendulum-v0", "Pendulum-v1"),
        ("Walker2d-Medium-Replay-v2", "walker2d-medium-replay-v2"),
    ],
)
def test_only_what_can_be_built_here_is_near(wrong, first):
    """No version that Gymnasium has given up, and none that needs another package."""
    with pytest.raises(ValueError) as error:
        offline_tasks.check_env_id(wrong)
    near = str(error.value).split("near ones are ")[1].split(" (")[0].split(", ")
    assert near[0] == first and len(near) <= 4
    assert not any("/" in env_id for env_id in near)
    for env_id in near:
        make_env(env_id).close()


@pytest.mark.parametrize("retired", ["Hopper-v2", "Hopper-v3"])
def test_a_version_that_gymnasium_has_no_more_gets_todays(retired):
    with pytest.raises(ValueError, match=f"'{retired}' is of a version .* no more: .*Hopper-v5"):
        offline_tasks.check_env_id(retired)


def test_an_id_like_no_other_lists_all_tasks():
    with pytest.raises(ValueError) as error:
        offline_tasks.check_env_id("qqq")
    assert all(env_id in str(error.value) for env_id in offline_tasks.TASK_DIMS)


# Copied by hand from D4RL's infos.py: 0 and 100 of every task's score.
REFERENCE = [
    ("halfcheetah-medium-v2", -280.178953, 12135.0),
    ("halfcheetah-medium-replay-v2", -280.178953, 12135.0),
    ("halfcheetah-medium-expert-v2", -280.178953, 12135.0),
    ("hopper-medium-v2", -20.272305, 3234.3),
    ("hopper-medium-replay-v2", -20.272305, 3234.3),
    ("hopper-medium-expert-v2", -20.272305, 3234.3),
    ("walker2d-medium-v2", 1.629008, 4592.3),
    ("walker2d-medium-replay-v2", 1.629008, 4592.3),
    ("walker2d-medium-expert-v2", 1.629008, 4592.3),
    ("antmaze-umaze-v0", 0.0, 1.0),
    ("antmaze-umaze-diverse-v0", 0.0, 1.0),
    ("antmaze-medium-play-v0", 0.0, 1.0),
    ("antmaze-medium-diverse-v0", 0.0, 1.0),
    ("antmaze-large-play-v0", 0.0, 1.0),
    ("antmaze-large-diverse-v0", 0.0, 1.0),
    ("antmaze-umaze-v2", 0.0, 1.0),
    ("antmaze-umaze-diverse-v2", 0.0, 1.0),
    ("antmaze-medium-play-v2", 0.0, 1.0),
    ("antmaze-medium-diverse-v2", 0.0, 1.0),
    ("antmaze-large-play-v2", 0.0, 1.0),
    ("antmaze-large-diverse-v2", 0.0, 1.0),
    ("pen-human-v1", 96.262799, 3076.8331017826877),
    ("pen-cloned-v1", 96.262799, 3076.8331017826877),
    ("kitchen-complete-v0", 0.0, 4.0),
    ("kitchen-partial-v0", 0.0, 4.0),
    ("kitchen-mixed-v0", 0.0, 4.0),
    ("multigoal-v0", 0.0, 1.0),
    ("multigoal-unequal-v0", 0.0, 1.0),
    ("pointmaze-umaze-v0", 0.0, 1.0),
    ("pointmaze-medium-v0", 0.0, 1.0),
    ("pointmaze-large-v0", 0.0, 1.0),
    ("pointmaze-walls-v0", 0.0, 1.0),
]


@pytest.mark.parametrize("env_id, low, high", REFERENCE)
def test_both_ends_of_a_reference_score(env_id, low, high):
    score = offline_tasks.normalized_score(env_id, [low, (low + high) / 2, high])
    np.testing.assert_allclose(score, [0, 50, 100], rtol=0, atol=1e-9)


def test_every_task_has_a_reference_score():
    assert set(offline_tasks.TASK_DIMS) <= {env_id for env_id, _, _ in REFERENCE}


def test_normalized_score():
    score = offline_tasks.normalized_score
    assert score("walker2d-medium-expert-v2", 2296.9645) == pytest.approx(50, abs=1e-5)
    np.testing.assert_allclose(score("antmaze-large-play-v0", [0, 1, 0.5]), [0, 100, 50])
    assert score("kitchen-mixed-v0", 1) == pytest.approx(25)
    np.testing.assert_allclose(score("multigoal-unequal-v0", [1, 0.25]), [100, 25])
    assert score("Pendulum-v1", [1.0]) is None


@pytest.mark.parametrize("module", ["", "mypackage.envs:"])
@pytest.mark.parametrize(
    ("env_id", "score"),
    [
        ("kitchen-mixed-v0", 25),
        ("kitchen-stove-v0", None),
        ("pen-mine-v0", None),
        ("hopper-full-replay-v2", pytest.approx(100 * 21.272305 / 3254.572305)),
        ("hopper-medium-v5", None),
        ("antmaze-mine-v0", None),
    ],
)
def test_an_own_environment_has_a_score_under_d4rls_very_id_alone(module, env_id, score):
    """Of the hopper (1 + 20.272305) / (3234.3 + 20.272305)."""
    assert offline_tasks.normalized_score(module + env_id, 1) == score


def test_fix_timeouts():
    xy = np.array([[0, 0], [0.3, 0], [0, 8], [0.2, 8], [0, 0]], dtype=np.float32)
    obs = np.c_[xy, np.zeros((5, 27), np.float32)]
    data = {
        "observations": obs[:-1],
        "next_observations": obs[1:],
        "actions": np.arange(4, dtype=np.float32)[:, None],
        "rewards": np.array([0, 0, 0, 1], np.float32),
        "terminals": np.array([0, 0, 0, 1], np.float32),
    }
    fixed = offline_tasks.fix_timeouts(data)
    # row 1 jumps 8 m; so does row 3, but it is terminal: its next observation is never used
    np.testing.assert_array_equal(fixed["actions"][:, 0], [0, 2, 3])
    assert set(fixed) == set(data) and {len(v) for v in fixed.values()} == {3}
    assert len(data["actions"]) == 4


def test_check_data_applies_fix_timeouts():
    """To antmaze, and only if asked; in other tasks nothing can be fixed."""
    obs = np.zeros((3, 29), np.float32)
    data = {"observations": obs, "next_observations": obs.copy(), "actions": np.zeros((3, 8))}
    data |= {"rewards": np.arange(3.0), "terminals": np.zeros(3, bool)}
    data["next_observations"][1, 0] = 1.01  # a little more than an ant can do
    data["next_observations"][2, 0] = 0.99
    kept = offline_tasks.check_data("antmaze-umaze-v0", "f", data)
    np.testing.assert_array_equal(kept["rewards"], [0, 1, 2])
    fixed = offline_tasks.check_data("antmaze-umaze-v0", "f", data, fix=True)
    np.testing.assert_array_equal(fixed["rewards"], [0, 2])
    others = ("hopper-medium-v2", "antmaze-large-navigate-singletask-v0", "")
    for env_id, named in zip(others, (*others[:2], "file.npz"), strict=True):
        with pytest.raises(ValueError, match=rf"--fix-timeouts is for AntMaze, not for {named}"):
            offline_tasks.check_data(env_id, "file.npz", data, fix=True)


@pytest.mark.parametrize("key, has", [("observations", 11), ("actions", 3)])
def test_check_data_names_columns_that_are_not_the_tasks(key, has):
    data = {"observations": np.zeros((5, 11)), "actions": np.zeros((5, 3))}
    assert offline_tasks.check_data("hopper-medium-v2", "file.npz", data) is data
    data[key] = np.zeros((5, 7))
    message = f"file.npz: {key} have 7 columns, hopper-medium-v2 has {has}"
    with pytest.raises(ValueError, match=message):
        offline_tasks.check_data("hopper-medium-v2", "file.npz", data)


def test_an_ant_cannot_jump_as_far_as_fix_timeouts_assumes():
    """Full torques, changing at random: the furthest step is well below the threshold."""
    rng, furthest = np.random.default_rng(0), 0.0
    env = make_env("antmaze-medium-play-v0")
    for episode in range(3):
        xy = env.reset(seed=episode)[0][:2]
        for t in range(150):
            if t % 3 == 0:
                action = rng.choice([-1.0, 1.0], 8)
            before, xy = xy, env.step(action)[0][:2]
            furthest = max(furthest, np.linalg.norm(xy - before))
    assert 0.1 < furthest < 0.6 * d4rl_files.MAX_ANT_STEP


# ---- one's own environments ----------------------------------------------------------------------

OWN = """
import gymnasium
import numpy as np

BOX = gymnasium.spaces.Box

class Own(gymnasium.Env):
    observation_space = BOX(-1.0, 1.0, (3,), np.float32)
    action_space = BOX(np.float32([-2, 0]), np.float32([2, 4]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), float(action.sum()), False, False, {}

class OwnFailing(Own):
    def __init__(self):
        raise ValueError("no\\nlicence")

class OwnPlane(Own):
    observation_space = BOX(-1.0, 1.0, (3, 3), np.float32)

gymnasium.register("OwnPush-v0", entry_point=Own, max_episode_steps=7)
gymnasium.register("OwnEndless-v0", entry_point="own_package.envs:Own")
gymnasium.register("OwnLimited-v0", entry_point=lambda: gymnasium.wrappers.TimeLimit(Own(), 5))
gymnasium.register("OwnPlane-v0", entry_point=OwnPlane)
gymnasium.register("OwnFailing-v0", entry_point=OwnFailing)
"""


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """An installed package whose module own_package.envs registers environments; another cannot be
    imported."""
    import gymnasium

    before = dict(gymnasium.registry)
    folder = tmp_path / "own_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "envs.py").write_text(OWN)
    (folder / "broken.py").write_text("import a_simulator_that_is_not_installed\n")
    (folder / "failing.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in gymnasium.registry.keys() - before.keys():
        del gymnasium.registry[name]
    for name in [name for name in sys.modules if name.split(".")[0] == "own_package"]:
        del sys.modules[name]


def test_own_environment(own_package):
    """As gymnasium.make takes it: the module is imported and registers the id."""
    offline_tasks.check_env_id("own_package.envs:OwnPush-v0")
    assert offline_tasks.task_dims("own_package.envs:OwnPush-v0") == (3, 2, 7)
    assert offline_tasks.task_dims("own_package.envs:OwnEndless-v0") == (3, 2, 1000)
    env = make_env("own_package.envs:OwnPush-v0")
    env.reset(seed=0)
    assert env.step(np.float32([2, 0]))[1] == 2
    assert offline_tasks.action_bounds("own_package.envs:OwnPush-v0").tolist() == [[-2, 0], [2, 4]]
    result = evaluate("own_package.envs:OwnPush-v0", lambda obs: np.ones((len(obs), 2)), 3, 0)
    assert (result["episodic_return"], result["episodic_length"]) == (14, 7)
    assert result["normalized_score"] is None


def test_own_environment_has_data_of_its_own(own_package):
    data = {"observations": np.zeros((5, 3)), "actions": np.zeros((5, 2))}
    assert offline_tasks.check_data("own_package.envs:OwnPush-v0", "f", data) is data
    with pytest.raises(ValueError, match=r"OwnPush-v0.*--dataset-path"):
        offline_tasks.dataset_file("own_package.envs:OwnPush-v0")


@pytest.mark.parametrize("call", [offline_tasks.check_env_id, make_env, offline_tasks.task_dims])
@pytest.mark.parametrize(
    "env_id, said",
    [
        ("no_such_package:Own-v0", r"'no_such_package' cannot be imported.*PYTHONPATH"),
        ("own_package.nothing:Own-v0", r"'own_package.nothing' cannot be imported.*PYTHONPATH"),
        ("own_package.broken:Own-v0", r"imported.*a_simulator_that_is_not_installed"),
        ("own_package.failing:Own-v0", r"imported.*ZeroDivisionError"),
        (
            "own_package.envs:OwnPsuh-v0",
            r"'OwnPsuh-v0': near ones are own_package.envs:OwnPush-v0",
        ),
        ("own_package.envs:Qxz", r"registers no 'Qxz'.*, own_package.envs:OwnEndless-v0"),
        ("math:NoSuch-v0", r"'math' registers no 'NoSuch-v0': near ones are none "),
        (":Own-v0", r"'' cannot be imported"),
        ("a:b:Own-v0", r"'a:b' cannot be imported"),
    ],
)
def test_own_environment_that_is_not_there(own_package, call, env_id, said):
    with pytest.raises(ValueError, match=said) as error:
        call(env_id)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["OwnEndless", "OwnPush", "OwnLimited"])
def test_a_step_limit_that_is_not_the_environments_is_said(own_package, name, capsys):
    offline_tasks.prepare(f"own_package.envs:{name}-v0")
    said = f"{name}-v0 has no step limit: episodes are cut after 1000 steps; register it with"
    assert (said in capsys.readouterr().err) == (name == "OwnEndless")


def test_own_environment_that_fails(own_package):
    with pytest.raises(ValueError, match=r"OwnFailing-v0' cannot be built: .*licence") as error:
        make_env("own_package.envs:OwnFailing-v0")
    assert "\n" not in str(error.value)


def test_own_environment_without_vectors(own_package):
    with pytest.raises(ValueError, match=r"OwnPlane-v0.*observation space.*1-D Box"):
        offline_tasks.task_dims("own_package.envs:OwnPlane-v0")


# ---- imports and rendering -----------------------------------------------------------------------


def test_multigoal_needs_no_mujoco(tmp_path):
    code = """
import sys, os
before = dict(os.environ)
import offline_tasks
heavy = {"mujoco", "gymnasium", "h5py", "matplotlib", "torch", "minari", "ogbench"}
print(sorted(heavy & set(sys.modules)), before == dict(os.environ))
offline_tasks.dataset_file("multigoal-v0")
offline_tasks.evaluate("multigoal-v0", lambda obs: obs, 3, 0)
print(sorted(heavy & set(sys.modules)))
offline_tasks.plot_trajectories("multigoal-v0", lambda obs: obs, "t.png", 0, 3)
print("matplotlib.pyplot" in sys.modules)
"""
    assert run_python(code, tmp_path) == ["[]", "True", "[]", "False"]


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is Linux's")
def test_mujoco_gl_is_set_only_to_render_without_a_display():
    code = """
import os, offline_tasks
offline_tasks.make_env("multigoal-v0")
print(os.environ.get("MUJOCO_GL"))
offline_tasks.make_env("multigoal-v0", render_mode="rgb_array")
print(os.environ.get("MUJOCO_GL"))
"""
    assert run_python(code) == ["None", "egl"]
    assert run_python(code, MUJOCO_GL="osmesa") == ["osmesa", "osmesa"]
    assert run_python(code, DISPLAY=":0") == ["None", "None"]


def test_make_env_warns_of_nothing():
    code = "from offline_tasks import TASK_DIMS, make_env\n"
    code += "for env_id in TASK_DIMS: make_env(env_id).reset(seed=0)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# ---- before training ---------------------------------------------------------------------------


@pytest.mark.parametrize("renderer", ["nonsense", "osmesa"])
def test_a_renderer_that_cannot_be_loaded_is_switched_off(renderer):
    """MuJoCo refuses the one itself; for the other a library is missing."""
    code = """
import contextlib, ctypes.util, io
import offline_tasks
ctypes.util.find_library = lambda name: None
said = io.StringIO()
with contextlib.redirect_stderr(said):
    offline_tasks.prepare("hopper-medium-v2")
    offline_tasks.prepare("hopper-medium-v2")
obs, _ = offline_tasks.make_env("hopper-medium-v2").reset(seed=0)
print(len(obs), said.getvalue())
"""
    words = run_python(code, MUJOCO_GL=renderer)
    assert words[:4] == ["11", f"MUJOCO_GL={renderer}", "fails,", "now"]
    assert words.count("now") == 1


def test_a_simulator_that_is_not_there_is_said_before_training(monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(registry.importlib, "import_module", absent)
    with pytest.raises(ValueError, match="hopper-medium-v2 needs Gymnasium and MuJoCo: No module"):
        offline_tasks.prepare("hopper-medium-v2")
    offline_tasks.prepare("CartPole-v1")  # may do without MuJoCo
    offline_tasks.prepare("multigoal-v0")


def test_an_error_of_mujoco_without_a_chosen_renderer_is_not_hidden(monkeypatch):
    def broken(name):
        raise OSError("damaged library")

    monkeypatch.setattr(registry.importlib, "import_module", broken)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(OSError, match="damaged library"):
        offline_tasks.prepare("hopper-medium-v2")


@pytest.mark.parametrize("name", ["gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac"])
def test_a_script_asks_for_it_before_training(name, monkeypatch):
    def absent(env_id):
        raise ValueError(f"{env_id} needs Gymnasium and MuJoCo")

    script = importlib.import_module(name)
    monkeypatch.setattr(sys.modules["offline_tasks.tracking"], "prepare", absent)
    args = script.default_args("hopper-medium-v2", device="cpu")
    with pytest.raises(script.ArgumentError, match="hopper-medium-v2 needs Gymnasium and MuJoCo"):
        script.check_args(args)
