"""Updates per second and milliseconds per action of the four scripts, against a plain loop.

    python benchmarks/speed.py                    # CPU, one thread, Hopper's shapes, batch 256
    python benchmarks/speed.py --device cuda      # eager, compiled and CUDA graphs

Every contestant does a few updates in turn, round after round, in one process, so that a busy
machine slows all of them alike; a ratio is the median over the rounds of the ratio to the plain
loop in the same round. Times are the process's own CPU time (on CUDA: wall time, synchronised).
The plain loop is GTP written the way the code of Diffusion-QL and Consistency-RL is: data on the
CPU, two critics one after the other, no shared passes, four .item() an update.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import consistency_ac  # noqa: E402
import diffusion_ql  # noqa: E402
import gtp_bc  # noqa: E402
import gtp_offline  # noqa: E402

SCRIPTS = {m.__name__: m for m in (gtp_offline, gtp_bc, diffusion_ql, consistency_ac)}


def plain_mlp(in_dim, hidden_dim, out_dim):
    layers = [nn.Linear(in_dim, hidden_dim), nn.Mish()]
    for _ in range(2):
        layers += [nn.Linear(hidden_dim, hidden_dim), nn.Mish()]
    return nn.Sequential(*layers, nn.Linear(hidden_dim, out_dim))


class PlainTime(nn.Module):
    """The embedding of a time per row, (B, 1) -> (B, 16): sinusoids, computed anew each time."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Mish(), nn.Linear(32, 16))

    def forward(self, t):
        frequencies = torch.exp(torch.arange(8, device=t.device) * -(math.log(10_000) / 7))
        angles = 250 * torch.log(t) * frequencies[None]
        return self.net(torch.cat((angles.sin(), angles.cos()), dim=-1))


class PlainFlowMap(nn.Module):
    """gtp_offline.FlowMap as the code of Diffusion-QL would have it: a module for each time."""

    def __init__(self, obs_dim, action_dim, hidden_dim):
        super().__init__()
        self.embed_t, self.embed_s = PlainTime(), PlainTime()
        self.net = plain_mlp(action_dim + 32 + obs_dim, hidden_dim, action_dim)

    def phi(self, obs, x, t, s):
        sd = gtp_offline.SIGMA_DATA
        c_skip, c_in = sd**2 / (t**2 + sd**2), 1 / (t**2 + sd**2).sqrt()
        c_out = t * sd / (t**2 + sd**2).sqrt()
        inputs = torch.cat([c_in * x, self.embed_t(t), self.embed_s(s), obs], dim=1)
        return c_skip * x + c_out * self.net(inputs)

    def flow_map(self, obs, x, t, s):
        return (1 - s / t) * self.phi(obs, x, t, s) + s / t * x

    def inst_map(self, obs, x, t):
        return self.phi(obs, x, t, t)


class PlainLoop:
    """GTP with the default losses and V(s), and none of the techniques that make it fast."""

    def __init__(self, data, args, dims):
        self.data, self.args, (obs_dim, action_dim) = data, args, dims
        make_critic = lambda n: plain_mlp(n, args.hidden_dim, 1).to(args.device)  # noqa: E731
        self.actor = PlainFlowMap(obs_dim, action_dim, args.hidden_dim).to(args.device)
        self.actor_ema = deepcopy(self.actor)
        self.critics = nn.ModuleList(make_critic(obs_dim + action_dim) for _ in range(2))
        self.targets = deepcopy(self.critics)
        self.value = make_critic(obs_dim)
        adam = torch.optim.Adam
        self.optimizers = [adam(net.parameters(), 3e-4) for net in (self.critics, self.value)]
        self.actor_optimizer = adam(self.actor.parameters(), 3e-4)

    def sample(self, actor, obs):
        args, times = self.args, gtp_offline.sampling_times(self.args.num_steps, self.args)
        x = times[0] * torch.randn(len(obs), self.data["actions"].shape[1], device=args.device)
        for t, s in pairwise(times):
            rows = torch.ones(len(obs), 1, device=args.device)
            x = actor.flow_map(obs, x, t * rows, s * rows)
        return x.clamp(-1, 1)

    def update(self, k):
        args, device = self.args, self.args.device
        rows = np.random.randint(0, len(self.data["rewards"]), args.batch_size)
        names = ("observations", "actions", "rewards", "next_observations", "terminals")
        obs, actions, rewards, next_obs, terminals = (
            self.data[name][rows].to(device) for name in names
        )
        with torch.no_grad():
            pair = torch.cat((next_obs, self.sample(self.actor_ema, next_obs)), 1)
            q = torch.min(self.targets[0](pair), self.targets[1](pair)).squeeze(1)
            target = rewards + args.gamma * (1 - terminals) * q
        pair = torch.cat((obs, actions), 1)
        loss = sum(nn.functional.mse_loss(c(pair).squeeze(1), target) for c in self.critics)
        critic_loss = self.step(self.optimizers[0], self.critics, loss)
        with torch.no_grad():
            q = torch.min(self.critics[0](pair), self.critics[1](pair)).squeeze(1)
        value_loss = self.step(
            self.optimizers[1], self.value, nn.functional.mse_loss(self.value(obs).squeeze(1), q)
        )
        with torch.no_grad():
            advantage = q - self.value(obs).squeeze(1)
        weights = gtp_offline.advantage_weights(advantage, args.eta, args.max_weight)
        n = gtp_offline.num_grid_points(k, args.num_updates)
        grid, t_cdf = gtp_offline.time_grid(n, args)
        uniform, noise = torch.rand(len(obs), 3, device=device), torch.randn_like(actions)
        t, u, s = gtp_offline.sample_times(uniform, grid, t_cdf, args)
        nets = {"actor": self.actor, "actor_ema": self.actor_ema}
        loss, _ = gtp_offline.actor_loss(nets, obs, actions, noise, t, u, s, weights, args)
        actor_loss = self.step(self.actor_optimizer, self.actor, loss)
        for target, source in ((self.actor_ema, self.actor), (self.targets, self.critics)):
            for a, b in zip(target.parameters(), source.parameters(), strict=True):
                a.data.copy_(args.tau * b.data + (1 - args.tau) * a.data)
        return critic_loss, value_loss, actor_loss, q.mean().item()

    def step(self, optimizer, network, loss):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), max_norm=5.0)
        optimizer.step()
        return loss.item()


def contestant(module, args, data, dims):
    """A function that does update k of a script as its train does."""
    torch.manual_seed(0)
    generator = torch.Generator(args.device).manual_seed(0)
    nets = module.make_networks(args, *dims).to(args.device)
    rates = {"actor": args.learning_rate, "critic": 3e-4, "value": 3e-4}
    optimizers = {
        name: torch.optim.Adam(nets[name].parameters(), rate, fused=True)
        for name, rate in rates.items()
        if name in nets
    }
    step = module.update_networks

    def update(k):
        nonlocal step
        step(nets, optimizers, data, module.draw_inputs(k, data, generator, args), args)
        if args.compile and step is module.update_networks:  # as in train
            step = module.compiled_update(data, optimizers, args)

    return update


def make_args(module, device, **changes):
    """The script's own defaults for hopper-medium-expert-v2, gradient norm and all."""
    row = dict(zip(module.TASK_FIELDS, module.TASKS["hopper-medium-expert"], strict=True))
    row = {name: value for name, value in row.items() if hasattr(module.Args, name)}
    given = row | {"device": device, "dataset_path": "none", "num_updates": 100_000} | changes
    return module.resolve_args(module.Args(**given))


def seconds(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure_updates(options, data, dims):
    """Rows of name, updates per second, ratio to the plain loop (medians), seconds to compile."""
    device, runners, start_up = options.device, {}, {}
    plain = {key: value.cpu() for key, value in data.items()}
    loop = PlainLoop(plain, make_args(gtp_offline, device), dims)
    runners["plain loop (GTP)"] = loop.update
    modes = {"eager": {}, "compiled": {"compile": True}}
    if device.startswith("cuda"):
        modes["CUDA graphs"] = {"compile": True, "cuda_graphs": True}
    for mode, changes in modes.items():
        for name, module in SCRIPTS.items():
            if changes and options.eager:
                continue
            runners[f"{name}, {mode}"] = contestant(
                module, make_args(module, device, **changes), data, dims
            )
    until = time.monotonic() + 60 * options.minutes
    for name, runner in list(runners.items()):  # warm-up and compilation
        if time.monotonic() > until:
            print(f"{name}: left out, the time is over", flush=True)
            del runners[name]
            continue
        began = time.perf_counter()
        for k in range(5):
            runner(k)
        start_up[name] = time.perf_counter() - began
        print(f"{name}: first updates after {start_up[name]:.1f} s", flush=True)
    rates = {name: [] for name in runners}
    for r in range(options.rounds):
        if r > 0 and time.monotonic() > until:
            break
        for name, runner in runners.items():
            began = seconds(device)
            for k in range(options.slice):
                runner(5 + r * options.slice + k)
            rates[name].append(options.slice / (seconds(device) - began))
    base = rates["plain loop (GTP)"]
    return [
        {
            "name": name,
            "updates_per_second": statistics.median(values),
            "ratio": statistics.median(v / b for v, b in zip(values, base, strict=True)),
            "first_updates_seconds": start_up[name],
        }
        for name, values in rates.items()
    ]


def measure_actions(options, dims):
    """Rows of name, steps, candidates and median milliseconds of one action for one observation."""
    cases = [(n, k, c) for n in SCRIPTS for k in (1, 2, 5) for c in (1, 50)]
    acts, times = {}, {}
    for name, steps, candidates in cases:
        if (name == "gtp_bc" and candidates > 1) or (name == "diffusion_ql" and steps != 5):
            continue  # no critic; trained for its own number of steps
        module, changes = SCRIPTS[name], {"num_steps": steps}
        if name != "gtp_bc":
            changes |= {"num_candidates": candidates}
        args = make_args(module, options.device, **changes)
        nets = module.make_networks(args, *dims).to(options.device)
        acts[name, steps, candidates] = module.make_act(nets, args, 0)
    obs = np.zeros(dims[0], np.float32)
    for _ in range(options.rounds):
        for case, act in acts.items():
            act(obs)
            began = time.perf_counter()
            for _ in range(20):
                act(obs)
            times.setdefault(case, []).append(1e3 * (time.perf_counter() - began) / 20)
    fields = ("name", "num_steps", "num_candidates")
    return [
        dict(zip(fields, case, strict=True)) | {"milliseconds": statistics.median(values)}
        for case, values in times.items()
    ]


def draw(rows, path, title):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.45 * len(rows) + 1), dpi=120, layout="constrained")
    axis = figure.subplots()
    names = [row["name"] for row in rows][::-1]
    bars = axis.barh(names, [row["updates_per_second"] for row in rows][::-1], color="#3b6fb6")
    axis.bar_label(bars, [f"{row['ratio']:.2f} x" for row in rows][::-1], padding=3)
    axis.set(xlabel="updates per second (median), ratio to the plain loop", title=title)
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of interleaved slices")
    parser.add_argument("--minutes", type=float, default=60, help="for the updates; then it ends")
    parser.add_argument("--slice", type=int, default=15, help="updates of a slice")
    parser.add_argument("--eager", action="store_true", help="leave out the compiled ones")
    parser.add_argument("--obs-dim", type=int, default=11, help="11, 3: Hopper; 17, 6: HalfCheetah")
    parser.add_argument("--action-dim", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/speed"), help="folder of the results"
    )
    options = parser.parse_args()
    try:
        make_args(gtp_offline, options.device)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    dims, rows, rng = (options.obs_dim, options.action_dim), 100_000, np.random.default_rng(0)
    data = {
        "observations": rng.standard_normal((rows, dims[0]), dtype=np.float32),
        "actions": rng.uniform(-1, 1, (rows, dims[1])).astype(np.float32),
        "rewards": rng.standard_normal(rows, dtype=np.float32),
        "next_observations": rng.standard_normal((rows, dims[0]), dtype=np.float32),
        "terminals": np.zeros(rows, np.float32),
    }
    data = {key: torch.from_numpy(value).to(options.device) for key, value in data.items()}
    data["rows"] = torch.arange(rows, device=options.device)
    cuda = options.device.startswith("cuda")
    machine = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, one thread"
    updates, actions = measure_updates(options, data, dims), measure_actions(options, dims)
    print(f"\n{machine}, torch {torch.__version__}, {dims[0]} observations, {dims[1]} actions\n")
    print("| | updates/s | ratio to the plain loop | first 5 updates, s |\n|---|---|---|---|")
    for row in updates:
        speed = f"{row['updates_per_second']:.1f} | {row['ratio']:.2f}"
        print(f"| {row['name']} | {speed} | {row['first_updates_seconds']:.1f} |")
    print("\n| | K | candidates | ms per action |\n|---|---|---|---|")
    for row in actions:
        case = f"{row['num_steps']} | {row['num_candidates']}"
        print(f"| {row['name']} | {case} | {row['milliseconds']:.2f} |")
    options.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "torch": torch.__version__, "updates": updates}
    (options.out / "speed.json").write_text(json.dumps(results | {"actions": actions}, indent=1))
    draw(updates, options.out / "speed.png", machine)


if __name__ == "__main__":
    main()
