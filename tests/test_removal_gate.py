"""What becomes of each answer at a gate that asks about removals, whatever changes before it is carried out."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from deployments.local_stack import Stack
from flows.cleanup_staging import cleanup_staging
from tasks.approve import read_gate
from tasks.disk.staging import Target
from tasks.record.kept_removals import read_keepings
from tasks.record.remote import CARD, RECORD
from tasks.record.removed_before import read_removed
from tasks.report.status import status_at
from tasks.runs.lease import Lease, TargetLost
from tasks.values.models import PublicationRecord
from tests.bids_examples import move_session
from tests.end_to_end.nights import images_of, images_on
from tests.gated import Gated, said

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def target(hub_server: Stack, repo_id: str, own_bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gated:
    """A target on which all of the dataset is published and nothing is staged any more."""
    monkeypatch.setenv("HF_TOKEN", hub_server.token)
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")  # one subject of these is a large part
    only_of_one(own_bids)
    gated = Gated(Target(hub_server.endpoint, repo_id), own_bids, tmp_path / "root", hub_server.token)
    first = gated.night()
    assert said(first)[0] == "Suspended", said(first)
    assert said(gated.answer(first, decision="delete"))[0] == "CleanedUp"
    return gated


def session(bids: Path) -> Path:
    """The session that is withdrawn."""
    return sorted(bids.glob("sub-*/ses-*"))[0]


def only_of_one(bids: Path) -> None:
    """Give that session an image of a kind that no other has, so that the card shows a slice of it."""
    gone = session(bids)
    (gone / "anat").mkdir(exist_ok=True)
    image = gone / "anat" / f"{gone.parent.name}_{gone.name}_PDw.nii.gz"
    shutil.copyfile(next(bids.rglob("*_T1w.nii.gz")), image)


def withdraw(target: Gated, to: Path) -> str:
    """Move the session out of the dataset; the path of its shard."""
    gone = session(target.source)
    move_session(target.source, gone, to)
    return f"data/{gone.parent.name}/{gone.parent.name}_{gone.name}.parquet"


def put_back(target: Gated, away: Path) -> None:
    shutil.copytree(away, target.source, dirs_exist_ok=True, copy_function=shutil.copy2)


def record(target: Gated) -> PublicationRecord:
    found, damaged = PublicationRecord.read(target.hub.read(RECORD, target.hub.head()) or b"")
    assert not damaged
    return found


def test_an_approved_shard_leaves_with_its_line_and_every_picture_of_it(target: Gated, tmp_path: Path) -> None:
    before, picture = target.files(), "pictures/anat_PDw.png"
    assert picture in before
    shard = withdraw(target, tmp_path / "away")
    (target.source / "CHANGES").write_text("1.0.9 2026-11-24\n  - One less\n")  # the card changes, its shard stays
    gate = target.night()
    assert said(gate)[0] == "Suspended" and target.files() == before and not target.staging.receipts()
    head = target.hub.head()
    done = target.answer(gate, removals="remove")
    name, message = said(done)
    assert name == "Removed" and "1 shard, 1 picture" in message, message
    assert target.files() == before - {shard, picture} and shard not in record(target).shards
    assert images_on(target.hub) == images_of(target.source)
    assert session(tmp_path / "away").parent.name not in (target.hub.read(CARD, target.hub.head()) or b"").decode()
    commits = target.hub.api.list_repo_commits(target.hub.target.repo_id, repo_type="dataset")
    assert commits[1].commit_id == head  # all of it is one commit
    assert commits[0].title == "Remove 1 shard, 1 picture of 1 subject, as approved"  # the history names nobody


def test_a_gate_that_asks_the_same_stays_open_and_what_was_kept_is_not_asked_again(
    target: Gated, tmp_path: Path
) -> None:
    before, shard = target.files(), withdraw(target, tmp_path / "away")
    gate = target.night()
    for _ in range(2):
        name, message = said(target.night())
        assert name == "NothingToPublish" and f"{gate.name} waits at its gate for a decision about them" in message
    assert said(target.read(gate.id))[0] == "Suspended"
    name, message = said(target.answer(gate, removals="keep"))
    assert name == "Kept" and Path(shard).stem in message and target.files() == before
    name, message = said(target.night())
    assert name == "NothingToPublish" and f"at the gate of {gate.name}" in message
    assert 'with the note "me"' in message and 'removed="ask again"' in message

    # more than what was decided is asked about, all of it, and so is the same once the memory of it is taken away
    second = withdraw(target, tmp_path / "away")
    larger = target.night()
    assert (
        said(larger)[0] == "Suspended" and Path(shard).stem in said(larger)[1] and Path(second).stem in said(larger)[1]
    )
    put_back(target, tmp_path / "away")
    assert said(target.answer(larger, removals="keep"))[0] == "Kept"
    shutil.rmtree(tmp_path / "away")
    withdraw(target, tmp_path / "away")
    assert said(target.night())[0] != "Suspended"

    # a person has it asked again by the form of a run, and later nights leave the question to them
    again = target.night(removed="ask again")
    assert said(again)[0] == "Suspended" and target.files() == before
    name, message = said(target.night())
    assert name == "NothingToPublish" and f"{again.name} waits at its gate for a decision about them" in message
    assert said(target.answer(again, removals="keep", note="not yet"))[0] == "Kept"
    name, message = said(target.night())
    assert name == "NothingToPublish" and f"at the gate of {again.name}" in message and "not yet" in message
    assert "not yet" in [one.note for one in read_keepings(target.staging)]
    last = target.night(removed="ask again")
    name, message = said(target.answer(last, removals="remove"))
    assert name == "Removed" and "not yet" not in [one.note for one in read_keepings(target.staging)], message
    assert f"of 1 subject ({Path(shard).parent.name})" in message and "history still has it" in message


def test_a_cleanup_that_takes_over_a_gate_about_removals_says_so_and_the_next_night_asks_again(
    target: Gated, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = withdraw(target, tmp_path / "away")
    image = sorted(target.source.rglob("*_T1w.nii.gz"))[-1]
    shutil.copyfile(sorted(target.source.rglob("*_T1w.nii.gz"))[0], image)  # its shard is staged and sent
    gate, before = target.night(), target.files()
    assert said(gate)[0] == "Suspended" and Path(shard).stem in said(gate)[1] and target.staging.receipts()

    cleanup_staging(target.hub.target.repo_id, verification="listing", staging_root=str(target.root))
    name, message = said(target.read(gate.id))
    assert name == "Superseded" and "the next push with removed=ask asks about them again" in message
    (told,) = [one.getMessage() for one in caplog.records if "waited for a decision about removals" in one.getMessage()]
    assert gate.name in told and Path(shard).stem in told and "asks about staged files alone" in told

    again = target.night()
    assert said(again)[0] == "Suspended" and Path(shard).stem in said(again)[1] and target.files() == before


def test_what_is_in_the_dataset_again_stays_and_so_does_what_left_it_since(target: Gated, tmp_path: Path) -> None:
    before = target.files()
    withdraw(target, tmp_path / "away")
    gate = target.night()
    put_back(target, tmp_path / "away")
    target.send(gate, removals="remove")
    bold = sorted(target.source.rglob("*_bold.nii.gz"))[-1]
    bold.unlink()  # approved by nobody
    name, message = said(target.go(gate.id))
    assert name == "Kept" and "Nothing was removed" in message and "in the dataset again" in message
    assert target.files() == before and str(bold.relative_to(target.source)) in images_on(target.hub)


def test_held_back_rows_go_with_the_removal_and_nothing_else_is_published_with_it(
    target: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = {bold.parts[-4:-2]: bold for bold in sorted(target.source.rglob("*_bold.nii.gz"))}
    gone = [*sessions.values()][-2:]
    for bold in gone:
        bold.unlink()
    gate = target.night()
    published = images_on(target.hub)
    assert all(bold.name in said(gate)[1] and str(bold.relative_to(target.source)) in published for bold in gone)
    other = sorted(target.source.rglob("*_T1w.nii.gz"))[0]
    other.write_bytes(next(one for one in target.source.rglob("*_T1w.nii.gz") if one != other).read_bytes())
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "1")
    name, message = said(target.answer(gate, removals="remove"))
    assert name == "Removed" and "2 images of 2 shards" in message, message
    for bold in gone:
        del published[str(bold.relative_to(target.source))]
    assert images_on(target.hub) == published  # the other image is for the next night
    staged = {Path(receipt.path).stem for receipt in target.staging.receipts()}
    assert staged == {f"{bold.parts[-4]}_{bold.parts[-3]}" for bold in gone}
    commits = target.hub.api.list_repo_commits(target.hub.target.repo_id, repo_type="dataset")
    says = "Publish 1 shard of 1 subject; Remove 1 image of 1 shard of 1 subject, as approved"
    assert [one.title for one in commits[:2]] == [says, says]  # each commit of several names its own part
    assert said(target.night())[0] == "Suspended" and images_on(target.hub) == images_of(target.source)


def test_what_was_removed_and_is_back_is_published_once_somebody_gives_the_number(
    target: Gated, tmp_path: Path
) -> None:
    away, bold = tmp_path / "away", sorted(target.source.rglob("*_bold.nii.gz"))[-1]
    withdraw(target, away)
    (away / bold.relative_to(target.source)).parent.mkdir(parents=True)
    bold.rename(away / bold.relative_to(target.source))
    assert said(target.answer(target.night(), removals="remove"))[0] == "Removed"

    withdraw(target, tmp_path / "later")
    gate = target.night()  # about another session
    put_back(target, away)
    back = sum(path.is_file() for path in away.rglob("*"))  # images, and sidecars
    answered = target.answer(gate, decision="delete", removals="remove")
    assert said(answered)[0] == "Removed"  # which is carried out whatever is back

    before = images_on(target.hub)
    for number in (0, back - 1):
        name, message = said(target.night(accept_changes=number))
        assert name == "RemovedCameBack" and f"accept_changes={back}." in message, message
    assert min(images_of(away)) in message and images_on(target.hub) == before
    assert said(target.night(accept_changes=back))[0] == "Suspended"
    assert images_on(target.hub) == images_of(target.source)

    # from now on it is an image like any other: the memory of its removal is gone, that of the later one is not
    assert said(target.night())[0] != "RemovedCameBack"
    later = tmp_path / "later"
    files = {path.relative_to(later).as_posix() for path in later.rglob("*") if path.is_file()}
    assert read_removed(target.staging).images.keys() == files > images_of(later).keys()


def test_a_line_that_somebody_changed_or_a_lease_that_was_lost_removes_nothing_and_a_retry_asks_again(
    target: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = withdraw(target, tmp_path / "away")
    gate = target.night()
    with monkeypatch.context() as lost:

        def taken_over(lease: Lease) -> None:
            raise TargetLost("another run has taken it over")

        lost.setattr(Lease, "require", taken_over)
        assert said(target.answer(gate, removals="remove"))[0] == "TargetLost"
    assert shard in target.files()
    again = target.retry(gate)
    assert said(again)[0] == "Suspended" and shard in target.files()  # the approval before it counts no more

    lines = (target.hub.read(RECORD, target.hub.head()) or b"").splitlines()
    sha256 = record(target).shards[shard].sha256.encode()
    changed = b"\n".join(line.replace(sha256, b"0" * 64) for line in lines) + b"\n"
    target.hub.commit([CommitOperationAdd(RECORD, changed)], "By hand", target.hub.head())
    name, message = said(target.answer(again, removals="remove"))
    assert name == "Kept" and shard in message and shard in target.files()


def test_a_run_whose_target_another_one_has_taken_over_opens_no_gate(
    target: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing to commit, so nothing but the gate asks whether it still holds its target."""
    withdraw(target, tmp_path / "away")
    target.night(removed="keep")  # the texts are as they are to be
    with monkeypatch.context() as lost:

        def taken_over(lease: Lease) -> None:
            raise TargetLost("another run has taken it over")

        lost.setattr(Lease, "require", taken_over)
        assert said(target.night())[0] == "TargetLost"
    assert said(target.night())[0] == "Suspended"


def test_both_are_decided_at_one_gate_and_a_run_that_dies_in_between_asks_about_the_rest(
    target: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = withdraw(target, tmp_path / "away")
    scan = sorted(target.source.rglob("*_T1w.json"))[-1]
    scan.write_text(scan.read_text().rstrip().removesuffix("}") + ', "EditedByHand": true}')
    gate = target.night()
    assert len(target.staging.receipts()) == 1
    target.send(gate, decision="delete", removals="remove")
    with monkeypatch.context() as away:
        away.setenv("HF_TOKEN", "")
        target.source.rename(tmp_path / "unmounted")
        name, _ = said(target.go(gate.id))
        (tmp_path / "unmounted").rename(target.source)
    assert name not in ("Removed", "CleanedUp", "Kept") and shard in target.files()
    again = target.retry(gate)
    assert said(again)[0] == "Suspended" and shard in target.files()
    name, message = said(target.answer(again, removals="remove", **still_staged(target)))
    assert name == "Removed" and shard not in target.files() and not target.staging.receipts(), message
    closed = read_gate(target.staging)
    assert closed is not None and not closed.removals and closed.opened_at_commit is None


def still_staged(target: Gated) -> dict[str, str]:
    """The answer about staged files, where some are there to decide."""
    return {"decision": "delete"} if target.staging.receipts() else {}


# --- staged copies that are none any more ---


def swap_two(target: Gated) -> list[str]:
    """Two staged files of different sizes change places; their names."""
    receipts = sorted(target.staging.receipts(), key=lambda receipt: receipt.size)
    files = [target.staging.folder / receipt.file for receipt in (receipts[0], receipts[-1])]
    assert files[0].stat().st_size != files[1].stat().st_size
    aside = files[0].with_name("aside")
    files[0].rename(aside)
    files[1].rename(files[0])
    aside.rename(files[1])
    return [file.name for file in files]


def test_an_approved_removal_is_carried_out_although_staged_copies_were_swapped_at_the_gate(
    target: Gated, tmp_path: Path
) -> None:
    shard = withdraw(target, tmp_path / "away")
    for scan in sorted(target.source.rglob("*_T1w.json"))[-3:]:
        scan.write_text(scan.read_text().rstrip().removesuffix("}") + ', "EditedByHand": true}')
    gate = target.night()
    assert len(target.staging.receipts()) == 3
    swapped = swap_two(target)
    name, message = said(target.answer(gate, decision="delete", removals="remove"))
    assert shard not in target.files() and "Removed from the Hub" in message
    assert all(file in message for file in swapped) and "delete them yourself" in message, message
    assert {file.name for file in target.staging.shards.rglob("*.parquet")} == set(swapped)
    assert name in ("Removed", "CleanupRefused")


def test_swapped_copies_are_none_that_a_gate_offers_and_a_removal_beside_them_is_asked_about_alone(
    target: Gated, tmp_path: Path
) -> None:
    for scan in sorted(target.source.rglob("*_T1w.json"))[-2:]:
        scan.write_text(scan.read_text().rstrip().removesuffix("}") + ', "EditedByHand": true}')
    target.night()
    assert len(target.staging.receipts()) == 2
    swapped = swap_two(target)
    shard = withdraw(target, tmp_path / "away")
    gate = target.night()
    found = read_gate(target.staging)
    assert found is not None and found.shown == () and shard in found.removals.shards
    name, message = said(target.answer(gate, removals="remove"))
    assert name == "Removed" and shard not in target.files(), message
    assert {file.name for file in target.staging.shards.rglob("*.parquet")} == set(swapped)


@pytest.mark.parametrize("decision", ["delete", "keep"])
def test_an_answer_given_before_every_copy_changed_is_taken_and_the_copies_stay_and_are_named(
    target: Gated, decision: str
) -> None:
    for scan in sorted(target.source.rglob("*_T1w.json"))[-2:]:
        scan.write_text(scan.read_text().rstrip().removesuffix("}") + ', "EditedByHand": true}')
    gate = target.night()
    target.send(gate, decision=decision)
    swapped = swap_two(target)
    name, message = said(target.go(gate.id))
    assert name in ("NothingStaged", "Kept", "CleanedUp"), message
    assert all(file in message for file in swapped) and "delete them yourself" in message
    assert {file.name for file in target.staging.shards.rglob("*.parquet")} == set(swapped)


def test_the_status_that_a_state_leads_to_is_a_page_that_is_there(target: Gated) -> None:
    gate = target.night()
    link = status_at(target.hub.target)
    with get_client(sync_client=True) as client:
        artifact = client.request("GET", "/artifacts/{id}", path_params={"id": link.rpartition("/")[2]}).json()
        versions = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[artifact["key"]])),
            sort=ArtifactSort.CREATED_DESC,
        )
    assert artifact["id"] == str(versions[0].id) and str(target.hub.target) in artifact["data"]
    assert said(gate)[0] in artifact["data"] or "NothingToPublish" in artifact["data"]


def test_what_exclude_leaves_out_leaves_at_a_gate_that_names_it_and_comes_back_by_a_number(target: Gated) -> None:
    before, gone = target.files(), session(target.source)
    shard = f"data/{gone.parent.name}/{gone.parent.name}_{gone.name}.parquet"
    pattern = f"{gone.parent.name}/{gone.name}/"
    gate = target.night(exclude=[f"**/{pattern}"])
    name, message = said(gate)
    assert name == "Suspended" and Path(shard).stem in message and target.files() == before
    name, message = said(target.answer(gate, removals="remove"))
    assert name == "Removed" and shard not in target.files()
    excluded = sorted(set(images_of(target.source)) - set(images_on(target.hub)))
    table = (target.hub.read("bids/left_out.tsv", target.hub.head()) or b"").decode().splitlines()
    assert [line.split("\t")[0] for line in table if ".nii" in line] == excluded

    gone_with_it = sum(pattern in line for line in table)  # its sidecars too
    assert gone_with_it > len(excluded)
    name, message = said(target.night())
    assert name == "RemovedCameBack" and f"accept_changes={gone_with_it}." in message
    back = target.night(accept_changes=gone_with_it)
    assert said(back)[0] == "Suspended" and shard in target.files()
    assert images_on(target.hub) == images_of(target.source)
