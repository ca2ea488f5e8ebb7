"""Small tasks in NumPy with data from a seed: no download, no MuJoCo, all episodes in parallel.

A toy is an object with `obs_dim, action_dim, max_steps, rewards` (one per goal, which also ends the
episode) and `start, observe, step, behavior`: see multigoal.py.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from offline_tasks import multigoal, pointmaze
from offline_tasks.arrays import DatasetError, read_file
from offline_tasks.files import data_folder, replacing, writing_data

TOYS = multigoal.TASKS | pointmaze.TASKS
TASK_DIMS = {name: (toy.obs_dim, toy.action_dim, toy.max_steps) for name, toy in TOYS.items()}


def owns(env_id: str) -> bool:
    """Whether it is a toy's id."""
    return env_id in TOYS


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps)."""
    return TASK_DIMS[env_id]


def make_env(env_id: str, render_mode: str | None = None):
    """The Gymnasium environment, with its step limit."""
    from gymnasium.wrappers import TimeLimit

    from offline_tasks.toy_envs import ToyEnv

    return TimeLimit(ToyEnv(env_id, render_mode), TOYS[env_id].max_steps)


def action_bounds(env_id: str) -> None:
    """None: the environment takes [-1, 1]."""


def read_arrays(env_id: str, path, d4rl_semantics: bool = False) -> dict:
    """The arrays of a dataset file, not yet checked."""
    try:
        return read_file(path, d4rl_semantics)
    except DatasetError as error:
        own = made_file(env_id).resolve() == Path(path).resolve()
        if not own or isinstance(error.__cause__, (PermissionError, MemoryError)):
            raise
        raise DatasetError(f"dataset {path} is damaged: delete it, it is made again") from error


def normalized_score(env_id: str, returns: np.ndarray) -> np.ndarray:
    """100 x return / best reward, elementwise."""
    return 100 * returns / TOYS[env_id].rewards.max()


def made_file(env_id: str) -> Path:
    """Where the dataset is, once it has been made."""
    return data_folder() / f"{env_id}-{TOYS[env_id].data_version}.npz"


def dataset_file(env_id: str) -> Path:
    """The dataset, made if absent."""
    path = made_file(env_id)
    with writing_data(path.parent):
        if not path.exists():
            with replacing(path) as temporary:
                np.savez(temporary, **make_data(env_id))
    return path


# ---- episodes ------------------------------------------------------------------------------------


@dataclass
class Episodes:
    """States (T + 1, n, d) and actions (T, n, action_dim), NaN after the end; the goal reached
    (n,) or -1; lengths and returns (n,)."""

    states: np.ndarray
    actions: np.ndarray
    goals: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray


def starts(toy, seeds) -> np.ndarray:
    """First states (n, d): those of the environment reset with these seeds."""
    return np.stack([toy.start(np.random.default_rng(seed)) for seed in seeds])


def rollout(toy, start: np.ndarray, act, max_steps: int) -> Episodes:
    """All episodes at once from states `start` (n, d). `act(obs (m, obs_dim), index (m,))` gives
    the actions of the m episodes still running."""
    states = np.full((max_steps + 1, *start.shape), np.nan)
    actions = np.full((max_steps, len(start), toy.action_dim), np.nan)
    goals = np.full(len(start), -1)
    lengths = np.zeros(len(start), dtype=int)
    states[0] = start
    for t in range(max_steps):
        running = np.flatnonzero(goals < 0)
        if not running.size:
            break
        action = act(toy.observe(states[t, running]), running)
        actions[t, running] = action
        states[t + 1, running], goals[running] = toy.step(states[t, running], action)
        lengths[running] += 1
    returns = np.where(goals < 0, 0.0, toy.rewards[goals])
    return Episodes(states, actions, goals, lengths, returns)


def make_data(env_id: str) -> dict[str, np.ndarray]:
    """The dataset, in D4RL's keys: the toy's behaviour, one episode after the other."""
    toy = TOYS[env_id]
    start, act = toy.behavior(np.random.default_rng(0))
    episodes = rollout(toy, start, act, toy.data_steps)
    lengths = episodes.lengths
    episode = np.repeat(np.arange(len(lengths)), lengths)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    step = np.arange(len(episode)) - first
    last = step + 1 == lengths[episode]
    terminals = last & (episodes.goals[episode] >= 0)
    rewards = terminals * episodes.returns[episode]
    observations = toy.observe(episodes.states[step, episode])
    data = {
        "observations": observations.astype(np.float32),
        "actions": episodes.actions[step, episode].astype(np.float32),
        "rewards": rewards.astype(np.float32),
        "terminals": terminals,
        "timeouts": last & ~terminals,
    }
    data = {key: value[: toy.data_rows] for key, value in data.items()}
    data["timeouts"][-1] = not data["terminals"][-1]  # the last episode may have been cut
    return data
