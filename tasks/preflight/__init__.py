"""Preflight: what should not be published is found before anything is staged or sent.

How it works:
1. `strip` takes out the fields that the operator named; what is checked is what is left, and would be published.
2. `fields` looks through the sidecars, `tables` through participants, sessions, scans, phenotype and events; here the
   licence and the statement on faces. All of it is in memory since load, so it is done in each run.
3. `validator`, if it is asked for and installed, names the errors in the use of BIDS.
4. `headers` reads the first bytes of those images that are about to be published, and of no others.

Nothing here decides about a person's data by looking at it: rules are about names of fields, dates and ages, and what
they cannot see (a face, a name in a README) is the operator's to state. A finding never holds what was found.
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.bids.licence import OTHER, UNKNOWN, licence
from tasks.preflight.fields import check_fields
from tasks.preflight.headers import check_headers
from tasks.preflight.strip import stripped
from tasks.preflight.tables import check_tables
from tasks.preflight.validator import check_validity
from tasks.values.findings import Checked, Finding, Findings, PreflightStopped, Statement
from tasks.values.models import Dataset, Image, ShardSpec

__all__ = ["PreflightStopped", "check", "check_dataset", "check_images", "headers_of"]

DESCRIPTION = "dataset_description.json"
#: Images in which no face can be seen: masks and segmentations (BIDS specification, "Imaging data types" of
#: derivatives), and microscopy.
_FACELESS_SUFFIXES = frozenset(("mask", "dseg", "probseg", "xfm"))
_FACELESS_DATATYPES = frozenset(("micr", "mrs"))


def check(dataset: Dataset, statement: Statement, validate: bool = False) -> tuple[Dataset, Checked]:
    """The dataset as it would be published under this statement, and what was found in it.

    Raises:
        BadInput: a field cannot be stripped.
        ValidatorMissing, ValidatorCrashed: it was asked for.
    """
    dataset = stripped(dataset, statement.strip)
    found = Findings()
    check_fields(dataset, found)
    check_tables(dataset, found)
    terms = licence(dataset.description.get("License"))
    if terms.identifier == UNKNOWN:
        found.add("licence-missing", "License", DESCRIPTION)
    elif terms.identifier == OTHER:
        found.add("licence-unknown", "License", DESCRIPTION)
    if statement.defacing == "not stated":
        for image in dataset.images:
            if shows_a_head(image):
                found.add("defacing", "", image.path)
    if validate:
        check_validity(Path(dataset.root), found)
    return dataset, Checked(statement, found.grouped())


def shows_a_head(image: Image) -> bool:
    """Whether a face may be seen in an image: in any of a subject that is neither a mask nor microscopy."""
    return (
        image.sub is not None and image.suffix not in _FACELESS_SUFFIXES and image.datatype not in _FACELESS_DATATYPES
    )


def headers_of(images: Sequence[Image], source: Path) -> tuple[Finding, ...]:
    """What the headers of these images hold beside the image."""
    found = Findings()
    check_headers(images, source, found)
    return found.grouped()


@task(name="check", task_run_name="check what should not be published", cache_policy=NO_CACHE, persist_result=False)
def check_dataset(dataset: Dataset, statement: Statement, validate: bool) -> tuple[Dataset, Checked]:
    """`check` as a task; says when a field to strip is nowhere."""
    left, checked = check(dataset, statement, validate)
    if statement.strip and left == dataset:
        get_run_logger().warning("strip: none of these is in a sidecar or a table: %s", ", ".join(statement.strip))
    return left, checked


@task(name="check-headers", task_run_name="check the images' headers", cache_policy=NO_CACHE, persist_result=False)
def check_images(shards: Sequence[ShardSpec], source: Path) -> tuple[Finding, ...]:
    """`headers_of` the images of the shards that are to be published, as a task."""
    return headers_of([image for shard in shards for image in shard.images], source)
