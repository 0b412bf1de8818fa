"""Times a folder of photos of mixed kinds: the check at a run's first start, and at its second.

    python tests/scripts/photo_folder.py PHOTOS [--count 10000] [--keep DIR]

PHOTOS is a folder of real photos in classes. From them comes a folder of --count files, none like another: most are
JPEGs as cameras and phones write them (also progressive, grey, turned by EXIF), one in five of another kind (PNG,
PNG with transparency, WebP, GIF, BMP, TIFF, AVIF), and one in a hundred damaged. Prints a row a start.
"""

import argparse
import concurrent.futures
import io
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from mnet_jax.data import folder, layout, manifest
from mnet_jax.runtime import num_cores

_OTHERS = ("PNG", "PNG", "RGBA", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # in turn, one file in five


def recoded(contents: bytes, number: int) -> bytes:
    """Returns a photo as file `number` has it: a little brighter or darker, and of another kind."""
    rng = np.random.default_rng(number)
    image = Image.open(io.BytesIO(contents)).convert("RGB")
    left, top = rng.integers(0, 8, 2)
    image = image.crop((left, top, *image.size)).point(
        [min(255, int(v * rng.uniform(0.9, 1.1))) for v in range(256)] * 3
    )
    file = io.BytesIO()
    if number % 5 == 0:
        kind = _OTHERS[number // 5 % len(_OTHERS)]
        if kind == "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(file, "PNG" if kind == "RGBA" else kind, **({"quality": 80, "speed": 10} if kind == "AVIF" else {}))
        return file.getvalue()
    options = {"quality": int(rng.integers(80, 96)), "progressive": number % 7 == 1}
    if number % 11 == 3:
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif.tobytes()
    (image.convert("L") if number % 13 == 5 else image).save(file, "JPEG", **options)
    made = file.getvalue()
    if number % 100 == 99:  # cut in the middle, the end as it was
        made = made[: len(made) // 2] + made[-100:]
    return made


def make(photos: pathlib.Path, root: pathlib.Path, count: int) -> int:
    """Writes the folder; returns its bytes."""
    sources = [pathlib.Path(path) for path in layout.files_below(str(photos), str(photos))]

    def write(number: int) -> int:
        source = sources[number % len(sources)]
        contents = recoded(source.read_bytes(), number)
        path = root / source.parent.name / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
        return len(contents)

    with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
        return sum(pool.map(write, range(count)))


def main() -> None:
    """Makes the folder and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument(
        "--keep", type=pathlib.Path, help="make the folder here and leave it, or use the one that is there"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or pathlib.Path(temporary, "photos")
        if not root.exists():
            print(f"{args.count:,} files, {make(args.photos, root, args.count) / 1e6:,.0f} MB")
        noted = str(pathlib.Path(temporary, "photos.csv"))
        for name, known in (("first start", None), ("second start", noted), ("again", noted)):
            start, cpu = time.perf_counter(), time.process_time()
            listing = folder.scan(str(root), known)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            if known is None:
                manifest.write(noted, listing.entries(str(root)))
            used = sum(map(len, listing.splits.values()))
            told = f"{used:,} used, {len(listing.left_out)} left out"
            print(f"{name:<13} {seconds:6.1f} s, {cpu:6.1f} s of processors; {told}")


if __name__ == "__main__":
    main()
