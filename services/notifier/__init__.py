"""Tells people: customers are acknowledged and answered, leads warned; retried, signed, never a flood."""
