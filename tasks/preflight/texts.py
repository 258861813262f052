"""Texts: finds names of people and secrets in texts that are neither JSON nor tables, such as scripts in `code`.

Only what can be known is looked for. In all texts, these are the full names of people in participants.tsv (as it is
before anything is stripped), and secrets: private keys, and tokens of services that mark theirs. In `code` and
`stimuli`, e-mail addresses and the home folders of users count too: a README gives them on purpose, and a script by
chance.

A table or JSON file of `code` and `stimuli` that cannot be read is left out. Elsewhere it stops the push: there BIDS
says what it holds, and somebody needs it.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tasks.bids.text import LINE_END, NotText, decode
from tasks.preflight.names import plain
from tasks.preflight.paths import full_names_of
from tasks.preflight.readable import NotReadable, no_numbers, read_json, read_rows
from tasks.values.left_out import NOT_READABLE_THERE, LeftOut, in_order
from tasks.values.models import Dataset
from tasks.values.preflight_rules import Findings, RuleName

LEFT_OUT = "tables and JSON of code/ and stimuli/ that cannot be read"
_TABLES = (".tsv", ".csv")
_GRADIENTS = (".bval", ".bvec")
#: What services put before their tokens, and PEM before keys, so that programs find them (RFC 7468; the services' own
#: pages on secret scanning): Hugging Face, GitHub, GitLab, AWS, Slack, OpenAI and Anthropic, Google.
_SECRETS = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=:,\s-]{60}"),
    "token": re.compile(
        r"\b(?:hf_[A-Za-z]{34}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}|glpat-[\w-]{20}|(?:AKIA|ASIA)[A-Z2-7]{16}"
        r"|xox[abprs]-[\w-]{20,}|sk-(?:proj-|ant-)[\w-]{40,}|AIza[\w-]{35})\b"
    ),
}
_ADDRESS = re.compile(r"(?<![\w.+-])(?!git@)[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,}\b")
_HOME = re.compile(r"(?:^|[^\w.])[\\/]+(?:users|home)[\\/]+(?!user\b|shared\b|public\b)[\w-]", re.IGNORECASE)


def check_texts(dataset: Dataset, published: Dataset, found: Findings) -> None:
    """Look through the texts that are neither JSON nor tables.

    Args:
        dataset: the dataset as it was loaded.
        published: the same without what is stripped.
        found: where to note what is found.
    """
    names, of_code = full_names_of(dataset), published.if_readable | published.texts_as_rows
    for path, data in _all_texts(published):
        if not path.lower().endswith((*_TABLES, *_GRADIENTS, ".json")):
            text = decode(data)
            for rule, field in (*_known(text, names), *_of_code(text, path in of_code)):
                found.add(rule, field, path)


def _all_texts(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of each text, those that are rows too."""
    yield from dataset.texts.items()
    for path in sorted(dataset.texts_as_rows):
        with suppress(OSError, NotText):  # it was changed a moment ago: staging says so
            data = Path(dataset.root, path).read_bytes()
            decode(data)
            yield path, data


def _known(text: str, names: Collection[str]) -> Iterator[tuple[RuleName, str]]:
    for what, pattern in _SECRETS.items():
        if pattern.search(text):
            yield "personal-text", what
    if names and any(name in letters for letters in map(plain, LINE_END.split(text)) for name in names):
        yield "personal-text", "name in participants.tsv"


def _of_code(text: str, is_loose: bool) -> Iterator[tuple[RuleName, str]]:
    if is_loose and "@" in text and _ADDRESS.search(text):
        yield "address", "e-mail address"
    if is_loose and _HOME.search(text):
        yield "address", "home folder"


def only_readable(dataset: Dataset) -> Dataset:
    """Return the dataset without the tables and JSON files of `code` and `stimuli` that cannot be read."""
    why = {path: reason for path in dataset.if_readable if (reason := _unreadable(path, dataset.texts[path]))}
    if not why:
        return dataset
    out = [
        LeftOut(path, "other", f"{NOT_READABLE_THERE} ({reason})", LEFT_OUT, len(dataset.texts[path]))
        for path, reason in why.items()
    ]
    return replace(
        dataset,
        texts={path: data for path, data in dataset.texts.items() if path not in why},
        if_readable=dataset.if_readable - why.keys(),
        unpublished=in_order((*dataset.unpublished, *out)),
    )


def _unreadable(path: str, data: bytes) -> str | None:
    """Return why a text cannot be read as what its name says, or None if it can, or if its name says nothing."""
    name = path.lower()
    try:
        if name.endswith(".json"):
            read_json(data)
        elif name.endswith(_TABLES):
            read_rows(path, data)
        elif name.endswith(_GRADIENTS):
            return no_numbers(decode(data))
    except NotReadable as error:
        return str(error)
    return None
