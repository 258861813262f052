"""What one commit changes on top of one head, and whether a head holds all of it already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from tasks.commit.other_files import Besides, holds
from tasks.hub.client import Hub
from tasks.hub.repo_rules import require_kept
from tasks.record.record_files import RecordChange, files_to_write
from tasks.record.remote import CARD, INDEX, RECORD, Remote
from tasks.remove import deletions, merged_segments
from tasks.values.models import PublishedShard, PublishedText


@dataclass(frozen=True)
class Batch:
    """What one commit is to change on top of one head."""

    shards: tuple[PublishedShard, ...]
    sent: tuple[CommitOperationAdd, ...]
    texts: Mapping[str, bytes]
    deletions: tuple[CommitOperationDelete, ...]
    """The files that are removed, as a person approved."""
    forget: tuple[str, ...]
    """The lines of the record that are removed, with or without a file."""
    besides: Besides
    corrected: tuple[PublishedShard, ...] = ()
    """Lines for the record of shards that stay as they are: those read from shards, and those with other modes."""

    @classmethod
    def of(
        cls,
        hub: Hub,
        before: Remote,
        shards: Sequence[PublishedShard],
        operations: Sequence[CommitOperationAdd],
        besides: Besides,
        late: frozenset[str],
    ) -> "Batch":
        """Return everything that was planned, without what others have published since.

        Raises:
            RemovalRefused: something is not as it was when the removal was planned.
        """
        deleted = tuple(deletions(besides.remove, before)) if besides.remove else ()
        lines: dict[str, PublishedShard | PublishedText] = {**before.record.shards, **before.record.texts}
        lost = [path for path, sha256 in besides.lost.items() if path in lines and lines[path].sha256 == sha256]
        lost = [path for path in lost if path not in late]
        there = hub.listed(lost, before.commit)
        written = {shard.path for shard in shards} | {one.path_in_repo for one in deleted}
        return cls(
            shards=tuple(shard for shard in shards if shard.path not in late),
            sent=tuple(operation for operation in operations if operation.path_in_repo not in late),
            texts={path: data for path, data in besides.texts.items() if path not in late},
            deletions=deleted,
            forget=(*(one.path_in_repo for one in deleted), *(path for path in lost if path not in there)),
            corrected=tuple(
                one.line
                for one in (*besides.corrected, *besides.modes)
                if one.line.path not in written and before.record.shards.get(one.line.path) in (one.before, one.line)
            ),
            besides=besides,
        )

    @property
    def removed(self) -> tuple[str, ...]:
        """The paths of the files that are removed."""
        return tuple(one.path_in_repo for one in self.deletions)

    def any(self) -> bool:
        """Return whether anything is left to do."""
        return bool(self.shards or self.texts or self.forget)

    def recorded_texts(self) -> tuple[PublishedText, ...]:
        """Return the dataset's texts as the record will hold them.

        Those that others have changed since are not among them.
        """
        late = self.besides.texts.keys() - self.texts.keys()
        return tuple(text for text in self.besides.recorded if text.path not in late)

    def record(self, before: Remote) -> RecordChange:
        """Return the record that is true after the commit, and what becomes of its files."""
        record = before.record.with_lines(self.corrected)
        after = record.updated(self.shards, self.forget, self.recorded_texts(), self.besides.dataset)
        lines = (*self.corrected, *self.shards)
        touched = {*(line.path for line in lines), *before.record.shards.keys() & set(self.forget)}
        return files_to_write(before.record, after, touched, anew=bool(before.damaged) or self.besides.record)

    def operations(
        self, hub: Hub, record: RecordChange, card: str | None
    ) -> list[CommitOperationAdd | CommitOperationDelete]:
        """Return all operations of the commit, after checking that the repo takes their files.

        Args:
            hub: the target.
            record: the record that is true after the commit.
            card: the card that it brings, if it brings one.

        Raises:
            IgnoredByRepo: the repo's .gitignore names one of the texts.
        """
        files = {**self.texts, **record.written, INDEX: record.record.dump_index()}
        files |= {} if card is None else {CARD: card.encode()}
        written = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in sorted(files.items())]
        hub.preupload(written, "texts")
        require_kept(hub, written, large=False)
        for operation in self.sent:
            operation._remote_oid = None  # of a head long ago: the client would leave out what was there then
        return [*self.sent, *written, *merged_segments(record), *self.deletions]


def landed(hub: Hub, found: Remote, batch: Batch) -> bool:
    """Return whether the target holds everything that a commit was to bring. Then only the commit's answer was lost."""
    record, besides = found.record, batch.besides
    if any(record.shards.get(line.path) != line for line in (*batch.corrected, *batch.shards)):
        return False
    if any(record.texts.get(text.path) != text for text in batch.recorded_texts()):
        return False
    if any(path in record.shards or path in record.texts for path in batch.forget):
        return False
    if (besides.dataset and record.dataset != besides.dataset) or (besides.record and found.damaged):
        return False
    if besides.with_card and not besides.same_card(besides.card_of(record, found.card), found.card):
        return False
    return _in_place(hub, found, batch)


def _in_place(hub: Hub, found: Remote, batch: Batch) -> bool:
    """Return whether the files in the repo are as the commit was to leave them."""
    shards = {shard.path: (shard.size, shard.sha256) for shard in batch.shards}
    files = hub.listed([*shards, *batch.texts, *batch.removed, RECORD, INDEX, CARD], found.commit)
    if not {RECORD, INDEX, CARD} <= files.keys() or files.keys() & set(batch.removed):
        return False
    if any(path not in files or (files[path].size, files[path].sha256) != as_sent for path, as_sent in shards.items()):
        return False
    return all(holds(files.get(path), data) for path, data in batch.texts.items())
