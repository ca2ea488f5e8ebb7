# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "numpy>=1.26", "gymnasium[mujoco]>=1.0,<2", "mujoco>=3.2,<4",
# "h5py>=3.10", "tyro>=0.9", "tensorboard>=2.15", "matplotlib>=3.8", "tqdm>=4.66", "filelock>=3.13"]
# ///
"""GTP-BC: behaviour cloning with a Generative Trajectory Policy (Section 5.1), without a critic.

    python gtp_bc.py                                            # 2-D multi-goal task, minutes
    python gtp_bc.py --env-id hopper-medium-replay-v2           # a D4RL task of the paper

The script to read first. Paper: "Offline Reinforcement Learning with Generative Trajectory
Policies", cited by equation. The policy is the solution map of an ODE that turns noise into an
action. Time runs from data to noise: x_t = a + t z with z ~ N(0, I), and
sigma_min <= s <= u < t <= sigma_max.

    FlowMap.phi           phi(x, t, s), endpoint from the average velocity over [s, t]     Eq. 3
    FlowMap.flow_map      Phi(x, t, s), the solution map                                   Eq. 4
    FlowMap.inst_map      phi(x, t, t), the denoiser E[a | x_t]                            Eq. 5
    t, u, s               t > u > tau (the paper's tau is `s`; `tau` is the Polyak rate)
    actor_ema             theta^-                                          num_steps      K (or T)

The losses are those of gtp_offline.py with all weights 1, which is what --eta 0 makes them there.
(Dn) in Args differs from the paper's letter, which --literal restores: docs/differences.md, where
"What BC means in Table 1" tells why its numbers are not those of a policy that acts alone. The
sections down to the update are the method; those below are what a run needs besides.
"""

import contextlib
import errno
import gc
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import platform
import re
import sys
import tempfile
import time
import timeit
import zipfile
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from signal import SIG_DFL, SIGINT, SIGTERM, signal
from statistics import median
from typing import Literal, get_args

import filelock
import h5py
import numpy as np
import torch
import tqdm
import tyro
from torch import nn
from torch.optim.adam import adam

# ------------------------------------------ arguments ------------------------------------------


@dataclass(unsafe_hash=True)
class Args:
    """GTP-BC. With --env-id X, --help shows the values for task X."""

    # --- shared: arguments of every script ---
    env_id: str = ""  # of D4RL, Minari, OGBench, a toy, or Gymnasium (module:Id-v0)
    dataset_path: str = ""  # HDF5 or NPZ file of transitions; the task's own if empty
    d4rl_semantics: bool = False  # drop terminal rows that timed out and a terminal last row
    action_units: Literal["auto", "env", "unit"] = "auto"  # the file's; auto: env where they fit
    run_dir: str = ""  # receives everything; runs/{task}__{script}__{seed}__{time} if empty
    resume: str = ""  # continue the run in this directory, with its own arguments
    seed: int = 0  # of the networks, the batches and the evaluation
    device: str = "auto"  # cpu, cuda, cuda:1, ...; auto: cuda where there is one
    num_threads: int = 1  # CPU threads; more do not help networks of this size
    compile: bool = False  # torch.compile the update: a slow start, then faster
    cuda_graphs: bool = False  # with --compile on a GPU: replay its kernels as CUDA graphs
    bf16: bool = False  # the actor's hidden layers in bfloat16, for CPUs that have it
    tensorboard: bool = True  # write TensorBoard events
    track: bool = False  # send them to Weights & Biases too; writes them in any case
    wandb_project: str = "gtp"  # of --track
    wandb_entity: str = ""  # of --track: a user or team; wandb's own default if empty
    num_updates: int = 100_000  # training iterations
    batch_size: int = 256  # transitions per update
    eval_freq: int = 0  # updates between evaluations; 0: a twentieth of num_updates
    num_eval_episodes: int = 10  # episodes per evaluation
    checkpoint_freq: int = 5000  # updates between checkpoints
    log_freq: int = 500  # updates per line of the log; metrics are means over them
    num_holdout: int = 2000  # transitions held out for the energy score, at most a tenth
    fix_timeouts: bool = False  # antmaze-v0: drop transitions that jump between episodes
    reward_scale: float = 1.0  # r' = reward_scale (r + reward_shift)
    reward_shift: float = 0.0  # see reward_scale
    reward_normalization: Literal["none", "std"] = "none"  # std: first r = (r - mean) / std
    learning_rate: float = 3e-4  # Adam's, of the actor
    grad_norm: float = 0.0  # largest norm of a gradient; 0: no clipping
    tau: float = 0.005  # Polyak rate of the averaged networks (Algorithm 1, line 9)
    hidden_dim: int = 256  # width of the three hidden layers
    divergence_bound: float = 1e6  # stop when a loss is not finite or Q is beyond; 0: never
    # --- end shared ---
    # --- shared: arguments of GTP ---
    literal: bool = False  # the paper's letter in all that is marked (D); other flags still win
    num_steps: int = 5  # K, steps of the sampler (Eq. 15)
    consistency_loss: Literal["pseudo-huber", "squared"] = "pseudo-huber"  # (D1) paper: squared
    huber_c: float = 0.03  # where the pseudo-Huber loss turns from squared to absolute
    # (D2) inverse-gap: 1 / (t - u); paper: none
    consistency_weighting: Literal["inverse-gap", "none"] = "inverse-gap"
    flow_weighting: Literal["edm", "none"] = "edm"  # (D3) paper: none
    lambda_flow: float = 10.0  # (D4) weight of the flow loss (Eq. 19); 1 with --literal
    t_sampling: Literal["lognormal", "uniform"] = "lognormal"  # (D5) uniform with --literal
    sigma_max: float = 5.0  # (D6) largest noise level; 80 with --literal
    preconditioning: Literal["edm", "none"] = "edm"  # (D7) none with --literal
    strict_s: bool = False  # (D8) s < u, not s = u, where the target is x_u; paper: yes
    sampler_end: Literal["sigma-min", "zero"] = "sigma-min"  # (D9) t_K; paper: zero
    eval_actor: Literal["ema", "online"] = "ema"  # (D11) which actor acts; paper: online
    ema_every: int = 5  # (D18) updates that tau counts for in the averaged actor; paper: 1
    sigma_min: float = 0.002  # smallest noise level
    u_sampling: Literal["adjacent", "uniform"] = "adjacent"  # u next to t, or anywhere above s
    normalize_observations: bool = True  # (D14) by the data's mean and std; paper: no
    # --- end shared ---


# Which flags other defaults depend on: the arguments of default_args.
DECISIVE = ("env_id", "dataset_path", "literal", "device", "num_updates")
LITERAL = {  # the paper's letter, and what the baselines' code does where the paper is silent
    "consistency_loss": "squared",
    "consistency_weighting": "none",
    "flow_weighting": "none",
    "lambda_flow": 1.0,
    "t_sampling": "uniform",
    "sigma_max": 80.0,
    "preconditioning": "none",
    "strict_s": True,
    "sampler_end": "zero",
    "eval_actor": "online",
    "ema_every": 1,
    "normalize_observations": False,
    "num_holdout": 0,
}
# What an argument that an older checkpoint lacks must be to go on as before.
OLDER = {
    "ema_every": 1,
    "normalize_observations": False,
    "d4rl_semantics": True,
    "action_units": "unit",
}
TASK_FIELDS = ("learning_rate", "grad_norm")
TASKS = {  # Table 4; the mazes' last three and D4RL/* are not in it (docs/differences.md)
    "halfcheetah-medium": (3e-4, 9.0),
    "hopper-medium": (3e-4, 9.0),
    "walker2d-medium": (3e-4, 1.0),
    "halfcheetah-medium-replay": (3e-4, 2.0),
    "hopper-medium-replay": (3e-4, 4.0),
    "walker2d-medium-replay": (3e-4, 4.0),
    "halfcheetah-medium-expert": (3e-4, 7.0),
    "hopper-medium-expert": (3e-4, 5.0),
    "walker2d-medium-expert": (3e-4, 5.0),
    "antmaze-umaze": (3e-4, 2.0),
    "antmaze-umaze-diverse": (3e-4, 3.0),
    "antmaze-medium-play": (1e-3, 2.0),
    "antmaze-medium-diverse": (3e-4, 1.0),
    "antmaze-large-play": (3e-4, 10.0),
    "antmaze-large-diverse": (3e-4, 7.0),
    "D4RL/pen/human": (3e-5, 7.0),
    "D4RL/pen/cloned": (3e-5, 8.0),
    "D4RL/kitchen/complete": (3e-4, 9.0),
    "D4RL/kitchen/partial": (3e-4, 10.0),
    "D4RL/kitchen/mixed": (3e-4, 10.0),
}
UPDATES = {"D4RL/kitchen/complete": 250_000}  # of Minari's, where not a million


def default_args(env_id="", dataset_path="", literal=False, device="auto", num_updates=0) -> Args:
    """A task's arguments (multigoal-v0's with neither id nor file); 0 updates: the task's."""
    env_id = env_id or ("" if dataset_path else "multigoal-v0")
    values = task_defaults(env_id, device, num_updates)
    if env_id in TOYS:
        # Their observations have the right scale, and their runs are too short for slow averages
        values |= {"normalize_observations": False, "ema_every": 1}
    if literal:
        values |= LITERAL
    return Args(env_id=env_id, dataset_path=dataset_path, literal=literal, **values)


# --- shared: defaults ---
TOYS = {  # and their numbers of updates
    "pointmaze-umaze-v0": 4_000,
    "pointmaze-medium-v0": 6_000,
    "pointmaze-large-v0": 12_000,
    "pointmaze-walls-v0": 20_000,
    "multigoal-v0": 4_000,
    "multigoal-unequal-v0": 8_000,
}


def find_device(device):
    """auto -> cuda where there is one, else cpu; any other name as it is."""
    available = "cuda" if torch.cuda.is_available() else "cpu"
    return available if device == "auto" else device


def task_defaults(env_id, device, num_updates):
    """The task's row of TASKS and what depends on the kind of task and on the device alone."""
    task = env_id.rpartition("-v")[0].replace("minari:D4RL/", "D4RL/")
    values = {}
    if task in TASKS:
        values = dict(zip(TASK_FIELDS, TASKS[task], strict=True))
        values["num_updates"] = UPDATES.get(task, 1_000_000 if "/" in task else 2_000_000)
        values["d4rl_semantics"] = "/" not in task
        if "/pen/" in task:  # as in Diffusion-QL's code
            values["reward_normalization"] = "std"
    if "singletask" in task:  # as OGBench evaluates
        values |= {"num_updates": 1_000_000, "num_eval_episodes": 50}
    elif task in TASKS and task.startswith("antmaze"):  # r' = 4 (r - 0.5), as Diffusion-QL's code
        values |= {"num_updates": 1_000_000, "num_eval_episodes": 100}
        values |= {"reward_scale": 4.0, "reward_shift": -0.5}
    elif env_id in TOYS and task.startswith("pointmaze"):
        values |= {"num_updates": TOYS[env_id], "num_eval_episodes": 100, "hidden_dim": 128}
        values |= {"reward_scale": 4.0, "reward_shift": -0.5, "grad_norm": 2.0, "tau": 0.01}
    elif env_id in TOYS:
        values |= {"num_updates": TOYS[env_id], "num_eval_episodes": 1_000, "learning_rate": 1e-3}
    if num_updates:
        values["num_updates"] = num_updates
    values["device"] = find_device(device)
    long = values.get("num_updates", Args.num_updates) > 20_000  # worth a slow start
    fast = long and values["device"] != "cpu" and torch.__version__ >= "2.11"
    return values | {"compile": fast, "cuda_graphs": fast}


# --- end shared ---


# ------------------------------------------- networks -------------------------------------------
# --- shared: networks ---
class EnsembleLinear(nn.Module):
    """`size` linear layers as one product, (size, B, in_dim) -> (size, B, out_dim)."""

    def __init__(self, size, in_dim, out_dim):
        super().__init__()
        bound = in_dim**-0.5  # nn.Linear's initialisation
        self.weight = nn.Parameter(torch.empty(size, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size, 1, out_dim).uniform_(-bound, bound))

    def forward(self, x):
        return torch.baddbmm(self.bias, x, self.weight)


class Mish(nn.Module):
    """x tanh(softplus(x)) = x m / (m + 1) with m = e^x + e^2x / 2, exact but for rounding."""

    def forward(self, x):
        if x.is_cuda or x.numel() < 4096:
            return nn.functional.mish(x)
        # On a CPU tanh does not vectorise: compiled updates are 1.4 times faster with this form.
        e = x.clamp(max=20).exp()
        m = torch.addcmul(e, e, e, value=0.5)
        return x * (m / (m + 1))


class Layers(nn.Sequential):
    """Layers in a row; with bf16 all but the last compute in bfloat16."""

    bf16 = False

    def forward(self, x):
        if not self.bf16:
            return super().forward(x)
        *hidden, last = self
        with torch.autocast(x.device.type, torch.bfloat16):
            for layer in hidden:
                x = layer(x)
        return last(x.to(last.weight.dtype))


def mlp(in_dim, hidden_dim, out_dim, linear=nn.Linear, activation=Mish):
    """Three hidden layers with Mish, as in Diffusion-QL's code."""
    layers = [linear(in_dim, hidden_dim), activation()]
    for _ in range(2):
        layers += [linear(hidden_dim, hidden_dim), activation()]
    return Layers(*layers, linear(hidden_dim, out_dim))


class ObsNetwork(nn.Module):
    """A network that standardises its observations, by buffers that the data fill."""

    def __init__(self, obs_dim):
        super().__init__()
        self.action_bounds = (-1, 1)  # what these stand for in the environment
        self.register_buffer("obs_mean", torch.zeros(obs_dim))
        self.register_buffer("obs_std", torch.ones(obs_dim))

    def standardized(self, obs):
        dims = len(self.obs_mean)
        if obs.shape[1:] != (dims,):  # a single column would be taken for all
            raise ValueError(f"observations {tuple(obs.shape)}, but ({dims},) or (n, {dims}) fit")
        return (obs - self.obs_mean) / self.obs_std


def standardize(nets, data):
    """Give all networks the mean and standard deviation of the data's observations."""
    std, mean = torch.std_mean(data["observations"].double(), 0, correction=0)
    constant = std < 1e-6
    if constant.any():
        columns = constant.nonzero().flatten().tolist()
        print(f"observations {columns} do not vary by 1e-6; they are not scaled", file=sys.stderr)
    for net in nets.values():
        net.obs_mean.copy_(mean)
        net.obs_std.copy_(std.where(~constant, 1.0))


# --- end shared ---
# --- shared: flow map ---
SIGMA_DATA = 0.5  # standard deviation of the actions that EDM's preconditioning assumes
EVALUATION_STEPS = {1, 2}  # of the sampler, besides num_steps: where the energy score is measured


class FlowMap(ObsNetwork):
    """The actor: obs (B, obs_dim), x (..., B, action_dim), t and s (B, 1) or (1, 1) -> like x."""

    def __init__(self, obs_dim, action_dim, hidden_dim=256, preconditioning="edm"):
        super().__init__(obs_dim)
        self.noise_dim = action_dim
        self.preconditioned = preconditioning == "edm"
        self.register_buffer("frequencies", torch.logspace(0, -4, 8), persistent=False)
        # the embeddings of t and of s, 16 numbers each
        self.embed = nn.Sequential(EnsembleLinear(2, 16, 32), Mish(), EnsembleLinear(2, 32, 16))
        self.net = mlp(action_dim + 32 + obs_dim, hidden_dim, action_dim)

    def phi(self, obs, x, t, s):
        """The endpoint extrapolated from x_t with the average velocity over [s, t] (Eq. 3)."""
        times = torch.stack((t, s))
        if self.preconditioned:  # clamped because s = 0 with --sampler-end zero
            times = 250 * times.clamp(min=1e-3).log()
        angles = times * self.frequencies
        embedding = self.embed(torch.cat((angles.sin(), angles.cos()), 2))
        embedding = embedding.transpose(0, 1).flatten(1).expand(*x.shape[:-1], -1)
        obs = self.standardized(obs).expand(*x.shape[:-1], -1)
        if not self.preconditioned:
            return self.net(torch.cat((x, embedding, obs), -1))
        # EDM (Karras et al. 2022, Table 1): c_skip x + c_out F(c_in x, ...)
        variance = t**2 + SIGMA_DATA**2
        out = self.net(torch.cat((x * variance.rsqrt(), embedding, obs), -1))
        return SIGMA_DATA**2 / variance * x + t * SIGMA_DATA * variance.rsqrt() * out

    def flow_map(self, obs, x, t, s):
        """Phi(x, t, s): where the path that is at x at time t is at time s (Eq. 4)."""
        return torch.lerp(self.phi(obs, x, t, s), x, s / t)  # (1 - s / t) phi + s / t x

    def inst_map(self, obs, x, t):
        """phi(x, t, t), the denoiser E[a | x_t] (Eq. 5)."""
        return self.phi(obs, x, t, t)


# --- end shared ---
def make_networks(args, obs_dim, action_dim):
    """theta and its average (Algorithm 1, line 1)."""
    actor = FlowMap(obs_dim, action_dim, args.hidden_dim, args.preconditioning)
    actor.net.bf16 = args.bf16
    return nn.ModuleDict({"actor": actor, "actor_ema": deepcopy(actor)})


def make_optimizers(nets, args):
    """Adam for the actor."""
    parameters = nets["actor"].parameters()
    return {"actor": torch.optim.Adam(parameters, lr=args.learning_rate, fused=True)}


# --------------------------------------------- times ---------------------------------------------
# --- shared: times of GTP ---
def num_grid_points(update, num_updates, s0=10, s1=1280):
    """N(k), the number of points of the time grid at an update (Eq. 76)."""
    period = max(1, int(num_updates / (math.log2(s1 / s0) + 1)))
    return min(s0 * 2 ** (update // period), s1) + 1


def karras_grid(n, sigma_min, sigma_max, rho=7.0):
    """n noise levels from sigma_min up to sigma_max, (n,) (EDM, Eq. 5)."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    grid = torch.linspace(low, high, n, dtype=torch.float64) ** rho
    return grid.clamp(sigma_min, sigma_max).to(torch.get_default_dtype())


@lru_cache
def time_grid(n, args):
    """The n grid points and the distribution function of t on them, both padded to (1281,)."""
    grid, t_cdf = torch.ones(2, 1281)
    grid[:n] = karras_grid(n, args.sigma_min, args.sigma_max)
    if args.t_sampling == "lognormal":  # iCT: ln t ~ N(-1.1, 4)
        standardized = (grid[:n].double().log() + 1.1) / 2
        mass = torch.special.ndtr(standardized).diff()
    else:
        mass = torch.ones(n - 1)
    if args.strict_s:
        mass[0] = 0  # t > u > s takes two points below t
    t_cdf[: n - 2] = (mass.cumsum(0) / mass.sum())[:-1]
    return grid.to(args.device), t_cdf.to(args.device)


def sample_times(uniform, grid, t_cdf, args):
    """t > u >= s on the grid, each (B, 1), from uniform numbers (B, 3) (Algorithm 1, line 6)."""
    i = torch.searchsorted(t_cdf, uniform[:, 0].contiguous(), right=True) + 1
    below = i - 1 if args.strict_s else i  # s is one of the first `below` points
    j = torch.minimum((uniform[:, 1] * below).long(), below - 1)
    m = i - 1
    if args.u_sampling == "uniform":  # anywhere above s and below t
        above_s = (uniform[:, 2] * (m - j)).long()
        m = torch.minimum(j + 1 + above_s, m)
    return grid[i, None], grid[m, None], grid[j, None]


# --- end shared ---
# --------------------------------------------- losses ---------------------------------------------


def consistency_loss(actor, actor_ema, obs, actions, noise, t, u, s, args):
    """Trajectory consistency, E[d(Phi(x_t, t, s), Phi_ema(x_u, u, s))], a scalar (Eq. 17).

    x_t and x_u share the noise z: the score approximation (Eq. 11) in place of an ODE solver.
    """
    x_t = actions + t * noise
    x_u = actions + u * noise
    target = actor_ema.flow_map(obs, x_u, u, s).detach()
    error = (actor.flow_map(obs, x_t, t, s) - target).square().sum(1)
    if args.consistency_loss == "pseudo-huber":
        error = (error + args.huber_c**2).sqrt() - args.huber_c
    if args.consistency_weighting == "inverse-gap":
        error = error / (t - u).squeeze(1)
    return error.mean()


def flow_loss(actor, obs, actions, noise, t, args):
    """Instantaneous flow: E[||a - phi(x_t, t, t)||^2], denoising, a scalar (Eq. 18)."""
    x_t = actions + t * noise
    error = (actions - actor.inst_map(obs, x_t, t)).square().sum(1)
    if args.flow_weighting == "edm":
        error = error * ((t**2 + SIGMA_DATA**2) / (t * SIGMA_DATA) ** 2).squeeze(1)
    return error.mean()


def actor_loss(nets, obs, actions, noise, t, u, s, args):
    """Consistency + lambda_flow * flow (Eq. 19) -> scalar loss, dict of scalar metrics."""
    actor, actor_ema = nets["actor"], nets["actor_ema"]
    consistency = consistency_loss(actor, actor_ema, obs, actions, noise, t, u, s, args)
    flow = flow_loss(actor, obs, actions, noise, t, args)
    loss = consistency + args.lambda_flow * flow
    return loss, {"actor": loss, "consistency": consistency, "flow": flow}


# -------------------------------------------- sampler --------------------------------------------
# --- shared: sampler of GTP ---
@lru_cache
def sampling_times(num_steps, args):
    """T = t_0 > ... > t_K, (num_steps + 1,), from sigma_max to sigma_min or 0 (Eq. 15)."""
    times = karras_grid(num_steps + 1, args.sigma_min, args.sigma_max).flip(0)
    times[-1] = 0 if args.sampler_end == "zero" else args.sigma_min
    return times.to(args.device)


@torch.no_grad()
def sample_actions(actor, obs, noise, times):
    """Follow Phi from t_0 z down to t_K (Eq. 15): noise z (..., B, action_dim) -> actions alike."""
    x = times[0] * noise
    for i in range(len(times) - 1):
        t, s = times[i].view(1, 1), times[i + 1].view(1, 1)
        x = actor.flow_map(obs, x, t, s)
    return x.clamp(-1, 1)


def policy_samples(nets, obs, noise, num_steps, args):
    """Actions like noise (..., B, action_dim) for obs (B, obs_dim), chosen by no critic."""
    actor = nets["actor_ema" if args.eval_actor == "ema" else "actor"]
    return sample_actions(actor, obs, noise, sampling_times(num_steps, args))


# --- end shared ---
# -------------------------------------------- update --------------------------------------------
# --- shared: gradient steps ---
def gradient_steps(nets, optimizers, losses, grad_norm):
    """A step of each named network down its loss, its gradient clipped to grad_norm (0: not) ->
    {name: the gradient's norm before}."""
    if torch.compiler.is_compiling():
        return compiled_gradient_steps(nets, optimizers, losses, grad_norm or math.inf)
    norms = {}
    for name, loss in losses.items():
        parameters = list(nets[name].parameters())
        optimizers[name].zero_grad()
        loss.backward(inputs=parameters)  # none for the other networks in the loss
        norms[name] = nn.utils.clip_grad_norm_(parameters, grad_norm or math.inf)
        optimizers[name].step()
    return norms


def compiled_gradient_steps(nets, optimizers, losses, grad_norm):
    """The same inside a compiled update: backward() and step() would break it into several graphs,
    and a single one is 1.2 times as fast (docs/speed.md)."""
    norms = {}
    groups = {}  # of one learning rate: parameters, their gradients and Adam's averages
    for name, loss in losses.items():
        parameters = list(nets[name].parameters())
        gradients = torch.autograd.grad(loss, parameters)
        norms[name] = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        factor = (grad_norm / (norms[name] + 1e-6)).clamp(max=1)
        group = groups.setdefault(optimizers[name].defaults["lr"], ([], [], []))
        group[0].extend(parameters)
        group[1].extend(torch._foreach_mul(gradients, factor))
        group[2].extend(optimizers[name].state[parameter] for parameter in parameters)
    with torch.no_grad():
        for rate, group in groups.items():
            compiled_adam(rate, *group)
    return norms


def compiled_adam(rate, parameters, gradients, states):
    """One step of Adam for all parameters, a single kernel on a GPU."""
    first = [state["exp_avg"] for state in states]
    second = [state["exp_avg_sq"] for state in states]
    steps = [state["step"] for state in states]
    counted = [step.double() for step in steps]  # adam adds 1 to these copies only
    constants = {"lr": rate, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0}
    switches = {"amsgrad": False, "maximize": False, "capturable": True}
    adam(parameters, gradients, first, second, [], counted, **constants, **switches)
    torch._foreach_add_(steps, 1)


def polyak(target, source, tau):
    """Move the parameters of target by tau towards those of source (Algorithm 1, line 9)."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


def compiled_update(data, optimizers, args):
    """update_networks as one graph; CUDA graphs read data and Adam's averages where they are. Where
    the compiler fails, a line says so and the updates go on without it."""
    torch._dynamo.config.trace_autograd_ops = True  # autograd.grad inside the graph
    if hasattr(torch._inductor.config, "loop_ordering_after_fusion"):
        torch._inductor.config.loop_ordering_after_fusion = args.device == "cpu"
    print("compiling the update for about a minute; --no-compile goes without", file=sys.stderr)
    states = [state for item in optimizers.values() for state in item.state.values()]
    for group in [data, *states]:
        for tensor in group.values():
            torch._dynamo.mark_static_address(tensor)
    step, working = None, False

    def update(*inputs):
        nonlocal step, working
        try:
            if step is None:
                mode = "reduce-overhead" if args.cuda_graphs else None
                step = torch.compile(update_networks, mode=mode)
            metrics = step(*inputs)
        except Exception as error:  # of many kinds
            if working:  # not the compiler's fault, and tensors may have changed
                raise
            reason = " ".join(str(error).split())[:200]
            print(f"--compile failed, going on as with --no-compile: {reason}", file=sys.stderr)
            step = update_networks
            metrics = step(*inputs)
        working = True
        return metrics

    return update


# --- end shared ---
def draw_inputs(update, data, generator, args):
    """A batch's rows and all else that is random or scheduled in an update, of fixed shapes."""
    grid, t_cdf = time_grid(num_grid_points(update, args.num_updates), args)
    shape = (args.batch_size, data["actions"].shape[1])
    own = {"generator": generator, "device": args.device}
    return {
        "rows": torch.randint(len(data["rows"]), (args.batch_size,), **own),
        "uniform": torch.rand(args.batch_size, 3, **own),
        "normal": torch.randn(shape, **own),
        "grid": grid,
        "t_cdf": t_cdf,
    }


def update_networks(nets, optimizers, data, inputs, args):
    """One iteration of Algorithm 1 (lines 3, 6-9), no synchronisation -> scalar metrics."""
    rows, noise = data["rows"][inputs["rows"]], inputs["normal"]
    obs, actions = data["observations"][rows], data["actions"][rows]
    # lines 6 to 8: the actor (Eq. 19)
    t, u, s = sample_times(inputs["uniform"], inputs["grid"], inputs["t_cdf"], args)
    loss, terms = actor_loss(nets, obs, actions, noise, t, u, s, args)
    norms = gradient_steps(nets, optimizers, {"actor": loss}, args.grad_norm)
    # line 9: the average
    polyak(nets["actor_ema"], nets["actor"], args.tau / args.ema_every)
    metrics = terms | {"actor_grad_norm": norms["actor"]}
    return {name: metric.detach() for name, metric in metrics.items()}


# --------------------------------------------- data ---------------------------------------------
# --- shared: data ---
@np.errstate(over="ignore")
def read_rows(path):
    """The arrays of a file in D4RL's layout, by D4RL's or by Gymnasium's names; ValueError for a
    bad file. For a script that was copied alone: offline_tasks reads more, and says more."""
    others = {"terminals": "terminations", "timeouts": "truncations"}
    arrays = {}
    name = "the file"
    if not Path(path).is_file():  # to open a pipe would wait for ever
        raise ValueError(f"dataset {path} cannot be read: there is no such file")
    try:
        with np.load(path) if zipfile.is_zipfile(path) else h5py.File(path, "r") as file:
            for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
                name = key if key in file else others.get(key, key)
                if name in file or key != "timeouts":
                    array = np.atleast_1d(file[name][()])
                    arrays[key] = array.astype(np.float32, casting="same_kind")
            if "next_observations" in file:
                print(f"dataset {path}: next rows are taken; next_observations are ignored")
            if "masks" in file:
                print(f"dataset {path}: masks are ignored; terminals say where a value ends")
    except Exception as error:  # h5py and zipfile raise many kinds for a damaged file
        reason = f"{name} is absent, damaged or of another kind ({type(error).__name__})"
        raise ValueError(f"dataset {path} cannot be read as HDF5 or NPZ: {reason}") from error
    count = len(arrays["observations"])
    for key, array in arrays.items():
        shaped = array.ndim == 2 if key in ("observations", "actions") else array.size == count
        if not (shaped and array.size and len(array) == count and np.isfinite(array).all()):
            raise ValueError(f"dataset {path}: give a row of finite float32 numbers a step ({key})")
        if key in others and not np.isin(array, (0, 1)).all():
            raise ValueError(f"dataset {path}: give 0 and 1 alone ({key})")
    return arrays


def load_transitions(path, max_episode_steps=None, d4rl_semantics=False):
    """Transitions of an HDF5 or NPZ file, n float32 rows of each kind; ValueError for a bad file.
    d4rl_semantics: exactly D4RL's qlearning_dataset."""
    if TASKS_FOLDER.is_dir():  # understands more files, and checks them
        return tasks().load_transitions(path, max_episode_steps, d4rl_semantics)
    arrays = read_rows(path)
    count = len(arrays["observations"])
    if np.abs(arrays["actions"]).max() > 1.001:
        raise ValueError(f"dataset {path}: actions are beyond [-1, 1]; rescale them to [-1, 1]")
    terminals = arrays["terminals"].reshape(count) > 0
    dropped = arrays.get("timeouts", np.zeros(count)).reshape(count) > 0
    dropped[-1] = True  # it has no next row
    if not d4rl_semantics:
        dropped &= ~terminals  # they need none
    keep = np.flatnonzero(~dropped)
    if not len(keep):
        raise ValueError(f"dataset {path}: no row has a next one; give longer episodes")
    return {
        "observations": arrays["observations"][keep],
        "next_observations": arrays["observations"][np.minimum(keep + 1, count - 1)],
        "actions": arrays["actions"][keep],
        "rewards": arrays["rewards"].reshape(count)[keep],
        "terminals": terminals[keep].astype(np.float32),
    }


def load_data(args):
    """Tensors to train on, held-out ones, and what results.json says of the dataset."""
    path = Path(args.dataset_path or tasks().dataset_file(args.env_id))
    about = {"action_units": "unit", "action_bounds": [-1, 1]}
    if args.fix_timeouts and not TASKS_FOLDER.is_dir():
        raise ValueError(f"--fix-timeouts needs {TASKS_FOLDER}; leave it out")
    if TASKS_FOLDER.is_dir():
        how = (args.d4rl_semantics, args.action_units, args.fix_timeouts)
        arrays, about = tasks().load_dataset(path, args.env_id, *how, args.normalize_observations)
    else:
        arrays = load_transitions(path, d4rl_semantics=args.d4rl_semantics)
    rewards = arrays["rewards"]
    if args.reward_normalization == "std":  # as Diffusion-QL's code does for pen
        if rewards.min() == rewards.max():
            reason = "rewards do not vary; leave --reward-normalization std out"
            raise ValueError(f"dataset {path}: {reason}")
        rewards = rewards.astype(np.float64)  # float32 knows no square of 1e20
        rewards = ((rewards - rewards.mean()) / rewards.std(ddof=1)).astype(np.float32)
    with np.errstate(over="ignore"):
        arrays["rewards"] = args.reward_scale * (rewards + args.reward_shift)
    if not np.isfinite(arrays["rewards"]).all():
        reason = f"rewards times --reward-scale {args.reward_scale:g} are beyond float32"
        raise ValueError(f"dataset {path}: {reason}; make it smaller")
    if TASKS_FOLDER.is_dir():
        about |= tasks().largest_rewards(arrays["rewards"], arrays["terminals"])
    data = {key: torch.from_numpy(array).to(args.device) for key, array in arrays.items()}
    count = len(data["rewards"])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))  # for every seed
    num_held = min(args.num_holdout, count // 10)
    held, data["rows"] = order.to(args.device).tensor_split([num_held])
    holdout = {key: data[key][held] for key in ("observations", "actions")}
    digest = hashlib.sha256(np.memmap(path, mode="r")).hexdigest()
    return data, holdout, {"path": str(path), "sha256": digest, "transitions": count} | about


# --- end shared ---
# ------------------------------------------ evaluation ------------------------------------------
# --- shared: evaluation ---
def energy_score(samples, actions):
    """E|X - a| - E|X - X'| / 2, mean over B, of samples X (m, B, A) for data a (B, A)."""
    m = len(samples)
    x = samples.transpose(0, 1)
    pairs = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    distance = (samples - actions).norm(dim=2).mean()
    spread = pairs.mean() / (m * (m - 1))
    return distance - spread / 2


def evaluate(nets, args, holdout, update):
    """Held-out energy scores and, where there is a task, its episodes; what is unknown is None."""
    names = ("energy_score", "energy_score_by_steps", "normalized_score", "normalized_score_std")
    names += ("episodic_return", "episodic_length", "goal_fractions")
    row = {"update": update} | dict.fromkeys(names)
    obs = holdout["observations"]
    if len(obs):
        shape = (16, len(obs), nets["actor"].noise_dim)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(shape, generator=generator).to(args.device)
        scores = {}
        for steps in sorted({*EVALUATION_STEPS, args.num_steps}):
            samples = policy_samples(nets, obs, noise, steps, args)
            scores[str(steps)] = energy_score(samples, holdout["actions"]).item()
        row["energy_score"] = scores[str(args.num_steps)]
        row["energy_score_by_steps"] = scores
    if args.env_id:
        act = make_act(nets, args, args.seed)
        try:
            row |= tasks().evaluate(args.env_id, act, args.num_eval_episodes, args.seed + 100)
        except ValueError as error:  # of an environment that does not do what it should
            raise InputError(str(error)) from error
    return row


def select_best(evaluations):
    """The last evaluation, and the best: by score, else by return, else by energy score."""
    keys = ("normalized_score", "episodic_return", "energy_score", "update")
    key = next(key for key in keys if evaluations[-1][key] is not None)
    sign = -1 if key == "energy_score" else 1
    known = [row for row in evaluations if row[key] is not None]
    best = max(known, key=lambda row: sign * row[key])  # the first of equal ones
    return {"last": evaluations[-1], "best": best, "best_by": key}


def in_units(actions, bounds):
    """Actions in [-1, 1], NumPy (..., action_dim) -> between the environment's (low, high)."""
    low, high = bounds
    return np.clip((low + high) / 2 + (high - low) / 2 * actions, low, high)


def one_graph(function):
    """function(obs, noise), which a GPU replays as one CUDA graph for a single observation."""
    graphs = []

    def call(obs, noise):
        if not obs.is_cuda or len(obs) > 1:
            return function(obs, noise)
        if not graphs:
            gc.collect()  # an older policy's graph, freed during a capture, would end it
            with torch.cuda.device(obs.device):
                graphs.append(torch.cuda.make_graphed_callables(function, (obs, noise)))
        return graphs[0](obs, noise)

    return call


# --- end shared ---
def make_act(nets, args, seed):
    """act(obs): NumPy (obs_dim,) or (n, obs_dim) -> actions in the environment's units;
    noise from the seed alone."""
    generator = torch.Generator().manual_seed(seed)

    @one_graph
    @torch.no_grad()
    def sample(obs, noise):
        return policy_samples(nets, obs, noise, args.num_steps, args)

    def act(obs):
        batch = torch.as_tensor(np.atleast_2d(obs), dtype=torch.float32)
        noise = torch.randn(1, len(batch), nets["actor"].noise_dim, generator=generator)
        actions = sample(batch.to(args.device), noise.to(args.device)).cpu()
        actions = actions.numpy().reshape(*np.shape(obs)[:-1], -1)
        return in_units(actions, nets["actor"].action_bounds)

    return act


def state_value(nets, args):
    """No critic, no value of a state."""
    return None


def select(results, args):
    """The evaluations that results.json names."""
    return select_best(results["evaluations"])


# -------------------------------------------- checks --------------------------------------------
LARGEST = {"sigma_max": 1e6}


def check_args(args):
    """Raise ArgumentError for a value that cannot be used."""
    check_common_args(args)
    if not 1e-6 <= args.huber_c <= 1e6:  # at 0 the gradient of an error of 0 is NaN
        raise ArgumentError(f"--huber-c is {args.huber_c}; give a number from 1e-6 to 1e6")
    largest = 0.99 * args.sigma_max  # nearer, float32 takes neighbours of the grid for one
    if not (args.resume or 1e-3 <= args.sigma_min <= largest):  # embedded from 1e-3 on
        place = f"[1e-3, {args.sigma_max}), 1 % below --sigma-max"
        raise ArgumentError(f"--sigma-min {args.sigma_min} must lie in {place}")


# --- shared: input ---
TASKS_FOLDER = Path(__file__).resolve().with_name("offline_tasks")


class InputError(ValueError):
    """What a person gave cannot be used; the message names it and the remedy."""


class ArgumentError(InputError):
    """A wrong argument: exit code 2 instead of 1."""


def tasks():
    """The package offline_tasks (environments, datasets, scores), which only --env-id needs."""
    if not TASKS_FOLDER.is_dir():
        raise ArgumentError(f"--env-id and --track need {TASKS_FOLDER}; else --dataset-path alone")
    return import_module("offline_tasks")


def check_device(device):
    """Raise ArgumentError for a device that this machine does not have."""
    known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        known.append("cuda")
    if device not in known:
        found = " or ".join(known)
        raise ArgumentError(f"--device {device} is not to be had on this machine; give {found}")


def check_types(args):
    """Raise ArgumentError for another type, which only a program can give, or an unknown word."""
    for field in fields(args):
        value = getattr(args, field.name)
        kind = field.type if field.type in (bool, int, float) else str
        if not isinstance(value, (int, float) if kind is float else kind):
            raise ArgumentError(f"{field.name} is {value!r}; give {kind.__name__}(...)")
        choices = get_args(field.type)  # of a Literal
        if choices and value not in choices:
            raise ArgumentError(f"{field.name} is none of {', '.join(choices)}")


def check_common_args(args):
    """Raise ArgumentError for a value out of its range, an unknown task or an absent device."""
    if not (args.env_id or args.dataset_path):
        raise ArgumentError("neither --env-id nor --dataset-path is given; name one")
    largest = {"seed": 2**63 - 1, "num_threads": 1024, "learning_rate": 1, "tau": 1} | LARGEST
    largest["divergence_bound"] = math.inf
    counts = ("num_", "batch_", "hidden_", "log_", "checkpoint_", "ema_every")
    check_types(args)
    for name, value in vars(args).items():
        low = int(name.startswith(counts) and name != "num_holdout")
        if name == "batch_size":  # a single row has no std(A)
            low = 2
        high = largest.get(name, 10**9)
        if name.startswith("reward_"):
            low, high = -1e12, 1e12
        if not isinstance(value, str) and not low <= value <= high:  # also refuses NaN
            flag = name.replace("_", "-")
            raise ArgumentError(f"--{flag} is {value}; give a number from {low} to {high}")
    if args.action_units == "env" and not args.env_id:
        raise ArgumentError("--action-units env needs --env-id: whose units would they be?")
    if args.env_id or args.track:
        try:
            tasks().check_run(args.env_id, args.track)
        except ValueError as error:
            raise ArgumentError(str(error)) from error
    check_device(args.device)
    if args.compile and torch.__version__ < "2.11":
        raise ArgumentError(f"--compile needs PyTorch 2.11 or newer, this is {torch.__version__}")


def parse_args(argv) -> Args:
    """The command line, read twice: first for what the defaults depend on, then with them."""
    words = [word for word in argv if word not in ("-h", "--help")]
    empty = [flag for flag, value in itertools.pairwise(words) if not value]
    empty += [word[:-1] for word in words if re.fullmatch("--[-_a-z]+=", word)]
    for flag in empty:
        print(f"warning: {flag} is empty, as if it were not given", file=sys.stderr)
    start = Args(num_updates=0)  # 0: not given
    given, unknown = tyro.cli(Args, args=words, default=start, return_unknown_args=True)
    if {"true", "false"} & {word.lower() for word in unknown}:
        raise ArgumentError(f"{' '.join(unknown)}: a switch takes no value; give --x or --no-x")
    if given.resume:
        return tyro.cli(Args, args=argv, default=resume_args(given.resume))
    decisive = {name: getattr(given, name) for name in DECISIVE}
    return tyro.cli(Args, args=argv, default=default_args(**decisive))


# --- end shared ---
# ------------------------------------------ checkpoint ------------------------------------------
CHANGEABLE = {"device", "seed", "num_steps", "eval_actor"}  # by load_policy
# --- shared: checkpoint ---
FORMAT = 2  # of a checkpoint


def write_file(path, content: bytes):
    """Write all or nothing: the old file stays until the new one is on the disk."""
    unfinished = path.with_name(path.name + ".partial")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # a full disk, say
        with contextlib.suppress(OSError):  # on a file system that is read-only now
            unfinished.unlink()
        raise OSError(f"{path} cannot be written ({error}); what was there is kept") from error
    os.replace(unfinished, path)


def write_json(path, content):
    """Write all or nothing. JSON knows no NaN (null) and no infinity ("inf", "-inf")."""
    words = {"NaN": None, "Infinity": "inf", "-Infinity": "-inf"}
    clean = json.loads(json.dumps(content), parse_constant=words.get)
    write_file(path, json.dumps(clean, indent=1, allow_nan=False).encode())


def save_checkpoint(path, state):
    """Write the state; the checkpoint before it becomes checkpoint.previous.pt."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    fresh = path.with_name(f"{path.name}.new")
    write_file(fresh, buffer.getvalue())
    if path.exists():
        os.replace(path, path.with_suffix(".previous.pt"))
    os.replace(fresh, path)


def whole_archive(file):
    """A checkpoint's bytes, packed anew from members whose names and checksums hold; torch.load
    checks neither, and takes a tensor for an empty folder if one bit of the directory flips."""
    if not file.is_file():  # to open a pipe would wait for ever
        raise FileNotFoundError(file)
    buffer = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(buffer, "w") as packed:
        for member in archive.infolist():
            packed.writestr(member.filename, archive.read(member))
    buffer.seek(0)
    return buffer


def load_checkpoint(path):
    """The state in a checkpoint or in the newest whole one of a run directory, else InputError."""
    path = Path(os.path.expanduser(path))
    both = [path / "checkpoint.pt", path / "checkpoint.previous.pt"]
    unusable = []
    for file in both if path.is_dir() else [path]:
        try:
            state = torch.load(whole_archive(file), map_location="cpu", weights_only=True)
            break
        except pickle.UnpicklingError:
            raise InputError(f"checkpoint {file} is refused: it holds more than weights") from None
        except Exception:  # of many kinds
            unusable.append(f"{file} is {'damaged' if file.is_file() else 'absent'}")
    else:
        reason = f"name a run directory with one ({', '.join(unusable)})"
        raise ArgumentError(f"{path} holds no whole checkpoint; {reason}")
    for line in unusable:
        print(f"warning: checkpoint {line}", file=sys.stderr)
    results = state.get("results") if isinstance(state, dict) else None
    if not isinstance(results, dict) or "algorithm" not in results:
        raise InputError(f"checkpoint {file} is refused: no run has saved it")
    if results["algorithm"] != Path(__file__).stem:
        raise InputError(f"checkpoint {file} is of {results['algorithm']}.py, not of this script")
    if state.setdefault("format", 1) > FORMAT:
        raise InputError(f"checkpoint {file} is of a newer version of this script; use that")
    if state["format"] == 1:
        import_module("old_checkpoints").upgrade(state)
    return state


def saved_args(state) -> Args:
    """The arguments in a checkpoint, also of an older version of this script."""
    saved = OLDER | state["results"]["args"]
    known = {field.name for field in fields(Args)}
    unknown = sorted(saved.keys() - known)
    if unknown:
        print(f"arguments of an older version left out: {unknown}", file=sys.stderr)
    return Args(**{name: saved[name] for name in saved.keys() & known})


def load_networks(state, args):
    """The networks in a checkpoint, less those that args (--num-candidates 1, say) do without."""
    nets = make_networks(args, *state["dims"]).to(args.device)
    weights = {key: w for key, w in state["nets"].items() if key.split(".")[0] in nets}
    if weights.keys() != nets.state_dict().keys():
        raise ArgumentError("the run has no critic to choose among candidates; give 1")
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise InputError("the run has diverged: weights of its checkpoint are not finite")
    nets.load_state_dict(weights)
    about = state["results"]["dataset"]
    if "action_bounds" not in about:  # of an older version
        about |= import_module("old_checkpoints").action_units(state["results"]["env_id"])
    nets["actor"].action_bounds = np.float32(about["action_bounds"])
    return nets


def load_policy(checkpoint, **changes):
    """act(obs), NumPy (obs_dim,) -> (action_dim,) in the environment's units, of a run, on the CPU.
    changes: of CHANGEABLE (device="cuda"); ArgumentError for others and for bad values."""
    state = load_checkpoint(Path(checkpoint))
    if TASKS_FOLDER.is_dir():
        tasks().warn_of_divergence(checkpoint, state["results"]["update"])
    if not changes.keys() <= CHANGEABLE:
        raise ArgumentError(f"{sorted(changes)}: only {sorted(CHANGEABLE)} can be changed")
    args = replace(saved_args(state), **{"device": "cpu"} | changes)
    args = replace(args, device=find_device(args.device), track=False, compile=False)
    check_args(replace(args, env_id="", action_units="auto", dataset_path="-", resume="-"))
    return make_act(load_networks(state, args), args, args.seed)


# --- end shared ---
# ------------------------------------------- training -------------------------------------------
# --- shared: train ---
VARIANT = ""  # the ablation that has replaced a function of this script
FREE = {"device", "num_threads", "dataset_path", "num_updates", "compile", "cuda_graphs"}
FREE |= {"checkpoint_freq", "log_freq", "tensorboard", "track", "wandb_project", "wandb_entity"}


def resume_args(run, state=None):
    """The saved arguments of a run (a directory or checkpoint); state: what it holds, if loaded."""
    path = Path(os.path.expanduser(run))
    run_dir = path if path.is_dir() else path.parent
    saved = saved_args(state or load_checkpoint(path))
    return replace(saved, resume=str(path), run_dir=str(run_dir))


def check_resume(args, state):
    """ArgumentError where args change what a resume cannot -> the arguments to go on with."""
    saved = resume_args(args.resume, state)
    args = replace(args, resume=saved.resume)  # RUN/ and ~/RUN are one run
    if not args.run_dir:  # of a program, which did not begin with resume_args
        eval_freq = args.eval_freq or saved.eval_freq
        args = replace(args, run_dir=saved.run_dir, eval_freq=eval_freq)
    changed = {key for key, value in vars(saved).items() if getattr(args, key) != value}
    refused = changed - FREE  # these a resume may change
    if refused:
        flags = [f"--{key.replace('_', '-')}" for key in sorted(refused)]
        reason = "--resume keeps the run's arguments (a program takes them from resume_args)"
        raise ArgumentError(f"{reason}; drop {', '.join(flags)}")
    variant = state["results"].get("variant", VARIANT)  # format 1 does not say
    if variant != VARIANT:
        command = state["results"].get("command", "what began it")
        raise ArgumentError(f"{args.resume} is a run of {variant!r}; go on with: {command}")
    done = state["results"]["update"]
    if args.num_updates < done or (args.num_updates == done and "num_updates" in changed):
        reason = f"{args.resume} has made {done}; give more"
        raise ArgumentError(f"--num-updates {args.num_updates}: {reason}")
    ended = state["results"]["status"] == "finished" or done == args.num_updates
    if TASKS_FOLDER.is_dir():
        try:
            end = done if ended else args.num_updates
            tasks().check_resumed(args.resume, load_checkpoint, done, end)
        except ValueError as error:
            raise ArgumentError(str(error)) from error
    if ended:
        print(f"{args.resume} has ended at update {done}: nothing to train", file=sys.stderr)
        args = replace(args, num_updates=saved.num_updates)
    elif "num_updates" in changed:
        print("warning: schedules such as N(k) follow the new --num-updates", file=sys.stderr)
    if saved.compile and args.device == "cpu" and saved.device != "cpu":
        print("on the CPU: --no-compile --no-cuda-graphs", file=sys.stderr)
        args = replace(args, compile=False, cuda_graphs=False)
    return args


def start(args):
    """The arguments, checked and complete, and the checkpoint to go on from or None."""
    args = replace(args, device=find_device(args.device))
    state = load_checkpoint(Path(args.resume)) if args.resume else None
    if state:
        args = check_resume(args, state)
    check_args(args)
    args = replace(args, **json.loads(json.dumps(asdict(args))))  # no np.float64, no enum
    with contextlib.suppress(ModuleNotFoundError):  # where the script was copied alone
        check = import_module("idle_flags").check
        fault = "" if VARIANT else check(Path(__file__).stem, args, default_args, DECISIVE)
        if fault and not state:
            raise ArgumentError(fault)
    if args.tensorboard and TASKS_FOLDER.is_dir():
        tasks().check_tensorboard()
    if args.dataset_path:  # absolute: a resume may start in another folder
        path = os.path.abspath(os.path.expanduser(args.dataset_path))
        args = replace(args, dataset_path=path)
    eval_freq = args.eval_freq or max(1, args.num_updates // 20)
    return replace(args, run_dir=os.path.expanduser(args.run_dir), eval_freq=eval_freq), state


def new_run_dir(args):
    """Make runs/TASK__SCRIPT__SEED__TIME, of this run alone: others may start in this second."""
    name = f"{args.env_id or Path(args.dataset_path).stem}__{Path(__file__).stem}__{args.seed}"
    path = Path("runs", re.sub("[^-_.0-9a-zA-Z]", "-", f"{name}__{int(time.time())}"))
    while True:
        try:
            path.mkdir(parents=True)
            return str(path)
        except FileExistsError:
            path = path.with_name(path.name + "-2")
        except OSError as error:
            raise InputError(f"{path} cannot be made; name a --run-dir ({error})") from error


def new_results(args, dataset):
    """What results.json holds at the start of a run; without offline_tasks less."""
    script = Path(__file__).resolve()
    on_gpu = args.device != "cpu"
    results = {
        "algorithm": script.stem,
        "variant": VARIANT,
        "status": "running",
        "env_id": args.env_id or None,
        "seed": args.seed,
        "dataset": dataset,
        "num_updates": args.num_updates,
        "machine": torch.cuda.get_device_name(args.device) if on_gpu else platform.platform(),
        "evaluations": [],
        "losses": [],
        "last": None,
        "best": None,
        "best_by": None,
        "update": 0,
        "seconds": 0.0,
        "evaluation_seconds": 0.0,
        "milliseconds_per_action": None,
    }
    if TASKS_FOLDER.is_dir():
        results |= tasks().provenance(script)
    return results


@contextlib.contextmanager
def running(args, results):
    """Hold the run directory -> TensorBoard's writer or None, and a list that receives SIGINT and
    SIGTERM (a second one ends the process). An exception is recorded in results.json."""
    run_dir = Path(args.run_dir)
    signals = []
    writer = None

    def receive(number, frame):
        signals.append(number)
        signal(number, SIG_DFL)
        print("\nstopping after this update or evaluation; once more ends at once", file=sys.stderr)

    with contextlib.ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(run_dir / ".lock", timeout=0))
            tempfile.TemporaryFile(dir=run_dir).close()  # a lock of before needs no right to write
        except OSError as error:
            reason = f"--run-dir {run_dir} is in use or unusable; free it, name another"
            raise InputError(f"{reason}, or resume a copy of it ({error})") from error
        update = results["update"]
        if update and load_checkpoint(Path(args.resume))["results"]["update"] != update:
            raise InputError(f"{args.resume} has gone on meanwhile; resume it again")
        if not args.resume and any(run_dir.glob("checkpoint*.pt")):  # perhaps the previous alone
            raise InputError(f"--run-dir {run_dir} holds a run; --resume it or name another")
        if not args.resume and TASKS_FOLDER.is_dir() and tasks().ended_results(run_dir):
            raise InputError(f"--run-dir {run_dir} holds the results of a run; name another")
        with contextlib.suppress(ValueError):  # signals reach the main thread only
            for number in (SIGINT, SIGTERM):
                stack.callback(signal, number, signal(number, receive))
        results["args"] = asdict(args)
        if args.track:  # before the writer, which it watches
            stack.enter_context(tasks().tracking(run_dir, results["args"]))
        if args.tensorboard or args.track:
            tensorboard = import_module("torch.utils.tensorboard")  # takes a second
            writer = tensorboard.SummaryWriter(run_dir, purge_step=results["update"] + 1)
            stack.enter_context(writer)
        write_results(results, args)
        try:
            yield writer, signals
        except Exception:
            results["status"] = "failed"
            write_results(results, args)
            raise


def write_results(results, args):
    """results.json, all or nothing."""
    results["updated"] = int(time.time())
    results["updates_per_second"] = results["update"] / max(results["seconds"], 1e-9)
    write_json(Path(args.run_dir) / "results.json", results)


def diverged(means, results, bound):
    """Whether a mean is not finite or, of Q, beyond the bound (0: any may); results say which."""
    bad = {}
    for name, mean in means.items():
        largest = bound if "q" in name else math.inf
        if bound and not abs(mean) < largest:  # also NaN
            bad[name] = mean
    if bad:
        results |= {"status": "diverged", "diverged": bad}
    return bool(bad)


def record(writer, means, since, row, results, args):
    """Means over the updates after `since`, and the evaluation, if any, to results, TensorBoard and
    console -> whether to stop. An evaluation's losses are means since the evaluation before."""
    update = results["update"]
    before = results["last"]["update"] if results["last"] else 0
    share = (update - since) / (update - before)
    number = len(results["evaluations"])
    earlier = (results["losses"][number:] or [means])[0]
    mixed = {name: earlier[name] + share * (means[name] - earlier[name]) for name in means}
    results["losses"][number:] = [mixed]
    scalars = {f"losses/{name}": mean for name, mean in means.items()}
    scalars["charts/learning_rate"] = args.learning_rate
    scalars["charts/updates_per_second"] = update / max(results["seconds"], 1e-9)
    if row:
        results["evaluations"].append(row)
        results |= select(results, args)
        known = {name: value for name, value in row.items() if isinstance(value, float)}
        scalars |= {f"eval/{name}": value for name, value in known.items()}
        text = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
        tqdm.tqdm.write(f"{update}: {text}")
    if writer:
        for name, value in scalars.items():
            writer.add_scalar(name, value, update)
    if row or time.time() - results["updated"] > 10:
        write_results(results, args)
    return results["status"] != "running"


def finish(nets, obs_dim, signals, results, args):
    """The end of a run: its status, the time of an action, results.json."""
    if results["status"] == "running":
        done = results["update"] >= args.num_updates
        results["status"] = "finished" if done else "interrupted"
    act = make_act(nets, args, args.seed)
    seconds = timeit.repeat(partial(act, np.zeros(obs_dim)), number=1, repeat=50)
    results["milliseconds_per_action"] = 1e3 * median(seconds)
    codes = {"finished": 0, "diverged": 1, "interrupted": 128 + sum(signals[:1])}
    results["exit_code"] = codes[results["status"]]
    write_results(results, args)
    show_end(nets, results, args)


def show_end(nets, results, args):
    """What is said and drawn of a run that has ended."""
    if not TASKS_FOLDER.is_dir():
        print(f"{results['status']} at update {results['update']}: {args.run_dir}/results.json")
        return
    tasks().say_end(results)
    if results["status"] != "diverged":
        act = make_act(nets, args, args.seed)
        value = state_value(nets, args)
        tasks().plot_run(args.run_dir, args.env_id, results["evaluations"], act, args.seed, value)


def read_data(args, state):
    """load_data, with InputError for bad data and for others than those a run began with."""
    try:
        data, holdout, dataset = load_data(args)
    except ValueError as error:
        raise InputError(str(error)) from error
    then = state["results"]["dataset"] if state else dataset
    if then["sha256"] != dataset["sha256"]:
        raise InputError(f"dataset {dataset['path']} is not the one that the run began with")
    if then["transitions"] != dataset["transitions"]:
        rows = f"{then['transitions']} transitions then, {dataset['transitions']} now"
        raise InputError(f"{rows}; resume with the files (offline_tasks/) that the run began with")
    if not (args.env_id or len(holdout["actions"])):
        reason = "no --env-id, and no transitions held out (--num-holdout, a tenth at most)"
        print(f"warning: nothing will be measured: {reason}", file=sys.stderr)
    return data, holdout, dataset


def new_networks(args, dims, data, dataset):
    """Networks that know the scale of the observations and the units of the actions."""
    nets = make_networks(args, *dims).to(args.device)
    nets["actor"].action_bounds = np.float32(dataset["action_bounds"])
    if args.normalize_observations:
        standardize(nets, data)
    return nets


def restore(state, nets, optimizers, generator, results, args):
    """Put a checkpoint into networks, optimizers and generator -> its results, after what a new
    run's would be."""
    nets.load_state_dict(state["nets"])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    if generator.device.type == state["device"]:
        generator.set_state(state["generator"])
    else:
        generator.manual_seed(args.seed + state["results"]["update"])
        kinds = f"{generator.device.type} after {state['device']}"
        print(f"{kinds}: no longer bit-equal, with other random numbers", file=sys.stderr)
    now = {"num_updates": args.num_updates, "dataset": results["dataset"]}
    if TASKS_FOLDER.is_dir():
        now |= tasks().since_resumed(state["results"], results)
    return results | state["results"] | now


def save_run(nets, dims, optimizers, generator, sums, since, results, args):
    """Everything that a resume needs, to checkpoint.pt."""
    state = {
        "format": FORMAT,
        "dims": dims,
        "nets": nets.state_dict(),
        "optimizers": {name: item.state_dict() for name, item in optimizers.items()},
        "generator": generator.get_state(),
        "device": generator.device.type,
        "sums": sums,
        "since": since,
        "results": results,
    }
    save_checkpoint(Path(args.run_dir) / "checkpoint.pt", state)


def ended_results(args, state):
    """results.json of a resumed run that has nothing left to do, which stays as it is, its pictures
    drawn again; else {}."""
    if not (state and TASKS_FOLDER.is_dir()):
        return {}
    results = tasks().ended_results(args.run_dir)
    saved = state["results"]
    same = {"status": "finished", "num_updates": args.num_updates, "update": saved["update"]}
    places = [held.get("args", {}).get("dataset_path") for held in (saved, results)]
    if results | same != results or args.dataset_path not in places:
        return {}  # there is something to do, or the dataset's new place to record
    show_end(load_networks(state, args), results, args)
    return results


def train(args):
    """Train, evaluate and save -> what results.json holds; InputError before training starts."""
    args, state = start(args)
    ended = ended_results(args, state)
    if ended:
        return ended
    data, holdout, dataset = read_data(args, state)
    args = replace(args, run_dir=args.run_dir or new_run_dir(args))
    torch.set_num_threads(args.num_threads)
    torch.manual_seed(args.seed)
    generator = torch.Generator(args.device).manual_seed(args.seed)
    dims = [data[key].shape[1] for key in ("observations", "actions")]
    nets = new_networks(args, dims, data, dataset)
    optimizers = make_optimizers(nets, args)
    results = new_results(args, dataset)
    nothing = torch.zeros((), device=args.device)
    sums, since = nothing, 0  # of the metrics since the last line of the log, which was at `since`
    if state:
        results = restore(state, nets, optimizers, generator, results, args)
        sums, since = state["sums"].to(args.device), state["since"]
    step = update_networks
    with running(args, results) as (writer, signals):
        done = results["update"]
        end = args.num_updates if results["status"] == "running" else done  # it stopped early
        for update in tqdm.trange(done + 1, end + 1, initial=done, total=args.num_updates):
            started = time.perf_counter()
            inputs = draw_inputs(update - 1, data, generator, args)
            metrics = step(nets, optimizers, data, inputs, args)
            if args.compile and step is update_networks:
                step = compiled_update(data, optimizers, args)  # Adam's averages exist from here on
            sums = sums + torch.stack(list(metrics.values()))  # on the device until a line is due
            results["update"] = update
            last = update == args.num_updates
            stopping = bool(signals)  # one that arrives from here on waits for the next update
            evaluation_due = last or update % args.eval_freq == 0
            log_due = evaluation_due or update % args.log_freq == 0
            save_due = last or stopping or update % args.checkpoint_freq == 0
            if log_due or save_due:
                means = dict(zip(metrics, (sums / (update - since)).tolist(), strict=True))
                if diverged(means, results, args.divergence_bound):
                    break
            results["seconds"] += time.perf_counter() - started
            if log_due:
                started = time.perf_counter()
                row = evaluate(nets, args, holdout, update) if evaluation_due else None
                results["evaluation_seconds"] += time.perf_counter() - started
                stopping |= record(writer, means, since, row, results, args)
                sums, since = nothing, update
            if save_due or stopping:
                save_run(nets, dims, optimizers, generator, sums, since, results, args)
            if stopping:
                break
        finish(nets, dims[0], signals, results, args)
    return results


def main():
    """Train -> exit code: 0 finished, 1 diverged or bad input, 2 bad argument, 128 + signal."""
    if hasattr(sys.stdout, "reconfigure"):  # letters that it lacks are escaped, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return train(parse_args(sys.argv[1:]))["exit_code"]
    except (InputError, OSError, ImportError, UnicodeError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        hint = "; what was saved is whole: make room, then --resume the run" if full else ""
        print("error:", " ".join(str(error).split()) + hint, file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    except (MemoryError, RuntimeError) as error:
        if "allocate" not in str(error):
            raise
        print("error: memory is full; smaller: --batch-size, --hidden-dim, counts", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the training, which ends in good order
        return 128 + SIGINT


# --- end shared ---
if __name__ == "__main__":
    sys.exit(main())
