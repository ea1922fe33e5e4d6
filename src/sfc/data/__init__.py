"""Data sets: records, readers, image files, the synthetic benchmark."""
