"""What is learned: inputs and targets, loss and metrics of a task, with the augmentation that runs on the device."""
