"""Are tlfeat's rows of a vision transformer those of its original? `transformers` with PyTorch says.

Weights are random, of tiny networks or of full size, saved as Hugging Face saves them; pictures are photographs, or
drawn, and each side prepares them by itself: transformers with its image processor, tlfeat with its own decoder.
Compared are all tokens of every block and of the last norm, and the pooled output, through TensorFlow and OpenVINO.

Two environments, as neither library is needed by the other:

    python benchmarks/encoders_reference.py write FOLDER PHOTOGRAPHS   # with torch, torchvision and transformers
    python benchmarks/encoders_reference.py compare FOLDER             # with tlfeat
    python benchmarks/encoders_reference.py write tests/backbones/originals --tiny   # drawn pictures
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}

BILINEAR, BICUBIC = 2, 3  # of Pillow

_TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}

_TINY_TEXT = {**_TINY, "vocab_size": 50, "max_position_embeddings": 8, "projection_size": 24}

#: Network of tlfeat: (model and configuration of transformers, what is said of it, what is said of a tiny one).
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dinov2_small": (
        "Dinov2",
        {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14},
        {**_TINY, "image_size": 40, "patch_size": 8},
    ),
    "dinov2_with_registers_small": (
        "Dinov2WithRegisters",
        {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14},
        {**_TINY, "image_size": 40, "patch_size": 8, "num_register_tokens": 3},
    ),
    "dinov3_small": ("DINOv3ViT", {"num_register_tokens": 4}, {**_TINY, "patch_size": 8, "num_register_tokens": 3}),
    "dinov3_small_plus": (
        "DINOv3ViT",
        {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
        {**_TINY, "patch_size": 8, "num_register_tokens": 3, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
    "vit_base_16": ("ViT", {}, {**_TINY, "image_size": 32, "patch_size": 8}),
    "deit_small": (
        "DeiT",
        {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
        {**_TINY, "image_size": 32, "patch_size": 8},
    ),
    "swin_tiny": (
        "Swin",
        {},
        {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "image_size": 32, "patch_size": 2},
    ),
    "siglip_base_16": ("SiglipVision", {}, {**_TINY, "image_size": 32, "patch_size": 8}),
    "clip_base_32": ("CLIPVision", {}, {**_TINY, "image_size": 32, "patch_size": 8}),
}

#: Model of transformers: (its image processor, what its authors say to it beside the size, the side before a crop).
PROCESSORS: dict[str, tuple[str, dict[str, Any], float]] = {
    "Dinov2": ("BitImageProcessor", {"resample": BICUBIC, **IMAGENET}, 8 / 7),
    "Dinov2WithRegisters": ("BitImageProcessor", {"resample": BICUBIC, **IMAGENET}, 8 / 7),
    "DINOv3ViT": ("ViTImageProcessor", {"resample": BILINEAR, **IMAGENET}, 0),
    "ViT": ("ViTImageProcessor", {"resample": BILINEAR, **HALF}, 0),
    "DeiT": ("BitImageProcessor", {"resample": BICUBIC, **IMAGENET}, 8 / 7),
    "Swin": ("ViTImageProcessor", {"resample": BICUBIC, **IMAGENET}, 0),
    "SiglipVision": ("SiglipImageProcessor", {"resample": BICUBIC, **HALF}, 0),
    "CLIPVision": ("CLIPImageProcessor", {"resample": BICUBIC, **CLIP}, 1),
}

#: Modules of transformers that are a block.
BLOCKS = ("Dinov2Layer", "Dinov2WithRegistersLayer", "DINOv3ViTLayer", "ViTLayer", "DeiTLayer", "SwinLayer",
          "SiglipEncoderLayer", "CLIPEncoderLayer")  # fmt: skip

N_PICTURES = 3


def processor_of(model: str, side: int) -> dict[str, Any]:
    """Return preprocessor_config.json of a network fed pictures of so many pixels."""
    name, said, scale = PROCESSORS[model]
    found = {"image_processor_type": name, **said, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    if not scale:
        return {**found, "size": {"height": side, "width": side}}
    shorter = {"shortest_edge": round(side * scale)}
    return {**found, "size": shorter, "do_center_crop": True, "crop_size": {"height": side, "width": side}}


def write(folder: Path, photographs: Path | None, *, is_tiny: bool, only: list[str]) -> None:
    """Write weights, pictures and what transformers makes of them, one folder a network."""
    import torch
    import transformers

    files = sorted(photographs.rglob("*.jp*g")) if photographs else []
    chosen = files[:: max(1, len(files) // N_PICTURES)][:N_PICTURES]
    pictures = [file.read_bytes() for file in chosen] or [_drawn(number) for number in range(N_PICTURES)]
    for name, (model_name, full, tiny) in NETWORKS.items():
        if only and name not in only:
            continue
        torch.manual_seed(len(name))
        config = getattr(transformers, f"{model_name}Config")(**(tiny if is_tiny else full))
        model = getattr(transformers, f"{model_name}Model")(config).eval()
        with torch.no_grad():  # what starts at 0 or 1 would hide a mistake
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 else 0.02))
        place = folder / name
        model.save_pretrained(place)
        side = _side(model_name, config, is_tiny)
        (place / "preprocessor_config.json").write_text(json.dumps(processor_of(model_name, side), indent=1))
        found: dict[str, Any] = {"side": np.array(side)}
        for number, data in enumerate(pictures):
            (place / f"picture_{number}").write_bytes(data)
        found |= _tokens(model, place)
        np.savez_compressed(place / "tokens.npz", **found)
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters at {side} pixels", flush=True)


def _side(model: str, config: Any, is_tiny: bool) -> int:
    """Another size than that of the weights where positions can be interpolated."""
    if not is_tiny:
        return 224
    return 32 if model == "Swin" else 48


def _drawn(number: int) -> bytes:
    """Return a PNG of 75 x 60 pixels with coloured clouds and edges."""
    import io

    from PIL import Image

    random = np.random.default_rng(number)
    clouds = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8)).resize((75, 60), Image.Resampling.BICUBIC)
    pixels = np.array(clouds)
    for _ in range(4):
        top, left = random.integers(0, 40, 2)
        pixels[top : top + 15, left : left + 25] = random.integers(0, 256, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pictures_in(place: Path) -> list[Path]:
    """Return the pictures of a network's folder."""
    return sorted(file for file in place.iterdir() if file.stem.startswith("picture_"))


def _tokens(model: Any, place: Path) -> dict[str, Any]:
    import torch
    import transformers
    from PIL import Image

    said = json.loads((place / "preprocessor_config.json").read_text())
    name = said.pop("image_processor_type")
    processor = getattr(transformers, f"{name}Pil", getattr(transformers, name))(
        **said
    )  # Pillow's, where there are two
    pictures = [Image.open(file).convert("RGB") for file in pictures_in(place)]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    seen: list[Any] = []

    def note(module: Any, inputs: Any, outputs: Any) -> None:
        seen.append(outputs[0] if isinstance(outputs, tuple) else outputs)

    for module in model.modules():
        if type(module).__name__ in BLOCKS:
            module.register_forward_hook(note)
    more = {} if type(model).__name__.startswith(("Dinov2", "DINOv3", "Swin")) else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        output = model(pixels, **more)
    last = output.last_hidden_state
    if type(model).__name__.startswith("CLIP"):
        last = getattr(model, "vision_model", model).post_layernorm(last).detach()
    found = {f"block_{number}": tokens.numpy() for number, tokens in enumerate(seen, 1)}
    return {**found, "norm": last.numpy(), "pooled": _pooled(model, output, last).numpy()}


def _pooled(model: Any, output: Any, last: Any) -> Any:
    """Return what tlfeat's avg_pool is; of SigLIP, CLIP and Swin what the model itself calls pooled."""
    import torch

    name = type(model).__name__
    if name.startswith(("Siglip", "CLIP", "Swin")):
        return output.pooler_output
    if name.startswith(("ViT", "DeiT")):
        return last[:, 0]
    n_before = 1 + getattr(model.config, "num_register_tokens", 0)
    return torch.cat([last[:, 0], last[:, n_before:].mean(1)], 1)


def compare(folder: Path) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Give the largest difference of each network, runtime and part, over the largest value of the part."""
    for place in sorted(path for path in folder.iterdir() if (path / "tokens.npz").exists()):
        yield from (
            (place.name, runtime, differences(place, runtime, family_of(place.name)))
            for runtime in ("tensorflow", "openvino")
        )


def family_of(name: str) -> str:
    """Return the backbone that takes any size of a network's kind."""
    return name.partition("_")[0]


def differences(place: Path, runtime: str, backbone: str) -> dict[str, float]:
    """Return the largest difference of blocks, CLS, patches, norm and pooled output, over the largest value of each."""
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import BackboneSpec
    from tlfeat.images.decode import decode_bytes

    with np.load(place / "tokens.npz") as held:
        expected = {name: held[name] for name in held.files}
    side = int(expected.pop("side"))
    spec = BackboneSpec(backbone, str(place), (side, side))
    layers = [f"{name}:flatten" for name in expected if name != "pooled"]
    encoder = KerasEncoder(spec, [*layers, "avg_pool"], runtime=runtime, networks_dir=place / "networks")
    pixels = np.stack([decode_bytes(file.read_bytes(), spec.size, encoder.resize) for file in pictures_in(place)])
    encoder.prepare()
    assert encoder.runtime.startswith(runtime), encoder.notes
    rows = encoder.encode(pixels)
    found: dict[str, float] = {}
    for name, tokens in expected.items():
        got = rows["avg_pool" if name == "pooled" else f"{name}:flatten"].reshape(tokens.shape)
        for part, of in _parts(name, spec).items():
            worst = float(np.abs(of(got) - of(tokens)).max() / np.abs(of(tokens)).max())
            found[part] = max(found.get(part, 0.0), worst)
    return found


def _parts(name: str, spec: Any) -> dict[str, Callable[[Any], Any]]:
    if not name.startswith("block_"):
        return {name: lambda tokens: tokens}
    if spec.own_pool == "avg":
        return {"blocks": lambda tokens: tokens}
    return {"blocks": lambda tokens: tokens, "CLS": lambda tokens: tokens[:, :1]}


def main() -> None:
    """Write references, or compare with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    if given.what == "write":
        write(given.folder, given.photographs, is_tiny=given.tiny, only=given.only)
        return
    columns = ("blocks", "CLS", "norm", "pooled")
    print("| network | runtime | " + " | ".join(columns) + " |")
    print("|---|---|" + "---:|" * len(columns))
    for name, runtime, found in compare(given.folder):
        cells = [f"{found[column]:.1e}" if column in found else "–" for column in columns]
        print(f"| {name} | {runtime} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
