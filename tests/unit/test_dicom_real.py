"""Real DICOM files: which must be read, why each other is not, and that the pixels are those that dcmtk and OpenJPEG decode."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame

from pipeline.ingest.readers import dicom, series
from pipeline.ingest.readers.reading import Quarantined, Reading
from pipeline.ingest.tasks import Task
from pipeline.ingest.tasks import series as find_series

FOLDERS = {"dicom_pydicom_tests": 185, "dicom_highdicom": 29, "dicom_torchio_series": 17}
# Every image in the folders, with its number of frames where that is not one. pydicom's test files:
GREY = """
CT_small.dcm MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm MR_small_implicit.dcm MR_small_padded.dcm
MR_small_jpeg_ls_lossless.dcm image_dfl.dcm JPEGLSNearLossless_08.dcm JPEGLSNearLossless_16.dcm examples_overlay.dcm
"""
COLOUR = """
ExplVR_BigEnd.dcm SC_rgb_dcmtk_+eb+cy+n2.dcm SC_rgb_dcmtk_+eb+cy+s2.dcm SC_rgb_dcmtk_+eb+cy+s4.dcm SC_rgb_jls_lossy_line.dcm
SC_rgb_jls_lossy_sample.dcm SC_rgb_jpeg_dcmd.dcm SC_rgb_jpeg_dcmtk.dcm SC_rgb_jpeg_gdcm.dcm SC_rgb_rle.dcm SC_rgb_rle_16bit.dcm
SC_rgb_rle_16bit_2frame.dcm:2 SC_rgb_rle_2frame.dcm:2 SC_rgb_rle_32bit.dcm SC_rgb_rle_32bit_2frame.dcm:2 SC_rgb_small_odd.dcm
SC_rgb_small_odd_big_endian.dcm SC_rgb_small_odd_jpeg.dcm examples_rgb_color.dcm
"""
# Lossy JPEG: two decoders may differ by rounding, of the cosine transform (1) and of the change from YBR to RGB (1 more).
LOSSY = """
JPEG-lossy.dcm JPGExtended.dcm SC_jpeg_no_color_transform.dcm SC_jpeg_no_color_transform_2.dcm SC_rgb_dcmtk_+eb+cr.dcm
SC_rgb_dcmtk_+eb+cy+n1.dcm SC_rgb_dcmtk_+eb+cy+np.dcm SC_rgb_jpeg_app14_dcmd.dcm SC_rgb_jpeg_lossy_gdcm.dcm
"""
# dcmtk (Debian) has no codec for JPEG 2000.
JPEG2000 = """
693_J2KI.dcm GDCMJ2K_TextGBR.dcm J2K_pixelrep_mismatch.dcm JPEG2000.dcm MR_small_jp2klossless.dcm SC_rgb_gdcm_KY.dcm examples_jpeg2k.dcm
"""
DISPLAYED = "examples_palette.dcm examples_ybr_color.dcm:30 SC_ybr_full_422_uncompressed.dcm"
# dcmtk refuses this file; its decoded twin is SC_rgb_jpeg_dcmd.dcm.
TWIN = "SC_rgb_jpeg.dcm"
CHARSETS = """
chrArab.dcm chrFren.dcm chrFrenMulti.dcm chrGerm.dcm chrGreek.dcm chrH31.dcm chrH32.dcm chrHbrw.dcm chrI2.dcm chrRuss.dcm chrX1.dcm
chrX2.dcm
"""
DICOMDIR = """
6154 6247 6278 17106 17136 17166 17196 6293 6924 2062 2392 2693 3023 3353 15820 4919 5641 15970 4950 4981 5011 6273 6605 6935
4467 4528 4558 4588 4618 4648 4678
"""
HIGHDICOM = """
ct_image.dcm dx_image.dcm sm_image.dcm:25 sm_image_control.dcm:25 sm_image_dots.dcm:25 sm_image_grayscale.dcm:25
sm_image_grayscale_reversed.dcm:25 sm_image_jpegls.dcm:25 sm_image_jpegls_nobot.dcm:25 sm_image_numbers.dcm:25
"""
TORCHIO = " ".join(f"IMG{number:04d}.dcm" for number in range(1, 18))
MUST = " ".join([GREY, COLOUR, LOSSY, JPEG2000, DISPLAYED, TWIN, CHARSETS, DICOMDIR, HIGHDICOM, TORCHIO])
FRAMES = {name: int(count or 1) for name, _, count in (word.partition(":") for word in MUST.split())}
# Why each other file is left out.
TINY_ALPHA = " ".join(f"IM0000{number}" for number in [*(f"0{digit}" for digit in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")])
WHY = {
    "not a DICOM file": """LICENSE MANIFEST.csv PROVENANCE.txt FileInfo.txt README.txt README README.md crayons.icc no_meta.dcm rtplan.dump
        rtstruct.dump test1.json test_PN.json zipMR.gz frame_rgb.jpeg frame_rgb_empty.jpeg""",
    "a DICOMDIR index": """DICOMDIR DICOMDIR-bigEnd DICOMDIR-empty.dcm DICOMDIR-implicit DICOMDIR-nooffset DICOMDIR-nopatient
        DICOMDIR-reordered""",
    "a structured report": """reportsi.dcm reportsi_with_empty_number_tags.dcm test-SR.dcm sr_document.dcm
        sr_document_with_multiple_groups.dcm""",
    "a segmentation": """liver_1frame.dcm liver_expb_1frame.dcm seg_image_cr_binary.dcm seg_image_ct_binary.dcm
        seg_image_ct_binary_fractional.dcm seg_image_ct_binary_overlap.dcm seg_image_ct_binary_single_frame.dcm
        seg_image_ct_true_fractional.dcm seg_image_sm_control.dcm seg_image_sm_control_labelmap.dcm
        seg_image_sm_control_labelmap_palette_color.dcm seg_image_sm_dots.dcm seg_image_sm_dots_tiled_full.dcm seg_image_sm_numbers.dcm""",
    "annotations": "sm_annotations.dcm",
    "a waveform": "waveform_ecg.dcm",
    "a radiotherapy dose map": """badVR.dcm rtdose.dcm rtdose_1frame.dcm rtdose_expb.dcm rtdose_expb_1frame.dcm rtdose_rle.dcm
        rtdose_rle_1frame.dcm""",
    "a radiotherapy plan": "ExplVR_BigEndNoMeta.dcm ExplVR_LitEndNoMeta.dcm rtplan.dcm rtplan_truncated.dcm rtstruct.dcm",
    # Headers without an image: pydicom made them to test parsing.
    "no pixel data": f"""chrJapMulti.dcm chrJapMultiExplicitIR6.dcm chrKoreanMulti.dcm chrSQEncoding.dcm chrSQEncoding1.dcm UN_sequence.dcm
        empty_charset_LEI.dcm meta_missing_tsyntax.dcm nested_priv_SQ.dcm no_meta_group_length.dcm priv_SQ.dcm {TINY_ALPHA}""",
    # Cut off; and 250 bytes of a codestream in which something else stands.
    "cut short": "MR_truncated.dcm",
    "damaged or in an unsupported encoding": "JPEG2000-embedded-sequence-delimiter.dcm",
}
REASON = {name: reason for reason, names in WHY.items() for name in names.split()}


def files(root: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.is_file()]


def by_name(root: Path) -> dict[str, Path]:
    return {path.name: path for path in files(root)}


def test_every_file_is_read_or_left_out_for_its_reason_and_in_silence(real_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not FRAMES.keys() & REASON.keys()
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in files(real_data):
            found = list(dicom.read(path))
            seen.add(path.name)
            if path.name in FRAMES:
                assert [type(one) for one in found] == [Reading] * FRAMES[path.name], (path.name, found)
            else:
                assert len(found) == 1
                assert isinstance(found[0], Quarantined), path.name
                expected = "no pixel data" if path.parent.name == "SE000000" else REASON[path.name]
                assert expected in found[0].reason, (path.name, found[0].reason)
    assert FRAMES.keys() <= seen
    assert capfd.readouterr() == ("", "")


def rgb_or_grey(data: bytes, header: pydicom.Dataset) -> NDArray[Any]:
    """``[frames, C, H, W]`` from uncompressed little-endian pixel data, without pydicom's decoders."""
    frames, samples = int(header.get("NumberOfFrames") or 1), int(header.SamplesPerPixel)
    code = f"<{'i' if header.PixelRepresentation else 'u'}{header.BitsAllocated // 8}"
    count = frames * samples * header.Rows * header.Columns
    values = np.frombuffer(data, code, count)
    if samples == 1 or header.PlanarConfiguration:
        return values.reshape(frames, samples, header.Rows, header.Columns)
    return values.reshape(frames, header.Rows, header.Columns, samples).transpose(0, 3, 1, 2)


def decoded_by_dcmtk(path: Path, folder: Path) -> tuple[pydicom.Dataset, NDArray[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        syntax = str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        tool = {"1.2.840.10008.1.2.5": "dcmdrle", "1.2.840.10008.1.2.4.80": "dcmdjpls", "1.2.840.10008.1.2.4.81": "dcmdjpls"}.get(syntax)
        tool = tool or ("dcmdjpeg" if syntax.startswith("1.2.840.10008.1.2.4.") else "dcmconv")
        if shutil.which(tool) is None:
            pytest.skip("dcmtk is not installed")
        plain = folder / "plain.dcm"
        subprocess.run([tool, "+te", str(path), str(plain)], check=True, capture_output=True)
        header = pydicom.dcmread(plain)
        return header, rgb_or_grey(header.PixelData, header)


def physical(header: pydicom.Dataset, stored: NDArray[Any]) -> NDArray[np.float64]:
    return stored.astype(np.float64) * float(header.get("RescaleSlope") or 1) + float(header.get("RescaleIntercept") or 0)


def pixels(path: Path) -> NDArray[np.float32]:
    return np.stack([one.pixels for one in dicom.read(path) if isinstance(one, Reading)])


@pytest.mark.parametrize("name", [word.partition(":")[0] for word in (GREY + COLOUR + CHARSETS + HIGHDICOM + TORCHIO).split()] + ["17106"])
def test_pixels_are_exactly_those_of_dcmtk(real_data: Path, tmp_path: Path, name: str) -> None:
    path = by_name(real_data)[name]
    expected = physical(*decoded_by_dcmtk(path, tmp_path)).astype(np.float32)
    found = pixels(path)
    inside = np.isfinite(found)
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert inside.mean() > 0.5


@pytest.mark.parametrize("name", LOSSY.split())
def test_lossy_pixels_are_those_of_dcmtk_but_for_rounding(real_data: Path, tmp_path: Path, name: str) -> None:
    path = by_name(real_data)[name]
    expected = physical(*decoded_by_dcmtk(path, tmp_path))
    difference = np.abs(pixels(path) - expected)
    assert difference.max() <= (1 if expected.shape[1] == 1 else 2)
    assert difference.mean() < 0.15


def displayed_by_dcmtk(path: Path, folder: Path, *options: str) -> NDArray[np.float64]:
    """What dcmtk shows, 0 to 1."""
    if shutil.which("dcmj2pnm") is None:
        pytest.skip("dcmtk is not installed")
    picture = folder / "shown.pnm"
    subprocess.run(["dcmj2pnm", "--write-8-bit-pnm", "--no-overlays", *options, str(path), str(picture)], check=True, capture_output=True)
    with Image.open(picture) as image:
        return np.asarray(image, np.float64) / 255


# With the file's first window, or the whole range of colour; dcmtk's own rounding is up to one grey level, YBR's conversion and
# its subsampled chroma two more.
WINDOWED = ["CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm", "6154", "17106", "2062", "4467", "IMG0009.dcm", "ct_image.dcm"]


@pytest.mark.parametrize("name", [*WINDOWED, *(word.partition(":")[0] for word in DISPLAYED.split())])
def test_what_is_shown_is_what_dcmtk_shows(real_data: Path, tmp_path: Path, name: str) -> None:
    path = by_name(real_data)[name]
    found = next(iter(dicom.read(path)))
    assert isinstance(found, Reading)
    has_window = "WindowCenter" in pydicom.dcmread(path, stop_before_pixels=True)
    if len(found.pixels) == 1 and not has_window:
        pytest.skip("dcmtk has no window to compare by")
    options = ["--use-window", "1"] if len(found.pixels) == 1 else []
    shown = np.clip((found.pixels.astype(np.float64) - found.low) / (found.high - found.low), 0, 1)
    expected = displayed_by_dcmtk(path, tmp_path, *options)
    difference = np.abs(shown[0] - expected if len(shown) == 1 else shown.transpose(1, 2, 0) - expected)
    assert difference.max() <= 3.5 / 255
    assert difference.mean() < 0.5 / 255


def test_a_decoded_twin_is_equal(real_data: Path) -> None:
    paths = by_name(real_data)
    assert np.abs(pixels(paths["SC_rgb_jpeg.dcm"]) - pixels(paths["SC_rgb_jpeg_dcmd.dcm"])).max() <= 1  # lossy: two decoders
    for name in ("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "MR_small_implicit.dcm"):
        np.testing.assert_array_equal(pixels(paths[name]), pixels(paths["MR_small.dcm"]))


def decoded_by_openjpeg(data: bytes, folder: Path) -> NDArray[np.int64]:
    """``[C, H, W]``, each channel from the PGX file that OpenJPEG's own tool writes."""
    if shutil.which("opj_decompress") is None:
        pytest.skip("opj_decompress (OpenJPEG) is not installed")
    (folder / "e.j2k").write_bytes(data)
    subprocess.run(["opj_decompress", "-i", str(folder / "e.j2k"), "-o", str(folder / "e.pgx")], check=True, capture_output=True)
    channels = []
    for path in sorted(folder.glob("e*.pgx")):
        head, values = path.read_bytes().split(b"\n", 1)
        _, _, sign, bits, width, height = head.split()
        code = f">{'i' if sign == b'-' else 'u'}{1 if int(bits) <= 8 else 2}"
        channels.append(np.frombuffer(values, code, int(width) * int(height)).reshape(int(height), int(width)))
    return np.stack(channels).astype(np.int64)


@pytest.mark.parametrize("name", JPEG2000.split())
def test_jpeg_2000_pixels_are_those_of_openjpeg(real_data: Path, tmp_path: Path, name: str) -> None:
    path = by_name(real_data)[name]
    header = pydicom.dcmread(path)
    stored = decoded_by_openjpeg(get_frame(header.PixelData, 0, number_of_frames=1), tmp_path)
    if name == "J2K_pixelrep_mismatch.dcm":  # the codestream says unsigned, the header two's complement of 13 bits: the header counts
        stored = (stored + 4096) % 8192 - 4096
    expected = physical(header, stored).astype(np.float32)
    found = pixels(path)[0]
    inside = np.isfinite(found)
    np.testing.assert_array_equal(found[inside], expected[inside])


def test_real_series_become_volumes_or_say_what_is_missing(real_data: Path) -> None:
    root = real_data / "dicom_torchio_series"
    names = [path.name for path in sorted(root.iterdir()) if path.suffix == ".dcm"]
    tasks, left = find_series(root, names[::-1], 1, lambda _: None)
    assert (tasks, left) == ([Task(tuple(names))], [])  # its files are named in the order of their positions
    [found] = series.read_series([root / name for name in names])
    assert isinstance(found, Reading)
    assert found.pixels.shape == (1, 17, 128, 88)
    assert found.spacing == pytest.approx((2, 2, 2))
    assert found.affine is not None
    for number, name in enumerate(names):
        header = pydicom.dcmread(root / name, stop_before_pixels=True)
        x, y, z = map(float, header.ImagePositionPatient)
        np.testing.assert_allclose(found.affine @ [number, 0, 0, 1], [-x, -y, z, 1], atol=1e-6)
    root = real_data / "dicom_pydicom_tests" / "test_files" / "dicomdirtests"
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    tasks, left = find_series(root, names, 1, lambda _: None)
    assert [task.files for task in tasks] == [tuple(f"98892001/CT5N/{number}" for number in (3353, 3023, 2693, 2392, 2062))]
    why = dict(left)
    assert all("missing" in why[f"77654033/CT2/{number}"] for number in (17106, 17136, 17166, 17196))
    assert all("no position" in why[f"77654033/{name}"] for name in ("CR1/6154", "CR2/6247", "CR3/6278"))
    assert all("fewer than 3" in why[f"98892003/MR700/{number}"] for number in (4467, 4528, 4558))  # a radial scout
    assert len(why) == len(names) - 5
