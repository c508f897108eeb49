"""Transfer syntaxes: the same pixels from every one, encoded by somebody else's encoder."""

from __future__ import annotations

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
HTJ2K = bytes.fromhex("""
ff4fff5100294000000000200000002000000000000000000000002000000020000000000000000000010b0101ff500008000200000007ff52000c0002000100
0204044001ff5c000a2070787878707078ff64001600014f70656e4a50482056657220302e392e302eff90000a0000000000fe0001ff93c0017b50ff7fbfdfff
3dbfff5dcf7feeef7ffbfad77efeb38d6fecff7df7fdeefdbe779fefdcdffbf6f5aefdbc671bcf1800008000021040800106208080020a30c090438e00245904
652904698a419e8290a828642a0ca99ac3ae15af5d6b2f408340c700688400c6210031b301c000ac80016d40009400000000e7c0a7a7a7c2780000f8e8a38f3e
fae8a38f3efef8002100a692100a6d75d7535e00fef7c02400c00168c00175d00026aa545555f9e3e53d3d3d3d394fa9e27d00000080bfdfeff7fbfd7ebfdfef
f7fbfdfefef9501080f7ec4203dfb1080f7ec4203d961861861a0002ebaeba9d01feff79404500ffd9
""")


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
    header.PixelData = encapsulate([HTJ2K])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(pixels(write(tmp_path / "a", header)), ramp())
