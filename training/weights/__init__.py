"""Weights that ship with derain, one safetensors file and one model card a name."""
