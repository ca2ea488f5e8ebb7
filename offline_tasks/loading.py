"""A dataset as the algorithms take it, and what is said about it."""

import sys

import numpy as np

from offline_tasks import arrays as files
from offline_tasks.arrays import CONSTANT, say
from offline_tasks.registry import (
    action_bounds,
    check_data,
    missing_bounds,
    read_arrays,
    task_dims,
)
from offline_tasks.units import check_unbounded, to_unit

LARGE = 1e3  # of an observation, or between the scales of two of them


def load_transitions(path, max_episode_steps=None, d4rl_semantics=False) -> dict:
    """The transitions of a file whose actions lie in [-1, 1], of no task: float32 `observations,
    next_observations` (n, obs_dim), `actions` (n, action_dim), `rewards, terminals` (n,). Raises
    ValueError for a bad file; `arrays.cut` has the rules."""
    arrays = files.read_file(path, d4rl_semantics)
    arrays = files.check_arrays(path, arrays, max_episode_steps, d4rl_semantics)
    data = files.cut(path, arrays, d4rl_semantics)
    data["actions"] = to_unit(path, "", data["actions"])[0]
    return data


def load_dataset(
    path,
    env_id: str = "",
    d4rl_semantics: bool = False,
    action_units: str = "auto",
    fix_timeouts: bool = False,
    normalized: bool = True,
) -> tuple[dict, dict]:
    """Transitions as of `load_transitions`, and `action_units` with `action_bounds`: in which units
    the file's actions were, and what -1 and 1 stand for in the environment. A line on stdout
    describes the data; `normalized`: whether the networks bring observations to one scale. Raises
    ValueError for a file that is bad, or of other columns than the task."""
    limit = task_dims(env_id)[2] if env_id else None
    arrays = read_arrays(env_id, path, d4rl_semantics)
    counted = bool(limit) and not {"timeouts", "next_observations"} & arrays.keys()
    arrays = files.check_arrays(path, arrays, limit, d4rl_semantics)
    parts = [_episodes(arrays, limit if counted else None)]
    data = files.cut(path, arrays, d4rl_semantics)
    if env_id or fix_timeouts:
        data = check_data(env_id, path, data, fix_timeouts)
    bounds = action_bounds(env_id) if env_id else None
    if env_id and bounds is None:
        check_unbounded(path, missing_bounds(env_id), data["actions"], action_units)
    parts.append(f"actions from {data['actions'].min():.4g} to {data['actions'].max():.4g}")
    data["actions"], units, bounds = to_unit(path, env_id, data["actions"], bounds, action_units)
    parts.append(f"dropped: {_dropped(arrays, len(data['rewards']))}")
    _warn_of_rewards(path, data)
    if not normalized:
        _warn_of_scales(path, data["observations"])
    size = f"{len(data['rewards'])} transitions of {len(arrays['kept'])} rows"
    say(path, "; ".join([size, *parts]), sys.stdout)
    return data, {"action_units": units, "action_bounds": np.array(bounds).tolist()}


def _episodes(arrays: dict, counted: int | None) -> str:
    """How many episodes and ends there are, and the return of an episode."""
    terminals = f"{(arrays['terminals'] > 0).sum()} terminals"
    if "next_observations" in arrays and "ends" not in arrays:
        return f"rows in no order of time, so episodes are unknown; {terminals}"
    first = np.flatnonzero(files.episode_ends(arrays))[:-1] + 1
    returns = np.add.reduceat(arrays["rewards"].astype(np.float64), [0, *first])
    timeouts = f"{(arrays['timeouts'] > 0).sum()} timeouts"
    if counted:
        timeouts += f" (counted, {counted} steps)"
    spread = f"{returns.min():.4g} (least), {returns.mean():.4g} (mean), {returns.max():.4g} (most)"
    return f"{len(returns)} episodes, {terminals}, {timeouts}; return per episode {spread}"


def _dropped(arrays: dict, transitions: int) -> str:
    """Which rows gave no transition, with the reward that the last one had."""
    dropped = ~arrays["kept"]
    timed_out = dropped & (arrays["timeouts"] > 0)
    both = timed_out & (arrays["terminals"] > 0)
    texts = []
    if timed_out.any():
        terminal = f" ({both.sum()} of them terminal)" if both.any() else ""
        texts.append(f"{timed_out.sum()} rows that timed out{terminal}")
    if dropped[-1] and not timed_out[-1]:
        texts.append(f"the last row, its reward {arrays['rewards'][-1]:g}")
    jumps = arrays["kept"].sum() - transitions
    if jumps:
        texts.append(f"{jumps} jumps")
    return ", ".join(texts) or "nothing"


def _warn_of_rewards(path, data: dict) -> None:
    """A line where no reward and no end says which action is better."""
    first = data["rewards"][0]
    if np.all(data["rewards"] == first) and not data["terminals"].any():
        what = f"every reward is {first:g} and no state is terminal"
        say(path, f"warning: {what}, so all actions are worth the same")


def _warn_of_scales(path, observations: np.ndarray) -> None:
    """A line where networks that take observations as they are would hardly learn."""
    scales = observations.std(0, dtype=np.float64)
    scales = scales[scales > CONSTANT]
    largest = np.abs(observations).max()
    ratio = scales.max() / scales.min() if len(scales) else 1.0
    if largest > LARGE or ratio >= LARGE:
        what = f"observations reach {largest:.3g}, their scales differ by {ratio:.3g}"
        say(path, f"warning: {what}; add --normalize-observations")
