"""Which files go to LFS, and which are ignored: `.gitattributes`, `.gitignore`, size and a look at the first bytes."""

from __future__ import annotations

from functools import lru_cache

import pathspec

GIT_ATTRIBUTES = ".gitattributes"
GIT_IGNORE = ".gitignore"

REGULAR_LIMIT = 10 * 1024 * 1024  # bytes from which a text is LFS too (Hub documentation, "Repository limitations")

# What a new repo starts with: formats that are compressed or binary whatever their first bytes look like.
_LFS_ENDINGS = """
7z arrow avro bin bz2 ckpt edf fif gz h5 hdf5 joblib jpeg jpg lz4 mat mds mgh mgz mp3 mp4 msgpack nii npy npz onnx
parquet pb pickle pkl png pt pth rar safetensors snirf tar tgz tif tiff wav webp xz zip zst
"""
DEFAULT_ATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in _LFS_ENDINGS.split())


def upload_mode(path: str, size: int, sample: bytes, attributes: str) -> str:
    """ "lfs" or "regular" for a file of `size` bytes that begins with `sample`, under the repo's .gitattributes."""
    if size == 0:
        return "regular"
    by_name = _lfs_by_name(attributes, path)
    if by_name is not None:
        return "lfs" if by_name else "regular"
    return "lfs" if size > REGULAR_LIMIT or _is_binary(sample) else "regular"


def is_ignored(path: str, ignore: str) -> bool:
    """Whether .gitignore rules exclude a path."""
    return bool(ignore.strip()) and _ignore_rules(ignore).match_file(path)


def _lfs_by_name(attributes: str, path: str) -> bool | None:
    decided = None
    for pattern, lfs in _attribute_rules(attributes):
        if pattern.match_file(path):
            decided = lfs  # the last rule that matches decides (gitattributes(5))
    return decided


@lru_cache(maxsize=64)
def _attribute_rules(attributes: str) -> list[tuple[pathspec.GitIgnoreSpec, bool]]:
    rules = []
    for line in attributes.splitlines():
        words = line.split()
        if len(words) < 2 or words[0].startswith("#"):
            continue
        if "filter=lfs" in words[1:]:
            rules.append((pathspec.GitIgnoreSpec.from_lines([words[0]]), True))
        elif {"-filter", "!filter"} & set(words[1:]):
            rules.append((pathspec.GitIgnoreSpec.from_lines([words[0]]), False))
    return rules


@lru_cache(maxsize=64)
def _ignore_rules(ignore: str) -> pathspec.GitIgnoreSpec:
    return pathspec.GitIgnoreSpec.from_lines(ignore.splitlines())


def _is_binary(sample: bytes) -> bool:
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return len(sample) - error.start > 3  # a character cut by the end of the sample is no sign
    return False
