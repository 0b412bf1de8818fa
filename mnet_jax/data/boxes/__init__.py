"""Folders of images with boxes: `folder.py` is the source of examples, and a file each reads a format of labels."""
