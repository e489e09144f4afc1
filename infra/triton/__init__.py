"""Recognition on Triton: the models, what they compute, and how they are served."""
