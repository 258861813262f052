"""Routes about what is in a repo: preupload, commit, tree, paths-info, refs, branches, tags, history."""

from __future__ import annotations

import base64
import binascii
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import JSONResponse, Response

from deployments.local_hub.attributes import GIT_ATTRIBUTES, GIT_IGNORE, Attributes
from deployments.local_hub.call import Call, text_of
from deployments.local_hub.errors import bad_request
from deployments.local_hub.git import Entry, is_ref_name
from deployments.local_hub.listing import iso
from deployments.local_hub.patterns import Budget, Matcher
from deployments.local_hub.receive import receive
from deployments.local_hub.repos import Repo
from deployments.local_hub.trees import check_path

PAGE = 1000  # paths of a listing's page; the Hub's own figure
EXPANDED_PAGE = 100  # the same where each path's last commit is looked up
COMMITS_PAGE = 100
PATHS_LIMIT = 1000  # paths one paths-info may ask for
PREUPLOAD_LIMIT = 1000  # files one preupload may ask about; the client sends 256
COMMIT_LIMIT = 1024 * 1024 * 1024  # bytes of a commit's body; it is spooled to disk and read line by line


def preupload(call: Call) -> Response:
    """POST .../preupload/{revision}: for each file whether it goes to LFS, is ignored, and what is there already."""
    repo = call.repo(write=True)
    commit = call.hub.git.resolve(repo.id, call.params["revision"])
    files = call.body.get("files")
    if not isinstance(files, list) or len(files) > PREUPLOAD_LIMIT:
        raise bad_request(f"'files' must be a list of at most {PREUPLOAD_LIMIT}")
    budget = Budget()
    attributes = Attributes(_text_file(call, repo, commit, GIT_ATTRIBUTES), budget)
    ignore = call.body.get("gitIgnore")
    if not isinstance(ignore, str):
        ignore = _text_file(call, repo, commit, GIT_IGNORE)
    matcher = Matcher(ignore, budget)
    answers: list[dict[str, Any]] = []
    entries: list[Entry | None] = []
    for file in files:
        if not isinstance(file, dict):
            raise bad_request("Each file must be an object")
        path, size = check_path(file.get("path")), file.get("size")
        if not isinstance(size, int) or size < 0:
            raise bad_request(f"{path}: 'size' must be a number of bytes")
        mode = attributes.upload_mode(path, size, _sample(file.get("sample")))
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": matcher.ignored(path)})
        entries.append(call.hub.git.entry(repo.id, commit, path))
    blobs = call.hub.git.blobs(repo.id, (entry.oid for entry in entries if entry is not None and not entry.is_folder))
    for answer, entry in zip(answers, entries, strict=True):
        if entry is not None and entry.oid in blobs:
            answer["oid"] = blobs[entry.oid].sha256 or entry.oid
    return JSONResponse({"files": answers, "commitOid": commit})


def _sample(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        raise bad_request("'sample' must be base64") from None


def _text_file(call: Call, repo: Repo, commit: str, path: str) -> str:
    entry = call.hub.git.entry(repo.id, commit, path)
    if entry is None or entry.is_folder:
        return ""
    return call.hub.git.blob(repo.id, entry.oid).decode("utf-8", "replace")


async def commit(call: Call) -> Response:
    """POST .../commit/{revision}: one commit from NDJSON; `create_pr=1` puts it on a new pull request."""
    call.repo(write=True)
    # spooled, not durable: a body that is cut is refused, one that is whole becomes durable as a commit
    spool = await receive(
        call.request.stream(), call.hub.incoming, call.hub.workers, limit=COMMIT_LIMIT, hashed=False, durable=False
    )
    create_pr, revision, user = call.flag("create_pr"), call.params["revision"], call.user

    def work() -> Response:
        try:
            call.once_more()
            repo = call.repo(write=True)
            with spool.path.open("rb") as lines, TemporaryFile(dir=call.hub.incoming) as prepared:
                made = call.hub.commits.commit(repo, revision, user, lines, prepared, create_pr=create_pr)
        finally:
            spool.discard()
        page = f"{call.endpoint}/{repo.path}"
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{page}/commit/{made.oid}", "hookOutput": ""}
        if made.pull_request is not None:
            answer["pullRequestUrl"] = f"{page}/discussions/{made.pull_request}"
        return JSONResponse(answer)

    return await call.work(work)


def tree(call: Call) -> Response:
    """GET .../tree/{revision}[/path]: a page of a folder, the next one by the Link header."""
    repo = call.repo()
    commit = call.hub.git.resolve(repo.id, call.params["revision"])
    path = call.params.get("path", "").strip("/")
    recursive, expand = call.flag("recursive"), call.flag("expand")
    start = _number(call.query.get("cursor", "0"), "cursor")
    page = EXPANDED_PAGE if expand else PAGE
    page = min(max(_number(call.query.get("limit", str(page)), "limit"), 1), page)
    items = call.hub.listing.items(repo, commit, path, recursive=recursive)
    described = call.hub.listing.describe(repo, commit, items[start : start + page], expand=expand)
    headers = {}
    if start + page < len(items):
        # the commit in place of the branch: pages that follow are of the same tree, whatever is pushed meanwhile
        address = f"{call.endpoint}/api/{repo.type}s/{repo.full_name}/tree/{commit}"
        if path:
            address += "/" + quote(path, safe="")
        query = {"recursive": recursive, "expand": expand, "limit": page, "cursor": start + page}
        headers["Link"] = f'<{address}?{urlencode(query)}>; rel="next"'
    return JSONResponse(described, headers=headers)


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise bad_request(f"{name!r} must be a number")
    return int(text)


def paths_info(call: Call) -> Response:
    """POST .../paths-info/{revision}: the same for single paths; those that do not exist are left out."""
    repo = call.repo()
    commit = call.hub.git.resolve(repo.id, call.params["revision"])
    paths = call.body.get("paths", [])
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths) or len(paths) > PATHS_LIMIT:
        raise bad_request(f"'paths' must be a list of at most {PATHS_LIMIT} texts")
    expand = call.body.get("expand")
    expanded = (expand[0] if isinstance(expand, list) else str(expand)).lower() in ("1", "true")
    items = call.hub.listing.paths(repo, commit, paths)
    return JSONResponse(call.hub.listing.describe(repo, commit, items, expand=expanded))


def refs(call: Call) -> Response:
    """GET .../refs: branches and tags, pull requests on request."""
    repo = call.repo()
    kinds: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
    prefixes = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/convert/": "converts"}
    if call.flag("include_prs"):
        kinds["pullRequests"] = []
        prefixes["refs/pr/"] = "pullRequests"
    for ref, oid in call.hub.git.refs(repo.id).items():
        for prefix, kind in prefixes.items():
            if ref.startswith(prefix):
                commit = call.hub.git.peel(repo.id, oid)
                name = ref if kind == "pullRequests" else ref.removeprefix(prefix)
                kinds[kind].append({"name": name, "ref": ref, "targetCommit": commit})
    return JSONResponse(kinds)


def commits(call: Call) -> Response:
    """GET .../commits/{revision}: the history, the newest first, a page at a time."""
    repo = call.repo()
    head = call.hub.git.resolve(repo.id, call.params["revision"])
    formatted = call.query.get("expand[]") == "formatted"
    page = [info for info, _ in zip(call.hub.listing.history(repo, head), range(COMMITS_PAGE), strict=False)]
    described = []
    for info in page:
        item: dict[str, Any] = {
            "id": info.oid, "title": info.title, "message": info.description, "date": iso(info.date),
            "authors": [{"user": info.author}],
        }  # fmt: skip
        if formatted:
            item["formatted"] = {"title": info.title, "message": info.description}
        described.append(item)
    headers = {}
    if page[-1].parents:
        address = f"{call.endpoint}/api/{repo.type}s/{repo.full_name}/commits/{page[-1].parents[0]}"
        headers["Link"] = f'<{address}{"?expand[]=formatted" if formatted else ""}>; rel="next"'
    return JSONResponse(described, headers=headers)


def create_branch(call: Call) -> Response:
    """POST .../branch/{branch}."""
    repo = call.repo(write=True)
    start = call.body.get("startingPoint")
    if start is not None and not isinstance(start, str):
        raise bad_request("'startingPoint' must be a revision")
    branch = _ref_name(call.params["branch"], "branch")
    call.hub.commits.create_branch(repo, branch, start, overwrite=call.body.get("overwrite") is True)
    return JSONResponse({"status": "ok"})


def delete_branch(call: Call) -> Response:
    """DELETE .../branch/{branch}."""
    call.hub.commits.delete_branch(call.repo(write=True), call.params["branch"])
    return JSONResponse({"status": "ok"})


def create_tag(call: Call) -> Response:
    """POST .../tag/{revision}."""
    repo = call.repo(write=True)
    message = call.body.get("message")
    if message is not None and not isinstance(message, str):
        raise bad_request("'message' must be a text")
    call.hub.git.resolve(repo.id, call.params["revision"])
    tag = _ref_name(text_of(call.body, "tag"), "tag")
    call.hub.commits.create_tag(repo, tag, call.params["revision"], message, call.user)
    return JSONResponse({"status": "ok"})


def delete_tag(call: Call) -> Response:
    """DELETE .../tag/{tag}."""
    call.hub.commits.delete_tag(call.repo(write=True), call.params["tag"])
    return JSONResponse({"status": "ok"})


def squash(call: Call) -> Response:
    """POST .../super-squash/{branch}: one commit in place of the branch's history."""
    repo = call.repo(write=True)
    oid = call.hub.commits.squash(repo, call.params["branch"], text_of(call.body, "message", "Super-squash"), call.user)
    return JSONResponse({"commitOid": oid})


def _ref_name(name: str, kind: str) -> str:
    if not is_ref_name(name):
        raise bad_request(f"Invalid {kind} name: {name!r}")
    return name
