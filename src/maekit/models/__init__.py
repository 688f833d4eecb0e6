"""Masked autoencoders over native timm encoders."""
