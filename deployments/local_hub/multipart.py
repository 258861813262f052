"""LFS content sent in parts, each its own request: written side by side into one file, hashed when all are there.

What is under way is known to this process alone and its file is in `tmp/`: a restart forgets it, and the client, which
never resumes in the middle of a file, begins that file again.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from deployments.local_hub.errors import HubError, bad_request
from deployments.local_hub.receive import BLOCK, Received

PART_SIZE = 128 * 1024 * 1024  # bytes
UPLOADS_LIMIT = 2000  # under way to one repo; the one untouched for longest makes room for a new one
IDLE_LIMIT = 24 * 3600.0  # seconds after which an upload nobody continues is dropped


@dataclass
class Multipart:
    """One file on its way in."""

    id: str
    repo: int
    sha256: str
    size: int
    path: Path
    part_size: int
    etags: dict[int, str] = field(default_factory=dict)
    touched: float = field(default_factory=time.monotonic)

    @property
    def parts(self) -> int:
        """How many parts there are, numbered from 1."""
        return -(-self.size // self.part_size)

    def part_bytes(self, number: int) -> int:
        """Bytes that part `number` must have."""
        return min(self.part_size, self.size - (number - 1) * self.part_size)


class Multiparts:
    """The multipart uploads under way."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._uploads: OrderedDict[str, Multipart] = OrderedDict()  # the one untouched for longest first
        self._counts: Counter[int] = Counter()  # by repo
        self._lock = threading.Lock()

    def begin(self, repo: int, sha256: str, size: int, part_size: int) -> Multipart:
        """Start receiving a file of known digest and size in bytes."""
        upload = Multipart(uuid.uuid4().hex, repo, sha256, size, self._folder / f"parts-{uuid.uuid4().hex}", part_size)
        upload.path.touch()
        with self._lock:
            self._make_room(repo)
            self._uploads[upload.id] = upload
        return upload

    def _make_room(self, repo: int) -> None:
        """Drop what nobody continues, and the oldest of a repo that has too many."""
        late = time.monotonic() - IDLE_LIMIT
        while self._uploads and next(iter(self._uploads.values())).touched < late:
            self._drop(next(iter(self._uploads)))
        if self._counts[repo] >= UPLOADS_LIMIT:
            self._drop(next(known.id for known in self._uploads.values() if known.repo == repo))
        self._counts[repo] += 1

    def _drop(self, upload_id: str) -> None:
        upload = self._uploads.pop(upload_id)
        self._counts[upload.repo] -= 1
        upload.path.unlink(missing_ok=True)

    def get(self, upload_id: str, repo: int) -> Multipart:
        """The upload, or 404 (it was finished, dropped, or the server was started again)."""
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is None or upload.repo != repo:
                raise HubError(404, "This upload is not under way any more: start the file again")
            upload.touched = time.monotonic()
            self._uploads.move_to_end(upload_id)
        return upload

    def put(self, upload: Multipart, number: int, part: Received) -> str:
        """Copy a received part to its place; returns its ETag."""
        with part.path.open("rb", buffering=0) as source, upload.path.open("r+b", buffering=0) as target:
            target.seek((number - 1) * upload.part_size)
            while block := source.read(BLOCK):
                target.write(block)
        part.discard()
        upload.etags[number] = f'"{part.sha256}"'
        return upload.etags[number]

    def complete(self, upload: Multipart, etags: dict[int, str]) -> Received:
        """The whole file, if every part is there and the digest is right; 400 or 422 otherwise, and nothing is kept."""
        if set(etags) != set(range(1, upload.parts + 1)) or any(
            upload.etags.get(number, "").strip('"') != etag.strip('"') for number, etag in etags.items()
        ):
            raise bad_request("The parts are not the ones that were received")
        with self._lock:
            if self._uploads.pop(upload.id, None) is not None:
                self._counts[upload.repo] -= 1
        with upload.path.open("r+b", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        received = Received(upload.path, upload.path.stat().st_size, digest)
        if (received.size, received.sha256) != (upload.size, upload.sha256):
            received.discard()
            raise HubError(422, f"The file's sha256 is {digest}, not {upload.sha256}")
        return received
