"""Names that libraries publish MobileNets by and that are not loaded by them, each with the reason."""

_TWO_STAGE = "a detector of two stages (Faster R-CNN), of which mnet_jax has none"
_QNNPACK = "packed int8 of PyTorch: take the float weights of the same network and export them as int8"


def _kaggle(timm: str) -> str:
    return f"on Kaggle, whose client is not used: give the directory that KerasHub downloaded, or load timm/{timm}"


UNSUPPORTED: dict[str, str] = {
    "torchvision/fasterrcnn_mobilenet_v3_large_fpn.COCO_V1": _TWO_STAGE,
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn.COCO_V1": _TWO_STAGE,
    "torchvision/quantized_mobilenet_v2.IMAGENET1K_QNNPACK_V1": _QNNPACK,
    "torchvision/quantized_mobilenet_v3_large.IMAGENET1K_QNNPACK_V1": _QNNPACK,
    "keras_hub/mobilenet_v3_small_050_imagenet": _kaggle("mobilenetv3_small_050"),
    "keras_hub/mobilenet_v3_small_100_imagenet": _kaggle("mobilenetv3_small_100"),
    "keras_hub/mobilenet_v3_large_100_imagenet": _kaggle("mobilenetv3_large_100"),
    "keras_hub/mobilenet_v3_large_100_imagenet_21k": _kaggle("mobilenetv3_large_100.miil_in21k_ft_in1k"),
    "keras_hub/mobilenetv5_300m_enc_gemma3n": _kaggle("mobilenetv5_300m.gemma3n"),
}
