"""The table of routes: method, path, handler, and what kind of body the handler wants read ("" for none or a stream).

`match` compares the path as it came over the wire, still quoted; a placeholder takes one part, `{path*}` the rest.
"""

from __future__ import annotations

import re

from deployments.local_hub import api_discussions, api_git, api_repos, lfs, pages, resolve, signin, smart_http
from deployments.local_hub.call import Handler
from deployments.local_hub.errors import HubError
from deployments.local_hub.xet import routes as xet

API = "/api/{type}/{namespace}/{name}"
CAS = "/cas/{store}"  # Xet's content-addressed store

TABLE: list[tuple[str, str, Handler, str]] = [
    ("GET", "/", pages.home, ""),
    ("GET", "/login", signin.form, ""),
    ("POST", "/login", signin.sign_in, "form"),
    ("GET", "/logout", signin.sign_out, ""),
    ("GET", "/api/whoami-v2", api_repos.whoami, ""),
    ("GET", "/api/users/{user}/overview", api_repos.account_overview, ""),
    ("GET", "/api/organizations/{user}/overview", api_repos.account_overview, ""),
    ("POST", "/api/validate-yaml", api_repos.validate_yaml, "json"),
    ("POST", "/api/repos/create", api_repos.create, "json"),
    ("DELETE", "/api/repos/delete", api_repos.delete, "json"),
    ("POST", "/api/repos/move", api_repos.move, "json"),
    ("GET", "/api/{type}", api_repos.index, ""),
    ("GET", API, api_repos.info, ""),
    ("GET", API + "/revision/{revision}", api_repos.info, ""),
    ("PUT", API + "/settings", api_repos.settings, "json"),
    ("GET", API + "/auth-check", api_repos.auth_check, ""),
    ("GET", API + "/auth-check/write", api_repos.auth_check_write, ""),
    ("POST", API + "/preupload/{revision}", api_git.preupload, "json"),
    ("POST", API + "/commit/{revision}", api_git.commit, ""),
    ("GET", API + "/commits/{revision}", api_git.commits, ""),
    ("GET", API + "/refs", api_git.refs, ""),
    ("GET", API + "/tree/{revision}", api_git.tree, ""),
    ("GET", API + "/tree/{revision}/{path*}", api_git.tree, ""),
    ("POST", API + "/paths-info/{revision}", api_git.paths_info, "form"),
    ("POST", API + "/branch/{branch}", api_git.create_branch, "json"),
    ("DELETE", API + "/branch/{branch}", api_git.delete_branch, ""),
    ("POST", API + "/tag/{revision}", api_git.create_tag, "json"),
    ("DELETE", API + "/tag/{tag}", api_git.delete_tag, ""),
    ("POST", API + "/super-squash/{branch}", api_git.squash, "json"),
    ("GET", API + "/discussions", api_discussions.index, ""),
    ("POST", API + "/discussions", api_discussions.create, "json"),
    ("GET", API + "/discussions/{number}", api_discussions.details, ""),
    ("POST", API + "/discussions/{number}/comment", api_discussions.comment, "json"),
    ("POST", API + "/discussions/{number}/comment/{event}/edit", api_discussions.edit_comment, "json"),
    ("POST", API + "/discussions/{number}/title", api_discussions.retitle, "json"),
    ("POST", API + "/discussions/{number}/status", api_discussions.change_status, "json"),
    ("POST", API + "/discussions/{number}/merge", api_discussions.merge, "json"),
    ("POST", API + "/lfs-files/duplicate", lfs.duplicate, "json"),
    ("GET", API + "/lfs-files", lfs.listed, ""),
    ("POST", API + "/lfs-files/batch", lfs.delete, "json"),
    ("POST", "/{type=datasets|spaces}/{namespace}/{name}.git/info/lfs/objects/batch", lfs.batch, "json"),
    ("POST", "/{namespace}/{name}.git/info/lfs/objects/batch", lfs.batch, "json"),
    ("POST", API + "/lfs-verify", lfs.verify, "json"),
    ("PUT", "/lfs/{signed}", lfs.put, ""),
    ("GET", "/lfs/{signed}", lfs.get, ""),
    ("PUT", "/lfs-part/{signed}", lfs.put_part, ""),
    ("POST", "/lfs-complete/{signed}", lfs.complete, "json"),
    ("GET", API + "/xet-{scope=read|write}-token/{revision}", xet.token, ""),
    ("GET", API + "/xet-{scope=read|write}-token/{revision}/{rest*}", xet.token, ""),
    ("GET", CAS + "/v1/chunks/{prefix}/{hash}", xet.known_chunks, "xet"),
    ("POST", CAS + "/v1/xorbs/{prefix}/{hash}", xet.put_xorb, "xet"),
    ("GET", CAS + "/v1/xorbs/{prefix}/{hash}", xet.has_xorb, "xet"),
    ("POST", CAS + "/v1/shards", xet.put_shard, "xet"),
    ("POST", CAS + "/v2/shards", xet.put_shard_with_progress, "xet"),
    ("GET", CAS + "/v1/reconstructions", xet.reconstructions, "xet"),
    ("GET", CAS + "/v1/reconstructions/{hash}", xet.reconstruction_v1, "xet"),
    ("GET", CAS + "/v2/reconstructions/{hash}", xet.reconstruction_v2, "xet"),
    ("POST", CAS + "/v1/telemetry", xet.telemetry, "xet"),
    ("GET", CAS + "/xorb/{signed}/{hash}", xet.xorb_bytes, "xet"),
    ("GET", "/{type=datasets|spaces}/{namespace}/{name}/resolve/{revision}/{path*}", resolve.resolve, ""),
    ("GET", "/{namespace}/{name}/resolve/{revision}/{path*}", resolve.resolve, ""),
    # names without a namespace, and whatever else is asked of a repo that is not there
    ("GET", "/{namespace}/resolve/{revision}/{path*}", api_repos.missing, ""),
    ("GET", "/{type=datasets|spaces}/{namespace}/resolve/{revision}/{path*}", api_repos.missing, ""),
    ("GET", "/api/{type}/{rest*}", api_repos.missing, ""),
    ("POST", "/api/{type}/{rest*}", api_repos.missing, ""),
    ("DELETE", "/api/{type}/{rest*}", api_repos.missing, ""),
]  # fmt: skip

for _prefix in ("/{type=datasets|spaces}/{namespace}/{name}", "/{namespace}/{name}"):
    for _git in (_prefix + ".git", _prefix):  # people clone either address, the longer one first
        TABLE += [
            ("GET", _git + "/info/refs", smart_http.info_refs, ""),
            ("POST", _git + "/git-upload-pack", smart_http.upload_pack, ""),
        ]
    TABLE += [
        ("GET", _prefix, pages.repo, ""),
        ("GET", _prefix + "/tree/{revision}", pages.repo, ""),
        ("GET", _prefix + "/tree/{revision}/{path*}", pages.repo, ""),
        ("GET", _prefix + "/blob/{revision}/{path*}", pages.blob, ""),
        ("GET", _prefix + "/commits/{revision}", pages.commits, ""),
        ("GET", _prefix + "/commit/{revision}", pages.commit, ""),
        ("GET", _prefix + "/settings", pages.settings, ""),
        ("GET", _prefix + "/discussions/{number}", pages.discussion, ""),
    ]

#: What reads texts of people nobody knows: these queue for threads of their own, and delay nothing else.
HEAVY: frozenset[Handler] = frozenset(
    {
        api_repos.validate_yaml,
        api_git.preupload,
        pages.repo,
        pages.discussion,
        pages.commits,
        pages.commit,
    }
)

#: What goes through whole histories, which may take minutes: these queue for one thread, and delay each other alone.
LONG: frozenset[Handler] = frozenset({lfs.delete, lfs.listed})

#: What git and git-lfs ask, who send a token as a password.
BY_PASSWORD: frozenset[Handler] = frozenset({smart_http.info_refs, smart_http.upload_pack, lfs.batch})

_SHAPES = {"type": "models|datasets|spaces"}


def _compile(path: str) -> re.Pattern[str]:
    def placeholder(found: re.Match[str]) -> str:
        name, _, choices = found[1].partition("=")
        if name.endswith("*"):
            return f"(?P<{name[:-1]}>.+)"
        return f"(?P<{name}>{choices or _SHAPES.get(name, '[^/]+')})"

    pattern = re.sub(r"\\\{(.*?)\\\}", lambda found: "{" + re.sub(r"\\(.)", r"\1", found[1]) + "}", re.escape(path))
    return re.compile(re.sub(r"\{(.*?)\}", placeholder, pattern))


_COMPILED = [(method, _compile(path), handler, body) for method, path, handler, body in TABLE]


def match(method: str, raw_path: bytes) -> tuple[Handler, str, dict[str, str]]:
    """The handler of a request, the kind of its body, the parts of its path, quoted; 404 or 405 for none."""
    path = raw_path.decode("latin-1")
    wanted = "GET" if method == "HEAD" else method
    other = False
    for allowed, pattern, handler, body in _COMPILED:
        found = pattern.fullmatch(path)
        if found is not None:
            if allowed == wanted:
                return handler, body, found.groupdict()
            other = True
    if other:
        raise HubError(405, f"{method} is not possible here")
    raise HubError(404, "Sorry, we can't find the page you are looking for.")
