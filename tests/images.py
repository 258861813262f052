"""Images on a disk, and the values that plan would make of them."""

import gzip
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.values.kinds import recording_of
from tasks.values.models import Image, ShardSpec


def nifti1(shape: Sequence[int] = (4, 5, 6), seed: int = 0, order: str = "<") -> bytes:
    """A NIfTI-1 file of 16-bit voxels."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into(f"{order}2h", header, 70, 4, 16)
    struct.pack_into(f"{order}8f", header, 76, *[1.0] * 8)
    struct.pack_into(f"{order}f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header) + _voxels(shape, seed, order)


def nifti2(shape: Sequence[int] = (4, 5, 6), seed: int = 0, order: str = "<") -> bytes:
    """A NIfTI-2 file of 16-bit voxels."""
    header = bytearray(544)
    struct.pack_into(f"{order}i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into(f"{order}2h", header, 12, 4, 16)
    struct.pack_into(f"{order}8q", header, 16, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into(f"{order}8d", header, 104, *[1.0] * 8)
    struct.pack_into(f"{order}q", header, 168, 544)
    return bytes(header) + _voxels(shape, seed, order)


def _voxels(shape: Sequence[int], seed: int, order: str) -> bytes:
    return np.random.default_rng(seed).integers(0, 999, shape, dtype=np.int16).astype(f"{order}i2").tobytes()


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def put(root: Path, path: str, data: bytes) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def image_at(root: Path, path: str, **fields: object) -> Image:
    """The image that is at `path`, with the entities that its name has."""
    status = (root / path).stat()
    *pairs, last = Path(path).name.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs)
    known: dict[str, object] = {
        "dataset": "raw",
        "sub": entities.pop("sub", None),
        "ses": entities.pop("ses", None),
        "datatype": Path(path).parent.name,
        "suffix": last.split(".")[0],
        "entities": entities,
    }
    stat = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino}
    return Image(path=path, size=status.st_size, **{**stat, **known, **fields})  # type: ignore[arg-type]


def image_of(root: Path, path: str, data: bytes, **fields: object) -> Image:
    """An image with these bytes, put at `path`."""
    put(root, path, data)
    return image_at(root, path, **fields)


def recorded(root: Path, path: str, data: bytes, **fields: object) -> Image:
    """A file of a recording with these bytes, put at `path`; where it is in a folder (`*_meg.ds`), a part of that."""
    put(root, path, data)
    whole = Path(recording_of(path))
    *pairs, last = whole.name.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs)
    named: dict[str, object] = {
        "sub": entities.pop("sub"),
        "ses": entities.pop("ses", None),
        "datatype": whole.parent.name,
        "suffix": last.split(".")[0],
        "entities": entities,
    }
    status = (root / path).stat()
    stat = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino}
    known: dict[str, object] = {**stat, **named, "dataset": "raw", "kind": "recording", **fields}
    return Image(path=path, size=status.st_size, **known)  # type: ignore[arg-type]


def sparse(root: Path, path: str, size: int) -> Image:
    """A .nii of `size` bytes (of `size - 352` voxels of one byte), a hole in the file system."""
    header = bytearray(nifti1((1, 1, 1))[:352])
    rest = size - 352
    struct.pack_into("<8h", header, 40, 3, 1000, 1000, rest // 1_000_000, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    file = put(root, path, bytes(header))
    with file.open("r+b") as stream:
        stream.truncate(size)
    return image_at(root, path)


def spec_of(*images: Image, name: str = "sub-1") -> ShardSpec:
    digest = hashlib.sha256(repr(images).encode()).hexdigest()
    return ShardSpec(name, f"data/{name.split('_')[0]}/{name}.parquet", images, digest)


def session(root: Path) -> ShardSpec:
    """A session with what makes readers disagree: nulls, unicode, empty text, two byte orders, .nii and .nii.gz."""
    images = (
        image_of(root, "sub-1/anat/sub-1_FLAIR.nii.gz", zipped(nifti1(seed=1)), participant='{"age":null}'),
        image_of(root, "sub-1/anat/sub-1_T1w.nii.gz", zipped(nifti1(seed=2)), metadata='{"Name":"Grüße, 脳"}'),
        image_of(root, "sub-1/dwi/sub-1_dwi.nii", nifti2(seed=3), bval="0 1000\n", bvec=""),
        *(
            image_of(
                root,
                f"sub-1/func/sub-1_task-rest_run-{run}_bold.nii.gz",
                zipped(nifti1((4, 5, 6, 3), seed=10 + run, order=">")),
                events="onset\tduration\n" + "1\t2\n" * 3000,
                extra_entities={"new": "é"} if run == 2 else {},
            )
            for run in (1, 2, 3)
        ),
        image_of(
            root,
            "derivatives/masks/sub-1/anat/sub-1_label-lesion_mask.nii.gz",
            zipped(nifti1(seed=4)),
            dataset="masks",
        ),
    )
    return spec_of(*images)


def recordings(root: Path) -> ShardSpec:
    """The same session with recordings after its images: BrainVision, a CTF folder with an empty file in it."""
    folder = "sub-1/meg/sub-1_task-rest_meg.ds"
    files = (
        image_of(root, "sub-1/eeg/sub-1_task-rest_eeg.eeg", bytes(range(256)) * 40, channels="name\ttype\nCz\tEEG\n"),
        image_of(root, "sub-1/eeg/sub-1_task-rest_eeg.vhdr", b"Brain Vision\r\n\0", coordsystem='{"EEGUnits":"mm"}'),
        image_of(root, f"{folder}/BadChannels", b"", metadata="{}", electrodes="name\tx\n"),
        image_of(root, f"{folder}/sub-1_task-rest_meg.meg4", b"MEG41CP\0" + b"\1" * 70_000),
    )
    return spec_of(*session(root).images, *(replace(file, kind="recording") for file in files))
