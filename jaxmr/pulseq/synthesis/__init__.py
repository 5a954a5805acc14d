"""From a `Sequence` of moments and times to blocks that a scanner can play."""
