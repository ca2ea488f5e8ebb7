"""Table 5 and Fig. 6a: how many steps K the sampler needs (the paper calls K also T there).

    python ablations/horizon.py                   # on the toy, 3 seeds
    python ablations/horizon.py --quick           # seconds: shows that it works
    python ablations/horizon.py --env-id hopper-medium-expert-v2 --eta 5 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5                # Fig. 6a; with --retrain, Table 5
    python ablations/horizon.py --env-id multigoal-unequal-v0 --eta 5 --retrain

Every seed is trained once, with the default K = 5 in the TD target (Eq. 16), and its checkpoint is
evaluated at K = 1 to 5: held-out energy score, on the toy the share of actions off every mode, with
--env-id the returns. --retrain also trains one run for each K, which then stands in the TD target,
too, as the paper's rows "T = 2" probably did; it takes a task with episodes, because no next action
enters the targets of the toy. The paper's means stand beside those on D4RL's own data.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paper
from experiment import (
    ArgumentError,
    Options,
    Variant,
    cell,
    compare,
    draw_data_score,
    floor,
    load_policy,
    main,
    mean_std,
    new_figure,
    on_toy,
    prepare,
    print_rows,
    score_name,
    score_or_return,
    seeds_text,
    statuses,
    style,
    write,
)

import offline_tasks

STEPS = (1, 2, 3, 4, 5)
LAST = STEPS[-1]  # of the run that serves every K
TITLES = {k: f"trained with K = {k}" for k in STEPS}
ROWS = {k: f"GTP (T={k})" for k in STEPS}  # of Table 5, which has two of them
METRICS = {  # of a run at every K: what the axis says, factor, digits
    "energy_score": ("held-out energy score x 1000", 1000, 0),
    "off_mode": ("actions off every mode, %", 100, 0),
    "score": ("score", 1, 1),
    "return": ("return", 1, 1),  # of a task without a score
}


@dataclass
class Arguments(Options):
    """Energy scores and returns at K = 1 to 5 steps of the sampler."""

    retrain: bool = False  # also one run for each K, which then stands in the TD target, too


def variants(retrain: bool) -> dict[str, Variant]:
    """The run that serves every K and, to retrain, those with fewer steps; each is measured at
    every K, because the energy score takes seconds."""
    measured = {"EVALUATION_STEPS": {*STEPS}}
    chosen = {}
    for k in STEPS if retrain else (LAST,):
        change = {"num_steps": k, "td_target": "policy"}  # Eq. 16
        chosen[TITLES[k]] = Variant(change, measured, table=5, row=ROWS[k])
    return chosen


def episode_score(run_dir: str, num_steps: int, options: Options) -> float | None:
    """Normalized score (where a task has none: return) of a run's policy with num_steps steps, in
    the episodes of the run's own evaluations; None if it diverged before its first checkpoint."""
    act = load_policy(run_dir, num_steps=num_steps, device=options.device)
    if act is None:
        return None
    args = json.loads((Path(run_dir) / "results.json").read_text())["args"]
    seed = args["seed"] + 100
    row = offline_tasks.evaluate(options.env_id, act, args["num_eval_episodes"], seed)
    return score_or_return(row)


def episode_scores(table: dict[str, dict], options: Options) -> None:
    """Add to each row, as `score` or `return`, {K: [mean, std]} over its runs: the last one's at
    every K, the others' at their own, because episodes take their time."""
    for k, title in TITLES.items():
        if title not in table:
            continue
        run_dirs = table[title]["counted"]
        scores = {}
        for j in STEPS if k == LAST else (k,):
            scores[str(j)] = mean_std([episode_score(folder, j, options) for folder in run_dirs])
        table[title][score_name(options.env_id)] = scores


def curves(table: dict[str, dict]) -> dict[str, dict[str, dict]]:
    """{metric: {curve: {K: [mean, std]}}} of what is known: one checkpoint for every K and, where
    runs with fewer steps were trained, every K with its own."""
    found = {}
    for metric in METRICS:
        rows = {k: table[title].get(metric, {}) for k, title in TITLES.items() if title in table}
        once = known({k: rows.get(LAST, {}).get(str(k)) for k in STEPS})
        same = known({k: row.get(str(k)) for k, row in rows.items()})
        by_label = {}
        if once:
            by_label[f"trained once, K = {LAST}"] = once
        if same and set(rows) != {LAST}:
            by_label["trained with the same K"] = same
        if by_label:
            found[metric] = by_label
    return found


def known(curve: dict[int, list[float] | None]) -> dict[int, list[float]]:
    """The points of a curve that there are."""
    return {k: pair for k, pair in curve.items() if pair}


def paper_scores(options: Options) -> dict[int, str]:
    """The paper's Table 5 at its two K, empty unless the data are D4RL's own."""
    if options.dataset_path:
        return {}
    row = paper.TABLE_5.get(options.env_id, {})
    return {k: row[name] for k, name in ROWS.items() if name in row}


def print_curves(found: dict, printed: dict[int, str]) -> None:
    """Markdown: one row for every K, the paper's score last."""
    heads = ["K"]
    rows = [[str(k)] for k in STEPS]
    for metric, by_label in found.items():
        name, scale, digits = METRICS[metric]
        for label, curve in by_label.items():
            heads.append(f"{name}, {label}")
            for k, row in zip(STEPS, rows, strict=True):
                row.append(cell(curve.get(k), scale, digits))
    if printed:
        heads.append("paper")
        for k, row in zip(STEPS, rows, strict=True):
            row.append(printed.get(k, "-"))
    print_rows(heads, rows)


def draw(found: dict, path: Path, title: str, data_score: float | None) -> None:
    """Every metric against K with ± std over the seeds."""
    figure = new_figure(4.4 * len(found), 3.6)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (metric, by_label) in zip(axes, found.items(), strict=True):
        name, scale, _ = METRICS[metric]
        for label, curve in by_label.items():
            color = "#3b6fb6" if "once" in label else "#d1662b"
            steps = [*curve]
            mean, std = scale * np.array([*curve.values()]).T
            axis.plot(steps, mean, marker="o", color=color, label=label)
            axis.fill_between(steps, mean - std, mean + std, color=color, alpha=0.2, lw=0)
        if metric == "energy_score":
            draw_data_score(axis.axhline, data_score)
        axis.set(xlabel="K, steps of the sampler", ylabel=name, xticks=STEPS)
        style(axis)
    figure.suptitle(title)
    figure.savefig(path)


def run(options: Arguments) -> None:
    """Train, evaluate at every K, tabulate and draw."""
    if options.retrain and options.eta == 0:
        raise ArgumentError("--retrain with --eta 0: K is in the TD target alone; give --eta 5")
    options = prepare(options, "horizon")
    if options.retrain and on_toy(options):
        raise ArgumentError("--retrain on the toy, where every step is terminal; give --env-id")
    table = compare("horizon", options, variants(options.retrain))
    if options.env_id:
        episode_scores(table, options)
    write("horizon", options, table)
    found = curves(table)
    if not found:
        raise ValueError(f"nothing to compare: every run in {options.out} diverged")
    print_curves(found, paper_scores(options))
    for title, row in table.items():
        print(f"{title}: {statuses(row)}")
    path = Path(options.out) / "horizon.png"
    draw(
        found,
        path,
        f"Steps of the sampler, mean ± std of {seeds_text(options.seeds)}",
        floor(options),
    )
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
