"""The card's generated block: what the dataset is, how to load it, what is in it, whose it is, what is not in it.

It also says what was stated when it was published: about faces, what was left out, which rules were lifted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tasks.bids.licence import OTHER, UNKNOWN, licence
from tasks.bids.text import NotText, columns_of, decode, from_json
from tasks.card import examples
from tasks.card import markdown as md
from tasks.card.counts import Counts, PublishedRows
from tasks.card.front import FILES
from tasks.card.pictures import Pictures
from tasks.values.format import in_units, number
from tasks.values.kinds import kind_of
from tasks.values.left_out import by_kind, by_reason
from tasks.values.loose import loose
from tasks.values.models import ENTITIES, Dataset
from tasks.values.our_paths import LEFT_OUT
from tasks.values.preflight_rules import RULES, Checked, Defacing, RuleName

MAX_README = 20_000  # characters of the dataset's README on the card; the whole file is under bids/
MAX_KINDS = 30  # kinds of files left out on the card: a FreeSurfer folder alone has dozens
READMES = ("README.md", "README", "README.txt", "README.rst")

PICTURES_A_ROW = 4

#: What the operator stated about faces, in words for a reader.
FACES: dict[Defacing, str] = {
    "not stated": "**Faces:** nothing was stated.",
    "defaced": "**Faces** were removed from the images that showed them, as the publisher states.",
    "no faces": "**Faces:** no face can be recognised in these images, as the publisher states.",
    "not defaced, sharing permitted": (
        "**Faces were not removed.** The publisher states that sharing the images as they are is permitted. Do not "
        "try to recognise anyone in them."
    ),
}

#: The columns that every dataset's rows have, with what a reader needs to know. The entities come between them.
COLUMNS = (
    (
        "kind",
        "`image` (a NIfTI file), `recording` (a file of a recording: EEG, physiology, microscopy, ...), `sidecar` "
        "(.json, .bval, .bvec), `table` (.tsv, .tsv.gz, .csv) or `other` (any other file)",
    ),
    ("dataset", "`raw`, or the name of the derivative"),
    ("sub, ses", "subject and session, as words: `01` stays `01`"),
    ("datatype, suffix", "what it shows or records, such as `anat` and `T1w`, or `eeg` and `eeg`"),
    ("path, size, sha256", "the file in the BIDS dataset: where it was, its bytes, and their checksum"),
    ("nifti", "of images: the file, decoded as a nibabel image; the stored bytes are those of the file"),
    ("content", "of all but images: the bytes of the file"),
    ("metadata", "of images and recordings: the sidecars, merged by BIDS's inheritance principle, JSON as text"),
    ("bval, bvec", "of diffusion images: the gradient tables as text"),
    ("events, events_metadata", "of a task: the events.tsv and its sidecar as text"),
    ("aslcontext, blood", "of perfusion and PET images: the table of that name as text"),
    ("channels, electrodes, coordsystem", "of recordings: the tables and the JSON file of that name as text"),
    ("participant, session, scan", "the rows of the dataset's tables about it: JSON as text, `n/a` is null"),
)


def body(
    dataset: Dataset,
    repo_id: str,
    published: PublishedRows,
    checked: Checked,
    pictures: Pictures,
    origin: str,
) -> str:
    """Return the block in Markdown, its parts one after the other. `origin` is Markdown already."""
    parts: list[str] = [_title(dataset, published)]
    sections: tuple[tuple[str, Callable[[], str]], ...] = (
        ("Load it", lambda: examples.load(repo_id, published)),
        ("As files in the BIDS tree", lambda: examples.tree(repo_id, published)),
        ("What is in it", lambda: _contents(published)),
        ("What it looks like", lambda: _pictures(published, pictures)),
        ("Columns", lambda: _columns(published)),
        ("Participants", lambda: _participants(dataset)),
        ("What was left out" if dataset.unpublished else "What to know", lambda: _left_out(dataset)),
        ("Before it was published", lambda: _stated(checked, published)),
        ("Citation and licence", lambda: _provenance(dataset)),
        ("How it was made", lambda: origin),
        ("README of the dataset", lambda: _readme(dataset)),
    )
    for head, section in sections:
        text = section()
        if text:
            parts.append(f"## {head}\n\n{text}")
    return "\n\n".join(parts)


def _title(dataset: Dataset, published: PublishedRows) -> str:
    """Return the name, and one paragraph with the figures."""
    counts = published.count()
    subjects = f" of {number(counts.subjects, 'subject')}" if counts.subjects else ""
    sessions = f" in {number(counts.sessions, 'session')}" if counts.sessions else ""
    lines = [
        f"# {md.text(dataset.name)}",
        f"{counts.in_words()}{subjects}{sessions}, {in_units(counts.size)}: "
        f"a [BIDS](https://bids.neuroimaging.io) dataset, {_row(counts)}{_shard(counts)}.",
    ]
    planned = _told(published, published.planned, published.beside_planned)
    missing = _told(published, published.missing, published.beside_missing)
    kept = _told(published, published.kept, published.beside_kept)
    if any(missing.values()):
        here = [f"{of - missing[word]:,} of {number(of, word)}" for word, of in planned.items() if of]
        lines.append(
            f"**Publication is under way:** {' and '.join(here)} of the BIDS dataset are here so far. The figures on "
            "this card count what is here."
        )
    if any(kept.values()):
        lines.append(
            f"{' and '.join(number(count, word) for word, count in kept.items() if count)} of what is here "
            f"{'is' if sum(kept.values()) == 1 else 'are'} no longer in the BIDS dataset: what was published stays "
            "here until a person has decided that it is removed."
        )
    return "\n\n".join(lines)


def _told(published: PublishedRows, rows: int, beside: int) -> dict[str, int]:
    """Return these numbers of rows and of files beside them in words.

    Where there are recordings, all are called files.
    """
    return {"image": rows, "other file": beside} if published.word == "image" else {"file": rows + beside}


def _row(counts: Counts) -> str:
    if not counts.files:
        return "one row per image"
    if not counts.images:
        return "one row per recording" if counts.files == counts.recordings else "one row per file"
    return f"one row per image and per {'recording' if counts.files == counts.recordings else 'file of a recording'}"


def _shard(counts: Counts) -> str:
    if not counts.subjects:
        return ""
    return f", one Parquet file per {'session' if counts.sessions else 'subject'}"


def _contents(published: PublishedRows) -> str:
    """Return a table of the kinds of images and recordings. It has no column that is empty throughout.

    The files beside them are a sentence, since a reader looks for data here.
    """
    columns: dict[str, list[str]] = {
        name: []
        for name in ("config", "datatype", "suffix", "images", "recordings", "files", "subjects", "sessions", "size")
    }
    for group, rows in published.groups.items():
        counts = published.count(rows)
        config = published.configs.get(group)
        columns["config"].append(md.code(config) if config else "")
        columns["datatype"].append(md.text(group.datatype))
        columns["suffix"].append(md.text(group.suffix))
        for name in ("images", "recordings", "files", "subjects", "sessions"):
            count = getattr(counts, name)
            columns[name].append(f"{count:,}" if count else "")
        columns["size"].append(in_units(counts.size))
    head = [name for name, cells in columns.items() if any(cells)]
    right = [index for index, name in enumerate(head) if name not in ("config", "datatype", "suffix")]
    table = md.table(head, zip(*(columns[name] for name in head), strict=True), right=right) if head else ""
    return "\n\n".join(filter(None, (table, _derivatives(published), _beside(published))))


def _derivatives(published: PublishedRows) -> str:
    """Return a sentence that names the derivatives; empty if there are none."""
    names = sorted({row.dataset for row in published.rows} - {"raw"})
    if not names:
        return ""
    named = ", ".join(map(md.code, names))
    if any(row.dataset == "raw" for row in published.rows):
        return f"Among them are derivatives: {named} (column `dataset`)."
    what = "a derivative" if len(names) == 1 else "derivatives"
    return f"All of it is {what}: {named} (column `dataset`)."


def _beside(published: PublishedRows) -> str:
    """Return a sentence with the number of files beside images and recordings by kind; empty if there are none."""
    kinds = Counter(map(kind_of, published.beside))
    if not kinds:
        return ""
    counts = [number(kinds[kind], kind) for kind in ("sidecar", "table") if kinds[kind]]
    counts += [f"{number(kinds['other'], 'file')} of other formats"] if kinds["other"] else []
    *most, last = counts
    words = f"{', '.join(most)} and {last}" if most else last
    held = in_units(sum(published.beside.values()))
    return f"Other files of the BIDS tree are in the config {md.code(FILES)}: {words} ({held})."


def _pictures(published: PublishedRows, pictures: Pictures) -> str:
    """Return a slice of each kind of image that is published, a few side by side."""
    names = [name for group, name in published.configs.items() if group.kind == "image" and name in pictures.shown]
    if not names:
        return ""
    tables = []
    for start in range(0, len(names), PICTURES_A_ROW):
        row = names[start : start + PICTURES_A_ROW]
        tables.append(md.table([md.code(name) for name in row], [[pictures.shown[name].markdown() for name in row]]))
    return "\n\n".join([*tables, "Axial slices, of one image of each kind: the middle one; of a mask, the fullest."])


def _stated(checked: Checked, published: PublishedRows) -> str:
    """Return what the publisher stated, left out, and published although a rule speaks against it.

    The statement on faces is about images, so a dataset of recordings alone has none.
    """
    statement = checked.statement
    allowed = _allowed(checked)
    of_faces = bool(published.images) or not published.rows
    if not (allowed or statement.strip or (of_faces and statement.defacing != "not stated")):
        return ""
    lines = [f"- {FACES[statement.defacing]}"] if of_faces else []
    if statement.strip:
        fields = ", ".join(md.code(name) for name in sorted(statement.strip))
        kept = published.kept or published.beside_kept
        stays = " What the source no longer has and is still here is as it was published before." if kept else ""
        lines.append(f"- **Left out** of the metadata, the sidecars and the tables: {fields}.{stays}")
    for rule, named in sorted(allowed.items()):
        where = f" ({', '.join(map(md.code, sorted(named)))})" if named else ""
        lines.append(f"- **Allowed by the publisher:** {RULES[rule].what}{where}. Rule {md.code(rule)}.")
    return "\n".join(lines)


def _allowed(checked: Checked) -> dict[RuleName, set[str]]:
    """Return the rules that were lifted, each with the fields. The card has to be the same every night."""
    allowed: dict[RuleName, set[str]] = {}
    for rule, field in checked.lifted_every_night:
        allowed.setdefault(rule, set()).update({field} if field else ())
    return allowed


def _columns(published: PublishedRows) -> str:
    """Return a table of the columns."""
    used = {entity for row in published.rows for entity in row.entities}
    entities = ", ".join(entity for entity in ENTITIES if entity in used)
    rows = [(", ".join(md.code(name) for name in names.split(", ")), words) for names, words in COLUMNS]
    others = "the other BIDS entities"
    if entities:
        others += f"; this dataset uses {', '.join(md.code(entity) for entity in entities.split(', '))}"
    rows.insert(4, ("`task`, `acq`, `run`, ..., `extra_entities`", f"{others}; null where the name does not have them"))
    return md.table(["column", "what it holds"], rows)


def _participants(dataset: Dataset) -> str:
    """Return how to load the tables of people, and what their columns mean."""
    parts = []
    if dataset.participants:
        rows_there = number(len(dataset.participants), "row")
        sessions = ", and the sessions' tables together are `sessions`" if dataset.sessions else ""
        parts.append(
            f"participants.tsv has {rows_there} and is the config `participants`{sessions}. Every value "
            "is a string as in the file, and `n/a` is null."
        )
        dictionary = _json_text(dataset, "participants.json")
        rows = [_dictionary_row(column, dictionary.get(column)) for column in columns_of(dataset.participants)]
        parts.append(md.table(["column", "description", "units", "levels"], rows))
    phenotype = sorted(path for path in dataset.texts if "phenotype/" in path and path.endswith(".tsv"))
    if phenotype:
        parts.append(f"Phenotype tables are under `bids/`: {', '.join(map(md.code, phenotype))}.")
    return "\n\n".join(parts)


def _dictionary_row(column: str, entry: object) -> list[str]:
    """Return a column's line of the data dictionary, even for a column that it does not describe."""
    entry = entry if isinstance(entry, Mapping) else {}
    words = [str(entry[key]) for key in ("LongName", "Description") if entry.get(key) not in (None, "", column)]
    levels = entry.get("Levels")
    levels = levels if isinstance(levels, Mapping) else {}
    meanings = "; ".join(f"{md.code(key)} {_level(value)}" for key, value in levels.items())
    return [md.code(column), md.text(": ".join(words)), md.text(entry.get("Units") or ""), meanings]


def _level(value: object) -> str:
    return md.text(value.get("Description", "") if isinstance(value, Mapping) else value)


def _left_out(dataset: Dataset) -> str:
    """Return what is in the BIDS dataset and not here, by reason and by kind, and the notes about it."""
    notes = md.bullets(dataset.notes)
    if not dataset.unpublished:
        return notes
    reasons = [
        (
            md.text(reason.partition("; `")[0]),  # what follows is a way out, for those who publish
            *(f"{count:,}" if count else "" for count in (of.image, of.recording, of.other)),
            in_units(of.size) if of.size else "",
        )
        for reason, of in by_reason(dataset.unpublished).items()
    ]
    files = sum(one.files for one in dataset.unpublished)
    table = md.code(f"bids/{LEFT_OUT}")
    intro = f"{number(files, 'file')} of the BIDS dataset are not published here. {table} has all of them, with their "
    intro += "sizes and the reason for each:"
    if files == 1:
        intro = f"One file of the BIDS dataset is not published here. {table} has it, with its size and the reason:"
    head = ["reason", "images", "recordings", "other files", "size"]
    parts = [intro, md.table(head, reasons, right=range(1, 5)), _kinds_left_out(dataset), notes]
    return "\n\n".join(part for part in parts if part)


def _kinds_left_out(dataset: Dataset) -> str:
    """Return a table of the kinds of files that are not here, the commonest first; empty if no file has a kind."""
    kinds = by_kind(one for one in dataset.unpublished if one.kind and one.what != "image")
    most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        (md.code(kind) if kind.startswith("*") else md.text(kind), f"{count:,}") for kind, count in most[:MAX_KINDS]
    ]
    if most[MAX_KINDS:]:
        rest = sum(count for _, count in most[MAX_KINDS:])
        rows.append((f"{len(most) - MAX_KINDS} other kinds", f"{rest:,}"))
    return md.table(["kind", "files"], rows, right=[1]) if rows else ""


def _provenance(dataset: Dataset) -> str:
    """Return authors, citation, funding, ethics, identifiers and licence, as dataset_description.json has them."""
    description = dataset.description
    lines = []
    for label, key in (
        ("Authors", "Authors"),
        ("How to cite", "HowToAcknowledge"),
        ("Acknowledgements", "Acknowledgements"),
        ("Funding", "Funding"),
        ("Ethics approvals", "EthicsApprovals"),
        ("References", "ReferencesAndLinks"),
        ("Version of BIDS", "BIDSVersion"),
    ):
        words = _words(description.get(key), ", " if key == "Authors" else "; ")
        if words:
            lines.append(f"- **{label}:** {words}")
    for label, key, fields in (
        ("Made by", "GeneratedBy", ("Name", "Version")),
        ("Made from", "SourceDatasets", ("DOI", "URL", "Version")),
    ):
        words = "; ".join(filter(None, (_fields(item, fields) for item in _as_list(description.get(key)))))
        if words:
            lines.append(f"- **{label}:** {words}")
    doi = str(description.get("DatasetDOI") or "").strip().removeprefix("doi:")
    if doi:
        lines.append(f"- **DOI:** {md.text(doi if doi.startswith('http') else f'https://doi.org/{doi}')}")
    lines.append(f"- **Licence:** {_licence(description.get('License'))}")
    files = sorted(path for path in dataset.texts if "/" not in path)
    if files:
        lines.append(f"- **The dataset's own files** are under `bids/`: {', '.join(map(md.code, files))}")
    lines += _code_and_stimuli(dataset)
    return "\n".join(lines)


def _code_and_stimuli(dataset: Dataset) -> list[str]:
    """Return a line that says how much of `code` and `stimuli` is here, if the dataset has these folders."""
    found = loose(dataset)
    here = [f"{number(of.texts, 'text')} of {md.code(name)}" for name, of in found.items() if of.texts]
    out = [f"{number(of.left_out, 'file')} of {md.code(name)}" for name, of in found.items() if of.left_out]
    if not here:
        return []
    rest = f"; {' and '.join(out)} not, as said under What was left out" if out else ""
    return [f"- **Code and stimuli** are under `bids/` as far as they are texts: {' and '.join(here)}{rest}"]


def _licence(stated: object) -> str:
    terms = licence(stated)
    if terms.identifier == UNKNOWN:
        return "none is stated in dataset_description.json"
    words = md.text(stated)
    return words if terms.identifier in (OTHER, str(stated).strip().lower()) else f"{terms.identifier} (“{words}”)"


def _words(value: object, between: str) -> str:
    """Return the text of a field of dataset_description.json that is a text or a list of texts."""
    values: Sequence[object] = value if isinstance(value, list) else [value]
    return between.join(md.text(item) for item in values if item)


def _as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def _fields(item: object, fields: Sequence[str]) -> str:
    """Return these fields of an object of dataset_description.json, as far as it has them."""
    return " ".join(md.text(item[key]) for key in fields if item.get(key)) if isinstance(item, Mapping) else ""


def _readme(dataset: Dataset) -> str:
    """Return the dataset's README in the Markdown of this card."""
    name = next((name for name in READMES if name in dataset.texts), None)
    if name is None:
        return ""
    words = decode(dataset.texts[name]).removeprefix("\ufeff")
    cut = f"\n\nThe README goes on in {md.code(f'bids/{name}')}." if len(words) > MAX_README else ""
    words = words[:MAX_README]
    return (md.markdown_document(words, deeper=2) if name == "README.md" else md.plain_document(words)) + cut


def _json_text(dataset: Dataset, name: str) -> Mapping[str, object]:
    """Return a JSON text of the dataset, or nothing if it is no JSON object."""
    try:
        value = from_json(decode(dataset.texts.get(name, b"{}")))
    except (NotText, ValueError):
        return {}
    return value if isinstance(value, Mapping) else {}
