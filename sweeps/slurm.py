"""A sweep as a Slurm array: one job a run, each the same worker as on one machine."""

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from sweeps.reader import ArgumentError, InputError, make_out

# USR1, some time before the limit, reaches this shell alone, which asks the worker to save. To a
# preempted job Slurm sends TERM, to all that is in it, and puts it back into the queue by itself;
# the shell outlives TERM, for its end would be the job's. A worker that has saved ends with 143.
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array={array}%{max_parallel}
#SBATCH --partition={partition}
#SBATCH --time={time}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@{save_before}
#SBATCH --output={log}
{options}
trap 'at_limit=1; kill -TERM $worker' USR1
trap : TERM
{command} $SLURM_ARRAY_TASK_ID {folders} &
worker=$!
while kill -0 $worker 2>/dev/null; do
    wait $worker
    code=$?
done
if [ "$at_limit" ] && [ $code = 143 ]; then
    scontrol requeue ${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
fi
exit $code
"""


def array_script(sweep, indices, options) -> str:
    """The text of the array of some of a sweep's runs, by their indices; options: of sweep.py
    slurm, with absolute folders."""
    folder = options.out / "slurm"
    try:
        extra = shlex.split(options.sbatch)
    except ValueError as error:  # a quotation that does not end
        raise ArgumentError(f"--sbatch {options.sbatch}: {error}; close it") from error
    if options.gpus:
        extra = [f"--gpus={options.gpus}", *extra]
    command = [sys.executable, str(Path(__file__).parent.with_name("sweep.py")), "work"]
    command.append(str(frozen(sweep, folder)))
    folders = ["--out", str(options.out)]
    if options.data:
        folders += ["--data", str(options.data)]
    return SCRIPT.format(
        name=re.sub(r"\s", "-", sweep.name),
        array=ranges(indices),
        max_parallel=options.max_parallel,
        partition=options.partition,
        time=options.time,
        save_before=options.save_before,
        log=shlex.quote(str(folder / f"{sweep.name}-%A_%a.txt")),
        options="\n".join(f"#SBATCH {shlex.quote(option)}" for option in extra),
        command=shlex.join(command),
        folders=shlex.join(folders),
    )


def frozen(sweep, folder) -> Path:
    """Where the sweep's file is copied to for an array: an index must not change its meaning while
    jobs wait."""
    digest = hashlib.sha256(sweep.path.read_bytes()).hexdigest()
    return folder / f"{sweep.name}-{digest[:8]}.toml"


def ranges(numbers) -> str:
    """[0, 1, 2, 5] -> "0-2,5", as --array takes them."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in found)


def submit(sweep, text, out) -> str:
    """Write the array's script and hand it to sbatch -> its answer. InputError where there is no
    sbatch, and with Slurm's own words where it refuses."""
    if not shutil.which("sbatch"):
        raise InputError(
            "no sbatch on this machine; do this where Slurm is, or leave it: python sweep.py run"
        )
    make_out(out)
    copy = frozen(sweep, out / "slurm")
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sweep.path, copy)
    file = copy.with_suffix(".sbatch")
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    answer = subprocess.run(["sbatch", str(file)], capture_output=True, text=True)
    if answer.returncode:
        reason = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        raise InputError(f"Slurm refuses {file}: {reason}")
    return answer.stdout.strip()
