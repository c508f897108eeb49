"""From a file to images with their geometry and header, or to the reason why there is none: one module a format."""
