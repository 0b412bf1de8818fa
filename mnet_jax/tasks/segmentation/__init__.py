"""Semantic segmentation: a class for every pixel, by LR-ASPP or DeepLabv3."""
