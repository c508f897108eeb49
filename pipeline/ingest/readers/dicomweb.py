"""DICOM files from a PACS, over DICOMweb (PS3.18: QIDO-RS to search, WADO-RS to retrieve). Needs the extra ``dicomweb``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import resume
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.config import QueryConfig
    from pipeline.progress import Reporter

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
PAGE = 500
# In the transfer syntax that the PACS keeps it in: nothing is decoded and encoded again on the way.
AS_STORED = (("application/dicom", "*"),)


def find(query: QueryConfig) -> list[str]:
    """``study/series/instance`` UIDs of everything that the PACS has to a query, sorted. They identify patients: for this machine only.

    Raises:
        InputError: the extra is not installed, the PACS does not answer or refuses, or it has nothing.
    """
    client = _client(query)
    wanted = {"Modality": query.modality}
    wanted |= {"StudyDate": query.dates} if query.dates else {}
    wanted |= {"BodyPartExamined": query.body_part} if query.body_part else {}
    try:
        found = [
            "/".join((_uid(series, STUDY), _uid(series, SERIES), _uid(image, INSTANCE)))
            for series in _pages(client.search_for_series, search_filters=wanted)
            for image in _pages(client.search_for_instances, _uid(series, STUDY), _uid(series, SERIES))
        ]
    except Exception as error:
        raise _unanswered(query, error) from None
    if not found:
        raise InputError(f"{query.url} has no series to this query: widen ingest.query (modality, dates, body_part)")
    return sorted(found)


def fetch(query: QueryConfig, folder: Path, reporter: Reporter) -> None:
    """Retrieve everything that the PACS has to a query into ``folder``, numbered; files that are there and whole are not asked for again.

    Raises:
        InputError: as :func:`find`.
    """
    found = find(query)
    client = _client(query)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with reporter.progress("retrieving from the PACS", len(found)) as done:
        for number, name in enumerate(found):
            if resume.kept(folder, f"{number:07d}", ".dcm") is None:
                unfinished = folder / "unfinished.dcm"
                try:
                    client.retrieve_instance(*name.split("/"), media_types=AS_STORED).save_as(unfinished, enforce_file_format=True)
                except Exception as error:
                    raise _unanswered(query, error) from None
                resume.keep(unfinished, f"{number:07d}")
            done(number + 1)


def _client(query: QueryConfig) -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
        from dicomweb_client.session_utils import create_session, create_session_from_user_pass
    except ImportError:
        raise InputError("ingest.source dicomweb needs the extra: pip install 'synthcohort[dicomweb]'") from None
    user, password = os.environ.get("SYNTHCOHORT_DICOMWEB_USER"), os.environ.get("SYNTHCOHORT_DICOMWEB_PASSWORD")
    session = create_session_from_user_pass(user, password) if user and password else create_session()
    try:
        client = DICOMwebClient(query.url, session=session)
    except ValueError:
        raise InputError(f"ingest.query.url {query.url!r} is no address: write it as https://HOST/dicom-web") from None
    client.set_http_retry_params(max_attempts=4, wait_exponential_multiplier=250)
    return client


def _pages(search: Any, *arguments: str, **filters: Any) -> Iterator[dict[str, Any]]:
    """All results of a search, page by page: a PACS limits how many it gives at once."""
    seen: set[str] = set()
    offset = 0
    while True:
        page = search(*arguments, limit=PAGE, offset=offset, **filters)
        fresh = [entry for entry in page if str(entry) not in seen]
        yield from fresh
        seen.update(map(str, fresh))
        offset += len(page)
        # A server that ignores the offset gives the same page again.
        if len(page) < PAGE or not fresh:
            return


def _uid(entry: dict[str, Any], tag: str) -> str:
    return str(entry[tag]["Value"][0])


def _unanswered(query: QueryConfig, error: Exception) -> InputError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    why = f"answered {status}" if status else f"did not answer ({type(error).__name__})"
    return InputError(f"{query.url} {why}: check ingest.query, and SYNTHCOHORT_DICOMWEB_USER and _PASSWORD where the PACS asks for them")
