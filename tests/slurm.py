"""A real SLURM of two nodes on this machine, from Debian's packages slurm-wlm and munge, in a folder of its own.

Everything listens on the loopback, on ports of its own, and is ended by its process id. Accounting is off (so there is
no `sacct`), and memory is not enforced. A job takes a whole node, so that two jobs are on two nodes.
"""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deployments.local_stack import wait_until
from tests.ports import own_port

NODES = ("n1", "n2")
CONF = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
SwitchType=switch/none
ReturnToService=2
SlurmctldPort={port}
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
KillWait=5
MinJobAge=3600
"""
PARTITION = "PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP\n"
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8000 State=UNKNOWN\n"


@dataclass
class Slurm:
    """It, and what a process needs in its environment to ask it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Start the controller and two nodes.

        Raises:
            RuntimeError: SLURM is not installed, or a part of it does not start.
        """
        if not (shutil.which("slurmctld", path=_path()) and shutil.which("munged", path=_path())):
            raise RuntimeError("SLURM is not installed: apt-get install slurm-wlm munge")
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        named = {"host": host, "user": getpass.getuser(), "folder": self.folder}
        conf = self.folder / "slurm.conf"
        lines = [CONF.format(port=own_port(), **named)]
        lines += [NODE.format(name=name, host=host, port=own_port()) for name in NODES]
        conf.write_text("".join([*lines, PARTITION.format(nodes=",".join(NODES))]))
        # nothing here uses control groups, and a slurmd that looks for them refuses a machine with both versions
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.environment = {"SLURM_CONF": str(conf), "PATH": _path()}
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        at = {name: f"{self.folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
        files = [f"--key-file={key}", f"--socket={at['socket']}", f"--pid-file={at['pid']}"]
        self._run("munged", "--force", *files, f"--log-file={at['log']}", f"--seed-file={at['seed']}")
        self._run("slurmctld", "-c")
        for name in NODES:
            self._run("slurmd", "-N", name)
        wait_until(
            "both nodes are idle", lambda: self.ask("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * 2, 120
        )

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints; "" if it fails."""
        answer = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        return answer.stdout if answer.returncode == 0 else ""

    def setting(self, folder: Path, prologue: Sequence[str], *preload: str, memory: str = "1GB") -> dict[str, str]:
        """What a worker has in its environment that stages and sends by two jobs here, each shard as a part of its own.

        Args:
            folder: where jobs leave their logs.
            prologue: what is run on a node first. It gets no other environment.
            preload: modules that Dask loads in each process, beside the log of what is done.
            memory: of a job.
        """
        arguments = {
            "cores": 1, "processes": 1, "memory": memory, "interface": "lo", "walltime": "00:20:00",
            "python": sys.executable, "log_directory": str(folder / "log"), "local_directory": str(folder / "dask"),
            "job_script_prologue": list(prologue), "job_extra_directives": ["--exclusive", "--export=NONE"],
            "worker_extra_args": [part for one in ("tests.executions", *preload) for part in ("--preload", one)],
            "scheduler_options": {"dashboard": False},
        }  # fmt: skip
        return {
            "BIDS_PUSH_CLUSTER": "dask_jobqueue.SLURMCluster",
            "BIDS_PUSH_CLUSTER_ARGUMENTS": json.dumps(arguments),
            "BIDS_PUSH_CLUSTER_ADAPT": json.dumps({"minimum_jobs": 2, "maximum_jobs": 2}),
            "BIDS_PUSH_PART_BYTES": "1",
            **self.environment,
        }

    def jobs(self) -> dict[str, str]:
        """The jobs that run: id -> node."""
        return dict(line.split() for line in self.ask("squeue", "-h", "-t", "R", "-o", "%i %N").splitlines())

    def stop(self) -> None:
        """End all jobs, and all of it, by process id."""
        for job in self.ask("squeue", "-h", "-o", "%i").split():
            self.ask("scancel", "--signal=KILL", "--full", job)
            self.ask("scancel", job)
        ended = []
        for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munge"):
            with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
                process = psutil.Process(int((self.folder / f"{name}.pid").read_text()))
                process.terminate()
                ended.append(process)
        for process in psutil.wait_procs(ended, timeout=15)[1]:
            process.kill()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command[0]} does not start: {done.stdout}{done.stderr}")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """SLURM in this folder, whose path has to be short, as those of sockets are."""
    running = Slurm(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
