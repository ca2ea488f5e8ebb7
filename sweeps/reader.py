"""A sweep's file -> its runs. What is wrong in it is refused in one line; the scripts' own flags
and tasks are for the scripts to judge."""

import difflib
import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCRIPTS = ("gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac")
AXES = {"scripts": str, "tasks": str, "seeds": int}
VARIANT_KEYS = (*AXES, "flags")
SWEEP_KEYS = (*VARIANT_KEYS, "final_episodes", "variants", "data")
NAMES = {str: "text", int: "whole number from 0", dict: "table"}


class InputError(ValueError):
    """What a person gave, or this machine, cannot be used; the message names it and the remedy."""


class ArgumentError(InputError):
    """A wrong argument or a wrong sweep: exit code 2 instead of 1."""


def make_out(out) -> None:
    """Make the folder --out, before hours are spent on what goes there, and try whether it can be
    written to: permissions do not tell of /proc or of a file system that is read-only.
    ArgumentError if not."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        fault = f"the folder cannot be made or written to ({error.strerror})"
        raise ArgumentError(f"--out {out}: {fault}; name another") from error


@dataclass(frozen=True)
class Run:
    """One run of a sweep. flags: a script's arguments by name; data: a file below --data, or ""."""

    script: str
    env_id: str
    variant: str
    seed: int
    flags: dict
    data: str

    @property
    def folder(self) -> Path:
        """Where it lies below the sweep's --out."""
        parts = (self.script, self.env_id or "file", self.variant, str(self.seed))
        return Path(*(re.sub("[/:]", "-", part) for part in parts))

    @property
    def kind(self) -> tuple[str, str, str]:
        """What it shares with the runs of other seeds."""
        return self.script, self.env_id, self.variant


@dataclass(frozen=True)
class Sweep:
    """The runs of a file, in the order in which they start: seed by seed."""

    path: Path
    runs: list[Run]
    final_episodes: int

    @property
    def name(self) -> str:
        """Its file's, without .toml."""
        return self.path.stem


def read_sweep(path) -> Sweep:
    """The sweep in a TOML file; ArgumentError for an unknown key or script, or a wrong value."""
    table = read_toml(path)
    check_names(table, SWEEP_KEYS, f"{path}: unknown key")
    common = axes_of(table, {}, path)
    flags = value_of(table, "flags", dict, {}, path)
    data = value_of(table, "data", dict, {}, path)
    variants = value_of(table, "variants", dict, {"default": {}}, path)
    if not variants:
        raise ArgumentError(
            f"{path}: `variants` is empty; name one, [variants.NAME], or leave it out"
        )
    runs = []
    for name in variants:
        variant = value_of(variants, name, dict, {}, f"{path}: variants")
        runs += runs_of(name, variant, common, flags, data, path)
    check_names(data, sorted({run.env_id for run in runs}), f"{path}: data: unknown task")
    for task in data:
        if not value_of(data, task, str, "", f"{path}: data"):
            raise ArgumentError(f"{path}: data: the file of {task} is ''; name it, or leave it out")
    folder, count = Counter(run.folder for run in runs).most_common(1)[0]
    if count > 1:
        raise ArgumentError(f"{path}: {count} runs would share the folder {folder}; rename one")
    episodes = value_of(table, "final_episodes", int, 0, path)
    if episodes and not all(run.env_id for run in runs):
        raise ArgumentError(f"{path}: final_episodes: the task '' has no episodes; leave one out")
    return Sweep(Path(path), sorted(runs, key=lambda run: run.seed), episodes)


def read_toml(path):
    """A TOML file as a dictionary."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        presets = sorted(Path(__file__).parent.glob("*.toml"))
        hint = near(path, [os.path.relpath(preset) for preset in presets])
        raise ArgumentError(f"{path} cannot be read ({error.strerror}); {hint}") from error
    except ValueError as error:
        raise ArgumentError(f"{path} is no TOML file: {error}") from error


def runs_of(name, variant, common, flags, data, path):
    """The runs of one variant, a table; common: the sweep's own scripts, tasks and seeds."""
    where = f"{path}: variants.{name}"
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ArgumentError(f"{where}: name it by letters, digits, '.', '_' and '-' alone")
    check_names(variant, VARIANT_KEYS, f"{where}: unknown key")
    axes = axes_of(variant, common, where)
    own_flags = value_of(variant, "flags", dict, {}, where)
    known = common["scripts"] + common["tasks"] + axes["scripts"] + axes["tasks"]
    for table in (flags, own_flags):
        nested = [key for key, value in table.items() if isinstance(value, dict)]
        check_names(nested, known, f"{path}: flags: no script or task of this sweep is")
    runs = []
    for seed in axes["seeds"]:
        for script in axes["scripts"]:
            for task in axes["tasks"]:
                merged = flags_of(flags, script, task) | flags_of(own_flags, script, task)
                runs.append(Run(script, task, name, seed, merged, data.get(task, "")))
    return runs


def axes_of(table, common, where):
    """The scripts, tasks and seeds of a table, or those in common."""
    axes = {key: list_of(table, key, kind, common.get(key), where) for key, kind in AXES.items()}
    check_names(axes["scripts"], SCRIPTS, f"{where}: unknown script")
    return axes


def flags_of(table, script, env_id):
    """The flags of a table for one script and task: general ones, the script's, the task's."""
    flags = {name: value for name, value in table.items() if not isinstance(value, dict)}
    return flags | table.get(script, {}) | table.get(env_id, {})


def near(name, known):
    """What a name that is not known may have meant, for a message."""
    close = difflib.get_close_matches(str(name), known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(known)}"


def check_names(names, known, what):
    """ArgumentError for the first of the names that is not known."""
    for name in names:
        if name not in known:
            raise ArgumentError(f"{what} `{name}`; {near(name, known)}")


def is_a(value, kind):
    """isinstance, but neither True nor a negative number is a whole number from 0."""
    if isinstance(value, bool) or (kind is int and isinstance(value, int) and value < 0):
        return False
    return isinstance(value, kind)


def value_of(table, key, kind, default, where):
    """A value of one kind, or the default where there is none."""
    value = table.get(key, default)
    if not is_a(value, kind):
        raise ArgumentError(f"{where}: `{key}` is {value!r}; give a {NAMES[kind]}")
    return value


def list_of(table, key, kind, default, where):
    """A list of different values of one kind, or the default where there is none."""
    values = table.get(key, default)
    if values is None:
        raise ArgumentError(f"{where}: `{key}` is missing; give a list: {NAMES[kind]}, ...")
    right = isinstance(values, list) and all(is_a(value, kind) for value in values)
    if not right or not values:
        raise ArgumentError(f"{where}: `{key}` is {values!r}; give a list: {NAMES[kind]}, ...")
    if len(set(values)) < len(values):
        raise ArgumentError(f"{where}: `{key}` has something twice: {values}")
    return values
