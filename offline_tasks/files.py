"""Where data files lie, and how a file is written whole."""

import contextlib
import hashlib
import os
import sys
import tempfile
import threading
from pathlib import Path

D4RL_FOLDER = "D4RL_DATASET_DIR"  # the variable of D4RL's own folder, where toys lie too
ANOTHER_FILE = ", or pass --dataset-path FILE"


def data_folder(variable=D4RL_FOLDER, default="~/.d4rl/datasets", instead=ANOTHER_FILE) -> Path:
    """The folder that an environment variable names, or the default, absolute; ValueError where a ~
    in it stands for no folder: an unknown user, or a container's without a home."""
    folder = os.environ.get(variable) or default
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"dataset folder {folder}: no home directory is known for its ~; set {variable} "
            f"to a writable folder{instead}"
        ) from error


@contextlib.contextmanager
def writing_data(folder: Path, variable=D4RL_FOLDER, instead=ANOTHER_FILE):
    """Makes a folder of data, which a variable can name. ValueError, which names the variable, of
    what the system refuses in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ValueError(
            f"dataset folder {folder} cannot be used ({error}): set {variable} to a writable "
            f"folder{instead}"
        ) from error


def check_folder(folder) -> None:
    """ValueError for a folder that cannot be written to; permissions do not tell of /proc or of a
    file system that is read-only."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror}); name another"
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
