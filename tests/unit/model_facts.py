"""What ``model.json`` says of a network that is small enough for the tests."""

MODEL = {
    "shape": [1, 16, 16],
    "classes": ["normal", "nodule"],
    "sigma_data": 0.4,
    "backbone": "unet",
    "objective": "edm",
    "noise_schedule": "edm",
    "network": {"widths": [16, 32], "blocks": 1, "patch": 2, "attention": [4], "dropout": 0.1},
    "checkpointing": False,
    "images": 640,
    "steps": 40,
    "ema": {"widths": [0.05, 0.1], "steps": [10, 20, 30, 40]},
}
