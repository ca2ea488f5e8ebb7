"""A Slurm of one machine, for tests: munged, slurmctld and slurmd of its own, without systemd.

    python tests/slurm_cluster.py        # until Ctrl-C; prints what to export to use it

Debian's packages, as root: see INSTALL. The partition `main` is preempted by `high`, and puts back
into the queue what it stops. All is in one folder, on ports that were free, and ends with it.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=20
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str:
    """What keeps a cluster from being started here; nothing if it can be."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"{', '.join(missing)} not installed; as root: {INSTALL}"
    return "" if os.geteuid() == 0 else "only root can start Slurm's daemons"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds, what):
    """The first true value of a function, which is asked twice a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {seconds} s")


def write_configuration(folder):
    host = socket.gethostname().partition(".")[0]
    (folder / "munge").mkdir()
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    text = CONFIGURATION.format(
        host=host, folder=folder, controller_port=free_port(), node_port=free_port()
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    return host


def daemons(folder, host):
    """The command lines, in the order of their start; each stays in the foreground."""
    munge = ["munged", "--foreground", "--force", f"--key-file={folder}/munge/key"]
    for name in ("socket", "pid-file", "log-file", "seed-file"):
        munge.append(f"--{name}={folder}/munge/{name}")
    return [
        munge,
        ["slurmctld", "-D", "-i", "-f", f"{folder}/slurm.conf"],
        ["slurmd", "-D", "-N", host, "-f", f"{folder}/slurm.conf"],
    ]


@contextlib.contextmanager
def cluster():
    """Its folder, with slurm.conf, for SLURM_CONF, and the daemons' logs."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # munge asks for folders that others may enter
        host = write_configuration(folder)
        env = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
        for command in daemons(folder, host):
            with open(folder / f"{command[0]}.out", "wb") as out:
                process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            if command[0] == "munged":
                wait_for((folder / "munge" / "socket").exists, 20, "munged")

        def idle():
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, env=env)
            return state.stdout.split()[:1] == [b"idle"]

        try:
            wait_for(idle, 60, "slurmd")
        except TimeoutError:
            for log in sorted(folder.glob("*.log")):
                print(log.read_text()[-3000:], file=sys.stderr)
            raise
        stack.callback(cancel_all, env)
        yield folder


def cancel_all(env):
    """End every job, and wait until none is left that could outlive its daemons."""
    subprocess.run(["scancel", "--user=root"], env=env)

    def none_left():
        jobs = subprocess.run(["squeue", "-h"], capture_output=True, env=env)
        return jobs.returncode == 0 and not jobs.stdout.strip()

    wait_for(none_left, 60, "the end of the jobs")


def main():
    reason = why_not()
    if reason:
        return reason
    with contextlib.suppress(KeyboardInterrupt), cluster() as folder:
        print(f"export SLURM_CONF={folder}/slurm.conf", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    sys.exit(main())
