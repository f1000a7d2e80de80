"""Steering of what PyTorch itself has: an optimizer and its schedulers, whoever runs the loop."""
