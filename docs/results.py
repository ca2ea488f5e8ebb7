"""The pages of docs/results and their figures, from the results.json files in the folders there.

    python docs/results.py                          # write them again
    python docs/results.py --add RUN_DIR... --to docs/results/PAGE/FOLDER/LABEL  # with runs

A file is PAGE/FOLDER/LABEL-SEED.json. A folder is a section of PAGE.md: the about.md in it, a
figure, a table. README.md has the tables of all pages below docs/results/about.md.
"""

import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from offline_tasks.pages import Table, draw_line, markdown_table  # noqa: E402

RESULTS = ROOT / "docs" / "results"
TARGET = "docs/results/PAGE/FOLDER/LABEL"
UNTOLD = ("--seed", "--run-dir", "--eval-freq")  # a command's table does without


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


def add(run_dirs, to):
    """Copy the results of runs to TO-SEED.json, without the places they had on a disk."""
    for run_dir in run_dirs:
        results = json.loads((run_dir / "results.json").read_text())
        dataset = Path(results["dataset"]["path"]).name
        results["command"] = plain_command(results["command"])
        results["dataset"]["path"] = dataset
        results["args"] |= {"run_dir": "", "resume": "", "dataset_path": dataset}
        path = Path(f"{to}-{results['seed']}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results) + "\n")


def read(folder):
    """{label: its seeds' results}, the label with the best end first."""
    runs = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        label = file.stem.rpartition("-")[0]
        runs[label].append(json.loads(file.read_text()))
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
    text = (folder / "about.md").read_text().strip()
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


def main():
    """Take in runs, if any, then write the figures and the pages."""
    options = tyro.cli(Options)
    if bool(options.add) != bool(options.to):
        raise SystemExit(f"--add and --to go together: --add RUN_DIR --to {TARGET}")
    add(options.add, options.to)
    parts = [(RESULTS / "about.md").read_text().strip()]
    parts += [write_page(file.parent) for file in sorted(RESULTS.glob("*/about.md"))]
    (RESULTS / "README.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
