"""Which version of what produced a result, and whether what records it is there."""

import contextlib
import hashlib
import shlex
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

LIBRARIES = ("torch", "numpy", "gymnasium", "mujoco")


def provenance(script: Path) -> dict:
    """`command` of this process, `commit` of the script's repository (None outside git),
    `script_sha256`, `versions`."""
    git = ["git", "-C", str(script.parent), "rev-parse", "HEAD"]
    commit = ""
    with contextlib.suppress(OSError):  # git is not installed
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit or None,
        "script_sha256": hashlib.sha256(script.read_bytes()).hexdigest(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def say_changes(results: dict, script: Path) -> None:
    """A line on stderr where a run is resumed by another script or by other libraries than began
    it, of which its results tell."""
    now = provenance(script)
    changes = []
    if results.get("script_sha256", now["script_sha256"]) != now["script_sha256"]:
        changes.append(f"{script.name} has changed")
    for name, version in now["versions"].items():
        before = results.get("versions", {}).get(name, version)
        if before != version:
            changes.append(f"{name} was {before}, is {version}")
    if changes:
        reason = f"a resume by other code than began the run ({', '.join(changes)})"
        print(f"warning: {reason} may end elsewhere", file=sys.stderr)


def check_tensorboard() -> None:
    """ImportError with the remedy where TensorBoard is missing or at odds with another package."""
    try:
        import_module("torch.utils.tensorboard")
    except Exception as error:  # protobuf, say, raises a TypeError
        reason = " ".join(str(error).split())[:200]
        raise ImportError(f"TensorBoard cannot be had ({reason}); give --no-tensorboard") from error


def _version(name: str) -> str | None:
    """A package's version; None where it is absent or was installed without saying."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
