"""The contact sheet: its size, its pictures as they are, and nothing cut silently."""

from __future__ import annotations

import numpy as np
import pytest

from specbench.report.contact_sheet import Entry, contact_sheet


def picture(height, width, shade):
    return np.full((height, width, 3), shade, dtype=np.uint8)


@pytest.mark.parametrize(
    ("side", "tile"), [(48, 144), (100, 200), (144, 144), (256, 256), (768, 256)]
)
def test_small_pictures_are_magnified_and_large_ones_reduced(side, tile):
    entries = [Entry("a", (picture(side, side, 10), picture(side, side, 200)))]
    sheet = contact_sheet(entries, ["ar", "sjd"])
    assert sheet.shape == (16 + 17 + 4 + tile + 17 + 16, 2 * 16 + 2 * tile + 4, 3)
    top = 16 + 17 + 4
    assert (sheet[top : top + tile, 16 : 16 + tile] == 10).all()
    assert (sheet[top : top + tile, 20 + tile : 20 + 2 * tile] == 200).all()


def test_pairs_fill_rows_of_four_and_single_pictures_rows_of_eight():
    pair = [Entry("a", (picture(48, 48, 0), picture(48, 48, 0)))] * 9
    assert contact_sheet(pair, ["a", "b"]).shape[1] == 2 * 16 + 4 * 292 + 3 * 20
    single = [Entry("a", (picture(48, 48, 0),))] * 9
    sheet = contact_sheet(single, ["a"])
    assert sheet.shape[1] == 2 * 16 + 8 * 144 + 7 * 20
    assert sheet.shape[0] == 2 * 16 + 2 * (17 + 4 + 144 + 17) + 20


def test_a_missing_picture_leaves_its_place_white():
    sheet = contact_sheet([Entry("a", (picture(48, 48, 7), None))], ["ar", "sjd"])
    assert (sheet[37 : 37 + 144, 16 + 148 : 16 + 292] == 255).all()


def test_long_captions_take_lines_and_end_in_an_ellipsis():
    short = contact_sheet([Entry("a", (picture(48, 48, 0),))], ["a"])
    three = contact_sheet([Entry("word " * 12, (picture(48, 48, 0),))], ["a"])
    endless = contact_sheet([Entry("word " * 500, (picture(48, 48, 0),))], ["a"])
    unbroken = contact_sheet([Entry("x" * 500, (picture(48, 48, 0),))], ["a"])
    assert short.shape[0] < three.shape[0] <= endless.shape[0] == short.shape[0] + 3 * 17
    for sheet in (three, endless, unbroken):
        assert sheet.shape[1] == short.shape[1]
        assert (sheet[:, -14:] == 255).all()  # nothing runs into the margin
        assert (sheet[:30] < 128).any()  # the caption is there


def test_a_title_that_is_wider_than_the_sheet_takes_lines():
    entries = [Entry("a", (picture(48, 48, 0), picture(48, 48, 0)))]
    law = "mc_sjd on geneval with lumina: temperature 1, top-k 2000, guidance 3"
    short, long = (contact_sheet(entries, ["a", "b"], title) for title in ("mc_sjd", law))
    assert long.shape == (short.shape[0] + 17, *short.shape[1:])
    assert (long[16 + 17 : 16 + 2 * 17] < 128).any() and (long[:, -14:] == 255).all()
