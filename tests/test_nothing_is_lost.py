"""Any order of pushes, kills, faults, damage and other people's commits: what must always hold, after every step.

Hypothesis drives the real stages (plan, stage, transfer, commit, verify, cleanup) against the real local Hub, breaks
requests and processes for real, and after each step checks the invariants that can be looked at from outside:

- a staged file goes only by a cleanup that was approved after its verification, or by the hand that damaged it here;
- whatever the record and the listing of the Hub agree on has the bytes of a fresh build of the same images;
- the table of `tasks.record.published` decides the next run's work: as many embeds and bytes as were missing, no more;
- a shard with a source file that cannot be published is never sent, and the others are;
- the token is in no file.
"""

import contextlib
import os
import random
import shutil
import tempfile
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tasks.cleanup import asking, execute, plan_cleanup
from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.disk.content_cache import ContentCache
from tasks.disk.files import sha256_of
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.hub.errors import Transient
from tasks.load import load
from tasks.plan import plan
from tasks.record.published import Work, decide, disagreement
from tasks.record.remote import Remote, read_remote
from tasks.report.evidence import Approval, Choice, Gate, shown_as
from tasks.stage import stage
from tasks.transfer import Transferred, transfer
from tasks.values.errors import PushError
from tasks.values.models import Receipt, ShardSpec
from tasks.verify import Reading, verify
from tasks.write import WRITER_SETTINGS
from tests.counted_hub import CountedHub

CHANGES = Besides(lambda record, existing: f"---\nlicense: cc0-1.0\n---\n{len(record.shards)} shards\n", {})
READING = Reading(Round(datetime(2026, 11, 24, tzinfo=UTC), nights=1))
OVERHEAD = 1.05  # of content over Xet: chunk headers, and a xorb's footer
DAMAGES = st.lists(
    st.sampled_from(["flip", "cut", "empty", "delete", "swap", "no receipt", "half a receipt"]), min_size=1, max_size=5
)
SEEDS = st.integers(0, 99)
_numbers = count(1)


class Pushes(RuleBasedStateMachine):
    """One dataset, one target, one staging folder, and everything that happens to them."""

    server: ClassVar[CountedHub]
    token: ClassVar[str]
    bids: ClassVar[Path]
    digests: ClassVar[dict[tuple[str, ...], str]] = {}
    """The sha256 of a fresh build, by the shard's digest and its images' sha256."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="bids-push-pushes-"))
        self.source = Path(shutil.copytree(self.bids, self.folder / "bids", copy_function=shutil.copy2))
        self.staging = Staging(self.folder / "staging")
        self.hub = Hub(Target(self.server.endpoint, f"lab/pushes-{next(_numbers)}"), self.token)
        self.hub.prepare(private=True)
        self.staged: set[Path] = set()
        self.unfetched: dict[Path, Path] = {}
        self.edits = 0
        self.mended = self.moved = False

    def teardown(self) -> None:
        """Whatever has happened, one clean run mends it."""
        try:
            self.a_clean_run_does_what_is_missing_and_no_more()
            self.what_record_and_listing_agree_on_has_the_bytes_of_a_fresh_build()
            self.no_staged_file_has_gone_without_an_approval()
        finally:
            shutil.rmtree(self.folder)

    # What a run does.

    def specs(self) -> tuple[ShardSpec, ...]:
        return plan(load(self.source), WRITER_SETTINGS)

    def work(self) -> tuple[Work, Remote]:
        published = read_remote(self.hub)
        contents = ContentCache(self.folder / "contents.jsonl", self.source)
        listing = self.hub.listing(published.commit)
        return decide(self.specs(), published.record, listing, contents.unchanged, self.staging.read_whole), published

    def stage_some(self, specs: tuple[ShardSpec, ...]) -> tuple[list[Receipt], list[str]]:
        receipts, failed = [], []
        for spec in specs:
            try:
                receipts.append(stage(spec, self.source, self.staging))
            except PushError as error:
                assert spec.name in str(error) or any(image.path in str(error) for image in spec.images)
                failed.append(spec.path)
        self.staged |= {self.staging.folder / receipt.file for receipt in receipts}
        return receipts, failed

    def kept(self, specs: tuple[ShardSpec, ...]) -> list[Receipt]:
        return [receipt for spec in specs if (receipt := self.staging.read_whole(spec))]

    def commit_all(self, sent: list[Transferred], published: Remote) -> Remote:
        for start in range(0, len(sent), 2):
            batch = sent[start : start + 2]
            lines = [one.receipt.line() for one in batch]
            published = commit(self.hub, published, lines, [one.operation for one in batch], CHANGES)
        return published

    @rule(number=st.integers(3, 6), hows=DAMAGES, seed=SEEDS)
    def a_run_dies_after_staging_some_and_they_are_damaged_by_hand(
        self, number: int, hows: list[str], seed: int
    ) -> None:
        work, _ = self.work()
        self.stage_some(work.stage[:number])
        self.staged_shards_are_damaged_by_hand(hows, seed)

    @rule(number=st.integers(1, 4))
    def a_run_dies_between_transfer_and_commit(self, number: int) -> None:
        work, _ = self.work()
        receipts, _failed = self.stage_some(work.stage[:number])
        transfer(self.hub, self.staging, [*self.kept(work.send), *receipts])

    @rule(number=st.integers(1, 4), what=st.sampled_from(["", "delete", "replace"]), seed=SEEDS)
    def a_run_dies_after_some_commits_and_somebody_changes_one(self, number: int, what: str, seed: int) -> None:
        work, published = self.work()
        receipts, _failed = self.stage_some(work.stage[:number])
        self.commit_all(list(transfer(self.hub, self.staging, receipts)), published)
        if what:
            self.somebody_else_changes_the_repo(what, seed)

    @rule(fault=st.sampled_from(["lose_response", "cut_request", "status"]))
    def a_run_meets_a_fault_at_its_commit(self, fault: str) -> None:
        work, published = self.work()
        receipts, _failed = self.stage_some(work.stage[:2])
        sent = list(transfer(self.hub, self.staging, receipts))
        self.server.break_on({"fault": fault, "path": "/commit/", "status": 500, "bytes": 10})
        with contextlib.suppress(Transient):
            self.commit_all(sent, published)
        self.server.break_on()

    @rule()
    def a_run_commits_on_a_head_that_somebody_else_has_moved(self) -> None:
        work, published = self.work()
        receipts, _failed = self.stage_some(work.stage[:2])
        sent = list(transfer(self.hub, self.staging, receipts))
        self.hub.commit([CommitOperationAdd("notes.md", os.urandom(8))], "By hand", self.hub.head())
        self.commit_all(sent, published)

    @precondition(lambda self: not self.mended)
    @rule()
    def a_clean_run_does_what_is_missing_and_no_more(self) -> None:
        self.mended = True  # once between the faults; each time again after them (`teardown`)
        work, published = self.work()
        intact = [receipt for receipt in self.kept(work.send) if Staging(self.staging.folder).intact(receipt)]
        start = len(self.server.asked())
        receipts, failed = self.stage_some(work.stage)
        sent = list(transfer(self.hub, self.staging, [*self.kept(work.send), *receipts]))
        assert [one.receipt for one in sent] == [*intact, *receipts]
        damaged = {one.path for one in self.kept(work.send)} - {one.path for one in intact}
        again, _failed = self.stage_some(work.to_stage_again(damaged).stage)
        sent += transfer(self.hub, self.staging, again)
        published = self.commit_all(sent, published)
        assert self.server.content_received(start) <= sum(one.size for one in sent) * OVERHEAD

        left, _ = self.work()
        assert sorted(spec.path for spec in left.missing) == sorted(failed)
        assert {spec.path for spec in work.done} <= {spec.path for spec in left.done}
        expected = [published.record.shards[spec.path] for spec in left.done]
        verify(self.hub, expected, "full", READING).require_good()

    @precondition(lambda self: self.staged)
    @rule(kept=st.booleans())
    def a_person_decides_at_a_gate(self, kept: bool) -> None:
        published = read_remote(self.hub)
        listing = self.hub.listing(published.commit)
        receipts = [one for one in self.staging.receipts() if published.record.shards.get(one.path) == one.line()]
        receipts = [one for one in receipts if disagreement(one, listing) is None]
        report = verify(self.hub, [one.line() for one in receipts], "listing", READING)
        gate = Gate(flow_run_id="run", flow_run_name="run", opened_at_commit=report.commit,
                    shown=tuple(shown_as(one) for one in receipts))  # fmt: skip
        approval = Approval(flow_run_id="run", decision=Choice.KEEP if kept else Choice.DELETE)
        if kept:
            return
        result = execute(plan_cleanup(self.staging, gate, approval, report), asking(self.hub))
        gone = {self.staging.folder / one.file for one in result.removed if one.kind == "shard"}
        assert gone <= {self.staging.folder / one.file for one in receipts}
        self.staged -= gone

    # What happens to it.

    @precondition(lambda self: self.staged)
    @rule(hows=DAMAGES, seed=SEEDS)
    def staged_shards_are_damaged_by_hand(self, hows: list[str], seed: int) -> None:
        files = sorted(self.staged)
        random.Random(seed).shuffle(files)
        for how, file in zip(hows, files, strict=False):
            self.damage(how, file)

    def damage(self, how: str, file: Path) -> None:
        receipt = file.with_suffix(".receipt.json")
        data = file.read_bytes()
        if how == "flip" and data:
            middle = len(data) // 2
            file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        elif how == "cut":
            file.write_bytes(data[: len(data) // 2])
        elif how == "empty":
            file.write_bytes(b"")
        elif how == "delete":
            file.unlink()
            self.staged.remove(file)
        elif how == "swap":
            file.write_bytes(min(self.staged).read_bytes())
        elif how == "no receipt":
            receipt.unlink(missing_ok=True)
        elif how == "half a receipt" and receipt.exists():
            receipt.write_bytes(receipt.read_bytes()[:80])

    @precondition(lambda self: not self.moved)
    @rule()
    def the_next_run_is_on_another_machine(self) -> None:
        self.moved = True
        self.staging = Staging(self.folder / f"staging-{next(_numbers)}")
        self.staged = set()
        (self.folder / "contents.jsonl").unlink(missing_ok=True)

    @rule(what=st.sampled_from(["delete", "replace", "add"]), seed=SEEDS)
    def somebody_else_changes_the_repo(self, what: str, seed: int) -> None:
        shards = sorted(path for path in self.hub.listing(self.hub.head()).files if path.startswith("data/"))
        if what == "add":
            self.hub.commit([CommitOperationAdd("data/stranger.parquet", b"mine")], "By hand", self.hub.head())
        elif shards:
            path = random.Random(seed).choice(shards)
            change = CommitOperationDelete(path) if what == "delete" else CommitOperationAdd(path, b"not a shard")
            self.hub.commit([change], "By hand", self.hub.head())

    @rule(seed=SEEDS)
    def an_image_is_edited_in_place(self, seed: int) -> None:
        image = random.Random(seed).choice(sorted(self.source.rglob("*_T1w.nii.gz")))
        if image in self.unfetched:
            return
        data = bytearray(image.read_bytes())
        data[9] ^= 1 << seed % 8  # the header's "operating system" byte: another file, and as good a gzip
        image.write_bytes(data)
        self.edits += 1
        os.utime(image, ns=(self.edits, self.edits))  # no two edits within one tick of the clock look alike

    @rule(seed=SEEDS)
    def an_image_is_lost_or_found_again(self, seed: int) -> None:
        if self.unfetched:
            image, content = self.unfetched.popitem()
            image.unlink()
            content.rename(image)
            return
        image = random.Random(seed).choice(sorted(self.source.rglob("*_T1w.nii.gz")))
        content = Path(shutil.move(image, self.folder / "lost.nii.gz"))
        image.symlink_to("nowhere.nii.gz")
        self.unfetched[image] = content

    @rule()
    def the_hub_is_killed_and_started_again(self) -> None:
        self.server.kill()
        self.server.start()

    # What must always hold.

    @invariant()
    def no_staged_file_has_gone_without_an_approval(self) -> None:
        assert all(file.is_file() for file in self.staged)

    @invariant()
    def what_record_and_listing_agree_on_has_the_bytes_of_a_fresh_build(self) -> None:
        published = read_remote(self.hub)
        assert not published.damaged
        listing = self.hub.listing(published.commit)
        specs = {spec.path: spec for spec in self.specs()}
        for path, line in published.record.shards.items():
            spec = specs.get(path)
            if spec is None or disagreement(line, listing) or line.digest != spec.digest or not self.as_it_was(line):
                continue
            key = (line.digest, *(image.sha256 for image in line.images))
            if key not in self.digests:
                fresh = stage(spec, self.source, Staging(self.folder / "fresh"))
                self.digests[key] = fresh.sha256
            assert listing.files[path].sha256 == self.digests[key]

    def as_it_was(self, line: Any) -> bool:
        """Whether the source still has the images that were published."""
        sources = [(self.source / image.path, image.sha256) for image in line.images]
        return all(source.exists() and sha256_of(source) == sha256 for source, sha256 in sources)

    @invariant()
    def the_token_is_in_no_file(self) -> None:
        texts = [*self.staging.folder.rglob("*.json"), *self.folder.glob("*.jsonl")]
        assert not any(self.token.encode() in text.read_bytes() for text in texts)


def test_nothing_is_lost_and_nothing_is_done_twice_whatever_happens(server: CountedHub, bids: Path) -> None:
    Pushes.server, Pushes.token, Pushes.bids = server, server.token("lab"), bids
    run_state_machine_as_test(
        Pushes,
        settings=settings(
            max_examples=20,
            stateful_step_count=7,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
