"""Engine: everything that runs on Ray, and the training loop that does not need it."""
