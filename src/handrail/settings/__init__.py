"""Where every value comes from, and the frozen snapshot that everything else reads."""
