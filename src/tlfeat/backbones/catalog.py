"""The table of backbones: every architecture of ``keras.applications`` (3.15), as plain data.

Vision transformers have a table of their own in `hub_catalog`; `find` knows both.

Nothing here imports Keras or numpy, so that names can be completed, listed and checked at once.
``tools/verify_catalog.py`` compares every entry with an installed Keras.

The licence is that of the weights. Where Keras' documentation names one (ConvNeXt, EfficientNet,
EfficientNetV2 and MobileNetV3 have none there) it is that, else the licence of the repository in
parentheses, which the weights were converted from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tlfeat.backbones.hub_catalog import FAMILIES, HUB_BACKBONES, Family, HubBackbone
from tlfeat.errors import UsageError, nearest

Preprocess = Literal["tf", "caffe", "torch", "none"]

#: How pictures are resized for networks that have no way of their own; ``images.resizing.RESIZE``.
USUAL_RESIZE: Final = "antialias"


@dataclass(frozen=True, slots=True)
class Backbone:
    """One architecture of ``keras.applications`` with its ImageNet weights.

    Attributes
    ----------
    name : str
        tlfeat's name.
    keras_name : str
        Attribute of ``keras.applications``.
    input_size : tuple of int
        Height and width in pixels that the ImageNet weights were made for.
    preprocess : {"tf", "caffe", "torch", "none"}
        What the pixels need before the first layer. "tf": scaled to [-1, 1]. "caffe": BGR, minus the
        ImageNet mean. "torch": scaled to [0, 1], then ImageNet mean and standard deviation per channel.
        "none": 0 to 255 as they are, the graph rescales.
    width : int
        Columns of the pooled output (``include_top=False, pooling="avg"``). ConvNeXt alone applies one more
        layer to it, a LayerNormalization, within the same call.
    pooled_layer : str
        Keras layer whose map is pooled. MobileNetV3, NASNet and ConvNeXt leave it unnamed: ``activation_17``,
        ``re_lu_22`` or ``add_17`` is its name after ``keras.backend.clear_session()``, and a second model in
        the same session gets other numbers. ConvNeXt's is an operation (in ``model.operations``), no layer.
    parameters : int
        Number of parameters of ``include_top=False``.
    weights_file : str
        Name under which Keras keeps the weights without the top in ``~/.keras/models``.
    weights_folder : str
        URL of the folder that Keras downloads them from.
    paper : str
        Authors, short title, year of the preprint, arXiv number.
    licence : str
        Licence of the weights.
    arguments : tuple of (str, value) pairs
        Further keyword arguments of the Keras function.
    remote_file : str
        Name in `weights_folder`, where it is not `weights_file`.
    resize : str
        How its own pictures were resized, and how they are where nothing else is asked for: one of
        ``images.resizing.RESIZES``.
    """

    name: str
    keras_name: str
    input_size: tuple[int, int]
    preprocess: Preprocess
    width: int
    pooled_layer: str
    parameters: int
    weights_file: str
    weights_folder: str
    paper: str
    licence: str
    arguments: tuple[tuple[str, float | bool | str], ...] = ()
    remote_file: str = ""
    resize: str = USUAL_RESIZE

    @property
    def weights_url(self) -> str:
        """The URL that Keras downloads the weights from."""
        return f"{self.weights_folder}/{self.remote_file or self.weights_file}"


_KERAS_URL: Final = "https://storage.googleapis.com/tensorflow/keras-applications"

_TF: Final = "_weights_tf_dim_ordering_tf_kernels"

# weights_folder, paper, licence
_CONVNEXT: Final = (
    f"{_KERAS_URL}/convnext",
    "Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s. 2022, arXiv:2201.03545",
    "MIT (facebookresearch/ConvNeXt)",
)

_DENSENET: Final = (
    f"{_KERAS_URL}/densenet",
    "Huang, Liu, van der Maaten, Weinberger: Densely Connected Networks. 2016, arXiv:1608.06993",
    "BSD-3-Clause",
)

_EFFICIENTNET: Final = (
    "https://storage.googleapis.com/keras-applications",
    "Tan, Le: EfficientNet. 2019, arXiv:1905.11946",
    "Apache-2.0 (tensorflow/tpu)",
)

_EFFICIENTNET_V2: Final = (
    f"{_KERAS_URL}/efficientnet_v2",
    "Tan, Le: EfficientNetV2. 2021, arXiv:2104.00298",
    "Apache-2.0 (google/automl)",
)

_INCEPTION: Final = (
    f"{_KERAS_URL}/inception_v3",
    "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking Inception. 2015, arXiv:1512.00567",
    "Apache-2.0",
)

_INCEPTION_RESNET: Final = (
    f"{_KERAS_URL}/inception_resnet_v2",
    "Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet. 2016, arXiv:1602.07261",
    "Apache-2.0",
)

_MOBILENET: Final = (
    f"{_KERAS_URL}/mobilenet",
    "Howard, Zhu, Chen, Kalenichenko, Wang et al.: MobileNets. 2017, arXiv:1704.04861",
    "Apache-2.0",
)

_MOBILENET_V2: Final = (
    f"{_KERAS_URL}/mobilenet_v2",
    "Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2. 2018, arXiv:1801.04381",
    "Apache-2.0",
)

_MOBILENET_V3: Final = (
    f"{_KERAS_URL}/mobilenet_v3",
    "Howard, Sandler, Chu, Chen, Chen et al.: Searching for MobileNetV3. 2019, arXiv:1905.02244",
    "Apache-2.0 (tensorflow/models)",
)

_NASNET: Final = (
    f"{_KERAS_URL}/nasnet",
    "Zoph, Vasudevan, Shlens, Le: Learning Transferable Architectures. 2017, arXiv:1707.07012",
    "Apache-2.0",
)

_RESNET: Final = (
    f"{_KERAS_URL}/resnet",
    "He, Zhang, Ren, Sun: Deep Residual Learning. 2015, arXiv:1512.03385",
    "MIT",
)

_RESNET_V2: Final = (
    f"{_KERAS_URL}/resnet",
    "He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks. 2016, arXiv:1603.05027",
    "BSD-3-Clause",
)

_VGG_PAPER: Final = "Simonyan, Zisserman: Very Deep Convolutional Networks. 2014, arXiv:1409.1556"

_VGG16: Final = (f"{_KERAS_URL}/vgg16", _VGG_PAPER, "CC BY 4.0")

_VGG19: Final = (f"{_KERAS_URL}/vgg19", _VGG_PAPER, "CC BY 4.0")

_XCEPTION: Final = (f"{_KERAS_URL}/xception", "Chollet: Xception. 2016, arXiv:1610.02357", "MIT")

# name, keras_name, input_size, preprocess, width, pooled_layer,
# parameters, weights_file, *(weights_folder, paper, licence), arguments
# fmt: off
BACKBONES: Final[tuple[Backbone, ...]] = (
    # ConvNeXt: base, large and xlarge were pretrained on ImageNet-21k, then fine-tuned like the others.
    Backbone("convnext_tiny", "ConvNeXtTiny", (224, 224), "none", 768, "add_17",
             27_820_128, "convnext_tiny_notop.h5", *_CONVNEXT),
    Backbone("convnext_small", "ConvNeXtSmall", (224, 224), "none", 768, "add_35",
             49_454_688, "convnext_small_notop.h5", *_CONVNEXT),
    Backbone("convnext_base", "ConvNeXtBase", (224, 224), "none", 1024, "add_35",
             87_566_464, "convnext_base_notop.h5", *_CONVNEXT),
    Backbone("convnext_large", "ConvNeXtLarge", (224, 224), "none", 1536, "add_35",
             196_230_336, "convnext_large_notop.h5", *_CONVNEXT),
    Backbone("convnext_xlarge", "ConvNeXtXLarge", (224, 224), "none", 2048, "add_35",
             348_147_968, "convnext_xlarge_notop.h5", *_CONVNEXT),
    # DenseNet
    Backbone("densenet121", "DenseNet121", (224, 224), "torch", 1024, "relu",
             7_037_504, f"densenet121{_TF}_notop.h5", *_DENSENET),
    Backbone("densenet169", "DenseNet169", (224, 224), "torch", 1664, "relu",
             12_642_880, f"densenet169{_TF}_notop.h5", *_DENSENET),
    Backbone("densenet201", "DenseNet201", (224, 224), "torch", 1920, "relu",
             18_321_984, f"densenet201{_TF}_notop.h5", *_DENSENET),
    # EfficientNet: with weights="imagenet", not with None or a path, Keras adds a Rescaling by 1/sqrt(std)
    # per channel after the Normalization. The weights need it, and load silently without it.
    Backbone("efficientnet_b0", "EfficientNetB0", (224, 224), "none", 1280, "top_activation",
             4_049_571, "efficientnetb0_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b1", "EfficientNetB1", (240, 240), "none", 1280, "top_activation",
             6_575_239, "efficientnetb1_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b2", "EfficientNetB2", (260, 260), "none", 1408, "top_activation",
             7_768_569, "efficientnetb2_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b3", "EfficientNetB3", (300, 300), "none", 1536, "top_activation",
             10_783_535, "efficientnetb3_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b4", "EfficientNetB4", (380, 380), "none", 1792, "top_activation",
             17_673_823, "efficientnetb4_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b5", "EfficientNetB5", (456, 456), "none", 2048, "top_activation",
             28_513_527, "efficientnetb5_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b6", "EfficientNetB6", (528, 528), "none", 2304, "top_activation",
             40_960_143, "efficientnetb6_notop.h5", *_EFFICIENTNET),
    Backbone("efficientnet_b7", "EfficientNetB7", (600, 600), "none", 2560, "top_activation",
             64_097_687, "efficientnetb7_notop.h5", *_EFFICIENTNET),
    # EfficientNetV2
    Backbone("efficientnet_v2_b0", "EfficientNetV2B0", (224, 224), "none", 1280, "top_activation",
             5_919_312, "efficientnetv2-b0_notop.h5", *_EFFICIENTNET_V2),
    Backbone("efficientnet_v2_b1", "EfficientNetV2B1", (240, 240), "none", 1280, "top_activation",
             6_931_124, "efficientnetv2-b1_notop.h5", *_EFFICIENTNET_V2),
    Backbone("efficientnet_v2_b2", "EfficientNetV2B2", (260, 260), "none", 1408, "top_activation",
             8_769_374, "efficientnetv2-b2_notop.h5", *_EFFICIENTNET_V2),
    Backbone("efficientnet_v2_b3", "EfficientNetV2B3", (300, 300), "none", 1536, "top_activation",
             12_930_622, "efficientnetv2-b3_notop.h5", *_EFFICIENTNET_V2),
    Backbone("efficientnet_v2_s", "EfficientNetV2S", (384, 384), "none", 1280, "top_activation",
             20_331_360, "efficientnetv2-s_notop.h5", *_EFFICIENTNET_V2),
    Backbone("efficientnet_v2_m", "EfficientNetV2M", (480, 480), "none", 1280, "top_activation",
             53_150_388, "efficientnetv2-m_notop.h5", *_EFFICIENTNET_V2),
    Backbone("efficientnet_v2_l", "EfficientNetV2L", (480, 480), "none", 1280, "top_activation",
             117_746_848, "efficientnetv2-l_notop.h5", *_EFFICIENTNET_V2),
    # Inception
    Backbone("inception_v3", "InceptionV3", (299, 299), "tf", 2048, "mixed10",
             21_802_784, f"inception_v3{_TF}_notop.h5", *_INCEPTION),
    Backbone("inception_resnet_v2", "InceptionResNetV2", (299, 299), "tf", 1536, "conv_7b_ac",
             54_336_736, f"inception_resnet_v2{_TF}_notop.h5", *_INCEPTION_RESNET),
    # MobileNet: Keras has other weights for inputs of 128, 160 and 192 pixels; these are those for 224.
    Backbone("mobilenet_0.25", "MobileNet", (224, 224), "tf", 256, "conv_pw_13_relu",
             218_544, "mobilenet_2_5_224_tf_no_top.h5", *_MOBILENET, (("alpha", 0.25),)),
    Backbone("mobilenet_0.5", "MobileNet", (224, 224), "tf", 512, "conv_pw_13_relu",
             829_536, "mobilenet_5_0_224_tf_no_top.h5", *_MOBILENET, (("alpha", 0.5),)),
    Backbone("mobilenet_0.75", "MobileNet", (224, 224), "tf", 768, "conv_pw_13_relu",
             1_832_976, "mobilenet_7_5_224_tf_no_top.h5", *_MOBILENET, (("alpha", 0.75),)),
    Backbone("mobilenet", "MobileNet", (224, 224), "tf", 1024, "conv_pw_13_relu",
             3_228_864, "mobilenet_1_0_224_tf_no_top.h5", *_MOBILENET),
    # MobileNetV2: likewise, and for 96 pixels.
    Backbone("mobilenet_v2_0.35", "MobileNetV2", (224, 224), "tf", 1280, "out_relu",
             410_208, f"mobilenet_v2{_TF}_0.35_224_no_top.h5", *_MOBILENET_V2, (("alpha", 0.35),)),
    Backbone("mobilenet_v2_0.5", "MobileNetV2", (224, 224), "tf", 1280, "out_relu",
             706_224, f"mobilenet_v2{_TF}_0.5_224_no_top.h5", *_MOBILENET_V2, (("alpha", 0.5),)),
    Backbone("mobilenet_v2_0.75", "MobileNetV2", (224, 224), "tf", 1280, "out_relu",
             1_382_064, f"mobilenet_v2{_TF}_0.75_224_no_top.h5", *_MOBILENET_V2, (("alpha", 0.75),)),
    Backbone("mobilenet_v2", "MobileNetV2", (224, 224), "tf", 1280, "out_relu",
             2_257_984, f"mobilenet_v2{_TF}_1.0_224_no_top.h5", *_MOBILENET_V2),
    Backbone("mobilenet_v2_1.3", "MobileNetV2", (224, 224), "tf", 1664, "out_relu",
             3_766_048, f"mobilenet_v2{_TF}_1.3_224_no_top.h5", *_MOBILENET_V2, (("alpha", 1.3),)),
    Backbone("mobilenet_v2_1.4", "MobileNetV2", (224, 224), "tf", 1792, "out_relu",
             4_363_712, f"mobilenet_v2{_TF}_1.4_224_no_top.h5", *_MOBILENET_V2, (("alpha", 1.4),)),
    # MobileNetV3
    Backbone("mobilenet_v3_small_0.75", "MobileNetV3Small", (224, 224), "none", 432, "activation_17",
             583_160, "weights_mobilenet_v3_small_224_0.75_float_no_top_v2.h5", *_MOBILENET_V3,
             (("alpha", 0.75),)),
    Backbone("mobilenet_v3_small", "MobileNetV3Small", (224, 224), "none", 576, "activation_17",
             939_120, "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", *_MOBILENET_V3),
    Backbone("mobilenet_v3_small_minimalistic", "MobileNetV3Small", (224, 224), "none", 576, "re_lu_22",
             441_000, "weights_mobilenet_v3_small_minimalistic_224_1.0_float_no_top_v2.h5", *_MOBILENET_V3,
             (("minimalistic", True),)),
    Backbone("mobilenet_v3_large_0.75", "MobileNetV3Large", (224, 224), "none", 720, "activation_19",
             1_808_736, "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5", *_MOBILENET_V3,
             (("alpha", 0.75),)),
    Backbone("mobilenet_v3_large", "MobileNetV3Large", (224, 224), "none", 960, "activation_19",
             2_996_352, "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", *_MOBILENET_V3),
    Backbone("mobilenet_v3_large_minimalistic", "MobileNetV3Large", (224, 224), "none", 960, "re_lu_30",
             1_437_608, "weights_mobilenet_v3_large_minimalistic_224_1.0_float_no_top_v2.h5", *_MOBILENET_V3,
             (("minimalistic", True),)),
    # NASNet: its files have another name in Keras' cache than on the server.
    Backbone("nasnet_mobile", "NASNetMobile", (224, 224), "tf", 1056, "activation_187",
             4_269_716, "nasnet_mobile_no_top.h5", *_NASNET, remote_file="NASNet-mobile-no-top.h5"),
    Backbone("nasnet_large", "NASNetLarge", (331, 331), "tf", 4032, "activation_259",
             84_916_818, "nasnet_large_no_top.h5", *_NASNET, remote_file="NASNet-large-no-top.h5"),
    # ResNet
    Backbone("resnet50", "ResNet50", (224, 224), "caffe", 2048, "conv5_block3_out",
             23_587_712, f"resnet50{_TF}_notop.h5", *_RESNET),
    Backbone("resnet101", "ResNet101", (224, 224), "caffe", 2048, "conv5_block3_out",
             42_658_176, f"resnet101{_TF}_notop.h5", *_RESNET),
    Backbone("resnet152", "ResNet152", (224, 224), "caffe", 2048, "conv5_block3_out",
             58_370_944, f"resnet152{_TF}_notop.h5", *_RESNET),
    # ResNetV2
    Backbone("resnet50_v2", "ResNet50V2", (224, 224), "tf", 2048, "post_relu",
             23_564_800, f"resnet50v2{_TF}_notop.h5", *_RESNET_V2),
    Backbone("resnet101_v2", "ResNet101V2", (224, 224), "tf", 2048, "post_relu",
             42_626_560, f"resnet101v2{_TF}_notop.h5", *_RESNET_V2),
    Backbone("resnet152_v2", "ResNet152V2", (224, 224), "tf", 2048, "post_relu",
             58_331_648, f"resnet152v2{_TF}_notop.h5", *_RESNET_V2),
    # VGG
    Backbone("vgg16", "VGG16", (224, 224), "caffe", 512, "block5_pool",
             14_714_688, f"vgg16{_TF}_notop.h5", *_VGG16),
    Backbone("vgg19", "VGG19", (224, 224), "caffe", 512, "block5_pool",
             20_024_384, f"vgg19{_TF}_notop.h5", *_VGG19),
    # Xception
    Backbone("xception", "Xception", (299, 299), "tf", 2048, "block14_sepconv2_act",
             20_861_480, f"xception{_TF}_notop.h5", *_XCEPTION),
)

# fmt: on

_OWN: Final = ("pixels", "digits_cnn")  # tlfeat's own, not of Keras: encoder.PixelEncoder and network.DIGITS

_BY_NAME: Final[dict[str, Backbone | HubBackbone | Family]] = {
    **{backbone.name: backbone for backbone in BACKBONES},
    **{backbone.name: backbone for backbone in HUB_BACKBONES},
    **FAMILIES,
}


def own_resize(name: str) -> str:
    """Return how a backbone has its pictures resized; what is not in the table (a user's own file): the usual way."""
    return _BY_NAME[name].resize if name in _BY_NAME else USUAL_RESIZE


def find(name: str) -> Backbone | HubBackbone | Family:
    """Return the backbone called `name`.

    Parameters
    ----------
    name : str
        One of the names in `BACKBONES` or in `HUB_BACKBONES`, or of a family of these, exactly.

    Raises
    ------
    UsageError
        There is none of that name; the message suggests the nearest one.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        hint = nearest(name, (*_BY_NAME, *_OWN), of="backbones")
        raise UsageError(f"No backbone '{name}'. {hint} `tlfeat backbones` lists all.") from None
