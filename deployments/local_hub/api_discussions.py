"""Routes of discussions and pull requests."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.local_hub.call import Call, text_of
from deployments.local_hub.discussions import Discussion
from deployments.local_hub.errors import bad_request
from deployments.local_hub.listing import iso
from deployments.local_hub.repos import Repo

PAGE = 50  # discussions of one page
TITLE_LIMIT = 200  # characters
TEXT_LIMIT = 64 * 1024  # characters


def index(call: Call) -> Response:
    """GET .../discussions: a page of them, by type, status and author."""
    repo = call.repo()
    wanted = call.query
    found = [
        each
        for each in call.hub.discussions.all(repo)
        if wanted.get("type", "all") in ("all", "pull_request" if each.base else "discussion")
        and wanted.get("status", "all") in ("all", "open" if each.status in ("open", "draft") else "closed")
        and wanted.get("author", each.author) == each.author
    ]
    page = wanted.get("p", "0")
    start = int(page) * PAGE if page.isascii() and page.isdigit() and len(page) < 9 else 0
    shown = [_described(repo, each) for each in found[start : start + PAGE]]
    return JSONResponse({"discussions": shown, "count": len(found), "start": start})


def details(call: Call) -> Response:
    """GET .../discussions/{number}: with its events, and what a pull request would merge into."""
    repo = call.repo()
    opened = call.hub.discussions.get(repo, _number(call))
    answer = {**_described(repo, opened), "events": opened.events, "filesWithConflicts": [], "diff": ""}
    if opened.base is not None:
        answer["changes"] = {"base": opened.base, "mergeCommitId": opened.merged}
    return JSONResponse(answer)


def create(call: Call) -> Response:
    """POST .../discussions: a discussion, or a pull request without changes yet."""
    repo = call.repo(write=True)
    title, description = _text(call, "title", TITLE_LIMIT), _text(call, "description", TEXT_LIMIT)
    if call.body.get("pullRequest") is True:
        number = call.hub.commits.start_pull_request(repo, title, call.user, description)
    else:
        with call.hub.database.write() as connection:
            number = call.hub.discussions.open(
                connection, repo, title=title, author=call.user, base=None, status="open", description=description
            )
    return JSONResponse({"num": number, "url": f"{call.endpoint}/{repo.path}/discussions/{number}"})


def comment(call: Call) -> Response:
    """POST .../comment."""
    repo = call.repo(write=True)
    text = _text(call, "comment", TEXT_LIMIT)
    return JSONResponse({"newMessage": call.hub.discussions.comment(repo, _number(call), call.user, text)})


def edit_comment(call: Call) -> Response:
    """POST .../comment/{event}/edit."""
    repo = call.repo(write=True)
    text = _text(call, "content", TEXT_LIMIT)
    event = call.hub.discussions.edit_comment(repo, _number(call), call.params["event"], call.user, text)
    return JSONResponse({"updatedComment": event})


def retitle(call: Call) -> Response:
    """POST .../title."""
    repo = call.repo(write=True)
    title = _text(call, "title", TITLE_LIMIT)
    return JSONResponse({"newTitle": call.hub.discussions.retitle(repo, _number(call), call.user, title)})


def change_status(call: Call) -> Response:
    """POST .../status: open or closed."""
    repo = call.repo(write=True)
    status = text_of(call.body, "status")
    if status not in ("open", "closed"):
        raise bad_request("The status is open or closed")
    return JSONResponse({"newStatus": call.hub.discussions.change_status(repo, _number(call), call.user, status)})


def merge(call: Call) -> Response:
    """POST .../merge."""
    repo = call.repo(write=True)
    oid = call.hub.commits.merge(repo, _number(call), call.user)
    return JSONResponse({"mergeCommitId": oid})


def _described(repo: Repo, each: Discussion) -> dict[str, Any]:
    return {
        "num": each.number, "title": each.title, "author": {"name": each.author}, "createdAt": iso(each.created),
        "status": each.status, "isPullRequest": each.base is not None,
        "repo": {"name": repo.full_name, "type": repo.type},
    }  # fmt: skip


def _number(call: Call) -> int:
    text = call.params["number"]
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise bad_request("A discussion has a number")
    return int(text)


def _text(call: Call, name: str, limit: int) -> str:
    text = text_of(call.body, name, "").strip()
    if len(text) > limit:
        raise bad_request(f"{name!r} has at most {limit} characters")
    return text
