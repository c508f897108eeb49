"""Phantom chest radiographs of invented patients: anatomy, image formation, detector, DICOM objects, identities."""
