"""From files to batches: the only room that imports tensorflow, and it does so only when a data set is opened."""
