"""A task that is not one of ours: from an image to the middle and the size of what is boxed in it, as a dict."""
