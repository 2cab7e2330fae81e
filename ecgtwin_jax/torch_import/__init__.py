"""Released PyTorch weights, imported."""
