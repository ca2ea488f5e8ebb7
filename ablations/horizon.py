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

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paper
from experiment import (
    Options,
    Variant,
    cell,
    compare,
    d4rl_tasks,
    dress,
    gtp_offline,
    main,
    mean_std,
    on_toy,
    prepare,
    toy_energy_score,
    write,
)

STEPS = (1, 2, 3, 4, 5)
TITLES = {k: f"trained with K = {k}" for k in STEPS}
METRICS = {  # of a run at every K: what the axis says, factor, digits
    "energy_score": ("held-out energy score x 1000", 1000, 0),
    "off_mode": ("actions off every mode, %", 100, 0),
    "score": ("score", 1, 1),
}


@dataclass
class Arguments(Options):
    """Energy scores and returns at K = 1 to 5 steps of the sampler."""

    retrain: bool = False  # also one run for each K, which then stands in the TD target, too


def variants(retrain: bool) -> dict[str, Variant]:
    """The run that serves every K and, to retrain, those with fewer steps; each is measured at
    every K, because the energy score takes seconds."""
    measured = {"EVALUATION_STEPS": {*STEPS}}
    trained = STEPS if retrain else STEPS[-1:]
    return {TITLES[k]: Variant({"num_steps": k}, measured) for k in trained}


def episode_score(run_dir: str, num_steps: int, options: Options) -> float | None:
    """Normalized score (where a task has none: return) of a run's policy with num_steps steps, in
    the episodes of the run's own evaluations; None if it diverged before its first checkpoint."""
    if not (Path(run_dir) / "checkpoint.pt").exists():
        return None
    act = gtp_offline.load_policy(run_dir, num_steps=num_steps, device=options.device)
    episodes, seed = act.args.num_eval_episodes, act.args.seed + 100
    row = d4rl_tasks.evaluate(options.env_id, act, episodes, seed)
    known = row["normalized_score"] is not None
    return row["normalized_score" if known else "episodic_return"]


def curves(table: dict[str, dict]) -> dict[str, dict[str, dict]]:
    """{metric: {curve: {K: [mean, std]}}} of what is known: one checkpoint for every K and, where
    runs with fewer steps were trained, every K with its own."""
    found = {}
    for metric in METRICS:
        rows = {k: table[title].get(metric) or {} for k, title in TITLES.items() if title in table}
        once = {k: rows.get(STEPS[-1], {}).get(str(k)) for k in STEPS}
        same = {k: row.get(str(k)) for k, row in rows.items()} if {*rows} - {STEPS[-1]} else {}
        both = {f"trained once, K = {STEPS[-1]}": once, "trained with the same K": same}
        both = {label: {k: v for k, v in curve.items() if v} for label, curve in both.items()}
        found[metric] = {label: curve for label, curve in both.items() if curve}
    return {metric: by_label for metric, by_label in found.items() if by_label}


def paper_scores(options: Options) -> dict[int, str]:
    """The paper's Table 5 at its two K, empty unless the data are D4RL's own."""
    row = paper.TABLE_5.get(options.env_id, {}) if options.dataset_path is None else {}
    return {k: row[f"GTP (T={k})"] for k in STEPS if f"GTP (T={k})" in row}


def print_curves(found: dict, printed: dict[int, str]) -> None:
    """Markdown: one row for every K, the paper's score last."""
    columns = [(METRICS[m], label, c) for m, by in found.items() for label, c in by.items()]
    heads = [f"{name}, {label}" for (name, *_), label, _ in columns] + ["paper"] * bool(printed)
    print("| K | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for k in STEPS:
        cells = [cell(curve.get(k), scale, digits) for (_, scale, digits), _, curve in columns]
        cells += [printed.get(k, "-")] * bool(printed)
        print(f"| {k} | " + " | ".join(cells) + " |")


def draw(found: dict, path: Path, title: str, floor: float | None) -> None:
    """Every metric against K with ± std over the seeds; floor: energy score of the data itself."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(found), 3.6), dpi=120, layout="constrained")
    for axis, (metric, by_label) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        name, scale, _ = METRICS[metric]
        for (label, curve), color in zip(by_label.items(), ("#3b6fb6", "#d1662b"), strict=False):
            mean, std = scale * np.array([*curve.values()]).T
            axis.plot([*curve], mean, marker="o", color=color, label=label)
            axis.fill_between([*curve], mean - std, mean + std, color=color, alpha=0.2, lw=0)
        if metric == "energy_score" and floor is not None:
            axis.axhline(1000 * floor, color="black", lw=1, ls="--", label="the data itself")
        axis.set(xlabel="K, steps of the sampler", ylabel=name, xticks=STEPS)
        dress(axis)
    figure.suptitle(title)
    figure.savefig(path)


def run(options: Arguments) -> None:
    """Train, evaluate at every K, tabulate and draw."""
    if options.retrain and options.eta == 0:
        raise ValueError("--retrain with --eta 0: K is in the TD target alone; give --eta 5, say")
    options = prepare(options, "horizon")
    if options.retrain and on_toy(options):
        raise ValueError("--retrain on the toy, where every step is terminal; give --env-id")
    table = compare("horizon", options, variants(options.retrain))
    for k, title in TITLES.items() if options.env_id else ():
        if title in table:
            runs = table[title]["run_dirs"]
            table[title]["score"] = {
                str(j): mean_std([episode_score(folder, j, options) for folder in runs])
                for j in (STEPS if k == STEPS[-1] else [k])  # episodes take their time
            }
    write("horizon", options, table)
    if not (found := curves(table)):
        raise ValueError(f"nothing to compare: every run in {options.out} diverged")
    print_curves(found, paper_scores(options))
    path = Path(options.out) / "horizon.png"
    floor, seeds = toy_energy_score() if on_toy(options) else None, options.seeds
    draw(found, path, f"Steps of the sampler, mean ± std of {seeds} seed{'s' * (seeds > 1)}", floor)
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
