"""The last part of the chain alone, for a target whose gate was rejected, timed out or never opened."""

from collections.abc import Iterable
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger

from flows.carry_out import leftovers_besides
from flows.parameters import BlockName, Folder, RepoId, Revision
from flows.target import HeldTarget, on_target
from flows.verify_to_cleanup import tail, tail_again
from tasks.approve import at_its_gate, claim, read_gate
from tasks.record.published import disagreement
from tasks.record.remote import Remote, read_remote
from tasks.report import sentences
from tasks.report.evidence import Evidence, copies
from tasks.runs.this_run import named_for_the_night
from tasks.values.models import Listing, Receipt, Verification


@flow(name="cleanup-staging", flow_run_name=partial(named_for_the_night, "clean up"), persist_result=False)
def cleanup_staging(
    repo_id: RepoId,
    revision: Revision = "main",
    verification: Verification = "sample",
    staging_root: Folder = "",
    token_block: BlockName = "",
) -> State:
    """Verify what is staged for a repo against the Hub, ask a person, and remove what they let go.

    Args:
        repo_id: The dataset repo on the Hub, as namespace/name.
        revision: The branch that was pushed to.
        verification: listing: compare every shard's size and sha256 with the Hub's listing. sample: and read some
            shards back, byte for byte. full: and read every shard back.
        staging_root: Where the shards are staged. Empty: BIDS_PUSH_STAGING_ROOT of the worker.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
    """

    def body(held: HeldTarget) -> State:
        if gate := at_its_gate(held.staging, held.run):
            return tail_again(held, verification, gate)
        remote = read_remote(held.hub)
        listing = held.hub.listing(remote.commit)
        on_hub = _published(copies(held.staging, held.staging.receipts()), remote, listing)
        leftovers = leftovers_besides(held, on_hub)
        if on_hub or leftovers.stale:
            _take_over(held)
        expected = [receipt.line() for receipt in on_hub]
        evidence = Evidence(expected, on_hub, read=(remote.record, listing))
        return tail(held, verification, evidence, leftovers=leftovers)

    return on_target(body, repo_id, revision, token_block, staging_root)


def _published(receipts: Iterable[Receipt], remote: Remote, listing: Listing) -> list[Receipt]:
    """Return the receipts of the shards that the record and the listing have as they are staged."""
    lines = remote.record.shards
    recorded = (one for one in receipts if one.line().same_but_modes(lines.get(one.path)))
    return [one for one in recorded if not disagreement(one, listing)]


def _take_over(held: HeldTarget) -> None:
    """Claim the target's gate, and log which removals are no longer asked about: this run asks about none."""
    before = read_gate(held.staging)
    superseded = claim(held.staging, held.hub.target, held.run)
    if before is not None and before.removals and before.flow_run_name in superseded:
        get_run_logger().warning("%s", sentences.no_longer_asked(before))
