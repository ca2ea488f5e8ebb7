"""What several test files need: the repository on sys.path, a tiny dataset, short runs on it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
torch.set_num_threads(1)


def make_dataset(rows: int = 240, obs_dim: int = 3, action_dim: int = 2, seed: int = 0) -> dict:
    """Arrays with D4RL's keys: episodes of 20 steps, every second one ends in a terminal state."""
    rng = np.random.default_rng(seed)
    last = np.arange(rows) % 20 == 19
    terminals = last & (np.arange(rows) // 20 % 2 == 0)
    return {
        "observations": rng.standard_normal((rows, obs_dim), dtype=np.float32),
        "actions": rng.uniform(-1, 1, (rows, action_dim)).astype(np.float32),
        "rewards": rng.standard_normal(rows, dtype=np.float32),
        "terminals": terminals,
        "timeouts": last & ~terminals,
    }


def run_script(script, *arguments, folder, **options):
    """The arguments of subprocess.run or Popen for a script in a fresh process."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    return {"args": command, "cwd": folder, "env": env, "text": True} | options


def run_scripts(commands):
    """subprocess.run of each command that run_script gave, two at a time -> what it returned."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda command: subprocess.run(**command), commands))


def differences(a, b, where="") -> list[str]:
    """Where two nested states differ; tensors and numbers are compared bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{where}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [f"{where}: tensors"]
    return [] if type(a) is type(b) and a == b else [f"{where}: {a!r} and {b!r}"]


# What two runs that did the same need not share: when, how fast and where they ran.
VOLATILE = {
    "seconds",
    "evaluation_seconds",
    "updates_per_second",
    "milliseconds_per_action",
    "updated",
    "command",
    "run_dir",
    "resume",
}


def lasting(state):
    """A nested state less VOLATILE at every depth: what a resume must bring about bit for bit."""
    if isinstance(state, dict):
        return {key: lasting(value) for key, value in state.items() if key not in VOLATILE}
    if isinstance(state, list):
        return [lasting(value) for value in state]
    return state


def pytest_collection_modifyitems(config, items):
    """Tests marked slow or extras run only where -m or their own name asks for them."""
    if not config.option.markexpr and not any("::" in argument for argument in config.args):
        marks = ("slow", "extras")
        left = [item for item in items if any(map(item.get_closest_marker, marks))]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """An NPZ file of 240 rows, 3 observations and 2 actions."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, **make_dataset())
    return path


@pytest.fixture
def small(dataset, tmp_path, monkeypatch):
    """small(name, script, **changes): Args of a run of 20 updates of a script, gtp_offline if none
    is given, into tmp_path/name, without pictures."""
    import gtp_offline
    import offline_tasks

    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args, **kwargs: None)

    def make(name: str = "run", script=gtp_offline, **changes):
        settings = {
            "run_dir": str(tmp_path / name),
            "num_updates": 20,
            "eval_freq": 10,
            "batch_size": 16,
            "hidden_dim": 16,
            "tensorboard": False,
            "num_holdout": 24,
        }
        if script.__name__ in ("diffusion_ql", "consistency_ac"):
            # so that the averaged actor moves, and is seen to, in 20 updates
            settings |= {"ema_start": 4, "ema_every": 2, "num_candidates": 3}
        defaults = script.default_args(dataset_path=str(dataset), device="cpu")
        return replace(defaults, **settings | changes)

    return make
