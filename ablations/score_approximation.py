"""Theorem 1 and Appendix B.4 in numbers: how far the score approximation leads from the ODE.

    python ablations/score_approximation.py             # a minute; nothing is trained or drawn
    python ablations/score_approximation.py --quick     # coarser grids only, seconds
    python ablations/score_approximation.py --masses 0.5 0.5 --std 0.1

The data are two Gaussian modes in one dimension, where everything is known: E[. | x_t], and the
exact solution map, which is monotone and so keeps quantiles, Phi(x, t, s) = F_s^-1(F_t(x)). No
network and no samples, hence no seeds: the same numbers every time.

1. Where training ends. With squared error the consistency loss (Eq. 17, x_u = a + u z, Eq. 11) is
   least not for the solution map Phi but for Phi*(x_t, t, s) = E[Phi*(a + u z, u, s) | x_t], mean
   also over u, with Phi*(x, s, s) = x. Both make one step from sigma_max to s = sigma_min:
     W1         Wasserstein distance of the actions to the data
     bias       root mean square of Phi* - Phi, x_t distributed as in training
     off-mode   actions more than four standard deviations from both modes
   u is the grid point below t (adjacent), or any between s and t (uniform), or that with weight
   1 / (t - u), as in gtp_offline.py (whose pseudo-Huber distance ends elsewhere, not here).
2. Theorem 1, a fixed gap from t to u, crossed in more and more steps of a solver of order p; the
   states are X* on the true field and X~ on the surrogate (x - a) / t.
3. The other reading, one step of a shrinking gap h = t - u; also the losses, |L_prac - L_ideal|.

What comes out, in the tables:
- Phi* is the mean end of a walk x_t -> a + u z that draws a anew from p(a | x_t) at each step. It
  keeps the data's mean and draws the actions together. With u adjacent that vanishes as N grows:
  as 1 / N for one Gaussian, but as 1 / sqrt(N) for two separate modes, where it blurs the border
  between them; their masses stay right. With u uniform there are only a few, long jumps however
  fine the grid, and most of the bias is there at every N; the weight 1 / (t - u) hardly helps.
- The surrogate field is constant along its line. Any solver, any number of steps ends at a + u z,
  so for a fixed gap |X~ - X*| does not fall at all, where Eq. 43 says O(h^p). The proof bounds a
  conditional mean (Lemma 2) and uses it as a bound of the mean norm (Eq. 47).
- So h has to be t - u, as Appendix B.4 has it, and then the solver's order p does not matter:
  |X~ - X*| is O(h), its conditional mean O(h^2) (0 for Euler; Lemma 2 says O(h^(p+1))). The losses
  differ by O(h^2) where Phi is smooth, and by O(h) down to sigma_min, where it is nearly a step.
  Eq. 10 thus holds with p = 1, and the approximation is justified by u near t, not by a solver.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from experiment import main, write_json

import gtp_offline

SIGMA_MIN = 0.002
ALL = (11, 41, 161, 641, 1281)  # N
CASES = {  # title: how u is drawn, N, sizes of the numerical method, color
    "u adjacent": ("adjacent", ALL, {}, "#3b6fb6"),
    "u uniform": ("uniform", ALL[:4], {"knots": 401, "nodes": 8}, "#c0392b"),
    "u uniform, weighted": ("weighted", ALL[:4], {"knots": 401, "nodes": 8}, "#e08e45"),
    "u adjacent, one Gaussian": ("adjacent", ALL, {}, "#7f8c8d"),
}  # N u below N t take N^2 steps: no 1281; but few long jumps, smoother functions, fewer knots
SOLVERS = {"Euler": 1, "Runge-Kutta": 4}  # their order
GAP = 1.0, 0.25  # the fixed t and u
LEVELS = (torch.arange(4_001, dtype=torch.float64) + 0.5) / 4_001  # x at these quantiles


@dataclass
class Arguments:
    """Bias of the score approximation on two modes at -mode and mode."""

    out: str = "runs/score_approximation"  # folder of the results and the figure
    sigma_max: float = 80.0  # largest noise level, where the one step begins
    mode: float = 0.7  # the modes' distance from 0
    std: float = 0.05  # the modes' standard deviation
    masses: tuple[float, float] = (0.3, 0.7)  # of the left and the right mode
    quick: bool = False  # only up to N = 161 (41 for u uniform)


@dataclass(frozen=True)
class Mixture:
    """Gaussians of one width, (K,) means and masses; x_t = a + t z has the width hypot(std, t)."""

    means: torch.Tensor
    masses: torch.Tensor
    std: float

    def cdf(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """F_t(x)."""
        z = (x[..., None] - self.means) / math.hypot(self.std, t)
        return (self.masses * torch.special.ndtr(z)).sum(-1)

    def quantile(self, p: torch.Tensor, t: float) -> torch.Tensor:
        """F_t^-1(p), by bisection."""
        reach = 10 * math.hypot(self.std, t)
        low = torch.full_like(p, float(self.means.min()) - reach)
        high = torch.full_like(p, float(self.means.max()) + reach)
        for _ in range(50):
            middle = (low + high) / 2
            below = self.cdf(middle, t) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def flow_map(self, x: torch.Tensor, t: float, s: float) -> torch.Tensor:
        """The exact Phi(x, t, s)."""
        return self.quantile(self.cdf(x, t), s)

    def posterior(self, x: torch.Tensor, t: float, nodes: int = 16):
        """a | x_t = x by Gauss-Hermite quadrature: nodes and weights, (*x.shape, K, nodes)."""
        z, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(nodes))
        variance, distance = self.std**2 + t**2, x[..., None] - self.means
        masses = (self.masses.log() - distance**2 / (2 * variance)).softmax(-1)
        means = self.means + self.std**2 / variance * distance
        a = means[..., None] + self.std * t / math.sqrt(variance) * z
        return a, masses[..., None] * weights / weights.sum()

    def field(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """f*(x, t) = (x - E[a | x_t = x]) / t, whose paths flow_map follows (Eq. 32)."""
        a, weights = self.posterior(x, t)
        return (x - (a * weights).sum((-2, -1))) / t


# ---- 1. the fixed point ------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A function of x at each of some times: values (times, knots) at center +- reach (times,)."""

    values: torch.Tensor
    center: float
    reach: torch.Tensor

    def knots(self, i: int) -> torch.Tensor:
        """Where the i-th function is tabulated, (knots,)."""
        z = torch.linspace(-1, 1, self.values.shape[1], dtype=torch.float64)
        return self.center + self.reach[i] * z

    def __call__(self, rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The functions of these rows at x (rows, ...): the cubic through four knots, constant
        beyond the last. Straight lines would smooth a little in each of 1,280 steps."""
        last = self.values.shape[1] - 1
        reach = self.reach[rows].view(-1, *[1] * (x.ndim - 1))
        place = (((x - self.center) / reach + 1) * last / 2).clamp(0, last)
        i = place.long().clamp(1, last - 2)
        d, values = place - i, self.values[rows]
        before, here, after, beyond = (
            values.gather(1, (i + k).flatten(1)).view_as(i) for k in (-1, 0, 1, 2)
        )
        cubic = d * (d - 1) * ((d + 1) * beyond - (d - 2) * before)
        return (cubic + 3 * (d + 1) * (d - 2) * ((d - 1) * here - d * after)) / 6


def below(grid: torch.Tensor, i: int, u_sampling: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of the grid points that u takes below t = grid[i] (above s = grid[0], where
    there is one), and their weights."""
    rows = torch.arange(i - 1 if u_sampling == "adjacent" else min(1, i - 1), i)
    weights = torch.ones_like(grid[rows])
    if u_sampling == "weighted":
        weights = 1 / (grid[i] - grid[rows])
    return rows, weights / weights.sum()


def fixed_point(mixture: Mixture, grid, u_sampling="adjacent", knots=2001, nodes=16) -> Table:
    """Phi*(., t, s) for every t of the grid (N,) and s = grid[0]; Phi*(., s, s) is the identity."""
    center = float(mixture.means.max() + mixture.means.min()) / 2
    reach = mixture.means.max() - center + 8 * (mixture.std**2 + grid**2).sqrt()
    table = Table(torch.zeros(len(grid), knots, dtype=torch.float64), center, reach)
    table.values[0] = table.knots(0)
    for i in range(1, len(grid)):
        x = table.knots(i)
        a, masses = mixture.posterior(x, float(grid[i]), nodes)
        rows, weights = below(grid, i, u_sampling)
        for part, w in zip(rows.split(32), weights.split(32), strict=True):  # 32 at once: memory
            scale = (grid[part] / grid[i]).view(-1, 1, 1, 1)  # of the noise, u z = u / t (x - a)
            values = table(part, a + scale * (x[:, None, None] - a))
            table.values[i] += torch.einsum("ukmn,kmn,u->k", values, masses, w)
    return table


def one_step(mixture: Mixture, table: Table, sigma_max: float) -> torch.Tensor:
    """Phi*(x_T, T, s) for x_T at LEVELS of p_T; T is the last time of the table."""
    return table(torch.tensor([-1]), mixture.quantile(LEVELS, sigma_max)[None])[0]


def measures(mixture: Mixture, samples: torch.Tensor) -> dict[str, float]:
    """What the tables say of one_step's samples."""
    exact, data = (mixture.quantile(LEVELS, s) for s in (SIGMA_MIN, 0.0))
    distance = (samples[:, None] - mixture.means).abs().amin(1)
    return {
        "W1": (samples.sort().values - data).abs().mean().item(),
        "bias": (samples - exact).square().mean().sqrt().item(),
        "off_mode": (distance > 4 * mixture.std).double().mean().item(),
        "left": (samples < mixture.means.mean()).double().mean().item(),
        "mean": samples.mean().item(),
    }


# ---- 2 and 3. the solvers of Theorem 1 ---------------------------------------------------------


def solve(field, x, t: float, u: float, num_steps: int, order: int):
    """Equal steps of Euler (order 1) or Runge-Kutta (order 4) along dx/dt = field(x, t)."""
    for i in range(num_steps):
        a, b = (t + (u - t) * k / num_steps for k in (i, i + 1))
        slope = field(x, a)
        if order == 4:
            second = field(x + (b - a) / 2 * slope, (a + b) / 2)
            third = field(x + (b - a) / 2 * second, (a + b) / 2)
            slope = (slope + 2 * second + 2 * third + field(x + (b - a) * third, b)) / 6
        x = x + (b - a) * slope
    return x


def compare_fields(mixture: Mixture, t: float, u: float, num_steps: int, order: int, ends=()):
    """What Theorem 1 bounds, for states X* of a solver on f*, X~ of the same on (x - a) / t; root
    mean squares over x_t, and over a | x_t where no conditional mean is taken first.

    states  X* - X~ (Eqs. 43, 47)                  means   E[X* - X~ | x_t] (Eq. 37)
    ideal   X* - Phi(x_t, t, u)                    target  E[X~ | x_t] - Phi(x_t, t, u)
    line    the largest |X~ - (a + u z)|           losses  |L_prac - L_ideal| (Eq. 58) at the exact
                                                           Phi, for every s in ends
    """
    x = mixture.quantile(LEVELS, t)
    a, weights = mixture.posterior(x, t)
    wide = x[:, None, None]
    practical = solve(lambda x, t: (x - a) / t, wide, t, u, num_steps, order)
    ideal = solve(mixture.field, x, t, u, num_steps, order)
    exact = mixture.flow_map(x, t, u)
    mean = lambda values: (values * weights).sum((1, 2))  # noqa: E731
    rms = lambda values: values.square().mean().sqrt().item()  # noqa: E731
    losses = []
    for s in ends:
        target = mixture.flow_map(x, t, s)
        squares = (mixture.flow_map(practical, u, s) - target[:, None, None]).square()
        difference = mean(squares) - (mixture.flow_map(ideal, u, s) - target).square()
        losses.append(difference.mean().abs().item())
    return {
        "states": mean((practical - ideal[:, None, None]).square()).mean().sqrt().item(),
        "means": rms(mean(practical) - ideal),
        "ideal": rms(ideal - exact),
        "target": rms(mean(practical) - exact),
        "line": (practical - a - u / t * (wide - a)).abs().max().item(),
        "losses": losses,
    }


# ---- tables and figure -------------------------------------------------------------------------


def print_table(heads: str, rows: list[list]) -> None:
    """Markdown; heads are separated by |."""
    print(f"\n| {heads} |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row)
        print("| " + " | ".join(cells) + " |")


def draw(fixed: list[dict], substeps: list[dict], maps: dict, path: Path) -> None:
    """The one-step maps; W1 against N; the states of the solvers against substeps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.4), dpi=120, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for label, (values, style) in maps.items():
        left.plot(torch.special.ndtri(LEVELS), values, label=label, **style)
    left.set(xlim=(-3, 3), xlabel="noise $x_T$, standardised", ylabel="action")
    left.set_title("One step from noise to action")
    for case, (_, _, _, color) in CASES.items():
        points = [(row["N"], row["W1"]) for row in fixed if row["case"] == case]
        middle.loglog(*zip(*points, strict=True), "o-", color=color, label=case)
    middle.set_xticks(ALL, [*map(str, ALL)])
    middle.minorticks_off()
    middle.set(xlabel="N, points of the time grid", ylabel="W1 of one-step actions to the data")
    middle.set_title("The bias vanishes only with u next to t")
    for solver, style in zip(SOLVERS, ("o-", "s--"), strict=True):
        for key, label, color in (
            ("states", r"$|\tilde{X} - X^*|$, in Theorem 1", "#c0392b"),
            ("ideal", r"$|X^* - \Phi|$, true field alone", "#3b6fb6"),
        ):
            points = [(row["num_steps"], row[key]) for row in substeps if row["solver"] == solver]
            right.loglog(*zip(*points, strict=True), style, color=color, label=f"{label}, {solver}")
    right.set(xlabel=f"solver steps from t = {GAP[0]:g} to u = {GAP[1]:g}")
    right.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    right.minorticks_off()
    right.set(ylabel="root mean square", ylim=(5e-8, 2))
    right.set_title("Smaller steps do not help the surrogate field")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def fixed_points(mixture: Mixture, options: Arguments) -> tuple[list[dict], dict]:
    """Part 1: the rows of its table, and the maps to draw."""
    gaussian = replace(mixture, means=torch.zeros_like(mixture.means), std=options.mode)
    rows = []
    maps = {"exact": (mixture.quantile(LEVELS, SIGMA_MIN), {"color": "black", "lw": 3})}
    for case, (u_sampling, counts, sizes, color) in CASES.items():
        data = gaussian if "Gaussian" in case else mixture
        most = (161 if u_sampling == "adjacent" else 41) if options.quick else max(counts)
        for n in (n for n in counts if n <= most):
            grid = gtp_offline.karras_grid(n, SIGMA_MIN, options.sigma_max).double()
            table = fixed_point(data, grid, u_sampling, **sizes)
            samples = one_step(data, table, options.sigma_max)
            rows.append({"case": case, "N": n} | measures(data, samples))
            if data is mixture and (n == most or (n, u_sampling) == (11, "adjacent")):
                style = {"color": color, "ls": "-" if n == most else "--"}
                maps[f"{case}, N = {n}"] = samples, style
    return rows, maps


def run(options: Arguments) -> None:
    """Compute, print and draw everything."""
    low, high = options.masses
    if not (low > 0 and high > 0 and abs(low + high - 1) < 1e-6):
        raise ValueError(f"--masses are {low} {high}; give two positive numbers that add up to 1")
    if not 0 < 0.02 * options.mode <= options.std:
        raise ValueError(f"--std {options.std} must be at least 0.02 --mode, for the knots in x")
    if not SIGMA_MIN < options.sigma_max <= 1e4:
        raise ValueError(f"--sigma-max {options.sigma_max} must lie in ({SIGMA_MIN}, 10000]")
    torch.set_num_threads(1)
    file = Path(options.out) / "score_approximation.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    double = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    mixture = Mixture(double(-options.mode, options.mode), double(low, high), options.std)

    fixed, maps = fixed_points(mixture, options)
    print_table(
        f"| N | W1 | bias | off-mode % | left mode (data {low:g})",
        [[r["case"], r["N"], r["W1"], r["bias"], 100 * r["off_mode"], r["left"]] for r in fixed],
    )
    t, u = GAP
    substeps = [
        {"num_steps": k, "solver": solver} | compare_fields(mixture, t, u, k, order)
        for k in (1, 4, 16, 64)
        for solver, order in SOLVERS.items()
    ]
    print_table(
        f"steps from {t:g} to {u:g} | solver | X~ - X* | X* - Phi | X~ - (a + u z)",
        [[r[k] for k in ("num_steps", "solver", "states", "ideal", "line")] for r in substeps],
    )
    gaps = [
        {"h": h, "solver": solver} | compare_fields(mixture, t, t - h * t, 1, order, (u, SIGMA_MIN))
        for h in (1 / 2, 1 / 8, 1 / 32, 1 / 128)
        for solver, order in SOLVERS.items()
    ]
    print_table(
        "one step of h | solver | X~ - X* | E[X~ - X* given x_t] | E[X~ given x_t] - Phi | "
        f"losses, s = {u:g} | losses, s = {SIGMA_MIN:g}",
        [[r[k] for k in ("h", "solver", "states", "means", "target")] + r["losses"] for r in gaps],
    )
    results = {"options": asdict(options), "gap": GAP, "fixed_points": fixed}
    results |= {"substeps": substeps, "gaps": gaps}
    write_json(file, results)
    draw(fixed, substeps, maps, file.with_suffix(".png"))
    print(f"\n{file}, {file.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
