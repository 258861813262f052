"""A small BIDS dataset with recordings beside images: EEG, physio, and MEG that is a folder with an empty file."""

import gzip
from pathlib import Path

from tests.bids_examples import IMAGE, description, write

EEG = "sub-01/ses-a/eeg/sub-01_ses-a_task-rest_eeg.edf"
PHYSIO = "sub-01/ses-a/func/sub-01_ses-a_task-rest_physio.tsv.gz"
T1W = "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"
MEG = "sub-02/meg/sub-02_task-rest_meg.ds"
#: The files of the MEG recording. Those in a folder of its own have no name that BIDS knows.
MEG4, EMPTY, INNER = (f"{MEG}/{name}" for name in ("sub-02_task-rest_meg.meg4", "BadChannels", "hz.ds/hz.meg4"))
OTHER_EEG = "sub-02/eeg/sub-02_task-rest_eeg.set"
RECORDED = (EEG, PHYSIO, MEG4, EMPTY, INNER, OTHER_EEG)


def with_recordings(root: Path) -> Path:
    """Two subjects: one has a session with an image, EEG and physio, the other MEG, EEG and an image."""
    return write(
        root,
        {
            "dataset_description.json": description(),
            "README": "A README.\n",
            "participants.tsv": [["participant_id", "age"], ["sub-01", "34"], ["sub-02", "n/a"]],
            EEG: bytes(range(256)) * 40,
            EEG.replace("_eeg.edf", "_eeg.json"): {"TaskName": "rest", "SamplingFrequency": 256},
            EEG.replace("_eeg.edf", "_channels.tsv"): [["name", "type", "units"], ["Fz", "EEG", "uV"]],
            PHYSIO: gzip.compress(b"1.0\t2.0\n" * 500, mtime=0),
            PHYSIO.replace(".tsv.gz", ".json"): {"SamplingFrequency": 100, "StartTime": 0, "Columns": ["a", "b"]},
            PHYSIO.replace("_physio.tsv.gz", "_bold.nii.gz"): IMAGE,
            T1W: IMAGE,
            MEG4: b"MEG42CP\0" + bytes(3000),
            EMPTY: b"",
            INNER: b"MEG42CP\0 of the head's coils",
            OTHER_EEG: b"MATLAB 5.0 MAT-file" + bytes(200),
            "sub-02/anat/sub-02_T1w.nii.gz": IMAGE,
        },
    )
