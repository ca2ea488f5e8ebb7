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
from experiment import d4rl_tasks, gtp_offline, main, mean_std

METHODS = {  # script: its name with eta = 0 (Table 1), otherwise (Tables 2 and 5), in Table 6
    "gtp_offline": ("GTP-BC", "GTP", "GTP"), "diffusion_ql": ("D-BC", "D-QL", "Diffusion"),
    "gtp_bc": ("GTP-BC", "GTP-BC", "GTP"), "consistency_ac": ("C-BC", "C-AC", "Consistency"),
}  # fmt: skip
# Titles of variants in the scripts beside this one: the paper's row where it has another name, and
# how those begin that belong to Table 3, 5 or 7 under a name of their own
VARIANTS = {"score approximation": "GTP", "Heun, 3 steps": "ODE solver"}
BEGINNINGS = {
    3: ("score approximation", "Euler", "Heun", "linear Q"),
    5: ("trained with K = ",),
    7: ("Shortcut", "MeanFlow", "Eq. 31", "non-singular", "GTP, "),
}
SCORES = ["task", "method", "score", "IQM", "seeds", "paper", "settings"]
HOURS = ["method", "hours", "score", "IQM", "seeds", "paper", "settings"]
TIMES = ["method", "ms per action", "seeds", "paper", "settings"]
OTHER = [*SCORES[:4], "energy score", "hours", "ms per action", "seeds", "settings"]
TABLES = {  # title, columns, the paper's numbers
    1: ("behaviour cloning (eta = 0)", SCORES, paper.TABLE_1 | paper.TABLE_1_AVERAGES),
    2: ("offline RL", SCORES, paper.TABLE_2 | paper.TABLE_2_AVERAGES),
    3: ("hopper-medium-expert-v2", [*HOURS[:5], "paper: hours", *HOURS[5:]], paper.TABLE_3),
    5: ("steps of the sampler", SCORES, paper.TABLE_5 | paper.TABLE_5_AVERAGES),
    6: ("halfcheetah-medium-expert-v2", TIMES, paper.TABLE_6),
    7: ("hopper-medium-expert-v2, teacher-free", HOURS, paper.TABLE_7),
}
SAID = {1: "eta", 5: "num_steps", 6: "num_steps"}  # the setting that the rest of a row says
TASKS = [task for suite in paper.SUITES.values() for task in suite.values()]
# Arguments that leave what is learnt as it is. eval_freq is added where `last` is picked: the
# evaluations have random numbers of their own, but `best` is a maximum over them.
IGNORED = {"env_id", "dataset_path", "run_dir", "resume", "eval_only", "capture_video", "seed",
    "device", "num_threads", "compile", "cuda_graphs", "tensorboard", "checkpoint_freq",
    "log_freq"}  # fmt: skip


@dataclass
class Arguments:
    """The paper's tables from results.json files."""

    results: tyro.conf.Positional[tuple[str, ...]] = ("runs",)  # results.json files, or folders
    pick: Literal["last", "best"] = "last"  # evaluation of a run; best is optimistic
    out: str | None = None  # Markdown file to write, and tables.json beside it [only print]
    curves: bool = False  # draw curves__*.png, beside --out [in runs/tables]
    quick: bool = False  # train two tiny runs in a temporary folder and tabulate them


# ---- runs --------------------------------------------------------------------------------------


def number(value) -> float | None:
    """A finite number, else None: results.json has null for NaN and the text inf for infinity."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None


def numbers(pairs) -> dict:
    """{key: number} of the pairs (key, value) whose value is a finite number."""
    return {k: number(value) for k, value in pairs if number(value) is not None}


CHECKS = {  # key of results.json: whether its value can be used
    "algorithm": lambda v: v in METHODS,
    "dataset": lambda v: isinstance(v["path"], str) and isinstance(v["sha256"], str),
    "evaluations": lambda v: all(isinstance(row["update"], int) for row in v),
    "seed": lambda v: isinstance(v, int),
    "status": lambda v: isinstance(v, str),
    "args": lambda v: isinstance(v, dict),
} | {
    key: lambda v, kind=kind: isinstance(v, kind | None)
    for key, kind in {"env_id": str, "variant": str, "last": dict, "best": dict}.items()
}


def read(path: Path) -> dict:
    """One results.json with its own path as `file`; ValueError for what is not one."""
    key = "text"
    try:
        results = dict.fromkeys(CHECKS) | json.loads(path.read_text(encoding="utf-8"))
        for key, usable in CHECKS.items():
            if not usable(results[key]):
                raise ValueError(f"not {results[key]}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(f"{key}: {error}".split())[:150]
        raise ValueError(f"{path} is left out, no results of a run ({reason})") from None
    return results | {"file": str(path)}


def load(paths) -> list[dict]:
    """The results of files and of folders, searched recursively; a warning for each bad one."""
    files, runs = {}, []
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"{path} does not exist; name results.json files or folders of runs")
        found = sorted(path.rglob("results.json")) if path.is_dir() else [path]
        files |= {file.resolve(): file for file in found}  # each once
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
def defaults(algorithm: str, env_id: str | None, literal: bool) -> dict:
    """The arguments that a script takes for a task by itself, as results.json writes them."""
    script = import_module(algorithm)
    args = script.Args(dataset_path="-", device="cpu", **({"literal": True} if literal else {}))
    try:
        args = script.resolve_args(replace(args, env_id=env_id))
    except ValueError:  # a Gymnasium id that is not registered here
        args = script.resolve_args(args)
    return {k: "inf" if v == math.inf else v for k, v in asdict(args).items()}


def departures(results: dict, ignored: set[str]) -> dict:
    """{argument: value} wherever a run differs from its script's defaults for the task."""
    algorithm, args = results["algorithm"], results["args"]
    literal = args.get("literal") is True and algorithm.startswith("gtp")
    usual = defaults(algorithm, results["env_id"], literal)
    values = {k: args.get(k, "absent") for k in sorted({*args, *usual} - ignored)}
    changed = {k: v for k, v in values.items() if v != usual.get(k, "absent")}
    return {"literal": True} | changed if literal else changed


def times(runs: list[dict], key: str, unit: float = 1) -> dict[str, list[float]]:
    """{machine: values / unit}: times of different machines are not averaged."""
    found = {}
    for results in runs:
        args, device = results["args"], results["args"].get("device", "unknown device")
        words = [str(results.get("machine", device))]
        words += [f"num_threads={args.get('num_threads')}"] if device == "cpu" else []
        words += [k for k in ("compile", "cuda_graphs") if args.get(k)]
        if (value := number(results.get(key))) is not None:
            found.setdefault(", ".join(words), []).append(value / unit)
    return found


def group(runs: list[dict], pick: str) -> tuple[list[dict], list[dict]]:
    """Rows of the finished and diverged runs, and the runs that have not ended."""
    ignored = IGNORED | ({"eval_freq"} if pick == "last" else set())
    groups, unended = {}, []
    for results in sorted(runs, key=lambda r: (Path(r["file"]).stat().st_mtime, r["file"])):
        if results["status"] not in ("finished", "diverged"):
            unended.append(results)
            continue
        key = [results[k] for k in ("algorithm", "env_id", "variant")]
        args = {k: v for k, v in results["args"].items() if k not in ignored}
        key = json.dumps([*key, results["dataset"]["sha256"], args], sort_keys=True)
        seeds = groups.setdefault(key, {})
        if older := seeds.get(results["seed"]):
            new = results["file"]
            print(f"warning: {older['file']} is left out, {new} repeats it", file=sys.stderr)
        seeds[results["seed"]] = results
    rows = [summary([seeds[s] for s in sorted(seeds)], pick, ignored) for seeds in groups.values()]
    rank = {task: i for i, task in enumerate(TASKS)}
    rows.sort(key=lambda row: (rank.get(row["task"], 99), row["task"], row["method"],
        len(row["settings"]), str(row["settings"])))  # fmt: skip
    return rows, unended


def summary(runs: list[dict], pick: str, ignored: set[str]) -> dict:
    """A row: what the runs of a group, one for each seed, have in common, and their numbers."""
    first, ended = runs[0], [r for r in runs if r["status"] == "finished"]
    algorithm, args, env_id = first["algorithm"], first["args"], first["env_id"]
    cloning = algorithm == "gtp_bc" or args.get("eta") == 0
    method = first["variant"] or METHODS[algorithm][not cloning]
    if method == "GTP-BC" and algorithm == "gtp_offline":
        method += " (gtp_offline.py)"
    if (number(candidates := args.get("num_candidates")) or 1) > 1:
        method += f", {candidates} candidates"
    published = d4rl_tasks.DATASETS.get(env_id, (None, None, None))[2]
    chosen = {r["seed"]: r[pick] or {} for r in ended}
    scores = numbers((k, row.get("normalized_score")) for k, row in chosen.items())
    return {
        "task": env_id or Path(first["dataset"]["path"]).name, "method": method,
        "algorithm": algorithm, "variant": first["variant"], "cloning": cloning,
        "num_steps": args.get("num_steps"), "settings": departures(first, ignored),
        "dataset": first["dataset"], "d4rl": published == first["dataset"]["sha256"],
        "seeds": [r["seed"] for r in runs], "files": [r["file"] for r in runs],
        "diverged": [r["seed"] for r in runs if r["status"] == "diverged"],
        "scores": scores, "iqm": iqm([[score] for score in scores.values()]),
        "energy_scores": numbers((k, row.get("energy_score")) for k, row in chosen.items()),
        "hours": times(ended, "seconds", 3600), "ms": times(ended, "milliseconds_per_action"),
        "evaluations": [r["evaluations"] for r in ended],
    }  # fmt: skip


# ---- tables ------------------------------------------------------------------------------------


def places(row: dict) -> dict[int, str]:
    """{table: the paper's name of the row} for every table of the paper that a row belongs to."""
    task, title, steps, found = row["task"], row["variant"] or "", row["num_steps"], {}
    if not row["d4rl"] or task not in TASKS:
        return {}
    name, usual = METHODS[row["algorithm"]][not row["cloning"]], "num_steps" not in row["settings"]
    if row["cloning"] or "eta" not in row["settings"]:
        if not title and usual:
            found[1 if row["cloning"] else 2] = name
        label = f"GTP (T={steps})" if name == "GTP" else name if usual else None
        if (not title or title.startswith(BEGINNINGS[5])) and label in paper.TABLE_5.get(task, {}):
            found[5] = label
    if not title and task == "halfcheetah-medium-expert-v2":
        found[6] = f"{METHODS[row['algorithm']][2]} (T = {steps})"
    if task == "hopper-medium-expert-v2" and "eta" not in row["settings"]:
        title = title or ("GTP" if found.get(2) == "GTP" else "-")
        name = VARIANTS.get(title, title)
        for table in (3, 7):
            if name in TABLES[table][2] or title.startswith(BEGINNINGS[table]):
                found[table] = name
    return found


@functools.cache
def rliable() -> tuple:
    """rliable's library and metrics and no note, or None, None and a note that says why."""
    try:
        from rliable import library, metrics
    except Exception as error:  # with pandas 3, a TypeError of a package that it needs
        why = " ".join(str(error).split())[:100]
        return None, None, f"no IQM, rliable cannot be used ({why}): pip install rliable 'pandas<3'"
    return library, metrics, None


def iqm(scores: list[list[float]]) -> list[float] | None:
    """[IQM, low, high] of scores (seeds, tasks), a 95 % interval by a bootstrap over the seeds of
    each task; None for fewer than two seeds or without rliable."""
    if len(scores) < 2 or rliable()[2]:
        return None
    library, metrics, _ = rliable()
    with warnings.catch_warnings():  # of rliable's own calls
        warnings.simplefilter("ignore", FutureWarning)
        rng = np.random.RandomState(0)
        point, interval = library.get_interval_estimates(
            {"": np.array(scores)}, metrics.aggregate_iqm, reps=2000, random_state=rng
        )
    return [float(x) for x in (point[""], *interval[""].ravel())]


def mean_text(values, digits: int = 1) -> str:
    """Mean ± standard deviation, the mean alone of one value, '-' of none."""
    pair = [f"{v:.{digits}f}" for v in mean_std(values) or ()]
    return " ± ".join(pair[: len(values)]) or "-"


def cells(row: dict, table: int | None = None, name: str | None = None) -> dict[str, str]:
    """{column: text} of a row; in a table of the paper, beside the paper's row of that name."""
    count, seeds, method = len(row["diverged"]), row["seeds"], row["method"]
    hours, ms = ("; ".join(f"{mean_text(v, 2)} ({k})" for k, v in row[key].items()) or "-"
        for key in ("hours", "ms"))  # fmt: skip
    score = mean_text(row["scores"].values())
    if count and count == len(seeds):  # as in the paper's Table 3
        hours, score = "Diverged", "-" if table == 3 else "Diverged"
    elif count:
        score += f" ({count} of {len(seeds)} diverged)"
    if table in (3, 7) and not row["variant"]:
        method += " (gtp_offline.py)"  # beside the variant of the same name
    method += f" (T = {row['num_steps']})" if SAID.get(table) == "num_steps" else ""
    said = {SAID.get(table), "num_candidates" if "candidates" in method else None}
    printed = TABLES[table][2] if table else {}
    return {
        "task": f"average, {row['task']}" if row["task"] in paper.SUITES else row["task"],
        "method": method, "score": score, "hours": hours, "ms per action": ms,
        "IQM": "{:.1f} [{:.1f}, {:.1f}]".format(*row["iqm"]) if row["iqm"] else "-",
        "energy score": mean_text(row["energy_scores"].values(), 4),
        "seeds": ", ".join(map(str, seeds)) or "-",
        "paper": printed.get(row["task"], printed).get(name, "-"),
        "paper: hours": paper.TABLE_3_HOURS.get(name, "-"),
        "settings": ", ".join(f"{k}={v}" for k, v in row["settings"].items() if k not in said)
        or "defaults",
    }  # fmt: skip


def averages(placed: list[tuple[dict, str]], table: int) -> list[tuple[dict, str]]:
    """Rows of the average over every suite of which a method has all tasks, at equal settings."""
    methods, found = {}, []
    for row, name in placed:
        text = cells(row, table)
        if row["scores"] and not row["diverged"]:
            same = methods.setdefault((text["method"], text["settings"], name), {})
            same[row["task"]] = row
    for suite, tasks in paper.SUITES.items():
        for (*_, name), by_task in methods.items():
            if by_task.keys() >= {*tasks.values()}:
                scores = [by_task[task]["scores"] for task in tasks.values()]
                seeds = sorted(set.intersection(*map(set, scores)))  # a bootstrap takes full rows
                mean = float(np.mean([np.mean([*by_seed.values()]) for by_seed in scores]))
                matrix = [[by_seed[seed] for by_seed in scores] for seed in seeds]
                changes = {"task": suite, "scores": {"mean": mean}, "seeds": seeds}
                found.append((next(iter(by_task.values())) | changes | {"iqm": iqm(matrix)}, name))
    return found


def markdown(title: str, columns: list[str], rows: list[dict[str, str]]) -> list[str]:
    """Lines of a heading and a table."""
    lines = [columns, ["---"] * len(columns)]
    lines += [[row[column].replace("|", "\\|") for column in columns] for row in rows]
    return [f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""]


def document(rows: list[dict], unended: list[dict], pick: str) -> str:
    """All tables as Markdown; every row stands in one at least."""
    lines, missing, shown, others = [], [], set(), {}
    for table, (title, columns, _) in TABLES.items():
        placed = [(row, at[table]) for row in rows if table in (at := places(row))]
        if table in (3, 7) and not any(row["variant"] for row, _ in placed):
            placed = []  # GTP alone compares nothing
        if not placed:
            missing.append(str(table))
            continue
        shown |= {row["files"][0] for row, _ in placed}
        placed += averages(placed, table) if columns is SCORES else []
        texts = [cells(row, table, name) for row, name in placed]
        lines += markdown(f"Table {table}: {title}", columns, texts)
    published = {sha256: task for task, (*_, sha256) in d4rl_tasks.DATASETS.items() if sha256}
    for row in rows:
        if row["files"][0] not in shown:
            others.setdefault(row["dataset"]["sha256"], []).append(row)
    for sha256, same in others.items():
        whose = f"D4RL's {published[sha256]}" if sha256 in published else "not D4RL's"
        name = Path(same[0]["dataset"]["path"]).name
        title = f"Other runs on {name} ({whose}, SHA-256 {sha256[:12]})"
        lines += markdown(title, OTHER, [cells(row) for row in same])
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    trouble = rliable()[2] if any(len(row["scores"]) > 1 for row in rows) else None
    notes = [
        f"`{pick}` evaluation of each run; mean ± standard deviation (divided by n) over the seeds "
        f"that the row names; {len(seeds)} in all: {', '.join(map(str, seeds))}",
        trouble or "IQM: interquartile mean over seeds (and tasks), [95 % bootstrap interval]",
        "settings: where a row departs from what its script does by itself for the task",
        *([f"no runs for Table {', '.join(missing)}"] if missing else []),
    ]
    for run in unended:
        done = f"update {run.get('update', '?')} of {run.get('num_updates', '?')}"
        notes.append(f"left out, not ended: {run['file']} ({run['status']}, {done})")
    return "\n".join(lines + [f"- {note}" for note in notes])


# ---- pictures, files ---------------------------------------------------------------------------


def draw_curves(rows: list[dict], folder: Path) -> list[Path]:
    """One PNG for each task and data: mean and standard deviation over the finished seeds of the
    normalized score, or where nothing has one of the energy score, a line for each row."""
    from matplotlib.figure import Figure

    pictures, paths = {}, []
    for row in rows:
        pictures.setdefault((row["task"], row["dataset"]["sha256"]), []).append(row)
    for (task, sha256), same in pictures.items():
        scored = any(row["scores"] for row in same)
        key = "normalized_score" if scored else "energy_score"
        figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
        axis = figure.subplots()
        for row in same:
            runs = [numbers((e["update"], e.get(key)) for e in run) for run in row["evaluations"]]
            if not (updates := sorted(set.intersection(*map(set, runs or [[]])))):
                continue
            values = np.array([[run[update] for update in updates] for run in runs])
            mean, std, text = values.mean(0), values.std(0), cells(row)
            label = f"{text['method']}, seeds {text['seeds']}; {text['settings']}"
            (line,) = axis.plot(updates, mean, marker=".", label=label[:90])
            band = dict(color=line.get_color(), alpha=0.15, lw=0)
            axis.fill_between(updates, mean - std, mean + std, **band)
        if not axis.lines:  # nothing finished
            continue
        data = Path(same[0]["dataset"]["path"]).name
        axis.set(xlabel="updates", ylabel=key.replace("_", " "), title=f"{task}, data {data}")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7)
        name = "".join(c if c.isalnum() or c in ".-" else "_" for c in task)
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"curves__{name}__{sha256[:8]}.png")
        figure.savefig(paths[-1])
    return paths


def tiny_runs(folder: str) -> None:
    """Two seeds of 60 updates of gtp_offline.py on random data."""
    rng, file = np.random.default_rng(0), f"{folder}/random.npz"
    arrays = {key: rng.uniform(-1, 1, (400, 2)) for key in ("observations", "actions")}
    np.savez(file, **arrays, rewards=rng.uniform(size=400), terminals=np.arange(400) % 10 == 9)
    for seed in range(2):
        gtp_offline.train(gtp_offline.Args(env_id="multigoal-v0", dataset_path=file, seed=seed,
            run_dir=f"{folder}/{seed}", num_updates=60, eval_freq=20, num_eval_episodes=20,
            hidden_dim=16, batch_size=32, device="cpu", tensorboard=False))  # fmt: skip


def run(options: Arguments) -> None:
    """Read the runs; print, write and draw what the options ask for."""
    with tempfile.TemporaryDirectory() as folder:
        if options.quick:
            tiny_runs(folder)
        rows, unended = group(load([folder] if options.quick else options.results), options.pick)
    if not rows:
        files = ", ".join(r["file"] for r in unended)
        raise ValueError(f"no run has ended; go on with --resume RUN_DIR: {files}")
    text, out = document(rows, unended, options.pick), Path(options.out or "runs/tables/tables.md")
    print(text)
    if options.out:
        keep = lambda row: {k: v for k, v in row.items() if k != "evaluations"}  # noqa: E731
        about = {"pick": options.pick, "unended": [r["file"] for r in unended]}
        about |= {"rows": [keep(row) | {"tables": [*places(row)]} for row in rows]}
        out.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(about, indent=1)
        gtp_offline.write_file(out.with_name("tables.json"), content.encode())
        gtp_offline.write_file(out, f"{text}\n".encode())
        print(f"{out}, {out.with_name('tables.json')}")
    for path in draw_curves(rows, out.parent) if options.curves else ():
        print(path)


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
