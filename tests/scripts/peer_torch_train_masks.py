"""Trains torchvision's LR-ASPP on MobileNetV2 for so many minutes, and writes what it says; `train_masks.py` runs it.

    python tests/scripts/peer_torch_train_masks.py FOLDER --minutes M     (an environment with torch and torchvision)

FOLDER has images.json, maps and backbone.npz, which `train_masks.py` writes. Head, dilation and the maps that the head
takes are torchvision's, by the rules of its lraspp_mobilenet_v3_large; recipe and transforms are those of its
references/segmentation (train.py and presets.py: batches of 8, SGD with 0.01, momentum 0.9, weight decay 1e-4,
polynomial with power 0.9, short side from half to twice its base, mirror images, crops padded by 0 and 255, cross
entropy that passes 255 over), with the polynomial over the minutes. Images are decoded once, before the clock starts.
"""

import argparse
import functools
import json
import pathlib
import time

import numpy as np
import torch
from peer_torch_boxes import import_torchvision


def build(num_classes, backbone):
    """Returns torchvision's segmenter on its mobilenet_v2 x0.35 with the given arrays in the backbone."""
    from torchvision.models import mobilenet_v2
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.lraspp import LRASPP

    # The epsilon is that of the weights; all else is mobilenet_v2's own.
    network = mobilenet_v2(width_mult=0.35, norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=0.001))
    there = {name: torch.from_numpy(array) for name, array in backbone.items()}
    missing = network.load_state_dict(there, strict=False)
    assert not missing.unexpected_keys, missing
    assert all("classifier" in name or "num_batches" in name for name in missing.missing_keys), missing
    features = network.features
    strided = [0] + [i for i, block in enumerate(features) if getattr(block, "_is_cn", False)] + [len(features) - 1]
    for block in features[strided[-2] :]:  # V3's `dilated`: the last stride is taken away, all from there on have 2
        for layer in block.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3):
                layer.stride, layer.dilation, layer.padding = (1, 1), (2, 2), (2, 2)
    low, high = strided[-4], strided[-1]
    getter = IntermediateLayerGetter(features, {str(low): "low", str(high): "high"})
    maps = getter(torch.zeros(1, 3, 64, 64))
    assert [tuple(maps[name].shape[2:]) for name in ("low", "high")] == [(8, 8), (4, 4)]
    return LRASPP(getter, maps["low"].shape[1], maps["high"].shape[1], num_classes)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--image_size", default="240,320")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    args = parser.parse_args()
    size = tuple(int(side) for side in args.image_size.split(","))
    import_torchvision()
    from PIL import Image
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    about = json.loads((args.folder / "images.json").read_text())

    def load(split):
        for one in about[split]:
            with Image.open(one["image"]) as image, Image.open(one["mask"]) as mask:
                pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
                yield tv_tensors.Image(torch.from_numpy(pixels)), tv_tensors.Mask(torch.from_numpy(np.array(mask)))

    fills = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
    prepare = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])  # the weights'
    augment = v2.Compose([
        v2.RandomResize(min(size) // 2, min(size) * 2), v2.RandomHorizontalFlip(),
        v2.RandomCrop(size, pad_if_needed=True, fill=fills),
    ])  # fmt: skip
    train, test = list(load("train")), list(load("test"))
    torch.manual_seed(0)
    order = np.random.default_rng(0)
    model = build(about["num_classes"], dict(np.load(args.folder / "backbone.npz"))).train()
    model = model.to(memory_format=torch.channels_last)  # a tenth quicker
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    start, steps, total = time.monotonic(), 0, 60 * args.minutes
    marked = start
    while (share := (time.monotonic() - start) / total) < 1:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * (1 - share) ** 0.9
        batch = [augment(*train[index]) for index in order.choice(len(train), args.batch_size, replace=False)]
        images = torch.stack([prepare(image) for image, _ in batch]).as_subclass(torch.Tensor)
        masks = torch.stack([mask for _, mask in batch]).as_subclass(torch.Tensor).long()
        found = model(images.contiguous(memory_format=torch.channels_last))["out"]
        loss = torch.nn.functional.cross_entropy(found, masks, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps % 20 == 0:
            now = time.monotonic()
            rate = 20 * args.batch_size / (now - marked)
            marked = now
            print(f"step {steps}  loss {loss.item():.3f}  {rate:.1f} images/s  {100 * share:.0f} %", flush=True)
    images = steps * args.batch_size
    print(f"{steps} steps, {images} images, {images / (time.monotonic() - start):.1f} images/s", flush=True)
    model.eval()
    said = []
    with torch.inference_mode():
        for image, mask in test:
            logits = model(prepare(functional.resize(image, size)).as_subclass(torch.Tensor)[None])["out"]
            large = torch.nn.functional.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
            said.append(large[0].argmax(0).numpy().astype(np.uint8))
    np.savez(args.folder / "said.npz", **{str(number): classes for number, classes in enumerate(said)})
    np.savez(args.folder / "truth.npz", **{str(number): mask.numpy() for number, (_, mask) in enumerate(test)})


if __name__ == "__main__":
    main()
