"""What RF, relaxation, gradients and time do to the magnetisation of one voxel; pure functions."""
