"""The key of the pseudonyms belongs to the cohorts and not to a run folder."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import stat
from pathlib import Path

import pytest
from cohort_runs import ingest, message, pictures, settle

from pipeline.cohorts.key import project_key
from pipeline.errors import InputError


@pytest.mark.usefixtures("no_key")
def test_one_key_serves_every_run_folder_and_is_for_its_owner_alone(tmp_path: Path, cohorts: Path) -> None:
    before = os.umask(0)
    try:
        key = project_key(tmp_path / "one")
    finally:
        os.umask(before)
    assert project_key(tmp_path / "two") == key
    assert len(key) >= 32
    assert stat.S_IMODE(cohorts.stat().st_mode) == 0o700
    assert {path.name for path in cohorts.iterdir()} == {"pseudonym.key", ".lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in cohorts.iterdir()} == {0o600}
    assert not (tmp_path / "one").exists()


@pytest.mark.usefixtures("no_key")
def test_without_a_word_about_it_the_folder_is_runs_cohorts_of_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTHCOHORT_COHORTS")
    monkeypatch.chdir(tmp_path)
    project_key(Path("elsewhere"))
    assert (tmp_path / "runs" / ".cohorts" / "pseudonym.key").is_file()


@pytest.mark.usefixtures("no_key")
def test_a_folder_of_a_team_keeps_its_mode(tmp_path: Path, cohorts: Path) -> None:
    cohorts.mkdir()
    cohorts.chmod(0o770)
    project_key(tmp_path)
    assert stat.S_IMODE(cohorts.stat().st_mode) == 0o770


@pytest.mark.usefixtures("no_key")
def test_a_key_that_is_made_by_many_at_once_is_one(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(project_key, [tmp_path / str(number) for number in range(8)]))) == 1


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("name", ["SYNTHCOHORT_KEY_FILE", "SYNTHCOHORT_COHORTS"])
@pytest.mark.parametrize("content", [b"", b"   \n", b"too short", b"x" * 70_000, None], ids=["empty", "blank", "short", "huge", "a folder"])
def test_a_key_file_that_is_none_is_refused(
    tmp_path: Path, cohorts: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None
) -> None:
    path = cohorts / "pseudonym.key"
    cohorts.mkdir()
    path.mkdir() if content is None else path.write_bytes(content)
    if name == "SYNTHCOHORT_KEY_FILE":
        monkeypatch.setenv(name, str(path))
        monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "others"))
    with pytest.raises(InputError, match=r"the key file pseudonym\.key") as error:
        project_key(tmp_path / "run")
    message(error)


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("where", ["file", "file/below", "link/below", "x" * 300])
def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    if where == "link/below":
        (tmp_path / "nowhere").write_text("")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / where))
    with pytest.raises(InputError, match=r"cannot be used .*SYNTHCOHORT_COHORTS") as error:
        project_key(tmp_path / "run")
    message(error)


@pytest.mark.usefixtures("no_key")
def test_a_key_that_is_gone_is_not_made_anew_under_cohorts_that_need_it(tmp_path: Path, cohorts: Path) -> None:
    settle(tmp_path / "run", {"p": "train"})
    (cohorts / "pseudonym.key").unlink()
    with pytest.raises(InputError, match="is missing, and pseudonyms were made under it"):
        project_key(tmp_path / "other")
    assert not (cohorts / "pseudonym.key").exists()


def test_a_cohort_of_another_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path / "run", {"p": "train"})
    monkeypatch.setenv("SYNTHCOHORT_KEY", "another key, of the same kind")
    with pytest.raises(InputError, match="another key of the pseudonyms"):
        settle(tmp_path / "run", {"q": "train"})


def test_a_run_of_another_key_is_refused_wherever_it_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "in")
    ingest(root, tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert ingest(root, tmp_path / "moved") is not None
    monkeypatch.setenv("SYNTHCOHORT_KEY", "another key, of the same kind")
    with pytest.raises(InputError, match="moved was ingested under another key") as error:
        ingest(root, tmp_path / "moved")
    message(error)
    monkeypatch.delenv("SYNTHCOHORT_KEY")
    monkeypatch.setenv("SYNTHCOHORT_COHORTS", str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"pseudonym\.key is missing"):
        ingest(root, tmp_path / "moved")
