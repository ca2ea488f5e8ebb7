"""Fig. 6b: the temperature eta of the advantage weights (Eq. 14), with their clip and without.

    python ablations/temperature.py               # on the toy, half an hour on one core
    python ablations/temperature.py --quick       # seconds: shows that it works
    python ablations/temperature.py --env-id hopper-medium-expert-v2 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5 --clips 100    # the paper's figure

The paper says "clipped" without a value. A clip decides what a large eta means: at the default 100
all advantages beyond ln(100) / eta standard deviations weigh the same, 0.92 at eta = 5. On the toy
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from experiment import (
    TOY_MASSES,
    TOY_REWARDS,
    TOY_STD,
    Options,
    Variant,
    cell,
    compare,
    dress,
    gtp_offline,
    main,
    mean_std,
    on_toy,
    prepare,
    toy_metrics,
    toy_modes,
    toy_weighted_masses,
    write,
)

ETAS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0)  # the paper's
BEST = int(TOY_REWARDS.argmax())
SCALES = (("energy_score", 1000), ("best_mode", 100), ("effective_samples", 100))  # as printed


@dataclass
class Arguments(Options):
    """Sweep of eta, with and without the clip of the weights."""

    etas: tuple[float, ...] = ()  # [1 2 3 5 7 10 20, on the toy also 0]
    clips: tuple[float, ...] = gtp_offline.DIFFERENCES["max_weight"]  # of the weights; inf: none
    num_updates: int = 4_000  # of every run; the paper's tasks take 2,000,000
    hidden_dim: int = 64  # width of the networks; the paper's is 256


def variants(options: Arguments) -> dict[str, Variant]:
    """Every eta with every clip; without weights (eta = 0) there is nothing to clip."""
    changes = {}
    if on_toy(options):
        row = gtp_offline.TASKS["hopper-medium-expert"]
        changes["grad_norm"] = dict(zip(gtp_offline.TASK_FIELDS, row, strict=True))["grad_norm"]
        changes["critic_learning_rate"] = 1e-3  # as the actor's there
    found = {}
    for clip in sorted(options.clips):
        for eta in sorted(options.etas):
            words = f", clip {clip:g}" if math.isfinite(clip) else ", no clip"
            title = f"eta = {eta:g}" + words * (eta > 0)
            weights = {"eta": eta} | ({"max_weight": clip} if eta else {})
            found[title] = Variant(changes | weights)
    return found


def effective_samples(masses: np.ndarray) -> float:
    """Kish's (E w)^2 / E w^2 of the weights that turn the toy's masses into these: the share of
    the batch that an equally noisy unweighted one would need."""
    return float(1 / (masses**2 / TOY_MASSES).sum())


def exact_energy_score(masses: np.ndarray) -> float:
    """The energy score, on the behaviour's actions, of a policy with the toy's modes and these
    masses m: m D p - m D m / 2, D the mean distances of samples of two modes (Rice's formula)."""
    modes = torch.from_numpy(toy_modes(np.zeros((1, 1)))[0])  # every obs turns them all alike
    y = torch.cdist(modes, modes).square() / (4 * TOY_STD**2)
    mean = (1 + y) * torch.special.i0e(y / 2) + y * torch.special.i1e(y / 2)
    distances = TOY_STD * np.sqrt(np.pi) * mean.numpy()
    return float(masses @ distances @ (TOY_MASSES - masses / 2))


def best_mode_mass(run_dir: str) -> float | None:
    """The mass that a run's policy, with its own K, puts on the toy's best mode, of what is on any;
    None if nothing is, or if it diverged before its first checkpoint."""
    if not (Path(run_dir) / "checkpoint.pt").exists():
        return None
    masses = toy_metrics(gtp_offline.load_policy(run_dir))["masses"]
    return masses[BEST] if sum(masses) else None


def print_sweep(table: dict[str, dict]) -> None:
    """Markdown: one row for every eta and clip; what is unknown is '-'."""
    heads = ["energy score x 1000", "exact", "best mode %", "exact", "off-mode %", "effective %"]
    print("| | " + " | ".join([*heads, "score", "status"]) + " |\n" + "|---" * 9 + "|")
    for title, row in table.items():
        k, exact = str(gtp_offline.Args.num_steps), row.get("exact") or {}
        known = {name: f"{scale * exact[name]:.0f}" if exact else "-" for name, scale in SCALES}
        cells = [cell(row["energy_score"].get(k), 1000), known["energy_score"]]
        cells += [cell(row.get("best_mode"), 100), known["best_mode"]]
        cells += [cell(row.get("off_mode", {}).get(k), 100), known["effective_samples"]]
        cells += [cell(row["normalized_score"], 1, 1), ", ".join(sorted({*row["statuses"]}))]
        print(f"| {title} | " + " | ".join(cells) + " |")


def draw(table: dict[str, dict], path: Path, title: str) -> None:
    """What is known of the best mode's mass, score and energy score against eta, for each clip:
    trained as points with ± std over the seeds, on the toy exact as lines."""
    from matplotlib.figure import Figure

    k, toy = str(gtp_offline.Args.num_steps), any("exact" in row for row in table.values())
    panels = [  # y label, factor, a row's [mean, std], what exact masses give
        ("mass on the best mode, %", 100, lambda row: row.get("best_mode"), lambda m: m[BEST]),
        ("normalized score", 1, lambda row: row["normalized_score"], None),
        (f"held-out energy score x 1000, K = {k}", 1000,
            lambda row: row["energy_score"].get(k), exact_energy_score),
    ]  # fmt: skip
    panels = [panel for panel in panels if any(panel[2](row) for row in table.values())]
    ticks = sorted({row["eta"] for row in table.values()})
    clips = {row["clip"] for row in table.values() if row["eta"] > 0} or {None}
    clips = sorted(clips, key=lambda clip: math.inf if clip is None else clip)
    figure = Figure(figsize=(5 * len(panels), 3.8), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (name, scale, find, exactly) in zip(axes, panels, strict=True):
        for i, clip in enumerate(clips):
            label = "no clip" if clip is None else f"clip {clip:g}"
            color, fine = f"C{i}", np.linspace(ticks[0], ticks[-1], 400)
            if toy:
                limit = math.inf if clip is None else clip
                exact = [scale * exactly(toy_weighted_masses(eta, limit)) for eta in fine]
                axis.plot(fine, exact, color=color, lw=1.2, label=f"{label}, exact")
            rows = [row for row in table.values() if row["eta"] == 0 or row["clip"] == clip]
            rows = sorted((row for row in rows if find(row)), key=lambda row: row["eta"])
            mean, std = scale * np.array([find(row) for row in rows]).reshape(-1, 2).T
            etas, style = [row["eta"] for row in rows], {"ls": "" if toy else "-", "capsize": 3}
            style |= {"marker": "os^"[i % 3], "mfc": "white" if i else color, "ms": 6 + 2 * i}
            trained = f"{label}, trained" if toy else label
            axis.errorbar(etas, mean, std, color=color, zorder=3 - i, label=trained, **style)
        axis.set_xscale("symlog", linthresh=1)  # 0 is one of the etas
        axis.set_xticks(ticks, [f"{eta:g}" for eta in ticks])
        axis.minorticks_off()
        axis.set(xlabel="eta", ylabel=name)
        dress(axis)
    figure.suptitle(title)
    figure.savefig(path)


def run(options: Arguments) -> None:
    """Train, compare with the exact answers, tabulate and draw."""
    if options.eta:
        raise ValueError(f"--eta {options.eta:g} is what is swept; give --etas {options.eta:g}")
    options = prepare(options, "temperature")
    swept = (2.0, 20.0) if options.quick else ETAS
    options.etas = options.etas or ((0.0, *swept) if on_toy(options) else swept)
    chosen = variants(options)
    for variant in chosen.values():  # refuses a bad eta or clip before the first run
        gtp_offline.resolve_args(gtp_offline.Args(dataset_path="-", **variant.changes))
    table = compare("temperature", options, chosen)
    for title, row in table.items():
        clip = chosen[title].changes.get("max_weight", math.inf)
        row |= {"eta": chosen[title].changes["eta"], "clip": clip if math.isfinite(clip) else None}
        if on_toy(options):
            masses = toy_weighted_masses(row["eta"], clip)
            row["best_mode"] = mean_std([best_mode_mass(folder) for folder in row["run_dirs"]])
            row["exact"] = {
                "masses": masses.tolist(),
                "best_mode": float(masses[BEST]),
                "energy_score": exact_energy_score(masses),
                "effective_samples": effective_samples(masses),
            }
    write("temperature", options, table)
    print_sweep(table)
    path, seeds = Path(options.out) / "temperature.png", options.seeds
    draw(table, path, f"Temperature, mean ± std of {seeds} seed{'s' * (seeds > 1)}")
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
