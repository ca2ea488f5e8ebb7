"""What lies in a run's folder already, which a run or a resume must not replace."""

import json
import sys
from pathlib import Path

NAMES = ("checkpoint.pt", "checkpoint.previous.pt")


def check_resumed_file(path, load_checkpoint, update: int, ended: bool) -> None:
    """A line on stderr where a checkpoint, of an update, is older than the one beside it. Raises a
    ValueError where results would be lost: those of another run, whose folder the file lies in, or
    newer ones, where the run has `ended` and nothing would be trained.

    load_checkpoint: the script's, from a folder to the newest whole state in it.
    """
    file = Path(path)
    folder = file.parent
    if file.is_dir():
        return
    if file.name not in NAMES:
        if any((folder / name).exists() for name in (*NAMES, "results.json")):
            raise ValueError(f"{file} lies in a run's folder; copy it to a folder of its own")
        return
    newest = load_checkpoint(folder)["results"]["update"]
    if newest <= update:
        return
    if ended:
        raise ValueError(f"{file} ends at update {update}, the run at {newest}; give {folder}")
    print(
        f"{folder} is at update {newest}: those after {update} are run again, to resume {file}",
        file=sys.stderr,
    )


def has_ended(run_dir) -> bool:
    """Whether a folder has the results of a run that was finished or that diverged, perhaps without
    a checkpoint."""
    try:
        status = json.loads((Path(run_dir) / "results.json").read_text())["status"]
    except (OSError, ValueError, TypeError, KeyError):  # none, or not of a run
        return False
    return status in ("finished", "diverged")
