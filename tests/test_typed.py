"""What people type as a path or a setting: what is taken for it, and what is said of what cannot be."""

from pathlib import Path

import pytest

from tasks.disk.paths import as_typed, staging_root_of
from tasks.values.errors import BadInput
from tasks.values.settings import DEFAULT_WORKERS, Settings, stage_workers


@pytest.mark.parametrize(
    ("typed", "path"),
    [("{}/data", "{}/data"), (" {}/data\n", "{}/data"), ("{}/a/../data", "{}/data"), ("~/data", "{}/data")],
)
def test_a_path_is_taken_as_it_was_meant(
    typed: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_typed(typed.format(tmp_path), "source") == Path(path.format(tmp_path))
    spaced = tmp_path / "ends with a space "
    spaced.mkdir()
    assert as_typed(f"{spaced}", "source") == spaced


@pytest.mark.parametrize(("typed", "said"), [("/a\0b", "NUL"), ("~nobody-of-this-name/a", "Give the whole path")])
def test_what_can_be_no_path_is_refused_with_its_parameter(typed: str, said: str) -> None:
    with pytest.raises(BadInput, match=f"(?s)^source: .*{said}"):
        as_typed(typed, "source")


def test_a_staging_root_is_the_one_that_was_typed_or_the_machines_and_a_link_to_nowhere_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_STAGING_ROOT", str(tmp_path / "machine"))
    assert staging_root_of("") == tmp_path / "machine"
    assert staging_root_of(tmp_path / "typed") == tmp_path / "typed"
    (tmp_path / "machine").symlink_to(tmp_path / "unmounted")
    (tmp_path / "typed").symlink_to(tmp_path / "unmounted")
    with pytest.raises(BadInput, match=r"^BIDS_PUSH_STAGING_ROOT: .* is a symlink to .*unmounted"):
        staging_root_of("")
    with pytest.raises(BadInput, match=r"^staging_root: .* is a symlink to .*unmounted"):
        staging_root_of(tmp_path / "typed")
    (tmp_path / "unmounted").mkdir()
    assert staging_root_of("") == tmp_path / "machine"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CLUSTER_ARGUMENTS", "{cores: 2", "BIDS_PUSH_CLUSTER_ARGUMENTS has to be JSON"),
        ("STAGE_WORKERS", "many", "BIDS_PUSH_STAGE_WORKERS: 'many' cannot be used."),
        ("STAGE_WORKERS", "0", "BIDS_PUSH_STAGE_WORKERS: '0' cannot be used."),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_the_way_out(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BIDS_PUSH_{name}", value)
    with pytest.raises(BadInput) as error:
        Settings()
    assert str(error.value).startswith(said) and "orrect it in the worker's environment, or unset it" in str(
        error.value
    )
    assert stage_workers() == DEFAULT_WORKERS  # whoever needs it before a run can say what is wrong


def test_as_many_shards_are_staged_at_a_time_as_somebody_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage_workers() == DEFAULT_WORKERS
    monkeypatch.setenv("BIDS_PUSH_STAGE_WORKERS", "7")
    assert stage_workers() == 7
    monkeypatch.setenv("BIDS_PUSH_STAGE_WORKERS", "")
    assert stage_workers() == DEFAULT_WORKERS
