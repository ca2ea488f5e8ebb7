"""Many runs from one small file; the same command again goes on where it stopped.

    python sweep.py run sweeps/smoke.toml --workers 2
    python sweep.py run sweeps/table2.toml --gpus 0,1 --per-gpu 5
    python sweep.py slurm sweeps/table2.toml --partition gpu --time 24:00:00
    python sweep.py status sweeps/table2.toml

A sweep is every script with every task, variant and seed of a file such as

    scripts = ["gtp_offline", "diffusion_ql"]
    tasks = ["hopper-medium-v2", "multigoal-v0"]
    seeds = [0, 1, 2, 3, 4]
    final_episodes = 1000                # of a finished run, by evaluate.py; none if left out

    [flags]                              # of the scripts, for every run
    num_updates = 20_000
    diffusion_ql.num_candidates = 1      # for one script
    multigoal-v0.num_updates = 400       # for one task, which wins over the script

    [variants.k2]                        # if there is none: one, `default`, without flags
    scripts = ["gtp_offline"]            # instead of the sweep's; also tasks, seeds
    flags = { num_steps = 2 }            # win over the sweep's

    [data]                               # --dataset-path of a task, below --data DIR
    hopper-medium-v2 = "hopper.hdf5"

A run has the folder {out}/{script}/{task}/{variant}/{seed}, in which '/' and ':' of a name are '-':
the script's own files, log.txt, final_scores.json (what evaluate.py --out writes) and attempts, how
often it crashed (absent: never). What results.json says is all there is to know of its state:
finished or diverged -> nothing to do; a checkpoint -> --resume; else start. A copy of the file in
{out} says which runs belong there. Exit code of `run` and `work`: 0 all finished, 1 some diverged
or failed, 2 refused before anything started, 130 or 143 on a signal, with every run saved.
"""

import contextlib
import io
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from signal import SIG_DFL, SIGINT, SIGTERM, signal
from typing import Annotated, Any, get_args

import filelock
import tyro

import offline_tasks
from offline_tasks.files import is_held, replacing, sha256_of, take_any_letter
from offline_tasks.provenance import code_changed, tell_other_code
from sweeps.progress import (
    MOST_ATTEMPTS,
    Progress,
    attempts,
    read_results,
    scored,
    tell_changes,
    watching,
)
from sweeps.reader import ArgumentError, InputError, Run, make_out, near, read_sweep
from sweeps.slurm import array_script, submit

ROOT = Path(__file__).resolve().parent
OWN_FLAGS = ("env_id", "seed", "run_dir", "dataset_path", "resume")  # which a sweep sets itself
SEEN = {"device", "compile", "cuda_graphs"}  # whose defaults depend on what a process sees
DEVICE = r"auto|cpu|cuda(:\d+)?"  # of which the machine that runs has perhaps one
LIMIT = r"([0-9]+-)?[0-9]+(:[0-9]+){0,2}|(?i:infinite|unlimited)"  # what Slurm's --time takes
INTERRUPTED = (128 + SIGINT, 128 + SIGTERM, -SIGINT, -SIGTERM)  # exit codes
WHOSE = {"algorithm": str, "seed": int, "args": dict}  # keys of results.json that say whose it is
TAKES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
STOPPING = b"stopping after this update"  # a script's own words when it has got a signal


# ------------------------------------------- run by run -------------------------------------------


@dataclass(frozen=True)
class Job:
    """A run in its folder; args: the script's own, as the run would have them; warnings: what it
    would say of them."""

    run: Run
    run_dir: Path
    data_path: str
    args: Any
    final_episodes: int
    warnings: tuple[str, ...] = ()


def flag_words(flags):
    """{"num_steps": 2, "compile": True} -> ["--num-steps", "2", "--compile"]."""
    words = []
    for name, value in flags.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def script_args(run, words, where):
    """The complete arguments of a script for its command line, as it would check them itself, and
    its warnings of them."""
    script = import_module(run.script)
    known = {field.name: field.type for field in fields(script.Args)}
    for name, value in run.flags.items():
        if name in OWN_FLAGS:
            how = "; name the file of a task under [data]" if name == "dataset_path" else ""
            reason = f"`{name}` is not a flag for [flags]: the sweep sets it{how}"
            raise ArgumentError(f"{where}: {reason}")
        if name not in known:
            hint = near(name, known)
            raise ArgumentError(f"{where}: {run.script}.py has no flag `{name}`; {hint}")
        if name == "device" and not re.fullmatch(DEVICE, str(value)):
            raise ArgumentError(f"{where}: `device` is {value!r}; give auto, cpu, cuda or cuda:1")
        if not fits(value, known[name]):
            choices = " or ".join(map(repr, get_args(known[name])))
            takes = choices or TAKES[known[name]]
            raise ArgumentError(f"{where}: {run.script}.py: `{name}` is {value!r}; give {takes}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            args = script.parse_args(words)
            # The machine that asks need not have the GPU of the one that runs.
            args, _ = script.start(replace(args, device="cpu"))
    except SystemExit:
        text = " ".join(re.sub(r"[^\x20-\x7e]+|─+", " ", said.getvalue()).split())
        raise ArgumentError(f"{where}: {run.script}.py: {text}") from None
    except ValueError as error:
        raise ArgumentError(f"{where}: {run.script}.py: {error}") from error
    lines = [line for line in said.getvalue().splitlines() if line.startswith("warning: ")]
    if run.flags.get("device") != "cpu":
        lines = [line for line in lines if not line.endswith("--device cpu")]
    return args, tuple(lines)


def fits(value, kind):
    """Whether a flag of some type takes a value of a TOML file, whose text is the script's word."""
    choices = get_args(kind)
    if choices:
        return value in choices
    if isinstance(value, (list, dict)):
        return False
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    try:
        kind(str(value))
    except ValueError:
        return False
    return True


def prepare(sweep, out, data) -> list[Job]:
    """The sweep's runs, each checked by its own script and against what lies in its folder.
    ArgumentError before anything has started."""
    jobs = checked_jobs(sweep, out, data_files(sweep, data))
    for job in jobs:
        refuse_another(job)
    tell_other_evaluations(jobs)
    return jobs


def checked_jobs(sweep, out, data_paths) -> list[Job]:
    """The sweep's runs with their arguments, as their scripts check them. A seed changes nothing in
    the others, and one that is too large is the largest of its kind: the last."""
    jobs = []
    for run, data_path in zip(sweep.runs, data_paths, strict=True):
        jobs.append(Job(run, out / run.folder, data_path, None, sweep.final_episodes))
    last = {job.run.kind: job for job in jobs}
    checked = {}
    for kind, job in last.items():
        words = start_words(job)
        checked[kind] = script_args(job.run, words, sweep.path)
        if sweep.final_episodes:  # of whose number the script is the judge
            words += ["--num-eval-episodes", str(sweep.final_episodes)]
            script_args(job.run, words, f"{sweep.path}: final_episodes")
        check_has_data(job.run, sweep.path)
    for place, job in enumerate(jobs):
        args, warnings = checked[job.run.kind]
        jobs[place] = replace(job, args=replace(args, seed=job.run.seed), warnings=warnings)
    return jobs


def check_has_data(run, path):
    """ArgumentError for a task without data of its own, for which the sweep names no file."""
    if run.data or (run.env_id and offline_tasks.benchmark(run.env_id) != "Gymnasium"):
        return
    reason = f"the task {run.env_id!r} has no data of its own"
    raise ArgumentError(f"{path}: {reason}; name a file below --data DIR under [data]")


def tell_warnings(jobs):
    """What the scripts warn of, each once: in the runs' logs nobody would see it."""
    told = [f"{job.run.script}.py: {line}" for job in jobs for line in job.warnings]
    for line in dict.fromkeys(told):
        print(line, file=sys.stderr)


def tell_changes_of_code(jobs):
    """A line for each script that has changed since it made runs that have ended: they stay."""
    found = []
    for job in jobs:
        script = ROOT / f"{job.run.script}.py"
        results = read_results(job.run_dir) or {}
        ended = results.get("status") in ("finished", "diverged")
        if ended and code_changed(results, script):
            found.append((script.name, job.run_dir))
    tell_other_code(found, "has changed since runs of it have ended")


def tell_other_evaluations(jobs):
    """A line where runs that differ by the seed alone are evaluated at several frequencies: `best`
    is then the best of more, or of fewer."""
    found = {}
    for job in jobs:
        saved = (read_results(job.run_dir) or {}).get("args", {})
        frequency = saved.get("eval_freq", job.args.eval_freq)
        found.setdefault("/".join(job.run.kind), set()).add(str(frequency))
    for kind, frequencies in found.items():
        if len(frequencies) > 1:
            known = " and ".join(sorted(frequencies))
            line = f"warning: {kind}: --eval-freq is {known} in its runs"
            print(f"{line}; those that are there keep theirs", file=sys.stderr)


def data_files(sweep, data):
    """For each run the file of its task below --data, '' where the sweep names none; where it names
    none at all, that is said."""
    if data and not any(run.data for run in sweep.runs):
        print(f"--data is not used: {sweep.path} has no [data]", file=sys.stderr)
    return [data_file(run, data, sweep.path) if run.data else "" for run in sweep.runs]


def data_file(run, data, path):
    """The file of a run's task below --data; ArgumentError where there is none."""
    if data is None:
        raise ArgumentError(
            f"{path} takes {run.env_id} from {run.data}; add --data DIR, its folder"
        )
    file = data / run.data
    if not file.is_file():
        raise ArgumentError(f"{file}, which {path} names for {run.env_id}, is not there")
    return os.path.abspath(file)  # by the sweep's name, also where that is a link


def refuse_another(job):
    """ArgumentError where a folder holds a run of other arguments. What a resume may change is left
    to it, but for the number of updates and the data."""
    script = import_module(job.run.script)
    results = read_results(job.run_dir)
    if results is None and any(job.run_dir.glob("checkpoint*.pt")):
        with contextlib.suppress(ValueError):  # a resume will say what is wrong with it
            results = script.load_checkpoint(job.run_dir)["results"]
    if results is None:
        return
    lacking = [key for key, kind in WHOSE.items() if not isinstance(results.get(key), kind)]
    if lacking:
        raise ArgumentError(
            f"{job.run_dir} holds no results of a run (no {', '.join(lacking)} in results.json); "
            "give another --out, or move it away"
        )
    theirs = script.OLDER | results["args"] | {"seed": results["seed"]}
    theirs |= {"algorithm": results.get("algorithm"), "ablation": results.get("variant", "")}
    ours = vars(job.args) | {"algorithm": job.run.script, "ablation": ""}
    ignored = {"run_dir", "resume"} | script.FREE - {"num_updates", "dataset_path"}
    if "eval_freq" not in job.run.flags:  # a resume to more updates keeps that of fewer
        ignored |= {"eval_freq"}
    differences = []
    then, now = data_digests(job, results)
    if then != now:
        where = f"as {job.data_path} has now"
        differences.append(f"the data have SHA-256 {then[:8]}, not {now[:8]} {where}")
    elif now or data_is_elsewhere(job):
        ignored |= {"dataset_path"}  # the same file by another name, a link's perhaps
    for name in sorted(ours.keys() - ignored):
        our = plain(name, ours[name])
        their = plain(name, theirs.get(name, ours[name]))
        if our != their:
            differences.append(f"{name} {their!r}, not {our!r}")
    if differences:
        raise ArgumentError(
            f"{job.run_dir} holds another run than this sweep's: {'; '.join(differences)}; "
            "give another --out, or move it away"
        )


def data_is_elsewhere(job) -> bool:
    """Whether only the name of a run's file is known, as to `status` without --data."""
    return bool(job.data_path) and not Path(job.data_path).is_absolute()


def data_digests(job, results) -> tuple[str, str]:
    """SHA-256 of the file that a run was trained on and of the sweep's file for it (a copy keeps
    the time of another file), '' for what is not known."""
    file = Path(job.data_path)
    dataset = results.get("dataset")
    theirs = dataset.get("sha256") if isinstance(dataset, dict) else None
    if not theirs or data_is_elsewhere(job) or not file.is_file():
        return "", ""
    return str(theirs), digest_of(file)


digest_of = lru_cache(sha256_of)  # many runs share a file


def plain(name, value):
    """An argument as it is compared: results.json spells infinity, and a data folder may move."""
    if value is None:  # an older version's
        return ""
    if name == "dataset_path":
        return Path(str(value)).name
    return float(value) if value in ("inf", "-inf") else value


def start_words(job):
    """The command line of a run from its beginning."""
    run = job.run
    words = ["--env-id", run.env_id] if run.env_id else []
    words += ["--seed", str(run.seed), "--run-dir", str(job.run_dir)]
    if job.data_path:
        words += ["--dataset-path", job.data_path]
    return words + flag_words(run.flags)


def resume_words(job):
    """A resume has the run's own arguments. Of those that it may change it gets the sweep's, and
    for what the sweep no longer names the task's default; the device is found anew, and what
    follows it stays: the run may see another than this process."""
    script = import_module(job.run.script)
    saved = (read_results(job.run_dir) or {}).get("args", {})
    ours = vars(job.args)
    changed = {name for name in script.FREE - SEEN if saved.get(name, ours[name]) != ours[name]}
    flags = {"device": "auto"} | {name: ours[name] for name in sorted(changed)}
    flags |= {name: value for name, value in job.run.flags.items() if name in script.FREE}
    if job.data_path:
        flags["dataset_path"] = job.data_path
    return ["--resume", str(job.run_dir), *flag_words(flags)]


def next_command(job) -> list[str]:
    """Script and arguments that bring a run further; nothing where it is done."""
    status = (read_results(job.run_dir) or {}).get("status")
    if status == "diverged" or (status == "finished" and scored(job.run_dir, job.final_episodes)):
        return []
    if status == "finished":
        return score_command(job)
    resuming = any(job.run_dir.glob("checkpoint*.pt"))
    words = resume_words(job) if resuming else start_words(job)
    return [f"{job.run.script}.py", *words]


def score_command(job):
    """Plays the final episodes of a finished run."""
    flags = {"num_eval_episodes": job.final_episodes, "device": "auto"}
    if job.data_path:
        flags["dataset_path"] = job.data_path
    flags["out"] = job.run_dir / "final_scores.json"
    return ["evaluate.py", str(job.run_dir), *flag_words(flags)]


# ------------------------------------------- the worker -------------------------------------------


def work(job, signals, gpu=None) -> bool:
    """Bring a run as far as it goes, or not at all -> whether it was free for us. Two locks: the
    worker's, and the script's own, which a run has that lost its worker, or is a person's."""
    job.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(job.run_dir / ".worker.lock", timeout=0):
            if is_held(job.run_dir / ".lock"):
                return False
            bring_on(job, signals, gpu)
            return True
    except filelock.Timeout:
        return False


def bring_on(job, signals, gpu):
    """Start or resume a run and make its final scores; again after a crash, which is counted, but
    not where the same command would follow on its success."""
    done = []
    while attempts(job.run_dir) < MOST_ATTEMPTS and not signals:
        command = next_command(job)
        if not command or command == done:
            break
        code = call(command, job.run_dir, signals, gpu)
        diverged = (read_results(job.run_dir) or {}).get("status") == "diverged"
        if signals or code in INTERRUPTED:
            break
        done = [] if code else command
        if code and not diverged:
            crashes = attempts(job.run_dir) + 1
            (job.run_dir / "attempts").write_text(f"{crashes}\n")


def call(command, run_dir, signals, gpu) -> int:
    """One process of one thread in this process group, its words to log.txt -> its exit code."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    if gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = gpu
    words = [sys.executable, str(ROOT / command[0]), *command[1:]]
    with open(run_dir / "log.txt", "ab") as log:
        log.write(f"$ {printed(command)}\n".encode(errors="surrogateescape"))
        log.flush()
        begun = log.tell()
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    while child.poll() is None and not signals:
        time.sleep(0.2)
    if child.poll() is None:
        pass_on(child, signals[0], run_dir / "log.txt", begun)
    return child.wait()


def pass_on(child, number, log, begun):
    """Send a signal to a child, unless it was sent to the whole group, as by a terminal's Ctrl-C
    or by Slurm: a second one would end a script before it has saved."""
    time.sleep(1)
    if STOPPING not in log.read_bytes()[begun:]:
        child.send_signal(number)


def printed(command):
    """As one would type it here."""
    return shlex.join(["python", os.path.relpath(ROOT / command[0]), *command[1:]])


@contextlib.contextmanager
def receiving():
    """A list that receives SIGINT and SIGTERM; a second one ends this process."""
    signals = []

    def receive(number, frame):
        signals.append(number)
        signal(number, SIG_DFL)
        print("\nevery run is being saved; once more ends at once", file=sys.stderr)

    previous = {number: signal(number, receive) for number in (SIGINT, SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal(number, handler)


def work_through(jobs, slots, signals, show):
    """Every job once, as many at a time as there are slots (GPUs' numbers, or None), and one that
    another process has when that is done with it. show(folders at work) is called again and again.
    """
    waiting = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    active = set()

    def take(gpu):
        while not signals:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            active.add(job.run.folder)
            was_free = work(job, signals, gpu)
            active.discard(job.run.folder)
            if not was_free:
                waiting.put(job)
                time.sleep(1)

    with ThreadPoolExecutor(len(slots)) as pool:
        futures = [pool.submit(take, gpu) for gpu in slots]
        while not all(future.done() for future in futures):
            show(frozenset(active))
            time.sleep(0.5)
    show(frozenset())
    for future in futures:
        future.result()  # raises what a thread could not do


# ------------------------------------------ the commands ------------------------------------------


Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]


@dataclass(kw_only=True)
class Options:
    """What every command takes."""

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]  # its TOML file
    out: Folder = None  # receives the runs; runs/NAME if not given
    data: Folder = None  # folder of the files that the sweep names under [data]


@dataclass(kw_only=True)
class RunOptions(Options):
    """Run a sweep on this machine, or go on with it."""

    workers: int = 0  # runs at a time; 0: one a core, or as many as fit on --gpus
    gpus: str = ""  # which to use, as in 0,1; empty: the CPU
    per_gpu: int = 1  # runs at a time on each of --gpus
    dry_run: bool = False  # print the commands instead


@dataclass(kw_only=True)
class WorkOptions(Options):
    """Run one run of a sweep: what a job of a Slurm array does."""

    # which of the file's runs, from 0
    index: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX")]


@dataclass(kw_only=True)
class SlurmOptions(Options):
    """Submit what is left of a sweep to Slurm, as an array of one job a run."""

    partition: str  # Slurm's, for the jobs
    time: str  # limit of a job, as in 24:00:00; a run that takes longer is saved and queued again
    gpus: int = 1  # of each job; 0: none
    max_parallel: int = 16  # jobs at a time
    save_before: int = 120  # seconds before the limit at which a run is saved
    sbatch: str = ""  # further options of sbatch, as in "--account=mine --mem=8G"
    dry_run: bool = False  # print the array's script instead


@dataclass(kw_only=True)
class StatusOptions(Options):
    """How far every run of a sweep is, by the results.json files."""


def run(options) -> int:
    """python sweep.py run"""
    sweep, jobs = load(options)
    slots = gpu_slots(options, len(jobs))
    tell_warnings(jobs)
    tell_changes_of_code(jobs)
    if options.dry_run:
        print_commands(jobs)
        return 0
    check_gpus(options.gpus)
    make_out(options.out)
    keep_copy(sweep, options.out)
    progress = Progress(sweep, options.out)
    with receiving() as signals:
        with watching(progress) as show:
            work_through(jobs, slots, signals, show)
        return end(progress, signals)


def work_one(options) -> int:
    """python sweep.py work"""
    sweep, jobs = load(options, options.index)
    make_out(options.out)
    progress = Progress(sweep, options.out)
    with receiving() as signals:
        work_through(jobs, [None], signals, partial(tell_changes, progress, progress.states()))
        return end(progress, signals)


def slurm(options) -> int:
    """python sweep.py slurm"""
    if options.gpus < 0 or options.max_parallel < 1 or options.save_before < 0:
        raise ArgumentError("--gpus, --save-before count from 0 and --max-parallel from 1")
    if not re.fullmatch(r"\S+", options.partition):
        raise ArgumentError(f"--partition {options.partition!r}: name one; sinfo lists them")
    if not re.fullmatch(LIMIT, options.time):
        forms = "24:00:00, 1-12 (days-hours) or 90 (minutes)"
        raise ArgumentError(f"--time {options.time!r} is no limit of Slurm; give one as {forms}")
    options.out = (options.out or Path("runs", options.sweep.stem)).resolve()
    options.data = options.data.resolve() if options.data else None
    sweep, jobs = load(options)
    tell_warnings(jobs)
    tell_changes_of_code(jobs)
    progress = Progress(sweep, options.out)
    failed = {run: state for run, state in progress.states().items() if state == "failed"}
    for line in progress.complaints(failed):
        print(line, file=sys.stderr)
    left = [
        index
        for index, job in enumerate(jobs)
        if next_command(job) and job.run.folder not in failed
    ]
    if not left:
        print(f"nothing is left to do of the {len(jobs)} runs of {sweep.path}")
        return 1 if failed else 0
    text = array_script(sweep, left, options)
    if options.dry_run:
        print(text, end="")
        return 0
    print(submit(sweep, text, options.out))
    keep_copy(sweep, options.out)
    words = ["python", "sweep.py", "status", str(sweep.path), "--out", str(options.out)]
    words += ["--data", str(options.data)] if options.data else []
    print(f"how far it is: {shlex.join(words)}")
    return 0


def status(options) -> int:
    """python sweep.py status"""
    sweep = read_sweep(options.sweep)
    out = options.out or Path("runs", sweep.name)
    check_out(out)
    if not out.exists():
        print(f"no run has begun: there is no folder {out}")
    paths = [run.data for run in sweep.runs]  # of data the names are enough
    if options.data:
        paths = data_files(sweep, options.data)
    progress = Progress(sweep, out)
    others = other_runs(sweep, out, paths)
    states = progress.states() | dict.fromkeys(others, "another run")
    progress.print_table(states)
    for line in [*progress.complaints(states), *others.values()]:
        print(line)
    return 0


def other_runs(sweep, out, paths) -> dict[Path, str]:
    """{folder: why `run` refuses it}; paths: of each run's data."""
    places = [i for i, run in enumerate(sweep.runs) if (out / run.folder).is_dir()]
    begun = replace(sweep, runs=[sweep.runs[i] for i in places])
    others = {}
    for job in checked_jobs(begun, out, [paths[i] for i in places]):
        try:
            refuse_another(job)
        except ArgumentError as error:
            others[job.run.folder] = str(error)
    return others


def load(options, index=None):
    """The sweep, or one run of it, and its jobs, checked; options.out is set if it was not."""
    sweep = read_sweep(options.sweep)
    if index is not None:
        last = len(sweep.runs) - 1
        if not 0 <= index <= last:
            raise ArgumentError(f"INDEX is {index}: {sweep.path} has the runs 0 to {last}")
        sweep = replace(sweep, runs=[sweep.runs[index]])
    options.out = options.out or Path("runs", sweep.name)
    check_out(options.out)
    return sweep, prepare(sweep, options.out, options.data)


def check_out(out):
    """ArgumentError where no folder can be, because a file is in its place or above it, or the name
    is none."""
    for place in (out, *out.parents):
        if os.path.exists(place) and not place.is_dir():
            raise ArgumentError(f"--out {out}: {place} is a file; name a folder")
    try:
        os.lstat(out)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ArgumentError(f"--out {out}: {error.strerror}; name another") from error


def gpu_slots(options, most):
    """For each of the processes at a time, which GPUs it may see: one of --gpus, or none."""
    if options.workers < 0 or options.per_gpu < 1:
        raise ArgumentError("--workers counts from 0 (as many as fit) and --per-gpu from 1")
    if options.per_gpu > 1 and not options.gpus:
        raise ArgumentError(f"--per-gpu {options.per_gpu}: of which GPUs? Add --gpus, as in 0,1")
    if options.gpus:
        gpus = options.gpus.split(",")
        if "" in gpus or len(set(gpus)) < len(gpus):
            raise ArgumentError(f"--gpus {options.gpus}: give each of them once, as in 0,1")
        slots = gpus * options.per_gpu
    else:
        slots = [""] * (options.workers or os.cpu_count())
    return slots[: min(options.workers or len(slots), most)]


def check_gpus(gpus):
    """ArgumentError where this machine has not all of --gpus: a run that is to see another one
    sees none, and would be on the CPU. A line on stderr where it has some, and none is to be used.
    """
    count = import_module("torch").cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = [str(index) for index in range(count)]
    if visible is not None:
        known = [gpu.strip() for gpu in visible.split(",")]
    if not gpus:
        if count:
            print("without --gpus every run is on the CPU", file=sys.stderr)
        return
    if not count:
        raise ArgumentError(
            f"--gpus {gpus}: there is none on this machine; leave it out, and --per-gpu"
        )
    unknown = [gpu for gpu in gpus.split(",") if gpu not in known]
    if unknown:
        raise ArgumentError(
            f"--gpus {gpus}: this machine has no {', '.join(unknown)}, but {', '.join(known)}"
        )


def print_commands(jobs):
    """What would be run now, and after it."""
    for job in jobs:
        command = next_command(job)
        print(printed(command) if command else f"# nothing to do: {job.run_dir}")
        if command and command[0] != "evaluate.py" and job.final_episodes:
            print(printed(score_command(job)))


def keep_copy(sweep, out):
    """The sweep's file in {out}, from which report.py knows which runs there should be."""
    out.mkdir(parents=True, exist_ok=True)
    copy = out / f"{sweep.name}.toml"
    if copy.resolve() == sweep.path.resolve():
        return
    if copy.exists() and copy.read_bytes() != sweep.path.read_bytes():
        print(f"{copy}, of an earlier sweep, is replaced by {sweep.path}", file=sys.stderr)
    with replacing(copy) as unfinished:
        shutil.copyfile(sweep.path, unfinished)


def end(progress, signals) -> int:
    """Say what is not as it should be, and how to go on -> the exit code."""
    states = progress.states()
    print(progress.summary(states))
    for line in progress.complaints(states):
        print(line)
    if set(states.values()) == {"finished"}:
        return 0
    if signals:
        print(f"stopped; go on with: {shlex.join(['python', *sys.argv])}")
        return 128 + signals[0]
    return 1


COMMANDS = {
    "run": (RunOptions, run),
    "slurm": (SlurmOptions, slurm),
    "work": (WorkOptions, work_one),
    "status": (StatusOptions, status),
}


def parse(argv):
    """The words of a command line -> the options of one of COMMANDS."""
    words = list(argv)
    own = [f"--{field.name.replace('_', '-')}" for field in fields(SlurmOptions)]
    if "--sbatch" in words[:-1]:
        place = words.index("--sbatch")
        value = words[place + 1]
        if value not in own:  # the value looks like a flag
            words[place : place + 2] = [f"--sbatch={value}"]
    kinds = {name: kind for name, (kind, _) in COMMANDS.items()}
    first, examples, *_ = __doc__.split("\n\n")  # tyro would double empty lines and wrap nothing
    about = f"{first}\n{examples}\n    docs/sweeps.md: files, states, exit codes"
    return tyro.extras.subcommand_cli_from_dict(kinds, args=words, description=about)


def main() -> int:
    """Exit code: see above; what was refused is said in one line."""
    take_any_letter()
    options = parse(sys.argv[1:])
    actions = dict(COMMANDS.values())
    try:
        return actions[type(options)](options)
    except (InputError, OSError) as error:
        print("error:", str(error).splitlines()[0], file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


if __name__ == "__main__":
    sys.exit(main())
