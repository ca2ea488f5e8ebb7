"""What lies in a run's folder already, which a run or a resume must not replace."""

import json
import os
import sys
from pathlib import Path

NAMES = ("checkpoint.pt", "checkpoint.previous.pt")


def check_resumed(path, load_checkpoint, update: int, end: int) -> None:
    """A line on stderr where a checkpoint, of an update, is older than the one beside it. Raises a
    ValueError where results would be lost: those of another run, whose folder the file lies in, or
    newer ones, where the resumed run will end before them.

    load_checkpoint: the script's, from a folder to the newest whole state in it.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    is_older = path.name == NAMES[1]
    results = read_results(folder)
    if path != folder and path.name not in NAMES:
        resumed = (results.get("args") or {}).get("resume")  # again, if killed before a checkpoint
        own = bool(resumed) and Path(resumed).absolute() == path.absolute()
        held = [name for name in (*NAMES, "results.json") if (folder / name).exists()]
        if held and not (own and held == ["results.json"]):
            raise ValueError(
                f"{path} lies in a run's folder; copy it to a folder of its own, or go on with "
                f"that run: --resume {folder}"
            )
        return
    done = [results.get("update"), update]
    if is_older:
        done.append(load_checkpoint(folder)["results"]["update"])
    newest = max(number for number in done if isinstance(number, int))
    if end < newest:
        total = max(newest, results.get("num_updates") or 0)
        raise ValueError(
            f"{path} would end at update {end}, {folder} has been at {newest}; "
            f"give --resume {folder} --num-updates {total}"
        )
    if is_older and update < newest:
        print(
            f"{folder} is at update {newest}: those after {update} are run again, to resume {path}",
            file=sys.stderr,
        )


def read_results(folder) -> dict:
    """results.json of a folder; nothing where there is none, or another thing."""
    try:
        results = json.loads((Path(folder) / "results.json").read_text())
    except (OSError, ValueError):
        return {}
    return results if isinstance(results, dict) else {}


def warn_of_divergence(path, update: int) -> None:
    """A line on stderr where the run in a folder, or of a checkpoint in it, went on from the
    checkpoint of an update and diverged."""
    path = Path(os.path.expanduser(path))
    results = read_results(path if path.is_dir() else path.parent)
    if results.get("status") == "diverged":
        diverged = f"{path} diverged by update {results.get('update')}"
        print(f"warning: {diverged}; its checkpoint is of update {update}", file=sys.stderr)


def ended_results(run_dir) -> dict:
    """The results in a folder of a run that was finished or that diverged, perhaps without a
    checkpoint; nothing where there are none."""
    results = read_results(run_dir)
    return results if results.get("status") in ("finished", "diverged") else {}
