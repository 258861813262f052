"""`python -m year`: the nights, and what came of them."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from deployments.local_stack import REPO
from year.calendar import Tally, Year
from year.oracle import Disagreement, Oracle
from year.rig import rig
from year.script import EVENTS

FOLDER = REPO / ".year"


def main() -> int:
    """Live the nights, and print what came of them.

    Returns:
        The exit code: 1 if the oracle disagreed, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m year", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1, help="the same seed lives the same year")
    parser.add_argument("--until", type=int, default=0, help="stop after this night, to play a disagreement again")
    parser.add_argument("--only", default="", help="kinds of events, separated by commas: others do not happen")
    parser.add_argument("--never", default="", help="kinds of events that do not happen, likewise")
    parser.add_argument("--without", default="", help="rules that are not judged: removals, change, index, verify")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(options.folder, ignore_errors=True)
    only, never = (options.only or ",".join(EVENTS)).split(","), options.never.split(",")
    kinds = {kind: event for kind, event in EVENTS.items() if kind in only and kind not in never}
    oracle = Oracle(without=frozenset(filter(None, options.without.split(","))))
    disagreed = ""
    with rig(options.folder) as here:
        year = Year(here, options.seed, kinds, lambda line: print(line, flush=True), oracle)
        try:
            year.live(options.until or options.nights)
        except Disagreement as error:
            disagreed = str(error)
        except KeyboardInterrupt:
            print("Stopped.")
    show(year.tally)
    if disagreed:
        print(
            f"year_disagreements 1\n\nThe oracle disagrees: {disagreed}\n  What ran: {options.folder}", file=sys.stderr
        )
        return 1
    print("year_disagreements 0")
    return 0


def show(tally: Tally) -> None:
    """Print the sums over all nights."""
    for name, counts in (("event", tally.events), ("state", tally.states), ("answer", tally.answers)):
        for kind, count in sorted(counts.items()):
            print(f"year_{name}[{kind}] {count}")
    print(f"year_nights {tally.nights}\nyear_runs {tally.runs}\nyear_lines_removed {tally.removed}")
    print(f"year_s_per_night {tally.seconds / max(tally.nights, 1):.1f} s")


if __name__ == "__main__":
    raise SystemExit(main())
