"""The helpers of the other tests' folders, by whose names these modules import them."""

import pathlib
import sys

FOLDERS = ("training", "data", "deploy", "pretrained", "scripts")
sys.path.extend(str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in FOLDERS)
