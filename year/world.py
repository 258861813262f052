"""The dataset of the year as its lab keeps it: every file's bytes, on the disk and in memory, and what is done to it.

The memory is the oracle's: what a dataset says is worked out here from the bytes that the script has written, by the
rules of BIDS and of the publication (`Dataset`), never by asking bids-push.
"""

import gzip
import hashlib
import json
import os
import random
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.images import nifti1

SUFFIXES = {"T1w": "anat", "FLAIR": "anat", "task-rest_bold": "func"}
SHAPE = (12, 12, 10)  # voxels of an image: some kB
DESCRIPTION = "dataset_description.json"
PARTICIPANTS = "participants.tsv"
IMAGE = re.compile(r"(?P<sub>sub-[A-Za-z0-9]+)/(?:(?P<ses>ses-[A-Za-z0-9]+)/)?[a-z]+/[^/]+\.nii\.gz")
ROW = re.compile(IMAGE.pattern.replace("nii\\.gz", "(?:nii\\.gz|json)"))


def sha256(data: bytes) -> str:
    """Return the sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Row:
    """A row of a shard, an image or a sidecar, as far as it says something that is judged."""

    sha256: str
    metadata: str
    """Of an image, the sidecars that apply, merged: JSON with sorted keys."""
    participant: str
    """Of an image, the subject's row of the participants table, likewise, without its name."""


@dataclass(frozen=True)
class Dataset:
    """A dataset as its files say it: path -> bytes."""

    files: Mapping[str, bytes]

    @cached_property
    def shards(self) -> dict[str, dict[str, Row]]:
        """The rows of each shard that a publication of it has: the shard's path in the repo -> file's path -> row."""
        shards: dict[str, dict[str, Row]] = {}
        people = self.people
        for path, data in sorted(self.files.items()):
            if found := ROW.fullmatch(path):
                sub, ses = found["sub"], found["ses"]
                shard = f"data/{sub}/{'_'.join(filter(None, (sub, ses)))}.parquet"
                row = Row(sha256(data), as_json({}), as_json({}))
                if is_image(path):
                    row = Row(row.sha256, as_json(self.metadata(path)), as_json(people.get(sub, {})))
                shards.setdefault(shard, {})[path] = row
        return shards

    @cached_property
    def rows(self) -> dict[str, str]:
        """The sha256 of each image and of each sidecar in a subject's folder, by its path."""
        return {path: row.sha256 for rows in self.shards.values() for path, row in rows.items()}

    @cached_property
    def images(self) -> dict[str, str]:
        """The sha256 of each image, by its path."""
        return {path: digest for path, digest in self.rows.items() if is_image(path)}

    @cached_property
    def people(self) -> dict[str, dict[str, str]]:
        """The participants table: by subject, the other columns."""
        head, *lines = self.files.get(PARTICIPANTS, b"participant_id\n").decode().splitlines()
        names = head.split("\t")[1:]
        return {line.split("\t")[0]: dict(zip(names, line.split("\t")[1:], strict=True)) for line in lines}

    def metadata(self, image: str) -> dict[str, object]:
        """Return the merged fields of an image's sidecars: of the one at the root, and then of its own."""
        name = image.rpartition("/")[2].removesuffix(".nii.gz")
        kind = next(kind for kind in SUFFIXES if name.endswith(f"_{kind}"))
        merged: dict[str, object] = {}
        for path in (f"{kind}.json", f"{image.removesuffix('.nii.gz')}.json"):
            if path in self.files:
                merged |= json.loads(self.files[path])
        return merged

    @cached_property
    def texts(self) -> dict[str, bytes]:
        """The texts at the root and in phenotype/, which are published: path in the repo -> bytes."""
        return {f"bids/{path}": data for path, data in self.files.items() if is_text(path)}

    @cached_property
    def left_out(self) -> list[str]:
        """The files that are neither rows nor texts, sorted."""
        return sorted(path for path in self.files if path not in self.rows and not is_text(path))

    def broken(self, path: str) -> bool:
        """Return whether a file is an image that cannot be read to its end."""
        if not is_image(path):
            return False
        try:
            return len(gzip.decompress(self.files[path])) != 352 + 2 * SHAPE[0] * SHAPE[1] * SHAPE[2]
        except (OSError, EOFError, zlib.error):
            return True


def is_image(path: str) -> bool:
    """Return whether a file is an image."""
    return path.endswith(".nii.gz")


def is_text(path: str) -> bool:
    """Return whether a file of the dataset is a text, which is published as it is."""
    return "/" not in path or path.startswith("phenotype/")


def as_json(value: Mapping[str, object]) -> str:
    """Return a value as JSON with sorted keys. The same value gives the same text."""
    return json.dumps(value, sort_keys=True)


@dataclass
class World:
    """The dataset on a disk. `files` is what its folder holds; everything that was ever taken out is kept beside it."""

    root: Path
    draw: random.Random
    files: dict[str, bytes] = field(default_factory=dict)
    people: dict[str, dict[str, str]] = field(default_factory=dict)
    """The participants table's rows."""
    away: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """What was taken out and may come back: a subject, a session, an image or a text -> its files."""
    rows_away: dict[str, dict[str, str]] = field(default_factory=dict)
    older: dict[str, list[bytes]] = field(default_factory=dict)
    """Earlier bytes of an image."""
    good: dict[str, bytes] = field(default_factory=dict)
    """The whole bytes of images that are damaged now."""
    made: int = 0
    """The number of subjects so far, from which the next one gets its name."""

    # The disk.

    def put(self, path: str, data: bytes) -> None:
        """Write a file, over the one that is there."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        self.files[path] = data

    def drop(self, path: str) -> bytes:
        """Remove a file, and the folders that this leaves empty. Return its bytes."""
        file = self.root / path
        file.unlink()
        for parent in file.parents:
            if parent == self.root or any(parent.iterdir()):
                break
            parent.rmdir()
        return self.files.pop(path)

    @property
    def dataset(self) -> Dataset:
        """The dataset as its folder says it now."""
        return Dataset(dict(self.files))

    def write_people(self) -> None:
        """Write the participants table."""
        lines = ["participant_id\tage\tsex"]
        lines += [f"{sub}\t{row['age']}\t{row['sex']}" for sub, row in sorted(self.people.items())]
        self.put(PARTICIPANTS, "\n".join(lines).encode() + b"\n")

    # What there is.

    @property
    def subjects(self) -> list[str]:
        """The subjects that have images, sorted."""
        return sorted({path.split("/")[0] for path in self.images})

    @property
    def images(self) -> list[str]:
        """The paths of the images, sorted."""
        return sorted(path for path in self.files if path.endswith(".nii.gz"))

    @property
    def sessions(self) -> list[str]:
        """The folders that are a shard each: `sub-x/ses-y`, or `sub-x` for images without a session."""
        return sorted(
            {f"{m['sub']}/{m['ses']}" if m["ses"] else m["sub"] for p in self.images if (m := IMAGE.match(p))}
        )

    def below(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder, sorted."""
        return sorted(path for path in self.files if path.startswith(f"{folder}/"))

    # What the lab does.

    def begin(self, subjects: int) -> None:
        """Begin a new dataset of so many subjects."""
        description = {"Name": "A year", "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A. Lab"]}
        self.put(DESCRIPTION, json.dumps(description, indent=1).encode())
        self.put("README", b"A dataset that a year is lived in.\n")
        self.put("CHANGES", b"1.0.0 2026-01-01\n  - Begun.\n")
        self.put("task-rest_bold.json", b'{"RepetitionTime": 2.0, "TaskName": "rest"}')
        self.put("T1w.json", b'{"MagneticFieldStrength": 3}')
        self.put("phenotype/moca.tsv", b"participant_id\tscore\n")
        self.put("phenotype/moca.json", b'{"score": {"Description": "points"}}')
        for _ in range(subjects):
            self.add_subject()

    def image(self) -> bytes:
        """Return the bytes of a new image."""
        return zipped(nifti1(SHAPE, seed=self.draw.randrange(1 << 32)))

    def add_subject(self) -> str:
        """Add a subject with one session, with two, or with none, and return its name."""
        self.made += 1
        sub = f"sub-{self.made:03d}"
        self.people[sub] = {"age": str(self.draw.randrange(20, 89)), "sex": self.draw.choice("FM")}
        self.write_people()
        folders = self.draw.choice([[sub], [f"{sub}/ses-1"], [f"{sub}/ses-1", f"{sub}/ses-2"]])
        for folder in folders:
            self.add_session(folder)
        return sub

    def add_session(self, folder: str) -> None:
        """Add the images of a session, and a sidecar of one of them."""
        for kind in ("T1w", "task-rest_bold"):
            self.put(self.path_of(folder, kind), self.image())
        sidecar = self.path_of(folder, "T1w").replace(".nii.gz", ".json")
        self.put(sidecar, as_json({"EchoTime": self.draw.randrange(100) / 10000}).encode())

    @staticmethod
    def path_of(folder: str, kind: str) -> str:
        """Return the path of an image of a session."""
        return f"{folder}/{SUFFIXES[kind]}/{folder.replace('/', '_')}_{kind}.nii.gz"

    def take(self, name: str, paths: list[str]) -> None:
        """Take files out. They may come back one day.

        Args:
            name: what is taken out, by which `give_back` finds it.
            paths: its files.
        """
        self.away[name] = {path: self.drop(path) for path in paths}

    def withdraw(self, sub: str) -> None:
        """Take a subject out, with its row."""
        self.take(sub, self.below(sub))
        self.rows_away[sub] = self.people.pop(sub)
        self.write_people()

    def give_back(self, name: str) -> None:
        """Bring back what was taken out under this name, with the bytes that it had."""
        for path, data in self.away.pop(name).items():
            if path not in self.files:
                self.put(path, data)
        if name in self.rows_away:
            self.people[name] = self.rows_away.pop(name)
            self.write_people()

    def rename(self, sub: str) -> str:
        """Give a subject another name, in its files and its row, and return the new name."""
        self.made += 1
        new = f"sub-{self.made:03d}"
        for path in self.below(sub):
            self.put(path.replace(sub, new), self.drop(path))
            if path in self.good:
                self.good[path.replace(sub, new)] = self.good.pop(path)
        self.people[new] = self.people.pop(sub)
        self.write_people()
        return new

    def replace(self, path: str, data: bytes) -> None:
        """Replace an image."""
        self.older.setdefault(path, []).append(self.files[path])
        self.put(path, data)

    def replace_unseen(self, path: str) -> None:
        """Replace an image by one of the same size, and give it the time that it had, as some copying programs do."""
        before = (self.root / path).stat()
        self.replace(path, flipped(self.files[path], self.draw.randrange(1, 255)))
        assert len(self.files[path]) == before.st_size
        os.utime(self.root / path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def damage(self, path: str, how: str) -> None:
        """Damage an image so that it cannot be read any more.

        Args:
            path: the image.
            how: "truncated"; else some bytes inside are zeroed, as a failing disk leaves them.
        """
        data = self.files[path]
        self.good[path] = data
        middle = len(data) // 2
        self.put(path, data[:middle] if how == "truncated" else data[:middle] + bytes(64) + data[middle + 64 :])

    def mend(self, path: str) -> None:
        """Copy a damaged image once more from where it is whole."""
        self.put(path, self.good.pop(path))


def zipped(data: bytes) -> bytes:
    """Return data compressed without a time, as the converters of scanners do it."""
    return gzip.compress(data, mtime=0)


def flipped(data: bytes, bits: int) -> bytes:
    """Return as good a gzip of the same size: the header's "operating system" byte is another one."""
    return data[:9] + bytes([data[9] ^ bits]) + data[10:]
