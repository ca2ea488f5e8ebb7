"""What the ablations share: variants of a training run, over seeds, with a table and a figure.

A script describes its variants as {title: Variant(changes of Args, replaced functions)} and calls
`compare`. Without --env-id and --dataset-path they are trained on the toy, whose exact answers are
known (`toy_*` below). Every run is a folder of --out; the same command uses finished ones again
and goes on with interrupted ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import d4rl_tasks  # noqa: E402, F401  (for the scripts beside this one)
import gtp_offline  # noqa: E402

TOY_STD, TOY_RADIUS = 0.08, 0.6
TOY_MASSES = np.array([0.4, 0.3, 0.2, 0.1])
TOY_REWARDS = np.array([0.0, 1.0, 2.0, 3.0])  # mean 1 and standard deviation 1 under the masses


@dataclass
class Options:
    """Arguments that every comparison takes."""

    out: str | None = None  # folder of the runs, the results and the figure [runs/{script}]
    env_id: str | None = None  # D4RL task to train and evaluate on [the toy]
    dataset_path: str | None = None  # HDF5 or NPZ file instead of the task's download
    seeds: int = 3  # runs of each variant
    first_seed: int = 0  # seeds first_seed, first_seed + 1, ...
    num_updates: int = 8_000  # of every run; the paper's tasks take 2,000,000
    hidden_dim: int = 128  # width of the networks; the paper's is 256
    num_eval_episodes: int | None = None  # episodes per evaluation [task]
    eta: float = 0.0  # temperature of the weights (Eq. 14); 0: cloning, no critic
    only: str | None = None  # train only variants whose title contains this
    device: str = "cpu"  # or cuda
    compile: bool = False  # torch.compile the update
    quick: bool = False  # one seed of a few updates: shows that it works, not more


@dataclass
class Variant:
    """Changes of gtp_offline.Args, and functions that take the place of gtp_offline's."""

    changes: dict = field(default_factory=dict)
    replaced: dict[str, Callable] = field(default_factory=dict)


# ---- the toy: a contextual bandit whose conditional distribution of actions is known -----------


def toy_modes(obs: np.ndarray) -> np.ndarray:
    """The four means of the actions at obs (n, 1): a cross turned by pi / 2 obs, (n, 4, 2)."""
    angles = np.pi / 2 * (obs + np.arange(4))
    return TOY_RADIUS * np.stack((np.cos(angles), np.sin(angles)), -1)


def toy_actions(obs: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Actions (n, 2) of the behaviour at obs (n, 1), and their modes' numbers (n,)."""
    mode = rng.choice(4, len(obs), p=TOY_MASSES)
    means = toy_modes(obs)[np.arange(len(obs)), mode]
    return means + TOY_STD * rng.standard_normal(means.shape), mode


def toy_dataset(path: Path, rows: int = 40_000) -> None:
    """Write the toy's data with D4RL's keys: every step is terminal, its reward is its mode's."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    actions, mode = toy_actions(obs, rng)
    arrays = {"observations": obs, "actions": actions.astype(np.float32)}
    arrays |= {"rewards": TOY_REWARDS[mode].astype(np.float32), "terminals": np.ones(rows, bool)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def toy_weighted_masses(eta: float, max_weight: float = math.inf) -> np.ndarray:
    """The masses that exact weights (Eq. 14) give the modes; their advantages are -1, 0, 1, 2."""
    mean = TOY_MASSES @ TOY_REWARDS
    std = np.sqrt(TOY_MASSES @ (TOY_REWARDS - mean) ** 2)
    weights = np.exp(eta * np.maximum(0, TOY_REWARDS - mean) / std).clip(max=max_weight)
    return TOY_MASSES * weights / (TOY_MASSES @ weights)


def toy_metrics(act: Callable, seed: int = 1, count: int = 10_000) -> dict:
    """What act (n, 1) -> (n, 2) does: the share of actions beyond three standard deviations of
    every mode (of the data: 1.1 %), and the masses of the nearest modes, of the others."""
    obs = np.random.default_rng(seed).uniform(-1, 1, (count, 1)).astype(np.float32)
    distance = np.linalg.norm(act(obs)[:, None] - toy_modes(obs), axis=-1)
    on = distance.min(1) < 3 * TOY_STD
    masses = np.bincount(distance.argmin(1)[on], minlength=4) / max(1, on.sum())
    return {"off_mode": float(1 - on.mean()), "masses": masses.tolist()}


def toy_energy_score(seed: int = 1, count: int = 20_000, samples: int = 16) -> float:
    """The energy score of the behaviour itself: no policy has a lower one, but for noise."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-1, 1, (count, 1))
    drawn = np.stack([toy_actions(obs, rng)[0] for _ in range(samples)])
    actions = toy_actions(obs, rng)[0]
    return gtp_offline.energy_score(torch.from_numpy(drawn), torch.from_numpy(actions)).item()


# ---- runs --------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(module, functions: dict[str, Callable]):
    """The module with some of its functions replaced, which its other functions then call."""
    usual = {name: getattr(module, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(module, name, function)
        yield
    finally:
        for name, function in usual.items():
            setattr(module, name, function)


def prepare(options: Options, name: str) -> Options:
    """The options with a folder, the toy's data and what --quick means; ValueError for bad ones."""
    if options.seeds < 1:
        raise ValueError(f"--seeds is {options.seeds}; it must be at least 1")
    torch.set_num_threads(1)
    if options.quick:
        changes = dict(seeds=1, num_updates=min(options.num_updates, 60), hidden_dim=16)
        options = replace(options, **changes, num_eval_episodes=options.num_eval_episodes or 1)
    out = Path(options.out or f"runs/{name}")
    if options.env_id is None and options.dataset_path is None:
        if not (toy := out / "toy.npz").exists():
            toy_dataset(toy)
        options = replace(options, dataset_path=str(toy))
    out.mkdir(parents=True, exist_ok=True)
    return replace(options, out=str(out))


def on_toy(options: Options) -> bool:
    """Whether prepared options train on the toy."""
    return options.env_id is None and Path(options.dataset_path).name == "toy.npz"


def run(title: str, variant: Variant, seed: int, options: Options) -> dict:
    """results.json of one run: trained, continued or found. `diverged` is a result, too."""
    words = "".join(c if c.isalnum() or c in ".-" else "_" for c in title)
    folder = Path(options.out) / f"{words}__{seed}__{options.num_updates}"
    folder = folder.with_name(folder.name + "__quick") if options.quick else folder
    file = folder / "results.json"
    given = {name: getattr(options, name) for name in ("env_id", "dataset_path", "num_updates",
        "hidden_dim", "num_eval_episodes", "eta", "device", "compile")}  # fmt: skip
    if on_toy(options):
        given["learning_rate"] = 1e-3  # as on multigoal
    given |= {"eval_freq": max(1, options.num_updates // 4), "tensorboard": False, "seed": seed}
    given |= variant.changes
    if file.exists():
        found = json.loads(file.read_text())
        old = found["args"]
        for name in given.keys() - {"dataset_path", "device"}:
            unknown = [] if name == "env_id" else ["None"]  # None: the task's value
            if str(given[name]) not in (*unknown, str(old[name])):  # inf is text there
                was = f"--{name.replace('_', '-')} {old[name]}"
                raise ValueError(f"{folder} was run with {was}; remove it or give another --out")
        path = given["dataset_path"]
        if old["dataset_path"] if path is None else sha256(path) != found["dataset"]["sha256"]:
            was = f"the data {found['dataset']['path']}"
            raise ValueError(f"{folder} was run with {was}; remove it or give another --out")
        if found["status"] in ("finished", "diverged"):
            return found | {"run_dir": str(folder)}
    given["run_dir"] = str(folder)
    if (folder / "checkpoint.pt").exists():
        given = {"resume": str(folder), "device": options.device}
    print(f"{folder}:", flush=True)
    if options.compile:
        torch._dynamo.reset()  # else the ninth run of a process stays eager
    with replacing(gtp_offline, variant.replaced):
        results = gtp_offline.train(gtp_offline.Args(**given))
    if results["status"] == "interrupted":
        raise ValueError(f"{folder} is interrupted; the same command goes on from there")
    about = {"variant": title, "machine": machine(options.device)}  # for tables.py
    write_json(file, json.loads(file.read_text()) | about)
    return results | about | {"run_dir": str(folder)}


@lru_cache
def sha256(path: str) -> str:
    """Of a dataset, as results.json has it; ValueError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"--dataset-path {path} cannot be read: {error}") from error


def machine(device: str) -> str:
    """What the runs ran on."""
    return torch.cuda.get_device_name(device) if "cuda" in device else f"{platform.machine()} CPU"


def mean_std(values) -> list[float] | None:
    """[mean, standard deviation over the seeds] of what is known, None if nothing is."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return [float(np.mean(known)), float(np.std(known))] if known else None


def summary(runs: list[dict], toy: bool) -> dict:
    """[mean, std] over the runs of one variant, of its last evaluation."""
    last = [results["last"] or {} for results in runs]
    scores = [row.get("energy_score_by_steps") or {} for row in last]
    steps = sorted({k for row in scores for k in row}, key=int)
    row = {
        "seeds": [results["seed"] for results in runs],
        "statuses": [results["status"] for results in runs],
        "run_dirs": [results["run_dir"] for results in runs],
        "energy_score": {k: mean_std([row.get(k) for row in scores]) for k in steps},
        "normalized_score": mean_std([row.get("normalized_score") for row in last]),
        "updates_per_second": mean_std([results["updates_per_second"] for results in runs]),
    }
    if toy:
        acts = [
            (k, gtp_offline.load_policy(results["run_dir"], num_steps=int(k)))
            for results in runs
            if (Path(results["run_dir"]) / "checkpoint.pt").exists()
            for k in steps
        ]
        found = [(k, toy_metrics(act)) for k, act in acts]
        row["off_mode"] = {k: mean_std([m["off_mode"] for j, m in found if j == k]) for k in steps}
        masses = {k: [m["masses"] for j, m in found if j == k] for k in steps}
        row["masses"] = {k: np.mean(m, 0).tolist() if m else None for k, m in masses.items()}
    return row


def compare(name: str, options: Options, variants: dict[str, Variant]) -> dict[str, dict]:
    """{title: summary} of every variant over the seeds, also written to {out}/{name}.json."""
    chosen = {k: v for k, v in variants.items() if (options.only or "") in k}
    if not chosen:
        raise ValueError(f"--only {options.only} is in none of {', '.join(variants)}")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    table = {}
    for title, variant in chosen.items():
        runs = [run(title, variant, seed, options) for seed in seeds]
        table[title] = summary(runs, on_toy(options))
    write(name, options, table)
    return table


def write(name: str, options: Options, table: dict) -> None:
    """Write {out}/{name}.json: the table and where it comes from."""
    data = "toy" if on_toy(options) else options.env_id or Path(options.dataset_path).stem
    about = {"ablation": name, "data": data, "dataset_path": options.dataset_path,
        "num_updates": options.num_updates, "hidden_dim": options.hidden_dim, "eta": options.eta,
        "machine": machine(options.device), "torch": torch.__version__}  # fmt: skip
    write_json(Path(options.out) / f"{name}.json", about | {"variants": table})


def write_json(path: Path, content: dict) -> None:
    """All or nothing, into a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gtp_offline.write_file(path, json.dumps(content, indent=1).encode())


# ---- what is shown -----------------------------------------------------------------------------


def cell(value, scale: float = 1, digits: int = 0) -> str:
    """Mean ± standard deviation of a [mean, std], '-' for None."""
    if value is None:
        return "-"
    return f"{scale * value[0]:.{digits}f} ± {scale * value[1]:.{digits}f}"


def print_table(table: dict[str, dict], paper: dict[str, str] | None = None) -> None:
    """Markdown: energy scores x 1000 and, where known, off-mode %, score, status, the paper's."""
    first = next(iter(table.values()))
    steps = [*first["energy_score"]]
    scored = any(row["normalized_score"] for row in table.values())
    heads = [f"energy score x 1000, K={k}" for k in steps]
    heads += [f"off-mode %, K={k}" for k in first.get("off_mode", ())]
    heads += ["score"] * scored + ["updates/s", "status"] + ["paper"] * bool(paper)
    print("| | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for title, row in table.items():
        cells = [cell(row["energy_score"].get(k), 1000) for k in steps]
        cells += [cell(row["off_mode"].get(k), 100) for k in first.get("off_mode", ())]
        cells += [cell(row["normalized_score"], 1, 1)] * scored
        cells += [cell(row["updates_per_second"]), ", ".join(sorted({*row["statuses"]}))]
        cells += [paper.get(title, "-")] if paper else []
        print(f"| {title} | " + " | ".join(cells) + " |")


def bars(table: dict[str, dict], path: Path, title: str, floor: float | None = None) -> None:
    """Energy score of each variant at each K, lower is better; floor: that of the data itself."""
    from matplotlib.figure import Figure

    steps = [*next(iter(table.values()))["energy_score"]]
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(table)), dpi=120, layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(steps)
    for i, k in enumerate(steps):
        pairs = [row["energy_score"].get(k) or [math.nan, 0] for row in table.values()]
        mean, std = 1000 * np.array(pairs).T
        y = np.arange(len(table)) + (i - (len(steps) - 1) / 2) * height
        color = ("#c6d4e8", "#7d9fca", "#3b6fb6")[min(i, 2)]
        axis.barh(y, mean, 0.9 * height, xerr=std, color=color, label=f"K = {k}")
    if floor is not None:
        axis.axvline(1000 * floor, color="black", lw=1, ls="--", label="the data itself")
    axis.set_yticks(range(len(table)), [*table])
    axis.invert_yaxis()
    axis.set(xlabel="held-out energy score x 1000, lower is better", title=title)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def dress(axis) -> None:
    """The looks of a panel of curves."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


def show(name: str, options: Options, table: dict, title: str, paper: dict | None = None) -> None:
    """The table, with the paper's column for its own task and data only, and the bars."""
    genuine = options.env_id == "hopper-medium-expert-v2" and not options.dataset_path
    print_table(table, paper if genuine else None)
    path = Path(options.out) / f"{name}.png"
    if next(iter(table.values()))["energy_score"]:
        bars(table, path, title, toy_energy_score() if on_toy(options) else None)
    print(f"{path.with_suffix('.json')}, {path}")


def main(function: Callable, kind: type[Options], argv=None) -> int:
    """Parse the options, call function(options) -> exit code: 0, or 1 for what cannot be done."""
    options = tyro.cli(kind, args=argv)
    try:
        function(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
