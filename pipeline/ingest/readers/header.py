"""What an image's header says, read once: typed, frozen, and the same for every format; a reader fills in what its format knows.

Display, geometry, text guard, allow-list and labels ask it and never the file. What is absent or damaged is empty or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Table:
    """A look-up table as it is stored (PS3.3 C.11.1.1); :func:`pipeline.ingest.readers.display.entries` unpacks it.

    Attributes:
        descriptor: number of entries, first value mapped, bits of an entry; None where it is damaged.
        data: the entries, or their bytes; None where they are absent.
        little_endian: order of the bytes.
        segmented: whether the entries are those of PS3.3 C.7.9.2.
    """

    descriptor: tuple[int, int, int] | None
    data: bytes | tuple[int, ...] | None
    little_endian: bool = True
    segmented: bool = False


@dataclass(frozen=True, slots=True)
class Transform:
    """From stored values to what is displayed, PS3.3 C.11.

    Attributes:
        modality_lut: in place of a rescale.
        slope, intercept: of the rescale; None where there is none.
        rescale_type: unit of the result, such as ``HU``.
        voi_lut: in place of a window.
        window: centre and width of the first window; None where there is none that is a number.
        voi_function: ``LINEAR``, ``LINEAR_EXACT``, ``SIGMOID``, or empty.
        inverse: whether the Presentation LUT Shape inverts.
        palette: for red, green and blue.
    """

    modality_lut: Table | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    voi_lut: Table | None = None
    window: tuple[float, float] | None = None
    voi_function: str = ""
    inverse: bool = False
    palette: tuple[Table, Table, Table] | None = None


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How pixels are stored, PS3.3 C.7.6.3.

    Attributes:
        rows, columns, samples, frames: at least 0.
        photometric: Photometric Interpretation.
        allocated, stored, high: Bits Allocated, Bits Stored and High Bit; None where they are absent.
        signed: whether values are in two's complement; None where that is not said.
        padding: lowest and highest stored value of padding, as the file writes them, in either signedness.
        overlays: the bits of a pixel's allocated ones in which overlay planes are declared (PS3.5 8.1.2, retired), as a mask.
        lossy: whether Lossy Image Compression says that details were lost.
    """

    rows: int = 0
    columns: int = 0
    samples: int = 1
    frames: int = 1
    photometric: str = ""
    allocated: int | None = None
    stored: int | None = None
    high: int | None = None
    signed: bool | None = None
    padding: tuple[int, int] | None = None
    overlays: int = 0
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where pixels lie.

    Attributes:
        position: of the first pixel's centre in the patient, mm (PS3.3 C.7.6.2.1.1).
        cosines: directions of a row and of a column, in the same axes.
        spacing: mm between rows and between columns, at the detector where the patient's is not known.
        aspect: height of a pixel over its width, by a ratio where there is no spacing.
        orientation: Patient Orientation: where rows and columns lead to, such as ``("L", "F")``.
        between: Spacing Between Slices, mm.
    """

    position: tuple[float, ...] | None = None
    cosines: tuple[float, ...] | None = None
    spacing: tuple[float, float] | None = None
    aspect: float = 1.0
    orientation: tuple[str, ...] = ()
    between: float | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """One of the Sequence of Ultrasound Regions (PS3.3 C.8.5.5): the echoes' place on the screen, in pixels, both ends included.

    Attributes:
        left, top, right, bottom: columns and rows, from 0.
        spatial_format: 1 is a two-dimensional image.
        data_type: 1 is tissue.
        mm: between rows and between columns; None where they are not in cm.
    """

    left: int
    top: int
    right: int
    bottom: int
    spatial_format: int | None
    data_type: int | None
    mm: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """A rectangle of pixels, ``bottom`` and ``right`` not included; ``mm`` between its rows and its columns, None where it is not told."""

    top: int
    left: int
    bottom: int
    right: int
    mm: tuple[float, float] | None

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


@dataclass(frozen=True, slots=True)
class Origin:
    """How the image came about, as far as it tells whether text is in the pixels; words in upper case.

    Attributes:
        burned_in_annotation, recognizable_visual_features: ``YES``, ``NO`` or empty.
        image_type: all of its values.
        conversion_type, capture_device, manufacturer, model: empty where absent.
        scan: the part of an ultrasound machine's screen that shows the patient; None where the header does not say, or it is the whole.
    """

    burned_in_annotation: str = ""
    recognizable_visual_features: str = ""
    image_type: tuple[str, ...] = ()
    conversion_type: str = ""
    capture_device: str = ""
    manufacturer: str = ""
    model: str = ""
    scan: Scan | None = None


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What tells slices at one position apart, and how many there should be.

    Attributes:
        phase: values of :data:`pipeline.ingest.readers.attributes.PHASES`, an empty string for none.
        trigger_time: ms after the heart's R wave, or of a respiratory phase.
        time: s since midnight.
        number: Acquisition Number.
        slices: Number of Slices of the volume.
        images: Images in Acquisition.
        mosaic: how many slices lie side by side in the image; 0 for an ordinary image, None where they do and the header does not say.
        mosaic_normal: from one of these slices to the next.
    """

    phase: tuple[str, ...] = ()
    trigger_time: float | None = None
    time: float | None = None
    number: str = ""
    slices: int | None = None
    images: int | None = None
    mosaic: int | None = 0
    mosaic_normal: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """One image's header, identities included: for the allow-list and the label table only.

    Attributes:
        sop_class_uid: what kind of object it is.
        sop_instance_uid: the image's own; for a file without one, its path in the folder.
        series_instance_uid, study_instance_uid, patient_id, issuer_of_patient_id: empty where absent, as are all texts.
        patient_sex, patient_age, institution_name, body_part_examined, modality, view_position: as written.
        image_laterality, laterality: of the image, of the series.
        presentation_intent_type: ``FOR PRESENTATION`` or ``FOR PROCESSING``.
        acquisition_protocol_name: as a label table says it: a protocol's free text stays in the file.
        damaged: keywords of numbers that are there and cannot be read.
        also: texts of further keywords that were asked for.
    """

    sop_class_uid: str = ""
    sop_instance_uid: str = field(default="", repr=False)
    series_instance_uid: str = field(default="", repr=False)
    study_instance_uid: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    issuer_of_patient_id: str = field(default="", repr=False)
    patient_sex: str = ""
    patient_age: str = field(default="", repr=False)
    institution_name: str = field(default="", repr=False)
    body_part_examined: str = ""
    modality: str = ""
    view_position: str = ""
    image_laterality: str = ""
    laterality: str = ""
    presentation_intent_type: str = ""
    acquisition_protocol_name: str = field(default="", repr=False)
    pixels: PixelFormat = PixelFormat()
    transform: Transform = Transform()
    geometry: Geometry = Geometry()
    origin: Origin = Origin()
    acquisition: Acquisition = Acquisition()
    damaged: frozenset[str] = frozenset()
    also: Mapping[str, str] = field(default_factory=dict, repr=False)


def of_file(path: Path, root: Path | None = None, modality: str | None = None) -> Header:
    """What is known of a file without a header like DICOM's: its path below ``root`` takes the place of a UID."""
    name = path.relative_to(root.expanduser()).as_posix() if root is not None else path.name
    return Header(sop_instance_uid=name, modality=(modality or "").upper())
