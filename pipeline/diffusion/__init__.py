"""The diffusion core: noise schedules, the denoiser, its objective, guidance, samplers and training, over arrays only."""
