"""Between pixels and latents: the input image, the VAE, the MP4."""
