"""The blocks that the algorithm scripts share, byte for byte.

    python tests/shared_blocks.py           # report what differs; exit code 1 if anything does
    python tests/shared_blocks.py --write   # copy the canonical blocks into the other scripts

A block stands between `# --- shared: NAME ---` and `# --- end shared ---`. The canonical copy is
that of the first script below that has it. A block must be in at least two scripts, and every
script must have all blocks of gtp_offline.py but those listed in LACKS.
"""

import difflib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("gtp_offline.py", "gtp_bc.py", "diffusion_ql.py", "consistency_ac.py")
LACKS = {
    "gtp_bc.py": {"TD target", "acting with a critic"},
    "diffusion_ql.py": {"arguments of GTP", "flow map", "times of GTP", "sampler of GTP"},
    "consistency_ac.py": {"arguments of GTP", "flow map", "times of GTP", "sampler of GTP"},
}
BEGIN, END = re.compile(r"\s*# --- shared: (.+) ---\s*"), re.compile(r"\s*# --- end shared ---\s*")
MARKER = re.compile(r"\s*#\s*-+\s*(end\s+)?shared\b", re.IGNORECASE)  # also a mistyped one


def read_blocks(text: str, name: str) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """{block: (first, last) line with its markers, from 0}, and faults of the markers."""
    blocks, faults, block, first = {}, [], None, 0
    lines = text.splitlines()
    for number, line in enumerate(lines):
        where = f"{name}:{number + 1}"
        if match := BEGIN.fullmatch(line):
            if block is not None:
                faults.append(f"{where}: block {match[1]!r} begins inside block {block!r}")
            if match[1] in blocks:
                faults.append(f"{where}: block {match[1]!r} is there twice")
            block, first = match[1], number
        elif END.fullmatch(line):
            if block is None:
                faults.append(f"{where}: an end without a begin")
            else:
                blocks[block] = (first, number)
            block = None
        elif MARKER.match(line):
            faults.append(f"{where}: no marker of a shared block: {line.strip()}")
    if block is not None:
        faults.append(f"{name}:{first + 1}: block {block!r} has no end")
    return blocks, faults


def missing_blocks(blocks: dict, holders: dict) -> list[str]:
    """Blocks of one script only, and blocks of the canonical script that another lacks."""
    faults = []
    for block, names in holders.items():
        if len(names) == 1:
            faults.append(f"{names[0]}: no other script has block {block!r}")
    for name in blocks:
        expected = blocks.get(SCRIPTS[0], {}).keys() - LACKS.get(name, set())
        for block in expected - blocks[name].keys():
            faults.append(f"{name}: block {block!r} is missing")
    return faults


def altered_blocks(name: str, texts: dict, blocks: dict, holders: dict) -> tuple[list[str], str]:
    """The faults of a script's blocks, and its text with the canonical ones in their place."""
    faults = []
    lines = texts[name].splitlines(keepends=True)
    for block, (first, last) in reversed(blocks[name].items()):  # later ones do not move others
        origin = holders[block][0]
        begin, end = blocks[origin][block]
        canonical = texts[origin].splitlines(keepends=True)[begin : end + 1]
        own = lines[first : last + 1]
        if own == canonical:
            continue
        lines[first : last + 1] = canonical
        difference = "".join(difflib.unified_diff(canonical, own, origin, name, n=0)).rstrip("\n")
        faults.append(f"{name}:{first + 1}: block {block!r} differs from {origin}'s\n{difference}")
    return faults, "".join(lines)


def check(folder: Path, write: bool = False) -> list[str]:
    """Faults of the scripts in a folder; with write, differences are mended instead, unless the
    markers themselves are at fault."""
    paths = [folder / name for name in SCRIPTS if (folder / name).exists()]
    texts = {path.name: path.read_bytes().decode() for path in paths}
    read = {name: read_blocks(text, name) for name, text in texts.items()}
    faults = [fault for _, found in read.values() for fault in found]
    if faults or len(texts) < 2:
        return faults
    blocks = {name: found for name, (found, _) in read.items()}
    holders = {}
    for name, found in blocks.items():
        for block in found:
            holders.setdefault(block, []).append(name)
    faults = missing_blocks(blocks, holders)
    for name in texts:
        altered, mended = altered_blocks(name, texts, blocks, holders)
        if write:
            (folder / name).write_bytes(mended.encode())
        else:
            faults += altered
    return faults


def main(arguments: list[str]) -> int:
    if unknown := set(arguments) - {"--write"}:
        print(f"unknown argument {sorted(unknown)}; the only one is --write", file=sys.stderr)
        return 2
    faults = check(ROOT, "--write" in arguments)
    print("\n".join(faults) or "the shared blocks are identical")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
