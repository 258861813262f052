"""Drift: what somebody else has changed in the record and the texts of the repo. It is named before it is mended."""

from collections.abc import Iterator, Mapping, Sequence

from tasks.record.published import Drift
from tasks.record.remote import CARD, INDEX, RECORD, Remote
from tasks.values.models import Listing, PublicationRecord, ShardSpec
from tasks.values.our_paths import is_shard


def drift_around(
    remote: Remote, listing: Listing, texts: Mapping[str, bytes], shards: Sequence[ShardSpec]
) -> Iterator[Drift]:
    """Yield what somebody else has done to the record, and to files in the places of the dataset's own texts.

    What they have done to shards is found where the shards are compared (`tasks.record.published`).
    """
    record = remote.record
    for one in remote.corrected:
        was = "is about other files" if one.before else "was taken out of the record"
        yield Drift(one.line.path, f"its line {was}: what the shard holds was read from the shard itself")
    if RECORD in listing.files:
        damaged = "\n".join(remote.damaged)
        for spec in shards:
            if spec.path in listing.files and spec.path not in record.shards and spec.path not in damaged:
                yield Drift(
                    spec.path, "its line was taken out of the record: it comes back with the shard's next version"
                )
    if RECORD not in listing.files and any(is_shard(path) for path in listing.files):
        yield Drift(RECORD, "it is not in the repo, which holds shards: it is written anew")
    if record.shards and CARD not in listing.files:
        yield Drift(CARD, "it is not in the repo: it is written anew; what people wrote on it is in the repo's history")
    if record.shards and INDEX not in listing.files:
        yield Drift(INDEX, "it is not in the repo: it is written anew")
    yield from (Drift(RECORD, what) for what in remote.damaged)
    if record.dataset or not record.shards:  # otherwise an earlier version has published, which kept no list of texts
        for path, data in texts.items():
            listed = listing.files.get(path)
            if listed and path not in record.texts and not listed.holds(data):
                yield Drift(
                    path, "not published from here: the dataset's own takes its place, and the history keeps it"
                )


def replaced_texts(texts: Mapping[str, bytes], record: PublicationRecord, listing: Listing) -> list[str]:
    """Return the paths of published texts that the repo does not hold as they are to be published now."""

    def there(path: str) -> bool:
        listed = listing.files.get(path)
        return listed is not None and listed.holds(texts[path])

    return [path for path in texts if path in record.texts and not there(path)]
