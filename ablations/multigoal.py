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
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import d4rl_tasks

ENV_ID = "multigoal-v0"
POLICIES = {  # script: title of its panel
    "gtp_offline": "GTP, eta = 0", "gtp_bc": "GTP-BC",
    "diffusion_ql": "Diffusion-BC", "consistency_ac": "Consistency-BC",
}  # fmt: skip


@dataclass
class Options:
    """The multi-goal comparison."""

    out: str = "runs/multigoal"  # folder of the runs, the table and the figure
    seeds: int = 3  # runs of each script, seeds 0, 1, ...
    num_updates: int = 20_000  # of every run; the consistency policy needs most
    quick: bool = False  # one seed of 300 updates of small networks
    device: str = "cpu"  # or cuda


def run(name: str, seed: int, options: Options) -> dict:
    """The results of a script's run with a seed: trained, continued or found in options.out."""
    script = importlib.import_module(name)
    folder = Path(options.out) / f"{name}__{seed}__{options.num_updates}"
    folder = folder.with_name(folder.name + "__quick") if options.quick else folder
    file = folder / "results.json"
    if file.exists() and (found := json.loads(file.read_text()))["status"] == "finished":
        return found | {"args": found["args"] | {"run_dir": str(folder)}}  # it may have been moved
    if (folder / "checkpoint.pt").exists():
        results = script.train(script.Args(resume=str(folder), device=options.device))
    else:
        cloning = {} if name == "gtp_bc" else {"eta": 0.0, "num_candidates": 1}
        results = script.train(script.Args(
            env_id=ENV_ID, run_dir=str(folder), seed=seed, device=options.device,
            num_updates=options.num_updates, eval_freq=max(1, options.num_updates // 4),
            hidden_dim=64 if options.quick else 256, tensorboard=False, **cloning,
        ))  # fmt: skip
    if results["status"] != "finished":
        raise ValueError(f"{folder} is {results['status']}; the same command goes on from there")
    return results


def summary(runs: list[dict]) -> dict:
    """Means and, over the seeds, standard deviations of what the figure says."""
    goals = np.array([results["last"]["goal_fractions"] for results in runs])
    times = [results["milliseconds_per_action"] for results in runs]
    energies = [results["last"]["energy_score"] for results in runs]
    return {
        "seeds": [results["seed"] for results in runs],
        "num_updates": runs[0]["num_updates"], "num_steps": runs[0]["args"]["num_steps"],
        "num_episodes": runs[0]["args"]["num_eval_episodes"],
        "goal_fractions": goals.mean(0).tolist(), "goal_fractions_std": goals.std(0).tolist(),
        "reaches_none": float(1 - goals.sum(1).mean()), "energy_score": float(np.mean(energies)),
        "milliseconds_per_action": float(np.mean(times)),
        "updates_per_second": float(np.mean([results["updates_per_second"] for results in runs])),
        "run_dirs": [results["args"]["run_dir"] for results in runs],
    }  # fmt: skip


def draw(table: dict[str, dict], path: Path) -> None:
    """One panel for each policy, its numbers below."""
    figure = Figure(figsize=(3.4 * len(table), 4.4), dpi=120, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(table)))
    for axis, (name, row) in zip(axes, table.items(), strict=True):
        act = importlib.import_module(name).load_policy(row["run_dirs"][0])
        d4rl_tasks.draw_trajectories(axis, ENV_ID, act, seed=0)
        steps = "1 step" if row["num_steps"] == 1 else f"{row['num_steps']} steps"
        axis.set_title(f"{POLICIES[name]}, {steps}")
        goals = " / ".join(f"{100 * fraction:.0f}" for fraction in row["goal_fractions"])
        axis.set_xlabel(
            f"goals {goals} %, none {100 * row['reaches_none']:.0f} %\n"
            f"{row['milliseconds_per_action']:.2f} ms per action"
        )
    seeds, updates = len(row["seeds"]), row["num_updates"]
    figure.suptitle(f"{updates:,} updates; numbers: mean of {seeds} seed{'s' * (seeds > 1)}")
    figure.savefig(path)


def main() -> int:
    """Exit code: 0, or 1 for what cannot be trained, read or written."""
    options = tyro.cli(Options)
    try:
        if options.seeds < 1:
            raise ValueError(f"--seeds is {options.seeds}; it must be at least 1")
        if options.quick:
            options.seeds, options.num_updates = 1, 300
        torch.set_num_threads(1)
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        table = {
            name: summary([run(name, seed, options) for seed in range(options.seeds)])
            for name in POLICIES
        }
        (out / "multigoal.json").write_text(json.dumps(table, indent=1))
        draw(table, out / "multigoal.png")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, row in table.items():
        goals = " ".join(f"{fraction:.3f}" for fraction in row["goal_fractions"])
        print(f"{name:16}goals {goals}  none {row['reaches_none']:.3f}", end="  ")
        print(f"{row['milliseconds_per_action']:.2f} ms per action")
    print(f"figure and table: {out / 'multigoal.png'}, {out / 'multigoal.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
