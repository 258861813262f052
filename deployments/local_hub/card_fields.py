"""What is wrong with a card's fields, in the Hub's words.

An error is what the Hub is known to refuse, or what `datasets` cannot load: a commit with it is refused. Whatever else
is out of the ordinary is a warning. A field that is not named here may hold anything, as on the Hub.

Sources: the messages that the Hub has given to people (issues of huggingface_hub, datasets and others); Hub
documentation, "Manual Configuration"; `datasets`, utils/metadata.py (`MetadataConfigs`). Each value is looked at once,
so the time is that of reading the card (`yaml_values`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOWN = 20  # errors and warnings that are told of one card: each may name all licences
VALUE_SHOWN = 100  # characters of a value that is repeated

LANGUAGE = re.compile(r"[a-z]{2,3}")
LANGUAGE_WORDS = ("code", "multilingual")
SPLIT = re.compile(r"\w+(\.\w+)*")
MODEL_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)

VALUES = Path(__file__).with_name("card_values.txt")


def _known() -> dict[str, list[str]]:
    """The values of the fields that have a list of them."""
    known: dict[str, list[str]] = {}
    for line in VALUES.read_text().splitlines():
        if line.startswith("["):
            known[line.strip("[]")] = []
        elif not line.startswith("#") and known:
            known[next(reversed(known))] += line.split()
    return known


KNOWN = _known()
SETS = {field: frozenset(values) for field, values in KNOWN.items()}
LISTS = {field: ", ".join(values) for field, values in KNOWN.items()}

DATA_FILES = "a path, a list of paths, or a list of which each has a split and its path"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a field; a `warning` is told and refuses nothing."""

    message: str
    warning: bool = False


def faults(data: dict[str, Any], repo_type: str) -> list[Fault]:
    """The first errors and the first warnings of a card's metadata."""
    errors: list[Fault] = []
    warnings: list[Fault] = []
    for fault in _all(data, repo_type):
        found = warnings if fault.warning else errors
        if len(found) < SHOWN:
            found.append(fault)
        elif found is errors:
            break
    return errors + warnings


def _all(data: dict[str, Any], repo_type: str) -> Iterator[Fault]:
    yield from _license(data)
    yield from _language(data.get("language"))
    if repo_type == "dataset":
        yield from _configs(data.get("configs"))
        yield from _dataset_info(data.get("dataset_info"))
        yield from _in_list("task_categories", data.get("task_categories"))
        yield from _in_list("task_ids", data.get("task_ids"))
    if repo_type == "model":
        yield from _model(data)


def _shown(value: object) -> str:
    """A value in a message; of a list or mapping, however large, only that it is one."""
    return str(value)[:VALUE_SHOWN] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _items(name: str, value: object) -> list[tuple[str, object]]:
    """The values of a field that may be one or a list of them, each with its name."""
    if value is None:
        return []
    return (
        [(f"{name}[{place}]", one) for place, one in enumerate(value)] if isinstance(value, list) else [(name, value)]
    )


def _license(data: dict[str, Any]) -> Iterator[Fault]:
    value = data.get("license")
    for name, one in _items("license", value):
        if not isinstance(one, str):
            yield Fault('"license" does not match any of the allowed types')
        elif one not in SETS["license"]:
            yield Fault(f'"{name}" must be one of [{LISTS["license"]}]')
    given = value if isinstance(value, list) else [value]
    if "other" in given and not data.get("license_name"):
        yield Fault('"license_name" is missing: with `license: other`, it is the name of the license', warning=True)


def _language(value: object) -> Iterator[Fault]:
    for name, one in _items("language", value):
        if not isinstance(one, str):
            yield Fault(f'"{name}" must be a string')
        elif one != one.lower():
            yield Fault(f'"{name}" must only contain lowercase characters')
        elif not LANGUAGE.fullmatch(one) and one not in LANGUAGE_WORDS:
            yield Fault(
                f'"{name}" with value "{_shown(one)}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code '
                '(two/three letters), or a special value like "code", "multilingual". If you want to use BCP-47 '
                "identifiers, you can specify them in language_bcp47."
            )


def _in_list(field: str, value: object) -> Iterator[Fault]:
    for _, one in _items(field, value):
        if not isinstance(one, str) or one not in SETS[field]:
            yield Fault(f'The {field} "{_shown(one)}" is not in the official list: {LISTS[field]}', warning=True)


# datasets


def _configs(value: object) -> Iterator[Fault]:
    if value is None:
        return
    if not isinstance(value, list):
        yield Fault('"configs" must be an array')
        return
    seen: set[str] = set()
    default: str | None = None
    for place, config in enumerate(value):
        name = f"configs[{place}]"
        if not isinstance(config, dict):
            yield Fault(f'"{name}" must be of type object')
            continue
        yield from _config(name, config)
        called = config.get("config_name")
        if not isinstance(called, str):
            continue
        if called in seen:
            yield Fault(f'"{name}" contains a duplicate value: config_name "{_shown(called)}"')
        elif called == "default" or config.get("default"):
            if default is not None:
                yield Fault(f'"configs" has several default configs: "{_shown(default)}" and "{_shown(called)}"')
            default = called
        seen.add(called)


def _config(name: str, config: dict[str, Any]) -> Iterator[Fault]:
    called = config.get("config_name")
    if called is None:
        yield Fault(f'"{name}.config_name" is required')
    elif not isinstance(called, str):
        yield Fault(f'"{name}.config_name" must be a string')
    elif not called:
        yield Fault(f'"{name}.config_name" is not allowed to be empty')
    files = config.get("data_files")
    if files is None:
        if config.get("data_dir") is None:
            yield Fault(f'"{name}" has neither data_files nor data_dir: it is of all files of the repo', warning=True)
    elif not isinstance(files, str) and not (isinstance(files, list) and all(map(_is_data_file, files))):
        yield Fault(f'"{name}.data_files" does not match any of the allowed types: {DATA_FILES}')


def _is_data_file(value: object) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str)
    split, path = value.get("split"), value.get("path")
    if len(value) != 2 or not isinstance(split, str) or not SPLIT.fullmatch(split):
        return False
    return isinstance(path, str) or (isinstance(path, list) and all(isinstance(one, str) for one in path))


def _dataset_info(value: object) -> Iterator[Fault]:
    """The shapes; what is in them is the viewer's matter, and the Hub takes it (datasets, issue 6405)."""
    for name, info in _items("dataset_info", value):
        if not isinstance(info, dict):
            yield Fault(f'"{name}" must be of type object')
            continue
        for key in ("features", "splits"):
            entries = info.get(key)
            if entries is not None and not isinstance(entries, list):
                yield Fault(f'"{name}.{key}" must be an array', warning=True)
                continue
            for place, entry in enumerate(entries or ()):
                if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                    yield Fault(f'"{name}.{key}[{place}]" must have a name', warning=True)
        for key in ("download_size", "dataset_size"):
            if not isinstance(info.get(key, 0), int | float):
                yield Fault(f'"{name}.{key}" must be a number', warning=True)


# models


def _model(data: dict[str, Any]) -> Iterator[Fault]:
    for key in ("model-index", "widget"):
        if not isinstance(data.get(key, []), list):
            yield Fault(f'"{key}" must be an array')
    for name, one in _items("base_model", data.get("base_model")):
        if not isinstance(one, str) or not MODEL_ID.fullmatch(one):
            yield Fault(f'"{name}" with value "{_shown(one)}" is not valid. Use a model id from https://hf.co/models.')
