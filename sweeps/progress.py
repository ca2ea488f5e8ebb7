"""What the folders of a sweep's runs say of them, and the table that shows it."""

import contextlib
import json
import sys
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path

LOST_AFTER = 300  # seconds without a word from a run that is said to run
MOST_ATTEMPTS = 2
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


def number(value) -> float:
    """A number as it is, and 0 for what should be one and is not, or has no bound."""
    if not isinstance(value, int | float):
        return 0
    return value if abs(value) <= sys.float_info.max else 0


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


def scored(run_dir, episodes) -> bool:
    """Whether final_scores.json is of this run, younger than its end (a resume may have moved
    that), and has as many episodes as the sweep asks for, or more."""
    if not episodes:
        return True
    file = run_dir / "final_scores.json"
    scores = read_json(file) or {}
    results = read_results(run_dir) or {}
    same = all(scores.get(key) == results.get(key) for key in ("env_id", "seed"))
    played = scores.get("num_eval_episodes")
    enough = isinstance(played, int) and played >= episodes
    return same and enough and file.stat().st_mtime >= results.get("updated", 0)


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
        if folder in active:
            return {"running": "running", "unscored": "scoring"}.get(state, "starting")
        return "failed" if attempts(run_dir) >= MOST_ATTEMPTS else state

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
            if state == "failed":
                lines.append(f"{run_dir} failed {attempts(run_dir)} times: {last_line(run_dir)}")
                lines.append(f"  its words: log.txt there; to try again, remove {run_dir}/attempts")
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
