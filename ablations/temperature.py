"""Fig. 6b: the temperature eta of the advantage weights (Eq. 14), with their clip and without.

    python ablations/temperature.py               # on the toy, half an hour on one core
    python ablations/temperature.py --quick       # seconds: shows that it works
    python ablations/temperature.py --env-id hopper-medium-expert-v2 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5 --clips 100    # the paper's figure

The paper says "clipped" without a value. A clip decides what a large eta means: at 100 all
advantages beyond ln(100) / eta standard deviations weigh the same, 0.92 at eta = 5. The weights are
those of Eq. 14, not divided by their batch mean (--weight-normalization none). On the toy
the advantages are -1, 0, 1 and 2 standard deviations, so the masses that the weights give its modes
are known, and the trained ones, of what lies on a mode, are compared with them. So is the energy
score on the behaviour's held-out actions; it is no measure of quality here, because a policy that
leaves the behaviour must have a higher one.

On the toy, gradient norms are clipped as Table 4 has it for the figure's task: weights without a
clip reach millions in the first updates, when the critic knows nothing, and would fill Adam's
second moments for thousands of updates in which the policy hardly learns.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import toy
from experiment import (
    EQ_14,
    ArgumentError,
    Options,
    Variant,
    cell,
    check_numbers,
    compare,
    gtp_offline,
    load_policy,
    main,
    mean_std,
    measured,
    new_figure,
    on_toy,
    prepare,
    print_rows,
    refuse_empty,
    seeds_text,
    statuses,
    style,
    write,
)

ETAS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0)  # the paper's
QUICK_ETAS = (2.0, 20.0)
STEPS = str(gtp_offline.Args.num_steps)  # K of the trained policies


@dataclass
class Arguments(Options):
    """Sweep of eta, with and without the clip of the weights."""

    etas: tuple[float, ...] = ()  # none given: 1 2 3 5 7 10 20, on the toy also 0
    clips: tuple[float, ...] = (100.0, math.inf)  # of the weights; inf: none
    num_updates: int = 4_000  # of every run; the paper's tasks take 2,000,000
    hidden_dim: int = 64  # width of the networks; the paper's is 256


@dataclass
class Panel:
    """What is drawn against eta: a row's [mean, std], and what exact masses on the toy give."""

    label: str
    scale: float
    find: Callable
    exact: Callable | None = None


PANELS = (
    Panel(
        "mass on the best mode, %",
        100,
        lambda row: row.get("best_mode"),
        lambda masses: masses[toy.BEST],
    ),
    Panel("normalized score", 1, lambda row: row["normalized_score"]),
    Panel(
        f"held-out energy score x 1000, K = {STEPS}",
        1000,
        lambda row: row["energy_score"].get(STEPS),
        toy.energy_score,
    ),
)


def variants(options: Arguments) -> dict[str, Variant]:
    """Every eta with every clip; without weights (eta = 0) there is nothing to clip."""
    changes = dict(EQ_14)
    if on_toy(options):
        usual = gtp_offline.default_args(env_id="hopper-medium-expert-v2")
        changes["grad_norm"] = usual.grad_norm
        changes["critic_learning_rate"] = 1e-3  # as the actor's there
    found = {}
    for clip in sorted(options.clips):
        for eta in sorted(options.etas):
            if eta == 0:
                found["eta = 0"] = Variant(changes | {"eta": 0.0})
                continue
            title = f"eta = {eta:g}, {clip_text(clip)}"
            found[title] = Variant(changes | {"eta": eta, "max_weight": clip})
    return found


def clip_text(clip: float) -> str:
    """What tables and figures call a clip of the weights."""
    return f"clip {clip:g}" if math.isfinite(clip) else "no clip"


def effective_samples(masses: np.ndarray) -> float:
    """Kish's (E w)^2 / E w^2 of the weights that turn the toy's masses into these: the share of
    the batch that an equally noisy unweighted one would need."""
    return float(1 / (masses**2 / toy.MASSES).sum())


def best_mode_mass(run_dir: str) -> float | None:
    """The mass that a run's policy, with its own K, puts on the toy's best mode, of what is on any;
    None if nothing is, or if it diverged before its first checkpoint."""
    act = load_policy(run_dir)
    if act is None:
        return None
    masses = toy.metrics(act)["masses"]
    return masses[toy.BEST] if sum(masses) else None


def add_exact(row: dict, eta: float, clip: float) -> None:
    """Add to a row on the toy the mass on the best mode, trained and exact, and what else the
    exact masses give."""
    masses = toy.weighted_masses(eta, clip)
    row["best_mode"] = mean_std([best_mode_mass(folder) for folder in row["counted"]])
    row["exact"] = {
        "masses": masses.tolist(),
        "best_mode": float(masses[toy.BEST]),
        "energy_score": toy.energy_score(masses),
        "effective_samples": effective_samples(masses),
    }


def exact_text(row: dict, name: str, scale: float) -> str:
    """A number of a row that is known exactly, '-' where it is not."""
    if "exact" not in row:
        return "-"
    return f"{scale * row['exact'][name]:.0f}"


def print_sweep(table: dict[str, dict]) -> None:
    """Markdown: one row for every eta and clip; what is unknown is '-'."""
    head, key = measured(table)
    heads = [
        "",
        "energy score x 1000",
        "exact",
        "best mode %",
        "exact",
        "off-mode %",
        "effective %",
        head or "score",
        "status",
    ]
    rows = []
    for title, row in table.items():
        cells = [
            title,
            cell(row["energy_score"].get(STEPS), 1000),
            exact_text(row, "energy_score", 1000),
            cell(row.get("best_mode"), 100),
            exact_text(row, "best_mode", 100),
            cell(row.get("off_mode", {}).get(STEPS), 100),
            exact_text(row, "effective_samples", 100),
            cell(row.get(key), 1, 1),
            statuses(row),
        ]
        rows.append(cells)
    print_rows(heads, rows)


def draw(table: dict[str, dict], path: Path, title: str) -> None:
    """What is known of the best mode's mass, score and energy score against eta, for each clip:
    trained as points with ± std over the seeds, on the toy exact as lines."""
    rows = [*table.values()]
    panels = [panel for panel in PANELS if any(panel.find(row) for row in rows)]
    refuse_empty(panels, path.parent)
    ticks = sorted({row["eta"] for row in rows})
    clips = sorted({limit(row) for row in rows if row["eta"] > 0}) or [math.inf]
    figure = new_figure(5 * len(panels), 3.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for i, clip in enumerate(clips):
            same = [row for row in rows if row["eta"] == 0 or limit(row) == clip]
            draw_clip(axis, panel, same, clip, i)
        axis.set_xscale("symlog", linthresh=1)  # 0 is one of the etas
        axis.set_xticks(ticks, [f"{eta:g}" for eta in ticks])
        axis.minorticks_off()
        axis.set(xlabel="eta", ylabel=panel.label)
        style(axis)
    figure.suptitle(title)
    figure.savefig(path)


def limit(row: dict) -> float:
    """The clip of a row's weights, which JSON has as null where there is none."""
    return math.inf if row["clip"] is None else row["clip"]


def draw_clip(axis, panel: Panel, rows: list[dict], clip: float, i: int) -> None:
    """The i-th clip's points in a panel, and on the toy its line."""
    color = f"C{i}"
    label = clip_text(clip)
    lines = "-"
    etas = [row["eta"] for row in rows]
    if "exact" in rows[0]:
        fine = np.linspace(min(etas), max(etas), 400)
        exact = [panel.scale * panel.exact(toy.weighted_masses(eta, clip)) for eta in fine]
        axis.plot(fine, exact, color=color, lw=1.2, label=f"{label}, exact")
        label += ", trained"
        lines = ""
    known = sorted((row for row in rows if panel.find(row)), key=lambda row: row["eta"])
    pairs = np.array([panel.find(row) for row in known]).reshape(-1, 2)
    mean, std = panel.scale * pairs.T
    axis.errorbar(
        [row["eta"] for row in known],
        mean,
        std,
        color=color,
        marker="os^"[i % 3],
        mfc="white" if i else color,
        ms=6 + 2 * i,
        ls=lines,
        capsize=3,
        zorder=3 - i,
        label=label,
    )


def run(options: Arguments) -> None:
    """Train, compare with the exact answers, tabulate and draw."""
    if options.eta:
        raise ArgumentError(f"--eta {options.eta:g} is what is swept; give --etas {options.eta:g}")
    if options.etas:
        most = gtp_offline.LARGEST["eta"]
        takes = f"numbers from 0 to {most:g}"
        check_numbers("--etas", options.etas, lambda eta: 0 <= eta <= most, takes, "g")
    takes = "numbers above 0, or inf"
    check_numbers("--clips", options.clips, lambda clip: clip > 0, takes, "g")
    options = prepare(options, "temperature")
    if not options.etas:
        swept = QUICK_ETAS if options.quick else ETAS
        options = replace(options, etas=(0.0, *swept) if on_toy(options) else swept)
    chosen = variants(options)
    table = compare("temperature", options, chosen)
    for title, row in table.items():
        changes = chosen[title].changes
        clip = changes.get("max_weight", math.inf)
        row["eta"] = changes["eta"]
        row["clip"] = clip if math.isfinite(clip) else None
        if on_toy(options):
            add_exact(row, row["eta"], clip)
    write("temperature", options, table)
    print_sweep(table)
    path = Path(options.out) / "temperature.png"
    draw(table, path, f"Temperature, mean ± std of {seeds_text(options.seeds)}")
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
