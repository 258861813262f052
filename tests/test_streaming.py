"""Who streams one config over HTTP fetches its images and little else: bytes as the local Hub counts them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from tasks.card import card
from tasks.disk.staging import Staging
from tasks.stage import stage
from tasks.values.models import Dataset, PublicationRecord
from tests.counted_hub import CountedHub
from tests.images import image_of, nifti1, spec_of
from tests.local_hub.running import client_environment

REPO = "lab/streamed"
#: Sizes of two sessions of ds004884, in bytes.
SESSIONS = {
    "sub-M2119": {"anat/T1w": 4333654, "anat/T2w": 4086956, "func/bold": 10098339, "dwi/dwi": 20784090},
    "sub-M2075": {"anat/T1w": 3890658, "anat/T2w": 4091338, "func/bold": 10430062, "dwi/dwi": 18839261},
}
ALL_OF_IT = """
paths = [row["path"] for row in images]
assert len(paths) == 2 and all(path.endswith("T1w.nii") for path in paths), paths
"""


def noise(size: int) -> bytes:
    """A .nii of `size` bytes that no transport can shorten."""
    header = bytearray(nifti1((1, 1, 1))[:352])
    header[40:56] = b"".join(n.to_bytes(2, "little") for n in (3, 1000, 1000, size // 1_000_000, 1, 1, 1, 1))
    header[70:74] = b"\2\0\10\0"
    return bytes(header) + os.urandom(size - 352)


@pytest.fixture(scope="module")
def card_of_published(server: CountedHub, token: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The card of a repo on the Hub that counts, with the sessions in it."""
    root = tmp_path_factory.mktemp("streamed")
    staging, images, record = Staging(root / "staging"), [], PublicationRecord()
    api = HfApi(server.endpoint, token=token)
    api.create_repo(REPO, repo_type="dataset")
    for sub, sizes in SESSIONS.items():
        own = [
            image_of(root, f"{sub}/{datatype}/{sub}_{suffix}.nii", noise(size))
            for (datatype, suffix), size in ((name.split("/"), size) for name, size in sizes.items())
        ]
        receipt = stage(spec_of(*own, name=sub), root, staging)
        file = staging.folder / receipt.file
        api.upload_file(path_or_fileobj=file, path_in_repo=receipt.path, repo_id=REPO, repo_type="dataset")
        record = record.updated([receipt.line()])
        images += own
    text = card(Dataset(str(root), "streamed", {}, tuple(images)), REPO, record, None)
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=REPO, repo_type="dataset")
    return text


def test_the_cards_first_lines_fetch_less_than_twice_the_bytes_of_the_images_they_name(
    server: CountedHub, token: str, card_of_published: str, tmp_path: Path
) -> None:
    before = len(server.asked())
    found = re.search(r"```python\n(.*?)```", card_of_published, re.DOTALL)
    assert found is not None
    block = found[1]
    assert '"anat_T1w"' in block and "streaming=True" in block
    environment = client_environment(server, tmp_path / "home", token, xet=False)
    lines = block.split("row = ")[0] + ALL_OF_IT  # once through, and no first row before it
    done = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = sum(sizes["anat/T1w"] for sizes in SESSIONS.values())
    assert wanted < sum(one.sent for one in server.asked(before)) < 2 * wanted
