"""A study compares arms over seeds: runs side by side, records that outlive them, and what follows from these alone."""
