"""Any number of labels an image: each class is there or not, by itself."""
