"""torchvision's ssdlite320_mobilenet_v3_large, random weights: saves its state dict, and what it makes of two images.

python tests/scripts/peer_torch_boxes.py FOLDER     (an environment with torch and torchvision)
python tests/scripts/compare_boxes.py FOLDER        (ours)
"""

import pathlib
import sys

import numpy as np
import torch

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def import_torchvision():
    """A torchvision without its compiled operations imports only where they are declared; the network needs none."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for module in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[module]
        for operation in ("nms", "qnms"):
            LIBRARY.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main():
    import_torchvision()
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.models.detection.image_list import ImageList

    folder = pathlib.Path(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).train()
    images = torch.rand(2, 3, 320, 320) * 2 - 1
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:  # its .03 would leave little of the image after the first layers
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
        for _ in range(10):  # running statistics that are those of images
            model.head(list(model.backbone(torch.rand(4, 3, 320, 320) * 2 - 1).values()))
        model.eval()
        maps = list(model.backbone(images).values())
        outputs = model.head(maps)
        anchors = model.anchor_generator(ImageList(images, [(320, 320)] * 2), maps)[0]
    torch.save(model.state_dict(), folder / "detector.pth")
    np.savez(
        folder / "outputs.npz",
        images=images.numpy().transpose(0, 2, 3, 1),
        classes=outputs["cls_logits"].numpy(),
        boxes=outputs["bbox_regression"].numpy(),
        anchors=anchors.numpy(),
        **{f"map_{number}": x.numpy().transpose(0, 2, 3, 1) for number, x in enumerate(maps)},
    )


if __name__ == "__main__":
    main()
