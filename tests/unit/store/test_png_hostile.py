"""A result file may name anything as its picture: only PNG files of a bounded size are read."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from specbench.errors import ResultsError
from specbench.store.png import MOST_PIXELS, is_png, read_png, save_png


def header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that claims a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def refused(path) -> None:
    with pytest.raises(ResultsError, match="Cannot read the picture"):
        read_png(path)
    assert not is_png(path)


@pytest.mark.parametrize(
    "kind", ["pipe", "device", "folder", "jpeg", "text", "huge", "nul", "none"]
)
def test_what_is_no_picture_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "jpeg":
        Image.new("RGB", (4, 4)).save(path, format="JPEG")
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "huge":
        path.write_bytes(header(12_000, 12_000) + bytes(100))
    elif kind == "nul":
        path = tmp_path / "a\0b.png"
    refused(path)


def test_the_largest_picture_is_read(tmp_path):
    side = int(MOST_PIXELS**0.5)
    save_png(tmp_path / "x.png", np.zeros((1, side, 3), dtype=np.uint8))
    assert read_png(tmp_path / "x.png").shape == (1, side, 3)
    (tmp_path / "y.png").write_bytes(header(side, side + 1))
    refused(tmp_path / "y.png")
