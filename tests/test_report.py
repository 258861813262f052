"""What a run leaves for people to read."""

from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.report.evidence import Evidence, Leftovers, VerificationReport
from tasks.report.sentences import evidence


def test_the_evidence_counts_what_of_the_dataset_is_not_published() -> None:
    hub = Hub(Target("http://127.0.0.1:1", "lab/some"), "no token")
    report = VerificationReport(repo_id="lab/some", revision="main", commit="0" * 40, level="listing")
    found = Evidence([], [], left_out={"*_eeg.edf": 12, "*.surf.gii": 3})
    assert "| *_eeg.edf | 12 |" in evidence(hub, report, found, Leftovers())
    assert "Left out" not in evidence(hub, report, Evidence([], []), Leftovers())
