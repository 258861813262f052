"""dataset_description.json: finds people in the fields that are not BIDS'.

The fields of BIDS are about the dataset, and their people (authors, whom to thank) are there to be named. What else
somebody has written into it may be about participants.
"""

import re
from collections.abc import Mapping

from tasks.preflight.fields import broken_by, is_description, parsed
from tasks.values.models import Dataset
from tasks.values.preflight_rules import STOPS, Findings, RuleName

#: BIDS specification, "dataset_description.json" and "Derived dataset and pipeline description", today's and older.
OF_BIDS = frozenset(
    ("Name", "BIDSVersion", "HEDVersion", "DatasetLinks", "DatasetType", "License", "Authors", "Keywords",
     "Acknowledgements", "HowToAcknowledge", "Funding", "EthicsApprovals", "ReferencesAndLinks", "DatasetDOI",
     "GeneratedBy", "SourceDatasets", "PipelineDescription", "SourceDatasetsURLs")
)  # fmt: skip
#: Numbers that a repository or a register gives a dataset. In a sidecar they are those of an examination.
_OF_THE_DATASET = re.compile("(?:study|accession)[ _-]*(?:id|number)", re.IGNORECASE)
#: Dates of an examination. Any other (of a release, an upload, a paper) is the dataset's own.
_OF_A_VISIT = re.compile("acq|scan|visit|session|exam|measure|(?:study|series|content)[ _-]*date", re.IGNORECASE)


def check_descriptions(dataset: Dataset, found: Findings) -> None:
    """Look through the fields that are not BIDS', of the dataset's own description and of those in it."""
    for path, data in dataset.texts.items():
        description = parsed(data) if is_description(path) else None
        if isinstance(description, Mapping):
            others = {name: value for name, value in description.items() if name not in OF_BIDS}
            for rule, field in set(broken_by(others)):
                if _is_of_a_person(rule, field):
                    found.add(rule, field, path)


def _is_of_a_person(rule: RuleName, field: str) -> bool:
    """Return whether the rule that a field breaks is about a participant, and not about the dataset."""
    if rule == "date":
        return of_a_visit(field)
    return rule in STOPS and _OF_THE_DATASET.fullmatch(field) is None


def of_a_visit(field: str) -> bool:
    """Return whether a field whose name says that it holds a date may hold the date of an examination."""
    return _OF_A_VISIT.search(field) is not None
