"""Table 3, row 2: consistency targets from an ODE solver instead of the score approximation.

    python ablations/ode_solver.py                 # on the toy, 3 seeds
    python ablations/ode_solver.py --quick         # seconds: shows that it works
    python ablations/ode_solver.py --env-id hopper-medium-expert-v2 --eta 5 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5                 # the paper's row

The point x_u of Eq. 17 is reached from x_t by Euler or Heun steps along the field of the averaged
actor, dx/dt = (x - phi_ema(x, t, t)) / t (Eq. 5), as Eq. 6 has it; the score approximation takes
a + u z (Eq. 11). Only `consistency_loss` of gtp_offline.py is replaced. Which solver the paper's
was is not said; three Heun steps stand beside its row.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

import torch
from experiment import Options, Variant, compare, main, prepare, show


@dataclass
class Arguments(Options):
    """Score approximation against ODE solvers."""


def solve(actor, obs, x, t, u, num_steps: int, heun: bool):
    """x_u on the path of dx/dt = (x - phi(x, t, t)) / t through x_t, by num_steps equal steps."""

    def field(x, t):
        return (x - actor.inst_map(obs, x, t)) / t

    step = (u - t) / num_steps
    for i in range(num_steps):
        now = t + i * step
        slope = field(x, now)
        if heun:
            ahead = field(x + step * slope, now + step)
            slope = (slope + ahead) / 2
        x = x + step * slope
    return x


def consistency_loss(
    actor, actor_ema, obs, actions, noise, t, u, s, weights, args, num_steps=1, heun=True
):
    """E[w d(Phi(x_t, t, s), Phi_ema(x_u, u, s))], a scalar (Eq. 17), x_u from the solver."""
    x_t = actions + t * noise
    with torch.no_grad():
        x_u = solve(actor_ema, obs, x_t, t, u, num_steps, heun)
        target = actor_ema.flow_map(obs, x_u, u, s)
    error = (actor.flow_map(obs, x_t, t, s) - target).square().sum(1)
    if args.consistency_loss == "pseudo-huber":
        error = (error + args.huber_c**2).sqrt() - args.huber_c
    if args.consistency_weighting == "inverse-gap":
        error = error / (t - u).squeeze(1)
    return (weights * error).mean()


def solver(num_steps: int, heun: bool, row: str = "", **changes) -> Variant:
    """The loss with a solver of that many steps."""
    loss = partial(consistency_loss, num_steps=num_steps, heun=heun)
    return Variant(changes, {"consistency_loss": loss}, table=3, row=row)


def variants() -> dict[str, Variant]:
    """The score approximation and the solvers, u next to t and, for the longest, anywhere."""
    return {
        "score approximation": Variant(table=3, row="GTP"),
        "score approximation, u uniform": Variant({"u_sampling": "uniform"}, table=3),
        "Euler, 1 step": solver(1, heun=False),
        "Heun, 1 step": solver(1, heun=True),
        "Heun, 3 steps": solver(3, heun=True, row="ODE solver"),
        "Heun, 3 steps, u uniform": solver(3, heun=True, u_sampling="uniform"),
    }


def run(options: Arguments) -> None:
    """Train, tabulate and draw the comparison."""
    options = prepare(options, "ode_solver")
    table = compare("ode_solver", options, variants())
    show("ode_solver", options, table, variants(), "Targets of the consistency loss")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
