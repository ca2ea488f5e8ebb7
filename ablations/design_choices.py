"""The choices that the paper leaves open, each switched alone: what does it cost or bring?

    python ablations/design_choices.py            # on the toy, 72 runs, 1 to 2 hours
    python ablations/design_choices.py --family default --only "no preconditioning" --seeds 1
    python ablations/design_choices.py --quick    # seconds, a few variants: shows that it works
    python ablations/design_choices.py --env-id hopper-medium-expert-v2 --eta 5 \
        --num-updates 2000000 --hidden-dim 256 --seeds 5

Two families of variants: `default` departs from gtp_offline.py's defaults, `letter` from the
paper's letter (--literal), and each variant sets one of the marked differences D1 to D11 to its
value in the other family, so that a choice is seen to matter in both surroundings or in one. The
place of u, on which both are alike, is switched in both. Choices of the critic (V, the clip of the
weights, whose Q they use) take part with --eta above 0, the number of candidates, which changes
only how a policy acts, with --env-id. The judge is the held-out energy score at K = 1, 2 and 5
(README) and, with --env-id, the return. D12, the letter's empty held-out set, is left out in both
families: without held-out transitions there is no energy score.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from experiment import (
    Options,
    Variant,
    compare,
    gtp_offline,
    main,
    on_toy,
    prepare,
    print_table,
    toy_energy_score,
)

FAMILIES = ("default", "letter")
TITLES = {  # field of DIFFERENCES: the title of its default and of the paper's letter
    "consistency_loss": ("pseudo-Huber", "squared error"),
    "consistency_weighting": ("1/(t - u)", "no 1/(t - u)"),
    "flow_weighting": ("flow weighted", "flow not weighted"),
    "lambda_flow": ("lambda_flow {:g}", "lambda_flow {:g}"),
    "t_sampling": ("lognormal t", "uniform t"),
    "sigma_max": ("sigma_max {:g}", "sigma_max {:g}"),
    "preconditioning": ("preconditioning", "no preconditioning"),
    "strict_s": ("s = u allowed", "strict s"),
    "sampler_end": ("sampler to sigma_min", "sampler to 0"),
    "max_weight": ("clip {:g}", "no clip"),
    "eval_actor": ("EMA actor acts", "online actor acts"),
}
CRITIC = ("max_weight", "value", "weight_critic")  # fields that matter only with weights


@dataclass
class Arguments(Options):
    """The silent choices, one at a time."""

    family: Literal["both", "default", "letter"] = "both"  # whose choices are switched


def variants(options: Arguments) -> dict[str, Variant]:
    """{"default": ..., "default, squared error": ..., "letter": ..., "letter, pseudo-Huber": ...}:
    every variant differs from the first of its family in one argument."""
    found = {}
    for i, family in enumerate(FAMILIES):
        base = (
            {"literal": True, "num_holdout": gtp_offline.DIFFERENCES["num_holdout"][0]} if i else {}
        )
        switched = {"": {}}
        for name, words in TITLES.items():
            value = gtp_offline.DIFFERENCES[name][1 - i]
            switched[words[1 - i].format(value)] = {name: value}
        switched["u uniform"] = {"u_sampling": "uniform"}
        switched["V of the policy"] = {"value": "policy"}
        switched["weights from target Q"] = {"weight_critic": "target"}
        if options.env_id is not None:
            switched["50 candidates"] = {"num_candidates": 50}
        few = options.quick and options.only is None
        for words, change in [*switched.items()][: 4 if few else None]:
            if options.eta > 0 or not change.keys() & {*CRITIC}:
                found[f"{family}, {words}".removesuffix(", ")] = Variant(base | change)
    chosen = lambda title: options.family in ("both", title.partition(",")[0])  # noqa: E731
    return {title: variant for title, variant in found.items() if chosen(title)}


def draw(table: dict[str, dict], path: Path, title: str, floor: float | None) -> None:
    """A column of panels for each family: dots with ± std over the seeds for every variant and K,
    and the family's own values as vertical lines; a second row for scores where there are any."""
    from matplotlib.figure import Figure

    steps = sorted({k for row in table.values() for k in row["energy_score"]}, key=int)
    by_steps = {f"K = {k}": (1000, lambda row, k=k: row["energy_score"].get(k)) for k in steps}
    metrics = {"held-out energy score x 1000": by_steps} if steps else {}
    if any(row["normalized_score"] for row in table.values()):
        metrics["normalized score"] = {"": (1, lambda row: row["normalized_score"])}
    families = [f for f in FAMILIES if any(t.partition(",")[0] == f for t in table)]
    count = max(sum(t.partition(",")[0] == f for t in table) for f in families)
    size = (5.5 * len(families), len(metrics) * (1.3 + 0.3 * count))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(len(metrics), len(families), squeeze=False)
    for row_of_axes, (name, series) in zip(axes, metrics.items(), strict=True):
        for axis, family in zip(row_of_axes, families, strict=True):
            rows = {t: row for t, row in table.items() if t.partition(",")[0] == family}
            for i, (label, (scale, find)) in enumerate(series.items()):
                color = ("#d1662b", "#5a9e4b", "#3b6fb6")[i % 3] if label else "#3b6fb6"
                pairs = np.array([find(row) or [np.nan, 0] for row in rows.values()])
                mean, std = scale * pairs.T
                y = np.arange(len(rows)) + 0.15 * (i - (len(series) - 1) / 2)
                axis.errorbar(mean, y, xerr=std, fmt="o", ms=4, capsize=2, color=color, label=label)
                if family in rows and not np.isnan(mean[0]):  # the first of them
                    axis.axvline(mean[0], color=color, lw=0.8, alpha=0.7)
            if series is by_steps and floor is not None:
                axis.axvline(1000 * floor, color="black", lw=1, ls="--", label="the data itself")
            words = [t.partition(", ")[2] or f"{family}, as it is" for t in rows]
            axis.set_yticks(range(len(rows)), words)
            axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel=name, title=f"switched from: {family}")
            axis.grid(axis="y", alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    if len(axes[0][0].get_legend_handles_labels()[1]) > 1:
        figure.legend(
            *axes[0][0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
        )
    figure.suptitle(title)
    figure.savefig(path)


def run(options: Arguments) -> None:
    """Train, tabulate and draw."""
    options = prepare(options, "design_choices")
    table = compare("design_choices", options, variants(options))
    print_table(table)
    path, seeds = Path(options.out) / "design_choices.png", options.seeds
    title = f"One choice at a time, mean ± std of {seeds} seed{'s' * (seeds > 1)}"
    draw(table, path, title, toy_energy_score() if on_toy(options) else None)
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
