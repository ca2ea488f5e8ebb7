"""The pages of docs/results and their figures, from the results.json files in the folders there.

    python docs/results.py                          # write them again
    python docs/results.py --add RUN_DIR... --to docs/results/PAGE/FOLDER/LABEL  # with runs

A file is PAGE/FOLDER/LABEL-SEED.json. A folder is a section of PAGE.md: the about.md in it, a
figure, a table. README.md has the tables of all pages below docs/results/about.md. A file is
replaced by a later state of its own run alone: the same task, data and arguments, at least as many
updates. Exit code: 2 for a wrong argument, 1 for what cannot be read or written.
"""

import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from offline_tasks.pages import Table, draw_line, markdown_table  # noqa: E402
from report import number, read_json  # noqa: E402
from sweeps.reader import ArgumentError, InputError  # noqa: E402

RESULTS = ROOT / "docs" / "results"
TARGET = "docs/results/PAGE/FOLDER/LABEL"
UNTOLD = ("--seed", "--run-dir", "--eval-freq")  # a command's table does without
PLACES = {"run_dir", "resume", "dataset_path"}
KINDS = {  # of what the pages show, and of what tells runs apart
    "algorithm": str,
    "variant": str,
    "seed": int,
    "update": int,
    "seconds": float | int,
    "command": str,
    "args": dict,
    "dataset": dict,
    "evaluations": list,
}


@dataclass
class Options:
    """Write the pages of docs/results and their figures."""

    add: list[Path] = field(default_factory=list)  # run directories to take in first
    to: str = ""  # where to, without the seed: docs/results/PAGE/FOLDER/LABEL


# ---- runs --------------------------------------------------------------------------------------


def plain_command(command, untold=("--run-dir",)):
    """A command without the flags `untold`, and with a dataset's name in place of its path."""
    command = re.sub(r"(--dataset-path) \S*/(\S+)", r"\1 \2", command)
    for flag in untold:
        command = re.sub(rf" {flag} \S+", "", command)
    return command.replace(" --no-tensorboard", "")


def load(file):
    """The results in a file; InputError unless they have all that a page shows."""
    try:
        results = read_json(file)
    except ValueError as error:
        raise InputError(f"{file} is {error}; take in a run whose results.json is whole") from error
    if not isinstance(results.get("env_id"), str):
        raise InputError(
            f"{file} is of a run without a task, so without scores; train with --env-id"
        )
    for key, kind in KINDS.items():
        if not isinstance(results.get(key), kind):
            value = results.get(key)
            raise InputError(f"{file}: `{key}` is {value!r}; name a run as the scripts leave it")
    for key in ("path", "sha256"):
        if not isinstance(results["dataset"].get(key), str):
            raise InputError(f"{file}: `dataset` has no {key}; name a run as the scripts leave it")
    check_evaluations(file, results)
    return results


def check_evaluations(file, results):
    """InputError unless there are two evaluations or more, each with an update and a score."""
    evaluations = results["evaluations"]
    if len(evaluations) < 2:
        raise InputError(f"{file} has {len(evaluations)} of the two evaluations needed; train on")
    for row in evaluations:
        known = row if isinstance(row, dict) else {}
        shown = [number(known.get(key)) for key in ("update", "normalized_score")]
        if None in shown:
            raise InputError(f"{file}: an evaluation without update or score, {row}; drop the run")


def without_places(results):
    """The results without the places that their run had on a disk."""
    dataset = Path(results["dataset"]["path"]).name
    args = results["args"] | {"run_dir": "", "resume": "", "dataset_path": dataset}
    return results | {
        "command": plain_command(results["command"]),
        "dataset": results["dataset"] | {"path": dataset},
        "args": args,
    }


def check_place(to):
    """ArgumentError unless TO is a label in a section of a page."""
    section = Path(to).resolve().parent
    page = section.parent
    if page.parent != RESULTS:
        raise ArgumentError(f"--to {to} is no {TARGET}; name a label in a folder of a page")
    for about in (page / "about.md", section / "about.md"):
        if not about.is_file():
            raise ArgumentError(f"--to {to}: no page shows it without {about}; write that first")
        read_about(about.parent)


def check_same_run(path, results, recorded):
    """ArgumentError unless results are a later state of the run that is recorded in the file."""
    check_same_arguments(path, results, recorded)
    done = recorded["update"]
    if results["update"] < done:
        raise ArgumentError(
            f"{path} is of update {done}, not {results['update']}; name another LABEL"
        )


def check_same_arguments(path, results, recorded):
    """ArgumentError where the recorded run was given other arguments than these results', but for
    the seed, what a resume may change and how often it was evaluated."""
    free = import_module(results["algorithm"]).FREE | PLACES | {"seed", "eval_freq"}
    for name in sorted((results["args"].keys() & recorded["args"].keys()) - free):
        value = results["args"][name]
        other = recorded["args"][name]
        if value != other:
            raise ArgumentError(
                f"{path} would be of {name} {value}, not {other} as what is recorded; "
                "name another LABEL"
            )


def subject(results):
    """What all seeds of a label are runs of."""
    words = [results[key] for key in ("algorithm", "variant", "env_id")]
    words.append(f"data {results['dataset']['sha256'][:12]}")
    return ", ".join(filter(None, words))


def copies(run_dirs, to):
    """{TO-SEED.json: results} of runs; InputError for unusable ones and for a seed twice."""
    found = {}
    for run_dir in map(Path, run_dirs):
        file = run_dir / "results.json"
        if not file.is_file():
            raise ArgumentError(f"--add {run_dir}: there is no {file}; name the folder of a run")
        results = without_places(load(file))
        path = to.with_name(f"{to.name}-{results['seed']}.json")
        if path in found:
            raise ArgumentError(f"--add {run_dir} has seed {results['seed']} again; give it once")
        found[path] = results
    return found


def add(run_dirs, to):
    """Copy the results of runs to TO-SEED.json, all of them or, with an InputError, none. A file
    that is there is replaced by a later state of its own run alone."""
    check_place(to)
    to = Path(to)
    new = copies(run_dirs, to)
    recorded = {file: load(file) for file in to.parent.glob("*.json") if label_of(file) == to.name}
    for path, results in new.items():
        for file, other in (*recorded.items(), *new.items()):
            if subject(results) != subject(other):
                raise ArgumentError(
                    f"{path} would be of {subject(results)}, "
                    f"{file.name} is of {subject(other)}; name another LABEL"
                )
            check_same_arguments(path, results, other)
        if path in recorded:
            check_same_run(path, results, recorded[path])
    for path, results in new.items():
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(results) + "\n", encoding="utf-8")
        unfinished.replace(path)


def label_of(file):
    """LABEL of LABEL-SEED.json."""
    return file.stem.rpartition("-")[0]


def read(folder):
    """{label: its seeds' results}, the label with the best end first."""
    runs = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        runs[label_of(file)].append(load(file))
    return dict(sorted(runs.items(), key=lambda item: -np.mean(scores_of(item[1], -1))))


def scores_of(seeds, index):
    """The score of one evaluation, by index, of each seed."""
    return [results["evaluations"][index]["normalized_score"] for results in seeds]


def curves(seeds):
    """Updates (n,) that every seed has, minutes of training until then (n,), scores (seeds, n)."""
    rows = [{row["update"]: row for row in results["evaluations"]} for results in seeds]
    updates = sorted(set.intersection(*map(set, rows)))
    scores = [[row[update]["normalized_score"] for update in updates] for row in rows]
    pace = np.mean([results["seconds"] / results["update"] for results in seeds])
    return np.array(updates), np.array(updates) * pace / 60, np.array(scores)


# ---- pages -------------------------------------------------------------------------------------


def draw(runs, path, title):
    """PNG: scores over updates and over minutes of training, mean and range of the seeds."""
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    for position, (label, seeds) in enumerate(sorted(runs.items())):
        updates, minutes, scores = curves(seeds)
        band = (scores.min(0), scores.max(0))
        draw_line(left, position, label, updates / 1_000, scores.mean(0), band)
        draw_line(right, position, label, minutes, scores.mean(0), band)
    left.set(xlabel="thousands of updates", ylabel="score: mean, range of the seeds")
    right.set(xlabel="minutes of training")
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path)


def listed(values):
    """Values as text, between commas."""
    return ", ".join(map(str, values))


def table(runs, with_commands):
    """Markdown: of each label the last score by seed, the mean of the last two, its minutes."""
    columns = ["", "seeds", "score at the end", "mean of the last two", "updates", "minutes"]
    if with_commands:
        columns.append("command")
    rows = []
    for label, seeds in runs.items():
        last = scores_of(seeds, -1)
        two = np.mean([scores_of(seeds, -2), last])
        updates = [results["update"] for results in seeds]
        if len(set(updates)) == 1:
            updates = updates[:1]
        minutes = np.mean([results["seconds"] for results in seeds]) / 60
        cells = [
            label,
            listed(results["seed"] for results in seeds),
            listed(f"{score:.0f}" for score in last),
            f"{two:.1f}",
            listed(f"{update:,}" for update in updates),
            f"{minutes:.1f}",
        ]
        if with_commands:
            cells.append(f"`{plain_command(seeds[0]['command'], UNTOLD)}`")
        rows.append(cells)
    return "\n".join(markdown_table(Table(columns, rows))).strip()


def read_about(folder):
    """The text of a folder's about.md and its first line, which is the title."""
    file = folder / "about.md"
    text = file.read_text().strip()
    if not text:
        raise InputError(f"{file} is empty; its first line is to be the title")
    title = text.splitlines()[0].lstrip("# ")
    return text, title


def write_page(folder):
    """PAGE.md and its figures -> the page's part of README.md."""
    about, title = read_about(folder)
    page = [about]
    short = [f"## [{title}]({folder.name}.md)"]
    for file in sorted(folder.glob("*/about.md")):
        section = file.parent
        text, heading = read_about(section)
        runs = read(section)
        draw(runs, section.with_suffix(".png"), heading)
        page.append(text)
        page.append(f"![{heading}]({folder.name}/{section.name}.png)")
        page.append(table(runs, with_commands=True))
        short.append(f"**{heading}**")
        short.append(table(runs, with_commands=False))
    folder.with_suffix(".md").write_text("\n\n".join(page) + "\n")
    return "\n\n".join(short)


def write_pages():
    """The figures, the pages and README.md."""
    parts = [(RESULTS / "about.md").read_text().strip()]
    parts += [write_page(file.parent) for file in sorted(RESULTS.glob("*/about.md"))]
    (RESULTS / "README.md").write_text("\n\n".join(parts) + "\n")


def main() -> int:
    """Take in runs, if any, then write the figures and the pages -> exit code, see above."""
    options = tyro.cli(Options)
    try:
        if bool(options.add) != bool(options.to):
            raise ArgumentError(f"--add and --to go together: --add RUN_DIR --to {TARGET}")
        if options.add:
            add(options.add, options.to)
        write_pages()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    except OSError as error:
        where = error.filename or RESULTS  # a full disk has no name
        reason = f"({error.strerror}); make room, or see to its permissions"
        print(f"error: {where} cannot be read or written {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
