"""The arrays of a dataset file, checked, and the ends of its episodes."""

import warnings

import numpy as np

ROUNDING = 1e-3  # actions may be beyond 1 by so much


def check_arrays(path, arrays: dict, max_episode_steps: int | None = None) -> dict:
    """The arrays of D4RL's keys, (N, dim) or (N,), finite, actions in [-1, 1], with `timeouts`.
    Raises ValueError for what cannot be used; warns where actions had to be clipped."""
    shapes = {key: array.shape for key, array in arrays.items()}
    arrays = {key: _check_array(path, key, arrays[key], shapes) for key in arrays}
    largest = np.abs(arrays["actions"]).max()
    if largest > 1 + ROUNDING:
        raise ValueError(f"dataset {path}: actions reach {largest:g}; rescale them to [-1, 1]")
    if largest > 1:
        warnings.warn(f"dataset {path}: actions up to {largest:.7g} clipped to 1", stacklevel=3)
        np.clip(arrays["actions"], -1, 1, out=arrays["actions"])
    if "timeouts" not in arrays:
        arrays["timeouts"] = count_timeouts(arrays["terminals"] > 0, max_episode_steps)
    if (arrays["timeouts"][:-1] > 0).all():  # also of a single row
        count = len(arrays["timeouts"])
        raise ValueError(f"dataset {path} has no transition in {count} rows; it takes two or more")
    return arrays


def _check_array(path, key: str, array: np.ndarray, shapes: dict) -> np.ndarray:
    """An array with its number of axes, where (N, 1) stands for (N,)."""
    rank = 2 if key in ("observations", "actions") else 1
    if rank == 1:
        array = array.squeeze()
    count = shapes["observations"][:1]
    if array.ndim != rank or array.shape[:1] != count or not array.size:
        raise ValueError(f"dataset {path}: {key} needs a row per step, two at least: {shapes}")
    if not np.isfinite(array).all():
        raise ValueError(f"dataset {path}: {key} has NaN or infinity; remove those rows")
    return array


def count_timeouts(terminals: np.ndarray, max_episode_steps: int | None) -> np.ndarray:
    """The rows that end an episode by its length (N,), counted as D4RL does where a file does not
    say: steps count from 1 after a terminal state, else from 0."""
    cut = np.zeros(len(terminals), dtype=bool)
    if max_episode_steps:
        start = -1
        for end in [*np.flatnonzero(terminals), len(terminals) - 1]:
            cut[start + max_episode_steps : end + 1 : max_episode_steps] = True
            start = end if cut[end] else end - 1
    return cut
