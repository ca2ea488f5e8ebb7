"""OGBench's tasks, with a stand-in for the package and files written by hand in its layout."""

import http.server
import sys
import threading
import types
import urllib.request
from functools import partial

import gymnasium
import numpy as np
import pytest

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline
import offline_tasks
from offline_tasks import ogbench

TASK = "pointmaze-medium-navigate-singletask-task2-v0"
FILE = "pointmaze-medium-navigate-v0.npz"
GOAL = np.array([3.0, 0.0])


class Point(gymnasium.Env):
    """A point on a plane, with OGBench's habits: random numbers of NumPy's global generator, the
    success of the state before the step, rewards of -1 and 0."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    built = 0

    def __init__(self, render_mode=None):
        Point.built += 1
        self.render_mode = render_mode
        self.cur_goal_xy = np.zeros(2)
        self.forgets = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cur_goal_xy = GOAL
        self.xy = np.random.uniform(-0.1, 0.1, 2)
        return self.xy.copy(), {}

    def step(self, action):
        success = bool(np.linalg.norm(self.xy - self.cur_goal_xy) <= 0.5)
        self.xy = self.xy + action + np.random.uniform(-0.01, 0.01, 2)
        return self.xy.copy(), success - 1.0, success, False, {"success": float(success)}


class Arm(Point):
    """A task that success does not end: it may be undone."""

    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, False, truncated, info


def relabel_dataset(env_name, env, dataset):
    """Rewards and masks as OGBench's function of that name makes them for a maze."""
    assert env_name in ("pointmaze-medium-singletask-task2-v0", "cube-single-singletask-v0")
    env.reset()
    distance = np.linalg.norm(dataset["qpos"][:, :2] - env.unwrapped.cur_goal_xy, axis=-1)
    successes = (distance <= 0.5).astype(np.float32)
    dataset["rewards"] = successes - 1
    dataset["masks"] = 1 - successes


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A stand-in for ogbench, with two environments, and an empty folder for its files."""
    module = types.ModuleType("ogbench")
    module.relabel_utils = types.ModuleType("ogbench.relabel_utils")
    module.relabel_utils.relabel_dataset = relabel_dataset
    module.url = "http://127.0.0.1:9"  # where nothing answers

    def make_env_and_datasets(name, env_only, **options):
        assert env_only
        return gymnasium.make(ogbench.names(name)[0], **options)

    def download_datasets(names, dataset_dir):
        for name in names:
            for file in (f"{name}.npz", f"{name}-val.npz"):
                with urllib.request.urlopen(f"{module.url}/{file}") as response:
                    content = response.read()
                with open(f"{dataset_dir}/{file}", "wb") as written:
                    written.write(content)

    module.make_env_and_datasets = make_env_and_datasets
    module.download_datasets = download_datasets
    monkeypatch.setitem(sys.modules, "ogbench", module)
    monkeypatch.setitem(sys.modules, "ogbench.relabel_utils", module.relabel_utils)
    monkeypatch.setattr(ogbench, "_idle", {})
    monkeypatch.setenv("OGBENCH_DATASET_DIR", str(tmp_path / "ogbench"))
    Point.built = 0
    ids = {"pointmaze-medium-singletask-task2-v0": Point, "cube-single-singletask-v0": Arm}
    for env_id, kind in ids.items():
        gymnasium.register(env_id, entry_point=kind, max_episode_steps=10)
    yield module
    for env_id in ids:
        del gymnasium.registry[env_id]


def dataset(lengths=(4, 3)) -> dict:
    """Trajectories of so many transitions, thus of one state more, whose action is void (9); the
    first passes the goal in its second state and rests there at its end."""
    states = sum(lengths) + len(lengths)
    last = np.zeros(states)
    last[np.cumsum([length + 1 for length in lengths]) - 1] = 1
    qpos = np.arange(2.0 * states).reshape(states, 2) + 100
    qpos[[1, lengths[0]]] = GOAL
    actions = np.random.default_rng(0).uniform(-1, 1, (states, 2)).astype(np.float32)
    actions[last > 0] = 9
    rows = {"observations": qpos.astype(np.float32), "actions": actions, "terminals": last}
    return rows | {"qpos": qpos, "qvel": np.zeros_like(qpos)}


def held(folder, data=None):
    """Puts a dataset where a download would put it."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / FILE, **(data or dataset()))
    return folder / FILE


# ---- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "env", "data"),
    [
        (
            "antmaze-large-navigate-singletask-v0",
            "antmaze-large-singletask-v0",
            "antmaze-large-navigate-v0",
        ),
        (
            "humanoidmaze-giant-stitch-singletask-task5-v0",
            "humanoidmaze-giant-singletask-task5-v0",
            "humanoidmaze-giant-stitch-v0",
        ),
        (
            "puzzle-4x4-play-singletask-task1-v0",
            "puzzle-4x4-singletask-task1-v0",
            "puzzle-4x4-play-v0",
        ),
        ("scene-noisy-singletask-v0", "scene-singletask-v0", "scene-noisy-v0"),
    ],
)
def test_an_id_names_an_environment_and_a_dataset(env_id, env, data):
    assert ogbench.names(env_id) == (env, data)


def test_ids_that_are_not_there(package):
    offline_tasks.check_env_id(TASK)
    with pytest.raises(ValueError, match="no single task of OGBench: give one as antmaze-large"):
        offline_tasks.check_env_id("cube-singletask-task2-v1")
    with pytest.raises(ValueError, match=r"OGBench has no ant-x-singletask-v0, but .*cube-single"):
        offline_tasks.check_env_id("ant-x-navigate-singletask-v0")


@pytest.mark.parametrize("call", [offline_tasks.check_env_id, offline_tasks.make_env])
def test_without_the_package_its_installation_is_named(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(ValueError, match=f"{TASK}' needs ogbench.*`pip install ogbench`") as error:
        call(TASK)
    assert "\n" not in str(error.value)


# ---- environments --------------------------------------------------------------------------------


def walk(env, seed, steps=3):
    """The observations of an episode with actions of its own."""
    seen = [env.reset(seed=seed)[0]]
    seen += [env.step(np.float32([0.5, 0]))[0] for _ in range(steps)]
    return np.array(seen)


def test_dimensions_and_bounds(package):
    assert offline_tasks.task_dims(TASK) == (2, 2, 10)
    np.testing.assert_array_equal(offline_tasks.action_bounds(TASK), [[-1, -1], [1, 1]])


def test_a_seed_decides_an_episode_and_leaves_the_callers_numbers_alone(package):
    np.random.seed(3)
    expected = np.random.uniform(size=5)
    np.random.seed(3)
    drawn = [np.random.uniform()]
    first, second = offline_tasks.make_env(TASK), offline_tasks.make_env(TASK)
    alone = walk(first, seed=1)
    drawn.append(np.random.uniform())
    other = walk(second, seed=2)
    drawn.append(np.random.uniform())
    np.testing.assert_array_equal(walk(second, seed=1), alone)
    assert (other != alone).all()
    # Also where their steps alternate.
    states = [first.reset(seed=1)[0]]
    second.reset(seed=2)
    for _ in range(3):
        states.append(first.step(np.float32([0.5, 0]))[0])
        second.step(np.float32([0, 0.5]))
    np.testing.assert_array_equal(states, alone)
    drawn += np.random.uniform(size=2).tolist()
    np.testing.assert_array_equal(drawn, expected)


def test_a_closed_environment_is_used_again(package):
    """OGBench's are slow to build, and each leaves a file open."""
    first = offline_tasks.make_env(TASK)
    first.close()
    first.close()
    second, third = offline_tasks.make_env(TASK), offline_tasks.make_env(TASK)
    assert second is first and third is not first and Point.built == 2
    filming = offline_tasks.make_env(TASK, render_mode="rgb_array")
    assert filming.unwrapped.render_mode == "rgb_array" and Point.built == 3
    second.close()
    for _ in range(3):
        offline_tasks.evaluate(TASK, lambda obs: np.zeros((len(obs), 2)), 2, 0)
    assert Point.built == 4


def test_the_score_is_the_share_of_successes(package):
    """D4RL's AntMaze and the toys have other scales under names that begin alike."""

    def act(obs):
        """Goes to the goal, but not from the left half."""
        towards = np.clip(GOAL - obs, -1, 1)
        return np.where(obs[:, :1] < -0.02, 0, towards)

    episodes = offline_tasks.play(TASK, act, 20, seed=0)
    arrived = episodes["lengths"] < 10
    assert 0 < arrived.sum() < 20
    np.testing.assert_array_equal(episodes["scores"], 100 * arrived)
    result = offline_tasks.evaluate(TASK, act, 20, seed=0)
    assert result["normalized_score"] == pytest.approx(100 * arrived.mean())
    assert result["goal_fractions"] is None
    assert offline_tasks.normalized_score(TASK, [-3.0, -10.0]) is None
    np.testing.assert_array_equal(offline_tasks.normalized_score(TASK, [0, 0], [1, 0]), [100, 0])


def test_a_success_counts_at_the_end_of_the_episode(package):
    """Through the goal and away again is none."""
    task = "cube-single-play-singletask-v0"
    passing = offline_tasks.evaluate(task, lambda obs: np.float32([[1, 0]] * len(obs)), 2, 0)
    assert passing["normalized_score"] == 0 and passing["episodic_return"] > -10
    staying = offline_tasks.evaluate(task, lambda obs: np.clip(GOAL - obs, -1, 1), 2, 0)
    assert (staying["normalized_score"], staying["episodic_length"]) == (100, 10)


# ---- data ----------------------------------------------------------------------------------------


def test_rewards_terminals_and_ends_of_a_file(package, tmp_path):
    """Of 9 states 7 have an action. The first trajectory is at the goal in its second state, which
    is terminal, and in its last, which gives no row."""
    data = dataset()
    path = held(tmp_path / "ogbench", data)
    assert offline_tasks.dataset_file(TASK) == path
    read = ogbench.read_arrays(TASK, path, False)
    kept = [0, 1, 2, 3, 5, 6, 7]
    following = [1, 2, 3, 4, 6, 7, 8]
    np.testing.assert_array_equal(read["observations"], data["observations"][kept])
    np.testing.assert_array_equal(read["next_observations"], data["observations"][following])
    np.testing.assert_array_equal(read["actions"], data["actions"][kept])
    np.testing.assert_array_equal(read["rewards"], [-1, 0, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(read["terminals"], [0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(read["ends"], [0, 0, 0, 1, 0, 0, 1])
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("key", ["observations", "actions"])
def test_numbers_beyond_float32_are_refused(key, package, tmp_path):
    data = dataset()
    data[key] = data[key].astype(np.float64)
    data[key][2, 0] = 1e300
    path = held(tmp_path / "ogbench", data)
    message = f"dataset {path} cannot be read .*{key} reaches 1e\\+300, beyond float32's"
    with pytest.raises(ValueError, match=message):
        ogbench.read_arrays(TASK, path, d4rl_semantics=False)


def test_differences_that_float32_rounds_away_are_said(package, tmp_path, capsys):
    data = dataset()
    data["observations"] = data["observations"].astype(np.float64)
    data["observations"][:, 0] = 4e6 + 0.3 * np.arange(len(data["observations"]))
    ogbench.read_arrays(TASK, held(tmp_path / "ogbench", data), False)
    assert "observations [0] lose their differences in float32" in capsys.readouterr().err


def test_d4rls_rule_is_said_to_have_no_effect(package, tmp_path, capsys):
    path = held(tmp_path / "ogbench", dataset())
    for rule in (False, True):
        ogbench.read_arrays(TASK, path, rule)
        said = "--d4rl-semantics has no effect on this file" in capsys.readouterr().err
        assert said == rule


def test_another_file_may_have_any_layout(package, tmp_path):
    rows = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 2))}
    rows |= {"rewards": np.arange(6.0), "terminals": np.zeros(6), "timeouts": np.zeros(6)}
    np.savez(tmp_path / "own.npz", **rows)
    read = ogbench.read_arrays(TASK, tmp_path / "own.npz", False)
    np.testing.assert_array_equal(read["rewards"], rows["rewards"])


def test_ogbenchs_own_folder_is_used_by_default(package, tmp_path, monkeypatch):
    monkeypatch.delenv("OGBENCH_DATASET_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = held(tmp_path / ".ogbench" / "data")
    assert offline_tasks.dataset_file(TASK) == path


@pytest.mark.parametrize("script", [gtp_offline, gtp_bc, diffusion_ql, consistency_ac])
def test_every_script_trains_on_a_dataset(script, package, small, tmp_path, capsys):
    held(tmp_path / "ogbench", dataset([10] * 24))
    changes = {"env_id": TASK, "dataset_path": "", "num_eval_episodes": 2}
    changes |= {"normalize_observations": True}
    args = small("run", script, **changes)
    data, _, about = script.load_data(args)
    assert about["transitions"] == 240 and data["rewards"].max() == 0
    assert data["terminals"].sum() == 1  # the first trajectory is there twice, once in a void row
    results = script.train(args)
    assert "240 transitions of 240 rows; 24 episodes, 1 terminals" in capsys.readouterr().out
    assert (results["status"], results["env_id"]) == ("finished", TASK)
    assert results["dataset"]["path"] == str(tmp_path / "ogbench" / FILE)
    assert results["last"]["normalized_score"] in (0, 50, 100)


# ---- download ------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(package, tmp_path):
    """A folder that a local server offers to the stand-in's download."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        package.url = f"http://127.0.0.1:{httpd.server_port}"
        yield folder
        httpd.shutdown()


def test_a_dataset_is_downloaded_into_the_folder(server, tmp_path):
    """A file of validation, which is not read, may be missing."""
    content = held(server).read_bytes()
    path = offline_tasks.dataset_file(TASK)
    assert path == tmp_path / "ogbench" / FILE and path.read_bytes() == content
    held(server, dataset((9, 9)))
    assert offline_tasks.dataset_file(TASK).read_bytes() == content  # what is there is kept


def test_a_download_that_fails_is_one_line_with_the_remedy(server, tmp_path):
    with pytest.raises(ValueError, match=f"{TASK} cannot be downloaded.*404") as error:
        offline_tasks.dataset_file(TASK)
    assert f"put the file at {tmp_path / 'ogbench' / FILE}" in str(error.value)
    assert "\n" not in str(error.value)


def test_half_a_file_is_not_kept(server, tmp_path):
    path = held(server)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="run again"):
        offline_tasks.dataset_file(TASK)
    assert not (tmp_path / "ogbench" / FILE).exists()
