"""Dataset files: their arrays, read and checked, the ends of their episodes, their transitions."""

import contextlib
import contextvars
import sys
import zipfile
from pathlib import Path

import numpy as np

from offline_tasks.reading import WrongContentError, why_unreadable

# D4RL's name of an array and Gymnasium's.
NAMES = {
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminals": "terminations",
    "timeouts": "truncations",
}

CONSTANT = 1e-6  # a standard deviation below it is none
STRAY = 0.01  # of the rows may have another next observation than the next row's, without a word
COARSE = 1e-3  # of a standard deviation, that rounding to float32 may take

_QUIET = contextvars.ContextVar("quiet", default=False)


def say(path, message: str, file=None) -> None:
    """One line about a dataset, on stderr if not elsewhere."""
    if not _QUIET.get():
        print(f"dataset {path}: {message}", file=file or sys.stderr)


def say_rule_is_idle(path, d4rl_semantics: bool) -> None:
    """A line where D4RL's rule is asked for, of a file to which it does not apply."""
    if d4rl_semantics:
        why = "its episodes have their own last observations"
        say(path, f"--d4rl-semantics has no effect on this file: {why}")


@contextlib.contextmanager
def quiet():
    """For data that were described before: inside, `say` says nothing."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


class DatasetError(ValueError):
    """What is wrong with a dataset, in one line."""


@contextlib.contextmanager
def reading(path, kind: str = "HDF5 or NPZ"):
    """Makes one DatasetError, which names the file, of whatever goes wrong while it is read."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # h5py and zipfile raise many kinds for a damaged file
        reason = why_unreadable(path, error)
        raise DatasetError(f"dataset {path} cannot be read as {kind}: {reason}") from error


def read_file(path, d4rl_semantics: bool = False) -> dict:
    """The float32 arrays, in D4RL's names, of an HDF5 or NPZ file with D4RL's or Gymnasium's.
    `timeouts` may be absent; `next_observations` are there if the file has them and its rows are
    not in the order of time (D4RL's rule does not take them, which is said)."""
    arrays = {}
    with reading(path), _opened(path) as file:
        for key, other in NAMES.items():
            names = [name for name in dict.fromkeys((key, other)) if name in file]
            if names:
                arrays[key] = _read_either(path, file, names)
            elif key != "timeouts":
                either = key if key == other else f"{key} or {other}"
                raise WrongContentError(f"it has no {either}")
        if "masks" in file:
            _check_masks(_read(path, file, "masks"), arrays["terminals"])
        if "next_observations" in file and not d4rl_semantics:
            arrays["next_observations"] = _read(path, file, "next_observations")
        elif "next_observations" in file:
            _say_ignored(path, file, arrays)
    shapes = {array.shape for key, array in arrays.items() if key.endswith("observations")}
    if "next_observations" in arrays and len(shapes) == 1 and arrays["observations"].ndim == 2:
        _look_at_order(path, arrays)  # other shapes are refused by `check_arrays`
    return arrays


def _check_masks(masks: np.ndarray, terminals: np.ndarray) -> None:
    """Raises WrongContentError where masks, 0 where a value ends, and terminals are no two words
    for one: in OGBench's own dictionaries terminals are the ends of trajectories."""
    if not np.array_equal(1 - masks.ravel(), terminals.ravel()):
        raise WrongContentError(
            "masks and terminals do not say the same: save 1 - masks as terminals, the terminals, "
            "if they are the ends of trajectories, as timeouts, and no masks"
        )


def _opened(path):
    """The file, open; which of the two it is, its content tells."""
    import h5py

    if not Path(path).is_file():  # to open a pipe would wait for ever
        raise FileNotFoundError(path)
    return np.load(path) if zipfile.is_zipfile(path) else h5py.File(path, "r")


def _read_either(path, file, names: list[str]) -> np.ndarray:
    """The array of D4RL's name or of Gymnasium's, which are the same where a file has both."""
    array, *others = [_read(path, file, name) for name in names]
    for other in others:
        if not np.array_equal(array.ravel(), other.ravel(), equal_nan=True):
            raise WrongContentError(
                f"{' and '.join(names)} differ, and stand for the same; remove one of them"
            )
    return array


def entry(group, name: str):
    """What stands under a name in a file, or in a group of an HDF5 file. WrongContentError where it
    is absent, or a link that leads nowhere (a RuntimeError: it leads around)."""
    try:
        return group[name]
    except (KeyError, RuntimeError) as error:
        of_group = getattr(group, "name", "/")
        if name not in group:
            holder = "it" if of_group == "/" else of_group
            raise WrongContentError(f"{holder} has no {name}") from error
        link = group.get(name, getlink=True) if hasattr(group, "file") else None
        if not hasattr(link, "path"):  # not a soft or an external link
            raise
        target = f"{link.path} of {getattr(link, 'filename', 'this file')}"
        raise WrongContentError(
            f"{name} is a link to {target}, which cannot be had; write the array in its place"
        ) from error


def _read(path, file, name: str) -> np.ndarray:
    try:
        array = entry(file, name)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise WrongContentError(f"{name} holds Python objects; save it as float32") from error
    if hasattr(array, "keys"):
        raise WrongContentError(f"{name} is a group; join its arrays into one with a row per step")
    if array.dtype.kind not in "biuf":  # complex numbers would lose a part
        kind = f"{name} is no array of numbers, but of {array.dtype}"
        raise WrongContentError(f"{kind}; save it as float32")
    if array.shape is None:  # an h5py.Empty
        raise WrongContentError(f"{name} is empty: it has no rows")
    numbers = as_float32(name, array)
    check_resolution(path, name, [array])
    return numbers


def as_float32(name: str, array) -> np.ndarray:
    """The numbers of an array, or of a dataset of h5py, in float32. WrongContentError for finite
    ones that it cannot hold."""
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)[()]  # h5py converts as it reads
    limit = np.finfo(np.float32).max
    if np.isinf(numbers).any():
        given = array[()]
        finite = given[np.isfinite(given)]
        largest = np.abs(finite).max(initial=0)
        if largest > limit:
            raise WrongContentError(
                f"{name} reaches {largest:g}, beyond float32's {limit:.2g}; rescale it"
            )
    return numbers


def check_resolution(path, name: str, parts: list) -> None:
    """A line where float32 rounds a column of `parts`, arrays or datasets of h5py as they stand in
    the file, by over a thousandth of its standard deviation; WrongContentError where it makes one
    number of it."""
    parts = [part for part in parts if part.shape and part.size]
    if all(np.can_cast(part.dtype, np.float32) for part in parts):
        return
    spread, rounding, same = _resolution(parts)
    varies = spread > CONSTANT
    lost = np.flatnonzero(varies & same).tolist()
    coarse = np.flatnonzero(varies & (rounding > COARSE * spread)).tolist()
    columns = f" {lost or coarse}" if len(parts[0].shape) > 1 else ""
    if lost:
        raise WrongContentError(
            f"{name}{columns} vary, but are one number in float32; subtract an offset in the file"
        )
    if coarse:
        share = (rounding[coarse] / spread[coarse]).max()
        what = f"{name}{columns} lose their differences in float32"
        size = f"rounding is {100 * share:.2g} % of their standard deviation"
        say(path, f"warning: {what}: {size}; subtract an offset in the file")


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused elsewhere
def _resolution(parts: list) -> tuple:
    """Of each column its standard deviation, the root mean square of what float32 rounds away, and
    whether it makes one number of all. In pieces: a large file does not fit in float64."""
    count = 0
    total = squares = rounding = 0.0  # differences are to the first row
    same = True
    first = next(_pieces(parts))[0]
    for piece in _pieces(parts):
        numbers = piece.astype(np.float32)
        differences = piece - first
        count += len(piece)
        total = total + differences.sum(0)
        squares = squares + (differences**2).sum(0)
        rounding = rounding + ((piece - numbers) ** 2).sum(0)
        same = same & (numbers == first.astype(np.float32)).all(0)
    variance = squares / count - (total / count) ** 2
    return np.sqrt(np.maximum(variance, 0)), np.sqrt(rounding / count), same


def _pieces(parts: list, rows: int = 10_000):
    """The parts in float64, some rows (n, columns) at a time."""
    for part in parts:
        for start in range(0, len(part), rows):
            piece = part[start : start + rows].astype(np.float64)
            yield piece.reshape(len(piece), -1)


def _others(arrays: dict, next_observations: np.ndarray) -> tuple[int, int]:
    """How many next observations are not the next row, and of how many, less the ends of episodes:
    what stands there is often the first observation of the next episode."""
    goes_on = ~episode_ends(arrays)[:-1]
    following = next_observations[:-1]
    rows = arrays["observations"][1:]
    same = ((following == rows) | (np.isnan(following) & np.isnan(rows))).all(1)
    return int((goes_on & ~same).sum()), int(goes_on.sum())


def _look_at_order(path, arrays: dict) -> None:
    """Takes next_observations away where they are the next rows; a line says what is used."""
    others, count = _others(arrays, arrays["next_observations"])
    if count and not others:
        say(path, "rows are in the order of time: the next row is the next observation")
        del arrays["next_observations"]
        return
    if not np.isfinite(arrays["next_observations"][:-1]).all():
        return  # `check_arrays` refuses them
    counted = f"{others} of {count} are not the next row"
    say(path, f"rows are not in the order of time: next_observations are used ({counted})")


def _say_ignored(path, file, arrays: dict) -> None:
    """A line where D4RL's rule takes the next rows and the file has other next observations; not
    for a few, as where episodes are cut by a limit or two files were joined."""
    try:
        with quiet():
            following = _read(path, file, "next_observations")
    except WrongContentError:  # what is ignored may be anything
        return
    if following.shape != arrays["observations"].shape or following.ndim != 2:
        return
    others, count = _others(arrays, following)
    if others > STRAY * count and np.isfinite(following[:-1]).all():
        counted = f"{others} of {count} are not the next row"
        remedy = "--no-d4rl-semantics takes them"
        say(path, f"warning: next_observations are ignored ({counted}); {remedy}")


def episode_ends(arrays: dict) -> np.ndarray:
    """Whether a row is the last of its episode (N,): said by the source, or terminal, or timed
    out, or the file's last."""
    marks = [arrays[key] for key in ("ends", "terminals", "timeouts") if key in arrays]
    if "ends" in arrays:
        marks = marks[:1]
    count = len(arrays["observations"])
    ends = np.zeros(count, dtype=bool)
    for mark in marks:
        if mark.size == count:  # else `check_arrays` refuses it
            ends |= mark.reshape(count) > 0
    ends[-1:] = True
    return ends


# ---- checks --------------------------------------------------------------------------------------


def check_arrays(path, arrays: dict, max_episode_steps=None, d4rl_semantics=False) -> dict:
    """The arrays, (N, dim) or (N,), finite, with `timeouts`. Raises DatasetError for what cannot be
    used; a line says so where a file marks no end of an episode."""
    shapes = {key: array.shape for key, array in arrays.items()}
    for key in arrays:
        arrays[key] = _check_shape(path, key, arrays[key], shapes)
    if "timeouts" not in arrays:
        limit = None if "next_observations" in arrays else max_episode_steps
        terminal = arrays["terminals"] > 0
        arrays["timeouts"] = count_timeouts(terminal, limit, d4rl_semantics)
    for key in arrays:
        _check_finite(path, key, arrays)
    for key in ("terminals", "timeouts"):
        _check_flags(path, key, arrays[key])
    ended = (arrays["terminals"] > 0) | (arrays["timeouts"] > 0)
    if not ended.any() and "next_observations" not in arrays:
        say(
            path,
            "warning: no row ends an episode, so the whole file counts as one; mark the last row "
            "of each episode in terminals (the task ended) or timeouts (it was cut)",
        )
    return arrays


def _check_shape(path, key: str, array: np.ndarray, shapes: dict) -> np.ndarray:
    """An array with its number of axes, where (N, 1) stands for (N,)."""
    rank = 2 if key in ("observations", "actions", "next_observations") else 1
    if rank == 1:
        array = array.squeeze()
    count = shapes["observations"][:1]
    if array.ndim == 1 < rank and array.shape == count:
        raise DatasetError(
            f"dataset {path}: {key} needs a row per step and a column per number; reshape it from "
            f"{array.shape} to {(*array.shape, 1)}"
        )
    wrong = array.ndim != rank or array.shape[:1] != count or not array.size
    if key == "next_observations":
        wrong = array.shape != shapes["observations"]
    if wrong:
        raise DatasetError(f"dataset {path}: {key} needs a row per step, two at least: {shapes}")
    return array


def _check_finite(path, key: str, arrays: dict) -> None:
    """Raises DatasetError that names the episode of the first number that is none."""
    array = arrays[key]
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if not bad.any():
        return
    row = int(bad.argmax())
    ends = np.flatnonzero(episode_ends(arrays))
    episode = int(np.searchsorted(ends, row))
    first = ends[episode - 1] + 1 if episode else 0
    where = f"in {bad.sum()} rows, first in row {row}, of episode {episode}"
    remedy = f"cut out that whole episode, rows {first} to {ends[episode]}, not single rows"
    void = (arrays["timeouts"] > 0) & ~(arrays["terminals"] > 0)  # rows that give no transition
    if key in ("actions", "rewards") and void[bad].all():
        remedy = "these rows timed out and give no transition: write 0 there"
    if key in ("terminals", "timeouts") and bad.all():
        remedy = "write 0 or 1 there"
    if "next_observations" in arrays and "ends" not in arrays:
        where = f"in {bad.sum()} rows, first in row {row}"
        remedy = "remove those rows"
        terminal = arrays["terminals"][bad] > 0
        if key == "next_observations" and terminal.any():  # removed, they would take their rewards
            others = "" if terminal.all() else ", and remove the others"
            remedy = f"nothing follows those that are terminal: write 0 there{others}"
        if key == "next_observations" and bad.all():
            where = "in every row"
            remedy = "leave it out where the next row is the next observation"
    raise DatasetError(f"dataset {path}: {key} has NaN or infinity {where}; {remedy}")


def _check_flags(path, key: str, array: np.ndarray) -> None:
    """Raises DatasetError where numbers are neither 0 nor 1: 255 or -1 may stand for either."""
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(
            f"dataset {path}: {key} is {array[row]:g} in {wrong.sum()} rows, first in row {row}; "
            "write 1 for the last row of an episode and 0 for the others"
        )


def count_timeouts(terminals, max_episode_steps=None, d4rl_semantics=False) -> np.ndarray:
    """The rows that end an episode by its length (N,), where a file does not say. D4RL counts the
    steps from 1 after a terminal state, so it cuts such an episode a step early."""
    cut = np.zeros(len(terminals), dtype=bool)
    if max_episode_steps:
        start = -1
        for end in [*np.flatnonzero(terminals), len(terminals) - 1]:
            cut[start + max_episode_steps : end + 1 : max_episode_steps] = True
            early = d4rl_semantics and not cut[end]
            start = end - 1 if early else end
    return cut


# ---- transitions ---------------------------------------------------------------------------------


def cut(path, arrays: dict, d4rl_semantics: bool = False) -> dict:
    """The transitions of checked arrays: `observations, next_observations, actions, rewards,
    terminals`; arrays["kept"] says which rows (N,) they are. A row without a next observation gives
    none: one that timed out, and the last. A terminal row needs no next one, but D4RL's rule
    (qlearning_dataset) drops it all the same."""
    terminal = arrays["terminals"] > 0
    no_next = arrays["timeouts"] > 0
    no_next[-1] = True
    if not d4rl_semantics:
        no_next &= ~terminal
    if "next_observations" in arrays:
        no_next[:] = False
    arrays["kept"] = ~no_next
    keep = np.flatnonzero(arrays["kept"])
    if not len(keep):
        raise DatasetError(f"dataset {path} has no transition {_why_none(arrays['timeouts'])}")
    if "next_observations" in arrays:
        following = arrays["next_observations"]
    else:
        last = len(terminal) - 1
        following = arrays["observations"][np.minimum(keep + 1, last)]
    data = {"next_observations": following}
    data["rewards"] = arrays["rewards"][keep]
    for key in ("observations", "actions"):
        data[key] = arrays.pop(key)[keep]  # pop: large files fit twice
    data["terminals"] = terminal[keep].astype(np.float32)
    return data


def _why_none(timeouts: np.ndarray) -> str:
    """Why rows with these timeouts (N,) give no transition, and what to do."""
    count = len(timeouts)
    cut_off = int((timeouts > 0).sum())
    if count < 2 or not cut_off:
        return f"in {count} rows; it takes two or more"
    which = "every row" if cut_off == count else f"{cut_off} of {count} rows"
    return f"as {which} timed out and has no next one; mark only the last row of an episode"
