"""ImageNet as people hold it: the forms that are recognised, read in place, or stored as a TFDS set."""
