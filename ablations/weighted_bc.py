"""Fig. 5: weighted behaviour cloning, the data's distribution and the one that values make of it.

    python ablations/weighted_bc.py             # three seeds, four minutes on one slow CPU core
    python ablations/weighted_bc.py --quick     # seconds: shows that it works, not more

One state, actions in one dimension. The data are three bumps that end, so that it is plain what
their support is; the value of an action (its reward, as every step is terminal) is a hill whose top
lies in a gap between two bumps, where there are no data.

1. The exact weighted distribution: the data's density times w(a) of Eq. 14 by gtp_offline.py's
   advantage_weights, with V the mean of Q; with weights clipped at 100, the default there, and not
   (but at e^30, against overflow, which only eta = 20 reaches).
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

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import experiment
import numpy as np
import torch
from experiment import Variant, cell, main, mean_std, write_json

import gtp_offline

MEANS, MASSES, REACH = np.array([-0.65, 0.0, 0.65]), np.array([0.45, 0.4, 0.15]), 0.2
TOP, WIDTH = 0.36, 0.5  # of the hill of values
MAX_WEIGHT = gtp_offline.DIFFERENCES["max_weight"][0]
ETAS, TRAINED_ETAS = (0.0, 1.0, 5.0, 20.0), (0.0, 1.0, 5.0)
NUM_STEPS = 5, 20  # K of the sampler
CHANGES = {  # what makes small networks learn fast; K = 1 only where next actions do not matter
    "learning_rate": 3e-3, "critic_learning_rate": 3e-3, "tau": 0.01, "grad_norm": 5.0,
    "num_steps": 1,
}  # fmt: skip


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
    return 15 / 16 * np.maximum(0, 1 - d**2) ** 2 @ MASSES / REACH


def value(a: np.ndarray) -> np.ndarray:
    """Q(a), highest at TOP."""
    return np.exp(-(((a - TOP) / WIDTH) ** 2))


def behaviour(count: int = 30_001) -> np.ndarray:
    """Actions (count,) at equally spaced quantiles of the data: every mean over them is exact."""
    a = np.linspace(-1, 1, 200_001)
    cdf = np.cumsum(density(a))
    return np.interp((np.arange(count) + 0.5) / count, cdf / cdf[-1], a)


def masses(a: np.ndarray, weights: np.ndarray | None = None) -> list[float]:
    """The share of each bump, actions outside going to the nearest, (n,) -> (3,)."""
    nearest = np.abs(a[:, None] - MEANS).argmin(1)
    return (np.bincount(nearest, weights, 3) / np.bincount(nearest, weights).sum()).tolist()


def weights(a: np.ndarray, eta: float, max_weight: float, shift: float = 0) -> np.ndarray:
    """w of Eq. 14 at all actions of the behaviour, mean 1; V = E[Q] + shift."""
    q = value(a)
    advantage = torch.from_numpy(q - q.mean() - shift)
    w = gtp_offline.advantage_weights(advantage, eta, max_weight).numpy()
    return w / w.mean()


def shifted_values(eta: float) -> list[dict]:
    """Part 3: distributions by Eqs. 14 and 12 (A in its standard deviations), without clip, for
    different V; moved is the total variation distance to that with V = E[Q]."""
    a, rows = behaviour(), []
    q = value(a)
    for name, v in {
        "lowest Q": q.min(), "mean of Q - std / 2": q.mean() - q.std() / 2, "mean of Q": q.mean(),
        "mean of Q + std / 2": q.mean() + q.std() / 2, "highest Q": q.max(),
    }.items():  # fmt: skip
        cut = weights(a, eta, math.inf, v - q.mean())
        full, usual = (np.exp(eta * (q - v) / q.std()) for v in (v, q.mean()))
        full, usual = full / full.mean(), usual / usual.mean()
        moved = [
            np.abs(cut - weights(a, eta, math.inf)).mean() / 2,
            np.abs(full - usual).mean() / 2,
        ]
        rows.append({"V": name, "eta": eta, "masses": masses(a, cut), "moved": moved[0]})
        rows[-1] |= {"masses_eq12": masses(a, full), "moved_eq12": moved[1]}
    return rows


# ---- what is trained ---------------------------------------------------------------------------


def write_dataset(path: Path, rows: int = 20_000) -> None:
    """The bandit with D4RL's keys: actions of the behaviour, rewards are their values."""
    rng = np.random.default_rng(0)
    bump = 2 * rng.beta(3, 3, rows) - 1
    a = MEANS[rng.choice(3, rows, p=MASSES)] + REACH * bump
    arrays = {"observations": np.zeros((rows, 1)), "actions": a[:, None], "rewards": value(a)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays, terminals=np.ones(rows, bool))


def train(arguments: Arguments) -> list[dict]:
    """A row for each eta and K: masses and off-support shares over the seeds, pooled actions."""
    data = Path(arguments.out) / "bandit.npz"
    options = experiment.Options(**asdict(arguments), dataset_path=str(data))
    options = experiment.prepare(options, "weighted_bc")
    if not data.exists():
        write_dataset(data)
    rows = []
    for eta in TRAINED_ETAS:
        variant = Variant(CHANGES | {"eta": eta, "max_weight": MAX_WEIGHT})
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        runs = [experiment.run(f"eta {eta:g}", variant, seed, options) for seed in seeds]
        if bad := [run["run_dir"] for run in runs if run["status"] != "finished"]:
            raise ValueError(f"{bad[0]} diverged; remove it and give fewer or other updates")
        for k in NUM_STEPS:
            acts = [gtp_offline.load_policy(run["run_dir"], num_steps=k) for run in runs]
            samples = np.stack([act(np.zeros((20_000, 1), np.float32))[:, 0] for act in acts])
            outside = np.abs(samples[..., None] - MEANS).min(-1) > REACH
            rows.append({
                "eta": eta, "num_steps": k, "run_dirs": [run["run_dir"] for run in runs],
                "masses": [mean_std(m) for m in zip(*map(masses, samples), strict=True)],
                "outside": mean_std(outside.mean(1)), "actions": samples.ravel(),
            })  # fmt: skip
    return rows


# ---- tables and figure -------------------------------------------------------------------------


def print_tables(exact: list[dict], trained: list[dict], shifted: list[dict]) -> None:
    """Markdown: exact and trained masses; masses with V shifted."""
    print("\n| eta | | left % | middle % | right % | outside the support % |\n" + "|---" * 6 + "|")
    for eta in ETAS:
        for row in (row for row in exact if row["eta"] == eta):
            clip = f"clipped at {MAX_WEIGHT:g}" if row["max_weight"] else "not clipped"
            numbers = " | ".join(f"{100 * m:.1f}" for m in row["masses"])
            print(f"| {eta:g} | exact, {clip} | {numbers} | 0 |")
        for row in (row for row in trained if row["eta"] == eta):
            numbers = " | ".join(cell(m, 100, 1) for m in [*row["masses"], row["outside"]])
            print(f"| {eta:g} | trained, K = {row['num_steps']} | {numbers} |")
    heads = "eta | V | Eq. 14: masses % | moved % | Eq. 12: masses % | moved %"
    print(f"\n| {heads} |\n" + "|---" * 6 + "|")
    for row in shifted:
        cells = [f"{row['eta']:g}", row["V"]]
        for end in ("", "_eq12"):
            cells.append(" / ".join(f"{100 * m:.1f}" for m in row["masses" + end]))
            cells.append(f"{100 * row['moved' + end]:.1f}")
        print("| " + " | ".join(cells) + " |")


def draw(trained: list[dict], path: Path) -> None:
    """A panel for each eta, and one for V."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(ETAS) + 1, sharey=True)
    a, x, red = behaviour(), np.linspace(-1, 1, 1001), "#c0392b"
    weighted = lambda *given: density(x) * np.interp(x, a, weights(a, *given))  # noqa: E731
    for axis, eta in zip(axes, ETAS, strict=False):
        axis.set_title(f"$\\eta$ = {eta:g}")
        axis.plot(x, density(x), color="black", label="data (exact)")
        for row in trained:
            if (row["eta"], row["num_steps"]) == (eta, NUM_STEPS[-1]):
                axis.hist(row["actions"], 100, range=(-1, 1), density=True, color="#f2b8b0",
                    label=f"trained GTP, K = {NUM_STEPS[-1]}")  # fmt: skip
        if eta > 0:
            label = f"weighted, clipped at {MAX_WEIGHT:g} (exact)"
            axis.plot(x, weighted(eta, MAX_WEIGHT), color=red, label=label)
            axis.plot(x, weighted(eta, math.inf), ":", color=red, label="weighted, no clip (exact)")
    q = value(a) - value(a).mean()
    for label, shift, color in (
        ("V = lowest Q", q.min(), "#e08e45"),
        ("V = mean of Q", 0, red),
        ("V = highest Q", q.max(), "black"),
    ):
        axes[-1].plot(x, weighted(1, math.inf, shift), color=color, label=label)
    axes[-1].set_title("$\\eta$ = 1, V shifted (exact)")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left")
    for axis in axes:
        axis.plot(x, value(x), "--", color="#3b6fb6", lw=1, label="value of the action")
        axis.set(xlim=(-1, 1), ylim=(0, 6), xlabel="action")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("density")
    handles, labels = axes[1].get_legend_handles_labels()  # eta = 1 has everything
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))
    figure.savefig(path)


def run(arguments: Arguments) -> None:
    """Compute, train, print and draw everything."""
    trained = train(arguments)
    a = behaviour()
    exact = [
        {"eta": eta, "max_weight": clip, "masses": masses(a, weights(a, eta, clip or math.inf))}
        for eta in ETAS
        for clip in (MAX_WEIGHT, None)
    ]
    shifted = [row for eta in (1.0, 5.0) for row in shifted_values(eta)]
    print_tables(exact, trained, shifted)
    file = Path(arguments.out) / "weighted_bc.json"
    rows = [{k: v for k, v in row.items() if k != "actions"} for row in trained]
    results = {"options": asdict(arguments), "exact": exact, "trained": rows, "shifted": shifted}
    write_json(file, results)
    draw(trained, file.with_suffix(".png"))
    print(f"\n{file}, {file.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
