"""Which version of what produced a result, and whether what records it is there."""

import contextlib
import shlex
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

from offline_tasks.files import sha256_of

LIBRARIES = ("torch", "numpy", "gymnasium", "mujoco")
THEN = ", then "  # between what began a run and what resumed it


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
        "script_sha256": sha256_of(script),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def since_resumed(then: dict, now: dict) -> dict:
    """Results of a run that goes on (now: what they would say if it began here): what they say of
    the machine and the code, old and new where these differ. Of the code a line on stderr, too."""
    found = {"machine": _both(then.get("machine"), now["machine"])}
    changes = []
    for key in ("commit", "script_sha256"):
        found[key] = _both(then.get(key), now[key])
    if found["script_sha256"] not in (now["script_sha256"], then.get("script_sha256")):
        changes.append(f"{now['algorithm']}.py has changed")
    before = then.get("versions", {})
    found["versions"] = {}
    for name, version in now["versions"].items():
        found["versions"][name] = _both(before.get(name), version)
        if found["versions"][name] not in (version, before.get(name)):
            changes.append(f"{name} is {version}")
    if changes:
        reason = f"a resume by other code than began the run ({', '.join(changes)})"
        print(f"warning: {reason} may end elsewhere", file=sys.stderr)
    return found


def code_changed(results: dict, file: Path, key: str = "script_sha256") -> bool:
    """Whether a file is another than the one whose digest results have; no where they have none."""
    then = results.get(key)
    return isinstance(then, str) and then.split(THEN)[-1] != sha256_of(file)


def tell_other_code(found, since: str = "changed since runs were made that are there") -> None:
    """A line on stderr for each file that made runs, and is another by now, with their number.
    found: pairs of its name ('': nothing has changed) and a run's folder."""
    made = {}
    for name, folder in found:
        made.setdefault(name, []).append(folder)
    made.pop("", None)
    for name, folders in made.items():
        line = f"warning: {name} {since} ({len(folders)}); to train one anew, remove its folder: "
        print(f"{line}{folders[0]}", file=sys.stderr)


def _both(then, now):
    """One of two texts where they are the same or one is not known, else both in their order."""
    if then is None or now is None:
        return now or then
    return then if then.split(THEN)[-1] == now else f"{then}{THEN}{now}"


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
