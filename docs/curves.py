"""Learning curves over seeds, from the results.json files of finished runs, and a table of ends.

    python docs/curves.py docs/results/pointmaze-medium   # writes pointmaze-medium.png beside it

A file is named LABEL-SEED.json; a curve is the mean over the seeds of a label, its band the range.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure


@dataclass
class Options:
    """Draw the learning curves of a folder of results."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """With files LABEL-SEED.json."""


def read(folder):
    """{label: the results of its seeds}, in the order of the labels' last scores, best first."""
    runs = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        label = file.stem.rpartition("-")[0]
        runs[label].append(json.loads(file.read_text()))
    return dict(sorted(runs.items(), key=lambda item: -np.mean(last_scores(item[1]))))


def last_scores(seeds):
    """The score of each seed's last evaluation."""
    return [results["last"]["normalized_score"] for results in seeds]


def curve(results):
    """Updates and scores of a run's evaluations."""
    rows = results["evaluations"]
    updates = [row["update"] for row in rows]
    scores = [row["normalized_score"] for row in rows]
    return updates, scores


def draw(runs, path, title):
    """PNG: score over updates, mean and range of the seeds."""
    figure = Figure(figsize=(6, 3.6), dpi=120, layout="constrained")
    axis = figure.add_subplot()
    for label, seeds in runs.items():
        updates, _ = curve(seeds[0])
        scores = np.array([np.interp(updates, *curve(results)) for results in seeds])
        axis.plot(updates, scores.mean(0), label=label)
        axis.fill_between(updates, scores.min(0), scores.max(0), alpha=0.15)
    axis.set(xlabel="updates", ylabel="score (mean, range of the seeds)", title=title)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path)


def print_table(runs):
    """Markdown: the last score of each seed, and the command of the first."""
    print("| | score at the end, by seed | command |")
    print("|---|---|---|")
    for label, seeds in runs.items():
        scores = ", ".join(f"{score:.0f}" for score in last_scores(seeds))
        print(f"| {label} | {scores} | `{seeds[0]['command']}` |")


def main():
    """Read, draw, print."""
    options = tyro.cli(Options)
    runs = read(options.folder)
    draw(runs, options.folder.with_suffix(".png"), options.folder.name)
    print_table(runs)


if __name__ == "__main__":
    main()
