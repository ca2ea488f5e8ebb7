# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "numpy>=1.26", "gymnasium[mujoco]>=1.0,<2", "mujoco>=3.2,<4",
# "h5py>=3.10", "tyro>=0.9", "tensorboard>=2.15", "matplotlib>=3.8", "tqdm>=4.66", "filelock>=3.13"]
# ///
"""Consistency-AC: offline reinforcement learning with a consistency policy; --eta 0: its cloning.

    python consistency_ac.py                                    # 2-D multi-goal task, minutes
    python consistency_ac.py --env-id antmaze-umaze-v0          # a D4RL task, with its own values

Paper: "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning" (Ding
and Jin 2024). The policy maps noisy actions of any noise level to clean ones in a single step.
Time runs from data to noise: x_t = a + t z with z ~ N(0, I), sigma_min <= u < t <= sigma_max.

    ConsistencyModel      f(x, t) = c_skip(t) x + c_out(t) F(x, t, s), and f(x, sigma_min) = x
    num_grid_points       N(k), points of the time grid at update k
    consistency_loss      L_c = E[100/(t - u) (f(a + t z, t) - f_ema(a + u z, u))^2], t next to u
    sample_actions        K steps: denoise, add noise of a lower level, denoise   num_steps     K
    q_loss                L_q = -E[Q_i(s, a')] / E|Q_j(s, a')|, i != j; actor loss = L_c + eta L_q

Against the reference code: without a flag this script does what that code does when it runs.
1. It also trains the critic with eta = 0 and acts by it; so here, unless with --num-candidates 1.
2. It acts with the online actor: the action among 50 by softmax of the smaller Q of the target
   critic. --num-candidates 1 is the policy itself, --eval-actor ema the averaged actor.
3. The averaged actor, which is the teacher, is the initial one for 1000 updates and then follows
   every fifth update (--ema-start 1 --ema-every 1: at once).
4. N(k) restarts every 50,000 updates, that is at each of its evaluations (--schedule once: never).
   N(k) = ceil(sqrt(k/K (150^2 - 2^2) + 2^2) - 1) + 1; that of consistency models has 151^2.
5. The factor 100/(t - u) is always there: the per-task switch, off for its locomotion tasks medium
   and medium-replay, never reaches the loss (--no-scale-consistency-loss: off).
6. Its Q norm does not normalise L_q, which always is, but divides a batch of TD targets by their
   standard deviation (--q-norm).
7. F sees x and t as they are: no c_in, no logarithm of t, at noise levels up to 80.
8. Its cosine decay of the learning rate moves once an evaluation, by 0.1 % in all: none here.
9. Offline model selection ("selected" in results.json) takes the evaluation with the k-th lowest
   L_c. L_c is the mean since the line of the log before; the reference's is since the evaluation
   before (--log-freq).
10. Rows of its table for Adroit and Kitchen are absent, as d4rl_tasks.py has no such environments.
   multigoal has eta = 0 and one candidate by default, to compare the four scripts' cloning.
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
    """Consistency-AC. [x]: the value by default, [task]: of the reference code's table."""

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
    critic_learning_rate: float = 3e-4  # Adam's, of the critic
    gamma: float = 0.99  # discount
    max_q_backup: bool | None = None  # True: the best of 10 next actions in the TD target [task]
    eta: float | None = None  # weight of the Q-loss; 0: cloning [task]
    q_norm: bool | None = None  # True: TD targets over their standard deviation in a batch [task]
    num_candidates: int | None = None  # actions to choose from by Q when acting [50; multigoal: 1]
    num_steps: int | None = None  # K, steps of the sampler [task]
    schedule: Literal["restarting", "once"] = "restarting"  # N(k): every 50,000 updates anew
    scale_consistency_loss: bool = True  # by 100 / (t - u)
    eval_actor: Literal["online", "ema"] = "online"  # which actor acts
    ema_start: int = 1000  # updates before the averaged actor begins to follow
    ema_every: int = 5  # updates between its steps
    top_k: int | None = None  # k of the offline model selection, from 0 [task]
    sigma_max: float = 80.0  # largest noise level
    sigma_min: float = 0.002  # smallest noise level


DEFAULTS = dict(
    num_updates=100_000, num_eval_episodes=10, reward_scale=1.0, reward_shift=0.0,
    learning_rate=3e-4, grad_norm=0.0, max_q_backup=False, eta=1.0, num_candidates=50, top_k=1,
    num_holdout=2000, q_norm=False, num_steps=2,
)  # fmt: skip
DIFFERENCES = {}  # of a paper's letter that is one flag; here each has its own
# the reference code's table
TASK_FIELDS = ("learning_rate", "eta", "num_steps", "q_norm", "max_q_backup", "grad_norm", "top_k")
TASKS = {
    "halfcheetah-medium": (3e-4, 1, 2, False, False, 9, 2),
    "hopper-medium": (3e-4, 0.1, 2, False, False, 9, 1),
    "walker2d-medium": (3e-4, 1, 5, True, False, 1, 3),
    "halfcheetah-medium-replay": (3e-4, 1, 2, False, False, 2, 2),
    "hopper-medium-replay": (3e-4, 0.1, 2, False, False, 4, 5),
    "walker2d-medium-replay": (3e-4, 0.1, 5, False, False, 4, 2),
    "halfcheetah-medium-expert": (3e-4, 1, 2, False, False, 7, 4),
    "hopper-medium-expert": (3e-4, 1, 2, False, False, 5, 5),
    "walker2d-medium-expert": (3e-4, 1, 2, True, False, 5, 1),
    "antmaze-umaze": (3e-4, 0.01, 2, True, False, 2, 4),
    "antmaze-umaze-diverse": (3e-4, 0.01, 2, True, True, 3, 4),
    "antmaze-medium-play": (1e-3, 0.01, 2, False, True, 2, 8),
    "antmaze-medium-diverse": (3e-4, 0.01, 2, True, True, 1, 1),
    "antmaze-large-play": (3e-4, 4.5, 2, True, True, 10, 2),
    "antmaze-large-diverse": (3e-4, 3.5, 2, True, True, 2, 5),
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
SIGMA_DATA = 0.5  # standard deviation of the actions that the coefficients assume
EVALUATION_STEPS = {1, 2}  # of the sampler, besides num_steps: where the energy score is measured


class ConsistencyModel(nn.Module):
    """The actor: f(x, t), the clean action. obs (B, obs_dim), x (..., B, action_dim), t (B, 1) or
    (1, 1) -> (..., B, action_dim)"""

    def __init__(self, obs_dim: int, action_dim: int, hidden_dim=256, num_steps=2, sigma_min=0.002):
        super().__init__()
        self.noise_dim = max(num_steps, *EVALUATION_STEPS) * action_dim  # noise at every step
        self.sigma_min = sigma_min
        self.register_buffer("frequencies", torch.logspace(0, -4, 8), persistent=False)
        self.embed = nn.Sequential(nn.Linear(16, 32), Mish(), nn.Linear(32, 16))
        self.net = mlp(action_dim + 16 + obs_dim, hidden_dim, action_dim)

    def forward(self, obs, x, t):
        angles = t * self.frequencies
        embedding = self.embed(torch.cat((angles.sin(), angles.cos()), 1))
        obs, embedding = (v.expand(*x.shape[:-1], -1) for v in (obs, embedding))
        c_skip, c_out = boundary_coefficients(t, self.sigma_min)
        return c_skip * x + c_out * self.net(torch.cat((x, embedding, obs), -1))


def boundary_coefficients(t, sigma_min: float):
    """c_skip and c_out, 1 and 0 at t = sigma_min (consistency models, Song et al. 2023, App. C)."""
    gap = t - sigma_min
    c_skip = SIGMA_DATA**2 / (gap**2 + SIGMA_DATA**2)
    return c_skip, SIGMA_DATA * gap * (t**2 + SIGMA_DATA**2) ** -0.5


def num_grid_points(update: int, args: Args, s0: int = 2, s1: int = 150) -> int:
    """N(k), the number of points of the time grid at an update, from s0 up to s1."""
    period = args.num_updates if args.schedule == "once" else min(50_000, args.num_updates)
    squared = update % period / period * (s1**2 - s0**2) + s0**2
    return math.ceil(math.sqrt(squared) - 1) + 1


def karras_grid(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> torch.Tensor:
    """n noise levels from sigma_min up to sigma_max, (n,) (EDM, Eq. 5)."""
    grid = torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), n, dtype=torch.float64)
    return (grid**rho).clamp(sigma_min, sigma_max).to(torch.get_default_dtype())


@lru_cache
def time_grid(n: int, args: Args) -> torch.Tensor:
    """The n grid points, (n,)."""
    return karras_grid(n, args.sigma_min, args.sigma_max).to(args.device)


def consistency_loss(actor, actor_ema, obs, actions, noise, t, u, args: Args):
    """L_c over batch and action components, a scalar; x_t and x_u share the noise z."""
    x_t, x_u = actions + t * noise, actions + u * noise
    with torch.no_grad():
        target = actor_ema(obs, x_u, u)
    error = (actor(obs, x_t, t) - target).square()
    if args.scale_consistency_loss:
        error = error * 100 / (t - u)
    return error.mean()


# --- shared: Q-loss ---
def q_loss(critic, obs, new_actions, coin):
    """L_q: minus the mean of the Q that the coin (1,), 0 or 1, shows, over the other's mean
    absolute value, a scalar."""
    q = critic(obs, new_actions)
    return -(q.mean(1) / q.detach().abs().mean(1).flip(0))[coin].sum()


# --- end shared ---


@lru_cache
def sampling_times(num_steps: int, args: Args) -> torch.Tensor:
    """The noise levels at which the sampler denoises, (K,), equally spaced from sigma_max to 2."""
    return torch.linspace(args.sigma_max, 2, num_steps, device=args.device)


def sample_actions(actor, obs, noise, times, sigma_min: float) -> torch.Tensor:
    """Denoise from t_1 z_1, then noise again to t_i and denoise: obs (B, obs_dim), noise
    (K, ..., B, action_dim), times (K,) descending -> actions like noise[0], in [-1, 1]."""
    x = actor(obs, times[0] * noise[0], times[:1, None])
    for i in range(1, len(times)):
        x = x + (times[i] ** 2 - sigma_min**2).sqrt() * noise[i]
        x = actor(obs, x, times[i : i + 1, None])
    return x.clamp(-1, 1)


@torch.no_grad()
def policy_samples(nets, obs, noise, num_steps: int, args: Args) -> torch.Tensor:
    """Actions for obs (B, obs_dim), chosen by no critic. noise (..., B, noise_dim) has that of
    every step of the sampler -> (..., B, action_dim)"""
    actor = nets["actor_ema" if args.eval_actor == "ema" else "actor"]
    slices = max(args.num_steps, *EVALUATION_STEPS)
    noise = noise.unflatten(-1, (slices, -1)).movedim(-2, 0)
    return sample_actions(actor, obs, noise, sampling_times(num_steps, args), args.sigma_min)


# --- shared: critic ---
class Critic(nn.Module):
    """Two Q: obs (B, obs_dim), actions (..., B, action_dim) -> (2, ..., B)."""

    def __init__(self, obs_dim: int, action_dim: int, hidden_dim=256):
        super().__init__()
        self.net = mlp(obs_dim + action_dim, hidden_dim, 1, lambda i, o: EnsembleLinear(2, i, o))

    def forward(self, obs, actions):
        pairs = torch.cat((obs.expand(*actions.shape[:-1], -1), actions), -1)
        return self.net(pairs.flatten(0, -2).expand(2, -1, -1)).view(2, *actions.shape[:-1])


def td_target(critic_target, rewards, terminals, next_obs, next_actions, gamma) -> torch.Tensor:
    """r + gamma (1 - terminal) min_j max_n Q_target_j(s', a'_n), (B,) (Eq. 16, it has no mask)."""
    q = critic_target(next_obs, next_actions).detach()
    return rewards + gamma * (1 - terminals) * q.amax(1).amin(0)


# --- end shared ---
def make_networks(args: Args, obs_dim: int, action_dim: int) -> nn.ModuleDict:
    """The actor, two critics and their averages; plain cloning has no critic."""
    sizes = obs_dim, action_dim, args.hidden_dim
    actor = ConsistencyModel(*sizes, args.num_steps, args.sigma_min)
    nets = nn.ModuleDict({"actor": actor, "actor_ema": deepcopy(actor)})
    if args.eta > 0 or args.num_candidates > 1:
        nets["critic"] = Critic(obs_dim, action_dim, args.hidden_dim)
        nets["critic_target"] = deepcopy(nets["critic"])
    return nets


def draw_inputs(update: int, data: dict, generator, args: Args) -> dict[str, torch.Tensor]:
    """A batch's rows and all else that is random or scheduled in an update, of fixed shapes."""
    grid = time_grid(num_grid_points(update, args), args)
    samples = 1 + (10 if args.max_q_backup else 1)  # for the actor's actions and the next ones
    shape = (args.batch_size, data["actions"].shape[1])
    own = {"generator": generator, "device": args.device}
    lower = torch.randint(len(grid) - 1, (args.batch_size, 1), **own)
    return {
        "rows": torch.randint(len(data["rows"]), shape[:1], **own),
        "t": grid[lower + 1], "u": grid[lower],
        "noise": torch.randn(shape, **own), "coin": torch.randint(2, (1,), **own),
        "normal": torch.randn(args.num_steps, samples, *shape, **own),
        "ema_rate": ema_rate(update, args), "times": sampling_times(args.num_steps, args),
    }  # fmt: skip


# --- shared: averages ---
def ema_rate(update: int, args: Args) -> torch.Tensor:
    """How far the averaged actor goes to the actor at an update (from 0), a scalar."""
    due = update >= args.ema_start and update % args.ema_every == 0
    return torch.full((), args.tau if due else 0.0, device=args.device)


def update_averages(nets, ema_rate, tau: float) -> None:
    """Move actor_ema by ema_rate and critic_target by tau."""
    actor = nets["actor"].parameters()
    for average, parameter in zip(nets["actor_ema"].parameters(), actor, strict=True):
        average.lerp_(parameter, ema_rate)
    if "critic" in nets:
        source = [*nets["critic"].parameters()]
        torch._foreach_lerp_([*nets["critic_target"].parameters()], source, tau)


# --- end shared ---


def update_networks(nets, optimizers, data, inputs, args: Args) -> dict[str, torch.Tensor]:
    """One update of the critic, the actor and the averages, no synchronisation -> metrics."""
    rows, metrics = data["rows"][inputs["rows"]], {}
    obs, actions = data["observations"][rows], data["actions"][rows]
    sampler = inputs["times"], args.sigma_min
    actor_noise, next_noise = inputs["normal"][:, 0], inputs["normal"][:, 1:]
    if "critic" in nets:
        rewards, terminals = data["rewards"][rows], data["terminals"][rows]
        next_obs, target_net = data["next_observations"][rows], nets["critic_target"]
        with torch.no_grad():
            next_actions = sample_actions(nets["actor_ema"], next_obs, next_noise, *sampler)
            target = td_target(target_net, rewards, terminals, next_obs, next_actions, args.gamma)
            target = target / (target.std() + 1e-6) if args.q_norm else target
        q = nets["critic"](obs, actions)
        loss = (q - target).square().mean(1).sum()
        norm = gradient_step(optimizers["critic"], nets["critic"], loss, args.grad_norm)
        metrics |= {"critic": loss, "critic_grad_norm": norm, "q_mean": q.mean()}
        metrics["target_q"] = target.mean()
    noise, t, u = inputs["noise"], inputs["t"], inputs["u"]
    loss = consistency_loss(nets["actor"], nets["actor_ema"], obs, actions, noise, t, u, args)
    metrics["bc"] = loss
    if args.eta > 0:  # the gradient goes through all steps of the sampler
        new_actions = sample_actions(nets["actor"], obs, actor_noise, *sampler)
        metrics["q"] = q_loss(nets["critic"], obs, new_actions, inputs["coin"])
        loss = loss + args.eta * metrics["q"]
    metrics["actor"] = loss
    norm = gradient_step(optimizers["actor"], nets["actor"], loss, args.grad_norm)
    with torch.no_grad():
        update_averages(nets, inputs["ema_rate"], args.tau)
    metrics["actor_grad_norm"] = norm
    return {name: metric.detach() for name, metric in metrics.items()}


def select(results: dict, args: Args) -> dict:
    """The evaluations that results.json names: the last, the best by score, else by energy, and
    the one that the reference code selects offline, by L_c."""
    rows = results["evaluations"]
    key, *_ = (k for k in ("normalized_score", "energy_score", "update") if rows[-1][k] is not None)
    ranked = sorted(rows, key=lambda row: row[key] or 0)
    chosen = {"last": rows[-1], "best": ranked[0 if key == "energy_score" else -1]}
    order = np.argsort([losses["bc"] for losses in results["losses"]], kind="stable")
    return chosen | {"selected": rows[order[min(args.top_k, len(order) - 1)]]}


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
