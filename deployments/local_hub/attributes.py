"""Which files go to LFS, and which are ignored: `.gitattributes`, `.gitignore`, size and a look at the first bytes."""

from __future__ import annotations

from functools import lru_cache

from deployments.local_hub.patterns import Budget, Pattern, lines_of, matches, pattern

GIT_ATTRIBUTES = ".gitattributes"
GIT_IGNORE = ".gitignore"

REGULAR_LIMIT = 10 * 1024 * 1024  # bytes from which a text is LFS too (Hub documentation, "Repository limitations")

# What a new repo starts with: formats that are compressed or binary whatever their first bytes look like.
_LFS_ENDINGS = """
7z arrow avro bin bz2 ckpt edf fif gz h5 hdf5 joblib jpeg jpg lz4 mat mds mgh mgz mp3 mp4 msgpack nii npy npz onnx
parquet pb pickle pkl png pt pth rar safetensors snirf tar tgz tif tiff wav webp xz zip zst
"""
DEFAULT_ATTRIBUTES = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in _LFS_ENDINGS.split())


class Attributes:
    """A repo's .gitattributes, as far as they say what goes to LFS."""

    def __init__(self, text: str, budget: Budget):
        self._rules = _attribute_rules(text)
        self._budget = budget

    def upload_mode(self, path: str, size: int, sample: bytes) -> str:
        """ "lfs" or "regular" for a file of `size` bytes that begins with `sample`."""
        if size == 0:
            return "regular"
        by_name = self._by_name(path.split("/"))
        if by_name is not None:
            return "lfs" if by_name else "regular"
        return "lfs" if size > REGULAR_LIMIT or _is_binary(sample) else "regular"

    def _by_name(self, names: list[str]) -> bool | None:
        for rule, lfs in reversed(self._rules):  # the last rule that matches decides (gitattributes(5))
            if not rule.folders and matches(rule, names, self._budget):
                return lfs
        return None


@lru_cache(maxsize=8)
def _attribute_rules(text: str) -> tuple[tuple[Pattern, bool], ...]:
    rules = []
    for line in lines_of(text):
        words = line.split()
        if len(words) < 2 or words[0].startswith(("#", "!")):  # no pattern is negated here
            continue
        lfs = "filter=lfs" in words[1:]
        found = pattern(words[0]) if lfs or {"-filter", "!filter"} & set(words[1:]) else None
        if found is not None:
            rules.append((found, lfs))
    return tuple(rules)


def _is_binary(sample: bytes) -> bool:
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return len(sample) - error.start > 3  # a character cut by the end of the sample is no sign
    return False
