"""Table 3, row 2: consistency targets from an ODE solver instead of the score approximation.

    python ablations/ode_solver.py                 # on the toy, 3 seeds
    python ablations/ode_solver.py --quick         # seconds: shows that it works
    python ablations/ode_solver.py --env-id hopper-medium-expert-v2 --eta 5 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5                 # the paper's row

The point x_u of Eq. 17 is reached from x_t by Euler or Heun steps along the field of the averaged
actor, dx/dt = (x - phi_ema(x, t, t)) / t (Eq. 5), as Eq. 6 has it; the score approximation takes
a + u z (Eq. 11). Only `consistency_loss` of gtp_offline.py is replaced.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import paper
import torch
from experiment import Options, Variant, compare, gtp_offline, main, prepare, show

PAPER = {  # which solver it was is not said
    "score approximation": paper.TABLE_3["GTP"],
    "Heun, 3 steps": paper.TABLE_3["ODE solver"],
}
USUAL_LOSS = gtp_offline.consistency_loss


@dataclass
class Arguments(Options):
    """Score approximation against ODE solvers."""


def solve(actor, obs, x, t, u, num_steps: int, heun: bool):
    """x_u on the path of dx/dt = (x - phi(x, t, t)) / t through x_t, by num_steps equal steps."""
    field = lambda x, t: (x - actor.inst_map(obs, x, t)) / t  # noqa: E731
    for i in range(num_steps):
        a, b = (t + (u - t) * k / num_steps for k in (i, i + 1))
        slope = field(x, a)
        if heun:
            slope = (slope + field(x + (b - a) * slope, b)) / 2
        x = x + (b - a) * slope
    return x


def consistency_loss(
    actor, actor_ema, obs, actions, noise, t, u, s, weights, args, num_steps=1, heun=True
):
    """Eq. 17 with x_u from the solver; its own x_u, the score approximation's, is not used."""
    with torch.no_grad():
        x_u = solve(actor_ema, obs, actions + t * noise, t, u, num_steps, heun)
    teacher = SimpleNamespace(flow_map=lambda obs, _, u, s: actor_ema.flow_map(obs, x_u, u, s))
    return USUAL_LOSS(actor, teacher, obs, actions, noise, t, u, s, weights, args)


def variants() -> dict[str, Variant]:
    """The score approximation and the solvers, u next to t and, for the longest, anywhere."""
    solver = lambda *given: {"consistency_loss": partial(  # noqa: E731
        consistency_loss, num_steps=given[0], heun=given[1])}  # fmt: skip
    return {
        "score approximation": Variant(),
        "score approximation, u uniform": Variant({"u_sampling": "uniform"}),
        "Euler, 1 step": Variant(replaced=solver(1, False)),
        "Heun, 1 step": Variant(replaced=solver(1, True)),
        "Heun, 3 steps": Variant(replaced=solver(3, True)),
        "Heun, 3 steps, u uniform": Variant({"u_sampling": "uniform"}, solver(3, True)),
    }


def run(options: Arguments) -> None:
    """Train, tabulate and draw the comparison."""
    options = prepare(options, "ode_solver")
    table = compare("ode_solver", options, variants())
    show("ode_solver", options, table, "Targets of the consistency loss", PAPER)


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
