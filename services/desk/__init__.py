"""The agents' side of the queues: claim in order, reply, resolve; the page where the queues are watched."""
