"""What the ablations share: variants of a training run, over seeds, with a table and a figure.

A script describes its variants as {title: Variant(changes of Args, replaced functions)} and calls
`compare`. Without --env-id and --dataset-path they are trained on the toy (toy.py), whose exact
answers are known. Every run is a folder of --out; the same command uses finished ones again and
goes on with interrupted ones. The title of a variant is in its checkpoints, so that nothing but
its own command goes on with it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from signal import SIGINT

import numpy as np
import paper
import torch
import toy
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import gtp_offline  # noqa: E402
import idle_flags  # noqa: E402
import offline_tasks  # noqa: E402
from evaluate import ARGUMENT_ERRORS  # noqa: E402
from offline_tasks.files import is_held, sha256_of, take_any_letter  # noqa: E402
from offline_tasks.provenance import code_changed, tell_other_code  # noqa: E402
from sweeps.reader import ArgumentError, make_out  # noqa: E402

# Arguments that say where and how something runs; a finished run serves any of them
EQ_14 = {  # weights and critic as the paper's Eqs. 14 and 16 have them, whatever the defaults
    "truncate_advantage": True,
    "std_floor": 0.0,
    "weight_normalization": "none",
    "td_target": "policy",
    "expectile": 0.5,
    "weight_critic": "online",
    "critic_norm": "none",
    "normalize_observations": False,
}
ELSEWHERE = (
    "env_id",
    "dataset_path",
    "run_dir",
    "resume",
    "device",
    "num_threads",
    "tensorboard",
    "checkpoint_freq",
    "log_freq",
)
ENDED = ("finished", "diverged")  # statuses of a run that has nothing left to do
KEYS = {  # of the results.json of any run, and their types
    "status": str,
    "seed": int,
    "args": dict,
    "dataset": dict,
    "updates_per_second": float | int,
}


@dataclass
class Options:
    """Arguments that every comparison takes."""

    out: str = ""  # folder of the runs, the results and the figure; empty: runs/{script}
    env_id: str = ""  # task to train and evaluate on; empty: the toy
    dataset_path: str = ""  # HDF5 or NPZ file; empty: the task's own data
    seeds: int = 3  # runs of each variant
    first_seed: int = 0  # seeds first_seed, first_seed + 1, ...
    num_updates: int = 8_000  # of every run; the paper's tasks take 2,000,000
    hidden_dim: int = 128  # width of the networks; the paper's is 256
    num_eval_episodes: int = 0  # episodes per evaluation; 0: the task's
    eta: float = 0.0  # temperature of the weights (Eq. 14); 0: cloning, no critic
    only: tuple[str, ...] = ()  # titles of variants, or parts of titles; none: all variants
    device: str = "cpu"  # or cuda
    compile: bool = False  # torch.compile the update
    quick: bool = False  # one seed of a few updates: shows that it works, not more


@dataclass
class Variant:
    """Changes of gtp_offline.Args, and functions that take the place of gtp_offline's."""

    changes: dict = field(default_factory=dict)
    replaced: dict[str, Callable] = field(default_factory=dict)
    table: int = 0  # the paper's table that it belongs to; 0: none
    row: str = ""  # what that table calls it; empty: it is not there

    @property
    def file(self) -> Path | None:
        """Where the functions are that it replaces; None without any, and in a notebook."""
        for value in self.replaced.values():
            function = value.func if isinstance(value, partial) else value
            if callable(function):
                file = getattr(sys.modules[function.__module__], "__file__", "")
                return Path(file) if os.path.isfile(file) else None
        return None


class StoppedError(ValueError):
    """A signal has ended a training, which is saved; with the exit code, 128 + signal."""

    def __init__(self, text: str, exit_code: int):
        super().__init__(text)
        self.exit_code = exit_code


# ---- arguments ---------------------------------------------------------------------------------


def check_out(out: str | Path) -> None:
    """ArgumentError unless --out is a folder that can be written to, or can become one."""
    path = Path(out).absolute()
    nearest = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not nearest.is_dir():
        raise ArgumentError(f"--out {out}: {nearest} is no folder; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ArgumentError(f"--out {out}: {nearest} may not be written to; name another folder")


def check_least(options, least: dict[str, int]) -> None:
    """ArgumentError for a number of the options, any ablation's, below its least one."""
    for name, low in least.items():
        value = getattr(options, name)
        if value < low:
            flag = name.replace("_", "-")
            raise ArgumentError(f"--{flag} is {value}; it must be at least {low}")


def check_distinct(flag: str, values: list[str]) -> None:
    """ArgumentError for a value, as titles and tables have it, that is given twice."""
    for value in values:
        if values.count(value) > 1:
            raise ArgumentError(f"{flag} has {value} twice, as titles have it; leave one out")


def is_size(value: float) -> bool:
    """A finite number from 0."""
    return 0 <= value < math.inf


def check_numbers(flag: str, values, fits=is_size, takes="finite numbers from 0", form="") -> None:
    """ArgumentError for a list of numbers that is empty, has one that does not fit (NaN fits no
    comparison) or one twice, as titles have it in their form."""
    if not values:
        raise ArgumentError(f"{flag} is empty; give {takes}")
    for value in values:
        if not fits(value):
            raise ArgumentError(f"{flag} has {value:g}; give {takes}")
    check_distinct(flag, [format(value, form) for value in values])


def check_folders(flag: str, folders) -> None:
    """ArgumentError for a folder that is named twice, however it is spelled."""
    known = set()
    for folder in folders:
        place = os.path.realpath(folder)
        if place in known:
            raise ArgumentError(f"{flag} has {folder} twice; leave one out")
        known.add(place)


def check_variants(variants: dict[str, Variant], options: Options) -> None:
    """gtp_offline.ArgumentError for arguments that a run of the variants could not take."""
    for variant in variants.values():
        gtp_offline.check_args(arguments(variant, options.first_seed, options))


def report_idle(options: Options) -> None:
    """A line on stderr for a flag that does nothing in these runs. A script says nothing of the
    kind of an ablation: what a variant changes nobody has given, and what it replaces may use other
    flags."""
    usual = arguments(Variant(), 0, replace(options, num_eval_episodes=0))
    given = arguments(Variant(), 0, options)
    idle_flags.report("gtp_offline", given, usual)


# ---- runs --------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(module, functions: dict[str, Callable]):
    """The module with some of its names replaced, which its other functions then use."""
    usual = {name: getattr(module, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(module, name, function)
        yield
    finally:
        for name, function in usual.items():
            setattr(module, name, function)


def prepare(options: Options, name: str) -> Options:
    """The options with a folder, the toy's data and what --quick means; ArgumentError for bad ones.
    Nothing is written before the first run."""
    check_least(options, {"seeds": 1, "first_seed": 0})
    if options.first_seed + options.seeds > 2**63:
        words = f"{options.seeds} seeds from there are not all below 2^63; give a smaller one"
        raise ArgumentError(f"--first-seed is {options.first_seed}: {words}")
    out = options.out or f"runs/{name}"
    check_out(out)
    torch.set_num_threads(1)
    options = replace(options, out=out, device=gtp_offline.find_device(options.device))
    if not (options.env_id or options.dataset_path):
        options = replace(options, dataset_path=str(toy_file(options)))
    report_idle(options)
    if options.quick:
        options = replace(
            options,
            seeds=1,
            num_updates=min(options.num_updates, 60),
            hidden_dim=16,
            num_eval_episodes=options.num_eval_episodes or 1,
        )
    return options


def toy_file(options: Options) -> Path:
    """Where prepared options have the toy's data."""
    return Path(options.out) / "toy.npz"


def write_toy(options: Options) -> None:
    """The toy's data, where they are to be trained on and not there yet."""
    file = toy_file(options)
    if options.dataset_path == str(file) and not file.exists():
        toy.write_dataset(file)


def on_toy(options: Options) -> bool:
    """Whether prepared options train on the toy."""
    return not options.env_id and Path(options.dataset_path) == toy_file(options)


def floor(options: Options) -> float | None:
    """The energy score of the data itself, where it is known."""
    return toy.energy_score() if on_toy(options) else None


def arguments(variant: Variant, seed: int, options: Options):
    """gtp_offline.Args of one run."""
    args = gtp_offline.default_args(
        env_id=options.env_id,
        dataset_path=options.dataset_path,
        literal=variant.changes.get("literal", False),
        device=options.device,
    )
    args = replace(
        args,
        seed=seed,
        num_updates=options.num_updates,
        eval_freq=max(1, options.num_updates // 4),
        hidden_dim=options.hidden_dim,
        eta=options.eta,
        compile=options.compile,
        tensorboard=False,
    )
    if options.num_eval_episodes:
        args = replace(args, num_eval_episodes=options.num_eval_episodes)
    if on_toy(options):
        as_on_multigoal = {"learning_rate": 1e-3, "normalize_observations": False, "ema_every": 1}
        args = replace(args, **as_on_multigoal)
    return replace(args, **variant.changes)


def run_folder(title: str, seed: int, options: Options) -> Path:
    """The folder of a run, named after its variant, seed and length."""
    words = "".join(c if c.isalnum() or c in ".-" else "_" for c in title)
    name = f"{words}__{seed}__{options.num_updates}"
    if options.quick:
        name += "__quick"
    return Path(options.out) / name


def run(title: str, variant: Variant, seed: int, options: Options) -> dict:
    """results.json of one run: trained, continued or found. `diverged` is a result, too."""
    folder = run_folder(title, seed, options)
    file = folder / "results.json"
    write_toy(options)
    args = replace(arguments(variant, seed, options), run_dir=str(folder))
    results = earlier_results(folder, args)
    if results["status"] not in ENDED:
        print(f"{folder}:", flush=True)
        if has_checkpoint(folder):
            saved = gtp_offline.resume_args(folder)
            data = args.dataset_path or saved.dataset_path
            args = replace(saved, device=options.device, dataset_path=data)
        train(title, variant, args)
        results = json.loads(file.read_text())
    refuse_interrupted(folder, results)
    about = {"variant": title, "table": variant.table, "row": variant.row}  # for tables.py
    if any(results.get(key) != value for key, value in about.items()):
        results |= about
        gtp_offline.write_json(file, results)
    return results | {"run_dir": str(folder)}


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on or act; a kill between two renames leaves the previous one alone."""
    return any(folder.glob("checkpoint*.pt"))


def read_results(folder: Path) -> dict | None:
    """A run's results.json, None where there is none; ValueError where it is not a run's."""
    file = folder / "results.json"
    if not file.exists():
        return None
    try:
        results = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read, it may be damaged") from error
    lacking = [*KEYS]
    if isinstance(results, dict):
        lacking = [key for key, kind in KEYS.items() if not isinstance(results.get(key), kind)]
    if lacking:
        raise ValueError(f"{file} is not of a run: it has no {', '.join(lacking)}")
    return results


def earlier_results(folder: Path, args, script=gtp_offline) -> dict:
    """What the run in a folder says of itself, in results.json or, where that is gone, in its
    checkpoint; {"status": "absent"} where there is none. ValueError for a run of other data or
    arguments, or one that cannot be read."""
    try:
        results = read_results(folder)
        if results is None and has_checkpoint(folder):
            saved = script.load_checkpoint(folder)["results"]
            results = saved | {"status": "running"}  # results.json is still to be written
    except ValueError as error:
        raise ValueError(f"{error}; remove {folder} or give another --out") from error
    if results is None:
        return {"status": "absent"}
    was = difference(results, args, script)
    if was:
        raise ValueError(f"{folder} was run with {was}; remove it or give another --out")
    return results


def check_free(folder: Path, args, title: str = "", script=gtp_offline) -> dict:
    """What a run will find in its folder, before hours are spent on those before it: ValueError
    where it could not begin there or go on. title: its variant's."""
    remedy = f"remove {folder} or give another --out"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder; {remedy}")
    results = earlier_results(folder, args, script)
    if results["status"] in ENDED:
        return results | {"run_dir": str(folder)}
    if is_held(folder / ".lock"):
        raise ValueError(f"{folder} is being trained by another process; wait for its end")
    if has_checkpoint(folder):
        try:
            saved = script.load_checkpoint(folder)["results"]
        except ValueError as error:
            raise ValueError(f"{error}; {remedy}") from error
        variant = saved.get("variant", title)
        if variant != title:
            raise ValueError(f"{folder} is a run of {variant!r}, not of {title!r}; {remedy}")
    return results | {"run_dir": str(folder)}


def changed_code(results: dict, variant: Variant, script=gtp_offline) -> str:
    """Which files are others by now than those that made a run that is there; '' if none."""
    names = []
    if code_changed(results, Path(script.__file__)):
        names.append(f"{script.__name__}.py")
    if variant.file and code_changed(results, variant.file, "ablation_sha256"):
        names.append(variant.file.name)
    return " and ".join(names)


def check_grid(variants: dict[str, Variant], seeds: range, options: Options) -> list[dict]:
    """What all runs of a grid will find in their folders; ValueError as of check_free."""
    found = []
    made_by = []
    for title, variant in variants.items():
        for seed in seeds:
            folder = run_folder(title, seed, options)
            args = replace(arguments(variant, seed, options), run_dir=str(folder))
            found.append(check_free(folder, args, title))
            made_by.append((changed_code(found[-1], variant), str(folder)))
    tell_other_code(made_by)
    return found


def refuse_diverged(results: dict) -> None:
    """ValueError for a run that cannot stand in a comparison of finished ones."""
    if results["status"] == "diverged":
        raise ValueError(f"{results['run_dir']} diverged; remove it and give other --num-updates")


def refuse_lost(results: dict) -> None:
    """ValueError for a finished run that cannot act any more."""
    folder = Path(results["run_dir"])
    if results["status"] == "finished" and not has_checkpoint(folder):
        raise ValueError(f"{folder} has lost its checkpoint; remove it to train it anew")


def refuse_interrupted(folder: Path, results: dict) -> None:
    """StoppedError for a run that a signal has ended."""
    if results["status"] == "interrupted":
        text = f"{folder} is interrupted; the same command goes on from there"
        raise StoppedError(text, results["exit_code"])


def train(title: str, variant: Variant, args) -> None:
    """Train gtp_offline.py with what the variant replaces, under the variant's name."""
    if args.compile:
        torch._dynamo.reset()  # else the ninth run of a process stays eager
    replaced = variant.replaced | {"VARIANT": title}
    if variant.file:
        about = {"ablation_sha256": sha256_of(variant.file)}
        begin = gtp_offline.new_results
        replaced["new_results"] = lambda *given: begin(*given) | about
    with replacing(gtp_offline, replaced):
        gtp_offline.train(args)


def difference(results: dict, args, script=gtp_offline) -> str:
    """What a run of a script has that is not in args, as an error names it; empty if it is the
    same. Arguments that say where it ran or that do nothing make no difference."""
    saved = script.OLDER | results["args"]
    task = saved.get("env_id") or ""
    if task != args.env_id:
        return f"--env-id {shlex.quote(task)}"
    dataset = results["dataset"]
    if args.dataset_path:
        other_data = sha256(args.dataset_path) != dataset.get("sha256")
    else:
        other_data = bool(saved.get("dataset_path"))
    if other_data:
        return f"the data {dataset.get('path')}"
    aside = {*ELSEWHERE, *idle_flags.idle_flags(script.__name__, args)}
    for name, value in asdict(args).items():
        was = plain(saved.get(name, value))
        if name not in aside and was != plain(value):
            return f"--{name.replace('_', '-')} {was}"
    return ""


def plain(value):
    """An argument as results.json has it."""
    return "inf" if value == math.inf else value


@lru_cache
def sha256(path: str) -> str:
    """Of a dataset, as results.json has it; ValueError if it cannot be read."""
    try:
        return sha256_of(Path(os.path.expanduser(path)))
    except OSError as error:
        raise ValueError(f"--dataset-path {path} cannot be read ({error.strerror})") from error


def load_policy(run_dir: str, **changes):
    """The act of a run; None if it diverged before its first checkpoint, ValueError for a finished
    one that has lost its checkpoint: a mean would be of fewer seeds than it says."""
    if not has_checkpoint(Path(run_dir)):
        results = read_results(Path(run_dir)) or {"status": "absent"}
        refuse_lost(results | {"run_dir": run_dir})
        return None
    return gtp_offline.load_policy(run_dir, **changes)


def machine(device: str) -> str:
    """What the runs ran on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU"


# ---- measurements ------------------------------------------------------------------------------


def measured_with(options) -> dict:
    """The arguments of a measurement as its JSON file has them: all but the folder."""
    return json.loads(json.dumps(asdict(options) | {"out": ""}))


def check_measured(file: Path, options) -> None:
    """ValueError for a measurement with other arguments, which this one would replace."""
    if not os.path.exists(file):
        return
    try:
        was = json.loads(file.read_text())["options"] | {"out": ""}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        words = "does not say with which arguments it was measured"
        raise ValueError(f"{file} {words}; remove it or give another --out") from error
    if was.get("quick"):  # which showed that it works, not more
        return
    for name, value in measured_with(options).items():
        then = was.get(name, getattr(type(options), name, None))  # it may be older than a flag
        if then != value:
            words = f"was measured with {flag_text(name, then)}"
            raise ValueError(f"{file} {words}; remove it or give another --out")


def flag_text(name: str, value) -> str:
    """An argument of a JSON file as one gives it, or does not."""
    flag = f"--{name.replace('_', '-')}"
    if value is False or value in ("", []):
        return f"no {flag}"
    if value is True:
        return flag
    return f"{flag} {' '.join(map(str, value)) if isinstance(value, list) else value}"


# ---- summaries ---------------------------------------------------------------------------------


def mean_std(values) -> list[float] | None:
    """[mean, standard deviation over the seeds] of what is known, None if nothing is."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    return [float(np.mean(known)), float(np.std(known))]


def score_or_return(row: dict) -> float:
    """Of an evaluation the normalized score, or the return on a task that has no score."""
    score = row["normalized_score"]
    return row["episodic_return"] if score is None else score


def score_name(env_id: str) -> str:
    """What `score_or_return` gives for a task: "score" or "return"."""
    no_score = offline_tasks.normalized_score(env_id, [0.0], [0.0]) is None
    return "return" if no_score else "score"


def summary(runs: list[dict], toy_run: bool) -> dict:
    """[mean, std] over the finished runs of one variant, of their last evaluation; where none has
    finished, over all, of what they had come to."""
    counted = [results for results in runs if results["status"] == "finished"] or runs
    last = [results["last"] or {} for results in counted]
    scores = [row.get("energy_score_by_steps") or {} for row in last]
    steps = sorted(set().union(*scores), key=int)
    row = {
        "seeds": [results["seed"] for results in runs],
        "statuses": [results["status"] for results in runs],
        "run_dirs": [results["run_dir"] for results in runs],
        "counted": [results["run_dir"] for results in counted],
        "energy_score": {k: mean_std([by_steps.get(k) for by_steps in scores]) for k in steps},
        "normalized_score": mean_std([row.get("normalized_score") for row in last]),
        "episodic_return": mean_std([row.get("episodic_return") for row in last]),
        "updates_per_second": mean_std([results["updates_per_second"] for results in counted]),
    }
    if toy_run:
        row |= toy_summary(row["counted"], steps)
    return row


def toy_summary(run_dirs: list[str], steps: list[str]) -> dict:
    """What the policies of one variant do on the toy, by K: [mean, std] of the share of actions
    off every mode, and the mean masses of the modes."""
    off_mode = {}
    masses = {}
    for k in steps:
        acts = [load_policy(folder, num_steps=int(k)) for folder in run_dirs]
        found = [toy.metrics(act) for act in acts if act]
        off_mode[k] = mean_std([row["off_mode"] for row in found])
        masses[k] = None
        if found:
            masses[k] = np.mean([row["masses"] for row in found], 0).tolist()
    return {"off_mode": off_mode, "masses": masses}


def select(variants: dict[str, Variant], only: tuple[str, ...]) -> dict[str, Variant]:
    """The variants with the titles `only`; what is no title stands for all those it is in."""
    titles = set()
    for words in only:
        found = {title for title in variants if words in title}
        if not found:
            raise ArgumentError(f"--only {words} is in none of {', '.join(variants)}")
        titles |= {words} if words in variants else found
    return {title: variant for title, variant in variants.items() if title in titles}


def compare(
    name: str, options: Options, variants: dict[str, Variant], judge: Callable = dict
) -> dict[str, dict]:
    """{title: summary} of every variant over the seeds, also written to {out}/{name}.json.
    judge(results): a run's results, perhaps with another status."""
    chosen = select(variants, options.only) if options.only else variants
    check_variants(chosen, options)
    make_out(options.out)
    write_toy(options)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    check_quick(name, options)
    for results in check_grid(chosen, seeds, options):
        if on_toy(options):  # where every policy is asked for its actions
            refuse_lost(results)
    table = {}
    for title, variant in chosen.items():
        runs = [judge(run(title, variant, seed, options)) for seed in seeds]
        table[title] = summary(runs, on_toy(options))
    write(name, options, table)
    return table


def check_quick(name: str, options: Options) -> None:
    """ValueError where --quick, which shows that a command works, would replace a comparison."""
    file = Path(options.out) / f"{name}.json"
    if not (options.quick and file.exists()):
        return
    try:
        updates = json.loads(file.read_text())["num_updates"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        updates = None
    if updates != options.num_updates:
        raise ValueError(f"{file} is of {updates} updates; give --quick another --out")


def write(name: str, options: Options, table: dict) -> None:
    """Write {out}/{name}.json: the table and where it comes from."""
    data = options.env_id or Path(options.dataset_path).stem
    content = {
        "ablation": name,
        "data": data,
        "dataset_path": options.dataset_path,
        "num_updates": options.num_updates,
        "hidden_dim": options.hidden_dim,
        "eta": options.eta,
        "machine": machine(options.device),
        "torch": torch.__version__,
        "variants": table,
    }
    gtp_offline.write_json(Path(options.out) / f"{name}.json", content)


# ---- what is shown -----------------------------------------------------------------------------


def cell(value, scale: float = 1, digits: int = 0) -> str:
    """Mean ± standard deviation of a [mean, std], '-' for None."""
    if value is None:
        return "-"
    mean, std = value
    return f"{scale * mean:.{digits}f} ± {scale * std:.{digits}f}"


def print_rows(heads: list[str], rows: list[list[str]]) -> None:
    """A table in Markdown."""
    print(" ".join(f"| {text}".strip() for text in heads) + " |")
    print("|---" * len(heads) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def measured(table: dict[str, dict]) -> tuple[str, str]:
    """The heading and the key of what episodes have measured: of a task without a normalized score
    their return; two empty words where none were played."""
    for head, key in (("score", "normalized_score"), ("return", "episodic_return")):
        if any(row.get(key) for row in table.values()):
            return head, key
    return "", ""


def print_table(table: dict[str, dict], printed: dict[str, str] | None = None) -> None:
    """Markdown: energy scores x 1000 and, where known, off-mode %, score (or return), status, the
    paper's."""
    steps = steps_of(table)
    off_steps = steps_of(table, "off_mode")
    head, key = measured(table)
    heads = ["", *(f"energy score x 1000, K={k}" for k in steps)]
    heads += [f"off-mode %, K={k}" for k in off_steps]
    heads += [head] if head else []
    heads += ["updates/s", "status"]
    heads += ["paper"] if printed else []
    rows = []
    for title, row in table.items():
        cells = [title, *(cell(row["energy_score"].get(k), 1000) for k in steps)]
        cells += [cell(row.get("off_mode", {}).get(k), 100) for k in off_steps]
        cells += [cell(row.get(key), 1, 1)] if head else []
        cells += [cell(row["updates_per_second"]), statuses(row)]
        cells += [printed.get(title, "-")] if printed else []
        rows.append(cells)
    print_rows(heads, rows)


def statuses(row: dict) -> str:
    """How the runs of a variant ended and, where not all alike, how many; the finished count."""
    numbers = sorted(Counter(row["statuses"]).items(), reverse=True)
    if len(numbers) == 1:
        return numbers[0][0]
    return ", ".join(f"{number} {status}" for status, number in numbers)


def steps_of(table: dict[str, dict], metric: str = "energy_score") -> list[str]:
    """The K at which any variant has been measured."""
    return sorted({k for row in table.values() for k in row.get(metric, {})}, key=int)


def seeds_text(count: int) -> str:
    """In the title of a figure."""
    return "1 seed" if count == 1 else f"{count} seeds"


def new_figure(width: float, height: float):
    """An empty figure; matplotlib is imported when the first one is drawn."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def style(axis) -> None:
    """The looks of every panel, after all has been drawn in it."""
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[1]:
        axis.legend(frameon=False, fontsize=8)


def bars(table: dict[str, dict], path: Path, title: str, data_score: float | None = None) -> None:
    """Energy score of each variant at each K, lower is better, and that of the data itself."""
    steps = steps_of(table)
    refuse_empty(steps, path.parent)
    colors = ["#c6d4e8", "#7d9fca"] + ["#3b6fb6"] * len(steps)
    figure = new_figure(7, 1.2 + 0.5 * len(table))
    axis = figure.subplots()
    height = 0.8 / len(steps)
    for i, k in enumerate(steps):
        pairs = [row["energy_score"].get(k) or [math.nan, 0] for row in table.values()]
        mean, std = 1000 * np.array(pairs).T
        y = np.arange(len(table)) + (i - (len(steps) - 1) / 2) * height
        axis.barh(y, mean, 0.9 * height, xerr=std, color=colors[i], label=f"K = {k}")
    draw_data_score(axis.axvline, data_score)
    ended = {title: statuses(row) for title, row in table.items()}
    labels = [title if how == "finished" else f"{title} ({how})" for title, how in ended.items()]
    axis.set_yticks(range(len(table)), labels)
    axis.invert_yaxis()
    axis.set(xlabel="held-out energy score x 1000, lower is better", title=title)
    style(axis)
    figure.savefig(path)


def draw_data_score(line: Callable, data_score: float | None) -> None:
    """The energy score of the data itself as a line of a panel (its axvline or axhline)."""
    if data_score is not None:
        line(1000 * data_score, color="black", lw=1, ls="--", label="the data itself")


def show(name: str, options: Options, table: dict, variants: dict, title: str) -> None:
    """The table, with the paper's column for its own task and data only, and the bars."""
    genuine = options.env_id == paper.TABLE_3_TASK and not options.dataset_path
    print_table(table, printed_scores(variants) if genuine else None)
    path = Path(options.out) / f"{name}.png"
    bars(table, path, title, floor(options))
    print(f"{path.with_suffix('.json')}, {path}")


def refuse_empty(drawn: list, folder: Path) -> None:
    """ValueError where nothing can be drawn: no run was evaluated before it diverged."""
    if not drawn:
        raise ValueError(f"nothing to draw: every run in {folder} diverged at once")


def printed_scores(variants: dict[str, Variant]) -> dict[str, str]:
    """{title: the paper's score} of the variants that Table 3 has."""
    rows = {title: variant.row for title, variant in variants.items() if variant.table == 3}
    return {title: paper.TABLE_3[row] for title, row in rows.items() if row in paper.TABLE_3}


def exit_code(error: Exception) -> int:
    """Of what `main` has caught."""
    if isinstance(error, StoppedError):
        return error.exit_code
    wrong_arguments = (ArgumentError, *ARGUMENT_ERRORS)  # of an ablation, of the scripts
    return 2 if isinstance(error, wrong_arguments) else 1


def main(function: Callable, kind: type, argv=None) -> int:
    """Parse the options, call function(options) -> exit code: 0, 1 for what cannot be done, 2 for
    wrong arguments, 128 + signal."""
    take_any_letter()
    options = tyro.cli(kind, args=argv)
    try:
        function(options)
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:  # not in a training, which ends in good order
        return 128 + SIGINT
    return 0
