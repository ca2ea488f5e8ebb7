"""Which module an environment id belongs to, and the calls that depend on it.

Each source of tasks is a module with the same calls: `owns(env_id)`, `task_dims(env_id)`,
`make_env(env_id, render_mode)`, `action_bounds(env_id)`, `dataset_file(env_id)`,
`read_arrays(env_id, path, d4rl_semantics)`, `normalized_score(env_id, returns)`. The first that
owns an id is asked.
"""

import importlib
import os
import sys
from pathlib import Path

import numpy as np

from offline_tasks import d4rl_files, gymnasium_tasks, minari, ogbench, toys
from offline_tasks.environments import closing

SOURCES = (toys, d4rl_files, minari, ogbench, gymnasium_tasks)  # the last owns whatever is left
BENCHMARKS = {toys: "toys", d4rl_files: "D4RL", minari: "Minari", ogbench: "OGBench"}
# env_id: (obs_dim, action_dim, max_episode_steps), of the tasks that have a dataset
TASK_DIMS = d4rl_files.TASK_DIMS | toys.TASK_DIMS


def source(env_id: str):
    """The module that an id belongs to."""
    return next(module for module in SOURCES if module.owns(env_id))


def benchmark(env_id: str) -> str:
    """D4RL, Minari, OGBench, toys or Gymnasium: scores of two of them do not compare."""
    return BENCHMARKS.get(source(env_id), "Gymnasium")


def check_env_id(env_id: str) -> None:
    """Raises a ValueError that lists near ids for one that is neither a task of this package, nor
    Minari's or OGBench's, nor registered in Gymnasium; imports the module of an id such as
    package.module:EnvId-v0."""
    if source(env_id) is gymnasium_tasks:
        prefixed = f"{minari.PREFIX}{env_id}"
        there = [prefixed] if minari.is_there(prefixed) else []
        gymnasium_tasks.check_env_id(env_id, others=[*there, *TASK_DIMS])
    elif source(env_id) in (minari, ogbench):
        source(env_id).check_env_id(env_id)


def prepare(env_id: str) -> None:
    """`check_env_id`, and the import of what episodes need, before any time is spent on training.
    They need no picture: a renderer named by MUJOCO_GL that cannot be loaded is switched off, with
    a line. Raises ValueError where the simulator of a task of D4RL cannot be imported."""
    check_env_id(env_id)
    if source(env_id) is toys:
        return
    if source(env_id) is gymnasium_tasks:
        gymnasium_tasks.say_step_limit(env_id)
    try:
        _import_mujoco()
        if source(env_id) is d4rl_files:
            importlib.import_module("offline_tasks.d4rl")
    except ImportError as error:
        if source(env_id) is d4rl_files:
            reason = " ".join(str(error).split())
            raise ValueError(f"{env_id} needs Gymnasium and MuJoCo: {reason}") from error


def _import_mujoco() -> None:
    try:
        importlib.import_module("mujoco")
    except Exception as error:  # each graphics library has its own kinds
        renderer = os.environ.get("MUJOCO_GL")
        if renderer is None:
            raise
        reason = " ".join(str(error).split())
        print(f"MUJOCO_GL={renderer} fails, now disable: no pictures ({reason})", file=sys.stderr)
        os.environ["MUJOCO_GL"] = "disable"
        importlib.import_module("mujoco")


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps). Builds an environment only for ids that are not of
    this package; raises ValueError if their observations or actions are not 1-D Box spaces."""
    check_env_id(env_id)
    return source(env_id).task_dims(env_id)


def make_env(env_id: str, render_mode: str | None = None):
    """A `gymnasium.Env` with its step limit (a TimeLimit wrapper). Actions are in its own units,
    [-1, 1] in this package's tasks. Other Gymnasium ids come from `gymnasium.make`, and a task
    without a step limit gets D4RL's usual 1000."""
    check_env_id(env_id)
    if render_mode is not None:
        _choose_renderer()
    return source(env_id).make_env(env_id, render_mode)


def action_bounds(env_id: str) -> np.ndarray | None:
    """Least and largest actions (2, action_dim), float32, in the environment's units; None for
    those that take [-1, 1] whatever they are, and for an unbounded space."""
    check_env_id(env_id)
    return source(env_id).action_bounds(env_id)


def missing_bounds(env_id: str) -> str:
    """Which bounds the actions of a task lack, in words; '' if none."""
    if source(env_id) in (toys, d4rl_files):
        return ""
    with closing(make_env(env_id), env_id) as env:
        return gymnasium_tasks.missing_bounds(env_id, env)


def _choose_renderer() -> None:
    """Lets MuJoCo render without a display: its own default wants one."""
    if sys.platform == "linux" and not {"MUJOCO_GL", "DISPLAY"} & os.environ.keys():
        os.environ["MUJOCO_GL"] = "egl"


def dataset_file(env_id: str) -> Path:
    """The task's data file, in the folder of its source. $D4RL_DATASET_DIR (default
    ~/.d4rl/datasets): D4RL's under D4RL's name, downloaded if absent and verified; a toy's made
    from a seed. Raises ValueError without a network, on a wrong checksum (the file is kept as
    .bad), for a folder that cannot be used, and for ids that have no dataset."""
    check_env_id(env_id)
    return source(env_id).dataset_file(env_id)


def read_arrays(env_id: str, path, d4rl_semantics: bool = False) -> dict:
    """The arrays of a dataset file of a task or, with an empty id, of none, not yet checked: see
    `arrays.read_file`. `ends` (N,) may say where episodes end, and then `next_observations` what
    follows each row."""
    if not env_id or source(env_id) is gymnasium_tasks:  # a file in Minari's layout or any other
        return minari.read_arrays(env_id, path, d4rl_semantics)
    check_env_id(env_id)
    return source(env_id).read_arrays(env_id, path, d4rl_semantics)


def normalized_score(env_id: str, returns, successes=None) -> np.ndarray | None:
    """The returns on a scale where 0 is doing nothing (D4RL: a random policy) and 100 the best (an
    expert), elementwise; of OGBench the successes, 0 or 1, in per cent. None for a task without
    reference scores."""
    if source(env_id) is ogbench:
        return None if successes is None else 100 * np.asarray(successes, dtype=np.float64)
    return source(env_id).normalized_score(env_id, np.asarray(returns, dtype=np.float64))


def check_data(env_id: str, path, data: dict, fix: bool = False) -> dict:
    """A dataset's transitions, with `fix` less those that `fix_timeouts` drops. Raises a ValueError
    where the columns are not the task's, or there is nothing to fix."""
    if fix and not (d4rl_files.owns(env_id) and env_id.startswith("antmaze")):
        raise ValueError(f"--fix-timeouts is for AntMaze, not for {env_id or path}; leave it out")
    obs_dim, action_dim, _ = task_dims(env_id)
    for key, dim in {"observations": obs_dim, "actions": action_dim}.items():
        columns = data[key].shape[1]
        if columns != dim:
            raise ValueError(f"dataset {path}: {key} have {columns} columns, {env_id} has {dim}")
    return d4rl_files.fix_timeouts(data) if fix else data
