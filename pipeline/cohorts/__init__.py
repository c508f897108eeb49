"""What belongs to a cohort and not to one run: the key of the pseudonyms, every patient's split, and how often it was judged."""
