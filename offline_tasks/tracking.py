"""Weights & Biases: what a run writes for TensorBoard goes there too. wandb is imported only here,
when it is asked for; WANDB_MODE=offline keeps all in the run's directory, for `wandb sync`."""

import secrets
from importlib import import_module
from pathlib import Path

from offline_tasks.registry import prepare


def check_run(env_id: str, track: bool) -> None:
    """ValueError for a task that cannot be run ('': none), or where wandb is asked for in vain.
    Imports what the episodes of the task need."""
    if env_id:
        prepare(env_id)
    if track:
        check_tracking()


def check_tracking() -> None:
    """ValueError unless wandb can be used. A folder of that name, such as wandb itself makes, can
    be imported too, but is empty."""
    try:
        found = hasattr(import_module("wandb"), "init")
    except ImportError:
        found = False
    if not found:
        raise ValueError("--track needs the package wandb: pip install wandb, or leave it out")


def tracking(run_dir, args: dict):
    """A context in which TensorBoard's writers also write to Weights & Biases, always to the same
    run for a run directory: its id is in wandb_id.txt. OSError where wandb refuses to begin."""
    run_dir = Path(run_dir)
    try:
        return import_module("wandb").init(
            project=args["wandb_project"],
            entity=args["wandb_entity"] or None,
            id=_run_id(run_dir / "wandb_id.txt"),
            name=run_dir.name,
            dir=str(run_dir),
            config=args,
            resume="allow",
            sync_tensorboard=True,
        )
    except Exception as error:  # of wandb's own kinds: not logged in, no network, no such entity
        reason = " ".join(str(error).split())[:200]
        raise OSError(f"--track: {reason}; `wandb login`, or set WANDB_MODE=offline") from error


def _run_id(path: Path) -> str:
    """The id in a file, which is made if there is none."""
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    return path.read_text().strip()
