"""Compares the crops of data.crop=ssd with torchvision's RandomZoomOut and RandomIoUCrop: the two, drawn many times.

PEERS/bin/python tests/scripts/ssd_crops.py peer crops.npz       # where torch and torchvision are
python tests/scripts/ssd_crops.py compare crops.npz              # where mnet_jax is; prints a table
"""

import argparse

import numpy as np

SETS = {  # height, width, boxes y1, x1, y2, x2
    "one large": (300, 400, [[30, 40, 250, 350]]),
    "one small": (300, 400, [[30, 40, 60, 80]]),
    "two": (480, 640, [[100, 50, 300, 200], [300, 400, 470, 630]]),
    "many": (300, 400, [[20 * i, 30 * i, 20 * i + 50, 30 * i + 60] for i in range(10)]),
}


def peer(path: str, count: int) -> None:
    """Writes the parts (y, x, height, width) that torchvision cuts out, [count, 4] a set, and its canvases."""
    import torch

    # also a torchvision without its compiled operators, none of which is needed here
    torch.library.register_fake = lambda *args, **options: lambda function: function
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    torch.manual_seed(0)
    found = {}
    crop, zoom = v2.RandomIoUCrop(), v2.RandomZoomOut(p=1.0)
    for name, (height, width, boxes) in SETS.items():
        xyxy = torch.tensor(boxes, dtype=torch.float32)[:, [1, 0, 3, 2]]
        given = tv_tensors.BoundingBoxes(xyxy, format="XYXY", canvas_size=(height, width))
        rows = [crop.make_params([given]) for _ in range(count)]
        whole = {"top": 0, "left": 0, "height": height, "width": width}
        found[name] = np.array([[(r or whole)[k] for k in ("top", "left", "height", "width")] for r in rows])
        pads = [zoom.make_params([given])["padding"] for _ in range(count)]  # left, top, right, bottom
        found[f"{name}, canvas"] = np.array([(p[1] + p[3] + height, p[0] + p[2] + width, p[1], p[0]) for p in pads])
    np.savez(path, **found)


def compare(path: str, count: int) -> None:
    """Prints, for each set and number, the largest distance between the two distributions (Kolmogorov-Smirnov)."""
    from scipy import stats

    from mnet_jax.data import crop_ssd
    from mnet_jax.data.tensorflow_setup import graph_function, tf

    theirs = np.load(path)
    rng = np.random.default_rng(0)
    print("set, distance and p-value of y, x, height, width; the share of whole pictures, ours and torchvision's")
    for name, (height, width, boxes) in SETS.items():
        shape, corners = tf.constant([height, width]), tf.constant(boxes, tf.float32)
        draws = tf.data.Dataset.from_tensor_slices(rng.random((count, crop_ssd.NUM_DRAWS), np.float32))
        part = graph_function(lambda d, s=shape, c=corners: crop_ssd.overlapping(s, c, d[4:]))
        canvas = graph_function(lambda d, s=shape: tf.concat(crop_ssd.zoomed_out(s, d[:4], 1.0), 0))
        for which, one in ((name, part), (f"{name}, canvas", canvas)):
            ours = draws.map(one).batch(count).get_single_element().numpy()
            tests = [stats.ks_2samp(ours[:, at], theirs[which][:, at]) for at in range(4)]
            shares = [np.mean((x[:, 2:] == [height, width]).all(1)) for x in (ours, theirs[which])]
            row = ", ".join(f"{t.statistic:.3f} (p {t.pvalue:.2f})" for t in tests)
            print(f"{which:18} {row}; {shares[0]:.3f} {shares[1]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["peer", "compare"])
    parser.add_argument("file")
    parser.add_argument("--count", type=int, default=3000)
    args = parser.parse_args()
    {"peer": peer, "compare": compare}[args.mode](args.file, args.count)
