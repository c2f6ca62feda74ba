"""classifier: what is it, how urgent, what is missing -> the queue it belongs in."""
