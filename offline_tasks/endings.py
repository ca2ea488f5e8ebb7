"""What is said of a run: at its end where it did not finish, and where its Q cannot be right."""

import math
import shlex
import sys
from pathlib import Path

import numpy as np


def say_end(results: dict) -> None:
    """Prints, of a run's results.json, why it ended early, and the remedy or how to go on."""
    run_dir = results["args"]["run_dir"]
    if results["status"] == "diverged":
        where = f"by update {results['update']}; see {run_dir}/results.json"
        print(f"{sorted(results['diverged'])} diverged {where}; {_remedy(results['diverged'])}")
    if "early_stop" in results:
        before, now = results["early_stop"]
        print(f"ended by --early-stop at update {results['update']}: L_d {before:.6g} -> {now:.6g}")
    if results["status"] == "interrupted":
        script = f"{results['algorithm']}.py"
        if Path(sys.argv[0]).name == script:  # else a program has called its train()
            script = sys.argv[0]
        command = shlex.join(["python", script, "--resume", run_dir])
        print(f"interrupted; go on with: {results['command'] if results['variant'] else command}")


def _remedy(means: dict[str, float]) -> str:
    """What may help, by what diverged: rewards concern the critic alone, and a bound what is
    finite, which is Q."""
    of_critic = any("q" in name or "critic" in name or name == "value" for name in means)
    smaller = "--learning-rate"
    if of_critic:
        smaller = "--reward-scale, --critic-learning-rate or --learning-rate"
    if any(map(math.isfinite, means.values())):
        return f"try a smaller {smaller}, a --grad-norm, or another --divergence-bound"
    return f"try a smaller {smaller} or a --grad-norm; only --divergence-bound 0 would go on so"


def largest_rewards(rewards: np.ndarray, terminals: np.ndarray) -> dict:
    """The largest reward of a transition (n,) that goes on and of one that ends; None: no such."""
    largest = {}
    for name, rows in (("going_on", terminals == 0), ("ending", terminals > 0)):
        largest[name] = float(rewards[rows].max()) if rows.any() else None
    return {"largest_rewards": largest}


def largest_return(largest: dict, gamma: float) -> float:
    """What no discounted return exceeds: r for ever, r / (1 - gamma), or a last r at once.

    The largest V solves V = max(ending, going_on + gamma V)."""
    ending = -math.inf if largest["ending"] is None else largest["ending"]
    if largest["going_on"] is None:
        return ending
    if gamma == 1:
        return math.inf if largest["going_on"] > 0 else max(ending, largest["going_on"])
    return max(ending, largest["going_on"] / (1 - gamma))


def say_impossible_q(results: dict, gamma: float) -> None:
    """Prints, once a run, that Q is above what rewards and discount allow; sets `q_bound`. A critic
    that is right errs by less than half a reward, and `q_max` is the largest of many errors."""
    losses = results["losses"][-1]
    q = losses.get("q_max", losses.get("q_mean"))
    largest = results.get("dataset", {}).get("largest_rewards")  # older runs: none
    if q is None or largest is None or "q_bound" in results:
        return
    bound = largest_return(largest, gamma)
    error = max(abs(reward) for reward in largest.values() if reward is not None) / 2
    if q > bound + error:
        results["q_bound"] = bound
        reached = f"Q reaches {q:.4g}, but rewards and --gamma {gamma:g} allow {bound:.4g}"
        why = "the critic overestimates; try a smaller --critic-learning-rate"
        if bound < 0:  # Q is near 0 when training starts
            why = "the critic overestimates, or is still on its way down from 0; train longer, "
            why += "or give a smaller --reward-scale"
        if results.get("args", {}).get("critic_norm") != "layer":
            why += "; gtp_offline.py has --critic-norm layer too"
        print(f"warning: {reached}: {why}", file=sys.stderr)
