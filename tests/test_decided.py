"""What the flows take as decided, by whom, and what they take for verified: rule by rule.

The nights and gates in which these rules meet are in test_verified_nights.py, test_removal_gate.py and end_to_end/.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Running, Suspended

from flows.compare import settled
from flows.removal import asked_already, to_ask
from flows.target import HeldTarget
from flows.values import Approved
from flows.verification import expected_on_hub
from flows.verify_to_cleanup import never_asked
from tasks.approve import write_gate
from tasks.disk.staging import Staging
from tasks.record.accepted import Accepted, write_accepted
from tasks.record.kept_removals import Keeping, keep, open_again, read_kept
from tasks.record.removals import Removals, as_file
from tasks.remove import RemovalNotApproved
from tasks.report.evidence import Approval, Fate, Gate
from tasks.runs.this_run import ThisRun
from tasks.values.models import ImageContent, PublicationRecord, PublishedShard
from tests.test_published import line, listed, listing, spec

# What has to be on the Hub.

ONE, TWO = line(spec("sub-1")), line(spec("sub-2"))


def record(*lines: PublishedShard) -> PublicationRecord:
    return PublicationRecord().updated(lines)


def test_what_a_run_has_published_or_found_in_order_has_to_be_there_whatever_the_repo_holds_by_now() -> None:
    other = replace(listed(ONE), sha256="0" * 64)
    for files in ([], [other], [listed(ONE)]):
        assert expected_on_hub(record(), record(ONE), listing(*files), {ONE.path}) == [ONE]
        taken_out = record()  # by somebody else
        assert expected_on_hub(record(ONE), taken_out, listing(*files), {ONE.path}) == [ONE]


def test_a_shard_that_was_published_anew_has_to_be_there_as_it_is_now() -> None:
    now = ONE.model_copy(update={"sha256": "0" * 64})
    assert expected_on_hub(record(ONE), record(now), listing(), {ONE.path}) == [now]


def test_every_other_line_has_to_be_there_if_it_was_when_it_was_read_and_is_no_business_of_this_run_if_not() -> None:
    assert expected_on_hub(record(ONE), record(ONE, TWO), listing(listed(ONE)), {TWO.path}) == [ONE, TWO]
    for files in ([], [replace(listed(ONE), sha256="0" * 64)]):
        assert expected_on_hub(record(ONE), record(ONE, TWO), listing(*files), {TWO.path}) == [TWO]
    assert expected_on_hub(record(ONE, TWO), record(), listing(listed(ONE), listed(TWO)), set()) == []


# Who has decided what.


def removal(*images: str, of: PublishedShard = ONE) -> Removals:
    return Removals(shards={of.path: images}, published={of.path: as_file(of)})


def waiting_gate(staging: Staging, removals: Removals, state: State) -> None:
    """The gate of another run, which is in this state."""

    @flow(name="another")
    def another() -> None: ...

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(another, state=state)
    gate = Gate(flow_run_id=str(run.id), flow_run_name=run.name, opened_at_commit="c" * 40, removals=removals)
    write_gate(staging, gate)


def test_images_count_as_decided_that_somebody_kept_accepted_approved_or_is_being_asked_about_and_no_other(
    while_held: Callable[..., None],
) -> None:
    contents = tuple(ImageContent(path=name, size=1, sha256=sha * 64) for name, sha in (("accepted", "a"), ("b", "b")))
    now = record(ONE.model_copy(update={"images": contents, "rows": 2}))

    def look(held: HeldTarget) -> None:
        assert settled(held, None, now) == frozenset()
        keep(held.staging, Keeping(removals=removal("kept")))
        assert settled(held, None, now) == {"kept"}
        open_again(
            held.staging, removal("kept")
        )  # somebody has it asked again: it is withdrawn as before, and no new change
        assert settled(held, None, now) == {"kept"}
        write_accepted(held.staging, Accepted(gone={"accepted": "a" * 64, "b": "0" * 64, "c": "c" * 64}))
        assert settled(held, None, now) == {"kept", "accepted"}  # b was published anew since, c is no more
        waiting_gate(held.staging, removal("asked", of=TWO), Suspended())
        assert settled(held, None, now) == {"kept", "accepted", "asked"}
        assert settled(held, removal("approved"), now) == {"kept", "accepted", "asked", "approved"}
        waiting_gate(held.staging, removal("asked", of=TWO), Running())
        assert settled(held, None, now) == {"kept", "accepted"}

    while_held(look)


def test_a_gate_stays_open_only_where_it_asks_exactly_what_there_is_to_ask(while_held: Callable[..., None]) -> None:
    def look(held: HeldTarget) -> None:
        assert asked_already(held, Removals())
        assert not asked_already(held, removal("a"))
        waiting_gate(held.staging, removal("a"), Suspended())
        assert asked_already(held, removal("a")) and asked_already(held, Removals())
        assert not asked_already(held, removal("a", "b"))
        waiting_gate(held.staging, removal("a"), Running())
        assert not asked_already(held, removal("a"))

    while_held(look)


def test_a_gate_asks_about_removals_that_nobody_has_decided_if_the_run_is_to_ask_and_can_wait(
    while_held: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    both = Removals(
        shards={ONE.path: ("a",), TWO.path: ("b",)},
        published={ONE.path: as_file(ONE), TWO.path: as_file(TWO)},
    )

    def look(held: HeldTarget) -> None:
        deployed = replace(held, run=replace(held.run, deployed=True))
        assert to_ask(deployed, "keep", both) == Removals() == to_ask(deployed, "ask", Removals())
        assert to_ask(deployed, "ask", both) == both
        assert "cannot wait" not in caplog.text
        assert to_ask(held, "ask", both) == Removals()
        cannot = "This run has no deployment, so it cannot wait at a gate: run push-bids/manual with removed=ask."
        assert caplog.messages[-1] == cannot
        keep(held.staging, Keeping(removals=removal("a")))
        assert to_ask(deployed, "ask", both) == removal("b", of=TWO)
        keep(held.staging, Keeping(removals=both))
        caplog.clear()
        assert to_ask(held, "ask", both) == Removals() and "cannot wait" not in caplog.text

    while_held(look)
    assert "is taken as ask" not in caplog.text


def test_what_was_kept_is_asked_about_again_if_somebody_asks_for_it_and_stays_open_until_there_is_an_answer(
    while_held: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def look(held: HeldTarget) -> None:
        deployed = replace(held, run=replace(held.run, deployed=True))
        keep(held.staging, Keeping(removals=removal("a")))
        assert to_ask(deployed, "ask again", Removals()) == Removals() == to_ask(deployed, "keep", removal("a"))
        assert to_ask(held, "ask again", removal("a")) == Removals()  # it cannot wait
        assert "cannot wait at a gate" in caplog.text and read_kept(held.staging) == removal("a")
        assert to_ask(deployed, "ask again", removal("a")) == removal("a")
        assert to_ask(deployed, "ask", removal("a")) == removal("a")  # the next night takes the question over
        keep(held.staging, Keeping(removals=removal("a")))
        assert to_ask(deployed, "ask", removal("a")) == Removals()

    while_held(look)


def test_a_night_that_a_schedule_starts_never_asks_again_about_what_was_kept(
    while_held: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(held: HeldTarget) -> None:
        deployed = replace(held, run=replace(held.run, deployed=True))
        keep(held.staging, Keeping(removals=removal("a")))
        scheduled = ThisRun.flow_run().model_copy(update={"auto_scheduled": True})
        monkeypatch.setattr(ThisRun, "flow_run", staticmethod(lambda: scheduled))
        assert to_ask(deployed, "ask again", removal("a")) == Removals()
        assert caplog.messages[-1] == "removed=ask again is taken as ask, since a schedule has started this run."
        assert to_ask(deployed, "ask again", removal("b", of=TWO)) == removal("b", of=TWO)

    while_held(look)


def test_removed_delete_of_older_days_is_taken_as_ask_and_said_so(
    while_held: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    while_held(lambda held: to_ask(held, "ask", removal("a")) and None, removed="delete")
    taken = "removed=delete is taken as ask: nothing published is removed unless a person approves it at a gate."
    assert taken in caplog.messages


def test_a_flow_that_knows_no_dataset_removes_nothing_even_where_somebody_approved_it() -> None:
    gate = Gate(flow_run_id="1", flow_run_name="run", removals=removal("a"))
    with pytest.raises(RemovalNotApproved, match="asked about no removal: 1 shard with 1 "):
        never_asked(Approved(gate, Approval(flow_run_id="1", removals=Fate.REMOVE), None))
