"""What the node `Detections` of a graph becomes in each format."""
