"""torchvision's or timm's network, channels_last; --variant "" (eager) or "compile"; prints one JSON document.

Training: forward, cross entropy with smoothing, backward, RMSprop with momentum on float32 images; no moving averages.
v2 and v3 are torchvision's, v1 and v4 (and all with --variant timm or timm-compile) timm's. Detectors: torchvision's;
training is its own step on 7 objects an image, with SGD; inference is backbone and heads, without decoding and
suppression, for which it needs operations that not every build has.
"""

import sys

import torch
from clock import options, report

TIMM = {
    "v1": "mobilenetv1_100",
    "v2": "mobilenetv2_100",
    "v3_large": "mobilenetv3_large_100",
    "v3_small": "mobilenetv3_small_100",
    "v4_conv_small": "mobilenetv4_conv_small",
    "v4_conv_medium": "mobilenetv4_conv_medium",
}
TORCHVISION = {"v2": "mobilenet_v2", "v3_large": "mobilenet_v3_large", "v3_small": "mobilenet_v3_small"}
DETECTORS = {"ssdlite320_v3_large": "ssdlite320_mobilenet_v3_large"}


def import_torchvision():
    """A torchvision without its compiled operations imports only where they are declared; these networks need none."""
    try:
        import torchvision
    except RuntimeError:
        for module in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[module]
        for operation in ("nms", "qnms"):
            LIBRARY.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
torchvision = import_torchvision()  # before timm imports it


def build(name, variant):
    if name in TORCHVISION and not variant.startswith("timm"):
        version = f"torchvision {torchvision.__version__}"
        return torchvision.models.get_model(TORCHVISION[name], weights=None), version
    import timm

    return timm.create_model(TIMM[name], pretrained=False), f"timm {timm.__version__}"


def detector(args):
    """Returns what is timed of a detector."""
    build = getattr(torchvision.models.detection, DETECTORS[args.model])
    model = build(weights=None, weights_backbone=None, num_classes=91).to(memory_format=torch.channels_last)
    size = args.image_size
    images = torch.rand(args.batch_size, 3, size, size).to(memory_format=torch.channels_last)
    forward = torch.compile(model) if args.variant.endswith("compile") else model
    if args.mode == "train":
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=4e-5)
        low = torch.rand(args.batch_size, 7, 2) * 0.5 * size
        boxes = torch.cat([low, low + (0.1 + 0.4 * torch.rand(args.batch_size, 7, 2)) * size], -1)
        labels = torch.randint(1, 91, (args.batch_size, 7))
        targets = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]

        def run():
            optimizer.zero_grad(set_to_none=True)
            sum(forward(list(images), targets).values()).backward()
            optimizer.step()

        return run
    model.eval()
    backbone = torch.compile(model.backbone) if args.variant.endswith("compile") else model.backbone

    @torch.inference_mode()
    def run():
        model.head(list(backbone(images).values()))

    return run


def main():
    args = options()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.model in DETECTORS:
        package = f"torchvision {torchvision.__version__}"
        report(detector(args), args, peer=package, torch=torch.__version__, threads=torch.get_num_threads())
        return
    model, package = build(args.model, args.variant)
    model = model.to(memory_format=torch.channels_last)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (args.batch_size,))
    forward = torch.compile(model) if args.variant.endswith("compile") else model
    if args.mode == "train":
        model.train()
        optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=0.002, momentum=0.9)
        loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

        def run():
            optimizer.zero_grad(set_to_none=True)
            loss(forward(images), labels).backward()
            optimizer.step()

    else:
        model.eval()

        @torch.inference_mode()
        def run():
            forward(images)

    report(run, args, peer=package, torch=torch.__version__, threads=torch.get_num_threads())


main()
