"""Writes the dataset into a folder, and completes one that was left half done.

A marker in the folder says what is being made there; it is written first, and a folder that is not empty and has none,
or another one, is left alone. Every file is written under a temporary name and renamed, so a file that has its name is
whole: a second run makes only what is missing or, after a power cut, shorter than it should be.
"""

import fcntl
import json
import multiprocessing
import os
import signal
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.demo_data import source
from deployments.demo_data.cut import ordered_sessions
from deployments.demo_data.make_image import render
from deployments.demo_data.sizes import Layout, default_plan, plan

MARKER = ".demo-data.json"
LAYOUT_VERSION = 1  # of the images' bytes: raised when a change here makes them differ
PARTIAL = ".part"
# images under which starting other processes takes longer than they save
WORTH_PROCESSES = 300
BATCH = 16  # images given to a process at once


class DemoDataError(Exception):
    """Something a person can put right; its text says how."""


class NotOurFolderError(DemoDataError):
    """The folder holds something else."""


class BusyFolderError(DemoDataError):
    """Another run writes into the folder."""


class StoppedError(DemoDataError):
    """The work ended half done; what is there is right, and another call goes on from it."""


@dataclass(frozen=True)
class DemoSummary:
    """What is in the folder, and what it took."""

    out: Path
    sessions: int
    subjects: int
    images: int
    image_bytes: int
    files: int  # images and all others
    images_made: int  # by this call; the others were there
    seconds: float


def make_dataset(out: Path, sessions: int | None = None, total_bytes: int | None = None) -> DemoSummary:
    """Makes the demo dataset in `out`: `sessions` of its 902 sessions, with images of `total_bytes` in all.

    Without `total_bytes`, each image is the one of the whole dataset at 300 MB, so that a larger cut adds to a smaller
    one. With it, sizes depend on the cut; the total is more where pictures need more (about 200 kB a session).
    Raises `NotOurFolderError` and `BusyFolderError` before anything is touched, ValueError for figures that make no
    sense. Large cuts start processes by `spawn`: a script calls this under `if __name__ == "__main__"`.
    """
    began = time.monotonic()
    order = ordered_sessions()
    if sessions is not None and not 1 <= sessions <= len(order):
        raise ValueError(f"sessions: between 1 and {len(order)}, not {sessions}.")
    if total_bytes is not None and total_bytes < 1:
        raise ValueError(f"bytes: more than 0, not {total_bytes}.")
    chosen = set(order[:sessions])
    images = [image for image in source.images() if image.session in chosen]
    layouts = [default_plan()[image.path] for image in images] if total_bytes is None else plan(images, total_bytes)
    texts = {path: text for path, text in source.texts().items() if source.session_of(path) in {"", *chosen}}
    with _claim(out, len(chosen), total_bytes):
        for path, text in texts.items():
            _write_text(out / path, text)
        missing = [layout for layout in layouts if not _is_whole(out / layout.image.path, layout)]
        _make_images(out, missing)
        image_bytes = sum((out / image.path).stat().st_size for image in images)
    return DemoSummary(
        out=out,
        sessions=len(chosen),
        subjects=len({image.subject for image in images}),
        images=len(images),
        image_bytes=image_bytes,
        files=len(images) + len(texts),
        images_made=len(missing),
        seconds=time.monotonic() - began,
    )


@contextmanager
def _claim(out: Path, sessions: int, total_bytes: int | None) -> Iterator[None]:
    """Makes the folder ours, or finds that it is; nobody else writes there until the end of the block."""
    if out.exists() and not out.is_dir():
        raise NotOurFolderError(f"{out} is a file. Name a folder that is new, empty or one that this command made.")
    out.mkdir(parents=True, exist_ok=True)
    marker = out / MARKER
    if not marker.exists() and any(out.iterdir()):
        raise NotOurFolderError(
            f"{out} is not empty, and not made by this command. Name a new folder; nothing was touched."
        )
    file = os.open(marker, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyFolderError(f"Another run is writing into {out}. Wait until it has ended.") from error
        _check_marker(out, os.pread(file, 1000, 0).decode(errors="replace"), sessions, total_bytes)
        wanted = json.dumps({"layout": LAYOUT_VERSION, "sessions": sessions, "bytes": total_bytes})
        # one write over the old text, of the same length: a kill leaves either the one or the other
        os.pwrite(file, f"{wanted:<119}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _check_marker(out: Path, text: str, sessions: int, total_bytes: int | None) -> None:
    if not text.strip():
        return  # killed before it was written: nothing else is here
    try:
        found = json.loads(text)
        layout, there, of_bytes = found["layout"], int(found["sessions"]), found["bytes"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotOurFolderError(f"{out / MARKER} is not as this command writes it. Name a new folder.") from error
    if layout != LAYOUT_VERSION:
        raise NotOurFolderError(f"{out} was made by another version of this command. Name a new folder.")
    # of the default size, each image is the same in every cut, so a folder can grow
    same = of_bytes == total_bytes and (there == sessions or (total_bytes is None and there < sessions))
    if not same:
        size = "the default size" if of_bytes is None else f"{of_bytes} bytes"
        raise NotOurFolderError(
            f"{out} holds {there} sessions at {size}, which this would not complete. Name a new folder."
        )


def _write_text(path: Path, text: bytes) -> None:
    try:
        if path.read_bytes() == text:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, [text])


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    partial = path.with_name(f".{path.name}{PARTIAL}")
    with partial.open("wb") as file:
        file.writelines(pieces)
    partial.rename(path)


def _is_whole(path: Path, layout: Layout) -> bool:
    """Says whether a file is there to its end, whose last 4 bytes are the size of what is compressed."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < 18:
                return False
            file.seek(-4, os.SEEK_END)
            (uncompressed,) = struct.unpack("<I", file.read(4))
    except FileNotFoundError:
        return False
    return bool(uncompressed == (352 + layout.data_bytes) & 0xFFFFFFFF)


Job = tuple[Path, Layout, tuple[float, ...]]


def _make_images(out: Path, layouts: Sequence[Layout]) -> None:
    for folder in {(out / layout.image.path).parent for layout in layouts}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = [
        (out / layout.image.path, layout, source.b_values(layout.image) if layout.image.suffix == "dwi" else ())
        for layout in layouts
    ]
    # the largest first, so that no process is left with one at the end
    jobs.sort(key=lambda job: (-job[1].data_bytes, job[0]))
    heavy = sum(layout.data_bytes for layout in layouts) > 200_000_000
    workers = min(8, os.cpu_count() or 1)
    if workers == 1 or (len(jobs) < WORTH_PROCESSES and not heavy):
        for job in jobs:
            _make_image(job)
        return
    # spawned, not forked: the caller may have threads
    context = multiprocessing.get_context("spawn")
    chunk = 1 if heavy and len(jobs) < 2000 else BATCH
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_process) as pool:
            for _ in pool.map(_make_image, jobs, chunksize=chunk):
                pass
    except BrokenProcessPool as error:
        raise StoppedError(f"A process that makes images was ended. Run again to complete {out}.") from error


def _make_image(job: Job) -> None:
    path, layout, b_values = job
    _write(path, render(layout, b_values))


def _begin_process() -> None:
    """Leaves Ctrl-C to the process that started this one, and ends with it: killed, it would leave this one waiting."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
