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
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
from experiment import Variant, main, replacing, write_json
from paper import TABLE_3_HOURS

import gtp_offline

SCRIPTS = ("ode_solver", "linear_q", "shortcut", "meanflow")


@dataclass
class Arguments:
    """Time and memory of an update of every structural variant."""

    out: str = "runs/update_cost"  # folder of update_cost.json
    device: str = "cpu"  # or cuda
    rounds: int = 30  # updates of each variant
    quick: bool = False  # three updates: shows that it works, not more


def peak_megabytes(update, device: str) -> float:
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
        profile.export_chrome_trace(path := f"{folder}/trace.json")
        events = json.loads(Path(path).read_bytes())["traceEvents"]
    return max(accumulate(e["args"]["Bytes"] for e in events if e["name"] == "[memory]")) / 1e6


def costs(variants: dict[str, Variant], device: str = "cpu", rounds: int = 30) -> dict[str, dict]:
    """{title: {milliseconds, ratio to the first variant's, megabytes}} of an update."""
    args = gtp_offline.resolve_args(gtp_offline.Args(dataset_path="-", eta=5.0, device=device))
    names = ("observations", 11), ("next_observations", 11), ("actions", 3)
    data = {name: torch.rand(256, dim, device=device) for name, dim in names}
    data |= {name: torch.rand(256, device=device) for name in ("rewards", "terminals")}
    data["rows"] = torch.arange(256, device=device)
    nets = gtp_offline.make_networks(args, 11, 3).to(device)
    adam = {name: torch.optim.Adam(net.parameters(), fused=True) for name, net in nets.items()}
    inputs = gtp_offline.draw_inputs(0, data, torch.Generator(device), args)
    clock = time.process_time if device == "cpu" else time.perf_counter

    def update(variant: Variant) -> float:  # seconds
        given, began = replace(args, **variant.changes), clock()
        with replacing(gtp_offline, variant.replaced):
            metrics = gtp_offline.update_networks(nets, adam, data, inputs, given)
        metrics["actor_grad_norm"].item()  # waits for CUDA
        seconds = clock() - began
        nets.zero_grad()  # the profiler knows only what was allocated before its eyes
        return seconds

    times = [[update(v) for v in variants.values()] for _ in range(rounds)]
    return {
        title: {
            "milliseconds": round(1e3 * statistics.median(row[i] for row in times), 2),
            "ratio": round(statistics.median(row[i] / row[0] for row in times), 3),
            "megabytes": round(peak_megabytes(partial(update, variant), device), 2),
        }
        for i, (title, variant) in enumerate(variants.items())
    }


def run(options: Arguments) -> None:
    """Measure, write and tabulate."""
    if options.rounds < 1:
        raise ValueError(f"--rounds is {options.rounds}; it must be at least 1")
    torch.set_num_threads(1)
    variants = {"GTP": Variant()}
    for script in SCRIPTS:
        variants |= importlib.import_module(script).variants()
    table = costs(variants, options.device, 3 if options.quick else options.rounds)
    about = {"device": options.device, "torch": torch.__version__, "variants": table}
    write_json(Path(options.out) / "update_cost.json", about)
    print("| | ms/update | ratio | peak MB |\n|---|---|---|---|")
    for title, row in table.items():
        print(f"| {title} | {row['milliseconds']} | {row['ratio']} | {row['megabytes']} |")
    hours = {k: float(v) for k, v in TABLE_3_HOURS.items() if v != "Diverged"}
    print("the paper's hours, ratio:", {k: round(v / hours["GTP"], 2) for k, v in hours.items()})


if __name__ == "__main__":
    sys.exit(main(run, Arguments))
