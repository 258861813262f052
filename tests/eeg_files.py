"""Small EEG recordings, written by hand after their formats: EDF, and BrainVision's three files.

EDF: Kemp et al. 1992, https://www.edfplus.info/specs/edf.html. BrainVision: "BrainVision Core Data Format 1.0", Brain
Products.
"""

import numpy as np

RATE = 100  # Hz
CHANNELS = ("Fz", "Cz")


def _samples(seed: int, seconds: int) -> np.ndarray:
    """Samples by time and channel."""
    return np.random.default_rng(seed).integers(-1000, 1000, (RATE * seconds, len(CHANNELS)), dtype="<i2")


def edf(seed: int = 0, seconds: int = 2) -> bytes:
    """An EDF file with one data record a second."""
    count = len(CHANNELS)

    def cells(*values: object, width: int) -> bytes:
        return b"".join(str(value).ljust(width).encode() for value in values)

    header = cells(0, width=8) + cells("X", "X", width=80) + cells("01.01.85", "00.00.00", 256 * (count + 1), width=8)
    header += cells("", width=44) + cells(seconds, 1, width=8) + cells(count, width=4)
    header += cells(*CHANNELS, width=16) + cells(*[""] * count, width=80) + cells(*["uV"] * count, width=8)
    for value in (-1000, 1000, -32768, 32767):  # physical, then digital minimum and maximum
        header += cells(*[value] * count, width=8)
    header += cells(*[""] * count, width=80) + cells(*[RATE] * count, width=8) + cells(*[""] * count, width=32)
    records = _samples(seed, seconds).reshape(seconds, RATE, count).transpose(0, 2, 1)
    return header + records.tobytes()


def brainvision(name: str, seed: int = 0, seconds: int = 2) -> dict[str, bytes]:
    """The files of a BrainVision recording by their names: the header names the two others."""
    channels = "\n".join(f"Ch{number}={label},,0.1,µV" for number, label in enumerate(CHANNELS, start=1))
    header = (
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={name}.eeg\nMarkerFile={name}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(CHANNELS)}\nSamplingInterval={1_000_000 // RATE}\n\n"
        f"[Binary Infos]\nBinaryFormat=INT_16\n\n[Channel Infos]\n{channels}\n"
    )
    markers = (
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={name}.eeg\n\n[Marker Infos]\nMk1=Stimulus,S  1,50,1,0\n"
    )
    return {
        f"{name}.eeg": _samples(seed, seconds).tobytes(),
        f"{name}.vhdr": header.encode(),
        f"{name}.vmrk": markers.encode(),
    }
