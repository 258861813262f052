"""The files of a repo at a commit: the listing, some files by name, texts, and the bytes of any file as they come."""

import hashlib
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import httpx2
from huggingface_hub import hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from tasks.hub.connection import Connection
from tasks.hub.errors import HubUnreachable, NoSuchFile, OversizedFile, Refused
from tasks.hub.lacking import NEEDED, RouteMissing, answer_behind, route_missing
from tasks.values.models import ListedFile, Listing

PATHS_A_REQUEST = 100  # paths in one paths-info request; keeps the answer small
#: Bytes of the largest text that is read into memory whole. The record of 100,000 shards has about 100 MB.
LARGEST_TEXT = 256 << 20


class Writable(Protocol):
    """Anything that takes bytes."""

    def write(self, data: bytes, /) -> int:
        """Take bytes."""


class Reading(Connection):
    """The files of a target's repo, at a commit."""

    def listing(self, commit: str) -> Listing:
        """Return every file at `commit`, from all pages of the listing."""
        with self.explained(f"listing {self.target}"):
            tree = self.api.list_repo_tree(self.target.repo_id, repo_type="dataset", revision=commit, recursive=True)
            files = {entry.path: _listed(entry) for entry in tree if isinstance(entry, RepoFile)}
        return Listing(commit, files)

    def listed(self, paths: Sequence[str], commit: str) -> dict[str, ListedFile]:
        """Return those of these files that exist at `commit`."""
        found: dict[str, ListedFile] = {}
        try:
            for start in range(0, len(paths), PATHS_A_REQUEST):
                part = list(paths[start : start + PATHS_A_REQUEST])
                with self.explained(f"asking {self.target} for {len(part)} files"):
                    entries = self.api.get_paths_info(self.target.repo_id, part, repo_type="dataset", revision=commit)
                found |= {entry.path: _listed(entry) for entry in entries if isinstance(entry, RepoFile)}
        except RouteMissing:
            self._does_without("cannot be asked for some files by name", "all of the repo's files are listed instead")
            files = self.listing(commit).files
            found = {path: files[path] for path in paths if path in files}
        return found

    def read_back(self, path: str, commit: str, into: Writable) -> tuple[int, str]:
        """Stream a file's bytes into `into`, as the Hub sends them now.

        The client's own downloads verify nothing. So the caller compares what this returns with a receipt.

        Returns:
            The number of bytes and their sha256, both taken here.
        """
        digest, size = hashlib.sha256(), 0
        for chunk in self._stream(path, commit, f"reading {path} back from {self.target}", httpx2.codes.OK, {}):
            digest.update(chunk)
            size += len(chunk)
            into.write(chunk)
        return size, digest.hexdigest()

    def stream(self, path: str, commit: str, start: int, size: int) -> Generator[bytes, None, None]:
        """Yield a part of a file's bytes as they come, as the Hub sends them now. They are not verified.

        Args:
            path: the file.
            commit: the commit of the file.
            start: the first byte.
            size: how many bytes, at least one.

        Raises:
            Refused: the file is not there, is shorter, or this Hub sends no parts of files.
            HubUnreachable: fewer bytes came.
        """
        what, left = f"reading {path} from {self.target}", size
        asked = {"Range": f"bytes={start}-{start + size - 1}"}
        for chunk in self._stream(path, commit, what, httpx2.codes.PARTIAL_CONTENT, asked):
            left -= len(chunk)
            yield chunk
        if left:
            raise HubUnreachable(f"{what}: {left} bytes of {size} did not come. The next try goes on from here.")

    def read(self, path: str, commit: str) -> bytes | None:
        """Return a text's bytes at `commit`, or None if there is no such file.

        Raises:
            OversizedFile: it is larger than any text that a push writes.
        """
        buffer = _Text(f"{path} in {self.target}")
        try:
            self.read_back(path, commit, buffer)
        except NoSuchFile as error:
            self._require_not_listed(path, commit, error)
            return None
        return buffer.getvalue()

    def sha256_of(self, path: str, commit: str) -> str | None:
        """Return the sha256 of a small file's bytes at `commit`, or None if there is no such file."""
        data = self.read(path, commit)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def _require_not_listed(self, path: str, commit: str, error: NoSuchFile) -> None:
        """Check that a file which the Hub did not send is not in the repo.

        A Hub that sends no files would look like one whose repo holds no record, and all would be published anew.

        Raises:
            RouteMissing: the repo holds the file.
        """
        answer = answer_behind(error)
        if answer and self.listed([path], commit):
            raise route_missing(f"reading {path}, which {self.target} holds", self.target.endpoint, answer) from error

    def _stream(
        self, path: str, commit: str, what: str, expected: httpx2.codes, more: Mapping[str, str]
    ) -> Iterator[bytes]:
        """Yield what the Hub answers to a GET of a file, as it is stored.

        Args:
            path: the file.
            commit: the commit of the file.
            what: what is being done, for an error's message.
            expected: the status of an answer that holds what was asked for.
            more: more headers of the request.
        """
        url = hf_hub_url(self.target.repo_id, path, repo_type="dataset", revision=commit, endpoint=self.target.endpoint)
        headers = {**build_hf_headers(token=self.token or False), "Accept-Encoding": "identity", **more}
        with (
            self.explained(what),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as response,
        ):
            if response.is_error:
                response.read()  # the error's body, for its message
            hf_raise_for_status(response)
            if (response.status_code, expected) == (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
                raise RouteMissing(
                    f"{what}: {self.target.endpoint} sends whole files alone, and no parts of them as "
                    f"asked for (Range), which this needs; {NEEDED}."
                )
            if response.status_code != expected:
                raise Refused(f"{what}: {self.target.endpoint} answered {response.status_code} and not {expected}.")
            yield from response.iter_raw()


class _Text(io.BytesIO):
    """A buffer for a text, up to a size that no text of ours has."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def write(self, data: Any) -> int:
        """Take more bytes.

        Raises:
            OversizedFile: it would be more than `LARGEST_TEXT`.
        """
        if self.tell() + len(data) > LARGEST_TEXT:
            raise OversizedFile(
                f"{self._name} has more than {LARGEST_TEXT >> 20} MiB, which no such file of a push has. Restore an "
                "older version of it on the Hub, or delete it there and start again: it is written anew, and what it "
                "no longer says is published again."
            )
        return super().write(data)


def _listed(entry: RepoFile) -> ListedFile:
    if entry.lfs is None:
        return ListedFile(entry.path, entry.size, None, entry.blob_id)
    return ListedFile(entry.path, entry.lfs.size, entry.lfs.sha256)
