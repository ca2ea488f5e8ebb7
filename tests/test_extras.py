"""Minari, gymnasium-robotics and OGBench themselves: pytest -m extras, where they are installed.

Datasets are made by Minari's own writer and by rollouts of OGBench's own environments, put where a
download would put them, and trained on; downloads are those packages' own, from a local server.
"""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
import warnings
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import ROOT

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline
import offline_tasks

pytestmark = pytest.mark.extras
FAMILY = [gtp_offline, gtp_bc, diffusion_ql, consistency_ac]


def short(small, script, env_id, **changes):
    """A run of 20 updates on the task's own file."""
    changes |= {"env_id": env_id, "dataset_path": "", "num_eval_episodes": 2}
    return script.train(small("run", script, **changes))


# ---- Minari --------------------------------------------------------------------------------------


def rollout(env, seed):
    """An episode of random actions, as Minari's writer takes it."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env.action_space.seed(seed)
    steps = {key: [] for key in ("actions", "rewards", "terminations", "truncations")}
    observations = [env.reset(seed=seed)[0]]
    while not (steps["truncations"] and (steps["truncations"][-1] or steps["terminations"][-1])):
        action = env.action_space.sample()
        obs, *rest, _ = env.step(action)
        observations.append(obs)
        for key, value in zip(steps, (action, *rest), strict=True):
            steps[key].append(value)
    if isinstance(observations[0], dict):
        keys = observations[0].keys()
        columns = {key: [obs[key] for obs in observations] for key in keys}
        columns["achieved_goal"] = columns["desired_goal"] = {"microwave": np.zeros((1, 1))}
    else:
        columns = np.array(observations)
    return EpisodeBuffer(id=None, seed=seed, observations=columns, **steps)


def write(env, env_id, num_episodes, **scores):
    """A dataset of Minari's own writer in Minari's own folder."""
    import minari

    made = [rollout(env, seed) for seed in range(num_episodes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a description and the like that it lacks
        minari.create_dataset_from_buffers(
            env_id, made, env=env, algorithm_name="random", author="nobody", **scores
        )
    return made


@pytest.fixture
def minari_root(tmp_path, monkeypatch):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


HOPPER = "mujoco/hopper/medium-v0"


def hopper(**scores):
    env = gymnasium.make("Hopper-v5", max_episode_steps=30)
    return write(env, HOPPER, 12, **scores)


def test_what_minari_wrote_is_read_as_minari_reads_it(minari_root):
    import minari

    hopper()
    read = offline_tasks.registry.read_arrays(HOPPER, offline_tasks.dataset_file(HOPPER))
    wanted = list(minari.load_dataset(HOPPER).iterate_episodes())
    columns = {
        "observations": [episode.observations[:-1] for episode in wanted],
        "next_observations": [episode.observations[1:] for episode in wanted],
        "actions": [episode.actions for episode in wanted],
        "rewards": [episode.rewards for episode in wanted],
        "terminals": [episode.terminations for episode in wanted],
        "timeouts": [episode.truncations for episode in wanted],
    }
    for key, parts in columns.items():
        expected = np.concatenate(parts).astype(np.float32)
        np.testing.assert_array_equal(read[key], expected, err_msg=key)
    env = offline_tasks.make_env(HOPPER)
    other = minari.load_dataset(HOPPER).recover_environment()
    assert type(env.unwrapped) is type(other.unwrapped)
    assert offline_tasks.task_dims(HOPPER) == (11, 3, 30)


@pytest.mark.parametrize("script", FAMILY)
def test_every_script_trains_on_what_minari_wrote(script, minari_root, small):
    hopper(ref_min_score=0.0, ref_max_score=100.0)
    results = short(small, script, HOPPER)
    assert results["status"] == "finished"
    last = results["last"]
    assert last["normalized_score"] == pytest.approx(last["episodic_return"], rel=1e-6)


@pytest.mark.parametrize("script", FAMILY)
def test_every_script_trains_on_a_hand_of_gymnasium_robotics(script, minari_root, small):
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    task = "D4RL/pen/human-v2"
    env = gymnasium.make("AdroitHandPen-v1", max_episode_steps=25)
    write(env, task, 4, ref_min_score=96.0, ref_max_score=3076.0)
    results = short(small, script, task)
    assert results["status"] == "finished"
    assert results["last"]["episodic_length"] == 25


def test_a_script_trains_on_the_kitchen(minari_root, small):
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    try:
        env = gymnasium.make("FrankaKitchen-v1", tasks_to_complete=["kettle"], max_episode_steps=10)
    except AssertionError:
        pytest.skip("the kitchen of gymnasium-robotics 1.4.2 needs mujoco<3.11")
    task = "D4RL/kitchen/complete-v2"
    made = write(env, task, 4, ref_min_score=0.0, ref_max_score=4.0)
    read = offline_tasks.registry.read_arrays(task, offline_tasks.dataset_file(task))
    seen = np.array(made[0].observations["observation"][:-1], dtype=np.float32)
    np.testing.assert_array_equal(read["observations"][:10], seen)
    results = short(small, gtp_offline, task)
    assert results["status"] == "finished"
    assert results["last"]["episodic_length"] == 10


# ---- OGBench -------------------------------------------------------------------------------------

MAZE = "pointmaze-medium-navigate-singletask-v0"
TASKS = {  # id: an actor that a rollout of random actions shall reset to the goal, or None
    MAZE: "point",
    "antmaze-medium-stitch-singletask-task2-v0": "ant",
    "antsoccer-arena-navigate-singletask-v0": None,
    "cube-single-play-singletask-task3-v0": None,
    "scene-play-singletask-v0": None,
    "puzzle-3x3-play-singletask-v0": None,
}


def random_data(env_id, num_episodes=4, steps=25):
    """Rows in OGBench's layout: the last of a trajectory has an action that is void. In mazes, a
    state in the middle of the first is at the goal."""
    env = offline_tasks.make_env(env_id)
    env.reset(seed=0)
    inner = env.unwrapped
    simulator = inner.data
    rng = np.random.default_rng(0)
    keys = ["observations", "actions", "terminals", "qpos", "qvel"]
    if hasattr(inner, "_cur_button_states"):
        keys.append("button_states")
    rows = {key: [] for key in keys}
    for episode in range(num_episodes):
        obs, _ = env.reset(seed=episode)
        for step in range(steps + 1):
            if TASKS[env_id] and (episode, step) == (0, 5):
                inner.set_xy(np.array(inner.cur_goal_xy))
                obs = inner.get_ob()
            action = rng.uniform(-1, 1, 2 if TASKS[env_id] == "point" else env.action_space.shape)
            values = [obs, action, step == steps, simulator.qpos, simulator.qvel]
            if "button_states" in rows:
                values.append(inner._cur_button_states)
            for key, value in zip(rows, values, strict=True):
                rows[key].append(np.copy(value))
            obs = env.step(action.astype(np.float32))[0]
    env.close()
    data = {key: np.array(value) for key, value in rows.items()}
    return data | {key: data[key].astype(np.float32) for key in ("observations", "actions")}


@pytest.fixture
def ogbench_root(tmp_path, monkeypatch):
    pytest.importorskip("ogbench")
    monkeypatch.setenv("OGBENCH_DATASET_DIR", str(tmp_path / "ogbench"))
    (tmp_path / "ogbench").mkdir()
    return tmp_path / "ogbench"


def put(folder, env_id):
    """The dataset, and the file of validation that OGBench's own reader wants."""
    _, name = offline_tasks.registry.ogbench.names(env_id)
    data = random_data(env_id)
    for file in (f"{name}.npz", f"{name}-val.npz"):
        np.savez(folder / file, **data)
    return folder / f"{name}.npz"


@pytest.mark.parametrize("env_id", TASKS)
def test_what_ogbench_reads_is_read(env_id, ogbench_root):
    import ogbench

    path = put(ogbench_root, env_id)
    assert offline_tasks.dataset_file(env_id) == path
    read = offline_tasks.registry.read_arrays(env_id, path)
    _, wanted, _ = ogbench.make_env_and_datasets(env_id, dataset_dir=str(ogbench_root))
    for key in ("observations", "next_observations", "actions", "rewards"):
        np.testing.assert_array_equal(read[key], wanted[key], err_msg=key)
    np.testing.assert_array_equal(read["terminals"], 1 - wanted["masks"])
    np.testing.assert_array_equal(read["ends"], wanted["terminals"])
    assert read["terminals"].any() == bool(TASKS[env_id])
    assert len(read["rewards"]) == 100


@pytest.mark.parametrize(
    ("env_id", "dims"),
    [
        (MAZE, (2, 2, 1000)),
        ("antmaze-large-navigate-singletask-task5-v0", (29, 8, 1000)),
        ("humanoidmaze-medium-navigate-singletask-v0", (69, 21, 2000)),
        ("antsoccer-arena-navigate-singletask-v0", (42, 8, 1000)),
        ("cube-single-play-singletask-v0", (28, 5, 200)),
        ("cube-double-play-singletask-v0", (37, 5, 500)),
        ("scene-play-singletask-v0", (40, 5, 750)),
        ("puzzle-3x3-play-singletask-v0", (55, 5, 500)),
        ("puzzle-4x4-play-singletask-v0", (83, 5, 500)),
    ],
)
def test_dimensions_of_ogbenchs_tasks(env_id, dims):
    pytest.importorskip("ogbench")
    assert offline_tasks.task_dims(env_id) == dims
    np.testing.assert_array_equal(offline_tasks.action_bounds(env_id)[:, 0], [-1, 1])


@pytest.mark.parametrize("env_id", [MAZE, "cube-single-play-singletask-v0"])
def test_a_seed_decides_an_episode_of_ogbench(env_id):
    """Though its mazes draw from NumPy's global generator, which keeps its state."""
    pytest.importorskip("ogbench")
    envs = [offline_tasks.make_env(env_id) for _ in range(2)]
    action = np.full(envs[0].action_space.shape, 0.3, np.float32)
    np.random.seed(0)
    drawn = np.random.uniform(size=2)
    np.random.seed(0)
    first = [np.random.uniform()]
    seen = []
    for env in envs:
        states = [env.reset(seed=7)[0]]
        states += [env.step(action)[0] for _ in range(5)]
        seen.append(states)
        env.close()
    first.append(np.random.uniform())
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(first, drawn)


def test_no_more_files_are_left_open_than_environments_are_used_at_once():
    """OGBench leaves one open for each environment that it builds."""
    pytest.importorskip("ogbench")
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("Linux's")
    counts = []
    for _ in range(3):
        envs = [offline_tasks.make_env(MAZE) for _ in range(5)]
        for env in envs:
            env.close()
        counts.append(len(list(folder.iterdir())))
    assert counts[2] == counts[0]


def test_arriving_in_a_maze_of_ogbench_is_a_success():
    pytest.importorskip("ogbench")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = offline_tasks.make_env(MAZE)
        env.reset(seed=0)
        env.unwrapped.set_xy(np.array(env.unwrapped.cur_goal_xy))
        _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
        env.close()
    assert (reward, terminated, info["success"]) == (0, True, 1)


@pytest.mark.parametrize("env_id", [MAZE, "cube-single-play-singletask-task3-v0"])
@pytest.mark.parametrize("script", FAMILY)
def test_every_script_trains_on_rollouts_of_ogbench(script, env_id, ogbench_root, small):
    path = put(ogbench_root, env_id)
    results = short(small, script, env_id, num_updates=10)
    assert results["status"] == "finished"
    assert results["dataset"]["path"] == str(path)
    assert results["dataset"]["transitions"] == 100
    assert results["last"]["normalized_score"] in (0, 50, 100)


# ---- downloads -----------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of a hub of datasets that Minari asks for, about the files in `folder`."""

    commit = "0" * 40

    def __init__(self, *args, folder, **kwargs):
        self.folder = folder
        super().__init__(*args, **kwargs)

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        own = "datasets/farama-minari/mujoco"
        files = [file for file in sorted(self.folder.rglob("*")) if file.is_file()]
        named = {str(file.relative_to(self.folder)): file for file in files}
        if path == "/api/datasets":
            self.answer([{"id": "farama-minari/mujoco"}])
        elif path.startswith(f"/api/{own}/revision/"):
            siblings = [{"rfilename": name} for name in named]
            self.answer({"id": own, "sha": self.commit, "siblings": siblings})
        elif path.startswith(f"/api/{own}/tree/"):
            self.answer([self.entry(name, file) for name, file in named.items()])
        elif path.startswith(f"/{own}/resolve/"):
            name = path.removeprefix(f"/{own}/resolve/").split("/", 1)[1]
            self.send_file(named.get(name))
        else:
            self.send_file(None)

    do_HEAD = do_GET  # noqa: N815

    def entry(self, name, file):
        oid = hashlib.sha1(name.encode()).hexdigest()
        return {"type": "file", "path": name, "size": file.stat().st_size, "oid": oid}

    def answer(self, content, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_file(self, file):
        if file is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = file.read_bytes()
        digest = hashlib.sha1(body).hexdigest()
        self.answer(body, ETag=f'"{digest}"', X_Repo_Commit=self.commit)


@pytest.fixture
def serve():
    """serve(handler): the address of a local server."""
    servers = []

    def start(handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_minaris_own_download(serve, minari_root, tmp_path):
    """In a process of its own, which reads the hub's address as it starts."""
    pytest.importorskip("huggingface_hub")
    hopper()
    folder = tmp_path / "minari" / "mujoco"
    listed = {"datasets": [HOPPER], "namespaces": ["mujoco/hopper"]}
    (folder / "namespace_metadata.json").write_text(json.dumps(listed))
    (folder / "hopper" / "namespace_metadata.json").write_text("{}")
    address = serve(partial(Hub, folder=folder))
    target = tmp_path / "target"
    env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub")}
    env |= {"MINARI_DATASETS_PATH": str(target), "PYTHONPATH": str(ROOT)}
    code = f"import offline_tasks as t; print(t.dataset_file({HOPPER!r}), t.task_dims({HOPPER!r}))"
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    path = target / HOPPER / "data" / "main_data.hdf5"
    assert run.stdout.splitlines()[-1] == f"{path} (11, 3, 30)"
    assert path.read_bytes() == (folder / "hopper/medium-v0/data/main_data.hdf5").read_bytes()


def test_ogbenchs_own_download(serve, ogbench_root, tmp_path, monkeypatch):
    import ogbench.utils

    served = tmp_path / "served"
    served.mkdir()
    original = put(served, MAZE)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(ogbench.utils, "DATASET_URL", serve(handler))
    path = offline_tasks.dataset_file(MAZE)
    assert path == ogbench_root / original.name and path.read_bytes() == original.read_bytes()
