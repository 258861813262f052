"""A machine that is cut off: its processes go on, and nothing that they send arrives, nor what is sent to them.

How it works:

1. The soak runs in a network and a mount namespace of its own (`in_own_network`), in which there is nothing but the
   loopback. So no rule reaches beyond it, and all of it goes with the last process.
2. Each job enters a control group of its own before it opens a socket (`entering`). The kernel notes the group with the
   socket when it is opened.
3. `cut` has nftables drop what the sockets of a group send and what is sent to them, and `heal` takes that away. To TCP
   it is a cable that was pulled and put back.

It needs root, and the programs unshare, mount, ip and nft (Debian: util-linux, mount, iproute2, nftables).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("unshare", "mount", "ip", "nft")
_GROUPS = Path("/sys/fs/cgroup")
_INSIDE = "BIDS_PUSH_SOAK_OWN_NETWORK"
_TABLE = "soak"
#: Run in the new namespaces, before the soak: the loopback, with an address besides its own (one for documentation, RFC
#: 5737), without which glibc resolves none for slurmd; and control groups where nft looks for them.
_SET_UP = f'ip link set lo up && ip address add 192.0.2.1/32 dev lo && mount -t cgroup2 none {_GROUPS} && exec "$@"'


def why_not() -> str:
    """Return why a machine cannot be cut off here, or an empty text if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid():
        return "only root may do it"
    return f"not installed: {', '.join(missing)}" if missing else ""


def in_own_network(command: Sequence[str]) -> None:
    """Start this program again in a network of its own, in place of this process, unless it is in one already.

    Args:
        command: the program and its arguments.
    """
    if os.environ.get(_INSIDE):
        return
    os.environ[_INSIDE] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "--net", "--mount", "--", "sh", "-c", _SET_UP, "sh", *command])


class Partition:
    """The jobs of one soak, any of which can be cut off."""

    def __init__(self, name: str) -> None:
        """Take the name of the control group that holds those of the jobs."""
        self.name = name

    @property
    def entering(self) -> str:
        """What a job's script does first."""
        group = f"{_GROUPS}/{self.name}/$SLURM_JOB_ID"
        return f"mkdir -p {group} && echo $$ > {group}/cgroup.procs"

    def cut(self, job: str) -> None:
        """Cut a job off."""
        _nft(f"add table inet {_TABLE}")
        for hook in ("output", "input"):
            _nft(f"add chain inet {_TABLE} {hook} {{ type filter hook {hook} priority 0; }}")
            _nft(f'add rule inet {_TABLE} {hook} socket cgroupv2 level 2 "{self.name}/{job}" counter drop')

    def heal(self) -> int:
        """Let it be reached again.

        Returns:
            How many packets were dropped.
        """
        dropped = _nft(f"list table inet {_TABLE}").split("packets ")[1:]
        _nft(f"delete table inet {_TABLE}")
        return sum(int(one.split(maxsplit=1)[0]) for one in dropped)


@contextmanager
def partition() -> Iterator[Partition]:
    """Control groups for the jobs of a soak. They are removed at its end."""
    one = Partition(f"bids-push-soak-{os.getpid()}")
    top = _GROUPS / one.name
    top.mkdir()
    try:
        yield one
    finally:
        for group in (*(path for path in top.iterdir() if path.is_dir()), top):
            with suppress(OSError):  # something in it lives on
                group.rmdir()


def _nft(command: str) -> str:
    return subprocess.run(["nft", command], check=True, capture_output=True, text=True).stdout
