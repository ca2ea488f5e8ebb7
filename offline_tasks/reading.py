"""Why a dataset file cannot be read, in a sentence with the remedy."""

from pathlib import Path

SIGNATURES = (b"\x89HDF\r\n\x1a\n", b"PK")  # HDF5 and NPZ, which is a ZIP archive


def why_unreadable(path, key: str, error: Exception) -> str:
    """What is wrong with a file, from what reading it raised and the key that was being read."""
    path = Path(path)
    if path.is_dir():
        return "it is a folder; name the file in it"
    if not path.exists():
        return "there is no such file; --dataset-path names another"
    if not path.is_file():
        return "it is a pipe or a device; write it to a file first"
    if isinstance(error, PermissionError):
        return "this user may not read it; ask its owner, or chmod it"
    if isinstance(error, OSError) and "lock file" in str(error):
        return (
            "another process has it open for writing; wait for that, or set "
            "HDF5_USE_FILE_LOCKING=FALSE where none has (some network disks refuse locks)"
        )
    if isinstance(error, MemoryError):
        return "it does not fit into this machine's memory"
    if isinstance(error, KeyError):
        return f"it has no {key}; D4RL's keys are needed"
    return _wrong_content(path, key, error)


def _wrong_content(path: Path, key: str, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if not start.startswith(SIGNATURES):
        return "it begins like neither; convert it, or download it again"
    if isinstance(error, AttributeError):
        return f"{key} is a group of arrays; join them into one array with a row per step"
    if isinstance(error, (TypeError, ValueError)) and key != "the file":
        return f"{key} are not numbers; store them as float32"
    reason = " ".join(str(error).split())[:100]
    return f"{key} is damaged, cut off or of a kind not known here; write it again ({reason})"
