"""From a pydicom data set to a :class:`~pipeline.ingest.readers.header.Header`: no damaged value raises, and none is printed."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.ingest.readers import makers, ultrasound
from pipeline.ingest.readers.header import Acquisition, Geometry, Header, Origin, PixelFormat, Region, Table, Transform
from pipeline.ingest.readers.values import items, number, seconds, tag_of, texts_of

if TYPE_CHECKING:
    from pydicom import Dataset

CENTIMETRES = 3  # Physical Units X and Y Direction (0018,6024), (0018,6026)
# What tells slices at one position apart by its value, in the order in which it is tried.
PHASES = (
    *("AcquisitionNumber", "EchoNumbers", "TemporalPositionIdentifier", "TemporalPositionIndex", "DiffusionBValue", "ImageType"),
    *("EchoTime", "EffectiveEchoTime", "InversionTime", "FrameReferenceTime", "NominalCardiacTriggerDelayTime", "TriggerTime"),
)
COLOURS = ("Red", "Green", "Blue")
# The only attributes that are parsed at all.
READ = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "InstitutionName"),
    *("PatientID", "IssuerOfPatientID", "PatientSex", "PatientAge", "BodyPartExamined", "PresentationIntentType"),
    *("ViewPosition", "ImageLaterality", "Laterality", "PatientOrientation"),
    *("BurnedInAnnotation", "RecognizableVisualFeatures", "Manufacturer", "ManufacturerModelName", "ConversionType"),
    *("SecondaryCaptureDeviceManufacturer", "SequenceOfUltrasoundRegions", "DirectoryRecordSequence"),
    *PHASES,
    *("AcquisitionTime", "AcquisitionDateTime", "NumberOfSlices", "ImagesInAcquisition", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("LossyImageCompression", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType", "PresentationLUTShape"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in COLOURS),
)
# Overlay Bit Position (60xx,0102) of the sixteen planes (PS3.3 C.9.2).
OVERLAYS = tuple(group << 16 | 0x0102 for group in range(0x6000, 0x6020, 2))
GROUPS = (
    *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "FrameVOILUTSequence", "FrameContentSequence"),
    *(
        "PixelValueTransformationSequence",
        "MRDiffusionSequence",
        "MREchoSequence",
        "CardiacSynchronizationSequence",
        "FrameAnatomySequence",
    ),
)
FUNCTIONAL = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
PIXEL_GROUP = 0x7FE00000
DIRECTORY = "1.2.840.10008.1.3.10"


def parsed(dataset: Dataset, also: Sequence[str] = ()) -> Header:
    """The header of a data set; ``also`` names further keywords whose texts are wanted."""
    return _Attributes(dataset).header(also)


def framed(dataset: Dataset, frame: int, also: Sequence[str] = ()) -> Header:
    """The header of one frame: what the functional groups of an enhanced object say of it (PS3.3 C.7.6.16), at the top."""
    flat = dataset[:PIXEL_GROUP]
    shared, each = ([*items(flat, name)] for name in FUNCTIONAL)
    for name in FUNCTIONAL:
        if name in flat:
            del flat[name]
    for groups in (*shared[:1], *each[frame : frame + 1]):
        for name in GROUPS:
            for item in items(groups, name)[:1]:
                flat.update(item)
    return parsed(flat, also)


class _Attributes:
    """Values of one data set, and what was found damaged among them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        # By number: to ask pydicom for each attribute takes longer than all else, and most are absent.
        self.elements: dict[int, Any] = {int(tag): element for tag, element in dataset.items()}
        self.damaged: set[str] = set()

    def header(self, also: Sequence[str]) -> Header:
        said = self.text
        sop_class = DIRECTORY if tag_of("DirectoryRecordSequence")[0] in self.elements else said("SOPClassUID")
        if not sop_class:
            meta: Any = getattr(self.dataset, "file_meta", None) or {}
            sop_class = str(meta.get("MediaStorageSOPClassUID") or "")
        pixels = self._pixels()
        origin = self._origin(pixels)
        return Header(
            sop_class_uid=sop_class,
            sop_instance_uid=said("SOPInstanceUID"),
            series_instance_uid=said("SeriesInstanceUID"),
            study_instance_uid=said("StudyInstanceUID"),
            patient_id=said("PatientID"),
            issuer_of_patient_id=said("IssuerOfPatientID"),
            patient_sex=said("PatientSex"),
            patient_age=said("PatientAge"),
            institution_name=said("InstitutionName"),
            body_part_examined=said("BodyPartExamined"),
            modality=said("Modality").upper(),
            view_position=said("ViewPosition"),
            image_laterality=said("ImageLaterality") or said("FrameLaterality"),
            laterality=said("Laterality"),
            presentation_intent_type=said("PresentationIntentType").upper(),
            pixels=pixels,
            transform=self._transform(pixels),
            geometry=self._geometry(),
            origin=origin,
            acquisition=self._acquisition(origin),
            also=MappingProxyType({keyword: said(keyword) for keyword in also}),
            damaged=frozenset(self.damaged),
        )

    def text(self, keyword: str) -> str:
        found = self.texts(keyword)
        return found[0] if found else ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        tag, vr = tag_of(keyword)
        return texts_of(self.dataset, self.elements[tag], vr) if tag in self.elements else ()

    def items(self, keyword: str) -> list[Dataset]:
        return items(self.dataset, keyword) if tag_of(keyword)[0] in self.elements else []

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """So many finite numbers, or None."""
        written = self.texts(keyword)
        if not written or written == ("",):
            return None
        found = [number(part) for part in written]
        if len(found) != count or None in found:
            self.damaged.add(keyword)
            return None
        return tuple(part for part in found if part is not None)

    def first(self, keyword: str) -> float | None:
        """The first number of several, or None."""
        written = self.text(keyword)
        found = number(written) if written else None
        if written and found is None:
            self.damaged.add(keyword)
        return found

    def integer(self, keyword: str | int) -> int | None:
        """A whole number, or None."""
        tag, _ = tag_of(keyword)
        if tag not in self.elements:
            return None
        raw: Any = self.elements[tag] if isinstance(self.elements[tag], tuple) else None
        # One number of two bytes; what may be of either sign is taken to be unsigned (PixelFormat.padding).
        if raw and isinstance(raw.value, bytes) and len(raw.value) == 2 and raw.VR in ("US", "SS", None):
            return int.from_bytes(raw.value, "little" if raw.is_little_endian else "big")
        try:
            value = self.dataset[tag].value
            if isinstance(value, bytes) and value:  # of a VR that depends on the others
                return int.from_bytes(value[:2], "little" if self.little_endian else "big")
            return None if value is None or value in ("", b"") else int(value)
        except Exception:
            self.damaged.add(str(keyword))
            return None

    @property
    def little_endian(self) -> bool:
        return self.dataset.original_encoding[1] is not False

    def _pixels(self) -> PixelFormat:
        whole = self.integer
        sign, padding = whole("PixelRepresentation"), whole("PixelPaddingValue")
        limit = whole("PixelPaddingRangeLimit") if padding is not None else None
        planes = [whole(tag) or 0 for tag in OVERLAYS if tag in self.elements]
        return PixelFormat(
            rows=max(whole("Rows") or 0, 0),
            columns=max(whole("Columns") or 0, 0),
            samples=max(whole("SamplesPerPixel") or 1, 1),
            frames=max(whole("NumberOfFrames") or 1, 1),
            photometric=self.text("PhotometricInterpretation").upper(),
            allocated=whole("BitsAllocated"),
            stored=whole("BitsStored"),
            high=whole("HighBit"),
            signed=bool(sign) if sign in (0, 1) else None,
            padding=None if padding is None else (padding, padding if limit is None else limit),
            overlays=functools.reduce(operator.or_, (1 << place for place in planes if 0 < place < 64), 0),
            lossy=self.text("LossyImageCompression") == "01",
        )

    def _transform(self, pixels: PixelFormat) -> Transform:
        centre, width = self.first("WindowCenter"), self.first("WindowWidth")
        return Transform(
            modality_lut=self._lut("ModalityLUTSequence"),
            slope=self.first("RescaleSlope"),
            intercept=self.first("RescaleIntercept"),
            rescale_type=self.text("RescaleType").upper(),
            voi_lut=self._lut("VOILUTSequence"),
            window=None if centre is None or width is None else (centre, width),
            voi_function=self.text("VOILUTFunction").upper(),
            inverse=self.text("PresentationLUTShape").upper() == "INVERSE",
            palette=self._palette() if pixels.photometric == "PALETTE COLOR" else None,
        )

    def _lut(self, keyword: str) -> Table | None:
        items = self.items(keyword)
        return self._table(items[0], "LUTDescriptor", "LUTData") if items else None

    def _palette(self) -> tuple[Table, Table, Table]:
        red, green, blue = (
            self._table(self.dataset, f"{name}Descriptor", f"{name}Data")
            for name in (f"{colour}PaletteColorLookupTable" for colour in COLOURS)
        )
        return red, green, blue

    def _table(self, where: Dataset, descriptor: str, data: str) -> Table:
        segmented = data not in where and f"Segmented{data}" in where
        try:
            numbers = [int(part) for part in where.get(descriptor) or ()]
            stored: Any = where.get(f"Segmented{data}" if segmented else data)
            if stored is not None and not isinstance(stored, bytes):
                stored = tuple(int(part) for part in (stored if hasattr(stored, "__iter__") else [stored]))
        except Exception:
            return Table(None, None)
        return Table((numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None, stored, self.little_endian, segmented)

    def _geometry(self) -> Geometry:
        spacing, aspect = None, 1.0
        for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
            mm = self.numbers(name, 2)
            if mm is not None and min(mm) > 0:
                spacing, aspect = (mm[0], mm[1]), mm[0] / mm[1]
                break
        if spacing is None and (ratio := self.numbers("PixelAspectRatio", 2)) is not None and min(ratio) > 0:
            aspect = ratio[0] / ratio[1]
        return Geometry(
            position=self.numbers("ImagePositionPatient", 3),
            cosines=self.numbers("ImageOrientationPatient", 6),
            spacing=spacing,
            aspect=aspect,
            orientation=tuple(part.upper() for part in self.texts("PatientOrientation")),
            between=self.first("SpacingBetweenSlices"),
        )

    def _origin(self, pixels: PixelFormat) -> Origin:
        def word(keyword: str) -> str:
            return self.text(keyword).upper()

        return Origin(
            burned_in_annotation=word("BurnedInAnnotation"),
            recognizable_visual_features=word("RecognizableVisualFeatures"),
            image_type=tuple(part.upper() for part in self.texts("ImageType")),
            conversion_type=word("ConversionType"),
            capture_device=word("SecondaryCaptureDeviceManufacturer"),
            manufacturer=word("Manufacturer"),
            model=word("ManufacturerModelName"),
            scan=ultrasound.scan(self.text("Modality"), _regions(self.items("SequenceOfUltrasoundRegions")), pixels.rows, pixels.columns),
        )

    def _acquisition(self, origin: Origin) -> Acquisition:
        phase = ["\\".join(self.texts(name)) for name in PHASES]
        place = PHASES.index("DiffusionBValue")
        phase[place] = phase[place] or (makers.b_value(self.dataset) if self.text("Modality") == "MR" else "")
        time = next(
            (found for name in ("AcquisitionTime", "AcquisitionDateTime", "FrameAcquisitionDateTime") if (found := self.text(name))),
            "",
        )
        mosaic, normal = makers.mosaic(self.dataset) if "MOSAIC" in origin.image_type else (0, None)
        return Acquisition(
            phase=tuple(phase),
            trigger_time=self.first("TriggerTime") if self.text("TriggerTime") else self.first("NominalCardiacTriggerDelayTime"),
            time=seconds(time),
            number=self.text("AcquisitionNumber"),
            slices=self.integer("NumberOfSlices"),
            images=self.integer("ImagesInAcquisition"),
            mosaic=mosaic,
            mosaic_normal=normal,
        )


def _regions(items: Sequence[Dataset]) -> Iterator[Region]:
    for item in items:
        values = _Attributes(item)
        names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        left, top, right, bottom = (values.integer(name) for name in names)
        if left is None or top is None or right is None or bottom is None:
            continue
        kind = values.integer("RegionSpatialFormat"), values.integer("RegionDataType")
        yield Region(left, top, right, bottom, *kind, _millimetres(values))


def _millimetres(values: _Attributes) -> tuple[float, float] | None:
    """Mm between the rows and between the columns of a region, where both directions are in cm (PS3.3 C.8.5.5.1.3)."""
    if any(values.integer(f"PhysicalUnits{axis}Direction") != CENTIMETRES for axis in "XY"):
        return None
    down, across = (values.first(f"PhysicalDelta{axis}") for axis in "YX")
    return None if down is None or across is None else (10 * abs(down), 10 * abs(across))
