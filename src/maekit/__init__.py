"""maekit: masked autoencoders, from a folder of images to a good encoder."""
