"""torchvision's lraspp_ and deeplabv3_mobilenet_v3_large, random weights: what they make of images, and their speed.

python tests/scripts/peer_torch_masks.py FOLDER               (an environment with torch and torchvision)
python tests/scripts/compare_masks.py FOLDER                  (ours)
python tests/scripts/peer_torch_masks.py train lraspp --image_size 512 --batch_size 4
"""

import pathlib
import sys

import clock
import numpy as np
import torch
from peer_torch_boxes import import_torchvision

SIZES = ((129, 161), (224, 224))


def create(name):
    from torchvision.models import segmentation

    options = {"weights": None, "weights_backbone": None, "num_classes": 21}
    if name == "lraspp":
        return segmentation.lraspp_mobilenet_v3_large(**options)
    return segmentation.deeplabv3_mobilenet_v3_large(**options, aux_loss=True)


def save(folder):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    outputs = {f"images_{h}": torch.randn(2, 3, h, w) for h, w in SIZES}
    for name in ("lraspp", "deeplab"):
        model = create(name).train()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 4:
                    parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            for _ in range(5):  # running statistics that are those of images
                model(torch.randn(4, 3, 128, 128))
            model.eval()
            for h, _ in SIZES:
                found = model(outputs[f"images_{h}"])
                outputs |= {f"{name}_{h}_{what}": x for what, x in found.items()}
        torch.save(model.state_dict(), folder / f"{name}.pth")
    arrays = {key: x.numpy().transpose(0, 2, 3, 1) for key, x in outputs.items()}
    np.savez(folder / "outputs.npz", **arrays)


def time():
    args = clock.options()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = create(args.model)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size)
    if args.variant == "channels_last":
        model, images = (x.to(memory_format=torch.channels_last) for x in (model, images))
    labels = torch.randint(0, 21, (args.batch_size, args.image_size, args.image_size))
    optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)

    def train():
        loss = sum(
            (0.5 if what == "aux" else 1.0) * torch.nn.functional.cross_entropy(x, labels, ignore_index=255)
            for what, x in model(images).items()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer():
        with torch.inference_mode():
            model(images)["out"].argmax(1)

    model.train(args.mode == "train")
    clock.report({"train": train, "infer": infer}[args.mode], args, peer="torchvision", model=args.model)


if __name__ == "__main__":
    import_torchvision()
    save(pathlib.Path(sys.argv[1])) if len(sys.argv) == 2 else time()
