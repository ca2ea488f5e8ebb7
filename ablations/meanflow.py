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

Time and peak memory of an update stand beside the scores, measured as update_cost.py says.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from experiment import Options, Variant, compare, main, prepare, show, write
from update_cost import costs


@dataclass
class Arguments(Options):
    """The teacher of GTP against the identity of Mean Flows."""

    identity_velocity: Literal["paper", "noise"] | None = None  # v [both, one after the other]


@torch.no_grad()
def identity_target(actor, obs, x, noise, t, s, printed: bool, velocity: str):
    """The right-hand side of an identity, (B, action_dim); above, `printed` or non-singular."""
    v = noise if velocity == "noise" else (x - actor.inst_map(obs, x, t)) / t
    function = lambda x, t: actor.phi(obs, x, t, s)  # noqa: E731
    phi, slope = torch.func.jvp(function, (x, t), (v, torch.ones_like(t)))  # dphi/dt along v
    if printed:
        return x - t * v - (t**2 / s - t) * slope
    return x - t * v + (t - s) * (v - (x - phi) / t - slope)


def consistency_loss(
    actor, actor_ema, obs, actions, noise, t, u, s, weights, args, printed=True, velocity="paper"
):
    """E[w ||phi(x_t, t, s) - target||^2], a scalar; u and the averaged actor have no part."""
    x = actions + t * noise
    target = identity_target(actor, obs, x, noise, t, s, printed, velocity)
    return (weights * (actor.phi(obs, x, t, s) - target).square().sum(1)).mean()


def variants(velocity: str | None = None) -> dict[str, Variant]:
    """GTP, also with squared error as here, and both identities with one velocity or each."""
    chosen = {"GTP": Variant(), "GTP, squared error": Variant({"consistency_loss": "squared"})}
    for v in [velocity] if velocity else ["paper", "noise"]:
        for form in ("Eq. 31 as printed", "non-singular"):
            loss = partial(consistency_loss, printed="printed" in form, velocity=v)
            chosen[f"{form}, v: {v}"] = Variant(replaced={"consistency_loss": loss})
    return chosen


def run(options: Arguments) -> None:
    """Train, tabulate and draw the comparison; Table 7 has no number to set beside it."""
    options = prepare(options, "meanflow")
    chosen = variants(options.identity_velocity)
    table = compare("meanflow", options, chosen)
    cost = costs({k: chosen[k] for k in table}, options.device, 3 if options.quick else 30)
    table = {title: row | {"cost": cost[title]} for title, row in table.items()}
    write("meanflow", options, table)
    show("meanflow", options, table, "The identity in place of consistency")
    for title, row in cost.items():
        words = "{milliseconds:.1f} ms ({ratio:.2f} of the first), peak {megabytes:.2f} MB"
        print(f"{title}: {words.format(**row)} an update")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
