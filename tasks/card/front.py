"""The card's YAML: what the Hub and `datasets` read (Hub documentation, "Dataset cards" and "Manual configuration").

Only our keys are rewritten. Every other line of a card on the Hub stays as it is, with its comments. People extend two
of our lists: `tags` keeps theirs, and `configs` keeps those that are not ours.
"""

import re
from collections import Counter
from collections.abc import Mapping

import yaml  # type: ignore[import-untyped]

from tasks.bids.licence import UNKNOWN, licence
from tasks.card.counts import PublishedRows
from tasks.values.errors import PushError
from tasks.values.kinds import DATA, KINDS
from tasks.values.models import Dataset

DEFAULT = "default"  # the config of all images, or of all recordings if there are none
FILES = "files"  # the config of the files beside them
BESIDE = tuple(kind for kind in KINDS if kind not in DATA)
SHARDS = "data/**/*.parquet"
PARTICIPANTS = "tables/participants.parquet"
SESSIONS = "tables/sessions.parquet"

#: The datatypes of each method (BIDS specification, "Modality specific files"): of images, and of whatever a row is. A
#: physiological recording beside images (`func_physio`) is no MRI.
_OF_IMAGES = {"mri": {"anat", "dwi", "fmap", "func", "perf"}, "pet": {"pet"}, "mrs": {"mrs"}}
_OF_ANY = {name: {name} for name in ("eeg", "meg", "ieeg", "emg", "nirs", "motion")} | {"microscopy": {"micr"}}
#: The Hub's size categories by their upper bounds, in images and files of recordings.
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"([^\s#'\"-][^:]*?)\s*:(?:\s|$)")


class UnreadableCard(PushError):
    """The card on the Hub has YAML that cannot be read, so it cannot be brought up to date."""


def front_matter(dataset: Dataset, published: PublishedRows) -> dict[str, object]:
    """Return our keys of the YAML, and their values."""
    terms = licence(dataset.description.get("License"))
    rows = len(published.rows)  # without sidecars, which are no examples to learn from
    front: dict[str, object] = {"license": terms.identifier}
    if terms.name:
        front["license_name"] = terms.name
        link = terms.link or next((f"bids/{name}" for name in ("LICENSE", "LICENCE") if name in dataset.texts), None)
        front |= {"license_link": link} if link else {}
    front["pretty_name"] = " ".join(dataset.name.split())
    front["tags"] = _tags(published)
    if rows:
        front["size_categories"] = [next((name for bound, name in _SIZES if rows < bound), "10M<n<100M")]
    if rows or published.beside:
        front["configs"] = _configs(dataset, published)
    return front


def _tags(published: PublishedRows) -> list[str]:
    datatypes = {group.datatype for group in published.groups}
    images = {group.datatype for group in published.groups if group.kind == "image"}
    tags = ["bids", "neuroimaging", *(["nifti"] if images or not published.rows else [])]
    tags += [name for name, of in _OF_IMAGES.items() if images & of]
    tags += [name for name, of in _OF_ANY.items() if datatypes & of]
    return tags + [tag for tag, datatype in (("fmri", "func"), ("diffusion-mri", "dwi")) if datatype in images]


def _configs(dataset: Dataset, published: PublishedRows) -> list[dict[str, object]]:
    """Return one config for all images, one for each kind of image and of recording, the files beside, and the tables.

    The kinds are filters over the same files. `default` is all recordings if there are no images: who loads a dataset
    by its name alone has what it is about, and no sidecar. It has no filter if there is nothing else: one that lets
    everything through would keep `datasets` from reading a shard of layout 1, which has no `kind`.
    """
    default: dict[str, object] = {"config_name": DEFAULT, "data_files": SHARDS}
    if published.beside or len({group.kind for group in published.groups}) > 1:
        default["filters"] = [["kind", "==", "image" if published.images else "recording"]]
    configs = [default] if published.rows else []
    names = Counter(group.name for group in published.configs)
    for group, name in published.configs.items():
        kind = [["kind", "==", group.kind]] if published.beside or names[group.name] > 1 else []
        filters = [*kind, ["datatype", "==", group.datatype], ["suffix", "==", group.suffix]]
        configs.append({"config_name": name, "data_files": SHARDS, "filters": filters})
    if published.beside:
        configs.append({"config_name": FILES, "data_files": SHARDS, "filters": [["kind", "in", list(BESIDE)]]})
    for name, path, rows in (
        ("participants", PARTICIPANTS, dataset.participants),
        ("sessions", SESSIONS, dataset.sessions),
    ):
        if rows:
            configs.append({"config_name": name, "data_files": path})
    return configs


def split(card: str) -> tuple[str, str]:
    """Split a card into its YAML, without the fences, and its body."""
    match = _FRONT.match(card)
    return (match.group(1), card[match.end() :]) if match else ("", card)


def merged(front: Mapping[str, object], existing: str) -> str:
    """Return the YAML with our keys brought up to date and all other lines unchanged.

    Raises:
        UnreadableCard: the existing YAML is no mapping of keys.
    """
    try:
        before = yaml.safe_load(existing) or {}
        if not isinstance(before, dict):
            raise yaml.YAMLError("it is no mapping of keys to values")
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        reason = " ".join(str(error).split())
        raise UnreadableCard(
            f"the YAML at the top of README.md on the Hub cannot be read: {reason}. Correct it there, or remove it "
            "(it is written anew); nothing else in the card is touched."
        ) from error
    values = _with_theirs(front, before)
    gone = {"license_name", "license_link"} if "license" in values else set()
    written: set[str] = set()
    lines: list[str] = []
    for key, block in _blocks(existing):
        if key not in values and key not in gone:
            lines += block
        elif key in values and key not in written:
            lines.append(_dump(key, values[key]))
            written.add(key)
    lines += [_dump(key, value) for key, value in values.items() if key not in written]
    return "".join(line.rstrip("\n") + "\n" for line in lines)


def _with_theirs(front: Mapping[str, object], before: Mapping[str, object]) -> dict[str, object]:
    """Return our values with what people added: tags, configs, and a licence if the dataset names none."""
    values = dict(front)
    tags, configs = before.get("tags"), before.get("configs")
    if isinstance(tags, list):
        values["tags"] = list(dict.fromkeys([*tags, *_as_list(front.get("tags"))]))
    if isinstance(configs, list) and "configs" in values:
        ours = _as_list(values["configs"])
        names = {config["config_name"] for config in ours}
        values["configs"] = ours + [config for config in configs if not _is_ours(config, names)]
    if values.get("license") == UNKNOWN and before.get("license"):
        del values["license"]
    return values


def _as_list(value: object) -> list[dict[str, object]]:
    return value if isinstance(value, list) else []


def _is_ours(config: object, names: set[object]) -> bool:
    """Return whether we write this config, or wrote it before: over all shards, with our filters or none."""
    if not isinstance(config, dict) or config.get("config_name") in names:
        return True
    filtered = [item[:2] for item in config.get("filters") or [] if isinstance(item, list)]
    if filtered[:1] == [["kind", "=="]]:
        filtered = filtered[1:]
    of_kind = filtered == [["datatype", "=="], ["suffix", "=="]]
    of_all = config.get("config_name") in (DEFAULT, FILES)
    ours = config.get("data_files") == SHARDS and (of_kind or of_all)
    return ours or config.get("data_files") in (PARTICIPANTS, SESSIONS)


def _blocks(text: str) -> list[tuple[str | None, list[str]]]:
    """Return the YAML's lines, grouped by top-level key. Comments and blank lines are blocks of their own."""
    blocks: list[tuple[str | None, list[str]]] = []
    for line in text.splitlines():
        key = _KEY.match(line)
        if key:
            blocks.append((key.group(1), [line]))
        elif not blocks or line.startswith("#") or not line.strip():
            blocks.append((None, [line]))
        elif blocks[-1][0] is None:
            last = next((block for block in reversed(blocks) if block[0] is not None), blocks[-1])
            blocks.append((last[0], [line]))
        else:
            blocks[-1][1].append(line)
    return blocks


def _dump(key: str, value: object) -> str:
    flow = None if key == "configs" else False  # a filter on one line: [suffix, ==, T1w]
    return str(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=flow))
