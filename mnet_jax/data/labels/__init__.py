"""Folders of images with any number of classes each: where these are said, and who is held out."""
