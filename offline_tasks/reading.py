"""Why a dataset file cannot be read, in a sentence with the remedy."""

from pathlib import Path

SIGNATURES = (b"\x89HDF\r\n\x1a\n", b"PK")  # HDF5 and NPZ, which is a ZIP archive


class WrongContentError(ValueError):
    """A file can be read, but what it holds is not what is needed: the message says it all."""


def why_unreadable(path, error: Exception) -> str:
    """What is wrong with a file, from what reading it raised."""
    path = Path(path)
    if path.is_dir():
        return "it is a folder; name the file in it"
    if not path.exists():
        return "there is no such file; --dataset-path names another"
    if not path.is_file():
        return "it is a pipe or a device; write it to a file first"
    if isinstance(error, WrongContentError):
        return str(error)
    if isinstance(error, PermissionError):
        return "this user may not read it; ask its owner, or chmod it"
    if isinstance(error, OSError) and "lock file" in str(error):
        return (
            "another process has it open for writing; wait for that, or set "
            "HDF5_USE_FILE_LOCKING=FALSE where none has (some network disks refuse locks)"
        )
    if isinstance(error, MemoryError):
        return "it does not fit into this machine's memory"
    return _damage(path, error)


def _damage(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if not start.startswith(SIGNATURES):
        return "it begins like neither; convert it, or download it again"
    reason = " ".join(str(error).split())[:100]
    return f"it is damaged, cut off or of a kind not known here; write it again ({reason})"
