"""Whose critic chooses: the samples of some runs, chosen among by the critics of others.

    python ablations/choosing_critic.py --actors RUN_DIR RUN_DIR --critics RUN_DIR RUN_DIR

Tells what a policy's samples are worth from what a critic is worth. Every actor proposes
--num-candidates actions and every critic takes one of them, drawn by softmax of its smaller target
Q as in an evaluation. The runs are of one task and one dataset, finished or not; any script gives
actors, those that learn by a critic give critics. Of each critic also: the mean of its smaller Q
over the data and the correlation with the discounted return to go, over the steps of episodes that
end in a terminal state (after a timeout the return is not known).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from experiment import (
    ArgumentError,
    check_folders,
    check_least,
    check_measured,
    check_out,
    gtp_offline,
    main,
    make_out,
    measured_with,
    print_rows,
    score_or_return,
    sha256,
)

import gtp_bc
import offline_tasks
from evaluate import load_run

QUALITIES = {"mean_q": "mean Q", "correlation": "correlation with the return"}


@dataclass
class Arguments:
    """Play the samples of --actors, chosen among by the critics of --critics."""

    actors: list[str]  # run directories
    critics: list[str]  # run directories
    dataset_path: str = ""  # the runs' dataset, if it has moved
    num_candidates: int = 50  # samples to choose among, at least 2
    num_eval_episodes: int = 20  # episodes of each pair
    num_rows: int = 20_000  # transitions for a critic's correlation
    seed: int = 0  # of the episodes, of the noise and of the rows
    device: str = "cpu"  # or cuda
    out: Path = Path("runs/ablations")  # receives choosing_critic.json


class Trained(NamedTuple):
    """A run as its checkpoint has it."""

    script: ModuleType
    args: object
    nets: torch.nn.ModuleDict
    results: dict


def load(folder: str, options: Arguments) -> Trained:
    """A run directory, with its networks."""
    script, state = load_run(Path(folder))
    args = replace(script.saved_args(state), device=options.device)
    args = replace(args, dataset_path=options.dataset_path or args.dataset_path)
    return Trained(script, args, script.load_networks(state, args), state["results"])


def check_options(options: Arguments) -> None:
    """ArgumentError for what can be told from the options alone."""
    for flag, folders in (("--actors", options.actors), ("--critics", options.critics)):
        if not folders:
            raise ArgumentError(f"{flag} is empty; name one run directory or more")
        check_folders(flag, folders)
    least = {"num_candidates": 2, "num_eval_episodes": 1, "num_rows": 2, "seed": 0}
    check_least(options, least)
    if options.seed >= 2**63:
        raise ArgumentError(f"--seed is {options.seed}; it must be below 2^63")
    gtp_offline.check_device(options.device)
    check_out(options.out)


def check_runs(actors: dict, critics: dict[str, Trained], options: Arguments) -> None:
    """ArgumentError for runs that have nothing to do with each other, or have no critic, and for a
    dataset that is not theirs."""
    runs = actors | critics
    tasks = set()
    datasets = set()
    for run in runs.values():
        tasks.add(run.results["env_id"])
        datasets.add(run.results["dataset"]["sha256"])
    if None in tasks:
        alone = [folder for folder, run in runs.items() if run.results["env_id"] is None]
        raise ArgumentError(f"{alone[0]} has no task to play; give runs with --env-id")
    if len(tasks) > 1 or len(datasets) > 1:
        raise ArgumentError(f"{', '.join(runs)}: give runs of one task and one dataset")
    file = options.dataset_path
    if file and sha256(file) not in datasets:
        raise ArgumentError(f"--dataset-path {file} is not the dataset of the runs; name that one")
    for folder, run in critics.items():
        if "critic_target" not in run.nets:
            raise ArgumentError(f"--critics {folder} has no critic; give a run that has one")


def choosing(actor: Trained, critic: Trained, count: int, seed: int) -> Callable:
    """act(obs (n, obs_dim)) -> actions: one of the actor's `count` samples, by the critic's Q."""
    script, args = actor.script, actor.args
    if script is gtp_bc:  # its samples are GTP's, its acting knows no critic
        script, args = gtp_offline, gtp_offline.Args(**vars(args))
    nets = torch.nn.ModuleDict({**actor.nets, "critic_target": critic.nets["critic_target"]})
    return script.make_act(nets, replace(args, num_candidates=count), seed)


def returns_to_go(data: dict, gamma: float) -> np.ndarray:
    """Discounted rewards until a terminal state, (n,); NaN where an episode ends otherwise."""
    rewards = data["rewards"]
    terminals = data["terminals"] > 0
    following = data["observations"][1:]
    same = (data["next_observations"][:-1] == following).all(1)
    goes_on = same & ~terminals[:-1]  # the next row is of the same episode
    found = np.full(len(rewards), np.nan)
    found[terminals] = rewards[terminals]
    for row in np.flatnonzero(goes_on)[::-1]:
        found[row] = rewards[row] + gamma * found[row + 1]
    return found


@torch.no_grad()
def quality(critic: Trained, options: Arguments) -> dict[str, float]:
    """The mean of a critic's smaller Q, and its correlation with the known returns to go."""
    data, _, _ = critic.script.load_data(critic.args)
    arrays = {key: value.cpu().numpy() for key, value in data.items()}
    generator = torch.Generator().manual_seed(options.seed)
    rows = torch.randperm(len(arrays["rewards"]), generator=generator)
    rows = rows[: options.num_rows].to(critic.args.device)
    obs = data["observations"][rows]
    actions = data["actions"][rows]
    q = critic.nets["critic_target"](obs, actions).amin(0)
    q = q.cpu().numpy()
    returns = returns_to_go(arrays, critic.args.gamma)
    returns = returns[rows.cpu()]
    known = np.isfinite(returns)
    return {"mean_q": float(q.mean()), "correlation": correlation(q[known], returns[known])}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; NaN where it is not defined: of fewer than two pairs, or of a constant."""
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def play(actors: dict, critics: dict, options: Arguments) -> dict[str, dict[str, float]]:
    """{actor: {critic: the mean score of the episodes, or return where the task has no score}}."""
    scores = {}
    for name, actor in actors.items():
        scores[name] = {}
        for other, critic in critics.items():
            act = choosing(actor, critic, options.num_candidates, options.seed)
            env_id = actor.results["env_id"]
            first_seed = options.seed + 100  # as in an evaluation
            row = offline_tasks.evaluate(env_id, act, options.num_eval_episodes, first_seed)
            scores[name][other] = score_or_return(row)
    return scores


def run(options: Arguments) -> None:
    """Play every pair, tabulate, write choosing_critic.json."""
    check_options(options)
    file = options.out / "choosing_critic.json"
    check_measured(file, options)
    actors = {folder: load(folder, options) for folder in options.actors}
    critics = {folder: load(folder, options) for folder in options.critics}
    check_runs(actors, critics, options)
    make_out(options.out)
    qualities = {folder: quality(critic, options) for folder, critic in critics.items()}
    scores = play(actors, critics, options)
    rows = []
    for name, by_critic in scores.items():
        rows.append([name, *(f"{score:.1f}" for score in by_critic.values())])
    for key, title in QUALITIES.items():
        values = [found[key] for found in qualities.values()]
        rows.append([title, *("-" if np.isnan(value) else f"{value:.2f}" for value in values)])
    print_rows([f"{options.num_candidates} samples of", *critics], rows)
    results = {"scores": scores, "critics": qualities, "options": measured_with(options)}
    gtp_offline.write_json(file, results)


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
