"""Invented identities for the phantom cohort: what a hospital's files say about a person, and that must never leave.

No name list of real people is used: names are built from syllables, at least six letters long, so that finding one in a
release is no coincidence.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.phantom.anatomy import Patient

FAMILY = (
    (
        "Brazh",
        "Veltr",
        "Quorn",
        "Thelb",
        "Ostrav",
        "Melkw",
        "Zarund",
        "Fjeld",
        "Grauv",
        "Hexth",
        "Iskand",
        "Jorvel",
        "Kaldr",
        "Lundq",
        "Nystel",
    ),
    ("enkova", "amberg", "osvith", "ellini", "urandt", "iszewska", "otrovic", "amanth", "estergaard", "undsson", "obayeva", "acheux"),
)
GIVEN = (
    ("Ilv", "Tham", "Oryl", "Zeph", "Marw", "Quin", "Sold", "Yev", "Bram", "Cael", "Dorv", "Evand", "Fiorr", "Gwyl", "Hesp"),
    ("andra", "inelle", "osyne", "ariel", "ubert", "etrius", "olomey", "indrik", "aminta", "erique", "oslava", "emund"),
)
CYRILLIC = (("Бражен", "Велтро", "Корнел", "Остравь", "Мелков", "Зарунд"), ("кова", "ский", "иани", "евич", "оглу", "ыкин"))
STREETS = ("Tannengrund", "Rue des Vanniers-Verts", "Kestrelholm Road", "Calle Mirabrisa", "Via Torvalunga", "Osterfjordgata")
TOWNS = ("Quellbruck", "Saint-Aurvin", "Kestrelholm", "Villabrisa", "Torvalunga", "Osterfjordal")
INSTITUTIONS = ("Northmarch Vale Infirmary", "Saltharbour Teaching Hospital")
SERIALS = ("NMV-DR-7719034", "SHT-CR-2208816")
STATIONS = ("NMV_ROOM_1", "SHT_ROOM_2")


@dataclass(frozen=True)
class Identity:
    """What a patient's files say about the person; strings as they stand in the DICOM elements.

    Attributes:
        name: PN with family and given name, for some with an ideographic group or in Cyrillic letters.
        charset: Specific Character Set (0008,0005) that ``name`` needs.
        spoken: the name in Latin letters, as ``Given Family``.
        folder: name of the patient's folder.
        others: further persons: referring, performing and reading physician, operator.
    """

    name: str
    charset: str
    spoken: str
    folder: str
    patient_id: str
    other_id: str
    birth_date: str
    address: str
    phone: str
    insurance: str
    others: tuple[str, str, str, str]
    visits: tuple[VisitIdentity, ...]


@dataclass(frozen=True)
class VisitIdentity:
    """What identifies one visit; ``folder`` is the study's folder, ``file`` the image's name in it."""

    date: str
    time: str
    accession: str
    study_id: str
    study_uid: str
    series_uid: str
    image_uid: str
    folder: str
    file: str


def invented_identity(patient: Patient, seed: int) -> Identity:
    """The identity of a patient, a pure function of ``(seed, patient.index)`` and of the days of the visits."""
    rng = np.random.default_rng([seed, patient.index, 7])
    family, given = _name(rng, FAMILY), _name(rng, GIVEN)
    name, charset = f"{family}^{given}", "ISO_IR 100"
    script = rng.random()
    if script < 0.05:
        name, charset = f"{_name(rng, CYRILLIC)}^{_name(rng, CYRILLIC)}", "ISO_IR 144"
    elif script < 0.08:
        name, charset = f"{family}^{given}=架空蔵前^幻影之介=かくうくらまえ^げんえいのすけ", "ISO_IR 192"
    number = f"{('NMV', 'SHT')[patient.site]}{seed % 1000:03d}{patient.index:06d}{rng.integers(10, 99)}"
    first = datetime.date(2012, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 3650)))
    born = first - datetime.timedelta(days=int(patient.age * 365.25 + rng.integers(5, 360)))
    street = f"{rng.integers(1, 199)} {STREETS[rng.integers(len(STREETS))]}"
    visits = []
    for visit_index, visit in enumerate(patient.visits):
        date = f"{first + datetime.timedelta(days=visit.day):%Y%m%d}"
        accession = f"AC{number[3:12]}X{visit_index}{rng.integers(100, 999)}"
        visits.append(
            VisitIdentity(
                date=date,
                time=f"{rng.integers(7, 19):02d}{rng.integers(60):02d}{rng.integers(60):02d}.{rng.integers(10**6):06d}",
                accession=accession,
                study_id=f"ST{number[6:12]}{visit_index}",
                study_uid=uid(seed, patient.index, visit_index, "study"),
                series_uid=uid(seed, patient.index, visit_index, "series"),
                image_uid=uid(seed, patient.index, visit_index, "image"),
                folder=f"{date}_CHEST_{accession}",
                file=f"{family.upper()}_{accession}" + (".dcm" if rng.random() < 0.8 else ""),
            )
        )
    return Identity(
        name=name,
        charset=charset,
        spoken=f"{given} {family}",
        folder=f"{family.upper()}_{given}_{number}",
        patient_id=number,
        other_id=f"NHS-{rng.integers(10**9, 10**10)}",
        birth_date=f"{born:%Y%m%d}",
        address=f"{street}, {TOWNS[rng.integers(len(TOWNS))]}",
        phone=f"+99 {rng.integers(100, 999)} {rng.integers(100, 999)} {rng.integers(1000, 9999)}",
        insurance=f"INS/{rng.integers(10**7, 10**8)}/{number[-4:]}",
        others=tuple(f"{_name(rng, FAMILY)}^{_name(rng, GIVEN)}^^Dr" for _ in range(4)),  # type: ignore[arg-type]
        visits=tuple(visits),
    )


def uid(seed: int, *parts: object) -> str:
    """A UID under the UUID root 2.25 (PS3.5 B.2) from 128 bits of a hash, the same for the same arguments."""
    digest = hashlib.sha256("/".join(map(str, ("phantom", seed, *parts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _name(rng: np.random.Generator, syllables: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    return "".join(part[rng.integers(len(part))] for part in syllables)
