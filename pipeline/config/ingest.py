"""The section ``ingest``: what is read, at which size, and how patients are split."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.section import Code, Fraction, Location, Section, unit

LONGEST = 64
"""Letters of a class name: as many as a value of DICOM's LO may have (PS3.5 section 6.2), in which synthetic images name their class."""


def _name(name: str) -> str:
    if name != name.strip() or not name.strip(".") or any(letter in "/\\" for letter in name):
        raise PydanticCustomError("class", "no class name: it begins or ends with a space, holds / or \\, or is of dots alone: rename it")
    return name


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, none of which is another in other letters: to a person and on many file systems they would be the same."""
    if not names:
        raise PydanticCustomError("class", "name at least one class")
    alike: dict[str, str] = {}
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
        if plain in alike:
            raise PydanticCustomError("class", "{names} are one name", {"names": f"{alike[plain]!r} and {name!r}"})
        alike[plain] = name
    return names


ClassName = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_name)]
# No modality's stored values, nor what a rescale makes of them, come near.
Bound = Annotated[float, Field(ge=-1e9, le=1e9), unit("in the modality's units")]
Share = Annotated[float, unit("as a share")]
AttributeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
AttributeKind = Literal["number"] | Annotated[tuple[ClassName, ...], Field(min_length=2), AfterValidator(_distinct)]


TAKEN = ("text", "without_text", "file", "label", "patient_id", "sex", "age", "age_band", "site", "view", "laterality", "acquisition")
"""Names of what a table says beside attributes."""


class QueryConfig(Section):
    """What is asked of a PACS over DICOMweb; every criterion narrows the answer."""

    url: Annotated[str, Field(pattern=r"^[^@\s]+$")]
    """Root of the DICOMweb service, such as ``https://pacs.example.org/dicom-web``. A user and a password come from the environment
    (SYNTHCOHORT_DICOMWEB_USER, SYNTHCOHORT_DICOMWEB_PASSWORD), never from here."""
    modality: Code
    """Modality of the series, such as ``DX``."""
    dates: Annotated[str, Field(pattern=r"^\d{8}(-\d{8})?$")] | None = None
    """Study dates, ``YYYYMMDD`` or ``YYYYMMDD-YYYYMMDD``."""
    body_part: Code | None = None
    """Body Part Examined, such as ``CHEST``."""


class IngestConfig(Section):
    """What is read, at which size, and how patients are split."""

    source: Literal["phantom", "dicom", "dicomweb", "nifti", "pictures", "medmnist"]
    """Where the images come from: the embedded phantom, a folder of DICOM files, a PACS, a folder of NIfTI volumes, a folder of PNG, JPEG
    or TIFF pictures, or a MedMNIST data set."""
    path: Location | None = None
    """The folder of the files. dicomweb: the folder with the label table. medmnist: the folder with the ``.npz`` (by default the medmnist
    package's own root)."""
    holdout: Location | None = None
    """A foreign set's non-members: a folder like ``path``, of patients whom its generator never saw. They are the split ``audit``, after
    ``val_share`` and ``test_share`` of them; all of ``path`` is ``train``."""
    query: QueryConfig | None = None
    """dicomweb: where the PACS is, and what is asked of it."""
    dataset: Annotated[str, Field(pattern=r"^[a-z0-9]{1,40}$")] | None = None
    """medmnist: the data set's flag, such as ``breastmnist``."""
    labels: Annotated[str, Field(min_length=1, max_length=255)] = "labels.csv"
    """A table inside ``path``, with a column ``file``, ``sop_instance_uid``, ``series_instance_uid`` or ``patient_id``, and a column
    ``label``: text separated by comma, semicolon, tab or bar, in UTF-8, UTF-16 with its mark, or Windows-1252. ``patient_id``,
    ``sex``, ``age`` (years), ``site``, ``view``, ``laterality`` and ``acquisition`` are read for every source and win over the header;
    ``PatientID``, ``Patient ID``, ``FileName`` and the like are understood. Where no ``labels.csv`` is there, the only other table with
    such a column is taken. pictures: where there is none, or it has no ``label``, the folder of a picture names its class."""
    label_table: Location | None = None
    """A foreign set: one such table, wherever it lies, for ``path``, ``holdout`` and ``generate.import_from`` together, instead of one in
    each. Its ``file`` is relative to the folder that holds the file; no row may mean files in two of them."""
    unlabelled: bool = False
    """A foreign set without classes: every image is of the one name in ``classes``. A table, if there is one, says whose they are."""
    label_field: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")] | None = None
    """dicom, dicomweb: an attribute whose value is the class, such as ``BodyPartExamined``, instead of the table's ``label``."""
    several_findings: bool = False
    """Whether an image can have several findings, or none: ``labels`` then has a column for each class, with 1, 0 or -1 (unknown) or words
    such as true, no and uncertain, and what is left blank is absent where a column ``No Finding`` has 1; or a column ``label`` that names
    them with bars between, as in ``Effusion|Nodule`` or ``No Finding``, or as a list; those that it does not name are absent, and
    ``normal`` is none unless it is a class. phantom: draw such a cohort."""
    attributes: dict[AttributeName, AttributeKind] = Field(default_factory=dict)
    """Further columns of ``labels`` that a model can be told of (``train.attributes``): ``number``, or the texts that may be there, such as
    ``{severity: number, side: [left, right]}``. Anything else in them is unknown."""
    report: Annotated[str, Field(min_length=1, max_length=LONGEST)] | None = None
    """A further column of ``labels`` with free text, such as ``report``, that a model can be told of (``train.text``). It is kept in the
    words of a closed clinical vocabulary alone: no name, number, date or rare word is stored. Words of the cohort are among them only where
    a column ``patient_id`` says how many patients have each."""
    text_encoder: Location | None = None
    """The folder of a sentence-transformers or Hugging Face model of texts on this disk (needs the extra ``text``), with its weights as
    safetensors. Its features of each word of the vocabulary, computed once and frozen, take the place of those that are learned, so that a
    prompt may also have listed words that no report had (as an extrapolation). To generate from a trained model takes no such folder."""
    classes: Annotated[tuple[ClassName, ...], AfterValidator(_distinct)] | None = None
    """The class names in order; a label that is none of them is an error. phantom, medmnist: the data set's own classes."""
    dimensions: Literal[2, 3] | None = None
    """2: every image or frame by itself; 3: volumes, which dicom assembles from series. By default 3 for nifti and for MedMNIST's 3-D sets,
    otherwise 2."""
    size: Annotated[int, Field(ge=16, le=512), unit("pixels")] = 32
    """Side of the square images, or cubic volumes, that the pipeline works on, in pixels."""
    spacing: Annotated[float, Field(ge=1e-5, le=100), unit("mm")] | None = None
    """Millimetres between pixels; by default each image is scaled so that its longer side fills the square."""
    colour: bool = False
    """Three channels instead of luminance. MedMNIST's colour sets always have three."""
    bits: Literal[8, 16] = 8
    """Bits of each value; 16 keeps what the source has beyond 8."""
    scaling: dict[Code, Literal["header", "percentile"] | tuple[Bound, Bound]] = Field(default_factory=dict)
    """Display range by modality, such as ``CT: [-160, 240]`` or ``MR: percentile``: a window in the modality's units, the percentiles .5
    and 99.5 of each image, or ``header``, the default: the file's own window, percentiles where it has none."""
    modality: Code | None = None
    """nifti, pictures: the DICOM modality of the images, such as ``CT``, which the files do not say."""
    burned_in: Literal["strict", "search", "declared"] = "strict"
    """Which images are left out for text in their pixels. strict: what declares text, what is of a kind that nearly always has it
    (ultrasound without a calibrated region, photographs, secondary captures) and does not deny it, and where a search of the pixels finds
    text; search: the pixels decide on such kinds; declared: only what the header declares. MedMNIST is not searched: it is
    published without text."""
    mask: tuple[tuple[Share, Share, Share, Share], ...] = ()
    """Rectangles that are blanked in every image before anything looks at it, such as ``[[0, 0, 1, 0.08]]`` for a banner over the upper
    8 %: left, top, right and bottom as shares of the stored width and height, so that one mask fits images of any size."""
    phantom_patients: Annotated[int, Field(ge=1, le=1_000_000), unit("patients")] = 1000
    """phantom: how many patients to draw; each has one to four images."""
    audit_share: Fraction = 0.43
    """Share of train + audit that is sealed from training and used as non-members; the audit's power hangs on it. The default is the least
    at which ten copied patients who lead the ranking of nearest ones are evidence enough: the chance of it is 0.57^10 = 0.0036, under the
    gate's 0.004. At a third it takes fourteen, and ten are seen in a fifth of all cases. This and the shares below decide on patients whom
    no earlier run of the cohort has assigned."""
    val_share: Annotated[float, Field(ge=0, lt=1), unit("as a share")] = 0.15
    """Share of all patients used to select and to fit encoders (a data set's official split wins)."""
    test_share: Annotated[float, Field(ge=0, lt=1), unit("as a share")] = 0.2
    """Share of all patients that is reported once (a data set's official split wins). Both may be 0 for a ``holdout``, so that all of it
    calibrates the audit; nothing is then left to evaluate and to stress with."""
    replication: bool = False
    """Draw splits of this run's own, whatever is settled for the cohort, to see how far a result hangs on the split. Nothing of it is kept
    with the cohort: it counts as no attempt, and is never released."""

    @property
    def volumes(self) -> bool:
        """Whether the images are three-dimensional."""
        if self.source == "medmnist":
            return str(self.dataset).endswith("3d")
        return (self.dimensions or (3 if self.source == "nifti" else 2)) == 3

    @property
    def told(self) -> dict[str, AttributeKind]:
        """What is read of the label table beside labels and facts: attributes, and a text of no listed values."""
        return self.attributes | ({"text": ()} if self.report is not None else {})

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several findings, or none."""
        return self.several_findings or self.dataset == "chestmnist"

    def not_trainable(self) -> str | None:
        """Why the stages after ingest cannot use the cohort; None where they can."""
        which = [(self.volumes, "3-D volumes"), (self.bits == 16, "16-bit images")]
        found = [name for holds, name in which if holds]
        if not found:
            return None
        return f"this configuration ingests {' and '.join(found)}; the stages after ingest take 2-D 8-bit images"

    @model_validator(mode="after")
    def _needs(self) -> IngestConfig:
        folder, given = self.source in ("dicom", "nifti", "pictures"), f"when ingest.source is {self.source}"
        if (folder or (self.source == "dicomweb" and self.label_field is None)) and self.path is None:
            raise ValueError(f"ingest.path is needed {given}: give --set ingest.path=FOLDER")
        if (folder or self.source == "dicomweb") and not self.classes:
            raise ValueError(f"ingest.classes is needed {given}: name the classes of the label column")
        if self.source == "dicomweb" and self.query is None:
            raise ValueError(f"ingest.query is needed {given}: give its url and modality")
        if self.source == "medmnist" and self.dataset is None:
            raise ValueError("ingest.dataset is needed when ingest.source is medmnist, such as breastmnist")
        if self.label_field is not None and (self.source not in ("dicom", "dicomweb") or self.several_findings):
            raise ValueError("ingest.label_field goes with ingest.source dicom or dicomweb, and with one class an image")
        if self.source == "medmnist" and (self.attributes or self.report is not None):
            raise ValueError("ingest.attributes and ingest.report do not go with MedMNIST, whose sets have labels alone")
        if self.text_encoder is not None and self.report is None:
            raise ValueError("ingest.text_encoder reads reports: name their column in ingest.report, or leave it out")
        if taken := [name for name in self.attributes if name in TAKEN]:
            raise ValueError(f"ingest.attributes: {taken[0]} is read anyway: leave it out, and name it in train.attributes")
        if (self.source, self.dimensions) in (("nifti", 2), ("pictures", 3), ("phantom", 3)):
            raise ValueError(f"ingest.dimensions {self.dimensions} does not go with ingest.source {self.source}: leave it out")
        if self.source == "medmnist" and (self.bits == 16 or self.colour or self.spacing or self.scaling or self.several_findings):
            raise ValueError(
                "ingest.bits, colour, spacing, scaling and several_findings do not go with MedMNIST: its images come as they are"
            )
        if any(not isinstance(how, str) and how[0] >= how[1] for how in self.scaling.values()):
            raise ValueError("ingest.scaling: a window is [low, high], with low under high")
        if self.unlabelled and (len(self.classes or ()) != 1 or self.label_field or self.several_findings):
            raise ValueError("ingest.unlabelled goes with one name in ingest.classes, and without label_field and several_findings")
        if (self.val_share > 0) != (self.test_share > 0):
            raise ValueError("ingest.val_share and ingest.test_share are both 0 or both above it: classifiers need the two")
        if self.mask and self.source == "medmnist":
            raise ValueError("ingest.mask does not go with MedMNIST: its images come as they are")
        for number, (left, top, right, bottom) in enumerate(self.mask, 1):
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1) or (right - left == 1 and bottom - top == 1):
                raise ValueError(
                    f"ingest.mask: rectangle {number} must be [left, top, right, bottom] as shares of the width and the height, from 0 to "
                    "1, with left under right and top under bottom, and must leave something of the image"
                )
        if self.val_share + self.test_share >= 0.9:
            raise ValueError("ingest.val_share + ingest.test_share leave too little to train on: keep their sum under 0.9")
        return self
