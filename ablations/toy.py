"""The toy of the ablations: a contextual bandit whose distribution of actions is known.

One state variable in [-1, 1]; four modes of two-dimensional actions on a circle, a cross that turns
by pi / 2 obs. Every step is terminal, and its reward is that of the mode that the action came from.
No script: the comparisons beside it train on this where no task and no data are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

STD = 0.08  # of the actions of a mode
RADIUS = 0.6  # of the circle
MASSES = np.array([0.4, 0.3, 0.2, 0.1])
REWARDS = np.arange(4.0)  # mean 1 and standard deviation 1 under the masses
BEST = 3  # the mode of the highest reward


def modes(obs: np.ndarray) -> np.ndarray:
    """The four means of the actions at obs (n, 1), (n, 4, 2)."""
    turns = obs + np.arange(4)
    angles = np.pi / 2 * turns
    x = RADIUS * np.cos(angles)
    y = RADIUS * np.sin(angles)
    return np.stack((x, y), -1)


def sample(obs: np.ndarray, rng, masses=MASSES) -> tuple[np.ndarray, np.ndarray]:
    """Actions (n, 2) at obs (n, 1) of a policy with these masses, their modes' numbers (n,)."""
    count = len(obs)
    mode = rng.choice(4, count, p=masses)
    means = modes(obs)[np.arange(count), mode]
    noise = rng.standard_normal(means.shape)
    return means + STD * noise, mode


def write_dataset(path: Path, rows: int = 40_000) -> None:
    """Write the behaviour's data with D4RL's keys."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    actions, mode = sample(obs, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial.npz")
    np.savez(
        unfinished,
        observations=obs,
        actions=actions.astype(np.float32),
        rewards=REWARDS[mode].astype(np.float32),
        terminals=np.ones(rows, bool),
    )
    unfinished.replace(path)


def weighted_masses(eta: float, max_weight: float = math.inf) -> np.ndarray:
    """The masses that exact weights (Eq. 14) give the modes; their advantages are -1, 0, 1, 2."""
    advantage = REWARDS - MASSES @ REWARDS
    std = math.sqrt(MASSES @ advantage**2)
    weights = np.exp(eta * np.maximum(0, advantage) / std)
    weighted = MASSES * weights.clip(max=max_weight)
    return weighted / weighted.sum()


def mode_distances() -> np.ndarray:
    """D (4, 4), the mean distances of samples of two modes, by Rice's formula."""
    (centers,) = modes(np.zeros((1, 1)))  # every obs turns them all alike
    centers = torch.from_numpy(centers)
    y = torch.cdist(centers, centers).square() / (4 * STD**2)
    i0 = torch.special.i0e(y / 2)
    i1 = torch.special.i1e(y / 2)
    mean = (1 + y) * i0 + y * i1
    return STD * math.sqrt(math.pi) * mean.numpy()


def energy_score(masses: np.ndarray = MASSES) -> float:
    """The exact energy score, on the behaviour's actions (masses p), of a policy with the toy's
    modes and masses m: m D p - m D m / 2. No policy has a lower one than the behaviour itself."""
    between = MASSES - masses / 2
    return float(masses @ mode_distances() @ between)


def metrics(act: Callable, seed: int = 1, count: int = 10_000) -> dict:
    """What act (n, 1) -> (n, 2) does: the share of actions beyond three standard deviations of
    every mode (of the data: 1.1 %), and the masses of the nearest modes, of the others."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    actions = act(obs)
    distance = np.linalg.norm(actions[:, None] - modes(obs), axis=-1)
    on = distance.min(1) < 3 * STD
    nearest = distance.argmin(1)[on]
    counts = np.bincount(nearest, minlength=4)
    masses = counts / max(1, len(nearest))
    return {
        "off_mode": float(1 - on.mean()),
        "masses": masses.tolist(),
    }
