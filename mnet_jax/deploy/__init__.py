"""From a plan and its variables to files that other runtimes run: one folded graph, one writer a format."""
