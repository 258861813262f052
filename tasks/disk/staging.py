"""The target's staging folder: where things are in it, which run holds it, and how much room there is.

    <staging root>/<target>/
        shards/sub-M2001/sub-M2001_ses-1253.<digest, 12>.parquet
        shards/sub-M2001/sub-M2001_ses-1253.<digest, 12>.receipt.json
        results/        Prefect's results of the staged shards
        gate.json       the gate that is open on this target, if there is one
        status.json     what the last runs have found, for people
        failed.json     shards that failed verification, until their bytes were right
        round.json      which published shards were read back, and when
        lock            held by the run that works on the target

A target is a repo and a revision on one Hub. The name of its folder carries a hash of all three, so two targets never
share a file. Nothing here deletes: only `tasks.cleanup` does.

Others can write to the folder too, so it cannot be trusted: links, FIFOs and foreign files are neither followed nor
opened (`tasks.disk.untrusted`), and `strangers` names them.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from tasks.disk.files import TEMPORARY_SUFFIX, write_whole
from tasks.disk.paths import printable
from tasks.disk.untrusted import NOT_ORDINARY, Entry, entries, identity, read_below, sha256_below, status_below
from tasks.values.errors import PushError
from tasks.values.models import LAYOUT_VERSION, Identity, Receipt, ShardSpec

DIGEST_IN_NAME = 12  # characters of the digest in a staged file's name: enough never to mix up an older layout
SHARD_SUFFIX, RECEIPT_SUFFIX = ".parquet", ".receipt.json"
#: The names that bids-push gives to the files of a shard, and to Prefect's results of staging shards.
OURS = re.compile(
    rf"shards/[^/]+/[^/]+\.[0-9a-f]{{{DIGEST_IN_NAME}}}({re.escape(SHARD_SUFFIX)}|{re.escape(RECEIPT_SUFFIX)})"
    rf"((\.[0-9a-f]{{8}})?{re.escape(TEMPORARY_SUFFIX)})?|results/stage-\d+-[0-9a-f]{{64}}"
)
#: The other names of ours: what is remembered, the lock, and what Prefect keeps of tasks that have failed.
_BESIDE = re.compile(rf"([a-z-]+\.jsonl?|head)({re.escape(TEMPORARY_SUFFIX)})?|lock|results/[0-9a-f]{{32}}")
#: What the kernel says when a file cannot grow because of the disk, the user's quota, or the largest file size.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What it says if the file system has no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
FLUSHED_ABOVE = 8 << 20  # bytes: flushing a smaller shard to the disk takes longer than staging it again would


def _can_lock(path: Path) -> bool:
    """Return whether the file system has locks that the kernel lets go of when a process dies.

    The file is made if it is missing. filelock would fall back to a lock that is there for as long as its file is.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    finally:
        os.close(descriptor)
    return True


def result_key(digest: str) -> str:
    """Return the cache key of the result of staging the shard with this digest.

    It is the file name below `results/` too.
    """
    return f"stage-{LAYOUT_VERSION}-{digest}"


class TargetBusy(PushError):
    """Another run works on this target on this machine."""


class DiskFull(PushError):
    """The staging disk has no room for what has to be staged."""


class CannotWrite(PushError):
    """The staging folder cannot be made, or does not take a file."""


def refused(folder: Path, error: OSError) -> DiskFull | CannotWrite:
    """Return the error for people when the system refuses to make a staging folder or to write to it."""
    if error.errno in NO_ROOM:
        return DiskFull(
            f"the disk of {folder} is full ({error.strerror}). Free some room there, or set BIDS_PUSH_STAGING_ROOT (or "
            "the staging_root parameter) to a larger disk, and run again: what is staged stays."
        )
    return CannotWrite(
        f"nothing can be staged in {folder} ({error.strerror or error}). Give the user who runs this the right to "
        "write there, or set BIDS_PUSH_STAGING_ROOT (or the staging_root parameter) to a folder that can be made."
    )


def receipt_name(receipt: Receipt) -> str:
    """Return the path of a receipt, relative to the target's folder."""
    return receipt.file.removesuffix(SHARD_SUFFIX) + RECEIPT_SUFFIX


def _written(receipt: Receipt) -> bytes:
    """Return the bytes of a receipt's file."""
    return receipt.model_dump_json(indent=1).encode()


def result_name(receipt: Receipt) -> str:
    """Return the path of Prefect's result of staging the shard, relative to the target's folder.

    Small shards share one.
    """
    return f"results/{receipt.result or result_key(receipt.digest)}"


@dataclass(frozen=True)
class Target:
    """Where a dataset is published: a dataset repo at a revision, on one Hub."""

    endpoint: str
    repo_id: str
    revision: str = "main"

    @property
    def slug(self) -> str:
        """The name of its staging folder: readable, and different for any two targets."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "--", f"{self.repo_id}@{self.revision}")
        exact = "\n".join((self.endpoint.rstrip("/"), self.repo_id, self.revision))
        return f"{readable[:120]}-{hashlib.sha256(exact.encode()).hexdigest()[:10]}"

    def __str__(self) -> str:
        return self.repo_id if self.revision == "main" else f"{self.repo_id} at {self.revision}"


class KnownBytes:
    """Staged files whose bytes this process has hashed.

    It is a class of its own because Prefect walks through any dict.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Identity]] = {}

    def put(self, file: str, sha256: str, found: Identity) -> None:
        """Remember that the file had these bytes when it was `found`."""
        self._known[file] = sha256, found

    def holds(self, file: str, sha256: str, found: Identity) -> bool:
        """Return whether the file had these bytes, and nobody has written to it since."""
        return self._known.get(file) == (sha256, found)


@dataclass(frozen=True)
class Staging:
    """One target's staging folder, and what this process knows about the bytes in it."""

    folder: Path
    writer: str = ""
    """Of a process on another machine: 8 hexadecimal digits that its temporary files have in their names."""
    _known_bytes: KnownBytes = field(default_factory=KnownBytes, repr=False, compare=False)

    @classmethod
    def of(cls, staging_root: Path, target: Target) -> "Staging":
        """Return the folder of `target` under the staging root. It is made when something is first written to it."""
        return cls(staging_root / target.slug)

    @property
    def shards(self) -> Path:
        """The folder of the staged shards and their receipts."""
        return self.folder / "shards"

    @property
    def results(self) -> Path:
        """The folder of Prefect's results."""
        return self.folder / "results"

    @property
    def lock(self) -> Path:
        """The file that is locked by the run which works on the target."""
        return self.folder / "lock"

    @property
    def gate(self) -> Path:
        """The file that names the open gate of this target."""
        return self.folder / "gate.json"

    @property
    def status(self) -> Path:
        """The file that remembers where the target stands, for people."""
        return self.folder / "status.json"

    @property
    def failed(self) -> Path:
        """The file that keeps the shards that failed verification."""
        return self.folder / "failed.json"

    @property
    def round(self) -> Path:
        """The file that remembers which published shards were read back, and when."""
        return self.folder / "round.json"

    def shard_file(self, spec: ShardSpec) -> Path:
        """Return where the shard is staged. Another digest is another file."""
        subject = spec.path.split("/")[-2]
        return self.shards / subject / f"{spec.name}.{spec.digest[:DIGEST_IN_NAME]}.parquet"

    def name_of(self, spec: ShardSpec) -> str:
        """Return where the shard is staged, relative to the folder."""
        return self.shard_file(spec).relative_to(self.folder).as_posix()

    def receipt_file(self, spec: ShardSpec) -> Path:
        """Return where the shard's receipt is: beside the shard."""
        return self.shard_file(spec).with_suffix(RECEIPT_SUFFIX)

    def require_own_folders(self, *below: Path) -> None:
        """Check that the target's folder, the folders in it, and those `below` that exist, are not links.

        Raises:
            CannotWrite: one of them is a link, so what is written to it would go elsewhere.
        """
        for folder in (self.folder, self.shards, self.results, *below):
            if folder.is_symlink():
                raise CannotWrite(
                    f"{folder} is a symlink, and what is staged must not lead elsewhere. Move away the link, and what "
                    "is behind it to its place; only the staging root itself may be reached through a link."
                )

    def write_receipt(self, receipt: Receipt) -> None:
        """Write the receipt of a shard that this process has just written. From now on the shard counts as staged."""
        file = self.folder / receipt_name(receipt)
        write_whole(file, _written(receipt), receipt.size > FLUSHED_ABOVE, self.writer)
        if receipt.identity is not None:
            self._known_bytes.put(receipt.file, receipt.sha256, receipt.identity)

    def remember(self, receipts: Iterable[Receipt], commit: str) -> None:
        """Note in the shards' receipts that this commit of the target holds them. A commit that is already noted stays.

        This is not flushed to the disk. A power cut may cost a receipt; then its shard is hashed or staged again.
        """
        for receipt in receipts:
            if receipt.commit:
                continue
            name = receipt_name(receipt)
            there = receipt if self._is_written(receipt, name) else self._receipt(name)
            if there is not None and not there.commit and (there is receipt or there.line() == receipt.line()):
                noted = there.model_copy(update={"commit": commit})
                write_whole(self.folder / name, _written(noted), False)

    def _is_written(self, receipt: Receipt, name: str) -> bool:
        """Return whether a receipt is in its file as it is: to compare bytes takes less than to check them again."""
        try:
            return read_below(self.folder, name) == _written(receipt)
        except NOT_ORDINARY:
            return False

    def read_receipt(self, spec: ShardSpec) -> Receipt | None:
        """Return the receipt of exactly this shard (same path and digest), or None. A damaged one counts as none."""
        receipt = self._receipt(self.receipt_file(spec).relative_to(self.folder).as_posix())
        return receipt if receipt and (receipt.path, receipt.digest) == (spec.path, spec.digest) else None

    def receipts(self) -> list[Receipt]:
        """Return every readable receipt in the folder, sorted by the staged file's name."""
        names = (entry.name for entry in entries(self.folder, "shards") if entry.name.endswith(RECEIPT_SUFFIX))
        return [receipt for name in names if (receipt := self._receipt(name)) is not None]

    def _receipt(self, name: str) -> Receipt | None:
        """Return the receipt in this file.

        None if there is none, if it is damaged, or if it belongs to another shard's file.
        """
        try:
            receipt = Receipt.model_validate_json(read_below(self.folder, name))
        except (*NOT_ORDINARY, ValidationError):
            return None
        return receipt if OURS.fullmatch(name) and receipt_name(receipt) == name else None

    def identity_of(self, file: str) -> Identity | None:
        """Return the identity of an ordinary file in the folder, or None if there is no such file."""
        try:
            return identity(status_below(self.folder, file))
        except OSError:
            return None

    def size_of(self, file: str) -> int | None:
        """Return the size of an ordinary file in the folder in bytes, or None if there is no such file."""
        try:
            return status_below(self.folder, file).st_size
        except OSError:
            return None

    def read(self, path: Path) -> bytes:
        """Return the bytes of a small file of ours in the folder.

        Raises:
            OSError: there is no such file, or it is not an ordinary file.
        """
        return read_below(self.folder, path.relative_to(self.folder).as_posix())

    def write(self, path: Path, data: bytes) -> None:
        """Write a small file of ours in the folder, whole.

        Raises:
            DiskFull, CannotWrite: the disk does not take the file.
        """
        try:
            write_whole(path, data)
        except OSError as error:
            raise refused(path, error) from error

    def intact(self, receipt: Receipt) -> bool:
        """Return whether the staged file is what its receipt says, by its size and by all of its bytes.

        A process reads each file only once for this. Whoever writes to it later changes its ctime, and nobody can set
        that.
        """
        try:
            found = identity(status_below(self.folder, receipt.file))
            if found.size != receipt.size:
                return False
            if self._known_bytes.holds(receipt.file, receipt.sha256, found):
                return True
            sha256, found = sha256_below(self.folder, receipt.file)
        except OSError:
            return False
        if (sha256, found.size) != (receipt.sha256, receipt.size):
            return False
        self._known_bytes.put(receipt.file, receipt.sha256, found)
        return True

    def read_whole(self, spec: ShardSpec) -> Receipt | None:
        """Return the receipt of a shard whose staged file has the right size, or None.

        Its bytes are hashed before they are sent.
        """
        receipt = self.read_receipt(spec)
        return receipt if receipt is not None and self.size_of(receipt.file) == receipt.size else None

    def staged_bytes(self) -> int:
        """Return the bytes of all staged shards in the folder, with or without a receipt."""
        return sum(entry.status.st_size for entry in self.ours() if entry.name.endswith(SHARD_SUFFIX))

    def staged_shards(self) -> dict[str, int]:
        """Return the bytes of each staged shard that has a receipt, by the file's name. No file is opened for it."""
        sizes = {entry.name: entry.status.st_size for entry in self.ours()}
        receipts = (name.removesuffix(RECEIPT_SUFFIX) for name in sizes if name.endswith(RECEIPT_SUFFIX))
        return {name: sizes[name] for stem in receipts if (name := stem + SHARD_SUFFIX) in sizes}

    def ours(self) -> list[Entry]:
        """Return the ordinary files whose names are given by bids-push. No other file may ever be removed."""
        found = (*entries(self.folder, "results"), *entries(self.folder, "shards"))
        return [entry for entry in found if OURS.fullmatch(entry.name) and entry.oddity is None]

    def strangers(self) -> dict[str, str]:
        """Return what in the folder is not of bids-push: name for people -> what it is.

        None of it is opened or removed.
        """
        found: dict[str, str] = {}
        for entry in entries(self.folder):
            named = OURS.fullmatch(entry.name) or _BESIDE.fullmatch(entry.name)
            if named and entry.oddity:
                found[printable(entry.name)] = entry.oddity
            elif not named and not entry.is_folder:
                found[printable(entry.name)] = entry.oddity or "bids-push gives no such name"
        return found

    def make(self) -> None:
        """Make the folder if it is missing, for its owner alone: what is staged may be private on the Hub.

        The rights of a folder that is there already are somebody's decision, and stay.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the target for this process. The kernel lets go when the process dies, however it dies.

        Yields:
            Whether it is held. A file system without locks, as clusters have some (Lustre without `flock`, NFS without
            its lock daemon), holds nothing. Then the lease on the server alone keeps two runs apart.

        Raises:
            TargetBusy: another process holds it.
            CannotWrite: the folder cannot be made or written to, or is a link.
            DiskFull: its disk is full.
        """
        try:
            self.require_own_folders()
            self.make()
            lock = FileLock(self.lock) if _can_lock(self.lock) else None
            if lock:
                lock.acquire(timeout=0)
        except Timeout as error:
            raise TargetBusy(
                f"another run works on this target (it holds {self.lock}). Wait for it to end, or cancel it in "
                "the Prefect UI; a run that was killed holds nothing."
            ) from error
        except OSError as error:
            raise refused(self.folder, error) from error
        try:
            yield lock is not None
        finally:
            if lock:
                lock.release()

    def require_room(self, needed: int) -> None:
        """Check that `needed` bytes fit on the staging disk, with a little to spare.

        Raises:
            DiskFull: they do not fit; nothing was written.
        """
        self.make()
        free = shutil.disk_usage(self.folder).free
        reserve = max(64 << 20, needed // 100)  # bytes: Parquet's own overhead, receipts, Prefect's results
        if needed and free < needed + reserve:
            raise DiskFull(
                f"the disk of {self.folder} has {free / 1e9:.2f} GB free, and {(needed + reserve) / 1e9:.2f} GB are "
                "needed to stage what is missing on the Hub. Free some room there, or set BIDS_PUSH_STAGING_ROOT (or "
                "the staging_root parameter) to a larger disk. Nothing was staged or sent."
            )
