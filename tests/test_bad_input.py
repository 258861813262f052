"""What a hurried person types: paths, settings, tokens. Each works, or ends in a named state that says what to do."""

import errno
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from huggingface_hub import constants
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import State

from deployments.local_stack import REPO, Stack
from flows.cleanup_staging import cleanup_staging
from flows.connect import source_of
from flows.push_bids import push_bids
from tasks.disk.content_cache import FILE as CACHE
from tasks.disk.content_cache import ContentCache
from tasks.disk.paths import as_typed
from tasks.disk.staging import CannotWrite, Staging
from tasks.hub.client import Hub
from tasks.values.errors import BadInput
from tests.conftest import SESSIONS
from tests.figures import figures

ODD = "my data (1) [x] #1 50%?\n\"ü\" {y} & 'z'"
NOT_UTF8 = os.fsdecode(b"caf\xe9 \xff")
NOBODY = 65534
pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")


def push(source: Path | str, repo_id: str, root: Path | str = "", **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, repo_id, staging_root=root, return_state=True, **given)


def said(state: State[Any], name: str) -> str:
    """The sentence in which a run has ended, in a state of this name."""
    assert (state.type.value, state.name) == ("FAILED", name), state.message
    assert "Traceback" not in (state.message or "")
    return state.message or ""


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read and write everything, so what it may not is tried as a user who has no rights."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


# The dataset's folder.


def test_a_tilde_is_the_home_of_the_worker_in_every_path(
    bids: Path, tmp_path: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "dataset").symlink_to(bids)
    assert push("~/dataset", repo_id, "~/from the form").name == "Staged"
    assert list((tmp_path / "from the form").glob("*/shards/*/*.parquet"))
    monkeypatch.setenv("BIDS_PUSH_STAGING_ROOT", "~/from the environment")
    assert push("~/dataset", f"{repo_id}-2").name == "Staged"
    assert list((tmp_path / "from the environment").glob("*/shards/*/*.parquet"))


def test_a_folder_with_odd_characters_in_its_name_is_published(bids: Path, tmp_path: Path, target: Hub) -> None:
    source = tmp_path / ODD
    source.symlink_to(bids)
    assert push(source, target.target.repo_id, tmp_path / "staging" / ODD).name == "Staged"
    assert push(source, target.target.repo_id, tmp_path / "staging" / ODD).name == "NothingToPublish"


def test_a_link_with_a_plain_name_publishes_what_is_not_utf8(bids: Path, tmp_path: Path, target: Hub) -> None:
    real = tmp_path / NOT_UTF8 / "dataset"
    shutil.copytree(bids, real)
    (tmp_path / "plain").symlink_to(real)
    (tmp_path / NOT_UTF8 / "staging").mkdir()
    (tmp_path / "staging").symlink_to(tmp_path / NOT_UTF8 / "staging")
    first = push(tmp_path / "plain", target.target.repo_id, tmp_path / "staging")
    assert first.name == "Staged", first.message
    image = sorted(real.rglob("*_T1w.nii.gz"))[0]
    image.write_bytes(image.read_bytes())  # another mtime: only this one is read again
    again = push(tmp_path / "plain", target.target.repo_id, tmp_path / "staging")
    assert again.name == "NothingToPublish"
    assert figures(first)["shards sent"] == SESSIONS
    known = ContentCache(Staging.of(tmp_path / "staging", target.target).folder / CACHE, tmp_path / "plain")
    assert sum(known.knows(str(path.relative_to(real))) for path in real.rglob("*.nii.gz")) > SESSIONS


def test_a_folder_whose_name_is_not_utf8_ends_with_the_way_out(
    bids: Path, tmp_path: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NOT_UTF8).mkdir()
    (tmp_path / NOT_UTF8 / "dataset").symlink_to(bids)
    monkeypatch.chdir(tmp_path / NOT_UTF8)
    message = said(push("dataset", repo_id, tmp_path / "staging"), "BadInput")
    assert "source: " in message and "Make a symlink to it under a plain name" in message
    assert "staging_root: " in said(push(bids, repo_id, "staging"), "BadInput")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # a socket's path may have 107 bytes
        listener.bind(path.name)


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (lambda path: None, "NotABidsDataset", "does not exist"),
        (lambda path: path.write_text("x"), "NotABidsDataset", "is not a folder"),
        (a_socket, "NotABidsDataset", "is not a folder"),
        (lambda path: path.symlink_to(path), "BadInput", "symbolic links"),
        (lambda path: path.symlink_to("/proc/self/fd"), "NotABidsDataset", "neither a dataset_description.json"),
        (lambda path: path.symlink_to("not mounted"), "NotABidsDataset", "does not exist"),
    ],
    ids=["missing", "file", "socket", "loop", "/proc/self/fd", "dangling"],
)
def test_a_source_that_cannot_be_one_is_named(
    tmp_path: Path, repo_id: str, make: Callable[[Path], None], name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "source")
    message = said(push(tmp_path / "source", repo_id, tmp_path / "staging"), name)
    assert str(tmp_path / "source") in message and says in message


@pytest.mark.parametrize("typed", ["x" * 300, "~no-such-user-here/x"])
def test_a_source_that_is_no_path_is_named(repo_id: str, tmp_path: Path, typed: str) -> None:
    assert f"source: {'' if typed[0] == '~' else str(Path.cwd()) + '/'}{typed[:50]}" in said(
        push(typed, repo_id, tmp_path / "staging"), "BadInput"
    )


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_source_that_the_worker_may_not_read_is_named(tmp_path: Path, mode: int) -> None:
    source = Path(mkdtemp(prefix="bids-push-unreadable-"))  # the tests' own folders are closed to nobody
    source.chmod(0o755)
    (source / "dataset").mkdir()
    (source / "dataset" / "dataset_description.json").write_text("{}")
    (source / "dataset").chmod(mode)
    try:
        with as_nobody(), pytest.raises(BadInput, match=r"source: .*cannot be read \(Permission denied\)"):
            source_of(source / "dataset")
    finally:
        (source / "dataset").chmod(0o755)
        shutil.rmtree(source)


def test_a_path_with_a_nul_or_a_line_break_from_copying(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"source: .*NUL"):
        as_typed("/data/a\0b", "source")
    assert as_typed(f" {tmp_path}\n", "source") == tmp_path


# The staging root.


def a_file(path: Path) -> Path:
    path.write_text("in the way")
    return path


@pytest.mark.parametrize(
    ("root", "name", "says"),
    [
        (lambda folder: Path("/proc/x"), "CannotWrite", "/proc/x"),
        (lambda folder: a_file(folder / "file"), "CannotWrite", "Not a directory"),
        (lambda folder: a_file(folder / "file") / "below", "CannotWrite", "Not a directory"),
        (lambda folder: folder / ("x" * 300), "CannotWrite", "File name too long"),
        (lambda folder: folder / "/".join(["x" * 200] * 25), "CannotWrite", "File name too long"),
        (lambda folder: link(folder / "dangling", "not mounted"), "BadInput", "symlink to not mounted, which"),
        (lambda folder: link(folder / "loop", "loop"), "CannotWrite", "loop"),
        (lambda folder: Path("~no-such-user-here/x"), "BadInput", "staging_root: ~no-such-user-here/x"),
    ],
    ids=["/proc", "a file", "below a file", "a long name", "a long path", "dangling", "loop", "nobody's home"],
)
def test_a_staging_root_that_cannot_be_used_is_named_and_nothing_is_sent(
    bids: Path, tmp_path: Path, target: Hub, root: Callable[[Path], Path], name: str, says: str
) -> None:
    message = said(push(bids, target.target.repo_id, root(tmp_path)), name)
    assert says in message and "staging_root" in message
    assert not target.exists()


def link(path: Path, to: str) -> Path:
    path.symlink_to(to)
    return path


def test_a_staging_root_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    refused = pytest.raises(CannotWrite, match=r"Permission denied.*BIDS_PUSH_STAGING_ROOT")
    with as_nobody(), refused, Staging(tmp_path / "target").held():
        pass


def test_a_staging_disk_that_is_full_from_the_start_is_named(
    bids: Path, tmp_path: Path, target: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr("tasks.disk.files.os.fsync", full)  # where many a file system says so first
    assert "No space left on device" in said(push(bids, target.target.repo_id, tmp_path), "DiskFull")
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_cache_that_cannot_be_opened_costs_reads_and_nothing_else(bids: Path, tmp_path: Path, target: Hub) -> None:
    (Staging.of(tmp_path, target.target).folder / CACHE).mkdir(parents=True)
    assert push(bids, target.target.repo_id, tmp_path).name == "Staged"
    assert push(bids, target.target.repo_id, tmp_path).name == "NothingToPublish"


# Settings.


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BIDS_PUSH_STAGE_WORKERS", "-3"),
        ("BIDS_PUSH_STAGE_WORKERS", "two"),
        ("BIDS_PUSH_CHECK", "most"),
        ("BIDS_PUSH_GATE_DAYS", "soon"),
        ("BIDS_PUSH_GATE_DAYS", "inf"),
        ("BIDS_PUSH_GATE_DAYS", "nan"),
        ("BIDS_PUSH_MAX_STAGED_BYTES", "4 GB"),
        ("BIDS_PUSH_STAGING_ROOT", "~no-such-user-here/x"),
    ],
)
def test_a_bad_setting_is_named_by_both_flows(
    bids: Path, target: Hub, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    message = said(push(bids, target.target.repo_id), "BadInput")
    assert variable in message and value in message
    state = cleanup_staging(target.target.repo_id, return_state=True)
    assert variable in said(state, "BadInput")
    assert not target.exists()


def test_each_bad_setting_has_a_line(bids: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDS_PUSH_CHECK", "most")
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "1001")
    lines = said(push(bids, repo_id), "BadInput").splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["BIDS_PUSH_CHECK", "BIDS_PUSH_BATCH_SHARDS"]


def test_a_setting_that_is_set_to_nothing_is_not_set(
    bids: Path, tmp_path: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CHECK", "STAGE_WORKERS", "GATE_DAYS", "MAX_STAGED_BYTES", "STAGING_ROOT"):
        monkeypatch.setenv(f"BIDS_PUSH_{name}", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert push(bids, repo_id, dry_run=True).name == "DryRun"
    assert (tmp_path / ".local/share/bids-push/staging").is_dir()


def test_a_bad_setting_is_no_reason_that_a_worker_cannot_import_the_flow() -> None:
    environment = {**os.environ, "BIDS_PUSH_STAGE_WORKERS": "-3"}
    command = [sys.executable, "-c", "import flows.push_bids, flows.cleanup_staging"]
    assert subprocess.run(command, cwd=REPO, env=environment, check=False).returncode == 0


# The Hub's address, and the token.


@pytest.mark.parametrize(
    "address", ["", "nonsense", "huggingface.co", "ftp://hub", "http://", "http://h:port", "http://a b"]
)
def test_an_address_that_is_none_is_named(
    bids: Path, tmp_path: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert f"HF_ENDPOINT: {address!r}" in said(push(bids, repo_id, tmp_path), "BadInput")


# of letters that no random id has
@pytest.mark.parametrize("token", ["hf_ZyXw\ndef", "hf_ZäXw", "hf_ZyXw def", "Bearer hf_ZyXw", "hf_\x00ZyXw"])
def test_a_token_that_cannot_be_one_is_told_and_never_shown(
    bids: Path, tmp_path: Path, repo_id: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any, token: str
) -> None:
    Secret(value=token).save("odd-token", overwrite=True)
    state = push(bids, repo_id, tmp_path, token_block="odd-token")
    assert "token" in said(state, "BadInput") and "HF_TOKEN" in said(state, "BadInput")
    if token.isprintable():  # a NUL cannot be in a variable, and huggingface_hub takes line breaks out of it
        monkeypatch.setenv("HF_TOKEN", token)
        said(push(bids, repo_id, tmp_path), "BadInput")
    shown = f"{state.message}{caplog.text}{capsys.readouterr()}"
    assert "ZyXw" not in shown and "ZäXw" not in shown


def test_a_block_that_holds_no_token_or_is_another_kind_is_named(bids: Path, tmp_path: Path, repo_id: str) -> None:
    Webhook(url="http://127.0.0.1:9").save("a-webhook", overwrite=True)
    Secret(value="").save("empty", overwrite=True)
    Secret(value={"token": "hf_x"}).save("a-table", overwrite=True)
    for block, says in (
        ("a-webhook", "no Secret block named 'a-webhook'"),
        ("nowhere", "no Secret block named 'nowhere'"),
        ("empty", "holds no token"),
        ("a-table", "holds no token"),
    ):
        assert says in said(push(bids, repo_id, tmp_path, token_block=block), "BadInput")


def test_a_token_in_the_place_of_a_blocks_name_is_not_repeated(bids: Path, tmp_path: Path, repo_id: str) -> None:
    message = said(push(bids, repo_id, tmp_path, token_block="hf_AbCdEf"), "BadInput")
    assert "AbCdEf" not in message and "never a token" in message


# The commands.


def command(module: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | environment
    return subprocess.run(
        [sys.executable, "-m", module], cwd=REPO, env=given, capture_output=True, text=True, check=False
    )


@pytest.fixture
def another_server() -> Iterator[str]:
    """The address of a web server that is no Prefect server, and answers everything with a page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "127.0.0.1:4200", "http://127.0.0.1:port/api", "http://127.0.0.1:9/api"]
)
def test_deploying_to_what_is_no_server_is_one_line(url: str) -> None:
    done = command("deployments.deploy", **({"PREFECT_API_URL": url} if url else {}))
    assert done.returncode == 1 and "PREFECT_API_URL" in done.stderr and ":4200/api" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_deploying_to_another_web_server_is_one_line(another_server: str, prefect_server: Stack) -> None:
    for url in (another_server, prefect_server.ui):  # the UI's address, without /api
        done = command("deployments.deploy", PREFECT_API_URL=url)
        assert done.returncode == 1 and f"PREFECT_API_URL: the Prefect server at {url}" in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BIDS_PUSH_STAGING_ROOT", "~no-such-user-here/x"),
        ("BIDS_PUSH_STAGING_ROOT", "/dev/null"),
        ("BIDS_PUSH_STAGE_WORKERS", "-3"),
    ],
)
def test_listing_what_is_staged_with_a_bad_setting_is_one_line(variable: str, value: str) -> None:
    done = command("deployments.staging", **{variable: value})
    assert done.returncode == 1 and value in done.stderr and "Traceback" not in done.stderr


def test_a_worker_with_a_bad_setting_does_not_start(prefect_server: Stack) -> None:
    done = command("deployments.worker", BIDS_PUSH_STAGE_WORKERS="-3", PREFECT_API_URL=f"{prefect_server.ui}/api")
    assert done.returncode == 1 and "BIDS_PUSH_STAGE_WORKERS: '-3'" in done.stderr and "Traceback" not in done.stderr


def test_what_is_staged_is_listed_whatever_the_servers_address_is(
    bids: Path, tmp_path: Path, repo_id: str, another_server: str
) -> None:
    push(bids, repo_id, tmp_path)
    for url in ("nonsense", "http://127.0.0.1:port/api", "http://127.0.0.1:9/api", another_server):
        done = command("deployments.staging", PREFECT_API_URL=url, BIDS_PUSH_STAGING_ROOT=str(tmp_path))
        assert done.returncode == 0 and repo_id in done.stdout, done.stderr
        assert "PREFECT_API_URL" in done.stderr and "Traceback" not in done.stderr
    assert "There is no folder" in command("deployments.staging", BIDS_PUSH_STAGING_ROOT=str(tmp_path / "typo")).stdout
