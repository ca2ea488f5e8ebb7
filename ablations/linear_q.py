"""Table 3, rows 3 to 5: a linear Q term in the actor's loss instead of advantage weights.

    python ablations/linear_q.py                   # on the toy, 3 seeds
    python ablations/linear_q.py --quick           # seconds: shows that it works
    python ablations/linear_q.py --env-id hopper-medium-expert-v2 --eta 5 --num-updates 2000000 \
        --hidden-dim 256 --seeds 5                 # the paper's rows

The loss is L_BC + lambda L_Q (Eq. 69): L_BC is Eq. 19 with all weights 1, L_Q = -E[Q(s, pi(s))]
(Eq. 74) is not normalised and its gradient goes through the K steps of the sampler. Only
`actor_loss` of gtp_offline.py is replaced. A run that blows up ends as `diverged`. Only --eq-16
brings errors of Q off the data back through the TD target, and not on the toy, where all steps are
terminal. linear_q_actions.png has the toy's actions turned back by pi / 2 obs.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import toy
from experiment import (
    EQ_14,
    Options,
    Variant,
    cell,
    check_numbers,
    compare,
    gtp_offline,
    load_policy,
    main,
    new_figure,
    on_toy,
    prepare,
    show,
)

cloning_loss = gtp_offline.actor_loss
sample_with_gradient = inspect.unwrap(gtp_offline.sample_actions)  # it is under torch.no_grad


@dataclass
class Arguments(Options):
    """Advantage weights against a linear Q term."""

    eta: float = 5.0  # temperature of GTP's own weights (Eq. 14); above 0, or there is no critic
    coefficients: tuple[float, ...] = (0.01, 0.1, 1.0)  # the values of lambda
    eq_16: bool = False  # the paper's critic, whose targets ask the policy for the next action


def actor_loss(nets, obs, actions, noise, t, u, s, weights, args, coefficient: float = 1.0):
    """L_BC + coefficient * L_Q (Eq. 69) -> scalar loss, dict of scalar metrics, L_Q as `q`.

    Q is the smaller of the two online critics, as in GTP's own weights: two uses of one critic are
    compared. It does not learn from this: gradient_steps asks for the actor's gradient alone."""
    # eta > 0 makes the critic (and V); the weights that come with it have no part in L_BC
    ones = torch.ones_like(weights)
    cloning, metrics = cloning_loss(nets, obs, actions, noise, t, u, s, ones, args)
    # The noise of x_t serves the sampler too: z in common does not change a sum of expectations
    times = gtp_offline.sampling_times(args.num_steps, args)
    policy = sample_with_gradient(nets["actor"], obs, noise, times)
    q_loss = -nets["critic"](obs, policy).amin(0).mean()
    loss = cloning + coefficient * q_loss
    return loss, {**metrics, "actor": loss, "q": q_loss}


def variants(coefficients=Arguments.coefficients, eq_16: bool = False) -> dict[str, Variant]:
    """GTP, and cloning with a linear Q term for each lambda; Eq. 16's are titled so."""
    critic = EQ_14 if eq_16 else {}
    end = ", Eq. 16" if eq_16 else ""
    chosen = {f"GTP{end}": Variant(critic, table=3, row="GTP")}
    for c in coefficients:
        row = f"linear Q, lambda = {c}"
        replaced = {"actor_loss": partial(actor_loss, coefficient=c)}
        chosen[f"{row}{end}"] = Variant(critic, replaced, table=3, row=row)
    return chosen


def draw_actions(table: dict[str, dict], path: Path) -> None:
    """Actions of every variant's first seed that counts at each K, turned back by pi / 2 obs."""
    steps = sorted({k for row in table.values() for k in row["off_mode"]})
    figure = new_figure(2.3 * len(steps), 2.5 * len(table))
    panels = figure.subplots(len(table), len(steps), squeeze=False)
    for (title, row), axes in zip(table.items(), panels, strict=True):
        for k, axis in zip(steps, axes, strict=True):
            off = cell(row["off_mode"].get(k), 100)
            draw_panel(axis, load_policy(row["counted"][0], num_steps=int(k)))
            axis.set_title(f"{title}\nK = {k}, off-mode {off} %", fontsize=8)
    figure.savefig(path)


def draw_panel(axis, act) -> None:
    """2,000 actions, if there is a policy, and the modes: reward 0 to the right, 1 up, 2, 3."""
    obs = np.random.default_rng(1).uniform(-1, 1, (2_000, 1)).astype(np.float32)
    if act:
        actions = act(obs).astype(float).view(complex) * np.exp(-0.5j * np.pi * obs)
        axis.scatter(actions.real, actions.imag, s=1, color="#3b6fb6")
    axis.scatter(*toy.modes(np.zeros((1, 1)))[0].T, s=60, facecolors="none", edgecolors="black")
    axis.set(aspect="equal", xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), xticks=[], yticks=[])


def run(options: Arguments) -> None:
    """Train, tabulate and draw the comparison."""
    if options.eta <= 0:
        raise gtp_offline.ArgumentError(f"--eta is {options.eta}; give more than 0")
    check_numbers("--coefficients", options.coefficients)
    options = prepare(options, "linear_q")
    chosen = variants(options.coefficients, options.eq_16)
    table = compare("linear_q", options, chosen)
    show("linear_q", options, table, chosen, "Guidance by the critic")
    if on_toy(options) and any(row["off_mode"] for row in table.values()):
        draw_actions(table, Path(options.out) / "linear_q_actions.png")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
