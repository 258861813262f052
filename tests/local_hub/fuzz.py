"""A fuzz of every route of the local Hub: requests that nobody would send, over real connections.

`python -m tests.local_hub.fuzz --requests 100000 [--seed 1]`. Each request is drawn from the table of routes by its
number, so that one is sent again by `--only NUMBER`: parts of its path, its query, headers and body are those of a
client, of another repo, or nobody's. It exits 1 if the Hub answers a request with a failure of its own (500), takes
over two seconds for one, or does not answer at all.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import json
import random
import re
import string
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from huggingface_hub import HfApi

from deployments.local_hub.routes import TABLE
from tests.local_hub.running import RunningHub

SLOW = 2.0  # seconds
WELL = {
    200,
    201,
    204,
    206,
    301,
    302,
    303,
    307,
    400,
    401,
    403,
    404,
    405,
    409,
    411,
    412,
    413,
    414,
    416,
    422,
    429,
    501,
    507,
}
AT_A_TIME = 8
NASTY = (
    "", " ", ".", "..", "...", "%00", "%2e%2e%2f", "%ff%fe", "a" * 300, "🧠", "é", "-", "refs/pr/1", "HEAD",
    "main^{tree}", "null", "0", "-1", "9" * 30, "'; DROP TABLE repo; --", "<script>", "${7*7}",
    "\\", "con", "*", "?", "#", "a/b", "~",
)  # fmt: skip
YAML = (
    "---\nlicense: mit\n---\n", "---\na: &a [*a]\n---\n", "---\n" + "[" * 500, "---\nd: 2024-01-05\nn: .nan\n---\n",
    "---\n? {a: 1}\n: 2\n---\n", "--- !!python/object:os.system\n", "---\n" + "a: &x 1\n" * 50 + "b: *x\n---\n",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What is there, so that not every request ends at the first question."""

    repos: tuple[str, ...]
    tokens: tuple[str, ...]
    commits: tuple[str, ...]
    digests: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def drawn(number: int, seed: int, known: Known) -> Asked:
    """The request of this number."""
    draw = random.Random(f"{seed}-{number}")
    method, route, _, kind = draw.choice(TABLE)
    method = (
        method if draw.random() < 0.9 else draw.choice(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
    )
    namespace, name = draw.choice(known.repos[:2] if draw.random() < 0.9 else known.repos).split("/")

    def part(found: re.Match[str]) -> str:
        wanted, _, choices = found[1].partition("=")
        if draw.random() < 0.12:
            return quote(draw.choice(NASTY), safe="%" if draw.random() < 0.5 else "")
        if choices:
            return "datasets" if "datasets" in choices and draw.random() < 0.7 else draw.choice(choices.split("|"))
        fits = {
            "type": ("datasets",) * 6 + ("models", "spaces", "nothing"),
            "namespace": (namespace,),
            "name": (name,),
            "revision": ("main",) * 6 + (*known.commits, "refs%2Fpr%2F1", "night"),
            "branch": ("main", f"b{draw.randrange(9)}"),
            "tag": (f"t{draw.randrange(9)}",),
            "path*": known.paths,
            "rest*": known.paths,
            "hash": known.digests,
            "number": ("1", "2"),
            "user": ("alice", "lab"),
        }
        return quote(draw.choice(fits.get(wanted, known.digests)), safe="/%")

    path = re.sub(r"\{(.*?)\}", part, route)
    if draw.random() < 0.3:
        keys = "recursive", "expand", "cursor", "limit", "create_pr", "service", "search", "full", "expand[]", "q"
        pairs = (
            f"{draw.choice(keys)}={quote(draw.choice((*NASTY, 'true', '1', '5', 'git-upload-pack')))}" for _ in "ab"
        )
        path += "?" + "&".join(pairs)
    headers = {}
    if draw.random() < 0.9:
        kind_of_token = draw.choice(("Bearer",) * 8 + ("Basic", "bearer", "Digest"))
        token = known.tokens[0] if draw.random() < 0.7 else draw.choice((*known.tokens, "hf_nobody", "-"))
        token = base64.b64encode(f"anybody:{token}".encode()).decode() if kind_of_token == "Basic" else token
        headers["Authorization"] = f"{kind_of_token} {token}"
    if draw.random() < 0.2:
        headers["Range"] = draw.choice(
            ("bytes=0-9", "bytes=-5", "bytes=9-1", "bytes=0-99999999999", "lines=1", "bytes=1-2,4-5")
        )
    if draw.random() < 0.2:
        headers["Accept"] = draw.choice(("text/html", "application/json", "*/*", "application/vnd.xet-shard+bin"))
    body = b"" if method in ("GET", "HEAD") and draw.random() < 0.9 else _body(draw, kind, path, known, headers)
    return Asked(method, path, headers, body)


def _body(draw: random.Random, kind: str, path: str, known: Known, headers: dict[str, str]) -> bytes:
    headers["Content-Type"] = draw.choice(
        ("application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "text/plain",
         "application/x-git-upload-pack-request", "application/octet-stream")
    )  # fmt: skip
    chance = draw.random()
    if chance < 0.15:
        return draw.randbytes(draw.choice((0, 1, 100, 5000)))
    if "commit/" in path or chance < 0.25:
        lines = [{"key": draw.choice(("header", "file", "lfsFile", "deletedFile", "x")), "value": _value(draw, known)}
                 for _ in range(draw.randrange(1, 5))]  # fmt: skip
        data = b"\n".join(json.dumps(one).encode() for one in lines)
    else:
        data = json.dumps(_fields(draw, known)).encode()
    if chance > 0.97:
        data = data[: draw.randrange(len(data) + 1)]
    if chance > 0.94 and draw.random() < 0.5:
        headers["Content-Encoding"] = "gzip"
        return gzip.compress(data)
    return data


def _fields(draw: random.Random, known: Known) -> dict[str, Any]:
    names = (
        "files", "paths", "objects", "operation", "transfers", "content", "repoType", "name", "type", "organization",
        "private", "visibility", "gated", "fromRepo", "toRepo", "startingPoint", "tag", "message", "title",
        "description", "status", "target", "parts", "expand", "gitIgnore", "overwrite", "deletions", "comment",
    )  # fmt: skip
    return {draw.choice(names): _value(draw, known) for _ in range(draw.randrange(0, 6))}


def _value(draw: random.Random, known: Known, depth: int = 0) -> Any:
    kind = draw.randrange(10 if depth < 4 else 6)
    if kind < 2:
        return draw.choice((*NASTY, *known.paths, *known.repos, *known.digests, *YAML, "upload", "download", "dataset"))
    if kind < 4:
        return draw.choice((0, 1, -1, 2**70, 1.5, 1e308, True, False, None))
    if kind < 6:
        return "".join(draw.choice(string.printable) for _ in range(draw.randrange(40)))
    if kind < 8:
        return [_value(draw, known, depth + 1) for _ in range(draw.randrange(4))]
    keys = "path", "oid", "size", "sample", "sha256", "content", "encoding", "algo", "summary", "parentCommit", "etag"
    return {draw.choice(keys): _value(draw, known, depth + 1) for _ in range(draw.randrange(5))}


@dataclass
class Outcome:
    """What became of the requests."""

    statuses: Counter[int]
    bad: list[str]
    slowest: float = 0.0


async def send_all(endpoint: str, numbers: range, seed: int, known: Known) -> Outcome:
    """Send requests, some at a time, each over a real connection."""
    outcome, todo = Outcome(Counter(), []), iter(numbers)

    async def worker() -> None:
        async with httpx2.AsyncClient(timeout=30, follow_redirects=False) as client:
            for number in todo:
                asked = drawn(number, seed, known)
                began = time.monotonic()
                try:
                    url = httpx2.URL(endpoint).copy_with(raw_path=asked.path.encode("ascii", "ignore"))
                    request = client.build_request(asked.method, url, headers=asked.headers, content=asked.body)
                    answer = await client.send(request)
                except (httpx2.InvalidURL, httpx2.LocalProtocolError, ValueError):
                    continue  # a request that no client can send
                except httpx2.HTTPError as error:
                    outcome.bad.append(f"{number} {asked.method} {asked.path[:120]}: {type(error).__name__}: {error}")
                    continue
                spent = time.monotonic() - began
                outcome.statuses[answer.status_code] += 1
                outcome.slowest = max(outcome.slowest, spent)
                if answer.status_code not in WELL or spent > SLOW:
                    what = f"{answer.status_code} after {spent:.1f} s: {answer.text[:200]}"
                    outcome.bad.append(f"{number} {asked.method} {asked.path[:120]}: {what}")

    await asyncio.gather(*(worker() for _ in range(AT_A_TIME)))
    return outcome


def prepared(hub: RunningHub) -> Known:
    """Repos, private and public, with files small and large, a tag, and a pull request."""
    tokens = (hub.token("alice", "write", "--org", "lab"), hub.token("bob", "read"), hub.token("carol", "write"))
    api = HfApi(hub.endpoint, token=tokens[0])
    commits, paths = [], ["README.md", "data/a.parquet", "data", "text.txt"]
    for name, private in (("alice/open", False), ("alice/closed", True)):
        api.create_repo(name, repo_type="dataset", private=private)
        for path, data in (("README.md", YAML[0].encode()), ("data/a.parquet", b"x" * 30_000), ("text.txt", b"t")):
            made = api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=name, repo_type="dataset")
            commits.append(made.oid)
        api.create_discussion(name, "A question", repo_type="dataset")
    files = api.list_repo_tree("alice/open", repo_type="dataset", recursive=True)
    digests = [one.lfs.sha256 for one in files if getattr(one, "lfs", None)]
    return Known(
        ("alice/open", "alice/closed", "lab/none"),
        tokens,
        (*commits, commits[0][:7]),
        (*digests, "0" * 64),
        tuple(paths),
    )


def main() -> int:
    """Fuzz, and say what came of it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.local_hub.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the request of this number alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, RunningHub(Path(folder) / "hub") as hub:
        known = prepared(hub)
        numbers = range(options.requests) if options.only is None else range(options.only, options.only + 1)
        if options.only is not None:
            print(drawn(options.only, options.seed, known))
        began = time.monotonic()
        outcome = asyncio.run(send_all(hub.endpoint, numbers, options.seed, known))
        spent = time.monotonic() - began
        if options.only is not None:
            print(hub.log[-4000:])
    print(f"hub_fuzz_requests {sum(outcome.statuses.values())} requests")
    print(f"hub_fuzz_requests_per_s {sum(outcome.statuses.values()) / spent:.0f}")
    print(f"hub_fuzz_slowest {outcome.slowest:.2f} s")
    print(f"hub_fuzz_bad {len(outcome.bad)} requests")
    print("statuses", dict(sorted(outcome.statuses.items())))
    print("\n".join(outcome.bad[:50]), file=sys.stderr)
    return 1 if outcome.bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
