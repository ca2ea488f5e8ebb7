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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from experiment import ArgumentError, gtp_offline, main, print_rows

import offline_tasks
from evaluate import load_run


@dataclass
class Arguments:
    """Play the samples of --actors, chosen among by the critics of --critics."""

    actors: list[str]  # run directories
    critics: list[str]  # run directories
    num_candidates: int = 50  # samples to choose among
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


def load(folder: str, device: str) -> Trained:
    """A run directory, with its networks."""
    script, state = load_run(Path(folder))
    args = replace(script.saved_args(state), device=device)
    return Trained(script, args, script.load_networks(state, args), state["results"])


def check(actors: dict[str, Trained], critics: dict[str, Trained]) -> None:
    """ArgumentError for runs that have nothing to do with each other, or have no critic."""
    runs = actors | critics
    about = {(run.results["env_id"], run.results["dataset"]["sha256"]) for run in runs.values()}
    if len(about) > 1 or not next(iter(about))[0]:
        raise ArgumentError(f"{', '.join(runs)}: give runs of one task and one dataset")
    for folder, run in critics.items():
        if "critic_target" not in run.nets:
            raise ArgumentError(f"--critics {folder} has no critic; give a run that has one")


def choosing(actor: Trained, critic: Trained, count: int, seed: int) -> Callable:
    """act(obs (n, obs_dim)) -> actions: one of the actor's `count` samples, by the critic's Q."""
    generator = torch.Generator().manual_seed(seed)
    device = actor.args.device

    @torch.no_grad()
    def act(obs):
        obs = torch.as_tensor(obs, dtype=torch.float32, device=device)
        shape = (count, len(obs), actor.nets["actor"].noise_dim)
        noise = torch.randn(shape, generator=generator).to(device)
        samples = actor.script.policy_samples(
            actor.nets, obs, noise, actor.args.num_steps, actor.args
        )
        q = critic.nets["critic_target"](obs, samples).amin(0)  # (count, n)
        choice = torch.multinomial(q.T.softmax(1).cpu(), 1, generator=generator)[:, 0]
        actions = samples.cpu()[choice, torch.arange(len(obs))].numpy()
        return gtp_offline.in_units(actions, actor.nets["actor"].action_bounds)

    return act


def returns_to_go(data: dict, gamma: float) -> np.ndarray:
    """Discounted rewards until a terminal state, (n,); NaN where an episode ends otherwise."""
    terminals = data["terminals"] > 0
    following = np.zeros(len(terminals), bool)  # whether the next row goes on
    same = (data["next_observations"][:-1] == data["observations"][1:]).all(1)
    following[:-1] = same & ~terminals[:-1]
    found = np.where(terminals, data["rewards"], np.nan).astype(np.float64)
    for row in np.flatnonzero(following)[::-1]:
        found[row] = data["rewards"][row] + gamma * found[row + 1]
    return found


@torch.no_grad()
def quality(critic: Trained, options: Arguments) -> dict[str, float]:
    """The mean of a critic's smaller Q, and its correlation with the known returns to go."""
    data, _, _ = critic.script.load_data(critic.args)
    arrays = {key: value.cpu().numpy() for key, value in data.items()}
    known = returns_to_go(arrays, critic.args.gamma)
    generator = torch.Generator().manual_seed(options.seed)
    rows = torch.randperm(len(known), generator=generator)[: options.num_rows]
    chosen = rows.to(critic.args.device)
    q = critic.nets["critic_target"](data["observations"][chosen], data["actions"][chosen])
    q = q.amin(0).cpu().numpy()
    ended = np.isfinite(known[rows])
    correlation = np.corrcoef(q[ended], known[rows][ended])[0, 1]
    return {"mean_q": float(q.mean()), "correlation": float(correlation)}


def run(options: Arguments) -> None:
    """Play every pair, tabulate, write choosing_critic.json."""
    actors = {folder: load(folder, options.device) for folder in options.actors}
    critics = {folder: load(folder, options.device) for folder in options.critics}
    check(actors, critics)
    env_id = next(iter(actors.values())).results["env_id"]
    scores, rows = {}, []
    for a, actor in actors.items():
        scores[a] = {}
        for c, critic in critics.items():
            act = choosing(actor, critic, options.num_candidates, options.seed)
            row = offline_tasks.evaluate(env_id, act, options.num_eval_episodes, options.seed + 100)
            scores[a][c] = row["normalized_score"]
        rows.append([a, *(f"{score:.1f}" for score in scores[a].values())])
    qualities = {folder: quality(critic, options) for folder, critic in critics.items()}
    for key, title in (("mean_q", "mean Q"), ("correlation", "correlation with the return")):
        rows.append([title, *(f"{qualities[c][key]:.2f}" for c in critics)])
    print_rows([f"{options.num_candidates} samples of", *critics], rows)
    options.out.mkdir(parents=True, exist_ok=True)
    results = {"scores": scores, "critics": qualities, "options": asdict(options) | {"out": ""}}
    gtp_offline.write_json(options.out / "choosing_critic.json", results)


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
