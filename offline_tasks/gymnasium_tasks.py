"""Any other task that is registered in Gymnasium, also one's own: package.module:EnvId-v0."""

import difflib
import importlib
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from offline_tasks import d4rl_files
from offline_tasks.environments import closing

LEAST_LIKENESS = 0.5  # of ids, from 0 to 1
MOST_NEAR = 4
D4RL_ID = re.compile(
    "(halfcheetah|hopper|walker2d)-(random|medium|expert|(medium|full)-replay|medium-expert)-v[0-2]"
    "|antmaze-(umaze|medium|large)(-play|-diverse)?-v[0-2]"
    "|pen-(human|cloned|expert)-v[01]|kitchen-(complete|partial|mixed)-v0"
)
DEFAULT_STEPS = 1000  # D4RL's usual limit, for a task that has none


def owns(env_id: str) -> bool:
    """Whatever no other module owns; `check_env_id` tells whether it exists."""
    return True


def check_env_id(env_id: str, others=()) -> None:
    """Raises a ValueError with near ids, of Gymnasium's and of `others`, for one that is not
    registered; imports the module before the colon, if there is one, which registers its own."""
    import gymnasium

    module, colon, name = env_id.rpartition(":")
    if colon:
        _import(module, env_id)
    registered = name in gymnasium.registry
    if registered and not _retired(gymnasium.registry[name]):
        return
    if colon:
        known = [f"{module}:{own}" for own in _ids_of(module)]
        listed = known
    else:
        known = [*others, *_newest(gymnasium.registry)]
        listed = sorted(others)
    near = _near(env_id, known, others) or listed
    if registered:
        subject = f"env id {env_id!r} is of a version that Gymnasium has no more"
    elif colon:
        subject = f"module {module!r} registers no {name!r}"
    else:
        subject = f"unknown env id {env_id!r}"
    raise ValueError(
        f"{subject}: near ones are {', '.join(near) or 'none'} "
        "(any other registered Gymnasium id works with --dataset-path, one's own as module:EnvId)"
    )


def _newest(registry) -> list[str]:
    """The ids of the newest version of each environment."""
    newest = {}
    for env_id, spec in registry.items():
        key = (spec.namespace, spec.name)
        version = -1 if spec.version is None else spec.version
        newest[key] = max(newest.get(key, (-1, "")), (version, env_id))
    return [env_id for _, env_id in newest.values()]


def _retired(spec) -> bool:
    """Whether Gymnasium knows the id, and only says where the environment went."""
    entry = spec.entry_point
    return callable(entry) and entry.__module__.startswith("gymnasium.")


def _near(env_id: str, known: list[str], others=()) -> list[str]:
    """Up to four ids like this one, whatever the case, the likest first, which can be built here,
    as all of `others` can."""
    wanted = env_id.lower()
    by_likeness = {}
    for candidate in known:
        likeness = difflib.SequenceMatcher(None, candidate.lower(), wanted).ratio()
        if likeness >= LEAST_LIKENESS:
            by_likeness[candidate] = likeness
    near = []
    for candidate in sorted(by_likeness, key=by_likeness.get, reverse=True):
        if len(near) < MOST_NEAR and (candidate in others or _loads(candidate)):
            near.append(candidate)
    return near


def _loads(env_id: str) -> bool:
    """Whether the code of a registered environment can be imported."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    spec = gymnasium.registry[env_id.rpartition(":")[2]]
    if callable(spec.entry_point):
        return not _retired(spec)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_env_creator(spec.entry_point)
    except (Exception, SystemExit):  # a package is missing, or anything else
        return False
    return True


def _import(module: str, env_id: str) -> None:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module of other people's may fail in any way
        raise ValueError(
            f"env id {env_id!r}: module {module!r} cannot be imported ({error!r}); install it, or "
            "set PYTHONPATH to the folder that it lies in"
        ) from error


def _ids_of(module: str) -> list[str]:
    """The ids whose environments come from this module's package."""
    import gymnasium

    package = module.partition(".")[0]
    found = []
    for name, spec in gymnasium.registry.items():
        entry = spec.entry_point
        place = f"{entry.__module__}:" if callable(entry) else str(entry)
        if place.startswith((f"{package}:", f"{package}.")):
            found.append(name)
    return found


def make_env(env_id: str, render_mode: str | None = None):
    """`gymnasium.make`, always with a step limit."""
    return build(env_id, env_id, render_mode)


def build(spec, env_id: str, render_mode: str | None = None):
    """The environment of an id or a spec, with a step limit. Raises a ValueError that names env_id
    where it cannot be built."""
    import gymnasium
    from gymnasium.wrappers import TimeLimit

    # Left out where it is None: not every environment has the parameter.
    rendering = {} if render_mode is None else {"render_mode": render_mode}
    try:
        env = gymnasium.make(spec, disable_env_checker=True, **rendering)
    except (Exception, SystemExit) as error:  # as may an environment
        reason = " ".join(str(error).split()) or repr(error)
        how = f" with render_mode {render_mode!r} (leave --video out)" if rendering else ""
        raise ValueError(f"env id {env_id!r} cannot be built{how}: {reason}") from error
    if env.spec.max_episode_steps is None:
        env = TimeLimit(env, DEFAULT_STEPS)
    return env


def say_step_limit(env_id: str) -> None:
    """A line on stderr where an environment sets no limit to its episodes, and so gets D4RL's."""
    import gymnasium

    # Built where it may have a limit of its own.
    registered = gymnasium.spec(env_id.rpartition(":")[2]).max_episode_steps
    if registered is None and task_dims(env_id)[2] == DEFAULT_STEPS:
        limit = f"{env_id} has no step limit: episodes are cut after {DEFAULT_STEPS} steps"
        print(f"{limit}; register it with max_episode_steps", file=sys.stderr)


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps). Raises ValueError where the spaces of observations
    and actions are not 1-D Boxes."""
    with closing(make_env(env_id), env_id) as env:
        return dims_of(env, env_id)


def dims_of(env, env_id: str) -> tuple[int, int, int]:
    """`task_dims` of an environment."""
    import gymnasium

    for what, space in (("observation", env.observation_space), ("action", env.action_space)):
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(
                f"env id {env_id!r}: its {what} space {space} is not a 1-D Box; "
                "choose a task with continuous vectors"
            )
    steps = env.get_wrapper_attr("_max_episode_steps")
    return env.observation_space.shape[0], env.action_space.shape[0], steps


def action_bounds(env_id: str) -> np.ndarray | None:
    """Least and largest actions (2, action_dim), float32; None if any has no bound."""
    with closing(make_env(env_id), env_id) as env:
        return bounds_of(env)


def bounds_of(env) -> np.ndarray | None:
    """`action_bounds` of an environment, rounded inwards where float32 lacks a float64."""
    space = env.action_space
    if not space.is_bounded():
        return None
    low, high = bounds = np.float32([space.low, space.high])
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    return np.where(low <= high, [low, high], bounds)  # an action that cannot vary stays


def missing_bounds(env_id: str, env) -> str:
    """Which bounds the action space of an environment lacks, '' if none."""
    space = env.action_space
    columns = np.flatnonzero(~(space.bounded_below & space.bounded_above))
    if not columns.size:
        return ""
    if columns.size == len(space.low):
        return f"the action space of {env_id} is not bounded"
    listed = ", ".join(map(str, columns))
    return f"the action space of {env_id} is not bounded in columns {listed}"


def dataset_file(env_id: str) -> Path:
    """Raises a ValueError: such a task has no dataset here."""
    raise ValueError(f"env id {env_id!r} has no dataset of its own; give --dataset-path FILE")


def normalized_score(env_id: str, returns: np.ndarray) -> np.ndarray | None:
    """D4RL's, for people who register its Adroit or Kitchen under D4RL's very ids; None for any
    other id."""
    name = env_id.rpartition(":")[2]
    return d4rl_files.normalized_score(name, returns) if D4RL_ID.fullmatch(name) else None
