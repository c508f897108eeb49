"""Who is one patient: ids that are spelled differently, given by several issuers, or said by a table and a header."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

LARGEST = 0.05
"""Share of the images above which they are too many for one patient, where most have a tenth of that or less: whoever it is is told."""
SHARED = 0.1
"""Share of the patients who are at several sites, above which their ids may be several persons', where no issuer is named."""
ISSUERS = "its Patient ID belongs to patients of several issuers and its header names no issuer: give it one"


def canonical(patient_id: str) -> str:
    """An id without case, spaces and punctuation: ``Pat 001``, ``PAT-001`` and ``pat001`` are one patient.

    Letters, digits and combining marks stay; an empty string for an id that has none. A number that a spreadsheet made of an id
    (``12345.0``) is the id, and ``1.000`` is a thousand. To join two patients by mistake (``1-23``, ``12-3``) keeps both in one split,
    which is safe; to tear one apart is not.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", patient_id).casefold())
    if (number := re.fullmatch(r"\s*(?!\d{1,3}[.,]000\s*$)(\d+)[.,]0+\s*", folded)) is not None:
        return number[1]
    return "".join(letter for letter in folded if unicodedata.category(letter)[0] in "LNM")


def by_issuer(rows: pd.DataFrame, settled: Collection[str]) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Patient of every image, ``[n]``, with ids of different issuers kept apart; False where it could be any of several (:data:`ISSUERS`).

    An id is one patient, unless all its images name an issuer and these differ: one patient's files often name it only now and then. What
    earlier ingests decided stays.

    Args:
        rows: ``patient``, by id alone; ``issued``, by id and issuer, empty where no issuer is named.
        settled: patients of earlier ingests.
    """
    import numpy as np  # not in a plan, which reads ids alone

    patients, kept = rows["patient"].to_numpy(str), np.ones(len(rows), bool)
    issued = rows["issued"].to_numpy(str)
    if not (issued != "").any():
        return patients, kept
    result = patients.copy()
    for patient, places in rows.groupby("patient").indices.items():
        if patient in settled:
            continue
        named = {one for one in issued[places].tolist() if one}
        earlier = any(one in settled for one in named)
        if earlier or (len(named) > 1 and (issued[places] != "").all()):
            result[places] = issued[places]
            kept[places] = issued[places] != ""
    return result, kept


def notes(rows: pd.DataFrame) -> list[str]:
    """What a person should know of the patients, with counts.

    Args:
        rows: ``patient``; ``spelling``, a digest of the id as it was written; ``in_header``, the header's patient where a table names one
            too, otherwise empty.
    """
    found = []
    spellings = rows.groupby("patient")["spelling"].nunique()
    if (joined := spellings[spellings > 1]).size:
        found.append(
            f"{int(joined.sum())} spellings of patient ids, different in case, spaces or punctuation only, were joined into {len(joined)} "
            f"patients"
        )
    images = rows["patient"].value_counts()
    if len(images) and (most := int(images.iloc[0])) > max(LARGEST * len(rows), 10 * images.median()):
        found.append(
            f"one patient has {most} of {len(rows)} images, and the median patient {images.median():g}: if that id means nobody, as "
            f"ANONYMOUS does, say in the label table's patient_id whose they are, or leave them out"
        )
    sites = (
        rows[rows["site"] != ""].groupby("patient")["site"].nunique()
        if "issued" in rows and not (rows["issued"] != "").any()
        else images[:0]
    )
    if (several := int((sites > 1).sum())) > SHARED * len(images):
        found.append(
            f"{several} of {len(images)} patients have images from several sites: if one id is another patient's there, begin the label "
            f"table's patient_id with the site"
        )
    both = rows[rows["in_header"] != ""]
    in_table, in_header = both.groupby("patient")["in_header"].nunique(), both.groupby("in_header")["patient"].nunique()
    if (merged := in_table[in_table > 1]).size:
        found.append(f"the label table's patient_id joins {int(merged.sum())} patients of the headers into {len(merged)}: the table wins")
    if (parted := in_header[in_header > 1]).size:
        found.append(f"the label table's patient_id parts {len(parted)} patients of the headers into {int(parted.sum())}: the table wins")
    return found
