"""What the folders of a sweep's runs say of them, and the table that shows it."""

import contextlib
import json
import math
import sys
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path

LOST_AFTER = 300  # seconds without a word from a run that is said to run
MOST_ATTEMPTS = 2
LAST_DIGITS = {False: 1e-4, True: 1e-2}  # of an energy score, relative: bf16 has fewer
COLUMNS = ("run", "state", "updates", "updates/s", "ETA", "last", "best")
SHOWN = ("status", "updated", "update", "num_updates", "updates_per_second")
SHOWN += ("last", "best", "best_by", "early_stop")  # keys of results.json
URGENT = (
    "another run",
    "failed",
    "running",
    "scoring",
    "starting",
    "lost",
    "diverged",
    "interrupted",
)


def read_json(file):
    """The table in a JSON file, or None where there is none that can be read."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_results(run_dir):
    """results.json of a run, or None where there is none that can be read."""
    return read_json(Path(run_dir) / "results.json")


def is_number(value) -> bool:
    """Whether a value is a number that is finite as a float."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) <= sys.float_info.max


def number(value) -> float:
    """A number as it is, and 0 for what should be one and is not, or has no bound."""
    return value if is_number(value) else 0


def state_of(results) -> str:
    """waiting (no results), lost (running, but silent for minutes), or what results.json says."""
    status = str((results or {}).get("status", "waiting"))
    if status == "running" and time.time() - number(results.get("updated")) > LOST_AFTER:
        return "lost"
    return status


def early_stop(results) -> str:
    """That --early-stop ended a finished run, and at which of its updates; '' of others."""
    update = number(results.get("update"))
    ended = results.get("status") == "finished" and "early_stop" in results
    if ended and update < number(results.get("num_updates")):
        return f"early stop at {update:,}"
    return ""


def table_of(results, key) -> dict:
    """A table in results.json; an empty one where there is none."""
    table = results.get(key)
    return table if isinstance(table, dict) else {}


def final_fault(file, content, results) -> str:
    """Why the content of a final_scores.json are no scores of the policy that a run ended with, by
    its results.json; '' where they are."""
    scores = content.get("scores")
    if not isinstance(scores, list) or not scores or not all(map(is_number, scores)):
        return "scores is no list of numbers"
    args = table_of(results, "args")
    own = {"env_id": results.get("env_id"), "seed": results.get("seed")}
    own |= {name: args[name] for name in ("num_steps", "num_candidates") if name in args}
    for name, value in own.items():
        their = content.get(name)
        if their is not None and their != value:
            return f"{name} is {their}, the run's is {value}"
    return update_fault(file, content, results)


def update_fault(file, content, results) -> str:
    """The same of the update that the scores are of. The energy score tells it: its states and its
    noise are always the same, and devices differ by its last digits. Without one, the time does."""
    ours = table_of(results, "last").get("energy_score")
    theirs = content.get("energy_score")
    if not is_number(ours) or not is_number(theirs):
        older = file.stat().st_mtime < number(results.get("updated"))
        return "it is older than the run's end" if older else ""
    rows = results.get("evaluations")
    rows = rows if isinstance(rows, list) else []
    earlier = [row.get("energy_score") for row in rows if isinstance(row, dict)]
    rough = table_of(results, "args").get("bf16") is True
    near = math.isclose(ours, theirs, rel_tol=LAST_DIGITS[rough]) and theirs not in earlier
    younger = file.stat().st_mtime >= number(results.get("updated"))  # not of before a resume
    if ours == theirs or (near and younger):
        return ""
    return f"it is of another update: energy_score is {theirs:.6g}, the run's last is {ours:.6g}"


def scores_fault(run_dir, episodes) -> str:
    """Why a run has not the final scores that its sweep asks for; '' where it has, or more."""
    file = run_dir / "final_scores.json"
    scores = read_json(file)
    if scores is None:
        return "none that can be read"
    played = scores.get("num_eval_episodes")
    if not isinstance(played, int) or played < episodes:
        return f"num_eval_episodes is {played}, the sweep's final_episodes is {episodes}"
    return final_fault(file, scores, read_results(run_dir) or {})


def scored(run_dir, episodes) -> bool:
    """Whether a run has the final scores that its sweep asks for, if it does."""
    return not episodes or not scores_fault(run_dir, episodes)


def attempts(run_dir) -> int:
    """How often a run has crashed."""
    try:
        return int((run_dir / "attempts").read_text())
    except (OSError, ValueError):
        return 0


def last_line(run_dir) -> str:
    """Of a run's log."""
    try:
        lines = (run_dir / "log.txt").read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    spoken = [line.strip() for line in lines if line.strip()]
    return spoken[-1] if spoken else "an empty log"


class Progress:
    """The runs of a sweep below its folder, and what they have come to."""

    def __init__(self, sweep, out):
        self.sweep = sweep
        self.out = out
        self.known = {}  # folder: (when results.json was written, what of it is shown)

    def results(self, folder):
        """What of a run's results.json is shown; read again only when it has changed."""
        file = self.out / folder / "results.json"
        try:
            written = file.stat().st_mtime_ns
        except OSError:
            return {}
        if folder not in self.known or self.known[folder][0] != written:
            results = read_results(file.parent) or {}
            shown = {key: results[key] for key in SHOWN if key in results}
            self.known[folder] = (written, shown)
        return self.known[folder][1]

    def state(self, folder, active=()):
        """Of a run; active: the folders that this process works on."""
        run_dir = self.out / folder
        state = state_of(self.results(folder))
        if state == "finished" and not scored(run_dir, self.sweep.final_episodes):
            state = "unscored"
        if state in ("finished", "diverged"):
            return state
        if attempts(run_dir) >= MOST_ATTEMPTS:
            return "failed"
        if folder in active:
            at_work = {"running": "running", "lost": "running", "unscored": "scoring"}
            return at_work.get(state, "starting")
        return state

    def states(self, active=()):
        """{folder: state} of every run, in the sweep's order."""
        return {run.folder: self.state(run.folder, active) for run in self.sweep.runs}

    def table(self, states, most_rows=None):
        """A line a run; where there are more than fit, those that need a look come first."""
        shown = list(states)
        if most_rows is not None and len(shown) > most_rows:
            order = {state: place for place, state in enumerate(URGENT)}
            shown.sort(key=lambda folder: order.get(states[folder], len(URGENT)))
            shown = shown[:most_rows]
        left_out = len(states) - len(shown)
        table = import_module("rich.table").Table(box=None, title=self.summary(states))
        table.title_justify = "left"
        if left_out:
            table.caption = f"and {left_out} more: python sweep.py status {self.sweep.path}"
        for name in COLUMNS:
            words = name in COLUMNS[:2]
            table.add_column(name, justify="left" if words else "right", no_wrap=True)
        for folder in shown:
            table.add_row(*self.row(folder, states[folder]))
        return table

    def summary(self, states):
        """How many runs are in which state."""
        counts = Counter(states.values()).most_common()
        text = ", ".join(f"{count} {state}" for state, count in counts)
        return f"{self.sweep.name}, {len(states)} runs: {text}"

    def row(self, folder, state):
        """The texts of COLUMNS for a run."""
        results = self.results(folder)
        update = number(results.get("update"))
        total = number(results.get("num_updates"))
        rate = number(results.get("updates_per_second"))
        left = ""
        if state == "running" and rate and total:
            with contextlib.suppress(OverflowError):  # more than timedelta can hold
                left = str(timedelta(seconds=round((total - update) / rate)))
        scores = []
        for key in ("last", "best"):
            evaluation = results.get(key)
            known = isinstance(evaluation, dict) and str(results.get("best_by")) in evaluation
            scores.append(f"{number(evaluation[results['best_by']]):.4g}" if known else "")
        updates = f"{update}/{total}" if total else ""
        stop = early_stop(results)
        shown = f"{state} ({stop})" if stop else state
        return [str(folder), shown, updates, f"{rate:.1f}" if rate else "", left, *scores]

    def complaints(self, states):
        """Lines about the runs that ended without being finished."""
        lines = []
        for folder, state in states.items():
            run_dir = self.out / folder
            if state == "diverged":
                lines.append(f"{run_dir} diverged: {last_line(run_dir)}")
            if state == "unscored" and (run_dir / "final_scores.json").exists():
                fault = scores_fault(run_dir, self.sweep.final_episodes)
                lines.append(f"{run_dir}/final_scores.json does not count: {fault}")
            if state == "failed":
                lines.append(f"{run_dir} failed {attempts(run_dir)} times: {last_line(run_dir)}")
                remedy = f"to try again, remove {run_dir}/attempts"
                finished = state_of(self.results(folder)) == "finished"
                if finished and not any(run_dir.glob("checkpoint*.pt")):
                    remedy = "it has no checkpoint to play; move it away, or drop final_episodes"
                lines.append(f"  its words: log.txt there; {remedy}")
        return lines

    def print_table(self, states):
        """The whole table; as wide as it is where no terminal bounds it."""
        console = import_module("rich.console").Console()
        if not console.is_terminal:
            console = import_module("rich.console").Console(width=160)
        console.print(self.table(states))


@contextlib.contextmanager
def watching(progress):
    """A function of the active folders that shows how far all is: on a terminal a table, drawn
    again and again (rich; tqdm has bars for what runs, but no line for what waits, failed or is
    done), elsewhere a line when a run's state has changed."""
    if not sys.stdout.isatty():
        yield partial(tell_changes, progress, progress.states())
        return
    console = import_module("rich.console").Console()
    with import_module("rich.live").Live(console=console, auto_refresh=False) as live:

        def show(active):
            room = max(1, console.height - 5)
            live.update(progress.table(progress.states(active), room), refresh=True)

        yield show


def tell_changes(progress, told, active):
    """Print the runs whose state is not the one in `told`, and note it there."""
    for folder, state in progress.states(active).items():
        if state != told[folder]:
            words = [word for word in progress.row(folder, state)[1:] if word]
            print(f"{folder}:", *words, flush=True)
        told[folder] = state
