"""A made-up operation in virtual time: weeks of traffic, agents and customers, and the real decisions of the sla_timer.

`traffic` says what arrives, `desk` what agents and customers do, `timer` is the service in memory, `world` lets time
pass. `second_opinion` and `invariants` check every step, `figures` and `picture` show what came of it. No clock on the
wall and no chance but that of the seed: the same seed gives the same result, to the byte. See docs/simulation.md.
"""
