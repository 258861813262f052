"""A dataset that is published and restored is the same tree: `diff -r` finds nothing but what left_out.tsv lists.

The datasets are small, of every kind that BIDS has, and go through plan, stage and commit to a real local Hub and back.
"""

import csv
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deployments.local_stack import REPO
from tasks import plan as plan_module
from tasks.disk.staging import Staging
from tasks.hub import remote_file
from tasks.hub.client import Hub
from tasks.record.remote import read_remote
from tasks.restore import shard as shards_of
from tasks.restore import target_folder
from tasks.restore.target_folder import TEMPORARY
from tasks.values.our_paths import is_hashed
from tests.bids_examples import IMAGE, Content, Image, description, nifti, two_sessions, write
from tests.counted_hub import CountedHub
from tests.recorded_dataset import with_recordings
from tests.way_back import RESTORE, back, files, publish

MANY = 1000  # sidecars of one session: many more than the end of a shard holds


def levels(root: Path) -> Path:
    """Anatomy, function, diffusion and field maps, with sidecars and tables at every level that BIDS allows."""
    more: dict[str, Content] = {
        "dwi.bval": "0 1000\n",
        "sub-01/sub-01_dwi.bvec": "1 0\n0 1\n0 0\n",
        "sub-01/ses-a/sub-01_ses-a_dwi.json": {"EchoTime": 0.1},
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz": Image(shape=(3, 3, 3, 2)),
        "sub-01/sub-01_task-rest_bold.json": {"FlipAngle": 90},
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_events.tsv": [["onset", "duration"], ["1", "2"]],
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_events.json": {"onset": {"Units": "s"}},
        "sub-01/ses-b/fmap/sub-01_ses-b_dir-AP_epi.nii.gz": IMAGE,
        "sub-01/ses-b/fmap/sub-01_ses-b_dir-AP_epi.json": {"IntendedFor": "bids::x"},
        "sub-01/ses-b/sub-01_ses-b_scans.tsv": [["filename"], ["fmap/sub-01_ses-b_dir-AP_epi.nii.gz"]],
    }
    return write(two_sessions(root), more)


def subject(root: Path, files: Mapping[str, Content]) -> Path:
    """A dataset of these files, with what each has at its root."""
    return write(root, {"dataset_description.json": description(), "README.md": "# A dataset\n", **files})


def eeg(root: Path) -> Path:
    """BrainVision, of three files, and iEEG, with tables; one of them is in Latin-1, one has a byte order mark."""
    stem = "sub-01/eeg/sub-01_task-x"
    return subject(root, {
        f"{stem}_eeg.vhdr": b"Brain Vision\r\n\0", f"{stem}_eeg.vmrk": b"Mk1=\r\n", f"{stem}_eeg.eeg": bytes(700),
        f"{stem}_eeg.json": {"TaskName": "x"}, f"{stem}_events.tsv": [["onset"], ["1"]],
        f"{stem}_channels.tsv": "name\tunits\nFz\tµV\n".encode("latin-1"),
        "sub-01/eeg/sub-01_electrodes.tsv": b"\xef\xbb\xbfname\tx\r\nFz\t1\r\n",
        "sub-01/eeg/sub-01_coordsystem.json": {"EEGCoordinateUnits": "mm"},
        "sub-01/ieeg/sub-01_task-x_ieeg.edf": bytes(range(256)), "sub-01/ieeg/sub-01_task-x_ieeg.json": {},
        "sub-01/ieeg/sub-01_photo.jpg": b"\xff\xd8\xff",
    })  # fmt: skip


def meg(root: Path) -> Path:
    """A CTF folder with empty files and a folder within, beside its tables; folders of BTi and KIT; and motion."""
    bare, kit = (f"sub-01/ses-1/meg/sub-01_ses-1_task-{task}_meg" for task in "yz")
    folder = "sub-01/ses-1/meg/sub-01_ses-1_task-x_meg.ds"
    return subject(root, {
        f"{folder}/sub-01_ses-1_task-x_meg.meg4": b"MEG41CP\0" + bytes(900), f"{folder}/BadChannels": b"",
        f"{folder}/hz.ds/hz.res4": b"MEG41RS\0", f"{folder}/x.json": b"{}", f"{folder}/y.tsv": b"",
        folder.replace("_meg.ds", "_channels.tsv"): [["name"], ["MLC11"]],
        folder.replace("_meg.ds", "_meg.json"): {"DewarPosition": "upright"},
        "sub-01/ses-1/meg/sub-01_ses-1_headshape.pos": b"1 2 3\n",
        f"{bare}/config": b"\0\1", f"{bare}/hs_file": b"\0", f"{bare}/c,rfDC": b"\0\2", f"{bare}/e,rfhp1.0Hz.COH": b"",
        f"{bare}.json": {}, f"{kit}/sub-01_ses-1_task-z_meg.con": b"\0\3", f"{kit}/sub-01_task-z_markers.mrk": b"\0",
        "sub-01/ses-1/motion/sub-01_ses-1_task-x_tracksys-a_motion.tsv": "1\t2\n",
        "sub-01/ses-1/motion/sub-01_ses-1_task-x_tracksys-a_channels.tsv": [["name"], ["x"]],
        "sub-01/sub-01_sessions.tsv": [["session_id"], ["ses-1"]],
    })  # fmt: skip


def pet_and_perfusion(root: Path) -> Path:
    """PET with blood, ASL with its context and a reference."""
    pet, perf = "sub-01/pet/sub-01_trc-x", "sub-01/perf/sub-01"
    return subject(root, {
        f"{pet}_pet.nii.gz": IMAGE, f"{pet}_pet.json": {"TracerName": "x"},
        f"{pet}_recording-manual_blood.tsv": [["time"], ["1"]], f"{pet}_recording-manual_blood.json": {"time": {}},
        f"{perf}_asl.nii.gz": IMAGE, f"{perf}_asl.json": {}, f"{perf}_m0scan.nii": IMAGE, f"{perf}_m0scan.json": {},
        f"{perf}_aslcontext.tsv": [["volume_type"], ["control"]], f"{perf}_asllabeling.jpg": b"\xff\xd8",
    })  # fmt: skip


def microscopy(root: Path) -> Path:
    """TIFF, and a folder of OME-Zarr, with JSON files in it that are parts of the recording."""
    stem = "sub-01/micr/sub-01_sample-A"
    return subject(root, {
        "samples.tsv": [["sample_id", "participant_id"], ["sample-A", "sub-01"]], "samples.json": {},
        f"{stem}_TEM.tif": b"II*\0" + bytes(90), f"{stem}_TEM.json": {"Manufacturer": "x"},
        f"{stem}_SPIM.ome.zarr/.zattrs": b"{}", f"{stem}_SPIM.ome.zarr/0/zarr.json": b"{}",
        f"{stem}_SPIM.ome.zarr/0/0.0": bytes(64), f"{stem}_SPIM.json": {}, f"{stem}_photo.png": b"\x89PNG",
    })  # fmt: skip


def derivatives(root: Path) -> Path:
    """What a pipeline writes: surfaces, grey-ordinates, confounds, transforms, reports; a derivative in another one."""
    at, flat = "derivatives/fmriprep", "derivatives/flat"
    stem = f"{at}/sub-01/ses-a/func/sub-01_ses-a_task-rest"
    return subject(root, {
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz": IMAGE,
        f"{at}/dataset_description.json": description(DatasetType="derivative"), f"{at}/README": "By a pipeline.\n",
        f"{at}/desc-aseg_dseg.tsv": [["index", "name"], ["1", "x"]], f"{at}/.bidsignore": "*.html\n",
        f"{at}/sub-01.html": "<html/>", f"{at}/sub-01/figures/sub-01_T1w.svg": "<svg/>",
        f"{stem}_desc-confounds_timeseries.tsv": [["csf"], ["n/a"], ["1"]],
        f"{stem}_desc-confounds_timeseries.json": {"csf": {}},
        f"{stem}_space-fsLR_den-91k_bold.dtseries.nii": bytes(800), f"{stem}_space-fsLR_den-91k_bold.json": {},
        f"{stem}_hemi-L_space-fsnative_bold.func.gii": "<GIFTI/>", f"{stem}_desc-preproc_bold.nii.gz": IMAGE,
        f"{at}/sub-01/anat/sub-01_hemi-L_pial.surf.gii": "<GIFTI/>",
        f"{at}/sub-01/anat/sub-01_from-T1w_to-MNI_mode-image_xfm.h5": b"\x89HDF",
        f"{at}/sub-01/func/sub-01_from-bold_to-T1w_mode-image_xfm.txt": "#Insight Transform File V1.0\n#Transform 0\n",
        f"{at}/tpl-MNI/tpl-MNI_T1w.nii.gz": IMAGE, f"{at}/tpl-MNI/tpl-MNI_T1w.json": {},
        f"{at}/derivatives/masks/sub-01/anat/sub-01_mask.nii": IMAGE,
        f"{at}/derivatives/masks/sub-01/anat/sub-01_mask.json": {},
        f"{flat}/sub-01_ses-a_desc-x_bold.nii": IMAGE, f"{flat}/sub-01_ses-a_desc-x_bold.json": {"x": 1},
        f"{flat}/group/desc-y_stat.tsv": [["z"], ["2"]],
    })  # fmt: skip


def nested(root: Path) -> Path:
    """A dataset that holds another raw one, with tables and sidecars of its own."""
    return subject(root, {
        "sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
        "pilot/dataset_description.json": description(Name="pilot"), "pilot/participants.tsv": [["participant_id"]],
        "pilot/sub-01/anat/sub-01_T1w.nii.gz": Image(2), "pilot/sub-01/anat/sub-01_T1w.json": {"EchoTime": 1},
        "pilot/sub-02/sub-02_scans.tsv": [["filename"]], "pilot/sub-02/anat/sub-02_T1w.nii.gz": Image(3),
    })  # fmt: skip


def small(root: Path) -> Path:
    """No session, no sidecar."""
    return subject(root, {"sub-01/anat/sub-01_T1w.nii.gz": IMAGE})


def strange_names(root: Path) -> Path:
    """Labels that differ in case alone; capitals, dots, spaces and letters of any alphabet in folders; long names."""
    odd, long = "derivatives/My Pipeline v1.2 (größer)", "x" * 150
    return subject(root, {
        "sub-a1/anat/sub-a1_T1w.nii.gz": IMAGE, "sub-a1/anat/sub-a1_T1w.json": {"of": "a1"},
        "sub-A1/anat/sub-A1_T1w.nii.gz": IMAGE, "sub-A1/anat/sub-A1_T1w.json": {"of": "A1"},
        f"{odd}/sub-a1/anat/sub-a1_desc-Xy_mask.nii.gz": IMAGE, f"{odd}/sub-a1/anat/sub-a1_desc-Xy_mask.json": {},
        f"{odd}/sub-a1/anat/sub-a1_new-one_mask.json": {}, f"{odd}/Read me.txt": "x",
        f"sub-a1/anat/sub-a1_acq-{long}_T2w.nii": IMAGE, f"sub-a1/anat/sub-a1_acq-{long}_T2w.json": {"x": "é"},
        "phenotype/ACE scale.tsv": [["participant_id"], ["sub-a1"]], "sub-a1/anat/UPPER.TSV": "a\n",
    })  # fmt: skip


def empty_and_large(root: Path) -> Path:
    """Empty tables and sidecars without fields, compressed tables, and tables that are too large to be texts."""
    func = "sub-01/func/sub-01_task-x"
    rows = "participant_id\tscore\n" + "sub-01\t0.123456\n" * 340_000
    return subject(root, {
        f"{func}_bold.nii.gz": IMAGE, f"{func}_bold.json": {}, f"{func}_events.tsv": b"",
        f"{func}_physio.tsv.gz": gzip.compress(b"1\t2\n" * 99, mtime=0), f"{func}_physio.json": {"StartTime": 0},
        f"{func}_stim.tsv.gz": gzip.compress(b"", mtime=0), f"{func}_stim.json": {"StartTime": 0},
        "sub-01/beh/sub-01_task-y_beh.tsv": "a\tb\n1\t\n", "sub-01/beh/sub-01_task-y_beh.json": {},
        "phenotype/many.tsv": rows, "phenotype/many.json": {"score": {}}, "phenotype/none.tsv": b"",
    })  # fmt: skip


#: Files of code and stimuli that are published, as they are texts, in the dataset of `outside`.
LOOSE = {
    "code/run.py": b"print()\n", "code/sub-01/analysis.m": b"%\n", "code/Makefile": b"all:\n", "code/empty.R": b"",
    "code/table.csv": b"a,b\n1,2\n", "stimuli/words/list.txt": "Straße\n".encode(), "derivatives/p/code/p.sh": b"#!\n",
}  # fmt: skip
#: Files that are not published unless somebody names them, there too.
NOT_NAMED = {
    "stimuli/face.png": b"\x89PNG", "code/lib.so": b"\x7fELF\0",
    "sourcedata/sub-01/scan.dcm": b"DICM", ".heudiconv/info.tsv": b"x\n", ".DS_Store": b"\0",
    "sub-01/.anat.swp": b"\0", "sub-01/anat/notes.txt": b"a note\n", "sub-01/anat/sub-01_T1w.pdf": b"%PDF",
    "sub-01/anat/backup/T1w copy.json": b"{}", "docs/protocol.docx": b"PK", "sub-01/anat/sub-01_odd.gz": b"no gzip",
    "sub-01/anat/T1w copy.nii.gz": nifti(IMAGE, True), "rejected/sub-01_T1w.nii": nifti(IMAGE, False),
    "sub-01/anat/sub-02_T1w.nii": nifti(Image(2), False), "stimuli/brain.nii.gz": nifti(Image(3), True),
    "sub-01/anat/sub-01_T1W.NII.GZ": nifti(Image(4), True), "pilot_eeg.vhdr": b"Brain Vision\r\n\0",
    "sub-01/meg/sub-02_task-x_meg.ds/a.meg4": b"MEG41CP\0", "sub-01/meg/sub-02_task-x_meg.ds/b": b"",
}  # fmt: skip
INCLUDED = ("code/", "stimuli/", "sourcedata/", ".heudiconv/", ".DS_Store", ".anat.swp", "*")


def outside(root: Path) -> Path:
    """What lies around in a dataset: code, stimuli, source data, hidden files, and files that BIDS has no name for."""
    named: dict[str, Content] = {"sub-01/anat/sub-01_T1w.nii.gz": IMAGE, "sub-01/anat/sub-01_T1w.json": {}}
    return subject(root, {**named, **LOOSE, **NOT_NAMED})


def many_sidecars(root: Path, many: int = MANY) -> Path:
    """A session with so many sidecars that the end of its shard does not hold them."""
    stem = "sub-01/ses-a/func/sub-01_ses-a_task-x"
    beside = {f"{stem}_run-{run}_bold.json": {"run": run, "more": "x" * (run % 700)} for run in range(many)}
    return subject(root, {f"{stem}_run-0_bold.nii.gz": IMAGE, **beside})


@pytest.fixture
def target(counted: Hub) -> Hub:
    """An empty repo on a Hub that counts what it is asked."""
    counted.prepare(private=True)
    return counted


def unexplained(hub: Hub, commit: str, source: Path, restored: Path) -> list[str]:
    """What `diff -r` says of two trees, without the files that bids/left_out.tsv lists, and those of its folders."""
    table = (hub.read("bids/left_out.tsv", commit) or b"").decode()
    listed = [json.loads(f'"{row["path"]}"') for row in csv.DictReader(table.splitlines(), delimiter="\t", quoting=3)]
    folders = [path.removeprefix("./") for path in listed if path.endswith("/")]

    def explains(file: str) -> bool:
        hidden = any(part.startswith(".") for part in file.split("/"))
        return file in listed or any(file.startswith(one) and (hidden or one == "sourcedata/") for one in folders)

    missing = files(source).keys() - files(restored).keys()
    done = subprocess.run(["diff", "-r", source, restored], capture_output=True, text=True, env={"LC_ALL": "C.UTF-8"})
    found = [line for line in done.stdout.splitlines() if not line.startswith(f"Only in {source}")]
    return found + [done.stderr] * bool(done.stderr) + [path for path in missing if not explains(path)]


def sha256_of(folder: Path) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in files(folder).items()}


def require_same(hub: Hub, commit: str, source: Path, restored: Path) -> None:
    """Both trees are the same but for what the repo lists as left out."""
    assert unexplained(hub, commit, source, restored) == []
    there = sha256_of(source)
    assert sha256_of(restored) == {path: there[path] for path in files(restored)}


@pytest.mark.parametrize(
    ("make", "left_out"),
    [
        (levels, 0), (with_recordings, 0), (eeg, 1), (meg, 1), (pet_and_perfusion, 1), (microscopy, 1),
        (derivatives, 3), (nested, 0), (small, 0), (strange_names, 1), (empty_and_large, 0), (outside, len(NOT_NAMED)),
        (many_sidecars, 0),
    ],
)  # fmt: skip
def test_a_dataset_comes_back_as_it_was_but_for_what_the_repo_lists_as_left_out(
    make: Callable[[Path], Path], left_out: int, target: Hub, staging: Staging, tmp_path: Path
) -> None:
    source, restored = make(tmp_path / "source"), tmp_path / "back"
    commit = publish(target, source, staging)
    assert not back(target, restored).failures
    require_same(target, commit, source, restored)
    assert len(files(source).keys() - files(restored).keys()) == left_out
    assert len(back(target, restored).there) == len(files(restored))


@pytest.mark.parametrize("large", [False, True], ids=["in the end", "streamed"])
@pytest.mark.parametrize("dataset", ["bids", "planted"])
def test_a_cut_of_ds004884_comes_back_as_it_was(
    dataset: str,
    large: bool,
    target: Hub,
    staging: Staging,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, restored = request.getfixturevalue(dataset), tmp_path / "back"
    if large:
        monkeypatch.setattr(remote_file, "TAIL", 64 << 10)
        monkeypatch.setattr(remote_file, "BLOCK", 1)
        monkeypatch.setattr(shards_of, "GAP", 0)
    commit = publish(target, source, staging)
    assert not back(target, restored).failures
    require_same(target, commit, source, restored)
    assert {
        path for path in files(source).keys() - files(restored).keys() if not Path(path).name.startswith(".")
    } == set()


def test_what_include_names_comes_back_too_whatever_it_is(target: Hub, staging: Staging, tmp_path: Path) -> None:
    source, restored = outside(tmp_path / "source"), tmp_path / "back"
    publish(target, source, staging, include=INCLUDED)
    assert not back(target, restored).failures
    done = subprocess.run(["diff", "-r", source, restored], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_small_files_cost_a_few_requests_however_many_there_are(
    target: Hub, server: CountedHub, staging: Staging, tmp_path: Path
) -> None:
    publish(target, many_sidecars(tmp_path / "source"), staging)
    since = len(server.asked())
    assert len(back(target, tmp_path / "back").restored) == MANY + 3
    asked = [one for one in server.asked(since) if "/data/" in one.path]
    assert len(asked) <= 4, asked


def test_small_files_are_flushed_together_each_before_it_has_its_name(
    target: Hub, staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, restored = levels(tmp_path / "source"), tmp_path / "back"
    publish(target, source, staging)
    flush, give_name = os.fsync, target_folder._give_name
    flushed: set[int] = set()
    unflushed: list[str] = []

    def flushing(descriptor: int) -> None:
        flush(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def naming(parent: int, temporary: str, name: str) -> None:
        if os.stat(temporary, dir_fd=parent).st_ino not in flushed:
            unflushed.append(name)
        give_name(parent, temporary, name)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(target_folder, "_give_name", naming)
    assert len(back(target, restored).restored) == len(files(source))
    assert unflushed == []
    assert {path.stat().st_ino for path in restored.rglob("*") if path.is_file()} <= flushed
    assert {path.stat().st_ino for path in restored.rglob("*") if path.is_dir()} & flushed


@pytest.mark.slow
@pytest.mark.parametrize("hashed", [False, True], ids=["a folder a subject", "hashed folders"])
def test_a_restore_that_is_killed_at_any_instants_until_it_is_done_gives_the_tree_back(
    hashed: bool,
    target: Hub,
    server: CountedHub,
    staging: Staging,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_module, "MOST_FOLDERS", 0 if hashed else 4000)
    source, restored, dice = levels(many_sidecars(tmp_path / "source", 400)), tmp_path / "back", random.Random(7)
    commit = publish(target, source, staging)
    assert all(is_hashed(path) == hashed for path in read_remote(target).record.shards)
    wanted = files(source)
    server.break_on({"fault": "slow", "path": "/resolve/.*/data/", "times": -1, "delay": 0.1})
    command = [*RESTORE, target.target.endpoint, target.target.repo_id, target.token, str(restored)]
    killed = 0
    for kill_after in (dice.uniform(0, 0.5 * number) for number in range(1, 60)):
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            try:
                process.wait(kill_after)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
        named = {path: data for path, data in files(restored).items() if not TEMPORARY.fullmatch(Path(path).name)}
        assert named.items() <= wanted.items()
    server.break_on()
    assert process.returncode == 0 and killed
    require_same(target, commit, source, restored)
    assert sha256_of(restored) == sha256_of(source)
