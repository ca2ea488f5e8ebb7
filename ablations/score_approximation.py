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

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from experiment import (
    ArgumentError,
    check_measured,
    check_out,
    gtp_offline,
    main,
    make_out,
    measured_with,
    new_figure,
    print_rows,
    style,
)

SIGMA_MIN = 0.002
COUNTS = (11, 41, 161, 641, 1281)  # N
GAP = (1.0, 0.25)  # the fixed t and u
LEVELS = (torch.arange(4_001, dtype=torch.float64) + 0.5) / 4_001  # x at these quantiles
SOLVERS = {"Euler": 1, "Runge-Kutta": 4}  # their order


@dataclass(frozen=True)
class Case:
    """A way to draw u, and the sizes of the numerical method that computes its fixed point."""

    u_sampling: str
    color: str
    counts: tuple[int, ...] = COUNTS
    sizes: dict = field(default_factory=dict)
    gaussian: bool = False


FEW_JUMPS = {  # N u below N t take N^2 steps: no 1281; smoother functions, fewer knots
    "counts": COUNTS[:4],
    "sizes": {"knots": 401, "nodes": 8},
}
CASES = {
    "u adjacent": Case("adjacent", color="#3b6fb6"),
    "u uniform": Case("uniform", color="#c0392b", **FEW_JUMPS),
    "u uniform, weighted": Case("weighted", color="#e08e45", **FEW_JUMPS),
    "u adjacent, one Gaussian": Case("adjacent", color="#7f8c8d", gaussian=True),
}


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
        below = torch.special.ndtr(z)
        return (self.masses * below).sum(-1)

    def quantile(self, p: torch.Tensor, t: float) -> torch.Tensor:
        """F_t^-1(p), by bisection."""
        reach = 10 * math.hypot(self.std, t)
        least = float(self.means.min()) - reach
        most = float(self.means.max()) + reach
        low = torch.full_like(p, least)
        high = torch.full_like(p, most)
        for _ in range(50):
            middle = (low + high) / 2
            below = self.cdf(middle, t) < p
            low = torch.where(below, middle, low)
            high = torch.where(below, high, middle)
        return (low + high) / 2

    def flow_map(self, x: torch.Tensor, t: float, s: float) -> torch.Tensor:
        """The exact Phi(x, t, s)."""
        return self.quantile(self.cdf(x, t), s)

    def posterior(self, x: torch.Tensor, t: float, nodes: int = 16):
        """a | x_t = x by Gauss-Hermite quadrature: nodes and weights, (*x.shape, K, nodes)."""
        z, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(nodes))
        variance = self.std**2 + t**2
        distance = x[..., None] - self.means
        exponents = -(distance**2) / (2 * variance)
        masses = (self.masses.log() + exponents).softmax(-1)
        shrinkage = self.std**2 / variance
        means = self.means + shrinkage * distance
        std = self.std * t / math.sqrt(variance)
        a = means[..., None] + std * z
        weights = weights / weights.sum()
        return a, masses[..., None] * weights

    def field(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """f*(x, t) = (x - E[a | x_t = x]) / t, whose paths flow_map follows (Eq. 32)."""
        a, weights = self.posterior(x, t)
        return (x - posterior_mean(a, weights)) / t


def posterior_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """E[values | x_t], (..., K, nodes) -> (...)."""
    return (values * weights).sum((-2, -1))


def root_mean_square(values: torch.Tensor) -> float:
    """Over all values."""
    return values.square().mean().sqrt().item()


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
        ones = [1] * (x.ndim - 1)
        reach = self.reach[rows].view(-1, *ones)
        z = (x - self.center) / reach
        place = (z + 1) * last / 2
        place = place.clamp(0, last)
        i = place.long().clamp(1, last - 2)
        values = self.values[rows]

        def knot(offset: int) -> torch.Tensor:
            index = (i + offset).flatten(1)
            return values.gather(1, index).view_as(i)

        d = place - i
        outer = (d + 1) * knot(2) - (d - 2) * knot(-1)
        inner = (d - 1) * knot(0) - d * knot(1)
        sixfold = d * (d - 1) * outer + 3 * (d + 1) * (d - 2) * inner
        return sixfold / 6


def below(grid: torch.Tensor, i: int, u_sampling: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of the grid points that u takes below t = grid[i] (above s = grid[0], where
    there is one), and their weights."""
    first = min(1, i - 1)
    if u_sampling == "adjacent":
        first = i - 1
    rows = torch.arange(first, i)
    weights = torch.ones_like(grid[rows])
    if u_sampling == "weighted":
        weights = 1 / (grid[i] - grid[rows])
    return rows, weights / weights.sum()


def fixed_point(mixture: Mixture, grid, u_sampling="adjacent", knots=2001, nodes=16) -> Table:
    """Phi*(., t, s) for every t of the grid (N,) and s = grid[0]; Phi*(., s, s) is the identity."""
    low = float(mixture.means.min())
    high = float(mixture.means.max())
    center = (low + high) / 2
    width = (mixture.std**2 + grid**2).sqrt()
    reach = high - center + 8 * width
    values = torch.zeros(len(grid), knots, dtype=torch.float64)
    table = Table(values, center, reach)
    values[0] = table.knots(0)
    for i in range(1, len(grid)):
        x = table.knots(i)
        a, masses = mixture.posterior(x, float(grid[i]), nodes)
        noise = x[:, None, None] - a  # t z
        rows, weights = below(grid, i, u_sampling)
        parts = zip(rows.split(32), weights.split(32), strict=True)  # 32 at once: memory
        for part, weight in parts:
            scale = (grid[part] / grid[i]).view(-1, 1, 1, 1)
            ends = table(part, a + scale * noise)
            values[i] += torch.einsum("ukmn,kmn,u->k", ends, masses, weight)
    return table


def one_step(mixture: Mixture, table: Table, sigma_max: float) -> torch.Tensor:
    """Phi*(x_T, T, s) for x_T at LEVELS of p_T; T is the last time of the table."""
    x = mixture.quantile(LEVELS, sigma_max)
    last = torch.tensor([-1])
    return table(last, x[None])[0]


def measures(mixture: Mixture, samples: torch.Tensor) -> dict[str, float]:
    """What the tables say of one_step's samples."""
    exact = mixture.quantile(LEVELS, SIGMA_MIN)
    data = mixture.quantile(LEVELS, 0.0)
    transport = samples.sort().values - data
    distance = (samples[:, None] - mixture.means).abs().amin(1)
    return {
        "W1": transport.abs().mean().item(),
        "bias": root_mean_square(samples - exact),
        "off_mode": share(distance > 4 * mixture.std),
        "left": share(samples < mixture.means.mean()),
        "mean": samples.mean().item(),
    }


def share(condition: torch.Tensor) -> float:
    """Of the values that are True."""
    return condition.double().mean().item()


# ---- 2 and 3. the solvers of Theorem 1 ---------------------------------------------------------


def solve(field: Callable, x, t: float, u: float, num_steps: int, order: int):
    """Equal steps of Euler (order 1) or Runge-Kutta (order 4) along dx/dt = field(x, t)."""
    h = (u - t) / num_steps
    for i in range(num_steps):
        now = t + i * h
        slope = field(x, now)
        if order == 4:
            second = field(x + h / 2 * slope, now + h / 2)
            third = field(x + h / 2 * second, now + h / 2)
            fourth = field(x + h * third, now + h)
            inner = 2 * (second + third)
            slope = (slope + inner + fourth) / 6
        x = x + h * slope
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

    def surrogate(x, t):
        return (x - a) / t

    practical = solve(surrogate, wide, t, u, num_steps, order)
    ideal = solve(mixture.field, x, t, u, num_steps, order)
    exact = mixture.flow_map(x, t, u)
    mean = posterior_mean(practical, weights)
    apart = practical - ideal[:, None, None]
    apart_squared = posterior_mean(apart.square(), weights)
    line = a + u / t * (wide - a)
    losses = []
    for s in ends:
        target = mixture.flow_map(x, t, s)
        errors = mixture.flow_map(practical, u, s) - target[:, None, None]
        ideal_errors = mixture.flow_map(ideal, u, s) - target
        practical_loss = posterior_mean(errors.square(), weights).mean()
        ideal_loss = ideal_errors.square().mean()
        difference = practical_loss - ideal_loss
        losses.append(difference.abs().item())
    return {
        "states": apart_squared.mean().sqrt().item(),
        "means": root_mean_square(mean - ideal),
        "ideal": root_mean_square(ideal - exact),
        "target": root_mean_square(mean - exact),
        "line": (practical - line).abs().max().item(),
        "losses": losses,
    }


# ---- tables ------------------------------------------------------------------------------------


@dataclass
class Map:
    """A one-step map to draw: the actions at LEVELS of the noise."""

    values: torch.Tensor
    looks: dict


def fixed_points(mixture: Mixture, options: Arguments) -> tuple[list[dict], dict[str, Map]]:
    """Part 1: the rows of its table, and the maps to draw."""
    gaussian = replace(mixture, means=torch.zeros_like(mixture.means), std=options.mode)
    exact = mixture.quantile(LEVELS, SIGMA_MIN)
    maps = {"exact": Map(exact, {"color": "black", "lw": 3})}
    rows = []
    for title, case in CASES.items():
        data = gaussian if case.gaussian else mixture
        counts = used_counts(case, options.quick)
        for n in counts:
            grid = gtp_offline.karras_grid(n, SIGMA_MIN, options.sigma_max).double()
            table = fixed_point(data, grid, case.u_sampling, **case.sizes)
            samples = one_step(data, table, options.sigma_max)
            rows.append({"case": title, "N": n} | measures(data, samples))
            coarse = n == 11 and case.u_sampling == "adjacent"
            if not case.gaussian and (coarse or n == counts[-1]):
                line = "-" if n == counts[-1] else "--"
                maps[f"{title}, N = {n}"] = Map(samples, {"color": case.color, "ls": line})
    return rows, maps


def used_counts(case: Case, quick: bool) -> list[int]:
    """The N of a case."""
    most = case.counts[-1]
    if quick:
        most = 161 if case.u_sampling == "adjacent" else 41
    return [n for n in case.counts if n <= most]


def solver_steps(mixture: Mixture) -> list[dict]:
    """Part 2: the fixed gap crossed in more and more steps."""
    t, u = GAP
    rows = []
    for num_steps in (1, 4, 16, 64):
        for solver, order in SOLVERS.items():
            row = compare_fields(mixture, t, u, num_steps, order)
            rows.append({"num_steps": num_steps, "solver": solver} | row)
    return rows


def shrinking_gaps(mixture: Mixture) -> list[dict]:
    """Part 3: one step of a gap h = t - u from the same t; losses at the fixed u and SIGMA_MIN."""
    t, u = GAP
    rows = []
    for h in (1 / 2, 1 / 8, 1 / 32, 1 / 128):
        for solver, order in SOLVERS.items():
            row = compare_fields(mixture, t, t - h * t, 1, order, ends=(u, SIGMA_MIN))
            rows.append({"h": h, "solver": solver} | row)
    return rows


def print_numbers(heads: list[str], rows: list[list]) -> None:
    """Markdown, numbers with three digits."""
    print()
    print_rows(heads, [[number_text(value) for value in row] for row in rows])


def number_text(value) -> str:
    """Of a cell."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_fixed_points(rows: list[dict], left: float) -> None:
    """The table of part 1."""
    heads = ["", "N", "W1", "bias", "off-mode %", f"left mode (data {left:g})"]
    cells = []
    for row in rows:
        off_mode = 100 * row["off_mode"]
        cells.append([row["case"], row["N"], row["W1"], row["bias"], off_mode, row["left"]])
    print_numbers(heads, cells)


def print_solver_steps(rows: list[dict]) -> None:
    """The table of part 2."""
    t, u = GAP
    heads = [f"steps from {t:g} to {u:g}", "solver", "X~ - X*", "X* - Phi", "X~ - (a + u z)"]
    keys = ("num_steps", "solver", "states", "ideal", "line")
    print_numbers(heads, [[row[key] for key in keys] for row in rows])


def print_gaps(rows: list[dict]) -> None:
    """The table of part 3."""
    heads = [
        "one step of h",
        "solver",
        "X~ - X*",
        "E[X~ - X* given x_t]",
        "E[X~ given x_t] - Phi",
        f"losses, s = {GAP[1]:g}",
        f"losses, s = {SIGMA_MIN:g}",
    ]
    keys = ("h", "solver", "states", "means", "target")
    print_numbers(heads, [[row[key] for key in keys] + row["losses"] for row in rows])


# ---- figure ------------------------------------------------------------------------------------


def draw(fixed: list[dict], substeps: list[dict], maps: dict[str, Map], path: Path) -> None:
    """The one-step maps; W1 against N; the states of the solvers against substeps."""
    figure = new_figure(14, 4.4)
    axes = figure.subplots(1, 3)
    draw_maps(axes[0], maps)
    draw_bias(axes[1], fixed)
    draw_solvers(axes[2], substeps)
    for axis in axes:
        style(axis)
    figure.savefig(path)


def draw_maps(axis, maps: dict[str, Map]) -> None:
    """Action against noise."""
    noise = torch.special.ndtri(LEVELS)
    for label, drawn in maps.items():
        axis.plot(noise, drawn.values, label=label, **drawn.looks)
    axis.set(xlim=(-3, 3), xlabel="noise $x_T$, standardised", ylabel="action")
    axis.set_title("One step from noise to action")


def draw_bias(axis, fixed: list[dict]) -> None:
    """W1 against N, a line for each case."""
    for title, case in CASES.items():
        rows = [row for row in fixed if row["case"] == title]
        counts = [row["N"] for row in rows]
        axis.loglog(counts, [row["W1"] for row in rows], "o-", color=case.color, label=title)
    axis.set_xticks(COUNTS, map(str, COUNTS))
    axis.minorticks_off()
    axis.set(xlabel="N, points of the time grid", ylabel="W1 of one-step actions to the data")
    axis.set_title("The bias vanishes only with u next to t")


def draw_solvers(axis, substeps: list[dict]) -> None:
    """Errors against the number of steps, two lines for each solver."""
    t, u = GAP
    for solver, line in zip(SOLVERS, ("o-", "s--"), strict=True):
        rows = [row for row in substeps if row["solver"] == solver]
        steps = [row["num_steps"] for row in rows]
        states = [row["states"] for row in rows]
        ideal = [row["ideal"] for row in rows]
        label = rf"$|\tilde{{X}} - X^*|$, in Theorem 1, {solver}"
        axis.loglog(steps, states, line, color="#c0392b", label=label)
        label = rf"$|X^* - \Phi|$, true field alone, {solver}"
        axis.loglog(steps, ideal, line, color="#3b6fb6", label=label)
    axis.set_xticks(steps, map(str, steps))
    axis.minorticks_off()
    axis.set(xlabel=f"solver steps from t = {t:g} to u = {u:g}")
    axis.set(ylabel="root mean square", ylim=(5e-8, 2))
    axis.set_title("Smaller steps do not help the surrogate field")


def check(options: Arguments) -> None:
    """ArgumentError for a folder that cannot be, or for data that the method cannot take."""
    check_out(options.out)
    low, high = options.masses
    positive = low > 0 and high > 0
    if not positive or abs(low + high - 1) > 1e-6:
        raise ArgumentError(f"--masses are {low} {high}; give two positive numbers whose sum is 1")
    for flag, width in (("--mode", options.mode), ("--std", options.std)):
        if not 0 < width <= 1e4:
            raise ArgumentError(f"{flag} {width} must lie in (0, 10000]")
    if 0.02 * options.mode > options.std:
        raise ArgumentError(f"--std {options.std} must be at least 0.02 --mode, for the knots in x")
    if not SIGMA_MIN < options.sigma_max <= 1e4:
        raise ArgumentError(f"--sigma-max {options.sigma_max} must lie in ({SIGMA_MIN}, 10000]")


def run(options: Arguments) -> None:
    """Compute, print and draw everything."""
    check(options)
    torch.set_num_threads(1)
    file = Path(options.out) / "score_approximation.json"
    make_out(options.out)
    check_measured(file, options)
    means = torch.tensor([-options.mode, options.mode], dtype=torch.float64)
    masses = torch.tensor(options.masses, dtype=torch.float64)
    mixture = Mixture(means, masses, options.std)
    fixed, maps = fixed_points(mixture, options)
    print_fixed_points(fixed, options.masses[0])
    substeps = solver_steps(mixture)
    print_solver_steps(substeps)
    gaps = shrinking_gaps(mixture)
    print_gaps(gaps)
    results = {
        "options": measured_with(options),
        "gap": GAP,
        "fixed_points": fixed,
        "substeps": substeps,
        "gaps": gaps,
    }
    gtp_offline.write_json(file, results)
    draw(fixed, substeps, maps, file.with_suffix(".png"))
    print(f"\n{file}, {file.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
