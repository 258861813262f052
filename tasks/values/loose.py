"""How much of `code` and `stimuli` is published: their texts are, and the rest stays out unless `include` names it."""

from dataclasses import dataclass

from tasks.values.models import Dataset

FOLDERS = ("code", "stimuli")


@dataclass(frozen=True, slots=True)
class Loose:
    """The files in all folders of one of these names."""

    texts: int
    """Those that are published as they are."""
    left_out: int


def loose(dataset: Dataset) -> dict[str, Loose]:
    """Return how much of `code` and of `stimuli` is published, by folder. A folder without files is left out."""
    texts = [_folder(path) for path in dataset.texts if path in dataset.if_readable]
    rest = [(one.reason.partition(":")[0], one.files) for one in dataset.unpublished]
    counts = {
        name: Loose(texts.count(name), sum(files for reason, files in rest if reason == f"in {name}/"))
        for name in FOLDERS
    }
    return {name: of for name, of in counts.items() if of.texts or of.left_out}


def _folder(path: str) -> str:
    return next((part for part in path.split("/") if part in FOLDERS), "")
