# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "numpy>=1.26", "gymnasium[mujoco]>=1.0,<2", "mujoco>=3.2,<4",
# "h5py>=3.10", "tyro>=0.9", "tensorboard>=2.15", "matplotlib>=3.8", "tqdm>=4.66", "filelock>=3.13"]
# ///
"""GTP-BC: behaviour cloning with a Generative Trajectory Policy (Section 5.1), without a critic.

    python gtp_bc.py                                            # 2-D multi-goal task, minutes
    python gtp_bc.py --env-id hopper-medium-replay-v2           # a D4RL task of the paper

Paper: "Offline Reinforcement Learning with Generative Trajectory Policies", cited by equation. The
policy is the solution map of an ODE that turns noise into an action. Time runs from data to noise:
x_t = a + t z with z ~ N(0, I), and 0 < sigma_min <= s <= u <= t <= sigma_max.

    FlowMap.phi           phi(x, t, s), endpoint from the average velocity over [s, t]     Eq. 3
    FlowMap.flow_map      Phi(x, t, s), the solution map                                   Eq. 4
    FlowMap.inst_map      phi(x, t, t), the denoiser E[a | x_t]                            Eq. 5
    t, u, s               t > u > tau (the paper's tau is `s`; `tau` is the Polyak rate)
    actor_ema             theta^-                                          num_steps      K (or T)

The losses are those of gtp_offline.py with all weights 1, which is what --eta 0 makes them there.
Differences from the paper's letter are marked (D1) to (D9), (D11) and (D12) in Args, as there, each
a flag; --literal sets them to the letter and, where the paper gives nothing (*), to what the code
of Diffusion-QL and Consistency-RL does. One difference from that code is none from the letter:
1. Run with eta = 0, it still trains a critic and acts by it: the action among 50 by softmax of Q.
   Here the policy acts alone; gtp_offline.py --eta 0 --num-candidates 50 is what probably ran.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import sys
import time
import warnings
import zipfile
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from signal import SIG_DFL, SIGINT, SIGTERM, signal
from typing import Literal

import filelock
import h5py
import numpy as np
import torch
import tqdm
import tyro
from torch import nn
from torch.optim.adam import adam


@dataclass(unsafe_hash=True)
class Args:
    """GTP-BC. [x]: the value by default, [task]: of Table 4; (Dn) x: the paper's."""

    # --- shared: arguments of every script ---
    env_id: str | None = None  # D4RL task, multigoal-v0 or another Gymnasium id [multigoal-v0]
    dataset_path: str | None = None  # HDF5 or NPZ file with D4RL's keys [downloaded for env_id]
    run_dir: str | None = None  # receives everything [runs/{task}__{script}__{seed}__{time}]
    resume: str | None = None  # continue the run in this directory, with its own arguments
    eval_only: str | None = None  # no training: evaluate this run directory or checkpoint
    capture_video: str | None = None  # with --eval-only: film an episode into this .gif or .mp4
    seed: int = 0  # of the networks, the batches and the evaluation
    device: str | None = None  # cpu, cuda, cuda:1, ... [cuda where there is one]
    num_threads: int = 1  # CPU threads; more do not help networks of this size
    compile: bool = False  # torch.compile the update: a slow start, then faster
    cuda_graphs: bool = False  # with --compile on a GPU: replay its kernels as CUDA graphs
    tensorboard: bool = True  # write TensorBoard events
    num_updates: int | None = None  # training iterations [task]
    batch_size: int = 256  # transitions per update
    eval_freq: int | None = None  # updates between evaluations [num_updates // 20]
    num_eval_episodes: int | None = None  # episodes per evaluation [task]
    checkpoint_freq: int = 5000  # updates between checkpoints
    log_freq: int = 500  # updates per line of the log; metrics are means over them
    num_holdout: int | None = None  # transitions held out for the energy score [2000, at most 10 %]
    fix_timeouts: bool = False  # antmaze-v0: drop transitions that jump between episodes
    reward_scale: float | None = None  # r' = reward_scale (r + reward_shift) [task]
    reward_shift: float | None = None  # see reward_scale [task]
    learning_rate: float | None = None  # Adam's, of the actor [task]
    grad_norm: float | None = None  # largest norm of a gradient, 0: no clipping [task]
    tau: float = 0.005  # Polyak rate of the averaged networks (Algorithm 1, line 9)
    hidden_dim: int = 256  # width of the three hidden layers
    divergence_bound: float = 1e6  # stop when a loss is not finite or Q is beyond this, 0: never
    # --- end shared ---
    # --- shared: arguments of GTP ---
    literal: bool = False  # the paper's letter in all that is marked (D); other flags still win
    num_steps: int = 5  # K, steps of the sampler (Eq. 15)
    consistency_loss: Literal["pseudo-huber", "squared"] | None = None  # (D1) squared
    huber_c: float = 0.03  # where the pseudo-Huber loss turns from squared to absolute
    consistency_weighting: Literal["inverse-gap", "none"] | None = None  # (D2) none [1 / (t - u)]
    flow_weighting: Literal["edm", "none"] | None = None  # (D3) none [edm]
    lambda_flow: float | None = None  # (D4) weight of the flow loss (Eq. 19), *1 [10]
    t_sampling: Literal["lognormal", "uniform"] | None = None  # (D5) *uniform [lognormal]
    sigma_max: float | None = None  # (D6) largest noise level, *80 [5]
    preconditioning: Literal["edm", "none"] | None = None  # (D7) *none, raw times [edm, log times]
    strict_s: bool | None = None  # (D8) s < u: True [False: also s = u, where the target is x_u]
    sampler_end: Literal["sigma-min", "zero"] | None = None  # (D9) t_K, zero [sigma-min]
    eval_actor: Literal["ema", "online"] | None = None  # (D11) which actor acts, online [ema]
    sigma_min: float = 0.002  # smallest noise level
    u_sampling: Literal["adjacent", "uniform"] = "adjacent"  # u next to t, or anywhere above s
    # --- end shared ---


DEFAULTS = dict(num_updates=100_000, num_eval_episodes=10, reward_scale=1.0, reward_shift=0.0,
    learning_rate=3e-4, grad_norm=0.0)  # fmt: skip
DIFFERENCES = dict(  # the default and, with --literal, the paper's letter
    consistency_loss=("pseudo-huber", "squared"), consistency_weighting=("inverse-gap", "none"),
    flow_weighting=("edm", "none"), preconditioning=("edm", "none"), strict_s=(False, True),
    t_sampling=("lognormal", "uniform"), sampler_end=("sigma-min", "zero"), sigma_max=(5.0, 80.0),
    eval_actor=("ema", "online"), lambda_flow=(10.0, 1.0),
    num_holdout=(2000, 0))  # fmt: skip
# Table 4. Last three rows: not in the paper, Diffusion-QL's
TASK_FIELDS = ("learning_rate", "grad_norm")
TASKS = {
    "halfcheetah-medium": (3e-4, 9), "hopper-medium": (3e-4, 9), "walker2d-medium": (3e-4, 1),
    "halfcheetah-medium-replay": (3e-4, 2), "hopper-medium-replay": (3e-4, 4),
    "walker2d-medium-replay": (3e-4, 4), "halfcheetah-medium-expert": (3e-4, 7),
    "hopper-medium-expert": (3e-4, 5), "walker2d-medium-expert": (3e-4, 5),
    "antmaze-umaze": (3e-4, 2), "antmaze-umaze-diverse": (3e-4, 3),
    "antmaze-medium-play": (1e-3, 2), "antmaze-medium-diverse": (3e-4, 1),
    "antmaze-large-play": (3e-4, 10), "antmaze-large-diverse": (3e-4, 7),
}  # fmt: skip


# --- shared: resolve_args ---
def resolve_args(args: Args) -> Args:
    """Fill in what was not given (--literal, task's row, defaults); ValueError for a bad value."""
    env_id = args.env_id or (None if args.dataset_path else "multigoal-v0")
    if env_id:
        tasks().check_env_id(env_id)
    chosen = DEFAULTS | {name: pair[args.literal] for name, pair in DIFFERENCES.items()}
    if (task := (env_id or "").rpartition("-v")[0]) in TASKS:
        chosen |= dict(zip(TASK_FIELDS, TASKS[task], strict=True), num_updates=2 * 10**6)
    if task.startswith("antmaze"):  # r' = 4 (r - 0.5), as in Diffusion-QL's code
        chosen |= dict(num_updates=10**6, num_eval_episodes=100, reward_scale=4, reward_shift=-0.5)
    elif task.startswith("multigoal"):  # Fig. 7; not in Table 4
        chosen |= dict(learning_rate=1e-3, num_updates=8_000, num_eval_episodes=1_000)
        chosen |= {} if "unequal" in task else dict(eta=0.0, num_candidates=1, num_updates=4_000)
    chosen = {name: value for name, value in chosen.items() if getattr(args, name, 0) is None}
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args = replace(args, env_id=env_id, device=device, **chosen)
    most = dict(learning_rate=1, critic_learning_rate=1, tau=1, gamma=1, eta=1e6, sigma_max=1e6)
    for k, v in vars(args).items():
        count = "int" in str(Args.__annotations__[k]) and k not in ("seed", "num_holdout", "top_k")
        low, high = -math.inf if "reward" in k else int(count), most.get(k, math.inf)
        if isinstance(v, int | float) and not low <= v <= high:  # also refuses NaN
            raise ValueError(f"--{k.replace('_', '-')} is {v}; give a number from {low} to {high}")
    if not 1e-4 <= getattr(args, "sigma_min", 1) < getattr(args, "sigma_max", 2):
        raise ValueError(f"--sigma-min {args.sigma_min} must lie in [0.0001, {args.sigma_max})")
    args.eval_freq = args.eval_freq or max(1, args.num_updates // 20)
    if args.device != "cpu" and not (torch.cuda.is_available() and args.device.startswith("cuda")):
        raise ValueError(f"--device {args.device} is not to be had on this machine; give cpu")
    if args.compile and torch.__version__ < "2.11":
        raise ValueError(f"--compile needs PyTorch 2.11 or newer, this is {torch.__version__}")
    return args


def tasks():
    """The module d4rl_tasks (environments, datasets, scores), which only --env-id needs."""
    if not Path(__file__).with_name("d4rl_tasks.py").exists():
        raise ValueError("--env-id needs d4rl_tasks.py beside this script; or use --dataset-path")
    return import_module("d4rl_tasks")


class EnsembleLinear(nn.Module):
    """`size` linear layers as one product, (size, B, in_dim) -> (size, B, out_dim)."""

    def __init__(self, size: int, in_dim: int, out_dim: int):
        super().__init__()
        bound = in_dim**-0.5  # nn.Linear's initialisation
        self.weight = nn.Parameter(torch.empty(size, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size, 1, out_dim).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Mish(nn.Module):
    """x tanh(softplus(x)) = x m / (m + 1) with m = e^x + e^2x / 2, exact but for rounding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or x.numel() < 4096:
            return nn.functional.mish(x)  # one kernel; for many on a CPU the formula is faster
        e = x.clamp(max=20).exp()
        m = torch.addcmul(e, e, e, value=0.5)
        return x * (m / (m + 1))


def mlp(in_dim: int, hidden_dim: int, out_dim: int, linear=nn.Linear) -> nn.Sequential:
    """Three hidden layers with Mish, as in Diffusion-QL's code."""
    layers = [m for i in (in_dim, hidden_dim, hidden_dim) for m in (linear(i, hidden_dim), Mish())]
    return nn.Sequential(*layers, linear(hidden_dim, out_dim))


def gradient_step(optimizer, network, loss, grad_norm: float) -> torch.Tensor:
    """One step down the loss; the gradient is clipped to grad_norm (0: not) -> its norm before."""
    params = [*network.parameters()]
    grads = torch.autograd.grad(loss, params)
    norm = torch.stack(torch._foreach_norm(grads)).norm()
    grads = torch._foreach_mul(grads, ((grad_norm or math.inf) / (norm + 1e-6)).clamp(max=1))
    if torch.compiler.is_compiling():  # the formula alone: step() would break the graph
        state, lr = [optimizer.state[p] for p in params], optimizer.defaults["lr"]
        m, v, steps = ([s[k] for s in state] for k in ("exp_avg", "exp_avg_sq", "step"))
        kw = dict(beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0, amsgrad=False, maximize=False)
        with torch.no_grad():
            adam(params, grads, m, v, [], [n.double() for n in steps], lr=lr, capturable=True, **kw)
            torch._foreach_add_(steps, 1)
    else:
        for parameter, grad in zip(params, grads, strict=True):
            parameter.grad = grad
        optimizer.step()
    return norm


# --- end shared ---
# --- shared: flow map ---
SIGMA_DATA = 0.5  # standard deviation of the actions that EDM's preconditioning assumes
EVALUATION_STEPS = {1, 2}  # of the sampler, besides num_steps: where the energy score is measured


class FlowMap(nn.Module):
    """The actor: obs (B, obs_dim), x (..., B, action_dim), t and s (B, 1) or (1, 1) -> like x."""

    def __init__(self, obs_dim: int, action_dim: int, hidden_dim=256, preconditioning="edm"):
        super().__init__()
        self.noise_dim, self.preconditioned = action_dim, preconditioning == "edm"
        self.register_buffer("frequencies", torch.logspace(0, -4, 8), persistent=False)
        self.embed = nn.Sequential(EnsembleLinear(2, 16, 32), Mish(), EnsembleLinear(2, 32, 16))
        self.net = mlp(action_dim + 32 + obs_dim, hidden_dim, action_dim)

    def phi(self, obs, x, t, s):
        """The endpoint extrapolated from x_t with the average velocity over [s, t] (Eq. 3)."""
        times = torch.stack((t, s))
        if self.preconditioned:  # clamped because s = 0 with --sampler-end zero
            times = 250 * times.clamp(min=1e-3).log()
        angles = times * self.frequencies
        embedding = self.embed(torch.cat((angles.sin(), angles.cos()), 2)).transpose(0, 1)
        obs, embedding = (v.expand(*x.shape[:-1], -1) for v in (obs, embedding.flatten(1)))
        if not self.preconditioned:
            return self.net(torch.cat((x, embedding, obs), -1))
        variance = t**2 + SIGMA_DATA**2  # of x_t; EDM (Karras et al. 2022), Table 1
        out = self.net(torch.cat((x * variance.rsqrt(), embedding, obs), -1))
        return SIGMA_DATA**2 / variance * x + t * SIGMA_DATA * variance.rsqrt() * out

    def flow_map(self, obs, x, t, s):
        """Phi(x, t, s): where the path that is at x at time t is at time s (Eq. 4)."""
        return torch.lerp(self.phi(obs, x, t, s), x, s / t)  # (1 - s / t) phi + s / t x

    def inst_map(self, obs, x, t):
        """phi(x, t, t), the denoiser E[a | x_t] (Eq. 5)."""
        return self.phi(obs, x, t, t)


def num_grid_points(update: int, num_updates: int, s0: int = 10, s1: int = 1280) -> int:
    """N(k), the number of points of the time grid at an update (Eq. 76)."""
    period = max(1, int(num_updates / (math.log2(s1 / s0) + 1)))
    return min(s0 * 2 ** (update // period), s1) + 1


def karras_grid(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> torch.Tensor:
    """n noise levels from sigma_min up to sigma_max, (n,) (EDM, Eq. 5)."""
    grid = torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), n, dtype=torch.float64)
    return (grid**rho).clamp(sigma_min, sigma_max).to(torch.get_default_dtype())


@lru_cache
def time_grid(n: int, args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """The n grid points and the distribution function of t on them, both padded to (1281,)."""
    grid, t_cdf = torch.ones(2, 1281)
    grid[:n] = karras_grid(n, args.sigma_min, args.sigma_max)
    mass = torch.special.ndtr((grid[:n].double().log() + 1.1) / 2).diff()  # iCT: ln t ~ N(-1.1, 4)
    mass = mass if args.t_sampling == "lognormal" else torch.ones(n - 1)
    mass[0] *= not args.strict_s  # t > u > s takes two points below t
    t_cdf[: n - 2] = (mass.cumsum(0) / mass.sum())[:-1]
    return grid.to(args.device), t_cdf.to(args.device)


def sample_times(uniform, grid, t_cdf, args: Args):
    """t > u >= s on the grid, each (B, 1), from uniform numbers (B, 3) (Algorithm 1, line 6)."""
    i = torch.searchsorted(t_cdf, uniform[:, 0].contiguous(), right=True) + 1
    below = i - 1 if args.strict_s else i  # s is one of the first `below` points
    j = torch.minimum((uniform[:, 1] * below).long(), below - 1)
    between = torch.minimum(j + 1 + (uniform[:, 2] * (i - 1 - j)).long(), i - 1)  # above s, below t
    m = between if args.u_sampling == "uniform" else i - 1
    return grid[i, None], grid[m, None], grid[j, None]


# --- end shared ---
def consistency_loss(actor, actor_ema, obs, actions, noise, t, u, s, args: Args):
    """Trajectory consistency, E[d(Phi(x_t, t, s), Phi_ema(x_u, u, s))], a scalar (Eq. 17). x_t
    and x_u share the noise z: the score approximation (Eq. 11) in place of an ODE solver."""
    x_t, x_u = actions + t * noise, actions + u * noise
    with torch.no_grad():
        target = actor_ema.flow_map(obs, x_u, u, s)
    error = (actor.flow_map(obs, x_t, t, s) - target).square().sum(1)
    if args.consistency_loss == "pseudo-huber":
        error = (error + args.huber_c**2).sqrt() - args.huber_c
    if args.consistency_weighting == "inverse-gap":
        error = error / (t - u).squeeze(1)
    return error.mean()


def flow_loss(actor, obs, actions, noise, t, args: Args):
    """Instantaneous flow: E[||a - phi(x_t, t, t)||^2], denoising, a scalar (Eq. 18)."""
    error = (actions - actor.inst_map(obs, actions + t * noise, t)).square().sum(1)
    if args.flow_weighting == "edm":
        error = error * ((t**2 + SIGMA_DATA**2) / (t * SIGMA_DATA) ** 2).squeeze(1)
    return error.mean()


def actor_loss(nets, obs, actions, noise, t, u, s, args: Args):
    """Consistency + lambda_flow * flow (Eq. 19) -> scalar loss, dict of scalar metrics."""
    actor, actor_ema = nets["actor"], nets["actor_ema"]
    consistency = consistency_loss(actor, actor_ema, obs, actions, noise, t, u, s, args)
    flow = flow_loss(actor, obs, actions, noise, t, args)
    loss = consistency + args.lambda_flow * flow
    return loss, {"actor": loss, "consistency": consistency, "flow": flow}


# --- shared: sampler of GTP ---
@lru_cache
def sampling_times(num_steps: int, args: Args) -> torch.Tensor:
    """T = t_0 > ... > t_K, (num_steps + 1,), from sigma_max to sigma_min or 0 (Eq. 15)."""
    times = karras_grid(num_steps + 1, args.sigma_min, args.sigma_max).flip(0)
    times[-1] = 0 if args.sampler_end == "zero" else args.sigma_min
    return times.to(args.device)


@torch.no_grad()
def sample_actions(actor, obs, noise, times) -> torch.Tensor:
    """Follow Phi from t_0 z down to t_K (Eq. 15): noise z (..., B, action_dim) -> actions alike."""
    x = times[0] * noise
    for i in range(len(times) - 1):
        x = actor.flow_map(obs, x, times[i].view(1, 1), times[i + 1].view(1, 1))
    return x.clamp(-1, 1)


def policy_samples(nets, obs, noise, num_steps: int, args: Args) -> torch.Tensor:
    """Actions like noise (..., B, action_dim) for obs (B, obs_dim), chosen by no critic."""
    actor = nets["actor_ema" if args.eval_actor == "ema" else "actor"]
    return sample_actions(actor, obs, noise, sampling_times(num_steps, args))


# --- end shared ---
def make_networks(args: Args, obs_dim: int, action_dim: int) -> nn.ModuleDict:
    """theta and its average (Algorithm 1, line 1)."""
    actor = FlowMap(obs_dim, action_dim, args.hidden_dim, args.preconditioning)
    return nn.ModuleDict({"actor": actor, "actor_ema": deepcopy(actor)})


def draw_inputs(update: int, data: dict, generator, args: Args) -> dict[str, torch.Tensor]:
    """A batch's rows and all else that is random or scheduled in an update, of fixed shapes."""
    grid, t_cdf = time_grid(num_grid_points(update, args.num_updates), args)
    shape = (args.batch_size, data["actions"].shape[1])
    own = {"generator": generator, "device": args.device}
    return {"rows": torch.randint(len(data["rows"]), shape[:1], **own),
        "uniform": torch.rand(args.batch_size, 3, **own), "normal": torch.randn(shape, **own),
        "grid": grid, "t_cdf": t_cdf}  # fmt: skip


def update_networks(nets, optimizers, data, inputs, args: Args) -> dict[str, torch.Tensor]:
    """One iteration of Algorithm 1 (lines 3, 6-9), no synchronisation -> scalar metrics."""
    rows, noise = data["rows"][inputs["rows"]], inputs["normal"]
    obs, actions = data["observations"][rows], data["actions"][rows]
    t, u, s = sample_times(inputs["uniform"], inputs["grid"], inputs["t_cdf"], args)  # line 6
    loss, terms = actor_loss(nets, obs, actions, noise, t, u, s, args)  # lines 7, 8
    norm = gradient_step(optimizers["actor"], nets["actor"], loss, args.grad_norm)
    with torch.no_grad():  # line 9
        source = nets["actor"].parameters()
        torch._foreach_lerp_([*nets["actor_ema"].parameters()], [*source], args.tau)
    metrics = terms | {"actor_grad_norm": norm}
    return {name: metric.detach() for name, metric in metrics.items()}


def select(results: dict, args: Args) -> dict:
    """The evaluations that results.json names: the last, and the best by score, else by energy."""
    rows = results["evaluations"]
    key, *_ = (k for k in ("normalized_score", "energy_score", "update") if rows[-1][k] is not None)
    ranked = sorted(rows, key=lambda row: row[key] or 0)
    return {"last": rows[-1], "best": ranked[0 if key == "energy_score" else -1]}


# --- shared: data, evaluation, checkpoint, train ---
def load_transitions(path, max_episode_steps: int | None = None) -> dict[str, np.ndarray]:
    """D4RL's qlearning_dataset of an HDF5 or NPZ file: float32 observations, next_observations
    (n, obs_dim), actions (n, action_dim), rewards, terminals (n,); ValueError for a bad file."""
    ranks = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1, "timeouts": 1}
    try:
        open(path, "rb").close()  # says plainly what is wrong with a folder or an absent file
        npz = zipfile.is_zipfile(path)
        with np.load(path, allow_pickle=False) if npz else h5py.File(path, "r") as file:
            keys = [*ranks][: 4 + ("timeouts" in file)]
            if kinds := {k: str(file[k].dtype) for k in keys if file[k].dtype.kind not in "fiub"}:
                raise TypeError(f"no numbers but {kinds}")
            arrays = {key: file[key].astype(np.float32)[()] for key in keys}  # h5py: as it reads
    except Exception as error:  # h5py and zipfile raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"dataset {path} cannot be read as HDF5 or NPZ: {reason}") from error
    arrays = {k: v.squeeze() if ranks[k] == 1 else v for k, v in arrays.items()}  # also (N, 1)
    shapes, count = {k: v.shape for k, v in arrays.items()}, len(arrays["observations"])
    for key, array in arrays.items():
        if array.ndim != ranks[key] or len(array) != count or not array.size:
            raise ValueError(f"dataset {path}: {key} needs a row per step, two at least: {shapes}")
        if not np.isfinite(array).all():
            raise ValueError(f"dataset {path}: {key} has NaN or infinity; remove those rows")
    if (largest := np.abs(arrays["actions"]).max()) > 1 + 1e-3:
        raise ValueError(f"dataset {path}: actions reach {largest:g}; rescale them to [-1, 1]")
    if largest > 1:
        warnings.warn(f"dataset {path}: actions up to {largest:.7g} clipped to 1", stacklevel=2)
        np.clip(arrays["actions"], -1, 1, out=arrays["actions"])
    ends, cut = arrays["terminals"] > 0, arrays.get("timeouts", np.zeros(count)) > 0
    if "timeouts" not in arrays and max_episode_steps:
        start = -1  # D4RL counts an episode's steps from 1 after a terminal state, else from 0
        for end in [*np.flatnonzero(ends), count - 1]:
            cut[start + max_episode_steps : end + 1 : max_episode_steps] = True
            start = end if cut[end] else end - 1
    if not len(keep := np.flatnonzero(~cut[:-1])):
        raise ValueError(f"dataset {path} has no transition in {count} rows; it takes two or more")
    data = {"next_observations": arrays["observations"][keep + 1]}  # pop: large files fit twice
    data |= {key: arrays.pop(key)[keep] for key in ("observations", "actions", "rewards")}
    return data | {"terminals": ends[keep].astype(np.float32)}


def load_data(args: Args) -> tuple[dict, dict, dict]:
    """Tensors to train on, held-out ones, and what results.json says of the dataset."""
    path = Path(args.dataset_path or tasks().dataset_file(args.env_id))
    data = load_transitions(path, tasks().task_dims(args.env_id)[2] if args.env_id else None)
    if args.env_id or args.fix_timeouts:
        data = tasks().check_data(args.env_id, path, data, args.fix_timeouts)
    data["rewards"] = args.reward_scale * (data["rewards"] + args.reward_shift)
    digest, count = hashlib.sha256(np.memmap(path, mode="r")).hexdigest(), len(data["rewards"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))  # for every seed
    held = order[: min(args.num_holdout, count // 10)]
    data = {key: torch.from_numpy(array).to(args.device) for key, array in data.items()}
    holdout = {key: data[key][held.to(args.device)] for key in ("observations", "actions")}
    data["rows"] = order[len(held) :].to(args.device)
    return data, holdout, {"path": str(path), "sha256": digest, "transitions": count}


def energy_score(samples: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """E|X - a| - E|X - X'| / 2, mean over B, of samples X (m, B, A) for data a (B, A) (README)."""
    m, x = len(samples), samples.transpose(0, 1)
    pairs = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    return (samples - actions).norm(dim=2).mean() - pairs.mean() / (2 * m * (m - 1))


def make_act(nets, args: Args, seed: int):
    """act(obs): NumPy (obs_dim,) or (n, obs_dim) -> actions alike; noise from the seed alone."""
    generator, n = torch.Generator().manual_seed(seed), getattr(args, "num_candidates", 1)
    graphed = []  # on a GPU: the call for one observation as a CUDA graph

    @torch.no_grad()
    def propose(obs, noise):
        actions = policy_samples(nets, obs, noise, args.num_steps, args)
        return actions, nets["critic_target"](obs, actions).amin(0).T if n > 1 else actions

    def act(obs: np.ndarray) -> np.ndarray:
        batch = torch.as_tensor(np.atleast_2d(obs), dtype=torch.float32, device=args.device)
        noise = torch.randn(n, len(batch), nets["actor"].noise_dim, generator=generator)
        given = batch, noise.to(args.device)
        if batch.is_cuda and len(batch) == 1 and not graphed:
            with torch.cuda.device(batch.device):
                graphed.append(torch.cuda.make_graphed_callables(propose, given))
        call = graphed[0] if batch.is_cuda and len(batch) == 1 else propose
        actions, q = (value.cpu() for value in call(*given))
        if n > 1:  # one of them by softmax of the smaller target Q, as in the baselines' code
            choice = torch.multinomial(q.softmax(1).nan_to_num(1), 1, generator=generator)[:, 0]
            actions = actions[choice, torch.arange(len(batch))]
        return actions.numpy().reshape(*np.shape(obs)[:-1], -1)

    act.args = args
    return act


def evaluate(nets, args: Args, holdout: dict, update: int) -> dict:
    """Held-out energy scores and, where there is a task, its episodes; what is unknown is None."""
    keys = ("energy_score", "energy_score_by_steps", "normalized_score", "normalized_score_std",
        "episodic_return", "episodic_length", "goal_fractions")  # fmt: skip
    row, scores = {"update": update} | dict.fromkeys(keys), {}
    if len(obs := holdout["observations"]):
        shape, generator = (16, len(obs), nets["actor"].noise_dim), torch.Generator().manual_seed(0)
        noise = torch.randn(shape, generator=generator).to(args.device)
        for steps in sorted({*EVALUATION_STEPS, args.num_steps}):
            samples = policy_samples(nets, obs, noise, steps, args)
            scores[str(steps)] = energy_score(samples, holdout["actions"]).item()
        row |= {"energy_score": scores[str(args.num_steps)], "energy_score_by_steps": scores}
    if args.env_id:
        act, episodes = make_act(nets, args, args.seed), args.num_eval_episodes
        row |= tasks().evaluate(args.env_id, act, episodes, args.seed + 100)
    return row


def write_file(path: Path, content: bytes) -> None:
    """Write all or nothing: the old file stays until the new one is on the disk."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def save_checkpoint(path: Path, state: dict) -> None:
    """Write the state and keep the checkpoint before; the last 64 bytes are the SHA-256."""
    torch.save(state, buffer := io.BytesIO())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(64)  # room for the digest, in a place that torch.load allows
    content = buffer.getvalue()[:-64]
    if path.exists():
        write_file(path.with_suffix(".previous.pt"), path.read_bytes())
    write_file(path, content + hashlib.sha256(content).hexdigest().encode())


def load_checkpoint(path: Path) -> dict:
    """The state in a checkpoint, or in the newest whole one of a run directory."""
    both = [path / "checkpoint.pt", path / "checkpoint.previous.pt"]
    for file in both if path.is_dir() else [path]:
        content = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(content[:-64]).hexdigest().encode() == content[-64:]:
            break
        warnings.warn(f"checkpoint {file} is {'damaged' if content else 'absent'}", stacklevel=2)
    else:
        raise ValueError(f"{path} holds no whole checkpoint; give a run directory or checkpoint.pt")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a pickle of more than tensors and plain values, or none at all
        raise ValueError(f"checkpoint {file} is refused: it holds more than weights") from None
    if (algorithm := state["results"]["algorithm"]) != Path(__file__).stem:
        raise ValueError(f"checkpoint {file} is of {algorithm}.py, not of this script")
    return state


def load_policy(checkpoint, **changes):
    """act(obs), NumPy (obs_dim,) -> (action_dim,), of a run; changes: device="cuda", num_steps=2"""
    state = load_checkpoint(Path(checkpoint))
    args = replace(Args(**state["results"]["args"]), **{"device": "cpu"} | changes)
    nets = make_networks(args, *state["dims"]).to(args.device)
    nets.load_state_dict({k: v for k, v in state["nets"].items() if k.split(".")[0] in nets})
    return make_act(nets, args, args.seed)


def compiled_update(data: dict, optimizers: dict, args: Args):
    """update_networks as one graph; CUDA graphs read data and Adam's averages where they are."""
    torch._dynamo.config.trace_autograd_ops = True  # autograd.grad inside the graph
    states = [s for part in optimizers.values() for s in getattr(part, "state", {}).values()]
    for tensor in [value for tensors in [data, *states] for value in tensors.values()]:
        torch._dynamo.mark_static_address(tensor)
    return torch.compile(update_networks, mode="reduce-overhead" if args.cuda_graphs else None)


def train(args: Args) -> dict:
    """Train -> what results.json holds. Bad input raises, with an exit_code, before training."""
    exit_code, script, state = 2, Path(__file__).stem, None
    try:
        if args.resume is not None:
            given = {k: v for k, v in vars(args).items() if v != getattr(Args(), k)}
            if extra := given.keys() - {"resume", "device", "num_threads", "dataset_path"}:
                raise ValueError(f"--resume keeps the run's arguments; drop {sorted(extra)}")
            state = load_checkpoint(Path(given.pop("resume")))
            given["run_dir"] = args.resume.removesuffix("/checkpoint.pt")
            args = Args(**(state["results"]["args"] | given))
        args = resolve_args(args)
        name = f"{args.env_id or Path(args.dataset_path).stem}__{script}__{args.seed}"
        args.run_dir = args.run_dir or f"runs/{name.replace('/', '-')}__{int(time.time())}"
        exit_code, run_dir = 1, Path(args.run_dir)
        data, holdout, dataset = load_data(args)
        if state and state["results"]["dataset"]["sha256"] != dataset["sha256"]:
            raise ValueError(f"dataset {dataset['path']} is not the one that {run_dir} began with")
        if state is None and (run_dir / "checkpoint.pt").exists():
            raise ValueError(f"--run-dir {run_dir} holds a run; --resume it or name another")
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(run_dir / ".lock", timeout=0).acquire().lock  # dies with us
    except (ValueError, OSError) as error:
        if isinstance(error, OSError):
            error = ValueError(f"--run-dir {run_dir} is in use or unusable; name another ({error})")
        error.exit_code = exit_code
        raise error
    torch.set_num_threads(args.num_threads)
    torch.manual_seed(args.seed)
    generator = torch.Generator(args.device).manual_seed(args.seed)
    dims = [data[key].shape[1] for key in ("observations", "actions")]
    nets = make_networks(args, *dims).to(args.device)
    parts = {"nets": nets}  # what has a state_dict
    for name in {"actor", "critic", "value"} & nets.keys():
        rate = args.learning_rate if name == "actor" else args.critic_learning_rate
        parts[name] = torch.optim.Adam(nets[name].parameters(), rate, fused=True)
    results = {"algorithm": script, "env_id": args.env_id, "seed": args.seed, "dataset": dataset,
        "num_updates": args.num_updates, "evaluations": [], "last": None, "best": None,
        "versions": {k: metadata.version(k) for k in ("torch", "numpy", "gymnasium", "mujoco")},
        "losses": [], "update": 0, "seconds": 0.0}  # fmt: skip
    if state:
        results = state["results"]
        generator.set_state(state["generator"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
    results |= {"status": "running", "args": asdict(args), "milliseconds_per_action": None}
    evaluations, caught, sums, since = results["evaluations"], [], [], results["update"]

    def write_results() -> None:
        results["updates_per_second"] = results["update"] / max(results["seconds"], 1e-9)
        text = json.dumps(results, indent=1).replace(": Infinity", ': "inf"')
        write_file(run_dir / "results.json", text.replace(": NaN", ": null").encode())

    step = update_networks
    write_results()
    bar = tqdm.trange(since + 1, args.num_updates + 1, initial=since, total=args.num_updates)
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        with contextlib.suppress(ValueError):  # signals reach the main thread only
            for number in (SIGINT, SIGTERM):
                usual = signal(number, lambda n, _: caught.append(n) or signal(n, SIG_DFL))
                stack.callback(signal, number, usual)
        if args.tensorboard:
            tensorboard = import_module("torch.utils.tensorboard")  # takes a second
            log = stack.enter_context(tensorboard.SummaryWriter(run_dir, purge_step=since + 1))
        for update in bar:
            started, last, stop = time.perf_counter(), update == args.num_updates, bool(caught)
            metrics = step(nets, parts, data, draw_inputs(update - 1, data, generator, args), args)
            if args.compile and step is update_networks:  # Adam's averages exist from here on
                step = compiled_update(data, parts, args)
            sums = torch._foreach_add([*metrics.values()], sums or 0)
            results["update"], scalars = update, {}
            due = last or update % args.eval_freq == 0
            save = last or stop or update % args.checkpoint_freq == 0
            if due or save or update % args.log_freq == 0:
                means = {k: v.item() / (update - since) for k, v in zip(metrics, sums, strict=True)}
                most = args.divergence_bound or math.inf
                bad = [k for k in means if not abs(means[k]) < (most if "q" in k else math.inf)]
                if bad and args.divergence_bound:
                    results |= {"status": "diverged", "diverged": {k: means[k] for k in bad}}
                    bar.write(f"{bad} diverged by update {update}; see {run_dir}/results.json")
                    break
                scalars = {f"losses/{k}": v for k, v in means.items()}
                scalars["charts/learning_rate"], sums, since = args.learning_rate, [], update
                scalars["charts/updates_per_second"] = update / max(results["seconds"], 1e-9)
            results["seconds"] += time.perf_counter() - started
            if due:
                evaluations.append(evaluate(nets, args, holdout, update))
                results["losses"].append(means)
                results |= select(results, args)
                write_results()
                known = {k: v for k, v in evaluations[-1].items() if isinstance(v, float)}
                bar.write(f"{update}: " + ", ".join(f"{k} {v:.4g}" for k, v in known.items()))
                scalars |= {f"eval/{k}": v for k, v in known.items()}
            for name, value in scalars.items() if args.tensorboard else ():
                log.add_scalar(name, value, update)
            if save:
                state = {name: part.state_dict() for name, part in parts.items()}
                state |= {"results": results, "dims": dims, "generator": generator.get_state()}
                save_checkpoint(run_dir / "checkpoint.pt", state)
            if stop and not last:
                results["status"] = "interrupted"
                bar.write(f"interrupted; go on with: python {sys.argv[0]} --resume {run_dir}")
                break
        else:
            results["status"] = "finished"
    act, obs = make_act(nets, args, args.seed), np.zeros(dims[0])
    times = [(act(obs), time.perf_counter())[1] for _ in range(51)]
    results["milliseconds_per_action"] = 1e3 * float(np.median(np.diff(times)))
    results["exit_code"] = {"finished": 0, "diverged": 1}.get(results["status"], 128 + sum(caught))
    write_results()
    if Path(__file__).with_name("d4rl_tasks.py").exists() and results["status"] != "diverged":
        tasks().plot_run(run_dir, args.env_id, evaluations, act, args.seed)
    return results


def main() -> int:
    """Train -> exit code: 0 finished, 1 diverged or bad input, 2 bad argument, 128 + signal."""
    args = tyro.cli(Args)
    try:
        if args.eval_only is None:
            return train(args)["exit_code"]
        resolve_args(args)  # checks what was given
        words = " ".join(sys.argv).replace("-", "_")  # a flag may be given its own default
        given = {k: v for k, v in vars(args).items() if f"__{k}" in words}
        return tasks().print_evaluation(load_policy(args.eval_only, **given)) or 0
    except (ValueError, OSError, RuntimeError) as error:
        if not (hasattr(error, "exit_code") or args.eval_only or isinstance(error, OSError)):
            raise
        print("error:", str(error).splitlines()[0], file=sys.stderr)
        return getattr(error, "exit_code", 1)


# --- end shared ---
if __name__ == "__main__":
    sys.exit(main())
