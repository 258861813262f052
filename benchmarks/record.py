"""What the publication record costs a push of very many shards: commits, and bytes handed to the client.

No Hub and no file is needed for it. The shards are made up, one small image each, and go through what decides the size
of a commit and the files of the record that it writes: on a Hub that commits fast, without the card. It is done for a
tenth of the shards too, so that the growth is seen (1.0: as the number of shards). `benchmarks.many_shards` pushes for
real.

    python -m benchmarks.record [--shards 100000]
"""

import argparse
import hashlib
import math
import time
from dataclasses import dataclass
from itertools import islice

from huggingface_hub import CommitOperationAdd

from tasks.commit.to_commit import ToCommit
from tasks.record.record_files import files_to_write
from tasks.transfer import Transferred
from tasks.values.models import ImageContent, PublicationRecord, Receipt
from tasks.values.settings import Settings


@dataclass(frozen=True)
class Cost:
    """What the commits of a push cost."""

    commits: int
    handed_over: int
    """Bytes of the record's files, index included, in all commits."""
    seconds: float
    last: float
    """Seconds for the record's files of the last commit."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shards", type=int, default=100_000)
    shards = parser.parse_args().shards
    small, cost = push(shards // 10), push(shards)
    named = f"{shards // 1000}k" if shards >= 1000 else str(shards)
    print(f"commits_{named} {cost.commits} commits")
    print(f"record_bytes_handed_over_{named} {cost.handed_over} bytes")
    print(f"record_bytes_exponent_to_{named} {math.log10(cost.handed_over / small.handed_over):.2f} exponent")
    print(f"record_s_{named} {cost.seconds:.1f} s")
    print(f"record_s_exponent_to_{named} {math.log10(cost.seconds / small.seconds):.2f} exponent")
    print(f"record_s_of_the_last_commit_{named} {cost.last:.2f} s", flush=True)
    return 0


def push(shards: int) -> Cost:
    """Commit so many shards, in the order of their names."""
    settings = Settings()
    waiting, made = ToCommit(settings.batch_shards, settings.batch_bytes), (sent(number) for number in range(shards))
    record, commits, handed_over, took, begun = PublicationRecord(), 0, 0, 0.0, time.monotonic()
    while True:
        for one in islice(made, waiting.shards):
            waiting.add(one)
        batch = waiting.take()
        if not batch:
            return Cost(commits, handed_over, time.monotonic() - begun, took)
        start = time.monotonic()
        lines = [one.receipt.line() for one in batch]
        changed = files_to_write(record, record.updated(lines), {line.path for line in lines})
        record = changed.record
        handed_over += sum(map(len, changed.written.values())) + len(record.dump_index())
        took = time.monotonic() - start
        commits += 1
        waiting.took(1.0, len(batch))


def sent(number: int) -> Transferred:
    """A shard of one image that was sent."""
    sub = f"sub-{number:06}"
    digest = hashlib.sha256(sub.encode()).hexdigest()
    image = ImageContent(path=f"{sub}/anat/{sub}_T1w.nii.gz", size=800, sha256=digest)
    path = f"data/{sub}/{sub}.parquet"
    receipt = Receipt(
        path=path, digest=digest, sha256=digest, size=9000, rows=1, images=(image,), name=sub, file=f"shards/{sub}"
    )
    return Transferred(receipt, CommitOperationAdd(path, path_or_fileobj=b""))


if __name__ == "__main__":
    raise SystemExit(main())
