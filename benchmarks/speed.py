"""Updates per second and milliseconds per action of the four scripts, against a plain loop.

    python benchmarks/speed.py                    # CPU, one thread, Hopper's shapes, batch 256
    python benchmarks/speed.py --device cuda      # eager, compiled and CUDA graphs
    python benchmarks/speed.py --against DIR      # these scripts and those of another checkout
    python benchmarks/speed.py --processes 2      # also whole runs side by side

Every contestant does a few updates in turn, round after round, in one process, so that a busy
machine slows all of them alike; a ratio is the median over the rounds of the ratio in the same
round. Times are the process's own CPU time (on CUDA: wall time, synchronised).

The plain loop is GTP written the way the code of Diffusion-QL and Consistency-RL is: data on the
CPU, two critics one after the other, no shared passes, four .item() an update. Its critic is that
of Eq. 16, so the ratio of gtp_offline.py that compares like with like is that of its row "Eq. 16".
The share of the limit is the arithmetic of an update (torch.utils.flop_counter) times updates per
second, over what a float32 product of the hidden layers' shape reaches in the same round. Kernels
are those that the compiler generates; library calls (matrix products) are not among them.
--against tells what a change costs: updates per second of both checkouts and nothing else; the
other one may be of the time before `default_args`.
"""

import importlib.util
import math
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import nn
from torch._inductor import metrics as inductor_metrics
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import gtp_offline  # noqa: E402

SCRIPTS = ("gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac")
TASK = "hopper-medium-expert"  # whose row of Table 4 the scripts run with
NUM_UPDATES = 100_000  # that schedules are made for
WARM_UP = 5  # updates before any is timed; compilation is among them
PLAIN = "plain loop (GTP, Eq. 16)"
PEAK = "matrix product"
PRODUCTS = 20  # of batch x width x width, in an "update" of PEAK
EQ_16 = {  # the critic of the plain loop, and of the paper
    "td_target": "policy",
    "expectile": 0.5,
    "weight_critic": "online",
    "critic_norm": "none",
}
CASES = {name: (name, {}) for name in SCRIPTS} | {  # title: script, changes of its arguments
    "gtp_offline, Eq. 16": ("gtp_offline", EQ_16),
    "gtp_offline, Eq. 16, --target-steps 2": ("gtp_offline", EQ_16 | {"target_steps": 2}),
}


@dataclass
class Options:
    """Updates per second and milliseconds per action."""

    device: str = "cpu"  # or cuda
    against: str = ""  # folder of another checkout; empty: the plain loop
    rounds: int = 15  # of interleaved slices
    minutes: float = 60  # for the updates; then it ends
    slice: int = 15  # updates of a slice
    eager: bool = False  # leave out the compiled ones
    processes: int = 0  # side by side, of gtp_offline.py, after one alone; 0: none
    obs_dim: int = 11  # 11, 3: Hopper; 17, 6: HalfCheetah
    action_dim: int = 3
    out: Path = Path("runs/speed")  # folder of the results


# ---- the plain loop ----------------------------------------------------------------------------


def plain_mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Three hidden layers with Mish."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        nn.Mish(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.Mish(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.Mish(),
        nn.Linear(hidden_dim, out_dim),
    )


class PlainTime(nn.Module):
    """The embedding of a time per row, (B, 1) -> (B, 16): sinusoids, computed anew each time."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Mish(), nn.Linear(32, 16))

    def forward(self, t):
        exponents = torch.arange(8, device=t.device) * -(math.log(10_000) / 7)
        angles = 250 * torch.log(t) * torch.exp(exponents)[None]
        return self.net(torch.cat((angles.sin(), angles.cos()), dim=-1))


class PlainFlowMap(nn.Module):
    """gtp_offline.FlowMap as the code of Diffusion-QL would have it: a module for each time."""

    def __init__(self, obs_dim, action_dim, hidden_dim):
        super().__init__()
        self.embed_t = PlainTime()
        self.embed_s = PlainTime()
        self.net = plain_mlp(action_dim + 32 + obs_dim, hidden_dim, action_dim)

    def phi(self, obs, x, t, s):
        """The endpoint (Eq. 3)."""
        sd = gtp_offline.SIGMA_DATA
        variance = t**2 + sd**2
        c_skip = sd**2 / variance
        c_in = 1 / variance.sqrt()
        c_out = t * sd / variance.sqrt()
        inputs = torch.cat([c_in * x, self.embed_t(t), self.embed_s(s), obs], dim=1)
        return c_skip * x + c_out * self.net(inputs)

    def flow_map(self, obs, x, t, s):
        """Phi (Eq. 4)."""
        return (1 - s / t) * self.phi(obs, x, t, s) + s / t * x

    def inst_map(self, obs, x, t):
        """phi at s = t (Eq. 5)."""
        return self.phi(obs, x, t, t)


class PlainLoop:
    """GTP with the default losses and V(s), and none of the techniques that make it fast."""

    def __init__(self, data, args, obs_dim, action_dim):
        self.data = data
        self.args = args
        self.actor = PlainFlowMap(obs_dim, action_dim, args.hidden_dim).to(args.device)
        self.actor_ema = deepcopy(self.actor)
        pair_dim = obs_dim + action_dim
        critics = [plain_mlp(pair_dim, args.hidden_dim, 1) for _ in range(2)]
        self.critics = nn.ModuleList(critics).to(args.device)
        self.targets = deepcopy(self.critics)
        self.value = plain_mlp(obs_dim, args.hidden_dim, 1).to(args.device)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), 3e-4)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), 3e-4)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), 3e-4)

    def update(self, k: int):
        """One iteration of Algorithm 1."""
        args = self.args
        rows = np.random.randint(0, len(self.data["rewards"]), args.batch_size)
        batch = {name: self.data[name][rows].to(args.device) for name in self.data}
        obs = batch["observations"]
        actions = batch["actions"]
        pair = torch.cat((obs, actions), 1)
        target = self.td_target(batch)
        errors = [nn.functional.mse_loss(net(pair).squeeze(1), target) for net in self.critics]
        critic_loss = self.step(self.critic_optimizer, self.critics, sum(errors))
        with torch.no_grad():
            q = self.smaller_q(self.critics, pair)
        error = nn.functional.mse_loss(self.value(obs).squeeze(1), q)
        value_loss = self.step(self.value_optimizer, self.value, error)
        with torch.no_grad():
            advantage = q - self.value(obs).squeeze(1)
        weights = gtp_offline.advantage_weights(advantage, args.eta, args.max_weight)
        loss = self.actor_loss(k, obs, actions, weights)
        actor_loss = self.step(self.actor_optimizer, self.actor, loss)
        self.average(self.actor_ema, self.actor)
        self.average(self.targets, self.critics)
        return critic_loss, value_loss, actor_loss, q.mean().item()

    @torch.no_grad()
    def td_target(self, batch):
        """Eq. 16."""
        next_obs = batch["next_observations"]
        pair = torch.cat((next_obs, self.sample(self.actor_ema, next_obs)), 1)
        q = self.smaller_q(self.targets, pair)
        return batch["rewards"] + self.args.gamma * (1 - batch["terminals"]) * q

    def sample(self, actor, obs):
        """Actions by K steps (Eq. 15)."""
        device = self.args.device
        times = gtp_offline.sampling_times(self.args.num_steps, self.args)
        x = times[0] * torch.randn(len(obs), self.data["actions"].shape[1], device=device)
        for t, s in pairwise(times):
            rows = torch.ones(len(obs), 1, device=device)
            x = actor.flow_map(obs, x, t * rows, s * rows)
        return x.clamp(-1, 1)

    def smaller_q(self, critics, pair):
        """Of the two."""
        return torch.min(critics[0](pair), critics[1](pair)).squeeze(1)

    def actor_loss(self, k, obs, actions, weights):
        """Eq. 19."""
        args = self.args
        n = gtp_offline.num_grid_points(k, args.num_updates)
        grid, t_cdf = gtp_offline.time_grid(n, args)
        uniform = torch.rand(len(obs), 3, device=args.device)
        noise = torch.randn_like(actions)
        t, u, s = gtp_offline.sample_times(uniform, grid, t_cdf, args)
        nets = {"actor": self.actor, "actor_ema": self.actor_ema}
        loss, _ = gtp_offline.actor_loss(nets, obs, actions, noise, t, u, s, weights, args)
        return loss

    def step(self, optimizer, network, loss):
        """Down the loss."""
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), max_norm=5.0)
        optimizer.step()
        return loss.item()

    def average(self, target, source):
        """Polyak."""
        tau = self.args.tau
        for a, b in zip(target.parameters(), source.parameters(), strict=True):
            a.data.copy_(tau * b.data + (1 - tau) * a.data)


# ---- the scripts -------------------------------------------------------------------------------


def load_script(name: str, folder: Path):
    """A script as a module of its own, also beside the same script of another checkout."""
    path = folder / f"{name}.py"
    own_name = re.sub(r"\W", "_", f"{name} of {folder}")  # torch.compile needs an identifier
    spec = importlib.util.spec_from_file_location(own_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def make_args(module, device: str, **changes):
    """The script's own defaults for TASK, gradient norm and all."""
    row = dict(zip(module.TASK_FIELDS, module.TASKS[TASK], strict=True))
    known = {field.name for field in fields(module.Args)}
    values = {name: value for name, value in row.items() if name in known}
    values |= {"num_updates": NUM_UPDATES, **changes}
    if not hasattr(module, "default_args"):  # an older checkout
        return module.resolve_args(module.Args(dataset_path="none", device=device, **values))
    args = replace(module.default_args(dataset_path="none", device=device), **values)
    module.check_args(args)
    return args


def make_optimizers(module, nets, args) -> dict:
    """As in train."""
    if hasattr(module, "make_optimizers"):
        return module.make_optimizers(nets, args)
    optimizers = {}
    for name in ("actor", "critic", "value"):
        if name in nets:
            rate = args.learning_rate if name == "actor" else args.critic_learning_rate
            optimizers[name] = torch.optim.Adam(nets[name].parameters(), rate, fused=True)
    return optimizers


def contestant(module, args, data, obs_dim, action_dim) -> Callable:
    """A function that does update k of a script as its train does."""
    torch.manual_seed(0)
    generator = torch.Generator(args.device).manual_seed(0)
    nets = module.make_networks(args, obs_dim, action_dim).to(args.device)
    optimizers = make_optimizers(module, nets, args)
    step = module.update_networks

    def update(k: int) -> None:
        nonlocal step
        inputs = module.draw_inputs(k, data, generator, args)
        step(nets, optimizers, data, inputs, args)
        if args.compile and step is module.update_networks:
            step = module.compiled_update(data, optimizers, args)

    return update


def modes(options: Options) -> dict[str, dict]:
    """{name: changes of the arguments} of the ways to run a script."""
    found = {"eager": {"compile": False, "cuda_graphs": False}}
    if not options.against:
        found["eager, bf16"] = found["eager"] | {"bf16": True}
    if not options.eager:
        found["compiled"] = {"compile": True, "cuda_graphs": False}
        if not options.against:
            found["compiled, bf16"] = found["compiled"] | {"bf16": True}
        if options.device.startswith("cuda"):
            found["CUDA graphs"] = {"compile": True, "cuda_graphs": True}
    return found


def contestants(options: Options, data: dict, folder: Path) -> dict[str, Callable]:
    """{"gtp_offline, eager": update, ...} of the scripts in a folder."""
    found = {}
    for mode, changes in modes(options).items():
        for title, (name, own) in CASES.items():
            if options.against and title != name:
                continue  # another checkout may not know these flags
            module = load_script(name, folder)
            args = make_args(module, options.device, **changes, **own)
            update = contestant(module, args, data, options.obs_dim, options.action_dim)
            found[f"{title}, {mode}"] = update
    return found


def products(options: Options) -> Callable:
    """A function that multiplies matrices of the hidden layers' shape."""
    width = make_args(gtp_offline, options.device).hidden_dim
    batch = make_args(gtp_offline, options.device).batch_size
    x = torch.randn(batch, width, device=options.device)
    weight = torch.randn(width, width, device=options.device)

    def update(k: int) -> None:
        for _ in range(PRODUCTS):
            torch.mm(x, weight)

    return update


def random_data(options: Options, rows: int = 100_000) -> dict[str, torch.Tensor]:
    """Transitions of the right shapes, on the device."""
    rng = np.random.default_rng(0)
    obs_shape = (rows, options.obs_dim)
    actions = rng.uniform(-1, 1, (rows, options.action_dim))
    arrays = {
        "observations": rng.standard_normal(obs_shape, dtype=np.float32),
        "actions": actions.astype(np.float32),
        "rewards": rng.standard_normal(rows, dtype=np.float32),
        "next_observations": rng.standard_normal(obs_shape, dtype=np.float32),
        "terminals": np.zeros(rows, np.float32),
    }
    data = {key: torch.from_numpy(array).to(options.device) for key, array in arrays.items()}
    return data | {"rows": torch.arange(rows, device=options.device)}


# ---- what is measured --------------------------------------------------------------------------


def clock(device: str) -> float:
    """Seconds, of the process on a CPU, of the wall on a GPU that has done all it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def warm_up(runners: dict[str, Callable], until: float) -> dict[str, dict]:
    """{name: {first_updates_seconds, gigaflop, kernels}}: the seconds of the first updates with
    compilation, the arithmetic of the very first, which is eager, and the kernels that were
    generated for the others. What the time does not reach leaves the race."""
    found = {}
    for name in list(runners):
        if time.monotonic() > until:
            print(f"{name}: left out, the time is over", flush=True)
            del runners[name]
            continue
        began = time.perf_counter()
        with FlopCounterMode(display=False) as counter:
            runners[name](0)
        inductor_metrics.reset()
        for k in range(1, WARM_UP):
            runners[name](k)
        seconds = time.perf_counter() - began
        found[name] = {
            "first_updates_seconds": seconds,
            "gigaflop": counter.get_total_flops() / 1e9,
            "kernels": inductor_metrics.generated_kernel_count or None,
        }
        print(f"{name}: first updates after {seconds:.1f} s", flush=True)
    return found


def race(runners: dict[str, Callable], options: Options, until: float) -> dict[str, list[float]]:
    """{name: updates per second in every round}; every other round runs backwards."""
    rates = {name: [] for name in runners}
    for r in range(options.rounds):
        if r > 0 and time.monotonic() > until:
            break
        names = list(runners)
        if r % 2:
            names.reverse()
        for name in names:
            first = WARM_UP + r * options.slice
            began = clock(options.device)
            for k in range(first, first + options.slice):
                runners[name](k)
            rates[name].append(options.slice / (clock(options.device) - began))
    return rates


def median_ratio(rates: list[float], base: list[float]) -> float:
    """Over the rounds."""
    return statistics.median(own / other for own, other in zip(rates, base, strict=True))


def measure_updates(options: Options, data: dict) -> list[dict]:
    """Rows of name, updates per second, ratio to the plain loop, share of the arithmetic limit
    (medians), and of what warm_up finds."""
    plain_data = {key: value.cpu() for key, value in data.items() if key != "rows"}
    args = make_args(gtp_offline, options.device)
    loop = PlainLoop(plain_data, args, options.obs_dim, options.action_dim)
    runners = {PEAK: products(options), PLAIN: loop.update} | contestants(options, data, ROOT)
    until = time.monotonic() + 60 * options.minutes
    first = warm_up(runners, until)
    rates = race(runners, options, until)
    limit = first[PEAK]["gigaflop"]
    peak = rates.pop(PEAK)
    print(f"limit: {limit * statistics.median(peak):.0f} GFLOP/s", flush=True)
    rows = []
    for name, values in rates.items():
        row = {
            "name": name,
            "updates_per_second": statistics.median(values),
            "ratio": median_ratio(values, rates[PLAIN]),
            "share": first[name]["gigaflop"] / limit * median_ratio(values, peak),
        }
        rows.append(row | first[name])
    return rows


def measure_processes(options: Options, num_updates: int = 400) -> list[dict]:
    """Rows of processes and of the updates per second of all together, by the clock: whole runs of
    gtp_offline.py, one alone and then several at once."""
    rows = []
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.standard_normal((5_000, options.obs_dim), dtype=np.float32),
        "actions": rng.uniform(-1, 1, (5_000, options.action_dim)).astype(np.float32),
        "rewards": rng.standard_normal(5_000, dtype=np.float32),
        "terminals": np.arange(5_000) % 100 == 99,
    }
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.npz")
        np.savez(data, **arrays)
        for count in (1, options.processes):
            runs = [Path(folder, f"{count}-{i}") for i in range(count)]
            started = [subprocess.Popen(run_command(data, run, num_updates)) for run in runs]
            codes = [process.wait() for process in started]
            if any(codes):
                raise ValueError(f"runs of gtp_offline.py ended with exit codes {codes}")
            found = [gtp_offline.load_checkpoint(run)["results"] for run in runs]
            rates = [results["updates_per_second"] for results in found]
            rows.append({"processes": count, "updates_per_second": sum(rates)})
    return rows


def run_command(data: Path, run_dir: Path, num_updates: int) -> list[str]:
    """gtp_offline.py on the CPU, evaluated once."""
    flags = ["--num-updates", str(num_updates), "--device", "cpu", "--no-tensorboard"]
    flags += ["--eval-freq", str(num_updates), "--num-holdout", "0"]
    where = ["--dataset-path", str(data), "--run-dir", str(run_dir)]
    return [sys.executable, str(ROOT / "gtp_offline.py"), *where, *flags]


def measure_against(options: Options, data: dict) -> list[dict]:
    """Rows of name, updates per second here and there, their ratio (medians)."""
    here = contestants(options, data, ROOT)
    there = contestants(options, data, Path(options.against).resolve())
    runners = {}
    for name in here:
        runners[name] = here[name]
        runners[f"{name}, against"] = there[name]
    until = time.monotonic() + 60 * options.minutes
    warm_up(runners, until)
    rates = race(runners, options, until)
    rows = []
    for name in here:
        others = rates.get(f"{name}, against")
        if others:
            row = {
                "name": name,
                "updates_per_second": statistics.median(rates[name]),
                "against": statistics.median(others),
                "ratio": median_ratio(rates[name], others),
            }
            rows.append(row)
    return rows


def action_cases() -> list[tuple[str, int, int]]:
    """Script, steps and candidates: gtp_bc has no critic, diffusion_ql its own number of steps."""
    found = []
    for name in SCRIPTS:
        for steps in (5,) if name == "diffusion_ql" else (1, 2, 5):
            for candidates in (1,) if name == "gtp_bc" else (1, 50):
                found.append((name, steps, candidates))
    return found


def make_act(name: str, steps: int, candidates: int, options: Options) -> Callable:
    """The policy of an untrained script."""
    module = load_script(name, ROOT)
    changes = {"num_steps": steps}
    if name != "gtp_bc":
        changes["num_candidates"] = candidates
    args = make_args(module, options.device, **changes)
    nets = module.make_networks(args, options.obs_dim, options.action_dim)
    return module.make_act(nets.to(options.device), args, 0)


def measure_actions(options: Options, calls: int = 20) -> list[dict]:
    """Rows of name, steps, candidates and median milliseconds of one action for one observation."""
    acts = {case: make_act(*case, options) for case in action_cases()}
    times = {case: [] for case in acts}
    obs = np.zeros(options.obs_dim, np.float32)
    for _ in range(options.rounds):
        for case, act in acts.items():
            act(obs)
            began = time.perf_counter()
            for _ in range(calls):
                act(obs)
            times[case].append(1e3 * (time.perf_counter() - began) / calls)
    names = ("name", "num_steps", "num_candidates", "milliseconds")
    return [
        dict(zip(names, (*case, statistics.median(values)), strict=True))
        for case, values in times.items()
    ]


# ---- what is shown -----------------------------------------------------------------------------


def print_updates(rows: list[dict]) -> None:
    """Markdown."""
    columns = ["", "updates/s", "ratio to the plain loop", "GFLOP an update"]
    columns += ["share of the limit", "generated kernels", "first 5 updates, s"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        cells = [
            row["name"],
            f"{row['updates_per_second']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['gigaflop']:.2f}",
            f"{row['share']:.0%}",
            str(row["kernels"] or ""),
            f"{row['first_updates_seconds']:.1f}",
        ]
        print(f"| {' | '.join(cells)} |")


def print_processes(rows: list[dict]) -> None:
    """A line each."""
    for row in rows:
        speed = f"{row['updates_per_second']:.1f} updates/s together"
        print(f"runs of gtp_offline.py side by side: {row['processes']}, {speed}")


def print_against(rows: list[dict], folder: str) -> None:
    """Markdown."""
    print(f"| | updates/s | updates/s of {folder} | ratio |\n|---|---|---|---|")
    for row in rows:
        speeds = f"{row['updates_per_second']:.1f} | {row['against']:.1f}"
        print(f"| {row['name']} | {speeds} | {row['ratio']:.3f} |")


def print_actions(rows: list[dict]) -> None:
    """Markdown."""
    print("\n| | K | candidates | ms per action |\n|---|---|---|---|")
    for row in rows:
        case = f"{row['num_steps']} | {row['num_candidates']}"
        print(f"| {row['name']} | {case} | {row['milliseconds']:.2f} |")


def draw(rows: list[dict], path: Path, title: str) -> None:
    """Bars of updates per second with their ratios."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.45 * len(rows) + 1), dpi=120, layout="constrained")
    axis = figure.subplots()
    names = [row["name"] for row in rows]
    speeds = [row["updates_per_second"] for row in rows]
    bars = axis.barh(names, speeds, color="#3b6fb6")
    axis.bar_label(bars, [f"{row['ratio']:.2f} x" for row in rows], padding=3)
    axis.invert_yaxis()
    axis.set(xlabel="updates per second (median), ratio to the plain loop", title=title)
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def check(options: Options) -> None:
    """ValueError for what cannot be measured."""
    make_args(gtp_offline, options.device)
    if options.processes < 0:
        raise gtp_offline.ArgumentError(
            f"--processes is {options.processes}; it must be at least 0"
        )
    if options.processes and options.against:
        raise gtp_offline.ArgumentError("--against does not measure --processes; give one of them")
    if not options.minutes > 0:
        raise gtp_offline.ArgumentError(f"--minutes is {options.minutes}; it must be above 0")
    for flag in ("rounds", "slice", "obs_dim", "action_dim"):
        count = getattr(options, flag)
        if count < 1:
            name = flag.replace("_", "-")
            raise gtp_offline.ArgumentError(f"--{name} is {count}; it must be at least 1")
    if options.against and not (Path(options.against) / "gtp_offline.py").is_file():
        raise gtp_offline.ArgumentError(f"--against {options.against} holds no gtp_offline.py")


def run(options: Options) -> None:
    """Measure, print, write and draw."""
    check(options)
    torch.set_num_threads(1)
    data = random_data(options)
    machine = f"{platform.machine()} CPU, one thread"
    if options.device.startswith("cuda"):
        machine = torch.cuda.get_device_name()
    results = {"machine": machine, "torch": torch.__version__}
    options.out.mkdir(parents=True, exist_ok=True)
    if options.against:
        results["against"] = measure_against(options, data)
    else:
        results["updates"] = measure_updates(options, data)
        results["actions"] = measure_actions(options)
        results["processes"] = measure_processes(options) if options.processes else []
        draw(results["updates"], options.out / "speed.png", machine)
    shapes = f"{options.obs_dim} observations, {options.action_dim} actions"
    print(f"\n{machine}, torch {torch.__version__}, {shapes}\n")
    if options.against:
        print_against(results["against"], options.against)
        gtp_offline.write_json(options.out / "against.json", results)
    else:
        print_updates(results["updates"])
        print_actions(results["actions"])
        print_processes(results["processes"])
        gtp_offline.write_json(options.out / "speed.json", results)


def main() -> int:
    """Exit code: 0, 1 for what cannot be measured, 2 for wrong arguments."""
    options = tyro.cli(Options)
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, gtp_offline.ArgumentError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
