"""Learning from a company's own messages, and measuring: what a file of labelled messages says of a classifier."""
