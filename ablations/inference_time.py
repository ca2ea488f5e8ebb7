"""Table 6: milliseconds per action of the four policies, one observation at a time.

    python ablations/inference_time.py                  # untrained networks, half a minute
    python ablations/inference_time.py --device cuda    # kernels and the copy of the action awaited
    python ablations/inference_time.py --quick          # seconds: shows that it works
    python ablations/inference_time.py --checkpoints RUN_DIR RUN_DIR    # trained ones, and scores

The shapes are those of the paper's task, halfcheetah-medium-expert-v2, and the networks those of
the scripts. Time does not depend on the weights: they are untrained unless --checkpoints names
runs of gtp_offline.py (gtp_bc.py has the same actor), diffusion_ql.py and consistency_ac.py on the
task, whose policies are then also played in 100 episodes. All policies act in turn, round after
round, so that a busy machine slows all alike; a ratio is to the diffusion policy in the same round,
because milliseconds depend on the machine, the paper's an RTX 4090 (C.1). Wall times: quartiles.

The published code of the two baselines chooses among 50 candidates by its critic whenever it acts
in an evaluation. The paper does not say whether its times include that, so each baseline has a row
with and one without.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import paper
import torch
from experiment import cell, d4rl_tasks, gtp_offline, machine, main, mean_std, write_json

TASK = "halfcheetah-medium-expert-v2"
POLICIES = {  # title, the paper's unless candidates are chosen: script, steps, candidates
    "Diffusion (T = 5)": ("diffusion_ql", 5, 1),
    "Consistency (T = 2)": ("consistency_ac", 2, 1),
    "GTP (T = 5)": ("gtp_offline", 5, 1),
    "GTP (T = 2)": ("gtp_offline", 2, 1),
    "Diffusion (T = 5), 50 candidates": ("diffusion_ql", 5, 50),
    "Consistency (T = 2), 50 candidates": ("consistency_ac", 2, 50),
}
BASE = "Diffusion (T = 5)"  # of the ratios


@dataclass
class Arguments:
    """Milliseconds per action of the four policies."""

    out: str = "runs/inference_time"  # folder of the results and the figure
    env_id: str = TASK  # task whose shapes the networks have
    checkpoints: tuple[str, ...] = ()  # run directories of trained policies [untrained ones]
    num_eval_episodes: int = 100  # episodes that a trained policy plays for its score
    seeds: int = 3  # initialisations of the untrained networks
    rounds: int = 60  # turns of every policy
    calls: int = 20  # actions in a turn
    hidden_dim: int = 256  # width of the untrained networks
    device: str = "cpu"  # or cuda
    quick: bool = False  # a few rounds of small networks: shows that it works, not more


def trained(options: Arguments) -> dict[str, list[tuple[Path, dict]]]:
    """{script: [(run directory, its arguments)]} of --checkpoints; ValueError if one is not of a
    finished run of the three scripts on the task."""
    found = {script: [] for script, *_ in POLICIES.values()}
    for folder in map(Path, options.checkpoints):
        file = folder / "results.json"
        results = json.loads(file.read_text()) if file.is_file() else {}
        if results.get("algorithm") not in found or results["status"] != "finished":
            raise ValueError(f"--checkpoints {folder} is no finished run of {', '.join(found)}")
        if (task := results["env_id"]) != options.env_id:
            raise ValueError(f"--checkpoints {folder} is of {task}; give --env-id {task}")
        found[results["algorithm"]].append((folder, results["args"]))
    return found


def policies(options: Arguments) -> dict[str, tuple[list[Callable], bool]]:
    """{title: (acts, whether they are trained)}, an act for each checkpoint or else each seed."""
    checkpoints, found = trained(options), {}
    for title, (script, steps, candidates) in POLICIES.items():
        module, acts = import_module(script), []
        changes = dict(num_steps=steps, num_candidates=candidates, device=options.device)
        for folder, args in checkpoints[script]:
            if script == "diffusion_ql" and args["num_steps"] != steps:
                raise ValueError(f"--checkpoints {folder} has T = {args['num_steps']}, not {steps}")
            if args["eta"] > 0 or args["num_candidates"] > 1 or candidates == 1:
                acts.append(module.load_policy(folder, **changes))  # else: its critic is missing
        found[title] = acts, bool(acts)
        for seed in () if acts else range(options.seeds):
            args = module.Args(env_id=options.env_id, hidden_dim=options.hidden_dim, **changes)
            args = module.resolve_args(args)
            torch.manual_seed(seed)
            nets = module.make_networks(args, *d4rl_tasks.task_dims(options.env_id)[:2])
            found[title][0].append(module.make_act(nets.to(options.device), args, seed))
    return found


def measure(acts: dict[str, list[Callable]], obs_dim: int, rounds: int, calls: int) -> dict:
    """{title: milliseconds per action (rounds, len(acts))}, all policies in turn in every round."""
    obs = np.random.default_rng(0).standard_normal((calls + 1, obs_dim), dtype=np.float32)
    times = {title: np.zeros((rounds, len(several))) for title, several in acts.items()}
    for turn in range(rounds):
        for title, several in acts.items():
            for i, act in enumerate(several):
                act(obs[0])  # fetches its weights into the caches
                began = time.perf_counter()
                for row in obs[1:]:
                    act(row)  # ends with the action on the CPU: kernels on a GPU are awaited
                times[title][turn, i] = 1e3 * (time.perf_counter() - began) / calls
    return times


def quartiles(values) -> list[float]:
    """[median, lower quartile, upper quartile]."""
    return np.percentile(values, [50, 25, 75]).tolist()


def summary(times: dict[str, np.ndarray], printed: dict[str, str]) -> dict[str, dict]:
    """{title: row} of times and ratios, the latter per round, and the printed ones or None."""
    base = times[BASE].mean(1)
    paper_ms = {title: float(text) for title, text in printed.items()}
    return {
        title: {
            "milliseconds": quartiles(values),
            "ratio": quartiles(values.mean(1) / base),
            "paper_milliseconds": paper_ms.get(title),
            "paper_ratio": paper_ms[title] / paper_ms[BASE] if title in paper_ms else None,
        }
        for title, values in times.items()
    }


def print_rows(table: dict[str, dict]) -> None:
    """Markdown: a row for every policy."""
    scored = any(row["score"] for row in table.values())
    heads = ["ms per action (quartiles)", "ratio", "paper: ms", "ratio", "weights", "score"]
    heads = heads if scored else heads[:-1]
    print("| | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    show = lambda value: "-" if value is None else f"{value:.2f}"  # noqa: E731
    for title, row in table.items():
        (ms, *ends), (ratio, *_) = row["milliseconds"], row["ratio"]
        cells = [f"{ms:.2f} ({ends[0]:.2f} to {ends[1]:.2f})", f"{ratio:.2f}"]
        cells += [show(row["paper_milliseconds"]), show(row["paper_ratio"])]
        cells += ["trained" if row["trained"] else "untrained"]
        cells += [cell(row["score"], 1, 1)] * scored
        print(f"| {title} | " + " | ".join(cells) + " |")


def draw(table: dict[str, dict], path: Path, title: str) -> None:
    """Bars of ratios with quartiles, milliseconds beside them, the paper's ratios as diamonds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.45 * len(table)), dpi=120, layout="constrained")
    axis, rows, y = figure.subplots(), [*table.values()], np.arange(len(table))
    middle, low, high = np.array([row["ratio"] for row in rows]).T
    colors = ["#3b6fb6" if name.startswith("GTP") else "#b9c3d1" for name in table]
    axis.barh(y, middle, xerr=[middle - low, high - middle], color=colors, capsize=2)
    for i, row in enumerate(rows):
        ms = row["milliseconds"][0]
        most = max(high[i], row["paper_ratio"] or 0)
        axis.annotate(f"{ms:.2f} ms", (most, i), (8, 0), textcoords="offset points", va="center")
    ratios = [(row["paper_ratio"], i) for i, row in enumerate(rows) if row["paper_ratio"]]
    if ratios:
        axis.plot(*np.array(ratios).T, "kD", ms=5, label="the paper, on its machine")
        axis.legend(frameon=False, fontsize=8)
    axis.set_yticks(y, [*table])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel=f"time per action, divided by that of {BASE}", title=title)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def run(options: Arguments) -> None:
    """Measure, play where there are checkpoints, tabulate and draw."""
    if min(options.seeds, options.rounds, options.calls, options.num_eval_episodes) < 1:
        raise ValueError(
            "--seeds, --rounds, --calls and --num-eval-episodes must be at least 1, not "
            f"{options.seeds}, {options.rounds}, {options.calls} and {options.num_eval_episodes}"
        )
    gtp_offline.resolve_args(gtp_offline.Args(env_id=options.env_id, device=options.device))
    torch.set_num_threads(1)
    if options.quick:
        changes = dict(seeds=1, rounds=3, calls=5, hidden_dim=16, num_eval_episodes=1)
        options = replace(options, **changes)
    chosen = policies(options)
    obs_dim = d4rl_tasks.task_dims(options.env_id)[0]
    scores = {}
    for title, (several, is_trained) in chosen.items():  # before the timing draws any noise
        episodes, seeds = options.num_eval_episodes, [act.args.seed + 100 for act in several]
        rows = [
            d4rl_tasks.evaluate(options.env_id, act, episodes, seed)["normalized_score"]
            for act, seed in zip(several, seeds, strict=True)
            if is_trained
        ]
        scores[title] = mean_std(rows)
    acts = {title: several for title, (several, _) in chosen.items()}
    printed = paper.TABLE_6 if options.env_id == TASK else {}
    table = summary(measure(acts, obs_dim, options.rounds, options.calls), printed)
    for title, (several, is_trained) in chosen.items():
        table[title] |= {"trained": is_trained, "policies": len(several), "score": scores[title]}
    where = machine(options.device) + ", one thread" * ("cuda" not in options.device)
    about = {"ablation": "inference_time", "data": options.env_id, "hidden_dim": options.hidden_dim,
        "rounds": options.rounds, "calls": options.calls, "machine": where,
        "torch": torch.__version__, "variants": table}  # fmt: skip
    path = Path(options.out) / "inference_time.png"
    write_json(path.with_suffix(".json"), about)
    print_rows(table)
    draw(table, path, f"One action for one observation, {where}")
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
