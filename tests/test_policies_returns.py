"""Trained policies return in `make_env` what they return in the real D4RL (MuJoCo 2.1.0).

Slow (about 20 s) and needs the policies: set D4RL_POLICIES_DIR to their folder.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import offline_tasks

FOLDER = os.environ.get("D4RL_POLICIES_DIR")

# Mean return in the real D4RL (50 episodes; HalfCheetah 200) and the tolerance: about three
# standard errors, for the rounding of the policy's own arithmetic decides single episodes. Plain
# Gymnasium -v4 gives 1221, 3309, 3824, 4011, 9396 and 12108: four of the six do not pass on it.
RETURNS = {
    "sac-hopper": (2057, 300),
    "tqc-hopper": (3753, 5),
    "sac-walker2d": (3743, 270),
    "tqc-walker2d": (4402, 170),
    "sac-halfcheetah": (9533, 45),
    "tqc-halfcheetah": (12039, 165),
}


def load(path):
    """The policy: three layers W x + b, ReLU between them, tanh at the end."""
    with np.load(path) as file:
        w0, b0, w1, b1, w2, b2 = (file[f"arr_{i}"].astype(np.float64) for i in range(6))

    def act(obs):
        hidden = np.maximum(np.maximum(obs @ w0.T + b0, 0) @ w1.T + b1, 0)
        return np.tanh(hidden @ w2.T + b2)

    return act


def returns(env_id, act, num_episodes):
    """Of episodes reset with seeds 0, 1, ..., as the reference was measured."""
    total = np.zeros(num_episodes)
    envs = [offline_tasks.make_env(env_id) for _ in range(num_episodes)]
    obs = {i: env.reset(seed=i)[0] for i, env in enumerate(envs)}
    while obs:
        running = list(obs)
        for i, action in zip(running, act(np.stack(list(obs.values()))), strict=True):
            obs[i], reward, terminated, truncated, _ = envs[i].step(action)
            total[i] += reward
            if terminated or truncated:
                del obs[i]
    return total


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="set D4RL_POLICIES_DIR to the folder of the policies")
@pytest.mark.parametrize("name", RETURNS)
def test_policy_returns_what_it_does_in_d4rl(name):
    path = Path(FOLDER) / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    got = returns(f"{name.split('-')[1]}-medium-v2", load(path), 50)
    expected, tolerance = RETURNS[name]
    error = got.std() / np.sqrt(len(got))
    print(f"{name}: {got.mean():.1f} +- {error:.1f} (standard error), D4RL {expected}")
    assert abs(got.mean() - expected) <= tolerance
