"""What a verified publication leaves on the Prefect server for people: links to the repo, and the repo as an asset.

The asset's upstream is the dataset's folder, so the lineage shows where a repo comes from. The asset is called
materialized when the Hub was verified to hold it, and never because an upload call returned.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from prefect.artifacts import create_link_artifact
from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.report.evidence import VerificationReport

FORBIDDEN_IN_KEY = re.compile(r"[\s\x00-\x1f\x7f#?&%\"'<>\[\]{}|\\^`]")  # Prefect's rule for the keys of assets
KEY_LENGTH = 512  # characters, by the same rule


def repo_asset(hub: Hub) -> Asset:
    """Return the dataset repo at its revision, as an asset."""
    target = hub.target
    exact = hub.url() if target.revision == "main" else f"{hub.url()}/tree/{target.revision}"
    description = "A BIDS dataset, published by bids-push."
    properties = AssetProperties(name=str(target), url=hub.branch_url(), description=description)
    return Asset(key=asset_key(exact), properties=properties)


def source_asset(source: Path) -> Asset:
    """Return the dataset's folder, as the worker sees it, as an asset."""
    return Asset(key=asset_key(f"file://{source.absolute()}"), properties=AssetProperties(name=source.name))


def asset_key(uri: str) -> str:
    """Return a key that Prefect takes.

    A hash keeps two addresses apart that differ only in what Prefect does not take.
    """
    key = FORBIDDEN_IN_KEY.sub("_", uri)
    if key == uri and len(key) <= KEY_LENGTH:
        return key
    return f"{key[: KEY_LENGTH - 11]}-{hashlib.sha256(uri.encode()).hexdigest()[:10]}"


def artifact_key(kind: str, target: Target) -> str:
    """Return an artifact's key.

    It is the same for every night of a target, so the UI shows the nights as versions of one.
    """
    return key_of(kind, target.slug)


def key_of(kind: str, slug: str) -> str:
    """Return an artifact's key for a target's slug, which stands in the tags of its runs."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{slug}".lower()).strip("-")


def record_publication(
    hub: Hub, report: VerificationReport, source: Path | None, after: Sequence[State[Any]] = ()
) -> None:
    """Leave links to the repo and the verified commit, and materialize the repo's asset from its source's.

    Args:
        hub: the target.
        report: the verification.
        source: the dataset's folder, if this run has read it.
        after: the task runs after which the run's graph shows this one.
    """
    what = {
        "commit": report.commit,
        "shards": len(report.checks),
        "bytes": report.size,
        "images": sum(check.images for check in report.checks),
        "verified": report.level,
    }
    if files := sum(check.recordings for check in report.checks):
        what["files of recordings"] = files
    if beside := sum(check.beside for check in report.checks):
        what["other files"] = beside
    asset = repo_asset(hub)

    @materialize(
        asset,
        by="bids-push",
        name="published",
        task_run_name=lambda: f"published {hub.target}",  # a text would be taken for a template: a branch may hold {}
        asset_deps=[source_asset(source)] if source else None,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def published() -> None:
        add_asset_metadata(asset, what)
        links = {"repo": (hub.url(), str(hub.target)), "commit": (hub.commit_url(report.commit), report.commit[:12])}
        for kind, (link, text) in links.items():
            key = artifact_key(kind, hub.target)
            create_link_artifact(link, link_text=text, key=key, description=f"The verified {kind} of {hub.target}")

    cast(Any, published)(wait_for=list(after))  # the typed overloads have no place for wait_for
