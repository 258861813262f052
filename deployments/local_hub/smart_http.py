"""Git's smart HTTP protocol, for reading: `git clone`, `git fetch` and `git pull`, and so git-annex and DataLad.

What git gets is history, small files, and LFS pointers in place of large ones; git-lfs asks for their content by the
batch route. Nothing can be pushed this way: `git push` is refused, and says how content gets here.

Packs are made by dulwich, from the objects in the Hub's database. A request is read within limits and answered on
threads of its own. A pack is spooled to disk before it is sent, so a slow reader holds neither thread nor database.
"""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO, Any, cast

from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import BaseObjectStore
from dulwich.objects import ObjectID, RawObjectID
from dulwich.protocol import CAPABILITY_FILTER, CAPABILITY_SHALLOW, ReceivableProtocol
from dulwich.refs import DictRefsContainer, Ref
from dulwich.repo import BaseRepo
from dulwich.server import BackendRepo, DictBackend, UploadPackHandler
from starlette.responses import Response, StreamingResponse

from deployments.local_hub.call import Call
from deployments.local_hub.errors import HubError, bad_request, forbidden, too_large
from deployments.local_hub.git import Git
from deployments.local_hub.repos import Repo

UPLOAD_PACK = "git-upload-pack"
REQUEST_LIMIT = 4 * 1024 * 1024  # bytes of what a client wants and has; a hundred thousand commits
PACK_SECONDS = 300.0  # for a pack to be made; the pointers and texts of 100,000 shards take less
BLOCK = 256 * 1024  # bytes
AT = "the repo"  # what dulwich is asked for: there is one
SIGN_IN = {"WWW-Authenticate": 'Basic realm="a token of this Hub as the password", charset="UTF-8"'}
NO_STORE = {"Cache-Control": "no-cache, max-age=0, must-revalidate"}


class Objects(BaseObjectStore):
    """The git objects of one repo, as dulwich asks for them. None can be added."""

    def __init__(self, git: Git, repo: int):
        super().__init__()
        self._git, self._repo = git, repo

    def contains_loose(self, sha: ObjectID) -> bool:
        """Whether the object is here."""
        return self._git.read(self._repo, _hex(sha)) is not None

    def get_raw(self, name: RawObjectID | ObjectID) -> tuple[int, bytes]:
        """An object's type and bytes; KeyError if it is not here."""
        found = self._git.read(self._repo, _hex(name))
        if found is None:
            raise KeyError(name)
        return found

    @property
    def packs(self) -> list[Any]:
        """None: each object is kept by itself."""
        return []

    def __iter__(self) -> Iterator[ObjectID]:
        return (ObjectID(oid.encode()) for oid, _ in self._git.objects(self._repo))


class Reader(UploadPackHandler):
    """dulwich's side of a fetch, without what it does not do to the end.

    It reads no fetch into a shallow clone, and walks a whole tree for a partial one. git then says that the server
    does not support it. A whole history has pointers in place of large files, so it is small.
    """

    def capabilities(self) -> list[bytes]:
        """What git may ask for."""
        return [one for one in super().capabilities() if one not in (CAPABILITY_SHALLOW, CAPABILITY_FILTER)]


def _hex(name: bytes) -> str:
    return name.hex() if len(name) == 20 else name.decode("ascii")


def info_refs(call: Call) -> Response:
    """GET .../info/refs?service=git-upload-pack: the branches and tags, as git asks first."""
    service = call.query.get("service")
    repo = _repo(call)
    if service != UPLOAD_PACK:
        raise forbidden("Nothing can be pushed here with git: use `hf upload`, or huggingface_hub.")
    answer = io.BytesIO()
    handler = _handler(call, repo, io.BytesIO(), answer, advertise=True)
    handler.proto.write_pkt_line(b"# service=git-upload-pack\n")
    handler.proto.write_pkt_line(None)
    handler.handle()
    return Response(answer.getvalue(), media_type=f"application/x-{UPLOAD_PACK}-advertisement", headers=NO_STORE)


async def upload_pack(call: Call) -> Response:
    """POST .../git-upload-pack: a pack with what the client wants and has not."""
    if call.request.headers.get("content-type") != f"application/x-{UPLOAD_PACK}-request":
        raise bad_request(f"The body must be of the type application/x-{UPLOAD_PACK}-request")
    repo = await call.work(_repo, call)
    asked = await _body(call)
    pack, size = await call.work(_pack, call, repo, asked, pool=call.hub.packs)
    headers = {**NO_STORE, "Content-Length": str(size)}
    return StreamingResponse(
        call.blocks(_read(pack)), media_type=f"application/x-{UPLOAD_PACK}-result", headers=headers
    )


def _repo(call: Call) -> Repo:
    """The repo; 401 if an anonymous caller may not see it, or there is none, so that git asks for a token."""
    try:
        return call.repo()
    except HubError as error:
        if error.status in (401, 404) and call.identity.name is None:
            raise HubError(401, error.message, error.code, SIGN_IN) from None
        raise


async def _body(call: Call) -> bytes:
    """What the client sends, unzipped where it is zipped; 413 if it is more than anybody has to say."""
    zipped = call.request.headers.get("content-encoding", "") in ("gzip", "x-gzip")
    unzip = zlib.decompressobj(31) if zipped else None
    data = bytearray()
    try:
        async for piece in call.request.stream():
            data += unzip.decompress(piece, REQUEST_LIMIT + 1) if unzip else piece
            if len(data) > REQUEST_LIMIT or (unzip and unzip.unconsumed_tail):
                raise too_large(REQUEST_LIMIT)
    except zlib.error:
        raise bad_request("The body is not gzip") from None
    return bytes(data)


def _pack(call: Call, repo: Repo, asked: bytes) -> tuple[IO[bytes], int]:
    """The answer, in a file without a name, and its size in bytes."""
    spool = TemporaryFile(dir=call.hub.incoming)  # noqa: SIM115 - the answer closes it
    try:
        _handler(call, repo, io.BytesIO(asked), spool).handle()
        size = spool.tell()
        spool.seek(0)
        return spool, size
    except (GitProtocolError, HangupException, NotGitRepository, ValueError, KeyError, AssertionError) as error:
        spool.close()
        raise bad_request(f"This is not what git asks for ({type(error).__name__})") from None
    except BaseException:
        spool.close()
        raise


def _handler(call: Call, repo: Repo, asked: io.BytesIO, answer: IO[bytes], *, advertise: bool = False) -> Reader:
    """What reads a request and writes its answer, within `PACK_SECONDS`."""
    ends = time.monotonic() + PACK_SECONDS

    def write(data: bytes) -> int:
        if time.monotonic() > ends:
            raise HubError(413, "This history is too long to be cloned: `export` on the Hub's machine writes it out.")
        return answer.write(data)

    refs = {Ref(name.encode()): ObjectID(oid.encode()) for name, oid in call.hub.git.refs(repo.id).items()}
    refs = {name: oid for name, oid in refs.items() if not name.startswith(b"refs/pr/")}
    container = DictRefsContainer(dict(refs))
    if Ref(b"refs/heads/main") in refs:
        container.set_symbolic_ref(Ref(b"HEAD"), Ref(b"refs/heads/main"))
    opened = BaseRepo(cast(Any, Objects(call.hub.git, repo.id)), container)
    backend = DictBackend({AT: cast(BackendRepo, opened)})
    protocol = ReceivableProtocol(asked.read, write)
    return Reader(backend, [AT], protocol, stateless_rpc=True, advertise_refs=advertise)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK):
            yield block
