"""Published weights -> trained models: where they are, how their images are prepared, what their arrays are called."""
