"""Plan: cuts a dataset's files into shards, each with the digest that decides its bytes.

There is one shard for each session, or for each subject without sessions. The files of derivatives go with their
subject's session. Files of a subject that belong to none of its sessions, such as its sessions.tsv, have a shard of
their own. Files that belong to no subject have shards too: one for each template, and one for the rest of each dataset.
A shard's name depends only on its own files, so it stays the same when others come and go.

Where a shard is in the repo, the repo says: one that is published stays at its path, and what comes to its subject is
beside it. A new subject has a folder in `data/`, or in one of 256 hashed folders there (`data/3f/sub-01/`)
if the repo has such folders, or with this dataset would have more than `MOST_FOLDERS` subjects. So every machine plans
the same path, in a first push, after one that died, and in all that follow.

The digest covers everything that decides the shard's bytes and is known without reading a file: the layout's version,
the writer's settings, the shard's path, and every field of each file except its times, its inode, the names of its
sidecars, and whether it is fetched. Whether a file still has the content that was published is decided elsewhere, by
its annex key or its sha256.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.values.kinds import DATA, KINDS
from tasks.values.models import LAYOUT_VERSION, Dataset, Image, ShardSpec
from tasks.values.our_paths import is_hashed, shard_path

#: Folders of subjects that may lie in one folder of the repo. A folder has 10,000 entries at most on huggingface.co
#: (https://huggingface.co/docs/hub/storage-limits); with the 256 hashed ones, half of that is enough up to 1.2 million.
MOST_FOLDERS = 4000
HASH_LENGTH = 8  # hexadecimal characters: tells apart the few names of one dataset that need it
MAX_LABEL = 80  # characters of a label kept in a name: `sub-` and `ses-` with a hash stay below a file name's 255

#: Labels that are valid file names everywhere, as BIDS has them (specification, "Filenames": labels are alphanumeric).
_PLAIN = re.compile(r"[A-Za-z0-9]+")
_NOT_IN_DIGEST = ("mtime_ns", "ctime_ns", "inode", "sidecars", "fetched", "content", "executable")
_FIELDS = tuple(field.name for field in fields(Image) if field.name not in _NOT_IN_DIGEST)
_values = attrgetter(*_FIELDS)
_ORDER = {kind: number for number, kind in enumerate(KINDS)}

#: A shard before it has its path: its folder and its name, with the labels unchanged.
_Key = tuple[tuple[str, str], ...]


def plan(dataset: Dataset, writer: Mapping[str, object], there: Iterable[str] = ()) -> tuple[ShardSpec, ...]:
    """Return the shards of a dataset, sorted by path.

    The rows of a shard are sorted by kind (`tasks.values.kinds.KINDS`), datatype, suffix and path, so that the rows of
    one suffix lie together.

    Args:
        dataset: the dataset.
        writer: the writer's settings, JSON values by name.
        there: the paths of the shards that the repo has. Where two of them could be one shard, the first counts.
    """
    groups: dict[_Key, list[Image]] = defaultdict(list)
    for image in (*dataset.images, *dataset.files):
        groups[_key(image)].append(image)
    settings = json.dumps([LAYOUT_VERSION, writer], sort_keys=True).encode()
    paths = Places(there).paths(groups)
    return tuple(_shard(paths[key], groups[key], settings) for key in sorted(groups, key=paths.__getitem__))


def _shard(path: str, images: list[Image], settings: bytes) -> ShardSpec:
    rows = sorted(images, key=lambda image: (_ORDER[image.kind], image.datatype or "", image.suffix, image.path))
    name = path.rpartition("/")[2].removesuffix(".parquet")
    return ShardSpec(
        name=name,
        path=path,
        images=tuple(image for image in rows if image.kind in DATA),
        files=tuple(image for image in rows if image.kind not in DATA),
        digest=_digest(settings, path, rows),
    )


def _key(image: Image) -> _Key:
    """Return which shard an image belongs to, as pairs of entity and label.

    The first pair gives the shard's folder, and all of them together its name.
    """
    if image.sub is not None:
        return (("sub", image.sub),) if image.ses is None else (("sub", image.sub), ("ses", image.ses))
    if "tpl" in image.entities:
        return (("tpl", image.entities["tpl"]),)
    return (("group", image.dataset),)


class Places:
    """Says where in the repo each shard is."""

    def __init__(self, there: Iterable[str]) -> None:
        """Take the paths of the shards that the repo has."""
        self._hashed: dict[str, bool] = {}
        """Names of shards and of folders that the repo has -> whether they are within a hashed folder."""
        self._folders: set[str] = set()
        self._alike: dict[tuple[str, str], set[str]] = defaultdict(set)
        """A folder (of a folder: none) and a name in it without its case -> the names that differ in that alone."""
        for path in there:
            *_, folder, file = path.split("/")
            name = file.removesuffix(".parquet")
            self._folders.add(folder)
            self._hashed.setdefault(folder, is_hashed(path))
            self._hashed.setdefault(name, is_hashed(path))
            self._alike["", folder.casefold()].add(folder)
            self._alike[folder, name.casefold()].add(name)

    def paths(self, keys: Iterable[_Key]) -> dict[_Key, str]:
        """Return each shard's path in the repo."""
        keys = list(keys)
        folders = self._names({key[:1]: ("", *key[0]) for key in keys})
        names = folders | self._names({key: (folders[key[:1]], *key[1]) for key in keys if len(key) > 1})
        new = any(self._hashed.values()) or len(self._folders.union(folders.values())) > MOST_FOLDERS
        paths = {}
        for key in keys:
            folder, name = folders[key[:1]], names[key]
            hashed = self._hashed.get(name, self._hashed.get(folder, new))
            paths[key] = shard_path(folder, name, hashed)
        return paths

    def _names(self, wanted: Mapping[_Key, tuple[str, str, str]]) -> dict[_Key, str]:
        """Return the names of folders, or of the shards in them.

        Args:
            wanted: of each, the name of the folder that it is in (of a folder: none), the entity and the label.
        """
        for folder, entity, label in wanted.values():
            name = _joined(folder, entity, label)
            self._alike[folder, name.casefold()].add(name)
        return {key: self._name(*one) for key, one in wanted.items()}

    def _name(self, folder: str, entity: str, label: str) -> str:
        """Return a name as the repo has it, or is to have it.

        Two labels that differ only in case (`sub-a1`, `sub-A1`) are two files on the Hub, and one file on many people's
        disks. So both get a hash of the exact label; if one of them is published without, the other alone.
        """
        plain, unlike = (_joined(folder, entity, _safe(label, ambiguous)) for ambiguous in (False, True))
        for name in (unlike, plain):
            if name in self._hashed:
                return name
        return unlike if len(self._alike[folder, _joined(folder, entity, label).casefold()]) > 1 else plain


def _joined(folder: str, entity: str, label: str) -> str:
    return f"{folder}_{entity}-{label}" if folder else f"{entity}-{label}"


def _safe(label: str, ambiguous: bool) -> str:
    """Return the label if it is a safe file name, else what is readable of it and a hash of all of it."""
    if _PLAIN.fullmatch(label) and len(label) <= MAX_LABEL and not ambiguous:
        return label
    readable = re.sub(r"[^A-Za-z0-9]+", "-", label)[:MAX_LABEL].strip("-")
    return f"{readable}-{hashlib.sha256(label.encode()).hexdigest()[:HASH_LENGTH]}".lstrip("-")


def _digest(settings: bytes, path: str, images: Iterable[Image]) -> str:
    """Return the sha256 over the values.

    Each has its length before it, so that no two different shards give the same bytes.
    """
    digest = hashlib.sha256(_framed(settings) + _framed(path.encode()))
    for image in images:
        digest.update(b"image\n" + b"".join(map(_part, _values(image))))
        if image.content is not None:
            digest.update(b"content\n" + _framed(image.content))
    return digest.hexdigest()


def _part(value: str | int | Mapping[str, str] | None) -> bytes:
    if value is None:
        return b"-\n"
    if isinstance(value, str):
        return _framed(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, int):
        return _framed(b"%d" % value)
    return _entities(tuple(sorted(value.items())))


@lru_cache(maxsize=4096)  # the names of a study say the same over and over
def _entities(pairs: tuple[tuple[str, str], ...]) -> bytes:
    return _framed(json.dumps(dict(pairs)).encode())


def _framed(data: bytes) -> bytes:
    return b"%d:%b\n" % (len(data), data)


@task(name="plan", task_run_name="plan the shards", cache_policy=NO_CACHE, persist_result=False)
def plan_shards(dataset: Dataset, writer: Mapping[str, object], there: Iterable[str]) -> tuple[ShardSpec, ...]:
    """Do `plan` as a task."""
    return plan(dataset, writer, there)
