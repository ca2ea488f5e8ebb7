"""A report of many runs: report.md and index.html from their results.json files.

    python report.py runs --out report/
    python report.py runs/table2 runs/more --out report/ --pick best

A row is one group of runs: the same script, variant, task, data (by SHA-256) and arguments; only
the seed and the machine may differ. Runs on D4RL's own files stand on another page than all
others, and only they beside the paper's numbers. Files that cannot be used, runs that have not
ended, and runs of a sweep that have no results are named on a page of their own and left out. Exit
code: 2 for a wrong argument, 1 for what cannot be read or written.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import re
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from signal import SIGINT
from typing import Annotated, Literal

import numpy as np
import tyro

import offline_tasks
from ablations import paper
from offline_tasks import statistics
from offline_tasks.pages import (
    Page,
    Picture,
    Section,
    Table,
    count,
    draw_line,
    html_document,
    markdown,
    new_figure,
    svg,
)
from sweeps.progress import Progress, early_stop, final_fault
from sweeps.reader import ArgumentError, read_sweep, read_toml

# script: its name with eta = 0 (Table 1), otherwise (Tables 2 and 5), in Table 6
METHODS = {
    "gtp_offline": ("GTP-BC", "GTP", "GTP"),
    "gtp_bc": ("GTP-BC", "GTP-BC", "GTP"),
    "diffusion_ql": ("D-BC", "D-QL", "Diffusion"),
    "consistency_ac": ("C-BC", "C-AC", "Consistency"),
}
STRUCTURAL = (3, 7)  # tables of variants, beside GTP itself
TASKS = [task for suite in paper.SUITES.values() for task in suite.values()]
PICKS = ("last", "best", "selected")  # evaluations of a run
MEASURES = {  # of an evaluation, by preference: what a page calls it
    "normalized_score": "normalized score",
    "episodic_return": "return",
    "energy_score": "energy score, lower is better",
}
# Arguments that leave what is learnt as it is; `ignored_args` has eval_freq besides.
IGNORED = {
    "env_id",
    "dataset_path",
    "run_dir",
    "resume",
    "eval_only",
    "capture_video",
    "seed",
    "device",
    "num_threads",
    "compile",
    "cuda_graphs",
    "tensorboard",
    "track",
    "wandb_project",
    "wandb_entity",
    "checkpoint_freq",
    "log_freq",
}


AT_LEAST_ONE = tyro.conf.arg(metavar="DIR...", help_behavior_hint="(at least one)")


@dataclass
class Arguments:
    """A report of the runs in some folders."""

    dirs: Annotated[tuple[str, ...], tyro.conf.Positional, AT_LEAST_ONE]
    """Folders with runs at any depth, or results.json files."""
    out: str = "report"  # folder for report.md, index.html and figures/
    pick: Literal["last", "best", "selected"] = "last"  # evaluation for all but the first table


# ---- runs ----------------------------------------------------------------------------------------


def number(value) -> float | None:
    """A finite number, else None: results.json has null for NaN and the text inf for infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of more than 308 digits
        return None


def numbers(pairs) -> dict:
    """{key: number} of the pairs (key, value) whose value is a finite number."""
    known = {key: number(value) for key, value in pairs}
    return {key: value for key, value in known.items() if value is not None}


DEFAULTS = {  # what a results.json may lack, or have as null
    "env_id": "",
    "variant": "",
    "table": 0,
    "row": "",
    "last": {},
    "best": {},
    "selected": {},
    "versions": {},
}
KINDS = {  # of the values that are used
    "algorithm": str,
    "env_id": str,
    "variant": str,
    "table": int,
    "row": str,
    "seed": int,
    "status": str,
    "args": dict,
    "dataset": dict,
    "evaluations": list,
    "last": dict,
    "best": dict,
    "selected": dict,
    "versions": dict,
}


def warn(line: str) -> None:
    """A line on stderr."""
    print(f"warning: {line}", file=sys.stderr)


def read_json(path: Path) -> dict:
    """The keys and values of a JSON file; ValueError for another, not in Python's words."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        what = "a folder" if path.is_dir() else "a file that cannot be read"
        raise ValueError(what) from None
    except (ValueError, RecursionError):
        raise ValueError("damaged JSON") from None
    if not isinstance(content, dict):
        raise ValueError("no table of keys and values")
    return content


def short(error: ValueError) -> str:
    """Why a file cannot be used, on one line; the values that it names may be long."""
    return " ".join(str(error).split())[:150]


def read(path: Path) -> dict:
    """One results.json with its own path as `file`; ValueError for what is not one."""
    try:
        known = {key: value for key, value in read_json(path).items() if value is not None}
        results = DEFAULTS | known | {"file": str(path)}
        check(results)
    except ValueError as error:
        raise ValueError(f"{path} is left out, no results of a run ({short(error)})") from None
    results["args"] = complete_args(results)
    return results


def check(results: dict) -> None:
    """ValueError unless all that is used here is there."""
    missing = sorted(KINDS.keys() - results.keys())
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    for key, kind in KINDS.items():
        if not isinstance(results[key], kind):
            raise ValueError(f"{key} is {results[key]}")
    if results["algorithm"] not in METHODS:
        raise ValueError(f"of {results['algorithm']}.py, which is not known here")
    for key in ("path", "sha256"):
        if not isinstance(results["dataset"].get(key), str):
            raise ValueError(f"dataset is {results['dataset']}")
    for row in results["evaluations"]:
        if not isinstance(row, dict) or not isinstance(row.get("update"), int):
            raise ValueError(f"an evaluation has no update: {row}")


def plain_args(args) -> dict:
    """A script's Args as results.json has them."""
    return {key: "inf" if value == math.inf else value for key, value in asdict(args).items()}


def complete_args(results: dict) -> dict:
    """The arguments of a run with those that its older version lacked, as a resume takes them, and
    with `action_units` as they were found."""
    script = import_module(results["algorithm"])
    own = plain_args(script.Args())
    older = {name: value for name, value in (own | script.OLDER).items() if name not in IGNORED}
    args = older | results["args"]
    for name, value in args.items():
        if isinstance(own.get(name), float) and number(value) is not None:
            args[name] = float(value)  # files have 2 and 2.0
    args["action_units"] = "unit" if stretched(results) else "auto"
    return args


def stretched(results: dict) -> bool:
    """Whether a file's actions in [-1, 1] were stretched to other bounds of the environment's. If
    not, they were taken as by default, whatever `action_units` says."""
    dataset = results["dataset"]
    env_id = results["env_id"]
    if "action_bounds" in dataset:
        others = dataset["action_bounds"] != [-1, 1]
    else:  # of an older version, which knew no units
        others = env_id != "" and offline_tasks.benchmark(env_id) not in ("D4RL", "toys")
    return others and dataset.get("action_units", "unit") == "unit"


def find(folder: Path) -> list[Path]:
    """The results.json files at any depth, also behind links; each folder is looked at once."""
    found = []
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to where the walk has been
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if "results.json" in (*folders, *files):
            found.append(Path(place, "results.json"))
    return sorted(found)


def load(paths, complain=warn) -> list[dict]:
    """The results of files and of folders, searched recursively; complain(line) for a bad one."""
    files = {}  # each once
    for path in map(Path, paths):
        if not path.exists():
            raise ArgumentError(f"{path} does not exist; name folders or files of runs")
        found = find(path) if path.is_dir() else [path]
        files |= {file.resolve(): file for file in found}
    runs = []
    for file in files.values():
        try:
            results = read(file)
            runs.append(results | {"final": final_scores(results, complain)})
        except ValueError as error:
            complain(str(error))
    if not runs:
        given = ", ".join(map(str, paths))
        raise ValueError(f"no usable results.json in {given}; name folders of runs, or train first")
    return runs


def final_scores(results: dict, complain=warn) -> np.ndarray | None:
    """The scores of single episodes in final_scores.json beside a run's results.json, which
    evaluate.py has made; None without such a file, and, with a complaint, for one that cannot be
    used, or is of another run or of another update than its last."""
    path = Path(results["file"]).with_name("final_scores.json")
    if not path.exists():
        return None
    try:
        content = read_json(path)
        fault = final_fault(path, content, results)
        if fault:
            raise ValueError(fault)
    except ValueError as error:
        complain(f"{path} is left out, no scores of episodes ({short(error)})")
        return None
    return np.array(content["scores"], dtype=float)


@functools.cache
def defaults(algorithm: str, env_id: str, literal: bool) -> dict:
    """The arguments that a script takes for a task by itself, as results.json has them."""
    default_args = import_module(algorithm).default_args
    if literal:
        default_args = functools.partial(default_args, literal=True)
    try:
        args = default_args(env_id=env_id, dataset_path="-", device="cpu")
    except ValueError:  # a Gymnasium id that is not registered here
        args = default_args(dataset_path="-", device="cpu")
    args = replace(args, eval_freq=args.eval_freq or max(1, args.num_updates // 20))
    return plain_args(args)


def ignored_args(results: dict, pick: str) -> set[str]:
    """Arguments that leave the picked evaluation of a run as it is. Of eval_freq that is so where
    `last` is picked: the evaluations have random numbers of their own, but `best` is a maximum over
    them, and --early-stop ends a run at one of them."""
    if pick == "last" and results["args"].get("early_stop") is not True:
        return IGNORED | {"eval_freq"}
    return IGNORED


def departures(results: dict, pick: str) -> dict:
    """{argument: value} wherever a run differs from its script's defaults for the task."""
    args = results["args"]
    literal = args.get("literal") is True
    usual = defaults(results["algorithm"], results["env_id"], literal)
    changed = {"literal": True} if literal else {}
    for name in sorted({*args, *usual} - ignored_args(results, pick)):
        value = args.get(name, "absent")
        if value != usual.get(name, "absent"):
            changed[name] = value
    return changed


def times(runs: list[dict], *keys: str, unit: float = 1) -> dict[str, list[float]]:
    """{machine: sums of the keys' values / unit}: times of different machines are not averaged."""
    found = {}
    for results in runs:
        values = [number(results.get(key)) for key in keys]
        if None not in values:
            found.setdefault(machine(results), []).append(sum(values) / unit)
    return found


def machine(results: dict) -> str:
    """What a run ran on, and how, as far as its times depend on it."""
    args = results["args"]
    device = args.get("device", "unknown device")
    words = [str(results.get("machine", device))]
    if device == "cpu":
        words.append(f"num_threads={args.get('num_threads')}")
    words += [name for name in ("compile", "cuda_graphs") if args.get(name)]
    return ", ".join(words)


# ---- sweeps --------------------------------------------------------------------------------------


def sweeps_folder(results: dict) -> Path | None:
    """OUT of a run in OUT/SCRIPT/TASK/VARIANT/SEED, where sweep.py puts it; None of another."""
    file = Path(results["file"])
    if len(file.parents) < 5:
        return None
    seed, _, _, script, out = file.parents[:5]
    in_sweep = (script.name, seed.name) == (results["algorithm"], str(results["seed"]))
    return out if in_sweep else None


def find_sweeps(dirs, runs: list[dict], complain=warn) -> list[Progress]:
    """Every sweep whose file lies in one of the folders or where a sweep's runs do; complain(line)
    of other files. One that lies elsewhere than its runs, which have a copy, is not counted."""
    outs = {out.resolve(): out for out in filter(None, map(sweeps_folder, runs))}
    copies = {file.read_bytes() for out in outs.values() for file in out.glob("*.toml")}
    folders = {folder.resolve(): folder for folder in map(Path, dirs)} | outs
    sweeps = []
    for place, folder in folders.items():
        for file in sorted(folder.glob("*.toml")):
            if is_foreign(file) or (place not in outs and file.read_bytes() in copies):
                continue
            try:
                sweeps.append(Progress(read_sweep(file), folder))
            except ValueError as error:
                complain(f"no sweep: {error}")
    return sweeps


def is_foreign(file: Path) -> bool:
    """Whether a TOML file is of another kind than a sweep's, which has `scripts`."""
    try:
        return "scripts" not in read_toml(file)
    except ValueError:  # who knows
        return False


def absent_runs(sweeps: list[Progress]) -> dict[Path, str]:
    """{folder of a run that has no results.json: what sweep.py status says of it}."""
    absent = {}
    for progress in sweeps:
        for name, state in progress.states().items():
            run_dir = progress.out / name
            if not (run_dir / "results.json").exists():
                absent[run_dir] = f"{state} ({progress.sweep.path.name})"
    return absent


def unplanned_runs(sweeps: list[Progress], runs: list[dict]) -> dict[str, str]:
    """{results.json of a run in a sweep's folder: the sweep's files there} where none has it."""
    unplanned = {}
    for results in runs:
        out = sweeps_folder(results)
        if out is None:
            continue
        file = Path(results["file"])
        there = [one for one in sweeps if one.out.resolve() == out.resolve()]
        planned = {run.folder for progress in there for run in progress.sweep.runs}
        if there and file.parent.relative_to(out) not in planned:
            unplanned[results["file"]] = ", ".join(one.sweep.path.name for one in there)
    return unplanned


@dataclass(frozen=True)
class Plans:
    """What the runs and the files of their sweeps do not have in common: what `absent_runs` and
    `unplanned_runs` have found."""

    absent: dict[Path, str]
    unplanned: dict[str, str]


# ---- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What the runs of a group, one for each seed, have in common, and their numbers."""

    task: str
    method: str
    algorithm: str
    variant: str
    table: int  # the paper's that the variant belongs to; 0: none
    name: str  # what that table calls it
    cloning: bool
    num_steps: int | None
    settings: dict
    dataset: dict
    d4rl: bool
    seeds: list[int]
    files: list[str]
    diverged: list[int]
    scores: dict
    iqm: list[float] | None
    energy_scores: dict
    hours: dict
    ms: dict
    evaluations: list[list[dict]]
    runs: list[dict] = field(repr=False)  # finished or diverged

    @property
    def finished(self) -> list[dict]:
        """The runs that have not diverged."""
        return finished(self.runs)

    @property
    def finals(self) -> list[np.ndarray]:
        """Of the finished runs that have final_scores.json, its scores."""
        return [run["final"] for run in self.finished if run["final"] is not None]

    def values(self, pick: str, measure: str) -> dict[int, float]:
        """{seed: value} of an evaluation of the finished runs."""
        return numbers((run["seed"], run[pick].get(measure)) for run in self.finished)


def finished(runs: list[dict]) -> list[dict]:
    """Those of some runs that have not diverged, and have ended."""
    return [run for run in runs if run["status"] == "finished"]


def group(runs: list[dict], pick: str, complain=warn) -> tuple[list[Row], list[dict]]:
    """Rows of the finished and diverged runs, and the runs that have not ended."""
    groups = {}
    unended = []
    for results in sorted(runs, key=age):
        if results["status"] not in ("finished", "diverged"):
            unended.append(results)
            continue
        seeds = groups.setdefault(identity(results, pick), {})
        seed = results["seed"]
        if seed in seeds:
            older = seeds[seed]["file"]
            complain(f"{older} is left out, the newer {results['file']} repeats it")
        seeds[seed] = results
    rows = []
    for seeds in groups.values():
        rows.append(summary([seeds[seed] for seed in sorted(seeds)], pick))
    return sorted(rows, key=place), unended


def age(results: dict) -> tuple[float, str]:
    """By which the newest run of a seed is found: a copied file has a new time of its own."""
    file = results["file"]
    updated = number(results.get("updated"))
    return Path(file).stat().st_mtime if updated is None else updated, file


def identity(results: dict, pick: str) -> str:
    """Equal for runs that differ in the seed and the machine alone."""
    ignored = ignored_args(results, pick)
    args = {name: value for name, value in results["args"].items() if name not in ignored}
    same = [results[key] for key in ("algorithm", "env_id", "variant")]
    same += [results["dataset"]["sha256"], args]
    return json.dumps(same, sort_keys=True)


def place(row: Row) -> tuple:
    """By which rows are sorted: the paper's tasks first, the fewest settings first."""
    rank = TASKS.index(row.task) if row.task in TASKS else len(TASKS)
    return rank, row.task, row.method, len(row.settings), str(row.settings)


def summary(runs: list[dict], pick: str) -> Row:
    """The row of a group."""
    first = runs[0]
    args = first["args"]
    dataset = first["dataset"]
    ended = finished(runs)
    chosen = {results["seed"]: results[pick] for results in ended}
    scores = numbers((seed, row.get("normalized_score")) for seed, row in chosen.items())
    energy_scores = numbers((seed, row.get("energy_score")) for seed, row in chosen.items())
    return Row(
        task=first["env_id"] or Path(dataset["path"]).name,
        method=method(first),
        algorithm=first["algorithm"],
        variant=first["variant"],
        table=first["table"],
        name=first["row"],
        cloning=cloning(first),
        num_steps=args.get("num_steps"),
        settings=departures(first, pick),
        dataset=dataset,
        d4rl=dataset["sha256"] == published(first["env_id"]),
        seeds=[results["seed"] for results in runs],
        files=[results["file"] for results in runs],
        diverged=[results["seed"] for results in runs if results["status"] == "diverged"],
        scores=scores,
        iqm=iqm([[score] for score in scores.values()]),
        energy_scores=energy_scores,
        hours=times(ended, "seconds", unit=3600),
        ms=times(ended, "milliseconds_per_action"),
        evaluations=[results["evaluations"] for results in ended],
        runs=runs,
    )


def published(env_id: str) -> str | None:
    """The SHA-256 of a task's file, None where there is none."""
    *_, sha256 = offline_tasks.DATASETS.get(env_id, (None,))
    return sha256


def cloning(results: dict) -> bool:
    """Whether a run had no weights."""
    return results["algorithm"] == "gtp_bc" or results["args"].get("eta") == 0


def method(results: dict) -> str:
    """What a row is called: the variant, or else the script in the paper's words."""
    by_itself, with_eta, _ = METHODS[results["algorithm"]]
    name = results["variant"] or (by_itself if cloning(results) else with_eta)
    if name == "GTP-BC" and results["algorithm"] == "gtp_offline":
        name += " (gtp_offline.py)"
    candidates = number(results["args"].get("num_candidates")) or 1
    if candidates > 1:
        name += f", {candidates:.0f} candidates"
    return name


def whose(dataset: dict) -> str:
    """The name of a dataset's file, and whether D4RL has published it."""
    sha256 = dataset["sha256"]
    tasks = [task for task in offline_tasks.DATASETS if published(task) == sha256]
    owner = f"D4RL's {tasks[0]}" if tasks else "not D4RL's"
    return f"{Path(dataset['path']).name} ({owner}, SHA-256 {sha256[:12]})"


# ---- the paper -----------------------------------------------------------------------------------


def places(row: Row) -> dict[int, str]:
    """{table: the paper's name of the row} for every table of the paper that a row belongs to."""
    if not row.d4rl or row.task not in TASKS:
        return {}
    if row.variant:
        return variant_places(row)
    by_itself, with_eta, timed = METHODS[row.algorithm]
    usual_steps = "num_steps" not in row.settings
    found = {}
    if row.cloning:
        if usual_steps:
            found[1] = by_itself
    elif "eta" not in row.settings:
        if usual_steps:
            found[2] = with_eta
        label = f"GTP (T={row.num_steps})" if with_eta == "GTP" else with_eta
        if label in paper.TABLE_5.get(row.task, {}) and (usual_steps or with_eta == "GTP"):
            found[5] = label
    if row.task == paper.TABLE_6_TASK:
        found[6] = f"{timed} (T = {row.num_steps})"
    if row.task == paper.TABLE_3_TASK and found.get(2) == "GTP":
        found |= dict.fromkeys(STRUCTURAL, "GTP")
    return found


def variant_places(row: Row) -> dict[int, str]:
    """The same for a variant of an ablation, which says itself where it belongs."""
    if "eta" in row.settings:
        return {}
    if row.table == 5:
        return {5: row.name} if row.name in paper.TABLE_5.get(row.task, {}) else {}
    if row.task != paper.TABLE_3_TASK or row.table not in STRUCTURAL:
        return {}
    if row.name == "GTP":  # with which both tables compare
        return dict.fromkeys(STRUCTURAL, "GTP")
    return {row.table: row.name}


def papers_score(row: Row) -> str:
    """The paper's score for a row and the table it is from, '-' where it has none."""
    printed = {1: paper.TABLE_1, 2: paper.TABLE_2, 5: paper.TABLE_5, 3: paper.TABLE_3}
    named = places(row)
    for table, cells in printed.items():
        if table in named:
            score = cells.get(row.task, cells).get(named[table], "-")
            return score if score == "-" else f"{score} (Table {table})"
    return "-"


# ---- texts of numbers ----------------------------------------------------------------------------


FEWEST_RUNS = 3  # of a task, for an interval: that of two has these two as its ends


def interval(statistic, *methods) -> np.ndarray | None:
    """The 95 % interval of statistic(tasks of each method) by a bootstrap over the runs of each
    task; None where a task has fewer than FEWEST_RUNS."""
    fewest = min(len(scores) for tasks in methods for scores in tasks)
    if fewest < FEWEST_RUNS:
        return None
    return statistics.interval(statistic, *methods)


def iqm(scores: list[list[float]]) -> list[float] | None:
    """[IQM, low, high] of scores (seeds, tasks); [IQM] where there is no `interval`, None for fewer
    than two seeds."""
    if len(scores) < 2:
        return None
    tasks = list(np.transpose(scores))
    ends = interval(statistics.iqm, tasks)
    known = [statistics.iqm(tasks)]
    if ends is not None:
        known += [*ends]
    return [float(value) for value in known]


def interval_text(estimate: float, ends=None, digits: int = 1) -> str:
    """An estimate and its interval, if it has one."""
    text = f"{estimate:.{digits}f}"
    if ends is None or not len(ends):
        return text
    low, high = ends
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def mean_text(values, digits: int = 1) -> str:
    """Mean ± standard deviation, the mean alone of one value, '-' of none."""
    values = [*values]
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def times_text(by_machine: dict[str, list[float]]) -> str:
    """Times of every machine."""
    texts = [f"{mean_text(values, 2)} ({name})" for name, values in by_machine.items()]
    return "; ".join(texts) or "-"


def settings_text(settings: dict) -> str:
    """Arguments as they would be written, '' of none."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


# ---- names ---------------------------------------------------------------------------------------


def data_of(row: Row) -> tuple[str, str]:
    """Rows that are compared have the same task and data."""
    return row.task, row.dataset["sha256"]


def by_data(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows in groups that may be compared."""
    groups = {}
    for row in rows:
        groups.setdefault(data_of(row), []).append(row)
    return groups


def seeds_folder(run_dir: Path) -> Path:
    """Where a sweep has the seeds of a run's variant."""
    return Path(os.path.abspath(run_dir)).parent


def sweeps_variant(row: Row) -> str:
    """The name that a sweep has given a row, or ''. Runs of other folders may be beside a sweep's
    in it."""
    for run, file in zip(row.runs, row.files, strict=True):
        if sweeps_folder(run) is not None:
            variant = seeds_folder(Path(file).parent).name
            if variant != "default":
                return variant
    return ""


def labels(rows: list[Row]) -> dict[str, str]:
    """{first file of a row: its name on a page}: its method, a sweep's name of its variant and, of
    the settings, those in which rows of one task differ that would else have the same name."""
    names = {}
    for row in rows:
        words = [row.method, sweeps_variant(row)]
        names[row.files[0]] = ", ".join(word for word in words if word)
    telling = {}  # {name: the settings that tell rows of this name apart}
    for same in by_data(rows).values():
        for name in {names[row.files[0]] for row in same}:
            alike = [row.settings for row in same if names[row.files[0]] == name]
            keys = {key for settings in alike for key in settings}
            differing = {key for key in keys if len({str(s.get(key)) for s in alike}) > 1}
            telling.setdefault(name, set()).update(differing)
    found = {}
    for row in rows:
        name = names[row.files[0]]
        told = {key: value for key, value in row.settings.items() if key in telling[name]}
        found[row.files[0]] = f"{name}; {settings_text(told)}" if told else name
    return distinct(rows, found)


def distinct(rows: list[Row], names: dict[str, str]) -> dict[str, str]:
    """The names, with a number where two rows of a task still have the same."""
    found = {}
    for same in by_data(rows).values():
        taken = []
        for row in same:
            name = names[row.files[0]]
            taken.append(name)
            times_taken = taken.count(name)
            found[row.files[0]] = name if times_taken == 1 else f"{name} ({times_taken})"
    return found


def measure_of(rows: list[Row]) -> str:
    """What the rows of a task are compared by: the first of MEASURES that any run knows."""
    for measure in MEASURES:
        if any(row.values(pick, measure) for row in rows for pick in PICKS):
            return measure
    return "normalized_score"


# ---- sections ------------------------------------------------------------------------------------


def score_section(rows: list[Row], names: dict[str, str], pick: str, plans: Plans) -> Section:
    """Mean and standard deviation over the seeds, for each task and evaluation."""
    d4rl = rows[0].d4rl
    columns = [name for name in PICKS if any(run[name] for row in rows for run in row.runs)]
    final = any(final_means(row) for row in rows)
    table = []
    for same in by_data(rows).values():
        measure = measure_of(same)
        digits = 4 if measure == "energy_score" else 1
        about = [] if measure == "normalized_score" else [MEASURES[measure]]
        about += [] if d4rl else [whose(same[0].dataset)]
        task = "\n".join([same[0].task, *about])
        for row in same:
            label = names[row.files[0]]
            notes = [seeds_text(row, plans), *unscored_lines(row, pick, measure)]
            cells = [task, method_text(row, label), "\n".join(notes)]
            cells += [mean_text(row.values(name, measure).values(), digits) for name in columns]
            cells += [final_text(row)] if final else []
            cells += [papers_score(row)] if d4rl else []
            table.append(cells)
    heads = ["task", "method", "seeds", *columns]
    heads += ["final"] if final else []
    heads += ["paper"] if d4rl else []
    note = "Normalized scores, unless a task says otherwise: mean ± standard deviation (divided by "
    note += "n) over the finished seeds of an evaluation. "
    note += "`best` is chosen with the simulator, so it is optimistic."
    if "selected" in columns:
        note += " `selected` is what the baselines' own code picks offline."
    if final:
        note += " `final` is the last policy again, over the episodes of final_scores.json."
        note += uneven_finals(rows, names)
    note += cloning_note(rows)
    return Section("Scores by task", note, [Table(heads, table)])


def uneven_finals(rows: list[Row], names: dict[str, str]) -> str:
    """Which rows average over seeds that have played different numbers of final episodes."""
    uneven = []
    for row in rows:
        counts = [scores.size for scores in row.finals]
        if len(set(counts)) > 1:
            about = f"{row.task}, {names[row.files[0]]}"
            uneven.append(f"{about} ({min(counts)} to {max(counts)})")
    return f" Its seeds differ in the number of episodes: {'; '.join(uneven)}." if uneven else ""


def cloning_note(rows: list[Row]) -> str:
    """Why scripts with a critic are called by the names of cloning, where their task alone makes
    them clone."""
    named = [row for row in rows if row.algorithm != "gtp_bc" and not row.variant]
    unasked = [row for row in named if row.cloning and "eta" not in row.settings]
    if not unasked:
        return ""
    methods = "; ".join(sorted({row.method for row in unasked}))
    tasks = ", ".join(sorted({row.task for row in unasked}))
    return f" {methods}: cloning, because eta is 0 by default on {tasks}; `--eta` changes that."


def method_text(row: Row, name: str) -> str:
    """A row's name, and in small print where it departs from what its script does by itself."""
    text = unsaid_settings(row, name)
    return f"{name}\n{text}" if text and text not in name else name


def unsaid_settings(row: Row, name: str) -> str:
    """Where a row departs from what its script does by itself, but for a number in its name."""
    settings = dict(row.settings)
    if "candidates" in name:
        settings.pop("num_candidates", None)
    return settings_text(settings)


def seeds_text(row: Row, plans: Plans) -> str:
    """The seeds of a row, and in small print those that diverged, that --early-stop ended, that
    the row's sweep has planned and that have no results, or that it has not planned."""
    lines = [", ".join(map(str, row.seeds))]
    stopped = [f"seed {run['seed']}: {early_stop(run)}" for run in row.runs if early_stop(run)]
    missing = missing_seeds(row, plans.absent)
    if row.diverged:
        lines.append(f"diverged: {', '.join(map(str, row.diverged))}")
    if missing:
        lines.append(f"missing: {', '.join(map(str, missing))}")
    for files, seeds in unplanned_seeds(row, plans.unplanned).items():
        lines.append(f"not in {files}: {', '.join(map(str, seeds))}")
    return "\n".join([*lines, *stopped, *uneven_evaluations(row)])


def uneven_evaluations(row: Row) -> list[str]:
    """Small print: which seeds were evaluated how often, where `last` has joined different ones."""
    seeds = {}
    for run in row.runs:
        seeds.setdefault(run["args"].get("eval_freq"), []).append(str(run["seed"]))
    if len(seeds) < 2:
        return []
    texts = [f"eval_freq {every}: {', '.join(own)}" for every, own in seeds.items()]
    return [*texts, "only `last` compares them"]


def unplanned_seeds(row: Row, unplanned: dict[str, str]) -> dict[str, list[int]]:
    """{a sweep's files: the seeds of a row that lie in its folder and that no file has}."""
    found = {}
    for seed, file in zip(row.seeds, row.files, strict=True):
        if file in unplanned:
            found.setdefault(unplanned[file], []).append(seed)
    return found


def unscored(row: Row, pick: str, measure: str) -> list[dict]:
    """The finished runs whose evaluation has no such number; none where a script knows no such
    evaluation (`selected`)."""
    if pick == "selected" and not any(run[pick] for run in row.runs):
        return []
    values = row.values(pick, measure)
    return [run for run in row.finished if run["seed"] not in values]


def unscored_lines(row: Row, pick: str, measure: str) -> list[str]:
    """Small print: the seeds without a number in the picked evaluation, or in another one of which
    the page shows a mean."""
    lines = []
    for name in PICKS:
        seeds = ", ".join(str(run["seed"]) for run in unscored(row, name, measure))
        if seeds and name == pick:
            lines.append(f"no score: {seeds}")
        elif seeds and row.values(name, measure):
            lines.append(f"no score in {name}: {seeds}")
    return lines


def unscored_runs(rows: list[Row], pick: str) -> list[str]:
    """A line for each finished run that its row's scores lack."""
    lines = []
    for same in by_data(rows).values():
        measure = measure_of(same)
        for row in same:
            for run in unscored(row, pick, measure):
                lines.append(f"{run['file']}: no {measure} in its `{pick}` evaluation")
    return lines


def missing_seeds(row: Row, absent: dict) -> list[int]:
    """The seeds of the absent runs that lie beside those of a row."""
    folders = {seeds_folder(Path(file).parent) for file in row.files}
    seeds = {int(run_dir.name) for run_dir in absent if seeds_folder(run_dir) in folders}
    return sorted(seeds - {*row.seeds})


def final_means(row: Row) -> list[float]:
    """The mean of each finished run's final scores."""
    return [float(scores.mean()) for scores in row.finals]


def final_text(row: Row) -> str:
    """Mean and standard deviation of final_means and, in small print, of how many seeds they are
    where others have none."""
    means = final_means(row)
    text = mean_text(means)
    if 0 < len(means) < len(row.seeds):
        text += f"\n{len(means)} of {len(row.seeds)} seeds"
    return text


def methods_scores(rows, names, pick) -> dict[str, dict[tuple, np.ndarray]]:
    """{method: {task and data: normalized scores of its runs}}."""
    found = {name: {} for name in sorted(names.values())}
    for row in rows:
        scores = row.values(pick, "normalized_score")
        if scores:
            found[names[row.files[0]]][data_of(row)] = np.array([*scores.values()])
    return {name: by_task for name, by_task in found.items() if by_task}


def overall_section(rows: list[Row], names: dict[str, str], pick: str) -> Section:
    """Interquartile means, performance profiles and probabilities of improvement."""
    scores = methods_scores(rows, names, pick)
    note = f"Normalized scores of the `{pick}` evaluations; 95 % intervals by a bootstrap over "
    note += "the runs, stratified by task (Agarwal et al. 2021); none where a task has fewer than "
    note += "three runs, which say too little of their spread."
    diverged = sum(len(row.diverged) for row in rows)
    if diverged:
        note += f" {count(diverged, 'diverged run')} left out."
    if not scores:
        note = f"No run has a normalized score in its `{pick}` evaluation."
        return Section("Over tasks", note, [])
    order = sorted(set(names.values()))
    note += uneven_settings(rows, names, pick)
    parts = [iqm_table(scores), profile_picture(scores, order, page_key(rows[0]))]
    pairs = improvement_table(scores)
    if pairs.rows:
        parts.append(pairs)
    return Section("Over tasks", note, parts)


def uneven_settings(rows: list[Row], names: dict[str, str], pick: str) -> str:
    """That a method's settings depart from the defaults on some of its tasks, or on each in another
    way; its numbers over tasks are of all of them."""
    settings = {}
    for row in rows:
        name = names[row.files[0]]
        if row.values(pick, "normalized_score"):
            tasks = settings.setdefault(name, {}).setdefault(unsaid_settings(row, name), set())
            tasks.add(row.task)
    said = []
    for name, by_text in settings.items():
        if len(by_text) > 1:
            departing = [f"{text} on {listed(tasks)}" for text, tasks in by_text.items() if text]
            said.append(f"{name}: {'; '.join(departing)}")
    if not said:
        return ""
    return f" Not of the same settings on all tasks: {'. '.join(sorted(said))}."


def listed(words) -> str:
    """Some words, each once and sorted."""
    return ", ".join(sorted(set(words)))


def common_tasks(scores: dict[str, dict], methods) -> list[tuple]:
    """The tasks that all of some methods have, sorted."""
    return sorted(set.intersection(*(set(scores[name]) for name in methods)))


def largest_comparison(scores: dict[str, dict]) -> tuple[list[tuple], list[str]]:
    """Tasks and the methods that have them all, such that tasks times methods are the most; the
    tasks are those that two methods have in common, or all of one."""
    best = ([], [])
    kinds = {frozenset(by_task) for by_task in scores.values()}
    for tasks in sorted({tuple(sorted(one & other)) for one in kinds for other in kinds}):
        methods = [name for name in scores if set(tasks) <= set(scores[name])]
        if len(tasks) * len(methods) > len(best[0]) * len(best[1]):
            best = (list(tasks), methods)
    return best


def iqm_text(tasks: list[np.ndarray]) -> str:
    """IQM of a method's scores, with its interval."""
    return interval_text(statistics.iqm(tasks), interval(statistics.iqm, tasks))


def iqm_table(scores: dict[str, dict]) -> Table:
    """A row for each method: over its own tasks and, where they differ, over those that most of
    the methods have."""
    compared, methods = largest_comparison(scores)
    uneven = any(len(by_task) != len(compared) for by_task in scores.values())
    table = []
    for name, by_task in scores.items():
        tasks = [*by_task.values()]
        cells = [name, str(len(tasks)), str(sum(map(len, tasks))), iqm_text(tasks)]
        if uneven:
            both = name in methods
            cells.append(iqm_text([by_task[task] for task in compared]) if both else "-")
        table.append(cells)
    heads = ["method", "tasks", "runs", "IQM"]
    note = "IQM: interquartile mean over all runs and tasks; of fewer than four scores, their mean."
    if uneven:
        heads.append("IQM, compared")
        everything = {task for by_task in scores.values() for task in by_task}
        others = everything - set(compared)
        shown = f"all tasks but {task_names(others)}"
        if len(others) > len(compared):
            shown = task_names(compared)
        note += " The methods do not have the same tasks. What may be compared is the last column, "
        note += f"over {shown}."
    return Table(heads, table, note)


def task_names(tasks) -> str:
    """Of tasks with their data, the tasks."""
    return listed(task for task, _ in tasks)


def profile_picture(scores: dict[str, dict], order: list[str], key: str) -> Picture:
    """The share of runs above each score, of the methods and over the tasks compared; `order` has
    the page's methods, which says their colours."""
    compared, methods = largest_comparison(scores)
    figure, axis = new_figure("score τ", "share of runs with a score > τ")
    everything = np.concatenate([scores[name][task] for name in methods for task in compared])
    low = min(0.0, everything.min())
    thresholds = np.linspace(low, max(100.0, everything.max()), 101)

    def profile(tasks):
        return statistics.share_above(tasks, thresholds)

    for name in methods:
        tasks = [scores[name][task] for task in compared]
        band = interval(profile, tasks)
        draw_line(axis, order.index(name), name, thresholds, profile(tasks), band)
    title = f"Performance profile, {count(len(compared), 'task')} compared"
    return Picture(f"profile-{key}", title, svg(figure))


MOST_METHODS = 15  # of which all pairs are shown


def improvement_table(scores: dict[str, dict]) -> Table:
    """A row for each pair of methods, over the tasks that both have; of many methods for the pairs
    with the one of the largest interquartile mean."""
    pairs = list(itertools.combinations(scores, 2))
    note = "P(X > Y): a run of X scores above a run of Y on the same task, mean over the tasks."
    if len(scores) > MOST_METHODS:
        best = max(scores, key=lambda name: statistics.iqm([*scores[name].values()]))
        pairs = [(best, name) for name in scores if name != best]
        note += " Of so many methods only the one with the largest IQM is X."
    table = []
    for name, other in pairs:
        both = common_tasks(scores, (name, other))
        if not both:
            continue
        first = [scores[name][task] for task in both]
        second = [scores[other][task] for task in both]
        estimate = statistics.improvement(first, second)
        ends = interval(statistics.improvement, first, second)
        table.append([name, other, str(len(both)), interval_text(estimate, ends, digits=2)])
    return Table(["X", "Y", "tasks", "P(X > Y)"], table, note, folded=len(table) > MOST_METHODS)


def curves_section(rows: list[Row], names: dict[str, str]) -> Section:
    """A picture for each task: mean and standard deviation over the finished seeds."""
    parts = []
    absent = []
    order = sorted(set(names.values()))  # a method has one colour on all pictures
    for (task, sha256), same in by_data(rows).items():
        measure = measure_of(same)
        figure, axis = new_figure("updates", MEASURES[measure])
        for row in same:
            name = names[row.files[0]]
            if not draw_curve(axis, order.index(name), name, row, measure) and row.finished:
                absent.append(f"{name} on {task}")
        if axis.lines:
            title = task if row.d4rl else f"{task}, data {Path(row.dataset['path']).name}"
            name = "".join(c if c.isalnum() or c in ".-" else "_" for c in task)
            parts.append(Picture(f"curves-{name}-{sha256[:8]}", title, svg(figure)))
    note = "Mean and standard deviation over the finished seeds that have a score, where all of "
    note += "them were evaluated."
    if absent:
        note += f" Without an evaluation in common, so without a curve: {', '.join(absent)}."
    return Section("Learning curves", note, parts)


PULLS = (1, 8, 25, 50, 100, 200)  # columns of the table of tuning online


def bandit_section(rows: list[Row]) -> Section:
    """What choosing among a method's policies online costs, for each task; no parts without at
    least two policies that have final_scores.json. Of normalized scores alone, which UCB's bonus
    is for."""
    parts = []
    table = []
    for (task, sha256), same in by_data(rows).items():
        policies = {}
        for row in same:
            policies.setdefault(row.method, []).extend(row.finals)
        policies = {name: known for name, known in policies.items() if len(known) > 1}
        if not policies or measure_of(same) != "normalized_score":
            continue
        figure, axis = new_figure("episodes played online", "true mean of the chosen policy")
        axis.set_xscale("log")
        for position, (name, known) in enumerate(policies.items()):
            found = statistics.bandit(known)
            mean = found.mean(0)
            pulls = np.arange(1, len(mean) + 1)
            draw_line(axis, position, name, pulls, mean, statistics.mean_interval(found))
            best = max(float(scores.mean()) for scores in known)
            cells = [f"{mean[pull - 1]:.1f}" for pull in PULLS]
            table.append([task, name, str(len(known)), *cells, f"{best:.1f}"])
        name = "".join(c if c.isalnum() or c in ".-" else "_" for c in task)
        parts.append(Picture(f"bandit-{name}-{sha256[:8]}", task, svg(figure)))
    note = "Score of the policy that looks best after so many episodes, where UCB chooses who "
    note += "plays the next one: 8 of a method's policies (its seeds and settings), or all of "
    note += "fewer, drawn 500 times; episodes from final_scores.json (Jackson et al. 2025)."
    heads = ["task", "method", "policies", *map(str, PULLS), "best policy"]
    if not table:
        return Section("Tuning online", "", [])
    return Section("Tuning online", note, [Table(heads, table), *parts])


def time_section(rows: list[Row]) -> Section:
    """Hours or minutes of a run on each machine."""
    longest = max(number(run.get("seconds")) or 0.0 for row in rows for run in row.runs)
    unit, word = (3600, "hours") if longest >= 3600 else (60, "minutes")
    names = labels(rows)
    table = []
    for row in rows:
        training = times(row.finished, "seconds", unit=unit)
        whole = times(row.finished, "seconds", "evaluation_seconds", unit=unit)
        for where, values in training.items():
            cells = [mean_text(values), mean_text(whole.get(where, []))]
            cells.append(mean_text(row.ms.get(where, []), 2))
            table.append([row.task, names[row.files[0]], str(len(values)), *cells, where])
    heads = ["task", "method", "runs", "training", "with evaluations", "ms per action", "machine"]
    note = f"{word.capitalize()} of a finished run, mean ± standard deviation over the seeds."
    return Section("Time per run", note, [Table(heads, table)])


def versions_section(rows: list[Row]) -> Section:
    """What the runs ran on: a line for each different set of versions."""
    counts = {}
    libraries = sorted({name for row in rows for run in row.runs for name in run["versions"]})
    for row in rows:
        for run in row.runs:
            versions = [str(run["versions"].get(name, "-")) for name in libraries]
            commit = str(run.get("commit") or "-")[:10]
            digest = str(run.get("script_sha256") or "-")[:10]
            key = (f"{row.algorithm}.py", digest, commit, *versions)
            counts[key] = counts.get(key, 0) + 1
    table = [[*key, str(count)] for key, count in sorted(counts.items())]
    heads = ["script", "its SHA-256", "commit", *libraries, "runs"]
    return Section("Versions", "", [Table(heads, table)])


def runs_section(rows: list[Row], names: dict[str, str]) -> Section:
    """Every run with its command."""
    table = []
    for row in rows:
        measure = measure_of([row])
        for run in row.runs:
            value = number(run["last"].get(measure))
            last = "-" if value is None else f"{value:.4g}"
            status = "\n".join(filter(None, [run["status"], early_stop(run)]))
            cells = [names[row.files[0]], str(run["seed"]), status, last]
            table.append([row.task, *cells, "\n".join([*commands(run), run["file"]])])
    heads = ["task", "method", "seed", "status", "last", "command, file"]
    return Section("Runs and commands", "", [Table(heads, table, folded=True)])


def commands(run: dict) -> list[str]:
    """What began a run and, where a resume has given it another end, which."""
    begun = f"`{run.get('command', '-')}`"
    total = number(run.get("num_updates"))
    asked = re.search(r"--num[-_]updates[ =](\d[\d_]*)", begun)
    # An ablation or a person's program has its own number
    own = f"{run['algorithm']}.py" in begun and not run["variant"]
    if total is None or not own:
        return [begun]
    literal = run["args"].get("literal") is True
    usual = defaults(run["algorithm"], run["env_id"], literal)["num_updates"]
    if total == (int(asked[1]) if asked else usual):
        return [begun]
    return [begun, f"resumed with `--num-updates {total:.0f}`"]


def draw_curve(axis, position: int, name: str, row: Row, measure: str) -> bool:
    """A row's mean and standard deviation, at the updates that all its finished runs have that have
    a score at all -> whether there are such."""
    runs = []
    for evaluations in row.evaluations:
        scores = numbers((e["update"], e.get(measure)) for e in evaluations)
        if scores:
            runs.append(scores)
    updates = sorted(set.intersection(*map(set, runs))) if runs else []
    if not updates:
        return False
    values = np.array([[run[update] for update in updates] for run in runs])
    mean = values.mean(0)
    std = values.std(0)
    draw_line(axis, position, name, updates, mean, (mean - std, mean + std))
    return True


# ---- pages ---------------------------------------------------------------------------------------


PAGES = {
    "d4rl": "D4RL's own files",
    "other": "Other data",
    "minari": "Minari",
    "ogbench": "OGBench",
}


def page_key(row: Row) -> str:
    """The page of a row, in links: scores of different benchmarks do not share one."""
    key = offline_tasks.benchmark(row.task).lower()
    if row.d4rl or key in ("minari", "ogbench"):
        return key
    return "other"


def score_page(rows: list[Row], pick: str, plans: Plans) -> Page:
    """All about the runs on D4RL's own files, on Minari's, on OGBench's, or about all others."""
    d4rl = rows[0].d4rl
    key = page_key(rows[0])
    names = labels(rows)
    runs = sum(len(row.runs) for row in rows)
    tasks = len(by_data(rows))
    lead = f"{count(runs, 'run')} of {count(len(set(names.values())), 'method')} on "
    lead += f"{count(tasks, 'task')}. "
    if d4rl:
        lead += "Each file has the SHA-256 that D4RL's has; the paper's numbers stand beside."
    else:
        lead += "No file here has the SHA-256 of its task's D4RL file: no number is a D4RL score, "
        lead += "and none can be compared with the paper's."
    sections = [
        score_section(rows, names, pick, plans),
        overall_section(rows, names, pick),
        curves_section(rows, names),
        bandit_section(rows),
        time_section(rows),
        versions_section(rows),
        runs_section(rows, names),
    ]
    return Page(key, PAGES[key], lead, [part for part in sections if part.parts or part.note])


def unended_line(results: dict) -> str:
    """A run that has not ended, how far it is, and how to go on."""
    status = results["status"]
    if status == "running" and time.time() - (number(results.get("updated")) or 0) > 300:
        status = "running, but not heard of for five minutes"
    done = f"update {results.get('update', '?')} of {results.get('num_updates', '?')}"
    line = f"{results['file']}: {status}, {done}"
    if status == "running":
        return line
    return f"{line}\n{way_on(results)}"


def way_on(results: dict) -> str:
    """What brings a run that has not ended to its end: an ablation goes on by its own command, and
    without a checkpoint there is nothing to go on from."""
    folder = Path(results["file"]).parent
    command = results.get("command")
    begun = f"`{command}`" if command else "by the command that began it"
    if not any(folder.glob("checkpoint*.pt")):
        return f"no checkpoint, start again: {begun}"
    if results["variant"]:
        return f"go on: {begun}"
    return f"`python {results['algorithm']}.py --resume {shlex.quote(str(folder))}`"


def missing_page(
    complaints: list[str], unended: list[dict], absent: dict[Path, str], without_score: list[str]
) -> Page:
    """All that the other pages lack."""
    parts = {
        "Not ended": [unended_line(results) for results in unended],
        "Planned, without results": [f"{run_dir}: {state}" for run_dir, state in absent.items()],
        "Finished, without a score": without_score,
        "Cannot be used, or repeated": complaints,
    }
    sections = []
    for title, lines in parts.items():
        if lines:
            sections.append(Section(title, "", [Table(["what"], [[line] for line in lines])]))
    total = sum(map(len, parts.values()))
    lead = "Nothing is missing."
    if total:
        what = "1 file or run is" if total == 1 else f"{total} files or runs are"
        lead = f"{what} in none of the scores."
    return Page("missing", "Left out", lead, sections)


# ---- files ---------------------------------------------------------------------------------------


def make_pages(dirs, pick: str) -> list[Page]:
    """The pages of the runs in some folders: those of PAGES, what is left out."""
    complaints = []

    def complain(line):
        complaints.append(line)
        warn(line)

    runs = load(dirs, complain)
    sweeps = find_sweeps(dirs, runs, complain)
    plans = Plans(absent_runs(sweeps), unplanned_runs(sweeps, runs))
    rows, unended = group(runs, pick, complain)
    pages = []
    for key in PAGES:
        own = [row for row in rows if page_key(row) == key]
        if own:
            pages.append(score_page(own, pick, plans))
    return [*pages, missing_page(complaints, unended, plans.absent, unscored_runs(rows, pick))]


def is_report(file: Path, start: str) -> bool:
    """Whether a file is one of an earlier report, to be replaced by a newer."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return text.startswith(start) and ("<title>Report</title>" in text or file.suffix == ".md")


def check_out(out: Path) -> None:
    """ValueError where a folder or a file stands in the way of the other."""
    for folder in (out, out / "figures"):
        if folder.exists() and not folder.is_dir():
            raise ValueError(
                f"--out {out} is no folder to write to: {folder} is a file; name another"
            )
    for file, start in ((out / "report.md", "# Report"), (out / "index.html", "<!doctype html>")):
        if file.is_dir():
            raise ValueError(
                f"--out {out} is no folder to write to: {file} is a folder; name another"
            )
        if file.exists() and not is_report(file, start):
            raise ValueError(f"--out {out} has a {file.name} that is no report; name another")


def report(options: Arguments) -> None:
    """Write report.md, index.html and figures/."""
    if not options.dirs:
        raise ArgumentError("no DIR is given; name folders of runs, such as runs")
    check_out(Path(options.out))
    pages = make_pages(options.dirs, options.pick)
    words = [*options.dirs, "--out", options.out, "--pick", options.pick]
    command = shlex.join(["python", "report.py", *words])
    out = Path(options.out)
    try:
        write_report(pages, command, out)
    except OSError as error:
        where = error.filename or out  # a full disk has no name
        raise ValueError(
            f"--out {out}: {where} cannot be written ({error.strerror}); name another"
        ) from error
    print(f"{out / 'report.md'}, {out / 'index.html'}: {pages[-1].lead}")


def write_report(pages: list[Page], command: str, out: Path) -> None:
    """The pages and the pictures on them, as files."""
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for page in pages:
        for section in page.sections:
            for part in section.parts:
                if isinstance(part, Picture):
                    (figures / f"{part.name}.svg").write_bytes(part.svg)
    how = {"encoding": "utf-8", "errors": "backslashreplace"}  # of a name's bytes that are no text
    (out / "report.md").write_text(markdown(pages, command), **how)
    (out / "index.html").write_text(html_document(pages, command), **how)


def main(argv=None) -> int:
    """Parse the options and write the report -> exit code, see above."""
    offline_tasks.take_any_letter()
    first, examples, *_ = __doc__.split("\n\n")  # tyro would double empty lines and wrap nothing
    options = tyro.cli(Arguments, args=argv, description=f"{first}\n{examples}")
    try:
        report(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    except KeyboardInterrupt:
        return 128 + SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
