"""What the 1,000 classes of ImageNet are called: WordNet number -> a short English name, each name once.

The first or most common word of each WordNet entry, as in the file names of the public "one image a class" sample of
ImageNet; the four names that this leaves twice (crane, maillot) are told apart here.
"""

import pathlib

_FILE = pathlib.Path(__file__).with_suffix(".txt")  # a line a class, in ImageNet's order: number, then the name

NAMES: dict[str, str] = dict(line.split(" ", 1) for line in _FILE.read_text().splitlines())
