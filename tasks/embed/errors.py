"""The errors of an image or a file of a recording, and what each tells a person to do about it."""

from pathlib import Path

from tasks.values.errors import PushError
from tasks.values.kinds import called
from tasks.values.models import Image


class BadImage(PushError):
    """An image, or a file of a recording, cannot be published as it is, so its shard is not written."""


class Missing(BadImage):
    """The file is no longer there, or it links to nothing."""


class Unfetched(BadImage):
    """Only the stand-in of git-annex or git LFS for the file is here, not its content."""


class Unreadable(BadImage):
    """The file cannot be read: permissions, a failing disk, not a file."""


class Empty(BadImage):
    """The file has no bytes, and is not a part of a recording that is a folder, where such files are usual."""


class TooLarge(BadImage):
    """The file is over 2 GiB, the most that one cell of a table can hold."""


class NotNifti(BadImage):
    """The file is not what its name says: it has no NIfTI-1 or NIfTI-2 header, or its suffix is wrong about gzip."""


class NotGzip(BadImage):
    """The file of a recording is named `.gz`, and is no gzip stream."""


class Unloadable(BadImage):
    """The file is NIfTI, but nibabel cannot load it by its header. No reader could use it."""


class Truncated(BadImage):
    """The data ends before the size in the NIfTI header is reached, or a gzip stream breaks off."""


class Corrupt(BadImage):
    """The gzip stream is damaged.

    It cannot be inflated, or a member does not have the CRC or the size that it states.
    """


class KeyMismatch(BadImage):
    """The content is not what the git-annex key names."""


class Changed(BadImage):
    """The file changed after it was planned, or while it was read."""


def absent(image: Image, path: Path) -> BadImage:
    """Return the error that says why there is nothing to open at `path`."""
    if not path.is_symlink() and not (folder := path.parents[image.path.count("/")]).is_dir():
        return Missing(
            f"{image.path} is not there: the dataset's folder {folder} is gone. Mount its disk, or put the folder "
            "back, and run again."
        )
    if not path.is_symlink():
        return Missing(f"{image.path} is not there any more. Restore it, or run again to publish without it.")
    target = path.readlink()
    if "annex/objects/" in target.as_posix():
        return unfetched(image, "git-annex")
    return Missing(f"{image.path} is a link to {target}, which is not there. Restore it, or remove the link.")


def unfetched(image: Image, holder: str) -> Unfetched:
    """Return the error for a file of which only the stand-in of `holder` (git-annex or git LFS) is here."""
    way = f"`git lfs pull --include '{image.path}'`" if holder == "git LFS" else get(image)
    return Unfetched(
        f"{image.path} is not fetched: only {holder}'s stand-in is here. In the dataset's folder run {way}."
    )


def get(image: Image) -> str:
    """Return the command that fetches an annexed file."""
    return f"`git annex get '{image.path}'` (or `datalad get '{image.path}'`)"


def or_get(image: Image) -> str:
    """Return how to restore the file, to follow the word "restore"; empty if git-annex does not hold it."""
    if not image.annex_key:
        return ""
    return f", for example with `git annex fsck '{image.path}'` and then {get(image)}"


def unreadable(image: Image, error: OSError) -> Unreadable:
    """Return the error for a file that the system refused to open or to read."""
    return Unreadable(
        f"{image.path} cannot be read ({error.strerror}). Check its disk, and that the user who runs this may read it."
    )


def against_key(image: Image, expected: str, found: object) -> KeyMismatch:
    """Return the error for a file whose size or digest is `found` although its git-annex key says `expected`."""
    return KeyMismatch(
        f"{image.path} is not the content that its git-annex key names: {expected} expected, {found} found. In the "
        f"dataset's folder run `git annex fsck '{image.path}'`, then {get(image)}; or `git annex add` a changed "
        f"{called(image.kind)}."
    )


def corrupt(image: Image, why: object) -> Corrupt:
    """Return the error for a file whose gzip stream cannot be inflated."""
    return Corrupt(f"{image.path} is a damaged gzip stream ({why}). Restore it{or_get(image)}.")


def unloadable(image: Image, why: object) -> Unloadable:
    """Return the error for an image that nibabel does not load with its header."""
    return Unloadable(
        f"{image.path} cannot be loaded by nibabel ({why}), so nobody could use it. Convert it to a datatype that "
        f"NIfTI readers know, correct its header, restore it{or_get(image)}, or name it in `exclude`."
    )
