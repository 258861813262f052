"""`python -m soak`: the rounds, and what came of them."""

import argparse
import random
import shutil
import signal
import sys
import time
from collections import Counter

from deployments.local_stack import REPO
from soak import faults
from soak.hazards import HAZARDS
from soak.judge import Found, Verdict, judge, look, reference_of
from soak.rig import Rig, rig

FOLDER = REPO / ".soak"
DONE = {"PAUSED", "COMPLETED"}


def main() -> int:
    """Run the rounds, and print what came of them.

    Returns:
        The exit code: 1 if anything was lost, or done twice beyond what was in flight; else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="the same seed draws the same faults")
    parser.add_argument("--hazard", choices=sorted(HAZARDS), help="this one in each round, in place of what is drawn")
    runs = parser.add_mutually_exclusive_group()
    runs.add_argument("--cold", action="store_true", help="runs by Prefect's own worker: slower, and as people have it")
    runs.add_argument("--hashed", action="store_true", help="folders on the Hub as of more than 4,000 subjects")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    shutil.rmtree(FOLDER / "stack", ignore_errors=True)
    tally = Tally()
    with rig(FOLDER, options.sessions, options.cold, options.hashed) as here:
        reference, seconds = fresh_build(here)
        print(f"seed {seed}; a fresh build works for {seconds:.1f} s: {len(reference)} files", flush=True)
        try:
            for number in range(options.rounds):
                play(here, number, random.Random(f"{seed}-{number}"), seconds, reference, tally, options.hazard)
        except KeyboardInterrupt:
            print("Stopped.")
    return tally.show()


class Tally:
    """The sums over all rounds."""

    def __init__(self) -> None:
        self.rounds = 0
        self.faults: Counter[str] = Counter()
        self.losses: list[str] = []
        self.in_flight = 0
        self.embedded_again = 0
        self.sent_again = 0
        self.started = time.monotonic()

    def add(self, number: int, kinds: list[str], before: Found, verdict: Verdict) -> None:
        """Count a round, and print what came of it.

        Args:
            number: the round's number, from 0.
            kinds: what went wrong in it.
            before: what there was when its clean run began.
            verdict: what was found after that run.
        """
        self.rounds += 1
        self.faults.update(kinds)
        self.losses += [f"round {number}: {loss}" for loss in verdict.losses]
        self.in_flight += before.unfinished
        self.embedded_again += verdict.embedded_again
        self.sent_again += verdict.sent_again
        print(
            f"{number:4d} {'LOST' if verdict.losses else 'ok  '} {len(before.on_hub):3d} on the Hub, "
            f"{len(before.staged):3d} staged, {before.unfinished} unfinished; {', '.join(kinds)}"
            + (f"; embedded again: {verdict.embedded_again}" if verdict.embedded_again else "")
            + (f"; bytes sent again: {verdict.sent_again:,}" if verdict.sent_again else "")
            + "".join(f"\n       {loss}" for loss in verdict.losses[:5]),
            flush=True,
        )

    def show(self) -> int:
        """Print the figures, and what was lost.

        Returns:
            The exit code, as `main` returns it.
        """
        print(f"\nsoak_rounds {self.rounds} rounds")
        print(f"soak_s_per_round {(time.monotonic() - self.started) / max(self.rounds, 1):.1f} s")
        for kind, count in sorted(self.faults.items()):
            print(f"soak_fault[{kind}] {count} times")
        print(f"soak_losses {len(self.losses)} files")
        print(f"soak_unfinished_at_the_kill {self.in_flight} shards")
        print(f"soak_embedded_again {self.embedded_again} shards")
        print(f"soak_sent_again {self.sent_again} bytes")
        for loss in self.losses[:50]:
            print(loss, file=sys.stderr)
        return 1 if self.losses or self.embedded_again or self.sent_again else 0


def fresh_build(here: Rig) -> tuple[dict[str, bytes], float]:
    """Push to an empty Hub, undisturbed.

    Returns:
        Every file of the target by its path, and the seconds that the run's process has worked.
    """
    for _ in range(2):  # the second time with everything in the disk's cache, as in the rounds
        here.retire()
        here.wind_back()
        run = here.push()
        here.wait_for_work(run)
        start = time.monotonic()
        here.runs.wait(run, {"PAUSED"})
    return reference_of(here), time.monotonic() - start


def play(
    here: Rig,
    number: int,
    draw: random.Random,
    seconds: float,
    reference: dict[str, bytes],
    tally: Tally,
    hazard: str | None = None,
) -> None:
    """Play one round: break a push, let a clean one follow, and now and then bring about a hazard after it.

    Args:
        here: the servers and the target.
        number: the round's number, from 0.
        draw: the source of everything that is random in it.
        seconds: the time that an undisturbed push works.
        reference: what an undisturbed push publishes: path in the repo -> bytes.
        tally: counts the round.
        hazard: the hazard that comes after the clean run; None draws whether one comes, and which.
    """
    here.retire()
    here.wind_back()
    victim = draw.choices(list(faults.VICTIMS), list(faults.VICTIMS.values()))[0]
    kinds: list[str | None] = [f"SIGKILL {victim}"]
    if draw.random() < 0.4:
        kinds.append(faults.hub_fault(here, draw))
    faults.kill(here, here.push(), victim, draw.uniform(0, 0.9) * seconds)
    faults.mended(here)
    if draw.random() < 0.3:
        kinds.append(faults.damage(here, draw))
    if draw.random() < 0.2:
        kinds.append(faults.somebody_else(here, draw))
    before = look(here)
    run = here.push()
    here.runs.wait(run, DONE)
    verdict = judge(here, before, reference)
    if not hazard and draw.random() < 0.15 and here.runs.read(run).state_type == "PAUSED":
        kinds.append("SIGKILL flow in its cleanup")
        faults.approved_and_killed(here, run, draw)
        verdict.losses += after_cleanup(here, reference)
    elif hazard or draw.random() < 0.5:
        kind = hazard or draw.choice(sorted(HAZARDS))
        kinds.append(kind)
        verdict.losses += HAZARDS[kind](here, draw, reference)
    tally.add(number, [kind for kind in kinds if kind], before, verdict)


def after_cleanup(here: Rig, reference: dict[str, bytes]) -> list[str]:
    """Check that a cleanup that was killed has lost nothing: the Hub holds it all, and the next run has nothing to do.

    Returns:
        What is wrong, in sentences; empty if nothing is.
    """
    run = here.push()
    ended = here.runs.wait(run, DONE)
    name = ended.state.name if ended.state else None
    losses = judge(here, look(here), reference).losses
    return losses + ([] if name in {"NothingToPublish"} else [f"after a killed cleanup the next run ends {name}"])


if __name__ == "__main__":
    raise SystemExit(main())
