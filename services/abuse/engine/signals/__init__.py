"""How each kind of signal counts: whole numbers only, so that no cut into batches changes a figure."""
