"""Tables 1, 2, 3, 5, 6 and 7 and learning curves, from the results.json files of runs.

    python ablations/tables.py                        # every results.json below runs/
    python ablations/tables.py FOLDER FILE --pick best --out tables.md --curves
    python ablations/tables.py --quick                # two tiny runs of gtp_offline.py, tabulated

A row is one group of runs: the same script, variant, task, data (by SHA-256) and arguments; only
the seed and the machine may differ. Other runs are other rows, and `settings` says where a row
departs from what its script does by itself for the task. Scores are mean ± standard deviation over
the seeds, and the interquartile mean, from three seeds on with a 95 % bootstrap interval (Agarwal
et al. 2021). A run counts as D4RL only if its file has the SHA-256 published for its task; all
others stand in a table of their own data, without the paper's numbers. report.py has what is read
and how it is grouped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import paper
import tyro
from experiment import ArgumentError, check_out, gtp_offline, main, make_out, new_figure, style

import offline_tasks
from report import (
    STRUCTURAL,
    Row,
    draw_curve,
    group,
    interval_text,
    iqm,
    load,
    mean_text,
    places,
    settings_text,
    times_text,
    way_on,
    whose,
)


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


@dataclass
class Arguments:
    """The paper's tables from results.json files."""

    results: tyro.conf.Positional[tuple[str, ...]] = ("runs",)  # results.json files, or folders
    pick: Literal["last", "best"] = "last"  # evaluation of a run; best is optimistic
    out: str = ""  # Markdown file to write, and tables.json beside it; empty: only print
    curves: bool = False  # draw curves__*.png, beside --out or else in runs/tables
    quick: bool = False  # train two tiny runs in a temporary folder and tabulate them


# ---- the paper's tables ------------------------------------------------------------------------


def score_text(row: Row) -> str:
    """The score, and how many seeds have none because they diverged, or of others beside them."""
    text = mean_text(row.scores.values())
    if row.diverged:
        text += f" ({len(row.diverged)} of {len(row.seeds)} diverged)"
    unscored = {*row.seeds} - {*row.diverged} - {*row.scores}
    if unscored and row.scores and row.task not in paper.SUITES:
        text += f" ({len(unscored)} of {len(row.seeds)} without a score)"
    return text


def cells(row: Row, number: int = 0, name: str = "") -> dict[str, str]:
    """{column: text} of a row; in a table of the paper, beside the paper's row of that name."""
    table = TABLES.get(number, Table("", OTHER, {}))
    method = row.method
    said = {table.said, "num_candidates" if "candidates" in method else ""}
    settings = {k: v for k, v in row.settings.items() if k not in said}
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
        "IQM": interval_text(row.iqm[0], row.iqm[1:]) if row.iqm else "-",
        "energy score": mean_text(row.energy_scores.values(), 4),
        "seeds": ", ".join(map(str, row.seeds)) or "-",
        "paper": table.printed.get(row.task, table.printed).get(name, "-"),
        "paper: hours": paper.TABLE_3_HOURS.get(name, "-"),
        "settings": settings_text(settings) or "defaults",
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
    """The mean of a method's scores over the tasks of a suite, of the seeds that all of them have:
    those that the row names."""
    seeds = sorted(set.intersection(*(set(row.scores) for row in rows)))
    matrix = [[row.scores[seed] for row in rows] for seed in seeds]  # a bootstrap takes full rows
    return replace(
        rows[0],
        task=suite,
        scores={"mean": float(np.mean(matrix))} if seeds else {},
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
    """Lines of a table for each dataset, and on it for each benchmark: their scores differ."""
    by_data = {}
    for row in rows:
        env_id = row.runs[0]["env_id"]
        key = (row.dataset["sha256"], offline_tasks.benchmark(env_id) if env_id else "")
        by_data.setdefault(key, []).append(row)
    lines = []
    for (_, benchmark), same in by_data.items():
        title = f"Other runs on {whose(same[0].dataset)}"
        if benchmark not in ("D4RL", "toys", ""):
            title += f", scores of {benchmark}"
        lines += markdown(title, OTHER, [cells(row) for row in same])
    return lines


def notes(rows: list[Row], pick: str) -> list[str]:
    """How to read the tables."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    return [
        f"- `{pick}` evaluation of each run; mean ± standard deviation (divided by n) over the "
        f"seeds that the row names; {len(seeds)} in all: {', '.join(map(str, seeds))}",
        "- IQM: interquartile mean over seeds (and tasks), from three seeds on with its [95 % "
        "bootstrap interval]; of fewer than four scores, their mean",
        "- score: normalized; the return of a task that has none is in `report.py`'s tables",
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
        for position, row in enumerate(same):
            text = cells(row)
            label = f"{text['method']}, seeds {text['seeds']}; {text['settings']}"
            if not draw_curve(axis, position, label, row, key) and row.finished:
                print(f"no curve of {label} on {task}: its seeds share no evaluation")
        if not axis.lines:  # nothing finished
            continue
        data = Path(same[0].dataset["path"]).name
        axis.set(xlabel="updates", ylabel=key.replace("_", " "), title=f"{task}, data {data}")
        style(axis)
        name = "".join(c if c.isalnum() or c in ".-" else "_" for c in task)
        make_out(folder)
        path = folder / f"curves__{name}__{sha256[:8]}.png"
        figure.savefig(path)
        paths.append(path)
    return paths


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
        content = asdict(replace(row, runs=[], evaluations=[]))
        content["tables"] = [*places(row)]
        del content["evaluations"], content["runs"]
        plain.append(content)
    files = [results["file"] for results in unended]
    make_out(out.parent)
    about = {"pick": pick, "unended": files, "rows": plain}
    gtp_offline.write_json(out.with_name("tables.json"), about)
    gtp_offline.write_file(out, f"{text}\n".encode())
    print(f"{out}, {out.with_name('tables.json')}")


def check(options: Arguments) -> None:
    """ArgumentError for a file that cannot be written, or for runs that would not be read."""
    if options.quick and options.results != Arguments.results:
        given = " ".join(options.results)
        raise ArgumentError(f"--quick tabulates runs of its own; leave out {given}, or --quick")
    if not options.out:
        if options.curves:
            check_out("runs/tables")
        return
    out = Path(options.out)
    if os.path.isdir(out) or out.suffix != ".md":  # a run's file, say
        raise ArgumentError(f"--out {out}: name a Markdown file, tables.md say")
    check_out(out.parent)


def run(options: Arguments) -> None:
    """Read the runs; print, write and draw what the options ask for."""
    check(options)
    rows, unended = read_rows(options)
    if not rows:
        ways = [f"{results['file']} ({way_on(results)})" for results in unended]
        raise ValueError(f"no run has ended: {', '.join(ways)}")
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
