"""A file on the Hub that is read like a local one: what is read of it, and how much is fetched for that."""

import io
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.hub import remote_file
from tasks.hub.remote_file import RemoteFile

BYTES = bytes(range(100))
TAIL, BLOCK, MOST = 20, 10, 60


class Hub:
    """Sends parts of the file in two pieces, and notes which."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    def stream(self, path: str, commit: str, start: int, size: int) -> Iterator[bytes]:
        assert (path, commit) == ("data/x.parquet", "c")
        self.sent.append((start, size))
        part = BYTES[start : start + size]
        yield part[:3]
        yield part[3:]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    for name, value in {"TAIL": TAIL, "BLOCK": BLOCK, "MOST": MOST}.items():
        monkeypatch.setattr(remote_file, name, value)
    return Hub()


def of(hub: Hub, size: int = len(BYTES)) -> RemoteFile:
    return RemoteFile(hub, "data/x.parquet", size, "c")  # type: ignore[arg-type]


def test_the_end_is_fetched_once_however_often_it_is_read(hub: Hub) -> None:
    file = of(hub)
    assert (file.part(80, 20), file.part(99, 1), file.part(81, 2), file.part(100, 0)) == (
        BYTES[80:], BYTES[99:], BYTES[81:83], b"",
    )  # fmt: skip
    assert hub.sent == [(80, 20)] and file.tail_start == 80


@pytest.mark.parametrize(
    ("start", "size", "fetched"),
    [(0, 3, 10), (0, 10, 10), (0, 11, 11), (79, 21, 21), (40, 60, 60), (79, 2, 10)],
)
def test_before_the_end_a_block_is_fetched_at_least_and_what_was_asked_for_comes(
    start: int, size: int, fetched: int, hub: Hub
) -> None:
    assert of(hub).part(start, size) == BYTES[start : start + size]
    assert hub.sent == [(start, fetched)]


def test_a_small_file_is_its_end_and_an_empty_one_is_not_asked_for(hub: Hub) -> None:
    assert of(hub, 15).read() == BYTES[:15] and hub.sent == [(0, 15)]
    assert of(hub, 0).read() == b"" and hub.sent == [(0, 15)]


@pytest.mark.parametrize(("start", "size"), [(-1, 1), (0, -1), (100, 1), (41, 60), (0, 61)])
def test_a_part_that_the_file_does_not_have_or_that_nothing_of_ours_is_as_large_as_is_refused(
    start: int, size: int, hub: Hub
) -> None:
    with pytest.raises(ValueError, match="that it does not have"):
        of(hub).part(start, size)
    assert not hub.sent


def test_it_is_read_from_any_place_as_a_local_file_is(hub: Hub) -> None:
    def steps(file: Any) -> Iterator[object]:
        yield file.readable(), file.seekable(), file.tell()
        yield file.seek(50), file.read(7), file.tell()
        yield file.seek(-7, io.SEEK_CUR), file.read(2)
        yield file.seek(-5, io.SEEK_END), file.read(), file.tell(), file.read(), file.read(1)
        buffer = bytearray(b"-" * 8)
        yield file.seek(96), file.readinto(buffer), bytes(buffer), file.tell()

    assert list(steps(of(hub))) == list(steps(io.BytesIO(BYTES)))
