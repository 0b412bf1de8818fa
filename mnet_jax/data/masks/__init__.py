"""Images with the class of every pixel: what TFDS sets have, and folders of images with masks."""
