"""What happens in a night, drawn from a seed: in the lab, on its disk, on the Hub, by strangers, in the staging folder.

Each event is a function of the year's scene that does something and says what, in a few words; None where it cannot
happen now. `EVENTS` has them by kind, with how often each is drawn.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from year.oracle import is_shard
from year.repo import CARD, RECORD, Head, Repo
from year.rig import Rig
from year.world import Dataset, World, as_json

FEWEST, MOST = 8, 14  # subjects
COMMIT = "/commit/"
ROUTES = ("/preupload/", "xet-write-token", "/v1/xorbs/", "/v2/shards", COMMIT, "/tree/", "/resolve/", "/api/datasets/")
#: Where a process is stopped to be killed: the requests that a push makes, in the order in which it makes them.
HELD = ("/tree/", "/preupload/", "/v1/xorbs/", "/v2/shards", "/validate-yaml", COMMIT, "/paths-info/")


@dataclass
class Scene:
    """The year as the events of a night see and change it."""

    world: World
    rig: Rig
    repo: Repo
    head: Head
    """The head of the repo as the last run has left it."""
    draw: random.Random
    another: World
    """Another study, of people by the same names."""
    mend: dict[str, int] = field(default_factory=dict)
    """Damaged images, and for how many nights more."""
    undo: dict[str, bytes] = field(default_factory=dict)
    """What a stranger has broken and will put right, by path, as it was."""
    notes: list[bytes] = field(default_factory=list)
    removed: str = "ask"


@dataclass
class Night:
    """A night, and what is special about it."""

    told: list[str] = field(default_factory=list)
    source: Path | None = None
    """The folder that the run is given as its dataset, if it is not the lab's."""
    unmounted: tuple[str, ...] = ()
    """Subjects whose folders are empty."""
    rules: list[dict[str, object]] = field(default_factory=list)
    """The rules by which the Hub breaks requests."""
    kill: bool = False
    """Whether the run is killed when the first of them has been met."""
    hub: str = "well"
    verification: str = "sample"
    skipped: bool = False
    gate_seconds: float = 0.0
    """The seconds that a gate which opens stays open; 0 for as long as it takes."""

    def __post_init__(self) -> None:
        self.kinds: list[str] = []


Event = Callable[[Scene, Night], str | None]

# The lab.


def subject_comes(scene: Scene, night: Night) -> str | None:
    return scene.world.add_subject() if len(scene.world.subjects) < MOST else None


def subject_withdrawn(scene: Scene, night: Night) -> str | None:
    if len(scene.world.subjects) <= FEWEST:
        return None
    sub = scene.draw.choice(scene.world.subjects)
    scene.world.withdraw(sub)
    return sub


def subject_returns(scene: Scene, night: Night) -> str | None:
    away = sorted(name for name in scene.world.away if name in scene.world.rows_away)
    if not away or len(scene.world.subjects) >= MOST:
        return None
    name = scene.draw.choice(away)
    scene.world.give_back(name)
    return name


def subject_renamed(scene: Scene, night: Night) -> str | None:
    sub = scene.draw.choice(scene.world.subjects)
    return f"{sub} is {scene.world.rename(sub)} now"


def session_comes(scene: Scene, night: Night) -> str | None:
    withs = sorted({folder.split("/")[0] for folder in scene.world.sessions if "/" in folder})
    if not withs:
        return None
    sub = scene.draw.choice(withs)
    number = 1 + max(int(folder.rpartition("-")[2]) for folder in scene.world.sessions if folder.startswith(f"{sub}/"))
    if number > 4:
        return None
    scene.world.add_session(f"{sub}/ses-{number}")
    return f"{sub}/ses-{number}"


def session_withdrawn(scene: Scene, night: Night) -> str | None:
    folders = [
        one
        for one in scene.world.sessions
        if sum(o.split("/")[0] == one.split("/")[0] for o in scene.world.sessions) > 1
    ]
    if not folders:
        return None
    folder = scene.draw.choice(folders)
    scene.world.take(folder, scene.world.below(folder))
    return folder


def image_added(scene: Scene, night: Night) -> str | None:
    paths = [World.path_of(folder, "FLAIR") for folder in scene.world.sessions]
    paths = [path for path in paths if path not in scene.world.files]
    if not paths:
        return None
    path = scene.draw.choice(paths)
    scene.world.put(path, scene.world.image())
    return path


def _whole_image(scene: Scene) -> str:
    return scene.draw.choice([path for path in scene.world.images if path not in scene.world.good])


def image_replaced(scene: Scene, night: Night) -> str | None:
    path = _whole_image(scene)
    scene.world.replace(path, scene.world.image())
    return path


def image_replaced_unseen(scene: Scene, night: Night) -> str | None:
    path = _whole_image(scene)
    scene.world.replace_unseen(path)
    return path


def image_restored(scene: Scene, night: Night) -> str | None:
    paths = sorted(path for path in scene.world.older if path in scene.world.files and path not in scene.world.good)
    if not paths:
        return None
    path = scene.draw.choice(paths)
    older = scene.world.older.pop(path)[0]
    if older == scene.world.files[path]:
        return None
    scene.world.put(path, older)
    return path


def image_taken_out(scene: Scene, night: Night) -> str | None:
    """Take out an image of a session with others, so that the shard stays and loses a row."""
    images = scene.world.images
    paths = [p for p in images if sum(o.rsplit("/", 2)[0] == p.rsplit("/", 2)[0] for o in images) > 1]
    paths = [path for path in paths if path not in scene.world.good]
    if not paths:
        return None
    path = scene.draw.choice(paths)
    scene.world.take(path, [path])
    return path


def thing_returns(scene: Scene, night: Night) -> str | None:
    """Bring back a session, an image or a text that was taken out."""
    world = scene.world
    names = sorted(name for name in world.away if name not in world.rows_away)
    names = [n for n in names if not n.startswith("sub-") or n.split("/")[0] in world.subjects]
    if not names:
        return None
    name = scene.draw.choice(names)
    world.give_back(name)
    return name


def sidecar_edited(scene: Scene, night: Night) -> str | None:
    paths = sorted(p for p in scene.world.files if p.startswith("sub-") and p.endswith(".json"))
    if scene.draw.random() < 0.1 or not paths:
        path, value = "T1w.json", {"MagneticFieldStrength": scene.draw.choice([1.5, 3, 7]), "Note": scene.draw.random()}
    else:
        path, value = scene.draw.choice(paths), {"EchoTime": scene.draw.random()}
    scene.world.put(path, as_json(value).encode())
    return path


def sidecar_taken_out(scene: Scene, night: Night) -> str | None:
    paths = sorted(p for p in scene.world.files if p.startswith("sub-") and p.endswith(".json"))
    if not paths:
        return None
    path = scene.draw.choice(paths)
    scene.world.take(path, [path])
    return path


def participants_edited(scene: Scene, night: Night) -> str | None:
    sub = scene.draw.choice(scene.world.subjects)
    scene.world.people[sub]["age"] = str(scene.draw.randrange(20, 89))
    scene.world.write_people()
    return sub


TEXTS = ("CHANGES", "phenotype/moca.tsv", "phenotype/moca.json")


def text_edited(scene: Scene, night: Night) -> str | None:
    path = scene.draw.choice([*(path for path in TEXTS if path in scene.world.files), "README"])
    if path.endswith(".json"):
        scene.world.put(path, as_json({"score": {"Description": str(scene.draw.random())}}).encode())
    else:
        row = f"{scene.world.subjects[0]}\t" if path.endswith(".tsv") else "line "
        scene.world.put(path, scene.world.files[path] + f"{row}{scene.draw.randrange(10_000)}\n".encode())
    return path


def text_withdrawn(scene: Scene, night: Night) -> str | None:
    paths = [path for path in TEXTS if path in scene.world.files]
    if not paths:
        return None
    path = scene.draw.choice(paths)
    scene.world.take(path, [path])
    return path


def image_damaged(scene: Scene, night: Night) -> str | None:
    how = scene.draw.choice(["truncated", "zeroed inside"])
    path = _whole_image(scene)
    scene.world.damage(path, how)
    scene.mend[path] = scene.draw.randrange(1, 4)
    return f"{path} {how}"


# What the run is given.


def half_mounted(scene: Scene, night: Night) -> str | None:
    subjects = scene.world.subjects
    night.unmounted = tuple(scene.draw.sample(subjects, len(subjects) * 3 // 4))
    return f"{len(night.unmounted)} of {len(subjects)} subjects"


def wrong_path(scene: Scene, night: Night) -> str | None:
    night.source = scene.draw.choice(
        [scene.world.root / "missing", scene.world.root / "phenotype", scene.world.root.parent]
    )
    return night.source.name


def another_study(scene: Scene, night: Night) -> str | None:
    night.source = scene.another.root
    return f"{len(scene.another.subjects)} subjects"


def run_killed(scene: Scene, night: Night) -> str | None:
    path = scene.draw.choice(HELD)
    fault = scene.draw.choice(["hold", "hold_response"])
    night.rules.append({"fault": fault, "path": path, "after": scene.draw.randrange(2)})
    night.kill = True
    return f"SIGKILL {'before' if fault == 'hold' else 'after'} {path}"


def skipped(scene: Scene, night: Night) -> str | None:
    night.skipped = True
    return "no run"


def verified_whole(scene: Scene, night: Night) -> str | None:
    night.verification = scene.draw.choice(["full", "listing"])
    return night.verification


def gate_times_out(scene: Scene, night: Night) -> str | None:
    night.gate_seconds = 1.0
    return "should one open"


def removed_switched(scene: Scene, night: Night) -> str | None:
    scene.removed = scene.draw.choices(["keep", "ask", "delete"], [2, 4, 1])[0]  # delete: as older versions had it
    return scene.removed


# The Hub.


def hub_answers_5xx(scene: Scene, night: Night) -> str | None:
    status = scene.draw.choice([500, 503])
    path = scene.draw.choice(ROUTES)
    night.rules.append(
        {"fault": "status", "status": status, "path": path, "after": scene.draw.randrange(3), "times": 1}
    )
    return f"{status} {path}"


def hub_loses_answer(scene: Scene, night: Night) -> str | None:
    night.rules.append({"fault": "lose_response", "method": "POST", "path": COMMIT})
    return "of a commit"


def hub_cuts_request(scene: Scene, night: Night) -> str | None:
    path = scene.draw.choice(["/v1/xorbs/", COMMIT])
    night.rules.append({"fault": "cut_request", "path": path, "bytes": scene.draw.randrange(4_000)})
    return path


def hub_away(scene: Scene, night: Night) -> str | None:
    night.hub = "away"
    return "for the night"


def hub_head_stale(scene: Scene, night: Night) -> str | None:
    night.rules.append(
        {"fault": "stale", "path": rf"/api/datasets/{scene.repo.repo_id}(/revision/[^/]+)?$", "times": 2}
    )
    return "twice"


def hub_lies(scene: Scene, night: Night) -> str | None:
    night.rules.append({"fault": "other_bytes", "method": "GET", "path": r"/resolve/[^/]+/data/", "times": -1})
    night.hub = "lies"
    night.verification = scene.draw.choice(["full", "sample"])
    return f"other bytes for every shard, verified {night.verification}"


# Strangers.


def _shards(scene: Scene) -> list[str]:
    return sorted(path for path in scene.head.files if is_shard(path))


def card_edited(scene: Scene, night: Night) -> str | None:
    note = b"A note by hand, %d." % scene.draw.randrange(10_000)
    scene.repo.commit("By hand", {CARD: scene.head.files[CARD] + b"\n" + note + b"\n"})
    scene.notes.append(note)
    return note.decode()


def shard_overwritten(scene: Scene, night: Night) -> str | None:
    path, *other = scene.draw.sample(_shards(scene), 2)
    scene.repo.commit("By hand", {path: scene.draw.choice([b"not a shard" * 500, scene.head.files[other[0]]])})
    return path


def shard_deleted(scene: Scene, night: Night) -> str | None:
    path = scene.draw.choice(_shards(scene))
    scene.repo.commit("By hand", delete=(path,))
    return path


def record_edited(scene: Scene, night: Night) -> str | None:
    lines = scene.head.files.get(RECORD, b"").splitlines()
    if not lines:  # somebody has emptied it, and no run has mended it since
        return None
    number = scene.draw.randrange(len(lines))
    line = json.loads(lines[number])
    how = scene.draw.choice(
        ["digest", "sha256", "size", "cut", "taken out", "twice", "foreign", "huge", "emptied", "unnamed", "unnamed"]
    )
    if how in ("digest", "sha256"):
        lines[number] = json.dumps(line | {how: "0" * 64}).encode()
    elif how == "size":
        lines[number] = json.dumps(line | {"size": line["size"] + 1}).encode()
    elif how == "cut":
        lines[number] = lines[number][:50]
    elif how == "taken out":
        del lines[number]
    elif how == "twice":
        lines.append(lines[number])
    elif how == "foreign":
        path = scene.draw.choice(
            ["README.md", "bids/README", "other/tool.parquet", ".gitattributes", "../x", "data/a.parquet"]
        )
        images = [image | {"path": f"{image['path']}.{n}"} for image in line["images"] for n in range(20)]
        lines.append(json.dumps(line | {"path": path, "images": images}).encode())
    elif how == "emptied":
        lines = []
    elif how == "unnamed":
        images = line["images"][1:]
        lines[number] = json.dumps(line | {"images": images, "rows": len(images)}).encode()
    else:
        lines[number] = json.dumps(line | {"note": "x" * 100_000}).encode()
    scene.repo.commit("By hand", {RECORD: b"".join(one + b"\n" for one in lines)})
    return f"{how}: {line['path']}"


def file_added(scene: Scene, night: Night) -> str | None:
    path = scene.draw.choice(
        ["notes.md", "other/tool.parquet", "data/extra.txt", "bids/stranger.txt", "tables/own.csv"]
    )
    scene.repo.commit("By hand", {path: b"a stranger's, %d" % scene.draw.randrange(10_000)})
    return path


def attributes_edited(scene: Scene, night: Night) -> str | None:
    comment = b"# by hand, %d\n" % scene.draw.randrange(10_000)
    scene.repo.commit("By hand", {".gitattributes": scene.head.files.get(".gitattributes", b"") + comment})
    return "a comment"


RULES = {".gitattributes": b"\ndata/** -filter\n", ".gitignore": b"\ndata/\n"}


def rules_edited(scene: Scene, night: Night) -> str | None:
    path = scene.draw.choice(sorted(RULES))
    before = scene.head.files.get(path, b"")
    scene.undo[path] = before
    scene.repo.commit("By hand", {path: before + RULES[path]})
    return f"{path}, until it is undone"


# The staging folder.


def staged_damaged(scene: Scene, night: Night) -> str | None:
    files = sorted(path for path in scene.rig.staging_root.rglob("*.parquet") if path.stat().st_size)
    if len(files) < 2:  # of one that was emptied before, nothing is left to damage
        return None
    one, other = scene.draw.sample(files, 2)
    data = one.read_bytes()
    middle = len(data) // 2
    hows: Mapping[str, Callable[[], object]] = {
        "flipped": lambda: one.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
        "cut": lambda: one.write_bytes(data[:middle]),
        "emptied": lambda: one.write_bytes(b""),
        "deleted": one.unlink,
        "swapped": lambda: one.write_bytes(other.read_bytes()),
        "without its receipt": lambda: one.with_suffix(".receipt.json").unlink(missing_ok=True),
    }
    how = scene.draw.choice(sorted(hows))
    hows[how]()
    return f"{one.name} {how}"


#: Kind -> how often, relative to the others, and what happens.
EVENTS: dict[str, tuple[int, Event]] = {
    "subject comes": (6, subject_comes),
    "subject withdrawn": (5, subject_withdrawn),
    "subject returns": (4, subject_returns),
    "subject renamed": (2, subject_renamed),
    "session comes": (5, session_comes),
    "session withdrawn": (4, session_withdrawn),
    "image added": (5, image_added),
    "image replaced": (6, image_replaced),
    "image replaced unseen": (5, image_replaced_unseen),
    "image restored": (4, image_restored),
    "image taken out": (5, image_taken_out),
    "something returns": (5, thing_returns),
    "sidecar edited": (5, sidecar_edited),
    "sidecar taken out": (2, sidecar_taken_out),
    "participants edited": (4, participants_edited),
    "text edited": (4, text_edited),
    "text withdrawn": (4, text_withdrawn),
    "image damaged": (4, image_damaged),
    "disk half mounted": (4, half_mounted),
    "wrong path": (3, wrong_path),
    "another study": (3, another_study),
    "run killed": (8, run_killed),
    "night skipped": (3, skipped),
    "verification": (4, verified_whole),
    "removed switched": (6, removed_switched),
    "gate times out": (2, gate_times_out),
    "hub: 5xx": (6, hub_answers_5xx),
    "hub: answer lost": (4, hub_loses_answer),
    "hub: request cut": (3, hub_cuts_request),
    "hub: away": (2, hub_away),
    "hub: stale head": (3, hub_head_stale),
    "hub: other bytes": (3, hub_lies),
    "stranger: card": (3, card_edited),
    "stranger: shard overwritten": (4, shard_overwritten),
    "stranger: shard deleted": (4, shard_deleted),
    "stranger: record": (6, record_edited),
    "stranger: file": (2, file_added),
    "stranger: .gitattributes": (2, attributes_edited),
    "stranger: rules": (2, rules_edited),
    "staged file": (7, staged_damaged),
}


def happen(scene: Scene, kinds: Mapping[str, tuple[int, Event]], first: bool) -> Night:
    """Draw a night, have its events happen, and return it.

    Args:
        scene: the year so far.
        kinds: the events that may happen: kind -> how often it is drawn, and what happens.
        first: whether it is the first night, in which nothing happens, since there is no repo yet for strangers.
    """
    night = Night()
    for path in sorted(scene.world.good.keys() & scene.world.files.keys()):
        scene.mend[path] = scene.mend.get(path, 0) - 1
        if scene.mend[path] < 0:
            scene.world.mend(path)
            night.told.append(f"mended: {path}")
    if scene.undo and scene.draw.random() < 0.5:
        scene.repo.commit("By hand: undone", scene.undo)
        night.told.append(f"undone: {', '.join(scene.undo)}")
        night.kinds.append("stranger: rules undone")
        scene.undo = {}
    number = 0 if first else scene.draw.choice([0, 1, 1, 1, 2, 2, 3])
    for kind in scene.draw.choices(list(kinds), [often for often, _ in kinds.values()], k=number) if kinds else []:
        if kind in night.kinds or (kind.startswith(("hub", "run killed")) and (night.rules or night.hub != "well")):
            continue
        if kind.startswith("stranger") and any(one.startswith("stranger") for one in night.kinds):
            continue  # a stranger edits what the last run has left
        if kind.startswith("stranger") and scene.undo:
            continue
        if (told := kinds[kind][1](scene, night)) is not None:
            night.kinds.append(kind)
            night.told.append(f"{kind}: {told}")
    return night


@contextmanager
def mounted(world: World, night: Night) -> Iterator[tuple[Path, Dataset | None]]:
    """Yield the folder of the dataset as the night's run finds it, and what that folder says.

    The folders of unmounted subjects are empty for as long as the block runs.
    """
    aside = world.root.parent / "unmounted"
    aside.mkdir(exist_ok=True)
    night.unmounted = tuple(sub for sub in night.unmounted if sub in world.subjects)  # one may have left that night
    for sub in night.unmounted:
        (world.root / sub).rename(aside / sub)
        (world.root / sub).mkdir()
    try:
        hidden = tuple(f"{sub}/" for sub in night.unmounted)
        yield world.root, Dataset({path: data for path, data in world.files.items() if not path.startswith(hidden)})
    finally:
        for sub in night.unmounted:
            (world.root / sub).rmdir()
            (aside / sub).rename(world.root / sub)
