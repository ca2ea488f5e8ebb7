"""Minari's datasets, written by hand in its layout: no test here needs the package."""

import json
import sys
import types

import gymnasium
import h5py
import numpy as np
import pytest

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline
import offline_tasks
from offline_tasks import arrays, minari

ID = "mujoco/pendulum/medium-v0"
# As of Gymnasium 0.29, whose fields are not all known any more.
OLD_FIELDS = {"apply_api_compatibility": False, "autoreset": False}


def episodes(rng, lengths, obs_dim=3, action_dim=1, reach=2.0) -> list[dict]:
    """Of T steps T + 1 observations; the even ones are truncated, the others terminate."""
    made = []
    for number, length in enumerate(lengths):
        last = np.arange(length) == length - 1
        made.append(
            {
                "observations": rng.standard_normal((length + 1, obs_dim)),
                "actions": rng.uniform(-reach, reach, (length, action_dim)).astype(np.float32),
                "rewards": 100.0 * number + np.arange(length),
                "terminations": last & (number % 2 == 1),
                "truncations": last & (number % 2 == 0),
            }
        )
    return made


def write(root, env_id, made, **metadata):
    """A dataset where a download would put it."""
    folder = root / env_id / "data"
    folder.mkdir(parents=True)
    spec = json.loads(gymnasium.spec("Pendulum-v1").to_json()) | OLD_FIELDS
    about = {"dataset_id": env_id, "total_episodes": len(made), "data_format": "hdf5"}
    about |= {"env_spec": json.dumps(spec), **metadata}
    (folder / "metadata.json").write_text(json.dumps(about))
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for number, episode in enumerate(made):
            for key, value in episode.items():
                file[f"episode_{number}/{key}"] = value
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Minari's folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setitem(sys.modules, "minari", None)  # as if it were not installed
    return tmp_path / "minari"


# ---- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "whose"),
    [
        ("mujoco/hopper/medium-v0", "Minari"),
        ("D4RL/pen/human-v2", "Minari"),
        ("minari:mine/pendulum-v0", "Minari"),
        ("minari:pendulum-v0", "Minari"),
        ("antmaze-large-navigate-singletask-v0", "OGBench"),
        ("cube-double-play-singletask-task3-v0", "OGBench"),
        ("hopper-medium-v2", "D4RL"),
        ("antmaze-large-play-v0", "D4RL"),
        ("pointmaze-large-v0", "toys"),
        ("Pendulum-v1", "Gymnasium"),
        ("phys2d/Pendulum-v0", "Gymnasium"),
        ("package.module:mine/Own-v0", "Gymnasium"),
        ("package.module:mine/own/Own-v0", "Gymnasium"),
        ("package:mine/cube-singletask-v0", "Gymnasium"),
    ],
)
def test_an_id_tells_whose_benchmark_it_is(env_id, whose):
    assert offline_tasks.benchmark(env_id) == whose


def test_an_id_without_a_namespace_needs_the_prefix(root):
    write(root, "mine/pendulum-v0", episodes(np.random.default_rng(0), [5, 5]))
    with pytest.raises(ValueError, match="near ones are minari:mine/pendulum-v0"):
        offline_tasks.check_env_id("mine/pendulum-v0")
    offline_tasks.check_env_id("minari:mine/pendulum-v0")
    assert offline_tasks.task_dims("minari:mine/pendulum-v0") == (3, 1, 200)


@pytest.mark.parametrize("env_id", ["minari:../../secret-v0", "a/b/c", "mujoco//hopper/x-v0"])
def test_what_is_no_id(root, env_id):
    with pytest.raises(ValueError, match="is no id of Minari: give one as D4RL/pen/human-v2"):
        offline_tasks.check_env_id(env_id)


def test_antmaze_is_refused_with_the_reason(root):
    write(root, "D4RL/antmaze/umaze-v1", episodes(np.random.default_rng(0), [5]))
    message = r"D4RL/antmaze/umaze-v1.*not reproduced.*issue 296.*use D4RL's own, antmaze-umaze-v0"
    for call in (offline_tasks.check_env_id, offline_tasks.make_env, offline_tasks.dataset_file):
        with pytest.raises(ValueError, match=message):
            call("D4RL/antmaze/umaze-v1")


# ---- data ----------------------------------------------------------------------------------------


def test_an_episode_of_t_actions_gives_t_transitions(root):
    """In the order of their numbers: as text, episode_10 comes before episode_2."""
    made = episodes(np.random.default_rng(0), [3, 4] * 6)
    write(root, ID, made)
    path = offline_tasks.dataset_file(ID)
    assert path == root / ID / "data" / "main_data.hdf5"
    read = minari.read_arrays(ID, path, False)
    wanted = {
        "observations": [episode["observations"][:-1] for episode in made],
        "next_observations": [episode["observations"][1:] for episode in made],
        "actions": [episode["actions"] for episode in made],
        "rewards": [episode["rewards"] for episode in made],
        "terminals": [episode["terminations"] for episode in made],
        "timeouts": [episode["truncations"] for episode in made],
        "ends": [episode["terminations"] | episode["truncations"] for episode in made],
    }
    assert read.keys() == wanted.keys() and len(read["rewards"]) == 42
    for key, parts in wanted.items():
        expected = np.concatenate(parts).astype(np.float32)
        np.testing.assert_array_equal(read[key], expected, err_msg=key)
        assert read[key].dtype == np.float32


def test_another_file_may_have_any_layout(root, tmp_path):
    write(root, ID, episodes(np.random.default_rng(0), [5, 5]))
    rows = {"observations": np.zeros((6, 3)), "actions": np.zeros((6, 1))}
    rows |= {"rewards": np.arange(6.0), "terminals": np.zeros(6), "timeouts": np.zeros(6)}
    np.savez(tmp_path / "own.npz", **rows)
    with h5py.File(tmp_path / "own.hdf5", "w") as file:
        for key, value in rows.items():
            file[key] = value
    for name in ("own.npz", "own.hdf5"):
        read = minari.read_arrays(ID, tmp_path / name, False)
        np.testing.assert_array_equal(read["rewards"], rows["rewards"])


def test_minaris_layout_is_read_of_any_file(root, small):
    """Without an id, and in an environment of Gymnasium."""
    folder = write(root, ID, episodes(np.random.default_rng(0), [10] * 12, reach=1.0))
    for env_id in ("", "Pendulum-v1"):
        args = small(env_id=env_id, dataset_path=str(folder / "main_data.hdf5"))
        data, _, about = gtp_offline.load_data(args)
        assert about["transitions"] == 120 and data["terminals"].sum() == 6


def test_d4rls_rule_is_said_to_have_no_effect(root, tmp_path, capsys):
    """Both ends of an episode count as the file has them; a file of D4RL's keys obeys."""
    path = write(root, ID, episodes(np.random.default_rng(0), [3, 4])) / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        file["episode_1/truncations"][-1] = True
    plain = minari.read_arrays(ID, path, False)
    assert capsys.readouterr().err == ""
    ruled = minari.read_arrays(ID, path, True)
    said = f"dataset {path}: --d4rl-semantics has no effect on this file: its episodes have their "
    assert capsys.readouterr().err == said + "own last observations\n"
    for key, array in plain.items():
        np.testing.assert_array_equal(ruled[key], array)
    with h5py.File(tmp_path / "own.hdf5", "w") as file:
        file.update({key: plain[key] for key in plain if not key.startswith(("next", "ends"))})
    minari.read_arrays(ID, tmp_path / "own.hdf5", True)
    assert capsys.readouterr().err == ""


def test_a_file_with_a_part_missing_is_named(root):
    made = episodes(np.random.default_rng(0), [5, 5])
    del made[1]["rewards"]
    folder = write(root, ID, made)
    said = f"dataset {folder}/main_data.hdf5 cannot be read .*: /episode_1 has no rewards$"
    with pytest.raises(ValueError, match=said):
        minari.read_arrays(ID, folder / "main_data.hdf5", False)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_an_episode_with_a_number_that_is_none_is_deleted_as_the_message_says(key, root):
    """One after the other: names of groups, not places among those that are left."""
    made = episodes(np.random.default_rng(0), [3, 4] * 6)
    for number in (0, 2, 10):
        made[number][key][-1] = np.nan
    path = write(root, ID, made) / "main_data.hdf5"
    for number in (0, 2, 10):
        said = f"{key} of episode_{number} has NaN or infinity; delete that group"
        with pytest.raises(ValueError, match=said):
            minari.read_arrays(ID, path, False)
        with h5py.File(path, "a") as file:
            del file[f"episode_{number}"]
    kept = [made[number]["rewards"] for number in (1, 3, 4, 5, 6, 7, 8, 9, 11)]
    read = minari.read_arrays(ID, path, False)
    np.testing.assert_array_equal(read["rewards"], np.concatenate(kept))


def test_other_groups_do_not_disturb(root):
    path = write(root, ID, episodes(np.random.default_rng(0), [3, 4])) / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        file["metadata/made"] = [1, 2]
        file["episode_notes"] = [3]
    assert minari.read_arrays(ID, path, False)["rewards"].tolist() == [0, 1, 2, 100, 101, 102, 103]


@pytest.mark.parametrize("name", ["episode_1", "episode_1/rewards", "episode_1/truncations"])
def test_a_part_that_is_a_link_to_nothing_is_named(root, name):
    folder = write(root, ID, episodes(np.random.default_rng(0), [5, 5]))
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("absent.hdf5", "/a")
    said = f": {name.rpartition('/')[2]} is a link to /a of absent.hdf5, which cannot be had"
    with pytest.raises(ValueError, match=said):
        minari.read_arrays(ID, folder / "main_data.hdf5", False)


def in_parts(made, **parts):
    """Episodes whose observations are a group: `observation`, and more, each of (episode, rows)."""
    for number, episode in enumerate(made):
        observations = episode.pop("observations")
        episode["observations/observation"] = observations
        for name, part in parts.items():
            key = f"observations/{name.replace('__', '/')}"
            episode[key] = part(number, np.arange(len(observations)))[:, None]
    return made


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ({"desired_goal": lambda i, t: i + 0 * t, "achieved_goal": lambda i, t: t}, "desired_goal"),
        ({"desired_goal": lambda i, t: 1.0 * (t > 3)}, "desired_goal"),
        ({"desired_goal": lambda i, t: 0 * t, "achieved_goal": lambda i, t: t}, "achieved_goal"),
        ({"command__speed": lambda i, t: i + 0 * t}, "command/speed"),
    ],
)
def test_goals_that_change_are_not_dropped(parts, joined, root):
    """From one episode to the next, or inside one."""
    made = in_parts(episodes(np.random.default_rng(0), [5, 5]), **parts)
    path = write(root, ID, made) / "main_data.hdf5"
    said = f"dataset {path} .*a group of .*, observation, not the same throughout: {joined}; join"
    with pytest.raises(arrays.DatasetError, match=said):
        minari.read_arrays("", path, False)


def test_parts_that_never_change_are_left_out(root):
    """And the kitchen's achieved goals, a group, which are in its `observation`."""
    made = episodes(np.random.default_rng(0), [5, 5])
    wanted = made[0]["observations"][:-1].astype(np.float32)
    parts = {"desired_goal__kettle": lambda i, t: 0 * t, "achieved_goal__kettle": lambda i, t: t}
    path = write(root, ID, in_parts(made, **parts)) / "main_data.hdf5"
    read = minari.read_arrays("", path, False)
    np.testing.assert_array_equal(read["observations"][:5], wanted)


def test_differences_that_float32_rounds_away_are_said_once_for_all_episodes(root, capsys):
    """Each episode stands at a place of its own, so one alone would be called constant."""
    made = episodes(np.random.default_rng(0), [5] * 40)
    for number, episode in enumerate(made):
        episode["observations"][:, 1] = 4e6 + number % 7
    path = write(root, ID, made) / "main_data.hdf5"
    minari.read_arrays("", path, False)
    assert capsys.readouterr().err == ""
    for number, episode in enumerate(made):
        episode["observations"][:, 1] = 4e6 + 0.3 * (number % 7)
    path = write(root, "b/c/d-v0", made) / "main_data.hdf5"
    minari.read_arrays("", path, False)
    (line,) = capsys.readouterr().err.splitlines()
    assert "observations [1] lose their differences in float32" in line


@pytest.mark.parametrize(
    ("key", "parts"),
    [("observations", "pos, vel"), ("observations", "_index_0"), ("actions", "gripper, wheel")],
)
def test_a_group_without_an_observation_is_named(key, parts, root):
    made = episodes(np.random.default_rng(0), [5, 5])
    for episode in made:
        rows = episode.pop(key)
        episode |= {f"{key}/{part}": rows for part in parts.split(", ")}
    path = write(root, ID, made) / "main_data.hdf5"
    said = f": {key} is a group of {parts}; join its arrays into one with a row per step$"
    with pytest.raises(arrays.DatasetError, match=said):
        minari.read_arrays("", path, False)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("observations", "5 observations for 5 actions; give 6, the last one being what followed"),
        ("actions", "6 observations for 4 actions; give 5, the last one"),
        ("rewards", "4 rewards for 5 actions; give 5"),
        ("terminations", "4 terminations for 5 actions; give 5"),
        ("truncations", "4 truncations for 5 actions; give 5"),
    ],
)
def test_an_episode_with_a_row_too_few_is_named(key, said, root):
    """Also where the one before has a row too many, so that the sum is right."""
    made = episodes(np.random.default_rng(0), [5, 5])
    made[1][key] = made[1][key][:-1]
    path = write(root, ID, made) / "main_data.hdf5"
    with pytest.raises(arrays.DatasetError, match=f"episode_1 has {said}"):
        minari.read_arrays("", path, False)
    made[0][key] = np.concatenate([made[0][key], made[0][key][-1:]])
    path = write(root, "b/c/d-v0", made) / "main_data.hdf5"
    with pytest.raises(arrays.DatasetError, match="episode_0 has"):
        minari.read_arrays("", path, False)


def test_another_format_is_refused_with_the_remedy(root):
    write(root, ID, [], data_format="arrow")
    with pytest.raises(ValueError, match=r"format 'arrow', not in HDF5.*--dataset-path FILE.npz"):
        offline_tasks.dataset_file(ID)


# ---- environment and score -----------------------------------------------------------------------


def test_the_environment_is_that_of_the_metadata(root):
    write(root, ID, episodes(np.random.default_rng(0), [5]))
    env = offline_tasks.make_env(ID)
    assert type(env.unwrapped).__name__ == "PendulumEnv"
    assert env.action_space.high == 2  # its own units
    np.testing.assert_array_equal(offline_tasks.action_bounds(ID), [[-2], [2]])
    assert offline_tasks.task_dims(ID) == (3, 1, 200)


def test_an_environment_to_evaluate_in_comes_first(root):
    spec = json.loads(gymnasium.spec("Pendulum-v1").to_json()) | {"max_episode_steps": 50}
    write(root, ID, episodes(np.random.default_rng(0), [5]), eval_env_spec=json.dumps(spec))
    assert offline_tasks.task_dims(ID)[2] == 50


def test_the_score_is_of_the_reference_returns(root):
    write(root, ID, [], ref_min_score=-1200.0, ref_max_score=-200.0)
    score = offline_tasks.normalized_score(ID, [-1200, -700, -200, 0])
    np.testing.assert_allclose(score, [0, 50, 100, 120])
    write(root, "mujoco/pendulum/other-v0", [])
    assert offline_tasks.normalized_score("mujoco/pendulum/other-v0", [1.0]) is None


@pytest.mark.parametrize(
    ("low", "high"), [(5.0, 5.0), (-150, -1500), (float("nan"), 1.0), ("-2", 1.0), (None, 1.0)]
)
def test_reference_returns_that_are_no_scale_give_no_score(low, high, root, capsys):
    minari._say_once.cache_clear()
    write(root, ID, [], ref_min_score=low, ref_max_score=high)
    for _ in range(2):
        assert offline_tasks.normalized_score(ID, [5.0, 6.0]) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{low!r} and ref_max_score {high!r} give no scale: no normalized scores")


def test_hopper_is_not_scored_as_d4rls(root):
    write(root, "D4RL/pen/human-v2", [], ref_min_score=0.0, ref_max_score=10.0)
    assert offline_tasks.normalized_score("D4RL/pen/human-v2", 5) == 50


def test_without_an_environment(root):
    write(root, ID, episodes(np.random.default_rng(0), [5]), env_spec=None)
    with pytest.raises(ValueError, match=r"names no environment: train from its file alone"):
        offline_tasks.make_env(ID)


def test_a_package_that_is_missing_is_named(root):
    spec = {"id": "AdroitHandPen-v1", "entry_point": "a_package_that_is_missing.envs:Pen"}
    write(root, "D4RL/pen/human-v2", [], env_spec=json.dumps(spec))
    with pytest.raises(ValueError, match="pip install minari gymnasium-robotics") as error:
        offline_tasks.make_env("D4RL/pen/human-v2")
    assert "a_package_that_is_missing" in str(error.value) and "\n" not in str(error.value)


KITCHEN = """
import gymnasium
import numpy as np

class Kitchen(gymnasium.Env):
    box = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    observation_space = gymnasium.spaces.Dict({"observation": box, "desired_goal": box})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, broken=False):
        assert not broken

    def seen(self):
        return {"observation": np.arange(4.0), "desired_goal": np.ones(4)}

    def reset(self, *, seed=None, options=None):
        return self.seen(), {}

    def step(self, action):
        return self.seen(), 1.0, False, False, {}
"""


def test_the_kitchen_is_seen_without_its_goals(root, tmp_path, monkeypatch):
    """Which are the same throughout; other observations that are no vectors are refused."""
    (tmp_path / "own_kitchen.py").write_text(KITCHEN)
    monkeypatch.syspath_prepend(tmp_path)
    made = episodes(np.random.default_rng(0), [3, 3], obs_dim=4, action_dim=2, reach=1.0)
    for episode in made:
        observations = episode.pop("observations")
        episode["observations/observation"] = observations
        episode["observations/desired_goal"] = np.ones_like(observations)
    spec = {"id": "FrankaKitchen-v1", "entry_point": "own_kitchen:Kitchen"}
    spec["max_episode_steps"] = 4
    task = "D4RL/kitchen/complete-v2"
    write(root, task, made, env_spec=json.dumps(spec), ref_min_score=0.0, ref_max_score=4.0)
    assert offline_tasks.task_dims(task) == (4, 2, 4)
    assert offline_tasks.make_env(task).reset(seed=0)[0].tolist() == [0, 1, 2, 3]
    read = minari.read_arrays(task, offline_tasks.dataset_file(task), False)
    wanted = made[0]["observations/observation"][1:].astype(np.float32)
    np.testing.assert_array_equal(read["next_observations"][:3], wanted)
    result = offline_tasks.evaluate(task, lambda obs: np.zeros((len(obs), 2)), 2, 0)
    assert (result["episodic_return"], result["normalized_score"]) == (4, 100)

    write(root, "D4RL/other/goal-v2", made, env_spec=json.dumps(spec | {"id": "Other-v1"}))
    with pytest.raises(ValueError, match="not a 1-D Box"):
        offline_tasks.task_dims("D4RL/other/goal-v2")
    broken = json.dumps(spec | {"kwargs": {"broken": True}})
    write(root, "D4RL/kitchen/mixed-v2", made, env_spec=broken)
    with pytest.raises(ValueError, match=r"AssertionError.*pip install 'mujoco<3.11'"):
        offline_tasks.task_dims("D4RL/kitchen/mixed-v2")


# ---- download ------------------------------------------------------------------------------------


@pytest.fixture
def package(root, monkeypatch):
    """A stand-in for minari, which makes the dataset and notes what it was asked for."""
    module = types.ModuleType("minari")
    module.calls = []

    def download_dataset(dataset_id, force_download=False):
        module.calls.append((dataset_id, force_download))
        if module.error:
            raise module.error
        write(root / "new", dataset_id, episodes(np.random.default_rng(0), [5, 5]))
        folder = root / dataset_id / "data"
        folder.mkdir(parents=True, exist_ok=True)
        for file in (root / "new" / dataset_id / "data").iterdir():
            file.rename(folder / file.name)

    module.error = None
    module.download_dataset = download_dataset
    monkeypatch.setitem(sys.modules, "minari", module)
    return module


def test_a_dataset_is_downloaded_once(package, root):
    offline_tasks.check_env_id(ID)  # which does not download
    assert package.calls == []
    assert offline_tasks.task_dims(ID) == (3, 1, 200)
    assert offline_tasks.dataset_file(ID) == root / ID / "data" / "main_data.hdf5"
    offline_tasks.make_env(f"minari:{ID}")
    assert package.calls == [(ID, False)]


def test_what_a_broken_download_left_is_made_whole(package, root):
    """minari takes a folder that exists for the dataset, unless it is forced."""
    (root / ID / "data").mkdir(parents=True)
    (root / ID / "data" / "metadata.json").write_text("{}")
    assert offline_tasks.dataset_file(ID).exists()
    assert package.calls == [(ID, True)]


def test_a_failing_download_is_one_line(package, root):
    package.error = OSError("no\nroute")
    with pytest.raises(ValueError, match=f"{ID} cannot be downloaded by minari .no route") as error:
        offline_tasks.dataset_file(ID)
    assert "\n" not in str(error.value) and str(root / ID / "data") in str(error.value)


def test_without_the_package_its_installation_is_named(root):
    message = rf"{ID} is not in {root}.*`pip install minari gymnasium-robotics huggingface_hub`"
    with pytest.raises(ValueError, match=message) as error:
        offline_tasks.check_env_id(ID)
    assert "\n" not in str(error.value)


def test_d4rls_folder_has_no_part_in_a_dataset_that_is_there(root, tmp_path, monkeypatch):
    folder = write(root, ID, episodes(np.random.default_rng(0), (3,)))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "file"))
    assert offline_tasks.dataset_file(ID) == folder / "main_data.hdf5"


def test_minaris_own_folder_is_used_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert minari.data_folder(ID) == tmp_path / ".minari" / "datasets" / ID / "data"


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [gtp_offline, gtp_bc, diffusion_ql, consistency_ac])
def test_every_script_trains_on_a_dataset(script, root, small, capsys):
    """Whose actions, in +-2, become [-1, 1]; evaluated on its own scale."""
    made = episodes(np.random.default_rng(0), [20] * 12)
    spec = json.loads(gymnasium.spec("Pendulum-v1").to_json()) | {"max_episode_steps": 20}
    write(root, ID, made, env_spec=json.dumps(spec), ref_min_score=-2000.0, ref_max_score=0.0)
    changes = {"env_id": ID, "dataset_path": "", "num_eval_episodes": 2}
    args = small("run", script, **changes)
    data, _, about = script.load_data(args)
    actions = np.concatenate([episode["actions"] for episode in made])
    np.testing.assert_allclose(data["actions"].numpy(), actions / 2, rtol=1e-6)
    assert about["transitions"] == 240 and about["action_units"] == "env"
    results = script.train(args)
    assert "12 episodes, 6 terminals" in capsys.readouterr().out
    assert (results["status"], results["env_id"]) == ("finished", ID)
    assert results["dataset"]["path"].endswith(f"{ID}/data/main_data.hdf5")
    last = results["last"]
    assert last["normalized_score"] == pytest.approx(100 + last["episodic_return"] / 20)
