"""Pages for people: what a link in an artifact leads to. Plain HTML, no script, nothing loaded from elsewhere.

Everything in a repo is other people's text: names are escaped, the card is rendered with raw HTML switched off.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from html import escape
from urllib.parse import quote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.responses import Response

from deployments.local_hub import preview
from deployments.local_hub.call import Call
from deployments.local_hub.cards import CARD, front_matter
from deployments.local_hub.errors import HubError, bad_request, entry_not_found
from deployments.local_hub.git import BlobInfo, CommitInfo
from deployments.local_hub.html import counted, day, human, page
from deployments.local_hub.repos import Repo
from deployments.local_hub.resolve import content_reader
from deployments.local_hub.xet.xorb import XetFormatError

ROWS = 1000  # paths shown of one folder
HISTORY = 100  # commits shown
CHANGES = 500  # files of a commit shown
PREVIEWS_WAITING = 4  # people who wait for what is in a shard, two seconds each at most
SEARCH_LIMIT = 200  # characters
TEXT_LIMIT = 1024 * 1024  # bytes of a text shown in a page

CARD_LIMIT = 128 * 1024  # characters of a card that is shown as a page; a longer one as text
MARKS = re.compile(r"[\[*_&<`\\~]")  # what begins something in a paragraph, and is looked for to its end
MARKS_LIMIT = 10_000_000  # marks of a paragraph squared, summed: what reading them costs
CELLS_LIMIT = 20_000  # of tables: a row has all columns of its head, be it empty

ON_WIDE = ("Digest", "Author", "Subject", "Session", "Kind")  # columns that a phone has no room for

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
COMMENT = ("<!--", "-->")  # a card's notes to its writers are not for its readers


def home(call: Call) -> Response:
    """GET /: the repos the caller may see."""
    rows = []
    for repo in call.hub.repos.listed(call.identity):
        head = call.hub.git.commit(repo.id, call.hub.git.resolve(repo.id, "main"))
        rows.append(
            f'<tr><td><a href="/{quote(repo.path)}">{escape(repo.full_name)}</a></td><td>{repo.type}</td>'
            f"<td>{'private' if repo.private else 'gated' if repo.gated else 'public'}</td>"
            f'<td class="n">{day(head.date)}</td></tr>'
        )
    table = (
        _table(("Repository", "Type", "Visibility", "Last commit (UTC)"), rows) if rows else "<p>Nothing to see.</p>"
    )
    if call.identity.name is None:
        who = '<a href="/login">Sign in</a> to see private repositories.'
    else:
        who = f'{escape(call.identity.name)} <a href="/logout">Sign out</a>'
    return page("Local Hub", f"<h1>Local Hub</h1><p>{who}</p>{table}")


def repo(call: Call) -> Response:
    """GET /datasets/{namespace}/{name}[/tree/{revision}[/path]]: files with sizes, the card, the last commit."""
    repo = call.repo()
    revision = call.params.get("revision") or "main"
    path = (call.params.get("path") or "").strip("/")
    commit = call.hub.git.resolve(repo.id, revision)
    wanted = call.query.get("search", "").strip()[:SEARCH_LIMIT]
    items = call.hub.listing.items(repo, commit, path, recursive=bool(wanted))
    if wanted:
        items = [item for item in items if not item[1].is_folder and _matches(item[0], wanted)]
    described = call.hub.listing.describe(repo, commit, items[:ROWS])
    address = f"/{quote(repo.path)}"
    rev = quote(revision, safe="")
    rows = []
    for item in sorted(described, key=lambda item: (item["type"] == "file", item["path"])):
        name = escape(item["path"] if wanted else item["path"].rpartition("/")[2])
        kind = "blob" if item["type"] == "file" else "tree"
        size = human(item["size"]) if kind == "blob" else "folder"
        digest = item.get("lfs", item)["oid"]
        link = f"{address}/{kind}/{rev}/{quote(item['path'])}"
        rows.append(
            f'<tr><td><a href="{link}">{name}</a></td><td class="n">{size}</td>'
            f'<td class="quiet wide"><code title="{digest}">{digest[:12]}</code></td></tr>'
        )
    more = f"<p>The first {ROWS:,} of {len(items):,} entries. Search for a part of a name to see others.</p>"
    head = call.hub.git.commit(repo.id, commit)
    table = _table(("Name", "Size", "Digest"), rows) if rows else "<p>No file has all of that in its path.</p>"
    body = _header(repo, revision, path) + _latest(address, head) + _search(wanted, len(items)) + table
    body += more if len(items) > ROWS else ""
    if not path and not wanted:
        body += _totals(call, repo, commit) + _card(call, repo, commit)
    return page(repo.full_name, body)


def _matches(path: str, wanted: str) -> bool:
    return all(word in path.casefold() for word in wanted.casefold().split())


def _search(wanted: str, found: int) -> str:
    """The field to search in, with what was searched for."""
    said = f'<span class="quiet">{found:,} {"file" if found == 1 else "files"}</span>' if wanted else ""
    return (
        f'<form method="get" role="search"><input type="search" name="search" value="{escape(wanted)}"'
        ' placeholder="Search: sub-M2001 T1w" aria-label="Search for files by parts of their paths">'
        f"<button>Search</button> {said}</form>"
    )


async def blob(call: Call) -> Response:
    """GET .../blob/{revision}/{path}: a small text as text, of a shard its first rows; anything else is a download.

    What is in a shard is read on a thread of its own, and not at all while others wait for that: the page comes anyway.
    """
    repo, info, begin = await call.work(_blob, call, pool=call.hub.heavy)
    if info.sha256 is None or not call.params["path"].endswith(".parquet"):
        return page(call.params["path"], begin)
    if call.hub.previews_waiting >= PREVIEWS_WAITING:
        return page(
            call.params["path"], begin + "<p>Others look at shards just now: load the page again for its rows.</p>"
        )
    call.hub.previews_waiting += 1
    try:
        shown = await call.work(_shard, call, repo, info.sha256, info.size, pool=call.hub.previews)
    finally:
        call.hub.previews_waiting -= 1
    return page(call.params["path"], begin + shown)


def _blob(call: Call) -> tuple[Repo, BlobInfo, str]:
    """The repo, the file, and the page without what is in a shard."""
    repo = call.repo()
    revision, path = call.params["revision"], call.params["path"]
    commit = call.hub.git.resolve(repo.id, revision)
    entry = call.hub.git.entry(repo.id, commit, path)
    if entry is None or entry.is_folder:
        raise entry_not_found(path, commit)
    info = call.hub.git.blobs(repo.id, [entry.oid])[entry.oid]
    if info.sha256 is not None and call.hub.holdings.was_deleted(repo.id, info.sha256):
        raise entry_not_found(path, commit)
    download = f"/{quote(repo.path)}/resolve/{quote(revision, safe='')}/{quote(path)}"
    if info.sha256 is None and info.size <= TEXT_LIMIT:
        text = escape(call.hub.git.blob(repo.id, entry.oid).decode("utf-8", "replace"))
        shown = f"<pre>{text}</pre>"
    else:
        shown = f"<p>Kept as LFS content: <code>{info.sha256}</code></p>" if info.sha256 else ""
    about = f'<p>{human(info.size)} · <a href="{download}">download</a></p>'
    return repo, info, _header(repo, revision, path) + about + shown


def _shard(call: Call, repo: Repo, sha256: str, size: int) -> str:
    """The first rows of a shard and slices of its first images, or why there are none."""
    read = content_reader(call, repo, sha256)
    try:
        found = preview.of(read, size, preview.Budget())
    except preview.NotShownError as error:
        return f'<p class="quiet">Its rows are not shown: {escape(str(error))}.</p>'
    except (HubError, XetFormatError, OSError):
        return '<p class="quiet">Its rows are not shown: the store does not have all of it.</p>'  # see `check`
    pictures = "".join(_figure(path, picture) for path, picture in found.pictures.items())
    rows = [
        f'<tr><td class="path">{escape(row.path)}</td>'
        + "".join(f'<td class="wide">{escape(text)}</td>' for text in (row.sub, row.ses, row.kind))
        + f'<td class="n">{human(row.size)}</td></tr>'
        for row in found.rows
    ]
    first = f"The first {len(rows)} of {found.total:,} files" if found.total > len(rows) else counted(len(rows))
    table = _table(("Path", "Subject", "Session", "Kind", "Size"), rows)
    return f'<h2>{first}</h2><div class="pictures">{pictures}</div>{table}' if rows else ""


def _figure(path: str, picture: preview.Picture | str) -> str:
    """A slice with the image's name; where there is none, why."""
    name = escape(path.rpartition("/")[2])
    if isinstance(picture, str):
        return f'<figure><p class="quiet">No picture: {escape(picture)}.</p><figcaption>{name}</figcaption></figure>'
    return (
        f'<figure><img alt="the middle slice of {name}" width="{picture.width}" height="{picture.height}"'
        f' src="data:image/png;base64,{b64encode(picture.png).decode()}"><figcaption>{name}</figcaption></figure>'
    )


def commits(call: Call) -> Response:
    """GET .../commits/{revision}: the history."""
    repo = call.repo()
    revision = call.params["revision"]
    head = call.hub.git.resolve(repo.id, revision)
    address = f"/{quote(repo.path)}"
    history = zip(call.hub.listing.history(repo, head), range(HISTORY), strict=False)
    rows = [
        f'<tr><td><a href="{address}/commit/{info.oid}"><code>{info.oid[:8]}</code></a></td>'
        f'<td>{escape(info.title)}<br><small class="quiet">{call.hub.history.of(repo.id, info).summary()}</small></td>'
        f'<td class="wide">{escape(info.author)}</td><td class="n">{day(info.date)}</td></tr>'
        for info, _ in history
    ]
    return page(repo.full_name, _header(repo, revision, "") + _table(("Commit", "Title", "Author", "Date (UTC)"), rows))


def commit(call: Call) -> Response:
    """GET .../commit/{id}: the message, and a way to the files as they were."""
    repo = call.repo()
    info = call.hub.git.commit(repo.id, call.hub.git.resolve(repo.id, call.params["revision"]))
    address = f"/{quote(repo.path)}"
    described = f"<pre>{escape(info.description)}</pre>" if info.description else ""
    parents = " ".join(f'<a href="{address}/commit/{oid}"><code>{oid[:8]}</code></a>' for oid in info.parents)
    body = (
        f"<h2>{escape(info.title)}</h2>{described}<p>{escape(info.author)} · {day(info.date)}</p>"
        f"<p>Commit <code>{info.oid}</code>, parent {parents or 'none'}</p>"
        f'<p><a href="{address}/tree/{info.oid}">Files at this commit</a></p>'
    )
    body += _changes(call, repo, info)
    return page(info.title, _header(repo, info.oid, "") + body)


def _changes(call: Call, repo: Repo, info: CommitInfo) -> str:
    """What a commit added, changed and removed, with the sizes that the files have since."""
    changes = call.hub.history.of(repo.id, info)
    shown = changes.files[:CHANGES]
    sizes = call.hub.git.blobs(repo.id, (oid for one in shown for oid in (one.before, one.after) if oid))
    rows = []
    for one in shown:
        at = info.oid if one.after else info.parents[0]
        link = f"/{quote(repo.path)}/blob/{at}/{quote(one.path)}"
        size = sizes[one.after or one.before or ""].size
        rows.append(
            f'<tr><td class="{one.kind}">{one.kind}</td><td><a href="{link}">{escape(one.path)}</a></td>'
            f'<td class="n">{human(size)}</td></tr>'
        )
    more = f"<p>The first {CHANGES:,} of them.</p>" if len(changes.files) > CHANGES or changes.more else ""
    return f"<h2>{changes.summary()}</h2>" + (_table(("", "File", "Size"), rows) if rows else "") + more


def settings(call: Call) -> Response:
    """GET .../settings: who may see the repo, and how whoever may write to it changes that."""
    repo = call.repo()
    kind = "private" if repo.private else "gated" if repo.gated else "public"
    sees = "everybody who reaches this Hub" if kind == "public" else f"those who may read in {escape(repo.namespace)}"
    lines = (
        "from huggingface_hub import HfApi",
        "api = HfApi()  # with HF_ENDPOINT and HF_TOKEN of this Hub",
        f'repo = {{"repo_id": "{repo.full_name}", "repo_type": "{repo.type}"}}',
        "api.update_repo_settings(**repo, private=True)  # or False",
        'api.update_repo_settings(**repo, gated="auto")  # or "manual", or False',
    )
    body = (
        f"<p>It is <b>{kind}</b>: {sees} can see it.</p>"
        f"<p>To change that, with a token that may write to it:</p><pre>{escape(chr(10).join(lines))}</pre>"
    )
    return page(repo.full_name, _header(repo, "main", "") + body)


def discussion(call: Call) -> Response:
    """GET .../discussions/{number}: a pull request's title, state and the way to its files."""
    repo = call.repo()
    number = call.params["number"]
    if not number.isdigit() or len(number) > 9:
        raise bad_request("A discussion has a number")
    opened = call.hub.discussions.get(repo, int(number))
    address = f"/{quote(repo.path)}"
    body = f"<h2>#{number} {escape(opened.title)}</h2><p>{opened.status}, by {escape(opened.author)}</p>"
    if opened.base is not None:
        ref = quote(f"refs/pr/{number}", safe="")
        body += f'<p>Onto {escape(opened.base)}: <a href="{address}/tree/{ref}">files</a>'
        body += f', <a href="{address}/commits/{ref}">commits</a></p>'
    body += f"<article>{_markdown(opened.description, '')}</article>"
    return page(opened.title, _header(repo, "main", "") + body)


def _table(columns: Iterable[str], rows: Iterable[str]) -> str:
    numbers = {"Size", "Date (UTC)", "Last commit (UTC)"}
    classes = {**dict.fromkeys(numbers, " class=n"), **dict.fromkeys(ON_WIDE, " class=wide")}
    head = "".join(f"<th{classes.get(column, '')}>{column}</th>" for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _header(repo: Repo, revision: str, path: str) -> str:
    address = f"/{quote(repo.path)}"
    rev = quote(revision, safe="")
    crumbs = [f'<a href="{address}/tree/{rev}">{escape(repo.name)}</a>']
    parts = path.split("/") if path else []
    for depth, part in enumerate(parts, 1):
        crumbs.append(f'<a href="{address}/tree/{rev}/{quote("/".join(parts[:depth]))}">{escape(part)}</a>')
    lock = f"{'private ' if repo.private else ''}{'gated ' if repo.gated else ''}"
    return (
        f'<nav><a href="/">Local Hub</a><a href="{address}">Files</a>'
        f'<a href="{address}/commits/{rev}">History</a><a href="{address}/settings">Settings</a></nav>'
        f'<h1>{escape(repo.full_name)} <small class="quiet">{lock}{repo.type}</small></h1>'
        f'<p>{" / ".join(crumbs)} <span class="quiet">at <code>{escape(revision)}</code></span></p>'
    )


def _latest(address: str, head: CommitInfo) -> str:
    return (
        f'<p class="quiet">{escape(head.author)}: <a href="{address}/commit/{head.oid}">{escape(head.title)}</a>'
        f" · {day(head.date)} · <code>{head.oid[:8]}</code></p>"
    )


def _totals(call: Call, repo: Repo, commit: str) -> str:
    files = [entry for _, entry in call.hub.listing.items(repo, commit, "", recursive=True) if not entry.is_folder]
    sizes = call.hub.git.blobs(repo.id, (entry.oid for entry in files))
    total = sum(sizes[entry.oid].size for entry in files)
    return f'<p class="quiet">{counted(len(files))}, {human(total)}</p>'


def _card(call: Call, repo: Repo, commit: str) -> str:
    entry = call.hub.git.entry(repo.id, commit, CARD)
    if entry is None or entry.is_folder:
        return ""
    data = call.hub.git.blob(repo.id, entry.oid)
    if len(data) > TEXT_LIMIT:
        return ""
    block, text = front_matter(data.decode("utf-8", "replace"))
    metadata = f"<details><summary>Metadata</summary><pre>{escape(block)}</pre></details>" if block else ""
    return f"<hr>{metadata}<article>{_markdown(text, f'/{quote(repo.path)}/resolve/{commit}/')}</article>"


@lru_cache(maxsize=16)
def _markdown(text: str, pictures: str) -> str:
    """Markdown as HTML, with a budget: what nobody writes by hand is shown as it is."""
    text = _without_comments(text)
    if len(text) > CARD_LIMIT or _marks(text) > MARKS_LIMIT or _cells(text) > CELLS_LIMIT:
        return f"<pre>{escape(text)}</pre>"
    tokens = MARKDOWN.parse(text)
    _aim_pictures(tokens, pictures)
    return str(MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}))


def _marks(text: str) -> int:
    return sum(len(MARKS.findall(paragraph)) ** 2 for paragraph in PARAGRAPH.split(text))


def _cells(text: str) -> int:
    """No fewer cells than all tables can have: as many columns as the widest line below a head, in each line."""
    lines = text.split("\n")
    heads = [line.count("|") + 1 for line in lines if "|" in line and not line.strip(" \t|:->*+.0123456789")]
    return max(heads, default=0) * len(lines)


def _without_comments(text: str) -> str:
    """Without the comments that are whole lines; each is looked for once, and one without an end stays."""
    kept: list[str] = []
    position = 0
    while True:
        start = text.find(COMMENT[0], position)
        end = text.find(COMMENT[1], start) if start >= 0 else -1
        if end < 0:
            return "".join(kept) + text[position:]
        end += len(COMMENT[1])
        whole = (start == 0 or text[start - 1] == "\n") and text[end : end + 1] in ("", "\n")
        kept.append(text[position : start if whole else end])
        position = end


def _aim_pictures(tokens: Iterable[Token], at: str) -> None:
    """Let the card's pictures that lie in the repo be found, as the Hub does."""
    for token in tokens:
        source = str(token.attrGet("src") or "")
        if token.type == "image" and not source.startswith("/") and ":" not in source:
            token.attrSet("src", at + source)
        _aim_pictures(token.children or (), at)
