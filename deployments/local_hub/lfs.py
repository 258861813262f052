"""git-LFS: the batch route, and content sent whole or in parts (git-lfs, docs/api/batch.md, and the Hub's multipart).

The client sends content to URLs without its token, so each URL carries what it permits, signed (`signing`).
"""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.local_hub.call import REPO_TYPES, Call, text_of
from deployments.local_hub.errors import HubError, bad_request, entry_not_found, forbidden
from deployments.local_hub.listing import iso
from deployments.local_hub.multipart import PART_SIZE
from deployments.local_hub.promises import promise_content
from deployments.local_hub.receive import Received, receive
from deployments.local_hub.repos import Repo
from deployments.local_hub.resolve import send_content
from deployments.local_hub.steps import SHA256

URL_LIFETIME = 24 * 3600.0  # seconds; one file of 500 GB at 10 MB/s takes 14 hours
BATCH_LIMIT = 1000  # objects one batch may ask about; the client sends 256
SIZE_LIMIT = 500 * 10**9  # bytes of one file (Hub documentation, "Repository limitations and recommendations")
PARTS_LIMIT = 4000  # addresses of parts in one answer, about 400 bytes each: parts are larger where files are
LFS_JSON = "application/vnd.git-lfs+json"


def batch(call: Call) -> Response:
    """POST /{repo}.git/info/lfs/objects/batch: where to send each object; nothing for those the repo holds."""
    operation = call.body.get("operation", "upload")
    if operation not in ("upload", "download"):
        raise bad_request(f"Unknown operation: {operation!r}")
    repo = call.repo(write=operation == "upload")
    objects = call.body.get("objects")
    if not isinstance(objects, list) or len(objects) > BATCH_LIMIT:
        raise bad_request(f"'objects' must be a list of at most {BATCH_LIMIT}")
    transfers = call.body.get("transfers") or ["basic"]
    wanted = [_object(each) for each in objects]
    part_size = max(PART_SIZE, -(-sum(size for _, size in wanted if size <= SIZE_LIMIT) // PARTS_LIMIT))
    answers = []
    for oid, size in wanted:
        answer: dict[str, Any] = {"oid": oid, "size": size}
        held = call.hub.stored(repo.id, oid)
        if operation == "download":
            answer |= _download(call, repo, oid, size, held)
        elif size > SIZE_LIMIT:
            answer["error"] = {"code": 422, "message": f"A file has at most {SIZE_LIMIT} bytes"}
        elif held is not None and held != size:
            answer["error"] = {"code": 422, "message": f"The object has {held} bytes, not {size}"}
        elif held is None:
            answer["actions"] = {
                "upload": _upload_action(call, repo, oid, size, part_size if "multipart" in transfers else None),
                "verify": {"href": f"{call.endpoint}/api/{repo.type}s/{repo.full_name}/lfs-verify"},
            }
        answers.append(answer)
    uploads = operation == "upload"
    here = [answer["oid"] for answer in answers if uploads and "actions" not in answer and "error" not in answer]
    promise_content(call.hub.database, repo.id, here)
    transfer = "multipart" if any(_in_parts(answer) for answer in answers) else "basic"
    return JSONResponse({"transfer": transfer, "objects": answers, "hash_algo": "sha256"}, media_type=LFS_JSON)


def _download(call: Call, repo: Repo, oid: str, size: int, held: int | None) -> dict[str, Any]:
    """Where an object can be had, if a commit of the repo names it; those who may write see what none names yet."""
    if held != size or not (call.hub.git.names(repo.id, oid) or call.may_write(repo)):
        return {"error": {"code": 404, "message": "The repo has no such object"}}
    signed = call.sign("lfs-get", URL_LIFETIME, repo, oid=oid, size=size)
    return {"actions": {"download": {"href": f"{call.endpoint}/lfs/{signed}"}}}


async def get(call: Call) -> Response:
    """GET of one object's bytes, whole or a range, at the address that `batch` gave."""
    claims = call.hub.signer.check("lfs-get", call.params["signed"])
    if claims is None:
        raise forbidden("This download URL is not valid, or not any more")
    repo = call.signed(claims)
    return await send_content(call, repo, claims["oid"], claims["size"], {"Content-Type": "application/octet-stream"})


def _in_parts(answer: dict[str, Any]) -> bool:
    return "chunk_size" in answer.get("actions", {}).get("upload", {}).get("header", {})


def _object(wanted: object) -> tuple[str, int]:
    if isinstance(wanted, dict):
        oid, size = wanted.get("oid"), wanted.get("size")
        if isinstance(oid, str) and SHA256.fullmatch(oid) and isinstance(size, int) and size >= 0:
            return oid, size
    raise bad_request("Each object needs an oid (sha256) and a size in bytes")


def _upload_action(call: Call, repo: Repo, oid: str, size: int, part_size: int | None) -> dict[str, Any]:
    if part_size is None or size <= call.hub.multipart_above:
        signed = call.sign("lfs", URL_LIFETIME, repo, oid=oid, size=size)
        return {"href": f"{call.endpoint}/lfs/{signed}"}
    upload = call.hub.multiparts.begin(repo.id, oid, size, part_size)
    header = {"chunk_size": str(upload.part_size)}
    for number in range(1, upload.parts + 1):
        signed = call.sign("lfs-part", URL_LIFETIME, repo, upload=upload.id, part=number)
        header[str(number)] = f"{call.endpoint}/lfs-part/{signed}"
    signed = call.sign("lfs-complete", URL_LIFETIME, repo, upload=upload.id)
    return {"href": f"{call.endpoint}/lfs-complete/{signed}", "header": header}


def _claims(call: Call, purpose: str) -> dict[str, Any]:
    claims = call.hub.signer.check(purpose, call.params["signed"])
    if claims is None:
        raise forbidden("This upload URL is not valid, or not any more")
    try:
        call.signed(claims, write=True)
    except HubError as error:
        raise error if error.code else forbidden(f"This upload URL is not valid any more: {error.message}") from None
    return claims


def _keep(call: Call, purpose: str, received: Received) -> None:
    try:
        claims = _claims(call, purpose)  # once more: the body may have taken hours
        call.hub.content.place(received)
    finally:
        received.discard()
    with call.hub.database.write() as connection:
        call.hub.holdings.add(connection, claims["repo"], received.sha256, received.size)


async def put(call: Call) -> Response:
    """PUT of one object's bytes."""
    claims = _claims(call, "lfs")
    received = await receive(
        call.request.stream(), call.hub.incoming, call.hub.workers,
        limit=SIZE_LIMIT, size=claims["size"], sha256=claims["oid"],
    )  # fmt: skip
    await call.work(_keep, call, "lfs", received)
    return Response(headers={"ETag": f'"{received.sha256}"'})


async def put_part(call: Call) -> Response:
    """PUT of one part's bytes; the ETag of the answer goes into `complete`."""
    claims = _claims(call, "lfs-part")
    upload = call.hub.multiparts.get(claims["upload"], claims["repo"])
    received = await receive(
        call.request.stream(), call.hub.incoming, call.hub.workers,
        limit=upload.part_size, size=upload.part_bytes(claims["part"]), durable=False,
    )  # fmt: skip
    etag = await call.work(call.hub.multiparts.put, upload, claims["part"], received)
    return Response(headers={"ETag": etag})


def complete(call: Call) -> Response:
    """POST when all parts were sent: the whole is hashed, and kept if it is what was announced."""
    claims = _claims(call, "lfs-complete")
    upload = call.hub.multiparts.get(claims["upload"], claims["repo"])
    parts = call.body.get("parts")
    try:
        etags = {int(part["partNumber"]): str(part["etag"]) for part in parts or ()}
    except (TypeError, KeyError, ValueError):
        raise bad_request("'parts' must be a list of partNumber and etag") from None
    _keep(call, "lfs-complete", call.hub.multiparts.complete(upload, etags))
    return JSONResponse({"oid": upload.sha256})


def verify(call: Call) -> Response:
    """POST after an upload: whether the object is here with that size."""
    repo = call.repo(write=True)
    oid, size = _object(call.body)
    if call.hub.holdings.size(repo.id, oid) != size:
        raise entry_not_found(oid)
    promise_content(call.hub.database, repo.id, [oid])
    return JSONResponse({"oid": oid, "size": size}, media_type=LFS_JSON)


def duplicate(call: Call) -> Response:
    """POST .../lfs-files/duplicate: let another repo hold content of this one, for copies between repos."""
    source = call.repo()
    target = call.body.get("target")
    files = call.body.get("files")
    if not isinstance(target, dict) or not isinstance(files, list) or len(files) > BATCH_LIMIT:
        raise bad_request(f"A copy needs a target and at most {BATCH_LIMIT} files")
    kinds = [kind for kind in REPO_TYPES.values() if kind == target.get("type")]
    namespace, _, name = text_of(target, "name").partition("/")
    if not kinds:
        raise bad_request("Invalid repo type")
    into = call.hub.repos.find(call.identity, kinds[0], namespace, name)
    call.hub.accounts.require_write(call.identity, into.namespace)
    failed = []
    drafts = call.may_write(source)
    with call.hub.database.write() as connection:
        for file in files:
            sha256 = file.get("sha256") if isinstance(file, dict) else None
            if (
                isinstance(sha256, str)
                and (drafts or call.hub.git.names(source.id, sha256))
                and call.hub.holdings.copy(connection, source.id, into.id, sha256)
            ):
                call.hub.xet.copy(connection, source.id, into.id, sha256)
            else:
                failed.append({"sha256": sha256, "error": "not found"})
    return JSONResponse({"failed": failed})


def delete(call: Call) -> Response:
    """POST .../lfs-files/batch: no commit names the content any more, and nobody gets it; its bytes go with `gc`."""
    repo = call.repo(write=True)
    wanted = call.body.get("deletions")
    digests = wanted.get("sha") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or not isinstance(digests, list) or len(digests) > BATCH_LIMIT:
        raise bad_request(f"'deletions' must have the 'sha' of at most {BATCH_LIMIT} files")
    if not all(isinstance(sha256, str) and SHA256.fullmatch(sha256) for sha256 in digests):
        raise bad_request("A file is named by its sha256")
    if wanted.get("rewriteHistory", True) is not True:
        raise HubError(
            501,
            "This Hub deletes a file together with the history that names it (rewrite_history=True): otherwise commits"
            " would name content that nobody can have.",
        )
    moved = call.hub.rewriter.delete(repo, set(digests))
    return JSONResponse({"deleted": len(set(digests)), "refs": list(moved)})


def listed(call: Call) -> Response:
    """GET .../lfs-files: the LFS files of the repo and of its history, with when their content was pushed.

    Those at the heads of the branches come first, main's before others. A file that more than one branch has is listed
    once, as the Hub lists each content under the ref that it came by; what only older commits have, by its last path.
    """
    repo = call.repo()
    pushed = call.hub.holdings.pushed(repo.id)
    xet = call.hub.holdings.xet_hashes(repo.id, pushed)
    files: dict[tuple[str, str], dict[str, Any]] = {}
    for ref, path, oid, size in call.hub.listing.lfs_files(repo, call.hub.holdings.deleted(repo.id)):
        line = {
            "fileOid": oid, "oid": oid, "filename": path, "size": size, "ref": ref, "xetHash": xet.get(oid),
            "pushedAt": iso(pushed.get(oid, repo.created)),
        }  # fmt: skip
        files.setdefault((path, oid), line)
    return JSONResponse(list(files.values()))
