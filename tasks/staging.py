"""The target's staging folder: where things are in it, who holds it, and how much room there is.

    <staging root>/<target>/
        shards/sub-M2001/sub-M2001_ses-1253.<digest, 12>.parquet
        shards/sub-M2001/sub-M2001_ses-1253.<digest, 12>.receipt.json
        results/        Prefect's results of the staged shards
        gate.json       the gate that is open on this target, if one is
        status.json     what the last runs have found, for people
        failed.json     shards that failed verification, until their bytes were right
        round.json      which published shards were read back, and when
        lock            held by the run that works on the target

A target is a repo and a revision on one Hub. Its folder's name carries a hash of all three, so two targets never
share a file. Nothing here deletes: that is `tasks.cleanup`'s alone.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from tasks.errors import PushError
from tasks.files import sha256_of, write_whole
from tasks.models import LAYOUT_VERSION, Receipt, ShardSpec

DIGEST_IN_NAME = 12  # characters of the digest in a staged file's name: enough that an older layout is never mixed up
RECEIPT_SUFFIX = ".receipt.json"
#: What the kernel says when a file cannot grow: the disk, the user's quota, or the largest file is reached.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FLUSHED_ABOVE = 8 << 20  # bytes: flushing a smaller shard to the disk takes longer than staging it again would


def result_key(digest: str) -> str:
    """The cache key, and so the file name below `results/`, of the result of staging the shard with this digest."""
    return f"stage-{LAYOUT_VERSION}-{digest}"


class TargetBusy(PushError):
    """Another run works on this target on this machine."""


class DiskFull(PushError):
    """The staging disk has no room for what has to be staged."""


class CannotWrite(PushError):
    """The staging folder cannot be made, or does not take a file."""


def refused(folder: Path, error: OSError) -> DiskFull | CannotWrite:
    """The error for people that the system's refusal to make or to write to a staging folder means."""
    if error.errno in NO_ROOM:
        return DiskFull(
            f"the disk of {folder} is full ({error.strerror}). Free some room there, or set BIDS_PUSH_STAGING_ROOT (or "
            "the staging_root parameter) to a larger disk, and run again: what is staged stays."
        )
    return CannotWrite(
        f"nothing can be staged in {folder} ({error.strerror or error}). Give the user who runs this the right to "
        "write there, or set BIDS_PUSH_STAGING_ROOT (or the staging_root parameter) to a folder that can be made."
    )


@dataclass(frozen=True)
class Target:
    """Where a dataset is published: a dataset repo at a revision, on one Hub."""

    endpoint: str
    repo_id: str
    revision: str = "main"

    @property
    def slug(self) -> str:
        """The folder's name: readable, and different for any two targets."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "--", f"{self.repo_id}@{self.revision}")
        exact = "\n".join((self.endpoint.rstrip("/"), self.repo_id, self.revision))
        return f"{readable[:120]}-{hashlib.sha256(exact.encode()).hexdigest()[:10]}"

    def __str__(self) -> str:
        return self.repo_id if self.revision == "main" else f"{self.repo_id} at {self.revision}"


@dataclass(frozen=True, slots=True)
class Identity:
    """A file as the kernel knows it: another one, or one written to since, has another."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity(status: os.stat_result) -> Identity:
    """The identity of a file by its status."""
    return Identity(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Seals:
    """Staged files whose bytes this process has hashed. A class of its own, since Prefect walks through any dict."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Identity]] = {}

    def put(self, file: str, sha256: str, found: Identity) -> None:
        """Remember that the file had these bytes when it was `found`."""
        self._known[file] = sha256, found

    def holds(self, file: str, sha256: str, found: Identity) -> bool:
        """Whether the file had these bytes, and nobody has written to it since."""
        return self._known.get(file) == (sha256, found)


@dataclass(frozen=True)
class Staging:
    """One target's staging folder, and what this process knows of the bytes in it."""

    folder: Path
    _seals: Seals = field(default_factory=Seals, repr=False, compare=False)

    @classmethod
    def of(cls, staging_root: Path, target: Target) -> "Staging":
        """The folder of `target` under the staging root; made when it is first written to."""
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
        """The file that the run which works on the target has locked."""
        return self.folder / "lock"

    @property
    def gate(self) -> Path:
        """The file that names the gate open on this target."""
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
        """Where the shard is staged; another digest is another file."""
        subject = spec.path.split("/")[-2]
        return self.shards / subject / f"{spec.name}.{spec.digest[:DIGEST_IN_NAME]}.parquet"

    def receipt_file(self, spec: ShardSpec) -> Path:
        """Where the shard's receipt is, beside the shard."""
        return self.shard_file(spec).with_suffix(RECEIPT_SUFFIX)

    def write_receipt(self, spec: ShardSpec, receipt: Receipt) -> None:
        """Write the receipt of a shard that this process has just written: from now on the shard counts as staged."""
        write_whole(self.receipt_file(spec), receipt.model_dump_json(indent=1).encode(), receipt.size > FLUSHED_ABOVE)
        self._seals.put(receipt.file, receipt.sha256, identity((self.folder / receipt.file).stat()))

    def read_receipt(self, spec: ShardSpec) -> Receipt | None:
        """The receipt of this very shard (same path and digest), or None; a damaged one is none."""
        try:
            receipt = Receipt.model_validate_json(self.receipt_file(spec).read_bytes())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValidationError):
            return None
        return receipt if (receipt.path, receipt.digest) == (spec.path, spec.digest) else None

    def receipt_of(self, receipt: Receipt) -> Receipt | None:
        """The receipt that is on the disk for the file of this one, or None."""
        path = (self.folder / receipt.file).with_suffix(RECEIPT_SUFFIX)
        try:
            return Receipt.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def receipts(self) -> list[Receipt]:
        """Every readable receipt in the folder, sorted by the staged file's name."""
        found = []
        for path in sorted(self.shards.rglob(f"*{RECEIPT_SUFFIX}")):
            try:
                found.append(Receipt.model_validate_json(path.read_bytes()))
            except (IsADirectoryError, ValidationError):
                continue
        return found

    def intact(self, receipt: Receipt) -> bool:
        """Whether the staged file is what its receipt says, by its size and by all of its bytes.

        A process reads each file once for this: whoever writes to it later changes its ctime, and nobody can set that.
        """
        path = self.folder / receipt.file
        try:
            found = identity(path.stat())
            if found.size != receipt.size:
                return False
            if self._seals.holds(receipt.file, receipt.sha256, found):
                return True
            if sha256_of(path) != receipt.sha256 or identity(path.stat()) != found:
                return False
        except OSError:
            return False
        self._seals.put(receipt.file, receipt.sha256, found)
        return True

    def read_intact(self, spec: ShardSpec) -> Receipt | None:
        """The receipt of a shard that is staged and intact, or None."""
        receipt = self.read_receipt(spec)
        return receipt if receipt is not None and self.intact(receipt) else None

    def read_whole(self, spec: ShardSpec) -> Receipt | None:
        """The receipt of a shard whose staged file has its size, or None. Its bytes are hashed before they are sent."""
        receipt = self.read_receipt(spec)
        try:
            whole = receipt is not None and (self.folder / receipt.file).stat().st_size == receipt.size
        except OSError:
            return None
        return receipt if whole else None

    def staged_bytes(self) -> int:
        """The bytes of every staged shard in the folder, with or without a receipt."""
        return sum(path.stat().st_size for path in self.shards.rglob("*.parquet"))

    @contextmanager
    def held(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the target for this process. The kernel lets go when the process dies, however it dies.

        Args:
            patience: seconds to wait for another process to let go.

        Raises:
            TargetBusy: another process holds it.
            CannotWrite: the folder cannot be made or written to.
            DiskFull: its disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.lock)
            lock.acquire(timeout=patience)
        except Timeout as error:
            raise TargetBusy(
                f"another run works on this target (it holds {lock.lock_file}). Wait for it to end, or cancel it in "
                "the Prefect UI; a run that was killed holds nothing."
            ) from error
        except OSError as error:
            raise refused(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def require_room(self, needed: int) -> None:
        """Check that `needed` bytes fit on the staging disk, with a little to spare.

        Raises:
            DiskFull: they do not; nothing was written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        reserve = max(64 << 20, needed // 100)  # bytes: Parquet's own overhead, receipts, Prefect's results
        if needed and free < needed + reserve:
            raise DiskFull(
                f"the disk of {self.folder} has {free / 1e9:.2f} GB free, and {(needed + reserve) / 1e9:.2f} GB are "
                "needed to stage what is missing on the Hub. Free some room there, or set BIDS_PUSH_STAGING_ROOT (or "
                "the staging_root parameter) to a larger disk. Nothing was staged or sent."
            )
