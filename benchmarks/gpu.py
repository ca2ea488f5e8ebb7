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

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("gtp_offline", "diffusion_ql")
PLANNED = (0, 143)  # exit codes: finished, and interrupted by SIGTERM
SPARED = 45  # seconds at the end, to save, tabulate and draw


@dataclass
class Options:
    """Everything to measure on a GPU, in a given time."""

    data: tyro.conf.Positional[tuple[str, ...]] = ()  # TASK=FILE, what to train on
    minutes: float = 9  # for everything
    speed_minutes: float = 4  # for speed.py; 0: skip it
    num_updates: int = 100_000  # of the trainings
    device: str = "cuda"  # or cpu
    compile: bool = True  # torch.compile the trainings
    cuda_graphs: bool = False  # of the trainings
    out: Path = Path("runs/gpu")  # folder of the results


def run_until(commands: dict[str, list], deadline: float, log_folder: Path) -> dict[str, int]:
    """Run the commands side by side, SIGTERM at the deadline -> {name: exit code}."""
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


def speed_command(options: Options) -> list[str]:
    """The command of speed.py."""
    script = str(ROOT / "benchmarks" / "speed.py")
    flags = ["--out", str(options.out), "--device", options.device]
    return [sys.executable, script, *flags, "--minutes", str(options.speed_minutes)]


def training(script: str, task: str, file: str, options: Options) -> list[str]:
    """The command of a run, or of its continuation."""
    run_dir = options.out / run_name(task, script)
    command = [sys.executable, str(ROOT / f"{script}.py")]
    if (run_dir / "checkpoint.pt").exists():
        check_same(run_dir, file, options)
        return [*command, "--resume", str(run_dir)]
    values = {
        "--env-id": task,
        "--dataset-path": file,
        "--run-dir": run_dir,
        "--device": options.device,
        "--num-updates": options.num_updates,
        "--eval-freq": max(1, options.num_updates // 10),
    }
    for flag, value in values.items():
        command += [flag, str(value)]
    if options.compile:
        command.append("--compile")
    if options.cuda_graphs:
        command.append("--cuda-graphs")
    return command


def check_same(run_dir: Path, file: str, options: Options) -> None:
    """ValueError where the run in a folder was begun with another file or other options."""
    results = run_dir / "results.json"
    begun = json.loads(results.read_text())["args"] if results.exists() else {}
    wanted = {"dataset_path": os.path.abspath(file)}
    for name in ("num_updates", "device", "compile", "cuda_graphs"):
        wanted[name] = getattr(options, name)
    for name, value in wanted.items():
        had = begun.get(name, value)
        if had != value:
            raise ValueError(f"{run_dir} is a run of {name} {had}, not {value}; give another --out")


def run_name(task: str, script: str) -> str:
    """The name of a run's folder and log."""
    return f"{re.sub('[^-_.0-9a-zA-Z]', '-', task)}__{script}"


def read(out: Path, codes: dict[str, int]) -> dict[str, dict]:
    """{run: its results.json, or what there is to say without one}."""
    found = {}
    for name, code in codes.items():
        file = out / name / "results.json"
        if file.exists():
            found[name] = json.loads(file.read_text())
        else:
            found[name] = {"status": f"exit code {code}", "evaluations": []}
    return found


def tables(runs: dict[str, dict]) -> str:
    """Markdown of the runs' states and scores; the device is named by speed.json."""
    lines = [
        "| run | status | updates | updates/s | score | energy score x 1000 |",
        "|---" * 6 + "|",
    ]
    for name, results in runs.items():
        last = results.get("last") or {}
        score = last.get("normalized_score")
        energy = last.get("energy_score")
        cells = [
            name,
            results["status"],
            str(results.get("update", 0)),
            f"{results.get('updates_per_second', 0):.0f}",
            "-" if score is None else f"{score:.1f} ± {last['normalized_score_std']:.1f}",
            "-" if energy is None else f"{1000 * energy:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(runs: dict[str, dict], path: Path) -> None:
    """Normalized score against updates and against minutes of training, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, results in runs.items():
        rows = [row for row in results["evaluations"] if row["normalized_score"] is not None]
        if rows:
            updates = [row["update"] for row in rows]
            scores = [row["normalized_score"] for row in rows]
            per_minute = 60 * results["updates_per_second"]
            left.plot(updates, scores, marker=".", label=name)
            right.plot([update / per_minute for update in updates], scores, marker=".")
    left.set(xlabel="updates", ylabel="normalized score on the given file")
    right.set(xlabel="minutes of updates")
    if left.lines:
        left.legend(frameon=False, fontsize=7)
    figure.savefig(path)


def trainings(options: Options) -> dict[str, list[str]]:
    """{run: its command} for every TASK=FILE and script; ValueError for a file that is absent and
    for a task with two files."""
    commands = {}
    for pair in options.data:
        task, _, file = pair.partition("=")
        if not Path(file).is_file():
            raise ValueError(f"{pair}: give TASK=FILE with an HDF5 or NPZ file that exists")
        if run_name(task, SCRIPTS[0]) in commands:
            raise ValueError(f"{pair}: {task} is named twice; give each its own --out")
        for script in SCRIPTS:
            commands[run_name(task, script)] = training(script, task, file, options)
    return commands


def run(options: Options) -> None:
    """Measure, train, tabulate and draw; ValueError where a process failed."""
    commands = trainings(options)
    deadline = time.monotonic() + 60 * options.minutes - SPARED
    options.out.mkdir(parents=True, exist_ok=True)
    codes = {}
    if options.speed_minutes > 0:
        codes = run_until({"speed": speed_command(options)}, deadline, options.out)
        log = (options.out / "speed.log").read_text()
        print(log[-4000:], flush=True)
    if commands:
        trained = run_until(commands, deadline, options.out)
        runs = read(options.out, trained)
        text = tables(runs)
        (options.out / "gpu.md").write_text(text)
        draw(runs, options.out / "curves.png")
        print(text)
        codes |= trained
    failed = {name: code for name, code in codes.items() if code not in PLANNED}
    if failed:
        raise ValueError(f"exit codes {failed}; see the .log files in {options.out}")


def main() -> int:
    """Exit code: 0, or 1 where something failed."""
    options = tyro.cli(Options)
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
