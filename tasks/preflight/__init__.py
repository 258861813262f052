"""Preflight: finds what should not be published, before anything is staged or sent.

How it works:

1. `texts` leaves out what cannot be read of `code` and `stimuli`, and `strip_fields` takes out the fields that the
   operator named. What is left would be published, and that is checked.
2. `paths` looks through the names of files, `fields` through the sidecars, `description` through what is no field of
   BIDS' in dataset_description.json, `tables` through participants, sessions, scans, phenotype and events, and `texts`
   through what is neither. The
   licence and the statement on faces are checked here. All of it is in memory after the load, so it is done in each
   run. What cannot be read cannot be checked (`readable`), so it is a finding too.
3. `validator`, if it is asked for and installed, names the errors in the use of BIDS.
4. `headers` reads the headers of the images that are about to be published, `recordings` those of recordings, also of
   those that have the format alone and no name of BIDS, and
   `sidecars_and_tables` looks through the sidecars, tables and surfaces beside them. No other file is opened.

Nothing here judges a person's data by looking at it. Rules are about names of fields, and about dates, ages and UIDs by
their form. What they cannot see (a face, most names in a README) is for the operator to state. A finding never holds
what was found.
"""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.bids.licence import OTHER, UNKNOWN, licence
from tasks.preflight.description import check_descriptions
from tasks.preflight.fields import check_fields
from tasks.preflight.headers import check_headers
from tasks.preflight.paths import check_paths, hide_in_left_out
from tasks.preflight.recordings import check_recordings
from tasks.preflight.sidecars_and_tables import check_beside
from tasks.preflight.strip_fields import stripped
from tasks.preflight.tables import check_tables
from tasks.preflight.texts import check_texts, only_readable
from tasks.preflight.validator import check_validity
from tasks.values.kinds import KINDS, Kind, kind_of
from tasks.values.left_out import what_is
from tasks.values.models import Dataset, Image, ShardSpec
from tasks.values.preflight_rules import Checked, Finding, Findings, PreflightStopped, Statement

__all__ = ["PreflightStopped", "check", "check_dataset", "check_images", "headers_of"]

DESCRIPTION = "dataset_description.json"
#: Images in which no face can be seen: masks and segmentations (BIDS specification, "Imaging data types" of
#: derivatives), and microscopy.
_FACELESS_SUFFIXES = frozenset(("mask", "dseg", "probseg", "xfm"))
_FACELESS_DATATYPES = frozenset(("micr", "mrs"))


def check(dataset: Dataset, statement: Statement, validate: bool = False) -> tuple[Dataset, Checked]:
    """Check a dataset as it would be published under this statement.

    Args:
        dataset: the dataset as it was loaded.
        statement: what the operator stated.
        validate: whether to run the BIDS validator too.

    Returns:
        The dataset without the stripped fields, and what was found in it.

    Raises:
        BadInput: a field cannot be stripped.
        ValidatorMissing, ValidatorCrashed: the validator was asked for.
    """
    loaded = only_readable(dataset)
    dataset, unstripped = stripped(loaded, statement.strip)
    found = Findings()
    check_paths(loaded, dataset, found)
    dataset = hide_in_left_out(loaded, dataset)
    check_fields(dataset, found)
    check_descriptions(dataset, found)
    check_tables(dataset, found)
    check_texts(loaded, dataset, found)
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
    in_part = any(file.kind in ("sidecar", "table") for file in dataset.files)
    return dataset, Checked(statement, found.grouped(), unstripped, in_part)


def shows_a_head(image: Image) -> bool:
    """Return whether a face may be seen in an image: it is of a subject, and neither a mask nor microscopy.

    If an image has no name of BIDS, nobody can know, so it counts.
    """
    return (
        image.kind == "image"
        and (image.sub is not None or not image.suffix)
        and image.suffix not in _FACELESS_SUFFIXES
        and image.datatype not in _FACELESS_DATATYPES
    )


def headers_of(rows: Sequence[Image], source: Path) -> tuple[Finding, ...]:
    """Return what the headers of these images and recordings hold besides the image or the samples.

    For the files beside them, it is what is found anywhere in the file.
    """
    found = Findings()
    of_kind: dict[Kind, list[Image]] = {kind: [] for kind in KINDS}
    for row in rows:
        kind = kind_of(row.path)
        of_kind["recording" if kind == "other" and what_is(row.path) == "recording" else kind].append(row)
    check_headers(of_kind["image"], source, found)
    check_recordings(of_kind["recording"], source, found)
    check_beside([*of_kind["sidecar"], *of_kind["table"], *of_kind["other"]], source, found)
    return found.grouped()


@task(name="check", task_run_name="check what should not be published", cache_policy=NO_CACHE, persist_result=False)
def check_dataset(dataset: Dataset, statement: Statement, validate: bool) -> tuple[Dataset, Checked]:
    """Do `check` as a task, and log what could not be stripped."""
    left, checked = check(dataset, statement, validate)
    for sentence in checked.unstripped:
        get_run_logger().warning("%s", sentence)
    return left, checked


@task(name="check-headers", task_run_name="check the files' headers", cache_policy=NO_CACHE, persist_result=False)
def check_images(shards: Sequence[ShardSpec], source: Path) -> tuple[Finding, ...]:
    """Do `headers_of` as a task, for the files of the shards that are to be published."""
    return headers_of([row for shard in shards for row in shard.rows], source)
