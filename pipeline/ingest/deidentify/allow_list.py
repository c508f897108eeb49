"""De-identification by allow-list: what is not named here does not leave the source file.

Kept values are never copied as text: each is looked up in the terms that DICOM defines for its attribute, parsed as a number, or
replaced by an HMAC. A name typed into the wrong attribute therefore does not pass either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.artifacts import keyed
from pipeline.ingest.patients import canonical
from pipeline.ingest.readers.header import Header

# Defined terms of planar images, PS3.3 C.7.3.1.1.1.
MODALITIES = frozenset({"CR", "CT", "DX", "ES", "IO", "MG", "MR", "NM", "OP", "OPT", "OT", "PT", "PX", "RF", "RG", "US", "XA", "XC"})
# Defined terms of View Position, PS3.3 C.8.11.5 (DX), C.8.1.1 (CR) and C.8.11.7 (MG).
VIEWS = frozenset(
    {"AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT", "LATERAL", "OBLIQUE"}
    | {"CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "FB", "SIO", "ISO", "CV", "AT"}
)
# What the pixels may say of side, view and position: a marker that reads as nothing else is no identity.
SIDES = ("L", "R", "LT", "RT", "LEFT", "RIGHT")
SEEN_FROM = (
    *("AP", "PA", "LAT", "LATERAL", "OBL", "OBLIQUE", "CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "AXIAL"),
    *("SUPINE", "PRONE", "ERECT", "UPRIGHT", "STANDING", "SITTING", "DECUB", "DECUBITUS", "PORTABLE", "MOBILE"),
)
# With and without a space between two of them.
MARKERS = frozenset(
    {*SIDES, *SEEN_FROM, *(side + view for side in ("L", "R") for view in SEEN_FROM)}
    | {view + position for view in SEEN_FROM for position in SEEN_FROM if len(position) >= 5}
)
LATERALITIES = frozenset({"L", "R", "B", "U"})
SEXES = frozenset({"M", "F", "O"})
OLDEST_BAND = 90
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class Fields:
    """What is kept of one header; an empty string where it is absent or not a defined term.

    Attributes:
        id: pseudonym of the image, 16 hexadecimal digits.
        patient: pseudonym of the patient, 16 hexadecimal digits.
        modality: one of :data:`MODALITIES`.
        view: one of :data:`VIEWS`.
        laterality: one of :data:`LATERALITIES`.
        site: pseudonym of the institution, such as ``site-3f2a``.
        sex: one of :data:`SEXES`.
        age_band: ten years, such as ``40-49``; ``90+`` holds all older ones.
        acquisition: pseudonym of what a label table calls its acquisition (a scanner, a protocol), such as ``acquisition-81c0``.
    """

    id: str
    patient: str
    modality: str
    view: str
    laterality: str
    site: str
    sex: str
    age_band: str
    acquisition: str


def keep(header: Header, key: bytes) -> Fields:
    """The fields that stay of a header with Patient ID and SOP Instance UID; pseudonyms are HMACs under ``key``.

    The patient is the Patient ID without case, spaces and punctuation. Its issuer is not part of the pseudonym
    (:func:`pipeline.ingest.patients.by_issuer` keeps issuers apart).
    """

    def term(written: str, terms: frozenset[str]) -> str:
        return written.upper() if written.upper() in terms else ""

    def group(name: str, value: str) -> str:
        return f"{name}-{keyed(key, name, value)[:4]}" if value else ""

    return Fields(
        id=keyed(key, "image", header.sop_instance_uid)[:16],
        patient=keyed(key, "patient", canonical(header.patient_id))[:16],
        modality=term(header.modality, MODALITIES),
        view=term(header.view_position, VIEWS),
        laterality=term(header.image_laterality, LATERALITIES) or term(header.laterality, LATERALITIES),
        site=group("site", header.institution_name.casefold()),
        sex=term(header.patient_sex, SEXES),
        age_band=age_band(header.patient_age),
        acquisition=group("acquisition", header.acquisition_protocol_name.casefold()),
    )


def age_band(age: str) -> str:
    """Ten-year band of a DICOM age string (PS3.5 6.2, ``045Y``, ``011M``); ages of 90 and above are pooled, as HIPAA's safe harbour
    (45 CFR 164.514(b)(2)(i)(C)) asks. An empty string for anything else."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", age)
    if match is None:
        return ""
    years = int(match[1]) * _YEARS[match[2]]
    decade = int(years // 10) * 10
    return f"{OLDEST_BAND}+" if decade >= OLDEST_BAND else f"{decade}-{decade + 9}"


_FILES = {
    "pictures": (
        "Of a picture only its pixels are kept, turned upright where EXIF says how; EXIF, XMP, comments and all else in the file are left "
        "behind, and its size in mm is taken as unknown."
    ),
    "nifti": (
        "Of a NIfTI file only its voxels are kept, with the spacing of their grid; every other field of its header (descrip, aux_file, "
        "db_name, intent_name) and its extensions are left behind."
    ),
}
_DICOM = (
    "Only the attributes named here are kept; every other one, private ones, nested sequences and overlays included, is left behind.",
    "Patient ID and SOP Instance UID are replaced by HMAC-SHA-256 pseudonyms under a secret key that is in no output.",
    "Institution Name is replaced by a pseudonymous site index made with the same key, and so is a label table's acquisition.",
    "What a label table says of patient, sex, age, site, view and side wins over the header and is treated like it.",
    "Modality, view position, laterality and sex are kept where they equal a term that DICOM defines, and are emptied otherwise.",
    "Patient's Age is kept as a ten-year band; 90 years and above are one band.",
    "No date and no time is kept, not even shifted.",
    "No free text is kept: descriptions, comments, names and addresses are left behind.",
    "Radiographs and mammograms are turned into their standard view by Patient Orientation; what was turned is kept as a word.",
    "Pixel spacing is kept; pixel values are windowed to 8 or 16 bits, MONOCHROME1 is inverted, colour becomes luminance by default.",
    "Images whose header declares burned-in annotation, recognisable visual features, or a screen are quarantined.",
)
_WITHOUT_HEADER = (
    "A file's path is replaced by an HMAC-SHA-256 pseudonym under a secret key that is in no output, and so is a label table's patient_id; "
    "where nobody says whose an image is, its patient is a pseudonym of its values.",
    "A label table's site and acquisition are replaced by pseudonymous indices made with the same key.",
    "The modality that the configuration names, and a label table's view, side and sex, are kept where they equal a term that DICOM "
    "defines, and are emptied otherwise.",
    "A label table's age is kept as a ten-year band; 90 years and above are one band.",
    "No date and no time is kept, not even shifted.",
    "No free text is kept: file names, comments and what a label table says beside the columns named here are left behind.",
    "Values are mapped to 8 or 16 bits, colour becomes luminance by default.",
)
_CROPPED = "Ultrasound is cropped to the largest two-dimensional region that its header calibrates (Sequence of Ultrasound Regions)."
_SEARCH = (
    "Every image is searched for burned-in text of three letters or more, 10 px high or higher; what is found is read, and the image "
    "quarantined where words or numbers are read, or where they could be there unread."
)
_MARKERS = (
    "A single letter, as of a laterality marker, is not taken for text and stays in the pixels; two letters mostly are.",
    f"Markers of side and view that stand alone are no identity and stay: {', '.join(SIDES + SEEN_FROM)}, and a view with "
    "L or R before it.",
)
_REPORTS = "Of a label table's reports only words of a closed clinical vocabulary are kept."


def describe(source: str = "dicom", burned_in: str = "strict", mask: int = 0, *, reports: bool = False) -> list[str]:
    """What de-identification does, one sentence an action, for the cards and for a reviewer.

    Args:
        source: ``ingest.source``, whose files have a header like DICOM's, or none that counts (``pictures``, ``nifti``). A published data
            set (``medmnist``) has no patient data, and nothing is done to it.
        burned_in: ``ingest.burned_in``.
        mask: the number of rectangles in ``ingest.mask``.
        reports: whether ``ingest.report`` names a column of the label table.
    """
    if source == "medmnist":
        return []
    of_files = source in _FILES
    undeclared = "" if of_files else " without being declared"
    blanked = f"{mask} rectangles, which the user named, are blanked in every image before anything looks at it."
    kinds = (
        "Files are left out where the modality that the configuration names is one that often has text (ultrasound, endoscopy, "
        "photographs, secondary captures)."
        if of_files
        else "Ultrasound without such a region, photographs, secondary captures and digitised films are left out if they deny no text."
    )
    return [
        *((_FILES[source], *_WITHOUT_HEADER) if of_files else _DICOM),
        *([_REPORTS] if reports else []),
        *([blanked] if mask else []),
        *([] if of_files else [_CROPPED]),
        *([kinds] if burned_in == "strict" else []),
        _SEARCH if burned_in != "declared" else f"Text burned into the pixels{undeclared} is not searched for.",
        *_MARKERS,
        "No table from identities to pseudonyms is written anywhere.",
    ]
