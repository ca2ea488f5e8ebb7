"""Fig. 5: weighted behaviour cloning, the data's distribution and the one that values make of it.

    python ablations/weighted_bc.py             # three seeds, four minutes on one slow CPU core
    python ablations/weighted_bc.py --quick     # seconds: shows that it works, not more

One state, actions in one dimension. The data are three bumps that end, so that it is plain what
their support is; the value of an action (its reward, as every step is terminal) is a hill whose top
lies in a gap between two bumps, where there are no data.

1. The exact weighted distribution: the data's density times w(a) of Eq. 14 by gtp_offline.py's
   advantage_weights, with V the mean of Q; with weights clipped at 100, and not (but at e^30,
   against overflow, which only eta = 20 reaches), neither divided by their batch mean.
2. GTPs trained on samples (critic, V and actor all learned, weights clipped at 100): how the masses
   of their bumps agree with the exact ones, and how many actions are outside the data's support.
   The sampler's K is 5, and 20 to tell what is due to few steps.
3. The remark that ends Appendix B.6, that V drops out because it only scales the weights of a
   state: true for exp(eta A) (Eq. 12), not for Eq. 14, which cuts A at 0. The lower V, the nearer
   Eq. 14 comes to Eq. 12; with V at the highest Q all weights are 1, and the policy is a clone.

What comes out, in the table: with K = 20 the masses are the exact ones within about two points.
The exact distribution never leaves the support. A trained one does, as a clone (eta = 0) does too:
a few per cent of its actions lie between bumps, more with K = 5, practically none beyond the outer
ones. The clip matters more than eta: clipped at 100, eta = 20 prefers the best bump less than 5.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import experiment
import numpy as np
import torch
from experiment import (
    EQ_14,
    Variant,
    cell,
    gtp_offline,
    load_policy,
    main,
    mean_std,
    new_figure,
    print_rows,
    style,
)

MEANS = np.array([-0.65, 0.0, 0.65])  # of the three bumps
MASSES = np.array([0.45, 0.4, 0.15])
REACH = 0.2  # half the width of a bump
TOP = 0.36  # of the hill of values
WIDTH = 0.5
MAX_WEIGHT = 100.0
ETAS = (0.0, 1.0, 5.0, 20.0)
TRAINED_ETAS = (0.0, 1.0, 5.0)
NUM_STEPS = (5, 20)  # K of the sampler
CHANGES = {  # what makes small networks learn fast
    "learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "tau": 0.01,
    "grad_norm": 5.0,
    "num_steps": 1,  # in training, where next actions do not matter
    "max_weight": MAX_WEIGHT,
} | EQ_14


@dataclass
class Arguments:
    """Weighted behaviour cloning in one dimension."""

    out: str = "runs/weighted_bc"  # folder of the runs, the results and the figure
    seeds: int = 3  # runs for each eta
    first_seed: int = 0  # seeds first_seed, first_seed + 1, ...
    num_updates: int = 3_000  # of every run
    hidden_dim: int = 64  # width of the networks
    device: str = "cpu"  # or cuda
    quick: bool = False  # one seed of a few updates


# ---- what is known -----------------------------------------------------------------------------


def density(a: np.ndarray) -> np.ndarray:
    """Of the data's actions: bumps 15/16 (1 - d^2)^2 / REACH with |d| <= 1, (n,) -> (n,)."""
    d = (a[:, None] - MEANS) / REACH
    bumps = 15 / 16 * np.maximum(0, 1 - d**2) ** 2
    return bumps @ MASSES / REACH


def value(a: np.ndarray) -> np.ndarray:
    """Q(a), highest at TOP."""
    d = (a - TOP) / WIDTH
    return np.exp(-(d**2))


def behaviour(count: int = 30_001) -> np.ndarray:
    """Actions (count,) at equally spaced quantiles of the data: every mean over them is exact."""
    a = np.linspace(-1, 1, 200_001)
    cdf = np.cumsum(density(a))
    quantiles = (np.arange(count) + 0.5) / count
    return np.interp(quantiles, cdf / cdf[-1], a)


def distances(a: np.ndarray) -> np.ndarray:
    """From the middle of every bump, (..., 3)."""
    return np.abs(a[..., None] - MEANS)


def masses(a: np.ndarray, weights: np.ndarray | None = None) -> list[float]:
    """The share of each bump, actions outside going to the nearest, (n,) -> (3,)."""
    nearest = distances(a).argmin(-1)
    sums = np.bincount(nearest, weights, minlength=3)
    return (sums / sums.sum()).tolist()


def weights(a: np.ndarray, eta: float, max_weight: float, shift: float = 0) -> np.ndarray:
    """w of Eq. 14 at all actions of the behaviour, mean 1; V = E[Q] + shift."""
    q = value(a)
    advantage = torch.from_numpy(q - q.mean() - shift)
    w = gtp_offline.advantage_weights(advantage, eta, max_weight).numpy()
    return w / w.mean()


def uncut_weights(a: np.ndarray, eta: float, shift: float = 0) -> np.ndarray:
    """w of Eq. 12, A in its standard deviations, mean 1; V = E[Q] + shift."""
    q = value(a)
    w = np.exp(eta * (q - q.mean() - shift) / q.std())
    return w / w.mean()


def shifted_values(eta: float) -> list[dict]:
    """Part 3: distributions by Eqs. 14 and 12, without clip, for different V; moved is the total
    variation distance to that with V = E[Q]."""
    a = behaviour()
    q = value(a)
    shifts = {
        "lowest Q": q.min() - q.mean(),
        "mean of Q - std / 2": -q.std() / 2,
        "mean of Q": 0.0,
        "mean of Q + std / 2": q.std() / 2,
        "highest Q": q.max() - q.mean(),
    }
    usual = weights(a, eta, math.inf)
    usual_eq12 = uncut_weights(a, eta)
    rows = []
    for name, shift in shifts.items():
        cut = weights(a, eta, math.inf, shift)
        uncut = uncut_weights(a, eta, shift)
        row = {
            "V": name,
            "eta": eta,
            "masses": masses(a, cut),
            "moved": np.abs(cut - usual).mean() / 2,
            "masses_eq12": masses(a, uncut),
            "moved_eq12": np.abs(uncut - usual_eq12).mean() / 2,
        }
        rows.append(row)
    return rows


def exact_rows() -> list[dict]:
    """Part 1: the masses of the weighted distribution, with the clip and without (None)."""
    a = behaviour()
    rows = []
    for eta in ETAS:
        for clip in (MAX_WEIGHT, None):
            w = weights(a, eta, clip or math.inf)
            rows.append({"eta": eta, "max_weight": clip, "masses": masses(a, w)})
    return rows


# ---- what is trained ---------------------------------------------------------------------------


def write_dataset(path: Path, rows: int = 20_000) -> None:
    """The bandit with D4RL's keys: actions of the behaviour, rewards are their values."""
    rng = np.random.default_rng(0)
    bump = 2 * rng.beta(3, 3, rows) - 1
    a = MEANS[rng.choice(3, rows, p=MASSES)] + REACH * bump
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial.npz")
    np.savez(
        unfinished,
        observations=np.zeros((rows, 1), np.float32),
        actions=a[:, None].astype(np.float32),
        rewards=value(a).astype(np.float32),
        terminals=np.ones(rows, bool),
    )
    unfinished.replace(path)


def train(arguments: Arguments) -> list[dict]:
    """Part 2: a row for each eta and K."""
    data = Path(arguments.out) / "bandit.npz"
    options = experiment.Options(**asdict(arguments), dataset_path=str(data))
    options = experiment.prepare(options, "weighted_bc")
    variants = {f"eta {eta:g}": Variant(CHANGES | {"eta": eta}) for eta in TRAINED_ETAS}
    experiment.check_variants(variants, options)
    experiment.make_out(options.out)
    if not data.exists():
        write_dataset(data)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for results in experiment.check_grid(variants, seeds, options):
        experiment.refuse_diverged(results)
        experiment.refuse_lost(results)
    rows = []
    for eta, (title, variant) in zip(TRAINED_ETAS, variants.items(), strict=True):
        runs = [experiment.run(title, variant, seed, options) for seed in seeds]
        for results in runs:
            experiment.refuse_diverged(results)
        folders = [results["run_dir"] for results in runs]
        rows += [{"eta": eta} | trained_row(folders, k) for k in NUM_STEPS]
    return rows


def trained_row(run_dirs: list[str], num_steps: int) -> dict:
    """Masses and off-support shares over the seeds, and the pooled actions, at one K."""
    obs = np.zeros((20_000, 1), np.float32)
    acts = [load_policy(folder, num_steps=num_steps) for folder in run_dirs]
    actions = np.stack([act(obs)[:, 0] for act in acts])
    outside = distances(actions).min(-1) > REACH
    by_seed = np.array([masses(own) for own in actions])
    return {
        "num_steps": num_steps,
        "run_dirs": run_dirs,
        "masses": [mean_std(mass) for mass in by_seed.T],
        "outside": mean_std(outside.mean(1)),
        "actions": actions.ravel(),
    }


# ---- tables and figure -------------------------------------------------------------------------


def print_masses(exact: list[dict], trained: list[dict]) -> None:
    """Markdown: exact and trained masses."""
    rows = []
    for eta in ETAS:
        for row in exact:
            if row["eta"] == eta:
                clip = f"clipped at {MAX_WEIGHT:g}" if row["max_weight"] else "not clipped"
                cells = [f"{100 * mass:.1f}" for mass in row["masses"]]
                rows.append([f"{eta:g}", f"exact, {clip}", *cells, "0"])
        for row in trained:
            if row["eta"] == eta:
                cells = [cell(pair, 100, 1) for pair in (*row["masses"], row["outside"])]
                rows.append([f"{eta:g}", f"trained, K = {row['num_steps']}", *cells])
    heads = ["eta", "", "left %", "middle %", "right %", "outside the support %"]
    print()
    print_rows(heads, rows)


def print_shifted(shifted: list[dict]) -> None:
    """Markdown: masses with V shifted."""
    rows = []
    for row in shifted:
        cells = [f"{row['eta']:g}", row["V"]]
        for equation in ("", "_eq12"):
            cells.append(" / ".join(f"{100 * mass:.1f}" for mass in row["masses" + equation]))
            cells.append(f"{100 * row['moved' + equation]:.1f}")
        rows.append(cells)
    heads = ["eta", "V", "Eq. 14: masses %", "moved %", "Eq. 12: masses %", "moved %"]
    print()
    print_rows(heads, rows)


GRID = np.linspace(-1, 1, 1001)  # where the curves are drawn


def draw_weighted(axis, eta: float, max_weight: float, shift: float = 0, **looks) -> None:
    """The density of the weighted distribution."""
    a = behaviour()
    w = np.interp(GRID, a, weights(a, eta, max_weight, shift))
    axis.plot(GRID, density(GRID) * w, **looks)


def draw_eta(axis, eta: float, trained: list[dict]) -> None:
    """The data, the weighted distributions and the trained policy's actions."""
    axis.set_title(f"$\\eta$ = {eta:g}")
    axis.plot(GRID, density(GRID), color="black", label="data (exact)")
    k = NUM_STEPS[-1]
    for row in trained:
        if row["eta"] == eta and row["num_steps"] == k:
            axis.hist(
                row["actions"],
                bins=100,
                range=(-1, 1),
                density=True,
                color="#f2b8b0",
                label=f"trained GTP, K = {k}",
            )
    if eta > 0:
        label = f"weighted, clipped at {MAX_WEIGHT:g} (exact)"
        draw_weighted(axis, eta, MAX_WEIGHT, color="#c0392b", label=label)
        label = "weighted, no clip (exact)"
        draw_weighted(axis, eta, math.inf, color="#c0392b", ls=":", label=label)


def draw_shifts(axis) -> None:
    """The distributions of Eq. 14 with the lowest, the usual and the highest V."""
    axis.set_title("$\\eta$ = 1, V shifted (exact)")
    q = value(behaviour())
    lowest = q.min() - q.mean()
    highest = q.max() - q.mean()
    draw_weighted(axis, 1, math.inf, lowest, color="#e08e45", label="V = lowest Q")
    draw_weighted(axis, 1, math.inf, color="#c0392b", label="V = mean of Q")
    draw_weighted(axis, 1, math.inf, highest, color="black", label="V = highest Q")


def draw(trained: list[dict], path: Path) -> None:
    """A panel for each eta, and one for V."""
    figure = new_figure(15, 4)
    axes = figure.subplots(1, len(ETAS) + 1, sharey=True)
    for axis, eta in zip(axes, ETAS, strict=False):
        draw_eta(axis, eta, trained)
    draw_shifts(axes[-1])
    for axis in axes:
        axis.plot(GRID, value(GRID), "--", color="#3b6fb6", lw=1, label="value of the action")
        axis.set(xlim=(-1, 1), ylim=(0, 6), xlabel="action")
        style(axis)
    for axis in axes[:-1]:
        axis.get_legend().remove()  # one for all of them, below
    axes[0].set_ylabel("density")
    handles, labels = axes[1].get_legend_handles_labels()  # eta = 1 has everything
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))
    figure.savefig(path)


def run(arguments: Arguments) -> None:
    """Compute, train, print and draw everything."""
    trained = train(arguments)
    exact = exact_rows()
    shifted = shifted_values(1.0) + shifted_values(5.0)
    print_masses(exact, trained)
    print_shifted(shifted)
    results = {
        "options": asdict(arguments),
        "exact": exact,
        "trained": [{k: v for k, v in row.items() if k != "actions"} for row in trained],
        "shifted": shifted,
    }
    file = Path(arguments.out) / "weighted_bc.json"
    gtp_offline.write_json(file, results)
    draw(trained, file.with_suffix(".png"))
    print(f"\n{file}, {file.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
