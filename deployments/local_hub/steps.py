"""The steps of a commit, from the client's NDJSON: read, checked and packed before the transaction that applies them.

Nothing that somebody else wrote is parsed while others wait to write: lines of JSON, base64, YAML and the hashing are
done here, and what is left to do is a file beside the body, of short lines and packed objects. Memory holds one line.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from dulwich.objects import Blob

from deployments.local_hub.cards import CARD, check_card
from deployments.local_hub.errors import HubError, bad_request, is_unicode
from deployments.local_hub.git import BLOB, Packed, pack
from deployments.local_hub.trees import check_path

SHA256 = re.compile(r"[0-9a-f]{64}")
MESSAGE_LIMIT = 64 * 1024  # bytes of a commit's message
LINE_LIMIT = 32 * 1024 * 1024  # bytes of a line, all of which is in memory at once: a file of 24 MiB in base64
PARSED_LIMIT = 1024 * 1024  # bytes of a line that is parsed as JSON; of a longer one, all but the content is
VALUES_LIMIT = 50_000  # lists and objects of a line: they take fifty times its memory
STEPS_LIMIT = 100_000  # of one commit; the Hub advises a few hundred

CONTENT = re.compile(rb'"content"\s*:\s*"([A-Za-z0-9+/=]*)"')

Kind = Literal["file", "content", "delete", "delete folder"]

_large = threading.Lock()  # held for one line over PARSED_LIMIT: it takes several times its size


@dataclass(frozen=True)
class Header:
    """What a commit says of itself; `parent` is the commit that it was made on, where it says so."""

    message: str
    description: str
    parent: object


@dataclass(frozen=True)
class CardRule:
    """How a commit's card is judged: by the type of the repo, and not where it is the one that is there (its blob)."""

    repo_type: str
    present: str | None


@dataclass(frozen=True)
class Step:
    """One change of a path: a small file (`packed`), content that was sent before (`sha256`, `size`), a deletion."""

    kind: Kind
    path: str
    sha256: str = ""
    size: int | None = None
    packed: Packed | None = None


def prepare(body: BinaryIO, prepared: BinaryIO, card: CardRule) -> Header:
    """Read a commit's body and write its steps; HubError (400, 413, 422) for what does not hold together."""
    header: Header | None = None
    number = 0
    while line := body.readline(PARSED_LIMIT):
        number += 1
        if number > STEPS_LIMIT + 1:
            raise HubError(413, f"A commit has at most {STEPS_LIMIT} steps: split it")
        if len(line) == PARSED_LIMIT and not line.endswith(b"\n"):
            with _large:
                header = _take(line + _rest(body), header, prepared, card)
        elif line.strip():
            header = _take(line, header, prepared, card)
    if header is None:
        raise bad_request("A commit needs a header")
    return header


def steps(prepared: BinaryIO) -> Iterator[Step]:
    """The steps that `prepare` wrote, in their order."""
    while line := prepared.readline():
        kind, path, sha256, size, packed = json.loads(line)
        blob = None
        if packed is not None:
            oid, blob_size, named, length = packed
            blob = Packed(oid, BLOB, blob_size, prepared.read(length), None if named is None else (named[0], named[1]))
        yield Step(kind, path, sha256, size, blob)


def _take(line: bytes, header: Header | None, prepared: BinaryIO, card: CardRule) -> Header:
    key, value, content = _parsed(line)
    if header is None:
        if key != "header":
            raise bad_request("The first line of a commit must be its header")
        return _header(value)
    _write(prepared, _step(key, value, content, card))
    return header


def _write(prepared: BinaryIO, step: Step) -> None:
    blob = step.packed
    packed = None if blob is None else [blob.oid, blob.size, blob.named, len(blob.data)]
    prepared.write(json.dumps([step.kind, step.path, step.sha256, step.size, packed]).encode() + b"\n")
    if blob is not None:
        prepared.write(blob.data)


def _rest(body: BinaryIO) -> bytes:
    rest = body.readline(LINE_LIMIT - PARSED_LIMIT + 1)
    if len(rest) > LINE_LIMIT - PARSED_LIMIT:
        raise HubError(413, f"A file in a commit has at most {LINE_LIMIT * 3 // 4} bytes; larger ones go by LFS")
    return rest


def _parsed(line: bytes) -> tuple[str, dict[str, Any], memoryview | None]:
    """A line's key and value, and the base64 of a large file, which is not parsed with the rest."""
    content = None
    if len(line) > PARSED_LIMIT:
        found = CONTENT.search(line)
        if found is None or len(line) - (found.end(1) - found.start(1)) > PARSED_LIMIT:
            raise HubError(413, f"A line of more than {PARSED_LIMIT} bytes must be a file with its content in base64")
        content = memoryview(line)[found.start(1) : found.end(1)]
        line = line[: found.start(1)] + line[found.end(1) :]
    if line.count(b"[") + line.count(b"{") > VALUES_LIMIT:
        raise HubError(413, "A line of the commit has more lists and objects than any step of one")
    try:
        step = json.loads(line)
    except (ValueError, RecursionError):
        raise bad_request("A line of the commit is no JSON") from None
    if not isinstance(step, dict) or not isinstance(step.get("key"), str) or not isinstance(step.get("value"), dict):
        raise bad_request('A line of the commit must be {"key": ..., "value": {...}}')
    if b"\\u" in line and not is_unicode(step):
        raise bad_request("A line of the commit has text that is not Unicode")
    return step["key"], step["value"], content


def _step(key: str, value: dict[str, Any], content: memoryview | None, card: CardRule) -> Step:
    if key == "file":
        return _file(value, content, card)
    if key == "lfsFile":
        path = check_path(value.get("path"))
        sha256, size = value.get("oid"), value.get("size")
        if value.get("algo") != "sha256" or not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise bad_request(f"{path}: an LFS file is named by its sha256")
        if size is not None and not isinstance(size, int):
            raise bad_request(f"{path}: the size must be a number of bytes")
        return Step("content", path, sha256, size)
    if key in ("deletedFile", "deletedFolder"):
        # as on the Hub, "deletedFile" may name a folder too: the client sends it for a path without a slash
        path = check_path(str(value.get("path", "")).rstrip("/"))
        return Step("delete" if key == "deletedFile" else "delete folder", path)
    raise bad_request(f"Unknown step in a commit: {key!r}")


def _file(value: dict[str, Any], large: memoryview | None, card: CardRule) -> Step:
    path = check_path(value.get("path"))
    content, encoding = value.get("content"), value.get("encoding", "utf-8")
    if not isinstance(content, str) or encoding not in ("base64", "utf-8"):
        raise bad_request(f"{path}: content must be text, in base64 or utf-8")
    if large is not None and (content or encoding != "base64"):
        raise HubError(413, f"{path}: content of more than {PARSED_LIMIT} bytes must be in base64")
    try:
        if large is not None:
            data = binascii.a2b_base64(large, strict_mode=True)
        else:
            data = base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise bad_request(f"{path}: the content is not valid {encoding}") from None
    packed = pack(Blob.from_string(data))
    if path == CARD and packed.oid != card.present:
        check_card(data, card.repo_type)
    return Step("file", path, packed=packed)


def _header(value: dict[str, Any]) -> Header:
    summary, description = value.get("summary"), value.get("description") or ""
    if not isinstance(summary, str) or not summary.strip() or not isinstance(description, str):
        raise bad_request("A commit needs a summary")
    message = check_message(f"{summary}\n\n{description}" if description.strip() else summary)
    return Header(message, description, value.get("parentCommit"))


def check_message(message: str) -> str:
    """A message that git can hold: no NUL, at most 64 KiB."""
    if "\0" in message:
        raise bad_request("A message must not contain NUL")
    if len(message.encode()) > MESSAGE_LIMIT:
        raise HubError(413, f"A message has at most {MESSAGE_LIMIT} bytes")
    return message
