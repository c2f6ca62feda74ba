"""What the sla_timer decides, free of I/O: `policies` (what is promised), `rules` (which event does what to which
clock), `clocks` (from a ticket's happenings to its clocks and what to tell), `peaks` (when a peak begins and ends).
"""
