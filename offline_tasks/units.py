"""The units of actions: a file's, an environment's, and [-1, 1], where networks live."""

import numpy as np

from offline_tasks.arrays import DatasetError, say

ROUNDING = 1e-3  # of half the range: actions may be beyond their bounds by so much
UNIT = np.float32([-1, 1])  # the bounds (low, high) of a network's actions


def to_unit(path, env_id: str, actions, bounds=None, units: str = "auto"):
    """A file's actions (N, action_dim) in [-1, 1], the units that they were in ("env" or "unit"),
    and what -1 and 1 stand for outside, (low, high). `bounds` are the environment's, None for one
    that takes [-1, 1] itself. `units` "auto" means the environment's where its bounds are others
    and the actions fit. Raises DatasetError for actions beyond their bounds."""
    if bounds is None or np.array_equal(bounds, np.broadcast_to(UNIT[:, None], bounds.shape)):
        return _clip(path, actions, UNIT, "rescale them to [-1, 1]"), "unit", UNIT
    in_env = beyond(actions, bounds) is None
    in_unit = beyond(actions, UNIT) is None
    where = f"actions are in {_range(actions)}, those of {env_id} in {_range(bounds)}"
    if units == "auto":
        units = "env" if in_env or not in_unit else "unit"
        if in_env:
            say(path, f"{where}: taken in its units; if they are in [-1, 1]: --action-units unit")
        elif in_unit:
            say(path, f"{where}: taken as rescaled to [-1, 1], --action-units unit")
    if in_env or in_unit:
        remedy = "give --action-units " + ("env" if in_env else "unit")
    else:
        remedy = f"clip them as {env_id} does, or rescale them to [-1, 1] and give "
        remedy += "--action-units unit"
    if units == "unit":
        return _clip(path, actions, UNIT, remedy), units, bounds
    actions = _clip(path, actions, bounds, f"{where}; {remedy}")
    center, half = _center(bounds)
    half = np.where(half > 0, half, 1)  # an action that cannot vary
    return np.clip((actions - center) / half, *UNIT), units, bounds


def check_unbounded(path, missing: str, actions, units: str) -> None:
    """Where an environment lacks bounds, `missing` in words, there are no units but [-1, 1]: a line
    says so, and DatasetError where others are asked for or needed."""
    if not missing:
        return
    if units == "env" or beyond(actions, UNIT) is not None:
        raise DatasetError(
            f"dataset {path}: actions are in {_range(actions)}, and {missing}, so that its units "
            "are not defined; rescale them to [-1, 1] and give --action-units unit, or give the "
            "Box bounds"
        )
    say(path, f"{missing}: actions are taken in [-1, 1], and the policy acts there")


def beyond(actions, bounds) -> int | None:
    """The first column of actions that is out of its bounds by more than a rounding error."""
    center, half = _center(bounds)
    out = (np.abs(actions - center) > half * (1 + ROUNDING)).any(0)
    return int(out.argmax()) if out.any() else None


def _clip(path, actions, bounds, remedy: str):
    """Actions within the bounds: a warning for a rounding error, DatasetError for more."""
    largest = np.abs(actions).max()
    column = beyond(actions, bounds)
    if column is not None:
        reach = f"actions reach {largest:g}"
        raise DatasetError(f"dataset {path}: {reach} (column {column} is beyond); {remedy}")
    clipped = np.clip(actions, *bounds)
    changed = clipped != actions
    before = actions[changed]
    if (np.abs(clipped[changed] - before) > np.spacing(np.abs(before))).any():  # beyond rounding
        say(path, f"actions up to {largest:.7g} clipped to {_range(bounds)}")
    return clipped


def _center(bounds):
    """Middle of the bounds and half the distance between them, (action_dim,) each."""
    low, high = bounds
    return (low + high) / 2, (high - low) / 2


def _range(numbers) -> str:
    return f"[{np.min(numbers):g}, {np.max(numbers):g}]"
