"""Tables 1, 2, 3, 5, 6 and 7 and learning curves, from the results.json files of runs.

    python ablations/tables.py                        # every results.json below runs/
    python ablations/tables.py FOLDER FILE --pick best --out tables.md --curves
    python ablations/tables.py --quick                # two tiny runs of gtp_offline.py, tabulated

A row is one group of runs: the same script, variant, task, data (by SHA-256) and arguments; only
the seed and the machine may differ. Other runs are other rows, and `settings` says where a row
departs from what its script does by itself for the task. Scores are mean ± standard deviation over
the seeds, and the interquartile mean with a 95 % bootstrap interval (Agarwal et al. 2021, package
rliable). A run counts as D4RL only if its file has the SHA-256 published for its task; all others
stand in a table of their own data, without the paper's numbers.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import paper
import tyro
from experiment import gtp_offline, main, mean_std, new_figure, style

import offline_tasks

# script: its name with eta = 0 (Table 1), otherwise (Tables 2 and 5), in Table 6
METHODS = {
    "gtp_offline": ("GTP-BC", "GTP", "GTP"),
    "gtp_bc": ("GTP-BC", "GTP-BC", "GTP"),
    "diffusion_ql": ("D-BC", "D-QL", "Diffusion"),
    "consistency_ac": ("C-BC", "C-AC", "Consistency"),
}


@dataclass(frozen=True)
class Table:
    """A table of the paper: what to print, the paper's numbers, and the setting that a row's
    method already says."""

    title: str
    columns: tuple[str, ...]
    printed: dict
    said: str = ""


SCORES = ("task", "method", "score", "IQM", "seeds", "paper", "settings")
HOURS = ("method", "hours", "score", "IQM", "seeds", "paper: hours", "paper", "settings")
TABLES = {
    1: Table(
        "behaviour cloning (eta = 0)", SCORES, paper.TABLE_1 | paper.TABLE_1_AVERAGES, said="eta"
    ),
    2: Table("offline RL", SCORES, paper.TABLE_2 | paper.TABLE_2_AVERAGES),
    3: Table("hopper-medium-expert-v2", HOURS, paper.TABLE_3),
    5: Table(
        "steps of the sampler", SCORES, paper.TABLE_5 | paper.TABLE_5_AVERAGES, said="num_steps"
    ),
    6: Table(
        "halfcheetah-medium-expert-v2",
        ("method", "ms per action", "seeds", "paper", "settings"),
        paper.TABLE_6,
        said="num_steps",
    ),
    7: Table(
        "hopper-medium-expert-v2, teacher-free",
        ("method", "hours", "score", "IQM", "seeds", "paper", "settings"),
        paper.TABLE_7,
    ),
}
STRUCTURAL = (3, 7)  # tables of variants, beside GTP itself
OTHER = (
    "task",
    "method",
    "score",
    "IQM",
    "energy score",
    "hours",
    "ms per action",
    "seeds",
    "settings",
)
TASKS = [task for suite in paper.SUITES.values() for task in suite.values()]
# Arguments that leave what is learnt as it is. eval_freq is added where `last` is picked: the
# evaluations have random numbers of their own, but `best` is a maximum over them.
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
    "checkpoint_freq",
    "log_freq",
}


@dataclass
class Arguments:
    """The paper's tables from results.json files."""

    results: tyro.conf.Positional[tuple[str, ...]] = ("runs",)  # results.json files, or folders
    pick: Literal["last", "best"] = "last"  # evaluation of a run; best is optimistic
    out: str = ""  # Markdown file to write, and tables.json beside it; empty: only print
    curves: bool = False  # draw curves__*.png, beside --out or else in runs/tables
    quick: bool = False  # train two tiny runs in a temporary folder and tabulate them


# ---- runs --------------------------------------------------------------------------------------


def number(value) -> float | None:
    """A finite number, else None: results.json has null for NaN and the text inf for infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


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
}


def read(path: Path) -> dict:
    """One results.json with its own path as `file`; ValueError for what is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("no table of keys and values")
        known = {key: value for key, value in content.items() if value is not None}
        results = DEFAULTS | known | {"file": str(path)}
        check(results)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{path} is left out, no results of a run ({reason})") from None
    return results


def check(results: dict) -> None:
    """TypeError, ValueError or KeyError unless all that is used here is there."""
    for key, kind in KINDS.items():
        if not isinstance(results[key], kind):
            raise TypeError(f"{key} is {results[key]}")
    if results["algorithm"] not in METHODS:
        raise ValueError(f"algorithm is {results['algorithm']}")
    for key in ("path", "sha256"):
        if not isinstance(results["dataset"][key], str):
            raise TypeError(f"dataset is {results['dataset']}")
    for row in results["evaluations"]:
        if not isinstance(row["update"], int):
            raise TypeError(f"evaluations has {row}")


def load(paths) -> list[dict]:
    """The results of files and of folders, searched recursively; a warning for each bad one."""
    files = {}  # each once
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path} does not exist; name results.json files or folders of runs")
        found = sorted(path.rglob("results.json")) if path.is_dir() else [path]
        files |= {file.resolve(): file for file in found}
    runs = []
    for file in files.values():
        try:
            runs.append(read(file))
        except ValueError as error:
            print(f"warning: {error}", file=sys.stderr)
    if not runs:
        given = ", ".join(map(str, paths))
        raise ValueError(f"no usable results.json in {given}; name folders of runs, or train first")
    return runs


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
    return {key: "inf" if value == math.inf else value for key, value in asdict(args).items()}


def departures(results: dict, ignored: set[str]) -> dict:
    """{argument: value} wherever a run differs from its script's defaults for the task."""
    args = import_module(results["algorithm"]).OLDER | results["args"]
    literal = args.get("literal") is True
    usual = defaults(results["algorithm"], results["env_id"], literal)
    changed = {"literal": True} if literal else {}
    for name in sorted({*args, *usual} - ignored):
        value = args.get(name, "absent")
        if value != usual.get(name, "absent"):
            changed[name] = value
    return changed


def times(runs: list[dict], key: str, unit: float = 1) -> dict[str, list[float]]:
    """{machine: values / unit}: times of different machines are not averaged."""
    found = {}
    for results in runs:
        value = number(results.get(key))
        if value is not None:
            found.setdefault(machine(results), []).append(value / unit)
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


# ---- rows --------------------------------------------------------------------------------------


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


def group(runs: list[dict], pick: str) -> tuple[list[Row], list[dict]]:
    """Rows of the finished and diverged runs, and the runs that have not ended."""
    ignored = IGNORED | {"eval_freq"} if pick == "last" else IGNORED
    groups = {}
    unended = []
    for results in sorted(runs, key=age):
        if results["status"] not in ("finished", "diverged"):
            unended.append(results)
            continue
        seeds = groups.setdefault(identity(results, ignored), {})
        seed = results["seed"]
        if seed in seeds:
            older = seeds[seed]["file"]
            print(f"warning: {older} is left out, {results['file']} repeats it", file=sys.stderr)
        seeds[seed] = results
    rows = []
    for seeds in groups.values():
        rows.append(summary([seeds[seed] for seed in sorted(seeds)], pick, ignored))
    return sorted(rows, key=place), unended


def age(results: dict) -> tuple[float, str]:
    """By which the newest run of a seed is found."""
    file = results["file"]
    return Path(file).stat().st_mtime, file


def identity(results: dict, ignored: set[str]) -> str:
    """Equal for runs that differ in the seed and the machine alone."""
    args = {name: value for name, value in results["args"].items() if name not in ignored}
    same = [results[key] for key in ("algorithm", "env_id", "variant")]
    same += [results["dataset"]["sha256"], args]
    return json.dumps(same, sort_keys=True)


def place(row: Row) -> tuple:
    """By which rows are sorted: the paper's tasks first, the fewest settings first."""
    rank = TASKS.index(row.task) if row.task in TASKS else len(TASKS)
    return rank, row.task, row.method, len(row.settings), str(row.settings)


def summary(runs: list[dict], pick: str, ignored: set[str]) -> Row:
    """The row of a group."""
    first = runs[0]
    args = first["args"]
    dataset = first["dataset"]
    ended = [results for results in runs if results["status"] == "finished"]
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
        settings=departures(first, ignored),
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


# ---- the paper's tables ------------------------------------------------------------------------


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


@functools.cache
def rliable() -> tuple:
    """rliable's library and metrics and no note, or None, None and a note that says why."""
    try:
        from rliable import library, metrics
    except Exception as error:  # with pandas 3, a TypeError of a package that it needs
        why = " ".join(str(error).split())[:100]
        return None, None, f"no IQM, rliable cannot be used ({why}): pip install rliable 'pandas<3'"
    return library, metrics, ""


def iqm(scores: list[list[float]]) -> list[float] | None:
    """[IQM, low, high] of scores (seeds, tasks), a 95 % interval by a bootstrap over the seeds of
    each task; None for fewer than two seeds or without rliable."""
    library, metrics, trouble = rliable() if len(scores) > 1 else (None, None, "one seed")
    if trouble:
        return None
    with warnings.catch_warnings():  # of rliable's own calls
        warnings.simplefilter("ignore", FutureWarning)
        point, interval = library.get_interval_estimates(
            {"": np.array(scores)},
            metrics.aggregate_iqm,
            reps=2000,
            random_state=np.random.RandomState(0),
        )
    return [float(x) for x in (point[""], *interval[""].ravel())]


def mean_text(values, digits: int = 1) -> str:
    """Mean ± standard deviation, the mean alone of one value, '-' of none."""
    if not values:
        return "-"
    mean, std = mean_std(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def times_text(by_machine: dict[str, list[float]]) -> str:
    """Times of every machine."""
    texts = [f"{mean_text(values, 2)} ({name})" for name, values in by_machine.items()]
    return "; ".join(texts) or "-"


def score_text(row: Row) -> str:
    """The score, and how many seeds have none because they diverged."""
    text = mean_text(row.scores.values())
    if row.diverged:
        text += f" ({len(row.diverged)} of {len(row.seeds)} diverged)"
    return text


def cells(row: Row, number: int = 0, name: str = "") -> dict[str, str]:
    """{column: text} of a row; in a table of the paper, beside the paper's row of that name."""
    table = TABLES.get(number, Table("", OTHER, {}))
    method = row.method
    said = {table.said, "num_candidates" if "candidates" in method else ""}
    settings = [f"{k}={v}" for k, v in row.settings.items() if k not in said]
    if number in STRUCTURAL and not row.variant:
        method += " (gtp_offline.py)"  # beside the variant of the same name
    if table.said == "num_steps":
        method += f" (T = {row.num_steps})"
    texts = {
        "task": f"average, {row.task}" if row.task in paper.SUITES else row.task,
        "method": method,
        "score": score_text(row),
        "hours": times_text(row.hours),
        "ms per action": times_text(row.ms),
        "IQM": "{:.1f} [{:.1f}, {:.1f}]".format(*row.iqm) if row.iqm else "-",
        "energy score": mean_text(row.energy_scores.values(), 4),
        "seeds": ", ".join(map(str, row.seeds)) or "-",
        "paper": table.printed.get(row.task, table.printed).get(name, "-"),
        "paper: hours": paper.TABLE_3_HOURS.get(name, "-"),
        "settings": ", ".join(settings) or "defaults",
    }
    if row.diverged and len(row.diverged) == len(row.seeds):  # as in the paper's Table 3
        texts["hours"] = "Diverged"
        texts["score"] = "-" if number == 3 else "Diverged"
    return texts


def averages(placed: list[tuple[Row, str]], number: int) -> list[tuple[Row, str]]:
    """Rows of the average over every suite of which a method has all tasks, at equal settings."""
    methods = {}
    for row, name in placed:
        text = cells(row, number)
        if row.scores and not row.diverged:
            key = (text["method"], text["settings"], name)
            methods.setdefault(key, {})[row.task] = row
    found = []
    for suite, tasks in paper.SUITES.items():
        for (*_, name), by_task in methods.items():
            if by_task.keys() >= {*tasks.values()}:
                rows = [by_task[task] for task in tasks.values()]
                found.append((average(suite, rows), name))
    return found


def average(suite: str, rows: list[Row]) -> Row:
    """The mean of a method's scores over the tasks of a suite."""
    means = [np.mean([*row.scores.values()]) for row in rows]
    seeds = sorted(set.intersection(*(set(row.scores) for row in rows)))
    matrix = [[row.scores[seed] for row in rows] for seed in seeds]  # a bootstrap takes full rows
    return replace(
        rows[0],
        task=suite,
        scores={"mean": float(np.mean(means))},
        seeds=seeds,
        iqm=iqm(matrix),
    )


# ---- the document ------------------------------------------------------------------------------


def markdown(title: str, columns: tuple[str, ...], rows: list[dict[str, str]]) -> list[str]:
    """Lines of a heading and a table."""
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in rows:
        texts = [row[column].replace("|", "\\|") for column in columns]
        lines.append(f"| {' | '.join(texts)} |")
    return [*lines, ""]


def document(rows: list[Row], unended: list[dict], pick: str) -> str:
    """All tables as Markdown; every row stands in one at least."""
    lines = []
    missing = []
    shown = set()
    for number, table in TABLES.items():
        placed = [(row, places(row)[number]) for row in rows if number in places(row)]
        alone = number in STRUCTURAL and not any(row.variant for row, _ in placed)
        if not placed or alone:  # GTP alone compares nothing
            missing.append(str(number))
            continue
        shown |= {row.files[0] for row, _ in placed}
        if table.columns == SCORES:
            placed += averages(placed, number)
        texts = [cells(row, number, name) for row, name in placed]
        lines += markdown(f"Table {number}: {table.title}", table.columns, texts)
    lines += other_tables([row for row in rows if row.files[0] not in shown])
    lines += notes(rows, pick)
    if missing:
        lines.append(f"- no runs for Table {', '.join(missing)}")
    for results in unended:
        done = f"update {results.get('update', '?')} of {results.get('num_updates', '?')}"
        state = f"{results['status']}, {done}"
        lines.append(f"- left out, not ended: {results['file']} ({state})")
    return "\n".join(lines)


def other_tables(rows: list[Row]) -> list[str]:
    """Lines of a table for each dataset."""
    tasks = {published(task): task for task in offline_tasks.DATASETS if published(task)}
    by_data = {}
    for row in rows:
        by_data.setdefault(row.dataset["sha256"], []).append(row)
    lines = []
    for sha256, same in by_data.items():
        whose = f"D4RL's {tasks[sha256]}" if sha256 in tasks else "not D4RL's"
        name = Path(same[0].dataset["path"]).name
        title = f"Other runs on {name} ({whose}, SHA-256 {sha256[:12]})"
        lines += markdown(title, OTHER, [cells(row) for row in same])
    return lines


def notes(rows: list[Row], pick: str) -> list[str]:
    """How to read the tables."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    trouble = ""
    if any(len(row.scores) > 1 for row in rows):
        trouble = rliable()[-1]
    iqm_note = "IQM: interquartile mean over seeds (and tasks), [95 % bootstrap interval]"
    return [
        f"- `{pick}` evaluation of each run; mean ± standard deviation (divided by n) over the "
        f"seeds that the row names; {len(seeds)} in all: {', '.join(map(str, seeds))}",
        f"- {trouble or iqm_note}",
        "- settings: where a row departs from what its script does by itself for the task",
    ]


# ---- pictures, files ---------------------------------------------------------------------------


def draw_curves(rows: list[Row], folder: Path) -> list[Path]:
    """One PNG for each task and data: mean and standard deviation over the finished seeds of the
    normalized score, or where nothing has one of the energy score, a line for each row."""
    pictures = {}
    for row in rows:
        pictures.setdefault((row.task, row.dataset["sha256"]), []).append(row)
    paths = []
    for (task, sha256), same in pictures.items():
        scored = any(row.scores for row in same)
        key = "normalized_score" if scored else "energy_score"
        figure = new_figure(7, 4.2)
        axis = figure.subplots()
        for row in same:
            draw_curve(axis, row, key)
        if not axis.lines:  # nothing finished
            continue
        data = Path(same[0].dataset["path"]).name
        axis.set(xlabel="updates", ylabel=key.replace("_", " "), title=f"{task}, data {data}")
        style(axis)
        name = "".join(c if c.isalnum() or c in ".-" else "_" for c in task)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"curves__{name}__{sha256[:8]}.png"
        figure.savefig(path)
        paths.append(path)
    return paths


def draw_curve(axis, row: Row, key: str) -> None:
    """A row's line, at the updates that all its runs have."""
    runs = []
    for evaluations in row.evaluations:
        runs.append(numbers((e["update"], e.get(key)) for e in evaluations))
    if not runs:
        return
    updates = sorted(set.intersection(*map(set, runs)))
    if not updates:
        return
    values = np.array([[run[update] for update in updates] for run in runs])
    mean = values.mean(0)
    std = values.std(0)
    text = cells(row)
    label = f"{text['method']}, seeds {text['seeds']}; {text['settings']}"
    (line,) = axis.plot(updates, mean, marker=".", label=label[:90])
    axis.fill_between(updates, mean - std, mean + std, color=line.get_color(), alpha=0.15, lw=0)


def tiny_runs(folder: Path) -> None:
    """Two seeds of 60 updates of gtp_offline.py on random data."""
    rng = np.random.default_rng(0)
    file = folder / "random.npz"
    np.savez(
        file,
        observations=rng.uniform(-1, 1, (400, 2)),
        actions=rng.uniform(-1, 1, (400, 2)),
        rewards=rng.uniform(size=400),
        terminals=np.arange(400) % 10 == 9,
    )
    usual = gtp_offline.default_args(env_id="multigoal-v0", dataset_path=str(file), device="cpu")
    for seed in range(2):
        args = replace(
            usual,
            seed=seed,
            run_dir=str(folder / str(seed)),
            num_updates=60,
            eval_freq=20,
            num_eval_episodes=20,
            hidden_dim=16,
            batch_size=32,
            tensorboard=False,
        )
        gtp_offline.train(args)


def read_rows(options: Arguments) -> tuple[list[Row], list[dict]]:
    """Rows and unended runs of what the options name, or of two runs trained on the spot."""
    if not options.quick:
        return group(load(options.results), options.pick)
    with tempfile.TemporaryDirectory() as folder:
        tiny_runs(Path(folder))
        return group(load([folder]), options.pick)


def write(out: Path, text: str, rows: list[Row], unended: list[dict], pick: str) -> None:
    """The Markdown file and tables.json."""
    plain = []
    for row in rows:
        content = asdict(row) | {"tables": [*places(row)]}
        del content["evaluations"]
        plain.append(content)
    files = [results["file"] for results in unended]
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"pick": pick, "unended": files, "rows": plain}
    gtp_offline.write_json(out.with_name("tables.json"), about)
    gtp_offline.write_file(out, f"{text}\n".encode())
    print(f"{out}, {out.with_name('tables.json')}")


def run(options: Arguments) -> None:
    """Read the runs; print, write and draw what the options ask for."""
    rows, unended = read_rows(options)
    if not rows:
        files = ", ".join(results["file"] for results in unended)
        raise ValueError(f"no run has ended; go on with --resume RUN_DIR: {files}")
    text = document(rows, unended, options.pick)
    print(text)
    out = Path(options.out or "runs/tables/tables.md")
    if options.out:
        write(out, text, rows, unended, options.pick)
    if options.curves:
        for path in draw_curves(rows, out.parent):
            print(path)


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
