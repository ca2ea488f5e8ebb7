"""Datasets of Minari: read with h5py, downloaded with `minari` where that is installed.

The environment is the one that a dataset's metadata name, in stock physics: Gymnasium's -v5 robots
and gymnasium-robotics' hands and kitchen, which are not D4RL's. 100 is the dataset's own reference
return.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from offline_tasks import arrays, files, gymnasium_tasks
from offline_tasks.environments import closing
from offline_tasks.files import one_at_a_time, writing_data
from offline_tasks.reading import WrongContentError

FOLDER = "MINARI_DATASETS_PATH"
PREFIX = "minari:"  # of an id without a namespace, which could be Gymnasium's
ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")
EPISODE = re.compile(r"episode_\d+")
INSTALL = "pip install minari gymnasium-robotics huggingface_hub"
KITCHEN = "pip install 'mujoco<3.11'"  # gymnasium-robotics 1.4.2 stumbles over newer joint types


def owns(env_id: str) -> bool:
    """An id such as mujoco/hopper/medium-v0 (Gymnasium's have one slash at most), or minari:ID."""
    return env_id.startswith(PREFIX) or (env_id.count("/") > 1 and ":" not in env_id)


def data_folder(env_id: str) -> Path:
    """Where Minari keeps the dataset: {id}/data in $MINARI_DATASETS_PATH or ~/.minari/datasets."""
    # No other file helps: what its environment is stands there too.
    root = files.data_folder(FOLDER, "~/.minari/datasets", instead="")
    return root / env_id.removeprefix(PREFIX) / "data"


def is_there(env_id: str) -> bool:
    """Whether the dataset has been downloaded; not, where no home for it is known."""
    with contextlib.suppress(ValueError):
        return data_folder(env_id).is_dir()
    return False


def check_env_id(env_id: str) -> None:
    """Raises a ValueError for what is no id of Minari, for its AntMaze, and for a dataset that is
    neither there nor can be downloaded for want of `minari`."""
    name = env_id.removeprefix(PREFIX)
    if not ID.fullmatch(name):
        raise ValueError(f"env id {env_id!r} is no id of Minari: give one as D4RL/pen/human-v2")
    if "antmaze" in name:
        raise ValueError(
            f"env id {env_id!r}: results of D4RL's AntMaze are not reproduced with Minari's (its "
            "issue 296), whose observations leave out the goal; use D4RL's own, antmaze-umaze-v0"
        )
    if not data_folder(env_id).is_dir():
        _minari(env_id)


def _minari(env_id: str):
    """The package, which only a download needs."""
    try:
        return importlib.import_module("minari")
    except ImportError as error:
        raise ValueError(
            f"the dataset {env_id} is not in {data_folder(env_id)}, and minari is not installed to "
            f"download it ({error}): `{INSTALL}`, or put it there"
        ) from error


def _downloaded(env_id: str) -> Path:
    """The folder of the dataset, downloaded if it or a part of it is absent."""
    folder = data_folder(env_id)
    if _is_whole(folder):
        return folder
    minari = _minari(env_id)
    parent = folder.parent.parent
    with writing_data(parent, FOLDER, instead=""), one_at_a_time(folder.parent):
        if not _is_whole(folder):  # no other process has been faster
            _download(minari, env_id, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether there are metadata and something that they are about."""
    files = {path.name for path in folder.glob("*")}
    return "metadata.json" in files and len(files) > 1


def _download(minari, env_id: str, folder: Path) -> None:
    name = env_id.removeprefix(PREFIX)
    try:
        # Without force, minari takes a folder that a broken download has left for the dataset.
        minari.download_dataset(name, force_download=folder.parent.exists())
    except Exception as error:  # of many kinds: the network's, the host's, minari's
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the dataset {env_id} cannot be downloaded by minari ({reason}): check the id and the "
            f"network (`{INSTALL}` has all that it takes), or put it in {folder}"
        ) from error


def metadata(env_id: str) -> dict:
    """What the dataset says of itself: env_spec, spaces, reference returns."""
    path = _downloaded(env_id) / "metadata.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is broken ({error}): delete it to download it again") from error


def dataset_file(env_id: str) -> Path:
    """main_data.hdf5 in Minari's own folder. Raises ValueError for other formats."""
    form = metadata(env_id).get("data_format", "hdf5")
    if form != "hdf5":
        raise ValueError(
            f"the dataset {env_id} is in the format {form!r}, not in HDF5: read it with minari, "
            "save D4RL's keys with numpy.savez, and pass --dataset-path FILE.npz"
        )
    return _downloaded(env_id) / "main_data.hdf5"


def read_arrays(env_id: str, path, d4rl_semantics: bool) -> dict[str, np.ndarray]:
    """Rows with their `next_observations`: an episode of T actions has T + 1 observations. A file
    of another layout, given with --dataset-path, is read as anybody's."""
    import h5py

    if not h5py.is_hdf5(path):
        return arrays.read_file(path, d4rl_semantics)
    with arrays.reading(path), h5py.File(path) as file:
        # By number: as text, episode_10 comes before episode_2. Some may have been deleted.
        names = sorted(filter(EPISODE.fullmatch, file), key=lambda name: int(name[8:]))
        if not names:
            return arrays.read_file(path, d4rl_semantics)
        arrays.say_rule_is_idle(path, d4rl_semantics)
        groups = [arrays.entry(file, name) for name in names]
        found = [_arrays_of(group) for group in groups]
        _check_parts(groups)
        for key in ("observations", "actions", "rewards"):
            arrays.check_resolution(path, key, [episode[key] for episode in found])
        episodes = [_episode(*each) for each in zip(names, found, strict=True)]
    return {key: np.concatenate([rows[key] for rows in episodes]) for key in episodes[0]}


def _check_parts(groups: list) -> None:
    """Raises WrongContentError where observations have parts beside `observation` that change, such
    as goals. The kitchen's goals are the same throughout, and what it calls achieved_goal, a group,
    is seen in `observation`."""
    first = {}
    changing = set()
    names = set()
    for group in groups:
        observations = arrays.entry(group, "observations")
        if hasattr(observations, "shape"):
            continue
        names |= set(observations)
        for name, array in _others(observations):
            rows = array[()]
            start = first.setdefault(name, rows[:1])
            if not np.all(rows == start):
                changing.add(name)
    if changing:
        joined = sorted(changing - {"achieved_goal"} or changing)
        raise WrongContentError(
            f"observations are a group of {', '.join(sorted(names))}, not the same throughout: "
            f"{', '.join(joined)}; join {' and '.join(['observation', *joined])} into one array, "
            "in the environment too"
        )


def _others(observations) -> list[tuple]:
    """(Name, dataset) of all in a group but `observation` and the kitchen's achieved goals."""
    found = []

    def visit(name, item):
        skipped = name == "observation" or name.startswith("achieved_goal/")
        if hasattr(item, "shape") and not skipped:
            found.append((name, item))

    observations.visititems(visit)
    return found


def _arrays_of(group) -> dict:
    """The datasets of h5py of an episode, of observations in parts that which is called so."""
    keys = ("observations", "actions", "rewards", "terminations", "truncations")
    found = {key: arrays.entry(group, key) for key in keys}
    observations = found["observations"]
    if hasattr(observations, "keys") and "observation" in observations:
        found["observations"] = arrays.entry(observations, "observation")
    for key, array in found.items():
        if hasattr(array, "keys"):
            what = f"{key} is a group of {', '.join(array)}"
            raise WrongContentError(f"{what}; join its arrays into one with a row per step")
    _check_lengths(group.name.strip("/"), {key: array.shape for key, array in found.items()})
    return found


def _check_lengths(name: str, shapes: dict) -> None:
    """Raises WrongContentError where an episode has not T + 1 observations and T of all else."""
    rows = {key: shape[0] if shape else 0 for key, shape in shapes.items()}
    steps = rows["actions"]
    if rows["observations"] != steps + 1:
        raise WrongContentError(
            f"{name} has {rows['observations']} observations for {steps} actions; give "
            f"{steps + 1}, the last one being what followed the last action"
        )
    for key, count in rows.items():
        if key != "observations" and count != steps:
            raise WrongContentError(f"{name} has {count} {key} for {steps} actions; give {steps}")


def _episode(name: str, found: dict) -> dict[str, np.ndarray]:
    numbers = {}
    for key in ("observations", "actions", "rewards"):
        numbers[key] = arrays.as_float32(key, found[key])
        if not np.isfinite(numbers[key]).all():
            raise WrongContentError(f"{key} of {name} has NaN or infinity; delete that group")
    observations = numbers["observations"]
    ends = np.zeros(len(observations) - 1, dtype=np.float32)
    ends[-1:] = 1
    return {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": numbers["actions"],
        "rewards": numbers["rewards"],
        "terminals": np.asarray(found["terminations"], dtype=np.float32),
        "timeouts": np.asarray(found["truncations"], dtype=np.float32),
        "ends": ends,
    }


def make_env(env_id: str, render_mode: str | None = None):
    """The environment of the dataset's metadata (`eval_env_spec` before `env_spec`), with a step
    limit; of the kitchen's observations the part without the goals."""
    from gymnasium.wrappers import TransformObservation

    spec = _spec(env_id)
    kitchen = spec.name == "FrankaKitchen"
    try:
        env = gymnasium_tasks.build(spec, env_id, render_mode)
    except ValueError as error:
        remedy = KITCHEN if kitchen and "AssertionError" in str(error) else INSTALL
        raise ValueError(f"{error}: `{remedy}`") from error
    if not kitchen:
        return env
    space = env.observation_space["observation"]
    return TransformObservation(env, lambda obs: obs["observation"], space)


def _spec(env_id: str):
    """Gymnasium's description of the environment, less what older versions wrote into it."""
    from gymnasium.envs.registration import EnvSpec

    about = metadata(env_id)
    text = about.get("eval_env_spec") or about.get("env_spec")
    if not text:
        raise ValueError(
            f"the dataset {env_id} names no environment: train from its file alone, with "
            "--dataset-path FILE and without --env-id"
        )
    known = {field.name for field in dataclasses.fields(EnvSpec) if field.init}
    content = {key: value for key, value in json.loads(text).items() if key in known}
    return EnvSpec.from_json(json.dumps({"additional_wrappers": []} | content))


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps). Raises ValueError for other spaces than boxes."""
    with closing(make_env(env_id), env_id) as env:
        return gymnasium_tasks.dims_of(env, env_id)


def action_bounds(env_id: str) -> np.ndarray | None:
    """Least and largest actions (2, action_dim); None if any has no bound."""
    with closing(make_env(env_id), env_id) as env:
        return gymnasium_tasks.bounds_of(env)


def normalized_score(env_id: str, returns: np.ndarray) -> np.ndarray | None:
    """100 (return - min) / (max - min) with the metadata's reference returns; None without them."""
    low, high = _references(env_id)
    return None if low is None else 100 * (returns - low) / (high - low)


def _references(env_id: str) -> tuple:
    """The reference returns (min, max) of the metadata; None for both where they give no scale,
    which is said."""
    about = metadata(env_id)
    low, high = (about.get(f"ref_{end}_score") for end in ("min", "max"))
    if low is None and high is None:
        return None, None
    known = all(isinstance(number, int | float) and math.isfinite(number) for number in (low, high))
    if known and low < high:
        return low, high
    words = f"ref_min_score {low!r} and ref_max_score {high!r} give no scale: no normalized scores"
    _say_once(f"warning: {env_id}: {words}")
    return None, None


@functools.lru_cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)
