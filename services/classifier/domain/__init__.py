"""The decisions of the classifier: pure functions over messages, rules as data, no I/O but reading the rules once."""
