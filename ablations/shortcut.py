"""Table 7, "Shortcut": self-consistency without a teacher instead of the consistency loss.

    python ablations/shortcut.py                   # on the toy, 3 seeds
    python ablations/shortcut.py --quick           # seconds: shows that it works
    python ablations/shortcut.py --env-id hopper-medium-expert-v2 --eta 5 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5                 # the paper's row

One step from t to s is compared with two of half its length that the same network takes (Eq. 23).
Time runs from data to noise here: a step goes down, with the average velocity S(x, t, s) =
(x - phi(x, t, s)) / t over [s, t], to Phi(x, t, s) = x - (t - s) S(x, t, s). The error of S is
thus that of Phi over t - s. Only `consistency_loss` of gtp_offline.py is replaced. The flow loss
(Eq. 18) stays: it says what S(x, t, t) is, and without it S = 0 would do.

What differs from Frans et al. (2025): their path x = (1 - t) z + t a has the points of ours over
1 + t, at time 1 / (1 + t), so that their halves of a step are others; their steps are powers of
1/2, from multiples of themselves, here t and s are any two points of the grid; their flow loss is
one of velocities, in our time Eq. 18 over t^2; their code takes the targets from averaged weights
and spends a share of each batch on them. Here every sample bears both losses, and the targets are
the model's own, as the paper says, or those of its average.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

import torch
from experiment import Options, Variant, compare, main, prepare, show


@dataclass
class Arguments(Options):
    """The teacher of GTP against self-consistency."""


def velocity(actor, obs, x, t, s):
    """S(x, t, s), the average velocity over [s, t] (Eq. 21), (B, action_dim)."""
    return (x - actor.phi(obs, x, t, s)) / t


@torch.no_grad()
def two_steps(actor, obs, x, t, s):
    """The average velocity over [s, t] of two equally long steps of the network (Eq. 23)."""
    middle = (t + s) / 2
    first = velocity(actor, obs, x, t, middle)
    x_middle = x - (t - middle) * first
    second = velocity(actor, obs, x_middle, middle, s)
    return (first + second) / 2


def consistency_loss(
    actor, actor_ema, obs, actions, noise, t, u, s, weights, args, averaged: bool = False
):
    """E[w ||S(x_t, t, s) - S_target||^2], a scalar (Eq. 23, its 2d is t - s); u has no part."""
    x = actions + t * noise
    teacher = actor_ema if averaged else actor
    target = two_steps(teacher, obs, x, t, s)
    error = velocity(actor, obs, x, t, s) - target
    return (weights * error.square().sum(1)).mean()


def variants() -> dict[str, Variant]:
    """GTP, also with the squared error that Eq. 23 has, and both origins of the targets."""
    own = {"consistency_loss": consistency_loss}
    averaged = {"consistency_loss": partial(consistency_loss, averaged=True)}
    return {
        "GTP": Variant(table=7, row="GTP"),
        "GTP, squared error": Variant({"consistency_loss": "squared"}, table=7),
        "Shortcut": Variant(replaced=own, table=7, row="Shortcut"),
        "Shortcut, averaged targets": Variant(replaced=averaged, table=7),
    }


def run(options: Arguments) -> None:
    """Train, tabulate and draw the comparison."""
    options = prepare(options, "shortcut")
    table = compare("shortcut", options, variants())
    show("shortcut", options, table, variants(), "Self-consistency without a teacher")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
