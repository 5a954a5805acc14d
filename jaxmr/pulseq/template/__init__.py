"""A `Sequence` with changed numbers put back into the file that it was read from."""
