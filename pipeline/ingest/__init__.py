"""Ingest: a hospital's images become de-identified, standardised, split ``uint8`` images with a table of rows."""
