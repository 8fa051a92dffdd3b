"""Pictures whose things are erased: what the tokenizer's decoder learns from."""

import random
from dataclasses import replace

import torch

from specbench.training.pictures.data import Pictures, picture_stream
from specbench.training.pictures.decoder import erase
from specbench.training.pictures.vq import to_tensor
from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import draw_scene

PATCH = 4


def drawn(count):
    """Pictures, and the same ones without their things."""
    scenes = [draw_scene(random.Random(f"erase/{index}")) for index in range(count)]
    seeds = list(range(count))
    bare = [replace(scene, things=()) for scene in scenes]
    return (
        to_tensor(Pictures(scenes, render_batch(scenes, seeds))),
        to_tensor(Pictures(bare, render_batch(bare, seeds))),
    )


def test_codes_and_pixels_of_a_cell_come_from_one_clean_cell_of_the_same_picture():
    torch.manual_seed(0)
    pictures, bare = drawn(6)
    cells = pictures.shape[-1] // PATCH
    ids = torch.arange(cells * cells).view(1, cells, cells).repeat(len(pictures), 1, 1)
    codes, pixels = erase(ids, pictures, bare)
    for row in range(len(pictures)):
        moved = 0
        for place in range(cells * cells):
            source = int(codes[row].flatten()[place])
            top, left = (PATCH * part for part in divmod(place, cells))
            from_top, from_left = (PATCH * part for part in divmod(source, cells))
            got = pixels[row, :, top : top + PATCH, left : left + PATCH]
            clean = slice(from_top, from_top + PATCH), slice(from_left, from_left + PATCH)
            assert torch.equal(got, bare[row][:, clean[0], clean[1]])
            assert torch.equal(
                pictures[row][:, clean[0], clean[1]], bare[row][:, clean[0], clean[1]]
            )
            moved += source != place
        assert moved > 0, "a thing was there"


def test_a_picture_without_things_stays():
    _, bare = drawn(2)
    ids = torch.randint(0, 512, (2, 12, 12))
    codes, pixels = erase(ids, bare, bare)
    assert torch.equal(codes, ids) and torch.equal(pixels, bare)


def test_a_stream_says_what_its_pictures_were_rendered_with():
    pictures = next(picture_stream(3, 1, 2, 4))
    again = render_batch(pictures.scenes, pictures.seeds)
    assert (again == pictures.pixels).all()
