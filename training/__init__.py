"""PyTorch: the models, the rain, the data, the losses and the training run."""
