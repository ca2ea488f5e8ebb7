"""Flags that have no effect with others: said where a run begins, one line each.

A flag counts as given where its value is not the task's default. Rows are data: with all of these
values these flags do nothing. A script that has been copied alone does without this file.
"""

import math
import sys
from dataclasses import fields

REWARDS = ["reward_scale", "reward_shift", "reward_normalization"]
CRITIC = ["critic_learning_rate", "gamma", "max_q_backup", "divergence_bound", *REWARDS]
EVERY = [
    ({"env_id": ""}, ["num_eval_episodes", "action_units"]),
    ({"compile": False}, ["cuda_graphs"]),
    ({"device": "cpu"}, ["cuda_graphs"]),
    ({"track": False}, ["wandb_project", "wandb_entity"]),
    ({"track": True}, ["tensorboard"]),
]
GTP = [
    ({"consistency_loss": "squared"}, ["huber_c"]),
    ({"lambda_flow": 0}, ["flow_weighting"]),
]
BASELINE = [
    ({"eta": 0, "num_candidates": 1}, CRITIC),
]
IDLE = {
    "gtp_offline": [
        *EVERY,
        *GTP,
        ({"td_target": "expectile"}, ["max_q_backup", "target_steps"]),
        ({"value": "learned"}, ["num_value_samples"]),
        ({"td_target": "policy", "value": "policy"}, ["expectile"]),
        ({"td_target": "policy", "eta": 0}, ["expectile", "weight_critic"]),
        ({"eta": 0}, ["std_floor", "truncate_advantage", "max_weight", "weight_normalization"]),
        ({"eta": 0}, ["value", "num_value_samples"]),
        (
            {"eta": 0, "num_candidates": 1},
            [*CRITIC, "td_target", "target_steps", "expectile", "weight_critic", "critic_norm"],
        ),
    ],
    "gtp_bc": [*EVERY, *GTP, ({}, [*REWARDS, "divergence_bound"])],
    "diffusion_ql": [
        *EVERY,
        *BASELINE,
        (
            {"eta": 0, "num_candidates": 1, "eval_actor": "online"},
            ["tau", "ema_start", "ema_every"],
        ),
    ],
    "consistency_ac": [
        *EVERY,
        *BASELINE,
        ({"eta": 0, "num_candidates": 1}, ["q_norm"]),
    ],
}
ALL_CHANGE = "hopper-medium-v2"  # a task none of whose defaults are already a switch's values
REDRAWN = ("num_value_samples", "td_target")  # what these sample is drawn, used or not


def idle_flags(algorithm: str, args) -> dict[str, str]:
    """{flag of Args that does nothing: because of what}, of a script; {} for other names."""
    reasons = {}
    for values, names in IDLE.get(algorithm, []):
        if all(getattr(args, name) == value for name, value in values.items()):
            because = " ".join(_words(name, value) for name, value in values.items())
            for name in names:
                reasons.setdefault(name, f"with {because}" if because else f"in {algorithm}.py")
    length = _words("num_updates", args.num_updates)
    if algorithm == "consistency_ac" and args.num_updates <= 50_000:  # the first period of N(k)
        reasons["schedule"] = f"with {length}"
    if algorithm in IDLE and _never_averages(args):
        because = f"with {_words('ema_start', args.ema_start)} {length}"
        reasons.setdefault("ema_every", because)
        if args.eta == 0 and args.num_candidates == 1:  # nor does a critic's
            reasons.setdefault("tau", because)
    if args.divergence_bound == 0:  # which also lets losses be
        reasons.pop("divergence_bound", None)
    return reasons


def _never_averages(args) -> bool:
    """Whether a baseline ends before its averaged actor begins to follow."""
    return getattr(args, "ema_start", -1) >= args.num_updates


def _words(name: str, value) -> str:
    """A flag and its value as they are given."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}" if value != "" else f"no --{flag}"


def redraws(name: str, args) -> bool:
    """Whether another value of a flag without effect changes which random numbers are drawn."""
    if name == "max_q_backup":
        return getattr(args, "td_target", "policy") == "policy"
    return name in REDRAWN


def check(algorithm: str, args, default_args, decisive) -> str:
    """Lines on stderr of what does nothing, or not what it seems to -> what is wrong, or ''.
    default_args: the script's, whose arguments are decisive."""
    given = {name: getattr(args, name) for name in decisive}
    default = default_args(**given)
    report(algorithm, args, default)
    whole = default_args(**given | {"num_updates": 0})
    if args.eval_freq == whole.eval_freq > args.num_updates:  # a program has shortened the task
        line = f"warning: --eval-freq {args.eval_freq} is beyond --num-updates {args.num_updates}"
        print(f"{line}: the only evaluation is the last update's", file=sys.stderr)
    if args.eval_actor == "ema" and _never_averages(args):
        line = f"warning: --eval-actor ema: averages begin at --ema-start {args.ema_start}"
        print(f"{line}, so the actor as it was initialised acts", file=sys.stderr)
    if not args.resume:  # which has evaluations of earlier ends, too
        _report_top_k(args, default)
    for switch in [name for name, value in given.items() if value is True]:
        here = _meant(switch, given, default_args)
        everywhere = here | _meant(switch, given | {"env_id": ALL_CHANGE}, default_args)
        fault = check_switch(switch, args, default, here or everywhere, everywhere)
        if fault:
            return fault
    return ""


def _meant(switch: str, given: dict, default_args) -> set[str]:
    """The flags whose defaults a switch changes for a task."""
    on = vars(default_args(**given))
    off = vars(default_args(**given | {switch: False}))
    return {name for name in on if on[name] != off[name]} - {switch}


def _report_top_k(args, default) -> None:
    """A line on stderr where a baseline is to select an evaluation of a rank that none has."""
    rank = getattr(args, "top_k", 0)
    freq = args.eval_freq or max(1, args.num_updates // 20)
    evaluations = math.ceil(args.num_updates / freq)
    if rank >= evaluations and rank != default.top_k:
        line = f"warning: --top-k {rank}, from 0, is beyond the {evaluations} evaluations"
        print(f"{line}: `selected` takes the last rank", file=sys.stderr)


def report(algorithm: str, args, default) -> None:
    """A line on stderr for each flag that is not the default's and does nothing."""
    for name, because in idle_flags(algorithm, args).items():
        value = getattr(args, name)
        if value != getattr(default, name):
            but = ", but on the random numbers" if redraws(name, args) else ""
            line = f"warning: {_words(name, value)} has no effect {because}{but}"
            print(line, file=sys.stderr)


def check_switch(switch: str, args, default, here: set, everywhere: set) -> str:
    """What is wrong where args have a switch that stands for values of other flags and none of
    those here, or ''; where they lack some of everywhere, a line says which. default: the defaults
    with the switch, which have the values; here: the flags that it changes for this task;
    everywhere: all that it stands for, some of which may be this task's default anyway."""
    names = [field.name for field in fields(args) if field.name in everywhere]
    others = [name for name in names if getattr(args, name) != getattr(default, name)]
    values = [_words(name, getattr(args, name)) for name in others]
    if values and here <= set(others):
        some = " ".join(values[:3] + ["..."] * (len(values) > 3))
        has = f"leave it out, or in a program take default_args(..., {switch}=True)"
        return f"{_words(switch, True)} has no effect with {some}; {has}"
    if values:
        line = f"warning: {_words(switch, True)}, but with {' '.join(values)}"
        print(line, file=sys.stderr)
    return ""
