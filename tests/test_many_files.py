"""Looking into many files: the same is found, in the same order, whether the disk is quick or slow."""

import threading
import time

from tasks.preflight.many_files import TOGETHER, look_into_each

FILES = range(5 * TOGETHER + 3)


def test_files_that_are_at_hand_are_looked_into_one_after_the_other_in_their_order() -> None:
    threads = set()

    def look(file: int) -> int:
        threads.add(threading.get_ident())
        return file * file

    assert list(look_into_each(look, FILES)) == [file * file for file in FILES]
    assert threads == {threading.get_ident()}


def test_files_of_a_slow_disk_are_waited_for_side_by_side_in_their_order() -> None:
    waiting, most = [0], [0]
    lock = threading.Lock()

    def look(file: int) -> int:
        with lock:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
        time.sleep(0.002)
        with lock:
            waiting[0] -= 1
        return file * file

    assert list(look_into_each(look, FILES)) == [file * file for file in FILES]
    assert most[0] > 1


def test_no_files_are_no_findings() -> None:
    assert list(look_into_each(lambda file: file, ())) == []
