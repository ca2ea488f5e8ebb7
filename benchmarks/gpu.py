"""Everything to measure on a GPU that is lent for minutes, in one command that ends by itself.

    python benchmarks/gpu.py --minutes 9 hopper-medium-expert-v2=FILE.hdf5 \
        hopper-medium-replay-v2=FILE.hdf5

First benchmarks/speed.py (eager, compiled and CUDA graphs of the four scripts, milliseconds per
action), then gtp_offline.py and diffusion_ql.py on every TASK=FILE, all runs side by side. When
the minutes are over the runs get SIGTERM, on which they save what they have: the same command with
more minutes goes on from there. Writes speed.json, speed.png, the runs, gpu.md (tables) and
curves.png into --out. A machine without a package index needs the wheels beforehand:

    pip download -r requirements.txt -d wheels       # where there is an index
    pip install --no-index --find-links wheels -r requirements.txt
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("gtp_offline", "diffusion_ql")


def run_until(commands, deadline, log_folder):
    """Run the commands side by side, SIGTERM at the deadline; {name: exit code}."""
    started = {}
    for name, command in commands.items():
        with open(log_folder / f"{name}.log", "w") as log:  # the process keeps its own
            started[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    codes = {}
    for name, process in started.items():
        try:
            codes[name] = process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
    for name, process in started.items():
        try:
            codes[name] = process.wait(60)  # an evaluation may be under way
        except subprocess.TimeoutExpired:
            process.kill()
            codes[name] = process.wait()
    return codes


def training(script, task, file, options):
    """The command of a run, or of its continuation."""
    run_dir = options.out / f"{task}__{script}"
    command = [sys.executable, str(ROOT / f"{script}.py")]
    if (run_dir / "checkpoint.pt").exists():
        return [*command, "--resume", str(run_dir)]
    given = {"env-id": task, "dataset-path": file, "run-dir": run_dir, "device": options.device}
    given |= {"num-updates": options.num_updates, "eval-freq": max(1, options.num_updates // 10)}
    command += [str(v) for name, value in given.items() for v in (f"--{name}", value)]
    return command + ["--compile"] * options.compile + ["--cuda-graphs"] * options.cuda_graphs


def read(out, codes):
    """{run: its results.json, or what there is to say without one}."""
    found = {}
    for name, code in codes.items():
        file = out / name / "results.json"
        nothing = {"status": f"exit code {code}", "evaluations": []}
        found[name] = json.loads(file.read_text()) if file.exists() else nothing
    return found


def tables(runs):
    """Markdown of the runs' states and scores; the device is named by speed.json."""
    lines = [
        "| run | status | updates | updates/s | score | energy score x 1000 |",
        "|---" * 6 + "|",
    ]
    for name, results in runs.items():
        last = results.get("last") or {}
        score, energy = last.get("normalized_score"), last.get("energy_score")
        cells = [name, results["status"], str(results.get("update", 0))]
        cells.append(f"{results.get('updates_per_second', 0):.0f}")
        cells.append("-" if score is None else f"{score:.1f} ± {last['normalized_score_std']:.1f}")
        cells.append("-" if energy is None else f"{1000 * energy:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(runs, path):
    """Normalized score against updates and against minutes of training, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, results in runs.items():
        if rows := [r for r in results["evaluations"] if r["normalized_score"] is not None]:
            updates = [row["update"] for row in rows]
            scores = [row["normalized_score"] for row in rows]
            left.plot(updates, scores, marker=".", label=name)
            right.plot(
                [u / results["updates_per_second"] / 60 for u in updates], scores, marker="."
            )
    left.set(xlabel="updates", ylabel="normalized score on the given file")
    right.set(xlabel="minutes of updates")
    if left.lines:
        left.legend(frameon=False, fontsize=7)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", metavar="TASK=FILE", help="what to train on")
    parser.add_argument("--minutes", type=float, default=9, help="for everything")
    parser.add_argument("--speed-minutes", type=float, default=4, help="for speed.py; 0: skip it")
    parser.add_argument("--num-updates", type=int, default=100_000)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cuda-graphs", action="store_true", help="of the trainings")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    options = parser.parse_args()
    pairs = [pair.partition("=")[::2] for pair in options.data]
    for task, file in pairs:
        if not Path(file).is_file():
            parser.error(f"{task}={file}: give TASK=FILE with an HDF5 or NPZ file that exists")
    deadline = time.monotonic() + 60 * options.minutes - 45  # to save, tabulate and draw
    options.out.mkdir(parents=True, exist_ok=True)
    codes = {}
    if options.speed_minutes > 0:
        speed = [sys.executable, str(ROOT / "benchmarks/speed.py"), "--out", str(options.out)]
        speed += ["--device", options.device, "--minutes", str(options.speed_minutes)]
        codes |= run_until({"speed": speed}, deadline, options.out)
        print((options.out / "speed.log").read_text()[-4000:], flush=True)
    commands = {
        f"{task}__{script}": training(script, task, file, options)
        for task, file in pairs
        for script in SCRIPTS
    }
    runs = run_until(commands, deadline, options.out)
    if commands:
        results = read(options.out, runs)
        (options.out / "gpu.md").write_text(text := tables(results))
        draw(results, options.out / "curves.png")
        print(text)
    failed = {name: code for name, code in (codes | runs).items() if code not in (0, 143)}
    if failed:  # 143: interrupted by SIGTERM, as planned
        sys.exit(f"error: exit codes {failed}; see the .log files in {options.out}")


if __name__ == "__main__":
    main()
