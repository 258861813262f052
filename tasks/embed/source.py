"""The open file of an image, which must stay the same from the plan to the last byte.

This is judged by size and mtime. From the open to the end it is judged by ctime too, which an edit changes even if it
sets the mtime back. But some things that touch no byte change the ctime as well: a hard link (`cp -al`, `rsync
--link-dest`, git-annex), a change of rights or owner, a backup that sets the access time back. So a new ctime alone
decides nothing: the bytes are read once more.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tasks.bids.annex import LONGEST_POINTER, stand_in
from tasks.embed.errors import Changed, Empty, TooLarge, Unreadable, absent, or_get, unfetched, unreadable
from tasks.values.kinds import called, in_recording_folder, is_data
from tasks.values.models import Image
from tasks.write import LARGEST_FILE

AGAIN = 256 << 10  # bytes of a step, if a file is read a second time


class Source:
    """The open file of an image, which must stay as the plan saw it from open to close."""

    def __init__(self, image: Image, path: Path) -> None:
        self._image = image
        self._path = path

    def __enter__(self) -> Self:
        image = self._image
        try:
            # O_NONBLOCK: a pipe of that name must not hold the run until somebody writes to it
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise absent(image, self._path) from error
        except OSError as error:
            raise unreadable(image, error) from error
        try:
            self._require_usable()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _require_usable(self) -> None:
        image = self._image
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(
                f"{image.path} is not a file. Put the {called(image.kind)} there, or name it in `exclude`."
            )
        if status.st_size == 0 and is_data(image.path) and not in_recording_folder(image.path):
            raise Empty(f"{image.path} is empty. Restore it from where the dataset came from{or_get(image)}.")
        if status.st_size > LARGEST_FILE:
            smaller = "Compress it (.nii.gz), split" if image.kind == "image" else "Split"
            raise TooLarge(
                f"{image.path} has {status.st_size} bytes; one file can have at most 2 GiB. {smaller} it into parts, "
                "or name it in `exclude`."
            )
        # This is before the comparison, because for a stand-in the plan has the size of the content.
        if status.st_size <= LONGEST_POINTER and (holder := stand_in(self._start())):
            raise unfetched(image, holder)
        self._compare(status, "since it was planned")
        self._ctime_ns = status.st_ctime_ns

    def _start(self) -> bytes:
        try:
            return os.pread(self._descriptor, 1024, 0)
        except OSError as error:
            raise unreadable(self._image, error) from error

    def _compare(self, status: os.stat_result, when: str) -> None:
        image = self._image
        if (status.st_size, status.st_mtime_ns) != (image.size, image.mtime_ns):
            raise Changed(
                f"{image.path} changed {when}: {image.size} bytes before, {status.st_size} now, modified at "
                f"{status.st_mtime_ns / 1e9:.3f} s. Run again when nothing writes to the dataset."
            )

    def steps(self, buffer: memoryview, up_to: int | None = None) -> Iterator[memoryview]:
        """Yield the file's bytes from first to last.

        Each step is the filled part of `buffer`, which the next step overwrites.

        No more than the planned size is ever handed out, so a file that grows does not overflow its page.

        Args:
            buffer: a buffer for one step.
            up_to: the most bytes to hand out; None for the planned size.

        Raises:
            Unreadable: the system refuses to read the file, or it ends early.
            Changed: it changed while it was read.
        """
        left = self._image.size if up_to is None else min(up_to, self._image.size)
        while left:
            try:
                count = os.readv(self._descriptor, [buffer[:left]])
            except OSError as error:
                raise unreadable(self._image, error) from error
            if not count:
                self._compare(os.fstat(self._descriptor), "while it was read")
                raise Unreadable(f"{self._image.path} ends {left} bytes early. Check its disk.")
            left -= count
            yield buffer[:count]

    def require_unchanged(self, sha256: str | None = None) -> None:
        """Compare the file with the plan once more, both the open file and the one of this name, which may be another.

        Args:
            sha256: that of the bytes that `steps` gave. Without it the ctime is not looked at.

        Raises:
            Changed: it is another file, or it was written to or removed.
        """
        status = os.fstat(self._descriptor)
        self._compare(status, "while it was read")
        if sha256 and status.st_ctime_ns != self._ctime_ns and self._read_again() != sha256:
            raise Changed(
                f"{self._image.path} changed while it was read: its size and modification time are as before, and its "
                "bytes are others. Run again when nothing writes to the dataset."
            )
        try:
            status = self._path.stat()
        except OSError as error:
            raise Changed(
                f"{self._image.path} went away while it was read. Run again when nothing writes to the dataset."
            ) from error
        self._compare(status, "while it was read")

    def _read_again(self) -> str:
        """Return the sha256 of the file's present bytes."""
        digest = hashlib.sha256()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for step in self.steps(memoryview(bytearray(AGAIN))):
            digest.update(step)
        return digest.hexdigest()
