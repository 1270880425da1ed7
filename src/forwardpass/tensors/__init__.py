"""Trees of tensors: named paths, stacking and padding along named axes, distances."""
