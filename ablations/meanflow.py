"""Table 7, "MeanFlow": the identity of Eq. 31 instead of the consistency loss.

    python ablations/meanflow.py                   # on the toy, 3 seeds
    python ablations/meanflow.py --quick           # seconds: shows that it works
    python ablations/meanflow.py --env-id hopper-medium-expert-v2 --eta 5 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5                 # the paper's row

phi(x_t, t, s) is regressed on what the derivative of Eq. 25 by t says it is. With v = dx_t/dt and
dphi/dt = v d/dx phi + d/dt phi at fixed s, by one Jacobian-vector product,

    printed         phi = x - t v - (t^2 / s - t) dphi/dt                               Eqs. 28, 31
    non-singular    phi = x - t v + (t - s) (v - (x - phi) / t - dphi/dt)

The second is Eq. 24's u = v - (t - s) du/dt for u = (x - phi) / t; its error is s/t times that of
the first, so no factor of it grows without bound as s goes to 0. v is (x - phi(x, t, t)) / t, with
x - t v = phi(x, t, t) ("paper"), or z, whose mean given x_t is the true velocity ("noise", as in
Geng et al. 2025). The right-hand sides bear no gradient. Only `consistency_loss` of gtp_offline.py
is replaced; the flow loss (Eq. 18) stays: with the paper's v, phi = const would do without it.

dphi/dt contains the derivative of what the network sees of t: of 250 log t it is 250 / t, of "raw
times" (--preconditioning none) 1. A run whose actor loss ends beyond 1e6 counts as diverged.
Table 7 has no number to set beside these.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from experiment import Options, Variant, compare, main, prepare, show, write
from update_cost import costs

VELOCITIES = ("paper", "noise")


@dataclass
class Arguments(Options):
    """The teacher of GTP against the identity of Mean Flows."""

    identity_velocity: Literal["both", "paper", "noise"] = "both"  # v


@torch.no_grad()
def identity_target(actor, obs, x, noise, t, s, printed: bool, velocity: str):
    """The right-hand side of an identity, (B, action_dim); above, `printed` or non-singular."""
    v = noise if velocity == "noise" else (x - actor.inst_map(obs, x, t)) / t

    def phi_at(x, t):
        return actor.phi(obs, x, t, s)

    phi, slope = torch.func.jvp(phi_at, (x, t), (v, torch.ones_like(t)))  # dphi/dt along v
    if printed:
        return x - t * v - (t**2 / s - t) * slope
    return x - t * v + (t - s) * (v - (x - phi) / t - slope)


def consistency_loss(
    actor, actor_ema, obs, actions, noise, t, u, s, weights, args, printed=True, velocity="paper"
):
    """E[w ||phi(x_t, t, s) - target||^2], a scalar; u and the averaged actor have no part."""
    x = actions + t * noise
    target = identity_target(actor, obs, x, noise, t, s, printed, velocity)
    error = actor.phi(obs, x, t, s) - target
    return (weights * error.square().sum(1)).mean()


def variants(velocity: str = "both") -> dict[str, Variant]:
    """GTP and both identities, with one velocity or each; all also with raw times."""
    chosen = {"GTP": Variant(table=7, row="GTP")}
    for v in VELOCITIES if velocity == "both" else (velocity,):
        for form in ("Eq. 31 as printed", "non-singular"):
            loss = partial(consistency_loss, printed="printed" in form, velocity=v)
            chosen[f"{form}, v: {v}"] = Variant(replaced={"consistency_loss": loss}, table=7)
    raw = {
        f"{title}, raw times": Variant({"preconditioning": "none"}, variant.replaced, table=7)
        for title, variant in chosen.items()
    }
    return chosen | raw


def judged(results: dict) -> dict:
    """A run's results, `diverged` also where its last actor loss is out of all bounds."""
    losses = results["losses"]
    last = losses[-1]["actor"] if losses else 0.0
    within = last is not None and last < 1e6  # null: it was not a number
    return results if within else results | {"status": "diverged"}


def run(options: Arguments) -> None:
    """Train, tabulate and draw the comparison."""
    options = prepare(options, "meanflow")
    chosen = variants(options.identity_velocity)
    table = compare("meanflow", options, chosen, judged)
    measured = {title: chosen[title] for title in table}
    cost = costs(measured, options.device, rounds=3 if options.quick else 30)
    for title, row in table.items():
        row["cost"] = cost[title]
        print(f"{title}, cost of an update (see update_cost.py): {row['cost']}")
    write("meanflow", options, table)
    show("meanflow", options, table, chosen, "The identity in place of consistency")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
