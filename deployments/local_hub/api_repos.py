"""Routes about accounts and repositories: who am I, create, describe, change, move, delete."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from deployments.local_hub import cards
from deployments.local_hub.attributes import DEFAULT_ATTRIBUTES, GIT_ATTRIBUTES
from deployments.local_hub.call import REPO_TYPES, Call, text_of
from deployments.local_hub.errors import HubError, bad_request, invalid_token, repo_not_found, token_needed
from deployments.local_hub.listing import iso
from deployments.local_hub.repos import Repo, RepoType

ANONYMOUS_CARD = 64 * 1024  # characters of a card that is read for a caller without a token


def whoami(call: Call) -> Response:
    """GET /api/whoami-v2: the account behind the token, its organisations, the token's role."""
    if call.identity.name is None:
        raise invalid_token()
    name = call.identity.name
    orgs = [
        {"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": role, "isEnterprise": False}
        for org, role in call.hub.accounts.orgs(name)
    ]
    token = {"displayName": "local", "role": call.identity.role}
    return JSONResponse(
        {
            "type": "user", "id": name, "name": name, "fullname": name, "email": None, "emailVerified": False,
            "isPro": False, "canPay": False, "periodEnd": None, "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )  # fmt: skip


def account_overview(call: Call) -> Response:
    """GET /api/users/{user}/overview and the same for organisations."""
    found = call.hub.accounts.find(call.params["user"])
    if found is None:
        raise HubError(404, "This user does not exist")
    name, kind = found
    return JSONResponse({"_id": name, "user": name, "name": name, "fullname": name, "type": kind, "avatarUrl": ""})


def validate_yaml(call: Call) -> Response:
    """POST /api/validate-yaml: what the Hub would say of a card's metadata.

    huggingface_hub's RepoCard asks without a token: a small card is read for anybody. It wants the answer as text.
    """
    content, repo_type = text_of(call.body, "content"), text_of(call.body, "repoType", "model")
    if call.identity.name is None and len(content) > ANONYMOUS_CARD:
        raise token_needed()
    errors, warnings = cards.validate(content, repo_type)
    status = 400 if errors else 200
    if call.request.headers.get("accept", "").startswith("text/plain"):
        lines = [*(f"- Error: {message}" for message in errors), *(f"- Warning: {message}" for message in warnings)]
        return PlainTextResponse("\n".join(lines), status)
    answer = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return JSONResponse(answer, status)


def create(call: Call) -> Response:
    """POST /api/repos/create; 409 with the repo's URL where it exists."""
    repo_type = _repo_type(call.body)
    namespace = text_of(call.body, "organization", call.user)
    name = text_of(call.body, "name")
    call.hub.accounts.require_write(call.identity, namespace)
    visibility = call.body.get("visibility")
    private = visibility == "private" if visibility is not None else bool(call.body.get("private", False))
    owner = call.hub.accounts.find(namespace)
    assert owner is not None
    try:
        with call.hub.database.write() as connection:
            repo = call.hub.repos.create(connection, repo_type, owner[0], name, private=private)
            call.hub.commits.initial(connection, repo, call.user, {GIT_ATTRIBUTES: DEFAULT_ATTRIBUTES.encode()})
    except HubError as error:
        if error.status != 409:
            raise
        repo = call.hub.repos.find(call.identity, repo_type, namespace, name)
        answer = {"error": error.message, "url": f"{call.endpoint}/{repo.path}", "name": repo.full_name}
        return JSONResponse(answer, 409, {"X-Error-Message": error.message})
    url = f"{call.endpoint}/{repo.path}"
    return JSONResponse({"url": url, "name": repo.full_name, "id": str(repo.id), "private": repo.private})


def delete(call: Call) -> Response:
    """DELETE /api/repos/delete."""
    repo = _named(call, text_of(call.body, "organization", call.user), text_of(call.body, "name"))
    call.hub.repos.delete(repo)
    return JSONResponse({"status": "ok"})


def move(call: Call) -> Response:
    """POST /api/repos/move."""
    source, target = text_of(call.body, "fromRepo").split("/"), text_of(call.body, "toRepo").split("/")
    if len(source) != 2 or len(target) != 2:
        raise bad_request("fromRepo and toRepo must be namespace/name")
    repo = _named(call, *source)
    call.hub.accounts.require_write(call.identity, target[0])
    call.hub.repos.move(repo, *target)
    return JSONResponse({"status": "ok"})


def settings(call: Call) -> Response:
    """PUT .../settings: the visibility, and whether people have to ask for access."""
    repo = call.repo(write=True)
    if "gated" in call.body:
        gated = call.body["gated"]
        if gated not in (False, "auto", "manual"):
            raise bad_request('gated must be "auto", "manual" or false')
        call.hub.repos.set_gated(repo, gated or None)
    if "visibility" in call.body or "private" in call.body:
        private = call.body.get("visibility") == "private" or call.body.get("private") is True
        call.hub.repos.set_private(repo, private)
        return JSONResponse({"private": private})
    return JSONResponse({"private": repo.private})


def auth_check(call: Call) -> Response:
    """GET .../auth-check: 200 for those who may read."""
    call.repo()
    return JSONResponse({"status": "ok"})


def auth_check_write(call: Call) -> Response:
    """GET .../auth-check/write: 200 for those who may write."""
    call.repo(write=True)
    return JSONResponse({"status": "ok"})


def missing(call: Call) -> Response:
    """Any route that is not there: of a repo that is not there either, mostly."""
    namespace, _, rest = call.params.get("rest", "").partition("/")
    if rest:
        call.hub.repos.find(call.identity, REPO_TYPES[call.params["type"]], namespace, rest.partition("/")[0])
        raise HubError(404, "This Hub has no such route")
    raise repo_not_found()


def index(call: Call) -> Response:
    """GET /api/datasets (and models, spaces): the repos the caller may see; `author` and `search` narrow it."""
    wanted = call.query
    found = []
    for repo in call.hub.repos.listed(call.identity, REPO_TYPES[call.params["type"]]):
        author, search = wanted.get("author"), wanted.get("search")
        if author and author.lower() != repo.namespace.lower():
            continue
        if search and search.lower() not in repo.full_name.lower():
            continue
        found.append({"_id": str(repo.id), **_summary(call, repo, "main")})
    return JSONResponse(found)


def info(call: Call) -> Response:
    """GET of a repo, at a revision: head, files, card; `blobs` adds sizes and digests, `expand` picks fields."""
    repo = call.repo()
    revision = call.params.get("revision") or "main"
    described = _summary(call, repo, revision)
    commit = described["sha"]
    items = call.hub.listing.items(repo, commit, "", recursive=True)
    files = [(path, entry) for path, entry in items if not entry.is_folder]
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path, _ in files]
    expand = call.request.query_params.getlist("expand")
    if "usedStorage" in expand:
        blobs = call.hub.git.blobs(repo.id, (entry.oid for _, entry in files))
        described["usedStorage"] = sum(blobs[entry.oid].size for _, entry in files)
    if call.flag("blobs"):
        for sibling, item in zip(siblings, call.hub.listing.describe(repo, commit, files), strict=True):
            sibling.update(size=item["size"], blobId=item["oid"])
            if "lfs" in item:
                lfs = item["lfs"]
                sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    described["siblings"] = siblings
    card = call.hub.git.entry(repo.id, commit, cards.CARD)
    if card is not None and not card.is_folder:
        try:
            described["cardData"] = cards.card_data(call.hub.git.blob(repo.id, card.oid).decode("utf-8", "replace"))
        except ValueError:
            described["cardData"] = None  # a card from before the check, or an LFS pointer: the repo is still there
    if expand:
        described = {name: described[name] for name in ("_id", "id", *expand) if name in described}
    return JSONResponse(described)


def _summary(call: Call, repo: Repo, revision: str) -> dict[str, Any]:
    head = call.hub.git.commit(repo.id, call.hub.git.resolve(repo.id, revision))
    summary = {
        "_id": str(repo.id), "id": repo.full_name, "author": repo.namespace, "sha": head.oid,
        "lastModified": iso(head.date), "createdAt": iso(repo.created), "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False, "tags": [], "downloads": 0, "likes": 0,
    }  # fmt: skip
    if repo.type == "model":
        summary["modelId"] = repo.full_name
    return summary


def _repo_type(body: dict[str, Any]) -> RepoType:
    repo_type = body.get("type") or "model"
    if repo_type not in REPO_TYPES.values():
        raise bad_request(f"Invalid repo type: {repo_type!r}")
    return next(known for known in REPO_TYPES.values() if known == repo_type)


def _named(call: Call, namespace: str, name: str) -> Repo:
    repo = call.hub.repos.find(call.identity, _repo_type(call.body), namespace, name)
    call.hub.accounts.require_write(call.identity, repo.namespace)
    return repo
