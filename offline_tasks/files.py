"""Where data files lie, and how a file is written whole."""

import contextlib
import hashlib
import os
import sys
import threading
from pathlib import Path


def data_folder() -> Path:
    """$D4RL_DATASET_DIR, or D4RL's own ~/.d4rl/datasets, absolute; ValueError where a ~ in it
    stands for no folder: an unknown user, or a container's without a home."""
    folder = os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets"
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"dataset folder {folder}: no home directory is known for its ~; set D4RL_DATASET_DIR "
            "to a writable folder, or pass --dataset-path FILE"
        ) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file (about a second for D4RL's), as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 20)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def take_any_letter() -> None:
    """Lets stdout write what its encoding lacks as \\xfc: stderr does, stdout would raise."""
    if hasattr(sys.stdout, "reconfigure"):  # not a notebook's
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def replacing(path):
    """A temporary name beside `path`, renamed to it at the end: readers see all or nothing."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_held(lock: Path) -> bool:
    """Whether another process has a lock of filelock's, as a run has in its folder."""
    import filelock

    if not lock.exists():
        return False
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True


@contextlib.contextmanager
def one_at_a_time(path):
    """One process at a time makes the file or folder `path`; another waits, and says so."""
    import filelock

    lock = filelock.FileLock(f"{path}.lock")  # freed if its process dies
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that downloads {Path(path).name}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
