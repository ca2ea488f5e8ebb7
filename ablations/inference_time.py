"""Table 6: milliseconds per action of the four policies, one observation at a time.

    python ablations/inference_time.py                  # untrained networks, half a minute
    python ablations/inference_time.py --device cuda    # kernels and the copy of the action awaited
    python ablations/inference_time.py --quick          # seconds: shows that it works
    python ablations/inference_time.py --checkpoints RUN_DIR RUN_DIR    # trained ones, and scores

The shapes are those of the paper's task, halfcheetah-medium-expert-v2, and the networks those of
the scripts. Time does not depend on the weights: they are untrained unless --checkpoints names
runs of gtp_offline.py (gtp_bc.py has the same actor), diffusion_ql.py and consistency_ac.py on the
task, whose policies are then also played in 100 episodes: of the width --hidden-dim, and those of a
script differ by the seed alone. All policies act in turn, round after round, so that a busy machine
slows all alike; a ratio is to the diffusion policy in the same round, because milliseconds depend
on the machine, the paper's an RTX 4090 (C.1). Wall times: quartiles. What was measured with other
arguments is not replaced: they take another --out.

The published code of the two baselines chooses among 50 candidates by its critic whenever it acts
in an evaluation. The paper does not say whether its times include that, so each baseline has a row
with and one without.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import paper
import torch
from experiment import (
    ArgumentError,
    cell,
    check_folders,
    check_least,
    check_measured,
    check_out,
    gtp_offline,
    machine,
    main,
    make_out,
    mean_std,
    measured_with,
    new_figure,
    print_rows,
    read_results,
    score_name,
    score_or_return,
    style,
)

import offline_tasks
from report import IGNORED

TASK = paper.TABLE_6_TASK
POLICIES = {  # title, the paper's unless candidates are chosen: script, steps, candidates
    "Diffusion (T = 5)": ("diffusion_ql", 5, 1),
    "Consistency (T = 2)": ("consistency_ac", 2, 1),
    "GTP (T = 5)": ("gtp_offline", 5, 1),
    "GTP (T = 2)": ("gtp_offline", 2, 1),
    "Diffusion (T = 5), 50 candidates": ("diffusion_ql", 5, 50),
    "Consistency (T = 2), 50 candidates": ("consistency_ac", 2, 50),
}
BASE = "Diffusion (T = 5)"  # of the ratios
FREE = {*IGNORED, "eval_freq", "num_eval_episodes"}  # in which trained runs of a row may differ


@dataclass
class Arguments:
    """Milliseconds per action of the four policies."""

    out: str = "runs/inference_time"  # folder of the results and the figure
    env_id: str = TASK  # task whose shapes the networks have
    checkpoints: tuple[str, ...] = ()  # run directories of trained policies; none: untrained ones
    num_eval_episodes: int = 100  # episodes that a trained policy plays for its score
    seeds: int = 3  # initialisations of the untrained networks
    rounds: int = 60  # turns of every policy
    calls: int = 20  # actions in a turn
    hidden_dim: int = 256  # width of the networks
    device: str = "cpu"  # or cuda
    quick: bool = False  # a few rounds of small networks: shows that it works, not more


@dataclass
class Policy:
    """A row of the table: an act for each trained run or else for each initialisation."""

    acts: list[Callable]
    seeds: list[int]
    trained: bool


def trained_runs(options: Arguments) -> dict[str, list[tuple[Path, object]]]:
    """{script: [(run directory, its arguments)]} of --checkpoints; ArgumentError if one is not of a
    finished run of the three scripts on the task."""
    found = {script: [] for script, *_ in POLICIES.values()}
    digests = {}
    for folder in map(Path, options.checkpoints):
        try:
            results = read_results(folder) or {}
        except ValueError as error:
            raise ArgumentError(f"--checkpoints {folder}: {error}; name another run") from error
        script = results.get("algorithm")
        if script not in found or results["status"] != "finished":
            raise ArgumentError(f"--checkpoints {folder} is no finished run of {', '.join(found)}")
        task = results.get("env_id")
        if not task:
            raise ArgumentError(f"--checkpoints {folder} has no task; name runs on one")
        if task != options.env_id:
            raise ArgumentError(f"--checkpoints {folder} is of {task}; give --env-id {task}")
        digest = results["dataset"].get("sha256")
        if digests.setdefault(script, digest) != digest:
            words = f"is of other data than the {script} run before it"
            raise ArgumentError(f"--checkpoints {folder} {words}; name runs of one dataset")
        found[script].append((folder, import_module(script).resume_args(folder)))
    for runs in found.values():
        check_alike(runs, options.hidden_dim)
    return found


def check_alike(runs: list[tuple[Path, object]], hidden_dim: int) -> None:
    """ArgumentError for runs of a script that differ by more than the seed, or not even by it, and
    for networks of another width than the untrained ones beside them."""
    seeds = {}
    for folder, args in runs:
        first, usual = runs[0]
        if args.hidden_dim != hidden_dim:
            words = f"has --hidden-dim {args.hidden_dim}; give --hidden-dim {args.hidden_dim}"
            raise ArgumentError(f"--checkpoints {folder} {words}, or name another run")
        for name, value in asdict(args).items():
            if name not in FREE and value != getattr(usual, name):
                flag = name.replace("_", "-")
                words = f"has --{flag} {value}, {first} has {getattr(usual, name)}"
                raise ArgumentError(f"--checkpoints {folder} {words}; name runs of one kind")
        other = seeds.setdefault(args.seed, folder)
        if other != folder:
            words = f"has the seed {args.seed}, as {other} has; name one of them"
            raise ArgumentError(f"--checkpoints {folder} {words}")


def trained_policy(title: str, runs: list[tuple[Path, object]], device: str) -> Policy:
    """A row from its script's runs, less those without the critic it takes."""
    script, steps, candidates = POLICIES[title]
    policy = Policy([], [], trained=True)
    for folder, args in runs:
        if script == "diffusion_ql" and args.num_steps != steps:
            raise ArgumentError(f"--checkpoints {folder} has T = {args.num_steps}, not {steps}")
        has_critic = args.eta > 0 or args.num_candidates > 1
        if has_critic or candidates == 1:
            changes = {"num_candidates": candidates, "device": device}
            if args.num_steps != steps:
                changes["num_steps"] = steps
            act = import_module(script).load_policy(folder, **changes)
            policy.acts.append(act)
            policy.seeds.append(args.seed)
    return policy


def untrained_policy(title: str, options: Arguments) -> Policy:
    """A row with networks as they are initialised."""
    script, steps, candidates = POLICIES[title]
    module = import_module(script)
    args = replace(
        module.default_args(env_id=options.env_id, device=options.device),
        hidden_dim=options.hidden_dim,
        num_steps=steps,
        num_candidates=candidates,
    )
    obs_dim, action_dim, _ = offline_tasks.task_dims(options.env_id)
    policy = Policy([], [*range(options.seeds)], trained=False)
    for seed in policy.seeds:
        torch.manual_seed(seed)
        nets = module.make_networks(args, obs_dim, action_dim).to(options.device)
        policy.acts.append(module.make_act(nets, args, seed))
    return policy


def policies(options: Arguments) -> dict[str, Policy]:
    """{title: policy} of every row."""
    runs = trained_runs(options)
    found = {}
    for title, (script, *_) in POLICIES.items():
        policy = trained_policy(title, runs[script], options.device)
        if not policy.acts:
            policy = untrained_policy(title, options)
        found[title] = policy
    return found


def measure(acts: dict[str, list[Callable]], obs_dim: int, rounds: int, calls: int) -> dict:
    """{title: milliseconds per action (rounds, len(acts))}, all policies in turn in every round."""
    rng = np.random.default_rng(0)
    warm_up, *obs = rng.standard_normal((calls + 1, obs_dim), dtype=np.float32)
    times = {title: np.zeros((rounds, len(several))) for title, several in acts.items()}
    for turn in range(rounds):
        for title, several in acts.items():
            for i, act in enumerate(several):
                act(warm_up)  # fetches its weights into the caches
                began = time.perf_counter()
                for row in obs:
                    act(row)  # ends with the action on the CPU: kernels on a GPU are awaited
                seconds = time.perf_counter() - began
                times[title][turn, i] = 1e3 * seconds / calls
    return times


def quartiles(values) -> list[float]:
    """[median, lower quartile, upper quartile]."""
    return np.percentile(values, [50, 25, 75]).tolist()


def summary(times: dict[str, np.ndarray], printed: dict[str, str]) -> dict[str, dict]:
    """{title: row} of times and ratios, the latter per round, and the printed ones or None."""
    base = times[BASE].mean(1)
    table = {}
    for title, values in times.items():
        table[title] = {
            "milliseconds": quartiles(values),
            "ratio": quartiles(values.mean(1) / base),
            "paper_milliseconds": None,
            "paper_ratio": None,
        }
        if title in printed:
            milliseconds = float(printed[title])
            table[title]["paper_milliseconds"] = milliseconds
            table[title]["paper_ratio"] = milliseconds / float(printed[BASE])
    return table


def score(policy: Policy, options: Arguments) -> list[float] | None:
    """[mean, std] of the normalized scores (of returns, where a task has none) of a trained row's
    policies, None of others."""
    if not policy.trained:
        return None
    rows = []
    for act, seed in zip(policy.acts, policy.seeds, strict=True):
        row = offline_tasks.evaluate(options.env_id, act, options.num_eval_episodes, seed + 100)
        rows.append(row)
    return mean_std(map(score_or_return, rows))


def optional(value: float | None) -> str:
    """A number of the paper, '-' where it has none."""
    return "-" if value is None else f"{value:.2f}"


def print_policies(table: dict[str, dict], env_id: str) -> None:
    """Markdown: a row for every policy, with its score or return on a task."""
    scored = any(row["score"] for row in table.values())
    heads = ["", "ms per action (quartiles)", "ratio", "paper: ms", "ratio", "weights"]
    heads += [score_name(env_id)] if scored else []
    rows = []
    for title, row in table.items():
        ms, low, high = row["milliseconds"]
        cells = [
            title,
            f"{ms:.2f} ({low:.2f} to {high:.2f})",
            f"{row['ratio'][0]:.2f}",
            optional(row["paper_milliseconds"]),
            optional(row["paper_ratio"]),
            "trained" if row["trained"] else "untrained",
        ]
        cells += [cell(row["score"], 1, 1)] if scored else []
        rows.append(cells)
    print_rows(heads, rows)


def draw(table: dict[str, dict], path: Path, title: str) -> None:
    """Bars of ratios with quartiles, milliseconds beside them, the paper's ratios as diamonds."""
    figure = new_figure(8, 1.2 + 0.45 * len(table))
    axis = figure.subplots()
    y = np.arange(len(table))
    middle, low, high = np.array([row["ratio"] for row in table.values()]).T
    colors = ["#3b6fb6" if name.startswith("GTP") else "#b9c3d1" for name in table]
    axis.barh(y, middle, xerr=[middle - low, high - middle], color=colors, capsize=2)
    printed = [row["paper_ratio"] or 0 for row in table.values()]
    for i, row in enumerate(table.values()):
        axis.annotate(
            f"{row['milliseconds'][0]:.2f} ms",
            xy=(max(high[i], printed[i]), i),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    known = np.flatnonzero(printed)
    if len(known):
        ratios = np.array(printed)[known]
        axis.plot(ratios, known, "kD", ms=5, label="the paper, on its machine")
    axis.set_yticks(y, [*table])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel=f"time per action, divided by that of {BASE}", title=title)
    style(axis)
    figure.savefig(path)


def check(options: Arguments) -> None:
    """ArgumentError for counts, sizes, a folder, a task or a device that cannot be."""
    check_out(options.out)
    check_folders("--checkpoints", options.checkpoints)
    check_least(options, {"seeds": 1, "rounds": 1, "calls": 1, "num_eval_episodes": 1})
    if not options.env_id:
        raise ArgumentError(f"--env-id is empty; give a task, {TASK} say")
    args = gtp_offline.default_args(env_id=options.env_id, device=options.device)
    gtp_offline.check_args(replace(args, hidden_dim=options.hidden_dim))
    episodes = options.num_eval_episodes
    if episodes != Arguments.num_eval_episodes and not options.checkpoints:
        words = f"--num-eval-episodes {episodes} has no effect with no --checkpoints"
        print(f"warning: {words}", file=sys.stderr)


def run(options: Arguments) -> None:
    """Measure, play where there are checkpoints, tabulate and draw."""
    check(options)
    torch.set_num_threads(1)
    path = Path(options.out) / "inference_time.png"
    given = measured_with(options)
    check_measured(path.with_suffix(".json"), options)
    if options.quick:
        width = options.hidden_dim if options.checkpoints else 16
        options = replace(options, seeds=1, rounds=3, calls=5, num_eval_episodes=1)
        options = replace(options, hidden_dim=width)
    rows = policies(options)
    make_out(options.out)
    scores = {title: score(policy, options) for title, policy in rows.items()}  # draws noise: first
    acts = {title: policy.acts for title, policy in rows.items()}
    obs_dim = offline_tasks.task_dims(options.env_id)[0]
    times = measure(acts, obs_dim, options.rounds, options.calls)
    table = summary(times, paper.TABLE_6 if options.env_id == TASK else {})
    for title, policy in rows.items():
        table[title] |= {
            "trained": policy.trained,
            "policies": len(policy.acts),
            "score": scores[title],
        }
    where = machine(options.device)
    if not options.device.startswith("cuda"):
        where += ", one thread"
    content = {
        "ablation": "inference_time",
        "options": given,
        "data": options.env_id,
        "hidden_dim": options.hidden_dim,
        "rounds": options.rounds,
        "calls": options.calls,
        "machine": where,
        "torch": torch.__version__,
        "variants": table,
    }
    gtp_offline.write_json(path.with_suffix(".json"), content)
    print_policies(table, options.env_id)
    draw(table, path, f"One action for one observation, {where}")
    print(f"{path.with_suffix('.json')}, {path}")


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
