"""A file system that counts what is fetched, with the buffer of fsspec that the Hub's files have too.

`HfFileSystemFile` is an `AbstractBufferedFile` with its defaults (5 MiB, "readahead"); so is a file here, and only
`_fetch_range` differs: a slice of a local file where the Hub's is a request.
"""

from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

#: Every fetch so far: the file's name, its first byte, the byte behind its last.
fetched: list[tuple[str, int, int]] = []


class CountedFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        fetched.append((Path(self.path).name, start, end))
        with Path(self.path).open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start)


class CountedFileSystem(AbstractFileSystem):  # type: ignore[misc]
    protocol = "counted"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return "/" + path.removeprefix("counted://").strip("/")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        entry = self.info(path)
        return [entry] if detail else [entry["name"]]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> CountedFile:
        return CountedFile(self, path, mode)


fsspec.register_implementation("counted", CountedFileSystem, clobber=True)


def fetched_bytes() -> int:
    return sum(end - start for _, start, end in fetched)
