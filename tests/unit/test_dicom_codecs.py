"""Transfer syntaxes: the same pixels from every one, encoded by somebody else's encoder."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dicom_folder import dataset, ramp, write
from pydicom.encaps import encapsulate

from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.reading import Reading

# dcmtk's encoders: tool and options, and by how much a pixel of 4096 may change.
ENCODERS = {
    "implicit": (["dcmconv", "+ti"], 0),
    "explicit big endian": (["dcmconv", "+tb"], 0),
    "deflated": (["dcmconv", "+td"], 0),
    "RLE": (["dcmcrle"], 0),
    "JPEG lossless": (["dcmcjpeg", "+el"], 0),
    "JPEG lossless, first-order prediction": (["dcmcjpeg", "+e1"], 0),
    "JPEG extended, 12 bits": (["dcmcjpeg", "+ee", "+q", "95"], 40),
    "JPEG-LS": (["dcmcjpls", "+el"], 0),
    "JPEG-LS, near-lossless": (["dcmcjpls", "+en", "+md", "2"], 2),
}
# ``ramp(32, 32)``, 12 bits, encoded by OpenJPH 0.9: ``ojph_compress -reversible true -num_decomps 2``, order RPCL.
HTJ2K = """
/0//UQApQAAAAAAgAAAAIAAAAAAAAAAAAAAAIAAAACAAAAAAAAAAAAABCwEB/1AACAACAAAAB/9SAAwAAgABAAIEBEAB/1wACiBweHh4cHB4/2QAFgABT3BlbkpQSCBWZXIgMC45
LjAu/5AACgAAAAAA/gAB/5PAAXtQ/3+/3/89v/9dz3/u73/7+td+/rONb+z/fff97v2+d5/v3N/79vWu/bxnG88YAACAAAIQQIABBiCAgAIKMMCQQ44AJFkEZSkEaYpBnoKQqChk
KgypmsOuFa9day9Ag0DHAGiEAMYhADGzAcAArIABbUAAlAAAAADnwKenp8J4AAD46KOPPvroo48+/vgAIQCmkhAKbXXXU14A/vfAJADAAWjAAXXQACaqVFVV+ePlPT09PTlPqeJ9
AAAAgL/f7/f7/X6/3+/3+/3+/vlQEID37EID37EID37EID2WGGGGGgAC6666nQH+/3lARQD/2Q==
"""


def pixels(path: Path) -> np.ndarray:
    [found] = dicom.read(path)
    assert isinstance(found, Reading), found
    return found.pixels[0]


@pytest.mark.parametrize("name", ENCODERS)
def test_what_dcmtk_encodes_is_read(tmp_path: Path, name: str) -> None:
    (tool, *options), tolerance = ENCODERS[name]
    if shutil.which(tool) is None:
        pytest.skip("dcmtk is not installed")
    header = dataset(ramp(), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4")
    plain = write(tmp_path / "plain", header)
    subprocess.run([tool, *options, str(plain), str(tmp_path / "packed")], check=True, capture_output=True)
    assert np.abs(pixels(tmp_path / "packed") - ramp()).max() <= tolerance


def test_jpeg_baseline(tmp_path: Path) -> None:
    if shutil.which("dcmcjpeg") is None:
        pytest.skip("dcmtk is not installed")
    grey = ramp(top=255)
    header = dataset(grey, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=grey.astype(np.uint8).tobytes())
    plain = write(tmp_path / "plain", header)
    subprocess.run(["dcmcjpeg", "+eb", "+q", "95", str(plain), str(tmp_path / "packed")], check=True, capture_output=True)
    assert np.abs(pixels(tmp_path / "packed") - grey).max() <= 3


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"])
def test_high_throughput_jpeg_2000(tmp_path: Path, syntax: str) -> None:
    header = dataset(ramp())
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate([base64.b64decode(HTJ2K)])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(pixels(write(tmp_path / "a", header)), ramp())
