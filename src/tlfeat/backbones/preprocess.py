"""Pixels of 0 to 255 as a network was trained to see them."""

from __future__ import annotations

from typing import Any

import numpy as np

#: What is done to pixels of 0 to 255 before the first layer; the modes of keras.applications and three more.
PREPROCESS = {
    "tf": "x / 127.5 - 1",
    "caffe": "RGB to BGR, minus the ImageNet mean 103.939, 116.779, 123.68",
    "torch": "x / 255, minus the ImageNet mean 0.485, 0.456, 0.406, over 0.229, 0.224, 0.225",
    "clip": "x / 255, minus CLIP's mean 0.481, 0.458, 0.408, over 0.269, 0.261, 0.276",
    "0-1": "x / 255",
    "none": "x (the network rescales inside)",
}


#: Of the modes that have them: mean and standard deviation of red, green and blue, of pixels of 0 to 1.
MEAN_AND_STD = {
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


def preprocess(x: Any, mode: str) -> Any:
    """Scale float32 RGB pixels of 0 to 255 as the backbone was trained; the only place where this is done.

    Parameters
    ----------
    x : float32 tensor of shape (n, height, width, 3)
    mode : str
        One of `PREPROCESS`.
    """
    if mode == "tf":
        return x / 127.5 - 1.0
    if mode == "caffe":
        return x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    if mode in MEAN_AND_STD:
        mean, std = (np.array(values, np.float32) for values in MEAN_AND_STD[mode])
        return (x / 255.0 - mean) / std
    return x / 255.0 if mode == "0-1" else x
