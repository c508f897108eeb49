"""Phantom chest radiographs of invented patients: anatomy, image formation, detector, DICOM objects, identities."""

CLASSES = ("normal", "cardiomegaly", "effusion", "nodule", "pneumothorax")
FINDINGS = CLASSES[1:]
"""What an image can have several of."""
VISITS = (0.35, 0.30, 0.20, 0.15)
"""Shares of the patients who have one, two, three and four of them."""
