"""What changed since the last publication, and whether it is so much that a person has to say that it is meant.

A half-mounted disk, a wrong path and another study look the same from here: most of what is published is gone, or has
other bytes. More than a part of it (`BIDS_PUSH_MAX_CHANGE`) stops the run before anything is staged or sent.
"""

from tasks.models import Dataset, DatasetIdentity


def identity_of(dataset: Dataset) -> DatasetIdentity:
    """Which dataset this is, as the record keeps it."""
    doi = str(dataset.description.get("DatasetDOI") or "").strip()
    subjects = {image.sub for image in dataset.images if image.sub is not None}
    size = sum(image.size for image in dataset.images)
    return DatasetIdentity(name=dataset.name, doi=doi, subjects=len(subjects), images=len(dataset.images), size=size)
