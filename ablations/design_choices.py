"""The choices that the paper leaves open, each switched alone: what does it cost or bring?

    python ablations/design_choices.py            # on the toy, 72 runs, 1 to 2 hours
    python ablations/design_choices.py --family default --only "no preconditioning" --seeds 1
    python ablations/design_choices.py --quick    # seconds, a few variants: shows that it works
    python ablations/design_choices.py --env-id hopper-medium-expert-v2 --eta 5 \
        --num-updates 2000000 --hidden-dim 256 --seeds 5

Two families of variants: `default` departs from gtp_offline.py's defaults, `letter` from the
paper's letter (--literal), and each variant sets one of the differences of docs/differences.md to
its value in the other family, so that a choice is seen to matter in both surroundings or in one.
On the place of u both are alike: it is switched in both.
Choices of the critic (V, the weights, whose Q they use) take part with --eta above 0, the number of
candidates, which changes only how a policy acts, with --env-id. The judge is the held-out energy
score at K = 1, 2 and 5 (README) and, with --env-id, the return. D12, the letter's empty held-out
set, is left out in both families: without held-out transitions there is no energy score. Nor are
observations normalised on the toy by default, whose scale is right.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from experiment import (
    Options,
    Variant,
    arguments,
    compare,
    draw_data_score,
    floor,
    gtp_offline,
    main,
    measured,
    new_figure,
    prepare,
    print_table,
    refuse_empty,
    seeds_text,
    steps_of,
    style,
)

FAMILIES = ("default", "letter")
TITLES = {  # field of Args: the title of its default and of the paper's letter
    "consistency_loss": ("pseudo-Huber", "squared error"),
    "consistency_weighting": ("1/(t - u)", "no 1/(t - u)"),
    "flow_weighting": ("flow weighted", "flow not weighted"),
    "lambda_flow": ("lambda_flow {:g}", "lambda_flow {:g}"),
    "t_sampling": ("lognormal t", "uniform t"),
    "sigma_max": ("sigma_max {:g}", "sigma_max {:g}"),
    "preconditioning": ("preconditioning", "no preconditioning"),
    "strict_s": ("s = u allowed", "strict s"),
    "sampler_end": ("sampler to sigma_min", "sampler to 0"),
    "eval_actor": ("EMA actor acts", "online actor acts"),
    "ema_every": ("EMA over {:g} updates per tau", "EMA over {:g} update per tau"),
    "truncate_advantage": ("weights on both sides of V", "weights truncated at V"),
    "std_floor": ("std(A) at least {:g} |Q|", "std(A) at least {:g} |Q|"),
    "max_weight": ("weights at most {:g}", "weights not bounded"),
    "weight_normalization": ("weights over their mean", "weights as they are"),
    "td_target": ("V as target", "Eq. 16 as target"),
    "expectile": ("V an expectile", "V a mean"),
    "weight_critic": ("target Q weighs", "online Q weighs"),
    "critic_norm": ("LayerNorm in the critic", "no LayerNorm in the critic"),
    "normalize_observations": ("normalized observations", "raw observations"),
}
BOTH = {  # what is switched in both families
    "u uniform": {"u_sampling": "uniform"},
    "V of the policy": {"value": "policy"},
    "50 candidates": {"num_candidates": 50},
}
CRITIC = (  # choices that cloning does without
    "truncate_advantage",
    "std_floor",
    "max_weight",
    "weight_normalization",
    "td_target",
    "expectile",
    "weight_critic",
    "critic_norm",
    "value",
)
COLORS = ("#d1662b", "#5a9e4b", "#3b6fb6")


@dataclass
class Arguments(Options):
    """The silent choices, one at a time."""

    family: Literal["both", "default", "letter"] = "both"  # whose choices are switched


def switches(family: str) -> dict[str, dict]:
    """{title: the change} of every choice of a family."""
    other = gtp_offline.default_args(dataset_path="-", literal=family == "default")
    found = {}
    for name, titles in TITLES.items():
        value = getattr(other, name)
        title = titles[family == "default"].format(value)
        found[title] = {name: value}
    return found | BOTH


def matters(change: dict, base: dict, options: Arguments) -> bool:
    """Whether a choice has a part in these runs, and is not already as it would be."""
    (name,) = change
    if name in CRITIC and options.eta == 0:
        return False
    usual = arguments(Variant(base), 0, options)
    if name == "value" and usual.td_target == "expectile":  # which takes a learned V
        return False
    if name == "num_candidates" and not options.env_id:
        return False
    return getattr(usual, name) != change[name]


def variants(options: Arguments) -> dict[str, Variant]:
    """{"default": ..., "default, squared error": ..., "letter": ..., "letter, pseudo-Huber": ...}:
    every variant differs from the first of its family in one argument."""
    usual = gtp_offline.default_args(dataset_path="-")
    bases = {"default": {}, "letter": {"literal": True, "num_holdout": usual.num_holdout}}
    few = 3 if options.quick and not options.only else None
    found = {}
    for family, base in bases.items():
        if options.family not in ("both", family):
            continue
        found[family] = Variant(base)
        for title, change in [*switches(family).items()][:few]:
            if matters(change, base, options):
                found[f"{family}, {title}"] = Variant(base | change)
    return found


def family_of(title: str) -> str:
    """The family that a variant belongs to."""
    return title.partition(",")[0]


def draw(table: dict[str, dict], path: Path, title: str, data_score: float | None) -> None:
    """A column of panels for each family: dots with ± std over the seeds for every variant and K,
    and the family's own values as vertical lines; a second row for scores where there are any."""
    families = {family: {} for family in FAMILIES if any(family_of(t) == family for t in table)}
    for name, row in table.items():
        families[family_of(name)][name] = row
    steps = steps_of(table)
    head, key = measured(table)
    draws = []
    if steps:
        draws.append(partial(draw_energy_scores, steps=steps, data_score=data_score))
    if head:
        draws.append(partial(draw_scores, head=head, key=key))
    refuse_empty(draws, path.parent)
    count = max(len(rows) for rows in families.values())
    figure = new_figure(5.5 * len(families), len(draws) * (1.3 + 0.3 * count))
    axes = figure.subplots(len(draws), len(families), squeeze=False)
    for draw_panel, row_of_axes in zip(draws, axes, strict=True):
        for axis, (family, rows) in zip(row_of_axes, families.items(), strict=True):
            draw_panel(axis, rows)
            finish(axis, family, [*rows])
    handles, labels = axes[0][0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    figure.savefig(path)


def draw_energy_scores(axis, rows: dict[str, dict], steps: list[str], data_score) -> None:
    """The held-out energy scores of a family's variants at each K."""
    for i, k in enumerate(steps):
        pairs = [row["energy_score"].get(k) for row in rows.values()]
        shift = 0.15 * (i - (len(steps) - 1) / 2)
        dots(axis, pairs, 1000, shift, color=COLORS[i % 3], label=f"K = {k}")
    draw_data_score(axis.axvline, data_score)
    axis.set(xlabel="held-out energy score x 1000")


def draw_scores(axis, rows: dict[str, dict], head: str, key: str) -> None:
    """The scores, or returns, of a family's variants."""
    dots(axis, [row[key] for row in rows.values()], 1, 0, color=COLORS[-1])
    axis.set(xlabel="normalized score" if head == "score" else head)


def dots(axis, pairs: list, scale: float, shift: float, **looks) -> None:
    """[mean, std] or None of every variant, one below the other, and a line through the first."""
    mean, std = scale * np.array([pair or [np.nan, 0] for pair in pairs]).T
    y = np.arange(len(pairs)) + shift
    axis.errorbar(mean, y, xerr=std, fmt="o", ms=4, capsize=2, **looks)
    if not np.isnan(mean[0]):
        axis.axvline(mean[0], color=looks["color"], lw=0.8, alpha=0.7)


def finish(axis, family: str, titles: list[str]) -> None:
    """Names of the variants, title and looks of a panel."""
    words = [title.partition(", ")[2] or f"{family}, as it is" for title in titles]
    axis.set_yticks(range(len(titles)), words)
    axis.set(ylim=(len(titles) - 0.5, -0.5), title=f"switched from: {family}")
    style(axis)
    if axis.get_legend():
        axis.get_legend().remove()  # one for all panels, below


def run(options: Arguments) -> None:
    """Train, tabulate and draw."""
    options = prepare(options, "design_choices")
    table = compare("design_choices", options, variants(options))
    print_table(table)
    path = Path(options.out) / "design_choices.png"
    draw(
        table,
        path,
        f"One choice at a time, mean ± std of {seeds_text(options.seeds)}",
        floor(options),
    )
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
