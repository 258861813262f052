"""The values of the check before publication: rules, findings, and what the operator stated.

A finding says where something is (files, field) and which rule it breaks. It never says what stands there: findings go
into logs, artifacts and states, and these are no place for what must not be published.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast, get_args

from pydantic import AfterValidator, Field

from tasks.values.errors import PushError

#: What the operator says about faces, in the words of the form.
Defacing = Literal["not stated", "defaced", "no faces", "not defaced, sharing permitted"]
#: Rules that stop a push, and that `allow` may lift.
Stop = Literal[
    "personal-data",
    "unique-identifier",
    "date",
    "age-over-89",
    "personal-path",
    "personal-text",
    "licence-missing",
    "licence-unknown",
    "unreadable",
    "dicom-header",
    "recording-header",
    "recording-unchecked",
    "defacing",
    "bids-validity",
]
Warn = Literal["institution", "device", "free-text", "address", "header-text", "header-extension"]
RuleName = Stop | Warn

SHOWN = 5  # files that a finding names: enough to see the pattern


class PreflightStopped(PushError):
    """Something in the dataset should not be published as it is. Nothing was staged or sent."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one rule looks for, how to mend it, and where the rule comes from."""

    what: str
    mend: str
    source: str


_DICOM = "DICOM PS3.15, annex E, table E.1-1 (attributes to remove for confidentiality)"
_HIPAA = "HIPAA, 45 CFR 164.514(b)(2)(i)"
_NIFTI = "nifti1.h"

RULES: dict[RuleName, Rule] = {
    "personal-data": Rule(
        "names, birth dates, numbers or addresses of people",
        "Remove it from the dataset, or name the field in strip.",
        f"{_DICOM}; {_HIPAA}(A) to (R)",
    ),
    "unique-identifier": Rule(
        "identifiers by which a hospital finds the examination (UIDs)",
        "Remove it from the dataset, or name the field in strip.",
        f"{_DICOM}; {_HIPAA}(R)",
    ),
    "date": Rule(
        "dates later than 1925, so not shifted ones",
        "Shift the dates of a subject by the same number of days to 1925 or before, or name the field in strip.",
        f'BIDS specification, "Units"; {_HIPAA}(C)',
    ),
    "age-over-89": Rule(
        "ages over 89 years",
        "Write 89+ instead, or name the field in strip.",
        f'BIDS specification, "Participants file"; {_HIPAA}(C)',
    ),
    "personal-path": Rule(
        "dates, e-mail addresses and names of people in the names of files and folders",
        "Rename them, in tables too; strip does not reach the names of files.",
        f"{_HIPAA}(A), (C) and (F)",
    ),
    "personal-text": Rule(
        "full names that participants.tsv gives people, private keys and tokens in scripts and other texts",
        "Take them out; a key or token that was in a shared folder is better revoked. strip does not reach such texts: "
        "name the file in exclude to leave it out.",
        f"{_HIPAA}(A)",
    ),
    "licence-missing": Rule(
        "no licence",
        "State it as License in dataset_description.json.",
        'BIDS specification, "dataset_description.json"; Hub documentation, "Licenses"',
    ),
    "licence-unknown": Rule(
        "a licence that is none of the Hub's",
        "Correct its spelling, or allow it: the card then says `license: other`, with its name and its link.",
        'Hub documentation, "Licenses"',
    ),
    "unreadable": Rule(
        "tables, JSON and surfaces that cannot be read, so nobody has looked for people in them",
        "Mend the file at the line that is named, or name the file in exclude to leave it out. If it has to stay as it "
        "is, look through it yourself, and allow it.",
        'BIDS specification, "Tabular files" and "Key-value files (dictionaries)"',
    ),
    "dicom-header": Rule(
        "DICOM in headers of images: it holds names, birth dates and numbers unless somebody has taken them out",
        "Write the images without it (nibabel: header.extensions); strip does not reach into an image. If you have "
        "looked through it, allow it.",
        f'{_NIFTI}, "Extended header", code 2; {_DICOM}',
    ),
    "recording-header": Rule(
        "names, numbers, birth dates and comments of people, and dates later than 1925, in headers of recordings",
        "Write the recordings without it (mne: Raw.anonymize; mne_bids.anonymize_dataset); strip does not reach into a "
        "recording. If you have looked at it and may publish it, allow it.",
        f'EDF+ specification, 2.1.3.3; {_HIPAA}(A) to (R); BIDS specification, "Units"',
    ),
    "recording-unchecked": Rule(
        "recordings whose headers cannot be read here, so nobody has looked for people in them",
        "For FIF, EEGLAB, SNIRF and NWB, give the worker their readers: `make recordings`, or `pip install "
        "'.[recordings]'`. If it has them, or the format is another, the file is damaged or nothing here reads it: "
        "mend it, look through it yourself and allow it, or name it in exclude.",
        f"{_HIPAA}(A) to (R)",
    ),
    "defacing": Rule(
        "images of heads, and no statement on their faces",
        'Give the parameter defacing: "defaced", "no faces" (skull-stripped, phantoms, animals), or "not defaced, '
        'sharing permitted".',
        f"no program detects faces reliably; {_HIPAA}(Q)",
    ),
    "bids-validity": Rule(
        "errors that the BIDS validator names",
        "Correct the dataset; `bids-validator-deno --ignoreWarnings <source>` shows all of them.",
        "bids-validator-deno",
    ),
    "institution": Rule("where the images were made", "Name the field in strip if that is nobody's business.", _DICOM),
    "device": Rule("on which machine the images were made", "Name the field in strip if that is not wanted.", _DICOM),
    "free-text": Rule(
        "free text that people typed at the scanner: it may hold names",
        "Look at it; name the field in strip if it does.",
        f"{_DICOM}, option Clean Descriptors",
    ),
    "address": Rule(
        "e-mail addresses and home folders with users' names in the texts of code and stimuli",
        "Look at them; name the file in exclude if they are nobody's business.",
        f"{_HIPAA}(F)",
    ),
    "header-text": Rule(
        "free text in NIfTI headers and in the metadata of surfaces: it may hold names",
        "Look at it (nibabel: header['descrip']; of surfaces, meta), and write the files without it if it does.",
        f"{_NIFTI}: data_type, db_name, descrip, aux_file, intent_name; GIFTI 1.0 and CIFTI-2: MetaData",
    ),
    "header-extension": Rule(
        "extensions of NIfTI headers: they may hold names",
        "Look at them (nibabel: header.extensions), and write the images without them if they do.",
        f'{_NIFTI}, "Extended header"',
    ),
}
STOPS: tuple[Stop, ...] = get_args(Stop)
#: Rules about the headers of images, recordings and surfaces. Only those that a run is about to publish are looked at.
OF_HEADERS = frozenset(("dicom-header", "recording-header", "recording-unchecked", "header-text", "header-extension"))
#: Rules that stop a push, and that sidecars and tables may break which no image uses. Of those files too, only the ones
#: that a run is about to publish are looked at.
OF_FILES = frozenset(("personal-data", "unique-identifier", "date", "age-over-89", "unreadable"))


def as_entry(text: str) -> str:
    """Return an entry of `allow` as a finding spells it: RULE, or RULE:FIELD.

    Raises:
        ValueError: it names no rule that stops a push, or a colon and no field.
    """
    rule, colon, field = text.partition(":")
    rule, field = rule.strip(), one_line(field)
    if rule not in STOPS:
        raise ValueError(f"{rule!r} is no rule that stops a push; these are: {', '.join(map(repr, STOPS))}")
    if colon and not field:
        raise ValueError(f"there is no field after {rule!r} and the colon: give {rule!r} alone, or {rule}:FIELD")
    return f"{rule}:{field}" if colon else rule


#: An entry of `allow`. The form takes what the pattern matches.
Entry = Annotated[
    str, Field(json_schema_extra={"pattern": rf"^\s*(?:{'|'.join(STOPS)})\s*(?::.*\S.*)?$"}), AfterValidator(as_entry)
]


def one_line(field: str) -> str:
    """Return the name of a field without line ends and double spaces, as messages show it."""
    return " ".join(field.split())


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken in one field: how many files have it, and the first few of them."""

    rule: RuleName
    field: str
    files: tuple[str, ...]
    """The first few, relative to the dataset's root."""
    count: int
    """The number of all files that have it."""
    every: frozenset[str] = dataclasses.field(default=frozenset(), repr=False, compare=False)
    """All files that have it, so that one that is found twice counts once."""

    @property
    def stops(self) -> bool:
        """Whether this stops a push, unless it is lifted."""
        return self.rule in STOPS

    @property
    def entry(self) -> str:
        """The entry of `allow` that lifts this finding and no other."""
        return f"{self.rule}:{self.field}" if self.field else self.rule

    def __str__(self) -> str:
        field = f" {self.field}" if self.field else ""
        more = ", ..." if self.count > 1 else ""
        return f"{self.rule}:{field} in {self.count:,} file{'' if self.count == 1 else 's'} ({self.files[0]}{more})"


class Findings:
    """A collector that groups findings by rule and field."""

    def __init__(self) -> None:
        self._files: dict[tuple[RuleName, str], set[str]] = {}

    def add(self, rule: RuleName, field: str, file: str) -> None:
        """Note that a file breaks a rule in a field."""
        self._files.setdefault((rule, one_line(field)), set()).add(file)

    def add_all(self, findings: Iterable[Finding]) -> None:
        """Note what was found before."""
        for one in findings:
            self._files.setdefault((one.rule, one.field), set()).update(one.every or one.files)

    def grouped(self) -> tuple[Finding, ...]:
        """Return one finding for each rule and field, those that stop a push first."""
        order = list(RULES)
        found = sorted(self._files.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
        return tuple(
            Finding(rule, name, tuple(sorted(files)[:SHOWN]), len(files), frozenset(files))
            for (rule, name), files in found
        )


@dataclass(frozen=True, slots=True)
class Statement:
    """What the operator stated for a push, as it stands on the card."""

    defacing: Defacing = "not stated"
    allow: tuple[str, ...] = ()
    """Entries as `as_entry` returns them: `date` lifts what this rule finds, `date:acq_time` what it finds there."""
    strip: tuple[str, ...] = ()

    def lifts(self, finding: Finding) -> bool:
        """Return whether the operator allows what was found."""
        return finding.stops and (finding.rule in self.allow or finding.entry in self.allow)


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings of the check, and the statement under which it looked."""

    statement: Statement = Statement()
    findings: tuple[Finding, ...] = ()
    unstripped: tuple[str, ...] = ()
    """Sentences about fields that `strip` names, and that are nowhere, or stand where it does not reach."""
    in_part: bool = False
    """Whether there are sidecars and tables that only a run looks at that is about to publish them."""
    later: frozenset[tuple[RuleName, str]] = frozenset()
    """The rules and fields that were found in no other files than those."""

    @property
    def stops(self) -> tuple[Finding, ...]:
        """The findings that stop the push."""
        return tuple(one for one in self.findings if one.stops and not self.statement.lifts(one))

    @property
    def lifted(self) -> tuple[Finding, ...]:
        """The findings that would stop the push if the operator had not lifted them."""
        return tuple(one for one in self.findings if self.statement.lifts(one))

    @property
    def lifted_every_night(self) -> tuple[tuple[RuleName, str], ...]:
        """The rules that are lifted, each with a field or "" for all fields, the same in each run on the same dataset.

        Some findings are made only by the run that publishes the file, and not by the next one. For the rules of such
        findings, these are the entries as the operator wrote them.
        """
        found = [(one.rule, one.field) for one in self.lifted]
        words = (entry.partition(":") for entry in self.statement.allow)
        said = [(cast(RuleName, rule), name) for rule, _, name in words if rule in self._looked_for_in_part]
        return (*(one for one in found if one[0] not in OF_HEADERS and one not in self.later), *said)

    @property
    def idle(self) -> tuple[str, ...]:
        """The entries of `allow` that lift nothing: nothing was found, or the field is spelt otherwise.

        Entries about headers of images do not count as idle, because a night with nothing to publish looks at no
        header. Neither do entries about sidecars and tables, unless something stops the push: that may be what the
        entry meant.
        """
        lifted = {name for one in self.lifted for name in (one.rule, one.entry)}
        passed_over = OF_HEADERS if self.stops else self._looked_for_in_part
        entries = (entry for entry in self.statement.allow if entry.partition(":")[0] not in passed_over)
        return tuple(entry for entry in entries if entry not in lifted)

    @property
    def _looked_for_in_part(self) -> frozenset[str]:
        """The rules for which a run that publishes nothing does not find everything."""
        return OF_HEADERS | OF_FILES if self.in_part else OF_HEADERS

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that a person should look at, and that stop nothing."""
        return tuple(one for one in self.findings if not one.stops)

    def with_more(self, findings: Iterable[Finding]) -> "Checked":
        """Return a copy with later findings added. A file that has been found before counts once."""
        findings, known, found = tuple(findings), {(one.rule, one.field) for one in self.findings}, Findings()
        found.add_all((*self.findings, *findings))
        later = self.later.union((one.rule, one.field) for one in findings) - (known - self.later)
        return replace(self, findings=found.grouped(), later=later)
