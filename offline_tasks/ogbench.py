"""OGBench's single-task environments and datasets; the package `ogbench` is needed for all of it.

    antmaze-large-navigate-singletask-task1-v0      environment antmaze-large, data `navigate`

A file holds observations and actions; its rewards follow from the task, as OGBench's own code has
them: -1 and 0 in mazes, minus the number of things not yet done in manipulation. The score is the
share of episodes that end in success, in per cent.
"""

import contextlib
import functools
import importlib
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np

from offline_tasks import arrays, gymnasium_tasks
from offline_tasks.files import data_folder, one_at_a_time, writing_data

FOLDER = "OGBENCH_DATASET_DIR"
ID = re.compile(r"(?P<env>[-\w]+)-(?P<data>[a-z]+)-singletask(?P<task>-task\d)?-v0")
INSTALL = "pip install ogbench"
_idle = {}  # (env_id, render_mode): environments that were closed, to be used again


def owns(env_id: str) -> bool:
    """The id of a single task; the goal-conditioned ones have no rewards."""
    return "-singletask" in env_id and ":" not in env_id


def names(env_id: str) -> tuple[str, str]:
    """The environment's id in Gymnasium, without the kind of data, and the dataset's name."""
    match = ID.fullmatch(env_id)
    if match is None:
        raise ValueError(
            f"env id {env_id!r} is no single task of OGBench: give one as "
            "antmaze-large-navigate-singletask-v0 or cube-single-play-singletask-task2-v0"
        )
    env, data, task = match.groups(default="")
    return f"{env}-singletask{task}-v0", f"{env}-{data}-v0"


def check_env_id(env_id: str) -> None:
    """Raises a ValueError for an id that is not OGBench's, and where `ogbench` is missing."""
    name, _ = names(env_id)
    package(env_id)
    import gymnasium

    if name not in gymnasium.registry:
        known = [other for other in gymnasium.registry if "-singletask-v0" in other]
        raise ValueError(f"env id {env_id!r}: OGBench has no {name}, but {', '.join(known)}")


def package(env_id: str):
    """The package ogbench, whose simulator warns of a missing display as it is imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("ogbench")
    except ImportError as error:
        raise ValueError(f"env id {env_id!r} needs ogbench ({error}): `{INSTALL}`") from error


def make_env(env_id: str, render_mode: str | None = None):
    """OGBench's environment, with its step limit; one that was closed before, if there is any."""
    from offline_tasks.ogbench_env import OGBenchEnv, without_warnings

    ogbench = package(env_id)
    idle = _idle.setdefault((env_id, render_mode), [])
    if idle:
        return idle.pop()
    options = {} if render_mode is None else {"render_mode": render_mode}
    with without_warnings():
        env = ogbench.make_env_and_datasets(
            env_id, env_only=True, disable_env_checker=True, **options
        )
    return OGBenchEnv(env, idle)


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps). Raises ValueError for tasks seen as pictures."""
    with contextlib.closing(make_env(env_id)) as env:
        return gymnasium_tasks.dims_of(env, env_id)


def action_bounds(env_id: str) -> np.ndarray | None:
    """Least and largest actions (2, action_dim)."""
    with contextlib.closing(make_env(env_id)) as env:
        return gymnasium_tasks.bounds_of(env)


def dataset_file(env_id: str) -> Path:
    """The NPZ file in $OGBENCH_DATASET_DIR or OGBench's own ~/.ogbench/data, downloaded if absent.
    Raises a ValueError if it cannot be had."""
    _, name = names(env_id)
    path = data_folder(FOLDER, "~/.ogbench/data") / f"{name}.npz"
    if not path.exists():
        with writing_data(path.parent, FOLDER), one_at_a_time(path):
            if not path.exists():  # no other process has been faster
                _download(env_id, path)
    return path


def _download(env_id: str, path: Path) -> None:
    """By OGBench's own function, which publishes no checksum and fetches a file of validation too:
    that it fails over that one alone does no harm."""
    failure = "the connection was lost"
    try:
        package(env_id).download_datasets([path.stem], dataset_dir=str(path.parent))
    except OSError as error:
        failure = str(error)
    if path.exists() and not zipfile.is_zipfile(path):  # a part of it
        path.unlink()
    if not path.exists():
        raise ValueError(
            f"dataset of {env_id} cannot be downloaded by ogbench ({failure}): check the network "
            f"and run again, put the file at {path}, or pass --dataset-path FILE"
        )


def read_arrays(env_id: str, path, d4rl_semantics: bool) -> dict[str, np.ndarray]:
    """Rows with their `next_observations`, rewards of the task, `terminals` where it is done (no
    bootstrap), `ends` of trajectories. The last state of each has no action and gives no row. A
    file of another layout, given with --dataset-path, is read as anybody's."""
    if not _is_ogbench(path):
        return arrays.read_file(path, d4rl_semantics)
    arrays.say_rule_is_idle(path, d4rl_semantics)
    with arrays.reading(path), np.load(path) as file:
        keys = ("observations", "actions", "terminals", "qpos", "button_states")
        data = {key: file[key] for key in keys if key in file}
        last = data["terminals"].astype(bool)
        observations = arrays.as_float32("observations", data["observations"])
        actions = arrays.as_float32("actions", data["actions"])
        for key in ("observations", "actions"):
            arrays.check_resolution(path, key, [data[key]])
    with contextlib.closing(make_env(env_id)) as env:
        relabel = importlib.import_module("ogbench.relabel_utils").relabel_dataset
        relabel(names(env_id)[0], env, data)
    kept = np.flatnonzero(~last[:-1])
    float32 = functools.partial(np.asarray, dtype=np.float32)
    return {
        "observations": observations[kept],
        "next_observations": observations[kept + 1],
        "actions": actions[kept],
        "rewards": float32(data["rewards"][kept]),
        "terminals": float32(1 - data["masks"][kept]),
        "ends": float32(last[kept + 1]),
    }


def _is_ogbench(path) -> bool:
    """Whether the file holds the states that rewards are computed from."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return "qpos.npy" in file.namelist()
