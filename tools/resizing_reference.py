"""What transformers' image processors make of pictures, as arrays that tests/images/test_resizing.py compares with.

Needs transformers (5.24 wrote the file that is kept) and Pillow, no torch; tlfeat is not imported.

    python tools/resizing_reference.py tests/images/resizing_reference.npz      # the small pictures of the test
    python tools/resizing_reference.py found.npz photos/*.jpg --size 224        # the same of photographs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

#: Height and width of the small pictures: sides that do not divide evenly, smaller and larger than what is wanted.
SHAPES = {"landscape": (23, 61), "portrait": (47, 20), "square": (31, 31), "small": (9, 5), "wide": (8, 100)}


def processors(side: int) -> dict[str, Any]:
    """Return tlfeat's names of the ways to the processors that do them; BICUBIC is 3, BILINEAR 2."""
    pixels: dict[str, Any] = {"do_rescale": False, "do_normalize": False, "do_convert_rgb": True}
    square = {"height": side, "width": side}
    return {
        # facebook/dinov2-*: 256 and 224
        "crop": BitImageProcessorPil(
            size={"shortest_edge": round(side * 8 / 7)}, crop_size=square, resample=3, **pixels
        ),
        # openai/clip-vit-*
        "crop-full": CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square, resample=3, **pixels),
        # google/siglip-*
        "bicubic": SiglipImageProcessorPil(size=square, resample=3, **pixels),
        # google/vit-*
        "load_img": ViTImageProcessorPil(size=square, resample=2, **pixels),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--size", type=int, default=21)
    args = parser.parse_args()
    if args.photos:
        pictures = {str(file): Image.open(file).convert("RGB") for file in args.photos}
    else:
        rng = np.random.default_rng(15)
        pictures = {
            name: Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for name, shape in SHAPES.items()
        }
    found = {f"{name}/picture": np.asarray(picture) for name, picture in pictures.items() if not args.photos}
    for way, process in processors(args.size).items():
        for name, picture in pictures.items():
            pixels = process(picture, return_tensors="np")["pixel_values"][0]  # (3, h, w)
            found[f"{name}/{way}"] = np.asarray(pixels).transpose(1, 2, 0)
    np.savez_compressed(args.output, **found)


if __name__ == "__main__":
    main()
