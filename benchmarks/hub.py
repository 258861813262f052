"""The local Hub against a plain file server: content up and down over Xet and over LFS, and the same content once more.

Every figure is one run of a fresh client process with a cache of its own: nothing is remembered from one to the next.
The plain server takes PUT and gives GET of files, hashes nothing and promises nothing: it is the floor. A ratio is the
floor's seconds over ours: 1 is as fast as the floor, 0.5 half as fast. Sizes by BENCH_HUB_BYTES (2 GB without it).

    python -m benchmarks.hub
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import create_connection, create_server, socket

from huggingface_hub import HfApi

from tests.local_hub.running import RunningHub, client_environment

TOTAL = int(os.environ.get("BENCH_HUB_BYTES", 2_000_000_000))  # bytes
FILES = 8
BLOCK = 1024 * 1024  # bytes

PLAIN_UP = """
import sys, httpx2
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
def put(path):
    with path.open("rb") as file:
        httpx2.put(f"{sys.argv[1]}/{path.name}", content=file, timeout=None).raise_for_status()
with ThreadPoolExecutor(5) as pool:  # as many as huggingface_hub uses
    list(pool.map(put, sorted(Path(sys.argv[2]).iterdir())))
"""
PLAIN_DOWN = """
import sys, httpx2
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
def get(path):
    with httpx2.stream("GET", f"{sys.argv[1]}/{path.name}", timeout=None) as answer:
        with Path(sys.argv[3], path.name).open("wb") as file:
            for block in answer.iter_bytes(1024 * 1024):
                file.write(block)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(get, sorted(Path(sys.argv[2]).iterdir())))
"""
HUB_UP = """
import sys
from huggingface_hub import HfApi
HfApi().upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2], repo_type="dataset")
"""
HUB_DOWN = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], repo_type="dataset", local_dir=sys.argv[2])
"""


class _PlainFiles(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_PUT(self) -> None:
        with (self.folder / self.path.strip("/")).open("wb") as file:
            if "Content-Length" in self.headers:
                left = int(self.headers["Content-Length"])
                while left:
                    block = self.rfile.read(min(BLOCK, left))
                    file.write(block)
                    left -= len(block)
            else:
                while size := int(self.rfile.readline(), 16):
                    file.write(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        path = self.folder / self.path.strip("/")
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, BLOCK)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def _plain_server(folder: Path) -> Iterator[str]:
    folder.mkdir()
    code = (
        "import sys; from http.server import ThreadingHTTPServer; from pathlib import Path\n"
        "from benchmarks.hub import _PlainFiles\n"
        "_PlainFiles.folder = Path(sys.argv[1])\n"
        "server = ThreadingHTTPServer(('127.0.0.1', 0), _PlainFiles)\n"
        "print(f'http://127.0.0.1:{server.server_port}', flush=True)\n"
        "server.serve_forever()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class _Counter:
    """A relay in front of the Hub that counts the bytes a client sends."""

    def __init__(self, port: int):
        self.sent = 0
        self._target = port
        self._listener = create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._relay, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, False), daemon=True).start()

    def _relay(self, source: socket, target: socket, count: bool) -> None:
        try:
            while block := source.recv(65536):
                self.sent += len(block) if count else 0
                target.sendall(block)
        except OSError:
            pass
        finally:
            target.close()


def _timed(code: str, environment: dict[str, str], *arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _start_up(environment: dict[str, str]) -> float:
    """Seconds a client process takes to be ready, which is no transfer."""
    return _timed("import huggingface_hub, httpx2; huggingface_hub.HfApi()", environment)


def _make(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        with (folder / f"sub-{number:02d}.parquet").open("wb") as file:
            for _ in range(TOTAL // FILES // BLOCK):
                file.write(os.urandom(BLOCK))  # as compressed images are: nothing to compress


def hub_against_plain(folder: Path) -> None:
    """Up and down once by each way, then up again from another machine."""
    source = folder / "source"
    _make(source)
    size = sum(path.stat().st_size for path in source.iterdir())
    with _plain_server(folder / "plain") as address:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        start_up = _start_up(environment)
        (folder / "got").mkdir()
        up = _timed(PLAIN_UP, environment, address, str(source)) - start_up
        down = _timed(PLAIN_DOWN, environment, address, str(source), str(folder / "got")) - start_up
    _figure("plain_upload_speed", size / up / 1e6, "MB/s")
    _figure("plain_download_speed", size / down / 1e6, "MB/s")
    shutil.rmtree(folder / "plain")
    shutil.rmtree(folder / "got")
    with RunningHub(folder / "hub") as hub:
        token = hub.token("bench")
        for transport in ("xet", "lfs"):
            HfApi(hub.endpoint, token=token).create_repo(f"bench/{transport}", repo_type="dataset")
            environment = client_environment(hub, folder / f"home-{transport}", token, xet=transport == "xet")
            hub_up = _timed(HUB_UP, environment, f"bench/{transport}", str(source)) - start_up
            hub_down = _timed(HUB_DOWN, environment, f"bench/{transport}", str(folder / "got")) - start_up
            for path in source.iterdir():
                subprocess.run(["cmp", str(path), str(folder / "got" / path.name)], check=True)
            _figure(f"hub_{transport}_upload_speed", size / hub_up / 1e6, "MB/s")
            _figure(f"hub_{transport}_upload_vs_plain", up / hub_up, "ratio")
            _figure(f"hub_{transport}_download_speed", size / hub_down / 1e6, "MB/s")
            _figure(f"hub_{transport}_download_vs_plain", down / hub_down, "ratio")
            shutil.rmtree(folder / "got")
        counter = _Counter(int(hub.endpoint.rpartition(":")[2]))
        environment = client_environment(hub, folder / "home-second", token, xet=True)
        environment["HF_ENDPOINT"] = counter.endpoint
        HfApi(hub.endpoint, token=token).create_repo("bench/second", repo_type="dataset")
        again = _timed(HUB_UP, environment, "bench/second", str(source)) - start_up
        _figure("hub_second_upload_s", again, "s")
        _figure("hub_second_upload_bytes", counter.sent, "bytes")
        _figure("hub_peak_memory", hub.peak_memory / 1e6, "MB")


def _figure(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.0f} {unit}" if unit in ("bytes", "MB/s") else f"{name} {value:.3f} {unit}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hub_against_plain(Path(folder))


if __name__ == "__main__":
    main()
