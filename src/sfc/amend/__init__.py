"""Tags or photographs of a run were corrected: what to make again."""
