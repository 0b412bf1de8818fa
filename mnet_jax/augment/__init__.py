"""What happens to images on the device while training; shared by the tasks."""
