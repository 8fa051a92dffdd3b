"""Length policies decide when a drafter stops; they may look at the draft alone."""
