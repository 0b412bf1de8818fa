"""Trains torchvision's SSDLite on MobileNetV2 for so many minutes, and writes what it finds; `train_boxes.py` runs it.

    python tests/scripts/peer_torch_train_boxes.py FOLDER --minutes M     (an environment with torch and torchvision)

FOLDER has images.json and backbone.npz, which `train_boxes.py` writes. Head, anchors, losses and suppression are
torchvision's, as its ssdlite320_mobilenet_v3_large has them; the recipe is its references/detection README's for that
network (SGD, 0.15 for 192 images a step, momentum 0.9, weight decay 4e-5, cosine, the policy "ssdlite": IoU crops and
mirror images), in batches of 16, with the cosine over the minutes. Images are decoded once, before the clock starts.
"""

import argparse
import functools
import json
import math
import pathlib
import time

import numpy as np
import torch
from peer_torch_boxes import import_torchvision

BATCH, SIZE = 16, 320


def suppress(boxes, scores, threshold):
    """torchvision's nms, whose compiled form is not there; boxes [N, 4], the kept ones from the best."""
    order = scores.argsort(descending=True)
    boxes = boxes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    shared = (torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(boxes[:, None, :2], boxes[:, :2])).clamp(
        0
    )
    shared = shared.prod(-1)
    overlaps = shared / (areas[:, None] + areas - shared) > threshold
    kept = []
    gone = torch.zeros(len(order), dtype=torch.bool)
    for place in range(len(order)):
        if not gone[place]:
            kept.append(place)
            gone |= overlaps[place]
    return order[kept]


def build(num_classes, backbone):
    """Returns torchvision's detector on its mobilenet_v2 x0.35 with the given arrays in the backbone."""
    from torchvision.models import mobilenet_v2
    from torchvision.models.detection import _utils, ssd, ssdlite
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

    norm = functools.partial(torch.nn.BatchNorm2d, eps=0.001, momentum=0.03)
    network = mobilenet_v2(width_mult=0.35, norm_layer=norm)
    there = {name: torch.from_numpy(array) for name, array in backbone.items()}
    missing = network.load_state_dict(there, strict=False)
    assert not missing.unexpected_keys, missing
    assert all("classifier" in name or "num_batches" in name for name in missing.missing_keys), missing
    strided = [index for index, block in enumerate(network.features) if getattr(block, "_is_cn", False)][-1]
    network.features[strided].block = network.features[strided].conv  # V3's name, which the extractor asks for
    features = ssdlite._mobilenet_extractor(network, 6, norm)
    anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    channels = _utils.retrieve_out_channels(features, (SIZE, SIZE))
    head = ssdlite.SSDLiteHead(channels, anchors.num_anchors_per_location(), num_classes + 1, norm)
    return ssd.SSD(
        features, anchors, (SIZE, SIZE), num_classes + 1, head=head, score_thresh=0.001, nms_thresh=0.55,
        detections_per_img=300, topk_candidates=300, image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, required=True)
    args = parser.parse_args()
    import_torchvision()
    import torchvision.ops.boxes
    from PIL import Image

    torchvision.ops.boxes.nms = suppress  # its own asks for compiled operations
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    about = json.loads((args.folder / "images.json").read_text())

    def load(split):
        for one in about[split]:
            with Image.open(one["file"]) as image:
                yield torch.from_numpy(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()), one

    def target(one):
        boxes = tv_tensors.BoundingBoxes(
            torch.tensor(one["boxes"], dtype=torch.float32).reshape(-1, 4), format="XYXY", canvas_size=one["size"]
        )
        return {"boxes": boxes, "labels": torch.tensor(one["classes"], dtype=torch.int64) + 1}

    train = [(tv_tensors.Image(image), target(one)) for image, one in load("train")]
    crop = v2.Compose([v2.RandomIoUCrop(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
                       v2.SanitizeBoundingBoxes()])  # fmt: skip
    torch.manual_seed(0)
    order = np.random.default_rng(0)
    model = build(len(about["classes"]), dict(np.load(args.folder / "backbone.npz"))).train()
    peak = 0.15 * BATCH / 192
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9, weight_decay=4e-5)
    start, steps, total = time.monotonic(), 0, 60 * args.minutes
    while (share := (time.monotonic() - start) / total) < 1:
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (steps + 1) / (len(train) / BATCH)) * 0.5 * (1 + math.cos(math.pi * share))
        batch = [crop(*train[index]) for index in order.choice(len(train), BATCH, replace=False)]
        loss = sum(model([image for image, _ in batch], [one for _, one in batch]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps % 20 == 0:
            rate = steps * BATCH / (time.monotonic() - start)
            print(f"step {steps}  loss {loss.item():.3f}  {rate:.1f} images/s  {100 * share:.0f} %", flush=True)
    model.eval()
    found = []
    with torch.no_grad():
        for image, one in load("test"):
            (result,) = model([image.float() / 255])
            for box, score, label in zip(result["boxes"], result["scores"], result["labels"], strict=True):
                found.append({
                    "image_id": one["id"], "category_id": int(label) - 1, "score": float(score),
                    "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))],
                })  # fmt: skip
    (args.folder / "found.json").write_text(json.dumps({"steps": steps, "found": found}))


if __name__ == "__main__":
    main()
