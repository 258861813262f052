"""The tail of the chain alone, for a target whose gate was rejected, timed out or never opened."""

from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State

from flows.connect import BlockName, Folder, RepoId, Revision, connect, ends_readably, staging_of
from flows.tail import tail, tail_again
from tasks.approve import at_its_gate, claim
from tasks.evidence import Evidence
from tasks.lease import holding
from tasks.models import Verification
from tasks.published import read_published
from tasks.resume import disagreement
from tasks.run import ThisRun, named_for_the_night


@flow(name="cleanup-staging", flow_run_name=partial(named_for_the_night, "clean up"), persist_result=False)
@ends_readably
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
    hub = connect(repo_id, revision, token_block)
    staging = staging_of(hub, staging_root)
    run = ThisRun.of(hub.target)
    with holding(staging, hub.target, run):
        if gate := at_its_gate(staging, run):
            return tail_again(hub, staging, run, verification, gate)
        published = read_published(hub)
        listing = hub.listing(published.commit)
        receipts = staging.receipts()
        held = [
            receipt
            for receipt in receipts
            if published.record.shards.get(receipt.path) == receipt.published() and not disagreement(receipt, listing)
        ]
        if held:
            claim(staging, hub.target, run)
        rest = [receipt for receipt in receipts if receipt not in held]
        expected = [receipt.published() for receipt in held]
        return tail(hub, staging, run, verification, Evidence(expected, held, unpublished=rest))
