"""Who streams one config over HTTP fetches its files and little else: bytes as the local Hub counts them."""

import gzip
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from tasks.card import card
from tasks.disk.staging import Staging
from tasks.load import load
from tasks.plan import plan
from tasks.stage import stage
from tasks.values.models import PublicationRecord
from tests import bids_examples as bids
from tests.counted_hub import CountedHub
from tests.images import nifti1
from tests.local_hub.running import client_environment

REPO = "lab/streamed"
#: Sizes of two sessions of ds004884, in bytes.
SESSIONS = {
    "sub-M2119": {"anat/T1w": 4333654, "anat/T2w": 4086956, "func/bold": 10098339, "dwi/dwi": 20784090},
    "sub-M2075": {"anat/T1w": 3890658, "anat/T2w": 4091338, "func/bold": 10430062, "dwi/dwi": 18839261},
}
#: Of a surface as fMRIPrep writes it, and of a pulse of half an hour, in bytes before it is compressed.
SURFACE, PULSE = 12_000_000, 500_000
#: What is published beside images and recordings.
BESIDE = [
    *(f"{sub}/{name.split('/')[0]}/{sub}_{'task-rest_' if 'bold' in name else ''}{name.split('/')[1]}.json"
      for sub, sizes in SESSIONS.items() for name in sizes),
    *(f"{sub}/func/{sub}_task-rest_events.tsv" for sub in SESSIONS),
    *(f"derivatives/s/{sub}/anat/{sub}_hemi-L_pial.surf.gii" for sub in SESSIONS),
]  # fmt: skip


def noise(size: int) -> bytes:
    """A .nii of `size` bytes that no transport can shorten."""
    header = bytearray(nifti1((1, 1, 1))[:352])
    header[40:56] = b"".join(n.to_bytes(2, "little") for n in (3, 1000, 1000, size // 1_000_000, 1, 1, 1, 1))
    header[70:74] = b"\2\0\10\0"
    return bytes(header) + os.urandom(size - 352)


def study(root: Path) -> Path:
    """Images, and beside each a sidecar; events of 3,000 lines, a pulse, and a surface in a derivative."""
    files: dict[str, bids.Content] = {
        "dataset_description.json": bids.description(),
        "derivatives/s/dataset_description.json": bids.description(DatasetType="derivative"),
    }
    for sub, sizes in SESSIONS.items():
        for name, size in sizes.items():
            folder, suffix = name.split("/")
            image = f"{sub}/{folder}/{sub}{'_task-rest' if suffix == 'bold' else ''}_{suffix}"
            files |= {f"{image}.nii": noise(size), f"{image}.json": {"EchoTime": 0.003, "Notes": "x" * 1500}}
        func = f"{sub}/func/{sub}_task-rest"
        files |= {
            f"{func}_events.tsv": "onset\tduration\n" + "1.000\t2.000\n" * 3000,
            f"{func}_physio.tsv.gz": gzip.compress(os.urandom(PULSE)),
            f"derivatives/s/{sub}/anat/{sub}_hemi-L_pial.surf.gii": os.urandom(SURFACE),
        }
    return bids.write(root, files)


@pytest.fixture(scope="module")
def card_of_published(server: CountedHub, token: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The card of a repo on the Hub that counts, with the sessions in it."""
    folder = tmp_path_factory.mktemp("streamed")
    root = study(folder / "bids")
    staging, record, dataset = Staging(folder / "staging"), PublicationRecord(), load(root)
    api = HfApi(server.endpoint, token=token)
    api.create_repo(REPO, repo_type="dataset")
    for spec in plan(dataset, {}):
        receipt = stage(spec, root, staging)
        file = staging.folder / receipt.file
        api.upload_file(path_or_fileobj=file, path_in_repo=receipt.path, repo_id=REPO, repo_type="dataset")
        record = record.updated([receipt.line()])
    text = card(dataset, REPO, record, None)
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=REPO, repo_type="dataset")
    return text


def blocks_of(text: str) -> list[str]:
    """The blocks of Python on a card."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def code_with(text: str, config: str) -> str:
    """The card's first lines of code that load a config, up to where they load it."""
    block = next(block for block in blocks_of(text) if f'"{config}"' in block)
    return block[: block.index(")\n", block.index("load_dataset(")) + 2]


def fetched_by(server: CountedHub, token: str, home: Path, lines: str) -> tuple[str, int]:
    """What a user's program has printed, and the bytes that the Hub has sent to it. It ends by itself."""
    before = len(server.asked())
    environment = client_environment(server, home, token, xet=False)
    command = [sys.executable, "-c", lines]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    # Arrow's threads may still read as Python ends, which aborts it then: after the program's last line
    aborted = done.returncode == -signal.SIGABRT and done.stderr == "terminate called without an active exception\n"
    assert done.returncode == 0 or aborted, done.stderr[-3000:]
    return done.stdout, sum(one.sent for one in server.asked(before))


def test_the_cards_first_lines_fetch_less_than_twice_the_bytes_of_the_images_they_name(
    server: CountedHub, token: str, card_of_published: str, tmp_path: Path
) -> None:
    code = code_with(card_of_published, "anat_T1w")
    assert "streaming=True" in code
    said, sent = fetched_by(server, token, tmp_path, f"{code}print(*sorted(row['path'] for row in images))")
    wanted = sum(sizes["anat/T1w"] for sizes in SESSIONS.values())
    assert said.split() == [f"{sub}/anat/{sub}_T1w.nii" for sub in sorted(SESSIONS)]
    assert wanted < sent < 2 * wanted


def test_the_cards_lines_for_a_sidecar_fetch_neither_images_nor_surfaces_and_end_well(
    server: CountedHub, token: str, card_of_published: str, tmp_path: Path
) -> None:
    block = next(block for block in blocks_of(card_of_published) if '"files"' in block)
    assert ".json" in block
    said, sent = fetched_by(server, token, tmp_path, block)

    assert '"EchoTime": 0.003' in said
    assert sent < 500_000


def test_all_sidecars_and_tables_are_read_without_the_images_beside_them(
    server: CountedHub, token: str, card_of_published: str, tmp_path: Path
) -> None:
    code = code_with(card_of_published, "files").replace("wanted)", '[("kind", "in", ["sidecar", "table"])])')
    said, sent = fetched_by(server, token, tmp_path, f"{code}print(*sorted(row['path'] for row in files))")

    assert said.split() == sorted(path for path in BESIDE if not path.endswith(".gii"))
    assert sent < 1_000_000


def test_who_reads_recordings_fetches_no_surface_beside_them(
    server: CountedHub, token: str, card_of_published: str, tmp_path: Path
) -> None:
    code = code_with(card_of_published, "func_physio")
    said, sent = fetched_by(server, token, tmp_path, f"{code}print(*sorted(row['path'] for row in files))")

    assert said.split() == [f"{sub}/func/{sub}_task-rest_physio.tsv.gz" for sub in sorted(SESSIONS)]
    assert len(SESSIONS) * PULSE < sent < 2 * len(SESSIONS) * PULSE
