"""What the synthetic images are worth: fidelity, utility, and what breaks a classifier. Arrays in, frozen results out, no disk."""
