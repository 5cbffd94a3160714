"""The table of vision transformers: networks of KerasHub (0.32), as plain data.

Nothing here imports Keras. `hub` builds them, `weights_folder` reads their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from tlfeat.errors import UsageError

Argument: TypeAlias = int | bool | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """What the networks of one kind have in common.

    Attributes
    ----------
    name : str
        Also a backbone by itself: the size is then what the weights say.
    title : str
        As in papers.
    preprocess : str
        One of ``network.PREPROCESS``.
    resize : str
        One of ``decode.RESIZES``: how its authors bring pictures to size.
    pool : str
        How tokens become one vector where nothing is said: "cls", "avg" (patches only) or "cls+avg".
    pooled : str
        What ``avg_pool`` is.
    model_types : tuple of str
        By which ``config.json`` of Hugging Face names it.
    hub_classes : tuple of str
        By which ``config.json`` of a Keras preset names it.
    paper, licence : str
        As of `HubBackbone`.
    """

    name: str
    title: str
    preprocess: str
    resize: str
    pool: str
    pooled: str
    model_types: tuple[str, ...]
    hub_classes: tuple[str, ...]
    paper: str
    licence: str


_APACHE: Final = "Apache-2.0"

#: Its terms: what is redistributed goes under the same licence, with a copy of it.
DINOV3_LICENCE: Final = "DINOv3 License (Meta's own terms)"

FAMILIES: Final[dict[str, Family]] = {
    family.name: family
    for family in (
        Family(
            "dinov2", "DINOv2", "torch", "crop", "cls+avg", "norm, CLS beside the average of the patches",
            ("dinov2", "dinov2_with_registers"), ("DINOV2Backbone",),
            "Oquab, Darcet, Moutakanni, Vo, Szafraniec et al.: DINOv2. 2023, arXiv:2304.07193", _APACHE,
        ),
        Family(
            "dinov3", "DINOv3", "torch", "antialias", "cls+avg", "norm, CLS beside the average of the patches",
            ("dinov3_vit",), ("DINOV3Backbone",),
            "Siméoni, Vo, Seitzer, Baldassarre, Oquab et al.: DINOv3. 2025, arXiv:2508.10104", DINOV3_LICENCE,
        ),
        Family(
            "vit", "ViT", "tf", "antialias", "cls", "norm, CLS",
            ("vit",), ("ViTBackbone",),
            "Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai et al.: An Image is Worth 16x16 Words. 2020, "
            "arXiv:2010.11929", _APACHE,
        ),
        Family(
            "deit", "DeiT", "torch", "crop", "cls", "norm, CLS",
            ("deit",), ("DeiTBackbone",),
            "Touvron, Cord, Douze, Massa, Sablayrolles, Jégou: DeiT. 2020, arXiv:2012.12877", _APACHE,
        ),
        Family(
            "swin", "Swin", "torch", "bicubic", "avg", "norm, the average of its map",
            ("swin",), ("SwinTransformerBackbone",),
            "Liu, Lin, Cao, Hu, Wei et al.: Swin Transformer. 2021, arXiv:2103.14030", "MIT",
        ),
        Family(
            "siglip", "SigLIP", "tf", "bicubic", "avg", "the vector of its attention pooling",
            ("siglip", "siglip_vision_model"), ("SigLIPBackbone", "SigLIPVisionEncoder"),
            "Zhai, Mustafa, Kolesnikov, Beyer: Sigmoid Loss for Language Image Pre-Training. 2023, arXiv:2303.15343",
            _APACHE,
        ),
        Family(
            "clip", "CLIP", "clip", "crop-full", "cls", "norm, CLS",
            ("clip", "clip_vision_model"), ("CLIPBackbone", "CLIPVisionEncoder"),
            "Radford, Kim, Hallacy, Ramesh, Goh et al.: CLIP. 2021, arXiv:2103.00020", "MIT",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HubBackbone:
    """One network of KerasHub: a vision transformer, or the vision tower of a model of images and texts.

    Attributes
    ----------
    name : str
        tlfeat's name.
    family : Family
    input_size : tuple of int
        Height and width in pixels where nothing is said.
    width : int
        Columns of its pooled output.
    parameters : int
        Of the part that is used, at `input_size`.
    hugging_face : str
        Where its authors keep the weights: ``org/name``, what ``hf://org/name`` names.
    preset : str
        KerasHub's name.
    arguments : tuple of (str, value) pairs
        The architecture, by the names of KerasHub's constructors.
    own_paper : str
        Where it is not that of the family.
    """

    name: str
    family: Family
    input_size: tuple[int, int]
    width: int
    parameters: int
    hugging_face: str
    preset: str
    arguments: tuple[tuple[str, Argument], ...]
    own_paper: str = ""

    @property
    def preprocess(self) -> str:
        """What pixels need; see `Family`."""
        return self.family.preprocess

    @property
    def resize(self) -> str:
        """How pictures are brought to size; see `Family`."""
        return self.family.resize

    @property
    def paper(self) -> str:
        """Authors, short title, year of the preprint, arXiv number."""
        return self.own_paper or self.family.paper

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return self.family.licence


def _size(
    hidden_dim: int, num_layers: int, num_heads: int, intermediate_dim: int, patch_size: int, **more: Argument
) -> tuple[tuple[str, Argument], ...]:
    found = {"hidden_dim": hidden_dim, "num_layers": num_layers, "num_heads": num_heads}
    return tuple({**found, "intermediate_dim": intermediate_dim, "patch_size": patch_size, **more}.items())


def _swin(embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...]) -> tuple[tuple[str, Argument], ...]:
    return (("embed_dim", embed_dim), ("depths", depths), ("num_heads", num_heads), ("window_size", 7))


_REGISTERS: Final = "Darcet, Oquab, Mairal, Bojanowski: Vision Transformers Need Registers. 2023, arXiv:2309.16588"

_SIGLIP2: Final = "Tschannen, Gritsenko, Wang, Naeem, Alabdulmohsin et al.: SigLIP 2. 2025, arXiv:2502.14786"

# hidden_dim, num_layers, num_heads, intermediate_dim
_TINY, _SMALL, _BASE = (192, 12, 3, 768), (384, 12, 6, 1536), (768, 12, 12, 3072)

_LARGE, _HUGE, _SO400M = (1024, 24, 16, 4096), (1280, 32, 16, 5120), (1152, 27, 16, 4304)

# name, family, input_size, width, parameters, hugging_face, preset, arguments, own_paper
# fmt: off
HUB_BACKBONES: Final[tuple[HubBackbone, ...]] = (
    # DINOv2: made for 518 pixels; 224 is what its authors evaluate at.
    HubBackbone("dinov2_small", FAMILIES["dinov2"], (224, 224), 768, 21_727_488,
                "facebook/dinov2-small", "dinov2_small",
                _size(*_SMALL, patch_size=14)),
    HubBackbone("dinov2_base", FAMILIES["dinov2"], (224, 224), 1536, 85_922_304,
                "facebook/dinov2-base", "dinov2_base",
                _size(*_BASE, patch_size=14)),
    HubBackbone("dinov2_large", FAMILIES["dinov2"], (224, 224), 2048, 303_491_072,
                "facebook/dinov2-large", "dinov2_large",
                _size(*_LARGE, patch_size=14)),
    HubBackbone("dinov2_giant", FAMILIES["dinov2"], (224, 224), 3072, 1_135_164_416,
                "facebook/dinov2-giant", "dinov2_giant",
                _size(1536, 40, 24, 6144, patch_size=14, use_swiglu_ffn=True)),
    HubBackbone("dinov2_with_registers_small", FAMILIES["dinov2"], (224, 224), 768, 21_729_024,
                "facebook/dinov2-with-registers-small", "dinov2_with_registers_small",
                _size(*_SMALL, patch_size=14, num_register_tokens=4), _REGISTERS),
    HubBackbone("dinov2_with_registers_base", FAMILIES["dinov2"], (224, 224), 1536, 85_925_376,
                "facebook/dinov2-with-registers-base", "dinov2_with_registers_base",
                _size(*_BASE, patch_size=14, num_register_tokens=4), _REGISTERS),
    HubBackbone("dinov2_with_registers_large", FAMILIES["dinov2"], (224, 224), 2048, 303_495_168,
                "facebook/dinov2-with-registers-large", "dinov2_with_registers_large",
                _size(*_LARGE, patch_size=14, num_register_tokens=4), _REGISTERS),
    HubBackbone("dinov2_with_registers_giant", FAMILIES["dinov2"], (224, 224), 3072, 1_135_170_560,
                "facebook/dinov2-with-registers-giant", "dinov2_with_registers_giant",
                _size(1536, 40, 24, 6144, patch_size=14, num_register_tokens=4, use_swiglu_ffn=True), _REGISTERS),
    # DINOv3, pretrained on 1.7 billion photographs of the web.
    HubBackbone("dinov3_small", FAMILIES["dinov3"], (224, 224), 768, 21_600_768,
                "facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3_vit_small_lvd1689m",
                _size(*_SMALL, patch_size=16)),
    HubBackbone("dinov3_small_plus", FAMILIES["dinov3"], (224, 224), 768, 28_697_088,
                "facebook/dinov3-vits16plus-pretrain-lvd1689m", "dinov3_vit_small_plus_lvd1689m",
                _size(*_SMALL, patch_size=16, use_gated_mlp=True)),
    HubBackbone("dinov3_base", FAMILIES["dinov3"], (224, 224), 1536, 85_668_864,
                "facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3_vit_base_lvd1689m",
                _size(*_BASE, patch_size=16)),
    HubBackbone("dinov3_large", FAMILIES["dinov3"], (224, 224), 2048, 303_153_152,
                "facebook/dinov3-vitl16-pretrain-lvd1689m", "dinov3_vit_large_lvd1689m",
                _size(*_LARGE, patch_size=16)),
    HubBackbone("dinov3_huge_plus", FAMILIES["dinov3"], (224, 224), 2560, 840_632_320,
                "facebook/dinov3-vith16plus-pretrain-lvd1689m", "dinov3_vit_huge_plus_lvd1689m",
                _size(1280, 32, 20, 5120, patch_size=16, use_gated_mlp=True)),
    # ViT, pretrained on ImageNet-21k.
    HubBackbone("vit_base_16", FAMILIES["vit"], (224, 224), 768, 85_798_656,
                "google/vit-base-patch16-224-in21k", "vit_base_patch16_224_imagenet21k",
                _size(*_BASE, patch_size=16)),
    HubBackbone("vit_base_32", FAMILIES["vit"], (224, 224), 768, 87_455_232,
                "google/vit-base-patch32-224-in21k", "vit_base_patch32_224_imagenet21k",
                _size(*_BASE, patch_size=32)),
    HubBackbone("vit_large_16", FAMILIES["vit"], (224, 224), 1024, 303_301_632,
                "google/vit-large-patch16-224-in21k", "vit_large_patch16_224_imagenet21k",
                _size(*_LARGE, patch_size=16)),
    HubBackbone("vit_large_32", FAMILIES["vit"], (224, 224), 1024, 305_510_400,
                "google/vit-large-patch32-224-in21k", "vit_large_patch32_224_imagenet21k",
                _size(*_LARGE, patch_size=32)),
    HubBackbone("vit_huge_14", FAMILIES["vit"], (224, 224), 1280, 630_764_800,
                "google/vit-huge-patch14-224-in21k", "vit_huge_patch14_224_imagenet21k",
                _size(*_HUGE, patch_size=14)),
    # DeiT, distilled, on ImageNet.
    HubBackbone("deit_tiny", FAMILIES["deit"], (224, 224), 192, 5_524_800,
                "facebook/deit-tiny-distilled-patch16-224", "deit_tiny_distilled_patch16_224_imagenet",
                _size(*_TINY, patch_size=16)),
    HubBackbone("deit_small", FAMILIES["deit"], (224, 224), 384, 21_666_432,
                "facebook/deit-small-distilled-patch16-224", "deit_small_distilled_patch16_224_imagenet",
                _size(*_SMALL, patch_size=16)),
    HubBackbone("deit_base", FAMILIES["deit"], (224, 224), 768, 85_800_192,
                "facebook/deit-base-distilled-patch16-224", "deit_base_distilled_patch16_224_imagenet",
                _size(*_BASE, patch_size=16)),
    # Swin; its window does not let it take another size than a multiple of 224.
    HubBackbone("swin_tiny", FAMILIES["swin"], (224, 224), 768, 27_519_354,
                "microsoft/swin-tiny-patch4-window7-224", "swin_tiny_patch4_window7_224",
                _swin(96, (2, 2, 6, 2), (3, 6, 12, 24))),
    HubBackbone("swin_small", FAMILIES["swin"], (224, 224), 768, 48_837_258,
                "microsoft/swin-small-patch4-window7-224", "swin_small_patch4_window7_224",
                _swin(96, (2, 2, 18, 2), (3, 6, 12, 24))),
    HubBackbone("swin_base", FAMILIES["swin"], (224, 224), 1024, 86_743_224,
                "microsoft/swin-base-patch4-window7-224", "swin_base_patch4_window7_224",
                _swin(128, (2, 2, 18, 2), (4, 8, 16, 32))),
    HubBackbone("swin_large", FAMILIES["swin"], (224, 224), 1536, 194_995_476,
                "microsoft/swin-large-patch4-window7-224", "swin_large_patch4_window7_224",
                _swin(192, (2, 2, 18, 2), (6, 12, 24, 48))),
    # SigLIP and SigLIP 2: the vision tower.
    HubBackbone("siglip_base_16", FAMILIES["siglip"], (224, 224), 768, 92_884_420,
                "google/siglip-base-patch16-224", "siglip_base_patch16_224",
                _size(*_BASE, patch_size=16)),
    HubBackbone("siglip_large_16", FAMILIES["siglip"], (256, 256), 1024, 315_956_480,
                "google/siglip-large-patch16-256", "siglip_large_patch16_256",
                _size(*_LARGE, patch_size=16)),
    HubBackbone("siglip_so400m_14", FAMILIES["siglip"], (224, 224), 1152, 427_680_960,
                "google/siglip-so400m-patch14-224", "siglip_so400m_patch14_224",
                _size(*_SO400M, patch_size=14)),
    HubBackbone("siglip2_base_16", FAMILIES["siglip"], (224, 224), 768, 92_884_420,
                "google/siglip2-base-patch16-224", "siglip2_base_patch16_224",
                _size(*_BASE, patch_size=16), _SIGLIP2),
    HubBackbone("siglip2_large_16", FAMILIES["siglip"], (256, 256), 1024, 315_956_480,
                "google/siglip2-large-patch16-256", "siglip2_large_patch16_256",
                _size(*_LARGE, patch_size=16), _SIGLIP2),
    HubBackbone("siglip2_so400m_14", FAMILIES["siglip"], (224, 224), 1152, 427_680_960,
                "google/siglip2-so400m-patch14-224", "siglip2_so400m_patch14_224",
                _size(*_SO400M, patch_size=14), _SIGLIP2),
    # CLIP: the vision tower, before its projection.
    HubBackbone("clip_base_32", FAMILIES["clip"], (224, 224), 768, 87_456_050,
                "openai/clip-vit-base-patch32", "clip_vit_base_patch32",
                _size(*_BASE, patch_size=32)),
    HubBackbone("clip_base_16", FAMILIES["clip"], (224, 224), 768, 85_799_621,
                "openai/clip-vit-base-patch16", "clip_vit_base_patch16",
                _size(*_BASE, patch_size=16)),
    HubBackbone("clip_large_14", FAMILIES["clip"], (224, 224), 1024, 303_180_033,
                "openai/clip-vit-large-patch14", "clip_vit_large_patch14",
                _size(*_LARGE, patch_size=14)),
)

# fmt: on


def rows_of(family: str) -> list[HubBackbone]:
    """Return the rows of a family, the smallest first."""
    return [row for row in HUB_BACKBONES if row.family.name == family]


def no_size(family: str) -> UsageError:
    """Return the error for a family without weights to say its size."""
    return UsageError(f"'{family}' without weights has no size: name one, such as {rows_of(family)[0].name}.")
