"""What may be kept of a source: an allow-list for headers, a profile for whole DICOM objects, a guard against text in the pixels."""
