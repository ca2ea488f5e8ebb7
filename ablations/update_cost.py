"""Table 3, training time, and Appendix D.4, memory: what an update of each variant costs.

    python ablations/update_cost.py                # two minutes on one slow core
    python ablations/update_cost.py --quick        # seconds: shows that it works
    python ablations/update_cost.py --device cuda

Hopper's shapes, batch 256, width 256, eta 5: a whole update, with critic and V. All variants take
turns, so that a busy machine slows all alike: the ratio is the median over the rounds of that to
GTP in the same round. Times are CPU time of the process, on CUDA wall time. Memory is the peak of
what an update allocates beyond networks, optimizers and data (by PyTorch's allocator on CUDA, by
its profiler on the CPU). The paper's hours are of whole runs, with an unnamed solver.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from experiment import (
    Variant,
    check_least,
    check_measured,
    check_out,
    gtp_offline,
    main,
    make_out,
    measured_with,
    print_rows,
    replacing,
)
from paper import TABLE_3_HOURS

SCRIPTS = ("ode_solver", "linear_q", "shortcut", "meanflow")
OBS_DIM = 11  # Hopper's
ACTION_DIM = 3
BATCH_SIZE = 256


@dataclass
class Arguments:
    """Time and memory of an update of every structural variant."""

    out: str = "runs/update_cost"  # folder of update_cost.json
    device: str = "cpu"  # or cuda
    rounds: int = 30  # updates of each variant
    quick: bool = False  # three updates: shows that it works, not more


def peak_megabytes(update: Callable, device: str) -> float:
    """The most that update() has allocated at once, beyond what was there before."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        update()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports each start on stderr
    with torch.profiler.profile(profile_memory=True) as profile:
        update()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    changes = [event["args"]["Bytes"] for event in events if event["name"] == "[memory]"]
    return max(accumulate(changes)) / 1e6


def random_data(device: str) -> dict[str, torch.Tensor]:
    """As many transitions as a batch takes."""
    return {
        "observations": torch.rand(BATCH_SIZE, OBS_DIM, device=device),
        "next_observations": torch.rand(BATCH_SIZE, OBS_DIM, device=device),
        "actions": torch.rand(BATCH_SIZE, ACTION_DIM, device=device),
        "rewards": torch.rand(BATCH_SIZE, device=device),
        "terminals": torch.rand(BATCH_SIZE, device=device),
        "rows": torch.arange(BATCH_SIZE, device=device),
    }


def make_update(device: str) -> Callable[[Variant], float]:
    """A function that does one update of a variant and gives its seconds."""
    usual = gtp_offline.default_args(dataset_path="-", device=device)
    args = replace(usual, eta=5.0, batch_size=BATCH_SIZE)
    data = random_data(device)
    nets = gtp_offline.make_networks(args, OBS_DIM, ACTION_DIM).to(device)
    optimizers = gtp_offline.make_optimizers(nets, args)
    inputs = gtp_offline.draw_inputs(0, data, torch.Generator(device), args)
    clock = time.process_time if device == "cpu" else time.perf_counter

    def update(variant: Variant) -> float:
        given = replace(args, **variant.changes)
        began = clock()
        with replacing(gtp_offline, variant.replaced):
            metrics = gtp_offline.update_networks(nets, optimizers, data, inputs, given)
        metrics["actor_grad_norm"].item()  # waits for CUDA
        seconds = clock() - began
        nets.zero_grad()  # the profiler knows only what was allocated before its eyes
        return seconds

    return update


def costs(variants: dict[str, Variant], device: str = "cpu", rounds: int = 30) -> dict[str, dict]:
    """{title: {milliseconds, ratio to the first variant's, megabytes}} of an update."""
    update = make_update(device)
    times = {title: [] for title in variants}
    for _ in range(rounds):
        for title, variant in variants.items():
            times[title].append(update(variant))
    base = next(iter(times.values()))
    table = {}
    for title, variant in variants.items():
        ratios = [own / first for own, first in zip(times[title], base, strict=True)]
        megabytes = peak_megabytes(partial(update, variant), device)
        table[title] = {
            "milliseconds": round(1e3 * statistics.median(times[title]), 2),
            "ratio": round(statistics.median(ratios), 3),
            "megabytes": round(megabytes, 2),
        }
    return table


def run(options: Arguments) -> None:
    """Measure, write and tabulate."""
    check_least(options, {"rounds": 1})
    check_out(options.out)
    gtp_offline.check_device(options.device)
    torch.set_num_threads(1)
    variants = {"GTP": Variant()}
    for script in SCRIPTS:
        variants |= importlib.import_module(script).variants()
    file = Path(options.out) / "update_cost.json"
    make_out(options.out)
    check_measured(file, options)
    table = costs(variants, options.device, 3 if options.quick else options.rounds)
    about = {"device": options.device, "torch": torch.__version__, "variants": table}
    gtp_offline.write_json(file, about | {"options": measured_with(options)})
    rows = [[title, *map(str, row.values())] for title, row in table.items()]
    print_rows(["", "ms/update", "ratio", "peak MB"], rows)
    hours = {k: float(v) for k, v in TABLE_3_HOURS.items() if v != "Diverged"}
    print("the paper's hours, ratio:", {k: round(v / hours["GTP"], 2) for k, v in hours.items()})


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
