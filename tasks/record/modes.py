"""Modes: which files of a dataset are executable, by the dataset and by the record.

Git keeps no more of a mode than that. It stands in the record alone, and in no shard, digest or receipt: a mode may
change while the bytes stay the same, and then a commit of the record is enough.

Where nobody can know it (a file that is not fetched, a disk without modes), the record says the same as before.
"""

from collections.abc import Collection, Iterable

from tasks.record.remote import Correction
from tasks.values.models import Dataset, PublicationRecord, ShardSpec

TEXTS = "bids/"  # the folder of the repo in which the dataset's own texts are


def executable_files(dataset: Dataset, record: PublicationRecord) -> frozenset[str]:
    """Return the paths in the dataset of its files that are executable, texts too.

    Args:
        dataset: the dataset.
        record: what is published. It counts for files whose mode the dataset cannot tell.
    """
    here = {row.path for row in dataset.rows if row.executable} | (dataset.executable or set())
    unknown = {row.path for row in dataset.rows if row.executable is None}
    unknown |= dataset.texts.keys() if dataset.executable is None else set()
    return frozenset(here | (published_executable(record) & unknown if unknown else set()))


def published_executable(record: PublicationRecord) -> frozenset[str]:
    """Return the paths in the dataset of the files that are executable by the record."""
    rows = (image.path for line in record.shards.values() for image in line.images if image.mode)
    texts = (path.removeprefix(TEXTS) for path, text in record.texts.items() if text.mode)
    return frozenset((*rows, *texts))


def is_executable(path: str, executable: Collection[str]) -> bool:
    """Return whether a text is executable.

    Args:
        path: its path in the repo.
        executable: the paths of the dataset's files that are.
    """
    return path.startswith(TEXTS) and path.removeprefix(TEXTS) in executable


def other_modes(
    done: Iterable[ShardSpec], record: PublicationRecord, executable: Collection[str]
) -> tuple[Correction, ...]:
    """Return new lines for shards that stay as they are, while modes of their files are not as the record says.

    Args:
        done: the shards that are published as they are to be.
        record: what is published.
        executable: the paths of the dataset's files that are executable.
    """
    lines = (record.shards[spec.path] for spec in done)
    return tuple(Correction(line, now) for line in lines if (now := line.with_modes(executable)) is not line)


def changed_modes(dataset: Dataset, record: PublicationRecord) -> tuple[str, ...]:
    """Return the published files of the dataset whose modes are not as the record says, sorted."""
    there = {row.path for row in dataset.rows} | dataset.texts.keys()
    published = {image.path for line in record.shards.values() for image in line.images}
    published |= {path.removeprefix(TEXTS) for path in record.texts}
    changed = executable_files(dataset, record) ^ published_executable(record)
    return tuple(sorted(changed & there & published))
