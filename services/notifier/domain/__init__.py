"""The notifier's decisions, free of I/O: what is said, to whom, by which output, and when it is tried again."""
