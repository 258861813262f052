"""The oracle: what the rules say of a run, judged from outside it.

How it works: it is given what was on the Hub and in the staging folder before and after a run, what the dataset said,
what the run was asked, and what people had approved. From the two heads and the dataset it works out what had to be
published, what had to stay, and what might go; everything on the Hub is compared byte for byte or row for row. Nothing
of bids-push's own code is asked. On the first disagreement it raises `Disagreement`, in a sentence.

Words: a *removal* is something that the record says was published and that the dataset has no more: a whole shard, an
image or a sidecar (a row of a shard), a text. It is a tuple: ("shard", path), ("row", shard's path, file's path),
("text", path). An image that has changed or gone counts towards too much of a change, a sidecar does not.
"""

import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from year.repo import CARD, INDEX, RECORD, Head, Line
from year.world import Dataset, Row, is_image, sha256

MAX_CHANGE = 0.10  # of the published images that may be gone or other without a word (the default)
BATCH = 5  # shards in a commit, as the rig sets it
TURNS = 8  # verified nights in which each shard is read back, as the rig sets it
OVERHEAD = 1.10  # bytes sent for a file's content: chunk headers, and a xorb's footer
PER_FILE = 2_000  # bytes sent for a file beside that
NAMED = 3  # removals, failed shards: what a state has room to name in full
TABLE = "tables/participants.parquet"
LEFT_OUT = "bids/left_out.tsv"
PICTURES = "pictures/"

Removal = tuple[str, ...]
Staged = Mapping[str, str]
"""The sha256 of each staged shard, and whether a receipt explains it, by its file in the target's staging folder."""

#: How a run ends that did not come to the end of its work, and is not to blame for it.
HUB_AWAY = frozenset({"HubUnreachable", "Transient"})
NOT_TAKEN = frozenset({"IgnoredByRepo", "NotInLfs"})
NO_DATASET = frozenset({"NotABidsDataset", "EmptyDataset", "BadInput"})
#: How nothing of ours may ever end.
BUGS = frozenset({"Failed", "Crashed", "Completed", "Cancelled", "Running", "Pending"})


class Disagreement(Exception):
    """The run did not do what the rules say."""


@dataclass(frozen=True)
class Seen:
    """A run, as it was seen from outside."""

    before: Head
    after: Head
    staged_before: Staged
    staged_after: Staged
    state: str
    message: str
    evidence: str = ""
    """The text of all of the run's artifacts."""
    commits: int = 0
    content: int = 0
    """Bytes of files' content that the Hub was sent."""
    read_back: Collection[str] = ()
    """Shards that were read from the Hub."""
    killed: bool = False


@dataclass(frozen=True)
class Asked:
    """The parameters of a push, and how the Hub is in that night."""

    dataset: Dataset | None
    """The dataset as the folder says it that the push was given; None if it is no dataset."""
    removed: str = "keep"
    verification: str = "sample"
    accept_changes: int = 0
    hub: str = "well"
    """`well` (also where it fails now and then), `away`, `lies` (sends other bytes for shards)."""
    ignores: bool = False
    """Whether the repo has rules by which the Hub does not take shards."""


@dataclass(frozen=True)
class Gate:
    """A gate that is open, as the oracle remembers it."""

    staged: Staged
    shards: Collection[str] | None
    """The shards that the run had published or found published; None for cleanup-staging, which asks about all."""
    removals: "Removals"
    """The removals that it asks about."""


@dataclass(frozen=True)
class Removals:
    """Removals, with what they are about at one moment."""

    files: Mapping[Removal, str] = field(default_factory=dict)
    """The sha256 of the file that each of them is in."""
    images_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By the path of each of these files: the images that would leave the repo with it, or as its rows."""

    @classmethod
    def of(cls, before: Head, named: Collection[Removal]) -> "Removals":
        """Return these removals, with what the head holds of them."""
        files = {one: sha256(before.files[one[1]]) for one in named}
        paths = {one[1] for one in named}
        return cls(
            files,
            {path: frozenset(i for one in named if one[1] == path for i in images_in(one, before)) for path in paths},
        )

    @property
    def images(self) -> frozenset[str]:
        """The images of all of these removals."""
        return frozenset().union(*self.images_of.values())

    def excluding(self, other: "Removals") -> "Removals":
        """Return the removals that are in no file that the others are about."""
        return Removals(
            {one: digest for one, digest in self.files.items() if one[1] not in other.images_of},
            {path: images for path, images in self.images_of.items() if path not in other.images_of},
        )

    def joined(self, other: "Removals") -> "Removals":
        """Return these removals and the others. A file that both are about is as the others have it."""
        left = self.excluding(other)
        return Removals({**left.files, **other.files}, {**left.images_of, **other.images_of})

    def without(self, decided: "Removals") -> set[Removal]:
        """Return the removals that are not among those decided, with the same bytes.

        Of a shard, all rows are returned or none.
        """
        left = {one for one, digest in self.files.items() if decided.files.get(one) != digest}
        shards = {one[1] for one in left if one[0] == "row"}
        return left | {one for one in self.files if one[0] == "row" and one[1] in shards}


@dataclass
class Oracle:
    """The oracle, with what it knows from the nights before."""

    lines: dict[str, Line] = field(default_factory=dict)
    """The lines of the record as the last run left it."""
    kept: Removals = field(default_factory=Removals)
    """The removals that a person last decided to keep."""
    gate: Gate | None = None
    ever: set[str] = field(default_factory=set)
    """The sha256 of everything that was ever on the Hub."""
    notes: list[bytes] = field(default_factory=list)
    """What people wrote into the card by hand."""
    quiet: Dataset | None = None
    """The dataset of the last run, if that ended well and nothing has happened to the repo since."""
    failed: set[str] = field(default_factory=set)
    """Shards whose bytes were not right when they were read back last."""
    verified: int = 0
    """The number of runs so far that read shards back."""
    read_in: dict[str, tuple[str, int]] = field(default_factory=dict)
    """In which of them each shard was read back last, or met first, by its path: its sha256, and the run's number."""
    accepted: dict[str, str] = field(default_factory=dict)
    """Images that were accepted to be gone from the dataset, and are still: their published sha256, by their path."""
    maybe: dict[str, str] = field(default_factory=dict)
    """Those of a run that was killed, or lost the Hub, before it could be seen whether it remembers them."""
    removed: set[str] = field(default_factory=set)
    """Images and sidecars that left the repo by a decision, and were not published again since."""
    takes_over: bool = False
    """Whether the last push had a reason to take an open gate over."""
    without: frozenset[str] = frozenset()
    """Rules that are not judged yet."""

    # A push.

    @property
    def asks_for_removals(self) -> bool:
        """Whether it is judged that gates ask for a decision on removals."""
        return "removals" not in self.without

    def push(self, seen: Seen, asked: Asked) -> None:
        """Judge a run of push-bids.

        Args:
            seen: the run.
            asked: its parameters.

        Raises:
            Disagreement: it did not do what the rules say.
        """
        self.takes_over = False
        self._never(seen)
        if asked.dataset is None:
            return self._nothing_was_done(seen, NO_DATASET)
        if asked.hub == "away":
            return self._nothing_was_done(seen, HUB_AWAY)
        seen = replace(seen, before=relied_on(seen.before, asked.dataset))
        want = Want.of(seen.before, asked.dataset, self.lines)
        self._sure(seen, asked)
        if asked.hub == "lies" and seen.before.record_was_edited and seen.state in STOPPED | {"ShardUnreadable"}:
            # what a shard without a line holds is read from bytes that are others each time, as far as they can be read
            return self._nothing_was_done(seen, STOPPED | {"ShardUnreadable"})
        many = self.too_many(seen.before, asked.dataset)
        if many and asked.accept_changes != many and "change" not in self.without and not seen.killed:
            much = self._changed(seen.before, asked.dataset) > MAX_CHANGE * len(images_of(seen.before))
            self._nothing_was_done(seen, {"TooMuchChanged" if much else "RemovedCameBack"})
            return agree(f"accept_changes={many}" in seen.message, f"the state does not name accept_changes={many}")
        agree(seen.state not in STOPPED, f"stopped, although {many} is what was accepted or not too many")
        other = self._asks(asked, want, seen.before) and not self._shown(want, seen.before)
        self.takes_over = bool(want.todo or seen.killed or not same(seen.before, seen.after) or other)
        self._accept(seen, asked, many)
        self.removed -= asked.dataset.rows.keys() & rows_of(seen.before).keys()
        self._published(seen, asked, want)
        self._staged_for(seen, want)
        if not seen.killed:
            self._work(seen, asked, want)
            self._verified(seen, asked, want)
            self._ended(seen, asked, want)
        self._remember(seen, asked, want)

    def _asks(self, asked: Asked, want: "Want", before: Head) -> bool:
        """Return whether there are removals that a run has to ask about."""
        return asked.removed != "keep" and self.asks_for_removals and bool(self._undecided(want, before).files)

    def _undecided(self, want: "Want", before: Head) -> Removals:
        """Return the removals that nobody has decided to keep."""
        return Removals.of(before, Removals.of(before, want.removals).without(self.kept))

    def _shown(self, want: "Want", before: Head) -> bool:
        """Return whether an open gate asks exactly this already."""
        return self.gate is not None and self.gate.removals == self._undecided(want, before)

    def too_many(self, before: Head, dataset: Dataset) -> int:
        """Return how many images changed, if a person has to say that it is meant; else 0."""
        many, back = self._changed(before, dataset), len(self.back(before, dataset))
        return many + back if back or many > MAX_CHANGE * len(images_of(before)) else 0

    def _changed(self, before: Head, dataset: Dataset) -> int:
        """Return how many published images are gone or other, without those that somebody has decided about."""
        published = images_of(before)
        decided = self.kept.images | (self.gate.removals.images if self.gate else frozenset())
        decided |= {image for image, digest in self.accepted.items() if published.get(image) == digest}
        now = dataset.images
        gone = sum(image not in now and image not in decided for image in published)
        return gone + sum(image in now and now[image] != digest for image, digest in published.items())

    def back(self, before: Head, dataset: Dataset) -> set[str]:
        """Return the files of the dataset that left the repo by a decision, or whose whole subject did."""
        published = rows_of(before)
        whole = {image.split("/")[0] for image in self.removed} - {image.split("/")[0] for image in published}
        return {
            image
            for image in dataset.rows
            if image not in published and (image in self.removed or image.split("/")[0] in whole)
        }

    def _sure(self, seen: Seen, asked: Asked) -> None:
        """See by what this run asks about whether one that was killed remembers what was accepted."""
        if not self.maybe or asked.dataset is None or seen.killed or seen.state in HUB_AWAY:
            return
        known = self.accepted
        self.accepted, self.maybe = {**known, **self.maybe}, {}
        many = self.too_many(seen.before, asked.dataset)
        remembered = many == asked.accept_changes if many else seen.state not in STOPPED
        if not remembered and f"accept_changes={many}." not in seen.message:
            self.accepted = known

    def _accept(self, seen: Seen, asked: Asked, many: int) -> None:
        """Note what was accepted to be gone. It is not asked about again as long as it is gone."""
        assert asked.dataset is not None
        now = asked.dataset.images
        gone = {image: digest for image, digest in images_of(seen.before).items() if image not in now}
        decided = self.kept.images | (self.gate.removals.images if self.gate else frozenset())
        given = bool(many) and asked.accept_changes == many
        accepted = {image: digest for image, digest in gone.items() if given and image not in decided}
        if seen.killed or seen.state in HUB_AWAY:
            self.maybe = accepted
            return
        still = {image: digest for image, digest in self.accepted.items() if gone.get(image) == digest}
        self.accepted = {**still, **accepted}

    def _nothing_was_done(self, seen: Seen, states: Collection[str]) -> None:
        agree(seen.killed or seen.state in states, f"ended {seen.state}, not {' or '.join(sorted(states))}")
        agree(same(seen.before, seen.after), f"{seen.state}, and the repo was changed")
        agree(dict(seen.staged_before) == dict(seen.staged_after), f"{seen.state}, and the staging folder was changed")

    def _never(self, seen: Seen) -> None:
        """Check what no run may do."""
        agree(seen.killed or seen.state not in BUGS, f"ended {seen.state}: {seen.message[:300]}")
        for note in self.notes:
            agree(note in seen.after.files.get(CARD, note), f"the card lost what somebody wrote: {note!r}")
        for path in seen.before.files.keys() - seen.after.files.keys():
            agree(is_ours(path), f"{path}, which is not ours, was removed")

    def _published(self, seen: Seen, asked: Asked, want: "Want") -> None:
        """Compare every file of the head with what was there before, and with what the dataset says."""
        before, after, dataset = seen.before, seen.after, asked.dataset
        assert dataset is not None
        partly = seen.killed or seen.state in HUB_AWAY | NOT_TAKEN or seen.state == "VerificationFailed"
        for path in sorted(before.files.keys() | after.files.keys() | dataset.shards.keys() | dataset.texts.keys()):
            old, now = before.files.get(path), after.files.get(path)
            if path in want.todo and path not in want.broken:
                right = after.shards.get(path) == dataset.shards[path]
                agree(
                    right or (partly and now == old),
                    f"{path} is not what the dataset says: {differs(dataset, after, path)}",
                )
            elif path in want.held and old is None:
                agree(now is None or after.shards.get(path) == dataset.shards[path], f"{path} has rows of nobody")
            elif path.startswith("data/"):
                agree(now == old, f"{path} was {'removed' if now is None else 'changed'}, and nothing asked for it")
            elif path in dataset.texts:
                agree(now == dataset.texts[path] or (partly and now == old), f"{path} is not the dataset's text")
            elif path == LEFT_OUT:
                agree(partly or listed(now) == dataset.left_out, f"{path} does not list what is left out")
            elif path == TABLE:
                agree(
                    partly or not dataset.people or table(now) == dataset.people, f"{path} is not the dataset's table"
                )
            elif (
                path.startswith(PICTURES) or path in (CARD, RECORD, INDEX) or (path == ".gitattributes" and old is None)
            ):
                agree(now is not None, f"{path} was removed")
            else:
                agree(
                    now == old, f"{path} was {'removed' if now is None else 'changed'}, and the dataset has it no more"
                )
        if not partly:
            self._record(seen, want, dataset)

    def _record(self, seen: Seen, want: "Want", dataset: Dataset) -> None:
        """Compare the record at the head with the files there."""
        before, after = seen.before, seen.after
        for path in dataset.shards:
            if path not in want.broken and path not in want.held:
                line_is_true(after, path)
        for path, line in before.record.items():
            if path in dataset.shards and path not in want.broken | want.held.keys():
                continue
            if path not in before.files and path not in dataset.shards:
                agree(same(before, after) or path not in after.record, f"the record keeps {path}, which nobody has")
            elif is_shard(path) and path in before.files:
                agree(after.record.get(path) == line, f"the record's line of {path} was lost or changed")
        agree(after.record_lines == len(after.record), "the record has a line twice, or one that cannot be read")
        if same(before, after) or "index" in self.without:
            return
        for path, data in dataset.texts.items():
            agree(after.texts.get(path) == sha256(data), f"the index does not say what {path} is")
        for path in before.texts:
            if path in before.files:
                agree(path in after.texts, f"the index lost {path}, which is at the head")

    def _staged_for(self, seen: Seen, want: "Want") -> None:
        """Check that a push has staged what is missing, and has removed nothing."""
        gone = seen.staged_before.keys() - seen.staged_after.keys()
        agree(not gone, f"staged files were removed without a yes: {', '.join(sorted(gone))}")
        for file, digest in seen.staged_after.items():
            if seen.staged_before.get(file) != digest:
                agree(shard_of(file) in want.todo, f"{file} was staged anew, and its shard was published as it is")

    def _work(self, seen: Seen, asked: Asked, want: "Want") -> None:
        """Check that no more was sent and committed than what has changed."""
        changed = [path for path, data in seen.after.files.items() if seen.before.files.get(path) != data]
        allowed = sum(len(seen.after.files[path]) * OVERHEAD + PER_FILE for path in changed)
        agree(seen.content <= allowed, f"{seen.content} bytes of content sent for {len(changed)} changed files")
        still = self.quiet is not None and asked.dataset is not None and self.quiet.files == asked.dataset.files
        if still and asked.hub == "well" and not asked.ignores:
            agree(same(seen.before, seen.after) and not seen.commits, "a commit, although nothing was changed")
        most = math.ceil(len(want.todo) / BATCH) + 2
        agree(seen.commits <= most, f"{seen.commits} commits for {len(want.todo)} shards")

    def _verified(self, seen: Seen, asked: Asked, want: "Want") -> None:
        """Check that the verification was done at the level asked for, if the run has come so far."""
        if asked.hub != "lies":
            self._looked_at(seen)
        if "verify" in self.without or seen.state not in GREEN:
            return
        there = {path for path in asked.dataset.shards if path not in want.held}  # type: ignore[union-attr]
        left = self.failed & there
        agree(not left, f"{seen.state}, although {', '.join(sorted(left))} failed and was not read back since")
        if asked.verification == "listing":
            return
        least = len(there) if asked.verification == "full" else min(3, len(there))
        read = {path for path in seen.read_back if is_shard(path)}
        agree(len(read) >= least, f"{len(read)} shards were read back in a run that says {asked.verification}")
        agree(asked.hub != "lies" or not there & read, f"{seen.state}, although the Hub sends other bytes")
        self.verified += 1
        self._in_turns(seen, there)

    def _looked_at(self, seen: Seen) -> None:
        """Note what a run has read back, however it ended."""
        for path in seen.read_back:
            self.read_in[path] = (sha256(seen.after.files.get(path, b"")), self.verified + 1)
        self.failed -= set(seen.read_back)

    def _in_turns(self, seen: Seen, there: Collection[str]) -> None:
        """Check that each shard is read back within the stated number of nights."""
        now = {path: sha256(seen.after.files[path]) for path in there if path in seen.after.files}
        for path, digest in now.items():
            known = self.read_in.get(path)
            if known is None or known[0] != digest:
                self.read_in[path] = (digest, self.verified)
            waited = self.verified - self.read_in[path][1]
            agree(waited <= TURNS, f"{path} was not read back in {waited} nights")

    def _ended(self, seen: Seen, asked: Asked, want: "Want") -> None:
        """Check that the state has the right name, and names what it must."""
        agree(seen.state in self._states(seen, asked, want), f"ended {seen.state}: {seen.message[:300]}")
        for path in sorted(want.broken)[:NAMED] if seen.state == "ShardsFailed" else ():
            agree(stem(path) in seen.message, f"{stem(path)} failed, and the state does not name it")
        if "removals" in self.without or seen.state in HUB_AWAY:
            return
        if len(want.removals) <= NAMED:
            for removal in want.removals:
                agree(named(removal, seen.message), f"the state does not name {removal}: {seen.message[:600]}")
        if seen.state == "Suspended":
            asks = self._asks(asked, want, seen.before)
            for removal in self._undecided(want, seen.before).files if asks else ():
                agree(named(removal, seen.evidence), f"the gate does not name {removal}")

    def _states(self, seen: Seen, asked: Asked, want: "Want") -> Collection[str]:
        if asked.ignores and want.todo - want.broken:
            return NOT_TAKEN
        if want.broken:
            return {"ShardsFailed"} | ({"VerificationFailed"} if asked.hub == "lies" or self.failed else set())
        if asked.hub == "lies" or self.failed:
            return {"VerificationFailed"} | GREEN
        if want.todo or (self._asks(asked, want, seen.before) and not self._shown(want, seen.before)):
            return {"Suspended"}
        if same(seen.before, seen.after):
            return {"NothingToPublish"}
        return {"Suspended", "NothingStaged", "NothingToPublish"}

    def _remember(self, seen: Seen, asked: Asked, want: "Want") -> None:
        dataset = asked.dataset
        assert dataset is not None
        asks = self._asks(asked, want, seen.before)
        self._written(seen)
        self.ever |= {sha256(data) for data in seen.after.files.values()}
        self.quiet = dataset if seen.state in GREEN and not seen.killed else None
        if seen.state == "Suspended":
            named = self._undecided(want, seen.after) if asks else Removals()
            self.gate = Gate(dict(seen.staged_after), dataset.shards.keys() - want.held.keys(), named)
        elif not same(seen.before, seen.after):
            self.gate = None  # a newer run has published
        if seen.state == "VerificationFailed":
            self.failed |= {path for path in dataset.shards if f"\n  {path}: " in seen.message}

    def _written(self, seen: Seen) -> None:
        """Note the record's lines that a run has written. One that it left as a stranger made it is none of them."""
        before, after = seen.before.record, seen.after.record
        self.lines |= {path: line for path, line in after.items() if before.get(path) != line}
        self.lines = {path: line for path, line in self.lines.items() if path in after or path not in before}

    # cleanup-staging.

    def cleanup(self, seen: Seen) -> None:
        """Judge a run of cleanup-staging up to its gate.

        Raises:
            Disagreement: it did not do what the rules say.
        """
        self._looked_at(seen)
        self._never(seen)
        agree(same(seen.before, seen.after), "cleanup-staging changed the repo")
        agree(
            dict(seen.staged_before) == dict(seen.staged_after), "cleanup-staging removed files before anybody decided"
        )
        agree(seen.killed or seen.state in {"Suspended", "NothingStaged", "VerificationFailed"}, f"ended {seen.state}")
        if seen.state == "Suspended":
            self.gate = Gate(dict(seen.staged_after), None, Removals())

    # A decision.

    def decided(self, seen: Seen, form: Mapping[str, Any], right: bool, dataset: Dataset | None) -> None:
        """Judge what a run did after somebody answered at its gate.

        Args:
            seen: the run, from the answer on.
            form: the answer.
            right: whether the form has the repo's name, and every field without a default.
            dataset: the dataset as the run's source says it by now; None if it cannot be read.

        Raises:
            Disagreement: it did not do what the rules say.
        """
        gate = self.gate
        assert gate is not None
        self._looked_at(seen)
        self._never(seen)
        if not right:
            # who is asked again is asked about what is verified: where a stranger has changed the repo, nobody is
            changed = {path for path, line in seen.before.record.items() if not holds(seen.before, path, line)}
            changed |= {path for path, line in self.lines.items() if seen.before.record.get(path) != line}
            ends = {"Suspended"} | ({"VerificationFailed"} if changed else set())
            agree(seen.state in ends, f"a wrong answer ended {seen.state}")
            if seen.state != "Suspended":
                self.gate = None
            agree(same(seen.before, seen.after), "a wrong answer changed the repo")
            agree(dict(seen.staged_before) == dict(seen.staged_after), "a wrong answer removed staged files")
            return
        approved = gate.removals.files if form.get("removals") == "remove" else {}
        now = removals_of(relied_on(seen.before, dataset), dataset) if dataset is not None else set()
        due = {one for one in now & approved.keys() if approved[one] == sha256(seen.before.files[one[1]])}
        self._removed(seen, due, dataset, now)
        left = {one for one in due if seen.before.files.get(one[1]) != seen.after.files.get(one[1])}
        self.removed |= {image for one in left for image in images_in(one, seen.before)}
        self._let_go(seen, form, gate)
        agree(seen.killed or seen.state in AFTER | HUB_AWAY, f"a decision ended {seen.state}: {seen.message[:300]}")
        if not seen.killed and seen.state == "VerificationFailed":
            agree(dict(seen.staged_before) == dict(seen.staged_after), "not verified, and staged files were removed")
        if form.get("removals") == "keep" and seen.state in DECIDED | {"CleanupRefused"}:
            self.kept = self.kept.joined(gate.removals)
        if form.get("removals") == "remove" and (seen.state in TAKEN or not same(seen.before, seen.after)):
            self.kept = self.kept.excluding(gate.removals)
        if seen.state in DECIDED:
            self._decided_so(seen, form, gate, due, dataset)
        if not seen.killed and seen.state != "Suspended":
            self.gate = None
        self._written(seen)
        self.ever |= {sha256(data) for data in seen.after.files.values()}
        self.quiet = None

    def _removed(
        self, seen: Seen, approved: Collection[Removal], dataset: Dataset | None, now: Collection[Removal]
    ) -> None:
        """Check that nothing has gone but what was approved and is still a removal."""
        before, after = seen.before, seen.after
        known = relied_on(before, dataset) if dataset is not None else before
        gone = {one[1] for one in approved if one[0] in ("shard", "text")}
        rows = {one[1] for one in approved if one[0] == "row"}
        rows -= {one[1] for one in now if one[0] == "row" and one not in approved}
        for path in sorted(before.files.keys() | after.files.keys()):
            old, new = before.files.get(path), after.files.get(path)
            if path in (CARD, RECORD, INDEX) or path.startswith(PICTURES) or new == old:
                continue
            if new is None:
                agree(path in gone, f"{path} went from the head, and nobody had approved that")
            elif path in rows and dataset is not None:
                agree(after.shards.get(path) == dataset.shards[path], f"{path} is not what the dataset says")
            elif dataset is not None and path in dataset.texts:
                agree(new == dataset.texts[path], f"{path} is not the dataset's text")
            elif path in (TABLE, LEFT_OUT):
                continue
            else:
                raise Disagreement(f"{path} was changed by a decision that was not about it")
        for path in after.record:
            if path in before.record and path not in rows:
                lines = before.record[path], known.record[path]
                agree(after.record[path] in lines, f"the record's line of {path} was changed by a decision")
        for path in before.record.keys() - after.record.keys():
            agree(path in gone or path not in before.files, f"the record lost its line of {path} by a decision")

    def _let_go(self, seen: Seen, form: Mapping[str, Any], gate: Gate) -> None:
        """Check that staged files went only if somebody decided so, as they were shown, and while the Hub held them."""
        at_head = {sha256(data) for path, data in seen.before.files.items() if is_shard(path)}
        for file in sorted(seen.staged_before.keys() - seen.staged_after.keys()):
            digest = seen.staged_before[file]
            agree(form.get("decision") == "delete", f"{file} was removed, and nobody had let it go")
            agree(gate.staged.get(file) == digest, f"{file} was removed, and it is not what the gate showed")
            content = digest.split()[0]
            held = content in at_head or (form.get("remove_stale") and content in self.ever)
            agree(bool(held), f"{file} was removed, and it was the only copy")

    def _decided_so(
        self, seen: Seen, form: Mapping[str, Any], gate: Gate, due: Collection[Removal], dataset: Dataset | None
    ) -> None:
        """Check that a run which says that it has done what was decided has done it."""
        at_head = {path: sha256(data) for path, data in seen.before.files.items() if is_shard(path)}
        if form.get("decision") == "delete":
            for file, digest in gate.staged.items():
                shown = gate.shards is None or shard_of(file) in gate.shards
                # with another shard's bytes it is not what was staged, and stays, though the Hub has those bytes too
                there = seen.staged_before.get(file) == digest and digest == at_head.get(shard_of(file))
                left = seen.staged_after.get(file) == digest and seen.staged_before.get(file) == seen.staged_after.get(
                    file
                )
                agree(not (shown and there and left), f"{file} was let go, and is still there ({seen.state})")
        if "removals" in self.without:
            return
        for one in due:
            if one[0] == "row":
                assert dataset is not None
                images = seen.after.record[one[1]].images if one[1] in seen.after.record else {}
                known = relied_on(seen.before, dataset)
                others = {other for other in removals_of(known, dataset) if other[:2] == one[:2]} - set(due)
                agree(one[2] not in images or bool(others), f"{one} was approved, and is still there ({seen.state})")
            else:
                agree(one[1] not in seen.after.files, f"{one} was approved, and is still there ({seen.state})")
                agree(one[1] not in seen.after.record, f"{one} was removed, and its line is still in the record")


GREEN = frozenset({"Suspended", "NothingToPublish", "NothingStaged"})
STOPPED = frozenset({"TooMuchChanged", "RemovedCameBack"})
DECIDED = frozenset({"CleanedUp", "Kept", "Removed"})
#: Ends of a run that can only come after it took a decision to remove.
TAKEN = DECIDED | {"CleanupRefused", "RemovalRefused", "ShardsFailed", *STOPPED}
AFTER = (
    DECIDED
    | NOT_TAKEN
    | {
        "CleanupRefused",
        "VerificationFailed",
        "NothingStaged",
        "ShardsFailed",
        "ContestedTarget",
        "Suspended",
        *STOPPED,
        "RemovalRefused",
    }
)


@dataclass(frozen=True)
class Want:
    """The work of a push, by the head before it and the dataset."""

    removals: frozenset[Removal]
    held: Mapping[str, frozenset[str]]
    """Shards that would lose rows, and which."""
    todo: frozenset[str]
    """Shards that have to be published."""
    broken: frozenset[str]
    """Those of them that cannot be, since an image is damaged."""

    @classmethod
    def of(cls, before: Head, dataset: Dataset, lines: Mapping[str, Line]) -> "Want":
        """Work out what a push has to do.

        Args:
            before: the head before it.
            dataset: the dataset.
            lines: the lines of the record as the last run left them.
        """
        removals = removals_of(before, dataset)
        held: dict[str, frozenset[str]] = {}
        for one in removals:
            if one[0] == "row":
                held[one[1]] = held.get(one[1], frozenset()) | {one[2]}
        todo = {
            path
            for path, rows in dataset.shards.items()
            if path not in held and not published_as_it_is(before, path, rows, lines)
        }
        broken = {path for path in todo if any(dataset.broken(image) for image in dataset.shards[path])}
        return cls(frozenset(removals), held, frozenset(todo), frozenset(broken))


def published_as_it_is(before: Head, path: str, rows: Mapping[str, Row], lines: Mapping[str, Line]) -> bool:
    """Return whether a shard is at the head as the dataset has it, with the record's line as the last run left it."""
    line, data = before.record.get(path), before.files.get(path)
    if line is None or data is None or line != lines.get(path):
        return False
    return before.shards.get(path) == rows and line.sha256 == sha256(data) and line.size == len(data)


def relied_on(before: Head, dataset: Dataset) -> Head:
    """Return a head with the lines that can be relied on, whatever somebody has edited in the record.

    A shard that has no line, or a line about other bytes, or any shard if the record was edited, says itself which
    files it holds. What is a row of another shard of the dataset is not missed here.
    """
    corrected, all_rows = {}, dataset.rows.keys()
    for path in before.files:
        line, own, now = before.record.get(path), before.line_of(path), dataset.shards.get(path)
        if not is_shard(path) or own is None:
            continue
        if now is None:
            hides = line is None or (line.sha256 == own.sha256 and line.images.keys() != own.images.keys())
            if before.record_was_edited and hides:
                corrected[path] = own
        elif line is None or line.sha256 != own.sha256:
            if not own.images.keys() <= all_rows:
                corrected[path] = own
        elif before.record_was_edited and line.images.keys() != own.images.keys():
            corrected[path] = own
    return replace(before, corrected=corrected)


def removals_of(before: Head, dataset: Dataset) -> set[Removal]:
    """Return what the record says was published, the head still has in our folders, and the dataset has no more."""
    found: set[Removal] = set()
    for path, line in ours(before.record).items():
        if path in dataset.shards and path in before.files:
            found |= {("row", path, image) for image in line.images.keys() - dataset.shards[path].keys()}
        elif sha256(before.files.get(path, b"")) == line.sha256:
            found.add(("shard", path))
    for path, digest in before.texts.items():
        gone = path not in dataset.texts and path != LEFT_OUT and not (path == TABLE and dataset.people)
        there = sha256(before.files.get(path, b"")) == digest
        if gone and there and path.startswith(("bids/", "tables/")):
            found.add(("text", path))
    return found


def images_in(removal: Removal, before: Head) -> Collection[str]:
    """Return the images that a removal is about."""
    if removal[0] == "shard":
        return before.record[removal[1]].images.keys()
    return {removal[2]} if removal[0] == "row" else ()


def rows_of(head: Head) -> dict[str, str]:
    """Return the images and sidecars that the record says are published: path -> sha256."""
    return {path: digest for line in ours(head.record).values() for path, digest in line.images.items()}


def images_of(head: Head) -> dict[str, str]:
    """Return the images that the record says are published: path -> sha256."""
    return {path: digest for path, digest in rows_of(head).items() if is_image(path)}


def ours(record: Mapping[str, Line]) -> dict[str, Line]:
    """Return the lines that can be about shards of ours."""
    return {path: line for path, line in record.items() if is_shard(path)}


def is_shard(path: str) -> bool:
    """Return whether a path is one that a shard can have."""
    depth = {2: "data/*/*.parquet", 3: "data/??/*/*.parquet"}.get(path.count("/"))
    return depth is not None and PurePosixPath(path).match(depth)


def is_ours(path: str) -> bool:
    """Return whether a path lies where we publish."""
    return is_shard(path) or path.startswith(("bids/", "tables/"))


def shard_of(file: str) -> str:
    """Return the path in the repo of a staged shard, such as `shards/sub-1/sub-1.0123456789ab.parquet`."""
    folder, name = file.split("/")[-2:]
    return f"data/{folder}/{name.split('.')[0]}.parquet"


def stem(path: str) -> str:
    """Return a shard's name."""
    return PurePosixPath(path).stem


def named(removal: Removal, text: str) -> bool:
    """Return whether a text names a removal."""
    if removal[0] == "row":
        return PurePosixPath(removal[2]).name in text or stem(removal[1]) in text
    return stem(removal[1]) in text


def holds(head: Head, path: str, line: Line) -> bool:
    """Return whether the repo has a shard as its line in the record says."""
    data = head.files.get(path)
    return data is not None and (line.sha256, line.size) == (sha256(data), len(data))


def line_is_true(head: Head, path: str) -> None:
    """Check that the record's line of a shard says what the shard is.

    Raises:
        Disagreement: it does not.
    """
    line, data, rows = head.record.get(path), head.files.get(path, b""), head.shards.get(path) or {}
    agree(line is not None, f"the record does not know {path}")
    assert line is not None
    agree(line.sha256 == sha256(data) and line.size == len(data), f"the record says other bytes of {path}")
    agree(line.rows == len(rows), f"the record says other rows of {path}")
    agree(
        dict(line.images) == {image: row.sha256 for image, row in rows.items()},
        f"the record says other images of {path}",
    )


def differs(dataset: Dataset, head: Head, path: str) -> str:
    """Return in words in what a shard differs from the dataset."""
    should, found = dataset.shards[path], head.shards.get(path)
    if found is None:
        return "it is not there, or no shard"
    for image in sorted(should.keys() | found.keys()):
        if should.get(image) != found.get(image):
            return f"{image}: {found.get(image)} and not {should.get(image)}"
    return "in nothing"


def table(data: bytes | None) -> dict[str, dict[str, str]]:
    """Read a published table of people, and return it as `Dataset.people` has it."""
    rows = pq.read_table(io.BytesIO(data or b"")).to_pylist() if data else []
    return {row.pop("participant_id"): row for row in rows}


def listed(data: bytes | None) -> list[str] | None:
    """Return the paths in a published table of what is left out, or None if there is no table."""
    return None if data is None else [line.split("\t")[0] for line in data.decode().splitlines()[1:]]


def same(before: Head, after: Head) -> bool:
    """Return whether nobody has committed between these two heads."""
    return before.commit == after.commit


def agree(true: bool, what: str) -> None:
    """Go on if it is so.

    Raises:
        Disagreement: it is not.
    """
    if not true:
        raise Disagreement(what)
