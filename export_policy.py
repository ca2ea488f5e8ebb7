"""Export the actor of a GTP run as NumPy weights and a short `act`, for machines without torch.

    python export_policy.py runs/RUN policy     # writes policy/policy.npz and policy/policy.py
    python -c "from policy.policy import act; print(act([0.0] * 4))"

Needs torch to read the run (a run directory or a checkpoint in it); what it writes needs NumPy
alone. The times of the sampler are known, so their embeddings become one bias of the first layer
for each step. Reads runs of gtp_offline.py and gtp_bc.py; one action is sampled per observation, no
critic chooses. Exit code: 2 for a wrong argument, 1 for what cannot be read or exported.
"""

import io
import math
import os
import shlex
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Annotated

import numpy as np
import torch
import tyro

import gtp_bc
import gtp_offline
import offline_tasks
from evaluate import ARGUMENT_ERRORS, full_memory, load_run, own
from gtp_offline import ArgumentError, InputError
from old_checkpoints import action_units

EXPORTED = {"t.npy", "c_in.npy", "w0.npy", "b0.npy", "w3.npy"}  # in the policy.npz of any version
LARGEST_WEIGHT = 1e6  # trained ones are below 100; beyond it actions are -1 and 1 alone
ACT = '''"""The policy of {source}, exported as NumPy: {steps} steps from noise to action."""
from pathlib import Path

import numpy as np

p = dict(np.load(Path(__file__).with_name("policy.npz")))


def mish(x):
    return x * np.tanh(np.logaddexp(0, x))


def act(obs, noise=None):
    """Observation ([n,] obs_dim) -> action in the environment's units, noise ~ N(0, I)."""
    obs = np.array(obs, np.float32)
    obs -= p["obs_mean"]  # in place, where a single column is not taken for all
    obs /= p["obs_std"]
    shape = (*obs.shape[:-1], p["b3"].size)
    x = p["t"][0] * np.asarray(np.random.standard_normal(shape) if noise is None else noise)
    for i, (t, s) in enumerate(zip(p["t"][:-1], p["t"][1:])):  # Eq. 15
        h = mish(np.concatenate((p["c_in"][i] * x, obs), -1) @ p["w0"] + p["b0"][i])
        h = mish(mish(h @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
        phi = p["c_skip"][i] * x + p["c_out"][i] * (h @ p["w3"] + p["b3"])  # Eq. 3
        x = (1 - s / t) * phi + s / t * x  # Eq. 4
    low, high = p["action_bounds"]  # what -1 and 1 stand for
    return np.clip((low + high) / 2 + (high - low) / 2 * x, low, high).astype(np.float32)
'''


@dataclass
class Flags:
    """Export the actor of a run of gtp_offline.py or gtp_bc.py as NumPy weights and an `act`."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """A run directory, or a checkpoint in it."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Receives policy.npz and policy.py."""
    num_steps: Annotated[int | None, own(int, "K")] = None  # steps of the sampler


def export(run: Path, num_steps: int | None = None) -> tuple[dict[str, np.ndarray], str]:
    """Arrays of policy.npz and text of policy.py, of a run directory or checkpoint; num_steps: the
    run's if None. Raises InputError for runs of other scripts and for weights that diverged.
    """
    script, state = load_run(run)
    if script not in (gtp_offline, gtp_bc):
        raise InputError(
            f"{run} is of {script.__name__}.py; runs of gtp_offline.py and gtp_bc.py are exported"
        )
    args = script.saved_args(state)
    steps = args.num_steps if num_steps is None else num_steps
    actor = "actor_ema." if args.eval_actor == "ema" else "actor."
    nets = state["nets"]
    weights = {k.removeprefix(actor): v.double() for k, v in nets.items() if k.startswith(actor)}
    arrays = first_layer(weights, sampling_times(args, steps), args)
    for k, layer in ((1, 2), (2, 4), (3, 6)):
        arrays[f"w{k}"] = weights[f"net.{layer}.weight"].T
        arrays[f"b{k}"] = weights[f"net.{layer}.bias"]
    arrays = {name: array.numpy().astype(np.float32) for name, array in arrays.items()}
    check_arrays(arrays, run, state["results"]["update"])
    about = state["results"]["dataset"]
    if "action_bounds" not in about:  # of an older version
        about = action_units(args.env_id)
    arrays["action_bounds"] = np.float32(about["action_bounds"])
    if script is gtp_offline and args.num_candidates > 1:
        what = f"{run} chooses among {args.num_candidates} actions by its critic"
        line = f"{what}, the export samples one and has no critic"
        if args.env_id:
            words = ["python", "evaluate.py", str(run), "--num-candidates", "1"]
            words += ["--num-steps", str(steps)] if steps != args.num_steps else []
            line += f": `{shlex.join(words)}` scores that"
        print(line, file=sys.stderr)
    return arrays, ACT.format(source=f"{script.__name__}.py", steps=steps)


def check_arrays(arrays, run, update):
    """Raise InputError for an array that is not finite, or a weight that no training ends with."""
    for name, array in arrays.items():
        bound = LARGEST_WEIGHT if name[0] in "wb" else math.inf  # others are scales and times
        size = np.abs(array).max()
        if not size < bound:  # also NaN
            raise InputError(
                f"{run} has diverged by update {update}: {name} of its actor reaches {size}; "
                "export a checkpoint from before that"
            )


def sampling_times(args, steps):
    """t_0 > ... > t_K, (steps + 1,), float64 (Eq. 15)."""
    low = args.sigma_min ** (1 / 7)
    high = args.sigma_max ** (1 / 7)
    t = torch.linspace(high, low, steps + 1, dtype=torch.float64) ** 7  # Karras grid, downwards
    t[0] = args.sigma_max
    t[-1] = args.sigma_min if args.sampler_end == "sigma-min" else 0
    return t


def time_embeddings(weights, t, args):
    """The embeddings of t and s of each step of the sampler, (K, 32)."""
    times = torch.stack((t[:-1], t[1:]))[..., None]  # (2, K, 1)
    if args.preconditioning == "edm":
        times = 250 * times.clamp(min=1e-3).log()
    angles = times * torch.logspace(0, -4, 8, dtype=torch.float64)
    h = torch.cat((angles.sin(), angles.cos()), 2)
    h = torch.baddbmm(weights["embed.0.bias"], h, weights["embed.0.weight"])
    h = torch.nn.functional.mish(h)
    h = torch.baddbmm(weights["embed.2.bias"], h, weights["embed.2.weight"])
    return h.transpose(0, 1).flatten(1)


def first_layer(weights, t, args):
    """The arrays of a step up to the first hidden layer: times, EDM's coefficients, and a layer of
    noisy action and observation with a bias for each step."""
    first = weights["net.0.weight"]  # its inputs are x, embedding, obs
    action_dim = len(weights["net.6.bias"])
    of_x, of_time, of_obs = first.split((action_dim, 32, first.shape[1] - action_dim - 32), dim=1)
    steps = len(t) - 1
    if args.preconditioning == "edm":
        variance = t[:-1] ** 2 + gtp_offline.SIGMA_DATA**2
        c_in = variance.rsqrt()
        c_skip = gtp_offline.SIGMA_DATA**2 / variance
        c_out = gtp_offline.SIGMA_DATA * t[:-1] * variance.rsqrt()
    else:
        c_in = torch.ones(steps)
        c_skip = torch.zeros(steps)
        c_out = torch.ones(steps)
    return {
        "obs_mean": weights["obs_mean"],
        "obs_std": weights["obs_std"],
        "t": t,
        "c_in": c_in,
        "c_skip": c_skip,
        "c_out": c_out,
        "w0": torch.cat((of_x, of_obs), 1).T,
        "b0": weights["net.0.bias"] + time_embeddings(weights, t, args) @ of_time.T,
    }


def exported_script(path):
    """Whether a file is the policy.py of an export."""
    try:
        return " exported as NumPy" in path.read_text(errors="replace")
    except OSError:
        return False


def exported_arrays(path):
    """Whether a file is the policy.npz of an export."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as arrays:
            return EXPORTED.issubset(arrays.namelist())
    except zipfile.BadZipFile:
        return False


def check_folder(folder):
    """InputError where an export would take the place of something else."""
    for name, exported in (("policy.py", exported_script), ("policy.npz", exported_arrays)):
        path = folder / name
        if os.path.lexists(path) and not exported(path):
            raise InputError(f"{path} is not of an export; name another FOLDER")


def write_policy(arrays, text, folder):
    """policy.npz and policy.py, each all or nothing; InputError for a folder that cannot be had."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"FOLDER {folder} cannot be made ({error.strerror}); name another"
        ) from error
    content = io.BytesIO()
    np.savez(content, **arrays)
    gtp_offline.write_file(folder / "policy.npz", content.getvalue())
    gtp_offline.write_file(folder / "policy.py", text.encode())


def main() -> int:
    offline_tasks.take_any_letter()
    flags = tyro.cli(Flags)
    try:
        if flags.num_steps is not None and flags.num_steps < 1:
            raise ArgumentError(f"--num-steps is {flags.num_steps}; give a number from 1")
        check_folder(flags.folder)
        arrays, text = export(flags.run_dir, flags.num_steps)
        write_policy(arrays, text, flags.folder)
    except (ValueError, OSError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2 if isinstance(error, ARGUMENT_ERRORS) else 1
    except (MemoryError, RuntimeError) as error:
        return full_memory(error)
    except KeyboardInterrupt:
        return 128 + SIGINT
    print(f"wrote {flags.folder / 'policy.npz'} and {flags.folder / 'policy.py'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
