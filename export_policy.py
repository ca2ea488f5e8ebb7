"""Export the actor of a GTP run as NumPy weights and a ten-line `act`, for machines without torch.

    python export_policy.py runs/RUN/checkpoint.pt policy     # policy/policy.npz, policy/policy.py
    python -c "from policy.policy import act; print(act([0.1, -0.2]))"

Needs torch to read the checkpoint; what it writes needs NumPy alone. The times of the sampler are
known, so their embeddings become one bias of the first layer for each step. Reads checkpoints of
gtp_offline.py and gtp_bc.py; one action is sampled per observation, no critic chooses.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch

ACT = '''"""The policy of {source}, exported as NumPy: {steps} steps from noise to action."""
from pathlib import Path

import numpy as np

p = dict(np.load(Path(__file__).with_name("policy.npz")))


def mish(x):
    return x * np.tanh(np.logaddexp(0, x))


def act(obs, noise=None):
    """Observation (obs_dim,) or (n, obs_dim) -> action in [-1, 1]; noise ~ N(0, I), like it."""
    obs = np.asarray(obs, np.float32)
    shape = (*obs.shape[:-1], p["b3"].size)
    x = p["t"][0] * np.asarray(np.random.standard_normal(shape) if noise is None else noise)
    for i, (t, s) in enumerate(zip(p["t"][:-1], p["t"][1:])):  # Eq. 15
        h = mish(np.concatenate((p["c_in"][i] * x, obs), -1) @ p["w0"] + p["b0"][i])
        h = mish(mish(h @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])
        phi = p["c_skip"][i] * x + p["c_out"][i] * (h @ p["w3"] + p["b3"])  # Eq. 3
        x = (1 - s / t) * phi + s / t * x  # Eq. 4
    return np.clip(x, -1, 1).astype(np.float32)
'''


def export(checkpoint: Path, num_steps: int | None = None) -> tuple[dict[str, np.ndarray], str]:
    """Arrays of policy.npz and text of policy.py. Raises ValueError for other checkpoints."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        args, nets = state["results"]["args"], state["nets"]
    except Exception as error:  # torch raises many kinds for what is not a checkpoint
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(f"{checkpoint} is not a run's checkpoint.pt: {reason}") from error
    if "actor.net.0.weight" not in nets or "sampler_end" not in args:
        name = state["results"]["algorithm"]
        raise ValueError(
            f"{checkpoint} is of {name}.py; gtp_offline.py and gtp_bc.py can be exported"
        )
    actor = "actor_ema." if args["eval_actor"] == "ema" else "actor."
    weights = {k[len(actor) :]: v.double() for k, v in nets.items() if k.startswith(actor)}

    steps = num_steps or args["num_steps"]
    low, high = args["sigma_min"] ** (1 / 7), args["sigma_max"] ** (1 / 7)
    t = torch.linspace(high, low, steps + 1, dtype=torch.float64) ** 7  # Karras grid, downwards
    t[0], t[-1] = args["sigma_max"], args["sigma_min"] if args["sampler_end"] == "sigma-min" else 0
    edm = args["preconditioning"] == "edm"
    times = torch.stack((t[:-1], t[1:]))[..., None]  # (2, K, 1): t and s of each step
    if edm:
        times = 250 * times.clamp(min=1e-3).log()
    angles = times * torch.exp(torch.arange(8, dtype=torch.float64) * (-math.log(10_000) / 7))
    h = torch.cat((angles.sin(), angles.cos()), 2)
    h = torch.baddbmm(weights["embed.0.bias"], h, weights["embed.0.weight"])
    h = torch.nn.functional.mish(h)
    h = torch.baddbmm(weights["embed.2.bias"], h, weights["embed.2.weight"])
    embedding = h.transpose(0, 1).flatten(1)  # (K, 32)

    first, variance = weights["net.0.weight"], t[:-1] ** 2 + 0.5**2  # SIGMA_DATA = 0.5
    action_dim = len(weights["net.6.bias"])
    of_time = slice(action_dim, action_dim + 32)  # the inputs are x, embedding, obs
    arrays = {
        "t": t,
        "c_in": variance.rsqrt() if edm else torch.ones(steps),
        "c_skip": 0.25 / variance if edm else torch.zeros(steps),
        "c_out": 0.5 * t[:-1] * variance.rsqrt() if edm else torch.ones(steps),
        "w0": torch.cat((first[:, :action_dim], first[:, action_dim + 32 :]), 1).T,
        "b0": weights["net.0.bias"] + embedding @ first[:, of_time].T,
    }
    for k, layer in ((1, 2), (2, 4), (3, 6)):
        arrays |= {f"w{k}": weights[f"net.{layer}.weight"].T, f"b{k}": weights[f"net.{layer}.bias"]}
    text = ACT.format(source=state["results"]["algorithm"], steps=steps)
    return {name: array.numpy().astype(np.float32) for name, array in arrays.items()}, text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint.pt of gtp_offline.py or gtp_bc.py"
    )
    parser.add_argument("folder", type=Path, help="receives policy.npz and policy.py")
    parser.add_argument("--num-steps", type=int, help="K, steps of the sampler [the run's]")
    args = parser.parse_args()
    if args.num_steps is not None and args.num_steps < 1:
        parser.error(f"--num-steps is {args.num_steps}; it must be at least 1")
    try:
        arrays, text = export(args.checkpoint, args.num_steps)
        args.folder.mkdir(parents=True, exist_ok=True)
        np.savez(args.folder / "policy.npz", **arrays)
        (args.folder / "policy.py").write_text(text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.folder / 'policy.npz'} and {args.folder / 'policy.py'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
