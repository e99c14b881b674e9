"""A Slurm cluster of this one machine, for a test: real munge, controller and node daemon, no accounting."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scontrol")
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def cannot_run() -> str:
    """Say why no cluster can be brought up here; nothing if it can."""
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [name for name in DAEMONS if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurmd slurmctld slurm-client munge"
    return "" if os.geteuid() == 0 else "the daemons of a cluster need root"


@contextlib.contextmanager
def one_node(folder: Path):
    """Bring the cluster up; yield the environment in which its commands, and submitit, find it.

    `sacct` is ours: submitit asks it for the state of a job, and without an accounting database a killed job would
    be waited for without end.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    host = platform.node().split(".")[0]
    conf = folder / "slurm.conf"
    ports = dict(zip(("controller", "node"), free_ports(2), strict=True))
    conf.write_text(CONF.format(host=host, folder=folder, cores=os.cpu_count(), **ports))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    here = Path(__file__).parent
    env = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{here}:{os.environ['PATH']}:/usr/sbin"}
    files: dict[str, Path | str] = {
        "key": key,
        "socket": "munge.sock",
        "pid": "munged.pid",
        "log": "munged.log",
        "seed": "munge.seed",
    }
    munge = [f"--{name}{'' if name in ('socket',) else '-file'}={folder / file}" for name, file in files.items()]
    started = []
    try:
        # In the foreground, so that they die with us and not later.
        for command in (["munged", "-F", "--force", *munge], ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", host]):
            log = (folder / f"{command[0]}.out").open("wb")
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
            if command[0] == "munged":
                wait_for(lambda: (folder / "munge.sock").exists(), started)
        idle = ["sinfo", "--noheader", "--format=%T"]
        wait_for(
            lambda: subprocess.run(idle, env=env, capture_output=True, text=True).stdout.strip() == "idle", started
        )
        yield env
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)


def wait_for(done, processes, seconds=60.0):
    """Wait until `done()`; the processes must live meanwhile."""
    until = time.monotonic() + seconds
    while not done():
        dead = [process.args[0] for process in processes if process.poll() is not None]
        if dead or time.monotonic() > until:
            raise TimeoutError(f"Slurm did not come up: {', '.join(dead) or 'no idle node'}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[-1].wait(timeout=0.1)


def free_ports(count):
    """Return ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
