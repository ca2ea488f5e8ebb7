"""Environments of other people's, which may fail in any way: one ValueError that names the id, what
the environment did and the remedy."""

import contextlib

import numpy as np

REMEDY = (
    "mend the environment (what a run has saved by then is kept), or train with --dataset-path "
    "alone and evaluate later"
)
# Of which call, what Python says of the interface before Gymnasium 0.26, and what it means.
OLD_INTERFACE = (
    ("step", "values to unpack (expected 5", "return obs, reward, terminated, truncated, info"),
    ("reset", "values to unpack (expected 2", "return obs, info"),
    ("reset", "keyword argument 'seed'", "it needs the parameters seed and options"),
    ("reset", "keyword argument 'options'", "it needs the parameters seed and options"),
)


def failure(env_id: str, what: str) -> ValueError:
    """The error for an environment that did this."""
    return ValueError(f"env id {env_id!r}: {what}; {REMEDY}")


@contextlib.contextmanager
def calling(env_id: str, call: str):
    """Makes a `failure` of whatever goes wrong inside, but Ctrl-C and a full memory."""
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise failure(env_id, f"its {call} raised {_described(call, error)}") from error


def _described(call: str, error: BaseException) -> str:
    """The kind of an error, its text, and what that means if it is of the old interface."""
    name = type(error).__name__
    text = " ".join(str(error).split())[:200]
    described = f"{name}: {text}" if text else name
    for where, words, meaning in OLD_INTERFACE:
        if where == call and words in text:
            return f"{described} ({meaning})"
    return described


@contextlib.contextmanager
def closing(env, env_id: str):
    """Closes the environment at the end. What has gone wrong before is not replaced by what its
    close raises."""
    try:
        yield env
    except BaseException:
        with contextlib.suppress(Exception, SystemExit):
            env.close()
        raise
    with calling(env_id, "close"):
        env.close()


class Watched:
    """An environment whose observations, rewards and errors are looked at."""

    def __init__(self, env, env_id: str, obs_dim: int):
        self.env = env
        self.env_id = env_id
        self.obs_dim = obs_dim

    def reset(self, seed: int) -> np.ndarray:
        """The first observation (obs_dim,), float32."""
        with calling(self.env_id, "reset"):
            result = self.env.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2:
            raise failure(self.env_id, f"its reset gave {_shown(result)}, not (obs, info)")
        return self._observation("reset", result[0])

    def step(self, action) -> tuple[np.ndarray | None, float, bool]:
        """The next observation (obs_dim,), float32, or None at the end of the episode; the reward;
        whether `info` says that it was a success."""
        with calling(self.env_id, "step"):
            obs, reward, terminated, truncated, info = self.env.step(action)
            over = bool(terminated or truncated)
        success = isinstance(info, dict) and bool(np.any(info.get("success")))
        following = None if over else self._observation("step", obs)
        return following, self._reward(reward), success

    def _observation(self, call: str, obs) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(obs, dtype=np.float32)
        except (TypeError, ValueError):  # no numbers
            array = None
        if array is None or array.shape != (self.obs_dim,):
            shape = "" if array is None else f" of shape {array.shape}"
            wanted = f"where {(self.obs_dim,)} is declared"
            what = f"its {call} gave the observation {_shown(obs)}{shape}, {wanted}"
            raise failure(self.env_id, what)
        if not np.isfinite(array).all():
            raise failure(self.env_id, f"its {call} gave an observation with NaN or infinity")
        return array

    def _reward(self, reward) -> float:
        """The number, which may be in an array of one."""
        try:
            array = np.asarray(reward, dtype=np.float64)
        except (TypeError, ValueError):  # no number
            array = np.array(np.nan)
        if array.size != 1 or not np.isfinite(array).all():
            what = f"its step gave the reward {_shown(reward)}, where a finite number is needed"
            raise failure(self.env_id, what)
        return array.item()


def _shown(value) -> str:
    """A value in a few words."""
    return " ".join(repr(value).split())[:60]
