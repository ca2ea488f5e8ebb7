"""Fig. 7: what the four cloned policies do on the multi-goal task, side by side.

    python ablations/multigoal.py                  # three seeds, half an hour on one CPU core
    python ablations/multigoal.py --quick          # seconds; untrained policies, to see it work

Trains gtp_offline.py (eta = 0), gtp_bc.py, diffusion_ql.py and consistency_ac.py (both cloning,
without a critic) with equally many updates, and writes multigoal.json and multigoal.png into --out.
Finished runs that are there are used again, interrupted ones go on. A panel shows 200 episodes of
the first seed; under it, in 1,000 episodes of every seed, how many reach each goal, and none.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from experiment import (
    ENDED,
    Variant,
    changed_code,
    check_free,
    check_least,
    check_out,
    earlier_results,
    gtp_offline,
    has_checkpoint,
    main,
    make_out,
    new_figure,
    refuse_diverged,
    refuse_interrupted,
    refuse_lost,
    replacing,
    seeds_text,
    tell_other_code,
)

import offline_tasks
from offline_tasks import endings

ENV_ID = "multigoal-v0"
POLICIES = {  # script: title of its panel
    "gtp_offline": "GTP, eta = 0",
    "gtp_bc": "GTP-BC",
    "diffusion_ql": "Diffusion-BC",
    "consistency_ac": "Consistency-BC",
}


@dataclass
class Arguments:
    """The multi-goal comparison."""

    out: str = "runs/multigoal"  # folder of the runs, the table and the figure
    seeds: int = 3  # runs of each script, seeds 0, 1, ...
    num_updates: int = 20_000  # of every run; the consistency policy needs most
    quick: bool = False  # one seed of 300 updates of small networks
    device: str = "cpu"  # or cuda


def place(name: str, seed: int, options: Arguments) -> tuple:
    """A script's module, and the folder and the arguments of its run with a seed."""
    script = importlib.import_module(name)
    folder = Path(options.out) / f"{name}__{seed}__{options.num_updates}"
    if options.quick:
        folder = folder.with_name(f"{folder.name}__quick")
    return script, folder, replace(arguments(script, options), seed=seed, run_dir=str(folder))


def check_folders(options: Arguments) -> None:
    """ValueError, before the first run, for a folder that one of the runs could not use."""
    made_by = []
    for name in POLICIES:
        for seed in range(options.seeds):
            script, folder, args = place(name, seed, options)
            results = check_free(folder, args, script=script)
            made_by.append((changed_code(results, Variant(), script), str(folder)))
            refuse_diverged(results)
            if seed == 0:  # whose policy is drawn
                refuse_lost(results)
    tell_other_code(made_by)


def run_one(name: str, seed: int, options: Arguments) -> dict:
    """The results of a script's run with a seed: trained, continued or found in options.out."""
    script, folder, args = place(name, seed, options)
    results = earlier_results(folder, args, script)
    if results["status"] not in ENDED:
        if has_checkpoint(folder):
            args = replace(script.resume_args(folder), device=options.device)
        with replacing(offline_tasks, {"say_end": say_end}):
            results = script.train(args)
    refuse_interrupted(folder, results)
    refuse_diverged(results | {"run_dir": str(folder)})
    results["args"]["run_dir"] = str(folder)  # it may have been moved
    return results


def say_end(results: dict) -> None:
    """How to go on: by the command of this comparison, as with the runs of an ablation."""
    endings.say_end(results | {"variant": "multigoal"})


def arguments(script, options: Arguments):
    """A script's Args for cloning without a critic."""
    args = replace(
        script.default_args(env_id=ENV_ID, device=options.device),
        num_updates=options.num_updates,
        eval_freq=max(1, options.num_updates // 4),
        tensorboard=False,
    )
    if options.quick:
        args = replace(args, hidden_dim=64, num_holdout=200, num_eval_episodes=100)
    if hasattr(args, "eta"):  # gtp_bc.py only clones
        args = replace(args, eta=0.0, num_candidates=1)
    return args


def summary(runs: list[dict]) -> dict:
    """Means and, over the seeds, standard deviations of what the figure says."""
    args = runs[0]["args"]
    goals = np.array([results["last"]["goal_fractions"] for results in runs])
    return {
        "seeds": [results["seed"] for results in runs],
        "num_updates": runs[0]["num_updates"],
        "num_steps": args["num_steps"],
        "num_episodes": args["num_eval_episodes"],
        "goal_fractions": goals.mean(0).tolist(),
        "goal_fractions_std": goals.std(0).tolist(),
        "reaches_none": float(1 - goals.sum(1).mean()),
        "energy_score": mean([results["last"]["energy_score"] for results in runs]),
        "milliseconds_per_action": mean([results["milliseconds_per_action"] for results in runs]),
        "updates_per_second": mean([results["updates_per_second"] for results in runs]),
        "run_dirs": [results["args"]["run_dir"] for results in runs],
    }


def mean(values: list[float]) -> float:
    """As a number that JSON can have."""
    return float(np.mean(values))


def draw(table: dict[str, dict], path: Path) -> None:
    """One panel for each policy, its numbers below."""
    figure = new_figure(3.4 * len(table), 4.4)
    axes = figure.subplots(1, len(table), squeeze=False)[0]
    for axis, (name, row) in zip(axes, table.items(), strict=True):
        act = importlib.import_module(name).load_policy(row["run_dirs"][0])
        offline_tasks.draw_trajectories(axis, ENV_ID, act, seed=0)
        steps = "1 step" if row["num_steps"] == 1 else f"{row['num_steps']} steps"
        axis.set_title(f"{POLICIES[name]}, {steps}")
        goals = " / ".join(f"{100 * fraction:.0f}" for fraction in row["goal_fractions"])
        none = f"{100 * row['reaches_none']:.0f}"
        times = f"{row['milliseconds_per_action']:.2f} ms per action"
        axis.set_xlabel(f"goals {goals} %, none {none} %\n{times}")
    seeds = seeds_text(len(row["seeds"]))
    figure.suptitle(f"{row['num_updates']:,} updates; numbers: mean of {seeds}")
    figure.savefig(path)


def run(options: Arguments) -> None:
    """Train, write the table, draw."""
    check_least(options, {"seeds": 1})
    check_out(options.out)
    if options.quick:
        options = replace(options, seeds=1, num_updates=min(options.num_updates, 300))
    for name in POLICIES:
        script = importlib.import_module(name)
        script.check_args(arguments(script, options))
    torch.set_num_threads(1)
    out = Path(options.out)
    make_out(out)
    check_folders(options)
    table = {}
    for name in POLICIES:
        runs = [run_one(name, seed, options) for seed in range(options.seeds)]
        table[name] = summary(runs)
    gtp_offline.write_json(out / "multigoal.json", table)
    draw(table, out / "multigoal.png")
    for name, row in table.items():
        goals = " ".join(f"{fraction:.3f}" for fraction in row["goal_fractions"])
        times = f"{row['milliseconds_per_action']:.2f} ms per action"
        print(f"{name:16}goals {goals}  none {row['reaches_none']:.3f}  {times}")
    print(f"figure and table: {out / 'multigoal.png'}, {out / 'multigoal.json'}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
