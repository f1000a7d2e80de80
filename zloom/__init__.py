"""zloom: a control plane for PyTorch training that is already running."""
